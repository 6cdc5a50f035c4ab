//! What the commands of `linecard` that run in several processes share: the demo and the benchmarks.
//!
//! | module | what |
//! |---|---|
//! | [`PrivateFolder`] | a folder for sockets, gone with its process however that ends |
//! | [`Track`] | which numbers of a sequence arrived |
//! | [`clock`] | the kernel's clocks, which all processes share |
//! | [`log`] | what libraries report, on standard error |
#![forbid(unsafe_code)]

pub mod clock;
mod folder;
pub mod log;
mod track;

pub use folder::{PrivateFolder, REMOVER, run_remover};
pub use track::Track;

/// The operating system said no; one sentence with the remedy.
///
/// ```
/// let error = linecard_apps_common::Error {
///     action: "no folder for a socket can be made in /tmp".into(),
///     source: std::io::ErrorKind::NotFound.into(),
///     remedy: "point TMPDIR at a folder that you may write",
/// };
/// assert!(error.to_string().ends_with("; point TMPDIR at a folder that you may write"));
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{action}: {source}; {remedy}")]
pub struct Error {
    /// What was tried.
    pub action: String,
    /// What the system answered.
    pub source: std::io::Error,
    /// What to do.
    pub remedy: &'static str,
}

/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
