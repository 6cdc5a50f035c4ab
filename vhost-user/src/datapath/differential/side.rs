//! One side of a differential test: a guest's memory, a ring in it, and the driver half.

use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use linecard_eal::shared::SharedBytes;
use linecard_lab::contract::Prng;
use linecard_mempool::{Pool, PoolConfig};
use linecard_virtio::model::Zone;
use linecard_virtio::{
    Completion, DeviceConfig, DriverConfig, DriverQueue, Element, IndirectTables, Layout, PeerFault,
    RingMemory,
};
use linecard_wire::payload::MemoryRegion;

use super::Shape;
use crate::limits::Ledger;
use crate::memory::{MemoryMap, Region};

const GUEST: u64 = 0x40_0000;
/// Regions that are adjacent for the guest but not in this process. Most of their borders are inside a slot.
const REGION: u64 = 20 << 10;
const REGIONS: u64 = 15;
/// Each segment has its own slot, so that no two overlap. There are more slots than descriptors.
const SLOT: u64 = 6 << 10;
const SLOTS: u64 = REGION * REGIONS / SLOT;
/// The longest segment that the driver makes available.
pub(super) const LONGEST: usize = 4096;

/// The memory of a guest.
pub(super) struct Guest {
    pub(super) map: Arc<MemoryMap>,
    regions: Vec<SharedBytes>,
}

impl Guest {
    pub(super) fn new() -> Self {
        let ledger = Ledger::alone();
        let regions: Vec<_> = (0..REGIONS)
            .map(|at| {
                // SAFETY: the name is a terminated string; the result is a new descriptor.
                let fd = unsafe { libc::memfd_create(c"side".as_ptr(), libc::MFD_CLOEXEC) };
                // SAFETY: the descriptor is new and has no other owner.
                let file = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(fd) });
                file.set_len(REGION).expect("memory");
                let addr = GUEST + at * REGION;
                let spec = MemoryRegion { guest_addr: addr, size: REGION, user_addr: addr, offset: 0 };
                Arc::new(Region::map(spec, std::os::fd::AsFd::as_fd(&file), None, &ledger).expect("a region"))
            })
            .collect();
        let bytes = regions.iter().map(|region| {
            // SAFETY: the map keeps the region, and lives as long as the guest.
            unsafe { SharedBytes::new(region.start(), REGION as usize) }
        });
        let bytes = bytes.collect();
        let map = MemoryMap::new(regions);
        Self { map, regions: bytes }
    }

    /// The contiguous parts of `segments`.
    fn parts(&self, segments: &[Element], mut f: impl FnMut(SharedBytes)) {
        for segment in segments {
            let (mut addr, mut left) = (segment.addr, segment.len);
            while left > 0 {
                let (start, len): (NonNull<u8>, u32) = self.map.part(addr, left).expect("inside");
                // SAFETY: the map returned this range, and keeps it mapped.
                f(unsafe { SharedBytes::new(start, len as usize) });
                (addr, left) = (addr + u64::from(len), left - len);
            }
        }
    }

    pub(super) fn write(&self, segments: &[Element], mut bytes: &[u8]) {
        self.parts(segments, |part| {
            let now = bytes.len().min(part.len());
            part.copy_from(&bytes[..now]);
            bytes = &bytes[now..];
        });
    }

    fn read(&self, segments: &[Element], out: &mut Vec<u8>) {
        self.parts(segments, |part| {
            let at = out.len();
            out.resize(at + part.len(), 0);
            part.copy_to(&mut out[at..]);
        });
    }

    pub(super) fn bytes_of(&self, segments: &[Element]) -> Vec<u8> {
        let mut out = Vec::new();
        self.read(segments, &mut out);
        out
    }

    /// The contents of the whole memory.
    pub(super) fn image(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.read(&[Element { addr: GUEST, len: (REGION * REGIONS) as u32 }], &mut out);
        out
    }
}

/// A ring with its driver half. Each test creates the device half.
pub(super) struct Ring<D> {
    pub(super) driver: D,
    pub(super) memory: RingMemory,
    tables: SharedBytes,
    size: u16,
    _zone: Zone,
}

impl<D: DriverQueue> Ring<D> {
    pub(super) fn new<E: std::fmt::Debug>(
        shape: Shape,
        guest: &Guest,
        driver: impl Fn(&RingMemory, DriverConfig) -> Result<D, E>,
    ) -> Self {
        let zone = Zone::new(shape.layout.bytes(shape.size));
        let memory = RingMemory::in_zone(zone.bytes(), shape.layout, shape.size).expect("large enough");
        let len = IndirectTables::bytes(shape.size, shape.indirect);
        let tables = guest.regions[0].slice(0, len).expect("the first slot has room for all tables");
        let indirect = IndirectTables { memory: tables, addr: GUEST, entries: shape.indirect };
        let config = DriverConfig::default()
            .size(shape.size)
            .event_idx(false)
            .base(shape.base)
            .indirect((shape.indirect > 0).then_some(indirect));
        Self {
            driver: driver(&memory, config).expect("a driver"),
            memory,
            tables,
            size: shape.size,
            _zone: zone,
        }
    }

    pub(super) fn device_config(shape: Shape) -> DeviceConfig {
        DeviceConfig::default()
            .size(shape.size)
            .event_idx(false)
            .indirect(shape.indirect > 0)
            .base(shape.base)
    }

    /// Makes a chain available. Returns false if there is no room.
    pub(super) fn add(&mut self, segments: &[Element], token: u64) -> bool {
        self.driver.add_chain(segments, token).is_ok()
    }

    /// The completions that the device returned, and the fault that followed.
    pub(super) fn collect(&mut self) -> (Vec<Completion>, Option<PeerFault>) {
        let mut all = Vec::new();
        loop {
            let mut out = [const { MaybeUninit::<Completion>::uninit() }; 64];
            match self.driver.complete(&mut out) {
                Ok(0) => return (all, None),
                // SAFETY: `complete` initialised the first `got` completions.
                Ok(got) => all.extend_from_slice(unsafe { out[..got].assume_init_ref() }),
                Err(fault) => return (all, Some(fault)),
            }
        }
    }

    /// Corrupts one word that the driver writes, but never the available index, because the faster side reads
    /// it earlier.
    pub(super) fn spoil(&self, layout: Layout, harm: Harm) {
        let slot = usize::from(harm.at % self.size);
        let (area, offset) = match harm.what % 4 {
            0 if layout == Layout::Split => (self.memory.driver, 4 + 2 * slot),
            1 if self.tables.len() > 16 => (self.tables, usize::from(harm.at) * 2 % (self.tables.len() - 2)),
            2 => (self.memory.desc, 16 * slot + 12),
            _ => (self.memory.desc, 16 * slot + 2 * usize::from(harm.what >> 2 & 7)),
        };
        let bytes = area.slice(offset, 2).expect("inside the area");
        bytes.copy_from(&harm.value.to_le_bytes());
    }
}

/// One corrupted word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Harm {
    what: u8,
    at: u16,
    value: u16,
}

impl Harm {
    pub(super) fn random(dice: &mut Prng) -> Self {
        let value = if dice.percent(70) { dice.below(40) } else { dice.below(65_536) } as u16;
        Self { what: dice.below(256) as u8, at: dice.below(65_536) as u16, value }
    }
}

/// Assigns places to segments, the same for both sides.
pub(super) struct Places(u64);

impl Places {
    pub(super) const fn new() -> Self {
        Self(0)
    }

    /// A place for `len` bytes in the next slot, across the border of two regions if the slot contains one.
    pub(super) fn next(&mut self, len: usize, dice: &mut Prng) -> Element {
        // The first slot holds the indirect tables.
        self.0 = self.0 % (SLOTS - 1) + 1;
        let (start, room) = (self.0 * SLOT, SLOT - len as u64);
        let seam = start.next_multiple_of(REGION) - start;
        let near = seam.saturating_sub(dice.below(len + 1) as u64);
        let offset = if seam < SLOT { near.min(room) } else { dice.below(room as usize + 1) as u64 };
        Element { addr: GUEST + start + offset, len: len as u32 }
    }
}

/// A pool of packets with little room, so that chained packets are common.
pub(super) fn pool() -> Pool {
    let memory = linecard_eal::Memory::new(linecard_eal::MemoryConfig::default().range(1 << 30));
    let domain = memory.expect("memory").domain("differential").expect("a domain");
    let config = PoolConfig::default().packets(4096).data_room(256);
    Pool::new(&domain, config).expect("a pool")
}
