//! Rings: the loops of DPDK's `ring_perf_autotest`.
//!
//! Two cores: one enqueues, the other dequeues; the figure is the *sum* of both sides' cycles per element.
//! One core: enqueues, then dequeues; the figure is the cycles of both per element.
//!
//! Contended: two cores, each with its own handles for both sides, enqueue and dequeue at the same time; the
//! figure is the sum of both cores' cycles per element that was enqueued and dequeued.
//!
//! `mp/mc` is the default mode of `mpmc::ring`, `mp/mc Multi` the mode of that name; both are compared with
//! rte_ring's MP/MC.

use std::hint::{black_box, spin_loop};

use linecard::eal::CoreId;
use linecard::ring::{Adaptive, Config, Consumer, Hts, Mode, Multi, MultiThread, Producer, Rts, Single};

use super::Error;
use super::pair::{Bench, Case, Sample, Spent, alone, per, together};
use super::report::Row;

/// Elements of the ring, as in DPDK's test.
const CAPACITY: usize = 4096;
/// Elements per sample: some milliseconds to some tens of them, long compared with the start of a thread and
/// short compared with the seconds for which a machine keeps its state.
const ELEMENTS_ONE: u64 = 1 << 21;
const ELEMENTS_TWO: u64 = 1 << 22;
/// Bursts per sample of the contended cases: a cache line changes cores for every burst, whatever its size.
const BURSTS_CONTENDED: u64 = 1 << 17;

/// Measures the rows of `linecard bench ring`.
pub(crate) fn rows(bench: &mut Bench) -> Result<Vec<Row>, Error> {
    bench.measure("ring", "cycles/element", cases())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SyncMode {
    Single,
    Multi,
    Adaptive,
    Rts,
    Hts,
}

#[derive(Debug, Clone, Copy)]
struct RingCase {
    sync: SyncMode,
    /// Elements per burst; 0 for single elements.
    bulk: usize,
    cores: usize,
    /// Bytes: 8 or 16.
    element: usize,
    /// Whether both cores use both sides.
    contended: bool,
}

fn cases() -> Vec<RingCase> {
    let case = |sync, bulk, cores, element| RingCase { sync, bulk, cores, element, contended: false };
    let contended = |sync, bulk| RingCase { contended: true, ..case(sync, bulk, 2, 8) };
    let mut cases = Vec::new();
    for sync in [SyncMode::Single, SyncMode::Adaptive, SyncMode::Multi] {
        cases.push(case(sync, 0, 1, 8));
        cases.extend([8, 32, 128].map(|bulk| case(sync, bulk, 1, 8)));
        cases.extend([8, 32, 128, 256].map(|bulk| case(sync, bulk, 2, 8)));
        cases.push(case(sync, 32, 2, 16));
    }
    for sync in [SyncMode::Rts, SyncMode::Hts] {
        cases.extend([case(sync, 0, 1, 8), case(sync, 8, 2, 8), case(sync, 32, 2, 8)]);
    }
    for sync in [SyncMode::Adaptive, SyncMode::Multi, SyncMode::Rts, SyncMode::Hts] {
        cases.extend([contended(sync, 1), contended(sync, 8), contended(sync, 32)]);
    }
    cases
}

impl Case for RingCase {
    fn name(&self) -> String {
        let sync = match self.sync {
            SyncMode::Single => "sp/sc",
            SyncMode::Adaptive => "mp/mc",
            SyncMode::Multi => "mp/mc Multi",
            SyncMode::Rts => "rts",
            SyncMode::Hts => "hts",
        };
        let burst = if self.bulk == 0 { "single".to_owned() } else { format!("bulk-{}", self.bulk) };
        let cores = match (self.cores, self.contended) {
            (2, true) => "contended by two cores",
            (2, false) => "two cores",
            _ => "one core",
        };
        let element = if self.element == 8 { "" } else { ", 16-byte elements" };
        format!("{sync} {burst} {cores}{element}")
    }

    fn cores(&self) -> usize {
        self.cores
    }

    fn question(&self) -> String {
        let mode = match self.sync {
            SyncMode::Single => "sp",
            SyncMode::Multi | SyncMode::Adaptive => "mp",
            SyncMode::Rts => "rts",
            SyncMode::Hts => "hts",
        };
        let what = if self.contended { "contend" } else { "ring" };
        format!("{what} {mode} {} {} {} {}", self.bulk, self.cores, self.element, self.rounds())
    }

    fn sample(&self, cores: &[CoreId]) -> Result<Sample, Error> {
        if let (true, &[first, second, ..]) = (self.contended, cores) {
            return match self.sync {
                SyncMode::Multi | SyncMode::Single => self.contend::<Multi>([first, second]),
                SyncMode::Adaptive => self.contend::<Adaptive>([first, second]),
                SyncMode::Rts => self.contend::<Rts>([first, second]),
                SyncMode::Hts => self.contend::<Hts>([first, second]),
            };
        }
        match self.sync {
            SyncMode::Single => self.sample_in::<Single>(cores),
            SyncMode::Multi => self.sample_in::<Multi>(cores),
            SyncMode::Adaptive => self.sample_in::<Adaptive>(cores),
            SyncMode::Rts => self.sample_in::<Rts>(cores),
            SyncMode::Hts => self.sample_in::<Hts>(cores),
        }
    }
}

impl RingCase {
    fn rounds(&self) -> u64 {
        let elements = if self.cores == 2 { ELEMENTS_TWO } else { ELEMENTS_ONE };
        if self.contended { BURSTS_CONTENDED } else { elements / self.bulk.max(1) as u64 }
    }

    /// Measures two cores, each with its own handles.
    fn contend<M: MultiThread>(&self, cores: [CoreId; 2]) -> Result<Sample, Error> {
        let ends = Config::power_of_two(CAPACITY).heap::<u64, M, M>()?;
        touch(&ends);
        let others = (ends.0.clone(), ends.1.clone());
        let (bulk, rounds) = (self.bulk, self.rounds());
        let spent = together(
            cores,
            move || both_sides(&ends, bulk, rounds),
            move || both_sides(&others, bulk, rounds),
        )?;
        // Each core moves the same number of elements; the cycles are those of both cores.
        let elements = 2 * rounds * bulk as u64;
        Ok(Sample {
            value: per(spent.iter().map(|s| s.cycles).sum(), elements),
            interrupted: spent.iter().map(|s| s.interrupted).sum(),
        })
    }

    fn sample_in<M: Mode>(&self, cores: &[CoreId]) -> Result<Sample, Error> {
        match self.element {
            8 => self.sample_of::<M, u64>(cores),
            _ => self.sample_of::<M, [u64; 2]>(cores),
        }
    }

    fn sample_of<M: Mode, T: Copy + Send + Default>(&self, cores: &[CoreId]) -> Result<Sample, Error> {
        let ends = Config::power_of_two(CAPACITY).heap::<T, M, M>()?;
        touch(&ends);
        let rounds = self.rounds();
        let spent: Vec<Spent> = match (self.bulk, cores) {
            (0, &[core, ..]) => vec![alone(core, move || one_by_one(&ends, rounds))?],
            (bulk, &[first, second, ..]) if self.cores == 2 => {
                let (producer, consumer) = ends;
                let feed = move || produce(&producer, bulk, rounds);
                together([first, second], feed, move || consume(&consumer, bulk, rounds))?.into()
            }
            (bulk, &[core, ..]) => vec![alone(core, move || in_turn(&ends, bulk, rounds))?],
            (_, []) => Vec::new(),
        };
        let elements = rounds * self.bulk.max(1) as u64;
        Ok(Sample {
            value: per(spent.iter().map(|s| s.cycles).sum(), elements),
            interrupted: spent.iter().map(|s| s.interrupted).sum(),
        })
    }
}

type Ends<T, M> = (Producer<T, M>, Consumer<T, M>);

/// Fills and empties the ring once, so that no page is touched for the first time during the measurement.
fn touch<T: Copy + Send + Default, M: Mode>((producer, consumer): &Ends<T, M>) {
    let mut items = vec![T::default(); CAPACITY];
    let _ = producer.enqueue_bulk(&items);
    let _ = consumer.dequeue_bulk(&mut items);
}

// Here and in the peer, the compiler must not know the sizes or the values of the elements, nor that they are
// unused (it does not know these in programs either), and enqueued elements do not depend on dequeued ones.
// None of this costs a store on either side, because the time of short bursts is that of their stores.

/// The most elements that any case moves at once, on separate cache lines as in the peer.
#[repr(align(64))]
struct Lines<T>([T; CAPACITY / 8]);

impl<T: Copy + Default> Lines<T> {
    fn new() -> Self {
        Self([T::default(); CAPACITY / 8])
    }
}

/// Makes the compiler assume that each [`look`] may access `items`.
fn show<T>(items: &mut [T]) {
    black_box(items.as_mut_ptr());
}

/// Makes the compiler assume that the elements passed to [`show`] were read and written.
#[inline(always)]
fn look() {
    black_box(());
}

#[inline(never)]
fn produce<T: Copy + Send + Default, M: Mode>(producer: &Producer<T, M>, bulk: usize, rounds: u64) {
    let items = &mut Lines::<T>::new().0[..bulk];
    show(items);
    for _ in 0..rounds {
        look();
        while producer.enqueue_bulk(items).count == 0 {
            spin_loop();
        }
    }
}

#[inline(never)]
fn consume<T: Copy + Send + Default, M: Mode>(consumer: &Consumer<T, M>, bulk: usize, rounds: u64) {
    let items = &mut Lines::<T>::new().0[..bulk];
    show(items);
    for _ in 0..rounds {
        while consumer.dequeue_bulk(items).count == 0 {
            spin_loop();
        }
        look();
    }
}

#[inline(never)]
fn in_turn<T: Copy + Send + Default, M: Mode>((producer, consumer): &Ends<T, M>, bulk: usize, rounds: u64) {
    let (from, to) = (&mut Lines::<T>::new().0[..bulk], &mut Lines::<T>::new().0[..bulk]);
    show(from);
    show(to);
    for _ in 0..rounds {
        look();
        let _ = producer.enqueue_bulk(from);
        let _ = consumer.dequeue_bulk(to);
        look();
    }
}

/// The same as [`in_turn`], but another core may have changed the ring in between.
#[inline(never)]
fn both_sides<T: Copy + Send + Default, M: Mode>(
    (producer, consumer): &Ends<T, M>,
    bulk: usize,
    rounds: u64,
) {
    let (from, to) = (&mut Lines::<T>::new().0[..bulk], &mut Lines::<T>::new().0[..bulk]);
    show(from);
    show(to);
    for _ in 0..rounds {
        look();
        while producer.enqueue_bulk(from).count == 0 {
            spin_loop();
        }
        while consumer.dequeue_bulk(to).count == 0 {
            spin_loop();
        }
        look();
    }
}

#[inline(never)]
fn one_by_one<T: Copy + Send + Default, M: Mode>((producer, consumer): &Ends<T, M>, rounds: u64) {
    let (mut from, mut to) = ([T::default()], [T::default()]);
    show(&mut from);
    show(&mut to);
    for _ in 0..rounds {
        look();
        let _ = producer.enqueue(from[0]);
        if let Some(item) = consumer.dequeue() {
            to[0] = item;
        }
        look();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linecard::eal::cores;

    #[test]
    fn every_case_measures_and_has_a_name_of_its_own() {
        let allowed = cores::allowed();
        let mut names: Vec<_> = cases().iter().map(Case::name).collect();
        for case in cases().iter().filter(|case| case.cores <= allowed.len() && case.bulk <= 32) {
            let sample = case.sample(&allowed).expect("a sample");
            assert!(sample.value > 0.0 && sample.value.is_finite(), "{}: {sample:?}", case.name());
        }
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
