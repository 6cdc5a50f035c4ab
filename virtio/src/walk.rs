//! Code shared by the cold paths of both device halves: one descriptor as a value, and collecting a chain's
//! memory.

use core::ptr::NonNull;

use crate::fault::PeerFault;
use crate::layout::{DESC_BYTES, F_NEXT, F_WRITE};
use crate::queue::{Access, DeviceMemory, Head, Translation};
use crate::segments::{Piece, SegList};
use crate::sync::{Relaxed, Shared, SharedBytes};

/// A descriptor, read once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Desc {
    pub(crate) addr: u64,
    meta: u64,
}

impl Desc {
    #[inline]
    pub(crate) fn load([addr, meta]: [Shared<u64>; 2]) -> Self {
        Self { addr: addr.load(Relaxed), meta: meta.load(Relaxed) }
    }

    #[inline]
    pub(crate) const fn new(addr: u64, meta: u64) -> Self {
        Self { addr, meta }
    }

    pub(crate) const fn len(self) -> u32 {
        self.meta as u32
    }

    /// Split: bits 32–47 are the flags, bits 48–63 the next descriptor.
    pub(crate) const fn split(self) -> (u16, u16) {
        ((self.meta >> 32) as u16, (self.meta >> 48) as u16)
    }

    /// Packed: bits 32–47 are the id, bits 48–63 the flags.
    pub(crate) const fn packed(self) -> (u16, u16) {
        self.split()
    }
}

/// Why a walk ends before the end of a chain.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    /// The peer violated the protocol.
    Fault(PeerFault),
    /// Part of the memory has no translation yet.
    NotYet,
}

impl From<PeerFault> for Stop {
    fn from(fault: PeerFault) -> Self {
        Self::Fault(fault)
    }
}

/// Converts the result of a walk: a chain that cannot be followed yet counts as none.
pub(crate) fn found(walked: Result<Head, Stop>) -> Result<Option<Head>, PeerFault> {
    match walked {
        Ok(head) => Ok(Some(head)),
        Err(Stop::NotYet) => Ok(None),
        Err(Stop::Fault(fault)) => Err(fault),
    }
}

/// Collects a chain: counts descriptors, checks their direction, and translates their memory.
pub(crate) struct Walk<'a, M, const WRITABLE: bool> {
    memory: &'a M,
    out: &'a mut SegList,
    /// The number of descriptors seen, and the maximum.
    count: u16,
    max: u16,
}

/// The number of pieces of a chain beyond one per descriptor. Each is due to a border between two regions of
/// the peer's memory.
const CROSSINGS: usize = 512;

impl<'a, M: DeviceMemory, const WRITABLE: bool> Walk<'a, M, WRITABLE> {
    pub(crate) fn new(memory: &'a M, out: &'a mut SegList, max: u16) -> Self {
        out.clear();
        Self { memory, out, count: 0, max }
    }

    pub(crate) const fn bytes(&self) -> u32 {
        self.out.bytes()
    }

    /// Counts one more descriptor, which bounds every loop over the peer's descriptors.
    fn step(&mut self) -> Result<(), PeerFault> {
        if self.count >= self.max {
            return Err(PeerFault::ChainTooLong { max: self.max });
        }
        self.count += 1;
        self.out.read_so_far(self.count);
        Ok(())
    }

    /// Whether the list accepts no further descriptor. Records in that case that there is one.
    pub(crate) fn cuts(&mut self) -> bool {
        if self.out.is_full() {
            self.out.cut();
        }
        self.out.is_full()
    }

    /// Counts a descriptor whose memory is not needed.
    pub(crate) fn skip(&mut self) -> Result<(), PeerFault> {
        self.step()
    }

    /// Appends the buffer of a direct descriptor with `flags`, at `index` of its table or ring.
    pub(crate) fn buffer(&mut self, desc: Desc, flags: u16, index: u16) -> Result<(), Stop> {
        self.step()?;
        if (flags & F_WRITE != 0) != WRITABLE {
            return Err(PeerFault::WrongDirection { index }.into());
        }
        let (mut addr, mut len) = (desc.addr, desc.len());
        while len > 0 {
            let (ptr, part) = self.translate(addr, len, Access::of(WRITABLE))?;
            self.push(Piece { ptr, len: part })?;
            let end = addr.checked_add(u64::from(part));
            if part < len && end.is_none() {
                return Err(PeerFault::BadAddress { addr, len }.into());
            }
            (addr, len) = (end.unwrap_or(addr), len - part);
        }
        Ok(())
    }

    /// The location of the longest piece of `len` bytes at `addr` that is contiguous in this process.
    fn translate(&self, addr: u64, len: u32, access: Access) -> Result<(NonNull<u8>, u32), Stop> {
        match self.memory.translate_part(addr, len, access) {
            Translation::Present(ptr, part) if (1..=len).contains(&part) => Ok((ptr, part)),
            Translation::NotYet => Err(Stop::NotYet),
            Translation::Present(..) | Translation::Absent => Err(PeerFault::BadAddress { addr, len }.into()),
        }
    }

    fn push(&mut self, piece: Piece) -> Result<(), PeerFault> {
        if self.out.count() >= usize::from(self.max) + CROSSINGS {
            return Err(PeerFault::ChainTooLong { max: self.max });
        }
        let bytes = u64::from(self.out.bytes()) + u64::from(piece.len);
        if self.out.push(piece) { Ok(()) } else { Err(PeerFault::ChainTooLarge { bytes }) }
    }

    /// Opens the table that an indirect descriptor with `flags` points to.
    pub(crate) fn table(&self, desc: Desc, flags: u16, allowed: bool) -> Result<Table, PeerFault> {
        let len = desc.len();
        let entries = len / DESC_BYTES as u32;
        if !allowed || flags & F_NEXT != 0 || entries == 0 || !len.is_multiple_of(DESC_BYTES as u32) {
            return Err(PeerFault::BadIndirect { len, flags });
        }
        let entries = u16::try_from(entries).unwrap_or(u16::MAX).min(self.max.saturating_add(1));
        Ok(Table { addr: desc.addr, entries })
    }

    /// Reads entry `index` of a table, once, even if it crosses a region border.
    pub(crate) fn entry(&self, table: &Table, index: u16) -> Result<Desc, Stop> {
        let addr = table.addr.wrapping_add(u64::from(index) * DESC_BYTES as u64);
        let mut bytes = [0; DESC_BYTES];
        self.read(addr, &mut bytes)?;
        let [addr, meta] = [0, 8].map(|at| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        });
        Ok(Desc::new(addr, meta))
    }

    fn read(&self, mut addr: u64, mut to: &mut [u8]) -> Result<(), Stop> {
        while !to.is_empty() {
            let (ptr, part) = self.translate(addr, to.len() as u32, Access::Read)?;
            let (now, rest) = to.split_at_mut(part as usize);
            bytes(ptr, now.len()).copy_to(now);
            addr = addr.wrapping_add(u64::from(part));
            to = rest;
        }
        Ok(())
    }
}

/// `len` bytes that a [`DeviceMemory`] just translated.
fn bytes(ptr: NonNull<u8>, len: usize) -> SharedBytes {
    // SAFETY: `translate_part` returned this pointer for at least `len` bytes and promises that they stay
    // valid while the memory is in use, which the borrow in `Walk` spans; the handle does not leave `read`.
    unsafe { SharedBytes::new(ptr, len) }
}

/// An indirect table: its address and its number of descriptors (limited to one more than a chain may have).
pub(crate) struct Table {
    addr: u64,
    pub(crate) entries: u16,
}
