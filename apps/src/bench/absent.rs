//! `linecard bench` in a program that was built without benchmarks.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;

/// Whatever was asked for.
#[derive(Args)]
pub(crate) struct BenchArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _arguments: Vec<OsString>,
}

/// The same as [`BenchArgs`].
pub(crate) type EndArgs = BenchArgs;

/// There are no benchmarks.
#[derive(Debug, thiserror::Error)]
#[error(
    "this program was built without benchmarks; build one that has them: cargo build --release -p linecard-apps"
)]
pub(crate) struct Error;

/// Measures nothing.
///
/// # Errors
/// Always.
pub(crate) fn run(_: BenchArgs) -> Result<(), Error> {
    Err(Error)
}

/// The same as [`run`].
///
/// # Errors
/// Always.
pub(crate) fn run_end(_: &EndArgs) -> Result<ExitCode, Error> {
    Err(Error)
}
