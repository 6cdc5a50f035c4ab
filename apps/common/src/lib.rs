//! Code shared by those commands of `linecard` that run in several processes: the demo and the benchmarks.
//!
//! | module | contents |
//! |---|---|
//! | [`PrivateFolder`] | a folder for sockets, removed with its process however that ends |
//! | [`Track`] | the numbers of a sequence that arrived |
//! | [`clock`] | the kernel's clocks, which all processes share |
//! | [`log`] | log messages of the libraries, on standard error |
#![forbid(unsafe_code)]

pub mod clock;
mod folder;
pub mod log;
mod track;

pub use folder::{PrivateFolder, REMOVER, run_remover};
pub use track::Track;

/// An error of the operating system, with its remedy.
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
    /// The action that failed.
    pub action: String,
    /// The error that the system returned.
    pub source: std::io::Error,
    /// The remedy.
    pub remedy: &'static str,
}

/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
