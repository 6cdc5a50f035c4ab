//! Backends as ports: the queues that applications poll, and the `net_vhost` driver.

mod control;
mod driver;
mod queues;

pub use driver::VhostDriver;
pub use queues::{Receive, Transmit};

use linecard_pmd::stats::Total;

linecard_pmd::causes! {
    /// Why packets from a frontend were not received.
    pub enum RxLoss {
        /// The pool had no packet at these attempts; the frontend's packets wait in the ring.
        NoBuffer = ("no_buffer", Total::NoBuffer),
        /// The frame was shorter than an Ethernet header, or the buffer shorter than the virtio header.
        Runt = ("runt", Total::Error),
        /// The packet was longer than the maximum.
        TooLong = ("too_long", Total::Error),
        /// The virtio header does not fit its packet, or requests an offload that was not negotiated.
        BadOffload = ("bad_offload_header", Total::Error),
        /// The packet was sent while the ring was disabled.
        Disabled = ("ring_disabled", Total::None),
    }
}

linecard_pmd::causes! {
    /// Why packets were not sent to the frontend.
    pub enum TxLoss {
        /// The packet was longer than the frontend's buffers.
        TooLong = ("too_long", Total::Error),
        /// The offload flags do not fit the packet, or the frontend does not accept the offload.
        BadOffload = ("bad_offload_request", Total::Error),
        /// The pool had no buffers for segments or copies that a software offload needs.
        NoBuffer = ("no_buffer", Total::Error),
        /// Segments that had not been sent when the queue ended.
        Stopped = ("stopped", Total::Error),
        /// Buffers of the frontend that were too short for a header and were returned empty. No packet was
        /// lost.
        RuntBuffer = ("runt_buffer", Total::None),
    }
}

linecard_pmd::soft_causes!(TxLoss);
