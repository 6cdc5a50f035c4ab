//! Handover of devices from one process to the next while their peers stay connected.
//!
//! ```text
//!   predecessor   hold ───────────────► freeze ───────────────────► release   (or resume, to continue)
//!                   └─► Driver::succeed ──┘ └─► begin ────────────────┘
//!   successor           configure, start         resume
//! ```
//! The predecessor can continue with its device until it [releases](HandOver::release) it; the successor can
//! be dropped without a trace until it [resumes](HandOver::resume). The caller decides between the two, once
//! for all devices of a process: that is the point of no return.
//!
//! A process that is killed takes none of these steps. For this case, a device [keeps](HandOver::keep_in) the
//! state that it would hand over in a [`Keep`] outside of its process and updates it on each change. The next
//! process [recovers](HandOver::recover) it:
//!
//! ```text
//!   process   keep_in ─► (changes, changes, …) ─► killed
//!   next                                            └─► Driver::succeed, configure, start ─► recover ─► resume
//! ```

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::error::Error;

/// The handover state of a device: bytes in a format of the driver, and descriptors that they refer to by
/// index. Both come from another process, possibly of another version, so the driver validates all of them.
///
/// ```
/// let handed = linecard_pmd::handover::HandedOver { state: vec![1], descriptors: Vec::new() };
/// assert_eq!(handed.state.len(), 1);
/// ```
#[derive(Debug, Default)]
pub struct HandedOver {
    /// Read by [`Driver::succeed`](crate::Driver::succeed).
    pub state: Vec<u8>,
    /// The descriptors, in the order in which `state` numbers them.
    pub descriptors: Vec<OwnedFd>,
}

/// A step that has been started; calling it waits for the result. This allows the steps of many devices to
/// run in parallel.
pub type Pending<'a, T> = Box<dyn FnOnce() -> Result<T, Error> + 'a>;

/// The handover steps of a started port, from [`Running::hand_over`](crate::Running::hand_over).
///
/// ```
/// use linecard_pmd::handover::{HandOver, HandedOver};
/// use linecard_pmd::Error;
/// /// Moves a device that has nothing to tell.
/// fn move_on(old: &dyn HandOver, successor: impl FnOnce(HandedOver) -> Box<dyn HandOver>) -> Result<(), Error> {
///     let new = successor(old.hold()()?);
///     new.prepared()()?;
///     new.begin(&old.freeze()()?)()?;
///     // The point of no return.
///     new.resume()()?;
///     old.release();
///     Ok(())
/// }
/// ```
pub trait HandOver {
    /// Pauses the control side and returns the state with which a successor prepares; packets continue to
    /// flow.
    fn hold(&self) -> Pending<'_, HandedOver>;
    /// In the predecessor, once its queues are no longer polled: the final state of a held device.
    fn freeze(&self) -> Pending<'_, Vec<u8>>;
    /// In the successor, after the device was started and before the predecessor freezes its own: waits until the
    /// device needs nothing more to [begin](Self::begin). [`recover`](Self::recover) includes it. A device for which
    /// [`Driver::succeed`](crate::Driver::succeed) did everything returns at once.
    fn prepared(&self) -> Pending<'_, ()> {
        Box::new(|| Ok(()))
    }
    /// In the successor, before its queues are polled: continues from `state`, which [`freeze`](Self::freeze)
    /// returned.
    fn begin(&self, state: &[u8]) -> Pending<'_, ()>;
    /// Serves the device from now on, in a successor that has begun or in a predecessor that continues after
    /// all. Wait for the result before polling the queues: until then they return and take no packets.
    fn resume(&self) -> Pending<'_, ()>;
    /// In the predecessor: the device now belongs to the successor. The predecessor drops its part without
    /// notifying the peer.
    fn release(&self);
    /// Keeps in `place`, now and on each change, the state that [`Driver::succeed`](crate::Driver::succeed)
    /// and [`recover`](Self::recover) need in the next process if this one is killed.
    fn keep_in(&self, place: Arc<dyn Keep>) -> Pending<'_, ()>;
    /// In a successor whose predecessor was killed, before anything depends on its queues: continues from the
    /// positions that the device itself reports.
    fn recover(&self) -> Pending<'_, ()>;
}

/// Storage outside of this process for the state of a device; see [`keep_in`](HandOver::keep_in).
///
/// The stored state is valid while it is [settled](Self::settle). It is unsettled while a device does
/// something that it cannot do atomically with storing it, such as reading a request from a socket. The state
/// of a process that was killed meanwhile is not used.
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
    /// Marks the stored state as invalid.
    ///
    /// # Errors
    /// The error of the system call.
    fn unsettle(&self) -> io::Result<()>;
    /// Marks the stored state as valid.
    ///
    /// # Errors
    /// The error of the system call.
    fn settle(&self) -> io::Result<()>;
    /// Replaces the stored state and returns the previous descriptors. The new state is not valid before it
    /// is settled.
    ///
    /// # Errors
    /// The error of the system call; nothing is stored then.
    fn keep(&self, state: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<Vec<OwnedFd>>;
    /// Removes the stored state and returns its descriptors.
    fn forget(&self) -> Vec<OwnedFd>;
}
