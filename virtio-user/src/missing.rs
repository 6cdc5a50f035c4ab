//! Packets lost with a backend: kept during a capture until the polling thread has reported them to it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use linecard_mempool::Packet;
use linecard_pmd::observer;
use linecard_pmd::stats::Cause;

use crate::losses::TxLoss;

/// Most packets kept: what a ring has in flight at most. A queue that nobody polls must not keep a pool empty.
const MOST: usize = linecard_virtio::layout::MAX_SIZE as usize;

/// Packets of one transmit queue that were in flight when a backend was lost.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    /// Whether a capture is on. Only a hint: a loss more or less may be kept when a capture begins or ends.
    watched: AtomicBool,
    packets: Mutex<Vec<Packet>>,
}

impl Missing {
    /// Whether a capture wants lost packets.
    pub(crate) fn is_observed(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    /// Keeps a lost packet; for the control thread.
    pub(crate) fn push(&self, packet: Packet) {
        let mut packets = self.packets.lock().unwrap_or_else(PoisonError::into_inner);
        if packets.len() < MOST {
            packets.push(packet);
        }
    }

    /// Reports the kept packets, if there is a capture, and frees them; for the polling thread, which never waits.
    pub(crate) fn tell(&self, watched: bool) {
        self.watched.store(watched, Ordering::Relaxed);
        let Ok(mut packets) = self.packets.try_lock() else { return };
        let name = TxLoss::ALL.get(TxLoss::BackendGone.index()).map_or("", |(name, _)| *name);
        packets.drain(..).for_each(|packet| observer::lost(&packet, name));
    }
}
