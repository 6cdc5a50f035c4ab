//! A virtqueue of either layout: arbitrary operations compared with a model, and arbitrary bytes in every
//! ring word.

use linecard_virtio::Layout;
use linecard_virtio::model::{self, Step, Variant};

/// The input of one run.
pub type Input = ([u8; 5], Vec<[u8; 2]>, Vec<Step>);

/// Executes one run on a split ring.
pub fn split(input: Input) {
    run(Layout::Split, input);
}

/// Executes one run on a packed ring.
pub fn packed(input: Input) {
    run(Layout::Packed, input);
}

fn run(layout: Layout, input: Input) {
    let (shape, ops, steps) = input;
    let variant = Variant::from_bytes(layout, shape);
    model::run(variant, &ops);
    model::run_hostile(variant, &steps);
}
