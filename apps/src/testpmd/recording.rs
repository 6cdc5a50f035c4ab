//! `set capture`: a port's packets into a file, written by a thread of its own.

use std::path::{Path, PathBuf};

use linecard::capture::pcap::encode::Format;
use linecard::capture::{Hub, Options, PortDump, Totals};

use crate::error::Error;

/// A capture of one port into a file; ends when dropped.
pub(crate) struct Recording {
    pub(crate) path: PathBuf,
    dump: PortDump,
}

impl Recording {
    /// Begins to write what passes the port.
    pub(crate) fn start(hub: &Hub, port: u16, path: &Path) -> Result<Self, Error> {
        let format = match path.extension() {
            Some(end) if end.eq_ignore_ascii_case("pcap") => Format::Pcap,
            _ => Format::PcapNg,
        };
        Ok(Self { path: path.into(), dump: hub.dump(port, path, format, &Options::default())? })
    }

    /// Packets written so far.
    pub(crate) fn written(&self) -> u64 {
        self.dump.packets()
    }

    /// Whether nothing more is written: its port stopped, or the file could not be.
    pub(crate) fn ended(&self) -> bool {
        !self.dump.is_running()
    }

    /// Ends it; how much was seen and lost.
    pub(crate) fn finish(self) -> Result<Totals, Error> {
        Ok(self.dump.finish()?)
    }
}
