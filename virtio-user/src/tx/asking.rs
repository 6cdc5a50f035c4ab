//! Packets with offload requests, which their header describes to the backend.

use std::mem::ManuallyDrop;

use linecard_mempool::{Meta, Packet};
use linecard_pmd::offload::TxRequest;
use linecard_virtio::net::{GSO_NONE, HDR_LEN, NetHeader};
use linecard_virtio::{Buffer, DriverQueue, Element};

use super::cold::{EVERYWHERE, SEGMENTS, dropped};
use super::{LONGEST, SLOW, Tx, TxOutcome, line_of};
use crate::losses::TxLoss;
use crate::path::clear_header;

/// The longest packet for segmentation, in bytes: IP's maximum, and an Ethernet header with two tags.
const LARGEST: u32 = linecard_net::ether::LONGEST_FRAME as u32;

type HeaderBytes = [u8; HDR_LEN as usize];

impl<Q: DriverQueue, const OFFLOAD: bool, const HASH: bool> Tx<Q, OFFLOAD, HASH> {
    /// Sends a packet whose metadata requests an offload, if the backend accepts that.
    pub(super) fn send_asking(&mut self, packet: ManuallyDrop<Packet>, len: usize) -> TxOutcome {
        let asked = TxRequest::of(&packet).ok().flatten().filter(|asked| asked.is_taken(self.parts.accepted));
        let Some(header) = asked.map(|asked| NetHeader::asking(asked.request())) else {
            return self.drop_as(TxLoss::BadOffload, packet);
        };
        let longest = if header.gso_type == GSO_NONE { LONGEST } else { LARGEST };
        if len > longest as usize {
            return self.drop_as(TxLoss::TooLong, packet);
        }
        if self.queue.free() == 0 {
            return TxOutcome::Full;
        }
        // A driver sets `num_buffers` to zero (virtio 1.3, Network Device: Packet Transmission).
        let header = NetHeader { num_buffers: 0, ..header }.to_bytes();
        let mut places = [Element { addr: 0, len: 0 }; SEGMENTS];
        if has_own_headroom(&packet, Self::HEADER)
            && let Some(count) = self.places(&packet, &mut places, self.parts.window.now())
        {
            return self.send_headed(packet, header, &mut places[1..count], len);
        }
        self.send_headed_copy(packet, header, len)
    }

    /// Sends a packet with its header in its own headroom. `places` begins with the first segment.
    fn send_headed(
        &mut self,
        packet: ManuallyDrop<Packet>,
        header: HeaderBytes,
        places: &mut [Element],
        len: usize,
    ) -> TxOutcome {
        if !self.add_headed(&packet, header, places) {
            return TxOutcome::Full;
        }
        // The packet belongs to the queue now: its token is in the ring.
        let _ = ManuallyDrop::into_inner(packet).into_raw();
        TxOutcome::Sent(len as u64)
    }

    /// Sends a copy of a packet that the backend cannot reach, or that has no headroom of its own.
    fn send_headed_copy(
        &mut self,
        packet: ManuallyDrop<Packet>,
        header: HeaderBytes,
        len: usize,
    ) -> TxOutcome {
        let Some(copy) = packet.copy(&self.parts.pool) else {
            return self.drop_as(TxLoss::NoBuffer, packet);
        };
        let mut places = [Element { addr: 0, len: 0 }; SEGMENTS];
        let Some(count) =
            self.places(&copy, &mut places, EVERYWHERE).filter(|_| has_own_headroom(&copy, Self::HEADER))
        else {
            return self.drop_as(TxLoss::TooLong, packet);
        };
        if !self.add_headed(&copy, header, &mut places[1..count]) {
            return TxOutcome::Full;
        }
        // As in `send_headed`.
        let _ = copy.into_raw();
        dropped(packet);
        TxOutcome::Sent(len as u64)
    }

    /// Writes the header before the first segment and adds both to the ring; false if the ring has no room.
    fn add_headed(&mut self, packet: &Packet, header: HeaderBytes, places: &mut [Element]) -> bool {
        let Some(first) = places.first_mut() else { return false };
        first.addr = first.addr.wrapping_sub(u64::from(Self::HEADER));
        first.len = first.len.wrapping_add(Self::HEADER);
        if HASH {
            // SAFETY: the packet's first segment is its own and has room for the header (`has_own_headroom`).
            unsafe { clear_header::<HASH>(first.addr) };
        }
        // SAFETY: the packet's first segment is its own and has twelve bytes of headroom (`has_own_headroom`).
        unsafe { std::ptr::copy_nonoverlapping(header.as_ptr(), first.addr as *mut u8, header.len()) };
        let token = packet.as_raw().as_ptr() as u64 | SLOW;
        match *places {
            [Element { addr, len }] => self.queue.add(Buffer { addr, len, token }).is_ok(),
            _ => self.queue.add_chain(places, token).is_ok(),
        }
    }
}

/// Returns whether the header fits into the headroom of the first segment, in a buffer that is not shared.
fn has_own_headroom(packet: &Packet, header: u32) -> bool {
    let state = line_of(packet).state();
    state & (Meta::SHARED | Meta::INDIRECT | Meta::EXTERNAL) == 0
        && packet.headroom() >= header as usize
        && packet.data_len() > 0
}
