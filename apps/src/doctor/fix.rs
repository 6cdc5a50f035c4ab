//! `linecard doctor --fix`: changes kernel settings after asking; `--undo` restores them.

use std::fs;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use linecard::eal::runtime;

use super::{Finding, Status, WANTED_2M};
use crate::error::Error;
use crate::output::{Output, out};

/// A kernel setting that lasts until reboot, and the finding that it improves.
struct Setting {
    finding: &'static str,
    file: &'static str,
    change: Change,
    /// The command that makes it permanent, with `{}` in place of the value.
    lasting: &'static str,
}

/// How a setting changes.
enum Change {
    /// To this word.
    To(&'static str),
    /// By so many pages more: those that are there may be in use.
    More(u64),
}

/// The settings that can be changed and restored at run time. All other remedies are commands for the user.
const SETTINGS: [Setting; 2] = [
    Setting {
        finding: "hugepages-2M",
        // Not /proc/sys/vm/nr_hugepages: that is the pool of the default size, which may be 1 GiB.
        file: "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
        change: Change::More(WANTED_2M),
        lasting: "echo 'w /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages - - - - {}' | sudo tee /etc/tmpfiles.d/linecard-hugepages.conf",
    },
    Setting {
        finding: "thp",
        file: "/sys/kernel/mm/transparent_hugepage/shmem_enabled",
        change: Change::To("advise"),
        lasting: "echo 'w /sys/kernel/mm/transparent_hugepage/shmem_enabled - - - - {}' | sudo tee /etc/tmpfiles.d/linecard.conf",
    },
];

/// The location of the settings, and the record of changed ones for `--undo`.
pub(super) struct Place {
    /// A prefix for every file's path: empty, except in tests.
    root: PathBuf,
    record: PathBuf,
}

impl Place {
    /// This machine. The record is lost at reboot, as the changes are.
    pub(super) fn here() -> Self {
        Self { root: PathBuf::new(), record: runtime::root().join("doctor.undo") }
    }

    fn file(&self, setting: &Setting) -> PathBuf {
        if self.root.as_os_str().is_empty() {
            return setting.file.into();
        }
        self.root.join(setting.file.trim_start_matches('/'))
    }

    /// Returns the current value of a setting; of several words the one in brackets.
    fn read(&self, setting: &Setting) -> Result<String, Error> {
        let file = self.file(setting);
        let text = fs::read_to_string(&file).map_err(|source| failed("read", &file, source))?;
        let chosen = text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(word, _)| word);
        Ok(chosen.unwrap_or(text.trim()).to_owned())
    }

    fn write(&self, setting: &Setting, value: &str) -> Result<(), Error> {
        let file = self.file(setting);
        // A missing file is not created.
        let opened = fs::OpenOptions::new().write(true).open(&file);
        opened
            .and_then(|mut opened| opened.write_all(format!("{value}\n").as_bytes()))
            .map_err(|source| failed("changed", &file, source))
    }

    /// Returns the previous values, by file, in the order of the changes.
    fn changed(&self) -> Vec<(String, String)> {
        let text = fs::read_to_string(&self.record).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.split_once('\t'));
        lines.map(|(file, value)| (file.to_owned(), value.to_owned())).collect()
    }

    fn remember(&self, setting: &Setting, before: &str) -> Result<(), Error> {
        // Only the value before the first change is recorded.
        if self.changed().iter().any(|(file, _)| file == setting.file) {
            return Ok(());
        }
        let noted = || -> io::Result<()> {
            if let Some(folder) = self.record.parent() {
                fs::DirBuilder::new().recursive(true).create(folder)?;
            }
            let mut record = fs::OpenOptions::new().append(true).create(true).open(&self.record)?;
            record.write_all(format!("{}\t{before}\n", setting.file).as_bytes())
        };
        noted().map_err(|source| failed("written", &self.record, source))
    }
}

fn failed(what: &str, file: &Path, source: io::Error) -> Error {
    Error::System {
        action: format!("{} cannot be {what}", file.display()),
        source,
        remedy: "run it as root, outside of a container: sudo linecard doctor --fix",
    }
}

/// Asks the question on the terminal.
///
/// # Errors
/// Standard input is not a terminal.
pub(super) fn on_terminal(output: &mut Output, question: &str) -> Result<bool, Error> {
    if !io::stdin().is_terminal() {
        return Err(Error::Usage(
            "--fix asks before it changes anything; give --yes where nobody can answer".into(),
        ));
    }
    out!(output, "{question} [y/N] ");
    output.flush();
    let mut line = String::new();
    // A failed read counts as no.
    let _ = io::stdin().lock().read_line(&mut line);
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

/// Changes the settings that improve findings, each after `agreed` has confirmed it.
pub(super) fn fix(
    place: &Place,
    findings: &[Finding],
    output: &mut Output,
    mut agreed: impl FnMut(&mut Output, &str) -> Result<bool, Error>,
) -> Result<(), Error> {
    let poor = |setting: &&Setting| {
        findings.iter().any(|finding| finding.name == setting.finding && finding.status == Status::Degraded)
    };
    let mut any = false;
    for setting in SETTINGS.iter().filter(poor) {
        any = true;
        let (file, before) = (setting.file, place.read(setting)?);
        let (value, act) = match setting.change {
            Change::To(word) => (word.to_owned(), format!("write {word} to {file}, which has {before}?")),
            Change::More(pages) => {
                let there = before.parse::<u64>().map_err(|error| {
                    failed("read", Path::new(file), io::Error::new(io::ErrorKind::InvalidData, error))
                })?;
                let value = there.saturating_add(pages).to_string();
                let act = format!("add {pages} pages to the {there} in {file}, which makes {value}?");
                (value, act)
            }
        };
        if !agreed(output, &format!("{}: {act}", setting.finding))? {
            continue;
        }
        place.remember(setting, &before)?;
        place.write(setting, &value)?;
        let now = place.read(setting)?;
        let lasting = setting.lasting.replace("{}", &value);
        out!(output, "{file}: {before} -> {now}\n    until the machine starts anew; for good: {lasting}\n");
    }
    if any {
        out!(output, "`linecard doctor --undo` puts back what was changed\n");
    } else {
        out!(output, "nothing to change: what is not OK above needs the command that is named there\n");
    }
    Ok(())
}

/// Restores what [`fix`] changed, in reverse order.
pub(super) fn undo(place: &Place, output: &mut Output) -> Result<(), Error> {
    let changed = place.changed();
    for (file, before) in changed.iter().rev() {
        // Only known settings are written, whatever the record contains.
        let Some(setting) = SETTINGS.iter().find(|setting| setting.file == file) else { continue };
        place.write(setting, before)?;
        out!(output, "{file}: {}\n", place.read(setting)?);
    }
    if changed.is_empty() {
        out!(output, "nothing was changed by `linecard doctor --fix` since the machine started\n");
        return Ok(());
    }
    fs::remove_file(&place.record).map_err(|source| failed("removed", &place.record, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Machine(Place);

    impl Machine {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("lc-doctor-{name}-{}", std::process::id()));
            for (file, text) in [
                ("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "1024\n"),
                ("sys/kernel/mm/transparent_hugepage/shmem_enabled", "always [never] deny\n"),
            ] {
                let path = root.join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(Place { record: root.join("run/doctor.undo"), root })
        }

        fn text(&self, setting: usize) -> String {
            fs::read_to_string(self.0.file(&SETTINGS[setting])).unwrap()
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0.root);
        }
    }

    fn findings() -> Vec<Finding> {
        ["hugepages-2M", "thp", "tun"].map(|name| Finding::poor(name, Status::Degraded, "poor", "try")).into()
    }

    #[test]
    fn what_is_agreed_to_is_changed_and_put_back() {
        let machine = Machine::new("agreed");
        let mut output = Output::standard();
        let mut asked = Vec::new();
        fix(&machine.0, &findings(), &mut output, |_, question| {
            asked.push(question.to_owned());
            Ok(question.starts_with("hugepages"))
        })
        .unwrap();
        assert_eq!(
            asked[0],
            "hugepages-2M: add 512 pages to the 1024 in \
             /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages, which makes 1536?"
        );
        assert!(asked.len() == 2 && asked[1].ends_with("which has never?"), "{asked:?}");
        assert!(machine.text(0).starts_with("1536\n") && machine.text(1).starts_with("always [never]"));
        // A second change keeps the value from before the first.
        fix(&machine.0, &findings(), &mut output, |_, _| Ok(true)).unwrap();
        assert_eq!(machine.0.changed().len(), 2);
        undo(&machine.0, &mut output).unwrap();
        assert!(machine.text(0).starts_with("1024\n") && machine.text(1).starts_with("never\n"));
        assert!(machine.0.changed().is_empty());
        undo(&machine.0, &mut output).unwrap();
    }

    #[test]
    fn a_record_that_names_other_files_changes_none() {
        let machine = Machine::new("record");
        let other = machine.0.root.join("other");
        fs::write(&other, "mine").unwrap();
        fs::create_dir_all(machine.0.record.parent().unwrap()).unwrap();
        let lines = format!("{}\tevil\n/etc/passwd\tevil\nno tab\n", other.display());
        fs::write(&machine.0.record, lines).unwrap();
        undo(&machine.0, &mut Output::standard()).unwrap();
        assert_eq!(fs::read_to_string(other).unwrap(), "mine");
    }

    #[test]
    fn what_cannot_be_changed_is_told_with_a_remedy() {
        let machine = Machine::new("refused");
        fs::remove_dir_all(machine.0.root.join("sys/kernel/mm/hugepages")).unwrap();
        let refused =
            fix(&machine.0, &findings(), &mut Output::standard(), |_, _| Ok(true)).unwrap_err().to_string();
        assert!(refused.contains("cannot be read") && refused.contains("as root"), "{refused}");
        assert!(machine.0.changed().is_empty());
    }
}
