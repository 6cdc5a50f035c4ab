//! The table of options.

use std::cmp::Reverse;

use super::{EalArgs, OptionHelp, apply};
use crate::error::{Error, Result};

/// Whether an option takes a value, and the value's name.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value {
    None,
    Optional,
    Required(&'static str),
}

/// The effect of an option. The function gets the option's name and value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Effect {
    Act(fn(&mut EalArgs, &'static str, &str) -> Result<()>),
    Ignore,
    Refuse(&'static str),
}

#[derive(Debug)]
pub(super) struct Opt {
    pub(super) short: Option<char>,
    long: &'static str,
    pub(super) value: Value,
    pub(super) effect: Effect,
    help: &'static str,
}

use Effect::{Act, Ignore, Refuse};
use Value::{None as Flag, Optional, Required};

const fn opt(
    short: Option<char>,
    long: &'static str,
    value: Value,
    effect: Effect,
    help: &'static str,
) -> Opt {
    Opt { short, long, value, effect, help }
}

/// An option of DPDK without effect here.
const fn same(short: Option<char>, long: &'static str, value: Value) -> Opt {
    opt(short, long, value, Ignore, "")
}

const NO_TOKEN: &str = "virtual functions are opened without a token here, leave it out";

/// Every option of DPDK 22.11, and those of this project; one line each, because it is a table. A short
/// option without a long name has its letter with a dash as name.
#[rustfmt::skip]
pub(super) const OPTIONS: &[Opt] = &[
    opt(Some('l'), "-l", Required("map"), Act(apply::list), "cores to run on, such as 0-3,5; any --lcores map"),
    opt(None, "--lcores", Required("map"), Act(apply::lcores), "lcores and the cores each may use, such as 0@0,(1-2)@3"),
    opt(Some('c'), "-c", Required("mask"), Act(apply::mask), "cores to run on, such as 0xf"),
    opt(None, "--main-lcore", Required("lcore"), Act(apply::main_lcore), "lcore that controls the others"),
    opt(Some('m'), "-m", Required("MiB"), Act(apply::memory), "limit on the memory of packets and rings"),
    opt(None, "--socket-mem", Required("MiB,..."), Act(apply::socket_mem), "the same for each socket; the sum counts"),
    opt(None, "--no-huge", Flag, Act(apply::no_huge), "use 4K pages"),
    opt(None, "--require-hugepages", Flag, Act(apply::require_hugepages), "fail without hugepages (not DPDK's)"),
    opt(None, "--in-memory", Flag, Act(apply::in_memory), "make no files: no control socket, so no capture from outside"),
    opt(None, "--single-file-segments", Flag, Act(apply::single_file), "accepted: memory that is reserved at once is one file"),
    opt(None, "--huge-dir", Required("folder"), Act(apply::huge_dir), "must exist, without effect: hugepages need no mount here"),
    opt(None, "--file-prefix", Required("name"), Act(apply::file_prefix), "name of the memory in /proc/*/maps, and of the folder of control sockets"),
    opt(Some('a'), "--allow", Required("address"), Act(apply::allow), "add the PCI device <address>[,key=value,...]; may be repeated"),
    opt(None, "--vdev", Required("device"), Act(apply::vdev), "add <driver><id>[,key=value,...]; may be repeated"),
    opt(None, "--log-level", Required("level"), Act(apply::log_level), "8, debug, or pattern:level; may be repeated"),
    opt(None, "--telemetry", Flag, Act(apply::telemetry), "answer telemetry clients on a socket (the default, but with --in-memory)"),
    opt(None, "--no-telemetry", Flag, Act(apply::no_telemetry), "make no telemetry socket, even with --telemetry"),
    opt(None, "--proc-type", Required("type"), Act(apply::proc_type), "primary or auto, which are the same here"),
    opt(None, "--iova-mode", Required("mode"), Act(apply::iova_mode), "va, the only one there is"),
    opt(Some('h'), "--help", Flag, Act(apply::help), "this text"),
    opt(Some('v'), "-v", Flag, Act(apply::version), "print the version first"),
    opt(Some('d'), "-d", Required("library"), Refuse("drivers are built in, see --help for --vdev"), ""),
    opt(None, "--vfio-vf-token", Required("uuid"), Refuse(NO_TOKEN), ""),
    same(Some('b'), "--block", Required("address")),
    same(Some('n'), "-n", Required("channels")),
    same(Some('r'), "-r", Required("ranks")),
    same(Some('s'), "-s", Required("mask")),
    same(Some('S'), "-S", Required("list")),
    same(None, "--base-virtaddr", Required("address")),
    same(None, "--create-uio-dev", Flag),
    same(None, "--force-max-simd-bitwidth", Required("bits")),
    same(None, "--huge-unlink", Optional),
    same(None, "--huge-worker-stack", Optional),
    same(None, "--legacy-mem", Flag),
    same(None, "--match-allocations", Flag),
    same(None, "--mbuf-pool-ops-name", Required("name")),
    same(None, "--no-hpet", Flag),
    same(None, "--no-pci", Flag),
    same(None, "--no-shconf", Flag),
    same(None, "--socket-limit", Required("MiB,...")),
    same(None, "--syslog", Required("facility")),
    same(None, "--trace", Required("pattern")),
    same(None, "--trace-bufsz", Required("size")),
    same(None, "--trace-dir", Required("directory")),
    same(None, "--trace-mode", Required("mode")),
    same(None, "--vfio-intr", Required("mode")),
    same(None, "--vmware-tsc-map", Flag),
];

impl Opt {
    /// A description of the expected value.
    pub(super) const fn expected(&self) -> &'static str {
        match self.value {
            Required(name) if self.help.is_empty() => name,
            _ => self.help,
        }
    }

    pub(super) const fn name(&self) -> &'static str {
        self.long
    }

    /// The description for a manual; `None` for options that are refused.
    pub(super) fn described(&self) -> Option<OptionHelp> {
        let (acts, help) = match self.effect {
            Act(_) => (true, self.help),
            Ignore => (false, "accepted because DPDK's command lines have it, without effect"),
            Refuse(_) => return None,
        };
        let value = match self.value {
            Flag => None,
            Optional => Some(("value", false)),
            Required(name) => Some((name, true)),
        };
        let long = self.long.strip_prefix("--");
        let short = self.short.or_else(|| {
            self.long.strip_prefix('-').and_then(|name| name.chars().next()).filter(|_| long.is_none())
        });
        Some(OptionHelp { short, long, value, help, acts })
    }

    /// The option as it was given, for messages.
    pub(super) fn given(&self, value: Option<&str>) -> String {
        match value {
            Some(value) if self.long.starts_with("--") => format!("{}={value}", self.long),
            Some(value) => format!("{} {value}", self.long),
            None => self.long.to_owned(),
        }
    }

    fn usage(&self) -> String {
        let value = match self.value {
            Flag | Optional => String::new(),
            Required(what) => format!(" <{what}>"),
        };
        let short =
            self.short.filter(|_| self.long.starts_with("--")).map(|c| format!("-{c}, ")).unwrap_or_default();
        format!("{short}{}{value}", self.long)
    }
}

/// Finds the option with this long name, or the only one that begins with it.
pub(super) fn find_long(name: &str) -> Result<&'static Opt> {
    let given = format!("--{name}");
    if let Some(exact) = OPTIONS.iter().find(|option| option.long == given) {
        return Ok(exact);
    }
    let fitting: Vec<&Opt> = OPTIONS.iter().filter(|option| option.long.starts_with(&given)).collect();
    match fitting[..] {
        [only] => Ok(only),
        [] => Err(Error::UnknownOption { near: nearest(&given), option: given }),
        _ => {
            let candidates: Vec<_> = fitting.iter().map(|option| option.long).collect();
            Err(Error::AmbiguousOption { option: given, candidates: candidates.join(", ") })
        }
    }
}

/// The long option with the fewest edits, if these are at most a third of its letters; among several, the one
/// with the longest common prefix.
fn nearest(given: &str) -> Option<&'static str> {
    let start = |long: &str| given.chars().zip(long.chars()).take_while(|(a, b)| a == b).count();
    let long = OPTIONS.iter().map(|option| option.long).filter(|long| long.starts_with("--"));
    let (changes, _, long) = long.map(|long| (distance(given, long), Reverse(start(long)), long)).min()?;
    (changes <= long.len() / 3).then_some(long)
}

/// The number of letters to insert, remove or replace to turn one text into the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, b) in to.chars().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

/// The options with an effect, one line each, and the names of those that are only accepted.
pub(super) fn help_text() -> String {
    let mut text = String::from("EAL options:\n");
    for option in OPTIONS.iter().filter(|option| matches!(option.effect, Act(_))) {
        text.push_str(&format!("  {:<24}{}\n", option.usage(), option.help));
    }
    let ignored: Vec<_> = OPTIONS.iter().filter(|o| matches!(o.effect, Ignore)).map(Opt::name).collect();
    text.push_str("Accepted for DPDK's sake, without effect:\n");
    for line in ignored.chunks(6) {
        text.push_str(&format!("  {}\n", line.join(" ")));
    }
    text
}
