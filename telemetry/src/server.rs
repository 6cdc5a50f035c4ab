//! The telemetry socket: version 2 of DPDK's protocol, on one thread that no client can block.
//!
//! A client connects, receives a greeting, and sends requests of at most 1024 bytes; each answer is one
//! packet of JSON.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use crate::command;
use crate::error::TelemetryError;
use crate::folder;
use crate::pace::paced;
use crate::state::Telemetry;
use crate::value::Value;

/// The maximum number of clients. A further one replaces the client that has been silent longest.
pub const MAX_CLIENTS: usize = 10;
/// The maximum length of an answer in bytes, which the greeting announces. DPDK's is 16 KiB; a port with 256
/// queues needs more.
pub const MAX_OUTPUT: usize = 128 << 10;
/// The maximum length of a request, as in DPDK.
const MAX_REQUEST: usize = 1024;
/// The maximum number of programs with the same prefix.
const MAX_INSTANCES: u32 = 1024;
const REMEDY: &str = "give another --file-prefix, or do without telemetry (--no-telemetry)";

/// The greeting to a client, and the answer to `/info`.
pub(crate) fn greeting() -> Value {
    Value::object([
        ("version", Value::from(crate::VERSION)),
        ("pid", u64::from(std::process::id()).into()),
        ("max_output_len", MAX_OUTPUT.into()),
    ])
}

/// A telemetry socket, which exists until this is dropped; made by
/// [`Telemetry::serve`](crate::Telemetry::serve).
///
/// ```
/// # use linecard_eal::{Eal, EalArgs};
/// # let eal = Eal::new(&EalArgs::parse(["--no-huge"])?.0)?;
/// let prefix = format!("lc-doc-server-{}", std::process::id());
/// let socket = linecard_telemetry::Telemetry::new(&eal).serve(&prefix)?;
/// assert!(socket.path().ends_with("dpdk_telemetry.v2"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    /// The thread ends when this is closed.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Socket {
    pub(crate) fn open(telemetry: Telemetry, folder: &Path) -> Result<Self, TelemetryError> {
        let (path, socket) = listen(folder).map_err(|source| {
            let action = format!("no telemetry socket can be made in {}", folder.display());
            TelemetryError::system(action, source, REMEDY)
        })?;
        // From here on, the name is removed with this value.
        let mut made = Self { path, stop: None, thread: None };
        let no_thread = |source: io::Error| {
            let action = "a thread for the telemetry socket cannot be made";
            TelemetryError::system(action, source, "raise `ulimit -u` or `ulimit -n`")
        };
        let (stop, end) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .map_err(|error| no_thread(error.into()))?;
        let service = Service { telemetry, socket, end, clients: Vec::new(), round: 0 };
        let thread = std::thread::Builder::new().name("lc-telemetry".into()).spawn(move || service.run());
        made.thread = Some(thread.map_err(no_thread)?);
        made.stop = Some(stop);
        Ok(made)
    }

    /// The path to which clients connect.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Before the thread's end is closed: a client that connects afterwards is refused or finds another
        // program.
        let _ = std::fs::remove_file(&self.path);
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It ends after the current answer.
            let _ = thread.join();
        }
        self.path.parent().map(folder::remove);
    }
}

/// Creates a listening socket only for its owner, under the first name that no running program has.
fn listen(folder: &Path) -> io::Result<(PathBuf, OwnedFd)> {
    // Two programs that find the same dead socket would remove each other's. The wait is limited, because
    // this is the only use of the lock.
    let lock = rustix::fs::open(
        folder,
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    for _ in 0..100 {
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(std::time::Duration::from_millis(5)),
            _ => break,
        }
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // The name gets the socket's mode.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
    for instance in 0..MAX_INSTANCES {
        let name =
            if instance == 0 { folder::NAME.to_owned() } else { format!("{}:{instance}", folder::NAME) };
        let path = folder.join(name);
        if folder::is_deserted(&path) {
            std::fs::remove_file(&path)?;
        }
        match rustix::net::bind(&socket, &SocketAddrUnix::new(&path)?) {
            Err(rustix::io::Errno::ADDRINUSE) => {}
            result => {
                result?;
                rustix::net::listen(&socket, 16)?;
                return Ok((path, socket));
            }
        }
    }
    Err(rustix::io::Errno::ADDRINUSE.into())
}

struct Client {
    socket: OwnedFd,
    /// The round in which the client last sent something.
    heard: u64,
    gone: bool,
}

/// The state of the thread.
struct Service {
    telemetry: Telemetry,
    socket: OwnedFd,
    /// Readable when the thread must end.
    end: OwnedFd,
    clients: Vec<Client>,
    round: u64,
}

impl Service {
    fn run(mut self) {
        loop {
            let ready = self.wait();
            let mut ready = ready.into_iter();
            if ready.next() == Some(true) {
                return;
            }
            let incoming = ready.next() == Some(true);
            paced(|| self.round(incoming, ready));
        }
    }

    /// Handles one request of each client that has sent one, and one new client.
    fn round(&mut self, incoming: bool, ready: impl Iterator<Item = bool>) {
        self.round += 1;
        for (client, _) in self.clients.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            client.heard = self.round;
            client.gone = client.serve(&self.telemetry).is_err();
        }
        self.clients.retain(|client| !client.gone);
        if incoming {
            self.accept();
        }
    }

    /// Which of the end, the listening socket and the clients are readable.
    fn wait(&self) -> Vec<bool> {
        let sockets = [&self.end, &self.socket].into_iter();
        let sockets = sockets.chain(self.clients.iter().map(|client| &client.socket));
        let mut entries: Vec<PollFd<'_>> = sockets.map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        if poll(&mut entries, None).is_err() {
            return vec![false; entries.len()];
        }
        entries.iter().map(|entry| !entry.revents().is_empty()).collect()
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(socket) = rustix::net::accept_with(&self.socket, flags) else { return };
        if self.clients.len() >= MAX_CLIENTS {
            let silent = self.clients.iter().enumerate().min_by_key(|(_, client)| client.heard);
            if let Some((at, _)) = silent {
                self.clients.remove(at);
            }
        }
        let client = Client { socket, heard: self.round, gone: false };
        if client.send(&greeting().to_string()).is_ok() {
            self.clients.push(client);
        }
    }
}

impl Client {
    /// Answers one request; an error if the client must be disconnected.
    fn serve(&self, telemetry: &Telemetry) -> io::Result<()> {
        let mut request = [0; MAX_REQUEST];
        let len = match rustix::net::recv(&self.socket, &mut request[..], RecvFlags::DONTWAIT) {
            Ok((len, _)) if len > 0 => len,
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
        };
        let text = String::from_utf8_lossy(request.get(..len).unwrap_or_default());
        self.send(&command::reply(&telemetry.state(), &text))
    }

    /// Never waits: a client that does not read earlier answers is disconnected.
    fn send(&self, text: &str) -> io::Result<()> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        rustix::net::send(self.socket.as_fd(), text.as_bytes(), flags)?;
        Ok(())
    }
}
