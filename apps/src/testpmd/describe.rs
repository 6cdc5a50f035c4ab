//! The output of `show config …` and `start` about the settings.

use super::layout;
use super::session::Session;
use super::settings::ModeKind;
use super::topology::Share;
use crate::output::out;
use linecard::pmd::QueueId;

impl Session {
    /// Prints the streams and the lcores on which they run.
    pub(crate) fn print_forwarding(&mut self, shares: &[Share]) {
        let streams: usize = shares.iter().map(|share| share.streams.len()).sum();
        let retry = self.settings.retry;
        out!(
            self.out,
            "{} packet forwarding{} - ports={} - cores={} - streams={streams} - NUMA support disabled, MP \
             allocation mode: native\n",
            self.settings.mode.name(),
            if retry.enabled { " with retry" } else { "" },
            self.forwarding_ports().len(),
            shares.len(),
        );
        if retry.enabled {
            out!(self.out, "TX retry num: {}, delay between TX retries: {}us\n", retry.count, retry.delay_us);
        }
        out!(self.out, "{}", layout::shares(shares, |port| self.settings.peer(port)));
    }

    /// Prints what a mode reports before it begins.
    pub(crate) fn print_mode_start(&mut self) {
        if self.settings.mode == ModeKind::FlowGen {
            for id in self.forwarding_ports() {
                out!(self.out, "  number of flows for port {id}: {}\n", self.settings.flows);
            }
        }
    }

    /// Prints bursts, queues and rings.
    pub(crate) fn print_rxtx(&mut self) {
        let settings = &self.settings;
        out!(self.out, "  {} packet forwarding packets/burst={}\n", settings.mode.name(), settings.burst);
        if settings.mode.generates() {
            let (len, segments) = (settings.tx_len(), settings.tx_segments.len());
            out!(self.out, "  packet len={len} - nb packet segments={segments}\n");
        }
        let (cores, ports) = (self.forwarding_lcores().len(), self.forwarding_ports());
        out!(self.out, "  nb forwarding cores={cores} - nb forwarding ports={}\n", ports.len());
        for slot in ports.iter().filter_map(|id| self.ports.get(*id)) {
            let config = slot.config();
            let (rx, tx) = (config.offloads.rx.bits(), config.offloads.tx.bits());
            out!(
                self.out,
                "  port {}: RX queue number: {} Tx queue number: {}\n    Rx offloads={rx:#x} Tx offloads={tx:#x}\n",
                slot.id,
                config.rx_queues,
                config.tx_queues
            );
            out!(
                self.out,
                "    RX queue: 0\n      RX desc={} - RX free threshold=0\n      RX threshold registers: \
                 pthresh=0 hthresh=0  wthresh=0\n      RX Offloads={rx:#x}\n",
                slot.depth(QueueId::Receive(0))
            );
            out!(
                self.out,
                "    TX queue: 0\n      TX desc={} - TX free threshold=0\n      TX threshold registers: \
                 pthresh=0 hthresh=0  wthresh=0\n      TX offloads={tx:#x} - TX RS bit threshold=0\n",
                slot.depth(QueueId::Transmit(0))
            );
        }
    }
}
