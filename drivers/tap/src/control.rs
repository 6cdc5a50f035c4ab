//! The control side of a started tap port.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;

use super::rx::RxLoss;
use super::tx::TxLoss;
use linecard_netdev::Interface;
use linecard_pmd::control::{Link, PortControl, PortStats};
use linecard_pmd::error::Error;
use linecard_pmd::local::Identity;
use linecard_pmd::stats::PortCounters;

/// What went wrong for good on a queue: the interface was removed under it. Told once.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    port: String,
    gone: AtomicBool,
}

impl Trouble {
    pub(super) fn new(port: &str) -> Self {
        Self { port: port.into(), gone: AtomicBool::new(false) }
    }

    #[cold]
    pub(super) fn report(&self, error: Errno) {
        if !self.gone.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "{}: the interface is gone ({error}); stop and start the port to have it again",
                self.port
            );
        }
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }
}

/// Link and counters, the kernel's among them.
pub(super) struct TapControl {
    pub(super) identity: Identity,
    /// `None` for passed descriptors whose interface is in a namespace we are not in.
    pub(super) interface: Option<Arc<Interface>>,
    pub(super) counters: PortCounters<RxLoss, TxLoss>,
    pub(super) trouble: Arc<Trouble>,
    pub(super) features: String,
    pub(super) paths: String,
    /// The kernel's drops at start or at the last reset.
    pub(super) missed: Mutex<u64>,
}

impl TapControl {
    /// Packets the kernel had for us and dropped, since ever.
    fn dropped(&self) -> u64 {
        let facts = self.interface.as_ref().and_then(|interface| interface.facts().ok());
        facts.map_or(0, |facts| facts.stats.tx_dropped)
    }

    fn missed(&self) -> u64 {
        let before = *self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        self.dropped().saturating_sub(before)
    }

    /// Counts the kernel's drops from here on.
    pub(super) fn forget(&self) {
        *self.missed.lock().unwrap_or_else(PoisonError::into_inner) = self.dropped();
    }
}

impl PortControl for TapControl {
    fn name(&self) -> &str {
        self.identity.name()
    }

    fn link(&self) -> Link {
        match &self.interface {
            _ if self.trouble.is_gone() => Link::DOWN,
            Some(interface) => interface.link_only(),
            None => Link::UP,
        }
    }

    fn mac(&self) -> [u8; 6] {
        self.identity.mac()
    }

    fn set_mac(&self, mac: [u8; 6]) -> Result<(), Error> {
        let before = self.identity.mac();
        self.identity.set_mac(mac)?;
        let changed = match &self.interface {
            Some(interface) => interface.set_mac(mac),
            None => Err(Error::Unsupported {
                port: self.identity.name().into(),
                what: "changing the address of an interface in another namespace".into(),
                remedy: "change it there with 'ip link set address'".into(),
            }),
        };
        // The address was a good one before.
        changed.inspect_err(|_| self.identity.set_mac(before).unwrap_or_default())
    }

    fn mtu(&self) -> u16 {
        self.identity.mtu()
    }

    fn promiscuous(&self) -> bool {
        self.identity.promiscuous()
    }

    fn set_promiscuous(&self, on: bool) {
        self.identity.set_promiscuous(on);
    }

    fn stats(&self) -> PortStats {
        PortStats { imissed: self.missed(), ..self.counters.stats() }
    }

    fn queue_stats(&self, queue: u16) -> PortStats {
        self.counters.queue_stats(queue)
    }

    fn xstats(&self) -> Vec<(String, u64)> {
        let mut all = self.counters.xstats();
        if let Some((_, missed)) = all.iter_mut().find(|(name, _)| name == "rx_missed_errors") {
            *missed = self.missed();
        }
        all
    }

    fn reset_stats(&self) {
        self.counters.reset();
        self.forget();
    }

    fn features(&self) -> String {
        self.features.clone()
    }

    fn paths(&self) -> String {
        self.paths.clone()
    }
}
