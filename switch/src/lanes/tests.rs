use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use linecard_eal::{Memory, MemoryConfig, PagePolicy};
use linecard_mempool::{Pool, PoolConfig};

use super::*;

/// Nobody waits for as long as this: a wake-up that was lost is noticed.
const LONG: Duration = Duration::from_secs(300);

/// A queue with frames out of nothing.
#[derive(Clone)]
struct Fake {
    pool: Pool,
    wake: Arc<Wake>,
    frames: Arc<AtomicUsize>,
    /// Says that there is something, always.
    liar: bool,
    arms: Arc<AtomicUsize>,
    /// Bursts that were asked for.
    looks: Arc<AtomicUsize>,
}

impl Fake {
    fn new(liar: bool) -> Self {
        let config = MemoryConfig::default().pages(PagePolicy::NoHuge);
        let domain = Memory::new(config).expect("memory").domain("packets").expect("a domain");
        let pool = Pool::new(&domain, PoolConfig::default().packets(64).cache(0));
        Self {
            pool: pool.expect("a pool"),
            wake: Arc::default(),
            frames: Arc::default(),
            liar,
            arms: Arc::default(),
            looks: Arc::default(),
        }
    }

    /// Another one of the same pool.
    fn like(&self) -> Self {
        let (wake, frames, arms, looks) = Default::default();
        Self { pool: self.pool.clone(), wake, frames, liar: self.liar, arms, looks }
    }

    fn send(&self) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.wake.wake();
    }
}

impl RxQueue for Fake {
    fn rx_burst(&mut self, packets: &mut Burst) -> usize {
        self.looks.fetch_add(1, Ordering::Relaxed);
        let frames = self.frames.swap(0, Ordering::Relaxed);
        (0..frames).filter(|_| self.pool.get().is_some_and(|packet| packets.push(packet).is_ok())).count()
    }

    fn path(&self) -> &'static str {
        "fake"
    }

    fn arm(&mut self) -> Armed {
        self.arms.fetch_add(1, Ordering::Relaxed);
        assert!(self.wake.arm(), "a descriptor");
        if self.liar || self.frames.load(Ordering::Relaxed) > 0 { Armed::Ready } else { Armed::Asleep }
    }

    fn disarm(&mut self) {
        self.wake.disarm();
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        self.wake.event()
    }
}

fn lanes(queues: &[Fake]) -> Lanes {
    let mut lanes = Lanes { bound: LONG, ..Lanes::new() };
    for (port, queue) in (0..).zip(queues) {
        lanes.add(port, vec![Queue { number: 0, rx: Box::new(queue.clone()), packets: Arc::default() }]);
    }
    lanes
}

/// Which port packets came from last; they are dropped.
struct Last(Option<u16>);

impl Forward for Last {
    fn direct(&mut self, _: u16, _: &[Frame<'_>]) -> u64 {
        0
    }

    fn packets(&mut self, port: u16, packets: &mut Burst, _: bool) {
        packets.clear();
        self.0 = Some(port);
    }
}

/// Sleeps until a frame comes, as a worker does; which port it came from.
fn wait(lanes: &mut Lanes, wake: &Wake) -> u16 {
    let mut burst = Burst::new();
    loop {
        let mut last = Last(None);
        lanes.poll(&mut burst, &mut last);
        match last.0 {
            Some(port) => return port,
            None => lanes.sleep(Duration::from_secs(2), wake, || false),
        }
    }
}

#[test]
fn any_queue_wakes_the_worker_and_the_others_stay_armed() {
    let queues = [Fake::new(false), Fake::new(false), Fake::new(false)];
    let (mut lanes, wake) = (lanes(&queues), Wake::new());
    let start = Instant::now();
    let turns = 300;
    thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        let senders = queues.clone();
        scope.spawn(move || {
            // The next frame once the one before has come: the worker may sleep, or be about to.
            for turn in told {
                let sender: &Fake = &senders[usize::from(turn % 2 == 0)];
                sender.send();
            }
        });
        for turn in 0..turns {
            tell.send(turn).expect("it listens");
            assert_eq!(wait(&mut lanes, &wake), u16::from(turn % 2 == 0));
        }
    });
    assert!(start.elapsed() < LONG, "a wake-up was lost");
    assert!(queues[2].arms.load(Ordering::Relaxed) <= 1, "what says nothing is armed once");
}

/// A worker that is busy with one of a thousand queues looks at few of the others in a round, and at each of them in its turn.
#[test]
fn quiet_queues_are_looked_at_in_turn_and_active_ones_in_each_round() {
    let one = Fake::new(false);
    let queues: Vec<_> = (0..1000).map(|_| one.like()).collect();
    let (mut lanes, mut burst) = (lanes(&queues), Burst::new());
    let mut round = |lanes: &mut Lanes| {
        let mut last = Last(None);
        lanes.poll(&mut burst, &mut last);
        last.0
    };
    let looks = || queues.iter().map(|queue| queue.looks.load(Ordering::Relaxed)).sum::<usize>();
    let busy = &queues[500];
    // It is found.
    busy.send();
    let found = (0..1000 / IN_TURN).filter_map(|_| round(&mut lanes)).collect::<Vec<_>>();
    assert_eq!(found, [500]);
    let (before, own) = (looks(), busy.looks.load(Ordering::Relaxed));
    for _ in 0..100 {
        busy.send();
        assert_eq!(round(&mut lanes), Some(500));
    }
    assert_eq!(busy.looks.load(Ordering::Relaxed) - own, 100);
    assert!(looks() - before <= 100 * (1 + IN_TURN), "{}", looks() - before);
    // Another one gets its turn meanwhile, and is active then.
    queues[499].send();
    let mut came = (0..=1000 / IN_TURN).filter(|_| {
        busy.send();
        round(&mut lanes) == Some(499)
    });
    assert!(came.next().is_some());
    drop(came);
    assert_eq!(lanes.active.len(), 2);
    queues[499].send();
    assert_eq!(round(&mut lanes), Some(499));
    // Both go quiet, and one that is removed is not looked at any more.
    assert_eq!(lanes.remove(499, None).len(), 1);
    queues[500].send();
    assert_eq!(round(&mut lanes), Some(500));
    (0..QUIET).for_each(|_| assert_eq!(round(&mut lanes), None));
    assert!(lanes.active.is_empty() && lanes.lanes.iter().all(|lane| !lane.active));
    // After a sleep all are looked at.
    let before = looks();
    lanes.sleep(Duration::ZERO, &Wake::new(), || true);
    round(&mut lanes);
    assert_eq!(looks() - before, 999);
}

#[test]
fn whoever_leaves_work_wakes_the_worker() {
    let (mut lanes, wake, work) = (lanes(&[Fake::new(false)]), Wake::new(), AtomicUsize::new(0));
    let (start, over) = (Instant::now(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            for left in 1..=300 {
                work.store(left, Ordering::Release);
                wake.wake();
                while work.load(Ordering::Acquire) != 0 {
                    thread::yield_now();
                }
            }
            over.store(true, Ordering::Release);
            wake.wake();
        });
        let busy = || work.load(Ordering::Acquire) != 0 || over.load(Ordering::Acquire);
        while !over.load(Ordering::Acquire) {
            lanes.sleep(Duration::from_secs(2), &wake, busy);
            work.store(0, Ordering::Release);
        }
    });
    assert!(start.elapsed() < LONG, "a wake-up was lost");
}

#[test]
fn a_queue_that_lies_is_looked_at_now_and_then_and_the_others_wake() {
    let (liar, honest) = (Fake::new(true), Fake::new(false));
    let (mut lanes, wake) = (lanes(&[liar.clone(), honest.clone()]), Wake::new());
    for _ in 0..50 {
        lanes.sleep(Duration::ZERO, &wake, || false);
    }
    let asked = liar.arms.load(Ordering::Relaxed);
    assert!(usize::from(FALSE_ALARMS) <= asked, "{asked}");
    // Not believed: not asked, until a second has passed.
    let seconds = lanes.forgiven.elapsed().as_secs() as usize;
    assert!(asked <= usize::from(FALSE_ALARMS) * (2 + seconds), "{asked}");
    assert!(lanes.lanes[0].alarms >= FALSE_ALARMS && !lanes.lanes[0].watched);
    honest.send();
    assert_eq!(wait(&mut lanes, &wake), 1);
    // A frame restores its credit.
    liar.send();
    assert_eq!(wait(&mut lanes, &wake), 0);
    assert_eq!(lanes.lanes[0].alarms, 0);
}

#[test]
fn queues_that_go_are_waited_for_no_more() {
    let queues = [Fake::new(false), Fake::new(false)];
    let (mut lanes, wake) = (lanes(&queues), Wake::new());
    honest_sleep(&mut lanes, &wake, &queues[1]);
    let gone = lanes.remove(0, Some(0));
    assert!(lanes.remove(1, Some(7)).is_empty(), "it has no such queue");
    assert_eq!((gone.len(), lanes.lanes.len()), (1, 1));
    // It signals, and nobody listens.
    queues[0].wake.arm();
    queues[0].send();
    honest_sleep(&mut lanes, &wake, &queues[1]);
}

/// Sleeps until `queue` wakes it.
fn honest_sleep(lanes: &mut Lanes, wake: &Wake, queue: &Fake) {
    queue.send();
    assert_eq!(wait(lanes, wake), 1);
}
