//! One thread: the model, sizes, watermark.

use proptest::prelude::*;

use crate::model::{Op, run};
use crate::{Config, Error, Hts, Multi, Rts, Single, mpmc, spsc};

const CASES: u32 = if cfg!(miri) { 2 } else { 256 };

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_deque(
        capacity in prop_oneof![0..9_u8, any::<u8>()],
        before_wrap in 0..600_u32,
        ops in prop::collection::vec(any::<[u8; 3]>(), 0..if cfg!(miri) { 24 } else { 120 }),
    ) {
        let ops: Vec<_> = ops.into_iter().map(Op::from_bytes).collect();
        run(capacity, 0_u32.wrapping_sub(before_wrap), &ops)?;
    }
}

#[test]
fn laps_of_every_burst_size_agree_with_a_deque() {
    let sizes = if cfg!(miri) { 2..4 } else { 1..40 };
    for size in sizes {
        let ops: Vec<_> = (0..if cfg!(miri) { 12 } else { 40 })
            .flat_map(|_| [Op::EnqueueBulk(size), Op::DequeueBurst(size), Op::Dequeue])
            .collect();
        run(63, u32::MAX - 100, &ops).expect("room");
        run(size, u32::MAX - 7, &ops).expect("room");
    }
}

#[test]
fn refuses_bad_sizes_with_a_remedy() {
    let refuse = |config: Config| config.heap::<u64, Multi, Multi>().map(|_| ()).map_err(|e| e.to_string());
    let says = |text: &str| Err(text.to_owned());
    assert_eq!(refuse(Config::power_of_two(0)), says("ring capacity is 0; ask for at least 1 element"));
    assert_eq!(refuse(Config::exact(0)), says("ring capacity is 0; ask for at least 1 element"));
    assert_eq!(
        refuse(Config::power_of_two(1000)),
        says("ring capacity 1000 is not a power of two; use 1024, or ask for an exact capacity")
    );
    assert_eq!(
        refuse(Config::exact((1 << 31) + 1)),
        says("ring capacity 2147483649 is too big; ask for at most 2147483648")
    );
    assert_eq!(
        refuse(Config::power_of_two(usize::MAX)),
        says("ring capacity 18446744073709551615 is too big; ask for at most 2147483648")
    );
    assert_eq!(
        refuse(Config::exact(8).watermark(9)),
        says("ring watermark 9 is out of range; choose 1 to 8")
    );
    assert_eq!(
        refuse(Config::exact(8).watermark(0)),
        says("ring watermark 0 is out of range; choose 1 to 8")
    );
}

#[test]
fn refuses_what_memory_cannot_hold() {
    let huge = Config::power_of_two(1 << 31).heap::<[u64; 1 << 30], Single, Single>();
    assert_eq!(huge.map(|_| ()), Err(Error::OutOfMemory { bytes: usize::MAX }));
}

#[test]
fn holds_exactly_its_capacity() {
    for capacity in [1, 2, 3, 31, 32, 33] {
        let (producer, consumer) = Config::exact(capacity).heap::<u16, Rts, Hts>().expect("room");
        assert_eq!(producer.enqueue_burst(&[9; 64]).count, capacity);
        assert_eq!((producer.free_count(), consumer.count()), (0, capacity));
        assert_eq!(consumer.dequeue_burst(&mut [0; 64]).count, capacity);
    }
}

#[test]
fn reports_the_watermark_from_its_first_to_its_last_element() {
    let (producer, consumer) =
        Config::power_of_two(8).watermark(6).heap::<u8, Multi, Single>().expect("room");
    let high: Vec<_> = (0..8).map(|i| producer.enqueue_bulk(&[i]).high).collect();
    assert_eq!(high, [false, false, false, false, false, true, true, true]);
    assert!(producer.enqueue_bulk(&[8]).high, "a full ring is high too");
    // The producers' cached view still says full; the report must not.
    assert_eq!(consumer.dequeue_bulk(&mut [0; 7]).count, 7);
    assert!(!producer.enqueue_bulk(&[9]).high);
}

#[test]
fn a_dropped_or_partial_view_gives_slots_back() {
    let (mut producer, mut consumer) = Config::exact(6).heap::<u32, Hts, Hts>().expect("room");
    let other = producer.clone();
    let mut view = producer.reserve(6);
    view.write(1).expect("room");
    drop(view);
    assert_eq!(other.free_count(), 6);
    let mut view = producer.reserve_bulk(4).expect("room");
    assert_eq!(view.write_slice(&[1, 2]), 2);
    assert_eq!(view.publish(), 2);
    assert!(producer.reserve_bulk(5).is_none());
    assert_eq!(other.enqueue_bulk(&[3, 4, 5, 6]).count, 4);
    drop(consumer.peek(3));
    let mut view = consumer.peek(5);
    view.skip(2);
    assert_eq!(view.read(), Some(3));
    assert_eq!(view.release(), 3);
    assert_eq!(consumer.dequeue(), Some(4));
}

#[test]
fn moves_elements_of_any_size() {
    fn through<T: Copy + Send + PartialEq + std::fmt::Debug>(value: T) {
        let (producer, consumer) = spsc::ring::<T>(64).expect("room");
        for count in 0..64 {
            assert_eq!(producer.enqueue_bulk(&vec![value; count]).count, count);
            let mut out: Vec<T> = Vec::with_capacity(count);
            assert_eq!(consumer.dequeue_bulk_uninit(&mut out.spare_capacity_mut()[..count]).count, count);
            // SAFETY: the bulk came whole.
            unsafe { out.set_len(count) };
            assert!(out.iter().all(|item| *item == value));
        }
    }
    through(());
    through(0xa5_u8);
    through([1_u8, 2, 3]);
    through(0x0123_4567_u32);
    through((1_u64, 2_u64));
    through([7_u64; 9]);
    through(("text", 5_u8));
}

#[test]
fn an_empty_burst_moves_nothing() {
    let (producer, consumer) = mpmc::ring::<u64>(4).expect("room");
    assert_eq!(producer.enqueue_bulk(&[]).count, 0);
    assert_eq!(consumer.dequeue_bulk(&mut []).count, 0);
    assert_eq!(producer.free_count(), 4);
}

fn send<T: Send>(_: &T) {}
fn sync<T: Sync + Clone>(_: &T) {}

#[test]
fn handles_cross_threads_as_their_mode_allows() {
    let (producer, consumer) = spsc::ring::<u64>(4).expect("room");
    send(&producer);
    send(&consumer);
    let (producer, consumer) = Config::exact(4).heap::<u64, Rts, Hts>().expect("room");
    send(&producer);
    sync(&producer);
    sync(&consumer);
}

/// Bursts of every length, at every place of the ring: the copies go by lines, halves of lines and around the end.
fn every_burst<T: Copy + Send + PartialEq + std::fmt::Debug>(element: impl Fn(u8) -> T) {
    let most = if cfg!(miri) { 20 } else { 70 };
    let config = Config::exact(most).start_index(u32::MAX - 100);
    let (producer, consumer) = config.heap::<T, Single, Single>().expect("room");
    let mut next = 0_u8;
    for count in 0..=most {
        let items: Vec<T> = (0..count)
            .map(|_| {
                next = next.wrapping_add(1);
                element(next)
            })
            .collect();
        for bulk in [true, false] {
            let put = if bulk { producer.enqueue_bulk(&items) } else { producer.enqueue_burst(&items) };
            assert_eq!(put.count, count);
            let mut out = vec![element(0); count + 1];
            let got = if bulk {
                consumer.dequeue_bulk(&mut out[..count])
            } else {
                consumer.dequeue_burst(&mut out)
            };
            assert_eq!(got.count, count);
            assert_eq!((&out[..count], out[count]), (&items[..], element(0)));
        }
    }
}

#[test]
fn bursts_of_elements_of_any_size_arrive_whole() {
    every_burst(|n| n);
    every_burst(|n| [n, !n]);
    every_burst(|n| [n; 3]);
    every_burst(u32::from);
    every_burst(u64::from);
    every_burst(|n| [u64::from(n), !u64::from(n)]);
    every_burst(|n| [u64::from(n); 3]);
    every_burst(|n| [n; 64]);
    every_burst(|n| [n; 192]);
    every_burst(|_| ());
}
