use super::*;
use crate::control::PortStats;

crate::causes! {
    enum RxLoss {
        Full = ("full", Total::Missed),
        Short = ("short", Total::Error),
        Bad = ("bad_header", Total::Error),
        NoBuffer = ("no_buffer", Total::NoBuffer),
        Seen = ("seen", Total::None),
    }
}

#[test]
fn causes_go_to_their_totals() {
    let counters = PortCounters::<RxLoss, AnyLoss>::new(2, 1);
    let (a, b, tx) = (counters.rx(0), counters.rx(1), counters.tx(0));
    a.moved(10, 1000);
    b.moved(1, 60);
    b.moved(0, 0);
    for (cause, n) in
        [(RxLoss::Full, 1), (RxLoss::Short, 2), (RxLoss::Bad, 4), (RxLoss::NoBuffer, 8), (RxLoss::Seen, 16)]
    {
        a.lost(cause, n);
    }
    tx.moved(3, 300);
    tx.lost(AnyLoss::Other, 5);
    let want = PortStats {
        ipackets: 11,
        ibytes: 1060,
        imissed: 1,
        ierrors: 6,
        rx_nombuf: 8,
        opackets: 3,
        obytes: 300,
        oerrors: 5,
    };
    assert_eq!(counters.stats(), want);
    assert_eq!(counters.queue_stats(1), PortStats { ipackets: 1, ibytes: 60, ..PortStats::default() });
    assert_eq!(counters.queue_stats(2), PortStats::default());
    assert_eq!(b.totals().bursts, 1, "an empty burst does not count");
}

#[test]
fn extended_names_are_dpdks_first() {
    let counters = PortCounters::<RxLoss, AnyLoss>::new(1, 1);
    counters.rx(0).lost(RxLoss::Bad, 7);
    let names: Vec<_> = counters.xstats();
    let text: Vec<_> = names.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(
        text.join(" "),
        "rx_good_packets=0 tx_good_packets=0 rx_good_bytes=0 tx_good_bytes=0 rx_missed_errors=0 rx_errors=7 \
         tx_errors=0 rx_mbuf_allocation_errors=0 rx_q0_packets=0 rx_q0_bytes=0 rx_q0_errors=7 tx_q0_packets=0 \
         tx_q0_bytes=0 rx_q0_bursts=0 rx_q0_full=0 rx_q0_short=0 rx_q0_bad_header=7 rx_q0_no_buffer=0 \
         rx_q0_seen=0 tx_q0_bursts=0 tx_q0_other=0"
    );
}

#[test]
fn a_reset_does_not_lose_what_is_counted_meanwhile() {
    let stats = QueueStats::<AnyLoss>::default();
    let (mut before, rounds) = (0, 20_000);
    std::thread::scope(|scope| {
        let owner = scope.spawn(|| (0..rounds).for_each(|_| stats.moved(1, 64)));
        while !owner.is_finished() {
            // What a reset hides is exactly what the counters gained up to it.
            stats.reset();
            let hidden = stats.baseline().packets;
            assert!(hidden >= before && hidden <= rounds);
            before = hidden;
        }
    });
    assert_eq!(stats.totals().packets + stats.baseline().packets, rounds);
    assert_eq!(stats.raw().bytes, rounds * 64);
}

#[test]
fn totals_are_right_across_the_wrap() {
    let stats = QueueStats::<AnyLoss>::default();
    stats.counters.packets.add(u64::MAX);
    stats.reset();
    stats.moved(3, 9);
    assert_eq!(stats.totals().packets, 3);
}

#[test]
fn queues_do_not_share_lines() {
    assert_eq!(std::mem::align_of::<QueueStats<AnyLoss>>() % 64, 0);
}
