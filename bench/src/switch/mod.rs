//! `linecard bench switch`: the rate that one core forwards between two ports, for our switch and others in
//! turn.
//!
//! ```text
//!   testpmd io ── virtio-user ══ vhost ── what is measured ── vhost ══ virtio-user ── the same testpmd
//!     core 0                                   core 1                                      core 0
//! ```
//! The tester's ring is filled once (`start tx_first 16`) and its frames then circulate: each port sends what
//! the other receives, so that frames flow in both directions all the time, and none is lost unless the
//! switch loses it.

mod args;
mod middle;
mod ovs;
mod report;
mod tester;

use std::env;
use std::io::Write as _;

pub(crate) use self::args::SwitchArgs;
use self::middle::{Kind, Testbed};
use self::report::Row;
use super::loopback::console::{Failure, Interrupted, apart};
use super::loopback::{on_path, watch_signals};
use super::{Error, choose_cores, peer};

/// Runs the measurements and prints the results.
///
/// # Errors
/// Cores that must not be used, output that cannot be written, or no valid sample.
pub(crate) fn run(args: &SwitchArgs) -> Result<(), Error> {
    let cores = match choose_cores(&args.cores)?[..] {
        [tester, switch] => [tester, switch],
        _ => return Err(Error::TwoCores),
    };
    let folder =
        linecard_apps_common::PrivateFolder::new().map_err(|error| Error::Place(error.to_string()))?;
    let testbed = Testbed {
        cores,
        ours: env::current_exe().map_err(Error::Output)?,
        dpdk: args.dpdk.clone().or_else(|| on_path("dpdk-testpmd")),
        hugepages: peer::free_hugepages(),
        ports: args.ports,
        addresses: args.addresses,
        window: args.seconds,
        folder: folder.path().to_owned(),
        interrupt: watch_signals()?,
    };
    let mut rows = rows(args, &testbed);
    let interrupted = measure(&testbed, args.runs, &mut rows).is_err();
    report::print(&rows, &setting(&testbed, args), args.json)?;
    if interrupted {
        return Err(Error::Interrupted);
    }
    match rows.iter().find_map(Row::trouble) {
        Some(why) if rows.iter().all(Row::is_empty) => Err(Error::Nothing(why.to_owned())),
        _ => Ok(()),
    }
}

/// Returns one row per length and switch; those that cannot be measured here have a reason.
fn rows(args: &SwitchArgs, testbed: &Testbed) -> Vec<Row> {
    let kinds = if args.kinds.is_empty() { &Kind::ALL[..] } else { &args.kinds };
    let of_size = |&size: &u16| kinds.iter().map(move |&kind| Row::new(kind, size, testbed.absent(kind)));
    args.size.iter().flat_map(of_size).collect()
}

/// Measures every row once per turn, in alternating order, so that no switch is always the first.
fn measure(testbed: &Testbed, runs: u32, rows: &mut [Row]) -> Result<(), Interrupted> {
    for run in 0..runs {
        let mut order: Vec<usize> = (0..rows.len()).collect();
        if run % 2 == 1 {
            order.reverse();
        }
        for row in order {
            let Some(row) = rows.get_mut(row).filter(|row| row.is_wanted()) else { continue };
            let outcome = apart(testbed.sample(row.kind, row.size))?;
            tell(run, row, &outcome);
            row.push(run, outcome);
        }
    }
    Ok(())
}

/// Prints one line of progress per sample on standard error.
fn tell(run: u32, row: &Row, outcome: &Result<f64, String>) {
    let said = match outcome {
        Ok(rate) => format!("{rate:.2} Mpps each way"),
        Err(why) => why.clone(),
    };
    let line = format!("run {}: {} {} B: {said}\n", run + 1, row.kind.name(), row.size);
    // Standard error may be closed.
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

/// Returns a description of the setting.
fn setting(testbed: &Testbed, args: &SwitchArgs) -> String {
    let [tester, switch] = testbed.cores;
    let pages = if testbed.paged() { "2 MiB hugepages" } else { "ordinary pages" };
    format!(
        "switch on core {switch}, tester on core {tester}, {pages}; {} turns of fresh processes, {:.1} s each; \
         ratios are medians of those within turns, with the interval that holds 95 %",
        args.runs,
        args.seconds.as_secs_f64()
    )
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Program(error.to_string())
    }
}
