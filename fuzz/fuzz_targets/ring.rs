//! Any sequence of operations on a ring of any size, from any start index, in every pairing of modes, against a deque.
#![no_main]

use libfuzzer_sys::fuzz_target;
use linecard_ring::model::{Op, run};

fuzz_target!(|input: (u8, u32, Vec<[u8; 3]>)| {
    let (capacity, start, ops) = input;
    let ops: Vec<Op> = ops.into_iter().take(4096).map(Op::from_bytes).collect();
    run(capacity, start, &ops).expect("rings of at most 256 elements fit the heap");
});
