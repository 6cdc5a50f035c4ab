//! A hostile frontend: any requests in any order with any descriptors, and any contents of its shared memory,
//! while both queues are polled. Afterwards the backend answers this frontend or the next, and every packet
//! has returned to the pool.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use linecard_eal::{Memory, MemoryConfig};
use linecard_mempool::{Burst, Pool, PoolConfig};
use linecard_pmd::stats::QueueStats;
use linecard_pmd::{RxQueue, TxQueue};
use linecard_vhost_user::{Backend, BackendConfig, Control, Mode, Receive, Transmit};
use linecard_virtio::Features;
use linecard_wire::payload::{
    Inflight, IotlbMessage, Log, MemTable, MemoryRegion, Payload, SingleRegion, VringAddr, VringFd,
    VringState,
};
use linecard_wire::{Connection, FrontendReq as Req, OutMessage};
use rustix::event::EventfdFlags;
use rustix::fs::MemfdFlags;

/// The start of the shared memory, the same in guest and user addresses.
const BASE: u64 = 1 << 28;
const LEN: u64 = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(5);

/// One step of a frontend.
#[derive(Arbitrary, Debug)]
pub enum Step {
    Raw {
        request: u8,
        ack: bool,
        payload: Vec<u8>,
        fds: u8,
    },
    Features(u64),
    Protocol(u64),
    Table {
        first: u16,
        second: Option<(u16, u16)>,
    },
    AddRegion {
        at: u16,
        pages: u8,
    },
    RemoveRegion {
        at: u16,
        pages: u8,
    },
    Num {
        ring: u8,
        num: u16,
    },
    Base {
        ring: u8,
        num: u32,
    },
    Addr {
        ring: u8,
        desc: u16,
        used: u16,
        avail: u16,
        log: Option<u16>,
    },
    /// Sets a dirty log anywhere in the shared memory.
    Log {
        offset: u16,
        size: u16,
    },
    /// Sets an inflight region anywhere in the shared memory.
    Inflight {
        offset: u16,
        size: u16,
        queue_size: u16,
    },
    Kick(u8),
    Call(u8),
    Enable {
        ring: u8,
        on: bool,
    },
    Stop(u8),
    Status(u8),
    /// Starts a pair of rings as a correct frontend does.
    Start {
        packed: bool,
        power: u8,
        recorded: bool,
        translated: bool,
    },
    /// Adds or invalidates an IOTLB translation.
    Translate {
        at: u16,
        pages: u8,
        to: u16,
        access: u8,
        back: bool,
    },
    Poke {
        at: u16,
        value: u64,
    },
    /// Writes a descriptor with plausible values.
    Descriptor {
        table: u16,
        index: u8,
        addr: u16,
        len: u16,
        flags: u8,
        next: u8,
    },
    Shrink(u16),
    Poll,
}

struct World {
    control: Control,
    pool: Pool,
    path: PathBuf,
}

fn world() -> World {
    let domain = Memory::new(MemoryConfig::default()).expect("memory").domain("fuzz").expect("a domain");
    let pool = Pool::new(&domain, PoolConfig::default().packets(256).cache(0)).expect("a pool");
    let path = std::env::temp_dir().join(format!("lc-fuzz-session-{}", std::process::id()));
    World { control: Control::new(), pool, path }
}

struct Frontend {
    conn: Connection,
    memory: File,
    event: std::os::fd::OwnedFd,
    gone: bool,
}

impl Frontend {
    fn connect(path: &Path) -> Self {
        let fd = rustix::fs::memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("a memfd");
        let memory = File::from(fd);
        memory.set_len(LEN).expect("memory");
        let event =
            rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd");
        let stream = UnixStream::connect(path).expect("it listens");
        Self { conn: Connection::new(stream).expect("a socket"), memory, event, gone: false }
    }

    fn send(&mut self, request: u32, flags: u32, payload: &[u8], fds: usize, event: bool) {
        let fd = if event { self.event.as_fd() } else { self.memory.as_fd() };
        let fds = vec![fd; fds];
        let message = OutMessage { request, flags, payload, fds: &fds };
        self.gone |= self.conn.send(&message).is_err();
    }

    fn tell(&mut self, request: Req, payload: &[u8]) {
        self.send(request as u32, 0, payload, 0, false);
    }

    fn ring_fd(&mut self, request: Req, ring: u8) {
        let payload = VringFd { index: ring & 3, has_fd: ring & 128 == 0 }.to_bytes();
        self.send(request as u32, 0, &payload, usize::from(ring & 128 == 0), true);
    }

    fn table(&mut self, regions: Vec<MemoryRegion>) {
        let count = regions.len();
        self.send(Req::SET_MEM_TABLE as u32, 0, &MemTable(regions).to_bytes(), count, false);
    }

    fn state(&mut self, request: Req, ring: u8, num: u32) {
        self.tell(request, &VringState { index: u32::from(ring & 3), num }.to_bytes());
    }

    fn addr(&mut self, ring: u8, (desc, used, avail): (u16, u16, u16), log: Option<u16>) {
        let at = |offset: u16| BASE + u64::from(offset);
        let addr = VringAddr {
            index: u32::from(ring & 3),
            flags: u32::from(log.is_some()),
            desc: at(desc),
            used: at(used),
            avail: at(avail),
            log: log.map_or(0, at),
        };
        self.tell(Req::SET_VRING_ADDR, &addr.to_bytes());
    }

    fn log(&mut self, offset: u16, size: u16) {
        let log = Log { size: size.into(), offset: offset.into() };
        self.send(Req::SET_LOG_BASE as u32, 0, &log.to_bytes(), 1, false);
    }

    fn inflight(&mut self, offset: u16, size: u16, queue_size: u16) {
        let place = Inflight { mmap_size: size.into(), mmap_offset: offset.into(), queues: 2, queue_size };
        self.send(Req::SET_INFLIGHT_FD as u32, 0, &place.to_bytes(), 1, false);
    }

    fn translate(&mut self, (at, to): (u16, u16), pages: u8, access: u8, back: bool) {
        let (iova, user_addr) = (BASE + u64::from(at), BASE + u64::from(to));
        let kind = if back { IotlbMessage::INVALIDATE } else { IotlbMessage::UPDATE };
        let told = IotlbMessage { iova, size: u64::from(pages) << 12, user_addr, access, kind };
        // With NEED_REPLY, because a refusal ends the connection otherwise.
        self.send(Req::IOTLB_MSG as u32, 8, &told.to_bytes(), 0, false);
    }

    fn start(&mut self, packed: bool, power: u8, (recorded, translated): (bool, bool)) {
        let size = 1_u32 << (power % 9);
        let features = 1 << 32 | 1 << 30 | u64::from(packed) << 34 | 1 << 28 | 1 << 15;
        let features = features | u64::from(recorded) << 26 | u64::from(translated) << 33;
        // MQ, LOG_SHMFD, REPLY_ACK, BACKEND_REQ, INFLIGHT_SHMFD.
        let protocol: u64 = 1 | 1 << 1 | 1 << 3 | 1 << 5 | 1 << 12;
        self.tell(Req::SET_FEATURES, &features.to_bytes());
        self.tell(Req::SET_PROTOCOL_FEATURES, &protocol.to_bytes());
        self.table(vec![region(0, 16)]);
        if translated {
            self.translate((0, 0), 16, 3, false);
        }
        if recorded {
            self.log(0xc000, 0x4000);
            self.inflight(0xa000, 0x2000, size as u16);
        }
        for ring in 0..2 {
            self.state(Req::SET_VRING_NUM, ring, size);
            self.state(Req::SET_VRING_BASE, ring, 0);
            let at = u16::from(ring) * 0x4000;
            self.addr(ring, (at, at + 0x2000, at + 0x1000), recorded.then_some(at));
            self.ring_fd(Req::SET_VRING_CALL, ring);
            self.ring_fd(Req::SET_VRING_KICK, ring);
            self.state(Req::SET_VRING_ENABLE, ring, 1);
        }
    }

    /// Waits until the backend has processed all earlier messages or has closed the connection.
    fn settle(&mut self) {
        let until = Instant::now() + PATIENCE;
        self.tell(Req::GET_FEATURES, &[]);
        while !self.gone {
            match self.conn.read_until(until) {
                Ok(message) if message.request == Req::GET_FEATURES as u32 && message.payload.len() == 8 => {
                    return;
                }
                Ok(_) => {}
                Err(error) => {
                    assert!(Instant::now() < until, "the backend does not answer: {error}");
                    self.gone = true;
                }
            }
        }
    }
}

fn region(at: u16, pages: u8) -> MemoryRegion {
    let offset = u64::from(at);
    let addr = BASE + offset;
    MemoryRegion { guest_addr: addr, size: u64::from(pages) << 12, user_addr: addr, offset }
}

fn poll(rx: &mut Receive, tx: &mut Transmit, pool: &Pool) {
    let mut burst = Burst::new();
    rx.rx_burst(&mut burst);
    burst.clear();
    if let Some(mut packet) = pool.get() {
        if let Some(bytes) = packet.append(60) {
            bytes.fill(1);
        }
        let _ = burst.push(packet);
    }
    tx.tx_burst(&mut burst);
    tx.reclaim();
}

fn act(peer: &mut Frontend, step: Step) {
    match step {
        Step::Raw { request, ack, payload, fds } => {
            let payload = &payload[..payload.len().min(512)];
            peer.send(request.into(), if ack { 8 } else { 0 }, payload, usize::from(fds % 4), fds & 128 != 0);
        }
        Step::Features(bits) => peer.tell(Req::SET_FEATURES, &bits.to_bytes()),
        Step::Protocol(bits) => peer.tell(Req::SET_PROTOCOL_FEATURES, &bits.to_bytes()),
        Step::Table { first, second } => {
            let second = second.map(|(at, pages)| region(at, pages as u8));
            peer.table([Some(region(first & 0xf000, 4)), second].into_iter().flatten().collect());
        }
        Step::AddRegion { at, pages } => {
            peer.send(Req::ADD_MEM_REG as u32, 0, &SingleRegion(region(at, pages)).to_bytes(), 1, false);
        }
        Step::RemoveRegion { at, pages } => {
            peer.send(Req::REM_MEM_REG as u32, 0, &SingleRegion(region(at, pages)).to_bytes(), 0, false);
        }
        Step::Num { ring, num } => peer.state(Req::SET_VRING_NUM, ring, num.into()),
        Step::Base { ring, num } => peer.state(Req::SET_VRING_BASE, ring, num),
        Step::Addr { ring, desc, used, avail, log } => peer.addr(ring, (desc, used, avail), log),
        Step::Kick(ring) => peer.ring_fd(Req::SET_VRING_KICK, ring),
        Step::Call(ring) => peer.ring_fd(Req::SET_VRING_CALL, ring),
        Step::Enable { ring, on } => peer.state(Req::SET_VRING_ENABLE, ring, on.into()),
        Step::Stop(ring) => peer.state(Req::GET_VRING_BASE, ring, 0),
        Step::Status(status) => peer.tell(Req::SET_STATUS, &u64::from(status).to_bytes()),
        Step::Start { packed, power, recorded, translated } => {
            peer.start(packed, power, (recorded, translated))
        }
        Step::Translate { at, pages, to, access, back } => peer.translate((at, to), pages, access, back),
        Step::Log { offset, size } => peer.log(offset, size),
        Step::Inflight { offset, size, queue_size } => peer.inflight(offset, size, queue_size),
        Step::Poke { at, value } => {
            drop(peer.memory.write_at(&value.to_le_bytes(), u64::from(at).min(LEN - 8)))
        }
        Step::Descriptor { table, index, addr, len, flags, next } => {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&(BASE + u64::from(addr)).to_le_bytes());
            bytes[8..12].copy_from_slice(&u32::from(len).to_le_bytes());
            bytes[12..14].copy_from_slice(&u16::from(flags).to_le_bytes());
            bytes[14..].copy_from_slice(&u16::from(next).to_le_bytes());
            let at = (u64::from(table & 0xf000) + u64::from(index) * 16).min(LEN - 16);
            drop(peer.memory.write_at(&bytes, at));
        }
        Step::Shrink(len) => drop(peer.memory.set_len(len.into())),
        Step::Poll => {}
    }
}

/// The input of one run.
pub type Input = Vec<Step>;

/// Executes one run.
pub fn run(steps: Input) {
    static WORLD: OnceLock<Mutex<World>> = OnceLock::new();
    let world = WORLD.get_or_init(|| Mutex::new(world())).lock().expect("one at a time");
    let config = BackendConfig::new("fuzz", &world.path, Mode::Listen);
    let features = config.features | Features::ACCESS_PLATFORM;
    let config = config.queue_pairs(2).features(features);
    let backend = Backend::new(&world.control, config).expect("a backend");
    let mut rx = backend.receive_queue(0, &world.pool, Arc::<QueueStats<_>>::default()).expect("a queue");
    let mut tx = backend.transmit_queue(0, Arc::<QueueStats<_>>::default()).expect("a queue");
    let mut peer = Frontend::connect(&world.path);
    for step in steps.into_iter().take(64) {
        if matches!(step, Step::Poll) {
            peer.settle();
            poll(&mut rx, &mut tx, &world.pool);
        }
        act(&mut peer, step);
        if peer.gone {
            break;
        }
    }
    peer.settle();
    poll(&mut rx, &mut tx, &world.pool);
    drop(peer);
    let mut next = Frontend::connect(&world.path);
    next.settle();
    assert!(!next.gone, "the next frontend is served");
    drop((next, rx, tx, backend));
    let stats = world.pool.stats();
    assert_eq!(stats.in_use, 0, "every packet is home: {stats:?}");
}
