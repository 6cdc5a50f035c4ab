//! The environment of demonstrations and measurements: a folder, a switch and a network of the plugin,
//! created without configuration and removed with the process.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use linecard_apps_common::PrivateFolder;
use linecard_cni::{Attachment, Change, Install, Network, NetworkPlan, Sandbox, Target};
use linecard_switch::api::Client;
use serde_json::{Map, Value};

use super::part::Part;
use super::told;
use crate::error::Error;
use crate::signals;

/// Set in a process that [`enter`] started in a user namespace.
const IN_USER_NAMESPACE: &str = "LINECARD_DEMO_IN_USER_NAMESPACE";
/// How long the switch may take to answer on a busy machine.
const SWITCH_WITHIN: Duration = Duration::from_secs(60);
/// How long removed objects may take to disappear: the switch closes sockets a moment after its answer.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// Options of the switch: memory and packets for a hundred ports, and the state file.
const SWITCH: [&str; 6] = ["--no-huge", "-m", "128", "--packets", "16384", "--state"];

/// Returns whether this process is in a user namespace of its own.
pub(super) fn in_user_namespace() -> bool {
    std::env::var_os(IN_USER_NAMESPACE).is_some()
}

/// Ensures that network namespaces can be created. For an ordinary user the program is executed again as root
/// of a user namespace; this function does not return then.
///
/// # Errors
/// Neither kind of namespace is allowed.
pub(super) fn enter() -> Result<(), Error> {
    let Err(problem) = Sandbox::new().map(drop) else { return Ok(()) };
    let refused = |why: String| {
        Error::Failed(format!(
            "this user may not make network namespaces ({}), nor a user namespace ({why}); run it as root, or allow user \
             namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone)",
            problem.msg.trim_start_matches("making a network namespace: ")
        ))
    };
    if in_user_namespace() {
        return Err(refused("this is one already".into()));
    }
    let unshare = ["--user", "--map-root-user"];
    match Command::new("unshare").args(unshare).args(["unshare", "--net", "true"]).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => return Err(refused(String::from_utf8_lossy(&output.stderr).trim().into())),
        Err(error) => return Err(refused(format!("no program 'unshare': {error}"))),
    }
    let mut again = Command::new("unshare");
    again.args(unshare).arg(own_program()?).args(std::env::args_os().skip(1)).env(IN_USER_NAMESPACE, "1");
    Err(refused(again.exec().to_string()))
}

/// Returns the path of this program, for others to start.
pub(super) fn own_program() -> Result<PathBuf, Error> {
    std::env::current_exe().map_err(|source| Error::System {
        action: "the place of this program is not known".into(),
        source,
        remedy: "mount what is missing with 'mount -t proc proc /proc'",
    })
}

/// The folder, switch and network. Fields are dropped in this order.
pub(super) struct Stage {
    pub(super) switch: Part,
    pub(super) network: Network,
    pub(super) ended: Arc<AtomicBool>,
    folder: PrivateFolder,
}

impl Stage {
    /// Starts a switch and describes a network for it with the name `name`. All files are in `folder`. With
    /// `link`, ports have a kernel interface beside them, which is the default of networks.
    pub(super) fn new(name: &str, folder: PrivateFolder, link: bool) -> Result<Self, Error> {
        let ended = signals::stop_flag(&signals::TERMINATION)?;
        let at = |name: &str| folder.path().join(name);
        let mut more = Map::new();
        more.insert("stateDir".into(), at("state").to_string_lossy().into());
        more.insert("link".into(), link.into());
        let plan = NetworkPlan::default().name(name).switch(at("switch.sock")).subnet(None).more(more);
        let install =
            Install::default().bin_dir(at("bin")).conf_dir(at("net.d")).program(own_program()?).network(plan);
        let written = install.install().map_err(told)?;
        debug_assert!(written.iter().all(|change| matches!(change, Change::Written(_))));
        let network = Network::load(&install.network_file()).map_err(told)?;
        let mut arguments: Vec<OsString> = vec!["switch".into(), "--socket".into(), at("switch.sock").into()];
        arguments.extend(SWITCH.map(Into::into));
        arguments.push(at("ports.json").into());
        let mut switch = Part::start("switch", folder.path(), None, &arguments, Stdio::null())?;
        let until = Instant::now() + SWITCH_WITHIN;
        switch.until(until, &ended, || {
            Client::connect(&at("switch.sock")).and_then(|mut client| client.version()).is_ok()
        })?;
        Ok(Self { switch, network, ended, folder })
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Connects to the switch.
    pub(super) fn client(&self) -> Result<Client, Error> {
        let client = Client::connect(&self.folder().join("switch.sock"));
        let client = client.map_err(|error| Error::Failed(error.to_string()))?;
        // A busy machine may be slow; only a switch that is stuck takes this long.
        let _ = client.set_patience(SWITCH_WITHIN);
        Ok(client)
    }

    /// An attachment in `sandbox`.
    pub(super) fn target(&self, container: &str, ifname: &str, sandbox: &Sandbox) -> Result<Target, Error> {
        let attachment = Attachment::new(container, ifname).map_err(told)?;
        Ok(Target::new(attachment, sandbox.path(), &[self.folder().join("bin")]))
    }

    /// Returns the plugin's leftovers after every DEL, as text: records, ports, interfaces and sockets in
    /// `sandboxes`. Waits for objects that are being removed.
    pub(super) fn left(&self, sandboxes: &[&Sandbox]) -> Result<Vec<String>, Error> {
        let until = Instant::now() + GONE_WITHIN;
        loop {
            let left = self.left_now(sandboxes)?;
            if left.is_empty() || Instant::now() > until {
                return Ok(left);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn left_now(&self, sandboxes: &[&Sandbox]) -> Result<Vec<String>, Error> {
        let records = std::fs::read_dir(self.folder().join("state")).into_iter().flatten().flatten();
        let mut left: Vec<String> =
            records.map(|entry| format!("record {}", entry.file_name().to_string_lossy())).collect();
        let ports = self.client()?.port_list().map_err(|error| Error::Failed(error.to_string()))?;
        left.extend(ports.iter().map(|port| format!("port {}", port.spec.key)));
        for sandbox in sandboxes {
            let inside = sandbox.run(|| {
                let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
                (read("/proc/thread-self/net/dev"), read("/proc/thread-self/net/unix"))
            });
            let (links, sockets) = inside.map_err(told)?;
            let names = links.lines().skip(2).filter_map(|line| line.split(':').next()).map(str::trim);
            left.extend(names.filter(|name| *name != "lo").map(|name| format!("interface {name}")));
            let names = sockets.lines().filter_map(|line| line.split_whitespace().nth(7));
            left.extend(
                names.filter(|name| name.starts_with("@vport/")).map(|name| format!("socket {name}")),
            );
        }
        Ok(left)
    }

    /// Returns the number of open descriptors of the switch.
    pub(super) fn descriptors(&self) -> Option<usize> {
        let folder = format!("/proc/{}/fd", self.switch.pid());
        std::fs::read_dir(folder).ok().map(|entries| entries.flatten().count())
    }
}

/// An attachment that is always undone by DEL.
pub(super) struct Attached<'a> {
    network: &'a Network,
    pub(super) target: Target,
    pub(super) result: Option<Value>,
}

impl<'a> Attached<'a> {
    pub(super) fn new(network: &'a Network, target: Target) -> Result<Self, Error> {
        let result = network.add(&target).map_err(told)?;
        Ok(Self { network, target, result: Some(result) })
    }

    /// Returns the result of ADD.
    pub(super) fn result(&self) -> &Value {
        self.result.as_ref().unwrap_or(&Value::Null)
    }

    pub(super) fn detach(mut self) -> Result<(), Error> {
        let result = self.result.take();
        self.network.del(&self.target, result.as_ref()).map_err(told)
    }
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        if let Some(result) = self.result.take() {
            let _ = self.network.del(&self.target, Some(&result));
        }
    }
}
