//! Two frontends of ours through a bridge of Open vSwitch with DPDK: every byte of every packet is checked, both ways, in
//! every kind of ring, while the frontends come and go.
//!
//! ```text
//!   test (frontend) ◄─► ovs-vswitchd: dpdkvhostuserclient p0 ◄─► p1 ◄─► linecard testpmd (frontend), returns everything
//! ```

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use support::console::Kind;
use support::ours::{Ours, SIZES, assert_perfect, free_hugepages, wait_for_socket};
use support::peer::forwarder;
use support::{Scratch, on_path, skip};

const SWITCH: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// 2M pages that it takes.
const HUGEPAGES: u64 = 160;

/// A daemon that is ended when dropped.
struct Daemon(Child);

impl Daemon {
    fn start(command: &mut Command) -> Self {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(quiet.spawn().expect("a daemon starts"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A switch of this test's own, in a folder and a network namespace of its own.
struct Switch {
    dir: PathBuf,
    _vswitchd: Daemon,
    _database: Daemon,
}

impl Switch {
    fn start(dir: &Path) -> Self {
        let database = dir.join("conf.db");
        run(dir, "ovsdb-tool", &["create", &text(&database), SCHEMA]);
        let db = dir.join("db.sock");
        let mut server = ovs(dir, "ovsdb-server");
        server.arg(&database).arg(format!("--remote=punix:{}", db.display()));
        let database = Daemon::start(server.arg(format!("--unixctl={}", text(&dir.join("db.ctl")))));
        wait_for_socket(&db);
        let extra =
            format!("--no-pci --in-memory --single-file-segments --file-prefix=ovs{}", std::process::id());
        let config = [
            "dpdk-init=true",
            "pmd-cpu-mask=0x2",
            "dpdk-lcore-mask=0x1",
            "dpdk-socket-mem=256",
            &format!("dpdk-extra=\"{extra}\""),
        ];
        vsctl(dir, &["--no-wait", "init"]);
        let config: Vec<String> = config.iter().map(|pair| format!("other_config:{pair}")).collect();
        let mut set = vec!["--no-wait", "set", "Open_vSwitch", "."];
        set.extend(config.iter().map(String::as_str));
        vsctl(dir, &set);
        // The bridge's own interface would otherwise appear beside those of the machine.
        let mut switch = ovs(dir, "unshare");
        let own: &[&str] =
            if own_network(&["--net"]) { &["--net"] } else { &["--user", "--map-root-user", "--net"] };
        switch.args(own).arg(SWITCH).arg(format!("unix:{}", db.display()));
        let vswitchd = Daemon::start(switch.arg(format!("--unixctl={}", text(&dir.join("vs.ctl")))));
        Self { dir: dir.to_owned(), _vswitchd: vswitchd, _database: database }
    }

    /// A bridge from `sockets[0]` to `sockets[1]` and back.
    fn bridge(&self, sockets: &[PathBuf; 2]) {
        let mut words: Vec<String> =
            ["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"].map(Into::into).into();
        for (n, socket) in sockets.iter().enumerate() {
            let port = format!("p{n}");
            words.extend(["--", "add-port", "br0", &port, "--", "set", "interface", &port].map(String::from));
            words.push("type=dpdkvhostuserclient".into());
            words.push(format!("options:vhost-server-path={}", socket.display()));
            words.push(format!("ofport_request={}", n + 1));
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        vsctl(&self.dir, &words);
        let bridge = format!("unix:{}", self.dir.join("br0.mgmt").display());
        run(&self.dir, "ovs-ofctl", &["del-flows", &bridge]);
        for flow in ["in_port=1,actions=output:2", "in_port=2,actions=output:1"] {
            run(&self.dir, "ovs-ofctl", &["add-flow", &bridge, flow]);
        }
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn ovs(dir: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    for name in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_SYSCONFDIR", "OVS_LOGDIR"] {
        command.env(name, dir);
    }
    command
}

fn run(dir: &Path, program: &str, args: &[&str]) {
    let output = ovs(dir, program).args(args).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}");
}

fn vsctl(dir: &Path, args: &[&str]) {
    let db = format!("--db=unix:{}", dir.join("db.sock").display());
    let mut all = vec![db.as_str(), "--timeout=20"];
    all.extend_from_slice(args);
    run(dir, "ovs-vsctl", &all);
}

/// Whether `unshare` with these options is allowed.
fn own_network(options: &[&str]) -> bool {
    let status = Command::new("unshare").args(options).arg("true").stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn absent() -> Option<String> {
    let missing = ["ovsdb-server", "ovsdb-tool", "ovs-vsctl", "ovs-ofctl", "unshare"].map(on_path);
    if !Path::new(SWITCH).is_file() || missing.iter().any(Option::is_none) {
        return Some(
            "Open vSwitch with DPDK is not installed (apt-get install openvswitch-switch-dpdk)".into(),
        );
    }
    if !own_network(&["--net"]) && !own_network(&["--user", "--map-root-user", "--net"]) {
        return Some("neither root nor a user namespace is to be had".into());
    }
    let free = free_hugepages();
    let want = "echo 512 > /proc/sys/vm/nr_hugepages";
    (free < HUGEPAGES).then(|| format!("{free} hugepages are free, {HUGEPAGES} are needed ({want})"))
}

fn vdev(socket: &Path, options: &str) -> String {
    format!("net_virtio_user0,path={},server=1,queues=1,queue_size=256,{options}", socket.display())
}

#[test]
fn two_frontends_through_a_bridge() {
    let test = "two_frontends_through_a_bridge";
    if let Some(why) = absent() {
        return skip(test, &why);
    }
    let scratch = Scratch::new("ovs");
    let sockets = [scratch.join("s0"), scratch.join("s1")];
    let switch = Switch::start(scratch.path());
    switch.bridge(&sockets);
    let variants =
        ["packed_vq=0,in_order=0", "packed_vq=0,in_order=1", "packed_vq=1,in_order=0", "mrg_rxbuf=0"];
    for (n, options) in variants.iter().enumerate() {
        let far = forwarder(Kind::Linecard, &vdev(&sockets[1], options), &format!("o{n}"));
        let mut ours = Ours::start(&vdev(&sockets[0], options));
        ours.wait_for_link(true);
        ours.settle();
        assert_perfect(&ours.prove(20_000, SIZES), options);
        ours.stop();
        assert!(far.quit().success());
    }
}
