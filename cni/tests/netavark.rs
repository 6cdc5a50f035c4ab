//! The plugin as netavark calls it, against a switch that only remembers: what it answers, and what it refuses.

mod common;

use common::{FakeSwitch, Folder, Pod};
use linecard_cni::netavark::Request;
use linecard_switch::api::SocketOrigin;
use serde_json::{Value, json};

/// A folder with a switch, and what netavark says of a network on it.
struct Scene {
    folder: Folder,
    switch: FakeSwitch,
}

impl Scene {
    fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        let switch = FakeSwitch::start(folder.path("switch.sock"));
        Self { folder, switch }
    }

    fn network(&self, more: Value) -> Value {
        let mut options = json!({
            "switch": self.folder.path("switch.sock"),
            "stateDir": self.folder.path("state"),
        });
        if let (Some(options), Some(more)) = (options.as_object_mut(), more.as_object()) {
            options.extend(more.clone());
        }
        json!({
            "name": "fast", "id": "2f259bab93", "driver": "linecard", "network_interface": null,
            "dns_enabled": true, "internal": false, "ipv6_enabled": true,
            "ipam_options": {"driver": "host-local"}, "options": options,
            "subnets": [
                {"subnet": "10.89.0.0/24", "gateway": "10.89.0.1", "lease_range": null},
                {"subnet": "fd00::/64", "gateway": null},
            ],
        })
    }

    /// What `setup` and `teardown` get.
    fn exec(&self, ips: &[&str], more: Value) -> Value {
        json!({
            "container_id": "box", "container_name": "a-box", "port_mappings": [],
            "network": self.network(more),
            "network_options": {"aliases": ["box"], "interface_name": "net1", "static_ips": ips},
        })
    }
}

fn ask(request: &Request, input: &Value) -> Result<Value, String> {
    let output = request.answer(input.to_string().as_bytes());
    let value: Value = if output.stdout.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&output.stdout).expect("it is JSON")
    };
    match output.success {
        true => Ok(value),
        false => Err(value["error"].as_str().expect("a message").to_owned()),
    }
}

#[test]
fn a_container_gets_a_port_and_gives_it_back() {
    let Some(pod) = Pod::new("netavark: a_container_gets_a_port_and_gives_it_back") else { return };
    let scene = Scene::new("netavark");
    let netns = pod.netns.clone().into_os_string();
    let mut exec = scene.exec(&["10.89.0.5", "fd00::5"], json!({"vlan": "7", "mtu": "9000", "queues": "2"}));
    exec["network_options"]["static_mac"] = "02:00:00:00:00:05".into();
    let status = ask(&Request::Setup(netns.clone()), &exec).expect("an interface");
    assert_eq!(
        status,
        json!({
            "dns_search_domains": [], "dns_server_ips": [],
            "interfaces": {"net1": {
                "mac_address": "02:00:00:00:00:05",
                "subnets": [
                    {"ipnet": "10.89.0.5/24", "gateway": "10.89.0.1"},
                    {"ipnet": "fd00::5/64", "gateway": null},
                ],
            }},
        })
    );
    let spec = scene.switch.spec("box@net1").expect("a port");
    assert_eq!((spec.mtu, spec.queues, spec.ips.len()), (9000, 2, 2));
    assert_eq!(spec.meta["network"], "fast");
    // By this the switch knows the namespace should the path lead elsewhere one day.
    assert_eq!(spec.meta.get("namespace"), SocketOrigin::new(&netns, "").namespace.as_ref());
    assert!(spec.meta.contains_key("namespace"));
    let again = ask(&Request::Setup(netns.clone()), &exec).expect_err("it is there");
    assert!(again.contains("has a port net1 already"), "{again}");
    for _ in 0..2 {
        // As often as anybody likes.
        assert_eq!(ask(&Request::Teardown(netns.clone()), &exec), Ok(Value::Null));
        assert!(scene.switch.names().is_empty() && scene.folder.list("state").is_empty());
    }
}

#[test]
fn an_address_is_made_where_none_is_asked_for() {
    let Some(pod) = Pod::new("netavark: an_address_is_made_where_none_is_asked_for") else { return };
    let scene = Scene::new("netavark-mac");
    let netns = pod.netns.clone().into_os_string();
    let exec = scene.exec(&[], json!({"link": "false"}));
    let status = ask(&Request::Setup(netns.clone()), &exec).expect("an interface");
    let interface = &status["interfaces"]["net1"];
    let mac = scene.switch.spec("box@net1").and_then(|spec| spec.mac).expect("an address").to_string();
    assert_eq!(interface["mac_address"].as_str(), Some(mac.to_lowercase().as_str()));
    assert_eq!(interface["subnets"], json!([]));
    ask(&Request::Teardown(netns), &exec).expect("it goes");
    assert!(scene.switch.names().is_empty());
}

#[test]
fn networks_are_checked_when_they_are_made() {
    let scene = Scene::new("netavark-create");
    let network = scene.network(json!({"vlan": "7", "link": "true"}));
    let mut want = network.clone();
    want["dns_enabled"] = false.into();
    assert_eq!(ask(&Request::Create, &network), Ok(want));
    for (option, value, want) in [
        ("vlan", "5000", "'vlan' is 5000: give a number from 1 to 4094"),
        ("vlan", "ten", "'vlan' is \"ten\": give a number from 1 to 4094"),
        ("link", "maybe", "'link' is \"maybe\": give true or false"),
        ("mode", "fd", "'mode' is \"fd\""),
        ("ports", "tcp:0", "'ports' is \"tcp:0\": 'tcp:0' is no range of TCP or UDP ports; give ranges"),
        ("colour", "red", "a network of this driver has no option 'colour': it has switch, "),
    ] {
        let problem = ask(&Request::Create, &scene.network(json!({option: value}))).expect_err(want);
        assert!(problem.contains(want) && !problem.contains('\n'), "{problem}");
    }
    let mut dhcp = scene.network(json!({}));
    dhcp["ipam_options"]["driver"] = "dhcp".into();
    assert!(
        ask(&Request::Create, &dhcp).expect_err("no dhcp").contains("use --ipam-driver host-local or none")
    );
    let mut name = scene.network(json!({}));
    name["name"] = "../etc".into();
    assert!(ask(&Request::Create, &name).expect_err("no such name").contains("'name' is"));
}

#[test]
fn versions_are_told() {
    let info = ask(&Request::Info, &Value::Null).expect("versions");
    assert_eq!((info["api_version"].as_str(), info["version"].is_string()), (Some("1.0.0"), true));
}

#[test]
fn nonsense_is_answered_with_an_error_in_json() {
    let scene = Scene::new("netavark-nonsense");
    let netns = || Request::Setup("/run/netns/no-such".into());
    for input in
        ["", "{", "7", "[]", "null", "{}", "{\"network\": 7}", "{\"network\": {}, \"network_options\": []}"]
    {
        for request in [Request::Create, netns(), Request::Teardown("".into())] {
            let output = request.answer(input.as_bytes());
            let value: Value = serde_json::from_str(&output.stdout).expect(input);
            assert!(
                !output.success && value["error"].as_str().is_some_and(|text| !text.is_empty()),
                "{input}"
            );
        }
    }
    for (ips, want) in [
        (&["10.90.0.1"][..], "is in no subnet of the network"),
        (&["nonsense"][..], "is in no subnet of the network"),
        (&["10.89.0.7"][..], "/run/netns/no-such"),
    ] {
        let problem = ask(&netns(), &scene.exec(ips, json!({}))).expect_err(want);
        assert!(problem.contains(want), "{problem}");
    }
    for (key, value) in [("container_id", "../x"), ("container_id", "")] {
        let mut exec = scene.exec(&[], json!({}));
        exec[key] = value.into();
        ask(&netns(), &exec).expect_err("no such container");
    }
    assert!(scene.switch.names().is_empty());
}
