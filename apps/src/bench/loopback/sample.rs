//! One closed-loop sample: two fresh testpmds, a ring full of packets going round, the rate from the backend's counters.

use std::fmt::Write as _;
use std::path::{Path as File, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use linecard::eal::CoreId;

use super::cell::{Load, Position, Tool};
use super::console::{Console, Failure, Interrupt};
use super::machine::{Disturbance, Watch};
use super::path::Path;

/// What all samples share.
pub(crate) struct Bed {
    /// The backend polls on the second, the frontend on the first.
    pub(crate) cores: [CoreId; 2],
    /// Our own program.
    pub(crate) ours: PathBuf,
    /// dpdk-testpmd, if there is one.
    pub(crate) dpdk: Option<PathBuf>,
    /// Whether both sides get hugepages.
    pub(crate) hugepages: bool,
    /// Forward mode of the frontend.
    pub(crate) forward: String,
    /// From the first packets to the first look at the counters.
    pub(crate) warm_up: Duration,
    /// From the first look to the second.
    pub(crate) window: Duration,
    /// For sockets.
    pub(crate) folder: PathBuf,
    pub(crate) interrupt: Interrupt,
}

/// One figure and what disturbed it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    /// Million packets per second and direction.
    pub(crate) mpps: f64,
    pub(crate) disturbance: Disturbance,
}

/// Megabytes for each program, as `loopback` measurements of DPDK have it.
const MEMORY: u32 = 512;
const PACKETS: u32 = 16_384;
/// How long rings take to come up after both consoles are there.
const SETTLE: Duration = Duration::from_millis(300);

impl Bed {
    /// Free 2 MiB pages that both programs need together.
    pub(crate) const HUGEPAGES: u64 = 2 * MEMORY as u64 / 2;

    /// Measures one pair in fresh processes; also the backend's log.
    pub(crate) fn closed_loop(
        &self,
        position: Position,
        path: Path,
        load: Load,
    ) -> Result<(Figure, String), Failure> {
        let socket = self.folder.join("loop.sock");
        // What a program that was killed has left.
        let _ = std::fs::remove_file(&socket);
        let (back_tool, front_tool) = position.tools();
        let mut back =
            Console::start("backend", &mut self.backend(back_tool, &socket, load)?, &self.interrupt)?;
        let mut command = self.frontend(front_tool, &socket, path, load)?;
        let mut front = Console::start("frontend", &mut command, &self.interrupt)?;
        self.interrupt.sleep(SETTLE)?;
        front.command(&format!("set fwd {}", self.forward))?;
        front.command("start")?;
        back.command("set fwd io")?;
        for (at, (bytes, bursts)) in load.first().into_iter().enumerate() {
            if at > 0 {
                back.command("stop")?;
            }
            back.command(&format!("set txpkts {bytes}"))?;
            back.command(&format!("start tx_first {bursts}"))?;
        }
        self.interrupt.sleep(self.warm_up)?;
        let (disturbance, window) = self.look_twice(&mut back, &front)?;
        // The backend first: what it sent then reaches the frontend.
        for end in [&mut back, &mut front] {
            end.command("stop")?;
            end.command("show port stats 0")?;
        }
        let received = front.finish()?.output;
        let transcript = back.finish()?;
        let mpps = rate(&transcript.output, window).map_err(Failure::Program)?;
        agree(&transcript.output, &received, load).map_err(Failure::Program)?;
        Ok((Figure { mpps, disturbance }, transcript.log))
    }

    /// Has the counters printed at both ends of the window.
    fn look_twice(&self, back: &mut Console, front: &Console) -> Result<(Disturbance, Duration), Failure> {
        let processes = [back.pid(), front.pid()];
        back.command("show port stats 0")?;
        let (watch, start) = (Watch::start(&processes), Instant::now());
        self.interrupt.sleep(self.window)?;
        let disturbance = watch.end(&processes, 1);
        back.command("show port stats 0")?;
        Ok((disturbance, start.elapsed()))
    }

    fn backend(&self, tool: Tool, socket: &File, load: Load) -> Result<Command, Failure> {
        let [front, back] = self.cores;
        let device = format!("net_vhost0,iface={},queues=1", socket.display());
        let mut command = self.testpmd(tool, "b", [front, back])?;
        command.args(["--vdev", &device, "--"]).args(common(load));
        // The first packets of one length wait while those of the next are made.
        command.arg("--no-flush-rx");
        Ok(command)
    }

    fn frontend(&self, tool: Tool, socket: &File, path: Path, load: Load) -> Result<Command, Failure> {
        let [front, back] = self.cores;
        let mut device = format!("net_virtio_user0,path={},queues=1", socket.display());
        let _ = write!(device, ",queue_size={},{}", load.ring, path.options());
        let mut command = self.testpmd(tool, "f", [back, front])?;
        // DPDK takes its AVX-512 paths only when told that it may.
        command.args(["--single-file-segments", "--force-max-simd-bitwidth=512"]);
        command.args(["--vdev", &device, "--"]).args(common(load));
        Ok(command)
    }

    /// A program whose console runs on the first core and whose packets on the second.
    fn testpmd(&self, tool: Tool, end: &str, cores: [CoreId; 2]) -> Result<Command, Failure> {
        let mut command = match (tool, &self.dpdk) {
            (Tool::Ours, _) => {
                let mut command = Command::new(&self.ours);
                command.arg("testpmd");
                command
            }
            (Tool::Dpdk, Some(program)) => Command::new(program),
            (Tool::Dpdk, None) => return Err(Failure::Program("dpdk-testpmd is absent".into())),
        };
        let lcores = format!("0@{},1@{}", cores[0], cores[1]);
        let prefix = format!("linecard-loop-{}-{end}", std::process::id());
        command.args(["--lcores", &lcores, "--no-pci", "--no-telemetry", "-v"]);
        command.args(["-m", &MEMORY.to_string(), "--file-prefix", &prefix]);
        // DPDK leaves a folder behind, even in memory mode; this one is removed.
        command.env("RUNTIME_DIRECTORY", &self.folder);
        // DPDK has no memory mode without hugepages; its files then lie in the same folder.
        command.arg(if self.hugepages { "--in-memory" } else { "--no-huge" });
        Ok(command)
    }
}

/// testpmd's own options, the same for both programs and both ends.
fn common(load: Load) -> Vec<String> {
    /// What a buffer holds beside a packet: headroom and the virtio-net header, with room to spare.
    const BESIDE: u16 = 256;
    let mut options: Vec<String> = ["-i", "--nb-cores=1"].map(str::to_owned).into();
    options.push(format!("--total-num-mbufs={PACKETS}"));
    options.push(format!("--txd={}", load.ring));
    options.push(format!("--rxd={}", load.ring));
    options.push(format!("--burst={}", load.burst));
    let longest = load.size.longest();
    if longest > 1518 {
        options.push(format!("--mbuf-size={}", longest.next_multiple_of(64) + BESIDE));
        options.push(format!("--max-pkt-len={longest}"));
    }
    options
}

/// One look at a port: packets so far, and packets received per second since the look before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    received: u64,
    sent: u64,
    per_second: u64,
}

/// The looks in what a testpmd printed. Both programs print the same block.
fn looks(output: &str) -> Vec<Look> {
    let after = |line: &str, label: &str| -> Option<u64> {
        line.trim_start().strip_prefix(label)?.split_whitespace().next()?.parse().ok()
    };
    let mut looks = Vec::new();
    let mut counts = None;
    for line in output.lines() {
        if line.contains("NIC statistics for port 0 ") {
            counts = Some((0, 0));
        }
        // Summaries, which have the same labels, come outside of blocks.
        let Some((received, sent)) = &mut counts else { continue };
        if let Some(packets) = after(line, "RX-packets:") {
            *received = packets;
        } else if let Some(packets) = after(line, "TX-packets:") {
            *sent = packets;
        } else if let Some(per_second) = after(line, "Rx-pps:") {
            looks.push(Look { received: *received, sent: *sent, per_second });
            counts = None;
        }
    }
    looks
}

/// Whether the frontend received what the backend sent, but for packets that are still in a ring.
fn agree(back: &str, front: &str, load: Load) -> Result<(), String> {
    let last = |output: &str| looks(output).last().copied();
    let (Some(back), Some(front)) = (last(back), last(front)) else {
        return Err("an end printed no statistics".into());
    };
    if back.sent.abs_diff(front.received) > u64::from(load.ring) {
        return Err(format!(
            "the backend sent {} packets, the frontend received {}",
            back.sent, front.received
        ));
    }
    Ok(())
}

/// Millions of packets per second in the window, whose looks are followed by one at the end, by the program's own clock,
/// which is free of the pipe's delays; `window` by ours tells whether rate and counters agree.
fn rate(output: &str, window: Duration) -> Result<f64, String> {
    let looks = looks(output);
    let [.., first, second, _] = looks[..] else {
        return Err("the backend printed no statistics".into());
    };
    let moved = second.received.saturating_sub(first.received);
    if moved == 0 || second.per_second == 0 {
        return Err("no packet came back to the backend".into());
    }
    let seconds = crate::bench::pair::per(moved, second.per_second);
    let expected = window.as_secs_f64();
    if (seconds - expected).abs() > 0.2 * expected + 0.1 {
        return Err(format!(
            "the backend's rate and counters disagree: {moved} packets at {}/s within {expected:.2} s",
            second.per_second
        ));
    }
    Ok(crate::bench::pair::per(second.per_second, 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::loopback::cell::Size;

    /// As DPDK 22.11 prints it.
    fn block(packets: u64, rate: u64) -> String {
        format!(
            "\n  ######################## NIC statistics for port 0  ########################
  RX-packets: {packets}    RX-missed: 0          RX-bytes:  97136640
  RX-errors: 0
  RX-nombuf:  0         
  TX-packets: 1518784    TX-errors: 0          TX-bytes:  97202176

  Throughput (since last show)
  Rx-pps:      {rate}          Rx-bps:    820500824
  Tx-pps:      1602512          Tx-bps:    820486320
  ############################################################################\n"
        )
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn looks_are_read_from_among_other_text() {
        let summary = "  ------ Forward statistics for port 0  ------\n  RX-packets: 7   RX-dropped: 0\n";
        let text = format!("testpmd> show port stats 0\r\n{}{}{summary}", block(100, 0), block(1700, 1600));
        let expected = [(100, 0), (1700, 1600)].map(|(received, per_second)| Look {
            received,
            sent: 1_518_784,
            per_second,
        });
        assert_eq!(looks(&text), expected);
        assert_eq!(looks(summary), []);
        assert_eq!(looks(""), []);
    }

    #[test]
    fn the_rate_is_that_of_the_window() {
        let text = block(0, 0)
            + &block(1_000_000, 9_000_000)
            + &block(17_000_000, 16_000_000)
            + &block(20_000_000, 5);
        assert_eq!(rate(&text, SECOND), Ok(16.0));
    }

    #[test]
    fn no_rate_is_an_error() {
        assert!(rate("", SECOND).is_err_and(|text| text.contains("no statistics")));
        assert!(rate(&block(5, 0), SECOND).is_err_and(|text| text.contains("no statistics")));
        assert!(rate(&block(5, 0).repeat(3), SECOND).is_err_and(|text| text.contains("no packet")));
        let wrong = block(0, 0) + &block(1_000_000, 16_000_000) + &block(0, 0);
        assert!(rate(&wrong, SECOND).is_err_and(|text| text.contains("disagree")));
    }

    #[test]
    fn both_ends_must_have_counted_the_same() {
        let load = Load { size: Size::Bytes(64), ring: 256, burst: 32 };
        let back = block(0, 0);
        assert_eq!(agree(&back, &block(1_518_784 - 256, 0), load), Ok(()));
        assert!(agree(&back, &block(1_518_784 - 257, 0), load).is_err_and(|text| text.contains("received")));
        assert!(agree(&back, "", load).is_err());
    }

    #[test]
    fn both_programs_get_the_same_arguments() {
        let bed = Bed {
            cores: [CoreId(0), CoreId(1)],
            ours: "/bin/ours".into(),
            dpdk: Some("/bin/dpdk".into()),
            hugepages: false,
            forward: "mac".into(),
            warm_up: SECOND,
            window: SECOND,
            folder: "/tmp".into(),
            interrupt: Interrupt::default(),
        };
        let load = Load { size: Size::Bytes(9000), ring: 256, burst: 32 };
        let arguments = |tool| -> Vec<String> {
            let command = bed.frontend(tool, File::new("/s"), Path::Packed, load).expect("both are there");
            command.get_args().map(|a| a.to_string_lossy().into_owned()).filter(|a| a != "testpmd").collect()
        };
        assert_eq!(arguments(Tool::Ours), arguments(Tool::Dpdk));
        let text = arguments(Tool::Ours).join(" ");
        assert!(text.contains("path=/s,queues=1,queue_size=256,packed_vq=1,in_order=0"), "{text}");
        assert!(text.contains("--no-huge") && text.contains("--max-pkt-len=9000"), "{text}");
        assert!(text.starts_with("--lcores 0@1,1@0"), "{text}");
    }
}
