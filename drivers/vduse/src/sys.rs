//! The kernel's interface (`linux/vduse.h`): structures and `ioctl` requests of `/dev/vduse/control` and `/dev/vduse/NAME`.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `VDUSE_BASE`.
const BASE: u32 = 0x81;
/// The longest name of a device, with its terminating zero (`VDUSE_NAME_MAX`).
pub(crate) const NAME_MAX: usize = 256;
/// The bytes of a network device's configuration space up to its MTU (`struct virtio_net_config`).
pub(crate) const CONFIG_LEN: usize = 12;
/// The offset of its status field.
pub(crate) const STATUS_AT: u32 = 6;
/// `VIRTIO_NET_S_LINK_UP`.
pub(crate) const LINK_UP: u16 = 1;
/// The bytes of a request and of an answer (`struct vduse_dev_request`, `vduse_dev_response`), and the
/// payload's offset.
pub(crate) const MESSAGE_LEN: usize = 152;
pub(crate) const PAYLOAD_AT: usize = 24;

/// `struct vduse_dev_config`, followed by the configuration space of a network device.
#[repr(C)]
pub(crate) struct DeviceConfig {
    pub(crate) name: [u8; NAME_MAX],
    pub(crate) vendor: u32,
    pub(crate) device: u32,
    pub(crate) features: u64,
    pub(crate) rings: u32,
    pub(crate) align: u32,
    pub(crate) reserved: [u32; 13],
    pub(crate) config_len: u32,
    pub(crate) config: [u8; CONFIG_LEN],
}
/// The structure without the configuration space; the request number encodes this size.
type DeviceConfigHead = [u8; 336];
const _: () = assert!(std::mem::offset_of!(DeviceConfig, config) == size_of::<DeviceConfigHead>());

/// `struct vduse_config_data`, followed by the status field.
#[repr(C)]
struct StatusChange {
    offset: u32,
    length: u32,
    status: [u8; 2],
}

/// `struct vduse_vq_config`.
#[repr(C)]
struct RingConfig {
    index: u32,
    max_size: u16,
    reserved: [u16; 13],
}

/// `struct vduse_vq_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RingInfo {
    pub(crate) index: u32,
    pub(crate) size: u32,
    pub(crate) desc: u64,
    pub(crate) driver: u64,
    pub(crate) device: u64,
    /// Split: the available index. Packed: wrap counter and index of the available and of the used ring.
    pub(crate) state: [u16; 4],
    pub(crate) ready: u8,
}

/// `struct vduse_iotlb_entry`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) offset: u64,
    pub(crate) start: u64,
    pub(crate) last: u64,
    pub(crate) access: u8,
}

/// `struct vduse_vq_eventfd`.
#[repr(C)]
struct RingEventFd {
    index: u32,
    fd: i32,
}

/// # Safety
/// `request` makes the kernel read or write at most a `T` at its argument.
unsafe fn ioctl<T>(file: &File, request: libc::Ioctl, argument: &mut T) -> io::Result<i32> {
    // SAFETY: the argument is a `T` of ours, and the kernel accesses no more, as the caller promises.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, &raw mut *argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// `VDUSE_CREATE_DEV`, on the control device.
pub(crate) fn create(control: &File, config: &mut DeviceConfig) -> io::Result<()> {
    // SAFETY: it reads a `vduse_dev_config` and `config_len` bytes after it, all of which are in
    // `DeviceConfig`.
    unsafe { ioctl(control, libc::_IOW::<DeviceConfigHead>(BASE, 0x02), config) }.map(drop)
}

/// `VDUSE_DESTROY_DEV`, on the control device.
pub(crate) fn destroy(control: &File, name: &mut [u8; NAME_MAX]) -> io::Result<()> {
    // SAFETY: it reads a name of `NAME_MAX` bytes.
    unsafe { ioctl(control, libc::_IOW::<[u8; NAME_MAX]>(BASE, 0x03), name) }.map(drop)
}

/// `VDUSE_IOTLB_GET_FD`: the first region of the driver's memory that overlaps these addresses, and its file.
pub(crate) fn region(device: &File, start: u64, last: u64) -> io::Result<(Entry, OwnedFd)> {
    let mut entry = Entry { start, last, ..Entry::default() };
    // SAFETY: it reads and writes a `vduse_iotlb_entry`.
    let fd = unsafe { ioctl(device, libc::_IOWR::<Entry>(BASE, 0x10), &mut entry) }?;
    // SAFETY: the kernel has just created the descriptor for this process.
    Ok((entry, unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// `VDUSE_DEV_GET_FEATURES`: the negotiated features.
pub(crate) fn features(device: &File) -> io::Result<u64> {
    let mut features = 0_u64;
    // SAFETY: it writes an integer of eight bytes.
    unsafe { ioctl(device, libc::_IOR::<u64>(BASE, 0x11), &mut features) }.map(|_| features)
}

/// `VDUSE_DEV_SET_CONFIG` of the status field, and `VDUSE_DEV_INJECT_CONFIG_IRQ`.
pub(crate) fn set_status_field(device: &File, status: u16) -> io::Result<()> {
    let mut change = StatusChange { offset: STATUS_AT, length: 2, status: status.to_le_bytes() };
    // SAFETY: it reads a `vduse_config_data` and `length` bytes after it, all of which are in `StatusChange`.
    unsafe { ioctl(device, libc::_IOW::<[u8; 8]>(BASE, 0x12), &mut change) }?;
    // Refused while there is no driver; a later driver reads the configuration when it starts.
    // SAFETY: it takes no argument.
    let _ = unsafe { ioctl(device, libc::_IO(BASE, 0x13), &mut ()) };
    Ok(())
}

/// `VDUSE_VQ_SETUP`: the most descriptors of a ring.
pub(crate) fn set_max_size(device: &File, index: u32, max_size: u16) -> io::Result<()> {
    let mut ring = RingConfig { index, max_size, reserved: [0; 13] };
    // SAFETY: it reads a `vduse_vq_config`.
    unsafe { ioctl(device, libc::_IOW::<RingConfig>(BASE, 0x14), &mut ring) }.map(drop)
}

/// `VDUSE_VQ_GET_INFO`.
pub(crate) fn ring(device: &File, index: u32) -> io::Result<RingInfo> {
    let mut info = RingInfo { index, ..RingInfo::default() };
    // SAFETY: it reads and writes a `vduse_vq_info`.
    unsafe { ioctl(device, libc::_IOWR::<RingInfo>(BASE, 0x15), &mut info) }.map(|_| info)
}

/// `VDUSE_VQ_SETUP_KICKFD`.
pub(crate) fn set_kick(device: &File, index: u32, kick: BorrowedFd<'_>) -> io::Result<()> {
    let mut ring = RingEventFd { index, fd: kick.as_raw_fd() };
    // SAFETY: it reads a `vduse_vq_eventfd`.
    unsafe { ioctl(device, libc::_IOW::<RingEventFd>(BASE, 0x16), &mut ring) }.map(drop)
}

/// `VDUSE_VQ_INJECT_IRQ`.
pub(crate) fn interrupt(device: &File, mut index: u32) -> io::Result<()> {
    // SAFETY: it reads an integer of four bytes.
    unsafe { ioctl(device, libc::_IOW::<u32>(BASE, 0x17), &mut index) }.map(drop)
}
