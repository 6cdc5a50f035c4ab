//! File descriptors that a peer sent: closing them must not make us wait.
//!
//! `close(2)` can sleep for as long as the sender likes: a TCP socket with `SO_LINGER` waits for its data to be read, a
//! file of a file system that is a program (FUSE) waits for that program, a pipe for whoever writes to it just now. To close
//! the last descriptor of memory is to free it. A thread that serves many peers never closes such a descriptor itself; a
//! thread of its own does. Nor does it close a socket with messages that nobody read: descriptors may be with them.
//! Where closing may take for ever, each port has its own thread ([`Closer`]), so that a peer keeps nobody's descriptors
//! open but its own.

use std::net::Shutdown;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, OnceLock, mpsc};

/// A descriptor that came with a message. It is closed on drop, without waiting, wherever it leads.
///
/// ```
/// use std::os::fd::OwnedFd;
/// use linecard_wire::PeerFd;
///
/// let (reader, _writer) = std::io::pipe()?;
/// let came = PeerFd::from(OwnedFd::from(reader));
/// let kept: OwnedFd = came.into_owned(); // known to be harmless to close
/// # drop(kept);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct PeerFd {
    fd: Option<OwnedFd>,
    closer: Option<Closer>,
}

impl PeerFd {
    /// Has `closer` close it, if that may take its time.
    pub(crate) fn leave_to(&mut self, closer: &Closer) {
        self.closer = Some(closer.clone());
    }

    /// The descriptor, to be closed like any other. For one whose kind was checked.
    ///
    /// # Panics
    /// Never: the descriptor is there until it is given away here.
    #[must_use]
    pub fn into_owned(mut self) -> OwnedFd {
        match self.fd.take() {
            Some(fd) => fd,
            None => unreachable!("given away once"),
        }
    }
}

impl From<OwnedFd> for PeerFd {
    fn from(fd: OwnedFd) -> Self {
        Self { fd: Some(fd), closer: None }
    }
}

impl AsFd for PeerFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.fd {
            Some(fd) => fd.as_fd(),
            None => unreachable!("given away once"),
        }
    }
}

impl Drop for PeerFd {
    fn drop(&mut self) {
        if let Some(fd) = self.fd.take() {
            close(fd, self.closer.as_ref());
        }
    }
}

/// Whether closing `fd` waits for nobody, however much work it is: memory that can be sealed (memfd, tmpfs, hugetlbfs), and
/// eventfds. Asks the kernel alone: even `fstat` may wait for the file system.
fn waits_for_nobody(fd: &OwnedFd) -> bool {
    // SAFETY: takes integers.
    let memory = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) } >= 0;
    let event = || {
        std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
            .is_ok_and(|link| link.as_os_str() == "anon_inode:[eventfd]")
    };
    memory || event()
}

/// A thread that closes descriptors, made for the first of them; it ends when they are closed and all clones of this gone.
///
/// Whoever serves a port gives it to all its connections ([`Connection::of`](crate::Connection::of)): a peer that sends
/// descriptors which take long to close then waits for nobody but itself, and [`waiting`](Self::waiting) says when it has
/// sent too many.
///
/// ```
/// use linecard_wire::{Closer, Connection};
/// let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
/// let closer = Closer::default();
/// let connection = Connection::of(ours, &closer)?;
/// drop((connection, theirs));
/// assert_eq!(closer.waiting(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Closer(Arc<Thread>);

#[derive(Debug, Default)]
struct Thread {
    sender: OnceLock<Option<mpsc::Sender<OwnedFd>>>,
    waiting: Arc<AtomicUsize>,
}

/// For what waits for nobody.
static BUSY: LazyLock<Closer> = LazyLock::new(Closer::default);
/// For what may wait for ever and came from no port's peer.
static PATIENT: LazyLock<Closer> = LazyLock::new(Closer::default);

impl Closer {
    /// Descriptors that are not closed yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Relaxed)
    }

    fn close(&self, fd: OwnedFd) {
        let sender = self.0.sender.get_or_init(|| {
            let (sender, fds) = mpsc::channel::<OwnedFd>();
            let waiting = Arc::clone(&self.0.waiting);
            let body = move || {
                for fd in fds {
                    drop(fd);
                    waiting.fetch_sub(1, Relaxed);
                }
            };
            std::thread::Builder::new().name("lc-closer".into()).spawn(body).ok().map(|_| sender)
        });
        // Without a thread there is nothing better than to close it here.
        let Some(sender) = sender else { return };
        self.0.waiting.fetch_add(1, Relaxed);
        if let Err(mpsc::SendError(fd)) = sender.send(fd) {
            drop(fd);
            self.0.waiting.fetch_sub(1, Relaxed);
        }
    }
}

/// Closes `fd` soon, in a thread that nobody waits for: for a descriptor whose end may take as long as a peer likes.
///
/// ```
/// let (reader, _writer) = std::io::pipe()?;
/// linecard_wire::close_elsewhere(reader.into());
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn close_elsewhere(fd: OwnedFd) {
    close(fd, None);
}

fn close(fd: OwnedFd, patient: Option<&Closer>) {
    if waits_for_nobody(&fd) {
        BUSY.close(fd);
    } else {
        patient.unwrap_or(&PATIENT).close(fd);
    }
}

/// Ends a connection without waiting: the peer is told at once; what it sent and nobody read is thrown away, with the
/// descriptors that came along, where that may take its time.
fn hang_up(socket: UnixStream, closer: &Closer) {
    // From here on nothing more can come.
    let _ = socket.shutdown(Shutdown::Both);
    if has_unread(socket.as_fd()) {
        closer.close(socket.into());
    }
}

/// A connection that hangs up on drop.
pub(crate) struct Socket {
    stream: Option<UnixStream>,
    closer: Closer,
}

impl Socket {
    pub(crate) fn new(stream: UnixStream, closer: &Closer) -> Self {
        Self { stream: Some(stream), closer: closer.clone() }
    }

    pub(crate) fn closer(&self) -> &Closer {
        &self.closer
    }
}

impl Deref for Socket {
    type Target = UnixStream;

    fn deref(&self) -> &UnixStream {
        match &self.stream {
            Some(stream) => stream,
            None => unreachable!("there until the drop"),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            hang_up(stream, &self.closer);
        }
    }
}

/// Whether something lies in the socket that nobody has read.
fn has_unread(socket: BorrowedFd<'_>) -> bool {
    let mut byte = 0_u8;
    let (to, flags) = ((&raw mut byte).cast(), libc::MSG_PEEK | libc::MSG_DONTWAIT);
    // SAFETY: writes at most one byte, to `byte`.
    unsafe { libc::recv(socket.as_raw_fd(), to, 1, flags) > 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    /// A socket whose `close` waits ten seconds for somebody to read, and the one who does not.
    fn lingering() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut socket = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (silent, _) = listener.accept().expect("a connection");
        socket.set_nonblocking(true).expect("possible");
        while socket.write(&[7; 65_536]).is_ok() {}
        let linger = libc::linger { l_onoff: 1, l_linger: 10 };
        let len = size_of::<libc::linger>() as libc::socklen_t;
        let (level, option) = (libc::SOL_SOCKET, libc::SO_LINGER);
        // SAFETY: reads `len` bytes of `linger`.
        let set =
            unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const linger).cast(), len) };
        assert_eq!(set, 0);
        (socket, silent)
    }

    #[test]
    fn closing_does_not_wait_for_the_sender() {
        let (socket, mut silent) = lingering();
        let began = Instant::now();
        drop(PeerFd::from(OwnedFd::from(socket)));
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        // It is closed for all that, once its data is gone.
        silent.read_to_end(&mut Vec::new()).expect("the end comes");
    }

    /// A message with a socket that takes its time, and a connection that nobody reads it from.
    #[test]
    fn hanging_up_does_not_wait_for_what_nobody_read() {
        for read in [false, true] {
            let (socket, mut silent) = lingering();
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            let mut sender = crate::Connection::new(theirs).expect("a connection");
            let message = crate::OutMessage::request(crate::FrontendReq::SET_OWNER, &[]);
            let fds = [socket.as_fd()];
            sender.send(&message.with_fds(&fds)).expect("room");
            drop(socket);
            let began = Instant::now();
            if read {
                let mut receiver = crate::Connection::new(ours).expect("a connection");
                drop(receiver.read().expect("a message").expect("whole"));
            } else {
                // What a second frontend gets, and one whose last message was wrong.
                drop(crate::Connection::new(ours).expect("a connection"));
            }
            assert!(began.elapsed() < Duration::from_secs(2), "read: {read}: {:?}", began.elapsed());
            assert!(sender.read().is_err(), "and the peer knows");
            silent.read_to_end(&mut Vec::new()).expect("the end comes");
        }
    }

    /// Its writer holds the pipe for as long as the memory it writes from takes to appear.
    #[test]
    fn a_pipe_that_is_being_written_to_makes_nobody_wait() {
        let Some(absent) = Absent::new() else {
            let test = "a_pipe_that_is_being_written_to_makes_nobody_wait";
            return linecard_testing::skip(test, "no userfaultfd, or not for this user");
        };
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        let at = absent.at;
        let writing = std::thread::spawn(move || {
            // SAFETY: mapped memory, though its page has to be waited for.
            writer.write_all(unsafe { std::slice::from_raw_parts(at as *const u8, 8) })
        });
        std::thread::sleep(Duration::from_millis(100));
        assert!(!writing.is_finished(), "the writer is inside");
        let began = Instant::now();
        drop(PeerFd::from(OwnedFd::from(reader)));
        assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
        // The page appears, and all goes on.
        drop(absent);
        let _ = writing.join().expect("no panic");
    }

    /// A page whose reader waits until this is dropped. It stays mapped.
    struct Absent {
        at: usize,
        _fault: OwnedFd,
    }

    impl Absent {
        fn new() -> Option<Self> {
            #[repr(C)]
            struct Api([u64; 3]);
            #[repr(C)]
            struct Register([u64; 4]);
            const UFFD_API: u64 = 0xaa;
            const MISSING: u64 = 1;
            const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
            const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
            // SAFETY: takes integers.
            let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
            let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
            // SAFETY: just made, nobody else owns it.
            let fault = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) };
            let (access, flags) =
                (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            // SAFETY: makes a mapping of its own.
            let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, flags, -1, 0) } as usize;
            let (mut api, mut register) = (Api([UFFD_API, 0, 0]), Register([at as u64, 4096, MISSING, 0]));
            // SAFETY: reads and writes the structure of this request.
            let ready = unsafe { libc::ioctl(fault.as_raw_fd(), UFFDIO_API, &raw mut api) } == 0;
            // SAFETY: as above.
            let watched = unsafe { libc::ioctl(fault.as_raw_fd(), UFFDIO_REGISTER, &raw mut register) } == 0;
            (ready && watched).then_some(Self { at, _fault: fault })
        }
    }

    #[test]
    fn what_waits_for_nobody_does_not_queue_behind_what_may() {
        // SAFETY: takes a terminated string and an integer.
        let memory = unsafe { libc::memfd_create(c"closed".as_ptr(), libc::MFD_CLOEXEC) };
        // SAFETY: takes integers.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        for raw in [memory, event] {
            // SAFETY: just made, nobody else owns it.
            let fd = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(raw) };
            assert!(waits_for_nobody(&fd));
        }
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        for fd in [reader.into(), std::fs::File::open("/dev/null").expect("there").into()] {
            assert!(!waits_for_nobody(&fd));
        }
    }
}
