//! `net_virtio_pci`: a virtio network device on a PCI bus, driven by this process through the kernel's VFIO.
//! VFIO gives the process access to the device's registers, and the device access to the shared memory,
//! through an IOMMU.
//!
//! ```text
//!   sysfs ─► vfio (ioctl) ─► capability ─► registers ─► device: Backend
//!   is it     container,     where the     common,      requests of
//!   usable?   group,         registers     status,      a session
//!             mappings       are           queues
//! ```
//! Everything above the backend is that of `net_virtio_user`: rings, paths, filter, control queue. The
//! content of registers and of the configuration is not trusted, and is checked where it is used.

mod bus;
mod capability;
mod device;
mod interrupts;
mod ioctl;
mod registers;
mod sysfs;
#[cfg(test)]
mod tests;
mod vfio;

use std::io;
use std::path::Path;
use std::sync::Arc;

use linecard_pmd::pci::PciAddress;
use linecard_pmd::{DevArgs, Device, Driver, Error as PmdError, ProbeContext};
use linecard_wire::ledger::Descriptors;

use crate::args::{MAX_PAIRS, Options};
use crate::backend::{Backend, Connect, ConnectTimeouts, Waiter};
use crate::driver::VirtioUser;
use crate::error::Error;
use crate::limits::{Limits, ProcessLimits};
use device::Pci;
use vfio::Vfio;

/// The driver's name.
const NAME: &str = "net_virtio_pci";

/// One line for `--help`.
const SUMMARY: &str = "virtio network device on a PCI bus, bound to vfio-pci: addr=0000:00:05.0 (or -a 0000:00:05.0)\
[,queues=N][,queue_size=N][,mac=XX:XX:XX:XX:XX:XX][,mrg_rxbuf=0|1][,in_order=0|1][,packed_vq=0|1][,event_idx=0|1][,speed=MBPS]";

/// The driver `net_virtio_pci`. A device is given by its address: `0000:00:05.0`, or
/// `net_virtio_pci0,addr=0000:00:05.0`.
///
/// ```
/// use linecard_pmd::{DevArgs, Driver, ProbeContext};
/// let driver = linecard_virtio_user::VirtioPci::new();
/// assert!(driver.name() == "net_virtio_pci" && driver.drives_pci());
/// let memory = linecard_eal::memory::Memory::new(Default::default())?;
/// let domain = memory.domain("packets")?;
/// let context = ProbeContext::new(memory, domain, std::time::Duration::ZERO);
/// let problem = driver.probe(&context, &DevArgs::parse("ffff:ff:1f.7")?).err().expect("there is none").to_string();
/// assert!(problem.contains("there is no such device"), "{problem}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct VirtioPci(VirtioUser);

impl VirtioPci {
    /// Creates a driver without devices.
    #[must_use]
    pub const fn new() -> Self {
        Self(VirtioUser::new())
    }

    /// Creates a driver without devices that charges descriptors to a total shared with other drivers.
    ///
    /// ```
    /// use linecard_virtio_user::{Descriptors, VirtioPci};
    /// static DESCRIPTORS: Descriptors = Descriptors::new();
    /// static VIRTIO_PCI: VirtioPci = VirtioPci::sharing(&DESCRIPTORS);
    /// ```
    #[must_use]
    pub const fn sharing(descriptors: &'static Descriptors) -> Self {
        Self(VirtioUser::sharing(descriptors))
    }

    /// Replaces the limits of each port, and those of all ports together. The latter are fixed when the first port is
    /// opened.
    ///
    /// ```
    /// use linecard_virtio_user::{Limits, ProcessLimits, VirtioPci};
    /// let mut limits = Limits::default();
    /// limits.log_lines = 2;
    /// let driver = VirtioPci::new().with_limits(limits, ProcessLimits::default());
    /// # drop(driver);
    /// ```
    #[must_use]
    pub fn with_limits(self, limits: Limits, process: ProcessLimits) -> Self {
        Self(self.0.with_limits(limits).with_process_limits(process))
    }
}

impl Driver for VirtioPci {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        SUMMARY
    }

    fn drives_pci(&self) -> bool {
        true
    }

    fn check_args(&self, args: &DevArgs) -> Result<(), PmdError> {
        parse(args).map(drop)
    }

    fn probe(&self, context: &ProbeContext, args: &DevArgs) -> Result<Box<dyn Device>, PmdError> {
        let (options, address) = parse(args)?;
        let pairs = args.number("queues", 1..=MAX_PAIRS)?.unwrap_or(1);
        self.0.probe_options(context, options, pairs, Arc::new(Place(address)))
    }
}

/// Parses a device's arguments into its options and its address.
fn parse(args: &DevArgs) -> Result<(Options, PciAddress), PmdError> {
    let address = match args.pci() {
        Some(address) => address,
        None => {
            let text = args.required("addr")?;
            let wrong =
                |_| args.problem(format!("'addr={text}' is not possible"), "write it as in 0000:00:05.0");
            text.parse().map_err(wrong)?
        }
    };
    let mut options = Options { driver: NAME, ..Options::parse(args)? };
    if args.value("queues").is_none() {
        // As many as the device has.
        options.queues = MAX_PAIRS;
    }
    // QEMU (seen with 7.2) sets the event index of a packed ring when it stops polling, but does not update
    // it when it then takes more buffers. It may thus sleep on a full ring, and a driver that follows the
    // index does not wake it.
    if options.packed_vq && args.value("event_idx").is_none() {
        options.event_idx = false;
    }
    args.finish()?;
    Ok((options, address))
}

/// A device, given by its PCI address.
#[derive(Debug)]
struct Place(PciAddress);

impl Connect for Place {
    /// Does not wait: the device exists or it does not.
    fn connect(&self, _: &Arc<Waiter>, _: ConnectTimeouts) -> Result<Box<dyn Backend>, Error> {
        let Self(address) = *self;
        let group = sysfs::group(Path::new(sysfs::DEVICES), address)?;
        Ok(Box::new(Pci::greet(address, Vfio::open(address, &group)?)?))
    }
}

/// Returns an error about an unusable device, with a remedy.
fn unusable(address: PciAddress, problem: String, remedy: &str) -> Error {
    Error::Pci { address: address.to_string(), problem, remedy: remedy.to_owned() }
}

/// The action that fails with EPERM if a device could forge the interrupts of others.
pub(crate) const JOINING: &str = "giving its IOMMU group an address space";

/// Returns an error about an action on a device that failed, with a remedy.
fn failed(address: PciAddress, action: &str, source: io::Error) -> Error {
    let remedy = match source.raw_os_error() {
        Some(libc::ENOMEM) => "let this process lock more memory ('ulimit -l unlimited'), or run it as root",
        Some(libc::EBUSY) => "another process or port uses it; end that, or use another device",
        Some(libc::EPERM) if action == JOINING => {
            "the machine cannot keep its interrupts apart: 'modprobe vfio_iommu_type1 allow_unsafe_interrupts=1' allows it all the same"
        }
        Some(libc::EPERM | libc::EACCES) => {
            "let this user read and write the device's group in /dev/vfio, or run it as root"
        }
        _ => "see 'dmesg' for what the kernel says",
    };
    unusable(address, format!("{action}: {source}"), remedy)
}
