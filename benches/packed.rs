//! One burst of 32 through a packed ring and back.

mod queues;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use linecard::virtio::{Layout, packed};
use queues::{BURST, Loop, Place, memory};

fn packed_ring(c: &mut Criterion) {
    let mut group = c.benchmark_group("packed");
    group.throughput(Throughput::Elements(BURST as u64));
    let guest = memory();
    let place = Place::new(&guest);
    macro_rules! case {
        ($name:literal, $order:literal, $write:literal) => {
            let (driver, device) =
                (packed::Driver::<$order, $write>::new, packed::Device::<$order, $write>::new);
            let mut turn = Loop::new(&place, Layout::Packed, driver, device);
            group.bench_function($name, |b| b.iter(|| turn.turn()));
        };
    }
    case!("transmit", false, false);
    case!("receive", false, true);
    case!("transmit in order", true, false);
    case!("receive in order", true, true);
    group.finish();
}

criterion_group!(benches, packed_ring);
criterion_main!(benches);
