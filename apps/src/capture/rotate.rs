//! Rotation of capture files, as with dumpcap's `-b`: a new file when the current one is full, and a limit on
//! the files to keep.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use linecard::capture::pcap::encode::Format;
use linecard::capture::{Frame, Totals};

use super::output::CaptureFile;
use crate::error::Error;
use linecard::capture::pcap::file::Head;

/// The conditions for a new file, and the number of files to keep; in dumpcap's terms.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rotation {
    /// Bytes of a file; packets are never split for it.
    pub(super) bytes: Option<u64>,
    pub(super) time: Option<Duration>,
    pub(super) packets: Option<u64>,
    /// The number of files to keep; the oldest is deleted.
    pub(super) files: Option<u64>,
}

/// One `-b NAME:NUMBER`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Condition {
    /// In units of 1000 bytes.
    FileSize(u64),
    Seconds(u64),
    Packets(u64),
    Files(u64),
}

/// Parses `filesize:KB`, `duration:SECONDS`, `packets:COUNT` or `files:COUNT`.
pub(super) fn condition(text: &str) -> Result<Condition, String> {
    let (what, number) = text.split_once(':').unwrap_or((text, ""));
    let number = number.parse().ok().filter(|number| (1..=1 << 40).contains(number));
    match (what, number) {
        ("filesize", Some(number)) => Ok(Condition::FileSize(number)),
        ("duration", Some(number)) => Ok(Condition::Seconds(number)),
        ("packets", Some(number)) => Ok(Condition::Packets(number)),
        ("files", Some(number)) => Ok(Condition::Files(number)),
        _ => Err("give filesize:KB, duration:SECONDS, packets:COUNT or files:COUNT".into()),
    }
}

impl Rotation {
    /// Combines all conditions; `None` if there are none.
    ///
    /// # Errors
    /// A number of files to keep, without a condition for a new file.
    pub(super) fn of(conditions: &[Condition]) -> Result<Option<Self>, Error> {
        let mut rotation = Self::default();
        for condition in conditions {
            match *condition {
                Condition::FileSize(kilobytes) => rotation.bytes = Some(kilobytes.saturating_mul(1000)),
                Condition::Seconds(seconds) => rotation.time = Some(Duration::from_secs(seconds)),
                Condition::Packets(count) => rotation.packets = Some(count),
                Condition::Files(count) => rotation.files = Some(count),
            }
        }
        if rotation.files.is_some()
            && rotation.bytes.is_none()
            && rotation.time.is_none()
            && rotation.packets.is_none()
        {
            let text =
                "-b files:COUNT says how many are kept; say when the next begins, as in -b filesize:10000";
            return Err(Error::Usage(text.into()));
        }
        Ok((!conditions.is_empty()).then_some(rotation))
    }
}

/// The contents of each file's header.
pub(super) struct Heading {
    pub(super) format: Format,
    pub(super) names: Vec<String>,
    pub(super) snaplen: u32,
    pub(super) filter: String,
}

impl Heading {
    pub(super) fn create(&self, path: &Path) -> Result<CaptureFile, Error> {
        let interfaces: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let Self { format, snaplen, .. } = *self;
        CaptureFile::create(path, Head { format, interfaces: &interfaces, snaplen, filter: &self.filter })
    }
}

/// A series of files.
pub(super) struct Rotating {
    path: PathBuf,
    head: Heading,
    rotation: Rotation,
    file: CaptureFile,
    since: Instant,
    packets: u64,
    number: u64,
    kept: VecDeque<PathBuf>,
}

impl Rotating {
    /// Creates the first file: `NAME_00001_YYYYMMDDhhmmss.EXTENSION` for the path `NAME.EXTENSION`, in UTC.
    pub(super) fn create(path: &Path, head: Heading, rotation: Rotation) -> Result<Self, Error> {
        let first = numbered(path, 1, SystemTime::now());
        let file = head.create(&first)?;
        let kept = VecDeque::from([first]);
        Ok(Self {
            path: path.into(),
            head,
            rotation,
            file,
            since: Instant::now(),
            packets: 0,
            number: 1,
            kept,
        })
    }

    pub(super) fn add(&mut self, source: usize, frame: &Frame<'_>) -> Result<(), Error> {
        self.turn()?;
        self.packets += 1;
        self.file.add(source, frame)
    }

    /// Begins the next file if the current one is full.
    fn turn(&mut self) -> Result<(), Error> {
        let Rotation { bytes, time, packets, files } = self.rotation;
        let full = bytes.is_some_and(|most| self.packets > 0 && self.file.size() >= most)
            || packets.is_some_and(|most| self.packets >= most)
            || time.is_some_and(|most| self.since.elapsed() >= most);
        if !full {
            return Ok(());
        }
        self.number += 1;
        let next = numbered(&self.path, self.number, SystemTime::now());
        let file = self.head.create(&next)?;
        std::mem::replace(&mut self.file, file).finish(&[])?;
        self.kept.push_back(next);
        (self.since, self.packets) = (Instant::now(), 0);
        while files.is_some_and(|most| self.kept.len() as u64 > most) {
            if let Some(oldest) = self.kept.pop_front() {
                // The file may have been moved or deleted already.
                let _ = std::fs::remove_file(oldest);
            }
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<bool, Error> {
        self.file.flush()
    }

    pub(super) fn finish(self, totals: &[Option<Totals>]) -> Result<(), Error> {
        self.file.finish(totals)
    }
}

/// Returns the name of a file in the series.
fn numbered(path: &Path, number: u64, now: SystemTime) -> PathBuf {
    let stem = path.file_stem().map_or("".into(), |stem| stem.to_string_lossy());
    let extension = path.extension().map_or(String::new(), |text| format!(".{}", text.to_string_lossy()));
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    path.with_file_name(format!("{stem}_{number:05}_{}{extension}", stamp(seconds)))
}

/// Formats a time as `YYYYMMDDhhmmss` in UTC, in the Gregorian calendar.
fn stamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut day) = (1970, days);
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    format!("{year:04}{month:02}{:02}{:02}{:02}{:02}", day + 1, rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dumpcaps() {
        // date -u -d @SECONDS +%Y%m%d%H%M%S
        for (seconds, want) in [
            (0, "19700101000000"),
            (951_782_399, "20000228235959"),
            (951_868_799, "20000229235959"),
            (1_709_251_199, "20240229235959"),
            (1_735_689_599, "20241231235959"),
            (1_795_946_096, "20261129095456"),
        ] {
            assert_eq!(stamp(seconds), want);
        }
        let at = UNIX_EPOCH + Duration::from_secs(951_782_400);
        assert_eq!(
            numbered(Path::new("/x/a.b.pcapng"), 7, at),
            Path::new("/x/a.b_00007_20000229000000.pcapng")
        );
        assert_eq!(numbered(Path::new("plain"), 100_000, at), Path::new("plain_100000_20000229000000"));
    }

    #[test]
    fn conditions_are_dumpcaps() {
        for text in ["filesize:1", "duration:60", "packets:5", "files:2"] {
            assert!(condition(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "filesize",
            "filesize:",
            "filesize:0",
            "files:-1",
            "packets:1.5",
            "interval:3",
            "5",
            "duration:99999999999999",
        ] {
            assert!(condition(text).is_err_and(|error| error.contains("filesize:KB")), "{text}");
        }
        let files = [condition("files:2").unwrap()];
        assert!(Rotation::of(&files).is_err(), "nothing begins the second");
        assert!(Rotation::of(&[]).is_ok_and(|rotation| rotation.is_none()));
    }
}
