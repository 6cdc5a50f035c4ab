//! The way of shown frames against that of packets: random frames between ports of all kinds go both ways, and nobody can tell
//! which.

use std::sync::{Arc, Mutex};

use crossbeam::queue::ArrayQueue;
use linecard_eal::wake::Wake;
use linecard_eal::{Memory, MemoryConfig, PagePolicy};
use linecard_mempool::{Packet, Pool, PoolConfig};
use linecard_pmd::TxQueue;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::api::{DropCounters, PortSpec};
use crate::fdb::{Station, Table};
use crate::forward::Inbox;
use crate::port::{Common, Losses, WorkerPort};
use crate::rules::{Defaults, Rules};

/// What a port sent, and what it still takes.
#[derive(Default)]
struct Log {
    frames: Vec<Vec<u8>>,
    room: usize,
    /// Frames that were not packets.
    direct: usize,
}

struct Out {
    log: Arc<Mutex<Log>>,
    packets_only: bool,
}

impl TxQueue for Out {
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        let mut log = self.log.lock().expect("whole");
        let taken = packets.len().min(log.room);
        log.room -= taken;
        log.frames.extend(packets.drain(..taken).map(|packet| packet.to_bytes().to_vec()));
        taken
    }

    fn tx_direct(&mut self, frames: &[Frame<'_>]) -> Option<usize> {
        if self.packets_only {
            return None;
        }
        let mut log = self.log.lock().expect("whole");
        let taken = frames.len().min(log.room);
        log.room -= taken;
        log.direct += taken;
        log.frames.extend(frames[..taken].iter().map(|frame| frame.to_vec()));
        Some(taken)
    }

    fn path(&self) -> &'static str {
        "log"
    }
}

/// Ports of every kind. The table of one worker: two of them are another's.
fn specs() -> Vec<Value> {
    vec![
        json!({}),
        json!({}),
        json!({"mac": "02:00:00:00:00:02", "ips": ["10.0.0.2", "fd00::2"]}),
        json!({"mac": "02:00:00:00:00:03", "ips": ["10.0.0.3"]}),
        json!({"isolated": true, "max_macs": 3}),
        json!({"isolated": true}),
        json!({"rate": {"bits_per_second": 80_000_000, "burst_bytes": 20_000}}),
        json!({"flood_rate": 40, "broadcast_rate": 10}),
        json!({"mtu": 600}),
        json!({"vlan": {"access": 10}}),
        json!({"vlan": {"access": 10}}),
        json!({"vlan": {"trunk": {"vlans": [10, 20], "native": 10}}}),
        json!({"vlan": {"trunk": {"vlans": [10, 20]}}}),
    ]
}

/// One switch with one worker.
struct Bed {
    engine: Engine,
    logs: Vec<Arc<Mutex<Log>>>,
    losses: Vec<Arc<Losses>>,
    inbox: Arc<ArrayQueue<Packet>>,
    pool: Pool,
}

impl Bed {
    fn new(packets_only: u16, away: u16) -> Self {
        let config = MemoryConfig::default().pages(PagePolicy::NoHuge);
        let domain = Memory::new(config).expect("memory").domain("packets").expect("a domain");
        let pool = PoolConfig::default().packets(2048).cache(0);
        let pool = Pool::new(&domain, pool).expect("a pool");
        let inbox = Inbox { packets: Arc::new(ArrayQueue::new(4096)), wake: Arc::new(Wake::new()) };
        let packets = Arc::clone(&inbox.packets);
        let table = Arc::new(Table::with_secret(1000, 7));
        let mut engine = Engine::new(Arc::clone(&table), vec![inbox], true);
        let (mut logs, mut losses) = (Vec::new(), Vec::new());
        for (port, more) in (0..).zip(specs()) {
            let mut whole = json!({"key": "k", "type": "vdev", "device": "net_null0"});
            whole.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            let spec = PortSpec::read(whole).expect("it makes sense");
            let rules = Rules::of(&spec, Defaults::default()).expect("it makes sense");
            if let Some(mac) = rules.mac {
                table.set(Station::of(mac, rules.home_vlan()), port);
            }
            let (log, lost) = (Arc::<Mutex<Log>>::default(), Arc::<Losses>::default());
            let out = Out { log: Arc::clone(&log), packets_only: packets_only >> port & 1 != 0 };
            let egress = if away >> port & 1 != 0 { Egress::Through(0) } else { Egress::Own(Box::new(out)) };
            let up = Arc::new(std::sync::atomic::AtomicBool::new(port % 4 != 3));
            if let Some(neighbours) = &mut engine.neighbours {
                neighbours.add(port, &rules);
            }
            engine.worker_ports.push(Some(WorkerPort::new(Common::of(rules, up), Arc::clone(&lost), egress)));
            logs.push(log);
            losses.push(lost);
        }
        Self { engine, logs, losses, inbox: packets, pool }
    }

    fn packet(&self, bytes: &[u8]) -> Packet {
        let mut packet = self.pool.get().expect("a packet");
        packet.copy_from_slice(bytes).unwrap();
        packet
    }

    /// One burst, as a queue would bring it.
    fn burst(&mut self, round: &Round, shown: bool) {
        self.engine.now = round.now;
        self.logs.iter().for_each(|log| log.lock().expect("whole").room = round.room);
        let mut packets = Burst::new();
        if shown {
            let frames: Vec<_> = round.frames.iter().map(|bytes| Frame::of(bytes)).collect();
            let dealt_with = self.engine.direct(round.port, &frames);
            for (at, bytes) in round.frames.iter().enumerate() {
                if dealt_with >> at & 1 == 0 {
                    packets.push(self.packet(bytes)).expect("room");
                }
            }
            if !packets.is_empty() {
                self.engine.forward_decided(round.port, &mut packets);
            }
        } else {
            for bytes in &round.frames {
                packets.push(self.packet(bytes)).expect("room");
            }
            self.engine.forward(round.port, &mut packets);
        }
        assert!(packets.is_empty());
        self.engine.flush();
    }

    /// What came out since it was asked last, all that was lost so far, and how many addresses are known.
    fn outcome(&mut self) -> Outcome {
        let frames = self.logs.iter().map(|log| std::mem::take(&mut log.lock().expect("whole").frames));
        let drops = self.losses.iter().map(|losses| {
            let mut sum = DropCounters::default();
            losses.add_to(&mut sum);
            sum
        });
        let known = (0..self.logs.len() as u16).map(|port| self.engine.table.count(port));
        let others = std::iter::from_fn(|| self.inbox.pop());
        let others = others.map(|packet| (packet.port(), packet.to_bytes().to_vec())).collect();
        Outcome { frames: frames.collect(), drops: drops.collect(), known: known.collect(), others }
    }

    fn direct(&self) -> usize {
        self.logs.iter().map(|log| log.lock().expect("whole").direct).sum()
    }
}

/// What can be told of a round; by port.
#[derive(Debug, PartialEq)]
struct Outcome {
    frames: Vec<Vec<Vec<u8>>>,
    drops: Vec<DropCounters>,
    known: Vec<u32>,
    /// Left for another worker.
    others: Vec<(u16, Vec<u8>)>,
}

/// One burst that comes from one port.
#[derive(Clone, Debug)]
struct Round {
    port: u16,
    frames: Vec<Vec<u8>>,
    /// Frames that each port takes.
    room: usize,
    now: u64,
}

/// A frame's header and the first bytes behind it.
fn head(from: u8, to: u8, tag: Option<u16>, kind: u8) -> Vec<u8> {
    let address = |number| if number == 0 { [0xff; 6] } else { [2, 0, 0, 0, 0, number] };
    let tag = tag.map(|vlan| [[0x81, 0], vlan.to_be_bytes()].concat()).unwrap_or_default();
    let ipv6 = |next: u8, rest: &[u8]| {
        let source = [[0xfd].as_slice(), &[0; 14], &[from]].concat();
        [&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, next, 64][..], &source, &[0; 16], rest].concat()
    };
    let advertisement = [&[136, 0, 0, 0, 0, 0, 0, 0, 0xfd][..], &[0; 14], &[to]].concat();
    let body = match kind {
        0 => vec![
            8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, from, 10, 0, 0, from, 0, 0, 0, 0, 0, 0, 10, 0, 0, to,
        ],
        1 => [&[8, 0, 0x45][..], &[0; 11], &[10, 0, 0, from, 10, 0, 0, to]].concat(),
        2 => ipv6(58, &advertisement),
        // An extension header of 200 bytes hides what is behind it from who sees the front only.
        3 => ipv6(0, &[&[58, 24, 1, 4][..], &[0; 196], &advertisement].concat()),
        _ => vec![0x88, 0xb5],
    };
    [&address(to)[..], &address(from), &tag, &body].concat()
}

/// Who sends, to whom, in which VLAN, what, and how long each frame is.
type Run = (Option<u8>, u8, Option<u16>, u8, Vec<usize>);

fn rounds() -> impl Strategy<Value = Vec<Round>> {
    let len = prop_oneof![14..130_usize, 128..700_usize, 1400..1530_usize];
    // One header for a run of frames; the stations' numbers are those of the ports, mostly.
    let run = (
        prop_oneof![4 => Just(None), 1 => (1..16_u8).prop_map(Some)],
        0..16_u8,
        prop_oneof![3 => Just(None), 1 => prop_oneof![Just(10_u16), Just(20), Just(30)].prop_map(Some)],
        0..8_u8,
        prop::collection::vec(len, 1..20),
    );
    let round = (
        0..13_u16,
        prop::collection::vec(run, 1..6),
        prop_oneof![3 => Just(64_usize), 1 => 0..20_usize],
        0..2_000_000_u64,
    );
    prop::collection::vec(round, 1..40).prop_map(|rounds| {
        let mut now = 0;
        let make = |(port, runs, room, step): (u16, Vec<Run>, usize, u64)| {
            now += step;
            let mut frames = Vec::new();
            for (from, to, tag, kind, lengths) in runs {
                let front = head(from.unwrap_or(port.to_le_bytes()[0]), to, tag, kind);
                for len in lengths {
                    let mut bytes: Vec<u8> = front.clone();
                    bytes.resize(len, frames.len() as u8);
                    frames.push(bytes);
                }
            }
            frames.truncate(BURST);
            Round { port, frames, room, now }
        };
        rounds.into_iter().map(make).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn nobody_can_tell_which_way_frames_went(rounds in rounds(), packets_only in 0..0x1fff_u16, away in 0..0x1fff_u16) {
        // Fewer of the odd ones.
        let (packets_only, away) = (packets_only & packets_only >> 3, away & away >> 2);
        let [mut shown, mut packets] = [packets_only, 0].map(|only| Bed::new(only, away));
        for (at, round) in rounds.iter().enumerate() {
            shown.burst(round, true);
            packets.burst(round, false);
            prop_assert_eq!(shown.outcome(), packets.outcome(), "round {}: {:?}", at, round);
        }
        prop_assert_eq!(packets.direct(), 0);
        prop_assert_eq!(shown.pool.stats().in_use, 0);
    }
}

/// What is known goes straight, and what is not does not.
#[test]
fn known_stations_are_reached_without_packets() {
    let mut bed = Bed::new(0, 0);
    let round = |port: u16, from, to, count| Round {
        port,
        frames: (0..count).map(|n| [head(from, to, None, 9), vec![n; 500]].concat()).collect(),
        room: 64,
        now: 0,
    };
    bed.burst(&round(0, 20, 0, 3), true);
    assert_eq!(bed.direct(), 0, "to all");
    bed.burst(&round(1, 21, 20, 60), true);
    assert_eq!(bed.direct(), 60);
    // To two stations in turn, one of which is not known.
    let mut mixed = round(0, 20, 21, 4);
    mixed.frames.extend(round(0, 20, 2, 4).frames);
    mixed.frames.rotate_left(2);
    bed.burst(&mixed, true);
    assert_eq!(bed.direct(), 68);
    mixed.frames.extend(round(0, 20, 30, 1).frames);
    mixed.frames.extend(round(0, 20, 21, 1).frames);
    bed.burst(&mixed, true);
    assert_eq!(bed.direct(), 76, "what is behind a frame to all becomes a packet");
    let counted: u64 = bed.losses.iter().map(|losses| losses.straight()).sum();
    assert_eq!(counted, 76, "and each port counts those that it got so");
}

/// A frame that another worker left for a port whose queue has gone to a third goes on to that one, and one for a port that is gone
/// harms nobody.
#[test]
fn what_is_left_for_a_port_without_a_queue_is_passed_on() {
    let mut bed = Bed::new(0, 0b10);
    let left = ArrayQueue::new(8);
    for to in [1, 2, 400] {
        let mut packet = bed.packet(&head(20, 21, None, 9));
        packet.set_port(to);
        assert!(left.push(packet).is_ok());
    }
    bed.logs[2].lock().expect("whole").room = 1;
    assert_eq!(bed.engine.collect(&left), 3);
    bed.engine.flush();
    assert_eq!((bed.inbox.len(), bed.inbox.pop().map(|packet| packet.port())), (1, Some(1)));
    let outcome = bed.outcome();
    assert_eq!((outcome.drops[1].total(), outcome.drops[2].total(), outcome.frames[2].len()), (0, 0, 1));
}

/// Whichever worker has the queue of a port, the same frames are too long for it once they have their tag.
#[test]
fn a_frame_is_measured_with_the_tag_that_it_gets() {
    const ACCESS: u16 = 9;
    const TRUNK: u16 = 12;
    let frames = [1514, 1515, 1518].map(|len| {
        let mut frame = head(20, 0, None, 9);
        frame.resize(len, 0);
        frame
    });
    let round = Round { port: ACCESS, frames: frames.to_vec(), room: 64, now: 0 };
    let (mut here, mut there) = (Bed::new(0, 0), Bed::new(0, 1 << TRUNK));
    here.burst(&round, false);
    there.burst(&round, false);
    let mut other = Bed::new(0, 0);
    other.logs[usize::from(TRUNK)].lock().expect("whole").room = 64;
    other.engine.collect(&there.inbox);
    other.engine.flush();
    for mut bed in [here, other] {
        let sent: Vec<usize> = bed.outcome().frames[usize::from(TRUNK)].iter().map(Vec::len).collect();
        assert_eq!(sent, [1518]);
    }
}
