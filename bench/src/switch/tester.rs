//! The tester: two ports between which frames circulate, and the measurement of their rate.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::middle::{Kind, Testbed};
use crate::loopback::console::{Console, Failure};
use crate::pair::per;

/// Addresses of the tester's ports.
const MACS: [&str; 2] = ["52:54:00:00:00:01", "52:54:00:00:00:02"];
/// The time limit for the links to come up.
const LINK: Duration = Duration::from_secs(20);
/// From the first frames to the first snapshot of the counters.
const WARM_UP: Duration = Duration::from_millis(700);
const APP: [&str; 6] = ["--", "-i", "--nb-cores=1", "--total-num-mbufs=16384", "--txd=1024", "--rxd=1024"];

impl Testbed {
    /// Starts a testpmd with both ports and waits for their links.
    pub(super) fn tester(
        &self,
        kind: Kind,
        sockets: &[std::path::PathBuf; 2],
        size: u16,
    ) -> Result<Console, Failure> {
        let [own, other] = self.cores;
        let mut command = if kind == Kind::Memif {
            self.dpdk_testpmd()?
        } else {
            let mut command = Command::new(&self.ours);
            command.arg("testpmd");
            command
        };
        command.args(["--lcores", &format!("0@{other},1@{own}"), "--no-pci", "--no-telemetry"]);
        self.place_files(&mut command, "tester");
        for (port, socket) in sockets.iter().enumerate() {
            command.args(["--vdev", &device(kind, port, socket)]);
        }
        command.args(APP).arg(format!("--txpkts={size}"));
        let mut console = Console::start("tester", &mut command, &self.interrupt)?;
        for port in 0..2 {
            self.await_link(&mut console, port)?;
        }
        for (port, mac) in MACS.iter().rev().enumerate() {
            console.command(&format!("set eth-peer {port} {mac}"))?;
        }
        Ok(console)
    }

    fn await_link(&self, console: &mut Console, port: u16) -> Result<(), Failure> {
        let until = Instant::now() + LINK;
        while !console.ask(&format!("show port info {port}"), Duration::ZERO)?.contains("Link status: up") {
            if Instant::now() > until {
                return Err(Failure::Program("the switch did not take the tester's port".into()));
            }
            self.interrupt.sleep(Duration::from_millis(50))?;
        }
        Ok(())
    }

    /// Sends the frames that then circulate; repeats that until some return, because a switch may drop frames
    /// before it polls all of its ports.
    fn fill(&self, console: &mut Console) -> Result<(), Failure> {
        let until = Instant::now() + LINK;
        let (before, _) = received(console)?;
        console.command("set fwd io")?;
        loop {
            console.command("start tx_first 16")?;
            self.interrupt.sleep(Duration::from_millis(200))?;
            if received(console)?.0 > before {
                return Ok(());
            }
            console.command("stop")?;
            if Instant::now() > until {
                return Err(Failure::Program("no frame passes".into()));
            }
        }
    }

    /// Lets frames circulate and returns their rate: million per second in each direction.
    pub(super) fn rate(&self, console: &mut Console) -> Result<f64, Failure> {
        self.fill(console)?;
        self.interrupt.sleep(WARM_UP)?;
        let (before, began) = received(console)?;
        self.interrupt.sleep(self.window)?;
        let (after, ended) = received(console)?;
        console.command("stop")?;
        let frames = after.saturating_sub(before);
        if frames == 0 {
            return Err(Failure::Program("frames do not go on passing".into()));
        }
        // The counter is the sum of both directions.
        Ok(per(frames, 2_000_000) / (ended - began).as_secs_f64())
    }
}

fn device(kind: Kind, port: usize, socket: &Path) -> String {
    let socket = socket.display();
    if kind == Kind::Memif {
        return format!(
            "net_memif{port},socket={socket},socket-abstract=no,id=1,rsize=10,bsize=2048,role=client"
        );
    }
    let mac = MACS[port % 2];
    let server = u8::from(kind == Kind::Ovs);
    format!(
        "net_virtio_user{port},path={socket},mac={mac},server={server},queues=1,queue_size=1024,mrg_rxbuf=1,in_order=0"
    )
}

/// Returns the frames that both ports have received, and approximately when.
fn received(console: &mut Console) -> Result<(u64, Instant), Failure> {
    let asked = Instant::now();
    let text = console.ask("show port stats all", Duration::ZERO)?;
    let at = asked + asked.elapsed() / 2;
    let counts: Vec<u64> = counts(&text);
    match counts[..] {
        [first, second] => Ok((first + second, at)),
        _ => Err(Failure::Program("the tester printed no statistics".into())),
    }
}

fn counts(text: &str) -> Vec<u64> {
    let lines = text.lines().filter_map(|line| line.trim_start().strip_prefix("RX-packets:"));
    lines.filter_map(|rest| rest.split_whitespace().next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ports_counters_are_read() {
        let block =
            "  #### port 0\n  RX-packets: 15    RX-missed: 7\n  #### port 1\n  RX-packets: 2  RX-missed: 0\n";
        assert_eq!(counts(block), [15, 2]);
    }

    #[test]
    fn a_port_fits_what_it_talks_to() {
        let socket = Path::new("/s");
        assert!(device(Kind::Ovs, 0, socket).contains("server=1"));
        assert!(device(Kind::Linecard, 1, socket).contains("mac=52:54:00:00:00:02,server=0"));
        assert!(device(Kind::Memif, 1, socket).starts_with("net_memif1,"));
    }
}
