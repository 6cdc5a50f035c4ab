//! What programs do, what expressions mean, and what is refused; tests/bpf_tcpdump.rs compares with tcpdump.

use super::*;

fn frame(kind: u16, rest: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(kind.to_be_bytes());
    frame.extend(rest);
    frame.resize(frame.len().max(60), 0);
    frame
}

/// IPv4 from 10.1.2.3 to 192.168.0.9 with this protocol, fragment field, and layer 4 from 1000 to 80.
fn ip(protocol: u8, fragment: u16) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, (fragment >> 8) as u8, fragment as u8, 64, protocol, 0, 0];
    packet.extend([10, 1, 2, 3, 192, 168, 0, 9]);
    packet.extend([3, 232, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x12]);
    packet
}

fn accepts(expression: &str, frame: &[u8]) -> bool {
    compile(expression).unwrap_or_else(|error| panic!("{expression}: {error}")).accepts(frame)
}

#[test]
fn expressions_mean_what_they_say() {
    let tcp = frame(0x0800, &ip(6, 0));
    for (expression, want) in [
        ("", true),
        ("ip", true),
        ("ip6 or arp", false),
        ("tcp port 80", true),
        ("tcp port http", true),
        ("tcp src port 80", false),
        ("port 443 or 80", true),
        ("port (443 or 1000)", true),
        ("portrange 900-1100", true),
        ("portrange 81-999", false),
        ("src and dst port 80", false),
        ("host 10.1.2.3", true),
        ("dst host 10.1.2.3", false),
        ("not dst host 10.1.2.3 and udp", false),
        ("not (dst host 10.1.2.3 and udp)", true),
        ("src net 10 and dst net 192.168", true),
        ("net 10.1.0.0 mask 255.255.0.0", true),
        ("src net 0.0.0.0/0", true),
        ("ether src 02:00:00:00:00:02", true),
        ("ether host 02:00:00:00:00:03", false),
        ("ether broadcast or multicast", false),
        ("tcp[tcpflags] & (tcp-syn|tcp-ack) = 0x12", true),
        ("tcp[13] & tcp-rst != 0", false),
        ("ip[8] > 63 and ip[8] <= 64 and ether[12:2] = 0x800", true),
        ("len >= 60 and less 60 and greater 60", true),
        ("vlan", false),
        ("ip proto 6 and proto \\tcp and ether proto \\ip", true),
        ("10.1.2.3", true),
        ("udp or tcp and ip6 or icmp", false),
    ] {
        assert_eq!(accepts(expression, &tcp), want, "{expression}");
    }
    let later = frame(0x0800, &ip(17, 3));
    assert!(accepts("udp", &later) && !accepts("udp port 80", &later), "ports are in the first fragment");
    assert!(!accepts("tcp port 80", &tcp[..30]), "what is not there does not match");
    let tagged = frame(0x8100, &[&[0, 5, 8, 0], &ip(6, 0)[..]].concat());
    for (expression, want) in [
        ("vlan", true),
        ("vlan 5 and tcp port 80", true),
        ("vlan 6", false),
        ("tcp", false),
        ("vlan and vlan", false),
    ] {
        assert_eq!(accepts(expression, &tagged), want, "{expression}");
    }
}

#[test]
fn long_expressions_jump_far() {
    let terms: Vec<String> = (1..=120).map(|port| format!("tcp port {port}")).collect();
    let all = terms.join(" or ");
    let tcp = frame(0x0800, &ip(6, 0));
    assert!(accepts(&all, &tcp));
    assert!(!accepts(&format!("not ({all})"), &tcp));
    assert!(!accepts(&format!("udp and ({all})"), &tcp));
    assert!(!accepts(&all, &frame(0x0806, &[])));
}

#[test]
fn what_is_not_understood_is_named() {
    for (expression, want) in [
        ("tcp prot 80", "at 'prot': expected 'and', 'or' or the end"),
        ("tcp and", "ends too early: expected a condition"),
        ("port 65536", "at '65536': expected a port"),
        ("portrange 9-1", "at '9-1': expected two ports"),
        ("host example.org", "names of hosts are not looked up"),
        ("host 1.2.3", "names of hosts are not looked up"),
        ("net 10.1.0.0/8", "without bits that its mask leaves out"),
        ("net 10/33", "at most 32 bits"),
        ("ether port 80", "'ether port' is not possible"),
        ("icmp host 1.1.1.1", "'icmp' has no such addresses"),
        ("(tcp", "ends too early: expected ')'"),
        ("tcp)", "at ')': expected 'and'"),
        ("tcp[13", "expected ']'"),
        ("tcp[13:3] = 1", "a size of 1, 2 or 4 bytes"),
        ("tcp[13] & 2", "expected a comparison"),
        ("ip6[x] = 1", "expected an offset"),
        ("vlan 5000", "a number up to 4095"),
        ("ether proto 3", "an EtherType from 1501 on"),
        ("ip broadcast", "'broadcast' is not possible here"),
        ("tcp; rm", "at ';'"),
        ("ü", "at 'ü'"),
        (&"(".repeat(5000), "1000 are possible"),
        (&"not ".repeat(500), "nested more than 100 deep"),
        ("80", "names of hosts"),
    ] {
        let said = compile(expression).expect_err(expression).to_string();
        assert!(said.contains(want), "{expression}: {said}");
    }
}

#[test]
fn programs_are_checked() {
    let program = |code: &[(u16, u8, u8, u32)]| {
        Program::new(code.iter().map(|&(code, jt, jf, k)| Instruction { code, jt, jf, k }).collect())
    };
    assert!(program(&[(0x06, 0, 0, 1)]).is_ok());
    for bad in [
        &[][..],
        &[(0x20, 0, 0, 0)],                            // does not end
        &[(0x15, 0, 1, 0), (0x06, 0, 0, 1)],           // jumps behind the end
        &[(0x05, 0, 0, 1), (0x06, 0, 0, 1)],           // so does this
        &[(0x05, 0, 0, u32::MAX), (0x06, 0, 0, 1)],    // and backwards
        &[(0x20, 0, 0, 0xffff_f000), (0x06, 0, 0, 1)], // a kernel's extension
        &[(0x02, 0, 0, 16), (0x06, 0, 0, 1)],          // no such word
        &[(0x34, 0, 0, 0), (0x06, 0, 0, 1)],           // divides by zero
        &[(0xffff, 0, 0, 0), (0x06, 0, 0, 1)],         // unknown
    ] {
        assert!(program(bad).is_err(), "{bad:?}");
    }
    // Divides by X, which is 0: rejected, as the kernel does.
    let by_x = program(&[(0x3c, 0, 0, 0), (0x06, 0, 0, 1)]).expect("sound");
    assert!(!by_x.accepts(&[0; 60]));
    for text in ["", "1", "1\n6 0 0", "2\n6 0 0 1", "1\n6 0 0 1 9", "1\n6 0 300 1", "one\n6 0 0 1"] {
        assert!(Program::from_ddd(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_file_that_is_something_else_is_not_quoted_whole() {
    let said = Program::from_ddd(&"\0".repeat(1 << 18)).expect_err("no filter").to_string();
    assert!(said.starts_with("'\\0\\0") && said.contains("…' is no line of a compiled filter"), "{said}");
    assert!(said.len() < 300, "{}", said.len());
}

mod garbage {
    use proptest::prelude::*;

    use super::super::*;

    proptest! {
        #[test]
        fn any_text_is_answered(text in "[a-z0-9 ()\\[\\]:./&|!=<>-]{0,60}") {
            if let Ok(program) = compile(&text) {
                let _ = program.accepts(&[0x45; 70]);
            }
        }

        #[test]
        fn words_of_the_grammar_in_any_order(words in prop::collection::vec(prop::sample::select(vec![
            "tcp", "ip", "ether", "src", "dst", "host", "net", "port", "portrange", "80", "10.0.0.1", "fe80::1", "vlan",
            "and", "or", "not", "(", ")", "[", "]", "13", ":", "2", "&", "=", "len", "<", "1-9", "10/8", "proto", "mask",
        ]), 0..14)) {
            if let Ok(program) = compile(&words.join(" ")) {
                let _ = program.accepts(&[0x45; 70]);
            }
        }

        #[test]
        fn any_sound_program_ends(
            code in prop::collection::vec((prop::sample::select(vec![
                0x20_u16, 0x28, 0x30, 0x40, 0x48, 0x50, 0x80, 0, 0x60, 1, 0x81, 0xb1, 0x61, 2, 3, 4, 0x14, 0x24, 0x34,
                0x44, 0x54, 0x64, 0x74, 0x84, 0x94, 0xa4, 0x0c, 0x3c, 0x6c, 0x9c, 5, 0x15, 0x25, 0x35, 0x45, 0x1d, 6,
                0x16, 7, 0x87,
            ]), 0..20_u8, 0..20_u8, prop_oneof![0..70_u32, any::<u32>()]), 1..60),
            frame in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut code: Vec<_> = code.into_iter().map(|(code, jt, jf, k)| Instruction { code, jt, jf, k }).collect();
            code.push(Instruction { code: 6, jt: 0, jf: 0, k: 0 });
            if let Ok(program) = Program::new(code) {
                let _ = program.accepts(&frame);
            }
        }
    }
}
