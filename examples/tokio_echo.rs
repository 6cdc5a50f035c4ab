//! Serves a port from a tokio program: answers ARP, ICMP echo (`ping`) and UDP echo, and sleeps when nothing comes.
//!
//! ```text
//! cargo run --release --example tokio_echo -- net_vhost0,iface=/tmp/v.sock
//! ```
//! Any port will do whose receive queue wakes (`linecard::pmd::wake` has the list); others are looked at every
//! millisecond. `examples/echo.rs` is the same host as a loop that polls.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

use linecard::net::{MacAddr, echo};
use linecard::pmd::Armed;
use linecard::prelude::*;
use tokio::io::unix::AsyncFd;

/// How often a queue is looked at that cannot wake.
const NAP: Duration = Duration::from_millis(1);

/// A receive queue to `await`.
struct Receiver {
    queue: Box<dyn RxQueue>,
    /// A duplicate of the queue's descriptor, which stays the same as long as the queue exists.
    event: Option<AsyncFd<OwnedFd>>,
}

impl Receiver {
    fn new(queue: Box<dyn RxQueue>) -> Self {
        Self { queue, event: None }
    }

    /// Waits for packets and receives them.
    async fn receive(&mut self, packets: &mut Burst) -> io::Result<()> {
        while self.queue.rx_burst(packets) == 0 {
            match self.queue.arm() {
                // Others get their turn, should it say so for ever.
                Armed::Ready => tokio::task::yield_now().await,
                Armed::Asleep => self.readable().await?,
                Armed::Unable => tokio::time::sleep(NAP).await,
            }
            self.queue.disarm();
        }
        Ok(())
    }

    async fn readable(&mut self) -> io::Result<()> {
        if self.event.is_none() {
            let event = self.queue.event().ok_or(io::ErrorKind::Unsupported)?;
            self.event = Some(AsyncFd::new(event.try_clone_to_owned()?)?);
        }
        if let Some(event) = &self.event {
            // Cleared before the queue is looked at: what comes later makes it ready again.
            event.readable().await?.clear_ready();
        }
        Ok(())
    }
}

/// Turns a question into its answer, in place; false when it is none.
fn answer(packet: &mut Packet, mac: MacAddr) -> bool {
    let frame = packet.data_mut();
    match echo::asked(frame) {
        Some(_) => echo::answer_arp(frame, mac),
        None => echo::answer_icmp(frame) || echo::answer_udp(frame),
    }
}

async fn serve(device: &str) -> Result<(), Box<dyn Error>> {
    let (args, _) = EalArgs::parse(["-m", "64"])?;
    let eal = Eal::new(&args)?;
    let pool = Pool::new(&eal.default_domain(), PoolConfig { packets: 4096, ..PoolConfig::default() })?;
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
