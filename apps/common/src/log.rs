//! What libraries report, on standard error.

use std::io::IsTerminal;

use linecard::eal::{self, EalArgs};
use tracing_subscriber::EnvFilter;

/// Shows what `--log-level` or `RUST_LOG` ask for, else `default` (a level) and worse.
///
/// # Errors
/// A `--log-level` that cannot be read.
pub fn start(args: &EalArgs, default: &str) -> Result<(), eal::Error> {
    let directives = eal::log::directives(args.log_level.iter().map(String::as_str))?;
    let filter = match std::env::var("RUST_LOG") {
        Ok(wanted) if args.log_level.is_empty() => EnvFilter::new(wanted),
        _ if directives.is_empty() => EnvFilter::new(default),
        _ => EnvFilter::new(directives),
    };
    // A subscriber that is there already (a test's) keeps its place.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .log_internal_errors(false)
        .try_init();
    Ok(())
}
