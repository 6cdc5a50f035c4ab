//! Reproducible random batches, for tests that send the same packets on two paths and compare the results.

use linecard_mempool::{Packet, Pool};
pub use linecard_testing::Prng;

/// Returns the number of batches for each of `variants` kinds of path; `LINECARD_BATCHES` is the number for
/// all together.
///
/// ```
/// assert!(linecard_lab::contract::batches(8) <= linecard_lab::contract::batches(1));
/// ```
#[must_use]
pub fn batches(variants: usize) -> usize {
    let given = std::env::var("LINECARD_BATCHES").ok().and_then(|text| text.parse().ok());
    given.unwrap_or(1_000_000_usize).div_ceil(variants)
}

/// Returns a packet in segments of these lengths, at least one, with every byte `fill`. If the headers fit
/// into the first segment, it is IPv4 with this protocol (6 or 17) and the right length.
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Pool, PoolConfig};
/// use linecard_net::{PacketType, parse};
/// use linecard_lab::contract::segmented;
/// # let pool = Pool::new(&Memory::new(MemoryConfig::default())?.domain("packets")?, PoolConfig::default())?;
/// let packet = segmented(&pool, &[60, 40], 7, 6);
/// assert_eq!((packet.len(), packet.nb_segs()), (100, 2));
/// assert_eq!(parse(packet.data()).packet_type.l4(), PacketType::L4_TCP);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
/// `pool` has too few buffers, or too small ones.
#[must_use]
pub fn segmented(pool: &Pool, lengths: &[usize], fill: u8, protocol: u8) -> Packet {
    let segment = |len: &usize| {
        let mut segment = pool.get().expect("a packet");
        segment.append(*len).expect("room").fill(fill);
        segment
    };
    let (first, rest) = lengths.split_first().expect("at least one segment");
    let mut packet = segment(first);
    for len in rest {
        packet.chain(segment(len)).map_err(drop).expect("a chain");
    }
    let total = (packet.len() as u16).saturating_sub(14).to_be_bytes();
    let data = packet.data_mut().expect("not shared");
    if data.len() >= 54 {
        data[12..24].copy_from_slice(&[8, 0, 0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, protocol]);
        data[46] = 0x50;
    }
    packet
}
