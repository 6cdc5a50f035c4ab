//! The ceiling: two threads that do only the essential work of the closed loop, without checks, features or
//! separate processes.
//!
//! ```text
//! frontend: takes a filled buffer from the rx ring, swaps the addresses of its packet, hands it to the tx ring, and
//!           posts the buffer that the tx ring gives back on the rx ring
//! backend:  copies packets from the tx ring into memory of its own, and from there into the rx ring's buffers
//! ```
//!
//! Each slot has a word that names its owner, as in a packed ring, and the number of its buffer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use linecard::eal::{CoreId, cores};

use super::cell::Load;
use super::console::{Failure, Interrupt};
use super::kind::Metric;
use super::machine::Watch;
use super::raw::Values;
use super::testbed::{Figure, Testbed};
use crate::pair::per;

/// A cache line of a packet buffer. Two threads use it in turn; atomic words make that possible without
/// unsafe code. Relaxed loads and stores of words are ordinary instructions.
#[repr(align(64))]
#[derive(Default)]
struct CacheLine([AtomicU64; 8]);

/// A cache line of the backend's private memory.
#[repr(align(64))]
#[derive(Clone, Copy, Default)]
struct PrivateLine([u64; 8]);

impl CacheLine {
    #[inline(always)]
    fn read(&self, to: &mut PrivateLine) {
        for (word, shared) in to.0.iter_mut().zip(&self.0) {
            *word = shared.load(Ordering::Relaxed);
        }
    }

    #[inline(always)]
    fn write(&self, from: &PrivateLine) {
        for (word, shared) in from.0.iter().zip(&self.0) {
            shared.store(*word, Ordering::Relaxed);
        }
    }
}

/// A descriptor.
#[derive(Default)]
struct Descriptor {
    owner: AtomicU64,
    buffer: AtomicU64,
}

/// The owners of a slot. Driver and device alternate; the lap distinguishes successive turns.
const DRIVER: u64 = 1;
const DEVICE: u64 = 2;

struct Ring {
    slots: Vec<Descriptor>,
    mask: usize,
    bits: u32,
}

impl Ring {
    fn new(size: usize) -> Self {
        Self {
            slots: (0..size).map(|_| Descriptor::default()).collect(),
            mask: size - 1,
            bits: size.trailing_zeros(),
        }
    }

    #[inline(always)]
    fn slot(&self, at: usize) -> &Descriptor {
        &self.slots[at & self.mask]
    }

    #[inline(always)]
    fn word(&self, at: usize, owner: u64) -> u64 {
        (at >> self.bits) as u64 & 1 | owner << 8
    }

    #[inline(always)]
    fn is(&self, at: usize, owner: u64) -> bool {
        self.slot(at).owner.load(Ordering::Acquire) == self.word(at, owner)
    }

    #[inline(always)]
    fn give(&self, at: usize, owner: u64) {
        self.slot(at).owner.store(self.word(at, owner), Ordering::Release);
    }

    /// Returns how many slots from `at` on belong to `owner`, up to `most`.
    #[inline(always)]
    fn count(&self, at: usize, owner: u64, most: usize) -> usize {
        (0..most).take_while(|n| self.is(at + n, owner)).count()
    }

    #[inline(always)]
    fn buffer(&self, at: usize) -> usize {
        usize::try_from(self.slot(at).buffer.load(Ordering::Relaxed)).unwrap_or(0)
    }
}

/// Both rings and their buffers.
struct Loop {
    tx: Ring,
    rx: Ring,
    lines: Vec<CacheLine>,
    /// Distance between buffers, in lines.
    stride: usize,
    /// Length of each of twelve packets in turn, in lines.
    lengths: [usize; 12],
    burst: usize,
    stop: AtomicBool,
    done: AtomicU64,
}

/// An odd distance between buffers, in lines, so that packets are distributed over all sets of a cache.
const LEAST_STRIDE: usize = 35;

impl Loop {
    fn new(load: Load) -> Self {
        let size = usize::from(load.ring).next_power_of_two().max(2);
        let stride = (usize::from(load.size.longest()).div_ceil(64) | 1).max(LEAST_STRIDE);
        let lines = (0..2 * size * stride).map(|_| CacheLine::default()).collect();
        let mut lengths = [1; 12];
        let parts = load.size.parts().into_iter();
        let each =
            parts.flat_map(|(bytes, n)| std::iter::repeat_n(usize::from(bytes).div_ceil(64), n.into()));
        lengths.iter_mut().zip(each).for_each(|(to, lines)| *to = lines);
        let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
        let burst = usize::from(load.burst).min(size);
        Self { tx: Ring::new(size), rx: Ring::new(size), lines, stride, lengths, burst, stop, done }
    }

    #[inline(always)]
    fn packet(&self, buffer: usize, lines: usize) -> &[CacheLine] {
        &self.lines[buffer * self.stride..][..lines]
    }

    fn frontend(&self) {
        let size = self.rx.slots.len();
        for at in 0..size {
            self.rx.slot(at).buffer.store(at as u64, Ordering::Relaxed);
            self.rx.give(at, DRIVER);
            self.tx.slot(at).buffer.store((size + at) as u64, Ordering::Relaxed);
            self.tx.give(at, DRIVER);
        }
        let (mut sent, mut got) = (size, 0);
        while !self.stop.load(Ordering::Relaxed) {
            let n = self.rx.count(got, DEVICE, self.burst);
            let n = self.tx.count(sent - size, DEVICE, n);
            if n == 0 {
                std::hint::spin_loop();
            }
            for i in 0..n {
                let [CacheLine(words)] = self.packet(self.rx.buffer(got + i), 1) else { continue };
                let (a, b) = (words[0].load(Ordering::Relaxed), words[1].load(Ordering::Relaxed));
                words[0].store(b, Ordering::Relaxed);
                words[1].store(a, Ordering::Relaxed);
            }
            for _ in 0..n {
                let (filled, empty) = (self.rx.slot(got), self.tx.slot(sent));
                let buffer = filled.buffer.load(Ordering::Relaxed);
                filled.buffer.store(empty.buffer.load(Ordering::Relaxed), Ordering::Relaxed);
                empty.buffer.store(buffer, Ordering::Relaxed);
                self.rx.give(got + size, DRIVER);
                self.tx.give(sent, DRIVER);
                (got, sent) = (got + 1, sent + 1);
            }
        }
    }

    fn backend(&self) {
        let longest = self.lengths.iter().copied().max().unwrap_or(1);
        let mut own = vec![PrivateLine::default(); self.burst * longest];
        let (mut at, mut turn) = (0, 0);
        while !self.stop.load(Ordering::Relaxed) {
            let n = self.tx.count(at, DRIVER, self.burst);
            let n = self.rx.count(at, DRIVER, n);
            if n == 0 {
                std::hint::spin_loop();
                continue;
            }
            for i in 0..n {
                let packet = self.packet(self.tx.buffer(at + i), self.lengths[(turn + i) % 12]);
                packet.iter().zip(&mut own[i * longest..]).for_each(|(line, own)| line.read(own));
            }
            for i in 0..n {
                let packet = self.packet(self.rx.buffer(at + i), self.lengths[(turn + i) % 12]);
                packet.iter().zip(&own[i * longest..]).for_each(|(line, own)| line.write(own));
            }
            for i in 0..n {
                self.tx.give(at + i, DEVICE);
                self.rx.give(at + i, DEVICE);
            }
            at += n;
            turn = (turn + n) % 12;
            self.done.store(at as u64, Ordering::Relaxed);
        }
    }
}

impl Testbed {
    /// Measures the ceiling once, with new memory and new threads.
    pub(crate) fn ceiling(&self, load: Load, warm_up: Duration, window: Duration) -> Result<Figure, Failure> {
        let shared = Arc::new(Loop::new(load));
        let [front, back] = self.cores;
        let spawn = |core, work: fn(&Loop)| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || pinned(core, &shared, work))
        };
        let threads = [spawn(front, Loop::frontend), spawn(back, Loop::backend)];
        let figure = measure(&shared, &self.interrupt, warm_up, window);
        shared.stop.store(true, Ordering::Relaxed);
        for thread in threads {
            let ended = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            ended.map_err(|error| Failure::Program(error.to_string()))?;
        }
        figure
    }
}

fn pinned(core: CoreId, shared: &Loop, work: fn(&Loop)) -> Result<(), linecard::eal::Error> {
    cores::pin_current(core)?;
    work(shared);
    Ok(())
}

fn measure(
    shared: &Loop,
    interrupt: &Interrupt,
    warm_up: Duration,
    window: Duration,
) -> Result<Figure, Failure> {
    let own = [std::process::id()];
    interrupt.sleep(warm_up)?;
    let watch = Watch::start(&own);
    let (start, before) = (Instant::now(), shared.done.load(Ordering::Relaxed));
    interrupt.sleep(window)?;
    let (took, after) = (start.elapsed(), shared.done.load(Ordering::Relaxed));
    let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
    if after == before {
        return Err(Failure::Program("the ceiling loop moved nothing".into()));
    }
    let values = Values::from([(Metric::Mpps, per((after - before) * 1000, nanos))]);
    Ok(Figure { values, disturbance: watch.end(&own, 2) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loopback::cell::Size;

    #[test]
    fn packets_go_round_and_stay_whole() {
        for (size, ring, burst) in
            [(Size::Bytes(64), 256, 32), (Size::Imix, 256, 1), (Size::Bytes(1518), 16, 64)]
        {
            let shared = Loop::new(Load { size, ring, burst });
            for (at, line) in shared.lines.iter().enumerate() {
                line.0[7].store(at as u64 % shared.stride as u64, Ordering::Relaxed);
            }
            let until = Instant::now() + Duration::from_secs(5);
            thread::scope(|s| {
                s.spawn(|| shared.frontend());
                s.spawn(|| shared.backend());
                while shared.done.load(Ordering::Relaxed) < 10_000 && Instant::now() < until {
                    thread::sleep(Duration::from_millis(1));
                }
                shared.stop.store(true, Ordering::Relaxed);
            });
            assert!(shared.done.load(Ordering::Relaxed) >= 10_000, "{size} {ring} {burst}");
            // On whatever path packets went, each line is still the same line of some packet.
            for (at, line) in shared.lines.iter().enumerate() {
                let whose = line.0[7].load(Ordering::Relaxed);
                assert_eq!(whose, at as u64 % shared.stride as u64, "line {at}");
            }
        }
    }
}
