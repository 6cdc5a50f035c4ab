//! EAL arguments: DPDK's syntax (getopt_long) and the options of DPDK 22.11.
//!
//! Options with a meaning here take effect. Options without effect here are accepted, so that command lines
//! written for DPDK work, and are listed in [`EalArgs::ignored`]. Options for unsupported features are errors
//! that say what to do instead; unknown options are errors too.

mod apply;
mod table;

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};

use crate::cores::{LcoreId, LcoreMap};
use crate::error::{Error, Result};
use crate::memory::{MemoryConfig, PagePolicy};
use table::{Effect, OPTIONS, Opt, Value};

/// An option of the EAL part of a command line, for manuals and shell completions; see [`EalArgs::options`].
///
/// ```
/// use linecard_eal::EalArgs;
/// let vdev = EalArgs::options().find(|option| option.long == Some("vdev")).expect("there is one");
/// assert_eq!((vdev.short, vdev.value), (None, Some(("device", true))));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OptionHelp {
    /// The letter, without the dash.
    pub short: Option<char>,
    /// The name, without dashes.
    pub long: Option<&'static str>,
    /// The name of the value, if the option takes one, and whether the value is required.
    pub value: Option<(&'static str, bool)>,
    /// What the option does.
    pub help: &'static str,
    /// Whether the option has an effect here.
    pub acts: bool,
}

/// The parsed EAL part of a command line.
///
/// ```
/// use linecard_eal::EalArgs;
///
/// let line = "-l 0-1 -m 256 --no-pci --vdev=net_null0 -- -i";
/// let (args, app) = EalArgs::parse(line.split(' ')).unwrap();
/// assert_eq!(args.lcores.unwrap().to_string(), "0@0,1@1");
/// assert_eq!((args.memory, args.vdevs[0].as_str(), args.ignored[0].as_str()), (Some(256), "net_null0", "--no-pci"));
/// assert_eq!(app, ["-i"]);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EalArgs {
    /// `-l`, `--lcores` or `-c`; `None` for one lcore on each allowed core.
    pub lcores: Option<LcoreMap>,
    /// `--main-lcore`; `None` for the lowest.
    pub main_lcore: Option<LcoreId>,
    /// `-m`, or the sum of `--socket-mem`: the limit on all segments together in MiB; `None` for no limit.
    pub memory: Option<usize>,
    /// `--no-huge`: 4K pages only.
    pub no_huge: bool,
    /// `--require-hugepages`: hugetlb pages only.
    pub require_hugepages: bool,
    /// `--in-memory`: no files are created, not even the control socket (memory never needs any here).
    pub in_memory: bool,
    /// `--telemetry` or `--no-telemetry`; the latter takes precedence. See [`EalArgs::wants_telemetry`].
    pub telemetry: Option<bool>,
    /// `--single-file-segments`. Accepted: a segment is always one file here, and memory that is reserved at
    /// once is one segment.
    pub single_file_segments: bool,
    /// `--file-prefix`: the first part of the segments' names in `/proc`.
    pub file_prefix: Option<String>,
    /// Each `-a`, in order: the PCI devices to use. Others are not used.
    pub allowed: Vec<String>,
    /// Each `--vdev`, in order.
    pub vdevs: Vec<String>,
    /// Each `--log-level`, in order; see [`log::directives`](crate::log::directives).
    pub log_level: Vec<String>,
    /// `-h`, `--help`: print [`EalArgs::help_text`] and exit.
    pub help: bool,
    /// `-v`: print the version first.
    pub version: bool,
    /// Options that were accepted and change nothing here, as given.
    pub ignored: Vec<String>,
}

impl EalArgs {
    /// Parses arguments (without the program's name) up to `--`, and returns the arguments after it too. Long
    /// options may be shortened while they stay unique, and take values as `--opt=value` or `--opt value`;
    /// short options take values as `-l0-1` or `-l 0-1`.
    ///
    /// # Errors
    /// [`Error::UnknownOption`], [`Error::AmbiguousOption`], [`Error::UnsupportedOption`], [`Error::MissingValue`],
    /// [`Error::OptionValue`], [`Error::Conflict`], [`Error::UnexpectedArgument`], [`Error::NotUtf8`], [`Error::Lcores`].
    pub fn parse<A: Into<OsString>>(arguments: impl IntoIterator<Item = A>) -> Result<(Self, Vec<OsString>)> {
        let mut rest: VecDeque<OsString> = arguments.into_iter().map(Into::into).collect();
        let mut args = Self::default();
        while let Some(argument) = rest.pop_front() {
            if argument == "--" {
                break;
            }
            let argument = text(None, argument)?;
            if let Some(long) = argument.strip_prefix("--") {
                args.long(long, &mut rest)?;
            } else if let Some(letters) = argument.strip_prefix('-').filter(|letters| !letters.is_empty()) {
                args.short(letters, &mut rest)?;
            } else {
                return Err(Error::UnexpectedArgument { argument });
            }
        }
        if !args.ignored.is_empty() {
            tracing::debug!(options = %args.ignored.join(" "), "accepted without effect");
        }
        Ok((args, rest.into()))
    }

    /// All accepted options.
    pub fn options() -> impl Iterator<Item = OptionHelp> {
        OPTIONS.iter().filter_map(Opt::described)
    }

    /// The supported options with their meaning, and the names of those without effect, for `--help`.
    #[must_use]
    pub fn help_text() -> String {
        table::help_text()
    }

    /// All requested devices in the order of DPDK's ports: PCI devices first.
    ///
    /// ```
    /// use linecard_eal::EalArgs;
    /// let (args, _) = EalArgs::parse("--vdev net_null0 -a 0000:00:05.0".split(' ')).unwrap();
    /// assert_eq!(args.devices().collect::<Vec<_>>(), ["0000:00:05.0", "net_null0"]);
    /// ```
    pub fn devices(&self) -> impl Iterator<Item = &str> {
        self.allowed.iter().chain(&self.vdevs).map(String::as_str)
    }

    /// The memory configuration that these arguments request.
    #[must_use]
    pub fn memory_config(&self) -> MemoryConfig {
        let pages = match (self.no_huge, self.require_hugepages) {
            (true, _) => PagePolicy::NoHuge,
            (_, true) => PagePolicy::RequireHuge,
            _ => PagePolicy::Auto,
        };
        let limit = self.memory.map(|mib| mib.saturating_mul(1 << 20));
        let config = MemoryConfig::default().limit(limit).pages(pages);
        match &self.file_prefix {
            Some(name) => config.name(name),
            None => config,
        }
    }

    /// Whether to create a telemetry socket: by default, unless no files may be created.
    #[must_use]
    pub fn wants_telemetry(&self) -> bool {
        self.telemetry.unwrap_or(!self.in_memory)
    }

    /// Handles `--name`, `--name=value` or `--name value`, without the dashes.
    fn long(&mut self, argument: &str, rest: &mut VecDeque<OsString>) -> Result<()> {
        let (name, attached) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument, None),
        };
        let option = table::find_long(name)?;
        let value = match (option.value, attached) {
            (Value::None, Some(value)) => {
                return Err(Error::OptionValue { option: option.name(), value, expected: "no value" });
            }
            (Value::Required(_), None) => Some(next_value(option, rest)?),
            (_, attached) => attached,
        };
        self.apply(option, value)
    }

    /// Handles `-a`, `-avalue`, `-a value`, or several flags together, without the dash.
    fn short(&mut self, letters: &str, rest: &mut VecDeque<OsString>) -> Result<()> {
        let mut letters = letters.chars();
        while let Some(letter) = letters.next() {
            let option = OPTIONS.iter().find(|option| option.short == Some(letter));
            let option =
                option.ok_or_else(|| Error::UnknownOption { option: format!("-{letter}"), near: None })?;
            if let Value::Required(_) = option.value {
                let attached = letters.as_str();
                let value = if attached.is_empty() { next_value(option, rest)? } else { attached.to_owned() };
                return self.apply(option, Some(value));
            }
            self.apply(option, None)?;
        }
        Ok(())
    }

    fn apply(&mut self, option: &'static Opt, value: Option<String>) -> Result<()> {
        match option.effect {
            Effect::Act(act) => act(self, option.name(), &value.unwrap_or_default()),
            Effect::Ignore => {
                self.ignored.push(option.given(value.as_deref()));
                Ok(())
            }
            Effect::Refuse(instead) => {
                Err(Error::UnsupportedOption { option: option.given(value.as_deref()), instead })
            }
        }
    }
}

fn next_value(option: &'static Opt, rest: &mut VecDeque<OsString>) -> Result<String> {
    // As with getopt_long, the next argument is the value, whatever it is; only "--" cannot be a value.
    let value = rest.pop_front().filter(|value| value != "--");
    let missing = || Error::MissingValue { option: option.name(), expected: option.expected() };
    text(Some(option.name()), value.ok_or_else(missing)?)
}

/// Converts an argument to text; `option` is the option whose value it is.
fn text(option: Option<&'static str>, argument: OsString) -> Result<String> {
    argument.into_string().map_err(|raw| Error::NotUtf8 { argument: quoted(option, &raw) })
}

/// Escapes bytes that cannot be printed, in the form of a shell's `$'…'`.
fn quoted(option: Option<&'static str>, raw: &OsStr) -> String {
    let given = raw.as_encoded_bytes().escape_ascii();
    option.map_or_else(|| given.to_string(), |option| format!("{option} {given}"))
}

#[cfg(test)]
mod tests;
