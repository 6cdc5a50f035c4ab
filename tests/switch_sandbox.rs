//! `linecard switch --sandbox`: what it cannot do any more, and that everything else goes on: traffic, ports added later,
//! a tap that is passed, the state, another process that takes over.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use linecard::netdev::{Namespace, tap, tun::Queues};
use linecard_lab::{Lab, skip, wait_for, wait_until};
use linecard_switch::api::{Client, ClientError, PortKind, PortSpec, PortState, SocketOrigin};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use support::Scratch;
use support::example::Running;
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

/// What the shipped unit says.
struct Unit(Vec<(&'static str, &'static str)>);

impl Unit {
    fn read() -> Self {
        let text = include_str!("../packaging/linecard-switch.service");
        Self(
            text.lines()
                .filter(|line| !line.starts_with('#'))
                .filter_map(|line| line.split_once('='))
                .collect(),
        )
    }

    fn words(&self, name: &str) -> Vec<&'static str> {
        let (_, value) = self.0.iter().find(|(key, _)| *key == name).unwrap_or_else(|| panic!("no {name}="));
        value.split_whitespace().collect()
    }

    /// The command of a line, with this build's program, and files in `scratch`.
    fn command(&self, name: &str, scratch: &Scratch) -> Vec<String> {
        let place = |word: &str| match word {
            "/usr/bin/linecard" => env!("CARGO_BIN_EXE_linecard").into(),
            path if path.starts_with('/') => {
                let name = Path::new(path).file_name().expect("a file").to_string_lossy();
                scratch.join(&name).display().to_string()
            }
            word => word.into(),
        };
        self.words(name).into_iter().map(place).collect()
    }
}

/// The calls of systemd's groups, by name.
fn expand(words: &[&str], calls: &mut BTreeSet<String>) {
    for word in words {
        if !word.starts_with('@') {
            calls.insert((*word).to_owned());
            continue;
        }
        let output =
            Command::new("systemd-analyze").args(["syscall-filter", word]).output().expect("it runs");
        assert!(output.status.success(), "{word}: {output:?}");
        let text = String::from_utf8_lossy(&output.stdout);
        let lines =
            text.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        expand(&lines.collect::<Vec<_>>(), calls);
    }
}

/// The calls of this machine, by name.
fn numbers() -> Option<BTreeMap<String, i64>> {
    let folders = ["/usr/include/x86_64-linux-gnu", "/usr/include/aarch64-linux-gnu", "/usr/include"];
    let headers = folders.iter().flat_map(|folder| {
        ["asm/unistd_64.h", "asm-generic/unistd.h"].map(|file| format!("{folder}/{file}"))
    });
    let text = headers.filter_map(|path| std::fs::read_to_string(path).ok()).next()?;
    let call = |line: &str| {
        let (name, number) = line.strip_prefix("#define __NR_")?.split_once(' ')?;
        Some((name.to_owned(), number.trim().parse().ok()?))
    };
    Some(text.lines().filter_map(call).collect())
}

/// What the unit leaves of rights and system calls. A call that it leaves out ends the process, as with systemd.
struct Limits {
    capabilities: String,
    filter: BpfProgram,
}

impl Limits {
    /// `None` where they cannot be found out.
    fn of(unit: &Unit, test: &str) -> Option<Self> {
        if support::on_path("systemd-analyze").is_none() || support::on_path("setpriv").is_none() {
            skip(test, "no program systemd-analyze or setpriv; install systemd and util-linux");
            return None;
        }
        let Some(numbers) = numbers() else {
            skip(test, "no asm/unistd_64.h, which has the numbers of system calls; install linux-libc-dev");
            return None;
        };
        let mut calls = BTreeSet::new();
        expand(&unit.words("SystemCallFilter"), &mut calls);
        let allowed =
            calls.iter().filter_map(|name| numbers.get(name)).map(|number| (*number, Vec::new())).collect();
        let arch = std::env::consts::ARCH.try_into().expect("an architecture with filters");
        let filter = SeccompFilter::new(allowed, SeccompAction::KillProcess, SeccompAction::Allow, arch);
        let filter = filter.expect("a filter").try_into().expect("a program");
        let words = unit.words("CapabilityBoundingSet").into_iter();
        let kept = words
            .map(|word| format!(",+{}", word.strip_prefix("CAP_").expect("a capability").to_lowercase()));
        Some(Self { capabilities: format!("--bounding-set=-all{}", kept.collect::<String>()), filter })
    }

    /// Starts a command in `lab` as systemd would.
    fn spawn(&self, lab: &Lab, command: &[String]) -> Child {
        let spawn = || {
            seccompiler::apply_filter(&self.filter).expect("a filter");
            Command::new("setpriv")
                .args([&self.capabilities, "--no-new-privs"])
                .args(command)
                .env_remove("NOTIFY_SOCKET")
                .stdout(Stdio::null())
                .spawn()
        };
        // The filter is for this thread and what it starts.
        lab.run(spawn).expect("it starts")
    }
}

/// The file of a namespace, as container engines have it in /run/netns: who may enter a namespace by that need not be allowed to look
/// into processes.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn of(lab: &Lab, scratch: &Scratch, test: &str) -> Option<Self> {
        let file = scratch.join("netns");
        std::fs::write(&file, "").expect("a file");
        let output =
            Command::new("mount").args(["--bind", lab.path()]).arg(&file).output().expect("mount runs");
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            skip(test, &format!("nothing can be mounted ({why}); run it as root"));
            return None;
        }
        Some(Self(file))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Frames between two stations and a tap of `lab`.
fn all_pass(lab: &Lab, one: &mut Ours, two: &mut Ours) {
    one.wait_for_link(true);
    two.wait_for_link(true);
    wait_until("the tap's link", || lab.interface("sw0").link().up);
    let mut wire = lab.wire("sw0");
    exchange(one, Some(two), A, B);
    exchange(two, Some(one), B, A);
    exchange(two, Some(&mut wire), B, TAP);
    exchange(&mut wire, Some(one), TAP, A);
}

/// The shipped unit: with the capabilities and system calls that it leaves, and in its sandbox, the switch serves a configured
/// socket, a tap and a container, is replaced while frames pass, and has the container's socket back after a restart.
#[test]
fn the_shipped_unit_has_all_it_needs_and_little_else() {
    const TEST: &str = "the_shipped_unit_has_all_it_needs_and_little_else";
    let Some(lab) = Lab::new(TEST) else { return };
    let Some(pod) = Lab::new(TEST) else { return };
    let unit = Unit::read();
    let Some(limits) = Limits::of(&unit, TEST) else { return };
    let scratch = Scratch::new(TEST);
    let Some(netns) = Mounted::of(&pod, &scratch, TEST) else { return };
    let (vm, socket) = (scratch.join("vm.sock"), scratch.join("switch.sock"));
    let config = format!(
        "lcores = \"0@0\"\nmemory = 64\npackets = 2048\n[[port]]\nkey = \"vm\"\ntype = \"vhost-user\"\npath = \"{}\"\n\
         [[port]]\nkey = \"sw0\"\ntype = \"tap\"\nname = \"sw0\"\n",
        vm.display()
    );
    std::fs::write(scratch.join("switch.toml"), config).expect("a file");
    let start = || {
        let running = Running(limits.spawn(&lab, &unit.command("ExecStart", &scratch)));
        let asked = wait_for("the control socket", || Client::connect(&socket).ok());
        asked.set_patience(linecard_lab::PATIENCE).expect("a socket");
        (running, asked)
    };
    let (running, mut asked) = start();
    let origin = SocketOrigin::new(&netns.0, format!("unit/{}", std::process::id()));
    let listener = pod.run(|| origin.listen()).expect("a listener");
    let spec = PortSpec::new("pod", PortKind::VhostUserFd { origin: Some(origin.clone()) });
    assert!(asked.port_add(&spec, Some(listener.as_fd())).expect("it is added").created);
    drop(listener);
    let mut one = Ours::start(&frontend_vdev(&vm, ""));
    let inside = format!("@{}", origin.name);
    let mut two = pod.run(|| Ours::start(&frontend_vdev(inside.as_ref(), "")));
    all_pass(&lab, &mut one, &mut two);
    // CAP_NET_ADMIN, for the tap that is configured.
    assert_confined(pid(&mut asked), "0000000000001000");

    // `systemctl reload`.
    let before = pid(&mut asked);
    let mut reload = limits.spawn(&lab, &unit.command("ExecReload", &scratch));
    assert!(reload.wait().expect("it ends").success());
    let mut asked = client(&socket);
    let next = Orphan(pid(&mut asked));
    assert_ne!(next.0, before);
    drop(running);
    assert_confined(next.0, "0000000000001000");
    all_pass(&lab, &mut one, &mut two);
    drop(asked);
    next.end();
    one.wait_for_link(false);
    two.wait_for_link(false);

    let (running, mut asked) = start();
    assert_eq!(asked.port_show("pod").expect("it is back").spec, spec);
    all_pass(&lab, &mut one, &mut two);
    assert_confined(pid(&mut asked), "0000000000001000");
    drop(asked);
    end(running);
}
