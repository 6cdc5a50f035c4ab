use super::*;

/// Writes down how it is called and answers with a result that grows by one interface.
const PLUGIN: &str = r#"#!/bin/sh
folder=$(dirname "$0"); name=$(basename "$0")
input=$(cat)
echo "$name $CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS $CNI_ARGS" >>"$folder/calls"
echo "$input" >"$folder/$name.$CNI_COMMAND"
[ ! -e "$folder/$name.fails" ] || { echo '{"code": 111, "msg": "no", "details": "wait"}'; exit 1; }
[ "$CNI_COMMAND" != ADD ] || echo "{\"cniVersion\": \"1.1.0\", \"interfaces\": [{\"name\": \"$name\"}]}"
"#;

struct Bench(PathBuf);

impl Bench {
    fn new(name: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let folder = std::env::temp_dir().join(format!("linecard-cni-runtime-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("made");
        for name in ["one", "two"] {
            let path = folder.join(name);
            fs::write(&path, PLUGIN).expect("written");
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("allowed");
        }
        Self(folder)
    }

    fn target(&self) -> Target {
        let attachment = Attachment::new("box", "net1").expect("legal");
        Target::new(attachment, "/run/netns/x", std::slice::from_ref(&self.0))
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.0.join("calls")).unwrap_or_default();
        let _ = fs::remove_file(self.0.join("calls"));
        calls.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
    }

    fn input(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.0.join(name)).expect("called")).expect("JSON")
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn network(version: &str) -> Network {
    let text = json!({"cniVersion": version, "name": "fast", "plugins": [
        {"type": "one", "capabilities": {"mac": true, "ips": false}, "own": 7}, {"type": "two"}]});
    Network::parse(text.to_string().as_bytes()).expect("a network")
}

#[test]
fn plugins_are_called_in_order_and_back() {
    let bench = Bench::new("order");
    let (network, mut target) = (network("1.1.0"), bench.target());
    target.capabilities.insert("mac".into(), "02:00:00:00:00:01".into());
    target.capabilities.insert("ips".into(), json!(["10.0.0.1/8"]));
    let result = network.add(&target).expect("added");
    assert_eq!(result["interfaces"][0]["name"], "two");
    assert_eq!(
        bench.input("one.ADD"),
        json!({"cniVersion": "1.1.0", "name": "fast", "type": "one", "own": 7,
            "runtimeConfig": {"mac": "02:00:00:00:00:01"}})
    );
    assert_eq!(bench.input("two.ADD")["prevResult"]["interfaces"][0]["name"], "one");
    network.check(&target, &result).expect("checked");
    network.del(&target, Some(&result)).expect("removed");
    assert_eq!(bench.input("one.DEL")["prevResult"], result);
    network.gc(&target.path, &[Attachment::new("a", "b").expect("legal")]).expect("collected");
    let calls = ["one ADD", "two ADD", "one CHECK", "two CHECK", "two DEL", "one DEL", "one GC", "two GC"];
    assert_eq!(bench.calls(), calls);
    assert_eq!(
        bench.input("two.GC")["cni.dev/valid-attachments"],
        json!([{"containerID": "a", "ifname": "b"}])
    );
}

#[test]
fn what_fails_is_undone_and_told() {
    let bench = Bench::new("undone");
    fs::write(bench.0.join("two.fails"), "").expect("written");
    let error = network("1.0.0").add(&bench.target()).expect_err("it fails");
    assert_eq!(error.to_string(), "plugin two: no: wait");
    assert_eq!(bench.calls(), ["one ADD", "two ADD", "two DEL", "one DEL"]);
}

#[test]
fn older_versions_are_asked_less() {
    let bench = Bench::new("older");
    let (network, target) = (network("0.3.1"), bench.target());
    let result = network.add(&target).expect("added");
    network.check(&target, &result).expect("there is none");
    network.gc(&target.path, &[]).expect("there is none");
    network.del(&target, Some(&result)).expect("removed");
    assert_eq!(bench.calls(), ["one ADD", "two ADD", "two DEL", "one DEL"]);
    assert!(bench.input("one.DEL")["prevResult"].is_null());
}

#[test]
fn what_is_no_network_is_told() {
    for (text, part) in [
        (r#"{"cniVersion": "1.0.0", "name": "a", "plugins": []}"#, "is not a list of plugins"),
        (
            r#"{"cniVersion": "1.0.0", "name": "a", "plugins": [{"type": "x"}, 7]}"#,
            "is not a list of plugins",
        ),
        (r#"{"cniVersion": "1.0.0", "name": "a", "plugins": {}}"#, "is not a list of plugins"),
        (r#"{"cniVersion": "1.0.0", "name": "a"}"#, "is not a list of plugins"),
        (r#"{"cniVersion": "1.0.0", "name": "../a", "type": "x"}"#, "'name' is"),
        (r#"{"name": "a", "type": "x"}"#, "cniVersion '0.1.0'"),
        ("[]", "no JSON object"),
    ] {
        let error = Network::parse(text.as_bytes()).expect_err(text);
        assert!(error.msg.contains(part), "{text}: {error}");
    }
    let alone = Network::parse(br#"{"cniVersion": "1.0.0", "name": "a", "type": "x"}"#).expect("one plugin");
    assert_eq!(alone.types(), ["x"]);
}

#[test]
fn networks_are_found_by_file_name() {
    let bench = Bench::new("find");
    let text =
        |name: &str| format!(r#"{{"cniVersion": "1.0.0", "name": "{name}", "plugins": [{{"type": "x"}}]}}"#);
    for (file, content) in [
        ("20-b.conflist", text("b")),
        ("10-a.conf", text("a")),
        ("00-junk.conflist", "{".into()),
        ("05-c.txt", text("c")),
    ] {
        fs::write(bench.0.join(file), content).expect("written");
    }
    assert_eq!(Network::find(&bench.0, "network", |_| true).expect("two").name(), "a");
    assert_eq!(Network::find(&bench.0, "network", |network| network.name() == "b").expect("one").name(), "b");
    let error = Network::find(&bench.0, "network 'c'", |network| network.name() == "c").expect_err("none");
    assert!(error.msg.contains("no network 'c' in"), "{error}");
    let error = Network::load(&bench.0.join("00-junk.conflist")).expect_err("junk");
    assert!(error.msg.contains("00-junk.conflist: ") && error.code == Code::Decode, "{error}");
}
