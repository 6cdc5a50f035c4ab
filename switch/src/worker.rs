//! A thread that polls its share of the ports and forwards what comes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use linecard_eal::Stop;
use linecard_mempool::{Burst, Packet};
use linecard_pmd::{RxQueue, TxQueue, contain};

use crate::forward::Engine;
use crate::port::{Seat, Way};

/// Rounds without frames before the time is looked at.
const QUIET_ROUNDS: u32 = 64;
/// How long a worker goes on looking once nothing comes.
const ALERT: Duration = Duration::from_micros(200);
/// How long it rests between looks at first, and how long in the end.
const NAP: Duration = Duration::from_micros(50);
const SLEEP: Duration = Duration::from_millis(1);
/// When it begins to rest longer.
const QUIET: Duration = Duration::from_millis(10);

/// What a worker is told.
pub(crate) enum Command {
    /// A port is there; its receive queues are this worker's.
    Add(u16, Box<Seat>, Vec<Box<dyn RxQueue>>),
    /// A port goes: its queues go home.
    Remove(u16, Sender<Home>),
}

/// The queues of a port that come back from a worker.
#[derive(Default)]
pub(crate) struct Home {
    pub(crate) rx: Vec<Box<dyn RxQueue>>,
    pub(crate) tx: Option<Box<dyn TxQueue>>,
}

/// Tells a worker what to do.
pub(crate) struct Remote {
    commands: Sender<Command>,
    pending: Arc<AtomicBool>,
    thread: Option<Thread>,
}

impl Remote {
    /// One for a worker to be made, and what it listens to.
    pub(crate) fn new() -> (Self, Mailbox) {
        let (commands, mailbox) = channel();
        let pending = Arc::new(AtomicBool::new(false));
        let remote = Self { commands, pending: Arc::clone(&pending), thread: None };
        (remote, Mailbox { commands: mailbox, pending })
    }

    /// The worker runs in this thread, which can be woken.
    pub(crate) fn runs_in(&mut self, thread: Thread) {
        self.thread = Some(thread);
    }

    /// `false` when the worker is gone.
    pub(crate) fn tell(&self, command: Command) -> bool {
        let told = self.commands.send(command).is_ok();
        // W1, pairs with W2: who sees the flag finds the command.
        self.pending.store(true, Ordering::Release);
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
        told
    }
}

/// The worker's end of a [`Remote`].
pub(crate) struct Mailbox {
    commands: Receiver<Command>,
    pending: Arc<AtomicBool>,
}

/// One receive queue and the port it is of.
struct Lane {
    port: u16,
    rx: Box<dyn RxQueue>,
}

/// The thread's state.
pub(crate) struct Worker {
    engine: Engine,
    lanes: Vec<Lane>,
    mailbox: Mailbox,
    inbox: Arc<ArrayQueue<Packet>>,
    burst: Burst,
    start: Instant,
}

impl Worker {
    pub(crate) fn new(
        engine: Engine,
        mailbox: Mailbox,
        inbox: Arc<ArrayQueue<Packet>>,
        start: Instant,
    ) -> Self {
        Self { engine, lanes: Vec::new(), mailbox, inbox, burst: Burst::new(), start }
    }

    /// Polls until it is stopped. A panic in forwarding costs the burst it was at.
    pub(crate) fn run(mut self, stop: &Stop) {
        while stop.running() {
            // Forwarding is safe code: what it did before it panicked left everything whole.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.poll(stop))) {
                tracing::error!(
                    "the switch panicked over a frame and goes on without it ({}); report this as a fault of the switch",
                    contain::message(&*panic)
                );
                self.burst.clear();
                // What a panic carries may panic when it is dropped.
                std::mem::forget(panic);
            }
        }
    }

    fn poll(&mut self, stop: &Stop) {
        let (mut quiet_rounds, mut quiet_since) = (0_u32, None);
        while stop.running() {
            if self.round() > 0 {
                (quiet_rounds, quiet_since) = (0, None);
                continue;
            }
            quiet_rounds += 1;
            std::hint::spin_loop();
            if quiet_rounds.is_multiple_of(QUIET_ROUNDS) || quiet_since.is_some() {
                let since = *quiet_since.get_or_insert_with(Instant::now);
                self.rest(since.elapsed());
            }
        }
    }

    /// Looks at every queue once; how many frames came.
    #[inline]
    fn round(&mut self) -> usize {
        // W2, pairs with W1.
        if self.mailbox.pending.load(Ordering::Acquire) {
            self.obey();
        }
        let mut count = 0;
        for lane in &mut self.lanes {
            let came = lane.rx.rx_burst(&mut self.burst);
            if came > 0 {
                if count == 0 {
                    self.engine.now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
                }
                count += came;
                self.engine.forward(lane.port, &mut self.burst);
            }
        }
        if !self.inbox.is_empty() {
            count += self.engine.collect(&self.inbox);
        }
        if count > 0 {
            self.engine.flush();
        }
        count
    }

    /// Nothing came for `quiet`: looks on, or rests a little.
    #[cold]
    fn rest(&mut self, quiet: Duration) {
        if quiet < ALERT {
            return;
        }
        self.engine.reclaim();
        std::thread::park_timeout(if quiet < QUIET { NAP } else { SLEEP });
    }

    #[cold]
    fn obey(&mut self) {
        self.mailbox.pending.store(false, Ordering::Relaxed);
        while let Ok(command) = self.mailbox.commands.try_recv() {
            match command {
                Command::Add(port, seat, queues) => {
                    let index = usize::from(port);
                    if self.engine.seats.len() <= index {
                        self.engine.seats.resize_with(index + 1, || None);
                    }
                    self.engine.seats[index] = Some(*seat);
                    self.lanes.extend(queues.into_iter().map(|rx| Lane { port, rx }));
                }
                Command::Remove(port, home) => {
                    // Nobody may be waiting any more; then the queues end here.
                    let _ = home.send(self.give_back(port));
                }
            }
        }
    }

    fn give_back(&mut self, port: u16) -> Home {
        let mut home = Home::default();
        let (gone, kept) = std::mem::take(&mut self.lanes).into_iter().partition(|lane| lane.port == port);
        self.lanes = kept;
        let gone: Vec<Lane> = gone;
        home.rx = gone.into_iter().map(|lane| lane.rx).collect();
        if let Some(seat) = self.engine.seats.get_mut(usize::from(port)).and_then(Option::take)
            && let Way::Own(tx) = seat.way
        {
            home.tx = Some(tx);
        }
        home
    }
}
