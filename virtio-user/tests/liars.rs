//! A table of backends that lie, each by name, with what becomes of their port: it goes down and says why, or the packet is
//! dropped and counted, or nothing happens. The process goes on, its other port moves packets, and no buffer is lost.
//!
//! `tests/hostile.rs` has the answers over the socket and the used rings of split queues; here are the rest: packed rings,
//! wrap bits, packet headers, configuration space, the control queue, and answers that come late.

mod support;

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use linecard_lab::wait_until;
use linecard_mempool::Burst;
use linecard_pmd::offload::{Offloads, RxOffloads};
use linecard_pmd::{DevArgs, Port, PortConfig};
use linecard_virtio::{Features, RingMemory};
use linecard_wire::payload::Payload;
use linecard_wire::{FrontendReq, OutMessage, ProtocolFeatures};
use support::echo::Echo;
use support::machine::{Controlled, Reply};
use support::{Act, Backend, Bench, Place, attached, drain};

/// What must come of a lie.
#[derive(Clone, Copy)]
enum Want {
    /// The port is down, and says this.
    Down(&'static str),
    /// The port is up; so many packets came, and so many were counted under a name.
    Up(usize, &'static str, u64),
}

use Want::{Down, Up};

const NOTHING: Want = Up(0, "rx_q0_errors", 0);
const RUNT: Want = Up(0, "rx_q0_undersize_packets", 1);
const BAD_COUNT: Want = Up(0, "rx_q0_bad_num_buffers", 1);
const BAD_HEADER: Want = Up(0, "rx_q0_bad_offload_header", 1);
const ONE: Want = Up(1, "rx_q0_errors", 0);

/// A port over a socket and the backend's view of it, beside another port that must not notice.
struct Field {
    bench: Bench,
    port: Port,
    backend: Backend,
    _place: Place,
}

const SIZE: u16 = 64;

impl Field {
    fn new(options: &str, offered: Features) -> Self {
        let (bench, place) = (Bench::new(1024), Place::new());
        let listener = UnixListener::bind(&place.0).expect("a socket");
        let peer = std::thread::spawn(move || {
            let mut backend = Backend::accept(&listener);
            backend.offered = offered;
            backend.until_running(2).expect("a frontend that stays");
            backend
        });
        let rx = RxOffloads::CHECKSUM | RxOffloads::TCP_LRO;
        let offloads = Offloads { rx, ..Offloads::default() };
        let config = PortConfig { offloads, ..PortConfig::default() };
        let device = bench.probe(&format!("{},queue_size={SIZE},{options}", place.arg())).expect("a device");
        let port = bench.start(device, config).expect("a port");
        Self { bench, port, backend: peer.join().expect("no panic"), _place: place }
    }

    fn send(&mut self, count: usize) {
        self.bench.send(&mut self.port, count);
    }

    fn poll(&mut self) -> usize {
        drain(&mut self.port)
    }

    fn check(mut self, name: &str, want: Want) {
        let control = self.port.control.clone();
        match want {
            Down(reason) => {
                wait_until(name, || {
                    self.poll();
                    !control.link().up && control.paths().contains(reason)
                });
                self.bench.soon_whole();
            }
            Up(packets, counter, count) => {
                assert_eq!(self.poll(), packets, "{name}");
                let xstats = control.xstats();
                let counted = xstats.iter().find(|(known, _)| known == counter).map_or(0, |(_, n)| *n);
                assert_eq!(counted, count, "{name}");
                assert!(control.link().up, "{name}");
            }
        }
        drop(self.backend);
        drop(self.port.stop());
        self.bench.assert_whole();
    }
}

/// Another port of this process, with an honest backend.
struct Bystander {
    bench: Bench,
    port: Port,
    echo: Box<dyn Echo>,
    _backend: Backend,
    _place: Place,
}

impl Bystander {
    fn new() -> Self {
        let (bench, place) = (Bench::new(1024), Place::new());
        let (port, backend, _) = attached(&bench, &place, "");
        Self { bench, port, echo: backend.echo(0), _backend: backend, _place: place }
    }

    /// Packets pass both ways.
    fn goes_on(&mut self, after: &str) {
        let mut burst = Burst::new();
        assert!(self.bench.pool.get_bulk(&mut burst, 8));
        burst.iter_mut().for_each(|packet| packet.append(60).expect("room").fill(2));
        assert_eq!(self.port.tx[0].tx_burst(&mut burst), 8, "{after}");
        assert_eq!(self.echo.turn(), 8, "{after}");
        let mut came = 0;
        wait_until(after, || {
            came += self.port.rx[0].rx_burst(&mut burst);
            came == 8
        });
        burst.clear();
        self.port.tx[0].reclaim();
    }
}

// Packed rings.

/// What a backend writes into a descriptor of a packed ring.
#[derive(Clone, Copy)]
enum Ink {
    /// Slot, id, length, flags.
    Raw(u16, u16, u32, u16),
    /// Slot, slot whose id is given back, length: with the flags of a used descriptor.
    Lent(u16, u16, u32),
    /// `num_buffers` of the buffer that was lent at a slot.
    Count(u16, u16),
}

use Ink::{Count, Lent, Raw};

/// Flags of a used descriptor in the first lap, that the device wrote.
const USED: u16 = 0x8080 | 2;
/// Those of one that the driver made available in the first lap, and of one used in the second.
const AVAILABLE: u16 = 0x80 | 2;
const NEXT_LAP: u16 = 2;
const HALF: u16 = 0x8000 | 2;

struct PackedRing(RingMemory);

impl PackedRing {
    /// Ids and addresses as the driver wrote them, before anything was overwritten.
    fn lent(&self) -> Vec<(u16, u64)> {
        let word = |at| self.0.desc.cell::<u64>(at).expect("inside the ring").load(Acquire);
        let slot = |slot: usize| ((word(16 * slot + 8) >> 32) as u16, word(16 * slot));
        (0..usize::from(SIZE)).map(slot).collect()
    }

    fn write(&self, slot: u16, id: u16, len: u32, flags: u16) {
        let word = u64::from(len) | u64::from(id) << 32 | u64::from(flags) << 48;
        let cell = self.0.desc.cell::<u64>(16 * usize::from(slot) + 8).expect("inside the ring");
        cell.store(word, Release);
    }
}

fn scribble(backend: &Backend, ring: usize, writes: &[Ink]) {
    let ring = PackedRing(backend.ring(ring));
    let lent = ring.lent();
    let at = |slot: u16| lent[usize::from(slot)];
    // Last to first: what the driver waits for is written when the rest is there.
    for ink in writes.iter().rev() {
        match *ink {
            Raw(slot, id, len, flags) => ring.write(slot, id, len, flags),
            Lent(slot, from, len) => ring.write(slot, at(from).0, len, USED),
            Count(slot, count) => {
                let header = backend.regions.bytes(at(slot).1, 12);
                header.slice(10, 2).expect("a header").copy_from(&count.to_le_bytes());
            }
        }
    }
}

const IN_FLIGHT: &str = "receive queue 0: peer returned buffer id";
const TOO_LONG: &str = "receive queue 0: peer claims to have written";

const PACKED_RECEIVE: &[(&str, &[Ink], Want)] = &[
    ("packed rx: an id beyond the ring", &[Raw(0, SIZE, 76, USED)], Down(IN_FLIGHT)),
    ("packed rx: the largest id", &[Raw(0, u16::MAX, 76, USED)], Down(IN_FLIGHT)),
    ("packed rx: an id twice", &[Count(0, 1), Lent(0, 0, 76), Lent(1, 0, 76)], Down(IN_FLIGHT)),
    ("packed rx: one byte too many", &[Lent(0, 0, 2061)], Down(TOO_LONG)),
    ("packed rx: four billion bytes", &[Lent(0, 0, u32::MAX)], Down(TOO_LONG)),
    ("packed rx: used for the next lap", &[Raw(0, 0, 76, NEXT_LAP)], NOTHING),
    ("packed rx: still available", &[Raw(0, 0, 76, AVAILABLE)], NOTHING),
    ("packed rx: half of the wrap bits", &[Raw(0, 0, 76, HALF)], NOTHING),
    ("packed rx: the second before the first", &[Lent(1, 1, 76)], NOTHING),
    ("packed rx: the last of the ring first", &[Lent(SIZE - 1, 5, 76)], NOTHING),
    ("packed rx: no bytes", &[Lent(0, 0, 0)], RUNT),
    ("packed rx: half a header", &[Lent(0, 0, 11)], RUNT),
    ("packed rx: a header only", &[Lent(0, 0, 12)], RUNT),
    ("packed rx: half an Ethernet header", &[Lent(0, 0, 25)], RUNT),
    ("packed rx: no buffers", &[Count(0, 0), Lent(0, 0, 76)], BAD_COUNT),
    ("packed rx: a buffer that is not there", &[Count(0, 2), Lent(0, 0, 76)], BAD_COUNT),
    ("packed rx: more buffers than the ring", &[Count(0, SIZE + 1), Lent(0, 0, 76)], BAD_COUNT),
    ("packed rx: most buffers", &[Count(0, u16::MAX), Lent(0, 0, 76)], BAD_COUNT),
    (
        "packed rx: an impossible continuation",
        &[Count(0, 2), Lent(0, 0, 76), Raw(1, 999, 5, USED)],
        Down(IN_FLIGHT),
    ),
    ("packed rx: a good one", &[Count(0, 1), Lent(0, 0, 76)], ONE),
    ("packed rx: a good one, out of order", &[Count(5, 1), Lent(0, 5, 76)], ONE),
];

const TX_IN_FLIGHT: &str = "transmit queue 0: peer returned buffer id";

const PACKED_TRANSMIT: &[(&str, &[Ink], Want)] = &[
    ("packed tx: an id beyond the ring", &[Raw(0, SIZE, 0, USED)], Down(TX_IN_FLIGHT)),
    ("packed tx: the largest id", &[Raw(0, u16::MAX, 0, USED)], Down(TX_IN_FLIGHT)),
    ("packed tx: an id that is not in flight", &[Raw(0, 60, 0, USED)], Down(TX_IN_FLIGHT)),
    ("packed tx: an id twice", &[Lent(0, 0, 0), Lent(1, 0, 0)], Down(TX_IN_FLIGHT)),
    ("packed tx: used for the next lap", &[Raw(0, 0, 0, NEXT_LAP)], NOTHING),
    ("packed tx: half of the wrap bits", &[Raw(0, 0, 0, HALF)], NOTHING),
    ("packed tx: what was never sent", &[Lent(40, 3, 0)], NOTHING),
];

/// Offered by a backend whose packet headers mean something.
fn with_offloads() -> Features {
    support::all_features() | Features::NET_GUEST_CSUM | Features::NET_GUEST_TSO4 | Features::NET_GUEST_TSO6
}

// Packet headers: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset.

type Header = (u8, u8, u16, u16, u16, u16);

const HEADERS: &[(&str, Header, Want)] = &[
    ("header: a checksum behind the packet", (1, 0, 0, 0, 60, 16), BAD_HEADER),
    ("header: a checksum that ends one byte behind it", (1, 0, 0, 0, 34, 25), BAD_HEADER),
    ("header: a checksum that starts at 65 535", (1, 0, 0, 0, u16::MAX, 0), BAD_HEADER),
    ("header: an offset of 65 535", (1, 0, 0, 0, 34, u16::MAX), BAD_HEADER),
    ("header: both 65 535", (1, 0, 0, 0, u16::MAX, u16::MAX), BAD_HEADER),
    ("header: segments without a checksum", (0, 1, 54, 1448, 34, 16), BAD_HEADER),
    ("header: segments of no bytes", (1, 1, 54, 0, 34, 16), BAD_HEADER),
    ("header: segments of a packet that is none of TCP", (1, 1, 54, 1448, 34, 16), BAD_HEADER),
    ("header: TCP over IPv6 in a packet that is none", (1, 4, 74, 1428, 54, 4), BAD_HEADER),
    ("header: UDP segments that were not negotiated", (1, 5, 42, 1448, 34, 6), BAD_HEADER),
    ("header: an unknown kind of segments", (1, 2, 54, 1448, 34, 16), BAD_HEADER),
    ("header: the largest kind", (1, 0x7f, 54, 1448, 34, 16), BAD_HEADER),
    ("header: congestion marks without segments", (1, 0x80, 54, 1448, 34, 16), BAD_HEADER),
    ("header: every bit", (0xff, 0xff, u16::MAX, u16::MAX, u16::MAX, u16::MAX), BAD_HEADER),
    ("header: a header length beyond the packet", (0, 0, u16::MAX, 0, 0, 0), ONE),
    ("header: unknown flags", (0xf8, 0, 0, 0, 0, 0), ONE),
];

fn headers_of(kind: &str, bystander: &mut Bystander) -> usize {
    for (name, (flags, gso, hdr_len, gso_size, start, offset), want) in HEADERS {
        let name = format!("{kind}: {name}");
        let field = Field::new(kind, with_offloads());
        let ring = field.backend.ring(0);
        let packed = field.backend.packed();
        let (id, addr) = match packed {
            true => PackedRing(ring).lent()[0],
            // The first available entry names the descriptor.
            false => {
                let id = ring.driver.cell::<u16>(4).expect("inside").load(Acquire);
                (id, ring.desc.cell::<u64>(16 * usize::from(id)).expect("inside").load(Acquire))
            }
        };
        let words = [hdr_len, gso_size, start, offset, &1].map(|word| word.to_le_bytes());
        let bytes = [&[*flags, *gso][..], words.as_flattened()].concat();
        field.backend.regions.bytes(addr, 12).copy_from(&bytes);
        field.backend.regions.bytes(addr + 12, 60).fill(2);
        if packed {
            PackedRing(ring).write(0, id, 72, USED);
        } else {
            ring.device.cell::<u32>(4).expect("inside").store(u32::from(id), Relaxed);
            ring.device.cell::<u32>(8).expect("inside").store(72, Relaxed);
            ring.device.cell::<u16>(2).expect("inside").store(1, Release);
        }
        field.check(&name, *want);
        bystander.goes_on(&name);
    }
    HEADERS.len()
}

// The control queue.

const ID: &str = "the control queue: peer returned buffer id";
const LEN: &str = "the control queue: peer claims to have written";
const JUMP: &str = "the control queue: peer moved the used index";
const SILENT: &str = "did not answer VIRTIO_NET_CTRL_";
const ANSWER: &str = "which is neither OK (0) nor ERR (1)";

/// Layout, lie, and the reason.
const CONTROL: &[(&str, &str, Reply, &str)] = &[
    ("split: an answer of 2", "packed_vq=0", Reply::Ack(2), ANSWER),
    ("split: an answer of 254", "packed_vq=0", Reply::Ack(0xfe), ANSWER),
    ("split: no answer in it", "packed_vq=0", Reply::Nothing, ANSWER),
    ("split: silence", "packed_vq=0", Reply::Silence, SILENT),
    ("split: another descriptor", "packed_vq=0", Reply::Id(1), ID),
    ("split: a descriptor beyond the ring", "packed_vq=0", Reply::Id(16), ID),
    ("split: the largest id", "packed_vq=0", Reply::Id(u32::MAX), ID),
    ("split: two bytes of one", "packed_vq=0", Reply::Len(2), LEN),
    ("split: four billion bytes", "packed_vq=0", Reply::Len(u32::MAX), LEN),
    ("split: two answers", "packed_vq=0", Reply::Twice, JUMP),
    ("split: a lap of answers", "packed_vq=0", Reply::Jump(16), JUMP),
    ("split: an index in the past", "packed_vq=0", Reply::Jump(u16::MAX), JUMP),
    ("split: half the index space", "packed_vq=0", Reply::Jump(0x8000), JUMP),
    ("split: the ring full of ones", "packed_vq=0", Reply::Scribble(0xff), JUMP),
    ("packed: an answer of 2", "packed_vq=1", Reply::Ack(2), ANSWER),
    ("packed: an answer of 254", "packed_vq=1", Reply::Ack(0xfe), ANSWER),
    ("packed: no answer in it", "packed_vq=1", Reply::Nothing, ANSWER),
    ("packed: silence", "packed_vq=1", Reply::Silence, SILENT),
    ("packed: another id", "packed_vq=1", Reply::Id(1), ID),
    ("packed: the largest id", "packed_vq=1", Reply::Id(0xffff), ID),
    ("packed: two bytes of one", "packed_vq=1", Reply::Len(2), LEN),
    ("packed: four billion bytes", "packed_vq=1", Reply::Len(u32::MAX), LEN),
    ("packed: used for the next lap", "packed_vq=1", Reply::Flags(0), SILENT),
    ("packed: still available", "packed_vq=1", Reply::Flags(0x80), SILENT),
    ("packed: half of the wrap bits", "packed_vq=1", Reply::Flags(0x8000), SILENT),
    ("packed: the ring full of ones", "packed_vq=1", Reply::Scribble(0xff), ID),
];

/// A port over a device with a control queue.
fn controlled(bench: &Bench, device: &Controlled, options: &str) -> Result<Port, String> {
    let args = DevArgs::parse(&format!("net_virtio_user0,{options}")).expect("well formed");
    let made = bench.driver.probe_over(&bench.context(), &args, Arc::new(device.clone()));
    let made = made.map_err(|error| error.to_string())?;
    bench.start(made, PortConfig::default()).map_err(|failed| failed.error.to_string())
}

/// While a port starts, and while it runs.
fn control_lies(bystander: &mut Bystander) -> usize {
    for (name, layout, reply, reason) in CONTROL {
        let (bench, device, reply) = (Bench::new(1024), Controlled::new(1), *reply);
        device.replies(move |_| reply);
        let error = controlled(&bench, &device, layout).expect_err(name);
        assert!(error.contains(reason) && !error.contains('\n'), "control queue, {name}: {error}");
        bench.assert_whole();
        bystander.goes_on(name);

        let device = Controlled::new(1);
        let port = controlled(&bench, &device, layout).expect("a port");
        device.replies(move |_| reply);
        port.control.set_promiscuous(false);
        wait_until(name, || port.control.paths().contains(reason));
        assert!(!port.control.link().up, "control queue, {name}");
        device.replies(|_| Reply::Ack(0));
        wait_until("another connection, which is good", || port.control.link().up);
        assert!(!port.control.paths().contains(reason), "it is forgotten");
        drop(port.stop());
        bench.assert_whole();
        bystander.goes_on(name);
    }
    2 * CONTROL.len()
}

// Configuration space.

/// What a device has there. None of it is an address that the port could take.
fn config_lies(bystander: &mut Bystander) -> usize {
    let cases: [(&str, Vec<u8>); 6] = [
        ("config: no bytes", vec![]),
        ("config: five bytes of an address", vec![2; 5]),
        ("config: the address of a group", vec![1, 0, 0x5e, 0, 0, 1, 0, 0]),
        ("config: everybody's address", vec![0xff; 64]),
        ("config: no address", vec![0; 64]),
        ("config: a megabyte of it", [vec![0xff; 6], vec![7; 1 << 20]].concat()),
    ];
    let count = cases.len();
    for (name, config) in cases {
        let (bench, device) = (Bench::new(1024), Controlled::new(1));
        device.now().offer.features |= Features::NET_MAC;
        device.now().config = config;
        let port = controlled(&bench, &device, "packed_vq=0").expect(name);
        let mac = port.control.mac();
        assert!(mac[0] & 3 == 2, "{name}: an address of its own, {mac:x?}");
        assert!(!device.now().features.contains(Features::NET_MAC), "{name}");
        drop(port.stop());
        bystander.goes_on(name);
    }
    count
}

/// What a backend answers to GET_CONFIG; the port goes on with an address of its own.
fn config_answers(bystander: &mut Bystander) -> usize {
    let whole = |offset: u32, size: u32, data: &[u8]| {
        [&offset.to_ne_bytes()[..], &size.to_ne_bytes(), &0_u32.to_ne_bytes(), data].concat()
    };
    let cases: [(&str, Vec<u8>); 7] = [
        ("GET_CONFIG: nothing", vec![]),
        ("GET_CONFIG: eleven bytes", vec![0; 11]),
        ("GET_CONFIG: a size without its bytes", whole(0, 6, &[])),
        ("GET_CONFIG: fewer bytes than asked", whole(0, 5, &[2; 5])),
        ("GET_CONFIG: more bytes than asked", whole(0, 7, &[2; 7])),
        ("GET_CONFIG: four billion bytes", whole(0, u32::MAX, &[2; 6])),
        ("GET_CONFIG: another message's answer", vec![0xff; 300]),
    ];
    let count = cases.len();
    for (name, answer) in cases {
        let spoiler: support::Spoiler = Box::new(move |conn, message| {
            if message.request != FrontendReq::GET_CONFIG as u32 {
                return Act::Normal;
            }
            let _ = conn.send(&OutMessage::reply(message.request, &answer));
            Act::Handled
        });
        let outcome = over_socket(spoiler);
        assert!(outcome.is_ok(), "{name}: {outcome:?}");
        bystander.goes_on(name);
    }
    count
}

/// A port over a backend with a configuration space; the sentence that it fails with, if it does.
fn over_socket(spoiler: support::Spoiler) -> Result<(), String> {
    let (bench, place) = (Bench::new(1024), Place::new());
    let listener = UnixListener::bind(&place.0).expect("a socket");
    let peer = std::thread::spawn(move || {
        let mut backend = Backend::accept(&listener);
        // There is no second try.
        drop(listener);
        backend.protocol |= ProtocolFeatures::CONFIG;
        backend.offered |= Features::NET_MAC;
        backend.spoiler = Some(spoiler);
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

// Answers that come late: when nobody waits for them any more.

const LATE: [(&str, FrontendReq, &str); 3] = [
    ("late: the features", FrontendReq::GET_FEATURES, "did not answer GET_FEATURES"),
    ("late: the status", FrontendReq::GET_STATUS, "did not answer GET_STATUS"),
    ("late: an acknowledgement", FrontendReq::SET_VRING_KICK, "did not answer SET_VRING_KICK"),
];

fn late_answers(bystander: &mut Bystander) -> usize {
    for (name, victim, part) in LATE {
        let spoiler: support::Spoiler = Box::new(move |conn, message| {
            if message.request == victim as u32 {
                // Until the port has hung up: whatever comes then is late.
                while matches!(conn.read(), Ok(None)) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                let _ = conn.send(&OutMessage::reply(message.request, &0_u64.to_bytes()));
                return Act::Leave;
            }
            let config = message.request == FrontendReq::GET_CONFIG as u32;
            if config && conn.send(&OutMessage::reply(message.request, &[])).is_ok() {
                return Act::Handled;
            }
            Act::Normal
        });
        let error = over_socket(spoiler).expect_err(name);
        assert!(error.contains(part), "{name}: {error}");
        bystander.goes_on(name);
    }
    LATE.len()
}

/// Everything above, beside a port that goes on.
#[test]
fn liars_lose_their_own_port() {
    let mut bystander = Bystander::new();
    let mut cases = 0;
    for (name, writes, want) in PACKED_RECEIVE {
        let field = Field::new("packed_vq=1,in_order=0", support::all_features());
        scribble(&field.backend, 0, writes);
        field.check(name, *want);
        bystander.goes_on(name);
        cases += 1;
    }
    for (name, writes, want) in PACKED_TRANSMIT {
        let mut field = Field::new("packed_vq=1,in_order=0", support::all_features());
        field.send(32);
        scribble(&field.backend, 1, writes);
        field.check(name, *want);
        bystander.goes_on(name);
        cases += 1;
    }
    cases += headers_of("packed_vq=0,in_order=0", &mut bystander);
    cases += headers_of("packed_vq=1,in_order=0", &mut bystander);
    cases += config_lies(&mut bystander);
    cases += config_answers(&mut bystander);
    assert!(cases >= 60, "{cases} cases");
    drop(bystander.port.stop());
    bystander.bench.assert_whole();
}

/// Those that take a second or more, since somebody waits for an answer that does not come.
#[test]
fn liars_with_a_control_queue_lose_their_own_port() {
    let mut bystander = Bystander::new();
    let cases = control_lies(&mut bystander) + late_answers(&mut bystander);
    assert!(cases >= 50, "{cases} cases");
    drop(bystander.port.stop());
    bystander.bench.assert_whole();
}
