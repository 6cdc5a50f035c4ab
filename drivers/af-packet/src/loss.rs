//! The causes of packet loss.

use linecard_pmd::stats::Total;

linecard_pmd::causes! {
    /// Causes on receive. Drops of the kernel are counted separately.
    pub(super) enum RxLoss {
        /// The pool was empty; the frames wait in the ring.
        NoBuffer = ("no_buffer", Total::NoBuffer),
        /// The frame exceeds a ring frame, and the kernel kept only its front.
        Truncated = ("truncated", Total::Error),
        /// The header refers to bytes outside the ring.
        BadFrame = ("bad_frame", Total::Error),
        /// The frame is larger than accepted without `TCP_LRO`, or its header contradicts it.
        BadOffload = ("bad_offload", Total::Error),
    }
}

linecard_pmd::causes! {
    /// Causes on transmit.
    pub(super) enum TxLoss {
        /// The packet exceeds the interface's MTU.
        TooLong = ("too_long", Total::Error),
        /// The packet is shorter than an Ethernet header.
        TooShort = ("too_short", Total::Error),
        /// The interface is down or was removed.
        LinkDown = ("link_down", Total::Error),
        /// The kernel refused the packet for another reason.
        Refused = ("refused", Total::Error),
        /// The requested offload is not possible for the packet.
        BadOffload = ("bad_offload", Total::Error),
        /// The pool had no buffers for segments.
        NoBuffer = ("no_buffer", Total::Error),
        /// Segments that were not sent before the queue ended.
        Stopped = ("stopped", Total::Error),
    }
}

linecard_pmd::soft_causes!(TxLoss);
