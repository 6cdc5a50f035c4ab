//! A port with traffic beside the one that is attacked: one thread polls both, and no packet may be lost or late.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use linecard_mempool::{Burst, Pool};
use linecard_pmd::{RxQueue, TxQueue};
use linecard_vhost_user::{Backend, BackendConfig, Control, Mode, Receive, Transmit};
use linecard_virtio::Features;

use crate::common::{Guest, HEADER, frame, pool, socket_path};

/// After this a packet is lost.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two packets, so that the others of this test get a core too.
const PAUSE: Duration = Duration::from_micros(50);
/// Receive buffers of the guest, one after the other.
const BUFFERS: usize = 64;

/// Time of the calling thread, but for that in which it was ready to run and had no core.
struct Stopwatch {
    schedstat: File,
}

impl Stopwatch {
    fn new() -> Self {
        Self { schedstat: File::open("/proc/thread-self/schedstat").expect("proc") }
    }

    /// How long the thread has waited for a core, in all.
    fn queued(&self) -> Duration {
        let mut text = [0; 64];
        let len = self.schedstat.read_at(&mut text, 0).expect("proc");
        let text = std::str::from_utf8(&text[..len]).expect("digits");
        Duration::from_nanos(text.split(' ').nth(1).and_then(|nanos| nanos.parse().ok()).expect("a number"))
    }

    fn time(&self, work: impl FnOnce()) -> Duration {
        let (queued, began) = (self.queued(), Instant::now());
        work();
        let took = began.elapsed();
        took.saturating_sub(self.queued().saturating_sub(queued))
    }
}

/// A port with a guest that sends and receives, and queues of other ports that the same thread polls.
pub(crate) struct Traffic {
    guest: Guest,
    rx: Receive,
    tx: Transmit,
    others: Vec<(Receive, Transmit)>,
    pool: Pool,
    came: Burst,
    sent: usize,
    _port: Backend,
}

impl Traffic {
    /// A port of `control`, and its guest.
    pub(crate) fn new(control: &Control) -> Self {
        let (path, pool) = (socket_path("traffic"), pool(1024, 0));
        let port = Backend::new(control, BackendConfig::new("traffic", &path, Mode::Listen));
        let port = port.expect("a backend");
        let (rx, tx) = queues(&port, &pool);
        let guest = Guest::start(&path, Features::empty());
        let mut traffic =
            Self { guest, rx, tx, others: Vec::new(), pool, came: Burst::new(), sent: 0, _port: port };
        // All memory that packets pass through is there afterwards.
        (0..2048).for_each(|_| traffic.pass());
        traffic
    }

    /// Polls `port` too, with the thread that polls this one.
    pub(crate) fn poll_too(&mut self, port: &Backend) {
        self.others.push(queues(port, &self.pool));
    }

    /// The guest sends a packet, the port returns it, and it is the same; the other ports are polled before.
    pub(crate) fn pass(&mut self) {
        for (rx, tx) in &mut self.others {
            rx.rx_burst(&mut self.came);
            self.came.clear();
            if self.pool.get_bulk(&mut self.came, 1).is_ok() {
                self.came.iter_mut().for_each(|packet| packet.append(60).expect("room").fill(7));
                tx.tx_burst(&mut self.came);
            }
            self.came.clear();
        }
        let (n, until) = (self.sent, Instant::now() + PATIENCE);
        self.sent += 1;
        let bytes = frame(n, 60 + n % 500);
        self.guest.post_receive(n % BUFFERS, 1, 2048);
        self.guest.send(&bytes);
        self.guest.tx.publish();
        loop {
            self.rx.rx_burst(&mut self.came);
            self.tx.tx_burst(&mut self.came);
            match self.guest.received().as_slice() {
                [] => assert!(Instant::now() < until, "packet {n} is lost"),
                [(_, back)] => {
                    assert!(back[HEADER..] == bytes, "packet {n} is another");
                    self.guest.tx.take();
                    return;
                }
                more => panic!("{} packets came for one", more.len()),
            }
        }
    }

    /// Passes packets while `attack` goes on; returns the longest that one of them was under way.
    pub(crate) fn during<T>(&mut self, attack: impl FnOnce() -> T) -> (Duration, T) {
        let (begun, over) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let (begun, over, traffic) = (&begun, &over, &mut *self);
            let poller = scope.spawn(move || {
                let (watch, mut worst) = (Stopwatch::new(), Duration::ZERO);
                loop {
                    worst = worst.max(watch.time(|| traffic.pass()));
                    begun.store(true, Ordering::Release);
                    if over.load(Ordering::Relaxed) {
                        return worst;
                    }
                    std::thread::sleep(PAUSE);
                }
            });
            // Not while the thread is being made, which is to map memory.
            while !begun.load(Ordering::Acquire) && !poller.is_finished() {
                std::thread::yield_now();
            }
            let result = attack();
            over.store(true, Ordering::Relaxed);
            (poller.join().expect("no packet is lost"), result)
        })
    }
}

fn queues(port: &Backend, pool: &Pool) -> (Receive, Transmit) {
    let rx = port.receive_queue(0, pool, Default::default()).expect("a queue");
    (rx, port.transmit_queue(0, Default::default()).expect("a queue"))
}
