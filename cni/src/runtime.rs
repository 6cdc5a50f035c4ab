//! The side of a container runtime: network configuration lists, whose plugins are called in order.
//!
//! It handles a list as libcni does (specification, section 3): each plugin gets the list's `name` and
//! `cniVersion`, the result of the previous plugin, and the capabilities that it declares. Nothing is cached:
//! the caller of ADD keeps the result for CHECK and DEL.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::config::{check_name, object};
use crate::environment::{Attachment, Command, excerpt};
use crate::error::{Code, Error};
use crate::exec::{Run, find_plugin};
use crate::version::Version;

/// The maximum number of bytes of a configuration file.
const MOST: u64 = 4 << 20;
/// The file name extensions of network configurations, as in libcni.
const ENDINGS: [&str; 3] = ["conflist", "conf", "json"];

/// A network configuration list.
///
/// ```
/// use linecard_cni::Network;
/// let text = br#"{"cniVersion": "1.0.0", "name": "fast", "plugins": [{"type": "linecard"}]}"#;
/// let network = Network::parse(text)?;
/// assert_eq!((network.name(), network.types()), ("fast", vec!["linecard"]));
/// # Ok::<(), linecard_cni::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    name: String,
    version: Version,
    /// Never empty; each plugin has a `type`.
    plugins: Vec<Map<String, Value>>,
    no_check: bool,
    no_gc: bool,
}

/// An attachment to be made, and the runtime's data about it.
///
/// ```
/// use linecard_cni::{Attachment, Target};
/// let mut target = Target::new(Attachment::new("box", "net1")?, "/run/netns/box", &["/opt/cni/bin".into()]);
/// target.capabilities.insert("mac".into(), "02:00:00:00:00:01".into());
/// # Ok::<(), linecard_cni::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Target {
    /// The container, and the name of the interface in it.
    pub attachment: Attachment,
    /// The network namespace of the container.
    pub netns: PathBuf,
    /// `CNI_ARGS`.
    pub args: String,
    /// The values of `runtimeConfig`, by capability.
    pub capabilities: Map<String, Value>,
    /// `CNI_PATH`.
    pub path: Vec<PathBuf>,
}

impl Target {
    /// An attachment in `netns`, with plugins from the folders `path`.
    #[must_use]
    pub fn new(attachment: Attachment, netns: impl Into<PathBuf>, path: &[PathBuf]) -> Self {
        let (args, capabilities) = (String::new(), Map::new());
        Self { attachment, netns: netns.into(), args, capabilities, path: path.to_vec() }
    }
}

impl Network {
    /// Parses a list, or the configuration of one plugin as a list of one.
    ///
    /// # Errors
    /// Code 6 if it is not a JSON object, 1 for another version, 7 if no runtime could use it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let whole = object(bytes)?;
        let text = |key: &str| whole.get(key).and_then(Value::as_str);
        let version = Version::parse(text("cniVersion").unwrap_or("0.1.0"))?;
        let name = text("name").unwrap_or_default();
        check_name(name)?;
        let flag = |key: &str| match whole.get(key) {
            // libcni accepts strings too.
            Some(value) => value == &Value::Bool(true) || value == "true",
            None => false,
        };
        let plugins = match whole.get("plugins") {
            None => vec![whole.clone()],
            Some(Value::Array(list)) => {
                list.iter().filter_map(|plugin| plugin.as_object().cloned()).collect()
            }
            Some(_) => Vec::new(),
        };
        let typed = |plugin: &Map<String, Value>| {
            plugin.get("type").and_then(Value::as_str).is_some_and(|name| !name.is_empty())
        };
        let as_many = whole.get("plugins").and_then(Value::as_array).map_or(1, Vec::len);
        if plugins.is_empty() || plugins.len() != as_many || !plugins.iter().all(typed) {
            return Err(Error::config(
                format!("'plugins' of network {name} is not a list of plugins"),
                "give at least one object with a 'type'",
            ));
        }
        let (no_check, no_gc) = (flag("disableCheck"), flag("disableGC"));
        Ok(Self { name: name.into(), version, plugins, no_check, no_gc })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Code 5 if the file cannot be read, otherwise as [`parse`](Self::parse).
    pub fn load(path: &Path) -> Result<Self, Error> {
        let failed = |error: &std::io::Error| {
            let remedy = "give a network configuration list that can be read";
            Error::io(format!("reading {}", path.display()), error, remedy)
        };
        let mut bytes = Vec::new();
        let file = fs::File::open(path).map_err(|error| failed(&error))?;
        std::io::Read::read_to_end(&mut std::io::Read::take(file, MOST + 1), &mut bytes)
            .map_err(|error| failed(&error))?;
        Self::parse(&bytes)
            .map_err(|error| Error { msg: format!("{}: {}", path.display(), error.msg), ..error })
    }

    /// Returns the first network in `folder`, by file name, that `wanted` accepts. Files that are not
    /// networks are skipped.
    ///
    /// ```
    /// let problem = linecard_cni::Network::find("/no/such/folder".as_ref(), "a network 'fast'", |_| true);
    /// assert!(problem.expect_err("none").msg.contains("no network 'fast' in /no/such/folder"));
    /// ```
    ///
    /// # Errors
    /// Code 7: there is none; `what` describes it in the message.
    pub fn find(folder: &Path, what: &str, wanted: impl Fn(&Self) -> bool) -> Result<Self, Error> {
        let mut networks = Self::all(folder).into_iter().map(|(_, network)| network);
        networks.find(wanted).ok_or_else(|| {
            let what = what.strip_prefix("a ").unwrap_or(what);
            Error::config(
                format!("there is no {what} in {}", folder.display()),
                "write one with `linecard cni install`, or name another folder",
            )
        })
    }

    /// Returns every network in `folder` with its file, by file name.
    #[must_use]
    pub fn all(folder: &Path) -> Vec<(PathBuf, Self)> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.retain(|file| {
            file.extension().and_then(|end| end.to_str()).is_some_and(|end| ENDINGS.contains(&end))
        });
        files.sort();
        files.into_iter().filter_map(|file| Self::load(&file).ok().map(|network| (file, network))).collect()
    }

    /// Returns the name of the network.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the types of its plugins, in order.
    #[must_use]
    pub fn types(&self) -> Vec<&str> {
        self.plugins.iter().filter_map(|plugin| plugin.get("type")?.as_str()).collect()
    }

    /// Attaches a container: ADD of each plugin in order. If one fails, DEL of all plugins undoes it.
    ///
    /// # Errors
    /// The error of the first plugin that failed.
    pub fn add(&self, target: &Target) -> Result<Value, Error> {
        let mut result = Value::Null;
        for plugin in &self.plugins {
            let added = self.run(plugin, Command::Add, target, Some(&result).filter(|it| !it.is_null()));
            result = added.inspect_err(|_| {
                // The first error is the one to report.
                let _ = self.del(target, None);
            })?;
        }
        Ok(result)
    }

    /// Checks the attachment against `result`, the result of ADD. Does nothing if the list disables CHECK or
    /// its version has none.
    ///
    /// # Errors
    /// The error of the first plugin that failed.
    pub fn check(&self, target: &Target, result: &Value) -> Result<(), Error> {
        if self.no_check || !self.version.has_check() {
            return Ok(());
        }
        self.plugins
            .iter()
            .try_for_each(|plugin| self.run(plugin, Command::Check, target, Some(result)).map(drop))
    }

    /// Detaches a container: DEL of each plugin, the last one first, also after one that fails.
    ///
    /// # Errors
    /// The first error.
    pub fn del(&self, target: &Target, result: Option<&Value>) -> Result<(), Error> {
        let mut first = Ok(());
        for plugin in self.plugins.iter().rev() {
            // DEL gets the result from version 0.4.0 on.
            let result = result.filter(|_| self.version.has_check());
            let outcome = self.run(plugin, Command::Del, target, result).map(drop);
            if first.is_ok() {
                first = outcome;
            }
        }
        first
    }

    /// Removes what belongs to none of the `valid` attachments. Does nothing if the list disables GC or its
    /// version has none.
    ///
    /// # Errors
    /// The first error; the other plugins are called all the same.
    pub fn gc(&self, path: &[PathBuf], valid: &[Attachment]) -> Result<(), Error> {
        if self.no_gc || !self.version.has_gc() {
            return Ok(());
        }
        let list: Vec<Value> = valid
            .iter()
            .map(|valid| json!({"containerID": valid.container(), "ifname": valid.ifname()}))
            .collect();
        let mut first = Ok(());
        for plugin in &self.plugins {
            let mut config = self.config(plugin, &Map::new(), None);
            config.insert("cni.dev/valid-attachments".into(), json!(list));
            config.insert("cni.dev/attachments".into(), json!(list));
            let outcome = self.call(plugin, Command::Gc, path, None, config).map(drop);
            if first.is_ok() {
                first = outcome;
            }
        }
        first
    }

    fn run(
        &self,
        plugin: &Map<String, Value>,
        command: Command,
        target: &Target,
        prev: Option<&Value>,
    ) -> Result<Value, Error> {
        let config = self.config(plugin, &target.capabilities, prev);
        self.call(plugin, command, &target.path, Some(target), config)
    }

    /// The standard input of a plugin.
    fn config(
        &self,
        plugin: &Map<String, Value>,
        given: &Map<String, Value>,
        prev: Option<&Value>,
    ) -> Map<String, Value> {
        let mut config = plugin.clone();
        config.insert("name".into(), self.name.clone().into());
        config.insert("cniVersion".into(), self.version.as_str().into());
        let declared = config.remove("capabilities");
        let declared = |key: &str| declared.as_ref().is_some_and(|list| list[key] == true);
        let runtime: Map<String, Value> = given
            .iter()
            .filter(|(key, _)| declared(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if !runtime.is_empty() {
            config.insert("runtimeConfig".into(), Value::Object(runtime));
        }
        if let Some(prev) = prev {
            config.insert("prevResult".into(), prev.clone());
        }
        config
    }

    fn call(
        &self,
        plugin: &Map<String, Value>,
        command: Command,
        path: &[PathBuf],
        target: Option<&Target>,
        config: Map<String, Value>,
    ) -> Result<Value, Error> {
        let name = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
        let program = find_plugin(name, path)?;
        let folders = std::env::join_paths(path).map_err(|_| {
            Error::new(Code::Environment, "a folder of CNI_PATH has a ':' in its name", "give another one")
        })?;
        let mut run = Run::new(program, command).variable("CNI_PATH", folders);
        for variable in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"] {
            run = run.without(variable);
        }
        if let Some(target) = target {
            run = run
                .variable("CNI_CONTAINERID", target.attachment.container())
                .variable("CNI_IFNAME", target.attachment.ifname())
                .variable("CNI_NETNS", &target.netns)
                .variable("CNI_ARGS", &target.args);
        }
        run.input(Value::Object(config).to_string().as_bytes()).run()?.result(&excerpt(name))
    }
}

#[cfg(test)]
mod tests;
