//! Forwards packets between two ports on one core, until Ctrl-C ends it.
//!
//! ```text
//! cargo run --release --example forward -- net_vhost0,iface=/tmp/a.sock net_vhost1,iface=/tmp/b.sock
//! linecard capture -p 0                                  # shows what passes the first of them
//! ```
#![forbid(unsafe_code)]

use std::error::Error;

use linecard::prelude::*;

/// One direction: what arrives at one port leaves by the other; what does not fit is dropped and counted.
fn forward(from: &mut Port, to: &mut Port, packets: &mut Burst) -> usize {
    from.rx[0].rx_burst(packets);
    to.tx[0].tx_burst(packets);
    packets.clear()
}

fn main() -> Result<(), Box<dyn Error>> {
    let devices: Vec<String> = std::env::args().skip(1).collect();
    let [left, right] = devices.as_slice() else {
        return Err(
            "name two devices, for example net_vhost0,iface=/tmp/a.sock net_vhost1,iface=/tmp/b.sock".into(),
        );
    };
    let (args, _) = EalArgs::parse(["-m", "64"].map(Into::into))?;
    let eal = Eal::new(&args)?;
    let pool = Pool::new(&eal.default_domain(), PoolConfig { packets: 8192, ..PoolConfig::default() })?;
    let ports = [linecard::open(&eal, &pool, left)?, linecard::open(&eal, &pool, right)?];
    let (_socket, [mut left, mut right]) = linecard::capture::serve(&eal, ports)?; // for `linecard capture`

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
