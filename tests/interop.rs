//! Each of our ends against a testpmd at the other end, DPDK's and ours: every byte of every packet is checked, peers
//! reconnect and are killed, and the pool is whole afterwards.

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use linecard::eal::{Eal, EalArgs};
use linecard::mempool::{Pool, PoolConfig};
use linecard::pmd::{Port, PortConfig, ProbeContext, configure};
use support::console::{Kind, Testpmd};
use support::traffic::{Prover, Report};
use support::{Scratch, on_path, skip};

const SIZES: &[usize] = &[64, 65, 127, 128, 129, 200, 256, 257, 512, 777, 1024, 1518];
const PATIENCE: Duration = Duration::from_secs(5);

/// Ring variants of the frontend, as device arguments.
const VARIANTS: &[&str] = &[
    "mrg_rxbuf=1,in_order=0",
    "mrg_rxbuf=0,in_order=0",
    "mrg_rxbuf=1,in_order=1",
    "mrg_rxbuf=0,in_order=1",
    "packed_vq=1,mrg_rxbuf=1,in_order=0",
    "packed_vq=1,mrg_rxbuf=0,in_order=0",
    "packed_vq=1,mrg_rxbuf=1,in_order=1",
    "packed_vq=1,mrg_rxbuf=0,in_order=1",
];

/// Our end: a port in this process, driven directly.
struct Ours {
    pool: Pool,
    port: Port,
    _eal: Eal,
}

impl Ours {
    fn start(vdev: &str) -> Self {
        let (args, _) = EalArgs::parse(["-m", "64"].map(Into::into)).expect("arguments");
        let eal = Eal::new(&args).expect("an instance");
        let domain = eal.default_domain();
        let config = PoolConfig { packets: 4096, ..PoolConfig::default() };
        let pool = Pool::new(&domain, config).expect("a pool");
        let context = ProbeContext { memory: eal.memory().clone(), domain, wait: Duration::from_secs(5) };
        let device = linecard::drivers().probe(&context, vdev).expect("a device");
        let ready = configure(device, PortConfig::default()).expect("a configuration");
        let port = ready.start(&pool).expect("a port");
        Self { pool, port, _eal: eal }
    }

    /// Waits for the link, polling as an application would.
    fn wait_for_link(&mut self, up: bool) {
        let until = Instant::now() + Duration::from_secs(10);
        while self.port.control.link().up != up {
            assert!(Instant::now() < until, "the link did not go {}", if up { "up" } else { "down" });
            let mut burst = linecard::mempool::Burst::new();
            self.port.rx[0].rx_burst(&mut burst);
            self.port.tx[0].tx_burst(&mut burst);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn prove(&mut self, count: u64, sizes: &[usize]) -> Report {
        let (rx, tx) = (self.port.rx[0].as_mut(), self.port.tx[0].as_mut());
        let report = Prover { pool: &self.pool, rx, tx, window: 128, sizes }.run(count, PATIENCE);
        if !report.is_perfect() {
            eprintln!("{report:?}; {}\n{:#?}", self.port.control.paths(), self.port.control.xstats());
        }
        report
    }

    /// Stops the port; every packet must be home.
    fn stop(self) {
        let Self { pool, port, _eal } = self;
        drop(port.stop());
        let stats = pool.stats();
        assert_eq!(stats.in_use, 0, "packets are missing: {stats:?}");
        assert_eq!(stats.free + stats.cached, stats.total, "the pool is not whole: {stats:?}");
    }
}

/// A testpmd that forwards everything back out of its one port; it does so when this returns.
fn forwarder(kind: Kind, vdev: &str, tag: &str) -> Testpmd {
    let prefix = format!("lc{}{tag}", std::process::id());
    let mut eal = vec!["-l", "0,1", "--no-pci", "-m", "256", "--file-prefix", &prefix, "--vdev", vdev];
    // A frontend shares at most eight regions: one file of hugepages, or the one of --no-huge.
    eal.extend_from_slice(if free_hugepages() >= 128 {
        &["--in-memory", "--single-file-segments"]
    } else {
        &["--no-huge"]
    });
    let app = ["-i", "--nb-cores=1", "--total-num-mbufs=8192", "--rxd=256", "--txd=256"];
    let mut peer = Testpmd::start(kind, &eal, &app);
    peer.type_line("set fwd io");
    peer.type_line("start");
    // `start` throws away what came before it.
    peer.expect("io packet forwarding", Duration::from_secs(20));
    std::thread::sleep(Duration::from_millis(200));
    peer
}

/// Free hugepages of the default size.
fn free_hugepages() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("HugePages_Free:"));
    line.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

fn present(kind: Kind, test: &str) -> bool {
    let there = kind == Kind::Linecard || on_path("dpdk-testpmd").is_some();
    if !there {
        skip(test, "dpdk-testpmd is not installed (apt-get install dpdk)");
    }
    there
}

fn frontend_vdev(socket: &Path, options: &str) -> String {
    format!("net_virtio_user0,path={},queues=1,queue_size=256,{options}", socket.display())
}

fn backend_vdev(socket: &Path) -> String {
    format!("net_vhost0,iface={},queues=1", socket.display())
}

fn wait_for_socket(path: &Path) {
    let until = Instant::now() + Duration::from_secs(20);
    while !path.exists() {
        assert!(Instant::now() < until, "{} did not appear", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn assert_perfect(report: &Report, what: &str) {
    assert!(report.is_perfect(), "{what}: {report:?}");
}

/// Our virtio-user in every variant against the peer's vhost.
fn frontend_in_every_variant(kind: Kind, test: &str) {
    if !present(kind, test) {
        return;
    }
    let scratch = Scratch::new(test);
    for (n, options) in VARIANTS.iter().enumerate() {
        let socket = scratch.join(&format!("s{n}"));
        let peer = forwarder(kind, &backend_vdev(&socket), &format!("f{n}"));
        wait_for_socket(&socket);
        let mut ours = Ours::start(&frontend_vdev(&socket, options));
        ours.wait_for_link(true);
        assert_perfect(&ours.prove(20_000, SIZES), options);
        ours.stop();
        assert!(peer.quit().success());
    }
}

/// Our vhost against the peer's virtio-user in every variant.
fn backend_in_every_variant(kind: Kind, test: &str) {
    if !present(kind, test) {
        return;
    }
    let scratch = Scratch::new(test);
    for (n, options) in VARIANTS.iter().enumerate() {
        let socket = scratch.join(&format!("s{n}"));
        let mut ours = Ours::start(&backend_vdev(&socket));
        let peer = forwarder(kind, &frontend_vdev(&socket, options), &format!("b{n}"));
        ours.wait_for_link(true);
        assert_perfect(&ours.prove(20_000, SIZES), options);
        assert!(peer.quit().success());
        ours.wait_for_link(false);
        ours.stop();
        assert!(!socket.exists(), "the socket was left behind");
    }
}

/// Ten peers one after another at the same port, every other one killed.
fn ten_backends_come_and_go(kind: Kind, test: &str) {
    if !present(kind, test) {
        return;
    }
    let scratch = Scratch::new(test);
    let socket = scratch.join("s");
    let mut peer = forwarder(kind, &backend_vdev(&socket), "r0");
    wait_for_socket(&socket);
    let mut ours = Ours::start(&frontend_vdev(&socket, "mrg_rxbuf=1,in_order=1"));
    for round in 1..=10 {
        ours.wait_for_link(true);
        assert_perfect(&ours.prove(2_000, SIZES), &format!("round {round}"));
        if round % 2 == 0 {
            peer.kill();
            let _ = std::fs::remove_file(&socket);
        } else {
            assert!(peer.quit().success());
        }
        ours.wait_for_link(false);
        assert_eq!(ours.pool.stats().in_use, 0, "round {round}: packets did not come home");
        peer = forwarder(kind, &backend_vdev(&socket), &format!("r{round}"));
    }
    ours.wait_for_link(true);
    assert_perfect(&ours.prove(2_000, SIZES), "the last round");
    ours.stop();
}

fn ten_frontends_come_and_go(kind: Kind, test: &str) {
    if !present(kind, test) {
        return;
    }
    let scratch = Scratch::new(test);
    let socket = scratch.join("s");
    let mut ours = Ours::start(&backend_vdev(&socket));
    for round in 1..=10 {
        let mut peer =
            forwarder(kind, &frontend_vdev(&socket, "mrg_rxbuf=1,in_order=1"), &format!("t{round}"));
        ours.wait_for_link(true);
        assert_perfect(&ours.prove(2_000, SIZES), &format!("round {round}"));
        if round % 2 == 0 {
            peer.kill();
        } else {
            assert!(peer.quit().success());
        }
        ours.wait_for_link(false);
        assert_eq!(ours.pool.stats().in_use, 0, "round {round}: packets did not come home");
    }
    ours.stop();
}

#[test]
fn our_frontend_and_dpdks_backend() {
    frontend_in_every_variant(Kind::Dpdk, "our_frontend_and_dpdks_backend");
}

#[test]
fn our_frontend_and_our_backend() {
    frontend_in_every_variant(Kind::Linecard, "our_frontend_and_our_backend");
}

#[test]
fn our_backend_and_dpdks_frontend() {
    backend_in_every_variant(Kind::Dpdk, "our_backend_and_dpdks_frontend");
}

#[test]
fn our_backend_and_our_frontend() {
    backend_in_every_variant(Kind::Linecard, "our_backend_and_our_frontend");
}

#[test]
fn ten_dpdk_backends() {
    ten_backends_come_and_go(Kind::Dpdk, "ten_dpdk_backends");
}

#[test]
fn ten_backends_of_ours() {
    ten_backends_come_and_go(Kind::Linecard, "ten_backends_of_ours");
}

#[test]
fn ten_dpdk_frontends() {
    ten_frontends_come_and_go(Kind::Dpdk, "ten_dpdk_frontends");
}

#[test]
fn ten_frontends_of_ours() {
    ten_frontends_come_and_go(Kind::Linecard, "ten_frontends_of_ours");
}
