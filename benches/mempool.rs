//! Packets in bulk from a pool and back, compared with a queue of pointers shared by all threads.

use std::hint::black_box;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crossbeam::queue::ArrayQueue;
use linecard::eal::{Memory, MemoryConfig};
use linecard::mempool::{Burst, Meta, Pool, PoolConfig};

const PACKETS: u32 = 8192;

fn pool(cache: u16) -> Pool {
    let domain = Memory::new(MemoryConfig::default()).unwrap().domain("bench").unwrap();
    Pool::new(&domain, PoolConfig::default().packets(PACKETS).cache(cache)).unwrap()
}

/// Gets `n` packets in bulks of at most 32, then puts them back, as DPDK's `mempool_perf_autotest` does.
fn raw(pool: &Pool, n: usize) {
    let mut held = [MaybeUninit::<NonNull<Meta>>::uninit(); 512];
    let (held, _) = held.split_at_mut(n);
    for bulk in held.chunks_mut(32) {
        pool.get_raw(bulk).unwrap();
    }
    let held = black_box(held);
    for bulk in held.chunks(32) {
        // SAFETY: `get_raw` initialized every element.
        let bulk = unsafe { &*(&raw const *bulk as *const [NonNull<Meta>]) };
        // SAFETY: they came from this pool and still have the state of free packets: 0.
        unsafe { pool.put_raw(bulk) };
    }
}

fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("mempool");
    let (cached, uncached) = (pool(128), pool(0));
    for n in [1, 4, 8, 32, 128, 512] {
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function(BenchmarkId::new("cached", n), |b| b.iter(|| raw(&cached, n)));
        group.bench_function(BenchmarkId::new("uncached", n), |b| b.iter(|| raw(&uncached, n)));
        let queue = ArrayQueue::new(PACKETS as usize);
        (0..PACKETS as usize).for_each(|i| _ = queue.push(i));
        group.bench_function(BenchmarkId::new("array_queue", n), |b| {
            let mut held = [0; 512];
            b.iter(|| {
                held[..n].iter_mut().for_each(|place| *place = queue.pop().unwrap());
                black_box(&mut held)[..n].iter().for_each(|&item| queue.push(item).unwrap());
            });
        });
    }
    group.throughput(Throughput::Elements(32));
    group.bench_function("burst/32", |b| {
        let mut burst = Burst::new();
        b.iter(|| {
            cached.get_bulk(&mut burst, 32).unwrap();
            black_box(&mut burst).clear()
        });
    });
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
