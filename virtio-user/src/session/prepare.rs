//! The steps from a device that was found to passing packets, in the order of the specification (virtio 1.3,
//! Device Initialization).

use std::sync::Arc;
use std::time::Instant;

use linecard_mempool::Meta;
use linecard_pmd::PortControl;
use linecard_pmd::offload::RxOffloads;
use linecard_virtio::Features;
use linecard_virtio::net::{device_accepts, driver_accepts};

use super::{HANDSHAKE, Inside, Live, Session, in_use};
use crate::backend::{Backend, Phase, RingId, Role};
use crate::control_queue::{Hashing, Requests};
use crate::doorbell::Doorbell;
use crate::error::Error;
use crate::log::tell;
use crate::memory::Sharing;
use crate::negotiate::{agree, driver_ok, hash_types, max_mtu, speed};
use crate::owed::{Notice, Watch};
use crate::path::{RxPath, TxPath};
use crate::rings::{Named, RingZone, rx_path, tx_path};
use crate::rx::{RxParts, SoftHash};
use crate::thread::after;
use crate::tx::TxParts;

/// Data paths that exist but are not reachable for the application yet.
struct Built {
    doorbells: Vec<Arc<Doorbell>>,
    notice: Arc<Notice>,
    rx: Vec<Named<dyn RxPath>>,
    tx: Vec<Named<dyn TxPath>>,
}

impl Session {
    /// Negotiates features, shares memory, starts the rings and opens the gates.
    pub(super) fn prepare(&mut self, mut backend: Box<dyn Backend>) -> Result<Live, Error> {
        let device = &mut *backend;
        let limit = after(HANDSHAKE);
        device.enter(Phase::Starting(limit));
        let vlans = self.state.filter().rules().vlans.is_some();
        let features = agree(device, &self.state.options, self.pairs(), vlans, &self.state.log)?;
        self.describe(device, features)?;
        device.set_mtu(self.state.mtu())?;
        let mut sharing = Sharing::new(self.state.log.clone());
        self.renew()?;
        for ring in in_use(&self.rings, features) {
            device.set_call(ring.id(), &ring.call)?;
        }
        sharing.update(device, &self.shared_domains)?;
        let built = self.build(features, device.has_interrupts())?;
        let stopped: Vec<_> = self.queues().into_iter().filter(|ring| self.state.is_stopped(*ring)).collect();
        self.start_rings(device, features, &stopped)?;
        driver_ok(device)?;
        self.notify_by(device, features);
        let requests = self.request(device, features, limit)?;
        // The domain may have grown since the memory was shared.
        sharing.update(device, &self.shared_domains)?;
        device.enter(Phase::Running);
        if self.stopped() {
            return Err(Error::Stopped);
        }
        let watch = Watch::new(built.notice.clone(), built.doorbells.clone());
        self.open(built, &stopped)?;
        self.state.set_link(device.link_up());
        self.state.set_up(features, &device.details());
        tell!(self.state.log, INFO, "connected; {}; {}", self.state.features(), self.state.paths());
        Ok(Live { backend, features, sharing, watch, requests, stopped })
    }

    /// Reads the MTU and the medium from the device's configuration.
    fn describe(&self, device: &mut dyn Backend, features: Features) -> Result<(), Error> {
        let (asked, max) = (self.state.mtu(), max_mtu(device, features)?);
        if let Some(max) = max.filter(|max| asked > *max) {
            return Err(Error::Mtu { asked, max });
        }
        let (speed, full_duplex) = speed(device, features)?;
        self.state.set_medium(speed, full_duplex);
        Ok(())
    }

    /// Sends the requests that precede packets, if the device has a control queue.
    fn request(
        &self,
        device: &mut dyn Backend,
        features: Features,
        limit: Instant,
    ) -> Result<Option<Requests>, Error> {
        let zone = self.ring(RingId::CONTROL)?;
        let queues = u16::try_from(self.rx.len()).unwrap_or(u16::MAX);
        let hashing = Hashing::new(self.pairs(), queues, hash_types(device, features)?);
        let mut requests = Requests::new(&self.state.log, zone, features, &self.waiter, hashing)?;
        if let Some(requests) = &mut requests {
            requests.set_pairs(device, Some(limit))?;
            requests.follow_rss(device, self.state.rss_config(), Some(limit))?;
            requests.follow_offloads(device, self.state.guest_offloads(), Some(limit))?;
            requests.follow(device, &self.state.filter().rules(), Some(limit))?;
        }
        Ok(requests)
    }

    /// Queue pairs in use.
    fn pairs(&self) -> u16 {
        let queues = self.rings.iter().filter(|ring| ring.id().role() != Role::Control);
        queues.map(|ring| ring.id().queue().saturating_add(1)).max().unwrap_or(0)
    }

    pub(super) fn ring(&self, id: RingId) -> Result<&RingZone, Error> {
        let ring = self.rings.iter().find(|ring| ring.id() == id);
        ring.ok_or_else(|| Error::Layout(format!("there is no {id}")))
    }

    fn renew(&mut self) -> Result<(), Error> {
        self.trouble.take();
        self.rings.iter_mut().try_for_each(RingZone::renew)
    }

    /// Builds data paths with filled rings, for a device with or without `interrupts`. Dropping them returns
    /// all buffers.
    fn build(&self, features: Features, interrupts: bool) -> Result<Built, Error> {
        let transmit = self.rings.iter().filter(|ring| ring.id().role() == Role::Transmit);
        let notice = Arc::new(Notice::to(self.waiter.clone()));
        let doorbells: Result<Vec<_>, Error> =
            transmit.map(|ring| ring.doorbell(features, &notice)).collect();
        let mut built = Built { doorbells: doorbells?, notice, rx: Vec::new(), tx: Vec::new() };
        for (queue, doorbell) in (0..).zip(&built.doorbells).take(self.rx.len()) {
            let ring = self.ring(RingId::receive(queue))?;
            let parts = RxParts { interrupts, ..self.rx_parts(ring, doorbell, features) };
            let (path, name) = rx_path(ring, features, parts)?;
            let hashes = self.state.options.offloads.rx.contains(RxOffloads::RSS_HASH);
            let path = if hashes { SoftHash::around(path, self.state.rss_config()) } else { path };
            built.rx.push((path, name));
        }
        for (queue, doorbell) in (0..).zip(&built.doorbells).take(self.tx.len()) {
            let ring = self.ring(RingId::transmit(queue))?;
            built.tx.push(tx_path(ring, features, self.tx_parts(ring, doorbell, features))?);
        }
        Ok(built)
    }

    fn rx_parts(&self, ring: &RingZone, doorbell: &Arc<Doorbell>, features: Features) -> RxParts {
        RxParts {
            pool: self.pool.clone(),
            kick: ring.kick.clone(),
            doorbell: doorbell.clone(),
            stats: self.state.counters().rx(usize::from(ring.id().queue())),
            trouble: self.trouble.clone(),
            ring: ring.id(),
            port: Meta::NO_PORT,
            accepted: driver_accepts(features),
            interrupts: true,
            rss: self.state.rss_config().clone(),
        }
    }

    fn tx_parts(&self, ring: &RingZone, doorbell: &Arc<Doorbell>, features: Features) -> TxParts {
        let queue = usize::from(ring.id().queue());
        TxParts {
            pool: self.pool.clone(),
            doorbell: doorbell.clone(),
            stats: self.state.counters().tx(queue),
            trouble: self.trouble.clone(),
            window: self.shared_domains.window.clone(),
            header: ring.header(),
            ring: ring.id(),
            accepted: device_accepts(features),
            missing: self.state.missing.get(queue).cloned().unwrap_or_default(),
        }
    }

    fn start_rings(
        &self,
        device: &mut dyn Backend,
        features: Features,
        stopped: &[RingId],
    ) -> Result<(), Error> {
        for ring in in_use(&self.rings, features) {
            device.start_ring(&ring.setup(features))?;
        }
        let disables = device.disables_rings();
        for ring in in_use(&self.rings, features) {
            let stays = disables && stopped.contains(&ring.id());
            if self.polled(ring.id()) && !stays {
                device.enable_ring(ring.id(), true)?;
            }
        }
        Ok(())
    }

    /// Switches rings whose device is not woken by eventfds to the device's own notification.
    fn notify_by(&self, device: &dyn Backend, features: Features) {
        for ring in in_use(&self.rings, features).filter(|ring| self.polled(ring.id())) {
            device.notifier(ring.id()).into_iter().for_each(|notifier| ring.kick.go_by(notifier));
        }
    }

    /// Returns whether the application has a queue for a ring.
    pub(super) fn polled(&self, ring: RingId) -> bool {
        let queues = match ring.role() {
            Role::Receive => self.rx.len(),
            Role::Transmit => self.tx.len(),
            Role::Control => 1,
        };
        usize::from(ring.queue()) < queues
    }

    fn open(&mut self, built: Built, stopped: &[RingId]) -> Result<(), Error> {
        self.all_outside();
        let is_started = |ring| !stopped.contains(&ring);
        let rx = self.rx.iter_mut().zip(built.rx).zip(&self.state.rx_names);
        for (((inside, (path, name)), shown), queue) in rx.zip(0..) {
            enter(inside, path, is_started(RingId::receive(queue)));
            shown.set(name);
        }
        let tx = self.tx.iter_mut().zip(built.tx).zip(&self.state.tx_names);
        for (((inside, (path, name)), shown), queue) in tx.zip(0..) {
            enter(inside, path, is_started(RingId::transmit(queue)));
            shown.set(name);
        }
        // Not earlier: a sleeper that wakes must find the new rings.
        for (index, queue) in (0..self.rx.len()).zip(0..) {
            self.relay.set(index, Some(self.ring(RingId::receive(queue))?.call.clone()));
        }
        Ok(())
    }
}

/// Puts a path behind a held gate, and opens the gate unless the queue is stopped.
fn enter<P: ?Sized>(inside: &mut Inside<P>, path: Box<P>, is_started: bool) {
    if let Some(value) = inside.value() {
        *value = Some(path);
    }
    if is_started {
        inside.open();
    }
}
