//! Telemetry about the ports of a switch, updated as they come and go.

use std::sync::Arc;

use linecard_pmd::PortConfig;
use linecard_telemetry::{Drops, LcoreUsage, PortEntry, Telemetry};

use crate::Switch;
use crate::api::DropCounters;
use crate::port::Losses;
use crate::usage::Usage;

/// Keeps a [`Telemetry`] up to date with the ports of a switch. Telemetry requests never wait for the switch.
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
    /// The workers have been registered.
    workers: bool,
    registered: Vec<Registered>,
}

/// A registered port: its number, its key, and the address of its device's control. Telemetry keeps that
/// control alive, so no later opening can have the same address.
type Registered = (u16, String, usize);

impl TelemetryFeed {
    /// Updates `telemetry`, from the first [`look`](Self::look) on.
    #[must_use]
    pub fn new(telemetry: Telemetry) -> Self {
        Self { telemetry, workers: false, registered: Vec::new() }
    }

    /// Registers the ports that are open now if they differ from those of the last call. The first call also
    /// registers the workers, which never change.
    pub fn look(&mut self, switch: &Switch) {
        if !std::mem::replace(&mut self.workers, true) {
            let usages = Arc::clone(&switch.usages);
            self.telemetry.set_lcore_usage(move || usages.iter().map(|usage| usage_of(usage)).collect());
        }
        let open = switch.open_ports();
        let registered: Vec<Registered> = open.iter().map(OpenPort::registered).collect();
        if registered == self.registered {
            return;
        }
        self.registered = registered;
        self.telemetry.set_ports(open.iter().map(|port| (port.id, port.entry.clone())));
        self.telemetry.set_drops(move || open.iter().flat_map(OpenPort::drops).collect());
    }
}

/// The usage of a worker, as telemetry reports it.
fn usage_of(usage: &Usage) -> LcoreUsage {
    let (busy_cycles, total_cycles) = usage.cycles();
    LcoreUsage { lcore: usage.lcore(), busy_cycles, total_cycles }
}

/// An open port, as telemetry reports it.
pub(crate) struct OpenPort {
    pub(crate) id: u16,
    opening: usize,
    entry: PortEntry,
    losses: Vec<Arc<Losses>>,
}

impl OpenPort {
    /// An open port with this number, key and number of receive and transmit queues.
    pub(crate) fn new(id: u16, key: &str, (rx, tx): (u16, u16), open: &crate::switch::Open) -> Self {
        let config = PortConfig::default().rx_queues(rx).tx_queues(tx);
        Self {
            id,
            opening: Arc::as_ptr(&open.control).cast::<()>().addr(),
            entry: PortEntry::configured(key, &config, Some(&open.control)),
            losses: open.losses.clone(),
        }
    }

    fn registered(&self) -> Registered {
        (self.id, self.entry.name.clone(), self.opening)
    }

    /// The frames that the switch dropped when they came from the port or were to go to it. The causes are
    /// the switch's, not a queue's.
    fn drops(&self) -> Vec<Drops> {
        let mut sum = DropCounters::default();
        self.losses.iter().for_each(|losses| losses.add_to(&mut sum));
        let lost = sum.causes().filter(|(_, packets)| *packets > 0);
        lost.map(|(cause, packets)| Drops { port: self.id, queue: 0, cause, packets }).collect()
    }
}
