//! The control side of a started `net_vhost` port.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

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
    pub(super) mac: AtomicU64,
    pub(super) mtu: u16,
    pub(super) promiscuous: AtomicBool,
}

/// An address as the low bytes of a number, to be kept in an atomic.
pub(super) fn pack(mac: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

impl PortControl for VhostControl {
    fn name(&self) -> &str {
        self.peer.name()
    }

    fn link(&self) -> Link {
        Link { up: self.peer.link_up(), speed_mbps: Some(SPEED_MBPS), full_duplex: true }
    }

    fn mac(&self) -> [u8; 6] {
        let [a, b, c, d, e, f, ..] = self.mac.load(Relaxed).to_le_bytes();
        [a, b, c, d, e, f]
    }

    fn set_mac(&self, mac: [u8; 6]) -> Result<(), Error> {
        let [first, ..] = mac;
        if first & 1 != 0 || mac == [0; 6] {
            return Err(Error::Unsupported {
                port: self.name().into(),
                what: "a multicast or zero address".into(),
                remedy: "give a unicast address".into(),
            });
        }
        self.mac.store(pack(mac), Relaxed);
        Ok(())
    }

    fn mtu(&self) -> u16 {
        self.peer.mtu().unwrap_or(self.mtu)
    }

    fn promiscuous(&self) -> bool {
        self.promiscuous.load(Relaxed)
    }

    fn set_promiscuous(&self, on: bool) {
        self.promiscuous.store(on, Relaxed);
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
