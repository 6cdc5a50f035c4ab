//! A capture file that always ends with a whole record.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};

use linecard::capture::pcap::encode::{self, Format, Record};
use linecard::capture::{Frame, Totals};

use crate::error::Error;
use linecard_apps_common::clock::unix_ns;

/// Bytes after which records are written out.
const FLUSH_AT: usize = 256 << 10;

/// Where bytes go.
enum Place {
    /// And how many bytes of whole records it holds, if it can be cut.
    File(File, Option<u64>),
    Standard(io::Stdout),
}

/// Records on their way to a file or a pipe.
pub(crate) struct CaptureFile {
    path: PathBuf,
    place: Place,
    format: Format,
    buffer: Vec<u8>,
    /// Packets in `buffer`, and those written.
    waiting: u64,
    written: u64,
    /// Bytes added so far.
    size: u64,
    /// Nobody reads the pipe any more.
    closed: bool,
}

impl CaptureFile {
    /// Makes or empties the file, and writes its head: an interface for each of `names`.
    pub(crate) fn create(
        path: &Path,
        format: Format,
        names: &[&str],
        snaplen: u32,
        filter: &str,
    ) -> Result<Self, Error> {
        let place = if path == Path::new("-") {
            if io::stdout().is_terminal() {
                let problem = "packets are not for a terminal; pipe them, as in `linecard capture -w - | tshark -r -`, \
                               or name a file with -w";
                return Err(Error::Usage(problem.into()));
            }
            Place::Standard(io::stdout())
        } else {
            let file = File::create(path).map_err(|source| Error::System {
                action: format!("{} cannot be written", path.display()),
                source,
                remedy: "name a file in a folder that exists and may be written",
            })?;
            let regular = file.metadata().is_ok_and(|data| data.is_file());
            Place::File(file, regular.then_some(0))
        };
        let mut buffer = Vec::with_capacity(FLUSH_AT * 2);
        format.header(&mut buffer, snaplen);
        if format == Format::PcapNg {
            names.iter().for_each(|name| encode::interface(&mut buffer, name, snaplen, filter));
        }
        let mut file =
            Self { path: path.into(), place, format, buffer, waiting: 0, written: 0, size: 0, closed: false };
        // A reader wants to know at once that there is something to read.
        file.flush()?;
        Ok(file)
    }

    /// Adds a packet of an interface.
    pub(crate) fn add(&mut self, interface: usize, frame: &Frame<'_>) -> Result<(), Error> {
        let before = self.buffer.len();
        let comment =
            if frame.comment.is_empty() { String::new() } else { format!("dropped: {}", frame.comment) };
        let record = Record {
            time: frame.time,
            len: frame.len,
            interface: u32::try_from(interface).unwrap_or(u32::MAX),
            direction: frame.direction,
            queue: Some(frame.queue),
            comment: &comment,
        };
        self.format.record(&mut self.buffer, &record, &[frame.data]);
        self.waiting += 1;
        self.size += (self.buffer.len() - before) as u64;
        if self.buffer.len() >= FLUSH_AT {
            self.flush()?;
        }
        Ok(())
    }

    /// Bytes of packets that were added so far.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Writes out what is collected; false when nobody reads it any more.
    pub(crate) fn flush(&mut self) -> Result<bool, Error> {
        if self.buffer.is_empty() || self.closed {
            self.buffer.clear();
            return Ok(!self.closed);
        }
        let result = match &mut self.place {
            Place::File(file, _) => file.write_all(&self.buffer),
            Place::Standard(out) => out.write_all(&self.buffer).and_then(|()| out.flush()),
        };
        let len = self.buffer.len() as u64;
        self.buffer.clear();
        match (result, &mut self.place) {
            (Ok(()), place) => {
                if let Place::File(_, Some(good)) = place {
                    *good += len;
                }
                self.written += std::mem::take(&mut self.waiting);
                Ok(true)
            }
            (Err(error), _) if error.kind() == ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(false)
            }
            (Err(source), place) => {
                if let Place::File(file, Some(good)) = place {
                    // Freeing space needs none; a half record would spoil the rest of the file.
                    let _ = file.set_len(*good);
                }
                self.closed = true;
                Err(Error::System {
                    action: format!(
                        "{} cannot be written, and ends with packet {}",
                        self.path.display(),
                        self.written
                    ),
                    source,
                    remedy: "free space, or capture less with -c, -s or -f",
                })
            }
        }
    }

    /// Ends the file with what was seen and lost on each interface.
    pub(crate) fn finish(mut self, totals: &[Option<Totals>]) -> Result<(), Error> {
        if self.format == Format::PcapNg {
            for (i, totals) in totals.iter().enumerate() {
                if let Some(Totals { seen, lost }) = totals {
                    let interface = u32::try_from(i).unwrap_or(u32::MAX);
                    encode::statistics(&mut self.buffer, interface, unix_ns(), *seen, *lost);
                }
            }
        }
        self.flush().map(drop)
    }
}
