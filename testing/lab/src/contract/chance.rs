//! Random batches that can be repeated: for tests that send the same packets two ways and compare what comes.

use linecard_mempool::{Packet, Pool};

/// Numbers that follow from a seed (xorshift64*).
///
/// ```
/// use linecard_lab::contract::Dice;
/// let (mut one, mut other) = (Dice::new(7), Dice::new(7));
/// assert_eq!(one.roll(), other.roll());
/// assert!(one.below(6) < 6);
/// ```
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// The numbers of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number less than `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.roll() >> 32) as usize % end
    }

    /// True so many times of a hundred.
    pub fn percent(&mut self, of_hundred: usize) -> bool {
        self.below(100) < of_hundred
    }
}

/// Batches for each of `variants` kinds of path; `LINECARD_BATCHES` is how many there are for all of them.
///
/// ```
/// assert!(linecard_lab::contract::batches(8) <= linecard_lab::contract::batches(1));
/// ```
#[must_use]
pub fn batches(variants: usize) -> usize {
    let given = std::env::var("LINECARD_BATCHES").ok().and_then(|text| text.parse().ok());
    given.unwrap_or(1_000_000_usize).div_ceil(variants)
}

/// A packet in segments of these lengths, one or more, every byte `fill`; where the first has room for the headers, IPv4
/// with this protocol (6 or 17) and the right length.
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
    let data = packet.data_mut();
    if data.len() >= 54 {
        data[12..24].copy_from_slice(&[8, 0, 0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, protocol]);
        data[46] = 0x50;
    }
    packet
}
