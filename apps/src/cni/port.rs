//! The port of a container, opened for `ping` and `answer`.

use std::net::Ipv4Addr;

use clap::Args;
use linecard::container::ContainerPort;
use linecard::eal::{Eal, EalArgs};
use linecard::mempool::{Pool, PoolConfig};
use linecard::net::MacAddr;
use linecard::pmd::Port;
use linecard::pmd::contain::contain;

use crate::error::Error;

/// Which port, and who it is.
#[derive(Args)]
pub(super) struct PortArgs {
    /// The port's name in this container
    #[arg(default_value = "net1")]
    name: String,
    /// Its IPv4 address, where nothing in the container tells it
    #[arg(long)]
    ip: Option<Ipv4Addr>,
}

/// An open port.
pub(super) struct Opened {
    pub(super) port: Port,
    pub(super) pool: Pool,
    pub(super) mac: MacAddr,
    pub(super) ip: [u8; 4],
}

const PACKETS: u32 = 4096;
/// Megabytes of packet memory: enough for the packets with any page size.
const MEGABYTES: &str = "64";

impl PortArgs {
    pub(super) fn open(&self) -> Result<Opened, Error> {
        linecard_apps_common::log::start(&EalArgs::default(), "error")?;
        let (args, _) = EalArgs::parse(["-m", MEGABYTES])?;
        let eal = Eal::new(&args)?;
        let config = PoolConfig::default().name("cni").packets(PACKETS);
        let pool = Pool::new(&eal.default_domain(), config)?;
        let given = ContainerPort::find(&self.name)?;
        let ip = self.ip.map(|ip| ip.octets()).or(given.ipv4().map(|(ip, _)| ip));
        let ip = ip.ok_or_else(|| {
            let name = &self.name;
            Error::Usage(format!("nothing tells the IPv4 address of the port {name}; give it by --ip"))
        })?;
        let port = contain(linecard::open(&eal, &pool, &given.device(0))?);
        let mac = MacAddr(port.control.mac());
        Ok(Opened { port, pool, mac, ip })
    }
}
