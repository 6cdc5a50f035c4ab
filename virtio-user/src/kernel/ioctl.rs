//! The requests of `linux/vhost.h` to `/dev/vhost-net` and `/dev/vhost-vdpa-N`, with all `unsafe` code for
//! both.
//!
//! The numbers and structures are those of the header. rust-vmm's `vhost` crate has them too, but requires a
//! `GuestMemory` and checks for split rings. Here memory grows, addresses are this process's, and rings may
//! be packed.

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

/// `struct vhost_vring_file`; -1 removes the file.
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

/// `struct vhost_memory_region`; the guest address and the user address are the same here.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    guest: u64,
    size: u64,
    user: u64,
    flags: u64,
}

impl Region {
    /// Creates a region with the same address for the device as for this process.
    pub(super) const fn new(addr: u64, size: u64) -> Self {
        Self { guest: addr, size, user: addr, flags: 0 }
    }
}

/// `struct vhost_msg_v2` with a `vhost_iotlb_msg` in it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct IotlbMessage {
    version: u32,
    asid: u32,
    iova: u64,
    size: u64,
    user: u64,
    access: u8,
    kind: u8,
    rest: [u8; 38],
}

impl IotlbMessage {
    /// Begins a batch of changes.
    pub(super) const BATCH_BEGIN: Self = Self::new(0, 0, 5);
    /// Ends the batch.
    pub(super) const BATCH_END: Self = Self::new(0, 0, 6);

    const fn new(addr: u64, size: u64, kind: u8) -> Self {
        /// `VHOST_IOTLB_MSG_V2`.
        const V2: u32 = 2;
        /// `VHOST_ACCESS_RW`.
        const READ_WRITE: u8 = 3;
        Self { version: V2, asid: 0, iova: addr, size, user: addr, access: READ_WRITE, kind, rest: [0; 38] }
    }

    /// Maps memory at the same address for the device as for this process.
    pub(super) const fn update(addr: u64, size: u64) -> Self {
        Self::new(addr, size, 2)
    }

    /// Removes a mapping.
    pub(super) const fn invalidate(addr: u64, size: u64) -> Self {
        Self::new(addr, size, 3)
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
    /// `request` reads or writes at most a `T` at its argument.
    unsafe fn call<T>(&self, request: libc::Ioctl, argument: &mut T) -> io::Result<()> {
        // SAFETY: the kernel accesses at most a `T`, as the caller promises, which is exclusively borrowed
        // for the call.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), request, &raw mut *argument) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Makes a request without an argument.
    fn order(&self, number: u32) -> io::Result<()> {
        // SAFETY: a request made by `_IO` takes no argument.
        unsafe { self.call(libc::_IO(VHOST, number), &mut ()) }
    }

    /// Makes a request that returns a `T`.
    fn get<T: Default>(&self, number: u32) -> io::Result<T> {
        let mut value = T::default();
        // SAFETY: the request with this number in `linux/vhost.h` is `_IOR` of this type (see the callers):
        // it writes a `T`.
        unsafe { self.call(libc::_IOR::<T>(VHOST, number), &mut value) }?;
        Ok(value)
    }

    /// Makes a request that takes a `T`.
    fn set<T>(&self, number: u32, mut value: T) -> io::Result<()> {
        // SAFETY: the request with this number in `linux/vhost.h` is `_IOW` of this type (see the callers):
        // it reads a `T`.
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

    /// `VHOST_SET_FORK_FROM_OWNER` (Linux 6.17), before `set_owner`: the device's worker becomes a kernel thread, as before Linux 6.4,
    /// and not a thread of this process.
    pub(super) fn set_kernel_worker(&self) -> io::Result<()> {
        /// `VHOST_FORK_OWNER_KTHREAD`.
        const KERNEL_THREAD: u8 = 0;
        self.set(0x84, KERNEL_THREAD)
    }

    /// `VHOST_SET_OWNER`: the device uses this process's memory from now on.
    pub(super) fn set_owner(&self) -> io::Result<()> {
        self.order(0x01)
    }

    /// `VHOST_RESET_OWNER`: ends that.
    pub(super) fn reset_owner(&self) -> io::Result<()> {
        self.order(0x02)
    }

    /// `VHOST_SET_MEM_TABLE`: all memory that the device may access.
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
        // SAFETY: the kernel reads the head and the number of regions in it, all of which `words` holds.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), request, words.as_ptr()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// `VHOST_SET_VRING_NUM`: the number of descriptors.
    pub(super) fn set_size(&self, index: u32, size: u16) -> io::Result<()> {
        self.set(0x10, State { index, num: size.into() })
    }

    /// `VHOST_SET_VRING_ADDR`.
    pub(super) fn set_addrs(&self, index: u32, addrs: RingAddrs) -> io::Result<()> {
        let RingAddrs { desc, driver: avail, device: used } = addrs;
        self.set(0x11, RingAddr { index, flags: 0, desc, used, avail, log: 0 })
    }

    /// `VHOST_SET_VRING_BASE`: the state from which the ring continues.
    pub(super) fn set_base(&self, index: u32, base: u32) -> io::Result<()> {
        self.set(0x12, State { index, num: base })
    }

    /// `VHOST_GET_VRING_BASE`: the present state of the ring.
    pub(super) fn base(&self, index: u32) -> io::Result<u32> {
        let mut state = State { index, num: 0 };
        // SAFETY: the request reads and writes a `vhost_vring_state`.
        unsafe { self.call(libc::_IOWR::<State>(VHOST, 0x12), &mut state) }?;
        Ok(state.num)
    }

    /// `VHOST_SET_VRING_KICK`: the eventfd that wakes the device.
    pub(super) fn set_kick(&self, index: u32, event: BorrowedFd<'_>) -> io::Result<()> {
        self.set(0x20, RingFile { index, fd: event.as_raw_fd() })
    }

    /// `VHOST_SET_VRING_CALL`: the eventfd with which the device wakes the driver.
    pub(super) fn set_call(&self, index: u32, event: BorrowedFd<'_>) -> io::Result<()> {
        self.set(0x21, RingFile { index, fd: event.as_raw_fd() })
    }

    /// `VHOST_SET_VRING_ERR`: the eventfd with which the device reports an unusable ring.
    pub(super) fn set_err(&self, index: u32, event: BorrowedFd<'_>) -> io::Result<()> {
        self.set(0x22, RingFile { index, fd: event.as_raw_fd() })
    }

    /// `VHOST_NET_SET_BACKEND`: the source or destination of a ring's packets. `None` stops the ring, and
    /// returns when the device no longer uses it.
    pub(super) fn set_backend(&self, index: u32, queue: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.set(0x30, RingFile { index, fd: queue.map_or(-1, |fd| fd.as_raw_fd()) })
    }
}

/// vDPA devices.
impl Vhost {
    /// `VHOST_VDPA_GET_DEVICE_ID`: the device type.
    pub(super) fn device_id(&self) -> io::Result<u32> {
        self.get(0x70)
    }

    /// `VHOST_VDPA_GET_STATUS`.
    pub(super) fn status(&self) -> io::Result<u8> {
        self.get(0x71)
    }

    /// `VHOST_VDPA_SET_STATUS`.
    pub(super) fn set_status(&self, status: u8) -> io::Result<()> {
        self.set(0x72, status)
    }

    /// `VHOST_GET_BACKEND_FEATURES`.
    pub(super) fn backend_features(&self) -> io::Result<u64> {
        // The header defines it as a request that reads, like all others that get.
        self.get(0x26)
    }

    /// `VHOST_SET_BACKEND_FEATURES`.
    pub(super) fn set_backend_features(&self, features: u64) -> io::Result<()> {
        self.set(0x25, features)
    }

    /// `VHOST_VDPA_GET_CONFIG`: a part of the configuration space.
    pub(super) fn config(&self, offset: u32, bytes: &mut [u8]) -> io::Result<()> {
        /// The head of `struct vhost_vdpa_config`: offset and length.
        const HEAD: usize = 8;
        let len = u32::try_from(bytes.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
        let mut buffer = [&offset.to_ne_bytes()[..], &len.to_ne_bytes(), bytes].concat();
        let request = libc::_IOR::<[u8; HEAD]>(VHOST, 0x73);
        // SAFETY: the kernel reads the head and writes as many bytes after it as the head says; `buffer`
        // holds all of them.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), request, buffer.as_mut_ptr()) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        bytes.copy_from_slice(&buffer[HEAD..]);
        Ok(())
    }

    /// `VHOST_VDPA_GET_CONFIG_SIZE`: the bytes of the configuration space.
    pub(super) fn config_size(&self) -> io::Result<u32> {
        self.get(0x79)
    }

    /// `VHOST_VDPA_SET_VRING_ENABLE`.
    pub(super) fn set_enable(&self, index: u32, on: bool) -> io::Result<()> {
        self.set(0x75, State { index, num: on.into() })
    }

    /// `VHOST_VDPA_GET_VRING_NUM`: the most descriptors of a ring.
    pub(super) fn max_size(&self) -> io::Result<u16> {
        self.get(0x76)
    }

    /// `VHOST_VDPA_SET_CONFIG_CALL`: the eventfd for changes of the configuration.
    pub(super) fn set_config_call(&self, event: BorrowedFd<'_>) -> io::Result<()> {
        self.set(0x77, event.as_raw_fd())
    }

    /// `VHOST_VDPA_GET_IOVA_RANGE`: the first and the last address that the device can map.
    pub(super) fn iova_range(&self) -> io::Result<(u64, u64)> {
        let [first, last] = self.get::<[u64; 2]>(0x78)?;
        Ok((first, last))
    }

    /// `VHOST_VDPA_SUSPEND`: the device stops all rings, and each keeps its state.
    pub(super) fn suspend(&self) -> io::Result<()> {
        self.order(0x7d)
    }

    /// Writes one message to the device's IOTLB, and returns when it has been carried out.
    pub(super) fn write(&self, message: &IotlbMessage) -> io::Result<()> {
        // SAFETY: the kernel reads a `vhost_msg_v2`, all of whose bytes are initialised, as it has no
        // padding.
        let written = unsafe {
            libc::write(self.0.as_raw_fd(), std::ptr::from_ref(message).cast(), size_of::<IotlbMessage>())
        };
        if written < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Returns the count and its padding in memory order.
fn head(count: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&count.to_ne_bytes());
    bytes
}

// The sizes of the header's structures, which are encoded in the request numbers.
const _: () = assert!(size_of::<State>() == 8 && size_of::<RingFile>() == 8);
const _: () = assert!(size_of::<IotlbMessage>() == 72 && align_of::<IotlbMessage>() == 8);
const _: () = assert!(size_of::<RingAddr>() == 40 && size_of::<Region>() == 32);

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is not a vhost device refuses every request with the error that `net.rs` recognises.
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

    /// The numbers that a C program prints from the header on x86-64 and aarch64.
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
