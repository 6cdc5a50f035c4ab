//! Records of other kinds of backends, packed; split ones are in `tests/inflight.rs`.

use std::fs::File;
use std::os::fd::AsFd;

use linecard_virtio::layout::{F_AVAIL, F_USED};
use linecard_virtio::model::Zone;
use linecard_wire::payload::MemoryRegion;
use rustix::fs::MemfdFlags;

use super::*;
use crate::limits::Ledger;

const SIZE: u16 = 8;

struct Bench {
    record: RingInflight,
    ring: RingMemory,
    _zone: Zone,
}

impl Bench {
    fn new() -> Self {
        let len = region_len(Layout::Packed, 1, SIZE);
        let file = File::from(rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).expect("a memfd"));
        file.set_len(len).expect("its length");
        let spec = MemoryRegion { guest_addr: 0, size: len, user_addr: 0, offset: 0 };
        let region = Region::map(spec, file.as_fd(), None, &Ledger::alone()).expect("mapped");
        let region = Arc::new(Inflight { region, queues: 1, queue_size: SIZE });
        assert!(RingInflight::of(&region, 1, Layout::Packed, SIZE).is_none());
        assert!(RingInflight::of(&region, 0, Layout::Packed, SIZE + 1).is_none());
        let record = RingInflight::of(&region, 0, Layout::Packed, SIZE).expect("a part");
        let zone = Zone::new(Layout::Packed.bytes(SIZE));
        let ring = RingMemory::in_zone(zone.bytes(), Layout::Packed, SIZE).expect("room");
        assert_eq!(record.position(&ring), None, "nobody has used it");
        record.begin(0x8001_8001);
        Self { record, ring, _zone: zone }
    }

    /// A chain of `num` descriptors from entry `n` on, as they are taken from a fresh region.
    fn take(&self, n: u16, num: u16, id: u16, counter: u64) {
        let record = &self.record;
        record.set(record.entry(n, packed::NUM), num);
        let last = n.wrapping_add(num).wrapping_sub(1) % SIZE;
        record.set(record.entry(n, packed::LAST), last);
        record.set(record.entry(last, packed::ID), id);
        record.set(record.entry(n, COUNTER), counter);
        record.set(record.entry(n, 0), 1_u8);
        record.set(packed::FREE_HEAD, last + 1);
        record.set(packed::OLD_FREE_HEAD, last + 1);
    }

    fn flags(&self, slot: u16, id: u16, flags: u16) {
        let meta = u64::from(id) << 32 | u64::from(flags) << 48;
        let cell = self.ring.desc.cell::<u64>(usize::from(slot) * 16 + 8).expect("a slot");
        cell.store(meta, Release);
    }

    fn position(&self) -> (u32, Vec<(u16, u16)>) {
        let Position { base, taken } = self.record.position(&self.ring).expect("a record");
        (base, taken.into_iter().map(|used| (used.id, used.descs)).collect())
    }
}

#[test]
fn nothing_is_in_flight_at_first() {
    assert_eq!(Bench::new().position(), (0x8001_8001, vec![]));
}

#[test]
fn what_is_in_flight_comes_in_the_order_in_which_it_was_taken() {
    let bench = Bench::new();
    bench.take(0, 2, 9, 5);
    bench.take(2, 1, 4, 3);
    assert_eq!(bench.position(), (0x8001_8001, vec![(4, 1), (9, 2)]));
    // One that is free by now had its flag left on.
    bench.record.set(packed::OLD_FREE_HEAD, 2_u16);
    bench.record.set(bench.record.entry(2, packed::NEXT), 3_u16);
    assert_eq!(bench.position(), (0x8001_8001, vec![(9, 2)]));
}

#[test]
fn what_the_ring_still_has_is_taken_from_there() {
    let bench = Bench::new();
    bench.take(0, 2, 9, 5);
    bench.take(2, 1, 4, 6);
    for (slot, id) in [(1, 7), (2, 9), (3, 4)] {
        bench.flags(slot, id, F_AVAIL);
    }
    assert_eq!(bench.position(), (0x8001_8001, vec![]));
    bench.flags(3, 5, F_AVAIL);
    assert_eq!(bench.position(), (0x8001_8001, vec![(9, 2), (4, 1)]));
}

#[test]
fn the_ring_says_whether_a_burst_was_given_back() {
    let bench = Bench::new();
    bench.record.publishing(0x8004_8004);
    assert_eq!(bench.position().0, 0x8001_8001);
    bench.flags(1, 0, F_AVAIL | F_USED);
    assert_eq!(bench.position().0, 0x8004_8004);
    bench.record.published(0x8004_8004);
    bench.flags(1, 0, F_AVAIL);
    assert_eq!(bench.position().0, 0x8004_8004);
}

#[test]
fn impossible_records_are_none() {
    let bench = Bench::new();
    bench.take(0, SIZE, 9, 5);
    assert_eq!(bench.position().1, [(9, SIZE)]);
    bench.take(0, 1, 9, 5);
    bench.take(1, u16::MAX, 9, 6);
    assert_eq!(bench.record.position(&bench.ring), None, "more than the ring has");
    let bench = Bench::new();
    bench.record.set(packed::OLD_USED_IDX, SIZE);
    assert_eq!(bench.record.position(&bench.ring), None);
}
