//! What DPDK's own test suite reads of a testpmd's output (DTS of 2026, `framework/remote_session/testpmd_shell.py`), read from
//! ours and from DPDK's on the same devices: every field is there, is of its kind, and says the same where the device is the same.
//!
//! The tables are ours: a field, the words before its value, and what the value is.

mod support;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use linecard::capture::pcap::encode::{Format, Record};
use support::Scratch;
use support::console::{Kind, Testpmd, present};

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    /// Decimal digits.
    Number,
    /// `0x` and hexadecimal digits.
    Hex,
    /// The rest of the line, not empty.
    Line,
    /// Yes where the words are there, else no.
    Flag,
    /// The words that follow, until a dash, a comma or the end of the line.
    Words,
}

use Value::{Flag, Hex, Line, Number, Words};

type Field = (&'static str, &'static str, Value);

/// Of `show port info`; DTS refuses a port that lacks one of these.
const PORT_INFO: &[Field] = &[
    ("id", "Infos for port ", Number),
    ("device_name", "Device name: ", Line),
    ("driver_name", "Driver name: ", Line),
    ("socket_id", "Connect to socket: ", Number),
    ("is_link_up", "Link status: up", Flag),
    ("link_speed", "Link speed: ", Line),
    ("is_link_full_duplex", "Link duplex: full-duplex", Flag),
    ("is_link_autonegotiated", "Autoneg status: On", Flag),
    ("is_promiscuous_mode_enabled", "Promiscuous mode: enabled", Flag),
    ("is_allmulticast_mode_enabled", "Allmulticast mode: enabled", Flag),
    ("max_mac_addresses_num", "Maximum number of MAC addresses: ", Number),
    ("max_hash_mac_addresses_num", "Maximum number of MAC addresses of hash filtering: ", Number),
    ("min_rx_bufsize", "Minimum size of RX buffer: ", Number),
    ("max_rx_packet_length", "Maximum configurable length of RX packet: ", Number),
    ("max_lro_packet_size", "Maximum configurable size of LRO aggregated packet: ", Number),
    ("rx_queues_num", "Current number of RX queues: ", Number),
    ("max_rx_queues_num", "Max possible RX queues: ", Number),
    ("max_queue_rxd_num", "Max possible number of RXDs per queue: ", Number),
    ("min_queue_rxd_num", "Min possible number of RXDs per queue: ", Number),
    ("rxd_alignment_num", "RXDs number alignment: ", Number),
    ("tx_queues_num", "Current number of TX queues: ", Number),
    ("max_tx_queues_num", "Max possible TX queues: ", Number),
    ("max_queue_txd_num", "Max possible number of TXDs per queue: ", Number),
    ("min_queue_txd_num", "Min possible number of TXDs per queue: ", Number),
    ("txd_alignment_num", "TXDs number alignment: ", Number),
    ("max_packet_segment_num", "Max segment number per packet: ", Number),
    ("max_mtu_segment_num", "Max segment number per MTU/TSO: ", Number),
    ("device_capabilities", "Device capabilities: ", Hex),
    ("device_error_handling_mode", "Device error handling mode: ", Line),
    ("mac_address", "MAC address: ", Line),
    ("mem_alloc_socket_id", "memory allocation on the socket: ", Number),
    ("mtu", "MTU: ", Number),
    ("vlan_offload", "strip off, filter off, extend off, qinq strip off", Flag),
];

/// Of `show port stats`.
const PORT_STATS: &[Field] = &[
    ("port_id", "NIC statistics for port ", Number),
    ("rx_packets", "RX-packets: ", Number),
    ("rx_missed", "RX-missed: ", Number),
    ("rx_bytes", "RX-bytes: ", Number),
    ("rx_errors", "RX-errors: ", Number),
    ("rx_nombuf", "RX-nombuf: ", Number),
    ("tx_packets", "TX-packets: ", Number),
    ("tx_errors", "TX-errors: ", Number),
    ("tx_bytes", "TX-bytes: ", Number),
    ("rx_pps", "Rx-pps: ", Number),
    ("rx_bps", "Rx-bps: ", Number),
    ("tx_pps", "Tx-pps: ", Number),
    ("tx_bps", "Tx-bps: ", Number),
];

/// Of `show rxq info`.
const RXQ_INFO: &[Field] = &[
    ("port_id", "Infos for port ", Number),
    ("queue_id", "RX queue ", Number),
    ("mempool", "Mempool: ", Line),
    ("rx_prefetch_threshold", "RX prefetch threshold: ", Number),
    ("rx_host_threshold", "RX host threshold: ", Number),
    ("rx_writeback_threshold", "RX writeback threshold: ", Number),
    ("rx_free_threshold", "RX free threshold: ", Number),
    ("rx_drop_packets", "RX drop packets: on", Flag),
    ("rx_deferred_start", "RX deferred start: on", Flag),
    ("rx_scattered_packets", "RX scattered packets: on", Flag),
    ("rx_queue_state", "Rx queue state: ", Line),
    ("number_of_rxds", "Number of RXDs: ", Number),
];

/// Of `show port 0 rx_offload capabilities`.
const RX_OFFLOADS: &[Field] = &[("port_id", "Rx Offloading Capabilities of port ", Number)];

/// Of a packet that `set verbose 1` shows.
const VERBOSE: &[Field] = &[
    ("port_id", "port ", Number),
    ("queue_id", "/queue ", Number),
    ("was_received", ": received 1 packets", Flag),
    ("src_mac", "src=", Words),
    ("dst_mac", "dst=", Words),
    ("pool", "pool=", Words),
    ("p_type", "type=", Hex),
    ("length", "length=", Number),
    ("nb_segs", "nb_segs=", Number),
    ("sw_ptype", "sw ptype: ", Words),
    ("l2_len", "l2_len=", Number),
    ("l3_len", "l3_len=", Number),
    ("l4_len", "l4_len=", Number),
    ("ol_flags", "ol_flags: ", Line),
];

/// The value of a field, if the text has one of its kind.
fn read(text: &str, (_, mark, value): &Field) -> Option<String> {
    if *value == Flag {
        return Some(text.contains(mark).to_string());
    }
    let rest = text.split_once(mark)?.1.trim_start_matches([' ', '\t']);
    let end = |stop: fn(char) -> bool| rest.split(stop).next().unwrap_or_default().trim().to_owned();
    let found = match value {
        Number => end(|c| !c.is_ascii_digit()),
        Hex => format!("0x{}", rest.strip_prefix("0x")?.split(|c: char| !c.is_ascii_hexdigit()).next()?),
        Words => end(|c| matches!(c, '\r' | '\n' | ',')).split(" - ").next()?.trim().to_owned(),
        _ => end(|c| matches!(c, '\r' | '\n')),
    };
    (!found.is_empty() && found != "0x").then_some(found)
}

/// The fields of a table; a panic names those that are missing.
fn fields(text: &str, table: &[Field], whose: &str) -> BTreeMap<&'static str, String> {
    let missing: Vec<_> = table.iter().filter(|field| read(text, field).is_none()).collect();
    assert!(missing.is_empty(), "{whose} lacks {missing:?} in {text}");
    table.iter().filter_map(|field| Some((field.0, read(text, field)?))).collect()
}

/// A name of its own for each program.
fn next_prefix() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("lcdts{}n{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// What each line is answered by a testpmd whose console is a pipe.
fn answers(kind: Kind, vdevs: &[&str], lines: &[&str]) -> Vec<String> {
    both_streams(kind, vdevs, lines).0
}

/// The same, and all errors.
fn both_streams(kind: Kind, vdevs: &[&str], lines: &[&str]) -> (Vec<String>, String) {
    let words: &[&str] = match kind {
        // By itself it prints into a pipe later than its console does.
        Kind::Dpdk => &["stdbuf", "-o0", "dpdk-testpmd"],
        Kind::Linecard => &[env!("CARGO_BIN_EXE_linecard"), "testpmd"],
    };
    let prefix = next_prefix();
    let mut command = Command::new("timeout");
    command.arg("120").args(words).args([
        "-l",
        "0,1",
        "--no-pci",
        "--no-huge",
        "-m",
        "256",
        "--file-prefix",
        &prefix,
    ]);
    command.args(vdevs.iter().flat_map(|vdev| ["--vdev", vdev])).args(["--", "-i", "--total-num-mbufs=8192"]);
    if std::env::var_os(linecard_testing::IN_USER_NAMESPACE).is_some() {
        command.env("RUNTIME_DIRECTORY", std::env::temp_dir());
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a testpmd starts");
    let input: String = lines.iter().chain(&["quit"]).map(|line| format!("{line}\n")).collect();
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    let said = child.wait_with_output().expect("a child");
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success(), "{kind:?}: {}: {text}", said.status);
    let mut after = text.as_str();
    let mut all = Vec::new();
    for line in lines {
        let (_, rest) = after
            .split_once(&format!("testpmd> {line}"))
            .unwrap_or_else(|| panic!("{kind:?}: no {line}: {text}"));
        all.push(rest.split("testpmd> ").next().unwrap_or_default().to_owned());
        after = rest;
    }
    (all, String::from_utf8_lossy(&said.stderr).into_owned())
}

/// Fields that differ on the same device, and why that is right.
const DIFFERENT: &[(&str, &str, &str)] = &[
    ("", "max_packet_segment_num", "a packet has 255 segments at most here"),
    ("", "max_mtu_segment_num", "the same"),
    (
        "",
        "max_rx_packet_length",
        "the longest frame that is really received; DPDK says that there is no limit",
    ),
    ("", "min_queue_rxd_num", "a ring has a descriptor at least"),
    ("", "min_queue_txd_num", "the same"),
    ("net_null", "max_rx_queues_num", "our own limit"),
    ("net_null", "max_tx_queues_num", "our own limit"),
    ("net_vhost", "max_lro_packet_size", "large packets are taken whole here"),
    ("net_vhost", "max_queue_rxd_num", "the longest virtqueue (virtio 1.3, Virtqueues)"),
    ("net_vhost", "max_queue_txd_num", "the same"),
];

/// Whether a difference on this device is known.
fn explained(device: &str, field: &str) -> bool {
    DIFFERENT.iter().any(|(of, known, _)| device.starts_with(of) && *known == field)
}

#[test]
fn every_field_is_there_and_says_what_dpdks_says() {
    let test = "every_field_is_there_and_says_what_dpdks_says";
    if !present(Kind::Dpdk, test) {
        return;
    }
    let scratch = Scratch::new(test);
    let lines = [
        ("show port info 0", PORT_INFO),
        ("show port stats 0", PORT_STATS),
        ("show rxq info 0 0", RXQ_INFO),
        ("show port 0 rx_offload capabilities", RX_OFFLOADS),
    ];
    let commands: Vec<&str> = lines.iter().map(|(line, _)| *line).collect();
    let (mut differ, mut compared) = (Vec::new(), 0);
    for device in ["net_null0".to_owned(), format!("net_vhost0,iface={}", scratch.join("v.sock").display())] {
        let [theirs, ours] = [Kind::Dpdk, Kind::Linecard].map(|kind| answers(kind, &[&device], &commands));
        for ((line, table), (theirs, ours)) in lines.iter().zip(theirs.iter().zip(&ours)) {
            if !theirs.contains(table[0].1) {
                // DPDK's driver does not tell; DTS reads ours all the same.
                fields(ours, table, &format!("linecard, {device}, {line}"));
                continue;
            }
            let theirs = fields(theirs, table, &format!("DPDK, {device}, {line}"));
            let ours = fields(ours, table, &format!("linecard, {device}, {line}"));
            for (field, value) in &ours {
                compared += 1;
                // Each has addresses of its own.
                if theirs[field] != *value && *field != "mac_address" && !explained(&device, field) {
                    differ.push(format!("{device}: {line}: {field} is {value}, DPDK says {}", theirs[field]));
                }
            }
        }
    }
    assert!(compared > 80, "{compared}");
    assert!(differ.is_empty(), "{differ:#?}");
}

/// A UDP packet with these bytes of payload, for 192.0.2.2.
fn packet() -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, 0, 46, 0, 1, 0, 0, 64, 17, 0xf6, 0xbb, 192, 0, 2, 1, 192, 0, 2, 2]);
    frame.extend([0x12, 0x34, 0, 53, 0, 26, 0, 0]);
    frame.extend([7; 18]);
    frame
}

/// A port that receives one packet from a file.
fn one_packet(scratch: &Scratch) -> String {
    let path = scratch.join("in.pcap");
    let (mut file, frame) = (Vec::new(), packet());
    Format::Pcap.header(&mut file, 65_535);
    Format::Pcap.record(&mut file, &Record { len: frame.len() as u32, ..Record::default() }, &[&frame]);
    std::fs::write(&path, file).expect("a file");
    format!("net_pcap0,rx_pcap={}", path.display())
}

/// A testpmd with that device, after these lines.
fn showing(kind: Kind, device: &str, lines: &[&str]) -> Testpmd {
    let prefix = next_prefix();
    let eal = ["-l", "0,1", "--no-pci", "--no-huge", "-m", "256", "--file-prefix", &prefix, "--vdev", device];
    let mut testpmd = Testpmd::start(kind, &eal, &["-i", "--total-num-mbufs=8192", "--no-flush-rx"]);
    lines.iter().for_each(|line| testpmd.type_line(line));
    testpmd
}

/// A level above 3 shows both directions, and a plain sent packet has a flag, as the parser wants one.
#[test]
fn a_packet_is_shown_when_it_is_sent() {
    let test = "a_packet_is_shown_when_it_is_sent";
    if !present(Kind::Dpdk, test) {
        return;
    }
    let scratch = Scratch::new(test);
    let device = one_packet(&scratch);
    let [theirs, ours] = [Kind::Dpdk, Kind::Linecard].map(|kind| {
        let device = format!("{device},tx_pcap={}", scratch.join(&format!("{kind:?}.pcap")).display());
        let mut testpmd = showing(kind, &device, &["set verbose 4", "start"]);
        testpmd.expect(": sent 1 packets", Duration::from_secs(60));
        testpmd.expect("ol_flags: ", Duration::from_secs(60));
        let text = testpmd.transcript();
        assert!(text.contains("port 0/queue 0: received 1 packets"), "{kind:?}: {text}");
        let at = text.find("port 0/queue 0: sent").unwrap_or_else(|| panic!("{kind:?}: {text}"));
        assert!(testpmd.quit().success());
        fields(&text[at..], VERBOSE, &format!("{kind:?}"))
    });
    assert_eq!(ours, theirs);
    assert_eq!(ours["ol_flags"], "RTE_MBUF_F_TX_L4_NO_CKSUM");
}

#[test]
fn a_packet_is_shown_with_every_field() {
    let test = "a_packet_is_shown_with_every_field";
    if !present(Kind::Dpdk, test) {
        return;
    }
    let scratch = Scratch::new(test);
    let device = one_packet(&scratch);
    let [theirs, ours] = [Kind::Dpdk, Kind::Linecard].map(|kind| {
        let mut testpmd = showing(kind, &device, &["set fwd rxonly", "set verbose 1", "start"]);
        testpmd.expect("ol_flags: ", Duration::from_secs(60));
        let text = testpmd.transcript();
        let at = text.find("port 0/queue 0: received").unwrap_or_else(|| panic!("{kind:?}: {text}"));
        let shown = fields(&text[at..], VERBOSE, &format!("{kind:?}"));
        assert!(testpmd.quit().success());
        (shown, read(&text[at..], &("hw_ptype", "hw ptype: ", Words)))
    });
    // DPDK's files tell no type; where one is told it is under that name.
    assert_eq!(theirs.1, None);
    assert_eq!(ours.0, theirs.0);
    let ours = ours.0;
    assert_eq!((ours["length"].as_str(), ours["l3_len"].as_str()), ("60", "20"));
}

/// Where DTS looks for an answer: on one of the streams, or for the lack of one on either.
#[derive(Clone, Copy, Debug)]
enum Said {
    /// On standard output.
    Out(&'static str),
    /// Among the errors.
    Error(&'static str),
    /// Nothing at all: any word is a failure.
    Nothing,
}

use Said::{Error, Nothing, Out};

/// Answers that DTS looks for to see that a command did what it should.
const VERIFIED: &[(&str, Said)] = &[
    ("start", Out("packet forwarding")),
    ("start", Error("Packet forwarding already started")),
    ("stop", Out("Done.")),
    ("stop", Error("Packet forwarding not started")),
    ("show device info all", Out("evice name: net_null0")),
    ("set fwd mac", Out("Set mac packet forwarding mode")),
    ("set fwd io", Out("Set io packet forwarding mode")),
    ("set verbose 1", Out("Change verbose level")),
    ("port stop all", Out("Done")),
    ("port config all rxq 1", Nothing),
    ("port config all txq 1", Nothing),
    ("port start all", Out("Done")),
    ("set promisc 0 on", Nothing),
    ("show port info 0", Out("Promiscuous mode: enabled")),
    ("show port info 9", Error("Invalid port")),
];

#[test]
fn commands_are_answered_in_the_words_that_are_looked_for() {
    let test = "commands_are_answered_in_the_words_that_are_looked_for";
    let lines: Vec<&str> = VERIFIED.iter().map(|(line, _)| *line).collect();
    let kinds = [Kind::Linecard, Kind::Dpdk].into_iter().filter(|kind| present(*kind, test));
    for kind in kinds {
        let (said, errors) = both_streams(kind, &["net_null0"], &lines);
        // DPDK writes errors without saying to which line, so they are looked for in their order.
        let mut rest = errors.as_str();
        for ((line, wanted), answer) in VERIFIED.iter().zip(said) {
            let seen = match *wanted {
                Out(words) => answer.contains(words),
                // The echo ends the line.
                Nothing => answer.trim().is_empty(),
                Error(words) => match rest.split_once(words) {
                    Some((_, after)) => {
                        rest = after;
                        true
                    }
                    None => false,
                },
            };
            assert!(seen, "{kind:?}: {line}: no {wanted:?} in {answer:?} and {errors:?}");
            if line.starts_with("port st") {
                assert!(answer.trim_end().ends_with("Done"), "{kind:?}: {line}: {answer:?}");
            }
        }
    }
}
