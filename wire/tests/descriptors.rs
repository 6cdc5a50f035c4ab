//! No descriptor leaks, whatever a message looks like. Own process: these tests count the table.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use linecard_wire::{Connection, Error, FrontendReq, Header, MAX_FDS, OutMessage, VERSION};

/// Tests of this file must not overlap: they count descriptors or lower their limit.
fn exclusive() -> MutexGuard<'static, ()> {
    static FD_TABLE: Mutex<()> = Mutex::new(());
    FD_TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("proc").count()
}

/// A thread of its own closes what came, soon.
fn assert_closed(before: usize) {
    let until = Instant::now() + Duration::from_secs(5);
    while open_fds() != before && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(open_fds(), before);
}

fn some_fd() -> OwnedFd {
    std::io::pipe().expect("pipe").0.into()
}

/// A raw stream, a connection that sends on the same stream, and the connection that reads it.
fn ends() -> (UnixStream, Connection, Connection) {
    let (a, b) = UnixStream::pair().expect("socketpair");
    let sender = Connection::new(a.try_clone().expect("clone")).expect("sender");
    (a, sender, Connection::new(b).expect("receiver"))
}

#[test]
fn surplus_descriptors_are_closed_and_counted() {
    let _guard = exclusive();
    let before = open_fds();
    {
        let (mut raw, mut sender, mut receiver) = ends();
        // One message whose payload is two empty messages, each with all the descriptors it can carry.
        raw.write_all(&Header { request: 5, flags: VERSION, size: 24 }.encode()).expect("write");
        let fd = some_fd();
        let fds = [fd.as_fd(); MAX_FDS];
        for _ in 0..2 {
            sender.send(&OutMessage::request(FrontendReq::SET_OWNER, &[]).with_fds(&fds)).expect("send");
        }
        let message = receiver.read().expect("read").expect("whole");
        assert_eq!((message.fds.len(), message.surplus_fds), (MAX_FDS, MAX_FDS));
        for fd in &message.fds {
            // SAFETY: F_GETFD reads a flag of a descriptor we own.
            let flags = unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_GETFD) };
            assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
        }
    }
    assert_closed(before);
}

#[test]
fn descriptors_close_when_a_message_is_refused_or_cut_off() {
    let _guard = exclusive();
    let before = open_fds();
    {
        let (mut raw, mut sender, mut receiver) = ends();
        let fd = some_fd();
        let fds = [fd.as_fd(); 5];
        // Two bytes first: the descriptors arrive inside the header, whose version is then wrong.
        raw.write_all(&[0, 0]).expect("write");
        sender.send(&OutMessage::request(FrontendReq::SET_MEM_TABLE, &[0; 8]).with_fds(&fds)).expect("send");
        assert!(matches!(receiver.read(), Err(Error::Version { .. })));
    }
    let (mut raw, mut sender, mut receiver) = ends();
    raw.write_all(&Header { request: 5, flags: VERSION, size: 100 }.encode()).expect("write");
    let fd = some_fd();
    sender.send(&OutMessage::request(FrontendReq::SET_OWNER, &[]).with_fds(&[fd.as_fd()])).expect("send");
    assert!(receiver.read().expect("partial").is_none());
    drop((raw, sender));
    assert!(matches!(receiver.read(), Err(Error::Truncated { got: 24, want: 112 })));
    drop((receiver, fd));
    assert_closed(before);
}

#[test]
fn a_full_descriptor_table_is_an_error_not_a_silent_loss() {
    let _guard = exclusive();
    let (_raw, mut sender, mut receiver) = ends();
    let fd = some_fd();
    sender.send(&OutMessage::request(FrontendReq::SET_OWNER, &[]).with_fds(&[fd.as_fd()])).expect("send");
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit fills the structure it is given.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut old) }, 0);
    let low = libc::rlimit { rlim_cur: 0, ..old };
    // SAFETY: setrlimit only reads its argument.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const low) }, 0);
    let result = receiver.read();
    // SAFETY: setrlimit only reads its argument.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const old) }, 0);
    assert!(matches!(result, Err(Error::FdsLost)), "{result:?}");
}
