//! Domains: memory that is shared with a peer as a whole or not at all.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::MemoryConfig;
use super::account::Account;
use super::event::{Listeners, SegmentEvent, Subscription};
use super::map::{self, Reservation};
use super::page::{GRANULE, PageKind};
use super::segment::{Placement, Segment};
use super::space::Space;
use super::zone::Zone;
use crate::error::{Error, Result};

/// Zones start and end at a cache line, so that two zones never share one.
const LINE: usize = 64;

/// A reserved address range that grows by segments, which are divided into zones. A port shares the segments
/// of its domain with its peer, and no other memory.
///
/// Memory grows by whole segments of at least 2 MiB ([separate](super::Memory::separate) domains: less);
/// small zones share them. A segment without zones is released, except for one of 2 MiB that is kept for the
/// next zone.
///
/// ```
/// use linecard_eal::{Memory, MemoryConfig};
///
/// let domain = Memory::new(MemoryConfig::default()).unwrap().domain("ports").unwrap();
/// domain.reserve(3 << 20).unwrap();
/// let _ring = domain.zone("ring", 16 << 10, 4096).unwrap();
/// let pool = domain.zone("pool", 2 << 20, 64).unwrap();
/// assert_eq!(domain.segments().len(), 1);
/// assert!(domain.contains(pool.ptr().as_ptr(), pool.len()));
/// ```
#[derive(Debug)]
pub struct Domain {
    name: String,
    config: MemoryConfig,
    /// The lengths of segments are multiples of this and of their page size.
    granule: usize,
    account: Arc<Account>,
    range: Arc<Reservation>,
    listeners: Arc<Listeners>,
    slots: Mutex<Vec<SegmentSpace>>,
}

/// A segment and its free ranges. The list of segments is ordered by address.
#[derive(Debug)]
struct SegmentSpace {
    segment: Arc<Segment>,
    space: Space,
    /// Whether listeners were notified; zones are placed only afterwards.
    announced: bool,
    /// Requested by `reserve` and not used yet: kept although it is empty.
    reserved: bool,
}

impl Domain {
    pub(super) fn new(name: &str, config: &MemoryConfig, account: &Arc<Account>) -> Result<Arc<Self>> {
        Self::of_granule(GRANULE, name, config, account)
    }

    /// Creates a domain whose segments are no larger than necessary.
    pub(super) fn small(name: &str, config: &MemoryConfig, account: &Arc<Account>) -> Result<Arc<Self>> {
        Self::of_granule(PageKind::Small.bytes(), name, config, account)
    }

    fn of_granule(
        granule: usize,
        name: &str,
        config: &MemoryConfig,
        account: &Arc<Account>,
    ) -> Result<Arc<Self>> {
        let action = || format!("reserve addresses for domain \"{name}\"");
        let range =
            Reservation::new(config.range).map_err(|e| Error::addresses(action(), map::SMALLEST, e))?;
        Ok(Arc::new(Self {
            name: name.into(),
            config: config.clone(),
            granule,
            account: Arc::clone(account),
            range: Arc::new(range),
            listeners: Arc::default(),
            slots: Mutex::default(),
        }))
    }

    /// The name within its [`Memory`](super::Memory).
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Allocates `len` zeroed, contiguous bytes at a multiple of `align` (a power of two up to 1 GiB), from
    /// the first gap that fits or else from a new segment. The kernel allocates the memory in this call: a
    /// zone's pages are present.
    ///
    /// # Errors
    /// [`Error::ZoneLength`], [`Error::Alignment`]; and if a new segment cannot be allocated
    /// [`Error::Limit`], [`Error::Unavailable`], [`Error::Hugepages`], [`Error::Range`], [`Error::System`].
    pub fn zone(self: &Arc<Self>, label: &str, len: usize, align: usize) -> Result<Zone> {
        let (room, align) = self.check(label, len, align)?;
        let placed = self.place(room, align);
        let (segment, start) = match placed {
            Some(placed) => placed,
            None => self.grow_and_place(room, align)?,
        };
        Ok(Zone::new(label, Arc::clone(self), segment, start, room, len))
    }

    /// Makes room in one segment for zones of `len` bytes in total, including padding, so that the peer sees
    /// few regions. A segment that this call creates stays until a zone was placed in it and all its zones
    /// are dropped.
    ///
    /// # Errors
    /// As for [`zone`](Self::zone).
    pub fn reserve(self: &Arc<Self>, len: usize) -> Result<()> {
        let (room, _) = self.check("reserve", len, 1)?;
        if self.slots().iter().any(|slot| slot.announced && slot.space.longest() >= room) {
            return Ok(());
        }
        let segment = self.grow(room)?;
        self.announce(&segment, |slot| slot.reserved = true);
        Ok(())
    }

    /// The current segments, ordered by address.
    #[must_use]
    pub fn segments(&self) -> Vec<Arc<Segment>> {
        self.slots().iter().map(|slot| Arc::clone(&slot.segment)).collect()
    }

    /// Calls `listener` for every segment added or removed from now on, on the thread that caused it and
    /// without holding a lock. `Added` comes before the first zone of the segment is returned. To learn of
    /// all segments, subscribe first and then call [`segments`](Self::segments): a segment may be seen twice,
    /// but none is missed.
    pub fn subscribe(&self, listener: Box<dyn Fn(&SegmentEvent) + Send + Sync>) -> Subscription {
        self.listeners.add(listener)
    }

    /// Whether all `len` bytes from `ptr` on are in one segment.
    #[must_use]
    pub fn contains(&self, ptr: *const u8, len: usize) -> bool {
        let Some(start) = ptr.addr().checked_sub(self.base().addr()) else { return false };
        let Some(end) = start.checked_add(len) else { return false };
        self.slots().iter().map(|s| &s.segment).any(|s| s.start() <= start && end <= s.start() + s.len())
    }

    /// The worst page kind of its segments; `None` without segments.
    #[must_use]
    pub fn page_kind(&self) -> Option<PageKind> {
        self.slots().iter().map(|slot| slot.segment.page()).max()
    }

    /// The start of the reserved range: no segment is below it.
    #[must_use]
    pub fn base(&self) -> *mut u8 {
        self.range.base()
    }

    /// The length of the reserved range: no segment is at or above `base() + range()`.
    #[must_use]
    pub fn range(&self) -> usize {
        self.range.len()
    }

    /// Releases segments without zones, including reserved and spare ones; returns their total length in
    /// bytes.
    pub fn trim(&self) -> usize {
        let empty: Vec<_> = self.slots().extract_if(.., |slot| slot.announced && slot.is_empty()).collect();
        let bytes = empty.iter().map(|slot| slot.segment.len()).sum();
        for slot in empty {
            self.listeners.tell(&SegmentEvent::Removed(slot.segment));
        }
        bytes
    }

    /// Frees a zone's bytes.
    pub(super) fn release(&self, start: usize, room: usize) {
        self.account.zone_given(room);
        let removed = {
            let mut slots = self.slots();
            let holds = |slot: &SegmentSpace| (slot.segment.start()..slot.end()).contains(&start);
            let Some(index) = slots.iter().position(holds) else { return };
            slots[index].space.give(start, room);
            removable(&slots, index).then(|| slots.remove(index))
        };
        if let Some(slot) = removed {
            self.listeners.tell(&SegmentEvent::Removed(slot.segment));
        }
    }

    fn check(&self, label: &str, len: usize, align: usize) -> Result<(usize, usize)> {
        let max = self.range.align();
        if !align.is_power_of_two() || align > max {
            return Err(Error::Alignment { label: label.into(), asked: align, max });
        }
        let max = self.range.len();
        let room = len.checked_next_multiple_of(LINE).filter(|room| (1..=max).contains(room));
        let room = room.ok_or_else(|| Error::ZoneLength { label: label.into(), asked: len, max })?;
        Ok((room, align.max(LINE)))
    }

    /// Places a zone in the first gap that fits, in a segment that listeners know.
    fn place(&self, room: usize, align: usize) -> Option<(Arc<Segment>, usize)> {
        self.slots()
            .iter_mut()
            .filter(|slot| slot.announced)
            .find_map(|slot| self.place_in(slot, room, align))
    }

    fn place_in(&self, slot: &mut SegmentSpace, room: usize, align: usize) -> Option<(Arc<Segment>, usize)> {
        let start = slot.space.take(room, align)?;
        slot.reserved = false;
        self.account.zone_taken(room);
        Some((Arc::clone(&slot.segment), start))
    }

    fn grow_and_place(&self, room: usize, align: usize) -> Result<(Arc<Segment>, usize)> {
        // A segment starts at a multiple of 2 MiB, so only larger alignments need padding.
        let padding = align.saturating_sub(GRANULE);
        let segment = self.grow(room.saturating_add(padding))?;
        let placed = self.announce(&segment, |slot| self.place_in(slot, room, align));
        placed.flatten().ok_or_else(|| Error::Range {
            domain: self.name.clone(),
            asked: room,
            range: self.range.len(),
        })
    }

    /// Creates a segment without zones in the list. If memory is short, empty segments are released first.
    fn grow(&self, len: usize) -> Result<Arc<Segment>> {
        let place = Placement { range: &self.range, domain: &self.name, granule: self.granule };
        let new = || Segment::new(place, &self.config, len, &self.account);
        let segment = match new() {
            Err(error) if self.trim() == 0 => return Err(error),
            Err(_) => new()?,
            Ok(segment) => segment,
        };
        let start = segment.start();
        let space = Space::new(start, segment.len());
        let segment = Arc::new(segment);
        let slot = SegmentSpace { segment: Arc::clone(&segment), space, announced: false, reserved: false };
        let mut slots = self.slots();
        let index = slots.partition_point(|slot| slot.segment.start() < start);
        slots.insert(index, slot);
        Ok(segment)
    }

    /// Notifies the listeners of `segment`, then opens it for zones and calls `first`.
    fn announce<T>(&self, segment: &Arc<Segment>, first: impl FnOnce(&mut SegmentSpace) -> T) -> Option<T> {
        self.listeners.tell(&SegmentEvent::Added(Arc::clone(segment)));
        let mut slots = self.slots();
        let slot = slots.iter_mut().find(|slot| Arc::ptr_eq(&slot.segment, segment))?;
        slot.announced = true;
        Some(first(slot))
    }

    fn slots(&self) -> MutexGuard<'_, Vec<SegmentSpace>> {
        // No code can panic while a change is incomplete.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SegmentSpace {
    fn end(&self) -> usize {
        self.segment.start() + self.segment.len()
    }

    fn is_empty(&self) -> bool {
        self.space.free() == self.segment.len()
    }
}

/// Whether the slot is empty and not worth keeping. One empty segment of the smallest size is kept, because
/// small zones are allocated and freed often.
fn removable(slots: &[SegmentSpace], index: usize) -> bool {
    let Some(slot) = slots.get(index) else { return false };
    let spare = |other: &SegmentSpace| other.is_empty() && other.segment.len() == GRANULE;
    let first_spare = spare(slot) && !slots.iter().enumerate().any(|(i, other)| i != index && spare(other));
    slot.is_empty() && !slot.reserved && !first_spare
}
