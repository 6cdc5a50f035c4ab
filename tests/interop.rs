//! Each of our ends against a testpmd at the other end, DPDK's and ours: every byte of every packet is checked, peers
//! reconnect and are killed, and the pool is whole afterwards.

mod support;

use std::path::Path;

use linecard::pmd::offload::Offloads;
use support::Scratch;
use support::console::{Kind, Testpmd, present};
use support::ours::{
    Ours, SIZES, assert_perfect, backend_vdev, free_hugepages, frontend_vdev, wait_for_socket,
};
use support::peer::{forward, forwarder, idle};

/// Ring variants of the frontend, as device arguments.
const VARIANTS: &[&str] = &[
    "mrg_rxbuf=1,in_order=0",
    "mrg_rxbuf=0,in_order=0",
    "mrg_rxbuf=1,in_order=1",
    "mrg_rxbuf=0,in_order=1",
    "packed_vq=1,mrg_rxbuf=1,in_order=0",
    "packed_vq=1,mrg_rxbuf=0,in_order=0",
    "packed_vq=1,mrg_rxbuf=1,in_order=1",
    "packed_vq=1,mrg_rxbuf=0,in_order=1",
];

/// Our virtio-user in every variant against the peer's vhost.
fn frontend_in_every_variant(kind: Kind, test: &str) {
    if !present(kind, test) {
        return;
    }
    let scratch = Scratch::new(test);
    for (n, options) in VARIANTS.iter().enumerate() {
        let socket = scratch.join(&format!("s{n}"));
        let peer = forwarder(kind, &backend_vdev(&socket), &format!("f{n}"));
        wait_for_socket(&socket);
        let mut ours = Ours::start(&frontend_vdev(&socket, options));
        ours.wait_for_link(true);
        assert_perfect(&ours.prove(20_000, SIZES), options);
        ours.stop();
        assert!(peer.quit().success());
    }
}

/// Our vhost against the peer's virtio-user in every variant.
fn backend_in_every_variant(kind: Kind, test: &str) {
    if !present(kind, test) {
        return;
    }
    let scratch = Scratch::new(test);
    for (n, options) in VARIANTS.iter().enumerate() {
        let socket = scratch.join(&format!("s{n}"));
        let mut ours = Ours::start(&backend_vdev(&socket));
        let peer = forwarder(kind, &frontend_vdev(&socket, options), &format!("b{n}"));
        ours.wait_for_link(true);
        assert_perfect(&ours.prove(20_000, SIZES), options);
        assert!(peer.quit().success());
        ours.wait_for_link(false);
        ours.stop();
        assert!(!socket.exists(), "the socket was left behind");
    }
}

/// Ten peers one after another at the same port, every other one killed.
fn ten_backends_come_and_go(kind: Kind, test: &str) {
    if !present(kind, test) {
        return;
    }
    let scratch = Scratch::new(test);
    let socket = scratch.join("s");
    let mut peer = forwarder(kind, &backend_vdev(&socket), "r0");
    wait_for_socket(&socket);
    let mut ours = Ours::start(&frontend_vdev(&socket, "mrg_rxbuf=1,in_order=1"));
    for round in 1..=10 {
        ours.wait_for_link(true);
        assert_perfect(&ours.prove(2_000, SIZES), &format!("round {round}"));
        if round % 2 == 0 {
            peer.kill();
            let _ = std::fs::remove_file(&socket);
        } else {
            assert!(peer.quit().success());
        }
        ours.wait_for_link(false);
        ours.wait_until_home(&format!("round {round}"));
        peer = forwarder(kind, &backend_vdev(&socket), &format!("r{round}"));
    }
    ours.wait_for_link(true);
    assert_perfect(&ours.prove(2_000, SIZES), "the last round");
    ours.stop();
}

fn ten_frontends_come_and_go(kind: Kind, test: &str) {
    if !present(kind, test) {
        return;
    }
    let scratch = Scratch::new(test);
    let socket = scratch.join("s");
    let mut ours = Ours::start(&backend_vdev(&socket));
    for round in 1..=10 {
        let mut peer =
            forwarder(kind, &frontend_vdev(&socket, "mrg_rxbuf=1,in_order=1"), &format!("t{round}"));
        ours.wait_for_link(true);
        assert_perfect(&ours.prove(2_000, SIZES), &format!("round {round}"));
        if round % 2 == 0 {
            peer.kill();
        } else {
            assert!(peer.quit().success());
        }
        ours.wait_for_link(false);
        ours.wait_until_home(&format!("round {round}"));
    }
    ours.stop();
}

/// Two queue pairs: what goes out on one comes back on that one. `ours` and `theirs` are device arguments for a socket.
fn two_queues(kind: Kind, test: &str, ours: fn(&Path, &str) -> String, theirs: fn(&Path, &str) -> String) {
    if !present(kind, test) {
        return;
    }
    let scratch = Scratch::new(test);
    for (n, options) in ["mrg_rxbuf=1,in_order=0", "packed_vq=1,mrg_rxbuf=1,in_order=0"].iter().enumerate() {
        let socket = scratch.join(&format!("s{n}"));
        let two = |vdev: String| vdev.replace("queues=1", "queues=2");
        let start_peer = || {
            let vdev = two(theirs(&socket, options));
            let mut peer = idle(kind, &[&vdev], &format!("q{n}"), &["--rxq=2", "--txq=2"]);
            forward(&mut peer, "io");
            peer
        };
        let vdev = two(ours(&socket, options));
        let (peer, mut ours);
        if vdev.contains("net_vhost") {
            ours = Ours::with_queues(&vdev, 2);
            peer = start_peer();
        } else {
            peer = start_peer();
            wait_for_socket(&socket);
            ours = Ours::with_queues(&vdev, 2);
        }
        ours.wait_for_link(true);
        for queue in [0, 1, 0, 1] {
            assert_perfect(&ours.prove_on(queue, 5_000, SIZES), &format!("{options}, queue {queue}"));
        }
        assert!(peer.quit().success());
        ours.stop();
    }
}

/// Several queues of DPDK's virtio-user need `cq=1`; ours takes it.
fn frontend_of_two(socket: &Path, options: &str) -> String {
    frontend_vdev(socket, &format!("cq=1,{options}"))
}

fn backend_of_two(socket: &Path, _options: &str) -> String {
    backend_vdev(socket)
}

#[test]
fn two_queues_of_our_frontend_and_dpdks_backend() {
    let test = "two_queues_of_our_frontend_and_dpdks_backend";
    two_queues(Kind::Dpdk, test, frontend_of_two, backend_of_two);
}

#[test]
fn two_queues_of_our_frontend_and_our_backend() {
    let test = "two_queues_of_our_frontend_and_our_backend";
    two_queues(Kind::Linecard, test, frontend_of_two, backend_of_two);
}

#[test]
fn two_queues_of_our_backend_and_dpdks_frontend() {
    let test = "two_queues_of_our_backend_and_dpdks_frontend";
    two_queues(Kind::Dpdk, test, backend_of_two, frontend_of_two);
}

#[test]
fn two_queues_of_our_backend_and_our_frontend() {
    let test = "two_queues_of_our_backend_and_our_frontend";
    two_queues(Kind::Linecard, test, backend_of_two, frontend_of_two);
}

#[test]
fn our_frontend_and_dpdks_backend() {
    frontend_in_every_variant(Kind::Dpdk, "our_frontend_and_dpdks_backend");
}

#[test]
fn our_frontend_and_our_backend() {
    frontend_in_every_variant(Kind::Linecard, "our_frontend_and_our_backend");
}

#[test]
fn our_backend_and_dpdks_frontend() {
    backend_in_every_variant(Kind::Dpdk, "our_backend_and_dpdks_frontend");
}

#[test]
fn our_backend_and_our_frontend() {
    backend_in_every_variant(Kind::Linecard, "our_backend_and_our_frontend");
}

#[test]
fn ten_dpdk_backends() {
    ten_backends_come_and_go(Kind::Dpdk, "ten_dpdk_backends");
}

#[test]
fn ten_backends_of_ours() {
    ten_backends_come_and_go(Kind::Linecard, "ten_backends_of_ours");
}

#[test]
fn ten_dpdk_frontends() {
    ten_frontends_come_and_go(Kind::Dpdk, "ten_dpdk_frontends");
}

#[test]
fn ten_frontends_of_ours() {
    ten_frontends_come_and_go(Kind::Linecard, "ten_frontends_of_ours");
}

/// Rings and packets lie in memory of two files, of whatever pages there are; DPDK's backend maps both, however it has its
/// own.
#[test]
fn our_frontend_on_pages_of_every_kind() {
    let test = "our_frontend_on_pages_of_every_kind";
    if !present(Kind::Dpdk, test) {
        return;
    }
    let huge = free_hugepages() >= 256;
    if !huge {
        support::skip(test, "256 free hugepages are needed for a part of it");
    }
    let scratch = Scratch::new(test);
    let modes: [(&[&str], &[&str], bool); 3] = [
        (&["-m", "64", "--no-huge"], &["--no-huge"], false),
        (&["-m", "64", "--no-huge"], &["--in-memory"], true),
        (&["-m", "64", "--require-hugepages"], &["--no-huge"], true),
    ];
    for (n, (ours, theirs, needs_huge)) in modes.into_iter().enumerate() {
        if needs_huge && !huge {
            continue;
        }
        let socket = scratch.join(&format!("s{n}"));
        let (prefix, vdev) = (format!("lcp{}{n}", std::process::id()), backend_vdev(&socket));
        let mut eal = vec!["-l", "0,1", "--no-pci", "-m", "256", "--file-prefix", &prefix, "--vdev", &vdev];
        eal.extend_from_slice(theirs);
        let app = ["-i", "--nb-cores=1", "--total-num-mbufs=8192", "--rxd=256", "--txd=256"];
        let mut peer = Testpmd::start(Kind::Dpdk, &eal, &app);
        forward(&mut peer, "io");
        wait_for_socket(&socket);
        let what = format!("{ours:?} {theirs:?}");
        let mut ours = Ours::with_eal(ours, &frontend_vdev(&socket, "mrg_rxbuf=1"), Offloads::default());
        ours.wait_for_link(true);
        assert_perfect(&ours.prove(5_000, SIZES), &what);
        ours.stop();
        assert!(peer.quit().success());
    }
}
