//! Counters against the kernel's, and packets dealt to queues.

use std::collections::{HashMap, HashSet};

use linecard_mempool::{BURST, Burst};

use super::{Bench, Cable, bytes, far_at, frame, near_at, nothing_left, receive, xstat};
use linecard_lab::wait_until;
use linecard_pmd::config::PortConfig;
use linecard_pmd::port::Port;

#[test]
fn drops_of_a_full_ring_add_up() {
    let Some(cable) = Cable::new("af_packet drops_of_a_full_ring_add_up") else { return };
    let bench = Bench::new();
    for options in [",framecnt=8", ",version=3,blocksz=4096,framecnt=8"] {
        let mut near = bench.start(&near_at(&cable, options), PortConfig::default());
        let mut far = bench.start(&far_at(&cable, ""), PortConfig::default());
        let control = std::sync::Arc::clone(&near.control);
        let mut sent = 0;
        for round in 0..5 {
            let frames: Vec<_> = (0..500).map(|i| frame(i + round, 100)).collect();
            bench.send(&mut far, &frames);
            sent += 500;
            // Read while some are dropped, and again: nothing may be counted twice or not at all.
            assert!(control.stats().imissed > 0, "{options}: a ring of eight frames was full");
            receive(&mut near, 0, 500);
            let stats = control.stats();
            assert_eq!(stats.ipackets + stats.imissed, sent, "{options}: {stats:?}");
            assert_eq!(xstat(&near, "rx_missed_errors"), stats.imissed);
            assert_eq!(xstat(&near, "rx_q0_ring_full"), stats.imissed);
            assert_eq!(control.queue_stats(0).imissed, stats.imissed);
        }
        bench.send(&mut far, &(0..100).map(|i| frame(i, 60)).collect::<Vec<_>>());
        let before = control.stats();
        drop((near.stop(), far.stop()));
        let after = control.stats();
        assert_eq!(after.imissed, before.imissed, "{options}: known after the port has stopped");
        nothing_left(&cable.near);
        control.reset_stats();
        assert_eq!(control.stats(), Default::default());
    }
    bench.finish();
}

#[test]
fn a_burst_of_bad_frames_ends() {
    let Some(cable) = Cable::new("af_packet a_burst_of_bad_frames_ends") else { return };
    cable.near.ip("link set near mtu 9000");
    cable.far.ip("link set far mtu 9000");
    let bench = Bench::new();
    let mut near = bench.start(&near_at(&cable, ",version=3,blocksz=4096"), PortConfig::default());
    let far = cable.far.wire("far");
    // Each is longer than a block of the ring.
    let bad = 2 * BURST as u64;
    assert!((0..bad).all(|_| far.send(&frame(0, 8000))) && far.send(&frame(1, 100)));
    wait_until("the last block is given out", || {
        let mut burst = Burst::new();
        let before = xstat(&near, "rx_q0_truncated");
        let count = near.rx[0].rx_burst(&mut burst);
        let lost = xstat(&near, "rx_q0_truncated") - before;
        assert!(lost <= BURST as u64, "one call has looked at {lost} bad frames");
        assert!(before > 0 || lost == BURST as u64, "{lost} of those that were there");
        count == 1
    });
    assert_eq!(xstat(&near, "rx_q0_truncated"), bad);
    near.stop();
    bench.finish();
}

#[test]
fn what_cannot_be_sent_is_counted() {
    let Some(cable) = Cable::new("af_packet what_cannot_be_sent_is_counted") else { return };
    let bench = Bench::new();
    let mut near = bench.start(&near_at(&cable, ""), PortConfig::default());
    let mut far = bench.start(&far_at(&cable, ""), PortConfig::default());
    let mut frames: Vec<_> = (0..6).map(|i| frame(i, 100)).collect();
    frames[1] = frame(1, 1515 + 4);
    frames[3].truncate(13);
    bench.send(&mut near, &frames);
    let got: Vec<_> = receive(&mut far, 0, 4).iter().map(bytes).collect();
    assert_eq!(got, [0, 2, 4, 5].map(|i| frame(i, 100)), "the others arrive, in order");
    let stats = near.control.stats();
    assert_eq!((stats.opackets, stats.oerrors, stats.obytes), (4, 2, 400));
    assert_eq!((xstat(&near, "tx_q0_too_long"), xstat(&near, "tx_q0_too_short")), (1, 1));
    drop((near.stop(), far.stop()));
    bench.finish();
}

#[test]
fn frames_larger_than_the_ring_arrive_or_are_counted() {
    let Some(cable) = Cable::new("af_packet frames_larger_than_the_ring_arrive_or_are_counted") else {
        return;
    };
    let bench = Bench::new();
    cable.near.ip("link set near mtu 9000");
    cable.far.ip("link set far mtu 9000");
    // The second version has room for them beside its frames, the third has not.
    for (options, arrive) in [(",framesz=512", true), (",version=3,blocksz=4096", false)] {
        let config = PortConfig::default().mtu(400);
        let mut near = bench.start(&near_at(&cable, options), config);
        let mut far = bench.start(&far_at(&cable, ",version=3"), PortConfig::default().mtu(9000));
        let frames = [436, 437, 1514, 60, 4000].map(|len| frame(len, len));
        let mut burst = linecard_mempool::Burst::new();
        for frame in &frames {
            let mut whole = bench.packet(&frame[..frame.len().min(2048)]);
            frame[frame.len().min(2048)..]
                .chunks(2048)
                .for_each(|piece| whole.chain(bench.packet(piece)).expect("room"));
            burst.push(whole).expect("room");
        }
        assert_eq!(far.tx[0].tx_burst(&mut burst), 5);
        let count = if arrive { 5 } else { 4 };
        let got: Vec<_> = receive(&mut near, 0, count).iter().map(bytes).collect();
        assert!(got == frames[..count], "{options}: {:?}", got.iter().map(Vec::len).collect::<Vec<_>>());
        let lost = 5 - count as u64;
        assert!(receive(&mut near, 0, 1).is_empty(), "{options}: all are looked at");
        assert_eq!(near.control.stats().ierrors, lost);
        assert_eq!(xstat(&near, "rx_q0_truncated"), lost);
        drop((near.stop(), far.stop()));
    }
    bench.finish();
}

#[test]
fn jumbo_frames_take_several_buffers() {
    let Some(cable) = Cable::new("af_packet jumbo_frames_take_several_buffers") else { return };
    let bench = Bench::new();
    cable.near.ip("link set near mtu 9000");
    cable.far.ip("link set far mtu 9000");
    for options in [",framesz=16384,blocksz=16384", ",version=3"] {
        let config = PortConfig::default().mtu(9000);
        let mut near = bench.start(&near_at(&cable, options), config.clone());
        let mut far = bench.start(&far_at(&cable, options), config);
        let want: Vec<_> = [2048, 2049, 4096, 9014, 9013, 60].map(|len| frame(len, len)).into();
        let mut burst = linecard_mempool::Burst::new();
        for frame in &want {
            let mut whole = bench.packet(&frame[..frame.len().min(2048)]);
            for piece in frame[frame.len().min(2048)..].chunks(2048) {
                whole.chain(bench.packet(piece)).expect("room");
            }
            burst.push(whole).expect("room");
        }
        assert_eq!(near.tx[0].tx_burst(&mut burst), want.len());
        let got = receive(&mut far, 0, want.len());
        assert!(got.iter().map(bytes).eq(want), "{options}");
        assert_eq!(got[3].nb_segs(), 5);
        drop((got, near.stop(), far.stop()));
    }
    bench.finish();
}

/// UDP over IPv4; the flow is its source port.
fn flow(source: u16) -> Vec<u8> {
    let mut bytes = frame(0, 60);
    bytes[12..14].copy_from_slice(&[0x08, 0x00]);
    bytes[14..34].copy_from_slice(&[0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    bytes[34..36].copy_from_slice(&source.to_be_bytes());
    bytes[36..42].copy_from_slice(&[0, 9, 0, 26, 0, 0]);
    bytes
}

/// The queues that packets of each flow arrived on.
fn queues_of_flows(port: &mut Port, queues: u16) -> HashMap<u16, HashSet<u16>> {
    let mut seen: HashMap<_, HashSet<_>> = HashMap::new();
    for queue in 0..queues {
        for packet in receive(port, queue.into(), usize::MAX) {
            let source = u16::from_be_bytes([packet.data()[34], packet.data()[35]]);
            seen.entry(source).or_default().insert(queue);
        }
    }
    seen
}

#[test]
fn fanout_deals_every_packet_once() {
    let Some(cable) = Cable::new("af_packet fanout_deals_every_packet_once") else { return };
    let bench = Bench::new();
    let frames: Vec<_> = (0..4).flat_map(|_| (1000..1064).map(flow)).collect();
    for mode in ["hash", "lb", "cpu", "rollover", "rnd", "qm"] {
        let text = near_at(&cable, &format!(",qpairs=4,fanout_mode={mode}"));
        let mut near = bench.start(&text, PortConfig::default().rx_queues(4).tx_queues(1));
        let mut far = bench.start(&far_at(&cable, ""), PortConfig::default());
        bench.send(&mut far, &frames);
        let flows = queues_of_flows(&mut near, 4);
        let stats = near.control.stats();
        assert_eq!((stats.ipackets, stats.imissed), (256, 0), "{mode}: each packet once");
        let used = |port: &Port| (0..4).filter(|queue| port.control.queue_stats(*queue).ipackets > 0).count();
        assert_eq!(flows.len(), 64, "{mode}");
        match mode {
            "hash" => {
                assert!(flows.values().all(|queues| queues.len() == 1), "a flow stays on its queue");
                assert!(used(&near) >= 3, "64 flows use most queues");
            }
            "lb" => assert!((0..4).all(|queue| near.control.queue_stats(queue).ipackets == 64), "in turn"),
            "rollover" => assert_eq!(used(&near), 1, "the first one, as long as it has room"),
            _ => {}
        }
        drop((near.stop(), far.stop()));
    }
    nothing_left(&cable.near);
    bench.finish();
}
