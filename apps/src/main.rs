//! The command `linecard`: packet processing with virtio-user and vhost-user ports.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    linecard_apps::command(&arguments)
}
