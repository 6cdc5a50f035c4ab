//! One port of the table, from probe to close.

use std::sync::Arc;
use std::time::{Duration, Instant};

use linecard::capture::Hub;
use linecard::mempool::Pool;
use linecard::pmd::contain::contain_queues;
use linecard::pmd::filter::{MAX_UNICAST, RxFilter};
use linecard::pmd::offload::RxOffloads;
use linecard::pmd::{
    self, Device, DeviceInfo, Link, Offloads, Port, PortConfig, PortControl, PortStats, QueueId, RxQueue,
    TxQueue,
};
use linecard::telemetry::PortEntry;

use crate::error::Error;
use crate::testpmd::lane::{PortRx, PortTx};
use crate::testpmd::layout::{PortFacts, Rates};
use crate::testpmd::links::{LinkChanges, LinkNews};
use crate::testpmd::modes::Checksums;
use crate::testpmd::settings::Mac;
use crate::testpmd::soft::rss::RssTypes;
use crate::testpmd::soft::{Rules, SoftPort};

/// A started port; the queues that forwarding uses are `None`.
pub(super) struct Live {
    port: Port,
    pub(super) rx: Vec<Option<PortRx>>,
    pub(super) tx: Vec<Option<PortTx>>,
}

enum State {
    Stopped(Box<dyn Device>),
    Started(Live),
}

/// One port of the table.
pub(crate) struct PortRecord {
    pub(crate) id: u16,
    pub(crate) name: String,
    devargs: String,
    info: DeviceInfo,
    config: PortConfig,
    state: Option<State>,
    /// The configuration has changed: the next start configures the device again.
    reshaped: bool,
    promiscuous: bool,
    /// All-multicast mode while the port last ran.
    allmulticast: bool,
    /// The port has a receive filter.
    filters: bool,
    /// The port counts packets by size and kind of address.
    classes: bool,
    /// Settings of the csum mode; the port's own offloads are in `config`.
    pub(crate) checksums: Checksums,
    /// Whether the csum mode segments large packets for this port in software.
    pub(crate) gso: bool,
    /// The features that are done in software because no device supports them.
    pub(crate) soft: SoftPort,
    link: Link,
    /// Wakes the console after a link change.
    link_news: Arc<LinkNews>,
    link_changes: Option<LinkChanges>,
    /// Single queues can be stopped.
    stops_queues: bool,
    last_shown: Option<(Instant, PortStats)>,
    forward_base: PortStats,
}

/// Turns promiscuous mode on or off; returns the resulting mode. A port without a filter that receives all
/// multicast frames receives every frame, so its mode stays on.
fn make_promiscuous(control: &dyn PortControl, on: bool) -> bool {
    control.set_promiscuous(on);
    if control.rx_filter().is_some() {
        return on;
    }
    let on = on || control.allmulticast();
    control.set_promiscuous(on);
    on
}

const NO_LINK: Link = Link { up: false, speed_mbps: Some(10_000), full_duplex: true };

impl PortRecord {
    pub(crate) fn new(id: u16, devargs: &str, device: Box<dyn Device>, config: PortConfig) -> Self {
        Self {
            id,
            name: device.name().to_owned(),
            devargs: devargs.split_once(',').map_or(String::new(), |(_, args)| args.to_owned()),
            info: device.info(),
            stops_queues: device.stops_queues(),
            config,
            state: Some(State::Stopped(device)),
            reshaped: true,
            promiscuous: true,
            allmulticast: true,
            filters: false,
            classes: false,
            checksums: Checksums::default(),
            gso: false,
            soft: SoftPort::default(),
            link: NO_LINK,
            link_news: Arc::default(),
            link_changes: None,
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

    pub(super) fn live_mut(&mut self) -> Option<&mut Live> {
        match &mut self.state {
            Some(State::Started(live)) => Some(live),
            _ => None,
        }
    }

    /// The port's control interface, while it is started.
    pub(crate) fn control(&self) -> Option<&dyn PortControl> {
        self.live().map(|live| &*live.port.control)
    }

    pub(crate) fn started(&self) -> bool {
        self.live().is_some()
    }

    /// Whether forwarding uses some of the port's queues.
    pub(crate) fn lent(&self) -> bool {
        self.live()
            .is_some_and(|live| live.rx.iter().any(Option::is_none) || live.tx.iter().any(Option::is_none))
    }

    /// Configures and starts the device and lets `hub` capture it; the port stays stopped if that fails.
    pub(crate) fn start(&mut self, pool: &Pool, hub: &Hub) -> Result<(), Error> {
        let device = match self.state.take() {
            Some(State::Stopped(device)) => device,
            other => {
                self.state = other;
                return Ok(());
            }
        };
        let started = pmd::configure(device, self.config.clone()).and_then(|configured| {
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
                self.allmulticast = port.control.allmulticast();
                self.filters = port.control.rx_filter().is_some();
                port.control.count_classes(self.classes);
                if let Some(filter) = port.control.rx_filter() {
                    // There are never more groups than the filter has room for.
                    let _ = filter.set_multicast(&self.groups());
                }
                self.config = config;
                // Before the link state is read, so that no change is missed.
                self.link_changes = Some(LinkChanges::of(&*port.control, &self.link_news));
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

    /// Stops the device; the packets of its rings return to the pool.
    pub(crate) fn stop(&mut self) {
        self.state = match self.state.take() {
            Some(State::Started(Live { mut port, rx, tx })) => {
                port.rx = rx.into_iter().flatten().map(|rx| Box::new(rx) as Box<dyn RxQueue>).collect();
                port.tx = tx.into_iter().flatten().map(|tx| Box::new(tx) as Box<dyn TxQueue>).collect();
                self.link = NO_LINK;
                self.link_changes = None;
                Some(State::Stopped(port.stop()))
            }
            other => other,
        };
    }

    pub(crate) fn mac(&self) -> Mac {
        Mac(self.control().map_or(self.info.mac, |control| control.mac()))
    }

    /// Whether the next start configures the device again.
    pub(crate) fn reshaped(&self) -> bool {
        self.reshaped
    }

    /// The supported ring sizes, and whether they must be powers of two.
    pub(crate) fn depths(&self) -> (std::ops::RangeInclusive<u16>, bool) {
        (self.info.depth.clone(), self.info.depth_power_of_two)
    }

    /// The supported MTUs.
    pub(crate) fn mtu_range(&self) -> std::ops::RangeInclusive<u16> {
        self.info.mtu.clone()
    }

    /// Changes the configuration for the next start.
    pub(crate) fn reshape(&mut self, change: impl FnOnce(&mut PortConfig)) {
        self.reshaped = true;
        change(&mut self.config);
    }

    /// Reports link changes through `news`, from the next start on.
    pub(crate) fn tell_links_to(&mut self, news: &Arc<LinkNews>) {
        self.link_news = Arc::clone(news);
    }

    /// Whether single queues can be stopped.
    pub(crate) fn stops_queues(&self) -> bool {
        self.stops_queues
    }

    /// Whether a queue is started; false if its port is stopped.
    pub(crate) fn queue_started(&self, queue: QueueId) -> bool {
        self.control().is_some_and(|control| control.queue_started(queue))
    }

    /// Descriptors of a queue: the actual number while it is started, otherwise the requested one.
    pub(crate) fn depth(&self, queue: QueueId) -> u16 {
        let asked = match queue {
            QueueId::Receive(_) => self.config.rx_depth,
            QueueId::Transmit(_) => self.config.tx_depth,
        };
        self.control().and_then(|control| control.depth(queue)).unwrap_or(asked)
    }

    /// The port's entry for telemetry.
    pub(crate) fn entry(&self) -> PortEntry {
        PortEntry::configured(&self.name, &self.config, self.live().map(|live| &live.port.control))
    }

    /// The configuration in use, or for the next start.
    pub(crate) fn config(&self) -> &PortConfig {
        &self.config
    }

    /// Checks that the device has the configured number of queues, before any are created.
    pub(crate) fn check_queues(&self) -> Result<(), Error> {
        match &self.state {
            Some(State::Stopped(device)) => Ok(pmd::config::check_queues(&**device, &self.config)?),
            _ => Ok(()),
        }
    }

    /// Packets that the configured rings can hold.
    pub(crate) fn ring_packets(&self) -> u32 {
        let depth = |asked| u32::from(if asked == 0 { self.info.default_depth } else { asked });
        let PortConfig { rx_queues, tx_queues, rx_depth, tx_depth, .. } = self.config;
        u32::from(rx_queues) * depth(rx_depth) + u32::from(tx_queues) * depth(tx_depth)
    }

    /// The supported offloads.
    pub(crate) fn offered(&self) -> Offloads {
        self.info.offloads
    }

    /// The checksum settings of the csum mode for packets that this port sends.
    pub(crate) fn checksum_rule(&self, gso_size: u16) -> Checksums {
        let gso = self.gso.then_some(gso_size);
        Checksums { tx: self.config.offloads.tx, gso, ..self.checksums }
    }

    pub(crate) fn max_queues(&self) -> (u16, u16) {
        (self.info.max_rx_queues, self.info.max_tx_queues)
    }

    /// Turns promiscuous mode on or off; false when it stays on, because the port filters nothing.
    pub(crate) fn set_promiscuous(&mut self, on: bool) -> bool {
        self.promiscuous = self.control().map_or(on, |control| make_promiscuous(control, on));
        self.promiscuous == on
    }

    /// Changes the address.
    ///
    /// # Errors
    /// The port is stopped, or the device does not accept the address.
    pub(crate) fn set_mac(&self, mac: Mac) -> Result<(), Error> {
        match self.control() {
            Some(control) => Ok(control.set_mac(mac.0)?),
            None => Err(Error::Failed(format!("port {} is stopped; start it first", self.id))),
        }
    }

    pub(crate) fn driver(&self) -> &'static str {
        self.info.driver
    }

    pub(crate) fn devargs(&self) -> &str {
        &self.devargs
    }

    pub(crate) fn allmulticast(&self) -> bool {
        self.control().map_or(self.allmulticast, |control| control.allmulticast())
    }

    /// Turns all-multicast mode on or off; false if the port does not support that.
    pub(crate) fn set_allmulticast(&mut self, on: bool) -> bool {
        let done = match self.control() {
            Some(control) => control.set_allmulticast(on).is_ok(),
            None => self.allmulticast == on,
        };
        self.allmulticast = self.allmulticast();
        done
    }

    /// Switches a receive offload that the port was started with, while it runs; false if the device cannot.
    pub(crate) fn switch_rx_offload(&mut self, offload: RxOffloads, on: bool) -> bool {
        let rx = self.config.offloads.rx;
        let asked = if on { rx.union(offload) } else { rx.difference(offload) };
        let done = self.control().is_some_and(|control| control.set_rx_offloads(asked).is_ok());
        if done {
            self.config.offloads.rx = asked;
        }
        done
    }

    /// Turns counting of packets by size and kind of address on or off.
    pub(crate) fn count_classes(&mut self, on: bool) {
        self.classes = on;
        if let Some(control) = self.control() {
            control.count_classes(on);
        }
    }

    /// The port's receive filter, while it is started.
    pub(crate) fn rx_filter(&self) -> Option<&RxFilter> {
        self.control().and_then(|control| control.rx_filter())
    }

    /// Configures the filter and RSS of the device; returns the rules that remain for the threads.
    pub(crate) fn rules(&mut self) -> Option<Arc<Rules>> {
        let vlans = self.soft.vlan.filter.then(|| self.soft.vlan.allowed.clone());
        let filter = self.rx_filter().map(|filter| filter.set_vlans(vlans));
        let rss = self.control().and_then(|control| control.rss().cloned());
        if let Some(rss) = &rss
            && let Err(error) = rss.set(self.soft.device_rss())
        {
            // RSS is then done in software.
            tracing::debug!("{error}");
        }
        self.soft.rules(self.config.rx_queues, filter.is_some(), rss)
    }

    /// The port's own address and the added ones.
    pub(crate) fn macs(&self) -> Vec<Mac> {
        let more = self.rx_filter().map_or(Vec::new(), |filter| filter.rules().unicast.clone());
        std::iter::once(self.mac()).chain(more.into_iter().map(Mac)).collect()
    }

    /// Sets the added multicast groups in the port's filter, if it has one.
    ///
    /// # Errors
    /// There are more groups than the filter has room for.
    pub(crate) fn join_groups(&self) -> Result<(), Error> {
        Ok(self.rx_filter().map_or(Ok(()), |filter| filter.set_multicast(&self.groups()))?)
    }

    fn groups(&self) -> Vec<[u8; 6]> {
        self.soft.groups.iter().map(|group| group.0).collect()
    }

    /// Whether the port has a receive filter, as known from its last start.
    pub(crate) fn filters(&self) -> bool {
        self.filters
    }

    pub(crate) fn stats(&self) -> PortStats {
        self.control().map_or(PortStats::default(), |control| control.stats())
    }

    pub(crate) fn xstats(&self) -> Vec<(String, u64)> {
        let mut all = self.control().map_or(Vec::new(), |control| control.xstats());
        let dropped = self.soft.dropped();
        if dropped > 0 {
            all.push(("rx_software_drops".into(), dropped));
        }
        all
    }

    /// Returns one line for each extended statistic of `--display-xstats`.
    pub(crate) fn chosen_xstats(&self, names: &[String]) -> String {
        if names.is_empty() {
            return String::new();
        }
        let all = self.xstats();
        let line = |name: &String| match all.iter().find(|(known, _)| known == name) {
            Some((_, value)) => format!("  {name:<32} {value}\n"),
            None => format!("  No xstat '{name}' on port {} - skip it\n", self.id),
        };
        names.iter().map(line).collect()
    }

    pub(crate) fn reset_stats(&mut self) {
        if let Some(control) = self.control() {
            control.reset_stats();
        }
        self.soft.clear_dropped();
        self.last_shown = None;
        self.forward_base = PortStats::default();
    }

    /// Reads the statistics and the time. Repeats the reading if the thread was preempted in between, because
    /// rates over short times would be wrong.
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

    /// Returns the statistics, and the rates since the last call.
    pub(crate) fn look(&mut self) -> (PortStats, Rates) {
        let (now, stats) = self.stats_at();
        let rates = match &self.last_shown {
            Some((then, before)) => Rates::between(before, &stats, now.duration_since(*then)),
            None => Rates::default(),
        };
        self.last_shown = Some((now, stats));
        (stats, rates)
    }

    /// Sets the base of [`since_forwarding`](Self::since_forwarding).
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
        if !self.link_changes.as_ref().is_some_and(LinkChanges::take) {
            return None;
        }
        let link = self.control()?.link();
        let changed = link.up != self.link.up;
        self.link = link;
        changed.then_some(link)
    }

    pub(crate) fn facts(&self) -> PortFacts {
        let control = self.control();
        let mtu = control.map_or(self.config.mtu, |control| control.mtu());
        let (rx, tx) = (self.config.rx_queues, self.config.tx_queues);
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
            max_macs: if self.filters { 1 + MAX_UNICAST } else { 1 },
            queues: (rx, tx),
            max_queues: self.max_queues(),
            depth: (*self.info.depth.start(), *self.info.depth.end()),
            depth_power_of_two: self.info.depth_power_of_two,
            max_frame: u32::from(*self.info.mtu.end()) + ETHER_OVERHEAD,
            max_lro: if self.info.offloads.rx.contains(RxOffloads::TCP_LRO) { MAX_LRO } else { 0 },
            vlan: self.soft.vlan.clone(),
            rss: RssTypes::named("all").filter(|_| rx > 1).map_or(Vec::new(), RssTypes::names),
            features: control.map_or(String::new(), |control| control.features()),
            paths: control.map_or(String::new(), |control| control.paths()),
        }
    }

    /// Discards the packets in the receive queues, at most `bursts` bursts of each.
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

/// Longest packet that LRO delivers (virtio 1.3, Network Device: Setting Up Receive Buffers).
const MAX_LRO: u32 = 65_550;

/// Ethernet header and FCS, the difference between a frame and its MTU in DPDK.
pub(crate) const ETHER_OVERHEAD: u32 = 18;
