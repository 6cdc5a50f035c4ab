//! Rings compared with crossbeam's `ArrayQueue`: bursts on one thread, and elements between two threads.

use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crossbeam::queue::ArrayQueue;
use linecard::ring::{Adaptive, Config, Hts, Mode, Multi, Rts, Single};

/// Enqueues a burst and dequeues it again.
type Trip = Box<dyn FnMut(&mut [u64])>;

const CAPACITY: usize = 4096;
/// Elements per burst between threads.
const BURST: usize = 32;

/// Enqueues and dequeues a burst on one thread: measures instructions, without transfers of cache lines.
fn one_thread(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring/one thread");
    for size in [1, 8, 32, 128] {
        group.throughput(Throughput::Elements(size as u64));
        let mut mode = |name: &str, mut burst: Trip| {
            let mut items = vec![7; size];
            group.bench_function(BenchmarkId::new(name, size), |b| b.iter(|| burst(black_box(&mut items))));
        };
        mode("sp-sc", through::<Single>());
        mode("mp-mc", through::<Multi>());
        mode("adaptive", through::<Adaptive>());
        mode("rts", through::<Rts>());
        mode("hts", through::<Hts>());
        let queue = ArrayQueue::new(CAPACITY);
        mode(
            "crossbeam ArrayQueue",
            Box::new(move |items| {
                items.iter().for_each(|&item| {
                    let _ = queue.push(item);
                });
                items.iter_mut().for_each(|item| *item = queue.pop().unwrap_or(0));
            }),
        );
    }
    group.finish();
}

fn through<M: Mode + 'static>() -> Trip {
    let (producer, consumer) = Config::power_of_two(CAPACITY).heap::<u64, M, M>().expect("room");
    Box::new(move |items| {
        let _ = producer.enqueue_bulk(items);
        let _ = consumer.dequeue_bulk(items);
    })
}

/// The same through zero-copy views.
fn views(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring/views");
    group.throughput(Throughput::Elements(BURST as u64));
    let (mut producer, mut consumer) =
        Config::power_of_two(CAPACITY).heap::<u64, Single, Single>().expect("room");
    group.bench_function("sp-sc reserve, peek", |b| {
        b.iter(|| {
            let mut slots = producer.reserve(BURST);
            while slots.write(black_box(7)).is_ok() {}
            slots.publish();
            let mut view = consumer.peek(BURST);
            while let Some(item) = view.read() {
                black_box(item);
            }
            view.release()
        });
    });
    group.finish();
}

/// One thread enqueues, another dequeues `count` elements in bursts; returns the time of the latter.
fn hand_over(
    count: u64,
    mut feed: impl FnMut(&[u64]) -> usize + Send,
    mut take: impl FnMut(&mut [u64]) -> usize,
) -> Duration {
    thread::scope(|s| {
        s.spawn(move || {
            let mut sent = 0;
            while sent < count {
                match feed(&[7; BURST]) as u64 {
                    0 => thread::yield_now(),
                    n => sent += n,
                }
            }
        });
        let (start, mut got, mut out) = (Instant::now(), 0, [0; BURST]);
        while got < count {
            match take(&mut out) as u64 {
                0 => spin_loop(),
                n => got += n,
            }
        }
        black_box(out);
        start.elapsed()
    })
}

fn two_threads(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring/two threads");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    fn mode<M: Mode + 'static>(
        group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
        name: &str,
    ) {
        group.bench_function(name, |b| {
            b.iter_custom(|count| {
                let (producer, consumer) = Config::power_of_two(CAPACITY).heap::<u64, M, M>().expect("room");
                hand_over(
                    count,
                    move |items| producer.enqueue_burst(items).count,
                    |out| consumer.dequeue_burst(out).count,
                )
            });
        });
    }
    mode::<Single>(&mut group, "sp-sc bursts of 32");
    mode::<Multi>(&mut group, "mp-mc bursts of 32");
    mode::<Adaptive>(&mut group, "adaptive bursts of 32");
    mode::<Rts>(&mut group, "rts bursts of 32");
    mode::<Hts>(&mut group, "hts bursts of 32");
    group.bench_function("crossbeam ArrayQueue", |b| {
        b.iter_custom(|count| {
            let queue = Arc::new(ArrayQueue::new(CAPACITY));
            let feeder = Arc::clone(&queue);
            hand_over(
                count,
                move |items| items.iter().take_while(|&&item| feeder.push(item).is_ok()).count(),
                |out| out.iter_mut().map_while(|slot| queue.pop().map(|item| *slot = item)).count(),
            )
        });
    });
    group.finish();
}

criterion_group!(benches, one_thread, views, two_threads);
criterion_main!(benches);
