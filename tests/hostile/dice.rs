//! Chance that can be repeated.

use std::time::SystemTime;

use crate::frontend::GUEST;

/// Numbers that follow from a seed (xorshift64*).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn seeded(test: &str) -> Self {
        let given = std::env::var("LINECARD_HOSTILE_SEED").ok().and_then(|text| text.parse().ok());
        let now = SystemTime::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64);
        let seed: u64 = given.unwrap_or(now) | 1;
        println!("{test}: LINECARD_HOSTILE_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    pub(crate) fn percent(&mut self, of_hundred: u64) -> bool {
        self.below(100) < of_hundred
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.roll().to_le_bytes()).take(len).collect()
    }

    /// A number that sits on an edge, or anywhere.
    pub(crate) fn edge(&mut self) -> u64 {
        const EDGES: [u64; 12] =
            [0, 1, 2, 255, 256, 32_768, 32_769, 65_535, 65_536, u32::MAX as u64, u64::MAX, GUEST];
        if self.percent(70) { EDGES[self.below(EDGES.len() as u64) as usize] } else { self.roll() }
    }
}
