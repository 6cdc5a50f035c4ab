//! What every driver must do, as tests that a driver's crate calls.
//!
//! A driver shows the suite a [`Link`]: how to open a device, and what is at its far side. The suite
//! drives the device through the port contract and the far side through [`Peer`], compares every byte
//! and every counter, and finds each pool whole afterwards. A clause panics with what went wrong.
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

/// A driver's device and what is at its far side.
///
/// ```
/// use linecard_lab::contract::{Ends, FarEnd};
/// let (near, other) = linecard_net_ring::pair("a", "b");
/// let ends = Ends { near, far: FarEnd::port(other) };
/// assert_eq!(ends.near.name(), "a");
/// ```
pub struct Ends {
    /// The device under test, fresh.
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
    /// What the device sends on a queue comes back on the receive queue of that number.
    Loop,
    /// What the device sends is gone; it receives whatever it likes.
    Nothing,
    /// Somebody who sends and receives.
    Peer(Box<dyn Peer>),
}

impl FarEnd {
    /// Another port as the far side.
    #[must_use]
    pub fn port(device: Box<dyn Device>) -> Self {
        Self::Peer(Box::new(PortPeer::new(device)))
    }
}

/// What a link can carry.
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
    /// Nobody but the suite sends on this link; where false, frames without the suite's mark are passed
    /// over and counters may show more.
    pub quiet: bool,
    /// Frames that the link holds in one direction; further ones it may lose. No limit where it pushes back.
    pub window: usize,
    /// Receive queues wake whoever sleeps over them, where they do not say otherwise at times.
    pub wakes: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { len: 1..=1514, segments: 5, queues: 2, quiet: true, window: usize::MAX, wakes: true }
    }
}

/// A driver, as the suite sees it.
pub trait Link: Sync {
    /// Opens both ends, fresh: the device with `near`, and what else needs memory with `far`. Their pools
    /// come from the domains of the two.
    fn open(&self, near: &ProbeContext, far: &ProbeContext) -> Ends;

    /// Whether it can be opened on this machine; a link that says false says loudly why (see
    /// [`skip`](crate::skip)), and its tests are passed over.
    fn ready(&self) -> bool {
        true
    }

    /// What the link can carry.
    fn limits(&self) -> Limits {
        Limits::default()
    }
}

/// Makes a test of every clause, for the value of an expression that is a [`Link`](crate::contract::Link).
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
