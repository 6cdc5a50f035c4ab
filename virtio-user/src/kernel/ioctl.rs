//! The requests of `linux/vhost.h`: what `/dev/vhost-net` and `/dev/vhost-vdpa-N` are asked. All `unsafe` of both.
//!
//! The numbers and structures are the header's. rust-vmm's `vhost` crate has them too, but only behind a `GuestMemory` of
//! its own and a check that knows split rings alone; here memory grows, addresses are this process's, and rings may be
//! packed.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use linecard_virtio::RingAddrs;

/// `VHOST_VIRTIO`.
const VHOST: u32 = 0xaf;

/// `struct vhost_vring_state`.
#[repr(C)]
struct State {
    index: u32,
    num: u32,
}

/// `struct vhost_vring_file`; -1 takes the file away.
#[repr(C)]
struct RingFile {
    index: u32,
    fd: i32,
}

/// `struct vhost_vring_addr`.
#[repr(C)]
struct RingAddr {
    index: u32,
    flags: u32,
    desc: u64,
    used: u64,
    avail: u64,
    log: u64,
}

/// `struct vhost_memory_region`: guest address and user address are the same here.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    guest: u64,
    size: u64,
    user: u64,
    flags: u64,
}

impl Region {
    /// Memory that has the same address for the device as for this process.
    pub(super) const fn new(addr: u64, size: u64) -> Self {
        Self { guest: addr, size, user: addr, flags: 0 }
    }
}

/// An open vhost device.
#[derive(Debug)]
pub(super) struct Vhost(OwnedFd);

impl From<OwnedFd> for Vhost {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for Vhost {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Vhost {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let options = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path);
        options.map(|file| Self(file.into()))
    }

    /// # Safety
    /// `request` reads or writes no more than a `T` at its argument.
    unsafe fn call<T>(&self, request: libc::Ioctl, argument: &mut T) -> io::Result<()> {
        // SAFETY: the caller says that the kernel touches a `T` at most, which is exclusively borrowed for the call.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), request, &raw mut *argument) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// A request without an argument.
    fn order(&self, number: u32) -> io::Result<()> {
        // SAFETY: a request made by `_IO` takes no argument.
        unsafe { self.call(libc::_IO(VHOST, number), &mut ()) }
    }

    /// A request that writes a `T`.
    fn get<T: Default>(&self, number: u32) -> io::Result<T> {
        let mut value = T::default();
        // SAFETY: the number's request in `linux/vhost.h` is `_IOR` of this type (see the callers), which it writes.
        unsafe { self.call(libc::_IOR::<T>(VHOST, number), &mut value) }?;
        Ok(value)
    }

    /// A request that reads a `T`.
    fn set<T>(&self, number: u32, mut value: T) -> io::Result<()> {
        // SAFETY: the number's request in `linux/vhost.h` is `_IOW` of this type (see the callers), which it reads.
        unsafe { self.call(libc::_IOW::<T>(VHOST, number), &mut value) }
    }

    /// `VHOST_GET_FEATURES`.
    pub(super) fn features(&self) -> io::Result<u64> {
        self.get(0x00)
    }

    /// `VHOST_SET_FEATURES`.
    pub(super) fn set_features(&self, features: u64) -> io::Result<()> {
        self.set(0x00, features)
    }

    /// `VHOST_SET_OWNER`: the device works on this process's memory from now on.
    pub(super) fn set_owner(&self) -> io::Result<()> {
        self.order(0x01)
    }

    /// `VHOST_RESET_OWNER`: it does not any more.
    pub(super) fn reset_owner(&self) -> io::Result<()> {
        self.order(0x02)
    }

    /// `VHOST_SET_MEM_TABLE`: all that the device may touch.
    pub(super) fn set_memory(&self, regions: &[Region]) -> io::Result<()> {
        /// The head of `struct vhost_memory`, without its regions.
        const HEAD: usize = 8;
        let count = u32::try_from(regions.len()).unwrap_or(u32::MAX);
        let mut words: Vec<u64> = vec![u64::from(count)];
        words
            .extend(regions.iter().flat_map(|region| [region.guest, region.size, region.user, region.flags]));
        // The count is the first four bytes; the other four of the head are padding.
        words[0] = u64::from_ne_bytes(head(count));
        let request = libc::_IOW::<[u8; HEAD]>(VHOST, 0x03);
        // SAFETY: the kernel reads the head and as many regions as that says, all of which `words` holds.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), request, words.as_ptr()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// `VHOST_SET_VRING_NUM`: the ring's descriptors.
    pub(super) fn set_size(&self, index: u32, size: u16) -> io::Result<()> {
        self.set(0x10, State { index, num: size.into() })
    }

    /// `VHOST_SET_VRING_ADDR`.
    pub(super) fn set_addrs(&self, index: u32, addrs: RingAddrs) -> io::Result<()> {
        let RingAddrs { desc, driver: avail, device: used } = addrs;
        self.set(0x11, RingAddr { index, flags: 0, desc, used, avail, log: 0 })
    }

    /// `VHOST_SET_VRING_BASE`: where the ring goes on.
    pub(super) fn set_base(&self, index: u32, base: u32) -> io::Result<()> {
        self.set(0x12, State { index, num: base })
    }

    /// `VHOST_GET_VRING_BASE`: where it stands.
    pub(super) fn base(&self, index: u32) -> io::Result<u32> {
        let mut state = State { index, num: 0 };
        // SAFETY: the request reads and writes a `vhost_vring_state`.
        unsafe { self.call(libc::_IOWR::<State>(VHOST, 0x12), &mut state) }?;
        Ok(state.num)
    }

    /// `VHOST_SET_VRING_KICK`: what wakes the device.
    pub(super) fn set_kick(&self, index: u32, event: BorrowedFd<'_>) -> io::Result<()> {
        self.set(0x20, RingFile { index, fd: event.as_raw_fd() })
    }

    /// `VHOST_SET_VRING_CALL`: what it wakes the driver with.
    pub(super) fn set_call(&self, index: u32, event: BorrowedFd<'_>) -> io::Result<()> {
        self.set(0x21, RingFile { index, fd: event.as_raw_fd() })
    }

    /// `VHOST_SET_VRING_ERR`: what it tells of a ring with that it cannot use.
    pub(super) fn set_err(&self, index: u32, event: BorrowedFd<'_>) -> io::Result<()> {
        self.set(0x22, RingFile { index, fd: event.as_raw_fd() })
    }

    /// `VHOST_NET_SET_BACKEND`: what a ring's packets come from or go to; `None` stops the ring, and returns when the device
    /// does not touch it any more.
    pub(super) fn set_backend(&self, index: u32, queue: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.set(0x30, RingFile { index, fd: queue.map_or(-1, |fd| fd.as_raw_fd()) })
    }
}

/// The number and its padding, in the order in which they lie in memory.
fn head(count: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&count.to_ne_bytes());
    bytes
}

// The sizes of the header's structures, which are part of the requests' numbers.
const _: () = assert!(size_of::<State>() == 8 && size_of::<RingFile>() == 8);
const _: () = assert!(size_of::<RingAddr>() == 40 && size_of::<Region>() == 32);

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is no vhost device refuses every request in the way that `net.rs` makes a sentence of.
    #[test]
    fn another_device_refuses() {
        let null = Vhost::open(Path::new("/dev/null")).expect("it opens");
        let refused: [io::Result<()>; 5] = [
            null.features().map(drop),
            null.set_owner(),
            null.set_memory(&[Region::new(0x1000, 0x1000)]),
            null.base(0).map(drop),
            null.set_backend(0, None),
        ];
        for outcome in refused {
            assert_eq!(outcome.expect_err("it is no vhost device").raw_os_error(), Some(libc::ENOTTY));
        }
    }

    /// The numbers that a C program prints of the header on x86-64 and aarch64.
    #[test]
    fn requests_have_the_headers_numbers() {
        assert_eq!(libc::_IOR::<u64>(VHOST, 0x00), 0x8008_af00);
        assert_eq!(libc::_IO(VHOST, 0x01), 0xaf01);
        assert_eq!(libc::_IOW::<[u8; 8]>(VHOST, 0x03), 0x4008_af03);
        assert_eq!(libc::_IOW::<RingAddr>(VHOST, 0x11), 0x4028_af11);
        assert_eq!(libc::_IOWR::<State>(VHOST, 0x12), 0xc008_af12);
        assert_eq!(libc::_IOW::<RingFile>(VHOST, 0x30), 0x4008_af30);
        assert_eq!(head(5)[..4], 5_u32.to_ne_bytes());
    }
}
