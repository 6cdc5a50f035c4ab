//! Errors of commands.

use std::process::ExitCode;

/// An error that ends a command; its text is one sentence that includes the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    /// The command line cannot be understood.
    #[error("{0}")]
    Usage(String),
    /// Cores, memory or arguments of the framework.
    #[error(transparent)]
    Eal(#[from] linecard::eal::Error),
    /// Packet memory.
    #[error(transparent)]
    Pool(#[from] linecard::mempool::Error),
    /// A port.
    #[error(transparent)]
    Port(#[from] linecard::pmd::Error),
    /// A capture.
    #[error(transparent)]
    Capture(#[from] linecard::capture::CaptureError),
    /// Telemetry.
    #[error(transparent)]
    Telemetry(#[from] linecard::telemetry::TelemetryError),
    /// A benchmark.
    #[error(transparent)]
    Bench(#[from] crate::bench::Error),
    /// A folder or a process that several commands share.
    #[error(transparent)]
    Common(#[from] linecard_apps_common::Error),
    /// A system call failed.
    #[error("{action}: {source}; {remedy}")]
    System {
        /// The attempted action.
        action: String,
        /// The system's error.
        source: std::io::Error,
        /// The remedy.
        remedy: &'static str,
    },
    /// Standard output cannot be written.
    #[error("standard output cannot be written: {0}; free space or redirect it elsewhere")]
    Output(std::io::Error),
    /// A run that completed with a bad result.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// Whether the reader of standard output has closed it.
    pub(crate) fn is_reader_gone(&self) -> bool {
        matches!(self, Self::Output(source) if source.kind() == std::io::ErrorKind::BrokenPipe)
    }

    /// 2 for a command line that cannot be understood, 1 for everything else.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}
