//! The port contract over a vhost-user socket: our frontend with our backend behind it, and the reverse, on every ring.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use linecard::eal::memory::{Memory, MemoryConfig, PagePolicy};
use linecard::mempool::{Burst, Pool, PoolConfig};
use linecard::pmd::{DevArgs, Device, Driver, Port, PortConfig, ProbeContext, configure};
use linecard::vhost_user::VhostDriver;
use linecard::virtio_user::VirtioUser;
use linecard_lab::contract::{Ends, FarEnd, Limits, Link};
use linecard_lab::wait_until;

static VHOST: VhostDriver = VhostDriver::new();
static VIRTIO_USER: VirtioUser = VirtioUser::new();

/// A socket that nobody else uses: a path and an abstract name in turns.
fn socket() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("linecard-ends-{}-{number}.sock", std::process::id());
    if number.is_multiple_of(2) { std::env::temp_dir().join(name) } else { format!("@{name}").into() }
}

/// A frontend and a backend on a socket of their own.
fn both(front: &ProbeContext, back: &ProbeContext, options: &str) -> (Box<dyn Device>, Box<dyn Device>) {
    let path = socket();
    let args = |text: String| DevArgs::parse(&text).expect("well formed");
    let back_args = args(format!("net_vhost0,iface={},queues=2", path.display()));
    let front_args = args(format!("net_virtio_user0,path={},queues=2,{options}", path.display()));
    let backend = VHOST.probe(back, &back_args).expect("a backend");
    let frontend = VIRTIO_USER.probe(front, &front_args).expect("a frontend");
    (frontend, backend)
}

fn limits() -> Limits {
    Limits { len: 14..=1514, ..Limits::default() }
}

/// The frontend is tested, the backend is its far side.
struct Front(&'static str);

impl Link for Front {
    fn open(&self, near: &ProbeContext, far: &ProbeContext) -> Ends {
        let (near, far) = both(near, far, self.0);
        Ends { near, far: FarEnd::port(far) }
    }

    fn limits(&self) -> Limits {
        limits()
    }
}

/// The backend is tested, the frontend is its far side.
struct Back(&'static str);

impl Link for Back {
    fn open(&self, near: &ProbeContext, far: &ProbeContext) -> Ends {
        let (far, near) = both(far, near, self.0);
        Ends { near, far: FarEnd::port(far) }
    }

    fn limits(&self) -> Limits {
        limits()
    }
}

mod front_split_mergeable {
    linecard_lab::contract_tests!(super::Front("mrg_rxbuf=1,in_order=0"));
}
mod front_split_in_order {
    linecard_lab::contract_tests!(super::Front("mrg_rxbuf=0,in_order=1"));
}
mod front_packed_mergeable {
    linecard_lab::contract_tests!(super::Front("packed_vq=1,mrg_rxbuf=1,in_order=0"));
}
mod front_packed_in_order {
    linecard_lab::contract_tests!(super::Front("packed_vq=1,mrg_rxbuf=0,in_order=1"));
}
mod back_split_mergeable {
    linecard_lab::contract_tests!(super::Back("mrg_rxbuf=1,in_order=0"));
}
mod back_split_in_order {
    linecard_lab::contract_tests!(super::Back("mrg_rxbuf=0,in_order=1"));
}
mod back_packed_mergeable {
    linecard_lab::contract_tests!(super::Back("packed_vq=1,mrg_rxbuf=1,in_order=0"));
}
mod back_packed_in_order {
    linecard_lab::contract_tests!(super::Back("packed_vq=1,mrg_rxbuf=0,in_order=1"));
}

/// Sleepers are woken around index 65 536 of every kind of ring, at both ends.
mod sleepers {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Duration, Instant};

    use linecard::prelude::*;
    use linecard_lab::contract::{Link, wakes_after};
    use linecard_lab::wait_until;

    use super::{Back, Front, socket};

    fn eal() -> Eal {
        Eal::new(&EalArgs::parse(["-m", "64"]).expect("arguments").0).expect("an instance")
    }

    fn pool(eal: &Eal) -> Pool {
        let config = PoolConfig::default().packets(4096);
        Pool::new(&eal.default_domain(), config).expect("a pool")
    }

    const OPTIONS: [&str; 8] = [
        "event_idx=0,in_order=0",
        "event_idx=0,in_order=1",
        "event_idx=0,packed_vq=1,in_order=0",
        "event_idx=0,packed_vq=1,in_order=1",
        "event_idx=1,in_order=0",
        "event_idx=1,in_order=1",
        "event_idx=1,packed_vq=1,in_order=0",
        "event_idx=1,packed_vq=1,in_order=1",
    ];

    /// Around one lap of the index; or so many sleeps on each kind of ring as `LINECARD_SLEEPS` says, lap by lap
    /// (`cargo xtask torture --only sleeps`).
    fn cross_a_lap(link: impl Fn(&'static str) -> Box<dyn Link>) {
        const LAP: usize = 70_000;
        let asked = std::env::var("LINECARD_SLEEPS").ok();
        let asked = asked.map(|text| text.parse::<usize>().expect("LINECARD_SLEEPS is a number"));
        for options in OPTIONS {
            let Some(mut left) = asked else {
                wakes_after(&*link(options), 65_536 - 350, 700);
                continue;
            };
            while left > 0 {
                wakes_after(&*link(options), 0, left.min(LAP));
                left = left.saturating_sub(LAP);
            }
            println!("{options}: no wake-up was lost");
        }
    }

    #[test]
    fn of_the_frontend_cross_a_lap() {
        cross_a_lap(|options| Box::new(Front(options)));
    }

    #[test]
    fn of_the_backend_cross_a_lap() {
        cross_a_lap(|options| Box::new(Back(options)));
    }

    /// A peer that goes and comes back wakes whoever sleeps, also by what it brings anew.
    fn outlives_its_peers(options: &str, sleeper_is_backend: bool) {
        let eal = eal();
        let pool = pool(&eal);
        let path = socket();
        let (back, front) = (
            format!("net_vhost0,iface={}", path.display()),
            format!("net_virtio_user0,path={},{options}", path.display()),
        );
        let (own, other) = if sleeper_is_backend { (&back, &front) } else { (&front, &back) };
        // A frontend does not start without its backend.
        let mut first = (!sleeper_is_backend).then(|| linecard::open(&eal, &pool, other).expect("a port"));
        let mut port = linecard::open(&eal, &pool, own).expect("a port");
        let (mut rx, seen) = (port.rx.remove(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| sleep_for(&mut *rx, &seen, ROUNDS));
            for round in 0..ROUNDS {
                let mut peer =
                    first.take().unwrap_or_else(|| linecard::open(&eal, &pool, other).expect("a port"));
                wait_until("link up", || port.control.link().up && peer.control.link().up);
                let mut packets = Burst::new();
                wait_until("a packet is sent", || {
                    if packets.is_empty() {
                        pool.get_bulk(&mut packets, 1).unwrap();
                        packets[0].append(60).expect("room").fill(0);
                    }
                    peer.tx[0].tx_burst(&mut packets) == 1
                });
                wait_until("it wakes", || {
                    peer.tx[0].reclaim();
                    peer.rx[0].rx_burst(&mut packets);
                    packets.clear();
                    seen.load(Ordering::Acquire) > round || sleeper.is_finished()
                });
                drop(peer.stop());
            }
        });
        port.rx.push(rx);
        drop(port.stop());
    }

    const ROUNDS: u32 = 3;

    fn sleep_for(rx: &mut dyn RxQueue, seen: &AtomicU32, packets: u32) {
        const BOUND: Duration = Duration::from_secs(60);
        let (mut burst, mut adaptive) = (Burst::new(), Adaptive::new(Duration::ZERO, BOUND));
        while seen.load(Ordering::Relaxed) < packets {
            let count = rx.rx_burst(&mut burst);
            seen.fetch_add(burst.clear() as u32, Ordering::Release);
            let began = Instant::now();
            adaptive.wait(count, &mut [&mut *rx]);
            assert!(began.elapsed() < BOUND, "a wake-up was lost");
        }
    }

    #[test]
    fn of_the_frontend_outlive_backends() {
        ["in_order=0", "packed_vq=1"].into_iter().for_each(|options| outlives_its_peers(options, false));
    }

    #[test]
    fn of_the_backend_outlive_frontends() {
        ["in_order=0", "packed_vq=1"].into_iter().for_each(|options| outlives_its_peers(options, true));
    }

    /// How often the thread of that name went to sleep of its own.
    fn sleeps(name: &str) -> Option<u64> {
        let tasks = std::fs::read_dir("/proc/self/task").expect("our own");
        let text = |task: &std::fs::DirEntry| std::fs::read_to_string(task.path().join("status")).ok();
        let status =
            tasks.filter_map(|task| text(&task.ok()?)).find(|text| text.contains(&format!("\t{name}\n")))?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse().ok()
    }

    /// While nothing is sent, the control thread of a frontend does not wake at all; an earlier one did every 100 ms.
    #[test]
    fn an_idle_frontends_thread_sleeps_for_good() {
        let eal = eal();
        let pool = pool(&eal);
        let path = socket();
        let open = |device: &str| linecard::open(&eal, &pool, device).expect("a port");
        let mut back = open(&format!("net_vhost0,iface={}", path.display()));
        let mut front = open(&format!("net_virtio_user7654,path={}", path.display()));
        wait_until("link up", || back.control.link().up && front.control.link().up);
        let mut packets = Burst::new();
        pool.get_bulk(&mut packets, 1).unwrap();
        packets[0].append(60).expect("room").fill(0);
        assert_eq!(front.tx[0].tx_burst(&mut packets), 1);
        wait_until("it arrives", || back.rx[0].rx_burst(&mut packets) == 1);
        packets.clear();
        let mut before = sleeps("lc-tio_user7654");
        assert!(before.is_some(), "there is such a thread");
        wait_until("it sleeps for half a second", || {
            std::thread::sleep(Duration::from_millis(500));
            let now = sleeps("lc-tio_user7654");
            std::mem::replace(&mut before, now) == now
        });
        drop((front.stop(), back.stop()));
    }
}

/// As many queue pairs as a socket can name: each carries its own frames, in both directions.
#[test]
fn a_hundred_and_twenty_eight_queue_pairs() {
    const PAIRS: u16 = 128;
    for (number, more) in ["", ",packed_vq=1"].into_iter().enumerate() {
        let config = MemoryConfig::default().pages(PagePolicy::NoHuge);
        let memory = Memory::new(config).expect("memory");
        let domain = memory.domain("test").expect("a domain");
        let pool = PoolConfig::default().packets(16_384).cache(32);
        let pool = Pool::new(&domain, pool).expect("a pool");
        let context = ProbeContext::new(memory, domain, std::time::Duration::from_secs(5));
        let path = std::env::temp_dir().join(format!("linecard-128-{}-{number}.sock", std::process::id()));
        let start = |device: Box<dyn Device>| {
            let config = PortConfig::default().rx_queues(PAIRS).tx_queues(PAIRS);
            let made = configure(device, config).map_err(|error| error.error).expect("so many queues");
            made.start(&pool).map_err(|error| error.error).expect("a port")
        };
        let args = |text: String| DevArgs::parse(&text).expect("well formed");
        let backend = args(format!("net_vhost0,iface={},queues={PAIRS}", path.display()));
        let mut backend = start(VHOST.probe(&context, &backend).expect("a backend"));
        let text = format!("net_virtio_user0,path={},queues={PAIRS},queue_size=16{more}", path.display());
        let mut frontend = start(VIRTIO_USER.probe(&context, &args(text)).expect("a frontend"));
        wait_until("both up", || frontend.control.link().up && backend.control.link().up);
        for queue in 0..usize::from(PAIRS) {
            pass(&pool, &mut frontend, &mut backend, queue);
            pass(&pool, &mut backend, &mut frontend, queue);
        }
        let (near, far) = (frontend.control.stats(), backend.control.stats());
        assert_eq!((near.ipackets, near.opackets, far.ipackets, far.opackets), (128, 128, 128, 128));
        drop((frontend.stop(), backend.stop()));
    }
}

/// One frame that no other queue has, from a transmit queue to the receive queue of the same number.
#[track_caller]
fn pass(pool: &Pool, from: &mut Port, to: &mut Port, queue: usize) {
    let frame: Vec<u8> = (0..60).map(|at| (at * 7 + queue) as u8).collect();
    let mut burst = Burst::new();
    pool.get_bulk(&mut burst, 1).unwrap();
    burst[0].append(60).expect("room").copy_from_slice(&frame);
    wait_until("it is sent", || {
        from.tx[queue].tx_burst(&mut burst);
        burst.is_empty()
    });
    wait_until("it has come", || to.rx[queue].rx_burst(&mut burst) > 0);
    assert_eq!((burst.len(), burst[0].data()), (1, &frame[..]), "queue {queue}");
    from.tx[queue].reclaim();
}
