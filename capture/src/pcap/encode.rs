//! Encoding of capture files: pcap with nanoseconds, and pcapng.
//!
//! Everything is little-endian and appended to a buffer of the caller, record by record, so that complete
//! records can be written at once. Sources: IETF drafts *PCAP Capture File Format* and *PCAP Now Generic
//! (pcapng) Capture File Format*.

use std::time::{SystemTime, UNIX_EPOCH};

/// The link type Ethernet in both formats (`LINKTYPE_ETHERNET`).
pub const ETHERNET: u16 = 1;
/// The longest frame in a record; also the limit of tcpdump and Wireshark.
pub const SNAPLEN: u32 = 262_144;

/// The direction of a packet, pcapng's `epb_flags`.
///
/// ```
/// use linecard_capture::pcap::encode::Direction;
/// assert_ne!(Direction::In, Direction::Out);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The direction is not known.
    Unknown = 0,
    /// Received.
    In = 1,
    /// Sent.
    Out = 2,
}

/// The metadata of a record.
///
/// ```
/// use linecard_capture::pcap::encode::Record;
/// assert_eq!(Record { len: 60, ..Record::default() }.comment, "");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Nanoseconds since 1970.
    pub time: u64,
    /// The length of the frame on the wire; the record may have fewer bytes.
    pub len: u32,
    /// The number of its interface block, from 0 (pcapng).
    pub interface: u32,
    /// The direction (pcapng).
    pub direction: Direction,
    /// The queue, if known (pcapng).
    pub queue: Option<u16>,
    /// A comment for the user; empty for none (pcapng).
    pub comment: &'a str,
}

impl Default for Record<'_> {
    fn default() -> Self {
        Self { time: 0, len: 0, interface: 0, direction: Direction::Unknown, queue: None, comment: "" }
    }
}

/// A file format.
///
/// ```
/// use linecard_capture::pcap::encode::{Format, Record};
/// assert_eq!(Format::of(std::path::Path::new("a.pcapng")), Format::PcapNg);
///
/// let mut file = Vec::new();
/// Format::Pcap.header(&mut file, 65_535);
/// Format::Pcap.record(&mut file, &Record { len: 3, ..Record::default() }, &[b"ab", b"c"]);
/// assert_eq!((file.len(), &file[40..]), (24 + 16 + 3, &b"abc"[..]));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The classic format, with nanosecond timestamps.
    Pcap,
    /// The newer format: interfaces, directions, comments.
    PcapNg,
}

impl Format {
    /// The format for a file name: `.pcapng` and `.ntar` are pcapng, all others are pcap.
    #[must_use]
    pub fn of(path: &std::path::Path) -> Self {
        let end = path.extension().unwrap_or_default();
        if end.eq_ignore_ascii_case("pcapng") || end.eq_ignore_ascii_case("ntar") {
            Self::PcapNg
        } else {
            Self::Pcap
        }
    }

    /// Appends the header of a file; a pcapng file also needs an [`interface`] block for each interface.
    pub fn header(self, out: &mut Vec<u8>, snaplen: u32) {
        match self {
            Self::Pcap => {
                out.extend(0xa1b2_3c4d_u32.to_le_bytes());
                out.extend([2_u16, 4].iter().flat_map(|part| part.to_le_bytes()));
                out.extend(
                    [0, 0, snaplen, u32::from(ETHERNET)].iter().flat_map(|word: &u32| word.to_le_bytes()),
                );
            }
            Self::PcapNg => block(out, 0x0a0d_0d0a, |out| {
                out.extend(0x1a2b_3c4d_u32.to_le_bytes());
                out.extend([1_u16, 0].iter().flat_map(|part| part.to_le_bytes()));
                // The length of the section is not known.
                out.extend(u64::MAX.to_le_bytes());
                option(out, 4, concat!("linecard ", env!("CARGO_PKG_VERSION")).as_bytes());
                out.extend([0; 4]);
            }),
        }
    }

    /// Appends a frame that consists of `parts`.
    pub fn record(self, out: &mut Vec<u8>, record: &Record<'_>, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let captured = u32::try_from(len).unwrap_or(u32::MAX);
        match self {
            Self::Pcap => {
                let (seconds, rest) = (record.time / 1_000_000_000, record.time % 1_000_000_000);
                // The seconds of the format end in 2106.
                for word in [seconds as u32, rest as u32, captured, record.len] {
                    out.extend(word.to_le_bytes());
                }
                parts.iter().for_each(|part| out.extend_from_slice(part));
            }
            Self::PcapNg => block(out, 6, |out| {
                let (high, low) = ((record.time >> 32) as u32, record.time as u32);
                for word in [record.interface, high, low, captured, record.len] {
                    out.extend(word.to_le_bytes());
                }
                parts.iter().for_each(|part| out.extend_from_slice(part));
                pad(out, len);
                options(out, record);
            }),
        }
    }

    /// The maximum number of bytes that [`record`](Self::record) appends besides the frame, without a
    /// comment.
    #[must_use]
    pub const fn overhead(self) -> usize {
        match self {
            Self::Pcap => 16,
            Self::PcapNg => 32 + 3 + 8 + 8 + 4,
        }
    }
}

/// The current time in the form of records: nanoseconds since 1970.
///
/// ```
/// assert!(linecard_capture::pcap::encode::now() > 1_700_000_000_000_000_000);
/// ```
#[must_use]
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Appends pcapng's description of the next interface, with nanosecond timestamps.
///
/// ```
/// let mut file = Vec::new();
/// linecard_capture::pcap::encode::interface(&mut file, "net_null0", 65_535, "tcp port 80");
/// assert_eq!((file[0], file.len() % 4), (1, 0));
/// ```
pub fn interface(out: &mut Vec<u8>, name: &str, snaplen: u32, filter: &str) {
    block(out, 1, |out| {
        out.extend([ETHERNET, 0].iter().flat_map(|part| part.to_le_bytes()));
        out.extend(snaplen.to_le_bytes());
        option(out, 2, name.as_bytes());
        option(out, 9, &[9]);
        if !filter.is_empty() {
            // The value 0 stands for a filter expression as text.
            option(out, 11, &[&[0], filter.as_bytes()].concat());
        }
        out.extend([0; 4]);
    });
}

/// Appends pcapng's statistics of an interface: the number of packets seen, and how many of them were lost on
/// the way to the file.
///
/// ```
/// let mut file = Vec::new();
/// linecard_capture::pcap::encode::statistics(&mut file, 0, 1_700_000_000_000_000_000, 10, 2);
/// assert_eq!((file[0], file.len()), (5, 12 + 12 + 12 + 12 + 4));
/// ```
pub fn statistics(out: &mut Vec<u8>, interface: u32, time: u64, seen: u64, lost: u64) {
    block(out, 5, |out| {
        for word in [interface, (time >> 32) as u32, time as u32] {
            out.extend(word.to_le_bytes());
        }
        option(out, 4, &seen.to_le_bytes());
        option(out, 5, &lost.to_le_bytes());
        out.extend([0; 4]);
    });
}

fn options(out: &mut Vec<u8>, record: &Record<'_>) {
    let before = out.len();
    if !record.comment.is_empty() {
        option(out, 1, record.comment.as_bytes());
    }
    if record.direction != Direction::Unknown {
        option(out, 2, &(record.direction as u32).to_le_bytes());
    }
    if let Some(queue) = record.queue {
        option(out, 6, &u32::from(queue).to_le_bytes());
    }
    if out.len() > before {
        out.extend([0; 4]);
    }
}

/// Appends a block; `fill` appends its body, which is enclosed in its length.
fn block(out: &mut Vec<u8>, kind: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend(kind.to_le_bytes());
    out.extend([0; 4]);
    fill(out);
    let len = u32::try_from(out.len() - start + 4).unwrap_or(u32::MAX).to_le_bytes();
    out[start + 4..start + 8].copy_from_slice(&len);
    out.extend(len);
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    out.extend(code.to_le_bytes());
    out.extend((value.len() as u16).to_le_bytes());
    out.extend_from_slice(value);
    pad(out, value.len());
}

/// Pads to a multiple of four.
fn pad(out: &mut Vec<u8>, len: usize) {
    out.resize(out.len() + len.next_multiple_of(4) - len, 0);
}
