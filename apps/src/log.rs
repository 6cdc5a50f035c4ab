//! What libraries report, on standard error.

use linecard::eal::{self, EalArgs};
use tracing_subscriber::EnvFilter;

use crate::error::Error;

/// Shows warnings and errors, and what `--log-level` or `RUST_LOG` ask for.
///
/// # Errors
/// A `--log-level` that cannot be read.
pub(crate) fn start(args: &EalArgs) -> Result<(), Error> {
    let directives = eal::log::directives(args.log_level.iter().map(String::as_str))
        .map_err(|e| Error::Usage(e.to_string()))?;
    let filter = match std::env::var("RUST_LOG") {
        Ok(wanted) if args.log_level.is_empty() => EnvFilter::new(wanted),
        _ if directives.is_empty() => EnvFilter::new("warn"),
        _ => EnvFilter::new(directives),
    };
    // A subscriber that is there already (a test's) keeps its place.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    Ok(())
}
