//! Compares the receive loop with a simple reference model, which handles one completion after the other.

use std::sync::Arc;

use linecard_lab::contract::{Prng, batches};
use linecard_mempool::{Burst, Offload, Packet, PacketType, Pool, TxOffload};
use linecard_pmd::offload::{AcceptedOffloads, describe};
use linecard_pmd::rss::Rss;
use linecard_pmd::stats::{QueueStats, Totals};
use linecard_virtio::net::{HashReport, NEEDS_CSUM, NetHeader};
use linecard_virtio::{DriverConfig, DriverQueue, Error, Features, Lookahead, RingMemory, packed, split};

use super::{Rx, RxParts, RxPath};
use crate::backend::RingId;
use crate::differential::{Device, device, domain, pool};
use crate::losses::RxLoss;
use crate::path::{HEADER, Trouble, header_len};
use crate::rings::RingZone;

/// The longest buffer, without the additional header bytes for a hash: the pool's data room and a header.
const LENT: usize = 256 + HEADER as usize;
const PORT: u16 = 3;

/// Returns the content of a buffer filled by the backend: a header, and the front of a frame.
fn random(dice: &mut Prng, header_len: usize) -> Vec<u8> {
    let more = header_len - HEADER as usize;
    let len = more
        + match dice.below(12) {
            0 => dice.below(28),
            1 => LENT,
            _ => 26 + dice.below(LENT - 25),
        };
    let num_buffers = match dice.below(12) {
        0 => dice.below(4) as u16,
        1 => dice.roll() as u16,
        2 | 3 => 2,
        _ => 1,
    };
    let header = match dice.below(6) {
        0 => NetHeader::from_bytes(std::array::from_fn(|_| dice.roll() as u8)),
        1 => NetHeader {
            flags: NEEDS_CSUM,
            gso_type: [0, 1, 4, 5][dice.below(4)],
            gso_size: dice.below(90) as u16,
            csum_start: [34, dice.below(280) as u16][dice.below(2)],
            csum_offset: 16,
            ..NetHeader::default()
        },
        2 => NetHeader { flags: dice.below(8) as u8, ..NetHeader::default() },
        _ => NetHeader::default(),
    };
    let mut bytes = NetHeader { num_buffers, ..header }.to_bytes().to_vec();
    let report = HashReport { value: dice.roll() as u32, report: [dice.below(11) as u16, 2][dice.below(2)] };
    bytes.extend(&report.to_bytes()[..more]);
    bytes.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0]);
    bytes.extend((len.saturating_sub(14 + header_len) as u16).to_be_bytes());
    bytes.extend([0, 0, 0, 0, 64, 6]);
    bytes.extend((0..240).map(|_| dice.roll() as u8));
    bytes[header_len + 46] = 0x50;
    bytes.truncate(len);
    bytes
}

/// A packet as the application receives it.
#[derive(Debug, PartialEq)]
struct Seen {
    segments: Vec<Vec<u8>>,
    port: u16,
    asks: (Offload, TxOffload, PacketType),
    hash: Option<u32>,
}

impl Seen {
    fn of(packet: &Packet) -> Self {
        Self {
            segments: packet.segments().map(|segment| segment.data().to_vec()).collect(),
            port: packet.port(),
            asks: (packet.offload(), packet.tx_offload(), packet.packet_type()),
            hash: packet.hash(),
        }
    }
}

/// The reference model: the expected packets and counters for buffers that are filled in this order.
struct Book {
    pool: Pool,
    size: u16,
    merge: bool,
    header: usize,
    accepted: Option<AcceptedOffloads>,
    lost: [u64; 4],
    moved: (u64, u64),
}

impl Book {
    const CAUSES: [RxLoss; 4] = [RxLoss::Runt, RxLoss::BadNumBuffers, RxLoss::TooLong, RxLoss::BadOffload];

    fn new(size: u16, merge: bool, header: usize, accepted: Option<AcceptedOffloads>) -> Self {
        let pool = pool(&domain("book"), 1024);
        Self { pool, size, merge, header, accepted, lost: [0; 4], moved: (0, 0) }
    }

    fn read(&mut self, filled: &[Vec<u8>]) -> Vec<Seen> {
        let mut all = filled.iter();
        let mut out = Vec::new();
        while let Some(first) = all.next() {
            if first.len() < self.header + 14 {
                self.lost[0] += 1;
                continue;
            }
            let (header, data) = first.split_at(self.header);
            let (header, report) = header.split_first_chunk().expect("twelve bytes");
            let (header, report) =
                (NetHeader::from_bytes(*header), report.try_into().map(HashReport::from_bytes));
            let mut packet = self.segment(data);
            let count = if self.merge { header.num_buffers } else { 1 };
            if count == 0 || count > self.size {
                self.lost[1] += 1;
                continue;
            }
            let more: Vec<_> = all.by_ref().take(usize::from(count) - 1).collect();
            if more.len() + 1 < usize::from(count) {
                self.lost[1] += 1;
                continue;
            }
            for next in more {
                packet.chain(self.segment(next)).map_err(drop).expect("few segments");
            }
            if let Some(accepted) = self.accepted
                && !header.is_plain()
                && header
                    .request(packet.len())
                    .is_none_or(|request| describe(&mut packet, request, accepted).is_err())
            {
                self.lost[3] += 1;
                continue;
            }
            if let Ok(Some((hash, kind))) = report.map(HashReport::hash) {
                packet.set_hash(hash);
                if packet.packet_type() == PacketType::UNKNOWN {
                    packet.set_packet_type(kind);
                }
            }
            self.moved = (self.moved.0 + 1, self.moved.1 + packet.len() as u64);
            out.push(Seen::of(&packet));
        }
        out
    }

    fn assert_counted(&self, totals: &Totals<RxLoss>) {
        assert_eq!((totals.packets, totals.bytes), self.moved);
        assert_eq!(Self::CAUSES.map(|cause| totals.lost(cause)), self.lost);
    }

    fn segment(&self, bytes: &[u8]) -> Packet {
        let mut packet = self.pool.get().expect("a packet");
        // The data of a further buffer begins at the place of the header, so it can be longer by the header.
        if bytes.len() > 256 {
            packet.prepend(bytes.len() - 256).expect("headroom");
            packet.append(256).expect("room");
        } else {
            packet.append(bytes.len()).expect("room");
        }
        packet.data_mut().expect("not shared").copy_from_slice(bytes);
        packet.set_port(PORT);
        packet
    }
}

fn compare<Q: DriverQueue, const MERGE: bool, const OFFLOAD: bool, const HASH: bool>(
    features: Features,
    driver: impl Fn(&RingMemory, DriverConfig) -> Result<Q, Error>,
) {
    let all = AcceptedOffloads { csum: true, tso4: true, tso6: true, ecn: true, uso4: true, uso6: true };
    let mut dice =
        Prng::new(features.bits() | u64::from(MERGE) | u64::from(OFFLOAD) << 1 | u64::from(HASH) << 2);
    let (mut left, mut kept) = (batches(16), 0);
    while left > 0 {
        let packed = features.contains(Features::RING_PACKED);
        let size = if packed { 1 + dice.below(40) as u16 } else { 1 << dice.below(7) };
        let rings = domain("rings");
        let ring = |name, id| {
            RingZone::new(&rings, name, id, size, &Arc::default()).map_err(|_| "no ring").expect("a ring")
        };
        let (zone, other) = (ring("rx", RingId::receive(0)), ring("tx", RingId::transmit(0)));
        let (memory, config) = zone.for_test(features);
        let packets = pool(&domain("packets"), 1024);
        let parts = RxParts {
            pool: packets.clone(),
            kick: zone.kick.clone(),
            doorbell: other.doorbell(features, &Arc::default()).expect("a doorbell"),
            stats: Arc::default(),
            trouble: Arc::new(Trouble::default()),
            ring: RingId::receive(0),
            port: PORT,
            accepted: all,
            interrupts: true,
            rss: Arc::new(Rss::new("rx", 1)),
        };
        parts.rss.set_by_device(false, HASH);
        let mut device = device(&zone, features, true);
        let stats = parts.stats.clone();
        let mut path = Rx::<Q, MERGE, OFFLOAD, HASH>::new(driver(&memory, config).expect("a driver"), parts);
        let mut book = Book::new(size, MERGE, header_len(HASH) as usize, OFFLOAD.then_some(all));
        for number in 0..4000.min(left) {
            left -= 1;
            let filled = fill(device.as_mut(), &mut dice, features, header_len(HASH) as usize);
            let came = poll(&mut path, &stats, &mut dice);
            assert_eq!(came, book.read(&filled), "batch {number} of {features}, ring of {size}");
            book.assert_counted(&stats.totals());
            kept += came.len();
        }
        drop(path);
        assert_eq!(packets.stats().in_use, 0);
    }
    assert!(batches(16) < 1000 || kept > 0, "something arrives");
}

/// Fills some of the available buffers as the backend, and completes them, out of order where that is
/// allowed.
fn fill(device: &mut dyn Device, dice: &mut Prng, features: Features, header: usize) -> Vec<Vec<u8>> {
    let (mut ahead, mut heads) = (Lookahead::default(), Vec::new());
    for _ in 0..dice.below(20) {
        let Some((head, list)) = device.look(ahead) else { break };
        ahead = ahead.past(head);
        heads.push((head, list));
    }
    if !features.contains(Features::IN_ORDER) && dice.percent(30) {
        let at = dice.below(heads.len().max(1));
        heads.rotate_left(at);
    }
    let mut filled = Vec::new();
    let mut given = Vec::new();
    for (head, list) in heads {
        let buffer = random(dice, header);
        let mut bytes = buffer.as_slice();
        for piece in list.pieces() {
            let (now, later) = bytes.split_at(bytes.len().min(piece.len as usize));
            // SAFETY: the device half holds these bytes at the moment, and the test runs on one thread.
            unsafe { std::ptr::copy_nonoverlapping(now.as_ptr(), piece.ptr.as_ptr(), now.len()) };
            bytes = later;
        }
        given.push((head, buffer.len() as u32));
        filled.push(buffer);
    }
    device.give(ahead, &given);
    filled
}

/// Receives until no packets remain, sometimes into bursts with little room.
fn poll(path: &mut dyn RxPath, stats: &QueueStats<RxLoss>, dice: &mut Prng) -> Vec<Seen> {
    let mut came = Vec::new();
    let mut burst = Burst::new();
    for _ in 0..24 {
        let moved = path.burst(&mut burst);
        stats.moved(moved.packets, moved.bytes);
        let fresh = burst.len() - moved.packets;
        came.extend(burst.iter().skip(fresh).map(Seen::of));
        // Packets that stay leave little room for the next burst.
        if burst.room() == 0 || dice.percent(30) {
            burst.clear();
        }
    }
    came
}

macro_rules! variants {
    ($($name:ident: $module:ident $order:literal $merge:literal $offload:literal $hash:literal $features:expr;)*) => {
        $(#[test] fn $name() {
            compare::<_, $merge, $offload, $hash>($features, $module::Driver::<$order, true>::new);
        })*
    };
}

const PACKED: Features = Features::RING_PACKED;
const BOTH: Features = Features::RING_PACKED.union(Features::IN_ORDER);

variants! {
    split_by_the_book: split false false false false Features::empty();
    split_offload_by_the_book: split false false true false Features::empty();
    split_mergeable_by_the_book: split false true false false Features::empty();
    split_mergeable_offload_by_the_book: split false true true false Features::empty();
    split_in_order_by_the_book: split true false false false Features::IN_ORDER;
    split_in_order_offload_by_the_book: split true false true false Features::IN_ORDER;
    split_in_order_mergeable_by_the_book: split true true false false Features::IN_ORDER;
    split_in_order_mergeable_offload_by_the_book: split true true true false Features::IN_ORDER;
    packed_by_the_book: packed false false false false PACKED;
    packed_offload_by_the_book: packed false false true false PACKED;
    packed_mergeable_by_the_book: packed false true false false PACKED;
    packed_mergeable_offload_by_the_book: packed false true true false PACKED;
    packed_in_order_by_the_book: packed true false false false BOTH;
    packed_in_order_offload_by_the_book: packed true false true false BOTH;
    packed_in_order_mergeable_by_the_book: packed true true false false BOTH;
    packed_in_order_mergeable_offload_by_the_book: packed true true true false BOTH;
    split_hash_by_the_book: split false false true true Features::empty();
    split_in_order_mergeable_hash_by_the_book: split true true true true Features::IN_ORDER;
    packed_mergeable_hash_by_the_book: packed false true true true PACKED;
    packed_in_order_hash_by_the_book: packed true false true true BOTH;
}
