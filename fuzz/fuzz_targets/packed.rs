//! The packed ring: arbitrary operations against the oracle, and arbitrary bytes in every ring word.
#![no_main]

use libfuzzer_sys::fuzz_target;
use linecard_virtio::Layout;
use linecard_virtio::model::{Step, Variant, run, run_hostile};

fuzz_target!(|input: ([u8; 5], Vec<[u8; 2]>, Vec<Step>)| {
    let (shape, ops, steps) = input;
    let variant = Variant::from_bytes(Layout::Packed, shape);
    run(variant, &ops);
    run_hostile(variant, &steps);
});
