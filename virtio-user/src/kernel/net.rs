//! The kernel's network stack as the backend: `/dev/vhost-net` moves packets between the port's rings and the
//! queues of a tap interface (`linux/vhost.h`, `linux/if_tun.h`).
//!
//! ```text
//!   connect    (each pair: open · VHOST_SET_FORK_FROM_OWNER · VHOST_SET_OWNER · VHOST_GET_FEATURES) · offloads of the tap interface
//!   agree      VHOST_SET_FEATURES · TUNSETOFFLOAD
//!   (rings)    VHOST_SET_VRING_CALL · VHOST_SET_MEM_TABLE · VHOST_SET_VRING_{NUM,BASE,ADDR,KICK,ERR}
//!   enable     VHOST_NET_SET_BACKEND queue
//!   stop       VHOST_NET_SET_BACKEND -1 · VHOST_GET_VRING_BASE
//! ```
//!
//! As with DPDK, each queue pair has its own vhost device, and thus its own kernel thread. Features that QEMU
//! adds to vhost-net for a guest (an address, several queues, offloads) are added here for the port: the
//! kernel negotiates only the features of rings.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use linecard_eal::eventfd::EventFd;
use linecard_eal::memory::Segment;
use linecard_netdev::{LinkWatch, Namespace};
use linecard_virtio::Features;

use super::ioctl::Vhost;
use super::tap::Tap;
use super::{memory, refused};
use crate::backend::{Backend, MemoryUpdate, Offer, Phase, RingId, RingSetup, Role, Watched};
use crate::error::Error;
use crate::events;

/// The number of a pair's receive ring in its vhost device.
const RX: u32 = 0;
/// The number of its transmit ring.
const TX: u32 = 1;

/// Features of vhost that the driver must not use: the header that the tap interface adds here
/// (`VHOST_NET_F_VIRTIO_NET_HDR`, the bit of `ANY_LAYOUT`), the dirty log, and address translation.
const NOT_THE_DRIVERS: Features =
    Features::ANY_LAYOUT.union(Features::LOG_ALL).union(Features::ACCESS_PLATFORM);

/// Features that the port and the interface provide without vhost.
const OURS: Features = Features::NET_MAC.union(Features::NET_MQ);

/// A port's vhost devices, one for each queue pair, and the interface behind them.
#[derive(Debug)]
pub(super) struct VhostNet {
    port: String,
    devices: Vec<Arc<Vhost>>,
    tap: Arc<Tap>,
    /// The features of the rings.
    rings: Features,
    /// All offered features: those of the rings and of the interface.
    offered: Features,
    /// The pairs whose tap queue is attached for their receive ring.
    served: Vec<bool>,
    max_regions: usize,
    events: events::Events,
    /// Signalled when the kernel cannot use a ring.
    broken: EventFd,
    links: LinkWatch,
    /// Replaces notifications when the interface reports no changes.
    timer: Option<OwnedFd>,
    up: bool,
}

impl VhostNet {
    /// Makes this process the devices' owner, and reads the features of the devices and the interface.
    pub(super) fn greet(port: &str, devices: Vec<Arc<Vhost>>, tap: Arc<Tap>) -> Result<Self, Error> {
        let system = |source| Error::System { action: "watching the interface", source };
        let broken = EventFd::new().map_err(system)?;
        let links = LinkWatch::new(port, &Namespace::default()).map_err(Error::of_interface)?;
        let events = events::Events::new().map_err(system)?;
        events.add(&broken).map_err(system)?;
        events.add(&links).map_err(system)?;
        let mut greeted = Self {
            port: port.to_owned(),
            served: vec![false; devices.len()],
            devices,
            rings: Features::empty(),
            offered: tap.offloads() | OURS,
            tap,
            max_regions: memory::max_regions(),
            events,
            broken,
            links,
            timer: None,
            up: true,
        };
        // From here on, the devices are released in every case.
        greeted.rings = greeted.own()? - NOT_THE_DRIVERS;
        greeted.offered |= greeted.rings;
        greeted.look_at_the_interface()?;
        Ok(greeted)
    }

    /// Takes ownership of the devices. Returns the ring features that all of them have.
    fn own(&self) -> Result<Features, Error> {
        let mut all = Features::from_bits_retain(u64::MAX);
        for device in &self.devices {
            // A thread of this process inherits the cores of the thread that calls this, which may all be polled (`taskset`).
            // Kernels that offer no choice answer with an error.
            if let Err(error) = device.set_kernel_worker() {
                tracing::debug!("{}: the kernel chooses the kind of vhost's threads: {error}", self.port);
            }
            device.set_owner().map_err(|error| refused("taking over the vhost-net device", error))?;
            let features = device.features();
            let features = features.map_err(|error| refused("reading the features of vhost-net", error))?;
            all &= Features::from_bits_retain(features);
        }
        Ok(all)
    }

    /// Checks the link state and the presence of the interface.
    fn look_at_the_interface(&mut self) -> Result<(), Error> {
        if !self.tap.is_there() {
            return Err(Error::Gone { interface: self.tap.name().to_owned() });
        }
        let told = self.tap.is_up();
        self.up = told.unwrap_or(true);
        if told.is_none() && self.timer.is_none() {
            tracing::debug!("{}: {} is in another namespace", self.port, self.tap.name());
            let system = |source| Error::System { action: "watching the interface", source };
            let timer = events::timer().map_err(system)?;
            self.events.add(&timer).map_err(system)?;
            self.timer = Some(timer);
        }
        Ok(())
    }

    /// Returns the device of a ring, the ring's number in it, and the pair.
    fn place(&self, ring: RingId) -> Result<(&Vhost, u32, usize), Error> {
        let (pair, index) = match ring.role() {
            Role::Receive => (usize::from(ring.queue()), RX),
            Role::Transmit => (usize::from(ring.queue()), TX),
            Role::Control => return Err(Error::RingNumber { ring }),
        };
        self.devices.get(pair).map(|device| (&**device, index, pair)).ok_or(Error::RingNumber { ring })
    }

    /// Connects a ring to its queue. A pair that does not receive sends through queue 0, because the kernel
    /// answers a flow on the queue that the flow came from.
    fn bind(&mut self, ring: RingId) -> Result<(), Error> {
        let (_, index, pair) = self.place(ring)?;
        if index == RX {
            self.tap.serve(pair, true).map_err(|error| refused("adding a queue to the interface", error))?;
            if let Some(served) = self.served.get_mut(pair) {
                *served = true;
            }
        }
        let queue = if self.served.get(pair).is_some_and(|served| *served) { pair } else { 0 };
        let (device, index, _) = self.place(ring)?;
        device
            .set_backend(index, self.tap.queue(queue))
            .map_err(|error| refused("connecting a ring to the interface", error))
    }

    fn unbind(&mut self, ring: RingId) -> Result<(), Error> {
        let (device, index, pair) = self.place(ring)?;
        device.set_backend(index, None).map_err(|error| refused("stopping a ring", error))?;
        if index == RX
            && let Some(served) = self.served.get_mut(pair)
        {
            *served = false;
            // Fails if the interface, and with it the queue, was removed.
            let _ = self.tap.serve(pair, false);
        }
        Ok(())
    }
}

impl Backend for VhostNet {
    fn offer(&self) -> Offer {
        let pairs = u16::try_from(self.devices.len()).unwrap_or(u16::MAX);
        // `regions` counts the ranges that the segments form.
        Offer { features: self.offered, pairs, regions: self.max_regions }
    }

    fn details(&self) -> String {
        format!("vhost-net, interface {}", self.tap.name())
    }

    fn enter(&mut self, phase: Phase) {
        self.tap.set_carrier(phase == Phase::Running);
    }

    fn set_mtu(&mut self, mtu: u16) -> Result<(), Error> {
        self.tap.set_mtu(mtu)
    }

    fn link_up(&self) -> bool {
        self.up
    }

    fn set_features(&mut self, features: Features) -> Result<(), Error> {
        let rings = (features & self.rings).bits();
        for device in &self.devices {
            device
                .set_features(rings)
                .map_err(|error| refused("setting the features of vhost-net", error))?;
        }
        self.tap
            .set_offloads(features)
            .map_err(|error| refused("setting the offloads of the interface", error))
    }

    /// The configuration holds the address of the interface: both ends use the same, as with DPDK.
    fn config(&mut self, offset: u32, bytes: &mut [u8]) -> Result<bool, Error> {
        let mac = self.tap.mac();
        let told = mac.get(offset as usize..).and_then(|rest| rest.get(..bytes.len()));
        if let Some(told) = told {
            bytes.copy_from_slice(told);
        }
        Ok(told.is_some())
    }

    fn regions(&self, segments: &[Arc<Segment>]) -> usize {
        memory::ranges(segments).len()
    }

    fn set_memory(&mut self, update: &MemoryUpdate<'_>) -> Result<(), Error> {
        let table = memory::table(&memory::ranges(update.all));
        // The kernel accepts the table between two packets of a ring, whether the ring is running or not.
        let set = |device: &Arc<Vhost>| device.set_memory(&table);
        self.devices.iter().try_for_each(set).map_err(|error| refused("sharing memory with vhost-net", error))
    }

    fn set_call(&mut self, ring: RingId, call: &EventFd) -> Result<(), Error> {
        let (device, index, _) = self.place(ring)?;
        device.set_call(index, call.as_fd()).map_err(|error| refused("setting what a ring calls", error))
    }

    fn start_ring(&mut self, ring: &RingSetup<'_>) -> Result<(), Error> {
        let (device, index, _) = self.place(ring.id)?;
        let setup = || {
            device.set_size(index, ring.size)?;
            device.set_base(index, ring.base())?;
            device.set_addrs(index, ring.addrs)?;
            device.set_kick(index, ring.kick.as_fd())?;
            device.set_err(index, self.broken.as_fd())
        };
        setup().map_err(|error| refused("telling vhost-net of a ring", error))
    }

    fn enable_ring(&mut self, ring: RingId, on: bool) -> Result<(), Error> {
        if on { self.bind(ring) } else { self.unbind(ring) }
    }

    fn stop_ring(&mut self, ring: RingId) -> Result<u32, Error> {
        self.unbind(ring)?;
        let (device, index, _) = self.place(ring)?;
        device.base(index).map_err(|error| refused("reading where a ring stands", error))
    }

    fn watched(&self) -> Option<Watched<'_>> {
        Some(Watched::reading(&self.events))
    }

    fn look(&mut self) -> Result<(), Error> {
        if events::take(&self.broken) {
            return Err(Error::Unusable);
        }
        let timed = self.timer.as_ref().is_some_and(events::take);
        // Both events are cleared.
        if self.links.drain() | timed { self.look_at_the_interface() } else { Ok(()) }
    }
}

impl Drop for VhostNet {
    fn drop(&mut self) {
        self.tap.set_carrier(false);
        for pair in 0..self.devices.len() {
            let pair = u16::try_from(pair).unwrap_or(u16::MAX);
            for ring in [RingId::receive(pair), RingId::transmit(pair)] {
                let _ = self.unbind(ring);
            }
        }
        // A device that was passed is used again.
        self.devices.iter().for_each(|device| drop(device.reset_owner()));
    }
}
