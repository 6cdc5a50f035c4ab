//! testpmd over net_virtio_user, as a user types it: a backend of DPDK's, and one of ours, sends frames for another station, and the
//! console decides which of them are received.

mod support;

use std::time::Duration;

use support::Scratch;
use support::console::{Kind, Testpmd, present};
use support::ours::wait_for_socket;
use support::peer::{forward, idle};

/// Where the backend sends, and the address of the frontend.
const STRANGER: &str = "02:00:00:00:00:99";
const OWN: &str = "02:00:00:00:00:01";
const PATIENCE: Duration = Duration::from_secs(60);

/// A counter of port 0, as the console shows it.
fn counter(testpmd: &mut Testpmd, name: &str) -> u64 {
    testpmd.type_line("show port xstats 0");
    let line = testpmd.expect(&format!("{name}: "), PATIENCE);
    // To the last line, so that the next answer is found by its own.
    testpmd.expect("tx_q0_panics: ", PATIENCE);
    line.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

/// Waits until a counter moves.
fn moves(testpmd: &mut Testpmd, name: &str) {
    let before = counter(testpmd, name);
    let until = std::time::Instant::now() + PATIENCE;
    while counter(testpmd, name) == before {
        assert!(std::time::Instant::now() < until, "{name} stays {before}:\n{}", testpmd.transcript());
    }
}

/// From here on frames move `goes`, and none moves `stays`.
fn settles(testpmd: &mut Testpmd, goes: &str, stays: &str) {
    // The burst that was being received when the command came is over.
    moves(testpmd, goes);
    testpmd.type_line("clear port stats all");
    moves(testpmd, goes);
    assert_eq!(counter(testpmd, stays), 0, "{stays}: {}", testpmd.transcript());
}

const RECEIVED: &str = "rx_good_packets";
const UNICAST: &str = "rx_q0_filtered_unicast_packets";
const MULTICAST: &str = "rx_q0_filtered_multicast_packets";

fn modes_act(kind: Kind, test: &str) {
    if !present(kind, test) {
        return;
    }
    let scratch = Scratch::new(test);
    for packed in [0, 1] {
        let socket = scratch.join(&format!("s{packed}"));
        let vdev = format!("net_vhost0,iface={}", socket.display());
        let mut peer = idle(kind, &[&vdev], "rf", &[&format!("--eth-peer=0,{STRANGER}")]);
        wait_for_socket(&socket);
        let vdev = format!("net_virtio_user0,path={},mac={OWN},packed_vq={packed}", socket.display());
        let mut ours = idle(Kind::Linecard, &[&vdev], "rfo", &[]);
        ours.type_line("show port info 0");
        ours.expect("Promiscuous mode: enabled", PATIENCE);
        ours.expect("Allmulticast mode: disabled", PATIENCE);
        ours.expect("Maximum number of MAC addresses: 64", PATIENCE);
        forward(&mut ours, "rxonly");
        forward(&mut peer, "txonly");
        settles(&mut ours, RECEIVED, UNICAST);
        ours.type_line("set promisc 0 off");
        settles(&mut ours, UNICAST, RECEIVED);
        ours.type_line(&format!("mac_addr add 0 {STRANGER}"));
        settles(&mut ours, RECEIVED, UNICAST);
        ours.type_line("show port 0 macs");
        ours.expect("Number of MAC address added: 2", PATIENCE);
        ours.type_line(&format!("mac_addr remove 0 {STRANGER}"));
        settles(&mut ours, UNICAST, RECEIVED);
        ours.type_line(&format!("mac_addr set 0 {STRANGER}"));
        settles(&mut ours, RECEIVED, UNICAST);
        ours.type_line(&format!("mac_addr set 0 {OWN}"));

        peer.type_line("stop");
        peer.type_line("set eth-peer 0 01:00:5e:00:00:01");
        forward(&mut peer, "txonly");
        settles(&mut ours, MULTICAST, RECEIVED);
        ours.type_line("set allmulti 0 on");
        settles(&mut ours, RECEIVED, MULTICAST);
        ours.type_line("set allmulti 0 off");
        settles(&mut ours, MULTICAST, RECEIVED);
        ours.type_line("mcast_addr add 0 01:00:5e:00:00:01");
        settles(&mut ours, RECEIVED, MULTICAST);
        ours.type_line("mcast_addr remove 0 01:00:5e:00:00:01");
        settles(&mut ours, MULTICAST, RECEIVED);
        ours.type_line("set promisc 0 on");
        settles(&mut ours, RECEIVED, MULTICAST);
        assert!(peer.quit().success() && ours.quit().success());
    }
}

#[test]
fn dpdks_backend_sends_to_others() {
    modes_act(Kind::Dpdk, "dpdks_backend_sends_to_others");
}

#[test]
fn our_backend_sends_to_others() {
    modes_act(Kind::Linecard, "our_backend_sends_to_others");
}
