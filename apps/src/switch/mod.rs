//! `linecard switch`: a learning switch over vhost-user sockets, taps and any device, in one process.
//!
//! ```text
//!   arguments, --config FILE, state ─► ports ─► Switch (workers, one per lcore)
//!   `linecard switch ctl …`, container plugins ─► control socket ─► Service ─┘
//! ```

mod args;
mod config;
mod ctl;
mod notify;
mod port;
mod socket;
mod text;
mod top;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use linecard::capture::{ControlSocket, Hub};
use linecard::eal::{Eal, EalArgs};
use linecard::mempool::{Pool, PoolConfig};
use linecard::pmd::ProbeContext;
use linecard::telemetry::{Endpoint, openmetrics};
use linecard_switch::api::{PortSpec, PortState};
use linecard_switch::rules::Defaults;
use linecard_switch::server::{Server, Service};
use linecard_switch::state::State;
use linecard_switch::{Switch, SwitchConfig, metrics};

pub(crate) use self::args::SwitchArgs;
use self::config::Config;
use self::socket::Socket;
use crate::error::Error;
use crate::output::{Output, out};

/// How long opening a port may wait for its peer.
const PROBE_WAIT: Duration = Duration::from_secs(2);
/// The folder where captures find switches.
const PREFIX: &str = "switch";
/// How often the switch looks after what does not forward frames.
const LOOK: Duration = Duration::from_millis(100);

/// Runs the switch, or speaks to one.
///
/// # Errors
/// What kept it from starting, or what the other one refused.
pub(crate) fn run(args: &SwitchArgs) -> Result<ExitCode, Error> {
    match &args.command {
        Some(args::SwitchCommand::Ctl(ctl)) => ctl::run(ctl),
        None => serve(args),
    }
}

fn serve(args: &SwitchArgs) -> Result<ExitCode, Error> {
    let config = args.config.as_deref().map(Config::read).transpose()?.unwrap_or_default();
    let mut configured = config.ports.clone();
    configured.extend(args.ports()?);
    let (eal, eal_args) = machine(args, &config)?;
    linecard_apps_common::log::start(&eal_args, "warn").map_err(|e| Error::Usage(e.to_string()))?;
    let stop = ended()?;

    let socket = Socket::open(args.socket.as_deref().or(config.socket.as_deref()))?;
    let state = state(args, &config, socket.as_ref());
    let restored = state.as_ref().map(State::load).transpose().map_err(failed)?.unwrap_or_default();
    let captures = Hub::new();
    // What cannot be captured is switched all the same.
    let _captured = ControlSocket::open(&captures, PREFIX)
        .inspect_err(|error| tracing::warn!("nobody can capture from this switch: {error}"));
    let switch = Arc::new(start(args, &config, &eal, captures)?);
    let mut output = Output::standard();
    for spec in &configured {
        let added = switch.add(spec, None).map_err(failed)?;
        announce(&mut output, spec, &format!("is {}", added.port.device));
    }
    let mut kept = Vec::new();
    for spec in &restored {
        match switch.restore(spec) {
            Ok(PortState::Waiting) => announce(&mut output, spec, "waits to be attached again"),
            Ok(_) => announce(&mut output, spec, "is back"),
            Err(problem) => return Err(failed(problem)),
        }
        kept.push(spec.key.clone());
    }
    let metrics = args.metrics.as_deref().or(config.metrics.as_deref());
    let metrics = metrics.map(|address| offer_counters(address, &switch)).transpose()?;
    let service = Arc::new(Service::new(Arc::clone(&switch), state, kept, env!("CARGO_PKG_VERSION")));
    let server = match &socket {
        Some(socket) => Some(socket.serve(service)?),
        None => None,
    };
    let workers = if eal.lcores().all().len() == 1 { "worker" } else { "workers" };
    out!(output, "switching; {} {workers}", eal.lcores().all().len());
    match &socket {
        Some(socket) => out!(output, "; control socket {}", socket.path().display()),
        None => out!(output, "; no control socket"),
    }
    match &metrics {
        Some(metrics) => out!(output, "; counters at {}\n", metrics.address()),
        None => out!(output, "\n"),
    }
    output.finish(false)?;
    notify::ready();
    watch(&switch, &stop);
    notify::stopping();
    drop(metrics);
    end(server, switch);
    Ok(ExitCode::SUCCESS)
}

/// Answers Prometheus at `address`.
fn offer_counters(address: &str, switch: &Arc<Switch>) -> Result<Endpoint, Error> {
    let switch = Arc::clone(switch);
    Ok(openmetrics::serve(address, move || metrics::text(&switch.stats(), env!("CARGO_PKG_VERSION")))?)
}

fn announce(output: &mut Output, spec: &PortSpec, what: &str) {
    out!(output, "port {} {what}\n", spec.key);
    output.flush();
}

fn watch(switch: &Switch, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        switch.look_after();
        std::thread::sleep(LOOK);
    }
}

/// Nobody is answered any more once ports begin to go.
fn end(server: Option<Server>, switch: Arc<Switch>) {
    drop(server);
    drop(switch);
}

/// A flag that SIGINT and SIGTERM set.
fn ended() -> Result<Arc<AtomicBool>, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(|source| Error::System {
            action: "signals cannot be handled".into(),
            source,
            remedy: "run the switch outside of the sandbox that forbids it",
        })?;
    }
    Ok(stop)
}

/// Memory and cores, by EAL's grammar.
fn machine(args: &SwitchArgs, config: &Config) -> Result<(Eal, EalArgs), Error> {
    let mut words: Vec<String> = Vec::new();
    if let Some(lcores) = args.lcores.as_ref().or(config.lcores.as_ref()) {
        words.extend(["--lcores".into(), lcores.clone()]);
    }
    if let Some(memory) = args.memory.or(config.memory) {
        words.extend(["-m".into(), memory.to_string()]);
    }
    if args.no_huge {
        words.push("--no-huge".into());
    }
    for level in &args.log_level {
        words.extend(["--log-level".into(), level.clone()]);
    }
    let (eal_args, _) = EalArgs::parse(words).map_err(|e| Error::Usage(e.to_string()))?;
    Ok((Eal::new(&eal_args)?, eal_args))
}

fn start(args: &SwitchArgs, config: &Config, eal: &Eal, captures: Hub) -> Result<Switch, Error> {
    let packets = args.packets.or(config.packets).unwrap_or(16_384);
    let pool = PoolConfig { name: "switch".into(), packets, ..PoolConfig::default() };
    let pool = Pool::new(&eal.default_domain(), pool)?;
    let context =
        ProbeContext { memory: eal.memory().clone(), domain: eal.default_domain(), wait: PROBE_WAIT };
    let defaults = Defaults::default();
    let defaults = Defaults {
        flood_rate: config.flood_rate.unwrap_or(defaults.flood_rate),
        max_macs: config.max_macs.unwrap_or(defaults.max_macs),
    };
    Ok(Switch::start(SwitchConfig {
        drivers: linecard::drivers(),
        context,
        pool,
        captures,
        lcores: eal.lcores().all().to_vec(),
        addresses: args.addresses.or(config.addresses).unwrap_or(65_536) as usize,
        age_seconds: args.age.or(config.age_seconds).unwrap_or(300),
        neigh_suppress: args.neigh_suppress || config.neigh_suppress.unwrap_or(false),
        defaults,
    })?)
}

/// Where ports are kept: beside the control socket unless told otherwise; nowhere without one.
fn state(args: &SwitchArgs, config: &Config, socket: Option<&Socket>) -> Option<State> {
    match args.state.as_deref().or(config.state.as_deref()) {
        Some(path) if path.as_os_str() == "none" => None,
        Some(path) => Some(State::at(path)),
        None => socket.map(|socket| State::at(&socket.path().with_extension("ports.json"))),
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Failed(error.to_string())
}
