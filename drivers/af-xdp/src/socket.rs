//! One XDP socket (`AF_XDP`, kernel `Documentation/networking/af_xdp.rst`): its options, its rings, its calls.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};

use super::cursor::{Offsets, Ring, RingMapping};

/// `asm-generic/socket.h`; not in libc.
const SO_PREFER_BUSY_POLL: libc::c_int = 69;
const SO_BUSY_POLL_BUDGET: libc::c_int = 70;
/// The microseconds to poll; DPDK's default.
const BUSY_POLL_US: u32 = 20;
/// `linux/if_xdp.h` since 6.17: the packets that one call sends in copy mode.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// One of a socket's rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Rx,
    Tx,
    Fill,
    Done,
}

impl Which {
    const fn option(self) -> libc::c_int {
        match self {
            Self::Rx => libc::XDP_RX_RING,
            Self::Tx => libc::XDP_TX_RING,
            Self::Fill => libc::XDP_UMEM_FILL_RING,
            Self::Done => libc::XDP_UMEM_COMPLETION_RING,
        }
    }

    const fn page_offset(self) -> u64 {
        match self {
            Self::Rx => libc::XDP_PGOFF_RX_RING as u64,
            Self::Tx => libc::XDP_PGOFF_TX_RING as u64,
            Self::Fill => libc::XDP_UMEM_PGOFF_FILL_RING,
            Self::Done => libc::XDP_UMEM_PGOFF_COMPLETION_RING,
        }
    }
}

/// An open socket, closed on drop with everything that the kernel keeps for it.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    /// Opens a socket in this thread's network namespace.
    pub(super) fn open() -> io::Result<Self> {
        // SAFETY: the call takes integers only.
        let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor without another owner.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Takes over the XDP socket that was passed to this process as `fd`; `InvalidInput` if it is no such
    /// socket.
    pub(super) fn passed(fd: RawFd) -> io::Result<Self> {
        /// The lowest new number, above those that a parent usually passes.
        const FROM: libc::c_int = 64;
        let mut domain = 0_i32;
        let mut len = size_of::<i32>() as libc::socklen_t;
        // SAFETY: writes at most `len` bytes to `domain`, and `len`; both outlive the call.
        let result = unsafe {
            libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_DOMAIN, (&raw mut domain).cast(), &raw mut len)
        };
        if result < 0 || domain != libc::AF_XDP {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // The socket is moved to a copy with a number of our own, and the original is closed, so that the
        // socket is closed when we drop it.
        // SAFETY: the call takes integers only.
        let own = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, FROM) };
        if own < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: an XDP socket that the user passed to this port by its number; nothing in this process owns
        // it.
        unsafe { libc::close(fd) };
        // SAFETY: a new descriptor without another owner.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(own) }))
    }

    fn set<T: Copy>(&self, level: libc::c_int, option: libc::c_int, value: T) -> io::Result<()> {
        let len = size_of::<T>() as libc::socklen_t;
        // SAFETY: reads `len` bytes of `value`, which outlives the call.
        let result =
            unsafe { libc::setsockopt(self.0.as_raw_fd(), level, option, (&raw const value).cast(), len) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Reads an option into `value`, as much of it as this kernel has.
    fn get<T: Integers>(&self, option: libc::c_int, mut value: T) -> io::Result<T> {
        let mut len = size_of::<T>() as libc::socklen_t;
        // SAFETY: writes at most `len` bytes to `value`, integers only, and `len`; both outlive the call.
        let result = unsafe {
            libc::getsockopt(self.0.as_raw_fd(), libc::SOL_XDP, option, (&raw mut value).cast(), &raw mut len)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
    }

    /// Creates one of the rings, with `size` entries.
    pub(super) fn make_ring(&self, which: Which, size: u32) -> io::Result<()> {
        self.set(libc::SOL_XDP, which.option(), size)
    }

    /// Maps one of the rings.
    pub(super) fn map_ring<const WORDS: usize>(&self, which: Which, size: u32) -> io::Result<Ring<WORDS>> {
        let offsets = self.offsets(which)?;
        let map: MmapRaw = MmapOptions::new()
            .offset(which.page_offset())
            .len(offsets.bytes(size, WORDS))
            .populate()
            .map_raw(self.0.as_raw_fd())?;
        Ring::new(Arc::new(RingMapping::Map(map)), offsets, size)
            .ok_or_else(|| io::Error::other("the kernel's ring does not fit into its mapping"))
    }

    fn offsets(&self, which: Which) -> io::Result<Offsets> {
        let all = self.get(libc::XDP_MMAP_OFFSETS, RingOffsets::default())?.0;
        let [producer, consumer, entries, flags] = match which {
            Which::Rx => all[0],
            Which::Tx => all[1],
            Which::Fill => all[2],
            Which::Done => all[3],
        };
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        Ok(Offsets {
            producer: place(producer),
            consumer: place(consumer),
            flags: place(flags),
            entries: place(entries),
        })
    }

    /// Registers the memory of the packets with the kernel.
    ///
    /// # Safety
    /// The memory stays mapped, and the kernel may write only into packets passed to this socket, until the
    /// socket is closed.
    pub(super) unsafe fn register(&self, memory: libc::xdp_umem_reg) -> io::Result<()> {
        self.set(libc::SOL_XDP, libc::XDP_UMEM_REG, memory)
    }

    /// Binds to a queue of an interface, with the socket's own memory or that of another socket.
    pub(super) fn bind(
        &self,
        index: u32,
        queue: u32,
        flags: u16,
        of: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: flags,
            sxdp_ifindex: index,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: of.map_or(0, |fd| fd.as_raw_fd().cast_unsigned()),
        };
        let len = size_of::<libc::sockaddr_xdp>() as libc::socklen_t;
        // SAFETY: reads `len` bytes of `address`, which outlives the call.
        let result = unsafe { libc::bind(self.0.as_raw_fd(), (&raw const address).cast(), len) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Returns whether the device accesses the memory directly.
    pub(super) fn is_zero_copy(&self) -> bool {
        self.get(libc::XDP_OPTIONS, Word::default())
            .is_ok_and(|flags| flags.0 & libc::XDP_OPTIONS_ZEROCOPY != 0)
    }

    /// Returns the kernel's counters of packets dropped on the way to or from this socket.
    pub(super) fn drops(&self) -> Drops {
        self.get(libc::XDP_STATISTICS, Drops::default()).unwrap_or_default()
    }

    /// Lets calls on this socket drive the interface's queue instead of interrupts, `budget` packets at a
    /// time. Returns whether the system allowed all settings.
    pub(super) fn prefer_busy_poll(&self, budget: u32) -> bool {
        self.set(libc::SOL_SOCKET, SO_PREFER_BUSY_POLL, 1_u32).is_ok()
            && self.set(libc::SOL_SOCKET, libc::SO_BUSY_POLL, BUSY_POLL_US).is_ok()
            && self.set(libc::SOL_SOCKET, SO_BUSY_POLL_BUDGET, budget).is_ok()
    }

    /// Makes room for `depth` packets in flight and a whole burst per call, if the system allows it.
    pub(super) fn widen(&self, depth: u32) {
        /// The bytes that the kernel charges for a short packet, with a margin.
        const CHARGE: u32 = 4096;
        /// The least and the most packets that one call sends.
        const CALL: std::ops::RangeInclusive<u32> = 32..=256;
        let bytes = depth.saturating_mul(CHARGE);
        let _ = self.set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes);
        let call = depth.clamp(*CALL.start(), *CALL.end());
        let _ = self.set(libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, call);
    }

    /// Makes the kernel send the packets in the tx ring.
    pub(super) fn send(&self) -> io::Result<()> {
        // SAFETY: no memory is passed.
        let result = unsafe {
            libc::sendto(self.0.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Wakes the device without sleeping: `poll` does so even where `sendto` leaves it to busy polling.
    pub(super) fn wake(&self) {
        let mut ask = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        // SAFETY: reads and writes one `pollfd`, which outlives the call.
        unsafe { libc::poll(&raw mut ask, 1, 0) };
    }

    /// Makes the kernel read the fill ring, and poll the queue if busy polling is on.
    pub(super) fn receive(&self) {
        // SAFETY: no memory is passed.
        unsafe {
            libc::recvfrom(
                self.0.as_raw_fd(),
                std::ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Structures of integers, valid for any bytes.
trait Integers: Copy {}

/// `struct xdp_mmap_offsets`: producer, consumer, descriptors, flags of the rx, tx, fill and completion rings.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct RingOffsets([[u64; 4]; 4]);
impl Integers for RingOffsets {}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Word(u32);
impl Integers for Word {}

/// `struct xdp_statistics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Drops {
    pub(super) rx_dropped: u64,
    pub(super) rx_invalid: u64,
    pub(super) tx_invalid: u64,
    pub(super) rx_ring_full: u64,
    pub(super) fill_ring_empty: u64,
    pub(super) tx_ring_empty: u64,
}
impl Integers for Drops {}

impl Drops {
    /// Returns the increase since `then`.
    pub(super) fn since(&self, then: &Self) -> Self {
        Self {
            rx_dropped: self.rx_dropped.saturating_sub(then.rx_dropped),
            rx_invalid: self.rx_invalid.saturating_sub(then.rx_invalid),
            tx_invalid: self.tx_invalid.saturating_sub(then.tx_invalid),
            rx_ring_full: self.rx_ring_full.saturating_sub(then.rx_ring_full),
            fill_ring_empty: self.fill_ring_empty.saturating_sub(then.fill_ring_empty),
            tx_ring_empty: self.tx_ring_empty.saturating_sub(then.tx_ring_empty),
        }
    }
}
