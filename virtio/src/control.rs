//! The driver half of a control queue: requests that the device answers, one at a time.
//!
//! ```text
//!   chain   ├─ readable elements: the command and its data ─┤├─ writable element: the answer ─┤
//!            submit ──────────────► device ──────────────► answered
//! ```
//! With one request in flight, the queue needs no list of free descriptors: a split ring uses the first
//! descriptors of its table, a packed ring those from its position on. Interrupts are enabled, so that a
//! waiting thread can sleep.
//!
//! The device can write anywhere in the ring. Its answers are checked against the request in flight. The
//! caller reads the answer's bytes, once, after [`answered`](ControlQueue::answered).

use crate::error::{Error, NotSubmitted};
use crate::fault::PeerFault;
use crate::layout::{Layout, RingMemory};
use crate::packed::control::PackedControl;
use crate::queue::Element;
use crate::split::control::SplitControl;

/// The maximum number of descriptors of a request: two readable elements and the answer.
pub(crate) const MAX_DESCRIPTORS: usize = 3;
/// The buffer id, or head descriptor, of every request.
pub(crate) const ID: u16 = 0;

/// The driver half of a control queue (virtio 1.3, Network Device: Control Virtqueue), split or packed.
///
/// ```
/// # use core::ptr::NonNull;
/// # use linecard_eal::shared::SharedBytes;
/// use linecard_virtio::{ControlQueue, Element, Layout, RingMemory};
///
/// let mut zone = vec![0u128; Layout::Split.bytes(4) / 16];
/// # let start = NonNull::new(zone.as_mut_ptr().cast::<u8>()).unwrap();
/// // SAFETY: `zone` outlives the queue and nothing else touches it.
/// let bytes = unsafe { SharedBytes::new(start, zone.len() * 16) };
/// let ring = RingMemory::in_zone(bytes, Layout::Split, 4)?;
/// let mut queue = ControlQueue::new(&ring, Layout::Split, 4, false)?;
/// let (command, answer) = (Element { addr: 0x1000, len: 3 }, Element { addr: 0x2000, len: 1 });
/// queue.submit(&[command], answer)?;
/// assert!(queue.kick_needed());
/// assert!(queue.submit(&[command], answer).is_err(), "one at a time");
/// assert_eq!(queue.answered(), Ok(None));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ControlQueue {
    ring: Ring,
    /// The request in flight.
    in_flight: Option<InFlight>,
}

/// The data kept about a request, in private memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InFlight {
    /// Bytes that the device may write.
    pub(crate) lent: u32,
    /// Descriptors of its chain.
    pub(crate) descs: u16,
}

#[derive(Debug)]
enum Ring {
    Split(SplitControl),
    Packed(PackedControl),
}

impl ControlQueue {
    /// The minimum number of descriptors of a ring, as a power of two.
    pub const MIN_SIZE: u16 = 4;

    /// Creates a queue in zeroed memory. `event_idx` is true if EVENT_IDX was negotiated.
    ///
    /// # Errors
    /// An [`Error`] for an invalid size or area; the size must be at least [`MIN_SIZE`](Self::MIN_SIZE).
    pub fn new(memory: &RingMemory, layout: Layout, size: u16, event_idx: bool) -> Result<Self, Error> {
        if size < Self::MIN_SIZE {
            return Err(Error::Size { layout, asked: u32::from(size) });
        }
        let ring = match layout {
            Layout::Split => Ring::Split(SplitControl::new(memory, size, event_idx)?),
            // A packed ring always requests events for all descriptors.
            Layout::Packed => Ring::Packed(PackedControl::new(memory, size)?),
        };
        Ok(Self { ring, in_flight: None })
    }

    /// Makes a request available: the device reads `command` and writes `answer`.
    ///
    /// # Errors
    /// Another request is in flight, or `command` has no element or more than two. Nothing changes then.
    pub fn submit(&mut self, command: &[Element], answer: Element) -> Result<(), NotSubmitted> {
        if self.in_flight.is_some() || command.is_empty() || command.len() >= MAX_DESCRIPTORS {
            return Err(NotSubmitted);
        }
        match &mut self.ring {
            Ring::Split(ring) => ring.submit(command, answer),
            Ring::Packed(ring) => ring.submit(command, answer),
        }
        self.in_flight = Some(InFlight { lent: answer.len, descs: command.len() as u16 + 1 });
        Ok(())
    }

    /// Whether the device must be notified of the submitted request. Executes one full fence.
    #[must_use = "a kick that is not sent leaves the device asleep"]
    pub fn kick_needed(&self) -> bool {
        match &self.ring {
            Ring::Split(ring) => ring.kick_needed(),
            Ring::Packed(ring) => ring.kick_needed(),
        }
    }

    /// The number of bytes of the answer, once the device has answered; `None` until then, and without a
    /// request.
    ///
    /// # Errors
    /// The device completed something that was not requested, or reports more bytes than the buffer has. The
    /// queue must not be used any more then.
    pub fn answered(&mut self) -> Result<Option<u32>, PeerFault> {
        let answered = match &mut self.ring {
            Ring::Split(ring) => ring.answered(self.in_flight),
            Ring::Packed(ring) => ring.answered(self.in_flight),
        }?;
        if answered.is_some() {
            self.in_flight = None;
        }
        Ok(answered)
    }
}

/// Checks a used element against the request in flight.
pub(crate) fn check(id: u32, len: u32, size: u16, in_flight: Option<InFlight>) -> Result<u32, PeerFault> {
    match in_flight {
        Some(InFlight { lent, .. }) if id == u32::from(ID) => {
            if len > lent {
                Err(PeerFault::UsedLen { len, lent })
            } else {
                Ok(len)
            }
        }
        _ => Err(PeerFault::UnknownId { id, size }),
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
