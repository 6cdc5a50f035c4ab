//! Ports on veth pairs and TAPs, each in a namespace of its own.

mod contract;
mod refused;
mod shared;
mod unprivileged;

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use linecard_eal::memory::{Memory, MemoryConfig};
use linecard_mempool::{Burst, Packet, Pool, PoolConfig};

use super::AfXdpDriver;
use crate::args::DevArgs;
use crate::config::{PortConfig, configure};
use crate::error::Error;
use crate::netdev::lab::{self, Lab};
use crate::port::{Device, Driver, Port, ProbeContext};

/// Memory for a test's ports.
fn context() -> ProbeContext {
    let memory = Memory::new(MemoryConfig::default()).expect("memory");
    let domain = memory.domain("packets").expect("a domain");
    ProbeContext { memory, domain, wait: Duration::from_secs(1) }
}

fn pool(context: &ProbeContext) -> Pool {
    let config = PoolConfig { packets: 4096, cache: 0, ..PoolConfig::default() };
    Pool::new(&context.domain, config).expect("a pool")
}

fn probe(context: &ProbeContext, text: &str) -> Result<Box<dyn Device>, Error> {
    AfXdpDriver.probe(context, &DevArgs::parse(text).expect("well formed"))
}

fn start(context: &ProbeContext, text: &str, pool: &Pool) -> Result<Port, Error> {
    let device = probe(context, text)?;
    Ok(configure(device, PortConfig::default())?.start(pool)?)
}

/// A namespace for `test` where XDP sockets work; `None`, loudly, without.
fn lab(test: &str) -> Option<Lab> {
    let lab = Lab::new(test)?;
    match lab.run(super::socket::Socket::open) {
        Ok(_) => Some(lab),
        Err(error) => {
            lab::skip(test, &format!("no XDP socket ({error}); it needs root and CONFIG_XDP_SOCKETS"));
            None
        }
    }
}

/// A veth pair `near` and `far` with two queues each, both up.
fn veth(lab: &Lab) {
    let queues = "numrxqueues 2 numtxqueues 2";
    lab.ip(&format!("link add near {queues} type veth peer name far {queues}"));
    for name in ["near", "far"] {
        lab.ip(&format!("link set {name} addrgenmode none"));
        lab.ip(&format!("link set {name} up"));
    }
}

/// A packet socket on an interface: what is written goes out of it, what comes in is read. Does not block.
fn packet_socket(lab: &Lab, name: &str) -> File {
    let index = lab.interface(name).index();
    lab.run(|| {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let all = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: takes integers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, i32::from(all)) };
        assert!(fd >= 0, "a packet socket: {}", std::io::Error::last_os_error());
        // SAFETY: new, and nobody else knows it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: all,
            sll_ifindex: index.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let len = size_of_val(&address) as libc::socklen_t;
        // SAFETY: reads `len` bytes of `address`, which lives across the call.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
        assert_eq!(bound, 0, "bound: {}", std::io::Error::last_os_error());
        let bytes = 16_i32 << 20;
        for option in [libc::SO_RCVBUFFORCE, libc::SO_SNDBUFFORCE] {
            // SAFETY: reads four bytes of `bytes`, which lives across the call.
            unsafe {
                libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const bytes).cast(), 4)
            };
        }
        File::from(socket)
    })
}

/// A TAP, up, and what a program reads and writes of it.
fn tap(lab: &Lab, name: &str) -> File {
    let file = lab.run(|| {
        let mut file = File::options();
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut file, libc::O_NONBLOCK);
        let file = file.read(true).write(true).open("/dev/net/tun").expect("/dev/net/tun");
        // SAFETY: an `ifreq` of zeros is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: reads and writes `request`, which lives across the call.
        let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        assert_eq!(made, 0, "a TAP: {}", std::io::Error::last_os_error());
        file
    });
    lab.ip(&format!("link set {name} addrgenmode none"));
    lab.ip(&format!("link set {name} txqueuelen 4096"));
    lab.ip(&format!("link set {name} up"));
    file
}

/// A frame of `len` bytes that starts with `mark`.
fn frame(pool: &Pool, mark: u8, len: usize) -> Packet {
    let mut packet = pool.get().expect("a packet");
    let bytes = packet.append(len).expect("room");
    bytes.fill(mark);
    bytes[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5]);
    packet
}

/// Polls `port` until `count` frames of ours have come.
fn receive(port: &mut Port, count: usize) -> Vec<Packet> {
    let (start, mut all) = (Instant::now(), Vec::new());
    while all.len() < count {
        let mut burst = Burst::new();
        port.tx[0].reclaim();
        port.rx[0].rx_burst(&mut burst);
        all.extend(burst.drain(..64).filter(|packet| packet.data().get(12..14) == Some(&[0x88, 0xb5])));
        assert!(start.elapsed() < Duration::from_secs(5), "{} of {count} frames", all.len());
    }
    all
}

/// Sends all of `packets`.
fn send(port: &mut Port, packets: impl IntoIterator<Item = Packet>) {
    let mut burst = Burst::new();
    for packet in packets {
        burst.push(packet).expect("a burst at most");
    }
    let start = Instant::now();
    while !burst.is_empty() {
        port.tx[0].tx_burst(&mut burst);
        assert!(start.elapsed() < Duration::from_secs(5), "sending");
    }
}

/// What `ip -d link` says of XDP on an interface.
fn xdp_on(lab: &Lab, name: &str) -> bool {
    lab.ip(&format!("-d link show {name}")).contains("prog/xdp")
}

/// Waits till no program is left on an interface: a process that another test is just starting holds copies of all our
/// descriptors till it becomes another program, and so the program's, too.
fn expect_no_xdp(lab: &Lab, name: &str) {
    let until = Instant::now() + Duration::from_secs(5);
    while xdp_on(lab, name) {
        assert!(Instant::now() < until, "a program is left behind on {name}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn xstat(port: &Port, name: &str) -> u64 {
    let all = port.control.xstats();
    all.iter()
        .find(|(known, _)| known == name)
        .map(|(_, value)| *value)
        .unwrap_or_else(|| panic!("no {name}"))
}
