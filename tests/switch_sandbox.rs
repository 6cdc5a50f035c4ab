//! `linecard switch --sandbox`: what it cannot do any more, and that everything else goes on: traffic, ports added later,
//! a tap that is passed, the state, another process that takes over.

mod support;

use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Output};

use linecard::netdev::{Namespace, tap, tun::Queues};
use linecard_lab::{Lab, wait_until};
use linecard_switch::api::{Client, ClientError, PortKind, PortSpec, PortState};
use support::Scratch;
use support::ours::{Ours, frontend_vdev};
use support::switch::{end, exchange, start};
use support::upgrade::{A, B, Orphan, client, upgrade};

const TAP: [u8; 6] = [2, 0, 0, 0, 0, 3];

/// What the kernel says of every thread of a process: its capabilities, whether it may get new ones, its filters.
fn rights(pid: u32) -> Vec<[String; 3]> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let of = |status: &str, name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    };
    tasks
        .flatten()
        // One that ends just now has none.
        .filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok())
        .map(|status| ["CapPrm", "NoNewPrivs", "Seccomp"].map(|name| of(&status, name)))
        .collect()
}

fn assert_confined(pid: u32, capabilities: &str) {
    let rights = rights(pid);
    assert!(rights.len() > 2, "{rights:?}");
    let want = [capabilities, "1", "2"];
    assert!(rights.iter().all(|thread| thread == &want), "{rights:?}");
}

fn socket_port(key: &str, path: &Path) -> PortSpec {
    let kind = PortKind::VhostUser { path: path.to_owned(), client: false, mode: None, group: None };
    PortSpec::new(key, kind)
}

fn refusal(outcome: Result<impl Sized, ClientError>) -> String {
    outcome.map(|_| ()).expect_err("it is refused").to_string()
}

fn ctl(lab: &Lab, socket: &Path, arguments: &[&str]) -> Output {
    let run = || {
        Command::new(env!("CARGO_BIN_EXE_linecard"))
            .args(["switch", "ctl", "--socket"])
            .arg(socket)
            .args(arguments)
            .output()
    };
    lab.run(run).expect("it runs")
}

fn pid(asked: &mut Client) -> u32 {
    asked.version().expect("it answers").pid
}

#[test]
fn a_sandboxed_switch_does_all_it_is_for_and_nothing_else() {
    const TEST: &str = "a_sandboxed_switch_does_all_it_is_for_and_nothing_else";
    let Some(lab) = Lab::new(TEST) else { return };
    let (scratch, allowed, elsewhere) =
        (Scratch::new(TEST), Scratch::new("sandbox-allowed"), Scratch::new("sandbox-elsewhere"));
    let [a, socket] = ["a.sock", "control"].map(|name| scratch.join(name));
    let b = allowed.join("b.sock");
    let allow = allowed.path().display().to_string();
    let arguments = ["--sandbox", "--sandbox-allow", &allow, "--port", &a.display().to_string()];
    let (running, mut asked) = start(&lab, &scratch, &arguments);
    assert_confined(pid(&mut asked), "0000000000000000");

    // Root, and yet.
    let text = refusal(asked.port_add(&socket_port("x", &elsewhere.join("x.sock")), None));
    assert!(text.contains("no permission to make socket"), "{text}");
    let tap_port = PortSpec::new("sw0", PortKind::Tap { name: "sw0".into(), netns: None });
    let text = refusal(asked.port_add(&tap_port, None));
    assert!(text.contains("denied") || text.contains("not permitted"), "{text}");
    let packet = PortKind::Vdev { device: "net_af_packet0,iface=lo".into() };
    refusal(asked.port_add(&PortSpec::new("p", packet), None));

    // What it is for.
    assert!(asked.port_add(&socket_port("two", &b), None).expect("it is added").created);
    let mut one = Ours::start(&frontend_vdev(&a, ""));
    let mut two = Ours::start(&frontend_vdev(&b, ""));
    one.wait_for_link(true);
    two.wait_for_link(true);
    exchange(&mut one, Some(&mut two), A, B);
    exchange(&mut two, Some(&mut one), B, A);
    let passed = ctl(&lab, &socket, &["add", "sw0", "--tap", "sw0", "--pass"]);
    assert!(passed.status.success(), "{passed:?}");
    let mut wire = lab.wire("sw0");
    exchange(&mut one, Some(&mut wire), A, TAP);
    exchange(&mut wire, Some(&mut one), TAP, A);
    assert_confined(pid(&mut asked), "0000000000000000");

    // Another process takes over; it is as confined.
    let before = pid(&mut asked);
    let text = upgrade(&lab, &socket, &[]).end();
    assert!(text.0, "{}", text.1);
    let mut asked = client(&socket);
    let next = Orphan(pid(&mut asked));
    assert_ne!(next.0, before);
    assert_confined(next.0, "0000000000000000");
    exchange(&mut one, Some(&mut two), A, B);
    drop(running);
    // A tap that was passed has to be passed again.
    wait_until("the tap's end", || asked.port_show("sw0").is_ok_and(|port| port.state == PortState::Waiting));
    let made = || -> Result<_, linecard::pmd::Error> {
        let queue = tap::descriptor("sw0", &Namespace::default())?;
        tap::attach("sw0", &queue, "sw0", Queues::One)?;
        Ok(queue)
    };
    let queue = lab.run(made).expect("an interface");
    lab.ip("link set sw0 up");
    assert!(!asked.port_add(&tap_port, Some(queue.as_fd())).expect("it is opened").created);
    drop(queue);
    let mut wire = lab.wire("sw0");
    exchange(&mut one, Some(&mut wire), A, TAP);
    drop((one, two, wire, asked));
    next.end();

    // A restart has the folders of ports that were added, without being told again.
    let (running, mut asked) = start(&lab, &scratch, &["--sandbox"]);
    assert_eq!(asked.port_show("two").expect("it is back").state, PortState::Down);
    assert_eq!(
        asked.port_show("sw0").expect("it is back").state,
        PortState::Waiting,
        "it has to be passed again"
    );
    assert_confined(pid(&mut asked), "0000000000000000");
    drop(asked);
    end(running);
    assert!(!b.exists());
}

#[test]
fn a_configured_tap_keeps_the_one_right_it_needs() {
    const TEST: &str = "a_configured_tap_keeps_the_one_right_it_needs";
    let Some(lab) = Lab::new(TEST) else { return };
    let scratch = Scratch::new(TEST);
    let a = scratch.join("a.sock");
    let (running, mut asked) =
        start(&lab, &scratch, &["--sandbox", "--tap", "sw0", "--port", &a.display().to_string()]);
    // CAP_NET_ADMIN is number 12.
    assert_confined(pid(&mut asked), "0000000000001000");
    let mut one = Ours::start(&frontend_vdev(&a, ""));
    one.wait_for_link(true);
    let mut wire = lab.wire("sw0");
    exchange(&mut one, Some(&mut wire), A, TAP);
    exchange(&mut wire, Some(&mut one), TAP, A);
    // Another one later, by the same right.
    let later = PortSpec::new("sw1", PortKind::Tap { name: "sw1".into(), netns: None });
    assert!(asked.port_add(&later, None).expect("it is added").created);
    drop((one, wire, asked));
    end(running);
}

#[test]
fn what_cannot_go_together_is_refused_in_one_sentence() {
    let refused = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_linecard"))
            .args(["switch", "--no-huge", "--socket", "none", "--no-telemetry"])
            .args(arguments)
            .output()
            .expect("it runs");
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let text = refused(&["--sandbox", "--vdev", "net_af_packet0,iface=lo"]);
    let want = "port 'net_af_packet0' needs packet sockets, which a switch with --sandbox cannot use";
    assert!(text.contains(want) && text.trim_end().lines().count() == 1, "{text}");
    assert!(refused(&["--sandbox-allow", "/tmp"]).contains("--sandbox"));
}
