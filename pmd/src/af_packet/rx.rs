//! Receive queues: from the kernel's ring into packets of the pool.

use std::sync::Arc;

use linecard_eal::shared::SharedBytes;
use linecard_mempool::{Burst, Offload, Packet, Pool};
use linecard_net::parse::parse;
use linecard_net::request::{Request, Takes, partial_of};
use linecard_net::vnet::NetHeader;

use super::drops::Drops;
use super::loss::RxLoss;
use super::ring::{Frame, Ring};
use super::sys::Socket;
use crate::offload::{describe, finish_received};
use crate::port::RxQueue;
use crate::stats::QueueStats;

/// Bytes of the addresses, behind which a tag goes.
const ADDRESSES: usize = 12;
/// The kernel counts drops in 32 bits: they are fetched every so many frames, whether or not anybody asks.
const COLLECT: usize = 1 << 24;

/// What is done to received packets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Duty {
    /// Tags stay out of the data.
    pub(super) strip: bool,
    /// A virtio header tells of checksums and segments, of which the application takes these.
    pub(super) header: Option<Takes>,
}

/// What a receive queue is made of, beside its ring.
pub(super) struct RxParts {
    pub(super) pool: Pool,
    pub(super) duty: Duty,
    pub(super) stats: Arc<QueueStats<RxLoss>>,
    pub(super) drops: Arc<Drops>,
    /// Open as long as the queue lives.
    pub(super) _socket: Arc<Socket>,
}

pub(super) struct Rx<R> {
    ring: R,
    parts: RxParts,
    until_collect: usize,
    /// A frame that takes several buffers, in one piece.
    large: Vec<u8>,
}

impl<R: Ring> Rx<R> {
    /// `longest`: bytes of the longest frame of the ring.
    pub(super) fn new(ring: R, parts: RxParts, longest: usize) -> Self {
        Self { ring, parts, until_collect: COLLECT, large: vec![0; longest + 4] }
    }

    /// Packets for up to `wanted` frames, fewer when the pool has fewer; how many.
    fn buffers(&self, packets: &mut Burst, wanted: usize) -> usize {
        let mut count = wanted;
        while count > 0 && !self.parts.pool.get_bulk(packets, count) {
            count /= 2;
        }
        if count == 0 && wanted > 0 {
            self.parts.stats.lost(RxLoss::NoBuffer, 1);
        }
        count
    }

    /// Makes `packet` what the frame says.
    #[inline]
    fn fill(&mut self, packet: &mut Packet, frame: &Frame) -> Result<(), RxLoss> {
        let data = frame.data.ok_or(RxLoss::BadFrame)?;
        if frame.cut {
            return Err(RxLoss::Truncated);
        }
        let tag = frame.vlan.filter(|_| !self.parts.duty.strip);
        let len = data.len() + if tag.is_some() { 4 } else { 0 };
        match packet.append(len) {
            Some(to) => copy(data, tag, to),
            None => self.scatter(packet, data, tag, len)?,
        }
        let noted = libc::TP_STATUS_CSUMNOTREADY | libc::TP_STATUS_VLAN_VALID;
        if frame.status & noted != 0 || self.parts.duty.header.is_some() {
            self.note(packet, frame)?;
        }
        Ok(())
    }

    /// A frame longer than a buffer, into a chain of them.
    #[cold]
    fn scatter(
        &mut self,
        packet: &mut Packet,
        data: SharedBytes,
        tag: Option<(u16, u16)>,
        len: usize,
    ) -> Result<(), RxLoss> {
        let whole = self.large.get_mut(..len).ok_or(RxLoss::Truncated)?;
        copy(data, tag, whole);
        let room = usize::from(self.parts.pool.data_room()).max(1);
        for (i, piece) in whole.chunks(room).enumerate() {
            if i == 0 {
                packet.append(piece.len()).ok_or(RxLoss::NoBuffer)?.copy_from_slice(piece);
                continue;
            }
            let mut segment = self.parts.pool.get().ok_or(RxLoss::NoBuffer)?;
            segment.append(piece.len()).ok_or(RxLoss::NoBuffer)?.copy_from_slice(piece);
            packet.chain(segment).map_err(|_| RxLoss::Truncated)?;
        }
        Ok(())
    }

    /// Checksum, segments and tag, as the kernel tells them.
    fn note(&self, packet: &mut Packet, frame: &Frame) -> Result<(), RxLoss> {
        match self.parts.duty.header {
            Some(takes) => self.describe(packet, frame, takes)?,
            None if frame.status & libc::TP_STATUS_CSUMNOTREADY != 0 => finish(packet),
            None => {}
        }
        if let Some((tci, _)) = frame.vlan {
            packet.set_vlan_tci(tci);
            let stripped = if self.parts.duty.strip { Offload::RX_VLAN_STRIPPED } else { Offload::NONE };
            packet.set_offload(packet.offload() | Offload::RX_VLAN | stripped);
        }
        Ok(())
    }

    /// What the header says, for an application that wants to know.
    fn describe(&self, packet: &mut Packet, frame: &Frame, takes: Takes) -> Result<(), RxLoss> {
        let header = frame.header().ok_or(RxLoss::BadFrame)?;
        if header.is_plain() {
            return Ok(());
        }
        // The header counts from where the frame begins without its tag.
        let shift = if frame.vlan.is_some() && !self.parts.duty.strip { 4 } else { 0 };
        let header = NetHeader { csum_start: header.csum_start.wrapping_add(shift), ..header };
        let request = header.request(packet.len()).ok_or(RxLoss::BadOffload)?;
        if describe(packet, request, takes) { Ok(()) } else { Err(RxLoss::BadOffload) }
    }

    #[inline]
    fn some(&mut self, packets: &mut Burst) -> (usize, u64) {
        let (mut total, mut bytes) = (0, 0);
        // Frames that are no good count too: whoever sends nothing else must not keep the thread here.
        let mut left = packets.room();
        loop {
            let (start, ready) = (packets.len(), self.ring.ready(left));
            let count = self.buffers(packets, ready);
            if count == 0 {
                return (total, bytes);
            }
            left -= count;
            let mut end = start;
            for _ in 0..count {
                let frame = self.ring.front();
                match self.fill(&mut packets[end], &frame) {
                    Ok(()) => {
                        bytes += packets[end].len() as u64;
                        end += 1;
                    }
                    Err(loss) => {
                        self.parts.stats.lost(loss, 1);
                        // Its half-filled packet is of no use to the next frame.
                        drop(packets.swap_remove(end));
                    }
                }
                self.ring.release();
            }
            total += end - start;
        }
    }
}

/// Finishes a checksum that a sender on this machine left to its hardware, which does not exist. What is neither TCP nor
/// UDP stays as it is.
#[cold]
fn finish(packet: &mut Packet) {
    let partial = partial_of(&parse(packet.data()));
    let takes = Takes { csum: true, ..Takes::default() };
    if partial.is_some() && describe(packet, Request { partial, ..Request::default() }, takes) {
        finish_received(std::slice::from_mut(packet));
    }
}

/// The frame's bytes, with its tag back in place.
#[inline(always)]
fn copy(data: SharedBytes, tag: Option<(u16, u16)>, to: &mut [u8]) {
    match tag {
        None => drop(data.copy_to(to)),
        Some(tag) => copy_tagged(data, tag, to),
    }
}

#[cold]
fn copy_tagged(data: SharedBytes, (tci, protocol): (u16, u16), to: &mut [u8]) {
    let at = ADDRESSES.min(data.len());
    data.copy_to(&mut to[..at]);
    if let Some(tag) = to.get_mut(at..at + 4) {
        tag[..2].copy_from_slice(&protocol.to_be_bytes());
        tag[2..].copy_from_slice(&tci.to_be_bytes());
    }
    if let (Some(rest), Some(to)) = (data.slice(at, data.len() - at), to.get_mut(at + 4..)) {
        rest.copy_to(to);
    }
}

impl<R: Ring> RxQueue for Rx<R> {
    fn rx_burst(&mut self, packets: &mut Burst) -> usize {
        let (count, bytes) = self.some(packets);
        self.parts.stats.moved(count, bytes);
        self.until_collect = self.until_collect.saturating_sub(count);
        if self.until_collect == 0 {
            self.until_collect = COLLECT;
            self.parts.drops.collect();
        }
        count
    }

    fn path(&self) -> &'static str {
        R::PATH
    }
}

impl<R> Drop for Rx<R> {
    fn drop(&mut self) {
        self.parts.drops.collect();
    }
}
