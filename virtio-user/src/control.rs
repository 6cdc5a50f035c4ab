//! What any thread may ask of a started port.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use linecard_pmd::stats::PortCounters;
use linecard_pmd::{Error, Link, PortControl, PortStats};
use linecard_virtio::Features;
use linecard_wire::ProtocolFeatures;

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
    mac: Mutex<[u8; 6]>,
    mtu: u16,
    up: AtomicBool,
    promiscuous: AtomicBool,
    features: Mutex<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Plain values are whole even if a writer panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    pub(crate) fn new(options: Options, mac: [u8; 6], mtu: u16, rx_queues: u16, tx_queues: u16) -> Self {
        Self {
            options,
            counters: PortCounters::new(rx_queues, tx_queues),
            rx_names: (0..rx_queues).map(|_| Arc::default()).collect(),
            tx_names: (0..tx_queues).map(|_| Arc::default()).collect(),
            missing: (0..tx_queues).map(|_| Arc::default()).collect(),
            mac: Mutex::new(mac),
            mtu,
            up: AtomicBool::new(false),
            promiscuous: AtomicBool::new(true),
            features: Mutex::new(String::new()),
        }
    }

    /// Frames can pass from now on.
    pub(crate) fn set_up(&self, features: Features, protocol: ProtocolFeatures) {
        let protocol: Vec<&str> = protocol.iter_names().map(|(name, _)| name).collect();
        let protocol = if protocol.is_empty() { "none".to_owned() } else { protocol.join(" ") };
        *lock(&self.features) = format!("{features}; vhost-user protocol features: {protocol}");
        self.up.store(true, Ordering::Release);
    }

    /// The backend is gone.
    pub(crate) fn set_down(&self) {
        self.up.store(false, Ordering::Release);
        lock(&self.features).clear();
    }
}

impl PortControl for State {
    fn name(&self) -> &str {
        &self.options.name
    }

    fn link(&self) -> Link {
        Link { up: self.up.load(Ordering::Acquire), speed_mbps: self.options.speed, full_duplex: true }
    }

    fn mac(&self) -> [u8; 6] {
        *lock(&self.mac)
    }

    fn set_mac(&self, mac: [u8; 6]) -> Result<(), Error> {
        if mac[0] & 1 != 0 || mac == [0; 6] {
            return Err(Error::Unsupported {
                port: self.options.name.clone(),
                what: "a multicast or zero address".into(),
                remedy: "give a unicast one".into(),
            });
        }
        *lock(&self.mac) = mac;
        Ok(())
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn promiscuous(&self) -> bool {
        self.promiscuous.load(Ordering::Relaxed)
    }

    fn set_promiscuous(&self, on: bool) {
        self.promiscuous.store(on, Ordering::Relaxed);
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
        lock(&self.features).clone()
    }

    fn paths(&self) -> String {
        let rx = self.rx_names.first().map_or("", |name| name.now());
        let tx = self.tx_names.first().map_or("", |name| name.now());
        format!("rx {rx}, tx {tx}")
    }
}
