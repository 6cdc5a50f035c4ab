//! The switches under test, between the tester's ports.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use linecard::eal::CoreId;
use linecard_switch::api::{Client, FdbStatic};

use super::ovs::Ovs;
use crate::loopback::console::{Console, Failure, Interrupt};
use crate::loopback::on_path;

/// Megabytes for a testpmd, and for the switch.
const MEMORY: u32 = 256;
/// Hugepages of 2 MiB for a switch and the tester.
const PAGES: u64 = 2 * (MEMORY as u64 / 2 + 8);
/// The same for Open vSwitch and the tester.
const OVS_PAGES: u64 = 384;
/// The time limit of a program's start.
const START: Duration = Duration::from_secs(30);
/// The path of Open vSwitch with DPDK in Debian.
const OVS: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Our switch with two ports.
    Linecard,
    /// Our switch with many ports and addresses.
    LinecardLoaded,
    /// Our testpmd, which has no table.
    LinecardIo,
    /// DPDK's testpmd.
    DpdkIo,
    /// Open vSwitch on DPDK.
    Ovs,
    /// DPDK's testpmd between memif ports.
    Memif,
}

impl Kind {
    pub(super) const ALL: [Self; 6] =
        [Self::Linecard, Self::LinecardLoaded, Self::LinecardIo, Self::DpdkIo, Self::Ovs, Self::Memif];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Linecard => "linecard",
            Self::LinecardLoaded => "linecard-loaded",
            Self::LinecardIo => "linecard-io",
            Self::DpdkIo => "dpdk-io",
            Self::Ovs => "ovs",
            Self::Memif => "memif",
        }
    }
}

/// The parameters that all samples share.
pub(super) struct Testbed {
    /// The cores of the tester and of the switch.
    pub(super) cores: [CoreId; 2],
    /// Our own program.
    pub(super) ours: PathBuf,
    /// dpdk-testpmd, if there is one.
    pub(super) dpdk: Option<PathBuf>,
    /// The number of free 2 MiB pages.
    pub(super) hugepages: u64,
    /// Ports and addresses of a loaded switch.
    pub(super) ports: u16,
    pub(super) addresses: u32,
    pub(super) window: Duration,
    /// The folder for sockets, and for files that DPDK leaves behind.
    pub(super) folder: PathBuf,
    pub(super) interrupt: Interrupt,
}

/// A running switch; it ends when this is dropped.
enum Running {
    Ours(Program),
    Testpmd(Console),
    Ovs(Ovs),
}

impl Testbed {
    /// Returns the reason why a switch cannot be measured here.
    pub(super) fn absent(&self, kind: Kind) -> Option<String> {
        let lacks = |pages: u64| {
            (self.hugepages < pages).then(|| {
                let (free, more) = (self.hugepages, pages - self.hugepages);
                format!("needs {pages} free pages of 2 MiB, and there are {free}; add {more} to /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
            })
        };
        let missing = |what: &str| Some(format!("{what} is not installed"));
        match kind {
            Kind::Linecard | Kind::LinecardLoaded | Kind::LinecardIo => None,
            Kind::DpdkIo | Kind::Memif if self.dpdk.is_none() => missing("dpdk-testpmd (package dpdk)"),
            Kind::DpdkIo => None,
            Kind::Memif => lacks(PAGES),
            Kind::Ovs if !Path::new(OVS).exists() || on_path("ovs-vsctl").is_none() => {
                missing("Open vSwitch with DPDK (package openvswitch-switch-dpdk)")
            }
            Kind::Ovs => lacks(OVS_PAGES),
        }
    }

    /// Whether the programs use hugepages.
    pub(super) fn paged(&self) -> bool {
        self.hugepages >= PAGES
    }

    /// Measures one figure, with fresh processes.
    pub(super) fn sample(&self, kind: Kind, size: u16) -> Result<f64, Failure> {
        let sockets = ["1.sock", "2.sock"].map(|name| self.socket(name));
        let mut running = self.start(kind, &sockets)?;
        let mut tester = self.tester(kind, &sockets, size)?;
        let rate = self.rate(&mut tester);
        running.check()?;
        // A memif client of DPDK 22.11 crashes at exit; its counters have been read by then.
        if kind != Kind::Memif {
            tester.finish()?;
        }
        running.finish()?;
        rate
    }

    fn start(&self, kind: Kind, sockets: &[PathBuf; 2]) -> Result<Running, Failure> {
        Ok(match kind {
            Kind::Linecard => Running::Ours(self.switch(sockets)?),
            Kind::LinecardLoaded => Running::Ours(self.loaded(sockets)?),
            Kind::LinecardIo | Kind::DpdkIo | Kind::Memif => Running::Testpmd(self.testpmd(kind, sockets)?),
            Kind::Ovs => {
                Running::Ovs(Ovs::start(Path::new(OVS), &self.folder, self.cores, sockets, &self.interrupt)?)
            }
        })
    }

    fn switch(&self, sockets: &[PathBuf; 2]) -> Result<Program, Failure> {
        let mut command = self.switch_command(sockets);
        command.args(["--socket", "none", "--state", "none"]);
        Program::start("switch", &mut command, &sockets[1], &self.interrupt)
    }

    /// Starts a switch with unconnected ports, to which the addresses are assigned evenly.
    fn loaded(&self, sockets: &[PathBuf; 2]) -> Result<Program, Failure> {
        let mut command = self.switch_command(sockets);
        let control = self.socket("control.sock");
        command.arg("--socket").arg(&control).args(["--state", "none"]);
        let idle = u32::from(self.ports) - 2;
        for port in 0..idle {
            let socket = self.socket(&format!("idle{port}.sock"));
            command.arg("--port").arg(format!(
                "{},key=idle{port},max-macs={}",
                socket.display(),
                self.addresses
            ));
        }
        let program = Program::start("switch", &mut command, &control, &self.interrupt)?;
        let refused = |error: &dyn std::fmt::Display| Failure::Program(format!("the switch: {error}"));
        let mut client = Client::connect(&control).map_err(|error| refused(&error))?;
        for number in 0..self.addresses {
            self.interrupt.check()?;
            let [_, a, b, c] = number.to_be_bytes();
            let asked = FdbStatic {
                mac: linecard::net::MacAddr([2, 0xfd, 0xb0, a, b, c]),
                vlan: 0,
                port: format!("idle{}", number % idle),
            };
            client.fdb_add(&asked).map_err(|error| refused(&error))?;
        }
        Ok(program)
    }

    fn switch_command(&self, sockets: &[PathBuf; 2]) -> Command {
        let mut command = Command::new(&self.ours);
        command.args(["switch", "--lcores", &format!("0@{}", self.cores[1])]);
        if !self.paged() {
            command.arg("--no-huge");
        }
        for socket in sockets {
            command.arg("--port").arg(socket);
        }
        command
    }

    fn testpmd(&self, kind: Kind, sockets: &[PathBuf; 2]) -> Result<Console, Failure> {
        let mut command = if kind == Kind::LinecardIo {
            let mut command = Command::new(&self.ours);
            command.arg("testpmd");
            command
        } else {
            self.dpdk_testpmd()?
        };
        let [tester, switch] = self.cores;
        command.args(["--lcores", &format!("0@{tester},1@{switch}"), "--no-pci", "--no-telemetry"]);
        self.place_files(&mut command, "switch");
        for (port, socket) in sockets.iter().enumerate() {
            let socket = socket.display();
            let device = if kind == Kind::Memif {
                format!(
                    "net_memif{port},socket={socket},socket-abstract=no,id=1,rsize=10,bsize=2048,role=server"
                )
            } else {
                format!("net_vhost{port},iface={socket},queues=1")
            };
            command.args(["--vdev", &device]);
        }
        command.args(["--", "-i", "--nb-cores=1", "--total-num-mbufs=16384", "--txd=1024", "--rxd=1024"]);
        let mut console = Console::start("switch", &mut command, &self.interrupt)?;
        console.command("set fwd io")?;
        console.command("start")?;
        Ok(console)
    }

    /// Returns the command for DPDK's testpmd; without stdbuf its output to a pipe is buffered.
    pub(super) fn dpdk_testpmd(&self) -> Result<Command, Failure> {
        let Some(program) = &self.dpdk else { return Err(Failure::Program("dpdk-testpmd is absent".into())) };
        let mut command = Command::new("stdbuf");
        command.arg("-oL").arg(program);
        Ok(command)
    }

    /// Sets the folder for a program's files, and its memory.
    pub(super) fn place_files(&self, command: &mut Command, name: &str) {
        let prefix = format!("linecard-switch-{}-{name}", std::process::id());
        command.args(["-m", &MEMORY.to_string(), "--single-file-segments", "--file-prefix", &prefix]);
        command.env("RUNTIME_DIRECTORY", &self.folder);
        command.arg(if self.paged() { "--in-memory" } else { "--no-huge" });
    }

    /// Returns the path of a socket; removes what a killed program left there.
    fn socket(&self, name: &str) -> PathBuf {
        let socket = self.folder.join(name);
        let _ = std::fs::remove_file(&socket);
        socket
    }
}

impl Running {
    fn check(&mut self) -> Result<(), Failure> {
        match self {
            Self::Ours(program) => program.check(),
            Self::Testpmd(console) => console.check(),
            Self::Ovs(ovs) => ovs.check(),
        }
    }

    /// Ends the switch in order, if that needs a command.
    fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Testpmd(mut console) => {
                console.command("stop")?;
                console.finish().map(drop)
            }
            Self::Ours(_) | Self::Ovs(_) => Ok(()),
        }
    }
}

/// A program without a console; terminated by SIGTERM when dropped.
pub(super) struct Program {
    name: &'static str,
    child: Child,
}

impl Program {
    /// Starts the program and waits until `file` exists.
    pub(super) fn start(
        name: &'static str,
        command: &mut Command,
        file: &Path,
        interrupt: &Interrupt,
    ) -> Result<Self, Failure> {
        use std::os::unix::process::CommandExt as _;
        // A separate process group: Ctrl-C at the terminal reaches only the harness, which then ends its
        // programs.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command
            .spawn()
            .map_err(|error| Failure::Program(format!("the {name} does not start: {error}")))?;
        let mut program = Self { name, child };
        let until = Instant::now() + START;
        while !file.exists() {
            program.check()?;
            if Instant::now() > until {
                let file = file.display();
                return Err(Failure::Program(format!(
                    "the {name} did not make {file} within {} s",
                    START.as_secs()
                )));
            }
            interrupt.sleep(Duration::from_millis(20))?;
        }
        Ok(program)
    }

    pub(super) fn check(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(Failure::Program(format!("the {} ended early ({status})", self.name))),
            _ => Ok(()),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let pid = rustix::process::Pid::from_child(&self.child);
            // The process is not reaped yet, so its id is still valid.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let until = Instant::now() + Duration::from_secs(10);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
