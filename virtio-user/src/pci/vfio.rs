//! A PCI device through VFIO (`Documentation/driver-api/vfio.rst`): a container, which is an address space of
//! the IOMMU; a group in it; the device of the group.
//!
//! Each port has its own container, so that its device reaches only the memory that this port shares.

use std::cell::RefCell;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use linecard_pmd::pci::PciAddress;
use memmap2::{MmapOptions, MmapRaw};
use vfio_bindings::bindings::vfio as api;

use super::bus::{Bus, Interrupts, Ranges};
use super::capability::{BARS, Bar, CONFIG};
use super::{failed, ioctl, unusable};
use crate::backend::Notify;
use crate::error::Error;

/// The directory of VFIO.
const FOLDER: &str = "/dev/vfio";
/// The offset of the command register in the configuration space, and its bits for access to BARs and for bus
/// mastering.
const COMMAND: u64 = 4;
const MEMORY: u16 = 1 << 1;
const MASTER: u16 = 1 << 2;

/// A region of a device, at its offset in the device's descriptor.
#[derive(Clone, Copy, Debug, Default)]
struct Region {
    len: u64,
    offset: u64,
}

/// An opened device with its group and container. Dropping it releases the device.
#[derive(Debug)]
pub(super) struct Vfio {
    // In the order in which they are closed.
    device: File,
    _group: File,
    container: File,
    regions: [Region; BARS],
    config: Region,
    bars: [Bar; BARS],
    ranges: Ranges,
    most_mappings: usize,
    /// The mapped memory. It is unmapped on drop, even if a mapped register keeps the device open.
    mapped: RefCell<Vec<(u64, u64)>>,
    interrupts: Interrupts,
}

impl Vfio {
    /// Opens the device and takes it over.
    pub(super) fn open(address: PciAddress, group: &str) -> Result<Self, Error> {
        let container = container(address)?;
        let group = join(address, group, &container)?;
        let name = CString::new(address.to_string()).unwrap_or_default();
        let device = ioctl::device(&group, &name).map_err(|error| failed(address, "opening it", error))?;
        let asking = |error| failed(address, "asking VFIO what it is", error);
        let info = ioctl::device_info(&device).map_err(asking)?;
        if info.flags & api::VFIO_DEVICE_FLAGS_PCI == 0 {
            return Err(unusable(address, "VFIO has no PCI device of it".into(), "bind it to vfio-pci"));
        }
        let (mut regions, mut bars): ([Region; BARS], [Bar; BARS]) = Default::default();
        for (index, (region, bar)) in (0..).zip(regions.iter_mut().zip(&mut bars)) {
            (*region, *bar) = look_at(&device, index).map_err(asking)?;
        }
        let (config, _) = look_at(&device, api::VFIO_PCI_CONFIG_REGION_INDEX).map_err(asking)?;
        let (ranges, most_mappings) = limits(&container).map_err(asking)?;
        let interrupts = interrupts(&device);
        let mapped = RefCell::default();
        let opened = Self {
            device,
            _group: group,
            container,
            regions,
            config,
            bars,
            ranges,
            most_mappings,
            mapped,
            interrupts,
        };
        opened.command(MEMORY, MASTER).map_err(|error| failed(address, "enabling it on the bus", error))?;
        Ok(opened)
    }

    /// Sets and clears bits of the command register.
    fn command(&self, set: u16, clear: u16) -> io::Result<()> {
        let at = self.config.offset.saturating_add(COMMAND);
        let mut bytes = [0; 2];
        self.device.read_exact_at(&mut bytes, at)?;
        let now = (u16::from_le_bytes(bytes) | set) & !clear;
        self.device.write_all_at(&now.to_le_bytes(), at)
    }

    /// Returns the offset of registers in the device's descriptor, if they are within their BAR.
    fn place(&self, bar: u8, offset: u64, len: usize) -> io::Result<u64> {
        let region = self.regions.get(usize::from(bar)).copied().unwrap_or_default();
        let end = offset.checked_add(len as u64).filter(|end| *end <= region.len);
        let place = end.and_then(|_| region.offset.checked_add(offset));
        place.ok_or_else(|| io::Error::from_raw_os_error(libc::EFAULT))
    }
}

/// Opens a new container, which is an IOMMU address space.
fn container(address: PciAddress) -> Result<File, Error> {
    let path = Path::new(FOLDER).join("vfio");
    let container = open(&path).map_err(|source| cannot_open(&path, source))?;
    let version = ioctl::api_version(&container)
        .map_err(|error| failed(address, "asking VFIO for its version", error))?;
    if version != api::VFIO_API_VERSION {
        let problem = format!("VFIO has version {version} here, known is {}", api::VFIO_API_VERSION);
        return Err(unusable(address, problem, "use the release that belongs to this kernel"));
    }
    if !ioctl::has_extension(&container, api::VFIO_TYPE1v2_IOMMU) {
        let problem = "VFIO has no IOMMU of type 1, version 2";
        return Err(unusable(address, problem.into(), "load the module with 'modprobe vfio_iommu_type1'"));
    }
    Ok(container)
}

/// Opens the group, and adds it to the container.
fn join(address: PciAddress, group: &str, container: &File) -> Result<File, Error> {
    let path = Path::new(FOLDER).join(group);
    let file = open(&path).map_err(|source| cannot_open(&path, source))?;
    let asking = |error| failed(address, "asking for its IOMMU group", error);
    if ioctl::group_flags(&file).map_err(asking)? & api::VFIO_GROUP_FLAGS_VIABLE == 0 {
        let problem = format!("another device of its IOMMU group {group} has a driver that is not VFIO's");
        return Err(unusable(address, problem, "bind every device of that group to vfio-pci"));
    }
    let joining = |error| failed(address, super::JOINING, error);
    ioctl::set_container(&file, container).map_err(joining)?;
    ioctl::set_iommu(container, api::VFIO_TYPE1v2_IOMMU).map_err(joining)?;
    Ok(file)
}

fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).open(path)
}

fn cannot_open(path: &Path, source: io::Error) -> Error {
    let remedy = match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => "load the modules with 'modprobe vfio-pci'",
        Some(libc::EPERM | libc::EACCES) => {
            "give this user the right to it (see 'ls -l /dev/vfio'), or run as root"
        }
        Some(libc::EBUSY) => {
            "another process or port uses a device of that IOMMU group; end it, or use another device"
        }
        _ => "see 'dmesg' for what the kernel says",
    };
    Error::Kernel { action: format!("opening {}", path.display()), source, remedy }
}

/// Returns a region of the device, and the parts of it that can be mapped.
fn look_at(device: &File, index: u32) -> io::Result<(Region, Bar)> {
    let told = ioctl::region_info(device, index)?;
    let info = told.info;
    let region = Region { len: info.size, offset: info.offset };
    let mut bar = Bar { len: info.size, mappable: Vec::new() };
    let both = api::VFIO_REGION_INFO_FLAG_READ | api::VFIO_REGION_INFO_FLAG_WRITE;
    if info.flags & both != both {
        // An inaccessible region counts as empty.
        bar.len = 0;
    }
    if info.flags & api::VFIO_REGION_INFO_FLAG_MMAP == 0 {
        return Ok((region, bar));
    }
    let sparse = u16::try_from(api::VFIO_REGION_INFO_CAP_SPARSE_MMAP).unwrap_or_default();
    let capabilities = info.flags & api::VFIO_REGION_INFO_FLAG_CAPS != 0;
    match told.capability(info.cap_offset, sparse).filter(|_| capabilities) {
        // The areas follow the header and the count, each as an offset and a length.
        Some((at, count)) => {
            let places =
                (0..count as usize).map(|n| at.saturating_add(16).saturating_add(n.saturating_mul(16)));
            let area = |at: usize| Some((told.long(at)?, told.long(at.checked_add(8)?)?));
            bar.mappable.extend(places.map_while(area));
        }
        None => bar.mappable.push((0, info.size)),
    }
    Ok((region, bar))
}

/// Returns the addresses that can be mapped, and the maximum number of mappings.
fn limits(container: &File) -> io::Result<(Ranges, usize)> {
    let told = ioctl::iommu_info(container)?;
    let first = told.info.cap_offset;
    let find = |id: u32| {
        let there = told.info.flags & api::VFIO_IOMMU_INFO_CAPS != 0;
        u16::try_from(id).ok().filter(|_| there).and_then(|id| told.capability(first, id))
    };
    let mut ranges = Vec::new();
    if let Some((at, count)) = find(api::VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE) {
        let places = (0..count as usize).map(|n| at.saturating_add(16).saturating_add(n.saturating_mul(16)));
        ranges.extend(places.map_while(|at| Some((told.long(at)?, told.long(at.checked_add(8)?)?))));
    }
    if ranges.is_empty() {
        // Kernels before 5.4 do not report the ranges, and refuse addresses outside them.
        ranges.push((0, u64::MAX));
    }
    let most = find(api::VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL).map_or(usize::MAX, |(_, count)| count as usize);
    Ok((ranges, most))
}

fn interrupts(device: &File) -> Interrupts {
    let count = |index| {
        let info = ioctl::irq_info(device, index).ok();
        info.filter(|info| info.flags & api::VFIO_IRQ_INFO_EVENTFD != 0).map_or(0, |info| info.count)
    };
    match (count(api::VFIO_PCI_MSIX_IRQ_INDEX), count(api::VFIO_PCI_INTX_IRQ_INDEX)) {
        (0, 0) => Interrupts::Absent,
        (0, _) => Interrupts::Line,
        (messages, _) => Interrupts::Messages(messages),
    }
}

impl Bus for Vfio {
    fn config_space(&self) -> io::Result<[u8; CONFIG]> {
        let mut space = [0; CONFIG];
        self.device.read_exact_at(&mut space, self.config.offset)?;
        Ok(space)
    }

    fn bars(&self) -> &[Bar; BARS] {
        &self.bars
    }

    fn read(&self, bar: u8, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.device.read_exact_at(bytes, self.place(bar, offset, bytes.len())?)
    }

    fn write(&self, bar: u8, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.device.write_all_at(bytes, self.place(bar, offset, bytes.len())?)
    }

    fn set_master(&self, on: bool) -> io::Result<()> {
        if on { self.command(MASTER, 0) } else { self.command(0, MASTER) }
    }

    fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    fn most_mappings(&self) -> usize {
        self.most_mappings
    }

    fn map(&self, addr: u64, len: u64) -> io::Result<()> {
        let flags = api::VFIO_DMA_MAP_FLAG_READ | api::VFIO_DMA_MAP_FLAG_WRITE;
        let map = api::vfio_iommu_type1_dma_map { argsz: 0, flags, vaddr: addr, iova: addr, size: len };
        ioctl::map_dma(&self.container, map)?;
        self.mapped.borrow_mut().push((addr, len));
        Ok(())
    }

    fn unmap(&self, addr: u64, len: u64) -> io::Result<()> {
        let unmapped = ioctl::unmap_dma(&self.container, addr, len)?;
        if unmapped != len {
            return Err(io::Error::other(format!("{unmapped} of {len} bytes were unmapped")));
        }
        self.mapped.borrow_mut().retain(|mapped| *mapped != (addr, len));
        Ok(())
    }

    fn notifier(&self, bar: u8, offset: u64, queue: u16) -> io::Result<Arc<dyn Notify>> {
        Ok(Arc::new(Register::map(&self.device, self.place(bar, offset, 2)?, queue)?))
    }

    fn interrupts(&self) -> Interrupts {
        self.interrupts
    }

    fn set_interrupts(&self, events: &[BorrowedFd<'_>]) -> io::Result<()> {
        let index = match self.interrupts {
            Interrupts::Messages(_) => api::VFIO_PCI_MSIX_IRQ_INDEX,
            Interrupts::Line => api::VFIO_PCI_INTX_IRQ_INDEX,
            Interrupts::Absent => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
        };
        let flags = api::VFIO_IRQ_SET_DATA_EVENTFD | api::VFIO_IRQ_SET_ACTION_TRIGGER;
        let count = u32::try_from(events.len()).unwrap_or(u32::MAX);
        ioctl::set_irqs(&self.device, index, flags, count, events)
    }

    fn set_removal(&self, event: BorrowedFd<'_>) -> io::Result<()> {
        let index = api::VFIO_PCI_REQ_IRQ_INDEX;
        // Kernels before 4.0 do not support it.
        if !ioctl::irq_info(&self.device, index).is_ok_and(|info| info.count > 0) {
            return Ok(());
        }
        let flags = api::VFIO_IRQ_SET_DATA_EVENTFD | api::VFIO_IRQ_SET_ACTION_TRIGGER;
        ioctl::set_irqs(&self.device, index, flags, 1, &[event])
    }

    fn unmask_line(&self) -> io::Result<()> {
        let flags = api::VFIO_IRQ_SET_DATA_NONE | api::VFIO_IRQ_SET_ACTION_UNMASK;
        ioctl::set_irqs(&self.device, api::VFIO_PCI_INTX_IRQ_INDEX, flags, 1, &[])
    }
}

impl Drop for Vfio {
    fn drop(&mut self) {
        for (addr, len) in self.mapped.take() {
            if let Err(error) = ioctl::unmap_dma(&self.container, addr, len) {
                tracing::error!("{len} bytes at {addr:#x} stay mapped for a device: {error}");
            }
        }
    }
}

/// The register that notifies a device of available buffers in one queue, mapped as one page of the device.
#[derive(Debug)]
struct Register {
    page: MmapRaw,
    /// The offset of the register in the page: within the page, and even.
    at: usize,
    queue: u16,
}

impl Register {
    /// Maps the register at offset `place` in the device's descriptor.
    fn map(device: &File, place: u64, queue: u16) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let at = usize::try_from(place % page as u64).unwrap_or_default();
        if !at.is_multiple_of(2) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let start = place.saturating_sub(at as u64);
        let page = MmapOptions::new().offset(start).len(page).map_raw(device)?;
        Ok(Self { page, at, queue })
    }
}

impl Notify for Register {
    fn notify(&self) {
        // P1, pairs with the device, which reads the register before the ring (virtio 1.3, Driver
        // Requirements: Available buffer notifications): everything published before is visible to it.
        fence(Ordering::SeqCst);
        // SAFETY: `at` is even and within the page, see `map`.
        let register = unsafe { self.page.as_mut_ptr().add(self.at) }.cast::<u16>();
        // SAFETY: mapped and writable as long as `self` lives, aligned as `at` is even, and a device
        // register: it is written with one access of its full width, and never read.
        unsafe { register.write_volatile(self.queue.to_le()) };
    }
}
