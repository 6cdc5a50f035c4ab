//! The command `linecard` as a library, for programs that add their own drivers.
//!
//! [`testpmd`] is `linecard testpmd` with the given drivers; `apps/examples/own_driver.rs` is a complete
//! program. The rest of the command has no library interface: to build other applications, use the crate
//! `linecard`.
#![forbid(unsafe_code)]

mod bench;
mod capture;
mod cli;
mod cni;
mod demo;
mod doctor;
mod error;
mod manual;
mod output;
mod port;
mod screen;
mod signals;
mod switch;
mod testpmd;
mod top;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use linecard::pmd::Registry;

use crate::error::Error;

/// The exit status that a shell reports for a program killed by SIGPIPE: 128 plus the signal's number.
const READER_GONE: u8 = 141;

/// Runs `linecard` with the arguments after its name; prints to standard output and standard error.
///
/// ```
/// use std::process::ExitCode;
/// assert_eq!(linecard_apps::command(&["--version".into()]), ExitCode::SUCCESS);
/// assert_ne!(linecard_apps::command(&["--no-such-option".into()]), ExitCode::SUCCESS);
/// ```
#[must_use = "it is what the process ends with"]
pub fn command(arguments: &[OsString]) -> ExitCode {
    // Must run before any thread is started.
    linecard::eal::gate::register_fences();
    finish(run(arguments))
}

/// Runs `linecard testpmd` with the drivers of `known`, for `--vdev` and the console's `port attach`. The
/// arguments are those after the program's name.
///
/// ```
/// use linecard::pmd::Registry;
/// use std::process::ExitCode;
///
/// let known = linecard::drivers(); // .with(&MyDriver)
/// let arguments = |device: &str| ["--no-huge", "-m", "32", "--vdev", device].map(std::ffi::OsString::from);
/// // None of ours among none.
/// assert_ne!(linecard_apps::testpmd(&Registry::new(&[]), &arguments("net_null0")), ExitCode::SUCCESS);
/// assert_eq!(linecard_apps::testpmd(&known, &["--help".into()]), ExitCode::SUCCESS);
/// ```
#[must_use = "it is what the process ends with"]
pub fn testpmd(known: &Registry, arguments: &[OsString]) -> ExitCode {
    finish(testpmd::run(known, arguments))
}

/// Prints an error, if any, and returns the exit status of the process.
fn finish(result: Result<ExitCode, Error>) -> ExitCode {
    match result {
        Ok(code) => code,
        // The same status as other tools of a pipeline, which SIGPIPE kills: after `| head` this is no
        // failure.
        Err(error) if error.is_reader_gone() => ExitCode::from(READER_GONE),
        Err(error) => {
            output::complain(&error);
            error.exit_code()
        }
    }
}

/// Selects the command. testpmd parses its own arguments, because clap cannot express DPDK's grammar with
/// `--`.
fn run(arguments: &[OsString]) -> Result<ExitCode, Error> {
    // With a handler, a file that reaches its limit (ulimit -f) is reported like a full disk; without one the
    // kernel kills the process in the middle of a record.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
    if cni::is_called_by_a_runtime(arguments) {
        return cni::run_plugin();
    }
    if let Some(request) = linecard_cni::netavark::Request::of(arguments) {
        return cni::answer_netavark(&request);
    }
    if let Some(rest) = capture::extcap::called(arguments) {
        return capture::extcap::run(rest);
    }
    match arguments.split_first() {
        Some((app, rest)) if app == "testpmd" => testpmd::run(&linecard::drivers(), rest),
        _ => cli::run(arguments),
    }
}

/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
