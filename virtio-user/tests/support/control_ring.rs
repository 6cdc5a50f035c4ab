//! The device's end of a control ring, split or packed, that tests move by hand: it can do to the ring whatever it likes.

use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use linecard_eal::shared::{Shared, SharedBytes, Word};
use linecard_virtio::{Layout, RingAddrs};

/// The device's end of the control ring.
pub struct Control {
    pub layout: Layout,
    pub size: u16,
    pub addrs: RingAddrs,
    /// Split: the indices. Packed: the slot, and how many slots were passed.
    pub at: u16,
    pub laps: u16,
}

/// A cell of the ring; guest addresses are those of this process.
fn cell<T: Word>(addr: u64, offset: usize) -> Shared<T> {
    bytes(addr, offset + size_of::<T>()).cell(offset).expect("aligned")
}

pub fn bytes(addr: u64, len: usize) -> SharedBytes {
    let start = NonNull::new(addr as *mut u8).expect("an address");
    // SAFETY: the port gave the address of memory that stays until the device is dropped, and reaches it through cells.
    unsafe { SharedBytes::new(start, len) }
}

/// A chain: what was asked, where the answer goes, its id and its descriptors.
pub struct Chain {
    pub command: Vec<u8>,
    pub answer: (u64, u32),
    pub id: u16,
    pub descs: u16,
}

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const TURN: u16 = 0x8080;

impl Control {
    fn desc(&self, at: u16) -> (u64, u64) {
        let base = 16 * usize::from(at);
        let meta = cell::<u64>(self.addrs.desc, base + 8).load(Acquire);
        (cell::<u64>(self.addrs.desc, base).load(Relaxed), meta)
    }

    fn wrap(&self) -> bool {
        self.laps.is_multiple_of(2)
    }

    /// The next request.
    pub fn take(&self) -> Option<Chain> {
        match self.layout {
            Layout::Split => {
                let avail = cell::<u16>(self.addrs.driver, 2).load(Acquire);
                if avail == self.at {
                    return None;
                }
                let entry = 4 + 2 * usize::from(self.at % self.size);
                let head = cell::<u16>(self.addrs.driver, entry).load(Relaxed);
                Some(self.chain(head, |meta| (meta >> 32) as u16, |_, meta| (meta >> 48) as u16, head))
            }
            Layout::Packed => {
                let (_, meta) = self.desc(self.at);
                let turn = if self.wrap() { 0x80 } else { 0x8000 };
                if (meta >> 48) as u16 & TURN != turn {
                    return None;
                }
                let next = |at: u16, _| (at + 1) % self.size;
                Some(self.chain(self.at, |meta| (meta >> 48) as u16, next, (meta >> 32) as u16))
            }
        }
    }

    fn chain(&self, head: u16, flags: impl Fn(u64) -> u16, next: impl Fn(u16, u64) -> u16, id: u16) -> Chain {
        let (mut at, mut chain) = (head, Chain { command: Vec::new(), answer: (0, 0), id, descs: 0 });
        loop {
            let (addr, meta) = self.desc(at);
            let (len, flags) = (meta as u32, flags(meta));
            chain.descs += 1;
            if flags & WRITE != 0 {
                chain.answer = (addr, len);
            } else {
                let mut part = vec![0; len as usize];
                bytes(addr, part.len()).copy_to(&mut part);
                chain.command.extend(part);
            }
            if flags & NEXT == 0 {
                return chain;
            }
            at = next(at, meta);
        }
    }

    /// Gives a chain back; `id`, `len` and what moves are the device's to choose.
    pub fn give(&mut self, chain: &Chain, id: u32, len: u32, (step, flags): (u16, Option<u16>)) {
        match self.layout {
            Layout::Split => {
                let entry = 4 + 8 * usize::from(self.at % self.size);
                cell::<u32>(self.addrs.device, entry).store(id, Relaxed);
                cell::<u32>(self.addrs.device, entry + 4).store(len, Relaxed);
                self.at = self.at.wrapping_add(step);
                cell::<u16>(self.addrs.device, 2).store(self.at, Release);
            }
            Layout::Packed => {
                let flags = flags.unwrap_or(if self.wrap() { TURN } else { 0 });
                let meta = u64::from(len) | u64::from(id & 0xffff) << 32 | u64::from(flags) << 48;
                cell::<u64>(self.addrs.desc, 16 * usize::from(self.at) + 8).store(meta, Release);
                for _ in 0..chain.descs {
                    self.at = (self.at + 1) % self.size;
                    self.laps = self.laps.wrapping_add(u16::from(self.at == 0));
                }
            }
        }
    }

    pub fn scribble(&self, byte: u8) {
        let [desc, driver, device] = self.layout.areas(self.size);
        bytes(self.addrs.desc, desc).fill(byte);
        bytes(self.addrs.driver, driver).fill(byte);
        bytes(self.addrs.device, device).fill(byte);
    }
}
