//! The arithmetic of notification suppression on wrapping indices.

/// The number of entries that one half has published since its last decision to notify, on which
/// `kick_needed` and `call_needed` of both formats are based.
///
/// It is a saturating count, not the index of the last decision: a half whose peer polls may publish 65 536
/// entries without a decision, after which the index would be the same as before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PublishedCount {
    moved: u32,
}

impl PublishedCount {
    /// Nothing was published.
    pub(crate) const fn new() -> Self {
        Self { moved: 0 }
    }

    /// `moved` entries were published.
    pub(crate) const fn of(moved: u32) -> Self {
        Self { moved }
    }

    /// The entries published since the last decision, at most `u32::MAX`.
    #[inline(always)]
    pub(crate) const fn moved(self) -> u32 {
        self.moved
    }

    /// Adds `entries` entries (slots of a packed ring) that became visible to the other side.
    #[inline(always)]
    pub(crate) const fn published(&mut self, entries: u16) {
        self.moved = self.moved.saturating_add(entries as u32);
    }

    /// Resets the count after a decision.
    #[inline(always)]
    pub(crate) const fn asked(&mut self) {
        self.moved = 0;
    }

    /// Whether anything was published.
    #[inline(always)]
    pub(crate) const fn any(self) -> bool {
        self.moved != 0
    }

    /// Split: whether the index passed `event` on its way to `new`.
    #[inline(always)]
    pub(crate) const fn passed(self, event: u16, new: u16) -> bool {
        need_event(event, new, self.moved)
    }

    /// Packed: whether the position passed `event` on its way to slot `new` of the lap with this wrap
    /// counter.
    #[inline(always)]
    pub(crate) const fn passed_in_lap(self, event: u16, new: u16, new_wrap: bool, size: u16) -> bool {
        // The event is at most a lap behind: otherwise the other side would have consumed the entry that it
        // waits for.
        let moved = if self.moved < size as u32 { self.moved as u16 } else { size };
        packed_need_event(event, new, new_wrap, moved, size)
    }
}

/// Whether an index that advanced by `moved` entries to `new` passed `event`. This is the specification's
/// `vring_need_event`, with a distance instead of the old index.
///
/// `event` and `new` wrap at 2¹⁶. `moved` does not: from 65 536 on, every event was passed. `moved == 0`
/// never requires a notification. (virtio 1.3, Virtqueue Interrupt Suppression and Available Buffer
/// Notification Suppression.)
///
/// ```
/// use linecard_virtio::event::need_event;
/// assert!(need_event(5, 6, 1)); // the peer waits for entry 5, and entry 5 was just published
/// assert!(!need_event(6, 6, 1)); // it waits for entry 6
/// assert!(need_event(65_535, 0, 1));
/// assert!(need_event(6, 6, 65_536)); // that was entry 6 of the lap before
/// ```
#[must_use]
#[inline]
pub const fn need_event(event: u16, new: u16, moved: u32) -> bool {
    (new.wrapping_sub(event).wrapping_sub(1) as u32) < moved
}

/// As [`need_event`], for a packed ring: positions count `0..size` and a wrap counter flips at each lap.
///
/// `event` is a slot with its wrap counter in bit 15, as in the event suppression structure; `new` and
/// `new_wrap` are the position after the move of `moved` slots (at most `size`). An event slot outside the
/// ring never matches. (virtio 1.3, Event Suppression Structure Format.)
///
/// ```
/// use linecard_virtio::event::packed_need_event;
/// // a ring of 5: from slot 4 of one lap to slot 1 of the next; the peer waits for slot 0 of the next lap (wrap 0)
/// assert!(packed_need_event(0, 1, false, 2, 5));
/// assert!(!packed_need_event(1, 1, false, 2, 5));
/// ```
#[must_use]
#[inline]
pub const fn packed_need_event(event: u16, new: u16, new_wrap: bool, moved: u16, size: u16) -> bool {
    let slot = event & 0x7fff;
    let wrap = event & 0x8000 != 0;
    if slot >= size {
        return false;
    }
    // The forward distance from the event to the new position. The event itself is one of the slots.
    let distance = if wrap == new_wrap {
        if slot >= new {
            return false;
        }
        new.wrapping_sub(slot)
    } else {
        // The event lies in the previous lap.
        new.wrapping_add(size).wrapping_sub(slot)
    };
    distance <= moved
}

#[cfg(test)]
mod tests {
    use super::{PublishedCount, need_event, packed_need_event};

    #[test]
    fn table() {
        let rows = [
            (0, 1, 1, true),
            (0, 0, 0, false),
            (5, 6, 1, true),
            (5, 5, 1, false),
            (4, 6, 1, false),
            (65_528, 0, 8, true),
            (65_535, 0, 8, true),
            (65_527, 0, 8, false),
            (0, 0, 8, false),
            (65_535, 65_535, 0, false),
            (100, 32_868, 32_768, true),
            (0, 0, 65_535, false),
            (0, 0, 65_536, true),
            (5, 4, 65_535, true),
            (7, 7, u32::MAX, true),
        ];
        for (event, new, moved, want) in rows {
            assert_eq!(need_event(event, new, moved), want, "event {event} new {new} moved {moved}");
        }
    }

    /// Single steps notify exactly at the entry after `event`, and a jump is the union of its steps.
    #[test]
    fn a_jump_is_the_union_of_its_steps() {
        for old in [0u16, 1, 32_767, 32_768, 65_500, 65_535] {
            for event in (0..=u16::MAX).step_by(if cfg!(miri) { 4_099 } else { 1 }) {
                let mut any = false;
                for n in 1..=40u16 {
                    let (before, new) = (old.wrapping_add(n - 1), old.wrapping_add(n));
                    any |= need_event(event, new, 1);
                    assert_eq!(need_event(event, new, u32::from(n)), any);
                    assert_eq!(need_event(event, new, 1), event == before);
                }
            }
        }
    }

    #[test]
    fn a_count_does_not_come_round() {
        let mut notify = PublishedCount::new();
        assert!(!notify.any());
        for _ in 0..65_536 + 3 {
            notify.published(u16::MAX);
            assert!(notify.any());
        }
        notify.published(1);
        assert!(notify.any() && notify.passed(0, 0) && notify.passed_in_lap(0x8000, 0, false, 5));
        notify.asked();
        assert!(!notify.any() && !notify.passed(0, 0) && !notify.passed_in_lap(0x8000, 0, false, 5));
    }

    #[test]
    fn packed_agrees_with_counting_slots() {
        for size in [1u16, 2, 3, 5, 7, 8] {
            for start in 0..2 * size {
                for moved in 0..=size {
                    check_packed(size, start, moved);
                }
            }
        }
    }

    fn check_packed(size: u16, start: u16, moved: u16) {
        let lap = |p: u16| (p % size, (p / size).is_multiple_of(2));
        let (new, wrap) = lap(start + moved);
        let passed: Vec<u16> = (start..start + moved).map(lap).map(|(s, w)| s | u16::from(w) << 15).collect();
        for slot in 0..size {
            for event in [slot, slot | 0x8000] {
                let want = passed.contains(&event);
                assert_eq!(
                    packed_need_event(event, new, wrap, moved, size),
                    want,
                    "{size} {start} {moved} {event:x}"
                );
            }
        }
        assert!(!packed_need_event(size, new, wrap, moved, size));
    }
}
