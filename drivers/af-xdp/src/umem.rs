//! The umem: a pool's buffers, registered with the kernel, and a record of which queue has passed which
//! buffer to it.
//!
//! ```text
//!   base (page)  first buffer                                          end (page)
//!   ├────────────┼─ chunk ──┤pad├─ chunk ──┤pad├─ chunk ──┤ …  ────────┤
//!                 address = distance from base; no power of two ("unaligned chunks", Linux 5.4)
//!   chunk:       ├ headroom: the kernel's 256 bytes and ours ─┼─ frame, at most frame_len ─┤
//! ```
//! The kernel names a buffer by its address, which is looked up in our own table. A buffer is accepted only
//! if the same queue passed it to the kernel and has not got it back.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError, Weak};

use linecard_mempool::{Buffers, Meta, Pool};

use super::channel::Channel;
use linecard_pmd::error::Error;

/// The smallest and the largest chunk that the kernel accepts (`XDP_UMEM_MIN_CHUNK_SIZE`, the page size).
const CHUNK: std::ops::RangeInclusive<usize> = 2048..=PAGE;
/// The bytes before a frame that the kernel reserves for XDP programs (`XDP_PACKET_HEADROOM`).
const KERNEL_HEADROOM: usize = 256;
const PAGE: usize = 4096;
/// The bits of an address; the upper 16 bits are the offset of the data from there
/// (`XSK_UNALIGNED_BUF_OFFSET_SHIFT`).
const OFFSET_SHIFT: u32 = 48;
/// The lowest bits of a table entry: the descriptors in flight. The others identify the queue and direction.
const COUNT: u32 = 0xff;

/// Identifies the owner of a passed buffer: one direction of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag(u32);

/// The meaning of a descriptor that the kernel returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Returned {
    /// A buffer was returned: its packet, and the offset of the address in the buffer.
    Whole(NonNull<Meta>, usize),
    /// Other descriptors of the buffer are still in flight.
    Part,
    /// A buffer that the queue had not passed.
    Foreign,
}

/// The memory of the sockets of one port, or of several ports that share it.
pub(super) struct Umem {
    pool: Pool,
    buffers: Buffers,
    base: usize,
    len: usize,
    chunk: usize,
    headroom: usize,
    lent: Box<[AtomicU32]>,
    tags: AtomicU32,
    /// The sockets that use it; any of them stands for the registration.
    members: Mutex<Vec<Weak<Channel>>>,
}

impl Umem {
    /// Creates the umem of `pool`, without registering it.
    ///
    /// # Errors
    /// The buffers are too small.
    pub(super) fn new(port: &str, pool: &Pool) -> Result<Self, Error> {
        let buffers = pool.buffers();
        let headroom = usize::from(pool.headroom()).saturating_sub(KERNEL_HEADROOM);
        let chunk = buffers.len().min(*CHUNK.end());
        if chunk < *CHUNK.start() || chunk < headroom + KERNEL_HEADROOM + 64 {
            return Err(Error::Argument {
                device: port.into(),
                problem: format!("a buffer of {} bytes is too small for an XDP socket", buffers.len()),
                remedy: format!(
                    "give a pool with buffers of at least {} bytes, headroom included",
                    CHUNK.start()
                ),
            });
        }
        let base = buffers.start() / PAGE * PAGE;
        Ok(Self {
            base,
            len: buffers.end().next_multiple_of(PAGE) - base,
            chunk,
            headroom,
            lent: (0..buffers.count()).map(|_| AtomicU32::new(0)).collect(),
            tags: AtomicU32::new(0),
            members: Mutex::default(),
            pool: pool.clone(),
            buffers,
        })
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Returns the longest frame that one buffer can receive.
    pub(super) fn frame_len(&self) -> usize {
        self.chunk - self.headroom - KERNEL_HEADROOM
    }

    /// Returns the most bytes of one transmit descriptor.
    pub(super) fn chunk(&self) -> usize {
        self.chunk
    }

    /// Returns whether a device may access the memory directly: buffers cross pages, so the pages must be
    /// contiguous.
    pub(super) fn is_contiguous(&self) -> bool {
        self.pool.segment().page().is_hugetlb()
    }

    /// Returns whether a packet's buffer lies in one page of the segment. A device cannot use others: the
    /// kernel skips descriptors that cross pages, and never returns them. Data may be anywhere in the buffer, also
    /// beyond its first chunk.
    pub(super) fn is_whole(&self, packet: NonNull<Meta>) -> bool {
        let start = self.pool.index_of(packet).and_then(|index| self.buffers.address(index));
        start.is_some_and(|start| in_one_page(start, self.buffers.len(), self.pool.segment().page().bytes()))
    }

    /// Returns the registration for the kernel.
    pub(super) fn registration(&self) -> libc::xdp_umem_reg {
        libc::xdp_umem_reg {
            addr: self.base as u64,
            len: self.len as u64,
            chunk_size: self.chunk as u32,
            headroom: self.headroom as u32,
            flags: libc::XDP_UMEM_UNALIGNED_CHUNK_FLAG,
            tx_metadata_len: 0,
        }
    }

    /// Returns the bytes that are locked in memory while registered.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Locks the list of sockets that use the umem: only one thread at a time registers or joins.
    pub(super) fn members(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Channel>>> {
        // A list of weak references is consistent even if its holder panicked.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns an unused tag.
    pub(super) fn tag(&self) -> Tag {
        // After 2^24 queues, numbers repeat; the old queues have ended by then.
        Tag((self.tags.fetch_add(1, Ordering::Relaxed) % (u32::MAX >> 8) + 1) << 8)
    }

    /// Records that the kernel holds `packet`, owned by the caller, in one descriptor. Returns the address of
    /// its buffer.
    #[inline(always)]
    pub(super) fn lend(&self, tag: Tag, packet: NonNull<Meta>) -> Option<u64> {
        self.lend_at(tag, packet, 1).map(|start| (start - self.base) as u64)
    }

    /// Records that the kernel holds `packet` in `count` descriptors, with `at` an address in its buffer.
    #[inline(always)]
    pub(super) fn lend_data(&self, tag: Tag, packet: NonNull<Meta>, at: usize, count: u32) -> Option<u64> {
        self.lend_at(tag, packet, count)?;
        Some(at.wrapping_sub(self.base) as u64)
    }

    #[inline(always)]
    fn lend_at(&self, tag: Tag, packet: NonNull<Meta>, count: u32) -> Option<usize> {
        let index = self.pool.index_of(packet)?;
        let start = self.buffers.address(index)?;
        // Relaxed: the owner of the buffer owns its entry, and the ring's index orders the two owners.
        self.lent.get(index as usize)?.store(tag.0 | count, Ordering::Relaxed);
        Some(start)
    }

    /// Takes back the buffer at a descriptor's `address`, if it was passed with `tag`.
    #[inline(always)]
    pub(super) fn take(&self, tag: Tag, address: u64) -> Returned {
        let (base, offset) = (address & ((1 << OFFSET_SHIFT) - 1), address >> OFFSET_SHIFT);
        let at = self.base.wrapping_add(base as usize).wrapping_add(offset as usize);
        let Some(index) = self.buffers.index_of(at) else { return Returned::Foreign };
        let Some(entry) = self.lent.get(index as usize) else { return Returned::Foreign };
        let lent = entry.load(Ordering::Relaxed);
        let under_way = (lent ^ tag.0).wrapping_sub(1);
        if under_way > COUNT - 1 {
            return Returned::Foreign;
        }
        let (Some(packet), Some(start)) = (self.pool.packet_at(index), self.buffers.address(index)) else {
            return Returned::Foreign;
        };
        entry.store(if under_way == 0 { 0 } else { lent - 1 }, Ordering::Relaxed);
        if under_way == 0 { Returned::Whole(packet, at - start) } else { Returned::Part }
    }

    /// Returns whether buffers with `tag` are in flight.
    #[cfg(test)]
    pub(super) fn is_lending(&self, tag: Tag) -> bool {
        self.lent.iter().any(|entry| entry.load(Ordering::Relaxed) & !COUNT == tag.0)
    }

    /// Returns all buffers with `tag` to the pool. The kernel no longer uses them: their socket is closed.
    pub(super) fn recover(&self, tag: Tag) {
        let first = Meta::rearm(
            self.pool.headroom(),
            Meta::NO_PORT,
            self.pool.config().headroom + self.pool.data_room(),
        );
        for (index, entry) in (0..).zip(&self.lent) {
            if entry.load(Ordering::Relaxed) & !COUNT != tag.0 {
                continue;
            }
            entry.store(0, Ordering::Relaxed);
            let Some(packet) = self.pool.packet_at(index) else { continue };
            // SAFETY: passed by a queue that owned it and no longer exists, so it is ours.
            unsafe { Meta::write_rearm(packet, first) };
            // SAFETY: of this pool, plain (only such are passed), ours, and not used after.
            unsafe { self.pool.put_raw(&[packet]) };
        }
    }
}

/// Returns whether `len` bytes from `start` on lie within one page; `page` is a power of two.
const fn in_one_page(start: usize, len: usize, page: usize) -> bool {
    start / page == (start + len - 1) / page
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use linecard_eal::memory::{Memory, MemoryConfig, PagePolicy};
    use linecard_mempool::PoolConfig;

    use super::*;

    fn umem(data_room: u16) -> Umem {
        let domain = Memory::new(MemoryConfig::default()).expect("memory").domain("umem").expect("a domain");
        // Memory before the pool, so that its first buffer starts inside a page.
        let zone = domain.zone("before", 100, 64).expect("a zone");
        let config = PoolConfig::default().packets(8).data_room(data_room).cache(0);
        let pool = Pool::new(&domain, config).expect("a pool");
        drop(zone);
        Umem::new("port", &pool).expect("large enough")
    }

    fn packet(umem: &Umem) -> NonNull<Meta> {
        umem.pool.get().expect("a packet").into_raw()
    }

    #[test]
    fn registers_whole_pages_around_the_buffers() {
        let umem = umem(2048);
        let reg = umem.registration();
        assert_eq!((reg.addr % 4096, reg.len % 4096, reg.chunk_size, reg.headroom), (0, 0, 2176, 0));
        assert!(reg.addr as usize <= umem.buffers.start());
        assert!(umem.buffers.end() <= (reg.addr + reg.len) as usize);
        assert_eq!(umem.frame_len(), 2176 - 256);
    }

    #[test]
    fn only_what_was_lent_comes_back_and_only_once() {
        let umem = umem(2048);
        let (rx, tx) = (umem.tag(), umem.tag());
        let packet = packet(&umem);
        let address = umem.lend(rx, packet).expect("of this pool");
        let data = address | 256 << OFFSET_SHIFT;
        assert_eq!(umem.take(tx, data), Returned::Foreign, "lent by another");
        for bad in [0, u64::MAX, address + 2200, data + 4096 * 1024, address.wrapping_sub(1)] {
            assert_eq!(umem.take(rx, bad), Returned::Foreign, "{bad:#x}");
        }
        assert_eq!(umem.take(rx, data), Returned::Whole(packet, 256));
        assert_eq!(umem.take(rx, data), Returned::Foreign, "twice");
        umem.lend(rx, packet);
        umem.recover(rx);
        assert_eq!(umem.pool.stats().in_use, 0);
    }

    #[test]
    fn a_buffer_in_several_descriptors_comes_back_with_the_last() {
        let umem = umem(9000);
        assert_eq!(umem.chunk(), 4096);
        let tag = umem.tag();
        let packet = packet(&umem);
        let start =
            umem.buffers.start() + umem.pool.index_of(packet).expect("ours") as usize * umem.pool.stride();
        let address = umem.lend_data(tag, packet, start + 128, 3).expect("of this pool");
        assert_eq!(umem.take(tag, address), Returned::Part);
        assert_eq!(umem.take(tag, address + 8192), Returned::Part);
        assert!(umem.is_lending(tag));
        assert_eq!(umem.take(tag, address + 4096), Returned::Whole(packet, 128 + 4096));
        assert!(!umem.is_lending(tag));
        umem.lend(tag, packet);
        umem.recover(tag);
        assert_eq!(umem.pool.stats().in_use, 0);
    }

    #[test]
    fn a_buffer_of_several_chunks_is_whole_only_to_its_end() {
        let config = MemoryConfig::default().pages(PagePolicy::NoHuge);
        let domain = Memory::new(config).expect("memory").domain("umem").expect("a domain");
        let config = PoolConfig::default().packets(256).data_room(9000).cache(0);
        let umem = Umem::new("port", &Pool::new(&domain, config).expect("a pool")).expect("large enough");
        let page = umem.pool.segment().page().bytes();
        let starts = (0..256).filter_map(|index| umem.buffers.address(index));
        assert!(
            starts.clone().any(|start| in_one_page(start, umem.chunk, page)),
            "some begin with a whole chunk"
        );
        let packets = (0..256).filter_map(|index| umem.pool.packet_at(index));
        for (start, packet) in starts.zip(packets) {
            assert_eq!(umem.is_whole(packet), in_one_page(start, umem.buffers.len(), page), "{start:#x}");
        }
    }

    #[test]
    fn chunks_that_cross_pages() {
        for (start, len, want) in
            [(0, 4096, true), (1, 4096, false), (4095, 1, true), (4095, 2, false), (8192, 4096, true)]
        {
            assert_eq!(in_one_page(start, len, 4096), want, "{start} {len}");
        }
    }

    #[test]
    fn small_buffers_are_refused() {
        let domain = Memory::new(MemoryConfig::default()).expect("memory").domain("umem").expect("a domain");
        let config = PoolConfig::default().packets(8).data_room(1024);
        let pool = Pool::new(&domain, config).expect("a pool");
        let problem = Umem::new("net_af_xdp0", &pool).err().expect("too small").to_string();
        assert_eq!(
            problem,
            "net_af_xdp0: a buffer of 1152 bytes is too small for an XDP socket; give a pool with buffers of at least \
             2048 bytes, headroom included"
        );
        let _ = Arc::new(pool);
    }
}
