//! Wake-ups: from before a packet is sent until a sleeping thread that received it has answered, beside the same
//! with a write to an eventfd instead of the packet.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use linecard::eal::CoreId;
use linecard::mempool::Burst;
use linecard::pmd::{Adaptive, RxQueue, TxQueue};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::report::{Comparison, Metric};
use super::{Event, Figure};
use crate::Error;
use crate::link::{Link, Links, PATIENCE, filled};
use crate::loopback::Path;
use crate::pair::{CacheLine, together};

/// Wake-ups of each kind in a round.
const WAKEUPS: u32 = 500;
/// The time for the woken thread to fall asleep again.
const PAUSE: Duration = Duration::from_micros(100);
/// The longest sleep at a time; then the thread looks whether the sender gave up.
const BOUND: Duration = Duration::from_millis(100);

const METRICS: &[Metric] = &[
    Metric { name: "median", unit: "µs", reference: Some(("eventfd", Comparison::Difference)) },
    Metric { name: "99th percentile", unit: "µs", reference: Some(("eventfd", Comparison::Difference)) },
];

/// The end whose thread sleeps.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sleeper {
    /// Woken by a kick.
    Backend,
    /// Woken by a call.
    Frontend,
}

impl Sleeper {
    pub(super) const EACH: [Self; 2] = [Self::Backend, Self::Frontend];
}

pub(super) struct Wakeup<'a> {
    links: &'a Links,
    link: Link,
    path: Path,
    sleeper: Sleeper,
}

impl<'a> Wakeup<'a> {
    pub(super) fn new(links: &'a Links, link: Link, path: Path, sleeper: Sleeper) -> Self {
        Self { links, link, path, sleeper }
    }
}

impl Event for Wakeup<'_> {
    fn name(&self) -> String {
        let who = match self.sleeper {
            Sleeper::Backend => "backend",
            Sleeper::Frontend => "frontend",
        };
        format!("{} wake-up of the {who}", self.path.name())
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn round(&mut self, cores: [CoreId; 2]) -> Result<Vec<Figure>, Error> {
        let reference = by_eventfd(cores)?;
        let Link { frontend, backend } = &mut self.link;
        let (from, to) = match self.sleeper {
            Sleeper::Backend => (frontend, backend),
            Sleeper::Frontend => (backend, frontend),
        };
        let ours = by_packet(cores, self.links, &mut *from.tx[0], &mut *to.rx[0])?;
        let figure = |share: f64| Figure {
            linecard: percentile(&ours, share),
            reference: Some(percentile(&reference, share)),
        };
        Ok(vec![figure(0.5), figure(0.99)])
    }
}

/// The value that a share of `latencies`, which are sorted, does not exceed.
fn percentile(latencies: &[f64], share: f64) -> f64 {
    let last = latencies.len().saturating_sub(1);
    latencies
        .get((latencies.len() as f64 * share) as usize)
        .or(latencies.get(last))
        .copied()
        .unwrap_or(f64::NAN)
}

fn by_packet(
    cores: [CoreId; 2],
    links: &Links,
    tx: &mut dyn TxQueue,
    rx: &mut dyn RxQueue,
) -> Result<Vec<f64>, Error> {
    let (mut outgoing, mut incoming) = (Burst::new(), Burst::new());
    let mut adaptive = Adaptive::new(Duration::ZERO, BOUND);
    let send = || {
        let _ = outgoing.push(filled(&links.shared, 60)?);
        let start = Instant::now();
        while !outgoing.is_empty() {
            tx.tx_burst(&mut outgoing);
            if start.elapsed() > PATIENCE {
                return Err(Error::Place("a packet could not be sent".into()));
            }
        }
        Ok(())
    };
    let sleep = || {
        let count = rx.rx_burst(&mut incoming);
        incoming.clear();
        adaptive.wait(count, &mut [&mut *rx]);
        Ok(count > 0)
    };
    wakeups(cores, send, sleep)
}

fn by_eventfd(cores: [CoreId; 2]) -> Result<Vec<f64>, Error> {
    let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).map_err(std::io::Error::from)?;
    let bound = Timespec { tv_sec: 0, tv_nsec: BOUND.subsec_nanos().into() };
    let send = || {
        rustix::io::write(&event, &1_u64.to_ne_bytes()).map_err(std::io::Error::from)?;
        Ok(())
    };
    let sleep = || {
        let mut set = [PollFd::from_borrowed_fd(event.as_fd(), PollFlags::IN)];
        // An interrupted call, or one that found nothing, is repeated.
        let woken = poll(&mut set, Some(&bound)).is_ok_and(|ready| ready > 0);
        Ok(woken && rustix::io::read(&event, &mut [0_u8; 8]).is_ok())
    };
    wakeups(cores, send, sleep)
}

/// Wakes a thread again and again; returns the microseconds from each `send` to the answer, sorted. `sleep` waits
/// for a while, and returns whether what was sent has come.
fn wakeups(
    cores: [CoreId; 2],
    mut send: impl FnMut() -> Result<(), Error> + Send,
    mut sleep: impl FnMut() -> Result<bool, Error> + Send,
) -> Result<Vec<f64>, Error> {
    let (answered, ended) = (CacheLine::default(), AtomicBool::new(false));
    let mut sent = Ok(Vec::new());
    let mut slept = Ok(());
    together(
        cores,
        || {
            sent = (1..=WAKEUPS).map(|turn| one(turn, &mut send, &answered.0)).collect();
            ended.store(true, Ordering::Release);
        },
        || {
            let mut turn = 0;
            while !ended.load(Ordering::Acquire) {
                match sleep() {
                    Ok(false) => {}
                    Ok(true) => {
                        turn += 1;
                        answered.0.store(turn, Ordering::Release);
                    }
                    Err(error) => {
                        slept = Err(error);
                        return;
                    }
                }
            }
        },
    )?;
    slept?;
    let mut latencies: Vec<f64> = sent?;
    latencies.sort_by(f64::total_cmp);
    Ok(latencies)
}

/// Sends once, and returns the microseconds until the answer.
fn one(turn: u32, send: &mut impl FnMut() -> Result<(), Error>, answered: &AtomicU32) -> Result<f64, Error> {
    let pause = Instant::now();
    while pause.elapsed() < PAUSE {
        std::hint::spin_loop();
    }
    let start = Instant::now();
    send()?;
    while answered.load(Ordering::Acquire) != turn {
        if start.elapsed() > PATIENCE {
            return Err(Error::Place(format!("wake-up {turn} did not come within {} s", PATIENCE.as_secs())));
        }
    }
    Ok(start.elapsed().as_secs_f64() * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_values() {
        let latencies: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!((percentile(&latencies, 0.5), percentile(&latencies, 0.99)), (101.0, 199.0));
        assert_eq!(percentile(&[7.0], 0.99), 7.0);
        assert!(percentile(&[], 0.5).is_nan());
    }
}
