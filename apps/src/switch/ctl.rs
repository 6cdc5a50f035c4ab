//! `linecard switch ctl`: asks a running switch.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use linecard::net::MacAddr;
use linecard_switch::api::{Client, ClientError, FdbFilter, PortKind, PortSpec};
use serde::Serialize;

use super::{port, socket, text};
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
    /// The addresses the switch knows
    Fdb(Filter),
    /// Forget learned addresses
    Flush(Filter),
    /// Counters of the switch and of every port
    Stats,
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
    /// Any device
    #[arg(long, value_name = "DEVICE")]
    vdev: Option<String>,
    /// A port as JSON, as the control socket takes it, without the key
    #[arg(long = "spec", value_name = "JSON")]
    spec: Option<String>,
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

/// Asks, and prints the answer.
///
/// # Errors
/// No switch answers, or it refuses.
pub(crate) fn run(args: &CtlArgs) -> Result<ExitCode, Error> {
    let path = args.socket.clone().unwrap_or_else(socket::default_path);
    let mut output = Output::standard();
    // What cannot be asked is told before anybody is.
    let added = match &args.command {
        CtlCommand::Add { key, what } => Some(what.to_spec(key)?),
        _ => None,
    };
    let mut client = Client::connect(&path)?;
    match &args.command {
        CtlCommand::Add { key, .. } => {
            let spec = added.unwrap_or_else(|| PortSpec::new(key, PortKind::VhostUserFd { again: None }));
            let answer = client.port_add(&spec, None)?;
            let done = if answer.created { "attached" } else { "was attached already" };
            print(&mut output, args.json, &answer, || format!("{key} {done}: {}\n", answer.port.device));
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
        CtlCommand::Fdb(filter) => {
            let entries = client.fdb_list(&filter.to_api())?;
            print(&mut output, args.json, &entries, || text::fdb(&entries));
        }
        CtlCommand::Flush(filter) => {
            let flushed = client.fdb_flush(&filter.to_api())?;
            print(&mut output, args.json, &flushed, || format!("{flushed} addresses forgotten\n"));
        }
        CtlCommand::Stats => {
            let stats = client.stats()?;
            print(&mut output, args.json, &stats, || text::stats(&stats));
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

impl What {
    fn to_spec(&self, key: &str) -> Result<PortSpec, Error> {
        let spec = match self {
            Self { vhost: Some(text), .. } => port::vhost(text, key).map_err(Error::Usage)?,
            Self { tap: Some(text), .. } => port::tap(text, Some(key)).map_err(Error::Usage)?,
            Self { vdev: Some(device), .. } => PortSpec::new(key, PortKind::Vdev { device: device.clone() }),
            Self { spec, .. } => {
                let mut value: serde_json::Value = serde_json::from_str(spec.as_deref().unwrap_or_default())
                    .map_err(|error| Error::Usage(format!("--spec is no JSON: {error}; give an object such as {{\"type\":\"tap\",\"name\":\"lc0\"}}")))?;
                if let Some(fields) = value.as_object_mut() {
                    fields.insert("key".into(), key.into());
                }
                PortSpec::read(value).map_err(Error::Usage)?
            }
        };
        Ok(PortSpec { key: key.into(), ..spec })
    }
}

fn print(output: &mut Output, json: bool, answer: &impl Serialize, text: impl FnOnce() -> String) {
    if json {
        // Types of the API can always be written.
        out!(output, "{}\n", serde_json::to_string_pretty(answer).unwrap_or_default());
    } else {
        out!(output, "{}", text());
    }
}
