//! The log messages of the libraries, on standard error.

use std::io::IsTerminal;
use std::sync::OnceLock;

use linecard::eal::{self, EalArgs};
use tracing_subscriber::EnvFilter;

/// Shows the messages that `--log-level` or `RUST_LOG` select; by default those of the level `default` and
/// more severe ones.
///
/// # Errors
/// A `--log-level` is invalid.
pub fn start(args: &EalArgs, default: &str) -> Result<(), eal::Error> {
    let directives = eal::log::directives(args.log_level.iter().map(String::as_str))?;
    let filter = match std::env::var("RUST_LOG") {
        Ok(wanted) if args.log_level.is_empty() => EnvFilter::new(wanted),
        _ if directives.is_empty() => EnvFilter::new(default),
        _ => EnvFilter::new(directives),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .log_internal_errors(false)
        .with_filter_reloading();
    let handle = builder.reload_handle();
    // A subscriber that exists already (in a test) is kept.
    if builder.try_init().is_ok() {
        let _ = RELOAD.set(Box::new(move |filter| drop(handle.reload(filter))));
    }
    Ok(())
}

type Reload = Box<dyn Fn(EnvFilter) + Send + Sync>;

/// Changes the filter of the subscriber that was started.
static RELOAD: OnceLock<Reload> = OnceLock::new();

/// Changes the selection to `levels`, each in the form of `--log-level`; if there are none, to `default` and
/// more severe ones.
///
/// # Errors
/// A level is invalid; nothing is changed then.
pub fn set(levels: &[String], default: &str) -> Result<(), eal::Error> {
    let directives = eal::log::directives(levels.iter().map(String::as_str))?;
    let filter = if directives.is_empty() { EnvFilter::new(default) } else { EnvFilter::new(directives) };
    if let Some(reload) = RELOAD.get() {
        reload(filter);
    }
    Ok(())
}
