//! The device arguments.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use linecard_netdev::Namespace;
use linecard_pmd::args::DevArgs;
use linecard_pmd::error::Error;
use rustix::net::sockopt;

use crate::{MAX_MTU, overhead};

/// The port assigned by IANA.
const PORT: u16 = 4789;
/// The most remotes: a broadcast frame is sent to each.
const MAX_REMOTES: usize = 256;
/// The assumed MTU of a path without a route.
const USUAL_MTU: u32 = 1500;

/// The requested options.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) vni: u32,
    pub(crate) remotes: Vec<IpAddr>,
    pub(crate) local: SocketAddr,
    pub(crate) ttl: u8,
    pub(crate) learn: bool,
    /// Whether packets from hosts other than the remotes are accepted.
    pub(crate) any_peer: bool,
    pub(crate) namespace: Namespace,
}

impl Options {
    pub(crate) fn read(args: &DevArgs) -> Result<Self, Error> {
        let vni = args.required("vni").and_then(|_| args.number("vni", 1..=0x00ff_ffff_u32))?;
        let remotes = remotes(args)?;
        let local: Option<IpAddr> = address(args, "local")?;
        let port = args.number("port", 1..=u16::MAX)?.unwrap_or(PORT);
        let ttl = args.number("ttl", 1..=u8::MAX)?.unwrap_or(64);
        let learn = args.flag("learn")?.unwrap_or(true);
        let any_peer = match args.value("peers") {
            None | Some("remotes") => false,
            Some("any") => true,
            Some(other) => {
                return Err(
                    args.problem(format!("peers={other} cannot be used"), "write peers=remotes or peers=any")
                );
            }
        };
        let namespace = Namespace::of(args)?;
        args.finish()?;
        let first = local.or(remotes.first().copied());
        let six = first.is_some_and(|address| address.is_ipv6());
        if let Some(odd) = remotes.iter().find(|remote| remote.is_ipv6() != six) {
            let problem = format!("{odd} is not of the same kind as the other addresses");
            return Err(args.problem(problem, "give addresses that are all IPv4, or all IPv6"));
        }
        if remotes.is_empty() && !any_peer {
            let problem = "there is nobody to exchange frames with";
            return Err(
                args.problem(problem, "add remote=IP, or peers=any to take frames from whoever sends them")
            );
        }
        let any = if six { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let local = SocketAddr::new(local.unwrap_or(any), port);
        Ok(Self { vni: vni.unwrap_or(1), remotes, local, ttl, learn, any_peer, namespace })
    }

    /// Returns the largest packet whose frame fits the paths to all remotes.
    pub(crate) fn path_mtu(&self, port: &str) -> Result<u16, Error> {
        let paths = || self.remotes.iter().map(|remote| self.mtu_to(*remote)).min();
        let least = self.namespace.enter(port, paths)?;
        let least = least.unwrap_or(USUAL_MTU - u32::from(overhead(self.local.ip())));
        Ok(u16::try_from(least).unwrap_or(MAX_MTU).clamp(68, MAX_MTU))
    }

    fn mtu_to(&self, remote: IpAddr) -> u32 {
        let path = || -> std::io::Result<u32> {
            let socket = UdpSocket::bind(SocketAddr::new(self.local.ip(), 0))?;
            socket.connect(SocketAddr::new(remote, self.local.port()))?;
            Ok(if remote.is_ipv4() { sockopt::ip_mtu(&socket)? } else { sockopt::ipv6_mtu(&socket)? })
        };
        path().unwrap_or(USUAL_MTU).saturating_sub(overhead(remote).into())
    }
}

fn address(args: &DevArgs, key: &'static str) -> Result<Option<IpAddr>, Error> {
    let Some(text) = args.value(key) else { return Ok(None) };
    match text.parse() {
        Ok(address) => Ok(Some(address)),
        Err(_) => {
            Err(args.problem(format!("{key}={text} is no IP address"), format!("write {key}=192.0.2.1")))
        }
    }
}

fn remotes(args: &DevArgs) -> Result<Vec<IpAddr>, Error> {
    let mut remotes = Vec::new();
    for text in args.value("remote").unwrap_or_default().split(',').filter(|text| !text.is_empty()) {
        let unusable = |address: &IpAddr| {
            address.is_unspecified() || address.is_multicast() || text == "255.255.255.255"
        };
        let Some(remote) = text.parse().ok().filter(|address| !unusable(address)) else {
            let problem = format!("remote={text} is not the address of a host");
            return Err(args.problem(problem, "write remote=192.0.2.1, or remote=[192.0.2.1,192.0.2.2]"));
        };
        if !remotes.contains(&remote) {
            remotes.push(remote);
        }
    }
    if remotes.len() > MAX_REMOTES {
        let problem = format!("{} remotes are too many", remotes.len());
        return Err(args.problem(problem, format!("give at most {MAX_REMOTES}")));
    }
    Ok(remotes)
}
