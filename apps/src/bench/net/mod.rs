//! `linecard bench net`: drivers of kernel interfaces, ours and DPDK's of the same name in turn.
//!
//! ```text
//!  tx   testpmd txonly ──► device ══ veth ══ far interface, whose kernel counts and drops
//!  rx   testpmd rxonly ◄── device ══ veth ══ far interface ◄── a generator in this process, the same for both
//!         core 1                               core 0
//! ```
//! A tap has no other end: what its port sends, the kernel counts on the interface itself, and the generator sends there.
//! Namespaces and interfaces are made for each sample and go with it, even if this process is killed.

mod cell;
mod generator;
mod place;
mod report;
mod sample;

use std::env;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use self::cell::{Cell, Direction, Kind, Side};
use self::report::Row;
use self::sample::Bed;
use super::loopback::console::Failure;
use super::loopback::{on_path, watch_signals};
use super::{Error, choose_cores};

/// Options of `linecard bench net`.
#[derive(Debug, Args)]
pub(crate) struct NetArgs {
    /// Drivers; all that this program has by default
    #[arg(value_enum, value_name = "DRIVER")]
    driver: Vec<Kind>,
    /// Directions
    #[arg(long, value_enum, value_delimiter = ',', default_value = "rx,tx")]
    direction: Vec<Direction>,
    /// Frame lengths in bytes, the four of the frame check sequence included
    #[arg(long, value_delimiter = ',', default_value = "64,1518", value_parser = clap::value_parser!(u16).range(64..=1518))]
    size: Vec<u16>,
    /// Pairs of samples per row, ours and DPDK's in turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Seconds over which a rate is taken
    #[arg(long, default_value = "1", value_parser = seconds)]
    seconds: Duration,
    /// The two cores to run on, generator then port; the first allowed ones by default
    #[arg(long, value_delimiter = ',', num_args = 1..=2)]
    cores: Vec<u32>,
    /// More device arguments for our driver, as in version=3,framecnt=2048
    #[arg(long, value_name = "KEY=VALUE,…", default_value = "")]
    args: String,
    /// More device arguments for DPDK's driver
    #[arg(long, value_name = "KEY=VALUE,…", default_value = "")]
    dpdk_args: String,
    /// DPDK's testpmd; dpdk-testpmd on PATH by default
    #[arg(long, value_name = "FILE")]
    dpdk: Option<PathBuf>,
    /// Leave DPDK out
    #[arg(long, conflicts_with = "dpdk")]
    no_peer: bool,
    /// Print one JSON object per row instead of a table
    #[arg(long)]
    json: bool,
}

/// For clap: a tenth of a second to a minute.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=60.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "give 0.1 to 60 seconds".to_owned())
}

/// Measures and prints.
///
/// # Errors
/// No right to make namespaces, a driver that this program does not have, cores that may not be used, output that cannot
/// be written, or nothing measured at all.
pub(crate) fn run(args: &NetArgs) -> Result<(), Error> {
    let cores = match choose_cores(&args.cores)?[..] {
        [generator, port] => [generator, port],
        _ => return Err(Error::TwoCores),
    };
    let kinds = kinds(&args.driver)?;
    let folder = crate::demo::PrivateFolder::new().map_err(|error| Error::Place(error.to_string()))?;
    let dpdk = if args.no_peer { None } else { args.dpdk.clone().or_else(|| on_path("dpdk-testpmd")) };
    let bed = Bed {
        cores,
        ours: env::current_exe().map_err(Error::Output)?,
        dpdk,
        arguments: [args.args.clone(), args.dpdk_args.clone()],
        hugepages: super::peer::free_hugepages() >= Bed::HUGEPAGES,
        window: args.seconds,
        folder: folder.path().to_owned(),
        interrupt: watch_signals()?,
    };
    // Fails at once where namespaces may not be made.
    drop(place::Place::new()?);
    let mut rows: Vec<Row> = args.cells(&kinds).into_iter().map(Row::new).collect();
    let interrupted = measure(&bed, args.runs, &mut rows);
    report::print(&rows, &setting(&bed, args), args.json)?;
    if interrupted {
        return Err(Error::Interrupted);
    }
    match rows.iter().find_map(Row::trouble) {
        Some(why) if rows.iter().all(Row::is_empty) => Err(Error::Nothing(why)),
        _ => Ok(()),
    }
}

/// Every row once per run, so that its samples are spread over the whole time. True when a signal ended it.
fn measure(bed: &Bed, runs: u32, rows: &mut [Row]) -> bool {
    for run in 0..runs {
        for row in &mut *rows {
            // A B, B A, A B …: neither side always runs first.
            let sides =
                if run % 2 == 0 { [Side::Linecard, Side::Dpdk] } else { [Side::Dpdk, Side::Linecard] };
            for side in sides {
                if !row.wants(side) || side == Side::Dpdk && bed.dpdk.is_none() {
                    continue;
                }
                match bed.sample(row.cell, side) {
                    Ok(figure) => {
                        tell(run, row.cell, side, &figure.to_string());
                        row.push(side, figure);
                    }
                    Err(Failure::Interrupted) => return true,
                    Err(Failure::Program(why)) => {
                        tell(run, row.cell, side, &why);
                        row.failed(side, why);
                    }
                }
            }
        }
    }
    false
}

/// A line per sample on standard error, for whoever waits.
fn tell(run: u32, cell: Cell, side: Side, what: &str) {
    let line = format!("run {}: {cell} {}: {what}\n", run + 1, side.name());
    // Nobody has to watch.
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

impl NetArgs {
    fn cells(&self, kinds: &[Kind]) -> Vec<Cell> {
        let mut cells = Vec::new();
        for &kind in kinds {
            for &direction in &self.direction {
                cells.extend(self.size.iter().map(|&size| Cell { kind, direction, size }));
            }
        }
        cells
    }
}

/// The drivers asked for, or all that this program has.
fn kinds(asked: &[Kind]) -> Result<Vec<Kind>, Error> {
    let known = linecard::drivers();
    let has = |kind: Kind| known.drivers().any(|driver| driver.name() == kind.driver());
    match asked.iter().find(|kind| !has(**kind)) {
        Some(kind) => Err(Error::NoDriver(kind.driver())),
        None if asked.is_empty() => Ok(Kind::ALL.into_iter().filter(|kind| has(*kind)).collect()),
        None => Ok(asked.to_vec()),
    }
}

/// What was measured where.
fn setting(bed: &Bed, args: &NetArgs) -> String {
    let [generator, port] = bed.cores;
    let dpdk = bed.dpdk.as_ref().map_or("absent".to_owned(), |file| file.display().to_string());
    let pages = if bed.hugepages { "2 MiB hugepages" } else { "ordinary pages" };
    let more = |name: &str, text: &str| {
        if text.is_empty() { String::new() } else { format!("; {name} with {text}") }
    };
    format!(
        "port on core {port}, generator on core {generator}, {pages}; dpdk {dpdk}; {} runs in turn, fresh processes, \
         {:.1} s each{}{}",
        args.runs,
        bed.window.as_secs_f64(),
        more("ours", &args.args),
        more("dpdk", &args.dpdk_args)
    )
}
