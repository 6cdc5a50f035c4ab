//! `linecard testpmd`: forwards packets between ports, driven by dpdk-testpmd's arguments and commands.
//!
//! ```text
//! options ─► ports ─► session ◄─ console (none: non-interactive)
//!                        │ start: queues move out          stop: queues return
//!                        ▼                                           ▲
//!                engine: one thread per lcore, each polls its lanes: rx ─► mode ─► tx
//! ```

mod bursts;
mod console;
mod counters;
mod describe;
mod engine;
mod frames;
mod lane;
mod latency;
mod layout;
mod links;
mod live;
mod manual;
mod modes;
mod options;
mod ports;
mod recording;
mod session;
mod settings;
mod soft;
mod telling;
mod topology;
mod verbose;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use linecard::capture::Hub;
use linecard::eal::{Eal, EalArgs, runtime};
use linecard::mempool::{HEADROOM, Pool, PoolConfig};
use linecard::pmd::{ProbeContext, Registry};

use self::console::Input;
pub(crate) use self::manual::describe;
use self::options::Options;
use self::ports::Ports;
use self::session::{Session, SessionConfig};
use self::telling::Telling;
use crate::capture::ControlSocket;
use crate::error::Error;
use crate::output::{Output, err, out};

/// How long a peer may take to answer while its port is opened.
const PROBE_WAIT: Duration = Duration::from_secs(2);

/// The log level unless another one is requested.
const LOG_DEFAULT: &str = "warn";

/// Runs testpmd with these drivers and the arguments after its name.
///
/// # Errors
/// The reason why testpmd could not start, in one sentence; or that its output cannot be written.
pub(crate) fn run(known: &Registry, arguments: &[OsString]) -> Result<ExitCode, Error> {
    let (eal_args, rest) =
        EalArgs::parse(arguments.iter().cloned()).map_err(|e| Error::Usage(e.to_string()))?;
    let options = options::parse(&rest)?;
    let mut output = Output::standard();
    if eal_args.help || options.help {
        print_help(&mut output, known);
        output.finish(false)?;
        return Ok(ExitCode::SUCCESS);
    }
    if eal_args.version {
        out!(output, "linecard {}\n", env!("CARGO_PKG_VERSION"));
    }
    linecard_apps_common::log::start(&eal_args, LOG_DEFAULT).map_err(|e| Error::Usage(e.to_string()))?;
    let mut input = Input::standard(options.interactive)?;
    let mut session = open(output, (known, &eal_args), options, arguments)?;
    session.link_news.wake_by(input.waker());
    session.signalled = input.signalled();
    let result = start_ports(&mut session).and_then(|()| forward(&mut session, &mut input));
    if result.is_ok() {
        session.close();
    }
    drop(input);
    result?;
    session.out.finish(true)?;
    match session.bad_line {
        Some(line) => Err(Error::Failed(format!("{line} is no command; `help all` in a console lists them"))),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn print_help(output: &mut Output, known: &Registry) {
    out!(
        output,
        "usage: linecard testpmd [EAL options] -- [testpmd options]\n\n{}\n{}\ndevices for --vdev (-a takes the PCI address alone):\n",
        EalArgs::help_text(),
        options::help()
    );
    for driver in known.drivers() {
        out!(output, "  {:<18} {}\n", driver.name(), driver.summary());
    }
}

/// Initializes the EAL, and opens the devices and the pool; no packet moves yet.
fn open(
    mut output: Output,
    (known, eal_args): (&Registry, &EalArgs),
    options: Options,
    arguments: &[OsString],
) -> Result<Session, Error> {
    let eal = Eal::new(eal_args)?;
    let ignored: Vec<_> = eal_args.ignored.iter().chain(&options.ignored).map(String::as_str).collect();
    if !ignored.is_empty() {
        err!(output, "testpmd: options without effect here: {}\n", ignored.join(" "));
    }
    if options.interactive {
        out!(output, "Interactive-mode selected\n");
    }
    if options.auto_start {
        out!(output, "Auto-start selected\n");
    }
    output.flush();
    let registry = known.clone();
    let context = ProbeContext::new(eal.memory().clone(), eal.default_domain(), PROBE_WAIT);
    let mut ports = Ports::default();
    for device in eal_args.devices() {
        let name = device.split(',').next().unwrap_or(device);
        if ports.named(name).is_some() {
            let problem = format!("the command line names {name} twice; give the second one another number");
            return Err(Error::Usage(problem));
        }
        let opened = registry.probe(&context, device)?;
        let id = ports.add(device, opened, Session::port_config(&options))?;
        if let Some(slot) = ports.get_mut(id) {
            slot.soft.vlan = options.vlan.clone();
        }
        ports.get(id).map_or(Ok(()), ports::PortRecord::check_queues)?;
    }
    let pool = make_pool(&mut output, &eal, &options, &ports)?;
    let hub = Hub::new();
    let server = if eal_args.in_memory { None } else { serve(&hub, eal_args.file_prefix.as_deref()) };
    let telling = Telling::start(&eal, &pool, eal_args, &options, arguments)?;
    if let Some(address) = telling.metrics() {
        out!(output, "testpmd: counters at {address}\n");
    }
    let log_levels = eal_args.log_level.clone();
    let parts =
        SessionConfig { eal, registry, context, pool, ports, options, hub, server, telling, log_levels };
    Ok(Session::new(output, parts))
}

/// Listens for `linecard capture`. Forwarding works without the socket too.
fn serve(hub: &Hub, prefix: Option<&str>) -> Option<ControlSocket> {
    let opened = ControlSocket::open(hub, prefix.unwrap_or(runtime::DEFAULT_PREFIX));
    opened.inspect_err(|error| tracing::info!("no capture from outside: {error}")).ok()
}

/// The least packets of a pool, whatever the rings hold.
const LEAST_PACKETS: u32 = 8192;

/// Creates the pool for all ports: twice the packets that the rings hold, plus those that threads cache.
fn make_pool(output: &mut Output, eal: &Eal, options: &Options, ports: &Ports) -> Result<Pool, Error> {
    let default = PoolConfig::default();
    let cache = options.mbuf_cache.unwrap_or(default.cache);
    let lcores = u32::try_from(eal.lcores().all().len()).unwrap_or(u32::MAX);
    let in_rings: u32 = ports.iter().map(ports::PortRecord::ring_packets).sum();
    let aside = lcores.saturating_mul(u32::from(cache) * 2 + 64);
    let size = options.mbuf_size();
    let packets = options.total_mbufs.unwrap_or_else(|| {
        let wanted = in_rings.saturating_mul(2).saturating_add(aside).max(LEAST_PACKETS);
        wanted.min(fitting(eal, size).max(in_rings.saturating_add(aside)))
    });
    err!(output, "testpmd: create a new mbuf pool <mb_pool_0>: n={packets}, size={size}, socket=0\n");
    let config =
        default.name("mb_pool_0").packets(packets).data_room(size.saturating_sub(HEADROOM)).cache(cache);
    let pool = Pool::new(&eal.default_domain(), config)?;
    if let Some(pages) = eal.default_domain().page_kind() {
        err!(output, "testpmd: memory of {pages}\n");
    }
    Ok(pool)
}

/// The packets for which a quarter of the memory limit remains for rings.
fn fitting(eal: &Eal, size: u16) -> u32 {
    /// Generous allowance per buffer for alignment and metadata.
    const BESIDE: usize = 192;
    let bytes = eal.memory().config().limit.unwrap_or(usize::MAX);
    u32::try_from(bytes / 4 * 3 / (usize::from(size) + BESIDE)).unwrap_or(u32::MAX)
}

fn start_ports(session: &mut Session) -> Result<(), Error> {
    if session.ports.len() == 0 {
        if !session.options.interactive {
            let problem =
                "no port to forward on; name devices, as in --vdev net_null0, or run a console with -i";
            return Err(Error::Usage(problem.into()));
        }
        out!(session.out, "testpmd: No probed ethernet devices\n");
    }
    session.warn_odd_ports();
    check_settings(session)?;
    if !session.options.ports_stopped {
        for id in session.ports.ids() {
            session.start_ports(Some(id))?;
        }
        out!(session.out, "Checking link statuses...\nDone\n");
    }
    if let Some(lcore) = session.options.latency_lcore {
        out!(session.out, "Latencystats running on lcore {lcore}\n");
    }
    session.tell_ports();
    session.out.flush();
    Ok(())
}

/// Checks the settings of the command line against the existing ports and lcores.
fn check_settings(session: &Session) -> Result<(), Error> {
    let settings = &session.settings;
    let usage = |problem: String| Err(Error::Usage(problem));
    if let Some(lcores) = &settings.lcores
        && let Err(problem) = console::check_lcores(session, lcores)
    {
        return usage(problem);
    }
    let max = session.worker_lcores().len();
    if settings.nb_cores as usize > max {
        return usage(format!("nb-cores should be > 0 and <= {max}; add lcores with -l or --lcores"));
    }
    let lcores = session.eal.lcores();
    if let Some(asked) = session.options.latency_lcore
        && !lcores.all().iter().any(|lcore| lcore.id.0 == asked)
    {
        return usage(format!(
            "--latencystats names lcore {asked}; the lcores are {lcores}; name one of them, or add it with -l or \
             --lcores"
        ));
    }
    let known = session.ports.len();
    if let Some(id) = settings.ports.iter().flatten().find(|id| session.ports.get(**id).is_none()) {
        return usage(format!("Invalid port {id}; there are {known} ports, numbered from 0"));
    }
    if let Some(id) = session.options.peer_ports.iter().find(|id| session.ports.get(**id).is_none()) {
        let problem = format!("--eth-peer names port {id}; there are {known} ports, numbered from 0");
        return usage(problem);
    }
    if settings.nb_ports.is_some_and(|count| usize::from(count) > known) {
        return usage(format!("nb-ports should be > 0 and <= {known}; add devices with --vdev"));
    }
    Ok(())
}

fn forward(session: &mut Session, input: &mut Input) -> Result<(), Error> {
    if let Some((path, echoed)) = session.options.command_file.clone() {
        out!(session.out, "CLI commands to be read from {}\n", path.display());
        console::run_file(session, &path, echoed).map_err(|source| Error::System {
            action: format!("the commands in {} cannot be read", path.display()),
            source,
            remedy: "name a readable file with --cmdline-file",
        })?;
        out!(session.out, "Read CLI commands from {}\n", path.display());
    }
    if session.options.interactive {
        if session.options.auto_start && !session.quit {
            out!(session.out, "Start automatic packet forwarding\n");
            session.start_forwarding(0);
        }
        console::run(session, input);
        return Ok(());
    }
    if !session.quit {
        out!(session.out, "No commandline core given, start packet forwarding\n");
        if !session.forwarding() {
            session.start_forwarding(u32::from(session.options.tx_first));
        }
        if !session.forwarding() {
            let problem = "forwarding did not start for the reason above; add -i to look around in a console";
            return Err(Error::Failed(problem.into()));
        }
        unattended(session, input);
    }
    Ok(())
}

/// Forwards until Enter, the end of the input or a signal; with a statistics period only a signal ends it.
fn unattended(session: &mut Session, input: &mut Input) {
    let period = Duration::from_secs(session.options.stats_period.into());
    if period.is_zero() {
        out!(session.out, "Press enter to exit\n");
        session.out.flush();
        input.ask();
    }
    let mut next = Instant::now();
    while !session.out.failed() {
        if !period.is_zero() && Instant::now() >= next {
            print_period(session);
            next += period;
        }
        if input.wait(Duration::from_millis(100), &mut session.out).is_some() {
            break;
        }
        let news = session.report_links();
        if !news.is_empty() {
            out!(session.out, "{news}");
            session.out.flush();
        }
    }
    if session.forwarding() {
        session.stop_forwarding();
    }
}

fn print_period(session: &mut Session) {
    // Clears the screen, as DPDK does; a file or a pipe gets plain text.
    if Output::is_terminal() {
        out!(session.out, "\x1b[2J\x1b[1;1H");
    }
    out!(session.out, "\nPort statistics ====================================");
    for slot in session.ports.iter_mut() {
        let (stats, rates) = slot.look();
        let chosen = slot.chosen_xstats(&session.options.shown_xstats);
        out!(session.out, "{}{chosen}", layout::port_stats(slot.id, &stats, &rates));
    }
    session.out.flush();
}
