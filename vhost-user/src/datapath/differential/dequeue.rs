//! Receive path: chains of any shape become the same packets on both sides.

use linecard_lab::contract::{Prng, batches};
use linecard_mempool::{Burst, Offload, Packet, PacketType, Pool, TxOffload};
use linecard_pmd::direct::{Frame, all};
use linecard_pmd::offload::AcceptedOffloads;
use linecard_pmd::stats::QueueStats;
use linecard_virtio::net::{GSO_NONE, NEEDS_CSUM, NetHeader};
use linecard_virtio::{
    Completion, DeviceQueue, DriverConfig, DriverQueue, Element, Error, Layout, PeerFault, RingMemory,
    packed, split,
};

use super::Shape;
use super::side::{Guest, Harm, LONGEST, Places, Ring, pool};
use crate::datapath::dequeue::Dequeue;
use crate::datapath::{DequeuePath, Done};
use crate::port::RxLoss;

/// A driver's transmit burst.
pub(super) struct Batch {
    pub(super) chains: Vec<(Vec<Element>, Vec<u8>)>,
    pub(super) harm: Option<Harm>,
}

impl Batch {
    pub(super) fn random(shape: Shape, places: &mut Places, dice: &mut Prng) -> Self {
        let chains = (0..dice.below(12)).map(|_| {
            let lengths: Vec<usize> = match dice.below(20) {
                0 => vec![dice.below(30)],
                1 => vec![300 + dice.below(LONGEST - 300)],
                2 => vec![LONGEST; 6],
                3..6 => (0..dice.below(6) + 1).map(|_| dice.below(150)).collect(),
                _ => vec![26 + dice.below(256)],
            };
            let segments: Vec<_> = lengths.into_iter().map(|len| places.next(len, dice)).collect();
            let bytes = content(shape, segments.iter().map(|s| s.len as usize).sum(), dice);
            (segments, bytes)
        });
        Self { chains: chains.collect(), harm: dice.percent(5).then(|| Harm::random(dice)) }
    }
}

/// A virtio header and the front of a frame. The rest of the buffer is not changed.
fn content(shape: Shape, len: usize, dice: &mut Prng) -> Vec<u8> {
    let header = match dice.below(8) {
        0 => NetHeader::from_bytes(std::array::from_fn(|_| dice.roll() as u8)),
        1 => NetHeader { flags: dice.below(8) as u8, ..NetHeader::default() },
        2 | 3 => NetHeader {
            flags: NEEDS_CSUM,
            gso_type: [GSO_NONE, 1, 4, 5][dice.below(4)],
            gso_size: dice.below(100) as u16,
            csum_start: [34, 54, dice.below(300) as u16][dice.below(3)],
            csum_offset: [6, 16, dice.below(30) as u16][dice.below(3)],
            ..NetHeader::default()
        },
        _ => NetHeader::default(),
    };
    let mut bytes = header.to_bytes()[..shape.header as usize].to_vec();
    bytes.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    bytes.extend(if dice.percent(50) { [8, 0, 0x45, 0] } else { [0x86, 0xdd, 0x60, 0] });
    bytes.extend((0..46).map(|_| dice.roll() as u8));
    // Lengths and protocols in the IP header, mostly correct.
    if dice.percent(70) {
        let total = len.saturating_sub(shape.header as usize + 14) as u16;
        let at = shape.header as usize + 14;
        bytes[at + 2..at + 4].copy_from_slice(&total.to_be_bytes());
        bytes[at + 6..at + 8].copy_from_slice(&[if dice.percent(50) { 6 } else { 0 }, 0]);
        bytes[at + 9] = if dice.percent(50) { 6 } else { 17 };
        bytes[at + 32] = 0x50;
    }
    bytes.truncate(len);
    bytes
}

/// A packet as its receiver sees it.
#[derive(Debug, PartialEq)]
struct Seen {
    segments: Vec<Vec<u8>>,
    metadata: (u16, Offload, TxOffload, PacketType, usize, usize),
}

impl Seen {
    fn of(packet: &Packet) -> Self {
        let room = (packet.headroom(), packet.tailroom());
        let (port, asks) = (packet.port(), packet.offload());
        Self {
            segments: packet.segments().map(|segment| segment.data().to_vec()).collect(),
            metadata: (port, asks, packet.tx_offload(), packet.packet_type(), room.0, room.1),
        }
    }
}

/// The visible results of a batch.
#[derive(Debug, PartialEq)]
struct Outcome {
    packets: Vec<Seen>,
    fault: Option<PeerFault>,
    returned: (Vec<Completion>, Option<PeerFault>),
    moved: (u64, u64),
    lost: Vec<u64>,
}

/// Compares two outcomes, and reports the first packet that differs.
fn assert_alike([fast, slow]: [&mut Outcome; 2], when: &dyn std::fmt::Display) {
    if fast != slow {
        let packets = std::mem::take(&mut fast.packets).into_iter().zip(std::mem::take(&mut slow.packets));
        let odd = packets.enumerate().find(|(_, (a, b))| a != b);
        panic!("{when}: {fast:?} and {slow:?}, packet {odd:?}");
    }
}

struct Side<'a, D, V, const OFFLOAD: bool> {
    pool: &'a Pool,
    guest: &'a Guest,
    ring: Ring<D>,
    path: Dequeue<V, OFFLOAD>,
    stats: QueueStats<RxLoss>,
    /// This side uses the slow path alone.
    plain: bool,
}

impl<D: DriverQueue, V: DeviceQueue, const OFFLOAD: bool> Side<'_, D, V, OFFLOAD> {
    fn run(&mut self, layout: Layout, batch: &Batch) -> Outcome {
        for (token, (segments, bytes)) in batch.chains.iter().enumerate() {
            self.guest.write(segments, bytes);
            self.ring.add(segments, token as u64);
        }
        self.ring.driver.publish();
        if let Some(harm) = batch.harm {
            self.ring.spoil(layout, harm);
        }
        let (mut packets, mut fault) = (Vec::new(), None);
        let mut burst = Burst::new();
        // More turns than a ring has chains: dropped chains are not counted as packets.
        for _ in 0..40 {
            let result = match self.plain {
                true => self.path.plain(&mut burst, self.pool, &self.stats),
                false => self.path.burst(&mut burst, self.pool, &self.stats),
            };
            let moved = result.map_or(0, |done| done.packets);
            assert_eq!(moved, burst.len(), "what is delivered is counted");
            packets.extend(burst.iter().map(Seen::of));
            burst.clear();
            fault = result.err();
            if fault.is_some() {
                break;
            }
        }
        let totals = self.stats.totals();
        Outcome {
            packets,
            fault,
            returned: self.ring.collect(),
            moved: (totals.packets, totals.bytes),
            lost: [RxLoss::NoBuffer, RxLoss::Runt, RxLoss::TooLong, RxLoss::BadOffload]
                .map(|c| totals.lost(c))
                .into(),
        }
    }
}

/// Runs batches through both sides of one kind of ring.
fn compare<D: DriverQueue, V: DeviceQueue, const OFFLOAD: bool>(
    (layout, in_order): (Layout, bool),
    driver: impl Fn(&RingMemory, DriverConfig) -> Result<D, Error>,
    device: impl Fn(&RingMemory, linecard_virtio::DeviceConfig) -> Result<V, Error>,
) {
    let (pool, guests) = (pool(), [Guest::new(), Guest::new()]);
    let all = AcceptedOffloads { csum: true, tso4: true, tso6: true, ecn: true, uso4: true, uso6: true };
    let accepted = if OFFLOAD { all } else { AcceptedOffloads::default() };
    let (mut left, mut seed) = (batches(8), 0);
    let mut met = [0_usize; 3];
    while left > 0 {
        seed += 1;
        let mut dice = Prng::new(seed);
        let shape = Shape::random(layout, false, &mut dice);
        let mut places = Places::new();
        let mut sides = [false, true].map(|plain| {
            let guest = &guests[usize::from(plain)];
            let ring = Ring::new(shape, guest, &driver);
            let queue = device(&ring.memory, Ring::<D>::device_config(shape)).expect("a device");
            let path = Dequeue::<V, OFFLOAD>::new(queue, guest.map.clone(), shape.header, accepted, "");
            Side { pool: &pool, guest, ring, path, stats: QueueStats::default(), plain }
        });
        for _ in 0..40.min(left) {
            left -= 1;
            let batch = Batch::random(shape, &mut places, &mut dice);
            let [mut fast, mut slow] = sides.each_mut().map(|side| side.run(layout, &batch));
            // In-order rings return a batch as one used element, and batches end with bursts, so a wrong id
            // returns more or fewer.
            let vague = in_order && batch.harm.is_some();
            if vague {
                slow.returned.clone_from(&fast.returned);
            }
            assert_alike([&mut fast, &mut slow], &format_args!("run {seed} of {shape:?}, {:?}", batch.harm));
            met[0] += fast.packets.len();
            met[1] += usize::from(fast.fault.is_some());
            met[2] += fast.packets.iter().filter(|packet| packet.segments.len() > 1).count();
            if fast.fault.is_some() || fast.returned.1.is_some() || vague {
                break;
            }
        }
    }
    assert_eq!(pool.stats().in_use, 0);
    if batches(8) >= 1000 {
        assert!(met.iter().all(|count| *count > 0), "batches reach packets, faults and chains: {met:?}");
    }
}

/// A chain that arrives during a burst that found nothing.
fn comes_late<D: DriverQueue, V: DeviceQueue>(
    layout: Layout,
    driver: impl Fn(&RingMemory, DriverConfig) -> Result<D, Error>,
    device: impl Fn(&RingMemory, linecard_virtio::DeviceConfig) -> Result<V, Error>,
) {
    let (pool, guest, stats) = (pool(), Guest::new(), QueueStats::default());
    let base = if layout == Layout::Packed { 0x8000_8000 } else { 0 };
    let shape = Shape { layout, size: 8, base, indirect: 0, header: 12 };
    let mut ring = Ring::new(shape, &guest, driver);
    let queue = device(&ring.memory, Ring::<D>::device_config(shape)).expect("a device");
    let mut path = Dequeue::<V, false>::new(queue, guest.map.clone(), 12, AcceptedOffloads::default(), "");
    let (mut places, mut dice, mut burst) = (Places::new(), Prng::new(1), Burst::new());
    let mut send = |ring: &mut Ring<D>, lengths: &[usize]| {
        let segments: Vec<_> = lengths.iter().map(|len| places.next(*len, &mut dice)).collect();
        ring.add(&segments, 0);
        ring.driver.publish();
    };
    let moved = |done: Result<Done, PeerFault>| done.expect("nothing is wrong").packets;

    // A plain chain is left, and shown to the next burst's sink.
    send(&mut ring, &[12 + 200]);
    assert_eq!(moved(path.finish(0, &mut burst, &pool, &stats)), 0, "{layout:?}");
    assert!(burst.is_empty());
    let mut shown = 0;
    let mut sink = |frames: &[Frame<'_>]| {
        shown += frames.len();
        all(frames.len())
    };
    assert_eq!(moved(path.direct(&mut burst, &pool, &stats, &mut sink)), 1);
    assert_eq!((shown, burst.len()), (1, 0), "{layout:?}");
    // Other chains are received at once.
    send(&mut ring, &[12 + 100, 300]);
    assert_eq!(moved(path.finish(0, &mut burst, &pool, &stats)), 1);
    assert_eq!(burst.len(), 1, "{layout:?}");
    // So are plain chains if bursts do not use the fast path.
    path.most = 0;
    send(&mut ring, &[12 + 200]);
    assert_eq!(moved(path.burst(&mut burst, &pool, &stats)), 1, "{layout:?}");
    send(&mut ring, &[12 + 200]);
    assert_eq!(moved(path.direct(&mut burst, &pool, &stats, &mut |frames| all(frames.len()))), 1);
    assert_eq!(burst.len(), 3, "{layout:?}");
}

#[test]
fn a_plain_chain_that_comes_at_the_end_of_a_burst_takes_the_way_of_plain_ones() {
    comes_late(Layout::Split, split::Driver::<false, false>::new, split::Device::<false, false>::new);
    comes_late(Layout::Split, split::Driver::<true, false>::new, split::Device::<true, false>::new);
    comes_late(Layout::Packed, packed::Driver::<false, false>::new, packed::Device::<false, false>::new);
    comes_late(Layout::Packed, packed::Driver::<true, false>::new, packed::Device::<true, false>::new);
}

macro_rules! variants {
    ($($name:ident: $layout:ident $module:ident $order:literal $offload:literal;)*) => {
        $(#[test] fn $name() {
            compare::<_, _, $offload>((Layout::$layout, $order), $module::Driver::<$order, false>::new, $module::Device::<$order, false>::new);
        })*
    };
}

variants! {
    split_alike: Split split false false;
    split_offload_alike: Split split false true;
    split_in_order_alike: Split split true false;
    split_in_order_offload_alike: Split split true true;
    packed_alike: Packed packed false false;
    packed_offload_alike: Packed packed false true;
    packed_in_order_alike: Packed packed true false;
    packed_in_order_offload_alike: Packed packed true true;
}
