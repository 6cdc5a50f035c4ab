//! Both ends of a vhost-user socket in one process: the frontend sends, the backend returns, the frontend counts.
//!
//! ```text
//! cargo run --release --example loopback
//! ```
#![forbid(unsafe_code)]

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use linecard::pmd::contain::contain;
use linecard::prelude::*;

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
    let (args, _) = EalArgs::parse(["-m", "64"])?;
    let eal = Eal::new(&args)?;
    let config = || PoolConfig::default().packets(2048);
    // Two pools in two domains: the frontend shares its packets with the backend, the backend shares nothing.
    let shared = Pool::new(&eal.default_domain(), config())?;
    let private = Pool::new(&eal.memory().domain("backend")?, config())?;

    let socket = std::env::temp_dir().join(format!("loopback-{}.sock", std::process::id()));
    // A driver that panics costs its queue; the other port goes on.
    let open = |pool, device: String| linecard::open(&eal, pool, &device).map(contain);
    let mut backend = open(&private, format!("net_vhost0,iface={}", socket.display()))?;
    let mut frontend = open(&shared, format!("net_virtio_user0,path={}", socket.display()))?;

    let (mut sent, mut received) = (0_u64, 0_u64);
    let (mut outgoing, mut packets) = (Burst::new(), Burst::new());
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        while outgoing.len() < 32 && sent - received < 128 {
            let Some(mut packet) = shared.get() else { break };
            packet.append(64).ok_or("a packet has room for 64 bytes")?.fill(0x5a);
            outgoing.push(packet).map_err(|_| "a burst has room for 32 packets")?;
            sent += 1;
        }
        frontend.tx[0].tx_burst(&mut outgoing);
        backend.rx[0].rx_burst(&mut packets);
        backend.tx[0].tx_burst(&mut packets);
        frontend.rx[0].rx_burst(&mut packets);
        received += packets.clear() as u64;
    }
    let rate = received as f64 / start.elapsed().as_secs_f64() / 1e6;
    println!("{received} packets went round, {rate:.2} Mpps on one core ({})", frontend.control.paths());
    drop(frontend.stop());
    drop(backend.stop());
    Ok(())
}
