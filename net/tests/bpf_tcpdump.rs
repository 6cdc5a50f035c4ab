//! Filters against tcpdump: our compiler's programs and libpcap's decide alike on thousands of frames, and our
//! interpreter keeps the frames that tcpdump keeps.

use std::process::Command;

use linecard_net::bpf::{Program, compile};
use linecard_testing::Prng;

const EXPRESSIONS: &[&str] = &[
    "ip",
    "ip6",
    "arp",
    "rarp",
    "tcp",
    "udp",
    "sctp",
    "icmp",
    "icmp6",
    "igmp",
    "ether proto 0x88b5",
    "ip proto 47",
    "ip6 proto 58",
    "proto 6",
    "ether proto \\arp",
    "ip proto \\udp",
    "host 10.0.0.1",
    "src host 10.0.0.1",
    "dst host 10.0.0.2",
    "src or dst host 10.0.0.3",
    "src and dst host 10.0.0.1",
    "ip host 10.0.0.1",
    "arp host 10.0.0.1",
    "host fe80::1",
    "ip6 src host fe80::2",
    "net 10",
    "net 10.0",
    "net 10.0.0.0/30",
    "src net 10.0.0.0/31",
    "dst net 10.0.0.2 mask 255.255.255.254",
    "net fe80::/10",
    "src net 2001:db8::/33",
    "net 0.0.0.0/0",
    "port 80",
    "src port 80",
    "dst port 53",
    "tcp port 80",
    "udp port 53",
    "udp src port 53",
    "sctp port 80",
    "src and dst port 80",
    "portrange 50-90",
    "tcp portrange 1-79",
    "udp dst portrange 53-80",
    "port 80 or 53",
    "port (80 or 53)",
    "not port (80 or 53)",
    "tcp port http",
    "ether host 02:00:00:00:00:01",
    "ether src 02:00:00:00:00:02",
    "ether dst host 02:00:00:00:00:01",
    "ether broadcast",
    "ether multicast",
    "broadcast",
    "multicast",
    "ip multicast",
    "ip6 multicast",
    "vlan",
    "vlan 5",
    "vlan and ip",
    "vlan 5 and tcp port 80",
    "vlan and vlan 6",
    "vlan and vlan and udp",
    "not vlan and ip",
    "ip or vlan 5 and udp",
    "len > 100",
    "less 80",
    "greater 100",
    "len = 64",
    "len != 64",
    "len <= 99 and len >= 61",
    "tcp[13] & 2 != 0",
    "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn",
    "ip[8] < 64",
    "ip[2:2] > 60",
    "udp[4:2] >= 20",
    "ether[0] & 1 = 0",
    "ether[12:2] = 0x86dd",
    "ip6[6] = 17",
    "icmp[icmptype] = icmp-echo",
    "tcp[0:4] = 0x00500035",
    "arp[6:2] = 1",
    "tcp and not port 80",
    "not tcp and not udp",
    "ip and (tcp or udp) and not host 10.0.0.1",
    "tcp or udp and port 53",
    "not (tcp or arp) or len > 90",
    "not host 10.0.0.1 and tcp",
    "!tcp && !udp || icmp",
    "src host 10.0.0.1 and dst host 10.0.0.2",
    "src 10.0.0.1 or 10.0.0.2",
    "tcp src port 80 or dst port 53",
    "(tcp port 80 or 53) and (len < 100 or net 10.0.0.0/24)",
];

/// An IPv6 packet with what follows it.
fn v6(random: &mut Prng, frame: &mut Vec<u8>) {
    let address = |random: &mut Prng| {
        random.of(&[
            [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
            [0x20, 1, 0xd, 0xb8, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            [0x20, 1, 0xd, 0xb8, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        ])
    };
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 40]);
    let next = random.of(&[6, 6, 17, 17, 58, 132, 44, 0]);
    frame.extend([next, 64]);
    frame.extend(address(random));
    frame.extend(address(random));
    if next == 44 {
        frame.extend([random.of(&[6, 17, 58]), 0, 0, random.of(&[0, 1, 8]), 0, 0, 0, 1]);
    }
    layer4(random, frame);
}

/// A frame such as the expressions ask about: often what they name, sometimes odd, sometimes cut.
fn frame(random: &mut Prng) -> Vec<u8> {
    let mac = |random: &mut Prng| {
        random.of(&[
            [2, 0, 0, 0, 0, 1],
            [2, 0, 0, 0, 0, 2],
            [0xff; 6],
            [1, 0, 0x5e, 0, 0, 1],
            [0x33, 0x33, 0, 0, 0, 1],
        ])
    };
    let mut frame = [mac(random), mac(random)].concat();
    for _ in 0..random.of(&[0, 0, 0, 1, 1, 2]) {
        frame.extend(random.of(&[[0x81, 0], [0x81, 0], [0x88, 0xa8], [0x91, 0]]));
        frame.extend([random.of(&[0, 0x20, 0xa0]), random.of(&[5, 6, 7])]);
    }
    let ip = |random: &mut Prng| {
        random.of(&[
            [10, 0, 0, 1],
            [10, 0, 0, 2],
            [10, 0, 0, 3],
            [10, 1, 0, 1],
            [224, 0, 0, 1],
            [192, 168, 0, 1],
        ])
    };
    match random.roll() % 8 {
        0 => {
            frame.extend(random.of(&[[8, 6], [0x80, 0x35]]));
            frame.extend([0, 1, 8, 0, 6, 4, 0, random.of(&[1, 2])]);
            frame.extend(mac(random));
            frame.extend(ip(random));
            frame.extend(mac(random));
            frame.extend(ip(random));
        }
        1..=4 => {
            frame.extend([8, 0]);
            let options = random.of(&[0, 0, 0, 1, 3]);
            let fragment = random.of(&[[0, 0], [0, 0], [0x40, 0], [0x20, 0], [0, 5], [0x20, 9]]);
            frame.extend([0x45 + options, 0, 0, random.of(&[40, 60, 61, 90]), 0, 1]);
            frame.extend(fragment);
            frame.extend([
                random.of(&[1, 63, 64]),
                random.of(&[6, 6, 6, 17, 17, 17, 1, 2, 132, 47, 58]),
                0,
                0,
            ]);
            frame.extend(ip(random));
            frame.extend(ip(random));
            frame.resize(frame.len() + usize::from(options) * 4, 1);
            layer4(random, &mut frame);
        }
        5 | 6 => v6(random, &mut frame),
        _ => {
            frame.extend(random.of(&[[0x88, 0xb5], [0, 60], [8, 8]]));
            frame.extend((0..random.roll() % 60).map(|_| 7));
        }
    }
    frame.resize(frame.len().max(random.of(&[0, 60, 64, 100, 120])), 0);
    if random.roll().is_multiple_of(6) {
        frame.truncate((random.roll() % 80) as usize);
    }
    frame
}

fn layer4(random: &mut Prng, frame: &mut Vec<u8>) {
    let port = |random: &mut Prng| random.of(&[80_u16, 53, 79, 90, 1000]).to_be_bytes();
    let (first, second) = (port(random), port(random));
    frame.extend(random.of(&[first, [8, 0], [0, 0]]));
    frame.extend(second);
    frame.extend([0, random.of(&[8, 20, 30]), 0, 0, 0, 0, 0, 0, 0x50, random.of(&[2, 0x12, 0x10, 4])]);
}

fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    let words =
        |file: &mut Vec<u8>, words: &[u32]| words.iter().for_each(|word| file.extend(word.to_le_bytes()));
    words(&mut file, &[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1]);
    for (i, frame) in (0_u32..).zip(frames) {
        let len = frame.len() as u32;
        words(&mut file, &[i, 0, len, len]);
        file.extend(frame);
    }
    file
}

/// The capture times, which are the numbers, of the frames in a file.
fn numbers(mut file: &[u8]) -> Vec<u32> {
    let mut numbers = Vec::new();
    file = file.get(24..).unwrap_or_default();
    while let Some((head, rest)) = file.split_at_checked(16) {
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        numbers.push(word(0));
        file = rest.get(word(8) as usize..).unwrap_or_default();
    }
    numbers
}

#[test]
fn filters_decide_as_tcpdump_does() {
    if Command::new("tcpdump").arg("--version").output().is_err() {
        let why = "tcpdump is not installed (apt-get install tcpdump)";
        return linecard_testing::skip("filters_decide_as_tcpdump_does", why);
    }
    let folder = std::env::temp_dir().join(format!("lc-bpf-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut random = Prng::new(42);
    let frames: Vec<Vec<u8>> = (0..6000).map(|_| frame(&mut random)).collect();
    let input = folder.join("frames.pcap");
    std::fs::write(&input, pcap(&frames)).expect("a file");
    let mut troubles = Vec::new();
    for expression in EXPRESSIONS {
        let ours = compile(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
        let text =
            Command::new("tcpdump").args(["-y", "EN10MB", "-ddd", expression]).output().expect("tcpdump");
        let theirs = Program::from_ddd(&String::from_utf8_lossy(&text.stdout));
        let theirs = theirs.unwrap_or_else(|error| panic!("{expression}: {error}"));
        let keeps = |program: &Program| -> Vec<u32> {
            (0_u32..).zip(&frames).filter(|(_, frame)| program.accepts(frame)).map(|(i, _)| i).collect()
        };
        let keep = |options: &[&str]| {
            let arguments = [options, &["-w", "-", expression]].concat();
            let kept = Command::new("tcpdump").arg("-r").arg(&input).args(arguments).output();
            numbers(&kept.expect("tcpdump").stdout)
        };
        // What becomes of a frame that ends inside of a header depends on which field is looked at first: tcpdump's optimizer
        // (off with -O) merges the looks at the same field.
        let (kept, plain) = (keep(&[]), keep(&["-O"]));
        let (ours, theirs) = (keeps(&ours), keeps(&theirs));
        if theirs != kept {
            troubles.push(format!(
                "{expression}: their program keeps {} here and {} there",
                theirs.len(),
                kept.len()
            ));
        }
        let differs = |i: &&u32| [&kept, &plain].iter().all(|theirs| theirs.contains(i) != ours.contains(i));
        let first = ours.iter().chain(&kept).find(differs);
        if first.is_some() {
            let frame = first.map(|i| format!("{:02x?}", frames[*i as usize])).unwrap_or_default();
            troubles.push(format!("{expression}: we keep {}, they {}; {frame}", ours.len(), kept.len()));
        }
        if ours.is_empty() || ours.len() == frames.len() {
            eprintln!("note: '{expression}' keeps {} of {}", ours.len(), frames.len());
        }
    }
    std::fs::remove_dir_all(&folder).expect("removed");
    assert!(troubles.is_empty(), "{}", troubles.join("\n"));
}
