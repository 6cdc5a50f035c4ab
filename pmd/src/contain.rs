//! Containment of driver panics: a panic stops one queue, not the thread that polls it.
//!
//! A panic in a driver is a bug, and the thread that polls the port usually polls other ports too. [`contain`] catches
//! the panic at the boundary of the burst:
//!
//! | part of the port | after a panic |
//! |---|---|
//! | receive queue | returns no more packets |
//! | transmit queue | takes no more packets; those of the burst that panicked are given up and count in `oerrors` |
//! | log | one line of level `error` with the port, the queue and the panic's message |
//! | extended statistics | `rx_q0_panics`, `tx_q0_panics`, and so on: 1 |
//! | [`paths`](PortControl::paths) | names the queue |
//!
//! The other queues and all other ports continue. A port that is stopped and started again has new queues. Packets that
//! the driver may have held when it panicked do not return to their pool: the driver may still count them as its own,
//! and using a buffer twice would be worse than losing it. At most one burst is lost, plus the packets that the queue
//! itself does not return when it is dropped.
//!
//! The cost is some instructions per burst, and a virtual call if the queues are boxed. A program built with
//! `panic = "abort"` still ends at a panic.

use std::any::Any;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use linecard_mempool::{Burst, Packet};

use crate::control::{PortControl, PortStats};
use crate::direct::{Frame, Sink, all};
use crate::handover::HandOver;
use crate::port::{Device, Port, Running, RxQueue, TxQueue};
use crate::stats::add_to;
use crate::wake::Armed;

/// Contains the panics of a started port's queues; see [the module](self).
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Burst, Pool, PoolConfig};
/// # use linecard_pmd::{PortConfig, ProbeContext, Registry, configure};
/// # let memory = Memory::new(MemoryConfig::default())?;
/// # let domain = memory.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// # let context = ProbeContext::new(memory, domain, std::time::Duration::from_secs(1));
/// # let registry = Registry::new(&[&linecard_net_null::NullDriver, &linecard_net_ring::RingDriver]);
/// use linecard_pmd::contain::contain;
/// let port = configure(registry.probe(&context, "net_null0")?, PortConfig::default())?.start(&pool)?;
/// let mut port = contain(port);
/// assert_eq!(port.rx[0].rx_burst(&mut Burst::new()), 64);
/// let panics = port.control.xstats().into_iter().find(|(name, _)| name == "rx_q0_panics");
/// assert_eq!(panics, Some(("rx_q0_panics".into(), 0)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn contain(mut port: Port) -> Port {
    let (rx, tx) = (std::mem::take(&mut port.rx), std::mem::take(&mut port.tx));
    let (port, rx, tx) = contain_queues(port, rx, tx);
    let rx = rx.into_iter().map(|rx| Box::new(rx) as Box<dyn RxQueue>).collect();
    let tx = tx.into_iter().map(|tx| Box::new(tx) as Box<dyn TxQueue>).collect();
    Port { rx, tx, ..port }
}

/// As [`contain`], but returns the queues separately and unboxed, for loops in which one more virtual call per burst
/// matters. The returned port has no queues.
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Burst, Pool, PoolConfig};
/// # use linecard_pmd::{PortConfig, ProbeContext, Registry, RxQueue, configure};
/// # let memory = Memory::new(MemoryConfig::default())?;
/// # let domain = memory.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// # let context = ProbeContext::new(memory, domain, std::time::Duration::from_secs(1));
/// # let registry = Registry::new(&[&linecard_net_null::NullDriver, &linecard_net_ring::RingDriver]);
/// use linecard_pmd::contain::contain_queues;
/// use linecard_capture::Hub;
/// let port = configure(registry.probe(&context, "net_null0")?, PortConfig::default())?.start(&pool)?;
/// let (port, rx, tx) = Hub::new().watch_queues(0, port);
/// let (port, mut rx, tx) = contain_queues(port, rx, tx);
/// assert_eq!((rx[0].rx_burst(&mut Burst::new()), tx.len(), port.rx.len()), (64, 1, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn contain_queues<R: RxQueue, T: TxQueue>(
    port: Port,
    rx: Vec<R>,
    tx: Vec<T>,
) -> (Port, Vec<ContainedRx<R>>, Vec<ContainedTx<T>>) {
    let fates = |count: usize| (0..count).map(|_| Arc::default()).collect::<Vec<Arc<QueueHealth>>>();
    let (rx_fates, tx_fates) = (fates(rx.len()), fates(tx.len()));
    let name: Arc<str> = port.control.name().into();
    let watch =
        |fate: &Arc<QueueHealth>, index| Watch { fate: Arc::clone(fate), port: Arc::clone(&name), index };
    let rx = rx.into_iter().zip(&rx_fates).enumerate();
    let rx =
        rx.map(|(i, (queue, fate))| ContainedRx { queue: Some(queue), dead: None, watch: watch(fate, i) });
    let tx = tx.into_iter().zip(&tx_fates).enumerate();
    let tx =
        tx.map(|(i, (queue, fate))| ContainedTx { queue: Some(queue), dead: None, watch: watch(fate, i) });
    let (rx, tx) = (rx.collect(), tx.collect());
    let Port { control, running, .. } = port;
    let control = Arc::new(Control { inner: control, rx: rx_fates, tx: tx_fates });
    (Port { rx: Vec::new(), tx: Vec::new(), control, running: Box::new(Contained(running)) }, rx, tx)
}

/// The state of a queue. Its thread writes, any thread reads.
#[derive(Debug, Default)]
struct QueueHealth {
    panicked: AtomicBool,
    /// Packets of the burst that panicked.
    given_up: AtomicU64,
}

impl QueueHealth {
    fn panicked(&self) -> bool {
        self.panicked.load(Ordering::Relaxed)
    }
}

/// Records and reports the state of a queue.
struct Watch {
    fate: Arc<QueueHealth>,
    port: Arc<str>,
    index: usize,
}

impl Watch {
    /// Records a panic in which `given_up` packets were lost, and logs it.
    fn tell(&self, side: &str, given_up: usize, panic: Box<dyn Any + Send>) {
        self.fate.given_up.fetch_add(given_up as u64, Ordering::Relaxed);
        self.fate.panicked.store(true, Ordering::Relaxed);
        tracing::error!(
            "{}: {side} queue {} panicked and is not polled any more ({}); everything else goes on; stop and start the \
             port to use the queue again, and report this as a fault of the driver",
            self.port,
            self.index,
            message(&*panic)
        );
        // The payload of a panic may itself panic when it is dropped.
        std::mem::forget(panic);
    }
}

/// Returns the message of a panic.
///
/// ```
/// let panic = std::panic::catch_unwind(|| panic!("port {} is gone", 3)).expect_err("it panics");
/// assert_eq!(linecard_pmd::contain::message(&*panic), "port 3 is gone");
/// ```
#[must_use]
pub fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message")
}

/// Drops a queue that panicked, ignoring a second panic.
fn drop_panicked<Q>(dead: &mut Option<Q>) {
    let dead = dead.take();
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(dead))) {
        std::mem::forget(panic);
    }
}

/// A receive queue whose panics are contained; made by [`contain_queues`].
///
/// ```
/// use linecard_pmd::{RxQueue, contain::ContainedRx};
/// fn poll<Q: RxQueue>(rx: &mut ContainedRx<Q>, packets: &mut linecard_mempool::Burst) -> usize {
///     rx.rx_burst(packets) // 0 for ever, once it panicked
/// }
/// ```
pub struct ContainedRx<Q: RxQueue> {
    /// `None` once the queue has panicked.
    queue: Option<Q>,
    /// The queue that panicked. It is dropped when the port is stopped, not on the polling thread.
    dead: Option<Q>,
    watch: Watch,
}

impl<Q: RxQueue> ContainedRx<Q> {
    #[cold]
    #[inline(never)]
    fn panicked(&mut self, packets: &mut Burst, before: usize, panic: Box<dyn Any + Send>) {
        self.dead = self.queue.take();
        let mut given_up = 0;
        // The driver may still count the packets that it appended as its own.
        while packets.len() > before {
            std::mem::forget(packets.pop());
            given_up += 1;
        }
        self.watch.tell("receive", given_up, panic);
    }

    /// Calls `act` with the queue, if it is still in use.
    fn with<A>(&mut self, act: impl FnOnce(&mut Q) -> A) -> Option<A> {
        let queue = self.queue.as_mut()?;
        match catch_unwind(AssertUnwindSafe(|| act(queue))) {
            Ok(answer) => Some(answer),
            Err(panic) => {
                self.dead = self.queue.take();
                self.watch.tell("receive", 0, panic);
                None
            }
        }
    }
}

impl<Q: RxQueue> RxQueue for ContainedRx<Q> {
    #[inline(always)]
    fn rx_burst(&mut self, packets: &mut Burst) -> usize {
        let Some(queue) = &mut self.queue else { return 0 };
        let before = packets.len();
        match catch_unwind(AssertUnwindSafe(|| queue.rx_burst(packets))) {
            Ok(count) => count,
            Err(panic) => {
                self.panicked(packets, before, panic);
                0
            }
        }
    }

    /// A panic of `sink` is not the queue's: it resumes once the queue has taken the frames off its ring.
    #[inline(always)]
    fn rx_direct(&mut self, packets: &mut Burst, sink: &mut Sink<'_>) -> usize {
        let Some(queue) = &mut self.queue else { return 0 };
        let before = packets.len();
        let mut of_sink = None;
        let mut caught = |frames: &[Frame<'_>]| match catch_unwind(AssertUnwindSafe(|| sink(frames))) {
            Ok(dealt_with) => dealt_with,
            Err(panic) => {
                of_sink = Some(panic);
                all(frames.len())
            }
        };
        let result = catch_unwind(AssertUnwindSafe(|| queue.rx_direct(packets, &mut caught)));
        let count = result.unwrap_or_else(|panic| {
            self.panicked(packets, before, panic);
            0
        });
        if let Some(panic) = of_sink {
            resume_unwind(panic);
        }
        count
    }

    fn path(&self) -> &'static str {
        self.queue.as_ref().map_or("panicked", RxQueue::path)
    }

    fn arm(&mut self) -> Armed {
        self.with(RxQueue::arm).unwrap_or(Armed::Unable)
    }

    fn prepare_arm(&mut self) {
        self.with(RxQueue::prepare_arm);
    }

    fn begin_arm(&mut self) -> bool {
        self.with(RxQueue::begin_arm).unwrap_or(false)
    }

    fn finish_arm(&mut self) -> Armed {
        self.with(RxQueue::finish_arm).unwrap_or(Armed::Unable)
    }

    fn disarm(&mut self) {
        self.with(RxQueue::disarm);
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        self.queue.as_ref()?.event()
    }
}

impl<Q: RxQueue> Drop for ContainedRx<Q> {
    fn drop(&mut self) {
        drop_panicked(&mut self.dead);
    }
}

/// A transmit queue whose panics are contained; made by [`contain_queues`].
///
/// ```
/// use linecard_pmd::{TxQueue, contain::ContainedTx};
/// fn push<Q: TxQueue>(tx: &mut ContainedTx<Q>, packets: &mut linecard_mempool::Burst) -> usize {
///     tx.tx_burst(packets) // 0 for ever, once it panicked
/// }
/// ```
pub struct ContainedTx<Q: TxQueue> {
    /// `None` once the queue has panicked.
    queue: Option<Q>,
    /// As in [`ContainedRx`].
    dead: Option<Q>,
    watch: Watch,
}

impl<Q: TxQueue> ContainedTx<Q> {
    #[cold]
    #[inline(never)]
    fn panicked(&mut self, given_up: usize, panic: Box<dyn Any + Send>) {
        self.dead = self.queue.take();
        self.watch.tell("transmit", given_up, panic);
    }

    /// Takes all packets without returning them to their pools: the driver may have taken some of them already.
    #[cold]
    #[inline(never)]
    fn give_up(packets: &mut Burst) -> usize {
        let given_up = packets.len();
        let empty = Burst::with_capacity(packets.capacity());
        std::mem::forget(std::mem::replace(packets, empty));
        given_up
    }

    /// Calls `act` with the queue, if it is still in use.
    fn with(&mut self, act: impl FnOnce(&mut Q)) {
        let Some(queue) = &mut self.queue else { return };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| act(queue))) {
            self.panicked(0, panic);
        }
    }
}

impl<Q: TxQueue> TxQueue for ContainedTx<Q> {
    #[inline(always)]
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        let Some(queue) = &mut self.queue else { return 0 };
        match catch_unwind(AssertUnwindSafe(|| queue.tx_burst(packets))) {
            Ok(count) => count,
            Err(panic) => {
                let given_up = Self::give_up(packets);
                self.panicked(given_up, panic);
                given_up
            }
        }
    }

    #[inline(always)]
    fn tx_direct(&mut self, frames: &[Frame<'_>]) -> Option<usize> {
        let Some(queue) = &mut self.queue else { return Some(0) };
        match catch_unwind(AssertUnwindSafe(|| queue.tx_direct(frames))) {
            Ok(taken) => taken,
            Err(panic) => {
                self.panicked(frames.len(), panic);
                Some(frames.len())
            }
        }
    }

    fn reclaim(&mut self) {
        self.with(TxQueue::reclaim);
    }

    fn note_dropped(&mut self, packets: &[Packet], cause: &str) {
        self.with(|queue| queue.note_dropped(packets, cause));
    }

    fn watched(&mut self, on: bool) {
        self.with(|queue| queue.watched(on));
    }

    fn path(&self) -> &'static str {
        self.queue.as_ref().map_or("panicked", TxQueue::path)
    }
}

impl<Q: TxQueue> Drop for ContainedTx<Q> {
    fn drop(&mut self) {
        drop_panicked(&mut self.dead);
    }
}

impl<Q: RxQueue> std::fmt::Debug for ContainedRx<Q> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ContainedRx").field(&self.path()).finish()
    }
}

impl<Q: TxQueue> std::fmt::Debug for ContainedTx<Q> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ContainedTx").field(&self.path()).finish()
    }
}

/// A started port whose queues are contained.
struct Contained(Box<dyn Running>);

impl Running for Contained {
    fn hand_over(&self) -> Option<&dyn HandOver> {
        self.0.hand_over()
    }

    fn stop(self: Box<Self>, rx: Vec<Box<dyn RxQueue>>, tx: Vec<Box<dyn TxQueue>>) -> Box<dyn Device> {
        // These contain the driver's queues; a port may be stopped without its queues.
        drop((rx, tx));
        self.0.stop(Vec::new(), Vec::new())
    }
}

/// The port's control side, with the state of its queues.
struct Control {
    inner: Arc<dyn PortControl>,
    rx: Vec<Arc<QueueHealth>>,
    tx: Vec<Arc<QueueHealth>>,
}

impl Control {
    fn with_given_up<'a>(
        mut stats: PortStats,
        tx: impl IntoIterator<Item = &'a Arc<QueueHealth>>,
    ) -> PortStats {
        stats.oerrors += tx.into_iter().map(|fate| fate.given_up.load(Ordering::Relaxed)).sum::<u64>();
        stats
    }
}

impl PortControl for Control {
    fn inner(&self) -> &dyn PortControl {
        &*self.inner
    }

    fn stats(&self) -> PortStats {
        Self::with_given_up(self.inner.stats(), &self.tx)
    }

    fn queue_stats(&self, queue: u16) -> PortStats {
        Self::with_given_up(self.inner.queue_stats(queue), self.tx.get(usize::from(queue)))
    }

    fn xstats(&self) -> Vec<(String, u64)> {
        let mut all = self.inner.xstats();
        let given_up = Self::with_given_up(PortStats::default(), &self.tx).oerrors;
        add_to(&mut all, "tx_errors", given_up);
        let named = |side: &'static str| {
            move |(i, fate): (usize, &Arc<QueueHealth>)| {
                (format!("{side}_q{i}_panics"), u64::from(fate.panicked()))
            }
        };
        all.extend(self.rx.iter().enumerate().map(named("rx")));
        all.extend(self.tx.iter().enumerate().map(named("tx")));
        all
    }

    fn reset_stats(&self) {
        // A panicked queue stays panicked.
        self.tx.iter().for_each(|fate| fate.given_up.store(0, Ordering::Relaxed));
        self.inner.reset_stats();
    }

    fn paths(&self) -> String {
        let mut text = self.inner.paths();
        for (side, fates) in [("receive", &self.rx), ("transmit", &self.tx)] {
            for (i, _) in fates.iter().enumerate().filter(|(_, fate)| fate.panicked()) {
                let lead = if text.is_empty() { "" } else { "; " };
                text.push_str(&format!("{lead}{side} queue {i} panicked and is not polled"));
            }
        }
        text
    }
}
