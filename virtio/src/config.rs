//! What a queue is made from. A running queue has no setters.

use crate::error::Error;
use crate::layout::{DESC_BYTES, Layout, RingMemory};
use crate::sync::SharedBytes;

/// How a driver half is set up. Layout, direction and order are types: [`crate::split::Driver`], [`crate::packed::Driver`].
///
/// ```
/// let config = linecard_virtio::DriverConfig { size: 256, ..Default::default() };
/// assert!(!config.event_idx && config.indirect.is_none());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct DriverConfig {
    /// Descriptors of the ring.
    pub size: u16,
    /// EVENT_IDX was negotiated.
    pub event_idx: bool,
    /// Where to start, as in `SET_VRING_BASE`; for packed rings bit 15 is the wrap counter (usually set). `None` is a
    /// fresh ring. The device half must start at the same place.
    pub base: Option<u32>,
    /// Memory for indirect tables, when INDIRECT_DESC was negotiated.
    pub indirect: Option<IndirectTables>,
}

/// Memory of the driver for indirect descriptor tables: one table per descriptor of the ring.
///
/// ```
/// assert_eq!(linecard_virtio::IndirectTables::bytes(256, 32), 256 * 32 * 16);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct IndirectTables {
    /// The memory, aligned to 16, at least [`IndirectTables::bytes`] long.
    pub memory: SharedBytes,
    /// Its address as the device sees it.
    pub addr: u64,
    /// Descriptors per table, at most the ring size: longer chains are laid out directly.
    pub entries: u16,
}

impl IndirectTables {
    /// Bytes needed for a ring of `size` with tables of `entries`.
    #[must_use]
    pub const fn bytes(size: u16, entries: u16) -> usize {
        size as usize * entries as usize * DESC_BYTES
    }

    pub(crate) fn check(&self, size: u16) -> Result<(), Error> {
        let need = Self::bytes(size, self.entries);
        let cells = self.memory.cells::<u64>(0, need / 8);
        if cells.is_none() || self.entries == 0 || self.entries > size {
            let len = self.memory.len();
            return Err(Error::Indirect { tables: size, entries: self.entries, len, need });
        }
        Ok(())
    }
}

/// How a device half is set up.
///
/// ```
/// let config = linecard_virtio::DeviceConfig { size: 256, indirect: true, ..Default::default() };
/// assert_eq!(config.base, None);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct DeviceConfig {
    /// Descriptors of the ring.
    pub size: u16,
    /// EVENT_IDX was negotiated.
    pub event_idx: bool,
    /// INDIRECT_DESC was negotiated.
    pub indirect: bool,
    /// Where to start: the value of `SET_VRING_BASE` (see [`crate::DeviceQueue::base`]); `None` is a fresh ring.
    pub base: Option<u32>,
}

impl RingMemory {
    /// The areas of a ring laid out by [`Layout::offsets`] in one zone.
    ///
    /// # Errors
    /// [`Error::Size`] when the layout has no such size, [`Error::Area`] when the zone is too small.
    pub fn in_zone(zone: SharedBytes, layout: Layout, size: u16) -> Result<Self, Error> {
        layout.check_size(u32::from(size))?;
        let (offsets, lens) = (layout.offsets(size), layout.areas(size));
        let need = layout.bytes(size);
        let area = |i: usize| {
            let too_small = Error::Area {
                area: "whole",
                addr: zone.as_ptr() as usize,
                len: zone.len(),
                need,
                align: 128,
            };
            zone.slice(offsets[i], lens[i]).ok_or(too_small)
        };
        Ok(Self { desc: area(0)?, driver: area(1)?, device: area(2)? })
    }
}

impl RingMemory {
    /// Are all three areas long enough and aligned?
    pub(crate) fn check(&self, layout: Layout, size: u16) -> Result<(), Error> {
        let (needs, aligns) = (layout.areas(size), layout.alignment());
        let areas = [("descriptor", self.desc), ("driver", self.driver), ("device", self.device)];
        for ((area, bytes), (need, align)) in areas.into_iter().zip(needs.into_iter().zip(aligns)) {
            let addr = bytes.as_ptr() as usize;
            if bytes.len() < need || !addr.is_multiple_of(align) {
                return Err(Error::Area { area, addr, len: bytes.len(), need, align });
            }
        }
        Ok(())
    }
}
