//! Samples in a file, one JSON object per line, so that a long run can be interrupted, continued, and
//! reported later.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path as Name, PathBuf};

use serde::{Deserialize, Serialize};

use super::cell::{Cell, Load, Size, Subject};
use super::kind::Metric;
use super::machine::{Probe, State};
use super::schedule::{self, Reason, Record, Sample};
use crate::Error;

/// The figures of a sample.
pub(crate) type Values = BTreeMap<Metric, f64>;

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum JsonLine {
    /// The setting that all samples of the file share; the first line.
    Setting {
        setting: Vec<String>,
    },
    /// The version that DPDK reports.
    Dpdk {
        dpdk_version: String,
    },
    Attempt(Attempt),
}

/// A sample, or the reason for its rejection.
#[derive(Debug, Serialize, Deserialize)]
struct Attempt {
    kind: String,
    position: String,
    path: String,
    size: String,
    ring: u16,
    burst: u16,
    /// The round of the sample.
    run: u32,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Outcome {
    Sample {
        values: Values,
        state: State,
        hand_over: f64,
        clock: f64,
        #[serde(default, skip_serializing_if = "is_zero")]
        round: u64,
    },
    Rejected {
        rejected: Reason,
        why: String,
    },
}

fn is_zero(round: &u64) -> bool {
    *round == 0
}

/// A file to which samples are appended.
pub(crate) struct SampleFile {
    name: PathBuf,
    file: File,
}

/// The contents of a file.
#[derive(Default)]
pub(crate) struct SavedSamples {
    pub(crate) setting: Vec<String>,
    pub(crate) dpdk_version: Option<String>,
    pub(crate) records: Vec<Record>,
}

impl SavedSamples {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, or a line has another format.
    pub(crate) fn read(name: &Name) -> Result<Self, Error> {
        let failed = |source| Error::Samples { file: name.to_owned(), source };
        let mut pages = Self::default();
        for (number, text) in BufReader::new(File::open(name).map_err(failed)?).lines().enumerate() {
            let text = text.map_err(failed)?;
            if text.trim().is_empty() {
                continue;
            }
            let strange = |problem: String| {
                let problem = format!("line {}: {problem}", number + 1);
                failed(io::Error::new(io::ErrorKind::InvalidData, problem))
            };
            let line = serde_json::from_str(&text).map_err(|error| strange(error.to_string()))?;
            pages.add(line).map_err(strange)?;
        }
        Ok(pages)
    }

    fn add(&mut self, line: JsonLine) -> Result<(), String> {
        match line {
            JsonLine::Setting { setting } => self.setting = setting,
            JsonLine::Dpdk { dpdk_version } => self.dpdk_version = Some(dpdk_version),
            JsonLine::Attempt(attempt) => {
                let cell = attempt.cell()?;
                let known = self.records.iter().position(|record| record.cell == cell);
                let at = known.unwrap_or_else(|| {
                    self.records.push(Record::new(cell));
                    self.records.len() - 1
                });
                let record = &mut self.records[at];
                record.turns = record.turns.max(attempt.run + 1);
                match attempt.outcome {
                    Outcome::Sample { values, state, hand_over, clock, round } => {
                        let probe = Probe { hand_over, clock };
                        record.samples.push(Sample { values, state, probe, round });
                    }
                    Outcome::Rejected { rejected, why } => record.reject(rejected, &why),
                }
            }
        }
        Ok(())
    }
}

impl Attempt {
    fn of(cell: &Cell, run: u32, outcome: Outcome) -> Self {
        let (position, path) = cell.subject.names();
        Self {
            kind: cell.kind.to_string(),
            position: position.to_owned(),
            path: path.to_owned(),
            size: cell.load.size.to_string(),
            ring: cell.load.ring,
            burst: cell.load.burst,
            run,
            outcome,
        }
    }

    fn cell(&self) -> Result<Cell, String> {
        let subject = Subject::named(&self.position, &self.path)?;
        let load = Load { size: Size::parse(&self.size)?, ring: self.ring, burst: self.burst };
        Ok(Cell { kind: self.kind.parse()?, subject, load })
    }
}

impl SampleFile {
    /// Opens or creates a file; returns its contents too.
    ///
    /// # Errors
    /// The file cannot be read or written, or was created with another `setting`.
    pub(crate) fn open(name: &Name, setting: &[String]) -> Result<(Self, SavedSamples), Error> {
        let failed = |source| Error::Samples { file: name.to_owned(), source };
        let mut pages = if name.exists() { SavedSamples::read(name)? } else { SavedSamples::default() };
        let file = OpenOptions::new().create(true).append(true).open(name).map_err(failed)?;
        let mut book = Self { name: name.to_owned(), file };
        if pages.setting.is_empty() {
            setting.clone_into(&mut pages.setting);
            book.write(&JsonLine::Setting { setting: setting.to_vec() })?;
        } else if pages.setting != setting {
            let other = pages.setting.iter().zip(setting).find(|(a, b)| a != b);
            let (had, has) = other.map_or(("", ""), |(a, b)| (a.as_str(), b.as_str()));
            return Err(Error::OtherSetting { file: name.to_owned(), had: had.into(), has: has.into() });
        }
        Ok((book, pages))
    }

    /// Appends an attempt.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn note(&mut self, cell: &Cell, run: u32, attempt: &schedule::Attempt) -> Result<(), Error> {
        let outcome = match attempt {
            Ok(sample) => Outcome::Sample {
                values: sample.values.clone(),
                state: sample.state,
                hand_over: sample.probe.hand_over,
                clock: sample.probe.clock,
                round: sample.round,
            },
            Err((rejected, why)) => Outcome::Rejected { rejected: *rejected, why: why.clone() },
        };
        self.write(&JsonLine::Attempt(Attempt::of(cell, run, outcome)))
    }

    /// Appends DPDK's version.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn note_dpdk(&mut self, version: &str) -> Result<(), Error> {
        self.write(&JsonLine::Dpdk { dpdk_version: version.to_owned() })
    }

    /// Appends a line in one write, so that lines are complete even if the process is killed.
    fn write(&mut self, line: &JsonLine) -> Result<(), Error> {
        let mut text = serde_json::to_string(line).map_err(io::Error::from)?;
        text.push('\n');
        let written = self.file.write_all(text.as_bytes());
        written.map_err(|source| Error::Samples { file: self.name.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loopback::cell::Position;
    use crate::loopback::kind::{Kind, Offer};
    use crate::loopback::path::Path;

    fn cell(kind: Kind, subject: Subject) -> Cell {
        Cell { kind, subject, load: Load { size: Size::Bytes(64), ring: 1024, burst: 32 } }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = linecard_apps_common::PrivateFolder::new().expect("a folder");
        let name = folder.path().join("samples.jsonl");
        let setting = ["two cores".to_owned()];
        let pair = cell(Kind::Open(Offer::Max), Subject::Pair(Position::OursTester, Path::Packed));
        let values = Values::from([(Metric::Mpps, 12.5), (Metric::Lost, 3.0)]);
        let probe = Probe { hand_over: 140.0, clock: 1.4 };
        let sample = Sample { values, state: State::Near, probe, round: 7 };
        {
            let (mut book, pages) = SampleFile::open(&name, &setting).expect("a new file");
            assert!(pages.records.is_empty());
            book.note(&pair, 0, &Ok(sample.clone())).expect("written");
            book.note(&pair, 1, &Err((Reason::Failed, "it died".into()))).expect("written");
            book.note(&cell(Kind::Closed, Subject::Ceiling), 1, &Err((Reason::State, String::new())))
                .expect("written");
            book.note_dpdk("DPDK 22.11").expect("written");
        }
        let (_, pages) = SampleFile::open(&name, &setting).expect("the same file");
        assert_eq!(pages.dpdk_version.as_deref(), Some("DPDK 22.11"));
        let [first, second] = &pages.records[..] else { panic!("{}", pages.records.len()) };
        assert_eq!((first.cell, first.turns, first.samples.len()), (pair, 2, 1));
        assert_eq!((&first.samples[0].values, first.samples[0].round), (&sample.values, 7));
        assert_eq!((first.rejected.failed, first.trouble.as_deref()), (1, Some("it died")));
        assert_eq!((second.cell.subject, second.rejected.state), (Subject::Ceiling, 1));
    }

    #[test]
    fn another_setting_and_strange_lines_are_refused() {
        let folder = linecard_apps_common::PrivateFolder::new().expect("a folder");
        let name = folder.path().join("samples.jsonl");
        drop(SampleFile::open(&name, &["hugepages".to_owned()]).expect("a new file"));
        let refused =
            SampleFile::open(&name, &["ordinary pages".to_owned()]).err().expect("other pages").to_string();
        assert!(refused.contains("hugepages") && refused.contains("ordinary pages"), "{refused}");
        std::fs::write(&name, "{\"kind\":\"closed\"}\n").expect("a writable folder");
        assert!(SavedSamples::read(&name).err().is_some_and(|error| error.to_string().contains("line 1")));
        assert!(SavedSamples::read(&folder.path().join("none")).is_err());
    }
}
