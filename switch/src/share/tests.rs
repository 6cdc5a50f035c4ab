use super::*;

fn share(ports: &str) -> Result<Ports, Problem> {
    Ports::of(&Share { with: "k".into(), ports: ports.into() })
}

/// An IPv4 frame: flags and offset of the fragment, protocol, the bytes behind the header.
fn v4(fragment: u16, protocol: u8, behind: &[u8]) -> Vec<u8> {
    let len = (20 + behind.len()) as u16;
    let head = [
        &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0][..],
        &len.to_be_bytes(),
        &[0, 0],
        &fragment.to_be_bytes(),
        &[64, protocol, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1],
    ]
    .concat();
    [&head[..], behind].concat()
}

fn v6(next: u8, behind: &[u8]) -> Vec<u8> {
    let len = (behind.len() as u16).to_be_bytes();
    let head =
        [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd, 0x60, 0, 0, 0][..], &len, &[next, 64], &[9; 32]];
    [&head.concat()[..], behind].concat()
}

fn tcp(port: u16) -> Vec<u8> {
    [&[0x30, 0x39][..], &port.to_be_bytes(), &[0; 8], &[0x50, 2], &[0; 6], b"payload"].concat()
}

fn udp(port: u16) -> Vec<u8> {
    [&[0x30, 0x39][..], &port.to_be_bytes(), &[0, 8, 0, 0]].concat()
}

fn tagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat()
}

#[test]
fn ports_of_a_range_are_the_fast_ports_and_all_else_is_the_kernels() {
    let ports = share("tcp:4444-20000,udp:53").expect("ranges");
    for (frame, want) in [
        (v4(0, 6, &tcp(4444)), true),
        (v4(0, 6, &tcp(20_000)), true),
        // "Do not fragment" is no fragment.
        (v4(0x4000, 6, &tcp(5000)), true),
        (v6(6, &tcp(5000)), true),
        (v4(0, 17, &udp(53)), true),
        (tagged(&v4(0, 17, &udp(53))), true),
        (v4(0, 6, &tcp(4443)), false),
        (v4(0, 6, &tcp(20_001)), false),
        (v4(0, 17, &udp(5000)), false),
        (v4(0, 6, &tcp(53)), false),
        (v4(0, 1, &tcp(5000)), false),
        (v4(0, 132, &tcp(5000)), false),
        (v6(58, &tcp(5000)), false),
    ] {
        assert_eq!(ports.have(&frame), want, "{frame:02x?}");
    }
}

#[test]
fn what_cannot_be_told_is_the_kernels() {
    let ports = share("tcp:1-65535,udp:1-65535").expect("ranges");
    let whole = v4(0, 6, &tcp(5000));
    assert!(ports.have(&whole));
    for fragment in [0x2000, 0x0001, 0x2001, 0x1fff] {
        assert!(!ports.have(&v4(fragment, 6, &tcp(5000))), "a fragment: {fragment:x}");
    }
    // Truncated anywhere before the end of the TCP header.
    for len in 0..14 + 20 + 20 {
        assert!(!ports.have(&whole[..len]), "{len} bytes");
    }
    // A packet that is shorter than its frame: what follows is padding, and no header.
    let mut short = whole.clone();
    short[16..18].copy_from_slice(&30_u16.to_be_bytes());
    assert!(!ports.have(&short));
    let mut other = whole.clone();
    for (at, byte) in [(14, 0x55), (14, 0x44), (14, 0x65), (12, 0x88)] {
        other[at] = byte;
        assert!(!ports.have(&other), "byte {at} is {byte:x}");
        other = whole.clone();
    }
    // Options move the ports.
    let mut options = v4(0, 6, &[&[1; 4][..], &tcp(5000)].concat());
    options[14] = 0x46;
    assert!(ports.have(&options));
    // Extension headers: hop by hop, routing, fragment, destination options, authentication.
    for next in [0, 43, 44, 60, 51, 59] {
        assert!(!ports.have(&v6(next, &[&[6, 0, 0, 0, 0, 0, 0, 0][..], &tcp(5000)].concat())));
    }
    assert!(!ports.have(&v4(0, 17, &udp(53)[..7])));
    // Two tags.
    assert!(!ports.have(&tagged(&tagged(&whole))));
}

#[test]
fn ranges_that_make_no_sense_are_refused() {
    for text in [
        "",
        "tcp",
        "tcp:",
        "tcp:0",
        "tcp:2-1",
        "tcp:1-",
        "tcp:-1",
        "tcp:70000",
        "sctp:1",
        "tcp:1,",
        "tcp:+1",
        "tcp: 1",
        "TCP:1",
    ] {
        let problem = share(text).expect_err(text);
        assert!(
            problem.to_string().ends_with("such as tcp:4444-20000,udp:53, without spaces, at most 64"),
            "{problem}"
        );
    }
    assert!(share(&["tcp:1"; 65].join(",")).is_err());
}
