//! A model of the address table with a plain map, which a test and the fuzzer run.

use std::collections::HashMap;

use linecard_net::MacAddr;

use crate::fdb::{Learned, LearningPort, Location, Station, Table};

/// One operation on a table.
///
/// ```
/// use linecard_switch::model::{Op, run};
/// run(8, 7, &[Op::Learn { station: 1, port: 2, limit: 4, fixed: false }, Op::Find { station: 1 }, Op::Tick, Op::Age { limit: 0 }]);
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// A frame is received.
    Learn {
        /// The station, one of 256.
        station: u8,
        /// The port.
        port: u8,
        /// The limit of the port.
        limit: u8,
        /// The port's stations are configured.
        fixed: bool,
    },
    /// A station is configured.
    Fix {
        /// The station.
        station: u8,
        /// The port.
        port: u8,
    },
    /// A station is looked up.
    Find {
        /// The station.
        station: u8,
    },
    /// A second passes.
    Tick,
    /// Old stations are removed.
    Age {
        /// The age limit, in seconds.
        limit: u8,
    },
    /// All stations of a port are removed, fixed ones too.
    Flush {
        /// The port.
        port: u8,
    },
}

impl Op {
    /// Decodes any four bytes.
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

/// The station with this number: one of two VLANs, and an address that differs in its first and last octets.
fn station(number: u8) -> Station {
    Station::new(MacAddr([number & 0xf0, 0, 0, 0, 0, number & 0x0f]), u16::from(number & 1) * 4095)
}

/// Applies `ops` to a table and to a map; panics if they differ.
///
/// A table may refuse a station because the few slots for it are taken, which a map never does. That is
/// allowed if the table has stations at all; the map then does without the station, too.
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
        // The map cannot tell more: no station within reach belongs to a port with more stations.
        assert!(!map.is_empty() && want == Learned::New, "{want:?}");
        return;
    }
    assert_eq!(learned, want);
    match learned {
        Learned::New | Learned::Moved => {
            // A station of a port that has more may have been replaced.
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
        // There is room among learned stations, if any is within reach.
        Learned::NoRoom => assert!(want == Learned::New && map.values().any(|place| place.fixed)),
        learned => assert_eq!(learned, want),
    }
    if want == Learned::New {
        map.insert(station, Location { port, fixed: true, seen: now });
        // A learned station may have been replaced, and the station itself removed if even that was not
        // enough.
        let before = map.len();
        map.retain(|other, place| {
            let there = table.find(*other).is_some();
            assert!(there || *other == station || !place.fixed, "a configured one gave way");
            there
        });
        assert!(before - map.len() <= 2, "more than one gave way");
    }
}
