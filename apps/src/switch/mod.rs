//! `linecard switch`: a learning switch over vhost-user sockets, taps and any device, in one process.
//!
//! ```text
//!   arguments, --config FILE, state ─► ports ─► Switch (workers, one per lcore)
//!   `linecard switch ctl …`, container plugins ─► control socket ─► Service ─┘
//! ```

mod args;
mod config;
mod ctl;
mod early;
mod keeper;
mod kept;
mod notify;
mod port;
mod predecessor;
mod sandbox;
mod socket;
mod span;
mod takeover;
mod telling;
mod text;
mod top;
mod upgrade;

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use linecard::capture::{ControlSocket, Hub};
use linecard::eal::{Eal, EalArgs, runtime};
use linecard::mempool::{Pool, PoolConfig};
use linecard::pmd::ProbeContext;
use linecard::telemetry;
use linecard_switch::api::{PortSpec, PortState, Problem, Span};
use linecard_switch::keep::Store;
use linecard_switch::rules::Defaults;
use linecard_switch::server::{Server, Service, Sweeper};
use linecard_switch::state::State;
use linecard_switch::upgrade::TakenOver;
use linecard_switch::{Switch, SwitchConfig};

pub(crate) use self::args::SwitchArgs;
use self::config::Config;
use self::early::Early;
use self::kept::Found;
use self::predecessor::Predecessor;
use self::sandbox::{Needs, Sandbox};
use self::socket::Socket;
use self::takeover::Taken;
use self::telling::Telling;
use crate::error::Error;
use crate::output::{Output, out};
use crate::signals;

/// How long opening a port may wait for its peer.
const PROBE_WAIT: Duration = Duration::from_secs(2);
/// The runtime folder in which capture and telemetry clients find switches.
const PREFIX: &str = "switch";
/// The interval of the switch's periodic work besides forwarding.
const LOOK: Duration = Duration::from_millis(100);
/// The interval of checks for ports whose containers no longer exist.
const SWEEP: Duration = Duration::from_secs(10);

/// Runs a switch, or controls a running one.
///
/// # Errors
/// The switch cannot start, or the running one refuses.
pub(crate) fn run(args: &SwitchArgs) -> Result<ExitCode, Error> {
    match &args.command {
        Some(args::SwitchCommand::Ctl(ctl)) => ctl::run(ctl),
        None if args.keep => keeper::run(),
        None => serve(args),
    }
}

fn serve(args: &SwitchArgs) -> Result<ExitCode, Error> {
    let config = args.config.as_deref().map(Config::read).transpose()?.unwrap_or_default();
    let mut configured = config.ports.clone();
    configured.extend(args.ports()?);
    let (sandbox, early) =
        args.sandbox.then(|| enter_sandbox(args, &config, &configured)).transpose()?.unzip();
    let (eal, eal_args) = machine(args, &config)?;
    linecard_apps_common::log::start(&eal_args, "warn").map_err(|e| Error::Usage(e.to_string()))?;
    let stop = signals::stop_flag(&signals::TERMINATION)?;

    let captures = Hub::new();
    // Without captures the switch still works.
    let _captured = ControlSocket::open(&captures, PREFIX)
        .inspect_err(|error| tracing::warn!("nobody can capture from this switch: {error}"));
    let mut output = Output::standard();
    let mut found = Found::look(args);
    let store = found.store.clone();
    let Begun { mut socket, state, kept, namespaces, switch, predecessor } = if args.take_over {
        take_over(args, &config, &configured, (&eal, captures, store.clone()), &mut output)?
    } else {
        let predecessor = Predecessor::of_this_process();
        let before = Before { found: &mut found, early: early.unwrap_or_default(), predecessor };
        begin(args, &config, (&configured, before), (&eal, captures, store.clone()), &mut output)?
    };
    let control = kept::keep_control(store.as_ref(), socket.as_ref())?;
    if store.is_some() {
        let usage = eal.memory().usage();
        notify::liveness(if usage.huge_1g + usage.huge_2m > 0 { predecessor::HUGE } else { "" });
    }
    let metrics = args.metrics.as_deref().or(config.metrics.as_deref());
    let mut telling = Telling::start((args, &eal), metrics, &switch, predecessor)?;
    // Sealed before any request is answered.
    sandbox.as_ref().map(|_| sandbox::seal()).transpose()?;
    let (server, service) = answer(&switch, socket.as_ref(), state, (kept, namespaces))?;
    if args.take_over
        && let Err(problem) = service.keep()
    {
        tracing::warn!("{problem}");
    }
    let workers = if eal.lcores().all().len() == 1 { "worker" } else { "workers" };
    out!(output, "switching; {} {workers}", eal.lcores().all().len());
    match &socket {
        Some(socket) => out!(output, "; control socket {}", socket.path().display()),
        None => out!(output, "; no control socket"),
    }
    match telling.metrics() {
        Some(address) => out!(output, "; counters at {address}\n"),
        None => out!(output, "\n"),
    }
    if let Some(sandbox) = sandbox {
        out!(output, "{sandbox}\n");
    }
    output.finish(false)?;
    notify::ready();
    // Without the sweeper ports stay until they are removed.
    let sweeper = Sweeper::start(Arc::clone(&service), SWEEP)
        .inspect_err(|error| tracing::warn!("ports of containers that are gone stay: {error}"));
    watch(&switch, &stop, &service, &mut telling);
    if service.successor().is_some() {
        // The name of the control socket belongs to the successor, too; and the service manager has been told.
        if let Some(socket) = &mut socket {
            socket.leave_name();
        }
    } else {
        notify::stopping();
    }
    control.iter().for_each(|control| drop(control.forget()));
    drop((telling, sweeper));
    end(server, service, switch);
    Ok(ExitCode::SUCCESS)
}

/// Gives up the rights that the switch does not need. No other thread exists yet; threads created later inherit this.
fn enter_sandbox(
    args: &SwitchArgs,
    config: &Config,
    configured: &[PortSpec],
) -> Result<(Sandbox, Early), Error> {
    let mut needs = Needs::default();
    let socket = Socket::place(args.socket.as_deref().or(config.socket.as_deref()));
    let state = state(args, config, socket.as_deref());
    for path in socket.iter().map(PathBuf::as_path).chain(state.iter().map(State::path)) {
        needs.add_folder_of(path)?;
    }
    let saved = state.as_ref().map(State::load).transpose().map_err(failed)?.unwrap_or_default();
    saved.ports.iter().try_for_each(|spec| needs.add(spec))?;
    // Ports that were added later or passed justify no right: a tap among them waits until it is passed again.
    needs.taps = false;
    configured.iter().try_for_each(|spec| needs.add(spec))?;
    // The folders in which clients of captures and telemetry look; the second is shared with DPDK.
    runtime::create(PREFIX)?;
    needs.folders.insert(runtime::root());
    if !args.no_telemetry
        && let Some(folder) = telemetry::folder(PREFIX).parent()
    {
        // An error is reported when the folder is used.
        let _ = DirBuilder::new().mode(0o700).create(folder);
        needs.folders.insert(folder.to_owned());
    }
    for folder in &args.sandbox_allow {
        needs.folders.insert(std::path::absolute(folder).unwrap_or_else(|_| folder.clone()));
    }
    let metrics = args.metrics.as_deref().or(config.metrics.as_deref()).unwrap_or_default();
    match metrics.strip_prefix("unix:") {
        Some(path) => needs.add_folder_of(Path::new(path))?,
        None => needs.tcp_port = metrics.rsplit(':').next().and_then(|port| port.parse().ok()),
    }
    // The ports of a switch to be taken over are handed over by it.
    let early = if args.take_over { Early::default() } else { Early::open(&saved.ports) };
    Ok((sandbox::enter(&needs)?, early))
}

/// The state of an earlier run.
struct Before<'a> {
    found: &'a mut Found,
    early: Early,
    predecessor: Predecessor,
}

/// A switch that forwards frames.
struct Begun {
    socket: Option<Socket>,
    /// The file of ports that are added by request, and the keys of these ports.
    state: Option<State>,
    kept: Vec<String>,
    /// The network namespaces of containers, as an earlier process saw them.
    namespaces: BTreeMap<String, String>,
    switch: Arc<Switch>,
    /// The process from which the switch took over.
    predecessor: Option<u32>,
}

/// Starts a switch with the configured ports and those that were added to an earlier one.
fn begin(
    args: &SwitchArgs,
    config: &Config,
    (configured, Before { found, mut early, mut predecessor }): (&[PortSpec], Before<'_>),
    machine: Machine<'_>,
    output: &mut Output,
) -> Result<Begun, Error> {
    let asked = args.socket.as_deref().or(config.socket.as_deref());
    let socket = match found.socket(Socket::place(asked).as_deref()) {
        Some(socket) => Some(socket),
        None => Socket::open(asked)?,
    };
    let state = state(args, config, socket.as_ref().map(Socket::path));
    let saved = state.as_ref().map(State::load).transpose().map_err(failed)?.unwrap_or_default();
    let (restored, addresses, namespaces) = (saved.ports, saved.fdb, saved.namespaces);
    let memory = machine.0.memory();
    let switch = predecessor.start_beside(memory, || start(args, config, machine.clone()))?;
    let switch = Arc::new(switch);
    switch.restore_moves(saved.moves);
    // Before there are ports, so that an output port is never an ordinary one for a moment.
    mirror(&switch, config, &saved.spans)?;
    let back = found.recover(&switch, configured.iter().chain(&restored))?;
    // Frames pass again between these ports. What follows may need something that the predecessor still holds.
    predecessor.wait();
    let is_back = |spec: &PortSpec| back.contains(&spec.key);
    for key in &back {
        out!(output, "port {key} stayed connected\n");
    }
    for spec in configured.iter().filter(|spec| !is_back(spec)) {
        let added = switch
            .add(spec, None)
            .map_err(|problem| Error::Failed(format!("port '{}': {problem}", spec.key.escape_debug())))?;
        announce(output, spec, &format!("is {}", added.port.device));
    }
    let mut kept = Vec::new();
    for spec in &restored {
        if is_back(spec) {
            kept.push(spec.key.clone());
            continue;
        }
        match restore(&switch, spec, early.take(spec)) {
            Ok(PortState::Waiting) => announce(output, spec, "waits to be attached again"),
            Ok(_) => announce(output, spec, "is back"),
            Err(problem) => return Err(failed(problem)),
        }
        kept.push(spec.key.clone());
    }
    for address in &addresses {
        if let Err(problem) = switch.fix(address) {
            tracing::warn!("the address {} is not behind port {}: {problem}", address.mac, address.port);
        }
    }
    for span in switch.spans().into_iter().filter(|span| !span.absent.is_empty()) {
        tracing::warn!("mirroring to port {} waits for {}", span.span.to, span.absent.join(", "));
    }
    Ok(Begun { socket, state, kept, namespaces, switch, predecessor: None })
}

/// Restores a port of an earlier run, with the descriptor that was opened before the sandbox.
fn restore(
    switch: &Switch,
    spec: &PortSpec,
    early: Option<Result<OwnedFd, String>>,
) -> Result<PortState, Problem> {
    match early {
        None => switch.restore(spec),
        Some(Ok(fd)) => switch.restore_with(spec, Some(fd)),
        Some(Err(error)) => {
            tracing::warn!(
                "port {}: what it had in another namespace cannot be had again: {error}",
                spec.key
            );
            switch.restore_with(spec, None)
        }
    }
}

/// Restores the configured mirroring sessions and those set by request, which take precedence.
fn mirror(switch: &Switch, config: &Config, saved: &[Span]) -> Result<(), Error> {
    let by_request = |to: &str| switch.spans().iter().any(|info| info.kept && info.span.to == to);
    for (span, kept) in
        saved.iter().map(|span| (span, true)).chain(config.spans.iter().map(|span| (span, false)))
    {
        if kept || !by_request(&span.to) {
            switch.restore_span(span, kept).map_err(failed)?;
        }
    }
    Ok(())
}

/// Starts a switch that takes over from the one at the control socket.
fn take_over(
    args: &SwitchArgs,
    config: &Config,
    configured: &[PortSpec],
    machine: Machine<'_>,
    output: &mut Output,
) -> Result<Begun, Error> {
    let path = takeover::place(args, config)?;
    let store = machine.2.clone();
    let switch = Arc::new(start(args, config, machine)?);
    let state = state(args, config, Some(&path));
    let Taken { socket, kept, fresh, told, successor } = takeover::take(&switch, path, configured)?;
    // The predecessor's file holds data about ports that is not handed over.
    let saved = state.as_ref().map(State::load).transpose().unwrap_or_else(|problem| {
        tracing::warn!("{problem}");
        None
    });
    let saved = saved.unwrap_or_default();
    switch.restore_moves(saved.moves);
    // From here on the ports belong to this switch: errors that would not stop a running switch do not stop this one.
    successor.finish(&switch);
    if let Err(error) = mirror(&switch, config, &[]) {
        tracing::error!("what is configured to be mirrored is not: {error}");
    }
    keep(&switch, store.as_deref(), told.pid);
    for spec in &fresh {
        match switch.add(spec, None) {
            Ok(added) => announce(output, spec, &format!("is {}", added.port.device)),
            Err(problem) => tracing::error!("port {} is not there: {problem}", spec.key),
        }
    }
    let TakenOver { pid, version, ports, rest, pause, .. } = told;
    let predecessor = Some(pid);
    let micros = pause.as_micros();
    out!(
        output,
        "took over from process {pid}, linecard {version}: {ports} ports stayed connected, {rest} were opened anew; no frame passed for {micros} µs\n"
    );
    output.flush();
    let socket = Some(socket);
    Ok(Begun { state, socket, kept, namespaces: saved.namespaces, switch, predecessor })
}

/// The memory and cores of a switch, its capture hub, and the store for its state.
type Machine<'a> = (&'a Eal, Hub, Option<Arc<Store>>);

/// Keeps the state taken over from the switch of process `pid`, which keeps none any more.
fn keep(switch: &Switch, store: Option<&Store>, pid: u32) {
    switch.keep_all();
    if let Some(store) = store
        && let Err(error) = store.remove(pid)
    {
        tracing::warn!("the service manager goes on holding what the earlier switch kept: {error}");
    }
}

/// Serves requests for `switch` at `socket`, including upgrades.
fn answer(
    switch: &Arc<Switch>,
    socket: Option<&Socket>,
    state: Option<State>,
    (kept, namespaces): (Vec<String>, BTreeMap<String, String>),
) -> Result<(Option<Server>, Arc<Service>), Error> {
    let service = Service::new(Arc::clone(switch), state, kept, env!("CARGO_PKG_VERSION"));
    let service = service.with_namespaces(namespaces);
    let Some(socket) = socket else { return Ok((None, Arc::new(service))) };
    let (listener, name) = socket.to_leave()?;
    let service = Arc::new(service.with_control(listener, name, notify::main_pid));
    let server = socket.serve(Arc::clone(&service))?;
    Ok((Some(server), service))
}

fn announce(output: &mut Output, spec: &PortSpec, what: &str) {
    out!(output, "port {} {what}\n", spec.key);
    output.flush();
}

fn watch(switch: &Switch, stop: &AtomicBool, service: &Service, telling: &mut Telling) {
    while !stop.load(Ordering::Relaxed) && service.successor().is_none() {
        switch.look_after();
        telling.look(switch);
        std::thread::sleep(LOOK);
    }
}

/// Stops the server first, so that no request is answered while ports are removed.
fn end(server: Option<Server>, service: Arc<Service>, switch: Arc<Switch>) {
    drop(server);
    drop(service);
    drop(switch);
}

/// Memory and cores, in EAL's syntax.
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

fn start(args: &SwitchArgs, config: &Config, (eal, captures, store): Machine<'_>) -> Result<Switch, Error> {
    let packets = args.packets.or(config.packets).unwrap_or(16_384);
    let pool = PoolConfig::default().name("switch").packets(packets);
    let pool = Pool::new(&eal.default_domain(), pool)?;
    let context = ProbeContext::new(eal.memory().clone(), eal.default_domain(), PROBE_WAIT);
    let defaults = Defaults::default();
    let defaults = Defaults {
        flood_rate: config.flood_rate.unwrap_or(defaults.flood_rate),
        max_macs: config.max_macs.unwrap_or(defaults.max_macs),
        uplink_macs: config.max_macs.unwrap_or(defaults.uplink_macs),
        learn_rate: config.learn_rate.unwrap_or(defaults.learn_rate),
    };
    let all = SwitchConfig::new(linecard::drivers(), context, pool, eal.lcores().all().to_vec())
        .captures(captures)
        .addresses(args.addresses.or(config.addresses).unwrap_or(65_536) as usize)
        .age_seconds(args.age.or(config.age_seconds).unwrap_or(300))
        .neigh_suppress(args.neigh_suppress || config.neigh_suppress.unwrap_or(false))
        .defaults(defaults)
        .store(store);
    Ok(Switch::start(all)?)
}

/// The file in which ports are kept: beside the control socket by default, none without a control socket.
fn state(args: &SwitchArgs, config: &Config, socket: Option<&Path>) -> Option<State> {
    match args.state.as_deref().or(config.state.as_deref()) {
        Some(path) if path.as_os_str() == "none" => None,
        Some(path) => Some(State::at(path)),
        None => socket.map(|socket| State::at(&socket.with_extension("ports.json"))),
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Failed(error.to_string())
}
