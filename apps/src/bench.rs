//! `linecard bench`, if this program was built with the feature `bench`.

#[cfg(not(feature = "bench"))]
mod absent;

#[cfg(not(feature = "bench"))]
pub(crate) use absent::{BenchArgs, EndArgs, Error, run, run_end};
#[cfg(feature = "bench")]
pub(crate) use linecard_bench::{BenchArgs, EndArgs, Error, run, run_end};
