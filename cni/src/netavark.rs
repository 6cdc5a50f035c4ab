//! The plugin as called by netavark, podman's network program since podman 4.5 (netavark's plugin API 1.0.0).
//!
//! | called as | standard input | standard output |
//! |---|---|---|
//! | `create` | a network | the same network, checked |
//! | `setup NETNS` | a container, its options, its network | the interface, as `podman inspect` shows it |
//! | `teardown NETNS` | as above | nothing |
//! | `info` | nothing | version of the plugin and of the API |
//!
//! podman assigns addresses itself, so no IPAM plugin is called. Everything else is ADD and DEL of the
//! container plugin: options of the network (`podman network create --driver linecard --opt vlan=7`) are keys
//! of its configuration.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::address::Cidr;
use crate::config::{Config, MAX_CONFIG, object};
use crate::environment::{Environment, excerpt};
use crate::error::{Code, Error};
use crate::plugin::{self, Output};
use crate::version::Version;

/// The version of netavark's plugin API.
const API: &str = "1.0.0";

/// The type of a key of the configuration; options are always text.
#[derive(Clone, Copy)]
enum Holds {
    Text,
    Number,
    Flag,
}

/// The options of a network that are keys of the plugin's configuration.
const OPTIONS: &[(&str, Holds)] = &[
    ("switch", Holds::Text),
    ("stateDir", Holds::Text),
    ("mode", Holds::Text),
    ("listen", Holds::Text),
    ("socketDir", Holds::Text),
    ("vlan", Holds::Number),
    ("mtu", Holds::Number),
    ("queues", Holds::Number),
    ("link", Holds::Flag),
    ("ports", Holds::Text),
];

/// A request of netavark, from the arguments of the program.
///
/// ```
/// use linecard_cni::netavark::Request;
/// let arguments = ["setup".into(), "/run/netns/box".into()];
/// assert_eq!(Request::of(&arguments), Some(Request::Setup("/run/netns/box".into())));
/// assert_eq!(Request::of(&["switch".into()]), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Check a network.
    Create,
    /// Attach a container with this network namespace.
    Setup(OsString),
    /// Detach it.
    Teardown(OsString),
    /// Return the supported versions.
    Info,
}

impl Request {
    /// Parses arguments without the program's name; returns `None` if they are not a request of netavark.
    #[must_use]
    pub fn of(arguments: &[OsString]) -> Option<Self> {
        match arguments {
            [word] if word == "create" => Some(Self::Create),
            [word] if word == "info" => Some(Self::Info),
            [word, netns] if word == "setup" => Some(Self::Setup(netns.clone())),
            [word, netns] if word == "teardown" => Some(Self::Teardown(netns.clone())),
            _ => None,
        }
    }

    /// Carries out the request; the input on `stdin` comes from another program.
    ///
    /// ```
    /// use linecard_cni::netavark::Request;
    /// let network = r#"{"name": "fast", "options": {"vlan": "0"}}"#;
    /// let output = Request::Create.answer(network.as_bytes());
    /// assert_eq!(output.stdout, r#"{"error":"'vlan' is 0: give a number from 1 to 4094"}"#);
    /// ```
    #[must_use]
    pub fn answer(&self, stdin: impl Read) -> Output {
        let outcome = match self {
            Self::Info => Ok(Some(json!({"version": env!("CARGO_PKG_VERSION"), "api_version": API}))),
            Self::Create => read(stdin).and_then(create).map(Some),
            Self::Setup(netns) => read(stdin).and_then(|exec| setup(netns, &exec)).map(Some),
            Self::Teardown(netns) => read(stdin).and_then(|exec| teardown(netns, &exec)).map(|()| None),
        };
        match outcome {
            Ok(answer) => {
                Output { stdout: answer.map_or_else(String::new, |value| value.to_string()), success: true }
            }
            Err(error) => Output { stdout: json!({"error": error.to_string()}).to_string(), success: false },
        }
    }
}

fn read(stdin: impl Read) -> Result<Map<String, Value>, Error> {
    let mut input = Vec::new();
    let read = stdin.take(MAX_CONFIG as u64 + 1).read_to_end(&mut input);
    read.map_err(|error| Error::io("reading the network", &error, "pass it on standard input"))?;
    object(&input)
}

/// Checks a network. Disables name lookups through it, because the kernel's packets do not pass a port of the
/// switch.
fn create(mut network: Map<String, Value>) -> Result<Value, Error> {
    let config = configuration(&network)?;
    let environment = Environment::read(|name| (name == "CNI_COMMAND").then(|| "STATUS".into()))?;
    Config::read(&bytes(&config), &environment)?;
    if network.get("ipam_options").and_then(|ipam| ipam.get("driver")).and_then(Value::as_str) == Some("dhcp")
    {
        return Err(Error::config(
            "the address driver is dhcp, and a port of the switch has no DHCP client",
            "use --ipam-driver host-local or none",
        ));
    }
    network.insert("dns_enabled".into(), false.into());
    Ok(Value::Object(network))
}

/// The plugin's configuration of a network.
fn configuration(network: &Map<String, Value>) -> Result<Map<String, Value>, Error> {
    let name = network.get("name").and_then(Value::as_str).unwrap_or_default();
    let mut config = Map::new();
    config.insert("cniVersion".into(), Version::NEWEST.as_str().into());
    config.insert("name".into(), name.into());
    config.insert("type".into(), "linecard".into());
    let options = network.get("options").and_then(Value::as_object);
    for (key, value) in options.into_iter().flatten() {
        let Some((_, holds)) = OPTIONS.iter().find(|(known, _)| known == key) else {
            let known: Vec<&str> = OPTIONS.iter().map(|(known, _)| *known).collect();
            return Err(Error::config(
                format!("a network of this driver has no option '{}'", excerpt(key)),
                format!("it has {}", known.join(", ")),
            ));
        };
        let text = value.as_str().unwrap_or_default();
        let read = match holds {
            Holds::Text => Some(Value::from(text)),
            Holds::Number => text.parse::<u64>().ok().map(Value::from),
            Holds::Flag => text.parse::<bool>().ok().map(Value::from),
        };
        // A value that cannot be parsed is passed as text; the plugin then refuses it and says what is valid.
        config.insert(key.clone(), read.unwrap_or_else(|| text.into()));
    }
    Ok(config)
}

fn bytes(config: &Map<String, Value>) -> Vec<u8> {
    // A map of JSON values can always be serialized.
    serde_json::to_vec(config).unwrap_or_default()
}

fn below<'a>(exec: &'a Map<String, Value>, key: &str) -> Result<&'a Map<String, Value>, Error> {
    exec.get(key).and_then(Value::as_object).ok_or_else(|| {
        Error::new(Code::Decode, format!("'{key}' is missing or no object"), "call the plugin by netavark")
    })
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Runs ADD or DEL for the container that `exec` describes.
fn run(command: &str, netns: &OsStr, exec: &Map<String, Value>) -> Result<Value, Error> {
    let (network, options) = (below(exec, "network")?, below(exec, "network_options")?);
    let mut config = configuration(network)?;
    let mac = text(options, "static_mac");
    if !mac.is_empty() {
        config.insert("mac".into(), mac.into());
    }
    // DEL uses what ADD recorded: the subnets of the network may have changed meanwhile.
    if command == "ADD" {
        let addresses: Vec<Value> =
            addresses(network, options)?.iter().map(|(cidr, _)| cidr.to_string().into()).collect();
        if !addresses.is_empty() {
            config.insert("ips".into(), addresses.into());
        }
    }
    let lookup = |name: &str| -> Option<OsString> {
        match name {
            "CNI_COMMAND" => Some(command.into()),
            "CNI_CONTAINERID" => Some(text(exec, "container_id").into()),
            "CNI_IFNAME" => Some(text(options, "interface_name").into()),
            "CNI_NETNS" => Some(netns.to_owned()),
            _ => None,
        }
    };
    let Output { stdout, success } = plugin::invoke(lookup, &bytes(&config)[..]);
    let answer: Value = serde_json::from_str(&stdout).unwrap_or_default();
    if success {
        return Ok(answer);
    }
    let of = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    Err(Error::new(Code::Switch, of("msg"), of("details")))
}

/// The addresses that podman assigned, with the gateways of their subnets.
fn addresses(
    network: &Map<String, Value>,
    options: &Map<String, Value>,
) -> Result<Vec<(Cidr, Option<Value>)>, Error> {
    let subnets = || {
        let list = network.get("subnets").and_then(Value::as_array).into_iter().flatten();
        list.filter_map(|subnet| Some((subnet["subnet"].as_str()?.parse::<Cidr>().ok()?, subnet)))
    };
    let chosen = options.get("static_ips").and_then(Value::as_array).into_iter().flatten();
    let each = chosen.map(|value| {
        let address: Option<IpAddr> = value.as_str().and_then(|text| text.parse().ok());
        let found = address.and_then(|address| {
            let (net, subnet) = subnets().find(|(net, _)| contains(*net, address))?;
            let gateway = subnet.get("gateway").filter(|gateway| gateway.is_string()).cloned();
            Some((Cidr { address, prefix: net.prefix }, gateway))
        });
        found.ok_or_else(|| {
            Error::config(
                format!("the address {} is in no subnet of the network", excerpt(&value.to_string())),
                "choose one of a subnet",
            )
        })
    });
    each.collect()
}

/// Returns whether an address is in a subnet.
fn contains(net: Cidr, address: IpAddr) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128_u8),
    };
    let ((a, width), (b, other)) = (bits(net.address), bits(address));
    let rest = u32::from(width.saturating_sub(net.prefix));
    width == other && a.checked_shr(rest) == b.checked_shr(rest)
}

fn setup(netns: &OsStr, exec: &Map<String, Value>) -> Result<Value, Error> {
    let result = run("ADD", netns, exec)?;
    let (network, options) = (below(exec, "network")?, below(exec, "network_options")?);
    let subnets: Vec<Value> = addresses(network, options)?
        .into_iter()
        .map(|(cidr, gateway)| json!({"ipnet": cidr.to_string(), "gateway": gateway}))
        .collect();
    let interface = json!({"mac_address": result["interfaces"][0]["mac"], "subnets": subnets});
    Ok(json!({
        "dns_search_domains": [],
        "dns_server_ips": [],
        "interfaces": {text(options, "interface_name"): interface},
    }))
}

fn teardown(netns: &OsStr, exec: &Map<String, Value>) -> Result<(), Error> {
    run("DEL", netns, exec).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_goes_whose_subnet_has_gone() {
        let folder = std::env::temp_dir().join(format!("linecard-cni-netavark-{}", std::process::id()));
        let exec = json!({
            "container_id": "box",
            "network": {
                "name": "fast",
                "options": {"switch": folder.join("switch.sock"), "stateDir": folder.join("state")},
                "subnets": [{"subnet": "10.90.0.0/24"}],
            },
            "network_options": {"interface_name": "net1", "static_ips": ["10.89.0.5"]},
        });
        let answer = |request: Request| request.answer(exec.to_string().as_bytes());
        let refused = answer(Request::Setup("/run/netns/box".into()));
        assert!(refused.stdout.contains("is in no subnet of the network"), "{}", refused.stdout);
        let gone = answer(Request::Teardown("/run/netns/box".into()));
        assert_eq!((gone.stdout.as_str(), gone.success), ("", true));
        std::fs::remove_dir_all(folder).expect("a folder of records");
    }
}
