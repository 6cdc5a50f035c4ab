//! The statistics of a run that `stop` and `show fwd stats all` print.

use std::collections::HashMap;

use super::Session;
use crate::output::out;
use crate::testpmd::engine::Forwarding;
use crate::testpmd::layout::{self, ForwardTotals};
use crate::testpmd::settings::ModeKind;
use crate::testpmd::topology::Stream;

impl Session {
    /// Prints the statistics since forwarding started: per stream if there are more streams than ports, then
    /// per port.
    pub(crate) fn print_forward_stats(&mut self) {
        let (many, totals) = self.forward_totals();
        if many {
            for (stream, totals) in &self.last_totals {
                let bursts = self.burst_lines(|each| (each == stream, each == stream));
                out!(self.out, "{}{bursts}", layout::stream_stats(stream, totals));
            }
        }
        let bursts = |port| match many {
            true => String::new(),
            false => self.burst_lines(|each| (each.rx_port == port, each.tx_port == port)),
        };
        let text = layout::forward_stats(&totals, bursts);
        out!(self.out, "{text}");
        if let Some(latency) = &self.live.latency {
            let text = latency.text();
            out!(self.out, "{text}");
        }
        if self.settings.record_cycles {
            self.print_cycles();
        }
    }

    /// Returns whether there are more streams than ports, and the totals of each port since forwarding
    /// started.
    pub(crate) fn forward_totals(&mut self) -> (bool, Vec<(u16, ForwardTotals)>) {
        if let Some(forwarding) = &self.forwarding {
            self.last_totals = forwarding.totals();
            self.last_bursts = forwarding.bursts();
        }
        let ports =
            if self.last_ports.is_empty() { self.forwarding_ports() } else { self.last_ports.clone() };
        let (mut dropped, mut bad): (HashMap<u16, u64>, HashMap<u16, (u64, u64)>) = Default::default();
        for (stream, totals) in &self.last_totals {
            *dropped.entry(stream.tx_port).or_default() += totals.tx_dropped;
            let (ip, l4) = bad.entry(stream.rx_port).or_default();
            (*ip, *l4) = (*ip + totals.bad_ip, *l4 + totals.bad_l4);
        }
        let csum = self.settings.mode == ModeKind::Csum;
        let of = |id: &u16| {
            let stats = self.ports.get(*id)?.since_forwarding();
            let tx_dropped = dropped.get(id).copied().unwrap_or(0);
            let bad_checksums = csum.then(|| bad.get(id).copied().unwrap_or_default());
            Some((*id, ForwardTotals { stats, tx_dropped, bad_checksums }))
        };
        (self.last_totals.len() > ports.len(), ports.iter().filter_map(of).collect())
    }

    /// Returns one line for each polled receive queue of a port: how its thread waits for packets.
    pub(crate) fn waits_of(&self, port: u16) -> String {
        let hz = self.eal.clock().hz();
        let lanes = self.forwarding.as_ref().map_or(Vec::new(), Forwarding::lanes);
        let lines = lanes.iter().filter(|(stream, _)| stream.rx_port == port);
        lines.map(|(stream, counters)| layout::waits(stream.rx_queue, &counters.waits(), hz)).collect()
    }

    /// Returns the lines about received bursts, then those about sent bursts, of the streams that `of`
    /// selects for each.
    fn burst_lines(&self, of: impl Fn(&Stream) -> (bool, bool)) -> String {
        if !self.settings.record_bursts {
            return String::new();
        }
        let rx = self.last_bursts.iter().filter(|(stream, _)| of(stream).0).map(|(_, (rx, _))| rx.line("RX"));
        let tx = self.last_bursts.iter().filter(|(stream, _)| of(stream).1).map(|(_, (_, tx))| tx.line("TX"));
        rx.chain(tx).collect()
    }

    fn print_cycles(&mut self) {
        let generates = self.settings.mode.generates();
        let (busy, packets) = self.last_totals.iter().fold((0, 0), |(busy, packets), (_, totals)| {
            let moved = if generates { totals.tx_packets } else { totals.rx_packets };
            (busy + totals.busy_cycles, packets + moved)
        });
        let mhz = self.eal.clock().hz() / 1_000_000;
        let text = layout::cycles_per_packet(busy, packets, self.settings.mode.name(), mhz);
        out!(self.out, "{text}");
    }
}
