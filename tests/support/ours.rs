//! Our end of a socket: a port in the test's process, driven directly.

use std::path::Path;
use std::time::{Duration, Instant};

use linecard::eal::{Eal, EalArgs};
use linecard::mempool::{Burst, Packet, Pool, PoolConfig};
use linecard::pmd::offload::Offloads;
use linecard::pmd::{Port, PortConfig, ProbeContext, configure};
use linecard_lab::{PATIENCE, wait_until};

use super::traffic::{Prover, Report, is_probe};

/// Frame lengths around every limit of the copy loops.
pub(crate) const SIZES: &[usize] = &[64, 65, 127, 128, 129, 200, 256, 257, 512, 777, 1024, 1518];

/// Our end: a port in this process, driven directly.
pub(crate) struct Ours {
    pub(crate) pool: Pool,
    pub(crate) port: Port,
    _eal: Eal,
}

impl Ours {
    pub(crate) fn start(vdev: &str) -> Self {
        Self::with_offloads(vdev, Offloads::default())
    }

    pub(crate) fn with_offloads(vdev: &str, offloads: Offloads) -> Self {
        Self::with_eal(&["-m", "64"], vdev, offloads)
    }

    pub(crate) fn with_eal(eal: &[&str], vdev: &str, offloads: Offloads) -> Self {
        Self::configured(eal, vdev, PortConfig::default().offloads(offloads))
    }

    /// Starts a port with this number of queues in both directions.
    pub(crate) fn with_queues(vdev: &str, queues: u16) -> Self {
        let config = PortConfig::default().rx_queues(queues).tx_queues(queues);
        Self::configured(&["-m", "64"], vdev, config)
    }

    /// Starts a port with any configuration.
    pub(crate) fn with_config(vdev: &str, config: PortConfig) -> Self {
        Self::configured(&["-m", "64"], vdev, config)
    }

    /// Returns the error message for a port that must be refused.
    pub(crate) fn refusal(vdev: &str, port: PortConfig) -> String {
        Self::try_configured(&["-m", "64"], vdev, port).err().expect("it is refused")
    }

    /// Starts a port with any configuration, and buffers of `data_room` bytes.
    pub(crate) fn with_buffers(vdev: &str, config: PortConfig, data_room: u16) -> Self {
        let pool = PoolConfig::default().packets(2048).data_room(data_room);
        Self::try_with_pool(&["-m", "64"], vdev, config, pool).expect("a port")
    }

    fn configured(eal: &[&str], vdev: &str, port: PortConfig) -> Self {
        Self::try_configured(eal, vdev, port).expect("a port")
    }

    fn try_configured(eal: &[&str], vdev: &str, port: PortConfig) -> Result<Self, String> {
        Self::try_with_pool(eal, vdev, port, PoolConfig::default().packets(4096))
    }

    fn try_with_pool(eal: &[&str], vdev: &str, port: PortConfig, pool: PoolConfig) -> Result<Self, String> {
        let (args, _) = EalArgs::parse(eal.iter()).expect("arguments");
        let eal = Eal::new(&args).expect("an instance");
        let domain = eal.default_domain();
        let pool = Pool::new(&domain, pool).expect("a pool");
        let context = ProbeContext::new(eal.memory().clone(), domain, Duration::from_secs(5));
        let device = linecard::drivers().probe(&context, vdev).map_err(|error| error.to_string())?;
        let ready = configure(device, port).map_err(|error| error.error.to_string())?;
        let port = ready.start(&pool).map_err(|error| error.error.to_string())?;
        Ok(Self { pool, port, _eal: eal })
    }

    /// Waits for the link, and polls meanwhile as an application does.
    pub(crate) fn wait_for_link(&mut self, up: bool) {
        wait_until(if up { "link up" } else { "link down" }, || {
            let mut burst = Burst::new();
            self.port.rx[0].rx_burst(&mut burst);
            self.port.tx[0].tx_burst(&mut burst);
            self.port.control.link().up == up
        });
    }

    /// Stops the port, and starts it again when `paused` returns false.
    pub(crate) fn paused_while(self, paused: impl Fn() -> bool) -> Self {
        let Self { pool, port, _eal } = self;
        let device = port.stop();
        wait_until("the end of the pause", || !paused());
        let ready = configure(device, PortConfig::default()).map_err(|error| error.error).expect("as before");
        let port = ready.start(&pool).map_err(|error| error.error).expect("as before");
        Self { pool, port, _eal }
    }

    /// Waits until every packet is in the pool: the link goes down shortly before the rings are emptied.
    pub(crate) fn wait_until_home(&self, what: &str) {
        wait_until(&format!("{what}: every packet back in the pool"), || self.pool.stats().in_use == 0);
    }

    pub(crate) fn prove(&mut self, count: u64, sizes: &[usize]) -> Report {
        self.prove_on(0, count, sizes)
    }

    /// The same on queue `queue`: the peer returns the packets there.
    pub(crate) fn prove_on(&mut self, queue: usize, count: u64, sizes: &[usize]) -> Report {
        let (rx, tx) = (self.port.rx[queue].as_mut(), self.port.tx[queue].as_mut());
        let mut prover = Prover { pool: &self.pool, rx, tx, window: 128, sizes, probes: false };
        let report = prover.run(count, PATIENCE);
        if !report.is_perfect() {
            eprintln!("{report:?}; {}\n{:#?}", self.port.control.paths(), self.port.control.xstats());
        }
        report
    }

    /// Waits until the peer returns packets: a link is up when its rings exist, but the other side may fill
    /// them later. Probes that return after this are ignored.
    pub(crate) fn settle(&mut self) {
        assert!(self.comes_back(PATIENCE), "no packet came back");
    }

    /// Sends one packet after another; returns whether any returns within this time.
    pub(crate) fn comes_back(&mut self, within: Duration) -> bool {
        let (rx, tx, until) = (self.port.rx[0].as_mut(), self.port.tx[0].as_mut(), Instant::now() + within);
        let mut prober = Prover { pool: &self.pool, rx, tx, window: 1, sizes: &SIZES[..1], probes: true };
        while Instant::now() < until {
            if prober.run(1, Duration::from_millis(100)).received > 0 {
                return true;
            }
        }
        false
    }

    /// Returns a frame in as many buffers as it needs.
    pub(crate) fn packet(&self, frame: &[u8]) -> Packet {
        self.pool.packet_of(frame, usize::from(self.pool.data_room())).expect("packets")
    }

    /// Sends all frames.
    pub(crate) fn send(&mut self, frames: &[Vec<u8>]) {
        let until = Instant::now() + PATIENCE;
        let (mut burst, mut next) = (Burst::new(), 0);
        while next < frames.len() || !burst.is_empty() {
            assert!(Instant::now() < until, "{} of {} frames were sent", next - burst.len(), frames.len());
            while next < frames.len()
                && burst.room() > 0
                && let Some(mut packet) = self.pool.get()
            {
                packet.copy_from_slice(&frames[next]).expect("frame {next} fits");
                burst.push(packet).expect("room");
                next += 1;
            }
            self.port.tx[0].tx_burst(&mut burst);
        }
    }

    /// Sends frames and receives the same number.
    pub(crate) fn exchange(&mut self, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.send(frames);
        self.receive(frames.len())
    }

    /// Receives the next `count` frames, or those that arrive within the time limit.
    pub(crate) fn receive(&mut self, count: usize) -> Vec<Vec<u8>> {
        let (mut got, until) = (Vec::new(), Instant::now() + PATIENCE);
        while got.len() < count && Instant::now() < until {
            let mut burst = Burst::new();
            self.port.rx[0].rx_burst(&mut burst);
            let frames = burst.iter().map(|packet| packet.to_bytes().to_vec());
            got.extend(frames.filter(|frame| !is_probe(frame)));
        }
        got
    }

    /// Stops the port; checks that every packet is in the pool.
    pub(crate) fn stop(self) {
        let Self { pool, port, _eal } = self;
        drop(port.stop());
        let stats = pool.stats();
        assert_eq!(stats.in_use, 0, "packets are missing: {stats:?}");
        assert_eq!(stats.free + stats.cached, stats.total, "the pool is not whole: {stats:?}");
    }
}

/// Returns the device argument of a frontend.
pub(crate) fn frontend_vdev(socket: &Path, options: &str) -> String {
    format!("net_virtio_user0,path={},queues=1,queue_size=256,{options}", socket.display())
}

/// Returns the device argument of a backend.
pub(crate) fn backend_vdev(socket: &Path) -> String {
    format!("net_vhost0,iface={},queues=1", socket.display())
}

/// Waits until there is a socket at `path`.
pub(crate) fn wait_for_socket(path: &Path) {
    wait_until(&path.display().to_string(), || path.exists());
}

pub(crate) fn assert_perfect(report: &Report, what: &str) {
    assert!(report.is_perfect(), "{what}: {report:?}");
}

/// Returns the number of free 2 MiB pages, whatever size is the default.
pub(crate) fn free_hugepages() -> u64 {
    let count = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    count.ok().and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}
