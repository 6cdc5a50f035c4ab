//! The split ring: arbitrary operations against the oracle, and arbitrary bytes in every ring word.

use linecard_virtio::Layout;
use linecard_virtio::model::{self, Step, Variant};

/// What one run is made of.
pub type Input = ([u8; 5], Vec<[u8; 2]>, Vec<Step>);

/// One run.
pub fn run(input: Input) {
    let (shape, ops, steps) = input;
    let variant = Variant::from_bytes(Layout::Split, shape);
    model::run(variant, &ops);
    model::run_hostile(variant, &steps);
}
