//! A station with two ports: TCP and UDP ports of a range at the fast one, all else at the kernel's.

#[allow(dead_code, reason = "captures are looked at by another test")]
mod common;

use common::{Bed, frame};
use linecard_switch::api::{PortState, TraceRequest, TraceVerdict};
use serde_json::{Value, json};

const ALL: u8 = 255;

/// The kernel's port, the fast one, and a stranger.
fn ports(workers: usize) -> Bed {
    let kernel = json!({"mac": "02:00:00:00:00:01", "ips": ["10.0.0.1"]});
    let mut fast = kernel.clone();
    fast["shares"] = json!({"with": "p0", "ports": "tcp:4444-20000"});
    Bed::new(workers, &[kernel, fast, json!({})])
}

/// TCP from station 2 to station 1, to this port.
fn tcp(port: u16) -> Vec<u8> {
    packet([1, 2], [10, 0, 0, 1], [10, 0, 0, 2], 0, 6, port)
}

fn packet(stations: [u8; 2], to: [u8; 4], from: [u8; 4], fragment: u16, protocol: u8, port: u16) -> Vec<u8> {
    let [destination, source] = stations.map(|number| [2, 0, 0, 0, 0, number]);
    let segment = [&[0x30, 0x39][..], &port.to_be_bytes(), &[0; 8], &[0x50, 2], &[0; 6], b"bytes"].concat();
    let len = (20 + segment.len()) as u16;
    let ip = [
        &[0x45, 0][..],
        &len.to_be_bytes(),
        &[0, 0],
        &fragment.to_be_bytes(),
        &[64, protocol, 0, 0],
        &from,
        &to,
    ];
    [&destination[..], &source, &[8, 0], &ip.concat(), &segment].concat()
}

#[test]
fn frames_go_by_their_destination_ports() {
    for workers in [1, 2, 3] {
        let mut bed = ports(workers);
        assert_eq!(bed.reach(2, &tcp(4444)), [1]);
        assert_eq!(bed.reach(2, &tcp(80)), [0]);
        let fragment = packet([1, 2], [10, 0, 0, 1], [10, 0, 0, 2], 0x2000, 6, 4444);
        assert_eq!(bed.reach(2, &fragment), [0], "a fragment is the kernel's");
        assert_eq!(bed.reach(2, &packet([1, 2], [10, 0, 0, 1], [10, 0, 0, 2], 0, 1, 4444)), [0], "no TCP");
        assert_eq!(bed.reach(2, &tcp(5000)[..45]), [0], "a truncated header");
        assert_eq!(bed.reach(2, &frame(2, 1, b"no IP")), [0]);
        assert_eq!(bed.reach(2, &frame(2, ALL, b"for all: ARP, say")), [0]);
        // One header, and a burst that is divided all the same; bytes and order are kept.
        let frames: Vec<_> = (0..200_u16).map(|n| tcp(if n % 3 == 0 { 80 } else { 4444 + n })).collect();
        bed.send(2, &frames);
        bed.settle();
        let (kernels, fasts): (Vec<_>, Vec<_>) =
            frames.into_iter().partition(|frame| frame[36..38] == [0, 80]);
        assert_eq!((bed.received(0), bed.received(1)), (kernels, fasts));
    }
}

#[test]
fn both_speak_as_the_one_station() {
    let mut bed = ports(2);
    bed.reach(2, &frame(2, ALL, b"here I am"));
    let answer = |port| packet([2, 1], [10, 0, 0, 2], [10, 0, 0, 1], 0, 6, port);
    for from in [0, 1] {
        assert_eq!(bed.reach(from, &answer(9)), [2]);
        assert_eq!(bed.reach(from, &frame(1, ALL, b"for all others")), [2]);
        assert_eq!(bed.reach(from, &packet([1, 1], [10, 0, 0, 1], [10, 0, 0, 1], 0, 6, 5000)), [0_usize; 0]);
        // It is guarded as the other is.
        assert_eq!(bed.reach(from, &packet([2, 1], [10, 0, 0, 2], [10, 0, 0, 9], 0, 6, 9)), [0_usize; 0]);
        assert_eq!(bed.reach(from, &frame(7, 2, b"somebody else")), [0_usize; 0]);
        let drops = bed.info(from).counters.drops;
        assert_eq!((drops.source_ip, drops.source_mac), (1, 1));
    }
    assert_eq!(bed.reach(2, &tcp(5000)), [1], "the station has not moved");
}

#[test]
fn the_fast_port_is_nothing_without_the_other_one() {
    let mut bed = ports(1);
    bed.reach(2, &frame(2, ALL, b"here I am"));
    let kernel = bed.info(0).spec;
    assert!(bed.switch.remove("p0").expect("it goes"));
    assert_eq!(bed.reach(1, &frame(1, 2, b"whose?")), [0_usize; 0]);
    assert_eq!(bed.reach(2, &tcp(5000)), [0_usize; 0]);
    bed.switch.add(&kernel, None).expect("it is back");
    bed.switch.look_after();
    assert_eq!(bed.reach(2, &tcp(5000)), [1]);
    assert_eq!(bed.info(1).state, PortState::Up);
    // The kernel's port goes on without the fast one.
    assert!(bed.switch.remove("p1").expect("it goes"));
    assert_eq!(bed.reach(2, &tcp(5000)), [0]);
}

#[test]
fn a_trace_says_whose_a_frame_is() {
    let mut bed = ports(1);
    bed.reach(2, &frame(2, ALL, b"here I am"));
    let trace = |frame: &[u8]| {
        let frame = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        bed.switch.trace(&TraceRequest { port: "p2".into(), frame }).expect("a trace")
    };
    for (port, want) in [(5000, "p1"), (80, "p0")] {
        let trace = trace(&tcp(port));
        assert_eq!((trace.verdict, trace.ports.len()), (TraceVerdict::Forward, 1));
        assert_eq!(trace.ports[0].port, want, "{trace:?}");
    }
}

#[test]
fn shares_that_make_no_sense_are_refused() {
    let bed = ports(1);
    let spec = bed.info(1).spec;
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut value = serde_json::to_value(&spec).expect("JSON");
        value["key"] = "another".into();
        value["device"] = "net_ring77".into();
        change(&mut value);
        let spec = linecard_switch::api::PortSpec::read(value)?;
        bed.switch.add(&spec, None).map(|_| ())
    };
    for (change, want) in [
        (
            &(|value: &mut Value| value["shares"]["ports"] = "tcp:9-8".into()) as &dyn Fn(&mut Value),
            "is no range of TCP or UDP ports",
        ),
        (&|value| value["shares"]["with"] = "another".into(), "whose 'mac' the port has to have"),
        (
            &|value| drop(value.as_object_mut().and_then(|spec| spec.remove("mac"))),
            "whose 'mac' the port has to have",
        ),
        (
            &|value| drop(value.as_object_mut().and_then(|spec| spec.remove("shares"))),
            "belongs to port 'p0' already",
        ),
    ] {
        let problem = refused(change).expect_err(want);
        assert!(problem.to_string().contains(want), "{problem}");
    }
}
