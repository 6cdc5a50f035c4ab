//! What goes wrong around a switch harms nobody who has no part in it: two ports that form a loop, a disk that is full, nonsense
//! at the control socket. Bystanders' frames all arrive meanwhile, as they were sent.

mod support;

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use linecard_lab::{Lab, skip, wait_for, wait_until};
use linecard_switch::api::{Client, FdbFilter, FdbStatic, PortInfo, PortKind, PortSpec, Span};
use support::Scratch;
use support::example::Running;
use support::ours::{Ours, frontend_vdev};
use support::switch::{Station, end, exchange, frame};

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Starts the switch with one worker, by `wrapper` if that is not empty; what it says goes into the file `said`.
fn start(lab: &Lab, scratch: &Scratch, wrapper: &[&str], arguments: &[&str]) -> (Running, Client) {
    let socket = scratch.join("control");
    let program = [wrapper, &[env!("CARGO_BIN_EXE_linecard")]].concat();
    let said = std::fs::File::create(scratch.join("said")).expect("a file");
    let spawn = || {
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).args(["switch", "--no-huge", "--lcores", "0@0", "--no-telemetry"]);
        command.arg("--socket").arg(&socket).args(arguments).stdout(Stdio::null()).stderr(said).spawn()
    };
    let running = Running(lab.run(spawn).expect("it starts"));
    let mut client = wait_for("the control socket", || Client::connect(&socket).ok());
    client.set_patience(std::time::Duration::from_secs(60)).expect("a socket");
    // It is answered once its ports are there.
    client.version().expect("it answers");
    (running, client)
}

/// Two stations that have no part in what goes wrong.
struct Bystanders {
    ours: Ours,
    other: Ours,
}

impl Bystanders {
    /// Arguments for ports `a` and `b`.
    fn ports(scratch: &Scratch) -> [String; 2] {
        ["a", "b"].map(|key| format!("{},key={key}", scratch.join(&format!("{key}.sock")).display()))
    }

    fn start(scratch: &Scratch) -> Self {
        let at = |key, mac: &str| Ours::start(&frontend_vdev(&scratch.join(key), &format!("mac={mac}")));
        let (mut ours, mut other) = (at("a.sock", "02:00:00:00:00:01"), at("b.sock", "02:00:00:00:00:02"));
        ours.wait_for_link(true);
        other.wait_for_link(true);
        Self { ours, other }
    }

    /// Both ways.
    fn exchange(&mut self) {
        exchange(&mut self.ours, Some(&mut self.other), OURS, OTHER);
        exchange(&mut self.other, Some(&mut self.ours), OTHER, OURS);
    }
}

fn ports(client: &mut Client, keys: [&str; 2]) -> [PortInfo; 2] {
    keys.map(|key| client.port_show(key).expect("it is there"))
}

/// Two taps of the switch are ports of one bridge of the kernel's, which sends back by either what came by the other.
#[test]
fn a_loop_through_a_bridge_of_the_kernel_ends() {
    let test = "a_loop_through_a_bridge_of_the_kernel_ends";
    let Some(lab) = Lab::new(test) else { return };
    let bridge = lab.output("ip", &["link", "add", "br0", "type", "bridge"]).expect("ip runs");
    if !bridge.status.success() {
        return skip(test, &format!("no bridge: {}", String::from_utf8_lossy(&bridge.stderr).trim()));
    }
    let scratch = Scratch::new(test);
    let [a, b] = Bystanders::ports(&scratch);
    let arguments = ["--tap", "t0", "--tap", "t1", "--port", &a, "--port", &b];
    let (running, mut client) = start(&lab, &scratch, &[], &arguments);
    lab.ip("link set br0 addrgenmode none");
    for name in ["t0", "t1", "br0"] {
        if name != "br0" {
            lab.ip(&format!("link set {name} master br0"));
        }
        lab.ip(&format!("link set {name} up"));
    }
    let mut all = Bystanders::start(&scratch);
    wait_until("the taps' links", || ["t0", "t1"].iter().all(|name| lab.interface(name).link().up));

    let everybody = frame(OURS, [0xff; 6], 0, 300);
    wait_until("a station that moves", || {
        // The bridge takes a moment to let the first one pass.
        Station::send(&mut all.ours, &everybody);
        all.exchange();
        ports(&mut client, ["t0", "t1"]).iter().any(|port| port.counters.drops.source_moves > 0)
    });
    let mut before = None;
    wait_until("the end of what went round", || {
        let now = ports(&mut client, ["t0", "t1"]).map(|port| port.counters.rx_packets);
        let same = before.replace(now) == Some(now);
        std::thread::sleep(std::time::Duration::from_millis(200));
        same
    });
    let known = client.fdb_list(&FdbFilter::default()).expect("a list");
    let places: Vec<_> = known.iter().filter(|entry| [OURS, OTHER].contains(&entry.mac.0)).collect();
    assert!(places.iter().all(|entry| ["a", "b"].contains(&entry.port.as_str())), "{places:?}");
    all.exchange();
    // It is told, in a line for a station and not for a frame.
    let said = || std::fs::read_to_string(scratch.join("said")).expect("text");
    wait_until("it is told", || {
        let said = said();
        said.contains("02:00:00:00:00:01 of VLAN 0 moved more than")
            && said.contains("and stays behind a for")
    });
    assert!(said().lines().count() < 200, "{}", said());
    end(running);
}

/// A small file system that only those see who enter the namespace of `holder`; it goes with that.
struct Disk {
    holder: Child,
    folder: PathBuf,
}

impl Disk {
    /// `None` where no file system can be mounted.
    fn at(folder: PathBuf) -> Option<Self> {
        std::fs::create_dir(&folder).expect("a folder");
        let script = format!(
            "mount -t tmpfs -o size=64k,mode=700 none {0} && touch {0}/here && exec sleep 1000000",
            folder.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]).stderr(Stdio::null());
        let mut disk = Self { holder: command.spawn().ok()?, folder };
        let here = disk.seen("here");
        let there = wait_for("a file system", || match disk.holder.try_wait() {
            Ok(None) => here.exists().then_some(true),
            _ => Some(false),
        });
        there.then_some(disk)
    }

    /// A file of it, as it is named from outside.
    fn seen(&self, name: &str) -> PathBuf {
        let inside = self.folder.join(name);
        Path::new(&format!("/proc/{}/root", self.holder.id()))
            .join(inside.strip_prefix("/").expect("absolute"))
    }

    /// The words to put before a command that is to see it.
    fn wrapper(&self) -> [String; 5] {
        let pid = self.holder.id().to_string();
        ["nsenter".into(), "--target".into(), pid, "--mount".into(), "--".into()]
    }

    /// Leaves no room for another byte.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.seen("fill")).expect("a file");
        while file.write_all(&[7; 512]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.seen("fill")).expect("it is there");
    }

    /// Writable, or not: this mount of it, as the file system's own options name users that a user namespace may not know.
    fn remount(&self, how: &str) {
        let wrapper = self.wrapper();
        let folder = self.folder.display().to_string();
        let mut command = Command::new(&wrapper[0]);
        command.args(&wrapper[1..]).args(["mount", "-o", &format!("remount,bind,{how}"), &folder]);
        assert!(command.status().expect("mount runs").success());
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.seen("")).expect("a folder").flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        names
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn socket_port(key: &str, path: &Path) -> PortSpec {
    let kind = PortKind::VhostUser { path: path.to_owned(), client: false, mode: None, group: None };
    PortSpec::new(key, kind)
}

/// Every request whose outcome is kept; each fails for want of room, in one sentence, and changes nothing.
fn nothing_can_be_kept(lab: &Lab, scratch: &Scratch, client: &mut Client, why: &str) {
    let station =
        |last| FdbStatic { mac: linecard::net::MacAddr([2, 0, 0, 0, 1, last]), vlan: 0, port: "a".into() };
    let tap = PortSpec::new("tap", PortKind::Tap { name: "sw0".into(), netns: None });
    let before =
        (client.port_list().expect("a list"), client.fdb_list(&FdbFilter::default()).expect("a list"));
    let span = Span { to: "b".into(), ingress: vec!["a".into()], egress: Vec::new() };
    // Again and again: what failed once must not stand in the way of the next try.
    for _ in 0..3 {
        let problems = [
            client.port_add(&socket_port("late", &scratch.join("late.sock")), None).err(),
            client.port_add(&tap, None).err(),
            client.fdb_add(&station(9)).err(),
            client.span_set(&span).err(),
            client.port_remove("early").err(),
        ];
        for (number, problem) in problems.into_iter().enumerate() {
            let text = problem.unwrap_or_else(|| panic!("request {number} succeeded")).to_string();
            assert!(text.contains(&format!("state.json cannot be written: {why}")), "{number}: {text}");
            assert!(
                text.ends_with("; name another file with --state") && text.lines().count() == 1,
                "{text}"
            );
        }
    }
    let keys = |ports: &[PortInfo]| ports.iter().map(|port| port.spec.key.clone()).collect::<Vec<_>>();
    assert_eq!(keys(&client.port_list().expect("a list")), keys(&before.0));
    let known = client.fdb_list(&FdbFilter::default()).expect("a list");
    assert_eq!(
        known.iter().filter(|entry| entry.fixed).count(),
        before.1.iter().filter(|entry| entry.fixed).count()
    );
    assert!(client.span_list().expect("a list").is_empty());
    assert!(!scratch.join("late.sock").exists(), "the socket of the port that is not there");
    let interface = lab.output("ip", &["link", "show", "sw0"]).expect("ip runs");
    assert!(!interface.status.success(), "the interface of the port that is not there");
}

#[test]
fn a_switch_whose_disk_is_full_does_nothing_that_it_could_not_keep() {
    let test = "a_switch_whose_disk_is_full_does_nothing_that_it_could_not_keep";
    let Some(lab) = Lab::new(test) else { return };
    let scratch = Scratch::new(test);
    let Some(disk) = Disk::at(scratch.join("disk")) else {
        return skip(test, "no file system of its own: it needs unshare, mount and the right to mount");
    };
    let state = disk.folder.join("state.json").display().to_string();
    let wrapper = disk.wrapper();
    let wrapper = wrapper.each_ref().map(String::as_str);
    let [a, b] = Bystanders::ports(&scratch);
    let arguments = ["--state", &state, "--port", &a, "--port", &b];
    let (running, mut client) = start(&lab, &scratch, &wrapper, &arguments);
    let early = socket_port("early", &scratch.join("early.sock"));
    assert!(client.port_add(&early, None).expect("there is room").created);
    let mut all = Bystanders::start(&scratch);
    all.exchange();

    let kept = std::fs::read(disk.seen("state.json")).expect("it is written");
    for why in ["No space left on device", "Read-only file system"] {
        if why.starts_with("No space") {
            disk.fill()
        } else {
            disk.remount("ro")
        }
        nothing_can_be_kept(&lab, &scratch, &mut client, why);
        all.exchange();
        assert_eq!(std::fs::read(disk.seen("state.json")).expect("it is there"), kept, "{why}");
        if why.starts_with("No space") {
            disk.free()
        } else {
            disk.remount("rw")
        }
        assert_eq!(disk.files(), ["here", "state.json"], "{why}: nothing half written");
    }

    // With room again the same requests succeed, and a switch that starts anew has what they came to.
    let late = socket_port("late", &scratch.join("late.sock"));
    assert!(client.port_add(&late, None).expect("there is room").created);
    assert!(client.port_remove("early").expect("there is room"));
    all.exchange();
    for port in ports(&mut client, ["a", "b"]) {
        assert_eq!((port.counters.drops.tx_full, port.counters.drops.port_down), (0, 0), "{port:?}");
    }
    drop((client, all));
    end(running);
    // While it ends as while it starts, what is kept stays.
    disk.fill();
    let (running, mut client) = start(&lab, &scratch, &wrapper, &arguments);
    let keys: Vec<_> = client.port_list().expect("a list").into_iter().map(|port| port.spec.key).collect();
    assert_eq!(keys, ["a", "b", "late"]);
    let mut all = Bystanders::start(&scratch);
    all.exchange();
    drop((client, all));
    end(running);
}

/// Lines that are no requests, and requests that cannot be granted.
fn nonsense(round: u32) -> Vec<u8> {
    let deep = |open: &str| open.repeat(20_000).into_bytes();
    match round % 10 {
        0 => b"\n".to_vec(),
        1 => b"{\n".to_vec(),
        2 => b"{\"id\":1}\n[]\n\"\"\n7\n".to_vec(),
        3 => [deep("["), b"\n".to_vec()].concat(),
        4 => [deep("{\"a\":"), b"\n".to_vec()].concat(),
        5 => vec![b'x'; 2 << 20],
        6 => (0..4096_u32).map(|at| (at.wrapping_mul(round.wrapping_add(7919)) >> 3) as u8).collect(),
        7 => b"{\"id\":1,\"method\":\"port.add\",\"params\":{\"key\":\"x\",\"type\":\"vdev\",\"device\":\"net_nothing\"}}\n".to_vec(),
        8 => b"{\"id\":1,\"method\":\"upgrade\",\"params\":{\"format\":77}}\n".to_vec(),
        _ => b"{\"id\":1,\"method\":\"port.list\"".to_vec(),
    }
}

/// Says it, and maybe goes without waiting for the answer.
fn say(socket: &Path, round: u32) {
    use std::io::Read as _;
    let Ok(mut stream) = UnixStream::connect(socket) else { return };
    let patience = std::time::Duration::from_millis(100);
    stream.set_read_timeout(Some(patience)).expect("a timeout");
    stream.set_write_timeout(Some(patience)).expect("a timeout");
    // It may be closed by then.
    let _ = stream.write_all(&nonsense(round));
    if !round.is_multiple_of(3) {
        let _ = stream.read(&mut [0; 4096]);
    }
}

#[test]
fn bystanders_lose_nothing_while_others_talk_nonsense() {
    let test = "bystanders_lose_nothing_while_others_talk_nonsense";
    let Some(lab) = Lab::new(test) else { return };
    let scratch = Scratch::new(test);
    let [a, b] = Bystanders::ports(&scratch);
    let state = scratch.join("no such folder").join("state.json").display().to_string();
    let (running, mut client) = start(&lab, &scratch, &[], &["--state", &state, "--port", &a, "--port", &b]);
    let mut all = Bystanders::start(&scratch);
    all.exchange();
    let (socket, done) = (scratch.join("control"), AtomicBool::new(false));
    let rounds = [const { AtomicU32::new(0) }; 4];
    let count = |which: usize| rounds[which].fetch_add(1, Ordering::Relaxed);
    let going = || !done.load(Ordering::Relaxed);
    /// Whoever waits for the end is told also when this test fails.
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let ctl = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_linecard"));
        command.args(["switch", "ctl", "--socket"]).arg(&socket).args(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null());
        command
    };
    std::thread::scope(|scope| {
        let _done = Done(&done);
        scope.spawn(|| {
            while going() {
                say(&socket, count(0))
            }
        });
        // Ports that come to be, and are taken back as they cannot be kept.
        scope.spawn(|| {
            while going() {
                let path = scratch.join("c.sock");
                let mut client = Client::connect(&socket).expect("it answers");
                client.set_patience(std::time::Duration::from_secs(60)).expect("a socket");
                client.port_add(&socket_port("c", &path), None).expect_err("it cannot be kept");
                count(1);
            }
        });
        // Programs that fail to take over, and clients that are killed at any moment.
        scope.spawn(|| {
            while going() {
                let upgrade = ctl(&["upgrade", "--exec", "/bin/false"]).status().expect("it runs");
                assert!(!upgrade.success());
                count(2);
            }
        });
        scope.spawn(|| {
            while going() {
                let mut top = ctl(&["top"]).spawn().expect("it runs");
                std::thread::sleep(std::time::Duration::from_millis(u64::from(count(3) % 40)));
                top.kill().expect("it runs");
                top.wait().expect("it ends");
            }
        });
        wait_until("enough of each", || {
            all.exchange();
            rounds
                .iter()
                .zip([60, 20, 5, 20])
                .all(|(rounds, enough)| rounds.load(Ordering::Relaxed) >= enough)
        });
    });
    for port in ports(&mut client, ["a", "b"]) {
        let mut drops = port.counters.drops.clone();
        // Where one station had said nothing yet, the other's frames went to the ports that came and went, too.
        drops.port_down = 0;
        assert_eq!(drops.total(), 0, "{port:?}");
    }
    assert_eq!(client.port_list().expect("a list").len(), 2);
    end(running);
    assert_eq!(scratch.entries(), ["said"], "nothing is left behind");
}
