//! What any thread may ask of a started port.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use linecard_pmd::filter::RxFilter;
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
    /// Why there is no device, since it is gone.
    reason: Mutex<String>,
    /// What is received; the device's, so that it outlives a stop.
    filter: Arc<RxFilter>,
}

impl State {
    pub(crate) fn new(
        options: Options,
        mac: [u8; 6],
        mtu: u16,
        (rx_queues, tx_queues): (u16, u16),
        filter: Arc<RxFilter>,
    ) -> Self {
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
            reason: Mutex::new(String::new()),
            filter,
        }
    }

    /// The counters of all queues.
    pub(crate) fn counters(&self) -> &PortCounters<RxLoss, TxLoss> {
        self.local.counters()
    }

    /// What is received.
    pub(crate) fn filter(&self) -> &Arc<RxFilter> {
        &self.filter
    }

    /// Frames can pass from now on. `details` is what was agreed besides features.
    pub(crate) fn set_up(&self, features: Features, details: &str) {
        let join = if details.is_empty() { "" } else { "; " };
        *self.agreed() = format!("{features}{join}{details}");
        self.set_reason("");
        self.up.store(true, Ordering::Release);
    }

    /// Why there is no device, in words.
    pub(crate) fn set_reason(&self, reason: &str) {
        reason.clone_into(&mut self.reason.lock().unwrap_or_else(PoisonError::into_inner));
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

    fn set_mac(&self, mac: [u8; 6]) -> Result<(), linecard_pmd::Error> {
        self.local.set_mac(mac)?;
        self.filter.set_mac(mac);
        Ok(())
    }

    fn promiscuous(&self) -> bool {
        self.filter.rules().promiscuous
    }

    fn set_promiscuous(&self, on: bool) {
        self.filter.set_promiscuous(on);
    }

    fn allmulticast(&self) -> bool {
        self.filter.rules().allmulticast
    }

    fn rx_filter(&self) -> Option<&RxFilter> {
        Some(&self.filter)
    }

    fn features(&self) -> String {
        self.agreed().clone()
    }

    fn paths(&self) -> String {
        let rx = self.rx_names.first().map_or("", |name| name.now());
        let tx = self.tx_names.first().map_or("", |name| name.now());
        let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        let separator = if reason.is_empty() { "" } else { "; " };
        format!("rx {rx}, tx {tx}{separator}{reason}")
    }
}
