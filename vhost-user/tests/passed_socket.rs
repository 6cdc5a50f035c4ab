//! Backends on a socket that somebody else made and passed.

mod common;

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;

use common::{Bench, Guest, frame, receive, socket_path};
use linecard_eal::{Memory, MemoryConfig};
use linecard_lab::wait_until;
use linecard_mempool::{Pool, PoolConfig};
use linecard_pmd::{DevArgs, Driver, PortConfig, ProbeContext};
use linecard_vhost_user::{BackendConfig, Listener, VhostDriver};
use linecard_virtio::Features;

fn context() -> ProbeContext {
    let memory = Memory::new(MemoryConfig::default().range(1 << 30)).expect("memory");
    let domain = memory.domain("test").expect("domain");
    ProbeContext::new(memory, domain, std::time::Duration::from_secs(1))
}

#[test]
fn a_backend_serves_a_passed_socket_and_leaves_its_name() {
    let path = socket_path("passed");
    let listener = Listener::from_fd(UnixListener::bind(&path).expect("bind").into()).expect("it listens");
    let mut bench = Bench::of(BackendConfig::listening("pod0", listener), common::pool(1024, 0));
    assert_eq!(bench.path, path, "the name of the socket");
    for features in [Features::empty(), Features::RING_PACKED] {
        let mut guest = Guest::start(&path, features);
        bench.wait_link(true);
        guest.send(&frame(1, 100));
        guest.tx.publish();
        assert_eq!(receive(&mut bench.rx, 1)[0].data(), frame(1, 100));
        drop(guest);
        bench.wait_gone();
    }
    drop(bench);
    assert!(path.exists());
    std::fs::remove_file(&path).expect("it is there");
}

/// One listener, kept by the caller, outlives the ports that serve it; a frontend that came between two ports is served by
/// the second.
#[test]
fn a_port_made_anew_finds_who_came_meanwhile() {
    static VHOST: VhostDriver = VhostDriver::new();
    let path = socket_path("inherited");
    let made_elsewhere = UnixListener::bind(&path).expect("bind");
    let args = DevArgs::parse(&format!("net_vhost0,fd={}", made_elsewhere.as_raw_fd())).expect("args");
    let context = context();
    let pool = Pool::new(&context.domain, PoolConfig::default().packets(1024)).expect("pool");
    for _ in 0..3 {
        let early = common::Frontend::connect(&path);
        let device = VHOST.probe(&context, &args).expect("a port");
        let mut port = device.start(&PortConfig::default(), &pool).map_err(|e| e.error).expect("starts");
        let mut guest = Guest::over(early, Features::empty());
        wait_until("link", || port.control.link().up);
        guest.send(&frame(2, 100));
        guest.tx.publish();
        let mut packets = linecard_mempool::Burst::new();
        wait_until("a packet", || port.rx[0].rx_burst(&mut packets) == 1);
        assert_eq!(packets[0].data(), frame(2, 100));
        drop((packets, port));
        wait_until("the end of the connection", || guest.frontend.is_dropped());
    }
    assert!(path.exists());
    std::fs::remove_file(&path).expect("it is there");
}

#[test]
fn arguments_that_do_not_go_with_a_passed_socket_are_named() {
    let (reader, _writer) = std::io::pipe().expect("a pipe");
    let path = socket_path("argument");
    let listens = UnixListener::bind(&path).expect("bind");
    let (closed, context) = (i32::MAX, context());
    for (args, want) in [
        (format!("fd={}", reader.as_raw_fd()), "not a socket"),
        (format!("fd={closed}"), "not open"),
        (format!("fd={},iface={}", listens.as_raw_fd(), path.display()), "'iface' is of one to make"),
        (format!("fd={},client=1", listens.as_raw_fd()), "'client' is of one to make"),
        (format!("fd={},mode=0660", listens.as_raw_fd()), "'mode' is of one to make"),
        ("fd=-1".into(), "'fd=-1'"),
        ("fd=".into(), "'fd='"),
    ] {
        let parsed = DevArgs::parse(&format!("net_vhost0,{args}")).expect("args");
        let error = VhostDriver::new().probe(&context, &parsed).map(|_| ()).unwrap_err();
        let said = error.to_string();
        assert!(said.starts_with("net_vhost0: ") && said.contains(want), "{args}: {said}");
        assert!(said.contains("; "), "a remedy: {said}");
    }
    std::fs::remove_file(&path).expect("it is there");
}
