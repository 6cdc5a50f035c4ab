//! What lies in the gate between a polled queue and the control thread: one running ring, or none.

use std::sync::Arc;

use linecard_mempool::{Burst, Pool};
use linecard_pmd::Armed;
use linecard_pmd::direct::{Frame, Sink};
use linecard_pmd::offload::AcceptedOffloads;
use linecard_pmd::stats::QueueStats;
use linecard_virtio::PeerFault;

use crate::datapath::{DequeuePath, Done, EnqueuePath};
use crate::event::Event;
use crate::peer::{Peer, tell};
use crate::port::{RxLoss, TxLoss};
use crate::sigbus::Alarm;

/// One direction of one queue.
pub(crate) enum Path {
    /// The driver's transmit queue, which we receive from.
    Dequeue(Box<dyn DequeuePath>),
    /// The driver's receive queue, which we send to.
    Enqueue(Box<dyn EnqueuePath>),
}

impl Path {
    /// The ring's position, as `GET_VRING_BASE` carries it.
    pub(crate) fn base(&self) -> u32 {
        match self {
            Self::Dequeue(path) => path.base(),
            Self::Enqueue(path) => path.base(),
        }
    }

    /// Name of the negotiated path, for logs.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Dequeue(path) => path.name(),
            Self::Enqueue(path) => path.name(),
        }
    }
}

/// What a running ring does with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing: the driver is not ready, or the user has stopped the queue.
    Parked,
    /// The ring is disabled: packets of the driver are taken and dropped, none is given to it
    /// (vhost-user, "Ring states").
    Discard,
    /// Packets flow.
    Deliver,
}

/// A ring that was started.
pub(crate) struct Ring {
    pub(crate) path: Path,
    pub(crate) mode: Mode,
    pub(crate) call: Option<Arc<Event>>,
    pub(crate) error: Option<Arc<Event>>,
    pub(crate) alarm: Arc<Alarm>,
    /// The driver has something to kick us by.
    pub(crate) kicks: bool,
    /// The peer broke the rules here: nothing moves until the ring is started again.
    pub(crate) faulted: bool,
}

/// One queue's place for a ring.
pub(crate) struct VringSlot {
    /// The ring, while it is started.
    pub(crate) ring: Option<Ring>,
    /// An address to announce on behalf of a peer that moved here (`SEND_RARP`).
    pub(crate) announce: Option<[u8; 6]>,
    /// Where faults are reported to.
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

    /// Receives into `out` what `sink` leaves of it.
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

    /// Packets that the driver has made available and that were not received.
    pub(crate) fn waiting(&mut self) -> u16 {
        match &mut self.ring {
            Some(Ring { path: Path::Dequeue(path), faulted: false, alarm, .. }) if !alarm.raised() => {
                path.waiting()
            }
            _ => 0,
        }
    }

    /// Prepares what will be sent.
    pub(crate) fn look_ahead(&mut self) {
        if let Some(Ring { path: Path::Enqueue(path), faulted: false, alarm, .. }) = &mut self.ring
            && !alarm.raised()
        {
            path.look_ahead();
        }
    }

    /// Asks the driver for kicks, before whoever polls the ring sleeps.
    pub(crate) fn arm(&mut self) -> Armed {
        if self.announce.is_some() {
            return Armed::Ready;
        }
        // Where there is no ring, nothing comes until the control thread has changed that, and it wakes who sleeps.
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

    /// Asks the driver for no kicks.
    pub(crate) fn disarm(&mut self) {
        let Some(Ring { path: Path::Dequeue(path), faulted: false, alarm, .. }) = &mut self.ring else {
            return;
        };
        if !alarm.raised() {
            path.disarm();
        }
    }

    /// What the frontend takes unfinished; `None` while nothing can be sent.
    pub(crate) fn accepted(&self) -> Option<AcceptedOffloads> {
        let ring = self.ring.as_ref().filter(|ring| ring.mode == Mode::Deliver && !ring.faulted)?;
        match &ring.path {
            Path::Enqueue(path) => Some(path.accepted()),
            Path::Dequeue(_) => None,
        }
    }

    /// Stops a ring whose peer broke the rules; other rings and ports go on.
    #[cold]
    fn fault(&mut self, fault: PeerFault) -> usize {
        tell!(self.peer, warn, %fault, "ring stopped");
        self.stop_faulted();
        0
    }

    /// Stops a ring whose memory lost a page, and has the control thread drop the peer.
    #[cold]
    fn quarantine(&mut self) -> usize {
        let Some(ring) = &self.ring else { return 0 };
        if !ring.faulted {
            tell!(self.peer, warn, "the peer took memory away; ring stopped");
            self.stop_faulted();
        }
        0
    }

    fn stop_faulted(&mut self) {
        self.peer.count_fault();
        if let Some(ring) = &mut self.ring {
            ring.faulted = true;
            if let Some(error) = &ring.error {
                error.signal();
            }
            if ring.alarm.raised() {
                self.peer.wake_control();
            }
        }
    }
}

impl Ring {
    /// Wakes the driver when it asked for that; returns the packets moved.
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
