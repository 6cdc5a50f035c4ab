//! Starting, stopping and querying single queues of a connected port. The other queues continue.
//!
//! ```text
//!   stop    close the gate and keep it closed · (transmit) wait for sent packets · SET_VRING_ENABLE 0
//!   start   SET_VRING_ENABLE 1 · open the gate · wake the backend and the sleeper
//! ```

use std::time::{Duration, Instant};

use linecard_eal::gate::{Controller, close_all};

use super::{BURST_TIME, Inside, Live, Session};
use crate::asks::{Asked, Question};
use crate::backend::{Ready, RingId, Role, Waiter};
use crate::error::Error;
use crate::log::tell;
use crate::rings::RingZone;
use crate::thread::after;

/// The longest wait for a burst to leave a queue.
const BURST_LIMIT: Duration = Duration::from_millis(1000);
/// The time that a backend has to send a queue's last packets before the queue stops; it drops the rest.
const LAST_PACKETS: Duration = Duration::from_millis(100);

impl Session {
    /// The rings that the application has a queue for.
    pub(super) fn queues(&self) -> Vec<RingId> {
        let rings = self.rings.iter().map(RingZone::id);
        rings.filter(|ring| ring.role() != Role::Control && self.polled(*ring)).collect()
    }

    /// Starts and stops queues as the user requested. Returns whether any was.
    pub(super) fn follow_queues(&mut self, live: &mut Live) -> Result<bool, Error> {
        let mut any = false;
        for ring in self.queues() {
            let stopped = live.stopped.contains(&ring);
            if self.state.is_stopped(ring) == stopped {
                continue;
            }
            any = true;
            if stopped {
                self.start_queue(live, ring)?;
            } else {
                self.stop_queue(live, ring)?;
            }
        }
        Ok(any)
    }

    fn start_queue(&mut self, live: &mut Live, ring: RingId) -> Result<(), Error> {
        let (device, zone) = (&mut *live.backend, self.ring(ring)?);
        let (kick, call) = (zone.kick.clone(), zone.call.clone());
        if device.disables_rings() {
            device.enable_ring(ring, true)?;
            device.notifier(ring).into_iter().for_each(|notifier| kick.go_by(notifier));
        }
        live.stopped.retain(|stopped| *stopped != ring);
        self.open_gate(ring);
        kick.signal_start();
        if ring.role() == Role::Receive {
            // A thread that sleeps on the queue wakes and polls it.
            self.relay.set(usize::from(ring.queue()), Some(call));
        }
        Ok(())
    }

    fn stop_queue(&mut self, live: &mut Live, ring: RingId) -> Result<(), Error> {
        if !self.close_gate(ring) {
            tell!(self.state.log, WARN, "{ring} is not stopped: a burst of it does not end");
            self.open_gate(ring);
            self.state.set_stopped(ring, false);
            return Ok(());
        }
        if ring.role() == Role::Transmit {
            self.await_last_packets(ring);
        }
        if live.backend.disables_rings() {
            live.backend.enable_ring(ring, false)?;
            live.backend.sync()?;
        }
        live.stopped.push(ring);
        Ok(())
    }

    /// Gives the backend time for the packets that were sent on a held queue.
    fn await_last_packets(&mut self, ring: RingId) {
        let until = after(LAST_PACKETS);
        while self.used_of(ring) > 0 && Instant::now() < until && !self.stopped() {
            self.waiter.wait(None, Ready::Read, Some(after(BURST_TIME)));
        }
    }

    /// Answers the pending questions. Returns whether there were any.
    pub(super) fn answer(&mut self, live: &Live) -> bool {
        let asked = self.state.asks.take();
        let any = !asked.is_empty();
        for asked in asked {
            self.answer_one(live, asked);
        }
        any
    }

    fn answer_one(&mut self, live: &Live, asked: Asked) {
        let ring = asked.ring;
        let stopped = live.stopped.contains(&ring);
        let answer = match asked.question {
            Question::Settled => (self.state.is_stopped(ring) == stopped).then_some(0),
            Question::Used => self.close_gate(ring).then(|| self.used_of(ring)),
        };
        if asked.question == Question::Used && !stopped {
            self.open_gate(ring);
        }
        asked.answer(answer);
    }

    /// Returns the used descriptors of a held queue.
    fn used_of(&mut self, ring: RingId) -> u16 {
        let queue = usize::from(ring.queue());
        match ring.role() {
            Role::Receive => path(&mut self.rx, queue).map_or(0, |path| path.used()),
            Role::Transmit => path(&mut self.tx, queue).map_or(0, |path| path.used()),
            Role::Control => 0,
        }
    }

    fn open_gate(&mut self, ring: RingId) {
        let queue = usize::from(ring.queue());
        match ring.role() {
            Role::Receive => self.rx.get_mut(queue).into_iter().for_each(Controller::open),
            Role::Transmit => self.tx.get_mut(queue).into_iter().for_each(Controller::open),
            Role::Control => {}
        }
    }

    /// Closes the gate of one queue. Returns false if a burst inside does not end.
    fn close_gate(&mut self, ring: RingId) -> bool {
        let queue = usize::from(ring.queue());
        match ring.role() {
            Role::Receive => hold(self.rx.get_mut(queue), &self.waiter),
            Role::Transmit => hold(self.tx.get_mut(queue), &self.waiter),
            Role::Control => false,
        }
    }
}

/// Returns the path behind a held gate.
fn path<P: ?Sized>(gates: &mut [Inside<P>], queue: usize) -> Option<&mut Box<P>> {
    gates.get_mut(queue)?.value()?.as_mut()
}

fn hold<T>(gate: Option<&mut Controller<T>>, waiter: &Waiter) -> bool {
    let Some(gate) = gate else { return false };
    let until = after(BURST_LIMIT);
    while !close_all([&mut *gate]) {
        if waiter.stopped() || Instant::now() >= until {
            return false;
        }
        waiter.wait(None, Ready::Read, Some(after(BURST_TIME)));
    }
    true
}
