//! `net_vxlan`: Ethernet frames to other hosts in UDP (VXLAN, RFC 7348).
//!
//! ```text
//!   tx queue ── station? ── remote ──► one of 16 sockets, chosen by the flow ──► kernel: UDP, IP, routes, neighbours
//!               └ unknown, or a group: every remote
//!   rx queue ◄── frames of one VNI ◄── the endpoint's thread ◄── socket of port 4789
//! ```
//! `net_vxlan0,vni=100,remote=[192.0.2.2,192.0.2.3]` is network 100, shared with those hosts. They may run
//! the kernel's `vxlan` devices, OVS or this driver. Packets use the kernel's UDP sockets, so its routes,
//! neighbours and firewall apply, and no privileges are needed. This is simple, but slower than sending them
//! directly.
//!
//! | argument | meaning | default |
//! |---|---|---|
//! | `vni` | number of the network, 1 to 16777215 | required |
//! | `remote` | other hosts, several in brackets; each gets broadcasts and unknown stations' frames | none |
//! | `local` | address of this host | any |
//! | `port` | UDP port, local and remote | 4789 |
//! | `ttl` | time to live of the packets | 64 |
//! | `learn` | `1`: learn the host of each station | 1 |
//! | `peers` | accepted senders: `remotes`, or `any`, as the kernel's device does | `remotes` |
//! | `netns` | network namespace of the sockets | this process's |
//!
//! Networks of one process with the same address, port and `ttl` share sockets. The source port of a packet
//! is derived from the addresses and ports of its frame, as RFC 7348 recommends, so that routers can
//! distribute flows. Packets are not fragmented: those that exceed the path's MTU are dropped and counted as
//! `too_long`. Give the port an MTU of 1450 if the path has 1500 (1430 with IPv6).
//!
//! Not supported: multicast groups as remotes; list the remotes instead.
#![forbid(unsafe_code)]

mod args;
mod endpoint;
mod header;
mod queues;
mod stations;
/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

#[cfg(test)]
mod tests;
mod tunnel;

use std::net::IpAddr;
use std::sync::Arc;

use linecard_mempool::Pool;
use linecard_pmd::args::DevArgs;
use linecard_pmd::config::{PortConfig, StartError};
use linecard_pmd::error::Error;
use linecard_pmd::local::{Identity, LocalControl};
use linecard_pmd::port::{Device, DeviceInfo, Driver, Port, ProbeContext, Running, RxQueue, TxQueue};
use linecard_pmd::stats::PortCounters;

use self::args::Options;
use self::endpoint::Endpoint;
use self::queues::{Rx, RxLoss, Tx, TxLoss};
use self::tunnel::Tunnel;

const DRIVER: &str = "net_vxlan";
/// The most frames that may wait to be received.
const DEPTH: u16 = 1024;
/// The largest inner packet: a UDP datagram without the VXLAN header and the frame's.
const MAX_MTU: u16 = u16::MAX - 20 - 8 - header::LEN as u16 - 14;

/// The driver of `net_vxlan` devices.
///
/// ```
/// use linecard_net_vxlan::VxlanDriver;
/// use linecard_pmd::Driver;
/// assert_eq!((VxlanDriver.name(), VxlanDriver.keeps_packets()), ("net_vxlan", false));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct VxlanDriver;

impl Driver for VxlanDriver {
    fn name(&self) -> &'static str {
        DRIVER
    }

    fn keeps_packets(&self) -> bool {
        false
    }

    fn summary(&self) -> &'static str {
        "frames to other hosts in UDP (RFC 7348): vni=N, remote=IP|[IP,...], local=IP, port=4789, ttl=64, learn=0|1, \
         peers=remotes|any, netns=NAME|/path"
    }

    fn check_args(&self, args: &DevArgs) -> Result<(), Error> {
        // The arguments are valid whether or not the namespace exists.
        Options::read(&args.clone().without("netns")).map(drop)
    }

    fn probe(&self, _: &ProbeContext, args: &DevArgs) -> Result<Box<dyn Device>, Error> {
        let options = Options::read(args)?;
        let endpoint = Endpoint::open(args, &options)?;
        let mtu = options.path_mtu(args.name())?;
        Ok(Box::new(Vxlan { name: args.name().to_owned(), options, endpoint, mtu }))
    }
}

struct Vxlan {
    name: String,
    options: Options,
    endpoint: Arc<Endpoint>,
    /// The MTU that fits the paths to all remotes.
    mtu: u16,
}

impl Device for Vxlan {
    fn name(&self) -> &str {
        &self.name
    }

    fn info(&self) -> DeviceInfo {
        DeviceInfo::new(DRIVER, Identity::address_for(&self.name))
            .depth(1..=DEPTH)
            .default_depth(DEPTH)
            .mtu(68..=MAX_MTU)
    }

    fn start(self: Box<Self>, config: &PortConfig, pool: &Pool) -> Result<Port, StartError> {
        let depth = if config.rx_depth == 0 { DEPTH } else { config.rx_depth };
        let tunnel = Arc::new(Tunnel::new(&self.options, pool, depth));
        if let Err(error) = self.endpoint.add(&self.name, self.options.vni, &tunnel) {
            return Err(StartError { device: self, error });
        }
        let counters = PortCounters::<RxLoss, TxLoss>::new(config.rx_queues, config.tx_queues);
        let rx: Vec<Box<dyn RxQueue>> = vec![Box::new(Rx::new(Arc::clone(&tunnel), counters.rx(0)))];
        let tx: Vec<Box<dyn TxQueue>> =
            vec![Box::new(Tx::new(Arc::clone(&self.endpoint), Arc::clone(&tunnel), pool, counters.tx(0)))];
        let identity = Identity::new(&self.name, self.info().mac, config.mtu);
        if config.mtu > self.mtu {
            // The path's MTU may change; packets that do not fit are counted when they are sent.
            tracing::warn!(
                "{}: an MTU of {} is more than the {} bytes that fit the path to the remotes now; longer packets are lost",
                self.name,
                config.mtu,
                self.mtu
            );
        }
        let paths = format!("rx udp, tx udp, path mtu {}", self.mtu);
        let control = Arc::new(LocalControl::new(identity, counters).with_paths(paths));
        Ok(Port { rx, tx, control, running: Box::new(Started { device: self, _tunnel: tunnel }) })
    }
}

/// A started device. The endpoint knows its tunnel while this exists.
struct Started {
    device: Box<Vxlan>,
    _tunnel: Arc<Tunnel>,
}

impl Running for Started {
    fn stop(self: Box<Self>, rx: Vec<Box<dyn RxQueue>>, tx: Vec<Box<dyn TxQueue>>) -> Box<dyn Device> {
        drop((rx, tx));
        let Self { device, .. } = *self;
        device.endpoint.remove(device.options.vni);
        device
    }
}

/// Returns the bytes besides an inner packet: its Ethernet header, and the VXLAN, UDP and IP headers.
const fn overhead(remote: IpAddr) -> u16 {
    let ip = if remote.is_ipv4() { 20 } else { 40 };
    ip + 8 + header::LEN as u16 + 14
}
