//! Threads that sleep over queues.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use linecard_eal::memory::{Memory, MemoryConfig};
use linecard_eal::wake::{ArmBudget, Wake, fence};
use linecard_mempool::{Burst, Pool, PoolConfig};

use linecard_pmd::wake::{Adaptive, Armed, NAP, WaitOutcome, arm_descriptor};
use linecard_pmd::{Port, PortConfig, RxQueue, configure};

/// A queue that says the same for ever, and never has a packet.
struct Says {
    what: Armed,
    wake: Wake,
    /// Signals as soon as it is armed.
    storm: bool,
    armed: u32,
}

impl Says {
    fn new(what: Armed, storm: bool) -> Self {
        Self { what, wake: Wake::new(), storm, armed: 0 }
    }
}

impl RxQueue for Says {
    fn rx_burst(&mut self, _: &mut Burst) -> usize {
        0
    }

    fn path(&self) -> &'static str {
        "nothing"
    }

    fn arm(&mut self) -> Armed {
        self.armed += 1;
        assert!(self.wake.arm());
        if self.storm {
            self.wake.wake();
        }
        self.what
    }

    fn disarm(&mut self) {
        self.wake.disarm();
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        self.wake.event()
    }
}

/// Rests of a thread whose one queue says `what`, and how long they took.
fn rests(what: Armed, storm: bool, bound: Duration, count: usize) -> (Vec<WaitOutcome>, Duration) {
    let (mut adaptive, mut queue) = (Adaptive::new(Duration::ZERO, bound), Says::new(what, storm));
    let began = Instant::now();
    let rests = (0..count).map(|_| adaptive.wait(0, &mut [&mut queue])).collect();
    assert!(adaptive.asleep() <= began.elapsed() && queue.armed as usize == count);
    (rests, began.elapsed())
}

#[test]
fn a_peer_that_never_signals_costs_the_bound() {
    let bound = Duration::from_millis(2);
    let (rests, took) = rests(Armed::Asleep, false, bound, 10);
    assert_eq!(rests, [WaitOutcome::Passed; 10]);
    assert!(took >= 10 * bound, "{took:?}");
}

#[test]
fn a_queue_that_cannot_wake_is_looked_at_again_soon() {
    let (rests, took) = rests(Armed::Unable, false, Duration::from_secs(3600), 10);
    assert_eq!(rests, [WaitOutcome::Passed; 10]);
    assert!(took >= 10 * NAP, "{took:?}");
}

/// Whoever wakes the thread for nothing, again and again, is looked at every [`NAP`].
#[test]
fn false_alarms_are_believed_four_times() {
    for (what, storm, why) in
        [(Armed::Ready, false, WaitOutcome::Ready), (Armed::Asleep, true, WaitOutcome::Woken)]
    {
        let (rests, took) = rests(what, storm, Duration::from_secs(3600), 50);
        assert_eq!(rests[..4], [why; 4]);
        assert_eq!(rests[4..], [WaitOutcome::Passed; 46]);
        assert!(took >= 46 * NAP, "{took:?}");
    }
}

#[test]
fn packets_end_an_alarm() {
    let mut queue = Says::new(Armed::Ready, false);
    let mut adaptive = Adaptive::new(Duration::ZERO, Duration::from_secs(3600));
    // As often as it may arm at once.
    for _ in 0..ArmBudget::AT_ONCE {
        assert_eq!(adaptive.wait(1, &mut [&mut queue]), WaitOutcome::Busy);
        assert_eq!(adaptive.wait(0, &mut [&mut queue]), WaitOutcome::Ready);
    }
    assert_eq!((adaptive.sleeps(), queue.armed), (0, ArmBudget::AT_ONCE));
}

/// A queue that has a packet whenever the thread has armed it, which is what costs its thread most.
struct Wakes {
    wake: Wake,
    has: bool,
    /// How often it was armed, and how often by itself instead of together with the others.
    armed: u32,
    alone: u32,
}

impl Wakes {
    fn new() -> Self {
        Self { wake: Wake::new(), has: false, armed: 0, alone: 0 }
    }
}

impl RxQueue for Wakes {
    fn rx_burst(&mut self, _: &mut Burst) -> usize {
        usize::from(std::mem::take(&mut self.has))
    }

    fn path(&self) -> &'static str {
        "one packet for each arming"
    }

    fn arm(&mut self) -> Armed {
        self.alone += 1;
        self.begin_arm();
        fence();
        self.finish_arm()
    }

    fn begin_arm(&mut self) -> bool {
        self.armed += 1;
        self.wake.request()
    }

    fn finish_arm(&mut self) -> Armed {
        self.has = true;
        assert!(self.wake.wake(), "it was armed");
        Armed::Asleep
    }

    fn disarm(&mut self) {
        self.wake.disarm();
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        self.wake.event()
    }
}

/// A peer decides how often a thread wakes up, but not how often it interrupts the others.
#[test]
fn a_peer_that_wakes_a_thread_again_and_again_is_looked_at_in_naps() {
    let mut queues = [Wakes::new(), Wakes::new(), Wakes::new()];
    let mut adaptive = Adaptive::new(Duration::ZERO, Duration::from_secs(3600));
    let (began, mut burst, mut rounds) = (Instant::now(), Burst::new(), 0_u32);
    while queues[0].armed < 4 * ArmBudget::AT_ONCE {
        let moved: usize = queues.iter_mut().map(|queue| queue.rx_burst(&mut burst)).sum();
        let [first, second, third] = &mut queues;
        adaptive.wait(moved, &mut [first, second, third]);
        rounds += 1;
        assert!(rounds < 1_000_000, "it goes on");
    }
    let took = began.elapsed();
    let refilled = (took.as_secs_f64() * f64::from(ArmBudget::PER_SECOND)).ceil() as u32;
    for queue in &queues {
        assert_eq!(queue.alone, 0, "one fence is for all queues");
        assert!(
            queue.armed <= ArmBudget::AT_ONCE + refilled,
            "armed {} times within {took:?}, {refilled} are refilled meanwhile",
            queue.armed
        );
    }
}

/// After a quiet time, a packet wakes the thread: it is not found by a nap.
#[test]
fn a_packet_after_a_quiet_time_wakes_at_once() {
    let mut queue = Wakes::new();
    let mut adaptive = Adaptive::new(Duration::ZERO, Duration::from_secs(3600));
    let spend = |adaptive: &mut Adaptive, queue: &mut Wakes| {
        (0..1_000_000)
            .map(|_| {
                adaptive.wait(1, &mut [queue]);
                adaptive.wait(0, &mut [queue])
            })
            .take_while(|outcome| *outcome == WaitOutcome::Woken)
            .count()
    };
    assert!(spend(&mut adaptive, &mut queue) >= ArmBudget::AT_ONCE as usize);
    // The time in which all of them are refilled.
    std::thread::sleep(Duration::from_secs(1) * ArmBudget::AT_ONCE / ArmBudget::PER_SECOND);
    assert!(spend(&mut adaptive, &mut queue) >= ArmBudget::AT_ONCE as usize, "as often as at first");
}

#[test]
fn spins_before_it_sleeps() {
    let mut queue = Says::new(Armed::Asleep, true);
    let mut adaptive = Adaptive::new(Duration::from_secs(3600), Duration::ZERO);
    assert!((0..1000).all(|_| adaptive.wait(0, &mut [&mut queue]) == WaitOutcome::Busy));
    assert_eq!(queue.armed, 0, "nobody is asked before");
}

fn ports(pool: &Pool) -> [Port; 2] {
    let (left, right) = linecard_net_ring::pair("left", "right");
    [left, right].map(|device| {
        configure(device, PortConfig::default()).and_then(|port| port.start(pool)).expect("it starts")
    })
}

/// One sleep over the queues of several ports; whichever gets a packet ends it.
#[test]
fn any_queue_wakes() {
    let memory = Memory::new(MemoryConfig::default()).expect("memory");
    let domain = memory.domain("packets").expect("a domain");
    // Without caches: a thread that has signalled takes its time to end, and keeps what it has cached until then.
    let pool = Pool::new(&domain, PoolConfig::default().cache(0)).expect("a pool");
    let (mut first, mut second) = (ports(&pool), ports(&pool));
    let mut adaptive = Adaptive::new(Duration::ZERO, Duration::from_secs(60));
    for round in 0..200 {
        let [far, near] = if round % 2 == 0 { &mut first } else { &mut second };
        let mut rx = [near.rx.remove(0)];
        let mut other =
            std::mem::replace(far.rx.first_mut().expect("one"), Box::new(Says::new(Armed::Asleep, false)));
        let tx = far.tx.first_mut().expect("one");
        let began = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut burst = Burst::new();
                pool.get_bulk(&mut burst, 1).unwrap();
                assert_eq!(tx.tx_burst(&mut burst), 1);
            });
            let mut burst = Burst::new();
            while rx[0].rx_burst(&mut burst) == 0 {
                adaptive.wait(0, &mut [&mut *other, &mut *rx[0]]);
                assert!(began.elapsed() < Duration::from_secs(30), "a wake-up was lost");
            }
            assert_eq!(adaptive.wait(1, &mut [&mut *other, &mut *rx[0]]), WaitOutcome::Busy);
        });
        far.rx[0] = other;
        let [rx] = rx;
        near.rx.push(rx);
    }
}

#[test]
fn a_closed_descriptor_wakes_nobody() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    assert_eq!(arm_descriptor(&ours), Armed::Asleep);
    std::io::Write::write_all(&mut &theirs, b"x").expect("room");
    assert_eq!(arm_descriptor(&ours), Armed::Ready);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(writer);
    assert_eq!(arm_descriptor(reader.as_fd()), Armed::Unable);
}
