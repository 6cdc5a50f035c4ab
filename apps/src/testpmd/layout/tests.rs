use super::*;

/// The texts below were printed by dpdk-testpmd 22.11.
#[test]
fn port_statistics_have_dpdks_layout() {
    let before = PortStats { ipackets: 0, ..PortStats::default() };
    let now = PortStats { ipackets: 435_836, opackets: 8_316, ..PortStats::default() };
    let mut rates = Rates::between(&before, &now, Duration::from_millis(1));
    (rates.rx_pps, rates.tx_pps) = (14_120_786, 269_432);
    let want = "
  ######################## NIC statistics for port 0  ########################
  RX-packets: 435836     RX-missed: 0          RX-bytes:  0
  RX-errors: 0
  RX-nombuf:  0         
  TX-packets: 8316       TX-errors: 0          TX-bytes:  0

  Throughput (since last show)
  Rx-pps:     14120786          Rx-bps:            0
  Tx-pps:       269432          Tx-bps:            0
  ############################################################################
";
    assert_eq!(port_stats(0, &now, &rates), want);
}

#[test]
fn forward_statistics_have_dpdks_layout() {
    let totals = |n| ForwardTotals {
        stats: PortStats { ipackets: n, opackets: n + 32, ..PortStats::default() },
        ..ForwardTotals::default()
    };
    let want = "
  ---------------------- Forward statistics for port 0  ----------------------
  RX-packets: 2880           RX-dropped: 0             RX-total: 2880
  TX-packets: 2912           TX-dropped: 0             TX-total: 2912
  ----------------------------------------------------------------------------

  ---------------------- Forward statistics for port 1  ----------------------
  RX-packets: 2880           RX-dropped: 0             RX-total: 2880
  TX-packets: 2912           TX-dropped: 0             TX-total: 2912
  ----------------------------------------------------------------------------

  +++++++++++++++ Accumulated forward statistics for all ports+++++++++++++++
  RX-packets: 5760           RX-dropped: 0             RX-total: 5760
  TX-packets: 5824           TX-dropped: 0             TX-total: 5824
  ++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++
";
    assert_eq!(forward_stats(&[(0, totals(2880)), (1, totals(2880))], |_| String::new()), want);
}

#[test]
fn lines_about_bursts_stand_with_their_port() {
    let ports = [(0, ForwardTotals::default()), (1, ForwardTotals::default())];
    let text = forward_stats(&ports, |port| format!("  RX-bursts of {port}\n"));
    let line = "----------------------------------------------------------------------------";
    assert!(text.contains(&format!("TX-total: 0\n  RX-bursts of 1\n  {line}\n")), "{text}");
    assert_eq!(text.matches("RX-bursts").count(), 2, "the sum has none");
}

#[test]
fn receive_errors_are_shown_when_there_are_any() {
    let stats = PortStats { ierrors: 1, rx_nombuf: 2, ..PortStats::default() };
    let text =
        forward_stats(&[(0, ForwardTotals { stats, tx_dropped: 3, bad_checksums: None })], |_| String::new());
    assert!(text.contains("  RX-error: 1\n  RX-nombufs: 2             \n"), "{text}");
    assert!(text.contains("TX-dropped: 3             TX-total: 3"), "{text}");
}

#[test]
fn csum_counts_wrong_checksums_like_dpdk() {
    let totals = ForwardTotals { bad_checksums: Some((7, 12)), ..ForwardTotals::default() };
    let text = forward_stats(&[(0, totals)], |_| String::new());
    let want = "
  RX-packets: 0              RX-dropped: 0             RX-total: 0
  Bad-ipcsum: 7              Bad-l4csum: 12            Bad-outer-l4csum: 0             
  Bad-outer-ipcsum: 0             
  TX-packets: 0              TX-dropped: 0             TX-total: 0
";
    assert!(text.contains(want), "{text}");
    assert_eq!(text.matches("Bad-").count(), 4, "not in the sum of all ports");
}

#[test]
fn cycles_of_a_packet_have_dpdks_line() {
    let want = "\n  CPU cycles/packet=12.50 (total cycles=25 / total mac packets=2) at 2600 MHz Clock\n";
    assert_eq!(cycles_per_packet(25, 2, "mac", 2600), want);
    assert_eq!(cycles_per_packet(25, 0, "mac", 2600), "");
}

#[test]
fn stream_statistics_have_dpdks_layout() {
    let stream = Stream { rx_port: 0, rx_queue: 1, tx_port: 1, tx_queue: 1 };
    let totals = StreamTotals { rx_packets: 1440, tx_packets: 1504, ..StreamTotals::default() };
    let want = "
  ------- Forward Stats for RX Port= 0/Queue= 1 -> TX Port= 1/Queue= 1 -------
  RX-packets: 1440           TX-packets: 1504           TX-dropped: 0             
";
    assert_eq!(stream_stats(&stream, &totals), want);
}

fn facts() -> PortFacts {
    PortFacts {
        id: 0,
        mac: Mac([0x76, 0xeb, 0x19, 0x4a, 0x4b, 0x32]),
        name: "net_null0".into(),
        driver: "net_null",
        devargs: String::new(),
        link: Link { up: true, speed_mbps: Some(10_000), full_duplex: true },
        mtu: 1500,
        promiscuous: true,
        allmulticast: true,
        max_macs: 1,
        queues: (1, 1),
        max_queues: (8, 8),
        depth: (1, 4096),
        depth_power_of_two: false,
        max_frame: 65_549,
        max_lro: 0,
        vlan: RxVlan::default(),
        rss: Vec::new(),
        features: String::new(),
        paths: String::new(),
    }
}

#[test]
fn summaries_have_dpdks_layout() {
    let want = "Number of available ports: 1
Port MAC Address       Name         Driver         Status   Link
0    76:EB:19:4A:4B:32 net_null0    net_null       up       10 Gbps
";
    assert_eq!(summary_heading(1) + &summary_line(&facts()), want);
}

#[test]
fn port_info_starts_like_dpdks() {
    let want = "
********************* Infos for port 0  *********************
MAC address: 76:EB:19:4A:4B:32
Device name: net_null0
Driver name: net_null
Firmware-version: not available
Devargs: 
Connect to socket: 0
memory allocation on the socket: 0
Link status: up
Link speed: 10 Gbps
Link duplex: full-duplex
Autoneg status: Off
MTU: 1500
Promiscuous mode: enabled
Allmulticast mode: enabled
Maximum number of MAC addresses: 1
Maximum number of MAC addresses of hash filtering: 0
VLAN offload: 
  strip off, filter off, extend off, qinq strip off
";
    assert!(port_info(&facts()).starts_with(want), "{}", port_info(&facts()));
    let negotiated = PortFacts { features: "VERSION_1".into(), paths: "rx split".into(), ..facts() };
    assert!(port_info(&negotiated).ends_with("Negotiated features: VERSION_1\nData path: rx split\n"));
}

/// A virtio device has this driver on either bus, and reports its bus.
#[test]
fn virtio_ports_say_what_dpdks_say() {
    for (driver, virtio, bus) in
        [("net_virtio_user", true, "vdev"), ("net_virtio_pci", true, "pci"), ("net_null", false, "vdev")]
    {
        let facts = PortFacts { driver, ..facts() };
        let info = port_info(&facts);
        assert_eq!(info.contains("\nAutoneg status: On\n"), virtio, "{info}");
        assert_eq!(info.contains("\nMinimum size of RX buffer: 64\n"), virtio, "{info}");
        assert!(device_info(&facts).contains(&format!("\nBus name: {bus}\n")), "{driver}");
    }
}

#[test]
fn extended_statistics_have_dpdks_layout() {
    let list = [("rx_good_packets".to_owned(), 3), ("tx_errors".to_owned(), 0)];
    let heading = "###### NIC extended statistics for port 0 \n";
    assert_eq!(port_xstats(0, &list, false), format!("{heading}rx_good_packets: 3\ntx_errors: 0\n"));
    assert_eq!(port_xstats(0, &list, true), format!("{heading}rx_good_packets: 3\n"));
}

#[test]
fn rates_survive_a_clear_and_no_time() {
    let big = PortStats { ipackets: u64::MAX, ibytes: u64::MAX, ..PortStats::default() };
    assert_eq!(Rates::between(&big, &PortStats::default(), Duration::from_secs(1)), Rates::default());
    assert_eq!(Rates::between(&PortStats::default(), &big, Duration::ZERO), Rates::default());
    let rates = Rates::between(&PortStats::default(), &big, Duration::from_nanos(1));
    assert_eq!(rates.rx_pps, u64::MAX);
}

#[test]
fn streams_of_an_lcore_have_dpdks_layout() {
    let stream = Stream { rx_port: 0, rx_queue: 0, tx_port: 1, tx_queue: 0 };
    let text = shares(&[Share { lcore: 1, streams: vec![stream] }], Mac::default_peer);
    let want = "Logical Core 1 (socket 0) forwards packets on 1 streams:
  RX P=0/Q=0 (socket 0) -> TX P=1/Q=0 (socket 0) peer=02:00:00:00:00:01

";
    assert_eq!(text, want);
}

#[test]
fn link_speeds_read_like_dpdks() {
    let at = |mbps| link_speed(&Link { up: true, speed_mbps: mbps, full_duplex: true });
    assert_eq!(at(None), "Unknown");
    assert_eq!(at(Some(100)), "100 Mbps");
    assert_eq!(at(Some(2500)), "2.5 Gbps");
    assert_eq!(at(Some(40_000)), "40 Gbps");
}
