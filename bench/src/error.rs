//! Why a benchmark did not run.

use linecard::eal::CoreId;

/// What ends `linecard bench`.
///
/// ```
/// let problem = linecard_bench::Error::NoSuchCase("rigns".into()).to_string();
/// assert_eq!(problem, "no case contains \"rigns\"; leave --case out to see their names");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A core that may not be used.
    #[error("core {asked} may not be used here; choose from {}", list(allowed))]
    Core {
        /// Core asked for.
        asked: CoreId,
        /// Cores allowed.
        allowed: Vec<CoreId>,
    },
    /// Twice the same core.
    #[error("core {0} was named twice; name two cores, or one to leave the two-core rows out")]
    SameCore(CoreId),
    /// The filter left nothing.
    #[error("no case contains \"{0}\"; leave --case out to see their names")]
    NoSuchCase(String),
    /// Pinning a thread, or memory.
    #[error(transparent)]
    Eal(#[from] linecard::eal::Error),
    /// A pool could not be made.
    #[error(transparent)]
    Pool(#[from] linecard::mempool::Error),
    /// A port could not be had.
    #[error(transparent)]
    Port(#[from] linecard::pmd::Error),
    /// One end of a loop cannot do what the harness wants of it.
    #[error("{0}")]
    End(String),
    /// A ring could not be made.
    #[error(transparent)]
    Ring(#[from] linecard::ring::Error),
    /// DPDK's side started and then failed.
    #[error("the DPDK peer failed: {0}; --no-peer measures without it")]
    Peer(String),
    /// One core.
    #[error("a loop needs two cores; allow two, or name them with --cores")]
    TwoCores,
    /// A driver that this program was built without.
    #[error("this program has no driver {0}; leave it out")]
    NoDriver(&'static str),
    /// No folder for sockets, no namespace for interfaces.
    #[error("{0}")]
    Place(String),
    /// A chart cannot be written.
    #[error("no chart can be written to {}: {source}; name a folder that you may write with --svg", folder.display())]
    Chart {
        /// Folder asked for.
        folder: std::path::PathBuf,
        /// What the system answered.
        source: std::io::Error,
    },
    /// A file of samples that cannot be used.
    #[error("{} cannot be used for samples: {source}; name another file", file.display())]
    Samples {
        /// File asked for.
        file: std::path::PathBuf,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// A file of samples that do not compare with what was asked for.
    #[error("{} has samples of \"{had}\", this run would be \"{has}\"; ask for the same, or name another file", file.display())]
    OtherSetting {
        /// File asked for.
        file: std::path::PathBuf,
        /// Its setting.
        had: String,
        /// This run's setting.
        has: String,
    },
    /// A position that samples of this kind do not have.
    #[error("a {kind} has none of the positions asked for with --position; choose from {allowed}")]
    Position {
        /// Kind of sample.
        kind: String,
        /// Positions it has.
        allowed: String,
    },
    /// SIGINT or SIGTERM.
    #[error("interrupted; what was measured till then is above")]
    Interrupted,
    /// No sample at all.
    #[error("nothing was measured: {0}")]
    Nothing(String),
    /// Nobody reads the result.
    #[error("the result cannot be written: {0}")]
    Output(#[from] std::io::Error),
}

fn list(cores: &[CoreId]) -> String {
    cores.iter().map(CoreId::to_string).collect::<Vec<_>>().join(",")
}
