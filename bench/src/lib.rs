//! `linecard bench`: compares our rings, pools and ports with DPDK's, in interleaved runs.
//!
//! The peers from DPDK and the kernel are mostly small C programs (`bench/peers`), built on the machine when
//! first needed. A program without this crate (`cargo build -p linecard-apps --no-default-features`) contains
//! none of them.
#![forbid(unsafe_code)]

mod bootstrap;
mod burst;
mod end;
mod error;
mod events;
mod link;
mod loopback;
mod mempool;
mod net;
mod pair;
mod peer;
mod report;
mod ring;
mod stats;
mod switch;
mod tables;

use clap::{Args, Subcommand};
use linecard::eal::{CoreId, cores};

pub use end::{EndArgs, run as run_end};
pub use error::Error;
use events::EventsArgs;
use loopback::LoopbackArgs;
use net::NetArgs;
use pair::Bench;
use peer::{Peer, Program};
use switch::SwitchArgs;

/// What `linecard bench` is asked to do.
///
/// ```
/// use clap::Parser;
/// #[derive(Parser)]
/// struct Cli {
///     #[command(flatten)]
///     bench: linecard_bench::BenchArgs,
/// }
/// assert!(Cli::try_parse_from(["bench", "ring", "--runs", "1", "--no-peer"]).is_ok());
/// assert!(Cli::try_parse_from(["bench", "rings"]).is_err());
/// ```
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    subject: Subject,
}

/// What to measure.
#[derive(Debug, Subcommand)]
enum Subject {
    /// Rings: sync modes, single and bulk, one and two cores
    Ring(TurnsArgs),
    /// Pools: cached get and put, bulk sizes, one and two cores
    Mempool(TurnsArgs),
    /// Tables of crates: lookups of flows and routes, beside rte_hash and rte_lpm
    Tables(TurnsArgs),
    /// Bursts: cycles per packet of virtio-user and vhost-user, both driven by one thread
    Burst(TurnsArgs),
    /// Events of a port's life: wake-ups beside a bare eventfd's, adaptive beside plain polling, reconnection, growth
    Events(EventsArgs),
    /// Ports: two testpmds loop packets over vhost-user, ours and DPDK's at either end
    Loopback(Box<LoopbackArgs>),
    /// Kernel interfaces (tap, af_packet, af_xdp): rates, latency, containers, TCP; ours, DPDK's and the kernel's in turn;
    /// needs root
    Net(Box<NetArgs>),
    /// What one core forwards between two virtio-user ports: our switch, Open vSwitch, testpmds, memif in turn
    Switch(Box<SwitchArgs>),
}

/// Options of benchmarks that run inside this process and ask a peer in turn.
#[derive(Debug, Args)]
struct TurnsArgs {
    /// Print one JSON object per row instead of a table
    #[arg(long)]
    json: bool,
    /// Runs per row, each of two pairs: ours, DPDK's, DPDK's, ours
    #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: u32,
    /// The two cores to run on (one: the two-core rows are left out); the first allowed ones by default
    #[arg(long, value_delimiter = ',', num_args = 1..=2)]
    cores: Vec<u32>,
    /// Only rows whose case contains this text
    #[arg(long)]
    case: Option<String>,
    /// Leave DPDK out
    #[arg(long)]
    no_peer: bool,
}

/// Runs a benchmark and prints the results.
///
/// # Errors
/// A core that must not be used, no matching row, output that cannot be written, or a DPDK peer that failed
/// after it had started.
pub fn run(args: BenchArgs) -> Result<(), Error> {
    match args.subject {
        Subject::Ring(args) => in_turn(args, Program::PARTS, ring::rows),
        Subject::Mempool(args) => in_turn(args, Program::PARTS, mempool::rows),
        Subject::Tables(args) => in_turn(args, Program::TABLES, tables::rows),
        Subject::Burst(args) => in_turn(args, Program::BURSTS, burst::rows),
        Subject::Events(args) => events::run(&args),
        Subject::Loopback(args) => loopback::run(&args),
        Subject::Net(args) => net::run(&args),
        Subject::Switch(args) => switch::run(&args),
    }
}

fn in_turn(
    args: TurnsArgs,
    program: Program,
    measure: impl FnOnce(&mut Bench) -> Result<Vec<report::Row>, Error>,
) -> Result<(), Error> {
    let cores = choose_cores(&args.cores)?;
    // Ensures that an interrupt ends the peer and removes its folder.
    let interrupt = loopback::watch_signals()?;
    let (peer, absent) = if args.no_peer {
        (None, Some("left out (--no-peer)".to_owned()))
    } else {
        match Peer::start(program, &cores) {
            Ok(peer) => (Some(peer), None),
            Err(reason) => (None, Some(reason.to_string())),
        }
    };
    let mut bench = Bench { cores, runs: args.runs, filter: args.case, peer, interrupt };
    let rows = measure(&mut bench)?;
    let interrupted = bench.interrupt.check().is_err();
    if rows.is_empty() && !interrupted {
        return Err(Error::NoSuchCase(bench.filter.unwrap_or_default()));
    }
    let setting = bench.describe(absent.as_deref());
    report::print(&rows, &setting, args.json)?;
    if interrupted { Err(Error::Interrupted) } else { Ok(()) }
}

/// Returns the requested cores, or the first two allowed ones.
fn choose_cores(asked: &[u32]) -> Result<Vec<CoreId>, Error> {
    let allowed = cores::allowed();
    if asked.is_empty() {
        return Ok(allowed.into_iter().take(2).collect());
    }
    let asked: Vec<CoreId> = asked.iter().copied().map(CoreId).collect();
    if let [a, b] = asked[..]
        && a == b
    {
        return Err(Error::SameCore(a));
    }
    match asked.iter().find(|core| !allowed.contains(core)) {
        Some(&core) => Err(Error::Core { asked: core, allowed }),
        None => Ok(asked),
    }
}

/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
