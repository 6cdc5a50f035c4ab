//! Replacing the program of a switch while its ports stay connected.
//!
//! | predecessor | | successor |
//! |---|---|---|
//! | | ◄ `upgrade` | has started completely, and checked itself |
//! | [holds](linecard_pmd::handover::HandOver::hold) its ports: frames pass, requests wait | ports, addresses, control socket ► | maps memory, opens devices |
//! | | ◄ ready for the rest | |
//! | its workers are halted; freezes its ports | positions, counters, new addresses ► | builds the rings |
//! | | ◄ ready | |
//! | **hands everything over: the point of no return** | go ► | |
//! | | ◄ started | its workers resume |
//! | releases its ports, ends | | opens the ports whose devices cannot be handed over |
//!
//! If anything fails before `go`, on either side, the predecessor resumes its ports as they were; what a
//! successor does before `go` has no lasting effect. After `go` the predecessor resumes only if the successor
//! ends without having sent `started`, which it sends before it touches a frame. So no port is ever served by
//! both, and none by neither.
//!
//! No tenant can prevent or delay an upgrade: a port of which a step fails, or waits for its frontend for too long, is
//! given up alone. Its frontend is disconnected, and connects to the successor.

mod channel;
mod leave;
mod ports;
mod take;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use self::channel::UpgradeError;
pub(crate) use self::channel::{Channel, PortRecord};
pub(crate) use self::leave::{Extra, check, leave};
pub(crate) use self::ports::{failures, steps};
pub use self::take::{Successor, TakenOver};

/// The version of the handover format; both switches have to use the same.
pub const FORMAT: u32 = 1;

/// Bytes of an address in a message: its station, and its location or [`GONE`].
const ADDRESS: usize = 16;
/// The location of a station that is no longer known.
const GONE: u64 = u64::MAX;

/// The request to hand over: `upgrade`. After the answer the connection carries the [upgrade](self).
///
/// ```
/// let asked: linecard_switch::upgrade::UpgradeRequest = serde_json::from_str(r#"{"format":1,"version":"0.2.0"}"#)?;
/// assert_eq!(asked.format, linecard_switch::upgrade::FORMAT);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpgradeRequest {
    /// [`FORMAT`].
    pub format: u32,
    /// The version of the program that is to take over, for people.
    pub version: String,
}
