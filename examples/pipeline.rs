//! A pipeline over several cores: one core receives and deals flows to workers, the workers do the work, one core sends. Packets of a
//! flow stay in their order; nothing is copied between cores.
//!
//! ```text
//! cargo run --release --example pipeline -- net_vhost0,iface=/tmp/a.sock net_vhost1,iface=/tmp/b.sock --lcores 0@0,1@1,2@2,3@3
//! ```
//! ```text
//!   left ─ rx ─ Spread ─┬─ link ─ worker ─ link ─┬─ tx ─ right       the main lcore receives, the last one sends,
//!                       └─ link ─ worker ─ link ─┘                   those between are workers
//! ```
//! `--lcores` names at least three. `--count N` ends it after so many packets, else Ctrl-C does. Run to completion, where each core
//! receives, works and sends (`examples/forward.rs`), is faster where the work is small.
#![forbid(unsafe_code)]

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use linecard::net_ring;
use linecard::pmd::contain::contain;
use linecard::pmd::spread::Spread;
use linecard::pmd::{Device, RxQueue, TxQueue};
use linecard::prelude::*;

/// What a core did.
#[derive(Clone, Copy, Debug, Default)]
struct Moved {
    packets: u64,
    dropped: u64,
    bursts: u64,
}

impl Moved {
    fn add(&mut self, packets: usize, dropped: usize) {
        self.packets += packets as u64;
        self.dropped += dropped as u64;
        self.bursts += u64::from(packets > 0);
    }
}

/// Sends what there is; a link that is full is waited for, as long as the program runs: packets are lost at the ends only.
fn pass_on(tx: &mut dyn TxQueue, packets: &mut Burst, stop: &Stop) -> (usize, usize) {
    let mut sent = tx.tx_burst(packets);
    while !packets.is_empty() && stop.running() {
        std::thread::yield_now();
        sent += tx.tx_burst(packets);
    }
    (sent, packets.clear())
}

fn receive(mut rx: Box<dyn RxQueue>, mut links: Vec<Port>, stop: &Stop) -> Moved {
    let (mut moved, mut packets, mut spread) = (Moved::default(), Burst::new(), Spread::new(links.len()));
    while stop.running() {
        if rx.rx_burst(&mut packets) == 0 {
            std::thread::yield_now();
        }
        while !packets.is_empty() {
            spread.deal(&mut packets);
            for (worker, link) in links.iter_mut().enumerate() {
                let (sent, dropped) = pass_on(&mut link.tx[0], spread.burst(worker), stop);
                moved.add(sent, dropped);
            }
        }
    }
    moved
}

fn work(mut from: Port, mut to: Port, stop: &Stop) -> Moved {
    let (mut moved, mut packets) = (Moved::default(), Burst::new());
    while stop.running() {
        if from.rx[0].rx_burst(&mut packets) == 0 {
            std::thread::yield_now();
        }
        for packet in packets.iter_mut() {
            // Your function.
            if let Some(addresses) = packet.data_mut().and_then(|frame| frame.get_mut(..12)) {
                addresses.rotate_left(6);
            }
        }
        let (sent, dropped) = pass_on(&mut to.tx[0], &mut packets, stop);
        moved.add(sent, dropped);
    }
    moved
}

fn send(
    mut links: Vec<Port>,
    mut tx: Box<dyn TxQueue>,
    most: u64,
    (stop, done): (&Stop, &AtomicBool),
) -> Moved {
    let (mut moved, mut packets) = (Moved::default(), Burst::new());
    while stop.running() {
        for link in &mut links {
            link.rx[0].rx_burst(&mut packets);
            let sent = tx.tx_burst(&mut packets);
            // What the port has no room for is lost, as on any wire.
            moved.add(sent, packets.clear());
        }
        if moved.packets >= most {
            done.store(true, Ordering::Relaxed);
        }
        std::thread::yield_now();
    }
    moved
}

/// Two ends of a link, started.
fn link(name: &str, pool: &Pool) -> Result<[Port; 2], Box<dyn Error>> {
    let (near, far) = net_ring::pair(&format!("{name}.in"), &format!("{name}.out"));
    let start = |device: Box<dyn Device>| -> Result<Port, Box<dyn Error>> {
        Ok(configure(device, PortConfig::default())?.start(pool)?)
    };
    Ok([start(near)?, start(far)?])
}

const USAGE: &str =
    "name two devices and at least three lcores: DEVICE DEVICE --lcores 0@0,1@1,2@2 [--count N]";

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option =
        |name: &str| arguments.iter().position(|word| word == name).and_then(|at| arguments.get(at + 1));
    let (Some(left), Some(right), Some(lcores)) = (arguments.first(), arguments.get(1), option("--lcores"))
    else {
        return Err(USAGE.into());
    };
    let most = option("--count").map_or(Ok(u64::MAX), |count| count.parse()).map_err(|_| USAGE)?;
    let eal = Eal::new(&EalArgs::parse(["-m", "64", "--lcores", lcores])?.0)?;
    let [receiver, workers @ .., sender] = eal.lcores().all() else { return Err(USAGE.into()) };
    if workers.is_empty() {
        return Err(USAGE.into());
    }
    let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(16_384))?;
    // A driver that panics costs its queue; the cores go on.
    let open = |device| linecard::open(&eal, &pool, device).map(contain);
    let (mut left, mut right) = (open(left)?, open(right)?);

    let done = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&done))?;
    }
    let mut threads: Workers<Moved> = Workers::new();
    let (mut to_workers, mut to_sender) = (Vec::new(), Vec::new());
    for (number, lcore) in workers.iter().enumerate() {
        let [dealt, from] = link(&format!("work{number}"), &pool)?;
        let [to, sent] = link(&format!("sent{number}"), &pool)?;
        to_workers.push(dealt);
        to_sender.push(sent);
        threads.launch(lcore, move |stop| work(from, to, stop))?;
    }
    let (rx, tx, finished) = (left.rx.remove(0), right.tx.remove(0), Arc::clone(&done));
    threads.launch(sender, move |stop| send(to_sender, tx, most, (stop, &finished)))?;
    threads.launch(receiver, move |stop| receive(rx, to_workers, stop))?;
    while !done.load(Ordering::Relaxed) {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    threads.stop();
    for (lcore, moved) in threads.join() {
        let Moved { packets, dropped, bursts } = moved?;
        let fill = packets as f64 / bursts.max(1) as f64;
        println!("lcore {}: {packets} packets, {fill:.1} a burst, {dropped} dropped", lcore.0);
    }
    Ok(())
}

/// An error is one sentence on standard error.
fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
