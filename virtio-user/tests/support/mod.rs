//! A backend in this process: real sockets, real shared memory, and free to misbehave.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

pub mod control_ring;
pub mod echo;
pub mod machine;
pub mod stall;
pub mod traffic;

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use linecard_eal::memory::{Domain, Memory, MemoryConfig, PagePolicy};
use linecard_eal::shared::SharedBytes;
use linecard_lab::{wait_for, wait_until};
use linecard_mempool::{Burst, Pool, PoolConfig};
use linecard_pmd::{Device, Driver, Error, Port, PortConfig, ProbeContext, StartError, configure};
use linecard_virtio::{Access, DeviceMemory, Features, Layout, RingMemory, Translation};
use linecard_virtio_user::VirtioUser;
use linecard_wire::payload::{MemTable, MemoryRegion, Payload, SingleRegion, VringAddr, VringFd, VringState};
use linecard_wire::{Connection, FrontendReq, Message, OutMessage, ProtocolFeatures, REPLY};

pub const PATIENCE: Duration = Duration::from_secs(30);

/// A socket path of its own, removed with the value.
pub struct Place(pub PathBuf);

impl Place {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("lc-vu-{}-{number}.sock", std::process::id())))
    }

    pub fn arg(&self) -> String {
        format!("path={}", self.0.display())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The frontend's side of a test: memory, a pool, the driver.
pub struct Bench {
    pub memory: Memory,
    pub domain: Arc<Domain>,
    pub pool: Pool,
    pub driver: VirtioUser,
    pub wait: Duration,
}

impl Bench {
    /// Sends so many short packets, all of which the ring takes.
    pub fn send(&self, port: &mut Port, count: usize) {
        let mut out = Burst::new();
        self.pool.get_bulk(&mut out, count).unwrap();
        out.iter_mut().for_each(|packet| packet.append(60).expect("room").fill(1));
        assert_eq!(port.tx[0].tx_burst(&mut out), count);
    }

    pub fn new(packets: u32) -> Self {
        let config = MemoryConfig::default().pages(PagePolicy::NoHuge);
        let memory = Memory::new(config).expect("memory");
        let domain = memory.domain("test").expect("a domain");
        let pool = PoolConfig::default().packets(packets).cache(32);
        let pool = Pool::new(&domain, pool).expect("a pool");
        Self { memory, domain, pool, driver: VirtioUser::new(), wait: Duration::from_millis(200) }
    }

    pub fn probe(&self, args: &str) -> Result<Box<dyn Device>, Error> {
        self.probe_as("net_virtio_user0", args)
    }

    /// As a device of that name.
    pub fn probe_as(&self, name: &str, args: &str) -> Result<Box<dyn Device>, Error> {
        let args = linecard_pmd::DevArgs::parse(&format!("{name},{args}"))?;
        self.driver.probe(&self.context(), &args)
    }

    pub fn context(&self) -> ProbeContext {
        ProbeContext::new(self.memory.clone(), self.domain.clone(), self.wait)
    }

    pub fn start(&self, device: Box<dyn Device>, config: PortConfig) -> Result<Port, StartError> {
        configure(device, config)?.start(&self.pool)
    }

    #[track_caller]
    pub fn open(&self, args: &str) -> Port {
        self.start(self.probe(args).expect("a device"), PortConfig::default()).expect("a port")
    }

    /// Every packet is in the pool or in a cache.
    #[track_caller]
    pub fn assert_whole(&self) {
        let stats = self.pool.stats();
        assert_eq!(stats.free + stats.cached, stats.total, "{stats:?}");
    }

    /// The same, after what the control thread still has to do.
    #[track_caller]
    pub fn soon_whole(&self) {
        wait_until("all packets home", || {
            let stats = self.pool.stats();
            stats.free + stats.cached == stats.total
        });
    }
}

/// Opens a port over a backend of which `prepare` makes what it likes; the sentence the port fails with, if it fails.
pub fn outcome(bench: &Bench, prepare: impl FnOnce(&mut Backend) + Send + 'static) -> Result<(), String> {
    let place = Place::new();
    let listener = UnixListener::bind(&place.0).expect("a socket");
    let peer = std::thread::spawn(move || {
        let mut backend = Backend::accept(&listener);
        // There is no second try.
        drop(listener);
        prepare(&mut backend);
        if backend.until_running(2).is_ok() {
            backend.until_gone();
        }
    });
    let result = bench.probe(&place.arg()).map_err(|error| error.to_string());
    let result = result.and_then(|device| {
        bench.start(device, PortConfig::default()).map_err(|failed| failed.error.to_string())
    });
    let result = result.map(|port| drop(port.stop()));
    peer.join().expect("the backend did not panic");
    bench.assert_whole();
    result
}

/// A running port, the backend that it found, and where further ones are accepted. `more` follows the socket's name.
pub fn attached(bench: &Bench, place: &Place, more: &str) -> (Port, Backend, UnixListener) {
    let listener = UnixListener::bind(&place.0).expect("a socket");
    let accepting = listener.try_clone().expect("a socket");
    let peer = std::thread::spawn(move || {
        let mut backend = Backend::accept(&accepting);
        backend.until_running(2).expect("a frontend that stays");
        backend
    });
    let port = bench.open(&format!("{}{more}", place.arg()));
    (port, peer.join().expect("no panic"), listener)
}

/// A region as the backend mapped it.
pub struct Region {
    pub told: MemoryRegion,
    map: memmap2::MmapRaw,
    pub fd: OwnedFd,
}

/// The frontend's memory as the backend sees it.
#[derive(Default)]
pub struct Regions(pub Vec<Region>);

impl Regions {
    fn add(&mut self, told: MemoryRegion, fd: OwnedFd) {
        let options = memmap2::MmapOptions::new().offset(told.offset).len(told.size as usize).to_owned();
        let map = options.map_raw(fd.as_raw_fd()).expect("a mapping");
        self.0.push(Region { told, map, fd });
    }

    /// Where `len` bytes at frontend address `addr` are here.
    pub fn at(&self, addr: u64, len: usize) -> Option<NonNull<u8>> {
        self.0.iter().find_map(|region| {
            let offset = addr.checked_sub(region.told.user_addr)?;
            let end = offset.checked_add(len as u64)?;
            let at = region.map.as_mut_ptr().wrapping_add(offset as usize);
            (end <= region.told.size).then_some(NonNull::new(at)?)
        })
    }

    pub fn bytes(&self, addr: u64, len: usize) -> SharedBytes {
        let at = self.at(addr, len).expect("inside what was shared");
        // SAFETY: mapped as long as the region lives, which is as long as the tests use rings on it.
        unsafe { SharedBytes::new(at, len) }
    }
}

// SAFETY: pointers lie in mappings that live as long as `self`.
unsafe impl DeviceMemory for Regions {
    fn translate(&self, addr: u64, len: u32, _: Access) -> Option<NonNull<u8>> {
        self.at(addr, len as usize)
    }
    fn translate_part(&self, addr: u64, len: u32, access: Access) -> Translation {
        self.translate(addr, len, access).map(|start| (start, len)).into()
    }
}

/// What the backend knows of one ring.
#[derive(Default)]
pub struct Ring {
    pub size: u16,
    pub base: u32,
    pub addr: Option<VringAddr>,
    pub kick: Option<OwnedFd>,
    pub call: Option<OwnedFd>,
    pub enabled: bool,
}

/// What a misbehaving backend does with a request.
pub enum Act {
    /// As a good one would.
    Normal,
    /// Nothing, or what the spoiler did itself.
    Handled,
    /// Closes the connection.
    Leave,
}

pub type Spoiler = Box<dyn FnMut(&mut Connection, &Message) -> Act + Send>;
/// Sends the bytes of a reply in its own way.
pub type Sender = Box<dyn FnMut(&UnixStream, &[u8]) + Send>;

/// One connection with a frontend.
pub struct Backend {
    pub conn: Connection,
    pub offered: Features,
    pub protocol: ProtocolFeatures,
    pub queue_num: u64,
    pub slots: u64,
    pub features: Features,
    pub agreed: ProtocolFeatures,
    pub status: u64,
    pub regions: Arc<Regions>,
    pub rings: Vec<Ring>,
    pub requests: Vec<u32>,
    pub spoiler: Option<Spoiler>,
    pub sender: Option<Sender>,
}

pub fn all_features() -> Features {
    Features::VERSION_1
        | Features::PROTOCOL_FEATURES
        | Features::NET_MRG_RXBUF
        | Features::IN_ORDER
        | Features::RING_PACKED
        | Features::INDIRECT_DESC
        | Features::NET_MQ
        | Features::NET_CSUM
        | Features::EVENT_IDX
}

pub fn usual_protocol() -> ProtocolFeatures {
    ProtocolFeatures::MQ | ProtocolFeatures::REPLY_ACK | ProtocolFeatures::STATUS
}

#[derive(Debug, PartialEq, Eq)]
pub struct Gone;

impl Backend {
    pub fn new(stream: UnixStream) -> Self {
        Self::over(Connection::new(stream).expect("a connection"))
    }

    pub fn over(conn: Connection) -> Self {
        Self {
            conn,
            offered: all_features(),
            protocol: usual_protocol(),
            queue_num: 8,
            slots: 32,
            features: Features::empty(),
            agreed: ProtocolFeatures::empty(),
            status: 0,
            regions: Arc::default(),
            rings: (0..16).map(|_| Ring::default()).collect(),
            requests: Vec::new(),
            spoiler: None,
            sender: None,
        }
    }

    pub fn accept(listener: &UnixListener) -> Self {
        Self::new(listener.accept().expect("a frontend").0)
    }

    /// Connects to a frontend in server mode.
    pub fn connect(path: &Path) -> Self {
        Self::new(wait_for("a frontend that listens", || UnixStream::connect(path).ok()))
    }

    pub fn packed(&self) -> bool {
        self.features.contains(Features::RING_PACKED)
    }

    pub fn layout(&self) -> Layout {
        if self.packed() { Layout::Packed } else { Layout::Split }
    }

    fn running(&self, rings: usize) -> bool {
        let ready =
            self.rings[..rings].iter().all(|ring| ring.enabled && ring.kick.is_some() && ring.addr.is_some());
        ready && (!self.agreed.contains(ProtocolFeatures::STATUS) || self.status & 4 != 0)
    }

    /// Serves the handshake until `rings` rings run.
    pub fn until_running(&mut self, rings: usize) -> Result<(), Gone> {
        let until = Instant::now() + PATIENCE;
        while !self.running(rings) {
            let message = self.conn.read_until(until).map_err(|_| Gone)?;
            self.handle(message)?;
        }
        Ok(())
    }

    /// Serves what has come.
    pub fn serve(&mut self) -> Result<(), Gone> {
        while let Some(message) = self.conn.read().map_err(|_| Gone)? {
            self.handle(message)?;
        }
        Ok(())
    }

    /// Serves until the frontend leaves.
    pub fn until_gone(&mut self) {
        let until = Instant::now() + PATIENCE;
        while let Ok(message) = self.conn.read_until(until) {
            if self.handle(message).is_err() {
                return;
            }
        }
        assert!(Instant::now() < until, "the frontend never left");
    }

    pub fn handle(&mut self, message: Message) -> Result<(), Gone> {
        self.requests.push(message.request);
        if let Some(mut spoiler) = self.spoiler.take() {
            let act = spoiler(&mut self.conn, &message);
            self.spoiler = Some(spoiler);
            match act {
                Act::Normal => {}
                Act::Handled => return Ok(()),
                Act::Leave => return Err(Gone),
            }
        }
        let (request, wants_ack) = (message.request, message.needs_reply());
        let reply = self.act(message);
        let payload = reply.or_else(|| wants_ack.then(|| 0_u64.to_bytes()));
        let Some(payload) = payload else { return Ok(()) };
        if let Some(sender) = &mut self.sender {
            let header = [request, REPLY | 1, payload.len() as u32].map(u32::to_ne_bytes).concat();
            sender(self.conn.socket(), &[header, payload].concat());
        } else {
            self.conn.send(&OutMessage::reply(request, &payload)).map_err(|_| Gone)?;
        }
        Ok(())
    }

    fn act(&mut self, mut message: Message) -> Option<Vec<u8>> {
        let number = || u64::from_bytes(&message.payload).expect("a number");
        let state = || VringState::from_bytes(&message.payload).expect("a ring state");
        match message.request {
            r if r == FrontendReq::GET_FEATURES as u32 => return Some(self.offered.bits().to_bytes()),
            r if r == FrontendReq::SET_FEATURES as u32 => {
                self.features = Features::from_bits_retain(number())
            }
            r if r == FrontendReq::GET_PROTOCOL_FEATURES as u32 => {
                return Some(self.protocol.bits().to_bytes());
            }
            r if r == FrontendReq::SET_PROTOCOL_FEATURES as u32 => {
                self.agreed = ProtocolFeatures::from_bits_truncate(number());
            }
            r if r == FrontendReq::GET_QUEUE_NUM as u32 => return Some(self.queue_num.to_bytes()),
            r if r == FrontendReq::GET_MAX_MEM_SLOTS as u32 => return Some(self.slots.to_bytes()),
            r if r == FrontendReq::SET_STATUS as u32 => self.status = number(),
            r if r == FrontendReq::GET_STATUS as u32 => return Some(self.status.to_bytes()),
            r if r == FrontendReq::SET_MEM_TABLE as u32 => {
                let table = MemTable::from_bytes(&message.payload).expect("a table").0;
                assert_eq!(table.len(), message.fds.len());
                let mut regions = Regions::default();
                table
                    .into_iter()
                    .zip(message.fds.drain(..))
                    .for_each(|(told, fd)| regions.add(told, fd.into_owned()));
                self.regions = Arc::new(regions);
            }
            r if r == FrontendReq::ADD_MEM_REG as u32 => {
                let told = SingleRegion::from_bytes(&message.payload).expect("a region").0;
                let fd = message.fds.pop().expect("a descriptor").into_owned();
                let mut regions = Regions::default();
                for old in &self.regions.0 {
                    regions.add(old.told, old.fd.try_clone().expect("a descriptor"));
                }
                regions.add(told, fd);
                self.regions = Arc::new(regions);
            }
            r if r == FrontendReq::SET_VRING_NUM as u32 => {
                self.rings[state().index as usize].size = u16::try_from(state().num).expect("a size");
            }
            r if r == FrontendReq::SET_VRING_BASE as u32 => {
                self.rings[state().index as usize].base = state().num
            }
            r if r == FrontendReq::GET_VRING_BASE as u32 => {
                let index = state().index;
                let ring = &mut self.rings[index as usize];
                ring.enabled = false;
                return Some(VringState { index, num: ring.base }.to_bytes());
            }
            r if r == FrontendReq::SET_VRING_ADDR as u32 => {
                let addr = VringAddr::from_bytes(&message.payload).expect("addresses");
                self.rings[addr.index as usize].addr = Some(addr);
            }
            r if r == FrontendReq::SET_VRING_KICK as u32 => {
                let index = VringFd::from_bytes(&message.payload).expect("a ring").index;
                self.rings[usize::from(index)].kick =
                    message.fds.pop().map(linecard_wire::PeerFd::into_owned);
            }
            r if r == FrontendReq::SET_VRING_CALL as u32 => {
                let index = VringFd::from_bytes(&message.payload).expect("a ring").index;
                self.rings[usize::from(index)].call =
                    message.fds.pop().map(linecard_wire::PeerFd::into_owned);
            }
            r if r == FrontendReq::SET_VRING_ENABLE as u32 => {
                self.rings[state().index as usize].enabled = state().num != 0;
            }
            r if r == FrontendReq::SET_OWNER as u32 => {}
            other => panic!("a frontend does not send {other}"),
        }
        None
    }

    /// The memory of ring `index`.
    pub fn ring(&self, index: usize) -> RingMemory {
        let ring = &self.rings[index];
        let addr = ring.addr.expect("it was told");
        let [desc, driver, device] = self.layout().areas(ring.size);
        RingMemory {
            desc: self.regions.bytes(addr.desc, desc),
            driver: self.regions.bytes(addr.avail, driver),
            device: self.regions.bytes(addr.used, device),
        }
    }
}

/// Receives and reclaims until nothing more can happen; how many packets came.
pub fn drain(port: &mut Port) -> usize {
    let (mut burst, mut came) = (Burst::new(), 0);
    for _ in 0..50 {
        came += port.rx[0].rx_burst(&mut burst);
        burst.clear();
        port.tx[0].reclaim();
    }
    came
}
