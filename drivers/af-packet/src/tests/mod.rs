//! The driver over veth pairs in namespaces of the tests' own.

mod contract;
mod counters;
mod links;
mod metadata;
mod refusals;
mod user_namespace;

use std::time::{Duration, Instant};

use linecard_eal::memory::{Memory, MemoryConfig};
use linecard_mempool::{Burst, Packet, Pool, PoolConfig};

use super::AfPacketDriver;
use linecard_lab::{Cable, Lab, wait_until};
use linecard_pmd::args::DevArgs;
use linecard_pmd::config::{PortConfig, configure};
use linecard_pmd::error::Error;
use linecard_pmd::port::{Device, Driver, Port, ProbeContext};

/// The driver's argument for an end.
fn near_at(cable: &Cable, options: &str) -> String {
    cable.at_near("net_af_packet0", options)
}

fn far_at(cable: &Cable, options: &str) -> String {
    cable.at_far("net_af_packet1", options)
}

/// A pool and what a driver needs to probe.
struct Bench {
    context: ProbeContext,
    pool: Pool,
}

impl Bench {
    fn new() -> Self {
        let memory = Memory::new(MemoryConfig::default()).expect("memory");
        let domain = memory.domain("test").expect("a domain");
        let config = PoolConfig::default().packets(4096).cache(0);
        let pool = Pool::new(&domain, config).expect("a pool");
        Self { context: ProbeContext::new(memory, domain, Duration::from_secs(1)), pool }
    }

    fn probe(&self, text: &str) -> Result<Box<dyn Device>, Error> {
        AfPacketDriver.probe(&self.context, &DevArgs::parse(text)?)
    }

    fn start(&self, text: &str, config: PortConfig) -> Port {
        let device = self.probe(text).expect("the device is there");
        configure(device, config).and_then(|port| port.start(&self.pool)).expect("the port starts")
    }

    fn packet(&self, bytes: &[u8]) -> Packet {
        let mut packet = self.pool.get().expect("a packet");
        packet.copy_from_slice(bytes).expect("it fits");
        packet
    }

    /// Sends frames, all of them.
    fn send(&self, port: &mut Port, frames: &[Vec<u8>]) {
        let (mut burst, mut next) = (Burst::new(), 0);
        wait_until("all are sent", || {
            while next < frames.len() && burst.room() > 0 {
                burst.push(self.packet(&frames[next])).expect("room");
                next += 1;
            }
            port.tx[0].tx_burst(&mut burst);
            burst.is_empty() && next == frames.len()
        });
    }

    /// Every packet is home.
    fn finish(self) {
        assert_eq!(self.pool.stats().in_use, 0, "no packet is lost");
    }
}

/// A frame with our EtherType, different for every number.
fn frame(number: usize, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|i| (i * 7 + number) as u8).collect();
    bytes[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5]);
    bytes
}

fn bytes(packet: &Packet) -> Vec<u8> {
    packet.segments().flat_map(|segment| segment.data().iter().copied()).collect()
}

/// Packets from a queue until there are `count` or nothing has come for a while.
fn receive(port: &mut Port, queue: usize, count: usize) -> Vec<Packet> {
    let (mut got, mut last) = (Vec::new(), Instant::now());
    while got.len() < count {
        // Before the burst, so that one follows however long this thread does not run.
        let now = Instant::now();
        let mut burst = Burst::new();
        if port.rx[queue].rx_burst(&mut burst) > 0 {
            last = now;
        } else if now.duration_since(last) > Duration::from_secs(1) {
            break;
        }
        got.extend(burst.drain(..usize::MAX));
    }
    got
}

/// No packet socket is in the namespace. A program that is just being started holds all our descriptors for a moment.
fn nothing_left(lab: &Lab) {
    let table = || std::fs::read_to_string("/proc/thread-self/net/packet").expect("a table");
    wait_until("no packet socket is left", || lab.run(table).lines().count() == 1);
}

fn xstat(port: &Port, name: &str) -> u64 {
    let all = port.control.xstats();
    all.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("{name} is counted")).1
}
