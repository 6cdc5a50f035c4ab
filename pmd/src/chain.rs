//! Bytes in as many buffers as they take.

use linecard_mempool::{Packet, Pool};

/// A packet with these bytes, in segments of at most `piece` bytes and no larger than a buffer of `pool`. `None` where
/// the pool has too few buffers, or a packet cannot have as many segments; for no bytes too.
pub(crate) fn packet_of(pool: &Pool, bytes: &[u8], piece: usize) -> Option<Packet> {
    let mut whole: Option<Packet> = None;
    for part in bytes.chunks(piece.clamp(1, usize::from(pool.data_room()).max(1))) {
        let mut segment = pool.get()?;
        segment.append(part.len())?.copy_from_slice(part);
        match &mut whole {
            None => whole = Some(segment),
            Some(head) => head.chain(segment).ok()?,
        }
    }
    whole
}
