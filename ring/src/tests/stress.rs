//! Threads: every element comes out exactly once, and in order per producer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::{Adaptive, Config, Consumer, Hts, Mode, Multi, MultiThread, Producer, Rts, Single};

const EACH: u64 = if cfg!(miri) { 60 } else { 80_000 };

/// Sends `EACH` numbers, tagged with the producer's number, in bursts of changing size.
fn produce<M: Mode>(producer: &Producer<u64, M>, tag: u64) {
    let mut sent = 0;
    let mut size = 1;
    while sent < EACH {
        let items: Vec<u64> = (sent..EACH.min(sent + size)).map(|n| tag << 32 | n).collect();
        let count = match size % 3 {
            0 => producer.enqueue_bulk(&items).count,
            1 => producer.enqueue_burst(&items).count,
            _ => usize::from(producer.enqueue(items[0]).is_ok()),
        };
        sent += count as u64;
        size = size % 40 + 1;
        if count == 0 {
            thread::yield_now();
        }
    }
}

/// Takes elements until `total` were taken by all consumers together.
fn consume<M: Mode>(consumer: &Consumer<u64, M>, taken: &AtomicU64, total: u64) -> Vec<u64> {
    let mut got = Vec::new();
    let mut out = [0; 48];
    while taken.load(Ordering::Relaxed) < total {
        let count = consumer.dequeue_burst(&mut out).count;
        got.extend(&out[..count]);
        taken.fetch_add(count as u64, Ordering::Relaxed);
        if count == 0 {
            thread::yield_now();
        }
    }
    got
}

/// Each consumer saw rising numbers from each producer, and all of them together saw each number once.
fn verify(seen: Vec<Vec<u64>>, producers: u64) {
    for got in &seen {
        for tag in 0..producers {
            let mut of_one = got.iter().filter(|&&item| item >> 32 == tag);
            let mut last = of_one.next();
            for item in of_one {
                assert!(Some(item) > last, "out of order: {item:#x} after {last:#x?}");
                last = Some(item);
            }
        }
    }
    let mut all: Vec<_> = seen.into_iter().flatten().collect();
    all.sort_unstable();
    let want: Vec<_> = (0..producers).flat_map(|tag| (0..EACH).map(move |n| tag << 32 | n)).collect();
    assert!(all == want, "lost, doubled or invented elements");
}

fn many<P: MultiThread, C: MultiThread>(capacity: usize) {
    let config = Config::exact(capacity).start_index(u32::MAX - 1000);
    let (producer, consumer) = config.heap::<u64, P, C>().expect("room");
    let taken = AtomicU64::new(0);
    let taken = &taken;
    let seen = thread::scope(|s| {
        for tag in 0..3 {
            let producer = producer.clone();
            s.spawn(move || produce(&producer, tag));
        }
        let second = consumer.clone();
        let consumers =
            [consumer, second].map(|consumer| s.spawn(move || consume(&consumer, taken, 3 * EACH)));
        consumers.into_iter().map(|c| c.join().expect("consumer")).collect()
    });
    verify(seen, 3);
}

#[test]
fn multi_moves_each_element_once() {
    many::<Multi, Multi>(100);
}

#[test]
fn rts_moves_each_element_once() {
    many::<Rts, Rts>(100);
}

#[test]
fn hts_moves_each_element_once() {
    many::<Hts, Hts>(100);
}

#[test]
fn adaptive_moves_each_element_once() {
    many::<Adaptive, Adaptive>(100);
}

/// Threads come and go, so that the handles change between alone and not.
#[test]
fn adaptive_handles_come_and_go() {
    let (producer, consumer) = Config::exact(64).heap::<u64, Adaptive, Single>().expect("room");
    let total = EACH / 10 * 8;
    let mut seen = thread::scope(|s| {
        let feeder = s.spawn(move || {
            let part = |producer: &Producer<u64, Adaptive>, from: u64| {
                for item in from..from + EACH / 10 {
                    while producer.enqueue(item).is_err() {
                        thread::yield_now();
                    }
                }
            };
            for turn in 0..4 {
                let other = producer.clone();
                let from = turn * 2 * (EACH / 10);
                thread::scope(|s| {
                    s.spawn(move || part(&other, from));
                    part(&producer, from + EACH / 10);
                });
            }
        });
        let mut got = Vec::new();
        while (got.len() as u64) < total {
            match consumer.dequeue() {
                Some(item) => got.push(item),
                None => thread::yield_now(),
            }
        }
        feeder.join().expect("feeder");
        got
    });
    seen.sort_unstable();
    assert!(seen.iter().copied().eq(0..total), "lost or doubled elements");
}

#[test]
fn mixed_modes_move_each_element_once() {
    many::<Multi, Hts>(48);
    many::<Rts, Multi>(512);
}

#[test]
fn single_moves_each_element_once() {
    for capacity in [48, 64, 1024] {
        let config = Config::exact(capacity).start_index(u32::MAX - 1000);
        let (producer, consumer) = config.heap::<u64, Single, Single>().expect("room");
        let taken = AtomicU64::new(0);
        let seen = thread::scope(|s| {
            s.spawn(move || produce(&producer, 0));
            consume(&consumer, &taken, EACH)
        });
        verify(vec![seen], 1);
    }
}

#[test]
fn views_move_each_element_once() {
    let (mut producer, mut consumer) = Config::exact(100).heap::<u64, Single, Hts>().expect("room");
    let seen = thread::scope(|s| {
        s.spawn(move || {
            let mut next = 0;
            while next < EACH {
                let mut view = producer.reserve(20);
                while next < EACH && view.write(next).is_ok() {
                    next += 1;
                }
                if view.publish() == 0 {
                    thread::yield_now();
                }
            }
        });
        let mut seen = Vec::new();
        while (seen.len() as u64) < EACH {
            let mut view = consumer.peek(33);
            seen.extend(std::iter::from_fn(|| view.read()));
            if view.release() == 0 {
                thread::yield_now();
            }
        }
        seen
    });
    verify(vec![seen], 1);
}
