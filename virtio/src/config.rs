//! Configuration of queues. A running queue has no setters.

use crate::error::Error;
use crate::layout::DESC_BYTES;
use crate::sync::SharedBytes;

/// The configuration of a driver half. Layout, direction and order are types: [`crate::split::Driver`],
/// [`crate::packed::Driver`].
///
/// ```
/// let config = linecard_virtio::DriverConfig::default().size(256);
/// assert!(!config.event_idx && config.indirect.is_none());
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct DriverConfig {
    /// The number of descriptors of the ring.
    pub size: u16,
    /// Whether EVENT_IDX was negotiated.
    pub event_idx: bool,
    /// The start position, as in `SET_VRING_BASE`; in packed rings bit 15 is the wrap counter (usually set).
    /// `None` means a new ring. The device half must start at the same position.
    pub base: Option<u32>,
    /// Memory for indirect tables, if INDIRECT_DESC was negotiated.
    pub indirect: Option<IndirectTables>,
}

linecard_eal::setters!(DriverConfig {
    size: u16,
    event_idx: bool,
    base: impl Into<Option<u32>> as into,
    indirect: impl Into<Option<IndirectTables>> as into,
});

/// Driver memory for indirect descriptor tables: one table per descriptor of the ring.
///
/// ```
/// assert_eq!(linecard_virtio::IndirectTables::bytes(256, 32), 256 * 32 * 16);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct IndirectTables {
    /// The memory, aligned to 16, at least [`IndirectTables::bytes`] long.
    pub memory: SharedBytes,
    /// The address of the memory as the device sees it.
    pub addr: u64,
    /// Descriptors per table, at most the ring size. Longer chains use direct descriptors.
    pub entries: u16,
}

impl IndirectTables {
    /// The bytes needed for a ring of `size` with tables of `entries`.
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

/// The configuration of a device half.
///
/// ```
/// let config = linecard_virtio::DeviceConfig::default().size(256).indirect(true);
/// assert_eq!(config.base, None);
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct DeviceConfig {
    /// The number of descriptors of the ring.
    pub size: u16,
    /// Whether EVENT_IDX was negotiated.
    pub event_idx: bool,
    /// Whether INDIRECT_DESC was negotiated.
    pub indirect: bool,
    /// The start position: the value of `SET_VRING_BASE` (see [`crate::DeviceQueue::base`]). `None` means a
    /// new ring.
    pub base: Option<u32>,
}

linecard_eal::setters!(DeviceConfig {
    size: u16,
    event_idx: bool,
    indirect: bool,
    base: impl Into<Option<u32>> as into,
});
