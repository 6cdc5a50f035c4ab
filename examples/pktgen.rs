//! Sends UDP packets on any port at a given rate, and prints how many it sent.
//!
//! ```text
//! cargo run --release --example pktgen -- net_pcap0,tx_pcap=/tmp/flows.pcap rate=10000 size=128 flows=8 count=5000
//! ```
//! Without `rate=` it sends as fast as the port allows, without `count=` until Ctrl-C. Meanwhile,
//! `linecard capture --file-prefix pktgen -f 'udp dst port 2003'` shows the packets sent.
#![forbid(unsafe_code)]

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use linecard::net::{
    Header, MacAddr,
    ether::{Ethernet, ether_type},
    ip::{Ipv4, protocol},
    transport::Udp,
};
use linecard::prelude::*;

/// The packets to send.
struct Plan {
    rate: Option<u64>,
    size: usize,
    flows: u16,
    count: Option<u64>,
}

impl Plan {
    /// Parses `key=number` arguments.
    fn read(arguments: &[String]) -> Result<Self, String> {
        let mut plan = Self { rate: None, size: 64, flows: 1, count: None };
        for argument in arguments {
            let (key, value) = argument.split_once('=').unwrap_or((argument, ""));
            let number: u64 = value.parse().map_err(|_| format!("'{argument}' is no KEY=NUMBER"))?;
            match key {
                "rate" if number > 0 => plan.rate = Some(number),
                "size" if (60..=1514).contains(&number) => plan.size = number as usize,
                "flows" if (1..=10_000).contains(&number) => plan.flows = number as u16,
                "count" => plan.count = Some(number),
                _ => {
                    return Err(format!(
                        "'{argument}' is not possible; give rate, size (60 to 1514), flows, count"
                    ));
                }
            }
        }
        Ok(plan)
    }

    /// The number of packets that should have been sent by now.
    fn due(&self, since: Duration) -> u64 {
        let due = self
            .rate
            .map_or(u64::MAX, |rate| (since.as_nanos() * u128::from(rate) / 1_000_000_000) as u64 + 1);
        due.min(self.count.unwrap_or(u64::MAX))
    }
}

/// The bytes of a flow's packets; flows differ in their UDP ports.
fn frame(flow: u16, size: usize, source: MacAddr) -> Vec<u8> {
    let mut frame = vec![0; size];
    let (ethernet, packet) = Ethernet::view_mut(&mut frame).expect("60 bytes are enough");
    *ethernet = Ethernet::new(MacAddr::BROADCAST, source, ether_type::IPV4);
    let payload = (size - 34) as u16;
    let (ip, datagram) = Ipv4::view_mut(packet).expect("60 bytes are enough");
    *ip = Ipv4::new([198, 18, 0, 1], [198, 18, 0, 2], protocol::UDP, payload);
    let (udp, _) = Udp::view_mut(datagram).expect("60 bytes are enough");
    *udp = Udp::new(1000 + flow, 2000 + flow, payload - 8);
    frame
}

/// Prints errors as one sentence on standard error.
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
    let [device, rest @ ..] = arguments.as_slice() else {
        return Err(
            "name a device, for example net_pcap0,tx_pcap=/tmp/flows.pcap rate=1000 count=5000".into()
        );
    };
    let plan = Plan::read(rest)?;
    let (args, _) = EalArgs::parse(["-m", "64", "--file-prefix=pktgen"])?;
    let eal = Eal::new(&args)?;
    let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(4096))?;
    let port = linecard::open(&eal, &pool, device)?;

    // Lets `linecard capture` see this port.
    let (_socket, [mut port]) = linecard::capture::serve(&eal, [port])?;

    let source = port.control.mac().into();
    let frames: Vec<Vec<u8>> = (0..plan.flows).map(|flow| frame(flow, plan.size, source)).collect();
    let mut next = frames.iter().cycle();
    let (start, mut sent) = (Instant::now(), 0);
    let mut burst = Burst::with_capacity(32);
    while plan.count.is_none_or(|count| sent < count) {
        let due = plan.due(start.elapsed()).saturating_sub(sent + burst.len() as u64);
        for _ in 0..due.min(burst.room() as u64) {
            let (Some(mut packet), Some(bytes)) = (pool.get(), next.next()) else { break };
            packet.append(bytes.len()).ok_or("a buffer is too small")?.copy_from_slice(bytes);
            burst.push(packet).expect("there is room");
        }
        sent += port.tx[0].tx_burst(&mut burst) as u64;
        port.tx[0].reclaim();
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "sent {sent} packets of {} bytes in {seconds:.3} s, {:.0} per second",
        plan.size,
        sent as f64 / seconds
    );
    port.stop();
    Ok(())
}
