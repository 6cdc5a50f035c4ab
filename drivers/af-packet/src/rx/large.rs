//! Oversized frames. A frame too large for a ring frame is read whole from the socket's queue. A frame too
//! large for the application is segmented.
//!
//! ```text
//!  ring   │ frame │ front of a large one, "copied" │ frame │       V2: the kernel also queues the whole frame
//!  queue              └──► read whole ─► one piece ─┬─► chain                       if large packets are accepted
//!                                                   └─► segment, segment, …         if not: made on demand
//! ```

use std::io::IoSliceMut;

use linecard_eal::shared::SharedBytes;
use linecard_mempool::{Burst, Offload, Packet, Pool};
use linecard_net::gso::Segmenter;
use linecard_net::vnet::GSO_NONE;

use super::{ADDRESSES, RxParts, TAG, Vlan, copy, put_tag};
use crate::loss::RxLoss;
use crate::ring::{Frame, HEADER};
use linecard_pmd::offload::{RxOffloads, segmenter};

/// The state and buffers for oversized frames.
pub(super) struct Large {
    /// A frame in one piece, its tag in place.
    bytes: Vec<u8>,
    /// One of its segments, if that takes several buffers.
    segment: Vec<u8>,
    /// The progress of segmenting the frame in `bytes`.
    cut: Option<Segmentation>,
}

struct Segmentation {
    segmenter: Segmenter,
    next: usize,
    vlan: Option<Vlan>,
}

impl Large {
    /// `longest` is the length of the longest frame in bytes.
    pub(super) fn new(longest: usize) -> Self {
        Self { bytes: vec![0; longest.max(ADDRESSES) + TAG], segment: Vec::new(), cut: None }
    }

    /// Returns whether segments of a frame are still to be made.
    #[inline(always)]
    pub(super) fn is_pending(&self) -> bool {
        self.cut.is_some()
    }

    /// Returns whether a frame with an unfinished checksum is too large for the application.
    #[cold]
    pub(super) fn concerns(parts: &RxParts, frame: &Frame) -> bool {
        !takes_large(parts) && frame.header().is_some_and(|header| header.gso_type != GSO_NONE)
    }

    /// Reads a large frame into `packet`, or returns false and leaves it for [`pieces`](Self::pieces).
    #[cold]
    pub(super) fn take(
        &mut self,
        parts: &RxParts,
        packet: &mut Packet,
        frame: &Frame,
        data: SharedBytes,
    ) -> Result<bool, RxLoss> {
        let len = match frame.cut {
            true => self.fetch(parts, frame)?,
            false => self.place(parts, frame, data)?,
        };
        let request = parts.request(frame, len)?;
        if request.gso.is_none() || takes_large(parts) {
            self.scatter(&parts.pool, packet, len)?;
            return Ok(true);
        }
        let whole = self.bytes.get(..len).ok_or(RxLoss::Truncated)?;
        let segmenter = segmenter(whole, request).ok_or(RxLoss::BadOffload)?;
        self.cut = Some(Segmentation { segmenter, next: 0, vlan: parts.vlan(frame) });
        Ok(false)
    }

    /// Copies a frame that is longer than a buffer into a chain of buffers.
    #[cold]
    pub(super) fn chain(
        &mut self,
        parts: &RxParts,
        packet: &mut Packet,
        frame: &Frame,
        data: SharedBytes,
    ) -> Result<(), RxLoss> {
        let len = self.place(parts, frame, data)?;
        self.scatter(&parts.pool, packet, len)
    }

    /// Copies a frame of the ring into one piece; returns its length.
    fn place(&mut self, parts: &RxParts, frame: &Frame, data: SharedBytes) -> Result<usize, RxLoss> {
        let tag = parts.tag(frame);
        let len = data.len() + if tag.is_some() { TAG } else { 0 };
        copy(data, tag, self.bytes.get_mut(..len).ok_or(RxLoss::Truncated)?);
        Ok(len)
    }

    /// Reads a frame from the socket's queue, whose order is that of the ring, where its front is.
    fn fetch(&mut self, parts: &RxParts, frame: &Frame) -> Result<usize, RxLoss> {
        if frame.status & libc::TP_STATUS_COPY == 0 {
            return Err(RxLoss::Truncated);
        }
        let (mut header, tag) = ([0; HEADER], parts.tag(frame));
        let gap = if tag.is_some() { TAG } else { 0 };
        let (front, rest) = self.bytes.split_at_mut(ADDRESSES);
        let rest = rest.get_mut(gap..).unwrap_or_default();
        let mut places = [&mut header[..], front, rest].map(IoSliceMut::new);
        let read = rustix::io::readv(&*parts.socket, &mut places).unwrap_or(0);
        if read != HEADER + frame.len {
            return Err(RxLoss::Truncated);
        }
        if let Some(tag) = tag {
            put_tag(&mut self.bytes, ADDRESSES, tag);
        }
        Ok(frame.len + gap)
    }

    fn scatter(&self, pool: &Pool, packet: &mut Packet, len: usize) -> Result<(), RxLoss> {
        scatter(pool, packet, self.bytes.get(..len).ok_or(RxLoss::Truncated)?)
    }

    /// Adds segments of the pending frame while there is room; returns their bytes.
    #[cold]
    pub(super) fn pieces(&mut self, parts: &RxParts, packets: &mut Burst) -> u64 {
        let mut bytes = 0;
        while packets.room() > 0
            && let Some(cut) = &self.cut
        {
            match segment(&self.bytes, cut, &mut self.segment, parts) {
                Ok(packet) => {
                    bytes += packet.len() as u64;
                    // The loop has checked the room.
                    let _ = packets.push(packet);
                }
                Err(RxLoss::NoBuffer) => {
                    // The other segments wait, as frames in the ring do.
                    parts.stats.lost(RxLoss::NoBuffer, 1);
                    break;
                }
                // The sizes were checked when segmenting began.
                Err(loss) => parts.stats.lost(loss, 1),
            }
            self.cut = self.cut.take().and_then(Segmentation::after);
        }
        bytes
    }
}

impl Segmentation {
    fn after(self) -> Option<Self> {
        let next = self.next + 1;
        (next < self.segmenter.segments()).then_some(Self { next, ..self })
    }
}

/// Makes the next segment, an ordinary packet with complete checksums.
fn segment(whole: &[u8], cut: &Segmentation, piece: &mut Vec<u8>, parts: &RxParts) -> Result<Packet, RxLoss> {
    let mut packet = parts.pool.get().ok_or(RxLoss::NoBuffer)?;
    let len = cut.segmenter.header_len() + cut.segmenter.payload(cut.next).len();
    if let Some(to) = packet.append(len) {
        cut.segmenter.segment(whole, cut.next, to).ok_or(RxLoss::BadOffload)?;
    } else {
        piece.resize(len, 0);
        cut.segmenter.segment(whole, cut.next, piece).ok_or(RxLoss::BadOffload)?;
        scatter(&parts.pool, &mut packet, piece)?;
    }
    if parts.offload_work.accepted.is_some() {
        packet.set_offload(packet.offload() | Offload::RX_L4_CKSUM_GOOD);
    }
    if let Some(vlan) = cut.vlan {
        vlan.note(&mut packet);
    }
    Ok(packet)
}

/// Returns whether the application accepts packets that exceed the MTU.
fn takes_large(parts: &RxParts) -> bool {
    parts.offload_work.asked.contains(RxOffloads::TCP_LRO)
}

fn scatter(pool: &Pool, packet: &mut Packet, whole: &[u8]) -> Result<(), RxLoss> {
    let room = usize::from(pool.data_room()).max(1);
    for (i, piece) in whole.chunks(room).enumerate() {
        if i == 0 {
            packet.append(piece.len()).ok_or(RxLoss::NoBuffer)?.copy_from_slice(piece);
            continue;
        }
        let mut segment = pool.get().ok_or(RxLoss::NoBuffer)?;
        segment.append(piece.len()).ok_or(RxLoss::NoBuffer)?.copy_from_slice(piece);
        packet.chain(segment).map_err(|_| RxLoss::Truncated)?;
    }
    Ok(())
}
