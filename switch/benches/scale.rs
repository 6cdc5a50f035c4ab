//! What the switch's own work costs by the number of ports and stations, for counting instructions and cache lines per packet.
//!
//! `cargo xtask scale` runs it under callgrind, once for each function of `measured`, and prints a table.
#![forbid(unsafe_code)]

use std::error::Error;
use std::time::Duration;

use linecard_eal::{Eal, EalArgs};
use linecard_mempool::{Burst, Pool, PoolConfig};
use linecard_net_ring::RingDriver;
use linecard_pmd::{PortConfig, ProbeContext, Registry, configure};
use linecard_switch::fdb::{LearningPort, Station, Table};
use linecard_switch::forwarder::Forwarder;

const BURST: usize = 32;
/// Bursts that are counted, after as many to warm up.
const ROUNDS: usize = 512;
/// Bytes of a frame.
const LEN: usize = 64;

/// Never inlined: callgrind counts between their calls and returns. Each names itself, because functions of equal code become
/// one.
mod measured {
    use std::hint::black_box;

    use linecard_mempool::Burst;
    use linecard_switch::fdb::{LearningPort, Station, Table};
    use linecard_switch::forwarder::Forwarder;

    #[inline(never)]
    pub(crate) fn find(table: &Table, stations: &[Station]) {
        black_box("find");
        for station in stations {
            black_box(table.find(*station));
        }
    }

    #[inline(never)]
    pub(crate) fn learn(table: &Table, stations: &[(Station, LearningPort)]) {
        black_box("learn");
        for (station, behind) in stations {
            black_box(table.learn(*station, *behind));
        }
    }

    #[inline(never)]
    pub(crate) fn forward(switch: &mut Forwarder, port: u16, packets: &mut Burst) {
        black_box("forward");
        switch.forward(port, packets);
    }

    #[inline(never)]
    pub(crate) fn flood(switch: &mut Forwarder, port: u16, packets: &mut Burst) {
        black_box("flood");
        switch.forward(port, packets);
    }

    /// What every packet costs that is dropped.
    #[inline(never)]
    pub(crate) fn drop_burst(packets: &mut Burst) {
        black_box("drop_burst");
        packets.clear();
    }

    #[inline(never)]
    pub(crate) fn poll(switch: &mut Forwarder, packets: &mut Burst) {
        black_box("poll");
        assert_eq!(switch.poll(packets), 0, "the queues are empty");
    }
}

/// Numbers that look random, the same in every run (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (((self.0 >> 32) * u64::from(limit)) >> 32) as u32
    }
}

/// What is forwarded, and where.
struct Scene {
    switch: Forwarder,
    pool: Pool,
    random: Random,
    ports: u16,
    stations: u32,
    /// Ports that have stations.
    used: u32,
}

impl Scene {
    fn new(pool: Pool, ports: u16, stations: u32) -> Result<Self, Box<dyn Error>> {
        let switch = Forwarder::new(ports, stations)?;
        let used = stations.min(ports.into());
        Ok(Self { switch, pool, random: Random(0x9e37_79b9_7f4a_7c15), ports, stations, used })
    }

    /// Any station behind `port`.
    fn behind(&mut self, port: u32) -> u32 {
        let count = (self.stations - port).div_ceil(u32::from(self.ports));
        port + self.random.below(count) * u32::from(self.ports)
    }

    /// A burst from some port: of one flow, or each packet between stations of its own. `to_all` has them sent to everybody.
    fn burst(&mut self, one_flow: bool, to_all: bool) -> Result<(u16, Burst), Box<dyn Error>> {
        let port = self.random.below(self.used);
        let (mut burst, mut pair) = (Burst::new(), None);
        while burst.len() < BURST {
            let (from, to) = match pair.filter(|_| one_flow) {
                Some(pair) => pair,
                None => {
                    // Another port's.
                    let other = (port + 1 + self.random.below(self.used - 1)) % self.used;
                    (self.behind(port), self.behind(other))
                }
            };
            pair = Some((from, to));
            let to = if to_all { [0xff; 6] } else { Forwarder::address(to).0 };
            let frame = [&to[..], &Forwarder::address(from).0, &[0x88, 0xb5], &[0; LEN - 14]].concat();
            let mut packet = self.pool.get().ok_or("the pool has packets")?;
            packet.copy_from_slice(&frame).expect("a packet has room");
            burst.push(packet).map_err(|_| "a burst has room for 32 packets")?;
        }
        Ok((port as u16, burst))
    }

    fn tables(&mut self) {
        for counted in [false, true] {
            for _ in 0..ROUNDS {
                let numbers: Vec<u32> = (0..BURST).map(|_| self.random.below(self.stations)).collect();
                let stations: Vec<Station> =
                    numbers.iter().map(|number| Forwarder::station(*number)).collect();
                let port = |number: u32| (number % u32::from(self.ports)) as u16;
                let behind = |number: u32| LearningPort { port: port(number), limit: u32::MAX, fixed: false };
                let from: Vec<_> =
                    numbers.iter().map(|number| (Forwarder::station(*number), behind(*number))).collect();
                let table: &Table = self.switch.table();
                if counted {
                    measured::find(table, &stations);
                    measured::learn(table, &from);
                } else {
                    for (station, behind) in &from {
                        _ = (table.find(*station), table.learn(*station, *behind));
                    }
                }
            }
        }
    }

    fn forward(&mut self, one_flow: bool) -> Result<(), Box<dyn Error>> {
        for counted in [false, true] {
            for _ in 0..ROUNDS {
                let (port, mut burst) = self.burst(one_flow, false)?;
                let (_, mut other) = self.burst(one_flow, false)?;
                if counted {
                    measured::forward(&mut self.switch, port, &mut burst);
                    measured::drop_burst(&mut other);
                } else {
                    self.switch.forward(port, &mut burst);
                }
                assert!(burst.is_empty(), "every burst goes whole");
            }
        }
        Ok(())
    }

    fn flood(&mut self) -> Result<(), Box<dyn Error>> {
        for counted in [false, true] {
            for _ in 0..8 {
                let (port, mut burst) = self.burst(false, true)?;
                match counted {
                    true => measured::flood(&mut self.switch, port, &mut burst),
                    false => self.switch.forward(port, &mut burst),
                }
            }
        }
        Ok(())
    }

    /// Empty queues of every port, `net_ring`'s.
    fn poll(&mut self, context: &ProbeContext) -> Result<(), Box<dyn Error>> {
        let drivers = Registry::new(&[&RingDriver]);
        for port in 0..self.ports {
            let device = drivers.probe(context, &format!("net_ring{port},nodeaction=n{port}:0:CREATE"))?;
            let started =
                configure(device, PortConfig::default()).and_then(|device| device.start(&self.pool));
            let mut started = started.map_err(|refused| refused.error.to_string())?;
            self.switch.add_queue(port, started.rx.remove(0));
            // The ring lives on with its queue.
            std::mem::forget(started);
        }
        let mut burst = Burst::new();
        for counted in [false, true] {
            for _ in 0..ROUNDS {
                match counted {
                    true => measured::poll(&mut self.switch, &mut burst),
                    false => assert_eq!(self.switch.poll(&mut burst), 0, "the queues are empty"),
                }
            }
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo bench` passes `--bench`.
    let words: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [what, ports, stations] = words.as_slice() else {
        println!("a trace for `cargo xtask scale`: table|flow|mixed|flood|poll PORTS STATIONS");
        return Ok(());
    };
    // A burst to a thousand ports is as many references, each of a packet of its own.
    let (memory, packets) = if what == "flood" { ("512", 98_304) } else { ("32", 4096) };
    let (args, _) = EalArgs::parse(["--no-huge", "-m", memory])?;
    let eal = Eal::new(&args)?;
    let domain = eal.default_domain();
    let pool = Pool::new(&domain, PoolConfig::default().packets(packets))?;
    let context = ProbeContext::new(eal.memory().clone(), domain, Duration::from_secs(1));
    let mut scene = Scene::new(pool, ports.parse()?, stations.parse()?)?;
    match what.as_str() {
        "table" => scene.tables(),
        "flow" | "mixed" => scene.forward(what == "flow")?,
        "flood" => scene.flood()?,
        "poll" => scene.poll(&context)?,
        other => return Err(format!("'{other}' is not one of table, flow, mixed, flood, poll").into()),
    }
    Ok(())
}
