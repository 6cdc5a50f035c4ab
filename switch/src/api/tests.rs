//! The API against itself: what is written can be read, and what cannot be read is told.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use serde_json::json;

use super::*;

fn full() -> PortSpec {
    PortSpec {
        mac: Some(MacAddr([2, 0, 0, 0, 0, 0xa1])),
        ips: vec!["10.0.0.1".parse().expect("an address"), "fd00::1".parse().expect("an address")],
        vlan: Some(Vlan::Trunk(Trunk { vlans: vec![10, 20], native: Some(1) })),
        rate: Some(Rate { bits_per_second: 1_000_000, burst_bytes: None }),
        flood_rate: Some(1000),
        broadcast_rate: Some(100),
        multicast_rate: Some(200),
        unknown_rate: Some(300),
        max_macs: Some(8),
        learn_rate: Some(50),
        workers: vec![1, 0],
        isolated: true,
        meta: [("network".to_owned(), "net1".to_owned())].into(),
        ..PortSpec::new("c1-net1", PortKind::VhostUserFd { origin: None })
    }
}

#[test]
fn a_port_is_read_as_it_was_written() {
    let kinds = [
        PortKind::VhostUser { path: "/a".into(), client: true, mode: Some("0660".into()), group: None },
        PortKind::VhostUserFd { origin: Some(SocketOrigin::new("/n", "vport/x")) },
        PortKind::Tap { name: "lc0".into(), netns: None },
        PortKind::Tap { name: "net1".into(), netns: Some("/run/netns/c1".into()) },
        PortKind::Vdev { device: "net_null0".into() },
    ];
    for kind in kinds {
        let spec = PortSpec { kind, ..full() };
        let value = serde_json::to_value(&spec).expect("it can be written");
        assert_eq!(value["mac"], "02:00:00:00:00:a1");
        assert_eq!(PortSpec::read(value), Ok(spec));
    }
}

#[test]
fn a_port_that_makes_no_sense_is_refused_by_what_is_wrong() {
    for (value, want) in [
        (json!({}), "the port has no 'type'"),
        (json!(7), "the port has no 'type'"),
        (json!({"key": "a", "type": "veth"}), "there is no port of type 'veth'"),
        (json!({"type": "tap", "name": "x"}), "missing field `key`"),
        (json!({"key": "a", "type": "tap"}), "missing field `name`"),
        (json!({"key": "a", "type": "tap", "name": "x", "path": "/y"}), "a tap port has no field 'path'"),
        (
            json!({"key": "a", "type": "tap", "name": "x", "mac": "02:00"}),
            r#"'mac' cannot be "02:00"; give the address"#,
        ),
        (json!({"key": "a", "type": "tap", "name": "x", "mtu": 70_000}), "'mtu' cannot be 70000; give"),
        (
            json!({"key": "a", "type": "tap", "name": "x", "vlan": {"access": -1}}),
            r#"'vlan' cannot be {"access":-1}; give {"access": 10}, or"#,
        ),
        (json!({"key": "a", "type": "tap", "name": "x", "ips": ["10.0.0"]}), r#"'ips' cannot be ["10.0.0"]"#),
        (
            json!({"key": "a", "type": "tap", "name": "x", "vlan": {"qinq": 1}}),
            r#"'vlan' cannot be {"qinq":1}"#,
        ),
        (json!({"key": "a", "type": "tap", "name": "x", "vlan": 7}), "'vlan' cannot be 7"),
        (json!({"key": "a", "type": "tap", "name": "x", "rate": 0}), "'rate' cannot be 0"),
        (
            json!({"key": "a", "type": "tap", "name": "x", "meta": {"a": (vec![0; 999])}}),
            "…; give texts by name",
        ),
        (json!({"key": 7, "type": "tap", "name": "x"}), "expected a string"),
    ] {
        let problem = PortSpec::read(value.clone()).expect_err("it makes no sense");
        assert!(problem.to_string().contains(want), "{value}: {problem}");
        assert!(!problem.details.is_empty(), "{value} is told without a remedy: {problem}");
    }
}

/// Answers each line with what `answer` makes of it, until the client goes.
fn serve(socket: UnixStream, answer: impl Fn(Request, usize) -> String + Send + 'static) {
    std::thread::spawn(move || {
        let mut lines = Lines::default();
        while let Ok(Some(line)) = lines.next(socket.as_fd()) {
            let request = serde_json::from_slice(&line.bytes).expect("a request");
            let text = answer(request, line.fds.len());
            send(socket.as_fd(), text.as_bytes(), &[]).expect("the client listens");
        }
    });
}

#[test]
fn calls_get_their_answers() {
    let (here, there) = UnixStream::pair().expect("two sockets");
    serve(there, |Request { id, method, params }, fds| match method.as_str() {
        "port.add" => {
            assert_eq!((PortSpec::read(params), fds), (Ok(full()), 1));
            format!("{{\"id\":{id},\"error\":{{\"code\":\"exists\",\"message\":\"it is there\"}}}}\n")
        }
        "port.remove" => format!("{{\"id\":{id},\"result\":{{\"removed\":true}}}}\n"),
        "fdb.list" => format!("{{\"id\":{},\"result\":[]}}\n", id + 1),
        _ => "{\"id\":".to_owned() + &"9".repeat(40) + "}\n",
    });
    let mut client = Client::over(here.try_clone().expect("a descriptor"));
    let refused = client.port_add(&full(), Some(here.as_fd())).expect_err("it is there");
    assert!(matches!(&refused, ClientError::Refused(problem) if problem.code == Code::Exists), "{refused}");
    assert!(client.port_remove("c1-net1").expect("it is removed"));
    assert!(matches!(client.fdb_list(&FdbFilter::default()), Err(ClientError::Unreadable(_))));
    assert!(matches!(client.stats(), Err(ClientError::Unreadable(_))));
}

#[test]
fn lines_come_whole_whatever_the_pieces() {
    let (mut here, there) = UnixStream::pair().expect("two sockets");
    let mut lines = Lines::default();
    here.write_all(b"one\ntwo\nth").expect("there is room");
    for want in ["one", "two"] {
        let line = lines.next(there.as_fd()).expect("it is whole").expect("it is there");
        assert_eq!(line.bytes, want.as_bytes());
    }
    here.write_all(b"ree").expect("there is room");
    drop(here);
    assert!(matches!(lines.next(there.as_fd()), Err(LineError::Cut)));
}

#[test]
fn what_is_too_long_or_too_many_ends_the_connection() {
    let (here, there) = UnixStream::pair().expect("two sockets");
    let writer = std::thread::spawn(move || {
        let written = (&here).write_all(&vec![b'x'; MAX_LINE + 1]);
        written.map(|()| here)
    });
    assert!(matches!(Lines::default().next(there.as_fd()), Err(LineError::TooLong)));
    drop(there);
    // The last byte may have found room in the socket, or nobody to read it.
    let _ = writer.join().expect("it does not panic");

    let (here, there) = UnixStream::pair().expect("two sockets");
    for _ in 0..5 {
        send(here.as_fd(), b"x", &[here.as_fd()]).expect("there is room");
    }
    assert!(matches!(Lines::default().next(there.as_fd()), Err(LineError::TooManyFds)));
}

#[test]
fn a_port_of_every_kind_is_read_as_it_was_written() {
    let vhost = PortKind::VhostUser {
        path: "/a".into(),
        client: true,
        mode: Some("0660".into()),
        group: Some("kvm".into()),
    };
    let origin = SocketOrigin::new("/n", "x");
    let vxlan = PortKind::Vxlan {
        vni: 7,
        remotes: vec!["192.0.2.2".parse().expect("an address")],
        local: Some("192.0.2.1".parse().expect("an address")),
        udp_port: Some(8472),
        ttl: Some(3),
        any_peer: true,
    };
    let fd = PortKind::VhostUserFd { origin: Some(origin) };
    let (tap, vdev) =
        (PortKind::Tap { name: "t".into(), netns: None }, PortKind::Vdev { device: "net_null0".into() });
    for kind in [vhost, fd, tap, vxlan, vdev] {
        let info = PortInfo {
            id: 3,
            state: PortState::Up,
            device: "net_x0".into(),
            addresses: 1,
            counters: PortCounters::default(),
            spec: PortSpec::new("key", kind),
        };
        let line = serde_json::to_string(&info).expect("it is written");
        assert_eq!(serde_json::from_str::<PortInfo>(&line).expect(&line), info);
        let spec = serde_json::to_value(&info.spec).expect("it is written");
        assert_eq!(PortSpec::read(spec).expect("it is read"), info.spec);
    }
}
