//! DPDK options that have no effect here, and those that are refused.

/// Options without effect, and whether they take a value: they configure hardware, NUMA sockets or DPDK
/// itself. Those in use are reported at start.
pub(super) const IGNORED: &[(&str, bool)] = &[
    ("numa", false),
    ("no-numa", false),
    ("mp-anon", false),
    ("no-mlockall", false),
    ("mlockall", false),
    ("disable-hw-vlan", false),
    ("disable-hw-vlan-filter", false),
    ("disable-hw-vlan-strip", false),
    ("disable-hw-vlan-extend", false),
    ("disable-hw-vlan-qinq-strip", false),
    ("disable-rss", false),
    ("disable-link-check", false),
    ("disable-crc-strip", false),
    ("no-lsc-interrupt", false),
    ("no-rmv-interrupt", false),
    ("rss-ip", false),
    ("rss-udp", false),
    ("rss-level-inner", false),
    ("rss-level-outer", false),
    ("enable-drop-en", false),
    ("disable-drop-en", false),
    ("hot-plug", false),
    ("no-iova-contig", false),
    ("socket-num", true),
    ("port-numa-config", true),
    ("ring-numa-config", true),
    ("mp-alloc", true),
    ("rxpt", true),
    ("rxht", true),
    ("rxwt", true),
    ("txpt", true),
    ("txht", true),
    ("txwt", true),
    ("rxfreet", true),
    ("txfreet", true),
    ("txrst", true),
    ("print-event", true),
    ("mask-event", true),
    ("burst-tx-delay", true),
    ("max-lro-pkt-size", true),
    ("rx-mq-mode", true),
    ("eth-link-speed", true),
    ("vxlan-gpe-port", true),
    ("geneve-parsed-port", true),
];

/// A DPDK option for a feature that no port, or no part of this program, supports.
pub(super) struct Refused {
    pub(super) name: &'static str,
    /// What to do instead.
    pub(super) instead: &'static str,
}

const fn refused(name: &'static str, instead: &'static str) -> Refused {
    Refused { name, instead }
}

const ALONE: &str = "every process is its own primary; connect two of them by a vhost-user socket";
const SPLIT: &str = "no port splits what it receives; choose the size of all buffers with --mbuf-size";
const HAIRPIN: &str = "no port has hairpin queues; send packets back with --port-topology=loop";

pub(super) const REFUSED: &[Refused] = &[
    refused("num-procs", ALONE),
    refused("proc-id", ALONE),
    refused("rxoffs", SPLIT),
    refused("rxhdrs", SPLIT),
    refused("multi-rx-mempool", SPLIT),
    refused("enable-rx-timestamp", "no port stamps what it receives; `linecard capture` writes times"),
    refused("enable-hw-vlan-extend", "two tags are always looked through; leave it out"),
    refused("hairpinq", HAIRPIN),
    refused("hairpin-mode", HAIRPIN),
    refused("rxq-share", "each port has receive queues of its own; leave it out"),
    refused("bitrate-stats", "`show port stats` has rates since it was last asked for; leave it out"),
    refused("flow-isolate-all", "ports always receive what no flow rule names; leave it out"),
];
