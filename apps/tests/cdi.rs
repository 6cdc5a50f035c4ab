//! `linecard port attach --cdi`: a container of runc gets what the CDI file says, and nothing else, and finds its port.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use common::{PATIENCE, Running, Scratch, eventually, linecard, run, skip};
use linecard_switch::api::{Client, PortState};
use rustix::process::Signal;
use serde_json::{Value, json};

const RUNC: &str = "/usr/sbin/runc";

/// A bundle whose container has this system's programs, read only, and the edits of the CDI device.
fn bundle(scratch: &Scratch, edits: &Value, command: &[&str]) -> String {
    let bundle = scratch.file("bundle");
    std::fs::create_dir_all(format!("{bundle}/rootfs")).unwrap();
    let read_only =
        |path: &str| json!({"source": path, "destination": path, "type": "bind", "options": ["rbind", "ro"]});
    let mut mounts = vec![json!({"source": "proc", "destination": "/proc", "type": "proc"})];
    mounts.push(json!({"source": "tmpfs", "destination": "/tmp", "type": "tmpfs", "options": ["mode=1777"]}));
    mounts.extend(
        ["/usr", "/lib", "/lib64"].into_iter().filter(|path| Path::new(path).exists()).map(read_only),
    );
    let program = env!("CARGO_BIN_EXE_linecard");
    mounts.push(
        json!({"source": program, "destination": "/linecard", "type": "bind", "options": ["bind", "ro"]}),
    );
    for mount in edits["mounts"].as_array().unwrap() {
        mounts
            .push(json!({"source": mount["hostPath"], "destination": mount["containerPath"], "type": "bind",
            "options": mount["options"]}));
    }
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 1000, "gid": 1000}, "cwd": "/", "args": command, "env": edits["env"], "noNewPrivileges": true,
            "capabilities": {"bounding": [], "effective": [], "permitted": []},
        },
        "root": {"path": "rootfs"},
        "mounts": mounts,
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "network"}, {"type": "ipc"}]},
    });
    std::fs::write(format!("{bundle}/config.json"), config.to_string()).unwrap();
    bundle
}

/// Ends the container, whatever became of its starter.
struct Deleted<'a> {
    root: &'a str,
    name: &'a str,
}

impl Drop for Deleted<'_> {
    fn drop(&mut self) {
        let _ = Command::new(RUNC).args(["--root", self.root, "delete", "--force", self.name]).output();
    }
}

#[test]
fn a_container_finds_the_port_of_its_cdi_device() {
    let test = "a_container_finds_the_port_of_its_cdi_device";
    if !Path::new(RUNC).exists() || !rustix::process::geteuid().is_root() {
        skip(test, "it needs root and runc; install runc");
        return;
    }
    let scratch = Scratch::new();
    let socket = scratch.file("switch.sock");
    let switch =
        linecard(&["switch", "--no-huge", "-m", "64", "--state", "none", "--socket", &socket]).spawn();
    let switch = Running(switch.unwrap());
    eventually("the switch", || Client::connect(Path::new(&socket)).is_ok());
    let (cdi, claims, state) = (scratch.file("cdi"), scratch.file("claims"), scratch.file("state"));
    let port = |what: &str, more: &[&str]| {
        let mut command = linecard(&["port", what, "--cdi", &cdi, "--claim", "fast", "--request", "port0"]);
        command.args(["--switch", &socket, "--socket-dir", &claims, "--state-dir", &state]).args(more);
        run(&mut command, b"")
    };
    let said = port("attach", &["--mac", "02:00:00:00:00:31", "--ip", "10.6.0.1/24", "--mtu", "1500"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let told: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(told["cdiDeviceIDs"], json!(["linecard/port=fast_port0"]));
    let file = std::fs::read(format!("{cdi}/linecard-port_fast_port0.json")).unwrap();
    let device: Value = serde_json::from_slice(&file).unwrap();
    let edits = &device["devices"][0]["containerEdits"];
    let bundle = bundle(&scratch, edits, &["/linecard", "cni", "answer", "port0"]);
    let (root, name) = (scratch.file("runc"), format!("linecard-cdi-{}", std::process::id()));
    let _deleted = Deleted { root: &root, name: &name };
    let mut container = Command::new(RUNC);
    container.args(["--root", &root, "run", "--bundle", &bundle, &name]);
    let container =
        Running::start(container.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let mut client = Client::connect(Path::new(&socket)).unwrap();
    client.set_patience(PATIENCE).unwrap();
    eventually("the container's socket", || client.port_show("fast_port0").unwrap().state == PortState::Up);

    let bin = scratch.file("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_linecard"), format!("{bin}/linecard")).unwrap();
    let network = scratch.file("net.conf");
    let config = json!({"cniVersion": "1.0.0", "name": "fast", "type": "linecard", "switch": socket, "stateDir": state,
        "capabilities": {"ips": true}});
    std::fs::write(&network, config.to_string()).unwrap();
    let words = ["cni", "run", "--network", &network, "--cni-path", &bin, "--ip", "10.6.0.2/24", "--"];
    let ping = [
        env!("CARGO_BIN_EXE_linecard"),
        "cni",
        "ping",
        "--to",
        "10.6.0.1",
        "--count",
        "3000",
        "--wait",
        "60",
    ];
    let said = Running::start(linecard(&words).args(ping)).end(2 * PATIENCE);
    assert!(said.code == Some(0) && said.out.contains("10.6.0.1 at 02:00:00:00:00:31"), "{said:?}");
    assert!(said.out.contains("3000 came back checked, 0 lost"), "{said:?}");

    let killed = Command::new(RUNC).args(["--root", &root, "kill", &name, "TERM"]).output().unwrap();
    assert!(killed.status.success(), "{}", String::from_utf8_lossy(&killed.stderr));
    let said = container.end(PATIENCE);
    assert!(said.out.contains("answers for 10.6.0.1"), "{said:?}");
    for _ in 0..2 {
        assert_eq!(port("detach", &[]).code, Some(0));
    }
    assert!(client.port_list().unwrap().is_empty());
    for folder in [&cdi, &claims, &state] {
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0, "{folder}");
    }
    let said = port("attach", &["--vlan", "4095"]);
    assert!(
        said.code == Some(1) && said.err.contains("'vlan' is 4095; give a number from 1 to 4094"),
        "{said:?}"
    );
    switch.signal(Signal::TERM);
    assert_eq!(switch.end(PATIENCE).code, Some(0));
    let said = port("attach", &[]);
    assert!(said.code == Some(1) && said.err.contains("no switch answers at"), "{said:?}");
}
