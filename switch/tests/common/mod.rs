//! A switch whose ports are rings in this process, with the test at their other ends.

use std::time::{Duration, Instant};

use linecard_eal::{Eal, EalArgs, Lcore, LcoreId};
use linecard_mempool::{Burst, Packet, Pool, PoolConfig};
use linecard_net_ring::RingDriver;
use linecard_pmd::{Port, PortConfig, ProbeContext, Registry, configure};
use linecard_switch::api::{PortInfo, PortKind, PortSpec};
use linecard_switch::{Switch, SwitchConfig};
use serde_json::{Value, json};

/// A switch, and the other ends of its ports by number.
pub(crate) struct Bed {
    // The switch ends before the memory it uses.
    pub(crate) switch: Switch,
    pub(crate) captures: linecard_capture::Hub,
    ends: Vec<Port>,
    sent: Vec<u64>,
    pool: Pool,
    _eal: Eal,
}

fn keys(number: usize) -> String {
    format!("p{number}")
}

impl Bed {
    /// A port for each of `specs`, which are what `port.add` takes beside key and type.
    pub(crate) fn new(workers: usize, specs: &[Value]) -> Self {
        Self::answering(workers, specs, false)
    }

    /// As [`new`](Self::new), with a switch that answers for configured neighbours.
    pub(crate) fn answering(workers: usize, specs: &[Value], neigh_suppress: bool) -> Self {
        let (args, _) = EalArgs::parse(["--no-huge", "-m", "256"]).expect("arguments");
        let eal = Eal::new(&args).expect("a machine");
        let domain = eal.default_domain();
        let pool = Pool::new(&domain, PoolConfig::default().packets(8192)).expect("a pool");
        let context = ProbeContext::new(eal.memory().clone(), domain, Duration::from_secs(1));
        let drivers = Registry::new(&[&RingDriver]);
        let cores = eal.lcores().main().cores.clone();
        let lcore = |id| Lcore { id: LcoreId(id), cores: cores.clone() };
        let captures = linecard_capture::Hub::new();
        let lcores = (0..workers as u32).map(lcore).collect();
        let config = SwitchConfig::new(drivers.clone(), context.clone(), pool.clone(), lcores)
            .captures(captures.clone())
            .addresses(1000)
            .age_seconds(1)
            .neigh_suppress(neigh_suppress);
        let switch = Switch::start(config).expect("a switch");
        let mut bed =
            Self { switch, captures, ends: Vec::new(), sent: vec![0; specs.len()], pool, _eal: eal };
        for (number, spec) in specs.iter().enumerate() {
            let device = format!("net_ring{number},nodeaction=n{number}:0:CREATE");
            bed.switch.add(&read(number, &device, spec), None).expect("a port");
            let other = format!("net_ring{},nodeaction=n{number}:0:ATTACH", number + 100);
            let device = drivers.probe(&context, &other).expect("the other end");
            let queues = spec["queues"].as_u64().unwrap_or(1) as u16;
            let config = PortConfig::default().rx_queues(queues).tx_queues(queues);
            bed.ends.push(configure(device, config).expect("it fits").start(&bed.pool).expect("it starts"));
        }
        // The ports have their other ends by now.
        bed.switch.look_after();
        bed
    }

    pub(crate) fn info(&self, number: usize) -> PortInfo {
        self.switch.show(&keys(number)).expect("it is there")
    }

    /// Sends frames into a port, as its station would, by one of its queues.
    pub(crate) fn send_by(&mut self, number: usize, queue: usize, frames: &[Vec<u8>]) {
        for frame in frames {
            let mut burst = Burst::new();
            burst.push(self.packet(frame)).expect("room");
            let until = deadline();
            while self.ends[number].tx[queue].tx_burst(&mut burst) == 0 {
                assert!(Instant::now() < until, "port {number} takes no frames");
                std::thread::yield_now();
            }
            self.sent[number] += 1;
        }
    }

    /// A frame in as many buffers as it needs.
    fn packet(&self, frame: &[u8]) -> Packet {
        self.pool.packet_of(frame, usize::from(self.pool.data_room())).expect("packets")
    }

    pub(crate) fn send(&mut self, number: usize, frames: &[Vec<u8>]) {
        self.send_by(number, 0, frames);
    }

    /// Waits until all that was sent was dealt with.
    pub(crate) fn settle(&self) {
        self.settle_by(3);
    }

    /// As [`settle`](Self::settle), where transmit queues go to other workers meanwhile: who has none any more passes on what was left to it.
    #[allow(dead_code, reason = "few tests move queues")]
    pub(crate) fn settle_moved(&self) {
        self.settle_by(5);
    }

    fn settle_by(&self, answers: u32) {
        let until = deadline();
        for (number, sent) in self.sent.iter().enumerate() {
            // What went has nothing to deal with.
            let behind =
                || self.switch.show(&keys(number)).is_ok_and(|port| port.counters.rx_packets < *sent);
            while behind() {
                assert!(Instant::now() < until, "port {number} was sent {sent} frames");
                std::thread::yield_now();
            }
        }
        // A worker answers at the beginning of a round. So after one answer of each, frames have left the worker that received
        // them; after another, a worker that has to pass them on has begun a round with them; after a third it has ended it. One more
        // worker on the way takes two more.
        for _ in 0..answers {
            let spec = PortSpec::new("barrier", PortKind::Vdev { device: "net_ring999".into() });
            self.switch.add(&spec, None).expect("a port more");
            assert!(self.switch.remove("barrier").expect("it goes"));
        }
    }

    /// What came out of a port since it was asked last.
    pub(crate) fn received(&mut self, number: usize) -> Vec<Vec<u8>> {
        let (mut frames, mut burst) = (Vec::new(), Burst::new());
        for queue in &mut self.ends[number].rx {
            while queue.rx_burst(&mut burst) > 0 {
                frames.extend(burst.iter().map(|packet| packet.to_bytes().to_vec()));
                burst.clear();
            }
        }
        frames
    }

    /// Sends one frame, and says which ports it came out of.
    pub(crate) fn reach(&mut self, from: usize, frame: &[u8]) -> Vec<usize> {
        self.send(from, &[frame.to_vec()]);
        self.settle();
        (0..self.ends.len()).filter(|number| !self.received(*number).is_empty()).collect()
    }
}

fn read(number: usize, device: &str, spec: &Value) -> PortSpec {
    let mut whole = json!({"key": keys(number), "type": "vdev", "device": device});
    if let (Some(whole), Some(more)) = (whole.as_object_mut(), spec.as_object()) {
        whole.extend(more.clone());
    }
    PortSpec::read(whole).expect("it makes sense")
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// An untagged frame from one station to another, by their numbers; 255 is everybody.
pub(crate) fn frame(from: u8, to: u8, payload: &[u8]) -> Vec<u8> {
    let address = |number| if number == 255 { [0xff; 6] } else { [2, 0, 0, 0, 0, number] };
    [&address(to)[..], &address(from), &[0x88, 0xb5], payload].concat()
}

/// The same frame in a VLAN.
pub(crate) fn tagged(vlan: u16, frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &vlan.to_be_bytes(), &frame[12..]].concat()
}
