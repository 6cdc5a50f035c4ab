//! The memory of one ring, and the choice of the data path after negotiation.

use std::sync::Arc;

use linecard_eal::eventfd::EventFd;
use linecard_eal::memory::{Domain, Zone};
use linecard_eal::notifier::SignalBudget;
use linecard_virtio::{
    ControlQueue, DeviceSuppression, DriverConfig, DriverQueue, Features, IndirectTables, Layout, RingAddrs,
    RingMemory, packed, split,
};

use crate::args::Options;
use crate::backend::{RingId, RingSetup, Role};
use crate::control_queue::{LONGEST, RequestMemory};
use crate::doorbell::Doorbell;
use crate::error::Error;
use crate::kick::{Kick, Notifications};
use crate::negotiate::layout;
use crate::owed::Notice;
use crate::path::{RxPath, TxPath, header_len};
use crate::rx::{Rx, RxParts};
use crate::tx::{Tx, TxParts};

/// The descriptors of an indirect table: a header and the pieces of an ordinary chain. Longer chains use the
/// ring.
const TABLE: u16 = 8;
/// The most descriptors of a control ring, more than one request needs.
const CONTROL_SIZE: u16 = 16;
/// The space for the longest command.
const COMMAND: usize = 2048;
/// The alignment of a ring's zone: two cache lines, as [`Layout::offsets`] requires.
const ALIGN: usize = 128;

/// One ring's memory in the domain of the port's rings, reused for every backend that connects.
///
/// ```text
///   ├─ ring, split or packed ─┼─ zero header (transmit) ─┼─ indirect tables (transmit) ─┤
///   ├─ ring, split or packed ─┼─ command (control) ──────┼─ answer (control) ───────────┤
/// ```
pub(crate) struct RingZone {
    id: RingId,
    zone: Zone,
    size: u16,
    /// Wakes the backend; replaced for every session.
    pub(crate) kick: Arc<Kick>,
    /// The number of notifications in all sessions.
    pub(crate) notifications: Arc<Notifications>,
    /// Wakes the thread that sleeps on the ring; replaced for every session.
    pub(crate) call: Arc<EventFd>,
    /// The time budget of kicks, over all sessions.
    signal_budget: Arc<SignalBudget>,
}

impl RingZone {
    /// Returns the descriptors of a ring for these options. The control ring carries one request at a time.
    pub(crate) fn size(options: &Options, role: Role) -> u16 {
        match role {
            Role::Receive => options.rx_queue_size,
            Role::Transmit => options.tx_queue_size,
            // As small as the other rings, but large enough for a request: the device may limit every ring's
            // size.
            Role::Control => {
                let size = options.rx_queue_size.min(options.tx_queue_size);
                size.clamp(ControlQueue::MIN_SIZE, CONTROL_SIZE)
            }
        }
    }

    /// Returns the bytes that `new` takes from the domain.
    pub(crate) fn bytes(size: u16, role: Role) -> usize {
        let more = match role {
            Role::Receive => 0,
            Role::Transmit => ALIGN + IndirectTables::bytes(size, TABLE.min(size)),
            Role::Control => COMMAND + ALIGN,
        };
        ring_bytes(size).saturating_add(more).saturating_add(ALIGN)
    }

    pub(crate) fn new(
        domain: &Arc<Domain>,
        label: &str,
        id: RingId,
        size: u16,
        signal_budget: &Arc<SignalBudget>,
    ) -> Result<Self, RingError> {
        let zone = domain.zone(label, Self::bytes(size, id.role()), ALIGN).map_err(RingError::Memory)?;
        let event = || EventFd::of(signal_budget).map_err(RingError::Event);
        let notifications = Arc::default();
        let (kick, call) = (Arc::new(Kick::new(event()?, &notifications)), Arc::new(event()?));
        Ok(Self { id, zone, size, kick, notifications, call, signal_budget: Arc::clone(signal_budget) })
    }

    /// Zeroes the ring and replaces the eventfds, for a backend that must not see the previous session.
    pub(crate) fn renew(&mut self) -> Result<(), Error> {
        let event = || EventFd::of(&self.signal_budget);
        let failed = |source| Error::System { action: "making an eventfd", source };
        let (kick, call) = (event().map_err(failed)?, event().map_err(failed)?);
        (self.kick, self.call) = (Arc::new(Kick::new(kick, &self.notifications)), Arc::new(call));
        // SAFETY: the handle is used in this statement only and the zone outlives it; no queue uses the ring now.
        unsafe { self.zone.bytes() }.fill(0);
        Ok(())
    }

    /// Releases the notification of a lost device, while nothing uses the ring.
    pub(crate) fn forget_notifier(&mut self) {
        if let Some(kick) = Arc::get_mut(&mut self.kick) {
            kick.forget();
        }
    }

    /// Returns the ring's role and number.
    pub(crate) fn id(&self) -> RingId {
        self.id
    }

    fn base(&self) -> u64 {
        self.zone.ptr().as_ptr() as u64
    }

    /// Returns the description of the ring for the backend.
    pub(crate) fn setup(&self, features: Features) -> RingSetup<'_> {
        let layout = layout(features);
        let addrs = RingAddrs::at(self.base(), layout, self.size);
        RingSetup { id: self.id, layout, size: self.size, addrs, kick: self.kick.event() }
    }

    /// Returns the ring as memory of this process.
    fn memory(&self, layout: Layout) -> Result<RingMemory, Error> {
        // SAFETY: the paths made from this memory are dropped before the zone is (see `Session`); it is
        // reached through shared cells only.
        let bytes = unsafe { self.zone.bytes() };
        RingMemory::in_zone(bytes, layout, self.size).map_err(|error| Error::Layout(error.to_string()))
    }

    /// Creates the queue of a control ring, and the memory for its requests.
    pub(crate) fn control(&self, features: Features) -> Result<(ControlQueue, RequestMemory), Error> {
        let layout = layout(features);
        let event_idx = features.contains(Features::EVENT_IDX);
        let queue = ControlQueue::new(&self.memory(layout)?, layout, self.size, event_idx);
        let queue = queue.map_err(|error| Error::Layout(error.to_string()))?;
        let at = ring_bytes(self.size);
        // SAFETY: the queue is dropped before the zone (see `Session`); both sides reach the memory by copies only.
        let memory = unsafe { self.zone.bytes() };
        let parts = memory.slice(at, COMMAND).zip(memory.slice(at.saturating_add(COMMAND), ALIGN));
        let (command, answer) = parts.ok_or_else(|| Error::Layout("its requests have no room".into()))?;
        Ok((queue, RequestMemory { command, answer }))
    }

    /// Creates the doorbell of a transmit ring.
    pub(crate) fn doorbell(&self, features: Features, notice: &Arc<Notice>) -> Result<Arc<Doorbell>, Error> {
        let (layout, event_idx) = (layout(features), features.contains(Features::EVENT_IDX));
        let suppression = DeviceSuppression::new(&self.memory(layout)?, layout, self.size, event_idx);
        let suppression = suppression.map_err(|error| Error::Layout(error.to_string()))?;
        Ok(Arc::new(Doorbell::new(suppression, self.kick.clone(), notice.clone())))
    }

    /// Returns the address of a transmit ring's zero header.
    pub(crate) fn header(&self) -> u64 {
        self.base().wrapping_add(ring_bytes(self.size) as u64)
    }

    fn config(&self, features: Features) -> DriverConfig {
        let tables = self.id.role() == Role::Transmit && features.contains(Features::INDIRECT_DESC);
        DriverConfig::default()
            .size(self.size)
            .event_idx(features.contains(Features::EVENT_IDX))
            .indirect(if tables { self.tables() } else { None })
    }

    /// Returns the parts from which tests make a driver half.
    #[cfg(test)]
    pub(crate) fn for_test(&self, features: Features) -> (RingMemory, DriverConfig) {
        (self.memory(layout(features)).expect("a ring"), self.config(features))
    }

    fn tables(&self) -> Option<IndirectTables> {
        let entries = TABLE.min(self.size);
        let at = ring_bytes(self.size).saturating_add(ALIGN);
        // SAFETY: the paths made from this memory are dropped before the zone is (see `Session`); it is
        // reached through shared cells only.
        let memory = unsafe { self.zone.bytes() }.slice(at, IndirectTables::bytes(self.size, entries))?;
        Some(IndirectTables { memory, addr: self.base().wrapping_add(at as u64), entries })
    }
}

const _: () =
    assert!(header_len(true) as usize <= ALIGN && LONGEST <= COMMAND && COMMAND.is_multiple_of(ALIGN));

/// Returns the bytes of a ring in the larger layout, since the layout is unknown until a backend connects.
fn ring_bytes(size: u16) -> usize {
    let split = if size.is_power_of_two() { Layout::Split.bytes(size) } else { 0 };
    split.max(Layout::Packed.bytes(size)).next_multiple_of(ALIGN)
}

/// The reasons why a ring's memory cannot be created.
pub(crate) enum RingError {
    Memory(linecard_eal::Error),
    Event(std::io::Error),
}

/// A data path and its readable name.
pub(crate) type Named<P> = (Box<P>, &'static str);

/// Creates the receive path for the negotiated features; the only place that selects it.
pub(crate) fn rx_path(
    zone: &RingZone,
    features: Features,
    parts: RxParts,
) -> Result<Named<dyn RxPath>, Error> {
    fn with<Q: DriverQueue + 'static>(
        queue: Made<Q>,
        features: Features,
        parts: RxParts,
    ) -> Result<Box<dyn RxPath>, Error> {
        let queue = queue.map_err(|error| Error::Layout(error.to_string()))?;
        let has = |feature| features.contains(feature);
        let offload = has(Features::NET_GUEST_CSUM);
        Ok(match (has(Features::NET_MRG_RXBUF), offload, has(Features::NET_HASH_REPORT)) {
            (false, false, false) => Box::new(Rx::<Q, false, false, false>::new(queue, parts)),
            (false, true, false) => Box::new(Rx::<Q, false, true, false>::new(queue, parts)),
            (true, false, false) => Box::new(Rx::<Q, true, false, false>::new(queue, parts)),
            (true, true, false) => Box::new(Rx::<Q, true, true, false>::new(queue, parts)),
            (false, _, true) => Box::new(Rx::<Q, false, true, true>::new(queue, parts)),
            (true, _, true) => Box::new(Rx::<Q, true, true, true>::new(queue, parts)),
        })
    }
    let (layout, config) = (layout(features), zone.config(features));
    let memory = zone.memory(layout)?;
    let path = match (layout, features.contains(Features::IN_ORDER)) {
        (Layout::Split, false) => with(split::Driver::<false, true>::new(&memory, config), features, parts),
        (Layout::Split, true) => with(split::Driver::<true, true>::new(&memory, config), features, parts),
        (Layout::Packed, false) => with(packed::Driver::<false, true>::new(&memory, config), features, parts),
        (Layout::Packed, true) => with(packed::Driver::<true, true>::new(&memory, config), features, parts),
    };
    let has = |feature| features.contains(feature);
    Ok((path?, features.path_name(has(Features::NET_MRG_RXBUF), has(Features::NET_GUEST_CSUM))))
}

/// Creates the transmit path for the negotiated features.
pub(crate) fn tx_path(
    zone: &RingZone,
    features: Features,
    parts: TxParts,
) -> Result<Named<dyn TxPath>, Error> {
    fn with<Q: DriverQueue + 'static>(
        queue: Made<Q>,
        features: Features,
        parts: TxParts,
    ) -> Result<Box<dyn TxPath>, Error> {
        let queue = queue.map_err(|error| Error::Layout(error.to_string()))?;
        let has = |feature| features.contains(feature);
        Ok(match (has(Features::NET_CSUM), has(Features::NET_HASH_REPORT)) {
            (false, false) => Box::new(Tx::<Q, false, false>::new(queue, parts)),
            (true, false) => Box::new(Tx::<Q, true, false>::new(queue, parts)),
            (_, true) => Box::new(Tx::<Q, true, true>::new(queue, parts)),
        })
    }
    let (layout, config) = (layout(features), zone.config(features));
    let memory = zone.memory(layout)?;
    let path = match (layout, features.contains(Features::IN_ORDER)) {
        (Layout::Split, false) => with(split::Driver::<false, false>::new(&memory, config), features, parts),
        (Layout::Split, true) => with(split::Driver::<true, false>::new(&memory, config), features, parts),
        (Layout::Packed, false) => {
            with(packed::Driver::<false, false>::new(&memory, config), features, parts)
        }
        (Layout::Packed, true) => with(packed::Driver::<true, false>::new(&memory, config), features, parts),
    };
    Ok((path?, features.path_name(false, features.contains(Features::NET_CSUM))))
}

type Made<Q> = Result<Q, linecard_virtio::Error>;
