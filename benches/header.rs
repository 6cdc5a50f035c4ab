//! Headers: the cost of parsing a frame, of hashing its flow, and of reading and writing the virtio-net
//! header.
//!
//! Compared with the same header accesses through rust-vmm's `vm-memory`, and with a manual parser of the two
//! headers that every packet has.

use std::hint::black_box;
use std::ptr::NonNull;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use linecard::eal::shared::SharedBytes;
use linecard::net::ether::Ethernet;
use linecard::net::ip::Ipv4;
use linecard::net::{Header, parse, toeplitz::Toeplitz};
use linecard::virtio::net::NetHeader;
use vm_memory::{ByteValued, Bytes, VolatileSlice};

/// Returns the first bytes of a packet of each kind, by name.
fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let mut udp = vec![0_u8; 64];
    udp[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
    udp[16..18].copy_from_slice(&50_u16.to_be_bytes());
    udp[22..24].copy_from_slice(&[64, 17]);
    udp[38..40].copy_from_slice(&30_u16.to_be_bytes());
    let mut tcp = udp.clone();
    (tcp[23], tcp[46]) = (6, 0x50);
    let mut tagged = tcp[..12].to_vec();
    tagged.extend([0x81, 0x00, 0, 5]);
    tagged.extend(&tcp[12..60]);
    let mut six = vec![0_u8; 80];
    six[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
    six[18..21].copy_from_slice(&[0, 26, 17]);
    six[58..60].copy_from_slice(&26_u16.to_be_bytes());
    vec![("udp", udp), ("tcp", tcp), ("vlan tcp", tagged), ("ipv6 udp", six)]
}

fn parsing(c: &mut Criterion) {
    let mut group = c.benchmark_group("header/parse");
    group.throughput(Throughput::Elements(1));
    let hash = Toeplitz::DEFAULT;
    for (name, frame) in frames() {
        assert!(parse(&frame).packet_type.l4() != linecard::net::PacketType::UNKNOWN, "{name}");
        group.bench_function(BenchmarkId::new("layers", name), |b| b.iter(|| parse(black_box(&frame))));
        let layers = parse(&frame);
        assert!(hash.flow(&frame, &layers).is_some(), "{name}");
        group.bench_function(BenchmarkId::new("flow hash", name), |b| {
            b.iter(|| hash.flow(black_box(&frame), black_box(&layers)))
        });
    }
    let (_, frame) = frames().swap_remove(0);
    group.bench_function("views by hand/udp", |b| {
        b.iter(|| {
            let (ether, rest) = Ethernet::view(black_box(&frame))?;
            let (ip, _) = Ipv4::view(rest)?;
            Some((ether.ether_type.get(), ip.protocol, ip.total_length.get()))
        });
    });
    group.finish();
}

/// The memory layout of `struct virtio_net_hdr_v1`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Raw {
    flags: u8,
    gso_type: u8,
    words: [u16; 5],
}

// SAFETY: integers without padding, so any bytes are a valid value.
unsafe impl ByteValued for Raw {}

fn virtio_net(c: &mut Criterion) {
    let mut group = c.benchmark_group("header/virtio-net");
    group.throughput(Throughput::Elements(1));
    let mut memory = vec![0_u8; 64];
    let start = NonNull::new(memory.as_mut_ptr()).expect("memory");
    // SAFETY: `memory` lives until the end of the function, and until then only handles access it.
    let shared = unsafe { SharedBytes::new(start, 64) };
    group.bench_function("read", |b| {
        b.iter(|| {
            let mut bytes = [0; 12];
            black_box(shared).copy_to(&mut bytes);
            NetHeader::from_bytes(bytes).request(black_box(60))
        });
    });
    group.bench_function("write", |b| {
        let header = NetHeader { num_buffers: 1, ..NetHeader::default() };
        b.iter(|| black_box(shared).copy_from(&black_box(header).to_bytes()));
    });
    // SAFETY: `start` is valid for 64 bytes until the end of the benchmark, and only one handle is used at a
    // time.
    let theirs = unsafe { VolatileSlice::new(start.as_ptr(), 64) };
    group.bench_function("read/vm-memory", |b| {
        b.iter(|| {
            black_box(&theirs).read_obj::<Raw>(0).map(|raw| (raw.flags, raw.gso_type, raw.words[4])).ok()
        });
    });
    group.bench_function("write/vm-memory", |b| {
        let raw = Raw { words: [0, 0, 0, 0, 1], ..Raw::default() };
        b.iter(|| black_box(&theirs).write_obj(black_box(raw), 0).ok());
    });
    group.finish();
}

criterion_group!(benches, parsing, virtio_net);
criterion_main!(benches);
