//! `linecard top`: the rates of a running program, read from its telemetry socket.

mod client;
mod find;
mod rates;
mod sample;
mod text;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;

use self::client::Client;
use self::rates::{PortRates, Report};
use self::sample::Sample;
use crate::error::Error;
use crate::output::{Output, out};
use crate::screen::{Screen, Waited};
use crate::signals;

/// The number of lines above the ports.
const HEADING: usize = 3;

/// Arguments of `linecard top`.
#[derive(Args, Debug)]
pub(crate) struct TopArgs {
    /// The program's --file-prefix [default: whichever runs]
    #[arg(long, value_name = "PREFIX")]
    file_prefix: Option<String>,
    /// The program's process number, where several run
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Seconds between looks
    #[arg(short = 'i', long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// Stop after so many looks
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Look once, over one interval; as --count 1
    #[arg(long, conflicts_with = "count")]
    once: bool,
    /// Print each look as a line of JSON
    #[arg(long)]
    json: bool,
}

/// Prints rates until the requested number is reached, the output is closed, or a signal arrives.
///
/// # Errors
/// No program matches, or it does not answer.
pub(crate) fn run(args: &TopArgs) -> Result<ExitCode, Error> {
    let stop = signals::stop_flag(&signals::TERMINATION)?;
    let mut client = find::program(args.file_prefix.as_deref(), args.pid)?;
    let mut output = Output::standard();
    let before = Sample::take(&mut client)?;
    match (!args.json && !args.once).then(|| Screen::take(&stop, &mut output)).flatten() {
        None => lines(args, &mut client, &mut output, (before, &stop))?,
        Some(mut screen) => {
            let shown = watch(args, &mut client, &mut output, (&mut screen, before));
            screen.leave(&mut output);
            shown?;
        }
    }
    output.finish(false)?;
    Ok(ExitCode::SUCCESS)
}

/// Draws the rates of each interval at the same place.
fn watch(
    args: &TopArgs,
    client: &mut Client,
    output: &mut Output,
    (screen, mut before): (&mut Screen, Sample),
) -> Result<(), Error> {
    let (mut at, mut looks) = (Instant::now(), 0);
    let mut shown = None;
    while args.count.is_none_or(|count| looks < count) && !output.failed() {
        match screen.wait(at + Duration::from_secs(args.interval)) {
            Waited::End => break,
            Waited::Redraw => {}
            Waited::Time => {
                let (now, taken) = (Sample::take(client)?, Instant::now());
                shown = Some(Report::between(client, &before, &now, taken.duration_since(at)));
                (before, at) = (now, taken);
                looks += 1;
            }
        }
        let Some(report) = &mut shown else { continue };
        report.ports.sort_by_key(|port| port.port);
        screen.sort(&mut report.ports, PortRates::numbers);
        screen.draw(output, &text::of(report), HEADING);
    }
    Ok(())
}

/// Prints the rates of each interval below each other.
fn lines(
    args: &TopArgs,
    client: &mut Client,
    output: &mut Output,
    (mut before, stop): (Sample, &AtomicBool),
) -> Result<(), Error> {
    let (mut at, mut looks) = (Instant::now(), 0);
    let most = if args.once { Some(1) } else { args.count };
    while most.is_none_or(|most| looks < most) && wait(at + Duration::from_secs(args.interval), stop) {
        let now = Sample::take(client)?;
        let taken = Instant::now();
        let report = Report::between(client, &before, &now, taken.duration_since(at));
        print(output, args.json, &report)?;
        output.flush();
        if output.failed() {
            break;
        }
        (before, at) = (now, taken);
        looks += 1;
    }
    Ok(())
}

fn print(output: &mut Output, json: bool, report: &Report) -> Result<(), Error> {
    if json {
        let line = serde_json::to_string(report).map_err(|error| Error::Failed(error.to_string()))?;
        out!(output, "{line}\n");
        return Ok(());
    }
    out!(output, "{}", text::of(report));
    Ok(())
}

/// Returns `false` if a signal asks to stop.
fn wait(until: Instant, stop: &AtomicBool) -> bool {
    const NAP: Duration = Duration::from_millis(50);
    while !stop.load(Ordering::Relaxed) {
        match until.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => std::thread::sleep(left.min(NAP)),
            _ => return true,
        }
    }
    false
}
