//! `linecard bench`: benchmarks beside DPDK's.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::error::Error;

/// Runs the benchmark that `arguments` name.
///
/// # Errors
/// No benchmark of that name.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode, Error> {
    let asked = arguments.first().map_or("no benchmark".into(), |a| a.to_string_lossy());
    Err(Error::Usage(format!("{asked} cannot be measured by this build; name one that `linecard bench --help` lists")))
}
