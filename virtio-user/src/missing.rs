//! Packets that were lost with a backend, kept during a capture until the polling thread reports them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use linecard_mempool::Packet;
use linecard_pmd::observer;
use linecard_pmd::stats::Cause;

use crate::losses::TxLoss;

/// The most packets kept, as many as a ring can have in flight. A queue that is not polled must not drain a
/// pool.
const MOST: usize = linecard_virtio::layout::MAX_SIZE as usize;

/// Packets of one transmit queue that were in flight when a backend was lost.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    /// Whether a capture is on. A hint only: losses at the beginning or end of a capture may be missed or
    /// kept.
    watched: AtomicBool,
    packets: Mutex<Vec<Packet>>,
}

impl Missing {
    /// Returns whether a capture wants lost packets.
    pub(crate) fn is_observed(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    /// Keeps a lost packet. Called by the control thread.
    pub(crate) fn push(&self, packet: Packet) {
        let mut packets = self.packets.lock().unwrap_or_else(PoisonError::into_inner);
        if packets.len() < MOST {
            packets.push(packet);
        }
    }

    /// Reports the kept packets, if there is a capture, and frees them. Called by the polling thread; never
    /// blocks.
    pub(crate) fn tell(&self, watched: bool) {
        self.watched.store(watched, Ordering::Relaxed);
        let Ok(mut packets) = self.packets.try_lock() else { return };
        let name = TxLoss::ALL.get(TxLoss::BackendGone.index()).map_or("", |(name, _)| *name);
        packets.drain(..).for_each(|packet| observer::lost(&packet, name));
    }
}
