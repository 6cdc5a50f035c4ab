//! The queues that an application polls. Each is a gate, behind which the control thread puts the present
//! data path.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, PoisonError, RwLock};

use linecard_eal::gate::Poller;
use linecard_eal::wake::{Relay, fence};
use linecard_mempool::Burst;
use linecard_pmd::filter::FilterView;
use linecard_pmd::offload::SoftTx;
use linecard_pmd::stats::{ClassCounters, Inspections, PacketClass, QueueStats};
use linecard_pmd::{Armed, RxQueue, TxQueue};

use crate::losses::{RxLoss, TxLoss};
use crate::missing::Missing;
use crate::path::{Came, RxPath, TxPath};

/// The name of a queue's data path while it has none.
pub(crate) const NO_PATH: &str = "none (no backend)";

/// Name of a queue's present path, for logs.
#[derive(Debug)]
pub(crate) struct PathName(RwLock<&'static str>);

impl Default for PathName {
    fn default() -> Self {
        Self(RwLock::new(NO_PATH))
    }
}

impl PathName {
    pub(crate) fn now(&self) -> &'static str {
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, name: &'static str) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = name;
    }
}

/// The receive queue that the application polls.
pub(crate) struct Receive {
    pub(crate) gate: Poller<Option<Box<dyn RxPath>>>,
    pub(crate) name: Arc<PathName>,
    /// Wakes the thread that sleeps on this queue; `index` is the queue's number in it.
    pub(crate) relay: Arc<Relay>,
    pub(crate) index: usize,
    /// The receive filter, as seen by this queue.
    pub(crate) filter: FilterView,
    pub(crate) stats: Arc<QueueStats<RxLoss>>,
    pub(crate) classes: Arc<ClassCounters>,
}

impl Receive {
    /// Filters and counts the new packets at the end of the burst, as far as either is requested. Returns
    /// what remains of them.
    #[inline(never)]
    fn inspected(&mut self, packets: &mut Burst, came: Came) -> Came {
        let why = self.stats.inspections();
        let came = if why.contains(Inspections::FILTER) { self.filtered(packets, came) } else { came };
        if why.contains(Inspections::CLASSES) {
            let first = packets.len().saturating_sub(came.packets);
            self.classes.count(packets.get(first..).unwrap_or_default());
        }
        came
    }

    /// Drops the packets that the port's filter rejects.
    fn filtered(&mut self, packets: &mut Burst, mut came: Came) -> Came {
        let (stats, before) = (&self.stats, packets.len());
        self.filter.apply(packets, before.saturating_sub(came.packets), |why, packet| {
            came.packets = came.packets.saturating_sub(1);
            came.bytes = came.bytes.saturating_sub(packet.len() as u64);
            stats.dropped(why.into(), packet);
        });
        came
    }
}

impl RxQueue for Receive {
    fn rx_burst(&mut self, packets: &mut Burst) -> usize {
        let Some(mut inside) = self.gate.enter() else { return 0 };
        let mut came = inside.as_mut().map_or(Came::default(), |path| path.burst(packets));
        drop(inside);
        if !self.stats.inspections().is_empty() {
            came = self.inspected(packets, came);
        }
        self.stats.moved(came.packets, came.bytes);
        came.packets
    }

    fn path(&self) -> &'static str {
        self.name.now()
    }

    fn arm(&mut self) -> Armed {
        if self.begin_arm() {
            fence();
        }
        self.finish_arm()
    }

    fn prepare_arm(&mut self) {
        // `begin_arm` fails as well if this did.
        let _ = self.relay.prepare(self.index);
    }

    fn begin_arm(&mut self) -> bool {
        self.relay.request(self.index)
    }

    fn finish_arm(&mut self) -> Armed {
        if !self.relay.is_able(self.index) {
            return Armed::Unable;
        }
        // Without a backend, or while the control thread holds the gate, which then wakes the sleeper when it
        // is done.
        let Some(mut inside) = self.gate.enter() else { return Armed::Asleep };
        inside.as_mut().map_or(Armed::Asleep, |path| path.arm())
    }

    fn disarm(&mut self) {
        let wake = self.relay.wake(self.index);
        wake.into_iter().for_each(|wake| wake.disarm());
        let Some(mut inside) = self.gate.enter() else { return };
        inside.iter_mut().for_each(|path| path.disarm());
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        self.relay.wake(self.index)?.event()
    }
}

/// The transmit queue that the application polls.
pub(crate) struct Transmit {
    pub(crate) gate: Poller<Option<Box<dyn TxPath>>>,
    pub(crate) name: Arc<PathName>,
    /// Software offloads, if the port is configured with transmit offloads.
    pub(crate) soft: Option<SoftTx>,
    pub(crate) missing: Arc<Missing>,
    pub(crate) stats: Arc<QueueStats<TxLoss>>,
    pub(crate) classes: Arc<ClassCounters>,
}

impl Transmit {
    /// Sends a burst and counts the sent packets by class.
    #[inline(never)]
    fn counted(&mut self, packets: &mut Burst) -> usize {
        let classes: Vec<_> =
            packets.iter().map(|packet| PacketClass::of(packet.len(), packet.data())).collect();
        let sent = self.send(packets);
        classes.iter().take(sent).for_each(|class| self.classes.add(*class));
        sent
    }

    #[inline(always)]
    fn send(&mut self, packets: &mut Burst) -> usize {
        let Some(mut inside) = self.gate.enter() else { return 0 };
        let Some(path) = inside.as_mut() else { return 0 };
        match &mut self.soft {
            None => path.burst(packets),
            Some(soft) => soft.burst(packets, path.accepted(), |ready| path.burst(ready)),
        }
    }
}

impl TxQueue for Transmit {
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        if self.stats.inspections().contains(Inspections::CLASSES) {
            self.counted(packets)
        } else {
            self.send(packets)
        }
    }

    fn reclaim(&mut self) {
        let Some(mut inside) = self.gate.enter() else { return };
        let Some(path) = inside.as_mut() else { return };
        path.reclaim();
        if let Some(soft) = &mut self.soft {
            soft.flush(|ready| path.burst(ready));
        }
    }

    fn watched(&mut self, on: bool) {
        self.missing.tell(on);
    }

    fn path(&self) -> &'static str {
        self.name.now()
    }
}
