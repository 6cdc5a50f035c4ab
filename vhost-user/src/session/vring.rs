//! One ring as the frontend has configured it.

use linecard_eal::shared::SharedBytes;
use linecard_virtio::{DeviceConfig, Features, Layout, RingMemory, layout};
use linecard_wire::payload::{PackedBase, VringAddr};

use super::iotlb::{Area, Translations, areas};
use crate::error::Refusal;
use crate::event::Event;
use crate::memory::{MemoryMap, is_available};
use std::sync::Arc;

/// The frontend's settings of one ring; the running ring is elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Vring {
    pub(crate) size: Option<u16>,
    pub(crate) addr: Option<VringAddr>,
    pub(crate) base: u32,
    /// The position at which this backend stopped the ring.
    pub(crate) stopped_at: Option<u32>,
    /// `SET_VRING_KICK` was received, with or without a descriptor: the ring is started.
    pub(crate) started: bool,
    /// The eventfd that the frontend signals after it has made buffers available. Polled rings do not need
    /// it.
    pub(crate) kick: Option<Event>,
    pub(crate) call: Option<Arc<Event>>,
    pub(crate) error: Option<Arc<Event>>,
    pub(crate) enabled: bool,
    /// The ring is started but its areas are not translated yet: where it will begin, and whether it is
    /// faulted.
    pub(crate) waits: Option<(Start, bool)>,
}

/// The position at which a ring begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// At the position that the frontend set, or after it if that is out of date.
    AsTold,
    /// At the position shown by the memory and record of a killed process: the position that the frontend set
    /// is out of date.
    AfterKill,
    /// At the position where this session stopped it, regardless of the ring's memory.
    WhereItStood,
}

impl Vring {
    /// Resets everything except the notification descriptors, which frontends set only once.
    pub(crate) fn reset(&mut self) {
        let (call, error) = (self.call.take(), self.error.take());
        *self = Self { call, error, ..Self::default() };
    }
}

/// The layout that `features` select.
pub(crate) fn layout_of(features: Features) -> Layout {
    if features.contains(Features::RING_PACKED) { Layout::Packed } else { Layout::Split }
}

/// The areas, in this process, of a ring of `size` at `addr`; `None` while one of them has no translation.
/// Without `translations`, addresses are in the frontend's address space.
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
            // A range can only be translated if it ends within the address space, and the area must be
            // aligned.
            Some(Area::Missing(_)) if addr.checked_add(len as u64).is_none() => return Err(refused()),
            Some(Area::Missing(_)) if !addr.is_multiple_of(align as u64) => return Err(refused()),
            Some(Area::Missing(_)) => continue,
        };
        if !found.as_ptr().addr().is_multiple_of(align) {
            return Err(refused());
        }
        // SAFETY: the map keeps the range mapped, and the ring keeps the map (translations lead into the same
        // map). This process accesses the range only through shared cells.
        *place = Some(unsafe { SharedBytes::new(found, len) });
    }
    let [Some(desc), Some(driver), Some(device)] = places else { return Ok(None) };
    Ok(Some(RingMemory { desc, driver, device }))
}

/// Names of a ring's areas, in messages.
const AREAS: [&str; 3] = ["descriptor", "driver", "device"];

/// The configuration of the device half: its position and options.
pub(crate) fn device_config(base: u32, size: u16, features: Features) -> DeviceConfig {
    DeviceConfig::default()
        .size(size)
        .event_idx(features.contains(Features::EVENT_IDX))
        .indirect(features.contains(Features::INDIRECT_DESC))
        .base(base)
}

/// The start position of a ring in the form of [`DeviceConfig`], from `base` of SET_VRING_BASE.
pub(crate) fn told_base(base: u32, layout: Layout, size: u16, memory: &RingMemory) -> Result<u32, Refusal> {
    match layout {
        Layout::Split => Ok(split_base(base, memory)),
        Layout::Packed => packed_base(base, size, memory),
    }
}

/// A split ring continues after the buffers that its used ring marks as finished.
///
/// This backend completes all buffers that it takes, so both positions agree after a clean stop. After a
/// backend crashed, frontends start at 0 or at an old position; only the used index in shared memory is then
/// correct. If a backend took more buffers than it finished, the others are taken again.
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

/// A packed ring also continues after the finished buffers, if the previous device had taken more than those:
/// the others are still available in the ring. Some frontends (DPDK's) set no position of finished buffers;
/// it is zero then, where nothing is available.
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

/// Whether a device has already used descriptors of this packed ring from `base` on, so that `base` is not
/// the driver's position.
///
/// A packed ring has no used index, only the flags of its descriptors. A descriptor that waits to be used in
/// this lap never has the flag `USED` like a used one, and the descriptor before it never has it as in the
/// next lap. In an unused ring (`base` 0 in the first lap), no driver has set the flag either: it does so
/// from its second lap on. One false alarm is possible: a ring that another connection stopped after an even
/// number of whole laps is at 0 in a lap like the first.
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

/// Checks that `size` is possible in some layout. The rule of the layout itself is checked at the start.
pub(crate) fn check_size(size: u32) -> Result<u16, Refusal> {
    let max = layout::MAX_SIZE;
    u16::try_from(size)
        .ok()
        .filter(|size| (1..=max).contains(size))
        .ok_or(Refusal::RingSize { asked: size, max })
}

#[cfg(test)]
mod tests;
