//! The way of a frame, as the control API tells it.

use serde::{Deserialize, Serialize};

/// A frame whose way is asked for: `trace`. It is not sent, and nothing is learned from it.
///
/// ```
/// use linecard_switch::api::TraceRequest;
/// let line = r#"{"port":"a","frame":"ffffffffffff 020000000001 0806"}"#;
/// let request: TraceRequest = serde_json::from_str(line)?;
/// assert_eq!(request.port, "a");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// The key of the port it comes from.
    pub port: String,
    /// Its bytes in hexadecimal, from the destination address on; blanks, colons, dashes and dots do not count.
    pub frame: String,
}

/// What would become of a frame.
///
/// ```
/// assert_eq!(serde_json::to_string(&linecard_switch::api::TraceVerdict::Flood)?, r#""flood""#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TraceVerdict {
    /// To the port of its destination.
    Forward,
    /// To all ports of its VLAN that may have it.
    Flood,
    /// The switch answers it.
    Answer,
    /// To nobody.
    #[default]
    Drop,
}

/// A port that a frame would go to.
///
/// ```
/// fn arrives(port: &linecard_switch::api::TracePort) -> bool {
///     port.cause.is_none()
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracePort {
    /// Its key.
    pub port: String,
    /// What becomes of the tag, for people.
    pub tag: String,
    /// Why it would be lost there, by the name of the counter in [`DropCounters`](super::DropCounters).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// The answer of `trace`: the decisions the workers would take now, in their order. Rates are not among them.
///
/// ```
/// fn told(trace: &linecard_switch::api::Trace) -> String {
///     trace.steps.join("\n")
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// What becomes of it.
    pub verdict: TraceVerdict,
    /// Why it is lost, by the name of the counter in [`DropCounters`](super::DropCounters).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The VLAN it is in, once that is known; 0 among ports without VLANs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Where it goes.
    pub ports: Vec<TracePort>,
    /// What was decided, one line each, for people.
    pub steps: Vec<String>,
}
