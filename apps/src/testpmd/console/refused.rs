//! Commands of DPDK's testpmd that ask for what no port or no part of this command has. Each is answered in one sentence;
//! where dpdk-testpmd 22.11 has words of its own for a software port that cannot, these come first.

use super::display::invalid_port;
use super::grammar::{Match, Values, find};
use crate::output::err;
use crate::testpmd::session::Session;

/// Commands that ask for the same thing.
struct Family {
    /// What cannot be had.
    what: &'static str,
    instead: &'static str,
    /// The pattern of each (see [`super::grammar`]), and DPDK's words, if it has any: `{port}` is the first port that the line
    /// names, `{2}` its third value.
    commands: &'static [(&'static str, &'static str)],
}

/// Every one; the first that fits is the answer.
const FAMILIES: &[Family] = &[
    Family {
        what: "bonding ports",
        instead: "bond the interfaces in the kernel, and attach that with net_af_packet",
        commands: &[
            ("set bonding mode <n> <port> <rest>", "\t Failed to set bonding mode for port = {port}."),
            ("set bonding <rest>", ""),
            ("show bonding config <port>", "\tFailed to get bonding mode for port = {port}"),
            ("show bonding <rest>", ""),
            ("(add|remove|create) bonding <rest>", ""),
            ("create bonded <rest>", ""),
            ("port bonding <rest>", ""),
        ],
    },
    Family {
        what: "virtual functions",
        instead: "a port for each user: --vdev net_vhost0,…",
        commands: &[
            ("set vf <rest>", "function not implemented"),
            ("rx_vlan (add|rm) <n> port <rest>", ""),
            ("set port <port> queue <n> rate <rest>", ""),
            ("(show|clear) vf stats <rest>", "function not implemented"),
            ("set tx loopback <port> <rest>", "function not implemented"),
            ("set port <port> (uta|mirror-rule|vf|rate) <rest>", ""),
            ("(rx_vlan|mac_addr) (add|rm) port <rest>", ""),
            ("mac_addr add port <rest>", ""),
            ("get sriov info <rest>", ""),
        ],
    },
    Family {
        what: "queues that drop when full",
        instead: "leave it out: every queue does",
        commands: &[("set all queues drop <port> <rest>", "function not implemented")],
    },
    Family {
        what: "MACsec",
        instead: "attach the device with DPDK's testpmd, ports here are software",
        commands: &[("set macsec <rest>", "not supported on port")],
    },
    Family {
        what: "GRO by testpmd",
        instead: "--enable-lro, where the peer sends large packets whole",
        commands: &[("set gro <rest>", ""), ("set port <port> gro <rest>", "")],
    },
    Family {
        what: "GRO by testpmd",
        instead: "--enable-lro",
        commands: &[("show port <port> gro", "Port {port} doesn't enable GRO.")],
    },
    Family {
        what: "txsplit",
        instead: "set txpkts, which has the length of each segment",
        commands: &[("set txsplit <rest>", "")],
    },
    Family {
        what: "times between bursts",
        instead: "set burst and set work-cycles",
        commands: &[("set txtimes <rest>", "")],
    },
    Family {
        what: "TSO of tunnelled packets",
        instead: "tso set N P, for those without a tunnel",
        commands: &[("tunnel_tso <rest>", "")],
    },
    Family {
        what: "packet classifier types",
        instead: "flow create …",
        commands: &[
            ("port config <port> pctype <rest>", ""),
            ("show port <port> pctype mapping", "function not implemented"),
        ],
    },
    Family {
        what: "packet type tables",
        instead: "attach the device with DPDK's testpmd, ports here are software",
        commands: &[("ptype mapping <rest>", "")],
    },
    Family {
        what: "personalization profiles",
        instead: "attach the device with DPDK's testpmd, ports here are software",
        commands: &[("ddp <rest>", "Failed to get ddp list")],
    },
    Family {
        what: "queue regions",
        instead: "port config all rss …, or flow create … actions queue index N",
        commands: &[
            ("set port <port> queue-region <rest>", "function not implemented or supported"),
            ("show port <port> queue-region", "function not implemented or supported"),
        ],
    },
    Family {
        what: "tunnels that a port looks into",
        instead: "csum parse-tunnel on P, which knows VXLAN's port 4789",
        commands: &[
            ("(rx_vxlan_port|rx_geneve_port) <rest>", "udp tunneling add error: (Operation not supported)"),
            (
                "port config <port> udp_tunnel_port <rest>",
                "udp tunneling port add error: (Operation not supported)",
            ),
        ],
    },
    Family {
        what: "encapsulation by flow rules",
        instead: "--vdev net_tap, and the kernel's tunnels",
        commands: &[
            ("set (vxlan|vxlan-tos-ttl|vxlan-with-vlan|nvgre|nvgre-with-vlan) <rest>", ""),
            (
                "set (l2_encap|l2_decap|mplsogre_encap|mplsogre_decap|mplsoudp_encap|mplsoudp_decap|raw_encap|raw_decap|sample_actions|conntrack) <rest>",
                "",
            ),
        ],
    },
    Family {
        what: "traffic management",
        instead: "tc on the kernel's side of net_tap or net_af_packet",
        commands: &[
            ("port tm <rest>", "cause unspecified: Function not implemented (error 1)"),
            ("show port meter <rest>", ""),
            ("set (tc|tx) (tx|strict-link-priority) <rest>", ""),
            (
                "(add|del|set|show|suspend|resume) port tm <rest>",
                "cause unspecified: Function not implemented (error 1)",
            ),
            ("(add|del|set|create|enable|disable) port meter <rest>", ""),
        ],
    },
    Family {
        what: "data center bridging",
        instead: "tc on the kernel's side of net_tap or net_af_packet",
        commands: &[
            ("port config <port> dcb <rest>", ""),
            ("show port dcb_tc <port>", "\n Failed to get dcb infos on port {port}"),
        ],
    },
    Family {
        what: "flow director",
        instead: "flow list P",
        commands: &[("show port fdir <port>", "\n FDIR is not supported on port {port}")],
    },
    Family {
        what: "flow director",
        instead: "flow create …",
        commands: &[(
            "(flow_director_mask|flow_director_filter|flow_director_flex_payload|set_hash_input_set|set_fdir_input_set) <rest>",
            "",
        )],
    },
    Family {
        what: "Ethernet flow control",
        instead: "leave it out: a ring that is full keeps its sender waiting",
        commands: &[
            ("set flow_ctrl <rest>", "bad flow control parameter, return code = -95"),
            ("set pfc_queue_ctrl <rest>", ""),
            ("set pfc_ctrl <rest>", ""),
        ],
    },
    Family {
        what: "Ethernet flow control",
        instead: "show port stats P",
        commands: &[("show port <port> flow_ctrl", "Failed to get current flow ctrl information: err = -95")],
    },
    Family {
        what: "statistics of mapped queues",
        instead: "show port xstats P, which has each queue's",
        commands: &[
            ("set stat_qmap rx <port> <n> <n>", "failed to set rx queue stats mapping."),
            ("set stat_qmap tx <port> <n> <n>", "failed to set tx queue stats mapping."),
        ],
    },
    Family {
        what: "descriptors that are counted",
        instead: "show port stats P and show pool",
        commands: &[("show port <port> (rxq|txq) <n> desc used count", "Invalid queueid = {2}")],
    },
    Family {
        what: "the state of a descriptor",
        instead: "show port stats P",
        commands: &[(
            "show port <port> (rxq|txq) <n> desc <n> status",
            "Invalid input: queue id = {2}, desc id = {3}",
        )],
    },
    Family {
        what: "queues that are stopped alone",
        instead: "port stop P, or fewer queues: port config all rxq N",
        commands: &[
            ("port <port> (rxq|txq) <n> (start|stop)", "Function not supported in PMD"),
            ("port <port> (rxq|txq) <n> deferred_start (on|off)", "Function not supported in PMD"),
        ],
    },
    Family {
        what: "vlan extend",
        instead: "leave it out: two tags are always looked through",
        commands: &[(
            "vlan set extend on <port>",
            "Ethdev port_id={port} requested new added VLAN offloads 0x400 must be within Rx offloads capabilities 0x221 in rte_eth_dev_set_vlan_offload()\nrx_vlan_extend_set(port_pi={port}, on=1) failed diag=-22",
        )],
    },
    Family {
        what: "other tag protocols",
        instead: "those of 802.1Q and 802.1ad: 0x8100 inside, 0x88a8 outside",
        commands: &[
            ("vlan set (inner|outer) tpid <n> <port>", "tx_vlan_tpid_set(port_pi={port}) failed diag=-95"),
            ("rx_vlan set tpid <rest>", ""),
        ],
    },
    Family {
        what: "a VLAN for untagged packets alone",
        instead: "tx_vlan set P N, for all packets",
        commands: &[("tx_vlan set pvid <rest>", "")],
    },
    Family {
        what: "groups that are flushed",
        instead: "mcast_addr remove P GROUP",
        commands: &[("mcast_addr flush <port>", "")],
    },
    Family {
        what: "this forwarding mode",
        instead: "io, mac, macswap, flowgen, rxonly, txonly, icmpecho, 5tswap, noisy or csum",
        commands: &[("set fwd (ieee1588|shared_rxq|recycle_mbufs|tm|softnic) <rest>", "")],
    },
    Family {
        what: "buffers that are split when received",
        instead: "--mbuf-size, for all buffers",
        commands: &[("set (rxoffs|rxhdrs) <rest>", ""), ("show config (rxoffs|rxhdrs)", "")],
    },
    Family {
        what: "one key for all ports",
        instead: "port config P rss-hash-key TYPE KEY",
        commands: &[("port config all rss-hash-key <rest>", "")],
    },
    Family {
        what: "this offload for all ports",
        instead: "port config P rx_offload NAME on, or vlan set …",
        commands: &[(
            "port config all (crc-strip|scatter|rx-cksum|rx-timestamp|hw-vlan|hw-vlan-filter|hw-vlan-strip|hw-vlan-extend|hw-qinq-strip) <rest>",
            "",
        )],
    },
    Family {
        what: "thresholds of hardware queues",
        instead: "leave it out",
        commands: &[(
            "port config all (drop-en|rxfreet|txfreet|txrst|rxpt|rxht|rxwt|txpt|txht|txwt|txqflags) <rest>",
            "",
        )],
    },
    Family {
        what: "link speeds that are set",
        instead: "leave it out: links have the speed of their peer",
        commands: &[("port config <port|all> speed <rest>", "")],
    },
    Family {
        what: "loopback inside a device",
        instead: "--port-topology=loop",
        commands: &[("port config <port|all> loopback <n>", "")],
    },
    Family {
        what: "metadata for hardware",
        instead: "attach the device with DPDK's testpmd, ports here are software",
        commands: &[
            ("port config <port> (tx_metadata|dynf|input_set|txpkts) <rest>", ""),
            ("show port <port> tx_metadata", ""),
        ],
    },
    Family {
        what: "an offload written so",
        instead: "port P rxq N rx_offload NAME on",
        commands: &[("port config <port> (rxq|txq) <n> (rx_offload|tx_offload) <rest>", "")],
    },
    Family {
        what: "sent packets that are taken back",
        instead: "port stop P",
        commands: &[("port cleanup <port> txq <rest>", "Failed to get port {port} Tx queue info")],
    },
    Family {
        what: "queues that are set up alone",
        instead: "port stop P, port config all rxq N, port start P",
        commands: &[("port <port> (rxq|txq) <n> setup", "")],
    },
    Family {
        what: "packet types that a device tells",
        instead: "set verbose 1, which looks itself",
        commands: &[
            ("show port <port> ptypes", "Port {port} doesn't support any ptypes."),
            ("set port <port> ptype_mask <rest>", "Port {port} doesn't support any ptypes."),
        ],
    },
    Family {
        what: "capabilities in that form",
        instead: "show port P rx_offload capabilities",
        commands: &[("show port cap <port|all>", "")],
    },
    Family {
        what: "registers of hardware",
        instead: "attach the device with DPDK's testpmd, ports here are software",
        commands: &[("read <rest>", ""), ("write <rest>", "")],
    },
    Family { what: "E-tags", instead: "tx_vlan set P N", commands: &[("E-tag <rest>", "")] },
    Family {
        what: "this table of DPDK's memory",
        instead: "dump_socket_mem, and /proc/PID/maps",
        commands: &[("(dump_physmem|dump_memzone|dump_malloc_stats|dump_malloc_heaps) <rest>", "")],
    },
    Family {
        what: "this table of DPDK's library",
        instead: "show pool, show port xstats all",
        commands: &[("(dump_struct_sizes|dump_ring|dump_log_types|dump_trace) <rest>", "")],
    },
    Family {
        what: "this act on flow rules",
        instead: "flow create, validate, list, query P N count, destroy, flush",
        commands: &[(
            "flow (isolate|aged|dump|tunnel|configure|info|push|pull|queue|template_table|pattern_template|actions_template|indirect_action|shared_action|flex_item|query) <rest>",
            "",
        )],
    },
    Family {
        what: "IPsec offload",
        instead: "attach the device with DPDK's testpmd, ports here are software",
        commands: &[("ipsec <rest>", "")],
    },
    Family {
        what: "forward error correction",
        instead: "attach the device with DPDK's testpmd, ports here are software",
        commands: &[("set port <port> fec_mode <rest>", "")],
    },
    Family {
        what: "this display",
        instead: "attach the device with DPDK's testpmd, ports here are software",
        commands: &[
            ("show port <port> (fec_mode|fec|module_eeprom|eeprom|macsec) <rest>", ""),
            ("show port (module_eeprom|eeprom) <port>", ""),
        ],
    },
    Family {
        what: "thresholds of free descriptors",
        instead: "show pool, and show port stats P",
        commands: &[("set port <port> rxq <n> avail_thresh <rest>", "")],
    },
    Family {
        what: "a size of merged packets",
        instead: "--enable-lro, whose packets have up to 65550 bytes",
        commands: &[("port config all max-lro-pkt-size <n>", "")],
    },
    Family {
        what: "bypass of a card",
        instead: "attach the device with DPDK's testpmd, ports here are software",
        commands: &[("port config bypass <rest>", ""), ("(set|show) bypass <rest>", "")],
    },
    Family {
        what: "devices that are set up by events",
        instead: "port attach, and port start",
        commands: &[("set port setup on <rest>", ""), ("show port <port> flow transfer proxy", "")],
    },
];

/// A command that was found, and what cannot be had.
#[derive(Clone, Copy)]
pub(super) struct Refused {
    words: &'static str,
    family: &'static Family,
}

fn all() -> impl Iterator<Item = (&'static str, Refused)> {
    let of = |family: &'static Family| {
        family.commands.iter().map(move |(pattern, words)| (*pattern, Refused { words, family }))
    };
    FAMILIES.iter().flat_map(of)
}

/// The refusal that fits a line.
pub(super) fn look_up(line: &str) -> Match<Refused> {
    find(all(), line)
}

/// Answers a line that one of them fits.
pub(super) fn answer(session: &mut Session, refused: Refused, values: &Values) {
    if let Some(id) = values.first_port()
        && session.ports.get(id).is_none()
    {
        return invalid_port(session, id);
    }
    if !refused.words.is_empty() {
        let port = values.first_port().unwrap_or(0).to_string();
        let mut words = refused.words.replace("{port}", &port);
        for index in 2..4 {
            words = words.replace(&format!("{{{index}}}"), &values.number(index).to_string());
        }
        err!(session.out, "{words}\n");
    }
    err!(session.out, "not supported here: {}; instead: {}\n", refused.family.what, refused.family.instead);
}

#[cfg(test)]
mod tests {
    use super::super::commands;
    use super::*;

    /// Every command that is listed is found, and no refusal stands there twice.
    #[test]
    fn no_command_is_refused() {
        for command in commands::all() {
            let line = command.pattern.replace("<port|all>", "0").replace("<port>", "0").replace("<n>", "1");
            let line = line.replace("<rest>", "x").replace("<text>", "x").replace("<hex>", "1");
            let words: Vec<_> =
                line.split(' ').map(|word| word.trim_matches(['(', ')']).split('|').next()).collect();
            let line: Vec<_> = words.into_iter().flatten().collect();
            let found = find(commands::all().map(|command| (command.pattern, ())), &line.join(" "));
            assert!(matches!(found, Match::Found(..)), "{}", line.join(" "));
        }
        let patterns: Vec<_> = all().map(|(pattern, _)| pattern).collect();
        for (index, pattern) in patterns.iter().enumerate() {
            assert!(!patterns[..index].contains(pattern), "{pattern} stands there twice");
        }
    }
}
