//! The list of testpmd's options that have an effect.

use std::net::Ipv4Addr;

use linecard::pmd::offload::{RxOffloads, TxOffloads};

use super::{Options, number};
use crate::testpmd::modes::NoisySettings;
use crate::testpmd::settings::{self, Mac, ModeKind, PortTopology};

pub(super) type Apply = fn(&mut Options, &str) -> Result<(), String>;

/// One option: its names, its value in the help text (empty if it takes none), and its effect.
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) value: &'static str,
    pub(crate) help: &'static str,
    pub(super) apply: Apply,
}

const fn flag(name: &'static str, help: &'static str, apply: Apply) -> Spec {
    Spec { name, short: None, value: "", help, apply }
}

const fn valued(name: &'static str, value: &'static str, help: &'static str, apply: Apply) -> Spec {
    Spec { name, short: None, value, help, apply }
}

/// Every option that has an effect, in the order of the help text.
pub(super) const OPTIONS: &[Spec] = &[
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
        "io, mac, macswap, flowgen, rxonly, txonly, icmpecho, 5tswap, noisy or csum",
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
            o.peer_ports.push(port);
            Ok(())
        },
    ),
    valued("eth-peers-configfile", "FILE", "addresses of peers, one a line, for ports 0, 1, …", read_peers),
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
    valued("burst", "N", "packets per burst, 1 to 512 (default 32, as is 0)", |o, v| {
        o.settings.burst = match number("burst", v, 0, settings::MAX_BURST.into())? {
            0 => settings::DEFAULT_BURST,
            burst => burst,
        };
        Ok(())
    }),
    valued("mbuf-size", "BYTES[,…]", "size of one buffer, headroom included (default 2176)", |o, v| {
        let sizes: Result<Vec<_>, _> =
            v.split(',').map(|size| number("mbuf-size", size, 256, u16::MAX.into())).collect();
        let sizes = sizes?;
        o.mbuf_size = sizes.first().copied();
        // Further pools serve devices that split received packets.
        if sizes.len() > 1 {
            o.ignored.push(format!("--mbuf-size={v} (all but the first)"));
        }
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
    valued("flowgen-clones", "N", "packets that flowgen sends after each, like it (default 0)", |o, v| {
        o.settings.flow_clones = number("flowgen-clones", v, 0, u64::from(settings::MAX_BURST) - 1)?;
        Ok(())
    }),
    flag("disable-device-start", "leave ports stopped until `port start`", |o, _| {
        o.ports_stopped = true;
        Ok(())
    }),
    valued("display-xstats", "NAME[,…]", "show these statistics with those of a port", |o, v| {
        o.shown_xstats = v.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        if o.shown_xstats.is_empty() {
            return Err(format!("display-xstats {v} invalid - must be names separated by commas"));
        }
        Ok(())
    }),
    flag("enable-hw-vlan", "filter VLANs and take their tags out, in software, on every port", |o, _| {
        (o.vlan.filter, o.vlan.strip) = (true, true);
        Ok(())
    }),
    flag("enable-hw-vlan-filter", "drop frames of VLANs that `rx_vlan add` did not name", |o, _| {
        o.vlan.filter = true;
        Ok(())
    }),
    flag("enable-hw-vlan-strip", "take the VLAN tag out of received frames", |o, _| {
        o.vlan.strip = true;
        Ok(())
    }),
    flag("enable-hw-qinq-strip", "take both VLAN tags out of received frames", |o, _| {
        o.vlan.qinq_strip = true;
        Ok(())
    }),
    valued("max-pkt-len", "BYTES", "largest frame, 64 to 65535", |o, v| {
        o.max_packet_len = Some(number("max-pkt-len", v, 64, 65_535)?);
        Ok(())
    }),
    flag("enable-rx-cksum", "receive offload: report whether checksums are correct", |o, _| {
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
        "record-packet-classes",
        "count packets by size and kind of address, where ports can; shown by show port xstats (not in DPDK's testpmd)",
        |o, _| {
            o.settings.record_classes = true;
            Ok(())
        },
    ),
    flag(
        "rx-interrupt",
        "sleep while nothing is received, where queues can wake (not in DPDK's testpmd)",
        |o, _| {
            o.settings.rx_interrupt = true;
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
    valued(
        "metrics",
        "ADDRESS",
        "offer counters to Prometheus at HOST:PORT or unix:PATH (not in DPDK)",
        |o, v| {
            o.metrics = Some(v.to_owned());
            Ok(())
        },
    ),
    valued(
        "latencystats",
        "LCORE",
        "measure how long packets stay here; shown with the forward statistics",
        |o, v| {
            o.latency_lcore = Some(number("latencystats", v, 0, 1023)?);
            Ok(())
        },
    ),
    valued(
        "rxpkts",
        "LIST",
        "segment lengths for ports that split what they receive; no port here does",
        |o, v| {
            o.settings.rx_segments = settings::check_rx_segments(v)?;
            o.ignored.push(format!("--rxpkts={v}"));
            Ok(())
        },
    ),
    valued(
        "noisy-tx-sw-buffer-size",
        "N",
        "mode noisy keeps packets of a stream, one less than N, a power of two (default 0)",
        |o, v| {
            o.settings.noisy.buffer = number("noisy-tx-sw-buffer-size", v, 0, 1 << 20)?;
            if o.settings.noisy.buffer > 0 && !o.settings.noisy.buffer.is_power_of_two() {
                return Err(format!("noisy-tx-sw-buffer-size {v} invalid - must be 0 or a power of two"));
            }
            Ok(())
        },
    ),
    valued(
        "noisy-tx-sw-buffer-flushtime",
        "MS",
        "mode noisy sends all it keeps after MS milliseconds (default 0: never)",
        |o, v| {
            o.settings.noisy.flush_ms = number("noisy-tx-sw-buffer-flushtime", v, 0, 3_600_000)?;
            Ok(())
        },
    ),
    valued(
        "noisy-lkup-memory",
        "MB",
        "memory that mode noisy looks up in, for each stream (default 0)",
        |o, v| {
            o.settings.noisy.memory_mib = number("noisy-lkup-memory", v, 0, 65_536)?;
            Ok(())
        },
    ),
    valued("noisy-lkup-num-writes", "N", "writes to that memory for each packet (default 0)", |o, v| {
        o.settings.noisy.writes = number("noisy-lkup-num-writes", v, 0, 65_535)?;
        Ok(())
    }),
    valued("noisy-lkup-num-reads", "N", "reads of that memory for each packet (default 0)", |o, v| {
        o.settings.noisy.reads = number("noisy-lkup-num-reads", v, 0, 65_535)?;
        Ok(())
    }),
    valued(
        "noisy-lkup-num-reads-writes",
        "N",
        "reads with a write elsewhere for each packet (default 0)",
        |o, v| {
            o.settings.noisy.reads_writes = number("noisy-lkup-num-reads-writes", v, 0, 65_535)?;
            Ok(())
        },
    ),
    valued(
        "noisy-forward-mode",
        "MODE",
        "what mode noisy does to addresses: io (default), mac, macswap or 5tswap",
        |o, v| {
            let mode = NoisySettings::FORWARD.into_iter().find(|mode| mode.name() == v);
            o.settings.noisy.forward = mode.ok_or_else(|| {
                format!("noisy-forward-mode {v} invalid - must be io, mac, macswap or 5tswap")
            })?;
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

/// Reads `--eth-peers-configfile`: the non-empty lines are the addresses of the peers of ports 0, 1, …
fn read_peers(options: &mut Options, path: &str) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        format!("eth-peers-configfile {path} cannot be read: {error}; name a readable file")
    })?;
    let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
    for (port, (index, line)) in lines.enumerate() {
        let mac = Mac::parse(line).ok_or_else(|| {
            format!("line {} of {path} is no Ethernet address such as 02:00:00:00:00:01: {line}", index + 1)
        })?;
        let port = u16::try_from(port).ok().filter(|port| *port < 1024);
        options.settings.set_peer(port.ok_or_else(|| format!("{path} has more than 1024 addresses"))?, mac);
    }
    Ok(())
}
