//! Port mirroring (SPAN) as the control API describes it.

use serde::{Deserialize, Serialize};

/// A mirroring session: `span.set`. Frames that pass some ports are copied to another port. That port
/// receives nothing else: frames that it sends are dropped (`span_output`), and no other frame is forwarded
/// to it. Copies for which it has no room are counted as its own drops (`tx_full`); the mirrored ports never
/// wait for it.
///
/// A mirrored port may be part of several sessions. It need not exist all the time: it is mirrored whenever
/// it does.
///
/// ```
/// let span: linecard_switch::api::Span = serde_json::from_str(r#"{"to":"monitor","ingress":["vm1","vm2"],"egress":["vm1"]}"#)?;
/// assert_eq!((span.to.as_str(), span.ingress.len(), span.egress.len()), ("monitor", 2, 1));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// The key of the port that receives the copies; each such port has one session.
    pub to: String,
    /// Ports whose frames are copied as they arrive, before the switch decides on them, so that dropped
    /// frames are included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<String>,
    /// Ports whose frames are copied as they are put into the transmit queue, tagged as they are sent. Frames
    /// for which the queue then has no room are included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<String>,
}

/// A mirroring session of the switch: `span.list`.
///
/// ```
/// fn complete(info: &linecard_switch::api::SpanInfo) -> bool {
///     info.absent.is_empty()
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpanInfo {
    /// The ports it names that are not open now. Nothing is copied while the receiving port is among them.
    pub absent: Vec<String>,
    /// The session was set by request and is kept for a restart; otherwise it comes from the configuration.
    pub kept: bool,
    /// The parameters of the request.
    #[serde(flatten)]
    pub span: Span,
}

/// The key of a session: `span.remove`.
///
/// ```
/// let key: linecard_switch::api::SpanKey = serde_json::from_str(r#"{"to":"monitor"}"#)?;
/// assert_eq!(key.to, "monitor");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpanKey {
    /// [`Span::to`].
    pub to: String,
}

/// The answer of `span.remove`.
///
/// ```
/// let removed: linecard_switch::api::SpanRemoved = serde_json::from_str(r#"{"removed":true}"#)?;
/// assert!(removed.removed);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpanRemoved {
    /// A session with that key existed.
    pub removed: bool,
}
