//! Serves a port from a tokio program: answers ARP, ICMP echo (`ping`) and UDP echo, and sleeps when nothing comes.
//!
//! ```text
//! cargo run --release --example tokio_echo -- net_vhost0,iface=/tmp/v.sock
//! ```
//! Any port will do whose receive queue wakes (`linecard::pmd::wake` has the list); others are looked at every
//! millisecond. `examples/echo.rs` is the same host as a loop that polls.
#![forbid(unsafe_code)]

use std::error::Error;
use std::process::ExitCode;

use linecard::net::{MacAddr, echo};
use linecard::prelude::*;
use linecard_tokio::Receiver;

/// Turns a question into its answer, in place; false when it is none.
fn answer(packet: &mut Packet, mac: MacAddr) -> bool {
    let Some(frame) = packet.data_mut() else { return false };
    match echo::asked(frame) {
        Some(_) => echo::answer_arp(frame, mac),
        None => echo::answer_icmp(frame) || echo::answer_udp(frame),
    }
}

async fn serve(device: &str) -> Result<(), Box<dyn Error>> {
    let (args, _) = EalArgs::parse(["-m", "64"])?;
    let eal = Eal::new(&args)?;
    let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(4096))?;
    let mut port = linecard::open(&eal, &pool, device)?;
    let mac = MacAddr(port.control.mac());
    let mut receiver = Receiver::new(port.rx.remove(0));
    println!("{} answers, as {mac}", port.control.name());

    let mut packets = Burst::new();
    loop {
        receiver.receive(&mut packets).await?;
        packets.retain(|packet| answer(packet, mac));
        port.tx[0].tx_burst(&mut packets);
        // What the port has no room for is lost, as on any wire.
        packets.clear();
        // Before it sleeps: what the queue put off is done now.
        port.tx[0].reclaim();
    }
}

/// An error is one sentence on standard error.
fn main() -> ExitCode {
    let device = std::env::args().nth(1).unwrap_or_else(|| "net_tap0".into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let outcome = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(serve(&device)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
