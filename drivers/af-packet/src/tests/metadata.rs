//! Tags and checksums, told beside the data or put into it.

use std::net::UdpSocket;

use linecard_mempool::{Burst, Offload, TxOffload};
use linecard_net::checksum::Sum;

use super::{Bench, Cable, bytes, far_at, frame, near_at, receive};
use linecard_lab::{skip, wait_until};
use linecard_pmd::config::{PortConfig, configure};
use linecard_pmd::offload::{Offloads, RxOffloads, TxOffloads};

fn rx(offloads: RxOffloads) -> PortConfig {
    PortConfig::default().offloads(Offloads { rx: offloads, ..Offloads::default() })
}

fn tx(offloads: TxOffloads) -> PortConfig {
    PortConfig::default().offloads(Offloads { tx: offloads, ..Offloads::default() })
}

/// The frame with a tag behind its addresses.
fn tagged(frame: &[u8], protocol: u16, tci: u16) -> Vec<u8> {
    let [a, b] = protocol.to_be_bytes();
    let [c, d] = tci.to_be_bytes();
    [&frame[..12], &[a, b, c, d], &frame[12..]].concat()
}

#[test]
fn tags_come_and_go() {
    let Some(cable) = Cable::new("af_packet tags_come_and_go") else { return };
    let bench = Bench::new();
    let plain = frame(1, 100);
    for options in ["", ",version=3", ",qdisc_bypass=0"] {
        let mut far = bench.start(&far_at(&cable, options), PortConfig::default());
        for strip in [false, true] {
            let config = if strip { rx(RxOffloads::VLAN_STRIP) } else { PortConfig::default() };
            let mut near = bench.start(&near_at(&cable, options), config);
            // In the data as it is sent, as 802.1Q and 802.1ad; then by metadata.
            let frames = [tagged(&plain, 0x8100, 0x6007), tagged(&plain, 0x88a8, 0x0123), plain.clone()];
            bench.send(&mut far, &frames);
            let mut asking = bench.packet(&plain);
            asking.set_vlan_tci(0x0fff);
            asking.set_offload(Offload::TX_VLAN);
            // And one cut inside its addresses.
            let mut cut = bench.packet(&plain[..7]);
            cut.chain(bench.packet(&plain[7..])).expect("room");
            cut.set_vlan_tci(0x0001);
            cut.set_offload(Offload::TX_VLAN);
            let mut burst = Burst::new();
            burst.push(asking).expect("room");
            burst.push(cut).expect("room");
            assert_eq!(far.tx[0].tx_burst(&mut burst), 2);

            let got = receive(&mut near, 0, 5);
            let (told, all): (Vec<_>, Vec<_>) = got
                .iter()
                .map(|packet| {
                    ((packet.offload() & (Offload::RX_VLAN | Offload::RX_VLAN_STRIPPED)), bytes(packet))
                })
                .unzip();
            let tcis = [0x6007, 0x0123, 0, 0x0fff, 0x0001];
            let protocols = [0x8100, 0x88a8, 0, 0x8100, 0x8100];
            assert_eq!(got.len(), 5, "{options}");
            for i in 0..5 {
                let has = tcis[i] != 0;
                let want = if strip || !has { plain.clone() } else { tagged(&plain, protocols[i], tcis[i]) };
                assert_eq!(all[i], want, "{options} {strip} {i}");
                let flags = match (has, strip) {
                    (false, _) => Offload::empty(),
                    (true, false) => Offload::RX_VLAN,
                    (true, true) => Offload::RX_VLAN | Offload::RX_VLAN_STRIPPED,
                };
                assert_eq!(told[i], flags, "{options} {strip} {i}");
                assert!(!has || got[i].vlan_tci() == tcis[i]);
            }
            drop(got);
            near.stop();
        }
        far.stop();
    }
    bench.finish();
}

/// The far side gets an address; what is for the near side finds it.
fn speak_ip(cable: &Cable) {
    cable.far.ip("addr add 10.9.0.2/24 dev far");
    cable.far.ip("neigh add 10.9.0.1 lladdr 02:00:00:00:00:01 dev far");
}

/// Whether the UDP checksum of an IPv4 frame is right, and there.
fn udp_is_right(frame: &[u8]) -> bool {
    let (ip, udp) = (&frame[14..34], &frame[34..]);
    let len = u16::from_be_bytes([udp[4], udp[5]]);
    let pseudo = Sum::ZERO.add_bytes(&ip[12..20]).add_bytes(&[0, 17]).add_bytes(&len.to_be_bytes());
    udp[6..8] != [0, 0] && pseudo.add_bytes(&udp[..len.into()]).checksum_nonzero() == 0xffff
}

#[test]
fn checksums_left_to_hardware_are_told_or_finished() {
    let Some(cable) = Cable::new("af_packet checksums_left_to_hardware_are_told_or_finished") else { return };
    speak_ip(&cable);
    let bench = Bench::new();
    let socket = cable.far.run(|| UdpSocket::bind("10.9.0.2:7000")).expect("an address");
    for options in ["", ",version=3"] {
        for asked in [false, true] {
            let config = if asked { rx(RxOffloads::CHECKSUM) } else { PortConfig::default() };
            let mut near = bench.start(&near_at(&cable, options), config);
            socket.send_to(b"hello there", "10.9.0.1:9").expect("sent");
            let got = receive(&mut near, 0, 1);
            let packet = got.first().expect("it arrives");
            let state = packet.offload() & Offload::RX_L4_CKSUM_MASK;
            let unfinished = state == Offload::RX_L4_CKSUM_NONE;
            assert_eq!((unfinished, udp_is_right(&bytes(packet))), (asked, !asked), "{options}");
            if asked {
                // Passed on it is finished: by whoever has to.
                let mut far = bench.start(&far_at(&cable, options), tx(TxOffloads::CHECKSUM));
                let mut back = Burst::new();
                got.into_iter().for_each(|packet| back.push(packet).expect("room"));
                let mut sender = bench.start(&near_at(&cable, options), tx(TxOffloads::CHECKSUM));
                assert_eq!(sender.tx[0].tx_burst(&mut back), 1);
                let home = receive(&mut far, 0, 1);
                let home_bytes = bytes(home.first().expect("it comes back"));
                assert!(udp_is_right(&home_bytes), "{options}: {home_bytes:02x?}");
                drop((home, sender.stop(), far.stop()));
            }
            near.stop();
        }
    }
    bench.finish();
}

/// A TCP packet over IPv4 with so many bytes of payload, to be cut into segments of 500.
fn large(bench: &Bench, payload: usize) -> (Vec<u8>, Burst) {
    let mut large = frame(0, 14 + 40 + payload);
    large[12..14].copy_from_slice(&[0x08, 0x00]);
    large[14..34].copy_from_slice(&[0x45, 0, 0, 0, 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    large[16..18].copy_from_slice(&(40 + payload as u16).to_be_bytes());
    large[34..54].copy_from_slice(&[0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    let mut pieces = large.chunks(2048).map(|piece| bench.packet(piece));
    let mut packet = pieces.next().expect("at least one");
    pieces.for_each(|piece| packet.chain(piece).expect("room"));
    let lengths = TxOffload::new(14, 20, 20).with_tso_segsz(500);
    packet.set_tx_offload(Offload::TX_IPV4 | Offload::TX_TCP_SEG, lengths);
    let mut burst = Burst::new();
    burst.push(packet).expect("room");
    (large, burst)
}

const TSO: TxOffloads = TxOffloads::TCP_TSO.union(TxOffloads::CHECKSUM);

#[test]
fn large_packets_stay_large_for_who_takes_them() {
    let Some(cable) = Cable::new("af_packet large_packets_stay_large_for_who_takes_them") else { return };
    let bench = Bench::new();
    let mut near = bench.start(&near_at(&cable, ""), tx(TSO));
    for options in ["", ",version=3"] {
        let mut far = bench.start(&far_at(&cable, options), rx(RxOffloads::TCP_LRO));
        for (size, tag) in [(1900, None), (30_000, None), (65_000, None), (30_000, Some(0x0123))] {
            let (sent, mut burst) = large(&bench, size);
            let packet = &mut burst[0];
            packet.set_vlan_tci(tag.unwrap_or(0));
            if tag.is_some() {
                packet.set_offload(packet.offload() | Offload::TX_VLAN);
            }
            assert_eq!(near.tx[0].tx_burst(&mut burst), 1);
            let mut got = receive(&mut far, 0, 1);
            let packet = got.pop().expect("it arrives");
            assert_eq!(packet.offload() & Offload::RX_L4_CKSUM_MASK, Offload::RX_L4_CKSUM_NONE);
            assert!(packet.offload().contains(Offload::RX_LRO));
            assert_eq!(packet.tx_offload().tso_segsz(), 500);
            let gap = if tag.is_some() { 4 } else { 0 };
            assert_eq!(bytes(&packet)[54 + gap..], sent[54..], "the payload in one piece");
        }
        assert_eq!(far.control.stats().ierrors, 0);
        drop(far.stop());
    }
    drop(near.stop());
    let refused = configure(
        bench.probe(&far_at(&cable, ",version=3,blocksz=4096")).expect("probes"),
        rx(RxOffloads::TCP_LRO),
    );
    assert_eq!(
        refused.err().expect("no room").to_string(),
        "net_af_packet1: large receive (TCP_LRO) in frames of 3956 bytes is not supported; \
         leave blocksz out, or give blocksz=131072"
    );
    bench.finish();
}

/// Whether the TCP checksum of an IPv4 frame without options is right.
fn tcp_is_right(frame: &[u8]) -> bool {
    let (ip, tcp) = (&frame[14..34], &frame[34..]);
    let pseudo =
        Sum::ZERO.add_bytes(&ip[12..20]).add_bytes(&[0, 6]).add_bytes(&(tcp.len() as u16).to_be_bytes());
    Sum::ZERO.add_bytes(ip).checksum() == 0 && pseudo.add_bytes(tcp).checksum() == 0
}

#[test]
fn large_packets_are_cut_for_who_does_not_take_them() {
    let Some(cable) = Cable::new("af_packet large_packets_are_cut_for_who_does_not_take_them") else {
        return;
    };
    let bench = Bench::new();
    let mut near = bench.start(&near_at(&cable, ""), tx(TSO));
    for options in ["", ",version=3", ",framesz=512"] {
        for asked in [RxOffloads::empty(), RxOffloads::CHECKSUM, RxOffloads::VLAN_STRIP] {
            let config = rx(asked).mtu(400);
            let mut far = bench.start(&far_at(&cable, options), config);
            let mut want = Vec::new();
            for size in [1900, 64_000, 30_000] {
                let (sent, mut burst) = large(&bench, size);
                burst[0].set_vlan_tci(0x0777);
                let vlan = burst[0].offload() | Offload::TX_VLAN;
                burst[0].set_offload(vlan);
                assert_eq!(near.tx[0].tx_burst(&mut burst), 1);
                want.extend_from_slice(&sent[54..]);
            }
            // What is sent behind them comes behind them.
            bench.send(&mut near, &[frame(7, 100)]);
            let got = receive(&mut far, 0, 4 + 128 + 60 + 1);
            let gap = if asked.contains(RxOffloads::VLAN_STRIP) { 0 } else { 4 };
            let (last, segments) = got.split_last().expect("they arrive");
            assert_eq!(bytes(last), frame(7, 100), "{options} {asked}");
            let mut payload = Vec::new();
            for segment in segments {
                let flags = segment.offload();
                let mut bytes = bytes(segment);
                assert!(flags.contains(Offload::RX_VLAN) && segment.vlan_tci() == 0x0777);
                assert_eq!(flags.contains(Offload::RX_VLAN_STRIPPED), gap == 0);
                let good =
                    if asked == RxOffloads::CHECKSUM { Offload::RX_L4_CKSUM_GOOD } else { Offload::empty() };
                assert_eq!(flags & Offload::RX_L4_CKSUM_MASK, good);
                drop(bytes.drain(12..12 + gap));
                assert!(bytes.len() <= 554 && tcp_is_right(&bytes), "{options} {asked}");
                payload.extend_from_slice(&bytes[54..]);
            }
            assert!(payload == want, "{options} {asked}: {} of {}", payload.len(), want.len());
            let stats = far.control.stats();
            assert_eq!((stats.ipackets, stats.ierrors, stats.imissed), (193, 0, 0), "{options} {asked}");
            drop((got, far.stop()));
        }
    }
    drop(near.stop());
    bench.finish();
}

#[test]
fn segments_wait_for_buffers() {
    let Some(cable) = Cable::new("af_packet segments_wait_for_buffers") else { return };
    let bench = Bench::new();
    let mut near = bench.start(&near_at(&cable, ""), tx(TSO));
    let mut far = bench.start(&far_at(&cable, ""), PortConfig::default());
    let (sent, mut burst) = large(&bench, 20_000);
    assert_eq!(near.tx[0].tx_burst(&mut burst), 1);
    let (mut held, mut payload) = (Vec::new(), Vec::new());
    while let Some(packet) = bench.pool.get() {
        held.push(packet);
    }
    held.truncate(held.len() - 3);
    wait_until("all segments", || {
        let mut burst = Burst::new();
        let count = far.rx[0].rx_burst(&mut burst);
        assert!(count <= 3, "no more than there are buffers");
        burst.iter().for_each(|packet| payload.extend_from_slice(&bytes(packet)[54..]));
        payload.len() >= sent.len() - 54
    });
    assert_eq!(payload, sent[54..]);
    let stats = far.control.stats();
    assert_eq!((stats.ipackets, stats.ierrors), (40, 0));
    assert!(stats.rx_nombuf > 0, "it said that it waited");
    drop((held, near.stop(), far.stop()));
    bench.finish();
}

#[test]
fn large_packets_are_cut_for_others() {
    const TEST: &str = "af_packet large_packets_are_cut_for_others";
    let Some(cable) = Cable::new(TEST) else { return };
    // The interface then asks the kernel to cut.
    let off = ["-K", "near", "tso", "off", "gso", "off", "tx", "off"];
    if !cable.near.output("ethtool", &off).is_ok_and(|output| output.status.success()) {
        return skip(TEST, "no program 'ethtool' on this machine (apt-get install ethtool)");
    }
    let bench = Bench::new();
    let mut near = bench.start(&near_at(&cable, ""), tx(TSO));
    let mut far = bench.start(&far_at(&cable, ""), PortConfig::default());
    let (sent, mut burst) = large(&bench, 1900);
    assert_eq!(near.tx[0].tx_burst(&mut burst), 1);
    let got: Vec<_> = receive(&mut far, 0, 4).iter().map(bytes).collect();
    assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [554, 554, 554, 454]);
    let payload: Vec<u8> = got.iter().flat_map(|segment| segment[54..].to_vec()).collect();
    assert_eq!(payload, sent[54..]);
    drop((near.stop(), far.stop()));
    bench.finish();
}
