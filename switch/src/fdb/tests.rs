//! The table beside a map, and readers beside a writer.

use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use linecard_net::MacAddr;

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

/// A port that fills the table keeps nobody from being configured.
#[test]
fn what_is_configured_has_room_among_what_was_learned() {
    const ALL: u64 = 4096;
    let table = Table::with_secret(ALL as usize, 0x9e37_79b9_7f4a_7c15);
    for n in 0..ALL {
        table.tick(n as u32);
        assert_eq!(table.learn(Station::of(n, 0), behind(1)), Learned::New);
    }
    for n in ALL..2 * ALL {
        assert_eq!(table.set(Station::of(n, 0), 2), Learned::New, "{n}");
    }
    assert_eq!((table.len() as u64, table.count(1), u64::from(table.count(2))), (ALL, 0, ALL));
    assert_eq!(table.set(Station::of(2 * ALL, 0), 3), Learned::NoRoom, "none gives way to its like");
    assert_eq!((table.len() as u64, table.count(3)), (ALL, 0));
}

/// Ports that fill the table with addresses that they make up keep nobody from being learned, and lose nobody's.
#[test]
fn no_port_has_the_table_for_itself() {
    const ALL: u64 = 4096;
    let table = Table::with_secret(ALL as usize, 0x9e37_79b9_7f4a_7c15);
    let quiet = |n: u64| Station::of(1 << 40 | n, 0);
    for n in 0..10 {
        assert_eq!(table.learn(quiet(n), behind(7)), Learned::New);
    }
    // Four of them, each as fast as the other; the quiet one's addresses are the oldest.
    table.tick(100);
    let mut refused = 0;
    for n in 0..4 * ALL {
        refused += usize::from(table.learn(Station::of(n, 0), behind((n % 4) as u16)) == Learned::NoRoom);
    }
    assert!(table.len() as u64 == ALL && refused > 0, "{table:?}");
    for n in 10..100 {
        assert_eq!(table.learn(quiet(n), behind(7)), Learned::New, "{n}");
    }
    assert_eq!(table.set(quiet(100), 8), Learned::New);
    assert_eq!((table.len() as u64, table.count(7)), (ALL, 100));
    for n in 0..100 {
        assert_eq!(table.find(quiet(n)).map(|place| place.port), Some(7), "{n}");
    }
    // A port that has more than another gets nothing of that one.
    for n in 4 * ALL..8 * ALL {
        table.learn(Station::of(n, 0), behind((n % 4) as u16));
    }
    assert_eq!((table.count(7), table.count(8)), (100, 1));
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

/// What a table says of a station that is seen behind these ports, one after the other.
fn seen(table: &Table, station: Station, ports: &[u16]) -> Vec<Learned> {
    ports.iter().map(|port| table.learn(station, behind(*port))).collect()
}

#[test]
fn a_station_that_moves_too_often_stays_for_a_while() {
    use Learned::{Held, Known, Moved, New};
    let table = Table::with_secret(100, 3).holding();
    let [station, other] = [1, 2].map(|last| Station::new(MacAddr([2, 0, 0, 0, 0, last]), 7));
    assert_eq!(seen(&table, station, &[1, 2, 1, 2, 1, 2]), [New, Moved, Moved, Moved, Moved, Moved]);
    // It is where it was first; whoever else moves is free to.
    assert_eq!(seen(&table, station, &[1, 2, 1, 3]), [Moved, Held, Known, Held]);
    assert_eq!((table.find(station).map(|place| place.port), table.count(1), table.len()), (Some(1), 1, 1));
    assert_eq!(seen(&table, other, &[1, 2, 1]), [New, Moved, Moved]);
    let told = super::Held { station, home: 1, other: 2 };
    assert_eq!(table.look_at_held(), (vec![told], 1));
    assert_eq!(table.look_at_held(), (vec![], 0));
    // That it is seen there changes nothing of it, nor do seconds before the last.
    for second in [1, HOLD_SECONDS - 1] {
        table.tick(second);
        table.look_at_held();
        assert_eq!(seen(&table, station, &[1, 2]), [Known, Held]);
        assert_eq!(table.find(station).map(|place| place.seen), Some(second));
    }
    table.tick(HOLD_SECONDS);
    table.look_at_held();
    assert_eq!(seen(&table, station, &[2, 1, 2]), [Moved, Moved, Moved]);
    // A second later it may move as often again.
    table.tick(HOLD_SECONDS + 1);
    assert_eq!(
        seen(&table, station, &[1, 2, 1, 2, 1, 2, 1]),
        [Moved, Moved, Moved, Moved, Moved, Moved, Held]
    );
}

/// While this is held, nothing can be learned: who asks again and again what is known must not take it.
#[test]
fn the_lock_is_not_needed_to_look() {
    let table = Table::with_secret(100, 3);
    let station = Station::new(MacAddr([2, 0, 0, 0, 0, 1]), 7);
    assert_eq!(table.learn(station, behind(4)), Learned::New);
    let _writer = table.lock();
    assert_eq!(
        table.list().iter().map(|(known, place)| (*known, place.port)).collect::<Vec<_>>(),
        [(station, 4)]
    );
    assert_eq!((table.age(300), table.forget(|_, place| place.port == 5)), (0, 0));
    assert_eq!(
        (table.find(station).map(|place| place.port), table.refresh(station, 4)),
        (Some(4), Some(Learned::Known))
    );
}

#[test]
fn what_was_held_goes_as_any_other() {
    let table = Table::with_secret(100, 3).holding();
    let station = Station::new(MacAddr([2, 0, 0, 0, 0, 1]), 7);
    let hold = || {
        let last = seen(&table, station, &[1, 2, 1, 2, 1, 2, 1, 2]).pop();
        assert_eq!(last, Some(Learned::Held));
    };
    hold();
    assert!(table.unset(station) && table.is_empty());
    // It is as if it had never moved.
    hold();
    assert_eq!(table.forget(|_, place| place.port == 1), 1);
    hold();
    assert_eq!(table.set(station, 5), Learned::New);
    assert_eq!(seen(&table, station, &[5, 1]), [Learned::Known, Learned::Taken]);
    // No more stations are watched than the table has.
    let table = Table::with_secret(2, 3).holding();
    for last in 0..50 {
        let station = Station::new(MacAddr([2, 0, 0, 0, 0, last]), 7);
        seen(&table, station, &[1, 2, 1]);
        table.unset(station);
    }
    let moves = table.lock().moves.as_ref().map(|moves| moves.len());
    assert_eq!(moves, Some(0));
}

/// The number of a removed port may soon be that of another one.
#[test]
fn no_station_is_held_at_a_port_that_is_removed() {
    use Learned::{Held, Known, Moved, New};
    let table = Table::with_secret(100, 3).holding();
    let [moved, kept] = [1, 2].map(|last| Station::new(MacAddr([2, 0, 0, 0, 0, last]), 7));
    assert_eq!(seen(&table, moved, &[1, 2, 3, 2, 3, 2]), [New, Moved, Moved, Moved, Moved, Moved]);
    assert_eq!(seen(&table, kept, &[2, 1, 2, 1, 2, 1, 2]).last(), Some(&Moved));
    assert_eq!(table.kept_from(kept), Some(1));
    table.forget_port(1);
    assert_eq!(table.kept_from(kept), None);
    assert_eq!(seen(&table, kept, &[2, 3]), [Known, Moved]);
    // The port where it was first is 2 now.
    assert_eq!(seen(&table, moved, &[3, 2, 3, 2, 3]), [Moved, Moved, Moved, Moved, Moved]);
    assert_eq!(seen(&table, moved, &[2, 3]), [Moved, Held]);
    assert_eq!(table.find(moved).map(|place| place.port), Some(2));
    table.forget_port(2);
    assert_eq!((table.find(moved), table.count(2)), (None, 0));
}
