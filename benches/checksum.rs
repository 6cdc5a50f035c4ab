//! The Internet checksum compared with the textbook's loop (RFC 1071, section 4.1), and the cost of
//! completing a packet's checksums.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use linecard::net::checksum::{checksum, update};
use linecard::net::{offload, parse};

const LENGTHS: [usize; 6] = [20, 64, 256, 1500, 9000, 65_535];

/// The algorithm of the RFC, word by word.
fn textbook(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<2>();
    let mut sum: u32 = words.iter().fold(0, |sum, word| {
        let sum = sum + u32::from(u16::from_be_bytes(*word));
        (sum & 0xffff) + (sum >> 16)
    });
    if let [last] = rest {
        sum += u32::from(*last) << 8;
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn sums(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    for len in LENGTHS {
        let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        assert_eq!(checksum(&bytes), textbook(&bytes));
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("ours", len), |b| b.iter(|| checksum(black_box(&bytes))));
        group.bench_function(BenchmarkId::new("textbook", len), |b| b.iter(|| textbook(black_box(&bytes))));
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("update", |b| {
        b.iter(|| update(black_box(0xdd2f), black_box(0x5555), black_box(0x3285)))
    });
    group.finish();
}

/// Returns a TCP packet over IPv4 without checksums.
fn packet(len: usize) -> Vec<u8> {
    let mut frame = vec![0_u8; len];
    frame[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
    frame[16..18].copy_from_slice(&u16::try_from(len - 14).expect("short").to_be_bytes());
    frame[22..24].copy_from_slice(&[64, 6]);
    frame[46] = 0x50;
    frame
}

fn packets(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum/packet");
    for len in [64, 1514] {
        group.throughput(Throughput::Bytes(len as u64));
        let mut frame = packet(len);
        let layers = parse(&frame);
        offload::fill_ipv4(&mut frame, &layers).expect("IPv4");
        offload::fill_transport(&mut frame, &layers).expect("TCP");
        group.bench_function(BenchmarkId::new("ipv4 and tcp", len), |b| {
            b.iter(|| {
                offload::fill_ipv4(black_box(&mut frame), &layers)
                    .and_then(|()| offload::fill_transport(black_box(&mut frame), &layers))
            });
        });
        group.bench_function(BenchmarkId::new("verify", len), |b| {
            b.iter(|| offload::verify_transport(black_box(&frame), &layers));
        });
    }
    group.finish();
}

criterion_group!(benches, sums, packets);
criterion_main!(benches);
