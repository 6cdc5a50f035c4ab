//! `linecard port`: ports for the Container Device Interface (CDI).

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use linecard_cni::claim::{CONTAINER_ROOT, Claim, DRIVER, Parameters, Paths, Policing};
use linecard_cni::{Cidr, Mac, STATE_DIR, SWITCH};

use crate::cni::told;
use crate::error::Error;
use crate::output::{Output, out};

/// Arguments of `linecard port`.
#[derive(Args)]
pub(crate) struct PortArgs {
    #[command(subcommand)]
    command: PortCommand,
}

#[derive(Subcommand)]
enum PortCommand {
    /// Make a port and a CDI device that mounts its folder into a container
    ///
    /// The container makes the socket, the switch connects to it. Prints the device's name, which engines take: podman run
    /// --device linecard/port=CLAIM_REQUEST, or POD_CLAIM_REQUEST with --pod. Paths, metadata and parameters are those of dra-driver-ovsdpdk.
    Attach(AttachArgs),
    /// Remove a port and its CDI device; succeeds when they are gone already
    Detach(PlaceArgs),
}

#[derive(Args)]
struct PlaceArgs {
    /// Where container engines look for CDI devices, such as /etc/cdi or /var/run/cdi
    #[arg(long, value_name = "FOLDER")]
    cdi: PathBuf,
    /// The name of the resource claim
    #[arg(long)]
    claim: String,
    /// The name of the request in the claim
    #[arg(long)]
    request: String,
    /// The UID of the pod, where claims of several pods have the same name
    #[arg(long)]
    pod: Option<String>,
    /// The control socket of the switch
    #[arg(long, default_value = SWITCH, value_name = "PATH")]
    switch: PathBuf,
    /// The folder of the folders that are mounted
    #[arg(long, default_value = "/run/linecard/claims", value_name = "FOLDER")]
    socket_dir: PathBuf,
    /// What has to be done once the switch is there again
    #[arg(long, default_value = STATE_DIR, value_name = "FOLDER")]
    state_dir: PathBuf,
}

#[derive(Args)]
struct AttachArgs {
    #[command(flatten)]
    places: PlaceArgs,
    /// Where the container finds CLAIM/REQUEST/vhost.sock
    #[arg(long, default_value = CONTAINER_ROOT, value_name = "FOLDER")]
    container_root: PathBuf,
    /// The driver in whose name metadata is written
    #[arg(long, default_value = DRIVER)]
    driver: String,
    /// A file with the claim's opaque parameters: vlan, policing {max_rate, burst}, mtu, mac, ips, queues
    #[arg(long, value_name = "FILE")]
    parameters: Option<PathBuf>,
    /// The port's VLAN; 0 for none
    #[arg(long)]
    vlan: Option<u16>,
    /// Most that the container may send, in kilobits a second; 0 for no limit
    #[arg(long)]
    max_rate: Option<u32>,
    /// Most that it may send at once, in kilobits
    #[arg(long, requires = "max_rate")]
    burst: Option<u32>,
    /// Largest IP packet, in bytes
    #[arg(long, value_parser = clap::value_parser!(u16).range(68..))]
    mtu: Option<u16>,
    /// The only address that it may send from
    #[arg(long)]
    mac: Option<Mac>,
    /// The only IP addresses that it may send from, such as 10.1.0.5/24
    #[arg(long)]
    ip: Vec<Cidr>,
    /// Queue pairs
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=128))]
    queues: Option<u16>,
}

/// Runs a sub-command.
///
/// # Errors
/// A port could not be attached or detached, and why.
pub(crate) fn run(args: &PortArgs) -> Result<ExitCode, Error> {
    let mut output = Output::standard();
    match &args.command {
        PortCommand::Attach(args) => {
            let (claim, mut places) = places(&args.places)?;
            places.container_root.clone_from(&args.container_root);
            places.driver.clone_from(&args.driver);
            let told = places.attach(&claim, &parameters(args)?).map_err(told)?;
            out!(output, "{}\n", serde_json::to_string_pretty(&told).unwrap_or_default());
        }
        PortCommand::Detach(args) => {
            let (claim, places) = places(args)?;
            places.detach(&claim).map_err(told)?;
        }
    }
    output.finish(true)?;
    Ok(ExitCode::SUCCESS)
}

fn places(args: &PlaceArgs) -> Result<(Claim, Paths), Error> {
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let claim = Claim::new(&args.claim, &args.request, args.pod.as_deref()).map_err(told)?;
    let mut places = Paths::new(absolute(&args.cdi));
    places.sockets = absolute(&args.socket_dir);
    places.switch = absolute(&args.switch);
    places.state = absolute(&args.state_dir);
    Ok((claim, places))
}

/// Returns the parameters of the file, overridden by the options.
fn parameters(args: &AttachArgs) -> Result<Parameters, Error> {
    let mut parameters = match &args.parameters {
        None => Parameters::default(),
        Some(file) => {
            let bytes = std::fs::read(file).map_err(|error| {
                Error::Usage(format!("{}: {error}; give a file that can be read", file.display()))
            })?;
            Parameters::read(&bytes).map_err(told)?
        }
    };
    parameters.vlan = args.vlan.or(parameters.vlan);
    parameters.mtu = args.mtu.or(parameters.mtu);
    parameters.mac = args.mac.or(parameters.mac);
    parameters.queues = args.queues.or(parameters.queues);
    if let Some(max_rate) = args.max_rate {
        parameters.policing = Some(Policing { max_rate, burst: args.burst });
    }
    if !args.ip.is_empty() {
        parameters.ips.clone_from(&args.ip);
    }
    parameters.check().map_err(told)
}
