//! The port contract over a vhost-user socket: our frontend with our backend behind it, and the reverse, on every ring.

use std::sync::atomic::{AtomicU32, Ordering};

use linecard::eal::memory::{Memory, MemoryConfig, PagePolicy};
use linecard::mempool::{Burst, Pool, PoolConfig};
use linecard::pmd::{DevArgs, Device, Driver, Port, PortConfig, ProbeContext, configure};
use linecard::vhost_user::VhostDriver;
use linecard::virtio_user::VirtioUser;
use linecard_lab::contract::{Ends, Far, Limits, Link};
use linecard_lab::wait_until;

static VHOST: VhostDriver = VhostDriver::new();
static VIRTIO_USER: VirtioUser = VirtioUser::new();

/// A frontend and a backend on a socket of their own: a path and an abstract name in turns.
fn both(front: &ProbeContext, back: &ProbeContext, options: &str) -> (Box<dyn Device>, Box<dyn Device>) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("linecard-ends-{}-{number}.sock", std::process::id());
    let path =
        if number.is_multiple_of(2) { std::env::temp_dir().join(name) } else { format!("@{name}").into() };
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
        Ends { near, far: Far::port(far) }
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
        Ends { near, far: Far::port(far) }
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

/// As many queue pairs as a socket can name: each carries its own frames, in both directions.
#[test]
fn a_hundred_and_twenty_eight_queue_pairs() {
    const PAIRS: u16 = 128;
    for (number, more) in ["", ",packed_vq=1"].into_iter().enumerate() {
        let config = MemoryConfig { pages: PagePolicy::NoHuge, ..MemoryConfig::default() };
        let memory = Memory::new(config).expect("memory");
        let domain = memory.domain("test").expect("a domain");
        let pool = PoolConfig { packets: 16_384, cache: 32, ..PoolConfig::default() };
        let pool = Pool::new(&domain, pool).expect("a pool");
        let context = ProbeContext { memory, domain, wait: std::time::Duration::from_secs(5) };
        let path = std::env::temp_dir().join(format!("linecard-128-{}-{number}.sock", std::process::id()));
        let start = |device: Box<dyn Device>| {
            let config = PortConfig { rx_queues: PAIRS, tx_queues: PAIRS, ..PortConfig::default() };
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
    assert!(pool.get_bulk(&mut burst, 1));
    burst[0].append(60).expect("room").copy_from_slice(&frame);
    wait_until("it is sent", || {
        from.tx[queue].tx_burst(&mut burst);
        burst.is_empty()
    });
    wait_until("it has come", || to.rx[queue].rx_burst(&mut burst) > 0);
    assert_eq!((burst.len(), burst[0].data()), (1, &frame[..]), "queue {queue}");
    from.tx[queue].reclaim();
}
