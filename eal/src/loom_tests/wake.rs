//! Every interleaving of a sleeper that arms several queues with one fence and of the threads that wake it, on loom's
//! atomics.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};

use crate::wake::{Request, fence};

/// A queue: its packets, the flag of its sleeper, and the signals that its eventfd has got.
struct Queue {
    packets: AtomicU32,
    request: Request,
    signals: AtomicU32,
}

impl Queue {
    fn new() -> Self {
        Self { packets: AtomicU32::new(0), request: Request::new(), signals: AtomicU32::new(0) }
    }

    /// What a waker does.
    fn fill(&self) {
        self.packets.store(1, Ordering::Relaxed);
        if self.request.take() {
            self.signals.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn model(f: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(f);
}

/// The sleeper checks no queue before it has asked all of them. Of each queue it sees the packets, or it is signalled.
#[test]
fn one_fence_serves_all_queues() {
    model(|| {
        let queues = Arc::new([Queue::new(), Queue::new()]);
        let wakers = [0, 1].map(|which| {
            let queues = Arc::clone(&queues);
            loom::thread::spawn(move || queues[which].fill())
        });
        queues.iter().for_each(|queue| queue.request.request());
        fence();
        let seen = [0, 1].map(|which: usize| queues[which].packets.load(Ordering::Relaxed) > 0);
        wakers.into_iter().for_each(|waker| waker.join().expect("a waker"));
        for (queue, seen) in queues.iter().zip(seen) {
            let signalled = queue.signals.load(Ordering::Relaxed) > 0;
            assert!(seen || signalled, "the packets were not seen, and the sleeper was not woken");
        }
    });
}

/// A sleeper that is disarmed and armed again, as one is that found packets in another queue.
#[test]
fn a_second_round_loses_nothing() {
    model(|| {
        let queue = Arc::new(Queue::new());
        let theirs = Arc::clone(&queue);
        let waker = loom::thread::spawn(move || theirs.fill());
        queue.request.request();
        queue.request.withdraw();
        // The descriptor is drained before the flag is stored: what was signalled before is visible to the check.
        let drained = queue.signals.load(Ordering::Relaxed);
        queue.request.request();
        fence();
        let seen = queue.packets.load(Ordering::Relaxed) > 0;
        waker.join().expect("a waker");
        let signalled = queue.signals.load(Ordering::Relaxed) > drained;
        assert!(seen || signalled, "the packets were not seen, and the sleeper was not woken");
    });
}
