//! One closed-loop sample: two fresh testpmds, a ring full of packets that circulates, the rate from the
//! backend's counters.

use std::time::{Duration, Instant};

use super::cell::{Load, Memif, Position, Side, Size};
use super::console::{Console, Failure};
use super::kind::Metric;
use super::machine::{Disturbance, Watch};
use super::path::Path;
use super::raw::Values;
use super::testbed::{Figure, Testbed};
use crate::pair::per;

/// The interval between checks that both ends still run.
const LOOK: Duration = Duration::from_millis(200);

/// Two testpmds between which packets circulate.
pub(crate) struct Pair {
    pub(crate) back: Console,
    pub(crate) front: Console,
    /// Whether the frontend's counters can be read after its end, and compared with the backend's.
    agrees: bool,
}

impl Testbed {
    /// Measures a fresh pair; returns the backend's log too.
    pub(crate) fn closed_loop(&self, mut pair: Pair, load: Load) -> Result<(Figure, String), Failure> {
        pair.go(self, load)?;
        pair.rest(self, self.warm_up)?;
        let (disturbance, window) = pair.take_two_snapshots(self)?;
        let (mpps, log) = pair.end(load, |rate| steady(rate, window))?;
        Ok((Figure { values: Values::from([(Metric::Mpps, mpps)]), disturbance }, log))
    }

    /// Starts two connected testpmds.
    pub(crate) fn pair(&self, position: Position, path: Path, load: Load) -> Result<Pair, Failure> {
        let socket = self.socket();
        let (back_tool, front_tool) = position.tools();
        let back = self.start("backend", self.backend(back_tool, &socket, load)?)?;
        let front = self.start("frontend", self.frontend(front_tool, &socket, path, load)?)?;
        self.settle()?;
        Ok(Pair { back, front, agrees: true })
    }

    /// Starts two of DPDK's testpmds with a memif between them. The server is the end whose counters are
    /// read: the client of 22.11 crashes at exit, and its buffered output is lost.
    pub(crate) fn memif(&self, memif: Memif, load: Load) -> Result<Pair, Failure> {
        let socket = self.socket();
        let back = self.start("memif server", self.memif_end(Side::Backend, memif, &socket, load)?)?;
        let front = self.start("memif client", self.memif_end(Side::Frontend, memif, &socket, load)?)?;
        self.settle()?;
        Ok(Pair { back, front, agrees: false })
    }
}

impl Pair {
    /// Lets a ring full of packets circulate.
    pub(crate) fn go(&mut self, testbed: &Testbed, load: Load) -> Result<(), Failure> {
        self.front.command(&format!("set fwd {}", testbed.forward))?;
        self.front.command("start")?;
        self.back.command("set fwd io")?;
        for (at, (bytes, bursts)) in load.first().into_iter().enumerate() {
            if at > 0 {
                self.back.command("stop")?;
            }
            if !load.size.chained() {
                self.back.command(&format!("set txpkts {bytes}"))?;
            }
            self.back.command(&format!("start tx_first {bursts}"))?;
        }
        Ok(())
    }

    /// Sleeps while both ends run.
    pub(crate) fn rest(&mut self, testbed: &Testbed, time: Duration) -> Result<(), Failure> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            testbed.interrupt.sleep(left.min(LOOK))?;
            self.back.check()?;
            self.front.check()?;
        }
    }

    /// Ends both programs; returns the result of `rate` for the two earlier snapshots, and the backend's log.
    pub(crate) fn end(
        mut self,
        load: Load,
        rate: impl FnOnce(Rate) -> Result<f64, String>,
    ) -> Result<(f64, String), Failure> {
        // The backend first: the packets that it has sent then still reach the frontend.
        for end in [&mut self.back, &mut self.front] {
            end.command("stop")?;
            end.command("show port stats 0")?;
        }
        let received = self.front.finish()?.output;
        let transcript = self.back.finish()?;
        let figure = between(&transcript.output).and_then(rate).map_err(Failure::Program)?;
        long_enough(&transcript.output, load).map_err(Failure::Program)?;
        if self.agrees {
            agree(&transcript.output, &received, load).map_err(Failure::Program)?;
        }
        Ok((figure, transcript.log))
    }

    /// Makes the backend print its counters at the start and at the end of the window.
    fn take_two_snapshots(&mut self, testbed: &Testbed) -> Result<(Disturbance, Duration), Failure> {
        let processes = [self.back.pid(), self.front.pid()];
        self.back.command("show port stats 0")?;
        let (watch, start) = (Watch::start(&processes), Instant::now());
        self.rest(testbed, testbed.window)?;
        let disturbance = watch.end(&processes, 1);
        self.back.command("show port stats 0")?;
        Ok((disturbance, start.elapsed()))
    }
}

/// The counters of a port at one time, and the packets received per second since the previous snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortSnapshot {
    pub(crate) received: u64,
    received_bytes: u64,
    sent: u64,
    /// Packets received per second since the previous snapshot.
    pub(crate) per_second: u64,
}

/// Parses the snapshots in the output of a testpmd. Both programs print the same block.
pub(crate) fn snapshots(output: &str) -> Vec<PortSnapshot> {
    let after = |line: &str, label: &str| -> Option<u64> {
        line.trim_start().strip_prefix(label)?.split_whitespace().next()?.parse().ok()
    };
    let mut snapshots = Vec::new();
    let mut counts = None;
    for line in output.lines() {
        if line.contains("NIC statistics for port 0 ") {
            counts = Some((0, 0, 0));
        }
        // The summaries have the same labels, but outside of blocks.
        let Some((received, received_bytes, sent)) = &mut counts else { continue };
        if let Some(packets) = after(line, "RX-packets:") {
            (*received, *received_bytes) =
                (packets, line.find("RX-bytes:").and_then(|at| after(&line[at..], "RX-bytes:")).unwrap_or(0));
        } else if let Some(packets) = after(line, "TX-packets:") {
            *sent = packets;
        } else if let Some(per_second) = after(line, "Rx-pps:") {
            let (received, received_bytes, sent) = (*received, *received_bytes, *sent);
            snapshots.push(PortSnapshot { received, received_bytes, sent, per_second });
            counts = None;
        }
    }
    snapshots
}

/// Checks that the frontend received what the backend sent, except packets that are still in a ring.
fn agree(back: &str, front: &str, load: Load) -> Result<(), String> {
    let last = |output: &str| snapshots(output).last().copied();
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

/// Checks that the circulating packets have the requested length; not for a mix of lengths.
fn long_enough(output: &str, load: Load) -> Result<(), String> {
    let (Size::Bytes(bytes), Some(look)) = (load.size, snapshots(output).pop()) else { return Ok(()) };
    let each = look.received_bytes / look.received.max(1);
    /// Some versions count the frame check sequence.
    const FCS: u64 = 4;
    if each.abs_diff(bytes.into()) > FCS {
        return Err(format!("packets of {each} bytes went round instead of {bytes}"));
    }
    Ok(())
}

/// The backend's counts between the last two snapshots but one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) moved: u64,
    /// By the program's own clock.
    pub(crate) per_second: u64,
}

fn between(output: &str) -> Result<Rate, String> {
    let snapshots = snapshots(output);
    let [.., first, second, _] = snapshots[..] else {
        return Err("the backend printed no statistics".into());
    };
    let rate = Rate { moved: second.received.saturating_sub(first.received), per_second: second.per_second };
    if rate.moved == 0 || rate.per_second == 0 {
        return Err("no packet came back to the backend; an end may refuse packets of this length".into());
    }
    Ok(rate)
}

/// Returns million packets per second by the program's own clock, which the delays of the pipe do not affect.
/// `window`, by our clock, serves to check that rate and counters agree.
fn steady(rate: Rate, window: Duration) -> Result<f64, String> {
    let Rate { moved, per_second } = rate;
    let seconds = per(moved, per_second);
    let expected = window.as_secs_f64();
    if (seconds - expected).abs() > 0.2 * expected + 0.1 {
        return Err(format!(
            "the backend's rate and counters disagree: {moved} packets at {per_second}/s within {expected:.2} s"
        ));
    }
    Ok(per(per_second, 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loopback::cell::Size;

    /// The statistics as DPDK 22.11 prints them.
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

    fn rate(output: &str) -> Result<f64, String> {
        between(output).and_then(|rate| steady(rate, Duration::from_secs(1)))
    }

    #[test]
    fn looks_are_read_from_among_other_text() {
        let summary = "  ------ Forward statistics for port 0  ------\n  RX-packets: 7   RX-dropped: 0\n";
        let text = format!("testpmd> show port stats 0\r\n{}{}{summary}", block(100, 0), block(1700, 1600));
        let expected = [(100, 0), (1700, 1600)].map(|(received, per_second)| PortSnapshot {
            received,
            received_bytes: 97_136_640,
            sent: 1_518_784,
            per_second,
        });
        assert_eq!(snapshots(&text), expected);
        assert_eq!(snapshots(summary), []);
        assert_eq!(snapshots(""), []);
    }

    #[test]
    fn the_rate_is_that_of_the_window() {
        let text = block(0, 0)
            + &block(1_000_000, 9_000_000)
            + &block(17_000_000, 16_000_000)
            + &block(20_000_000, 5);
        assert_eq!(rate(&text), Ok(16.0));
    }

    #[test]
    fn no_rate_is_an_error() {
        assert!(rate("").is_err_and(|text| text.contains("no statistics")));
        assert!(rate(&block(5, 0)).is_err_and(|text| text.contains("no statistics")));
        assert!(rate(&block(5, 0).repeat(3)).is_err_and(|text| text.contains("no packet")));
        let wrong = block(0, 0) + &block(1_000_000, 16_000_000) + &block(0, 0);
        assert!(rate(&wrong).is_err_and(|text| text.contains("disagree")));
    }

    #[test]
    fn packets_of_another_length_are_not_what_was_asked_for() {
        let load = |size| Load { size, ring: 256, burst: 32 };
        let text = block(97_136_640 / 64, 0);
        assert_eq!(long_enough(&text, load(Size::Bytes(64))), Ok(()));
        assert_eq!(long_enough(&text, load(Size::Imix)), Ok(()));
        let problem = long_enough(&text, load(Size::Bytes(9000)));
        assert!(problem.is_err_and(|text| text.contains("64 bytes went round instead of 9000")));
    }

    #[test]
    fn both_ends_must_have_counted_the_same() {
        let load = Load { size: Size::Bytes(64), ring: 256, burst: 32 };
        let back = block(0, 0);
        assert_eq!(agree(&back, &block(1_518_784 - 256, 0), load), Ok(()));
        assert!(agree(&back, &block(1_518_784 - 257, 0), load).is_err_and(|text| text.contains("received")));
        assert!(agree(&back, "", load).is_err());
    }
}
