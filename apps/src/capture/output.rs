//! The capture file of a command: a file, or standard output until its reader is gone.

use std::io::{self, ErrorKind, IsTerminal};
use std::path::{Path, PathBuf};

use linecard::capture::pcap::file::{Head, RecordFile};
use linecard::capture::{Frame, Totals};

use crate::error::Error;

/// Writes records to a file or a pipe.
pub(crate) struct CaptureFile {
    path: PathBuf,
    records: RecordFile,
    /// Bytes added so far.
    size: u64,
    /// The reader of the pipe is gone, or the file cannot be written.
    closed: bool,
}

impl CaptureFile {
    /// Creates or truncates the file, and writes its header.
    pub(crate) fn create(path: &Path, head: Head<'_>) -> Result<Self, Error> {
        let records = if path == Path::new("-") {
            if io::stdout().is_terminal() {
                let problem = "packets are not for a terminal; pipe them, as in `linecard capture -w - | tshark -r -`, \
                               or name a file with -w";
                return Err(Error::Usage(problem.into()));
            }
            RecordFile::standard_output(head)
        } else {
            RecordFile::create(path, head).map_err(|source| Error::System {
                action: format!("{} cannot be written", path.display()),
                remedy: match source.kind() {
                    io::ErrorKind::ResourceBusy => "name another file",
                    _ => "name a file in a folder that exists and may be written",
                },
                source,
            })?
        };
        let mut file = Self { path: path.into(), records, size: 0, closed: false };
        file.flush()?;
        Ok(file)
    }

    /// Adds a packet from an interface.
    pub(crate) fn add(&mut self, interface: usize, frame: &Frame<'_>) -> Result<(), Error> {
        if self.closed {
            return Ok(());
        }
        let added = self.records.frame(u32::try_from(interface).unwrap_or(u32::MAX), frame);
        self.size += *added.as_ref().unwrap_or(&0);
        self.told(added.map(drop)).map(drop)
    }

    /// Bytes of the packets added so far.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Writes buffered packets; false when the reader is gone.
    pub(crate) fn flush(&mut self) -> Result<bool, Error> {
        if self.closed {
            return Ok(false);
        }
        let written = self.records.flush();
        self.told(written)
    }

    /// Evaluates the result of a write; returns whether the reader still exists.
    fn told(&mut self, written: io::Result<()>) -> Result<bool, Error> {
        self.closed = written.is_err();
        match written {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(source) => Err(Error::System {
                action: format!(
                    "{} cannot be written, and ends with packet {}",
                    self.path.display(),
                    self.records.written()
                ),
                source,
                remedy: "free space, or capture less with -c, -s or -f",
            }),
        }
    }

    /// Completes the file with the packets seen and lost on each interface.
    pub(crate) fn finish(mut self, totals: &[Option<Totals>]) -> Result<(), Error> {
        for (interface, totals) in (0..).zip(totals) {
            if let Some(totals) = totals {
                self.records.statistics(interface, *totals);
            }
        }
        self.flush().map(drop)
    }
}
