//! QEMU's monitor.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// QEMU's monitor, at the socket that `-monitor unix:PATH,server=on,wait=off` creates.
pub struct Monitor(UnixStream);

impl Monitor {
    const PROMPT: &str = "(qemu) ";

    /// Connects as soon as the monitor listens.
    pub fn connect(path: &Path) -> Self {
        crate::wait_for("QEMU's monitor", || Self::try_connect(path).ok())
    }

    pub(super) fn try_connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut monitor = Self(stream);
        monitor.answer();
        Ok(monitor)
    }

    /// Executes a command; returns its output.
    pub fn command(&mut self, line: &str) -> String {
        writeln!(self.0, "{line}").expect("the monitor takes a line");
        self.answer()
    }

    fn answer(&mut self) -> String {
        let mut bytes = Vec::new();
        let mut part = [0; 4096];
        loop {
            let n = self.0.read(&mut part).expect("the monitor answers");
            assert!(n > 0, "QEMU ended: {}", String::from_utf8_lossy(&bytes));
            bytes.extend_from_slice(part.get(..n).unwrap_or_default());
            if bytes.ends_with(Self::PROMPT.as_bytes()) {
                return String::from_utf8_lossy(&bytes).into_owned();
            }
        }
    }
}
