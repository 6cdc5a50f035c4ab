//! The control side of a started `net_vhost` port.

use std::sync::Arc;

use linecard_pmd::local::LocalControl;
use linecard_pmd::{Link, PortControl};

use super::{RxLoss, TxLoss};
use crate::peer::Peer;

/// DPDK's nominal speed of a vhost port.
const SPEED_MBPS: u32 = 10_000;

/// What any thread may ask of a `net_vhost` port.
pub(super) struct VhostControl {
    pub(super) peer: Arc<Peer>,
    /// Its MTU counts until the frontend tells one.
    pub(super) local: LocalControl<RxLoss, TxLoss>,
}

impl PortControl for VhostControl {
    fn inner(&self) -> &dyn PortControl {
        &self.local
    }

    fn link(&self) -> Link {
        Link { up: self.peer.link_up(), speed_mbps: Some(SPEED_MBPS), full_duplex: true }
    }

    fn mtu(&self) -> u16 {
        self.peer.mtu().unwrap_or(self.local.mtu())
    }

    fn xstats(&self) -> Vec<(String, u64)> {
        let mut all = self.local.xstats();
        all.extend(self.peer.counters().map(|(name, value)| (name.to_owned(), value)));
        all
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
