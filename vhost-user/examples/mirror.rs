//! Sends every frame back where it came from, addresses swapped: `mirror PATH [SECONDS] [QUEUES] [connect]`.
//!
//! ```sh
//! cargo run --release -p linecard-vhost-user --example mirror -- /tmp/mirror.sock 10 &
//! dpdk-testpmd -l 0 --no-pci -m 256 --single-file-segments --vdev net_virtio_user0,path=/tmp/mirror.sock -- --forward-mode=io --tx-first
//! ```

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use linecard_eal::{Memory, MemoryConfig};
use linecard_mempool::{Burst, Pool, PoolConfig};
use linecard_pmd::contain::contain;
use linecard_pmd::{PortConfig, ProbeContext, Registry, configure};
use linecard_vhost_user::VhostDriver;

static VHOST: VhostDriver = VhostDriver::new();

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
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: mirror PATH [SECONDS] [QUEUES] [connect]")?;
    let seconds = args.next().map_or(Ok(10), |text| text.parse())?;
    let queues = args.next().map_or(Ok(1), |text| text.parse::<u16>())?;
    let client = u8::from(args.next().is_some());

    let memory = Memory::new(MemoryConfig::default())?;
    let domain = memory.domain("packets")?;
    let pool = Pool::new(&domain, PoolConfig::default())?;
    let context = ProbeContext::new(memory, domain, Duration::from_secs(1));
    let device = Registry::new(&[&VHOST])
        .probe(&context, &format!("net_vhost0,iface={path},queues={queues},client={client}"))?;
    let port = configure(device, PortConfig::default().rx_queues(queues).tx_queues(queues))
        .and_then(|configured| configured.start(&pool))
        .map_err(|refused| refused.error)?;
    // A panic costs its queue; the others go on.
    let mut port = contain(port);

    let end = Instant::now() + Duration::from_secs(seconds);
    let mut packets = Burst::new();
    let (mut last, mut shown) = (0, Instant::now());
    while Instant::now() < end {
        for _ in 0..1000 {
            for (rx, tx) in port.rx.iter_mut().zip(&mut port.tx) {
                rx.rx_burst(&mut packets);
                for packet in packets.iter_mut() {
                    if let Some(addresses) = packet.data_mut().and_then(|frame| frame.get_mut(..12)) {
                        addresses.rotate_left(6);
                    }
                }
                tx.tx_burst(&mut packets);
                packets.clear();
            }
        }
        if shown.elapsed() > Duration::from_secs(1) {
            let now = port.control.stats().opackets;
            println!(
                "{:.2} Mpps, link {}, {}",
                (now - last) as f64 / shown.elapsed().as_secs_f64() / 1e6,
                if port.control.link().up { "up" } else { "down" },
                port.control.paths()
            );
            (last, shown) = (now, Instant::now());
        }
    }
    for (name, value) in port.control.xstats() {
        println!("{name} {value}");
    }
    println!("{}", port.control.features());
    drop(port.stop());
    let stats = pool.stats();
    println!("pool: {} of {} in use", stats.in_use, stats.total);
    Ok(())
}
