//! The state of the machine during a sample: the distance of its cores, and disturbances by other work.
//!
//! A hypervisor moves virtual cores between physical ones. The time for a cache line to change cores then
//! differs, and rates change by a factor of up to three, for seconds or minutes. Therefore the state is
//! probed, and only samples of one state are compared.

use std::collections::HashMap;
use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

use linecard::eal::{CoreId, clock};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::pair::{alone, hand_over, per};

/// The distance between the two cores, by the cycles of a cache line transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Below 310 cycles: the cores share a physical core or its second-level cache.
    Near,
    /// Below 600 cycles: the cores share a third-level cache.
    Common,
    /// Otherwise: the cores share only memory.
    Far,
    /// There is only one core.
    Alone,
    /// The user requested comparison across states.
    Any,
    /// Unknown, but the same for all rows of a round, which took turns.
    Turns,
}

impl State {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Common => "common",
            Self::Far => "far",
            Self::Alone => "one core",
            Self::Any => "any",
            Self::Turns => "in turns",
        }
    }
}

/// The result of one probe of the idle cores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Probe {
    /// Time-stamp cycles that a cache line takes from one core to the other.
    pub(crate) hand_over: f64,
    /// Core cycles per time-stamp cycle, on the slower core.
    pub(crate) clock: f64,
}

/// Attempts of a probe; the fastest counts, because any disturbance only makes it slower.
const TRIES: usize = 8;
const MULTIPLICATIONS: u32 = 100_000;
/// Core cycles of one dependent 64-bit multiplication, on x86-64 processors since 2010.
const MULTIPLICATION: u64 = 3;

impl Probe {
    /// Probes two cores; takes some milliseconds.
    pub(crate) fn take(cores: [CoreId; 2]) -> Result<Self, Error> {
        let mut probe = Self { hand_over: hand_over(cores)?, clock: f64::INFINITY };
        for core in cores {
            probe.clock = probe.clock.min(clock_of(core)?);
        }
        Ok(probe)
    }

    /// Probes the only core.
    pub(crate) fn alone(core: CoreId) -> Result<Self, Error> {
        Ok(Self { hand_over: 0.0, clock: clock_of(core)? })
    }

    pub(crate) fn state(&self) -> State {
        match self.hand_over {
            0.0 => State::Alone,
            ..310.0 => State::Near,
            310.0..600.0 => State::Common,
            _ => State::Far,
        }
    }

    /// Returns the state between the probes `self` and `after`; `None` if it changed: the hand-over by more
    /// than a quarter, or the clock by more than a twentieth.
    pub(crate) fn until(&self, after: &Self) -> Option<State> {
        let steady = |a: f64, b: f64, by: f64| a.max(b) <= a.min(b) * (1.0 + by);
        let same = steady(self.hand_over, after.hand_over, 0.25) && steady(self.clock, after.clock, 0.05);
        let middle = Self { hand_over: f64::midpoint(self.hand_over, after.hand_over), clock: self.clock };
        same.then(|| middle.state())
    }
}

fn clock_of(core: CoreId) -> Result<f64, Error> {
    let mut best = u64::MAX;
    let work = || {
        for _ in 0..TRIES {
            best = best.min(multiply());
        }
    };
    alone(core, work)?;
    Ok(per(u64::from(MULTIPLICATIONS) * MULTIPLICATION, best.max(1)))
}

/// Returns the cycles of a chain of multiplications.
fn multiply() -> u64 {
    let mut x: u64 = black_box(3);
    let start = clock::cycles();
    for _ in 0..MULTIPLICATIONS {
        x = x.wrapping_mul(x);
    }
    black_box(x);
    clock::cycles().wrapping_sub(start)
}

/// The disturbance of the polling threads.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Disturbance {
    /// Share of the time that the hypervisor gave to other guests.
    pub(crate) stolen: f64,
    /// Share of the time that a polling thread waited for its core; the maximum of the threads.
    pub(crate) waited: f64,
    /// Involuntary context switches per second; the maximum of the threads.
    pub(crate) switches: f64,
}

/// The most disturbance of an accepted sample.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Share of stolen time, and of waiting.
    pub(crate) share: f64,
    /// Involuntary context switches per second.
    pub(crate) switches: f64,
    /// Whether samples of different states are compared.
    pub(crate) any_state: bool,
}

impl Disturbance {
    /// Adds disturbances, to be averaged by [`over`](Self::over).
    pub(crate) fn add(&mut self, other: Self) {
        self.stolen += other.stolen;
        self.waited += other.waited;
        self.switches += other.switches;
    }

    /// Returns the mean of `count` added disturbances.
    pub(crate) fn over(self, count: u32) -> Self {
        let count = f64::from(count.max(1));
        Self { stolen: self.stolen / count, waited: self.waited / count, switches: self.switches / count }
    }

    pub(crate) fn within(&self, limits: &Limits) -> bool {
        self.stolen <= limits.share && self.waited <= limits.share && self.switches <= limits.switches
    }
}

/// Counters of all threads of some processes, at one moment.
pub(crate) struct Watch {
    at: Instant,
    threads: HashMap<(u32, u32), Counters>,
    stolen_ticks: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    ran_ns: u64,
    waited_ns: u64,
    switches: u64,
}

impl Watch {
    pub(crate) fn start(processes: &[u32]) -> Self {
        let threads = processes.iter().flat_map(|&process| counters(process)).collect();
        Self { at: Instant::now(), threads, stolen_ticks: stolen_ticks() }
    }

    /// Returns the disturbance since the start, of the `pollers` threads of each process that ran most.
    pub(crate) fn end(&self, processes: &[u32], pollers: usize) -> Disturbance {
        let elapsed = self.at.elapsed();
        let mut disturbance = Disturbance { stolen: self.stolen(elapsed), ..Disturbance::default() };
        for &process in processes {
            let mut spent: Vec<Counters> = counters(process)
                .into_iter()
                .map(|(thread, now)| now.since(self.threads.get(&thread).copied().unwrap_or_default()))
                .collect();
            spent.sort_by_key(|counters| std::cmp::Reverse(counters.ran_ns));
            for poller in spent.iter().take(pollers) {
                disturbance.waited = disturbance.waited.max(share(poller.waited_ns, elapsed));
                let switches = per(poller.switches * 1_000_000_000, nanos(elapsed).max(1));
                disturbance.switches = disturbance.switches.max(switches);
            }
        }
        disturbance
    }

    fn stolen(&self, elapsed: Duration) -> f64 {
        let ticks = stolen_ticks().saturating_sub(self.stolen_ticks);
        let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
        // One tick is within the counter's error.
        share(ticks.saturating_sub(1) * tick_ns, elapsed)
    }
}

impl Counters {
    fn since(self, before: Self) -> Self {
        Self {
            ran_ns: self.ran_ns.saturating_sub(before.ran_ns),
            waited_ns: self.waited_ns.saturating_sub(before.waited_ns),
            switches: self.switches.saturating_sub(before.switches),
        }
    }
}

fn share(ns: u64, of: Duration) -> f64 {
    per(ns, nanos(of).max(1))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns the counters of every thread of a process; empty if the process is gone.
fn counters(process: u32) -> Vec<((u32, u32), Counters)> {
    let folder = format!("/proc/{process}/task");
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let thread = entry.file_name().to_str()?.parse().ok()?;
            let schedule = fs::read_to_string(entry.path().join("schedstat")).ok()?;
            let status = fs::read_to_string(entry.path().join("status")).ok()?;
            Some(((process, thread), read_counters(&schedule, &status)?))
        })
        .collect()
}

/// `schedstat`: nanoseconds run, nanoseconds waited, time slices (proc(5)).
fn read_counters(schedule: &str, status: &str) -> Option<Counters> {
    let mut fields = schedule.split_whitespace().map_while(|field| field.parse().ok());
    let (ran_ns, waited_ns) = (fields.next()?, fields.next()?);
    let line = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"))?;
    Some(Counters { ran_ns, waited_ns, switches: line.trim().parse().ok()? })
}

/// Time that the hypervisor took from all cores, in ticks.
fn stolen_ticks() -> u64 {
    read_stolen(&fs::read_to_string("/proc/stat").unwrap_or_default())
}

/// Parses the eighth figure of the first line (proc(5)).
fn read_stolen(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    line.split_whitespace().nth(7).and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use linecard::eal::cores;

    fn probe(hand_over: f64, clock: f64) -> Probe {
        Probe { hand_over, clock }
    }

    #[test]
    fn states_are_told_apart() {
        for (hand_over, state) in [
            (140.0, State::Near),
            (270.0, State::Near),
            (350.0, State::Common),
            (450.0, State::Common),
            (770.0, State::Far),
            (f64::INFINITY, State::Far),
        ] {
            assert_eq!(probe(hand_over, 1.0).state(), state, "{hand_over}");
        }
    }

    #[test]
    fn a_state_that_changed_is_none() {
        let before = probe(380.0, 1.42);
        assert_eq!(before.until(&probe(400.0, 1.40)), Some(State::Common));
        assert_eq!(before.until(&probe(930.0, 1.42)), None);
        assert_eq!(before.until(&probe(150.0, 1.42)), None);
        assert_eq!(before.until(&probe(380.0, 1.10)), None);
        assert_eq!(probe(0.0, 1.4).until(&probe(0.0, 1.4)), Some(State::Alone));
        // Crossing the border between two states is not a change of the machine.
        assert_eq!(probe(300.0, 1.0).until(&probe(330.0, 1.0)), Some(State::Common));
    }

    #[test]
    fn counters_of_the_kernel_are_read() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t77\n";
        let counters = read_counters("1000 200 3\n", status).expect("readable");
        assert_eq!((counters.ran_ns, counters.waited_ns, counters.switches), (1000, 200, 77));
        assert!(read_counters("", status).is_none());
        assert!(read_counters("1 2 3", "").is_none());
        assert_eq!(read_stolen("cpu  1 2 3 4 5 6 7 42 9 10\ncpu0 1 1 1 1 1 1 1 1 1 1\n"), 42);
        assert_eq!(read_stolen(""), 0);
    }

    #[test]
    fn limits_hold_for_each_kind() {
        let limits = Limits { share: 0.01, switches: 100.0, any_state: false };
        assert!(Disturbance { stolen: 0.01, waited: 0.0, switches: 100.0 }.within(&limits));
        assert!(!Disturbance { stolen: 0.02, ..Disturbance::default() }.within(&limits));
        assert!(!Disturbance { waited: 0.02, ..Disturbance::default() }.within(&limits));
        assert!(!Disturbance { switches: 101.0, ..Disturbance::default() }.within(&limits));
    }

    #[test]
    fn this_process_is_seen_running() {
        let own = [std::process::id()];
        let watch = Watch::start(&own);
        let until = Instant::now() + Duration::from_millis(20);
        while Instant::now() < until {
            black_box(multiply());
        }
        let seen = watch.end(&own, 1);
        assert!(seen.waited.is_finite() && seen.switches >= 0.0 && seen.stolen >= 0.0, "{seen:?}");
        assert!(!counters(own[0]).is_empty());
        assert!(counters(0).is_empty(), "no such process");
    }

    #[test]
    fn two_cores_have_a_state() {
        let allowed = cores::allowed();
        let [a, b, ..] = allowed[..] else { return };
        let probe = Probe::take([a, b]).expect("allowed cores");
        assert!(probe.hand_over.is_finite() && probe.hand_over > 0.0, "{probe:?}");
        assert!(probe.clock.is_finite() && probe.clock > 0.0, "{probe:?}");
    }
}
