//! What a switch tells of its ports by telemetry, as they come and go.

use std::sync::Arc;

use linecard_pmd::PortConfig;
use linecard_telemetry::{Drops, LcoreUsage, PortEntry, Telemetry};

use crate::Switch;
use crate::api::DropCounters;
use crate::port::Losses;
use crate::usage::Usage;

/// Keeps a [`Telemetry`] up to date with the ports of a switch. Whoever asks it then waits for nothing that the switch does.
///
/// ```
/// use linecard_eal::{Eal, EalArgs};
/// use linecard_telemetry::{Telemetry, Value};
/// # use linecard_mempool::{Pool, PoolConfig};
/// # use linecard_pmd::{ProbeContext, Registry};
/// # use linecard_switch::api::{PortKind, PortSpec};
/// # use linecard_switch::{Switch, SwitchConfig};
/// # let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "32"])?.0)?;
/// # let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(1024))?;
/// # let wait = std::time::Duration::from_secs(1);
/// # let drivers = Registry::new(&[&linecard_net_ring::RingDriver]);
/// # let context = ProbeContext::new(eal.memory().clone(), eal.default_domain(), wait);
/// # let switch = Switch::start(SwitchConfig::new(drivers, context, pool, vec![eal.lcores().main().clone()]))?;
/// let telemetry = Telemetry::new(&eal);
/// let mut feed = linecard_switch::TelemetryFeed::new(telemetry.clone());
/// switch.add(&PortSpec::new("a", PortKind::Vdev { device: "net_ring0".into() }), None)?;
/// feed.look(&switch); // now and then
/// let list = telemetry.answer("/ethdev/list");
/// assert_eq!(list, Value::object([("/ethdev/list", Value::list([0_u16]))]));
/// println!("{:?}", telemetry.answer("/eal/lcore/usage")); // how busy each worker is
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TelemetryFeed {
    telemetry: Telemetry,
    /// The workers are told of.
    workers: bool,
    told: Vec<Told>,
}

/// A port as it was told: its number, key, and which opening of it. Telemetry keeps that one's place in memory, so no later
/// opening can have the same.
type Told = (u16, String, usize);

impl TelemetryFeed {
    /// Tells `telemetry`, from the first [`look`](Self::look) on.
    #[must_use]
    pub fn new(telemetry: Telemetry) -> Self {
        Self { telemetry, workers: false, told: Vec::new() }
    }

    /// Tells of the ports that are open now, if they are others than at the last look, and of the workers, which are always the
    /// same.
    pub fn look(&mut self, switch: &Switch) {
        if !std::mem::replace(&mut self.workers, true) {
            let usages = Arc::clone(&switch.usages);
            self.telemetry.set_lcore_usage(move || usages.iter().map(|usage| told_of(usage)).collect());
        }
        let open = switch.open_ports();
        let told: Vec<Told> = open.iter().map(OpenPort::told).collect();
        if told == self.told {
            return;
        }
        self.told = told;
        self.telemetry.set_ports(open.iter().map(|port| (port.id, port.entry.clone())));
        self.telemetry.set_drops(move || open.iter().flat_map(OpenPort::drops).collect());
    }
}

/// What is told of a worker.
fn told_of(usage: &Usage) -> LcoreUsage {
    let (busy_cycles, total_cycles) = usage.cycles();
    LcoreUsage { lcore: usage.lcore(), busy_cycles, total_cycles }
}

/// What is told of a port.
pub(crate) struct OpenPort {
    pub(crate) id: u16,
    opening: usize,
    entry: PortEntry,
    losses: Vec<Arc<Losses>>,
}

impl OpenPort {
    /// A port of this number and key, with its receive queues, as it is open.
    pub(crate) fn new(id: u16, key: &str, (rx, tx): (u16, u16), open: &crate::switch::Open) -> Self {
        let config = PortConfig::default().rx_queues(rx).tx_queues(tx);
        Self {
            id,
            opening: Arc::as_ptr(&open.control).cast::<()>().addr(),
            entry: PortEntry::configured(key, &config, Some(&open.control)),
            losses: open.losses.clone(),
        }
    }

    fn told(&self) -> Told {
        (self.id, self.entry.name.clone(), self.opening)
    }

    /// What the switch dropped of the port's frames, or on their way to it. The causes are the switch's, not a queue's.
    fn drops(&self) -> Vec<Drops> {
        let mut sum = DropCounters::default();
        self.losses.iter().for_each(|losses| losses.add_to(&mut sum));
        let lost = sum.causes().filter(|(_, packets)| *packets > 0);
        lost.map(|(cause, packets)| Drops { port: self.id, queue: 0, cause, packets }).collect()
    }
}
