//! The control interface of a started tap port.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;

use super::rx::RxLoss;
use super::tx::TxLoss;
use linecard_netdev::Interface;
use linecard_pmd::control::{Link, PortControl, PortStats};
use linecard_pmd::error::Error;
use linecard_pmd::local::LocalControl;
use linecard_pmd::stats::add_to;

/// A permanent failure of a queue: the interface was removed. Reported once.
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

/// The link and the counters, including the kernel's.
pub(super) struct TapControl {
    pub(super) local: LocalControl<RxLoss, TxLoss>,
    /// `None` for passed descriptors whose interface is in another network namespace.
    pub(super) interface: Option<Arc<Interface>>,
    pub(super) trouble: Arc<Trouble>,
    pub(super) features: String,
    /// The kernel's drops at the start or at the last reset.
    pub(super) missed: Mutex<u64>,
}

impl TapControl {
    /// Returns the packets for this port that the kernel has ever dropped.
    fn dropped(&self) -> u64 {
        let info = self.interface.as_ref().and_then(|interface| interface.info().ok());
        info.map_or(0, |info| info.stats.tx_dropped)
    }

    fn missed(&self) -> u64 {
        let before = *self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        self.dropped().saturating_sub(before)
    }

    /// Resets the count of the kernel's drops.
    pub(super) fn forget(&self) {
        *self.missed.lock().unwrap_or_else(PoisonError::into_inner) = self.dropped();
    }
}

impl PortControl for TapControl {
    fn inner(&self) -> &dyn PortControl {
        &self.local
    }

    fn link(&self) -> Link {
        match &self.interface {
            _ if self.trouble.is_gone() => Link::DOWN,
            Some(interface) => interface.link_only(),
            None => Link::UP,
        }
    }

    fn set_mac(&self, mac: [u8; 6]) -> Result<(), Error> {
        self.local.identity().change_mac(mac, || match &self.interface {
            Some(interface) => interface.set_mac(mac),
            None => Err(Error::Unsupported {
                port: self.name().into(),
                what: "changing the address of an interface in another namespace".into(),
                remedy: "change it there with 'ip link set address'".into(),
            }),
        })
    }

    fn stats(&self) -> PortStats {
        let stats = self.local.stats();
        PortStats { imissed: stats.imissed + self.missed(), ..stats }
    }

    fn xstats(&self) -> Vec<(String, u64)> {
        let mut all = self.local.xstats();
        add_to(&mut all, "rx_missed_errors", self.missed());
        all
    }

    fn reset_stats(&self) {
        self.local.reset_stats();
        self.forget();
    }

    fn features(&self) -> String {
        self.features.clone()
    }
}
