//! One burst of 32 through a split ring and back: with our device, and with `virtio-queue` as the device for
//! comparison.

mod queues;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use linecard::virtio::{Layout, RingAddrs, split};
use queues::{BURST, Loop, Place, SIZE, memory};
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;

/// Returns a round trip with our driver, and rust-vmm's queue as the device.
fn outside<'g>(place: &Place, guest: &'g GuestMemoryMmap) -> impl FnMut() + use<'g> {
    let (driver, device) = (split::Driver::<false, true>::new, split::Device::<false, true>::new);
    let mut ours = Loop::new(place, Layout::Split, driver, device);
    let addrs = RingAddrs::at(0, Layout::Split, SIZE);
    let mut theirs = Queue::new(SIZE).expect("a power of two");
    theirs.set_desc_table_address(Some(addrs.desc as u32), Some(0));
    theirs.set_avail_ring_address(Some(addrs.driver as u32), Some(0));
    theirs.set_used_ring_address(Some(addrs.device as u32), Some(0));
    theirs.set_ready(true);
    move || {
        ours.add();
        for _ in 0..BURST {
            let mut chain = theirs.pop_descriptor_chain(guest).expect("available");
            let (head, desc) = (chain.head_index(), chain.next().expect("one descriptor"));
            std::hint::black_box(desc.addr());
            theirs.add_used(guest, head, 60).expect("a valid head");
        }
        ours.collect();
    }
}

fn split_ring(c: &mut Criterion) {
    let mut group = c.benchmark_group("split");
    group.throughput(Throughput::Elements(BURST as u64));
    let guest = memory();
    let place = Place::new(&guest);
    macro_rules! case {
        ($name:literal, $order:literal, $write:literal) => {
            let (driver, device) =
                (split::Driver::<$order, $write>::new, split::Device::<$order, $write>::new);
            let mut turn = Loop::new(&place, Layout::Split, driver, device);
            group.bench_function($name, |b| b.iter(|| turn.turn()));
        };
    }
    case!("transmit", false, false);
    case!("receive", false, true);
    case!("transmit in order", true, false);
    case!("receive in order", true, true);
    let mut turn = outside(&place, &guest);
    group.bench_function("receive, device by virtio-queue", |b| b.iter(&mut turn));
    group.finish();
}

criterion_group!(benches, split_ring);
criterion_main!(benches);
