//! `set capture`: writes a port's packets to a file, in a separate thread.

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
    /// Starts to write the port's packets.
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

    /// Whether writing has ended: the port stopped, or the file could not be written.
    pub(crate) fn ended(&self) -> bool {
        !self.dump.is_running()
    }

    /// Ends the capture; returns how many packets were seen and lost.
    pub(crate) fn finish(self) -> Result<Totals, Error> {
        Ok(self.dump.finish()?)
    }
}
