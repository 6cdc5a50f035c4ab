//! The one thread that talks to all frontends, and never waits for any of them.
//!
//! Sockets are non-blocking and read piece by piece, half-read messages have a deadline, and a queue whose
//! poller is inside a burst is looked at again later. What one peer does or leaves undone costs the others
//! no more than the time it takes to look.

mod budget;
mod endpoint;
mod epoll;

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use linecard_eal::eventfd::EventFd;
use linecard_eal::gate::Controller;
use linecard_wire::socket::{self, Listener, SocketError};

use crate::backend::{BackendConfig, Mode};
use crate::error::Error;
use crate::peer::Peer;
use crate::session::Terms;
use crate::slot::Slot;
use endpoint::{Endpoint, Source, owner_of, socket_token};
use epoll::{Epoll, Interest};

/// Token of the waker; endpoint ids start at 1.
const WAKE: u64 = 0;
/// How long closing a backend waits for its queues, and its owner for that.
const PATIENCE: Duration = Duration::from_secs(1);

/// What other threads ask of the control thread.
enum Command {
    Add(Box<Endpoint>),
    Attach { id: u64, ring: usize, gate: Controller<Slot> },
    Remove { id: u64, done: Sender<()> },
    End,
}

/// A control thread. Clones share it; it ends with the last clone and the last backend.
///
/// ```
/// let control = linecard_vhost_user::Control::start()?;
/// let same = control.clone();
/// # drop(same);
/// # Ok::<(), linecard_vhost_user::Error>(())
/// ```
#[derive(Clone)]
pub struct Control(Arc<Shared>);

struct Shared {
    commands: Sender<Command>,
    waker: Arc<EventFd>,
    next_id: AtomicU64,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::End);
        self.waker.signal();
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        // A panic of the thread has been reported by the panic itself.
        thread.map(JoinHandle::join);
    }
}

impl Control {
    /// Starts a control thread.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn start() -> Result<Self, Error> {
        let epoll = Epoll::new().map_err(|e| Error::system("making an epoll instance", e))?;
        let waker = EventFd::new().map_err(|e| Error::system("making an eventfd", e))?;
        epoll
            .change(waker.as_fd(), WAKE, Interest::None, Interest::Read)
            .map_err(|e| Error::system("watching an eventfd", e))?;
        let waker = Arc::new(waker);
        let (commands, inbox) = unbounded();
        let run = Loop { epoll, waker: Arc::clone(&waker), inbox, endpoints: HashMap::new() };
        let thread = std::thread::Builder::new()
            .name("vhost-control".into())
            .spawn(|| run.run())
            .map_err(|e| Error::system("starting the control thread", e))?;
        let thread = Mutex::new(Some(thread));
        Ok(Self(Arc::new(Shared { commands, waker, next_id: AtomicU64::new(1), thread })))
    }

    /// A handle that does not keep the thread alive.
    pub(crate) fn downgrade(&self) -> WeakControl {
        WeakControl(Arc::downgrade(&self.0))
    }

    /// Makes the endpoint of a backend; the socket listens when this returns.
    pub(crate) fn add(&self, config: &BackendConfig, terms: Terms) -> Result<(u64, Arc<Peer>), Error> {
        let unusable = |reason| Error::of_socket(&config.path, reason);
        let source = match config.mode {
            Mode::Listen => {
                Source::Listen(Listener::bind_for(&config.path, config.access).map_err(unusable)?)
            }
            Mode::Connect => {
                socket::check_path(&config.path).map_err(unusable)?;
                // It would be tried for ever, and nobody told why.
                if let Some(what) = socket::obstacle(&config.path) {
                    return Err(unusable(SocketError::NotASocket { what }));
                }
                Source::Connect { path: config.path.clone(), next: Instant::now(), told: None }
            }
        };
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        let rings = usize::from(terms.queue_pairs) * 2;
        let peer = Arc::new(Peer::new(config.name.clone(), Arc::clone(&self.0.waker), rings));
        let endpoint = Endpoint::new(id, source, terms, config.survive_lost_pages, Arc::clone(&peer));
        self.send(Command::Add(Box::new(endpoint)))?;
        Ok((id, peer))
    }

    /// Makes `gate` the place where the ring of that number runs from now on.
    pub(crate) fn attach(&self, id: u64, ring: usize, gate: Controller<Slot>) -> Result<(), Error> {
        self.send(Command::Attach { id, ring, gate })
    }

    /// Ends a backend; its socket is gone when this returns.
    pub(crate) fn remove(&self, id: u64) {
        let (done, wait) = bounded(1);
        if self.send(Command::Remove { id, done }).is_ok() {
            let _ = wait.recv_timeout(PATIENCE * 2);
        }
    }

    fn send(&self, command: Command) -> Result<(), Error> {
        self.0.commands.send(command).map_err(|_| Error::ControlEnded)?;
        self.0.waker.signal();
        Ok(())
    }
}

/// A control thread that may have ended.
pub(crate) struct WeakControl(Weak<Shared>);

impl WeakControl {
    /// The control thread, if it still runs.
    pub(crate) fn upgrade(&self) -> Option<Control> {
        self.0.upgrade().map(Control)
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

/// What the control thread owns.
struct Loop {
    epoll: Epoll,
    waker: Arc<EventFd>,
    inbox: Receiver<Command>,
    endpoints: HashMap<u64, Endpoint>,
}

impl Loop {
    fn run(mut self) {
        loop {
            let ready = self.epoll.wait(self.timeout());
            if ready.contains(&WAKE) {
                self.waker.drain();
            }
            if !self.obey() {
                break;
            }
            // Connections before sockets: an end that is noticed makes room for the next peer.
            let (connections, sockets): (Vec<_>, Vec<_>) =
                ready.into_iter().filter(|token| *token != WAKE).map(owner_of).partition(|(_, link)| *link);
            for (id, _) in connections {
                self.contain(id, Endpoint::progress);
            }
            for (id, _) in sockets {
                self.contain(id, Endpoint::accept);
            }
            let all: Vec<_> = self.endpoints.keys().copied().collect();
            for id in all {
                self.contain(id, Endpoint::tick);
            }
        }
        for (_, endpoint) in self.endpoints.drain() {
            endpoint.shut_down(&self.epoll, PATIENCE);
        }
    }

    /// Has endpoint `id` do `step`. A panic, which would be a mistake of ours, ends that port and not the others: its
    /// gates stay as they are, and whoever polls it finds nothing.
    fn contain(&mut self, id: u64, step: impl FnOnce(&mut Endpoint, &Epoll)) {
        let Some(endpoint) = self.endpoints.get_mut(&id) else { return };
        let epoll = &self.epoll;
        if catch_unwind(AssertUnwindSafe(|| step(endpoint, epoll))).is_err() {
            tracing::error!(
                port = endpoint.peer.name(),
                "the control side failed; close the port and open it again"
            );
            endpoint.peer.set_disconnected();
            endpoint.unwatch(epoll);
            self.endpoints.remove(&id);
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let next = self.endpoints.values().filter_map(Endpoint::deadline).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Carries out commands; false when the thread is to end.
    fn obey(&mut self) -> bool {
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Add(endpoint) => self.add(*endpoint),
                Command::Attach { id, ring, gate } => {
                    if let Some(endpoint) = self.endpoints.get_mut(&id) {
                        endpoint.arriving.push_back((ring, gate));
                    }
                }
                Command::Remove { id, done } => {
                    if let Some(endpoint) = self.endpoints.remove(&id) {
                        endpoint.shut_down(&self.epoll, PATIENCE);
                    }
                    let _ = done.send(());
                }
                Command::End => return false,
            }
        }
        true
    }

    fn add(&mut self, endpoint: Endpoint) {
        if let Some(listener) = endpoint.listener() {
            let token = socket_token(endpoint.id);
            if let Err(error) = self.epoll.change(listener, token, Interest::None, Interest::Read) {
                tracing::error!(port = endpoint.peer.name(), %error, "the socket cannot be watched");
            }
        }
        self.endpoints.insert(endpoint.id, endpoint);
    }
}
