//! The two halves of a queue pair, as their polling threads use them.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use linecard_eal::gate::Poller;
use linecard_eal::wake::{Wake, fence};
use linecard_mempool::{Burst, Packet, Pool};
use linecard_net::arp::rarp_announcement;
use linecard_pmd::direct::{Frame, Sink};
use linecard_pmd::offload::{RxOffloads, SoftTx, TxOffloads, finish_received};
use linecard_pmd::stats::QueueStats;
use linecard_pmd::{Armed, RxQueue, TxQueue};
use linecard_virtio::Features;

use super::{RxLoss, TxLoss};
use crate::peer::Peer;
use crate::slot::VringSlot;

/// The result of [`RxQueue::path`] while no ring is started.
const NO_RING: &str = "no ring";

/// Receives a frontend's packets on one queue pair. Created by [`crate::Backend::receive_queue`].
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// use linecard_mempool::{Burst, Pool, PoolConfig};
/// use linecard_pmd::RxQueue;
/// use linecard_vhost_user::{Backend, BackendConfig, Control, Mode};
///
/// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
/// let pool = Pool::new(&domain, PoolConfig::default().packets(256))?;
/// let path = std::env::temp_dir().join(format!("receive-doc-{}", std::process::id()));
/// let backend = Backend::new(&Control::new(), BackendConfig::new("demo", path, Mode::Listen))?;
/// let mut queue = backend.receive_queue(0, &pool, Default::default())?;
/// let mut packets = Burst::new();
/// assert_eq!(queue.rx_burst(&mut packets), 0); // nobody is connected
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Receive {
    gate: Poller<VringSlot>,
    pool: Pool,
    stats: Arc<QueueStats<RxLoss>>,
    peer: Arc<Peer>,
    ring: usize,
    /// The application does not accept unfinished checksums.
    finish: bool,
}

impl Receive {
    pub(crate) fn new(
        gate: Poller<VringSlot>,
        pool: Pool,
        stats: Arc<QueueStats<RxLoss>>,
        peer: Arc<Peer>,
        ring: usize,
    ) -> Self {
        Self { gate, pool, stats, peer, ring, finish: true }
    }

    /// Leaves checksums unfinished, as the frontend sends them, if `offloads` requests any; otherwise they
    /// are finished in software. Large packets are delivered as they are, if the backend offers them.
    #[must_use]
    pub fn with_offloads(self, offloads: RxOffloads) -> Self {
        let asked = RxOffloads::CHECKSUM.union(RxOffloads::TCP_LRO);
        Self { finish: !offloads.intersects(asked), ..self }
    }

    fn wake(&self) -> Option<&Wake> {
        self.peer.relay.wake(self.ring / 2).map(|wake| &**wake)
    }
}

impl RxQueue for Receive {
    fn rx_burst(&mut self, packets: &mut Burst) -> usize {
        let Some(mut slot) = self.gate.enter() else { return 0 };
        let announced = match slot.announce.take() {
            Some(mac) => announce(mac, packets, &self.pool, &self.stats),
            None => 0,
        };
        let had = packets.len();
        let received = slot.receive(packets, &self.pool, &self.stats);
        if self.finish && self.peer.features().contains(Features::NET_CSUM) {
            finish_received(packets.get_mut(had..).unwrap_or_default());
        }
        announced + received
    }

    /// Packets whose checksums must be finished first are delivered as packets, not as frames.
    fn rx_direct(&mut self, packets: &mut Burst, sink: &mut Sink<'_>) -> usize {
        if self.finish && self.peer.features().contains(Features::NET_CSUM) {
            return self.rx_burst(packets);
        }
        let Some(mut slot) = self.gate.enter() else { return 0 };
        if let Some(mac) = slot.announce.take() {
            return announce(mac, packets, &self.pool, &self.stats);
        }
        slot.receive_direct(packets, &self.pool, &self.stats, sink)
    }

    fn path(&self) -> &'static str {
        self.peer.path(self.ring).unwrap_or(NO_RING)
    }

    fn arm(&mut self) -> Armed {
        if self.begin_arm() {
            fence();
        }
        self.finish_arm()
    }

    fn prepare_arm(&mut self) {
        // `begin_arm` fails as well if this did.
        let _ = self.peer.relay.prepare(self.ring / 2);
    }

    fn begin_arm(&mut self) -> bool {
        self.peer.relay.request(self.ring / 2)
    }

    fn finish_arm(&mut self) -> Armed {
        if !self.peer.relay.is_able(self.ring / 2) {
            return Armed::Unable;
        }
        // The control thread is inside the gate and wakes armed pollers when it leaves.
        let Some(mut slot) = self.gate.enter() else { return Armed::Asleep };
        slot.arm()
    }

    fn disarm(&mut self) {
        self.wake().into_iter().for_each(|wake| wake.disarm());
        let Some(mut slot) = self.gate.enter() else { return };
        slot.disarm();
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        self.wake()?.event()
    }
}

/// Sends to a frontend on one queue pair. Created by [`crate::Backend::transmit_queue`].
///
/// ```
/// use linecard_mempool::Burst;
/// use linecard_pmd::TxQueue;
/// use linecard_vhost_user::{Backend, BackendConfig, Control, Mode};
///
/// let path = std::env::temp_dir().join(format!("transmit-doc-{}", std::process::id()));
/// let backend = Backend::new(&Control::new(), BackendConfig::new("demo", path, Mode::Listen))?;
/// let mut queue = backend.transmit_queue(0, Default::default())?;
/// assert_eq!(queue.tx_burst(&mut Burst::new()), 0);
/// # Ok::<(), linecard_vhost_user::Error>(())
/// ```
pub struct Transmit {
    gate: Poller<VringSlot>,
    stats: Arc<QueueStats<TxLoss>>,
    peer: Arc<Peer>,
    ring: usize,
    soft: Option<SoftTx>,
}

impl Transmit {
    pub(crate) fn new(
        gate: Poller<VringSlot>,
        stats: Arc<QueueStats<TxLoss>>,
        peer: Arc<Peer>,
        ring: usize,
    ) -> Self {
        Self { gate, stats, peer, ring, soft: None }
    }

    /// Performs `offloads` in software if the frontend does not accept them. Buffers for segments come from
    /// `pool`.
    ///
    /// Without this, a packet that requests an offload that the frontend does not accept is dropped, or sent
    /// unchanged to a frontend that accepts no offloads at all.
    #[must_use]
    pub fn with_offloads(self, offloads: TxOffloads, pool: &Pool) -> Self {
        let soft = offloads
            .intersects(TxOffloads::WORK)
            .then(|| SoftTx::counting(pool.clone(), Arc::clone(&self.stats)));
        Self { soft, ..self }
    }
}

impl TxQueue for Transmit {
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        let Some(mut slot) = self.gate.enter() else { return 0 };
        let Some(soft) = &mut self.soft else { return slot.send(packets, &self.stats) };
        let Some(accepted) = slot.accepted() else { return 0 };
        soft.burst(packets, accepted, |ready| slot.send(ready, &self.stats))
    }

    fn tx_direct(&mut self, frames: &[Frame<'_>]) -> Option<usize> {
        let Some(mut slot) = self.gate.enter() else { return Some(0) };
        // Waiting segments are sent before any later frame.
        if let Some(soft) = &mut self.soft
            && !soft.flush(|ready| slot.send(ready, &self.stats))
        {
            return Some(0);
        }
        Some(slot.send_direct(frames, &self.stats))
    }

    fn reclaim(&mut self) {
        let translated = self.peer.features().contains(Features::ACCESS_PLATFORM);
        if self.soft.is_none() && !translated {
            return;
        }
        let Some(mut slot) = self.gate.enter() else { return };
        if let Some(soft) = &mut self.soft {
            soft.flush(|ready| slot.send(ready, &self.stats));
        }
        if translated {
            slot.look_ahead();
        }
    }

    fn path(&self) -> &'static str {
        self.peer.path(self.ring).unwrap_or(NO_RING)
    }
}

/// Adds a RARP request for `mac` from `mac`, as if a frontend that migrated to this host had broadcast it, so
/// that switches learn its new location.
#[cold]
fn announce(mac: [u8; 6], packets: &mut Burst, pool: &Pool, stats: &QueueStats<RxLoss>) -> usize {
    let frame = rarp_announcement(mac);
    let Some(mut packet) = Some(pool).filter(|_| packets.room() > 0).and_then(Pool::get) else { return 0 };
    let Some(room) = packet.append(frame.len()) else { return 0 };
    room.copy_from_slice(&frame);
    stats.moved(1, frame.len() as u64);
    push(packets, packet)
}

fn push(packets: &mut Burst, packet: Packet) -> usize {
    usize::from(packets.push(packet).is_ok())
}
