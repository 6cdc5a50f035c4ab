//! The control side of a started port.

use std::sync::{Arc, Weak};

use super::drops::Drops;
use super::loss::{RxLoss, TxLoss};
use linecard_netdev::Interface;
use linecard_netdev::packet_socket::Socket;
use linecard_pmd::control::{Link, PortControl, PortStats};
use linecard_pmd::error::Error;
use linecard_pmd::local::LocalControl;
use linecard_pmd::stats::add_to;

pub(super) struct Control {
    local: LocalControl<RxLoss, TxLoss>,
    interface: Arc<Interface>,
    /// The drop counters of each receive queue.
    drops: Vec<Arc<Drops>>,
    /// The socket that holds promiscuous mode. It is closed with its queue.
    first: Weak<Socket>,
}

impl Control {
    pub(super) fn new(
        local: LocalControl<RxLoss, TxLoss>,
        interface: Arc<Interface>,
        drops: Vec<Arc<Drops>>,
        first: Weak<Socket>,
    ) -> Self {
        Self { local, interface, drops, first }
    }
}

impl PortControl for Control {
    fn inner(&self) -> &dyn PortControl {
        &self.local
    }

    fn link(&self) -> Link {
        self.interface.link()
    }

    fn set_mac(&self, mac: [u8; 6]) -> Result<(), Error> {
        self.local.identity().change_mac(mac, || self.interface.set_mac(mac))
    }

    /// Without promiscuous mode, the interface accepts the groups that were joined.
    fn allmulticast(&self) -> bool {
        self.promiscuous()
    }

    fn set_promiscuous(&self, on: bool) {
        if on == self.promiscuous() {
            return;
        }
        let changed =
            self.first.upgrade().is_some_and(|socket| socket.promiscuous(self.interface.index(), on).is_ok());
        // When an interface is removed, its promiscuous membership ends with it.
        if changed || !self.interface.exists() {
            self.local.set_promiscuous(on);
        }
    }

    fn stats(&self) -> PortStats {
        let dropped: u64 = self.drops.iter().map(|drops| drops.count()).sum();
        let stats = self.local.stats();
        PortStats { imissed: stats.imissed + dropped, ..stats }
    }

    fn queue_stats(&self, queue: u16) -> PortStats {
        let dropped = self.drops.get(usize::from(queue)).map_or(0, |drops| drops.count());
        let stats = self.local.queue_stats(queue);
        PortStats { imissed: stats.imissed + dropped, ..stats }
    }

    fn xstats(&self) -> Vec<(String, u64)> {
        let dropped: Vec<u64> = self.drops.iter().map(|drops| drops.count()).collect();
        let mut all = self.local.xstats();
        add_to(&mut all, "rx_missed_errors", dropped.iter().sum());
        all.extend(dropped.iter().enumerate().map(|(i, count)| (format!("rx_q{i}_ring_full"), *count)));
        all
    }

    fn reset_stats(&self) {
        self.local.reset_stats();
        self.drops.iter().for_each(|drops| drops.reset());
    }
}
