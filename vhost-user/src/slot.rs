//! The value that a polled queue and the control thread share through a gate: one running ring, or none.

use std::sync::Arc;

use linecard_mempool::{Burst, Pool};
use linecard_pmd::Armed;
use linecard_pmd::direct::{Frame, Sink};
use linecard_pmd::offload::AcceptedOffloads;
use linecard_pmd::stats::QueueStats;
use linecard_virtio::PeerFault;

use crate::datapath::{DequeuePath, Done, EnqueuePath};
use crate::event::Event;
use crate::peer::{Peer, Stop};
use crate::port::{RxLoss, TxLoss};
use crate::sigbus::Alarm;

/// One direction of one queue.
pub(crate) enum Path {
    /// The driver's transmit queue, from which the backend receives.
    Dequeue(Box<dyn DequeuePath>),
    /// The driver's receive queue, to which the backend sends.
    Enqueue(Box<dyn EnqueuePath>),
}

impl Path {
    /// The ring's position, in the format of `GET_VRING_BASE`.
    pub(crate) fn base(&self) -> u32 {
        match self {
            Self::Dequeue(path) => path.base(),
            Self::Enqueue(path) => path.base(),
        }
    }

    /// The name of the negotiated data path, for logs.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Dequeue(path) => path.name(),
            Self::Enqueue(path) => path.name(),
        }
    }
}

/// How a running ring treats packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing moves: the driver is not ready, or the user has stopped the queue.
    Parked,
    /// The ring is disabled: packets from the driver are dropped, and none are sent to it (vhost-user, "Ring
    /// states").
    Discard,
    /// Packets flow.
    Deliver,
}

/// A started ring.
pub(crate) struct Ring {
    pub(crate) path: Path,
    pub(crate) mode: Mode,
    pub(crate) call: Option<Arc<Event>>,
    pub(crate) error: Option<Arc<Event>>,
    pub(crate) alarm: Arc<Alarm>,
    /// The driver has an eventfd to kick this ring.
    pub(crate) kicks: bool,
    /// The peer violated the protocol on this ring: nothing moves until the ring is started again.
    pub(crate) faulted: bool,
}

/// The place of one queue's ring.
pub(crate) struct VringSlot {
    /// The ring, while it is started.
    pub(crate) ring: Option<Ring>,
    /// The MAC address to announce for a peer that migrated to this host (`SEND_RARP`).
    pub(crate) announce: Option<[u8; 6]>,
    /// The peer to which faults are reported.
    pub(crate) peer: Arc<Peer>,
}

impl VringSlot {
    pub(crate) fn new(peer: Arc<Peer>) -> Self {
        Self { ring: None, announce: None, peer }
    }

    /// Receives into `out`.
    #[inline]
    pub(crate) fn receive(&mut self, out: &mut Burst, pool: &Pool, stats: &QueueStats<RxLoss>) -> usize {
        self.receive_by(stats, |path| path.burst(out, pool, stats))
    }

    /// Receives into `out` the frames that `sink` does not consume.
    #[inline]
    pub(crate) fn receive_direct(
        &mut self,
        out: &mut Burst,
        pool: &Pool,
        stats: &QueueStats<RxLoss>,
        sink: &mut Sink<'_>,
    ) -> usize {
        self.receive_by(stats, |path| path.direct(out, pool, stats, sink))
    }

    #[inline(always)]
    fn receive_by(
        &mut self,
        stats: &QueueStats<RxLoss>,
        burst: impl FnOnce(&mut dyn DequeuePath) -> Result<Done, PeerFault>,
    ) -> usize {
        let Some(ring) = &mut self.ring else { return 0 };
        let Path::Dequeue(path) = &mut ring.path else { return 0 };
        if ring.faulted || ring.alarm.raised() {
            return self.quarantine();
        }
        let result = match ring.mode {
            Mode::Deliver => burst(&mut **path),
            Mode::Discard => path.discard(stats),
            Mode::Parked => return 0,
        };
        match result {
            Ok(done) => ring.finish(&self.peer, done),
            Err(fault) => self.fault(fault),
        }
    }

    /// Sends from the front of `packets`.
    #[inline]
    pub(crate) fn send(&mut self, packets: &mut Burst, stats: &QueueStats<TxLoss>) -> usize {
        self.send_by(|path| path.burst(packets, stats))
    }

    /// Sends from the front of `frames`.
    #[inline]
    pub(crate) fn send_direct(&mut self, frames: &[Frame<'_>], stats: &QueueStats<TxLoss>) -> usize {
        self.send_by(|path| path.direct(frames, stats))
    }

    #[inline(always)]
    fn send_by(&mut self, burst: impl FnOnce(&mut dyn EnqueuePath) -> Result<Done, PeerFault>) -> usize {
        let Some(ring) = &mut self.ring else { return 0 };
        let Path::Enqueue(path) = &mut ring.path else { return 0 };
        if ring.faulted || ring.alarm.raised() {
            return self.quarantine();
        }
        if ring.mode != Mode::Deliver {
            return 0;
        }
        match burst(&mut **path) {
            Ok(done) => ring.finish(&self.peer, done),
            Err(fault) => self.fault(fault),
        }
    }

    /// Packets that the driver has made available and that have not been received yet.
    pub(crate) fn waiting(&mut self) -> u16 {
        match &mut self.ring {
            Some(Ring { path: Path::Dequeue(path), faulted: false, alarm, .. }) if !alarm.raised() => {
                path.waiting()
            }
            _ => 0,
        }
    }

    /// Requests the translations that the next packets will need.
    pub(crate) fn look_ahead(&mut self) {
        if let Some(Ring { path: Path::Enqueue(path), faulted: false, alarm, .. }) = &mut self.ring
            && !alarm.raised()
        {
            path.look_ahead();
        }
    }

    /// Requests kicks from the driver, before the poller of the ring sleeps.
    pub(crate) fn arm(&mut self) -> Armed {
        if self.announce.is_some() {
            return Armed::Ready;
        }
        // Without a ring nothing can arrive until the control thread adds one, and it wakes sleeping pollers
        // then.
        let Some(ring) = &mut self.ring else { return Armed::Asleep };
        let Path::Dequeue(path) = &mut ring.path else { return Armed::Unable };
        if ring.alarm.raised() && !ring.faulted {
            return Armed::Ready;
        }
        if ring.faulted || ring.mode == Mode::Parked {
            return Armed::Asleep;
        }
        let (call, there) = (path.call_owed(), path.arm());
        if call {
            ring.call_driver(&self.peer);
        }
        match (there, ring.kicks) {
            (true, _) => Armed::Ready,
            (false, true) => Armed::Asleep,
            (false, false) => Armed::Unable,
        }
    }

    /// Stops kicks from the driver.
    pub(crate) fn disarm(&mut self) {
        let Some(Ring { path: Path::Dequeue(path), faulted: false, alarm, .. }) = &mut self.ring else {
            return;
        };
        if !alarm.raised() {
            path.disarm();
        }
    }

    /// The offloads that the frontend accepts; `None` while nothing can be sent.
    pub(crate) fn accepted(&self) -> Option<AcceptedOffloads> {
        let ring = self.ring.as_ref().filter(|ring| ring.mode == Mode::Deliver && !ring.faulted)?;
        match &ring.path {
            Path::Enqueue(path) => Some(path.accepted()),
            Path::Dequeue(_) => None,
        }
    }

    /// Stops a ring whose peer violated the protocol. Other rings and ports continue.
    #[cold]
    fn fault(&mut self, fault: PeerFault) -> usize {
        self.stop_faulted(Stop::Fault(fault));
        0
    }

    /// Stops a ring whose memory lost a page, and makes the control thread disconnect the peer.
    #[cold]
    fn quarantine(&mut self) -> usize {
        let Some(ring) = &self.ring else { return 0 };
        if !ring.faulted {
            self.stop_faulted(Stop::Quarantine);
        }
        0
    }

    fn stop_faulted(&mut self, stop: Stop) {
        self.peer.count_fault();
        if let Some(ring) = &mut self.ring {
            ring.faulted = true;
            if let Some(error) = &ring.error {
                error.signal();
            }
            self.peer.report(stop);
        }
    }
}

impl Ring {
    /// Notifies the driver if it requested that. Returns the number of packets moved.
    #[inline(always)]
    fn finish(&mut self, peer: &Peer, done: Done) -> usize {
        if done.call {
            self.call_driver(peer);
        }
        done.packets
    }

    #[cold]
    fn call_driver(&mut self, peer: &Peer) {
        if let Some(call) = &self.call {
            peer.count_notification(call.signal());
        }
    }
}
