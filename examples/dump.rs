//! Prints the packets that any port receives: a line each, and their bytes with `hex`.
//!
//! ```text
//! cargo run --release --example dump -- net_pcap0,rx_pcap=/tmp/flows.pcap count=10 hex
//! ```
//! Without `count=` until Ctrl-C, or until nothing has come for `idle=` seconds.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use linecard::net::{
    Header,
    ether::Ethernet,
    ip::{Ipv4, Ipv6},
    parse,
};
use linecard::prelude::*;

/// What was asked for beside the device.
#[derive(Default)]
struct Options {
    count: Option<u64>,
    idle: Option<Duration>,
    hex: bool,
}

impl Options {
    fn read(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        for argument in arguments {
            let number = |value: &str| value.parse().map_err(|_| format!("'{argument}' is no number"));
            match argument.split_once('=') {
                None if argument == "hex" => options.hex = true,
                Some(("count", value)) => options.count = Some(number(value)?),
                Some(("idle", value)) => options.idle = Some(Duration::from_secs(number(value)?)),
                _ => return Err(format!("'{argument}' is not possible; give count=N, idle=SECONDS, hex")),
            }
        }
        Ok(options)
    }
}

/// Who sends what to whom.
fn describe(data: &[u8]) -> String {
    let layers = parse(data);
    let mut text = layers.packet_type.to_string();
    if let Some(tag) = layers.vlan_tci {
        let _ = write!(text, " vlan {}", tag & 0xfff);
    }
    let behind = data.get(usize::from(layers.l2_len)..).unwrap_or_default();
    if let Some((ip, _)) = Ipv4::view(behind).filter(|_| layers.packet_type.is_ipv4()) {
        let _ = write!(text, " {} > {}", Ipv4Addr::from(ip.source), Ipv4Addr::from(ip.destination));
    } else if let Some((ip, _)) = Ipv6::view(behind).filter(|_| layers.packet_type.is_ipv6()) {
        let _ = write!(text, " {} > {}", Ipv6Addr::from(ip.source), Ipv6Addr::from(ip.destination));
    } else if let Some((ethernet, _)) = Ethernet::view(data) {
        let _ = write!(text, " {} > {}", ethernet.source, ethernet.destination);
    }
    // TCP and UDP begin with their ports.
    if let Some(&[a, b, c, d]) = data.get(layers.l4_start()..).and_then(|l4| l4.first_chunk())
        && matches!(layers.protocol, 6 | 17)
        && layers.l4_len > 0
    {
        let _ = write!(text, " ports {} > {}", u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    }
    text
}

/// Sixteen bytes a line, as hexadecimal and as text.
fn hexdump(data: &[u8]) -> String {
    let mut text = String::new();
    for (i, line) in data.chunks(16).enumerate() {
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let plain = |byte: &u8| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' };
        let shown: String = line.iter().map(plain).collect();
        let _ = writeln!(text, "  {:04x}  {:<47}  {shown}", i * 16, hex.join(" "));
    }
    text
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
    let [device, rest @ ..] = arguments.as_slice() else {
        return Err("name a device, for example net_pcap0,rx_pcap=/tmp/flows.pcap".into());
    };
    let options = Options::read(rest)?;
    let (args, _) = EalArgs::parse(["-m", "64"])?;
    let eal = Eal::new(&args)?;
    let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(4096))?;
    let mut port = linecard::open(&eal, &pool, device)?;

    let mut out = std::io::stdout().lock();
    let (start, mut last, mut count) = (Instant::now(), Instant::now(), 0_u64);
    let (mut burst, mut adaptive) = (Burst::new(), Adaptive::default());
    while options.count.is_none_or(|most| count < most)
        && options.idle.is_none_or(|idle| last.elapsed() < idle)
    {
        let received = port.rx[0].rx_burst(&mut burst);
        adaptive.wait(received, &mut [&mut *port.rx[0]]);
        if received == 0 {
            continue;
        }
        last = Instant::now();
        for packet in burst.iter().take(options.count.map_or(usize::MAX, |most| (most - count) as usize)) {
            count += 1;
            let since = start.elapsed().as_secs_f64();
            writeln!(out, "{count:>6} {since:>11.6} {:>5} bytes  {}", packet.len(), describe(packet.data()))?;
            if options.hex {
                write!(out, "{}", hexdump(&packet.to_bytes()))?;
            }
        }
        burst.clear();
    }
    writeln!(out, "{count} packets")?;
    port.stop();
    Ok(())
}
