//! Processes that may do little: handed sockets and a pinned map they need no right at all, without they are told what.

use std::os::fd::{AsRawFd, IntoRawFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags, set_capabilities, unshare_unsafe};

use super::*;
use crate::Redirect;
use crate::bpf::{Program, Sockets};
use crate::cursor::{Producer, Ring};
use crate::socket::{Socket, Which};

/// Leaves this thread, and those it makes, without some capabilities for ever.
fn keep(kept: CapabilitySet) {
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).expect("capabilities can be given up");
}

/// A bpf file system that only this thread, and those it makes, can see; gone with them.
fn bpf_file_system() -> PathBuf {
    // SAFETY: this thread shares its mounts and its folder with no other from here on, and relies on neither.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.expect("root");
    for arguments in [&["--make-rprivate", "/"][..], &["-t", "bpf", "bpf", "/sys/fs/bpf"]] {
        let output = Command::new("mount").args(arguments).output().expect("mount runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    PathBuf::from("/sys/fs/bpf")
}

/// A host's part: the program on `near`, its map pinned, a fresh socket.
fn host(lab: &Lab, path: &Path) -> (Redirect, Socket) {
    let near = lab.interface("near");
    let redirect = Redirect::attach("host", lab.namespace(), &near, 2).expect("a program");
    redirect.pin("host", path).expect("pinned");
    (redirect, lab.run(Socket::open).expect("a socket"))
}

#[test]
fn a_passed_socket_and_a_pinned_map_are_enough() {
    let test = "a_passed_socket_and_a_pinned_map_are_enough";
    let Some(lab) = lab(test) else { return };
    veth(&lab);
    let path = bpf_file_system().join("sockets");
    let (redirect, socket) = host(&lab, &path);
    let fd = into_raw(socket);
    let inode = open_as(fd).expect("open");
    let (ours, theirs) = (context(), context());
    let small = PoolConfig::default().packets(1536).cache(0);
    let pool = Pool::new(&ours.domain, small).expect("a pool");
    let other = super::pool(&theirs);
    let mut far =
        start(&theirs, &format!("net_af_xdp1,iface=far,netns={}", lab.path()), &other).expect("a port");
    lab.run(|| {
        keep(CapabilitySet::empty());
        let text = format!("net_af_xdp0,iface=near,map={},fd={fd}", path.display());
        let mut near = start(&ours, &text, &pool).expect("no right is needed");
        assert!(near.control.paths().contains("copy pinned map"), "{}", near.control.paths());
        send(&mut far, (0..32).map(|i| frame(&other, i, 60)));
        let packets = receive(&mut near, 32);
        send(&mut near, packets);
        assert_eq!(receive(&mut far, 32).len(), 32);
        // A passed socket serves one start.
        let device = near.stop();
        let refused = configure(device, PortConfig::default()).expect("possible").start(&pool).expect_err("used");
        assert_eq!(
            refused.error.to_string(),
            "net_af_xdp0: starting again on passed sockets is not supported; open the port anew with fresh ones"
        );
    });
    // Another test may have the number by now, but not the socket.
    assert_ne!(open_as(fd), Some(inode), "closed");
    far.stop();
    drop(redirect);
    expect_no_xdp(&lab, "near");
    assert_eq!((pool.stats().in_use, other.stats().in_use), (0, 0));
}

/// What this process has open as number `fd`.
fn open_as(fd: i32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()
}

/// Whoever kept the socket writes one completion after the other into its ring.
fn forge(done: Ring<1>, end: &AtomicBool) {
    let mut done = Producer::new(done);
    let mut address = 0_u64;
    while !end.load(Ordering::Relaxed) {
        let mut slots = done.reserve(1);
        while slots.write([address]) {
            address = address.wrapping_add(0x1_0001);
        }
        slots.publish();
    }
}

#[test]
fn forged_completions_keep_nobody_busy_for_ever() {
    const DEPTH: u16 = 256;
    let test = "forged_completions_keep_nobody_busy_for_ever";
    let Some(lab) = lab(test) else { return };
    veth(&lab);
    let path = bpf_file_system().join("sockets");
    let (redirect, socket) = host(&lab, &path);
    let copy = std::os::fd::AsFd::as_fd(&socket).try_clone_to_owned().expect("a copy");
    let kept = Socket::passed(copy.into_raw_fd()).expect("an XDP socket");
    let fd = into_raw(socket);
    let context = context();
    let pool = super::pool(&context);
    let text = format!("net_af_xdp0,iface=near,netns={},map={},fd={fd}", lab.path(), path.display());
    let device = probe(&context, &text).expect("possible");
    let config = PortConfig::default().rx_depth(DEPTH).tx_depth(DEPTH);
    let mut near = configure(device, config).expect("possible").start(&pool).expect("a port");
    let done = kept.map_ring::<1>(Which::Done, DEPTH.into()).expect("a second mapping");
    let end = AtomicBool::new(false);
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| forge(done, &end));
        let mut calls = 0_u32;
        while calls <= 1000 || began.elapsed() < Duration::from_millis(500) {
            let mut burst = Burst::new();
            burst.fill_from(&mut (0..32).map_while(|i| pool.get().map(|packet| marked(packet, i))));
            near.tx[0].tx_burst(&mut burst);
            near.tx[0].reclaim();
            calls += 1;
        }
        end.store(true, Ordering::Relaxed);
    });
    assert!(xstat(&near, "tx_q0_bad_descriptor") > 0);
    near.stop();
    drop(redirect);
}

/// A frame in a packet that is there already.
fn marked(mut packet: Packet, mark: u8) -> Packet {
    packet.copy_from_slice(&[mark; 60]).unwrap();
    packet
}

fn into_raw(socket: Socket) -> i32 {
    let fd = std::os::fd::AsFd::as_fd(&socket).try_clone_to_owned().expect("a copy");
    drop(socket);
    fd.into_raw_fd()
}

#[test]
fn rights_that_are_missing_are_named() {
    let Some(lab) = lab("rights_that_are_missing_are_named") else { return };
    veth(&lab);
    let context = context();
    for (kept, action) in [
        (CapabilitySet::empty(), "opening an XDP socket: Operation not permitted"),
        (CapabilitySet::NET_RAW, "loading the XDP program: Operation not permitted"),
        (CapabilitySet::NET_RAW | CapabilitySet::BPF, "loading the XDP program: Operation not permitted"),
    ] {
        let problem = lab.run(|| {
            keep(kept);
            probe(&context, "net_af_xdp0,iface=near").err().expect("no rights").to_string()
        });
        assert!(problem.starts_with(&format!("net_af_xdp0: {action}")), "{problem}");
        assert!(
            problem.contains("sudo setcap cap_net_raw,cap_net_admin,cap_bpf,cap_ipc_lock+ep PROGRAM"),
            "{problem}"
        );
        expect_no_xdp(&lab, "near");
    }
}

#[test]
fn memory_that_may_not_be_locked() {
    let Some(lab) = lab("memory_that_may_not_be_locked") else { return };
    veth(&lab);
    let context = context();
    let config = PoolConfig::default().packets(32768);
    let pool = Pool::new(&context.domain, config).expect("a pool");
    let problem = lab.run(|| {
        keep(CapabilitySet::NET_RAW | CapabilitySet::NET_ADMIN | CapabilitySet::BPF);
        let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock);
        if limit.current.is_none_or(|bytes| bytes > 64 << 20) {
            return None;
        }
        let device = probe(&context, "net_af_xdp0,iface=near").expect("rights enough");
        let refused = configure(device, PortConfig::default()).expect("possible").start(&pool).err();
        Some(refused.expect("too much memory").error.to_string())
    });
    match problem {
        None => linecard_lab::skip(
            "memory_that_may_not_be_locked",
            "the limit of locked memory is high; run with 'ulimit -l 8192'",
        ),
        Some(problem) => assert!(
            problem
                .starts_with("net_af_xdp0: locking the 70 MiB of the packet pool in memory: No buffer space")
                && problem.contains("raise the limit ('ulimit -l unlimited')"),
            "{problem}"
        ),
    }
    assert_eq!(pool.stats().in_use, 0);
}

#[test]
fn what_is_passed_must_be_an_xdp_socket() {
    let Some(lab) = lab("what_is_passed_must_be_an_xdp_socket") else { return };
    veth(&lab);
    let path = bpf_file_system().join("sockets");
    let (_redirect, _socket) = host(&lab, &path);
    let file = std::fs::File::open("/dev/null").expect("there");
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for fd in [file.as_raw_fd(), udp.as_raw_fd(), 9_999] {
        let text = format!("net_af_xdp0,iface=near,netns={},map={},fd={fd}", lab.path(), path.display());
        let problem = probe(&context(), &text).err().expect("no XDP socket").to_string();
        let want = format!(
            "net_af_xdp0: descriptor {fd} is no XDP socket; pass one that socket(AF_XDP) gave and nobody used yet"
        );
        assert_eq!(problem, want);
    }
    assert!(udp.local_addr().is_ok() && file.metadata().is_ok(), "what is not ours stays open");
}

#[test]
fn maps_and_programs_that_are_none() {
    let Some(lab) = lab("maps_and_programs_that_are_none") else { return };
    veth(&lab);
    let folder = bpf_file_system();
    let path = folder.join("sockets");
    let (redirect, _socket) = host(&lab, &path);
    let text = |options: &str| format!("net_af_xdp0,iface=near,netns={},{options}", lab.path());
    let problem = |options: &str| probe(&context(), &text(options)).err().expect(options).to_string();
    for (options, want) in [
        ("map=/sys/fs/bpf/none", "nothing is pinned at /sys/fs/bpf/none; pin a XSKMAP there"),
        (
            "xdp_prog=/sys/fs/bpf/none",
            "nothing is pinned at /sys/fs/bpf/none; pin a XDP program with an XSKMAP there",
        ),
        ("xdp_prog=/sys/fs/bpf/sockets", "/sys/fs/bpf/sockets is no pinned XDP program with an XSKMAP"),
    ] {
        let got = problem(options);
        assert!(got.starts_with(&format!("net_af_xdp0: {want}")), "{got}");
    }
    assert_eq!(
        problem("map=/etc/hostname"),
        "net_af_xdp0: /etc/hostname is no pinned XSKMAP; give the name of one in a bpf file system, as in \
         /sys/fs/bpf/NAME"
    );
    assert!(redirect.pin("host", &path).expect_err("taken").to_string().contains("File exists"));

    // The map has two places, and a queue of one belongs to one socket.
    let (ours, theirs) = (context(), context());
    let (pool, other) = (pool(&ours), super::pool(&theirs));
    let map = format!("map={}", path.display());
    let first = start(&ours, &text(&map), &pool).expect("a port");
    let second = start(&theirs, &text(&map), &other).expect_err("taken").to_string();
    assert_eq!(
        second,
        "net_af_xdp0: queue 0 of near belongs to another XDP socket; end the program that has it, or choose another \
         queue with start_queue"
    );
    first.stop();
    drop(redirect);
    assert!(path.exists(), "whoever pins removes");
    assert_eq!((pool.stats().in_use, other.stats().in_use), (0, 0));
}

#[test]
fn a_pinned_program_takes_the_place_of_ours() {
    let Some(lab) = lab("a_pinned_program_takes_the_place_of_ours") else { return };
    veth(&lab);
    let path = bpf_file_system().join("program");
    let sockets = Sockets::new(4).expect("a map");
    Program::redirect(&sockets).and_then(|program| program.pin(&path)).expect("pinned");
    drop(sockets);
    let (ours, theirs) = (context(), context());
    let (pool, other) = (pool(&ours), super::pool(&theirs));
    let text = format!("net_af_xdp0,iface=near,netns={},xdp_prog={}", lab.path(), path.display());
    let mut near = start(&ours, &text, &pool).expect("a port");
    let mut far =
        start(&theirs, &format!("net_af_xdp1,iface=far,netns={}", lab.path()), &other).expect("a port");
    send(&mut far, (0..32).map(|i| frame(&other, i, 60)));
    assert_eq!(receive(&mut near, 32).len(), 32);
    near.stop();
    far.stop();
    expect_no_xdp(&lab, "near");
    assert_eq!((pool.stats().in_use, other.stats().in_use), (0, 0));
}
