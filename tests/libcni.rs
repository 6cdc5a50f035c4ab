//! The plugin under libcni, Go's container network library, as a second runtime beside podman's: ADD, CHECK and DEL of lists
//! with one plugin and with several. Debian's libcni, 1.1.2, knows neither GC nor versions after 1.0.0; those are asked for
//! by this project's own runtime (`linecard cni run`, `cni/tests`).

mod support;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use linecard_cni::{Code, Error, Sandbox};
use linecard_lab::{skip, wait_until};
use linecard_switch::api::{Client, PortInfo};
use serde_json::{Value, json};
use support::Scratch;
use support::example::Running;

/// Where Debian's Go packages are.
const GOPATH: &str = "/usr/share/gocode";
const LIBCNI: &str = "/usr/share/gocode/src/github.com/containernetworking/cni/libcni";

/// The runtime, built; `None` where the test is skipped.
fn build(test: &str, scratch: &Scratch) -> Option<PathBuf> {
    let install = "install golang-go and golang-github-containernetworking-cni-dev";
    if !Path::new(LIBCNI).exists() {
        skip(test, &format!("there is no {LIBCNI}; {install}"));
        return None;
    }
    let program = scratch.join("libcni");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/libcni/main.go");
    // The cache is kept beside other build results: compiling libcni takes longer than the whole test.
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go");
    let built = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(source)
        .env("GO111MODULE", "off")
        .env("GOPATH", GOPATH)
        .env("GOCACHE", cache)
        .env("GOFLAGS", "")
        .output();
    match built {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(program)
        }
        Err(error) => {
            skip(test, &format!("no program 'go' ({error}); {install}"));
            None
        }
    }
}

/// A namespace; `None` where the test is skipped, or ran as root of a user namespace.
fn container(test: &str) -> Option<Sandbox> {
    match Sandbox::new() {
        Ok(sandbox) => Some(sandbox),
        Err(Error { code: Code::Namespace, msg, .. }) => {
            if let linecard_testing::Rerun::Refused(why) = linecard_testing::in_user_namespace(test) {
                skip(test, &format!("{msg}; {why}"));
            }
            None
        }
        Err(error) => panic!("{error}"),
    }
}

struct Bench {
    scratch: Scratch,
    runtime: PathBuf,
    container: Sandbox,
    _switch: Running,
    socket: PathBuf,
}

impl Bench {
    fn new(test: &str) -> Option<Self> {
        let container = container(test)?;
        let scratch = Scratch::new(test);
        let runtime = build(test, &scratch)?;
        let socket = scratch.join("switch.sock");
        let switch = Command::new(env!("CARGO_BIN_EXE_linecard"))
            .args(["switch", "--no-huge", "-m", "64", "--state", "none", "--socket"])
            .arg(&socket)
            .stdout(Stdio::null())
            .spawn();
        let switch = Running(switch.expect("it starts"));
        wait_until("the switch", || Client::connect(&socket).is_ok());
        std::fs::create_dir(scratch.join("bin")).expect("made");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_linecard"), scratch.join("bin/linecard"))
            .expect("a link");
        Some(Self { scratch, runtime, container, _switch: switch, socket })
    }

    fn ports(&self) -> Vec<PortInfo> {
        let mut client = Client::connect(&self.socket).expect("it listens");
        client.set_patience(linecard_lab::PATIENCE).expect("a socket");
        client.port_list().expect("it answers")
    }

    fn plugin(&self) -> Value {
        json!({"type": "linecard", "switch": self.socket, "stateDir": self.scratch.join("state"),
            "capabilities": {"mac": true, "ips": true}})
    }

    /// libcni with that list.
    fn start(&self, version: &str, plugins: &[Value]) -> (Child, BufReader<ChildStdout>) {
        let list = json!({"cniVersion": version, "name": "fast", "plugins": plugins});
        let file = self.scratch.join("net.conflist");
        std::fs::write(&file, list.to_string()).expect("written");
        let path = format!("{}:/usr/lib/cni", self.scratch.join("bin").display());
        let mut child = Command::new(&self.runtime)
            .arg(path)
            .arg(self.scratch.join("cache"))
            .arg(file)
            .arg(self.container.path())
            .arg("net1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        (child, out)
    }

    fn assert_clean(&self) {
        assert!(self.ports().is_empty());
        assert!(!self.container.has_interface("net1").expect("a namespace"));
        let state = std::fs::read_dir(self.scratch.join("state")).into_iter().flatten().count();
        assert_eq!(state, 0);
    }
}

/// The next line, which says `key`.
fn said(out: &mut impl BufRead, key: &str) -> Value {
    let mut line = String::new();
    out.read_line(&mut line).expect("it speaks");
    let value: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
    assert!(!value[key].is_null(), "{key} expected: {line}");
    value[key].clone()
}

/// Lets go of it and waits for its end.
fn release(mut child: Child, mut out: impl BufRead) {
    drop(child.stdin.take());
    said(&mut out, "detached");
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn libcni_attaches_checks_and_detaches() {
    let test = "libcni_attaches_checks_and_detaches";
    let Some(bench) = Bench::new(test) else { return };
    for version in ["0.3.1", "0.4.0", "1.0.0"] {
        let (child, mut out) = bench.start(version, &[bench.plugin()]);
        let result = said(&mut out, "result");
        assert_eq!(result["cniVersion"], version);
        let interface = &result["interfaces"][0];
        assert_eq!((&interface["name"], &interface["mac"]), (&json!("net1"), &json!("02:00:00:00:00:2a")));
        assert_eq!(result["ips"][0]["address"], "10.7.0.9/24", "{result}");
        said(&mut out, "attached");
        let ports = bench.ports();
        assert_eq!(ports.len(), 1);
        assert_eq!(ports[0].spec.key, "libcni-box@net1");
        assert!(bench.container.has_interface("net1").expect("a namespace"));
        release(child, out);
        bench.assert_clean();
    }
}

#[test]
fn libcni_puts_the_plugin_after_others() {
    let test = "libcni_puts_the_plugin_after_others";
    if !Path::new("/usr/lib/cni/loopback").exists() {
        skip(test, "no /usr/lib/cni/loopback; install containernetworking-plugins");
        return;
    }
    let Some(bench) = Bench::new(test) else { return };
    // A plugin that leaves nothing on the host: the test runs in the namespace of whoever started it.
    let loopback = json!({"type": "loopback"});
    let (child, mut out) = bench.start("0.4.0", &[loopback, bench.plugin()]);
    let result = said(&mut out, "result");
    let names: Vec<_> =
        result["interfaces"].as_array().expect("a list").iter().map(|it| it["name"].clone()).collect();
    assert_eq!(names, ["lo", "net1"], "{result}");
    said(&mut out, "attached");
    assert_eq!(bench.ports().len(), 1);
    release(child, out);
    bench.assert_clean();
}

#[test]
fn libcni_is_told_what_to_do() {
    let test = "libcni_is_told_what_to_do";
    let Some(bench) = Bench::new(test) else { return };
    let mut absent = bench.plugin();
    absent["switch"] = json!(bench.scratch.join("nobody.sock"));
    let mut wrong = bench.plugin();
    wrong["vlan"] = json!(4095);
    for (plugin, code, part) in
        [(absent, 50, "start one with `linecard switch`"), (wrong, 7, "give a number from 1 to 4094")]
    {
        let (mut child, mut out) = bench.start("1.0.0", &[plugin]);
        let error = said(&mut out, "error");
        assert_eq!((&error["step"], &error["code"]), (&json!("add"), &json!(code)), "{error}");
        assert!(error["details"].as_str().expect("text").contains(part), "{error}");
        assert!(!child.wait().expect("it ends").success());
        assert!(bench.ports().is_empty());
    }
}
