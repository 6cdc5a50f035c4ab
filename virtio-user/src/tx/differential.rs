//! Compares the loop for plain packets with the slow path: a backend must not see a difference.

use std::sync::Arc;

use linecard_lab::contract::{Prng, batches, segmented};
use linecard_mempool::{Burst, Offload, Packet, Pool, TxOffload};
use linecard_pmd::offload::AcceptedOffloads;
use linecard_virtio::{DriverConfig, DriverQueue, Error, Features, Lookahead, RingMemory, packed, split};

use super::{LONGEST, Tx, TxOutcome, TxParts, TxPath, line_of};
use crate::backend::RingId;
use crate::differential::{Device, bytes, device, domain, pool};
use crate::losses::TxLoss;
use crate::memory::Window;
use crate::path::{Trouble, header_len};
use crate::rings::RingZone;

const SIZE: u16 = 256;

/// One packet to send.
struct Plan {
    kind: u8,
    lengths: Vec<usize>,
    seed: u8,
    asks: Offload,
    segment: u16,
    /// The stale byte that an earlier use left in the place of the header.
    stale: u8,
}

impl Plan {
    fn random(dice: &mut Prng) -> Self {
        let lengths = match dice.below(24) {
            0 => vec![0],
            1 => vec![256; 40],
            2..5 => (0..dice.below(12) + 1).map(|_| dice.below(256)).collect(),
            _ => vec![1 + dice.below(256)],
        };
        let known = [
            Offload::TX_IPV4 | Offload::TX_TCP_CKSUM,
            Offload::TX_IPV4 | Offload::TX_TCP_SEG | Offload::TX_IP_CKSUM,
            Offload::RX_L4_CKSUM_NONE,
            Offload::from_bits_retain(dice.roll() as u32),
        ];
        Self {
            kind: if dice.percent(60) { 0 } else { dice.below(6) as u8 },
            lengths,
            seed: dice.roll() as u8,
            asks: if dice.percent(25) { known[dice.below(4)] } else { Offload::empty() },
            segment: dice.below(200) as u16,
            stale: if dice.percent(30) { dice.roll() as u8 } else { 0 },
        }
    }

    /// Creates the packet, and another reference to its memory if it is to be shared.
    fn make(&self, pool: &Pool, foreign: &Pool) -> (Packet, Option<Packet>) {
        let pool = if self.kind == 1 { foreign } else { pool };
        let mut packet = segmented(pool, &self.lengths, self.seed, 6);
        packet.prepend(header_len(true) as usize).expect("headroom").fill(self.stale);
        packet.adj(header_len(true) as usize).expect("the header");
        match self.kind {
            // No headroom left.
            2 => packet.prepend(packet.headroom() - 5).expect("headroom").fill(self.seed),
            // External memory.
            3 if self.lengths.len() == 1 => {
                let bytes = packet.data().to_vec();
                packet.attach_external(bytes).expect("a plain packet");
            }
            _ => {}
        }
        packet.set_tx_offload(self.asks, TxOffload::new(14, 20, 20).with_tso_segsz(self.segment));
        let shared = if self.kind == 4 { packet.clone_ref() } else { None };
        (packet, shared)
    }
}

/// The backend's view of a batch, and the counters.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// The header, without `num_buffers`, and the packet of each chain.
    came: Vec<Vec<u8>>,
    moved: (u64, u64),
    lost: [u64; 4],
    left: usize,
}

/// One of the two sides, which send the same packets.
struct Side<Q: DriverQueue, const OFFLOAD: bool, const HASH: bool> {
    path: Tx<Q, OFFLOAD, HASH>,
    device: Box<dyn Device>,
    foreign: Pool,
    /// Whether this side uses the slow path only.
    plain: bool,
    _zone: RingZone,
}

impl<Q: DriverQueue, const OFFLOAD: bool, const HASH: bool> Side<Q, OFFLOAD, HASH> {
    fn new(
        features: Features,
        accepted: AcceptedOffloads,
        plain: bool,
        driver: impl Fn(&RingMemory, DriverConfig) -> Result<Q, Error>,
    ) -> Self {
        let packets = domain("packets");
        let pool = pool(&packets, 4096);
        let zone = RingZone::new(&domain("rings"), "tx", RingId::transmit(0), SIZE, &Arc::default());
        let zone = zone.map_err(|_| "no ring").expect("a ring");
        let (memory, config) = zone.for_test(features);
        let parts = TxParts {
            doorbell: zone.doorbell(features, &Arc::default()).expect("a doorbell"),
            stats: Arc::default(),
            trouble: Arc::new(Trouble::default()),
            window: Window::over(packets.segments()),
            header: zone.header(),
            ring: RingId::transmit(0),
            accepted,
            missing: Arc::default(),
            pool,
        };
        let path = Tx::new(driver(&memory, config).expect("a driver"), parts);
        let foreign = crate::differential::pool(&domain("foreign"), 4096);
        Self { path, device: device(&zone, features, false), foreign, plain, _zone: zone }
    }

    fn run(&mut self, batch: &[Plan], finish: usize) -> Outcome {
        let (mut burst, mut shared) = (Burst::new(), Vec::new());
        for plan in batch {
            let (packet, other) = plan.make(&self.path.parts.pool, &self.foreign);
            shared.push(other);
            assert!(burst.push(packet).is_ok());
        }
        if self.plain {
            self.send_plain(&mut burst);
        } else {
            self.path.burst(&mut burst);
        }
        drop(shared);
        let mut came = Vec::new();
        let (mut ahead, mut heads) = (Lookahead::default(), Vec::new());
        while let Some((head, list)) = self.device.look(ahead) {
            let mut all = bytes(&list);
            all[10..12].fill(0);
            assert!(!HASH || all[12..20] == [0; 8], "a driver says no hash");
            came.push(all);
            ahead = ahead.past(head);
            heads.push((head, 0));
            // Some batches are completed in parts.
            if heads.len() == finish {
                self.device.give(std::mem::take(&mut ahead), &std::mem::take(&mut heads));
            }
        }
        self.device.give(ahead, &heads);
        let totals = self.path.parts.stats.totals();
        let causes = [TxLoss::Empty, TxLoss::TooLong, TxLoss::NoBuffer, TxLoss::BadOffload];
        Outcome {
            came,
            moved: (totals.packets, totals.bytes),
            lost: causes.map(|cause| totals.lost(cause)),
            left: burst.len(),
        }
    }

    fn send_plain(&mut self, burst: &mut Burst) {
        self.path.collect().expect("an honest device");
        let (mut dealt, mut sent, mut bytes) = (0, 0, 0);
        for packet in burst.iter() {
            match self.path.send_cold(line_of(packet)) {
                TxOutcome::Full => break,
                TxOutcome::Dropped => {}
                TxOutcome::Sent(len) => (sent, bytes) = (sent + 1, bytes + len),
            }
            dealt += 1;
        }
        self.path.queue.publish();
        self.path.parts.stats.moved(sent, bytes);
        // SAFETY: the first `dealt` packets belong to the queue now, or were freed.
        unsafe { burst.consume_front(dealt) };
    }
}

fn compare<Q: DriverQueue, const OFFLOAD: bool, const HASH: bool>(
    features: Features,
    driver: impl Fn(&RingMemory, DriverConfig) -> Result<Q, Error>,
) {
    let accepted = AcceptedOffloads { csum: OFFLOAD, tso4: OFFLOAD, ..AcceptedOffloads::default() };
    let mut dice = Prng::new(features.bits());
    let (mut sent, mut lost) = (0, 0);
    for indirect in [Features::empty(), Features::INDIRECT_DESC] {
        let mut sides = [false, true]
            .map(|plain| Side::<Q, OFFLOAD, HASH>::new(features | indirect, accepted, plain, &driver));
        for number in 0..batches(16) {
            let batch: Vec<_> = (0..dice.below(12)).map(|_| Plan::random(&mut dice)).collect();
            let finish = dice.below(12);
            let [fast, slow] = sides.each_mut().map(|side| side.run(&batch, finish));
            assert_eq!(fast, slow, "batch {number} of {features}");
            sent += fast.came.len();
            lost = fast.lost.iter().sum();
        }
        let pools = sides.map(|side| (side.path.parts.pool.clone(), side.foreign));
        for (pool, foreign) in pools {
            assert_eq!((pool.stats().in_use, foreign.stats().in_use), (0, 0), "{features}");
        }
    }
    assert!(batches(16) < 1000 || sent > 0 && lost > 0, "batches reach the device, and causes of loss");
}

macro_rules! variants {
    ($($name:ident: $module:ident $order:literal $offload:literal $hash:literal $features:expr;)*) => {
        $(#[test] fn $name() {
            compare::<_, $offload, $hash>($features, $module::Driver::<$order, false>::new);
        })*
    };
}

variants! {
    split_alike: split false false false Features::empty();
    split_offload_alike: split false true false Features::empty();
    split_in_order_alike: split true false false Features::IN_ORDER;
    split_in_order_offload_alike: split true true false Features::IN_ORDER;
    packed_alike: packed false false false Features::RING_PACKED;
    packed_offload_alike: packed false true false Features::RING_PACKED;
    packed_in_order_alike: packed true false false Features::RING_PACKED | Features::IN_ORDER;
    packed_in_order_offload_alike: packed true true false Features::RING_PACKED | Features::IN_ORDER;
    split_hash_alike: split false true true Features::empty();
    packed_in_order_hash_alike: packed true true true Features::RING_PACKED | Features::IN_ORDER;
}

/// A frame with more pieces than fit, even after a copy, must not block the queue for ever.
#[test]
fn a_packet_in_too_many_pieces_is_dropped() {
    let mut side = Side::<_, false, false>::new(
        Features::empty(),
        AcceptedOffloads::default(),
        false,
        split::Driver::<false, false>::new,
    );
    let small = linecard_mempool::PoolConfig::default().packets(512).data_room(64);
    side.path.parts.pool = Pool::new(&domain("small"), small).expect("a pool");
    let plan =
        Plan { kind: 0, lengths: vec![64; 100], seed: 7, asks: Offload::empty(), segment: 0, stale: 0 };
    assert!(plan.lengths.iter().sum::<usize>() <= LONGEST as usize);
    let outcome = side.run(&[plan], 12);
    assert_eq!((outcome.left, outcome.lost[1]), (0, 1), "{outcome:?}");
}
