//! The control socket: which clients are accepted, and for how long.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Service;
use crate::api::{Answer, Code, LineError, Lines, Problem, Request, send};

/// The maximum number of clients. For one more, a client that has been idle for long is disconnected; without such a client it waits.
const MOST_CLIENTS: usize = 64;
/// How long a client that does not read keeps its connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// How soon to try again when a client cannot be accepted yet.
const CHANGING: Duration = Duration::from_millis(10);
/// How often the threads check whether the server stops.
const LOOK: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// The threads that serve a control socket, until this is dropped.
pub struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves clients that connect to `listener`: root, and the user as whom this process runs.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(listener: UnixListener, service: Arc<Service>) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        listener.set_nonblocking(true)?;
        let thread = std::thread::Builder::new()
            .name("lc-control".into())
            .spawn(move || accept(&listener, &service, &stopped))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

/// A connection, and the thread that serves it.
struct Client {
    connection: Arc<Connection>,
    thread: JoinHandle<()>,
}

/// The part of a connection that its thread shares with the accepting one.
struct Connection {
    socket: UnixStream,
    /// When the last answer was sent; `None` while a request is carried out.
    idle_since: Mutex<Option<Instant>>,
}

impl Connection {
    fn set_idle(&self, since: Option<Instant>) {
        *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn idle_since(&self) -> Option<Instant> {
        *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Disconnects the client that has been idle longest, if that is longer than `limit`.
fn make_room(clients: &[Client], limit: Duration) {
    let idle = clients.iter().filter_map(|client| Some((client.connection.idle_since()?, client)));
    if let Some((since, client)) = idle.min_by_key(|(since, _)| *since)
        && since.elapsed() > limit
    {
        tracing::info!(
            "the control socket has {MOST_CLIENTS} clients: the one that was idle longest is disconnected"
        );
        // Its thread finds the end of the stream. A request sent at this moment is not carried out, or not
        // answered.
        let _ = client.connection.socket.shutdown(std::net::Shutdown::Both);
    }
}

fn accept(listener: &UnixListener, service: &Arc<Service>, stop: &Arc<AtomicBool>) {
    let mut clients: Vec<Client> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        clients.retain(|client| !client.thread.is_finished());
        if !readable(listener.as_fd()) {
            continue;
        }
        if clients.len() >= MOST_CLIENTS {
            make_room(&clients, service.idle);
            std::thread::sleep(CHANGING);
            continue;
        }
        // Waiting clients are served by the process that has the switch after the upgrade.
        if service.changing_hands.load(Ordering::Relaxed) {
            std::thread::sleep(CHANGING);
            continue;
        }
        let Ok((socket, _)) = listener.accept() else { continue };
        let connection = Arc::new(Connection { socket, idle_since: Mutex::new(Some(Instant::now())) });
        let (service, stop, shared) = (Arc::clone(service), Arc::clone(stop), Arc::clone(&connection));
        let spawned = std::thread::Builder::new().name("lc-client".into()).spawn(move || {
            if let Err(error) = converse(&shared, &service, &stop) {
                tracing::debug!("a control connection ended: {error}");
            }
        });
        // If no thread can be started, the connection is closed.
        clients.extend(spawned.map(|thread| Client { connection, thread }));
    }
    // Each thread holds the switch until it ends.
    for client in clients {
        let _ = client.thread.join();
    }
}

/// Waits a little; returns whether there is something to read, or the peer has closed the connection.
fn readable(fd: std::os::fd::BorrowedFd<'_>) -> bool {
    let mut wait = [rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut wait, Some(&LOOK)).is_ok_and(|ready| ready > 0)
}

/// Serves one client until it disconnects or the server stops.
fn converse(connection: &Connection, service: &Service, stop: &AtomicBool) -> Result<(), LineError> {
    let socket = &connection.socket;
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    if !may_ask(socket) {
        let problem = Problem::new(
            Code::NotPermitted,
            "this user may not control the switch",
            "ask as root, or as the user that the switch runs as",
        );
        return tell(socket, &Answer { id: 0, result: None, error: Some(problem) });
    }
    let mut lines = Lines::default();
    while !stop.load(Ordering::Relaxed) {
        if !lines.has_line() && !readable(socket.as_fd()) {
            continue;
        }
        connection.set_idle(None);
        match lines.next(socket.as_fd()) {
            Ok(Some(line)) => match serde_json::from_slice::<Request>(&line.bytes) {
                Ok(request) if request.method == "upgrade" && line.fds.is_empty() => {
                    return service.upgrade(socket, request);
                }
                _ => tell(socket, &service.answer(&line.bytes, line.fds))?,
            },
            Ok(None) => return Ok(()),
            Err(error) => {
                let problem = Problem::new(Code::InvalidRequest, error.to_string(), "connect again");
                let _ = tell(socket, &Answer { id: 0, result: None, error: Some(problem) });
                return Err(error);
            }
        }
        connection.set_idle(Some(Instant::now()));
    }
    Ok(())
}

/// Checks the peer's user as the kernel reports it.
fn may_ask(socket: &UnixStream) -> bool {
    let peer = rustix::net::sockopt::socket_peercred(socket);
    peer.is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}

pub(super) fn tell(socket: &UnixStream, answer: &Answer) -> Result<(), LineError> {
    let mut line = serde_json::to_vec(answer).map_err(io::Error::from)?;
    line.push(b'\n');
    Ok(send(socket.as_fd(), &line, &[])?)
}
