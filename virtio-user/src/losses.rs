//! The causes of packet loss, by name.

use linecard_pmd::filter::Filtered;
use linecard_pmd::stats::Total;

linecard_pmd::causes! {
    /// The reasons for which a receive queue drops packets.
    pub(crate) enum RxLoss {
        /// The backend reported fewer bytes than a virtio header and an Ethernet header.
        Runt = ("undersize_packets", Total::Error),
        /// `num_buffers` was 0, or exceeded the available buffers.
        BadNumBuffers = ("bad_num_buffers", Total::Error),
        /// The packet spans more buffers than a packet can have segments.
        TooLong = ("too_long", Total::Error),
        /// The header contradicts its packet, or requests an offload that was not negotiated.
        BadOffload = ("bad_offload_header", Total::Error),
        /// The pool had no buffer to replace a received one.
        NoBuffer = ("no_buffer", Total::NoBuffer),
        /// Unicast to another station, without promiscuous mode.
        ForeignUnicast = ("filtered_unicast_packets", Total::None),
        /// Multicast to a group that the port has not joined, without promiscuous and all-multicast mode.
        ForeignMulticast = ("filtered_multicast_packets", Total::None),
        /// A VLAN that the filter rejects.
        ForeignVlan = ("filtered_vlan_packets", Total::None),
    }
}

impl From<Filtered> for RxLoss {
    fn from(why: Filtered) -> Self {
        match why {
            Filtered::Unicast => Self::ForeignUnicast,
            Filtered::Multicast => Self::ForeignMulticast,
            Filtered::Vlan => Self::ForeignVlan,
        }
    }
}

linecard_pmd::causes! {
    /// The reasons for which a transmit queue drops packets.
    pub(crate) enum TxLoss {
        /// The packet has no bytes.
        Empty = ("empty", Total::Error),
        /// The packet exceeds the length that a peer must accept.
        TooLong = ("too_long", Total::Error),
        /// The backend cannot reach the packet's memory, and the pool had no buffer for a copy.
        NoBuffer = ("no_buffer", Total::Error),
        /// The offload flags do not fit the packet, or the backend does not accept them.
        BadOffload = ("bad_offload_request", Total::Error),
        /// The packet was in flight when the backend was lost or the port was stopped.
        BackendGone = ("backend_gone", Total::Error),
    }
}

linecard_pmd::soft_causes!(TxLoss, stopped: BackendGone);
