//! What any thread may ask of a started port.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use linecard_pmd::local::Identity;
use linecard_pmd::stats::PortCounters;
use linecard_pmd::{Error, Link, PortControl, PortStats};
use linecard_virtio::Features;

use crate::args::Options;
use crate::losses::{RxLoss, TxLoss};
use crate::missing::Missing;
use crate::queue::PathName;

/// A port's state that its queues, its control thread and its users share.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) options: Options,
    pub(crate) counters: PortCounters<RxLoss, TxLoss>,
    pub(crate) rx_names: Vec<Arc<PathName>>,
    pub(crate) tx_names: Vec<Arc<PathName>>,
    /// What each transmit queue lost with a backend, for captures.
    pub(crate) missing: Vec<Arc<Missing>>,
    identity: Identity,
    up: AtomicBool,
    features: Mutex<String>,
}

impl State {
    pub(crate) fn new(options: Options, mac: [u8; 6], mtu: u16, rx_queues: u16, tx_queues: u16) -> Self {
        Self {
            identity: Identity::new(&options.name, mac, mtu),
            options,
            counters: PortCounters::new(rx_queues, tx_queues),
            rx_names: (0..rx_queues).map(|_| Arc::default()).collect(),
            tx_names: (0..tx_queues).map(|_| Arc::default()).collect(),
            missing: (0..tx_queues).map(|_| Arc::default()).collect(),
            up: AtomicBool::new(false),
            features: Mutex::new(String::new()),
        }
    }

    /// Frames can pass from now on. `details` is what was agreed besides features.
    pub(crate) fn set_up(&self, features: Features, details: &str) {
        let join = if details.is_empty() { "" } else { "; " };
        *self.agreed() = format!("{features}{join}{details}");
        self.up.store(true, Ordering::Release);
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
    fn name(&self) -> &str {
        self.identity.name()
    }

    fn link(&self) -> Link {
        Link { up: self.up.load(Ordering::Acquire), speed_mbps: self.options.speed, full_duplex: true }
    }

    fn mac(&self) -> [u8; 6] {
        self.identity.mac()
    }

    fn set_mac(&self, mac: [u8; 6]) -> Result<(), Error> {
        self.identity.set_mac(mac)
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
        self.counters.stats()
    }

    fn queue_stats(&self, queue: u16) -> PortStats {
        self.counters.queue_stats(queue)
    }

    fn xstats(&self) -> Vec<(String, u64)> {
        self.counters.xstats()
    }

    fn reset_stats(&self) {
        self.counters.reset();
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
