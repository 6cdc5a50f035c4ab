//! The handles over ordinary memory, so that miri can watch.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread;

use super::*;

/// Eight-byte aligned memory and handles to it; the handles are used only while it lives.
struct Page {
    words: Vec<u64>,
}

impl Page {
    fn new(words: usize) -> Self {
        Self { words: vec![0; words] }
    }

    fn bytes(&mut self) -> SharedBytes {
        let ptr = NonNull::new(self.words.as_mut_ptr().cast()).unwrap();
        // SAFETY: each test keeps the page while it uses the handle, and touches it in no other way meanwhile.
        unsafe { SharedBytes::new(ptr, self.words.len() * 8) }
    }
}

#[test]
fn slices_end_where_the_memory_ends() {
    let mut page = Page::new(2);
    let bytes = page.bytes();
    for (offset, len, fits) in
        [(0, 16, true), (16, 0, true), (15, 1, true), (15, 2, false), (17, 0, false), (usize::MAX, 2, false)]
    {
        assert_eq!(bytes.slice(offset, len).map(SharedBytes::len), fits.then_some(len), "{offset} {len}");
    }
    assert!(bytes.slice(16, 0).unwrap().is_empty());
    assert_eq!(bytes.slice(4, 8).unwrap().slice(4, 4).unwrap().as_ptr().addr(), bytes.as_ptr().addr() + 8);
}

#[test]
fn cells_are_inside_and_aligned() {
    let mut page = Page::new(2);
    let bytes = page.bytes();
    for offset in 0..24 {
        assert_eq!(bytes.cell::<u8>(offset).is_some(), offset < 16, "u8 at {offset}");
        assert_eq!(bytes.cell::<u16>(offset).is_some(), offset <= 14 && offset % 2 == 0, "u16 at {offset}");
        assert_eq!(bytes.cell::<u32>(offset).is_some(), offset <= 12 && offset % 4 == 0, "u32 at {offset}");
        assert_eq!(bytes.cell::<u64>(offset).is_some(), offset <= 8 && offset % 8 == 0, "u64 at {offset}");
    }
    assert_eq!(bytes.cells::<u32>(8, 2).map(SharedSlice::len), Some(2));
    assert!(bytes.cells::<u32>(8, 3).is_none());
    assert!(bytes.cells::<u32>(2, 1).is_none());
    assert!(bytes.cells::<u64>(0, usize::MAX).is_none());
    assert!(bytes.cell::<u64>(usize::MAX).is_none());
}

#[test]
fn copies_move_what_both_sides_hold() {
    let mut page = Page::new(1);
    let bytes = page.bytes();
    assert_eq!(bytes.copy_from(&[1, 2, 3]), 3);
    assert_eq!(bytes.slice(3, 5).unwrap().copy_from(&[9; 100]), 5);
    let mut all = [0; 10];
    assert_eq!(bytes.copy_to(&mut all), 8);
    assert_eq!(all, [1, 2, 3, 9, 9, 9, 9, 9, 0, 0]);
    bytes.slice(1, 2).unwrap().fill(7);
    assert_eq!(bytes.copy_to(&mut all[..2]), 2);
    assert_eq!(all[..3], [1, 7, 3]);
    assert_eq!(bytes.copy_to(&mut []), 0);
}

#[test]
fn words_of_every_width_see_the_same_bytes() {
    let mut page = Page::new(1);
    let bytes = page.bytes();
    bytes.cell::<u64>(0).unwrap().store(u64::from_le_bytes([1, 2, 3, 4, 5, 6, 7, 8]).to_le(), Relaxed);
    assert_eq!(bytes.cell::<u8>(7).unwrap().load(Relaxed), 8);
    assert_eq!(u16::from_le(bytes.cell::<u16>(2).unwrap().load(Relaxed)), 0x0403);
    assert_eq!(u32::from_le(bytes.cell::<u32>(4).unwrap().load(Relaxed)), 0x0807_0605);
    let halves = bytes.cells::<u16>(0, 4).unwrap();
    let values: Vec<_> =
        (0..5).map_while(|i| halves.at(i)).map(|cell| u16::from_le(cell.load(Relaxed))).collect();
    assert_eq!(values, [0x0201, 0x0403, 0x0605, 0x0807]);
    // SAFETY: 3 < 4.
    let last = unsafe { halves.at_unchecked(3) };
    assert_eq!(last, halves.at(3).unwrap());
    assert_eq!(last.as_ptr().addr(), halves.as_ptr().addr() + 6);
}

#[test]
fn release_publishes_what_acquire_reads() {
    const ROUNDS: u16 = if cfg!(miri) { 20 } else { 2000 };
    let mut page = Page::new(2);
    let bytes = page.bytes();
    let (data, ready) = (bytes.slice(0, 8).unwrap(), bytes.cell::<u16>(8).unwrap());
    let taken = bytes.cell::<u16>(10).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            for round in 1..=ROUNDS {
                while taken.load(Acquire) != round - 1 {
                    thread::yield_now();
                }
                data.copy_from(&[round as u8; 8]);
                ready.store(round, Release);
            }
        });
        for round in 1..=ROUNDS {
            while ready.load(Acquire) != round {
                thread::yield_now();
            }
            let mut copy = [0; 8];
            data.copy_to(&mut copy);
            assert_eq!(copy, [round as u8; 8]);
            taken.store(round, Release);
        }
    });
}
