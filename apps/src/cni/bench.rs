//! `linecard cni bench`: the duration of ADD and DEL, one by one and many at once, and a check for leftovers.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;
use linecard_apps_common::PrivateFolder;
use linecard_cni::Sandbox;
use serde::Serialize;

use super::stage::{Attached, Stage, enter};
use super::told;
use crate::error::Error;
use crate::output::{Output, out};

/// Arguments of `linecard cni bench`.
#[derive(Args)]
pub(super) struct BenchArgs {
    /// ADD and DEL one after another, so many times
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
    /// ADD and DEL so many at once
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    at_once: u32,
    /// Make no kernel interface beside the ports (`"link": false`): what is left of the time is not the kernel's to make and remove it
    #[arg(long)]
    no_link: bool,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// The duration of a command, in milliseconds.
#[derive(Debug, Serialize)]
struct Times {
    median: f64,
    p99: f64,
    longest: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    count: u32,
    at_once: u32,
    add_ms: Times,
    del_ms: Times,
    add_at_once_ms: Times,
    del_at_once_ms: Times,
    /// Leftovers: records, ports, interfaces, sockets, and descriptors of the switch.
    left: Vec<String>,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        let at = |share: usize| {
            let index = (times.len() * share).div_ceil(100).saturating_sub(1);
            times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        Self { median: at(50), p99: at(99), longest: at(100) }
    }

    fn line(&self, what: &str) -> String {
        let Self { median, p99, longest } = self;
        format!("{what:28} median {median:7.1} ms   p99 {p99:7.1} ms   longest {longest:7.1} ms\n")
    }
}

pub(super) fn run(args: &BenchArgs) -> Result<ExitCode, Error> {
    enter()?;
    let stage = Stage::new("bench", PrivateFolder::in_memory()?, !args.no_link)?;
    let sandbox = Sandbox::new().map_err(told)?;
    // The warm-up excludes the cost of first uses, and descriptors that stay open from then on.
    Attached::new(&stage.network, stage.target("warm-up", "net1", &sandbox)?)?.detach()?;
    stage.left(&[&sandbox])?;
    let before = stage.descriptors();
    let (add, del) = one_by_one(&stage, &sandbox, args.count)?;
    let (add_many, del_many) = at_once(&stage, args.at_once)?;
    let mut left = stage.left(&[&sandbox])?;
    let until = Instant::now() + Duration::from_secs(10);
    // A thread of the switch closes an ended connection a little later.
    while stage.descriptors() > before && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    let more = stage.descriptors().zip(before).map_or(0, |(after, before)| after.saturating_sub(before));
    if more > 0 {
        left.push(format!("{more} descriptors of the switch"));
    }
    let report = Report {
        count: args.count,
        at_once: args.at_once,
        add_ms: Times::of(add),
        del_ms: Times::of(del),
        add_at_once_ms: Times::of(add_many),
        del_at_once_ms: Times::of(del_many),
        left,
    };
    tell(&report, args.json)
}

fn tell(report: &Report, json: bool) -> Result<ExitCode, Error> {
    let mut output = Output::standard();
    if json {
        out!(output, "{}\n", serde_json::to_string(report).unwrap_or_default());
    } else {
        let Report { count, at_once, add_ms, del_ms, add_at_once_ms, del_at_once_ms, left } = report;
        out!(
            output,
            "{}{}",
            add_ms.line(&format!("ADD, {count} in turn")),
            del_ms.line(&format!("DEL, {count} in turn"))
        );
        out!(output, "{}", add_at_once_ms.line(&format!("ADD, {at_once} at once")));
        out!(output, "{}", del_at_once_ms.line(&format!("DEL, {at_once} at once")));
        match left.is_empty() {
            true => out!(output, "nothing is left\n"),
            false => out!(output, "LEFT: {}\n", left.join(", ")),
        }
    }
    output.finish(true)?;
    Ok(if report.left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

type Both = (Vec<Duration>, Vec<Duration>);

fn one_by_one(stage: &Stage, sandbox: &Sandbox, count: u32) -> Result<Both, Error> {
    let (mut add, mut del) = (Vec::new(), Vec::new());
    for number in 0..count {
        if stage.ended.load(Ordering::Relaxed) {
            return Err(Error::Failed("interrupted; everything that was made is removed".into()));
        }
        let target = stage.target(&format!("bench-{number}"), "net1", sandbox)?;
        let start = Instant::now();
        let attached = Attached::new(&stage.network, target)?;
        add.push(start.elapsed());
        let start = Instant::now();
        attached.detach()?;
        del.push(start.elapsed());
    }
    Ok((add, del))
}

/// Uses one namespace per attachment, as containers do.
fn at_once(stage: &Stage, count: u32) -> Result<Both, Error> {
    let sandboxes: Vec<Sandbox> =
        (0..count).map(|_| Sandbox::new()).collect::<Result<_, _>>().map_err(told)?;
    let targets: Vec<_> = sandboxes
        .iter()
        .enumerate()
        .map(|(number, sandbox)| stage.target(&format!("many-{number}"), "net1", sandbox))
        .collect::<Result<_, _>>()?;
    let (attached, add) = all_at_once(targets, |target| Attached::new(&stage.network, target))?;
    let (_, del) = all_at_once(attached, Attached::detach)?;
    let all: Vec<&Sandbox> = sandboxes.iter().collect();
    match stage.left(&all)? {
        left if left.is_empty() => Ok((add, del)),
        left => {
            Err(Error::Failed(format!("after DEL of {count} at once there are left: {}", left.join(", "))))
        }
    }
}

/// Runs `work` for each input in its own thread; returns the outputs and the duration of each.
fn all_at_once<T: Send, R: Send>(
    inputs: Vec<T>,
    work: impl Fn(T) -> Result<R, Error> + Sync,
) -> Result<(Vec<R>, Vec<Duration>), Error> {
    let done = Mutex::new(Vec::new());
    let gate = std::sync::Barrier::new(inputs.len());
    std::thread::scope(|scope| {
        for input in inputs {
            let (done, gate, work) = (&done, &gate, &work);
            scope.spawn(move || {
                gate.wait();
                let start = Instant::now();
                let outcome = work(input).map(|output| (output, start.elapsed()));
                done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(outcome);
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(done.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().unzip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_times_are_the_right_ones() {
        let times = Times::of((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!((times.median, times.p99, times.longest), (50.0, 99.0, 100.0));
        let one = Times::of(vec![Duration::from_millis(7)]);
        assert_eq!((one.median, one.p99, one.longest), (7.0, 7.0, 7.0));
        assert_eq!(Times::of(Vec::new()).median, 0.0);
    }
}
