//! VLAN, RSS, flow rules, devices and queues on testpmd's console: what they do to packets, and how bad lines are answered.

mod common;

use std::io::Write as _;
use std::process::Stdio;

use common::{PATIENCE, Running, Scratch, answers, frames, run, testpmd, try_frames};
use linecard::capture::pcap::encode::{Format, Record};
use linecard_lab::wait_until;

const TWO: [&str; 7] = ["-m", "64", "--in-memory", "--vdev", "net_null0", "--vdev", "net_null1"];
const APP: [&str; 2] = ["-i", "--total-num-mbufs=4096"];

/// Lines that are wrong, each with a part of its answer.
const WRONG: &[(&str, &str)] = &[
    ("vlan", "Bad arguments"),
    ("vlan set", "Bad arguments"),
    ("vlan set strip 0", "Bad arguments"),
    ("vlan set strip maybe 0", "Bad arguments"),
    ("vlan set strip on 9", "Invalid port 9"),
    ("vlan set strip on -1", "Bad arguments"),
    ("vlan set strip on 65536", "Bad arguments"),
    ("vlan set filter on all", "Bad arguments"),
    ("vlan set extend on 0", "not supported here: vlan extend; instead: "),
    ("vlan set outer tpid 0x9100 0", "diag=-95"),
    ("vlan set stripq on 0", "stripq 0 is no port and queue"),
    ("vlan set stripq on 0,9", "Invalid RX queue 9 (must be < nb_rxq=2)"),
    ("vlan set stripq on 9,0", "Invalid port 9"),
    ("vlan set stripq on x,y", "write them as 0,1"),
    ("rx_vlan add 5 0", "Port 0: VLAN-filtering disabled"),
    ("rx_vlan add 4096 0", "Invalid vlan_id 4096 (must be < 4096)"),
    ("rx_vlan add x 0", "VLAN x is no number"),
    ("rx_vlan add 5 9", "Invalid port 9"),
    ("rx_vlan set tpid 0x8100 0", "not supported here: other tag protocols"),
    ("tx_vlan set 0 5", "Please stop port 0 first"),
    ("tx_vlan set 9 5", "Invalid port 9"),
    ("tx_vlan reset 9", "Invalid port 9"),
    ("tx_vlan set 0", "Bad arguments"),
    ("tx_vlan set pvid 0 5 on", "not supported here"),
    ("port config all rss", "Bad arguments"),
    ("port config all rss foo", "Unknown parameter foo"),
    ("port config all rss sctp", "not supported here: RSS of sctp; instead: "),
    ("port config all rss 3", "not supported here: RSS of flow type 3; instead: "),
    ("port config all rss 0", "flowtype_id should be greater than 0 and less than 64."),
    ("port config all rss 64", "flowtype_id should be greater than 0 and less than 64."),
    ("port config 0 rss reta 0,0", "is not written as"),
    ("port config 0 rss reta (0,0", "is not written as"),
    ("port config 0 rss reta (128,0)", "hash index=128"),
    ("port config 0 rss reta (0,0),(1,2)", "queue 2 exceeds the maximum rxq index 1"),
    ("port config 9 rss reta (0,0)", "Invalid port 9"),
    ("port config 0 rss-hash-key ipv4 6d", "key length: 2 invalid"),
    (
        "port config 0 rss-hash-key ipv5 6d",
        "rss-hash-key ipv5 invalid - must be a type of flow: ipv4, ipv4-frag,",
    ),
    ("port config 0 rss-hash-key ipv4 \u{e9}\u{e9}", "key length: 4 invalid"),
    (
        "port config 9 rss-hash-key ipv4 6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa",
        "Invalid port 9",
    ),
    ("show port 9 rss-hash", "Invalid port 9"),
    ("show port 0 rss reta 0 (0x1)", "Invalid redirection table size: 0"),
    ("show port 0 rss reta 129 (0x1)", "Invalid redirection table size: 129"),
    ("show port 0 rss reta 128 (0x1)", "2 masks of 64 entries"),
    ("show port 0 rss reta 64 0x1", "1 masks of 64 entries"),
    ("flow", "Bad arguments"),
    ("flow create 0", "flow: the rule ends early"),
    ("flow create 9 ingress pattern eth / end actions drop / end", "Invalid port 9"),
    (
        "flow create 0 ingress pattern eth / end actions queue index 2 / end",
        "flow: queue 2 is not one of the port's 2",
    ),
    ("flow validate 0 ingress pattern eth / end actions fly / end", "flow: action fly is not supported here"),
    ("flow create 0 egress pattern eth / end actions drop / end", "write ingress"),
    ("flow destroy 0 rule x", "x is no number of a rule"),
    ("flow destroy 0 rule", "is no number of a rule"),
    ("flow destroy 9 rule 0", "Invalid port 9"),
    ("flow query 0 7 count", "Flow rule #7 not found"),
    ("flow list 9", "Invalid port 9"),
    ("flow flush 9", "Invalid port 9"),
    ("flow isolate 0 1", "not supported here"),
    ("show rxq info 9 0", "Invalid port 9"),
    ("show rxq info 0 2", "Invalid RX queue 2"),
    ("show txq info 0 70000", "Invalid TX queue"),
    ("port 0 rxq 5 rx_offload vlan_strip on", "Invalid RX queue 5"),
    ("port 0 rxq 0 tx_offload vlan_insert on", "rxq has no tx_offload"),
    ("port 0 rxq 0 rx_offload vlan_strip on", "Error: Can't config offload when Port 0 is not stopped"),
    ("port 0 rxq 0 stop", "Function not supported in PMD"),
    ("port config 0 rxq 0 ring_size 256", "Please stop port 0 first"),
    ("port config 0 rxq 7 ring_size 256", "Invalid RX queue 7"),
    ("port config 0 rxq 99999 ring_size 256", "Invalid RX queue 99999"),
    ("mac_addr add 0 02:00:00", "Invalid ethernet address: 02:00:00"),
    ("mac_addr add 0 02:00:00:00:00:01", "mac_addr_cmd error: (Operation not supported)"),
    ("mac_addr add 9 02:00:00:00:00:01", "Invalid port_id=9"),
    ("mac_addr set 0 zz", "Invalid ethernet address: zz"),
    ("mac_addr set 0 ff:ff:ff:ff:ff:ff", "mac_addr_cmd error: ("),
    ("mcast_addr add 0 02:00:00:00:00:01", "Invalid multicast addr 02:00:00:00:00:01"),
    ("mcast_addr remove 0 01:00:5e:00:00:01", "multicast address not filtered by port 0"),
    ("show port 9 mcast_macs", "Invalid port 9"),
    ("set link-up port 0", "\nSet link up fail."),
    ("set link-down port 9", "Invalid port_id=9\n\nSet link down fail."),
    ("device detach foo", "cannot parse identifier foo"),
    ("device detach net_null0", "Port not stopped"),
    ("show device info foo", "cannot parse identifier foo"),
    ("dump_mempool foo", "Cannot find mempool"),
    ("dump_struct_sizes", "not supported here: this table of DPDK's library"),
    ("set log global x", "Bad arguments"),
    ("set log global 99", "set log global 99"),
    ("set fwd shared_rxq", "not supported here: this forwarding mode; instead: io, mac"),
    ("set rxpkts x", "character x is not a decimal digit"),
    ("set rxpkts 1,2,3,4,5,6,7,8,9", "Number of segment lengths = 9 > 8 (maximum items)"),
    ("set rxpkts 64,70000", "length[1]=70000 > UINT16_MAX - give up"),
    (
        "set bonding mode 1 0",
        "\t Failed to set bonding mode for port = 0.\nnot supported here: bonding ports",
    ),
    ("show bonding config 9", "Invalid port 9"),
    ("set vf promisc 0 0 on", "function not implemented\nnot supported here: virtual functions"),
    ("set macsec offload 0 off", "not supported here: MACsec"),
    ("set stat_qmap rx 0 0 1", "failed to set rx queue stats mapping."),
    ("rx_vxlan_port add 4789 0", "udp tunneling add error: (Operation not supported)"),
    ("port config 0 pctype 1 hash_inset clear all", "not supported here: packet classifier types"),
    ("set port 0 queue-region flush on", "function not implemented or supported"),
    ("show port 0 rxq 2 desc used count", "Invalid queueid = 2"),
    ("show port 0 txq 2 desc 0 status", "Invalid input: queue id = 2, desc id = 0\nnot supported here: "),
    ("set txsplit rand", "not supported here: txsplit; instead: "),
    ("set txsplit foo", "unknown value: \"foo\"\nnot supported here: txsplit"),
    ("set rxoffs 0,64", "not supported here: buffers that are split"),
    ("port config 0 pctype 1 hash_inset set field 1", "Failed to get input set.\nnot supported here: packet"),
    ("port config 0 pctype 1 fdir_inset clear all", "Failed to clear input set.\nnot supported here: packet"),
    (
        "port config 0 dcb vt off 4 pfc off",
        "rte_eth_dev_get_dcb_info not supported.\nnot supported here: data",
    ),
    ("add bonding slave 0 1", "\t Failed to add slave 0 to master port = 1.\nnot supported here: bonding"),
    (
        "remove bonding slave 1 0",
        "\t Failed to remove slave 1 from master port = 0.\nnot supported here: bonding",
    ),
    ("set bonding primary 0 1", "\t Failed to set primary slave for port = 1.\nnot supported here: bonding"),
    ("set bonding mac_addr 0 02:00:00:00:00:01", "set_bond_mac_addr error: (Operation not permitted)\nnot"),
    (
        "set bonding lacp dedicated_queues 1 enable",
        "for LACP control packets on port 1 failed\nnot supported",
    ),
    ("port cleanup 0 txq 1 0", "Failed to get port 0 Tx queue 1 info\nnot supported here"),
    ("tunnel_tso set 800 1", "Error: port=1 don't support tunnel TSO offloads.\nnot supported here"),
    ("rx_vlan add 5 port 0 vf 1", "function not implemented or supported\nnot supported here: virtual"),
    ("clear port fdir 9", "Invalid port 9"),
    ("set burst 513", "nb pkt per burst: 513 > 512 (maximum packet per burst)  ignored"),
    ("port config all burst 513", "burst must be >= 1 && <= 512"),
    ("vlan sett strip on 0", "Bad arguments"),
    ("nonsense", "Command not found"),
];

const STATE: [&str; 8] = [
    "show port info all",
    "show config rxtx",
    "flow list 0",
    "show port 0 rss-hash key",
    "show port 0 macs",
    "show port 0 mcast_macs",
    "show config fwd",
    "show port summary all",
];

#[test]
fn wrong_lines_are_answered_and_change_nothing() {
    let app = [&APP[..], &["--rxq=2", "--txq=2"]].concat();
    let state = STATE.join("\n") + "\n";
    let lines: String = WRONG.iter().map(|(line, _)| format!("{line}\n")).collect();
    let said = answers(&TWO, &app, &format!("{state}{lines}{state}quit\n"));
    let (before, rest) = said.split_at(STATE.len());
    let (wrong, after) = rest.split_at(WRONG.len());
    for ((line, part), answer) in WRONG.iter().zip(wrong) {
        assert!(answer.contains(part), "{line}: {answer:?} lacks {part:?}");
        assert!(answer.trim().lines().count() <= 3, "{line}: {answer}");
        if !part.contains("arguments") {
            assert!(!answer.contains("Bad arguments"), "{line}: {answer}");
        }
    }
    assert!(before[0].contains("net_null1"), "{before:?}");
    assert_eq!(before, &after[..STATE.len()]);
}

/// Without queues to spread over, DPDK's words for each port, and nothing is changed on any.
#[test]
fn one_queue_is_not_spread() {
    let said = answers(
        &TWO,
        &APP,
        "port config all rss udp\nshow port 0 rss-hash\nport config 0 rss reta (0,0)\nquit\n",
    );
    let each = |id| {
        format!(
            "Multi-queue RSS mode isn't enabled.\nConfiguration of RSS hash at ethernet port {id} failed with error \
             (95): Operation not supported.\n"
        )
    };
    assert_eq!(said[0], each(0) + &each(1));
    assert_eq!(said[1], "RSS disabled\n");
    assert_eq!(
        said[2],
        "Multi-queue RSS mode isn't enabled.\nBad redirection table parameter, return code = -95\n"
    );
}

/// What DPDK's words would call a missing queue is one that is there.
#[test]
fn a_queue_that_is_there_is_not_called_invalid() {
    let lines = "show port 0 rxq 0 desc used count\nshow port 1 txq 0 desc 7 status\nquit\n";
    for answer in &answers(&TWO, &APP, lines)[..2] {
        assert!(answer.starts_with("not supported here: ") && !answer.contains("Invalid"), "{answer}");
    }
}

/// Of all ports each has its line.
#[test]
fn all_ports_are_answered_in_turn() {
    let said = answers(&TWO, &APP, "show port fdir all\nshow port dcb_tc all\nquit\n");
    let fdir = "\n FDIR is not supported on port 0\n\n FDIR is not supported on port 1\nnot supported here: ";
    assert!(said[0].starts_with(fdir), "{said:?}");
    let dcb =
        "\n Failed to get dcb infos on port 0\n\n Failed to get dcb infos on port 1\nnot supported here: ";
    assert!(said[1].starts_with(dcb), "{said:?}");
}

/// Every lcore with the cores it may run on, as dpdk-testpmd 23.03 has it; older ones lack the command.
#[test]
fn lcores_are_dumped_with_their_cores() {
    let eal = [&TWO[..], &["--lcores", "0@0,3@0"]].concat();
    let said = answers(&eal, &APP, "dump_lcores\nquit\n");
    let want = "lcore 0, socket 0, role RTE, cpuset 0\nlcore 3, socket 0, role RTE, cpuset 0\n";
    assert_eq!(said[0], want);
}

/// Lines in turn, each with its answer.
const RIGHT: &[(&str, &str)] = &[
    ("show config txtimes", "Interburst gap: 0\nIntraburst gap: 0\n"),
    ("show config rxoffs", "Number of offsets: 0\n"),
    ("show config rxhdrs", "Number of segments: 0\n"),
    ("clear port fdir all", ""),
    ("set burst 0", "Number of packets per burst set to 32\n"),
    ("port config all burst 0", ""),
    ("port config all rss 4", ""),
    ("show port 0 rss-hash", "RSS functions:\n  ipv4-tcp\n"),
    ("port config all rss udp", ""),
    ("show port 0 rss-hash", "RSS functions:\n  ipv4-udp  ipv6-udp\n"),
    ("port config 0 rss reta (0,1),(127,0)", ""),
    (
        "show port 0 rss reta 128 (0x3,0x8000000000000000)",
        "RSS RETA configuration: hash index=0, queue=1\nRSS RETA configuration: hash index=1, queue=1\n\
         RSS RETA configuration: hash index=127, queue=0\n",
    ),
    (
        "port config 0 rss-hash-key ipv4 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324252627",
        "",
    ),
    ("flow validate 0 ingress pattern eth / end actions drop / end", "Flow rule validated\n"),
    (
        "flow create 0 ingress pattern eth / ipv4 / end actions count / queue index 1 / end",
        "Flow rule #0 created\n",
    ),
    ("flow create 0 priority 3 ingress pattern eth / end actions drop / end", "Flow rule #1 created\n"),
    (
        "flow list 0",
        "ID\tGroup\tPrio\tAttr\tRule\n0\t0\t0\ti--\tETH IPV4 => COUNT QUEUE\n1\t0\t3\ti--\tETH => DROP\n",
    ),
    ("flow query 0 0 count", "COUNT:\n hits_set: 1\n bytes_set: 1\n hits: 0\n bytes: 0\n"),
    ("flow destroy 0 rule 1 rule 7", "Flow rule #1 destroyed\n"),
    ("port stop all", "Stopping ports...\nChecking link statuses...\nDone\n"),
    (
        "port config all rxq 1",
        "rxq 1 invalid - flow rule #0 of port 0: queue 1 is not one of the port's 1 receive queues, numbered from 0; destroy it first\n",
    ),
    ("flow flush 0", ""),
    ("flow list 0", ""),
    ("port config all rxq 1", ""),
    ("vlan set strip on 0", ""),
    ("vlan set filter on 0", ""),
    ("rx_vlan add all 0", ""),
    ("rx_vlan rm 7 0", ""),
    ("tx_vlan set 0 5", ""),
    ("port config 0 rxq 0 ring_size 256", ""),
    ("port 0 rxq 0 rx_offload vlan_strip on", ""),
    ("port 0 txq 0 tx_offload mbuf_fast_free off", ""),
    ("mcast_addr add 0 01:00:5e:00:00:01", ""),
    ("mcast_addr add 0 01:00:5e:00:00:01", "multicast address already filtered by port\n"),
    ("show port 0 mcast_macs", "Number of Multicast MAC address added: 1\n  01:00:5E:00:00:01\n"),
    ("mcast_addr remove 0 01:00:5e:00:00:01", ""),
    ("mac_addr set 0 02:00:00:00:00:99", "mac_addr_cmd error: (port 0 is stopped; start it first)\n"),
    ("port start 0", "Configuring Port 0 (socket 0)\nPort 0: MAC\nChecking link statuses...\nDone\n"),
    ("mac_addr set 0 02:00:00:00:00:99", ""),
    ("show port 0 macs", "Number of MAC address added: 1\n  02:00:00:00:00:99\n"),
    ("port stop 0", "Stopping ports...\nChecking link statuses...\nDone\n"),
    ("set log global 8", ""),
    ("set log global 4", ""),
    ("dump_devargs", "User device list:\n  [vdev]: net_null0 \n  [vdev]: net_null1 \n"),
    (
        "device detach net_null1",
        "Port was not closed\nRemoving a device...\nPort 1 is closed\nDevice is detached\nNow total ports is 1\nDone\n",
    ),
];

#[test]
fn settings_are_shown_as_they_are() {
    let input: String = RIGHT.iter().map(|(line, _)| format!("{line}\n")).collect();
    let app = [&APP[..], &["--rxq=2", "--txq=2"]].concat();
    let said =
        answers(&TWO, &app, &(input + "show port info 0\nshow rxq info 0 0\nshow device info all\nquit\n"));
    for ((line, want), got) in RIGHT.iter().zip(&said) {
        let got = got.lines().map(|line| if line.starts_with("Port 0: ") { "Port 0: MAC" } else { line });
        let mut words: Vec<_> = got.collect();
        let mut wanted: Vec<_> = want.lines().collect();
        // Two streams on one pipe.
        words.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(words, wanted, "{line}");
    }
    let last = &said[RIGHT.len()..];
    assert!(
        last[0].contains("VLAN offload: \n  strip on, filter on, extend off, qinq strip off\n"),
        "{}",
        last[0]
    );
    assert!(
        last[1].starts_with("\n********************* Infos for port 0 , RX queue 0  *********************\nMempool: mb_pool_0\n")
            && last[1].contains("\nRx queue state: stopped\n")
            && last[1].ends_with("\nNumber of RXDs: 256\n\n"),
        "{}",
        last[1]
    );
    assert!(
        last[2].contains("Infos for device net_null0") && last[2].contains("\tPort id: 0 \n"),
        "{}",
        last[2]
    );
}

#[test]
fn options_that_do_nothing_are_named_at_start() {
    let app = [&APP[..], &["--rxpt=8", "--numa", "--mbuf-size=2176,4096"]].concat();
    let said = run(&mut testpmd(&[&TWO[..], &["-n", "4"]].concat(), &app), b"quit\n");
    assert_eq!(said.code, Some(0), "{said:?}");
    let want = "testpmd: options without effect here: --no-pci -n 4 --rxpt=8 --numa --mbuf-size=2176,4096 (all but the first)\n";
    assert!(said.err.contains(want), "{said:?}");
}

#[test]
fn ports_stay_stopped_when_asked_to() {
    let app = [&APP[..], &["--disable-device-start", "--display-xstats=rx_good_packets,foo"]].concat();
    let said = answers(&TWO, &app, "start\nport start all\nshow port stats 0\nquit\n");
    assert_eq!(said[0], "Not all ports were started\n");
    assert!(said[1].contains("Configuring Port 1"), "{said:?}");
    assert!(
        said[2].contains("\n  rx_good_packets ") && said[2].contains("No xstat 'foo' on port 0 - skip it\n"),
        "{said:?}"
    );
}

/// A frame with these tags before its IPv4 header, from that UDP port.
fn frame(tags: &[(u16, u16)], port: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    for (protocol, tci) in tags {
        frame.extend([protocol.to_be_bytes(), tci.to_be_bytes()].concat());
    }
    frame.extend([8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([port.to_be_bytes(), [0, 9], [0, 26], [0, 0]].concat());
    frame.resize(frame.len() + 18, 0);
    frame
}

fn write(path: &str, frames: &[Vec<u8>]) {
    let mut file = Vec::new();
    Format::Pcap.header(&mut file, 65_535);
    for frame in frames {
        Format::Pcap.record(&mut file, &Record { len: frame.len() as u32, ..Record::default() }, &[frame]);
    }
    std::fs::write(path, file).unwrap();
}

/// What leaves a file port when `frames` enter another one, after these lines.
fn forwarded(input: &[Vec<u8>], app: &[&str], lines: &str, want: usize) -> (Vec<Vec<u8>>, String) {
    let scratch = Scratch::new();
    let (from, to) = (scratch.file("in.pcap"), scratch.file("out.pcap"));
    write(&from, input);
    let devices = [format!("net_pcap0,rx_pcap={from}"), format!("net_pcap1,tx_pcap={to}")];
    let eal = ["-m", "64", "--in-memory", "--vdev", &devices[0], "--vdev", &devices[1]];
    let mut command = testpmd(&eal, &[&["-i", "--no-flush-rx"], app].concat());
    let mut running = Running::start(command.stdin(Stdio::piped()));
    let mut console = running.0.stdin.take().unwrap();
    console.write_all(format!("{lines}start\n").as_bytes()).unwrap();
    wait_until("all packets", || try_frames(&to).is_ok_and(|frames| frames.len() >= want));
    console.write_all(b"flow query 0 0 count\nshow port xstats 0\nquit\n").unwrap();
    let said = running.end(PATIENCE);
    assert_eq!(said.code, Some(0), "{said:?}");
    (frames(&to), said.out)
}

#[test]
fn tags_are_taken_out_filtered_and_put_in() {
    const C: u16 = 0x8100;
    let input = [frame(&[], 1), frame(&[(C, 5)], 2), frame(&[(C, 6)], 3), frame(&[(0x88a8, 5), (C, 9)], 4)];
    let (out, said) =
        forwarded(&input, &["--enable-hw-vlan-strip", "--enable-hw-vlan-filter"], "rx_vlan add 5 0\n", 3);
    assert_eq!(out, [frame(&[], 1), frame(&[], 2), frame(&[(C, 9)], 4)]);
    assert!(said.contains("rx_software_drops: 1\n"), "{said}");
    let (out, _) = forwarded(&input[..2], &[], "port stop 1\ntx_vlan set 1 7 100\nport start 1\n", 2);
    assert_eq!(out, [frame(&[(0x88a8, 100), (C, 7)], 1), frame(&[(0x88a8, 100), (C, 7), (C, 5)], 2)]);
    let (out, _) = forwarded(&input, &["--enable-hw-qinq"], "", 4);
    assert_eq!(out, [frame(&[], 1), frame(&[], 2), frame(&[], 3), frame(&[], 4)]);
    let (out, _) = forwarded(&input, &["--forward=mac"], "", 4);
    assert_eq!(out[1][12..], input[1][12..], "nothing is done unless asked for");
}

#[test]
fn rules_count_and_drop() {
    let input: Vec<_> = (1..40).map(|port| frame(&[], port)).collect();
    let lines = "flow create 0 ingress pattern eth / ipv4 / udp src spec 0x10 src mask 0xfff0 / end actions count / drop / end\n";
    let (out, said) = forwarded(&input, &[], lines, 39 - 16);
    let want: Vec<_> = (1..40).filter(|port| port & 0xfff0 != 0x10).map(|port| frame(&[], port)).collect();
    assert_eq!(out, want);
    assert!(said.contains(" hits: 16\n bytes: 960\n"), "{said}");
}

/// What came on one queue is forwarded by the stream of another, on another lcore.
#[test]
fn a_rule_sends_packets_to_another_queue() {
    let app = [&APP[..], &["--rxq=2", "--txq=2", "--nb-cores=2", "--forward-mode=rxonly", "--no-flush-rx"]]
        .concat();
    let eal = [&TWO[..], &["--lcores", "0@0,1@0,2@0"]].concat();
    let lines = "flow create 0 ingress pattern eth / end actions queue index 1 / end\nstart\nstop\nport stop all\nshow pool\nquit\n";
    // `stop` may come before a busy machine let both threads have their turn.
    wait_until("packets on the other queue", || {
        let said = run(&mut testpmd(&eal, &app), lines.as_bytes());
        assert_eq!(said.code, Some(0), "{said:?}");
        let received = |queue: u32| -> u64 {
            let head = format!("Forward Stats for RX Port= 0/Queue= {queue} ");
            let (_, rest) = said.out.split_once(&head).unwrap_or_else(|| panic!("{said:?}"));
            let (_, count) = rest.split_once("RX-packets: ").unwrap();
            count.split_whitespace().next().unwrap().parse().unwrap()
        };
        assert_eq!(received(0), 0, "{said:?}");
        assert!(said.out.contains(" in_use=0\n"), "nothing waits for a queue any more: {said:?}");
        received(1) > 0
    });
}

/// Commands that dpdk-testpmd 22.11 has in its help, or that its test plans use, with nothing behind them here.
const NOT_HERE: &[&str] = &[
    "set bonding mode 1 0",
    "add bonding slave 0 1",
    "set vf vlan insert 0 0 1",
    "clear vf stats 0 0",
    "set macsec sa tx 0 0 0 0 00112233445566778899aabbccddeeff",
    "set gro flush 1",
    "set port 0 gro on",
    "show port 0 gro",
    "tunnel_tso set 800 0",
    "port config 0 pctype 1 hash_inset set field 1",
    "show port 0 pctype mapping",
    "port config 0 udp_tunnel_port add vxlan 4789",
    "port tm hierarchy commit 0 no",
    "del port tm node 0 1",
    "port config 0 dcb vt off 4 pfc off",
    "show port 0 flow_ctrl",
    "set flow_ctrl rx on tx on 300 50 10 1 mac_ctrl_frame_fwd off autoneg on 0",
    "set vxlan ip-version ipv4 vni 4 udp-src 4 udp-dst 4 ip-src 127.0.0.1 ip-dst 127.0.0.1",
    "port config all drop-en on",
    "port config all speed auto duplex auto",
    "port config 0 loopback 1",
    "port cleanup 0 txq 0 0",
    "show port dcb_tc 0",
    "show port fdir 0",
    "show raw_encap 0",
    "show raw_decap all",
    "bpf-load rx 0 0 J /tmp/program.o",
    "bpf-unload rx 0 0",
    "global_config 0 gre-key-len 4",
    "create bonded device 1 0",
    "set bonding agg_mode 0 count",
    "tx_vlan set pvid 0 5 on",
    "set rxhdrs eth,ipv4",
    "set txsplit off",
    "show port 0 ptypes",
    "read rxd 0 0 0",
    "dump_physmem",
    "dump_memzone",
    "dump_log_types",
    "set port meter enable 0 0",
    "set pfc_queue_ctrl 0 rx on 0 0 tx on 0 0 0",
    "set bypass mode normal 0",
    "ddp get list 0",
    "ptype mapping get 0 1",
    "port 0 txq 0 deferred_start on",
    "set fwd shared_rxq",
    "set fwd ieee1588 retry",
    "set rxoffs 0,64",
    "show port 0 rxq 0 desc 0 status",
    "vlan set inner tpid 0x8100 0",
];

#[test]
fn what_is_not_here_says_so() {
    let input: String = NOT_HERE.iter().map(|line| format!("{line}\n")).collect();
    let said = answers(&TWO, &APP, &(input + "quit\n"));
    for (line, answer) in NOT_HERE.iter().zip(said) {
        let last = answer.lines().last().unwrap_or_default();
        assert!(
            last.starts_with("not supported here: ") && last.contains("; instead: "),
            "{line}: {answer:?}"
        );
    }
}
