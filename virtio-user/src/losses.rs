//! Every way a packet can be lost here, by name.

use linecard_pmd::filter::Filtered;
use linecard_pmd::stats::Total;

linecard_pmd::causes! {
    /// Why a receive queue lost packets.
    pub(crate) enum RxLoss {
        /// The backend reported less than a header and an Ethernet header.
        Runt = ("undersize_packets", Total::Error),
        /// `num_buffers` was 0, or more than there were.
        BadNumBuffers = ("bad_num_buffers", Total::Error),
        /// More buffers than one packet can have.
        TooLong = ("too_long", Total::Error),
        /// A header that cannot be true of its packet, or asks for what was not negotiated.
        BadOffload = ("bad_offload_header", Total::Error),
        /// The pool had no buffer to lend in the place of a received one.
        NoBuffer = ("no_buffer", Total::NoBuffer),
        /// For another station, without promiscuous mode.
        ForeignUnicast = ("filtered_unicast_packets", Total::None),
        /// For a group that the port is not a member of, without promiscuous and all-multicast mode.
        ForeignMulticast = ("filtered_multicast_packets", Total::None),
        /// Of a VLAN that the filter does not allow.
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
    /// Why a transmit queue lost packets.
    pub(crate) enum TxLoss {
        /// No bytes.
        Empty = ("empty", Total::Error),
        /// More bytes than the peer has to take.
        TooLong = ("too_long", Total::Error),
        /// The backend cannot reach the packet's memory, and the pool had no buffer for a copy.
        NoBuffer = ("no_buffer", Total::Error),
        /// Offload flags that do not fit the packet, or that no peer takes.
        BadOffload = ("bad_offload_request", Total::Error),
        /// In flight when the backend was lost, or when the port was stopped.
        BackendGone = ("backend_gone", Total::Error),
    }
}

linecard_pmd::soft_causes!(TxLoss, stopped: BackendGone);
