//! A thread that polls its share of the receive queues and forwards the frames.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use linecard_eal::Stop;
use linecard_eal::wake::Wake;
use linecard_mempool::{Burst, Packet};
use linecard_pmd::direct::Frame;
use linecard_pmd::wake::PollPause;
use linecard_pmd::{RxQueue, TxQueue, contain};

use crate::forward::Engine;
use crate::lanes::{Forward, Lanes, Queue};
use crate::placement::{Given, Holder, Move};
use crate::port::{Egress, WorkerPort};
use crate::relations::Relations;
use crate::usage::Meter;

/// The number of rounds without frames before the clock is read.
const QUIET_ROUNDS: u32 = 64;
/// How long a worker keeps polling without receiving anything; then it sleeps until a frame arrives.
const ALERT: Duration = Duration::from_micros(200);
/// How often a halted worker checks for frames that others left in its inbox.
const COLLECT: Duration = Duration::from_micros(20);
/// How long a halted worker polls for commands without sleeping after [`Command::Ready`].
const READY: Duration = Duration::from_micros(500);
/// A command to a worker.
pub(crate) enum Command {
    /// A port was added; these of its receive queues belong to this worker.
    Add(u16, Box<WorkerPort>, Vec<Queue>),
    /// One receive queue of a port moves to another worker.
    Move(Move),
    /// The receive queue belongs to this worker from now on.
    Give(Given),
    /// The workers that have transmit queues of a port. A worker that sent through another one now sends
    /// through the first of them.
    Route(u16, Vec<usize>),
    /// Confirm that commands are being carried out.
    Answer(Sender<()>),
    /// The mirroring and sharing relations of a port.
    Relate(u16, Relations),
    /// A port is removed: return its queues.
    Remove(u16, Sender<ReturnedQueues>),
    /// Stop receiving; still send the frames that other workers leave in the inbox.
    Drain(Sender<()>),
    /// Send the frames left in the inbox, then stop.
    Halt(Sender<()>),
    /// While halted: poll for the next command without sleeping, for a moment.
    Ready,
    /// Resume after `Drain` or `Halt`.
    Resume,
}

/// The queues of a port that a worker returns.
pub(crate) struct ReturnedQueues {
    pub(crate) rx: Vec<Box<dyn RxQueue>>,
    pub(crate) tx: Option<Box<dyn TxQueue>>,
}

/// Sends commands to a worker. The worker ends when its last handle is dropped.
pub(crate) struct WorkerHandle {
    commands: Option<Sender<Command>>,
    pending: Arc<AtomicBool>,
    wake: Arc<Wake>,
}

impl WorkerHandle {
    /// The handle of a worker to be started, which `wake` wakes, and the worker's end of it.
    pub(crate) fn new(wake: Arc<Wake>) -> (Self, Mailbox) {
        let (commands, mailbox) = channel();
        let pending = Arc::new(AtomicBool::new(false));
        let mailbox = Mailbox { commands: mailbox, pending: Arc::clone(&pending), wake: Arc::clone(&wake) };
        (Self { commands: Some(commands), pending, wake }, mailbox)
    }

    /// Another handle of the same worker, which ends with its last handle.
    pub(crate) fn another(&self) -> Self {
        let Self { commands, pending, wake } = self;
        Self { commands: commands.clone(), pending: Arc::clone(pending), wake: Arc::clone(wake) }
    }

    /// Returns `false` if the worker has ended.
    pub(crate) fn tell(&self, command: Command) -> bool {
        self.send(command).is_ok()
    }

    /// Gives a queue to the worker; returns it if the worker has ended.
    pub(crate) fn give(&self, given: Given) -> Result<(), Given> {
        match self.send(Command::Give(given)) {
            Err(Some(Command::Give(given))) => Err(given),
            _ => Ok(()),
        }
    }

    fn send(&self, command: Command) -> Result<(), Option<Command>> {
        let sent = match &self.commands {
            Some(commands) => commands.send(command).map_err(|refused| Some(refused.0)),
            None => Err(Some(command)),
        };
        self.notify();
        sent
    }

    fn notify(&self) {
        // W1, pairs with W2: a worker that sees the flag also finds the command.
        self.pending.store(true, Ordering::Release);
        self.wake.wake();
    }
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        self.commands = None;
        self.notify();
    }
}

/// The worker's end of a [`WorkerHandle`].
pub(crate) struct Mailbox {
    commands: Receiver<Command>,
    pending: Arc<AtomicBool>,
    wake: Arc<Wake>,
}

/// One poll of every queue.
struct Round<'a> {
    engine: &'a mut Engine,
    start: Instant,
    /// The engine's clock has been set in this round.
    is_timed: bool,
}

impl Round<'_> {
    #[inline(always)]
    fn engine(&mut self) -> &mut Engine {
        if !std::mem::replace(&mut self.is_timed, true) {
            self.engine.now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        }
        self.engine
    }
}

impl Forward for Round<'_> {
    #[inline]
    fn direct(&mut self, port: u16, frames: &[Frame<'_>]) -> u64 {
        self.engine().direct(port, frames)
    }

    #[inline]
    fn packets(&mut self, port: u16, packets: &mut Burst, left: bool) {
        self.engine().received(port, packets, left);
    }
}

/// The state of the thread.
pub(crate) struct Worker {
    engine: Engine,
    lanes: Lanes,
    mailbox: Mailbox,
    inbox: Arc<ArrayQueue<Packet>>,
    burst: Burst,
    start: Instant,
    meter: Meter,
    /// The last handle was dropped: no command can come any more.
    closed: bool,
}

impl Worker {
    pub(crate) fn new(
        engine: Engine,
        mailbox: Mailbox,
        inbox: Arc<ArrayQueue<Packet>>,
        start: Instant,
        meter: Meter,
    ) -> Self {
        Self { engine, lanes: Lanes::new(), mailbox, inbox, burst: Burst::new(), start, meter, closed: false }
    }

    /// Polls until it is stopped. A panic in forwarding drops only the current burst.
    pub(crate) fn run(mut self, stop: &Stop) {
        linecard_eal::eventfd::prepare_thread();
        while stop.running() && !self.closed {
            // Forwarding is safe code: what it did before the panic left every structure valid.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.poll(stop))) {
                tracing::error!(
                    "the switch panicked over a frame and goes on without it ({}); report this as a fault of the switch",
                    contain::message(&*panic)
                );
                self.burst.clear();
                // The panic's payload may panic itself when it is dropped.
                std::mem::forget(panic);
            }
        }
    }

    fn poll(&mut self, stop: &Stop) {
        let (mut quiet_rounds, mut quiet_since) = (0_u32, None);
        let mut pause = PollPause::new();
        while stop.running() && !self.closed {
            let count = self.round();
            if count > 0 {
                self.meter.moved();
                pause.moved(count);
                (quiet_rounds, quiet_since) = (0, None);
                continue;
            }
            quiet_rounds += 1;
            if !pause.nothing() {
                std::hint::spin_loop();
            }
            let rests = quiet_rounds.is_multiple_of(QUIET_ROUNDS) || quiet_since.is_some();
            if rests {
                let since = *quiet_since.get_or_insert_with(Instant::now);
                self.rest(since.elapsed());
            }
            self.meter.found_nothing(rests);
        }
    }

    /// Polls the queues that may have frames; returns the number of frames received.
    #[inline]
    fn round(&mut self) -> usize {
        // W2, pairs with W1.
        if self.mailbox.pending.load(Ordering::Acquire) {
            self.run_commands();
        }
        let Self { lanes, engine, burst, start, .. } = self;
        let mut count = lanes.poll(burst, &mut Round { engine, start: *start, is_timed: false });
        if !self.inbox.is_empty() {
            count += self.engine.collect(&self.inbox);
        }
        if count > 0 {
            self.engine.flush();
        }
        count
    }

    /// Called after `quiet` without frames: keeps polling, or sleeps until a frame arrives.
    #[cold]
    fn rest(&mut self, quiet: Duration) {
        if quiet < ALERT {
            return;
        }
        self.engine.reclaim();
        let Self { lanes, mailbox, inbox, .. } = self;
        // The inbox and the mailbox are checked after the worker has asked to be woken for them.
        let busy = || mailbox.pending.load(Ordering::Acquire) || !inbox.is_empty();
        lanes.sleep(quiet, &mailbox.wake, busy);
    }

    #[cold]
    fn run_commands(&mut self) {
        self.mailbox.pending.store(false, Ordering::Relaxed);
        loop {
            match self.mailbox.commands.try_recv() {
                Ok(command) => self.carry_out(command),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.closed = true;
                    break;
                }
            }
        }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Add(port, worker_port, queues) => {
                let index = usize::from(port);
                if self.engine.worker_ports.len() <= index {
                    self.engine.worker_ports.resize_with(index + 1, || None);
                }
                if let Some(neighbours) = &mut self.engine.neighbours {
                    neighbours.add(port, &worker_port.rules);
                }
                self.engine.worker_ports[index] = Some(*worker_port);
                self.lanes.add(port, queues);
            }
            Command::Move(asked) => asked.carry_out(self),
            Command::Give(given) => self.take_up(given),
            Command::Route(port, owners) => self.engine.route(port, &owners),
            // The requester may have given up waiting.
            Command::Answer(tell) => drop(tell.send(())),
            Command::Relate(port, relations) => {
                if let Some(worker_port) = self.engine.worker_port_mut(port) {
                    worker_port.relations = relations;
                }
            }
            Command::Remove(port, home) => {
                // The requester may have given up waiting; the queues are dropped then.
                let _ = home.send(self.give_back(port));
            }
            Command::Drain(tell) => self.halt(false, &tell),
            Command::Halt(tell) => self.halt(true, &tell),
            // The worker is running already.
            Command::Resume | Command::Ready => {}
        }
    }

    /// Receives nothing until it is resumed. Until it is `still`, it sends what other workers leave in the
    /// inbox.
    fn halt(&mut self, mut still: bool, tell: &Sender<()>) {
        self.send_out();
        self.lanes.disarm_all();
        // The requester may have given up waiting; it sends the command to resume all the same.
        let _ = tell.send(());
        let mut alert: Option<Instant> = None;
        loop {
            let command = if alert.is_some_and(|since| since.elapsed() < READY) {
                std::hint::spin_loop();
                match self.mailbox.commands.try_recv() {
                    Err(TryRecvError::Empty) => continue,
                    Err(TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
                    Ok(command) => Ok(command),
                }
            } else if still {
                self.mailbox.commands.recv().map_err(RecvTimeoutError::from)
            } else {
                self.mailbox.commands.recv_timeout(COLLECT)
            };
            match command {
                Ok(Command::Resume) => return,
                Ok(Command::Ready) => alert = Some(Instant::now()),
                Ok(Command::Drain(tell)) => drop(tell.send(())),
                Ok(Command::Halt(tell)) => {
                    still = true;
                    self.send_out();
                    let _ = tell.send(());
                }
                Ok(command) => self.carry_out(command),
                Err(RecvTimeoutError::Timeout) => self.send_out(),
                Err(RecvTimeoutError::Disconnected) => {
                    self.closed = true;
                    return;
                }
            }
        }
    }

    /// Sends the frames in the inbox, and lets the transmit queues finish earlier bursts.
    fn send_out(&mut self) {
        while self.engine.collect(&self.inbox) > 0 {
            self.engine.flush();
        }
        self.engine.reclaim();
    }

    fn give_back(&mut self, port: u16) -> ReturnedQueues {
        if let Some(neighbours) = &mut self.engine.neighbours {
            neighbours.remove(port);
        }
        let mut home = ReturnedQueues {
            rx: self.lanes.remove(port, None).into_iter().map(|queue| queue.rx).collect(),
            tx: None,
        };
        if let Some(worker_port) = self.engine.worker_ports.get_mut(usize::from(port)).and_then(Option::take)
            && let Egress::Own(tx) = worker_port.egress
        {
            home.tx = Some(tx);
        }
        home
    }
}

impl Holder for Worker {
    fn let_go(&mut self, port: u16, queue: u16, to: usize, keeps_tx: bool) -> Option<Given> {
        let queue = self.lanes.remove(port, Some(queue)).pop()?;
        let is_last = !self.lanes.have(port);
        if is_last {
            self.engine.rest(port);
        }
        let tx = if is_last && !keeps_tx { self.engine.give_away(port, to) } else { None };
        Some(Given { port, queue, tx })
    }

    fn take_up(&mut self, given: Given) {
        let Given { port, queue, tx } = given;
        if let Some(tx) = tx {
            self.engine.take_over(port, tx);
        }
        self.lanes.add(port, vec![queue]);
    }
}

#[cfg(test)]
mod tests;
