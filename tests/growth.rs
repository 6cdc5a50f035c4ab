//! A domain that grows tenfold in a hundred steps while packets pass, and shrinks again: each frame comes back as it was, from old
//! memory and from new, and none is lost. Our backend is told of each step. (`virtio-user/tests/dpdk.rs` has DPDK's, which takes eight
//! regions: packets in the rest are copied.)

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use linecard::eal::memory::{Domain, Memory, MemoryConfig, PagePolicy};
use linecard::mempool::{Burst, Pool, PoolConfig};
use linecard::pmd::{DevArgs, Driver, Port, PortConfig, ProbeContext, configure};
use linecard::vhost_user::VhostDriver;
use linecard::virtio_user::VirtioUser;
use linecard_lab::{PATIENCE, wait_until};

static VHOST: VhostDriver = VhostDriver::new();
static VIRTIO_USER: VirtioUser = VirtioUser::new();

const STEPS: usize = 100;
/// Packets of a step's pool, which fill a segment of 2 MiB by themselves.
const STEP_PACKETS: u32 = 900;
/// Packets of the port's own pool: a tenth of the memory in the end.
const OWN_PACKETS: u32 = 10_000;
/// Frames under way at most, and frames that pass between two steps at least.
const UNDER_WAY: usize = 32;
const BETWEEN: u64 = 200;

/// Lengths of frames in turn.
const LENS: [usize; 4] = [60, 1514, 200, 777];

fn fill(bytes: &mut [u8], number: u64) {
    let head = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = head.get(at).copied().unwrap_or((number as usize * 13 + at) as u8);
    }
    bytes[14..22].copy_from_slice(&number.to_be_bytes());
}

fn frame(number: u64) -> Vec<u8> {
    let mut bytes = vec![0; LENS[number as usize % LENS.len()]];
    fill(&mut bytes, number);
    bytes
}

/// What the growing thread knows of the one that polls.
#[derive(Default)]
struct Progress {
    passed: AtomicU64,
    /// Microseconds that a frame took at most since this was taken last.
    longest: AtomicU64,
    over: AtomicBool,
}

impl Progress {
    /// Waits until so many more frames have passed.
    fn wait_for(&self, more: u64) {
        let want = self.passed.load(Ordering::Acquire) + more;
        wait_until("frames pass", || self.passed.load(Ordering::Acquire) >= want);
    }

    fn take_longest(&self) -> Duration {
        Duration::from_micros(self.longest.swap(0, Ordering::AcqRel))
    }
}

/// What the polling thread is to send from.
enum Change {
    Add(Pool),
    RemoveLast,
}

/// Sends frames from all pools in turn and looks at each that comes back, until it is told to end; then nothing is under way.
fn exchange(port: &mut Port, own: &Pool, changes: &mpsc::Receiver<Change>, progress: &Progress) -> u64 {
    let (mut pools, mut sent, mut came) = (vec![own.clone()], 0_u64, 0_u64);
    let (mut out, mut back, mut began) = (Burst::new(), Burst::new(), VecDeque::new());
    let mut last = Instant::now();
    while came < sent || !progress.over.load(Ordering::Acquire) {
        match changes.try_recv() {
            Ok(Change::Add(pool)) => pools.push(pool),
            Ok(Change::RemoveLast) => drop(pools.pop()),
            Err(_) => {}
        }
        let more = !progress.over.load(Ordering::Acquire);
        while more && began.len() < UNDER_WAY {
            let Some(mut packet) = pools[sent as usize % pools.len()].get() else { break };
            let len = LENS[sent as usize % LENS.len()];
            fill(packet.append(len).expect("room"), sent);
            assert!(out.push(packet).is_ok());
            began.push_back(Instant::now());
            sent += 1;
        }
        port.tx[0].tx_burst(&mut out);
        port.tx[0].reclaim();
        if port.rx[0].rx_burst(&mut back) > 0 {
            last = Instant::now();
        }
        for packet in back.iter() {
            assert!(
                packet.data() == frame(came),
                "frame {came} of {sent} is another, or one before it is lost"
            );
            let took = began.pop_front().map_or(Duration::ZERO, |began| began.elapsed());
            progress.longest.fetch_max(took.as_micros() as u64, Ordering::AcqRel);
            came += 1;
            progress.passed.store(came, Ordering::Release);
        }
        back.clear();
        assert!(last.elapsed() < PATIENCE, "frame {came} of {sent} is lost");
    }
    sent
}

fn context(domain: &Arc<Domain>, memory: &Memory) -> ProbeContext {
    ProbeContext::new(memory.clone(), domain.clone(), PATIENCE)
}

fn memory() -> (Memory, Arc<Domain>) {
    let config = MemoryConfig::default().pages(PagePolicy::NoHuge);
    let memory = Memory::new(config).expect("memory");
    let domain = memory.domain("test").expect("a domain");
    (memory, domain)
}

fn pool(domain: &Arc<Domain>, packets: u32) -> Pool {
    Pool::new(domain, PoolConfig::default().packets(packets).cache(32)).expect("a pool")
}

fn start(driver: &dyn Driver, args: &str, context: &ProbeContext, pool: &Pool) -> Port {
    let args = DevArgs::parse(args).expect("well formed");
    let device = driver.probe(context, &args).expect("a device");
    configure(device, PortConfig::default()).and_then(|made| made.start(pool)).expect("a port")
}

fn bytes(domain: &Domain) -> usize {
    domain.segments().iter().map(|segment| segment.len()).sum()
}

/// Grows and shrinks the memory of a port at the backend of this socket, which sends back what it gets.
fn grow_and_shrink(socket: &Path, options: &str) {
    let (memory, domain) = memory();
    let own = pool(&domain, OWN_PACKETS);
    let args = format!("net_virtio_user0,path={},{options}", socket.display());
    let mut port = start(&VIRTIO_USER, &args, &context(&domain, &memory), &own);
    let control = port.control.clone();
    wait_until("link up", || control.link().up);
    let changes_of_link = Arc::new(AtomicU64::new(0));
    let counted = changes_of_link.clone();
    let events = control.link_events().expect("it tells of its link");
    let _watch = events.on_change(move |_| {
        counted.fetch_add(1, Ordering::AcqRel);
    });
    let (before, (tell, changes), progress) = (bytes(&domain), mpsc::channel(), Progress::default());
    let sent = std::thread::scope(|scope| {
        let (port, own, progress) = (&mut port, &own, &progress);
        let poller = scope.spawn(move || exchange(port, own, &changes, progress));
        let over = Over(&progress.over);
        progress.wait_for(10 * BETWEEN);
        let quiet = progress.take_longest();
        let mut longest_step = Duration::ZERO;
        for _ in 0..STEPS {
            let began = Instant::now();
            let grown = pool(&domain, STEP_PACKETS);
            longest_step = longest_step.max(began.elapsed());
            tell.send(Change::Add(grown)).expect("it polls");
            progress.wait_for(BETWEEN);
        }
        let (growing, most) = (progress.take_longest(), bytes(&domain));
        assert!(most >= 10 * before - before / 10, "{before} bytes grew to {most}");
        for _ in 0..STEPS {
            tell.send(Change::RemoveLast).expect("it polls");
            progress.wait_for(BETWEEN);
        }
        wait_until("memory shrinks", || bytes(&domain) <= before + (4 << 20));
        progress.wait_for(BETWEEN);
        let shrinking = progress.take_longest();
        println!(
            "{options}: the longest step took {longest_step:?}; a frame took {quiet:?} at most before, {growing:?} while memory grew, \
             {shrinking:?} while it shrank"
        );
        drop(over);
        poller.join().expect("no frame is lost")
    });
    let stats = control.stats();
    assert_eq!((stats.opackets, stats.ipackets), (sent, sent));
    assert_eq!((stats.oerrors, stats.ierrors, stats.imissed, stats.rx_nombuf), (0, 0, 0, 0));
    assert_eq!(changes_of_link.load(Ordering::Acquire), 0, "the link stayed up");
    drop(port.stop());
    let stats = own.stats();
    assert_eq!(stats.free + stats.cached, stats.total);
}

/// Ends the polling thread, also when the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Our backend, which sends back what it gets until `over`; how often a frontend connected.
fn send_back(socket: &Path, over: &AtomicBool, ready: &mpsc::Sender<()>) -> u64 {
    let (memory, domain) = memory();
    let pool = pool(&domain, 4096);
    let args = format!("net_vhost0,iface={}", socket.display());
    let mut port = start(&VHOST, &args, &context(&domain, &memory), &pool);
    ready.send(()).expect("somebody waits");
    let mut burst = Burst::new();
    while !over.load(Ordering::Acquire) {
        if port.rx[0].rx_burst(&mut burst) == 0 {
            std::thread::yield_now();
        }
        while !burst.is_empty() && !over.load(Ordering::Acquire) {
            port.tx[0].tx_burst(&mut burst);
        }
    }
    burst.clear();
    let connects = port.control.xstats().into_iter().find(|(name, _)| name == "connects");
    drop(port.stop());
    connects.expect("it counts them").1
}

#[test]
fn packets_pass_our_backend_while_memory_grows_and_shrinks() {
    for options in ["packed_vq=0", "packed_vq=1"] {
        let socket =
            std::env::temp_dir().join(format!("linecard-growth-{}-{options}.sock", std::process::id()));
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (ready, listens) = mpsc::channel();
            let (socket, over) = (&socket, &over);
            let backend = scope.spawn(move || send_back(socket, over, &ready));
            let ended = Over(over);
            listens.recv().expect("it starts");
            grow_and_shrink(socket, options);
            drop(ended);
            assert_eq!(backend.join().expect("no panic"), 1, "no frontend connected again");
        });
    }
}
