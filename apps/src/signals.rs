//! Stop flags for signals.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::error::Error;

/// The signals that service managers and Ctrl-C send.
pub(crate) const TERMINATION: [i32; 2] = [SIGINT, SIGTERM];

/// Returns a flag that each of `signals` sets.
///
/// # Errors
/// A signal handler cannot be installed.
pub(crate) fn stop_flag(signals: &[i32]) -> Result<Arc<AtomicBool>, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in signals {
        signal_hook::flag::register(*signal, Arc::clone(&stop)).map_err(|source| Error::System {
            action: "signals cannot be handled".into(),
            source,
            remedy: "run the command outside of the sandbox that forbids it",
        })?;
    }
    Ok(stop)
}
