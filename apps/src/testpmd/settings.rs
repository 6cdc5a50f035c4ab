//! The forwarding configuration: the settings that `set …` changes and `start` reads.

use std::collections::BTreeMap;
use std::fmt;

use super::frames::TxAddresses;
use super::modes::NoisySettings;

/// Burst size by default, and for 0, which means the port's preferred size; no port has one. DPDK's
/// `DEF_PKT_BURST`.
pub(crate) const DEFAULT_BURST: u16 = 32;
/// Largest burst accepted, DPDK's `MAX_PKT_BURST`.
pub(crate) const MAX_BURST: u16 = 512;
/// The most cycles of extra work per packet: far more than any thread that keeps up can spend.
pub(crate) const MAX_WORK_CYCLES: u32 = 1_000_000;
/// Most segments of a generated packet, DPDK's `RTE_MAX_SEGS_PER_PKT`.
pub(crate) const MAX_SEGMENTS: usize = 255;
/// Ethernet, IPv4 and UDP headers: the smallest generated packet.
pub(crate) const MIN_TX_LEN: u32 = 42;

/// The forwarding modes, with DPDK's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ModeKind {
    Io,
    Mac,
    MacSwap,
    FlowGen,
    RxOnly,
    TxOnly,
    IcmpEcho,
    FiveTupleSwap,
    Csum,
    Noisy,
}

impl ModeKind {
    /// Every mode, in the order of DPDK's `set fwd` help.
    pub(crate) const ALL: [Self; 10] = [
        Self::Io,
        Self::Mac,
        Self::MacSwap,
        Self::FlowGen,
        Self::RxOnly,
        Self::TxOnly,
        Self::IcmpEcho,
        Self::FiveTupleSwap,
        Self::Noisy,
        Self::Csum,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::Mac => "mac",
            Self::MacSwap => "macswap",
            Self::FlowGen => "flowgen",
            Self::RxOnly => "rxonly",
            Self::TxOnly => "txonly",
            Self::IcmpEcho => "icmpecho",
            Self::FiveTupleSwap => "5tswap",
            Self::Csum => "csum",
            Self::Noisy => "noisy",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// Whether the mode generates packets, so that the packet length matters.
    pub(crate) const fn generates(self) -> bool {
        matches!(self, Self::TxOnly | Self::FlowGen)
    }
}

/// The transmit port of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortTopology {
    /// 0 ↔ 1, 2 ↔ 3; an odd last port pairs with itself.
    Paired,
    /// 0 → 1 → 2 → 0.
    Chained,
    /// Every port to itself.
    Loop,
}

impl PortTopology {
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "paired" => Some(Self::Paired),
            "chained" => Some(Self::Chained),
            "loop" => Some(Self::Loop),
            _ => None,
        }
    }
}

/// An Ethernet address, displayed in DPDK's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mac(pub(crate) [u8; 6]);

impl Mac {
    /// Reads six colon-separated bytes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next()?;
            if part.is_empty() || part.len() > 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return None;
            }
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        parts.next().is_none().then_some(Self(bytes))
    }

    /// The peer of port `port` unless the user sets one: 02:00:00:00:00:NN.
    pub(crate) fn default_peer(port: u16) -> Self {
        Self([2, 0, 0, 0, 0, (port & 0xff) as u8])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02X}:{b:02X}:{c:02X}:{d:02X}:{e:02X}:{g:02X}")
    }
}

/// Retries when a transmit ring is full; without them packets are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retry {
    pub(crate) enabled: bool,
    pub(crate) delay_us: u32,
    pub(crate) count: u32,
}

/// The forwarding configuration. Changes take effect at the next `start`.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) mode: ModeKind,
    pub(crate) topology: PortTopology,
    pub(crate) retry: Retry,
    /// Packets per burst, 1 to [`MAX_BURST`].
    pub(crate) burst: u16,
    /// Segment lengths of generated packets, in bytes.
    pub(crate) tx_segments: Vec<u16>,
    /// Source and destination of the packets of txonly.
    pub(crate) tx_addresses: TxAddresses,
    /// txonly sends 256 flows in turn.
    pub(crate) tx_multi_flow: bool,
    /// Longest packet that leaves a port with `gso on`, in bytes.
    pub(crate) gso_size: u16,
    /// Flows that flowgen cycles through.
    pub(crate) flows: u32,
    /// Copies that flowgen sends after each packet.
    pub(crate) flow_clones: u16,
    /// The settings of mode noisy.
    pub(crate) noisy: NoisySettings,
    /// Lengths for ports that split received packets; displayed, as in DPDK, but without effect.
    pub(crate) rx_segments: Vec<u16>,
    pub(crate) verbose: u16,
    /// Cycles to spend for each received packet.
    pub(crate) work_cycles: u32,
    /// Counts the cycles of rounds that move packets.
    pub(crate) record_cycles: bool,
    /// Counts packets by size and kind of address, on ports that support it.
    pub(crate) record_classes: bool,
    /// Lets threads sleep while nothing is received.
    pub(crate) rx_interrupt: bool,
    /// Counts bursts by their number of packets.
    pub(crate) record_bursts: bool,
    /// Discards the packets in receive queues before forwarding starts.
    pub(crate) flush_rx: bool,
    pub(crate) hide_zero_xstats: bool,
    peers: BTreeMap<u16, Mac>,
    /// Forwarding ports in order; `None` is every port.
    pub(crate) ports: Option<Vec<u16>>,
    /// How many of those ports forward; `None` is all.
    pub(crate) nb_ports: Option<u16>,
    /// Forwarding lcores in order; `None` is every worker lcore.
    pub(crate) lcores: Option<Vec<u32>>,
    /// How many of those lcores forward; DPDK's default is one.
    pub(crate) nb_cores: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: ModeKind::Io,
            topology: PortTopology::Paired,
            retry: Retry { enabled: false, delay_us: 1, count: 64 },
            burst: DEFAULT_BURST,
            tx_segments: vec![64],
            tx_addresses: TxAddresses::default(),
            tx_multi_flow: false,
            gso_size: 1514,
            flows: 1024,
            flow_clones: 0,
            noisy: NoisySettings::default(),
            rx_segments: Vec::new(),
            verbose: 0,
            work_cycles: 0,
            record_cycles: false,
            record_classes: false,
            rx_interrupt: false,
            record_bursts: false,
            flush_rx: true,
            hide_zero_xstats: false,
            peers: BTreeMap::new(),
            ports: None,
            nb_ports: None,
            lcores: None,
            nb_cores: 1,
        }
    }
}

impl Settings {
    /// The destination address of packets that leave on `port`.
    pub(crate) fn peer(&self, port: u16) -> Mac {
        self.peers.get(&port).copied().unwrap_or_else(|| Mac::default_peer(port))
    }

    pub(crate) fn set_peer(&mut self, port: u16, mac: Mac) {
        self.peers.insert(port, mac);
    }

    /// Resets the selection of ports and lcores: every port, one lcore, paired.
    pub(crate) fn reset_streams(&mut self) {
        let Self { topology, ports, nb_ports, lcores, nb_cores, .. } = Self::default();
        (self.topology, self.ports, self.nb_ports) = (topology, ports, nb_ports);
        (self.lcores, self.nb_cores) = (lcores, nb_cores);
    }

    /// Length of generated packets, in bytes.
    pub(crate) fn tx_len(&self) -> u32 {
        self.tx_segments.iter().map(|&len| u32::from(len)).sum()
    }
}

/// Checks the segment lengths of generated packets; `room` is the data room of one buffer.
///
/// # Errors
/// DPDK's message about the first length that does not fit.
pub(crate) fn check_tx_segments(segments: &[u32], room: u32) -> Result<Vec<u16>, String> {
    if segments.is_empty() || segments.len() > MAX_SEGMENTS {
        return Err(format!("nb segments per TX packets={} >= {MAX_SEGMENTS} - give up", segments.len()));
    }
    let mut lengths = Vec::with_capacity(segments.len());
    for (index, &len) in segments.iter().enumerate() {
        match u16::try_from(len) {
            Ok(len) if u32::from(len) <= room => lengths.push(len),
            _ => return Err(format!("length[{index}]={len} > mbuf_data_size={room} - give up")),
        }
    }
    let total: u32 = segments.iter().sum();
    if total < MIN_TX_LEN {
        return Err(format!("total packet length={total} < {MIN_TX_LEN} - give up"));
    }
    if total > u32::from(u16::MAX) {
        return Err(format!("total packet length={total} > {} - give up", u16::MAX));
    }
    Ok(lengths)
}

/// Most lengths of `--rxpkts`, DPDK's `MAX_SEGS_BUFFER_SPLIT`.
const MAX_RX_SEGMENTS: usize = 8;

/// Parses the segment lengths of packets that are split on receive.
///
/// # Errors
/// DPDK's message about the first error.
pub(crate) fn check_rx_segments(text: &str) -> Result<Vec<u16>, String> {
    if let Some(character) = text.chars().find(|character| !character.is_ascii_digit() && *character != ',') {
        return Err(format!(
            "character {character} is not a decimal digit; write lengths separated by commas"
        ));
    }
    let items: Vec<&str> = text.split(',').collect();
    if items.len() > MAX_RX_SEGMENTS {
        return Err(format!(
            "Number of segment lengths = {} > {MAX_RX_SEGMENTS} (maximum items)",
            items.len()
        ));
    }
    let read = |(index, item): (usize, &&str)| {
        item.parse::<u16>().map_err(|_| match item.is_empty() {
            true => format!("length[{index}] is missing; write lengths separated by commas"),
            false => format!("length[{index}]={item} > UINT16_MAX - give up"),
        })
    };
    items.iter().enumerate().map(read).collect()
}

/// The most numbers of a range, and the most before another range is accepted.
const MAX_LIST: u32 = 4096;

/// Parses a comma-separated list of numbers and ranges `a-b`, each number up to `max`.
pub(crate) fn parse_list(text: &str, max: u32) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > max || last - first >= MAX_LIST || numbers.len() >= MAX_LIST as usize {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// Parses a hexadecimal mask into the numbers of its set bits.
pub(crate) fn parse_mask(text: &str) -> Option<Vec<u32>> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    // `from_str_radix` would accept a sign.
    let mask = u128::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?;
    (mask != 0).then(|| (0..128).filter(|bit| mask >> bit & 1 == 1).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_are_read_and_printed() {
        assert_eq!(Mac::parse("02:00:00:00:00:0a").map(|m| m.to_string()), Some("02:00:00:00:00:0A".into()));
        for bad in ["", "zz", "02:00:00:00:00", "02:00:00:00:00:00:00", "+2:00:00:00:00:00", "002:0:0:0:0:0"]
        {
            assert_eq!(Mac::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn lists_and_masks() {
        assert_eq!(parse_list("0,2-4", 10), Some(vec![0, 2, 3, 4]));
        assert_eq!(parse_list("0-4294967294", u32::MAX), None);
        for bad in ["", "x", "5-1", "1,,2", "11", "-1", "4294967296"] {
            assert_eq!(parse_list(bad, 10), None, "{bad}");
        }
        assert_eq!(parse_mask("0x5"), Some(vec![0, 2]));
        assert_eq!(parse_mask("f"), Some(vec![0, 1, 2, 3]));
        for bad in ["0", "", "zz", "0x", "+f", "0x+f"] {
            assert_eq!(parse_mask(bad), None, "{bad}");
        }
    }

    #[test]
    fn segment_lengths_have_limits() {
        assert_eq!(check_tx_segments(&[64, 64], 2176), Ok(vec![64, 64]));
        assert!(check_tx_segments(&[10], 2176).is_err_and(|e| e == "total packet length=10 < 42 - give up"));
        assert!(check_tx_segments(&[3000], 2176).is_err_and(|e| e.contains("length[0]=3000")));
        assert!(check_tx_segments(&[], 2176).is_err());
        assert!(check_tx_segments(&[2048; 40], 2176).is_err());
        assert!(check_tx_segments(&[64; 256], 2176).is_err());
    }
}
