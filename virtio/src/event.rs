//! Notification suppression by index: the wrapping arithmetic, in one place.

/// Did moving an index from `old` to `new` step past `event`? The spec's `vring_need_event`.
///
/// All three wrap at 2¹⁶. `new == old` (nothing moved) is never a reason to notify.
/// (virtio 1.3, Virtqueue Interrupt Suppression and Available Buffer Notification Suppression.)
///
/// ```
/// use linecard_virtio::event::need_event;
/// assert!(need_event(5, 6, 5)); // the peer waits for entry 5, and entry 5 was just published
/// assert!(!need_event(6, 6, 5)); // it waits for entry 6
/// assert!(need_event(65_535, 0, 65_535));
/// ```
#[must_use]
#[inline]
pub const fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// [`need_event`] for a packed ring: positions count `0..size` and a wrap counter flips at each lap.
///
/// `event` is a slot with its wrap counter in bit 15, as in the event suppression structure; `new` and `new_wrap` are
/// the position after the move of `moved` slots (at most `size`). An event slot outside the ring never matches.
/// (virtio 1.3, Event Suppression Structure Format.)
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
    // Slots from the event to the new position, going forward: 0 when the event is exactly the next slot.
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
    use super::{need_event, packed_need_event};

    #[test]
    fn table() {
        let rows = [
            (0, 1, 0, true),
            (0, 0, 0, false),
            (5, 6, 5, true),
            (5, 5, 4, false),
            (4, 6, 5, false),
            (65_528, 0, 65_528, true),
            (65_535, 0, 65_528, true),
            (65_527, 0, 65_528, false),
            (0, 0, 65_528, false),
            (65_535, 65_535, 65_535, false),
            (100, 32_868, 100, true),
        ];
        for (event, new, old, want) in rows {
            assert_eq!(need_event(event, new, old), want, "event {event} new {new} old {old}");
        }
    }

    /// Stepping one entry at a time notifies exactly at the entry after `event`, and a jump is the union of its steps.
    #[test]
    fn a_jump_is_the_union_of_its_steps() {
        for old in [0u16, 1, 32_767, 32_768, 65_500, 65_535] {
            for event in (0..=u16::MAX).step_by(if cfg!(miri) { 4_099 } else { 1 }) {
                let mut any = false;
                for n in 1..=40u16 {
                    let (before, new) = (old.wrapping_add(n - 1), old.wrapping_add(n));
                    any |= need_event(event, new, before);
                    assert_eq!(need_event(event, new, old), any);
                    assert_eq!(need_event(event, new, before), event == before);
                }
            }
        }
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
