//! Answers ARP, ICMP echo (`ping`) and UDP (`nc -u`) on one port: a host of its own, in one loop.
//!
//! In a network namespace that vanishes again, without touching the machine's network:
//! ```text
//! cargo build --release --example echo && sudo unshare -n sh -c 'target/release/examples/echo & sleep 1
//!   ip addr add 10.0.0.1/24 dev dtap0; ping -c 3 10.0.0.2; echo hello | nc -u -w 1 10.0.0.2 7; kill $!'
//! ```
//! Any other port will do: `echo net_vhost0,iface=/tmp/v.sock 10.0.0.2` answers a `net_virtio_user` port or a guest.
#![forbid(unsafe_code)]

use std::error::Error;
use std::net::Ipv4Addr;
use std::process::ExitCode;

use linecard::net::{MacAddr, echo};
use linecard::prelude::*;

const USAGE: &str = "usage: echo [DEVICE [ADDRESS]], for example: echo net_tap0,iface=tap0 10.0.0.2";

/// Who we are.
struct Host {
    mac: MacAddr,
    /// Every address is ours where none was given.
    address: Option<Ipv4Addr>,
}

impl Host {
    /// Turns a question into its answer, in place; false when it is none, or not for us.
    fn answer(&self, packet: &mut Packet) -> bool {
        let Some(frame) = packet.data_mut() else { return false };
        match echo::asked(frame) {
            Some(asked) => {
                self.address.is_none_or(|address| address.octets() == asked)
                    && echo::answer_arp(frame, self.mac)
            }
            None => self.is_ours(frame) && (echo::answer_icmp(frame) || echo::answer_udp(frame)),
        }
    }

    fn is_ours(&self, frame: &[u8]) -> bool {
        let to = frame.get(30..34);
        self.address.is_none_or(|address| to == Some(&address.octets()[..]))
    }
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
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (device, address) = match arguments.as_slice() {
        [] => ("net_tap0", None),
        [device] => (device.as_str(), None),
        [device, address] => (device.as_str(), Some(address.parse::<Ipv4Addr>().map_err(|_| USAGE)?)),
        _ => return Err(USAGE.into()),
    };
    let (args, _) = EalArgs::parse(["-m", "64"])?;
    let eal = Eal::new(&args)?;
    let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(4096))?;
    let mut port = linecard::open(&eal, &pool, device)?;
    let host = Host { mac: MacAddr(port.control.mac()), address };
    println!("{} answers, as {}", port.control.name(), host.mac);

    let mut packets = Burst::new();
    loop {
        if port.rx[0].rx_burst(&mut packets) == 0 {
            port.tx[0].reclaim();
            std::thread::yield_now();
        }
        packets.retain(|packet| host.answer(packet));
        port.tx[0].tx_burst(&mut packets);
        // What the port has no room for is lost, as on any wire.
        packets.clear();
    }
}
