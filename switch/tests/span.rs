//! Mirroring from port to port: what is copied, as what, and what it costs the mirrored ports.

#[allow(dead_code, reason = "captures are looked at by another test")]
mod common;

use common::{Bed, frame, tagged};
use linecard_switch::api::{Span, TraceRequest, TraceVerdict};
use serde_json::json;

const ALL: u8 = 255;

fn session(to: usize, ingress: &[usize], egress: &[usize]) -> Span {
    let keys = |numbers: &[usize]| numbers.iter().map(|number| format!("p{number}")).collect();
    Span { to: format!("p{to}"), ingress: keys(ingress), egress: keys(egress) }
}

#[test]
fn what_comes_from_a_port_and_what_goes_to_it_is_copied_byte_by_byte() {
    for workers in [1, 2, 3] {
        let mut bed = Bed::new(workers, &[json!({}), json!({}), json!({})]);
        bed.switch.set_span(&session(2, &[0], &[0]), true).expect("a session");
        let (question, answer) = (frame(1, 2, b"who is two"), frame(2, 1, b"it is me"));
        bed.send(0, std::slice::from_ref(&question));
        bed.settle();
        bed.send(1, std::slice::from_ref(&answer));
        bed.settle();
        assert_eq!((bed.received(1), bed.received(0)), (vec![question.clone()], vec![answer.clone()]));
        assert_eq!(bed.received(2), [question, answer], "{workers} workers");
        assert_eq!(bed.info(2).counters.drops.total(), 0);
        // Known stations, whole bursts: the way that takes a burst as it came.
        let frames: Vec<_> = (0..200_u8).map(|n| frame(1, 2, &[n; 80])).collect();
        bed.send(0, &frames);
        bed.settle();
        assert_eq!((bed.received(1), bed.received(2)), (frames.clone(), frames));
        assert!(bed.switch.remove_span("p2"));
        assert_eq!(bed.reach(0, &frame(1, 2, b"unseen")), [1]);
    }
}

#[test]
fn each_direction_by_itself_and_several_outputs() {
    let mut bed = Bed::new(1, &[json!({}), json!({}), json!({}), json!({})]);
    bed.switch.set_span(&session(2, &[0], &[]), true).expect("a session");
    bed.switch.set_span(&session(3, &[], &[0, 1]), true).expect("a session");
    let hello = frame(1, ALL, b"hello");
    assert_eq!(bed.reach(0, &hello), [1, 2, 3], "from 0, and to 1");
    assert_eq!(bed.reach(1, &frame(2, 1, b"hello")), [0, 3], "to 0");
    // Another session of the same output takes its place.
    bed.switch.set_span(&session(3, &[1], &[]), true).expect("a session");
    assert_eq!(bed.reach(0, &hello), [1, 2]);
    assert_eq!(bed.reach(1, &frame(2, 1, b"hello")), [0, 3]);
}

#[test]
fn copies_show_frames_as_they_pass_the_port() {
    let trunk = json!({"vlan": {"trunk": {"vlans": [10]}}});
    let mut bed = Bed::new(1, &[json!({"vlan": {"access": 10}}), trunk, json!({}), json!({"mtu": 100})]);
    bed.switch.set_span(&session(2, &[0], &[1]), true).expect("a session");
    let plain = frame(1, ALL, b"untagged where it comes from");
    bed.send(0, std::slice::from_ref(&plain));
    bed.settle();
    assert_eq!(bed.received(1), [tagged(10, &plain)]);
    assert_eq!(bed.received(2), [plain.clone(), tagged(10, &plain)]);
    // What the switch drops has come all the same, and what is too long for the output is its own loss.
    bed.send(0, &[tagged(10, &plain)]);
    bed.settle();
    assert_eq!(bed.received(2), [tagged(10, &plain)]);
    assert_eq!((bed.received(1).len(), bed.info(0).counters.drops.vlan), (0, 1));
    bed.switch.remove_span("p2");
    bed.switch.set_span(&session(3, &[0], &[]), true).expect("a session");
    bed.send(0, &[frame(1, ALL, &[0; 300])]);
    bed.settle();
    assert_eq!((bed.received(1).len(), bed.received(3).len()), (1, 0));
    assert_eq!(bed.info(3).counters.drops.tx_oversize, 1);
}

#[test]
fn an_output_gets_copies_only_and_nothing_it_says_is_forwarded() {
    let mut bed = Bed::new(2, &[json!({}), json!({}), json!({"mac": "02:00:00:00:00:09"})]);
    bed.switch.set_span(&session(2, &[0], &[]), true).expect("a session");
    assert_eq!(bed.reach(1, &frame(2, ALL, b"for all, and not copied")), [0]);
    assert_eq!(bed.reach(1, &frame(2, 9, b"for its configured station")), [0_usize; 0]);
    assert_eq!(bed.reach(2, &frame(9, ALL, b"from the output")), [0_usize; 0]);
    assert_eq!(bed.info(2).counters.drops.span_output, 1);
    let trace = |port: &str| {
        let frame = frame(2, ALL, b"").iter().map(|byte| format!("{byte:02x}")).collect();
        bed.switch.trace(&TraceRequest { port: port.into(), frame }).expect("a trace")
    };
    let (from, past) = (trace("p2"), trace("p1"));
    assert_eq!((from.verdict, from.cause.as_deref()), (TraceVerdict::Drop, Some("span_output")));
    assert!(past.ports.iter().all(|port| port.port == "p0"), "{past:?}");
    // It is an ordinary one again.
    assert!(bed.switch.remove_span("p2") && !bed.switch.remove_span("p2"));
    assert_eq!(bed.reach(2, &frame(9, ALL, b"from a port")), [0, 1]);
}

/// More than the output's ring, its burst and the other worker's inbox hold.
const MANY: usize = 6000;

#[test]
fn an_output_that_is_not_read_costs_the_others_nothing() {
    for workers in [1, 2, 3] {
        let mut bed = Bed::new(workers, &[json!({}), json!({}), json!({})]);
        bed.send(1, &[frame(2, ALL, b"here I am")]);
        bed.settle();
        (0..3).for_each(|port| drop(bed.received(port)));
        bed.switch.set_span(&session(2, &[0], &[1]), true).expect("a session");
        let (mut sent, mut got, before) = (Vec::new(), Vec::new(), bed.info(2).counters.tx_packets);
        for chunk in 0..MANY / 50 {
            let frames: Vec<_> =
                (0..50).map(|n| frame(1, 2, &((chunk * 50 + n) as u32).to_be_bytes().repeat(20))).collect();
            bed.send(0, &frames);
            bed.settle();
            sent.extend(frames);
            got.extend(bed.received(1));
        }
        assert_eq!(got.len(), MANY);
        assert!(got == sent, "all of them, in their order");
        assert_eq!((bed.info(0).counters.drops.total(), bed.info(1).counters.drops.total()), (0, 0));
        // Each frame was copied twice; what the output did not get it has lost, and it alone.
        let output = bed.info(2).counters;
        assert!(output.drops.tx_full > 0 && output.drops.total() == output.drops.tx_full, "{output:?}");
        let copies = output.tx_packets - before;
        assert_eq!(copies + output.drops.tx_full, 2 * MANY as u64);
        assert_eq!(bed.received(2).len() as u64, copies);
    }
}

#[test]
fn sessions_hold_while_ports_come_and_go() {
    let mut bed = Bed::new(2, &[json!({}), json!({}), json!({}), json!({})]);
    bed.switch.set_span(&session(2, &[0, 3], &[]), false).expect("a session");
    let spec = bed.info(0).spec;
    assert!(bed.switch.remove("p3").expect("it goes"));
    let spans = bed.switch.spans();
    assert_eq!((spans.len(), &spans[0].absent[..], spans[0].kept), (1, &["p3".to_owned()][..], false));
    // The output goes: its number is free, and whoever gets it gets no copies.
    let output = bed.info(2).spec;
    assert!(bed.switch.remove("p2").expect("it goes"));
    assert_eq!(bed.reach(0, &frame(1, ALL, b"nobody mirrors")), [1]);
    let mut stranger = spec.clone();
    stranger.key = "stranger".into();
    stranger.kind = output.kind.clone();
    stranger.mac = Some("02:00:00:00:00:77".parse().expect("an address"));
    bed.switch.add(&stranger, None).expect("a port");
    bed.switch.look_after();
    assert_eq!(bed.reach(0, &frame(1, 2, b"not for the stranger")), [1]);
    assert!(bed.switch.remove("stranger").expect("it goes"));
    // It is back, and so are the copies.
    bed.switch.add(&output, None).expect("a port");
    bed.switch.look_after();
    assert_eq!(bed.reach(0, &frame(1, ALL, b"mirrored again")), [1, 2]);
}

#[test]
fn sessions_that_make_no_sense_are_refused_by_what_is_wrong() {
    let bed = Bed::new(1, &[json!({}), json!({}), json!({}), json!({})]);
    bed.switch.set_span(&session(1, &[0], &[]), true).expect("a session");
    for (span, want) in [
        (session(7, &[0], &[]), "there is no port 'p7'"),
        (session(2, &[8], &[]), "there is no port 'p8'"),
        (session(2, &[], &[]), "nothing is to be copied to port 'p2'"),
        (session(2, &[2], &[]), "port 'p2' would be mirrored and get copies itself"),
        (session(2, &[], &[1]), "port 'p1' would be mirrored and get copies itself"),
        (session(0, &[2], &[]), "port 'p0' would be mirrored and get copies itself"),
    ] {
        let problem = bed.switch.set_span(&span, true).expect_err(want);
        assert_eq!(problem.message, want);
    }
    assert_eq!(bed.switch.spans().len(), 1);
    // What is brought back may name ports that are not there yet; it may not contradict another.
    bed.switch.restore_span(&session(9, &[8], &[]), true).expect("later");
    assert!(bed.switch.restore_span(&session(8, &[3], &[]), true).is_err());
}
