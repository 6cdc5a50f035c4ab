//! File descriptors that a peer sent: counted, and closed by a thread of the peer's own port.
//!
//! `close(2)` can block for as long as the sender likes: for a TCP socket with `SO_LINGER` until its data is
//! read, for a file of a FUSE file system until its program answers, for a pipe until a current writer
//! finishes, for an eventfd because of epoll instances that watch it, and for the last descriptor of memory
//! while that is freed. No kind of file is harmless. Therefore each port has its own thread for this
//! ([`Closer`]), and a peer delays only descriptors of its own port. The same applies to a socket with unread
//! messages, which may contain descriptors.

use std::io;
use std::net::Shutdown;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use rustix::net::RecvFlags;

use crate::ledger::{Account, Charge, LimitError, Resource};
use crate::sys;

/// A descriptor that came with a message. On drop, its port's [`Closer`] closes it; it is charged to that port until then.
///
/// ```
/// use std::os::unix::net::UnixStream;
/// use linecard_wire::{Connection, FrontendReq, OutMessage};
///
/// let (a, b) = UnixStream::pair()?;
/// let (mut frontend, mut backend) = (Connection::new(a)?, Connection::new(b)?);
/// let (reader, _writer) = std::io::pipe()?;
/// frontend.send(&OutMessage::request(FrontendReq::SET_OWNER, &[]).with_fds(&[std::os::fd::AsFd::as_fd(&reader)]))?;
/// let message = backend.read()?.expect("it was sent");
/// assert_eq!(message.fds.len(), 1);
/// drop(message); // nobody waits
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PeerFd {
    fd: Option<OwnedFd>,
    closer: Closer,
    charge: Option<Charge>,
}

impl PeerFd {
    pub(crate) fn new(fd: OwnedFd, closer: &Closer, charge: Charge) -> Self {
        Self { fd: Some(fd), closer: closer.clone(), charge: Some(charge) }
    }

    /// Takes the charge: the descriptor was sent, and is charged with its message from now on.
    pub(crate) fn take_charge(&mut self) -> Option<Charge> {
        self.charge.take()
    }

    /// The descriptor, no longer charged and to be closed by the caller. Only for one whose kind was checked.
    ///
    /// # Panics
    /// Never: the descriptor is present until this call.
    #[must_use]
    pub fn into_owned(mut self) -> OwnedFd {
        match self.fd.take() {
            Some(fd) => fd,
            None => unreachable!("given away once"),
        }
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
            self.closer.close(fd, self.charge.take());
        }
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// What a closing thread is given.
enum Work {
    Run(Job),
    Keep(Untaken),
}

/// An ended connection whose peer has not taken all descriptors that were sent to it. The kernel counts them
/// for the user of this process until the peer takes them or closes its end, so they stay charged until then.
struct Untaken {
    socket: UnixStream,
    _charges: (Option<Charge>, Charge),
}

impl Untaken {
    fn is_taken(&self) -> bool {
        sys::is_taken(self.socket.as_fd())
    }
}

/// The interval between two looks at connections whose descriptors were not taken.
const TAKEN_INTERVAL: Duration = Duration::from_millis(20);

/// A port's thread for operations that its peer can delay: closing descriptors, unmapping memory, signalling.
/// It ends when all jobs are done and all clones of this value are dropped.
///
/// A server uses one for all connections of a port ([`Connection::of`](crate::Connection::of)). The
/// descriptors of the port's peers, including its connections, are charged to one account until they are
/// closed, so a peer that sends descriptors that take long to close reaches only its own port's limit.
///
/// ```
/// use linecard_wire::ledger::Resource;
/// use linecard_wire::{Closer, Connection};
/// let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
/// let closer = Closer::new("net_vhost0", Resource::new("descriptors", 200).account(100))?;
/// let connection = Connection::of(ours, &closer)?;
/// assert_eq!(closer.descriptors().used(), 1);
/// drop((connection, theirs));
/// assert_eq!(closer.descriptors().used(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Closer {
    work: mpsc::Sender<Work>,
    waiting: Arc<AtomicUsize>,
    descriptors: Account,
}

impl Closer {
    /// Starts the thread of the port named `name`, whose peers' descriptors are charged to `descriptors`.
    ///
    /// # Errors
    /// The error of the system call: the limit of threads is reached.
    pub fn new(name: &str, descriptors: Account) -> io::Result<Self> {
        let (work, inbox) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&waiting);
        let body = move || carry_out(&inbox, &counted);
        let builder = std::thread::Builder::new().name(format!("{name}/closer")).stack_size(STACK);
        builder.spawn(body)?;
        Ok(Self { work, waiting, descriptors })
    }

    /// A thread for a single connection that shares its limit with no port.
    pub(crate) fn alone() -> io::Result<Self> {
        Self::new("connection", Resource::new("descriptors", ALONE).account(ALONE))
    }

    /// The number of jobs that are not finished.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// The account of the port's connections and of the descriptors that its peers sent.
    #[must_use]
    pub fn descriptors(&self) -> &Account {
        &self.descriptors
    }

    /// Charges a descriptor that a peer of this port sent to a predecessor.
    ///
    /// # Errors
    /// [`LimitError`]; the thread then closes the descriptor.
    pub fn adopt(&self, fd: OwnedFd) -> Result<PeerFd, LimitError> {
        match self.charge(1) {
            Ok(charge) => Ok(PeerFd::new(fd, self, charge)),
            Err(refusal) => {
                self.close(fd, None);
                Err(refusal)
            }
        }
    }

    /// Runs `job` on the thread, after all earlier jobs.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        self.waiting.fetch_add(1, Relaxed);
        if let Err(mpsc::SendError(Work::Run(job))) = self.work.send(Work::Run(Box::new(job))) {
            // Unreachable in practice: the thread ends only after the last sender, and this is one.
            job();
            self.waiting.fetch_sub(1, Relaxed);
        }
    }

    fn close(&self, fd: OwnedFd, charge: Option<Charge>) {
        self.run(move || {
            drop(fd);
            drop(charge);
        });
    }

    /// Ends a connection without blocking. The peer is notified at once. If it sent unread data, the thread
    /// discards that with its descriptors. If it has not taken the descriptors of `in_transit`, the thread
    /// keeps the socket until it has.
    fn hang_up(&self, socket: UnixStream, charge: Option<Charge>, in_transit: Option<Charge>) {
        // Nothing more can arrive after this.
        let _ = socket.shutdown(Shutdown::Both);
        match in_transit {
            Some(in_transit) if !sys::is_taken(socket.as_fd()) => {
                // The thread ends only after the last sender, and this is one.
                let _ = self.work.send(Work::Keep(Untaken { socket, _charges: (charge, in_transit) }));
            }
            _ if has_unread(socket.as_fd()) => self.close(socket.into(), charge),
            _ => {}
        }
    }

    pub(crate) fn charge(&self, amount: u64) -> Result<Charge, LimitError> {
        self.descriptors.charge(amount)
    }
}

/// The loop of a closing thread.
fn carry_out(inbox: &mpsc::Receiver<Work>, waiting: &AtomicUsize) {
    let mut untaken: Vec<Untaken> = Vec::new();
    loop {
        let next = match untaken.is_empty() {
            true => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => inbox.recv_timeout(TAKEN_INTERVAL),
        };
        match next {
            Ok(Work::Run(job)) => {
                // A panic in a job, which is a bug in this crate, must not prevent other jobs.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
                waiting.fetch_sub(1, Relaxed);
            }
            Ok(Work::Keep(ended)) => untaken.push(ended),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) if untaken.is_empty() => return,
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(TAKEN_INTERVAL),
        }
        untaken.retain(|ended| !ended.is_taken());
    }
}

/// The stack size in bytes: the thread only makes system calls.
const STACK: usize = 128 << 10;
/// The descriptor limit of a connection that shares with no port.
const ALONE: u64 = 1024;

/// Closes `fd` on a new thread, for which nothing waits.
pub(crate) fn close_elsewhere(fd: OwnedFd) {
    // Without a thread, dropping the closure closes the descriptor here.
    let _ = std::thread::Builder::new().name("lc-close".into()).stack_size(STACK).spawn(move || drop(fd));
}

/// A connection that is shut down on drop.
pub(crate) struct Socket {
    stream: Option<UnixStream>,
    closer: Closer,
    charge: Option<Charge>,
    /// For descriptors that were sent and that the peer may not have taken.
    in_transit: Option<Charge>,
}

impl Socket {
    pub(crate) fn new(stream: UnixStream, closer: &Closer) -> Result<Self, LimitError> {
        match closer.charge(1) {
            Ok(charge) => Ok(Self {
                stream: Some(stream),
                closer: closer.clone(),
                charge: Some(charge),
                in_transit: None,
            }),
            Err(refusal) => {
                closer.hang_up(stream, None, None);
                Err(refusal)
            }
        }
    }

    /// Uses a socket that a peer sent, charged as before.
    pub(crate) fn adopt(mut fd: PeerFd) -> Self {
        let stream = fd.fd.take().map(UnixStream::from);
        Self { stream, closer: fd.closer.clone(), charge: fd.charge.take(), in_transit: None }
    }

    pub(crate) fn closer(&self) -> &Closer {
        &self.closer
    }

    /// Keeps the charge of descriptors that were sent, until the peer takes them.
    pub(crate) fn add_in_transit(&mut self, sent: Charge) {
        match &mut self.in_transit {
            Some(earlier) => earlier.join(sent),
            None => self.in_transit = Some(sent),
        }
    }

    /// Returns the charge of descriptors that were sent, if the peer has taken everything.
    pub(crate) fn settle(&mut self) {
        if self.has_in_transit() && sys::is_taken(self.as_fd()) {
            self.in_transit = None;
        }
    }

    pub(crate) fn has_in_transit(&self) -> bool {
        self.in_transit.is_some()
    }

    /// The stream, without notifying the peer.
    pub(crate) fn into_stream(mut self) -> UnixStream {
        match self.stream.take() {
            Some(stream) => stream,
            None => unreachable!("there until the drop"),
        }
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
            self.closer.hang_up(stream, self.charge.take(), self.in_transit.take());
        }
    }
}

/// Whether a socket has unread data.
fn has_unread(socket: BorrowedFd<'_>) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    rustix::net::recv(socket, &mut [0_u8], flags).is_ok_and(|(_, len)| len > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::time::{Duration, Instant};

    /// Drops `fd` as if a peer had sent it. Returns the closer.
    fn send_and_drop(fd: OwnedFd) -> Closer {
        let closer = Closer::alone().expect("a thread");
        let charge = closer.charge(1).expect("room");
        drop(PeerFd::new(fd, &closer, charge));
        closer
    }

    /// Waits until all jobs of `closer` are done.
    fn wait_for_all(closer: &Closer) {
        let until = Instant::now() + Duration::from_secs(60);
        while closer.waiting() > 0 || closer.descriptors().used() > 0 {
            assert!(Instant::now() < until, "{closer:?}");
            std::thread::yield_now();
        }
    }

    /// A socket whose `close` waits up to ten minutes for its peer to read, and that peer, which does not read.
    fn lingering() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut socket = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (silent, _) = listener.accept().expect("a connection");
        socket.set_nonblocking(true).expect("possible");
        while socket.write(&[7; 65_536]).is_ok() {}
        let linger = libc::linger { l_onoff: 1, l_linger: 600 };
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
        let closer = send_and_drop(socket.into());
        assert!(closer.waiting() > 0, "it was closed before the drop was over");
        // It is closed nevertheless once its data has been read.
        silent.read_to_end(&mut Vec::new()).expect("the end comes");
        wait_for_all(&closer);
    }

    /// Drops a connection with a message that contains such a socket, read or unread.
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
            let closer = Closer::alone().expect("a thread");
            let mut receiver = crate::Connection::of(ours, &closer).expect("a connection");
            if read {
                drop(receiver.read().expect("a message").expect("whole"));
            }
            // A server drops a connection after an error, or if it is a second frontend's.
            drop(receiver);
            assert!(closer.waiting() > 0, "read: {read}: it was closed before the drop was over");
            assert!(sender.read().is_err(), "and the peer knows");
            silent.read_to_end(&mut Vec::new()).expect("the end comes");
            wait_for_all(&closer);
        }
    }

    /// The writer locks the pipe until the memory that it writes from is available.
    #[test]
    fn a_pipe_that_is_being_written_to_makes_nobody_wait() {
        let Some(absent) = Absent::new() else {
            let test = "a_pipe_that_is_being_written_to_makes_nobody_wait";
            return linecard_testing::skip(test, "no userfaultfd, or not for this user");
        };
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        let at = absent.at;
        let (tell, told) = mpsc::channel();
        let writing = std::thread::spawn(move || {
            // SAFETY: takes nothing.
            tell.send(unsafe { libc::gettid() }).expect("somebody asks");
            // SAFETY: mapped memory, though its page has to be waited for.
            writer.write_all(unsafe { std::slice::from_raw_parts(at as *const u8, 8) })
        });
        let call = format!("/proc/self/task/{}/syscall", told.recv().expect("it runs"));
        let inside = format!("{} ", libc::SYS_write);
        let until = Instant::now() + Duration::from_secs(60);
        while !std::fs::read_to_string(&call).is_ok_and(|call| call.starts_with(&inside)) {
            assert!(Instant::now() < until && !writing.is_finished(), "the writer is not inside");
            std::thread::yield_now();
        }
        let closer = send_and_drop(reader.into());
        assert!(closer.waiting() > 0, "it was closed before the drop was over");
        // When the page becomes available, the write ends.
        drop(absent);
        let _ = writing.join().expect("no panic");
        wait_for_all(&closer);
    }

    /// A page whose readers wait until this is dropped. It stays mapped.
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
            // SAFETY: reads and writes the structure of this request, which lives across the call.
            let watched = unsafe { libc::ioctl(fault.as_raw_fd(), UFFDIO_REGISTER, &raw mut register) } == 0;
            (ready && watched).then_some(Self { at, _fault: fault })
        }
    }

    /// Sends one out-of-band byte with a duplicate of `fd`.
    fn send_urgent(to: &UnixStream, fd: BorrowedFd<'_>) {
        #[repr(C, align(8))]
        struct Control([u8; 24]);
        let mut control = Control([0; 24]);
        control.0[..8].copy_from_slice(&20_u64.to_ne_bytes());
        control.0[8..12].copy_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
        control.0[12..16].copy_from_slice(&libc::SCM_RIGHTS.to_ne_bytes());
        control.0[16..20].copy_from_slice(&fd.as_raw_fd().to_ne_bytes());
        let mut byte = 7_u8;
        let mut vector = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        // SAFETY: all zeros is an empty header.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        (header.msg_iov, header.msg_iovlen) = (&raw mut vector, 1);
        (header.msg_control, header.msg_controllen) = (control.0.as_mut_ptr().cast(), 20);
        // SAFETY: the header, its vector, byte and control message live across the call.
        assert_eq!(unsafe { libc::sendmsg(to.as_raw_fd(), &raw const header, libc::MSG_OOB) }, 1);
    }

    /// An out-of-band byte that is not read inline would be dropped when later bytes are read, and its descriptor closed.
    #[test]
    fn a_byte_out_of_band_makes_nobody_wait() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let closer = Closer::alone().expect("a thread");
        let mut receiver = crate::Connection::of(ours, &closer).expect("a connection");
        let urgent = theirs.try_clone().expect("a descriptor");
        let mut sender = crate::Connection::new(theirs).expect("a connection");
        let message = crate::OutMessage::request(crate::FrontendReq::SET_OWNER, &[]);
        let (socket, mut silent) = lingering();
        (0..100).for_each(|_| sender.send(&message).expect("room"));
        send_urgent(&urgent, socket.as_fd());
        (0..3).for_each(|_| sender.send(&message).expect("room"));
        drop(socket);
        for _ in 0..100 {
            receiver.read().expect("good").expect("whole");
        }
        // The additional byte shifts the boundaries of later messages.
        while let Ok(Some(_)) = receiver.read() {}
        drop(receiver);
        assert!(closer.waiting() > 0, "it was closed before the drop was over");
        silent.read_to_end(&mut Vec::new()).expect("the end comes");
        wait_for_all(&closer);
    }

    /// Room that will soon be available is distinguished from a lack of room.
    #[test]
    fn descriptors_on_their_way_out_are_waited_for() {
        let account = Resource::new("descriptors", 100).account(3);
        let closer = Closer::new("crowded", account.clone()).expect("a thread");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let mut receiver = crate::Connection::of(ours, &closer).expect("a connection");
        let mut sender = crate::Connection::new(theirs).expect("a connection");
        // The thread is busy, as it may be on a loaded machine.
        let (go, gate) = mpsc::channel::<()>();
        closer.run(move || _ = gate.recv());
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        let message = crate::OutMessage::request(crate::FrontendReq::SET_OWNER, &[]);
        let mut send = || sender.send(&message.with_fds(&[reader.as_fd()])).expect("room");
        (0..2).for_each(|_| send());
        let kept: Vec<_> = (0..2).map(|_| receiver.read().expect("room").expect("whole")).collect();
        drop(kept);
        send();
        assert!(receiver.lacks_room(), "{} of 3 are charged", account.used());
        drop(go);
        linecard_testing::wait_until("room", || !receiver.lacks_room());
        assert_eq!(receiver.read().expect("room").expect("whole").fds.len(), 1);
    }

    /// Descriptors that take long to close are charged until then, and no more are accepted than the port may have.
    #[test]
    fn what_does_not_close_is_charged() {
        const MOST: u64 = 5;
        let account = Resource::new("descriptors", 100).account(MOST);
        let closer = Closer::new("charged", account.clone()).expect("a thread");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let mut receiver = crate::Connection::of(ours, &closer).expect("a connection");
        let mut sender = crate::Connection::new(theirs).expect("a connection");
        let (socket, mut silent) = lingering();
        let mut send = || {
            let message = crate::OutMessage::request(crate::FrontendReq::SET_OWNER, &[]);
            sender.send(&message.with_fds(&[socket.as_fd()])).expect("room");
        };
        (0..MOST).for_each(|_| send());
        for had in 1..MOST {
            drop(receiver.read().expect("room").expect("whole"));
            // The sender still has a duplicate, so these close at once; the last one below does not.
            let until = Instant::now() + Duration::from_secs(10);
            while account.used() > 1 {
                assert!(Instant::now() < until, "{had}: {} are charged", account.used());
                std::thread::yield_now();
            }
        }
        let held: Vec<_> = std::iter::once(receiver.read().expect("room").expect("whole")).collect();
        (1..MOST).for_each(|_| send());
        drop(socket);
        let more: Vec<_> = (2..MOST).map(|_| receiver.read().expect("room").expect("whole")).collect();
        assert_eq!(account.used(), MOST);
        let refusal = receiver.read().expect_err("no room");
        assert!(
            matches!(refusal, crate::Error::Limit(LimitError { used: MOST, max: MOST, .. })),
            "{refusal}"
        );
        drop((held, more, receiver));
        assert!(account.used() > 0, "somebody must read first");
        silent.read_to_end(&mut Vec::new()).expect("the end comes");
        let until = Instant::now() + Duration::from_secs(10);
        while account.used() > 0 {
            assert!(Instant::now() < until, "{} are charged", account.used());
            std::thread::yield_now();
        }
    }

    /// An account of `limit` descriptors, a connection that is charged to it, and that one's peer.
    fn charged(limit: u64) -> (Account, crate::Connection, crate::Connection) {
        let account = Resource::new("descriptors", 100).account(limit);
        let closer = Closer::new("sending", account.clone()).expect("a thread");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let sender = crate::Connection::of(ours, &closer).expect("a connection");
        (account, sender, crate::Connection::new(theirs).expect("a connection"))
    }

    /// Sends a message with one descriptor.
    fn send_one(sender: &mut crate::Connection) -> Result<(), crate::Error> {
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        let message = crate::OutMessage::request(crate::FrontendReq::SET_OWNER, &[]);
        sender.send(&message.with_fds(&[reader.as_fd()]))
    }

    /// Descriptors that are sent are charged until the peer has taken them, also after the connection has ended.
    #[test]
    fn what_the_peer_does_not_take_is_charged() {
        let (account, mut sender, mut receiver) = charged(4);
        (0..3).for_each(|_| send_one(&mut sender).expect("room"));
        assert_eq!(account.used(), 4, "the connection, and three in it");
        assert!(sender.lacks_room(), "the peer may still take them");
        let refusal = send_one(&mut sender).expect_err("no room");
        assert!(
            matches!(
                refusal,
                crate::Error::Limit(LimitError { what: "descriptors", used: 4, max: 4, shared: false, .. })
            ),
            "{refusal}"
        );
        (0..3).for_each(|_| drop(receiver.read().expect("good").expect("whole")));
        (0..2).for_each(|_| send_one(&mut sender).expect("room"));
        assert_eq!(account.used(), 3, "those that were taken are given back");
        drop(sender);
        assert_eq!(account.used(), 3, "the kernel counts them until the peer takes them or ends");
        drop(receiver.read().expect("good").expect("whole"));
        assert_eq!(account.used(), 3);
        drop(receiver);
        linecard_testing::wait_until("all is given back", || account.used() == 0);
    }

    /// A message that waits for room in the socket has duplicates of its descriptors: charged before they are made.
    #[test]
    fn what_waits_for_the_peer_to_read_is_charged() {
        let (account, mut sender, mut receiver) = charged(3);
        let plain = crate::OutMessage::request(crate::FrontendReq::SET_OWNER, &[]);
        let mut before = 0;
        while !sender.wants_write() {
            sender.send(&plain).expect("room");
            before += 1;
        }
        (0..2).for_each(|_| send_one(&mut sender).expect("room behind it"));
        assert_eq!(account.used(), 3);
        let refusal = send_one(&mut sender).expect_err("no room");
        assert!(matches!(refusal, crate::Error::Limit(_)), "{refusal}");
        for n in 0..before + 2 {
            let _ = sender.flush().expect("a peer that reads");
            let message = receiver.read().expect("good").expect("whole");
            assert_eq!(message.fds.len(), usize::from(n >= before), "message {n}");
        }
        // All is taken; the duplicates are closed by another thread.
        linecard_testing::wait_until("the duplicates are closed", || {
            !sender.lacks_room() && account.used() == 1
        });
        (0..2).for_each(|_| send_one(&mut sender).expect("room"));
    }
}
