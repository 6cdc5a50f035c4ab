//! Any sequence of operations on a switch's table of addresses, of any size and secret, compared with a map.

use linecard_switch::model::{self, Op};

/// The input of one run.
pub type Input = (u8, u64, Vec<[u8; 4]>);

/// Executes one run.
pub fn run(input: Input) {
    let (capacity, secret, ops) = input;
    let ops: Vec<Op> = ops.into_iter().take(4096).map(Op::from_bytes).collect();
    model::run(capacity, secret, &ops);
}
