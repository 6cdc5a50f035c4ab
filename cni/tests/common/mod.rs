//! A switch that only remembers, namespaces that end with their test, and runs of the plugin in this process.
#![allow(dead_code, reason = "each test program uses its part")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::sync::{Arc, Mutex};

use linecard_cni::{Output, invoke};
use linecard_switch::api::{Lines, PortSpec, Request, send};
use serde_json::{Value, json};

/// A folder that is removed with its test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lc-cni-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Everything below, folders too.
    pub(crate) fn list(&self, below: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(below)).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Writes a program.
    pub(crate) fn script(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("allowed");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

type Ports = Arc<Mutex<BTreeMap<String, (PortSpec, Option<OwnedFd>)>>>;

/// Speaks the switch's API and keeps what it is given. Clones are the same switch.
#[derive(Clone)]
pub(crate) struct FakeSwitch {
    pub(crate) path: PathBuf,
    ports: Ports,
    /// The next `port.add` is answered by this error.
    refuse: Arc<Mutex<Option<&'static str>>>,
    clients: Arc<Mutex<Vec<UnixStream>>>,
}

impl FakeSwitch {
    pub(crate) fn start(path: PathBuf) -> Self {
        let _ = std::fs::remove_file(&path);
        let switch = Self { path, ports: Ports::default(), refuse: Arc::default(), clients: Arc::default() };
        switch.listen();
        switch
    }

    fn listen(&self) {
        let listener = UnixListener::bind(&self.path).expect("a socket");
        let switch = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                switch.clients.lock().expect("no panic").extend(stream.try_clone());
                let switch = switch.clone();
                std::thread::spawn(move || serve(&stream, &switch.ports, &switch.refuse));
            }
        });
    }

    /// It is gone, as after `kill -9`: nobody listens, and whoever was connected is cut off.
    pub(crate) fn stop(&self) {
        let _ = std::fs::remove_file(&self.path);
        for client in self.clients.lock().expect("no panic").drain(..) {
            let _ = client.shutdown(std::net::Shutdown::Both);
        }
    }

    /// It is there again, with the ports it had.
    pub(crate) fn restart(&self) {
        self.stop();
        self.listen();
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.ports.lock().expect("no panic").keys().cloned().collect()
    }

    pub(crate) fn spec(&self, name: &str) -> Option<PortSpec> {
        self.ports.lock().expect("no panic").get(name).map(|(spec, _)| spec.clone())
    }

    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut PortSpec)) {
        let mut ports = self.ports.lock().expect("no panic");
        ports.get_mut(name).map(|(spec, _)| change(spec)).expect("it is there");
    }

    pub(crate) fn refuse(&self, code: &'static str) {
        *self.refuse.lock().expect("no panic") = Some(code);
    }

    pub(crate) fn forget(&self, name: &str) {
        self.ports.lock().expect("no panic").remove(name);
    }

    /// Closes the descriptor of that port, which stays.
    pub(crate) fn let_go(&self, name: &str) {
        let mut ports = self.ports.lock().expect("no panic");
        drop(ports.get_mut(name).and_then(|(_, fd)| fd.take()).expect("a descriptor"));
    }

    /// A connection that a container made to the listening socket of that port.
    pub(crate) fn accept(&self, name: &str) -> UnixStream {
        let ports = self.ports.lock().expect("no panic");
        let fd = ports[name].1.as_ref().expect("a listener").try_clone().expect("a descriptor");
        let listener = UnixListener::from(fd);
        listener.accept().expect("a connection").0
    }
}

fn serve(stream: &UnixStream, ports: &Ports, refuse: &Mutex<Option<&'static str>>) {
    let mut lines = Lines::default();
    while let Ok(Some(mut line)) = lines.next(stream.as_fd()) {
        let Request { id, method, params } = serde_json::from_slice(&line.bytes).expect("a request");
        let mut ports = ports.lock().expect("no panic");
        let key = params["key"].as_str().unwrap_or_default().to_owned();
        let refused = refuse.lock().expect("no panic").take_if(|_| method == "port.add");
        let result = match (method.as_str(), refused) {
            (_, Some(code)) => Err(json!({"code": code, "message": "no", "details": "wait"})),
            ("port.add", _) => {
                let spec = PortSpec::read(params).expect("a port");
                ports.insert(key.clone(), (spec, line.fds.pop()));
                Ok(json!({"created": true, "port": info(&ports[&key].0)}))
            }
            ("port.remove", _) => Ok(json!({"removed": ports.remove(&key).is_some()})),
            ("port.list", _) => Ok(ports.values().map(|(spec, _)| info(spec)).collect()),
            ("port.show", _) => match ports.get(&key) {
                Some((spec, _)) => Ok(info(spec)),
                None => Err(json!({"code": "not-found", "message": "no such port"})),
            },
            _ => Ok(json!({"version": "0", "api": 1, "pid": std::process::id()})),
        };
        let answer = match result {
            Ok(result) => json!({"id": id, "result": result}),
            Err(error) => json!({"id": id, "error": error}),
        };
        let _ = send(stream.as_fd(), format!("{answer}\n").as_bytes(), &[]);
    }
}

fn info(spec: &PortSpec) -> Value {
    let mut value = serde_json::to_value(spec).expect("a port");
    let more = json!({"id": 1, "state": "down", "vdev": "", "addresses": 0, "counters": {}});
    value.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("an object"));
    value
}

/// A network namespace that exists while this does.
pub(crate) struct Pod {
    child: Child,
    pub(crate) netns: PathBuf,
}

impl Pod {
    /// `None` where there is none to be had; the test is skipped then, or ran as root of a user namespace.
    pub(crate) fn new(test: &str) -> Option<Self> {
        let started = Process::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; exec sleep 600"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut child) = started else {
            linecard_testing::skip(test, "no program 'unshare'; install util-linux");
            return None;
        };
        let mut ready = [0; 6];
        let out = child.stdout.as_mut().expect("piped").read_exact(&mut ready);
        if out.is_err() {
            let _ = child.wait();
            return match linecard_testing::in_user_namespace(test) {
                linecard_testing::Rerun::Done => None,
                linecard_testing::Rerun::Refused(why) => {
                    linecard_testing::skip(test, &why);
                    None
                }
            };
        }
        let netns = format!("/proc/{}/ns/net", child.id()).into();
        Some(Self { child, netns })
    }

    /// Runs a program inside.
    pub(crate) fn run(&self, program: &[&str]) -> String {
        let net = format!("--net={}", self.netns.display());
        let output = Process::new("nsenter").arg(net).args(program).output().expect("nsenter");
        assert!(output.status.success(), "{program:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Pod {
    /// Interfaces inside, without the loopback.
    pub(crate) fn interfaces(&self) -> Vec<String> {
        let read = || std::fs::read_to_string("/proc/thread-self/net/dev").expect("readable");
        let list = linecard_cni::Sandbox::run_in(&self.netns, read).expect("a namespace");
        let names = list.lines().skip(2).filter_map(|line| line.split(':').next());
        names.map(|name| name.trim().to_owned()).filter(|name| name != "lo").collect()
    }
}

/// Gives 10.9.0.5 and keeps a file for as long as the address is in use.
pub(crate) const IPAM: &str = r#"#!/bin/sh
cat >/dev/null
leases=$(dirname "$0")/../leases; mkdir -p "$leases"
case $CNI_COMMAND in
ADD) touch "$leases/$CNI_CONTAINERID"
  echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.5/24", "gateway": "10.9.0.1"}], "routes": [{"dst": "0.0.0.0/0"}]}' ;;
DEL) rm -f "$leases/$CNI_CONTAINERID" ;;
CHECK) [ -e "$leases/$CNI_CONTAINERID" ] || { echo '{"code": 3, "msg": "no lease", "details": "none"}'; exit 1; } ;;
esac
"#;

/// One network: its folder, its switch, its configuration.
pub(crate) struct Network {
    pub(crate) folder: Folder,
    pub(crate) switch: FakeSwitch,
    pub(crate) version: &'static str,
    pub(crate) more: Value,
}

impl Network {
    pub(crate) fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        let switch = FakeSwitch::start(folder.path("switch.sock"));
        Self { folder, switch, version: "1.1.0", more: json!({}) }
    }

    pub(crate) fn config(&self) -> Value {
        let mut config = json!({
            "cniVersion": self.version, "name": "fast", "type": "linecard", "switch": self.switch.path,
            "stateDir": self.folder.path("state"), "socketDir": self.folder.path("s"),
        });
        let object = config.as_object_mut().expect("an object");
        object.extend(self.more.as_object().cloned().expect("an object"));
        config
    }

    /// One command; `pairs` are variables beside the usual ones.
    pub(crate) fn run(&self, command: &str, pairs: &[(&str, &str)], config: &Value) -> Output {
        let path = format!("{}:/usr/lib/cni", self.folder.path("bin").display());
        let lookup = |name: &str| {
            let given = pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
            given.or_else(|| match name {
                "CNI_COMMAND" => Some(command.into()),
                "CNI_PATH" => Some(path.clone().into()),
                _ => None,
            })
        };
        invoke(lookup, config.to_string().as_bytes())
    }

    pub(crate) fn on(
        &self,
        command: &str,
        container: &str,
        netns: &Path,
        config: &Value,
    ) -> Result<Value, Value> {
        let netns = netns.to_string_lossy();
        let pairs = [("CNI_CONTAINERID", container), ("CNI_NETNS", &*netns), ("CNI_IFNAME", "net1")];
        let output = self.run(command, &pairs, config);
        let value = match output.stdout.is_empty() {
            true => Value::Null,
            false => serde_json::from_str(&output.stdout).expect("JSON"),
        };
        if output.success { Ok(value) } else { Err(value) }
    }

    pub(crate) fn add(&self, container: &str, pod: &Pod) -> Result<Value, Value> {
        self.on("ADD", container, &pod.netns, &self.config())
    }

    pub(crate) fn del(&self, container: &str) -> Result<Value, Value> {
        self.on("DEL", container, Path::new(""), &self.config())
    }

    /// Nothing is left: no record, no lock, no folder, no port.
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.switch.names(), Vec::<String>::new());
        assert_eq!(self.folder.list("state"), Vec::<String>::new());
        assert_eq!(self.folder.list("s"), Vec::<String>::new());
    }
}
