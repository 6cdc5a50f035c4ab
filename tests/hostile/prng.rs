//! Chance that can be repeated.

use std::time::SystemTime;

use crate::frontend::GUEST;

/// Random numbers, and those on which peers are tried.
pub(crate) struct Prng(linecard_testing::Prng);

impl Prng {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(linecard_testing::Prng::new(seed))
    }

    pub(crate) fn seeded(test: &str) -> Self {
        let given = std::env::var("LINECARD_HOSTILE_SEED").ok().and_then(|text| text.parse().ok());
        let now = SystemTime::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64);
        let seed: u64 = given.unwrap_or(now);
        println!("{test}: LINECARD_HOSTILE_SEED={seed}");
        Self::new(seed)
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0.roll()
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    pub(crate) fn percent(&mut self, of_hundred: u64) -> bool {
        self.below(100) < of_hundred
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        self.0.bytes(len)
    }

    /// A number that sits on an edge, or anywhere.
    pub(crate) fn edge(&mut self) -> u64 {
        const EDGES: [u64; 12] =
            [0, 1, 2, 255, 256, 32_768, 32_769, 65_535, 65_536, u32::MAX as u64, u64::MAX, GUEST];
        if self.percent(70) { EDGES[self.below(EDGES.len() as u64) as usize] } else { self.roll() }
    }
}
