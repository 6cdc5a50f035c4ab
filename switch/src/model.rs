//! The table of addresses beside a plain map: what a test and the fuzzer drive.

use std::collections::HashMap;

use linecard_net::MacAddr;

use crate::fdb::{Learned, LearningPort, Location, Station, Table};

/// One thing that happens to a table.
///
/// ```
/// use linecard_switch::model::{Op, run};
/// run(8, 7, &[Op::Learn { station: 1, port: 2, limit: 4, fixed: false }, Op::Find { station: 1 }, Op::Tick, Op::Age { limit: 0 }]);
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// A frame came.
    Learn {
        /// Which of 256 stations.
        station: u8,
        /// Where.
        port: u8,
        /// How many it may have.
        limit: u8,
        /// They are configured.
        fixed: bool,
    },
    /// A station is configured.
    Fix {
        /// Which.
        station: u8,
        /// Where.
        port: u8,
    },
    /// A station is looked for.
    Find {
        /// Which.
        station: u8,
    },
    /// A second passes.
    Tick,
    /// What is old goes.
    Age {
        /// Older than this.
        limit: u8,
    },
    /// A port's stations go, fixed ones too.
    Flush {
        /// Whose.
        port: u8,
    },
}

impl Op {
    /// Any four bytes are one.
    ///
    /// ```
    /// use linecard_switch::model::Op;
    /// assert!(matches!(Op::from_bytes([7, 1, 2, 3]), Op::Tick));
    /// ```
    #[must_use]
    pub fn from_bytes([what, station, port, more]: [u8; 4]) -> Self {
        match what % 10 {
            0..4 => Self::Learn { station, port: port % 8, limit: more, fixed: what >= 200 },
            4 => Self::Fix { station, port: port % 8 },
            5 | 6 => Self::Find { station },
            7 => Self::Tick,
            8 => Self::Age { limit: more % 8 },
            _ => Self::Flush { port: port % 8 },
        }
    }
}

/// Numbers as stations: two VLANs, addresses that differ in their first and last octets.
fn station(number: u8) -> Station {
    Station::new(MacAddr([number & 0xf0, 0, 0, 0, 0, number & 0x0f]), u16::from(number & 1) * 4095)
}

/// Does `ops` to a table and to a map; panics where they differ.
///
/// A table may refuse a station because the few places for it are taken, which a map never does: that is allowed when it has
/// stations at all, and then the map does without, too.
pub fn run(capacity: u8, secret: u64, ops: &[Op]) {
    let table = Table::with_secret(capacity.into(), secret);
    let mut map: HashMap<Station, Location> = HashMap::new();
    let mut now = 0;
    for op in ops {
        match *op {
            Op::Learn { station: number, port, limit, fixed } => {
                let behind = LearningPort { port: port.into(), limit: limit.into(), fixed };
                learn(&table, &mut map, (station(number), behind), now);
            }
            Op::Fix { station: number, port } => fix(&table, &mut map, (station(number), port.into()), now),
            Op::Find { station: number } => {
                assert_eq!(table.find(station(number)), map.get(&station(number)).copied());
            }
            Op::Tick => {
                now += 1;
                table.tick(now);
            }
            Op::Age { limit } => {
                let before = map.len();
                map.retain(|_, place| place.fixed || now - place.seen <= limit.into());
                assert_eq!(table.age(limit.into()), before - map.len());
            }
            Op::Flush { port } => {
                let before = map.len();
                map.retain(|_, place| place.port != u16::from(port));
                assert_eq!(table.forget(|_, place| place.port == u16::from(port)), before - map.len());
            }
        }
        assert_eq!(table.len(), map.len());
    }
    let listed: HashMap<_, _> = table.list().into_iter().collect();
    assert_eq!(listed, map);
    for place in map.values() {
        let behind = map.values().filter(|other| other.port == place.port).count();
        assert_eq!(table.count(place.port) as usize, behind);
    }
}

fn learn(table: &Table, map: &mut HashMap<Station, Location>, what: (Station, LearningPort), now: u32) {
    let (station, behind @ LearningPort { port, limit, fixed }) = what;
    let behind_port =
        |map: &HashMap<Station, Location>, port| map.values().filter(|place| place.port == port).count();
    let count = behind_port(map, port);
    let want = match map.get(&station) {
        Some(place) if place.port == port => Learned::Known,
        Some(place) if place.fixed => Learned::Taken,
        _ if count >= limit as usize => Learned::Full,
        Some(_) => Learned::Moved,
        None => Learned::New,
    };
    let learned = table.learn(station, behind);
    if learned == Learned::NoRoom {
        // As far as a map can tell there is; nobody near enough has more.
        assert!(!map.is_empty() && want == Learned::New, "{want:?}");
        return;
    }
    assert_eq!(learned, want);
    match learned {
        Learned::New | Learned::Moved => {
            // One of a port that has more may have given way.
            let gone: Vec<_> = map.keys().copied().filter(|other| table.find(*other).is_none()).collect();
            assert!(gone.len() <= usize::from(learned == Learned::New), "more than one gave way");
            for other in gone {
                let more = map
                    .get(&other)
                    .is_some_and(|place| !place.fixed && (fixed || behind_port(map, place.port) > count));
                assert!(more, "one gave way for nothing");
                map.remove(&other);
            }
            map.insert(station, Location { port, fixed, seen: now });
        }
        Learned::Known => {
            map.entry(station).and_modify(|place| place.seen = now);
        }
        _ => {}
    }
}

fn fix(table: &Table, map: &mut HashMap<Station, Location>, (station, port): (Station, u16), now: u32) {
    let want = match map.get(&station) {
        Some(place) if place.fixed && place.port == port => Learned::Known,
        Some(place) if place.fixed => Learned::Taken,
        _ => Learned::New,
    };
    match table.set(station, port) {
        // There is room among learned ones, if any is near enough.
        Learned::NoRoom => assert!(want == Learned::New && map.values().any(|place| place.fixed)),
        learned => assert_eq!(learned, want),
    }
    if want == Learned::New {
        map.insert(station, Location { port, fixed: true, seen: now });
        // One that was learned may have given way, and the station itself where even that was of no use.
        let before = map.len();
        map.retain(|other, place| {
            let there = table.find(*other).is_some();
            assert!(there || *other == station || !place.fixed, "a configured one gave way");
            there
        });
        assert!(before - map.len() <= 2, "more than one gave way");
    }
}
