//! Clauses about the far side: its link, its removal, its counters. If a far side does not support an
//! operation, it reports that, and the clause ends early.

use linecard_mempool::Burst;

use super::bench::{Bench, Run};
use super::{FarEnd, Link, Peer};
use crate::wait_until;

/// Packets in the device's pool.
const PACKETS: u32 = 2048;
/// Packets offered to a device while its link is down: more than its rings hold.
const GIVEN: usize = 4096;

fn start(link: &dyn Link) -> Run {
    let bench = Bench::open(link, PACKETS);
    let config = bench.config(1);
    bench.start(&config)
}

fn peer(run: &mut Run) -> Option<&mut dyn Peer> {
    match &mut run.far {
        FarEnd::Peer(peer) => Some(&mut **peer),
        FarEnd::Loop | FarEnd::Nothing => None,
    }
}

/// Offers packets to a device that cannot deliver them: it neither blocks nor panics, and counts each packet
/// that it takes, as sent or as lost.
fn offer(run: &mut Run) {
    let before = run.port.control.stats();
    let (mut burst, mut taken) = (Burst::new(), 0);
    for _ in 0..GIVEN / 32 {
        while burst.len() < 32
            && let Some(packet) = run.pool.packet_of(&[0x55; 64], 64)
        {
            burst.push(packet).expect("room");
        }
        run.port.tx[0].reclaim();
        taken += run.port.tx[0].tx_burst(&mut burst) as u64;
        let mut received = Burst::new();
        run.port.rx[0].rx_burst(&mut received);
    }
    // Packets still in a ring are counted when the device learns their result.
    wait_until("every packet that was taken is counted", || {
        run.port.tx[0].reclaim();
        let stats = run.port.control.stats();
        let counted = stats.opackets - before.opackets + stats.oerrors - before.oerrors;
        counted == taken
    });
}

/// A link that goes down is reported, causes no harm, and comes up again.
pub fn link_down(link: &dyn Link) {
    let mut run = start(link);
    let frames = run.frames([60; 8]);
    run.exchange(0, &frames, usize::MAX);
    if !peer(&mut run).is_some_and(|peer| peer.set_link(false)) {
        run.stop();
        return;
    }
    wait_until("the port reports that its link is down", || !run.port.control.link().up);
    offer(&mut run);
    assert!(peer(&mut run).is_some_and(|peer| peer.set_link(true)), "up again");
    wait_until("the port reports that its link is up", || run.port.control.link().up);
    run.drain(0);
    let frames = run.frames([64; 32]);
    run.exchange(0, &frames, usize::MAX);
    run.stop_uncounted();
}

/// A device whose far side is removed during traffic reports its link down, counts its losses, and stops.
pub fn removed(link: &dyn Link) {
    let mut run = start(link);
    let frames = run.frames([60; 32]);
    run.exchange(0, &frames, usize::MAX);
    let _ = run.feed(0, &frames);
    if !peer(&mut run).is_some_and(|peer| peer.remove()) {
        run.drain(0);
        run.stop_uncounted();
        return;
    }
    offer(&mut run);
    wait_until("the port reports that its link is down", || !run.port.control.link().up);
    run.stop_uncounted();
}

/// The port's counters and those of the system at its far side increase by the same amounts.
pub fn kernel_counters(link: &dyn Link) {
    let mut run = start(link);
    let difference = |run: &mut Run| {
        let ours = run.port.control.stats();
        let theirs = peer(run).and_then(|peer| peer.counters())?;
        let more = |theirs: u64, ours: u64| theirs.wrapping_sub(ours);
        Some([
            more(theirs.ipackets, ours.ipackets),
            more(theirs.ibytes, ours.ibytes),
            more(theirs.opackets, ours.opackets),
            more(theirs.obytes, ours.obytes),
        ])
    };
    run.drain(0);
    let Some(before) = difference(&mut run) else {
        run.stop();
        return;
    };
    for size in [1, 17, 64] {
        let frames = run.frames((0..size).map(|i| 60 + 11 * i));
        run.exchange(0, &frames, usize::MAX);
    }
    let mut last = before;
    for _ in 0..100 {
        run.drain(0);
        last = difference(&mut run).expect("as before");
        if last == before {
            break;
        }
    }
    assert_eq!(last, before, "far side minus port: ipackets, ibytes, opackets, obytes");
    run.stop();
}
