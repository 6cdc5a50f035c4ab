//! Capture files and pipes that always end with a complete record.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::encode::{self, Format, Record};
use crate::{Frame, Totals};

/// The number of buffered bytes at which records are written out.
const FLUSH_AT: usize = 256 << 10;

/// The destination.
#[derive(Debug)]
enum Place {
    /// A file, and the length of its complete records if it can be truncated; pipes cannot.
    File(File, Option<u64>),
    Standard(io::Stdout),
}

/// The header of a capture file.
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
    /// The maximum number of bytes kept of a packet.
    pub snaplen: u32,
    /// The filter that the packets passed; pcapng only.
    pub filter: &'a str,
}

/// Records for a file or standard output. They are buffered and written in large pieces. If the disk is full,
/// the file is truncated after its last complete record.
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
    /// The number of records in `buffer`; below, the number of those written.
    waiting: u64,
    written: u64,
}

impl RecordFile {
    /// Creates or truncates a file. Its header is written with the first [`flush`](Self::flush), which may
    /// follow immediately for readers that wait for data.
    ///
    /// # Errors
    /// The file cannot be opened, or another `RecordFile` or a `net_pcap` port writes or reads it
    /// (`ResourceBusy`). It is unchanged then.
    pub fn create(path: &Path, head: Head<'_>) -> io::Result<Self> {
        let file = File::options().write(true).create(true).truncate(false).open(path)?;
        let regular = file.metadata().is_ok_and(|data| data.is_file());
        if regular {
            // If the file system has no locks, concurrent use is not prevented.
            if flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another capture or port has it"));
            }
            file.set_len(0)?;
        }
        Ok(Self::begin(Place::File(file, regular.then_some(0)), head))
    }

    /// As [`create`](Self::create), for standard output.
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

    /// Adds a record whose frame consists of `parts`; returns the length of the record in bytes.
    ///
    /// # Errors
    /// The file cannot be written; records added earlier may be missing in it.
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

    /// Adds a frame from a [`Stream`](crate::Stream) with all its metadata, for an interface; returns the
    /// length of the record in bytes.
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

    /// Adds the totals of an interface, if the format supports this.
    pub fn statistics(&mut self, interface: u32, totals: Totals) {
        if self.format == Format::PcapNg {
            encode::statistics(&mut self.buffer, interface, encode::now(), totals.seen, totals.lost);
        }
    }

    /// Writes out the buffered records, for other processes that read the file meanwhile.
    ///
    /// # Errors
    /// The file cannot be written. Except for a pipe, its content is as before, and the buffered records are
    /// discarded.
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
                // Truncating needs no free space; an incomplete record would make the rest of the file
                // unreadable.
                let _ = file.set_len(*good).and_then(|()| file.seek(SeekFrom::Start(*good)));
            }
        }
        if result.is_ok() {
            self.written += records;
        }
        result
    }

    /// The number of records that were written out.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }
}
