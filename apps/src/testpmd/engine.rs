//! Forwarding: queues move to polling threads at start and back to their ports at stop.

mod idle;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use linecard::eal::clock::cycles;
use linecard::eal::{Clock, Eal, LcoreId, Stop, Workers};
use linecard::mempool::Pool;
use linecard::pmd::contain;

use super::bursts::Spread;
use super::counters::LaneCounters;
use super::frames::UdpFlow;
use super::lane::{Forward, Lane, LaneConfig, PortRx, PortTx, Round, SleepsOn, SplitBurst};
use super::layout::StreamTotals;
use super::live::Live;
use super::modes::{
    Checksums, Csum, FiveTupleSwap, FlowGen, IcmpEcho, Io, MacRewrite, MacSwap, Mode, MultiFlow, Noisy,
    RxOnly, TxOnly,
};
use super::settings::{Mac, ModeKind, Settings};
use super::soft::LaneRules;
use super::soft::vlan::{Tagged, TxTags};
use super::topology::{Share, Stream};
use crate::error::Error;
use idle::Idle;

/// The queues of a stream, while they move to or from a thread.
pub(crate) struct Queues {
    pub(crate) stream: Stream,
    pub(crate) rx: PortRx,
    pub(crate) tx: PortTx,
}

/// Forwarding that is in progress.
pub(crate) struct Forwarding {
    workers: Workers<Vec<Queues>>,
    /// The counters of each stream, in the order of the plan.
    lanes: Vec<(Stream, Arc<LaneCounters>)>,
    /// The lcore of each stream, in the same order.
    lcores: Vec<u32>,
}

/// The received and sent burst sizes of a stream.
pub(crate) type BurstsOf = (Stream, (Spread, Spread));

/// The burst sizes of those streams that record them.
pub(crate) fn spreads(lanes: &[(Stream, Arc<LaneCounters>)]) -> Vec<BurstsOf> {
    lanes.iter().filter_map(|(stream, counters)| Some((*stream, counters.bursts()?))).collect()
}

/// The parameters of `start`, except the queues.
pub(crate) struct Plan<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) pool: &'a Pool,
    /// The address of each transmit port.
    pub(crate) macs: &'a HashMap<u16, Mac>,
    /// The checksum settings of each transmit port.
    pub(crate) checksums: &'a HashMap<u16, Checksums>,
    /// The VLAN tags that each transmit port inserts.
    pub(crate) tags: &'a HashMap<u16, TxTags>,
    /// Bursts of generated packets to send before the mode begins. `stop` does not shorten them.
    pub(crate) tx_first: u32,
    /// Stops on a signal that ends the run; ends those first bursts too.
    pub(crate) signalled: Stop,
    pub(crate) live: Arc<Live>,
    pub(crate) clock: Clock,
    /// The memory for the lookups of mode noisy, one per stream.
    pub(crate) memories: RefCell<Vec<Vec<u8>>>,
}

impl Plan<'_> {
    fn generator(&self, stream: &Stream, lcore: u32) -> TxOnly {
        let (own, peer) = (self.mac(stream.tx_port), self.settings.peer(stream.tx_port));
        let flow = UdpFlow::of(self.settings.tx_addresses, own, peer);
        let flows = self.settings.tx_multi_flow.then(|| MultiFlow::new(flow.dst_ip, lcore));
        TxOnly::new(self.pool.clone(), flow, &self.settings.tx_segments, flows)
    }

    fn mac(&self, port: u16) -> Mac {
        self.macs.get(&port).copied().unwrap_or(Mac([0; 6]))
    }

    /// Creates the lane of a stream: the only place that maps the mode's name to its type.
    fn lane(&self, queues: Queues, counters: Arc<LaneCounters>, lcore: u32) -> Box<dyn Forward> {
        let tx_port = queues.stream.tx_port;
        let (own, peer) = (self.mac(tx_port), self.settings.peer(tx_port));
        match self.settings.mode {
            ModeKind::Io => self.with(queues, counters, Io),
            ModeKind::Mac => self.with(queues, counters, MacRewrite { dst: peer, src: own }),
            ModeKind::MacSwap => self.with(queues, counters, MacSwap),
            ModeKind::FiveTupleSwap => self.with(queues, counters, FiveTupleSwap),
            ModeKind::RxOnly => self.with(queues, counters, RxOnly),
            ModeKind::IcmpEcho => self.with(queues, counters, IcmpEcho { own }),
            ModeKind::Noisy => {
                let memory = self.memories.borrow_mut().pop().unwrap_or_default();
                let mode = Noisy::new(self.settings.noisy, memory, [peer, own], self.clock);
                self.with(queues, counters, mode)
            }
            ModeKind::Csum => {
                let rule = self.checksums.get(&tx_port).copied().unwrap_or_default();
                let mode = Csum::new(self.pool.clone(), rule, [peer, own], Arc::clone(&counters));
                self.with(queues, counters, mode)
            }
            ModeKind::TxOnly => {
                let generator = self.generator(&queues.stream, lcore);
                self.with(queues, counters, generator)
            }
            ModeKind::FlowGen => {
                let (len, flows) = (self.settings.tx_len(), self.settings.flows);
                self.with(
                    queues,
                    counters,
                    FlowGen::new(self.pool.clone(), len, flows, self.settings.flow_clones),
                )
            }
        }
    }

    fn with<M: Mode>(&self, queues: Queues, counters: Arc<LaneCounters>, mode: M) -> Box<dyn Forward> {
        let Queues { stream, rx, tx } = queues;
        let config = LaneConfig { retry: self.settings.retry, live: Arc::clone(&self.live) };
        let burst = SplitBurst::new(self.settings.burst);
        let rules = LaneRules::default();
        match self.tags.get(&stream.tx_port) {
            Some(&tags) => {
                let mode = Tagged { mode, tags };
                Box::new(Lane { stream, rx, tx, mode, burst, counters, config, rules, received_at: 0 })
            }
            None => Box::new(Lane { stream, rx, tx, mode, burst, counters, config, rules, received_at: 0 }),
        }
    }
}

impl Forwarding {
    /// Moves each share's queues to a thread on its lcore and starts it.
    ///
    /// # Errors
    /// An lcore on which no thread can be started, and the queues of the threads that did start. The queues
    /// of the failed share are lost.
    pub(crate) fn start(
        eal: &Eal,
        plan: &Plan<'_>,
        shares: &[Share],
        mut take: impl FnMut(&Stream) -> Option<Queues>,
    ) -> Result<Self, (Vec<Queues>, Error)> {
        let mut forwarding = Self { workers: Workers::new(), lanes: Vec::new(), lcores: Vec::new() };
        for share in shares {
            if let Err(error) = forwarding.launch(eal, plan, share, &mut take) {
                forwarding.halt();
                return Err((forwarding.join().0, error));
            }
        }
        Ok(forwarding)
    }

    fn launch(
        &mut self,
        eal: &Eal,
        plan: &Plan<'_>,
        share: &Share,
        take: &mut impl FnMut(&Stream) -> Option<Queues>,
    ) -> Result<(), Error> {
        let lcore = eal.lcores().get(LcoreId(share.lcore)).ok_or_else(|| {
            Error::Failed(format!("lcore {} not enabled; name it with -l or --lcores", share.lcore))
        })?;
        let mut lanes = Vec::with_capacity(share.streams.len());
        let mut generators = Vec::new();
        for queues in share.streams.iter().filter_map(take) {
            let counters = Arc::new(LaneCounters::new(plan.settings.record_bursts));
            self.lanes.push((queues.stream, Arc::clone(&counters)));
            self.lcores.push(share.lcore);
            if plan.tx_first > 0 {
                generators.push(plan.generator(&queues.stream, share.lcore));
            }
            lanes.push(plan.lane(queues, counters, share.lcore));
        }
        let (tx_first, burst) = (plan.tx_first, usize::from(plan.settings.burst));
        let record = (plan.settings.record_cycles, plan.settings.record_bursts);
        let interrupts = plan.settings.rx_interrupt;
        if interrupts {
            lanes.iter_mut().for_each(|lane| prepare_sleep(&mut **lane));
        }
        let signalled = plan.signalled.clone();
        self.workers.launch(lcore, move |stop| {
            for (lane, generator) in lanes.iter_mut().zip(&mut generators) {
                for _ in (0..tx_first).take_while(|_| signalled.running()) {
                    lane.send_first(generator, burst);
                }
            }
            match record {
                (false, false) => poll(stop, &mut lanes, interrupts, |lane| lane.round()),
                (true, false) => poll(stop, &mut lanes, interrupts, |lane| timed(lane, |lane| lane.round())),
                (false, true) => poll(stop, &mut lanes, interrupts, counted),
                (true, true) => poll(stop, &mut lanes, interrupts, |lane| timed(lane, counted)),
            }
            lanes.into_iter().map(home).collect()
        })?;
        Ok(())
    }

    /// The counters of each stream.
    pub(crate) fn lanes(&self) -> Vec<(Stream, Arc<LaneCounters>)> {
        self.lanes.clone()
    }

    /// The lcore that polls each stream, in the order of [`lanes`](Self::lanes).
    pub(crate) fn lcores(&self) -> &[u32] {
        &self.lcores
    }

    /// Restarts the totals at zero.
    pub(crate) fn clear(&mut self) {
        self.lanes.iter().for_each(|(_, counters)| counters.mark());
    }

    /// The totals of each stream since forwarding started, or since [`clear`](Self::clear).
    pub(crate) fn totals(&self) -> Vec<(Stream, StreamTotals)> {
        self.lanes.iter().map(|(stream, counters)| (*stream, counters.totals())).collect()
    }

    /// The burst sizes of each stream, if they are recorded.
    pub(crate) fn bursts(&self) -> Vec<BurstsOf> {
        spreads(&self.lanes)
    }

    /// Requests the threads to stop.
    pub(crate) fn halt(&self) {
        self.workers.stop();
    }

    /// Waits for the threads and returns the queues, and the errors of threads that panicked, whose queues
    /// are lost.
    pub(crate) fn join(mut self) -> (Vec<Queues>, Vec<String>) {
        let mut queues = Vec::new();
        let mut troubles = Vec::new();
        for (_, result) in self.workers.join() {
            match result {
                Ok(home) => queues.extend(home),
                Err(error) => troubles.push(error.to_string()),
            }
        }
        (queues, troubles)
    }
}

/// Creates here what the lane's thread needs to sleep.
fn prepare_sleep(lane: &mut dyn Forward) {
    if let SleepsOn::Queue(queue) = lane.sleeps_on() {
        queue.prepare_arm();
    }
}

fn home(lane: Box<dyn Forward>) -> Queues {
    let (stream, rx, tx) = lane.into_queues();
    Queues { stream, rx, tx }
}

/// Runs a round and counts its cycles as busy if it moved packets.
fn timed(lane: &mut dyn Forward, round: impl Fn(&mut dyn Forward) -> Round) -> Round {
    let start = cycles();
    let done = round(lane);
    if done.moved() > 0 {
        lane.add_busy(cycles().wrapping_sub(start));
    }
    done
}

/// Runs a round and counts its bursts by size.
fn counted(lane: &mut dyn Forward) -> Round {
    let done = lane.round();
    lane.add_bursts(done);
    done
}

/// Polls with `round` until `stop`. A stream that panics outside of its queues, which contain their own
/// panics, is halted; the others continue.
fn poll(
    stop: &Stop,
    lanes: &mut Vec<Box<dyn Forward>>,
    interrupts: bool,
    round: impl Fn(&mut dyn Forward) -> Round,
) {
    let (at, mut idle) = (Cell::new(0), Idle::new(interrupts));
    while let Err(panic) = catch_unwind(AssertUnwindSafe(|| poll_all(stop, lanes, &mut idle, &round, &at))) {
        let lane = lanes.remove(at.get()).halted();
        let stream = lane.stream();
        tracing::error!(
            "the stream from port {}, queue {} to port {}, queue {} panicked and is halted ({}); the others go on; \
             report this as a fault of its forwarding mode",
            stream.rx_port,
            stream.rx_queue,
            stream.tx_port,
            stream.tx_queue,
            contain::message(&*panic)
        );
        std::mem::forget(panic);
        lanes.insert(at.get(), lane);
    }
}

/// Polls every stream until `stop`; `at` is the index of the current stream.
fn poll_all(
    stop: &Stop,
    lanes: &mut [Box<dyn Forward>],
    idle: &mut Idle,
    round: &impl Fn(&mut dyn Forward) -> Round,
    at: &Cell<usize>,
) {
    while stop.running() {
        let mut moved = 0;
        for (i, lane) in lanes.iter_mut().enumerate() {
            at.set(i);
            moved += round(&mut **lane).moved();
        }
        if moved > 0 {
            idle.moved(moved);
        } else {
            idle.nothing(lanes, at);
        }
    }
}

#[cfg(test)]
mod tests;
