//! A port that is attacked, and two beside it that must not notice: one that is asked, and one with packets.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use linecard_lab::wait_until;
use linecard_vhost_user::{Backend, BackendConfig, Control, Limits, Mode};
use linecard_virtio::Features;
use linecard_wire::{FrontendReq as Req, Header, NEED_REPLY, VERSION};

use crate::common::{Frontend, socket_path};
use crate::traffic::Traffic;
use crate::waiting::send_at_once;

/// Longest that an attack may keep an answer of another port, beyond what it takes without.
const LATE: Duration = Duration::from_millis(5);
/// Longest that it may keep a packet of another port, beyond what that takes without.
const LATE_PACKET: Duration = Duration::from_millis(2);
/// As long where an attack can be tried once only: it would keep others for seconds, or for ever.
const LATE_ONCE: Duration = Duration::from_millis(100);
/// So often an attack is tried: the machine may be busy with something else, but not each time.
pub(crate) const TRIES: usize = 8;

/// One at a time: these tests measure, and count what the process has.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether so many bytes of memory are to be had; if not, the test is skipped.
pub(crate) fn has_memory(test: &str, len: usize) -> bool {
    let file = crate::common::memfd(len as u64);
    // SAFETY: takes integers.
    let there = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len as libc::off_t) } == 0;
    if !there {
        linecard_lab::skip(test, &format!("{} MiB of memory are not to be had", len >> 20));
    }
    there
}

/// Three ports that share one process's limits, a frontend of the good one, and one with traffic, polled by the thread that
/// polls the bad one.
pub(crate) struct Neighbours {
    pub(crate) bad: PathBuf,
    pub(crate) bad_port: Option<Backend>,
    pub(crate) good: PathBuf,
    pub(crate) asking: Frontend,
    /// The good port's thread.
    answering: libc::pid_t,
    traffic: Traffic,
    _good_port: Backend,
    _alone: MutexGuard<'static, ()>,
}

impl Neighbours {
    pub(crate) fn new(label: &str) -> Self {
        Self::with(label, Limits::default())
    }

    /// The limits are the bad port's.
    pub(crate) fn with(label: &str, limits: Limits) -> Self {
        Self::of(label, |config| config.limits(limits))
    }

    /// The bad port is made from what `change` makes of its configuration.
    pub(crate) fn of(label: &str, change: impl FnOnce(BackendConfig) -> BackendConfig) -> Self {
        let alone = alone();
        let control = Control::new();
        let (bad, good) = (socket_path(label), socket_path(label));
        let config = change(BackendConfig::new("bad", &bad, Mode::Listen));
        let bad_port = Backend::new(&control, config).expect("a backend");
        let mut traffic = Traffic::new(&control);
        traffic.poll_too(&bad_port);
        let good_port = Backend::new(&control, BackendConfig::new("good", &good, Mode::Listen));
        let mut asking = Frontend::connect(&good);
        asking.negotiate(Features::empty());
        let answering = thread_called("good");
        Self {
            bad,
            bad_port: Some(bad_port),
            good,
            asking,
            answering,
            traffic,
            _good_port: good_port.expect("a backend"),
            _alone: alone,
        }
    }

    /// How long the good port's answers take at most while `attack` goes on, but for the time in which the two threads
    /// could have run and had no core: that is this machine's business. Its frontend is there before: to connect is to
    /// map memory, in this process.
    fn worst_during<T>(&mut self, attack: impl FnOnce() -> T) -> (Duration, T) {
        let (begun, over) = (AtomicBool::new(false), AtomicBool::new(false));
        let (asking, answering) = (&mut self.asking, self.answering);
        std::thread::scope(|scope| {
            let (begun, over) = (&begun, &over);
            let watch = scope.spawn(move || {
                let mut worst = Duration::ZERO;
                loop {
                    worst = worst.max(wait_for_answer(answering, || asking.number(Req::GET_FEATURES)));
                    begun.store(true, Ordering::Release);
                    if over.load(Ordering::Relaxed) {
                        return worst;
                    }
                    std::thread::sleep(Duration::from_micros(200));
                }
            });
            // Not while the thread is being made, which is to map memory.
            while !begun.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            let result = attack();
            over.store(true, Ordering::Relaxed);
            (watch.join().expect("answers"), result)
        })
    }

    /// Tries `attack` until it leaves the good port's answers in time, and packets of a port that the same thread polls,
    /// beyond what they take without it. No packet may be lost in any try.
    pub(crate) fn assert_unnoticed(&mut self, mut attack: impl FnMut()) {
        let mut answers = Best::new("answer", LATE);
        for _ in 0..TRIES {
            answers.calm(self.worst_during(nothing).0);
            answers.attacked(self.worst_during(&mut attack).0);
            if answers.is_good() {
                break;
            }
        }
        answers.assert();
        let mut packets = Best::new("packet", LATE_PACKET);
        for _ in 0..TRIES {
            packets.calm(self.traffic.during(nothing).0);
            packets.attacked(self.traffic.during(&mut attack).0);
            if packets.is_good() {
                break;
            }
        }
        packets.assert();
    }

    /// As [`assert_unnoticed`](Self::assert_unnoticed) for packets, of an attack that can be tried once.
    pub(crate) fn assert_traffic_flows<T>(&mut self, attack: impl FnOnce() -> T) -> T {
        assert_traffic_flows(&mut self.traffic, attack)
    }

    /// The good port takes a new frontend, in a time that no attack is part of.
    pub(crate) fn assert_greets(&mut self) {
        let _ = self.asking.connection.socket().shutdown(std::net::Shutdown::Both);
        self.asking = Frontend::connect(&self.good);
        self.asking.negotiate(Features::empty());
    }
}

/// Packets pass while `attack` goes on, none is lost, and none is late.
pub(crate) fn assert_traffic_flows<T>(traffic: &mut Traffic, attack: impl FnOnce() -> T) -> T {
    let mut packets = Best::new("packet", LATE_ONCE);
    packets.calm(traffic.during(nothing).0);
    let (worst, result) = traffic.during(attack);
    packets.attacked(worst);
    packets.assert();
    result
}

fn nothing() {
    std::thread::sleep(Duration::from_millis(100));
}

/// The best of some tries, with an attack and without.
struct Best {
    what: &'static str,
    late: Duration,
    calm: Duration,
    attacked: Duration,
}

impl Best {
    fn new(what: &'static str, late: Duration) -> Self {
        Self { what, late, calm: Duration::MAX, attacked: Duration::MAX }
    }

    fn calm(&mut self, took: Duration) {
        self.calm = self.calm.min(took);
    }

    fn attacked(&mut self, took: Duration) {
        self.attacked = self.attacked.min(took);
    }

    fn is_good(&self) -> bool {
        self.attacked <= self.calm + self.late
    }

    fn assert(&self) {
        let Self { what, attacked, calm, .. } = self;
        println!("another port's {what}: {attacked:?} at most, {calm:?} without the attack");
        assert!(self.is_good(), "another port's {what} took {attacked:?}, {calm:?} without the attack");
    }
}

/// How long `ask` waits for an answer of thread `answering`, but for the time in which one of the two had no core.
pub(crate) fn wait_for_answer<T>(answering: libc::pid_t, ask: impl FnOnce() -> T) -> Duration {
    // SAFETY: takes nothing.
    let threads = [answering, unsafe { libc::gettid() }];
    let (queued, began) = (time_in_queue(threads), Instant::now());
    ask();
    let took = began.elapsed();
    took.saturating_sub(time_in_queue(threads).saturating_sub(queued))
}

/// The thread of this process that is called `name`.
pub(crate) fn thread_called(name: &str) -> libc::pid_t {
    let tasks = std::fs::read_dir("/proc/self/task").expect("proc");
    let named = |path: &std::path::Path| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    };
    let task = tasks.flatten().find(|task| named(&task.path())).expect("the thread runs");
    task.file_name().to_string_lossy().parse().expect("a number")
}

/// Waits until `thread` has slept and woken a few times more: what it looks at when it wakes it has looked at.
pub(crate) fn let_it_look(thread: libc::pid_t) {
    let sleeps = || {
        let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).expect("it runs");
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        count.and_then(|count| count.trim().parse::<u64>().ok()).expect("a number")
    };
    let before = sleeps();
    wait_until("the thread has woken up", || sleeps() >= before + 3);
}

/// How long these threads were ready to run and waited for a core, in all.
fn time_in_queue(threads: [libc::pid_t; 2]) -> Duration {
    let of = |thread| {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).unwrap_or_default();
        stat.split_whitespace().nth(1).and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
    };
    Duration::from_nanos(threads.into_iter().map(of).sum())
}

/// Sends a request that wants an answer with a descriptor that nobody else holds when it is carried out, and so is closed by
/// whoever received it.
pub(crate) fn give(socket: &UnixStream, request: Req, fd: OwnedFd) {
    let bytes = Header { request: request as u32, flags: VERSION | NEED_REPLY, size: 0 }.encode();
    // It comes with the first byte, and is kept until the message is whole.
    assert_eq!(send_at_once(socket, &[&bytes[..1]], 0, fd.as_fd()), 1);
    drop(fd);
    let mut rest = socket;
    rest.write_all(&bytes[1..]).expect("room");
}

/// A page whose reader waits until this is dropped. It stays mapped.
struct Absent {
    at: usize,
    _fault: OwnedFd,
}

impl Absent {
    fn new() -> Option<Self> {
        const UFFD_API: u64 = 0xaa;
        const MISSING: u64 = 1;
        const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
        const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
        // SAFETY: takes integers.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: just made, nobody else owns it.
        let fault = unsafe { OwnedFd::from_raw_fd(fd) };
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: makes a mapping of its own.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, flags, -1, 0) } as usize;
        let (mut api, mut register) = ([UFFD_API, 0, 0], [at as u64, 4096, MISSING, 0]);
        // SAFETY: reads and writes the structure of this request.
        let ready = unsafe { libc::ioctl(fault.as_raw_fd(), UFFDIO_API, &raw mut api) } == 0;
        // SAFETY: reads and writes the structure of this request, which lives across the call.
        let watched = unsafe { libc::ioctl(fault.as_raw_fd(), UFFDIO_REGISTER, &raw mut register) } == 0;
        (ready && watched).then_some(Self { at, _fault: fault })
    }
}

/// Eventfds that nobody can close until this is dropped: an epoll that watches them is telling about them, to a page
/// that does not come.
pub(crate) struct Held {
    pub(crate) events: Vec<OwnedFd>,
    _absent: Absent,
    _epoll: Arc<OwnedFd>,
}

impl Held {
    /// `count` of them; `None` where the kernel has no userfaultfd for us, which is said.
    pub(crate) fn new(test: &str, count: usize) -> Option<Self> {
        let Some(absent) = Absent::new() else {
            linecard_lab::skip(test, "no userfaultfd for this user");
            return None;
        };
        // SAFETY: takes an integer.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        // SAFETY: just made, nobody else owns it.
        let epoll = Arc::new(unsafe { OwnedFd::from_raw_fd(epoll) });
        let event = || {
            // SAFETY: takes integers.
            let fd = unsafe { libc::eventfd(1, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
            // SAFETY: just made, nobody else owns it.
            let event = unsafe { OwnedFd::from_raw_fd(fd) };
            let mut what = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
            // SAFETY: reads `what`, which lives across the call.
            let added = unsafe {
                libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, event.as_raw_fd(), &raw mut what)
            };
            assert_eq!(added, 0);
            event
        };
        let events: Vec<_> = (0..count).map(|_| event()).collect();
        let thread = Arc::new(AtomicI32::new(0));
        let (told, asked, at) = (Arc::clone(&thread), Arc::clone(&epoll), absent.at);
        std::thread::spawn(move || {
            // SAFETY: takes nothing.
            told.store(unsafe { libc::gettid() }, Ordering::Release);
            // SAFETY: there is room for one event in the page, though it has to be waited for.
            unsafe { libc::epoll_wait(asked.as_raw_fd(), at as *mut libc::epoll_event, 1, -1) };
        });
        wait_until("the epoll waits for its page", || {
            let stat = std::fs::read_to_string(format!(
                "/proc/self/task/{}/syscall",
                thread.load(Ordering::Acquire)
            ));
            stat.is_ok_and(|stat| stat.starts_with(&libc::SYS_epoll_wait.to_string()))
        });
        Some(Self { events, _absent: absent, _epoll: epoll })
    }
}
