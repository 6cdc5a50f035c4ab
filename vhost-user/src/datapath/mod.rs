//! The data path: bursts between packets and rings.
//!
//! ```text
//!   peek ─► prefetch ─► allocate ─► copy ─► complete ─► publish ─► call?
//! ```
//! Each step processes the whole burst before the next one begins, so that cache misses overlap. The
//! negotiated features select a type once, when the ring starts; the loops have no branches on them. Chains
//! other than one plain descriptor take a slower path with the same checks and bounded work.

mod copy;
mod dequeue;
#[cfg(test)]
mod differential;
mod direct;
mod enqueue;
mod fault_budget;
mod observed;
mod scatter;
mod source;
mod translated;

pub(crate) use fault_budget::prepare_clock;

use std::sync::Arc;

use linecard_eal::quiescence::Reader;
use linecard_mempool::{BURST, Burst, Pool};
use linecard_pmd::direct::{Frame, Sink};
use linecard_pmd::offload::AcceptedOffloads;
use linecard_pmd::stats::QueueStats;
use linecard_virtio::net::{HDR_LEN, LEGACY_HDR_LEN, device_accepts, driver_accepts};
use linecard_virtio::{
    DeviceConfig, DeviceQueue, Features, Lookahead, PeerFault, RingMemory, Used, packed, split,
};

use crate::error::Refusal;
use crate::memory::MemoryMap;
use crate::port::{RxLoss, TxLoss};
use crate::session::Kept;
use crate::slot::Path;
use dequeue::Dequeue;
use enqueue::Enqueue;
use observed::Observed;
pub(crate) use observed::{Records, RingLog};
use translated::translated;

/// The shortest frame that is delivered: an Ethernet header.
const MIN_FRAME: u32 = 14;
/// The longest packet in bytes: the maximum of IPv4, and an Ethernet header with two tags.
const MAX_PACKET: u32 = linecard_net::ether::LONGEST_FRAME as u32;

/// Descriptors of one chain whose memory is used; packets in longer chains are dropped. A packet of 64 KiB in
/// pages has 18, Linux sends at most 19, and DPDK's backend accepts 256.
const MAX_CHAIN: u16 = 1024;

/// Descriptors that the slow path reads in one burst, except that it finishes a chain. Without this limit, a
/// peer could make one burst read its longest chain repeatedly.
const DESCRIPTORS_PER_BURST: u32 = 4096;

/// Plain chains that a burst takes without reading the clock. 0 if large pages of the memory are missing, so
/// that each packet takes the slow path.
fn at_once(map: &MemoryMap) -> usize {
    if map.is_sparse() { 0 } else { BURST }
}

/// The outcome of one burst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// Packets moved; when sending, also packets taken and dropped.
    pub(crate) packets: usize,
    /// The driver requested a notification.
    pub(crate) call: bool,
}

/// A ring to receive from.
pub(crate) trait DequeuePath: Send {
    /// Appends packets to `out`.
    fn burst(&mut self, out: &mut Burst, pool: &Pool, stats: &QueueStats<RxLoss>) -> Result<Done, PeerFault>;
    /// As [`burst`](Self::burst), but shows plain frames to `sink` first, and makes packets only from those
    /// that it does not consume.
    fn direct(
        &mut self,
        out: &mut Burst,
        pool: &Pool,
        stats: &QueueStats<RxLoss>,
        sink: &mut Sink<'_>,
    ) -> Result<Done, PeerFault>;
    /// Takes packets and drops them.
    fn discard(&mut self, stats: &QueueStats<RxLoss>) -> Result<Done, PeerFault>;
    /// Requests kicks from the driver. Returns true if a chain is already available.
    fn arm(&mut self) -> bool;
    /// Stops kicks from the driver.
    fn disarm(&mut self);
    /// The number of packets that wait in the ring.
    fn waiting(&mut self) -> u16;
    /// Whether the driver must be notified of returned buffers.
    fn call_owed(&mut self) -> bool;
    /// The ring's position.
    fn base(&self) -> u32;
    /// Name of the negotiated path, for logs.
    fn name(&self) -> &'static str;
}

/// A ring to send to.
pub(crate) trait EnqueuePath: Send {
    /// Takes packets from the front of `packets`.
    fn burst(&mut self, packets: &mut Burst, stats: &QueueStats<TxLoss>) -> Result<Done, PeerFault>;
    /// Takes frames from the front of `frames`.
    fn direct(&mut self, frames: &[Frame<'_>], stats: &QueueStats<TxLoss>) -> Result<Done, PeerFault>;
    /// Requests what later packets will need, while there is nothing to send.
    fn look_ahead(&mut self);
    /// The offloads that the driver accepts.
    fn accepted(&self) -> AcceptedOffloads;
    /// The ring's position.
    fn base(&self) -> u32;
    /// Name of the negotiated path, for logs.
    fn name(&self) -> &'static str;
}

/// The configuration of a path.
pub(crate) struct PathConfig {
    pub(crate) memory: RingMemory,
    pub(crate) device: DeviceConfig,
    pub(crate) features: Features,
    /// The memory of ring and buffers; the path keeps it mapped.
    pub(crate) map: Arc<MemoryMap>,
    /// Buffers that a predecessor had taken from `device.base` on. They are returned unused.
    pub(crate) taken: Vec<Used>,
    pub(crate) records: Records,
    /// For a ring with translated addresses: reports when the poller uses them.
    pub(crate) visits: Option<Reader<Arc<Kept>>>,
}

impl PathConfig {
    /// The size in bytes of the virtio header (virtio 1.3, Network Device: Legacy Interface: Device
    /// Operation).
    fn header(&self) -> u32 {
        let long = Features::VERSION_1 | Features::NET_MRG_RXBUF;
        if self.features.intersects(long) { HDR_LEN } else { LEGACY_HDR_LEN }
    }
}

/// Builds the data path of ring `index`. Only this function maps features to types.
///
/// # Errors
/// [`Refusal::Queue`].
pub(crate) fn build(index: usize, mut config: PathConfig) -> Result<Path, Refusal> {
    let visits = config.visits.take();
    let path = build_plain(index, config)?;
    Ok(match visits {
        Some(visits) => translated(path, visits),
        None => path,
    })
}

fn build_plain(index: usize, config: PathConfig) -> Result<Path, Refusal> {
    let (memory, device) = (&config.memory, config.device);
    let has = |feature| config.features.contains(feature);
    Ok(match (index.is_multiple_of(2), has(Features::RING_PACKED), has(Features::IN_ORDER)) {
        (true, false, false) => enqueue(split::Device::<false, true>::new(memory, device)?, config),
        (true, false, true) => enqueue(split::Device::<true, true>::new(memory, device)?, config),
        (true, true, false) => enqueue(packed::Device::<false, true>::new(memory, device)?, config),
        (true, true, true) => enqueue(packed::Device::<true, true>::new(memory, device)?, config),
        (false, false, false) => dequeue(split::Device::<false, false>::new(memory, device)?, config),
        (false, false, true) => dequeue(split::Device::<true, false>::new(memory, device)?, config),
        (false, true, false) => dequeue(packed::Device::<false, false>::new(memory, device)?, config),
        (false, true, true) => dequeue(packed::Device::<true, false>::new(memory, device)?, config),
    })
}

fn enqueue<Q: DeviceQueue + 'static>(queue: Q, config: PathConfig) -> Path {
    match prepare(queue, config) {
        (Ok(queue), config) => enqueue_over(queue, config),
        (Err(queue), config) => enqueue_over(queue, config),
    }
}

fn enqueue_over<Q: DeviceQueue + 'static>(queue: Q, config: PathConfig) -> Path {
    let has = |feature| config.features.contains(feature);
    let (merge, offload) = (has(Features::NET_MRG_RXBUF), has(Features::NET_GUEST_CSUM));
    let name = config.features.path_name(merge, offload);
    let accepted = driver_accepts(config.features.without_orphans());
    let (header, map) = (config.header(), config.map);
    Path::Enqueue(match (merge, offload) {
        (false, false) => Box::new(Enqueue::<Q, false, false>::new(queue, map, header, accepted, name)),
        (false, true) => Box::new(Enqueue::<Q, false, true>::new(queue, map, header, accepted, name)),
        (true, false) => Box::new(Enqueue::<Q, true, false>::new(queue, map, header, accepted, name)),
        (true, true) => Box::new(Enqueue::<Q, true, true>::new(queue, map, header, accepted, name)),
    })
}

fn dequeue<Q: DeviceQueue + 'static>(queue: Q, config: PathConfig) -> Path {
    match prepare(queue, config) {
        (Ok(queue), config) => dequeue_over(queue, config),
        (Err(queue), config) => dequeue_over(queue, config),
    }
}

fn dequeue_over<Q: DeviceQueue + 'static>(queue: Q, config: PathConfig) -> Path {
    let accepted = device_accepts(config.features.without_orphans());
    let name = config.features.path_name(false, accepted.csum);
    let (header, map) = (config.header(), config.map);
    Path::Dequeue(if accepted.csum {
        Box::new(Dequeue::<Q, true>::new(queue, map, header, accepted, name))
    } else {
        Box::new(Dequeue::<Q, false>::new(queue, map, header, accepted, name))
    })
}

/// Returns the buffers that a predecessor had taken. A ring with records becomes an [`Observed`] one (`Err`).
fn prepare<Q: DeviceQueue>(queue: Q, mut config: PathConfig) -> (Result<Q, Observed<Q>>, PathConfig) {
    let records = std::mem::take(&mut config.records);
    if records.is_empty() {
        let mut queue = queue;
        give_back(&mut queue, &config.taken);
        return (Ok(queue), config);
    }
    let mut queue = Observed::new(queue, records);
    give_back(&mut queue, &config.taken);
    (Err(queue), config)
}

fn give_back(queue: &mut impl DeviceQueue, taken: &[Used]) {
    let past = |ahead: Lookahead, used: &Used| Lookahead {
        chains: ahead.chains.saturating_add(1),
        descs: ahead.descs.saturating_add(used.descs),
    };
    queue.take(taken.iter().fold(Lookahead::default(), past));
    taken.iter().for_each(|used| queue.complete_taken(*used));
    if !taken.is_empty() {
        queue.publish();
    }
}
