//! The commands of a network device's control queue (virtio 1.3, Network Device: Control Virtqueue; `linux/virtio_net.h`).

use linecard_pmd::filter::{MAX_MULTICAST, MAX_UNICAST};

/// A command with its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    /// Frames to any station.
    Promiscuous(bool),
    /// Frames to any group.
    AllMulticast(bool),
    /// Addresses to receive in the other modes.
    MacTable { unicast: &'a [[u8; 6]], multicast: &'a [[u8; 6]] },
    /// The device's own address.
    MacAddr([u8; 6]),
    /// Frames of a VLAN pass.
    VlanAdd(u16),
    /// Frames of a VLAN do not.
    VlanDel(u16),
    /// The address was announced, as the device asked.
    AnnounceAck,
    /// Queue pairs in use.
    QueuePairs(u16),
}

/// Bytes of class and command.
pub(super) const HEAD: usize = 2;
/// Bytes of the longest command: a table of all addresses that a port has.
pub(super) const LONGEST: usize = HEAD + 2 * 4 + 6 * (1 + MAX_UNICAST + MAX_MULTICAST);

impl Command<'_> {
    /// Its name in the specification.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Promiscuous(_) => "VIRTIO_NET_CTRL_RX_PROMISC",
            Self::AllMulticast(_) => "VIRTIO_NET_CTRL_RX_ALLMULTI",
            Self::MacTable { .. } => "VIRTIO_NET_CTRL_MAC_TABLE_SET",
            Self::MacAddr(_) => "VIRTIO_NET_CTRL_MAC_ADDR_SET",
            Self::VlanAdd(_) => "VIRTIO_NET_CTRL_VLAN_ADD",
            Self::VlanDel(_) => "VIRTIO_NET_CTRL_VLAN_DEL",
            Self::AnnounceAck => "VIRTIO_NET_CTRL_ANNOUNCE_ACK",
            Self::QueuePairs(_) => "VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET",
        }
    }

    /// Class and command.
    const fn code(&self) -> [u8; HEAD] {
        match self {
            Self::Promiscuous(_) => [0, 0],
            Self::AllMulticast(_) => [0, 1],
            Self::MacTable { .. } => [1, 0],
            Self::MacAddr(_) => [1, 1],
            Self::VlanAdd(_) => [2, 0],
            Self::VlanDel(_) => [2, 1],
            Self::AnnounceAck => [3, 0],
            Self::QueuePairs(_) => [4, 0],
        }
    }

    /// Class, command and data, as the device reads them.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.code().to_vec();
        match self {
            Self::Promiscuous(on) | Self::AllMulticast(on) => bytes.push(on.into()),
            Self::MacTable { unicast, multicast } => {
                for list in [unicast, multicast] {
                    bytes.extend(u32::try_from(list.len()).unwrap_or(u32::MAX).to_le_bytes());
                    bytes.extend(list.as_flattened());
                }
            }
            Self::MacAddr(mac) => bytes.extend(mac),
            Self::VlanAdd(vlan) | Self::VlanDel(vlan) => bytes.extend(vlan.to_le_bytes()),
            Self::AnnounceAck => {}
            Self::QueuePairs(pairs) => bytes.extend(pairs.to_le_bytes()),
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_the_bytes_of_the_specification() {
        let (a, b, group) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [1, 0, 0x5e, 0, 0, 1]);
        let table = Command::MacTable { unicast: &[a, b], multicast: &[group] };
        let none = Command::MacTable { unicast: &[], multicast: &[] };
        let cases: [(Command<'_>, &[u8]); 10] = [
            (Command::Promiscuous(true), &[0, 0, 1]),
            (Command::AllMulticast(false), &[0, 1, 0]),
            (none, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            (table, &[1, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 1, 0, 0, 0, 1, 0, 0x5e, 0, 0, 1]),
            (Command::MacAddr(a), &[1, 1, 2, 0, 0, 0, 0, 1]),
            (Command::VlanAdd(0x123), &[2, 0, 0x23, 1]),
            (Command::VlanDel(4095), &[2, 1, 0xff, 0xf]),
            (Command::AnnounceAck, &[3, 0]),
            (Command::QueuePairs(0x8000), &[4, 0, 0, 0x80]),
            (Command::QueuePairs(1), &[4, 0, 1, 0]),
        ];
        for (command, bytes) in cases {
            assert_eq!(command.to_bytes(), bytes, "{}", command.name());
            assert!(bytes.len() <= LONGEST);
        }
    }
}
