//! Two ports of a switch that are joined behind it: what goes round ends, stations stay where they are, and others notice little.

#[allow(dead_code, reason = "each test target uses its own part")]
mod common;

use common::{Bed, frame};
use linecard_switch::api::{FdbFilter, TraceRequest, TraceVerdict};
use linecard_switch::fdb::MOST_MOVES;
use serde_json::json;

const ALL: u8 = 255;
/// Ports 1 and 2 are joined.
const JOINED: [usize; 2] = [1, 2];

/// Carries what came out of each of the joined ports into the other, once; how many frames that were.
fn carry(bed: &mut Bed) -> usize {
    let came = JOINED.map(|port| bed.received(port));
    let count = came.iter().map(Vec::len).sum();
    for (frames, into) in came.into_iter().zip([2, 1]) {
        bed.send(into, &frames);
    }
    bed.settle();
    count
}

/// Behind which port a station is known.
fn place(bed: &Bed, number: u8) -> Option<String> {
    let mac = Some(linecard_net::MacAddr([2, 0, 0, 0, 0, number]));
    let list = bed.switch.fdb(&FdbFilter { mac, ..FdbFilter::default() }).expect("a list");
    list.into_iter().next().map(|entry| entry.port)
}

fn flapping(bed: &Bed) -> u64 {
    JOINED.map(|port| bed.info(port).counters.drops.source_moves).iter().sum()
}

#[test]
fn what_goes_round_between_two_ports_ends() {
    for workers in [1, 3] {
        let mut bed = Bed::new(workers, &[json!({}), json!({}), json!({}), json!({}), json!({})]);
        bed.send(4, &[frame(5, ALL, b"I am another")]);
        bed.settle();
        (0..5).for_each(|port| drop(bed.received(port)));
        bed.send(0, &[frame(1, ALL, b"to everybody, and round")]);
        bed.settle();
        let rounds = (0..100).take_while(|_| carry(&mut bed) > 0).count();
        // Each round brings two copies, and so two moves at most.
        assert!((1..=MOST_MOVES as usize + 2).contains(&rounds), "{workers} workers: {rounds} rounds");
        assert_eq!(place(&bed, 1).as_deref(), Some("p0"), "it is where it was before");
        assert!(flapping(&bed) > 0);
        let copies = bed.received(3).len();
        assert!(copies <= 2 * MOST_MOVES as usize + 3, "a bystander got {copies} copies");
        bed.received(4);

        // Its station is found, and others exchange frames, while what it sends to all goes round.
        bed.send(0, &[frame(1, ALL, b"again")]);
        bed.settle();
        for number in 0..8_u8 {
            carry(&mut bed);
            bed.received(0);
            bed.send(4, &[frame(5, 1, &[number])]);
            bed.settle();
            assert_eq!(bed.received(0).pop(), Some(frame(5, 1, &[number])), "{workers} workers");
        }
        assert_eq!(carry(&mut bed), 0);
    }
}

/// Frames to one station do not go round, so they pass wherever they come from.
#[test]
fn one_who_moved_too_often_reaches_a_station_from_both_ports() {
    let mut bed = Bed::new(1, &[json!({}), json!({}), json!({}), json!({})]);
    bed.send(3, &[frame(4, ALL, b"I am four")]);
    bed.settle();
    (0..4).for_each(|port| drop(bed.received(port)));
    // As hosts do that use two links at once with one address.
    for number in 0..20_u8 {
        bed.send(1 + usize::from(number) % 2, &[frame(1, 4, &[number])]);
        bed.settle();
        assert_eq!(bed.received(3), [frame(1, 4, &[number])]);
    }
    assert_eq!(place(&bed, 1).as_deref(), Some("p1"));
    assert_eq!(bed.reach(3, &frame(4, 1, b"to where it was first")), [1]);
    assert_eq!(flapping(&bed), 0);
    // To all it sends from there only.
    assert_eq!(bed.reach(2, &frame(1, ALL, b"from the other port")), [0_usize; 0]);
    assert_eq!(bed.info(2).counters.drops.source_moves, 1);
    assert_eq!(bed.reach(1, &frame(1, ALL, b"from its port")), [0, 3], "the other is left out");
    let trace = |from: usize, to: u8| {
        let frame: String = frame(1, to, b"").iter().map(|byte| format!("{byte:02x}")).collect();
        bed.switch.trace(&TraceRequest { port: format!("p{from}"), frame }).expect("a trace")
    };
    let told = trace(2, ALL);
    assert_eq!((told.verdict, told.cause.as_deref()), (TraceVerdict::Drop, Some("source_moves")));
    assert!(told.steps.iter().any(|step| step.contains("stays behind p1 for now")), "{:?}", told.steps);
    assert_eq!(trace(2, 4).verdict, TraceVerdict::Forward);
    assert_eq!(trace(1, ALL).verdict, TraceVerdict::Flood);
}
