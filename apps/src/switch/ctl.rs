//! `linecard switch ctl`: controls a running switch.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use linecard::net::MacAddr;
use linecard_switch::api::{
    Client, ClientError, FdbAddress, FdbFilter, FdbStatic, PortKind, PortSpec, QueueInfo, QueueMove,
    TraceRequest, balance,
};
use serde::Serialize;

use super::{port, socket, span, text, top, upgrade};
use crate::error::Error;
use crate::output::{Output, out};

/// Arguments of `linecard switch ctl`.
#[derive(Args, Debug)]
pub(crate) struct CtlArgs {
    /// The switch's control socket [default: /run/linecard/switch.sock, for root]
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
    /// Print the switch's answer as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: CtlCommand,
}

#[derive(Subcommand, Debug)]
enum CtlCommand {
    /// Attach a port, or find it attached
    Add {
        /// A name for it
        key: String,
        /// Make the interface of a tap here, with the rights of this command, and pass it to the switch, which needs none then
        #[arg(long, requires = "tap")]
        pass: bool,
        #[command(flatten)]
        what: What,
    },
    /// Detach a port; one that is not there is no error
    Remove {
        /// Its name
        key: String,
    },
    /// All ports
    Ports,
    /// One port: what it is, what passed, what was lost and why
    Show {
        /// Its name
        key: String,
    },
    /// The addresses the switch knows; put one in by hand, or take one out
    Fdb(FdbArgs),
    /// Forget learned addresses
    Flush(Filter),
    /// Counters of the switch and of every port
    Stats,
    /// Worker threads, and the receive queues that each polls
    Workers,
    /// Have another worker poll a receive queue
    Move {
        /// The port's name
        key: String,
        /// The number of the worker, as `workers` shows it
        worker: u16,
        /// The queue's number
        #[arg(long, value_name = "N", default_value_t = 0)]
        queue: u16,
    },
    /// Watch how busy the queues are, and move some so that workers have about the same to do
    Rebalance {
        /// How long to watch
        #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
        seconds: u64,
    },
    /// Counters of every port, again and again, a second's worth at a time
    Top {
        /// Seconds between looks
        #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
        interval: u64,
        /// Stop after so many looks
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
    },
    /// Which way a frame would go that came from a port, and why; nothing is sent
    Trace {
        /// The port it comes from
        key: String,
        /// The frame in hexadecimal, from the destination address on
        #[arg(value_name = "HEX", required_unless_present = "to", conflicts_with_all = ["from", "to", "vlan"])]
        frame: Option<String>,
        /// Instead of a frame: the source address [default: the port's own]
        #[arg(long, value_name = "ADDRESS")]
        from: Option<MacAddr>,
        /// Instead of a frame: the destination address
        #[arg(long, value_name = "ADDRESS")]
        to: Option<MacAddr>,
        /// Instead of a frame: the VLAN of its tag
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4094), requires = "to")]
        vlan: Option<u16>,
    },
    /// Copies of what passes a port, into a pcapng file or as text; as `linecard capture`
    Mirror {
        /// Its name
        key: String,
        #[command(flatten)]
        what: crate::capture::What,
    },
    /// Copies of what passes some ports, sent to another port (SPAN): set a session, remove one, or list all
    Span {
        #[command(subcommand)]
        command: Option<span::SpanCommand>,
    },
    /// Replace the program of the running switch, while its ports stay connected
    ///
    /// The new program is started with the arguments of the running one and --take-over, in the same folder, with this command's
    /// environment, rights and standard error. Should it fail, the running switch goes on as if nothing had been.
    Upgrade {
        /// The new program [default: the one that this command is of]
        #[arg(long, value_name = "PROGRAM")]
        exec: Option<PathBuf>,
        /// How many seconds the new program may say nothing before it has started; then it is ended, unless it has taken over
        #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
        timeout: u64,
    },
    /// Version of the running switch
    Version,
}

/// What a new port is; exactly one.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct What {
    /// A vhost-user socket; options as for `linecard switch --port`
    #[arg(long = "port", value_name = "PATH[,OPTION...]")]
    vhost: Option<String>,
    /// A kernel interface; options as for `linecard switch --tap`
    #[arg(long, value_name = "NAME[,OPTION...]")]
    tap: Option<String>,
    /// A network with other hosts; options as for `linecard switch --vxlan`
    #[arg(long, value_name = "VNI[,OPTION...]")]
    vxlan: Option<String>,
    /// Any device
    #[arg(long, value_name = "DEVICE")]
    vdev: Option<String>,
    /// A port as JSON, as the control socket takes it, without the key
    #[arg(long = "spec", value_name = "JSON")]
    spec: Option<String>,
}

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
struct FdbArgs {
    #[command(subcommand)]
    command: Option<FdbCommand>,
    #[command(flatten)]
    filter: Filter,
}

#[derive(Subcommand, Debug)]
enum FdbCommand {
    /// Put an address behind a port; it does not age, and goes with the port
    Add {
        /// The address
        mac: MacAddr,
        /// The port's name
        key: String,
        /// Its VLAN; 0 for ports without VLANs
        #[arg(long, value_name = "N", default_value_t = 0)]
        vlan: u16,
    },
    /// Forget one address, learned or put in by hand
    Del {
        /// The address
        mac: MacAddr,
        /// Its VLAN; 0 for ports without VLANs
        #[arg(long, value_name = "N", default_value_t = 0)]
        vlan: u16,
    },
    /// Forget learned addresses
    Flush(Filter),
}

#[derive(Args, Debug)]
struct Filter {
    /// Behind this port
    #[arg(long, value_name = "KEY")]
    port: Option<String>,
    /// In this VLAN
    #[arg(long, value_name = "N")]
    vlan: Option<u16>,
    /// This address
    #[arg(long, value_name = "ADDRESS")]
    mac: Option<MacAddr>,
}

impl Filter {
    fn to_api(&self) -> FdbFilter {
        FdbFilter { port: self.port.clone(), vlan: self.vlan, mac: self.mac }
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Sends a request, and prints the answer.
///
/// # Errors
/// No switch answers, or it refuses the request.
pub(crate) fn run(args: &CtlArgs) -> Result<ExitCode, Error> {
    let path = args.socket.clone().unwrap_or_else(socket::default_path);
    let mut output = Output::standard();
    // Invalid arguments are reported before a connection is made.
    let added = match &args.command {
        CtlCommand::Add { key, what, .. } => Some(what.to_spec(key)?),
        _ => None,
    };
    let mut client = Client::connect(&path)?;
    match &args.command {
        CtlCommand::Add { key, pass, .. } => {
            let spec = added.unwrap_or_else(|| PortSpec::new(key, PortKind::VhostUserFd { origin: None }));
            add(&mut client, &mut output, args.json, (&spec, *pass))?;
        }
        CtlCommand::Remove { key } => {
            let removed = client.port_remove(key)?;
            let done = if removed { "detached" } else { "is not there" };
            print(&mut output, args.json, &removed, || format!("{key} {done}\n"));
        }
        CtlCommand::Ports => {
            let ports = client.port_list()?;
            print(&mut output, args.json, &ports, || text::ports(&ports));
        }
        CtlCommand::Show { key } => {
            let port = client.port_show(key)?;
            print(&mut output, args.json, &port, || text::port(&port));
        }
        CtlCommand::Fdb(FdbArgs { command, filter }) => {
            fdb(&mut client, &mut output, args.json, (command.as_ref(), filter))?;
        }
        CtlCommand::Flush(filter) => flush(&mut client, &mut output, args.json, filter)?,
        CtlCommand::Stats => {
            let stats = client.stats()?;
            print(&mut output, args.json, &stats, || text::stats(&stats));
        }
        CtlCommand::Workers => {
            let workers = client.workers()?;
            print(&mut output, args.json, &workers, || text::workers(&workers));
        }
        CtlCommand::Move { key, worker, queue } => {
            let asked = QueueMove { port: key.clone(), queue: *queue, worker: *worker };
            give(&mut client, &mut output, args.json, &asked)?;
        }
        CtlCommand::Rebalance { seconds } => {
            let moves = rebalance(&mut client, Duration::from_secs(*seconds))?;
            print(&mut output, args.json, &moves, || text::moves(&moves));
        }
        CtlCommand::Top { interval, count } => {
            top::run(&mut client, &mut output, args.json, Duration::from_secs(*interval), *count)?;
        }
        CtlCommand::Trace { key, frame, from, to, vlan } => {
            let frame = match frame {
                Some(frame) => frame.clone(),
                None => made(&mut client, key, (*from, *to, *vlan))?,
            };
            let trace = client.trace(&TraceRequest { port: key.clone(), frame })?;
            print(&mut output, args.json, &trace, || text::trace(&trace));
        }
        CtlCommand::Mirror { key, what } => {
            let (pid, port) = (client.version()?.pid, client.port_show(key)?.id);
            // The control connection is not needed during the capture.
            drop(client);
            return crate::capture::run_of(pid, port, what);
        }
        CtlCommand::Span { command } => {
            span::run(&mut client, &mut output, args.json, command.as_ref())?;
        }
        CtlCommand::Upgrade { exec, timeout } => {
            let patience = Duration::from_secs(*timeout);
            upgrade::run(&mut client, &mut output, args.json, exec.as_deref(), patience)?;
        }
        CtlCommand::Version => {
            let version = client.version()?;
            print(&mut output, args.json, &version, || {
                format!("linecard {}, process {}\n", version.version, version.pid)
            });
        }
    }
    output.finish(true)?;
    Ok(ExitCode::SUCCESS)
}

/// Attaches a port; with `pass`, creates the tap here and passes it.
fn add(
    client: &mut Client,
    output: &mut Output,
    json: bool,
    (spec, pass): (&PortSpec, bool),
) -> Result<(), Error> {
    let passed = pass.then(|| port::make_tap(spec)).transpose()?;
    let answer = client.port_add(spec, passed.as_ref().map(AsFd::as_fd))?;
    let done = if answer.created { "attached" } else { "was attached already" };
    print(output, json, &answer, || format!("{} {done}: {}\n", spec.key, answer.port.device));
    Ok(())
}

/// Assigns a queue to another worker.
fn give(client: &mut Client, output: &mut Output, json: bool, asked: &QueueMove) -> Result<(), Error> {
    client.move_queue(asked)?;
    let QueueMove { port, queue, worker } = asked;
    print(output, json, asked, || format!("queue {queue} of {port} is worker {worker}'s\n"));
    Ok(())
}

fn fdb(
    client: &mut Client,
    output: &mut Output,
    json: bool,
    (command, filter): (Option<&FdbCommand>, &Filter),
) -> Result<(), Error> {
    match command {
        None => {
            let entries = client.fdb_list(&filter.to_api())?;
            print(output, json, &entries, || text::fdb(&entries));
        }
        Some(FdbCommand::Add { mac, key, vlan }) => {
            let asked = FdbStatic { mac: *mac, vlan: *vlan, port: key.clone() };
            let entry = client.fdb_add(&asked)?;
            print(output, json, &entry, || text::fdb(std::slice::from_ref(&entry)));
        }
        Some(FdbCommand::Del { mac, vlan }) => {
            let removed = client.fdb_del(&FdbAddress { mac: *mac, vlan: *vlan })?;
            let done = if removed { "forgotten" } else { "is not known" };
            print(output, json, &removed, || format!("{} {done}\n", mac.to_string().to_lowercase()));
        }
        Some(FdbCommand::Flush(filter)) => flush(client, output, json, filter)?,
    }
    Ok(())
}

fn flush(client: &mut Client, output: &mut Output, json: bool, filter: &Filter) -> Result<(), Error> {
    let flushed = client.fdb_flush(&filter.to_api())?;
    print(output, json, &flushed, || format!("{flushed} addresses forgotten\n"));
    Ok(())
}

/// Moves queues according to the frames received from them during `time`.
fn rebalance(client: &mut Client, time: Duration) -> Result<Vec<QueueMove>, Error> {
    let before = client.workers()?;
    std::thread::sleep(time);
    let earlier = |port: &str, number: u16| {
        let queues = before.iter().flat_map(|worker| &worker.queues);
        queues
            .into_iter()
            .find(|queue| queue.port == port && queue.queue == number)
            .map_or(0, |queue| queue.rx_packets)
    };
    let mut load: Vec<Vec<QueueInfo>> = client.workers()?.into_iter().map(|worker| worker.queues).collect();
    for queue in load.iter_mut().flatten() {
        queue.rx_packets = queue.rx_packets.saturating_sub(earlier(&queue.port, queue.queue));
    }
    let moves = balance(&load);
    for asked in &moves {
        client.move_queue(asked)?;
    }
    Ok(moves)
}

/// A frame of minimum length with these addresses and no payload, in hexadecimal.
fn made(
    client: &mut Client,
    key: &str,
    (from, to, vlan): (Option<MacAddr>, Option<MacAddr>, Option<u16>),
) -> Result<String, Error> {
    let from = match from {
        Some(from) => from,
        None => client.port_show(key)?.spec.mac.ok_or_else(|| {
            Error::Usage(format!(
                "port '{key}' has no address of its own; say with --from where the frame comes from"
            ))
        })?,
    };
    let mut frame = [&to.unwrap_or(MacAddr([0xff; 6])).0[..], &from.0].concat();
    if let Some(vlan) = vlan {
        frame.extend([0x81, 0]);
        frame.extend(vlan.to_be_bytes());
    }
    // The EtherType for local experiments (IEEE 802).
    frame.extend([0x88, 0xb5]);
    frame.resize(60, 0);
    Ok(frame.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl What {
    fn to_spec(&self, key: &str) -> Result<PortSpec, Error> {
        let spec = match self {
            Self { vhost: Some(text), .. } => port::vhost(text, key).map_err(Error::Usage)?,
            Self { tap: Some(text), .. } => port::tap(text, Some(key)).map_err(Error::Usage)?,
            Self { vxlan: Some(text), .. } => port::vxlan(text, Some(key)).map_err(Error::Usage)?,
            Self { vdev: Some(device), .. } => PortSpec::new(key, PortKind::Vdev { device: device.clone() }),
            Self { spec, .. } => {
                let mut value: serde_json::Value = serde_json::from_str(spec.as_deref().unwrap_or_default())
                    .map_err(|error| Error::Usage(format!("--spec is no JSON: {error}; give an object such as {{\"type\":\"tap\",\"name\":\"lc0\"}}")))?;
                if let Some(fields) = value.as_object_mut() {
                    fields.entry("key").or_insert_with(|| key.into());
                }
                PortSpec::read(value).map_err(|problem| Error::Usage(problem.to_string()))?
            }
        };
        match spec.key == key {
            true => Ok(spec),
            false => {
                let other = spec.key.escape_debug();
                Err(Error::Usage(format!(
                    "the port's key is '{key}', and '{other}' in what follows; give it once"
                )))
            }
        }
    }
}

pub(super) fn print(output: &mut Output, json: bool, answer: &impl Serialize, text: impl FnOnce() -> String) {
    if json {
        // Types of the API can always be serialized.
        out!(output, "{}\n", serde_json::to_string_pretty(answer).unwrap_or_default());
    } else {
        out!(output, "{}", text());
    }
}
