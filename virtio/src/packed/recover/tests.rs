//! Positions that are read from the ring, compared with those of the device that used it.

use core::mem::MaybeUninit;
use std::ptr::NonNull;

use proptest::prelude::*;

use super::super::{Device, Driver};
use super::*;
use crate::model::Zone;
use crate::queue::{
    Access, Buffer, Chain, DeviceMemory, DeviceQueue, DriverQueue, Element, Lookahead, Translation,
};
use crate::segments::SegList;
use crate::{DeviceConfig, DriverConfig};

/// Memory that nobody looks into.
struct Anywhere;

// SAFETY: no queue of these tests reads or writes what its descriptors point to.
#[expect(clippy::disallowed_methods, reason = "nobody looks there")]
unsafe impl DeviceMemory for Anywhere {
    fn translate(&self, _: u64, _: u32, _: Access) -> Option<NonNull<u8>> {
        Some(NonNull::dangling())
    }
    fn translate_part(&self, _: u64, len: u32, _: Access) -> Translation {
        Translation::Present(NonNull::dangling(), len)
    }
}

const LEN: u32 = 64;

/// A driver, a device, and their ring.
struct Bench<const IN_ORDER: bool, const WRITABLE: bool> {
    _zone: Zone,
    memory: RingMemory,
    size: u16,
    driver: Driver<IN_ORDER, WRITABLE>,
    device: Device<IN_ORDER, WRITABLE>,
    next: u64,
    expected: u64,
}

impl<const IN_ORDER: bool, const WRITABLE: bool> Bench<IN_ORDER, WRITABLE> {
    fn new(size: u16) -> Self {
        let zone = Zone::new(Layout::Packed.bytes(size));
        let Ok(memory) = RingMemory::in_zone(zone.bytes(), Layout::Packed, size) else { panic!("room") };
        let driver = Driver::new(&memory, DriverConfig { size, ..DriverConfig::default() });
        let device = Device::new(&memory, DeviceConfig { size, ..DeviceConfig::default() });
        let (Ok(driver), Ok(device)) = (driver, device) else { panic!("queues of {size}") };
        Self { _zone: zone, memory, size, driver, device, next: 0, expected: 0 }
    }

    /// Lends a buffer of `parts` descriptors if there is room.
    fn lend(&mut self, parts: usize) {
        let parts = [Element { addr: 4096, len: LEN }; 4].into_iter().take(parts).collect::<Vec<_>>();
        let lent = match parts.as_slice() {
            [one] => self.driver.add(Buffer { addr: one.addr, len: one.len, token: self.next }),
            many => self.driver.add_chain(many, self.next),
        };
        self.next += u64::from(lent.is_ok());
        self.driver.publish();
    }

    /// Uses up to `count` buffers, one by one or as a burst; unpublished.
    fn consume(&mut self, count: usize, at_once: bool) {
        if at_once {
            let mut chains = [const { MaybeUninit::<Chain>::uninit() }; 8];
            let Ok(n) = self.device.peek(&Anywhere, &mut chains[..count.min(8)]) else { panic!("a fault") };
            // SAFETY: `peek` initialised the first `n`.
            let chains = unsafe { chains[..n].assume_init_ref() };
            self.device.complete_burst(chains, |_| u32::from(WRITABLE) * LEN);
            return;
        }
        for _ in 0..count {
            let head = self.device.peek_chain(&Anywhere, Lookahead::default(), &mut SegList::new());
            let Ok(Some(head)) = head else { return };
            self.device.complete(head.used(if WRITABLE { head.len } else { 0 }));
        }
    }

    /// Takes back up to `count` buffers, which must come as they were lent.
    fn collect(&mut self, count: usize) -> usize {
        let mut done = [const { MaybeUninit::uninit() }; 64];
        let Ok(n) = self.driver.complete(&mut done[..count.min(64)]) else { panic!("a fault") };
        for completion in &done[..n] {
            // SAFETY: `complete` initialised the first `n`.
            let completion = unsafe { completion.assume_init() };
            assert_eq!(completion.token, self.expected);
            self.expected += 1;
        }
        n
    }

    fn recovered(&self) -> Option<u32> {
        recover(&self.memory, self.size, WRITABLE)
    }

    /// Another device goes on; false when the ring does not say where.
    fn restart(&mut self) -> bool {
        let Some(base) = self.recovered() else { return false };
        let config = DeviceConfig { size: self.size, base: Some(base), ..DeviceConfig::default() };
        let Ok(device) = Device::new(&self.memory, config) else { panic!("base {base:#x}") };
        self.device = device;
        true
    }

    /// All that was lent comes back, each buffer once and in order.
    fn drain(&mut self) {
        loop {
            self.consume(8, false);
            self.device.publish();
            if self.collect(64) == 0 {
                break;
            }
        }
        assert_eq!(self.expected, self.next);
    }
}

/// Runs `steps`: buffers are lent, used and taken back; after each, the ring is read. Buffers have up to `most` parts.
fn agree<const IN_ORDER: bool, const WRITABLE: bool>(size: u16, most: usize, steps: &[(u8, u8)]) {
    let mut bench = Bench::<IN_ORDER, WRITABLE>::new(size);
    for (step, count) in steps {
        let count = usize::from(*count);
        match step % 4 {
            0 => bench.lend(1 + count % most),
            1 => (0..count % 8).for_each(|k| bench.lend(1 + k % most)),
            2 => {
                bench.consume(1 + count % 8, step & 4 != 0);
                bench.device.publish();
            }
            _ => drop(bench.collect(1 + count % 8)),
        }
        assert_eq!(bench.recovered(), Some(bench.device.base()));
    }
    assert!(bench.restart());
    bench.drain();
}

/// As [`agree`], but the last device ends in the middle of a burst; what it left is finished.
fn dies<const IN_ORDER: bool, const WRITABLE: bool>(size: u16, most: usize, steps: &[(u8, u8)]) {
    let mut bench = Bench::<IN_ORDER, WRITABLE>::new(size);
    for (step, count) in steps {
        let count = usize::from(*count);
        bench.lend(1 + count % most);
        bench.lend(1);
        bench.consume(1 + count % 5, step & 1 != 0);
        if step & 6 != 0 {
            bench.device.publish();
        } else {
            assert!(bench.restart());
        }
        if step & 8 != 0 {
            bench.collect(64);
        }
    }
    bench.drain();
}

fn steps() -> impl Strategy<Value = Vec<(u8, u8)>> {
    prop::collection::vec(any::<(u8, u8)>(), 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 1000 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ring_says_where_its_device_stood(size in 1_u16..20, most in 1_usize..4, steps in steps()) {
        agree::<false, true>(size, most, &steps);
        agree::<false, false>(size, most, &steps);
        agree::<true, true>(size, most, &steps);
    }

    #[test]
    fn a_device_that_ends_within_a_burst_loses_and_repeats_nothing(size in 1_u16..20, most in 1_usize..4, steps in steps()) {
        dies::<false, true>(size, most, &steps);
        dies::<false, false>(size, most, &steps);
        dies::<true, true>(size, most, &steps);
    }

    #[test]
    fn any_flags_give_a_position_of_the_ring_or_none(words in prop::collection::vec(any::<u64>(), 1..12), writable: bool) {
        let size = words.len() as u16;
        let bench = Bench::<false, true>::new(size);
        for (slot, word) in words.iter().enumerate() {
            if let Some(cell) = bench.memory.desc.cell(slot * DESC_BYTES + META) {
                cell.store(*word, Release);
            }
        }
        if let Some(base) = recover(&bench.memory, size, writable) {
            assert!(base & 0x7fff < u32::from(size) && base >> 16 == base & 0xffff);
        }
    }
}

/// The ring is full, partly used, or was filled and used over and over: what a receive queue is all the time.
#[test]
fn a_full_ring_of_plain_buffers_is_always_understood() {
    let mut bench = Bench::<false, true>::new(8);
    for round in 0..100 {
        (0..8).for_each(|_| bench.lend(1));
        assert_eq!(bench.recovered(), Some(bench.device.base()), "round {round}");
        bench.consume(1 + round % 8, true);
        // Before it is published: the first is finished for it, and the ring goes on behind.
        assert!(bench.restart(), "round {round}");
        assert_eq!(bench.collect(64), if round % 8 == 0 { 0 } else { 1 + round % 8 });
    }
    bench.drain();
}
