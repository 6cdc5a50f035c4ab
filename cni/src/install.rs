//! Installation of the plugin and a network for container runtimes, and their removal.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::config::{Mode, check_name};
use crate::error::{Code, Error};
use crate::runtime::Network;
use crate::version::Version;

/// The type of the plugin, which is the name of its file.
pub const PLUGIN: &str = "linecard";

/// The files to install, and where.
///
/// ```
/// use linecard_cni::{Change, Install};
/// let folder = std::env::temp_dir().join(format!("linecard-cni-install-doc-{}", std::process::id()));
/// let install = Install::default()
///     .bin_dir(folder.join("bin"))
///     .conf_dir(folder.join("net.d"))
///     .program("/usr/bin/linecard");
/// assert!(matches!(&install.install()?[..], [Change::Written(_), Change::Written(_)]));
/// assert!(matches!(&install.install()?[..], [Change::Kept(_), Change::Kept(_)]));
/// assert!(matches!(&install.uninstall()?[..], [Change::Removed(_), Change::Removed(_)]));
/// # std::fs::remove_dir_all(folder).expect("removed");
/// # Ok::<(), linecard_cni::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Install {
    /// The folder in which runtimes look up plugins.
    pub bin_dir: PathBuf,
    /// The folder in which they look up networks.
    pub conf_dir: PathBuf,
    /// The program that implements the plugin.
    pub program: PathBuf,
    /// Copy the program instead of creating a link to it.
    pub copy: bool,
    /// Replace a file that has other contents.
    pub force: bool,
    /// Install no network, because it is described elsewhere.
    pub plugin_only: bool,
    /// The network.
    pub network: NetworkPlan,
}

/// A network to install.
///
/// ```
/// let plan = linecard_cni::NetworkPlan::default().vlan(7);
/// assert_eq!(plan.list()?["plugins"][0]["vlan"], 7);
/// # Ok::<(), linecard_cni::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NetworkPlan {
    /// The name of the network.
    pub name: String,
    /// The version of the specification.
    pub version: Version,
    /// The path of the switch's control socket.
    pub switch: PathBuf,
    /// The subnet from which `host-local` assigns addresses; `None` assigns none.
    pub subnet: Option<String>,
    /// The VLAN of all ports of the network.
    pub vlan: Option<u16>,
    /// The largest IP packet, in bytes.
    pub mtu: u16,
    /// How containers reach their ports.
    pub mode: Mode,
    /// Further keys of the plugin's configuration.
    pub more: serde_json::Map<String, Value>,
}

impl Default for NetworkPlan {
    fn default() -> Self {
        Self {
            name: "fast".into(),
            version: Version::V1_0_0,
            switch: crate::SWITCH.into(),
            subnet: Some("10.245.0.0/16".into()),
            vlan: None,
            mtu: 1500,
            mode: Mode::Abstract,
            more: serde_json::Map::new(),
        }
    }
}

impl Default for Install {
    fn default() -> Self {
        Self {
            bin_dir: "/opt/cni/bin".into(),
            conf_dir: "/etc/cni/net.d".into(),
            program: PLUGIN.into(),
            copy: false,
            force: false,
            plugin_only: false,
            network: NetworkPlan::default(),
        }
    }
}

linecard_switch::setters!(NetworkPlan {
    name: impl Into<String> as into,
    version: Version,
    switch: impl Into<PathBuf> as into,
    subnet: impl Into<Option<String>> as into,
    vlan: impl Into<Option<u16>> as into,
    mtu: u16,
    mode: Mode,
    more: serde_json::Map<String, Value>,
});

linecard_switch::setters!(Install {
    bin_dir: impl Into<PathBuf> as into,
    conf_dir: impl Into<PathBuf> as into,
    program: impl Into<PathBuf> as into,
    copy: bool,
    force: bool,
    plugin_only: bool,
    network: NetworkPlan,
});

/// The change to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// The file is new or was replaced.
    Written(PathBuf),
    /// The file was correct already.
    Kept(PathBuf),
    /// The file was removed.
    Removed(PathBuf),
    /// The file did not exist.
    Absent(PathBuf),
    /// The plugin was kept, because this network needs it.
    Needed(PathBuf, String),
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Written(path) => write!(f, "wrote {}", path.display()),
            Self::Kept(path) => write!(f, "{} is as it should be", path.display()),
            Self::Removed(path) => write!(f, "removed {}", path.display()),
            Self::Absent(path) => write!(f, "{} was not there", path.display()),
            Self::Needed(path, network) => {
                write!(f, "kept {}, which network '{network}' uses", path.display())
            }
        }
    }
}

impl NetworkPlan {
    /// Returns the network configuration list.
    ///
    /// # Errors
    /// Code 7: the name is not valid.
    pub fn list(&self) -> Result<Value, Error> {
        check_name(&self.name)?;
        let mut plugin = json!({
            "type": PLUGIN,
            "switch": self.switch,
            "mtu": self.mtu,
            "capabilities": {"mac": true, "ips": true, "CNIDeviceInfoFile": true},
        });
        if let Mode::SocketDir { below, container_listens } = &self.mode {
            plugin["mode"] = "socket-dir".into();
            plugin["socketDir"] = json!(below);
            plugin["listen"] = if *container_listens { "container" } else { "switch" }.into();
        }
        if let Some(vlan) = self.vlan {
            plugin["vlan"] = vlan.into();
        }
        if let Some(subnet) = &self.subnet {
            plugin["ipam"] = json!({"type": "host-local", "ranges": [[{"subnet": subnet}]]});
        }
        if let Some(plugin) = plugin.as_object_mut() {
            plugin.extend(self.more.clone());
        }
        Ok(json!({"cniVersion": self.version.as_str(), "name": self.name, "plugins": [plugin]}))
    }
}

impl Install {
    /// Returns the path of the network's file. The name sorts late: runtimes use the first file of the folder for
    /// their default network.
    #[must_use]
    pub fn network_file(&self) -> PathBuf {
        self.conf_dir.join(format!("90-{PLUGIN}-{}.conflist", self.network.name))
    }

    fn plugin_file(&self) -> PathBuf {
        self.bin_dir.join(PLUGIN)
    }

    /// Installs plugin and network. May be repeated; each file is replaced as a whole.
    ///
    /// # Errors
    /// Code 7 for an invalid network, 100 for an existing file with other contents, 5 if a file cannot be written.
    pub fn install(&self) -> Result<Vec<Change>, Error> {
        if self.plugin_only {
            fs::create_dir_all(&self.bin_dir).map_err(|error| failed("making", &self.bin_dir, &error))?;
            return Ok(vec![self.place_plugin()?]);
        }
        let mut text = serde_json::to_string_pretty(&self.network.list()?).unwrap_or_default();
        text.push('\n');
        let file = self.network_file();
        let here = fs::read(&file).ok();
        if here.as_deref().is_some_and(|here| here != text.as_bytes()) && !self.force {
            return Err(Error::new(
                Code::Exists,
                format!("{} is there with other contents", file.display()),
                "replace it with --force, or give the network another name",
            ));
        }
        for folder in [&self.bin_dir, &self.conf_dir] {
            fs::create_dir_all(folder).map_err(|error| failed("making", folder, &error))?;
        }
        // The plugin first: a network without its plugin is an error for every runtime that finds it.
        let plugin = self.place_plugin()?;
        if here.is_some_and(|here| here == text.as_bytes()) {
            return Ok(vec![plugin, Change::Kept(file)]);
        }
        replace(&file, |new| {
            fs::write(new, &text)?;
            fs::set_permissions(new, fs::Permissions::from_mode(0o644))
        })?;
        Ok(vec![plugin, Change::Written(file)])
    }

    fn place_plugin(&self) -> Result<Change, Error> {
        let file = self.plugin_file();
        if fs::symlink_metadata(&file).is_ok_and(|meta| meta.is_dir()) {
            return Err(Error::new(
                Code::Exists,
                format!("{} is a folder", file.display()),
                "remove it, or name another folder with --bin-dir",
            ));
        }
        let same = match self.copy {
            false => fs::read_link(&file).is_ok_and(|target| target == self.program),
            true => {
                fs::symlink_metadata(&file).is_ok_and(|meta| meta.is_file())
                    && fs::read(&file).ok() == fs::read(&self.program).ok()
            }
        };
        if same {
            return Ok(Change::Kept(file));
        }
        replace(&file, |new| match self.copy {
            true => fs::copy(&self.program, new).map(drop),
            false => std::os::unix::fs::symlink(&self.program, new),
        })?;
        Ok(Change::Written(file))
    }

    /// Removes the network, and the plugin unless another network in the folder needs it.
    ///
    /// # Errors
    /// Code 100 if the network's file is not this plugin's, 5 if a file cannot be removed.
    pub fn uninstall(&self) -> Result<Vec<Change>, Error> {
        check_name(&self.network.name)?;
        let file = self.network_file();
        let ours = |network: &Network| network.types().contains(&PLUGIN);
        if file.exists() && !Network::load(&file).is_ok_and(|network| ours(&network)) && !self.force {
            return Err(Error::new(
                Code::Exists,
                format!("{} is not a network of this plugin", file.display()),
                "remove it by hand, or with --force",
            ));
        }
        let network = remove(file)?;
        let others = Network::all(&self.conf_dir);
        let plugin = match others.iter().find(|(_, network)| ours(network)) {
            Some((_, network)) => Change::Needed(self.plugin_file(), network.name().into()),
            None => remove(self.plugin_file())?,
        };
        Ok(vec![network, plugin])
    }
}

fn failed(action: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::io(
        format!("{action} {}", path.display()),
        error,
        "run it as root, or name other folders with --bin-dir and --conf-dir",
    )
}

/// Creates a file beside `path` and renames it when it is complete.
fn replace(path: &Path, make: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // Runtimes skip names without a known extension.
    let new = path.with_file_name(format!(".{name}.{}.new", std::process::id()));
    let _ = fs::remove_file(&new);
    make(&new).and_then(|()| fs::rename(&new, path)).map_err(|error| {
        let _ = fs::remove_file(&new);
        failed("writing", path, &error)
    })
}

fn remove(path: PathBuf) -> Result<Change, Error> {
    match fs::remove_file(&path) {
        Ok(()) => Ok(Change::Removed(path)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Change::Absent(path)),
        Err(error) => Err(failed("removing", &path, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(name: &str) -> (PathBuf, Install) {
        let folder = std::env::temp_dir().join(format!("linecard-cni-install-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let program = folder.join("program");
        fs::create_dir_all(&folder).expect("made");
        fs::write(&program, "#!/bin/sh\n").expect("written");
        let (bin_dir, conf_dir) = (folder.join("opt/cni/bin"), folder.join("etc/cni/net.d"));
        (folder, Install { bin_dir, conf_dir, program, ..Install::default() })
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_written_is_a_network_of_the_plugin() {
        let (folder, mut install) = plan("written");
        install.install().expect("written");
        let network = Network::load(&install.network_file()).expect("a network");
        assert_eq!((network.name(), network.types()), ("fast", vec!["linecard"]));
        assert_eq!(fs::read_link(install.bin_dir.join("linecard")).expect("a link"), install.program);
        install.copy = true;
        assert!(matches!(&install.install().expect("again")[..], [Change::Written(_), Change::Kept(_)]));
        assert_eq!(fs::read_to_string(install.bin_dir.join("linecard")).expect("a copy"), "#!/bin/sh\n");
        assert!(matches!(&install.install().expect("again")[..], [Change::Kept(_), Change::Kept(_)]));
        assert_eq!(names(&install.conf_dir), ["90-linecard-fast.conflist"]);
        assert_eq!(names(&install.bin_dir), ["linecard"]);
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn what_others_wrote_stays() {
        let (folder, mut install) = plan("others");
        install.install().expect("written");
        install.network.vlan = Some(7);
        let error = install.install().expect_err("other contents");
        assert!(error.code == Code::Exists && error.details.contains("--force"), "{error}");
        install.force = true;
        assert!(matches!(&install.install().expect("forced")[..], [Change::Kept(_), Change::Written(_)]));
        install.force = false;
        let mut second = install.clone();
        second.network.name = "second".into();
        second.install().expect("beside");
        assert!(matches!(
            &install.uninstall().expect("one")[..],
            [Change::Removed(_), Change::Needed(_, network)] if network == "second"
        ));
        fs::write(second.network_file(), r#"{"cniVersion": "1.0.0", "name": "x", "type": "bridge"}"#)
            .expect("written");
        assert_eq!(second.uninstall().expect_err("another's").code, Code::Exists);
        second.force = true;
        assert!(matches!(&second.uninstall().expect("both")[..], [Change::Removed(_), Change::Removed(_)]));
        assert!(matches!(&second.uninstall().expect("again")[..], [Change::Absent(_), Change::Absent(_)]));
        second.plugin_only = true;
        assert!(matches!(&second.install().expect("the plugin")[..], [Change::Written(_)]));
        assert!(names(&second.conf_dir).is_empty());
        second.uninstall().expect("removed");
        install.network.name = "../../x".into();
        assert_eq!(install.install().expect_err("a path").code, Code::Config);
        assert_eq!(install.uninstall().expect_err("a path").code, Code::Config);
        assert!(names(&install.bin_dir).is_empty() && names(&install.conf_dir).is_empty());
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_told_and_left() {
        let (folder, mut install) = plan("refused");
        install.bin_dir = folder.join("program");
        let error = install.install().expect_err("a file for a folder");
        assert!(error.code == Code::Io && error.details.contains("--bin-dir"), "{error}");
        install.bin_dir = folder.join("bin");
        fs::create_dir_all(install.bin_dir.join("linecard")).expect("made");
        assert_eq!(install.install().expect_err("a folder for a file").code, Code::Exists);
        assert!(names(&install.conf_dir).is_empty());
        fs::remove_dir_all(folder).expect("removed");
    }
}
