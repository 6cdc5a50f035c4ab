//! A frontend for tests: memory in a memfd, rings driven by the driver halves, every message by hand.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

pub mod iommu;

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use linecard_eal::shared::SharedBytes;
use linecard_eal::{Memory, MemoryConfig};
use linecard_lab::{wait_for, wait_until};
use linecard_mempool::{Burst, Pool, PoolConfig};
use linecard_vhost_user::{Backend, BackendConfig, Control, Limits, Mode, Receive, Transmit};
use linecard_virtio::{
    Buffer, Completion, DriverConfig, DriverQueue, Element, Features, Layout, RingAddrs, RingMemory, packed,
    split,
};
use linecard_wire::payload::{MemTable, MemoryRegion, Payload, VringAddr, VringFd, VringState};
use linecard_wire::{Connection, Error, FrontendReq as Req, OutMessage, ProtocolFeatures};
use memmap2::{MmapOptions, MmapRaw};

pub const GUEST: u64 = 0x10_0000;
pub const USER: u64 = 0x7000_0000_0000;
pub const MEMORY: usize = 16 << 20;
pub const RING_AREA: usize = 1 << 20;
pub const BUFFER_STRIDE: usize = 4096;
pub const HEADER: usize = 12;

/// A path that no other test uses.
pub fn socket_path(label: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("linecard-{label}-{}-{n}.sock", std::process::id()))
}

pub fn memfd(len: u64) -> File {
    // SAFETY: the name is a terminated string; the result is a new descriptor.
    let fd = unsafe { libc::memfd_create(c"frontend".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0);
    // SAFETY: just made, nobody else owns it.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    file.set_len(len).expect("memfd");
    file
}

pub fn eventfd() -> OwnedFd {
    // SAFETY: takes integers; the result is a new descriptor.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    assert!(fd >= 0);
    // SAFETY: just made, nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Takes and resets an eventfd's count.
pub fn take_count(fd: &OwnedFd) -> u64 {
    let mut count = [0u8; 8];
    // SAFETY: writes at most the eight bytes of `count`.
    let n = unsafe { libc::read(std::os::fd::AsRawFd::as_raw_fd(fd), count.as_mut_ptr().cast(), 8) };
    if n == 8 { u64::from_ne_bytes(count) } else { 0 }
}

/// The count of an eventfd that is signalled now or soon, which the port's thread may do.
pub fn await_count(fd: &OwnedFd) -> u64 {
    let mut count = 0;
    linecard_lab::wait_until("a signal", || {
        count = take_count(fd);
        count > 0
    });
    count
}

pub fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("proc").count()
}

/// A backend with one queue pair, its queues and a pool.
pub struct Bench {
    pub pool: Pool,
    pub backend: Backend,
    pub rx: Receive,
    pub tx: Transmit,
    pub path: PathBuf,
    pub rx_stats: std::sync::Arc<linecard_pmd::stats::QueueStats<linecard_vhost_user::RxLoss>>,
    pub tx_stats: std::sync::Arc<linecard_pmd::stats::QueueStats<linecard_vhost_user::TxLoss>>,
}

pub fn pool(packets: u32, cache: u16) -> Pool {
    pool_of(PoolConfig::default().packets(packets).cache(cache))
}

fn pool_of(config: PoolConfig) -> Pool {
    let domain =
        Memory::new(MemoryConfig::default().range(1 << 30)).expect("memory").domain("test").expect("domain");
    Pool::new(&domain, config).expect("pool")
}

impl Bench {
    pub fn new(label: &str) -> Self {
        Self::with(label, Mode::Listen)
    }

    pub fn with(label: &str, mode: Mode) -> Self {
        Self::open(label, mode, pool(1024, 0))
    }

    /// Packets with room for so many bytes.
    pub fn with_data_room(label: &str, data_room: u16) -> Self {
        let config = PoolConfig::default().packets(1024).cache(0).data_room(data_room);
        Self::open(label, Mode::Listen, pool_of(config))
    }

    pub fn with_cache(label: &str, cache: u16) -> Self {
        Self::open(label, Mode::Listen, pool(1024, cache))
    }

    /// Lets frontends read the configuration space.
    pub fn with_config_space(label: &str) -> Self {
        let config = BackendConfig::new(label, socket_path(label), Mode::Listen);
        Self::of(config.config_space(true), pool(1024, 0))
    }

    /// A frontend may make it take less than usual.
    pub fn with_limits(label: &str, limits: Limits) -> Self {
        let config = BackendConfig::new(label, socket_path(label), Mode::Listen);
        Self::of(config.limits(limits), pool(1024, 0))
    }

    fn open(label: &str, mode: Mode, pool: Pool) -> Self {
        Self::of(BackendConfig::new(label, socket_path(label), mode), pool)
    }

    pub fn of(config: BackendConfig, pool: Pool) -> Self {
        let path = config.path.clone();
        let control = Control::new();
        let backend = Backend::new(&control, config).expect("backend");
        let (rx_stats, tx_stats) = Default::default();
        let rx = backend.receive_queue(0, &pool, std::sync::Arc::clone(&rx_stats)).expect("rx");
        let tx = backend.transmit_queue(0, std::sync::Arc::clone(&tx_stats)).expect("tx");
        Self { pool, backend, rx, tx, path, rx_stats, tx_stats }
    }

    /// Another receive queue in the place of the one there is.
    pub fn backend_rx(&self) -> Receive {
        self.backend.receive_queue(0, &self.pool, std::sync::Arc::clone(&self.rx_stats)).expect("rx")
    }

    /// Puts the same port, its pool and its path, on a backend that took over.
    pub fn go_on_with(&mut self, backend: Backend) {
        let rx = backend.receive_queue(0, &self.pool, std::sync::Arc::clone(&self.rx_stats)).expect("rx");
        let tx = backend.transmit_queue(0, std::sync::Arc::clone(&self.tx_stats)).expect("tx");
        (self.backend, self.rx, self.tx) = (backend, rx, tx);
    }

    /// Every packet is home.
    pub fn assert_whole(&self) {
        assert_eq!(self.pool.stats().in_use, 0, "{:?}", self.pool.stats());
    }

    pub fn wait_link(&self, up: bool) {
        wait_until("link", || self.backend.peer().link_up() == up);
    }

    pub fn wait_gone(&self) {
        wait_until("disconnect", || !self.backend.peer().connected());
    }
}

/// The connection and memory of a frontend.
pub struct Frontend {
    pub connection: Connection,
    pub file: File,
    pub map: MmapRaw,
    pub calls: Vec<OwnedFd>,
    pub errors: Vec<OwnedFd>,
    pub kicks: Vec<OwnedFd>,
    pub features: Features,
    /// Addresses go through an IOMMU: see [`iommu`].
    pub translated: bool,
}

const PATIENCE: Duration = Duration::from_secs(60);

impl Frontend {
    pub fn connect(path: &Path) -> Self {
        let stream = wait_for("connection", || UnixStream::connect(path).ok());
        Self::over(stream)
    }

    pub fn over(stream: UnixStream) -> Self {
        let file = memfd(MEMORY as u64);
        let map = MmapOptions::new().len(MEMORY).map_raw(&file).expect("map");
        let events = || (0..2).map(|_| eventfd()).collect();
        let connection = Connection::new(stream).expect("connection");
        Self {
            connection,
            file,
            map,
            calls: events(),
            errors: events(),
            kicks: events(),
            features: Features::empty(),
            translated: false,
        }
    }

    pub fn send(&mut self, request: Req, payload: &[u8], fds: &[BorrowedFd<'_>]) {
        let message = OutMessage::request(request, payload).with_fds(fds);
        self.connection.send(&message).expect("send");
    }

    pub fn get(&mut self, request: Req, payload: &[u8]) -> Vec<u8> {
        self.send(request, payload, &[]);
        let reply = self.connection.read_until(Instant::now() + PATIENCE).expect("reply");
        assert_eq!(reply.request, request as u32);
        assert!(reply.is_reply());
        reply.payload
    }

    pub fn number(&mut self, request: Req) -> u64 {
        u64::from_bytes(&self.get(request, &[])).expect("u64")
    }

    /// Sends with an answer wanted: 0 is good, 1 refused; an error means the connection ended.
    pub fn ask(&mut self, request: Req, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Result<u64, Error> {
        let message = OutMessage::request(request, payload).with_fds(fds).need_reply();
        self.connection.send(&message)?;
        let reply = self.connection.read_until(Instant::now() + PATIENCE)?;
        u64::from_bytes(&reply.payload)
    }

    pub fn good(&mut self, request: Req, payload: &[u8], fds: &[BorrowedFd<'_>]) {
        let answer = self.ask(request, payload, fds);
        assert!(matches!(answer, Ok(0)), "{request:?}: {answer:?}");
    }

    pub fn refused(&mut self, request: Req, payload: &[u8], fds: &[BorrowedFd<'_>]) {
        let answer = self.ask(request, payload, fds);
        assert!(matches!(answer, Ok(1)), "{request:?} {payload:?}: {answer:?}");
    }

    /// Whether the backend ends the connection (after whatever it still has to say).
    pub fn is_dropped(&mut self) -> bool {
        loop {
            match self.connection.read_until(Instant::now() + PATIENCE) {
                Ok(_) => {}
                Err(Error::TimedOut { .. }) => return false,
                Err(_) => return true,
            }
        }
    }

    /// Owner and features; everything the backend offers but STATUS, which then stays out of the way.
    pub fn negotiate(&mut self, features: Features) {
        self.send(Req::SET_OWNER, &[], &[]);
        let offered = Features::from_bits_retain(self.number(Req::GET_FEATURES));
        let features = features | Features::VERSION_1 | Features::PROTOCOL_FEATURES;
        assert!(offered.contains(features), "offered: {offered}");
        let protocol = ProtocolFeatures::from_bits_retain(self.number(Req::GET_PROTOCOL_FEATURES));
        let protocol = protocol - ProtocolFeatures::STATUS;
        self.send(Req::SET_PROTOCOL_FEATURES, &protocol.bits().to_bytes(), &[]);
        self.good(Req::SET_FEATURES, &features.bits().to_bytes(), &[]);
        self.features = features;
    }

    pub fn region(&self) -> MemoryRegion {
        MemoryRegion { guest_addr: GUEST, size: MEMORY as u64, user_addr: USER, offset: 0 }
    }

    pub fn share_memory(&mut self) {
        let table = MemTable(vec![self.region()]).to_bytes();
        let file = self.file.try_clone().expect("dup");
        self.good(Req::SET_MEM_TABLE, &table, &[file.as_fd()]);
    }

    pub fn layout(&self) -> Layout {
        if self.features.contains(Features::RING_PACKED) { Layout::Packed } else { Layout::Split }
    }

    pub fn bytes(&self, offset: usize, len: usize) -> SharedBytes {
        assert!(offset + len <= MEMORY);
        let at = NonNull::new(self.map.as_mut_ptr().wrapping_add(offset)).expect("mapped");
        // SAFETY: inside the mapping, which outlives the tests' use of it; nothing refers to it.
        unsafe { SharedBytes::new(at, len) }
    }

    pub fn ring_offset(index: usize) -> usize {
        index * (RING_AREA / 4)
    }

    pub fn ring_memory(&self, index: usize, size: u16) -> RingMemory {
        let layout = self.layout();
        let zone = self.bytes(Self::ring_offset(index), layout.bytes(size));
        RingMemory::in_zone(zone, layout, size).expect("ring")
    }

    pub fn vring_addr(&self, index: usize, size: u16) -> VringAddr {
        let base = if self.translated { iommu::IOVA } else { USER };
        let addrs = RingAddrs::at(base + Self::ring_offset(index) as u64, self.layout(), size);
        let index = index as u32;
        VringAddr { index, flags: 0, desc: addrs.desc, used: addrs.device, avail: addrs.driver, log: 0 }
    }

    pub fn describe_ring(&mut self, index: usize, size: u16, base: u32) {
        let state = |num| VringState { index: index as u32, num }.to_bytes();
        self.good(Req::SET_VRING_NUM, &state(u32::from(size)), &[]);
        self.good(Req::SET_VRING_BASE, &state(base), &[]);
        self.good(Req::SET_VRING_ADDR, &self.vring_addr(index, size).to_bytes(), &[]);
    }

    pub fn start_ring(&mut self, index: usize, size: u16, base: u32) {
        self.describe_ring(index, size, base);
        let half = index % 2;
        let fd = VringFd { index: index as u8, has_fd: true }.to_bytes();
        let dup = |fd: &OwnedFd| fd.try_clone().expect("dup");
        let (call, error, kick) = (dup(&self.calls[half]), dup(&self.errors[half]), dup(&self.kicks[half]));
        self.good(Req::SET_VRING_CALL, &fd, &[call.as_fd()]);
        self.good(Req::SET_VRING_ERR, &fd, &[error.as_fd()]);
        self.good(Req::SET_VRING_KICK, &fd, &[kick.as_fd()]);
        self.enable(index, true);
    }

    pub fn enable(&mut self, index: usize, on: bool) {
        let state = VringState { index: index as u32, num: u32::from(on) };
        self.good(Req::SET_VRING_ENABLE, &state.to_bytes(), &[]);
    }

    /// Everything up to running rings.
    pub fn bring_up(&mut self, features: Features, size: u16) {
        self.negotiate(features);
        self.share_memory();
        let base = if self.layout() == Layout::Packed { 0x8000_8000 } else { 0 };
        self.start_ring(0, size, base);
        self.start_ring(1, size, base);
    }

    pub fn stop_ring(&mut self, index: usize) -> u32 {
        let state = VringState { index: index as u32, num: 0 }.to_bytes();
        let reply = self.get(Req::GET_VRING_BASE, &state);
        VringState::from_bytes(&reply).expect("state").num
    }

    /// What descriptors call the memory at `offset`.
    pub fn addr(&self, offset: usize) -> u64 {
        if self.translated { iommu::iova_of(offset) } else { GUEST + offset as u64 }
    }

    /// Guest address and offset of buffer `n` for sending (`half` 1) or receiving (0).
    pub fn buffer(half: usize, n: usize) -> (u64, usize) {
        let offset = RING_AREA + half * (MEMORY / 2 - RING_AREA) + n * BUFFER_STRIDE;
        (GUEST + offset as u64, offset)
    }

    /// Puts a header and `frame` into send buffer `n`.
    pub fn write_frame(&self, n: usize, frame: &[u8]) -> (u64, u32) {
        let (_, offset) = Self::buffer(1, n);
        let addr = self.addr(offset);
        let bytes = self.bytes(offset, HEADER + frame.len());
        bytes.copy_from(&[0; HEADER]);
        bytes.slice(HEADER, frame.len()).expect("room").copy_from(frame);
        (addr, (HEADER + frame.len()) as u32)
    }
}

/// Any driver half, so that tests need not be generic over four kinds of rings.
pub trait Half: Send {
    fn post(&mut self, buffer: Buffer);
    fn post_chain(&mut self, segments: &[Element], token: u64);
    fn publish(&mut self);
    fn take(&mut self) -> Vec<Completion>;
    fn interrupts(&mut self, on: bool);
}

impl<Q: DriverQueue> Half for Q {
    fn post(&mut self, buffer: Buffer) {
        self.add(buffer).expect("ring full");
    }
    fn post_chain(&mut self, segments: &[Element], token: u64) {
        self.add_chain(segments, token).expect("ring full");
    }
    fn publish(&mut self) {
        DriverQueue::publish(self);
    }
    fn take(&mut self) -> Vec<Completion> {
        let mut done = [const { MaybeUninit::uninit() }; 64];
        let n = self.complete(&mut done).expect("a well-behaved device");
        // SAFETY: `complete` initialised the first `n`.
        done[..n].iter().map(|c| unsafe { c.assume_init() }).collect()
    }
    fn interrupts(&mut self, on: bool) {
        self.set_interrupts(on);
    }
}

/// The driver half of ring `index` for what `frontend` negotiated.
pub fn driver(frontend: &Frontend, index: usize, size: u16) -> Box<dyn Half> {
    let memory = frontend.ring_memory(index, size);
    let in_order = frontend.features.contains(Features::IN_ORDER);
    let event_idx = frontend.features.contains(Features::EVENT_IDX);
    let config = DriverConfig::default().size(size).event_idx(event_idx);
    match (frontend.layout(), in_order, index.is_multiple_of(2)) {
        (Layout::Split, false, true) => {
            Box::new(split::Driver::<false, true>::new(&memory, config).expect("driver"))
        }
        (Layout::Split, true, true) => {
            Box::new(split::Driver::<true, true>::new(&memory, config).expect("driver"))
        }
        (Layout::Split, false, false) => {
            Box::new(split::Driver::<false, false>::new(&memory, config).expect("driver"))
        }
        (Layout::Split, true, false) => {
            Box::new(split::Driver::<true, false>::new(&memory, config).expect("driver"))
        }
        (Layout::Packed, false, true) => {
            Box::new(packed::Driver::<false, true>::new(&memory, config).expect("driver"))
        }
        (Layout::Packed, true, true) => {
            Box::new(packed::Driver::<true, true>::new(&memory, config).expect("driver"))
        }
        (Layout::Packed, false, false) => {
            Box::new(packed::Driver::<false, false>::new(&memory, config).expect("driver"))
        }
        (Layout::Packed, true, false) => {
            Box::new(packed::Driver::<true, false>::new(&memory, config).expect("driver"))
        }
    }
}

/// A frame whose bytes depend on its number and length.
pub fn frame(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(31) ^ seed.wrapping_mul(131) ^ (i >> 8)) as u8).collect()
}

/// A frontend with both rings running, and the driver halves of them.
pub struct Guest {
    pub frontend: Frontend,
    pub rx: Box<dyn Half>,
    pub tx: Box<dyn Half>,
    next_tx: usize,
}

pub const SIZE: u16 = 256;

impl Guest {
    pub fn start(path: &Path, features: Features) -> Self {
        Self::over(Frontend::connect(path), features)
    }

    pub fn over(mut frontend: Frontend, features: Features) -> Self {
        frontend.negotiate(features);
        Self::with_rings(frontend)
    }

    /// Over a frontend that has negotiated; everything from the memory table to enabled rings.
    pub fn with_rings(mut frontend: Frontend) -> Self {
        // The rings are laid out before the backend may look at them.
        let (rx, tx) = (driver(&frontend, 0, SIZE), driver(&frontend, 1, SIZE));
        frontend.share_memory();
        let base = if frontend.layout() == Layout::Packed { 0x8000_8000 } else { 0 };
        frontend.start_ring(0, SIZE, base);
        frontend.start_ring(1, SIZE, base);
        Self { frontend, rx, tx, next_tx: 0 }
    }

    /// Gives the backend `n` receive buffers of `len` bytes.
    pub fn post_receive(&mut self, from: usize, n: usize, len: u32) {
        for token in from..from + n {
            let addr = self.frontend.addr(Frontend::buffer(0, token).1);
            self.rx.post(Buffer { addr, len, token: token as u64 });
        }
        self.rx.publish();
    }

    /// Sends one frame as one descriptor.
    pub fn send(&mut self, bytes: &[u8]) {
        let n = self.next_tx % usize::from(SIZE);
        self.next_tx += 1;
        let (addr, len) = self.frontend.write_frame(n, bytes);
        self.tx.post(Buffer { addr, len, token: n as u64 });
    }

    /// What came into receive buffers since the last time, header and all, each buffer apart.
    pub fn received(&mut self) -> Vec<(u64, Vec<u8>)> {
        let done = self.rx.take();
        done.into_iter()
            .map(|completion| {
                let (_, offset) = Frontend::buffer(0, completion.token as usize);
                let mut bytes = vec![0; completion.len as usize];
                self.frontend.bytes(offset, bytes.len()).copy_to(&mut bytes);
                (completion.token, bytes)
            })
            .collect()
    }
}

/// Polls until `n` packets came.
pub fn receive(rx: &mut Receive, n: usize) -> Burst {
    let mut packets = Burst::new();
    let until = Instant::now() + PATIENCE;
    while packets.len() < n {
        linecard_pmd::RxQueue::rx_burst(rx, &mut packets);
        assert!(Instant::now() < until, "{} of {n} packets came", packets.len());
    }
    packets
}
