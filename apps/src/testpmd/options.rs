//! testpmd's own options, the part of the command line after `--`.

use std::ffi::{OsStr, OsString};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use linecard::mempool::HEADROOM;
use linecard::pmd::offload::{Offloads, RxOffloads, TxOffloads};

use super::settings::{self, Mac, ModeKind, PortTopology, Settings};
use crate::error::Error;

/// Buffer size when none is asked for: 128 bytes of headroom before 2048 of data.
pub(crate) const DEFAULT_MBUF_SIZE: u16 = 2176;

/// What the options after `--` ask for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) help: bool,
    pub(crate) interactive: bool,
    pub(crate) auto_start: bool,
    pub(crate) tx_first: bool,
    /// Seconds between statistics; 0 is never.
    pub(crate) stats_period: u32,
    /// Commands to run before anything else, and whether to echo them.
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

type Apply = fn(&mut Options, &str) -> Result<(), String>;

/// One option: its names, its value as help shows it (empty: takes none), what it does.
struct Spec {
    name: &'static str,
    short: Option<char>,
    value: &'static str,
    help: &'static str,
    apply: Apply,
}

const fn flag(name: &'static str, help: &'static str, apply: Apply) -> Spec {
    Spec { name, short: None, value: "", help, apply }
}

const fn valued(name: &'static str, value: &'static str, help: &'static str, apply: Apply) -> Spec {
    Spec { name, short: None, value, help, apply }
}

/// Every option that does something, in the order of the help text.
const OPTIONS: &[Spec] = &[
    Spec {
        name: "interactive",
        short: Some('i'),
        value: "",
        help: "run a console",
        apply: |o, _| {
            o.interactive = true;
            Ok(())
        },
    },
    Spec {
        name: "auto-start",
        short: Some('a'),
        value: "",
        help: "start forwarding before the console takes commands",
        apply: |o, _| {
            o.auto_start = true;
            Ok(())
        },
    },
    Spec {
        name: "help",
        short: Some('h'),
        value: "",
        help: "print this text",
        apply: |o, _| {
            o.help = true;
            Ok(())
        },
    },
    flag("tx-first", "send one burst on every port first (not with a console)", |o, _| {
        o.tx_first = true;
        Ok(())
    }),
    valued("stats-period", "SECONDS", "print statistics periodically (not with a console)", |o, v| {
        o.stats_period = number("stats-period", v, 1, 86_400)?;
        Ok(())
    }),
    valued("cmdline-file", "FILE", "run console commands from FILE first", |o, v| {
        o.command_file = Some((v.into(), true));
        Ok(())
    }),
    valued("cmdline-file-noecho", "FILE", "like --cmdline-file, without echo", |o, v| {
        o.command_file = Some((v.into(), false));
        Ok(())
    }),
    valued(
        "forward-mode",
        "MODE",
        "io, mac, macswap, flowgen, rxonly, txonly, icmpecho, 5tswap or csum",
        |o, v| {
            o.settings.mode = ModeKind::named(v).ok_or_else(|| {
                let known: Vec<_> = ModeKind::ALL.iter().map(|m| m.name()).collect();
                format!("forward-mode {v} invalid - must be one of: {}", known.join(", "))
            })?;
            Ok(())
        },
    ),
    valued("port-topology", "TOPOLOGY", "paired (default), chained or loop", |o, v| {
        o.settings.topology = PortTopology::named(v)
            .ok_or_else(|| format!("port-topology {v} invalid - must be: paired, chained or loop"))?;
        Ok(())
    }),
    valued("nb-cores", "N", "forward on N worker lcores (default 1)", |o, v| {
        o.settings.nb_cores = number("nb-cores", v, 1, 1024)?;
        Ok(())
    }),
    valued("coremask", "HEX", "forward on these lcores", |o, v| {
        let lcores = settings::parse_mask(v).ok_or_else(|| format!("coremask {v} is not valid"))?;
        o.settings.nb_cores = u32::try_from(lcores.len()).unwrap_or(u32::MAX);
        o.settings.lcores = Some(lcores);
        Ok(())
    }),
    valued("nb-ports", "N", "forward on the first N ports", |o, v| {
        o.settings.nb_ports = Some(number("nb-ports", v, 1, 1024)?);
        Ok(())
    }),
    valued("portmask", "HEX", "forward on these ports", |o, v| {
        let ports = settings::parse_mask(v).ok_or_else(|| format!("portmask {v} is not valid"))?;
        o.settings.ports = Some(ports.into_iter().filter_map(|p| u16::try_from(p).ok()).collect());
        Ok(())
    }),
    valued("portlist", "LIST", "forward on these ports, in this order", |o, v| {
        let ports = settings::parse_list(v, 1023).ok_or_else(|| format!("portlist {v} is not valid"))?;
        o.settings.ports = Some(ports.into_iter().filter_map(|p| u16::try_from(p).ok()).collect());
        Ok(())
    }),
    valued(
        "eth-peer",
        "PORT,MAC",
        "destination address of packets that leave on PORT (mac, txonly)",
        |o, v| {
            let (port, mac) =
                v.split_once(',').ok_or_else(|| format!("eth-peer {v} invalid - must be PORT,MAC"))?;
            let port = number("eth-peer port", port, 0, 1023)?;
            let mac = Mac::parse(mac).ok_or_else(|| format!("Invalid ethernet address: {mac}"))?;
            o.settings.set_peer(port, mac);
            Ok(())
        },
    ),
    valued("rxq", "N", "receive queues of each port (default 1)", |o, v| {
        o.rx_queues = Some(number("rxq", v, 1, 1024)?);
        Ok(())
    }),
    valued("txq", "N", "transmit queues of each port (default 1)", |o, v| {
        o.tx_queues = Some(number("txq", v, 1, 1024)?);
        Ok(())
    }),
    valued("rxd", "N", "descriptors of each receive ring", |o, v| {
        o.rx_depth = number("rxd", v, 1, 32_768)?;
        Ok(())
    }),
    valued("txd", "N", "descriptors of each transmit ring", |o, v| {
        o.tx_depth = number("txd", v, 1, 32_768)?;
        Ok(())
    }),
    valued("burst", "N", "packets per burst, 1 to 512 (default 32)", |o, v| {
        o.settings.burst = number("burst", v, 1, settings::MAX_BURST.into())?;
        Ok(())
    }),
    valued("mbuf-size", "BYTES", "size of one buffer, headroom included (default 2176)", |o, v| {
        o.mbuf_size = Some(number("mbuf-size", v, 256, u16::MAX.into())?);
        Ok(())
    }),
    valued("total-num-mbufs", "N", "packets of the pool that all ports share, more than 1024", |o, v| {
        o.total_mbufs = Some(number("total-num-mbufs", v, 1025, u32::MAX.into())?);
        Ok(())
    }),
    valued("mbcache", "N", "packets a thread may keep aside, 0 to 512", |o, v| {
        o.mbuf_cache = Some(number("mbcache", v, 0, 512)?);
        Ok(())
    }),
    valued("txpkts", "LIST", "segment lengths of generated packets (default 64)", |o, v| {
        let list = settings::parse_list(v, u32::from(u16::MAX))
            .ok_or_else(|| format!("txpkts {v} invalid - must be segment lengths separated by commas"))?;
        o.settings.tx_segments = settings::check_tx_segments(&list, u32::from(u16::MAX))?;
        Ok(())
    }),
    valued("tx-ip", "SRC,DST", "IPv4 addresses of txonly (default 198.18.0.1,198.18.0.2)", |o, v| {
        let addresses = v.split_once(',').and_then(|(from, to)| {
            Some((from.parse::<Ipv4Addr>().ok()?.octets(), to.parse::<Ipv4Addr>().ok()?.octets()))
        });
        o.settings.tx_addresses.ip =
            addresses.ok_or_else(|| format!("tx-ip {v} invalid - must be two IPv4 addresses, SRC,DST"))?;
        Ok(())
    }),
    valued("tx-udp", "SRC[,DST]", "UDP ports of txonly (default 9,9); DST is SRC if left out", |o, v| {
        let (from, to) = v.split_once(',').unwrap_or((v, v));
        o.settings.tx_addresses.udp = (
            number("tx-udp source port", from, 0, 65_535)?,
            number("tx-udp destination port", to, 0, 65_535)?,
        );
        Ok(())
    }),
    flag("txonly-multi-flow", "txonly sends 256 flows in turn: source addresses that differ", |o, _| {
        o.settings.tx_multi_flow = true;
        Ok(())
    }),
    valued("flowgen-flows", "N", "flows that flowgen makes (default 1024)", |o, v| {
        o.settings.flows = number("flowgen-flows", v, 1, 1 << 24)?;
        Ok(())
    }),
    valued("max-pkt-len", "BYTES", "largest frame, 64 to 65535", |o, v| {
        o.max_packet_len = Some(number("max-pkt-len", v, 64, 65_535)?);
        Ok(())
    }),
    flag("enable-rx-cksum", "receive offload: the state of checksums is told", |o, _| {
        o.offloads.rx = o.offloads.rx.union(RxOffloads::CHECKSUM);
        Ok(())
    }),
    flag("enable-lro", "receive offload: large TCP packets come whole", |o, _| {
        o.offloads.rx = o.offloads.rx.union(RxOffloads::TCP_LRO);
        Ok(())
    }),
    flag("enable-scatter", "receive offload: packets may take several buffers (always so)", |o, _| {
        o.offloads.rx = o.offloads.rx.union(RxOffloads::SCATTER);
        Ok(())
    }),
    valued("rx-offloads", "HEX", "receive offloads of all ports, DPDK's bits", |o, v| {
        o.offloads.rx = RxOffloads::from_bits_retain(number("rx-offloads", v, 0, u64::MAX)?);
        Ok(())
    }),
    valued("tx-offloads", "HEX", "transmit offloads of all ports, DPDK's bits", |o, v| {
        o.offloads.tx = TxOffloads::from_bits_retain(number("tx-offloads", v, 0, u64::MAX)?);
        Ok(())
    }),
    flag(
        "record-core-cycles",
        "count cycles of rounds that move packets; shown when forwarding stops",
        |o, _| {
            o.settings.record_cycles = true;
            Ok(())
        },
    ),
    flag(
        "record-burst-stats",
        "count bursts by how many packets they have; shown with the forward statistics",
        |o, _| {
            o.settings.record_bursts = true;
            Ok(())
        },
    ),
    valued("work-cycles", "N", "time-stamp cycles to spend on each received packet (not in DPDK)", |o, v| {
        o.settings.work_cycles = number("work-cycles", v, 0, settings::MAX_WORK_CYCLES.into())?;
        Ok(())
    }),
    flag("no-flush-rx", "keep what waits in receive queues when forwarding starts", |o, _| {
        o.settings.flush_rx = false;
        Ok(())
    }),
];

/// DPDK's options that change nothing here, without and with a value: they tune hardware, sockets
/// (NUMA) or how DPDK itself works.
const HARMLESS_FLAGS: &[&str] = &[
    "numa",
    "no-numa",
    "mp-anon",
    "no-mlockall",
    "mlockall",
    "disable-hw-vlan",
    "disable-hw-vlan-filter",
    "disable-hw-vlan-strip",
    "disable-hw-vlan-extend",
    "disable-hw-vlan-qinq-strip",
    "disable-rss",
    "disable-link-check",
    "disable-crc-strip",
    "no-lsc-interrupt",
    "no-rmv-interrupt",
    "rss-ip",
    "rss-udp",
    "rss-level-inner",
    "rss-level-outer",
    "disable-drop-en",
    "hot-plug",
    "no-iova-contig",
];
const HARMLESS_VALUED: &[&str] = &[
    "socket-num",
    "port-numa-config",
    "ring-numa-config",
    "mp-alloc",
    "rxpt",
    "rxht",
    "rxwt",
    "txpt",
    "txht",
    "txwt",
    "rxfreet",
    "txfreet",
    "txrst",
    "print-event",
    "mask-event",
    "burst-tx-delay",
    "max-lro-pkt-size",
    "vxlan-gpe-port",
    "geneve-parsed-port",
];

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
    consistent(&options).map_err(Error::Usage)?;
    Ok(options)
}

fn utf8(argument: &OsStr) -> Result<&str, Error> {
    argument.to_str().ok_or_else(|| {
        let given = argument.as_encoded_bytes().escape_ascii();
        Error::Usage(format!("\"{given}\" is not UTF-8; write it, or rename what it names, in UTF-8"))
    })
}

fn apply(options: &mut Options, text: &str, next: &mut dyn FnMut() -> Option<String>) -> Result<(), String> {
    let remedy = "`linecard testpmd --help` lists the options";
    let Some(long) = text.strip_prefix("--") else {
        let Some(short) = text.strip_prefix('-').filter(|s| !s.is_empty()) else {
            return Err(format!("Invalid parameter: {text}; {remedy}"));
        };
        for letter in short.chars() {
            let spec = OPTIONS.iter().find(|s| s.short == Some(letter));
            let spec = spec.ok_or_else(|| format!("Invalid option: -{letter}; {remedy}"))?;
            (spec.apply)(options, "")?;
        }
        return Ok(());
    };
    let (name, inline) = match long.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (long, None),
    };
    let spec = OPTIONS.iter().find(|s| s.name == name);
    let takes_value = match spec {
        Some(spec) => !spec.value.is_empty(),
        None if HARMLESS_FLAGS.contains(&name) => false,
        None if HARMLESS_VALUED.contains(&name) => true,
        None => return Err(format!("Invalid option: --{name}; {remedy}")),
    };
    let value = match (takes_value, inline) {
        (false, Some(_)) => return Err(format!("option --{name} takes no value; write --{name}")),
        (false, None) => String::new(),
        (true, Some(value)) => value,
        (true, None) => next().ok_or_else(|| format!("option --{name} needs a value; write --{name}=…"))?,
    };
    match spec {
        Some(spec) => (spec.apply)(options, &value),
        None => Ok(()),
    }
}

fn consistent(options: &Options) -> Result<(), String> {
    if options.interactive && options.tx_first {
        return Err("--tx-first cannot be used on interactive mode; use `start tx_first` there".into());
    }
    let room = options.data_room();
    let segments: Vec<_> = options.settings.tx_segments.iter().map(|&len| u32::from(len)).collect();
    settings::check_tx_segments(&segments, room).map(drop)
}

/// The options as help shows them.
pub(crate) fn help() -> String {
    let mut text = String::from("testpmd options, after `--`:\n");
    for spec in OPTIONS {
        let short = spec.short.map_or(String::new(), |c| format!("-{c}, "));
        let value = if spec.value.is_empty() { String::new() } else { format!("={}", spec.value) };
        text.push_str(&format!("  {:<30} {}\n", format!("{short}--{}{value}", spec.name), spec.help));
    }
    text.push_str("\naccepted without effect, because DPDK command lines carry them:\n");
    let names: Vec<_> = HARMLESS_FLAGS.iter().chain(HARMLESS_VALUED).map(|n| format!("--{n}")).collect();
    for line in names.chunks(5) {
        text.push_str(&format!("  {}\n", line.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests;
