//! Forwards packets between two ports on one core, until Ctrl-C ends it.
//!
//! ```text
//! cargo run --release --example forward -- net_vhost0,iface=/tmp/a.sock net_vhost1,iface=/tmp/b.sock
//! linecard capture -p 0                                  # shows what passes the first of them
//! ```
#![forbid(unsafe_code)]

use std::error::Error;
use std::process::ExitCode;

use linecard::pmd::contain::contain;
use linecard::prelude::*;

/// One direction: what arrives at one port leaves by the other; what does not fit is dropped and counted.
fn forward(from: &mut Port, to: &mut Port, packets: &mut Burst) -> usize {
    from.rx[0].rx_burst(packets);
    to.tx[0].tx_burst(packets);
    packets.clear()
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
    let devices: Vec<String> = std::env::args().skip(1).collect();
    let [left, right] = devices.as_slice() else {
        return Err(
            "name two devices, for example net_vhost0,iface=/tmp/a.sock net_vhost1,iface=/tmp/b.sock".into(),
        );
    };
    let (args, _) = EalArgs::parse(["-m", "64"])?;
    let eal = Eal::new(&args)?;
    let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(8192))?;
    // A driver that panics costs its queue; the other port goes on.
    let open = |device| linecard::open(&eal, &pool, device).map(contain);
    // For `linecard capture`.
    let (_socket, [mut left, mut right]) = linecard::capture::serve(&eal, [open(left)?, open(right)?])?;

    let mut packets = Burst::new();
    let mut dropped = 0;
    loop {
        let lost =
            forward(&mut left, &mut right, &mut packets) + forward(&mut right, &mut left, &mut packets);
        if lost > 0 {
            dropped += lost;
            eprintln!("{dropped} packets dropped so far: the receiver is slower than the sender");
        }
    }
}
