//! `linecard cni run`: attaches a network namespace by hand.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use linecard_apps_common::PrivateFolder;
use linecard_cni::{Attachment, Cidr, Mac, Network, PLUGIN, Sandbox, Target};
use serde_json::Value;

use super::given::{self, Given};
use super::stage::Attached;
use super::told;
use crate::error::Error;
use crate::output::{Output, out};
use crate::signals;

/// Arguments of `linecard cni run`.
#[derive(Args)]
pub(super) struct RunArgs {
    /// A network's name or file; the first one of the plugin in --conf-dir by default. Each --network gives one port: net1, net2, …
    #[arg(long, value_name = "NAME|FILE")]
    network: Vec<String>,
    /// The network namespace: a path such as /run/netns/NAME or /proc/PID/ns/net; a new one by default
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,
    /// The name of the first port
    #[arg(long, default_value = "net1")]
    ifname: String,
    /// The container's ID; one made of this process's number by default
    #[arg(long)]
    container_id: Option<String>,
    /// The address of the first port, where its network allows one
    #[arg(long)]
    mac: Option<Mac>,
    /// IP addresses of the first port, such as 10.1.0.5/24, where its network allows them
    #[arg(long)]
    ip: Vec<Cidr>,
    /// Where networks are described
    #[arg(long, default_value = "/etc/cni/net.d", value_name = "FOLDER")]
    conf_dir: PathBuf,
    /// Where plugins are
    #[arg(long, default_value = "/opt/cni/bin:/usr/lib/cni", value_name = "FOLDERS")]
    cni_path: OsString,
    /// Pass the command a descriptor of each folder with a socket (--mode socket-dir), for a container that sees no other files:
    /// LINECARD_NET1 says which one
    #[arg(long)]
    pass_fd: bool,
    /// What to run in the namespace, with LINECARD_NET1 set to what the port is; without it, the results of ADD are printed and the ports stay until Ctrl-C
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

const LOOK: Duration = Duration::from_millis(10);

pub(super) fn run(args: &RunArgs) -> Result<ExitCode, Error> {
    let networks = networks(args)?;
    let ended = signals::stop_flag(&signals::TERMINATION)?;
    let made = match &args.netns {
        Some(_) => None,
        None => Some(Sandbox::new().map_err(told)?),
    };
    let netns = match (&args.netns, &made) {
        (Some(path), _) => std::path::absolute(path).unwrap_or_else(|_| path.clone()),
        (None, Some(made)) => made.path().to_owned(),
        (None, None) => PathBuf::new(),
    };
    // The device-info file names sockets in folders, whatever the version of the specification.
    let folder = PrivateFolder::new()?;
    let mut attached = Vec::new();
    for (number, network) in networks.iter().enumerate() {
        attached.push(Attached::new(network, target(args, number, &netns, &folder)?)?);
    }
    let code = match args.command.is_empty() {
        false => given::ports(&attached, args.pass_fd).and_then(|ports| inside(args, &ports, &netns, &ended)),
        true => show(&attached, &ended).map(|()| ExitCode::SUCCESS),
    };
    // The last one first, and all of them even if one fails.
    let outcomes: Vec<_> = attached.into_iter().rev().map(Attached::detach).collect();
    let code = code?;
    outcomes.into_iter().collect::<Result<(), _>>()?;
    Ok(code)
}

fn networks(args: &RunArgs) -> Result<Vec<Network>, Error> {
    if args.network.is_empty() {
        let ours = |network: &Network| network.types().contains(&PLUGIN);
        let found = Network::find(&args.conf_dir, "network of the plugin `linecard`", ours);
        return found.map(|network| vec![network]).map_err(told);
    }
    let named = |name: &String| match name.contains('/') {
        true => Network::load(Path::new(name)),
        false => {
            Network::find(&args.conf_dir, &format!("network '{name}'"), |network| network.name() == name)
        }
    };
    args.network.iter().map(named).collect::<Result<_, _>>().map_err(told)
}

fn target(args: &RunArgs, number: usize, netns: &Path, folder: &PrivateFolder) -> Result<Target, Error> {
    let ifname = match number {
        0 => args.ifname.clone(),
        _ => following(&args.ifname, number),
    };
    let container = args.container_id.clone().unwrap_or_else(|| format!("run-{}", std::process::id()));
    let path: Vec<PathBuf> = std::env::split_paths(&args.cni_path).collect();
    let mut target = Target::new(Attachment::new(&container, &ifname).map_err(told)?, netns, &path);
    let file = folder.path().join(format!("device-{number}.json"));
    target.capabilities.insert(given::DEVICE_INFO.into(), file.to_string_lossy().into());
    if number == 0 {
        if let Some(mac) = args.mac {
            target.capabilities.insert("mac".into(), mac.to_string().into());
        }
        if !args.ip.is_empty() {
            let ips: Vec<String> = args.ip.iter().map(Cidr::to_string).collect();
            target.capabilities.insert("ips".into(), ips.into());
        }
    }
    Ok(target)
}

/// The name of a further port after `first`: net3 after net1 and net2.
fn following(first: &str, number: usize) -> String {
    let digits = first.len() - first.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let (stem, at) = first.split_at(first.len() - digits);
    match at.parse::<usize>() {
        Ok(at) => format!("{stem}{}", at.saturating_add(number)),
        Err(_) => format!("{first}{}", number + 1),
    }
}

/// Prints the results of ADD and waits for a signal.
fn show(attached: &[Attached<'_>], ended: &AtomicBool) -> Result<(), Error> {
    let mut output = Output::standard();
    for attached in attached {
        let shown: &Value = attached.result();
        out!(output, "{}\n", serde_json::to_string_pretty(shown).unwrap_or_default());
    }
    output.finish(false)?;
    while !ended.load(Ordering::Relaxed) {
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Runs the command in the namespace; returns its exit code.
fn inside(args: &RunArgs, ports: &[Given], netns: &Path, ended: &AtomicBool) -> Result<ExitCode, Error> {
    let Some((program, arguments)) = args.command.split_first() else { return Ok(ExitCode::SUCCESS) };
    let failed = |source| Error::System {
        action: format!("{} cannot be run", program.display()),
        source,
        remedy: "give a program that is in PATH",
    };
    let mut command = Command::new(program);
    command.args(arguments).envs(ports.iter().map(|port| (&port.variable, &port.text)));
    let mut child = Sandbox::run_in(netns, || command.spawn()).map_err(told)?.map_err(failed)?;
    let status = wait(&mut child, ended).map_err(failed)?;
    Ok(code_of(status))
}

/// Waits for the command, and passes on a request to end. Keys typed at the terminal reach the command
/// directly.
fn wait(child: &mut Child, ended: &AtomicBool) -> std::io::Result<ExitStatus> {
    let mut told = false;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if ended.load(Ordering::Relaxed) && !told {
            told = true;
            if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
        std::thread::sleep(LOOK);
    }
}

/// As a shell reports it: for a signal, 128 plus its number.
fn code_of(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::following;

    #[test]
    fn ports_are_numbered_on() {
        assert_eq!(following("net1", 1), "net2");
        assert_eq!(following("eth9", 3), "eth12");
        assert_eq!(following("vu", 1), "vu2");
    }
}
