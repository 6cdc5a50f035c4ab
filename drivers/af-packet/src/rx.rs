//! Receive queues: copy frames from the kernel's ring into packets of the pool.

mod large;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use linecard_eal::shared::SharedBytes;
use linecard_mempool::{Burst, Offload, Packet, Pool};
use linecard_net::offload::Partial;
use linecard_net::parse::parse;
use linecard_net::request::{AcceptedOffloads, Request};
use linecard_net::vnet::NetHeader;

use self::large::Large;
use super::drops::Drops;
use super::loss::RxLoss;
use super::ring::{Frame, Ring};
use super::{ADDRESSES, TAG};
use linecard_netdev::packet_socket::Socket;
use linecard_pmd::offload::{RxOffloads, describe, finish_received};
use linecard_pmd::port::RxQueue;
use linecard_pmd::stats::QueueStats;
use linecard_pmd::wake::{Armed, arm_descriptor};

/// The frames between two reads of the kernel's drop counter, which has only 32 bits.
const COLLECT: usize = 1 << 24;

/// The processing of received packets.
#[derive(Clone, Copy, Debug)]
pub(super) struct RxOffloadWork {
    /// The offloads that the application requested.
    pub(super) asked: RxOffloads,
    /// The offloads left to the application; `None` if it wants no information about checksums and segments.
    pub(super) accepted: Option<AcceptedOffloads>,
}

/// The parts of a receive queue besides its ring.
pub(super) struct RxParts {
    pub(super) pool: Pool,
    pub(super) offload_work: RxOffloadWork,
    pub(super) stats: Arc<QueueStats<RxLoss>>,
    pub(super) drops: Arc<Drops>,
    /// Open while the queue exists.
    pub(super) socket: Arc<Socket>,
}

impl RxParts {
    fn strips(&self) -> bool {
        self.offload_work.asked.contains(RxOffloads::VLAN_STRIP)
    }

    /// Returns the tag to insert into a frame's data.
    #[inline(always)]
    fn tag(&self, frame: &Frame) -> Option<(u16, u16)> {
        frame.vlan.filter(|_| !self.strips())
    }

    /// Returns the information about a frame's tag for the metadata.
    fn vlan(&self, frame: &Frame) -> Option<Vlan> {
        frame.vlan.map(|(tci, _)| Vlan { tci, stripped: self.strips() })
    }

    /// Reads the offload request of a frame that has `len` bytes now.
    fn request(&self, frame: &Frame, len: usize) -> Result<Request, RxLoss> {
        let header = frame.header().ok_or(RxLoss::BadFrame)?;
        // The header's offsets refer to the frame without its tag.
        let shift = if self.tag(frame).is_some() { TAG as u16 } else { 0 };
        let header = NetHeader { csum_start: header.csum_start.wrapping_add(shift), ..header };
        header.request(len).ok_or(RxLoss::BadOffload)
    }
}

/// A tag and its state, for the metadata.
#[derive(Clone, Copy, Debug)]
struct Vlan {
    tci: u16,
    stripped: bool,
}

impl Vlan {
    fn note(self, packet: &mut Packet) {
        let stripped = if self.stripped { Offload::RX_VLAN_STRIPPED } else { Offload::empty() };
        packet.set_vlan_tci(self.tci);
        packet.set_offload(packet.offload() | Offload::RX_VLAN | stripped);
    }
}

pub(super) struct Rx<R> {
    ring: R,
    parts: RxParts,
    until_collect: usize,
    large: Large,
}

impl<R: Ring> Rx<R> {
    /// `longest` is the length of the longest frame in bytes.
    pub(super) fn new(ring: R, parts: RxParts, longest: usize) -> Self {
        Self { ring, parts, until_collect: COLLECT, large: Large::new(longest) }
    }

    /// Adds packets for up to `wanted` frames, fewer if the pool has fewer; returns their number.
    fn buffers(&self, packets: &mut Burst, wanted: usize) -> usize {
        let mut count = wanted;
        while count > 0 && self.parts.pool.get_bulk(packets, count).is_err() {
            count /= 2;
        }
        if count == 0 && wanted > 0 {
            self.parts.stats.lost(RxLoss::NoBuffer, 1);
        }
        count
    }

    /// Fills `packet` from the frame; returns false if the frame is to be segmented instead.
    #[inline]
    fn fill(&mut self, packet: &mut Packet, frame: &Frame) -> Result<bool, RxLoss> {
        let data = frame.data.ok_or(RxLoss::BadFrame)?;
        let unfinished = frame.status & libc::TP_STATUS_CSUMNOTREADY != 0;
        if frame.cut || unfinished && Large::concerns(&self.parts, frame) {
            if !self.large.take(&self.parts, packet, frame, data)? {
                return Ok(false);
            }
        } else {
            let tag = self.parts.tag(frame);
            let len = data.len() + if tag.is_some() { TAG } else { 0 };
            match packet.append(len) {
                Some(to) => copy(data, tag, to),
                None => self.large.chain(&self.parts, packet, frame, data)?,
            }
        }
        let noted = libc::TP_STATUS_CSUMNOTREADY | libc::TP_STATUS_VLAN_VALID;
        if frame.status & noted != 0 || self.parts.offload_work.accepted.is_some() {
            self.note(packet, frame)?;
        }
        Ok(true)
    }

    /// Counts a frame that is dropped, and shows its available bytes to captures.
    #[cold]
    fn lose(&self, loss: RxLoss, mut packet: Packet, frame: &Frame) {
        if let Some(data) = frame.data.filter(|_| packet.is_empty()) {
            let front = data.len().min(packet.tailroom());
            if let (Some(data), Some(to)) = (data.slice(0, front), packet.append(front)) {
                data.copy_to(to);
            }
        }
        self.parts.stats.dropped(loss, &packet);
    }

    /// Records the checksum, segments and tag, as the kernel reports them.
    fn note(&self, packet: &mut Packet, frame: &Frame) -> Result<(), RxLoss> {
        match self.parts.offload_work.accepted {
            Some(accepted) => self.describe(packet, frame, accepted)?,
            None if frame.status & libc::TP_STATUS_CSUMNOTREADY != 0 => finish(packet),
            None => {}
        }
        if let Some(vlan) = self.parts.vlan(frame) {
            vlan.note(packet);
        }
        Ok(())
    }

    /// Applies the header for an application that accepts offloads.
    fn describe(&self, packet: &mut Packet, frame: &Frame, accepted: AcceptedOffloads) -> Result<(), RxLoss> {
        if frame.header().is_some_and(NetHeader::is_plain) {
            return Ok(());
        }
        let request = self.parts.request(frame, packet.len())?;
        describe(packet, request, accepted).map_err(|_| RxLoss::BadOffload)
    }

    /// Adds the frames that have arrived; returns the number of packets and their bytes.
    #[inline]
    fn receive(&mut self, packets: &mut Burst) -> (usize, u64) {
        let (first, mut bytes) = (packets.len(), 0);
        // Bad frames count too, so that a sender of bad frames cannot keep the thread here.
        let mut left = packets.room();
        loop {
            if self.large.is_pending() {
                bytes += self.large.pieces(&self.parts, packets);
                if self.large.is_pending() {
                    return (packets.len() - first, bytes);
                }
            }
            let (mut end, ready) = (packets.len(), self.ring.ready(left.min(packets.room())));
            let count = self.buffers(packets, ready);
            if count == 0 {
                return (packets.len() - first, bytes);
            }
            left -= count;
            for _ in 0..count {
                let frame = self.ring.front();
                match self.fill(&mut packets[end], &frame) {
                    Ok(true) => {
                        bytes += packets[end].len() as u64;
                        end += 1;
                    }
                    Ok(false) => {
                        // Its segments precede the later frames.
                        while packets.len() > end {
                            packets.pop();
                        }
                        self.ring.release();
                        break;
                    }
                    Err(loss) => {
                        // The half-filled packet cannot be reused for the next frame.
                        if let Some(packet) = packets.swap_remove(end) {
                            self.lose(loss, packet, &frame);
                        }
                    }
                }
                self.ring.release();
            }
        }
    }
}

/// Completes a checksum that a local sender left to hardware. Protocols other than TCP and UDP are left
/// unchanged.
#[cold]
fn finish(packet: &mut Packet) {
    let partial = Partial::of(&parse(packet.data()));
    let accepted = AcceptedOffloads { csum: true, ..AcceptedOffloads::default() };
    if partial.is_some() && describe(packet, Request { partial, ..Request::default() }, accepted).is_ok() {
        finish_received(std::slice::from_mut(packet));
    }
}

/// Copies the frame's bytes, with the tag inserted.
#[inline(always)]
fn copy(data: SharedBytes, tag: Option<(u16, u16)>, to: &mut [u8]) {
    match tag {
        None => drop(data.copy_to(to)),
        Some(tag) => copy_tagged(data, tag, to),
    }
}

#[cold]
fn copy_tagged(data: SharedBytes, tag: (u16, u16), to: &mut [u8]) {
    let at = ADDRESSES.min(data.len());
    data.copy_to(&mut to[..at]);
    put_tag(to, at, tag);
    if let (Some(rest), Some(to)) = (data.slice(at, data.len() - at), to.get_mut(at + TAG..)) {
        rest.copy_to(to);
    }
}

fn put_tag(to: &mut [u8], at: usize, (tci, protocol): (u16, u16)) {
    if let Some(place) = to.get_mut(at..at + TAG) {
        place[..2].copy_from_slice(&protocol.to_be_bytes());
        place[2..].copy_from_slice(&tci.to_be_bytes());
    }
}

impl<R: Ring> RxQueue for Rx<R> {
    fn rx_burst(&mut self, packets: &mut Burst) -> usize {
        let (count, bytes) = self.receive(packets);
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

    fn arm(&mut self) -> Armed {
        if self.large.is_pending() || self.ring.ready(1) > 0 {
            return Armed::Ready;
        }
        arm_descriptor(&*self.parts.socket)
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        Some(self.parts.socket.as_fd())
    }
}

impl<R> Drop for Rx<R> {
    fn drop(&mut self) {
        self.parts.drops.collect();
    }
}
