//! Events in the life of a port, each beside a reference of the same machine, in turns: wake-ups beside those of
//! a bare eventfd, adaptive beside plain polling, the way back to a backend that was restarted, and round trips
//! while memory grows beside those while it does not.

mod growth;
mod load;
mod reconnection;
mod report;
mod wakeup;

use clap::Args;
use linecard::eal::CoreId;

use super::Error;
use super::link::Links;
use super::loopback::{self, Path};
use report::{Metric, Row};

/// The kinds of ring; other paths differ in what they do per packet, not in these events.
const PATHS: [Path; 2] = [Path::SplitInorder, Path::PackedInorder];

/// Options of `linecard bench events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Print one JSON object per row instead of a table
    #[arg(long)]
    json: bool,
    /// Rounds per case
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: u32,
    /// The two cores to run on; the first allowed ones by default
    #[arg(long, value_delimiter = ',', num_args = 2)]
    cores: Vec<u32>,
    /// Only cases whose name contains this text
    #[arg(long)]
    case: Option<String>,
}

/// A case: something that happens to a port, again and again.
trait Event {
    fn name(&self) -> String;

    /// The figures of each round.
    fn metrics(&self) -> &'static [Metric];

    /// Makes it happen, and returns a figure per metric, each with that of the reference if there is one.
    fn round(&mut self, cores: [CoreId; 2]) -> Result<Vec<Figure>, Error>;
}

/// What one round measured, in the unit of its metric.
#[derive(Debug, Clone, Copy)]
struct Figure {
    linecard: f64,
    reference: Option<f64>,
}

/// Runs `linecard bench events`.
pub(crate) fn run(args: &EventsArgs) -> Result<(), Error> {
    let cores = super::choose_cores(&args.cores)?;
    let [first, second] = cores[..] else { return Err(Error::TwoCores) };
    let interrupt = loopback::watch_signals()?;
    let links = Links::new()?;
    let mut cases = cases(&links)?;
    cases.retain(|case| args.case.as_ref().is_none_or(|text| case.name().contains(text.as_str())));
    if cases.is_empty() {
        return Err(Error::NoSuchCase(args.case.clone().unwrap_or_default()));
    }
    let mut rounds: Vec<Vec<Vec<Figure>>> = cases.iter().map(|_| Vec::new()).collect();
    // One round of each case after the other: a change of the machine meets all of them.
    'runs: for _ in 0..args.runs {
        for (case, rounds) in cases.iter_mut().zip(&mut rounds) {
            if interrupt.check().is_err() {
                break 'runs;
            }
            rounds.push(case.round([first, second])?);
        }
    }
    let rows: Vec<Row> =
        cases.iter().zip(&rounds).flat_map(|(case, rounds)| report::rows(&**case, rounds)).collect();
    report::print(&rows, [first, second], args.json)?;
    if interrupt.check().is_err() { Err(Error::Interrupted) } else { Ok(()) }
}

/// All cases, each with a link of its own.
fn cases(links: &Links) -> Result<Vec<Box<dyn Event + '_>>, Error> {
    let mut cases: Vec<Box<dyn Event>> = Vec::new();
    for path in PATHS {
        for sleeper in wakeup::Sleeper::EACH {
            cases.push(Box::new(wakeup::Wakeup::new(links, links.open(cases.len(), path)?, path, sleeper)));
        }
        cases.push(Box::new(load::Load::new(links, links.open(cases.len(), path)?, path)?));
        cases.push(Box::new(reconnection::Reconnection::new(links, cases.len(), path)?));
        cases.push(Box::new(growth::Growth::new(links, links.open(cases.len(), path)?, path)?));
    }
    Ok(cases)
}
