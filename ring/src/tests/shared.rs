//! Rings in memory given by the caller, and peers that scribble on them.

use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::{Config, Consumer, Error, Hts, Mode, Multi, Producer, Rts, SharedMemory, Single};

const LEN: usize = 8192;

#[repr(C, align(128))]
struct Page(UnsafeCell<[u8; LEN]>);

// SAFETY: only rings and single-threaded tests touch the bytes.
unsafe impl Send for Page {}
// SAFETY: only rings and single-threaded tests touch the bytes.
unsafe impl Sync for Page {}

fn page() -> Arc<Page> {
    Arc::new(Page(UnsafeCell::new([0xee; LEN])))
}

fn part(page: &Arc<Page>, skip: usize, len: usize) -> SharedMemory {
    let start = NonNull::new(page.0.get().cast::<u8>()).expect("an object's address");
    // SAFETY: the tests stay inside the page.
    let start = unsafe { start.add(skip) };
    // SAFETY: inside the page, which is kept.
    unsafe { SharedMemory::new(start, len) }.keeping(page.clone())
}

fn whole(page: &Arc<Page>) -> SharedMemory {
    part(page, 0, LEN)
}

fn make<P: Mode, C: Mode>(page: &Arc<Page>) -> (Producer<u64, P>, Consumer<u64, C>) {
    // SAFETY: the page is fresh; handles of single sides are used one at a time by the tests.
    unsafe { Config::exact(100).watermark(80).in_memory(whole(page)) }.expect("the page is large enough")
}

fn attach<M: Mode>(page: &Arc<Page>) -> Result<Consumer<u64, M>, Error> {
    // SAFETY: the tests use one handle at a time.
    unsafe { Consumer::attach(whole(page)) }
}

/// Overwrites a field of the header.
fn scribble(page: &Arc<Page>, offset: usize, value: u32) {
    let at = page.0.get().cast::<u8>();
    // SAFETY: the offsets of the tests lie inside the page.
    let at = unsafe { at.add(offset) }.cast::<u32>();
    // SAFETY: aligned and inside the page; accessed as an atomic of this size only.
    unsafe { AtomicU32::from_ptr(at) }.store(value, Ordering::Relaxed);
}

/// Overwrites both halves of an index cell.
fn scribble_index(page: &Arc<Page>, offset: usize, value: u32) {
    let at = page.0.get().cast::<u8>();
    // SAFETY: the offsets of the tests lie inside the page.
    let at = unsafe { at.add(offset) }.cast::<u64>();
    let value = u64::from(value.rotate_left(13)) << 32 | u64::from(value);
    // SAFETY: aligned and inside the page; accessed as an atomic of this size only.
    unsafe { AtomicU64::from_ptr(at) }.store(value, Ordering::Relaxed);
}

#[test]
fn a_second_handle_goes_on_where_the_first_stopped() {
    let page = page();
    let (producer, consumer) = make::<Multi, Single>(&page);
    assert_eq!(producer.enqueue_bulk(&[1, 2, 3, 4]).count, 4);
    assert_eq!(consumer.dequeue(), Some(1));
    drop(consumer);
    let consumer = attach::<Single>(&page).expect("a ring");
    assert_eq!(consumer.capacity(), 100);
    assert_eq!(consumer.dequeue(), Some(2));
    drop(producer);
    // SAFETY: producers are multi.
    let producer = unsafe { Producer::<u64, Multi>::attach(whole(&page)) }.expect("a ring");
    assert!(producer.enqueue_bulk(&[5; 78]).high, "the watermark is part of the ring");
    assert_eq!(consumer.count(), 80);
}

#[test]
fn refuses_what_is_no_such_ring() {
    let page = page();
    let refusal = |result: Result<Consumer<u64, Single>, Error>| result.err();
    assert_eq!(refusal(attach(&page)), Some(Error::NotARing));
    drop(make::<Multi, Single>(&page));
    // SAFETY: nothing is attached after an error.
    let other = unsafe { Consumer::<u32, Single>::attach(whole(&page)) };
    assert_eq!(other.err(), Some(Error::Element { found: 8, want: 4 }));
    assert_eq!(attach::<Hts>(&page).err(), Some(Error::Mode { found: "single", want: "hts" }));
    // SAFETY: nothing is attached after an error.
    let other = unsafe { Producer::<u64, Single>::attach(whole(&page)) };
    assert_eq!(other.err(), Some(Error::Mode { found: "multi", want: "single" }));
    let need = Config::exact(100).bytes::<u64>().expect("small");
    // SAFETY: nothing is attached after an error.
    let short = unsafe { Consumer::<u64, Single>::attach(part(&page, 0, need - 1)) };
    assert_eq!(short.err(), Some(Error::RegionTooSmall { have: need - 1, need }));
    // SAFETY: nothing is attached after an error.
    let shifted = unsafe { Consumer::<u64, Single>::attach(part(&page, 64, 4096)) };
    assert!(matches!(shifted.err(), Some(Error::Misaligned { align: 128, .. })));
}

#[test]
fn refuses_memory_that_is_too_short_to_format() {
    let page = page();
    // SAFETY: unused.
    let made = unsafe { Config::exact(100).in_memory::<u64, Multi, Multi>(part(&page, 0, 256)) };
    let need = Config::exact(100).bytes::<u64>().expect("small");
    assert_eq!(made.err(), Some(Error::RegionTooSmall { have: 256, need }));
}

#[test]
fn refuses_a_header_that_contradicts_itself() {
    // Offsets of capacity, slots, watermark; see `layout`.
    for (offset, value, want) in [
        (8, 7, Error::Version { found: 7, want: 1 }),
        (16, 0, Error::BadHeader),
        (16, 129, Error::BadHeader),
        (20, 0, Error::BadHeader),
        (20, 127, Error::BadHeader),
        (20, 64, Error::BadHeader),
        (24, 101, Error::BadHeader),
        (20, 1 << 31, Error::RegionTooSmall { have: LEN, need: 640 + (8 << 31) }),
    ] {
        let page = page();
        drop(make::<Multi, Single>(&page));
        scribble(&page, offset, value);
        assert_eq!(attach::<Single>(&page).err(), Some(want), "{value} at {offset}");
    }
}

/// Whatever a peer writes to any index, at any time, bursts stay inside the ring and the counts they return
/// stay inside the caller's slices; private indices do not follow.
#[test]
fn scribbled_indices_stay_in_bounds() {
    let values = [0, 1, 99, 100, 101, 128, 0x7fff_ffff, 0x8000_0000, 0xffff_ff00, u32::MAX];
    for offset in [128, 256, 384, 512] {
        for value in values {
            survive::<Single, Single>(offset, value);
        }
    }
    for value in values {
        // Only cells that nobody waits for: what another process may write where sides share a head is
        // garbage in, garbage out, or a wait.
        survive::<Multi, Single>(512, value);
        survive::<Single, Multi>(256, value);
        survive::<Rts, Single>(512, value);
        survive::<Single, Hts>(256, value);
        survive::<Hts, Single>(512, value);
    }
}

fn survive<P: Mode, C: Mode>(offset: usize, value: u32) {
    let page = page();
    let (producer, consumer) = make::<P, C>(&page);
    assert_eq!(producer.enqueue_bulk(&[3; 50]).count, 50);
    scribble_index(&page, offset, value);
    for _ in 0..20 {
        let mut out = [0; 33];
        assert!(producer.enqueue_burst(&[4; 33]).count <= 33);
        assert!(consumer.dequeue_burst(&mut out).count <= 33);
        assert!(producer.count() <= 100 && consumer.count() <= 100);
        assert!(producer.free_count() <= 100 && consumer.free_count() <= 100);
        scribble_index(&page, offset, value.rotate_left(7));
    }
    // The bytes behind the slots were never touched.
    let end = Config::exact(100).bytes::<u64>().expect("small");
    let at = page.0.get().cast::<u8>();
    // SAFETY: inside the page.
    let at = unsafe { at.add(end) };
    // SAFETY: the rest of the page, which no ring uses.
    let rest = unsafe { std::slice::from_raw_parts(at, LEN - end) };
    assert!(rest.iter().all(|&byte| byte == 0xee));
}
