//! The way back: from the start of a backend that was gone until the first packet of its frontend arrives.

use std::thread;
use std::time::{Duration, Instant};

use linecard::eal::{CoreId, cores};
use linecard::mempool::Burst;
use linecard::pmd::Port;

use super::report::Metric;
use super::{Event, Figure};
use crate::Error;
use crate::link::{Link, Links, PATIENCE, filled};
use crate::loopback::Path;

/// How long the backend is gone.
const GONE: [Duration; 3] = [Duration::ZERO, Duration::from_millis(100), Duration::from_secs(1)];

const METRICS: &[Metric] = &[
    Metric { name: "at once", unit: "ms", reference: None },
    Metric { name: "after 100 ms", unit: "ms", reference: None },
    Metric { name: "after 1 s", unit: "ms", reference: None },
];

pub(super) struct Reconnection<'a> {
    links: &'a Links,
    number: usize,
    path: Path,
    frontend: Port,
    /// `None` while it is gone.
    backend: Option<Port>,
}

impl<'a> Reconnection<'a> {
    pub(super) fn new(links: &'a Links, number: usize, path: Path) -> Result<Self, Error> {
        let Link { frontend, backend } = links.open(number, path)?;
        Ok(Self { links, number, path, frontend, backend: Some(backend) })
    }

    /// Ends the backend, starts another one, and returns the milliseconds from there to the first packet.
    fn once(&mut self, gone: Duration) -> Result<f64, Error> {
        // Its device ends with it, and the socket is gone.
        drop(self.backend.take().map(Port::stop));
        self.await_that("the frontend noticed no end of its backend", |port| !port.control.link().up)?;
        thread::sleep(gone);
        let start = Instant::now();
        let mut backend = self.links.backend(self.number)?;
        let (mut outgoing, mut incoming) = (Burst::new(), Burst::new());
        while backend.rx[0].rx_burst(&mut incoming) == 0 {
            if outgoing.is_empty() {
                let _ = outgoing.push(filled(&self.links.shared, 60)?);
            }
            self.frontend.tx[0].tx_burst(&mut outgoing);
            if start.elapsed() > PATIENCE {
                return Err(Error::Place("no packet passes after the backend was restarted".into()));
            }
            // On a machine of two cores, the threads that connect need this one.
            thread::yield_now();
        }
        let took = start.elapsed();
        self.backend = Some(backend);
        Ok(took.as_secs_f64() * 1e3)
    }

    fn await_that(&self, otherwise: &str, is: impl Fn(&Port) -> bool) -> Result<(), Error> {
        let start = Instant::now();
        while !is(&self.frontend) {
            if start.elapsed() > PATIENCE {
                return Err(Error::Place(otherwise.into()));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Event for Reconnection<'_> {
    fn name(&self) -> String {
        format!("{} reconnection", self.path.name())
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn round(&mut self, [core, _]: [CoreId; 2]) -> Result<Vec<Figure>, Error> {
        // A thread of its own: the pinning ends with it.
        thread::scope(|scope| {
            let measured = scope.spawn(|| {
                cores::pin_current(core)?;
                GONE.iter().map(|gone| Ok(Figure { linecard: self.once(*gone)?, reference: None })).collect()
            });
            measured.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}
