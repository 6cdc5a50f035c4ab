//! The control side of a started port.

use std::sync::{Arc, Weak};

use super::drops::Drops;
use super::loss::{RxLoss, TxLoss};
use linecard_netdev::Interface;
use linecard_netdev::packet_socket::Socket;
use linecard_pmd::control::{Link, PortControl, PortStats};
use linecard_pmd::error::Error;
use linecard_pmd::local::Identity;
use linecard_pmd::stats::PortCounters;

pub(super) struct Control {
    identity: Identity,
    interface: Arc<Interface>,
    counters: PortCounters<RxLoss, TxLoss>,
    /// Of each receive queue.
    drops: Vec<Arc<Drops>>,
    /// The socket that holds promiscuous mode; it goes with its queue.
    first: Weak<Socket>,
    paths: &'static str,
}

impl Control {
    pub(super) fn new(
        identity: Identity,
        interface: Arc<Interface>,
        counters: PortCounters<RxLoss, TxLoss>,
        drops: Vec<Arc<Drops>>,
        first: Weak<Socket>,
        paths: &'static str,
    ) -> Self {
        Self { identity, interface, counters, drops, first, paths }
    }
}

impl PortControl for Control {
    fn name(&self) -> &str {
        self.identity.name()
    }

    fn link(&self) -> Link {
        self.interface.link()
    }

    fn mac(&self) -> [u8; 6] {
        self.identity.mac()
    }

    fn set_mac(&self, mac: [u8; 6]) -> Result<(), Error> {
        let before = self.identity.mac();
        self.identity.set_mac(mac)?;
        self.interface.set_mac(mac).inspect_err(|_| {
            // Was accepted before.
            let _ = self.identity.set_mac(before);
        })
    }

    fn mtu(&self) -> u16 {
        self.identity.mtu()
    }

    fn promiscuous(&self) -> bool {
        self.identity.promiscuous()
    }

    /// Without promiscuous mode the interface passes the groups that somebody joined.
    fn allmulticast(&self) -> bool {
        self.promiscuous()
    }

    fn set_promiscuous(&self, on: bool) {
        if on == self.identity.promiscuous() {
            return;
        }
        let changed =
            self.first.upgrade().is_some_and(|socket| socket.promiscuous(self.interface.index(), on).is_ok());
        // The membership of an interface that is gone is gone with it.
        if changed || !self.interface.exists() {
            self.identity.set_promiscuous(on);
        }
    }

    fn stats(&self) -> PortStats {
        let dropped: u64 = self.drops.iter().map(|drops| drops.count()).sum();
        let stats = self.counters.stats();
        PortStats { imissed: stats.imissed + dropped, ..stats }
    }

    fn queue_stats(&self, queue: u16) -> PortStats {
        let dropped = self.drops.get(usize::from(queue)).map_or(0, |drops| drops.count());
        let stats = self.counters.queue_stats(queue);
        PortStats { imissed: stats.imissed + dropped, ..stats }
    }

    fn xstats(&self) -> Vec<(String, u64)> {
        let dropped: Vec<u64> = self.drops.iter().map(|drops| drops.count()).collect();
        let mut all = self.counters.xstats();
        if let Some((_, missed)) = all.iter_mut().find(|(name, _)| name == "rx_missed_errors") {
            *missed += dropped.iter().sum::<u64>();
        }
        all.extend(dropped.iter().enumerate().map(|(i, count)| (format!("rx_q{i}_ring_full"), *count)));
        all
    }

    fn reset_stats(&self) {
        self.counters.reset();
        self.drops.iter().for_each(|drops| drops.reset());
    }

    fn paths(&self) -> String {
        self.paths.to_owned()
    }
}
