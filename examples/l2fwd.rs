//! DPDK's l2fwd: what arrives at one port leaves by the other, with new addresses, and statistics are printed.
//!
//! ```text
//! cargo run --release --example l2fwd -- net_af_packet0,iface=veth0 net_af_packet1,iface=veth2 -T 1
//! ```
//! A frame gets the address of the port it leaves by as its source, and 02:00:00:00:00:NN as its destination, NN being that
//! port's number. `-T` is the time between statistics in seconds (10; 0 prints them at the end only). Ctrl-C ends it.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use linecard::pmd::contain::contain;
use linecard::prelude::*;

/// A port and what l2fwd counts of it.
struct Side {
    port: Port,
    sent: u64,
    received: u64,
    dropped: u64,
}

impl Side {
    fn open(eal: &Eal, pool: &Pool, device: &str) -> Result<Self, linecard::pmd::Error> {
        // A driver that panics costs its queue; the other port goes on.
        let port = contain(linecard::open(eal, pool, device)?);
        Ok(Self { port, sent: 0, received: 0, dropped: 0 })
    }

    /// What `from` received leaves here; what does not fit is dropped and counted.
    fn forward(&mut self, from: &mut Self, number: u8, source: [u8; 6], packets: &mut Burst) {
        let count = from.port.rx[0].rx_burst(packets) as u64;
        if count == 0 {
            return;
        }
        from.received += count;
        for packet in packets.iter_mut() {
            if let Some(addresses) = packet.data_mut().and_then(|frame| frame.get_mut(..12)) {
                addresses[..6].copy_from_slice(&[2, 0, 0, 0, 0, number]);
                addresses[6..].copy_from_slice(&source);
            }
        }
        self.port.tx[0].tx_burst(packets);
        let dropped = packets.clear() as u64;
        self.sent += count - dropped;
        self.dropped += dropped;
    }
}

fn print(sides: &[Side; 2]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nPort statistics ====================================")?;
    for (number, side) in sides.iter().enumerate() {
        writeln!(out, "Statistics for port {number} ------------------------------")?;
        writeln!(out, "Packets sent: {:>24}", side.sent)?;
        writeln!(out, "Packets received: {:>20}", side.received)?;
        writeln!(out, "Packets dropped: {:>21}", side.dropped)?;
    }
    let total = |of: fn(&Side) -> u64| sides.iter().map(of).sum::<u64>();
    writeln!(out, "Aggregate statistics ===============================")?;
    writeln!(out, "Total packets sent: {:>18}", total(|side| side.sent))?;
    writeln!(out, "Total packets received: {:>14}", total(|side| side.received))?;
    writeln!(out, "Total packets dropped: {:>15}", total(|side| side.dropped))?;
    writeln!(out, "====================================================")
}

/// Two devices and the time between statistics.
fn arguments() -> Result<([String; 2], Duration), Box<dyn Error>> {
    let (mut devices, mut period) = (Vec::new(), 10);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "-T" {
            let number = words.next().ok_or("-T needs a number of seconds")?;
            period = number.parse().map_err(|_| format!("-T {number} is no number of seconds"))?;
        } else {
            devices.push(word);
        }
    }
    let devices = <[String; 2]>::try_from(devices)
        .map_err(|_| "name two devices, for example net_af_packet0,iface=veth0 net_af_packet1,iface=veth2")?;
    Ok((devices, Duration::from_secs(period)))
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

fn run() -> Result<(), Box<dyn Error>> {
    let (devices, period) = arguments()?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let (args, _) = EalArgs::parse(["-m", "64"])?;
    let eal = Eal::new(&args)?;
    let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(8192))?;
    let mut sides = [Side::open(&eal, &pool, &devices[0])?, Side::open(&eal, &pool, &devices[1])?];
    let macs = [sides[0].port.control.mac(), sides[1].port.control.mac()];
    println!("forwarding between {} and {}; Ctrl-C ends", devices[0], devices[1]);

    let (mut packets, mut printed) = (Burst::with_capacity(32), Instant::now());
    while !stop.load(Ordering::Relaxed) {
        let [first, second] = &mut sides;
        second.forward(first, 1, macs[1], &mut packets);
        first.forward(second, 0, macs[0], &mut packets);
        if !period.is_zero() && printed.elapsed() >= period {
            print(&sides)?;
            printed = Instant::now();
        }
    }
    print(&sides)?;
    for side in sides {
        side.port.stop();
    }
    Ok(())
}
