//! The network configuration on standard input.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::address::{Cidr, Mac};
use crate::environment::{Attachment, Environment, excerpt};
use crate::error::{Code, Error};
use crate::kernel::Ports;
use crate::version::Version;

/// The default path of the switch's control socket (`switch`).
pub const SWITCH: &str = "/run/linecard/switch.sock";
/// The default folder of sockets of `"mode": "socket-dir"` (`socketDir`).
pub const SOCKET_DIR: &str = "/run/linecard/cni";
/// The default folder of the plugin's records (`stateDir`).
pub const STATE_DIR: &str = "/run/linecard/cni-state";
/// The maximum number of bytes of a configuration.
pub const MAX_CONFIG: usize = 4 << 20;

/// The keys that DEL and GC read.
const REMOVING: [&str; 9] = [
    "cniVersion",
    "name",
    "switch",
    "mode",
    "socketDir",
    "ipam",
    "stateDir",
    "cni.dev/valid-attachments",
    "cni.dev/attachments",
];

/// How a container reaches the socket of its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Through an abstract socket in its network namespace, `@vport/<ifname>`, on which the switch listens.
    Abstract,
    /// Through a socket in a folder of its own below `below`, to be mounted into the container.
    SocketDir {
        /// The folder that contains one folder per attachment.
        below: PathBuf,
        /// Whether the container listens and the switch connects.
        container_listens: bool,
    },
}

/// A checked configuration. For DEL and GC, which use what ADD recorded, fields that describe the port have
/// their defaults.
///
/// ```
/// use linecard_cni::{Config, Environment};
/// let environment = Environment::read(|name| (name == "CNI_COMMAND").then(|| "STATUS".into()))?;
/// let config = Config::read(br#"{"cniVersion": "1.0.0", "name": "fast", "type": "linecard", "vlan": 7}"#, &environment)?;
/// assert_eq!((config.name.as_str(), config.vlan, config.mtu), ("fast", Some(7), 1500));
/// let problem = Config::read(br#"{"cniVersion": "1.0.0", "name": "fast", "vlan": "x"}"#, &environment);
/// assert_eq!(problem.expect_err("no number").code.number(), 7);
/// # Ok::<(), linecard_cni::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    /// The version that the answer must have.
    pub version: Version,
    /// The name of the network.
    pub name: String,
    /// The path of the switch's control socket.
    pub switch: PathBuf,
    /// How the container reaches the port.
    pub mode: Mode,
    /// The VLAN of the port's untagged frames.
    pub vlan: Option<u16>,
    /// The number of queue pairs.
    pub queues: u16,
    /// The largest IP packet, in bytes.
    pub mtu: u16,
    /// Whether a kernel interface beside the port shows its addresses.
    pub link: bool,
    /// The TCP and UDP ports of the fast port, if it shares its address with that interface:
    /// `tcp:4444-20000,udp:53`.
    pub ports: Option<String>,
    /// The requested MAC address.
    pub mac: Option<Mac>,
    /// The requested IP addresses. An IPAM plugin gets the same configuration and reads them from it.
    pub ips: Vec<Cidr>,
    /// The plugin that assigns addresses.
    pub ipam: Option<String>,
    /// The result's `dns`, unless the IPAM plugin gives one.
    pub dns: Option<Value>,
    /// The folder of the records.
    pub state_dir: PathBuf,
    /// The path of the device-info file.
    pub device_info: Option<PathBuf>,
    /// The result of the previous plugin in the chain, or of the last ADD.
    pub prev_result: Option<Value>,
    /// For GC: the attachments to keep.
    pub valid: Option<Vec<Attachment>>,
    /// The bytes on standard input, for delegated plugins.
    pub raw: Vec<u8>,
}

impl Config {
    /// Parses a configuration; `CNI_ARGS` in `environment` may override parts of it.
    ///
    /// # Errors
    /// Code 6 if it is not a JSON object, 1 for another version, 7 for an invalid value, which is named.
    pub fn read(bytes: &[u8], environment: &Environment) -> Result<Self, Error> {
        let mut object = object(bytes)?;
        let removes = environment.command.removes();
        if removes {
            // After a refused ADD, DEL must succeed: what only ADD and CHECK use is not checked again.
            object.retain(|key, _| REMOVING.contains(&key.as_str()));
        }
        let fields = Fields { object: &object, at: "" };
        let version = Version::parse(fields.text("cniVersion")?.unwrap_or("0.1.0"))?;
        let name = fields.text("name")?.unwrap_or_default();
        check_name(name)?;
        let asked = Asked::read(&fields, environment)?;
        let ipam = match fields.below("ipam")? {
            Some(ipam) => ipam.text("type")?.filter(|name| !name.is_empty()),
            None => None,
        };
        Ok(Self {
            version,
            name: name.into(),
            switch: fields.path("switch", SWITCH)?,
            mode: match mode(&fields) {
                // No ADD has made a folder in a mode that is refused.
                Err(_) if removes => Mode::Abstract,
                mode => mode?,
            },
            vlan: fields.number("vlan", 1, 4094)?,
            queues: fields.number("queues", 1, 128)?.unwrap_or(1),
            mtu: fields.number("mtu", 68, 65_535)?.unwrap_or(1500),
            link: link(&fields, asked.ports.is_some())?,
            ports: asked.ports.map(|ports| ports.to_string()),
            mac: asked.mac,
            ips: asked.ips,
            ipam: ipam.map(plugin_name).transpose()?,
            dns: fields.object.get("dns").filter(|dns| dns.is_object()).cloned(),
            state_dir: fields.path("stateDir", STATE_DIR)?,
            device_info: asked.device_info,
            prev_result: prev_result(&fields)?,
            valid: valid(&fields)?,
            raw: bytes.to_vec(),
        })
    }
}

/// Parses `bytes` as a JSON object.
pub(crate) fn object(bytes: &[u8]) -> Result<Map<String, Value>, Error> {
    object_of("the network configuration", "pass one JSON object on standard input", bytes)
}

/// The same for other input than the plugin's standard input; `what` and `remedy` are for messages.
pub(crate) fn object_of(what: &str, remedy: &str, bytes: &[u8]) -> Result<Map<String, Value>, Error> {
    let refusal = |problem: String, remedy: &str| Err(Error::new(Code::Decode, problem, remedy));
    if bytes.len() > MAX_CONFIG {
        return refusal(format!("{what} is too long"), &format!("give at most {MAX_CONFIG} bytes"));
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => refusal(format!("{what} is no JSON object"), "write it as {…}"),
        Err(error) => refusal(format!("{what} is not JSON: {error}"), remedy),
    }
}

/// The parameters of this attachment. The most specific source wins, in this order: `runtimeConfig`,
/// `args.cni`, `CNI_ARGS`, the keys of the network.
struct Asked {
    mac: Option<Mac>,
    ips: Vec<Cidr>,
    ports: Option<Ports>,
    device_info: Option<PathBuf>,
}

impl Asked {
    fn read(fields: &Fields<'_>, environment: &Environment) -> Result<Self, Error> {
        let runtime = fields.below("runtimeConfig")?;
        let args = match fields.below("args")? {
            Some(args) => args.below("cni")?,
            None => None,
        };
        let (mut mac, mut ips, mut ports) = (None, Vec::new(), None);
        for source in [&runtime, &args].into_iter().flatten() {
            mac = mac.or(source.parsed("mac")?);
            if ips.is_empty() {
                ips = source.list("ips")?;
            }
            if ports.is_none() {
                ports = source.parsed("ports")?;
            }
        }
        for (key, value) in &environment.args {
            match key.as_str() {
                "MAC" if mac.is_none() && !value.is_empty() => mac = Some(parsed("CNI_ARGS", key, value)?),
                "IP" if ips.is_empty() && !value.is_empty() => {
                    let each = value.split(',').map(|ip| parsed("CNI_ARGS", key, ip));
                    ips = each.collect::<Result<_, _>>()?;
                }
                "PORTS" if ports.is_none() && !value.is_empty() => {
                    ports = Some(parsed("CNI_ARGS", key, value)?);
                }
                _ => {}
            }
        }
        if ports.is_none() {
            ports = fields.parsed("ports")?;
        }
        if mac.is_none() {
            mac = fields.parsed("mac")?;
        }
        if ips.is_empty() {
            ips = fields.list("ips")?;
        }
        let device_info = match &runtime {
            Some(runtime) => runtime.absolute("CNIDeviceInfoFile")?,
            None => None,
        };
        Ok(Self { mac, ips, ports, device_info })
    }
}

/// Whether an interface is to be made; it must be if its address is `shared`.
fn link(fields: &Fields<'_>, shared: bool) -> Result<bool, Error> {
    let link = fields.flag("link")?.unwrap_or(true);
    match shared && !link {
        true => Err(Error::config(
            "'ports' shares the address of the interface that \"link\": false leaves out",
            "leave out one of the two",
        )),
        false => Ok(link),
    }
}

fn mode(fields: &Fields<'_>) -> Result<Mode, Error> {
    let listens = fields.one_of("listen", &["switch", "container"])?.unwrap_or("switch");
    let below = fields.path("socketDir", SOCKET_DIR)?;
    if fields.text("mode")? == Some("fd") {
        return Err(Error::new(
            Code::UnsupportedField,
            "'mode' is \"fd\", and no container runtime passes a descriptor from a plugin to a container",
            "use \"abstract\" or \"socket-dir\"; `linecard cni run --pass-fd` passes one to the command that it starts",
        ));
    }
    match (fields.one_of("mode", &["abstract", "socket-dir"])?.unwrap_or("abstract"), listens) {
        ("socket-dir", _) => Ok(Mode::SocketDir { below, container_listens: listens == "container" }),
        (_, "container") => Err(Error::config(
            "'listen' is \"container\", and an abstract socket is the switch's",
            "leave 'listen' out, or add \"mode\": \"socket-dir\"",
        )),
        _ => Ok(Mode::Abstract),
    }
}

pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(legal) {
        return Ok(());
    }
    Err(Error::config(
        format!("'name' is \"{}\"", excerpt(name)),
        "use letters, digits, '_', '.' and '-', beginning with a letter or digit",
    ))
}

/// Checks that this is the name of a file, not a path, which could lead anywhere.
fn plugin_name(name: &str) -> Result<String, Error> {
    match name.contains(['/', '\\', '\0']) || name == "." || name == ".." {
        true => Err(Error::config(
            format!("'ipam.type' is \"{}\"", excerpt(name)),
            "give the name of a file in CNI_PATH",
        )),
        false => Ok(name.into()),
    }
}

fn prev_result(fields: &Fields<'_>) -> Result<Option<Value>, Error> {
    match fields.object.get("prevResult") {
        None | Some(Value::Null) => Ok(None),
        Some(value @ Value::Object(result)) => {
            for key in ["interfaces", "ips", "routes"] {
                if !matches!(result.get(key), None | Some(Value::Null | Value::Array(_))) {
                    return Err(fields.wrong(&format!("prevResult.{key}"), &result[key], "give a list"));
                }
            }
            Ok(Some(value.clone()))
        }
        Some(value) => Err(fields.wrong("prevResult", value, "give the result of the plugin before")),
    }
}

/// The specification names the key `cni.dev/valid-attachments`; libcni sends `cni.dev/attachments` too.
fn valid(fields: &Fields<'_>) -> Result<Option<Vec<Attachment>>, Error> {
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        let list = match fields.object.get(key) {
            None | Some(Value::Null) => continue,
            Some(Value::Array(list)) => list,
            Some(value) => return Err(fields.wrong(key, value, "give a list of attachments")),
        };
        let attachment = |value: &Value| {
            let text = |key: &str| value.get(key).and_then(Value::as_str);
            let (container, ifname) = (text("containerID")?, text("ifname")?);
            Attachment::new(container, ifname).ok()
        };
        let each = list.iter().map(|value| {
            let remedy = "give 'containerID' and 'ifname' of an attachment";
            attachment(value).ok_or_else(|| fields.wrong(key, value, remedy))
        });
        return each.collect::<Result<_, _>>().map(Some);
    }
    Ok(None)
}

/// An object of the configuration, and the path to it for messages.
struct Fields<'a> {
    object: &'a Map<String, Value>,
    at: &'a str,
}

impl<'a> Fields<'a> {
    fn wrong(&self, key: &str, value: &Value, remedy: impl Into<String>) -> Error {
        Error::config(format!("'{}{key}' is {}", self.at, excerpt(&value.to_string())), remedy)
    }

    fn value(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>, Error> {
        let value = self.value(key);
        let text = |value: &'a Value| value.as_str().ok_or_else(|| self.wrong(key, value, "give a string"));
        value.map(text).transpose()
    }

    fn below(&self, key: &str) -> Result<Option<Fields<'a>>, Error> {
        let at = match key {
            "runtimeConfig" => "runtimeConfig.",
            "args" => "args.",
            "cni" => "args.cni.",
            _ => "ipam.",
        };
        match self.value(key) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(Fields { object, at })),
            Some(value) => Err(self.wrong(key, value, "give an object")),
        }
    }

    fn number(&self, key: &str, least: u16, most: u16) -> Result<Option<u16>, Error> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let number = value.as_u64().and_then(|number| u16::try_from(number).ok());
        match number.filter(|number| (least..=most).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(key, value, format!("give a number from {least} to {most}"))),
        }
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, Error> {
        let flag =
            |value: &Value| value.as_bool().ok_or_else(|| self.wrong(key, value, "give true or false"));
        self.value(key).map(flag).transpose()
    }

    fn one_of(&self, key: &str, words: &[&'static str]) -> Result<Option<&'static str>, Error> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let known = words.iter().find(|word| value.as_str() == Some(**word));
        known
            .copied()
            .map(Some)
            .ok_or_else(|| self.wrong(key, value, format!("give one of {}", words.join(", "))))
    }

    fn absolute(&self, key: &str) -> Result<Option<PathBuf>, Error> {
        let Some(text) = self.text(key)?.filter(|text| !text.is_empty()) else { return Ok(None) };
        let path = PathBuf::from(text);
        let plain = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
        match path.is_absolute() && plain && !text.contains('\0') {
            true => Ok(Some(path)),
            false => Err(self.wrong(key, &Value::from(text), "give an absolute path without '..'")),
        }
    }

    fn path(&self, key: &str, default: &str) -> Result<PathBuf, Error> {
        Ok(self.absolute(key)?.unwrap_or_else(|| default.into()))
    }

    fn parsed<T: FromStr<Err: Display>>(&self, key: &str) -> Result<Option<T>, Error> {
        match self.text(key)? {
            None | Some("") => Ok(None),
            Some(text) => parsed(self.at, key, text).map(Some),
        }
    }

    fn list<T: FromStr<Err: Display>>(&self, key: &str) -> Result<Vec<T>, Error> {
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        let strings: Option<Vec<&str>> =
            value.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
        let strings = strings.ok_or_else(|| self.wrong(key, value, "give a list of strings"))?;
        strings.into_iter().map(|text| parsed(self.at, key, text)).collect()
    }
}

fn parsed<T: FromStr<Err: Display>>(at: &str, key: &str, text: &str) -> Result<T, Error> {
    let place = if at == "CNI_ARGS" { "CNI_ARGS " } else { at };
    text.parse().map_err(|error| {
        Error::config(format!("'{place}{key}' is \"{}\"", excerpt(text)), format!("{error}"))
    })
}

#[cfg(test)]
mod tests;
