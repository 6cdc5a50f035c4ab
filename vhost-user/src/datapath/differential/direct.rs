//! Direct path: frames that are copied once from ring to ring arrive as they do when packets are made of
//! them.

use linecard_lab::contract::{Prng, batches};
use linecard_mempool::{Burst, Pool};
use linecard_pmd::direct::{Frame, all};
use linecard_pmd::offload::AcceptedOffloads;
use linecard_pmd::stats::QueueStats;
use linecard_virtio::{
    Completion, DeviceConfig, DeviceQueue, DriverConfig, DriverQueue, Error, Layout, PeerFault, RingMemory,
    packed, split,
};

use super::side::{Guest, Places, Ring, pool};
use super::{Shape, dequeue, enqueue};
use crate::datapath::dequeue::Dequeue;
use crate::datapath::enqueue::Enqueue;
use crate::datapath::{DequeuePath, Done, EnqueuePath};
use crate::port::{RxLoss, TxLoss};

/// The visible results of a batch.
#[derive(Debug, PartialEq)]
struct Outcome {
    came: usize,
    faults: [Option<PeerFault>; 2],
    sender: (Vec<Completion>, Option<PeerFault>),
    receiver: (Vec<Completion>, Option<PeerFault>),
    received: (u64, u64, Vec<u64>),
    sent: (u64, u64, Vec<u64>),
}

/// The receiving ring, until its driver violates the protocol.
struct Target<V, const MERGE: bool, const OFFLOAD: bool> {
    path: Enqueue<V, MERGE, OFFLOAD>,
    stats: QueueStats<TxLoss>,
    fault: Option<PeerFault>,
}

impl<V: DeviceQueue, const MERGE: bool, const OFFLOAD: bool> Target<V, MERGE, OFFLOAD> {
    /// Returns how many frames or packets were taken.
    fn burst(
        &mut self,
        send: impl FnOnce(&mut Enqueue<V, MERGE, OFFLOAD>, &QueueStats<TxLoss>) -> Result<Done, PeerFault>,
    ) -> usize {
        if self.fault.is_some() {
            return 0;
        }
        match send(&mut self.path, &self.stats) {
            Ok(done) => done.packets,
            Err(fault) => {
                self.fault = Some(fault);
                0
            }
        }
    }

    /// Sends repeatedly, because a burst ends at missing pages, and reports a fault only in the next burst.
    /// Drops the packets that are left.
    fn packets(&mut self, packets: &mut Burst) {
        for _ in 0..packets.len() + 2 {
            if !packets.is_empty() {
                self.burst(|path, stats| path.burst(packets, stats));
            }
        }
        packets.clear();
    }

    /// Sends frames in the same way. Returns whether all were taken.
    fn frames(&mut self, frames: &[Frame<'_>]) -> bool {
        let mut left = frames;
        for _ in 0..frames.len() + 2 {
            if !left.is_empty() {
                left = &left[self.burst(|path, stats| path.direct(left, stats))..];
            }
        }
        left.is_empty()
    }
}

/// Two rings, and the path between them.
struct Way<'a, D, E, U, V, const MERGE: bool, const OFFLOAD: bool> {
    pool: &'a Pool,
    guest: &'a Guest,
    from: Ring<D>,
    to: Ring<E>,
    source: Dequeue<U, OFFLOAD>,
    stats: QueueStats<RxLoss>,
    target: Target<V, MERGE, OFFLOAD>,
    /// Frames are copied once, without packets.
    direct: bool,
}

impl<D, E, U, V, const MERGE: bool, const OFFLOAD: bool> Way<'_, D, E, U, V, MERGE, OFFLOAD>
where
    D: DriverQueue,
    E: DriverQueue,
    U: DeviceQueue,
    V: DeviceQueue,
{
    /// Copies the first `straight` frames of each burst directly; the others become packets.
    fn turn(&mut self, straight: usize) -> Result<usize, PeerFault> {
        let Self { pool, source, stats, target, .. } = self;
        let mut burst = Burst::new();
        let done = if self.direct {
            source.direct(&mut burst, pool, stats, &mut |frames| {
                let front = &frames[..straight.min(frames.len())];
                // If there is no room for one frame, there is none for later ones.
                if target.frames(front) { all(front.len()) } else { all(frames.len()) }
            })
        } else {
            source.burst(&mut burst, pool, stats)
        };
        target.packets(&mut burst);
        done.map(|done| done.packets)
    }

    fn run(
        &mut self,
        layouts: [Layout; 2],
        (sent, lent): (&dequeue::Batch, &enqueue::Batch),
        straight: usize,
    ) -> Outcome {
        for (token, (segments, bytes)) in sent.chains.iter().enumerate() {
            self.guest.write(segments, bytes);
            self.from.add(segments, token as u64);
        }
        self.from.driver.publish();
        for (token, segments) in lent.buffers.iter().enumerate() {
            self.to.add(segments, token as u64);
        }
        self.to.driver.publish();
        let [from, to] = layouts;
        sent.harm.into_iter().for_each(|harm| self.from.spoil(from, harm));
        lent.harm.into_iter().for_each(|harm| self.to.spoil(to, harm));
        let (mut came, mut fault) = (0, None);
        // More turns than a ring has chains: dropped chains are not counted.
        for _ in 0..40 {
            match self.turn(straight) {
                Ok(count) => came += count,
                Err(found) => {
                    fault = Some(found);
                    break;
                }
            }
        }
        let (rx, tx) = (self.stats.totals(), self.target.stats.totals());
        let rx_lost = [RxLoss::NoBuffer, RxLoss::Runt, RxLoss::TooLong, RxLoss::BadOffload];
        let tx_lost = [TxLoss::TooLong, TxLoss::BadOffload, TxLoss::RuntBuffer];
        Outcome {
            came,
            faults: [fault, self.target.fault],
            sender: self.from.collect(),
            receiver: self.to.collect(),
            received: (rx.packets, rx.bytes, rx_lost.map(|cause| rx.lost(cause)).into()),
            sent: (tx.packets, tx.bytes, tx_lost.map(|cause| tx.lost(cause)).into()),
        }
    }
}

/// Constructors of the halves of a ring.
type Driver<D> = fn(&RingMemory, DriverConfig) -> Result<D, Error>;
type Device<V> = fn(&RingMemory, DeviceConfig) -> Result<V, Error>;

/// Runs batches through both paths between two kinds of ring.
fn compare<D, E, U, V, const MERGE: bool, const OFFLOAD: bool>(
    (layouts, in_order): ([Layout; 2], bool),
    (sender, source): (Driver<D>, Device<U>),
    (receiver, target): (Driver<E>, Device<V>),
) where
    D: DriverQueue,
    E: DriverQueue,
    U: DeviceQueue,
    V: DeviceQueue,
{
    let guests = || [Guest::new(), Guest::new()];
    let (pool, guests, mut others) = (pool(), guests(), guests());
    let accepted = AcceptedOffloads { csum: OFFLOAD, tso4: OFFLOAD, ..AcceptedOffloads::default() };
    let (mut left, mut seed) = (batches(16), 0);
    let mut met = [0; 4];
    while left > 0 {
        seed += 1;
        let mut dice = Prng::new(seed);
        let shapes =
            [Shape::random(layouts[0], false, &mut dice), Shape::random(layouts[1], MERGE, &mut dice)];
        let (mut sends, mut lends) = (Places::new(), Places::new());
        let mut ways = [true, false].map(|direct| {
            let (guest, other) = (&guests[usize::from(direct)], &others[usize::from(direct)]);
            let (from, to) = (Ring::new(shapes[0], guest, sender), Ring::new(shapes[1], other, receiver));
            let queue = source(&from.memory, Ring::<D>::device_config(shapes[0])).expect("a device");
            let mut source =
                Dequeue::<U, OFFLOAD>::new(queue, guest.map.clone(), shapes[0].header, accepted, "");
            // Packets have little room in these tests.
            source.worth_showing = 0;
            let queue = target(&to.memory, Ring::<E>::device_config(shapes[1])).expect("a device");
            let path =
                Enqueue::<V, MERGE, OFFLOAD>::new(queue, other.map.clone(), shapes[1].header, accepted, "");
            let target = Target { path, stats: QueueStats::default(), fault: None };
            Way { pool: &pool, guest, from, to, source, stats: QueueStats::default(), target, direct }
        });
        for _ in 0..40.min(left) {
            left -= 1;
            let sent = dequeue::Batch::random(shapes[0], &mut sends, &mut dice);
            let lent = enqueue::Batch::random(&mut lends, &mut dice);
            // Usually all frames are copied directly.
            let straight = if dice.percent(30) { dice.below(6) } else { usize::MAX };
            let [mut direct, packets] = ways.each_mut().map(|way| way.run(layouts, (&sent, &lent), straight));
            let harm = (sent.harm, lent.harm);
            // In-order rings return a batch as one used element, and batches end with bursts, so a wrong id
            // returns more or fewer.
            let vague = in_order && (sent.harm.is_some() || lent.harm.is_some());
            if vague {
                (direct.sender, direct.receiver) = (packets.sender.clone(), packets.receiver.clone());
            }
            assert_eq!(direct, packets, "run {seed} of {shapes:?}, {harm:?}, {straight} straight");
            let faults = direct.faults;
            // After a fault in the middle of a frame, the contents of its buffers are undefined.
            if faults[1].is_none() {
                lent.assert_filled_alike(&others);
            }
            met[0] += direct.came;
            met[1] += direct.receiver.0.len();
            met[2] += usize::from(faults[0].is_some());
            met[3] += usize::from(faults[1].is_some());
            let over = faults.iter().any(Option::is_some)
                || direct.sender.1.is_some()
                || direct.receiver.1.is_some();
            if over || vague {
                break;
            }
        }
        if ways.iter().any(|way| way.target.fault.is_some()) {
            others = [Guest::new(), Guest::new()];
        } else if seed % 16 == 0 || left == 0 {
            assert!(others[0].image() == others[1].image(), "memory beside the buffers, run {seed}");
            assert!(guests[0].image() == guests[1].image(), "the sender's memory, run {seed}");
        }
    }
    assert_eq!(pool.stats().in_use, 0);
    if batches(16) >= 1000 {
        assert!(met.iter().all(|count| *count > 0), "batches reach frames and faults: {met:?}");
    }
}

macro_rules! variants {
    ($($name:ident: $from:ident $source:ident, $to:ident $target:ident, $order:literal $merge:literal $offload:literal;)*) => {
        $(#[test] fn $name() {
            compare::<_, _, _, _, $merge, $offload>(
                ([Layout::$from, Layout::$to], $order),
                ($source::Driver::<$order, false>::new, $source::Device::<$order, false>::new),
                ($target::Driver::<$order, true>::new, $target::Device::<$order, true>::new),
            );
        })*
    };
}

variants! {
    split_to_split_alike: Split split, Split split, false false false;
    split_to_packed_mergeable_alike: Split split, Packed packed, false true false;
    split_to_packed_in_order_offload_alike: Split split, Packed packed, true false true;
    split_to_split_in_order_mergeable_offload_alike: Split split, Split split, true true true;
    packed_to_packed_alike: Packed packed, Packed packed, false false false;
    packed_to_split_mergeable_offload_alike: Packed packed, Split split, false true true;
    packed_to_split_in_order_alike: Packed packed, Split split, true false false;
    packed_to_packed_in_order_mergeable_alike: Packed packed, Packed packed, true true false;
}
