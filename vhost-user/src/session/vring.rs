//! One ring as the frontend has described it.

use linecard_eal::shared::SharedBytes;
use linecard_virtio::{DeviceConfig, Features, Layout, RingMemory, layout};
use linecard_wire::payload::{PackedBase, VringAddr};

use super::iotlb::{Area, Translations, areas};
use crate::error::Refusal;
use crate::event::Event;
use crate::memory::{MemoryMap, is_available};
use std::sync::Arc;

/// What the frontend said about one ring; nothing here runs.
#[derive(Debug, Default)]
pub(crate) struct Vring {
    pub(crate) size: Option<u16>,
    pub(crate) addr: Option<VringAddr>,
    pub(crate) base: u32,
    /// Where we stood when we stopped it.
    pub(crate) stopped_at: Option<u32>,
    /// `SET_VRING_KICK` came, with or without a descriptor: the ring is started.
    pub(crate) started: bool,
    /// What the frontend signals when it has made something available; rings that are polled need it not.
    pub(crate) kick: Option<Event>,
    pub(crate) call: Option<Arc<Event>>,
    pub(crate) error: Option<Arc<Event>>,
    pub(crate) enabled: bool,
    /// It is started and cannot run before its areas are translated; where it begins then, and whether it is faulted.
    pub(crate) waits: Option<(Start, bool)>,
}

/// Where a ring begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// At the position that the frontend has told, or behind it if that is long past.
    AsTold,
    /// Where its memory and its record say that a process stood which was killed: what was told is of the past.
    AfterKill,
    /// Where we have left it: what its memory says does not count.
    WhereItStood,
}

impl Vring {
    /// Forgets everything but the notification descriptors that frontends set once.
    pub(crate) fn reset(&mut self) {
        let (call, error) = (self.call.take(), self.error.take());
        *self = Self { call, error, ..Self::default() };
    }
}

/// The layout that `features` select.
pub(crate) fn layout_of(features: Features) -> Layout {
    if features.contains(Features::RING_PACKED) { Layout::Packed } else { Layout::Split }
}

/// Where the areas of a ring of `size` at `addr` are in this process; `None` while one of them has no translation. Without
/// `translations`, addresses are the frontend's own.
pub(crate) fn ring_memory(
    index: usize,
    addr: &VringAddr,
    (layout, size): (Layout, u16),
    map: &MemoryMap,
    translations: Option<&Translations>,
) -> Result<Option<RingMemory>, Refusal> {
    let mut places = [None; 3];
    let parts = areas(addr, layout, size).into_iter().zip(layout.alignment()).zip(AREAS);
    for (place, (((addr, len, access), align), area)) in places.iter_mut().zip(parts) {
        let refused = || Refusal::RingAddress { index, area, addr, len };
        let found = match translations.map(|known| known.area(addr, len as u64, access)) {
            None => map.translate_user(addr, len as u64).ok_or_else(refused)?,
            Some(Area::Here(found)) => found,
            Some(Area::Nowhere) => return Err(refused()),
            // It can be told as much of a range that ends, and begins where such an area may.
            Some(Area::Missing(_)) if addr.checked_add(len as u64).is_none() => return Err(refused()),
            Some(Area::Missing(_)) if !addr.is_multiple_of(align as u64) => return Err(refused()),
            Some(Area::Missing(_)) => continue,
        };
        if !found.as_ptr().addr().is_multiple_of(align) {
            return Err(refused());
        }
        // SAFETY: the map keeps the range mapped and the ring keeps the map (translations lead into the same one); all access
        // from this process goes through shared cells.
        *place = Some(unsafe { SharedBytes::new(found, len) });
    }
    let [Some(desc), Some(driver), Some(device)] = places else { return Ok(None) };
    Ok(Some(RingMemory { desc, driver, device }))
}

/// Names of a ring's areas, for messages.
const AREAS: [&str; 3] = ["descriptor", "driver", "device"];

/// How the device half is made: where it starts, and with which options.
pub(crate) fn device_config(base: u32, size: u16, features: Features) -> DeviceConfig {
    DeviceConfig::default()
        .size(size)
        .event_idx(features.contains(Features::EVENT_IDX))
        .indirect(features.contains(Features::INDIRECT_DESC))
        .base(base)
}

/// The position at which a ring starts, given `base` of SET_VRING_BASE, in the form that [`DeviceConfig`] takes.
pub(crate) fn told_base(base: u32, layout: Layout, size: u16, memory: &RingMemory) -> Result<u32, Refusal> {
    match layout {
        Layout::Split => Ok(split_base(base, memory)),
        Layout::Packed => packed_base(base, size, memory),
    }
}

/// A split ring goes on behind what its used ring says is finished.
///
/// We complete everything we take, so after a clean stop both positions agree. After a backend that died,
/// frontends start at 0 or at an old position; the used index in shared memory is then the only truth. After one that
/// takes more than it has finished, what it had taken is taken once more.
fn split_base(base: u32, memory: &RingMemory) -> u32 {
    const USED_IDX: usize = 2;
    let used =
        memory.device.cell::<u16>(USED_IDX).map_or(0, |cell| cell.load(std::sync::atomic::Ordering::Acquire));
    let used = u32::from(used);
    if used != base {
        tracing::debug!(base, used, "ring position differs from its used index; going on at the used index");
    }
    used
}

/// A packed ring goes on behind what is finished too, if the device before took more than that: what it had taken is still
/// in the ring then, as available as it was. Some frontends (DPDK's) tell no position of what is finished; zeros stand there,
/// where nothing is available.
fn packed_base(base: u32, size: u16, memory: &RingMemory) -> Result<u32, Refusal> {
    let told = PackedBase::from_u32(base);
    if told.avail >= size {
        return Err(Refusal::RingBase { asked: base, size });
    }
    let finished = (told.used, told.used_wrap);
    let taken = finished != (told.avail, told.avail_wrap) && told.used < size;
    let (avail, avail_wrap) = match taken && is_available(memory, finished).unwrap_or(false) {
        true => finished,
        false => (told.avail, told.avail_wrap),
    };
    Ok(PackedBase { avail, avail_wrap, used: avail, used_wrap: avail_wrap }.to_u32())
}

/// Whether a device has used descriptors of this packed ring from `base` on already, so that `base` is not where its driver
/// stands.
///
/// A packed ring has no used index: the flags of its descriptors are all there is. A descriptor that waits to be used in
/// this lap never has the flag `USED` as a used one has it, and the one before it never as the next lap would set it. On a
/// ring that nobody has used yet (`base` 0 in the first lap) a driver has not set it either: it does from its second lap on.
/// One false alarm is possible: a ring that another connection stopped after an even number of whole laps is at 0 in
/// a lap like the first.
pub(crate) fn ran_past(base: u32, size: u16, memory: &RingMemory) -> bool {
    let PackedBase { avail, avail_wrap, .. } = PackedBase::from_u32(base);
    let unused = (avail, avail_wrap) == (0, true);
    let before = match avail.checked_sub(1) {
        Some(index) => (index, !avail_wrap),
        None => (size.saturating_sub(1), avail_wrap),
    };
    [(avail, avail_wrap), before].into_iter().any(|(index, lap)| {
        let flags = desc_flags(memory, index);
        let has = |flag| (flags & flag != 0) == lap;
        has(layout::F_USED) && (unused || has(layout::F_AVAIL))
    })
}

/// The flags of a packed descriptor.
fn desc_flags(memory: &RingMemory, index: u16) -> u16 {
    const FLAGS: usize = 14;
    let offset = usize::from(index) * layout::DESC_BYTES + FLAGS;
    memory.desc.cell::<u16>(offset).map_or(0, |cell| cell.load(std::sync::atomic::Ordering::Acquire))
}

/// Whether `size` can be a ring size in either layout; the layout's own rule is checked at the start.
pub(crate) fn check_size(size: u32) -> Result<u16, Refusal> {
    let max = layout::MAX_SIZE;
    u16::try_from(size)
        .ok()
        .filter(|size| (1..=max).contains(size))
        .ok_or(Refusal::RingSize { asked: size, max })
}

#[cfg(test)]
mod tests;
