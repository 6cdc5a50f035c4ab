//! Both split halves against rust-vmm's `virtio-queue`, an independent implementation.

use core::mem::MaybeUninit;
use core::ptr::NonNull;
use std::collections::VecDeque;

use proptest::prelude::*;
use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use virtio_queue::mock::MockSplitQueue;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::{Device, Driver};
use crate::config::{DeviceConfig, DriverConfig, IndirectTables};
use crate::layout::{F_NEXT, F_WRITE, Layout, RingAddrs, RingMemory};
use crate::queue::{
    Access, Buffer, Completion, DeviceMemory, DeviceQueue, DriverQueue, Element, Lookahead, Translation,
};
use crate::segments::SegList;
use crate::sync::SharedBytes;

/// Guest addresses of the ring and of the indirect tables, and the end of the memory.
const RING: u64 = 0x1000;
const TABLES: u64 = 0x8000;
const END: usize = 0x20000;

struct Mapped<'a>(&'a GuestMemoryMmap);

// SAFETY: one region that outlives the value; `get_slice` checks the range.
unsafe impl DeviceMemory for Mapped<'_> {
    fn translate(&self, addr: u64, len: u32, _: Access) -> Option<NonNull<u8>> {
        NonNull::new(self.0.get_slice(GuestAddress(addr), len as usize).ok()?.ptr_guard_mut().as_ptr())
    }
    fn translate_part(&self, addr: u64, len: u32, access: Access) -> Translation {
        self.translate(addr, len, access).map(|start| (start, len)).into()
    }
}

fn guest() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), END)]).expect("anonymous memory")
}

fn shared(memory: &GuestMemoryMmap, addr: u64, len: usize) -> SharedBytes {
    let start = Mapped(memory).translate(addr, len as u32, Access::Read).expect("inside the guest");
    // SAFETY: the tests drop their queues before the memory, and access ring words only through cells or
    // `vm-memory`.
    unsafe { SharedBytes::new(start, len) }
}

/// A ring with this crate's driver and their device.
struct Pair<const IN_ORDER: bool, const WRITABLE: bool> {
    driver: Driver<IN_ORDER, WRITABLE>,
    theirs: Queue,
    memory: GuestMemoryMmap,
    added: VecDeque<(u64, Vec<Element>)>,
    available: VecDeque<(u64, Vec<Element>)>,
    used: VecDeque<Completion>,
    token: u64,
    armed: bool,
}

impl<const IN_ORDER: bool, const WRITABLE: bool> Pair<IN_ORDER, WRITABLE> {
    fn new(size: u16, start: u16, event_idx: bool, entries: u16) -> Self {
        let memory = guest();
        let zone = shared(&memory, RING, Layout::Split.bytes(size));
        let ring = RingMemory::in_zone(zone, Layout::Split, size).expect("large enough");
        let tables = shared(&memory, TABLES, IndirectTables::bytes(size, entries));
        let indirect = (entries > 0).then_some(IndirectTables { memory: tables, addr: TABLES, entries });
        let config = DriverConfig { size, event_idx, base: Some(u32::from(start)), indirect };
        let driver = Driver::new(&ring, config).expect("valid");
        let addrs = RingAddrs::at(RING, Layout::Split, size);
        let mut theirs = Queue::new(size).expect("a power of two");
        theirs.set_desc_table_address(Some(addrs.desc as u32), Some(0));
        theirs.set_avail_ring_address(Some(addrs.driver as u32), Some(0));
        theirs.set_used_ring_address(Some(addrs.device as u32), Some(0));
        theirs.set_event_idx(event_idx);
        theirs.set_next_avail(start);
        theirs.set_next_used(start);
        theirs.set_ready(true);
        assert!(theirs.is_valid(&memory));
        let (added, available, used) = Default::default();
        let mut pair = Self { driver, theirs, memory, added, available, used, token: 1, armed: false };
        pair.arm(true);
        pair
    }

    fn segments(&mut self, n: usize) -> (u64, Vec<Element>) {
        self.token += 1;
        let segments = (0..n as u64)
            .map(|k| Element { addr: 0x10000 + self.token * 16 % 0x8000 + k, len: 60 + k as u32 });
        (self.token, segments.collect())
    }

    fn step(&mut self, [what, n]: [u8; 2]) {
        let n = usize::from(n);
        match what % 7 {
            0 => {
                for _ in 0..n % 9 {
                    let (token, s) = self.segments(1);
                    if self.driver.add(Buffer { addr: s[0].addr, len: s[0].len, token }).is_ok() {
                        self.added.push_back((token, s));
                    }
                }
            }
            1 => {
                let (token, segments) = self.segments(n % 5 + 1);
                if self.driver.add_chain(&segments, token).is_ok() {
                    self.added.push_back((token, segments));
                }
            }
            2 => {
                self.driver.publish();
                let any = !self.added.is_empty();
                self.available.append(&mut self.added);
                assert_eq!(self.driver.kick_needed(), any && self.armed, "what they ask for");
                // An event index requests one notification; a flag stays until it is cleared.
                self.armed &= !(any && self.theirs.event_idx_enabled());
            }
            3 => self.arm(n & 1 == 0),
            4 => self.collect(n % 20),
            _ => self.their_turn(n),
        }
    }

    /// Their side goes to sleep, or, without an event index and with `on` false, stays awake.
    fn arm(&mut self, on: bool) {
        if !on && !self.theirs.event_idx_enabled() {
            self.theirs.disable_notification(&self.memory).expect("valid ring");
            self.armed = false;
            return;
        }
        let waiting = self.theirs.enable_notification(&self.memory).expect("valid ring");
        assert_eq!(waiting, !self.available.is_empty());
        self.armed = !waiting || !self.theirs.event_idx_enabled();
    }

    /// Their side consumes one chain and returns it.
    fn their_turn(&mut self, n: usize) {
        let chain = self.theirs.pop_descriptor_chain(&self.memory);
        assert_eq!(chain.is_some(), !self.available.is_empty());
        let (Some(chain), Some((token, want))) = (chain, self.available.pop_front()) else { return };
        let head = chain.head_index();
        let got: Vec<(u64, u32, bool)> = chain.map(|d| (d.addr().0, d.len(), d.is_write_only())).collect();
        let want: Vec<(u64, u32, bool)> = want.iter().map(|s| (s.addr, s.len, WRITABLE)).collect();
        assert_eq!(got, want);
        let len = if WRITABLE { n as u32 % 60 } else { 0 };
        let interrupts = n & 1 == 0;
        let waiting = self.driver.set_interrupts(interrupts);
        self.theirs.add_used(&self.memory, head, len).expect("their own head");
        self.used.push_back(Completion { token, len });
        let call = self.theirs.needs_notification(&self.memory).expect("valid ring");
        // Without an event index they always notify. With one, the driver's request decides, unless it came
        // too late.
        let want = !self.theirs.event_idx_enabled() || interrupts && !waiting;
        assert!(call || !want, "they must see that we sleep");
    }

    fn collect(&mut self, n: usize) {
        let mut out = [const { MaybeUninit::uninit() }; 20];
        let got = self.driver.complete(&mut out[..n]).expect("an honest device");
        assert_eq!(got, n.min(self.used.len()));
        for done in &out[..got] {
            // SAFETY: `complete` initialised the first `got`.
            assert_eq!(Some(unsafe { done.assume_init() }), self.used.pop_front());
        }
    }
}

fn drive<const IN_ORDER: bool, const WRITABLE: bool>(shape: [u8; 3], start: u16, ops: &[[u8; 2]]) {
    let size = 1 << (shape[0] % 6);
    let entries = if shape[1] & 2 != 0 { u16::from(shape[2]) % size + 1 } else { 0 };
    let mut pair = Pair::<IN_ORDER, WRITABLE>::new(size, start, shape[1] & 1 != 0, entries);
    for op in ops {
        pair.step(*op);
    }
}

/// This crate's device on a ring that their mock driver filled with chains of the given lengths.
fn consume(lengths: &[u8]) {
    let memory = guest();
    let mock = MockSplitQueue::new(&memory, 64);
    let mut descs = Vec::new();
    for length in lengths {
        for k in 0..*length {
            let flags = F_WRITE | if k + 1 < *length { F_NEXT } else { 0 };
            let at = descs.len() as u64;
            let desc = Descriptor::new(0x10000 + at * 100, 50 + at as u32, flags, at as u16 + 1);
            descs.push(RawDescriptor::from(desc));
        }
    }
    mock.build_multiple_desc_chains(&descs).expect("fits");
    let ring = RingMemory {
        desc: shared(&memory, mock.desc_table_addr().0, 16 * 64),
        driver: shared(&memory, mock.avail_addr().0, 6 + 2 * 64),
        device: shared(&memory, mock.used_addr().0, 6 + 8 * 64),
    };
    let config = DeviceConfig { size: 64, ..DeviceConfig::default() };
    let mut device = Device::<false, true>::new(&ring, config).expect("valid");
    let (mut list, mut at) = (SegList::new(), 0);
    assert_eq!(usize::from(device.available()), lengths.len());
    for (k, length) in lengths.iter().enumerate() {
        let head = device.peek_chain(&Mapped(&memory), Lookahead::default(), &mut list);
        let head = head.expect("honest").expect("available");
        assert_eq!((head.id, head.descs), (at, u16::from(*length)));
        let want: u32 = (0..u32::from(*length)).map(|d| 50 + u32::from(at) + d).sum();
        assert_eq!((head.len, list.bytes()), (want, want));
        device.complete(head.used(want));
        assert_eq!(mock.used().idx().load(), 0, "nothing is visible before publish");
        let element = mock.used().ring().ref_at(k).expect("in the ring").load();
        assert_eq!((element.id(), element.len()), (u32::from(at), want));
        at += u16::from(*length);
    }
    device.publish();
    assert_eq!(usize::from(mock.used().idx().load()), lengths.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn our_driver_feeds_their_device(
        shape in any::<[u8; 3]>(),
        start in 0xff80u16..=0xffff,
        kind in 0..4,
        ops in prop::collection::vec(any::<[u8; 2]>(), 0..150),
    ) {
        match kind {
            0 => drive::<false, false>(shape, start, &ops),
            1 => drive::<false, true>(shape, start, &ops),
            2 => drive::<true, false>(shape, start, &ops),
            _ => drive::<true, true>(shape, start, &ops),
        }
    }

    #[test]
    fn our_device_takes_their_chains(lengths in prop::collection::vec(1u8..6, 1..12)) {
        consume(&lengths);
    }
}
