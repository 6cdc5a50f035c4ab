//! `linecard cni install`: installs the plugin and a network for container runtimes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use linecard_cni::{Install, Mode, Network, NetworkPlan, PLUGIN, SOCKET_DIR, SWITCH, Version, find_plugin};

use super::stage::own_program;
use super::told;
use crate::error::Error;
use crate::output::{Output, out};

/// Arguments of `linecard cni install`.
#[derive(Args)]
pub(super) struct InstallArgs {
    /// Where runtimes look for plugins
    #[arg(long, default_value = "/opt/cni/bin", value_name = "FOLDER")]
    bin_dir: PathBuf,
    /// Where runtimes look for networks
    #[arg(long, default_value = "/etc/cni/net.d", value_name = "FOLDER")]
    conf_dir: PathBuf,
    /// The network's name
    #[arg(long, default_value = "fast")]
    name: String,
    /// The control socket of the switch
    #[arg(long, default_value = SWITCH, value_name = "PATH")]
    switch: PathBuf,
    /// Addresses of the network, given by the plugin host-local; `none` for a network without addresses
    #[arg(long, default_value = "10.245.0.0/16", value_name = "SUBNET")]
    subnet: String,
    /// The VLAN of the network
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=4094))]
    vlan: Option<u16>,
    /// Largest IP packet, in bytes
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u16).range(68..))]
    mtu: u16,
    /// How a container reaches its port
    #[arg(long, value_enum, default_value_t = HandOver::Abstract)]
    mode: HandOver,
    /// Version of the CNI specification: 1.1.0 adds STATUS and GC, podman 4 knows none later than 1.0.0
    #[arg(long, default_value = "1.0.0", value_parser = version)]
    cni_version: Version,
    /// Write the plugin and no network: for networks described elsewhere, as in a NetworkAttachmentDefinition
    #[arg(long, conflicts_with = "uninstall")]
    plugin_only: bool,
    /// Copy the program instead of linking to it: for a container that installs the plugin on its host
    #[arg(long)]
    copy: bool,
    /// Replace a network's file that is there with other contents
    #[arg(long)]
    force: bool,
    /// Remove the network, and the plugin unless another network uses it
    #[arg(long)]
    uninstall: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum HandOver {
    /// An abstract socket in the container's network namespace
    Abstract,
    /// A folder for each container, in which the switch listens
    SocketDir,
    /// A folder for each container, in which the container listens
    SocketDirContainer,
}

fn version(text: &str) -> Result<Version, String> {
    Version::parse(text).map_err(|error| error.details)
}

pub(super) fn run(args: &InstallArgs) -> Result<ExitCode, Error> {
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let socket_dir = |container_listens| Mode::SocketDir { below: SOCKET_DIR.into(), container_listens };
    let subnet = match args.subnet.as_str() {
        "none" => None,
        // Checked here, because an invalid subnet would only fail at the first ADD.
        subnet => match subnet.parse::<linecard_cni::Cidr>() {
            Ok(cidr) if subnet.contains('/') => Some(cidr.to_string()),
            _ => {
                let problem = format!("--subnet is '{subnet}'; give one such as 10.245.0.0/16, or `none`");
                return Err(Error::Usage(problem));
            }
        },
    };
    let network = NetworkPlan::default()
        .name(&args.name)
        .version(args.cni_version)
        .switch(absolute(&args.switch))
        .subnet(subnet)
        .vlan(args.vlan)
        .mtu(args.mtu)
        .mode(match args.mode {
            HandOver::Abstract => Mode::Abstract,
            HandOver::SocketDir => socket_dir(false),
            HandOver::SocketDirContainer => socket_dir(true),
        });
    let install = Install::default()
        .bin_dir(absolute(&args.bin_dir))
        .conf_dir(absolute(&args.conf_dir))
        .program(own_program()?)
        .copy(args.copy)
        .force(args.force)
        .plugin_only(args.plugin_only)
        .network(network);
    let changes = if args.uninstall { install.uninstall() } else { install.install() }.map_err(told)?;
    let mut output = Output::standard();
    for change in &changes {
        out!(output, "{change}\n");
    }
    if !args.uninstall && !args.plugin_only {
        for remark in remarks(&install) {
            out!(output, "note: {remark}\n");
        }
    }
    output.finish(false)?;
    Ok(ExitCode::SUCCESS)
}

/// Remarks about conditions that keep the network from working, or that may surprise.
fn remarks(install: &Install) -> Vec<String> {
    let mut remarks = Vec::new();
    let folders = [install.bin_dir.clone(), "/usr/lib/cni".into()];
    if install.network.subnet.is_some() && find_plugin("host-local", &folders).is_err() {
        remarks.push(format!(
            "the plugin host-local, which gives addresses, is not in {}; install containernetworking-plugins",
            install.bin_dir.display()
        ));
    }
    if !install.network.switch.exists() {
        remarks.push(format!(
            "no switch listens at {} yet; start one with `linecard switch`",
            install.network.switch.display()
        ));
    }
    let first = Network::all(&install.conf_dir).into_iter().next();
    if first.is_some_and(|(_, network)| network.types().first() == Some(&PLUGIN)) {
        remarks.push(format!(
            "this is the first network in {}: Kubernetes would make it the only one of every pod, without a way to the kernel",
            install.conf_dir.display()
        ));
    }
    remarks
}
