//! What any thread may ask of a started port.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use linecard_pmd::local::{Identity, LocalControl};
use linecard_pmd::stats::PortCounters;
use linecard_pmd::{Link, PortControl};
use linecard_virtio::Features;

use crate::args::Options;
use crate::losses::{RxLoss, TxLoss};
use crate::missing::Missing;
use crate::queue::PathName;

/// A port's state that its queues, its control thread and its users share.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) options: Options,
    pub(crate) rx_names: Vec<Arc<PathName>>,
    pub(crate) tx_names: Vec<Arc<PathName>>,
    /// What each transmit queue lost with a backend, for captures.
    pub(crate) missing: Vec<Arc<Missing>>,
    local: LocalControl<RxLoss, TxLoss>,
    /// There is a device.
    up: AtomicBool,
    /// The device's own link is up.
    link: AtomicBool,
    features: Mutex<String>,
}

impl State {
    pub(crate) fn new(options: Options, mac: [u8; 6], mtu: u16, rx_queues: u16, tx_queues: u16) -> Self {
        Self {
            local: LocalControl::new(
                Identity::new(&options.name, mac, mtu),
                PortCounters::new(rx_queues, tx_queues),
            ),
            options,
            rx_names: (0..rx_queues).map(|_| Arc::default()).collect(),
            tx_names: (0..tx_queues).map(|_| Arc::default()).collect(),
            missing: (0..tx_queues).map(|_| Arc::default()).collect(),
            up: AtomicBool::new(false),
            link: AtomicBool::new(true),
            features: Mutex::new(String::new()),
        }
    }

    /// The counters of all queues.
    pub(crate) fn counters(&self) -> &PortCounters<RxLoss, TxLoss> {
        self.local.counters()
    }

    /// Frames can pass from now on. `details` is what was agreed besides features.
    pub(crate) fn set_up(&self, features: Features, details: &str) {
        let join = if details.is_empty() { "" } else { "; " };
        *self.agreed() = format!("{features}{join}{details}");
        self.up.store(true, Ordering::Release);
    }

    /// What the device says about its own link.
    pub(crate) fn set_link(&self, up: bool) {
        if self.link.swap(up, Ordering::AcqRel) != up {
            tracing::info!("{}: the link of the device is {}", self.name(), if up { "up" } else { "down" });
        }
    }

    /// What was negotiated, in words.
    fn agreed(&self) -> MutexGuard<'_, String> {
        // A string is whole even if a writer panicked.
        self.features.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The backend is gone.
    pub(crate) fn set_down(&self) {
        self.up.store(false, Ordering::Release);
        self.agreed().clear();
    }
}

impl PortControl for State {
    fn inner(&self) -> &dyn PortControl {
        &self.local
    }

    fn link(&self) -> Link {
        let up = self.up.load(Ordering::Acquire) && self.link.load(Ordering::Acquire);
        Link { up, speed_mbps: self.options.speed, full_duplex: true }
    }

    fn features(&self) -> String {
        self.agreed().clone()
    }

    fn paths(&self) -> String {
        let rx = self.rx_names.first().map_or("", |name| name.now());
        let tx = self.tx_names.first().map_or("", |name| name.now());
        format!("rx {rx}, tx {tx}")
    }
}
