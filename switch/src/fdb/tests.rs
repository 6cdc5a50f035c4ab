//! The table beside a map, and readers beside a writer.

use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::*;
use crate::model::{Op, run};

fn op() -> impl Strategy<Value = Op> {
    // Few ports and many of the same stations, so that they meet.
    let (station, port) = (0_u8..48, 0_u8..5);
    prop_oneof![
        6 => (station.clone(), port.clone(), 0_u8..12, prop::bool::weighted(0.2))
            .prop_map(|(station, port, limit, fixed)| Op::Learn { station, port, limit, fixed }),
        1 => (station.clone(), port.clone()).prop_map(|(station, port)| Op::Fix { station, port }),
        3 => station.prop_map(|station| Op::Find { station }),
        1 => Just(Op::Tick),
        1 => (0_u8..4).prop_map(|limit| Op::Age { limit }),
        1 => port.prop_map(|port| Op::Flush { port }),
    ]
}

fn behind(port: u16) -> LearningPort {
    LearningPort { port, limit: u32::MAX, fixed: false }
}

proptest! {
    #[test]
    fn agrees_with_a_map(capacity in 1_u8..40, secret: u64, ops in prop::collection::vec(op(), 0..200)) {
        run(capacity, secret, &ops);
    }
}

#[test]
fn as_many_stations_as_promised_fit() {
    let table = Table::with_secret(10_000, 0x9e37_79b9_7f4a_7c15);
    let station = |n: u32| {
        let [a, b, c, d] = n.to_be_bytes();
        Station::new(MacAddr([2, 0, a, b, c, d]), 0)
    };
    let full =
        (0..10_000).filter(|n| table.learn(station(*n), behind((n % 64) as u16)) != Learned::New).count();
    assert_eq!((full, table.len()), (0, 10_000));
    assert_eq!(table.learn(station(10_000), behind(0)), Learned::NoRoom);
    assert!((0..10_000).all(|n| table.find(station(n)).is_some_and(|place| place.port == (n % 64) as u16)));
}

/// A station that always is behind a port of its own is never found behind another's, whatever comes and goes beside it.
#[test]
fn a_reader_never_sees_a_neighbours_port() {
    const STATIONS: u16 = 48;
    let table = Table::with_secret(16, 5);
    let station = |n: u16| Station::new(MacAddr([2, 0, 0, 0, 0, n as u8]), n);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut seen = 0_u64;
                while !done.load(Ordering::Relaxed) {
                    for n in 0..STATIONS {
                        if let Some(place) = table.find(station(n)) {
                            assert_eq!(place.port, n);
                            seen += 1;
                        }
                    }
                }
                seen
            });
        }
        for round in 0..20_000_u32 {
            let n = (round % u32::from(STATIONS)) as u16;
            table.learn(station(n), behind(n));
            if round % 3 == 0 {
                let old = (n + STATIONS / 2) % STATIONS;
                table.forget(|_, place| place.port == old);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_locked_table_is_not_waited_for() {
    let table = Table::new(16);
    let station = Station::new(MacAddr([2, 0, 0, 0, 0, 1]), 0);
    let lock = table.lock();
    assert_eq!(table.learn(station, behind(1)), Learned::Busy);
    drop(lock);
    assert_eq!(table.learn(station, behind(1)), Learned::New);
}

#[test]
fn a_station_is_set_and_unset_by_hand() {
    let table = Table::new(10);
    let station = Station::of(0x0200_0000_0001, 7);
    let learned = LearningPort { port: 1, limit: 10, fixed: false };
    assert_eq!(table.learn(station, learned), Learned::New);
    assert_eq!(table.set(station, 2), Learned::New, "what was learned gives way");
    assert_eq!(table.set(station, 2), Learned::Known);
    assert_eq!(table.set(station, 3), Learned::Taken);
    assert_eq!(table.learn(station, learned), Learned::Taken);
    assert_eq!((table.count(1), table.count(2), table.age(0)), (0, 1, 0));
    assert!(table.unset(station) && !table.unset(station));
    assert_eq!((table.find(station), table.len(), table.count(2)), (None, 0, 0));
}

#[test]
fn a_successor_has_what_its_predecessor_had() {
    let (old, new) = (Table::with_secret(100, 1), Table::with_secret(100, 7));
    let station = |n: u8| Station::new(MacAddr([2, 0, 0, 0, 0, n]), u16::from(n % 3));
    old.tick(5);
    for n in 0..20 {
        old.learn(station(n), LearningPort { port: u16::from(n % 4), limit: 100, fixed: n % 5 == 0 });
        old.tick(5 + u32::from(n));
    }
    old.start_journal();
    new.tick(100);
    for (station, place) in old.list() {
        let (station, place) = (station.to_wire(), place.to_wire());
        let station = Station::from_wire(station).expect("a station");
        assert!(new.restore(station, Location::from_wire(place).expect("a place")));
    }
    // What comes, moves and goes meanwhile is noted.
    old.learn(station(50), LearningPort { port: 3, limit: 100, fixed: false });
    old.learn(station(1), LearningPort { port: 2, limit: 100, fixed: false });
    old.unset(station(2));
    old.unset(station(50));
    old.learn(station(50), LearningPort { port: 1, limit: 100, fixed: false });
    for (station, place) in old.end_journal() {
        match place {
            Some(place) => assert!(new.restore(station, place)),
            None => {
                new.unset(station);
            }
        }
    }
    let all = |table: &Table| table.list().into_iter().collect::<std::collections::HashMap<_, _>>();
    assert_eq!(all(&new), all(&old));
    assert_eq!(new.len(), old.len());
    for port in 0..4 {
        assert_eq!(new.count(port), old.count(port), "port {port}");
    }
    assert!(old.end_journal().is_empty(), "nobody wants to know any more");
}

#[test]
fn what_is_no_station_or_place_is_told() {
    let station = Station::new(MacAddr([2, 0, 0, 0, 0, 1]), 7).to_wire();
    let place = Location { port: 3, fixed: true, seen: u32::MAX }.to_wire();
    assert!(Station::from_wire(station).is_some() && Location::from_wire(place).is_some());
    for bit in 12..16 {
        assert_eq!(Station::from_wire(station ^ 1 << bit), None, "bit {bit}");
    }
    for bit in 32..47 {
        assert_eq!(Location::from_wire(place ^ 1 << bit), None, "bit {bit}");
    }
}

/// Whoever reads how many there are keeps nobody from learning, and who learns does not wait for a writer.
#[test]
fn counts_are_read_while_somebody_writes() {
    let table = Table::with_secret(10, 1);
    let (one, two) = (Station::of(1, 0), Station::of(2, 0));
    let behind = LearningPort { port: 7, limit: 10, fixed: false };
    assert_eq!(table.learn(one, behind), Learned::New);
    let writer = table.lock();
    assert_eq!((table.count(7), table.count(8), table.len()), (1, 0, 1));
    assert_eq!(table.learn(two, behind), Learned::Busy);
    drop(writer);
    assert_eq!(table.learn(two, behind), Learned::New);
    assert_eq!((table.count(7), table.len()), (2, 2));
}
