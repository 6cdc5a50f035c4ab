//! The clauses of the contract, one function each.

use std::sync::atomic::{AtomicUsize, Ordering};

use linecard_mempool::{Burst, Packet};

use super::bench::{Bench, Run, Seen};
use super::frames::{bytes, is_marked};
use super::{FarEnd, Link};
use crate::{wait_for, wait_until};
use linecard_pmd::config::{PortConfig, configure};
use linecard_pmd::error::Error;
use linecard_pmd::port::Device;

/// Packets in the device's pool: two rings of 1024, and packets in flight.
const PACKETS: u32 = 4096;

/// A device starts, moves packets and stops, repeatedly, with one queue and with several.
pub fn restarts(link: &dyn Link) {
    let mut bench = Bench::open(link, PACKETS);
    for round in 0..12 {
        let config = bench.config(1 + round % 3);
        let mut run = bench.start(&config);
        for queue in 0..config.rx_queues.into() {
            let frames = run.frames([60, 64, 61]);
            run.exchange(queue, &frames, usize::MAX);
        }
        bench = run.stop();
    }
    // Start and stop without traffic in between.
    let config = bench.config(1);
    bench.start(&config).stop();
}

/// A device restarts repeatedly with other numbers of queues, ring sizes and MTUs, and works as configured.
pub fn reconfigures(link: &dyn Link) {
    let mut bench = Bench::open(link, PACKETS);
    for round in 0..12_usize {
        let (info, limits) = (bench.near.info(), bench.limits.clone());
        let depth = |asked: u16| match asked.clamp(*info.depth.start(), *info.depth.end()) {
            depth if info.depth_power_of_two => depth.next_power_of_two(),
            depth => depth,
        };
        let most = bench.config(1 + (round % 3) as u16);
        let mtu = [most.mtu, most.mtu.min(1500), most.mtu.min(1280), most.mtu.min(1400)][round % 4];
        let (rx_depth, tx_depth) = (depth([256, 64, 1024, 128][round % 4]), depth([128, 512, 64][round % 3]));
        let config = most.rx_depth(rx_depth).tx_depth(tx_depth).mtu(mtu.max(*info.mtu.start()));
        let mut run = bench.start(&config);
        assert_eq!(run.port.control.mtu(), config.mtu, "the MTU that was asked for");
        let longest = (usize::from(config.mtu) + 14).min(*limits.len.end());
        for queue in 0..config.rx_queues.into() {
            let frames = run.frames([60, longest, 61, longest - 1]);
            run.exchange(queue, &frames, usize::MAX);
        }
        bench = run.stop();
    }
}

/// Bursts of every size from 0 to 64 arrive, in order.
pub fn burst_sizes(link: &dyn Link) {
    let (mut run, _) = start(link);
    for size in (0..=64).rev().chain(0..=64) {
        let frames = run.frames((0..size).map(|i| 60 + i));
        run.exchange(0, &frames, usize::MAX);
    }
    run.stop();
}

/// Received packets are appended to the burst's contents, and only as many as fit.
pub fn appended_bursts(link: &dyn Link) {
    let (mut run, _) = start(link);
    for own in [1, 24, 63, 64] {
        let mut burst = Burst::new();
        let own_frames = run.frames((0..own).map(|i| 200 + i));
        for frame in &own_frames {
            let packet = wait_for("a packet of our own", || run.pool.packet_of(frame, usize::MAX));
            burst.push(packet).expect("a burst at most");
        }
        let frames = run.frames([60; 80]);
        let (mut got, wanted) = (Vec::new(), if own == 64 { 0 } else { frames.len() });
        let mut sent = 0;
        wait_until("the burst is filled again and again", || {
            sent += run.feed(0, &frames[sent..]);
            let room = burst.room();
            let count = run.port.rx[0].rx_burst(&mut burst);
            assert!(count <= room && burst.len() == own + count, "{count} packets into room for {room}");
            assert!(
                burst.iter().zip(&own_frames).all(|(packet, frame)| bytes(packet) == *frame),
                "ours stay in front"
            );
            let new: Vec<_> = burst[own..].iter().map(bytes).collect();
            run.seen.rx_packets += count as u64;
            run.seen.rx_bytes += new.iter().map(|frame| frame.len() as u64).sum::<u64>();
            got.extend(new.into_iter().filter(|frame| is_marked(frame)));
            (0..count).for_each(|_| drop(burst.pop()));
            matches!(run.far, FarEnd::Nothing) || got.len() >= wanted
        });
        assert!(matches!(run.far, FarEnd::Nothing) || wanted == 0 || got == frames, "all of them, in order");
        drop(burst);
        run.drain(0);
    }
    run.stop();
}

/// Frames of every length from 1 to 9000 that the link supports, and of the greatest length, arrive
/// unchanged.
pub fn packet_sizes(link: &dyn Link) {
    let (mut run, longest) = start(link);
    let shortest = *run.limits.len.start();
    let lengths: Vec<usize> =
        (shortest..=longest.min(9000)).chain([longest.saturating_sub(1).max(shortest), longest]).collect();
    for lengths in lengths.chunks(32) {
        let frames = run.frames(lengths.iter().copied());
        run.exchange(0, &frames, usize::MAX);
    }
    run.stop();
}

/// Packets of several segments arrive complete, split at odd positions.
pub fn chains(link: &dyn Link) {
    let (mut run, longest) = start(link);
    let most = run.limits.segments;
    for piece in [1, 7, 14, 63, 64, 255, 1000] {
        let fitting =
            [2, 15, 60, 64, 128, 500, 1514].map(|len: usize| len.clamp(*run.limits.len.start(), longest));
        let lengths = fitting.into_iter().filter(|len| len.div_ceil(piece) <= most);
        let frames = run.frames(lengths);
        run.outbound(0, &frames, piece);
    }
    run.stop();
}

/// A device whose pool is empty receives nothing and causes no harm; it continues when packets are available
/// again.
pub fn pool_exhaustion(link: &dyn Link) {
    let bench = Bench::open(link, 1024);
    let info = bench.near.info();
    let config = bench.config(1).rx_depth(256.clamp(*info.depth.start(), *info.depth.end()));
    let mut run = bench.start(&config);
    let held: Vec<Packet> = std::iter::from_fn(|| run.pool.get()).collect();
    assert!(!held.is_empty(), "the pool had packets");

    let frames = run.frames([60; 64]);
    if let FarEnd::Peer(peer) = &mut run.far {
        for _ in 0..40 {
            let _ = frames.iter().take_while(|frame| peer.send(0, frame)).count();
            run.seen.receive(&mut *run.port.rx[0]);
        }
    }
    let starved = run.seen.receive(&mut *run.port.rx[0]).len();
    if matches!(run.far, FarEnd::Nothing) {
        assert_eq!(starved, 0, "no packets from an empty pool");
    }

    drop(held);
    run.drain(0);
    let frames = run.frames([64; 32]);
    run.exchange(0, &frames, usize::MAX);
    let seen = run.seen;
    let stats = run.port.control.stats();
    assert_eq!((stats.ipackets, stats.opackets), (seen.rx_packets, seen.tx_packets), "counters stay exact");
    run.stop_uncounted();
}

/// Totals match the transferred packets, per port, per queue and by name, and can be reset to zero.
pub fn counters(link: &dyn Link) {
    let bench = Bench::open(link, PACKETS);
    let config = bench.config(2);
    let mut run = bench.start(&config);
    for (queue, count) in (0..usize::from(config.rx_queues)).zip([3, 17]) {
        let frames = run.frames((0..count).map(|i| 60 + i * 3));
        run.exchange(queue, &frames, usize::MAX);
    }
    run.check_counters();
    let control = &run.port.control;
    let (stats, xstats) = (control.stats(), control.xstats());
    let queues = || (0..config.rx_queues).map(|queue| control.queue_stats(queue));
    assert_eq!(queues().map(|queue| queue.ipackets).sum::<u64>(), stats.ipackets, "queues sum up");
    assert_eq!(queues().map(|queue| queue.opackets).sum::<u64>(), stats.opackets, "queues sum up");
    assert_eq!(queues().map(|queue| queue.obytes).sum::<u64>(), stats.obytes, "queues sum up");
    let named = |name: &str| xstats.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
    assert_eq!(named("rx_good_packets"), Some(stats.ipackets));
    assert_eq!(named("tx_good_packets"), Some(stats.opackets));
    assert_eq!(named("rx_good_bytes"), Some(stats.ibytes));
    assert_eq!(named("tx_good_bytes"), Some(stats.obytes));
    assert_eq!(named("tx_q0_packets"), Some(control.queue_stats(0).opackets));
    assert_eq!(control.queue_stats(u16::MAX), Default::default(), "no such queue");
    let names: std::collections::HashSet<_> = xstats.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), xstats.len(), "names are different");

    control.reset_stats();
    run.seen = Seen::default();
    run.check_counters();
    let frames = run.frames([60; 5]);
    run.exchange(0, &frames, usize::MAX);
    run.stop();
}

/// A device stops with full rings in both directions and returns every packet.
pub fn full_rings(link: &dyn Link) {
    let (mut run, _) = start(link);
    let (mut burst, mut idle, mut total) = (Burst::new(), 0, 0);
    // Enough to fill any ring; a device without a far side would take packets for ever.
    while idle < 100 && total < 10_000 {
        // A burst size that divides no ring size, so that the last burst fits only partly.
        while burst.len() < 37
            && let Some(packet) = run.pool.packet_of(&[0x55; 64], 64)
        {
            burst.push(packet).expect("room");
        }
        let count = run.seen.send(&mut *run.port.tx[0], &mut burst);
        (idle, total) = (if count == 0 { idle + 1 } else { 0 }, total + count);
    }
    drop(burst);
    let frame = vec![0x66; 64];
    if let FarEnd::Peer(peer) = &mut run.far {
        let _ = (0..10_000).take_while(|_| peer.send(0, &frame)).count();
    }
    let bench = run.stop();
    let config = bench.config(1);
    let mut run = bench.start(&config);
    // The far side may still hold packets that were sent before the stop.
    run.drain(0);
    let frames = run.frames([100; 10]);
    run.exchange(0, &frames, usize::MAX);
    run.stop();
}

/// Polls until nothing moves, because a pause between bursts lets a ring without flow control overflow. Some
/// devices never become idle.
fn while_it_moves(mut poll: impl FnMut() -> (usize, usize)) {
    const MOST: usize = 256;
    let mut before = poll();
    for _ in 0..MOST {
        let now = poll();
        if now == before {
            return;
        }
        before = now;
    }
}

/// One thread polls the queues while another drives the far side.
pub fn other_thread(link: &dyn Link) {
    const COUNT: usize = 3000;
    let (mut run, _) = start(link);
    let frames = run.frames((0..COUNT).map(|i| 60 + i % 200));
    let Run { port, pool, far, seen, limits, .. } = &mut run;
    let (window, near_got, far_got) = (limits.window, AtomicUsize::new(0), AtomicUsize::new(0));
    // The number of packets that may still be sent, from the number sent and the number known to have
    // arrived.
    let room = |sent: usize, arrived: &AtomicUsize| {
        window.saturating_sub(sent.saturating_sub(arrived.load(Ordering::Relaxed)))
    };
    let (mut rx, mut tx) = (port.rx.remove(0), port.tx.remove(0));
    let (frames, pool) = (&frames, &*pool);
    let near = |mut seen: Seen, wanted: usize| {
        let (mut burst, mut next, mut got) = (Burst::new(), 0, Vec::new());
        wait_until("everything is sent and received", || {
            while_it_moves(|| {
                while next < COUNT
                    && burst.room() > 0
                    && (wanted == 0 || room(next, &far_got) > 0)
                    && let Some(packet) = pool.packet_of(&frames[next], 2048)
                {
                    burst.push(packet).expect("room");
                    next += 1;
                }
                seen.send(&mut *tx, &mut burst);
                got.extend(seen.receive(&mut *rx));
                near_got.store(got.len(), Ordering::Relaxed);
                (next, got.len())
            });
            next == COUNT && burst.is_empty() && got.len() >= wanted
        });
        assert!(wanted == 0 || got == *frames, "the device received what was sent, in order");
        (rx, tx, seen)
    };
    let (rx, tx, now) = std::thread::scope(|scope| match far {
        FarEnd::Loop => scope.spawn(|| near(*seen, COUNT)).join(),
        FarEnd::Nothing => scope.spawn(|| near(*seen, 0)).join(),
        FarEnd::Peer(peer) => {
            let near = scope.spawn(|| near(*seen, COUNT));
            let (mut next, mut got) = (0, Vec::new());
            wait_until("the far side sends and receives everything", || {
                while_it_moves(|| {
                    let most = room(next, &near_got).min(32);
                    next += frames[next..].iter().take(most).take_while(|frame| peer.send(0, frame)).count();
                    got.extend(
                        std::iter::from_fn(|| peer.receive(0)).take(32).filter(|frame| is_marked(frame)),
                    );
                    far_got.store(got.len(), Ordering::Relaxed);
                    (next, got.len())
                });
                next == COUNT && got.len() >= COUNT
            });
            assert!(got == *frames, "the far side received what was sent, in order");
            near.join()
        }
    })
    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    run.port.rx.insert(0, rx);
    run.port.tx.insert(0, tx);
    run.seen = now;
    run.stop();
}

/// A queue that does not return before its port stops frees its packets when it is dropped; then the device
/// starts again.
pub fn lost_queue(link: &dyn Link) {
    let (mut run, _) = start(link);
    let frames = run.frames([60; 8]);
    run.exchange(0, &frames, usize::MAX);
    let (rx, tx) = (std::mem::take(&mut run.port.rx), std::mem::take(&mut run.port.tx));
    let returned = std::thread::scope(|scope| {
        let holder = scope.spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            drop((rx, tx));
        });
        let bench = run.stop_uncounted();
        holder.join().expect("the holder only drops");
        bench
    });
    let config = returned.config(1);
    let mut run = returned.start(&config);
    run.drain(0);
    let frames = run.frames([60; 8]);
    run.exchange(0, &frames, usize::MAX);
    run.stop();
}

/// Every value out of range is refused with an error that names it, and the device is returned and still
/// works.
pub fn configure_errors(link: &dyn Link) {
    let mut bench = Bench::open(link, PACKETS);
    let (info, good) = (bench.near.info(), bench.config(1));
    let mut bad =
        vec![good.clone().rx_queues(0), good.clone().tx_queues(0), good.clone().mtu(info.mtu.start() - 1)];
    bad.extend(info.max_rx_queues.checked_add(1).map(|n| good.clone().rx_queues(n)));
    bad.extend(info.max_tx_queues.checked_add(1).map(|n| good.clone().tx_queues(n)));
    bad.extend(info.mtu.end().checked_add(1).map(|mtu| good.clone().mtu(mtu)));
    let below = info.depth.start().checked_sub(1).filter(|depth| *depth > 0);
    let odd = info.depth_power_of_two.then_some(info.default_depth - 1);
    for depth in [below, info.depth.end().checked_add(1), odd].into_iter().flatten() {
        bad.push(good.clone().rx_depth(depth));
        bad.push(good.clone().tx_depth(depth));
    }
    for config in bad {
        bench.near = refused(bench.near, &config);
    }
    let mut run = bench.start(&good);
    let frames = run.frames([60; 4]);
    run.exchange(0, &frames, usize::MAX);
    run.stop();
}

/// Checks that the device refuses `config`; returns the device.
fn refused(device: Box<dyn Device>, config: &PortConfig) -> Box<dyn Device> {
    let name = device.name().to_owned();
    let refusal = match configure(device, config.clone()) {
        Ok(_) => panic!("{name} accepts {config:?}"),
        Err(refusal) => refusal,
    };
    assert_eq!(refusal.device.name(), name, "the same device comes back");
    let asked = match refusal.error {
        Error::Queues { asked, .. } | Error::Depth { asked, .. } | Error::Mtu { asked, .. } => asked,
        ref other => panic!("{name}: {other} is no error about a limit"),
    };
    let message = refusal.error.to_string();
    assert!(
        message.contains(&asked.to_string()) && message.contains(&name),
        "{message}: says what was asked"
    );
    refusal.device
}

/// Starts a link with one queue pair; returns the length of the longest frame too.
fn start(link: &dyn Link) -> (Run, usize) {
    let bench = Bench::open(link, PACKETS);
    let config = bench.config(1);
    let run = bench.start(&config);
    let longest = *run.limits.len.end();
    (run, longest)
}
