//! Clauses about receive queues that wake sleeping threads.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::bench::{Bench, Run, Seen};
use super::{FarEnd, Link};
use linecard_mempool::{Burst, Pool};
use linecard_pmd::Armed;
use linecard_pmd::port::{RxQueue, TxQueue};

/// Longer than any wake-up takes, on any test machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most spins of the sender before it sends, so that packets arrive during each step of the sleeper.
const SPINS: usize = 4096;

/// An armed queue wakes the sleeping thread for every packet, and no wake-up is lost.
pub fn wakes(link: &dyn Link) {
    wakes_after(link, 0, 300);
}

/// The same as [`wakes`], with `sleeps` wake-ups, after `polled` packets were received by polling.
///
/// ```
/// # use linecard_lab::contract::{self, Ends, FarEnd, Link};
/// # use linecard_net_ring as ring;
/// # use linecard_pmd::ProbeContext;
/// # struct Pair;
/// # impl Link for Pair {
/// #     fn open(&self, _: &ProbeContext, _: &ProbeContext) -> Ends {
/// #         let (near, other) = ring::pair("a", "b");
/// #         Ends { near, far: FarEnd::port(other) }
/// #     }
/// # }
/// contract::wakes_after(&Pair, 65_536 - 100, 200); // an index of 16 bits wraps on the way
/// ```
pub fn wakes_after(link: &dyn Link, polled: usize, sleeps: usize) {
    let bench = Bench::open(link, 4096);
    let config = bench.config(1);
    let mut run = bench.start(&config);
    if matches!(run.far, FarEnd::Nothing) || !run.limits.wakes {
        let armed = run.port.rx[0].arm();
        assert_ne!(armed, Armed::Asleep, "a queue that wakes nobody says so");
        run.port.rx[0].disarm();
        run.stop_uncounted();
        return;
    }
    let mut left = polled;
    while left > 0 {
        let most = left.min(32).min(run.limits.window);
        let frames = run.frames(std::iter::repeat_n(60, most));
        match run.far {
            FarEnd::Peer(_) => run.inbound(0, &frames),
            _ => run.outbound(0, &frames, usize::MAX),
        }
        left -= most;
    }
    run.drain(0);
    let frames = run.frames((0..sleeps).map(|i| 60 + i % 8));
    sleep_over(&mut run, &frames);
    run.stop();
}

/// Sends each of `frames` after the previous one was received by a thread that sleeps until it arrives.
fn sleep_over(run: &mut Run, frames: &[Vec<u8>]) {
    let taken = AtomicUsize::new(0);
    let Run { port, pool, far, seen, .. } = run;
    let (mut rx, mut tx) = (port.rx.remove(0), port.tx.remove(0));
    let (mut got, mut sent) = (*seen, *seen);
    std::thread::scope(|scope| {
        let (taken, got, rx) = (&taken, &mut got, &mut rx);
        let sleeper = scope.spawn(move || sleep(rx.as_mut(), got, frames, taken));
        let gone = || sleeper.is_finished();
        for (n, frame) in frames.iter().enumerate() {
            (0..(n * 7919) % SPINS).for_each(|_| std::hint::spin_loop());
            send_one(far, (tx.as_mut(), pool), &mut sent, frame, &gone);
            until(|| {
                if let FarEnd::Peer(peer) = far {
                    // Also lets its driver do deferred work.
                    let _ = peer.receive(0);
                } else {
                    tx.reclaim();
                }
                taken.load(Ordering::Acquire) > n || gone()
            });
        }
    });
    port.rx.insert(0, rx);
    port.tx.insert(0, tx);
    *seen = Seen { tx_packets: sent.tx_packets, tx_bytes: sent.tx_bytes, ..got };
}

/// Polls, and yields in between, until `done` or until the time limit.
fn until(mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < 2 * PATIENCE, "the far side waits in vain");
        std::thread::yield_now();
    }
}

/// Sends `frame` to the receive queue of the device; `tx` is the device's own transmit queue.
fn send_one(
    far: &mut FarEnd,
    (tx, pool): (&mut dyn TxQueue, &Pool),
    sent: &mut Seen,
    frame: &[u8],
    gone: &dyn Fn() -> bool,
) {
    if let FarEnd::Peer(peer) = far {
        return until(|| peer.send(0, frame) || gone());
    }
    let mut burst = Burst::new();
    until(|| match pool.packet_of(frame, usize::MAX) {
        Some(packet) => burst.push(packet).is_ok(),
        None => gone(),
    });
    until(|| {
        sent.send(tx, &mut burst);
        burst.is_empty() || gone()
    });
}

/// Receives `frames`; polls only when the queue reports that it cannot wake.
fn sleep(rx: &mut dyn RxQueue, seen: &mut Seen, frames: &[Vec<u8>], taken: &AtomicUsize) {
    let (mut count, mut asleep) = (0, 0);
    let mut descriptor = None;
    let mut unable = Instant::now();
    while count < frames.len() {
        match rx.arm() {
            Armed::Ready => {}
            Armed::Unable => {
                assert!(unable.elapsed() < PATIENCE, "it says that it cannot wake, for ever");
                std::thread::yield_now();
            }
            Armed::Asleep => {
                let event = rx.event().expect("an armed queue has a descriptor");
                let number = std::os::fd::AsRawFd::as_raw_fd(&event);
                assert_eq!(*descriptor.get_or_insert(number), number, "the descriptor stays the same");
                assert!(ready(event, PATIENCE), "the wake-up for frame {count} of {} was lost", frames.len());
                asleep += 1;
                unable = Instant::now();
            }
        }
        rx.disarm();
        for frame in seen.receive(rx) {
            assert!(frame == frames[count], "frame {count}, in order");
            count += 1;
            taken.store(count, Ordering::Release);
        }
    }
    assert!(asleep > 0, "nobody ever slept");
}

fn ready(event: BorrowedFd<'_>, wait: Duration) -> bool {
    let wait = Timespec { tv_sec: wait.as_secs().try_into().expect("a minute"), tv_nsec: 0 };
    let mut set = [PollFd::from_borrowed_fd(event, PollFlags::IN)];
    poll(&mut set, Some(&wait)).expect("a valid set") == 1
}
