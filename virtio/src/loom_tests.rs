//! Both rings under loom: published entries are complete when the other side sees them, and no side sleeps
//! forever.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p linecard-virtio --lib --release loom`

use core::mem::MaybeUninit;
use core::ptr::NonNull;
use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use loom::thread;

use crate::config::{DeviceConfig, DriverConfig};
use crate::layout::{Layout, RingMemory};
use crate::queue::{Access, Buffer, Chain, Completion, DeviceMemory, DeviceQueue, DriverQueue, Translation};
use crate::sync::modelled::Arena;
use crate::{DeviceSuppression, Unasked, packed, split};

/// Each address translates to itself, without memory.
struct Nowhere;

// SAFETY: nothing is ever copied through the pointers.
unsafe impl DeviceMemory for Nowhere {
    fn translate(&self, addr: u64, _: u32, _: Access) -> Option<NonNull<u8>> {
        NonNull::new(core::ptr::without_provenance_mut(addr as usize))
    }
    fn translate_part(&self, addr: u64, len: u32, access: Access) -> Translation {
        self.translate(addr, len, access).map(|start| (start, len)).into()
    }
}

const SIZE: u16 = 2;
/// Positions near the wrap of either ring.
const SPLIT_BASE: u32 = 65_535;
const PACKED_BASE: u32 = 0x8001;

fn memory(arena: &Arena, layout: Layout) -> RingMemory {
    RingMemory::in_zone(arena.bytes(layout.bytes(SIZE)), layout, SIZE).expect("large enough")
}

fn driver_config(event_idx: bool, base: u32) -> DriverConfig {
    DriverConfig { size: SIZE, event_idx, base: Some(base), indirect: None }
}

fn device_config(event_idx: bool, base: u32) -> DeviceConfig {
    DeviceConfig { size: SIZE, event_idx, base: Some(base), indirect: false }
}

fn buffer(k: u64) -> Buffer {
    Buffer { addr: 0x1000 + k, len: 100 + k as u32, token: k }
}

/// Two buffers are sent and returned, while both sides poll a bounded number of times.
fn round_trip<D: DriverQueue + 'static, V: DeviceQueue + 'static>(mut driver: D, mut device: V) {
    let other = thread::spawn(move || {
        let mut used = 0;
        for _ in 0..2 {
            let mut out = [const { MaybeUninit::<Chain>::uninit() }; 2];
            let got = device.peek(&Nowhere, &mut out).expect("honest");
            assert!(got == 0 || got == 2, "a burst is seen whole or not at all");
            // SAFETY: `peek` initialised the first `got`.
            let chains = unsafe { out[..got].assume_init_ref() };
            for (k, chain) in chains.iter().enumerate() {
                let want = buffer(k as u64 + 1);
                assert_eq!(
                    (chain.ptr as u64, chain.len),
                    (want.addr, want.len),
                    "a stale descriptor was seen"
                );
            }
            device.complete_burst(chains, |k| 50 + k as u32);
            device.publish();
            used += got;
        }
        used
    });
    assert_eq!(driver.add_burst([buffer(1), buffer(2)].into_iter()), 2);
    driver.publish();
    let mut done = 0;
    let mut collect = |driver: &mut D| {
        let mut out = [const { MaybeUninit::<Completion>::uninit() }; 2];
        let got = driver.complete(&mut out).expect("honest");
        assert!(got == 0 || got == 2, "a burst comes back whole or not at all");
        for completion in &out[..got] {
            done += 1;
            let len = if D::WRITABLE { 49 + done } else { 0 };
            // SAFETY: `complete` initialised the first `got`.
            let completion = unsafe { completion.assume_init() };
            assert_eq!(completion, Completion { token: u64::from(done), len });
        }
        done as usize
    };
    collect(&mut driver);
    let used = other.join().expect("the device did not panic");
    assert_eq!(collect(&mut driver), used);
}

/// Decides as a caller that trusts the hint: at once if the hint is true, otherwise when it is idle.
fn asks(hint: bool, mut needed: impl FnMut() -> bool) -> bool {
    hint && needed() || needed()
}

/// The device goes to sleep while the driver publishes: either the device sees the buffer, or the driver
/// kicks.
fn no_lost_kick<D: DriverQueue + 'static, V: DeviceQueue + 'static>(mut driver: D, mut device: V) {
    let kicked = Arc::new(AtomicBool::new(false));
    let bell = kicked.clone();
    let other = thread::spawn(move || device.set_notifications(true));
    driver.add(buffer(1)).expect("room");
    driver.publish();
    if asks(driver.kick_hint(), || driver.kick_needed()) {
        bell.store(true, Ordering::Relaxed);
    }
    let awake = other.join().expect("the device did not panic");
    assert!(awake || kicked.load(Ordering::Relaxed), "the device sleeps and nobody wakes it");
}

/// As `no_lost_kick`, but a third thread decides instead of the driver.
fn no_lost_kick_by_another<D: DriverQueue + 'static, V: DeviceQueue + 'static>(
    mut driver: D,
    mut device: V,
    suppression: DeviceSuppression,
) {
    let (kicked, owed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let sleeper = thread::spawn(move || device.set_notifications(true));
    let (bell, debt) = (kicked.clone(), owed.clone());
    let asker = thread::spawn(move || {
        let unasked = Unasked::from_bits(debt.swap(0, Ordering::AcqRel));
        if unasked != Unasked::default() && suppression.kick_needed(unasked) {
            bell.store(true, Ordering::Relaxed);
        }
    });
    driver.add(buffer(1)).expect("room");
    driver.publish();
    match driver.unasked() {
        // A swap, although the frontend uses a plain store: loom allows both orders of a store and a
        // concurrent swap at once.
        Some(unasked) => drop(owed.swap(unasked.bits(), Ordering::Release)),
        None => kicked.store(driver.kick_needed(), Ordering::Relaxed),
    }
    let awake = sleeper.join().expect("the device did not panic");
    asker.join().expect("the asker did not panic");
    // A later poll handles what is still owed.
    let unasked = Unasked::from_bits(owed.swap(0, Ordering::AcqRel));
    let late = unasked != Unasked::default() && suppression.kick_needed(unasked);
    assert!(awake || late || kicked.load(Ordering::Relaxed), "the device sleeps and nobody wakes it");
}

/// The driver goes to sleep while the device publishes: either the driver sees the completion, or the device
/// calls.
fn no_lost_call<D: DriverQueue + 'static, V: DeviceQueue + 'static>(mut driver: D, mut device: V) {
    driver.add(buffer(1)).expect("room");
    driver.publish();
    let mut out = [const { MaybeUninit::<Chain>::uninit() }; 1];
    assert_eq!(device.peek(&Nowhere, &mut out), Ok(1));
    // SAFETY: `peek` initialised it.
    let chain = unsafe { out[0].assume_init() };
    let other = thread::spawn(move || {
        device.complete_burst(&[chain], |_| 1);
        device.publish();
        asks(device.call_hint(), || device.call_needed())
    });
    let awake = driver.set_interrupts(true);
    let called = other.join().expect("the device did not panic");
    assert!(awake || called, "the driver sleeps and nobody wakes it");
}

macro_rules! models {
    ($($name:ident: $check:ident, $module:ident $layout:ident $base:ident, $order:literal $write:literal, $event:literal;)*) => {$(
        #[test]
        fn $name() {
            loom::model(|| {
                let arena = Box::new(Arena::default());
                let memory = memory(&arena, Layout::$layout);
                let driver = $module::Driver::<$order, $write>::new(&memory, driver_config($event, $base));
                let device = $module::Device::<$order, $write>::new(&memory, device_config($event, $base));
                $check(driver.expect("valid"), device.expect("valid"));
            });
        }
    )*};
    (by another thread: $($name:ident: $module:ident $layout:ident $base:ident, $event:literal;)*) => {$(
        #[test]
        fn $name() {
            loom::model(|| {
                let arena = Box::new(Arena::default());
                let memory = memory(&arena, Layout::$layout);
                let driver = $module::Driver::<false, true>::new(&memory, driver_config($event, $base));
                let device = $module::Device::<false, true>::new(&memory, device_config($event, $base));
                let suppression = DeviceSuppression::new(&memory, Layout::$layout, SIZE, $event);
                no_lost_kick_by_another(driver.expect("valid"), device.expect("valid"), suppression.expect("valid"));
            });
        }
    )*};
    (after a lap of hints: $($name:ident: $check:ident, $module:ident $layout:ident $base:ident, $event:literal;)*) => {$(
        #[test]
        fn $name() {
            loom::model(|| {
                let arena = Box::new(Arena::default());
                let memory = memory(&arena, Layout::$layout);
                let driver = $module::Driver::<false, true>::new(&memory, driver_config($event, $base));
                let device = $module::Device::<false, true>::new(&memory, device_config($event, $base));
                let (mut driver, mut device) = (driver.expect("valid"), device.expect("valid"));
                // With the entry that the model publishes, this is a lap of 65 536, after which an index
                // would have its old value.
                driver.published_unasked(65_535);
                device.published_unasked(65_535);
                $check(driver, device);
            });
        }
    )*};
}

models! {
    split_round_trip: round_trip, split Split SPLIT_BASE, false true, false;
    split_in_order_round_trip: round_trip, split Split SPLIT_BASE, true false, false;
    packed_round_trip: round_trip, packed Packed PACKED_BASE, false true, false;
    packed_in_order_round_trip: round_trip, packed Packed PACKED_BASE, true false, false;
    split_kick_by_flag: no_lost_kick, split Split SPLIT_BASE, false true, false;
    split_kick_by_event: no_lost_kick, split Split SPLIT_BASE, false true, true;
    packed_kick_by_flag: no_lost_kick, packed Packed PACKED_BASE, false true, false;
    packed_kick_by_event: no_lost_kick, packed Packed PACKED_BASE, false true, true;
    split_call_by_flag: no_lost_call, split Split SPLIT_BASE, false true, false;
    split_call_by_event: no_lost_call, split Split SPLIT_BASE, false true, true;
    packed_call_by_flag: no_lost_call, packed Packed PACKED_BASE, false true, false;
    packed_call_by_event: no_lost_call, packed Packed PACKED_BASE, false true, true;
}

models! {
    after a lap of hints:
    split_kick_by_flag_after_a_lap: no_lost_kick, split Split SPLIT_BASE, false;
    split_kick_by_event_after_a_lap: no_lost_kick, split Split SPLIT_BASE, true;
    packed_kick_by_flag_after_a_lap: no_lost_kick, packed Packed PACKED_BASE, false;
    packed_kick_by_event_after_a_lap: no_lost_kick, packed Packed PACKED_BASE, true;
    split_call_by_flag_after_a_lap: no_lost_call, split Split SPLIT_BASE, false;
    split_call_by_event_after_a_lap: no_lost_call, split Split SPLIT_BASE, true;
    packed_call_by_flag_after_a_lap: no_lost_call, packed Packed PACKED_BASE, false;
    packed_call_by_event_after_a_lap: no_lost_call, packed Packed PACKED_BASE, true;
}

models! {
    by another thread:
    split_kick_by_flag_and_another: split Split SPLIT_BASE, false;
    split_kick_by_event_and_another: split Split SPLIT_BASE, true;
    packed_kick_by_flag_and_another: packed Packed PACKED_BASE, false;
    packed_kick_by_event_and_another: packed Packed PACKED_BASE, true;
}
