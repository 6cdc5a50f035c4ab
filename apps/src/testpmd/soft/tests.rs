//! Packets of a pool, processed by the rules of a port.

use linecard::eal::{Memory, MemoryConfig, PagePolicy};
use linecard::mempool::{Offload, Pool, PoolConfig};
use linecard::net::toeplitz::Toeplitz;

use super::rss::RssTypes;
use super::vlan::Tagged;
use super::*;
use crate::testpmd::frames::{TxAddresses, UdpFlow};
use crate::testpmd::modes::{Io, Mode};

pub(in crate::testpmd) fn pool() -> Pool {
    let config = MemoryConfig::default().pages(PagePolicy::NoHuge);
    let domain = Memory::new(config).unwrap().domain("soft").unwrap();
    Pool::new(&domain, PoolConfig::default().packets(4096)).unwrap()
}

pub(in crate::testpmd) fn packet(pool: &Pool, frame: &[u8]) -> Packet {
    let mut packet = pool.get().unwrap();
    packet.append(frame.len()).unwrap().copy_from_slice(frame);
    packet
}

/// Returns a UDP frame with that source port.
pub(in crate::testpmd) fn udp(port: u16) -> Vec<u8> {
    let addresses = TxAddresses { udp: (port, 9), ..TxAddresses::default() };
    UdpFlow::of(addresses, Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])).frame(64)
}

fn tagged(mut frame: Vec<u8>, protocol: u16, tci: u16) -> Vec<u8> {
    frame.splice(12..12, [protocol.to_be_bytes(), tci.to_be_bytes()].concat());
    frame
}

/// Returns the packets that a queue has after the rules.
fn through(soft: &mut SoftPort, queues: u16, queue: u16, frames: &[Vec<u8>], pool: &Pool) -> Vec<Packet> {
    let mut burst = Burst::new();
    frames.iter().for_each(|frame| burst.push(packet(pool, frame)).unwrap());
    if let Some(rules) = soft.rules(queues, false, None) {
        rules.apply(queue, &mut burst, &mut Burst::new());
    }
    let count = burst.len();
    burst.drain(..count).collect()
}

#[test]
fn tags_are_taken_out_and_told() {
    let (pool, mut soft) = (pool(), SoftPort::default());
    let frames = [udp(1), tagged(udp(2), 0x8100, 0x2005), tagged(tagged(udp(3), 0x8100, 6), 0x88a8, 7)];
    assert!(soft.rules(1, false, None).is_none(), "nothing is on");
    soft.vlan.strip = true;
    let got = through(&mut soft, 1, 0, &frames, &pool);
    assert_eq!([got[0].data(), got[1].data()], [&udp(1)[..], &udp(2)[..]]);
    assert_eq!(got[2].data(), tagged(udp(3), 0x8100, 6), "the inner tag stays");
    assert_eq!((got[1].vlan_tci(), got[2].vlan_tci()), (0x2005, 7));
    let flags = Offload::RX_VLAN | Offload::RX_VLAN_STRIPPED;
    assert!(!got[0].offload().intersects(flags) && got[1].offload().contains(flags));
    soft.vlan.qinq_strip = true;
    assert_eq!(through(&mut soft, 1, 0, &frames, &pool)[2].data(), udp(3));
    // A queue whose setting differs from its port's.
    soft.vlan = RxVlan { strip_queues: [(1, true)].into(), ..RxVlan::default() };
    for (queue, want) in [(0, tagged(udp(2), 0x8100, 0x2005)), (1, udp(2))] {
        assert_eq!(through(&mut soft, 2, queue, &frames, &pool)[1].data(), want);
    }
}

#[test]
fn other_vlans_are_dropped_and_counted() {
    let (pool, mut soft) = (pool(), SoftPort::default());
    soft.vlan.filter = true;
    soft.vlan.allowed.set(5, true);
    soft.vlan.allowed.set(4095, true);
    let frames =
        [udp(1), tagged(udp(2), 0x8100, 0xe005), tagged(udp(3), 0x8100, 6), tagged(udp(4), 0x88a8, 4095)];
    let got = through(&mut soft, 1, 0, &frames, &pool);
    assert_eq!(got.iter().map(Packet::data).collect::<Vec<_>>(), [&frames[0][..], &frames[1], &frames[3]]);
    assert_eq!(soft.dropped(), 1);
    soft.vlan.allowed.set(5, false);
    assert_eq!(through(&mut soft, 1, 0, &frames, &pool).len(), 2);
    drop(got);
    assert_eq!(pool.stats().in_use, 0);
}

#[test]
fn tags_are_put_in_front_of_what_was_there() {
    let pool = pool();
    let mut burst = Burst::new();
    burst.push(packet(&pool, &udp(1))).unwrap();
    burst.push(packet(&pool, &[1, 2, 3])).unwrap();
    let tags = TxTags { outer: Some(100), inner: 2 };
    Tagged { mode: Io, tags }.step(&mut burst);
    assert_eq!(burst[0].data(), tagged(tagged(udp(1), 0x8100, 2), 0x88a8, 100));
    assert_eq!(burst[1].data(), [1, 2, 3], "no frame, no tag");
}

#[test]
fn two_tags_are_put_in_or_none() {
    let pool = pool();
    for (room, tags_fit) in [(3, false), (4, false), (7, false), (8, true)] {
        let mut burst = Burst::new();
        let mut packet = pool.get().unwrap();
        let len = packet.headroom() - room;
        let frame: Vec<u8> = (1..).take(len).collect();
        packet.prepend(len).unwrap().copy_from_slice(&frame);
        burst.push(packet).unwrap();
        let tags = TxTags { outer: Some(100), inner: 2 };
        Tagged { mode: Io, tags }.step(&mut burst);
        let both = tagged(tagged(frame.clone(), 0x8100, 2), 0x88a8, 100);
        assert_eq!(burst[0].data(), if tags_fit { both } else { frame }, "{room} bytes");
    }
}

/// Packets that one queue receives for another come out there, in order, once; only those without room are
/// lost.
#[test]
fn flows_are_spread_by_their_hash() {
    let (pool, mut soft) = (pool(), SoftPort::default());
    let rss = soft.rss.insert(Rss::new(4));
    rss.types = RssTypes::named("udp").unwrap();
    let rules = soft.rules(4, false, None).unwrap();
    let frames: Vec<_> = (0..60).map(udp).collect();
    let mut burst = Burst::new();
    frames.iter().for_each(|frame| burst.push(packet(&pool, frame)).unwrap());
    rules.apply(0, &mut burst, &mut Burst::new());
    let mut seen = 0;
    for queue in 0..4 {
        if queue > 0 {
            burst.clear();
            rules.apply(queue, &mut burst, &mut Burst::new());
        }
        let hash = |frame: &[u8]| Toeplitz::DEFAULT.flow(frame, &parse(frame)).unwrap();
        let want: Vec<_> = frames.iter().filter(|frame| hash(frame) % 128 % 4 == u32::from(queue)).collect();
        assert_eq!(
            burst.iter().map(|packet| packet.data().to_vec()).collect::<Vec<_>>(),
            want.into_iter().cloned().collect::<Vec<_>>()
        );
        assert!(burst.iter().all(|packet| packet.hash() == Some(hash(packet.data()))));
        seen += burst.len();
    }
    assert_eq!(seen, frames.len());
    // A queue that is not polled holds at most this many.
    soft.rss.as_mut().unwrap().reta = [3; 128];
    let rules = soft.rules(4, false, None).unwrap();
    for _ in 0..INBOX / 60 + 1 {
        burst.clear();
        frames.iter().for_each(|frame| burst.push(packet(&pool, frame)).unwrap());
        rules.apply(0, &mut burst, &mut Burst::new());
        assert!(burst.is_empty());
    }
    assert_eq!(soft.dropped() as usize, (INBOX / 60 + 1) * 60 - INBOX);
    drop(rules);
    soft.restart();
    assert_eq!(pool.stats().in_use, INBOX, "the rules hold them until they go");
    drop(soft);
}

/// No packet is moved while the port's device distributes them; the rules take over at once when it stops.
#[test]
fn flows_are_left_to_a_device_that_spreads_them() {
    let (pool, mut soft) = (pool(), SoftPort::default());
    soft.rss.insert(Rss::new(4)).types = RssTypes::named("all").unwrap();
    assert_eq!(soft.device_rss().unwrap().table[..5], [0, 1, 2, 3, 0]);
    let device = Arc::new(linecard::pmd::rss::Rss::new("port", 4));
    let rules = soft.rules(4, false, Some(device.clone())).unwrap();
    let frames: Vec<_> = (0..60).map(udp).collect();
    for by_device in [false, true, false] {
        device.set_by_device(by_device, false);
        let mut burst = Burst::new();
        frames.iter().for_each(|frame| burst.push(packet(&pool, frame)).unwrap());
        rules.apply(0, &mut burst, &mut Burst::new());
        assert_eq!(burst.len() == 60, by_device);
        assert_eq!(burst.iter().any(|packet| packet.hash().is_some()), !by_device);
    }
}

#[test]
fn only_what_is_asked_for_is_hashed() {
    let types = |name| RssTypes::named(name).unwrap();
    let mut rss = Rss::new(2);
    let frame = udp(7);
    let layers = parse(&frame);
    let mut hash = |name| {
        rss.types = types(name);
        rss.hash(&frame, &layers)
    };
    let (all, ip) = (hash("all"), hash("ip"));
    assert!(all.is_some() && ip.is_some() && all != ip);
    assert_eq!((hash("udp"), hash("tcp"), hash("none")), (all, None, None));
    for (flow, want) in [(2, ip), (4, None), (5, all), (8, None), (10, None), (11, None)] {
        rss.types = RssTypes::numbered(flow).unwrap();
        assert_eq!(rss.hash(&frame, &layers), want, "flow type {flow}");
    }
    assert_eq!([0, 1, 3, 6, 7, 9, 12, 63].map(RssTypes::numbered), [None; 8]);
    rss.types = types("udp");
    rss.set_key([0; rss::KEY_LEN]);
    assert_eq!(rss.hash(&frame, &layers), Some(0));
    assert_eq!((RssTypes::named("sctp"), rss.hash(&[0; 60], &parse(&[0; 60]))), (None, None));
}

#[test]
fn rules_drop_mark_count_and_steer() {
    let (pool, mut soft) = (pool(), SoftPort::default());
    let add = |soft: &mut SoftPort, line: &str| {
        soft.flows.add(flow::parse(&line.split(' ').collect::<Vec<_>>()).unwrap())
    };
    add(&mut soft, "priority 1 ingress pattern eth / ipv4 / udp / end actions mark id 7 / count / end");
    add(&mut soft, "ingress pattern eth / ipv4 / udp src is 2 / end actions drop / end");
    add(&mut soft, "ingress pattern eth / ipv4 / udp src is 3 / end actions queue index 1 / end");
    let frames = [udp(1), udp(2), udp(3)];
    let got = through(&mut soft, 2, 0, &frames, &pool);
    assert_eq!(got.iter().map(Packet::data).collect::<Vec<_>>(), [&frames[0][..]]);
    assert_eq!((got[0].mark(), got[0].hash()), (Some(7), None));
    assert!(soft.flows.query(0).unwrap().ends_with(" hits: 1\n bytes: 64\n"));
    assert_eq!(
        through(&mut soft, 2, 1, &[], &pool).iter().map(Packet::data).collect::<Vec<_>>(),
        [&frames[2][..]]
    );
    assert!(soft.flows.query(1).is_err() && soft.flows.query(9).is_err());
    assert_eq!(soft.flows.list().lines().nth(3), Some("2\t0\t0\ti--\tETH IPV4 UDP => QUEUE"));
    assert_eq!(soft.flows.refusal(1).unwrap().0, 2);
    assert!(soft.flows.remove(2) && !soft.flows.remove(2));
    soft.flows.clear();
    soft.restart();
    assert!(soft.rules(2, false, None).is_none());
}

#[test]
fn rules_change_the_outermost_tag() {
    let (pool, frames) = (pool(), [udp(1), tagged(udp(2), 0x8100, 0x2005)]);
    let through = |strip: bool, actions: &str| {
        let mut soft = SoftPort::default();
        soft.vlan.strip = strip;
        let line = format!("ingress pattern eth / end actions {actions} / end");
        soft.flows.add(flow::parse(&line.split(' ').collect::<Vec<_>>()).unwrap());
        let got = through(&mut soft, 1, 0, &frames, &pool);
        got.iter().map(|packet| packet.data().to_vec()).collect::<Vec<_>>()
    };
    let [plain, inner] = [udp(1), udp(2)];
    for (strip, actions, want) in [
        (false, "of_pop_vlan", [plain.clone(), inner.clone()]),
        (false, "of_set_vlan_vid vlan_vid 4095", [plain.clone(), tagged(inner.clone(), 0x8100, 0x2fff)]),
        (false, "of_set_vlan_pcp vlan_pcp 7", [plain.clone(), tagged(inner.clone(), 0x8100, 0xe005)]),
        (
            false,
            "of_push_vlan ethertype 0x88a8 / of_set_vlan_vid vlan_vid 9 / of_set_vlan_pcp vlan_pcp 2",
            [tagged(plain.clone(), 0x88a8, 0x4009), tagged(frames[1].clone(), 0x88a8, 0x4009)],
        ),
        // After the port's own stripping.
        (
            true,
            "of_push_vlan ethertype 0x8100 / of_set_vlan_vid vlan_vid 6",
            [tagged(plain.clone(), 0x8100, 6), tagged(inner.clone(), 0x8100, 6)],
        ),
        (true, "of_pop_vlan", [plain, inner]),
    ] {
        assert_eq!(through(strip, actions), want, "{actions}");
    }
}

#[test]
fn a_tag_that_has_no_room_is_not_changed_either() {
    let (pool, mut soft) = (pool(), SoftPort::default());
    let line =
        "ingress pattern eth / end actions of_push_vlan ethertype 0x8100 / of_set_vlan_vid vlan_vid 9 / end";
    soft.flows.add(flow::parse(&line.split(' ').collect::<Vec<_>>()).unwrap());
    let frame = tagged(udp(1), 0x8100, 5);
    let mut full = packet(&pool, &frame);
    let room = full.headroom();
    full.prepend(room).unwrap()[..12].copy_from_slice(&frame[..12]);
    full.data_mut().unwrap()[12..16].copy_from_slice(&frame[12..16]);
    let before = full.data().to_vec();
    let mut burst = Burst::new();
    burst.push(full).unwrap();
    soft.rules(1, false, None).unwrap().apply(0, &mut burst, &mut Burst::new());
    assert_eq!(burst[0].data(), before);
}

/// A tag that is taken out moves everything behind it.
#[test]
fn a_rule_spreads_frames_whose_tags_are_stripped_by_the_hash_of_their_flow() {
    let (pool, mut soft) = (pool(), SoftPort::default());
    soft.vlan.strip = true;
    let line = "ingress pattern eth / end actions rss queues 0 1 2 3 end / end";
    soft.flows.add(flow::parse(&line.split(' ').collect::<Vec<_>>()).unwrap());
    let frames: Vec<_> = (0..50).map(|port| tagged(udp(port), 0x8100, 5)).collect();
    let rules = soft.rules(4, false, None).unwrap();
    let mut burst = Burst::new();
    frames.iter().for_each(|frame| burst.push(packet(&pool, frame)).unwrap());
    rules.apply(0, &mut burst, &mut Burst::new());
    let want: Vec<_> = (0..50)
        .map(udp)
        .filter(|frame| Toeplitz::DEFAULT.flow(frame, &parse(frame)).unwrap().is_multiple_of(4))
        .collect();
    assert_eq!(burst.iter().map(|packet| packet.data().to_vec()).collect::<Vec<_>>(), want);
}
