//! Copies into and out of memory that a peer may write, compared with a plain slice copy (the lower bound)
//! and rust-vmm's `vm-memory`, which other virtio devices use.

use std::hint::black_box;
use std::ptr::NonNull;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use linecard::eal::shared::SharedBytes;
use vm_memory::{Bytes, VolatileSlice};

/// Packets of the usual lengths, and one of 64 KiB.
const LENGTHS: [usize; 7] = [64, 128, 256, 594, 1518, 9000, 65_535];

fn copies(c: &mut Criterion) {
    for len in LENGTHS {
        let mut group = c.benchmark_group("copy");
        group.throughput(Throughput::Bytes(len as u64));
        let (mut memory, mut own) = (vec![1_u8; len], vec![2_u8; len]);
        let from = vec![3_u8; len];
        group.bench_function(BenchmarkId::new("slice", len), |b| {
            b.iter(|| black_box(&mut own).copy_from_slice(black_box(&from)));
        });
        let start = NonNull::new(memory.as_mut_ptr()).expect("memory");
        // SAFETY: `memory` lives until the end of the loop, and until then only handles access it.
        let shared = unsafe { SharedBytes::new(start, len) };
        group.bench_function(BenchmarkId::new("out", len), |b| {
            b.iter(|| black_box(shared).copy_to(black_box(&mut own)));
        });
        group.bench_function(BenchmarkId::new("in", len), |b| {
            b.iter(|| black_box(shared).copy_from(black_box(&own)));
        });
        // SAFETY: `start` is valid for `len` bytes until the end of the benchmark, and only one handle is
        // used at a time.
        let theirs = unsafe { VolatileSlice::new(start.as_ptr(), len) };
        group.bench_function(BenchmarkId::new("out, vm-memory", len), |b| {
            b.iter(|| black_box(&theirs).read(black_box(&mut own), 0).ok());
        });
        group.bench_function(BenchmarkId::new("in, vm-memory", len), |b| {
            b.iter(|| black_box(&theirs).write(black_box(&own), 0).ok());
        });
        group.finish();
    }
}

criterion_group!(benches, copies);
criterion_main!(benches);
