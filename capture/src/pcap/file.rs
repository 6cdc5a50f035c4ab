//! Capture files and pipes that always end with a whole record.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::encode::{self, Format, Record};
use crate::{Frame, Totals};

/// Bytes after which records are written out.
const FLUSH_AT: usize = 256 << 10;

/// Where bytes go.
#[derive(Debug)]
enum Place {
    /// And how many bytes of whole records it holds, if it can be cut; pipes cannot.
    File(File, Option<u64>),
    Standard(io::Stdout),
}

/// What a capture file begins with.
///
/// ```
/// use linecard_capture::pcap::encode::{Format, SNAPLEN};
/// use linecard_capture::pcap::file::Head;
/// let head = Head { format: Format::PcapNg, interfaces: &["net_null0"], snaplen: SNAPLEN, filter: "tcp" };
/// assert_eq!(head.interfaces.len(), 1);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The format of the file.
    pub format: Format,
    /// Names of its interfaces; pcapng only.
    pub interfaces: &'a [&'a str],
    /// Most bytes kept of a packet.
    pub snaplen: u32,
    /// The filter that packets passed; pcapng only.
    pub filter: &'a str,
}

/// Records on their way to a file or to standard output. They are collected, and written out in large pieces; a file whose disk
/// is full is cut after its last whole record.
///
/// ```
/// use linecard_capture::pcap::encode::{Format, Record, SNAPLEN};
/// use linecard_capture::pcap::file::{Head, RecordFile};
/// # let path = std::env::temp_dir().join(format!("record-file-doc-{}.pcap", std::process::id()));
/// let head = Head { format: Format::Pcap, interfaces: &[], snaplen: SNAPLEN, filter: "" };
/// let mut file = RecordFile::create(&path, head)?;
/// let bytes = file.record(&Record { len: 60, ..Record::default() }, &[&[7; 60]])?;
/// assert_eq!((bytes, file.written()), (16 + 60, 0)); // it is collected
/// file.flush()?;
/// assert_eq!(file.written(), 1);
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct RecordFile {
    place: Place,
    format: Format,
    buffer: Vec<u8>,
    /// Records in `buffer`, and those written.
    waiting: u64,
    written: u64,
}

impl RecordFile {
    /// Makes or empties a file. What it begins with is written with the first [`flush`](Self::flush), which may come at once: a
    /// reader wants to know that there is something to read.
    ///
    /// # Errors
    /// The file cannot be opened, or another of these, or a `net_pcap` port, writes or reads it (`ResourceBusy`): it is as it was then.
    pub fn create(path: &Path, head: Head<'_>) -> io::Result<Self> {
        let file = File::options().write(true).create(true).truncate(false).open(path)?;
        let regular = file.metadata().is_ok_and(|data| data.is_file());
        if regular {
            // Where there are no locks nobody is kept from anything.
            if flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another capture or port has it"));
            }
            file.set_len(0)?;
        }
        Ok(Self::begin(Place::File(file, regular.then_some(0)), head))
    }

    /// The same to standard output.
    #[must_use]
    pub fn standard_output(head: Head<'_>) -> Self {
        Self::begin(Place::Standard(io::stdout()), head)
    }

    fn begin(place: Place, head: Head<'_>) -> Self {
        let Head { format, interfaces, snaplen, filter } = head;
        let mut buffer = Vec::with_capacity(FLUSH_AT * 2);
        format.header(&mut buffer, snaplen);
        if format == Format::PcapNg {
            interfaces.iter().for_each(|name| encode::interface(&mut buffer, name, snaplen, filter));
        }
        Self { place, format, buffer, waiting: 0, written: 0 }
    }

    /// Adds a record whose frame is `parts` in a row; how many bytes it takes.
    ///
    /// # Errors
    /// The file cannot be written; earlier records may be what is missing in it.
    pub fn record(&mut self, record: &Record<'_>, parts: &[&[u8]]) -> io::Result<u64> {
        let before = self.buffer.len();
        self.format.record(&mut self.buffer, record, parts);
        self.waiting += 1;
        let bytes = (self.buffer.len() - before) as u64;
        if self.buffer.len() >= FLUSH_AT {
            self.flush()?;
        }
        Ok(bytes)
    }

    /// Adds a frame that a [`Stream`](crate::Stream) gave, with all that is known of it, as one of an interface; how many bytes it
    /// takes.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub fn frame(&mut self, interface: u32, frame: &Frame<'_>) -> io::Result<u64> {
        let comment =
            if frame.comment.is_empty() { String::new() } else { format!("dropped: {}", frame.comment) };
        let record = Record {
            time: frame.time,
            len: frame.len,
            interface,
            direction: frame.direction,
            queue: Some(frame.queue),
            comment: &comment,
        };
        self.record(&record, &[frame.data])
    }

    /// Adds what was seen and lost on an interface, where the format has a place for it.
    pub fn statistics(&mut self, interface: u32, totals: Totals) {
        if self.format == Format::PcapNg {
            encode::statistics(&mut self.buffer, interface, encode::now(), totals.seen, totals.lost);
        }
    }

    /// Writes out what is collected, for whoever reads the file meanwhile.
    ///
    /// # Errors
    /// The file cannot be written. It is as it was before, but for a pipe, and what was collected is gone.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let result = match &mut self.place {
            Place::File(file, _) => file.write_all(&self.buffer),
            Place::Standard(out) => out.write_all(&self.buffer).and_then(|()| out.flush()),
        };
        let len = self.buffer.len() as u64;
        self.buffer.clear();
        let records = std::mem::take(&mut self.waiting);
        if let Place::File(file, Some(good)) = &mut self.place {
            if result.is_ok() {
                *good += len;
            } else {
                // Freeing space needs none; a half record would spoil the rest of the file.
                let _ = file.set_len(*good).and_then(|()| file.seek(SeekFrom::Start(*good)));
            }
        }
        if result.is_ok() {
            self.written += records;
        }
        result
    }

    /// Records that were written out.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }
}
