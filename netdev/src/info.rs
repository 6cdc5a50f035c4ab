//! The properties of an interface: one answer to `RTM_GETLINK`.

use super::netlink::{Attributes, Message, u16_at, u32_at, u64_at};
use super::{ETHER, LOOPBACK};

/// The bytes of an `ifinfomsg`.
pub(super) const IFINFO: usize = 16;

/// The properties of an interface at one moment.
///
/// ```
/// use linecard_netdev::{Interface, Namespace};
/// let info = Interface::find("port", &Namespace::default(), "lo")?.info()?;
/// assert!(info.index > 0 && info.mtu > 0 && !info.is_ethernet());
/// # Ok::<(), linecard_pmd::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceInfo {
    /// The name, which may change while the index stays.
    pub name: String,
    /// The index, for sockets.
    pub index: u32,
    /// The link type (`ARPHRD_…`): [`ETHER`], [`LOOPBACK`](super::LOOPBACK), …
    pub kind: u16,
    /// The flags (`IFF_UP` and others).
    pub flags: u32,
    /// The largest layer-3 packet, in bytes.
    pub mtu: u32,
    /// The smallest and the largest MTU that the interface accepts; 0 if the driver sets no limit.
    pub mtu_limits: (u32, u32),
    /// The hardware address; `None` if it does not have six bytes.
    pub mac: Option<[u8; 6]>,
    /// The operational state.
    pub oper: OperState,
    /// Whether a cable, or its virtual equivalent, is connected.
    pub carrier: bool,
    /// The numbers of receive and of transmit queues.
    pub queues: (u32, u32),
    /// The driver of a virtual interface (`veth`, `tun`, `bridge`); empty for hardware.
    pub driver: String,
    /// The attributes specific to that kind of interface (`IFLA_INFO_DATA`).
    pub data: Vec<u8>,
    /// The kernel's counters.
    pub stats: KernelStats,
}

/// Operational state of an interface (RFC 2863, `IF_OPER_…`).
///
/// ```
/// use linecard_netdev::OperState;
/// assert_ne!(OperState::default(), OperState::Up);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OperState {
    /// The driver does not report it; with `IFF_RUNNING` it means up (`lo`, tun).
    #[default]
    Unknown,
    /// Frames pass.
    Up,
    /// Frames do not pass, for any reason.
    Down,
}

/// The kernel's counters of an interface (`rtnl_link_stats64`), as seen from the kernel.
///
/// ```
/// use linecard_netdev::KernelStats;
/// assert_eq!(KernelStats::default().rx_packets, 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelStats {
    /// Packets the kernel received.
    pub rx_packets: u64,
    /// Packets the kernel sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets received in error.
    pub rx_errors: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Received packets dropped for lack of room.
    pub rx_dropped: u64,
    /// Packets to send dropped for lack of room.
    pub tx_dropped: u64,
    /// Received packets missed by the device.
    pub rx_missed: u64,
}

impl InterfaceInfo {
    /// Reads an answer; `None` if it does not describe an interface.
    pub(super) fn read(message: &Message) -> Option<Self> {
        let body = message.body(IFINFO)?;
        let mut info = Self {
            kind: u16_at(body, 2)?,
            index: u32_at(body, 4)?,
            flags: u32_at(body, 8)?,
            ..Self::default()
        };
        for (kind, value) in message.attributes(IFINFO) {
            info.note(kind, value);
        }
        (!info.name.is_empty()).then_some(info)
    }

    fn note(&mut self, kind: u16, value: &[u8]) {
        let number = || u32_at(value, 0).unwrap_or_default();
        match kind {
            libc::IFLA_IFNAME => self.name = text(value),
            libc::IFLA_MTU => self.mtu = number(),
            libc::IFLA_MIN_MTU => self.mtu_limits.0 = number(),
            libc::IFLA_MAX_MTU => self.mtu_limits.1 = number(),
            libc::IFLA_ADDRESS => self.mac = value.try_into().ok(),
            libc::IFLA_OPERSTATE => self.oper = oper(value),
            libc::IFLA_CARRIER => self.carrier = value.first() == Some(&1),
            libc::IFLA_NUM_RX_QUEUES => self.queues.0 = number(),
            libc::IFLA_NUM_TX_QUEUES => self.queues.1 = number(),
            libc::IFLA_LINKINFO => self.note_driver(value),
            libc::IFLA_STATS64 => self.stats = KernelStats::read(value),
            _ => {}
        }
    }

    fn note_driver(&mut self, value: &[u8]) {
        for (kind, value) in Attributes(value) {
            match kind {
                libc::IFLA_INFO_KIND => self.driver = text(value),
                libc::IFLA_INFO_DATA => self.data = value.to_vec(),
                _ => {}
            }
        }
    }

    /// Returns a number from the attributes specific to this kind of interface, of four bytes, two or one.
    pub fn datum(&self, kind: u16) -> Option<u32> {
        let (_, value) = Attributes(&self.data).find(|(known, _)| *known == kind)?;
        match value {
            [byte] => Some(u32::from(*byte)),
            [_, _] => u16_at(value, 0).map(u32::from),
            _ => u32_at(value, 0),
        }
    }

    /// Returns whether its frames are Ethernet frames.
    #[must_use]
    pub fn is_ethernet(&self) -> bool {
        self.kind == ETHER
    }

    /// Returns whether it is the loopback interface.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.kind == LOOPBACK
    }

    /// Returns whether it was brought up (`ip link set up`).
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.flags & libc::IFF_UP as u32 != 0
    }

    /// Returns whether frames pass: the interface is up, and its other end is too.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.is_up() && self.flags & libc::IFF_RUNNING as u32 != 0 && self.oper != OperState::Down
    }
}

impl KernelStats {
    fn read(value: &[u8]) -> Self {
        let at = |place: usize| u64_at(value, 8 * place).unwrap_or_default();
        Self {
            rx_packets: at(0),
            tx_packets: at(1),
            rx_bytes: at(2),
            tx_bytes: at(3),
            rx_errors: at(4),
            tx_errors: at(5),
            rx_dropped: at(6),
            tx_dropped: at(7),
            rx_missed: at(15),
        }
    }
}

/// Decodes `IF_OPER_…` of `linux/if.h`: unknown 0, up 6, all between are kinds of down; dormant 5 does not
/// pass frames.
fn oper(value: &[u8]) -> OperState {
    match value.first() {
        Some(6) => OperState::Up,
        None | Some(0) => OperState::Unknown,
        Some(_) => OperState::Down,
    }
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_are_read_in_their_whole_length() {
        let attribute = |kind: u16, value: &[u8]| {
            let head = [(4 + value.len() as u16).to_ne_bytes(), kind.to_ne_bytes()].concat();
            let mut bytes = [&head, value].concat();
            bytes.resize(8, 0);
            bytes
        };
        let short = attribute(2, &0x1234_u16.to_ne_bytes());
        let long = attribute(3, &0x1234_5678_u32.to_ne_bytes());
        let data = [attribute(1, &[7]), short, long, attribute(4, &[1; 3])].concat();
        let info = InterfaceInfo { data, ..InterfaceInfo::default() };
        let data = [1, 2, 3, 4, 5].map(|kind| info.datum(kind));
        assert_eq!(data, [Some(7), Some(0x1234), Some(0x1234_5678), None, None]);
    }
}
