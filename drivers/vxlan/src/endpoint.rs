//! The sockets of an address and port, shared by all networks of the process that use them, and the receiving
//! thread.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use linecard_eal::eventfd::EventFd;
use linecard_mempool::Packet;
use linecard_pmd::args::DevArgs;
use linecard_pmd::error::Error;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg_addr, sockopt};

use crate::args::Options;
use crate::header;
use crate::tunnel::Tunnel;

/// The sending sockets, each with its own source port, and so the number of paths that flows to one host can
/// use.
const SENDERS: usize = 16;
/// The datagrams that are received between checks for the end.
const TURN: usize = 256;
/// The bytes that may wait in the kernel, or fewer if it allows fewer.
const BUFFER: usize = 4 << 20;
/// More than the bytes of any datagram.
const LONGEST: usize = 65_536;

/// Identifies an endpoint: a namespace (by its inode), an address and port, and the time to live of sent
/// packets.
type Key = (Option<u64>, SocketAddr, u8);

/// The endpoints of this process. Global, since a port belongs to a host, not to one of several switches in a
/// process.
static ENDPOINTS: Mutex<Vec<(Key, Weak<Endpoint>)>> = Mutex::new(Vec::new());

/// The state shared by the endpoint's thread and its handles.
struct EndpointState {
    socket: UdpSocket,
    tunnels: Mutex<HashMap<u32, Weak<Tunnel>>>,
    over: AtomicBool,
    ended: EventFd,
}

/// The sockets of an address and port. The thread ends when this is dropped.
pub(crate) struct Endpoint {
    senders: Vec<UdpSocket>,
    /// Randomly keyed, so that others cannot choose flows that all use one path.
    hasher: RandomState,
    port: u16,
    shared: Arc<EndpointState>,
}

impl Endpoint {
    /// Returns the endpoint for `options`, which other networks may already use.
    pub(crate) fn open(args: &DevArgs, options: &Options) -> Result<Arc<Self>, Error> {
        let inode = || std::fs::metadata("/proc/thread-self/ns/net").ok().map(|meta| meta.ino());
        let key: Key = (options.namespace.enter(args.name(), inode)?, options.local, options.ttl);
        let mut all = ENDPOINTS.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, endpoint)| endpoint.strong_count() > 0);
        if let Some(endpoint) =
            all.iter().find(|(of, _)| *of == key).and_then(|(_, endpoint)| endpoint.upgrade())
        {
            return Ok(endpoint);
        }
        let made = options.namespace.enter(args.name(), || Self::new(options))?;
        let endpoint = Arc::new(made.map_err(|error| {
            let own =
                all.iter().find(|(of, _)| error.kind() == io::ErrorKind::AddrInUse && overlap(of, &key));
            if let Some(((_, local, ttl), _)) = own {
                let problem = format!("another port of this process uses {local} with ttl={ttl}");
                let problem = format!("no socket at {} with ttl={}: {problem}", options.local, options.ttl);
                return args.problem(problem, "give both the same local=, port= and ttl=, or another port=");
            }
            let remedy = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "end the program that uses it (a kernel's vxlan device does), or give another port="
                }
                io::ErrorKind::AddrNotAvailable => "give an address of this host with local=",
                _ => "give another local= or port=",
            };
            args.problem(format!("no socket at {}: {error}", options.local), remedy)
        })?);
        all.push((key, Arc::downgrade(&endpoint)));
        Ok(endpoint)
    }

    fn new(options: &Options) -> io::Result<Self> {
        let socket = socket(options.local)?;
        let mut senders = Vec::new();
        for _ in 0..SENDERS {
            let sender = self::socket(SocketAddr::new(options.local.ip(), 0))?;
            if options.local.is_ipv4() {
                sockopt::set_ip_ttl(&sender, options.ttl.into())?;
                sockopt::set_ip_mtu_discover(&sender, sockopt::Ipv4PathMtuDiscovery::DO)?;
            } else {
                sockopt::set_ipv6_unicast_hops(&sender, Some(options.ttl))?;
                sockopt::set_ipv6_mtu_discover(&sender, sockopt::Ipv6PathMtuDiscovery::DO)?;
            }
            senders.push(sender);
        }
        let shared = Arc::new(EndpointState {
            socket,
            tunnels: Mutex::default(),
            over: AtomicBool::new(false),
            ended: EventFd::new()?,
        });
        let receiver = Arc::clone(&shared);
        std::thread::Builder::new().name("lc-vxlan".into()).spawn(move || receiver.run())?;
        Ok(Self { senders, hasher: RandomState::new(), port: options.local.port(), shared })
    }

    /// Registers `tunnel` for the frames of its network.
    pub(crate) fn add(&self, port: &str, vni: u32, tunnel: &Arc<Tunnel>) -> Result<(), Error> {
        let mut tunnels = self.shared.tunnels();
        if tunnels.get(&vni).is_some_and(|other| other.strong_count() > 0) {
            return Err(Error::Argument {
                device: port.to_owned(),
                problem: format!("this process is in network {vni} by another port already"),
                remedy: "give another vni=, local= or port=".into(),
            });
        }
        tunnels.insert(vni, Arc::downgrade(tunnel));
        Ok(())
    }

    pub(crate) fn remove(&self, vni: u32) {
        self.shared.tunnels().remove(&vni);
    }

    /// Sends one frame of a network to `host`.
    pub(crate) fn send(&self, header: &[u8], packet: &Packet, host: IpAddr) -> io::Result<()> {
        let flow = flow(packet.data());
        let sender = &self.senders[self.hasher.hash_one(flow) as usize % SENDERS];
        let mut pieces = vec![IoSlice::new(header)];
        pieces.extend(packet.segments().map(|segment| IoSlice::new(segment.data())));
        let to = SocketAddr::new(host, self.port);
        loop {
            let mut nothing = SendAncillaryBuffer::default();
            match sendmsg_addr(sender, &to, &pieces, &mut nothing, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
            {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        // Not joined: the thread holds only the socket, and closes it at once.
        self.shared.ended.signal();
    }
}

/// Returns whether the sockets of two endpoints exclude each other.
fn overlap((space, at, _): &Key, (other_space, other, _): &Key) -> bool {
    let any = at.ip().is_unspecified() || other.ip().is_unspecified();
    let same = at.port() == other.port() && at.is_ipv4() == other.is_ipv4();
    space == other_space && same && (any || at.ip() == other.ip())
}

/// Opens a non-blocking socket.
fn socket(at: SocketAddr) -> io::Result<UdpSocket> {
    let domain =
        if at.is_ipv4() { rustix::net::AddressFamily::INET } else { rustix::net::AddressFamily::INET6 };
    let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(domain, rustix::net::SocketType::DGRAM, flags, None)?;
    if at.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    // As much as the system allows.
    let _ = sockopt::set_socket_recv_buffer_size(&socket, BUFFER);
    let _ = sockopt::set_socket_send_buffer_size(&socket, BUFFER);
    rustix::net::bind(&socket, &at)?;
    Ok(UdpSocket::from(socket))
}

/// Returns the bytes that distinguish flows: Ethernet addresses and type, then IP addresses and ports if
/// present.
fn flow(frame: &[u8]) -> (&[u8], &[u8]) {
    let nothing = &frame[..0];
    let part = |range: std::ops::Range<usize>| frame.get(range).unwrap_or(nothing);
    let ethernet = part(0..14);
    let more = match part(12..14) {
        [0x08, 0x00] => {
            // A fragment has no ports, and all fragments of a packet use one path.
            let whole = part(20..22).iter().fold(0, |word, byte| word << 8 | u16::from(*byte)) & 0x3fff == 0;
            let ports = part(14..15) == [0x45] && matches!(part(23..24), [6 | 17 | 132]) && whole;
            part(26..if ports { 38 } else { 34 })
        }
        [0x86, 0xdd] => part(22..if matches!(part(20..21), [6 | 17 | 132]) { 58 } else { 54 }),
        _ => nothing,
    };
    (ethernet, more)
}

impl EndpointState {
    fn tunnels(&self) -> MutexGuard<'_, HashMap<u32, Weak<Tunnel>>> {
        self.tunnels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: receives datagrams and passes their frames to the networks, without waiting for any of
    /// them.
    fn run(&self) {
        let mut datagram = vec![0; LONGEST];
        while !self.over.load(Ordering::Acquire) {
            let mut set = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&self.ended, PollFlags::IN)];
            // Can only be interrupted.
            let _ = poll(&mut set, None);
            let now = Instant::now();
            for _ in 0..TURN {
                match self.socket.recv_from(&mut datagram) {
                    Ok((len, from)) => self.deal_out(datagram.get(..len).unwrap_or_default(), from.ip(), now),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // An error that the network reported about a sent packet.
                    Err(_) => {}
                }
            }
        }
    }

    fn deal_out(&self, datagram: &[u8], from: IpAddr, now: Instant) {
        let Some((vni, frame)) = header::read(datagram) else { return };
        let tunnel = self.tunnels().get(&vni).and_then(Weak::upgrade);
        if let Some(tunnel) = tunnel {
            tunnel.receive(frame, from, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_differ_by_what_tells_them_apart() {
        let mut tcp = [
            &[2; 12][..],
            &[8, 0, 0x45, 0],
            &[0; 7],
            &[6],
            &[0; 2],
            &[10, 0, 0, 1, 10, 0, 0, 2],
            &[0, 80, 1, 2],
            &[0; 20],
        ]
        .concat();
        let whole = tcp.clone();
        tcp[40] ^= 1;
        assert_eq!(flow(&tcp), flow(&whole), "not by what follows the ports");
        for byte in [0, 6, 26, 33, 35, 37] {
            let mut other = whole.clone();
            other[byte] ^= 1;
            assert_ne!(flow(&other), flow(&whole), "by byte {byte}");
        }
        let mut fragment = whole.clone();
        fragment[20] = 0x20;
        let mut other = fragment.clone();
        other[35] ^= 1;
        assert_eq!(flow(&fragment), flow(&other), "a fragment has no ports");
        for len in 0..whole.len() {
            let _ = flow(&whole[..len]);
        }
    }

    #[test]
    fn a_port_of_this_process_is_named_if_it_is_in_the_way() {
        let free =
            UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        let open = |text: &str| {
            let args = DevArgs::parse(&format!("net_vxlan0,vni=1,peers=any,port={free},{text}"));
            let args = args.expect("well formed");
            Options::read(&args).and_then(|options| Endpoint::open(&args, &options))
        };
        let _first = open("local=127.0.0.1,ttl=7").expect("a socket");
        open("local=127.0.0.1,ttl=7").expect("the same socket");
        open("local=127.0.0.2,ttl=8").expect("another address");
        for local in ["127.0.0.1", "0.0.0.0"] {
            let problem = open(&format!("local={local}")).err().expect("its address is in use").to_string();
            let want = format!(
                "net_vxlan0: no socket at {local}:{free} with ttl=64: another port of this process uses \
                 127.0.0.1:{free} with ttl=7; give both the same local=, port= and ttl=, or another port="
            );
            assert_eq!(problem, want);
        }
    }
}
