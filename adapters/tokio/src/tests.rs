use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Waker};

use linecard::mempool::{Packet, Pool, PoolConfig};
use linecard::prelude::{Eal, EalArgs};
use rustix::event::{EventfdFlags, eventfd};

use super::*;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn eal_and_pool() -> (Eal, Pool) {
    let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "32"]).expect("arguments").0).expect("an Eal");
    let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(512)).expect("a pool");
    (eal, pool)
}

/// What a test says, and what the receiver did.
#[derive(Default)]
struct Script {
    /// Packets that the next burst gives.
    ready: AtomicUsize,
    armed: AtomicUsize,
    disarmed: AtomicUsize,
}

/// A queue that does as its script says.
struct Scripted {
    script: Arc<Script>,
    pool: Pool,
    says: Armed,
    event: Option<OwnedFd>,
}

impl RxQueue for Scripted {
    fn rx_burst(&mut self, packets: &mut Burst) -> usize {
        let count = self.script.ready.swap(0, SeqCst);
        packets.fill_from(&mut std::iter::from_fn(|| self.pool.get()).take(count))
    }

    fn path(&self) -> &'static str {
        "scripted"
    }

    fn arm(&mut self) -> Armed {
        self.script.armed.fetch_add(1, SeqCst);
        self.says
    }

    fn disarm(&mut self) {
        self.script.disarmed.fetch_add(1, SeqCst);
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        self.event.as_ref().map(AsFd::as_fd)
    }
}

/// A receiver of a queue that says this when it is armed; it has a descriptor with `event`.
fn scripted(says: Armed, event: bool) -> (Receiver, Arc<Script>, Eal) {
    let (eal, pool) = eal_and_pool();
    let script = Arc::new(Script::default());
    let event = event.then(|| eventfd(0, EventfdFlags::NONBLOCK).expect("an eventfd"));
    let queue = Scripted { script: Arc::clone(&script), pool, says, event };
    (Receiver::new(Box::new(queue)), script, eal)
}

/// Polls once, then cancels; what came of it.
fn once<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn packets_from_another_thread_wake_a_task() {
    const ROUNDS: usize = 200;
    let (eal, pool) = eal_and_pool();
    let mut left = linecard::ports::Ring::create("wakes").open(&eal, &pool).expect("a port");
    let mut right = linecard::ports::Ring::attach("wakes").open(&eal, &pool).expect("a port");
    let mut receiver = Receiver::new(right.rx.remove(0));
    let (turn, taken) = std::sync::mpsc::channel();
    let sender = std::thread::spawn(move || {
        for number in 0..ROUNDS as u32 {
            let mut packet = pool.get().expect("they come back");
            packet.copy_from_slice(&number.to_le_bytes()).expect("room");
            let mut packets = Burst::new();
            packets.push(packet).expect("room");
            assert_eq!(left.tx[0].tx_burst(&mut packets), 1);
            // The next one is sent to a receiver that is about to sleep, or does.
            taken.recv().expect("it was received");
        }
        left
    });
    runtime().block_on(async {
        let mut packets = Burst::new();
        for number in 0..ROUNDS as u32 {
            assert_eq!(receiver.receive(&mut packets).await.expect("a descriptor"), 1);
            assert_eq!(packets.pop().as_ref().map(Packet::data), Some(&number.to_le_bytes()[..]));
            turn.send(()).expect("the sender waits");
        }
    });
    let left = sender.join().expect("no panic");
    right.rx.push(receiver.into_inner());
    drop((left.stop(), right.stop()));
}

#[test]
fn a_cancelled_wait_loses_nothing_and_disarms() {
    let (mut receiver, script, _eal) = scripted(Armed::Asleep, true);
    let mut packets = Burst::new();
    runtime().block_on(async {
        for turn in 1..=3 {
            assert!(once(receiver.receive(&mut packets)).is_pending());
            assert_eq!((script.armed.load(SeqCst), script.disarmed.load(SeqCst)), (turn, turn));
        }
        script.ready.store(2, SeqCst);
        assert!(matches!(once(receiver.receive(&mut packets)), Poll::Ready(Ok(2))));
        assert_eq!((packets.len(), script.armed.load(SeqCst)), (2, 3), "not armed where packets are there");
    });
}

#[test]
fn a_queue_that_cannot_wake_is_looked_at_again_and_again() {
    for says in [Armed::Unable, Armed::Ready] {
        let (mut receiver, script, _eal) = scripted(says, false);
        receiver.set_nap(Duration::from_micros(50));
        let mut packets = Burst::new();
        runtime().block_on(async {
            let other = Arc::clone(&script);
            // Gets its turn, also beside a queue that always says that something is there.
            tokio::spawn(async move {
                while other.armed.load(SeqCst) < 5 {
                    tokio::task::yield_now().await;
                }
                other.ready.store(1, SeqCst);
            });
            assert_eq!(receiver.receive(&mut packets).await.expect("nothing to wait on"), 1);
        });
        assert_eq!(script.armed.load(SeqCst), script.disarmed.load(SeqCst));
    }
}

#[test]
fn a_full_burst_and_a_missing_descriptor_are_told() {
    let (mut receiver, script, _eal) = scripted(Armed::Asleep, false);
    let mut packets = Burst::with_capacity(1);
    runtime().block_on(async {
        let said = receiver.receive(&mut packets).await.expect_err("nothing to wait on");
        assert_eq!(said.to_string(), "the queue has nothing to wait on; poll it");
        script.ready.store(1, SeqCst);
        assert_eq!(receiver.receive(&mut packets).await.expect("a packet"), 1);
        assert_eq!(receiver.receive(&mut packets).await.expect("no room is no error"), 0);
    });
    assert_eq!((script.armed.load(SeqCst), script.disarmed.load(SeqCst)), (1, 1));
    assert!(format!("{receiver:?}").contains("scripted"));
}
