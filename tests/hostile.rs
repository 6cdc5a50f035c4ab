//! Peers that send anything at `linecard testpmd`: mutated vhost-user messages, any descriptors, garbage in the rings and
//! memory that shrinks. Another port forwards all the while and loses nothing; the attacked port takes a decent peer
//! afterwards.
//!
//! `LINECARD_HOSTILE_SECONDS` (default 5) is how long each attack lasts, `LINECARD_HOSTILE_SEED` repeats one.

mod support;

use std::fs::File;
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::EventfdFlags;
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use support::Scratch;
use support::console::{Kind, Testpmd};
use support::ours::{Ours, SIZES, assert_perfect, backend_vdev, frontend_vdev, wait_for_socket};

const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of the memory an attacker shares.
const MEMORY: u64 = 4 << 20;
const GUEST: u64 = 0x10_0000;
const USER: u64 = 0x7000_0000_0000;

fn seconds() -> Duration {
    let given = std::env::var("LINECARD_HOSTILE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(given.unwrap_or(5))
}

/// Numbers that follow from a seed (xorshift64*).
struct Dice(u64);

impl Dice {
    fn seeded(test: &str) -> Self {
        let given = std::env::var("LINECARD_HOSTILE_SEED").ok().and_then(|text| text.parse().ok());
        let now = SystemTime::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64);
        let seed: u64 = given.unwrap_or(now) | 1;
        println!("{test}: LINECARD_HOSTILE_SEED={seed}");
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    fn percent(&mut self, of_hundred: u64) -> bool {
        self.below(100) < of_hundred
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.roll().to_le_bytes()).take(len).collect()
    }

    /// A number that sits on an edge, or anywhere.
    fn edge(&mut self) -> u64 {
        const EDGES: [u64; 12] =
            [0, 1, 2, 255, 256, 32_768, 32_769, 65_535, 65_536, u32::MAX as u64, u64::MAX, GUEST];
        if self.percent(70) { EDGES[self.below(EDGES.len() as u64) as usize] } else { self.roll() }
    }
}

fn memory(len: u64) -> File {
    let fd = rustix::fs::memfd_create("hostile", MemfdFlags::CLOEXEC).expect("a memfd");
    let file = File::from(fd);
    file.set_len(len).expect("it grows");
    file
}

fn event() -> OwnedFd {
    rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd")
}

/// Any kind of descriptor.
fn descriptor(dice: &mut Dice) -> OwnedFd {
    match dice.below(6) {
        0 | 1 => event(),
        2 => {
            let len = dice.edge() & 0xff_ffff;
            memory(len).into()
        }
        3 => UnixStream::pair().expect("a pair").0.into(),
        4 => File::open("/dev/zero").expect("zeros").into(),
        _ => File::open("/").expect("a folder").into(),
    }
}

/// One message on its way to a peer.
#[derive(Default)]
struct Message {
    request: u32,
    flags: u32,
    payload: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Message {
    fn new(request: u32, payload: &[u64]) -> Self {
        let payload = payload.iter().flat_map(|word| word.to_ne_bytes()).collect();
        Self { request, flags: 1, payload, fds: Vec::new() }
    }

    fn with(mut self, fd: impl Into<OwnedFd>) -> Self {
        self.fds.push(fd.into());
        self
    }

    /// Changes something about it.
    fn mutate(&mut self, dice: &mut Dice) {
        match dice.below(8) {
            0 => self.request = dice.below(48) as u32,
            1 => self.flags = dice.roll() as u32,
            2 => {
                self.payload = {
                    let len = dice.below(300) as usize;
                    dice.bytes(len)
                }
            }
            3 => self.payload.truncate(dice.below(self.payload.len() as u64 + 1) as usize),
            4 => {
                let value = dice.edge().to_ne_bytes();
                let words = self.payload.len() as u64 / 8;
                if words > 0 {
                    let at = dice.below(words) as usize * 8;
                    self.payload[at..at + 8].copy_from_slice(&value);
                }
            }
            5 => self.fds.clear(),
            6 => self.fds.extend((0..dice.below(12)).map(|_| descriptor(dice)).collect::<Vec<_>>()),
            _ => self.flags |= 8,
        }
    }

    /// Sends it; sometimes its header lies about the length, or it comes in two parts. False when the peer is gone.
    fn send(&self, stream: &UnixStream, dice: &mut Dice) -> bool {
        let mut size = self.payload.len() as u32;
        if dice.percent(2) {
            size = dice.edge() as u32;
        }
        let mut bytes = Vec::new();
        for field in [self.request, self.flags, size] {
            bytes.extend(field.to_ne_bytes());
        }
        bytes.extend(&self.payload);
        let cut = if dice.percent(5) { dice.below(bytes.len() as u64) as usize } else { bytes.len() };
        let fds: Vec<BorrowedFd<'_>> = self.fds.iter().take(32).map(AsFd::as_fd).collect();
        send(stream, &bytes[..cut.max(1)], &fds)
            && (cut == bytes.len() || {
                std::thread::sleep(Duration::from_micros(dice.below(3000)));
                send(stream, &bytes[cut.max(1)..], &[])
            })
    }
}

fn send(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
    if bytes.is_empty() {
        return true;
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    rustix::net::sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL).is_ok()
}

/// Requests by number (QEMU docs/interop/vhost-user.rst).
mod request {
    pub(crate) const GET_FEATURES: u32 = 1;
    pub(crate) const SET_FEATURES: u32 = 2;
    pub(crate) const SET_OWNER: u32 = 3;
    pub(crate) const SET_MEM_TABLE: u32 = 5;
    pub(crate) const SET_VRING_NUM: u32 = 8;
    pub(crate) const SET_VRING_ADDR: u32 = 9;
    pub(crate) const SET_VRING_BASE: u32 = 10;
    pub(crate) const GET_VRING_BASE: u32 = 11;
    pub(crate) const SET_VRING_KICK: u32 = 12;
    pub(crate) const SET_VRING_CALL: u32 = 13;
    pub(crate) const GET_PROTOCOL_FEATURES: u32 = 15;
    pub(crate) const SET_PROTOCOL_FEATURES: u32 = 16;
    pub(crate) const GET_QUEUE_NUM: u32 = 17;
    pub(crate) const SET_VRING_ENABLE: u32 = 18;
    pub(crate) const GET_CONFIG: u32 = 24;
    pub(crate) const GET_MAX_MEM_SLOTS: u32 = 36;
    pub(crate) const ADD_MEM_REG: u32 = 37;
    pub(crate) const SET_STATUS: u32 = 39;
    pub(crate) const GET_STATUS: u32 = 40;
}

/// Two u32 in a word.
fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// What a decent frontend sends, so that mutations reach every state.
fn handshake(dice: &mut Dice, shared: &File) -> Vec<Message> {
    use request as r;
    let packed = dice.percent(50);
    let mut features = 1 << 32 | 1 << 30 | 1 << 15 | 1 << 28 | u64::from(packed) << 34;
    features |= dice.roll() & (1 << 35 | 1 << 29 | 1 << 0 | 1 << 1 | 1 << 7 | 1 << 8 | 1 << 11 | 1 << 12);
    let shared = || shared.try_clone().expect("a descriptor");
    let mut all = vec![
        Message::new(r::SET_OWNER, &[]),
        Message::new(r::GET_FEATURES, &[]),
        Message::new(r::GET_PROTOCOL_FEATURES, &[]),
        Message::new(r::SET_PROTOCOL_FEATURES, &[dice.roll() & 0x1_8209]),
        Message::new(r::GET_QUEUE_NUM, &[]),
        Message::new(r::SET_FEATURES, &[features]),
        Message::new(r::SET_MEM_TABLE, &[1, GUEST, MEMORY, USER, 0]).with(shared()),
    ];
    for ring in 0..2_u32 {
        let size = 1_u32 << dice.below(10);
        let at = USER + u64::from(ring) * 0x10_0000;
        all.extend([
            Message::new(r::SET_VRING_NUM, &[pair(ring, size)]),
            Message::new(r::SET_VRING_BASE, &[pair(ring, if packed { 0x8000_8000 } else { 0 })]),
            Message::new(r::SET_VRING_ADDR, &[pair(ring, 0), at, at + 0x8000, at + 0x4000, 0]),
            Message::new(r::SET_VRING_CALL, &[ring.into()]).with(event()),
            Message::new(r::SET_VRING_KICK, &[ring.into()]).with(event()),
            Message::new(r::SET_VRING_ENABLE, &[pair(ring, 1)]),
        ]);
    }
    all.push(Message::new(r::SET_STATUS, &[15]));
    if dice.percent(30) {
        all.push(Message::new(r::ADD_MEM_REG, &[0, GUEST + MEMORY, MEMORY, USER + MEMORY, 0]).with(shared()));
    }
    if dice.percent(30) {
        all.push(Message::new(r::GET_VRING_BASE, &[pair(dice.below(3) as u32, 0)]));
    }
    all
}

/// Writes descriptors and indices that may be right, and bytes that are not.
fn poison(dice: &mut Dice, shared: &File, len: u64) {
    for _ in 0..dice.below(40) {
        let at = dice.below(len / 16) * 16;
        let at = if dice.percent(80) { (at & 0x10_ffff) % len } else { at };
        let address = if dice.percent(80) { GUEST + dice.below(MEMORY) } else { dice.edge() };
        let length = if dice.percent(80) { dice.below(3000) } else { dice.edge() } as u32;
        let rest = if dice.percent(50) { dice.below(256) << 16 | dice.below(8) } else { dice.roll() };
        let words = [address, pair(length, rest as u32)];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        // Where memory has shrunk there is nothing to write to, and it must not grow back.
        if shared.metadata().is_ok_and(|now| at + 16 <= now.len()) {
            let _ = shared.write_at(&bytes, at);
        }
    }
}

/// One connection of an attacker to a backend.
fn attack_backend(path: &Path, dice: &mut Dice) {
    let Ok(stream) = UnixStream::connect(path) else {
        std::thread::sleep(Duration::from_millis(1));
        return;
    };
    stream.set_read_timeout(Some(Duration::from_millis(2))).expect("a timeout");
    let shared = memory(MEMORY);
    let mutations = dice.below(12);
    let mut plan = handshake(dice, &shared);
    for _ in 0..dice.below(20) {
        let again = handshake(dice, &shared);
        let pick = dice.below(again.len() as u64) as usize;
        plan.extend(again.into_iter().nth(pick));
    }
    for mut message in plan {
        if dice.percent(mutations) {
            message.mutate(dice);
        }
        if !message.send(&stream, dice) {
            return;
        }
        let mut answer = [0; 512];
        let wanted = message.flags & 8 != 0 || matches!(message.request, 1 | 11 | 15 | 17 | 24 | 36 | 40);
        if wanted && matches!((&stream).read(&mut answer), Ok(0)) {
            return;
        }
        poison(dice, &shared, MEMORY);
    }
    for _ in 0..dice.below(30) {
        poison(dice, &shared, MEMORY);
        std::thread::sleep(Duration::from_micros(dice.below(1000)));
    }
    if dice.percent(20) {
        let _ = shared.set_len(dice.below(MEMORY));
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What came from a frontend.
enum Heard {
    Message(Message),
    /// Nothing for a while.
    Silence,
    End,
}

/// Reads one message of a frontend, with the descriptors that came along.
fn hear(stream: &UnixStream) -> Heard {
    let mut header = [0; 12];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut header)];
    match rustix::net::recvmsg(stream, &mut parts, &mut ancillary, RecvFlags::WAITALL) {
        Ok(got) if got.bytes == 12 => {}
        Err(Errno::AGAIN) => return Heard::Silence,
        _ => return Heard::End,
    }
    let fds = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect(),
        _ => Vec::new(),
    });
    let fds = fds.collect();
    let field = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let mut payload = vec![0; field(8).min(4096) as usize];
    if (&*stream).read_exact(&mut payload).is_err() {
        return Heard::End;
    }
    Heard::Message(Message { request: field(0), flags: field(4), payload, fds })
}

/// What a frontend told of its memory. The region that holds its rings has nothing else in it, so all of that is ours to
/// spoil; packets lie elsewhere and may be other ports'.
#[derive(Default)]
struct Told {
    /// First address in the frontend's process, length, offset in the file.
    regions: Vec<(u64, u64, u64, File)>,
    /// Where the parts of rings are, in the frontend's process.
    parts: Vec<u64>,
}

impl Told {
    fn hear(&mut self, message: &mut Message) {
        let words: Vec<u64> = message
            .payload
            .chunks_exact(8)
            .map(|word| u64::from_ne_bytes(word.try_into().expect("eight")))
            .collect();
        match message.request {
            request::SET_MEM_TABLE | request::ADD_MEM_REG => {
                let described = words.get(1..).unwrap_or_default().chunks_exact(4);
                for (region, fd) in described.zip(message.fds.drain(..)) {
                    self.regions.push((region[2], region[1], region[3], File::from(fd)));
                }
            }
            request::SET_VRING_ADDR => self.parts.extend(words.get(1..4).unwrap_or_default()),
            _ => {}
        }
    }

    /// Writes garbage into the rings and all around them.
    fn scribble(&self, dice: &mut Dice) {
        /// Shorter than any part of a ring of 256.
        const WITHIN: u64 = 500;
        if self.parts.is_empty() {
            return;
        }
        for _ in 0..dice.below(60) {
            let part = self.parts[dice.below(self.parts.len() as u64) as usize];
            let region = self.regions.iter().find(|(start, len, ..)| (*start..start + len).contains(&part));
            let Some((start, len, offset, file)) = region else { continue };
            let near = (part + dice.below(WITHIN)).min(start + len - 8);
            let address = if dice.percent(70) { near } else { start + dice.below(len - 8) };
            let bytes = if dice.percent(50) { dice.edge() } else { dice.roll() }.to_le_bytes();
            let _ = file.write_at(&bytes[..dice.below(8) as usize + 1], address - start + offset);
        }
    }
}

/// Answers a frontend as a decent backend would, most of the time, and writes garbage into its rings.
fn hostile_backend(stream: &UnixStream, dice: &mut Dice) {
    use request as r;
    let mutations = dice.below(8);
    let mut told = Told::default();
    stream.set_read_timeout(Some(Duration::from_millis(2))).expect("a timeout");
    loop {
        let mut message = match hear(stream) {
            Heard::Message(message) => message,
            Heard::Silence if dice.percent(1) => return,
            Heard::Silence => {
                told.scribble(dice);
                continue;
            }
            Heard::End => return,
        };
        told.hear(&mut message);
        let value = match message.request {
            r::GET_FEATURES => 1 << 32 | 1 << 30 | dice.roll() & 0xd_3000_ffff,
            r::GET_PROTOCOL_FEATURES => dice.roll() & 0x1_8209,
            r::GET_QUEUE_NUM | r::GET_MAX_MEM_SLOTS => dice.below(10),
            r::GET_STATUS => dice.below(256),
            _ => 0,
        };
        let mut answer = Message::new(message.request, &[value]);
        answer.flags = 5;
        if matches!(message.request, r::GET_CONFIG | r::GET_VRING_BASE) {
            answer.payload = message.payload;
        }
        let asked = message.flags & 8 != 0 || matches!(message.request, 1 | 11 | 15 | 17 | 24 | 36 | 40);
        if dice.percent(mutations) {
            answer.mutate(dice);
        }
        for _ in 0..if dice.percent(mutations) { dice.below(3) } else { asked.into() } {
            if !answer.send(stream, dice) {
                return;
            }
        }
        told.scribble(dice);
        if dice.percent(1) {
            return;
        }
    }
}

/// Attackers that work until told to stop; how often they began anew.
struct Attack {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Attack {
    fn begin(dice: &mut Dice, threads: usize, act: impl Fn(&mut Dice) + Send + Sync + 'static) -> Self {
        let (stop, rounds, act) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(act));
        let threads = (0..threads).map(|_| {
            let (stop, rounds, act) = (Arc::clone(&stop), Arc::clone(&rounds), Arc::clone(&act));
            let mut dice = Dice(dice.roll() | 1);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    act(&mut dice);
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let threads = threads.collect();
        Self { stop, rounds, threads }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("an attacker");
        }
        self.rounds.load(Ordering::Relaxed)
    }
}

fn testpmd(vdevs: &[String]) -> Testpmd {
    let mut eal = vec!["-l", "0,1", "--no-huge", "-m", "256"];
    eal.extend(vdevs.iter().flat_map(|vdev| ["--vdev", vdev]));
    let mut testpmd = Testpmd::start(Kind::Linecard, &eal, &["-i", "--port-topology=loop"]);
    testpmd.type_line("start");
    testpmd.expect("io packet forwarding", PATIENCE);
    testpmd
}

/// Ends it in order: all packets home, and nothing said of a panic.
fn finish(mut testpmd: Testpmd) {
    for line in ["stop", "port stop all", "show pool"] {
        testpmd.type_line(line);
    }
    let line = testpmd.expect("mempool <", PATIENCE);
    assert!(line.contains("in_use=0"), "packets are missing: {line}\n{}", testpmd.transcript());
    assert!(!testpmd.transcript().contains("panicked"), "{}", testpmd.transcript());
    assert!(testpmd.quit().success());
}

#[test]
fn any_frontend_costs_a_backend_its_own_port_only() {
    let test = "any_frontend_costs_a_backend_its_own_port_only";
    let (scratch, mut dice) = (Scratch::new(test), Dice::seeded(test));
    let (good, bad) = (scratch.join("good"), scratch.join("bad"));
    let mut testpmd =
        testpmd(&[backend_vdev(&good), backend_vdev(&bad).replace("net_vhost0", "net_vhost1") + ",tso=1"]);
    wait_for_socket(&good);
    let mut ours = Ours::start(&frontend_vdev(&good, "mrg_rxbuf=1"));
    ours.wait_for_link(true);
    let path: PathBuf = bad.clone();
    let attack = Attack::begin(&mut dice, 2, move |dice| attack_backend(&path, dice));
    let until = Instant::now() + seconds();
    while Instant::now() < until {
        assert_perfect(&ours.prove(1000, SIZES), "beside the attacked port");
        testpmd.drain(Duration::from_millis(1));
    }
    let rounds = attack.end();
    assert!(rounds > 20, "only {rounds} connections");
    let mut decent = Ours::start(&frontend_vdev(&bad, "mrg_rxbuf=1"));
    decent.wait_for_link(true);
    assert_perfect(&decent.prove(2000, SIZES), "at the port that was attacked");
    decent.stop();
    ours.stop();
    finish(testpmd);
    println!("{test}: {rounds} connections");
}

#[test]
fn any_backend_costs_a_frontend_its_own_port_only() {
    let test = "any_backend_costs_a_frontend_its_own_port_only";
    let (scratch, mut dice) = (Scratch::new(test), Dice::seeded(test));
    let (good, bad) = (scratch.join("good"), scratch.join("bad"));
    let mut ours = Ours::start(&backend_vdev(&good));
    let listener = UnixListener::bind(&bad).expect("a socket");
    listener.set_nonblocking(true).expect("a listener that does not wait");
    let attack = Attack::begin(&mut dice, 1, move |dice| match listener.accept() {
        Ok((stream, _)) => {
            stream.set_nonblocking(false).expect("a stream that waits");
            hostile_backend(&stream, dice);
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_micros(300)),
        Err(error) => panic!("{error}"),
    });
    let mut testpmd = testpmd(&[frontend_vdev(&good, "mrg_rxbuf=1")]);
    ours.wait_for_link(true);
    let until = Instant::now() + seconds();
    let (mut attached, mut refused) = (0, 0);
    while Instant::now() < until {
        let options = ["packed_vq=1", "mrg_rxbuf=1,in_order=0", "in_order=1", "packed_vq=1,mrg_rxbuf=0"];
        let option = options[dice.below(4) as usize];
        let vdev = frontend_vdev(&bad, option).replace("user0", "user1");
        testpmd.type_line(&format!("port attach {vdev}"));
        // Refused or not, forwarding of the other port went on.
        let answer = testpmd.expect_any(&["is attached", "Failed to attach"], PATIENCE * 2);
        assert_perfect(&ours.prove(500, SIZES), "while another port was attached");
        if answer.contains("Failed") {
            refused += 1;
            continue;
        }
        attached += 1;
        for line in ["port start 1", "stop", "start"] {
            testpmd.type_line(line);
        }
        std::thread::sleep(Duration::from_millis(dice.below(60)));
        for line in ["stop", "port stop 1", "port detach 1", "start"] {
            testpmd.type_line(line);
        }
        testpmd.expect("Device is detached", PATIENCE);
        testpmd.expect("io packet forwarding", PATIENCE);
        std::thread::sleep(Duration::from_millis(20));
        assert_perfect(&ours.prove(500, SIZES), "after another port was detached");
    }
    attack.end();
    assert!(attached > 0, "nothing got past the handshake; {refused} refused");
    println!("{test}: {attached} attached, {refused} refused");
    finish(testpmd);
    ours.wait_for_link(false);
    ours.stop();
}
