//! Every interleaving of the two sides of gates and of quiescent states, on loom's atomics:
//! `RUSTFLAGS="--cfg loom" cargo test --release -p linecard-eal --lib loom_tests`.

mod gate;
mod quiescence;
