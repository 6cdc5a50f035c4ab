//! A vDPA device as the backend: `/dev/vhost-vdpa-N`, a network device in hardware or in a process behind
//! VDUSE, with virtio rings (`linux/vhost.h`, `VHOST_VDPA_…`).
//!
//! ```text
//!   connect    open · VHOST_SET_OWNER · VHOST_GET/SET_BACKEND_FEATURES · VHOST_GET_FEATURES
//!   agree      VHOST_VDPA_SET_STATUS · VHOST_SET_FEATURES · VHOST_VDPA_GET_STATUS
//!   (rings)    VHOST_SET_VRING_CALL · IOTLB updates · VHOST_SET_VRING_{NUM,BASE,ADDR,KICK}
//!   enable     VHOST_VDPA_SET_VRING_ENABLE · VHOST_VDPA_SET_STATUS driver-ok
//!   stop       VHOST_VDPA_SUSPEND, where there is · VHOST_GET_VRING_BASE · VHOST_VDPA_SET_STATUS 0
//! ```
//!
//! The device's addresses (IOVA) are this process's. IOTLB messages map the packets' memory and the rings.
//! The kernel maps memory that is file-backed and shared, as all memory here is (`linecard_eal::memory`).
//!
//! A device uses one queue pair until a driver requests more on the control queue. A device without a control
//! queue has one queue pair (virtio 1.3, Network Device: `VIRTIO_NET_F_MQ` needs `VIRTIO_NET_F_CTRL_VQ`). The
//! control queue is a ring like the others, mapped in the same address space.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use linecard_eal::eventfd::EventFd;
use linecard_eal::memory::Segment;
use linecard_pmd::{DevArgs, Error as PmdError};
use linecard_virtio::{Features, RingAddrs};

use super::ioctl::{IotlbMessage, Vhost};
use super::{cannot_open, refused};
use crate::backend::{
    Backend, Connect, ConnectTimeouts, MemoryUpdate, Offer, RingId, RingSetup, Role, Waiter, Watched, status,
};
use crate::error::Error;
use crate::events;
use crate::negotiate::SEVERAL_PAIRS;

/// The type of a network device (virtio 1.3, Device Types).
const NETWORK: u32 = 1;
/// The queue pairs of a device without a control queue.
const ONE_PAIR: u16 = 1;

/// Offsets in the configuration space of a network device (virtio 1.3, Network Device: Device configuration
/// layout).
const STATUS_AT: u32 = 6;
const PAIRS_AT: u32 = 8;
/// `VIRTIO_NET_S_LINK_UP`.
const LINK_UP: u16 = 1;
/// `VIRTIO_NET_S_ANNOUNCE`.
const ANNOUNCE: u16 = 2;

/// Bits of `VHOST_GET_BACKEND_FEATURES` (`linux/vhost_types.h`).
const IOTLB_MSG_V2: u64 = 1 << 1;
const IOTLB_BATCH: u64 = 1 << 2;
const SUSPEND: u64 = 1 << 4;

/// Features of the transport: the IOTLB translates addresses, and the configuration has a link state.
const TRANSPORT: Features = Features::ACCESS_PLATFORM.union(Features::NET_STATUS);

/// A vDPA device, given by its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VdpaOptions {
    path: PathBuf,
    queue_sizes: [u16; 2],
}

impl VdpaOptions {
    /// Reads the arguments about the device.
    pub(super) fn parse(args: &DevArgs, path: PathBuf, queue_sizes: [u16; 2]) -> Result<Self, PmdError> {
        if let Some(key) = ["iface", "tap_fd", "vhost_fd"].into_iter().find(|key| args.value(key).is_some()) {
            let problem = format!("'{key}' is of path=/dev/vhost-net");
            return Err(args.problem(problem, format!("leave {key} out")));
        }
        if let Some(size) = queue_sizes.into_iter().find(|size| !size.is_power_of_two()) {
            let problem = format!("a queue_size of {size} for a device of the kernel");
            return Err(args.problem(problem, "give a power of two up to 32768"));
        }
        Ok(Self { path, queue_sizes })
    }

    pub(super) fn open(self) -> Result<Arc<dyn Connect>, Error> {
        Ok(Arc::new(self))
    }
}

impl Connect for VdpaOptions {
    fn file(&self) -> Option<&std::path::Path> {
        Some(&self.path)
    }

    /// Does not wait: the device exists or it does not.
    fn connect(&self, _: &Arc<Waiter>, _: ConnectTimeouts) -> Result<Box<dyn Backend>, Error> {
        let device = Vhost::open(&self.path).map_err(|error| cannot_open(&self.path, error))?;
        Ok(Box::new(Vdpa::greet(device, self)?))
    }
}

/// An open vDPA device.
#[derive(Debug)]
struct Vdpa {
    device: Vhost,
    path: PathBuf,
    offered: Features,
    /// The device's queue pairs.
    pairs: u16,
    /// The queue pairs before the control queue: all that the device has if several were negotiated, else
    /// one.
    before_control: u16,
    /// The backend features of the kernel (`VHOST_GET_BACKEND_FEATURES`) in use.
    backend: u64,
    /// The first and the last address that the device can map.
    range: (u64, u64),
    events: events::Events,
    /// Signalled when the configuration changes.
    changed: EventFd,
    up: bool,
    /// Whether the device has requested an announcement that is not taken yet.
    announce: bool,
    suspended: bool,
}

impl Vdpa {
    /// Makes this process the device's owner, and reads its capabilities.
    fn greet(device: Vhost, place: &VdpaOptions) -> Result<Self, Error> {
        let name = || format!("'{}'", place.path.display());
        match device.device_id() {
            Ok(NETWORK) => {}
            Ok(kind) => return Err(Error::DeviceKind { name: name(), kind }),
            Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => {
                return Err(Error::NotVhost { name: name() });
            }
            Err(error) => return Err(refused("reading what the vDPA device is", error)),
        }
        let read = |error| refused("reading what the vDPA device can do", error);
        device.set_owner().map_err(|error| refused("taking over the vDPA device", error))?;
        // Clears the state of an earlier owner.
        device.set_status(0).map_err(|error| refused("resetting the vDPA device", error))?;
        let offered = Features::from_bits_retain(device.features().map_err(read)?);
        let backend = device.backend_features().map_err(read)? & (IOTLB_MSG_V2 | IOTLB_BATCH | SUSPEND);
        if backend & IOTLB_MSG_V2 == 0 {
            return Err(Error::Feature { name: "VHOST_BACKEND_F_IOTLB_MSG_V2" });
        }
        device.set_backend_features(backend).map_err(read)?;
        let max = device.max_size().map_err(read)?;
        if let Some(asked) = place.queue_sizes.into_iter().find(|size| *size > max) {
            return Err(Error::RingTooLarge { asked, max });
        }
        // Kernels before 5.11 do not report the range, and accept all addresses.
        let range = device.iova_range().unwrap_or((0, u64::MAX));
        let (events, changed) = watch(&device)?;
        let path = place.path.clone();
        let (pairs, before_control) = (ONE_PAIR, ONE_PAIR);
        let mut vdpa = Self {
            device,
            path,
            offered,
            pairs,
            before_control,
            backend,
            range,
            events,
            changed,
            up: true,
            announce: false,
            suspended: false,
        };
        vdpa.read_pairs()?;
        vdpa.read_link()?;
        Ok(vdpa)
    }

    fn has(&self, bit: u64) -> bool {
        self.backend & bit != 0
    }

    fn read_u16(&mut self, offset: u32) -> Result<u16, Error> {
        let mut bytes = [0; 2];
        self.config(offset, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    fn read_pairs(&mut self) -> Result<(), Error> {
        if self.offered.contains(Features::NET_CTRL_VQ) && self.offered.intersects(SEVERAL_PAIRS) {
            // An invalid number means one pair (virtio 1.3, Network Device: 1 to 0x8000).
            self.pairs =
                Some(self.read_u16(PAIRS_AT)?).filter(|pairs| (1..=0x8000).contains(pairs)).unwrap_or(1);
        }
        if self.pairs == ONE_PAIR {
            self.offered -= SEVERAL_PAIRS;
        }
        Ok(())
    }

    /// Reads the link and the announcement request, if the device has a field for them.
    fn read_link(&mut self) -> Result<(), Error> {
        if self.offered.contains(Features::NET_STATUS) {
            let status = self.read_u16(STATUS_AT)?;
            (self.up, self.announce) = (status & LINK_UP != 0, status & ANNOUNCE != 0);
        }
        Ok(())
    }

    fn index(&self, ring: RingId) -> Result<u32, Error> {
        if ring.role() != Role::Control && ring.queue() >= self.pairs {
            return Err(Error::RingNumber { ring });
        }
        Ok(ring.index(self.before_control))
    }

    /// Sends one message to the device's IOTLB.
    fn tell(&self, message: IotlbMessage) -> io::Result<()> {
        self.device.write(&message)
    }

    fn map(&self, update: &MemoryUpdate<'_>) -> io::Result<()> {
        let batch = self.has(IOTLB_BATCH);
        if batch {
            self.tell(IotlbMessage::BATCH_BEGIN)?;
        }
        let bounds = |segment: &Arc<Segment>| (segment.addr() as u64, segment.len() as u64);
        for (addr, len) in update.gone.iter().map(bounds) {
            self.tell(IotlbMessage::invalidate(addr, len))?;
        }
        for (addr, len) in update.new.iter().map(bounds) {
            self.tell(IotlbMessage::update(addr, len))?;
        }
        if batch { self.tell(IotlbMessage::BATCH_END) } else { Ok(()) }
    }
}

fn watch(device: &Vhost) -> Result<(events::Events, EventFd), Error> {
    let system = |source| Error::System { action: "watching the device", source };
    let (events, changed) = (events::Events::new().map_err(system)?, EventFd::new().map_err(system)?);
    events.add(&changed).map_err(system)?;
    device.set_config_call(changed.as_fd()).map_err(|error| refused("watching the vDPA device", error))?;
    Ok((events, changed))
}

impl Backend for Vdpa {
    fn offer(&self) -> Offer {
        Offer { features: self.offered - TRANSPORT, pairs: self.pairs, regions: usize::MAX }
    }

    fn has_control_queue(&self) -> bool {
        true
    }

    fn tells_announcements(&self) -> bool {
        self.offered.contains(Features::NET_STATUS)
    }

    fn take_announcement(&mut self) -> bool {
        std::mem::take(&mut self.announce)
    }

    fn details(&self) -> String {
        let words = [(IOTLB_BATCH, " batch"), (SUSPEND, " suspend")];
        let words = words.iter().filter(|(bit, _)| self.has(*bit)).map(|(_, word)| *word);
        format!("vDPA, {}{}", self.path.display(), words.collect::<String>())
    }

    fn status(&mut self) -> Result<Option<u8>, Error> {
        self.device.status().map(Some).map_err(|error| refused("reading the device status", error))
    }

    fn set_status(&mut self, status: u8) -> Result<(), Error> {
        self.suspended = false;
        self.device.set_status(status).map_err(|error| refused("setting the device status", error))
    }

    fn set_features(&mut self, features: Features) -> Result<(), Error> {
        self.before_control = if features.intersects(SEVERAL_PAIRS) { self.pairs } else { ONE_PAIR };
        let features = features | (self.offered & TRANSPORT);
        self.device
            .set_features(features.bits())
            .map_err(|error| refused("setting the features of the vDPA device", error))
    }

    fn config(&mut self, offset: u32, bytes: &mut [u8]) -> Result<bool, Error> {
        let read = |error| refused("reading the device configuration", error);
        let size = self.device.config_size().map_err(read)?;
        let end = u64::from(offset).saturating_add(bytes.len() as u64);
        if end > u64::from(size) {
            return Ok(false);
        }
        self.device.config(offset, bytes).map(|()| true).map_err(read)
    }

    fn set_memory(&mut self, update: &MemoryUpdate<'_>) -> Result<(), Error> {
        let (first, last) = self.range;
        let outside = |segment: &&Arc<Segment>| {
            let start = segment.addr() as u64;
            start < first || start.saturating_add(segment.len() as u64).saturating_sub(1) > last
        };
        if update.new.iter().any(|segment| outside(&segment)) {
            return Err(Error::Iova { first, last });
        }
        self.map(update).map_err(|error| refused("mapping memory for the vDPA device", error))
    }

    fn set_call(&mut self, ring: RingId, call: &EventFd) -> Result<(), Error> {
        let index = self.index(ring)?;
        self.device.set_call(index, call.as_fd()).map_err(|error| refused("setting what a ring calls", error))
    }

    fn start_ring(&mut self, ring: &RingSetup<'_>) -> Result<(), Error> {
        let (index, device) = (self.index(ring.id)?, &self.device);
        let addrs: RingAddrs = ring.addrs;
        let setup = || {
            device.set_size(index, ring.size)?;
            device.set_base(index, ring.base())?;
            device.set_addrs(index, addrs)?;
            device.set_kick(index, ring.kick.as_fd())
        };
        setup().map_err(|error| refused("telling the vDPA device of a ring", error))
    }

    fn enable_ring(&mut self, ring: RingId, on: bool) -> Result<(), Error> {
        let index = self.index(ring)?;
        self.device.set_enable(index, on).map_err(|error| refused("enabling a ring", error))
    }

    /// Stops all rings of the device together, if it can be suspended. The next start begins with a reset, so
    /// nothing is resumed.
    fn stop_ring(&mut self, ring: RingId) -> Result<u32, Error> {
        let index = self.index(ring)?;
        let stop = || match self.has(SUSPEND) {
            true if self.suspended => Ok(()),
            true => self.device.suspend(),
            false => self.device.set_enable(index, false),
        };
        stop().map_err(|error| refused("stopping a ring", error))?;
        self.suspended = self.has(SUSPEND);
        self.device.base(index).map_err(|error| refused("reading where a ring stands", error))
    }

    fn link_up(&self) -> bool {
        self.up
    }

    fn watched(&self) -> Option<Watched<'_>> {
        Some(Watched::reading(&self.events))
    }

    fn look(&mut self) -> Result<(), Error> {
        if !events::take(&self.changed) {
            return Ok(());
        }
        // A removed device fails the request; one that needs a reset raises the same interrupt.
        if let Some(got) = self.status()?.filter(|got| got & status::NEEDS_RESET != 0) {
            return Err(Error::NeedsReset { status: got });
        }
        self.read_link()
    }
}

impl Drop for Vdpa {
    fn drop(&mut self) {
        // Closing the device also resets it, and removes its mappings.
        let _ = self.device.set_status(0);
    }
}
