//! Errors of telemetry.

/// Why telemetry cannot be offered; one sentence.
///
/// ```
/// use linecard_eal::{Eal, EalArgs};
/// let eal = Eal::new(&EalArgs::parse(["--no-huge"])?.0)?;
/// let refused = linecard_telemetry::serve_metrics(&eal, "nowhere", &[], &[]).err().expect("no address");
/// assert!(refused.to_string().starts_with("counters cannot be offered at nowhere: "));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// A command cannot be added.
    #[error("{0}")]
    Refused(String),
    /// A system call failed.
    #[error("{action}: {source}; {remedy}")]
    System {
        /// The action that failed.
        action: String,
        /// The error of the system call.
        source: std::io::Error,
        /// What to do.
        remedy: &'static str,
    },
}

impl TelemetryError {
    pub(crate) fn system(
        action: impl Into<String>,
        source: impl Into<std::io::Error>,
        remedy: &'static str,
    ) -> Self {
        Self::System { action: action.into(), source: source.into(), remedy }
    }
}
