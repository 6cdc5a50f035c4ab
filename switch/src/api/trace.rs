//! The path of a frame through the switch, as the control API describes it.

use serde::{Deserialize, Serialize};

/// A frame to trace: `trace`. It is not sent, and nothing is learned from it.
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
    /// The key of the port from which the frame comes.
    pub port: String,
    /// The bytes of the frame in hexadecimal, from the destination address on; blanks, colons, dashes and
    /// dots are ignored.
    pub frame: String,
}

/// What would happen to a frame.
///
/// ```
/// assert_eq!(serde_json::to_string(&linecard_switch::api::TraceVerdict::Flood)?, r#""flood""#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TraceVerdict {
    /// Sent to the port of its destination.
    Forward,
    /// Sent to all ports of its VLAN that may receive it.
    Flood,
    /// Answered by the switch.
    Answer,
    /// Dropped.
    #[default]
    Drop,
}

/// A port to which a frame would be sent.
///
/// ```
/// fn arrives(port: &linecard_switch::api::TracePort) -> bool {
///     port.cause.is_none()
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracePort {
    /// The key of the port.
    pub port: String,
    /// What happens to the VLAN tag, for people.
    pub tag: String,
    /// Why it would be dropped there: the name of a counter in [`DropCounters`](super::DropCounters).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// The answer of `trace`: the decisions that the workers would take now, in their order. Rate limits are not
/// applied.
///
/// ```
/// fn told(trace: &linecard_switch::api::Trace) -> String {
///     trace.steps.join("\n")
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// What happens to the frame.
    pub verdict: TraceVerdict,
    /// Why it is dropped: the name of a counter in [`DropCounters`](super::DropCounters).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The VLAN of the frame, once it is known; 0 among ports without VLANs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// The ports to which it is sent.
    pub ports: Vec<TracePort>,
    /// The decisions, one per line, for people.
    pub steps: Vec<String>,
}
