//! `linecard switch` replaced by another process while its ports stay connected: no packet is lost or doubled, no peer is
//! disconnected, and what the switch knew and counted comes along; a successor that fails changes nothing.

#[path = "switch_upgrade/hostile.rs"]
mod hostile;
mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use linecard::eal::{Eal, EalArgs};
use linecard::mempool::{Pool, PoolConfig};
use linecard::pmd::ProbeContext;
use linecard_lab::{Lab, PATIENCE, wait_until};
use linecard_switch::api::{FdbFilter, FdbStatic, PortKind, PortSpec, QueueMove};
use linecard_switch::upgrade::{FORMAT, Successor};
use linecard_switch::{Switch, SwitchConfig};
use support::Scratch;
use support::example::Running;
use support::guest::{Guest, Kernel, Parts};
use support::ours::{Ours, frontend_vdev};
use support::switch::{Station, end, exchange, frame, start, start_on, start_with};
use support::upgrade::*;

/// One round: traffic, several upgrades, everything whole.
fn upgrades_under_traffic(test: &str, options: &str) {
    let Some(lab) = Lab::new(test) else { return };
    let scratch = Scratch::new(test);
    let [a, b] = ["a.sock", "b.sock"].map(|name| scratch.join(name));
    let socket = scratch.join("control");
    let ports = [a.display().to_string(), format!("{},vlan=7", scratch.join("c.sock").display())];
    let arguments = ["--port", &ports[0], "--port", &ports[1]];
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    // A core for the stations where the gap is what is looked at.
    let lcores = if cores > 1 && !is_long_run() { "0@0,1@1" } else { "0@0" };
    let (first, mut asked) = start_on(&lab, &scratch, lcores, &arguments, &[]);
    let two = PortKind::VhostUser { path: b.clone(), client: false, mode: None, group: None };
    let two = PortSpec { max_macs: Some(9), ..PortSpec::new("two", two) };
    assert!(asked.port_add(&two, None).expect("it is added").created);
    let mut pair = Pair::connect([&a, &b], options);
    asked
        .fdb_add(&FdbStatic { mac: linecard::net::MacAddr(FIXED), vlan: 0, port: "two".into() })
        .expect("it is put in");
    let last = asked.workers().expect("workers").len() as u16 - 1;
    asked.move_queue(&QueueMove { port: "port1".into(), queue: 0, worker: last }).expect("it moves");
    let (before, connections) = (counted(&mut asked, "port1"), pair.connections());

    let (mut first, mut running): (Option<Running>, Option<Orphan>) = (Some(first), None);
    let (mut gaps, mut quiet, mut pauses) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..upgrades() {
        pair.gap();
        pair.pump_until(|| true);
        quiet.push(pair.gap());
        let pid = client(&socket).version().expect("it answers").pid;
        let (next, pause) = replaced(&lab, &socket, &mut pair);
        gaps.push(pair.gap());
        pauses.push(pause);
        assert_ne!(next.0, pid);
        match (&mut first, running.replace(next)) {
            (first @ Some(_), None) => {
                let mut child = first.take().expect("there is one");
                wait_until("the first switch to end", || child.0.try_wait().expect("a child").is_some());
                assert!(child.0.wait().expect("a child").success());
            }
            (_, earlier) => {
                wait_until("the earlier switch to end", || !earlier.as_ref().is_some_and(Orphan::runs))
            }
        }
    }
    pair.settle();
    assert_eq!(pair.connections(), connections, "nobody was disconnected");
    let mut asked = client(&socket);
    let (there, back) = (u64::from(pair.there.sent), u64::from(pair.back.sent));
    let after = counted(&mut asked, "port1");
    assert_eq!(after, (before.0 + there, before.1 + back, before.2), "counters came along");
    let known: Vec<_> = asked.fdb_list(&FdbFilter::default()).expect("a list");
    let known: Vec<_> = known.iter().map(|entry| (entry.mac.0, entry.port.as_str(), entry.fixed)).collect();
    assert_eq!(known, [(A, "port1", false), (B, "two", false), (FIXED, "two", true)]);
    let shown = asked.port_show("two").expect("it is there");
    assert_eq!(shown.spec, two);
    let workers = asked.workers().expect("workers");
    assert!(workers[usize::from(last)].queues.iter().any(|queue| queue.port == "port1"), "{workers:?}");
    eprintln!("{test}: {} upgrades, {there} and {back} frames", upgrades());
    // Milliseconds, and more where others have the core; not each time, and never as long as a port takes to be opened anew.
    assert!(pauses.iter().min().is_some_and(|pause| *pause < Duration::from_secs(1)), "{pauses:?}");
    tell_times([gaps, quiet, pauses]);
    // What came along is this one's in the end, too: ports that were added are in the state, sockets go with it.
    running.expect("there is one").end();
    assert!(!a.exists() && !b.exists() && !socket.exists());
    let names: Vec<_> = scratch.entries();
    assert_eq!(names.len(), 1, "only the state stays: {names:?}");
}

#[test]
fn upgrades_under_traffic_with_split_rings() {
    upgrades_under_traffic("upgrades_under_traffic_with_split_rings", "");
}

#[test]
fn upgrades_under_traffic_with_packed_rings() {
    upgrades_under_traffic("upgrades_under_traffic_with_packed_rings", ",packed_vq=1");
}

/// A switch in this process, which takes over or begins to.
struct Here {
    switch: Switch,
    _eal: Eal,
}

impl Here {
    fn new() -> Self {
        let (args, _) = EalArgs::parse(["--no-huge", "-m", "128", "--lcores", "0@0"]).expect("arguments");
        let eal = Eal::new(&args).expect("an instance");
        let domain = eal.default_domain();
        let pool = Pool::new(&domain, PoolConfig::default().packets(4096)).expect("a pool");
        let context = ProbeContext::new(eal.memory().clone(), domain, Duration::from_secs(5));
        let switch =
            Switch::start(SwitchConfig::new(linecard::drivers(), context, pool, eal.lcores().all().to_vec()));
        let switch = switch.expect("a switch");
        switch.check().expect("it can move frames");
        Self { switch, _eal: eal }
    }
}

/// A switch with two stations that it must not lose.
struct Scene {
    socket: PathBuf,
    pair: Pair,
    running: Running,
    pid: u32,
    connections: [Vec<String>; 2],
    scratch: Scratch,
    lab: Lab,
}

impl Scene {
    fn new(test: &str, options: &str) -> Option<Self> {
        let lab = Lab::new(test)?;
        let scratch = Scratch::new(test);
        let [a, b] = ["a.sock", "b.sock"].map(|name| scratch.join(name));
        let ports = [&a, &b].map(|path| path.display().to_string());
        let (running, _) = start(&lab, &scratch, &["--port", &ports[0], "--port", &ports[1]]);
        let pair = Pair::connect([&a, &b], options);
        let (socket, connections) = (scratch.join("control"), pair.connections());
        let pid = running.0.id();
        Some(Self { socket, pair, running, pid, connections, scratch, lab })
    }

    /// The first switch goes on as if nothing had been.
    fn goes_on(&mut self, after: &str) {
        self.pair.pump_until(|| true);
        self.pair.settle();
        assert_eq!(self.pair.connections(), self.connections, "{after}: nobody was disconnected");
        let mut asked = client(&self.socket);
        assert_eq!(asked.version().expect("it answers").pid, self.pid, "{after}");
        for key in ["port1", "port2"] {
            assert_eq!(counted(&mut asked, key).2, 0, "{after}: nothing was lost");
        }
        for name in ["a.sock", "b.sock", "control"] {
            assert!(self.scratch.join(name).exists(), "{after}: {name} is still there");
        }
    }

    fn end(self) {
        drop(self.pair);
        end(self.running);
        let names = self.scratch.entries();
        assert!(names.is_empty(), "nothing is left behind: {names:?}");
    }
}

#[test]
fn a_successor_that_ends_at_any_step_changes_nothing() {
    for (number, options) in ["", ",packed_vq=1"].into_iter().enumerate() {
        let test = format!("a_successor_that_ends_{number}");
        let Some(mut scene) = Scene::new(&test, options) else { return };
        for step in 0..4 {
            let here = Here::new();
            let mut successor = Successor::ask(&scene.socket, "0.0.0").expect("it is heard");
            if step > 0 {
                let refuse = |_: &[PortSpec]| {
                    Err(linecard_switch::api::Problem::new(
                        linecard_switch::api::Code::Exists,
                        "not these",
                        "others",
                    ))
                };
                let prepared = match step {
                    1 => successor.prepare(&here.switch, refuse),
                    _ => successor.prepare(&here.switch, |_| Ok(())),
                };
                assert_eq!(prepared.is_ok(), step > 1, "{prepared:?}");
            }
            if step > 2 {
                successor.begin(&here.switch).expect("it begins");
            }
            drop(successor);
            drop(here);
            scene.goes_on(&format!("step {step}"));
        }
        scene.end();
    }
}

/// It would be served by nobody, or by two: whoever does not answer in time is told that it comes too late.
#[test]
fn a_successor_that_hangs_comes_too_late() {
    let Some(mut scene) = Scene::new("a_successor_that_hangs_comes_too_late", "") else { return };
    let here = Here::new();
    let mut successor = Successor::ask(&scene.socket, "0.0.0").expect("it is heard");
    successor.prepare(&here.switch, |_| Ok(())).expect("it is prepared");
    // The predecessor waits for it, and then no more.
    scene.goes_on("it hangs");
    let late = successor.begin(&here.switch).and_then(|()| successor.commit(&here.switch));
    let late = late.expect_err("it is too late").to_string();
    assert!(late.contains("did not answer in time") || late.contains("ended the upgrade"), "{late}");
    drop((successor, here));
    scene.goes_on("it came too late");
    scene.end();
}

#[test]
fn a_program_that_cannot_take_over_changes_nothing() {
    let Some(mut scene) = Scene::new("a_program_that_cannot_take_over_changes_nothing", "") else { return };
    // Programs that fail.
    let script = scene.scratch.join("broken");
    std::fs::write(&script, "#!/bin/sh\necho this is broken\nexit 3\n").expect("a file");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a file");
    for program in ["/bin/false", "/no/such/program", &script.display().to_string()] {
        let (success, said) = upgrade(&scene.lab, &scene.socket, &["--exec", program]).end();
        assert!(!success && said.is_empty(), "{program}: {said}");
        scene.goes_on(program);
    }
    std::fs::remove_file(&script).expect("it is there");
    // A configuration that has one of the ports in another way, and one that cannot be started.
    let b = scene.scratch.join("b.sock").display().to_string();
    for (arguments, want) in [
        (vec!["--port", &b], "port 'port1' is configured in another way"),
        (vec!["--packets", "4000000", "-m", "16"], ""),
        (vec!["--socket", "none"], "needs the control socket"),
    ] {
        let run = || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_linecard"));
            command.args(["switch", "--take-over", "--no-huge", "--lcores", "0@0"]);
            if !arguments.contains(&"none") {
                command.arg("--socket").arg(&scene.socket);
            }
            command.args(&arguments).output()
        };
        let output = scene.lab.run(run).expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(want), "{arguments:?}: {said}");
        scene.goes_on(&said);
    }
    scene.end();
}

/// A program that neither takes over nor ends is not waited for for ever, and does not stay; nor does what it has started.
#[test]
fn a_silent_program_is_ended() {
    const TEST: &str = "a_silent_program_is_ended";
    let Some(mut scene) = Scene::new(TEST, "") else { return };
    let [script, pids] = ["silent", "pids"].map(|name| scene.scratch.join(name));
    for (text, want) in
        [("echo here I am; sleep 600 & echo $! >> $0.pids; wait", 2), ("exec >&-; exec sleep 600", 1)]
    {
        let text = format!(
            "#!/bin/sh\necho $$ > {0}\n{1}\n",
            pids.display(),
            text.replace("$0.pids", &pids.display().to_string())
        );
        std::fs::write(&script, text).expect("written");
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("allowed");
        let program = script.display().to_string();
        let (success, said) =
            upgrade(&scene.lab, &scene.socket, &["--exec", &program, "--timeout", "2"]).end();
        assert!(!success && said.is_empty(), "{said}");
        let started = std::fs::read_to_string(&pids).expect("they are named");
        let started: Vec<_> = started.lines().map(|pid| Orphan(pid.parse().expect("a process"))).collect();
        assert_eq!(started.len(), want);
        wait_until("what was started to end", || !started.iter().any(Orphan::runs));
        scene.goes_on("a silent program");
    }
    for file in [script, pids] {
        std::fs::remove_file(file).expect("it is there");
    }
    scene.end();
}

/// Asks for an upgrade by hand; the connection once it was granted.
fn asked_by_hand(socket: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(socket).expect("it listens");
    let line =
        format!("{{\"id\":1,\"method\":\"upgrade\",\"params\":{{\"format\":{FORMAT},\"version\":\"x\"}}}}\n");
    stream.write_all(line.as_bytes()).expect("it reads");
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte).expect("an answer");
    }
    stream
}

#[test]
fn nonsense_and_other_versions_are_refused() {
    let Some(mut scene) = Scene::new("nonsense_and_other_versions_are_refused", "") else { return };
    let mut asked = client(&scene.socket);
    let other = serde_json::json!({ "format": FORMAT + 1, "version": "9.9.9" });
    let refused = asked.call::<_, serde_json::Value>("upgrade", &other, &[]).expect_err("another format");
    assert_eq!(
        refused.to_string(),
        format!(
            "version 9.9.9 takes over in format {}, and this switch hands over in format {FORMAT}; restart the switch instead of upgrading it",
            FORMAT + 1
        )
    );
    for params in
        [serde_json::json!({}), serde_json::json!({ "format": FORMAT, "version": "x", "colour": "red" })]
    {
        asked.call::<_, serde_json::Value>("upgrade", &params, &[]).expect_err("no request");
    }
    drop(asked);
    scene.goes_on("another version");
    for nonsense in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 64],
        b"LCUP\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"LC",
    ] {
        let mut stream = asked_by_hand(&scene.socket);
        stream.write_all(nonsense).expect("it reads");
        stream.shutdown(std::net::Shutdown::Write).expect("a socket");
        // All there is, until the switch has had enough.
        let _ = stream.read_to_end(&mut Vec::new());
        scene.goes_on("nonsense");
    }
    scene.end();
}

/// A tap keeps its frames, its addresses and its carrier.
#[test]
fn a_tap_goes_along_and_loses_no_frame() {
    const TEST: &str = "a_tap_goes_along_and_loses_no_frame";
    const TAP: [u8; 6] = [2, 0, 0, 0, 0, 3];
    let Some(lab) = Lab::new(TEST) else { return };
    let scratch = Scratch::new(TEST);
    let (a, socket) = (scratch.join("a.sock"), scratch.join("control"));
    let (mut first, _) = start(&lab, &scratch, &["--tap", "sw0", "--port", &a.display().to_string()]);
    let mut ours = Ours::start(&frontend_vdev(&a, "mac=02:00:00:00:00:01"));
    ours.wait_for_link(true);
    lab.ip("addr add 10.9.0.1/24 dev sw0");
    wait_until("the tap's link", || lab.interface("sw0").link().up);
    let index = lab.interface("sw0").info().expect("facts").index;
    let mut tap = lab.wire("sw0");
    exchange(&mut tap, Some(&mut ours), TAP, A);
    exchange(&mut ours, Some(&mut tap), A, TAP);
    // A successor that gives up leaves the interface alone.
    lab.run(|| {
        let here = Here::new();
        let mut successor = Successor::ask(&socket, "0.0.0").expect("it is heard");
        successor.prepare(&here.switch, |_| Ok(())).expect("it is prepared");
        successor.begin(&here.switch).expect("it begins");
    });
    exchange(&mut tap, Some(&mut ours), TAP, A);
    exchange(&mut ours, Some(&mut tap), A, TAP);

    let mut upgrading = upgrade(&lab, &socket, &[]);
    let (mut sent, mut came) = (0_u32, 0_u32);
    let until = Instant::now() + PATIENCE;
    let mut ended = false;
    while !ended || came < sent {
        assert!(Instant::now() < until, "{came} of {sent} frames came");
        if !ended && sent - came < 64 {
            Station::send(&mut tap, &frame(TAP, A, sent, 128));
            sent += 1;
        }
        for got in Station::receive(&mut ours).iter().filter(|got| got.get(12..14) == Some(&[0x88, 0xb5])) {
            assert_eq!(*got, frame(TAP, A, came, 128), "the next frame, once");
            came += 1;
        }
        ended = ended || upgrading.0.try_wait().expect("a child").is_some();
    }
    let (success, said) = upgrading.end();
    assert!(success && said.contains("2 ports stayed connected, 0 were opened anew"), "{said}");
    let next = Orphan(client(&socket).version().expect("it answers").pid);
    wait_until("the first switch to end", || first.0.try_wait().expect("a child").is_some());
    exchange(&mut ours, Some(&mut tap), A, TAP);
    assert_eq!(lab.interface("sw0").info().expect("facts").index, index, "it is the same interface");
    let addresses = lab.output("ip", &["addr", "show", "dev", "sw0"]).expect("ip runs");
    assert!(String::from_utf8_lossy(&addresses.stdout).contains("10.9.0.1/24"));
    next.end();
}

/// A guest that pings the tap, and says how often its carrier has changed.
const SCRIPT: &str = r#"#!/bin/sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev
for round in 1 2 3; do for m in /mods/*.ko; do insmod $m 2>/dev/null; done; done
echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6
ip addr add 10.9.0.9/24 dev eth0; ip link set eth0 up
ping -c 3 -W 5 10.9.0.1 > /dev/null
echo "READY $(cat /sys/class/net/eth0/carrier_changes)"
ping -c 100 -i 0.1 -W 60 10.9.0.1 > /out & P=$!
read go
wait $P
echo "pings $(grep transmitted /out)"
echo "CHANGES $(cat /sys/class/net/eth0/carrier_changes)"
read go
poweroff -f
"#;

#[test]
fn a_guest_sees_no_link_event() {
    const TEST: &str = "a_guest_sees_no_link_event";
    let Some(lab) = Lab::new(TEST) else { return };
    let Some(parts) = Parts::find(TEST, Kernel::Net) else { return };
    let scratch = Scratch::new(TEST);
    let (g, socket) = (scratch.join("g.sock"), scratch.join("control"));
    let (mut first, mut asked) = start(&lab, &scratch, &["--tap", "sw0", "--port", &g.display().to_string()]);
    wait_until("the ports", || asked.port_list().is_ok_and(|ports| ports.len() == 2));
    lab.ip("addr add 10.9.0.1/24 dev sw0");
    lab.ip("link set sw0 up");
    // QEMU 7.2 without KVM crashes with message-signalled interrupts. A socket that is not connected again when it is lost.
    let devices = [
        "-chardev".into(),
        format!("socket,id=c,path={}", g.display()),
        "-netdev".into(),
        "vhost-user,id=n,chardev=c".into(),
        "-device".into(),
        "virtio-net-pci,netdev=n,mac=02:00:00:00:00:09,vectors=0,romfile=".into(),
    ];
    let mut guest = Guest::boot(&parts, scratch.path(), SCRIPT, &devices);
    let before = guest.expect("READY", Duration::from_secs(120));
    let mut running: Option<Orphan> = None;
    for _ in 0..3 {
        let (success, said) = upgrade(&lab, &socket, &[]).end();
        assert!(success && said.contains("2 ports stayed connected"), "{said}");
        running.replace(Orphan(client(&socket).version().expect("it answers").pid));
    }
    wait_until("the first switch to end", || first.0.try_wait().expect("a child").is_some());
    guest.type_line("");
    let pings = guest.expect("pings", Duration::from_secs(120));
    assert!(pings.contains("100 packets transmitted, 100 packets received"), "{pings}");
    let after = guest.expect("CHANGES", Duration::from_secs(120));
    assert_eq!(after.split(' ').next_back(), before.split(' ').next_back(), "the carrier has not changed");
    guest.type_line("");
    running.expect("there is one").end();
}

/// What cannot change hands is closed by the one and opened by the other.
#[test]
fn other_devices_are_opened_anew() {
    const TEST: &str = "other_devices_are_opened_anew";
    let Some(lab) = Lab::new(TEST) else { return };
    let scratch = Scratch::new(TEST);
    let [a, far, nobody] = ["a.sock", "far.sock", "nobody.sock"].map(|name| scratch.join(name));
    let mut backend = Ours::start(&format!("net_vhost0,iface={}", far.display()));
    let device = format!("net_virtio_user0,path={}", far.display());
    let arguments = ["--port", &a.display().to_string(), "--vdev", &device];
    let (mut first, mut asked) = start(&lab, &scratch, &arguments);
    let waits = PortSpec::new("waits", PortKind::VhostUserFd { origin: None });
    let listener = std::os::unix::net::UnixListener::bind(&nobody).expect("a listener");
    asked.port_add(&waits, Some(std::os::fd::AsFd::as_fd(&listener))).expect("it is added");
    drop(listener);
    let mut ours = Ours::start(&frontend_vdev(&a, "mac=02:00:00:00:00:01"));
    ours.wait_for_link(true);
    backend.wait_for_link(true);
    exchange(&mut ours, Some(&mut backend), A, B);
    let socket = scratch.join("control");
    let (success, said) = upgrade(&lab, &socket, &[]).end();
    assert!(success && said.contains("2 ports stayed connected, 1 were opened anew"), "{said}");
    let mut asked = client(&socket);
    let next = Orphan(asked.version().expect("it answers").pid);
    wait_until("the first switch to end", || first.0.try_wait().expect("a child").is_some());
    backend.wait_for_link(true);
    ours.wait_for_link(true);
    wait_until("frames to pass again", || {
        Station::send(&mut ours, &frame(A, B, 7, 64));
        Station::receive(&mut backend).contains(&frame(A, B, 7, 64))
    });
    // A socket that was passed has come along, too.
    let mut third = Ours::start(&frontend_vdev(&nobody, "mac=02:00:00:00:00:03"));
    third.wait_for_link(true);
    drop((third, ours));
    next.end();
    assert!(nobody.exists(), "its maker removes it");
}

/// A frontend that does not read its answers keeps its port from being between two requests: it alone is disconnected.
#[test]
fn a_frontend_that_keeps_its_port_busy_is_not_waited_for() {
    const TEST: &str = "a_frontend_that_keeps_its_port_busy_is_not_waited_for";
    /// GET_FEATURES, version 1, no payload.
    const REQUEST: [u8; 12] = [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    let Some(mut scene) = Scene::new(TEST, "") else { return };
    let stuck = scene.scratch.join("stuck.sock");
    let kind = PortKind::VhostUser { path: stuck.clone(), client: false, mode: None, group: None };
    client(&scene.socket).port_add(&PortSpec::new("stuck", kind), None).expect("it is added");
    let mut hostile = UnixStream::connect(&stuck).expect("it listens");
    // More answers than the socket holds.
    hostile.write_all(&REQUEST.repeat(1000)).expect("they are read");
    let mut upgrading = upgrade(&scene.lab, &scene.socket, &[]);
    scene.pair.pump_until(|| upgrading.0.try_wait().expect("a child").is_some());
    let (success, said) = upgrading.end();
    assert!(success, "{said}");
    let next = Orphan(client(&scene.socket).version().expect("it answers").pid);
    wait_until("the first switch to end", || scene.running.0.try_wait().expect("a child").is_some());
    // What is there to read has an end; requests that nobody read make it a reset.
    hostile.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    if let Err(error) = hostile.read_to_end(&mut Vec::new()) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
    scene.pair.settle();
    assert_eq!(scene.pair.connections(), scene.connections, "nobody else was disconnected");
    let mut again = Ours::start(&frontend_vdev(&stuck, "mac=02:00:00:00:00:09"));
    again.wait_for_link(true);
    drop((again, scene.pair));
    next.end();
    assert!(!stuck.exists());
}

/// The service manager is told which process is the service, and the control socket's clients find the new switch.
#[test]
fn the_service_manager_is_told_of_the_successor() {
    const TEST: &str = "the_service_manager_is_told_of_the_successor";
    let Some(lab) = Lab::new(TEST) else { return };
    let scratch = Scratch::new(TEST);
    let [manager, a] = ["manager", "a.sock"].map(|name| scratch.join(name));
    let told = std::os::unix::net::UnixDatagram::bind(&manager).expect("a socket");
    told.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let hear = || {
        let mut text = [0; 256];
        let len = told.recv(&mut text).expect("the switch says something");
        String::from_utf8_lossy(&text[..len]).into_owned()
    };
    let metrics = format!("unix:{}", scratch.join("metrics").display());
    let arguments = ["--port", &a.display().to_string(), "--metrics", &metrics];
    let (mut first, mut kept) =
        start_with(&lab, &scratch, &arguments, &[("NOTIFY_SOCKET", manager.as_path())]);
    assert!(hear().starts_with("READY=1\n"));
    let socket = scratch.join("control");
    let (success, said) = upgrade(&lab, &socket, &[]).end();
    assert!(success, "{said}");
    let mut asked = client(&socket);
    let next = Orphan(asked.version().expect("it answers").pid);
    assert_eq!(hear(), format!("MAINPID={}\n", next.0));
    wait_until("the first switch to end", || first.0.try_wait().expect("a child").is_some());
    assert!(kept.version().is_err(), "a connection to the earlier switch is of no use any more");
    wait_until("counters", || UnixStream::connect(scratch.join("metrics")).is_ok());
    drop(asked);
    next.end();
    assert!(scratch.entries().iter().all(|name| name.ends_with("manager")), "{:?}", scratch.entries());
}
