//! The requests of `linux/vfio.h` to `/dev/vfio/vfio`, `/dev/vfio/N` and devices opened through them, with
//! all `unsafe` code for PCI devices except one register. Structures and constants are those of
//! `vfio-bindings`.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};

use vfio_bindings::bindings::vfio::{
    VFIO_BASE, VFIO_TYPE, vfio_device_info, vfio_group_status, vfio_iommu_type1_dma_map,
    vfio_iommu_type1_dma_unmap, vfio_iommu_type1_info, vfio_irq_info, vfio_irq_set, vfio_region_info,
};

/// The requests, grouped by the file that they go to; the numbers count from `VFIO_BASE`.
const GET_API_VERSION: u32 = 0;
const CHECK_EXTENSION: u32 = 1;
const SET_IOMMU: u32 = 2;
const GROUP_GET_STATUS: u32 = 3;
const GROUP_SET_CONTAINER: u32 = 4;
const GROUP_GET_DEVICE_FD: u32 = 6;
const DEVICE_GET_INFO: u32 = 7;
const DEVICE_GET_REGION_INFO: u32 = 8;
const DEVICE_GET_IRQ_INFO: u32 = 9;
const DEVICE_SET_IRQS: u32 = 10;
const IOMMU_GET_INFO: u32 = 12;
const IOMMU_MAP_DMA: u32 = 13;
const IOMMU_UNMAP_DMA: u32 = 14;

/// The bytes for a structure and the capabilities after it.
const ROOM: usize = 4096;

/// A structure that begins with its length in bytes (`argsz`), which the kernel checks before it accesses the
/// rest.
///
/// # Safety
/// The type is `repr(C)`, begins with a `u32`, and is valid for any bytes.
pub(super) unsafe trait Sized32: Default {}

// SAFETY: `linux/vfio.h` defines it so, and its fields are integers.
unsafe impl Sized32 for vfio_group_status {}
// SAFETY: `linux/vfio.h` defines it so, and its fields are integers.
unsafe impl Sized32 for vfio_device_info {}
// SAFETY: `linux/vfio.h` defines it so, and its fields are integers.
unsafe impl Sized32 for vfio_region_info {}
// SAFETY: `linux/vfio.h` defines it so, and its fields are integers.
unsafe impl Sized32 for vfio_irq_info {}
// SAFETY: `linux/vfio.h` defines it so, and its fields are integers.
unsafe impl Sized32 for vfio_iommu_type1_info {}
// SAFETY: `linux/vfio.h` defines it so, and its fields are integers.
unsafe impl Sized32 for vfio_iommu_type1_dma_map {}
// SAFETY: `linux/vfio.h` defines it so, and its fields are integers; data after it is not used.
unsafe impl Sized32 for vfio_iommu_type1_dma_unmap {}

const fn request(number: u32) -> libc::Ioctl {
    libc::_IO(VFIO_TYPE as u32, VFIO_BASE + number)
}

fn outcome(result: libc::c_int) -> io::Result<u32> {
    u32::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Makes a request whose argument is an integer or absent.
fn with_number(file: &File, number: u32, argument: u32) -> io::Result<u32> {
    // SAFETY: requests made here take their argument by value; the kernel accesses no memory of this process.
    outcome(unsafe { libc::ioctl(file.as_raw_fd(), request(number), libc::c_ulong::from(argument)) })
}

/// Makes a request that reads and writes a `T`, in which the length is already set.
fn with<T: Sized32>(file: &File, number: u32, argument: &mut T) -> io::Result<()> {
    // SAFETY: the kernel accesses `argsz` bytes at most, which callers set to the size of `T`; `argument` is
    // exclusively borrowed for the call.
    outcome(unsafe { libc::ioctl(file.as_raw_fd(), request(number), &raw mut *argument) }).map(drop)
}

fn bytes<T>() -> u32 {
    size_of::<T>() as u32
}

/// A structure, and the capabilities that the kernel writes after it (`VFIO_…_INFO_CAPS`).
pub(super) struct Told<T> {
    pub(super) info: T,
    words: Box<[u64; ROOM / 8]>,
}

impl<T: Sized32 + Copy> Told<T> {
    /// Requests a `T`; `fill` sets its input fields.
    fn ask(file: &File, number: u32, fill: impl FnOnce(&mut T)) -> io::Result<Self> {
        const { assert!(size_of::<T>() <= ROOM && align_of::<T>() <= 8) };
        let (mut words, mut info) = (Box::new([0; ROOM / 8]), T::default());
        fill(&mut info);
        let start = words.as_mut_ptr();
        // SAFETY: `words` has room for a `T`, is aligned for it, and is not borrowed elsewhere.
        unsafe { start.cast::<T>().write(info) };
        // SAFETY: the length is the first field of every `Sized32`; it lies within `words`.
        unsafe { start.cast::<u32>().write(ROOM as u32) };
        // SAFETY: the kernel accesses at most `ROOM` bytes, the length set above, which is the size of
        // `words`.
        outcome(unsafe { libc::ioctl(file.as_raw_fd(), request(number), start) })?;
        // SAFETY: a `T` was written there, and `Sized32` is valid for any bytes that the kernel wrote over
        // it.
        let info = unsafe { start.cast::<T>().read() };
        Ok(Self { info, words })
    }

    /// Returns the 32-bit word at offset `at` of the answer; see [`Told::long`] for 64 bits.
    fn word(&self, at: usize) -> Option<u32> {
        let word = self.words.get(at / 8)?.to_ne_bytes();
        word.get(at % 8..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
    }

    /// Returns the 64-bit word at offset `at`, which must be a multiple of eight.
    pub(super) fn long(&self, at: usize) -> Option<u64> {
        self.words.get(at / 8).copied().filter(|_| at.is_multiple_of(8))
    }

    /// Returns the offset of the capability `id` and the word after its header. `first` is the offset of the
    /// list.
    pub(super) fn capability(&self, first: u32, id: u16) -> Option<(usize, u32)> {
        /// More than the kernel has kinds of capabilities.
        const MOST: usize = 64;
        let mut at = usize::try_from(first).ok()?;
        for _ in 0..MOST {
            if at < size_of::<T>() || !at.is_multiple_of(4) {
                return None;
            }
            // `struct vfio_info_cap_header`: identifier and version, then the offset of the next one.
            let (head, next) = (self.word(at)?, self.word(at.checked_add(4)?)?);
            let [low, high, ..] = head.to_ne_bytes();
            if u16::from_ne_bytes([low, high]) == id {
                return Some((at, self.word(at.checked_add(8)?)?));
            }
            at = usize::try_from(next).ok()?;
        }
        None
    }
}

/// `VFIO_GET_API_VERSION`.
pub(super) fn api_version(container: &File) -> io::Result<u32> {
    with_number(container, GET_API_VERSION, 0)
}

/// `VFIO_CHECK_EXTENSION`.
pub(super) fn has_extension(container: &File, extension: u32) -> bool {
    with_number(container, CHECK_EXTENSION, extension).is_ok_and(|there| there > 0)
}

/// `VFIO_SET_IOMMU`.
pub(super) fn set_iommu(container: &File, kind: u32) -> io::Result<()> {
    with_number(container, SET_IOMMU, kind).map(drop)
}

/// `VFIO_GROUP_GET_STATUS`: returns the flags of the group.
pub(super) fn group_flags(group: &File) -> io::Result<u32> {
    let mut status = vfio_group_status { argsz: bytes::<vfio_group_status>(), flags: 0 };
    with(group, GROUP_GET_STATUS, &mut status).map(|()| status.flags)
}

/// `VFIO_GROUP_SET_CONTAINER`.
pub(super) fn set_container(group: &File, container: &File) -> io::Result<()> {
    let fd = container.as_raw_fd();
    // SAFETY: the kernel reads one integer, which outlives the call.
    outcome(unsafe { libc::ioctl(group.as_raw_fd(), request(GROUP_SET_CONTAINER), &raw const fd) }).map(drop)
}

/// `VFIO_GROUP_GET_DEVICE_FD`.
pub(super) fn device(group: &File, name: &CStr) -> io::Result<File> {
    // SAFETY: the kernel reads a string that ends with a zero, as `name` does.
    let fd = unsafe { libc::ioctl(group.as_raw_fd(), request(GROUP_GET_DEVICE_FD), name.as_ptr()) };
    let fd = outcome(fd)?;
    // SAFETY: the kernel has just created the descriptor for this process.
    Ok(unsafe { File::from_raw_fd(fd.cast_signed()) })
}

/// `VFIO_DEVICE_GET_INFO`.
pub(super) fn device_info(device: &File) -> io::Result<vfio_device_info> {
    let mut info = vfio_device_info { argsz: bytes::<vfio_device_info>(), ..Default::default() };
    with(device, DEVICE_GET_INFO, &mut info).map(|()| info)
}

/// `VFIO_DEVICE_GET_REGION_INFO`, with the region's capabilities.
pub(super) fn region_info(device: &File, index: u32) -> io::Result<Told<vfio_region_info>> {
    Told::ask(device, DEVICE_GET_REGION_INFO, |info: &mut vfio_region_info| info.index = index)
}

/// `VFIO_DEVICE_GET_IRQ_INFO`.
pub(super) fn irq_info(device: &File, index: u32) -> io::Result<vfio_irq_info> {
    let mut info = vfio_irq_info { argsz: bytes::<vfio_irq_info>(), index, ..Default::default() };
    with(device, DEVICE_GET_IRQ_INFO, &mut info).map(|()| info)
}

/// `VFIO_DEVICE_SET_IRQS`: configures the first `count` interrupts of a kind; `events` are their eventfds, if
/// any.
pub(super) fn set_irqs(
    device: &File,
    index: u32,
    flags: u32,
    count: u32,
    events: &[BorrowedFd<'_>],
) -> io::Result<()> {
    /// The size of `struct vfio_irq_set` without its data.
    const HEAD: usize = size_of::<vfio_irq_set>();
    let all = HEAD.saturating_add(events.len().saturating_mul(4));
    let argsz = u32::try_from(all).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let mut words = vec![argsz, flags, index, 0, count];
    const { assert!(HEAD == 5 * 4) };
    words.extend(events.iter().map(|fd| fd.as_raw_fd().cast_unsigned()));
    // SAFETY: the kernel reads as many bytes as the first word says, all of which `words` holds.
    outcome(unsafe { libc::ioctl(device.as_raw_fd(), request(DEVICE_SET_IRQS), words.as_ptr()) }).map(drop)
}

/// `VFIO_IOMMU_GET_INFO`, with its capabilities.
pub(super) fn iommu_info(container: &File) -> io::Result<Told<vfio_iommu_type1_info>> {
    Told::ask(container, IOMMU_GET_INFO, |_| {})
}

/// `VFIO_IOMMU_MAP_DMA`.
pub(super) fn map_dma(container: &File, map: vfio_iommu_type1_dma_map) -> io::Result<()> {
    let mut map = vfio_iommu_type1_dma_map { argsz: bytes::<vfio_iommu_type1_dma_map>(), ..map };
    with(container, IOMMU_MAP_DMA, &mut map)
}

/// `VFIO_IOMMU_UNMAP_DMA`: returns the number of bytes that were unmapped.
pub(super) fn unmap_dma(container: &File, iova: u64, size: u64) -> io::Result<u64> {
    let argsz = bytes::<vfio_iommu_type1_dma_unmap>();
    let mut unmap = vfio_iommu_type1_dma_unmap { argsz, iova, size, ..Default::default() };
    with(container, IOMMU_UNMAP_DMA, &mut unmap).map(|()| unmap.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers that a C program prints from `linux/vfio.h` on x86-64 and aarch64.
    #[test]
    fn requests_have_the_headers_numbers() {
        assert_eq!(request(GET_API_VERSION), 0x3b64);
        assert_eq!(request(GROUP_GET_DEVICE_FD), 0x3b6a);
        assert_eq!(request(DEVICE_SET_IRQS), 0x3b6e);
        assert_eq!(request(IOMMU_MAP_DMA), 0x3b71);
        assert_eq!(request(IOMMU_UNMAP_DMA), 0x3b72);
    }

    #[test]
    fn what_is_no_vfio_device_refuses() {
        let null = File::options().read(true).write(true).open("/dev/null").expect("it opens");
        let refused = [
            api_version(&null).map(drop),
            set_iommu(&null, 3),
            group_flags(&null).map(drop),
            set_container(&null, &null),
            device(&null, c"0000:00:05.0").map(drop),
            device_info(&null).map(drop),
            region_info(&null, 0).map(drop),
            irq_info(&null, 0).map(drop),
            set_irqs(&null, 2, 0, 0, &[]),
            iommu_info(&null).map(drop),
            map_dma(&null, vfio_iommu_type1_dma_map::default()),
            unmap_dma(&null, 0, 0).map(drop),
        ];
        for outcome in refused {
            assert_eq!(outcome.expect_err("it is none").raw_os_error(), Some(libc::ENOTTY));
        }
        assert!(!has_extension(&null, 3));
    }

    /// Two capabilities after the structure: each is found, and invalid lists end.
    #[test]
    fn capabilities_are_found_behind_the_structure() {
        let mut words = Box::new([0_u64; ROOM / 8]);
        let half = |low: u32, high: u32| {
            let [a, b, c, d] = low.to_ne_bytes();
            let [e, f, g, h] = high.to_ne_bytes();
            u64::from_ne_bytes([a, b, c, d, e, f, g, h])
        };
        let head = |id: u16| {
            let [a, b] = id.to_ne_bytes();
            u32::from_ne_bytes([a, b, 1, 0])
        };
        (words[4], words[5]) = (half(head(3), 48), half(7, 0));
        (words[6], words[7], words[8]) = (half(head(1), 0), half(1, 0), 0x1000);
        let mut told = Told { info: vfio_region_info::default(), words };
        assert_eq!((told.capability(32, 3), told.capability(32, 1)), (Some((32, 7)), Some((48, 1))));
        assert_eq!(told.long(64), Some(0x1000));
        for first in [0, 8, 33, 4092, u32::MAX] {
            assert_eq!(told.capability(first, 9), None, "{first}");
        }
        told.words[6] = half(head(1), 32);
        assert_eq!(told.capability(32, 9), None, "a circle");
        assert_eq!((told.long(3), told.long(4096)), (None, None));
    }
}
