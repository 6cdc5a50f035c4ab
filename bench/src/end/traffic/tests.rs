use linecard::eal::{Memory, MemoryConfig};
use linecard::mempool::PoolConfig;
use linecard::pmd::{Port, PortConfig, ProbeContext, configure};

use super::*;
use crate::loopback::Size;

/// A ring that returns what is sent.
fn looped(size: Size) -> (Traffic, Port) {
    let memory = Memory::new(MemoryConfig::default()).expect("memory");
    let domain = memory.domain("tester").expect("a domain");
    let pool = Pool::new(&domain, PoolConfig::default().packets(4096)).expect("a pool");
    let context = ProbeContext::new(memory, domain, Duration::from_secs(1));
    let device = linecard::drivers().probe(&context, "net_ring0").expect("a ring");
    let config = PortConfig::default().mtu(65_000);
    let port = configure(device, config).map_err(|e| e.error).expect("configured");
    let port = port.start(&pool).map_err(|e| e.error).expect("started");
    (Traffic::new(Clock::calibrated(), pool, Load { size, ring: 256, burst: 32 }), port)
}

fn queues(port: &mut Port) -> Queues<'_> {
    Queues { rx: &mut *port.rx[0], tx: &mut *port.tx[0] }
}

const TIME: Duration = Duration::from_millis(20);

#[test]
fn a_loop_without_loss_is_counted_so() {
    for size in [Size::Bytes(64), Size::Imix, Size::Bytes(65_535)] {
        let (mut traffic, mut port) = looped(size);
        let queues = &mut queues(&mut port);
        for offer in [Offer::PerSecond(10_000), Offer::Max] {
            let tally = traffic.trial(queues, offer, TIME);
            assert!(tally.offered > 0 && tally.received == tally.offered, "{size} {offer}: {tally:?}");
            let wrong = (tally.lost, tally.duplicated, tally.reordered, tally.corrupted);
            assert_eq!(wrong, (0, 0, 0, 0), "{size} {offer}");
            assert!(tally.p50 > 0 && tally.p50 <= tally.p99 && tally.p99 <= tally.max, "{tally:?}");
        }
        let tally = traffic.ping(queues, 100, Duration::ZERO, Duration::from_secs(60));
        assert_eq!((tally.received, tally.lost), (100, 0), "{size}");
        assert!(traffic.first(queues, TIME, || ()));
    }
}

#[test]
fn lost_doubled_and_changed_frames_are_told_apart() {
    let (mut traffic, _port) = looped(Size::Bytes(64));
    traffic.base = traffic.next;
    for _ in 0..10 {
        traffic.make(2, cycles());
        // The first of two never arrives; the second arrives twice, and once with a changed byte.
        let sent = traffic.made.pop().expect("two were made");
        let mut broken = sent.copy(&traffic.pool).expect("the pool has more");
        broken.data_mut().expect("not shared")[50] ^= 1;
        for frame in [&sent, &sent, &broken] {
            traffic.account(frame::check(frame.data()), cycles());
        }
        traffic.made.clear();
    }
    let tally = traffic.tally(20, 1, 0);
    assert_eq!((tally.received, tally.lost, tally.duplicated, tally.corrupted), (10, 10, 10, 10));
}

#[test]
fn a_pace_is_kept_and_interruptions_are_not_made_up_for() {
    let clock = Clock::calibrated();
    let mut pace = Pace::new(Offer::PerSecond(clock.hz() / 100), &clock, 32, 256);
    assert_eq!((pace.due(50, 0), pace.due(150, 0), pace.due(3_150, 0)), (0, 1, 31));
    assert_eq!((pace.due(6_450, 0), pace.short), (32, 0), "some may be made up for");
    let gap = 2 * clock.cycles_in(INTERRUPTED);
    assert_eq!((pace.due(6_450 + gap, 64), pace.short), (32, 0), "an interruption");
    let skipped = pace.skipped;
    assert!(skipped > 0);
    assert_eq!(pace.due(6_450 + gap, 64 + 64), 0, "the rest of it is gone");
    assert_eq!(pace.due(6_450 + gap + 10_000, 64 + 64), 32);
    assert_eq!(pace.short, 100 - 64, "too slow without an interruption");
    assert_eq!(Pace::new(Offer::Max, &clock, 32, 256).due(0, 9), 32);
}
