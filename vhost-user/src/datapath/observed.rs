//! A ring with records, in the dirty log of a migration or the inflight region, or with addresses that an
//! IOMMU translates.
//!
//! A ring with neither does not use this type and has no overhead.

use std::mem::MaybeUninit;
use std::sync::Arc;

use linecard_virtio::{Chain, DeviceMemory, DeviceQueue, Head, Lookahead, PeerFault, Piece, SegList, Used};

use crate::event::Event;
use crate::memory::{AHEAD, DirtyLog, MemoryMap, Prefetch, RingInflight, Window};

/// The records of a ring's use, and its view of the translations if an IOMMU is in use.
#[derive(Default)]
pub(crate) struct Records {
    pub(crate) log: Option<RingLog>,
    pub(crate) inflight: Option<RingInflight>,
    pub(crate) window: Option<Window>,
}

impl Records {
    pub(crate) fn is_empty(&self) -> bool {
        self.log.is_none() && self.inflight.is_none() && self.window.is_none()
    }
}

/// What is recorded of a ring in the dirty log.
pub(crate) struct RingLog {
    pub(crate) log: Arc<DirtyLog>,
    pub(crate) map: Arc<MemoryMap>,
    /// Whether written buffers are logged (`VHOST_F_LOG_ALL`).
    pub(crate) buffers: bool,
    /// The written areas of the ring itself, as guest addresses and lengths (`VHOST_VRING_F_LOG`).
    pub(crate) ring: Vec<(u64, u64)>,
    /// Signalled when bits are newly set (`SET_LOG_FD`).
    pub(crate) event: Option<Arc<Event>>,
}

impl RingLog {
    /// Marks written buffers. Returns whether a bit was newly set.
    fn buffers(&self, written: impl Iterator<Item = (*const u8, u32)>) -> bool {
        let mut news = false;
        for (at, len) in written.filter(|_| self.buffers) {
            news |= self.map.guest_addr(at).is_some_and(|addr| self.log.mark(addr, u64::from(len)));
        }
        news
    }

    fn ring(&self) -> bool {
        let mut news = false;
        for (addr, len) in &self.ring {
            news |= self.log.mark(*addr, *len);
        }
        news
    }

    fn tell(&self, news: bool) {
        if let Some(event) = self.event.as_ref().filter(|_| news) {
            event.signal();
        }
    }
}

/// The maximum number of bytes of a packet with its virtio header. A frontend may provide gigabytes for one,
/// and marking all their pages would delay other ports.
const LONGEST: u32 = super::MAX_PACKET + linecard_net::vnet::HDR_LEN;

/// The first `most` bytes of `pieces`.
fn front(pieces: &[Piece], most: u32) -> impl Iterator<Item = (*const u8, u32)> {
    let mut left = most;
    pieces.iter().map(move |piece| {
        let len = piece.len.min(left);
        left -= len;
        (piece.ptr.as_ptr().cast_const(), len)
    })
}

/// A ring with records or translations.
pub(super) struct Observed<Q> {
    queue: Q,
    records: Records,
    /// The pieces of the chains that the slow path looked at and may have written.
    pieces: Vec<Piece>,
    /// Pages became dirty since the last publish.
    news: bool,
    prefetched: Prefetched,
}

/// Descriptors of a chain that are prefetched: as many as a driver with 64 KiB packets uses for one.
const LOOKED_AT: u16 = 32;

/// The progress of prefetching translations for later chains.
struct Prefetched {
    /// The number of chains looked at, from the next one on.
    looked: u16,
    /// The first of them that had a miss.
    incomplete: Option<u16>,
    /// [`Window::losses`] and [`Window::generation`] at that time.
    losses: u64,
    generation: u64,
    /// Collects one chain at a time.
    scratch: SegList,
}

impl Prefetched {
    fn new() -> Self {
        Self { looked: 0, incomplete: None, losses: 0, generation: 0, scratch: SegList::limited(LOOKED_AT) }
    }

    /// Notes that `chains` chains were taken.
    fn went_by(&mut self, chains: u16) {
        self.looked = self.looked.saturating_sub(chains);
        self.incomplete = self.incomplete.map(|at| at.saturating_sub(chains));
    }

    /// Goes back to the first chain that may have misses without a request.
    fn go_back(&mut self, window: &Window) {
        let (losses, generation) = (window.losses(), window.generation());
        if losses != self.losses {
            // A removed range may concern several buffers.
            (self.looked, self.incomplete) = (0, None);
        } else if generation != self.generation {
            // A walk ends at the first descriptor without a translation.
            self.looked = self.incomplete.take().unwrap_or(self.looked).min(self.looked);
        }
        (self.losses, self.generation) = (losses, generation);
    }

    /// Looks at one chain after the other; `memory` notes the misses.
    fn look<Q: DeviceQueue>(&mut self, queue: &mut Q, memory: &Prefetch<'_>) {
        while self.looked < AHEAD {
            let past = Lookahead { chains: self.looked, descs: self.looked };
            let found = queue.peek_chain(memory, past, &mut self.scratch);
            let missed = memory.has_missed();
            if memory.is_full() || !missed && !matches!(found, Ok(Some(_))) {
                break;
            }
            if missed {
                self.incomplete.get_or_insert(self.looked);
            }
            self.looked += 1;
        }
    }
}

// SAFETY: `pieces` are addresses in the map that `records` keeps; the owner of the queue may access them.
unsafe impl<Q: Send> Send for Observed<Q> {}

impl<Q: DeviceQueue> Observed<Q> {
    pub(super) fn new(queue: Q, records: Records) -> Self {
        let mut observed =
            Self { queue, records, pieces: Vec::new(), news: false, prefetched: Prefetched::new() };
        // The new device half has written its notification settings to the ring.
        observed.note_ring();
        observed
    }

    fn note_ring(&mut self) {
        if let Some(log) = &self.records.log {
            let news = log.ring() || self.news;
            log.tell(news);
        }
        self.news = false;
    }

    fn writes(&self) -> Option<&RingLog> {
        self.records.log.as_ref().filter(|_| Q::WRITABLE)
    }
}

// SAFETY: the inner queue makes the same promises. Chains and pieces are passed on unchanged; they are in the
// given memory or in the window, which makes the same promise.
unsafe impl<Q: DeviceQueue> DeviceQueue for Observed<Q> {
    const WRITABLE: bool = Q::WRITABLE;

    fn size(&self) -> u16 {
        self.queue.size()
    }

    fn peek<M: DeviceMemory>(
        &mut self,
        memory: &M,
        out: &mut [MaybeUninit<Chain>],
    ) -> Result<usize, PeerFault> {
        let Some(window) = &self.records.window else { return self.queue.peek(memory, out) };
        let chains = self.queue.peek(window, out)?;
        if chains > 0 {
            window.found();
        }
        Ok(chains)
    }

    fn peek_chain<M: DeviceMemory>(
        &mut self,
        memory: &M,
        ahead: Lookahead,
        out: &mut SegList,
    ) -> Result<Option<Head>, PeerFault> {
        let head = match &self.records.window {
            None => self.queue.peek_chain(memory, ahead, out)?,
            Some(window) => {
                let head = self.queue.peek_chain(window, ahead, out)?;
                if head.is_some() {
                    window.found();
                }
                head
            }
        };
        if ahead == Lookahead::default() {
            self.pieces.clear();
        }
        if head.is_some() && self.writes().is_some() {
            self.pieces.extend_from_slice(out.pieces());
        }
        Ok(head)
    }

    /// Requests translations of the next chains before they are needed: a packet for a buffer without one is
    /// lost if the application does not keep it. In a packed ring each descriptor counts as one chain, which
    /// is right for a receive ring.
    fn look_ahead(&mut self) {
        let Some(window) = &self.records.window else { return };
        self.prefetched.go_back(window);
        self.prefetched.look(&mut self.queue, &Prefetch::of(window));
    }

    fn available(&mut self) -> u16 {
        self.queue.available()
    }

    fn is_empty(&mut self) -> bool {
        self.queue.is_empty()
    }

    fn complete_burst(&mut self, chains: &[Chain], written: impl Fn(usize) -> u32) {
        let lens = chains.iter().enumerate().map(|(k, chain)| (chain.ptr.cast_const(), written(k)));
        let news = self.writes().is_some_and(|log| log.buffers(lens));
        self.news |= news;
        self.prefetched.went_by(chains.len() as u16);
        self.queue.complete_burst(chains, written);
    }

    fn take(&mut self, ahead: Lookahead) {
        self.prefetched.went_by(ahead.chains);
        self.queue.take(ahead);
    }

    /// All of the packet is written by now, from the first piece on. Its length is not known here, so the
    /// maximum is marked.
    fn complete_taken(&mut self, used: Used) {
        let lens = front(&self.pieces, LONGEST);
        let news = self.writes().is_some_and(|log| log.buffers(lens));
        self.news |= news;
        self.pieces.clear();
        self.queue.complete_taken(used);
    }

    fn publish(&mut self) {
        let base = self.queue.base();
        if let Some(inflight) = &self.records.inflight {
            inflight.publishing(base);
        }
        self.queue.publish();
        if let Some(inflight) = &self.records.inflight {
            inflight.published(base);
        }
        self.note_ring();
        self.look_ahead();
    }

    fn call_hint(&self) -> bool {
        self.queue.call_hint()
    }

    fn call_needed(&mut self) -> bool {
        self.queue.call_needed()
    }

    fn set_notifications(&mut self, on: bool) -> bool {
        let there = self.queue.set_notifications(on);
        self.note_ring();
        // A chain that waits for its translation does not count; the control thread wakes the poller when it
        // arrives.
        there && !self.records.window.as_ref().is_some_and(Window::is_waiting)
    }

    fn base(&self) -> u32 {
        self.queue.base()
    }
}

#[cfg(test)]
mod tests {
    use std::ptr::NonNull;

    use super::*;

    #[test]
    fn no_more_than_a_packet_is_marked_however_much_is_lent() {
        let lens = |lent: &[u32]| -> Vec<u32> {
            let ptr = NonNull::from(&0_u8);
            let pieces: Vec<_> = lent.iter().map(|len| Piece { ptr, len: *len }).collect();
            front(&pieces, 1000).map(|(_, len)| len).collect()
        };
        assert_eq!(lens(&[400, 0, 500]), [400, 0, 500]);
        assert_eq!(lens(&[400, 700, 1 << 30]), [400, 600, 0]);
        assert_eq!(lens(&[u32::MAX; 3]), [1000, 0, 0]);
    }
}
