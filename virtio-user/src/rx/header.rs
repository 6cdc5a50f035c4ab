//! Reads the header before received data. Each byte is read once, since the backend may change it at any
//! time.

use linecard_mempool::{Packet, PacketType};
use linecard_virtio::net::{HashReport, NetHeader};

use crate::path::{HEADER, header_len};

/// Reads the parts of the header before `data` that the path needs, once: the backend may change it at any
/// time.
///
/// # Safety
/// `data` is the address of the data of a packet that we own, preceded by a header.
#[inline(always)]
pub(super) unsafe fn read_header<const MERGE: bool, const OFFLOAD: bool, const HASH: bool>(
    data: u64,
) -> NetHeader {
    if OFFLOAD {
        let mut bytes = [0_u8; HEADER as usize];
        let at = data.wrapping_sub(u64::from(header_len(HASH))) as *const u8;
        // SAFETY: the bytes are the header, as promised; they are copied, not referenced.
        unsafe { std::ptr::copy_nonoverlapping(at, bytes.as_mut_ptr(), bytes.len()) };
        return NetHeader::from_bytes(bytes);
    }
    let mut bytes = [1_u8, 0];
    if MERGE {
        // SAFETY: the two bytes are part of the header, as promised; they are copied, not referenced.
        unsafe { std::ptr::copy_nonoverlapping((data.wrapping_sub(2)) as *const u8, bytes.as_mut_ptr(), 2) };
    }
    NetHeader { num_buffers: u16::from_le_bytes(bytes), ..NetHeader::default() }
}

/// Reads the hash from the header before `data`; `None` if the device hashed nothing.
///
/// # Safety
/// `data` is the address of the data of a packet that we own, preceded by a header with a hash.
#[inline(always)]
pub(super) unsafe fn read_hash(data: u64) -> Option<(u32, PacketType)> {
    let mut bytes = [0_u8; 8];
    let at = data.wrapping_sub(bytes.len() as u64) as *const u8;
    // SAFETY: the bytes are the end of the header, as promised; they are copied, not referenced.
    unsafe { std::ptr::copy_nonoverlapping(at, bytes.as_mut_ptr(), bytes.len()) };
    HashReport::from_bytes(bytes).hash()
}

/// Stores the hash and, if the packet's type is not known yet, the type that the device reports.
#[inline(always)]
pub(super) fn note_hash(packet: &mut Packet, (hash, kind): (u32, PacketType)) {
    packet.set_hash(hash);
    if packet.packet_type() == PacketType::UNKNOWN {
        packet.set_packet_type(kind);
    }
}
