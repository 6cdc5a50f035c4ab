//! The effect of each supported option on [`EalArgs`].

use super::EalArgs;
use crate::cores::{LcoreId, LcoreMap, MAX_CORES};
use crate::error::{Error, Result};
use crate::log;

type Name = &'static str;

pub(super) fn lcores(args: &mut EalArgs, name: Name, value: &str) -> Result<()> {
    set_lcores(args, name, value.parse()?)
}

/// The list of `-l`: unlike in `--lcores`, ranges must begin with the lower number.
pub(super) fn list(args: &mut EalArgs, name: Name, value: &str) -> Result<()> {
    let number = |text: &str| text.trim().parse::<u32>().ok();
    let backwards = |item: &str| {
        item.split_once('-').is_some_and(|(first, last)| {
            number(first).zip(number(last)).is_some_and(|(first, last)| first > last)
        })
    };
    if value.split(',').any(backwards) {
        return Err(wrong(name, value, "ranges that begin with the lower core, such as 0-1"));
    }
    lcores(args, name, value)
}

pub(super) fn mask(args: &mut EalArgs, name: Name, value: &str) -> Result<()> {
    set_lcores(args, name, LcoreMap::from_mask(value)?)
}

fn set_lcores(args: &mut EalArgs, name: Name, map: LcoreMap) -> Result<()> {
    if args.lcores.replace(map).is_some() {
        return Err(Error::Conflict { option: name, with: "another of -l, -c, --lcores" });
    }
    Ok(())
}

pub(super) fn main_lcore(args: &mut EalArgs, option: Name, value: &str) -> Result<()> {
    let number = value.parse().ok().filter(|number| *number < MAX_CORES);
    args.main_lcore = Some(LcoreId(number.ok_or_else(|| wrong(option, value, "an lcore number"))?));
    Ok(())
}

pub(super) fn memory(args: &mut EalArgs, option: Name, value: &str) -> Result<()> {
    let mib = value.parse().ok().filter(|mib| *mib > 0);
    set_memory(args, option, mib.ok_or_else(|| wrong(option, value, "a number of MiB above 0"))?)
}

pub(super) fn socket_mem(args: &mut EalArgs, option: Name, value: &str) -> Result<()> {
    let sum = value
        .split(',')
        .try_fold(0_usize, |sum, mib| sum.checked_add(mib.parse().ok()?))
        .filter(|sum| *sum > 0);
    set_memory(args, option, sum.ok_or_else(|| wrong(option, value, "MiB for each socket, such as 512,0"))?)
}

fn set_memory(args: &mut EalArgs, name: Name, mib: usize) -> Result<()> {
    if args.memory.replace(mib).is_some() {
        return Err(Error::Conflict { option: name, with: "another of -m, --socket-mem" });
    }
    Ok(())
}

pub(super) fn no_huge(args: &mut EalArgs, name: Name, _: &str) -> Result<()> {
    args.no_huge = true;
    if args.require_hugepages {
        Err(Error::Conflict { option: name, with: "--require-hugepages" })
    } else {
        Ok(())
    }
}

pub(super) fn require_hugepages(args: &mut EalArgs, name: Name, _: &str) -> Result<()> {
    args.require_hugepages = true;
    if args.no_huge { Err(Error::Conflict { option: name, with: "--no-huge" }) } else { Ok(()) }
}

pub(super) fn in_memory(args: &mut EalArgs, _: Name, _: &str) -> Result<()> {
    args.in_memory = true;
    Ok(())
}

/// As in DPDK, `--no-telemetry` takes precedence over `--telemetry`.
pub(super) fn telemetry(args: &mut EalArgs, _: Name, _: &str) -> Result<()> {
    args.telemetry.get_or_insert(true);
    Ok(())
}

pub(super) fn no_telemetry(args: &mut EalArgs, _: Name, _: &str) -> Result<()> {
    args.telemetry = Some(false);
    Ok(())
}

pub(super) fn single_file(args: &mut EalArgs, _: Name, _: &str) -> Result<()> {
    args.single_file_segments = true;
    Ok(())
}

pub(super) fn huge_dir(args: &mut EalArgs, option: Name, value: &str) -> Result<()> {
    if !std::path::Path::new(value).is_dir() {
        return Err(wrong(option, value, "a folder that exists; leave it out, hugepages need no mount here"));
    }
    args.ignored.push(format!("{option}={value}"));
    Ok(())
}

pub(super) fn file_prefix(args: &mut EalArgs, option: Name, value: &str) -> Result<()> {
    // It names a directory of sockets, whose paths are limited to 107 bytes.
    if value.is_empty() || value.len() > 64 || value.contains(['/', '%']) || matches!(value, "." | "..") {
        return Err(wrong(option, value, "a name of at most 64 bytes without '/' or '%'"));
    }
    args.file_prefix = Some(value.into());
    Ok(())
}

pub(super) fn allow(args: &mut EalArgs, option: Name, value: &str) -> Result<()> {
    if value.is_empty() {
        return Err(wrong(option, value, "the address of a PCI device such as 0000:00:05.0"));
    }
    args.allowed.push(value.into());
    Ok(())
}

pub(super) fn vdev(args: &mut EalArgs, option: Name, value: &str) -> Result<()> {
    if value.is_empty() {
        return Err(wrong(option, value, "a device such as net_null0"));
    }
    args.vdevs.push(value.into());
    Ok(())
}

pub(super) fn log_level(args: &mut EalArgs, _: Name, value: &str) -> Result<()> {
    log::directives([value])?;
    args.log_level.push(value.into());
    Ok(())
}

pub(super) fn proc_type(args: &mut EalArgs, option: Name, value: &str) -> Result<()> {
    match value {
        "primary" | "auto" => {
            args.ignored.push(format!("{option}={value}"));
            Ok(())
        }
        "secondary" => Err(Error::UnsupportedOption {
            option: format!("{option}={value}"),
            instead: "every process is its own primary, connect them by a vhost-user socket",
        }),
        _ => Err(wrong(option, value, "primary or auto")),
    }
}

pub(super) fn iova_mode(args: &mut EalArgs, option: Name, value: &str) -> Result<()> {
    match value {
        "va" => {
            args.ignored.push(format!("{option}={value}"));
            Ok(())
        }
        "pa" => Err(Error::UnsupportedOption {
            option: format!("{option}={value}"),
            instead: "peers see virtual addresses, use --iova-mode=va or leave it out",
        }),
        _ => Err(wrong(option, value, "va")),
    }
}

pub(super) fn help(args: &mut EalArgs, _: Name, _: &str) -> Result<()> {
    args.help = true;
    Ok(())
}

pub(super) fn version(args: &mut EalArgs, _: Name, _: &str) -> Result<()> {
    args.version = true;
    Ok(())
}

fn wrong(option: Name, value: &str, expected: &'static str) -> Error {
    Error::OptionValue { option, value: value.into(), expected }
}
