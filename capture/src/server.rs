//! The control socket of a running program: one thread, which no client can block.

use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};

use super::hub::{Hub, Session};
use super::protocol::{self, Request};
use super::{CaptureError, Totals};

/// The maximum number of clients at the same time.
const CLIENTS: usize = 16;
/// The maximum length of a request: a filter of 4096 instructions.
const REQUEST: usize = 160 << 10;
/// How often ended captures are cleaned up.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// A control socket, which exists until this is dropped.
///
/// ```
/// use linecard_capture::{Client, Hub};
/// let path = std::env::temp_dir().join(format!("lc-doc-server-{}", std::process::id()));
/// let server = Hub::new().serve(&path)?;
/// assert!(Client::connect(&path)?.list()?.is_empty());
/// drop(server);
/// assert!(!path.exists());
/// # Ok::<(), linecard_capture::CaptureError>(())
/// ```
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    /// The thread ends when this is closed.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(hub: Hub, path: &Path) -> Result<Self, CaptureError> {
        let socket = listen(path).map_err(|source| {
            let action = format!("the control socket {} cannot be made", path.display());
            CaptureError::system(action, source, "give another --file-prefix, or do without capture")
        })?;
        let no_thread = |source: io::Error| {
            let _ = std::fs::remove_file(path);
            let action = "a thread for the control socket cannot be made";
            CaptureError::system(action, source, "raise `ulimit -u` or `ulimit -n`")
        };
        let flags = SocketFlags::CLOEXEC;
        let (stop, end) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(|error| no_thread(error.into()))?;
        let service = Service {
            hub,
            socket,
            end,
            clients: Vec::new(),
            buffer: vec![0; REQUEST],
            quiet: 0,
            refused: false,
        };
        let thread = std::thread::Builder::new().name("lc-capture".into()).spawn(move || service.run());
        let thread = thread.map_err(no_thread)?;
        Ok(Self { path: path.to_owned(), stop: Some(stop), thread: Some(thread) })
    }

    /// The path to which clients connect.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It ends at once; if it panicked, the captures have ended already.
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Creates a datagram socket with connections that only its owner can use, from the moment it has a name.
fn listen(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::fs::fchmod(&socket, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
    let address = SocketAddrUnix::new(path)?;
    match rustix::net::bind(&socket, &address) {
        // The name has this process's PID, so its previous owner has ended. A file that is not a socket is
        // not removed.
        Err(Errno::ADDRINUSE) if is_socket(path) && !super::client::answers(path) => {
            std::fs::remove_file(path)?;
            rustix::net::bind(&socket, &address)?;
        }
        result => result?,
    }
    rustix::net::listen(&socket, 16)?;
    Ok(socket)
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket())
}

struct Connection {
    socket: OwnedFd,
    session: Option<Session>,
    gone: bool,
}

/// The state of the thread.
struct Service {
    hub: Hub,
    socket: OwnedFd,
    /// Readable when the thread must end.
    end: OwnedFd,
    clients: Vec<Connection>,
    buffer: Vec<u8>,
    /// The number of ticks since the last client disconnected.
    quiet: u32,
    /// The last connection could not be accepted (no descriptors are left): the next attempt is made a tick later.
    refused: bool,
}

/// The number of ticks without a client after which all rings have been returned, if they ever are.
const QUIET: u32 = 40;

impl Service {
    fn run(mut self) {
        loop {
            let ready = self.wait();
            // The socket stays readable while connections wait.
            let again = std::mem::take(&mut self.refused);
            let mut ready = ready.into_iter();
            if ready.next() == Some(true) {
                break;
            }
            let incoming = ready.next() == Some(true) || again;
            for (client, ready) in self.clients.iter_mut().zip(ready) {
                if ready {
                    client.gone = !client.serve(&self.hub, &mut self.buffer);
                } else if client.session.as_ref().is_some_and(|session| !session.alive()) {
                    client.finish();
                }
            }
            self.clients.retain(|client| !client.gone);
            if incoming {
                self.accept();
            }
            self.quiet = if self.clients.is_empty() { self.quiet.saturating_add(1) } else { 0 };
            self.hub.collect();
        }
        self.clients.iter_mut().for_each(Connection::finish);
    }

    /// Which of the end, the listening socket and the clients are readable.
    fn wait(&self) -> Vec<bool> {
        let sockets = [&self.end, &self.socket].into_iter();
        let sockets = sockets.chain(self.clients.iter().map(|client| &client.socket));
        let mut entries: Vec<PollFd<'_>> = sockets.map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        if self.refused {
            entries[1] = PollFd::new(&self.socket, PollFlags::empty());
        }
        // Sleep without a timeout while there are no clients.
        let tick = (self.quiet < QUIET || self.refused).then_some(&TICK);
        if poll(&mut entries, tick).is_err() {
            return vec![false; entries.len()];
        }
        entries.iter().map(|entry| !entry.revents().is_empty()).collect()
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        loop {
            let socket = match rustix::net::accept_with(&self.socket, flags) {
                Ok(socket) => socket,
                Err(error) => {
                    self.refused =
                        matches!(error, Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM);
                    return;
                }
            };
            // An idle connection makes room for a new client.
            if self.clients.len() >= CLIENTS
                && let Some(idle) = self.clients.iter().position(|client| client.session.is_none())
            {
                self.clients.remove(idle);
            }
            if self.clients.len() < CLIENTS {
                self.clients.push(Connection { socket, session: None, gone: false });
            } else {
                let _ = send(socket.as_fd(), "error too many clients; end some captures first", None);
            }
        }
    }
}

impl Connection {
    /// Answers one request; false if the client must be disconnected.
    fn serve(&mut self, hub: &Hub, buffer: &mut [u8]) -> bool {
        let len = match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return false,
            Ok((len, _)) => len,
            Err(error) => {
                return matches!(
                    io::Error::from(error).kind(),
                    ErrorKind::WouldBlock | ErrorKind::Interrupted
                );
            }
        };
        let text = String::from_utf8_lossy(buffer.get(..len).unwrap_or_default());
        let answered = match protocol::parse(&text) {
            Ok(Request::List) => send(self.socket.as_fd(), &list(hub), None),
            Ok(Request::Stop) => {
                self.finish();
                return false;
            }
            Ok(Request::Capture(..)) if self.session.is_some() => {
                send(self.socket.as_fd(), "error this connection captures already", None)
            }
            Ok(Request::Capture(port, options)) => match hub.begin(port, &options) {
                Ok((session, shared)) => {
                    self.session = Some(session);
                    let text = protocol::opened(&shared.name, &shared.places);
                    send(self.socket.as_fd(), &text, Some(shared.file.as_fd()))
                }
                Err(error) => send(self.socket.as_fd(), &format!("error {error}"), None),
            },
            Err(error) => send(self.socket.as_fd(), &format!("error {error}"), None),
        };
        answered.is_ok()
    }

    /// Ends the capture and reports its totals.
    fn finish(&mut self) {
        if let Some(session) = self.session.take() {
            let Totals { seen, lost } = session.totals();
            let _ = send(self.socket.as_fd(), &format!("end seen={seen} lost={lost}"), None);
        }
        self.gone = true;
    }
}

fn list(hub: &Hub) -> String {
    let line =
        |(id, name, rx, tx): (u16, String, usize, usize)| format!("port={id} rx={rx} tx={tx} name={name}\n");
    std::iter::once("ok\n".to_owned()).chain(hub.ports().into_iter().map(line)).collect()
}

/// Sends a datagram, with or without a descriptor; never waits.
pub(super) fn send(socket: BorrowedFd<'_>, text: &str, file: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut extra = SendAncillaryBuffer::new(&mut space);
    let files: Vec<BorrowedFd<'_>> = file.into_iter().collect();
    if !files.is_empty() {
        extra.push(SendAncillaryMessage::ScmRights(&files));
    }
    let bytes = [io::IoSlice::new(text.as_bytes())];
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::net::sendmsg(socket, &bytes, &mut extra, flags)?;
    Ok(())
}
