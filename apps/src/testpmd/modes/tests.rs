use std::sync::Arc;

use linecard::eal::{Memory, MemoryConfig, PagePolicy};
use linecard::mempool::{Pool, PoolConfig};

use super::*;
use crate::testpmd::counters::LaneCounters;
use crate::testpmd::frames::UdpFlow;
use crate::testpmd::settings::Mac;

fn pool(packets: u32) -> Pool {
    let config = MemoryConfig::default().pages(PagePolicy::NoHuge);
    let domain = Memory::new(config).unwrap().domain("modes").unwrap();
    Pool::new(&domain, PoolConfig::default().packets(packets)).unwrap()
}

fn burst_of(pool: &Pool, frames: &[Vec<u8>]) -> Burst {
    let mut burst = Burst::new();
    for frame in frames {
        let mut packet = pool.get().unwrap();
        packet.append(frame.len()).unwrap().copy_from_slice(frame);
        burst.push(packet).unwrap();
    }
    burst
}

fn whole(packet: &linecard::mempool::Packet) -> Vec<u8> {
    packet.segments().flat_map(|segment| segment.data().to_vec()).collect()
}

const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
const B: Mac = Mac([2, 0, 0, 0, 0, 2]);

#[test]
fn passing_packets_keep_their_number_and_length() {
    let pool = pool(256);
    let frames = [UdpFlow::txonly(A, B).frame(64), UdpFlow::txonly(B, A).frame(1500), vec![1, 2, 3]];
    let mut burst = burst_of(&pool, &frames);
    Io.step(&mut burst);
    assert_eq!(burst.iter().map(whole).collect::<Vec<_>>(), frames);
    MacSwap.step(&mut burst);
    MacSwap.step(&mut burst);
    FiveTupleSwap.step(&mut burst);
    FiveTupleSwap.step(&mut burst);
    assert_eq!(burst.iter().map(whole).collect::<Vec<_>>(), frames);
    MacRewrite { dst: A, src: B }.step(&mut burst);
    assert_eq!(burst[0].data()[..12], [A.0, B.0].concat());
    assert_eq!(burst[1].data()[12..], frames[1][12..]);
    RxOnly.step(&mut burst);
    assert!(burst.is_empty());
    drop(burst);
    assert_eq!(pool.stats().in_use, 0);
}

#[test]
fn icmpecho_keeps_answers_and_frees_the_rest() {
    let pool = pool(256);
    let mut request = vec![0; 60];
    request[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    let frames = [UdpFlow::txonly(A, B).frame(64), request.clone(), vec![], request];
    let mut burst = burst_of(&pool, &frames);
    IcmpEcho { own: A }.step(&mut burst);
    assert_eq!(burst.len(), 2);
    assert!(burst.iter().all(|packet| packet.data()[6..12] == A.0 && packet.data()[21] == 2));
    drop(burst);
    assert_eq!(pool.stats().in_use, 0);
}

#[test]
fn txonly_cuts_the_frame_into_the_segments_asked_for() {
    let pool = pool(256);
    let flow = UdpFlow::txonly(A, B);
    for segments in [&[64_u16][..], &[1518], &[20, 44, 100], &[1; 60]] {
        let len: usize = segments.iter().map(|&len| usize::from(len)).sum();
        let mut burst = Burst::with_capacity(3);
        TxOnly::new(pool.clone(), flow, segments, None).step(&mut burst);
        assert_eq!(burst.len(), 3);
        for packet in burst.iter() {
            assert_eq!(whole(packet), flow.frame(len));
            assert_eq!(packet.segments().count(), segments.len());
        }
    }
    assert_eq!(pool.stats().in_use, 0);
}

/// The source addresses that dpdk-testpmd 22.11 sends from lcore 1, with valid checksums.
#[test]
fn multi_flow_sends_from_256_sources_in_turn() {
    let pool = pool(1024);
    let flow = UdpFlow::txonly(A, B);
    for segments in [&[64_u16][..], &[20, 44]] {
        let mut mode = TxOnly::new(pool.clone(), flow, segments, Some(MultiFlow::new(flow.dst_ip, 1)));
        let mut sources = Vec::new();
        for _ in 0..5 {
            let mut burst = Burst::new();
            mode.step(&mut burst);
            for packet in burst.iter() {
                let frame = whole(packet);
                assert_eq!(linecard::net::checksum::checksum(&frame[14..34]), 0, "the sum of a right header");
                assert_eq!((&frame[30..34], &frame[34..38]), (&flow.dst_ip[..], &[0, 9, 0, 9][..]));
                sources.push(<[u8; 4]>::try_from(&frame[26..30]).unwrap());
            }
        }
        assert_eq!(sources[..2], [[198, 18, 0, 3], [198, 18, 1, 3]]);
        assert_eq!((sources[255], sources[256]), ([198, 18, 255, 3], [198, 18, 0, 3]));
        let different: std::collections::HashSet<_> = sources.iter().collect();
        assert_eq!((sources.len(), different.len()), (320, 256));
    }
}

#[test]
fn an_empty_pool_sends_nothing_and_loses_nothing() {
    let pool = pool(8);
    let mut burst = Burst::new();
    TxOnly::new(pool.clone(), UdpFlow::txonly(A, B), &[64], None).step(&mut burst);
    assert!(burst.is_empty());
    TxOnly::new(pool.clone(), UdpFlow::txonly(A, B), &[32, 32], None).step(&mut burst);
    assert!(burst.len() <= 4);
    burst.clear();
    assert_eq!(pool.stats().in_use, 0);
}

#[test]
fn flowgen_gives_dropped_flows_their_turn_again() {
    let pool = pool(256);
    let mut mode = FlowGen::new(pool.clone(), 64, 5, 0);
    let last = |mode: &mut FlowGen, dropped| {
        let mut burst = Burst::with_capacity(3);
        mode.step(&mut burst);
        mode.not_sent(dropped);
        burst.iter().map(|packet| (packet.len(), packet.data()[33])).collect::<Vec<_>>()
    };
    assert_eq!(last(&mut mode, 0), [(60, 0), (60, 1), (60, 2)]);
    assert_eq!(last(&mut mode, 2), [(60, 3), (60, 4), (60, 0)]);
    assert_eq!(last(&mut mode, 0), [(60, 4), (60, 0), (60, 1)]);
    // Two consecutive packets of each of two flows.
    let mut mode = FlowGen::new(pool, 64, 2, 1);
    assert_eq!(last(&mut mode, 0), [(60, 0), (60, 0), (60, 1)]);
    assert_eq!(last(&mut mode, 3), [(60, 1), (60, 0), (60, 0)]);
    assert_eq!(last(&mut mode, 1), [(60, 1), (60, 0), (60, 0)]);
    assert_eq!(last(&mut mode, 0), [(60, 0), (60, 1), (60, 1)]);
}

#[test]
fn csum_computes_here_or_asks_the_port() {
    use linecard::mempool::Offload;
    use linecard::net::offload::{Verdict, verify_ipv4, verify_transport};
    use linecard::net::parse;
    use linecard::pmd::offload::TxOffloads;

    let pool = pool(256);
    let mut frame = UdpFlow::txonly(A, B).frame(100);
    frame[24..26].fill(0xaa);
    frame[40..42].fill(0xaa);
    let mut burst = burst_of(&pool, &[frame.clone()]);
    let rule = Checksums { rewrite: false, ..Checksums::default() };
    Csum::new(pool.clone(), rule, [A, B], Arc::default()).step(&mut burst);
    let (data, layers) = (burst[0].data(), parse(burst[0].data()));
    assert_eq!(verify_ipv4(data, &layers), Verdict::Good);
    assert_eq!(verify_transport(data, &layers), Verdict::Good);
    assert!(burst[0].offload().is_empty());
    assert_eq!(data[..12], frame[..12]);

    let rule = Checksums { tx: TxOffloads::VIRTIO, ..Checksums::default() };
    drop(burst);
    let mut burst = burst_of(&pool, &[frame.clone(), vec![0; 60]]);
    Csum::new(pool.clone(), rule, [A, B], Arc::default()).step(&mut burst);
    let asked = Offload::TX_IPV4 | Offload::TX_IP_CKSUM | Offload::TX_UDP_CKSUM;
    assert_eq!((burst[0].offload(), burst[1].offload()), (asked, Offload::empty()));
    assert_eq!(burst[0].data()[..12], [A.0, B.0].concat());
    assert_eq!(burst[0].data()[40..], frame[40..]);
    drop(burst);
    assert_eq!(pool.stats().in_use, 0);
}

/// UDP over IPv4 inside `headers`, with invalid checksums.
fn inside(headers: &[u8], ethernet: bool) -> Vec<u8> {
    let mut inner = UdpFlow::txonly(B, A).frame(120);
    inner[24..26].fill(0x55);
    inner[40..42].fill(0x66);
    [headers, &inner[if ethernet { 0 } else { 14 }..]].concat()
}

/// Ethernet and IPv4 with `protocol`, for `len` bytes of payload.
fn outer(protocol: u8, len: usize) -> Vec<u8> {
    let mut frame = UdpFlow::txonly(A, B).frame(34 + len);
    frame.truncate(34);
    frame[23] = protocol;
    frame[24..26].fill(0x77);
    frame
}

#[test]
fn csum_looks_into_tunnels_when_told_to() {
    use linecard::net::offload::{Verdict, verify_ipv4, verify_transport};
    use linecard::net::parse::{parse, parse_ip};

    let pool = pool(256);
    let vxlan =
        [&outer(17, 8 + 8 + 120)[..], &[0x12, 0x34, 0x12, 0xb5, 0, 136, 9, 9, 8, 0, 0, 0, 0, 0, 7, 0]]
            .concat();
    let silent = [&vxlan[..40], &[0, 0], &vxlan[42..]].concat();
    let gre = [&outer(47, 4 + 106)[..], &[0, 0, 8, 0]].concat();
    let keyed = [&outer(47, 8 + 120)[..], &[0x20, 0, 0x65, 0x58, 1, 2, 3, 4]].concat();
    let ipip = outer(4, 106);
    for (headers, ethernet, udp) in [
        (&vxlan, true, Verdict::Good),
        (&silent, true, Verdict::Absent),
        (&gre, false, Verdict::Absent),
        (&keyed, true, Verdict::Absent),
        (&ipip, false, Verdict::Absent),
    ] {
        let frame = inside(headers, ethernet);
        for on in [false, true] {
            let mut burst = burst_of(&pool, std::slice::from_ref(&frame));
            let rule = Checksums { parse_tunnel: on, ..Checksums::default() };
            Csum::new(pool.clone(), rule, [A, B], Arc::default()).step(&mut burst);
            let data = burst[0].data();
            assert_eq!(verify_ipv4(data, &parse(data)), Verdict::Good);
            assert_eq!(verify_transport(data, &parse(data)), udp);
            let inner = &data[headers.len()..];
            let layers = if ethernet { parse(inner) } else { parse_ip(inner) };
            let want = if on { Verdict::Good } else { Verdict::Bad };
            assert_eq!(
                (verify_ipv4(inner, &layers), verify_transport(inner, &layers)),
                (want, want),
                "{headers:?}"
            );
        }
    }
}

/// The GRE checksum covers the inner checksums, and not the padding.
#[test]
fn csum_writes_the_checksum_of_gre_too() {
    use linecard::net::checksum::checksum;

    let pool = pool(64);
    for (flags, optional) in [(0x80, 4), (0xb0, 12)] {
        let len = 4 + optional + 106;
        let header = [&[flags, 0, 8, 0, 0xee, 0xee, 0, 0][..], &[7; 8][..optional - 4]].concat();
        let mut frame = inside(&[outer(47, len), header].concat(), false);
        frame.extend([0xff; 3]);
        let mut burst = burst_of(&pool, &[frame]);
        let rule = Checksums { parse_tunnel: true, ..Checksums::default() };
        Csum::new(pool.clone(), rule, [A, B], Arc::default()).step(&mut burst);
        assert_eq!(checksum(&burst[0].data()[34..34 + len]), 0, "the sum of a right packet");
    }
}

#[test]
fn csum_knows_sctp() {
    let pool = pool(64);
    // A packet of the usual kind: common header, then a truncated INIT chunk; its CRC32c is computed by hand
    // below.
    let mut frame = outer(132, 20);
    frame.extend([0x0b, 0x59, 0x0b, 0x59, 0, 0, 0, 1, 0xee, 0xee, 0xee, 0xee, 3, 0, 0, 8, 1, 2, 3, 4]);
    frame.extend([0; 6]); // Ethernet padding must not be part of the sum
    let mut burst = burst_of(&pool, &[frame.clone()]);
    Csum::new(pool.clone(), Checksums::default(), [A, B], Arc::default()).step(&mut burst);
    let mut bit_by_bit = u32::MAX;
    let zeroed = [&frame[34..42], &[0; 4], &frame[46..54]].concat();
    for byte in zeroed {
        bit_by_bit ^= u32::from(byte);
        for _ in 0..8 {
            bit_by_bit = bit_by_bit >> 1 ^ if bit_by_bit & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    assert_eq!(burst[0].data()[42..46], (!bit_by_bit).to_le_bytes());
}

#[test]
fn csum_cuts_what_is_too_long_for_a_port_with_gso() {
    use linecard::net::offload::{Verdict, verify_ipv4, verify_transport};
    use linecard::net::parse;

    let pool = pool(256);
    let mut frame = outer(6, 20 + 1900);
    frame.extend([0x13, 0x88, 0x17, 0x70, 0, 0, 0, 100, 0, 0, 0, 9, 0x50, 0x18, 0x40, 0, 7, 7, 0, 0]);
    frame.extend((0..1900).map(|i| (i % 251) as u8));
    let mut sent = Caught(Vec::new());
    let rule = Checksums { gso: Some(700), rewrite: false, ..Checksums::default() };
    let mut mode = Csum::new(pool.clone(), rule, [A, B], Arc::default());
    let mut burst = burst_of(&pool, &[frame.clone()]);
    mode.step(&mut burst);
    assert_eq!(mode.send(&mut sent, &mut burst), 3);
    assert_eq!((burst.len(), mode.lost()), (0, 0));
    let mut payload = Vec::new();
    for bytes in &sent.0 {
        assert!(bytes.len() <= 700);
        let layers = parse(bytes);
        assert_eq!(
            (verify_ipv4(bytes, &layers), verify_transport(bytes, &layers)),
            (Verdict::Good, Verdict::Good)
        );
        assert_eq!(bytes[38..42], (100 + payload.len() as u32).to_be_bytes());
        payload.extend_from_slice(&bytes[54..]);
    }
    assert_eq!(payload, frame[54..]);
    assert_eq!(pool.stats().in_use, 0);
}

#[test]
fn segments_that_wait_when_forwarding_stops_are_counted() {
    let pool = pool(256);
    let mut frame = outer(6, 20 + 1900);
    frame.extend([0x13, 0x88, 0x17, 0x70, 0, 0, 0, 100, 0, 0, 0, 9, 0x50, 0x18, 0x40, 0, 7, 7, 0, 0]);
    frame.resize(54 + 1900, 0);
    let counters = Arc::new(LaneCounters::default());
    let rule = Checksums { gso: Some(700), ..Checksums::default() };
    let mut mode = Csum::new(pool.clone(), rule, [A, B], Arc::clone(&counters));
    let mut burst = burst_of(&pool, &[frame]);
    mode.step(&mut burst);
    assert_eq!((mode.send(&mut Full, &mut burst), burst.len(), mode.lost()), (0, 0, 0));
    drop(mode);
    assert_eq!((counters.totals().tx_dropped, pool.stats().in_use), (3, 0));
}

/// A transmit queue without room.
struct Full;

impl linecard::pmd::TxQueue for Full {
    fn tx_burst(&mut self, _: &mut Burst) -> usize {
        0
    }

    fn path(&self) -> &'static str {
        "full"
    }
}

/// A transmit queue that stores the bytes.
struct Caught(Vec<Vec<u8>>);

impl linecard::pmd::TxQueue for Caught {
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        self.0.extend(packets.iter().map(whole));
        packets.clear()
    }

    fn path(&self) -> &'static str {
        "caught"
    }
}
