//! `linecard switch` killed (`kill -9`) under traffic: the next process goes on with the connections, and no peer is
//! disconnected. The service manager is our keeper (`--keep`) or this test.

mod support;

use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use linecard_lab::{Lab, PATIENCE, wait_until};
use linecard_switch::api::{Client, PortKind, PortSpec};
use rustix::process::Signal;
use support::Scratch;
use support::console::{Kind, present};
use support::example::Running;
use support::guest::{Guest, Kernel, Parts};
use support::kill::{Lossy, LossyPair, connections, kills};
use support::ours::{Ours, frontend_vdev};
use support::peer::{forward, idle};
use support::switch::{Station, end, exchange, frame, start};
use support::upgrade::{A, B, Orphan, client, median, upgrade};

/// Most frames that a worker has in its hands.
const BURST: u64 = 64;

/// Ends the switch at a socket when a test fails: its keeper is killed then, and the switch would go on.
struct Leftover(std::path::PathBuf);

impl Drop for Leftover {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(pid) = next(&self.0, 0)
        {
            drop(Orphan(pid));
        }
    }
}

/// Kills the process of the switch at `socket` once its ports are kept; its number.
fn kill(socket: &Path) -> u32 {
    let pid = client(socket).version().expect("it answers").pid;
    wait_until("the ports to be kept", || ports_rest(pid));
    signal(pid, Signal::KILL);
    pid
}

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a process");
    rustix::process::kill_process(pid, signal).expect("it runs");
}

/// The process of the switch at `socket`, once it is another than `earlier`.
fn next(socket: &Path, earlier: u32) -> Option<u32> {
    let mut client = Client::connect(socket).ok()?;
    client.set_patience(PATIENCE).ok()?;
    client.version().ok().map(|version| version.pid).filter(|pid| *pid != earlier)
}

/// Rounds of traffic, a kill, traffic.
fn killed_under_traffic(test: &str, options: &str) {
    let Some(lab) = Lab::new(test) else { return };
    let scratch = Scratch::new(test);
    let [a, b, socket] = ["a.sock", "b.sock", "control"].map(|name| scratch.join(name));
    let _leftover = Leftover(socket.clone());
    let (running, mut asked) = start(&lab, &scratch, &["--keep", "--port", &a.display().to_string()]);
    let two = PortKind::VhostUser { path: b.clone(), client: false, mode: None, group: None };
    let two = PortSpec { mac: Some(linecard::net::MacAddr(B)), ..PortSpec::new("two", two) };
    assert!(asked.port_add(&two, None).expect("it is added").created);
    drop(asked);
    let mut pair = LossyPair::connect([&a, &b], options);
    let both = || [&a, &b].map(|path| connections(path));
    let connected = both();
    assert!(connected.iter().all(|inodes| inodes.len() == 1), "{connected:?}");
    let gap = |pair: &mut LossyPair| {
        let pid = client(&socket).version().expect("it answers").pid;
        pair.pump_until(|| ports_rest(pid));
        pair.gap();
        signal(pid, Signal::KILL);
        pair.pump_until(|| next(&socket, pid).is_some());
        pair.gap()
    };
    let mut gaps: Vec<_> = (1..kills()).map(|_| gap(&mut pair)).collect();
    // The keeper watches a successor as well, which it did not start.
    let mut upgrading = upgrade(&lab, &socket, &[]);
    pair.pump_until(|| upgrading.0.try_wait().expect("a child").is_some());
    let (success, told) = upgrading.end();
    assert!(success, "{told}");
    gaps.push(gap(&mut pair));
    assert_eq!(both(), connected, "nobody was disconnected");
    assert_eq!(client(&socket).port_show("two").expect("it is there").spec, two);
    let kills = kills() as u64;
    for (way, flow) in [("there", &pair.there), ("back", &pair.back)] {
        let Lossy { came, lost, doubled, longer, .. } = flow;
        eprintln!(
            "{test}, {way}: {kills} kills, {came} frames came, {lost} lost, {doubled} twice, {longer} longer"
        );
        assert!(*lost <= kills * BURST && *doubled <= kills * BURST, "no more than a burst each time");
        assert!(*longer <= if options.contains("packed") { kills } else { 0 });
    }
    let (median, worst) = median(gaps);
    eprintln!(
        "{test}: longest gap at a station: median {} µs, worst {} µs",
        median.as_micros(),
        worst.as_micros()
    );
    drop(pair);
    end(running);
    let names = scratch.entries();
    assert_eq!(names.len(), 1, "only the state stays: {names:?}");
}

#[test]
fn killed_under_traffic_with_split_rings() {
    killed_under_traffic("killed_under_traffic_with_split_rings", "");
}

#[test]
fn killed_under_traffic_with_packed_rings() {
    killed_under_traffic("killed_under_traffic_with_packed_rings", ",packed_vq=1,in_order=0");
}

/// These do not tell where they stand: the switch records it.
#[test]
fn killed_under_traffic_with_packed_rings_in_order() {
    killed_under_traffic("killed_under_traffic_with_packed_rings_in_order", ",packed_vq=1,in_order=1");
}

/// Frames pass from one station to the other, after as many attempts as it takes.
fn passes(from: &mut dyn Station, to: &mut dyn Station, [source, destination]: [[u8; 6]; 2]) {
    wait_until("frames to pass again", || {
        from.send(&frame(source, destination, 7, 64));
        to.receive().contains(&frame(source, destination, 7, 64))
    });
}

/// A tap keeps its carrier and its addresses, and DPDK's testpmd its connection, which it would not make again.
#[test]
fn a_tap_and_dpdk_go_on() {
    const TEST: &str = "a_tap_and_dpdk_go_on";
    const TAP: [u8; 6] = [2, 0, 0, 0, 0, 3];
    let Some(lab) = Lab::new(TEST) else { return };
    if !present(Kind::Dpdk, TEST) {
        return;
    }
    for packed in [0, 1] {
        let scratch = Scratch::new(TEST);
        let [d, socket] = ["d.sock", "control"].map(|name| scratch.join(name));
        let _leftover = Leftover(socket.clone());
        let arguments = ["--keep", "--tap", "sw0", "--port", &d.display().to_string()];
        let (running, mut asked) = start(&lab, &scratch, &arguments);
        wait_until("the ports", || asked.port_list().is_ok_and(|ports| ports.len() == 2));
        drop(asked);
        let device = format!(
            "net_virtio_user0,path={},queue_size=256,mac=02:00:00:00:00:02,packed_vq={packed}",
            d.display()
        );
        let mut testpmd = idle(Kind::Dpdk, &[&device], "kill", &[]);
        forward(&mut testpmd, "macswap");
        lab.ip("addr add 10.9.0.1/24 dev sw0");
        wait_until("the tap's link", || lab.interface("sw0").link().up);
        let index = lab.interface("sw0").info().expect("facts").index;
        let mut tap = lab.wire("sw0");
        // What it sends comes back with its addresses exchanged.
        let back = |tap: &mut dyn Station, number| {
            wait_until("frames to come back", || {
                tap.send(&frame(TAP, B, number, 128));
                tap.receive().contains(&{
                    let mut back = frame(TAP, B, number, 128);
                    back[..6].copy_from_slice(&TAP);
                    back[6..12].copy_from_slice(&B);
                    back
                })
            });
        };
        back(&mut tap, 0);
        for number in 1..=3 {
            let pid = kill(&socket);
            wait_until("another process", || next(&socket, pid).is_some());
            back(&mut tap, number);
            assert_eq!(lab.interface("sw0").info().expect("facts").index, index, "it is the same interface");
        }
        let addresses = lab.output("ip", &["addr", "show", "dev", "sw0"]).expect("ip runs");
        assert!(String::from_utf8_lossy(&addresses.stdout).contains("10.9.0.1/24"));
        assert!(testpmd.quit().success());
        end(running);
        wait_until("the tap to go", || {
            lab.output("ip", &["link", "show", "sw0"]).is_ok_and(|o| !o.status.success())
        });
    }
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
for round in 1 2 3; do
  read go
  answered=0
  while [ $answered -lt 20 ]; do ping -c 1 -W 5 10.9.0.1 > /dev/null && answered=$((answered+1)); done
  echo "round $round: answered"
done
echo "CHANGES $(cat /sys/class/net/eth0/carrier_changes)"
read go
poweroff -f
"#;

#[test]
fn a_guest_sees_no_link_event() {
    const TEST: &str = "a_guest_sees_no_link_event_when_killed";
    let Some(lab) = Lab::new(TEST) else { return };
    let Some(parts) = Parts::find(TEST, Kernel::Net) else { return };
    for packed in ["off", "on"] {
        let scratch = Scratch::new(TEST);
        let [g, socket] = ["g.sock", "control"].map(|name| scratch.join(name));
        let _leftover = Leftover(socket.clone());
        let arguments = ["--keep", "--tap", "sw0", "--port", &g.display().to_string()];
        let (running, mut asked) = start(&lab, &scratch, &arguments);
        wait_until("the ports", || asked.port_list().is_ok_and(|ports| ports.len() == 2));
        drop(asked);
        lab.ip("addr add 10.9.0.1/24 dev sw0");
        lab.ip("link set sw0 up");
        // QEMU 7.2 without KVM crashes with message-signalled interrupts. A socket that is not connected again when it is lost.
        let devices = [
            "-chardev".into(),
            format!("socket,id=c,path={}", g.display()),
            "-netdev".into(),
            "vhost-user,id=n,chardev=c".into(),
            "-device".into(),
            format!("virtio-net-pci,netdev=n,mac=02:00:00:00:00:09,vectors=0,romfile=,packed={packed}"),
        ];
        let mut guest = Guest::boot(&parts, scratch.path(), SCRIPT, &devices);
        let patience = Duration::from_secs(120);
        let before = guest.expect("READY", patience);
        for round in 1..=3 {
            let pid = kill(&socket);
            wait_until("another process", || next(&socket, pid).is_some());
            guest.type_line("");
            guest.expect(&format!("round {round}: answered"), patience);
        }
        let after = guest.expect("CHANGES", patience);
        assert_eq!(
            after.split(' ').next_back(),
            before.split(' ').next_back(),
            "the carrier has not changed"
        );
        guest.type_line("");
        end(running);
    }
}

/// What a process says to a service manager, which this test is.
struct Manager {
    socket: UnixDatagram,
    stored: Vec<(String, OwnedFd)>,
}

impl Manager {
    fn new(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self { socket, stored: Vec::new() }
    }

    /// Hears messages until one says `what`.
    fn hear(&mut self, what: &str) {
        loop {
            let mut bytes = [0; 4096];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut beside = rustix::net::RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(&mut bytes)];
            let flags = rustix::net::RecvFlags::CMSG_CLOEXEC;
            let got = rustix::net::recvmsg(self.socket.as_fd(), &mut into, &mut beside, flags).expect(what);
            let fds = beside.drain().filter_map(|message| match message {
                rustix::net::RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            });
            let fds: Vec<OwnedFd> = fds.flatten().collect();
            let text = String::from_utf8_lossy(&bytes[..got.bytes]).into_owned();
            let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or_default();
            if text.starts_with("FDSTORE=1\n") {
                self.stored.extend(fds.into_iter().map(|fd| (name.to_owned(), fd)));
            } else if text.starts_with("FDSTOREREMOVE=1\n") {
                self.stored.retain(|(stored, _)| stored != name);
            }
            if text.contains(what) {
                return;
            }
        }
    }

    /// Starts a switch with what is stored.
    fn start(&self, lab: &Lab, scratch: &Scratch, arguments: &[&str]) -> Running {
        let numbers = self.stored.iter().map(|(name, fd)| format!(" {}:{name}", fd.as_raw_fd()));
        let kept = numbers.fold(std::process::id().to_string(), |text, fd| text + &fd);
        let inherit = |flags| {
            self.stored.iter().for_each(|(_, fd)| rustix::io::fcntl_setfd(fd, flags).expect("a descriptor"));
        };
        inherit(rustix::io::FdFlags::empty());
        let spawn = || {
            Command::new(env!("CARGO_BIN_EXE_linecard"))
                .env("NOTIFY_SOCKET", scratch.join("manager"))
                .env(linecard::eal::inherited::KEPT, &kept)
                .args(["switch", "--no-huge", "--lcores", "0@0", "--fd-store", "--socket"])
                .arg(scratch.join("control"))
                .args(arguments)
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
        };
        let running = Running(lab.run(spawn).expect("it starts"));
        inherit(rustix::io::FdFlags::CLOEXEC);
        running
    }
}

/// Whether the threads of all vhost-user ports of a process have slept for longer than a port puts off being kept, while the
/// descriptors of its last state are still being closed (`KEEP_INTERVAL`, 100 ms).
fn ports_rest(pid: u32) -> bool {
    const REST: Duration = Duration::from_millis(300);
    let wakes = || -> Option<Vec<String>> {
        let mut tasks: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/task"))
            .ok()?
            .filter_map(|task| Some(task.ok()?.path()))
            .collect();
        tasks.sort();
        let name = |task: &std::path::PathBuf| std::fs::read_to_string(task.join("comm")).unwrap_or_default();
        let status = |task: std::path::PathBuf| {
            let status = std::fs::read_to_string(task.join("status")).ok()?;
            let sleeps = status.lines().any(|line| line.starts_with("State:\tS"));
            let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"))?;
            sleeps.then(|| line.to_owned())
        };
        tasks.into_iter().filter(|task| name(task).starts_with("net_vhost")).map(status).collect()
    };
    let before = wakes();
    std::thread::sleep(REST);
    before.is_some() && wakes() == before
}

/// Bytes that were sent over `socket` and not read yet.
fn unread(socket: &UnixStream) -> i32 {
    let mut bytes = 0;
    // SAFETY: fills `bytes`, which lives until the call returns.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    assert_eq!(result, 0, "a Unix socket tells");
    bytes
}

/// A frontend in the middle of a request when its switch is killed is disconnected; others are not.
#[test]
fn a_frontend_in_the_middle_of_a_request_connects_again() {
    const TEST: &str = "a_frontend_in_the_middle_of_a_request_connects_again";
    let Some(lab) = Lab::new(TEST) else { return };
    let scratch = Scratch::new(TEST);
    let [a, b, socket] = ["a.sock", "b.sock", "control"].map(|name| scratch.join(name));
    let mut manager = Manager::new(&scratch.join("manager"));
    let ports = [&a, &b].map(|path| path.display().to_string());
    let arguments = ["--port", &ports[0], "--port", &ports[1]];
    let mut first = manager.start(&lab, &scratch, &arguments);
    manager.hear("READY=1");
    let places = manager.stored.len();
    assert!(places >= 3, "two ports and the control socket");
    let mut ours = Ours::start(&frontend_vdev(&a, "mac=02:00:00:00:00:01"));
    ours.wait_for_link(true);
    wait_until("the ports to be kept", || ports_rest(first.0.id()));
    let mut hostile = UnixStream::connect(&b).expect("it listens");
    // A whole request, and half of another. What it answers tells that it has read both.
    hostile.write_all(&[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]).expect("it reads");
    hostile.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    hostile.read_exact(&mut [0; 20]).expect("an answer");
    wait_until("half of a request to be read", || unread(&hostile) == 0);
    let mut asked = client(&socket);
    assert!(asked.port_show("port1").is_ok());
    drop(asked);
    first.0.kill().expect("it runs");
    first.0.wait().expect("a child");
    let mut second = manager.start(&lab, &scratch, &arguments);
    manager.hear("READY=1");
    hostile.read_to_end(&mut Vec::new()).expect("the connection ends");
    assert!(ours.port.control.link().up);
    drop(hostile);
    let mut other = Ours::start(&frontend_vdev(&b, "mac=02:00:00:00:00:02"));
    other.wait_for_link(true);
    passes(&mut ours, &mut other, [A, B]);
    exchange(&mut other, Some(&mut ours), B, A);
    let names: std::collections::BTreeSet<_> = manager.stored.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 1, "what the first one stored is gone");
    drop((ours, other));
    let mut said = second.0.stderr.take().expect("a pipe");
    end(second);
    assert!(!a.exists() && !b.exists() && !socket.exists());
    let mut text = String::new();
    said.read_to_string(&mut text).expect("text");
    assert!(text.contains("killed in the middle of a request"), "{text}");
}

/// What is in the store is not what a switch keeps, or another version's: ports are opened anew, and frontends connect again.
#[test]
fn what_cannot_be_gone_on_with_is_opened_anew() {
    const TEST: &str = "what_cannot_be_gone_on_with_is_opened_anew";
    let Some(lab) = Lab::new(TEST) else { return };
    let scratch = Scratch::new(TEST);
    let a = scratch.join("a.sock");
    let mut manager = Manager::new(&scratch.join("manager"));
    let port = a.display().to_string();
    let mut first = manager.start(&lab, &scratch, &["--port", &port]);
    manager.hear("READY=1");
    let mut ours = Ours::start(&frontend_vdev(&a, "mac=02:00:00:00:00:01"));
    ours.wait_for_link(true);
    first.0.kill().expect("it runs");
    first.0.wait().expect("a child");
    let before = connections(&a);
    // What was kept is taken away, and something else is in its place.
    for (_, place) in &manager.stored {
        let mut bytes = vec![0; 1 << 20];
        while rustix::net::recv(place, &mut bytes[..], rustix::net::RecvFlags::DONTWAIT)
            .is_ok_and(|(n, _)| n > 0)
        {}
    }
    // A later version's, with a magic that is known.
    let later: Vec<u8> =
        [u32::from_ne_bytes(*b"LCKP"), 9, 0, 1, 0, 0, 0].iter().flat_map(|w| w.to_ne_bytes()).collect();
    for (name, bytes) in [("linecard-1", &[0x5a; 100][..]), ("linecard-2", &later)] {
        let (kind, flags) = (rustix::net::SocketType::SEQPACKET, rustix::net::SocketFlags::CLOEXEC);
        let pair = rustix::net::socketpair(rustix::net::AddressFamily::UNIX, kind, flags, None);
        let (into, held) = pair.expect("sockets");
        rustix::net::send(&into, bytes, rustix::net::SendFlags::empty()).expect("room");
        manager.stored.push((name.into(), held));
    }
    let mut second = manager.start(&lab, &scratch, &["--port", &port]);
    manager.hear("READY=1");
    wait_until("it is connected again", || {
        ours.wait_for_link(true);
        let now = connections(&a);
        now.len() == 1 && now != before
    });
    drop(ours);
    let mut other = Ours::start(&frontend_vdev(&a, "mac=02:00:00:00:00:02"));
    other.wait_for_link(true);
    drop(other);
    let mut said = second.0.stderr.take().expect("a pipe");
    end(second);
    let mut text = String::new();
    said.read_to_string(&mut text).expect("text");
    assert!(text.contains("does not begin as one") && text.contains("in format 9"), "{text}");
}
