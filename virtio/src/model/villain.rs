//! A ring written by hand, for tests of one wrong word and the fault that it must cause.

use core::mem::MaybeUninit;

use super::{GUEST_BASE, GUEST_BYTES, Guest, Zone};
use crate::config::{DeviceConfig, DriverConfig};
use crate::fault::PeerFault;
use crate::layout::{Layout, RingMemory};
use crate::queue::{Chain, Completion, DeviceQueue, DriverQueue, Lookahead};
use crate::segments::SegList;
use crate::sync::watched::reads;

/// A ring, a guest and their handles.
pub(crate) struct Villain {
    pub(crate) ring: RingMemory,
    pub(crate) guest: Guest,
    pub(crate) size: u16,
    _zone: Zone,
}

impl Villain {
    pub(crate) fn new(layout: Layout, size: u16) -> Self {
        let zone = Zone::new(layout.bytes(size));
        let ring = RingMemory::in_zone(zone.bytes(), layout, size).expect("large enough");
        let guest = Guest::new(GUEST_BASE, GUEST_BYTES as usize, vec![GUEST_BASE + 0x8000]);
        Self { ring, guest, size, _zone: zone }
    }

    pub(crate) fn driver(&self) -> DriverConfig {
        DriverConfig { size: self.size, ..DriverConfig::default() }
    }

    pub(crate) fn device(&self, indirect: bool) -> DeviceConfig {
        DeviceConfig { size: self.size, indirect, ..DeviceConfig::default() }
    }

    /// Writes descriptor `at`: address, length, and the two halves of the last word in memory order.
    pub(crate) fn desc(&self, at: usize, addr: u64, len: u32, low: u16, high: u16) {
        let meta = u64::from(len) | u64::from(low) << 32 | u64::from(high) << 48;
        put(&self.ring, 0, 16 * at, &addr.to_le_bytes());
        put(&self.ring, 0, 16 * at + 8, &meta.to_le_bytes());
    }

    /// Split: writes the available index.
    pub(crate) fn avail_idx(&self, idx: u16) {
        put(&self.ring, 1, 2, &idx.to_le_bytes());
    }

    /// Split: writes an event index, which one side stores after its ring for the other.
    #[cfg(not(miri))]
    pub(crate) fn used_event(&self, event: u16) {
        put(&self.ring, 1, 4 + 2 * usize::from(self.size), &event.to_le_bytes());
    }

    #[cfg(not(miri))]
    pub(crate) fn avail_event(&self, event: u16) {
        put(&self.ring, 2, 4 + 8 * usize::from(self.size), &event.to_le_bytes());
    }

    /// Split: writes one available entry.
    pub(crate) fn avail(&self, at: usize, id: u16) {
        put(&self.ring, 1, 4 + 2 * at, &id.to_le_bytes());
    }

    /// Split: writes one used element.
    pub(crate) fn used(&self, at: usize, id: u32, len: u32) {
        put(&self.ring, 2, 4 + 8 * at, &id.to_le_bytes());
        put(&self.ring, 2, 8 + 8 * at, &len.to_le_bytes());
    }

    /// Split: writes the used index.
    pub(crate) fn used_idx(&self, idx: u16) {
        put(&self.ring, 2, 2, &idx.to_le_bytes());
    }

    /// Writes an indirect table entry at guest offset `offset`.
    pub(crate) fn entry(&self, offset: usize, addr: u64, len: u32, low: u16, high: u16) {
        let meta = u64::from(len) | u64::from(low) << 32 | u64::from(high) << 48;
        let table = self.guest.bytes().slice(offset, 16).expect("inside the guest");
        table.copy_from(&[addr.to_le_bytes(), meta.to_le_bytes()].concat());
    }

    /// The device half's result for the next chain by the cold path. The fast path must give the same or
    /// refuse it.
    pub(crate) fn chain<V: DeviceQueue>(&self, mut device: V) -> Result<(u16, u32), PeerFault> {
        let mut out = [const { MaybeUninit::<Chain>::uninit() }; 4];
        let fast = device.peek(&self.guest, &mut out);
        let mut list = SegList::new();
        let head = device.peek_chain(&self.guest, Lookahead::default(), &mut list)?;
        let head = head.expect("a chain was made available");
        if let Ok(1..) = fast {
            // SAFETY: `peek` initialised the first chain.
            let chain = unsafe { out[0].assume_init() };
            assert_eq!((chain.id, 1, chain.len), (head.id, head.descs, head.len), "fast and cold path agree");
        }
        Ok((head.descs, head.len))
    }
}

/// Collects the completions of a driver half as tokens and lengths.
pub(crate) fn collect<D: DriverQueue>(driver: &mut D) -> Result<Vec<(u64, u32)>, PeerFault> {
    let mut out = [const { MaybeUninit::<Completion>::uninit() }; 8];
    let got = driver.complete(&mut out)?;
    // SAFETY: `complete` initialised the first `got`.
    let done = unsafe { out[..got].assume_init_ref() };
    Ok(done.iter().map(|c| (c.token, c.len)).collect())
}

fn put(ring: &RingMemory, area: usize, offset: usize, bytes: &[u8]) {
    let area = [ring.desc, ring.driver, ring.device][area];
    let place = area.slice(offset, bytes.len()).expect("inside the area");
    place.copy_from(bytes);
}

/// Checks that neither path reads a byte of the ring or of a table twice for one chain, so that the checked
/// value is the one that is used.
pub(crate) fn assert_single_reads<V: DeviceQueue>(v: &Villain, device: impl Fn() -> V) {
    let mut list = SegList::new();
    let mut out = [const { MaybeUninit::<Chain>::uninit() }; 4];
    let (mut fast, mut cold) = (device(), device());
    let (_, first) = reads(|| fast.peek(&v.guest, &mut out));
    let (head, second) = reads(|| cold.peek_chain(&v.guest, Lookahead::default(), &mut list));
    assert!(
        head.is_ok_and(|head| head.is_some_and(|head| head.descs == 2)),
        "the chain is followed to its end"
    );
    assert!(!first.is_empty() && second.len() > 32);
    for (at, times) in first.into_iter().chain(second) {
        assert_eq!(times, 1, "byte at {at:#x} was read {times} times");
    }
}
