//! Differential tests of the fast paths and the slow path: random batches go through both, with the same
//! visible results.
//!
//! ```text
//!                ┌─► side A: bursts as they are  ─┐
//!   same batch ──┤                                ├─► same packets, counters, fault, bytes, completions
//!                └─► side B: the slow way alone  ─┘
//! ```
//! The module `direct` compares frames that are copied once from ring to ring with the same frames as
//! packets.
//!
//! Batches contain plain and other chains, headers of all kinds, and occasionally corrupted words in the
//! ring. `LINECARD_BATCHES` sets the number of batches in each direction, for all variants together.

mod dequeue;
mod direct;
mod enqueue;
mod side;

use linecard_lab::contract::Prng;
use linecard_virtio::Layout;

/// The properties of a ring, for one run of batches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    layout: Layout,
    size: u16,
    base: u32,
    /// The number of entries of an indirect table; 0 for none.
    indirect: u16,
    /// The size of the virtio header before each packet, in bytes.
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
