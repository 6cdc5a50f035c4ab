//! `linecard bench net`: compares our drivers of kernel interfaces with DPDK's of the same name and with the
//! kernel itself, in turn.
//!
//! ```text
//!  tx   testpmd txonly ──► device ══ veth ══ far interface, whose kernel counts and drops
//!  rx   testpmd rxonly ◄── device ══ veth ══ far interface ◄── a generator in this process, the same for all sides
//!         core 1                               core 0
//! ```
//! A tap has no other end: its port's frames are counted on the interface itself, and the generator sends
//! there. Each side has its own namespace, interfaces and processes, which are removed at the end of a run,
//! even if this process is killed. All sides of a row are alive at the same time but idle: a testpmd that
//! does not forward sleeps. Each works for a fraction of a second in turn, so that changes of the machine
//! affect all of them, and ratios are calculated within a turn.

mod args;
mod cell;
mod containers;
mod generator;
mod namespace;
mod report;
mod sample;
mod tcp;

use std::env;
use std::io::Write as _;
use std::path::PathBuf;

pub(crate) use self::args::NetArgs;
use self::cell::{Cell, Kind, Question, Side};
use self::report::Row;
use self::sample::{Figure, Testbed};
use super::loopback::console::{Failure, Interrupted, apart};
use super::loopback::{on_path, watch_signals};
use super::peer::{self, Absent};
use super::{Error, choose_cores};

/// The kernel's side of rates and latencies.
const KERNEL_LOOP: &str = include_str!("../../peers/kernel_loop.c");

/// Runs the measurements and prints the results.
///
/// # Errors
/// Missing rights to create namespaces, a driver that this program does not have, cores that must not be
/// used, output that cannot be written, or no valid sample.
pub(crate) fn run(args: &NetArgs) -> Result<(), Error> {
    let cores = match choose_cores(&args.cores)?[..] {
        [generator, port] => [generator, port],
        _ => return Err(Error::TwoCores),
    };
    let (question, kinds) = (args.question(), kinds(&args.driver)?);
    let folder =
        linecard_apps_common::PrivateFolder::new().map_err(|error| Error::Place(error.to_string()))?;
    let dpdk = if args.no_peer { None } else { args.dpdk.clone().or_else(|| on_path("dpdk-testpmd")) };
    let kernel_loop = kernel_loop(args, question);
    let testbed = Testbed {
        cores,
        ours: env::current_exe().map_err(Error::Output)?,
        dpdk,
        kernel_loop: kernel_loop.as_ref().and_then(|built| built.as_ref().ok()).cloned(),
        kernel: !args.no_loop,
        arguments: [args.args.clone(), args.dpdk_args.clone()],
        hugepages: peer::free_hugepages() >= Testbed::hugepages(question),
        window: args.seconds(),
        warm_up: args.warm_up(),
        folder: folder.path().to_owned(),
        interrupt: watch_signals()?,
    };
    // Fails immediately if namespaces must not be created.
    drop(namespace::TestNamespace::new()?);
    let mut rows: Vec<Row> = args.cells(&kinds).into_iter().map(Row::new).collect();
    let interrupted = measure(&testbed, [args.runs, args.slices()], &mut rows);
    let absent = kernel_loop.and_then(Result::err);
    report::print(&rows, &setting(&testbed, args, absent), args.json)?;
    if interrupted {
        return Err(Error::Interrupted);
    }
    match rows.iter().find_map(Row::trouble) {
        Some(why) if rows.iter().all(Row::is_empty) => Err(Error::Nothing(why)),
        _ => Ok(()),
    }
}

/// Returns the C program, built if necessary; `None` if it is not requested.
fn kernel_loop(args: &NetArgs, question: Question) -> Option<Result<PathBuf, Absent>> {
    let wanted = !args.no_loop && matches!(question, Question::Rate | Question::Latency);
    wanted.then(|| peer::build_plain("kernel_loop", KERNEL_LOOP))
}

/// Measures every row once per run, so that its samples are distributed over the whole time. Returns true
/// after a signal.
fn measure(testbed: &Testbed, [runs, slices]: [u32; 2], rows: &mut [Row]) -> bool {
    for run in 0..runs {
        for row in &mut *rows {
            if let Err(Interrupted) = slice(testbed, run, slices, row) {
                return true;
            }
        }
    }
    false
}

/// Measures one row in one run: its sides are alive all the time, and each works for a slice of time in its
/// turn.
fn slice(testbed: &Testbed, run: u32, slices: u32, row: &mut Row) -> Result<(), Interrupted> {
    let cell = row.cell;
    let mut stands = [None, None, None];
    for side in Side::ALL {
        if row.wants(side) && testbed.has(side, cell.question) {
            stands[side as usize] = heard(row, run, side, testbed.stand(cell, side))?;
        }
    }
    for turn in 0..slices {
        row.next_pair();
        // A B C, C B A, A B C …: no side is always the first, and steady changes cancel out.
        let mut sides = Side::ALL;
        if (run + turn) % 2 == 1 {
            sides.reverse();
        }
        for side in sides {
            let Some(stand) = &mut stands[side as usize] else { continue };
            let figure = testbed.slice(cell, side, stand);
            match heard(row, run, side, figure)? {
                Some(figure) => {
                    tell(run, cell, side, &said(cell.question, figure));
                    row.push(side, figure);
                }
                None => stands[side as usize] = None,
            }
        }
    }
    for (side, stand) in Side::ALL.into_iter().zip(stands) {
        if let Some(stand) = stand {
            heard(row, run, side, Testbed::leave(stand))?;
        }
    }
    Ok(())
}

/// Returns the value, or records the failure.
fn heard<T>(
    row: &mut Row,
    run: u32,
    side: Side,
    outcome: Result<T, Failure>,
) -> Result<Option<T>, Interrupted> {
    match apart(outcome)? {
        Ok(value) => Ok(Some(value)),
        Err(why) => {
            tell(run, row.cell, side, &why);
            row.failed(side, why);
            Ok(None)
        }
    }
}

/// Formats a figure.
fn said(question: Question, figure: Figure) -> String {
    let second =
        question.second().map_or(String::new(), |(head, _)| format!(", {:.0} {head}", figure.second));
    format!("{:.3} {}{second}", figure.value, question.unit())
}

/// Prints one line of progress per sample on standard error.
fn tell(run: u32, cell: Cell, side: Side, what: &str) {
    let line = format!("run {}: {cell}, {}: {what}\n", run + 1, side.name(cell.question));
    // Standard error may be closed.
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

/// Returns the requested drivers, or all that this program has.
fn kinds(asked: &[Kind]) -> Result<Vec<Kind>, Error> {
    let known = linecard::drivers();
    let has = |kind: Kind| known.drivers().any(|driver| driver.name() == kind.driver());
    match asked.iter().find(|kind| !has(**kind)) {
        Some(kind) => Err(Error::NoDriver(kind.driver())),
        None if asked.is_empty() => Ok(Kind::ALL.into_iter().filter(|kind| has(*kind)).collect()),
        None => Ok(asked.to_vec()),
    }
}

/// Returns a description of the setting.
fn setting(testbed: &Testbed, args: &NetArgs, no_loop: Option<Absent>) -> String {
    let [first, second] = testbed.cores;
    let dpdk = testbed.dpdk.as_ref().map_or("absent".to_owned(), |file| file.display().to_string());
    let pages = if testbed.hugepages { "2 MiB hugepages" } else { "ordinary pages" };
    let cores = match args.question() {
        Question::Rate | Question::Latency => format!("port on core {second}, generator on core {first}"),
        Question::Containers => {
            format!(
                "switch on core {second}, containers on core {first}; bridge: sender on core {first}, receiver on core {second}"
            )
        }
        Question::Tcp => format!("testpmds on cores {first} and {second}, sender and receiver on either"),
    };
    let more = |name: &str, text: &str| {
        if text.is_empty() { String::new() } else { format!("; {name} with {text}") }
    };
    let kernel = no_loop.map_or(String::new(), |why| format!("; no kernel loop: {why}"));
    format!(
        "{cores}, {pages}; dpdk {dpdk}{kernel}; {} runs of fresh processes, {} turns in each, {:.2} s a turn{}{}; \
         ratios are medians of those within turns, with the interval that holds 95 %",
        args.runs,
        args.slices(),
        testbed.window.as_secs_f64(),
        more("ours", &args.args),
        more("dpdk", &args.dpdk_args)
    )
}
