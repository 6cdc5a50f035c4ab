//! What a polling thread asks of the kernel while it serves ports of several peers: it signals eventfds without waiting,
//! wakes the port's closing thread where signals may take long, and arms its queues, with one `membarrier` for all, and
//! nothing else, whatever the peers' connections do meanwhile, frontends' and backends'. A peer that takes its memory away
//! costs it one page of zeros for each page that it misses, and a count of page faults; nothing a hostile one sends costs it
//! another call. Log lines are written here by whoever logs, so that a line of the polling thread is seen as well.
//!
//! Every system call of that thread is reported to another one, which notes it and lets it pass (seccomp user
//! notification). So the list is complete, and a call that is new shows up here by its number.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::{AsFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use linecard::eal::eventfd::EventFd;
use linecard::eal::wake::fence;
use linecard::pmd::direct::all;
use linecard::pmd::{PortControl, RxQueue};
use linecard::prelude::*;

#[path = "hostile/backend.rs"]
mod backend;
#[path = "hostile/frontend.rs"]
mod frontend;
#[path = "hostile/message.rs"]
mod message;
#[path = "hostile/prng.rs"]
mod prng;

/// A signal, and the end of many: what they left is thrown away, with a timeout of zero.
const SIGNALS: [i32; 2] = [libc::SYS_io_submit as i32, libc::SYS_io_getevents as i32];
/// What arming asks for: the fence, and to discard what woke the queue before, from an eventfd of ours that does not block.
const ARMING: [i32; 2] = [libc::SYS_membarrier as i32, libc::SYS_read as i32];
/// Rounds of the polling thread between two times that it arms its queues.
const ARMS_EVERY: u64 = 16;
/// Connections of the hostile peer.
const ATTACKS: usize = 300;
/// Connections of the frontend that is attacked, of which some get as far as packets.
const ATTACKS_ON_FRONTEND: usize = 60;
/// Connections whose memory goes while it is used.
const VANISHINGS: usize = 20;
/// What the handler of a fault in a peer's memory asks for: a page of zeros in its place, and to go on.
const FAULTS: [i32; 2] = [libc::SYS_mmap as i32, libc::SYS_rt_sigreturn as i32];
/// How many pages the thread has missed so far, which it asks when a burst takes long: on a busy machine, any may. The
/// kernel reads counters of the thread for this, and waits for nobody.
const COUNTS: [i32; 1] = [libc::SYS_getrusage as i32];

/// `seccomp_notif` and `seccomp_notif_resp` of `linux/seccomp.h`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Notification {
    id: u64,
    pid: u32,
    flags: u32,
    number: i32,
    arch: u32,
    instruction: u64,
    arguments: [u64; 6],
}

impl Notification {
    /// Whether it hands a signal to the port's thread: it wakes that thread, and may wait for the lock of the thread's queue
    /// of jobs, which no peer has a part in and nobody holds for more than a few instructions.
    fn is_handing_over(&self) -> bool {
        let operation = self.arguments[1] as i32 & libc::FUTEX_CMD_MASK;
        let forever = self.arguments[3] == 0;
        let waits = [libc::FUTEX_WAIT, libc::FUTEX_WAIT_BITSET].contains(&operation) && forever;
        i64::from(self.number) == libc::SYS_futex && (operation == libc::FUTEX_WAKE || waits)
    }
}

#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

const RECEIVE: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;
/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`: the call is carried out as if nobody had looked.
const CONTINUE: u32 = 1;

/// Has the calling thread's system calls reported from here on; the descriptor that tells of them.
fn report_calls() -> std::io::Result<RawFd> {
    let mut program = [libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: libc::SECCOMP_RET_USER_NOTIF,
    }];
    let filter = libc::sock_fprog { len: 1, filter: program.as_mut_ptr() };
    // SAFETY: takes integers; what this thread runs gets no more rights than it has.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: reads `filter` and the program, which live until the call returns.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const filter,
        )
    };
    if fd < 0 { Err(std::io::Error::last_os_error()) } else { Ok(fd as RawFd) }
}

/// Whether this kernel can report calls to another thread (Linux 5.0).
fn can_report() -> bool {
    let action = libc::SECCOMP_RET_USER_NOTIF;
    // SAFETY: reads `action`, which lives until the call returns.
    unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) == 0 }
}

/// Notes the calls that are reported on `listener` while `polling` is set, and lets all of them pass, until the thread ends.
fn watch(listener: RawFd, polling: &AtomicBool, calls: &Mutex<BTreeMap<i32, u64>>) {
    loop {
        let mut entry = libc::pollfd { fd: listener, events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, exclusively borrowed until the call returns.
        unsafe { libc::poll(&raw mut entry, 1, -1) };
        if entry.revents & libc::POLLIN == 0 {
            // The thread is gone.
            return;
        }
        let mut call = Notification::default();
        // SAFETY: `call` has the shape that this request fills, and is zeroed as it demands.
        if unsafe { libc::ioctl(listener, RECEIVE, &raw mut call) } != 0 {
            continue;
        }
        if polling.load(SeqCst) && !call.is_handing_over() {
            *calls.lock().expect("no panic").entry(call.number).or_default() += 1;
        }
        let mut answer = Response { id: call.id, value: 0, error: 0, flags: CONTINUE };
        // SAFETY: `answer` has the shape that this request reads.
        unsafe { libc::ioctl(listener, SEND, &raw mut answer) };
    }
}

/// Writes something for each log line, as a subscriber that people install does, by the thread that logs.
struct Writes;

impl tracing::Subscriber for Writes {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        // SAFETY: no bytes are read, and whether there is such a descriptor does not matter: the call is seen.
        unsafe { libc::write(-1, std::ptr::null(), 0) };
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

fn write_log_lines() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Writes).expect("the first one"));
}

fn open(eal: &Eal, pool: &Pool, arguments: &str) -> Port {
    let mut port = linecard::open(eal, pool, arguments).expect("a port");
    port.rx.iter_mut().for_each(|queue| queue.prepare_arm());
    port
}

/// What the polling thread and the test share.
#[derive(Default)]
struct Shared {
    listener: AtomicI32,
    polling: AtomicBool,
    stop: AtomicBool,
    rounds: AtomicU64,
    /// How often all queues were armed.
    armed: AtomicU64,
    received: AtomicU64,
    /// The thread is to make one call that the test knows of, to show that calls are seen.
    prove: AtomicBool,
}

/// Returns a port's frames to it in its own buffers, as far as they come in those.
fn direct(port: &mut Port, packets: &mut Burst) {
    let Port { rx, tx, .. } = port;
    rx[0].rx_direct(packets, &mut |frames| match tx[0].tx_direct(frames) {
        Some(_) => all(frames.len()),
        None => 0,
    });
}

/// What a thread that would sleep does before and after.
fn arm(queues: &mut [&mut dyn RxQueue]) {
    for queue in queues.iter_mut() {
        assert!(queue.begin_arm(), "each of these needs the fence");
    }
    fence();
    for queue in queues.iter_mut() {
        queue.finish_arm();
    }
    queues.iter_mut().for_each(|queue| queue.disarm());
}

/// Sends from each end of a pair to the other, and serves a port whose peers come and go.
fn poll(mut pair: [Port; 2], mut visited: Port, pool: &Pool, shared: &Shared) {
    let mut packets = Burst::new();
    // A thread's first signal makes its queue for signals, once.
    EventFd::new().expect("an eventfd").signal();
    shared.listener.store(report_calls().expect("seccomp"), SeqCst);
    while !shared.stop.load(SeqCst) {
        for from in [0, 1] {
            while packets.room() > 0 {
                let Some(mut packet) = pool.get() else { break };
                assert!(packet.append(64).is_some());
                if packets.push(packet).is_err() {
                    break;
                }
            }
            pair[from].tx[0].tx_burst(&mut packets);
            packets.clear();
            let got = pair[1 - from].rx[0].rx_burst(&mut packets);
            shared.received.fetch_add(got as u64, SeqCst);
            packets.clear();
        }
        let round = shared.rounds.load(SeqCst);
        if round.is_multiple_of(2) {
            visited.rx[0].rx_burst(&mut packets);
            visited.tx[0].tx_burst(&mut packets);
        } else {
            direct(&mut visited, &mut packets);
            direct(&mut pair[0], &mut packets);
        }
        packets.clear();
        if shared.polling.load(SeqCst) && round.is_multiple_of(ARMS_EVERY) {
            let [left, right] = &mut pair;
            arm(&mut [&mut *left.rx[0], &mut *right.rx[0], &mut *visited.rx[0]]);
            shared.armed.fetch_add(1, SeqCst);
        }
        if shared.prove.swap(false, SeqCst) {
            // SAFETY: takes nothing and changes nothing.
            unsafe { libc::getppid() };
        }
        shared.rounds.fetch_add(1, SeqCst);
    }
}

/// A path for a socket that no other test of this process has.
fn socket(name: &str) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, SeqCst);
    std::env::temp_dir().join(format!("linecard-calls-{}-{number}-{name}.sock", std::process::id()))
}

/// Waits until the polling thread has gone round `more` times.
fn rounds(shared: &Shared, more: u64) {
    let (from, until) = (shared.rounds.load(SeqCst), Instant::now() + Duration::from_secs(60));
    while shared.rounds.load(SeqCst) < from + more {
        assert!(Instant::now() < until, "the polling thread stands still");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The port for others, as those see it who act on it.
struct Visited<'a> {
    eal: &'a Eal,
    pool: &'a Pool,
    socket: &'a Path,
    control: &'a dyn PortControl,
    shared: &'a Shared,
}

/// Which end the port for others is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Frontend,
    Backend,
}

/// A pair of ports that exchange packets and a port for others, all served by one thread, whose calls are noted while `visit` acts on
/// the port for others. The calls by number.
fn calls_while(ring: &str, end: End, visit: impl FnOnce(&Visited<'_>) + Send) -> BTreeMap<i32, u64> {
    write_log_lines();
    let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "128"]).expect("valid").0).expect("memory");
    let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(8192)).expect("a pool");
    let (own, other) = (socket("pair"), socket("visited"));
    let vhost = open(&eal, &pool, &format!("net_vhost0,iface={}", own.display()));
    let frontend = open(&eal, &pool, &format!("net_virtio_user0,path={},{ring}", own.display()));
    // A frontend wants a backend for a start.
    let mut visited = open(&eal, &pool, &format!("net_vhost1,iface={}", other.display()));
    if end == End::Frontend {
        let backend = visited;
        visited = open(&eal, &pool, &format!("net_virtio_user1,path={},{ring}", other.display()));
        drop(backend);
    }
    let control = Arc::clone(&visited.control);
    let shared = Arc::new(Shared { listener: AtomicI32::new(-1), ..Shared::default() });
    let calls = Arc::new(Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        let polled = &pool;
        let theirs = Arc::clone(&shared);
        let poller = scope.spawn(move || poll([vhost, frontend], visited, polled, &theirs));
        let (theirs, noted) = (Arc::clone(&shared), Arc::clone(&calls));
        let watcher = scope.spawn(move || {
            while theirs.listener.load(SeqCst) < 0 {
                std::hint::spin_loop();
            }
            watch(theirs.listener.load(SeqCst), &theirs.polling, &noted);
        });
        // Until here caches are filled.
        rounds(&shared, 1000);
        shared.polling.store(true, SeqCst);
        let (eal, pool, socket) = (&eal, &pool, &*other);
        visit(&Visited { eal, pool, socket, control: &*control, shared: &shared });
        shared.prove.store(true, SeqCst);
        rounds(&shared, 2);
        shared.polling.store(false, SeqCst);
        shared.stop.store(true, SeqCst);
        poller.join().expect("no panic");
        watcher.join().expect("no panic");
    });
    assert!(shared.received.load(SeqCst) > 1000, "packets moved meanwhile");
    let mut calls = std::mem::take(&mut *calls.lock().expect("no panic"));
    assert_eq!(calls.remove(&(libc::SYS_getppid as i32)), Some(1), "calls are seen");
    let (fences, armed) = (calls.get(&ARMING[0]).copied().unwrap_or_default(), shared.armed.load(SeqCst));
    assert!(0 < armed && fences <= armed, "{fences} fences for {armed} times that three queues were armed");
    calls.retain(|number, _| ![&SIGNALS[..], &ARMING, &COUNTS].concat().contains(number));
    calls
}

/// Whether calls can be reported here; says what is skipped, where not.
fn can_run(test: &str) -> bool {
    if !can_report() {
        linecard_lab::skip(
            test,
            "the kernel reports no system calls to another thread (seccomp user notification)",
        );
    }
    can_report()
}

#[test]
fn a_polling_thread_asks_the_kernel_to_signal_and_for_nothing_else() {
    if !can_run("a_polling_thread_asks_the_kernel_to_signal_and_for_nothing_else") {
        return;
    }
    for ring in ["packed_vq=0", "packed_vq=1"] {
        let calls = calls_while(ring, End::Backend, |visited| {
            let Visited { eal, pool, socket, shared, .. } = visited;
            for _ in 0..3 {
                let visitor = open(eal, pool, &format!("net_virtio_user1,path={},{ring}", socket.display()));
                rounds(shared, 200);
                drop(visitor);
                rounds(shared, 200);
            }
        });
        assert!(calls.is_empty(), "{ring}: other system calls by number, with how often: {calls:?}");
    }
}

/// A frontend whose rings run, and whose memory is gone then; false when it was turned away, as the one before is still there.
fn vanish(path: &Path, dice: &mut prng::Prng, shared: &Shared) -> bool {
    use message::{Message, request};
    let Ok(mut stream) = UnixStream::connect(path) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let memory = message::memory(frontend::MEMORY);
    let mut plan = frontend::handshake(dice, &memory);
    plan.retain(|message| message.request != request::GET_VRING_BASE);
    plan.push(Message::new(request::GET_FEATURES, &[]));
    let send = |message: &Message| {
        let fds: Vec<_> = message.fds.iter().map(AsFd::as_fd).collect();
        message::send(&stream, &message.bytes(message.payload.len() as u32), &fds)
    };
    if !plan.iter().all(send) {
        return false;
    }
    // A header and a word each; the last of them comes when the rings run.
    let asked = [request::GET_FEATURES, request::GET_PROTOCOL_FEATURES, request::GET_QUEUE_NUM];
    let answers = plan.iter().filter(|message| asked.contains(&message.request)).count();
    if stream.read_exact(&mut vec![0; answers * 20]).is_err() {
        return false;
    }
    memory.set_len(0).expect("it shrinks");
    rounds(shared, 200);
    true
}

/// Garbage in messages, rings and descriptors, and memory that is taken away while the thread uses it.
#[test]
fn hostile_peers_make_a_polling_thread_ask_for_one_page_more() {
    if !can_run("hostile_peers_make_a_polling_thread_ask_for_one_page_more") {
        return;
    }
    let mut dice = prng::Prng::seeded("polling_calls");
    let mut calls = calls_while("packed_vq=0", End::Backend, |Visited { socket, shared, .. }| {
        for _ in 0..ATTACKS {
            frontend::attack_backend(socket, &mut dice);
        }
        for _ in 0..VANISHINGS {
            linecard_lab::wait_until("the next one is taken", || vanish(socket, &mut dice, shared));
        }
        rounds(shared, 200);
    });
    assert!(FAULTS.iter().all(|number| calls.contains_key(number)), "it met a hole: {calls:?}");
    calls.retain(|number, _| !FAULTS.contains(number));
    assert!(calls.is_empty(), "other system calls by number, with how often: {calls:?}");
}

/// Garbage in answers and rings, from what a frontend's port is connected to.
#[test]
fn hostile_backends_make_a_polling_thread_ask_for_nothing_more() {
    const TEST: &str = "hostile_backends_make_a_polling_thread_ask_for_nothing_more";
    if !can_run(TEST) {
        return;
    }
    let mut dice = prng::Prng::seeded(TEST);
    for ring in ["packed_vq=0", "packed_vq=1"] {
        let up = AtomicU64::new(0);
        let calls = calls_while(ring, End::Frontend, |Visited { socket, shared, control, .. }| {
            linecard_lab::wait_until("the backend is gone", || !control.link().up);
            let _ = std::fs::remove_file(socket);
            let listener = UnixListener::bind(socket).expect("a socket");
            for _ in 0..ATTACKS_ON_FRONTEND {
                let (stream, _) = listener.accept().expect("it connects");
                let over = AtomicBool::new(false);
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        while !over.load(SeqCst) {
                            if control.link().up {
                                up.fetch_add(1, SeqCst);
                                break;
                            }
                            std::thread::sleep(Duration::from_millis(1));
                        }
                    });
                    backend::hostile_backend(&stream, &mut dice);
                    over.store(true, SeqCst);
                });
            }
            rounds(shared, 200);
        });
        assert!(up.load(SeqCst) > 0, "none got as far as packets");
        assert!(calls.is_empty(), "{ring}: other system calls by number, with how often: {calls:?}");
    }
}
