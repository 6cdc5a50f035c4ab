//! Frontends that ask for descriptors and do not take the answers.

use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use linecard_lab::{wait_for, wait_until};
use linecard_virtio::Features;
use linecard_wire::FrontendReq as Req;
use linecard_wire::payload::{Inflight, Payload};

use crate::bystander::{Neighbours, let_it_look, thread_called};
use crate::common::{Frontend, open_fds};
use crate::waiting::message;

/// More than a port may hold: 128, 6 for its queue pair, and its own 4.
const CEILING: usize = 138;

/// A request that is answered with a descriptor.
fn ask() -> Vec<u8> {
    let region = Inflight { mmap_size: 0, mmap_offset: 0, queues: 2, queue_size: 256 };
    message(Req::GET_INFLIGHT_FD, &region.to_bytes())
}

/// The descriptors that were sent to `socket` and wait there; `None` if the kernel does not say (before Linux 5.10).
fn in_transit(socket: &impl AsRawFd) -> Option<usize> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", socket.as_raw_fd())).expect("open");
    let count = info.lines().find_map(|line| line.strip_prefix("scm_fds:"))?;
    count.trim().parse().ok()
}

/// Whether the port has read everything that was sent over `socket`.
fn is_read(socket: &impl AsRawFd) -> bool {
    let mut left: libc::c_int = 0;
    // SAFETY: writes one `int` to `left`.
    assert_eq!(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut left) }, 0);
    left == 0
}

/// Sends `request` so many times, as far as the port reads.
fn flood(socket: &UnixStream, request: &[u8], times: usize) {
    let (mut to, all) = (socket, request.repeat(times));
    let mut rest = &all[..];
    while !rest.is_empty() {
        match to.write(rest) {
            Ok(sent) => rest = &rest[sent..],
            Err(error) if error.kind() == ErrorKind::WouldBlock && is_writable(socket) => {}
            // The port reads no more, or the connection has ended.
            Err(_) => return,
        }
    }
}

/// Whether the port makes room within a while.
fn is_writable(socket: &UnixStream) -> bool {
    let mut entry = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: reads and writes the one entry.
    unsafe { libc::poll(&raw mut entry, 1, 300) == 1 }
}

/// One frontend asks 900 times and takes nothing: the port holds no duplicates, the kernel no more than the port may hold, and
/// no other port notices. When it ends, the port serves on.
#[test]
fn answers_that_nobody_takes_are_the_ports_own_affair() {
    const TIMES: usize = 900;
    let mut ports = Neighbours::new("untaken");
    let mut hostile = Frontend::connect(&ports.bad);
    hostile.negotiate(Features::empty());
    let socket = hostile.connection.socket().try_clone().expect("a descriptor");
    let port = ports.bad_port.as_ref().expect("open").peer().clone();
    let (before, mut most) = (open_fds(), 0);
    ports.assert_traffic_flows(|| {
        flood(&socket, &ask(), TIMES);
        wait_until("it is ended, or all is answered", || {
            most = most.max(open_fds());
            !port.connected() || is_read(&socket)
        });
    });
    assert!(most < before + 20, "{} descriptors are open", most - before);
    if let Some(sent) = in_transit(&socket) {
        assert!(0 < sent && sent <= CEILING, "{sent} descriptors wait to be taken");
    }
    assert!(!port.connected(), "900 answers that nobody took were given");
    ports.assert_greets();
    // The port is full: whoever comes is not accepted, and waits.
    let mut waits = Frontend::connect(&ports.bad);
    waits.send(Req::GET_FEATURES, &[], &[]);
    let_it_look(thread_called("bad"));
    assert!(matches!(waits.connection.read(), Ok(None)), "it was accepted");
    drop((hostile, socket));
    let answer = waits.connection.read_until(Instant::now() + Duration::from_secs(60)).expect("an answer");
    assert_eq!(answer.request, Req::GET_FEATURES as u32);
}

/// Each connection leaves one answer that nobody takes, and its end is kept: all of them together are no more than a port may
/// hold.
#[test]
fn answers_in_ended_connections_count() {
    const CONNECTIONS: usize = 300;
    let mut ports = Neighbours::new("ended");
    let path = ports.bad.clone();
    let features = 1_u64 << 30;
    let protocol = linecard_wire::ProtocolFeatures::INFLIGHT_SHMFD.bits();
    let hello = [
        message(Req::SET_FEATURES, &features.to_bytes()),
        message(Req::SET_PROTOCOL_FEATURES, &protocol.to_bytes()),
        ask(),
    ]
    .concat();
    let mut ends = Vec::new();
    ports.assert_traffic_flows(|| {
        for _ in 0..CONNECTIONS {
            // Refused when the queue of those that nobody accepts is full.
            let Ok(mut stream) = linecard_wire::socket::connect(&path) else { break };
            stream.write_all(&hello).expect("room");
            ends.push(stream);
            let came = |end: &UnixStream| in_transit(end) != Some(0);
            let last = ends.last().expect("just pushed");
            // Not if the port is full.
            let until = Instant::now() + Duration::from_secs(2);
            while !came(last) && Instant::now() < until {
                std::thread::yield_now();
            }
            if !came(last) {
                break;
            }
            let _ = last.shutdown(std::net::Shutdown::Write);
        }
    });
    let sent: usize = ends.iter().filter_map(in_transit).sum();
    assert!(0 < sent && sent <= CEILING, "{sent} descriptors wait to be taken");
    ports.assert_greets();
    drop(ends);
    let mut next = Frontend::connect(&path);
    next.negotiate(Features::empty());
}

/// A frontend may ask as much as it likes before it reads: the port waits for it, and no answer is lost.
#[test]
fn a_frontend_that_reads_late_gets_all_answers() {
    const TIMES: usize = 10_000;
    let ports = Neighbours::new("late");
    let mut late = Frontend::connect(&ports.bad);
    late.negotiate(Features::empty());
    let socket = late.connection.socket().try_clone().expect("a descriptor");
    let request = message(Req::GET_QUEUE_NUM, &[]);
    let mut sent = 0;
    while sent < TIMES {
        let mut to = &socket;
        match to.write(&request) {
            Ok(whole) => {
                assert_eq!(whole, request.len());
                sent += 1;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && is_writable(&socket) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{sent} requests were read: {error}"),
        }
    }
    assert!(sent < TIMES, "the port reads on while nobody takes its answers");
    for n in 0..sent {
        let answer = wait_for("an answer", || late.connection.read().expect("a port that stays"));
        assert_eq!(answer.request, Req::GET_QUEUE_NUM as u32, "answer {n}");
    }
    assert_eq!(late.number(Req::GET_QUEUE_NUM), 1);
    // Some with descriptors.
    (0..20).for_each(|_| {
        let mut to = &socket;
        to.write_all(&ask()).expect("room");
    });
    for n in 0..20 {
        let answer = wait_for("an answer", || late.connection.read().expect("a port that stays"));
        assert_eq!((answer.request, answer.fds.len()), (Req::GET_INFLIGHT_FD as u32, 1), "answer {n}");
        assert!(answer.fds.iter().all(|fd| fd.as_fd().as_raw_fd() >= 0));
    }
}
