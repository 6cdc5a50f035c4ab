//! What makes a process wait that receives, closes or signals something of a peer's; and a port that must not notice.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use linecard_lab::{wait_for, wait_until};
use linecard_pmd::Port;
use linecard_wire::ledger::Resource;
use linecard_wire::{Closer, Connection};

use super::{Backend, Bench, Place, attached};

/// Longer than any test waits.
const LINGER_SECONDS: libc::c_int = 300;

/// The other ends of sockets that linger: as long as they are kept, closing such a socket waits.
#[derive(Clone, Default)]
pub struct Silent(Arc<Mutex<Vec<TcpStream>>>);

impl Silent {
    /// A socket whose `close` waits until [`let_go`](Self::let_go).
    pub fn lingering(&self) -> OwnedFd {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut socket = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (silent, _) = listener.accept().expect("a connection");
        socket.set_nonblocking(true).expect("possible");
        while socket.write(&[7; 65_536]).is_ok() {}
        let linger = libc::linger { l_onoff: 1, l_linger: LINGER_SECONDS };
        let len = size_of::<libc::linger>() as libc::socklen_t;
        let (level, option) = (libc::SOL_SOCKET, libc::SO_LINGER);
        // SAFETY: reads `len` bytes of `linger`.
        let set =
            unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const linger).cast(), len) };
        assert_eq!(set, 0);
        self.0.lock().expect("whole").push(silent);
        socket.into()
    }

    /// Every such socket closes now.
    pub fn let_go(&self) {
        self.0.lock().expect("whole").clear();
    }
}

/// Sends `bytes` with `fds`, in one piece.
pub fn send_with(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[RawFd], flags: libc::c_int) -> bool {
    let mut control = [0_u64; 256];
    let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: plain C data, for which zeros are valid.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    let len = size_of_val(fds) as u32;
    // SAFETY: arithmetic.
    header.msg_controllen = unsafe { libc::CMSG_SPACE(len) } as usize;
    assert!(header.msg_controllen <= size_of_val(&control));
    // SAFETY: the control area is alive, and longer than a header.
    let record = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    // SAFETY: arithmetic.
    let cmsg_len = unsafe { libc::CMSG_LEN(len) } as usize;
    let head = libc::cmsghdr { cmsg_len, cmsg_level: libc::SOL_SOCKET, cmsg_type: libc::SCM_RIGHTS };
    // SAFETY: the start of the control area, aligned by its type.
    unsafe { record.write(head) };
    // SAFETY: a valid record, whose data follows it.
    let data = unsafe { libc::CMSG_DATA(record) };
    // SAFETY: there is room for `len` bytes, see above.
    unsafe { std::ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), data, len as usize) };
    // SAFETY: `header` points at `bytes` and `control`, which outlive the call; it only reads.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, flags | libc::MSG_NOSIGNAL) };
    sent == bytes.len() as isize
}

/// Sends `bytes` with `fd`, which is nobody else's from then on, and with `more` descriptors that do no harm.
///
/// If the receiver is faster than our own close, it is ours that waits: so it is done by a thread of its own.
pub fn send_away(socket: &UnixStream, bytes: &[u8], fd: OwnedFd, more: usize, flags: libc::c_int) {
    let null = File::open("/dev/null").expect("a file");
    let (socket, bytes) = (socket.try_clone().expect("a descriptor"), bytes.to_vec());
    let sent = Arc::<AtomicBool>::default();
    let done = sent.clone();
    std::thread::spawn(move || {
        let mut fds = vec![null.as_raw_fd(); more + 1];
        fds[0] = fd.as_raw_fd();
        send_with(socket.as_fd(), &bytes, &fds, flags | libc::MSG_DONTWAIT);
        done.store(true, Ordering::Release);
        drop(fd);
    });
    wait_until("it is sent", || sent.load(Ordering::Acquire));
}

/// Sends one byte out of band with `fd`.
pub fn send_urgent(socket: &UnixStream, fd: OwnedFd) {
    send_away(socket, b"!", fd, 0, libc::MSG_OOB);
}

/// Sends `bytes` with `fd` and as many more as fit into one record.
pub fn send_laden(socket: &UnixStream, bytes: &[u8], fd: OwnedFd) {
    send_away(socket, bytes, fd, 252, 0);
}

/// Serves whoever connects to `place`, one after the other, until dropped.
pub struct Server {
    orders: Arc<Orders>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Orders {
    stop: AtomicBool,
    spoil: AtomicBool,
    /// Connections of an older turn are closed.
    turn: AtomicU32,
    served: AtomicU32,
}

impl Server {
    /// Honest backends, until [`spoil`](Self::spoil): then they are as `prepare` makes them.
    pub fn new(place: &Place, prepare: impl FnMut(&mut Backend) + Send + 'static) -> Self {
        let listener = UnixListener::bind(&place.0).expect("a socket");
        listener.set_nonblocking(true).expect("possible");
        let orders = Arc::<Orders>::default();
        let given = orders.clone();
        let thread = std::thread::spawn(move || serve(&listener, &given, prepare));
        Self { orders, thread: Some(thread) }
    }

    /// Ends the connection; further backends are spoilt, or honest.
    pub fn spoil(&self, spoil: bool) {
        self.orders.spoil.store(spoil, Ordering::Release);
        self.orders.turn.fetch_add(1, Ordering::AcqRel);
    }

    /// Ends the connection; the next backend is like this one.
    pub fn leave(&self) {
        self.orders.turn.fetch_add(1, Ordering::AcqRel);
    }

    /// Connections so far.
    pub fn served(&self) -> u32 {
        self.orders.served.load(Ordering::Acquire)
    }
}

fn serve(listener: &UnixListener, orders: &Orders, mut prepare: impl FnMut(&mut Backend)) {
    let (mut backend, mut turn) = (None, 0);
    // One for all, so that backends leave nothing of their own behind.
    let closer = Closer::new("backend", Resource::new("descriptors", 4096).account(4096)).expect("a thread");
    while !orders.stop.load(Ordering::Acquire) {
        let now = orders.turn.load(Ordering::Acquire);
        if std::mem::replace(&mut turn, now) != now {
            backend = None;
        }
        if let Ok((stream, _)) = listener.accept() {
            let fresh = backend.insert(Backend::over(Connection::of(stream, &closer).expect("a connection")));
            if orders.spoil.load(Ordering::Acquire) {
                prepare(fresh);
            }
            orders.served.fetch_add(1, Ordering::AcqRel);
        }
        if backend.as_mut().is_some_and(|backend| backend.serve().is_err()) {
            backend = None;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.orders.stop.store(true, Ordering::Release);
        let result = self.thread.take().map(JoinHandle::join);
        assert!(
            std::thread::panicking() || result.is_none_or(|result| result.is_ok()),
            "the backend panicked"
        );
    }
}

/// A port with an honest backend.
pub struct Bystander {
    pub port: Port,
    backend: Option<Backend>,
    listener: UnixListener,
    _place: Place,
}

impl Bystander {
    pub fn new(bench: &Bench) -> Self {
        let place = Place::new();
        let (port, backend, listener) = attached(bench, &place, "");
        listener.set_nonblocking(true).expect("possible");
        wait_until("link up", || port.control.link().up);
        Self { port, backend: Some(backend), listener, _place: place }
    }

    /// Loses its backend and finds another; how long the port was without one.
    pub fn reconnect(&mut self) -> Duration {
        self.backend = None;
        let began = Instant::now();
        let stream = wait_for("the bystander connects again", || self.listener.accept().ok()).0;
        let mut backend = Backend::new(stream);
        backend.until_running(2).expect("a frontend that stays");
        wait_until("link up", || {
            backend.serve().expect("a frontend that stays");
            self.port.control.link().up
        });
        self.backend = Some(backend);
        began.elapsed()
    }

    /// The shortest of some reconnections: what it takes when the machine does not interfere. Where that is more than
    /// `enough`, it may be the machine after all: then of many more.
    pub fn best(&mut self, enough: Duration) -> Duration {
        let mut best = (0..ROUNDS).map(|_| self.reconnect()).min().expect("some");
        for _ in 0..20 * ROUNDS {
            if best <= enough {
                break;
            }
            best = best.min(self.reconnect());
        }
        best
    }
}

const ROUNDS: u32 = 10;
/// What a bystander may notice at most.
pub const NOTICE: Duration = Duration::from_millis(5);

/// Entries of a folder of `/proc/self`, such as `fd` or `task`.
pub fn count(what: &str) -> usize {
    std::fs::read_dir(format!("/proc/self/{what}")).expect("proc").count()
}

/// A file of each thread of this process whose name begins with `prefix`, by the thread's number.
fn of_threads(prefix: &str, file: &str) -> BTreeMap<String, String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("proc").flatten();
    let read = |task: std::fs::DirEntry| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let text = std::fs::read_to_string(task.path().join(file)).ok()?;
        name.starts_with(prefix).then(|| (task.file_name().to_string_lossy().into_owned(), text))
    };
    tasks.filter_map(read).collect()
}

/// Threads of this process whose name begins with `prefix`.
pub fn threads(prefix: &str) -> usize {
    of_threads(prefix, "comm").len()
}

/// The processor time of those threads.
pub fn time_of(prefix: &str) -> Duration {
    let nanos = |stat: &String| stat.split_whitespace().next().and_then(|nanos| nanos.parse::<u64>().ok());
    Duration::from_nanos(of_threads(prefix, "schedstat").values().filter_map(nanos).sum())
}

/// How often each of those threads went to sleep.
pub fn sleeps(prefix: &str) -> BTreeMap<String, u64> {
    let count = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|count| count.trim().parse().ok()).expect("a count")
    };
    of_threads(prefix, "status").into_iter().map(|(thread, status)| (thread, count(status))).collect()
}
