//! The endpoint for Prometheus: HTTP on a local port or a Unix socket.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::TelemetryError;
use crate::format::Format;
use crate::pace::paced;

/// The maximum number of clients; a further one replaces the oldest.
const MOST_CLIENTS: usize = 8;
/// How long a client may take to send its request.
const PATIENCE: Duration = Duration::from_secs(5);
/// The maximum length of a request in bytes.
const LONGEST: usize = 8192;
/// How often the thread checks whether it must end.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

type Source = Box<dyn Fn() -> String + Send>;

/// An endpoint for reading counters, which exists until it is dropped.
///
/// ```
/// use std::io::{Read, Write};
/// use linecard_telemetry::openmetrics::{self, Text};
/// let endpoint = openmetrics::serve("127.0.0.1:0", || Text::new("app").finish())?;
/// let mut client = std::net::TcpStream::connect(endpoint.address())?;
/// client.write_all(b"GET /metrics HTTP/1.1\r\n\r\n")?;
/// let mut answer = String::new();
/// client.read_to_string(&mut answer)?;
/// assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("# EOF\n"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Endpoint {
    address: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// The path of a Unix socket, removed with it.
    path: Option<PathBuf>,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Endpoint {
    pub(crate) fn start(address: &str, source: Source) -> Result<Self, TelemetryError> {
        let failed = |source| {
            let action = format!("counters cannot be offered at {address}");
            let remedy = "name another place, such as 127.0.0.1:9460 or unix:/run/linecard/metrics.sock";
            TelemetryError::system(action, source, remedy)
        };
        let (listener, shown, path) = match address.strip_prefix("unix:") {
            Some(path) => {
                let path = PathBuf::from(path);
                let listener = listen(&path).map_err(failed)?;
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
            .spawn(move || listener.serve(&source, &stopped))
            .map_err(failed)?;
        Ok(Self { address: shown, stop, thread: Some(thread), path })
    }

    /// The address of the endpoint, with the actual port if none was given.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // While this process listens, no other takes the name. It does not matter if it is gone already.
            let _ = std::fs::remove_file(path);
        }
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Listens at a path. The socket of a program that has ended is replaced; no other file is.
fn listen(path: &Path) -> std::io::Result<UnixListener> {
    if path.as_os_str().is_empty() {
        // The kernel would choose an unknown name.
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    let socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let refused = |error: std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
    if socket && UnixStream::connect(path).is_err_and(refused) {
        std::fs::remove_file(path)?;
    }
    UnixListener::bind(path)
}

/// A connection whose operations have a time limit, and which another thread can close.
trait Conversation: Send + Sync {
    fn limit(&self, patience: Duration) -> std::io::Result<()>;
    fn receive(&self, bytes: &mut [u8]) -> std::io::Result<usize>;
    fn send(&self, bytes: &[u8]) -> std::io::Result<()>;
    fn end(&self);
}

macro_rules! conversation {
    ($stream:ty) => {
        impl Conversation for $stream {
            fn limit(&self, patience: Duration) -> std::io::Result<()> {
                self.set_nonblocking(false)?;
                self.set_read_timeout(Some(patience))?;
                self.set_write_timeout(Some(patience))
            }

            fn receive(&self, bytes: &mut [u8]) -> std::io::Result<usize> {
                let mut stream = self;
                stream.read(bytes)
            }

            fn send(&self, bytes: &[u8]) -> std::io::Result<()> {
                let mut stream = self;
                stream.write_all(bytes)
            }

            fn end(&self) {
                // A client that has disconnected already needs no shutdown.
                let _ = self.shutdown(Shutdown::Both);
            }
        }
    };
}

conversation!(TcpStream);
conversation!(UnixStream);

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

    fn accept(&self) -> std::io::Result<Arc<dyn Conversation>> {
        Ok(match self {
            Self::Tcp(listener) => Arc::new(listener.accept()?.0),
            Self::Unix(listener) => Arc::new(listener.accept()?.0),
        })
    }

    fn serve(&self, source: &Source, stop: &AtomicBool) {
        // The thread of each client owns its connection; the oldest come first.
        let mut clients: Vec<Weak<dyn Conversation>> = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let mut wait = [PollFd::from_borrowed_fd(self.fd(), PollFlags::IN)];
            if poll(&mut wait, Some(&LOOK)).is_ok_and(|ready| ready > 0) {
                paced(|| self.take(source, &mut clients));
            }
        }
        clients.iter().filter_map(Weak::upgrade).for_each(|client| client.end());
    }

    fn take(&self, source: &Source, clients: &mut Vec<Weak<dyn Conversation>>) {
        let Ok(client) = self.accept() else { return };
        clients.retain(|client| client.strong_count() > 0);
        if clients.len() >= MOST_CLIENTS
            && let Some(oldest) = clients.remove(0).upgrade()
        {
            oldest.end();
        }
        clients.push(Arc::downgrade(&client));
        // The text is generated here, so that a slow client holds no resources of the program.
        let text = source();
        let spawned = std::thread::Builder::new().name("lc-metrics-peer".into()).spawn(move || {
            // A client that has disconnected needs no answer.
            let _ = answer(&*client, &text);
        });
        // If no thread can be started, the connection is closed.
        drop(spawned);
    }
}

/// Reads one request and answers it.
fn answer(client: &dyn Conversation, text: &str) -> std::io::Result<()> {
    let start = Instant::now();
    let (mut request, mut chunk) = (Vec::new(), [0; 1024]);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let Some(left) = PATIENCE.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) else {
            return Ok(());
        };
        client.limit(left)?;
        match client.receive(&mut chunk)? {
            0 => return Ok(()),
            _ if request.len() >= LONGEST => {
                let status = "431 Request Header Fields Too Large";
                return reply(client, status, "text/plain", "the request is too long\n");
            }
            count => request.extend_from_slice(chunk.get(..count).unwrap_or_default()),
        }
    }
    client.limit(PATIENCE)?;
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (method, path) = (words.next(), words.next());
    match (method, path.map(|path| path.split(|byte| *byte == b'?').next().unwrap_or_default())) {
        (Some(b"GET"), Some(b"/metrics")) => {
            let format = Format::asked(&request);
            reply(client, "200 OK", format.content_type(), &format.of(text))
        }
        (Some(b"GET"), _) => reply(client, "404 Not Found", "text/plain", "ask for /metrics\n"),
        _ => reply(client, "405 Method Not Allowed", "text/plain", "GET /metrics is all there is\n"),
    }
}

fn reply(client: &dyn Conversation, status: &str, kind: &str, text: &str) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    client.send(head.as_bytes())?;
    client.send(text.as_bytes())
}
