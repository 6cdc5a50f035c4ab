//! Whatever a runtime sends, the plugin answers by a result or by one error with a remedy: no panic, and nothing outside of
//! its own folders.

mod common;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use common::Folder;
use linecard_cni::{Config, Environment, Network, invoke};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Keys that somebody reads.
const KEYS: [&str; 25] = [
    "cniVersion",
    "name",
    "type",
    "switch",
    "mode",
    "listen",
    "socketDir",
    "vlan",
    "queues",
    "mtu",
    "mac",
    "ips",
    "link",
    "ports",
    "ipam",
    "dns",
    "stateDir",
    "runtimeConfig",
    "args",
    "cni",
    "prevResult",
    "interfaces",
    "sandbox",
    "address",
    "cni.dev/valid-attachments",
];
/// Words that lead somewhere.
const WORDS: [&str; 26] = [
    "0.3.0",
    "1.1.0",
    "fast",
    "abstract",
    "socket-dir",
    "container",
    "switch",
    "/run/x",
    "/../etc",
    "..",
    "../../x",
    "\0",
    "02:00:00:00:00:01",
    "01:00:00:00:00:01",
    "10.0.0.1/24",
    "fd00::1/129",
    "box",
    "net1",
    "a/b",
    "-1",
    "",
    "ADD",
    "é\u{202e}",
    "host-local",
    "tcp:4444-20000,udp:53",
    "tcp:0",
];
const VARIABLES: [&str; 6] =
    ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH"];
const COMMANDS: [&str; 7] = ["ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION", "FROB"];

/// The same cases in every run; `LINECARD_SEED=SEED` chooses others.
fn cases(cases: u32) -> ProptestConfig {
    let seed = std::env::var("LINECARD_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let rng_seed = proptest::test_runner::RngSeed::Fixed(seed);
    ProptestConfig { cases, rng_seed, failure_persistence: None, ..ProptestConfig::default() }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(&WORDS[..]).prop_map(str::to_owned),
        1 => any::<String>(),
        1 => (1_usize..70_000).prop_map(|len| "a".repeat(len)),
    ]
}

/// A JSON value, mostly of keys that are known.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        text().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0_u16..5000).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![8 => prop::sample::select(&KEYS[..]).prop_map(str::to_owned), 1 => any::<String>()]
}

fn variable() -> impl Strategy<Value = OsString> {
    prop_oneof![
        3 => text().prop_map(OsString::from),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(OsString::from_vec),
        1 => "[A-Z]{1,4}=[a-z0-9:.,/]{0,20}(;[A-Z]{1,4}(=.{0,9})?)*".prop_map(OsString::from),
    ]
}

fn environment() -> impl Strategy<Value = BTreeMap<&'static str, OsString>> {
    let command =
        prop_oneof![9 => prop::sample::select(&COMMANDS[..]).prop_map(OsString::from), 1 => variable()];
    let plain = prop_oneof![2 => Just(None), 1 => prop::collection::btree_map(0_usize..6, variable(), 0..4).prop_map(Some)];
    (command, plain).prop_map(|(command, other)| {
        let usual = ["", "box", "/dev/null", "net1", "IgnoreUnknown=1", ""].map(OsString::from);
        let mut all: BTreeMap<_, _> = VARIABLES.into_iter().zip(usual).collect();
        all.insert("CNI_COMMAND", command);
        for (at, value) in other.into_iter().flatten() {
            all.insert(VARIABLES[at], value);
        }
        all
    })
}

fn configuration() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::btree_map(key(), value(), 0..10).prop_map(|map| {
        let mut object = Map::new();
        object.extend([("cniVersion".into(), json!("1.1.0")), ("name".into(), json!("fast"))]);
        object.extend(map);
        object
    })
}

/// What the plugin said is one JSON object, and an error has all that it should.
fn assert_told(output: &linecard_cni::Output) {
    if output.success {
        return;
    }
    let error: Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert!(error["code"].as_u64().is_some_and(|code| code > 0), "{error}");
    for key in ["msg", "details", "cniVersion"] {
        let text = error[key].as_str().unwrap_or_default();
        assert!(!text.is_empty() && text.len() < 1500, "{key} of {error}");
        assert!(!text.chars().any(char::is_control), "{key} of {error}");
    }
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..300), all in environment()) {
        let lookup = |name: &str| all.get(name).cloned();
        if let Ok(environment) = Environment::read(lookup) {
            let read = Config::read(&bytes, &environment);
            prop_assert!(read.is_err());
        }
        let _ = Network::parse(&bytes);
    }

    #[test]
    fn any_configuration_is_taken_or_told(config in configuration(), all in environment()) {
        let text = Value::Object(config).to_string();
        let _ = Network::parse(text.as_bytes());
        let environment = match Environment::read(|name| all.get(name).cloned()) {
            Ok(environment) => environment,
            Err(error) => {
                prop_assert!(!error.details.is_empty() && error.to_string().len() < 1000, "{error}");
                return Ok(());
            }
        };
        if let Some(attachment) = &environment.attachment {
            let name = attachment.to_string();
            prop_assert!(name.len() < 240 && !name.contains('/') && !name.starts_with('.'), "{name}");
        }
        match Config::read(text.as_bytes(), &environment) {
            Ok(config) => {
                for path in [Some(&config.switch), Some(&config.state_dir), config.device_info.as_ref()].into_iter().flatten() {
                    prop_assert!(path.is_absolute() && !path.iter().any(|part| part == ".."), "{}", path.display());
                }
                prop_assert!(!config.ipam.is_some_and(|name| name.contains('/')));
            }
            Err(error) => prop_assert!(!error.details.is_empty() && error.to_string().len() < 1000, "{error}"),
        }
    }
}

/// Whole runs, against a switch that is not there and a namespace that is none.
#[test]
fn any_run_stays_in_its_folders() {
    let folder = Folder::new("any");
    let inside = |name: &str| folder.path(name).to_string_lossy().into_owned();
    let mut runner = proptest::test_runner::TestRunner::new(cases(600));
    let outcome = runner.run(&(configuration(), environment()), |(mut config, mut all)| {
        for key in ["stateDir", "socketDir"] {
            config.insert(key.into(), inside(key).into());
        }
        config.insert("switch".into(), inside("switch.sock").into());
        config.remove("runtimeConfig");
        all.insert("CNI_PATH", inside("bin").into());
        // Whatever it names must be no namespace of ours.
        if all["CNI_NETNS"].to_string_lossy().contains("ns/net") {
            all.insert("CNI_NETNS", "/dev/null".into());
        }
        let output = invoke(|name| all.get(name).cloned(), Value::Object(config).to_string().as_bytes());
        assert_told(&output);
        Ok(())
    });
    outcome.expect("no run fails");
    let left = folder.list(".");
    assert!(left.iter().all(|name| ["stateDir", "socketDir"].contains(&name.as_str())), "{left:?}");
    let state = folder.list("stateDir");
    // Ports that a switch which is not there still has to remove: those of DEL.
    assert!(state.iter().all(|name| name.ends_with(".detached")), "{state:?}");
    assert!(!Path::new("/run/linecard/cni-state").join("box@net1.json").exists());
}
