//! Clients of the socket: DPDK's handshake, several programs, and clients that mean harm.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use linecard_testing::wait_until;

use super::*;
use crate::MAX_CLIENTS;

/// An honest client that connects, asks and is answered.
fn honest(path: &Path) -> Option<Json> {
    let client = Client::connect(path).ok()?;
    client.read()?;
    client.send(b"/ethdev/stats,0").then(|| client.read())?
}

#[test]
fn a_client_is_greeted_and_answered() {
    let program = Program::new();
    let socket = program.telemetry.serve_in(&program.folder).unwrap();
    assert!(socket.path().ends_with("dpdk_telemetry.v2"));
    let client = Client::connect(socket.path()).unwrap();
    let greeting = client.read().unwrap();
    assert_eq!(greeting["pid"], std::process::id());
    assert_eq!(greeting["max_output_len"], crate::MAX_OUTPUT);
    assert!(greeting["version"].as_str().unwrap().starts_with("Linecard "));
    for request in ["/ethdev/list", "/ethdev/link_status,0"] {
        assert!(client.send(request.as_bytes()));
        let answer = client.read().unwrap();
        assert!(!answer[request.split(',').next().unwrap()].is_null(), "{answer}");
    }
    // The end of the socket is the end of its clients, and of its name.
    let path = socket.path().to_owned();
    drop(socket);
    assert!(client.read().is_none() && !path.exists());
}

#[test]
fn programs_with_one_prefix_have_a_socket_each_and_a_dead_one_is_replaced() {
    use std::os::unix::fs::PermissionsExt as _;
    let program = Program::new();
    let first = program.telemetry.serve_in(&program.folder).unwrap();
    let second = program.telemetry.serve_in(&program.folder).unwrap();
    assert!(second.path().ends_with("dpdk_telemetry.v2:1"), "{}", second.path().display());
    let mode = std::fs::metadata(first.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "for its owner only");
    drop(first);
    // What a killed program leaves: a name that nobody listens at.
    let dead = program.folder.join("dpdk_telemetry.v2");
    let flags = SocketFlags::CLOEXEC;
    let left = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    rustix::net::bind(&left, &SocketAddrUnix::new(&dead).unwrap()).unwrap();
    let third = program.telemetry.serve_in(&program.folder).unwrap();
    assert!(
        third.path().ends_with("dpdk_telemetry.v2:2"),
        "a name that is about to be listened at is left alone"
    );
    drop((third, left));
    let third = program.telemetry.serve_in(&program.folder).unwrap();
    assert_eq!(third.path(), dead);
    assert!(honest(&dead).is_some());
    // A file of another kind is nobody's socket, and stays.
    drop(third);
    std::fs::write(&dead, "mine").unwrap();
    let third = program.telemetry.serve_in(&program.folder).unwrap();
    assert!(third.path().ends_with("dpdk_telemetry.v2:2"));
    assert_eq!(std::fs::read_to_string(&dead).unwrap(), "mine");
}

#[test]
fn whoever_connects_and_stays_silent_keeps_nobody_out() {
    let program = Program::new();
    let socket = program.telemetry.serve_in(&program.folder).unwrap();
    let silent: Vec<Client> =
        (0..MAX_CLIENTS * 4).filter_map(|_| Client::connect(socket.path()).ok()).collect();
    assert!(honest(socket.path()).is_some(), "the silent ones make room");
    drop(silent);
    assert!(honest(socket.path()).is_some());
}

#[test]
fn hostile_clients_cost_an_honest_one_nothing() {
    let program = Program::new();
    let socket = program.telemetry.serve_in(&program.folder).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let attacks: [fn(&Path); 4] = [
        // Asks without end and never reads.
        |path| {
            if let Ok(client) = Client::connect(path) {
                while client.push(b"/ethdev/xstats,0") {}
            }
        },
        // Connects and goes at once.
        |path| drop(Client::connect(path)),
        // Empty packets, garbage, the longest packets there are.
        |path| {
            if let Ok(client) = Client::connect(path) {
                client.push(b"");
                client.push(&[0xff; 3]);
                client.push(&[b'/'; 60_000]);
            }
        },
        // Connects many times and stays.
        |path| {
            let all: Vec<_> = (0..6).map(|_| Client::connect(path)).collect();
            std::thread::yield_now();
            drop(all);
        },
    ];
    let attackers: Vec<_> = attacks
        .into_iter()
        .map(|attack| {
            let (stop, path) = (Arc::clone(&stop), socket.path().to_owned());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    attack(&path);
                }
            })
        })
        .collect();
    let mut answers = 0;
    // An attacker may take the place between two packets; who asks again is answered.
    wait_until("ten honest answers", || {
        answers +=
            u32::from(honest(socket.path()).is_some_and(|answer| answer["/ethdev/stats"]["ipackets"] == 0));
        answers >= 10
    });
    stop.store(true, Ordering::Relaxed);
    attackers.into_iter().for_each(|attacker| attacker.join().unwrap());
    assert!(honest(socket.path()).is_some());
}
