//! A lock-free stack of small numbers, linked through a separate table.
//!
//! ```text
//! head: tag (32 bits) | first + 1 (32 bits, 0 = empty)        links[node] = next + 1, 0 = last
//! ```
//! Every successful change increments the tag, so a head that was popped and pushed again in between (ABA) is
//! detected unless exactly 2³² changes occurred during one attempt. Links are atomics: a pop may read the
//! link of a node that another thread has just taken; its compare-and-swap then fails and it starts again.

#[cfg(test)]
mod tests;

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Numbers below `links.len()`, last in, first out. A number is in at most one of the stacks that share a
/// table of links.
pub(crate) struct Stack {
    head: AtomicU64,
}

const fn pack(tag: u32, first: u32) -> u64 {
    (tag as u64) << 32 | first as u64
}

const fn unpack(head: u64) -> (u32, u32) {
    ((head >> 32) as u32, head as u32)
}

impl Stack {
    pub(crate) fn new() -> Self {
        Self { head: AtomicU64::new(0) }
    }

    /// Pushes one number.
    pub(crate) fn push(&self, links: &[AtomicU32], node: u32) {
        self.push_chain(links, node, node);
    }

    /// Pushes a chain `first` … `last`, already linked with [`link`]. The caller owns all its nodes.
    pub(crate) fn push_chain(&self, links: &[AtomicU32], first: u32, last: u32) {
        let Some(tail) = links.get(last as usize) else { return };
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            let (tag, top) = unpack(head);
            tail.store(top, Ordering::Relaxed);
            let new = pack(tag.wrapping_add(1), first + 1);
            // S1, pairs with S2: the links (and the objects that the nodes stand for) are written before the
            // chain can be popped; otherwise the other thread would follow stale links or read a magazine
            // that is not filled yet.
            match self.head.compare_exchange_weak(head, new, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Pops up to `max` numbers in one step. The chain starts at the returned number; follow [`next`].
    pub(crate) fn pop_chain(&self, links: &[AtomicU32], max: usize) -> Option<(u32, usize)> {
        // S2, pairs with S1 (also on the failure path below). Every change is a read-modify-write, so the
        // release sequence includes all earlier pushes, not only the last.
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let (tag, top) = unpack(head);
            let (rest, count) = walk(links, top, max);
            if count == 0 {
                return None;
            }
            let new = pack(tag.wrapping_add(1), rest);
            match self.head.compare_exchange_weak(head, new, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => return Some((top - 1, count)),
                Err(now) => head = now,
            }
        }
    }

    /// Pops one number.
    pub(crate) fn pop(&self, links: &[AtomicU32]) -> Option<u32> {
        self.pop_chain(links, 1).map(|(first, _)| first)
    }

    /// Counts the numbers by walking; exact only while no other thread changes the stack.
    #[cfg(test)]
    pub(crate) fn count(&self, links: &[AtomicU32]) -> usize {
        walk(links, unpack(self.head.load(Ordering::Acquire)).1, links.len()).1
    }
}

/// Follows up to `max` links from `top`; returns the remaining top and how many were passed.
fn walk(links: &[AtomicU32], top: u32, max: usize) -> (u32, usize) {
    let (mut rest, mut count) = (top, 0);
    while count < max && rest != 0 {
        let Some(link) = links.get(rest as usize - 1) else { break };
        rest = link.load(Ordering::Relaxed);
        count += 1;
    }
    (rest, count)
}

/// Links `node` to `next` in a chain that is not pushed yet.
pub(crate) fn link(links: &[AtomicU32], node: u32, next: u32) {
    if let Some(link) = links.get(node as usize) {
        link.store(next + 1, Ordering::Relaxed);
    }
}

/// The node after `node` in a popped chain; meaningless after its last node.
pub(crate) fn next(links: &[AtomicU32], node: u32) -> u32 {
    links.get(node as usize).map_or(0, |link| link.load(Ordering::Relaxed)).wrapping_sub(1)
}
