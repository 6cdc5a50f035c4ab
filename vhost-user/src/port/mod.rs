//! Backends as ports: the queues that applications poll, and the `net_vhost` driver.

mod control;
mod driver;
mod queues;

pub use driver::VhostDriver;
pub use queues::{Receive, Transmit};

use linecard_pmd::stats::Total;

linecard_pmd::causes! {
    /// Why packets of a frontend did not arrive.
    pub enum RxLoss {
        /// Times the pool had no packet; the frontend's packets wait in the ring.
        NoBuffer = ("no_buffer", Total::NoBuffer),
        /// Shorter than an Ethernet header, or than the header before it.
        Runt = ("runt", Total::Error),
        /// Longer than any packet may be.
        TooLong = ("too_long", Total::Error),
        /// A header that cannot be true of its packet, or asks for what was not negotiated.
        BadOffload = ("bad_offload_header", Total::Error),
        /// Sent while the ring was disabled.
        Disabled = ("ring_disabled", Total::None),
    }
}

linecard_pmd::causes! {
    /// Why packets did not reach the frontend.
    pub enum TxLoss {
        /// Longer than the frontend's buffers can hold.
        TooLong = ("too_long", Total::Error),
        /// Offload flags that do not fit the packet, or that the frontend does not take.
        BadOffload = ("bad_offload_request", Total::Error),
        /// The pool had no buffers for segments or copies that an offload needs in software.
        NoBuffer = ("no_buffer", Total::Error),
        /// Segments that were not sent when the queue ended.
        Stopped = ("stopped", Total::Error),
        /// Buffers of the frontend too short for a header, given back empty. No packet was lost.
        RuntBuffer = ("runt_buffer", Total::None),
    }
}

linecard_pmd::soft_causes!(TxLoss);
