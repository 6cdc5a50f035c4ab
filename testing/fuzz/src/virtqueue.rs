//! A virtqueue of either layout: arbitrary operations against the oracle, and arbitrary bytes in every ring word.

use linecard_virtio::Layout;
use linecard_virtio::model::{self, Step, Variant};

/// What one run is made of.
pub type Input = ([u8; 5], Vec<[u8; 2]>, Vec<Step>);

/// One run over a split ring.
pub fn split(input: Input) {
    run(Layout::Split, input);
}

/// One run over a packed ring.
pub fn packed(input: Input) {
    run(Layout::Packed, input);
}

fn run(layout: Layout, input: Input) {
    let (shape, ops, steps) = input;
    let variant = Variant::from_bytes(layout, shape);
    model::run(variant, &ops);
    model::run_hostile(variant, &steps);
}
