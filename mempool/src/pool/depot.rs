//! Storage for packets that are in no thread's cache: full magazines, empty magazines, loose packets.

use std::ptr::NonNull;

use crossbeam::utils::CachePadded;

use super::Item;
use super::region::Region;
use crate::meta::Meta;
use crate::slots::SLOTS;
use crate::stack::{self, Stack};
use crate::sync::AtomicU32;

pub(crate) struct Depot {
    full: CachePadded<Stack>,
    empty: CachePadded<Stack>,
    loose: CachePadded<Stack>,
    magazine_links: Box<[AtomicU32]>,
    packet_links: Box<[AtomicU32]>,
    /// `size` pointers each, at multiples of `pitch`.
    magazines: Option<Region>,
    metas: NonNull<Meta>,
    /// The number of pointers in a full magazine; 0 if the pool has no caches.
    pub(super) size: usize,
    pitch: usize,
}

/// The distance between two magazines in pointers: whole cache lines.
const fn pitch(size: usize) -> usize {
    size.next_multiple_of(8)
}

fn links(n: usize) -> Box<[AtomicU32]> {
    (0..n).map(|_| AtomicU32::new(0)).collect()
}

/// The number of magazines of a pool: enough for all packets, and two for each thread.
fn magazines_for(packets: usize, size: usize) -> usize {
    packets.checked_div(size).map_or(0, |full| full + 2 * SLOTS)
}

/// The length of all magazines of a pool in bytes.
pub(super) fn magazine_bytes(packets: usize, size: usize) -> usize {
    magazines_for(packets, size) * pitch(size) * size_of::<Item>()
}

impl Depot {
    /// Creates a depot that holds all `packets`, the first ones on top. `magazines` has the length from
    /// [`magazine_bytes`].
    pub(super) fn new(metas: NonNull<Meta>, packets: usize, magazines: Option<Region>, size: usize) -> Self {
        let count = magazines_for(packets, size);
        let depot = Self {
            full: CachePadded::new(Stack::new()),
            empty: CachePadded::new(Stack::new()),
            loose: CachePadded::new(Stack::new()),
            magazine_links: links(count),
            packet_links: links(packets),
            magazines,
            metas,
            size,
            pitch: pitch(size),
        };
        depot.fill(packets, count);
        depot
    }

    fn fill(&self, packets: usize, magazines: usize) {
        let full = packets.checked_div(self.size).unwrap_or(0);
        for packet in (full * self.size..packets).rev() {
            self.loose.push(&self.packet_links, packet as u32);
        }
        for magazine in (full..magazines).rev() {
            self.empty.push(&self.magazine_links, magazine as u32);
        }
        for magazine in (0..full).rev() {
            for place in 0..self.size {
                let item = self.item((magazine * self.size + place) as u32);
                let to = self.magazine(magazine as u32).wrapping_add(place);
                // SAFETY: `magazine < magazines` and `place < size`: within the region, and nothing else
                // refers to it yet.
                unsafe { to.write(item) };
            }
            self.full.push(&self.magazine_links, magazine as u32);
        }
    }

    fn base(&self) -> *mut Item {
        self.magazines.as_ref().map_or(std::ptr::null_mut(), |region| region.ptr().as_ptr().cast())
    }

    fn magazine(&self, number: u32) -> *mut Item {
        self.base().wrapping_add(number as usize * self.pitch)
    }

    fn number(&self, magazine: *mut Item) -> u32 {
        ((magazine.addr() - self.base().addr()) / (self.pitch * size_of::<Item>())) as u32
    }

    /// The packet with this number.
    pub(super) fn item(&self, number: u32) -> Item {
        // SAFETY: packet numbers are below the length of the metadata table.
        unsafe { self.metas.add(number as usize) }
    }

    /// The number of a packet of this pool.
    pub(super) fn index(&self, item: Item) -> usize {
        (item.as_ptr().addr() - self.metas.as_ptr().addr()) / size_of::<Meta>()
    }

    /// Takes a magazine with `size` pointers.
    pub(super) fn take_full(&self) -> Option<*mut Item> {
        self.full.pop(&self.magazine_links).map(|number| self.magazine(number))
    }

    /// Stores a magazine with `size` pointers.
    pub(super) fn give_full(&self, magazine: *mut Item) {
        self.full.push(&self.magazine_links, self.number(magazine));
    }

    /// Takes a magazine without pointers.
    pub(super) fn take_empty(&self) -> Option<*mut Item> {
        self.empty.pop(&self.magazine_links).map(|number| self.magazine(number))
    }

    /// Stores a magazine without pointers.
    pub(super) fn give_empty(&self, magazine: *mut Item) {
        self.empty.push(&self.magazine_links, self.number(magazine));
    }

    /// Takes up to `max` loose packets.
    ///
    /// # Safety
    /// `out` has room for `max` pointers.
    pub(super) unsafe fn take_loose(&self, out: *mut Item, max: usize) -> usize {
        let Some((mut node, count)) = self.loose.pop_chain(&self.packet_links, max) else { return 0 };
        for place in 0..count {
            // SAFETY: `place < max`.
            let to = unsafe { out.add(place) };
            // SAFETY: `place < max`, and `out` has room for `max` pointers (this function's condition).
            unsafe { to.write(self.item(node)) };
            node = stack::next(&self.packet_links, node);
        }
        count
    }

    /// Stores `n` packets in one step.
    ///
    /// # Safety
    /// `items` are `n` free packets of this pool that the caller owns.
    pub(super) unsafe fn give_loose(&self, items: *const Item, n: usize) {
        // SAFETY: `n` pointers are at `items` (this function's condition), and nothing writes them until this
        // returns.
        let items = unsafe { std::slice::from_raw_parts(items, n) };
        let mut nodes = items.iter().map(|&item| self.index(item) as u32);
        let Some(first) = nodes.next() else { return };
        let last = nodes.fold(first, |node, next| {
            stack::link(&self.packet_links, node, next);
            next
        });
        self.loose.push_chain(&self.packet_links, first, last);
    }

    /// Counts the stored packets by walking; exact only while no other thread changes the depot.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.full.count(&self.magazine_links) * self.size + self.loose.count(&self.packet_links)
    }
}
