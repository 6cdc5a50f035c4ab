//! The arrivals of a numbered sequence: once, twice, out of order, or not at all.

/// How far a number may be behind the highest before it counts as lost.
const WINDOW: u64 = 1 << 16;

/// The arrivals of one sequence.
///
/// ```
/// let mut track = linecard_apps_common::Track::new();
/// assert!([0, 2, 1].iter().all(|number| track.arrived(*number)));
/// assert!(!track.arrived(2));
/// assert_eq!((track.unique(), track.duplicated(), track.reordered()), (3, 1, 1));
/// ```
#[derive(Debug)]
pub struct Track {
    /// One bit for each of the last [`WINDOW`] numbers.
    seen: Vec<u64>,
    /// One more than the highest number that has arrived.
    next: u64,
    unique: u64,
    duplicated: u64,
    reordered: u64,
}

impl Default for Track {
    fn default() -> Self {
        Self::new()
    }
}

impl Track {
    /// No arrivals yet.
    #[must_use]
    pub fn new() -> Self {
        Self { seen: vec![0; (WINDOW / 64) as usize], next: 0, unique: 0, duplicated: 0, reordered: 0 }
    }

    /// Records that `number` arrived; returns `true` the first time.
    #[inline]
    pub fn arrived(&mut self, number: u64) -> bool {
        if number == self.next {
            self.next = number.saturating_add(1);
            self.mark(number);
            self.unique += 1;
            return true;
        }
        self.arrived_elsewhere(number)
    }

    #[cold]
    fn arrived_elsewhere(&mut self, number: u64) -> bool {
        if number > self.next {
            // Clears the bits of older numbers that the skipped ones reuse.
            for skipped in number.saturating_sub(WINDOW).max(self.next)..number {
                self.clear(skipped);
            }
            self.next = number.saturating_add(1);
            self.mark(number);
            self.unique += 1;
            return true;
        }
        // Too old to know: it counts as a duplicate, which is the more careful assumption.
        if number.saturating_add(WINDOW) <= self.next || self.is_marked(number) {
            self.duplicated += 1;
            return false;
        }
        self.mark(number);
        self.unique += 1;
        self.reordered += 1;
        true
    }

    fn place(number: u64) -> (usize, u64) {
        let bit = number % WINDOW;
        ((bit / 64) as usize, 1 << (bit % 64))
    }

    fn mark(&mut self, number: u64) {
        let (word, bit) = Self::place(number);
        self.seen[word] |= bit;
    }

    fn clear(&mut self, number: u64) {
        let (word, bit) = Self::place(number);
        self.seen[word] &= !bit;
    }

    fn is_marked(&self, number: u64) -> bool {
        let (word, bit) = Self::place(number);
        self.seen[word] & bit != 0
    }

    /// Returns how many different numbers arrived.
    #[must_use]
    pub fn unique(&self) -> u64 {
        self.unique
    }

    /// Returns how many arrivals were repetitions.
    #[must_use]
    pub fn duplicated(&self) -> u64 {
        self.duplicated
    }

    /// Returns how many numbers first arrived after a higher one.
    #[must_use]
    pub fn reordered(&self) -> u64 {
        self.reordered
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_sequence_in_order_is_clean_for_ever() {
        let mut track = Track::new();
        for number in 0..3 * WINDOW {
            assert!(track.arrived(number));
        }
        assert_eq!((track.unique(), track.duplicated(), track.reordered()), (3 * WINDOW, 0, 0));
    }

    #[test]
    fn a_long_gap_forgets_old_marks() {
        let mut track = Track::new();
        assert!(track.arrived(0));
        assert!(track.arrived(10 * WINDOW));
        assert!(track.arrived(10 * WINDOW - 1), "the bit of an older number was cleared");
        assert!(!track.arrived(5), "too old to know");
        assert!(track.arrived(u64::MAX), "the last number there is");
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set(steps in prop::collection::vec((0..3_u8, 0..40_u64), 1..400), start in 0..2 * WINDOW) {
            let mut track = Track::new();
            let mut set = HashSet::new();
            let (mut next, mut duplicated) = (start, 0);
            for (kind, by) in steps {
                let number = match kind {
                    0 => next,
                    1 => next + by,
                    _ => next.saturating_sub(by).max(start),
                };
                let first = set.insert(number);
                prop_assert_eq!(track.arrived(number), first);
                duplicated += u64::from(!first);
                next = next.max(number + 1);
            }
            prop_assert_eq!(track.unique(), set.len() as u64);
            prop_assert_eq!(track.duplicated(), duplicated);
        }
    }
}
