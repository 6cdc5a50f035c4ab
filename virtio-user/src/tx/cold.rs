//! Packets that are not plain: chains, shared or foreign memory, no headroom, invalid lengths.

use std::mem::ManuallyDrop;

use linecard_mempool::{MetaWords, Packet};
use linecard_pmd::offload::asks;
use linecard_virtio::{Buffer, Completion, DriverQueue, Element};

use super::{LONGEST, SLOW, Tx, TxOutcome};
use crate::losses::TxLoss;
use crate::path::clear_header;

/// The most segments of a packet that is sent without a copy.
pub(super) const SEGMENTS: usize = 64;

/// All addresses: the port's own pool is always shared.
pub(super) const EVERYWHERE: (u64, u64) = (0, u64::MAX);

/// Returns the packet of a token.
#[cold]
pub(super) fn packet(token: u64) -> Packet {
    // SAFETY: tokens are made from packets given to the queue and come back once each.
    let line = unsafe { MetaWords::from_address(token) };
    // SAFETY: the queue owned the packet and has given it back, so this is its only owner.
    unsafe { Packet::from_raw(line.as_ptr()) }
}

/// Frees the packet of a token.
#[cold]
pub(super) fn free(token: u64) {
    drop(packet(token));
}

/// Frees a batch of different kinds of packets.
#[cold]
#[inline(never)]
pub(super) fn release(done: &[Completion]) {
    for one in done {
        free(one.token);
    }
}

impl<Q: DriverQueue, const OFFLOAD: bool, const HASH: bool> Tx<Q, OFFLOAD, HASH> {
    /// Sends a packet on the slow path. On [`TxOutcome::Full`] the packet still belongs to the caller.
    #[cold]
    #[inline(never)]
    pub(super) fn send_cold(&mut self, line: MetaWords) -> TxOutcome {
        // SAFETY: the caller owns the packet and does not touch it until this returns.
        let packet = ManuallyDrop::new(unsafe { Packet::from_raw(line.as_ptr()) });
        let len = packet.len();
        if len == 0 {
            return self.drop_as(TxLoss::Empty, packet);
        }
        if OFFLOAD && asks(packet.offload()) {
            return self.send_asking(packet, len);
        }
        if len > LONGEST as usize {
            return self.drop_as(TxLoss::TooLong, packet);
        }
        if self.queue.free() == 0 {
            return TxOutcome::Full;
        }
        let mut places = [Element { addr: 0, len: 0 }; SEGMENTS];
        match self.places(&packet, &mut places, self.parts.window.now()) {
            Some(count) => self.send_chain(packet, &places[..count], len as u64),
            None => self.send_copy(packet, len),
        }
    }

    /// Drops a packet for this reason, and reports it to captures.
    pub(super) fn drop_as(&self, cause: TxLoss, packet: ManuallyDrop<Packet>) -> TxOutcome {
        self.parts.stats.dropped(cause, &packet);
        dropped(packet)
    }

    /// Fills `places` with the header and the data, if all data lies within `shared` bytes from `base` on.
    pub(super) fn places(
        &self,
        packet: &Packet,
        places: &mut [Element; SEGMENTS],
        (base, shared): (u64, u64),
    ) -> Option<usize> {
        let (head, rest) = places.split_first_mut()?;
        *head = Element { addr: self.parts.header, len: Self::HEADER };
        let mut slots = rest.iter_mut();
        let mut count = 1_usize;
        for piece in packet.segments() {
            let bytes = piece.data();
            if bytes.is_empty() {
                continue;
            }
            let addr = bytes.as_ptr() as u64;
            let end = addr.wrapping_sub(base).checked_add(bytes.len() as u64)?;
            if end > shared {
                return None;
            }
            *slots.next()? = Element { addr, len: u32::try_from(bytes.len()).ok()? };
            count = count.wrapping_add(1);
        }
        (count <= usize::from(self.queue.size())).then_some(count)
    }

    fn send_chain(&mut self, packet: ManuallyDrop<Packet>, places: &[Element], len: u64) -> TxOutcome {
        let meta = ManuallyDrop::into_inner(packet).into_raw();
        if self.queue.add_chain(places, meta.as_ptr() as u64 | SLOW).is_ok() {
            return TxOutcome::Sent(len);
        }
        TxOutcome::Full
    }

    /// Sends a copy of a packet that the backend cannot reach.
    fn send_copy(&mut self, packet: ManuallyDrop<Packet>, len: usize) -> TxOutcome {
        let pool = &self.parts.pool;
        let pieces = len.div_ceil(usize::from(pool.data_room()).max(1));
        // The header takes an element of its own.
        if pieces.saturating_add(1) > SEGMENTS.min(usize::from(self.queue.size())) {
            return self.drop_as(TxLoss::TooLong, packet);
        }
        let Some(copy) = packet.copy(pool) else {
            return self.drop_as(TxLoss::NoBuffer, packet);
        };
        if self.send_own(copy, len as u64) {
            dropped(packet);
            return TxOutcome::Sent(len as u64);
        }
        TxOutcome::Full
    }

    /// Sends our own copy; false if the ring has no room (the copy is freed then).
    fn send_own(&mut self, copy: Packet, len: u64) -> bool {
        if copy.segments().count() > 1 {
            let mut places = [Element { addr: 0, len: 0 }; SEGMENTS];
            let Some(count) = self.places(&copy, &mut places, EVERYWHERE) else { return false };
            let meta = copy.into_raw();
            let token = meta.as_ptr() as u64 | SLOW;
            let sent = self.queue.add_chain(&places[..count], token).is_ok();
            if !sent {
                free(token);
            }
            return sent;
        }
        let at = copy.data_ptr() as u64;
        let at = at.wrapping_sub(u64::from(Self::HEADER));
        // SAFETY: a packet fresh from the pool has the pool's headroom, whose length was checked when the
        // port started.
        unsafe { clear_header::<HASH>(at) };
        let token = copy.into_raw().as_ptr() as u64 | SLOW;
        let buffer = Buffer { addr: at, len: (len as u32).wrapping_add(Self::HEADER), token };
        let sent = self.queue.add(buffer).is_ok();
        if !sent {
            free(token);
        }
        sent
    }
}

pub(super) fn dropped(packet: ManuallyDrop<Packet>) -> TxOutcome {
    drop(ManuallyDrop::into_inner(packet));
    TxOutcome::Dropped
}
