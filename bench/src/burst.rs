//! Bursts: both ends of a vhost-user socket in one process, driven by one thread; measures the cycles of each
//! burst of a packet's round trip.
//!
//! No cache line moves between cores, so the figures are the cost of the two drivers alone and depend little
//! on the machine's state. `linecard bench loopback` measures two cores together.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use linecard::eal::{CoreId, clock};
use linecard::mempool::{Burst, Pool};

use super::Error;
use super::link::{Link, Links, PATIENCE, filled};
use super::loopback::Path;
use super::pair::{Bench, Case, Sample, alone, per};
use super::report::Row;

/// Counted rounds, after as many to warm up: a multiple of the period of any ring or cache.
const ROUNDS: u64 = 512;
/// Attempts to transfer a burst without a pause; after them the thread sleeps between attempts, for
/// [`PATIENCE`] in total.
const TRIES: u32 = 1000;
const PATHS: [Path; 6] = [
    Path::SplitMergeable,
    Path::SplitInorder,
    Path::SplitVector,
    Path::PackedMergeable,
    Path::PackedInorder,
    Path::PackedVector,
];

/// Measures the rows of `linecard bench burst`.
pub(crate) fn rows(bench: &mut Bench) -> Result<Vec<Row>, Error> {
    let setup = BurstSetup::new()?;
    bench.measure("burst", "cycles/packet", cases(&setup))
}

/// The links opened so far.
struct BurstSetup {
    links: Links,
    open: RefCell<Vec<(Path, Link)>>,
}

/// One burst of a packet's round trip, in order, or the whole round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    FrontendTx,
    BackendRx,
    BackendTx,
    FrontendRx,
    All,
}

impl Step {
    const EACH: [Self; 5] = [Self::FrontendTx, Self::BackendRx, Self::BackendTx, Self::FrontendRx, Self::All];

    const fn name(self) -> &'static str {
        match self {
            Self::FrontendTx => "frontend tx",
            Self::BackendRx => "backend rx",
            Self::BackendTx => "backend tx",
            Self::FrontendRx => "frontend rx",
            Self::All => "round",
        }
    }

    fn of(self, cycles: [u64; 4]) -> u64 {
        cycles.get(self as usize).copied().unwrap_or_else(|| cycles.iter().sum())
    }
}

struct BurstCase<'a> {
    setup: &'a BurstSetup,
    path: Path,
    step: Step,
    /// Bytes without frame check sequence.
    length: usize,
    burst: usize,
}

fn cases(setup: &BurstSetup) -> Vec<BurstCase<'_>> {
    let mut cases = Vec::new();
    for path in PATHS {
        for (length, burst) in [(64, 32), (64, 1), (1518, 32)] {
            // DPDK's vectorized split path receives nothing with a burst of 1.
            if path == Path::SplitVector && burst == 1 {
                continue;
            }
            cases.extend(Step::EACH.map(|step| BurstCase { setup, path, step, length, burst }));
        }
    }
    cases
}

impl Case for BurstCase<'_> {
    fn name(&self) -> String {
        format!("{} {} B burst-{} {}", self.path.name(), self.length, self.burst, self.step.name())
    }

    fn cores(&self) -> usize {
        1
    }

    fn question(&self) -> String {
        let (step, options) = (self.step as usize, self.path.options());
        format!("burst {step} {options} {} {} {ROUNDS}", self.length, self.burst)
    }

    fn sample(&self, cores: &[CoreId]) -> Result<Sample, Error> {
        let mut open = self.setup.open.borrow_mut();
        let link = self.setup.link(&mut open, self.path)?;
        let mut result = Ok([0; 4]);
        let (shared, length, burst) = (&self.setup.links.shared, self.length, self.burst);
        let core = cores.first().copied().unwrap_or(CoreId(0));
        let spent = alone(core, || result = rounds(link, shared, length, burst))?;
        let cycles = self.step.of(result?);
        Ok(Sample { value: per(cycles, ROUNDS * self.burst as u64), interrupted: spent.interrupted })
    }
}

impl BurstSetup {
    fn new() -> Result<Self, Error> {
        Ok(Self { links: Links::new()?, open: RefCell::default() })
    }

    /// Returns the link of a path; opens it at the first call.
    fn link<'a>(&self, open: &'a mut Vec<(Path, Link)>, path: Path) -> Result<&'a mut Link, Error> {
        let at = match open.iter().position(|(known, _)| *known == path) {
            Some(at) => at,
            None => {
                open.push((path, self.links.open(open.len(), path)?));
                open.len() - 1
            }
        };
        Ok(&mut open[at].1)
    }
}

/// Returns the cycles of each step, summed over all counted rounds.
fn rounds(link: &mut Link, pool: &Pool, length: usize, burst: usize) -> Result<[u64; 4], Error> {
    let mut packets = Burst::new();
    for _ in 0..burst {
        // A burst holds more than any case sends.
        let _ = packets.push(filled(pool, length)?);
    }
    let mut cycles = [0; 4];
    for _ in 0..ROUNDS {
        round(link, &mut packets, burst, &mut cycles)?;
    }
    cycles = [0; 4];
    for _ in 0..ROUNDS {
        round(link, &mut packets, burst, &mut cycles)?;
    }
    Ok(cycles)
}

/// Moves one burst around: from the frontend through the backend and back.
#[inline(never)]
fn round(link: &mut Link, packets: &mut Burst, burst: usize, cycles: &mut [u64; 4]) -> Result<(), Error> {
    let start = clock::cycles();
    whole(burst, || link.frontend.tx[0].tx_burst(packets))?;
    let sent = clock::cycles();
    whole(burst, || link.backend.rx[0].rx_burst(packets))?;
    let taken = clock::cycles();
    whole(burst, || link.backend.tx[0].tx_burst(packets))?;
    let returned = clock::cycles();
    whole(burst, || link.frontend.rx[0].rx_burst(packets))?;
    let received = clock::cycles();
    for (sum, (from, to)) in
        cycles.iter_mut().zip([(start, sent), (sent, taken), (taken, returned), (returned, received)])
    {
        *sum += to.wrapping_sub(from);
    }
    Ok(())
}

/// Repeats a step until the whole burst has been transferred: queues may become ready shortly after the link
/// is up.
#[inline(always)]
fn whole(burst: usize, mut step: impl FnMut() -> usize) -> Result<(), Error> {
    let mut done = 0;
    for _ in 0..TRIES {
        done += step();
        if done >= burst {
            return Ok(());
        }
    }
    patiently(burst, done, &mut step)
}

#[cold]
#[inline(never)]
fn patiently(burst: usize, mut done: usize, step: &mut dyn FnMut() -> usize) -> Result<(), Error> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        done += step();
        if done >= burst {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(Error::Place(format!("only {done} of {burst} packets passed")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use linecard::eal::cores;

    #[test]
    fn every_case_measures_and_gives_its_packets_back() {
        let setup = BurstSetup::new().expect("memory and a socket");
        for case in cases(&setup).iter().filter(|case| case.step == Step::All) {
            let sample = case.sample(&cores::allowed()).expect("a sample");
            assert!(sample.value > 0.0 && sample.value.is_finite(), "{}: {sample:?}", case.name());
        }
        setup.open.borrow_mut().clear();
        assert_eq!((setup.links.shared.stats().in_use, setup.links.private.stats().in_use), (0, 0));
    }

    #[test]
    fn a_round_is_the_sum_of_its_steps() {
        assert_eq!(Step::EACH.map(|step| step.of([1, 2, 3, 4])), [1, 2, 3, 4, 10]);
    }
}
