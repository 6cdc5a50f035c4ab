//! Which packed rings show that they were used.

use std::mem::MaybeUninit;
use std::ptr::NonNull;

use linecard_virtio::model::Zone;
use linecard_virtio::{
    Access, Buffer, DeviceMemory, DeviceQueue, DriverConfig, DriverQueue, Lookahead, SegList, Translation,
    packed,
};

use super::*;

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

/// Where the device stood after each of `steps` buffers; after each, `check` sees all that and the ring. The driver keeps
/// `ahead` buffers available.
fn run<const WRITABLE: bool>(
    size: u16,
    ahead: usize,
    steps: usize,
    mut check: impl FnMut(&[u32], &RingMemory),
) {
    let zone = Zone::new(Layout::Packed.bytes(size));
    let memory = RingMemory::in_zone(zone.bytes(), Layout::Packed, size).expect("room");
    let driver = DriverConfig::default().size(size);
    let mut driver = packed::Driver::<false, WRITABLE>::new(&memory, driver).expect("a driver");
    let device = DeviceConfig::default().size(size);
    let mut device = packed::Device::<false, WRITABLE>::new(&memory, device).expect("a device");
    let mut stood = vec![device.base()];
    for token in 0..steps {
        while device.available() < ahead as u16 {
            driver.add(Buffer { addr: 4096, len: 64, token: token as u64 }).expect("room");
            driver.publish();
        }
        check(&stood, &memory);
        let head = device.peek_chain(&Anywhere, Lookahead::default(), &mut SegList::new());
        device.complete(head.expect("no fault").expect("a buffer").used(0));
        device.publish();
        stood.push(device.base());
        check(&stood, &memory);
        let done = driver.complete(&mut [const { MaybeUninit::uninit() }; 1]).expect("no fault");
        assert_eq!(done, 1);
    }
}

#[test]
fn a_packed_ring_shows_that_it_was_used() {
    for size in [2u16, 5, 8] {
        let steps = 6 * usize::from(size);
        for ahead in 1..=usize::from(size) {
            let at_start = |stood: &[u32], memory: &RingMemory| {
                let now = *stood.last().expect("a position");
                assert!(!ran_past(now, size, memory), "{size} {ahead}: {now:#x}");
                let used = ran_past(stood[0], size, memory);
                assert_eq!(used, now != stood[0], "{size} {ahead}: at {now:#x}");
            };
            run::<true>(size, ahead, steps, at_start);
            run::<false>(size, ahead, steps, at_start);
        }
    }
}

/// A frontend may also begin where a ring stood when it was stopped long ago.
#[test]
fn a_position_of_long_ago_is_told_from_the_present() {
    for size in [2u16, 5, 8] {
        run::<false>(size, 1, 6 * usize::from(size), |stood, memory| {
            let now = *stood.last().expect("a position");
            // The next buffer may be there already, in the place of one that told of it.
            for then in stood.iter().rev().take(usize::from(size)) {
                assert_eq!(ran_past(*then, size, memory), *then != now, "{size}: {then:#x}, {now:#x}");
            }
        });
    }
}
