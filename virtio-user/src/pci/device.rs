//! A modern virtio device on a PCI bus as the backend.
//!
//! ```text
//!   connect    VFIO (see `vfio`) · capabilities · device_status 0, read until it is 0 · bus master
//!   agree      device_status · driver_feature · device_status
//!   (rings)    VFIO_IOMMU_MAP_DMA · VFIO_DEVICE_SET_IRQS · queue_{select,size,msix_vector,desc,driver,device}
//!   enable     queue_enable · device_status driver-ok · notifications by a mapped register
//!   stop       device_status 0, read until it is 0
//! ```
//!
//! The device's addresses (IOVA) are this process's, so rings carry pointers unchanged. The IOMMU limits it
//! to the packets' memory and the rings of its own port. A device that bypasses the IOMMU is refused.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use linecard_eal::eventfd::EventFd;
use linecard_eal::memory::Segment;
use linecard_pmd::pci::PciAddress;
use linecard_virtio::Features;

use super::bus::Bus;
use super::capability::structures;
use super::interrupts::{Plan, plan};
use super::registers::{Queue, Registers};
use super::{failed, unusable};
use crate::backend::{Backend, MemoryUpdate, Notify, Offer, RingId, RingSetup, Role, Watched, status};
use crate::error::Error;
use crate::events;
use crate::negotiate::SEVERAL_PAIRS;

/// The queue pairs of a device without a control queue.
const ONE_PAIR: u16 = 1;

/// Offsets in the configuration (virtio 1.3, Network Device: Device configuration layout).
const STATUS_AT: u32 = 6;
const PAIRS_AT: u32 = 8;
/// `VIRTIO_NET_S_LINK_UP`, `VIRTIO_NET_S_ANNOUNCE`.
const LINK_UP: u16 = 1;
const ANNOUNCE: u16 = 2;

/// On x86-64, stores reach memory in program order, also for a device beside the processor. Elsewhere that
/// takes barrier instructions that the rings do not have.
const ORDERED: Features =
    if cfg!(target_arch = "x86_64") { Features::ORDER_PLATFORM } else { Features::empty() };

/// Features of the transport: the IOMMU translates addresses, and the configuration has a link state.
const TRANSPORT: Features = Features::ACCESS_PLATFORM.union(Features::NET_STATUS).union(ORDERED);

/// Bits of the ISR status register (virtio 1.3, ISR status capability).
const LINE_CONFIG: u8 = 2;

/// A device in use.
#[derive(Debug)]
pub(super) struct Pci<B: Bus> {
    address: PciAddress,
    registers: Registers<B>,
    offered: Features,
    /// The device's queue pairs.
    pairs: u16,
    /// The pairs before the control queue: all of the device's if several were negotiated, else one.
    before_control: u16,
    /// The eventfd with which the device wakes the driver, for each ring.
    calls: Vec<(RingId, OwnedFd)>,
    /// The use of interrupts; decided when the first ring is started.
    plan: Option<Plan>,
    /// The notification that wakes the device, for each started ring.
    notifiers: Vec<(RingId, Arc<dyn Notify>)>,
    events: events::Events,
    /// Signalled when the configuration changes, and for every event if all interrupts are one.
    changed: EventFd,
    /// Signalled when the device is to be removed.
    removal: EventFd,
    /// Used if no interrupt reports changes.
    timer: Option<OwnedFd>,
    up: bool,
    /// Whether the device has requested an announcement that is not taken yet.
    announce: bool,
}

impl<B: Bus> Pci<B> {
    /// Finds the registers, resets the device, and reads its capabilities.
    pub(super) fn greet(address: PciAddress, bus: B) -> Result<Self, Error> {
        let system = |source| Error::System { action: "watching the device", source };
        let (events, changed) = (events::Events::new().map_err(system)?, EventFd::new().map_err(system)?);
        let removal = EventFd::new().map_err(system)?;
        events.add(&changed).and_then(|()| events.add(&removal)).map_err(system)?;
        bus.set_removal(removal.as_fd())
            .map_err(|source| failed(address, "watching for its removal", source))?;
        let config = bus
            .config_space()
            .map_err(|source| failed(address, "reading its configuration space", source))?;
        let structures =
            structures(&config, bus.bars(), rustix::param::page_size() as u64).map_err(|problem| {
                unusable(address, problem.to_string(), "in QEMU give it disable-modern=off")
            })?;
        let mut device = Self {
            address,
            registers: Registers { bus, structures },
            offered: Features::empty(),
            pairs: ONE_PAIR,
            before_control: ONE_PAIR,
            calls: Vec::new(),
            plan: None,
            notifiers: Vec::new(),
            events,
            changed,
            removal,
            timer: None,
            up: true,
            announce: false,
        };
        // Clears the state of an earlier owner before the device may access memory.
        device.reset()?;
        device
            .registers
            .bus
            .set_master(true)
            .map_err(|error| device.failed("enabling it on the bus", error))?;
        device.ask()?;
        Ok(device)
    }

    fn ask(&mut self) -> Result<(), Error> {
        self.offered =
            self.registers.features().map_err(|error| self.failed("reading its features", error))?;
        if !self.offered.contains(Features::ACCESS_PLATFORM) {
            let problem = "it reaches memory without the IOMMU (no VIRTIO_F_ACCESS_PLATFORM), by addresses that this process does not have";
            return Err(unusable(self.address, problem.into(), "in QEMU give it iommu_platform=on"));
        }
        if self.offered.contains(Features::NET_CTRL_VQ) && self.offered.intersects(SEVERAL_PAIRS) {
            // An invalid number means one pair (virtio 1.3, Network Device: 1 to 0x8000).
            self.pairs =
                self.read16(PAIRS_AT)?.filter(|pairs| (1..=0x8000).contains(pairs)).unwrap_or(ONE_PAIR);
        }
        if self.pairs == ONE_PAIR {
            self.offered -= SEVERAL_PAIRS;
        }
        self.read_link()
    }

    fn failed(&self, action: &str, source: io::Error) -> Error {
        failed(self.address, action, source)
    }

    fn reset(&mut self) -> Result<(), Error> {
        self.notifiers.clear();
        self.registers.reset().map_err(|error| self.failed("resetting it", error))
    }

    fn read16(&self, offset: u32) -> Result<Option<u16>, Error> {
        let mut bytes = [0; 2];
        let told = self.registers.config(offset, &mut bytes);
        let told = told.map_err(|error| self.failed("reading its configuration", error))?;
        Ok(told.then(|| u16::from_le_bytes(bytes)))
    }

    /// Reads the link and the announcement request, if the device has a field for them.
    fn read_link(&mut self) -> Result<(), Error> {
        if self.offered.contains(Features::NET_STATUS)
            && let Some(status) = self.read16(STATUS_AT)?
        {
            (self.up, self.announce) = (status & LINK_UP != 0, status & ANNOUNCE != 0);
        }
        Ok(())
    }

    fn index(&self, ring: RingId) -> Result<u16, Error> {
        let index = u16::try_from(ring.index(self.before_control)).ok();
        let there = ring.role() == Role::Control || ring.queue() < self.pairs;
        index.filter(|_| there).ok_or_else(|| self.no_such(ring))
    }

    fn no_such(&self, ring: RingId) -> Error {
        unusable(self.address, format!("it does not have {ring}"), "give fewer queues=")
    }

    fn map(&self, update: &MemoryUpdate<'_>) -> io::Result<()> {
        let bounds = |segment: &Arc<Segment>| (segment.addr() as u64, segment.len() as u64);
        update.gone.iter().map(bounds).try_for_each(|(addr, len)| self.registers.bus.unmap(addr, len))?;
        update.new.iter().map(bounds).try_for_each(|(addr, len)| self.registers.bus.map(addr, len))
    }

    /// Decides once how the device wakes the driver, and configures the bus.
    fn interrupts(&mut self) -> Result<Plan, Error> {
        if let Some(plan) = self.plan {
            return Ok(plan);
        }
        let plan = self.set_interrupts(plan(self.registers.bus.interrupts(), self.calls.len()))?;
        self.plan = Some(plan);
        Ok(plan)
    }

    fn set_interrupts(&mut self, plan: Plan) -> Result<Plan, Error> {
        let mut fds = vec![self.changed.as_fd()];
        match plan {
            Plan::Each => fds.extend(self.calls.iter().map(|(_, call)| call.as_fd())),
            Plan::OneMessage | Plan::Line => {}
            Plan::Polled => {
                self.look_by_time()?;
                return Ok(plan);
            }
        }
        let set = self.registers.bus.set_interrupts(&fds);
        set.map_err(|error| self.failed("setting its interrupts", error))?;
        let told = self.registers.set_config_vector(plan.config_vector());
        let told = told.map_err(|error| self.failed("setting its interrupts", error))?;
        if told != plan.config_vector() {
            self.look_by_time()?;
        }
        Ok(plan)
    }

    fn look_by_time(&mut self) -> Result<(), Error> {
        let system = |source| Error::System { action: "watching the device", source };
        let timer = events::timer().map_err(system)?;
        self.events.add(&timer).map_err(system)?;
        self.timer = Some(timer);
        Ok(())
    }

    /// Handles a signal: passes it on to the calls of all rings without their own interrupt, whose sleepers
    /// check them. Returns whether the configuration may have changed.
    fn pass_on(&self) -> Result<bool, Error> {
        let config = match self.plan {
            Some(Plan::Each) => return Ok(true),
            None | Some(Plan::Polled) => return Ok(true),
            Some(Plan::OneMessage) => true,
            Some(Plan::Line) => {
                let told = self
                    .registers
                    .take_line()
                    .map_err(|error| self.failed("reading its interrupt", error))?;
                let unmasked = self.registers.bus.unmask_line();
                unmasked.map_err(|error| self.failed("enabling its interrupt", error))?;
                told & LINE_CONFIG != 0
            }
        };
        for (_, call) in &self.calls {
            // The kernel refuses only if the counter is full, and then the sleeper is awake.
            let _ = linecard_eal::eventfd::signal(call.as_fd());
        }
        Ok(config)
    }
}

impl<B: Bus> Backend for Pci<B> {
    fn offer(&self) -> Offer {
        let features = self.offered - TRANSPORT - Features::PROTOCOL_FEATURES;
        Offer { features, pairs: self.pairs, regions: self.registers.bus.most_mappings() }
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

    fn has_interrupts(&self) -> bool {
        plan(self.registers.bus.interrupts(), self.calls.len()) != Plan::Polled
    }

    fn details(&self) -> String {
        let interrupts = self.plan.map_or("", Plan::name);
        format!("PCI {}{interrupts}", self.address)
    }

    fn status(&mut self) -> Result<Option<u8>, Error> {
        self.registers.status().map(Some).map_err(|error| self.failed("reading its status", error))
    }

    fn set_status(&mut self, status: u8) -> Result<(), Error> {
        match status {
            0 => self.reset(),
            _ => self.registers.set_status(status).map_err(|error| self.failed("setting its status", error)),
        }
    }

    fn set_features(&mut self, features: Features) -> Result<(), Error> {
        self.before_control = if features.intersects(SEVERAL_PAIRS) { self.pairs } else { ONE_PAIR };
        let features = features | (self.offered & TRANSPORT);
        self.registers.set_features(features).map_err(|error| self.failed("setting its features", error))
    }

    fn config(&mut self, offset: u32, bytes: &mut [u8]) -> Result<bool, Error> {
        let told = self.registers.config(offset, bytes);
        told.map_err(|error| self.failed("reading its configuration", error))
    }

    fn set_memory(&mut self, update: &MemoryUpdate<'_>) -> Result<(), Error> {
        let ranges = self.registers.bus.ranges();
        let inside = |segment: &Arc<Segment>| {
            let first = segment.addr() as u64;
            let last = first.saturating_add(segment.len() as u64).saturating_sub(1);
            ranges.iter().any(|&(low, high)| low <= first && last <= high)
        };
        if !update.new.iter().all(inside) {
            let (first, last) =
                (ranges.first().map_or(0, |range| range.0), ranges.last().map_or(0, |range| range.1));
            return Err(Error::Iova { first, last });
        }
        self.map(update).map_err(|error| self.failed("mapping memory for it", error))
    }

    fn set_call(&mut self, ring: RingId, call: &EventFd) -> Result<(), Error> {
        let system = |source| Error::System { action: "keeping the eventfd of a ring", source };
        self.calls.push((ring, call.as_fd().try_clone_to_owned().map_err(system)?));
        Ok(())
    }

    fn start_ring(&mut self, ring: &RingSetup<'_>) -> Result<(), Error> {
        let index = self.index(ring.id)?;
        let place = self.calls.iter().position(|(id, _)| *id == ring.id);
        let vector = self.interrupts()?.vector(place);
        let (address, registers) = (self.address, &self.registers);
        let failed = |error| failed(address, "telling it of a ring", error);
        match registers.max_size(index).map_err(failed)? {
            0 => return Err(self.no_such(ring.id)),
            max if ring.size > max => return Err(Error::RingTooLarge { asked: ring.size, max }),
            _ => {}
        }
        let queue = Queue { index, size: ring.size, addrs: ring.addrs, vector };
        let (notify, got) = registers.set_queue(queue).map_err(failed)?;
        if got != vector {
            let problem =
                format!("it has no interrupt for {} (vector {got:#x} instead of {vector:#x})", ring.id);
            return Err(unusable(address, problem, "give it more vectors, or none"));
        }
        let Some((bar, offset)) = registers.structures.notify.of_queue(notify) else {
            let problem =
                format!("its register for {} ({notify:#x}) is not among its notifications", ring.id);
            return Err(unusable(address, problem, "use another device"));
        };
        let notifier = registers.bus.notifier(bar, offset, index).map_err(failed)?;
        self.notifiers.retain(|(id, _)| *id != ring.id);
        self.notifiers.push((ring.id, notifier));
        Ok(())
    }

    /// An enabled ring stays enabled until the device is reset.
    fn enable_ring(&mut self, ring: RingId, on: bool) -> Result<(), Error> {
        if !on {
            return self.reset();
        }
        let index = self.index(ring)?;
        self.registers.enable(index).map_err(|error| self.failed("enabling a ring", error))
    }

    fn disables_rings(&self) -> bool {
        false
    }

    /// Stops all rings with the device, which resets them: the next start begins anew.
    fn stop_ring(&mut self, ring: RingId) -> Result<u32, Error> {
        self.index(ring)?;
        if self.status()? != Some(0) {
            self.reset()?;
        }
        Ok(0)
    }

    fn notifier(&self, ring: RingId) -> Option<Arc<dyn Notify>> {
        self.notifiers.iter().find(|(id, _)| *id == ring).map(|(_, notifier)| notifier.clone())
    }

    fn link_up(&self) -> bool {
        self.up
    }

    fn watched(&self) -> Option<Watched<'_>> {
        Some(Watched::reading(&self.events))
    }

    fn look(&mut self) -> Result<(), Error> {
        if events::take(&self.removal) {
            let problem = "it is being removed from the machine";
            return Err(unusable(self.address, problem.into(), "put it back; the port looks for it"));
        }
        let late = self.timer.as_ref().is_some_and(events::take);
        let signalled = events::take(&self.changed);
        let config = if signalled { self.pass_on()? } else { false };
        if !(late || config) {
            return Ok(());
        }
        match self.status()?.unwrap_or_default() {
            // A removed device reads as all ones.
            u8::MAX => Err(unusable(self.address, "it is gone".into(), "put it back; the port looks for it")),
            got if got & status::NEEDS_RESET != 0 => Err(Error::NeedsReset { status: got }),
            _ => self.read_link(),
        }
    }
}

impl<B: Bus> Drop for Pci<B> {
    fn drop(&mut self) {
        // On failure nothing more can be done: the device is released right after.
        let _ = self.registers.reset();
        let _ = self.registers.bus.set_master(false);
    }
}
