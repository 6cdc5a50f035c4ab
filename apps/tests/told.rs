//! What a user must know is said at the default level, without being asked for.

mod common;

use std::io::{Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use common::{PATIENCE, Running, Scratch, linecard, run, skip, testpmd};
use linecard_lab::{Lab, wait_until};

/// A testpmd with a console, and what it has said so far.
struct Console {
    running: Running,
    typed: ChildStdin,
    shown: Arc<Mutex<String>>,
    said: Arc<Mutex<String>>,
}

/// Collects what comes from a pipe.
fn collect(mut from: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let all = Arc::new(Mutex::new(String::new()));
    let to = Arc::clone(&all);
    std::thread::spawn(move || {
        let mut bytes = [0; 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            to.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    });
    all
}

impl Console {
    /// Starts one and waits for its prompt: its port is started then.
    fn start(device: &str, app: &[&str]) -> Self {
        Self::of(&mut testpmd(&["-m", "64", "--in-memory", "--vdev", device], app))
    }

    /// The same with any command that has a prompt.
    fn of(command: &mut Command) -> Self {
        let mut running = Running::start(command.stdin(Stdio::piped()));
        let typed = running.0.stdin.take().unwrap();
        let shown = collect(running.0.stdout.take().unwrap());
        let said = collect(running.0.stderr.take().unwrap());
        let console = Self { running, typed, shown, said };
        wait_until("the prompt", || console.shown.lock().unwrap().contains("testpmd>"));
        console
    }

    fn type_in(&mut self, line: &str) {
        self.typed.write_all(format!("{line}\n").as_bytes()).expect("it listens");
    }

    /// Types a line and waits for the prompt behind its answer.
    fn ask(&mut self, line: &str) {
        let prompts = |console: &Self| console.shown.lock().unwrap().matches("testpmd>").count();
        let before = prompts(self);
        self.type_in(line);
        wait_until("the next prompt", || prompts(self) > before);
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    fn until_it_says(&self, text: &str) {
        wait_until(&format!("'{text}' is said"), || self.said().contains(text));
    }

    fn quit(mut self) {
        self.type_in("quit");
        let said = self.said();
        assert_eq!(self.running.end(PATIENCE).code, Some(0), "{said}");
    }
}

#[test]
fn queues_that_do_not_come_here() {
    const TEST: &str = "queues_that_do_not_come_here";
    let Some(lab) = Lab::with_xdp(TEST) else { return };
    let queues = "numrxqueues 4 numtxqueues 4";
    lab.ip(&format!("link add near {queues} type veth peer name far {queues}"));
    lab.ip("link set near up");
    lab.ip("link set far up");
    let device = format!("net_af_xdp0,iface=near,netns={}", lab.path());
    let said = run(&mut testpmd(&["-m", "64", "--vdev", &device], &["-i"]), b"quit\n");
    assert_eq!(said.code, Some(0), "{said:?}");
    let parts = ["1 of the 4 receive queues of near", "queue_count=4", "ethtool -L near combined 1"];
    assert!(parts.iter().all(|part| said.err.contains(part)), "{said:?}");
    let all = format!("{device},queue_count=4");
    let mut command = testpmd(&["-m", "64", "--vdev", &all], &["-i", "--rxq=4", "--txq=4"]);
    let said = run(&mut command, b"quit\n");
    assert!(said.code == Some(0) && !said.err.contains("receive queues"), "{said:?}");
}

#[test]
fn a_namespace_that_lives_on_for_a_port() {
    let Some(lab) = Lab::new("a_namespace_that_lives_on_for_a_port") else { return };
    let holder = lab.run(|| Command::new("sleep").arg("1000").spawn()).expect("sleep");
    let mut holder = Running(holder);
    let device = format!("net_tap0,iface=t,netns=/proc/{}/ns/net", holder.0.id());
    let mut console = Console::start(&device, &["-i"]);
    wait_until("the port", || lab.ip("link show up").contains(" t:"));
    console.ask("show port info 0");
    holder.0.kill().expect("it runs");
    holder.0.wait().expect("it ran");
    assert!(!console.said().contains("was deleted"), "{}", console.said());
    console.type_in("show port info 0");
    console.until_it_says("was deleted, and lives on for this port alone; close the port");
    console.quit();
}

#[test]
fn an_interface_that_was_made_again_is_used() {
    let Some(lab) = Lab::new("an_interface_that_was_made_again_is_used") else { return };
    lab.veth("one", "two");
    let mut console = Console::start(&format!("net_af_packet0,iface=one,netns={}", lab.path()), &["-i"]);
    let promiscuous = || lab.ip("-d link show one").contains("promiscuity 1");
    wait_until("the port", promiscuous);
    lab.ip("link del one");
    lab.veth("one", "two");
    console.type_in("port stop 0\nport start 0");
    wait_until("the port, again", promiscuous);
    console.quit();
}

#[test]
fn why_a_frontend_was_dropped() {
    let scratch = Scratch::new();
    let socket = scratch.file("v.sock");
    let console = Console::start(&format!("net_vhost0,iface={socket}"), &["-i"]);
    wait_until("the socket", || UnixStream::connect(&socket).is_ok());
    // One of version 3, which there is not.
    wait_until("it is dropped with its reason", || {
        let Ok(mut stream) = UnixStream::connect(&socket) else { return false };
        let _ = stream.write_all(&[1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        let said = console.said();
        said.contains("WARN") && said.contains("frontend disconnected") && said.contains("reason=")
    });
    console.quit();
}

#[test]
fn why_there_is_no_backend_any_more() {
    let scratch = Scratch::new();
    let socket = scratch.file("v.sock");
    let backend = Console::start(&format!("net_vhost0,iface={socket}"), &["-i"]);
    let frontend = Console::start(&format!("net_virtio_user0,path={socket}"), &["-i"]);
    backend.quit();
    frontend.until_it_says("link down");
    frontend.until_it_says("not connected: cannot connect to");
    assert_eq!(frontend.said().matches("No such file").count(), 1, "once: {}", frontend.said());
    frontend.quit();
}

/// There are ten attempts a second; each reason is told once, until another comes between.
#[test]
fn why_there_is_no_frontend_yet() {
    let scratch = Scratch::new();
    let socket = scratch.file("v.sock");
    let console = Console::start(&format!("net_vhost0,iface={socket},client=1"), &["-i"]);
    console.until_it_says(&format!("not connected to {socket}: No such file"));
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    console.until_it_says(&format!("not connected to {socket}: Connection refused"));
    let said = console.said();
    assert_eq!(said.matches("No such file").count(), 1, "once: {said}");
    console.quit();
    std::fs::remove_file(&socket).unwrap();
}

#[test]
fn sockets_for_others() {
    let scratch = Scratch::new();
    for (name, device) in [("a", "net_vhost0,iface="), ("b", "net_virtio_user0,server=1,path=")] {
        let socket = scratch.file(name);
        let console = Console::start(&format!("{device}{socket},mode=0666"), &["-i"]);
        let mode = || std::fs::metadata(&socket).map_or(0, |data| data.permissions().mode() & 0o777);
        wait_until("a socket for all", || mode() == 0o666);
        console.quit();
        for (wrong, part) in [
            ("mode=0777", "'mode=0777' is not possible"),
            ("group=none-such", "there is no group 'none-such'"),
        ] {
            let device = format!("{device}{socket},{wrong}");
            let said = run(&mut testpmd(&["-m", "32", "--vdev", &device], &["-i"]), b"");
            assert!(said.code == Some(1) && said.err.contains(part), "{said:?}");
        }
    }
    let device = format!("net_vhost0,iface={},client=1,group=root", scratch.file("c"));
    let said = run(&mut testpmd(&["-m", "32", "--vdev", &device], &["-i"]), b"");
    assert!(said.code == Some(1) && said.err.contains("client=1 makes none"), "{said:?}");
    assert_eq!(scratch.entries(), [""; 0]);
}

/// The device opens for everybody; an interface takes a right that is tried, not guessed.
#[test]
fn the_doctor_tries_what_takes_rights() {
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_linecard"));
    if rustix::process::geteuid().is_root() {
        doctor = Command::new("setpriv");
        doctor.args(["--bounding-set=-net_admin,-net_raw", env!("CARGO_BIN_EXE_linecard")]);
    }
    let output = doctor.args(["doctor", "--json"]).output().expect("it runs");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    let checks = report["checks"].as_array().expect("a list");
    let of = |name: &str| checks.iter().find(|check| check["name"] == name).expect(name).clone();
    for name in ["tun", "packet-socket", "xdp-socket"] {
        assert_ne!(of(name)["status"], "ok", "{name}: {report}");
    }
    assert!(!report.to_string().contains("chmod"), "nobody is told to open a device to everybody");
}

/// A device that may not be opened is opened to this user, or a group, not to everybody.
#[test]
fn the_doctor_gives_devices_to_this_user_alone() {
    const TEST: &str = "the_doctor_gives_devices_to_this_user_alone";
    const DEVICES: [(&str, &str); 3] =
        [("tun", "/dev/net/tun"), ("vhost-net", "/dev/vhost-net"), ("vfio", "/dev/vfio/vfio")];
    // In a /dev of its own, where nobody may open the devices, without root's right to do it in spite of that.
    let script = "mount -t tmpfs none /dev && mkdir /dev/net /dev/vfio && for device; do : >$device && \
                  chmod 0 $device; done && \
                  exec setpriv --bounding-set=-dac_override,-dac_read_search \"$0\" doctor --json";
    let report = |program: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, program]);
        command.args(DEVICES.map(|(_, device)| device)).output()
    };
    if !report("true").is_ok_and(|output| output.status.success()) {
        return skip(TEST, "no user and mount namespaces for this user, or no program setpriv");
    }
    let output = report(env!("CARGO_BIN_EXE_linecard")).expect("it runs");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    let checks = report["checks"].as_array().expect("a list");
    for (name, device) in DEVICES {
        let check = checks.iter().find(|check| check["name"] == name).expect(name);
        assert_eq!(check["status"], "degraded", "{check}");
        assert_eq!(check["fix"], format!("sudo setfacl -m \"u:$(id -un):rw\" {device}"), "{check}");
    }
    assert!(!report.to_string().contains("chmod"), "{report}");
}

/// A command that runs a program without /proc.
fn without_proc(program: &Command) -> Command {
    let script = "mount -t tmpfs none /proc && exec \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
    command.arg(program.get_program()).args(program.get_args());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Whether programs can be run without /proc; reports that `test` is skipped if not.
fn can_hide_proc(test: &str) -> bool {
    let hidden = without_proc(&Command::new("true")).output().is_ok_and(|output| output.status.success());
    if !hidden {
        skip(test, "no user and mount namespaces for this user");
    }
    hidden
}

const MOUNT: &str = "mount -t proc proc /proc";

/// The ends of a demo are this program again, by its link in /proc.
#[test]
fn a_demo_asks_for_proc_where_there_is_none() {
    if !can_hide_proc("a_demo_asks_for_proc_where_there_is_none") {
        return;
    }
    let scratch = Scratch::new();
    let mut command = without_proc(&linecard(&["demo", "--seconds=1"]));
    let said = run(command.env("TMPDIR", scratch.path()), b"");
    assert_eq!(said.code, Some(1), "{said:?}");
    let error = said.err.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
    assert!(error.contains(MOUNT) && error.contains("/proc/self/exe"), "{said:?}");
    wait_until("an empty place", || scratch.entries().is_empty());
}

/// Sockets are connected to, and given their permissions, by links in /proc. Without, neither the peer nor
/// another process is to blame.
#[test]
fn sockets_ask_for_proc_where_there_is_none() {
    if !can_hide_proc("sockets_ask_for_proc_where_there_is_none") {
        return;
    }
    let scratch = Scratch::new();
    let (living, stale, new) = (scratch.file("living"), scratch.file("stale"), scratch.file("new"));
    let _listener = std::os::unix::net::UnixListener::bind(&living).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let hidden =
        |device: &str| without_proc(&testpmd(&["-m", "32", "--in-memory", "--vdev", device], &["-i"]));
    for (device, socket) in [
        (format!("net_virtio_user0,path={living}"), &living),
        (format!("net_vhost0,iface={living}"), &living),
        (format!("net_vhost0,iface={stale}"), &stale),
        (format!("net_virtio_user0,server=1,path={stale}"), &stale),
        (format!("net_vhost0,iface={new},mode=0666"), &new),
        (format!("net_virtio_user0,server=1,path={new},group=0"), &new),
    ] {
        let said = run(&mut hidden(&device), b"");
        assert_eq!(said.code, Some(1), "{device}: {said:?}");
        let want = format!("socket {socket} needs /proc, which is not mounted here; mount it with '{MOUNT}'");
        let error = said.err.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        assert!(error.ends_with(&want), "{device}: {said:?}");
    }
    let mut entries = scratch.entries();
    entries.sort_unstable();
    assert_eq!(entries, ["living", "stale"], "what was made is removed");
    // What needs none works.
    let console = Console::of(&mut hidden(&format!("net_vhost0,iface={new}")));
    console.quit();
    // A backend that connects goes on trying.
    let console = Console::of(&mut hidden(&format!("net_vhost0,iface={living},client=1")));
    console.until_it_says(&format!("not connected to {living}: sockets need /proc"));
    assert!(console.said().contains(MOUNT), "{}", console.said());
    console.quit();
}

/// Without /proc nothing is known of some things; whoever asks is told to mount it, not to change the kernel.
#[test]
fn the_doctor_asks_for_proc_where_there_is_none() {
    if !can_hide_proc("the_doctor_asks_for_proc_where_there_is_none") {
        return;
    }
    let output = without_proc(&linecard(&["doctor", "--json"])).output().expect("it runs");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    let checks = report["checks"].as_array().expect("a list");
    let of = |name: &str| checks.iter().find(|check| check["name"] == name).expect(name).clone();
    let mut unknown = vec![of("tsc")];
    // The device tells it too, where there is one.
    if !std::path::Path::new("/dev/userfaultfd").exists() {
        unknown.push(of("userfaultfd"));
    }
    for check in unknown {
        assert_eq!(check["status"], "degraded", "{check}");
        assert!(check["detail"].as_str().is_some_and(|detail| detail.contains("without /proc")), "{check}");
        assert_eq!(check["fix"], "sudo mount -t proc proc /proc", "{check}");
    }
}
