//! The configuration file: settings of the switch and its ports, in TOML.
//!
//! ```toml
//! socket = "/run/linecard/switch.sock"
//! age_seconds = 300
//!
//! [[port]]
//! key = "vm1"
//! type = "vhost-user"
//! path = "/run/vm1.sock"
//! mac = "02:00:00:00:00:01"
//! vlan = { access = 10 }
//! queues = 2
//! workers = [0, 1]
//! broadcast_rate = 100
//!
//! [[span]]
//! to = "monitor"
//! ingress = ["vm1"]
//! egress = ["vm1"]
//! ```

use std::path::{Path, PathBuf};

use linecard_switch::api::{PortSpec, Span};
use serde::Deserialize;

use crate::error::Error;

/// The content of the file. An option of the command line with the same name takes precedence.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) socket: Option<PathBuf>,
    pub(crate) state: Option<PathBuf>,
    pub(crate) metrics: Option<String>,
    pub(crate) neigh_suppress: Option<bool>,
    pub(crate) lcores: Option<String>,
    pub(crate) memory: Option<u32>,
    pub(crate) packets: Option<u32>,
    pub(crate) addresses: Option<u32>,
    pub(crate) age_seconds: Option<u32>,
    /// The maximum rate of broadcast, multicast and unknown unicast frames of a port, in frames per second.
    pub(crate) flood_rate: Option<u32>,
    /// The maximum number of addresses behind a port of any kind.
    pub(crate) max_macs: Option<u32>,
    /// The maximum rate of new addresses behind a port, per second.
    pub(crate) learn_rate: Option<u32>,
    /// The mirroring sessions.
    #[serde(default, rename = "span")]
    pub(crate) spans: Vec<Span>,
    #[serde(default, rename = "port")]
    tables: Vec<serde_json::Value>,
    #[serde(skip)]
    pub(crate) ports: Vec<PortSpec>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, or it is invalid: the first problem, with its line.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::System {
            action: format!("the configuration {} cannot be read", path.display()),
            source,
            remedy: "name a readable file in UTF-8 with --config",
        })?;
        Self::parse(&text).map_err(|problem| Error::Failed(format!("{}: {problem}", path.display())))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut config: Self = toml_edit::de::from_str(text).map_err(|error| {
            // The message may have several lines; it does not include the position.
            let what = error.message().lines().collect::<Vec<_>>().join(", ");
            let line = error
                .span()
                .and_then(|span| text.get(..span.start))
                .map(|before| before.matches('\n').count() + 1);
            let place = line.map_or(String::new(), |line| format!("line {line}: "));
            format!("{place}{what}; `linecard switch --help` tells what can be set")
        })?;
        for (number, table) in std::mem::take(&mut config.tables).into_iter().enumerate() {
            let named =
                table.get("key").and_then(|key| key.as_str()).map(|key| format!(" '{}'", key.escape_debug()));
            let spec = PortSpec::read(table)
                .map_err(|problem| format!("port {}{}: {problem}", number + 1, named.unwrap_or_default()))?;
            config.ports.push(spec);
        }
        for (number, span) in config.spans.iter().enumerate() {
            if config.spans.iter().take(number).any(|before| before.to == span.to) {
                return Err(format!(
                    "span {}: port '{}' gets the copies of an earlier [[span]]; name all that it gets in one",
                    number + 1,
                    span.to.escape_debug()
                ));
            }
        }
        for (what, given, range) in [
            ("packets", config.packets, 512..=4_194_304),
            ("addresses", config.addresses, 1..=16_777_216),
            ("age_seconds", config.age_seconds, 1..=1_000_000),
        ] {
            if let Some(given) = given.filter(|given| !range.contains(given)) {
                return Err(format!(
                    "{what} = {given} cannot be used; give {} to {}",
                    range.start(),
                    range.end()
                ));
            }
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_and_ports_are_read() {
        let config = Config::parse(
            "age_seconds = 60\n[[port]]\nkey = \"a\"\ntype = \"tap\"\nname = \"lc0\"\nvlan = { access = 10 }\n\
             [[port]]\nkey = 'b'\ntype = 'vdev'\ndevice = 'net_null0'\nqueues = 2\nworkers = [0, 1]\nbroadcast_rate = 10\n",
        )
        .expect("it makes sense");
        assert_eq!((config.age_seconds, config.ports.len()), (Some(60), 2));
        let port = &config.ports[1];
        assert_eq!((&*port.key, &*port.workers, port.broadcast_rate), ("b", &[0, 1][..], Some(10)));
    }

    #[test]
    fn what_makes_no_sense_is_one_plain_sentence() {
        let port = "[[port]]\nkey = 'a'\ntype = 'tap'\nname = 'lc0'\n";
        let with = |more: &str| format!("{port}{more}\n");
        for text in [
            "=",
            "a",
            "a =",
            "[",
            "[[",
            "[[port",
            "[[port]",
            "]",
            "\"",
            "'",
            "{",
            "x = {",
            "x = [1,",
            "x = 1 2",
            "\u{0}",
            "socket = 1",
            "socket = [",
            "age_seconds = -1",
            "age_seconds = 0",
            "age_seconds = 99999999999",
            "age_seconds = 'x'",
            "age = 1",
            "packets = 1",
            "packets = 1.5",
            "addresses = 0",
            "lcores = 1",
            "memory = true",
            "flood_rate = -5",
            "port = 1",
            "port = {}",
            "port = 'x'",
            "[port]",
            "[[ports]]",
            "[[port]]",
            "[[port]]\nkey = 'a'",
            "[[port]]\ntype = 'veth'",
            "[[port]]\ntype = 1",
            "[[port]]\ntype = 'tap'",
            "[[port]]\ntype = 'tap'\nkey = 'a'",
            "span = 1",
            "[[span]]",
            "[[span]]\nto = 1",
            "[[span]]\nto = 'a'\ningress = ['b']\n[[span]]\nto = 'a'\negress = ['c']",
            "[[span]]\nto = 'a'\ningress = 'b'",
            "[[span]]\nto = 'a'\nboth = ['b']",
            "[[port]]\ntype = 'vhost-user'\nkey = 'a'",
            "[[port]]\ntype = 'vdev'\nkey = 'a'",
            "age_seconds = 1\nage_seconds = 2",
            "[a]\n[a]",
            "a.b = 1\na.b = 2",
            "x = 2026-13-45",
            "x = 0b2",
            "x = 1__0",
            "x = \"\\q\"",
            "x = \"\"\"",
            "x = 'a\nb'",
        ]
        .into_iter()
        .map(str::to_owned)
        .chain([
            with("colour = 'red'"),
            with("mac = 'x'"),
            with("mac = 1"),
            with("ips = 'x'"),
            with("ips = ['x']"),
            with("vlan = 10"),
            with("vlan = { access = 'x' }"),
            with("vlan = { access = 70000 }"),
            with("vlan = { trunk = [1] }"),
            with("mtu = 70000"),
            with("mtu = -1"),
            with("queues = 'x'"),
            with("rate = 1"),
            with("rate = { bits = 1 }"),
            with("isolated = 'yes'"),
            with("broadcast_rate = -1"),
            with("learn_rate = 'x'"),
            with("workers = 1"),
            with("workers = [-1]"),
            with("meta = 1"),
            with("name = 'twice'"),
            with("path = '/x'"),
        ]) {
            let problem = Config::parse(&text).expect_err(&text);
            assert!(!problem.contains('\n') && problem.contains("; "), "{text:?}: {problem}");
            assert!(problem.len() < 400, "{text:?}: {problem}");
        }
    }
}
