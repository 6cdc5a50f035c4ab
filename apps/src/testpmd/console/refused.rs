//! Commands of DPDK's testpmd that are not supported here. Each is answered in one sentence; if dpdk-testpmd
//! 22.11 has a message of its own for a software port without the feature, that comes first.

use super::display::invalid_port;
use super::grammar::{Match, Values, find};
use crate::output::err;
use crate::testpmd::session::Session;

/// Commands that need the same missing feature.
struct Family {
    /// The missing feature.
    what: &'static str,
    instead: &'static str,
    /// Patterns (see [`super::grammar`]), each with DPDK's message or an empty string: `{port}` is the first
    /// port in the line, `{0}` to `{3}` are its values.
    commands: &'static [(&'static str, &'static str)],
}

/// Every family; the first pattern that matches determines the answer.
const FAMILIES: &[Family] = &[
    Family {
        what: "bonding ports",
        instead: "bond the interfaces in the kernel, and attach that with net_af_packet",
        commands: &[
            ("set bonding mode <n> <port> <rest>", "\t Failed to set bonding mode for port = {port}."),
            ("set bonding primary <port> <port>", "\t Failed to set primary slave for port = {1}."),
            ("set bonding mac_addr <port> <text>", "set_bond_mac_addr error: (Operation not permitted)"),
            // DPDK prints this for both commands.
            ("set bonding mon_period <port> <n>", "set_bond_mac_addr error: (Operation not permitted)"),
            (
                "set bonding lacp dedicated_queues <port> enable",
                "Enabling dedicate queues for LACP control packets on port {port} failed",
            ),
            (
                "set bonding lacp dedicated_queues <port> disable",
                "Disabling dedicated queues for LACP control traffic on port {port} failed",
            ),
            (
                "set bonding balance_xmit_policy <port> <text>",
                "\t Failed to set bonding balance xmit policy for port = {port}.",
            ),
            ("set bonding <rest>", ""),
            ("show bonding config <port>", "\tFailed to get bonding mode for port = {port}"),
            ("show bonding lacp info <port>", "\tBonding mode is not mode 4"),
            ("show bonding <rest>", ""),
            ("add bonding slave <port> <port>", "\t Failed to add slave {0} to master port = {1}."),
            ("remove bonding slave <port> <port>", "\t Failed to remove slave {0} from master port = {1}."),
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
            ("rx_vlan (add|rm) <n> port <rest>", "function not implemented or supported"),
            (
                "set port <port> queue <n> rate <rest>",
                "rte_eth_set_queue_rate_limit for port_id={port} failed diag=-95\nqueue_rate_limit_cmd error: (Operation not supported)",
            ),
            (
                "set port <port> vf <n> rate <rest>",
                "set_vf_rate_limit for port_id={port} failed diag=-95\nvf_rate_limit_cmd error: (Operation not supported)",
            ),
            ("(show|clear) vf stats <rest>", "function not implemented"),
            ("set tx loopback <port> <rest>", "function not implemented"),
            ("set port <port> (uta|mirror-rule|vf|rate) <rest>", ""),
            ("(rx_vlan|mac_addr) rm port <rest>", ""),
            ("rx_vlan add port <rest>", ""),
            ("mac_addr add port <rest>", "vf_mac_addr_cmd error: (Operation not supported)"),
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
        commands: &[("set txsplit (on|rand|off)", ""), ("set txsplit <text>", "unknown value: \"{0}\"")],
    },
    Family {
        what: "times between bursts",
        instead: "set burst and set work-cycles",
        commands: &[("set txtimes <rest>", "")],
    },
    Family {
        what: "TSO of tunnelled packets",
        instead: "tso set N P, for those without a tunnel",
        commands: &[
            ("tunnel_tso set <n> <port>", "Error: port={port} don't support tunnel TSO offloads."),
            ("tunnel_tso show <port>", "Error: port={port} don't support tunnel TSO offloads."),
            ("tunnel_tso <rest>", ""),
        ],
    },
    Family {
        what: "packet classifier types",
        instead: "flow create …",
        commands: &[
            (
                "port config <port> pctype <n> (hash_inset|fdir_inset|fdir_flx_inset) (get|set|clear) field <n>",
                "Failed to get input set.",
            ),
            (
                "port config <port> pctype <n> (hash_inset|fdir_inset|fdir_flx_inset) clear all",
                "Failed to clear input set.",
            ),
            ("port config <port> pctype <rest>", ""),
            ("show port <port> pctype mapping", "function not implemented"),
        ],
    },
    Family {
        what: "packet type tables",
        instead: "attach the device with DPDK's testpmd, ports here are software",
        commands: &[("ptype mapping <rest>", "function not implemented")],
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
            ("show (raw_encap|raw_decap) <rest>", ""),
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
            ("show port meter <rest>", "cause unspecified: Function not implemented (error 1)"),
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
            ("port config <port> dcb <rest>", "rte_eth_dev_get_dcb_info not supported."),
            ("show port dcb_tc <port|all>", "\n Failed to get dcb infos on port {port}"),
        ],
    },
    Family {
        what: "flow director",
        instead: "flow list P",
        commands: &[("show port fdir <port|all>", "\n FDIR is not supported on port {port}")],
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
            ("set pfc_queue_ctrl <rest>", "bad queue priority flow control parameter, rc = -95"),
            ("set pfc_ctrl <rest>", "bad priority flow control parameter, return code = -95"),
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
        what: "BPF programs on queues",
        instead: "flow create …",
        commands: &[("(bpf-load|bpf-unload) <rest>", "")],
    },
    Family {
        what: "the length of GRE keys that a device looks for",
        instead: "leave it out, no port looks into GRE",
        commands: &[("global_config <rest>", "")],
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
        commands: &[("set (rxoffs|rxhdrs) <rest>", "")],
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
        commands: &[("port cleanup <port> txq <n> <n>", "Failed to get port {port} Tx queue {1} info")],
    },
    Family {
        what: "queues that are set up alone",
        instead: "port stop P, port config all rxq N, port start P",
        commands: &[
            ("port <port> rxq <n> setup", "Failed to setup RX queue"),
            ("port <port> txq <n> setup", "Failed to setup TX queue"),
        ],
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

/// An unsupported command, and its family.
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

/// Finds the unsupported command that matches a line.
pub(super) fn look_up(line: &str) -> Match<Refused> {
    find(all(), line)
}

/// Answers a line that matches an unsupported command.
pub(super) fn answer(session: &mut Session, refused: Refused, values: &Values) {
    if let Some(id) = values.first_port()
        && session.ports.get(id).is_none()
    {
        return invalid_port(session, id);
    }
    if !refused.words.is_empty() && !there(session, refused, values) {
        let mut words = refused.words.to_owned();
        for index in 0..4 {
            words = words.replace(&format!("{{{index}}}"), &values.shown(index));
        }
        // One message per port if the line names all ports.
        let ports = values.first_port().map_or_else(|| session.ports.ids(), |id| vec![id]);
        let mut each: Vec<String> = ports.iter().map(|id| words.replace("{port}", &id.to_string())).collect();
        if !words.contains("{port}") {
            each = vec![words];
        }
        err!(session.out, "{}\n", each.join("\n"));
    }
    err!(session.out, "not supported here: {}; instead: {}\n", refused.family.what, refused.family.instead);
}

/// Returns whether the queue in the line exists although DPDK's message says that it does not.
fn there(session: &Session, refused: Refused, values: &Values) -> bool {
    let slot = values
        .first_port()
        .and_then(|id| session.ports.get(id))
        .filter(|_| refused.words.starts_with("Invalid "));
    let queues = slot.map(|slot| match values.word(1) {
        "rxq" => slot.config().rx_queues,
        _ => slot.config().tx_queues,
    });
    queues.is_some_and(|queues| values.number(2) < queues.into())
}

#[cfg(test)]
mod tests {
    use super::super::commands;
    use super::*;

    /// Every listed command is found, and no refusal is listed twice.
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
