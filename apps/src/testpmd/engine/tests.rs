//! A port or a mode that panics next to one that does not, on one lcore.

use std::time::{Duration, Instant};

use linecard::capture::Hub;
use linecard::eal::EalArgs;
use linecard::mempool::{Burst, PoolConfig};
use linecard::pmd::{
    Device, DeviceInfo, Port, PortConfig, ProbeContext, Running, RxQueue, StartError, TxQueue,
};

use super::*;
use crate::testpmd::ports::Ports;
use crate::testpmd::settings::PortTopology;
use crate::testpmd::topology;

/// A device whose receive queues panic in their third burst.
struct Faulty(Box<dyn Device>);

impl Device for Faulty {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn info(&self) -> DeviceInfo {
        self.0.info()
    }

    fn start(self: Box<Self>, config: &PortConfig, pool: &Pool) -> Result<Port, StartError> {
        let port = self.0.start(config, pool)?;
        let rx = port.rx.into_iter().map(|queue| Box::new(FaultyRx(queue, 0)) as Box<dyn RxQueue>).collect();
        Ok(Port { rx, running: Box::new(FaultyRunning(port.running)), ..port })
    }
}

struct FaultyRunning(Box<dyn Running>);

impl Running for FaultyRunning {
    fn stop(self: Box<Self>, rx: Vec<Box<dyn RxQueue>>, tx: Vec<Box<dyn TxQueue>>) -> Box<dyn Device> {
        Box::new(Faulty(self.0.stop(rx, tx)))
    }
}

struct FaultyRx(Box<dyn RxQueue>, u32);

impl RxQueue for FaultyRx {
    fn rx_burst(&mut self, packets: &mut Burst) -> usize {
        self.1 += 1;
        assert!(self.1 < 3, "the driver did not expect this");
        self.0.rx_burst(packets)
    }

    fn path(&self) -> &'static str {
        self.0.path()
    }
}

/// A mode that panics at its second burst.
#[derive(Default)]
struct FaultyMode {
    bursts: u32,
    held: usize,
    lost: usize,
}

impl Mode for FaultyMode {
    fn step(&mut self, _: &mut Burst) {
        self.bursts += 1;
        assert!(self.bursts < 2, "the mode did not expect this");
    }

    fn lost(&mut self) -> usize {
        std::mem::take(&mut self.lost)
    }

    fn held(&self) -> usize {
        self.held
    }
}

struct Bench {
    eal: Eal,
    pool: Pool,
    ports: Ports,
    hub: Hub,
    settings: Settings,
}

impl Bench {
    /// Port 0, which may be faulty, and port 1, a ring that returns what is sent.
    fn new(faulty: bool) -> Self {
        let line = ["--no-huge", "-m", "64", "--lcores", "0@0,1@0"];
        let eal = Eal::new(&EalArgs::parse(line).unwrap().0).unwrap();
        let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(4096)).unwrap();
        let context = ProbeContext::new(eal.memory().clone(), eal.default_domain(), Duration::from_secs(1));
        let (mut ports, hub, registry) = (Ports::default(), Hub::new(), linecard::drivers());
        for name in ["net_null0", "net_ring0"] {
            let device = registry.probe(&context, name).unwrap();
            let device = if faulty && name == "net_null0" { Box::new(Faulty(device)) } else { device };
            ports.add(name, device, PortConfig::default()).unwrap();
        }
        ports.iter_mut().for_each(|slot| slot.start(&pool, &hub).unwrap());
        let mut settings = Settings::default();
        settings.topology = PortTopology::Loop;
        Self { eal, pool, ports, hub, settings }
    }

    fn streams(&self) -> Vec<Stream> {
        topology::streams(&self.ports.ids(), self.settings.topology, self.settings.mode, 1, 1)
    }

    /// Forwards on lcore 1, with `tx_first` first bursts on each port.
    fn start(&mut self, tx_first: u32) -> Forwarding {
        let (macs, checksums) = (HashMap::new(), HashMap::new());
        let plan = Plan {
            settings: &self.settings,
            pool: &self.pool,
            macs: &macs,
            checksums: &checksums,
            tags: &HashMap::new(),
            tx_first,
            signalled: Stop::default(),
            live: Arc::default(),
            clock: self.eal.clock(),
            memories: RefCell::default(),
        };
        let shares = topology::shares(&self.streams(), &[1]);
        let ports = &mut self.ports;
        Forwarding::start(&self.eal, &plan, &shares, |stream| ports.lend(stream)).map_err(|(_, e)| e).unwrap()
    }

    fn received(&self, port: u16) -> u64 {
        self.ports.get(port).unwrap().stats().ipackets
    }

    fn xstat(&self, port: u16, name: &str) -> u64 {
        let all = self.ports.get(port).unwrap().xstats();
        all.into_iter().find(|(known, _)| known == name).expect(name).1
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_driver_that_panics_costs_its_queue_and_nothing_else() {
    let mut bench = Bench::new(true);
    for _ in 0..2 {
        let forwarding = bench.start(1);
        wait_until("the panic", || bench.xstat(0, "rx_q0_panics") == 1);
        let (then, lost) = (bench.received(1), bench.received(0));
        wait_until("packets on the other port", || bench.received(1) > then + 1000);
        assert_eq!(bench.received(0), lost, "it is not polled any more");
        forwarding.halt();
        let lanes = forwarding.lanes();
        let (queues, troubles) = forwarding.join();
        assert_eq!((queues.len(), troubles), (2, Vec::new()), "the thread lives, all queues come home");
        queues.into_iter().for_each(|queues| bench.ports.give_back(queues));
        let healthy = lanes.iter().find(|(stream, _)| stream.rx_port == 1).unwrap().1.totals();
        assert_eq!((healthy.tx_dropped, healthy.rx_packets + 32), (0, healthy.tx_packets), "nothing is lost");
        // After stop and start it is a new port.
        let slot = bench.ports.get_mut(0).unwrap();
        slot.stop();
        slot.start(&bench.pool, &bench.hub).unwrap();
        assert_eq!(bench.xstat(0, "rx_q0_panics"), 0);
        let slot = bench.ports.get_mut(1).unwrap();
        slot.stop();
        slot.start(&bench.pool, &bench.hub).unwrap();
    }
}

#[test]
fn a_mode_that_panics_halts_its_stream_and_no_other() {
    let mut bench = Bench::new(false);
    let streams = bench.streams();
    let mut counters = Vec::new();
    let mut lane = |stream: &Stream, faulty: bool| -> Box<dyn Forward> {
        let Queues { stream, rx, tx } = bench.ports.lend(stream).unwrap();
        let own = Arc::new(LaneCounters::new(false));
        counters.push(Arc::clone(&own));
        let config = LaneConfig { retry: bench.settings.retry, live: Arc::default() };
        match faulty {
            true => {
                let (mode, burst) = (FaultyMode::default(), SplitBurst::new(32));
                Box::new(Lane {
                    stream,
                    rx,
                    tx,
                    mode,
                    burst,
                    counters: own,
                    config,
                    rules: LaneRules::default(),
                    received_at: 0,
                })
            }
            false => Box::new(Lane {
                stream,
                rx,
                tx,
                mode: Io,
                burst: SplitBurst::new(32),
                counters: own,
                config,
                rules: LaneRules::default(),
                received_at: 0,
            }),
        }
    };
    let mut lanes = vec![lane(&streams[0], true), lane(&streams[1], false)];
    let flow = UdpFlow::txonly(Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
    lanes[1].send_first(&mut TxOnly::new(bench.pool.clone(), flow, &[64], None), 32);
    // It would stop when dropped.
    let workers = Workers::<()>::new();
    let stop = workers.stop_flag();
    std::thread::scope(|scope| {
        let poller = scope.spawn(|| poll(&stop, &mut lanes, false, |lane| lane.round()));
        wait_until("the panic", || counters[0].totals().tx_dropped > 0);
        let then = counters[1].totals().rx_packets;
        wait_until("packets on the other stream", || counters[1].totals().rx_packets > then + 1000);
        stop.stop();
        poller.join().expect("no panic leaves the loop");
    });
    let (halted, other) = (counters[0].totals(), counters[1].totals());
    assert_eq!((halted.rx_packets, halted.tx_packets, halted.tx_dropped), (64, 32, 32));
    assert_eq!((other.tx_dropped, other.rx_packets + 32), (0, other.tx_packets));
    let home_again: Vec<_> = lanes.into_iter().map(home).map(|queues| queues.stream).collect();
    assert_eq!(home_again, streams);
}

#[test]
fn what_a_halted_stream_still_has_is_counted() {
    let mut bench = Bench::new(false);
    let Queues { stream, rx, tx } = bench.ports.lend(&bench.streams()[0]).unwrap();
    let counters = Arc::new(LaneCounters::new(false));
    let lane = Lane {
        stream,
        rx,
        tx,
        mode: FaultyMode { held: 30, lost: 200, ..FaultyMode::default() },
        burst: SplitBurst::new(32),
        counters: Arc::clone(&counters),
        config: LaneConfig { retry: bench.settings.retry, live: Arc::default() },
        rules: LaneRules::default(),
        received_at: 0,
    };
    let _halted = Box::new(lane).halted();
    assert_eq!(counters.totals().tx_dropped, 230);
}

/// Bursts larger than a [`Burst`] are processed in parts, and count as one.
#[test]
fn large_bursts_are_as_large_as_asked_for() {
    for burst in [1_u16, 64, 65, 100, 128, 512] {
        let mut bench = Bench::new(false);
        bench.settings.burst = burst;
        let streams = bench.streams();
        let Queues { stream, rx, tx } = bench.ports.lend(&streams[0]).unwrap();
        let counters = Arc::new(LaneCounters::new(true));
        let config = LaneConfig { retry: bench.settings.retry, live: Arc::default() };
        let burst_parts = SplitBurst::new(burst);
        let mut lane: Box<dyn Forward> = Box::new(Lane {
            stream,
            rx,
            tx,
            mode: Io,
            burst: burst_parts,
            counters: Arc::clone(&counters),
            config,
            rules: LaneRules::default(),
            received_at: 0,
        });
        for _ in 0..3 {
            let round = counted(&mut *lane);
            assert_eq!((round.received, round.sent), (u32::from(burst), u32::from(burst)), "{burst}");
        }
        let (spread, _) = counters.bursts().unwrap();
        assert!(spread.line("RX").contains(&format!("100% of {burst} pkts")), "{}", spread.line("RX"));

        let Queues { stream, rx, tx } = home(lane);
        let flow = UdpFlow::txonly(Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let mode = TxOnly::new(bench.pool.clone(), flow, &[64], None);
        let config = LaneConfig { retry: bench.settings.retry, live: Arc::default() };
        let mut lane = Lane {
            stream,
            rx,
            tx,
            mode,
            burst: SplitBurst::new(burst),
            counters,
            config,
            rules: LaneRules::default(),
            received_at: 0,
        };
        assert_eq!(lane.round().sent, u32::from(burst), "generated");
    }
}

/// The same as in DPDK, whose `start` returns after they are sent.
#[test]
fn all_first_bursts_are_sent_though_it_is_stopped_at_once() {
    let mut bench = Bench::new(false);
    for first in [1, 1000] {
        let forwarding = bench.start(first);
        forwarding.halt();
        let lanes = forwarding.lanes();
        let (queues, troubles) = forwarding.join();
        assert_eq!((queues.len(), troubles), (2, Vec::new()));
        queues.into_iter().for_each(|queues| bench.ports.give_back(queues));
        for (_, counters) in lanes {
            let totals = counters.totals();
            assert_eq!(totals.tx_packets + totals.tx_dropped, 32 * u64::from(first) + totals.rx_packets);
        }
    }
}
