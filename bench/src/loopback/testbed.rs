//! The testbed of all samples: the programs, their cores and memory, and the arguments that make two ends
//! comparable.

use std::fmt::Write as _;
use std::path::{Path as File, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use linecard::eal::CoreId;

use super::cell::{Load, Memif, Side, Tool, segments};
use super::console::{Console, Failure, Interrupt};
use super::machine::{Disturbance, Probe};
use super::path::Path;
use super::raw::Values;
use crate::Error;

/// The parameters that all samples share.
pub(crate) struct Testbed {
    /// The frontend polls on the first core, the backend on the second; both are the same if there is only
    /// one.
    pub(crate) cores: [CoreId; 2],
    /// Our own program.
    pub(crate) ours: PathBuf,
    /// dpdk-testpmd, if there is one.
    pub(crate) dpdk: Option<PathBuf>,
    /// Whether both sides get hugepages.
    pub(crate) hugepages: bool,
    /// Forward mode of the frontend, and of a testpmd under test.
    pub(crate) forward: String,
    /// From the first packets to the first snapshot of the counters.
    pub(crate) warm_up: Duration,
    /// From the first snapshot to the second; also the time in which the tester offers packets.
    pub(crate) window: Duration,
    /// The folder for sockets.
    pub(crate) folder: PathBuf,
    pub(crate) interrupt: Interrupt,
    /// The number of pairs started so far; part of their names.
    pub(crate) pairs: AtomicU32,
}

/// The figures of a sample and its disturbance.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    pub(crate) values: Values,
    pub(crate) disturbance: Disturbance,
}

/// Megabytes for each program: many are alive at the same time, and the buffers for the longest packets take
/// 150.
pub(crate) const MEMORY: u32 = 256;
const PACKETS: u32 = 16_384;
/// Default size of a buffer in bytes, as in DPDK; larger for longer packets.
const BUFFER: u16 = 2176;
/// The time for rings to become ready after both consoles are.
const SETTLE: Duration = Duration::from_millis(300);

impl Testbed {
    /// The number of free 2 MiB pages that both programs need together.
    pub(crate) const HUGEPAGES: u64 = 2 * MEMORY as u64 / 2;

    /// Whether there are two cores.
    pub(crate) fn two_cores(&self) -> bool {
        self.cores[0] != self.cores[1]
    }

    /// Probes the state of the machine.
    pub(crate) fn probe(&self) -> Result<Probe, Error> {
        if self.two_cores() { Probe::take(self.cores) } else { Probe::alone(self.cores[0]) }
    }

    /// Returns the path of the socket of the next pair.
    pub(crate) fn socket(&self) -> PathBuf {
        let number = self.pairs.fetch_add(1, Ordering::Relaxed) + 1;
        self.folder.join(format!("loop{number}.sock"))
    }

    /// Returns the file prefix of an end of the latest pair.
    pub(crate) fn prefix(&self, end: &str) -> String {
        format!("linecard-loop-{}-{end}{}", std::process::id(), self.pairs.load(Ordering::Relaxed))
    }

    /// Waits until rings are ready.
    pub(crate) fn settle(&self) -> Result<(), Failure> {
        self.interrupt.sleep(SETTLE)
    }

    /// Starts a program and waits for its prompt.
    pub(crate) fn start(&self, name: &'static str, mut command: Command) -> Result<Console, Failure> {
        Console::start(name, &mut command, &self.interrupt)
    }

    /// Returns the command for a testpmd as backend.
    pub(crate) fn backend(&self, tool: Tool, socket: &File, load: Load) -> Result<Command, Failure> {
        let mut command = self.testpmd(tool, Side::Backend)?;
        command.args(["--vdev", &backend_device(socket), "--"]).args(common(load));
        first_packets(&mut command, load);
        Ok(command)
    }

    /// Returns the command for a testpmd as frontend.
    pub(crate) fn frontend(
        &self,
        tool: Tool,
        socket: &File,
        path: Path,
        load: Load,
    ) -> Result<Command, Failure> {
        let mut command = self.testpmd(tool, Side::Frontend)?;
        let device = frontend_device(socket, path, load.ring);
        command.args(FRONTEND_MEMORY).args(["--vdev", &device, "--"]).args(common(load));
        Ok(command)
    }

    /// Returns the command for one of DPDK's testpmds as an end of a memif.
    pub(crate) fn memif_end(
        &self,
        side: Side,
        memif: Memif,
        socket: &File,
        load: Load,
    ) -> Result<Command, Failure> {
        let mut command = self.testpmd(Tool::Dpdk, side)?;
        let (role, zero_copy) = match (side, memif) {
            (Side::Backend, _) => ("server", ""),
            (Side::Frontend, Memif::Copy) => ("client", ""),
            (Side::Frontend, Memif::ZeroCopy) => ("client", ",zero-copy=yes"),
        };
        if memif == Memif::ZeroCopy {
            // Zero-copy memif can share only whole files.
            command.arg("--single-file-segments");
        }
        let device = format!(
            "net_memif0,socket={},socket-abstract=no,id=1,rsize={},bsize=2048,role={role}{zero_copy}",
            socket.display(),
            load.ring.ilog2()
        );
        command.args(["--vdev", &device, "--"]).args(common(load));
        if side == Side::Backend {
            first_packets(&mut command, load);
        }
        Ok(command)
    }

    /// Returns the command for a testpmd as one end with only its device; pages and pool have the program's
    /// defaults.
    pub(crate) fn plain(&self, tool: Tool, side: Side, device: &str) -> Result<Command, Failure> {
        let mut command = self.program(tool, side)?;
        if side == Side::Frontend {
            command.args(FRONTEND_MEMORY);
        }
        if !self.hugepages {
            // The least memory that holds DPDK's default pool: without hugepages DPDK allocates all memory at
            // start.
            command.args(["-m", "640"]);
        }
        command.args(["--vdev", device, "--", "-i", "-a", "--nb-cores=1"]);
        Ok(command)
    }

    /// Returns the command for the tester as one end.
    pub(crate) fn tester(&self, side: Side, socket: &File, path: Path, load: Load) -> Command {
        let [front, back] = self.cores;
        let mut command = Command::new(&self.ours);
        let (device, core) = match side {
            Side::Backend => (backend_device(socket), back),
            Side::Frontend => (frontend_device(socket, path, load.ring), front),
        };
        command.args(["bench-end", "--device", &device, "--core", &core.to_string()]);
        command.args(["--size", &load.size.to_string(), "--ring", &load.ring.to_string()]);
        command.args(["--burst", &load.burst.to_string(), "--mbuf-size", &buffer(load).to_string()]);
        command.args(["--mbufs", &PACKETS.to_string(), "--memory", &MEMORY.to_string()]);
        if side == Side::Frontend {
            command.arg("--after").arg(socket);
        }
        if !self.hugepages {
            command.arg("--no-huge");
        }
        command
    }

    /// Returns the command for a program whose console runs on the other end's core, with the same memory for
    /// both.
    fn testpmd(&self, tool: Tool, side: Side) -> Result<Command, Failure> {
        let mut command = self.program(tool, side)?;
        command.args(["-m", &MEMORY.to_string()]);
        Ok(command)
    }

    fn program(&self, tool: Tool, side: Side) -> Result<Command, Failure> {
        let mut command = match (tool, &self.dpdk) {
            (Tool::Ours, _) => {
                let mut command = Command::new(&self.ours);
                command.arg("testpmd");
                command
            }
            (Tool::Dpdk, Some(program)) => Command::new(program),
            (Tool::Dpdk, None) => return Err(Failure::Program("dpdk-testpmd is absent".into())),
            (Tool::Tester, _) => return Err(Failure::Program("the tester is no testpmd".into())),
        };
        let [front, back] = self.cores;
        let (console, polls, end) = match side {
            Side::Backend => (front, back, "b"),
            Side::Frontend => (back, front, "f"),
        };
        command.args(["--lcores", &format!("0@{console},1@{polls}"), "--no-pci", "--no-telemetry", "-v"]);
        command.args(["--file-prefix", &self.prefix(end)]);
        self.place_files(&mut command);
        Ok(command)
    }

    /// Sets the folder for a program's files, and its kind of pages.
    pub(crate) fn place_files(&self, command: &mut Command) {
        // DPDK leaves a folder behind, even in memory mode; this one is removed at the end.
        command.env("RUNTIME_DIRECTORY", &self.folder);
        // DPDK has no memory mode without hugepages; its files are then in the same folder.
        command.arg(if self.hugepages { "--in-memory" } else { "--no-huge" });
    }
}

/// DPDK's virtio-user can share only a few whole files, and uses its AVX-512 paths only if they are allowed.
pub(crate) const FRONTEND_MEMORY: [&str; 2] = ["--single-file-segments", "--force-max-simd-bitwidth=512"];

pub(crate) fn backend_device(socket: &File) -> String {
    format!("net_vhost0,iface={},queues=1", socket.display())
}

pub(crate) fn frontend_device(socket: &File, path: Path, ring: u16) -> String {
    let mut device = format!("net_virtio_user0,path={},queues=1", socket.display());
    let _ = write!(device, ",queue_size={ring},{}", path.options());
    device
}

/// Returns the size of a buffer for packets of this load, in bytes.
fn buffer(load: Load) -> u16 {
    /// Generous allowance for the headroom and the virtio-net header.
    const BESIDE: u16 = 256;
    let longest = load.size.longest();
    if longest <= 1518 || load.size.chained() { BUFFER } else { longest.next_multiple_of(64) + BESIDE }
}

/// Adds the options for the end that generates the first packets.
fn first_packets(command: &mut Command, load: Load) {
    // The first packets of one length wait in the ring while those of the next are generated.
    command.arg("--no-flush-rx");
    if load.size.chained() {
        // The list is too long for DPDK's console.
        let lengths: Vec<String> = segments(load.size.longest()).iter().map(u16::to_string).collect();
        command.arg(format!("--txpkts={}", lengths.join(",")));
    }
}

/// testpmd's own options, identical for both programs and both ends.
fn common(load: Load) -> Vec<String> {
    let mut options: Vec<String> = ["-i", "--nb-cores=1"].map(str::to_owned).into();
    options.push(format!("--total-num-mbufs={PACKETS}"));
    options.push(format!("--txd={}", load.ring));
    options.push(format!("--rxd={}", load.ring));
    options.push(format!("--burst={}", load.burst));
    let longest = load.size.longest();
    if buffer(load) != BUFFER {
        options.push(format!("--mbuf-size={}", buffer(load)));
        options.push(format!("--max-pkt-len={longest}"));
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loopback::cell::Size;

    pub(crate) fn testbed() -> Testbed {
        Testbed {
            cores: [CoreId(0), CoreId(1)],
            ours: "/bin/ours".into(),
            dpdk: Some("/bin/dpdk".into()),
            hugepages: false,
            forward: "mac".into(),
            warm_up: Duration::from_secs(1),
            window: Duration::from_secs(1),
            folder: "/tmp".into(),
            interrupt: Interrupt::default(),
            pairs: AtomicU32::new(0),
        }
    }

    fn words(command: &Command) -> String {
        let words: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        words.into_iter().filter(|a| a != "testpmd").collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn both_programs_get_the_same_arguments() {
        let testbed = testbed();
        let load = Load { size: Size::Bytes(9000), ring: 256, burst: 32 };
        let arguments = |tool| {
            words(&testbed.frontend(tool, File::new("/s"), Path::Packed, load).expect("both are there"))
        };
        let text = arguments(Tool::Ours);
        assert_eq!(text, arguments(Tool::Dpdk));
        assert!(text.contains("path=/s,queues=1,queue_size=256,packed_vq=1,in_order=0"), "{text}");
        assert!(text.contains("--no-huge") && text.contains("--max-pkt-len=9000"), "{text}");
        assert!(text.starts_with("--lcores 0@1,1@0"), "{text}");
        let plain = |tool| words(&testbed.plain(tool, Side::Backend, "net_vhost0,iface=/s").expect("both"));
        assert_eq!(plain(Tool::Ours), plain(Tool::Dpdk));
    }

    #[test]
    fn the_tester_has_the_buffers_of_the_testpmd() {
        for (size, mbuf) in [(64, "2176"), (1518, "2176"), (9000, "9280"), (65_535, "2176")] {
            let load = Load { size: Size::Bytes(size), ring: 256, burst: 32 };
            let chain = words(&testbed().backend(Tool::Ours, File::new("/s"), load).expect("ours is there"));
            assert_eq!(chain.contains("--txpkts=2048,2048,"), size == 65_535, "{chain}");
            let text = words(&testbed().tester(Side::Frontend, File::new("/s"), Path::Split, load));
            assert!(text.contains(&format!("--mbuf-size {mbuf} ")), "{text}");
            assert!(text.contains("--after /s") && text.contains("--core 0"), "{text}");
        }
    }

    #[test]
    fn a_memif_has_the_ring_and_the_packets_of_the_load() {
        let load = Load { size: Size::Bytes(64), ring: 256, burst: 16 };
        let end = |side, memif| {
            words(&testbed().memif_end(side, memif, File::new("/s"), load).expect("dpdk is there"))
        };
        let server = end(Side::Backend, Memif::Copy);
        assert!(
            server.contains("net_memif0,socket=/s,socket-abstract=no,id=1,rsize=8,bsize=2048,role=server"),
            "{server}"
        );
        assert!(server.contains("--no-flush-rx") && server.contains("--burst=16"), "{server}");
        let client = end(Side::Frontend, Memif::ZeroCopy);
        assert!(
            client.contains("role=client,zero-copy=yes") && client.contains("--single-file-segments"),
            "{client}"
        );
        assert!(!end(Side::Frontend, Memif::Copy).contains("zero-copy"));
    }
}
