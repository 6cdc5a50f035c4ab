//! `"ports"`: an address that is shared between a tap in the container and the fast port.

mod common;

use std::fs::OpenOptions;

use common::{IPAM, Network, Pod};
use linecard_switch::api::{PortKind, Share};
use serde_json::{Value, json};

const KERNEL: &str = "box@net1:kernel";
const FAST: &str = "box@net1";

/// A container and a network whose ports share their address; `None` where there are no taps.
fn scene(test: &str) -> Option<(Pod, Network)> {
    let pod = Pod::new(test)?;
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        linecard_testing::skip(test, &format!("/dev/net/tun cannot be opened ({error}); modprobe tun"));
        return None;
    }
    let mut network = Network::new(test);
    network.folder.script("bin/lease", IPAM);
    network.more = json!({"ipam": {"type": "lease"}, "ports": "tcp:4444-20000", "vlan": 7, "mtu": 9000});
    Some((pod, network))
}

fn text(error: &Value) -> String {
    format!(
        "{}: {}",
        error["msg"].as_str().unwrap_or_default(),
        error["details"].as_str().unwrap_or_default()
    )
}

#[test]
fn a_tap_has_the_ports_name_and_addresses() {
    let Some((pod, mut network)) = scene("a_tap_has_the_ports_name_and_addresses") else { return };
    for mode in ["abstract", "socket-dir"] {
        network.more["mode"] = mode.into();
        let result = network.add("box", &pod).expect("added");
        let mac = result["interfaces"][0]["mac"].as_str().expect("an address").to_owned();
        assert_eq!(result["interfaces"].as_array().map(Vec::len), Some(1), "one interface: {result}");
        assert_eq!(network.switch.names(), [FAST, KERNEL]);
        let [fast, kernel] = [FAST, KERNEL].map(|key| network.switch.spec(key).expect("a port"));
        assert_eq!(fast.shares, Some(Share { with: KERNEL.into(), ports: "tcp:4444-20000".into() }));
        assert_eq!(kernel.shares, None);
        let netns = Some(pod.netns.clone());
        assert_eq!(kernel.kind, PortKind::Tap { name: "net1".into(), netns });
        for spec in [&fast, &kernel] {
            assert_eq!(spec.mac.map(|mac| mac.to_string().to_lowercase()).as_ref(), Some(&mac));
            assert_eq!((&spec.ips, &spec.vlan, spec.mtu), (&fast.ips, &fast.vlan, 9000));
            assert_eq!(spec.meta["container"], "box");
        }
        let link = pod.run(&["ip", "-d", "-o", "link", "show", "net1"]);
        for part in [" tap ", "multi_queue", " mtu 9000 ", "LOWER_UP", &mac] {
            assert!(link.contains(part), "{part}: {link}");
        }
        assert!(pod.run(&["ip", "-o", "address", "show", "net1"]).contains(" 10.9.0.5/24 "));
        let routes = pod.run(&["ip", "route"]);
        assert!(routes.contains("default via 10.9.0.1 dev net1"), "{routes}");
        let record = std::fs::read(network.folder.path("state/box@net1.json")).expect("a record");
        let record: Value = serde_json::from_slice(&record).expect("JSON");
        assert_eq!(record["ports"], "tcp:4444-20000");
        // The switch has let go of it, as when it is killed: the interface stays, without a carrier.
        network.switch.let_go(KERNEL);
        linecard_testing::wait_until("an interface without a carrier", || {
            pod.run(&["ip", "-o", "link", "show", "net1"]).contains("NO-CARRIER")
        });
        network.del("box").expect("removed");
        network.assert_clean();
        assert_eq!(pod.interfaces(), Vec::<String>::new());
    }
}

#[test]
fn a_pod_may_ask_for_ports_of_its_own() {
    let Some((pod, mut network)) = scene("a_pod_may_ask_for_ports_of_its_own") else { return };
    network.more["args"] = json!({"cni": {"ports": "udp:53"}});
    network.add("box", &pod).expect("added");
    assert_eq!(network.switch.spec(FAST).and_then(|spec| spec.shares).expect("shared").ports, "udp:53");
    // DEL goes by the record, whatever is asked for by then.
    network.more = json!({"args": {"cni": {"ports": "nonsense"}}});
    network.del("box").expect("removed");
    network.assert_clean();
    assert_eq!(pod.interfaces(), Vec::<String>::new());
    let error = network.add("box", &pod).expect_err("no ports");
    assert_eq!(error["code"], 7);
    assert!(text(&error).starts_with("'args.cni.ports' is \"nonsense\": 'nonsense' is no range"), "{error}");
    network.assert_clean();
}

#[test]
fn what_cannot_be_shared_is_refused_and_leaves_nothing() {
    let Some((pod, mut network)) = scene("what_cannot_be_shared_is_refused_and_leaves_nothing") else {
        return;
    };
    let usual = network.more.clone();
    let mut refused = |change: &dyn Fn(&mut Value), netns: &std::path::Path, part: &str| {
        network.more = usual.clone();
        let mut config = network.config();
        change(&mut config);
        let error = network.on("ADD", "box", netns, &config).expect_err(part);
        assert!(error["code"] == 7 && text(&error).contains(part), "{error}");
        let _ = network.on("DEL", "box", netns, &config);
        network.assert_clean();
        assert_eq!(network.folder.list("leases"), Vec::<String>::new(), "{part}");
        assert_eq!(pod.interfaces(), Vec::<String>::new(), "{part}");
    };
    refused(&|config| config["ports"] = "tcp:9-8".into(), &pod.netns, "'tcp:9-8' is no range");
    refused(&|config| config["link"] = false.into(), &pod.netns, "leave out one of the two");
    refused(
        &|config| {
            let entry = json!({"name": "net1", "mac": "02:00:00:00:00:09", "sandbox": pod.netns});
            config["prevResult"] = json!({"interfaces": [entry]});
        },
        &pod.netns,
        "'ports' shares the interface net1, which another plugin of the chain has made",
    );
    refused(
        &|config| config["mode"] = "socket-dir".into(),
        "/proc/self/ns/net".as_ref(),
        "none is made in the host's own network namespace",
    );
    // A route that the kernel does not take, and a switch that refuses the fast port.
    let route = IPAM.replace("0.0.0.0/0\"", "10.7.0.0/16\", \"gw\": \"10.200.0.1\"");
    network.more = usual.clone();
    network.folder.script("bin/lease", &route);
    let error = network.add("box", &pod).expect_err("no such gateway");
    assert!(error["code"] == 8 && text(&error).contains("setting a route to 10.7.0.0/16 through"), "{error}");
    network.assert_clean();
    network.folder.script("bin/lease", IPAM);
    network.switch.refuse("exhausted");
    assert_eq!(network.add("box", &pod).expect_err("refused")["code"], 11);
    network.assert_clean();
    assert_eq!(pod.interfaces(), Vec::<String>::new());
    network.add("box", &pod).expect("now it can be had");
    network.del("box").expect("removed");
    network.assert_clean();
}

#[test]
fn check_looks_at_both_halves() {
    let Some((pod, network)) = scene("check_looks_at_both_halves") else { return };
    let result = network.add("box", &pod).expect("added");
    let mut config = network.config();
    config["prevResult"] = result;
    let check = |part: &str| {
        let error = network.on("CHECK", "box", &pod.netns, &config).expect_err(part);
        assert!(error["code"] == 102 && text(&error).contains(part), "{part}: {error}");
    };
    network.on("CHECK", "box", &pod.netns, &config).expect("all is well");
    let ports = |ports: &str| {
        network.switch.change(FAST, |spec| {
            spec.shares = Some(Share { with: KERNEL.into(), ports: ports.into() });
        });
    };
    ports("tcp:1");
    check("the shared ports of the port box@net1");
    ports("tcp:4444-20000");
    network.switch.change(KERNEL, |spec| spec.mtu = 1500);
    check("the MTU of the port box@net1:kernel");
    network.switch.forget(KERNEL);
    check("the switch has no port box@net1:kernel");
    pod.run(&["ip", "link", "delete", "net1"]);
    check("the container has no interface net1 any more");
    network.del("box").expect("removed");
    network.assert_clean();
}

#[test]
fn both_halves_go_when_the_switch_is_there_again_or_by_gc() {
    let Some((pod, network)) = scene("both_halves_go_when_the_switch_is_there_again_or_by_gc") else {
        return;
    };
    network.add("box", &pod).expect("added");
    network.switch.stop();
    network.del("box").expect("without a switch");
    assert_eq!(pod.interfaces(), Vec::<String>::new());
    assert_eq!(network.folder.list("state"), ["box@net1.detached"]);
    network.switch.restart();
    assert_eq!(network.switch.names(), [FAST, KERNEL]);
    network.del("another").expect("nothing of its own to do");
    network.assert_clean();
    for lost in [false, true] {
        network.add("box", &pod).expect("added");
        if lost {
            std::fs::remove_file(network.folder.path("state/box@net1.json")).expect("there");
        }
        let mut config = network.config();
        config["cni.dev/valid-attachments"] = json!([]);
        let output = network.run("GC", &[], &config);
        assert!(output.success, "{}", output.stdout);
        network.assert_clean();
        if lost {
            // An interface of which there is no record is its namespace's.
            pod.run(&["ip", "link", "delete", "net1"]);
        }
        assert_eq!(pod.interfaces(), Vec::<String>::new());
    }
    // With its namespace the tap goes, and what is left of the port by DEL.
    network.add("box", &pod).expect("added");
    drop(pod);
    network.del("box").expect("without a namespace");
    network.assert_clean();
}
