//! The control API of `linecard switch`, for programs such as a container plugin or `linecard switch ctl`.
//!
//! The switch listens on a local Unix stream socket ([`DEFAULT_SOCKET`]). It answers root and the user it runs as; the kernel tells
//! who the client is (`SO_PEERCRED`). A client sends one JSON object per line, at most [`MAX_LINE`] bytes long, and receives one line
//! for each, in order:
//!
//! ```text
//! {"id":1,"method":"port.add","params":{"key":"c1-net1","type":"vhost-user-fd","mac":"02:00:00:00:00:01"}}
//! {"id":1,"result":{"created":true,"port":{"id":3,"key":"c1-net1", ...}}}
//! {"id":2,"method":"port.show","params":{"key":"nobody"}}
//! {"id":2,"error":{"code":"not-found","message":"there is no port 'nobody'","details":"`port.list` (`linecard switch ctl ports`) names all ports"}}
//! ```
//!
//! | method | parameters | result |
//! |---|---|---|
//! | `version` | none | [`Version`] |
//! | `port.add` | [`PortSpec`]; a descriptor beside it for [`PortKind::VhostUserFd`], and if wanted for [`PortKind::Tap`] | [`PortAdded`] |
//! | `port.remove` | [`PortKey`] | [`PortRemoved`] |
//! | `port.list` | none | [`PortInfo`], an array |
//! | `port.show` | [`PortKey`] | [`PortInfo`] |
//! | `fdb.list` | [`FdbFilter`] | [`FdbEntry`], an array |
//! | `fdb.flush` | [`FdbFilter`] | [`FdbFlushed`] |
//! | `fdb.add` | [`FdbStatic`] | [`FdbEntry`] |
//! | `fdb.del` | [`FdbAddress`] | [`FdbRemoved`] |
//! | `span.set` | [`Span`] | [`SpanInfo`] |
//! | `span.remove` | [`SpanKey`] | [`SpanRemoved`] |
//! | `span.list` | none | [`SpanInfo`], an array |
//! | `trace` | [`TraceRequest`] | [`Trace`] |
//! | `workers` | none | [`WorkerInfo`], an array |
//! | `worker.move` | [`QueueMove`] | nothing |
//! | `stats` | none | [`Stats`] |
//! | `upgrade` | [`UpgradeRequest`](crate::upgrade::UpgradeRequest) | nothing; the connection then carries the [upgrade](crate::upgrade) |
//!
//! `port.add` may be repeated. For a port with the same key and the same parameters the answer is `"created":false`; a new listening
//! descriptor replaces a lost one. A port with the same key and other parameters is refused as `exists`. `port.remove` of an unknown
//! key is not an error. The switch refuses unknown parameters by name; clients must ignore unknown fields of answers.

mod client;
mod line;
mod port;
mod span;
mod trace;
mod worker;

use std::fmt;

use linecard_net::MacAddr;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::client::{Client, ClientError};
pub use self::line::{Line, LineError, Lines, MAX_LINE, send};
pub use self::port::{
    Cause, DropCounters, PortCounters, PortInfo, PortKind, PortSpec, PortState, Rate, Share, SocketOrigin,
    Trunk, Vlan,
};
pub use self::span::{Span, SpanInfo, SpanKey, SpanRemoved};
pub use self::trace::{Trace, TracePort, TraceRequest, TraceVerdict};
pub use self::worker::{QueueInfo, QueueMove, WorkerInfo, balance};

/// The socket on which the switch listens by default.
pub const DEFAULT_SOCKET: &str = "/run/linecard/switch.sock";
/// The version of this API. Larger versions understand everything that smaller ones do.
pub const API: u32 = 1;

/// One line from a client.
///
/// ```
/// use linecard_switch::api::Request;
/// let request: Request = serde_json::from_str(r#"{"id":7,"method":"version"}"#)?;
/// assert_eq!((request.id, request.method.as_str()), (7, "version"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// A number that the answer repeats.
    pub id: u64,
    /// The name of the method.
    pub method: String,
    /// The parameters; may be left out if the method takes none.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub params: Value,
}

/// One line from the switch.
///
/// ```
/// use linecard_switch::api::{Answer, Code};
/// let line = r#"{"id":7,"error":{"code":"not-found","message":"there is no port 'x'"}}"#;
/// let answer: Answer = serde_json::from_str(line)?;
/// assert_eq!(answer.error.map(|problem| problem.code), Some(Code::NotFound));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The `id` of the request; 0 if the request could not be read.
    pub id: u64,
    /// The result of the method; absent after an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// The reason why the method did nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
}

/// Why a request was refused: the problem and the remedy.
///
/// ```
/// use linecard_switch::api::{Code, Problem};
/// let problem = Problem::new(Code::NotFound, "there is no port 'x'", "`port.list` names all ports");
/// assert_eq!(problem.to_string(), "there is no port 'x'; `port.list` names all ports");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The kind of the problem, for programs.
    pub code: Code,
    /// The problem, for people.
    pub message: String,
    /// The remedy, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

impl Problem {
    /// A problem with its remedy.
    pub fn new(code: Code, message: impl Into<String>, details: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: details.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.details.is_empty() { Ok(()) } else { write!(f, "; {}", self.details) }
    }
}

impl std::error::Error for Problem {}

/// The kind of a [`Problem`].
///
/// ```
/// use linecard_switch::api::Code;
/// assert_eq!(serde_json::to_string(&Code::UnknownMethod)?, r#""unknown-method""#);
/// // A newer switch may have more of them.
/// assert_eq!(serde_json::from_str::<Code>(r#""on-strike""#)?, Code::Other);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The line is not a request.
    InvalidRequest,
    /// There is no such method.
    UnknownMethod,
    /// The method does not take these parameters.
    InvalidParams,
    /// A port with that key exists and has other parameters.
    Exists,
    /// There is no such port.
    NotFound,
    /// This user may not use the control socket.
    NotPermitted,
    /// No memory, descriptors or port numbers are left; may be temporary.
    Exhausted,
    /// A device, socket or file is not available.
    Unavailable,
    /// An internal error of the switch.
    Internal,
    /// A code that this version does not know.
    #[serde(other)]
    Other,
}

/// The answer of `version`.
///
/// ```
/// let version = linecard_switch::api::Version { version: "0.1.0".into(), api: 1, pid: 4711 };
/// assert_eq!(serde_json::to_string(&version)?, r#"{"version":"0.1.0","api":1,"pid":4711}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The version of the program.
    pub version: String,
    /// [`API`].
    pub api: u32,
    /// The process ID of the switch.
    pub pid: u32,
}

/// The key of a port.
///
/// ```
/// let key = linecard_switch::api::PortKey { key: "c1-net1".into() };
/// assert_eq!(serde_json::to_string(&key)?, r#"{"key":"c1-net1"}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortKey {
    /// [`PortSpec::key`].
    pub key: String,
}

/// The answer of `port.add`.
///
/// ```
/// fn told(added: &linecard_switch::api::PortAdded) -> &'static str {
///     if added.created { "attached" } else { "was attached already" }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortAdded {
    /// The port is new; `false` if it existed already.
    pub created: bool,
    /// The port in its current state.
    pub port: PortInfo,
}

/// The answer of `port.remove`.
///
/// ```
/// let removed: linecard_switch::api::PortRemoved = serde_json::from_str(r#"{"removed":false}"#)?;
/// assert!(!removed.removed);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRemoved {
    /// A port with that key existed.
    pub removed: bool,
}

/// Selects addresses: those that match every field that is given.
///
/// ```
/// use linecard_switch::api::FdbFilter;
/// let filter = FdbFilter { port: Some("c1-net1".into()), ..FdbFilter::default() };
/// assert_eq!(serde_json::to_string(&filter)?, r#"{"port":"c1-net1"}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FdbFilter {
    /// The key of a port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// A VLAN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// An address.
    #[serde(skip_serializing_if = "Option::is_none", with = "mac::optional")]
    pub mac: Option<MacAddr>,
}

/// One address that the switch knows.
///
/// ```
/// use linecard_switch::api::FdbEntry;
/// let line = r#"{"mac":"02:00:00:00:00:01","vlan":0,"port":"a","fixed":false,"age_seconds":3}"#;
/// let entry: FdbEntry = serde_json::from_str(line)?;
/// assert_eq!((entry.port.as_str(), entry.age_seconds), ("a", 3));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbEntry {
    /// The address.
    #[serde(with = "mac")]
    pub mac: MacAddr,
    /// The VLAN of the address; 0 for ports without VLANs.
    pub vlan: u16,
    /// The key of the port behind which the address is.
    pub port: String,
    /// Configured, not learned; does not age.
    pub fixed: bool,
    /// Seconds since the address last sent a frame.
    pub age_seconds: u64,
}

/// The answer of `fdb.flush`.
///
/// ```
/// let flushed: linecard_switch::api::FdbFlushed = serde_json::from_str(r#"{"flushed":2}"#)?;
/// assert_eq!(flushed.flushed, 2);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbFlushed {
    /// The number of learned addresses that were removed.
    pub flushed: u64,
}

/// A static address behind a port: `fdb.add`. It survives a restart, as ports do, and is removed together with its port.
///
/// ```
/// use linecard_switch::api::FdbStatic;
/// let asked: FdbStatic = serde_json::from_str(r#"{"mac":"02:00:00:00:00:01","port":"a"}"#)?;
/// assert_eq!((asked.vlan, asked.port.as_str()), (0, "a"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FdbStatic {
    /// The address.
    #[serde(with = "mac")]
    pub mac: MacAddr,
    /// Its VLAN; 0 for ports without VLANs.
    #[serde(default)]
    pub vlan: u16,
    /// The key of its port.
    pub port: String,
}

/// An address to remove: `fdb.del`.
///
/// ```
/// use linecard_switch::api::FdbAddress;
/// let asked: FdbAddress = serde_json::from_str(r#"{"mac":"02:00:00:00:00:01","vlan":10}"#)?;
/// assert_eq!(asked.vlan, 10);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FdbAddress {
    /// The address.
    #[serde(with = "mac")]
    pub mac: MacAddr,
    /// Its VLAN; 0 for ports without VLANs.
    #[serde(default)]
    pub vlan: u16,
}

/// The answer of `fdb.del`.
///
/// ```
/// let removed: linecard_switch::api::FdbRemoved = serde_json::from_str(r#"{"removed":true}"#)?;
/// assert!(removed.removed);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbRemoved {
    /// The address was known.
    pub removed: bool,
}

/// The answer of `stats`: counters since the switch started.
///
/// ```
/// fn lost(stats: &linecard_switch::api::Stats) -> u64 {
///     stats.ports.iter().map(|port| port.counters.drops.total()).sum()
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Seconds since the switch started.
    pub uptime_seconds: u64,
    /// The number of threads that move packets.
    pub workers: u16,
    /// The number of known addresses.
    pub addresses: u64,
    /// The number of ports removed because the network namespace of their container no longer exists.
    #[serde(default)]
    pub swept_ports: u64,
    /// Every port.
    pub ports: Vec<PortInfo>,
}

/// Addresses as text in lower case, `02:00:00:00:00:a1`.
pub mod mac {
    use linecard_net::MacAddr;
    use serde::{Deserialize, Deserializer, Serializer, de};

    /// Writes an address.
    ///
    /// # Errors
    /// Returns the error of the serializer.
    pub fn serialize<S: Serializer>(mac: &MacAddr, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&mac.to_string().to_lowercase())
    }

    /// Reads an address.
    ///
    /// # Errors
    /// Fails if the text is not an address.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MacAddr, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }

    /// An address that may be absent.
    pub mod optional {
        use super::{Deserialize, Deserializer, MacAddr, Serializer, de};

        /// Writes an address.
        ///
        /// # Errors
        /// Returns the error of the serializer.
        pub fn serialize<S: Serializer>(mac: &Option<MacAddr>, serializer: S) -> Result<S::Ok, S::Error> {
            match mac {
                Some(mac) => super::serialize(mac, serializer),
                None => serializer.serialize_none(),
            }
        }

        /// Reads an address.
        ///
        /// # Errors
        /// Fails if the text is not an address.
        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<MacAddr>, D::Error> {
            let text = Option::<String>::deserialize(deserializer)?;
            text.map(|text| text.parse().map_err(de::Error::custom)).transpose()
        }
    }
}

#[cfg(test)]
mod tests;
