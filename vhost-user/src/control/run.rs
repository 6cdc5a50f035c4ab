//! The loop of a port's thread: it waits for the frontend, for commands and for deadlines, and processes them
//! in turn.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender};
use linecard_eal::eventfd::EventFd;

use super::endpoint::{Endpoint, SOCKET};
use super::epoll::Epoll;
use super::step::{Asked, BUSY, Step};
use super::{Command, PATIENCE, SharedEndpoint, Succession, WAKE};
use crate::handover::HandOver;

/// The state owned by a port's thread. `_ending` is dropped last, which signals that everything else has been
/// dropped.
pub(super) struct Loop {
    pub(super) epoll: Epoll,
    pub(super) waker: Arc<EventFd>,
    pub(super) inbox: Receiver<Command>,
    pub(super) shared: Arc<SharedEndpoint>,
    /// Steps of a hand-over that cannot be performed yet.
    pub(super) asked: VecDeque<Arc<Asked>>,
    pub(super) succession: Option<Succession>,
    pub(super) _ending: Sender<()>,
}

impl Loop {
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        // A panic is a bug in this crate, and ends only this port.
        let failed = catch_unwind(AssertUnwindSafe(|| self.serve(&shared))).is_err();
        let endpoint = shared.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(endpoint) = endpoint else { return };
        if failed {
            tracing::error!(
                port = endpoint.peer.name(),
                "the control side failed; close the port and open it again"
            );
            endpoint.give_up();
            return;
        }
        endpoint.shut_down(&self.epoll, PATIENCE);
    }

    fn serve(&mut self, shared: &SharedEndpoint) {
        // Other threads hold the lock only briefly, while this thread has nothing to do.
        let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some((snapshot, fds)), Some(endpoint)) = (self.succession.take(), lock().as_mut()) {
            endpoint.prepare(&self.epoll, (&snapshot, fds));
        }
        loop {
            let deadline = lock().as_ref().and_then(Endpoint::deadline);
            let ready = self.epoll.wait(deadline.map(|at| at.saturating_duration_since(Instant::now())));
            if ready.contains(&WAKE) {
                self.waker.drain();
            }
            let began = thread_time();
            let mut endpoint = lock();
            let Some(endpoint) = endpoint.as_mut() else { return };
            if !self.obey(endpoint) {
                return;
            }
            endpoint.peer.tell_stops();
            endpoint.progress(&self.epoll);
            if ready.contains(&SOCKET) {
                endpoint.accept(&self.epoll);
            }
            endpoint.tick(&self.epoll);
            endpoint.keep_up();
            endpoint.spent(thread_time().saturating_sub(began));
            if self.has_left(endpoint) {
                return;
            }
        }
    }

    /// Performs the requested steps of a hand-over, as far as they are possible. Returns whether the
    /// successor owns the port now.
    pub(super) fn has_left(&mut self, endpoint: &mut Endpoint) -> bool {
        // Set again by a step that is still not possible; its requester may also have given up.
        endpoint.leaving = false;
        while let Some(asked) = self.asked.pop_front() {
            if !asked.is_claimed_by_now() {
                continue;
            }
            match self.take(asked, endpoint) {
                Some(true) => return true,
                Some(false) => {}
                None => return false,
            }
        }
        false
    }

    /// Performs one step. Returns `None` if it is not possible yet.
    fn take(&mut self, asked: Arc<Asked>, endpoint: &mut Endpoint) -> Option<bool> {
        let nothing = || HandOver::new(Vec::new(), Vec::new());
        let (outcome, left) = match &asked.step {
            Step::KeepIn(place) => {
                endpoint.keep_in(Arc::clone(place));
                (Some(Ok(nothing())), false)
            }
            Step::Hold => (endpoint.hold(&self.epoll), false),
            Step::Settle => {
                let settled = endpoint.settle();
                (settled.then(|| endpoint.is_prepared().map(|()| nothing())), false)
            }
            Step::Begin(frozen) => {
                let begun = endpoint.begin(frozen.as_deref());
                (begun.map(|begun| begun.map(|()| nothing())), false)
            }
            Step::Forsake => (endpoint.forsake(&self.epoll).then(|| Ok(nothing())), false),
            Step::Resume => {
                endpoint.resume(&self.epoll);
                (Some(Ok(nothing())), false)
            }
            Step::Release => {
                endpoint.release();
                (Some(Ok(nothing())), true)
            }
        };
        let outcome = match outcome {
            // Nobody waits for a frontend to be given up, and there is no other way to go on.
            None if Instant::now() < asked.until || matches!(asked.step, Step::Forsake) => {
                asked.give_back();
                endpoint.leaving = true;
                self.asked.push_front(asked);
                return None;
            }
            None => Err(BUSY),
            Some(outcome) => outcome,
        };
        let _ = asked.outcome.send(outcome);
        Some(left)
    }

    /// Processes commands. Returns false if the thread should end.
    fn obey(&mut self, endpoint: &mut Endpoint) -> bool {
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Attach { ring, gate } => endpoint.arriving.push_back((ring, gate)),
                Command::Step(asked) => self.asked.push_back(asked),
                Command::Ask(ask) => endpoint.asks.push(ask),
                Command::End => return false,
            }
        }
        true
    }
}

/// The processor time that the calling thread has used.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
