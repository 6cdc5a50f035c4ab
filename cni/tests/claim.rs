//! Ports by CDI against a switch that only remembers.

mod common;

use std::path::PathBuf;

use common::Network;
use linecard_cni::claim::{Claim, Parameters, Paths};
use linecard_cni::{Code, step};
use linecard_switch::api::{PortKind, Rate, Vlan};
use serde_json::{Value, json};

fn places(network: &Network) -> Paths {
    Paths {
        sockets: network.folder.path("claims"),
        switch: network.switch.path.clone(),
        state: network.folder.path("state"),
        ..Paths::new(network.folder.path("cdi"))
    }
}

fn read(path: PathBuf) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("there")).expect("JSON")
}

fn assert_clean(network: &Network, what: &str) {
    for folder in ["claims", "cdi", "state"] {
        assert_eq!(network.folder.list(folder), Vec::<String>::new(), "{what}: {folder}");
    }
    assert_eq!(network.switch.names(), Vec::<String>::new(), "{what}");
}

#[test]
fn a_claim_becomes_a_device_with_the_drivers_paths() {
    let network = Network::new("claim");
    let places = places(&network);
    let claim = Claim::new("storage", "port0", Some("4711-a")).expect("legal");
    let parameters = Parameters::read(
        br#"{"apiVersion": "ovsdpdk.k8snetworkplumbingwg.io/v1alpha1", "kind": "OvsPortConfig", "vlan": 7,
        "policing": {"max_rate": 1000, "burst": 80}, "mtu": 9000, "mac": "02:00:00:00:00:01", "ips": ["10.1.0.5/24"], "queues": 2}"#,
    );
    let parameters = parameters.expect("valid");
    let told = places.attach(&claim, &parameters).expect("attached");
    assert_eq!(told["cdiDeviceIDs"], json!(["linecard/port=4711-a_storage_port0"]));
    assert_eq!(told["containerPath"], "/var/run/ovsdpdk/storage/port0/vhost.sock");
    let spec = network.switch.spec("4711-a_storage_port0").expect("a port");
    let PortKind::VhostUser { path, client: true, .. } = &spec.kind else { panic!("{spec:?}") };
    assert_eq!(told["hostPath"], json!(path));
    assert_eq!((spec.vlan, spec.mtu, spec.queues), (Some(Vlan::Access(7)), 9000, 2));
    assert_eq!(spec.rate, Some(Rate { bits_per_second: 1_000_000, burst_bytes: Some(10_000) }));
    let device = read(network.folder.path("cdi/linecard-port_4711-a_storage_port0.json"));
    assert_eq!((&device["cdiVersion"], &device["kind"]), (&json!("0.5.0"), &json!("linecard/port")));
    let edits = &device["devices"][0]["containerEdits"];
    assert_eq!(edits["mounts"][0]["containerPath"], "/var/run/ovsdpdk/storage/port0");
    assert_eq!(edits["mounts"][0]["hostPath"], json!(path.parent()));
    let variable = "LINECARD_PORT0=/var/run/ovsdpdk/storage/port0/vhost.sock,server=1,mac=02:00:00:00:00:01,ip=10.1.0.5/24";
    assert_eq!(edits["env"], json!([variable]));
    let metadata = edits["mounts"][1]["hostPath"].as_str().expect("a path");
    let metadata = read(PathBuf::from(metadata).join("ovsdpdk.k8snetworkplumbingwg.io-metadata.json"));
    let device = &metadata["requests"][0]["devices"][0];
    // Names and types of dra-driver-ovsdpdk's (pkg/devicestate), and `vlan`.
    let attributes = json!({
        "vhost-user-path": {"string": "/var/run/ovsdpdk/storage/port0/vhost.sock"},
        "mtu": {"int": 9000},
        "ingress-policing-rate": {"int": 1000},
        "ingress-policing-burst": {"int": 80},
        "vlan": {"int": 7},
    });
    assert_eq!(device["attributes"], attributes);
    let status = json!({
        "mount": {"HostDir": path.parent(), "ContainerDir": "/var/run/ovsdpdk/storage/port0"},
        "socket": {"HostPath": path, "ContainerPath": "/var/run/ovsdpdk/storage/port0/vhost.sock"},
        "bridgeName": "linecard",
        "cdiDeviceID": ["linecard/port=4711-a_storage_port0"],
        "config": {
            "apiVersion": "ovsdpdk.k8snetworkplumbingwg.io/v1alpha1", "kind": "OvsPortConfig", "vlan": 7,
            "policing": {"max_rate": 1000, "burst": 80}, "mtu": 9000, "mac": "02:00:00:00:00:01", "ips": ["10.1.0.5/24"],
            "queues": 2,
        },
    });
    assert_eq!(told["data"], status);
    assert_eq!(
        Parameters::read(told["data"]["config"].to_string().as_bytes()).expect("read again"),
        parameters
    );
    assert_eq!(device["networkData"]["hardwareAddress"], "02:00:00:00:00:01");

    // The kubelet asks again after a timeout.
    assert_eq!(places.attach(&claim, &parameters).expect("found"), told);
    places.detach(&claim).expect("detached");
    places.detach(&claim).expect("detached already");
    assert_clean(&network, "after all");
}

#[test]
fn what_fails_leaves_nothing() {
    let network = Network::new("claim-undone");
    let places = places(&network);
    let claim = Claim::new("storage", "port0", None).expect("legal");
    network.switch.refuse("exhausted");
    assert_eq!(places.attach(&claim, &Parameters::default()).expect_err("refused").code, Code::TryAgain);
    assert_clean(&network, "refused");
    network.switch.stop();
    assert_eq!(places.attach(&claim, &Parameters::default()).expect_err("absent").code, Code::NotAvailable);
    assert_clean(&network, "absent");
    network.switch.restart();
    places.attach(&claim, &Parameters::default()).expect("attached");
    network.switch.stop();
    places.detach(&claim).expect("the port goes later");
    assert_eq!(network.folder.list("state"), ["storage_port0.detached"]);
    network.switch.restart();
    network.del("another").expect("whoever finds the switch again");
    assert_clean(&network, "later");
    std::fs::remove_dir_all(network.folder.path("claims")).expect("removed");
    std::fs::write(network.folder.path("claims"), "").expect("written");
    assert_eq!(places.attach(&claim, &Parameters::default()).expect_err("no folder").code, Code::Io);
    assert_eq!(network.switch.names(), Vec::<String>::new());
    for name in ["", "..", "A", "a/b", "a_b", "-a", &"a".repeat(64)] {
        assert_eq!(Claim::new("c", name, None).expect_err(name).code, Code::Config);
    }
    for name in ["", "../../esc", "a/b", ".", &"a".repeat(64)] {
        let elsewhere = Paths { driver: name.into(), ..places.clone() };
        let problem = elsewhere.attach(&claim, &Parameters::default()).expect_err(name);
        assert!(problem.msg.contains("the driver's name is"), "{problem}");
    }
    let relative = Paths { container_root: "run".into(), ..places.clone() };
    assert_eq!(relative.attach(&claim, &Parameters::default()).expect_err("relative").code, Code::Config);
    let long = Claim::new(&"c".repeat(60), &"r".repeat(60), None).expect("legal");
    assert!(
        places.attach(&long, &Parameters::default()).expect_err("too long").details.contains("at most 107")
    );
    for (text, part) in [
        (r#"{"vlan": -1}"#, "integer `-1`"),
        (r#"{"vlan": 5000}"#, "'vlan' is 5000"),
        (r#"{"policing": {}}"#, "max_rate"),
        (r#"{"bridge": 1}"#, "unknown field `bridge`"),
        (r#"{"mac": "x"}"#, "02:00:00:00:00:01"),
        (r#"{"queues": 0}"#, "'queues' is 0"),
        ("[]", "the text of the port's parameters is no JSON object"),
        ("", "the text of the port's parameters is not JSON"),
    ] {
        let problem = Parameters::read(text.as_bytes()).expect_err(text);
        assert!(problem.msg.contains(part) && !problem.details.is_empty(), "{text}: {problem}");
    }
}

/// After each step, as if it were killed there: what is there may be attached again, or detached.
#[test]
fn an_attach_that_ends_early_can_be_repeated() {
    let network = Network::new("claim-early");
    let places = places(&network);
    let claim = Claim::new("storage", "port0", None).expect("legal");
    for stop in 1.. {
        let (count, ended) =
            (std::rc::Rc::new(std::cell::Cell::new(0)), std::rc::Rc::new(std::cell::Cell::new(false)));
        let (seen, died) = (std::rc::Rc::clone(&count), std::rc::Rc::clone(&ended));
        step::watch(move |_| {
            seen.set(seen.get() + 1);
            if seen.get() == stop {
                died.set(true);
                std::panic::resume_unwind(Box::new("killed"));
            }
        });
        let attempt = std::panic::AssertUnwindSafe(|| places.attach(&claim, &Parameters::default()));
        let outcome = std::panic::catch_unwind(attempt);
        step::watch(|_| {});
        assert_eq!(outcome.is_err(), ended.get());
        if stop % 2 == 0 {
            places.attach(&claim, &Parameters::default()).expect("again");
            assert_eq!(network.switch.names(), ["storage_port0"]);
        }
        places.detach(&claim).expect("detached");
        assert_clean(&network, &format!("after step {stop}"));
        if !ended.get() {
            assert!(stop > 5, "{stop} steps were watched");
            break;
        }
    }
}
