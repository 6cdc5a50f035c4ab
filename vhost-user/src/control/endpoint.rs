//! One backend's socket, its connection, and the gates of its queues.

mod frontends;
mod handover;
mod kept;

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use linecard_eal::gate::{Controller, close_all, gate};
use linecard_wire::Connection;
use linecard_wire::socket::Listener;

use super::asks::{Question, RingAsk};
use super::epoll::{Epoll, Interest};
use super::link::Link;
use super::rate::Rate;
use crate::limits::Ledger;
use crate::peer::{Peer, tell};
use crate::session::{Slots, Terms, Verdict};
use crate::slot::VringSlot;
use frontends::CONNECT_INTERVAL;
use handover::Hands;
use kept::Kept;

/// The time within which a message must arrive completely, from its first byte.
const MESSAGE_TIME: Duration = Duration::from_secs(1);
/// The interval between two looks at a gate whose poller was inside.
const GATE_INTERVAL: Duration = Duration::from_millis(1);
/// Attempts to close busy gates, with a yield after each, before the thread does other work.
const GATE_LOOKS: u32 = 64;
/// Messages processed before commands and deadlines are checked.
const MESSAGES_PER_TURN: usize = 32;
/// Microseconds of the thread's time that may be used without delay.
const BUSY_MICROS: u32 = 1_000_000;
/// The interval between two attempts to store the port's state.
const KEEP_INTERVAL: Duration = Duration::from_millis(100);

/// The source of connections.
pub(super) enum Source {
    Listen(Arc<Listener>),
    /// `told` is the error of the last failed attempt that was logged.
    Connect {
        path: PathBuf,
        next: Instant,
        told: Option<ErrorKind>,
    },
}

/// The state of one backend, owned by its control thread.
pub(crate) struct Endpoint {
    pub(super) source: Source,
    pub(super) terms: Terms,
    pub(super) watched: bool,
    pub(super) peer: Arc<Peer>,
    pub(super) gates: Vec<Controller<VringSlot>>,
    /// New gates that replace old ones after a port was started again.
    pub(super) arriving: VecDeque<(usize, Controller<VringSlot>)>,
    /// Requests about single rings.
    pub(super) asks: Vec<RingAsk>,
    closings: Rate,
    /// Microseconds of this thread's time.
    time: Rate,
    /// The frontend's time budget is spent: its requests are not read before this instant.
    resting: Option<Instant>,
    pub(super) ledger: Ledger,
    /// A step of a hand-over has to be tried again soon.
    pub(super) leaving: bool,
    /// The stage of a hand-over, and with it the process that serves the port.
    hands: Hands,
    /// The state stored for a later process.
    kept: Kept,
    /// Accepting a connection failed: the listening socket is not watched before this instant.
    paused: Option<Instant>,
    link: Option<Link>,
    /// A frontend that connected while the rings of the one before it were still being closed.
    successor: Option<Connection>,
}

/// Tokens of an endpoint: the socket it listens on, and its connection.
pub(super) const SOCKET: u64 = 1;
const CONNECTION: u64 = 2;

impl Endpoint {
    pub(super) fn new(source: Source, terms: Terms, ledger: Ledger, watched: bool, peer: Arc<Peer>) -> Self {
        let gates = (0..u32::from(terms.queue_pairs) * 2)
            .map(|_| gate(VringSlot::new(Arc::clone(&peer))).1)
            .collect();
        let now = Instant::now();
        let kept = Kept::new(&peer, &ledger.closer);
        Self {
            source,
            terms,
            watched,
            peer,
            gates,
            arriving: VecDeque::new(),
            asks: Vec::new(),
            closings: Rate::full(ledger.interruption_burst(), now),
            time: Rate::full(BUSY_MICROS, now),
            resting: None,
            ledger,
            leaving: false,
            hands: Hands::Ours,
            kept,
            paused: None,
            link: None,
            successor: None,
        }
    }

    /// The latest time at which [`Endpoint::tick`] must be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.leaving {
            return Some(Instant::now() + GATE_INTERVAL);
        }
        if !self.is_ours() {
            return self.may_settle().then(|| Instant::now() + GATE_INTERVAL);
        }
        if !self.asks.is_empty() {
            return Some(Instant::now() + GATE_INTERVAL);
        }
        // State that could not be stored.
        let kept = self.kept.is_due().then(|| Instant::now() + KEEP_INTERVAL);
        match self.resting {
            Some(until) => Some(until),
            None => [self.link_deadline(), self.paused, kept].into_iter().flatten().min(),
        }
    }

    /// Charges `time` to the frontend. A frontend that floods its port with requests delays only itself: once
    /// its budget is spent, its requests are not read for a while.
    pub(super) fn spent(&mut self, time: Duration) {
        let per_second = self.ledger.control_micros();
        self.time.spend(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
        let now = Instant::now();
        self.resting = (!self.time.allows(now, per_second)).then(|| now + self.time.wait(per_second));
        if self.time.is_news() {
            tell!(self.peer, warn, "the frontend asks so much that its answers are delayed (control_time)");
        }
    }

    /// Closes all gates if the budget allows another interruption of the pollers and no poller is inside.
    /// Charges the budget on success.
    fn close_gates(&mut self) -> bool {
        self.closings.resize(self.ledger.interruption_burst());
        let allowed = self.closings.allows(Instant::now(), self.ledger.interruptions());
        if self.closings.is_news() {
            tell!(
                self.peer,
                warn,
                "the frontend changes its rings so often that it has to wait (interruptions)"
            );
        }
        let closed = allowed && hold(&mut self.gates);
        if closed {
            self.closings.spend(1);
        }
        closed
    }

    fn link_deadline(&self) -> Option<Instant> {
        let soon = || Instant::now() + GATE_INTERVAL;
        let Some(link) = &self.link else {
            let connect = match &self.source {
                Source::Connect { next, .. } => Some(*next),
                Source::Listen(_) => None,
            };
            return if self.arriving.is_empty() { connect } else { Some(soon()) };
        };
        if link.waiting.is_some() || link.ending.is_some() || link.is_crowded() || !self.arriving.is_empty() {
            return Some(soon());
        }
        let message = link.connection.partial_since().map(|since| since + MESSAGE_TIME);
        [message, link.first, link.answers_due(), link.session.next_question()].into_iter().flatten().min()
    }

    /// Does everything that is due: connects, disconnects frontends that are late or removed memory, resumes
    /// postponed requests.
    pub(super) fn tick(&mut self, epoll: &Epoll) {
        if !self.is_ours() {
            return;
        }
        let now = Instant::now();
        // A frontend whose messages are not read cannot be late.
        let resting =
            self.resting.is_some_and(|until| now < until) || self.link.as_ref().is_some_and(Link::is_crowded);
        if let Some(link) = &mut self.link {
            let late =
                !resting && link.connection.partial_since().is_some_and(|since| now >= since + MESSAGE_TIME);
            if late {
                link.end("a message did not come whole within 1 s");
            } else if !resting && link.first.is_some_and(|first| now >= first) {
                link.end("no message came within 10 s");
            } else if !resting && link.answers_due().is_some_and(|due| now >= due) {
                link.end("it did not take its answers within 10 s");
            } else if link.session.quarantined() {
                link.end("the peer took shared memory away");
            }
            self.progress(epoll);
        } else {
            self.settle();
        }
        self.connect_if_due(epoll);
        if self.paused.is_some_and(|until| now >= until) {
            self.watch_socket(epoll, Interest::Read);
        }
    }

    /// Reads and processes messages until none is left, other work is due, or a gate is busy.
    pub(super) fn progress(&mut self, epoll: &Epoll) {
        if !self.is_ours() {
            if self.may_settle() {
                self.settle();
            }
            return;
        }
        self.answer_asks();
        if self.resting.is_some_and(|until| Instant::now() < until) {
            return self.listen_to(epoll, false);
        }
        self.resting = None;
        if self.settle() {
            self.take_turn();
        }
        if let Some(link) = &mut self.link {
            link.session.ask_for_translations();
        }
        self.end_link(epoll);
        self.listen_to(epoll, self.arriving.is_empty());
    }

    /// Answers requests about rings, if no poller is inside a burst.
    fn answer_asks(&mut self) {
        if self.asks.is_empty() || !self.arriving.is_empty() {
            return;
        }
        if !hold(&mut self.gates) {
            let now = Instant::now();
            self.asks.retain(|ask| now < ask.until);
            if self.asks.is_empty() {
                open(&mut self.gates, &self.peer);
            }
            return;
        }
        for RingAsk { ring, question, told, .. } in std::mem::take(&mut self.asks) {
            let answer = match question {
                Question::Waiting => {
                    self.gates.get_mut(ring).and_then(Controller::value).map_or(0, VringSlot::waiting)
                }
                Question::Settled => {
                    if let Some(link) = &mut self.link {
                        link.session.follow_user(&mut Slots(&mut self.gates));
                    }
                    0
                }
            };
            let _ = told.send(answer);
        }
        open(&mut self.gates, &self.peer);
    }

    /// Starts or stops waiting for the frontend's messages.
    fn listen_to(&mut self, epoll: &Epoll, on: bool) {
        if let Some(link) = &mut self.link {
            link.update_interest(epoll, CONNECTION, on);
        }
    }

    /// Processes a batch of messages. The gates stay closed from the first message that needs them until one
    /// is answered or the batch ends: one fence serves them all, and an answer holds for the polling threads.
    fn take_turn(&mut self) {
        let mut held = false;
        self.kept.unsettle();
        if self.link.as_ref().is_some_and(|link| link.unanswered.is_some()) {
            self.kept.change();
        }
        for _ in 0..MESSAGES_PER_TURN {
            let Some(message) = self.link.as_mut().and_then(Link::next) else { break };
            self.kept.change();
            let touches_rings = self.link.as_ref().is_some_and(|link| link.touches_rings(&message));
            if touches_rings && !held {
                held = self.close_gates();
            }
            let Some(link) = &mut self.link else { break };
            if touches_rings && !held {
                link.waiting = Some(message);
                break;
            }
            let verdict = link.carry_out(message, &mut Slots(&mut self.gates));
            if held && !matches!(verdict, (_, Verdict::Silent)) {
                open(&mut self.gates, &self.peer);
                held = false;
            }
            link.answer(verdict);
        }
        if held {
            open(&mut self.gates, &self.peer);
        }
    }

    /// Ends the connection if that is due and the gates can be closed.
    fn end_link(&mut self, epoll: &Epoll) {
        let due = self.link.as_ref().is_some_and(|link| link.ending.is_some());
        if !due || !self.close_gates() {
            return;
        }
        let Some(mut link) = self.link.take() else { return };
        link.session.end(&mut Slots(&mut self.gates));
        open(&mut self.gates, &self.peer);
        let reason = link.ending.take().unwrap_or_default();
        // Operators need the reason for a disconnect without extra logging.
        if link.leaving {
            tell!(self.peer, info, reason, "frontend disconnected");
        } else {
            tell!(self.peer, warn, reason, "frontend disconnected");
        }
        let _ = epoll.change(link.connection.as_fd(), CONNECTION, link.interest, Interest::None);
        drop(link);
        self.kept.change();
        self.peer.set_disconnected();
        if let Source::Connect { next, .. } = &mut self.source {
            *next = Instant::now() + CONNECT_INTERVAL;
        }
        if let Some(connection) = self.successor.take() {
            self.adopt(connection, epoll);
        }
    }

    /// Moves slots into the gates of a port that was started again. Returns false if a gate was busy.
    pub(super) fn settle(&mut self) -> bool {
        while let Some((index, arriving)) = self.arriving.front_mut() {
            let Some(present) = self.gates.get_mut(*index) else {
                self.arriving.pop_front();
                continue;
            };
            if !hold_all([&mut *present, &mut *arriving]) {
                return false;
            }
            if let (Some(old), Some(new)) = (present.value(), arriving.value()) {
                std::mem::swap(old, new);
            }
            // The old gate stays closed, so its poller finds no ring.
            std::mem::swap(present, arriving);
            present.open();
            self.arriving.pop_front();
            self.peer.relay.wake_all();
        }
        true
    }

    /// Ends everything, and waits for busy gates for at most `patience`.
    ///
    /// A poller that is stuck inside a burst keeps its ring, and with it the mapped memory, until it leaves;
    /// then it finds its gate closed.
    pub(super) fn shut_down(mut self, epoll: &Epoll, patience: Duration) {
        if self.is_the_predecessors() {
            self.abandon();
            return;
        }
        self.peer.tell_stops();
        let until = Instant::now() + patience;
        if let Some(link) = &mut self.link {
            link.leave("the port was closed");
        }
        self.end_link(epoll);
        while self.link.is_some() && Instant::now() < until {
            std::thread::sleep(GATE_INTERVAL);
            self.end_link(epoll);
        }
    }
}

impl Endpoint {
    /// Ends the port after a panic: keeps the pollers out, and reports that nothing runs. The state of the rings
    /// may be inconsistent, so they are not touched.
    pub(super) fn give_up(mut self) {
        // A poller inside a burst finds its gate closed afterwards.
        hold(&mut self.gates);
        self.peer.set_rings(false, vec![None; self.gates.len()]);
        self.peer.set_disconnected();
    }
}

/// Opens the gates and wakes sleeping pollers: the kicks that they requested from the rings may have been cancelled.
fn open(gates: &mut [Controller<VringSlot>], peer: &Peer) {
    gates.iter_mut().for_each(Controller::open);
    peer.relay.wake_all();
}

/// Closes all gates, with a few attempts. Returns false if a poller is still inside.
fn hold(gates: &mut [Controller<VringSlot>]) -> bool {
    hold_all(gates.iter_mut().collect::<Vec<_>>())
}

fn hold_all<'a>(gates: impl IntoIterator<Item = &'a mut Controller<VringSlot>>) -> bool {
    let mut gates: Vec<_> = gates.into_iter().collect();
    for _ in 0..GATE_LOOKS {
        if close_all(gates.iter_mut().map(|gate| &mut **gate)) {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

#[cfg(test)]
mod tests;
