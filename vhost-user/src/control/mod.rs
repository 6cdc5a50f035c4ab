//! The control side: one thread for each port, and the only one that waits for that port's frontend.
//!
//! A frontend can block the thread that serves it: mapping its memory waits for a lock of the file, reading a
//! ring waits while a hole is punched, and reading the socket waits while the kernel closes a descriptor.
//! There are too many such cases to avoid each. Therefore no thread serves two ports, and a frontend can
//! block only its own port. Operations that may never return (closing, unmapping) run on a second thread of
//! the port ([`Closer`](linecard_wire::Closer)), so that the port itself can still be ended.
//!
//! Within its port, the thread polls instead of waiting: sockets are non-blocking and read piece by piece,
//! and partially read messages and queues whose poller is inside a burst have deadlines.

mod asks;
mod endpoint;
mod epoll;
mod link;
mod rate;
mod run;
mod step;

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, TryLockError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use linecard_eal::eventfd::EventFd;
use linecard_eal::gate::Controller;
use linecard_wire::ledger::Descriptors;
use linecard_wire::socket::{self, Listener, SocketError, UnusableSocket};

use crate::backend::{BackendConfig, Mode};
use crate::error::Error;
use crate::handover::HandOver;
use crate::limits::{Ledger, Process, ProcessLimits};
use crate::peer::Peer;
use crate::session::snapshot::Snapshot;
use crate::session::{Taken, Terms};
use crate::slot::VringSlot;
use asks::RingAsk;
pub(crate) use asks::{Asker, Question};
pub(crate) use endpoint::Endpoint;
use endpoint::{SOCKET, Source};
use epoll::{Epoll, Interest};
use run::Loop;
use step::{Asked, BUSY};
pub(crate) use step::{Asking, Step, is_busy};

/// Token of the waker.
const WAKE: u64 = 0;
/// The time for which closing a backend waits for its queues, and for which its owner waits for that.
const PATIENCE: Duration = Duration::from_secs(1);
/// The stack size of a thread in bytes.
const STACK: usize = 256 << 10;

/// A group of ports that share the limits of the process. Clones refer to the same group.
///
/// ```
/// let control = linecard_vhost_user::Control::new();
/// let same = control.clone();
/// # drop(same);
/// ```
#[derive(Clone, Debug)]
pub struct Control(Arc<Process>);

impl Control {
    /// A group without ports, with the limits of this process.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limits(ProcessLimits::of_this_process())
    }

    /// A group without ports, with the caller's limits.
    #[must_use]
    pub fn with_limits(limits: ProcessLimits) -> Self {
        Self(Process::new(limits))
    }

    /// As [`with_limits`](Self::with_limits), but with a total of `descriptors` that other drivers share,
    /// instead of one for these ports alone.
    ///
    /// ```
    /// use linecard_vhost_user::{Control, Descriptors, ProcessLimits};
    /// static OURS: Descriptors = Descriptors::new();
    /// let control = Control::sharing(ProcessLimits::of_this_process(), &OURS);
    /// # drop(control);
    /// ```
    #[must_use]
    pub fn sharing(limits: ProcessLimits, descriptors: &Descriptors) -> Self {
        Self(Process::sharing(limits, descriptors))
    }

    /// A weak handle.
    pub(crate) fn downgrade(&self) -> WeakControl {
        WeakControl(Arc::downgrade(&self.0))
    }
}

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
}

/// A [`Control`] that may have been dropped.
pub(crate) struct WeakControl(Weak<Process>);

impl WeakControl {
    /// The control, if one of its ports still exists.
    pub(crate) fn upgrade(&self) -> Option<Control> {
        self.0.upgrade().map(Control)
    }
}

/// A command of another thread to a port's thread.
enum Command {
    /// From now on the ring of this index runs in this gate.
    Attach {
        ring: usize,
        gate: Controller<VringSlot>,
    },
    /// Performs a step of a hand-over.
    Step(Arc<Asked>),
    /// Answers a request about one ring.
    Ask(RingAsk),
    End,
}

/// The endpoint of a port. The port's thread locks it, and so does a thread that hands the port over while
/// the port's thread waits. `None` after the port has ended.
type SharedEndpoint = Mutex<Option<Endpoint>>;

/// The initial state of a backend.
pub(crate) enum Start {
    Fresh,
    /// The state of a port whose predecessor has ended.
    Left(HandOver),
    /// The state of a port that its predecessor still serves and may resume.
    Held(HandOver),
}

/// The predecessor's state and its descriptors.
type Succession = (Snapshot, Taken<OwnedFd>);

/// The thread of a port. Dropping this ends the port.
pub(crate) struct PortThread {
    commands: Sender<Command>,
    waker: Arc<EventFd>,
    peer: Arc<Peer>,
    /// Lets the calling thread perform steps of a hand-over without waiting for the port's thread.
    endpoint: Arc<SharedEndpoint>,
    /// Kept here too, so that the socket's name can be removed while the frontend blocks the thread.
    listener: Option<Arc<Listener>>,
    /// Disconnected when the thread has ended.
    over: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl PortThread {
    /// Creates the socket of a backend and starts its thread. The socket listens when this returns. The thread
    /// then prepares the predecessor's state, if there is one: [`Step::Settle`] waits for that.
    pub(crate) fn start(
        control: &Control,
        config: &BackendConfig,
        terms: Terms,
        start: Start,
    ) -> Result<Self, Error> {
        let is_held = matches!(start, Start::Held(_));
        let mut succession = match start {
            Start::Fresh => None,
            Start::Left(handed) | Start::Held(handed) => Some(handed.read()?),
        };
        let unusable = |reason| Error::Socket(UnusableSocket::new(&config.path, reason));
        let waker = Arc::new(EventFd::new().map_err(|e| Error::system("making an eventfd", e))?);
        let epoll = Epoll::new().map_err(|e| Error::system("making an epoll instance", e))?;
        let watched = |e| Error::system("watching a descriptor", e);
        epoll.change(waker.as_fd(), WAKE, Interest::None, Interest::Read).map_err(watched)?;
        let kept = config.limits.keeping_regions(terms.queue_pairs);
        let limits = if config.hand_over { kept } else { config.limits };
        let ledger = Ledger::new(&control.0, &config.name, terms.queue_pairs, limits)
            .map_err(|e| Error::system("starting a thread", e))?;
        let (source, listener) = match config.mode {
            Mode::Listen => {
                let left = succession.as_mut().map(listener_left).transpose()?.flatten();
                let listener = match config.listener.clone().or(left) {
                    Some(passed) => passed,
                    None if is_held => {
                        return Err(Error::TakeOver { reason: "its listening socket is missing".into() });
                    }
                    None => Arc::new(Listener::bind_for(&config.path, config.access).map_err(unusable)?),
                };
                if is_held {
                    listener.leave_name();
                }
                epoll.change(listener.as_fd(), SOCKET, Interest::None, Interest::Read).map_err(watched)?;
                (Source::Listen(Arc::clone(&listener)), Some(listener))
            }
            Mode::Connect => {
                socket::check_path(&config.path).map_err(unusable)?;
                // Without this check the client would retry for ever without an error.
                if let Some(what) = socket::obstacle(&config.path) {
                    return Err(unusable(SocketError::NotASocket { what }));
                }
                (Source::Connect { path: config.path.clone(), next: Instant::now(), told: None }, None)
            }
        };
        let peer = Arc::new(Peer::new(config.name.clone(), Arc::clone(&waker), terms, &ledger));
        let endpoint = Endpoint::new(source, terms, ledger, config.survive_lost_pages, Arc::clone(&peer));
        let (commands, inbox) = unbounded();
        let (ending, over) = bounded(0);
        let asked = VecDeque::new();
        let endpoint = Arc::new(Mutex::new(Some(endpoint)));
        let shared = Arc::clone(&endpoint);
        let run =
            Loop { epoll, waker: Arc::clone(&waker), inbox, shared, asked, succession, _ending: ending };
        let thread = std::thread::Builder::new()
            .name(config.name.clone())
            .stack_size(STACK)
            .spawn(|| run.run())
            .map_err(|e| Error::system("starting a control thread", e))?;
        Ok(Self { commands, waker, peer, endpoint, listener, over, thread: Some(thread) })
    }

    /// Asks the thread to perform a step of a hand-over. The result waits for the outcome.
    pub(crate) fn ask(&self, step: Step) -> Result<Asking, Error> {
        let (asked, asking) = Asked::new(step);
        self.commands.send(Command::Step(asked)).map_err(|_| Error::ControlEnded)?;
        self.waker.signal();
        Ok(asking)
    }

    /// Runs `act`, which does not touch the frontend's memory, on the calling thread, for a port that is held,
    /// frozen or begun: its own thread is idle then.
    ///
    /// # Errors
    /// [`BUSY`]; [`Error::ControlEnded`]; the error of `act`, which is retried while it returns `None`.
    pub(crate) fn directly<T>(
        &self,
        mut act: impl FnMut(&mut Endpoint) -> Option<Result<T, Error>>,
    ) -> Result<T, Error> {
        let until = Instant::now() + PATIENCE;
        loop {
            let outcome = match self.endpoint.try_lock() {
                Ok(mut endpoint) => act(endpoint.as_mut().ok_or(Error::ControlEnded)?),
                Err(TryLockError::WouldBlock) => None,
                Err(TryLockError::Poisoned(_)) => return Err(Error::ControlEnded),
            };
            match outcome {
                Some(outcome) => return outcome,
                None if Instant::now() > until => return Err(BUSY),
                None => std::thread::yield_now(),
            }
        }
    }

    /// A handle for requests about single rings.
    pub(crate) fn asker(&self) -> Asker {
        Asker { commands: self.commands.clone(), waker: Arc::clone(&self.waker) }
    }

    /// The socket on which the port listens, for a successor that gets nothing else.
    pub(crate) fn listener(&self) -> Option<&Arc<Listener>> {
        self.listener.as_ref()
    }

    pub(crate) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// Makes `gate` the gate of the ring of this index.
    pub(crate) fn attach(&self, ring: usize, gate: Controller<VringSlot>) -> Result<(), Error> {
        self.commands.send(Command::Attach { ring, gate }).map_err(|_| Error::ControlEnded)?;
        self.waker.signal();
        Ok(())
    }
}

impl Drop for PortThread {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::End);
        self.waker.signal();
        // No value is ever sent: any error except a timeout means that the thread has ended.
        if self.over.recv_timeout(PATIENCE * 2).is_err_and(|error| error.is_timeout()) {
            tracing::warn!(
                port = self.peer.name(),
                "the port's thread still waits for its frontend; it is left behind and ends when that lets it go"
            );
            if let Some(listener) = &self.listener {
                listener.remove_name();
            }
            return;
        }
        // The panic hook has already reported a panic of the thread.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl std::fmt::Debug for PortThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PortThread").field("port", &self.peer.name()).finish_non_exhaustive()
    }
}

/// The predecessor's listening socket, if it had one.
fn listener_left(succession: &mut (Snapshot, Taken<OwnedFd>)) -> Result<Option<Arc<Listener>>, Error> {
    let (snapshot, fds) = succession;
    let unfit = |reason: &dyn std::fmt::Display| Error::TakeOver { reason: reason.to_string() };
    let socket = fds.take(snapshot.session.listener).map_err(|refusal| unfit(&refusal))?;
    let succeed = |socket| Listener::succeed(socket, snapshot.session.name()).map_err(|e| unfit(&e));
    Ok(socket.map(succeed).transpose()?.map(Arc::new))
}

#[cfg(test)]
mod tests;
