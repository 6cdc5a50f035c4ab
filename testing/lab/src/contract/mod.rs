//! The driver contract: the requirements on every driver, as tests that a driver's crate calls.
//!
//! A driver gives the suite a [`Link`], which opens a device and knows what is at its far side. The suite
//! drives the device through the port contract and the far side through [`Peer`], compares every byte and
//! every counter, and checks that all packets return to their pools. A clause panics with a description of
//! the failure.
//!
//! ```text
//!                 FarEnd::Loop      the device sends to itself          net_ring
//!  Device (near)  FarEnd::Nothing   sends to nowhere, receives anything net_null
//!                 FarEnd::Peer      another port, or a hand-driven end  virtio-user ↔ vhost-user, tap, …
//! ```
//!
//! ```
//! use linecard_pmd::{DevArgs, Driver, ProbeContext};
//! use linecard_lab::contract::{self, Ends, FarEnd, Link};
//! use linecard_net_ring::RingDriver;
//!
//! struct Loop;
//! impl Link for Loop {
//!     fn open(&self, near: &ProbeContext, _far: &ProbeContext) -> Ends {
//!         let args = DevArgs::parse("net_ring0").expect("well formed");
//!         Ends { near: RingDriver.probe(near, &args).expect("probes"), far: FarEnd::Loop }
//!     }
//! }
//! contract::burst_sizes(&Loop); // or all of them, as tests: linecard_lab::contract_tests!(Loop);
//! ```

mod bench;
mod chance;
mod clauses;
mod frames;
mod kernel;
mod peer;
mod wake;

pub use chance::{Prng, batches, segmented};
pub use clauses::{
    appended_bursts, burst_sizes, chains, configure_errors, counters, full_rings, lost_queue, other_thread,
    packet_sizes, pool_exhaustion, reconfigures, restarts,
};
pub use kernel::{kernel_counters, link_down, removed};
pub use peer::{Peer, PortPeer};
pub use wake::{wakes, wakes_after};

use linecard_pmd::port::{Device, ProbeContext};

/// A driver's device and its far side.
///
/// ```
/// use linecard_lab::contract::{Ends, FarEnd};
/// let (near, other) = linecard_net_ring::pair("a", "b");
/// let ends = Ends { near, far: FarEnd::port(other) };
/// assert_eq!(ends.near.name(), "a");
/// ```
pub struct Ends {
    /// The device under test, newly opened.
    pub near: Box<dyn Device>,
    /// Its far side.
    pub far: FarEnd,
}

/// The far side of a link.
///
/// ```
/// use linecard_lab::contract::FarEnd;
/// assert!(!matches!(FarEnd::Loop, FarEnd::Peer(_)));
/// ```
pub enum FarEnd {
    /// Packets that the device sends on a queue return on its receive queue of the same number.
    Loop,
    /// Sent packets are discarded; the device receives arbitrary packets.
    Nothing,
    /// An end that sends and receives.
    Peer(Box<dyn Peer>),
}

impl FarEnd {
    /// Returns another port as the far side.
    #[must_use]
    pub fn port(device: Box<dyn Device>) -> Self {
        Self::Peer(Box::new(PortPeer::new(device)))
    }
}

/// The limits of a link.
///
/// ```
/// use linecard_lab::contract::Limits;
/// let tap = Limits { len: 14..=1514, quiet: false, ..Limits::default() };
/// assert_eq!((tap.segments, tap.queues), (5, 2));
/// ```
#[derive(Clone, Debug)]
pub struct Limits {
    /// Shortest and longest frame, in bytes.
    pub len: std::ops::RangeInclusive<usize>,
    /// Most segments of a packet to send.
    pub segments: usize,
    /// Most queue pairs to use at once.
    pub queues: u16,
    /// Only the suite sends on this link. If false, frames without the suite's mark are ignored and counters
    /// may be higher.
    pub quiet: bool,
    /// Frames that the link holds in one direction; it may lose further ones. No limit if it has flow
    /// control.
    pub window: usize,
    /// Receive queues wake sleeping threads, unless they report at times that they cannot.
    pub wakes: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { len: 1..=1514, segments: 5, queues: 2, quiet: true, window: usize::MAX, wakes: true }
    }
}

/// A driver, in the view of the suite.
pub trait Link: Sync {
    /// Opens both ends: the device with `near`, and everything else that needs memory with `far`. Their pools
    /// come from the domains of these contexts.
    fn open(&self, near: &ProbeContext, far: &ProbeContext) -> Ends;

    /// Whether the link can be opened on this machine. If not, it reports the reason (see
    /// [`skip`](crate::skip)), and its tests are skipped.
    fn ready(&self) -> bool {
        true
    }

    /// Returns the limits of the link.
    fn limits(&self) -> Limits {
        Limits::default()
    }
}

/// Defines a test for every clause, for an expression whose value is a [`Link`](crate::contract::Link).
///
/// ```
/// # use linecard_pmd::ProbeContext;
/// # use linecard_lab::contract::{Ends, FarEnd, Link};
/// struct Pair;
/// impl Link for Pair {
///     fn open(&self, _: &ProbeContext, _: &ProbeContext) -> Ends {
///         let (near, other) = linecard_net_ring::pair("a", "b");
///         Ends { near, far: FarEnd::port(other) }
///     }
/// }
/// mod pair {
///     linecard_lab::contract_tests!(super::Pair);
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! contract_tests {
    ($link:expr) => {
        $crate::contract_tests! { @each $link;
            restarts reconfigures burst_sizes appended_bursts packet_sizes chains pool_exhaustion counters full_rings other_thread
            lost_queue configure_errors link_down removed kernel_counters wakes
        }
    };
    (@each $link:expr; $($clause:ident)+) => {
        $(
            #[test]
            fn $clause() {
                let link = $link;
                if $crate::contract::Link::ready(&link) {
                    $crate::contract::$clause(&link);
                }
            }
        )+
    };
}
