//! Peers that make whoever closes or frees something of theirs wait.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use linecard_lab::{wait_for, wait_until};
use linecard_virtio::Features;
use linecard_wire::payload::{MemTable, MemoryRegion, Payload};
use linecard_wire::{FrontendReq as Req, Header, VERSION};

use crate::bystander::{Neighbours, has_memory};
use crate::common::{Frontend, GUEST, USER, memfd, open_fds};

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

/// The first byte of a message, with as many duplicates of `fd` as the kernel takes at once (`SCM_MAX_FD`). Returns whether it was
/// sent.
pub(crate) fn send_laden(socket: &UnixStream, message: &[u8], fd: BorrowedFd<'_>) -> bool {
    const MOST: usize = 253;
    const LEN: usize = 16 + MOST * 4;
    #[repr(C, align(8))]
    struct Control([u8; LEN.next_multiple_of(8)]);
    let mut control = Control([0; LEN.next_multiple_of(8)]);
    control.0[..8].copy_from_slice(&LEN.to_ne_bytes());
    control.0[8..12].copy_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
    control.0[12..16].copy_from_slice(&libc::SCM_RIGHTS.to_ne_bytes());
    control.0[16..LEN].copy_from_slice(&fd.as_raw_fd().to_ne_bytes().repeat(MOST));
    let mut vector = libc::iovec { iov_base: message.as_ptr().cast_mut().cast(), iov_len: message.len() };
    // SAFETY: all zeros is an empty header.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    (header.msg_iov, header.msg_iovlen) = (&raw mut vector, 1);
    (header.msg_control, header.msg_controllen) = (control.0.as_mut_ptr().cast(), LEN);
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: header, vector, bytes and control message live across the call, which reads them only.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, flags) };
    usize::try_from(sent).is_ok_and(|sent| sent == message.len())
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
    const HARMLESS: usize = 60;
    let mut ports = Neighbours::new("unread");
    let path = ports.bad.clone();
    let owner = message(Req::SET_OWNER, &[]);
    let refused = message(Req::SET_VRING_NUM, &[1, 2, 3]);
    let mut silent_ends = Vec::new();
    ports.assert_unnoticed(|| {
        // Until all of it was sent at once.
        let (socket, silent) = lingering();
        silent_ends.push(silent);
        wait_until("it lay behind a refused message", || {
            let hostile = UnixStream::connect(&path).expect("it listens");
            // To read what is harmless takes longer than to send it: the rest is there when the refused one is read.
            let mut messages = vec![owner.as_slice(); HARMLESS];
            messages.extend([refused.as_slice(), &owner, &owner]);
            let sent = send_at_once(&hostile, &messages, HARMLESS + 1, socket.as_fd());
            sent == messages.len() && Frontend::over(hostile).is_dropped()
        });
    });
    silent_ends.clear();
    wait_until("one is served again", || serves(&path));
    let mut first = Frontend::connect(&path);
    first.negotiate(Features::empty());
    ports.assert_unnoticed(|| {
        let (socket, silent) = lingering();
        silent_ends.push(silent);
        let many: Vec<_> = (0..12).filter_map(|_| UnixStream::connect(&path).ok()).collect();
        // The last are accepted last, and have time to say something before.
        many.iter().rev().for_each(|hostile| {
            send_at_once(hostile, &[&owner], 0, socket.as_fd());
        });
    });
}

/// Whether a frontend is served at `path`.
fn serves(path: &Path) -> bool {
    let Ok(stream) = linecard_wire::socket::connect(path) else { return false };
    let mut frontend = Frontend::over(stream);
    let asked = linecard_wire::OutMessage::request(Req::GET_FEATURES, &[]);
    frontend.connection.send(&asked).is_ok()
        && frontend.connection.read_until(Instant::now() + Duration::from_secs(1)).is_ok()
}

/// A message that never ends, until its time is over, and one who never reads its answers.
#[test]
fn stalled_peers_delay_nobody() {
    let mut ports = Neighbours::new("stalled");
    let path = ports.bad.clone();
    let ask = message(Req::GET_FEATURES, &[]);
    ports.assert_unnoticed(|| {
        let mut half = wait_for("a connection", || linecard_wire::socket::connect(&path).ok());
        half.write_all(&ask[..2]).expect("room");
        assert!(Frontend::over(half).is_dropped());
        let mut deaf = wait_for("a connection", || linecard_wire::socket::connect(&path).ok());
        wait_until("it is dropped", || deaf.write_all(&ask).is_err());
    });
    wait_until("the next one is served", || serves(&path));
}

/// A thousand connections at one socket, half of them open at once.
#[test]
fn a_storm_of_connections_delays_nobody() {
    let mut ports = Neighbours::new("storm");
    let path = ports.bad.clone();
    ports.assert_unnoticed(|| {
        let mut open = Vec::new();
        for n in 0..1000 {
            let mut stream = UnixStream::connect(&path).expect("connect");
            // Whoever is turned away at once cannot say anything.
            let _ = stream.write_all(&[1, 0, 0][..n % 3 + 1]);
            if n % 2 == 0 {
                open.push(stream);
            }
        }
    });
    // The port itself is there again, as soon as the last of them is gone.
    wait_until("the next one is served", || serves(&path));
}

/// Descriptors behind one that takes five seconds to close stay open as long: a port takes in so many, and no more.
#[test]
fn what_does_not_close_is_the_ports_own_affair() {
    const SENT: usize = 8;
    /// More than as many messages as the port has room for.
    const MESSAGES: usize = 400;
    let mut ports = Neighbours::new("unclosed");
    let path = ports.bad.clone();
    let (socket, silent) = lingering();
    let null = std::fs::File::open("/dev/null").expect("there");
    let before = open_fds();
    let mut first = Frontend::connect(&path);
    first.send(Req::SET_OWNER, &[], &[socket.as_fd()]);
    drop(socket);
    assert!(first.is_dropped());
    let mut most = 0;
    ports.assert_traffic_flows(|| {
        for _ in 0..MESSAGES {
            // Refused when the queue of those that nobody accepts is full.
            if let Ok(stream) = linecard_wire::socket::connect(&path) {
                let message = linecard_wire::OutMessage::request(Req::SET_OWNER, &[]);
                let _ = Frontend::over(stream).connection.send(&message.with_fds(&[null.as_fd(); SENT]));
            }
            most = most.max(open_fds() - before);
        }
    });
    assert!(most < 200, "{most} descriptors are open");
    ports.assert_greets();
    drop(silent);
    wait_until("the port takes frontends again", || serves(&path));
}

/// A frontend's process ends and leaves a GiB to be freed by whoever held it last, which is the backend.
#[test]
fn memory_of_the_dead_is_freed_behind_everybodys_back() {
    const SIZE: usize = 1 << 30;
    if !has_memory("memory_of_the_dead_is_freed_behind_everybodys_back", SIZE) {
        return;
    }
    let mut ports = Neighbours::new("large");
    let path = ports.bad.clone();
    ports.assert_unnoticed(|| {
        let mut frontend = Frontend::connect(&path);
        frontend.negotiate(Features::empty());
        let file = memfd(SIZE as u64);
        // As a guest that has used its memory.
        file_pages(&file, SIZE);
        let region = MemoryRegion { guest_addr: GUEST, size: SIZE as u64, user_addr: USER, offset: 0 };
        frontend.good(Req::SET_MEM_TABLE, &MemTable(vec![region]).to_bytes(), &[file.as_fd()]);
        drop((file, frontend));
        // It is gone when the next one is served.
        wait_until("the next one is served", || serves(&path));
    });
}

fn file_pages(file: &std::fs::File, len: usize) {
    let len = libc::off_t::try_from(len).expect("small");
    // SAFETY: takes integers.
    assert_eq!(unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len) }, 0, "no memory for the test");
}
