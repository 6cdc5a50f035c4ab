//! Why packets are lost.

use linecard_pmd::stats::Total;

linecard_pmd::causes! {
    /// On receive; what the kernel dropped is counted apart.
    pub(super) enum RxLoss {
        /// The pool was empty; frames wait in the ring.
        NoBuffer = ("no_buffer", Total::NoBuffer),
        /// Longer than a frame of the ring: the kernel kept the front only.
        Truncated = ("truncated", Total::Error),
        /// A frame whose place is not inside its ring.
        BadFrame = ("bad_frame", Total::Error),
        /// Larger than the application takes without receive offload (`TCP_LRO`), or a header that does not fit it.
        BadOffload = ("bad_offload", Total::Error),
    }
}

linecard_pmd::causes! {
    /// On transmit.
    pub(super) enum TxLoss {
        /// Longer than the interface's MTU allows.
        TooLong = ("too_long", Total::Error),
        /// Shorter than an Ethernet header.
        TooShort = ("too_short", Total::Error),
        /// The interface is down or gone.
        LinkDown = ("link_down", Total::Error),
        /// The kernel refused the packet for another reason.
        Refused = ("refused", Total::Error),
        /// What the metadata asks for cannot be done to such a packet.
        BadOffload = ("bad_offload", Total::Error),
        /// The pool had no buffers for segments.
        NoBuffer = ("no_buffer", Total::Error),
        /// Segments that were not sent when the queue ended.
        Stopped = ("stopped", Total::Error),
    }
}

linecard_pmd::soft_causes!(TxLoss);
