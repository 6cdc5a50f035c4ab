//! The tester: one end of a socket in a separate process, pinned to a core, which takes commands on standard
//! input.
//!
//! Its protocol is that of testpmd's console: a prompt when it is ready, then a line of JSON and a prompt for
//! each command.

pub(crate) mod frame;
mod traffic;

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use linecard::eal::cores::{self, CoreId};
use linecard::eal::{Eal, EalArgs};
use linecard::mempool::{HEADROOM, Pool, PoolConfig};
use linecard::pmd::{self, Port, PortConfig, ProbeContext};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

pub(crate) use self::traffic::Tally;
use self::traffic::{Queues, Traffic};
use super::loopback::{Load, Offer, Size};
use crate::Error;
use linecard_apps_common::clock::monotonic_ns;

/// Arguments of the hidden sub-command that is one end of a loop.
///
/// ```
/// use clap::Parser;
/// #[derive(Parser)]
/// struct Cli {
///     #[command(flatten)]
///     end: linecard_bench::EndArgs,
/// }
/// assert!(Cli::try_parse_from(["end", "--device", "net_null0"]).is_err(), "the harness says more");
/// ```
#[derive(Debug, Args)]
pub struct EndArgs {
    /// The device to open, as for testpmd
    #[arg(long)]
    device: String,
    /// A socket that must be there before the device is opened
    #[arg(long)]
    after: Option<PathBuf>,
    /// The core to poll on
    #[arg(long)]
    core: u32,
    #[arg(long, value_parser = Size::parse)]
    size: Size,
    #[arg(long)]
    ring: u16,
    #[arg(long)]
    burst: u16,
    /// Bytes of a buffer, headroom included
    #[arg(long)]
    mbuf_size: u16,
    #[arg(long)]
    mbufs: u32,
    /// Megabytes
    #[arg(long)]
    memory: u32,
    #[arg(long)]
    no_huge: bool,
}

/// The tester's answer to the command `first`.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct First {
    /// Nanoseconds of the system's monotonic clock.
    pub(crate) connected: u64,
    pub(crate) came: Option<u64>,
}

/// Printed after each command.
const PROMPT: &str = "testpmd> ";
/// The longest time to wait for the other end.
const PEER: Duration = Duration::from_secs(20);
/// The interval between checks for the other end.
const LOOK: Duration = Duration::from_micros(200);

/// Runs the tester until the end of its input.
///
/// # Errors
/// A port that does not open, an unknown command, or output that cannot be written.
pub fn run(args: &EndArgs) -> Result<ExitCode, Error> {
    // The harness may exit without a command.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::TERM));
    linecard_apps_common::log::start(&EalArgs::default(), "error")?;
    let memory = args.memory.to_string();
    let pages = if args.no_huge { "--no-huge" } else { "--in-memory" };
    let (eal_args, _) = EalArgs::parse([pages, "-m", &memory])?;
    let eal = Eal::new(&eal_args)?;
    let config = PoolConfig::default()
        .name("tester")
        .packets(args.mbufs)
        .data_room(args.mbuf_size.saturating_sub(HEADROOM));
    let pool = Pool::new(&eal.default_domain(), config)?;
    let load = Load { size: args.size, ring: args.ring, burst: args.burst };
    let mut tester =
        Tester { args, traffic: Traffic::new(eal.clock(), pool.clone(), load), eal, pool, port: None };
    say("")?;
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        if line == "quit" {
            break;
        }
        say(&tester.obey(&line)?)?;
    }
    let Tester { traffic, port, .. } = tester;
    drop(traffic);
    port.map(Port::stop);
    Ok(ExitCode::SUCCESS)
}

/// Prints a line, if it is not empty, and a prompt.
fn say(line: &str) -> Result<(), Error> {
    let end = if line.is_empty() { "" } else { "\n" };
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}{end}{PROMPT}").as_bytes()).and_then(|()| out.flush()).map_err(Error::Output)
}

struct Tester<'a> {
    args: &'a EndArgs,
    eal: Eal,
    pool: Pool,
    traffic: Traffic,
    port: Option<Port>,
}

impl Tester<'_> {
    /// Executes a command and returns the answer.
    fn obey(&mut self, line: &str) -> Result<String, Error> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let strange = || Error::End(format!("order \"{line}\" is not understood; see the harness"));
        let number = |text: &str| text.parse::<u64>().map_err(|_| strange());
        match words[..] {
            ["port"] => self.open().map(|()| String::new()),
            ["open", offer, millis] => {
                let offer = Offer::parse(offer).map_err(|_| strange())?;
                let time = Duration::from_millis(number(millis)?);
                self.with(|traffic, queues| json(&traffic.trial(queues, offer, time)))
            }
            ["ping", count, gap, most] => {
                let (gap, most) = (Duration::from_nanos(number(gap)?), Duration::from_millis(number(most)?));
                let count = number(count)?;
                self.with(|traffic, queues| json(&traffic.ping(queues, count, gap, most)))
            }
            ["first", millis] => self.first(Duration::from_millis(number(millis)?)),
            _ => Err(strange()),
        }
    }

    /// Opens the port, then pins this thread, so that the threads of the port are not pinned.
    fn open(&mut self) -> Result<(), Error> {
        if let Some(socket) = &self.args.after {
            await_socket(socket)?;
        }
        let domain = self.eal.default_domain();
        let context = ProbeContext::new(self.eal.memory().clone(), domain, PEER);
        let device = linecard::drivers().probe(&context, &self.args.device)?;
        let mtu = self.args.size.longest().saturating_sub(18).max(1500);
        let mtu = mtu.min(*device.info().mtu.end());
        let (rx_depth, tx_depth) = (self.args.ring, self.args.ring);
        let config = PortConfig::default().rx_depth(rx_depth).tx_depth(tx_depth).mtu(mtu);
        let port = pmd::configure(device, config).and_then(|configured| configured.start(&self.pool));
        self.port = Some(port.map_err(|failure| failure.error)?);
        cores::pin_current(CoreId(self.args.core))?;
        Ok(())
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Traffic, &mut Queues<'_>) -> T) -> Result<T, Error> {
        let open = || Error::End("no port is open yet; see the harness".into());
        let port = self.port.as_mut().ok_or_else(open)?;
        let start = Instant::now();
        while !port.control.link().up && start.elapsed() < PEER {
            thread::sleep(LOOK);
        }
        let (Some(rx), Some(tx)) = (port.rx.first_mut(), port.tx.first_mut()) else { return Err(open()) };
        Ok(act(&mut self.traffic, &mut Queues { rx: &mut **rx, tx: &mut **tx }))
    }

    /// Opens the port unless it is open, and reports when the first packet returned.
    fn first(&mut self, time: Duration) -> Result<String, Error> {
        let mut first = First::default();
        let frontend = self.args.after.clone();
        if let Some(socket) = &frontend {
            await_socket(socket)?;
            first.connected = monotonic_ns();
        }
        if self.port.is_none() {
            self.open()?;
        }
        let Some(port) = self.port.as_mut() else { return Ok(json(&first)) };
        let control = port.control.clone();
        let (Some(rx), Some(tx)) = (port.rx.first_mut(), port.tx.first_mut()) else {
            return Ok(json(&first));
        };
        let mut queues = Queues { rx: &mut **rx, tx: &mut **tx };
        let came = self.traffic.first(&mut queues, time, || {
            let connected = || control.xstats().iter().any(|(name, value)| name == "connects" && *value > 0);
            if first.connected == 0 && connected() {
                first.connected = monotonic_ns();
            }
        });
        // Not the current time, because draining took time after the first frame.
        first.came = came.then(|| self.traffic.first_came());
        Ok(json(&first))
    }
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Waits until the other end's socket exists.
fn await_socket(socket: &Path) -> Result<(), Error> {
    let start = Instant::now();
    while !socket.exists() {
        if start.elapsed() > PEER {
            return Err(Error::End(format!("no backend came to {}; see its log", socket.display())));
        }
        thread::sleep(LOOK);
    }
    Ok(())
}
