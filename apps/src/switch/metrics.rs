//! The endpoint that Prometheus asks for counters: HTTP on a local port or a Unix socket.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use linecard_switch::{Switch, metrics};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::Error;

/// Clients at once; more are turned away.
const MOST_CLIENTS: usize = 8;
/// How long one may take, in all.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most bytes of a request.
const LONGEST: usize = 8192;
/// How often the end is looked for.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Where counters can be asked for; ends when it is dropped.
pub(crate) struct Endpoint {
    address: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// A socket's name, which goes with it.
    path: Option<PathBuf>,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Endpoint {
    /// Answers at `address`: `HOST:PORT`, or `unix:PATH`.
    ///
    /// # Errors
    /// Nobody can listen there.
    pub(crate) fn start(address: &str, switch: Arc<Switch>) -> Result<Self, Error> {
        let failed = |source| Error::System {
            action: format!("counters cannot be offered at {address}"),
            source,
            remedy: "name another place with --metrics, such as 127.0.0.1:9460 or unix:/run/linecard/metrics.sock",
        };
        let (listener, shown, path) = match address.strip_prefix("unix:") {
            Some(path) => {
                let path = PathBuf::from(path);
                super::socket::clear(&path)?;
                let listener = UnixListener::bind(&path).map_err(failed)?;
                (Listener::Unix(listener), address.to_owned(), Some(path))
            }
            None => {
                let listener = TcpListener::bind(address).map_err(failed)?;
                let shown = listener.local_addr().map_err(failed)?.to_string();
                (Listener::Tcp(listener), shown, None)
            }
        };
        listener.set_nonblocking().map_err(failed)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("lc-metrics".into())
            .spawn(move || listener.serve(&switch, &stopped))
            .map_err(failed)?;
        Ok(Self { address: shown, stop, thread: Some(thread), path })
    }

    /// Where it answers, with the port that was chosen where none was named.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // While somebody listens there, nobody else takes the name. Gone already is as good.
            let _ = std::fs::remove_file(path);
        }
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A connection whose operations have an end.
trait Conversation: Read + Write + Send {
    fn limit(&self, patience: Duration) -> std::io::Result<()>;
}

impl Conversation for TcpStream {
    fn limit(&self, patience: Duration) -> std::io::Result<()> {
        self.set_nonblocking(false)?;
        self.set_read_timeout(Some(patience))?;
        self.set_write_timeout(Some(patience))
    }
}

impl Conversation for UnixStream {
    fn limit(&self, patience: Duration) -> std::io::Result<()> {
        self.set_nonblocking(false)?;
        self.set_read_timeout(Some(patience))?;
        self.set_write_timeout(Some(patience))
    }
}

impl Listener {
    fn set_nonblocking(&self) -> std::io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.set_nonblocking(true),
            Self::Unix(listener) => listener.set_nonblocking(true),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }

    fn accept(&self) -> std::io::Result<Box<dyn Conversation>> {
        Ok(match self {
            Self::Tcp(listener) => Box::new(listener.accept()?.0),
            Self::Unix(listener) => Box::new(listener.accept()?.0),
        })
    }

    fn serve(&self, switch: &Arc<Switch>, stop: &AtomicBool) {
        let clients = Arc::new(AtomicUsize::new(0));
        while !stop.load(Ordering::Relaxed) {
            let mut wait = [PollFd::from_borrowed_fd(self.fd(), PollFlags::IN)];
            if !poll(&mut wait, Some(&LOOK)).is_ok_and(|ready| ready > 0) {
                continue;
            }
            let Ok(client) = self.accept() else { continue };
            if clients.load(Ordering::Relaxed) >= MOST_CLIENTS {
                continue;
            }
            clients.fetch_add(1, Ordering::Relaxed);
            // The text is made here: a client that is slow keeps nothing of the switch.
            let text = metrics::text(&switch.stats(), env!("CARGO_PKG_VERSION"));
            let leaving = Leaving(Arc::clone(&clients));
            let spawned = std::thread::Builder::new().name("lc-metrics-peer".into()).spawn(move || {
                let _leaving = leaving;
                // Whoever went away needs no answer.
                let _ = answer(client, &text);
            });
            // Without a thread for it the connection is closed, and its place is free again.
            drop(spawned);
        }
    }
}

/// A client's place, given back when it goes.
struct Leaving(Arc<AtomicUsize>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reads one request and answers it.
fn answer(mut client: Box<dyn Conversation>, text: &str) -> std::io::Result<()> {
    let start = Instant::now();
    let (mut request, mut chunk) = (Vec::new(), [0; 1024]);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let Some(left) = PATIENCE.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) else {
            return Ok(());
        };
        client.limit(left)?;
        match client.read(&mut chunk)? {
            0 => return Ok(()),
            _ if request.len() >= LONGEST => {
                return reply(
                    client,
                    "431 Request Header Fields Too Large",
                    "text/plain",
                    "the request is too long\n",
                );
            }
            count => request.extend_from_slice(chunk.get(..count).unwrap_or_default()),
        }
    }
    client.limit(PATIENCE)?;
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    match (words.next(), words.next().map(|path| path.split(|byte| *byte == b'?').next().unwrap_or_default()))
    {
        (Some(b"GET"), Some(b"/metrics")) => reply(client, "200 OK", metrics::CONTENT_TYPE, text),
        (Some(b"GET"), _) => reply(client, "404 Not Found", "text/plain", "ask for /metrics\n"),
        _ => reply(client, "405 Method Not Allowed", "text/plain", "GET /metrics is all there is\n"),
    }
}

fn reply(mut client: Box<dyn Conversation>, status: &str, kind: &str, text: &str) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    client.write_all(head.as_bytes())?;
    client.write_all(text.as_bytes())
}
