//! The commands of a network device's control queue (virtio 1.3, Network Device: Control Virtqueue; `linux/virtio_net.h`).

use linecard_pmd::filter::{MAX_MULTICAST, MAX_UNICAST};
use linecard_pmd::rss::{KEY_LEN, MAX_TABLE, RssTypes};
use linecard_virtio::Features;

/// A command with its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    /// Whether to receive frames for any station.
    Promiscuous(bool),
    /// Whether to receive frames for any group.
    AllMulticast(bool),
    /// The addresses to receive in the other modes.
    MacTable { unicast: &'a [[u8; 6]], multicast: &'a [[u8; 6]] },
    /// The device's own address.
    MacAddr([u8; 6]),
    /// Accepts the frames of a VLAN.
    VlanAdd(u16),
    /// Rejects the frames of a VLAN.
    VlanDel(u16),
    /// Acknowledges that the address was announced, as the device requested.
    AnnounceAck,
    /// The queue pairs in use.
    QueuePairs(u16),
    /// The offloads that the device may leave to the driver.
    GuestOffloads(Features),
    /// The queue pairs in use, and the queue for each hash.
    Rss { types: RssTypes, table: &'a [u16], pairs: u16, key: &'a [u8; KEY_LEN] },
    /// The hashes to report, without an effect on the choice of the queue.
    Hash { types: RssTypes, key: &'a [u8; KEY_LEN] },
}

/// The bytes of the class and the command.
pub(super) const HEAD: usize = 2;
/// The bytes of the longest command: a table of all addresses that a port can have.
pub(super) const LONGEST: usize = HEAD + 2 * 4 + 6 * (1 + MAX_UNICAST + MAX_MULTICAST);
const _: () = assert!(HEAD + 4 + 2 * (3 + MAX_TABLE) + 1 + KEY_LEN <= LONGEST);

impl Command<'_> {
    /// Returns the command's name in the specification.
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
            Self::GuestOffloads(_) => "VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET",
            Self::Rss { .. } => "VIRTIO_NET_CTRL_MQ_RSS_CONFIG",
            Self::Hash { .. } => "VIRTIO_NET_CTRL_MQ_HASH_CONFIG",
        }
    }

    /// Returns the class and the command.
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
            Self::GuestOffloads(_) => [5, 0],
            Self::Rss { .. } => [4, 1],
            Self::Hash { .. } => [4, 2],
        }
    }

    /// Returns the class, the command and the data, in the device's format.
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
            // The bits have the same numbers as the features.
            Self::GuestOffloads(offloads) => bytes.extend(offloads.bits().to_le_bytes()),
            Self::Rss { types, table, pairs, key } => {
                let mask = u16::try_from(table.len().saturating_sub(1)).unwrap_or(u16::MAX);
                // Packets that are not hashed go to the first queue.
                let head = [mask, 0];
                hashing(&mut bytes, types, head.iter().chain(table).chain([&pairs]), key);
            }
            Self::Hash { types, key } => hashing(&mut bytes, types, &[0; 4], key),
        }
        bytes
    }
}

/// Appends the types, the words between, and the key: `struct virtio_net_rss_config` and
/// `virtio_net_hash_config`.
fn hashing<'a>(
    bytes: &mut Vec<u8>,
    types: RssTypes,
    between: impl IntoIterator<Item = &'a u16>,
    key: &[u8; KEY_LEN],
) {
    bytes.extend(types.bits().to_le_bytes());
    bytes.extend(between.into_iter().flat_map(|word| word.to_le_bytes()));
    bytes.push(KEY_LEN as u8);
    bytes.extend(key);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_the_bytes_of_the_specification() {
        let (a, b, group) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [1, 0, 0x5e, 0, 0, 1]);
        let table = Command::MacTable { unicast: &[a, b], multicast: &[group] };
        let none = Command::MacTable { unicast: &[], multicast: &[] };
        let key: [u8; KEY_LEN] = std::array::from_fn(|at| at as u8 + 100);
        let types = RssTypes::IPV4 | RssTypes::IPV6_UDP;
        let rss = [&[4, 1, 0x21, 0, 0, 0, 1, 0, 0, 0, 3, 0, 1, 2, 0, 5, 40][..], &key].concat();
        let hash = [&[4, 2, 0x21, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 40][..], &key].concat();
        let large = Features::NET_GUEST_CSUM | Features::NET_GUEST_TSO4 | Features::NET_GUEST_USO6;
        let cases: [(Command<'_>, &[u8]); 13] = [
            (Command::GuestOffloads(large), &[5, 0, 0x82, 0, 0, 0, 0, 0, 0x80, 0]),
            (Command::Rss { types, table: &[3, 0x201], pairs: 0x500, key: &key }, &rss),
            (Command::Hash { types, key: &key }, &hash),
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
