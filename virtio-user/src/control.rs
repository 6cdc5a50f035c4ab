//! The control interface of a started port, usable from any thread.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use linecard_pmd::filter::RxFilter;
use linecard_pmd::link::LinkEvents;
use linecard_pmd::local::{Identity, LocalControl};
use linecard_pmd::offload::RxOffloads;
use linecard_pmd::rss::Rss;
use linecard_pmd::stats::{ClassCounters, Inspections, PortCounters};
use linecard_pmd::{Error as PmdError, Link, PortControl, QueueId};
use linecard_virtio::Features;

use crate::args::Options;
use crate::asks::{Asks, Question};
use crate::backend::{RingId, Role};
use crate::kick::Notifications;
use crate::log::{PortLog, tell};
use crate::losses::{RxLoss, TxLoss};
use crate::missing::Missing;
use crate::negotiate::guest_offloads;
use crate::queue::PathName;
use crate::thread::Waiter;

/// Stands for an unknown speed.
const UNKNOWN: u32 = u32::MAX;

/// The state that a port's queues, its control thread and its users share.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) options: Options,
    pub(crate) rx_names: Vec<Arc<PathName>>,
    pub(crate) tx_names: Vec<Arc<PathName>>,
    /// The packets that each transmit queue lost with a backend, for captures.
    pub(crate) missing: Vec<Arc<Missing>>,
    local: LocalControl<RxLoss, TxLoss>,
    /// Log lines about the backend.
    pub(crate) log: Arc<PortLog>,
    /// Whether there is a device.
    up: AtomicBool,
    /// Whether the device's own link is up.
    link: AtomicBool,
    /// The device's medium: Mbit/s (`UNKNOWN` if the device reports none), and whether it is full duplex.
    speed: AtomicU32,
    full_duplex: AtomicBool,
    features: Mutex<String>,
    /// The reason why there is no device.
    reason: Mutex<String>,
    /// The number of notifications sent to the backend for each ring.
    notifications: Vec<(RingId, Arc<Notifications>)>,
    /// The packets of each queue by class, while class counting is on.
    pub(crate) rx_classes: Vec<Arc<ClassCounters>>,
    pub(crate) tx_classes: Vec<Arc<ClassCounters>>,
    /// The receive filter. It belongs to the device, so that it outlives a stop.
    filter: Arc<RxFilter>,
    /// The distribution of flows over the receive queues.
    rss: Arc<Rss>,
    /// The receive offloads that are on, among those that the port was started with.
    rx_offloads: AtomicU64,
    /// Whether the device can switch offloads while it runs.
    switches_offloads: AtomicBool,
    /// Wakes the control thread, which passes changes on to the device.
    waiter: OnceLock<Arc<Waiter>>,
    /// The queues that the user stopped, whether there is a device or not.
    rx_stopped: Vec<AtomicBool>,
    tx_stopped: Vec<AtomicBool>,
    /// Requests of other threads to the control thread.
    pub(crate) asks: Asks,
    /// The subscribers to changes of the link.
    link_events: Arc<LinkEvents>,
}

impl State {
    pub(crate) fn new(
        options: Options,
        identity: Identity,
        (rx_queues, tx_queues): (u16, u16),
        filter: Arc<RxFilter>,
        notifications: Vec<(RingId, Arc<Notifications>)>,
        log: Arc<PortLog>,
    ) -> Self {
        let rss = Arc::new(Rss::new(&options.name, rx_queues));
        let rx_offloads = options.offloads.rx.bits();
        let classes = |queues| (0..queues).map(|_| Arc::default()).collect();
        Self {
            rx_classes: classes(rx_queues),
            tx_classes: classes(tx_queues),
            local: LocalControl::new(identity, PortCounters::new(rx_queues, tx_queues)),
            log,
            options,
            rx_names: (0..rx_queues).map(|_| Arc::default()).collect(),
            tx_names: (0..tx_queues).map(|_| Arc::default()).collect(),
            missing: (0..tx_queues).map(|_| Arc::default()).collect(),
            up: AtomicBool::new(false),
            link: AtomicBool::new(true),
            speed: AtomicU32::new(UNKNOWN),
            full_duplex: AtomicBool::new(true),
            features: Mutex::new(String::new()),
            reason: Mutex::new(String::new()),
            filter,
            rss,
            rx_offloads: AtomicU64::new(rx_offloads),
            switches_offloads: AtomicBool::new(false),
            waiter: OnceLock::new(),
            notifications,
            rx_stopped: (0..rx_queues).map(|_| AtomicBool::default()).collect(),
            tx_stopped: (0..tx_queues).map(|_| AtomicBool::default()).collect(),
            asks: Asks::default(),
            link_events: Arc::new(LinkEvents::new(Link::DOWN)),
        }
    }

    /// Marks these queues as stopped until the user starts them.
    pub(crate) fn defer(&self, queues: &[QueueId]) {
        queues.iter().for_each(|queue| self.set_stopped(ring_of(*queue), true));
    }

    fn stop_mark(&self, ring: RingId) -> Option<&AtomicBool> {
        let marks = match ring.role() {
            Role::Receive => &self.rx_stopped,
            Role::Transmit => &self.tx_stopped,
            Role::Control => return None,
        };
        marks.get(usize::from(ring.queue()))
    }

    /// Returns whether the user stopped a queue.
    pub(crate) fn is_stopped(&self, ring: RingId) -> bool {
        self.stop_mark(ring).is_some_and(|mark| mark.load(Ordering::Acquire))
    }

    pub(crate) fn set_stopped(&self, ring: RingId, stopped: bool) {
        self.stop_mark(ring).into_iter().for_each(|mark| mark.store(stopped, Ordering::Release));
    }

    /// Starts or stops a queue, now or as soon as there is a device.
    fn turn(&self, queue: QueueId, stopped: bool) -> Result<(), PmdError> {
        self.local.check_queue(queue)?;
        self.set_stopped(ring_of(queue), stopped);
        self.ask(queue, Question::Settled).map(drop)
    }

    /// Asks the control thread and waits for the answer; 0 without a device.
    fn ask(&self, queue: QueueId, question: Question) -> Result<u16, PmdError> {
        let Some(waiter) = self.waiter.get().filter(|_| self.up.load(Ordering::Acquire)) else {
            return Ok(0);
        };
        let is_anybody = || self.up.load(Ordering::Acquire);
        let answer = self.asks.ask(ring_of(queue), question, || waiter.notify(), is_anybody);
        answer.ok_or_else(|| PmdError::Peer {
            port: self.name().to_owned(),
            problem: format!("{queue} cannot be had: its backend does not answer, or a burst does not end"),
            remedy: "try again, or stop the port".to_owned(),
        })
    }

    /// Informs the subscribers that the link may have changed.
    fn tell_link(&self) {
        self.link_events.tell(self.link());
    }

    /// The counters of all queues.
    pub(crate) fn counters(&self) -> &PortCounters<RxLoss, TxLoss> {
        self.local.counters()
    }

    /// Returns the notifications of each queue in use and, of transmit queues, the bursts (counted in
    /// `known`) without one. Each notification belongs to one burst, whether it was sent at once or later.
    fn notifications(&self, known: &[(String, u64)]) -> Vec<(String, u64)> {
        let mut all = Vec::new();
        for (ring, notifications) in &self.notifications {
            let (sent, queue) = (notifications.sent(), usize::from(ring.queue()));
            match ring.role() {
                Role::Receive if queue < self.rx_names.len() => {
                    all.push((format!("rx_q{queue}_notifications"), sent));
                }
                Role::Transmit if queue < self.tx_names.len() => {
                    let bursts = format!("tx_q{queue}_bursts");
                    let bursts = known.iter().find(|(name, _)| *name == bursts).map_or(0, |(_, n)| *n);
                    all.push((format!("tx_q{queue}_notifications"), sent));
                    let suppressed = bursts.saturating_sub(notifications.for_bursts());
                    all.push((format!("tx_q{queue}_notifications_suppressed"), suppressed));
                }
                _ => {}
            }
        }
        all
    }

    /// The receive filter.
    pub(crate) fn filter(&self) -> &Arc<RxFilter> {
        &self.filter
    }

    /// The distribution of flows over the receive queues.
    pub(crate) fn rss_config(&self) -> &Arc<Rss> {
        &self.rss
    }

    /// Makes `waiter`'s thread serve the requests.
    pub(crate) fn served_by(&self, waiter: &Arc<Waiter>) {
        let _ = self.waiter.set(waiter.clone());
        let notified = waiter.clone();
        self.rss.on_change(move || notified.notify());
    }

    fn counts_classes(&self) -> bool {
        let counts = |queue| self.counters().rx(queue).inspections().contains(Inspections::CLASSES);
        (0..self.rx_names.len()).any(counts)
    }

    fn rx_offloads(&self) -> RxOffloads {
        RxOffloads::from_bits_retain(self.rx_offloads.load(Ordering::Acquire))
    }

    /// Returns the offloads that the device may leave to the port now.
    pub(crate) fn guest_offloads(&self) -> Features {
        guest_offloads(self.rx_offloads(), self.options.mrg_rxbuf)
    }

    /// Marks the port as up: frames can pass. `details` describes what was agreed besides features.
    pub(crate) fn set_up(&self, features: Features, details: &str) {
        let join = if details.is_empty() { "" } else { "; " };
        *self.agreed() = format!("{features}{join}{details}");
        self.set_reason("");
        let switches = features.contains(Features::NET_CTRL_GUEST_OFFLOADS);
        self.switches_offloads.store(switches, Ordering::Release);
        self.up.store(true, Ordering::Release);
        self.tell_link();
    }

    /// Records why there is no device, in words.
    pub(crate) fn set_reason(&self, reason: &str) {
        reason.clone_into(&mut self.reason.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Records the device's medium.
    pub(crate) fn set_medium(&self, speed: Option<u32>, full_duplex: bool) {
        self.speed.store(speed.unwrap_or(UNKNOWN), Ordering::Relaxed);
        self.full_duplex.store(full_duplex, Ordering::Relaxed);
    }

    /// Records the state of the device's own link.
    pub(crate) fn set_link(&self, up: bool) {
        if self.link.swap(up, Ordering::AcqRel) != up {
            tell!(self.log, INFO, "the link of the device is {}", if up { "up" } else { "down" });
            self.tell_link();
        }
    }

    /// Returns the negotiated features, in words.
    fn agreed(&self) -> MutexGuard<'_, String> {
        // A string is whole even if a writer panicked.
        self.features.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks the port as down: the backend is gone.
    pub(crate) fn set_down(&self) {
        self.up.store(false, Ordering::Release);
        self.switches_offloads.store(false, Ordering::Release);
        self.agreed().clear();
        self.tell_link();
    }
}

/// The ring of a queue.
const fn ring_of(queue: QueueId) -> RingId {
    match queue {
        QueueId::Receive(queue) => RingId::receive(queue),
        QueueId::Transmit(queue) => RingId::transmit(queue),
    }
}

impl PortControl for State {
    fn inner(&self) -> &dyn PortControl {
        &self.local
    }

    fn link(&self) -> Link {
        let up = self.up.load(Ordering::Acquire) && self.link.load(Ordering::Acquire);
        let told = Some(self.speed.load(Ordering::Relaxed)).filter(|speed| *speed != UNKNOWN);
        let full_duplex = self.full_duplex.load(Ordering::Relaxed);
        Link { up, speed_mbps: self.options.speed.or(told), full_duplex }
    }

    fn link_events(&self) -> Option<&Arc<LinkEvents>> {
        Some(&self.link_events)
    }

    fn depth(&self, queue: QueueId) -> Option<u16> {
        self.local.check_queue(queue).ok()?;
        Some(match queue {
            QueueId::Receive(_) => self.options.rx_queue_size,
            QueueId::Transmit(_) => self.options.tx_queue_size,
        })
    }

    fn used_descriptors(&self, queue: QueueId) -> Result<u16, PmdError> {
        self.local.check_queue(queue)?;
        self.ask(queue, Question::Used)
    }

    fn queue_started(&self, queue: QueueId) -> bool {
        self.local.check_queue(queue).is_ok() && !self.is_stopped(ring_of(queue))
    }

    fn start_queue(&self, queue: QueueId) -> Result<(), PmdError> {
        self.turn(queue, false)
    }

    fn stop_queue(&self, queue: QueueId) -> Result<(), PmdError> {
        self.turn(queue, true)
    }

    fn set_mac(&self, mac: [u8; 6]) -> Result<(), PmdError> {
        self.local.set_mac(mac)?;
        self.filter.set_mac(mac);
        Ok(())
    }

    fn promiscuous(&self) -> bool {
        self.filter.rules().promiscuous
    }

    fn set_promiscuous(&self, on: bool) {
        self.filter.set_promiscuous(on);
    }

    fn allmulticast(&self) -> bool {
        self.filter.rules().allmulticast
    }

    fn rx_filter(&self) -> Option<&RxFilter> {
        Some(&self.filter)
    }

    fn set_rx_offloads(&self, asked: RxOffloads) -> Result<(), PmdError> {
        let started = self.options.offloads.rx;
        let (new, gone) = (asked.difference(started), self.rx_offloads().symmetric_difference(asked));
        let switched = RxOffloads::CHECKSUM.union(RxOffloads::TCP_LRO);
        let able = self.switches_offloads.load(Ordering::Acquire) && new.is_empty();
        let possible = gone.is_empty() || able && switched.contains(gone);
        if !possible {
            // The same answer as a port that cannot switch any offload.
            return self.local.set_rx_offloads(asked);
        }
        self.rx_offloads.store(asked.bits(), Ordering::Release);
        if let Some(waiter) = self.waiter.get() {
            waiter.notify();
        }
        Ok(())
    }

    fn rss(&self) -> Option<&Arc<Rss>> {
        Some(&self.rss)
    }

    fn count_classes(&self, on: bool) -> bool {
        for queue in 0..self.rx_names.len() {
            self.counters().rx(queue).inspect(Inspections::CLASSES, on);
        }
        for queue in 0..self.tx_names.len() {
            self.counters().tx(queue).inspect(Inspections::CLASSES, on);
        }
        true
    }

    /// Class counters appear once something was counted. A runt also counts as undersized.
    fn xstats(&self) -> Vec<(String, u64)> {
        let mut all = self.local.xstats();
        all.extend(self.notifications(&all));
        let queues = |classes: &[Arc<ClassCounters>], side: &str| -> Vec<(String, u64)> {
            let queue = |(i, queue): (usize, &Arc<ClassCounters>)| queue.xstats(&format!("{side}_q{i}_"));
            classes.iter().enumerate().flat_map(queue).collect()
        };
        let classes = [queues(&self.rx_classes, "rx"), queues(&self.tx_classes, "tx")].concat();
        if !self.counts_classes() && classes.iter().all(|(_, count)| *count == 0) {
            return all;
        }
        for (name, count) in classes {
            match all.iter_mut().find(|(known, _)| *known == name) {
                Some((_, value)) => *value += count,
                None => all.push((name, count)),
            }
        }
        all
    }

    fn reset_stats(&self) {
        self.local.reset_stats();
        self.rx_classes.iter().chain(&self.tx_classes).for_each(|classes| classes.reset());
        self.notifications.iter().for_each(|(_, notifications)| notifications.reset());
    }

    fn features(&self) -> String {
        self.agreed().clone()
    }

    fn paths(&self) -> String {
        let rx = self.rx_names.first().map_or("", |name| name.now());
        let tx = self.tx_names.first().map_or("", |name| name.now());
        let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        let separator = if reason.is_empty() { "" } else { "; " };
        format!("rx {rx}, tx {tx}{separator}{reason}")
    }
}
