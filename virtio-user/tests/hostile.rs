//! Backends that break the rules: the worst they can do is to lose their port.

mod support;

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use linecard_eal::shared::Shared;
use linecard_lab::{Prng, wait_until};
use linecard_mempool::Burst;
use linecard_pmd::Port;
use linecard_virtio::{Features, RingMemory};
use linecard_wire::payload::Payload;
use linecard_wire::{Connection, FrontendReq, OutMessage, ProtocolFeatures, REPLY};
use support::{Act, Backend, Bench, Place, Spoiler, attached, drain};

/// What a backend does with one request instead of the right thing.
#[derive(Clone)]
enum Lie {
    /// Answers with these bytes.
    Payload(Vec<u8>),
    /// Answers with a number.
    Number(u64),
    /// Answers as if something else had been asked.
    Other(u32),
    /// Sends the request back, no answer.
    Echo,
    /// Answers twice.
    Twice(u64),
    /// Attaches descriptors to the answer.
    WithFds(u64),
    /// Sends these bytes as they are.
    Raw(Vec<u8>),
    /// Says nothing.
    Silence,
    /// Closes.
    Leave,
}

fn tell(lie: &Lie, conn: &mut Connection, request: u32) -> Act {
    let number;
    let mut message = OutMessage::reply(request, &[]);
    match lie {
        Lie::Payload(bytes) => message.payload = bytes,
        Lie::Number(value) | Lie::Twice(value) | Lie::WithFds(value) => {
            number = value.to_bytes();
            message.payload = &number;
        }
        Lie::Other(other) => {
            message.request = *other;
            message.payload = &[0; 8];
        }
        Lie::Echo => {
            message.flags = 0;
            message.payload = &[0; 8];
        }
        Lie::Raw(bytes) => {
            let mut socket: &UnixStream = conn.socket();
            let _ = socket.write_all(bytes);
            return Act::Handled;
        }
        Lie::Silence => return Act::Handled,
        Lie::Leave => return Act::Leave,
    }
    let null = std::fs::File::open("/dev/null").expect("a file");
    let fds = [null.as_fd(); 3];
    if matches!(lie, Lie::WithFds(_)) {
        message = message.with_fds(&fds);
    }
    let _ = conn.send(&message);
    if matches!(lie, Lie::Twice(_)) {
        let _ = conn.send(&message);
    }
    Act::Handled
}

fn spoil(victim: FrontendReq, lie: Lie) -> Spoiler {
    Box::new(move |conn, message| match message.request {
        request if request == victim as u32 => tell(&lie, conn, request),
        _ => Act::Normal,
    })
}

/// Opens a port whose backend lies; the sentence it fails with, if it fails.
fn outcome(bench: &Bench, lie: Spoiler, protocol: ProtocolFeatures, offered: Features) -> Result<(), String> {
    support::outcome(bench, move |backend| {
        (backend.protocol, backend.offered, backend.spoiler) = (protocol, offered, Some(lie));
    })
}

fn header(request: u32, flags: u32, size: u32) -> Vec<u8> {
    [request, flags, size].iter().flat_map(|word| word.to_ne_bytes()).collect()
}

#[test]
fn answers_that_are_wrong() {
    use FrontendReq as Q;
    let bench = Bench::new(1024);
    let features = support::all_features();
    let reply = REPLY | 1;
    let get = Q::GET_FEATURES as u32;
    let number = |n: u64| Lie::Number(n);
    let cases: Vec<(&str, Q, Lie, &str)> = vec![
        ("no bytes", Q::GET_FEATURES, Lie::Payload(vec![]), "0 bytes"),
        ("four bytes", Q::GET_FEATURES, Lie::Payload(vec![0; 4]), "4 bytes"),
        ("nine bytes", Q::GET_FEATURES, Lie::Payload(vec![0; 9]), "9 bytes"),
        ("a page", Q::GET_FEATURES, Lie::Payload(vec![0xff; 4096]), "4096 bytes"),
        (
            "another answer",
            Q::GET_FEATURES,
            Lie::Other(Q::GET_STATUS as u32),
            "answered GET_FEATURES with message",
        ),
        ("an unknown answer", Q::GET_FEATURES, Lie::Other(u32::MAX), "answered GET_FEATURES with message"),
        ("the request itself", Q::GET_FEATURES, Lie::Echo, "answered GET_FEATURES with message"),
        ("no features", Q::GET_FEATURES, number(0), "VERSION_1"),
        ("legacy features", Q::GET_FEATURES, number(0x1_ffff), "VERSION_1"),
        ("version 0", Q::GET_FEATURES, Lie::Raw(header(get, REPLY, 8)), "version 0"),
        ("version 3", Q::GET_FEATURES, Lie::Raw(header(get, REPLY | 3, 8)), "version 3"),
        ("a giant", Q::GET_FEATURES, Lie::Raw(header(get, reply, 4097)), "4097"),
        ("the largest giant", Q::GET_FEATURES, Lie::Raw(header(get, reply, u32::MAX)), "announces"),
        ("half a header", Q::GET_FEATURES, Lie::Raw(header(get, reply, 8)[..5].to_vec()), "did not answer"),
        ("a header only", Q::GET_FEATURES, Lie::Raw(header(get, reply, 8)), "did not answer"),
        ("noise", Q::GET_FEATURES, Lie::Raw(vec![0x5a; 600]), "request"),
        ("silence", Q::GET_FEATURES, Lie::Silence, "did not answer GET_FEATURES"),
        ("goodbye", Q::GET_FEATURES, Lie::Leave, "closed"),
        ("protocol, 4 bytes", Q::GET_PROTOCOL_FEATURES, Lie::Payload(vec![0; 4]), "4 bytes"),
        ("protocol, other", Q::GET_PROTOCOL_FEATURES, Lie::Other(get), "GET_PROTOCOL_FEATURES"),
        ("protocol, silence", Q::GET_PROTOCOL_FEATURES, Lie::Silence, "did not answer GET_PROTOCOL_FEATURES"),
        ("owner refused", Q::SET_OWNER, number(1), "refused SET_OWNER"),
        ("owner, silence", Q::SET_OWNER, Lie::Silence, "did not answer SET_OWNER"),
        ("no queues", Q::GET_QUEUE_NUM, number(0), "the backend has 0"),
        ("queues, 12 bytes", Q::GET_QUEUE_NUM, Lie::Payload(vec![1; 12]), "12 bytes"),
        ("no slots at all", Q::GET_MAX_MEM_SLOTS, number(0), ""),
        ("more slots than there are", Q::GET_MAX_MEM_SLOTS, number(u64::MAX), ""),
        ("features refused", Q::SET_FEATURES, number(1), "refused SET_FEATURES with code 1"),
        ("features, odd ack", Q::SET_FEATURES, Lie::Payload(vec![0; 3]), "3 bytes"),
        ("status refused", Q::SET_STATUS, number(7), "refused SET_STATUS"),
        ("features not ok", Q::GET_STATUS, number(3), "did not accept the features"),
        ("needs reset", Q::GET_STATUS, number(0x4b), "did not accept the features"),
        ("failed", Q::GET_STATUS, number(0x8b), "did not accept the features"),
        ("odd status", Q::GET_STATUS, number(u64::MAX), "did not accept the features"),
        ("status, silence", Q::GET_STATUS, Lie::Silence, "did not answer GET_STATUS"),
        ("call refused", Q::SET_VRING_CALL, number(1), "refused SET_VRING_CALL"),
        ("region refused", Q::ADD_MEM_REG, number(u64::MAX), "refused ADD_MEM_REG"),
        ("region, silence", Q::ADD_MEM_REG, Lie::Silence, "did not answer ADD_MEM_REG"),
        ("size refused", Q::SET_VRING_NUM, number(1), "refused SET_VRING_NUM"),
        ("base refused", Q::SET_VRING_BASE, number(1), "refused SET_VRING_BASE"),
        ("address refused", Q::SET_VRING_ADDR, number(1), "refused SET_VRING_ADDR"),
        ("kick refused", Q::SET_VRING_KICK, number(1), "refused SET_VRING_KICK"),
        ("kick, goodbye", Q::SET_VRING_KICK, Lie::Leave, "cannot connect"),
        ("enable refused", Q::SET_VRING_ENABLE, number(1), "refused SET_VRING_ENABLE"),
        ("enable, another answer", Q::SET_VRING_ENABLE, Lie::Other(0), "answered SET_VRING_ENABLE"),
        ("descriptors", Q::GET_FEATURES, Lie::WithFds(features.bits()), ""),
        ("everything", Q::GET_FEATURES, number(u64::MAX), ""),
        ("all protocol features", Q::GET_PROTOCOL_FEATURES, number(u64::MAX), ""),
        ("65 535 pairs", Q::GET_QUEUE_NUM, number(u64::MAX), ""),
        ("base, nonsense", Q::GET_VRING_BASE, Lie::Payload(vec![9; 40]), ""),
        ("base, number", Q::GET_VRING_BASE, number(u64::MAX), ""),
    ];
    assert!(cases.len() >= 40);
    let protocol = support::usual_protocol() | ProtocolFeatures::CONFIGURE_MEM_SLOTS;
    for (name, victim, lie, part) in cases {
        match outcome(&bench, spoil(victim, lie), protocol, features) {
            Ok(()) => assert!(part.is_empty(), "{name}: accepted"),
            Err(error) => {
                assert!(!part.is_empty() && error.contains(part), "{name}: {error}");
                assert!(error.starts_with("net_virtio_user0: ") && !error.contains('\n'), "{name}: {error}");
            }
        }
    }
}

#[test]
fn answers_that_come_twice() {
    let bench = Bench::new(1024);
    let protocol = support::usual_protocol();
    // The second answer is taken for the answer to the next question, or comes uninvited; either ends it.
    for (victim, value) in [
        (FrontendReq::GET_FEATURES, support::all_features().bits()),
        (FrontendReq::GET_QUEUE_NUM, 4),
        (FrontendReq::SET_FEATURES, 0),
        (FrontendReq::GET_STATUS, 11),
    ] {
        let error = outcome(&bench, spoil(victim, Lie::Twice(value)), protocol, support::all_features());
        assert!(error.expect_err("a second answer").contains("answered"), "{victim:?}");
    }
}

/// A backend without protocol features: no acknowledgements, no status, rings enabled from the start.
#[test]
fn a_backend_that_can_do_nothing_is_enough() {
    let (bench, place) = (Bench::new(1024), Place::new());
    let listener = UnixListener::bind(&place.0).expect("a socket");
    let peer = std::thread::spawn(move || {
        let mut backend = Backend::accept(&listener);
        backend.offered = Features::VERSION_1;
        backend.rings.iter_mut().for_each(|ring| ring.enabled = true);
        backend.until_running(2).expect("a frontend that stays");
        backend.until_gone();
        backend.features
    });
    let port = bench.open(&place.arg());
    assert!(port.control.link().up);
    assert_eq!(port.rx[0].path(), "split");
    drop(port.stop());
    assert_eq!(peer.join().expect("no panic"), Features::VERSION_1, "nothing that was not offered");
    bench.assert_whole();
}

/// A port and the backend's view of its rings.
struct Field {
    bench: Bench,
    port: Port,
    backend: Backend,
    _place: Place,
    _listener: UnixListener,
}

impl Field {
    fn new(options: &str) -> Self {
        let (bench, place) = (Bench::new(1024), Place::new());
        let (port, backend, listener) = attached(&bench, &place, &format!(",queue_size=64,{options}"));
        Self { bench, port, backend, _place: place, _listener: listener }
    }

    fn send(&mut self, count: usize) {
        self.bench.send(&mut self.port, count);
    }

    /// Receives and reclaims until the port is down or nothing more happens; what came.
    fn poll(&mut self) -> usize {
        drain(&mut self.port)
    }

    fn xstat(&self, name: &str) -> u64 {
        self.port.control.xstats().iter().find(|(known, _)| known == name).map_or(0, |(_, n)| *n)
    }

    /// The port must be down, and everything home while it is.
    fn assert_down(&mut self, name: &str) {
        let mut burst = Burst::new();
        wait_until(name, || {
            self.port.rx[0].rx_burst(&mut burst);
            self.port.tx[0].reclaim();
            burst.clear();
            !self.port.control.link().up
        });
        self.bench.soon_whole();
    }

    fn end(self) {
        let Self { bench, port, backend, .. } = self;
        drop(backend);
        drop(port.stop());
        bench.assert_whole();
    }
}

/// The used ring of a split queue, written as a backend likes.
struct Used(RingMemory);

impl Used {
    fn cell<T: linecard_eal::shared::Word>(&self, at: usize) -> Shared<T> {
        self.0.device.cell(at).expect("inside the ring")
    }

    fn element(&self, at: u16, id: u32, len: u32) {
        let at = 4 + 8 * usize::from(at % 64);
        self.cell::<u32>(at).store(id, Relaxed);
        self.cell::<u32>(at + 4).store(len, Relaxed);
    }

    fn index(&self, index: u16) {
        self.cell::<u16>(2).store(index, Release);
    }

    /// The descriptor that the driver made available at `at`, and its buffer.
    fn lent(&self, at: u16) -> (u32, u64) {
        let driver = self.0.driver;
        let id = driver.cell::<u16>(4 + 2 * usize::from(at % 64)).expect("inside the ring").load(Acquire);
        let addr = self.0.desc.cell::<u64>(16 * usize::from(id)).expect("inside the ring").load(Acquire);
        (u32::from(id), addr)
    }

    /// Writes `num_buffers` into the header of the buffer lent at `at`.
    fn num_buffers(&self, backend: &Backend, at: u16, count: u16) {
        let (_, addr) = self.lent(at);
        assert_eq!(
            backend.regions.bytes(addr, 12).slice(10, 2).expect("a header").copy_from(&count.to_le_bytes()),
            2
        );
    }
}

/// One thing a backend writes.
#[derive(Clone, Copy)]
enum Ink {
    /// Used element: slot, id, length.
    Raw(u16, u32, u32),
    /// Used element with the id that was lent there: slot, slot lent, length.
    Lent(u16, u16, u32),
    /// `num_buffers` in the header of what was lent at a slot.
    Count(u16, u16),
    /// The used index.
    Index(u16),
}

impl Ink {
    fn apply(self, used: &Used, backend: &Backend) {
        match self {
            Self::Raw(slot, id, len) => used.element(slot, id, len),
            Self::Lent(slot, from, len) => used.element(slot, used.lent(from).0, len),
            Self::Count(slot, count) => used.num_buffers(backend, slot, count),
            Self::Index(index) => used.index(index),
        }
    }
}

/// What a hostile used ring must lead to.
#[derive(Clone, Copy)]
enum Want {
    /// Link down, everything home.
    Down,
    /// So many packets received, and so many counted under a name.
    Counted(usize, &'static str, u64),
}

const RUNT: Want = Want::Counted(0, "rx_q0_undersize_packets", 1);
const BAD_COUNT: Want = Want::Counted(0, "rx_q0_bad_num_buffers", 1);
const GOOD: Want = Want::Counted(1, "rx_q0_errors", 0);

use Ink::{Count, Index, Lent, Raw};

const RECEIVE_LIES: &[(&str, &[Ink], Want)] = &[
    ("an id beyond the ring", &[Raw(0, 64, 76), Index(1)], Want::Down),
    ("the largest id", &[Raw(0, u32::MAX, 76), Index(1)], Want::Down),
    ("an id twice", &[Lent(0, 0, 76), Lent(1, 0, 76), Index(2)], Want::Down),
    ("more bytes than lent", &[Lent(0, 0, 2061), Index(1)], Want::Down),
    ("four billion bytes", &[Lent(0, 0, u32::MAX), Index(1)], Want::Down),
    ("more used than lent", &[Index(65)], Want::Down),
    ("an index in the past", &[Index(u16::MAX)], Want::Down),
    ("half the index space", &[Index(0x8000)], Want::Down),
    ("no bytes", &[Lent(0, 0, 0), Index(1)], RUNT),
    ("half a header", &[Lent(0, 0, 11), Index(1)], RUNT),
    ("a header only", &[Lent(0, 0, 12), Index(1)], RUNT),
    ("half an Ethernet header", &[Lent(0, 0, 25), Index(1)], RUNT),
    ("no buffers", &[Count(0, 0), Lent(0, 0, 76), Index(1)], BAD_COUNT),
    ("a buffer that is not there", &[Count(0, 2), Lent(0, 0, 76), Index(1)], BAD_COUNT),
    ("more buffers than the ring", &[Count(0, 65), Lent(0, 0, 76), Index(1)], BAD_COUNT),
    ("most buffers", &[Count(0, u16::MAX), Lent(0, 0, 76), Index(1)], BAD_COUNT),
    ("an impossible continuation", &[Count(0, 2), Lent(0, 0, 76), Raw(1, 9999, 5), Index(2)], Want::Down),
    ("an empty continuation", &[Count(0, 2), Lent(0, 0, 76), Lent(1, 1, 0), Index(2)], GOOD),
    ("a good one", &[Count(0, 1), Lent(0, 0, 76), Index(1)], GOOD),
    ("a good one, out of order", &[Count(5, 1), Lent(0, 5, 76), Index(1)], GOOD),
];

#[test]
fn receive_rings_of_liars() {
    for (name, writes, want) in RECEIVE_LIES {
        let mut field = Field::new("in_order=0");
        let used = Used(field.backend.ring(0));
        writes.iter().for_each(|write| write.apply(&used, &field.backend));
        match *want {
            Want::Down => field.assert_down(name),
            Want::Counted(packets, counter, count) => {
                assert_eq!(field.poll(), packets, "{name}");
                assert_eq!(field.xstat(counter), count, "{name}");
                assert!(field.port.control.link().up, "{name}");
            }
        }
        field.end();
    }
}

const TRANSMIT_LIES: &[(&str, &[Ink])] = &[
    ("an id beyond the ring", &[Raw(0, 64, 0), Index(1)]),
    ("the largest id", &[Raw(0, u32::MAX, 0), Index(1)]),
    ("an id that is not in flight", &[Raw(0, 60, 0), Index(1)]),
    ("an id twice", &[Lent(0, 0, 0), Lent(1, 0, 0), Index(2)]),
    ("more used than lent", &[Index(40)]),
    ("an index in the past", &[Index(u16::MAX)]),
];

#[test]
fn transmit_rings_of_liars() {
    for in_order in [0, 1] {
        for (name, writes) in TRANSMIT_LIES {
            let mut field = Field::new(&format!("in_order={in_order}"));
            field.send(32);
            let used = Used(field.backend.ring(1));
            writes.iter().for_each(|write| write.apply(&used, &field.backend));
            if in_order == 1 && name.contains("id") {
                // In order, ids say where a batch ends; whatever is said, nothing may be freed that is not finished.
                field.poll();
            } else {
                field.assert_down(name);
                assert_eq!(field.port.control.stats().opackets, 32, "{name}");
            }
            field.end();
        }
    }
}

/// Random words over everything the backend can write of the rings, on every layout, under traffic.
#[test]
fn scribblers() {
    let mut dice = Prng::new(1);
    let mut random = move || dice.roll();
    for round in 0..120 {
        let options =
            format!("packed_vq={},in_order={},mrg_rxbuf={}", round & 1, round >> 1 & 1, round >> 2 & 1,);
        let mut field = Field::new(&options);
        field.send(32);
        let rings = [field.backend.ring(0), field.backend.ring(1)];
        for _ in 0..40 {
            let ring = rings[random() as usize % 2];
            let area = [ring.desc, ring.driver, ring.device][random() as usize % 3];
            let at = random() as usize % (area.len() / 2);
            // Small numbers reach further than noise: they are nearly right.
            let word = if random() % 2 == 0 { random() as u16 } else { random() as u16 % 70 };
            if let Some(cell) = area.cell::<u16>(2 * at) {
                cell.store(word, Relaxed);
            }
            field.poll();
        }
        field.end();
    }
}
