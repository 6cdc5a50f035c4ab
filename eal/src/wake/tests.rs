use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Relay, Wake};
use crate::eventfd::EventFd;

const PATIENCE: Duration = Duration::from_secs(60);

fn ready(fd: BorrowedFd<'_>, wait: Duration) -> bool {
    let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
    let mut set = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut set, Some(&wait)).expect("a valid set") == 1
}

fn is_ready(wake: &Wake) -> bool {
    ready(wake.event().expect("armed before"), Duration::ZERO)
}

#[test]
fn wakes_once_for_each_time_it_was_armed() {
    let wake = Wake::new();
    wake.wake();
    assert!(wake.arm() && !is_ready(&wake), "what came before does not count");
    wake.wake();
    wake.wake();
    assert!(is_ready(&wake));
    assert!(wake.arm() && !is_ready(&wake), "armed anew");
    wake.disarm();
    wake.wake();
    assert!(!is_ready(&wake), "nobody waits");
}

/// One thread makes numbers visible and wakes; the other sleeps between them. Sleeping is the only way on: a wake-up that is
/// lost ends the test.
#[test]
fn no_wake_up_is_lost() {
    const ROUNDS: u64 = 20_000;
    let (wake, number, taken) = (Wake::new(), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..=ROUNDS {
                number.store(n, Ordering::Relaxed);
                wake.wake();
                // As soon as it is taken, so that the next one meets the sleeper in all of its steps.
                let mut spins = 0_u32;
                while taken.load(Ordering::Acquire) != n {
                    spins += 1;
                    if spins.is_multiple_of(64) { std::thread::yield_now() } else { std::hint::spin_loop() }
                }
            }
        });
        let mut seen = 0;
        while seen < ROUNDS {
            assert!(wake.arm());
            let mut now = number.load(Ordering::Relaxed);
            if now == seen {
                let event = wake.event().expect("armed");
                assert!(ready(event, PATIENCE), "the wake-up for {} of {ROUNDS} was lost", seen + 1);
                now = number.load(Ordering::Relaxed);
            }
            if now != seen {
                seen = now;
                taken.store(seen, Ordering::Release);
            }
        }
    });
}

#[test]
fn a_relay_passes_signals_on_and_follows_the_peer() {
    let [first, second] = [0, 1].map(|_| Arc::new(EventFd::new().expect("a descriptor")));
    let relay = Relay::new("relay", 2);
    let wake = Arc::clone(relay.wake(1).expect("a queue"));
    assert!(!relay.arm(2), "no such queue");
    relay.set(1, Some(first.clone()));
    let woken = |signal: &EventFd| {
        assert!(relay.arm(1));
        signal.signal();
        assert!(ready(wake.event().expect("armed"), PATIENCE), "it wakes");
    };
    woken(&first);
    // The counter is not read by anybody: the next signal is an edge all the same.
    woken(&first);
    assert!(relay.arm(1));
    relay.set(1, Some(second.clone()));
    assert!(ready(wake.event().expect("armed"), Duration::ZERO), "another peer: time to look");
    woken(&second);
    woken(&second);
    // The old one is let go of.
    let began = Instant::now();
    while Arc::strong_count(&first) > 1 {
        assert!(began.elapsed() < PATIENCE, "the first descriptor is kept");
        std::thread::yield_now();
    }
    relay.set(1, None);
    assert!(relay.arm(1));
    relay.wake_all();
    assert!(is_ready(&wake));
    let shared = Arc::downgrade(relay.wake(0).expect("a queue"));
    drop((relay, wake));
    let began = Instant::now();
    while shared.strong_count() > 0 {
        assert!(began.elapsed() < PATIENCE, "the thread ends with its relay");
        std::thread::yield_now();
    }
}

/// However often a peer signals, its sleeper wakes only so often.
#[test]
fn a_storm_is_bounded() {
    let call = Arc::new(EventFd::new().expect("a descriptor"));
    let relay = Relay::new("storm", 1);
    relay.set(0, Some(call.clone()));
    let wake = relay.wake(0).expect("a queue");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                call.signal();
            }
        });
        let (began, mut woken) = (Instant::now(), 0_u128);
        while woken < 2_000 {
            assert!(relay.arm(0));
            assert!(ready(wake.event().expect("armed"), PATIENCE), "a storm wakes, too");
            woken += 1;
        }
        let most = (began.elapsed().as_millis() + 2) * 64;
        over.store(true, Ordering::Relaxed);
        assert!(woken <= most, "{woken} times in {:?}, at most {most}", began.elapsed());
    });
}

#[test]
fn descriptors_are_there_from_the_first_time_on() {
    let wake = Wake::default();
    assert!(wake.event().is_none());
    assert!(wake.arm());
    let number = |wake: &Wake| std::os::fd::AsRawFd::as_raw_fd(&wake.event().expect("armed").as_fd());
    let first = number(&wake);
    assert!(wake.arm());
    assert_eq!(number(&wake), first);
}
