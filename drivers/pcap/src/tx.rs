//! Transmit queues: every burst is written as complete records before it is counted.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use linecard_mempool::{BURST, Burst, Packet};

use linecard_capture::pcap::encode::{self, Direction, Format, Record};
use linecard_pmd::port::TxQueue;
use linecard_pmd::stats::{QueueStats, Total};

linecard_pmd::causes! {
    /// The causes for which sent packets are missing in a file.
    pub enum TxLoss {
        /// The file system is full, or the file has reached its maximum size.
        NoSpace = ("no_space", Total::Error),
        /// The write failed for another reason.
        Write = ("write_error", Total::Error),
    }
}

/// The bytes of records collected before a write within a burst.
const BUFFER: usize = 512 << 10;
/// The most segments of a packet.
const SEGMENTS: usize = Packet::MAX_SEGS as usize;

/// An open capture file; it persists across the starts of a port.
pub(super) struct Output {
    pub(super) path: PathBuf,
    file: File,
    format: Format,
    snaplen: u32,
    /// The bytes of complete records in the file, which ends there. `None` for anything but a regular file.
    good: Option<u64>,
    /// Whether the file header is written.
    begun: bool,
    /// Whether this port created the file.
    fresh: bool,
    /// Whether a failed write was reported and none has succeeded since.
    failing: bool,
    buffer: Vec<u8>,
    /// The end of each record in `buffer`.
    ends: Vec<usize>,
}

/// The result of a write.
#[derive(Default)]
pub(super) struct WriteOutcome {
    packets: usize,
    lost: Option<(TxLoss, usize)>,
}

impl Output {
    /// Opens `path` for writing, without changing an existing file yet.
    ///
    /// # Errors
    /// An error of the system; `InvalidInput` for anything but a file, `WouldBlock` if another port writes to
    /// it.
    pub(super) fn open(path: &Path, snaplen: u32) -> io::Result<Self> {
        let fresh = !path.exists();
        // Fails at once for a pipe without a reader, instead of waiting for one.
        let now = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().create(true).append(true).custom_flags(now).open(path)?;
        let mut output = Self {
            path: path.to_owned(),
            file,
            format: Format::of(path),
            snaplen,
            good: Some(0),
            begun: false,
            fresh,
            failing: false,
            buffer: Vec::with_capacity(BUFFER),
            ends: Vec::with_capacity(BURST),
        };
        let kind = output.file.metadata()?.file_type();
        if kind.is_char_device() {
            output.good = None;
        } else if !kind.is_file() {
            return Err(ErrorKind::InvalidInput.into());
        } else {
            let lock = rustix::fs::FlockOperation::NonBlockingLockExclusive;
            if let Err(error) = rustix::fs::flock(&output.file, lock) {
                // A file of another port must not be removed.
                output.fresh = false;
                return Err(error.into());
            }
        }
        Ok(output)
    }

    /// Empties the file and writes its header, the first time. Later starts append.
    ///
    /// # Errors
    /// An error of the system; the file is then empty.
    pub(super) fn begin(&mut self, interface: &str) -> io::Result<()> {
        if self.begun {
            return Ok(());
        }
        // An earlier attempt may have failed.
        self.buffer.clear();
        self.format.header(&mut self.buffer, self.snaplen);
        if self.format == Format::PcapNg {
            encode::interface(&mut self.buffer, interface, self.snaplen, "");
        }
        if self.good.is_some() {
            self.file.set_len(0)?;
        }
        let result = self.file.write_all(&self.buffer);
        let len = self.buffer.len() as u64;
        self.buffer.clear();
        match result {
            Ok(()) => {
                self.good = self.good.map(|_| len);
                self.begun = true;
                Ok(())
            }
            Err(error) => {
                if self.good.is_some() {
                    self.file.set_len(0)?;
                }
                Err(error)
            }
        }
    }

    /// Collects one packet.
    fn append(&mut self, packet: &Packet, time: u64, queue: u16) -> WriteOutcome {
        let len = packet.len();
        let kept = len.min(self.snaplen as usize);
        let mut written = WriteOutcome::default();
        if self.buffer.len() + kept + self.format.overhead() > BUFFER {
            written = self.flush();
        }
        let mut parts = [&[][..]; SEGMENTS];
        let (mut count, mut left) = (0, kept);
        for (place, segment) in parts.iter_mut().zip(packet.segments()) {
            *place = &segment.data()[..segment.data().len().min(left)];
            left -= place.len();
            count += 1;
        }
        let record = Record {
            time,
            len: u32::try_from(len).unwrap_or(u32::MAX),
            direction: Direction::Out,
            queue: Some(queue),
            ..Record::default()
        };
        self.format.record(&mut self.buffer, &record, &parts[..count]);
        self.ends.push(self.buffer.len());
        written
    }

    /// Writes the collected records. Those that cannot be written are lost, and the file ends with a complete
    /// record.
    fn flush(&mut self) -> WriteOutcome {
        let (mut done, mut result) = (0, Ok(()));
        while done < self.buffer.len() && result.is_ok() {
            match self.file.write(&self.buffer[done..]) {
                Ok(0) => result = Err(ErrorKind::WriteZero.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => result = Err(error),
            }
        }
        let packets = self.ends.iter().take_while(|end| **end <= done).count();
        let whole = packets.checked_sub(1).map_or(0, |last| self.ends[last]) as u64;
        let lost = self.ends.len() - packets;
        self.buffer.clear();
        self.ends.clear();
        self.good = self.good.map(|good| good + whole);
        let Err(error) = result else {
            self.failing = false;
            return WriteOutcome { packets, lost: None };
        };
        if let Some(good) = self.good {
            // Truncating needs no space.
            let _ = self.file.set_len(good);
        }
        WriteOutcome { packets, lost: Some((self.complain(&error), lost)) }
    }

    /// Reports a failed write once, until one succeeds.
    fn complain(&mut self, error: &io::Error) -> TxLoss {
        if !self.failing {
            self.failing = true;
            let path = self.path.display();
            tracing::warn!(
                "{path} cannot be written: {error}; packets are dropped and counted until there is room"
            );
        }
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => TxLoss::NoSpace,
            _ => TxLoss::Write,
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.fresh && !self.begun && self.good.is_some() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Holds a file between two starts of its port.
pub(super) type SharedOutput = Arc<Mutex<Option<Output>>>;

/// A transmit queue that writes to a file.
pub(super) struct Tx {
    /// Present until drop.
    output: Option<Output>,
    shared: SharedOutput,
    queue: u16,
    stats: Arc<QueueStats<TxLoss>>,
}

impl Tx {
    /// Creates a queue that writes to `output`, and returns it to `shared` when dropped.
    pub(super) fn new(
        output: Output,
        shared: SharedOutput,
        queue: u16,
        stats: Arc<QueueStats<TxLoss>>,
    ) -> Self {
        Self { output: Some(output), shared, queue, stats }
    }

    /// Counts the results for `packets`.
    fn count(&self, written: &WriteOutcome, packets: &[Packet]) {
        let (done, lost) = packets.split_at(written.packets.min(packets.len()));
        self.stats.moved(written.packets, done.iter().map(|packet| packet.len() as u64).sum());
        if let Some((cause, count)) = written.lost {
            lost.iter().take(count).for_each(|packet| self.stats.dropped(cause, packet));
        }
    }
}

impl TxQueue for Tx {
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        let Some(mut output) = self.output.take() else { return 0 };
        if packets.is_empty() {
            self.output = Some(output);
            return 0;
        }
        let time = encode::now();
        // The packets before this one are counted already.
        let mut first = 0;
        for (i, packet) in packets.iter().enumerate() {
            let written = output.append(packet, time, self.queue);
            if written.packets > 0 || written.lost.is_some() {
                self.count(&written, &packets[first..i]);
                first = i;
            }
        }
        let written = output.flush();
        self.count(&written, &packets[first..]);
        self.output = Some(output);
        packets.clear()
    }

    fn path(&self) -> &'static str {
        match self.output.as_ref().map(|output| output.format) {
            Some(Format::PcapNg) => "pcapng file",
            _ => "pcap file",
        }
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = self.output.take();
    }
}

/// The transmit queue of a port that only reads: drops packets.
pub(super) struct NoTx(pub(super) Arc<QueueStats<TxLoss>>);

impl TxQueue for NoTx {
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        let bytes = packets.iter().map(|packet| packet.len() as u64).sum();
        let count = packets.clear();
        self.0.moved(count, bytes);
        count
    }

    fn path(&self) -> &'static str {
        "drop"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_failed_leaves_no_second_header() {
        let path = std::env::temp_dir().join(format!("linecard-pcap-begin-{}.pcap", std::process::id()));
        let mut output = Output::open(&path, 64).expect("a file");
        let writable = std::mem::replace(&mut output.file, File::open(&path).expect("it is there"));
        output.begin("port").expect_err("it cannot be emptied");
        output.file = writable;
        output.begin("port").expect("it can be written");
        drop(output);
        assert_eq!(std::fs::read(&path).expect("it is there").len(), 24, "one header");
        std::fs::remove_file(&path).expect("it is there");
    }
}
