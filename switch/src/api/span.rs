//! Copies of what passes some ports, sent to another one (SPAN), as the control API describes them.

use serde::{Deserialize, Serialize};

/// A mirroring session: `span.set`. Frames that pass some ports are copied to another port, which gets nothing else: frames
/// that come from it are dropped (`span_output`), and no other frame is forwarded to it. What it has no room for is counted
/// as its own loss (`tx_full`); the mirrored ports never wait for it.
///
/// A port may be part of several sessions, and need not be there all the time: it is copied whenever it is.
///
/// ```
/// let span: linecard_switch::api::Span = serde_json::from_str(r#"{"to":"monitor","ingress":["vm1","vm2"],"egress":["vm1"]}"#)?;
/// assert_eq!((span.to.as_str(), span.ingress.len(), span.egress.len()), ("monitor", 2, 1));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// The key of the port that gets the copies; a port has one session.
    pub to: String,
    /// Ports whose frames are copied as they come from the other end, before the switch decides on them: dropped ones, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<String>,
    /// Ports whose frames are copied as they are put into the port's transmit queue, tagged as they leave. Those for which the queue
    /// then has no room are among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<String>,
}

/// A mirroring session that is there: `span.list`.
///
/// ```
/// fn complete(info: &linecard_switch::api::SpanInfo) -> bool {
///     info.absent.is_empty()
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpanInfo {
    /// Which ports it names that are not open now. Nothing is copied while the one that gets the copies is among them.
    pub absent: Vec<String>,
    /// It was set by request, and is kept for a restart; otherwise it is configured.
    pub kept: bool,
    /// What was asked.
    #[serde(flatten)]
    pub span: Span,
}

/// Names a session: `span.remove`.
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
    /// There was one.
    pub removed: bool,
}
