//! The longest round trip while the frontend's memory grows or shrinks by a step, beside that of equal times
//! without a step. One thread drives both ends, another one changes the memory.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use linecard::eal::CoreId;
use linecard::mempool::{Burst, Pool, PoolConfig};
use linecard::pmd::Port;

use super::report::{Comparison, Metric};
use super::{Event, Figure};
use crate::Error;
use crate::link::{Link, Links, PATIENCE, filled};
use crate::loopback::Path;
use crate::pair::together;
use crate::stats::Summary;

/// Steps of a round: half of them grow the memory, the others take it back.
const STEPS: u32 = 20;
/// Packets of a pool, which needs a segment of its own.
const PACKETS: u32 = 1024;
/// The least length of a step, and of the time without one beside it.
const WINDOW: Duration = Duration::from_millis(4);
/// The number of the window after the last one.
const OVER: u32 = u32::MAX;

const METRICS: &[Metric] = &[
    Metric { name: "longest round trip", unit: "µs", reference: Some(("without", Comparison::Difference)) },
    Metric { name: "longest of all", unit: "µs", reference: Some(("without", Comparison::Difference)) },
];

pub(super) struct Growth<'a> {
    links: &'a Links,
    link: Link,
    path: Path,
    packets: Burst,
}

impl<'a> Growth<'a> {
    pub(super) fn new(links: &'a Links, link: Link, path: Path) -> Result<Self, Error> {
        let mut packets = Burst::new();
        let _ = packets.push(filled(&links.shared, 64)?);
        Ok(Self { links, link, path, packets })
    }
}

impl Event for Growth<'_> {
    fn name(&self) -> String {
        format!("{} growth by 2 MiB", self.path.name())
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn round(&mut self, cores: [CoreId; 2]) -> Result<Vec<Figure>, Error> {
        let window = AtomicU32::new(0);
        let (mut trips, mut steps) = (Ok(Vec::new()), Ok(()));
        together(
            cores,
            || trips = longest_trips(&mut self.link, &mut self.packets, &window),
            || {
                steps = change_memory(self.links, &window);
                window.store(OVER, Ordering::Release);
            },
        )?;
        steps?;
        // Even windows are without a step.
        let trips = trips?;
        let of = |parity: usize| trips.iter().copied().skip(parity).step_by(2).collect::<Vec<f64>>();
        let summary = |parity: usize| {
            Summary::of(&of(parity)).ok_or_else(|| Error::Place("no packet passes while memory grows".into()))
        };
        let (without, with) = (summary(0)?, summary(1)?);
        let figure = |linecard, reference| Figure { linecard, reference: Some(reference) };
        Ok(vec![figure(with.median, without.median), figure(with.max, without.max)])
    }
}

/// Grows the memory step by step, and takes it back. Before each step there is a window without one.
fn change_memory(links: &Links, window: &AtomicU32) -> Result<(), Error> {
    let mut pools: Vec<Pool> = Vec::new();
    for step in 0..STEPS {
        window.store(2 * step, Ordering::Release);
        thread::sleep(WINDOW);
        window.store(2 * step + 1, Ordering::Release);
        let start = Instant::now();
        if step < STEPS / 2 {
            pools.push(Pool::new(&links.domain, PoolConfig::default().packets(PACKETS))?);
        } else {
            drop(pools.pop());
        }
        thread::sleep(WINDOW.saturating_sub(start.elapsed()));
    }
    Ok(())
}

/// Sends one packet round after round; returns the microseconds of the longest trip that began or ended in each
/// window.
fn longest_trips(link: &mut Link, packets: &mut Burst, window: &AtomicU32) -> Result<Vec<f64>, Error> {
    let mut longest = vec![0.0_f64; 2 * STEPS as usize];
    loop {
        let first = window.load(Ordering::Acquire);
        if first == OVER {
            return Ok(longest);
        }
        let start = Instant::now();
        trip(&mut link.frontend, &mut link.backend, packets)?;
        let took = start.elapsed().as_secs_f64() * 1e6;
        for window in [first, window.load(Ordering::Acquire)] {
            if let Some(longest) = longest.get_mut(window as usize) {
                *longest = longest.max(took);
            }
        }
    }
}

/// Sends the packets to the backend and back.
fn trip(frontend: &mut Port, backend: &mut Port, packets: &mut Burst) -> Result<(), Error> {
    pass(packets, |packets| frontend.tx[0].tx_burst(packets))?;
    pass(packets, |packets| backend.rx[0].rx_burst(packets))?;
    pass(packets, |packets| backend.tx[0].tx_burst(packets))?;
    pass(packets, |packets| frontend.rx[0].rx_burst(packets))
}

/// Repeats a step until it moved the packet.
fn pass(packets: &mut Burst, mut step: impl FnMut(&mut Burst) -> usize) -> Result<(), Error> {
    let start = Instant::now();
    while step(packets) == 0 {
        if start.elapsed() > PATIENCE {
            return Err(Error::Place("a packet was lost while memory grew".into()));
        }
    }
    Ok(())
}
