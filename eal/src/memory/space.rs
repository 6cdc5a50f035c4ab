//! First-fit allocation of ranges, as pure arithmetic: used for zones in a segment and segments in a domain.

use std::collections::BTreeMap;

/// Free ranges by start; adjacent ones are always merged.
#[derive(Debug, Default)]
pub(super) struct Space {
    free: BTreeMap<usize, usize>,
}

impl Space {
    /// Creates a space in which `start .. start + len` is free.
    pub(super) fn new(start: usize, len: usize) -> Self {
        Self { free: BTreeMap::from([(start, len)]) }
    }

    /// Takes the lowest `len` free bytes at a multiple of `align` (a power of two).
    pub(super) fn take(&mut self, len: usize, align: usize) -> Option<usize> {
        let (start, end, at) = self.free.iter().find_map(|(&start, &size)| {
            let end = start + size;
            let at = start.checked_next_multiple_of(align)?;
            (at.checked_add(len)? <= end).then_some((start, end, at))
        })?;
        self.free.remove(&start);
        self.insert(start, at - start);
        self.insert(at + len, end - at - len);
        Some(at)
    }

    /// Frees a range from [`take`](Self::take), merging it with adjacent free ranges.
    pub(super) fn give(&mut self, mut start: usize, mut len: usize) {
        if let Some((&before, &size)) = self.free.range(..start).next_back()
            && before + size == start
        {
            self.free.remove(&before);
            start = before;
            len += size;
        }
        if let Some(size) = self.free.remove(&(start + len)) {
            len += size;
        }
        self.insert(start, len);
    }

    /// The number of free bytes in all ranges.
    pub(super) fn free(&self) -> usize {
        self.free.values().sum()
    }

    /// The length of the longest free range in bytes.
    pub(super) fn longest(&self) -> usize {
        self.free.values().copied().max().unwrap_or(0)
    }

    fn insert(&mut self, start: usize, len: usize) {
        if len > 0 {
            self.free.insert(start, len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: usize = 96;
    const LEN: usize = 160;

    /// The same, one bool per byte.
    #[derive(Debug)]
    struct Model {
        used: Vec<bool>,
    }

    impl Model {
        fn fits(&self, at: usize, len: usize) -> bool {
            (at..at + len).all(|byte| (START..START + LEN).contains(&byte) && !self.used[byte - START])
        }

        fn take(&mut self, len: usize, align: usize) -> Option<usize> {
            let at = (START..START + LEN).find(|at| at % align == 0 && self.fits(*at, len))?;
            self.set(at, len, true);
            Some(at)
        }

        fn set(&mut self, at: usize, len: usize, used: bool) {
            self.used[at - START..at - START + len].fill(used);
        }

        fn longest(&self) -> usize {
            self.used.split(|used| *used).map(<[bool]>::len).max().unwrap_or(0)
        }
    }

    #[derive(Debug, Clone)]
    enum Op {
        Take { len: usize, align: usize },
        Give { index: usize },
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (1_usize..70, 0_u32..7).prop_map(|(len, power)| Op::Take { len, align: 1 << power }),
            (0_usize..100).prop_map(|index| Op::Give { index }),
        ]
    }

    fn model(ops: &[Op]) {
        let mut space = Space::new(START, LEN);
        let mut model = Model { used: vec![false; LEN] };
        let mut taken = Vec::new();
        for op in ops {
            match *op {
                Op::Take { len, align } => {
                    let at = space.take(len, align);
                    assert_eq!(at, model.take(len, align));
                    taken.extend(at.map(|at| (at, len)));
                }
                Op::Give { index } if !taken.is_empty() => {
                    let (at, len) = taken.swap_remove(index % taken.len());
                    space.give(at, len);
                    model.set(at, len, false);
                }
                Op::Give { .. } => {}
            }
            assert_eq!(space.free(), model.used.iter().filter(|used| !**used).count());
            assert_eq!(space.longest(), model.longest());
        }
        for (at, len) in taken {
            space.give(at, len);
        }
        assert_eq!(space.free, BTreeMap::from([(START, LEN)]), "merged to one range again");
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 8 } else { 2000 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]
        #[test]
        fn agrees_with_a_byte_map(ops in prop::collection::vec(op(), 0..60)) {
            model(&ops);
        }
    }

    #[test]
    fn no_arithmetic_runs_over() {
        let mut space = Space::new(usize::MAX - 100, 100);
        assert_eq!(space.take(usize::MAX, 1), None);
        assert_eq!(space.take(1, 1 << 63), None);
        assert_eq!(space.take(100, 1), Some(usize::MAX - 100));
        assert_eq!((space.free(), space.longest(), space.take(1, 1)), (0, 0, None));
    }
}
