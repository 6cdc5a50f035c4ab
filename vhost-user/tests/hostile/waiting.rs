//! Peers that make whoever closes or frees something of theirs wait.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use linecard_vhost_user::{Backend, BackendConfig, Control, Mode};
use linecard_virtio::Features;
use linecard_wire::payload::{MemTable, MemoryRegion, Payload};
use linecard_wire::{FrontendReq as Req, Header, VERSION};

use crate::common::{Frontend, GUEST, USER, memfd, open_fds, socket_path};

/// Longest that another port's control messages may take meanwhile.
const SOON: Duration = Duration::from_millis(300);

/// Two ports of one control thread: one is attacked, the other is asked how it is.
struct Pair {
    bad: Side,
    good: Side,
    _control: Control,
    _alone: std::sync::MutexGuard<'static, ()>,
}

struct Side {
    path: PathBuf,
    backend: Backend,
}

impl Pair {
    fn new(label: &str) -> Self {
        let alone = crate::bystander::alone();
        let control = Control::new();
        let side = |name: &str| {
            let path = socket_path(label);
            let config = BackendConfig::new(name, &path, Mode::Listen);
            Side { path, backend: Backend::new(&control, config).expect("a backend") }
        };
        let (bad, good) = (side("bad"), side("good"));
        Self { bad, good, _control: control, _alone: alone }
    }

    /// How long the good port takes to greet a frontend.
    fn greeting(&self) -> Duration {
        let began = Instant::now();
        let mut frontend = Frontend::connect(&self.good.path);
        frontend.negotiate(Features::NONE);
        began.elapsed()
    }
}

/// A socket whose `close` waits for somebody to read, and the one who does not.
pub(crate) fn lingering() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut socket = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (silent, _) = listener.accept().expect("a connection");
    socket.set_nonblocking(true).expect("possible");
    while socket.write(&[7; 65_536]).is_ok() {}
    let linger = libc::linger { l_onoff: 1, l_linger: 5 };
    let len = size_of::<libc::linger>() as libc::socklen_t;
    // SAFETY: reads `len` bytes of `linger`.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            len,
        )
    };
    assert_eq!(set, 0);
    (socket, silent)
}

pub(crate) fn message(request: Req, payload: &[u8]) -> Vec<u8> {
    let header = Header { request: request as u32, flags: VERSION, size: payload.len() as u32 };
    [&header.encode(), payload].concat()
}

/// Messages in one system call, those from number `bare` on with `fd`; how many were taken.
pub(crate) fn send_at_once(
    socket: &UnixStream,
    messages: &[&[u8]],
    bare: usize,
    fd: BorrowedFd<'_>,
) -> usize {
    #[repr(C, align(8))]
    struct Control([u8; 24]);
    let mut control = Control([0; 24]);
    control.0[..8].copy_from_slice(&20_u64.to_ne_bytes());
    control.0[8..12].copy_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
    control.0[12..16].copy_from_slice(&libc::SCM_RIGHTS.to_ne_bytes());
    control.0[16..20].copy_from_slice(&fd.as_raw_fd().to_ne_bytes());
    let vectors: Vec<libc::iovec> = messages
        .iter()
        .map(|bytes| libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() })
        .collect();
    // SAFETY: all zeros is an empty header.
    let empty: libc::mmsghdr = unsafe { std::mem::zeroed() };
    let mut headers = vec![empty; messages.len()];
    for (header, vector) in headers.iter_mut().zip(&vectors) {
        header.msg_hdr.msg_iov = (&raw const *vector).cast_mut();
        header.msg_hdr.msg_iovlen = 1;
    }
    for header in headers.iter_mut().skip(bare) {
        header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
        header.msg_hdr.msg_controllen = 20;
    }
    let flags = libc::MSG_NOSIGNAL;
    // SAFETY: all headers, vectors, bytes and the control message live across the call.
    let sent =
        unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), messages.len() as u32, flags) };
    usize::try_from(sent).unwrap_or(0)
}

/// One byte out of band, with `fd`.
pub(crate) fn send_urgent(socket: &UnixStream, fd: BorrowedFd<'_>) {
    #[repr(C, align(8))]
    struct Control([u8; 24]);
    let mut control = Control([0; 24]);
    control.0[..8].copy_from_slice(&20_u64.to_ne_bytes());
    control.0[8..12].copy_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
    control.0[12..16].copy_from_slice(&libc::SCM_RIGHTS.to_ne_bytes());
    control.0[16..20].copy_from_slice(&fd.as_raw_fd().to_ne_bytes());
    let mut byte = 0xff_u8;
    let mut vector = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: all zeros is an empty header.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = 20;
    let flags = libc::MSG_NOSIGNAL | libc::MSG_OOB;
    // SAFETY: header, vector, byte and control message live across the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, flags) };
    assert_eq!(sent, 1, "{}", std::io::Error::last_os_error());
}

/// Sockets that take five seconds to close lie in a connection, unread, when it ends: behind a message that is refused,
/// and with frontends that are turned away.
#[test]
fn descriptors_that_nobody_read_make_nobody_wait() {
    const TURNS: usize = 5;
    const HARMLESS: usize = 60;
    let pair = Pair::new("unread");
    let owner = message(Req::SET_OWNER, &[]);
    let refused = message(Req::SET_VRING_NUM, &[1, 2, 3]);
    let mut behind = 0;
    let until = Instant::now() + Duration::from_secs(20);
    while behind < TURNS {
        assert!(Instant::now() < until, "{behind} lay behind a refused one");
        let (socket, silent) = lingering();
        let hostile = UnixStream::connect(&pair.bad.path).expect("it listens");
        // To read what is harmless takes longer than to send it: the rest is there when the refused one is read.
        let mut messages = vec![owner.as_slice(); HARMLESS];
        messages.extend([refused.as_slice(), &owner, &owner]);
        let sent = send_at_once(&hostile, &messages, HARMLESS + 1, socket.as_fd());
        behind += usize::from(sent == messages.len());
        drop(socket);
        let took = pair.greeting();
        assert!(took < SOON, "another port's frontend waited {took:?} for what lay behind a refused message");
        drop((hostile, silent));
        while pair.bad.backend.peer().connected() {
            assert!(Instant::now() < until, "the peer was not dropped");
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    let mut first = Frontend::connect(&pair.bad.path);
    first.negotiate(Features::NONE);
    for _ in 0..TURNS {
        let (socket, silent) = lingering();
        let many: Vec<_> = (0..12).filter_map(|_| UnixStream::connect(&pair.bad.path).ok()).collect();
        // The last are accepted last, and have time to say something before.
        many.iter().rev().for_each(|hostile| {
            send_at_once(hostile, &[&owner], 0, socket.as_fd());
        });
        drop(socket);
        let took = pair.greeting();
        assert!(took < SOON, "another port's frontend waited {took:?} for what was turned away");
        drop((many, silent));
    }
}

/// Descriptors behind one that takes five seconds to close stay open as long: a port takes in so many, and no more.
#[test]
fn what_does_not_close_is_the_ports_own_affair() {
    const SENT: usize = 8;
    let pair = Pair::new("unclosed");
    let (socket, silent) = lingering();
    let null = std::fs::File::open("/dev/null").expect("there");
    let before = open_fds();
    let mut first = Frontend::connect(&pair.bad.path);
    first.send(Req::SET_OWNER, &[], &[socket.as_fd()]);
    drop(socket);
    assert!(first.is_dropped());
    let (mut most, mut refused) = (0, 0);
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        if let Ok(stream) = linecard_wire::socket::connect(&pair.bad.path) {
            let mut hostile = Frontend::over(stream);
            hostile.send(Req::SET_OWNER, &[], &[null.as_fd(); SENT]);
        } else {
            refused += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
        most = most.max(open_fds() - before);
    }
    assert!(refused > 0 && most < 200, "{most} descriptors are open, {refused} frontends were refused");
    let took = pair.greeting();
    assert!(took < SOON, "another port's frontend waited {took:?}");
    drop(silent);
    let until = Instant::now() + Duration::from_secs(10);
    let again = loop {
        assert!(Instant::now() < until, "the port takes frontends again");
        match linecard_wire::socket::connect(&pair.bad.path) {
            Ok(stream) => break stream,
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    Frontend::over(again).negotiate(Features::NONE);
}

/// A frontend's process ends and leaves a GiB to be freed by whoever held it last, which is the backend.
#[test]
fn memory_of_the_dead_is_freed_behind_everybodys_back() {
    const SIZE: usize = 1 << 30;
    let pair = Pair::new("large");
    let greeting = || {
        let mut frontend = Frontend::connect(&pair.bad.path);
        frontend.negotiate(Features::NONE);
        let file = memfd(SIZE as u64);
        // As a guest that has used its memory.
        file_pages(&file, SIZE);
        let region = MemoryRegion { guest_addr: GUEST, size: SIZE as u64, user_addr: USER, offset: 0 };
        frontend.good(Req::SET_MEM_TABLE, &MemTable(vec![region]).to_bytes(), &[file.as_fd()]);
        drop((file, frontend));
        pair.greeting()
    };
    // The best of some: the machine may be busy, but to free a GiB takes longer than this each time.
    let best = (0..3).map(|_| greeting()).min().expect("three");
    assert!(best < Duration::from_millis(100), "another port's frontend waited {best:?}");
}

fn file_pages(file: &std::fs::File, len: usize) {
    let len = libc::off_t::try_from(len).expect("small");
    // SAFETY: takes integers.
    assert_eq!(unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len) }, 0, "no memory for the test");
}
