//! Ports over a socket that somebody else made and passed: one that listens, or one that is connected already.

mod support;

use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use linecard_lab::wait_until;
use linecard_mempool::Burst;
use linecard_pmd::{Port, PortConfig};
use support::{Backend, Bench, Place};

/// A frame goes to the backend and comes back.
fn exchange(bench: &Bench, port: &mut Port, backend: &Backend) {
    let mut echo = backend.echo(0);
    bench.send(port, 1);
    wait_until("it gets there", || echo.turn() == 1);
    let mut back = Burst::new();
    wait_until("it is back", || port.rx[0].rx_burst(&mut back) == 1);
    assert_eq!(back[0].data(), [1; 60]);
}

#[test]
fn a_listening_socket_takes_backends_one_after_the_other() {
    let (bench, place) = (Bench::new(1024), Place::new());
    let made_elsewhere = UnixListener::bind(&place.0).expect("a socket");
    let mut port = bench.open(&format!("fd={}", made_elsewhere.as_raw_fd()));
    for _ in 0..3 {
        let mut backend = Backend::connect(&place.0);
        backend.until_running(2).expect("a frontend that stays");
        wait_until("link up", || port.control.link().up);
        exchange(&bench, &mut port, &backend);
        drop(backend);
        wait_until("link down", || !port.control.link().up);
    }
    drop(port.stop());
    assert!(place.0.exists(), "the name is whose socket it is");
    bench.assert_whole();
}

/// It serves one start: the backend sees its end when the port stops, and another start says that it is over.
#[test]
fn a_connection_serves_one_start() {
    let bench = Bench::new(1024);
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let peer = std::thread::spawn(move || {
        let mut backend = Backend::new(theirs);
        backend.until_running(2).expect("a frontend that stays");
        backend
    });
    let device = bench.probe(&format!("fd={}", ours.into_raw_fd())).expect("a device");
    let mut port = bench.start(device, PortConfig::default()).expect("a port");
    let mut backend = peer.join().expect("no panic");
    exchange(&bench, &mut port, &backend);
    let stopping = std::thread::spawn(move || {
        backend.until_gone();
        backend
    });
    let device = port.stop();
    stopping.join().expect("it sees the end of the connection");
    let refused = bench.start(device, PortConfig::default()).expect_err("it is over").error.to_string();
    assert!(refused.contains("the connection that was passed (fd=) is over; "), "{refused}");
    bench.assert_whole();
}

/// A backend that leaves takes the link down for good; the port stops as any other does.
#[test]
fn a_connection_that_ends_is_not_looked_for() {
    let bench = Bench::new(1024);
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let peer = std::thread::spawn(move || {
        Backend::new(theirs).until_running(2).expect("a frontend that stays");
    });
    let device = bench.probe(&format!("fd={}", ours.into_raw_fd())).expect("a device");
    let port = bench.start(device, PortConfig::default()).expect("a port");
    peer.join().expect("no panic");
    wait_until("link down", || !port.control.link().up);
    wait_until("it is said why", || port.control.paths().contains("(fd=) is over"));
    drop(port.stop());
    bench.assert_whole();
}

#[test]
fn what_is_no_such_socket_is_refused_in_a_sentence() {
    let (bench, place) = (Bench::new(512), Place::new());
    let listener = UnixListener::bind(&place.0).expect("a socket");
    let (reader, _writer) = std::io::pipe().expect("a pipe");
    let datagram = UnixDatagram::unbound().expect("a socket");
    let alone = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None);
    let alone = alone.expect("a socket");
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
    for (args, want) in [
        (format!("fd={}", i32::MAX), "not open"),
        (format!("fd={}", reader.as_raw_fd()), "not a socket"),
        (format!("fd={}", datagram.as_raw_fd()), "not a Unix stream socket"),
        (format!("fd={}", tcp.as_raw_fd()), "not a Unix stream socket"),
        (format!("fd={}", alone.as_raw_fd()), "a socket that neither listens nor is connected"),
        (format!("fd={},path=/s", listener.as_raw_fd()), "'path' is of another way"),
        (format!("fd={},server=1", listener.as_raw_fd()), "'server' is of another way"),
        (format!("fd={},tap_fd=4", listener.as_raw_fd()), "'tap_fd' is of another way"),
        ("fd=-1".to_owned(), "'fd=-1'"),
        ("fd=x".to_owned(), "'fd=x'"),
    ] {
        let said = bench.probe(&args).err().expect("it cannot be used").to_string();
        assert!(said.starts_with("net_virtio_user0: ") && said.contains(want), "{args}: {said}");
        assert!(said.contains("; ") && !said.contains('\n'), "a sentence with a remedy: {said}");
    }
}
