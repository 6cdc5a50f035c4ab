//! The driver's end of a control queue: requests that the device answers, one at a time.
//!
//! ```text
//!   chain   ├─ readable elements: the command and its data ─┤├─ writable element: the answer ─┤
//!            submit ──────────────► device ──────────────► answered
//! ```
//! With one request in flight the queue needs no list of free descriptors: a split ring uses the first ones of its table, a
//! packed ring those from its position on. Interrupts are on, so that whoever waits may sleep.
//!
//! The device can write anywhere in the ring. What it says is checked against the request in flight, and the answer's
//! bytes are the caller's to read, once, after [`answered`](ControlQueue::answered).

use crate::error::{Error, NotSubmitted};
use crate::fault::PeerFault;
use crate::layout::{Layout, RingMemory};
use crate::packed::control::PackedControl;
use crate::queue::Element;
use crate::split::control::SplitControl;

/// Most descriptors of a request: two readable elements and the answer.
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

/// What is remembered of a request, in private memory.
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
    /// Descriptors that a ring needs at least, as a power of two.
    pub const MIN_SIZE: u16 = 4;

    /// A queue over zeroed memory; `event_idx` says whether EVENT_IDX was negotiated.
    ///
    /// # Errors
    /// An [`Error`] that says which size or area does not fit; the size must be at least [`MIN_SIZE`](Self::MIN_SIZE).
    pub fn new(memory: &RingMemory, layout: Layout, size: u16, event_idx: bool) -> Result<Self, Error> {
        if size < Self::MIN_SIZE {
            return Err(Error::Size { layout, asked: u32::from(size) });
        }
        let ring = match layout {
            Layout::Split => Ring::Split(SplitControl::new(memory, size, event_idx)?),
            // Its events are always those of every descriptor.
            Layout::Packed => Ring::Packed(PackedControl::new(memory, size)?),
        };
        Ok(Self { ring, in_flight: None })
    }

    /// Makes a request available: the device reads `command` and writes `answer`.
    ///
    /// # Errors
    /// Another one is in flight, or there is no element or more than two. Nothing is done then.
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

    /// Must the device be woken for what was submitted? One full fence.
    #[must_use = "a kick that is not sent leaves the device asleep"]
    pub fn kick_needed(&self) -> bool {
        match &self.ring {
            Ring::Split(ring) => ring.kick_needed(),
            Ring::Packed(ring) => ring.kick_needed(),
        }
    }

    /// The bytes that the device wrote of the answer, once it has answered; `None` until then, and without a request.
    ///
    /// # Errors
    /// The device completed what was not asked, or says that it wrote more than it was lent. The queue is not to be used
    /// any more then.
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

/// Checks what a device says of the request in flight.
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
