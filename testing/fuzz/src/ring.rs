//! Any sequence of operations on a ring of any size, from any start index, in every pair of modes, compared
//! with a deque.

use linecard_ring::model::{self, Op};

/// The input of one run.
pub type Input = (u8, u32, Vec<[u8; 3]>);

/// Executes one run.
pub fn run(input: Input) {
    let (capacity, start, ops) = input;
    let ops: Vec<Op> = ops.into_iter().take(4096).map(Op::from_bytes).collect();
    model::run(capacity, start, &ops).expect("rings of at most 256 elements fit the heap");
}
