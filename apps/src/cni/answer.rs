//! `linecard cni answer`: answers ARP, ping and UDP echo.

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;
use linecard::mempool::{Burst, Packet};
use linecard::net::{MacAddr, echo};

use super::port::{Opened, PortArgs};
use crate::error::Error;
use crate::output::{Output, out};
use crate::signals;

/// Arguments of `linecard cni answer`.
#[derive(Args)]
pub(super) struct AnswerArgs {
    #[command(flatten)]
    port: PortArgs,
}

/// Rounds without a packet after which the thread starts to sleep.
const BUSY: u32 = 4096;
const REST: Duration = Duration::from_micros(100);

pub(super) fn run(args: &AnswerArgs) -> Result<ExitCode, Error> {
    let ended = signals::stop_flag(&signals::TERMINATION)?;
    let Opened { mut port, pool: _pool, mac, ip } = args.port.open()?;
    let mut output = Output::standard();
    out!(output, "{} answers for {} at {mac}\n", port.control.name(), std::net::Ipv4Addr::from(ip));
    output.flush();
    let (Some(rx), Some(tx)) = (port.rx.first_mut(), port.tx.first_mut()) else {
        return Err(Error::Failed("the port has no queues; run `linecard doctor`".into()));
    };
    let (mut packets, mut idle) = (Burst::new(), 0_u32);
    while !ended.load(Ordering::Relaxed) {
        if rx.rx_burst(&mut packets) == 0 {
            idle = idle.saturating_add(1);
            tx.reclaim();
            match idle < BUSY {
                true => std::thread::yield_now(),
                false => std::thread::sleep(REST),
            }
            continue;
        }
        idle = 0;
        packets.retain(|packet| answer(packet, mac, ip));
        tx.tx_burst(&mut packets);
        // Packets for which the port has no room are dropped.
        packets.clear();
    }
    port.stop();
    output.finish(false)?;
    Ok(ExitCode::SUCCESS)
}

/// Turns a request for `ip` into its answer, in place; returns `false` if it is not one.
fn answer(packet: &mut Packet, mac: MacAddr, ip: [u8; 4]) -> bool {
    let Some(frame) = packet.data_mut() else { return false };
    match echo::asked(frame) {
        Some(asked) => asked == ip && echo::answer_arp(frame, mac),
        None => frame.get(30..34) == Some(&ip[..]) && (echo::answer_icmp(frame) || echo::answer_udp(frame)),
    }
}
