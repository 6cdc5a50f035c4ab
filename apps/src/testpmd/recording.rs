//! `set capture`: a port's packets into a file, written by a thread of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use linecard::capture::pcap::encode::{Format, SNAPLEN};
use linecard::capture::{Hub, Options, Session, Stream, Totals};

use crate::capture::CaptureFile;
use crate::error::Error;

/// How long the writer sleeps when there is nothing to write.
const NAP: Duration = Duration::from_millis(2);

/// A capture of one port into a file; ends when dropped.
pub(crate) struct Recording {
    pub(crate) path: PathBuf,
    written: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Totals, Error>>>,
}

impl Recording {
    /// Begins to write what passes the port.
    pub(crate) fn start(hub: &Hub, port: u16, name: &str, path: &Path) -> Result<Self, Error> {
        let (session, stream) = hub.open(port, &Options::default())?;
        let format = match path.extension() {
            Some(end) if end.eq_ignore_ascii_case("pcap") => Format::Pcap,
            _ => Format::PcapNg,
        };
        let file = CaptureFile::create(path, format, &[name], SNAPLEN, "")?;
        let (end, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ended, count) = (Arc::clone(&end), Arc::clone(&written));
        let thread = std::thread::Builder::new()
            .name("lc-record".into())
            .spawn(move || record(session, stream, file, &ended, &count))
            .map_err(|source| Error::System {
                action: "a thread for the capture cannot be made".into(),
                source,
                remedy: "raise `ulimit -u`",
            })?;
        Ok(Self { path: path.into(), written, end, thread: Some(thread) })
    }

    /// Packets written so far.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Whether nothing more is written: its port stopped, or the file could not be.
    pub(crate) fn ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it; how much was seen and lost.
    pub(crate) fn finish(mut self) -> Result<Totals, Error> {
        self.end.store(true, Ordering::Relaxed);
        let lost = || {
            Error::Failed("the thread that wrote the capture ended early; its file may lack packets".into())
        };
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_else(|| Err(lost()))
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn record(
    session: Session,
    mut stream: Stream,
    mut file: CaptureFile,
    end: &AtomicBool,
    written: &AtomicU64,
) -> Result<Totals, Error> {
    loop {
        // Looked at before the rings are: what was there by then is written.
        let last = end.load(Ordering::Relaxed) || !session.alive();
        let mut count = 0;
        while let Some(frame) = stream.next()? {
            file.add(0, &frame)?;
            count += 1;
            // A source faster than the disk must not keep the end waiting.
            if count == 1 << 16 {
                break;
            }
        }
        file.flush()?;
        written.fetch_add(count, Ordering::Relaxed);
        if last {
            let totals = session.totals();
            file.finish(&[Some(totals)])?;
            return Ok(totals);
        }
        if count == 0 {
            std::thread::sleep(NAP);
        }
    }
}
