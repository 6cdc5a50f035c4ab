//! What a polling thread asks of the kernel while it serves ports of several peers: it signals eventfds without waiting,
//! wakes the port's closing thread where signals take long (on a busy machine any does), and nothing else, whatever the
//! peers' connections do meanwhile.
//!
//! Every system call of that thread is reported to another one, which notes it and lets it pass (seccomp user
//! notification). So the list is complete, and a call that is new shows up here by its number.

use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use linecard::eal::eventfd::EventFd;
use linecard::prelude::*;

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
    /// Whether it wakes threads of this process, which never waits.
    fn is_wake(&self) -> bool {
        let operation = self.arguments[1] as i32 & libc::FUTEX_CMD_MASK;
        i64::from(self.number) == libc::SYS_futex && operation == libc::FUTEX_WAKE
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
        if polling.load(SeqCst) && !call.is_wake() {
            *calls.lock().expect("no panic").entry(call.number).or_default() += 1;
        }
        let mut answer = Response { id: call.id, value: 0, error: 0, flags: CONTINUE };
        // SAFETY: `answer` has the shape that this request reads.
        unsafe { libc::ioctl(listener, SEND, &raw mut answer) };
    }
}

fn open(eal: &Eal, pool: &Pool, arguments: &str) -> Port {
    linecard::open(eal, pool, arguments).expect("a port")
}

/// What the polling thread and the test share.
#[derive(Default)]
struct Shared {
    listener: AtomicI32,
    polling: AtomicBool,
    stop: AtomicBool,
    rounds: AtomicU64,
    received: AtomicU64,
    /// The thread is to make one call that the test knows of, to show that calls are seen.
    prove: AtomicBool,
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
        visited.rx[0].rx_burst(&mut packets);
        visited.tx[0].tx_burst(&mut packets);
        packets.clear();
        if shared.prove.swap(false, SeqCst) {
            // SAFETY: takes nothing and changes nothing.
            unsafe { libc::getppid() };
        }
        shared.rounds.fetch_add(1, SeqCst);
    }
}

fn socket(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("linecard-calls-{}-{name}.sock", std::process::id()))
}

/// Waits until the polling thread has gone round `more` times.
fn rounds(shared: &Shared, more: u64) {
    let (from, until) = (shared.rounds.load(SeqCst), Instant::now() + Duration::from_secs(60));
    while shared.rounds.load(SeqCst) < from + more {
        assert!(Instant::now() < until, "the polling thread stands still");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_polling_thread_asks_the_kernel_to_signal_and_for_nothing_else() {
    if !can_report() {
        linecard_lab::skip(
            "a_polling_thread_asks_the_kernel_to_signal_and_for_nothing_else",
            "the kernel reports no system calls to another thread (seccomp user notification)",
        );
        return;
    }
    let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "128"]).expect("valid").0).expect("memory");
    let pool = Pool::new(&eal.default_domain(), PoolConfig { packets: 8192, ..PoolConfig::default() })
        .expect("a pool");
    for ring in ["packed_vq=0", "packed_vq=1"] {
        let (own, other) = (socket("pair"), socket("visited"));
        let vhost = open(&eal, &pool, &format!("net_vhost0,iface={}", own.display()));
        let frontend = open(&eal, &pool, &format!("net_virtio_user0,path={},{ring}", own.display()));
        let visited = open(&eal, &pool, &format!("net_vhost1,iface={}", other.display()));
        let shared = Arc::new(Shared { listener: AtomicI32::new(-1), ..Shared::default() });
        let calls = Arc::new(Mutex::new(BTreeMap::new()));
        std::thread::scope(|scope| {
            let pool = &pool;
            let theirs = Arc::clone(&shared);
            let poller = scope.spawn(move || poll([vhost, frontend], visited, pool, &theirs));
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
            for _ in 0..3 {
                let visitor = open(&eal, pool, &format!("net_virtio_user1,path={},{ring}", other.display()));
                rounds(&shared, 200);
                drop(visitor);
                rounds(&shared, 200);
            }
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
        // A signal, and the end of many: what they left is thrown away, with a timeout of zero.
        calls.remove(&(libc::SYS_io_submit as i32));
        calls.remove(&(libc::SYS_io_getevents as i32));
        assert!(calls.is_empty(), "{ring}: other system calls by number, with how often: {calls:?}");
    }
}
