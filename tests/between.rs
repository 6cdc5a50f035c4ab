//! `linecard testpmd` in the middle: the test proves packets through it and a dpdk-testpmd behind it, in both positions,
//! while the one or the other is killed; the survivor's pool is whole.
//!
//! ```text
//!   test (backend) ◄─► linecard testpmd: frontend, paired with a frontend or backend ◄─► dpdk-testpmd, returns everything
//! ```

mod support;

use std::time::Duration;

use linecard_lab::wait_until;
use support::Scratch;
use support::console::{Kind, Testpmd, present};
use support::ours::{Ours, SIZES, assert_perfect, backend_vdev, frontend_vdev, wait_for_socket};
use support::peer::{forwarder, start};

const ROUNDS: usize = 10;

/// Which end of the socket to DPDK `linecard testpmd` has.
#[derive(Clone, Copy, PartialEq)]
enum Position {
    Frontend,
    Backend,
}

/// Until the port towards DPDK has its peer.
fn wait_for_far_link(middle: &mut Testpmd) {
    wait_until("the link to DPDK", || {
        middle.type_line("show port info 1");
        middle.expect("Link status:", Duration::from_secs(60)).contains("up")
    });
}

fn prove(ours: &mut Ours, what: &str) {
    ours.settle();
    assert_perfect(&ours.prove(2_000, SIZES), what);
}

/// Stops its ports; then no packet may be out.
fn assert_whole(middle: &mut Testpmd) {
    for line in ["stop", "port stop all", "show pool"] {
        middle.type_line(line);
    }
    let line = middle.expect("mempool <", Duration::from_secs(60));
    assert!(line.contains("in_use=0"), "packets are missing: {line}");
}

fn dpdk_is_killed_again_and_again(position: Position, test: &str) {
    if !present(Kind::Dpdk, test) {
        return;
    }
    let scratch = Scratch::new(test);
    let (near, far) = (scratch.join("near"), scratch.join("far"));
    let mut ours = Ours::start(&backend_vdev(&near));
    let near_vdev = frontend_vdev(&near, "mrg_rxbuf=1");
    let dpdk = |round: usize| match position {
        Position::Frontend => forwarder(Kind::Dpdk, &backend_vdev(&far), &format!("d{round}")),
        Position::Backend => forwarder(Kind::Dpdk, &frontend_vdev(&far, "mrg_rxbuf=1"), &format!("d{round}")),
    };
    let (mut middle, mut peer);
    if position == Position::Frontend {
        peer = dpdk(0);
        wait_for_socket(&far);
        let far_vdev = frontend_vdev(&far, "mrg_rxbuf=1").replace("user0", "user1");
        middle = start(Kind::Linecard, &[&near_vdev, &far_vdev], "m");
    } else {
        middle = start(Kind::Linecard, &[&near_vdev, &backend_vdev(&far)], "m");
        peer = dpdk(0);
    }
    for round in 1..=ROUNDS {
        ours.wait_for_link(true);
        wait_for_far_link(&mut middle);
        prove(&mut ours, &format!("round {round}"));
        peer.kill();
        if position == Position::Frontend {
            let _ = std::fs::remove_file(&far);
        }
        peer = dpdk(round);
    }
    wait_for_far_link(&mut middle);
    prove(&mut ours, "after the last kill");
    assert!(peer.quit().success());
    assert_whole(&mut middle);
    assert!(middle.quit().success());
    ours.wait_for_link(false);
    ours.stop();
}

/// The one in the middle is killed; DPDK's and the test's end take the next one.
fn linecard_is_killed_again_and_again(test: &str) {
    if !present(Kind::Dpdk, test) {
        return;
    }
    let scratch = Scratch::new(test);
    let (near, far) = (scratch.join("near"), scratch.join("far"));
    let mut ours = Ours::start(&backend_vdev(&near));
    let peer = forwarder(Kind::Dpdk, &backend_vdev(&far), "k");
    wait_for_socket(&far);
    let far_vdev = frontend_vdev(&far, "mrg_rxbuf=1").replace("user0", "user1");
    for round in 1..=ROUNDS {
        let near_vdev = frontend_vdev(&near, "mrg_rxbuf=1");
        let mut middle = start(Kind::Linecard, &[&near_vdev, &far_vdev], &format!("m{round}"));
        ours.wait_for_link(true);
        prove(&mut ours, &format!("round {round}"));
        middle.kill();
        ours.wait_for_link(false);
        ours.wait_until_home(&format!("round {round}"));
    }
    assert!(peer.quit().success());
    ours.stop();
}

#[test]
fn frontend_survives_dpdks_backends() {
    dpdk_is_killed_again_and_again(Position::Frontend, "frontend_survives_dpdks_backends");
}

#[test]
fn backend_survives_dpdks_frontends() {
    dpdk_is_killed_again_and_again(Position::Backend, "backend_survives_dpdks_frontends");
}

#[test]
fn dpdks_backend_takes_the_next_frontend() {
    linecard_is_killed_again_and_again("dpdks_backend_takes_the_next_frontend");
}
