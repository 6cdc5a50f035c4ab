//! Open vSwitch on DPDK, with its own database.

use std::path::{Path, PathBuf};
use std::process::Command;

use linecard::eal::CoreId;

use super::middle::Program;
use crate::loopback::console::{Failure, Interrupt};

/// The schema of its database, at its path in Debian.
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// Megabytes of hugepages.
const MEMORY: &str = "512";

/// A running switch; it ends when this is dropped.
pub(super) struct Ovs {
    switch: Program,
    /// Dropped after the switch.
    _database: Program,
}

/// The folder of a switch's files, and the socket of its database.
struct OvsFiles<'a> {
    folder: &'a Path,
    socket: PathBuf,
}

impl Ovs {
    /// Starts a bridge with two ports that connect to `sockets`, and a flow from each to the other.
    pub(super) fn start(
        program: &Path,
        folder: &Path,
        [console, polls]: [CoreId; 2],
        sockets: &[PathBuf; 2],
        interrupt: &Interrupt,
    ) -> Result<Self, Failure> {
        let files = OvsFiles { folder, socket: folder.join("db.sock") };
        let database = folder.join("conf.db");
        for file in [&files.socket, &database, &folder.join("vs.pid")] {
            let _ = std::fs::remove_file(file);
        }
        files.run("ovsdb-tool", &["create", &database.display().to_string(), SCHEMA])?;
        let mut command = files.command("ovsdb-server");
        command.arg(&database).arg(format!("--remote=punix:{}", files.socket.display()));
        let server = Program::start("database of Open vSwitch", &mut command, &files.socket, interrupt)?;
        files.configure(&["init"])?;
        let prefix = format!("linecard-ovs-{}", std::process::id());
        let settings = [
            "set".to_owned(),
            "Open_vSwitch".into(),
            ".".into(),
            "other_config:dpdk-init=true".into(),
            format!("other_config:dpdk-socket-mem={MEMORY}"),
            format!("other_config:pmd-cpu-mask={}", mask(polls)),
            format!("other_config:dpdk-lcore-mask={}", mask(console)),
            format!("other_config:dpdk-extra=--no-pci --in-memory --file-prefix={prefix}"),
        ];
        files.configure(&settings.each_ref().map(String::as_str))?;
        let mut command = files.command(&program.display().to_string());
        let pid = folder.join("vs.pid");
        command.arg(format!("unix:{}", files.socket.display())).arg(format!("--pidfile={}", pid.display()));
        let switch = Program::start("Open vSwitch", &mut command, &pid, interrupt)?;
        files.bridge(sockets)?;
        Ok(Self { switch, _database: server })
    }

    pub(super) fn check(&mut self) -> Result<(), Failure> {
        self.switch.check()
    }
}

/// The mask of one core in hexadecimal, of any length: both Open vSwitch and DPDK read more than 64 bits.
fn mask(core: CoreId) -> String {
    format!("{:#x}{}", 1 << (core.0 % 4), "0".repeat(core.0 as usize / 4))
}

impl OvsFiles<'_> {
    fn bridge(&self, sockets: &[PathBuf; 2]) -> Result<(), Failure> {
        self.set(&["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"])?;
        for (port, socket) in (1..).zip(sockets) {
            let (name, number) = (format!("p{port}"), format!("ofport_request={port}"));
            let path = format!("options:vhost-server-path={}", socket.display());
            let kind = "type=dpdkvhostuserclient";
            self.set(&["add-port", "br0", &name, "--", "set", "Interface", &name, kind, &path, &number])?;
        }
        self.run("ovs-ofctl", &["del-flows", "br0"])?;
        for flow in ["in_port=1,actions=output:2", "in_port=2,actions=output:1"] {
            self.run("ovs-ofctl", &["add-flow", "br0", flow])?;
        }
        Ok(())
    }

    /// Changes the database, whether the switch runs or not.
    fn configure(&self, arguments: &[&str]) -> Result<(), Failure> {
        self.set(&[&["--no-wait"], arguments].concat())
    }

    fn set(&self, arguments: &[&str]) -> Result<(), Failure> {
        let database = format!("--db=unix:{}", self.socket.display());
        self.run("ovs-vsctl", &[&[database.as_str(), "--timeout=60"], arguments].concat())
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<(), Failure> {
        let output = self.command(program).args(arguments).output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Failure::Program(format!("{program} failed: {}", said.trim())))
    }

    /// Returns a command whose files are in the folder.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"] {
            command.env(variable, self.folder);
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_names_its_core_and_no_other() {
        let masks = [0, 3, 4, 63, 64, 130].map(|core| mask(CoreId(core)));
        let zeros = |count| "0".repeat(count);
        let want = [
            "0x1".into(),
            "0x8".into(),
            "0x10".into(),
            format!("0x8{}", zeros(15)),
            format!("0x1{}", zeros(16)),
            format!("0x4{}", zeros(32)),
        ];
        assert_eq!(masks, want);
    }
}
