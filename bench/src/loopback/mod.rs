//! `linecard bench loopback`: measures two ends of a vhost-user socket, each ours or DPDK's, in turn.
//!
//! ```text
//! backend (vhost-user), io ──tx──► frontend (virtio-user), mac       packets go round; the rate is the backend's
//!          core 1          ◄──rx──        core 0                     RX counter, the same both ways
//! ```

mod args;
mod ceiling;
mod cell;
mod chart;
mod columns;
pub(crate) mod console;
mod kind;
mod latency;
mod machine;
mod markdown;
mod path;
mod raw;
mod report;
mod result;
mod rounds;
mod sample;
mod schedule;
mod search;
mod spare;
mod startup;
mod testbed;
mod tested;
mod together;

use std::env;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path as File, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

pub(crate) use self::args::LoopbackArgs;
use self::cell::{Cell, Subject};
pub(crate) use self::cell::{Load, Size};
pub(crate) use self::console::Interrupt;
pub(crate) use self::kind::Offer;
pub(crate) use self::path::Path;
use self::raw::{SampleFile, SavedSamples};
use self::result::Row;
use self::schedule::{Outcome, Progress, Schedule};
use self::testbed::Testbed;
use super::{Error, choose_cores};

/// `--quick` starts no sample after this time; the last one may take some seconds longer.
const QUICK: Duration = Duration::from_secs(100);

/// Runs the measurements and prints them, or prints saved ones.
///
/// # Errors
/// Cores that must not be used, no folder for sockets, samples or output that cannot be written, or no valid
/// sample.
pub(crate) fn run(args: &LoopbackArgs) -> Result<(), Error> {
    if let Some(file) = &args.report {
        let pages = SavedSamples::read(file)?;
        let mut lines = pages.setting.clone();
        let mut outcome = Outcome::of(pages);
        outcome.settle();
        let rows = result::rows(&outcome);
        lines.extend(found(&outcome, &rows));
        return print(args, &rows, &lines);
    }
    let start = Instant::now();
    let interrupt = watch_signals()?;
    let folder =
        linecard_apps_common::PrivateFolder::new().map_err(|error| Error::Place(error.to_string()))?;
    let mut testbed = testbed(args, folder.path(), interrupt)?;
    let (cells, absent) = cells(args, &testbed)?;
    testbed.hugepages =
        !args.no_huge && super::peer::free_hugepages() >= Testbed::HUGEPAGES * alive(args, &cells);
    let lines = setting(args, &testbed);
    let (book, before) = match &args.resume {
        Some(file) => SampleFile::open(file, &lines).map(|(book, pages)| (Some(book), pages))?,
        None => (None, SavedSamples::default()),
    };
    let budget = args.budget.or_else(|| args.quick.then_some(QUICK));
    let schedule = Schedule {
        testbed: &testbed,
        runs: args.runs(),
        limits: args.limits(),
        together: args.together(),
        deadline: budget.map(|budget| start + budget),
        book,
        progress: &mut |progress: &Progress<'_>| tell(progress),
    };
    let outcome = schedule.run(cells, before)?;
    let mut rows = result::rows(&outcome);
    rows.extend(absent);
    result::sort(&mut rows);
    let mut lines = lines;
    lines.push(format!("{} runs in turn, fresh processes", args.runs()));
    lines.extend(found(&outcome, &rows));
    print(args, &rows, &lines)?;
    ended(&outcome, &rows)
}

/// Returns the number of pairs that are alive at the same time.
fn alive(args: &LoopbackArgs, cells: &[Cell]) -> u64 {
    let most = together::groups(cells).iter().map(Vec::len).max().unwrap_or(1);
    if args.together() { most as u64 } else { 1 }
}

/// Returns an error if the run has no result.
fn ended(outcome: &Outcome, rows: &[Row]) -> Result<(), Error> {
    if outcome.cut_short == Some("interrupted") {
        return Err(Error::Interrupted);
    }
    if rows.iter().all(|row| row.runs == 0) {
        return Err(Error::Nothing(rows.iter().find_map(|row| row.note.clone()).unwrap_or_else(disturbed)));
    }
    Ok(())
}

const ABSENT: &str = "dpdk-testpmd is not on PATH; install dpdk-dev, or name it with --dpdk";
const ONE_CORE: &str =
    "two polling ends need two cores, and one may be used; allow two, or ask for --startup, which needs one";

fn disturbed() -> String {
    "every sample was disturbed; end other work on these cores, or raise --max-lost and --max-switches".into()
}

fn testbed(args: &LoopbackArgs, folder: &File, interrupt: Interrupt) -> Result<Testbed, Error> {
    let cores = match choose_cores(&args.cores)?[..] {
        [front, back, ..] => [front, back],
        [only] => [only, only],
        [] => return Err(Error::TwoCores),
    };
    let (warm_up, window) = args.times();
    Ok(Testbed {
        cores,
        ours: env::current_exe().map_err(Error::Output)?,
        dpdk: args.dpdk.clone().or_else(|| on_path("dpdk-testpmd")),
        hugepages: false,
        forward: args.fwd.clone(),
        warm_up,
        window,
        folder: folder.to_owned(),
        interrupt,
        pairs: AtomicU32::new(0),
    })
}

/// Returns the cells to measure, and rows for those that cannot be measured, each with its reason.
fn cells(args: &LoopbackArgs, testbed: &Testbed) -> Result<(Vec<Cell>, Vec<Row>), Error> {
    let (mut possible, mut absent) = (Vec::new(), Vec::new());
    for kind in args.kinds() {
        let positions = args.positions(kind);
        if positions.is_empty() {
            let names = result::positions(kind).iter().map(|position| position.name());
            let allowed = names.collect::<Vec<_>>().join(", ");
            return Err(Error::Position { kind: kind.title(), allowed });
        }
        for cell in cell::all(kind, &positions, &args.paths(), &args.loads(), args.memif()) {
            match impossible(testbed, cell) {
                None => possible.push(cell),
                Some(why) => absent.push(result::absent(cell, why)),
            }
        }
    }
    Ok((possible, absent))
}

/// Returns the reason why a cell is not measured at all.
fn impossible(testbed: &Testbed, cell: Cell) -> Option<&'static str> {
    if !testbed.two_cores() && cell.kind != kind::Kind::Startup {
        return Some(ONE_CORE);
    }
    match cell.subject {
        Subject::Pair(position, _) if position.needs_dpdk() && testbed.dpdk.is_none() => Some(ABSENT),
        Subject::Memif(_) if testbed.dpdk.is_none() => Some(ABSENT),
        Subject::Memif(_) if !cell.load.ring.is_power_of_two() => {
            Some("memif's rings have a power of two of descriptors; ask for --ring 256 or 1024")
        }
        Subject::Pair(_, path) if cell.load.size.chained() && !path.mergeable() => {
            Some("a packet of this length takes several receive buffers, which this path does not merge")
        }
        Subject::Pair(..) | Subject::Memif(_) | Subject::Ceiling => None,
    }
}

fn print(args: &LoopbackArgs, rows: &[Row], setting: &[String]) -> Result<(), Error> {
    let charts = args.svg.as_ref().map_or(Ok(Vec::new()), |folder| draw(folder, rows, setting))?;
    if args.json {
        return report::json(rows);
    }
    if args.markdown {
        let words: Vec<String> = env::args().skip(1).collect();
        let command = format!("linecard {}", words.join(" "));
        let text = markdown::text(rows, setting, &command, &charts);
        return Ok(std::io::stdout().lock().write_all(text.as_bytes())?);
    }
    report::table(rows, setting)
}

/// Sets up the interrupt: the first signal ends the run in order, with the results so far; a second one exits
/// immediately, and the programs see the end of their input.
pub(crate) fn watch_signals() -> Result<Interrupt, Error> {
    let interrupt = Interrupt::default();
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&interrupt.0))?;
        flag::register(signal, Arc::clone(&interrupt.0))?;
    }
    Ok(interrupt)
}

/// Returns the program of that name that a shell would run.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let runs = |file: &PathBuf| {
        fs::metadata(file).is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
    };
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(runs)
}

/// Prints one line of progress per sample on standard error.
fn tell(progress: &Progress<'_>) {
    let Cell { kind, subject, load } = *progress.cell;
    let what = match subject {
        Subject::Ceiling => "ceiling".to_owned(),
        Subject::Pair(..) | Subject::Memif(_) => {
            let (position, path) = subject.names();
            format!("{kind} {position} {path}")
        }
    };
    let (run, said) = (progress.run + 1, &progress.said);
    let line = format!("run {run}: {what} {} ring {} burst {}: {said}\n", load.size, load.ring, load.burst);
    // Standard error may be closed.
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

/// Draws a chart per group of rows that has values; returns their names, relative to the folder above.
fn draw(folder: &File, rows: &[Row], setting: &[String]) -> Result<Vec<Option<String>>, Error> {
    let failed = |source| Error::Chart { folder: folder.to_owned(), source };
    fs::create_dir_all(folder).map_err(failed)?;
    let mut names = Vec::new();
    let caption = setting.iter().find(|line| line.starts_with("state")).map_or("", String::as_str);
    for group in report::by_group(rows) {
        let (Some(first), Some(svg)) = (group.first(), chart::draw(group, caption)) else {
            names.push(None);
            continue;
        };
        let name = chart::name(first);
        fs::write(folder.join(&name), svg).map_err(failed)?;
        let parent = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        names.push(Some(format!("{parent}/{name}")));
    }
    Ok(names)
}

/// Returns the setting in lines: what samples must have in common to be compared.
fn setting(args: &LoopbackArgs, testbed: &Testbed) -> Vec<String> {
    let [front, back] = testbed.cores;
    let pages = if testbed.hugepages { "2 MiB hugepages" } else { "ordinary pages" };
    let dpdk = testbed.dpdk.as_ref().map_or_else(|| "absent".to_owned(), |file| file.display().to_string());
    let place = if testbed.two_cores() {
        format!("backend/frontend on cores {back} and {front}, {pages} for both")
    } else {
        format!("one core ({front}), {pages}: no rates and no round trips")
    };
    let turns = if args.together() {
        format!(" in turns of {} ms, all pairs of a load alive at once", together::TURN.as_millis())
    } else {
        String::new()
    };
    let (version, window) = (env!("CARGO_PKG_VERSION"), testbed.window.as_secs_f64());
    vec![
        format!("{place}; frontend and what is tested forward {}, backend io", testbed.forward),
        format!("ours {version}; dpdk {dpdk}; {window:.1} s each{turns}"),
    ]
}

/// Returns lines about the machine, the peer, and whether the run was complete.
fn found(outcome: &Outcome, rows: &[Row]) -> Vec<String> {
    let mut lines = Vec::new();
    lines.extend(outcome.dpdk_version.as_ref().map(|version| format!("dpdk is {version}")));
    let median = |of: fn(&Row) -> Option<f64>| {
        let values: Vec<f64> = rows.iter().filter_map(of).collect();
        super::stats::Summary::of(&values).map_or(f64::NAN, |summary| summary.median)
    };
    lines.extend(outcome.state.map(|state| {
        format!(
            "state {}: a cache line changes cores in {:.0} cycles, {:.2} core cycles per time-stamp cycle",
            state.name(),
            median(|row| row.hand_over),
            median(|row| row.clock)
        )
    }));
    lines.extend(outcome.cut_short.map(|why| format!("ended early: {why}")));
    lines
}
