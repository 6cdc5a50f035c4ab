//! The rate under load of two ends that poll adaptively, beside the same ends that only poll.

use std::time::{Duration, Instant};

use linecard::eal::CoreId;
use linecard::mempool::Burst;
use linecard::pmd::{Adaptive, Port};

use super::report::{Comparison, Metric};
use super::{Event, Figure};
use crate::Error;
use crate::link::{Link, Links, filled};
use crate::loopback::Path;
use crate::pair::{per, together};

/// Packets on their way, and bytes of each.
const IN_FLIGHT: usize = 128;
const LENGTH: usize = 64;
/// The length of each of a round's four slices.
const SLICE: Duration = Duration::from_millis(25);
/// Bursts between two looks at the clock.
const BURSTS: u32 = 64;

const METRICS: &[Metric] =
    &[Metric { name: "", unit: "Mpps", reference: Some(("polling", Comparison::Ratio)) }];

pub(super) struct Load {
    link: Link,
    path: Path,
}

impl Load {
    /// Puts the packets on their way; they stay there between rounds.
    pub(super) fn new(links: &Links, mut link: Link, path: Path) -> Result<Self, Error> {
        let mut packets = Burst::new();
        for _ in 0..IN_FLIGHT {
            let _ = packets.push(filled(&links.shared, LENGTH)?);
            link.frontend.tx[0].tx_burst(&mut packets);
        }
        Ok(Self { link, path })
    }

    fn slice<const ADAPTIVE: bool>(&mut self, cores: [CoreId; 2]) -> Result<f64, Error> {
        let Link { frontend, backend } = &mut self.link;
        let until = Instant::now() + SLICE;
        let mut count = 0;
        together(
            cores,
            || count = returned::<ADAPTIVE>(frontend, until),
            || {
                returned::<ADAPTIVE>(backend, until);
            },
        )?;
        Ok(per(count, SLICE.as_micros() as u64))
    }
}

impl Event for Load {
    fn name(&self) -> String {
        format!("{} adaptive under load", self.path.name())
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn round(&mut self, cores: [CoreId; 2]) -> Result<Vec<Figure>, Error> {
        let polling = self.slice::<false>(cores)?;
        let adaptive = self.slice::<true>(cores)? + self.slice::<true>(cores)?;
        let polling = polling + self.slice::<false>(cores)?;
        Ok(vec![Figure { linecard: adaptive / 2.0, reference: Some(polling / 2.0) }])
    }
}

/// Sends back what comes, until the time is over; returns the number of packets.
fn returned<const ADAPTIVE: bool>(port: &mut Port, until: Instant) -> u64 {
    let (rx, tx) = (&mut port.rx[0], &mut port.tx[0]);
    let mut packets = Burst::new();
    let mut adaptive = Adaptive::default();
    let mut count = 0;
    while Instant::now() < until {
        for _ in 0..BURSTS {
            let came = rx.rx_burst(&mut packets);
            tx.tx_burst(&mut packets);
            count += came as u64;
            if ADAPTIVE {
                adaptive.wait(came, &mut [&mut **rx]);
            }
        }
    }
    // Packets that found no room go with the next slice.
    while !packets.is_empty() && tx.tx_burst(&mut packets) > 0 {}
    count
}
