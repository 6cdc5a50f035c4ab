//! The port table: what each number stands for, from probe to close.

use std::time::{Duration, Instant};

use linecard::capture::Hub;
use linecard::mempool::Pool;
use linecard::pmd::contain::contain_queues;
use linecard::pmd::offload::RxOffloads;
use linecard::pmd::{
    self, Device, DeviceInfo, Link, Offloads, Port, PortConfig, PortControl, PortStats, RxQueue, TxQueue,
};

use super::engine::Queues;
use super::lane::{PortRx, PortTx};
use super::layout::{PortFacts, Rates};
use super::modes::Checksums;
use super::settings::Mac;
use super::topology::Stream;
use crate::error::Error;

/// Most ports. DPDK's `RTE_MAX_ETHPORTS` is chosen when it is built: 32 unless asked for more, at most so many.
pub(crate) const MAX_PORTS: usize = 1024;

/// A started port; queues that forwarding borrowed are `None`.
struct Live {
    port: Port,
    rx: Vec<Option<PortRx>>,
    tx: Vec<Option<PortTx>>,
}

enum State {
    Stopped(Box<dyn Device>),
    Started(Live),
}

/// One port of the table.
pub(crate) struct Slot {
    pub(crate) id: u16,
    pub(crate) name: String,
    devargs: String,
    info: DeviceInfo,
    wanted: PortConfig,
    state: Option<State>,
    /// Its next start sets it up anew.
    reshaped: bool,
    promiscuous: bool,
    /// For the csum mode; what the port does itself is in `wanted`.
    pub(crate) checksums: Checksums,
    /// The csum mode cuts large packets that leave here.
    pub(crate) gso: bool,
    link: Link,
    last_shown: Option<(Instant, PortStats)>,
    forward_base: PortStats,
}

/// Turns promiscuous mode on or off; what it is then. A port that gets all multicast frames without it gets every frame.
fn make_promiscuous(control: &dyn PortControl, on: bool) -> bool {
    control.set_promiscuous(on);
    let on = on || control.allmulticast();
    control.set_promiscuous(on);
    on
}

const NO_LINK: Link = Link { up: false, speed_mbps: Some(10_000), full_duplex: true };

impl Slot {
    pub(crate) fn new(id: u16, devargs: &str, device: Box<dyn Device>, wanted: PortConfig) -> Self {
        Self {
            id,
            name: device.name().to_owned(),
            devargs: devargs.split_once(',').map_or(String::new(), |(_, args)| args.to_owned()),
            info: device.info(),
            wanted,
            state: Some(State::Stopped(device)),
            reshaped: true,
            promiscuous: true,
            checksums: Checksums::default(),
            gso: false,
            link: NO_LINK,
            last_shown: None,
            forward_base: PortStats::default(),
        }
    }

    fn live(&self) -> Option<&Live> {
        match &self.state {
            Some(State::Started(live)) => Some(live),
            _ => None,
        }
    }

    fn live_mut(&mut self) -> Option<&mut Live> {
        match &mut self.state {
            Some(State::Started(live)) => Some(live),
            _ => None,
        }
    }

    fn control(&self) -> Option<&dyn PortControl> {
        self.live().map(|live| &*live.port.control)
    }

    pub(crate) fn started(&self) -> bool {
        self.live().is_some()
    }

    /// Forwarding has some of its queues.
    pub(crate) fn lent(&self) -> bool {
        self.live()
            .is_some_and(|live| live.rx.iter().any(Option::is_none) || live.tx.iter().any(Option::is_none))
    }

    /// Configures and starts the device, which `hub` may then capture; the port stays stopped if that fails.
    pub(crate) fn start(&mut self, pool: &Pool, hub: &Hub) -> Result<(), Error> {
        let device = match self.state.take() {
            Some(State::Stopped(device)) => device,
            other => {
                self.state = other;
                return Ok(());
            }
        };
        let started = pmd::configure(device, self.wanted.clone()).and_then(|configured| {
            let config = configured.config().clone();
            configured.start(pool).map(|port| {
                let (port, rx, tx) = hub.watch_queues(self.id, port);
                (contain_queues(port, rx, tx), config)
            })
        });
        match started {
            Ok(((port, rx, tx), config)) => {
                let rx = rx.into_iter().map(Some).collect();
                let tx = tx.into_iter().map(Some).collect();
                self.promiscuous = make_promiscuous(&*port.control, self.promiscuous);
                self.wanted = config;
                self.link = port.control.link();
                self.state = Some(State::Started(Live { port, rx, tx }));
                self.reshaped = false;
                self.last_shown = None;
                self.forward_base = PortStats::default();
                Ok(())
            }
            Err(failure) => {
                self.state = Some(State::Stopped(failure.device));
                Err(failure.error.into())
            }
        }
    }

    /// Stops the device; its rings' packets go back to the pool.
    pub(crate) fn stop(&mut self) {
        self.state = match self.state.take() {
            Some(State::Started(Live { mut port, rx, tx })) => {
                port.rx = rx.into_iter().flatten().map(|rx| Box::new(rx) as Box<dyn RxQueue>).collect();
                port.tx = tx.into_iter().flatten().map(|tx| Box::new(tx) as Box<dyn TxQueue>).collect();
                self.link = NO_LINK;
                Some(State::Stopped(port.stop()))
            }
            other => other,
        };
    }

    pub(crate) fn mac(&self) -> Mac {
        Mac(self.control().map_or(self.info.mac, |control| control.mac()))
    }

    /// Whether the next start sets the port up anew.
    pub(crate) fn reshaped(&self) -> bool {
        self.reshaped
    }

    /// Ring sizes that may be asked for, and whether they must be powers of two.
    pub(crate) fn depths(&self) -> (std::ops::RangeInclusive<u16>, bool) {
        (self.info.depth.clone(), self.info.depth_power_of_two)
    }

    /// MTUs that may be asked for.
    pub(crate) fn mtu_range(&self) -> std::ops::RangeInclusive<u16> {
        self.info.mtu.clone()
    }

    /// Changes what the next start asks for.
    pub(crate) fn reshape(&mut self, change: impl FnOnce(&mut PortConfig)) {
        self.reshaped = true;
        change(&mut self.wanted);
    }

    /// The configuration in use, or asked for.
    pub(crate) fn config(&self) -> &PortConfig {
        &self.wanted
    }

    /// Whether the device has as many queues as asked for, before anything is made for them.
    pub(crate) fn check_queues(&self) -> Result<(), Error> {
        match &self.state {
            Some(State::Stopped(device)) => Ok(pmd::config::check_queues(&**device, &self.wanted)?),
            _ => Ok(()),
        }
    }

    /// Packets that the rings asked for can hold.
    pub(crate) fn ring_packets(&self) -> u32 {
        let depth = |asked| u32::from(if asked == 0 { self.info.default_depth } else { asked });
        let PortConfig { rx_queues, tx_queues, rx_depth, tx_depth, .. } = self.wanted;
        u32::from(rx_queues) * depth(rx_depth) + u32::from(tx_queues) * depth(tx_depth)
    }

    /// Offloads that may be asked for.
    pub(crate) fn offered(&self) -> Offloads {
        self.info.offloads
    }

    /// What the csum mode needs to know of the port that sends.
    pub(crate) fn checksum_rule(&self, gso_size: u16) -> Checksums {
        let gso = self.gso.then_some(gso_size);
        Checksums { tx: self.wanted.offloads.tx, gso, ..self.checksums }
    }

    pub(crate) fn max_queues(&self) -> (u16, u16) {
        (self.info.max_rx_queues, self.info.max_tx_queues)
    }

    /// Turns promiscuous mode on or off; false when it stays on, because the port filters nothing.
    pub(crate) fn set_promiscuous(&mut self, on: bool) -> bool {
        self.promiscuous = self.control().map_or(on, |control| make_promiscuous(control, on));
        self.promiscuous == on
    }

    pub(crate) fn allmulticast(&self) -> bool {
        self.control().is_none_or(|control| control.allmulticast())
    }

    pub(crate) fn stats(&self) -> PortStats {
        self.control().map_or(PortStats::default(), |control| control.stats())
    }

    pub(crate) fn xstats(&self) -> Vec<(String, u64)> {
        self.control().map_or(Vec::new(), |control| control.xstats())
    }

    pub(crate) fn reset_stats(&mut self) {
        if let Some(control) = self.control() {
            control.reset_stats();
        }
        self.last_shown = None;
        self.forward_base = PortStats::default();
    }

    /// Statistics and when they were read, taken again if this thread lost its core in between: a rate over
    /// a short time would come out too high or too low.
    fn stats_at(&self) -> (Instant, PortStats) {
        const QUICK: Duration = Duration::from_micros(200);
        let read = || (Instant::now(), self.stats());
        let mut latest = read();
        for _ in 0..16 {
            if latest.0.elapsed() <= QUICK {
                break;
            }
            latest = read();
        }
        latest
    }

    /// Statistics, and rates since the last time they were asked for.
    pub(crate) fn look(&mut self) -> (PortStats, Rates) {
        let (now, stats) = self.stats_at();
        let rates = match &self.last_shown {
            Some((then, before)) => Rates::between(before, &stats, now.duration_since(*then)),
            None => Rates::default(),
        };
        self.last_shown = Some((now, stats));
        (stats, rates)
    }

    /// Counts from here for [`since_forwarding`](Self::since_forwarding).
    pub(crate) fn mark_forwarding(&mut self) {
        self.forward_base = self.stats();
    }

    /// Statistics since forwarding started.
    pub(crate) fn since_forwarding(&self) -> PortStats {
        let (now, base) = (self.stats(), &self.forward_base);
        PortStats {
            ipackets: now.ipackets.saturating_sub(base.ipackets),
            opackets: now.opackets.saturating_sub(base.opackets),
            ibytes: now.ibytes.saturating_sub(base.ibytes),
            obytes: now.obytes.saturating_sub(base.obytes),
            imissed: now.imissed.saturating_sub(base.imissed),
            ierrors: now.ierrors.saturating_sub(base.ierrors),
            oerrors: now.oerrors.saturating_sub(base.oerrors),
            rx_nombuf: now.rx_nombuf.saturating_sub(base.rx_nombuf),
        }
    }

    /// The link state, if it changed since the last call.
    pub(crate) fn link_change(&mut self) -> Option<Link> {
        let link = self.control()?.link();
        let changed = link.up != self.link.up;
        self.link = link;
        changed.then_some(link)
    }

    pub(crate) fn facts(&self) -> PortFacts {
        let control = self.control();
        let mtu = control.map_or(self.wanted.mtu, |control| control.mtu());
        let (rx, tx) = (self.wanted.rx_queues, self.wanted.tx_queues);
        PortFacts {
            id: self.id,
            mac: self.mac(),
            name: self.name.clone(),
            driver: self.info.driver,
            devargs: self.devargs.clone(),
            link: control.map_or(NO_LINK, |control| control.link()),
            mtu,
            promiscuous: control.map_or(self.promiscuous, |control| control.promiscuous()),
            allmulticast: self.allmulticast(),
            queues: (rx, tx),
            max_queues: self.max_queues(),
            depth: (*self.info.depth.start(), *self.info.depth.end()),
            depth_power_of_two: self.info.depth_power_of_two,
            max_frame: u32::from(*self.info.mtu.end()) + ETHER_OVERHEAD,
            max_lro: if self.info.offloads.rx.contains(RxOffloads::TCP_LRO) { MAX_LRO } else { 0 },
            features: control.map_or(String::new(), |control| control.features()),
            paths: control.map_or(String::new(), |control| control.paths()),
        }
    }

    /// Throws away what waits in the receive queues, at most `bursts` bursts of each.
    pub(crate) fn flush_rx(&mut self, bursts: usize) {
        let Some(live) = self.live_mut() else { return };
        let mut packets = linecard::mempool::Burst::new();
        for queue in live.rx.iter_mut().flatten() {
            for _ in 0..bursts {
                queue.rx_burst(&mut packets);
                if packets.clear() == 0 {
                    break;
                }
            }
        }
    }
}

/// Longest packet that arrives whole with LRO (virtio 1.3, Network Device: Setting Up Receive Buffers).
const MAX_LRO: u32 = 65_550;

/// Ethernet header and FCS, as DPDK counts them between an MTU and a frame.
pub(crate) const ETHER_OVERHEAD: u32 = 18;

/// All ports; a number is not given to another port while the table lives unless it was closed.
#[derive(Default)]
pub(crate) struct Ports(Vec<Option<Slot>>);

impl Ports {
    /// Adds a probed device under the smallest free number.
    pub(crate) fn add(
        &mut self,
        devargs: &str,
        device: Box<dyn Device>,
        wanted: PortConfig,
    ) -> Result<u16, Error> {
        let free = self.0.iter().position(Option::is_none).unwrap_or(self.0.len());
        let id = u16::try_from(free).ok().filter(|_| free < MAX_PORTS).ok_or_else(|| {
            Error::Failed(format!("{MAX_PORTS} ports are attached, the most possible; detach one first"))
        })?;
        let slot = Some(Slot::new(id, devargs, device, wanted));
        match self.0.get_mut(free) {
            Some(place) => *place = slot,
            None => self.0.push(slot),
        }
        Ok(id)
    }

    pub(crate) fn get(&self, id: u16) -> Option<&Slot> {
        self.0.get(usize::from(id))?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: u16) -> Option<&mut Slot> {
        self.0.get_mut(usize::from(id))?.as_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.0.iter().flatten()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.0.iter_mut().flatten()
    }

    pub(crate) fn ids(&self) -> Vec<u16> {
        self.iter().map(|slot| slot.id).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.iter().count()
    }

    pub(crate) fn named(&self, name: &str) -> Option<u16> {
        self.iter().find(|slot| slot.name == name).map(|slot| slot.id)
    }

    /// Stops and drops a port.
    pub(crate) fn close(&mut self, id: u16) {
        if let Some(place) = self.0.get_mut(usize::from(id)) {
            if let Some(slot) = place {
                slot.stop();
            }
            *place = None;
        }
    }

    /// Takes the queues of a stream out of their ports, both or none.
    pub(crate) fn lend(&mut self, stream: &Stream) -> Option<Queues> {
        let rx_place = self.get_mut(stream.rx_port)?.live_mut()?.rx.get_mut(usize::from(stream.rx_queue))?;
        let rx = rx_place.take()?;
        let tx = self.get_mut(stream.tx_port).and_then(Slot::live_mut);
        let tx = tx.and_then(|live| live.tx.get_mut(usize::from(stream.tx_queue))?.take());
        match tx {
            Some(tx) => Some(Queues { stream: *stream, rx, tx }),
            None => {
                self.give_back_rx(stream, rx);
                None
            }
        }
    }

    fn give_back_rx(&mut self, stream: &Stream, rx: PortRx) {
        let live = self.get_mut(stream.rx_port).and_then(Slot::live_mut);
        if let Some(place) = live.and_then(|live| live.rx.get_mut(usize::from(stream.rx_queue))) {
            *place = Some(rx);
        }
    }

    /// Brings the queues of a stream home.
    pub(crate) fn give_back(&mut self, queues: Queues) {
        let Queues { stream, rx, tx } = queues;
        self.give_back_rx(&stream, rx);
        let live = self.get_mut(stream.tx_port).and_then(Slot::live_mut);
        if let Some(place) = live.and_then(|live| live.tx.get_mut(usize::from(stream.tx_queue))) {
            *place = Some(tx);
        }
    }
}
