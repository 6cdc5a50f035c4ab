//! Links: a backend and a frontend at one socket, both in this process.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use linecard::eal::{Domain, Memory, MemoryConfig};
use linecard::mempool::{Packet, Pool, PoolConfig};
use linecard::pmd::{Port, PortConfig, ProbeContext, configure};
use linecard_apps_common::PrivateFolder;

use super::Error;
use super::loopback::Path;

/// Packets of each end's pool. This and [`RING`] are the same in the peer of `linecard bench burst`.
const PACKETS: u32 = 8191;
const RING: u16 = 256;
/// The longest wait for a link, or for a packet on its way.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// What all links of a benchmark share: memory, a pool for each end, and a folder for their sockets.
pub(crate) struct Links {
    memory: Memory,
    /// The memory that frontends share with their backends.
    pub(crate) domain: Arc<Domain>,
    /// The pool of the frontends, and of packets that are sent.
    pub(crate) shared: Pool,
    /// The pool of the backends.
    pub(crate) private: Pool,
    folder: PrivateFolder,
}

/// Two ports connected by one socket.
pub(crate) struct Link {
    pub(crate) frontend: Port,
    pub(crate) backend: Port,
}

impl Links {
    pub(crate) fn new() -> Result<Self, Error> {
        let memory = Memory::new(MemoryConfig::default())?;
        let (domain, backend) = (memory.domain("frontend")?, memory.domain("backend")?);
        let config = || PoolConfig::default().packets(PACKETS);
        let folder = PrivateFolder::new().map_err(|error| Error::Place(error.to_string()))?;
        Ok(Self {
            shared: Pool::new(&domain, config())?,
            private: Pool::new(&backend, config())?,
            memory,
            domain,
            folder,
        })
    }

    /// Opens both ends of link `number`, and waits until the link is up.
    pub(crate) fn open(&self, number: usize, path: Path) -> Result<Link, Error> {
        let backend = self.backend(number)?;
        let (socket, options) = (self.socket(number), path.options());
        let device = format!("net_virtio_user{number},path={socket},queue_size={RING},{options}");
        let frontend = self.port(&device, &self.shared)?;
        let start = Instant::now();
        while !(frontend.control.link().up && backend.control.link().up) {
            if start.elapsed() > PATIENCE {
                return Err(Error::Place(format!("the two ends at {socket} do not find each other")));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(Link { frontend, backend })
    }

    /// Opens the backend of link `number`; its frontend may be connecting already.
    pub(crate) fn backend(&self, number: usize) -> Result<Port, Error> {
        self.port(&format!("net_vhost{number},iface={}", self.socket(number)), &self.private)
    }

    fn socket(&self, number: usize) -> String {
        self.folder.path().join(format!("{number}.sock")).display().to_string()
    }

    fn port(&self, device: &str, pool: &Pool) -> Result<Port, Error> {
        let failed = |error: linecard::pmd::Error| Error::Place(error.to_string());
        let context = ProbeContext::new(self.memory.clone(), self.domain.clone(), PATIENCE);
        let device = linecard::drivers().probe(&context, device).map_err(failed)?;
        let port = configure(device, PortConfig::default()).map_err(|refused| failed(refused.error))?;
        port.start(pool).map_err(|refused| failed(refused.error))
    }
}

/// Returns a packet of `length` bytes.
pub(crate) fn filled(pool: &Pool, length: usize) -> Result<Packet, Error> {
    let packet = pool.get().and_then(|mut packet| {
        packet.append(length)?.fill(0x5a);
        Some(packet)
    });
    packet.ok_or_else(|| Error::Place("the pool of the benchmark ran empty".into()))
}
