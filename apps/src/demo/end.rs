//! One end of the demo, in a separate process: opens its port, moves traffic, reports on standard output.
//!
//! Standard input carries the order to stop. The end also stops when its input or its parent ends.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use linecard::eal::cores::{self, CoreId};
use linecard::eal::{Eal, EalArgs, PageKind};
use linecard::mempool::{Pool, PoolConfig};
use linecard::pmd::contain::contain;
use linecard::pmd::{self, Device, Port, PortConfig, ProbeContext};
use rustix::process::Signal;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::report::{EndReport, Message, Progress};
use super::traffic::{Queues, Traffic};
use crate::error::Error;
use linecard_apps_common::clock::monotonic_ns;

/// Which end of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    Backend,
    Frontend,
}

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::Frontend => "frontend",
        }
    }
}

/// Arguments of the hidden sub-command.
#[derive(Args)]
pub(crate) struct EndArgs {
    #[arg(long)]
    role: Role,
    #[arg(long)]
    socket: PathBuf,
    /// The core to run on
    #[arg(long)]
    core: Option<u32>,
    /// Other threads need this core too
    #[arg(long)]
    polite: bool,
}

/// Descriptors of each ring.
pub(super) const DEPTH: u16 = 512;
const PACKETS: u32 = 4096;
const PROBE_WAIT: Duration = Duration::from_secs(15);

/// The latest order of the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
#[repr(u8)]
enum Phase {
    Run = 0,
    /// Send no further requests.
    Drain = 1,
    /// Report and exit.
    Report = 2,
    /// Exit without a report, because the coordinator is gone.
    Abandon = 3,
}

#[derive(Clone, Default)]
struct SharedPhase(Arc<AtomicU8>);

impl SharedPhase {
    fn give(&self, phase: Phase) {
        self.0.fetch_max(phase as u8, Ordering::Relaxed);
    }

    fn phase(&self) -> Phase {
        match self.0.load(Ordering::Relaxed) {
            0 => Phase::Run,
            1 => Phase::Drain,
            2 => Phase::Report,
            _ => Phase::Abandon,
        }
    }
}

/// The coordinator's orders, one per line.
pub(super) const DRAIN: &str = "drain";
pub(super) const REPORT: &str = "report";

/// Runs one end until it is ordered to report.
///
/// # Errors
/// A port that does not open, or output that cannot be written.
pub(crate) fn run(args: &EndArgs) -> Result<ExitCode, Error> {
    // The parent may exit without an order.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::TERM));
    linecard_apps_common::log::start(&EalArgs::default(), "error")?;
    let shared_phase = SharedPhase::default();
    listen(&shared_phase)?;
    if let Some(core) = args.core {
        // Without its own core the end is slower, but correct.
        if let Err(error) = cores::pin_current(CoreId(core)) {
            tracing::warn!(%error, core, "not pinned");
        }
    }
    let eal_args = EalArgs::default();
    let eal = Eal::new(&eal_args)?;
    let (mut port, pool) = open(args, &eal, &shared_phase)?;
    let mut traffic = Traffic::new(u8::from(args.role == Role::Frontend), pool, eal.clock());
    let (memory, memory_why) = memory(&eal);
    let mut paths = String::new();
    let result = poll(args, &mut port, &mut traffic, &shared_phase, &mut paths);
    let report = EndReport { memory, memory_why, paths, ..traffic.report(monotonic_ns()) };
    drop(traffic);
    port.stop();
    result?;
    if shared_phase.phase() != Phase::Abandon {
        say(&Message::Final(Box::new(report)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Receives orders from standard input and signals.
fn listen(shared_phase: &SharedPhase) -> Result<(), Error> {
    let failed = |source| Error::System {
        action: "orders cannot be taken".into(),
        source,
        remedy: "raise the limits on processes and open files (ulimit -u, ulimit -n)",
    };
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT]).map_err(failed)?;
    let by_signal = shared_phase.clone();
    let on_signal = move || signals.forever().for_each(|_| by_signal.give(Phase::Abandon));
    thread::Builder::new().name("lc-signals".into()).spawn(on_signal).map_err(failed)?;
    let by_line = shared_phase.clone();
    let on_line = move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            match line.as_str() {
                DRAIN => by_line.give(Phase::Drain),
                REPORT => by_line.give(Phase::Report),
                _ => {}
            }
        }
        // The end of input after the order to report is no reason to abandon the report.
        if by_line.phase() != Phase::Report {
            by_line.give(Phase::Abandon);
        }
    };
    thread::Builder::new().name("lc-orders".into()).spawn(on_line).map(drop).map_err(failed)
}

/// The device argument of an end, also for the commands that reproduce the demo by hand.
pub(super) fn device(role: Role, socket: &Path) -> String {
    match role {
        Role::Backend => format!("net_vhost0,iface={},queues=1", socket.display()),
        Role::Frontend => {
            format!("net_virtio_user0,path={},queues=1,queue_size={DEPTH}", socket.display())
        }
    }
}

fn open(args: &EndArgs, eal: &Eal, shared_phase: &SharedPhase) -> Result<(Port, Pool), Error> {
    let domain = eal.default_domain();
    let pool = Pool::new(&domain, PoolConfig::default().name("demo").packets(PACKETS))?;
    if args.role == Role::Frontend {
        await_socket(&args.socket, shared_phase)?;
    }
    let context = ProbeContext::new(eal.memory().clone(), domain, PROBE_WAIT);
    let device = linecard::drivers().probe(&context, &device(args.role, &args.socket))?;
    Ok((start(device, &pool)?, pool))
}

/// Starts the port. A driver panic is reported and counted as lost packets; the end still sends its report.
fn start(device: Box<dyn Device>, pool: &Pool) -> Result<Port, Error> {
    let depth = if device.info().depth.contains(&DEPTH) { DEPTH } else { 0 };
    let config = PortConfig::default().rx_depth(depth).tx_depth(depth);
    let port = pmd::configure(device, config)
        .and_then(|configured| configured.start(pool))
        .map_err(|failure| failure.error)?;
    Ok(contain(port))
}

/// Waits for the backend's socket: both ends start at the same time.
fn await_socket(socket: &Path, shared_phase: &SharedPhase) -> Result<(), Error> {
    let start = Instant::now();
    while !socket.exists() {
        if shared_phase.phase() == Phase::Abandon || start.elapsed() > PROBE_WAIT {
            let path = socket.display();
            return Err(Error::Failed(format!("no backend came to {path}; run `linecard demo` again")));
        }
        thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// Outstanding requests are given up after this much polling without a frame.
const GIVE_UP: Duration = Duration::from_secs(3);
/// The most time counted between two rounds: in any time beyond it this process did not run, so it cannot
/// have seen frames.
const LOOK: Duration = Duration::from_millis(50);
/// The number of rounds between two readings of the clock.
const ROUNDS: u32 = 256;

fn poll(
    args: &EndArgs,
    port: &mut Port,
    traffic: &mut Traffic,
    shared_phase: &SharedPhase,
    paths: &mut String,
) -> Result<(), Error> {
    let (Some(rx), Some(tx)) = (port.rx.first_mut(), port.tx.first_mut()) else {
        return Err(Error::Failed("the port has no queues; run `linecard doctor`".into()));
    };
    let mut queues = Queues { rx: &mut **rx, tx: &mut **tx };
    let control = &port.control;
    let (mut next, mut last_look, mut idle) = (Instant::now(), Instant::now(), Duration::ZERO);
    let mut told = false;
    let mut patience = Patience { polite: args.polite, idle: 0 };
    loop {
        let phase = shared_phase.phase();
        if phase >= Phase::Report {
            // The peer's last echoes may have arrived while this process did not run.
            while phase == Phase::Report && rounds(traffic, &mut queues, false, &mut patience) > 0 {}
            return Ok(());
        }
        let generate = phase == Phase::Run && control.link().up;
        let moved = rounds(traffic, &mut queues, generate, &mut patience);
        let now = Instant::now();
        idle += (now - std::mem::replace(&mut last_look, now)).min(LOOK);
        if moved > 0 {
            idle = Duration::ZERO;
            if paths.is_empty() {
                *paths = control.paths();
            }
        } else if idle > GIVE_UP {
            traffic.write_off();
            idle = Duration::ZERO;
        }
        // While requests are still generated, having none outstanding is not the end.
        let drained = phase == Phase::Drain && traffic.drained();
        if now >= next || (drained && !told) {
            next = now + PROGRESS_EVERY;
            told |= drained;
            say(&Message::Progress(Progress { drained, ..traffic.progress() }))?;
        }
    }
}

/// Runs up to [`ROUNDS`] rounds; fewer after so long without a frame that orders should be checked.
fn rounds(traffic: &mut Traffic, queues: &mut Queues<'_>, generate: bool, patience: &mut Patience) -> usize {
    let mut moved = 0;
    for _ in 0..ROUNDS {
        let now = traffic.round(queues, generate);
        moved += now;
        if patience.after(now) {
            break;
        }
    }
    queues.tx.reclaim();
    moved
}

/// How to wait for the peer without occupying the core that it needs.
struct Patience {
    /// The peer may need this core too.
    polite: bool,
    idle: u32,
}

impl Patience {
    /// Waits if the last round moved nothing; returns true if it is time to check for orders.
    #[inline]
    fn after(&mut self, moved: usize) -> bool {
        if moved > 0 {
            self.idle = 0;
            return false;
        }
        self.idle = self.idle.saturating_add(1);
        let (spins, yields) = if self.polite { (0, 64) } else { (2048, 8192) };
        if self.idle <= spins {
            std::hint::spin_loop();
        } else if self.idle <= spins + yields {
            thread::yield_now();
        } else {
            // The peer has not sent for a while, and yielding may not let it run: sleep.
            thread::sleep(Duration::from_micros(50));
            return true;
        }
        self.polite
    }
}

/// Returns the kind of memory in use, and why.
fn memory(eal: &Eal) -> (String, String) {
    let Some(kind) = eal.default_domain().page_kind() else { return Default::default() };
    let why = match kind {
        PageKind::Huge1G | PageKind::Huge2M => "reserved ones were free",
        PageKind::Transparent => "no reserved hugepages were free; the kernel may join pages",
        PageKind::Small => "no hugepages were free, and shared memory gets no transparent ones",
    };
    (kind.to_string(), why.into())
}

fn say(message: &Message) -> Result<(), Error> {
    let mut line = serde_json::to_string(message).unwrap_or_default();
    line.push('\n');
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).map_err(Error::Output)
}

#[cfg(test)]
mod tests {
    use linecard::mempool::Burst;
    use linecard::pmd::{DeviceInfo, RxQueue, StartError};

    use super::*;

    /// A device whose receive queues panic.
    struct Faulty(Box<dyn Device>);

    impl Device for Faulty {
        fn name(&self) -> &str {
            self.0.name()
        }

        fn info(&self) -> DeviceInfo {
            self.0.info()
        }

        fn start(self: Box<Self>, config: &PortConfig, pool: &Pool) -> Result<Port, StartError> {
            let port = self.0.start(config, pool)?;
            Ok(Port { rx: vec![Box::new(Bomb)], ..port })
        }
    }

    struct Bomb;

    impl RxQueue for Bomb {
        fn rx_burst(&mut self, _: &mut Burst) -> usize {
            panic!("the driver did not expect this")
        }

        fn path(&self) -> &'static str {
            "bomb"
        }
    }

    #[test]
    fn an_end_whose_driver_panics_goes_on() {
        let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "64"]).expect("arguments").0).expect("memory");
        let domain = eal.default_domain();
        let pool = Pool::new(&domain, PoolConfig::default().packets(PACKETS)).expect("a pool");
        let context = ProbeContext::new(eal.memory().clone(), domain, PROBE_WAIT);
        let device = linecard::drivers().probe(&context, "net_null0").expect("a device");
        let mut port = start(Box::new(Faulty(device)), &pool).expect("it starts");
        assert_eq!((port.rx[0].rx_burst(&mut Burst::new()), port.rx[0].path()), (0, "panicked"));
    }
}
