//! A network device in this process, behind the kernel's VDUSE (`linux/vduse.h`): what its driver sends comes back. For
//! tests of vDPA, on kernels that have no simulated device.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use linecard::eal::shared::SharedBytes;
use linecard::virtio::{
    Access, DeviceConfig, DeviceMemory, DeviceQueue, Features, Layout, Lookahead, RingMemory, SegList,
    Translation, packed, split,
};

/// Its address, the largest MTU it has, and the most descriptors of a ring.
pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
pub(crate) const MTU: u16 = 4000;
pub(crate) const MAX_SIZE: u16 = 1024;

const VDUSE: u32 = 0x81;
const DRIVER_OK: u8 = 4;
/// Receive and transmit, as the driver calls them.
const RX: u32 = 0;
const TX: u32 = 1;
/// Bytes of a virtio header.
const HEADER: usize = 12;

/// `struct vduse_dev_config` with the configuration space of a network device.
#[repr(C)]
struct Creation {
    name: [u8; 256],
    vendor: u32,
    device: u32,
    features: u64,
    queues: u32,
    align: u32,
    reserved: [u32; 13],
    config_size: u32,
    config: [u8; CONFIG],
}
/// Address, status, pairs, MTU.
const CONFIG: usize = 12;
/// Bytes of the structure without what is behind it.
type Head = [u8; 336];
const _: () = assert!(std::mem::offset_of!(Creation, config) == size_of::<Head>());

/// `struct vduse_config_data` with the status field.
#[repr(C)]
struct ConfigChange {
    offset: u32,
    length: u32,
    status: [u8; 2],
}

/// `struct vduse_vq_config`.
#[repr(C)]
struct QueueConfig {
    index: u32,
    max_size: u16,
    reserved: [u16; 13],
}

/// `struct vduse_vq_info`.
#[repr(C)]
#[derive(Default)]
struct QueueInfo {
    index: u32,
    num: u32,
    desc: u64,
    driver: u64,
    device: u64,
    state: [u16; 4],
    ready: u8,
}

/// `struct vduse_iotlb_entry`.
#[repr(C)]
#[derive(Default)]
struct Entry {
    offset: u64,
    start: u64,
    last: u64,
    access: u8,
}

/// A request, and the answer to it: both have 152 bytes.
const MESSAGE: usize = 152;
const PAYLOAD: usize = 24;

/// # Safety
/// `request` reads or writes no more than a `T`.
unsafe fn ioctl<T>(file: &File, request: libc::Ioctl, argument: &mut T) -> std::io::Result<i32> {
    // SAFETY: the caller says that the kernel touches a `T` at most.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, &raw mut *argument) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}

/// A part of the driver's memory.
struct Mapping {
    start: u64,
    last: u64,
    addr: NonNull<u8>,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `Memory::map` with this length; rings and packets in it are not used any more.
        unsafe { libc::munmap(self.addr.as_ptr().cast(), (self.last - self.start + 1) as usize) };
    }
}

/// The driver's memory, mapped when it is first needed.
struct Memory {
    device: File,
    mappings: Mutex<Vec<Mapping>>,
    /// Those of the rings, which stay until the driver resets the device.
    rings: Mutex<Vec<Mapping>>,
}

// SAFETY: the mappings are of memory that any thread may reach.
unsafe impl Send for Memory {}
// SAFETY: the mappings are of memory that any thread may reach, and the list of them has a lock.
unsafe impl Sync for Memory {}

impl Memory {
    fn at(&self, addr: u64, len: u64) -> Option<NonNull<u8>> {
        let last = addr.checked_add(len.max(1) - 1)?;
        let mut mappings = self.mappings.lock().unwrap_or_else(PoisonError::into_inner);
        if !mappings.iter().any(|mapping| mapping.start <= addr && last <= mapping.last) {
            mappings.push(self.map(addr, last)?);
        }
        let mapping = mappings.iter().find(|mapping| mapping.start <= addr && last <= mapping.last)?;
        // SAFETY: within the mapping, as was just asked.
        Some(unsafe { mapping.addr.add((addr - mapping.start) as usize) })
    }

    fn map(&self, start: u64, last: u64) -> Option<Mapping> {
        let mut entry = Entry { start, last, ..Entry::default() };
        // SAFETY: `VDUSE_IOTLB_GET_FD` reads and writes a `vduse_iotlb_entry`.
        let fd = unsafe { ioctl(&self.device, libc::_IOWR::<Entry>(VDUSE, 0x10), &mut entry) }.ok()?;
        // SAFETY: the kernel just made it for this process.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let len = (entry.last - entry.start + 1) as usize;
        let both = libc::PROT_READ | libc::PROT_WRITE;
        let null = std::ptr::null_mut();
        // SAFETY: a fresh mapping, of a file that the driver shares with devices.
        let addr = unsafe {
            libc::mmap(null, len, both, libc::MAP_SHARED, fd.as_raw_fd(), entry.offset as libc::off_t)
        };
        assert_ne!(addr, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Some(Mapping { start: entry.start, last: entry.last, addr: NonNull::new(addr.cast())? })
    }

    fn bytes(&self, addr: u64, len: usize) -> SharedBytes {
        let start = self.at(addr, len as u64).expect("a ring lies in what is shared");
        // SAFETY: a ring's memory stays mapped until the driver resets the device.
        unsafe { SharedBytes::new(start, len) }
    }

    /// What is mapped is mapped for rings; without any, nothing is.
    fn keep(&self) {
        let mut mappings = self.mappings.lock().unwrap_or_else(PoisonError::into_inner);
        self.rings.lock().unwrap_or_else(PoisonError::into_inner).append(&mut mappings);
    }

    /// There are no rings any more.
    fn reset(&self) {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.forget(0, u64::MAX);
    }

    /// The driver changed what lies between these addresses: the kernel says so for all of them.
    fn forget(&self, start: u64, last: u64) {
        let mut mappings = self.mappings.lock().unwrap_or_else(PoisonError::into_inner);
        mappings.retain(|mapping| mapping.last < start || last < mapping.start);
    }
}

// SAFETY: every answer lies in a mapping that stays until the driver takes the memory back.
unsafe impl DeviceMemory for &Memory {
    fn translate(&self, addr: u64, len: u32, _: Access) -> Option<NonNull<u8>> {
        self.at(addr, u64::from(len))
    }

    fn translate_part(&self, addr: u64, len: u32, access: Access) -> Translation {
        self.translate(addr, len, access).map(|start| (start, len)).into()
    }
}

/// Both rings, while the driver is ready.
trait Rings {
    /// Sends back what was sent, as far as there is room; whether anything was done.
    fn turn(&mut self, memory: &Memory) -> bool;
}

struct Pair<T, R> {
    tx: T,
    rx: R,
    /// A frame that waits for room.
    waiting: Option<Vec<u8>>,
}

impl<T: DeviceQueue, R: DeviceQueue> Pair<T, R> {
    fn take(&mut self, memory: &Memory) -> Option<Vec<u8>> {
        let (mut list, mut bytes) = (SegList::new(), Vec::new());
        let head = self.tx.peek_chain(&memory, Lookahead::default(), &mut list).expect("a good driver")?;
        for piece in list.pieces() {
            // SAFETY: translated a moment ago; the driver leaves it alone until it is completed.
            bytes.extend_from_slice(unsafe {
                std::slice::from_raw_parts(piece.ptr.as_ptr().cast_const(), piece.len as usize)
            });
        }
        self.tx.complete(head.used(0));
        self.tx.publish();
        Some(bytes.split_off(HEADER))
    }

    fn give(&mut self, memory: &Memory, frame: &[u8]) -> bool {
        let (mut chains, mut ahead, mut room) = (Vec::new(), Lookahead::default(), 0);
        while room < HEADER + frame.len() {
            let mut list = SegList::new();
            let head = self.rx.peek_chain(&memory, ahead, &mut list).expect("a good driver");
            let Some(head) = head else { return false };
            ahead = ahead.past(head);
            room += head.len as usize;
            chains.push((head, list));
        }
        let mut bytes = vec![0; HEADER - 2];
        bytes.extend_from_slice(&(chains.len() as u16).to_le_bytes());
        bytes.extend_from_slice(frame);
        let mut rest = &bytes[..];
        for (head, list) in chains {
            let before = rest.len();
            for piece in list.pieces() {
                let (now, later) = rest.split_at(rest.len().min(piece.len as usize));
                // SAFETY: as in `take`, and the driver lent the bytes to be written.
                unsafe { std::ptr::copy_nonoverlapping(now.as_ptr(), piece.ptr.as_ptr(), now.len()) };
                rest = later;
            }
            self.rx.complete(head.used((before - rest.len()) as u32));
        }
        self.rx.publish();
        true
    }
}

impl<T: DeviceQueue, R: DeviceQueue> Rings for Pair<T, R> {
    fn turn(&mut self, memory: &Memory) -> bool {
        let Some(frame) = self.waiting.take().or_else(|| self.take(memory)) else { return false };
        let given = self.give(memory, &frame);
        self.waiting = Some(frame).filter(|_| !given);
        given
    }
}

/// The device; it serves until its process ends.
pub(crate) struct Vduse {
    memory: Memory,
    rings: Option<Box<dyn Rings>>,
    /// While this file is there the link is down.
    unplugged: &'static Path,
    up: bool,
}

impl Vduse {
    /// Makes the device `/dev/vduse/NAME`.
    pub(crate) fn make(name: &str, unplugged: &'static Path) -> Self {
        let open = |path: &str| File::options().read(true).write(true).open(path).expect(path);
        let control = open("/dev/vduse/control");
        let features = Features::VERSION_1
            | Features::ACCESS_PLATFORM
            | Features::NET_MAC
            | Features::NET_STATUS
            | Features::NET_MTU
            | Features::NET_MRG_RXBUF
            | Features::INDIRECT_DESC
            | Features::RING_PACKED;
        let mut config = [0; CONFIG];
        config[..6].copy_from_slice(&MAC);
        config[6..8].copy_from_slice(&1_u16.to_le_bytes());
        config[8..10].copy_from_slice(&1_u16.to_le_bytes());
        config[10..].copy_from_slice(&MTU.to_le_bytes());
        let mut creation = Creation {
            name: [0; 256],
            vendor: 0,
            device: 1,
            features: features.bits(),
            queues: 2,
            align: 4096,
            reserved: [0; 13],
            config_size: CONFIG as u32,
            config,
        };
        creation.name[..name.len()].copy_from_slice(name.as_bytes());
        // SAFETY: `VDUSE_CREATE_DEV` reads a `vduse_dev_config` and as much behind it as that says.
        unsafe { ioctl(&control, libc::_IOW::<Head>(VDUSE, 0x02), &mut creation) }.expect("VDUSE_CREATE_DEV");
        let path = format!("/dev/vduse/{name}");
        linecard_lab::wait_until("the device", || Path::new(&path).exists());
        let device = open(&path);
        rustix::fs::fcntl_setfl(&device, rustix::fs::OFlags::NONBLOCK).expect("it is open");
        for index in [RX, TX] {
            let mut queue = QueueConfig { index, max_size: MAX_SIZE, reserved: [0; 13] };
            // SAFETY: `VDUSE_VQ_SETUP` reads a `vduse_vq_config`.
            unsafe { ioctl(&device, libc::_IOW::<QueueConfig>(VDUSE, 0x14), &mut queue) }
                .expect("VDUSE_VQ_SETUP");
        }
        let memory = Memory { device, mappings: Mutex::default(), rings: Mutex::default() };
        Self { memory, rings: None, unplugged, up: true }
    }

    /// For ever.
    pub(crate) fn serve(mut self) -> ! {
        loop {
            let asked = self.answer();
            let moved =
                (0..64).take_while(|_| self.rings.as_mut().is_some_and(|r| r.turn(&self.memory))).count();
            if self.up == self.unplugged.exists() {
                self.plug(!self.up);
            }
            if !asked && moved == 0 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }

    /// Answers a request of the kernel's, if there is one.
    fn answer(&mut self) -> bool {
        let mut request = [0; MESSAGE];
        if (&self.memory.device).read(&mut request).is_err() {
            return false;
        }
        let word = |at: usize| u32::from_ne_bytes(*request[at..].first_chunk().expect("inside"));
        let address = |at: usize| u64::from_ne_bytes(*request[at..].first_chunk().expect("inside"));
        let mut answer = [0; MESSAGE];
        answer[..4].copy_from_slice(&request[4..8]);
        match word(0) {
            // The state of a ring: nobody goes on from there.
            0 => answer[PAYLOAD..PAYLOAD + 4].copy_from_slice(&request[PAYLOAD..PAYLOAD + 4]),
            1 => self.set_status(request[PAYLOAD]),
            2 => self.memory.forget(address(PAYLOAD), address(PAYLOAD + 8)),
            other => panic!("request {other}"),
        }
        (&self.memory.device).write_all(&answer).expect("it takes an answer");
        true
    }

    fn set_status(&mut self, status: u8) {
        // Before the memory that they are in.
        self.rings = None;
        self.memory.reset();
        if status & DRIVER_OK != 0 {
            self.rings = Some(self.start());
            self.memory.keep();
        }
    }

    fn start(&self) -> Box<dyn Rings> {
        let mut features = 0_u64;
        // SAFETY: `VDUSE_DEV_GET_FEATURES` writes a number of eight bytes.
        unsafe { ioctl(&self.memory.device, libc::_IOR::<u64>(VDUSE, 0x11), &mut features) }
            .expect("VDUSE_DEV_GET_FEATURES");
        let features = Features::from_bits_retain(features);
        assert!(features.contains(Features::ACCESS_PLATFORM | Features::NET_STATUS), "{features}");
        let layout = if features.contains(Features::RING_PACKED) { Layout::Packed } else { Layout::Split };
        let indirect = features.contains(Features::INDIRECT_DESC);
        let ring = |index| {
            let mut info = QueueInfo { index, ..QueueInfo::default() };
            // SAFETY: `VDUSE_VQ_GET_INFO` reads and writes a `vduse_vq_info`.
            unsafe { ioctl(&self.memory.device, libc::_IOWR::<QueueInfo>(VDUSE, 0x15), &mut info) }
                .expect("VDUSE_VQ_GET_INFO");
            assert_eq!(info.ready, 1, "ring {index}");
            // Index 0 and wrap counter 1 of both.
            let fresh = if layout == Layout::Packed { [1, 0, 1, 0] } else { [0; 4] };
            assert_eq!(info.state, fresh, "ring {index}");
            let size = u16::try_from(info.num).expect("a size");
            let [desc, driver, device] = layout.areas(size);
            let memory = RingMemory {
                desc: self.memory.bytes(info.desc, desc),
                driver: self.memory.bytes(info.driver, driver),
                device: self.memory.bytes(info.device, device),
            };
            (memory, DeviceConfig { size, event_idx: false, indirect, base: None })
        };
        let ((rx, rx_config), (tx, tx_config)) = (ring(RX), ring(TX));
        match layout {
            Layout::Split => Box::new(Pair {
                tx: split::Device::<false, false>::new(&tx, tx_config).expect("a good ring"),
                rx: split::Device::<false, true>::new(&rx, rx_config).expect("a good ring"),
                waiting: None,
            }),
            Layout::Packed => Box::new(Pair {
                tx: packed::Device::<false, false>::new(&tx, tx_config).expect("a good ring"),
                rx: packed::Device::<false, true>::new(&rx, rx_config).expect("a good ring"),
                waiting: None,
            }),
        }
    }

    /// Changes the link state, and tells the driver.
    fn plug(&mut self, up: bool) {
        let mut change = ConfigChange { offset: 6, length: 2, status: u16::from(up).to_le_bytes() };
        // SAFETY: `VDUSE_DEV_SET_CONFIG` reads a `vduse_config_data` and as much behind it as that says.
        unsafe { ioctl(&self.memory.device, libc::_IOW::<[u8; 8]>(VDUSE, 0x12), &mut change) }
            .expect("VDUSE_DEV_SET_CONFIG");
        // SAFETY: `VDUSE_DEV_INJECT_CONFIG_IRQ` takes no argument. It fails while there is no driver.
        let _ = unsafe { ioctl(&self.memory.device, libc::_IO(VDUSE, 0x13), &mut ()) };
        self.up = up;
    }
}
