//! The socket: DPDK's protocol, version 2, on one thread that no client can keep waiting.
//!
//! A client connects, is greeted, and sends requests of at most 1024 bytes; each is answered by one packet of JSON.

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

/// Clients at the same time. One more takes the place of the one that has been silent longest.
pub const MAX_CLIENTS: usize = 10;
/// Longest answer in bytes, which the greeting says. DPDK's own is 16 KiB; a port of 256 queues has more to tell.
pub const MAX_OUTPUT: usize = 128 << 10;
/// Longest request that is looked at, as DPDK's.
const MAX_REQUEST: usize = 1024;
/// Further programs with the same prefix.
const MAX_INSTANCES: u32 = 1024;
const REMEDY: &str = "give another --file-prefix, or do without telemetry (--no-telemetry)";

/// What a client is told first, and by `/info`.
pub(crate) fn greeting() -> Value {
    Value::object([
        ("version", Value::from(crate::VERSION)),
        ("pid", u64::from(std::process::id()).into()),
        ("max_output_len", MAX_OUTPUT.into()),
    ])
}

/// A telemetry socket, for as long as this lives; made by [`Telemetry::serve`](crate::Telemetry::serve).
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
    /// Closed, the thread ends.
    life: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Socket {
    pub(crate) fn open(telemetry: Telemetry, folder: &Path) -> Result<Self, TelemetryError> {
        let (path, socket) = listen(folder).map_err(|source| {
            let action = format!("no telemetry socket can be made in {}", folder.display());
            TelemetryError::system(action, source, REMEDY)
        })?;
        // From here on the name goes when this does.
        let mut made = Self { path, life: None, thread: None };
        let no_thread = |source: io::Error| {
            let action = "a thread for the telemetry socket cannot be made";
            TelemetryError::system(action, source, "raise `ulimit -u` or `ulimit -n`")
        };
        let (life, end) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .map_err(|error| no_thread(error.into()))?;
        let service = Service { telemetry, socket, end, clients: Vec::new(), round: 0 };
        let thread = std::thread::Builder::new().name("lc-telemetry".into()).spawn(move || service.run());
        made.thread = Some(thread.map_err(no_thread)?);
        made.life = Some(life);
        Ok(made)
    }

    /// Where clients connect.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Before the thread's end of it is closed: who connects afterwards is refused or finds another program.
        let _ = std::fs::remove_file(&self.path);
        self.life = None;
        if let Some(thread) = self.thread.take() {
            // It ends with the answer it is at.
            let _ = thread.join();
        }
        self.path.parent().map(folder::remove);
    }
}

/// A listening socket for its owner only, under the first name that no running program has.
fn listen(folder: &Path) -> io::Result<(PathBuf, OwnedFd)> {
    // Two programs that find the same dead socket would remove each other's; nobody else is waited for in earnest.
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
    /// The round in which it said something last.
    heard: u64,
    gone: bool,
}

/// What the thread works with.
struct Service {
    telemetry: Telemetry,
    socket: OwnedFd,
    /// Readable when it is over.
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
            let knock = ready.next() == Some(true);
            paced(|| self.round(knock, ready));
        }
    }

    /// One request of each client that has one, and one new client.
    fn round(&mut self, knock: bool, ready: impl Iterator<Item = bool>) {
        self.round += 1;
        for (client, _) in self.clients.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            client.heard = self.round;
            client.gone = client.serve(&self.telemetry).is_err();
        }
        self.clients.retain(|client| !client.gone);
        if knock {
            self.accept();
        }
    }

    /// Which of the end, the listening socket and the clients has something to say.
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
    /// Answers one request; an error when the client is to be forgotten.
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

    /// Never waits: who does not read what was sent before is given up.
    fn send(&self, text: &str) -> io::Result<()> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        rustix::net::send(self.socket.as_fd(), text.as_bytes(), flags)?;
        Ok(())
    }
}
