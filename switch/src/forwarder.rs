//! A worker's forwarding without its thread and without devices, which `switch/benches/scale.rs` measures.
//!
//! Packets that are sent are dropped, so that only the switch's own work and the dropping are measured.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use linecard_eal::wake::Wake;
use linecard_mempool::Burst;
use linecard_net::MacAddr;
use linecard_pmd::direct::Frame;
use linecard_pmd::{RxQueue, TxQueue};

use crate::api::{PortKind, PortSpec, Problem};
use crate::fdb::{LearningPort, Station, Table};
use crate::forward::{Engine, Inbox};
use crate::lanes::{Forward, Lanes, Queue};
use crate::port::{Common, Egress, WorkerPort};
use crate::rules::{Defaults, Rules};

/// A transmit queue that drops everything.
struct Nothing;

impl TxQueue for Nothing {
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        let sent = packets.len();
        packets.clear();
        sent
    }

    fn path(&self) -> &'static str {
        "nothing"
    }
}

/// A handler that drops received packets.
struct Drop;

impl Forward for Drop {
    fn direct(&mut self, _: u16, _: &[Frame<'_>]) -> u64 {
        0
    }

    fn packets(&mut self, _: u16, packets: &mut Burst, _: bool) {
        packets.clear();
    }
}

/// One worker with ports and known stations. A station is behind the port of its number modulo the number of
/// ports.
///
/// ```
/// use linecard_switch::forwarder::Forwarder;
/// let forwarder = Forwarder::new(4, 100)?;
/// let station = Forwarder::station(7);
/// assert_eq!(forwarder.table().find(station).map(|place| place.port), Some(3));
/// # Ok::<(), linecard_switch::api::Problem>(())
/// ```
pub struct Forwarder {
    engine: Engine,
    lanes: Lanes,
}

impl Forwarder {
    /// A forwarder with this number of ports and stations. The table has room for the stations, and is the
    /// same in every run.
    ///
    /// # Errors
    /// A port is invalid.
    pub fn new(ports: u16, stations: u32) -> Result<Self, Problem> {
        let table = Arc::new(Table::with_secret(stations as usize, 0x5851_f42d_4c95_7f2d));
        let inbox = Inbox { packets: Arc::new(ArrayQueue::new(1)), wake: Arc::new(Wake::new()) };
        let mut engine = Engine::new(Arc::clone(&table), vec![inbox], false);
        let most = u32::MAX;
        let defaults = Defaults { flood_rate: most, max_macs: most, uplink_macs: most, learn_rate: most };
        for port in 0..ports {
            let kind = PortKind::Vdev { device: format!("net_null{port}") };
            let rules = Rules::of(&PortSpec::new(format!("p{port}"), kind), defaults)?;
            let common = Common::of(rules, Arc::default());
            let worker_port = WorkerPort::new(common, Arc::default(), Egress::Own(Box::new(Nothing)));
            engine.worker_ports.push(Some(worker_port));
        }
        for number in 0..stations {
            let port = (number % u32::from(ports)) as u16;
            table.learn(Self::station(number), LearningPort { port, limit: u32::MAX, fixed: false });
        }
        Ok(Self { engine, lanes: Lanes::new() })
    }

    /// Returns the address of a station.
    #[must_use]
    pub fn address(number: u32) -> MacAddr {
        let [a, b, c, d] = number.to_be_bytes();
        MacAddr([2, 0, a, b, c, d])
    }

    /// Returns the station with that address.
    #[must_use]
    pub fn station(number: u32) -> Station {
        Station::new(Self::address(number), 0)
    }

    /// Returns the table.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.engine.table
    }

    /// Forwards packets received at `port`, and sends them.
    pub fn forward(&mut self, port: u16, packets: &mut Burst) {
        self.engine.received(port, packets, false);
        self.engine.flush();
    }

    /// Adds a receive queue of `port`.
    pub fn add_queue(&mut self, port: u16, rx: Box<dyn RxQueue>) {
        self.lanes.add(port, vec![Queue { number: 0, rx, packets: Arc::default() }]);
    }

    /// Polls each queue once and drops the packets; returns their number.
    pub fn poll(&mut self, burst: &mut Burst) -> usize {
        self.lanes.poll(burst, &mut Drop)
    }
}

impl std::fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forwarder").field("ports", &self.engine.worker_ports.len()).finish_non_exhaustive()
    }
}
