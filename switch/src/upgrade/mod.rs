//! A switch whose program is replaced while its ports stay connected.
//!
//! | predecessor | | successor |
//! |---|---|---|
//! | | ◄ `upgrade` | has started whole, and checked itself |
//! | [holds](linecard_pmd::handover::HandOver::hold) its ports: frames pass, requests wait | ports, addresses, control socket ► | maps memory, opens devices |
//! | | ◄ ready for the rest | |
//! | its workers stand still; freezes its ports | positions, counters, new addresses ► | builds the rings |
//! | | ◄ ready | |
//! | **gives everything away: the point of no return** | go ► | |
//! | | ◄ started | its workers go on |
//! | lets go of its ports, ends | | opens the ports whose devices cannot change hands |
//!
//! Whatever goes wrong before `go`, on either side, leaves the predecessor as it was: it resumes its ports. What a successor
//! does before `go` leaves no trace. After `go` the predecessor goes on only if the successor ends without having said
//! `started`, which it says before it touches a frame; so no two ever serve a port, and none is served by nobody.

mod channel;
mod leave;
mod ports;
mod take;

use serde::{Deserialize, Serialize};

pub use self::channel::UpgradeError;
pub(crate) use self::channel::{Channel, PortRecord};
pub(crate) use self::leave::{Extra, check, leave};
pub use self::take::{Successor, TakenOver};

/// The form in which a switch hands over; both have to use the same.
pub const FORMAT: u32 = 1;

/// Bytes of an address as it crosses: its station, and its place or [`GONE`].
const ADDRESS: usize = 16;
/// The place of a station that is not known any more.
const GONE: u64 = u64::MAX;

/// What asks a switch to hand over: `upgrade`. The connection is the [upgrade's](self) from the answer on.
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
    /// The program's that is to take over, for people.
    pub version: String,
}
