//! `linecard`: packets through virtio-user and vhost-user ports, from one command.
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
mod signals;
mod switch;
mod testpmd;
mod top;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use crate::error::Error;

/// What a shell says of a program that SIGPIPE ended: 128 and the signal's number.
const READER_GONE: u8 = 141;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    // A file that reaches a limit (ulimit -f) is told as a full disk is; without a handler the kernel ends the process in
    // the middle of a record.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
    match run(&arguments) {
        Ok(code) => code,
        // As the other tools of a pipeline, which SIGPIPE ends: `| head` had what it wanted.
        Err(error) if error.is_reader_gone() => ExitCode::from(READER_GONE),
        Err(error) => {
            output::complain(&error);
            error.exit_code()
        }
    }
}

/// testpmd keeps DPDK's grammar, `--` included, so it is not shown to clap.
fn run(arguments: &[OsString]) -> Result<ExitCode, Error> {
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
        Some((app, rest)) if app == "testpmd" => testpmd::run(rest),
        _ => cli::run(arguments),
    }
}
