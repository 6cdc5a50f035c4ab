//! Rings full of lies. Whatever is in them, nothing panics, hangs, leaks, or reaches another port.

mod common;

use std::sync::atomic::Ordering;

use common::{Bench, Frontend, GUEST, Guest, MEMORY, SIZE, await_count, frame, receive};
use linecard_capture::{Hub, Options};
use linecard_eal::{Memory, MemoryConfig};
use linecard_lab::{Prng, wait_until};
use linecard_mempool::{Burst, Offload};
use linecard_net_null::NullDriver;
use linecard_pmd::{DevArgs, Driver, PortConfig, ProbeContext, RxQueue, TxQueue, configure};
use linecard_vhost_user::{RxLoss, TxLoss};
use linecard_virtio::{Buffer, Element, Features};
use linecard_wire::FrontendReq as Req;
use linecard_wire::payload::{Payload, VringAddr, VringFd, VringState};
use proptest::prelude::*;

fn poll(bench: &mut Bench, times: usize) {
    let mut packets = Burst::new();
    for _ in 0..times {
        bench.rx.rx_burst(&mut packets);
        packets.clear();
        bench.pool.get_bulk(&mut packets, 4).unwrap();
        for (n, packet) in packets.iter_mut().enumerate() {
            packet.append(60 + n * 400).expect("room").fill(9);
        }
        bench.tx.tx_burst(&mut packets);
        packets.clear();
    }
}

fn faults(bench: &Bench) -> u64 {
    bench.backend.peer().counters()[3].1
}

#[test]
fn impossible_send_descriptors_stop_that_ring_alone() {
    let end = GUEST + MEMORY as u64;
    let cases: [(&str, u64, u32); 7] = [
        ("unmapped", 0x10, 100),
        ("behind the end", end, 100),
        ("across the end", end - 50, 100),
        ("wraps", u64::MAX - 10, 100),
        ("huge", GUEST, u32::MAX),
        ("far", 1 << 60, 64),
        ("below", GUEST - 1, 64),
    ];
    for features in [Features::empty(), Features::IN_ORDER, Features::RING_PACKED] {
        for (name, addr, len) in cases {
            let mut bench = Bench::new("baddesc");
            let mut guest = Guest::start(&bench.path, features);
            bench.wait_link(true);
            guest.tx.post(Buffer { addr, len, token: 0 });
            guest.tx.publish();
            poll(&mut bench, 3);
            assert_eq!(faults(&bench), 1, "{name} {features}");
            assert_eq!(await_count(&guest.frontend.errors[1]), 1, "{name}");
            // The other half goes on.
            guest.post_receive(0, 1, 2048);
            poll(&mut bench, 1);
            assert_eq!(guest.received().len(), 1, "{name}");
            bench.assert_whole();
            // Stopping and starting heals the ring, once its content does.
            guest.frontend.stop_ring(1);
        }
    }
}

#[test]
fn runt_frames_are_dropped_and_counted() {
    for features in [Features::empty(), Features::RING_PACKED | Features::IN_ORDER] {
        let mut bench = Bench::new("runt");
        let mut guest = Guest::start(&bench.path, features);
        bench.wait_link(true);
        let (addr, _) = guest.frontend.write_frame(0, &frame(1, 100));
        for len in 1..26u32 {
            guest.tx.post(Buffer { addr, len, token: u64::from(len) });
        }
        // Cut in two as well.
        for len in 2..26u32 {
            let parts = [Element { addr, len: len / 2 }, Element { addr, len: len - len / 2 }];
            guest.tx.post_chain(&parts, u64::from(len));
        }
        guest.tx.publish();
        guest.send(&frame(2, 14));
        guest.tx.publish();
        assert_eq!(receive(&mut bench.rx, 1)[0].data(), frame(2, 14));
        assert_eq!(bench.rx_stats.totals().lost(RxLoss::Runt), 25 + 24);
        assert_eq!(faults(&bench), 0);
        bench.assert_whole();
    }
}

/// A driver must not set DATA_VALID, and nothing is believed that a tenant says of its own checksums.
#[test]
fn what_a_driver_says_of_its_checksums_is_not_believed() {
    let mut bench = Bench::new("valid");
    let mut guest = Guest::start(&bench.path, Features::NET_CSUM);
    bench.wait_link(true);
    // DATA_VALID, RSC_INFO, and bits that nobody knows.
    for (n, flags) in [2u8, 4, 6, 0x80, 0xfe].into_iter().enumerate() {
        let (addr, len) = guest.frontend.write_frame(n, &frame(1, 100));
        let (_, offset) = Frontend::buffer(1, n);
        assert_eq!(guest.frontend.bytes(offset, 1).copy_from(&[flags]), 1);
        guest.tx.post(Buffer { addr, len, token: n as u64 });
    }
    guest.tx.publish();
    for packet in receive(&mut bench.rx, 5).iter() {
        assert_eq!((packet.data(), packet.offload()), (frame(1, 100).as_slice(), Offload::empty()));
    }
    assert_eq!(bench.rx_stats.totals().lost(RxLoss::BadOffload), 0);
}

#[test]
fn a_capture_sees_what_frames_of_a_wrong_length_held() {
    let Bench { pool, backend, rx, tx, path, .. } = Bench::new("shown");
    let mut guest = Guest::start(&path, Features::empty());
    wait_until("link", || backend.peer().link_up());
    // A port that a capture can be opened on, with our queue in the place of its own.
    let memory = Memory::new(MemoryConfig::default()).expect("memory");
    let domain = memory.domain("null").expect("a domain");
    let context = ProbeContext::new(memory, domain, std::time::Duration::ZERO);
    let device =
        NullDriver.probe(&context, &DevArgs::parse("net_null0").expect("well formed")).expect("probes");
    let mut port =
        configure(device, PortConfig::default()).and_then(|port| port.start(&pool)).expect("starts");
    port.rx = vec![Box::new(rx)];
    let hub = Hub::new();
    let mut port = hub.watch(0, port);
    let (_session, mut stream) = hub.open(0, &Options::default()).expect("opens");
    let (addr, _) = guest.frontend.write_frame(50, &frame(1, 100));
    // Eleven bytes behind the header, then no byte at all, then far more than a frame can be.
    for len in [12 + 11, 5] {
        guest.tx.post(Buffer { addr, len, token: u64::from(len) });
    }
    let parts: Vec<_> = (0..40).map(|_| Element { addr: GUEST, len: 2000 }).collect();
    guest.tx.post_chain(&parts, 7);
    guest.send(&frame(2, 60));
    guest.tx.publish();
    let mut burst = Burst::new();
    wait_until("the good frame", || port.rx[0].rx_burst(&mut burst) > 0);
    assert_eq!(burst[0].data(), frame(2, 60));
    burst.clear();
    let mut seen = Vec::new();
    while let Some(frame) = stream.next().expect("not garbled") {
        seen.push((frame.data.to_vec(), frame.comment.to_owned()));
    }
    let short: Vec<_> = seen.iter().map(|(data, why)| (data.len(), why)).collect();
    assert_eq!(seen.len(), 4, "{short:?}");
    assert!(seen.contains(&(frame(1, 100)[..11].to_vec(), "runt".into())), "{short:?}");
    assert!(seen.contains(&(Vec::new(), "runt".into())), "{short:?}");
    assert!(seen.iter().any(|(data, why)| data.len() >= 1500 && why == "too_long"), "{short:?}");
    assert!(seen.contains(&(frame(2, 60), String::new())), "{short:?}");
    drop((port, tx));
    assert_eq!(pool.stats().in_use, 0);
}

#[test]
fn runt_receive_buffers_go_back_empty() {
    for features in [Features::empty(), Features::NET_MRG_RXBUF, Features::RING_PACKED] {
        let mut bench = Bench::new("rxrunt");
        let mut guest = Guest::start(&bench.path, features);
        bench.wait_link(true);
        for len in 1..12 {
            guest.post_receive(len as usize, 1, len);
        }
        guest.post_receive(100, 1, 2048);
        let mut packets = Burst::new();
        bench.pool.get_bulk(&mut packets, 1).unwrap();
        packets[0].append(60).expect("room").fill(9);
        assert_eq!(bench.tx.tx_burst(&mut packets), 1, "{features}");
        let came = guest.received();
        assert_eq!(came.len(), 12);
        assert!(came[..11].iter().all(|(_, bytes)| bytes.is_empty()));
        assert_eq!(came[11].1.len(), 72);
        assert_eq!(bench.tx_stats.totals().lost(TxLoss::RuntBuffer), 11);
        bench.assert_whole();
    }
}

#[test]
fn not_one_byte_beyond_the_frame_is_written() {
    let mut bench = Bench::new("exact");
    let mut guest = Guest::start(&bench.path, Features::empty());
    bench.wait_link(true);
    for (n, len) in (14..300usize).step_by(7).enumerate() {
        let n = n % 128;
        let (_, offset) = Frontend::buffer(0, n);
        guest.frontend.bytes(offset, 1024).fill(0xee);
        guest.post_receive(n, 1, 1024);
        let mut packets = Burst::new();
        bench.pool.get_bulk(&mut packets, 1).unwrap();
        packets[0].append(len).expect("room").fill(1);
        assert_eq!(bench.tx.tx_burst(&mut packets), 1);
        assert_eq!(guest.received().len(), 1);
        let mut bytes = [0; 1024];
        guest.frontend.bytes(offset, 1024).copy_to(&mut bytes);
        assert!(bytes[12 + len..].iter().all(|byte| *byte == 0xee), "{len}");
    }
}

#[test]
fn descriptors_that_point_at_the_rings_themselves_harm_only_their_owner() {
    for features in [Features::NET_MRG_RXBUF, Features::RING_PACKED] {
        let mut bench = Bench::new("self");
        let mut guest = Guest::start(&bench.path, features);
        bench.wait_link(true);
        for at in (0..8192u64).step_by(512) {
            guest.rx.post(Buffer { addr: GUEST + at, len: 2048, token: at });
            guest.tx.post(Buffer { addr: GUEST + at, len: 2048, token: at });
        }
        guest.rx.publish();
        guest.tx.publish();
        poll(&mut bench, 100);
        drop(guest);
        bench.wait_gone();
        bench.assert_whole();
    }
}

/// Nothing forbids a driver to put all parts of a ring, or both rings, in one place.
#[test]
fn rings_that_lie_on_top_of_each_other_harm_only_their_owner() {
    let mut bench = Bench::new("overlap");
    for features in [Features::empty(), Features::IN_ORDER, Features::RING_PACKED, Features::NET_MRG_RXBUF] {
        let packed = features.contains(Features::RING_PACKED);
        for (driver, device) in [(0, 0), (0, 16), (16, 0), (2048, 2048)] {
            let mut frontend = Frontend::connect(&bench.path);
            frontend.negotiate(features);
            frontend.share_memory();
            for index in 0..2 {
                let desc = frontend.vring_addr(0, SIZE).desc;
                let addr = VringAddr {
                    index: index as u32,
                    flags: 0,
                    desc,
                    avail: desc + driver,
                    used: desc + device,
                    log: 0,
                };
                let num = VringState { index: index as u32, num: u32::from(SIZE) };
                frontend.good(Req::SET_VRING_NUM, &num.to_bytes(), &[]);
                let base = VringState { num: if packed { 0x8000_8000 } else { 0 }, ..num };
                frontend.good(Req::SET_VRING_BASE, &base.to_bytes(), &[]);
                frontend.good(Req::SET_VRING_ADDR, &addr.to_bytes(), &[]);
                frontend.good(
                    Req::SET_VRING_KICK,
                    &VringFd { index: index as u8, has_fd: false }.to_bytes(),
                    &[],
                );
                frontend.enable(index, true);
            }
            // What one part says, another contradicts.
            for round in 0..64_u64 {
                let at = (round * 37 % 512) as usize * 8;
                let word = (GUEST + round * 4096) ^ round << 48 ^ (round * 77) << 32;
                let area = frontend.bytes(Frontend::ring_offset(0), 8192);
                area.cell::<u64>(at).expect("inside").store(word, Ordering::Release);
                poll(&mut bench, 2);
            }
            drop(frontend);
            bench.wait_gone();
            bench.assert_whole();
        }
    }
    let mut guest = Guest::start(&bench.path, Features::empty());
    bench.wait_link(true);
    guest.send(&frame(1, 60));
    guest.tx.publish();
    assert_eq!(receive(&mut bench.rx, 1)[0].data(), frame(1, 60));
}

#[test]
fn an_available_index_from_nowhere_stops_the_ring() {
    for jump in [257u16, 300, 32_768, 65_535] {
        let mut bench = Bench::new("jump");
        let guest = Guest::start(&bench.path, Features::empty());
        bench.wait_link(true);
        let avail = guest.frontend.ring_memory(1, SIZE).driver.cell::<u16>(2).expect("index");
        avail.store(jump, Ordering::Release);
        poll(&mut bench, 2);
        assert_eq!(faults(&bench), 1, "{jump}");
        bench.assert_whole();
    }
}

/// A split ring of which every entry is the same chain: all descriptors, the first with `len` bytes, the others empty.
fn one_chain_again_and_again(frontend: &Frontend, index: usize, size: u16, len: u32) {
    const NEXT: u64 = 1;
    let write = if index == 0 { 2_u64 } else { 0 };
    let ring = frontend.ring_memory(index, size);
    for n in 0..u64::from(size) {
        let last = n + 1 == u64::from(size);
        let flags = write | if last { 0 } else { NEXT };
        let meta = u64::from(if n == 0 { len } else { 0 }) | flags << 32 | (n + 1) << 48;
        let at = 16 * n as usize;
        ring.desc.cell::<u64>(at).expect("desc").store(Frontend::buffer(0, 0).0, Ordering::Relaxed);
        ring.desc.cell::<u64>(at + 8).expect("desc").store(meta, Ordering::Relaxed);
    }
    ring.driver.cell::<u16>(2).expect("idx").store(size, Ordering::Release);
}

#[test]
fn a_burst_reads_no_more_descriptors_than_is_fair() {
    const LARGE: u16 = 8192;
    // Of each chain 1024 descriptors are read.
    const CHAINS: u16 = 4096 / 1024;
    let mut bench = Bench::new("longchains");
    let mut frontend = Frontend::connect(&bench.path);
    frontend.negotiate(Features::NET_MRG_RXBUF);
    frontend.share_memory();
    one_chain_again_and_again(&frontend, 0, LARGE, 12);
    one_chain_again_and_again(&frontend, 1, LARGE, 0);
    frontend.start_ring(0, LARGE, 0);
    frontend.start_ring(1, LARGE, 0);
    bench.wait_link(true);
    let mut packets = Burst::new();
    assert_eq!(bench.rx.rx_burst(&mut packets), 0);
    let used = frontend.ring_memory(1, LARGE).device.cell::<u16>(2).expect("idx");
    assert_eq!(used.load(Ordering::Acquire), CHAINS, "so many were enough for one burst");
    assert_eq!(bench.rx_stats.totals().lost(RxLoss::TooLong), u64::from(CHAINS));
    bench.pool.get_bulk(&mut packets, 64).unwrap();
    packets.iter_mut().for_each(|packet| assert!(packet.append(1500).is_some()));
    assert_eq!(bench.tx.tx_burst(&mut packets), 1, "one packet that fits nowhere was enough for one burst");
    assert_eq!(bench.tx.tx_burst(&mut packets), 1, "and the next takes its turn");
    packets.clear();
    frontend.enable(1, false);
    assert_eq!(bench.rx.rx_burst(&mut packets), 0);
    assert_eq!(used.load(Ordering::Acquire), 2 * CHAINS, "nor does a disabled ring cost more");
    assert_eq!(faults(&bench), 0);
    bench.assert_whole();
}

#[test]
fn a_pool_with_packets_shorter_than_a_frame_is_not_written_past() {
    for data_room in [0_u16, 1, 13] {
        let mut bench = Bench::with_data_room("tiny", data_room);
        let mut guest = Guest::start(&bench.path, Features::empty());
        bench.wait_link(true);
        guest.send(&frame(1, 14));
        guest.tx.publish();
        let mut packets = Burst::new();
        bench.rx.rx_burst(&mut packets);
        for packet in packets.iter() {
            assert!(packet.segments().all(|segment| segment.len() <= usize::from(data_room)), "{packet:?}");
            assert_eq!(packet.segments().flat_map(|s| s.data().to_vec()).collect::<Vec<_>>(), frame(1, 14));
        }
        assert_eq!(packets.len(), usize::from(data_room > 0));
        packets.clear();
        bench.assert_whole();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_in_the_rings_is_survived(
        kind in 0u32..8,
        seed in any::<u64>(),
        plausible in any::<bool>(),
    ) {
        let features = Features::INDIRECT_DESC
            .with(Features::RING_PACKED, kind & 1 != 0)
            .with(Features::IN_ORDER, kind & 2 != 0)
            .with(Features::NET_MRG_RXBUF, kind & 4 != 0);
        let mut bench = Bench::new("garbage");
        let guest = Guest::start(&bench.path, features);
        bench.wait_link(true);
        let mut dice = Prng::new(seed);
        let mut random = move || dice.roll();
        for round in 0..20 {
            for index in 0..2 {
                let ring = guest.frontend.ring_memory(index, SIZE);
                for at in (0..16 * usize::from(SIZE)).step_by(16) {
                    // Plausible: addresses inside the memory, short lengths, small ids.
                    let addr = if plausible { GUEST + random() % MEMORY as u64 } else { random() };
                    let meta = if plausible { random() & 0x8087_00ff_0000_0fff } else { random() };
                    ring.desc.cell::<u64>(at).expect("desc").store(addr, Ordering::Relaxed);
                    ring.desc.cell::<u64>(at + 8).expect("desc").store(meta, Ordering::Release);
                }
                if let (Some(idx), true) = (ring.driver.cell::<u16>(2), kind & 1 == 0) {
                    let step = (random() % 32) as u16;
                    idx.store(idx.load(Ordering::Relaxed).wrapping_add(step), Ordering::Release);
                }
            }
            poll(&mut bench, 3 + round % 3);
        }
        drop(guest);
        bench.wait_gone();
        bench.assert_whole();
    }
}
