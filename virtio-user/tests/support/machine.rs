//! A device in this process that has a control queue and moves no packets: it records what it is asked, and answers as a
//! test says. It looks at its control queue whenever the port looks at it.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use linecard_eal::eventfd::EventFd;
use linecard_virtio::{Features, Layout, RingAddrs};
use linecard_virtio_user::Error;
use linecard_virtio_user::backend::{
    Backend, Connect, ConnectTimeouts, MemoryUpdate, Offer, RingId, RingSetup, Role, Waiter, Watched,
};

use super::control_ring::{Chain, Control, bytes};

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
    /// Whether its link is up.
    pub link: bool,
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
            link: true,
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

    /// Takes its link up or down, and tells the port.
    pub fn set_link(&self, up: bool) {
        let mut machine = self.now();
        machine.link = up;
        machine.news.signal();
    }

    /// What it was asked since the last time.
    pub fn commands(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.now().commands)
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

    fn link_up(&self) -> bool {
        self.device.now().link
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
