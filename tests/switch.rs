//! `linecard switch` with our virtio-user, DPDK's and a tap attached at once: every pair exchanges checked packets; a restart
//! brings every port back; a peer that keeps what it is given harms nobody; an idle switch sleeps.

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use linecard_lab::{Lab, wait_until};
use linecard_switch::api::{
    Client, FdbAddress, FdbEntry, FdbFilter, FdbStatic, PortKind, PortSpec, PortState,
};
use support::Scratch;
use support::console::{Kind, Testpmd, present};
use support::ours::{Ours, frontend_vdev, wait_for_socket};
use support::peer::{forward, idle};
use support::switch::{Station, end, exchange, frame, start, start_with};

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const DPDK: [u8; 6] = [2, 0, 0, 0, 0, 2];
const TAP: [u8; 6] = [2, 0, 0, 0, 0, 3];
/// testpmd of DPDK on a socket, which sends back what it gets with addresses swapped.
fn dpdk(socket: &Path) -> Testpmd {
    let device = format!("net_virtio_user0,path={},queue_size=256,mac=02:00:00:00:00:02", socket.display());
    let mut peer = idle(Kind::Dpdk, &[&device], "switch", &[]);
    forward(&mut peer, "macswap");
    peer
}

#[test]
fn every_pair_exchanges_checked_packets() {
    const TEST: &str = "every_pair_exchanges_checked_packets";
    let Some(lab) = Lab::new(TEST) else { return };
    if !present(Kind::Dpdk, TEST) {
        return;
    }
    let scratch = Scratch::new(TEST);
    let (a, b) = (scratch.join("a.sock"), scratch.join("b.sock"));
    let ports = [a.display().to_string(), b.display().to_string()];
    let (running, mut client) =
        start(&lab, &scratch, &["--tap", "sw0", "--port", &ports[0], "--port", &ports[1]]);
    wait_for_socket(&b);
    let peer = dpdk(&b);
    let mut ours = Ours::start(&frontend_vdev(&a, "mac=02:00:00:00:00:01"));
    ours.wait_for_link(true);
    wait_until("the tap's link", || lab.interface("sw0").link().up);
    let mut tap = lab.wire("sw0");

    // DPDK's testpmd answers whatever it gets, as if it were whom the frame is for: let the switch know the others first.
    for (station, source) in [(&mut ours as &mut dyn Station, OURS), (&mut tap, TAP)] {
        wait_until("it is known", || {
            // Again, because a frame that comes while another station is being learned teaches the table nothing.
            station.send(&frame(source, [0xff; 6], 0, 64));
            let known = client.fdb_list(&FdbFilter::default()).expect("a list");
            known.iter().any(|entry| entry.mac.0 == source)
        });
    }
    exchange(&mut ours, Some(&mut tap), OURS, TAP);
    exchange(&mut tap, Some(&mut ours), TAP, OURS);
    exchange(&mut ours, None, OURS, DPDK);
    exchange(&mut tap, None, TAP, DPDK);
    let mut known: Vec<_> = client.fdb_list(&FdbFilter::default()).expect("a list");
    known.retain(|entry| [OURS, DPDK, TAP].contains(&entry.mac.0));
    let ports: Vec<_> = known.iter().map(|entry| (entry.mac.0, entry.port.as_str())).collect();
    assert_eq!(ports, [(OURS, "port1"), (DPDK, "port2"), (TAP, "sw0")]);
    assert!(peer.quit().success());
    end(running);
    assert!(scratch.entries().is_empty(), "it leaves nothing behind");
}

#[test]
fn a_restart_brings_every_port_back() {
    const TEST: &str = "a_restart_brings_every_port_back";
    let Some(lab) = Lab::new(TEST) else { return };
    let scratch = Scratch::new(TEST);
    let path = |name: &str| scratch.join(name);
    let (running, mut client) = start(&lab, &scratch, &[]);
    let vhost = |name: &str| PortKind::VhostUser { path: path(name), client: false, mode: None, group: None };
    let one = PortSpec { mac: Some(linecard::net::MacAddr(OURS)), ..PortSpec::new("one", vhost("a.sock")) };
    let two = PortSpec::new("two", vhost("b.sock"));
    let tap = PortSpec::new("tap", PortKind::Tap { name: "sw0".into(), netns: None });
    let name = format!("switch/{}", std::process::id());
    let origin = linecard_switch::api::SocketOrigin::new(lab.path(), name);
    let passed = PortSpec::new("passed", PortKind::VhostUserFd { origin: Some(origin.clone()) });
    let lost = PortSpec::new("lost", PortKind::VhostUserFd { origin: None });
    for spec in [&one, &two, &tap] {
        assert!(client.port_add(spec, None).expect("it is added").created);
    }
    let listener = || {
        use std::os::linux::net::SocketAddrExt;
        let name = std::os::unix::net::SocketAddr::from_abstract_name(&origin.name).expect("a name");
        lab.run(|| std::os::unix::net::UnixListener::bind_addr(&name)).expect("a listener")
    };
    for spec in [&passed, &lost] {
        let listener = if spec.key == "passed" {
            listener()
        } else {
            std::os::unix::net::UnixListener::bind(path("lost.sock")).expect("a listener")
        };
        let listener = std::os::fd::AsFd::as_fd(&listener);
        assert!(client.port_add(spec, Some(listener)).expect("it is added").created);
    }
    let address = |last, port: &str| FdbStatic {
        mac: linecard::net::MacAddr([2, 0, 0, 0, 1, last]),
        vlan: 0,
        port: port.into(),
    };
    for (last, port) in [(1, "one"), (2, "two"), (3, "tap"), (4, "lost")] {
        client.fdb_add(&address(last, port)).expect("it is put in");
    }
    assert!(client.fdb_del(&FdbAddress { mac: address(3, "").mac, vlan: 0 }).expect("an answer"));
    assert!(client.port_remove("two").expect("it goes"));
    end(running);
    assert!(!path("a.sock").exists());

    let (running, mut client) = start(&lab, &scratch, &[]);
    let back: Vec<_> =
        client.port_list().expect("a list").into_iter().map(|port| (port.spec, port.state)).collect();
    let down = |spec: &PortSpec| (spec.clone(), PortState::Down);
    let state = |spec: &PortSpec| back.iter().find(|(found, _)| found == spec).map(|(_, state)| *state);
    assert_eq!(back.len(), 4, "{back:?}");
    assert_eq!((state(&one), state(&passed)), (Some(down(&one).1), Some(PortState::Down)));
    assert!(state(&tap).is_some() && state(&lost) == Some(PortState::Waiting), "{back:?}");
    let known = client.fdb_list(&FdbFilter::default()).expect("a list");
    let by_hand = known.into_iter().filter(|entry| entry.fixed && Some(entry.mac) != one.mac);
    let by_hand: Vec<_> =
        by_hand.map(|FdbEntry { mac, vlan, port, .. }| FdbStatic { mac, vlan, port }).collect();
    assert_eq!(by_hand, [address(1, "one"), address(4, "lost")]);
    // What waited is served again with another descriptor.
    let other = std::os::unix::net::UnixListener::bind(path("other.sock")).expect("a listener");
    let added = client.port_add(&lost, Some(std::os::fd::AsFd::as_fd(&other))).expect("it is there");
    assert_eq!((added.created, added.port.state), (false, PortState::Down));
    let mut ours = Ours::start(&frontend_vdev(&path("a.sock"), "mac=02:00:00:00:00:01"));
    let mut second = Ours::start(&frontend_vdev(&path("other.sock"), "mac=02:00:00:00:00:02"));
    ours.wait_for_link(true);
    second.wait_for_link(true);
    exchange(&mut ours, Some(&mut second), OURS, DPDK);
    exchange(&mut second, Some(&mut ours), DPDK, OURS);
    end(running);
}

/// A backend that takes every buffer and returns none costs its own port its packets, and nobody else.
#[test]
fn a_peer_that_returns_nothing_starves_nobody() {
    const TEST: &str = "a_peer_that_returns_nothing_starves_nobody";
    let Some(lab) = Lab::new(TEST) else { return };
    let scratch = Scratch::new(TEST);
    let [a, b, held, nobody] =
        ["a.sock", "b.sock", "held.sock", "nobody.sock"].map(|name| scratch.join(name));
    // Never polled: its ring fills, and what lies there stays.
    let _hostile = Ours::start(&format!("net_vhost0,iface={}", held.display()));
    let hostile = format!("net_virtio_user0,path={},queue_size=1024", held.display());
    let ports = [&a, &b, &nobody].map(|path| path.display().to_string());
    let arguments = [
        "--packets",
        "512",
        "--vdev",
        &hostile,
        "--port",
        &ports[0],
        "--port",
        &ports[1],
        "--port",
        &ports[2],
    ];
    let (running, mut client) = start(&lab, &scratch, &arguments);
    let mut ours = Ours::start(&frontend_vdev(&a, "mac=02:00:00:00:00:01"));
    let mut other = Ours::start(&frontend_vdev(&b, "mac=02:00:00:00:00:02"));
    ours.wait_for_link(true);
    other.wait_for_link(true);
    // To all, until the hostile peer's ring and its own packets are full.
    let everybody = frame(OURS, [0xff; 6], 0, 64);
    wait_until("the hostile peer keeps all it may", || {
        for _ in 0..512 {
            Station::send(&mut ours, &everybody);
        }
        Station::receive(&mut other);
        let lost = client.port_show("net_virtio_user0").expect("it is there").counters.drops;
        lost.tx_full + lost.no_packet > 0
    });
    wait_until("what was sent has passed", || Station::receive(&mut other).is_empty());
    exchange(&mut ours, Some(&mut other), OURS, DPDK);
    exchange(&mut other, Some(&mut ours), DPDK, OURS);
    // Nobody is at the third socket, and what was for it is not taken for a queue that is full.
    let lost = client.port_show("port3").expect("it is there").counters.drops;
    assert!(lost.port_down > 0 && lost.tx_full == 0, "{lost:?}");
    end(running);
}

/// Nanoseconds of processor time and voluntary switches of each thread of a process, by name and number.
fn threads(pid: u32) -> BTreeMap<String, (u64, u64)> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let of_thread = |path: std::path::PathBuf| {
        let read = |file| std::fs::read_to_string(path.join(file)).ok();
        let time = read("schedstat")?.split(' ').next()?.parse().ok()?;
        let status = read("status")?;
        let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        let name = format!("{} ({})", read("comm")?.trim_end(), path.file_name()?.display());
        Some((name, (time, switches.trim().parse().ok()?)))
    };
    threads.filter_map(|thread| of_thread(thread.ok()?.path())).collect()
}

/// What each thread used from `before` to `after`, the busiest first.
fn used(
    before: &BTreeMap<String, (u64, u64)>,
    after: &BTreeMap<String, (u64, u64)>,
) -> Vec<(u64, u64, String)> {
    let of_thread = |(name, (time, switches)): (&String, &(u64, u64))| {
        let (time_before, switches_before) = before.get(name).copied().unwrap_or_default();
        (time - time_before, switches - switches_before, name.clone())
    };
    let mut used: Vec<_> = after.iter().map(of_thread).collect();
    used.sort_unstable_by(|one, other| other.cmp(one));
    used
}

#[test]
fn an_idle_switch_sleeps_and_wakes() {
    const TEST: &str = "an_idle_switch_sleeps_and_wakes";
    let Some(lab) = Lab::new(TEST) else { return };
    let scratch = Scratch::new(TEST);
    let [a, b, nobody] = ["a.sock", "b.sock", "nobody.sock"].map(|name| scratch.join(name));
    let ports = [&a, &b, &nobody].map(|path| path.display().to_string());
    let arguments = ["--tap", "sw0", "--port", &ports[0], "--port", &ports[1], "--port", &ports[2]];
    let (running, mut client) = start(&lab, &scratch, &arguments);
    let mut ours = Ours::start(&frontend_vdev(&a, "mac=02:00:00:00:00:01"));
    let mut other = Ours::start(&frontend_vdev(&b, "mac=02:00:00:00:00:02"));
    ours.wait_for_link(true);
    other.wait_for_link(true);
    exchange(&mut ours, Some(&mut other), OURS, DPDK);
    // The kernel's own chatter on the tap has an end.
    let passed = |client: &mut Client| {
        client.port_list().expect("a list").iter().map(|port| port.counters.rx_packets).sum::<u64>()
    };
    let pid = running.0.id();
    let span = Duration::from_secs(2);
    // Wake-ups are counted because what one costs is the machine's; time, so that a thread that never sleeps is seen.
    wait_until("a span of few wake-ups and little time", || {
        let (before, start, frames) = (threads(pid), Instant::now(), passed(&mut client));
        std::thread::sleep(span);
        let used = used(&before, &threads(pid));
        let (took, frames) = (start.elapsed(), passed(&mut client) - frames);
        let (time, wakes) = used.iter().fold((0, 0), |sum, thread| (sum.0 + thread.0, sum.1 + thread.1));
        let busiest = used.get(..4).unwrap_or(&used);
        eprintln!("{time} ns and {wakes} wake-ups in {took:?}, {frames} frames; by thread: {busiest:?}");
        u128::from(wakes) * 10 < took.as_millis() && u128::from(time) * 10 < took.as_nanos()
    });
    // From its sleep, every time: each of these waits until the worker has gone to sleep again.
    for number in 0..20 {
        let sleeping = || {
            let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
            let of_worker = |thread: &std::path::PathBuf| {
                std::fs::read_to_string(thread.join("comm")).is_ok_and(|name| name.starts_with("lc-worker"))
            };
            threads.filter_map(|thread| Some(thread.ok()?.path())).filter(of_worker).all(|thread| {
                std::fs::read_to_string(thread.join("stat")).is_ok_and(|stat| stat.contains(") S "))
            })
        };
        wait_until("it sleeps", sleeping);
        let sent = frame(OURS, DPDK, number, 64);
        Station::send(&mut ours, &sent);
        wait_until("the frame", || Station::receive(&mut other).contains(&sent));
    }
    end(running);
}

/// Asks for `path` over HTTP; the answer's status line and its text.
fn get(socket: &Path, request: &str) -> (String, String) {
    let mut stream = std::os::unix::net::UnixStream::connect(socket).expect("it listens");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    let (head, text) = answer.split_once("\r\n\r\n").expect("a head");
    (head.lines().next().unwrap_or_default().to_owned(), text.to_owned())
}

#[test]
fn prometheus_and_the_service_manager_are_told() {
    const TEST: &str = "prometheus_and_the_service_manager_are_told";
    let Some(lab) = Lab::new(TEST) else { return };
    let scratch = Scratch::new(TEST);
    let [manager, counters, a] = ["manager", "counters", "a.sock"].map(|name| scratch.join(name));
    let told = std::os::unix::net::UnixDatagram::bind(&manager).expect("a socket");
    told.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let hear = || {
        let mut text = [0; 256];
        let len = told.recv(&mut text).expect("the switch says something");
        String::from_utf8_lossy(&text[..len]).into_owned()
    };
    let address = format!("unix:{}", counters.display());
    let arguments = ["--tap", "sw0", "--port", &a.display().to_string(), "--metrics", &address];
    let (running, mut client) =
        start_with(&lab, &scratch, &arguments, &[("NOTIFY_SOCKET", manager.as_path())]);
    assert!(hear().starts_with("READY=1\n"));
    let mut tap = lab.wire("sw0");
    wait_until("the tap's link", || lab.interface("sw0").link().up);
    Station::send(&mut tap, &frame(TAP, [0xff; 6], 0, 64));
    wait_until("a loss", || client.port_show("port1").expect("it is there").counters.drops.port_down > 0);
    // Whoever asks nothing keeps nobody from the answer.
    let _silent: Vec<_> =
        (0..3).map(|_| std::os::unix::net::UnixStream::connect(&counters).expect("it listens")).collect();
    let (status, text) = get(&counters, "GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n");
    assert_eq!(status, "HTTP/1.1 200 OK");
    for line in [
        "linecard_switch_port_dropped_packets_total{port=\"port1\",cause=\"port_down\"} 1\n",
        "linecard_switch_port_received_packets_total{port=\"sw0\"} 1\n",
        "linecard_switch_port_state{port=\"port1\",linecard_switch_port_state=\"down\"} 1\n",
    ] {
        assert!(text.contains(line), "no {line} in {text}");
    }
    // The dashboard asks for nothing that is not there.
    let dashboard = include_str!("../docs/guide/grafana-switch.json");
    let names = dashboard.split("linecard_switch_").skip(1).filter_map(|rest| {
        rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().filter(|name| !name.is_empty())
    });
    for name in names {
        assert!(text.contains(&format!("\nlinecard_switch_{name}")), "the dashboard asks for {name}");
    }
    for (request, want) in [
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"),
        ("\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"),
    ] {
        assert_eq!(get(&counters, request).0, want);
    }
    end(running);
    assert_eq!(hear(), "STOPPING=1\n");
    assert!(!counters.exists());
}

#[test]
fn the_unit_is_one_that_systemd_takes() {
    const TEST: &str = "the_unit_is_one_that_systemd_takes";
    if support::on_path("systemd-analyze").is_none() {
        support::skip(TEST, "systemd-analyze is not installed");
        return;
    }
    let unit = include_str!("../packaging/linecard-switch.service");
    let scratch = Scratch::new(TEST);
    let file = scratch.join("linecard-switch.service");
    // The program is wherever this build put it.
    std::fs::write(&file, unit.replace("/usr/bin/linecard", env!("CARGO_BIN_EXE_linecard"))).expect("a file");
    let output =
        std::process::Command::new("systemd-analyze").arg("verify").arg(&file).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let of_ours: Vec<_> = said.lines().filter(|line| line.contains("linecard-switch")).collect();
    assert!(of_ours.is_empty(), "{said}");
}
