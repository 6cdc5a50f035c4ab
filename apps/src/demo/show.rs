//! The demo's output: a live view on a terminal, plain lines otherwise, or one line of JSON.

use std::path::Path;
use std::time::Instant;

use super::end::{DEPTH, Role, device};
use super::place::Placement;
use super::report::{Progress, Summary};
use crate::error::Error;
use crate::output::{Output, out};

/// Prints the demo's output.
pub(super) struct Show {
    output: Output,
    json: bool,
    live: bool,
    last: Option<(Instant, u64)>,
}

impl Show {
    pub(super) fn new(output: Output, json: bool) -> Self {
        let live = !json && Output::is_terminal();
        Self { output, json, live, last: None }
    }

    /// Whether the output can no longer be written.
    pub(super) fn failed(&self) -> bool {
        self.output.failed()
    }

    /// Prints the setup.
    pub(super) fn begin(&mut self, placement: &Placement, socket: &Path) {
        if self.json {
            return;
        }
        let on = |core: Option<u32>| core.map_or("any core".into(), |core| format!("core {core}"));
        let (back, front) = match placement.cores {
            Some((back, front)) => (on(Some(back.0)), on(Some(front.0))),
            None => (on(None), on(None)),
        };
        out!(
            self.output,
            "linecard demo: two processes, one vhost-user socket, shared memory\n\n\
             \x20   backend (net_vhost)            frontend (net_virtio_user)\n\
             \x20   {back:<13} ◄── rings of {DEPTH} ──► {front}\n\n\
             cores:  {}\nsocket: {}\n",
            placement.why,
            socket.display()
        );
        self.output.flush();
    }

    /// Prints what the demo waits for, and the longest time.
    pub(super) fn waiting(&mut self, what: &str, most: std::time::Duration) {
        if self.json {
            return;
        }
        let lead = if self.live { "\n" } else { "" };
        out!(
            self.output,
            "{lead}waiting for {what}, up to {:.0} s: the cores are busy\n",
            most.as_secs_f64()
        );
        self.output.flush();
    }

    /// Starts the calculation of rates.
    pub(super) fn mark(&mut self, received: u64) {
        self.last = Some((Instant::now(), received));
    }

    /// Prints the progress of both ends.
    pub(super) fn progress(&mut self, ends: &[Progress; 2]) {
        if self.json {
            return;
        }
        let (now, received) = (Instant::now(), ends.iter().map(|end| end.received).sum());
        let (then, before) = self.last.replace((now, received)).unwrap_or((now, received));
        let seconds = (now - then).as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let rate = (received - before) as f64 / seconds / 2e6;
        let worst = |f: fn(&Progress) -> u64| ends.iter().map(f).max().unwrap_or(0) as f64 / 1e3;
        let (p50, p99) = (worst(|end| end.p50_ns), worst(|end| end.p99_ns));
        // On a terminal the line replaces the previous one.
        let (lead, tail) = if self.live { ("\r\x1b[K", "") } else { ("", "\n") };
        out!(
            self.output,
            "{lead}{rate:8.3} Mpps each way   round trip p50 {p50:8.1} µs  p99 {p99:8.1} µs   \
             {received} packets checked{tail}"
        );
        self.output.flush();
    }

    /// Prints the results and the commands to reproduce them.
    ///
    /// # Errors
    /// The output cannot be written.
    pub(super) fn end(&mut self, summary: &Summary) -> Result<(), Error> {
        if self.json {
            let line = serde_json::to_string(summary).unwrap_or_default();
            out!(self.output, "{line}\n");
            return self.output.finish(true);
        }
        let Summary { packets, lost, duplicated, reordered, corrupted, mpps, seconds, .. } = summary;
        let latency = summary.latency_us;
        out!(
            self.output,
            "{}\nmemory: {}: {}\npaths:  {}\n\n\
             {packets} packets in {seconds:.1} s: {lost} lost, {duplicated} duplicated, {reordered} reordered, \
             {corrupted} corrupted\n\
             {mpps:.3} Mpps each way, round trip p50 {:.1} µs, p99 {:.1} µs, first packet after {:.0} ms\n\n",
            if self.live { "\n" } else { "" },
            summary.memory,
            summary.memory_why,
            summary.data_path,
            latency.p50,
            latency.p99,
            summary.first_packet_ms
        );
        self.by_hand(summary);
        self.output.finish(true)
    }

    /// Prints the commands that do the same in two terminals.
    fn by_hand(&mut self, summary: &Summary) {
        let socket = Path::new("/tmp/linecard.sock");
        let core = |index: usize| summary.cores.get(index).copied().unwrap_or(0);
        let line = |role, core: u32| {
            let lcores = format!("--lcores '0@{core},1@{core}'");
            format!("linecard testpmd {lcores} -m 64 --vdev '{}' -- -i", device(role, socket))
        };
        out!(
            self.output,
            "by hand, in two terminals:\n  {}\n  {}\nthen type `start` in the first and `start tx_first 8` in the \
             second; `show port stats all` in either\n",
            line(Role::Backend, core(0)),
            line(Role::Frontend, core(1))
        );
    }
}
