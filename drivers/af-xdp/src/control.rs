//! The control interface of a started port: the state of the interface, and the counters of the driver and
//! the kernel.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::channel::Channel;
use super::promiscuous::Promiscuous;
use super::rx::RxLoss;
use super::socket::Drops;
use super::tx::TxLoss;
use linecard_netdev::Interface;
use linecard_pmd::control::{Link, PortControl, PortStats};
use linecard_pmd::error::Error;
use linecard_pmd::local::LocalControl;
use linecard_pmd::stats::{PortCounters, add_to};

pub(super) type Counters = PortCounters<RxLoss, TxLoss>;

/// The control state. It keeps no socket open, so that it can outlive a stopped port.
pub(super) struct Control {
    local: LocalControl<RxLoss, TxLoss>,
    interface: Arc<Interface>,
    channels: Vec<Weak<Channel>>,
    /// The kernel's counters at the last reset, by queue.
    baseline: Mutex<Vec<Drops>>,
    /// `None` without the permission for it, and after the port has stopped.
    promiscuous: Mutex<Option<Promiscuous>>,
    is_promiscuous: AtomicBool,
}

impl Control {
    pub(super) fn new(
        local: LocalControl<RxLoss, TxLoss>,
        interface: Arc<Interface>,
        channels: Vec<Weak<Channel>>,
        promiscuous: Option<Promiscuous>,
    ) -> Self {
        let control = Self {
            local,
            interface,
            baseline: Mutex::new(vec![Drops::default(); channels.len()]),
            channels,
            promiscuous: Mutex::new(promiscuous),
            is_promiscuous: AtomicBool::new(false),
        };
        // Like other software ports: all frames are received unless configured otherwise.
        control.set_promiscuous(true);
        control
    }

    /// Restores the interface when the port stops, even if this value is still in use.
    pub(super) fn end(&self) {
        self.promiscuous.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.is_promiscuous.store(false, Ordering::Relaxed);
    }

    /// Returns the kernel's drops since the last reset, by queue.
    fn drops(&self) -> Vec<Drops> {
        let baseline = self.baseline.lock().unwrap_or_else(PoisonError::into_inner);
        self.raw().iter().zip(&*baseline).map(|(now, then)| now.since(then)).collect()
    }

    fn raw(&self) -> Vec<Drops> {
        let now =
            |channel: &Weak<Channel>| channel.upgrade().map_or(Drops::default(), |channel| channel.drops());
        self.channels.iter().map(now).collect()
    }
}

/// Returns DPDK's total: no room in the ring, or no buffer.
fn missed(drops: &Drops) -> u64 {
    drops.rx_dropped + drops.rx_ring_full
}

impl PortControl for Control {
    fn inner(&self) -> &dyn PortControl {
        &self.local
    }

    fn link(&self) -> Link {
        self.interface.link()
    }

    fn mac(&self) -> [u8; 6] {
        self.interface.info().ok().and_then(|info| info.mac).unwrap_or_default()
    }

    fn set_mac(&self, mac: [u8; 6]) -> Result<(), Error> {
        self.interface.set_mac(mac)
    }

    fn promiscuous(&self) -> bool {
        self.is_promiscuous.load(Ordering::Relaxed)
    }

    /// Without promiscuous mode, the interface accepts the groups that were joined.
    fn allmulticast(&self) -> bool {
        self.promiscuous()
    }

    fn set_promiscuous(&self, on: bool) {
        let promiscuous = self.promiscuous.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(promiscuous) = &*promiscuous else { return };
        if self.is_promiscuous.swap(on, Ordering::Relaxed) != on
            && let Err(error) = promiscuous.set(on)
        {
            tracing::warn!(port = self.name(), %error, "promiscuous mode stays as it was");
            self.is_promiscuous.store(!on, Ordering::Relaxed);
        }
    }

    fn stats(&self) -> PortStats {
        let mut stats = self.local.stats();
        stats.imissed += self.drops().iter().map(missed).sum::<u64>();
        stats
    }

    fn queue_stats(&self, queue: u16) -> PortStats {
        let mut stats = self.local.queue_stats(queue);
        stats.imissed += self.drops().get(usize::from(queue)).map_or(0, missed);
        stats
    }

    fn xstats(&self) -> Vec<(String, u64)> {
        let (mut all, drops) = (self.local.xstats(), self.drops());
        add_to(&mut all, "rx_missed_errors", drops.iter().map(missed).sum());
        for (i, drops) in drops.iter().enumerate() {
            let named = [
                ("rx", "dropped", drops.rx_dropped),
                ("rx", "ring_full", drops.rx_ring_full),
                ("rx", "fill_ring_empty", drops.fill_ring_empty),
                ("rx", "invalid_descriptors", drops.rx_invalid),
                ("tx", "invalid_descriptors", drops.tx_invalid),
                ("tx", "ring_empty", drops.tx_ring_empty),
            ];
            all.extend(named.map(|(direction, name, n)| (format!("{direction}_q{i}_kernel_{name}"), n)));
        }
        all
    }

    fn reset_stats(&self) {
        let now = self.raw();
        *self.baseline.lock().unwrap_or_else(PoisonError::into_inner) = now;
        self.local.reset_stats();
    }
}
