//! The fast ways against the slow one: random batches go through both, and nobody can tell which way they went.
//!
//! ```text
//!                ┌─► side A: bursts as they are  ─┐
//!   same batch ──┤                                ├─► same packets, counters, fault, bytes, completions
//!                └─► side B: the slow way alone  ─┘
//! ```
//! And frames that are copied once from ring to ring against the same frames as packets, in `direct`.
//!
//! Batches hold plain and odd chains, headers of all kinds, and, now and then, words of the ring that are spoiled.
//! `LINECARD_BATCHES` is how many there are in each direction, for all variants together.

mod dequeue;
mod direct;
mod enqueue;
mod side;

use linecard_lab::contract::Prng;
use linecard_virtio::Layout;

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
    fn random(layout: Layout, merge: bool, dice: &mut Prng) -> Self {
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
