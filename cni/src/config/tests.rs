use super::*;

fn environment(args: &str) -> Environment {
    Environment::read(|name| match name {
        "CNI_COMMAND" => Some("ADD".into()),
        "CNI_CONTAINERID" => Some("box".into()),
        "CNI_NETNS" => Some("/run/netns/box".into()),
        "CNI_IFNAME" => Some("net1".into()),
        "CNI_ARGS" => Some(args.into()),
        _ => None,
    })
    .expect("complete")
}

fn read(more: &str, args: &str) -> Result<Config, Error> {
    let text = format!(r#"{{"cniVersion": "1.1.0", "name": "fast", "type": "linecard"{more}}}"#);
    Config::read(text.as_bytes(), &environment(args))
}

#[test]
fn what_is_wrong_is_named_with_its_value() {
    for (more, code, part) in [
        (r#", "cniVersion": "9.9.9""#, 1, "cniVersion '9.9.9'"),
        (r#", "cniVersion": 1"#, 7, "'cniVersion' is 1"),
        (r#", "name": """#, 7, "'name' is"),
        (r#", "name": "a/b""#, 7, "'name' is \"a/b\""),
        (r#", "vlan": 4095"#, 7, "'vlan' is 4095: give a number from 1 to 4094"),
        (r#", "vlan": -1"#, 7, "'vlan' is -1"),
        (r#", "queues": 1.5"#, 7, "'queues' is 1.5"),
        (r#", "mtu": 70000"#, 7, "'mtu' is 70000"),
        (r#", "mac": "01:00:5e:00:00:01""#, 7, "'mac' is"),
        (r#", "mac": 5"#, 7, "'mac' is 5"),
        (r#", "link": "yes""#, 7, "give true or false"),
        (r#", "mode": "volume""#, 7, "give one of abstract, socket-dir"),
        (r#", "mode": "fd""#, 2, "no container runtime passes a descriptor"),
        (r#", "mode": 1"#, 7, "'mode' is 1"),
        (r#", "listen": "container""#, 7, "add \\\"mode\\\""),
        (r#", "socketDir": "run""#, 7, "give an absolute path"),
        (r#", "socketDir": "/run/../etc""#, 7, "without '..'"),
        (r#", "ipam": "host-local""#, 7, "'ipam' is"),
        (r#", "ipam": {"type": "../sh"}"#, 7, "'ipam.type' is"),
        (r#", "runtimeConfig": []"#, 7, "'runtimeConfig' is []"),
        (r#", "runtimeConfig": {"mac": "x"}"#, 7, "'runtimeConfig.mac' is"),
        (r#", "runtimeConfig": {"ips": ["10.0.0.1/33"]}"#, 7, "at most 32 bits"),
        (r#", "args": {"cni": {"ips": "10.0.0.1"}}"#, 7, "'args.cni.ips' is"),
        (r#", "prevResult": []"#, 7, "'prevResult' is []"),
        (r#", "prevResult": {"interfaces": 1}"#, 7, "'prevResult.interfaces' is 1"),
        (r#", "cni.dev/valid-attachments": [{"containerID": "a"}]"#, 7, "'containerID' and 'ifname'"),
    ] {
        let error = read(more, "").expect_err(more);
        let text = error.to_string().replace('"', "\\\"");
        let part = part.replace('"', "\\\"").replace("\\\\", "\\");
        assert!(error.code.number() == code && text.contains(&part), "{more}: {error:?}");
    }
    for bytes in [&b""[..], b"[]", b"nul", b"{", b"\xff"] {
        assert_eq!(Config::read(bytes, &environment("")).expect_err("no object").code, Code::Decode);
    }
    let deep = "[".repeat(100_000);
    assert_eq!(Config::read(deep.as_bytes(), &environment("")).expect_err("too deep").code, Code::Decode);
}

#[test]
fn addresses_come_from_the_most_particular_source() {
    let mac = |more: &str, args: &str| read(more, args).expect("valid").mac.map(|mac| mac.0[5]);
    let own = r#", "mac": "02:00:00:00:00:04""#;
    let args = r#", "args": {"cni": {"mac": "02:00:00:00:00:02"}}"#;
    let runtime = r#", "runtimeConfig": {"mac": "02:00:00:00:00:01"}"#;
    let variable = "IgnoreUnknown=1;MAC=02:00:00:00:00:03";
    assert_eq!(mac(&format!("{own}{args}{runtime}"), variable), Some(1));
    assert_eq!(mac(&format!("{own}{args}"), variable), Some(2));
    assert_eq!(mac(own, variable), Some(3));
    assert_eq!(mac(own, ""), Some(4));
    assert_eq!(mac("", ""), None);
    let ips = read("", "IP=10.0.0.9,fd00::9/64").expect("valid").ips;
    assert_eq!(ips.iter().map(Cidr::to_string).collect::<Vec<_>>(), ["10.0.0.9/32", "fd00::9/64"]);
}

#[test]
fn shared_ports_come_from_the_most_particular_source() {
    let ports = |more: &str, args: &str| read(more, args).expect("valid").ports;
    let own = r#", "ports": "tcp:4""#;
    let args = r#", "args": {"cni": {"ports": "tcp:2"}}"#;
    let runtime = r#", "runtimeConfig": {"ports": "tcp:1"}"#;
    let variable = "IgnoreUnknown=1;PORTS=tcp:3";
    let three = "tcp:4444-20000,udp:53,tcp:1-65535";
    for (more, args, want) in [
        (format!("{own}{args}{runtime}"), variable, Some("tcp:1")),
        (format!("{own}{args}"), variable, Some("tcp:2")),
        (own.into(), variable, Some("tcp:3")),
        (own.into(), "PORTS=", Some("tcp:4")),
        (r#", "ports": """#.into(), "", None),
        (r#", "ports": null"#.into(), "", None),
        (String::new(), "", None),
        (format!(r#", "ports": "{three}""#), "", Some(three)),
    ] {
        assert_eq!(ports(&more, args).as_deref(), want, "{more} {args}");
    }
}

#[test]
fn ports_that_cannot_be_shared_are_told_in_one_sentence() {
    let many = vec!["tcp:1"; 65].join(",");
    let long = "tcp:1".repeat(20_000);
    for (value, part) in [
        ("tcp", "'tcp' is no range of TCP or UDP ports"),
        ("4444", "'4444' is no range"),
        ("4444-20000", "'4444-20000' is no range"),
        ("tcp:", "'tcp:' is no range"),
        ("tcp:0", "'tcp:0' is no range"),
        ("tcp:0-10", "'tcp:0-10' is no range"),
        ("tcp:65536", "'tcp:65536' is no range"),
        ("tcp:20000-4444", "'tcp:20000-4444' is no range"),
        ("tcp:1-2-3", "'tcp:1-2-3' is no range"),
        ("tcp:-1", "'tcp:-1' is no range"),
        ("tcp:+1", "'tcp:+1' is no range"),
        ("tcp:4444, udp:53", "' udp:53' is no range"),
        ("tcp:4444,", "'' is no range"),
        ("TCP:1", "'TCP:1' is no range"),
        ("sctp:5", "'sctp:5' is no range"),
        ("tcp:1;udp:2", "'tcp:1;udp:2' is no range"),
        ("tcp:\u{661}", "is no range"),
        ("tcp:1\u{202e}\n", "is no range"),
        (&many, "more than 64 ranges of ports are named"),
        (&long, "is no range"),
    ] {
        let key = format!("\"ports\": {}", Value::from(value));
        for more in [format!(", {key}"), format!(", \"runtimeConfig\": {{{key}}}")] {
            let error = read(&more, "").expect_err(value);
            let text = error.to_string();
            assert_eq!(error.code.number(), 7, "{text}");
            assert!(text.contains(part) && text.contains("such as tcp:4444-20000,udp:53"), "{value}: {text}");
            assert!(text.len() < 400 && !text.contains(char::is_control), "{text}");
        }
    }
    for (more, part) in [
        (r#", "ports": 4444"#, "'ports' is 4444: give a string"),
        (r#", "ports": ["tcp:1"]"#, r#"'ports' is ["tcp:1"]: give a string"#),
        (
            r#", "ports": "tcp:1", "link": false"#,
            r#"that "link": false leaves out: leave out one of the two"#,
        ),
    ] {
        let text = read(more, "").expect_err(more).to_string();
        assert!(text.contains(part), "{text}");
    }
    let error = read("", "PORTS=tcp:x").expect_err("no number").to_string();
    assert!(error.starts_with(r#"'CNI_ARGS PORTS' is "tcp:x": 'tcp:x' is no range"#), "{error}");
}

/// What a pod asked for must not keep it from going.
#[test]
fn what_goes_is_not_asked_what_it_wanted() {
    for (more, args) in [
        (r#""ports": "nonsense""#, ""),
        (r#""args": {"cni": {"ports": 7}}"#, ""),
        (r#""mac": "01:00:5e:00:00:01""#, ""),
        (r#""ips": ["10.0.0.1/33"]"#, ""),
        (r#""args": {"cni": {"mac": "x"}}"#, ""),
        (r#""runtimeConfig": {"ips": 7}"#, ""),
        (r#""runtimeConfig": {"CNIDeviceInfoFile": "x"}"#, ""),
        (r#""runtimeConfig": []"#, ""),
        (r#""vlan": 4095"#, ""),
        (r#""mode": "fd""#, ""),
        (r#""listen": "container""#, ""),
        (r#""prevResult": []"#, ""),
        (r#""link": 7"#, "PORTS=nonsense"),
        (r#""link": true"#, "MAC=nonsense"),
        (r#""link": true"#, "IP=nonsense"),
    ] {
        let text = format!(r#"{{"cniVersion": "1.1.0", "name": "fast", {more}}}"#);
        for (command, good) in [("ADD", false), ("CHECK", false), ("DEL", true), ("GC", true)] {
            let of = |name: &str| match name {
                "CNI_COMMAND" => Some(command.into()),
                "CNI_CONTAINERID" => Some("box".into()),
                "CNI_NETNS" => Some("/run/netns/box".into()),
                "CNI_IFNAME" => Some("net1".into()),
                "CNI_ARGS" => Some(args.into()),
                "CNI_PATH" => Some("/opt/cni/bin".into()),
                _ => None,
            };
            let environment = Environment::read(of).expect("complete");
            let read = Config::read(text.as_bytes(), &environment);
            assert_eq!(read.is_ok(), good, "{command}: {more} {args}");
        }
    }
}

#[test]
fn both_names_of_the_valid_attachments_are_read() {
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        let more = format!(r#", "{key}": [{{"containerID": "a", "ifname": "b"}}]"#);
        let valid = read(&more, "").expect("valid").valid.expect("a list");
        assert_eq!(valid, [Attachment::new("a", "b").expect("legal")]);
    }
    assert!(read("", "").expect("valid").valid.is_none());
}
