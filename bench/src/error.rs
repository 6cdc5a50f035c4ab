//! Errors of benchmarks.

use linecard::eal::CoreId;

/// An error that ends `linecard bench`.
///
/// ```
/// let problem = linecard_bench::Error::NoSuchCase("rigns".into()).to_string();
/// assert_eq!(problem, "no case contains \"rigns\"; leave --case out to see their names");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A core that must not be used.
    #[error("core {asked} may not be used here; choose from {}", list(allowed))]
    Core {
        /// The requested core.
        asked: CoreId,
        /// The allowed cores.
        allowed: Vec<CoreId>,
    },
    /// The same core twice.
    #[error("core {0} was named twice; name two cores, or one to leave the two-core rows out")]
    SameCore(CoreId),
    /// The filter matches no case.
    #[error("no case contains \"{0}\"; leave --case out to see their names")]
    NoSuchCase(String),
    /// A thread could not be pinned, or memory could not be allocated.
    #[error(transparent)]
    Eal(#[from] linecard::eal::Error),
    /// A pool could not be created.
    #[error(transparent)]
    Pool(#[from] linecard::mempool::Error),
    /// A port could not be opened.
    #[error(transparent)]
    Port(#[from] linecard::pmd::Error),
    /// One end of a loop cannot do what the harness requires.
    #[error("{0}")]
    End(String),
    /// A ring could not be created.
    #[error(transparent)]
    Ring(#[from] linecard::ring::Error),
    /// DPDK's program started and then failed.
    #[error("the DPDK peer failed: {0}; --no-peer measures without it")]
    Peer(String),
    /// Only one core is available.
    #[error("a loop needs two cores; allow two, or name them with --cores")]
    TwoCores,
    /// This program was built without a driver.
    #[error("this program has no driver {0}; leave it out")]
    NoDriver(&'static str),
    /// A folder for sockets or a namespace for interfaces could not be created.
    #[error("{0}")]
    Place(String),
    /// A chart cannot be written.
    #[error("no chart can be written to {}: {source}; name a folder that you may write with --svg", folder.display())]
    Chart {
        /// The requested folder.
        folder: std::path::PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file of samples that cannot be used.
    #[error("{} cannot be used for samples: {source}; name another file", file.display())]
    Samples {
        /// The requested file.
        file: std::path::PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file of samples with another setting than this run.
    #[error("{} has samples of \"{had}\", this run would be \"{has}\"; ask for the same, or name another file", file.display())]
    OtherSetting {
        /// The requested file.
        file: std::path::PathBuf,
        /// The setting of the file.
        had: String,
        /// The setting of this run.
        has: String,
    },
    /// A position that is not available for this kind of sample.
    #[error("a {kind} has none of the positions asked for with --position; choose from {allowed}")]
    Position {
        /// The kind of sample.
        kind: String,
        /// The available positions.
        allowed: String,
    },
    /// SIGINT or SIGTERM was received.
    #[error("interrupted; what was measured till then is above")]
    Interrupted,
    /// There was no valid sample.
    #[error("nothing was measured: {0}")]
    Nothing(String),
    /// The result cannot be written.
    #[error("the result cannot be written: {0}")]
    Output(#[from] std::io::Error),
}

fn list(cores: &[CoreId]) -> String {
    cores.iter().map(CoreId::to_string).collect::<Vec<_>>().join(",")
}
