//! Each half is the other's peer: the kernel's producer is our consumer and the reverse.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::*;

const SPREAD: Offsets = Offsets { producer: 0, consumer: 64, flags: 128, entries: 192 };

/// Words on the heap, as a mapping.
pub(crate) struct Heap(Box<[std::cell::UnsafeCell<u64>]>);

// SAFETY: the words move with the value, and no thread keeps a reference to them.
unsafe impl Send for Heap {}
// SAFETY: the words are only reached through shared cells, which are atomics.
unsafe impl Sync for Heap {}

impl Heap {
    pub(super) fn bytes(&self) -> (*mut u8, usize) {
        (self.0.as_ptr().cast::<u8>().cast_mut(), self.0.len() * 8)
    }
}

/// Both halves of one ring of `size` entries that has run up to `start`.
fn ring<const WORDS: usize>(start: u32, size: u32) -> (Producer<WORDS>, Consumer<WORDS>) {
    let words = SPREAD.bytes(size, WORDS) / 8;
    let memory =
        Arc::new(RingMapping::Heap(Heap((0..words).map(|_| std::cell::UnsafeCell::new(0)).collect())));
    let half = || Ring::<WORDS>::new(memory.clone(), SPREAD, size).expect("inside");
    half().producer.store(start, Ordering::Relaxed);
    half().consumer.store(start, Ordering::Relaxed);
    (Producer::new(half()), Consumer::new(half()))
}

#[test]
fn index_arithmetic_across_the_wrap() {
    for (producer, consumer, want) in [
        (0, 0, 0),
        (8, 0, 8),
        (3, u32::MAX - 1, 5),
        (u32::MAX, u32::MAX - 7, 7),
        // More than the ring has is a lie.
        (9, 0, 8),
        (0, 1, 8),
    ] {
        assert_eq!(ready(producer, consumer, 8), want, "{producer} {consumer}");
        assert_eq!(free(producer, consumer, 8), 8 - want, "{producer} {consumer}");
    }
}

#[test]
fn a_ring_outside_its_memory_is_none() {
    let memory = Arc::new(RingMapping::Heap(Heap((0..32).map(|_| std::cell::UnsafeCell::new(0)).collect())));
    let new = |offsets, size| Ring::<2>::new(memory.clone(), offsets, size).is_some();
    assert!(new(SPREAD, 4));
    assert!(!new(SPREAD, 8), "too long");
    assert!(!new(SPREAD, 3), "no power of two");
    assert!(!new(Offsets { flags: 256, ..SPREAD }, 4), "past the end");
    assert!(!new(Offsets { producer: 2, ..SPREAD }, 4), "misaligned");
}

#[derive(Clone, Debug)]
enum Op {
    /// Reserve so many, write so many, publish or not.
    Produce(u32, u32, bool),
    /// Peek for so many, read so many, release or not.
    Consume(u32, u32, bool),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let counts = || (0..12_u32, 0..12_u32, proptest::bool::weighted(0.9));
    let op = prop_oneof![
        counts().prop_map(|(a, b, c)| Op::Produce(a, b, c)),
        counts().prop_map(|(a, b, c)| Op::Consume(a, b, c)),
    ];
    proptest::collection::vec(op, 1..if cfg!(miri) { 30 } else { 120 })
}

/// Both halves against a queue.
fn model(start: u32, size: u32, ops: &[Op]) {
    let (mut producer, mut consumer) = ring::<2>(start, size);
    let (mut oracle, mut next) = (VecDeque::new(), 0_u64);
    for op in ops {
        match *op {
            Op::Produce(want, count, publish) => {
                let mut slots = producer.reserve(want);
                let room = size - oracle.len() as u32;
                assert!(slots.room() >= room.min(want) && slots.room() <= room);
                let written: Vec<u64> =
                    (0..count as u64).map(|i| next + i).take_while(|n| slots.write([*n, !n])).collect();
                if publish {
                    assert_eq!(slots.publish() as usize, written.len());
                    oracle.extend(&written);
                    next += written.len() as u64;
                }
            }
            Op::Consume(want, count, release) => {
                let mut entries = consumer.peek(want);
                assert_eq!(entries.len() as usize, oracle.len().min(want as usize));
                let read: Vec<_> = (0..count).map_while(|_| entries.read()).collect();
                let expected: Vec<_> = oracle.iter().take(read.len()).map(|n: &u64| [*n, !*n]).collect();
                assert_eq!(read, expected);
                if release {
                    entries.release();
                    oracle.drain(..read.len());
                }
            }
        }
        assert_eq!(producer.pending() as usize, oracle.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 6 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn agrees_with_a_queue(start in prop_oneof![Just(0), Just(u32::MAX - 5), Just(1 << 31), any::<u32>()],
                           power in 0..4_u32, ops in ops()) {
        model(start, 1 << power, &ops);
    }
}

#[test]
fn two_threads_across_the_wrap() {
    const COUNT: u64 = if cfg!(miri) { 200 } else { 200_000 };
    let (mut producer, mut consumer) = ring::<1>(u32::MAX - 100, 16);
    let writer = std::thread::spawn(move || {
        let mut next = 0;
        while next < COUNT {
            let mut slots = producer.reserve(4);
            while next < COUNT && slots.write([next]) {
                next += 1;
            }
            if slots.publish() == 0 {
                std::thread::yield_now();
            }
        }
    });
    let mut next = 0;
    while next < COUNT {
        let mut entries = consumer.peek(8);
        if entries.len() == 0 {
            std::thread::yield_now();
        }
        while let Some([value]) = entries.read() {
            assert_eq!(value, next);
            next += 1;
        }
        entries.release();
    }
    writer.join().expect("no panic");
}

#[test]
fn a_lying_peer_hands_out_no_more_than_the_ring() {
    let (mut producer, mut consumer) = ring::<1>(0, 4);
    consumer.ring.producer.store(1_000, Ordering::Relaxed);
    let mut entries = consumer.peek(64);
    assert_eq!(std::iter::from_fn(|| entries.read()).count(), 4);
    producer.ring.consumer.store(77, Ordering::Relaxed);
    let slots = producer.reserve(5);
    assert_eq!(slots.room(), 0);
}

#[test]
fn the_flag_is_read() {
    let (producer, _) = ring::<1>(0, 4);
    assert!(!producer.needs_wakeup());
    producer.ring.flags.store(libc::XDP_RING_NEED_WAKEUP, Ordering::Relaxed);
    assert!(producer.needs_wakeup());
}
