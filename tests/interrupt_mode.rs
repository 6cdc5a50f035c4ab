//! testpmd that sleeps while nothing is received: it wakes for packets, of a backend of DPDK's and of one of ours, and says how
//! it spends its time.

mod support;

use std::time::{Duration, Instant};

use support::Scratch;
use support::console::{Kind, Testpmd, present};
use support::ours::wait_for_socket;
use support::peer::{forward, idle};

const PATIENCE: Duration = Duration::from_secs(60);

/// How its thread spends its time, as `show port info` has it.
fn mode(testpmd: &mut Testpmd) -> String {
    testpmd.type_line("show port info 0");
    testpmd.expect("RX queue 0 mode: ", PATIENCE)
}

/// The share of its time, in per cent, that a thread was asleep.
fn asleep(line: &str) -> Option<f64> {
    line.split_once("asleep ")?.1.split_once(" %")?.0.parse().ok()
}

fn received(testpmd: &mut Testpmd) -> u64 {
    testpmd.type_line("show port xstats 0");
    let line = testpmd.expect("rx_good_packets: ", PATIENCE);
    // To the last line, so that the next answer is found by its own.
    testpmd.expect("tx_q0_panics: ", PATIENCE);
    line.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

#[track_caller]
fn until(what: &str, testpmd: &mut Testpmd, mut done: impl FnMut(&mut Testpmd) -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done(testpmd) {
        assert!(Instant::now() < end, "{what}:\n{}", testpmd.transcript());
    }
}

fn sleeps_and_wakes(kind: Kind, test: &str) {
    if !present(kind, test) {
        return;
    }
    let scratch = Scratch::new(test);
    for packed in [0, 1] {
        let socket = scratch.join(&format!("s{packed}"));
        let vdev = format!("net_vhost0,iface={}", socket.display());
        let mut peer = idle(kind, &[&vdev], "im", &[]);
        wait_for_socket(&socket);
        let vdev = format!("net_virtio_user0,path={},packed_vq={packed}", socket.display());
        let mut ours = idle(Kind::Linecard, &[&vdev], "imo", &["--record-core-cycles"]);
        forward(&mut ours, "rxonly");
        assert!(mode(&mut ours).contains("mode: polling"), "{packed}");
        ours.type_line("stop");
        ours.type_line("set rx-interrupt on");
        forward(&mut ours, "rxonly");
        until("it sleeps", &mut ours, |ours| asleep(&mode(ours)).is_some_and(|share| share > 80.0));
        for _ in 0..3 {
            let before = received(&mut ours);
            forward(&mut peer, "txonly");
            until("it wakes", &mut ours, |ours| received(ours) > before);
            peer.type_line("stop");
            peer.expect("Done.", PATIENCE);
        }
        assert!(mode(&mut ours).contains(" % of the cycles"), "{packed}: it was busy for a while");
        ours.type_line("stop");
        ours.expect("Done.", PATIENCE);
        assert!(peer.quit().success() && ours.quit().success());
    }
}

#[test]
fn over_a_backend_of_dpdks() {
    sleeps_and_wakes(Kind::Dpdk, "over_a_backend_of_dpdks");
}

#[test]
fn over_a_backend_of_ours() {
    sleeps_and_wakes(Kind::Linecard, "over_a_backend_of_ours");
}
