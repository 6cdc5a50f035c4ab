//! Frames that can be told from each other, and from those that somebody else sends.

use std::time::{Duration, Instant};

use linecard_mempool::{Packet, Pool};

/// IEEE 802's first EtherType for local experiments.
const MARK: [u8; 2] = [0x88, 0xb5];

/// Longest that the suite waits for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A frame of `len` bytes, different for every `seed`; with a whole Ethernet header where there is room.
pub(super) fn frame(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    let mut bytes: Vec<u8> = (0..len).map(|_| next()).collect();
    if let Some(header) = bytes.first_chunk_mut::<14>() {
        header[0] = 0x02;
        header[6] = 0x02;
        header[12..].copy_from_slice(&MARK);
    }
    bytes
}

/// Whether a frame may be one of ours.
pub(super) fn is_marked(frame: &[u8]) -> bool {
    frame.get(12..14).is_none_or(|kind| kind == MARK)
}

/// Tries until `step` gives something; panics with `what` after [`PATIENCE`].
pub(super) fn eventually<T>(what: &str, mut step: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(done) = step() {
            return done;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: nothing for {PATIENCE:?}");
        std::thread::yield_now();
    }
}

/// A packet of `pool` with the bytes of `frame`, in segments of at most `piece` bytes; `None` while
/// the pool has none.
pub(super) fn packet(pool: &Pool, frame: &[u8], piece: usize) -> Option<Packet> {
    let piece = piece.clamp(1, pool.data_room().into());
    let mut whole: Option<Packet> = None;
    for part in frame.chunks(piece) {
        let mut segment = pool.get()?;
        segment.append(part.len()).expect("no longer than a buffer").copy_from_slice(part);
        match &mut whole {
            None => whole = Some(segment),
            Some(head) => head.chain(segment).expect("segments can be chained"),
        }
    }
    whole
}

/// The bytes of a packet, all its segments.
pub(super) fn bytes(packet: &Packet) -> Vec<u8> {
    packet.segments().flat_map(|segment| segment.data().iter().copied()).collect()
}
