//! Answers, clients good and bad, the text for Prometheus.

mod answers;
mod clients;
mod http;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use linecard_eal::{Eal, EalArgs};
use linecard_mempool::{Pool, PoolConfig};
use linecard_pmd::{Port, PortConfig, ProbeContext, Registry, configure};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::Value as Json;

use crate::{PortEntry, Telemetry};

/// A program with one port and one pool.
struct Program {
    telemetry: Telemetry,
    /// Until a test stops it.
    port: Option<Port>,
    pool: Pool,
    folder: PathBuf,
}

impl Program {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("lc-telemetry-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "64"]).unwrap().0).unwrap();
        let config = PoolConfig::default().name("mb_pool_0").packets(1024);
        let pool = Pool::new(&eal.default_domain(), config).unwrap();
        let context =
            ProbeContext::new(eal.memory().clone(), eal.default_domain(), std::time::Duration::ZERO);
        let device = Registry::new(&[&linecard_net_null::NullDriver]).probe(&context, "net_null0").unwrap();
        let config = PortConfig::default().rx_queues(2).tx_queues(2);
        let port = configure(device, config).unwrap().start(&pool).unwrap();
        let telemetry = Telemetry::new(&eal);
        telemetry.set_ports([(0, PortEntry::of(&port))]);
        telemetry.add_pool(&pool);
        Self { telemetry, port: Some(port), pool, folder }
    }

    fn port(&mut self) -> &mut Port {
        self.port.as_mut().expect("not stopped")
    }

    /// What a request is answered, without the command's name around it.
    fn ask(&self, request: &str) -> Json {
        let text = self.telemetry.answer(request).to_string();
        let path = request.split(',').next().unwrap();
        serde_json::from_str::<Json>(&text).unwrap_or_else(|e| panic!("{request}: {e}: {text}"))[path].take()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A connection to a telemetry socket.
struct Client(OwnedFd);

impl Client {
    fn connect(path: &Path) -> std::io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self(socket))
    }

    /// The next packet; `None` at the end of the connection.
    fn read(&self) -> Option<Json> {
        let mut answer = vec![0; crate::MAX_OUTPUT];
        let (len, _) = rustix::net::recv(&self.0, &mut answer[..], RecvFlags::empty()).ok()?;
        (len > 0).then(|| serde_json::from_slice(&answer[..len]).expect("JSON"))
    }

    fn send(&self, bytes: &[u8]) -> bool {
        rustix::net::send(&self.0, bytes, SendFlags::NOSIGNAL).is_ok()
    }

    /// Sends without waiting for room.
    fn push(&self, bytes: &[u8]) -> bool {
        rustix::net::send(&self.0, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).is_ok()
    }
}
