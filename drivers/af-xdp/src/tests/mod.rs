//! Ports on veth pairs and TAPs, each in a namespace of its own.

mod contract;
mod refused;
mod shared;
mod unprivileged;
mod user_namespace;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use linecard_eal::memory::{Memory, MemoryConfig};
use linecard_mempool::{Burst, Packet, Pool, PoolConfig};

use super::AfXdpDriver;
use linecard_lab::{Lab, wait_until};
use linecard_pmd::args::DevArgs;
use linecard_pmd::config::{PortConfig, configure};
use linecard_pmd::error::Error;
use linecard_pmd::port::{Device, Driver, Port, ProbeContext};

/// Memory for a test's ports.
fn context() -> ProbeContext {
    let memory = Memory::new(MemoryConfig::default()).expect("memory");
    let domain = memory.domain("packets").expect("a domain");
    ProbeContext::new(memory, domain, Duration::from_secs(1))
}

fn pool(context: &ProbeContext) -> Pool {
    let config = PoolConfig::default().packets(4096).cache(0);
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
    Lab::with_xdp(test)
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
        assert!(start.elapsed() < Duration::from_secs(60), "{} of {count} frames", all.len());
    }
    all
}

/// Sends all of `packets`.
fn send(port: &mut Port, packets: impl IntoIterator<Item = Packet>) {
    let mut burst = Burst::new();
    for packet in packets {
        burst.push(packet).expect("a burst at most");
    }
    wait_until("everything is sent", || {
        port.tx[0].tx_burst(&mut burst);
        burst.is_empty()
    });
}

/// What `ip -d link` says of XDP on an interface.
fn xdp_on(lab: &Lab, name: &str) -> bool {
    lab.ip(&format!("-d link show {name}")).contains("prog/xdp")
}

/// Waits till no program is left on an interface: a process that another test is just starting holds copies of all our
/// descriptors till it becomes another program, and so the program's, too.
fn expect_no_xdp(lab: &Lab, name: &str) {
    wait_until(&format!("no program is left behind on {name}"), || !xdp_on(lab, name));
}

fn xstat(port: &Port, name: &str) -> u64 {
    let all = port.control.xstats();
    all.iter()
        .find(|(known, _)| known == name)
        .map(|(_, value)| *value)
        .unwrap_or_else(|| panic!("no {name}"))
}
