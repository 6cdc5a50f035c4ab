//! A device in this process that has a control queue and moves no packets: it records what it is asked, and answers as a
//! test says. It looks at its control queue whenever the port looks at it.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use linecard_eal::eventfd::EventFd;
use linecard_eal::shared::{Shared, SharedBytes, Word};
use linecard_virtio::{Features, Layout, RingAddrs};
use linecard_virtio_user::Error;
use linecard_virtio_user::backend::{
    Backend, Connect, ConnectTimeouts, MemoryUpdate, Offer, RingId, RingSetup, Role, Waiter, Watched,
};

/// Answers of a control queue.
pub const OK: u8 = 0;
pub const ERR: u8 = 1;

/// What the device does with a request.
#[derive(Clone, Copy, Debug)]
pub enum Reply {
    /// Writes this byte, and gives the chain back.
    Ack(u8),
    /// Gives it back without writing anything.
    Nothing,
    /// Never gives it back.
    Silence,
    /// Gives it back when it has been looked at so often.
    Late(u32),
    /// Gives it back twice.
    Twice,
    /// Gives back another buffer, or descriptor.
    Id(u32),
    /// Says that it wrote so much.
    Len(u32),
    /// Moves the used index so far (split).
    Jump(u16),
    /// Writes these flags (packed).
    Flags(u16),
    /// Answers rightly before and after everything in the ring has been overwritten with this byte.
    Scribble(u8),
}

/// Chooses what to do with each request.
pub type Replies = Box<dyn FnMut(&[u8]) -> Reply + Send>;

/// What tests hold on to.
pub struct Machine {
    pub offer: Offer,
    pub control_queue: bool,
    pub features: Features,
    pub status: u8,
    pub config: Vec<u8>,
    /// Rings by their number, and whether they are enabled.
    pub rings: BTreeMap<u32, bool>,
    /// Sizes and places of those that were started.
    addrs: BTreeMap<u32, (u16, RingAddrs)>,
    /// What was asked on the control queue: class, command, data.
    pub commands: Vec<Vec<u8>>,
    pub reply: Replies,
    /// The device asks for an announcement (`VIRTIO_NET_S_ANNOUNCE`).
    pub announce: bool,
    /// Whether the port is told so.
    pub tells_announcements: bool,
    pub connections: u32,
    control: Option<Control>,
    late: Option<u32>,
    call: Option<std::fs::File>,
    news: Arc<EventFd>,
}

#[derive(Clone)]
pub struct Controlled(Arc<Mutex<Machine>>);

impl std::fmt::Debug for Controlled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Controlled")
    }
}

pub fn control_features() -> Features {
    Features::VERSION_1
        | Features::RING_PACKED
        | Features::NET_MQ
        | Features::NET_CTRL_VQ
        | Features::NET_CTRL_RX
        | Features::NET_CTRL_VLAN
        | Features::NET_CTRL_MAC_ADDR
}

impl Controlled {
    /// A device with so many queue pairs, which answers as it should.
    pub fn new(pairs: u16) -> Self {
        Self(Arc::new(Mutex::new(Machine {
            offer: Offer { features: control_features(), pairs, regions: 64 },
            control_queue: true,
            features: Features::empty(),
            status: 0,
            config: Vec::new(),
            rings: BTreeMap::new(),
            addrs: BTreeMap::new(),
            commands: Vec::new(),
            reply: Box::new(|_| Reply::Ack(OK)),
            announce: false,
            tells_announcements: true,
            connections: 0,
            control: None,
            late: None,
            call: None,
            news: Arc::new(EventFd::new().expect("an eventfd")),
        })))
    }

    pub fn now(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The frame in the first buffer of transmit queue 0, in a ring that was never looked at; `None` while nothing was sent.
    pub fn first_sent(&self) -> Option<Vec<u8>> {
        let machine = self.now();
        let (size, addrs) = *machine.addrs.get(&1)?;
        let packed = machine.features.contains(Features::RING_PACKED);
        let layout = if packed { Layout::Packed } else { Layout::Split };
        let chain = Control { layout, size, addrs, at: 0, laps: 0 }.take()?;
        // Behind the header of 12 bytes.
        Some(chain.command[12..].to_vec())
    }

    /// Has it answer in another way from now on.
    pub fn replies(&self, reply: impl FnMut(&[u8]) -> Reply + Send + 'static) {
        self.now().reply = Box::new(reply);
    }

    /// Asks the port to announce its address.
    pub fn ask_for_announcement(&self) {
        let mut machine = self.now();
        machine.announce = true;
        machine.news.signal();
    }

    /// What it was asked since the last time.
    pub fn commands(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.now().commands)
    }
}

/// The device's end of the control ring.
struct Control {
    layout: Layout,
    size: u16,
    addrs: RingAddrs,
    /// Split: the indices. Packed: the slot, and how many slots were passed.
    at: u16,
    laps: u16,
}

/// A cell of the ring; guest addresses are those of this process.
fn cell<T: Word>(addr: u64, offset: usize) -> Shared<T> {
    bytes(addr, offset + size_of::<T>()).cell(offset).expect("aligned")
}

fn bytes(addr: u64, len: usize) -> SharedBytes {
    let start = NonNull::new(addr as *mut u8).expect("an address");
    // SAFETY: the port gave the address of memory that stays until the device is dropped, and reaches it through cells.
    unsafe { SharedBytes::new(start, len) }
}

/// A chain: what was asked, where the answer goes, its id and its descriptors.
struct Chain {
    command: Vec<u8>,
    answer: (u64, u32),
    id: u16,
    descs: u16,
}

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const TURN: u16 = 0x8080;

impl Control {
    fn desc(&self, at: u16) -> (u64, u64) {
        let base = 16 * usize::from(at);
        let meta = cell::<u64>(self.addrs.desc, base + 8).load(Acquire);
        (cell::<u64>(self.addrs.desc, base).load(Relaxed), meta)
    }

    fn wrap(&self) -> bool {
        self.laps.is_multiple_of(2)
    }

    fn take(&self) -> Option<Chain> {
        match self.layout {
            Layout::Split => {
                let avail = cell::<u16>(self.addrs.driver, 2).load(Acquire);
                if avail == self.at {
                    return None;
                }
                let entry = 4 + 2 * usize::from(self.at % self.size);
                let head = cell::<u16>(self.addrs.driver, entry).load(Relaxed);
                Some(self.chain(head, |meta| (meta >> 32) as u16, |_, meta| (meta >> 48) as u16, head))
            }
            Layout::Packed => {
                let (_, meta) = self.desc(self.at);
                let turn = if self.wrap() { 0x80 } else { 0x8000 };
                if (meta >> 48) as u16 & TURN != turn {
                    return None;
                }
                let next = |at: u16, _| (at + 1) % self.size;
                Some(self.chain(self.at, |meta| (meta >> 48) as u16, next, (meta >> 32) as u16))
            }
        }
    }

    fn chain(&self, head: u16, flags: impl Fn(u64) -> u16, next: impl Fn(u16, u64) -> u16, id: u16) -> Chain {
        let (mut at, mut chain) = (head, Chain { command: Vec::new(), answer: (0, 0), id, descs: 0 });
        loop {
            let (addr, meta) = self.desc(at);
            let (len, flags) = (meta as u32, flags(meta));
            chain.descs += 1;
            if flags & WRITE != 0 {
                chain.answer = (addr, len);
            } else {
                let mut part = vec![0; len as usize];
                bytes(addr, part.len()).copy_to(&mut part);
                chain.command.extend(part);
            }
            if flags & NEXT == 0 {
                return chain;
            }
            at = next(at, meta);
        }
    }

    /// Gives a chain back; `id`, `len` and what moves are the device's to choose.
    fn give(&mut self, chain: &Chain, id: u32, len: u32, (step, flags): (u16, Option<u16>)) {
        match self.layout {
            Layout::Split => {
                let entry = 4 + 8 * usize::from(self.at % self.size);
                cell::<u32>(self.addrs.device, entry).store(id, Relaxed);
                cell::<u32>(self.addrs.device, entry + 4).store(len, Relaxed);
                self.at = self.at.wrapping_add(step);
                cell::<u16>(self.addrs.device, 2).store(self.at, Release);
            }
            Layout::Packed => {
                let flags = flags.unwrap_or(if self.wrap() { TURN } else { 0 });
                let meta = u64::from(len) | u64::from(id & 0xffff) << 32 | u64::from(flags) << 48;
                cell::<u64>(self.addrs.desc, 16 * usize::from(self.at) + 8).store(meta, Release);
                for _ in 0..chain.descs {
                    self.at = (self.at + 1) % self.size;
                    self.laps = self.laps.wrapping_add(u16::from(self.at == 0));
                }
            }
        }
    }

    fn scribble(&self, byte: u8) {
        let [desc, driver, device] = self.layout.areas(self.size);
        bytes(self.addrs.desc, desc).fill(byte);
        bytes(self.addrs.driver, driver).fill(byte);
        bytes(self.addrs.device, device).fill(byte);
    }
}

impl Machine {
    /// Serves the control queue.
    fn serve(&mut self) {
        let Some(mut control) = self.control.take() else { return };
        while let Some(chain) = control.take() {
            if let Some(left) = &mut self.late {
                if *left > 0 {
                    *left -= 1;
                    break;
                }
                self.late = None;
                bytes(chain.answer.0, 1).copy_from(&[OK]);
                control.give(&chain, chain.id.into(), 1, (1, None));
                continue;
            }
            self.commands.push(chain.command.clone());
            let reply = (self.reply)(&chain.command);
            if !self.reply_to(&mut control, &chain, reply) {
                break;
            }
        }
        self.control = Some(control);
        // It tells whenever it has looked.
        self.call.iter_mut().for_each(|call| call.write_all(&1_u64.to_ne_bytes()).expect("an eventfd"));
    }

    /// False when the chain is not given back, or the ring is no ring any more.
    fn reply_to(&mut self, control: &mut Control, chain: &Chain, reply: Reply) -> bool {
        let ack = |byte| bytes(chain.answer.0, 1).copy_from(&[byte]);
        let id = u32::from(chain.id);
        if !matches!(reply, Reply::Nothing) {
            ack(OK);
        }
        match reply {
            Reply::Ack(byte) => {
                ack(byte);
                control.give(chain, id, 1, (1, None));
            }
            Reply::Nothing => control.give(chain, id, 0, (1, None)),
            Reply::Silence => {
                self.late = Some(u32::MAX);
                return false;
            }
            Reply::Late(looks) => {
                self.late = Some(looks);
                return false;
            }
            Reply::Twice => {
                control.give(chain, id, 1, (1, None));
                control.give(chain, id, 1, (1, None));
            }
            Reply::Id(id) => control.give(chain, id, 1, (1, None)),
            Reply::Len(len) => control.give(chain, id, len, (1, None)),
            Reply::Jump(step) => control.give(chain, id, 1, (step, None)),
            Reply::Flags(flags) => control.give(chain, id, 1, (1, Some(flags))),
            Reply::Scribble(byte) => control.scribble(byte),
        }
        matches!(reply, Reply::Ack(_) | Reply::Nothing)
    }
}

/// One connection.
struct Connected {
    device: Controlled,
    news: Arc<EventFd>,
}

impl Connect for Controlled {
    fn connect(&self, waiter: &Arc<Waiter>, _: ConnectTimeouts) -> Result<Box<dyn Backend>, Error> {
        if waiter.stopped() {
            return Err(Error::Stopped);
        }
        let mut machine = self.now();
        machine.connections += 1;
        (machine.late, machine.control) = (None, None);
        Ok(Box::new(Connected { device: self.clone(), news: machine.news.clone() }))
    }
}

impl Backend for Connected {
    fn offer(&self) -> Offer {
        self.device.now().offer
    }

    fn has_control_queue(&self) -> bool {
        self.device.now().control_queue
    }

    fn tells_announcements(&self) -> bool {
        self.device.now().tells_announcements
    }

    fn take_announcement(&mut self) -> bool {
        std::mem::take(&mut self.device.now().announce)
    }

    fn status(&mut self) -> Result<Option<u8>, Error> {
        Ok(Some(self.device.now().status))
    }

    fn set_status(&mut self, status: u8) -> Result<(), Error> {
        self.device.now().status = status;
        Ok(())
    }

    fn set_features(&mut self, features: Features) -> Result<(), Error> {
        let mut machine = self.device.now();
        assert_eq!(features & machine.offer.features, features, "only what was offered");
        machine.features = features;
        Ok(())
    }

    fn config(&mut self, offset: u32, bytes: &mut [u8]) -> Result<bool, Error> {
        let machine = self.device.now();
        let told = machine.config.get(offset as usize..).and_then(|rest| rest.get(..bytes.len()));
        told.inspect(|told| bytes.copy_from_slice(told));
        Ok(told.is_some())
    }

    fn set_memory(&mut self, _: &MemoryUpdate<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn set_call(&mut self, ring: RingId, call: &EventFd) -> Result<(), Error> {
        if ring == RingId::CONTROL {
            let call = call.as_fd().try_clone_to_owned().expect("a descriptor");
            self.device.now().call = Some(call.into());
        }
        Ok(())
    }

    fn start_ring(&mut self, ring: &RingSetup<'_>) -> Result<(), Error> {
        let mut machine = self.device.now();
        let index = ring.id.index(machine.offer.pairs);
        assert_eq!(machine.rings.insert(index, false), None, "{} is started once", ring.id);
        machine.addrs.insert(index, (ring.size, ring.addrs));
        if ring.id.role() == Role::Control {
            let (layout, size, addrs) = (ring.layout, ring.size, ring.addrs);
            machine.control = Some(Control { layout, size, addrs, at: 0, laps: 0 });
        }
        Ok(())
    }

    fn enable_ring(&mut self, ring: RingId, on: bool) -> Result<(), Error> {
        let mut machine = self.device.now();
        let index = ring.index(machine.offer.pairs);
        machine.rings.insert(index, on);
        Ok(())
    }

    fn stop_ring(&mut self, ring: RingId) -> Result<u32, Error> {
        let mut machine = self.device.now();
        let index = ring.index(machine.offer.pairs);
        machine.rings.remove(&index).expect("it was started");
        Ok(0)
    }

    fn watched(&self) -> Option<Watched<'_>> {
        Some(Watched::reading(&*self.news))
    }

    fn look(&mut self) -> Result<(), Error> {
        self.news.drain();
        self.device.now().serve();
        Ok(())
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut machine = self.device.now();
        machine.rings.clear();
        machine.control = None;
        machine.status = 0;
    }
}
