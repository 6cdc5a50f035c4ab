//! The examples that join interfaces of the kernel, run as their first lines say, in namespaces of the tests' own.

mod support;

use std::process::{Command, Stdio};

use linecard_lab::{Lab, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use support::example::{Running, example};
use support::ours::Ours;
use support::{on_path, skip};

#[test]
fn l2fwd_gives_frames_new_addresses() {
    let Some(lab) = Lab::new("l2fwd_gives_frames_new_addresses") else { return };
    lab.veth("left", "veth0");
    lab.veth("veth2", "right");
    let program = example("l2fwd");
    let mut command = Command::new(program);
    command.args(["net_af_packet0,iface=veth0", "net_af_packet1,iface=veth2", "-T", "1"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut running = Running(lab.run(|| command.spawn()).expect("it starts"));
    let promiscuous = |name: &str| lab.ip(&format!("-d link show {name}")).contains("promiscuity 1");
    wait_until("both ports are started", || promiscuous("veth0") && promiscuous("veth2"));

    let ours = |name: &str| Ours::start(&format!("net_af_packet0,iface={name},netns={}", lab.path()));
    let (mut left, mut right) = (ours("left"), ours("right"));
    let frame = |number: u8, len: usize| {
        let header = [2, 9, 9, 9, 9, 9, 2, 8, 8, 8, 8, 8, 0x88, 0xb5];
        header.into_iter().chain((14..len).map(|i| i as u8 ^ number)).collect::<Vec<u8>>()
    };
    let frames: Vec<_> = (0..100).map(|i| frame(i, 60 + usize::from(i) * 14)).collect();
    let check = |from: &mut Ours, to: &mut Ours, port: &str, number: u8| {
        let source = lab.interface(port).facts().expect("it is there").mac.expect("an address");
        from.send(&frames);
        let got = to.receive(frames.len());
        assert_eq!(got.len(), frames.len(), "all of them arrive");
        for (got, sent) in got.iter().zip(&frames) {
            assert_eq!(got[..6], [2, 0, 0, 0, 0, number], "the destination is the port's number");
            assert_eq!(got[6..12], source, "the source is the port's address");
            assert_eq!(got[12..], sent[12..], "the rest is as it was");
        }
    };
    check(&mut left, &mut right, "veth2", 1);
    check(&mut right, &mut left, "veth0", 0);
    left.stop();
    right.stop();

    let pid = Pid::from_raw(i32::try_from(running.0.id()).expect("small")).expect("not zero");
    kill_process(pid, Signal::INT).expect("it runs");
    let (success, text) = running.end();
    assert!(success, "{text}");
    let last = text.rsplit("Port statistics").next().expect("some text");
    for want in ["Total packets sent:                200", "Total packets received:            200"] {
        assert!(last.contains(want), "{text}");
    }
    assert!(!promiscuous("veth0"), "it left the interfaces as they were");
}

#[test]
fn ping_crosses_bridge_veth() {
    const TEST: &str = "ping_crosses_bridge_veth";
    if on_path("ping").is_none() {
        return skip(TEST, "no program 'ping' on this machine (apt-get install iputils-ping)");
    }
    let Some(lab) = Lab::new(TEST) else { return };
    let mut command = Command::new(example("bridge_veth"));
    command.env("LINECARD", env!("CARGO_BIN_EXE_linecard")).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut running = Running(lab.run(|| command.spawn()).expect("it starts"));
    let (success, text) = running.end();
    assert!(success, "{text}");
    assert!(text.contains(" 3 received, "), "{text}");
    assert!(!lab.ip("link").contains("lc0"), "the pair is gone");
}

#[test]
fn an_example_is_captured() {
    let mut command = Command::new(example("forward"));
    command.args(["net_null0", "net_null1"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running(command.spawn().expect("it starts"));
    let pid = running.0.id().to_string();
    let capture = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_linecard"));
        command
            .args(["capture", "--pid", &pid])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("it runs")
    };
    wait_until("its ports are there to be captured", || {
        capture(&["-p", "net_null1", "-c", "1"]).status.success()
    });
    let output = capture(&["-p", "0", "-c", "5"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.matches("64 bytes").count() == 5, "{output:?}");
    // A killed program leaves its socket; the next look removes it.
    drop(running);
    assert!(!capture(&["-p", "0", "-c", "1"]).status.success());
}
