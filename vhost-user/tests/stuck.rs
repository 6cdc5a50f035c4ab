//! A polling thread that is held up in the middle of a burst: its port ends all the same, others do not notice, and the memory it
//! works on stays until it comes out.

mod common;

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::{Bench, Guest, frame, receive};
use linecard_lab::{wait_for, wait_until};
use linecard_mempool::Burst;
use linecard_pmd::direct::{Frame, all};
use linecard_pmd::{RxQueue, TxQueue};
use linecard_virtio::Features;

/// The longest that a close waits for the port's thread, as SECURITY.md says.
const CLOSES: Duration = Duration::from_secs(2);
/// What closing takes beyond that.
const REST: Duration = Duration::from_millis(500);
/// The most processor time of each thread meanwhile: a thread that does not sleep uses all of a second.
const BUSY: Duration = Duration::from_millis(300);

/// The time that a thread has run, and that it was ready to run and had no core.
#[derive(Clone, Copy, Default)]
struct Times {
    ran: Duration,
    queued: Duration,
}

impl Times {
    /// `None` if the thread has ended.
    fn of(task: &str) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{task}/schedstat")).ok()?;
        let mut numbers = text.split_whitespace().map(|nanos| nanos.parse().map(Duration::from_nanos));
        Some(Self { ran: numbers.next()?.ok()?, queued: numbers.next()?.ok()? })
    }

    fn since(self, before: Self) -> Self {
        Self { ran: self.ran - before.ran, queued: self.queued - before.queued }
    }
}

/// The thread of this process that is called `name`.
fn thread_called(name: &str) -> String {
    let named =
        |path: &PathBuf| std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name);
    let task = wait_for("the thread", || {
        let tasks = std::fs::read_dir("/proc/self/task").expect("proc");
        tasks.flatten().map(|task| task.path()).find(named)
    });
    format!("self/task/{}", task.file_name().expect("a number").to_string_lossy())
}

/// Does `close`. Returns how long it took but for the time in which one of the threads had no core, and the times of the
/// calling thread and of the port's thread, which ends meanwhile.
fn time(port: &str, close: impl FnOnce()) -> (Duration, [Times; 2]) {
    let thread = thread_called(port);
    let of_port = Times::of(&thread).expect("it runs");
    std::thread::scope(|scope| {
        let watch = scope.spawn(move || {
            let mut last = of_port;
            while let Some(times) = Times::of(&thread) {
                last = times;
                std::thread::sleep(Duration::from_millis(5));
            }
            last.since(of_port)
        });
        let (before, began) = (Times::of("thread-self").expect("it runs"), Instant::now());
        close();
        let took = began.elapsed();
        let mine = Times::of("thread-self").expect("it runs").since(before);
        let ports = watch.join().expect("no panic");
        (took.saturating_sub(mine.queued + ports.queued), [mine, ports])
    })
}

/// A packet each way through another port.
fn passes(other: &mut Bench, guest: &mut Guest, n: usize) {
    guest.send(&frame(n, 200));
    guest.tx.publish();
    guest.post_receive(n % 64, 1, 2048);
    let mut packets = receive(&mut other.rx, 1);
    assert_eq!(packets[0].data(), frame(n, 200));
    wait_until("sending", || other.tx.tx_burst(&mut packets) == 1);
    assert_eq!(guest.received().len(), 1);
    guest.tx.take();
}

/// The frame's bytes as they are now, also those that are still in the frontend's buffer.
fn bytes(frame: &Frame<'_>) -> Vec<u8> {
    let mut all = Vec::new();
    for (start, len) in frame.runs() {
        // SAFETY: a frame's runs can be read while it is shown, which is what this test is about.
        all.extend_from_slice(unsafe { std::slice::from_raw_parts(start, len) });
    }
    all
}

/// Holds a poller of port `name` inside a burst while `end` ends the port from outside.
fn while_stuck(
    name: &str,
    features: Features,
    end: impl FnOnce(&mut Option<Bench>, &mut Option<Guest>) + Send,
) {
    let (bench, mut bystander) = (Bench::new(name), Bench::new("beside"));
    let (guest, mut neighbour) =
        (Guest::start(&bench.path, features), Guest::start(&bystander.path, Features::empty()));
    bench.wait_link(true);
    bystander.wait_link(true);
    // As the switch has it, so that frames are shown where they lie.
    let mut rx = bench.backend_rx().with_offloads(linecard_pmd::offload::RxOffloads::VIRTIO);
    let sent = frame(7, 1000);
    let (mut bench, mut guest) = (Some(bench), Some(guest));
    let (inside, entered) = mpsc::channel();
    let (release, held) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let expected = &sent;
        let poller = scope.spawn(move || {
            let mut packets = Burst::new();
            let mut shown = 0;
            while shown == 0 {
                rx.rx_direct(&mut packets, &mut |frames: &[Frame<'_>]| {
                    shown += frames.len();
                    inside.send(()).expect("the test listens");
                    // Nobody sends anything: the sender is dropped.
                    let _ = held.recv();
                    assert_eq!(bytes(&frames[0]), *expected, "the memory is there as long as the burst");
                    all(frames.len())
                });
                std::thread::yield_now();
            }
            // Whatever became of the port, its queue can be polled.
            packets.clear();
            (0..1000).map(|_| rx.rx_burst(&mut packets)).sum::<usize>()
        });
        let frontend = guest.as_mut().expect("not ended yet");
        frontend.send(&sent);
        frontend.tx.publish();
        entered.recv().expect("a frame is shown");
        let (ended, over) = mpsc::channel();
        scope.spawn(move || {
            end(&mut bench, &mut guest);
            let _ = ended.send(());
        });
        let mut rounds = 0;
        while over.try_recv().is_err() {
            passes(&mut bystander, &mut neighbour, rounds);
            rounds += 1;
        }
        passes(&mut bystander, &mut neighbour, rounds);
        assert!(!poller.is_finished(), "it is still inside");
        drop(release);
        assert_eq!(poller.join().expect("no panic"), 0);
    });
}

#[test]
fn a_port_is_closed_while_its_poller_is_stuck_in_a_burst() {
    for features in [Features::empty(), Features::RING_PACKED] {
        while_stuck("stuck", features, |bench, _| {
            let path = bench.as_ref().expect("not ended yet").path.clone();
            let (took, times) = time("stuck", || drop(bench.take()));
            assert!(took < CLOSES + REST, "{took:?}");
            assert!(!path.exists(), "its socket is gone");
            for (times, whose) in times.iter().zip(["the closing thread", "the port's thread"]) {
                assert!(times.ran < BUSY, "{whose} took {:?} of {took:?}", times.ran);
            }
        });
    }
}

#[test]
fn a_frontend_leaves_while_the_poller_is_stuck_in_a_burst() {
    for features in [Features::empty(), Features::RING_PACKED] {
        while_stuck("left", features, |bench, guest| {
            drop(guest.take());
            // It is not let go of before the burst is over; the port can still be asked.
            let bench = bench.as_ref().expect("not ended yet");
            assert!(bench.backend.peer().connected());
            assert!(bench.backend.peer().path(1).is_some());
        });
    }
}
