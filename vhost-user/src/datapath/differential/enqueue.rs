//! Transmit path: packets of any shape reach buffers of any shape as the same bytes on both sides.

use linecard_lab::contract::{Prng, batches, segmented};
use linecard_mempool::{Burst, Offload, Packet, Pool, TxOffload};
use linecard_pmd::offload::AcceptedOffloads;
use linecard_pmd::stats::QueueStats;
use linecard_virtio::{
    Completion, DeviceQueue, DriverConfig, DriverQueue, Element, Error, Layout, PeerFault, RingMemory,
    packed, split,
};

use super::Shape;
use super::side::{Guest, Harm, Places, Ring, pool};
use crate::datapath::EnqueuePath;
use crate::datapath::enqueue::Enqueue;
use crate::port::TxLoss;

/// Buffers that a driver makes available, and packets that are sent to it.
pub(super) struct Batch {
    pub(super) buffers: Vec<Vec<Element>>,
    pub(super) harm: Option<Harm>,
    packets: Vec<Plan>,
}

/// One packet to send.
struct Plan {
    /// The lengths of its segments in bytes.
    lengths: Vec<usize>,
    seed: u8,
    asks: Offload,
    segment: u16,
    protocol: u8,
}

impl Batch {
    pub(super) fn random(places: &mut Places, dice: &mut Prng) -> Self {
        let buffers = (0..dice.below(12)).map(|_| {
            let lengths: Vec<usize> = match dice.below(20) {
                0 => vec![dice.below(14)],
                1..4 => (0..dice.below(5) + 1).map(|_| dice.below(120)).collect(),
                4..8 => vec![12 + dice.below(100)],
                _ => vec![200 + dice.below(400)],
            };
            lengths.into_iter().map(|len| places.next(len, dice)).collect()
        });
        let buffers = buffers.collect();
        let packets = (0..dice.below(12)).map(|_| Plan::random(dice)).collect();
        Self { buffers, harm: dice.percent(5).then(|| Harm::random(dice)), packets }
    }
}

impl Batch {
    pub(super) fn assert_filled_alike(&self, guests: &[Guest; 2]) {
        for segments in &self.buffers {
            let [fast, slow] = guests.each_ref().map(|guest| guest.bytes_of(segments));
            assert_eq!(fast, slow, "{segments:?}, {:?}", self.harm);
        }
    }
}

impl Plan {
    fn random(dice: &mut Prng) -> Self {
        let lengths = match dice.below(20) {
            0 => vec![256; 9],
            1..4 => (0..dice.below(4) + 1).map(|_| dice.below(250)).collect(),
            4 => vec![0],
            _ => vec![14 + dice.below(242)],
        };
        let known = [
            Offload::TX_IPV4 | Offload::TX_TCP_CKSUM,
            Offload::TX_IPV4 | Offload::TX_UDP_CKSUM,
            Offload::TX_IPV4 | Offload::TX_TCP_SEG | Offload::TX_IP_CKSUM,
            Offload::RX_L4_CKSUM_NONE,
            Offload::from_bits_retain(dice.roll() as u32),
        ];
        let asks = if dice.percent(25) { known[dice.below(5)] } else { Offload::empty() };
        let protocol = if dice.percent(70) { 6 } else { 17 };
        Self { lengths, seed: dice.roll() as u8, asks, segment: dice.below(200) as u16, protocol }
    }

    fn make(&self, pool: &Pool) -> Packet {
        let mut packet = segmented(pool, &self.lengths, self.seed, self.protocol);
        packet.set_tx_offload(self.asks, TxOffload::new(14, 20, 20).with_tso_segsz(self.segment));
        packet
    }
}

/// The visible results of a batch.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// Packets that stayed with the sender.
    kept: usize,
    fault: Option<PeerFault>,
    returned: (Vec<Completion>, Option<PeerFault>),
    moved: (u64, u64),
    lost: Vec<u64>,
}

struct Side<'a, D, V, const MERGE: bool, const OFFLOAD: bool> {
    pool: &'a Pool,
    ring: Ring<D>,
    path: Enqueue<V, MERGE, OFFLOAD>,
    stats: QueueStats<TxLoss>,
    /// This side uses the slow path alone.
    plain: bool,
}

impl<D: DriverQueue, V: DeviceQueue, const MERGE: bool, const OFFLOAD: bool> Side<'_, D, V, MERGE, OFFLOAD> {
    fn run(&mut self, layout: Layout, batch: &Batch) -> Outcome {
        for (token, segments) in batch.buffers.iter().enumerate() {
            self.ring.add(segments, token as u64);
        }
        self.ring.driver.publish();
        if let Some(harm) = batch.harm {
            self.ring.spoil(layout, harm);
        }
        let mut burst = Burst::new();
        burst.fill_from(&mut batch.packets.iter().map(|plan| plan.make(self.pool)));
        let mut fault = None;
        // One more turn than there are packets: buffers returned as too short are not counted.
        for _ in 0..batch.packets.len() + 1 {
            let before = burst.len();
            let result = match self.plain {
                true => self.path.plain(&mut burst, &self.stats),
                false => self.path.burst(&mut burst, &self.stats),
            };
            let moved = result.map_or(0, |done| done.packets);
            assert_eq!(moved, before - burst.len(), "what is taken is counted");
            fault = result.err();
            if fault.is_some() {
                break;
            }
        }
        let totals = self.stats.totals();
        Outcome {
            kept: burst.len(),
            fault,
            returned: self.ring.collect(),
            moved: (totals.packets, totals.bytes),
            lost: [TxLoss::TooLong, TxLoss::BadOffload, TxLoss::RuntBuffer].map(|c| totals.lost(c)).into(),
        }
    }
}

/// Runs batches through both sides of one kind of ring.
fn compare<D: DriverQueue, V: DeviceQueue, const MERGE: bool, const OFFLOAD: bool>(
    layout: Layout,
    driver: impl Fn(&RingMemory, DriverConfig) -> Result<D, Error>,
    device: impl Fn(&RingMemory, linecard_virtio::DeviceConfig) -> Result<V, Error>,
) {
    let (pool, guests) = (pool(), [Guest::new(), Guest::new()]);
    let accepted = AcceptedOffloads { csum: OFFLOAD, tso4: OFFLOAD, ..AcceptedOffloads::default() };
    let (mut left, mut seed) = (batches(16), 0);
    let mut met = [0_u64; 3];
    while left > 0 {
        seed += 1;
        let mut dice = Prng::new(seed);
        let shape = Shape::random(layout, MERGE, &mut dice);
        let mut places = Places::new();
        let mut sides = [false, true].map(|plain| {
            let guest = &guests[usize::from(plain)];
            let ring = Ring::new(shape, guest, &driver);
            let queue = device(&ring.memory, Ring::<D>::device_config(shape)).expect("a device");
            let path =
                Enqueue::<V, MERGE, OFFLOAD>::new(queue, guest.map.clone(), shape.header, accepted, "");
            Side { pool: &pool, ring, path, stats: QueueStats::default(), plain }
        });
        for _ in 0..40.min(left) {
            left -= 1;
            let batch = Batch::random(&mut places, &mut dice);
            let [fast, slow] = sides.each_mut().map(|side| side.run(layout, &batch));
            assert_eq!(fast, slow, "run {seed} of {shape:?}: {:?}", batch.harm);
            batch.assert_filled_alike(&guests);
            met = [
                met[0] + fast.returned.0.len() as u64,
                met[1] + u64::from(fast.fault.is_some()),
                met[2].max(fast.lost[2]),
            ];
            if fast.fault.is_some() || fast.returned.1.is_some() {
                break;
            }
        }
        if seed % 16 == 0 || left == 0 {
            assert!(
                guests[0].image() == guests[1].image(),
                "memory beside the buffers, run {seed} of {shape:?}"
            );
        }
    }
    assert_eq!(pool.stats().in_use, 0);
    if batches(16) >= 1000 {
        assert!(met.iter().all(|count| *count > 0), "batches reach buffers, faults and runts: {met:?}");
    }
}

macro_rules! variants {
    ($($name:ident: $layout:ident $module:ident $order:literal $merge:literal $offload:literal;)*) => {
        $(#[test] fn $name() {
            compare::<_, _, $merge, $offload>(Layout::$layout, $module::Driver::<$order, true>::new, $module::Device::<$order, true>::new);
        })*
    };
}

variants! {
    split_alike: Split split false false false;
    split_offload_alike: Split split false false true;
    split_mergeable_alike: Split split false true false;
    split_mergeable_offload_alike: Split split false true true;
    split_in_order_alike: Split split true false false;
    split_in_order_offload_alike: Split split true false true;
    split_in_order_mergeable_alike: Split split true true false;
    split_in_order_mergeable_offload_alike: Split split true true true;
    packed_alike: Packed packed false false false;
    packed_offload_alike: Packed packed false false true;
    packed_mergeable_alike: Packed packed false true false;
    packed_mergeable_offload_alike: Packed packed false true true;
    packed_in_order_alike: Packed packed true false false;
    packed_in_order_offload_alike: Packed packed true false true;
    packed_in_order_mergeable_alike: Packed packed true true false;
    packed_in_order_mergeable_offload_alike: Packed packed true true true;
}
