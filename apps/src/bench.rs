//! `linecard bench`, where this program has it (feature `bench`).

#[cfg(not(feature = "bench"))]
mod absent;

#[cfg(not(feature = "bench"))]
pub(crate) use absent::{BenchArgs, EndArgs, Error, run, run_end};
#[cfg(feature = "bench")]
pub(crate) use linecard_bench::{BenchArgs, EndArgs, Error, run, run_end};
