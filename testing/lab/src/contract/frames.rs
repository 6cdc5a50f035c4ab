//! Frames that are distinguishable from each other, and from other senders' frames.

use linecard_mempool::Packet;
use linecard_testing::Prng;

/// IEEE 802's first EtherType for local experiments.
const MARK: [u8; 2] = [0x88, 0xb5];

/// Returns a frame of `len` bytes, different for every `seed`; with a complete Ethernet header if it fits.
pub(super) fn frame(seed: u32, len: usize) -> Vec<u8> {
    let mut bytes = Prng::new(seed.into()).bytes(len);
    if let Some(header) = bytes.first_chunk_mut::<14>() {
        header[0] = 0x02;
        header[6] = 0x02;
        header[12..].copy_from_slice(&MARK);
    }
    bytes
}

/// Whether a frame may be one of the suite's.
pub(super) fn is_marked(frame: &[u8]) -> bool {
    frame.get(12..14).is_none_or(|kind| kind == MARK)
}

/// Returns the bytes of all segments of a packet.
pub(super) fn bytes(packet: &Packet) -> Vec<u8> {
    packet.segments().flat_map(|segment| segment.data().iter().copied()).collect()
}
