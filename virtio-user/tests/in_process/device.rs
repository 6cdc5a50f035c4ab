//! A device in the same process as its driver, behind the `Backend` trait: no socket, no messages. All that it needs is in
//! this file.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use linecard_eal::eventfd::EventFd;
use linecard_eal::memory::Segment;
use linecard_eal::shared::SharedBytes;
use linecard_virtio::net::HashReport;
use linecard_virtio::{
    Access, DeviceConfig, DeviceMemory, DeviceQueue, Features, Head, Layout, Lookahead, PeerFault, RingAddrs,
    RingMemory, SegList, Translation, packed, split,
};
use linecard_virtio_user::Error;
use linecard_virtio_user::backend::{
    Backend, Connect, ConnectTimeouts, MemoryUpdate, Offer, Phase, RingId, RingSetup, Waiter, Watched, status,
};

use crate::control_ring::{Control, bytes};

pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

/// A ring as the device knows it.
pub(crate) struct Ring {
    layout: Layout,
    size: u16,
    addrs: RingAddrs,
    pub(crate) enabled: bool,
}

/// What is shared with the device.
#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<RwLock<Vec<Arc<Segment>>>>);

impl Shared {
    pub(crate) fn segments(&self) -> Vec<Arc<Segment>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn at(&self, addr: u64, len: u64) -> Option<NonNull<u8>> {
        let inside = |segment: &Arc<Segment>| {
            let end = addr.checked_sub(segment.addr() as u64)?.checked_add(len)?;
            (end <= segment.len() as u64).then(|| NonNull::new(addr as *mut u8))?
        };
        self.segments().iter().find_map(inside)
    }

    fn bytes(&self, addr: u64, len: usize) -> SharedBytes {
        let start = self.at(addr, len as u64).expect("a ring lies in what is shared");
        // SAFETY: the port keeps its rings until the device has stopped them, and these tests use them no longer.
        unsafe { SharedBytes::new(start, len) }
    }
}

// SAFETY: every answer lies in a segment that is shared at the moment; both ends are moved by turns.
unsafe impl DeviceMemory for Shared {
    fn translate(&self, addr: u64, len: u32, _: Access) -> Option<NonNull<u8>> {
        self.at(addr, u64::from(len))
    }

    fn translate_part(&self, addr: u64, len: u32, access: Access) -> Translation {
        self.translate(addr, len, access).map(|start| (start, len)).into()
    }
}

/// Both rings of a queue, moved by hand.
pub(crate) trait Pair: Send {
    /// The next frame; its header says nothing.
    fn take(&mut self) -> Option<Vec<u8>>;
    /// A frame behind a header that says nothing, and this hash where headers have one.
    fn give_hashed(&mut self, frame: &[u8], hash: HashReport) -> bool;

    fn give(&mut self, frame: &[u8]) -> bool {
        self.give_hashed(frame, HashReport::default())
    }
}

struct Rings<T, R> {
    tx: T,
    rx: R,
    memory: Shared,
    /// Bytes of the header.
    header: usize,
}

impl<T: DeviceQueue, R: DeviceQueue> Pair for Rings<T, R> {
    fn take(&mut self) -> Option<Vec<u8>> {
        let (mut list, mut bytes) = (SegList::new(), Vec::new());
        let head =
            self.tx.peek_chain(&self.memory, Lookahead::default(), &mut list).expect("a good driver")?;
        for piece in list.pieces() {
            // SAFETY: the chain was translated, and the driver leaves it alone until it is completed.
            let piece =
                unsafe { std::slice::from_raw_parts(piece.ptr.as_ptr().cast_const(), piece.len as usize) };
            bytes.extend_from_slice(piece);
        }
        self.tx.complete(head.used(0));
        self.tx.publish();
        let frame = bytes.split_off(self.header);
        bytes[10..12].fill(0);
        assert!(bytes.iter().all(|byte| *byte == 0), "nothing is asked of the device: {bytes:?}");
        Some(frame)
    }

    /// In as many buffers as it takes.
    fn give_hashed(&mut self, frame: &[u8], hash: HashReport) -> bool {
        let (mut chains, mut ahead, mut room): (Vec<(Head, SegList)>, _, _) =
            (Vec::new(), Lookahead::default(), 0);
        while room < self.header + frame.len() {
            let mut list = SegList::new();
            let head: Result<_, PeerFault> = self.rx.peek_chain(&self.memory, ahead, &mut list);
            let Some(head) = head.expect("a good driver") else { return false };
            ahead = ahead.past(head);
            room += head.len as usize;
            chains.push((head, list));
        }
        let mut bytes = vec![0; 10];
        bytes.extend_from_slice(&(chains.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&hash.to_bytes());
        bytes.truncate(self.header);
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

/// The device, whoever drives it.
pub(crate) struct Machine {
    pub(crate) offer: Offer,
    /// What it says of its status instead of what it was told.
    pub(crate) claims: Option<u8>,
    pub(crate) features: Features,
    pub(crate) status: u8,
    pub(crate) shared: Shared,
    pub(crate) rings: BTreeMap<u32, Ring>,
    pub(crate) pairs: BTreeMap<u16, Box<dyn Pair>>,
    pub(crate) calls: HashMap<RingId, OwnedFd>,
    /// Every operation, in order.
    pub(crate) asked: Vec<String>,
    /// The driver that was connected has lost it.
    pub(crate) lost: bool,
    pub(crate) connections: u32,
    /// Readable when the device is lost, or its link changes.
    pub(crate) news: Arc<EventFd>,
    pub(crate) link: bool,
    /// Looks until the link changes without further news.
    pub(crate) change: Option<u8>,
    /// The MTU that it was told.
    pub(crate) mtu: u16,
    /// It signals no call.
    pub(crate) silent: bool,
    /// What its configuration space has.
    pub(crate) config: Vec<u8>,
    pub(crate) control_queue: bool,
    control: Option<Control>,
    /// What was asked on the control queue: class, command, data.
    pub(crate) commands: Vec<Vec<u8>>,
    /// Class and command of what it refuses.
    pub(crate) refuses: Vec<[u8; 2]>,
}

/// A device that tests hold on to.
#[derive(Clone)]
pub(crate) struct InProcess(Arc<Mutex<Machine>>);

impl std::fmt::Debug for InProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InProcess")
    }
}

impl InProcess {
    pub(crate) fn new(pairs: u16) -> Self {
        let features = Features::VERSION_1
            | Features::NET_MRG_RXBUF
            | Features::IN_ORDER
            | Features::RING_PACKED
            | Features::INDIRECT_DESC
            | Features::NET_MAC
            | Features::NET_MQ;
        Self(Arc::new(Mutex::new(Machine {
            offer: Offer { features, pairs, regions: 64 },
            claims: None,
            features: Features::empty(),
            status: 0,
            shared: Shared::default(),
            rings: BTreeMap::new(),
            pairs: BTreeMap::new(),
            calls: HashMap::new(),
            asked: Vec::new(),
            lost: false,
            connections: 0,
            news: Arc::new(EventFd::new().expect("an eventfd")),
            link: true,
            change: None,
            mtu: 0,
            silent: false,
            config: MAC.to_vec(),
            control_queue: false,
            control: None,
            commands: Vec::new(),
            refuses: Vec::new(),
        })))
    }

    pub(crate) fn now(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The driver loses the device.
    pub(crate) fn leave(&self) {
        let mut machine = self.now();
        machine.lost = true;
        machine.news.signal();
    }
}

impl Machine {
    pub(crate) fn note(&mut self, what: impl Into<String>) {
        self.asked.push(what.into());
    }

    pub(crate) fn ring(&self, index: u32) -> Option<(RingMemory, DeviceConfig)> {
        let ring = self.rings.get(&index).filter(|ring| ring.enabled)?;
        let [desc, driver, device] = ring.layout.areas(ring.size);
        let memory = RingMemory {
            desc: self.shared.bytes(ring.addrs.desc, desc),
            driver: self.shared.bytes(ring.addrs.driver, driver),
            device: self.shared.bytes(ring.addrs.device, device),
        };
        let indirect = self.features.contains(Features::INDIRECT_DESC);
        let event_idx = self.features.contains(Features::EVENT_IDX);
        Some((memory, DeviceConfig::default().size(ring.size).event_idx(event_idx).indirect(indirect)))
    }

    /// Answers what is asked on the control queue.
    fn serve(&mut self) {
        let Some(mut control) = self.control.take() else { return };
        while let Some(chain) = control.take() {
            let refused = self.refuses.iter().any(|code| chain.command.starts_with(code));
            bytes(chain.answer.0, 1).copy_from(&[refused.into()]);
            self.commands.push(chain.command.clone());
            control.give(&chain, chain.id.into(), 1, (1, None));
        }
        self.control = Some(control);
    }

    /// Both rings of a queue, once the driver is ready.
    pub(crate) fn pair(&mut self, queue: u16) -> Option<&mut Box<dyn Pair>> {
        if self.status & status::DRIVER_OK == 0 {
            return None;
        }
        if !self.pairs.contains_key(&queue) {
            let pair = self.joined(queue)?;
            self.pairs.insert(queue, pair);
        }
        self.pairs.get_mut(&queue)
    }

    pub(crate) fn joined(&self, queue: u16) -> Option<Box<dyn Pair>> {
        let count = self.offer.pairs;
        let (tx, tx_config) = self.ring(RingId::transmit(queue).index(count))?;
        let (rx, rx_config) = self.ring(RingId::receive(queue).index(count))?;
        let has = |feature| self.features.contains(feature);
        macro_rules! rings {
            ($module:ident, $order:literal) => {
                Box::new(Rings {
                    tx: $module::Device::<$order, false>::new(&tx, tx_config).expect("a good ring"),
                    rx: $module::Device::<$order, true>::new(&rx, rx_config).expect("a good ring"),
                    memory: self.shared.clone(),
                    header: if has(Features::NET_HASH_REPORT) { 20 } else { 12 },
                })
            };
        }
        Some(match (has(Features::RING_PACKED), has(Features::IN_ORDER)) {
            (false, false) => rings!(split, false),
            (false, true) => rings!(split, true),
            (true, false) => rings!(packed, false),
            (true, true) => rings!(packed, true),
        })
    }
}

/// One driver's connection with the device.
struct Connected {
    device: InProcess,
    news: Arc<EventFd>,
}

impl Connect for InProcess {
    fn connect(&self, waiter: &Arc<Waiter>, patience: ConnectTimeouts) -> Result<Box<dyn Backend>, Error> {
        assert!(patience.deadline() >= patience.until);
        if waiter.stopped() {
            return Err(Error::Stopped);
        }
        let mut machine = self.now();
        machine.connections += 1;
        machine.lost = false;
        machine.asked.clear();
        machine.news.drain();
        Ok(Box::new(Connected { device: self.clone(), news: machine.news.clone() }))
    }
}

impl Backend for Connected {
    fn offer(&self) -> Offer {
        self.device.now().offer
    }

    fn details(&self) -> String {
        "in this process".to_owned()
    }

    fn has_control_queue(&self) -> bool {
        self.device.now().control_queue
    }

    fn has_interrupts(&self) -> bool {
        !self.device.now().silent
    }

    fn enter(&mut self, phase: Phase) {
        let name = match phase {
            Phase::Starting(_) => "starting",
            Phase::Running => "running",
            Phase::Stopping(_) => "stopping",
        };
        self.device.now().note(name);
    }

    fn status(&mut self) -> Result<Option<u8>, Error> {
        let machine = self.device.now();
        Ok(Some(machine.claims.unwrap_or(machine.status)))
    }

    fn set_status(&mut self, status: u8) -> Result<(), Error> {
        let mut machine = self.device.now();
        machine.note(format!("status {status}"));
        machine.status = status;
        Ok(())
    }

    fn set_features(&mut self, features: Features) -> Result<(), Error> {
        let mut machine = self.device.now();
        assert_eq!(features & machine.offer.features, features, "only what was offered");
        machine.note("features");
        machine.features = features;
        Ok(())
    }

    fn config(&mut self, offset: u32, bytes: &mut [u8]) -> Result<bool, Error> {
        let machine = self.device.now();
        let told = machine.config.get(offset as usize..).and_then(|rest| rest.get(..bytes.len()));
        if let Some(told) = told {
            bytes.copy_from_slice(told);
        }
        Ok(told.is_some())
    }

    fn set_memory(&mut self, update: &MemoryUpdate<'_>) -> Result<(), Error> {
        let mut machine = self.device.now();
        machine.note("memory");
        let mut known = machine.shared.segments();
        let has =
            |list: &[Arc<Segment>], one: &Arc<Segment>| list.iter().any(|other| Arc::ptr_eq(other, one));
        assert!(update.gone.iter().all(|gone| has(&known, gone)), "what goes was there");
        assert!(!update.new.iter().any(|new| has(&known, new)), "what is new was not");
        known.retain(|one| !has(update.gone, one));
        known.extend(update.new.iter().cloned());
        assert!(known.len() == update.all.len() && known.iter().all(|one| has(update.all, one)));
        *machine.shared.0.write().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(())
    }

    fn set_call(&mut self, ring: RingId, call: &EventFd) -> Result<(), Error> {
        let call = call.as_fd().try_clone_to_owned().expect("a descriptor");
        let mut machine = self.device.now();
        machine.note(format!("call {ring}"));
        machine.calls.insert(ring, call);
        Ok(())
    }

    fn start_ring(&mut self, ring: &RingSetup<'_>) -> Result<(), Error> {
        let mut machine = self.device.now();
        machine.note(format!("start {}", ring.id));
        let index = ring.id.index(machine.offer.pairs);
        let known = Ring { layout: ring.layout, size: ring.size, addrs: ring.addrs, enabled: false };
        assert!(machine.rings.insert(index, known).is_none(), "{} is started twice", ring.id);
        if ring.id == RingId::CONTROL {
            let (layout, size, addrs) = (ring.layout, ring.size, ring.addrs);
            machine.control = Some(Control { layout, size, addrs, at: 0, laps: 0 });
        }
        Ok(())
    }

    fn enable_ring(&mut self, ring: RingId, on: bool) -> Result<(), Error> {
        let mut machine = self.device.now();
        machine.note(format!("enable {ring}"));
        let index = ring.index(machine.offer.pairs);
        machine.rings.get_mut(&index).expect("it was started").enabled = on;
        Ok(())
    }

    fn stop_ring(&mut self, ring: RingId) -> Result<u32, Error> {
        let mut machine = self.device.now();
        machine.note(format!("stop {ring}"));
        let index = ring.index(machine.offer.pairs);
        machine.pairs.remove(&ring.queue());
        machine.rings.remove(&index).expect("it was started");
        Ok(0)
    }

    fn sync(&mut self) -> Result<(), Error> {
        self.device.now().note("sync");
        Ok(())
    }

    fn watched(&self) -> Option<Watched<'_>> {
        Some(Watched::reading(&*self.news))
    }

    fn set_mtu(&mut self, mtu: u16) -> Result<(), Error> {
        self.device.now().mtu = mtu;
        Ok(())
    }

    fn link_up(&self) -> bool {
        self.device.now().link
    }

    fn look(&mut self) -> Result<(), Error> {
        self.news.drain();
        let mut machine = self.device.now();
        machine.serve();
        if machine.lost {
            return Err(Error::Absent { what: "it was taken away".to_owned() });
        }
        machine.change = match machine.change {
            Some(0) => {
                machine.link = !machine.link;
                None
            }
            other => other.map(|looks| looks - 1),
        };
        Ok(())
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut machine = self.device.now();
        machine.note("dropped");
        machine.pairs.clear();
        machine.rings.clear();
        machine.control = None;
        machine.status = 0;
        machine.shared.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

// The port contract.
