//! The plugin against a switch that only remembers: every command, every version, and what it meets when things are gone.

mod common;

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;

use common::{FakeSwitch, IPAM, Network, Pod};
use linecard_cni::Version;
use serde_json::{Value, json};

fn connect(pod: &Pod) -> UnixStream {
    let file = std::fs::File::open(&pod.netns).expect("a namespace");
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), kind)?;
            UnixStream::connect_addr(&SocketAddr::from_abstract_name("vport/net1")?)
        });
        inside.join().expect("no panic").expect("somebody listens inside")
    })
}

#[test]
fn a_container_reaches_its_port_in_every_version() {
    let Some(pod) = Pod::new("a_container_reaches_its_port_in_every_version") else { return };
    let mut network = Network::new("versions");
    network.folder.script("bin/lease", IPAM);
    network.more = json!({"ipam": {"type": "lease"}, "vlan": 7, "mtu": 9000, "queues": 2});
    for version in Version::ALL.map(Version::as_str) {
        network.version = version;
        let result = network.add("box", &pod).expect(version);
        assert_eq!(result["cniVersion"], version);
        let interface = &result["interfaces"][0];
        assert_eq!(interface["name"], "net1");
        assert_eq!(interface["sandbox"], pod.netns.to_string_lossy().as_ref());
        assert_eq!(result["ips"][0]["address"], "10.9.0.5/24");
        assert_eq!(result["ips"][0]["interface"], 0);
        let spec = network.switch.spec("box@net1").expect("a port");
        assert_eq!(spec.mac.map(|mac| mac.to_string().to_lowercase()).as_deref(), interface["mac"].as_str());
        assert_eq!((spec.mtu, spec.queues, spec.ips.len()), (9000, 2, 1));

        let mut inside = connect(&pod);
        let mut switch = network.switch.accept("box@net1");
        switch.write_all(b"hello").expect("sent");
        let mut hello = [0; 5];
        inside.read_exact(&mut hello).expect("received");
        assert_eq!(&hello, b"hello");

        let mut config = network.config();
        config["prevResult"] = result;
        if Version::parse(version).expect("known").has_check() {
            network.on("CHECK", "box", &pod.netns, &config).expect(version);
        }
        assert_eq!(network.folder.list("leases"), ["box"]);
        network.on("DEL", "box", &pod.netns, &config).expect(version);
        assert!(network.folder.list("leases").is_empty());
        network.assert_clean();
        network.del("box").expect("as often as anybody likes");
    }
}

#[test]
fn del_succeeds_whatever_is_gone() {
    let Some(pod) = Pod::new("del_succeeds_whatever_is_gone") else { return };
    for mode in ["abstract", "socket-dir"] {
        let mut network = Network::new("gone");
        network.more = json!({"mode": mode});
        for gone in ["port", "state", "switch", "netns", "socket"] {
            let pod = if gone == "netns" {
                Pod::new("netns").expect("as a moment ago")
            } else {
                continue_with(&pod)
            };
            network.add("box", &pod).expect(gone);
            match gone {
                "port" => network.switch.forget("box@net1"),
                "state" => std::fs::remove_dir_all(network.folder.path("state")).expect("removed"),
                "switch" => std::fs::remove_file(&network.switch.path).expect("removed"),
                "socket" => drop(std::fs::remove_dir_all(network.folder.path("s"))),
                _ => {}
            }
            drop(pod);
            network.del("box").expect(gone);
            network.del("box").expect(gone);
            if gone == "switch" {
                // The port is removed once a switch is there again.
                assert_eq!(network.folder.list("state"), ["box@net1.detached"]);
                network.switch = FakeSwitch::start(network.folder.path("switch.sock"));
                network.del("another").expect("nothing to do");
            }
            network.assert_clean();
        }
    }
}

/// A second handle on the namespace of `pod`.
fn continue_with(_: &Pod) -> Pod {
    Pod::new("another").expect("as a moment ago")
}

#[test]
fn what_fails_is_undone() {
    let Some(pod) = Pod::new("what_fails_is_undone") else { return };
    let mut network = Network::new("undone");
    network.folder.script("bin/lease", IPAM);
    network.more = json!({"ipam": {"type": "lease"}});
    for (refusal, code) in [("exhausted", 11), ("exists", 100), ("unavailable", 101)] {
        network.switch.refuse(refusal);
        let error = network.add("box", &pod).expect_err("refused");
        assert_eq!((&error["code"], &error["details"]), (&json!(code), &json!("wait")));
        assert!(network.folder.list("leases").is_empty());
        network.assert_clean();
    }
    network.folder.script("bin/lease", "#!/bin/sh\ncat >/dev/null\n[ $CNI_COMMAND = DEL ] || { echo '{\"code\": 111, \"msg\": \"full\", \"details\": \"\"}'; exit 1; }\n");
    let error = network.add("box", &pod).expect_err("no address");
    assert_eq!((&error["code"], &error["msg"]), (&json!(111), &json!("plugin lease: full")));
    network.assert_clean();
    network.more = json!({"ipam": {"type": "absent"}});
    let error = network.add("box", &pod).expect_err("no such plugin");
    assert!(error["msg"].as_str().expect("text").contains("plugin 'absent' is not in"), "{error}");
    network.assert_clean();
    network.more = json!({});
    network.switch.stop();
    let error = network.add("box", &pod).expect_err("no switch");
    assert!(error["msg"].as_str().expect("text").contains("no switch answers"), "{error}");
    assert_eq!(network.folder.list("state"), Vec::<String>::new(), "nothing was begun");
    network.switch.restart();
    network.assert_clean();

    pod.run(&["ip", "link", "add", "net1", "type", "bridge"]);
    let error = network.add("box", &pod).expect_err("the name is taken");
    assert_eq!(error["code"], 100);
    network.assert_clean();
    let mut config = network.config();
    config["prevResult"] = json!({"interfaces": [{"name": "net1", "mac": "02:00:00:00:00:09",
        "sandbox": pod.netns}], "ips": [{"address": "10.9.0.7/24", "interface": 0}]});
    let result = network.on("ADD", "box", &pod.netns, &config).expect("in a chain it is the same interface");
    assert_eq!(
        result["interfaces"],
        config["prevResult"]["interfaces"]
            .as_array()
            .map(|list| {
                let mut entry = list[0].clone();
                entry["mtu"] = json!(1500);
                json!([entry])
            })
            .expect("a list")
    );
    let spec = network.switch.spec("box@net1").expect("a port");
    assert_eq!(spec.ips, ["10.9.0.7".parse::<std::net::IpAddr>().expect("an address")]);
    let error = network.on("ADD", "box", &pod.netns, &config).expect_err("twice");
    assert_eq!(error["code"], 100);
    assert_eq!(network.switch.names(), ["box@net1"], "the first one still works");
    network.del("box").expect("removed");
    network.assert_clean();
}

#[test]
fn check_finds_what_changed() {
    let Some(pod) = Pod::new("check_finds_what_changed") else { return };
    let mut network = Network::new("check");
    network.more = json!({"vlan": 5});
    let result = network.add("box", &pod).expect("added");
    let mut config = network.config();
    let error = network.on("CHECK", "box", &pod.netns, &config).expect_err("no prevResult");
    assert_eq!(error["code"], 7);
    config["prevResult"] = result.clone();
    let check = |config: &Value| network.on("CHECK", "box", &pod.netns, config);
    check(&config).expect("all is well");
    config["prevResult"]["interfaces"][0]["mac"] = json!("02:00:00:00:00:33");
    assert_eq!(check(&config).expect_err("another address")["code"], 102);
    config["prevResult"] = json!({"cniVersion": "1.1.0"});
    assert_eq!(check(&config).expect_err("no interface")["code"], 102);
    config["prevResult"] = result;
    let other = Pod::new("other").expect("as a moment ago");
    let mut moved = config.clone();
    moved["prevResult"]["interfaces"][0]["sandbox"] = json!(other.netns);
    let error = network.on("CHECK", "box", &other.netns, &moved).expect_err("another namespace");
    assert!(error["msg"].as_str().expect("text").contains("another network namespace"), "{error}");
    network.switch.change("box@net1", |spec| spec.vlan = None);
    let error = check(&config).expect_err("the VLAN");
    assert!(error["msg"].as_str().expect("text").contains("VLAN"), "{error}");
    network.switch.forget("box@net1");
    assert!(check(&config).expect_err("no port")["msg"].as_str().expect("text").contains("no port"));
    network.del("box").expect("removed");
    assert!(check(&config).expect_err("no record")["msg"].as_str().expect("text").contains("no record"));
}

/// Whatever ADD made may be taken away by somebody; the port itself is still as it was asked for.
#[test]
fn check_looks_for_all_that_add_made() {
    let Some(pod) = Pod::new("check_looks_for_all_that_add_made") else { return };
    let mut network = Network::new("made");
    let finds = |network: &Network, result: &Value, want: &str| {
        let mut config = network.config();
        config["prevResult"] = result.clone();
        let check = || network.on("CHECK", "box", &pod.netns, &config);
        if want.is_empty() {
            check().expect("all is well");
            return;
        }
        // A program that another test is just starting keeps descriptors for a moment.
        linecard_testing::wait_until(want, || check().is_err());
        let error = check().expect_err(want);
        assert!(
            error["code"] == 102 && error["msg"].as_str().expect("text").contains(want),
            "{want}: {error}"
        );
    };
    for (part, want) in
        [("link", "has no interface net1 any more"), ("socket", "nobody listens at @vport/net1 in")]
    {
        let result = network.add("box", &pod).expect(part);
        finds(&network, &result, "");
        match part {
            "link" => drop(pod.run(&["ip", "link", "delete", "net1"])),
            _ => network.switch.let_go("box@net1"),
        }
        finds(&network, &result, want);
        network.del("box").expect(part);
        network.assert_clean();
    }
    // An interface that ADD did not make is not looked for.
    network.more = json!({"link": false});
    let result = network.add("box", &pod).expect("added");
    finds(&network, &result, "");
    network.del("box").expect("removed");

    let file = network.folder.path("devinfo/x-net1-device.json");
    let folder = network.folder.path("s/box@net1");
    for (listen, part, want) in [
        ("switch", "socket", "sock is not there any more"),
        ("switch", "file", "x-net1-device.json is not there any more"),
        ("container", "folder", "box@net1 is not there any more"),
        ("container", "file", "x-net1-device.json is not there any more"),
    ] {
        network.more =
            json!({"mode": "socket-dir", "listen": listen, "runtimeConfig": {"CNIDeviceInfoFile": file}});
        let result = network.add("box", &pod).expect(part);
        // The switch of this test makes none.
        let listener = (listen == "switch")
            .then(|| std::os::unix::net::UnixListener::bind(folder.join("sock")).expect("a socket"));
        finds(&network, &result, "");
        match part {
            "socket" => std::fs::remove_file(folder.join("sock")).expect("it is there"),
            "file" => std::fs::remove_file(&file).expect("it is there"),
            _ => std::fs::remove_dir_all(&folder).expect("it is there"),
        }
        finds(&network, &result, want);
        drop(listener);
        network.del("box").expect(part);
        network.assert_clean();
    }
}

#[test]
fn gc_keeps_the_valid_and_other_networks() {
    let Some(pod) = Pod::new("gc_keeps_the_valid_and_other_networks") else { return };
    let mut network = Network::new("gc");
    network.folder.script("bin/lease", IPAM);
    let pods: Vec<Pod> = (0..3).map(|_| Pod::new("pod").expect("as a moment ago")).collect();
    network.more = json!({"ipam": {"type": "lease"}});
    for (name, pod) in ["kept", "stale", "lost"].iter().zip(&pods) {
        network.add(name, pod).expect(name);
    }
    network.more = json!({"name": "other", "mode": "socket-dir"});
    network.add("foreign", &pod).expect("another network's");
    std::fs::remove_file(network.folder.path("state/lost@net1.json")).expect("there");
    std::fs::create_dir_all(network.folder.path("s/left@net1")).expect("made");
    network.more = json!({"ipam": {"type": "lease"}, "mode": "socket-dir"});
    let mut config = network.config();
    let error = network.run("GC", &[], &config);
    assert!(!error.success && error.stdout.contains("valid-attachments"), "{}", error.stdout);
    config["cni.dev/valid-attachments"] = json!([{"containerID": "kept", "ifname": "net1"}]);
    let output = network.run("GC", &[], &config);
    assert!(output.success && output.stdout.is_empty(), "{}", output.stdout);
    assert_eq!(network.switch.names(), ["foreign@net1", "kept@net1"]);
    assert_eq!(network.folder.list("s"), ["foreign@net1"]);
    // The lease of the lost record is the IPAM plugin's own affair.
    assert_eq!(network.folder.list("leases"), ["kept", "lost"]);
    network.del("kept").expect("removed");
    network.del("foreign").expect("removed");
    network.assert_clean();
}

#[test]
fn sockets_in_folders_are_described() {
    let Some(pod) = Pod::new("sockets_in_folders_are_described") else { return };
    let mut network = Network::new("folder");
    let file = network.folder.path("devinfo/cni/x-net1-device.json");
    for (listen, mode) in [("switch", "client"), ("container", "server")] {
        network.more =
            json!({"mode": "socket-dir", "listen": listen, "runtimeConfig": {"CNIDeviceInfoFile": file}});
        let result = network.add("box", &pod).expect(listen);
        let socket = network.folder.path("s/box@net1/sock");
        assert_eq!(result["interfaces"][0]["socketPath"], json!(socket));
        let info: Value = serde_json::from_slice(&std::fs::read(&file).expect("written")).expect("JSON");
        let want =
            json!({"type": "vhost-user", "version": "1.1.0", "vhost-user": {"mode": mode, "path": socket}});
        assert_eq!(info, want);
        // What a container leaves in its folder goes with it, and nothing that it points to.
        let precious = network.folder.path("precious");
        std::fs::write(&precious, "here").expect("written");
        std::os::unix::fs::symlink(&network.folder.0, network.folder.path("s/box@net1/link"))
            .expect("a link");
        network.del("box").expect(listen);
        assert!(!file.exists() && precious.exists());
        network.assert_clean();
    }
    std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
    std::fs::write(&file, "theirs").expect("written");
    network.add("box", &pod).expect("a file of somebody else's stays");
    network.del("box").expect("removed");
    assert_eq!(std::fs::read_to_string(&file).expect("there"), "theirs");
    let long = "c".repeat(150);
    let error = network.add(&long, &pod).expect_err("no path for a socket");
    assert!(error["code"] == 7 && error["details"].as_str().expect("text").contains("socketDir"), "{error}");
    std::fs::remove_dir_all(network.folder.path("s")).expect("removed");
    std::os::unix::fs::symlink("/tmp", network.folder.path("s")).expect("a link");
    assert_eq!(network.add("box", &pod).expect_err("a link for a folder")["code"], 5);
    std::fs::remove_file(network.folder.path("s")).expect("removed");
    network.del("box").expect("removed");
    network.assert_clean();
}

#[test]
fn status_tells_what_add_would_meet() {
    let mut network = Network::new("status");
    let config = network.config();
    assert!(network.run("STATUS", &[], &config).success);
    std::fs::remove_file(&network.switch.path).expect("removed");
    let told: Value = serde_json::from_str(&network.run("STATUS", &[], &config).stdout).expect("an error");
    assert_eq!(told["code"], 50);
    assert!(told["details"].as_str().expect("text").contains("linecard switch"), "{told}");
    network.version = "1.0.0";
    let told: Value =
        serde_json::from_str(&network.run("STATUS", &[], &network.config()).stdout).expect("an error");
    assert_eq!((&told["code"], &told["cniVersion"]), (&json!(1), &json!("1.0.0")));
    assert_eq!(
        network.on("ADD", "box", Path::new("/dev/null"), &config).expect_err("no namespace")["code"],
        8
    );
}

/// After a restart of the machine, or in a namespace that was made anew, a record says nothing about what is there.
#[test]
fn stale_records_are_in_nobodys_way() {
    let Some(pod) = Pod::new("stale_records_are_in_nobodys_way") else { return };
    let mut network = Network::new("stale");
    let record = network.folder.path("state/box@net1.json");
    let change = |change: &dyn Fn(&mut Value)| {
        let mut value: Value = serde_json::from_slice(&std::fs::read(&record).expect("there")).expect("JSON");
        change(&mut value);
        std::fs::write(&record, value.to_string()).expect("written");
    };
    for mode in ["abstract", "socket-dir"] {
        network.more = json!({"mode": mode});
        for (what, stale) in [
            ("another start", &(|value: &mut Value| value["boot"] = json!("another")) as &dyn Fn(&mut Value)),
            ("another namespace", &|value| value["netns"]["inode"] = json!(1)),
            ("half an ADD", &|value| value["complete"] = json!(false)),
            ("nonsense", &|value| *value = json!([1, 2])),
            // Its folder is not believed, and its file is only removed where it was made.
            ("a foreign folder", &|value| {
                value["folder"] = json!("/etc");
                value["complete"] = json!(false);
            }),
        ] {
            network.add("box", &pod).expect(what);
            change(stale);
            if what == "another namespace" || what == "nonsense" {
                // The interface of the old one is not ours to remove: it went with its namespace.
                pod.run(&["ip", "link", "delete", "net1"]);
            }
            network.add("box", &pod).expect(what);
            assert_eq!(network.switch.names(), ["box@net1"], "{mode}: {what}");
            network.del("box").expect(what);
            network.assert_clean();
            assert_eq!(pod.interfaces(), Vec::<String>::new(), "{mode}: {what}");
        }
    }
}

/// The switch closes the socket of a removed port a moment after its answer.
#[test]
fn a_name_that_is_about_to_be_free_is_waited_for() {
    let Some(pod) = Pod::new("a_name_that_is_about_to_be_free_is_waited_for") else { return };
    let network = Network::new("soon");
    let listen = || {
        let name = SocketAddr::from_abstract_name("vport/net1").expect("a name");
        std::os::unix::net::UnixListener::bind_addr(&name).expect("free")
    };
    let stranger = linecard_cni::Sandbox::run_in(&pod.netns, listen).expect("a namespace");
    let error = network.add("box", &pod).expect_err("somebody listens, and goes on");
    assert_eq!(error["code"], 100, "{error}");
    network.assert_clean();
    std::thread::scope(|scope| {
        let adding = scope.spawn(|| network.add("box", &pod));
        // Once its record is there, it has the name to wait for.
        linecard_testing::wait_until("the record", || network.folder.list("state").len() > 1);
        drop(stranger);
        adding.join().expect("no panic").expect("the name is free");
    });
    network.del("box").expect("removed");
    network.assert_clean();
}

#[test]
fn many_at_once_leave_nothing() {
    let Some(pod) = Pod::new("many_at_once_leave_nothing") else { return };
    let network = Network::new("many");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (network, pod) = (&network, &pod);
            scope.spawn(move || {
                for turn in 0..25 {
                    let container = format!("box-{thread}-{turn}");
                    let netns = pod.netns.to_string_lossy().into_owned();
                    let ifname = format!("n{thread}");
                    let pairs =
                        [("CNI_CONTAINERID", &*container), ("CNI_NETNS", &netns), ("CNI_IFNAME", &ifname)];
                    for command in ["ADD", "DEL"] {
                        let output = network.run(command, &pairs, &network.config());
                        assert!(output.success, "{}", output.stdout);
                        if command == "DEL" {
                            // The listening socket is closed by the switch's thread a moment after its answer.
                            network.switch.forget(&format!("{container}@{ifname}"));
                        }
                    }
                }
            });
        }
    });
    network.assert_clean();
}
