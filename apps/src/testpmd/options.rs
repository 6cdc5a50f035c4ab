//! testpmd's own options, the part of the command line after `--`.

mod foreign;
mod table;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use linecard::mempool::HEADROOM;
use linecard::pmd::offload::{Offloads, RxOffloads, TxOffloads};

use self::foreign::{IGNORED, REFUSED};
use self::table::OPTIONS;
pub(crate) use self::table::Spec;
use super::settings::{self, Settings};
use super::soft::vlan::RxVlan;
use crate::error::Error;

/// Default buffer size: 128 bytes of headroom before 2048 of data.
pub(crate) const DEFAULT_MBUF_SIZE: u16 = 2176;

/// The values of the options after `--`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) help: bool,
    pub(crate) interactive: bool,
    pub(crate) auto_start: bool,
    pub(crate) tx_first: bool,
    /// Seconds between statistics; 0 is never.
    pub(crate) stats_period: u32,
    /// Commands to run first, and whether to echo them.
    pub(crate) command_file: Option<(PathBuf, bool)>,
    pub(crate) rx_queues: Option<u16>,
    pub(crate) tx_queues: Option<u16>,
    pub(crate) rx_depth: u16,
    pub(crate) tx_depth: u16,
    pub(crate) mbuf_size: Option<u16>,
    pub(crate) total_mbufs: Option<u32>,
    pub(crate) mbuf_cache: Option<u16>,
    pub(crate) max_packet_len: Option<u32>,
    pub(crate) offloads: Offloads,
    /// Ports for which `--eth-peer` sets a peer.
    pub(crate) peer_ports: Vec<u16>,
    /// Leaves ports stopped until `port start`.
    pub(crate) ports_stopped: bool,
    /// Extended statistics to display with the basic ones of a port.
    pub(crate) shown_xstats: Vec<String>,
    /// The handling of VLAN tags on every port.
    pub(crate) vlan: RxVlan,
    /// The lcore of `--latencystats`; latencies are measured on all lcores.
    pub(crate) latency_lcore: Option<u32>,
    /// The address of the Prometheus exporter.
    pub(crate) metrics: Option<String>,
    /// The accepted options without effect, as given.
    pub(crate) ignored: Vec<String>,
    pub(crate) settings: Settings,
}

impl Options {
    /// Bytes of one buffer, headroom included.
    pub(crate) fn mbuf_size(&self) -> u16 {
        self.mbuf_size.unwrap_or(DEFAULT_MBUF_SIZE)
    }

    /// Bytes of packet data in one buffer.
    pub(crate) fn data_room(&self) -> u32 {
        u32::from(self.mbuf_size().saturating_sub(HEADROOM))
    }
}

fn number<T: TryFrom<u64>>(name: &str, text: &str, min: u64, max: u64) -> Result<T, String> {
    parse_number(text)
        .filter(|n| (min..=max).contains(n))
        .and_then(|n| T::try_from(n).ok())
        .ok_or_else(|| format!("{name} {text} invalid - must be a number from {min} to {max}"))
}

/// Reads decimal, `0x` hexadecimal or `0b` binary.
pub(crate) fn parse_number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (text.get(2..)?, 16),
        [b'0', b'b' | b'B', ..] => (text.get(2..)?, 2),
        _ => (text, 10),
    };
    if digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

/// Reads the options after `--`.
///
/// # Errors
/// The first option that is unknown, lacks its value or has one out of range.
pub(crate) fn parse(arguments: &[OsString]) -> Result<Options, Error> {
    let mut options = Options::default();
    let words: Vec<&str> = arguments.iter().map(|argument| utf8(argument)).collect::<Result<_, _>>()?;
    let mut rest = words.into_iter();
    while let Some(word) = rest.next() {
        apply(&mut options, word, &mut || rest.next().map(str::to_owned)).map_err(Error::Usage)?;
    }
    in_software(&mut options);
    consistent(&options).map_err(Error::Usage)?;
    Ok(options)
}

/// Moves the VLAN offloads of `--rx-offloads` and `--tx-offloads` to software: devices are not asked for
/// them.
fn in_software(options: &mut Options) {
    const QINQ_STRIP: RxOffloads = RxOffloads::from_bits_retain(1 << 5);
    const FILTER: RxOffloads = RxOffloads::from_bits_retain(1 << 9);
    const QINQ_INSERT: TxOffloads = TxOffloads::from_bits_retain(1 << 8);
    let (rx, vlan) = (&mut options.offloads.rx, &mut options.vlan);
    for (offload, on) in [
        (RxOffloads::VLAN_STRIP, &mut vlan.strip),
        (QINQ_STRIP, &mut vlan.qinq_strip),
        (FILTER, &mut vlan.filter),
    ] {
        *on |= rx.contains(offload);
        rx.remove(offload);
    }
    // Tags are inserted wherever `tx_vlan set` specifies some.
    options.offloads.tx.remove(TxOffloads::VLAN_INSERT | QINQ_INSERT);
}

fn utf8(argument: &OsStr) -> Result<&str, Error> {
    argument.to_str().ok_or_else(|| {
        let given = argument.as_encoded_bytes().escape_ascii();
        Error::Usage(format!("\"{given}\" is not UTF-8; write it, or rename what it names, in UTF-8"))
    })
}

const REMEDY: &str = "`linecard testpmd --help` lists the options";

/// A long option, by how it is treated.
enum Long {
    Known(&'static Spec),
    /// An option without effect; whether it takes a value.
    Ignored(&'static str, bool),
    Refused(&'static foreign::Refused),
}

impl Long {
    fn all() -> impl Iterator<Item = Self> {
        let known = OPTIONS.iter().map(Self::Known);
        let ignored = IGNORED.iter().map(|(name, valued)| Self::Ignored(name, *valued));
        known.chain(ignored).chain(REFUSED.iter().map(Self::Refused))
    }

    /// Returns the option of that name, or the only one whose name begins with it, as getopt_long does.
    fn find(given: &str) -> Result<Self, String> {
        if let Some(exact) = Self::all().find(|option| option.name() == given) {
            return Ok(exact);
        }
        let mut fitting: Vec<Self> =
            Self::all().filter(|option| !given.is_empty() && option.name().starts_with(given)).collect();
        match (fitting.pop(), fitting.is_empty()) {
            (None, _) => Err(format!("Invalid option: --{given}; {REMEDY}")),
            (Some(only), true) => Ok(only),
            (Some(last), false) => {
                fitting.push(last);
                let names: Vec<_> = fitting.iter().map(|option| format!("--{}", option.name())).collect();
                Err(format!("option --{given} is ambiguous; write one of {}", names.join(", ")))
            }
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Known(spec) => spec.name,
            Self::Ignored(name, _) => name,
            Self::Refused(refused) => refused.name,
        }
    }

    fn valued(&self) -> bool {
        match self {
            Self::Known(spec) => !spec.value.is_empty(),
            Self::Ignored(_, valued) => *valued,
            Self::Refused(_) => false,
        }
    }
}

fn apply(options: &mut Options, text: &str, next: &mut dyn FnMut() -> Option<String>) -> Result<(), String> {
    let Some(long) = text.strip_prefix("--") else {
        let Some(short) = text.strip_prefix('-').filter(|s| !s.is_empty()) else {
            return Err(format!("Invalid parameter: {text}; {REMEDY}"));
        };
        for letter in short.chars() {
            let spec = OPTIONS.iter().find(|s| s.short == Some(letter));
            let spec = spec.ok_or_else(|| format!("Invalid option: -{letter}; {REMEDY}"))?;
            (spec.apply)(options, "")?;
        }
        return Ok(());
    };
    let (given, inline) = match long.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (long, None),
    };
    let option = Long::find(given)?;
    let name = option.name();
    if let Long::Refused(refused) = option {
        return Err(format!("not supported here: --{name}; instead: {}", refused.instead));
    }
    let value = match (option.valued(), inline) {
        (false, Some(_)) => return Err(format!("option --{name} takes no value; write --{name}")),
        (false, None) => String::new(),
        (true, Some(value)) => value,
        (true, None) => next().ok_or_else(|| format!("option --{name} needs a value; write --{name}=…"))?,
    };
    match option {
        Long::Known(spec) => (spec.apply)(options, &value),
        Long::Ignored(..) => {
            options.ignored.push(if value.is_empty() {
                format!("--{name}")
            } else {
                format!("--{name}={value}")
            });
            Ok(())
        }
        Long::Refused(_) => Ok(()),
    }
}

fn consistent(options: &Options) -> Result<(), String> {
    if options.interactive && options.tx_first {
        return Err("--tx-first cannot be used on interactive mode; use `start tx_first` there".into());
    }
    if options.settings.noisy.looks_up() && options.settings.noisy.memory_mib == 0 {
        return Err(
            "--noisy-lkup-memory must be > 0 where packets cost lookups; write --noisy-lkup-memory=MB".into(),
        );
    }
    let room = options.data_room();
    let segments: Vec<_> = options.settings.tx_segments.iter().map(|&len| u32::from(len)).collect();
    settings::check_tx_segments(&segments, room).map(drop)
}

/// The options that have an effect.
pub(crate) fn described() -> impl Iterator<Item = &'static Spec> {
    OPTIONS.iter()
}

/// The options without effect, and whether they take a value.
pub(crate) fn accepted() -> impl Iterator<Item = (&'static str, bool)> {
    IGNORED.iter().copied()
}

/// The help text of the options.
pub(crate) fn help() -> String {
    let mut text = String::from("testpmd options, after `--`:\n");
    for spec in OPTIONS {
        let short = spec.short.map_or(String::new(), |c| format!("-{c}, "));
        let value = if spec.value.is_empty() { String::new() } else { format!("={}", spec.value) };
        text.push_str(&format!("  {:<30} {}\n", format!("{short}--{}{value}", spec.name), spec.help));
    }
    text.push_str("\naccepted without effect, because DPDK command lines carry them:\n");
    let names: Vec<_> = IGNORED.iter().map(|(name, _)| format!("--{name}")).collect();
    for line in names.chunks(5) {
        text.push_str(&format!("  {}\n", line.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests;
