//! Devices that go from one process to the next while their peers stay connected.
//!
//! ```text
//!   predecessor   hold ───────────────► freeze ───────────────────► release   (or resume, as if nothing had been)
//!                   └─► Driver::succeed ──┘ └─► begin ────────────────┘
//!   successor           configure, start         resume
//! ```
//! Until it [releases](HandOver::release) its device, the predecessor can go on with it; until it [resumes](HandOver::resume), the
//! successor can be dropped and leaves no trace. Somebody above decides between the two, once for all devices of a process: that
//! is the point of no return.
//!
//! A process that is killed takes no steps. For that a device [keeps](HandOver::keep_in) what it would hand over in a [place](Keep)
//! outside of its process, each time that it changes, and the next process [recovers](HandOver::recover) it:
//!
//! ```text
//!   process   keep_in ─► (changes, changes, …) ─► killed
//!   next                                            └─► Driver::succeed, configure, start ─► recover ─► resume
//! ```

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::error::Error;

/// What a predecessor gives of a device that it holds: bytes in a form of the driver's, and descriptors that they refer to by
/// their places. Both come from another process, of another version maybe: a driver checks them whole.
///
/// ```
/// let handed = linecard_pmd::handover::HandedOver { state: vec![1], descriptors: Vec::new() };
/// assert_eq!(handed.state.len(), 1);
/// ```
#[derive(Debug, Default)]
pub struct HandedOver {
    /// Read by [`Driver::succeed`](crate::Driver::succeed).
    pub state: Vec<u8>,
    /// In the order in which `state` numbers them.
    pub descriptors: Vec<OwnedFd>,
}

/// A step that has been started; called, it waits for the outcome. So the steps of many devices can be taken at once.
pub type Pending<'a, T> = Box<dyn FnOnce() -> Result<T, Error> + 'a>;

/// How a started port changes hands, from [`Running::hand_over`](crate::Running::hand_over).
///
/// ```
/// use linecard_pmd::handover::{HandOver, HandedOver};
/// use linecard_pmd::Error;
/// /// Moves a device that has nothing to tell.
/// fn move_on(old: &dyn HandOver, successor: impl FnOnce(HandedOver) -> Box<dyn HandOver>) -> Result<(), Error> {
///     let new = successor(old.hold()()?);
///     new.begin(&old.freeze()()?)()?;
///     // The point of no return.
///     new.resume()()?;
///     old.release();
///     Ok(())
/// }
/// ```
pub trait HandOver {
    /// Lets the control side rest and gives what a successor prepares itself with; packets go on.
    fn hold(&self) -> Pending<'_, HandedOver>;
    /// In the predecessor, when nobody polls its queues: the state of a device that is held as it stays from now on.
    fn freeze(&self) -> Pending<'_, Vec<u8>>;
    /// In the successor, when nobody polls its queues yet: begins where `state`, from [`freeze`](Self::freeze), says.
    fn begin(&self, state: &[u8]) -> Pending<'_, ()>;
    /// Serves the device from now on: a successor that has begun, or a predecessor that goes on after all. Whoever polls its queues
    /// waits for the outcome first: until then they find nothing and take nothing.
    fn resume(&self) -> Pending<'_, ()>;
    /// In the predecessor: the device is the successor's. What is left here lets go of it without a word to the peer.
    fn release(&self);
    /// Keeps in `place`, from now on and whenever it changes, what [`Driver::succeed`](crate::Driver::succeed) and
    /// [`recover`](Self::recover) need in a process that comes after this one was killed.
    fn keep_in(&self, place: Arc<dyn Keep>) -> Pending<'_, ()>;
    /// In a successor whose predecessor was killed, when nobody depends on its queues yet: begins where the device itself says
    /// that it stands.
    fn recover(&self) -> Pending<'_, ()>;
}

/// A place outside of this process for what a device [keeps](HandOver::keep_in).
///
/// What is kept counts while it is [settled](Self::settle). While a device does something that it cannot do in one step together
/// with keeping it (taking a request off a socket), it is not, and nobody goes on with what a process left that was killed then.
///
/// ```
/// use std::os::fd::AsFd;
/// use linecard_pmd::handover::Keep;
/// /// Keeps a device as it is, with the one descriptor that there is.
/// fn keep(place: &dyn Keep, device: std::os::fd::BorrowedFd<'_>) -> std::io::Result<()> {
///     let earlier = place.keep(b"state", &[device])?;
///     drop(earlier); // may take its time where a peer has sent them
///     place.settle()
/// }
/// ```
pub trait Keep: std::fmt::Debug + Send + Sync {
    /// What is kept does not count from here on.
    ///
    /// # Errors
    /// The operating system's.
    fn unsettle(&self) -> io::Result<()>;
    /// What is kept is how things are.
    ///
    /// # Errors
    /// The operating system's.
    fn settle(&self) -> io::Result<()>;
    /// Keeps this instead of what was kept before; returns the descriptors of that. It does not count before it is settled.
    ///
    /// # Errors
    /// The operating system's; nothing is kept then.
    fn keep(&self, state: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<Vec<OwnedFd>>;
    /// Keeps nothing any more; returns the descriptors of what was kept.
    fn forget(&self) -> Vec<OwnedFd>;
}
