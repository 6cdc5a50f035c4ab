//! The fast ways against the slow one: random batches go through both, and nobody can tell which way they went.
//!
//! ```text
//!                ┌─► side A: bursts as they are  ─┐
//!   same batch ──┤                                ├─► same packets, counters, fault, bytes, completions
//!                └─► side B: the slow way alone  ─┘
//! ```
//! Batches hold plain and odd chains, headers of all kinds, and, now and then, words of the ring that are spoiled.
//! `LINECARD_BATCHES` is how many there are in each direction, for all variants together.

mod dequeue;
mod enqueue;
mod side;

use linecard_virtio::Layout;

/// Numbers that follow from a seed (xorshift64*).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Less than `end`.
    fn below(&mut self, end: usize) -> usize {
        (self.roll() >> 32) as usize % end
    }

    fn percent(&mut self, of_hundred: usize) -> bool {
        self.below(100) < of_hundred
    }
}

/// What a ring is like, for one run of batches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    layout: Layout,
    size: u16,
    base: u32,
    /// Entries of an indirect table; 0 is none.
    indirect: u16,
    /// Bytes before each packet.
    header: u32,
}

impl Shape {
    fn random(layout: Layout, merge: bool, dice: &mut Dice) -> Self {
        let (size, base) = match layout {
            Layout::Split => (1 << dice.below(6), dice.below(65_536) as u32),
            Layout::Packed => {
                let size = dice.below(32) as u16 + 1;
                let at = dice.below(usize::from(size)) as u32 | (dice.below(2) as u32) << 15;
                (size, at | at << 16)
            }
        };
        let indirect = if dice.percent(40) { (dice.below(8) as u16 + 1).min(size) } else { 0 };
        Self { layout, size, base, indirect, header: if merge || dice.percent(70) { 12 } else { 10 } }
    }
}

/// Batches for each of `variants` kinds of path.
fn batches(variants: usize) -> usize {
    let given = std::env::var("LINECARD_BATCHES").ok().and_then(|text| text.parse().ok());
    given.unwrap_or(1_000_000_usize).div_ceil(variants)
}
