//! A port with packets beside those that are attacked: one thread polls them all, and no packet may be lost or late.

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use linecard_mempool::{Burst, Pool};
use linecard_pmd::{Port, PortConfig};

use super::stall::NOTICE;
use super::{Backend, Bench, Place};

/// After this a packet is lost.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two packets, so that the others of this test get a core too.
const PAUSE: Duration = Duration::from_micros(50);
/// Packets that pass during an attack at least, before it may end.
const ENOUGH: u32 = 1000;
/// So often the packets beside an attack are timed: the machine may be busy with something else, but not each time.
const TRIES: usize = 8;

/// A port whose backend sends every packet back.
pub struct Traffic {
    port: Option<Port>,
    pool: Pool,
    peer: Option<JoinHandle<()>>,
    over: Arc<AtomicBool>,
    passed: u32,
    /// The thread that sends packets back.
    echoing: Arc<AtomicI32>,
    /// The longest way of a packet, of those that passed during the last attack.
    worst: Duration,
    _place: Place,
}

impl Traffic {
    pub fn new(bench: &Bench) -> Self {
        let (place, over) = (Place::new(), Arc::<AtomicBool>::default());
        let echoing = Arc::<AtomicI32>::default();
        let told = echoing.clone();
        let listener = UnixListener::bind(&place.0).expect("a socket");
        let seen = over.clone();
        let peer = std::thread::spawn(move || {
            told.store(this_thread(), Ordering::Release);
            let mut backend = Backend::accept(&listener);
            backend.until_running(2).expect("a frontend that stays");
            let mut echo = backend.echo(0);
            while !seen.load(Ordering::Acquire) {
                if echo.turn() == 0 {
                    backend.serve().expect("a frontend that stays");
                    std::thread::sleep(PAUSE);
                }
            }
        });
        let device = bench.probe_as("net_traffic", &place.arg()).expect("a device");
        let port = bench.start(device, PortConfig::default()).expect("a port");
        let (port, peer) = (Some(port), Some(peer));
        Self {
            port,
            pool: bench.pool.clone(),
            peer,
            over,
            passed: 0,
            echoing,
            worst: Duration::ZERO,
            _place: place,
        }
    }

    /// Sends one packet, which comes back as it was; nothing else does.
    pub fn pass(&mut self) {
        let port = self.port.as_mut().expect("until it is dropped");
        let (number, until) = (self.passed, Instant::now() + PATIENCE);
        self.passed += 1;
        let mut packet = self.pool.get().expect("a packet");
        let bytes = vec![number as u8; 60 + number as usize % 500];
        packet.append(bytes.len()).expect("room").copy_from_slice(&bytes);
        let (mut out, mut back) = (Burst::new(), Burst::new());
        assert!(out.push(packet).is_ok());
        loop {
            port.tx[0].tx_burst(&mut out);
            port.rx[0].rx_burst(&mut back);
            port.tx[0].reclaim();
            if back.is_empty() {
                assert!(Instant::now() < until, "packet {number} is lost");
                std::thread::yield_now();
                continue;
            }
            assert_eq!(back.len(), 1, "for one");
            return assert!(back[0].data() == bytes, "packet {number} is another");
        }
    }

    /// Passes packets while `attack` goes on, and a thousand at least; the thread that does it polls `bad` too.
    pub fn during<T>(&mut self, bad: Option<&mut Port>, attack: impl FnOnce() -> T) -> T {
        /// Said whatever becomes of the attack, so that nobody waits for it for ever.
        struct Ended<'a>(&'a AtomicBool);
        impl Drop for Ended<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Release);
            }
        }
        let ended = AtomicBool::new(false);
        let first = self.passed;
        std::thread::scope(|scope| {
            let (seen, traffic) = (&ended, &mut *self);
            let poller = scope.spawn(move || {
                let mut bad = bad;
                let threads = [this_thread(), traffic.echoing.load(Ordering::Acquire)];
                traffic.worst = Duration::ZERO;
                while !seen.load(Ordering::Acquire) || traffic.passed < first + ENOUGH {
                    let (queued, began) = (time_in_queue(&threads), Instant::now());
                    bad.iter_mut().for_each(|port| poll(port, &traffic.pool));
                    traffic.pass();
                    let took = began.elapsed();
                    // The time in which one of the two could have run and had no core is this machine's business.
                    let noise = time_in_queue(&threads).saturating_sub(queued);
                    traffic.worst = traffic.worst.max(took.saturating_sub(noise));
                    std::thread::sleep(PAUSE);
                }
            });
            let result = {
                let _ended = Ended(&ended);
                attack()
            };
            poller.join().expect("no packet is lost");
            result
        })
    }

    /// As [`during`](Self::during), of an attack on `bad` that goes on afterwards: no packet may be later than without it
    /// by more than a bystander may notice, in the best of some tries.
    pub fn unnoticed<T>(&mut self, bad: &mut Port, attack: impl FnOnce() -> T) -> T {
        self.during(None, || {});
        let calm = self.worst;
        let result = self.during(Some(bad), attack);
        let mut best = self.worst;
        for _ in 1..TRIES {
            if best <= calm + NOTICE {
                break;
            }
            self.during(Some(bad), || {});
            best = best.min(self.worst);
        }
        println!("a packet of another port takes {best:?} at most, {calm:?} without the attack");
        assert!(best <= calm + NOTICE, "a packet takes {best:?}, {calm:?} without the attack");
        result
    }

    /// Stops the port; it has lost nothing, and its backend nothing of it.
    pub fn stop(mut self) {
        let port = self.port.take().expect("until now");
        let (stats, passed) = (port.control.stats(), u64::from(self.passed));
        assert!(port.control.link().up);
        assert_eq!((stats.opackets, stats.ipackets), (passed, passed), "{stats:?}");
        assert_eq!((stats.oerrors, stats.ierrors, stats.imissed), (0, 0, 0), "{stats:?}");
        self.over.store(true, Ordering::Release);
        self.peer.take().map(JoinHandle::join).expect("one").expect("the backend did not panic");
        drop(port.stop());
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // Of a test that failed.
        let _ = self.peer.take().map(JoinHandle::join);
    }
}

pub fn this_thread() -> libc::pid_t {
    // SAFETY: takes nothing.
    unsafe { libc::gettid() }
}

/// How long these threads were ready to run and waited for a core, in all.
pub fn time_in_queue(threads: &[libc::pid_t]) -> Duration {
    let of = |thread: &libc::pid_t| {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).unwrap_or_default();
        stat.split_whitespace().nth(1).and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
    };
    Duration::from_nanos(threads.iter().map(of).sum())
}

/// Polls a port as an application would, whatever becomes of what it sends.
fn poll(port: &mut Port, pool: &Pool) {
    let mut burst = Burst::new();
    for rx in &mut port.rx {
        rx.rx_burst(&mut burst);
        burst.clear();
    }
    for tx in &mut port.tx {
        if let Some(mut packet) = pool.get() {
            packet.append(60).expect("room").fill(1);
            assert!(burst.push(packet).is_ok());
            tx.tx_burst(&mut burst);
            burst.clear();
        }
        tx.reclaim();
    }
}
