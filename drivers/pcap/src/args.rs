//! The arguments of a file port, and the errors about unusable files.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use linecard_capture::pcap::encode::SNAPLEN;
use linecard_capture::pcap::read::{Damage, Reader, Skipped};

use super::rx::{LOOP_BYTES, Timing};
use linecard_pmd::args::DevArgs;
use linecard_pmd::error::Error;

/// The bytes of a file that are checked before a port opens.
const CHECKED: u64 = 64 << 20;
/// The most queues, DPDK's `RTE_PMD_PCAP_MAX_QUEUES`.
const MAX_QUEUES: usize = 16;

/// The requested settings.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) rx: Vec<PathBuf>,
    pub(super) tx: Vec<PathBuf>,
    pub(super) infinite: bool,
    pub(super) timing: Timing,
    pub(super) snaplen: u32,
}

impl Settings {
    pub(super) fn read(args: &DevArgs) -> Result<Self, Error> {
        for key in ["rx_iface", "rx_iface_in", "tx_iface", "iface"] {
            if let Some(interface) = args.value(key) {
                let remedy =
                    format!("use net_af_packet0,iface={interface}, or files with rx_pcap= and tx_pcap=");
                return Err(args.problem(format!("'{key}={interface}' is an interface, not a file"), remedy));
            }
        }
        if args.flag("phy_mac")? == Some(true) {
            let problem = "'phy_mac=1' asks for the address of an interface, and files have none";
            return Err(args.problem(problem, "leave it out"));
        }
        let files = |key| -> Result<Vec<PathBuf>, Error> {
            let all: Vec<PathBuf> = args.values(key).into_iter().map(PathBuf::from).collect();
            if all.iter().any(|path| path.as_os_str().is_empty()) {
                return Err(args.problem(format!("'{key}' has no file"), format!("write {key}=FILE")));
            }
            if all.len() > MAX_QUEUES {
                let problem = format!("{key} is given {} times", all.len());
                return Err(args.problem(problem, format!("give it {MAX_QUEUES} times at most")));
            }
            Ok(all)
        };
        let (rx, tx) = (files("rx_pcap")?, files("tx_pcap")?);
        let infinite = args.flag("infinite_rx")?.unwrap_or(false);
        let rate = args.number("rate", 1..=1_u64 << 40)?;
        let original = args.choice("timing", &["fast", "original"])? == Some("original");
        let snaplen = args.number("snaplen", 1..=SNAPLEN)?.unwrap_or(SNAPLEN);
        args.finish()?;
        if rx.is_empty() && tx.is_empty() {
            return Err(args.problem("there is no file", "name one with rx_pcap=FILE, tx_pcap=FILE or both"));
        }
        let about = [
            ("rate", "rx_pcap", &rx),
            ("timing", "rx_pcap", &rx),
            ("infinite_rx", "rx_pcap", &rx),
            ("snaplen", "tx_pcap", &tx),
        ];
        for (key, file, files) in about {
            if files.is_empty() && args.value(key).is_some() {
                let remedy = format!("name a file with {file}=FILE, or leave '{key}' out");
                return Err(args.problem(format!("'{key}' has no effect without {file}"), remedy));
            }
        }
        let timing = match (rate, original) {
            (Some(_), true) => {
                let problem = "'rate' and 'timing=original' exclude each other";
                return Err(args.problem(problem, "leave one of them out"));
            }
            (Some(rate), false) => Timing::Rate(rate),
            (None, true) => Timing::Original,
            (None, false) => Timing::Fast,
        };
        let settings = Self { rx, tx, infinite, timing, snaplen };
        settings.different(args)?;
        Ok(settings)
    }

    /// Checks that no file is written twice, or read and written.
    fn different(&self, args: &DevArgs) -> Result<(), Error> {
        let real = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
        for (i, path) in self.tx.iter().enumerate() {
            let others = self.rx.iter().chain(&self.tx[..i]);
            // Anything but a regular file (/dev/null) may have several writers.
            if !path.metadata().is_ok_and(|data| !data.is_file())
                && others.into_iter().any(|other| real(other) == real(path))
            {
                let problem = format!("{} is named twice, once to be written", path.display());
                return Err(args.problem(problem, "give each tx_pcap a file of its own"));
            }
        }
        Ok(())
    }
}

/// Warns about interfaces of a file that are not Ethernet, except those that were `told` already.
pub(super) fn tell_skipped(file: &str, skipped: &[Skipped], told: &[Skipped]) {
    for new in skipped.iter().filter(|skipped| !told.contains(skipped)) {
        tracing::warn!("{file}: only Ethernet is read, not its {new}");
    }
}

/// Reads the beginning of `path`, so that most damage is found before the port starts. Returns the interfaces
/// that it warned about, because they are not Ethernet.
pub(super) fn verify(args: &DevArgs, path: &Path, infinite: bool) -> Result<Vec<Skipped>, Error> {
    let refused = |problem: &str| unreadable(args.name(), path, problem);
    let data = path.metadata().map_err(|error| refused(&Damage::Open(error).to_string()))?;
    if !data.is_file() {
        return Err(
            args.problem(format!("{} is no file", path.display()), "name a capture file with rx_pcap=FILE")
        );
    }
    if infinite && data.len() > 2 * LOOP_BYTES as u64 {
        return Err(too_large(args.name(), path));
    }
    let check = || -> Result<(bool, Vec<Skipped>), Damage> {
        let mut reader = Reader::open(path)?;
        let mut any = false;
        while reader.bytes() < CHECKED && reader.ready()? {
            any |= !reader.frame().is_empty();
            reader.advance();
        }
        Ok((any || reader.bytes() >= CHECKED, reader.skipped().to_vec()))
    };
    match check() {
        Ok((false, _)) if infinite => Err(empty(args.name(), path)),
        Ok((_, skipped)) => {
            tell_skipped(&format!("{}: {}", args.name(), path.display()), &skipped, &[]);
            Ok(skipped)
        }
        Err(damage @ (Damage::Truncated(_) | Damage::Damaged(_) | Damage::TooLong(_))) => {
            let problem = format!("{} {damage}", path.display());
            let remedy = "keep the packets before that place with `editcap FILE WHOLE`, and name that file";
            Err(args.problem(problem, remedy))
        }
        Err(damage @ Damage::LinkType(_)) => {
            let problem = format!("{} {damage}", path.display());
            Err(args.problem(problem, "name a capture of an Ethernet interface"))
        }
        Err(damage) => Err(refused(&damage.to_string())),
    }
}

/// Returns an error about a file that cannot be read.
pub(super) fn unreadable(port: &str, path: &Path, problem: &str) -> Error {
    Error::Argument {
        device: port.into(),
        problem: format!("{} {problem}", path.display()),
        remedy: "name a capture file that can be read with rx_pcap=FILE".into(),
    }
}

/// Returns an error about a file without a frame to repeat.
pub(super) fn empty(port: &str, path: &Path) -> Error {
    Error::Argument {
        device: port.into(),
        problem: format!("{} has no packet to repeat", path.display()),
        remedy: "name a capture with packets, or leave infinite_rx out".into(),
    }
}

/// Returns an error about a file that is too large to be kept in memory.
pub(super) fn too_large(port: &str, path: &Path) -> Error {
    Error::Argument {
        device: port.into(),
        problem: format!(
            "{} has more than the {} MiB that infinite_rx keeps in memory",
            path.display(),
            LOOP_BYTES >> 20
        ),
        remedy: "name a shorter file, or leave infinite_rx out".into(),
    }
}

/// Returns an error about a file that a port, of this process or another, already reads or writes.
fn in_use(args: &DevArgs, path: &Path) -> Error {
    let problem = format!("{} is read or written by a port already", path.display());
    args.problem(problem, "give each tx_pcap a file of its own")
}

/// Locks a file that is read against writing ports, under any name, until the result is dropped.
pub(super) fn hold(args: &DevArgs, path: &Path) -> Result<Option<File>, Error> {
    // A file that has been removed is reported when it is read.
    let Ok(file) = File::open(path) else { return Ok(None) };
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => Err(in_use(args, path)),
        // A file system without locks cannot prevent it.
        _ => Ok(Some(file)),
    }
}

/// Returns an error about a file that cannot be written.
pub(super) fn not_writable(args: &DevArgs, path: &Path, error: io::Error) -> Error {
    let shown = path.display();
    match error.kind() {
        ErrorKind::InvalidInput => {
            args.problem(format!("{shown} is no file"), "name a file with tx_pcap=FILE")
        }
        ErrorKind::WouldBlock => in_use(args, path),
        _ => Error::System {
            port: args.name().to_owned(),
            action: format!("{shown} cannot be written"),
            source: error,
            remedy: "name a file in a folder that exists and may be written, with tx_pcap=FILE".into(),
        },
    }
}
