//! Sequential reading of frames from capture files; `pcap-parser` decodes the formats.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use pcap_parser::pcapng::Block;
use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{Linktype, PcapBlockOwned, PcapError, PcapHeader, create_reader};

use super::encode::ETHERNET;

/// The number of bytes of a file buffered at a time: room for two of the largest records that capture
/// programs write.
const BUFFER: usize = 1 << 20;

/// Why a file cannot be read further; one clause for the user.
///
/// ```
/// use linecard_capture::pcap::read::{Damage, Reader};
/// let refused = Reader::open(std::path::Path::new("/dev/null")).err().expect("no capture");
/// assert!(matches!(refused, Damage::NoCapture));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The file cannot be opened.
    #[error("cannot be opened: {0}")]
    Open(std::io::Error),
    /// A read of the file failed.
    #[error("cannot be read behind packet {0}")]
    Read(u64),
    /// The file is neither pcap nor pcapng.
    #[error("is no capture file: it begins neither like pcap nor like pcapng")]
    NoCapture,
    /// The file ends within a record.
    #[error("is truncated: it ends in the middle of a record, behind packet {0}")]
    Truncated(u64),
    /// The file has invalid content.
    #[error("is damaged behind packet {0}")]
    Damaged(u64),
    /// The frames are not Ethernet.
    #[error("has frames of link type {0}, not Ethernet (1)")]
    LinkType(i32),
    /// A record is longer than the buffer.
    #[error("has a record of more than {BUFFER} bytes behind packet {0}")]
    TooLong(u64),
}

/// A pcapng interface.
struct Interface {
    link: i32,
    /// The number of time units per second.
    resolution: u128,
    /// The time offset in seconds.
    offset: i64,
}

/// Packets of interfaces that are not Ethernet, which are skipped.
///
/// ```
/// use linecard_capture::pcap::read::Skipped;
/// let skipped = Skipped { link_type: 189, interfaces: 1, packets: 0 };
/// assert_eq!(skipped.to_string(), "1 interface of link type 189 (0 packets so far)");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The link type (`LINKTYPE_…`).
    pub link_type: i32,
    /// The number of interfaces with this type so far.
    pub interfaces: u64,
    /// The number of their packets so far.
    pub packets: u64,
}

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { link_type, interfaces, packets } = self;
        let plural = |count: u64| if count == 1 { "" } else { "s" };
        let (many, more) = (plural(*interfaces), plural(*packets));
        write!(f, "{interfaces} interface{many} of link type {link_type} ({packets} packet{more} so far)")
    }
}

/// The position of the next frame in the reader's buffer.
struct Found {
    /// The length of the whole record.
    record: usize,
    frame: Range<usize>,
    /// The length on the wire.
    len: u32,
}

/// Reads a pcap or pcapng file in either byte order and with any time resolution. From a pcapng file with
/// several interfaces it returns the packets of Ethernet interfaces and reports which ones it
/// [`skipped`](Self::skipped).
///
/// ```
/// use linecard_capture::pcap::{encode::{Format, Record}, read::Reader};
/// let path = std::env::temp_dir().join(format!("lc-doc-read-{}.pcap", std::process::id()));
/// let mut file = Vec::new();
/// Format::Pcap.header(&mut file, 65_535);
/// Format::Pcap.record(&mut file, &Record { time: 7, len: 3, ..Record::default() }, &[b"abc"]);
/// std::fs::write(&path, file)?;
///
/// let mut reader = Reader::open(&path)?;
/// assert!(reader.ready()?);
/// assert_eq!((reader.frame(), reader.time()), (&b"abc"[..], 7));
/// reader.advance();
/// assert!(!reader.ready()?, "the end");
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Reader {
    blocks: Box<dyn PcapReaderIterator + Send>,
    state: State,
    found: Option<Found>,
    /// The number of bytes read so far.
    bytes: u64,
}

impl Reader {
    /// Opens a file and checks its header.
    ///
    /// # Errors
    /// The file does not exist, may not be read, or is not a capture file.
    pub fn open(path: &Path) -> Result<Self, Damage> {
        Self::of(File::open(path).map_err(Damage::Open)?, BUFFER)
    }

    /// Reads from `source` with a buffer of `buffer` bytes; longer records cannot be read.
    ///
    /// ```
    /// use linecard_capture::pcap::read::{Damage, Reader};
    /// let refused = Reader::of(&b"plain text, no capture"[..], 4096).err().expect("no capture");
    /// assert!(matches!(refused, Damage::NoCapture));
    /// ```
    ///
    /// # Errors
    /// The source cannot be read, or is not a capture file.
    pub fn of(source: impl Read + Send + 'static, buffer: usize) -> Result<Self, Damage> {
        let blocks = create_reader(buffer, source).map_err(|error| match error {
            PcapError::ReadError => Damage::Read(0),
            _ => Damage::NoCapture,
        })?;
        let state = State {
            interfaces: Vec::new(),
            skipped: Vec::new(),
            ethernet: false,
            fraction: 1,
            head: 16,
            time: 0,
            frames: 0,
            sections: false,
        };
        Ok(Self { blocks, state, found: None, bytes: 0 })
    }

    /// Finds the next frame; false at the end of the file. Repeated calls return the same until
    /// [`advance`](Self::advance).
    ///
    /// # Errors
    /// The file cannot be read further.
    pub fn ready(&mut self) -> Result<bool, Damage> {
        while self.found.is_none() {
            if self.state.sections && is_impossible(self.blocks.data()) {
                return Err(Damage::Damaged(self.state.frames));
            }
            let (record, found) = match self.blocks.next() {
                Ok((record, block)) => (record, self.state.look(record, &block)?),
                Err(PcapError::Eof) => return self.state.end(),
                Err(PcapError::Incomplete(_)) => {
                    self.blocks.refill().map_err(|_| Damage::Read(self.state.frames))?;
                    continue;
                }
                Err(PcapError::UnexpectedEof) => return Err(Damage::Truncated(self.state.frames)),
                Err(PcapError::BufferTooSmall) => return Err(Damage::TooLong(self.state.frames)),
                Err(PcapError::ReadError) => return Err(Damage::Read(self.state.frames)),
                Err(_) => return Err(Damage::Damaged(self.state.frames)),
            };
            if found.is_none() {
                self.consume(record);
            }
            self.found = found;
        }
        Ok(true)
    }

    /// The frame that [`ready`](Self::ready) found; empty if it found none.
    #[must_use]
    pub fn frame(&self) -> &[u8] {
        let range = self.found.as_ref().map_or(0..0, |found| found.frame.clone());
        self.blocks.data().get(range).unwrap_or_default()
    }

    /// The time of capture in nanoseconds since 1970; the time of the previous frame if the file does not
    /// say.
    #[must_use]
    pub fn time(&self) -> u64 {
        self.state.time
    }

    /// The length of the frame on the wire.
    #[must_use]
    pub fn wire_len(&self) -> u32 {
        self.found.as_ref().map_or(0, |found| found.len)
    }

    /// Advances to the next frame.
    pub fn advance(&mut self) {
        if let Some(found) = self.found.take() {
            self.state.frames += 1;
            self.consume(found.record);
        }
    }

    /// The number of bytes read so far, in complete records.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The packets skipped so far because they are not Ethernet, by link type.
    #[must_use]
    pub fn skipped(&self) -> &[Skipped] {
        &self.state.skipped
    }

    fn consume(&mut self, record: usize) {
        self.bytes += record as u64;
        // This does not move the rest of the buffer to its front each time; `refill` does.
        self.blocks.consume_noshift(record);
    }
}

/// The state kept from earlier blocks.
struct State {
    interfaces: Vec<Interface>,
    skipped: Vec<Skipped>,
    /// Whether there was an Ethernet interface.
    ethernet: bool,
    /// The number of nanoseconds per unit of a pcap file's fractions.
    fraction: u64,
    /// The number of bytes of a pcap record before its frame.
    head: usize,
    /// The time of the last frame that had one.
    time: u64,
    /// The number of frames so far.
    frames: u64,
    /// Whether the file is pcapng, which consists of sections.
    sections: bool,
}

impl State {
    /// The frame in a block, if it has one.
    fn look(&mut self, record: usize, block: &PcapBlockOwned<'_>) -> Result<Option<Found>, Damage> {
        let found = match block {
            PcapBlockOwned::LegacyHeader(header) => {
                self.header(header)?;
                return Ok(None);
            }
            PcapBlockOwned::Legacy(packet) => {
                self.time =
                    u64::from(packet.ts_sec) * 1_000_000_000 + u64::from(packet.ts_usec) * self.fraction;
                Found::new(record, self.head, packet.caplen, packet.origlen)
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => {
                self.interfaces.clear();
                self.sections = true;
                return Ok(None);
            }
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                self.meet(Interface {
                    link: interface.linktype.0,
                    resolution: units_per_second(interface.if_tsresol),
                    offset: interface.ts_offset(),
                });
                return Ok(None);
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let Some(interface) = self.interface(packet.if_id)? else { return Ok(None) };
                self.time = interface.ns(u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low));
                Found::new(record, 28, packet.caplen, packet.origlen)
            }
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                if self.interface(0)?.is_none() {
                    return Ok(None);
                }
                let room = u32::try_from(record.saturating_sub(16)).unwrap_or(u32::MAX);
                Found::new(record, 12, packet.origlen.min(room), packet.origlen)
            }
            PcapBlockOwned::NG(_) => return Ok(None),
        };
        found.map(Some).ok_or(Damage::Damaged(self.frames))
    }

    /// Records an interface of the section.
    fn meet(&mut self, interface: Interface) {
        if interface.is_ethernet() {
            self.ethernet = true;
        } else if let Some(known) = self.skipped.iter_mut().find(|known| known.link_type == interface.link) {
            known.interfaces += 1;
        } else {
            self.skipped.push(Skipped { link_type: interface.link, interfaces: 1, packets: 0 });
        }
        self.interfaces.push(interface);
    }

    /// The interface of a packet; `None`, and counted, if the packet is not Ethernet.
    fn interface(&mut self, id: u32) -> Result<Option<&Interface>, Damage> {
        let interface = usize::try_from(id).ok().and_then(|id| self.interfaces.get(id));
        let interface = interface.ok_or(Damage::Damaged(self.frames))?;
        if interface.is_ethernet() {
            return Ok(Some(interface));
        }
        let known = self.skipped.iter_mut().find(|known| known.link_type == interface.link);
        known.into_iter().for_each(|known| known.packets += 1);
        Ok(None)
    }

    /// Ends the file: an error if no interface in it was Ethernet.
    fn end(&self) -> Result<bool, Damage> {
        match self.skipped.first() {
            Some(other) if !self.ethernet => Err(Damage::LinkType(other.link_type)),
            _ => Ok(false),
        }
    }

    fn header(&mut self, header: &PcapHeader) -> Result<(), Damage> {
        // The upper half of the word has the length of the frame check sequence.
        ethernet(Linktype(header.network.0 & 0xffff))?;
        self.fraction = if header.is_nanosecond_precision() { 1 } else { 1000 };
        self.head = if header.is_modified_format() { 24 } else { 16 };
        Ok(())
    }
}

impl Interface {
    fn is_ethernet(&self) -> bool {
        self.link == i32::from(ETHERNET)
    }

    fn ns(&self, units: u64) -> u64 {
        // At most 2^64 units times 2^30: far below 2^127.
        let ns = i128::try_from(u128::from(units) * 1_000_000_000 / self.resolution).unwrap_or(i128::MAX);
        let offset = i128::from(self.offset) * 1_000_000_000;
        u64::try_from(ns.saturating_add(offset)).unwrap_or(0)
    }
}

/// The number of time units per second in `if_tsresol` (pcapng, Interface Description Block): a power of ten,
/// or of two if the upper bit is set. A number that does not fit is replaced with one so large that no 64-bit
/// time reaches a nanosecond.
///
/// The function for this in `pcap-parser` 0.17 does not support powers of two: it compares before it clears
/// the upper bit.
fn units_per_second(resolution: u8) -> u128 {
    let exponent = u32::from(resolution & 0x7f);
    let base: u128 = if resolution & 0x80 == 0 { 10 } else { 2 };
    base.checked_pow(exponent).unwrap_or(u128::MAX)
}

impl Found {
    /// A frame of `len` bytes behind `head` bytes of its record; `None` if the record is too short.
    fn new(record: usize, head: usize, len: u32, wire: u32) -> Option<Self> {
        let end = head.checked_add(usize::try_from(len).ok()?)?;
        (end <= record).then_some(Self { record, frame: head..end, len: wire })
    }
}

/// Whether a block is a process information block shorter than its own header, which makes a calculation in
/// `pcap-parser` 0.17 overflow. In a section of the other byte order, such a length exceeds any buffer.
fn is_impossible(block: &[u8]) -> bool {
    const KIND: u32 = 0x8000_0001;
    const HEAD: u32 = 16;
    let Some((kind, rest)) = block.split_first_chunk() else { return false };
    let Some(len) = rest.first_chunk() else { return false };
    u32::from_le_bytes(*kind) == KIND && u32::from_le_bytes(*len) < HEAD
        || u32::from_be_bytes(*kind) == KIND && u32::from_be_bytes(*len) < HEAD
}

fn ethernet(link: Linktype) -> Result<(), Damage> {
    if link.0 == i32::from(ETHERNET) { Ok(()) } else { Err(Damage::LinkType(link.0)) }
}

#[cfg(test)]
mod tests;
