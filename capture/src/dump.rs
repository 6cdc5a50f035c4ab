//! Capture files in one call, written by the program that has the packets.
//!
//! The name of a file determines its format: `.pcapng` and `.ntar` are pcapng, all others are pcap with
//! nanoseconds. Reading accepts either format, whatever the name.

mod port;
mod saved;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use linecard_mempool::Packet;

pub use self::port::{PortDump, dump_port, dump_port_with};
pub use self::saved::{Frames, SavedFrame, read};
use super::pcap::encode::{self, Format, Record, SNAPLEN};
use super::pcap::file::{Head, RecordFile};
use super::{CaptureError, Frame, Totals};

/// Writes packets with the current time to a capture file, which is created or truncated.
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Burst, Pool, PoolConfig};
/// use linecard_capture as capture;
/// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// # let path = std::env::temp_dir().join(format!("dump-doc-{}.pcapng", std::process::id()));
/// let mut packets = Burst::new();
/// packets.push(pool.packet_of(&[7; 60], 60).ok_or("no buffer")?).map_err(|_| "no room")?;
/// capture::dump(&path, &packets)?;
///
/// let frames = capture::read(&path)?.collect::<Result<Vec<_>, _>>()?;
/// assert_eq!((frames.len(), &frames[0].data[..]), (1, &[7; 60][..]));
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The file cannot be written.
pub fn dump(path: impl AsRef<Path>, packets: &[Packet]) -> Result<(), CaptureError> {
    let mut file = Dump::create(path)?;
    packets.iter().try_for_each(|packet| file.packet(packet))?;
    file.finish().map(drop)
}

/// A capture file to which packets are written one by one. It always ends with a complete record, even if the
/// disk is full or the value is dropped; [`finish`](Self::finish) returns whether everything was written.
///
/// ```
/// use linecard_capture::Dump;
/// # let path = std::env::temp_dir().join(format!("dump-file-doc-{}.pcap", std::process::id()));
/// let mut file = Dump::create(&path)?;
/// file.bytes(&[1; 60])?;
/// file.bytes(&[2; 1514])?;
/// assert_eq!(file.finish()?, 2);
/// let lengths: Vec<u32> = linecard_capture::read(&path)?.map(|frame| frame.map_or(0, |f| f.len)).collect();
/// assert_eq!(lengths, [60, 1514]);
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Dump {
    path: PathBuf,
    file: RecordFile,
}

impl Dump {
    /// Creates or truncates the file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, CaptureError> {
        let path = path.as_ref();
        Self::make(path, Format::of(path), "linecard", SNAPLEN)
    }

    fn make(path: &Path, format: Format, interface: &str, snaplen: u32) -> Result<Self, CaptureError> {
        let head = Head { format, interfaces: &[interface], snaplen, filter: "" };
        let file = RecordFile::create(path, head).map_err(|source| {
            let remedy = match source.kind() {
                io::ErrorKind::ResourceBusy => "name another file",
                _ => "name a file in a folder that exists and may be written",
            };
            CaptureError::system(format!("{} cannot be written", path.display()), source, remedy)
        })?;
        let mut dump = Self { path: path.into(), file };
        dump.flush()?;
        Ok(dump)
    }

    /// Adds a packet with all its segments and the current time.
    ///
    /// # Errors
    /// The file cannot be written; packets added earlier may be missing in it.
    pub fn packet(&mut self, packet: &Packet) -> Result<(), CaptureError> {
        let segments: Vec<&[u8]> = packet.segments().map(|segment| segment.data()).collect();
        self.add(&Record { time: encode::now(), len: length(packet.len()), ..Record::default() }, &segments)
    }

    /// Adds a frame with the current time.
    ///
    /// # Errors
    /// As [`packet`](Self::packet).
    pub fn bytes(&mut self, frame: &[u8]) -> Result<(), CaptureError> {
        self.add(&Record { time: encode::now(), len: length(frame.len()), ..Record::default() }, &[frame])
    }

    /// Adds a frame from a [`Stream`](crate::Stream) with all its metadata.
    ///
    /// # Errors
    /// As [`packet`](Self::packet).
    pub fn frame(&mut self, frame: &Frame<'_>) -> Result<(), CaptureError> {
        let added = self.file.frame(0, frame).map(drop);
        self.told(added)
    }

    fn add(&mut self, record: &Record<'_>, parts: &[&[u8]]) -> Result<(), CaptureError> {
        let added = self.file.record(record, parts).map(drop);
        self.told(added)
    }

    /// Writes out the buffered packets, for other processes that read the file meanwhile.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn flush(&mut self) -> Result<(), CaptureError> {
        let written = self.file.flush();
        self.told(written)
    }

    fn told(&self, written: io::Result<()>) -> Result<(), CaptureError> {
        written.map_err(|source| {
            let action = format!("{} cannot be written, and lacks packets", self.path.display());
            CaptureError::system(action, source, "free space, or dump fewer packets")
        })
    }

    /// The number of packets that were written out.
    fn written(&self) -> u64 {
        self.file.written()
    }

    /// Ends the file and returns the number of packets in it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(mut self) -> Result<u64, CaptureError> {
        self.flush()?;
        Ok(self.written())
    }

    /// Ends the file with the totals of the capture.
    fn end(mut self, totals: Totals) -> Result<Totals, CaptureError> {
        self.file.statistics(0, totals);
        self.flush()?;
        Ok(totals)
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        // To learn of errors, call `finish`.
        let _ = self.flush();
    }
}

/// A length as stored in records.
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
