//! The text of statistics and port descriptions. Layout and field names match DPDK's to the character,
//! because scripts parse them.

use std::fmt::Write as _;
use std::time::Duration;

use linecard::pmd::{Link, PortStats};

use super::counters::Waits;
use super::settings::{MAX_SEGMENTS, Mac};
use super::soft::vlan::RxVlan;
use super::topology::{Share, Stream};

/// Packets and bits per second between two readings of a port's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rates {
    rx_pps: u64,
    tx_pps: u64,
    rx_bps: u64,
    tx_bps: u64,
}

impl Rates {
    /// Returns the rates over `elapsed`; zero for a counter that decreased because it was cleared.
    pub(crate) fn between(before: &PortStats, now: &PortStats, elapsed: Duration) -> Self {
        let nanos = elapsed.as_nanos();
        let rate = |before: u64, now: u64| match nanos {
            0 => 0,
            _ => u64::try_from(u128::from(now.saturating_sub(before)) * 1_000_000_000 / nanos)
                .unwrap_or(u64::MAX),
        };
        Self {
            rx_pps: rate(before.ipackets, now.ipackets),
            tx_pps: rate(before.opackets, now.opackets),
            rx_bps: rate(before.ibytes, now.ibytes).saturating_mul(8),
            tx_bps: rate(before.obytes, now.obytes).saturating_mul(8),
        }
    }
}

const NIC_BORDER: &str = "########################";

/// The text of `show port stats`.
pub(crate) fn port_stats(port: u16, stats: &PortStats, rates: &Rates) -> String {
    let mut text = format!("\n  {NIC_BORDER} NIC statistics for port {port:<2} {NIC_BORDER}\n");
    let _ = writeln!(
        text,
        "  RX-packets: {:<10} RX-missed: {:<10} RX-bytes:  {}",
        stats.ipackets, stats.imissed, stats.ibytes
    );
    let _ = writeln!(text, "  RX-errors: {}", stats.ierrors);
    let _ = writeln!(text, "  RX-nombuf:  {:<10}", stats.rx_nombuf);
    let _ = writeln!(
        text,
        "  TX-packets: {:<10} TX-errors: {:<10} TX-bytes:  {}",
        stats.opackets, stats.oerrors, stats.obytes
    );
    let _ = writeln!(text, "\n  Throughput (since last show)");
    let _ = writeln!(text, "  Rx-pps: {:>12}          Rx-bps: {:>12}", rates.rx_pps, rates.rx_bps);
    let _ = writeln!(text, "  Tx-pps: {:>12}          Tx-bps: {:>12}", rates.tx_pps, rates.tx_bps);
    let _ = writeln!(text, "  {NIC_BORDER}############################{NIC_BORDER}");
    text
}

/// The text of `show port xstats`.
pub(crate) fn port_xstats(port: u16, xstats: &[(String, u64)], hide_zero: bool) -> String {
    let mut text = format!("###### NIC extended statistics for port {port:<2}\n");
    for (name, value) in xstats.iter().filter(|(_, value)| !hide_zero || *value != 0) {
        let _ = writeln!(text, "{name}: {value}");
    }
    text
}

/// The totals of a port since forwarding started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ForwardTotals {
    pub(crate) stats: PortStats,
    /// Packets that forwarding dropped because the transmit ring of this port was full.
    pub(crate) tx_dropped: u64,
    /// Packets received with a wrong IPv4 header checksum, and with a wrong transport checksum; only in mode
    /// csum.
    pub(crate) bad_checksums: Option<(u64, u64)>,
}

/// The totals of one stream since forwarding started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamTotals {
    pub(crate) rx_packets: u64,
    pub(crate) tx_packets: u64,
    pub(crate) tx_dropped: u64,
    pub(crate) bad_ip: u64,
    pub(crate) bad_l4: u64,
    /// Cycles of rounds that moved packets; 0 unless they are recorded.
    pub(crate) busy_cycles: u64,
}

/// One stream of `show fwd stats all`, shown when ports have several queues.
pub(crate) fn stream_stats(stream: &Stream, totals: &StreamTotals) -> String {
    let Stream { rx_port, rx_queue, tx_port, tx_queue } = stream;
    format!(
        "\n  ------- Forward Stats for RX Port={rx_port:2}/Queue={rx_queue:2} -> \
         TX Port={tx_port:2}/Queue={tx_queue:2} -------\n  RX-packets: {:<14} TX-packets: {:<14} \
         TX-dropped: {:<14}\n",
        totals.rx_packets, totals.tx_packets, totals.tx_dropped
    )
}

/// The cycles per packet while cycles were recorded; empty if there was no packet.
pub(crate) fn cycles_per_packet(busy: u64, packets: u64, mode: &str, mhz: u64) -> String {
    if packets == 0 {
        return String::new();
    }
    let each = busy as f64 / packets as f64;
    format!(
        "\n  CPU cycles/packet={each:.2} (total cycles={busy} / total {mode} packets={packets}) at {mhz} MHz Clock\n"
    )
}

/// The statistics at `stop` and of `show fwd stats all`: every port, then the sum. `bursts` returns the lines
/// about a port's bursts.
pub(crate) fn forward_stats(ports: &[(u16, ForwardTotals)], bursts: impl Fn(u16) -> String) -> String {
    let mut text = String::new();
    let mut sum = ForwardTotals::default();
    for (port, totals) in ports {
        let line = "----------------------";
        let _ = writeln!(text, "\n  {line} Forward statistics for port {port:<2} {line}");
        forward_lines(&mut text, totals);
        text += &bursts(*port);
        let _ = writeln!(text, "  {line}--------------------------------{line}");
        sum.stats.ipackets += totals.stats.ipackets;
        sum.stats.imissed += totals.stats.imissed;
        sum.stats.opackets += totals.stats.opackets;
        sum.stats.ierrors += totals.stats.ierrors;
        sum.stats.rx_nombuf += totals.stats.rx_nombuf;
        sum.tx_dropped += totals.tx_dropped;
    }
    let line = "+++++++++++++++";
    let _ = writeln!(text, "\n  {line} Accumulated forward statistics for all ports{line}");
    forward_lines(&mut text, &sum);
    let _ = writeln!(text, "  {line}++++++++++++++++++++++++++++++++++++++++++++++{line}");
    text
}

fn forward_lines(text: &mut String, totals: &ForwardTotals) {
    let ForwardTotals { stats, tx_dropped, bad_checksums } = totals;
    let _ = writeln!(
        text,
        "  RX-packets: {:<14} RX-dropped: {:<14}RX-total: {}",
        stats.ipackets,
        stats.imissed,
        stats.ipackets + stats.imissed
    );
    if let Some((ip, l4)) = bad_checksums {
        let outer = 0;
        let _ = writeln!(text, "  Bad-ipcsum: {ip:<14} Bad-l4csum: {l4:<14}Bad-outer-l4csum: {outer:<14}");
        let _ = writeln!(text, "  Bad-outer-ipcsum: {outer:<14}");
    }
    if stats.ierrors + stats.rx_nombuf > 0 {
        let _ = writeln!(text, "  RX-error: {}", stats.ierrors);
        let _ = writeln!(text, "  RX-nombufs: {:<14}", stats.rx_nombuf);
    }
    let _ = writeln!(
        text,
        "  TX-packets: {:<14} TX-dropped: {tx_dropped:<14}TX-total: {}",
        stats.opackets,
        stats.opackets + tx_dropped
    );
}

/// A link speed in DPDK's format.
pub(crate) fn link_speed(link: &Link) -> String {
    match link.speed_mbps {
        None => "Unknown".into(),
        Some(mbps) if mbps >= 1000 && mbps % 1000 == 0 => format!("{} Gbps", mbps / 1000),
        Some(mbps) if mbps >= 1000 => format!("{:.1} Gbps", f64::from(mbps) / 1000.0),
        Some(mbps) => format!("{mbps} Mbps"),
    }
}

pub(crate) fn up_down(link: &Link) -> &'static str {
    if link.up { "up" } else { "down" }
}

/// The properties of a port for `show port info` and `show port summary`.
#[derive(Clone, Debug)]
pub(crate) struct PortFacts {
    pub(crate) id: u16,
    pub(crate) mac: Mac,
    pub(crate) name: String,
    pub(crate) driver: &'static str,
    pub(crate) devargs: String,
    pub(crate) link: Link,
    pub(crate) mtu: u16,
    pub(crate) promiscuous: bool,
    pub(crate) allmulticast: bool,
    pub(crate) max_macs: usize,
    pub(crate) queues: (u16, u16),
    pub(crate) max_queues: (u16, u16),
    pub(crate) depth: (u16, u16),
    pub(crate) depth_power_of_two: bool,
    pub(crate) max_frame: u32,
    pub(crate) max_lro: u32,
    pub(crate) vlan: RxVlan,
    /// The types of flow that can be hashed; empty unless there are several receive queues.
    pub(crate) rss: Vec<&'static str>,
    pub(crate) features: String,
    pub(crate) paths: String,
}

impl PortFacts {
    fn virtio(&self) -> bool {
        ["net_virtio_user", "net_virtio_pci"].contains(&self.driver)
    }
}

/// The DPDK name of the bus of a driver's devices.
pub(crate) fn bus(driver: &str) -> &'static str {
    if driver == "net_virtio_pci" { "pci" } else { "vdev" }
}

/// The text of `show port info`.
pub(crate) fn port_info(facts: &PortFacts) -> String {
    let mut text = format!("\n********************* Infos for port {:<2} *********************\n", facts.id);
    rows(&mut text, identity(facts));
    if facts.rss.is_empty() {
        text.push_str("No RSS offload flow type is supported.\n");
    } else {
        let lines: String = facts.rss.iter().map(|name| format!("  {name}\n")).collect();
        let _ = write!(
            text,
            "Hash key size in bytes: 40\nRedirection table size: 128\nSupported RSS offload flow types:\n{lines}"
        );
    }
    rows(&mut text, limits(facts));
    let negotiated = [("Negotiated features", &facts.features), ("Data path", &facts.paths)];
    rows(&mut text, negotiated.into_iter().filter(|(_, v)| !v.is_empty()).map(|(n, v)| (n, v.clone())));
    text
}

/// The lines of `show port info` about the wait of a receive queue's thread, while packets are forwarded.
pub(crate) fn waits(queue: u16, waits: &Waits, hz: u64) -> String {
    let seconds = waits.elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    let asleep = 100.0 * waits.asleep.as_secs_f64() / seconds;
    let mode = match waits.sleeps {
        0 => "polling".to_owned(),
        sleeps => format!("interrupt, asleep {asleep:.1} % of {seconds:.1} s in {sleeps} sleeps"),
    };
    let busy = match waits.busy_cycles {
        0 => String::new(),
        cycles => format!(", busy {:.1} % of the cycles", 100.0 * cycles as f64 / (seconds * hz as f64)),
    };
    format!("RX queue {queue} mode: {mode}{busy}\n")
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

fn rows(text: &mut String, rows: impl IntoIterator<Item = (&'static str, String)>) {
    for (name, value) in rows {
        let _ = writeln!(text, "{name}: {value}");
    }
}

/// The identity and the settings of a port.
fn identity(facts: &PortFacts) -> [(&'static str, String); 17] {
    let on = |on| String::from(if on { "enabled" } else { "disabled" });
    let duplex = if facts.link.full_duplex { "full-duplex" } else { "half-duplex" };
    [
        ("MAC address", facts.mac.to_string()),
        ("Device name", facts.name.clone()),
        ("Driver name", facts.driver.into()),
        ("Firmware-version", "not available".into()),
        ("Devargs", facts.devargs.clone()),
        ("Connect to socket", "0".into()),
        ("memory allocation on the socket", "0".into()),
        ("Link status", up_down(&facts.link).into()),
        ("Link speed", link_speed(&facts.link)),
        ("Link duplex", duplex.into()),
        // DPDK's virtio ports report "On", although nothing is negotiated.
        ("Autoneg status", if facts.virtio() { "On" } else { "Off" }.into()),
        ("MTU", facts.mtu.to_string()),
        ("Promiscuous mode", on(facts.promiscuous)),
        ("Allmulticast mode", on(facts.allmulticast)),
        ("Maximum number of MAC addresses", facts.max_macs.to_string()),
        ("Maximum number of MAC addresses of hash filtering", "0".into()),
        (
            "VLAN offload",
            format!(
                "\n  strip {}, filter {}, extend off, qinq strip {}",
                on_off(facts.vlan.strip),
                on_off(facts.vlan.filter),
                on_off(facts.vlan.qinq_strip)
            ),
        ),
    ]
}

/// The limits of a port.
fn limits(facts: &PortFacts) -> [(&'static str, String); 17] {
    let (min, max) = (facts.depth.0.to_string(), facts.depth.1.to_string());
    // The number comes first, because scripts parse it.
    let align = String::from(if facts.depth_power_of_two { "1 (a power of two)" } else { "1" });
    [
        ("Minimum size of RX buffer", if facts.virtio() { "64" } else { "0" }.into()),
        ("Maximum configurable length of RX packet", facts.max_frame.to_string()),
        ("Maximum configurable size of LRO aggregated packet", facts.max_lro.to_string()),
        ("Current number of RX queues", facts.queues.0.to_string()),
        ("Max possible RX queues", facts.max_queues.0.to_string()),
        ("Max possible number of RXDs per queue", max.clone()),
        ("Min possible number of RXDs per queue", min.clone()),
        ("RXDs number alignment", align.clone()),
        ("Current number of TX queues", facts.queues.1.to_string()),
        ("Max possible TX queues", facts.max_queues.1.to_string()),
        ("Max possible number of TXDs per queue", max),
        ("Min possible number of TXDs per queue", min),
        ("TXDs number alignment", align),
        ("Max segment number per packet", MAX_SEGMENTS.to_string()),
        ("Max segment number per MTU/TSO", MAX_SEGMENTS.to_string()),
        ("Device capabilities", "0x0( )".into()),
        ("Device error handling mode", "none".into()),
    ]
}

/// The text of `show device info`.
pub(crate) fn device_info(facts: &PortFacts) -> String {
    format!(
        "\n********************* Infos for device {} *********************\nBus name: {}\nBus information: \n\
         Driver name: {}\nDevargs: {}\nConnect to socket: 0\n\n\tPort id: {} \n\tMAC address: {}\n\
         \tDevice name: {}\n\tDevice speed capability: Autonegotiate (all speeds)\n",
        facts.name,
        bus(facts.driver),
        facts.driver,
        facts.devargs,
        facts.id,
        facts.mac,
        facts.name
    )
}

/// The heading of `show port summary`.
pub(crate) fn summary_heading(ports: usize) -> String {
    format!(
        "Number of available ports: {ports}\nPort MAC Address       Name         Driver         Status   Link\n"
    )
}

/// One line of `show port summary`.
pub(crate) fn summary_line(facts: &PortFacts) -> String {
    let (status, speed) = (up_down(&facts.link), link_speed(&facts.link));
    format!("{:<4} {} {:<12} {:<14} {status:<8} {speed}\n", facts.id, facts.mac, facts.name, facts.driver)
}

/// The streams of each lcore, in the format of `show config fwd` and `start`.
pub(crate) fn shares(shares: &[Share], peer: impl Fn(u16) -> Mac) -> String {
    let mut text = String::new();
    for share in shares {
        let count = share.streams.len();
        let _ =
            writeln!(text, "Logical Core {} (socket 0) forwards packets on {count} streams:", share.lcore);
        for Stream { rx_port, rx_queue, tx_port, tx_queue } in &share.streams {
            let _ = writeln!(
                text,
                "  RX P={rx_port}/Q={rx_queue} (socket 0) -> TX P={tx_port}/Q={tx_queue} (socket 0) peer={}",
                peer(*tx_port)
            );
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests;
