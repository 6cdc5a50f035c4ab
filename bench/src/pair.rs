//! Runs a loop on pinned cores, undisturbed if possible, in turn with the peer's.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use linecard::eal::{CoreId, clock, cores};

use super::Error;
use super::loopback::Interrupt;
use super::peer::Peer;
use super::report::Row;
use super::stats::Samples;

/// The most attempts for a sample when the kernel preempted a thread during it.
const TRIES: u32 = 8;
/// The time after which there are no further attempts, so that a busy machine makes a run noisy but not
/// endless.
const PATIENCE: Duration = Duration::from_millis(100);

/// The parameters that all rows share.
pub(crate) struct Bench {
    /// One core or two.
    pub(crate) cores: Vec<CoreId>,
    pub(crate) runs: u32,
    /// Text that a case must contain.
    pub(crate) filter: Option<String>,
    pub(crate) peer: Option<Peer>,
    /// Set when the user interrupts the run.
    pub(crate) interrupt: Interrupt,
}

/// One figure, and how often a thread was preempted during its measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) value: f64,
    pub(crate) interrupted: u64,
}

/// A case that both sides measure.
pub(crate) trait Case {
    /// The name in the result.
    fn name(&self) -> String;
    /// The number of cores that it needs.
    fn cores(&self) -> usize;
    /// The question for the peer.
    fn question(&self) -> String;
    /// Measures our side.
    fn sample(&self, cores: &[CoreId]) -> Result<Sample, Error>;
}

impl Bench {
    /// Measures every case that matches the filter and the number of cores, each once per run, so that its
    /// samples are distributed over the whole time. A run of a case is four slices, ours, DPDK's, DPDK's,
    /// ours: the two of a pair are adjacent and see the same state of the machine, and neither side is always
    /// the first.
    pub(crate) fn measure<C: Case>(
        &mut self,
        bench: &'static str,
        unit: &'static str,
        cases: Vec<C>,
    ) -> Result<Vec<Row>, Error> {
        let wanted = |case: &C| {
            case.cores() <= self.cores.len()
                && self.filter.as_ref().is_none_or(|text| case.name().contains(text.as_str()))
        };
        let mut table: Vec<(C, Samples, u32)> =
            cases.into_iter().filter(wanted).map(|case| (case, Samples::default(), 0)).collect();
        'runs: for _ in 0..self.runs {
            for (case, samples, disturbed) in &mut table {
                if self.interrupt.check().is_err() {
                    break 'runs;
                }
                for ours in [true, false, false, true] {
                    if ours {
                        let sample = calm(|| case.sample(&self.cores))?;
                        samples.linecard.push(sample.value);
                        *disturbed += u32::from(sample.interrupted > 0);
                    } else if let Some(peer) = &mut self.peer {
                        let question = case.question();
                        let sample = calm(|| peer.ask(&question))?;
                        samples.dpdk.push(sample.value);
                        *disturbed += u32::from(sample.interrupted > 0);
                    }
                }
            }
        }
        Ok(table
            .iter()
            .filter_map(|(case, samples, disturbed)| Row::new(bench, case.name(), unit, samples, *disturbed))
            .collect())
    }

    /// Returns a line that describes the setting.
    pub(crate) fn describe(&self, absent: Option<&str>) -> String {
        let cores = self.cores.iter().map(CoreId::to_string).collect::<Vec<_>>().join(" and ");
        let peer = match (&self.peer, absent) {
            (Some(peer), _) => peer.describe().to_owned(),
            (None, Some(reason)) => format!("absent: {reason}"),
            (None, None) => "absent".to_owned(),
        };
        let latency = match self.cores[..] {
            [a, b] => {
                let cycles = hand_over([a, b]).unwrap_or(f64::NAN);
                format!("; a cache line changes cores in {cycles:.0} cycles")
            }
            _ => "; one core: two-core rows left out".to_owned(),
        };
        format!("cores {cores}{latency}; {} pairs in turn; dpdk {peer}", 2 * self.runs)
    }
}

/// Repeats a sample until it was not preempted, or returns the least preempted one.
fn calm(mut sample: impl FnMut() -> Result<Sample, Error>) -> Result<Sample, Error> {
    let start = Instant::now();
    let mut best = sample()?;
    for _ in 1..TRIES {
        if best.interrupted == 0 || start.elapsed() > PATIENCE {
            break;
        }
        let next = sample()?;
        if next.interrupted < best.interrupted {
            best = next;
        }
    }
    Ok(best)
}

/// Cycles and preemptions of a loop on one thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    pub(crate) cycles: u64,
    pub(crate) interrupted: u64,
}

/// Runs `work` on a core, in a new thread.
pub(crate) fn alone(core: CoreId, work: impl FnOnce() + Send) -> Result<Spent, Error> {
    thread::scope(|s| finished(s.spawn(move || timed(core, &AtomicU32::new(1), 1, work))))
}

/// Runs `first` and `second` at the same time on two cores.
pub(crate) fn together(
    cores: [CoreId; 2],
    first: impl FnOnce() + Send,
    second: impl FnOnce() + Send,
) -> Result<[Spent; 2], Error> {
    let arrived = AtomicU32::new(0);
    let arrived = &arrived;
    thread::scope(|s| {
        let first = s.spawn(move || timed(cores[0], arrived, 2, first));
        let second = s.spawn(move || timed(cores[1], arrived, 2, second));
        Ok([finished(first)?, finished(second)?])
    })
}

fn finished(thread: thread::ScopedJoinHandle<'_, Result<Spent, Error>>) -> Result<Spent, Error> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Pins the thread, waits for the others, and measures. Arrives even if pinning fails, because the other
/// thread waits.
fn timed(core: CoreId, arrived: &AtomicU32, threads: u32, work: impl FnOnce()) -> Result<Spent, Error> {
    let pinned = cores::pin_current(core);
    let before = interruptions();
    arrived.fetch_add(1, Ordering::AcqRel);
    while arrived.load(Ordering::Acquire) < threads {
        std::hint::spin_loop();
    }
    let start = clock::cycles();
    work();
    let cycles = clock::cycles().wrapping_sub(start);
    let interrupted = interruptions().saturating_sub(before);
    pinned?;
    Ok(Spent { cycles, interrupted })
}

/// Returns how often the kernel preempted this thread so far; 0 if that is not available.
fn interruptions() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// Attempts of a hand-over; the fastest counts, because any disturbance only makes it slower.
const HAND_OVERS: usize = 8;
const TURNS: u32 = 1000;

/// Alone on its cache line and on the adjacent one, which is prefetched with it.
#[repr(align(128))]
#[derive(Default)]
pub(crate) struct CacheLine(pub(crate) AtomicU32);

impl CacheLine {
    /// Without a pause instruction, which would take longer than the measured hand-over.
    fn await_turn(&self, turn: u32) {
        while self.0.load(Ordering::Acquire) != turn {}
    }
}

/// Returns the time-stamp cycles that a cache line takes from one core to the other.
pub(crate) fn hand_over(cores: [CoreId; 2]) -> Result<f64, Error> {
    let mut best = f64::INFINITY;
    for _ in 0..HAND_OVERS {
        let (ping, pong) = (CacheLine::default(), CacheLine::default());
        let ask = || {
            for turn in 1..=TURNS {
                ping.0.store(turn, Ordering::Release);
                pong.await_turn(turn);
            }
        };
        let reply = || {
            for turn in 1..=TURNS {
                ping.await_turn(turn);
                pong.0.store(turn, Ordering::Release);
            }
        };
        let [spent, _] = together(cores, ask, reply)?;
        best = best.min(per(spent.cycles, u64::from(TURNS) * 2));
    }
    Ok(best)
}

/// Returns `amount` divided by `count`.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) fn per(amount: u64, count: u64) -> f64 {
    amount as f64 / count as f64
}
