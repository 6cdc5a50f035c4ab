//! The control side: a thread for each port, which alone waits for that port's frontend.
//!
//! A frontend can make whoever serves it wait: mapping its memory waits for a lock of the file, reading a ring for a hole
//! that is being punched, reading the socket for a descriptor that the kernel closes in there. There are too many of these to
//! go round each. So no thread serves two ports, and what a frontend makes wait is its own port. What
//! may take for ever (closing, unmapping) is left to a second thread of the port's
//! ([`Closer`](linecard_wire::Closer)), so that the port itself can still be ended.
//!
//! Within its port the thread waits for nothing it can look at again later: sockets are non-blocking and read piece by
//! piece, half-read messages have a deadline, and so has a queue whose poller is inside a burst.

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
/// How long closing a backend waits for its queues, and its owner for that.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of a thread's stack.
const STACK: usize = 256 << 10;

/// The ports of a process that share its limits. Clones are the same.
///
/// ```
/// let control = linecard_vhost_user::Control::new();
/// let same = control.clone();
/// # drop(same);
/// ```
#[derive(Clone, Debug)]
pub struct Control(Arc<Process>);

impl Control {
    /// No ports yet, and the limits of this process.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limits(ProcessLimits::of_this_process())
    }

    /// No ports yet, and limits of the caller's.
    #[must_use]
    pub fn with_limits(limits: ProcessLimits) -> Self {
        Self(Process::new(limits))
    }

    /// As [`with_limits`](Self::with_limits), but with `descriptors` that other drivers take theirs from too, instead of a
    /// total for these ports alone.
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

    /// A handle that does not keep it.
    pub(crate) fn downgrade(&self) -> WeakControl {
        WeakControl(Arc::downgrade(&self.0))
    }
}

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
}

/// A [`Control`] that may be gone.
pub(crate) struct WeakControl(Weak<Process>);

impl WeakControl {
    /// The control, if a port of it is left.
    pub(crate) fn upgrade(&self) -> Option<Control> {
        self.0.upgrade().map(Control)
    }
}

/// What other threads ask of a port's thread.
enum Command {
    /// The ring of that number runs in this gate from now on.
    Attach {
        ring: usize,
        gate: Controller<VringSlot>,
    },
    /// A step of a hand-over.
    Step(Arc<Asked>),
    /// Something about one ring.
    Ask(RingAsk),
    End,
}

/// The endpoint of a port: locked by the port's thread, and by the thread that hands the port over while the port's thread waits.
/// `None` when the port has ended.
type SharedEndpoint = Mutex<Option<Endpoint>>;

/// What a backend is started from.
pub(crate) enum Start {
    Fresh,
    /// What a predecessor has left for good.
    Left(HandOver),
    /// What a predecessor still serves, and may go on with.
    Held(HandOver),
}

/// What a port takes over: what its predecessor was, its descriptors, and who waits for the outcome.
type Succession = (Snapshot, Taken<OwnedFd>, Sender<Result<(), String>>);

/// A port's thread; dropping this ends the port.
pub(crate) struct PortThread {
    commands: Sender<Command>,
    waker: Arc<EventFd>,
    peer: Arc<Peer>,
    /// For steps of a hand-over that nobody is to wait for a thread for.
    endpoint: Arc<SharedEndpoint>,
    /// Ours too, so that the socket's name goes even when the thread waits for its frontend.
    listener: Option<Arc<Listener>>,
    /// Disconnected when the thread is through.
    over: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl PortThread {
    /// Makes the socket of a backend, and starts the thread that serves it; the socket listens when this returns.
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
        let (told, taken) = bounded(1);
        let has_predecessor = succession.is_some();
        let succession = succession.map(|(snapshot, fds)| (snapshot, fds, told));
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
        let port = Self { commands, waker, peer, endpoint, listener, over, thread: Some(thread) };
        if has_predecessor {
            let late = || "its frontend makes it wait".to_owned();
            let outcome = taken.recv_timeout(PATIENCE * 2).unwrap_or_else(|_| Err(late()));
            outcome.map_err(|reason| Error::TakeOver { reason })?;
        }
        Ok(port)
    }

    /// Has the thread take a step of a hand-over; what to wait with for the outcome.
    pub(crate) fn ask(&self, step: Step) -> Result<Asking, Error> {
        let (asked, asking) = Asked::new(step);
        self.commands.send(Command::Step(asked)).map_err(|_| Error::ControlEnded)?;
        self.waker.signal();
        Ok(asking)
    }

    /// Has the calling thread do something with a port that is held, frozen, prepared or begun: its own thread rests then.
    ///
    /// # Errors
    /// [`BUSY`]; [`Error::ControlEnded`]; what `act` says, which is tried again while it says `None`.
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

    /// What to ask about single rings with.
    pub(crate) fn asker(&self) -> Asker {
        Asker { commands: self.commands.clone(), waker: Arc::clone(&self.waker) }
    }

    /// The socket that the port listens at, for a successor that gets nothing else.
    pub(crate) fn listener(&self) -> Option<&Arc<Listener>> {
        self.listener.as_ref()
    }

    pub(crate) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// Makes `gate` the place where the ring of that number runs from now on.
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
        // Nothing is ever sent: an error other than this one is the end.
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
        // A panic of the thread has been reported by the panic itself.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl std::fmt::Debug for PortThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PortThread").field("port", &self.peer.name()).finish_non_exhaustive()
    }
}

/// The socket that a predecessor listened at.
fn listener_left(succession: &mut (Snapshot, Taken<OwnedFd>)) -> Result<Option<Arc<Listener>>, Error> {
    let (snapshot, fds) = succession;
    let unfit = |reason: &dyn std::fmt::Display| Error::TakeOver { reason: reason.to_string() };
    let socket = fds.take(snapshot.session.listener).map_err(|refusal| unfit(&refusal))?;
    let succeed = |socket| Listener::succeed(socket, snapshot.session.name()).map_err(|e| unfit(&e));
    Ok(socket.map(succeed).transpose()?.map(Arc::new))
}

#[cfg(test)]
mod tests;
