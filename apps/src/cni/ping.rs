//! `linecard cni ping`: sends packets and checks the answers.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use linecard::mempool::{Burst, Pool};
use linecard::net::arp::{Arp, REPLY};
use linecard::net::ether::{Ethernet, ether_type};
use linecard::net::{Header, MacAddr};
use linecard::pmd::Port;
use serde::{Deserialize, Serialize};

use super::frame::{Came, Flow, LONGEST, SHORTEST, check, make, make_echo, read_echo};
use super::port::{Opened, PortArgs};
use crate::error::Error;
use crate::output::{Output, out};
use crate::signals;

/// Arguments of `linecard cni ping`.
#[derive(Args)]
pub(super) struct PingArgs {
    #[command(flatten)]
    port: PortArgs,
    /// The IPv4 address of the other end
    #[arg(long)]
    to: Ipv4Addr,
    /// Packets to send
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(..=MOST))]
    count: u64,
    /// Seconds to wait for the other end, and for a packet that does not come back
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    wait: u32,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// The maximum number of packets: there is a byte of memory for each.
const MOST: u64 = 1_000_000_000;
/// The maximum number of packets in flight, so that no ring fills up.
const WINDOW: u64 = 64;
/// The interval of ARP requests.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// The number of ICMP echo requests before the packets.
const ECHOES: u16 = 5;
/// The lengths of frames, used in turn.
const LENGTHS: [usize; 6] = [SHORTEST, 64, 128, 590, 1024, LONGEST];

/// The results of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Report {
    /// The address of the other end.
    to: String,
    mac: String,
    /// The number of answers to ICMP echo requests, and the shortest round-trip time.
    echoes: u16,
    echo_us: f64,
    sent: u64,
    returned: u64,
    lost: u64,
    duplicated: u64,
    corrupted: u64,
    seconds: f64,
}

impl Report {
    /// The report for people.
    pub(super) fn lines(&self) -> [String; 2] {
        let Self { to, mac, echoes, echo_us, sent, returned, lost, duplicated, corrupted, seconds } = self;
        [
            format!("ping        {to} at {mac}: {echoes} of {ECHOES} answered, {echo_us:.0} µs"),
            format!(
                "packets     {sent} sent, {returned} came back checked, {lost} lost, {duplicated} duplicated, {corrupted} \
                 corrupted, {seconds:.2} s"
            ),
        ]
    }

    fn is_good(&self) -> bool {
        self.echoes == ECHOES
            && self.returned == self.sent
            && self.lost + self.duplicated + self.corrupted == 0
    }
}

pub(super) fn run(args: &PingArgs) -> Result<ExitCode, Error> {
    let ended = signals::stop_flag(&signals::TERMINATION)?;
    let mut opened = args.port.open()?;
    let patience = Duration::from_secs(args.wait.into());
    let peer_ip = args.to.octets();
    let peer_mac = resolve(&mut opened, peer_ip, patience, &ended)?.ok_or_else(|| {
        Error::Failed(format!(
            "nobody answers for {} in {} s; start `linecard cni answer` there",
            args.to, args.wait
        ))
    })?;
    let flow = Flow { own_mac: opened.mac.0, own_ip: opened.ip, peer_mac: peer_mac.0, peer_ip };
    let Opened { mut port, pool, .. } = opened;
    let seen = vec![false; usize::try_from(args.count).unwrap_or(0)];
    let report =
        Report { to: args.to.to_string(), mac: peer_mac.to_string().to_lowercase(), ..Report::default() };
    let mut run = Run { count: args.count, patience, report, seen };
    let echoed = run.echo(&mut port, &pool, &flow, &ended);
    let start = Instant::now();
    let done = echoed.and_then(|()| run.exchange(&mut port, &pool, &flow, &ended));
    port.stop();
    done?;
    let mut report = run.report;
    report.seconds = start.elapsed().as_secs_f64();
    report.lost = report.sent.saturating_sub(report.returned);
    tell(&report, args)
}

fn tell(report: &Report, args: &PingArgs) -> Result<ExitCode, Error> {
    let mut output = Output::standard();
    match args.json {
        true => out!(output, "{}\n", serde_json::to_string(report).unwrap_or_default()),
        false => report.lines().iter().for_each(|line| out!(output, "{line}\n")),
    }
    output.finish(true)?;
    match report.is_good() && report.sent == args.count {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::FAILURE),
    }
}

/// Sends ARP requests for `ip` until one is answered; returns `None` if none is.
fn resolve(
    opened: &mut Opened,
    ip: [u8; 4],
    patience: Duration,
    ended: &AtomicBool,
) -> Result<Option<MacAddr>, Error> {
    let (start, mut asked) = (Instant::now(), None::<Instant>);
    let (mut sending, mut received) = (Burst::new(), Burst::new());
    let (rx, tx) = queues(&mut opened.port)?;
    while start.elapsed() < patience && !ended.load(Ordering::Relaxed) {
        // Repeated, because a request may be lost before the other end polls.
        if asked.is_none_or(|asked| asked.elapsed() > ASK_EVERY) {
            asked = Some(Instant::now());
            let mut frame = [0; SHORTEST];
            let ethernet = Ethernet {
                destination: MacAddr::BROADCAST,
                source: opened.mac,
                ether_type: ether_type::ARP.into(),
            };
            let _ = ethernet.store(&mut frame);
            let _ = Arp::request(opened.mac, opened.ip, ip).store(&mut frame[Ethernet::LEN..]);
            if let Some(mut packet) = opened.pool.get()
                && let Some(room) = packet.append(frame.len())
            {
                room.copy_from_slice(&frame);
                let _ = sending.push(packet);
            }
            tx.tx_burst(&mut sending);
        }
        rx.rx_burst(&mut received);
        let told = received.iter().find_map(|packet| {
            let arp = packet.data().get(Ethernet::LEN..).and_then(Arp::load)?;
            let ours =
                arp.is_ipv4_over_ethernet() && arp.operation.get() == REPLY && arp.sender_protocol == ip;
            ours.then_some(arp.sender_hardware)
        });
        received.clear();
        if told.is_some() {
            return Ok(told);
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(None)
}

type Queues<'a> = (&'a mut dyn linecard::pmd::RxQueue, &'a mut dyn linecard::pmd::TxQueue);

fn queues(port: &mut Port) -> Result<Queues<'_>, Error> {
    match (port.rx.first_mut(), port.tx.first_mut()) {
        (Some(rx), Some(tx)) => Ok((&mut **rx, &mut **tx)),
        _ => Err(Error::Failed("the port has no queues; run `linecard doctor`".into())),
    }
}

/// The state of one run.
struct Run {
    count: u64,
    /// How long to wait without any answer.
    patience: Duration,
    report: Report,
    seen: Vec<bool>,
}

impl Run {
    /// Sends ICMP echo requests one after another; an answer that takes longer than `patience` does not
    /// count.
    fn echo(&mut self, port: &mut Port, pool: &Pool, flow: &Flow, ended: &AtomicBool) -> Result<(), Error> {
        let (rx, tx) = queues(port)?;
        let (mut sending, mut received) = (Burst::new(), Burst::new());
        let mut shortest = f64::INFINITY;
        for number in 0..ECHOES {
            let start = Instant::now();
            if let Some(mut packet) = pool.get()
                && let Some(room) = packet.append(SHORTEST)
            {
                make_echo(room, flow, number);
                let _ = sending.push(packet);
            }
            tx.tx_burst(&mut sending);
            let mut answered = false;
            while !answered && start.elapsed() < self.patience && !ended.load(Ordering::Relaxed) {
                if rx.rx_burst(&mut received) == 0 {
                    tx.reclaim();
                    std::thread::yield_now();
                }
                answered = received.iter().any(|packet| read_echo(packet.data(), flow) == Some(number));
                received.clear();
            }
            if answered {
                self.report.echoes += 1;
                shortest = shortest.min(start.elapsed().as_secs_f64() * 1e6);
            }
        }
        self.report.echo_us = if shortest.is_finite() { shortest } else { 0.0 };
        Ok(())
    }

    fn exchange(
        &mut self,
        port: &mut Port,
        pool: &Pool,
        flow: &Flow,
        ended: &AtomicBool,
    ) -> Result<(), Error> {
        let (rx, tx) = queues(port)?;
        let (mut sending, mut received) = (Burst::new(), Burst::new());
        let (count, patience) = (self.count, self.patience);
        let mut last = Instant::now();
        while self.report.returned < count && last.elapsed() < patience && !ended.load(Ordering::Relaxed) {
            let on_way = self.report.sent - self.report.returned.min(self.report.sent);
            let room = WINDOW.saturating_sub(on_way).min(count - self.report.sent);
            for _ in 0..room {
                let number = self.report.sent;
                let len = LENGTHS[(number % LENGTHS.len() as u64) as usize];
                let Some(mut packet) = pool.get() else { break };
                let Some(frame) = packet.append(len) else { break };
                make(frame, flow, number);
                if sending.push(packet).is_err() {
                    break;
                }
                self.report.sent += 1;
            }
            tx.tx_burst(&mut sending);
            match rx.rx_burst(&mut received) {
                0 => {
                    tx.reclaim();
                    std::thread::yield_now();
                }
                _ => {
                    self.take(&mut received, flow);
                    last = Instant::now();
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, received: &mut Burst, flow: &Flow) {
        for packet in received.iter() {
            match check(packet.data(), flow) {
                Came::Back(number) => match usize::try_from(number).ok().and_then(|at| self.seen.get_mut(at))
                {
                    Some(seen) if !*seen => {
                        *seen = true;
                        self.report.returned += 1;
                    }
                    Some(_) => self.report.duplicated += 1,
                    None => self.report.corrupted += 1,
                },
                Came::Corrupted => self.report.corrupted += 1,
                Came::Other => {}
            }
        }
        received.clear();
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        ping: PingArgs,
    }

    #[test]
    fn more_packets_than_can_be_remembered_are_refused() {
        let read = |count| Program::try_parse_from(["ping", "--to", "10.0.0.1", "--count", count]);
        assert_eq!(read("1000000000").ok().map(|program| program.ping.count), Some(MOST));
        let problem = read("1000000001").err().expect("too many").to_string();
        assert!(problem.contains("0..=1000000000"), "{problem}");
    }
}
