//! What the thread of a port does: it waits for its frontend, for commands and for deadlines, and does one after the other.

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

/// What a port's thread owns. `_ending` last: it says that the rest is gone.
pub(super) struct Loop {
    pub(super) epoll: Epoll,
    pub(super) waker: Arc<EventFd>,
    pub(super) inbox: Receiver<Command>,
    pub(super) shared: Arc<SharedEndpoint>,
    /// Steps of a hand-over that wait for their time.
    pub(super) asked: VecDeque<Arc<Asked>>,
    pub(super) succession: Option<Succession>,
    pub(super) _ending: Sender<()>,
}

impl Loop {
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        // A panic would be a mistake of ours: it ends this port alone. Its gates stay as they are, and whoever polls it finds
        // nothing.
        let failed = catch_unwind(AssertUnwindSafe(|| self.serve(&shared))).is_err();
        let endpoint = shared.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(endpoint) = endpoint else { return };
        if failed {
            tracing::error!(
                port = endpoint.peer.name(),
                "the control side failed; close the port and open it again"
            );
            endpoint.peer.set_disconnected();
            return;
        }
        endpoint.shut_down(&self.epoll, PATIENCE);
    }

    fn serve(&mut self, shared: &SharedEndpoint) {
        // Held by others for moments only, while there is nothing to do here.
        let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((snapshot, fds, told)) = self.succession.take() {
            let prepared = lock().as_mut().map(|endpoint| endpoint.prepare(&self.epoll, (&snapshot, fds)));
            let outcome = prepared.unwrap_or(Ok(()));
            let failed = outcome.is_err();
            let _ = told.send(outcome);
            if failed {
                return;
            }
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

    /// Takes the steps of a hand-over that were asked for, if it is the time for them; whether the port is a successor's now.
    fn has_left(&mut self, endpoint: &mut Endpoint) -> bool {
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

    /// Takes one step; `None` when it is not yet the time for it.
    fn take(&mut self, asked: Arc<Asked>, endpoint: &mut Endpoint) -> Option<bool> {
        let nothing = || HandOver::new(Vec::new(), Vec::new());
        let (outcome, left) = match &asked.step {
            Step::KeepIn(place) => {
                endpoint.keep_in(Arc::clone(place));
                (Some(Ok(nothing())), false)
            }
            Step::Hold => (endpoint.hold(&self.epoll), false),
            Step::Settle => (endpoint.settle().then(|| Ok(nothing())), false),
            Step::Resume => {
                endpoint.resume(&self.epoll);
                (Some(Ok(nothing())), false)
            }
            Step::Release => {
                endpoint.release();
                (Some(Ok(nothing())), true)
            }
        };
        endpoint.leaving = false;
        let outcome = match outcome {
            None if Instant::now() < asked.until => {
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

    /// Carries out commands; false when the thread is to end.
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

/// What the calling thread has used of its core.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
