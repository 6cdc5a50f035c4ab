//! The control side of a started `net_vhost` port.

use std::sync::Arc;

use linecard_pmd::local::Identity;
use linecard_pmd::stats::PortCounters;
use linecard_pmd::{Error, Link, PortControl, PortStats};

use super::{RxLoss, TxLoss};
use crate::peer::Peer;

/// DPDK's nominal speed of a vhost port.
const SPEED_MBPS: u32 = 10_000;

/// What any thread may ask of a `net_vhost` port.
pub(super) struct VhostControl {
    pub(super) peer: Arc<Peer>,
    pub(super) counters: PortCounters<RxLoss, TxLoss>,
    /// Its MTU counts until the frontend tells one.
    pub(super) identity: Identity,
}

impl PortControl for VhostControl {
    fn name(&self) -> &str {
        self.peer.name()
    }

    fn link(&self) -> Link {
        Link { up: self.peer.link_up(), speed_mbps: Some(SPEED_MBPS), full_duplex: true }
    }

    fn mac(&self) -> [u8; 6] {
        self.identity.mac()
    }

    fn set_mac(&self, mac: [u8; 6]) -> Result<(), Error> {
        self.identity.set_mac(mac)
    }

    fn mtu(&self) -> u16 {
        self.peer.mtu().unwrap_or(self.identity.mtu())
    }

    fn promiscuous(&self) -> bool {
        self.identity.promiscuous()
    }

    fn set_promiscuous(&self, on: bool) {
        self.identity.set_promiscuous(on);
    }

    fn stats(&self) -> PortStats {
        self.counters.stats()
    }

    fn queue_stats(&self, queue: u16) -> PortStats {
        self.counters.queue_stats(queue)
    }

    fn xstats(&self) -> Vec<(String, u64)> {
        let mut all = self.counters.xstats();
        all.extend(self.peer.counters().map(|(name, value)| (name.to_owned(), value)));
        all
    }

    fn reset_stats(&self) {
        self.counters.reset();
    }

    fn features(&self) -> String {
        self.peer.features().to_string()
    }

    fn paths(&self) -> String {
        // Ring 1 is the first that we receive from, ring 0 the first that we send to.
        let path = |ring| self.peer.path(ring).unwrap_or("no ring");
        format!("rx {}, tx {}", path(1), path(0))
    }
}
