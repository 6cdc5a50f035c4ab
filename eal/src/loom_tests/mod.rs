//! Every interleaving of the two sides of gates, of quiescent states and of wake-ups, on loom's atomics:
//! `RUSTFLAGS="--cfg loom" cargo test --release -p linecard-eal --lib loom_tests`.

mod gate;
mod quiescence;
mod wake;
