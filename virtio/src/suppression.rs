//! Whether a device wants a kick, according to its suppression words; for the queue itself and for a thread
//! that decides instead of it.

use crate::error::Error;
use crate::event::PublishedCount;
use crate::layout::{EVENT_DESC, EVENT_DISABLE, F_NO_NOTIFY, FLAGS, Layout, RING, RingMemory};
use crate::sync::{Relaxed, Shared, full_fence};

/// Split: whether the other side wants a notification of the entries in `notify`, which end at index `new`.
/// `flags` and `event` are that side's words; `event` is used if EVENT_IDX was negotiated.
#[inline(always)]
pub(crate) fn split_wants(
    notify: PublishedCount,
    new: u16,
    event_idx: bool,
    flags: Shared<u16>,
    event: Shared<u16>,
) -> bool {
    if event_idx {
        notify.passed(event.load(Relaxed), new)
    } else {
        notify.any() && flags.load(Relaxed) & F_NO_NOTIFY == 0
    }
}

/// Packed: whether the other side's event area requests a notification of the entries in `notify`, which end
/// at `slot` of the lap with this wrap counter.
#[inline(always)]
pub(crate) fn packed_wants(
    notify: PublishedCount,
    (slot, wrap): (u16, bool),
    event_idx: bool,
    event: Shared<u32>,
    size: u16,
) -> bool {
    let word = event.load(Relaxed);
    let flags = (word >> 16) as u16 & 3;
    if !notify.any() || flags == EVENT_DISABLE {
        return false;
    }
    // Reserved values, and an event that was not negotiated, mean "always": a missed notification is the
    // worse error.
    flags != EVENT_DESC || !event_idx || notify.passed_in_lap(word as u16, slot, wrap, size)
}

/// The entries that a driver half has published since the last
/// [`kick_needed`](crate::DriverQueue::kick_needed): how many, and up to which position. It fits one word, in
/// which the queue's thread leaves the decision to another thread ([`DeviceSuppression::kick_needed`]).
///
/// ```
/// use linecard_virtio::Unasked;
/// assert_eq!(Unasked::from_bits(Unasked::default().bits()), Unasked::default());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unasked {
    /// Bits 0 to 31: entries (slots of a packed ring). Bits 32 to 47: the index after them (packed: bit 15 is
    /// the wrap counter).
    bits: u64,
}

impl Unasked {
    #[inline(always)]
    pub(crate) const fn new(notify: PublishedCount, end: u16) -> Self {
        Self { bits: notify.moved() as u64 | (end as u64) << 32 }
    }

    /// The word; 0 if there is nothing to decide.
    #[must_use]
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.bits
    }

    /// The inverse of [`bits`](Self::bits).
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self { bits }
    }

    const fn notify(self) -> PublishedCount {
        PublishedCount::of(self.bits as u32)
    }

    const fn end(self) -> u16 {
        (self.bits >> 32) as u16
    }
}

/// The words in which a ring's device requests or suppresses kicks, for a thread that does not own the queue.
///
/// ```
/// # use core::ptr::NonNull;
/// # use linecard_eal::shared::SharedBytes;
/// use linecard_virtio::{split, Buffer, DeviceSuppression, DriverConfig, DriverQueue, Layout, RingMemory};
///
/// let mut zone = vec![0u128; Layout::Split.bytes(8) / 16];
/// # let start = NonNull::new(zone.as_mut_ptr().cast::<u8>()).unwrap();
/// // SAFETY: `zone` outlives the queue and nothing else touches it.
/// let bytes = unsafe { SharedBytes::new(start, zone.len() * 16) };
/// let ring = RingMemory::in_zone(bytes, Layout::Split, 8)?;
/// let mut tx = split::Driver::<false, false>::new(&ring, DriverConfig::default().size(8))?;
/// let device = DeviceSuppression::new(&ring, Layout::Split, 8, false)?;
///
/// ring.device.cell::<u16>(0).unwrap().store(1, std::sync::atomic::Ordering::Relaxed); // it polls (VIRTQ_USED_F_NO_NOTIFY)
/// tx.add(Buffer { addr: 0x1000, len: 60, token: 1 })?;
/// tx.publish();
/// let unasked = tx.unasked().expect("the hint says no");
/// assert!(!device.kick_needed(unasked));
/// ring.device.cell::<u16>(0).unwrap().store(0, std::sync::atomic::Ordering::Relaxed); // it goes to sleep
/// assert!(device.kick_needed(unasked));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct DeviceSuppression {
    words: Words,
    event_idx: bool,
}

#[derive(Clone, Copy, Debug)]
enum Words {
    Split { flags: Shared<u16>, avail_event: Shared<u16> },
    Packed { event: Shared<u32>, size: u16 },
}

impl DeviceSuppression {
    /// The words of a ring of `size` descriptors, and whether EVENT_IDX was negotiated.
    ///
    /// # Errors
    /// An [`Error`] for an invalid size or area.
    pub fn new(memory: &RingMemory, layout: Layout, size: u16, event_idx: bool) -> Result<Self, Error> {
        let size = layout.check_size(u32::from(size))?;
        memory.check(layout, size)?;
        let words = match layout {
            Layout::Split => {
                let event = memory.device.cell(RING + 8 * usize::from(size));
                let words = memory.device.cell(FLAGS).zip(event);
                words.map(|(flags, avail_event)| Words::Split { flags, avail_event })
            }
            Layout::Packed => memory.device.cell(0).map(|event| Words::Packed { event, size }),
        };
        let words = words.ok_or(Error::Size { layout, asked: u32::from(size) })?;
        Ok(Self { words, event_idx })
    }

    /// Whether the device must be notified of the entries in `unasked`. Executes one full fence.
    ///
    /// The calling thread must have obtained `unasked` by an acquire load of a word that the queue's thread
    /// stored with release ordering after publishing, so that the fence covers the published entries.
    #[must_use = "a kick that is not sent leaves the device asleep"]
    pub fn kick_needed(&self, unasked: Unasked) -> bool {
        // N1, pairs with N2 in the device's `set_notifications`: what was published is visible before its
        // words are read.
        full_fence();
        let (notify, end) = (unasked.notify(), unasked.end());
        match self.words {
            Words::Split { flags, avail_event } => {
                split_wants(notify, end, self.event_idx, flags, avail_event)
            }
            Words::Packed { event, size } => {
                packed_wants(notify, (end & 0x7fff, end & 0x8000 != 0), self.event_idx, event, size)
            }
        }
    }
}
