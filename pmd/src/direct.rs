//! Frames that are copied once, from the sender's buffer to the receiver's.
//!
//! A packet between two peers whose memory this process maps is copied twice: out of the sender's buffer,
//! then into the receiver's. If one thread polls the sending queue and owns the receiving one, the first copy
//! can be limited to the bytes that decide where the frame goes:
//!
//! ```text
//!   RxQueue::rx_direct   first bytes ─► a packet of ours, once ─► classified ─┐
//!                                                                             ├─► TxQueue::tx_direct ─► receiver's buffer
//!                        all others stay in the sender's buffer ──────────────┘
//!                        … frames that were not taken become packets after all, in their order
//!                        … then the sender gets its buffers back
//! ```
//! The receiver gets the first bytes of a frame from the private copy, so they are the bytes that were
//! classified, even if the sender changes its buffer meanwhile. The other bytes may change until they are
//! copied, as before a packet is made.
//!
//! By default, a queue implements neither method and moves packets only.

use std::marker::PhantomData;
use std::ptr::NonNull;

use linecard_eal::shared::SharedBytes;
use linecard_mempool::BURST;

/// The number of bytes at the start of a frame that are copied before it is classified, if it is that long:
/// Ethernet with four tags, IPv6 with an extension header, and a neighbour advertisement.
pub const HEAD: usize = 128;

const _: () = assert!(BURST <= u64::BITS as usize, "a bit for each frame of a burst");

/// A received frame: its first bytes, and the location of the others.
///
/// ```
/// use linecard_pmd::direct::Frame;
/// let (head, rest) = ([1; 14], [2; 50]);
/// // SAFETY: `rest` outlives the frame.
/// let frame = unsafe { Frame::new(&head, rest.as_ptr(), rest.len()) };
/// assert_eq!((frame.len(), frame.head().len()), (64, 14));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    head: &'a [u8],
    rest: *const u8,
    rest_len: usize,
    buffer: PhantomData<&'a u8>,
}

impl<'a> Frame<'a> {
    /// Creates a frame that begins with `head` and continues with `rest_len` bytes at `rest`.
    ///
    /// # Safety
    /// The bytes at `rest` are readable through raw pointers for `'a`. They may change meanwhile.
    #[inline(always)]
    #[must_use]
    pub const unsafe fn new(head: &'a [u8], rest: *const u8, rest_len: usize) -> Self {
        Self { head, rest, rest_len, buffer: PhantomData }
    }

    /// Creates a frame of private bytes in the form that a queue passes to a sink.
    ///
    /// ```
    /// use linecard_pmd::direct::{Frame, HEAD};
    /// let frame = Frame::of(&[7; 200]);
    /// assert_eq!((frame.len(), frame.head().len(), frame.is_whole()), (200, HEAD, false));
    /// ```
    #[must_use]
    pub fn of(bytes: &'a [u8]) -> Self {
        let (head, rest) = bytes.split_at(bytes.len().min(HEAD));
        // SAFETY: `rest` is part of `bytes`, which are borrowed, and so readable and unchanged, for `'a`.
        unsafe { Self::new(head, rest.as_ptr(), rest.len()) }
    }

    /// The first bytes, at most [`HEAD`]. They are private and do not change.
    #[inline(always)]
    #[must_use]
    pub const fn head(&self) -> &'a [u8] {
        self.head
    }

    /// Whether the frame has no bytes beyond the first.
    #[inline]
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.rest_len == 0
    }

    /// The length of the frame in bytes.
    #[inline(always)]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.head.len() + self.rest_len
    }

    /// Whether the frame has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies all bytes.
    ///
    /// ```
    /// assert_eq!(linecard_pmd::direct::Frame::of(&[7; 200]).to_vec(), [7; 200]);
    /// ```
    #[must_use]
    pub fn to_vec(self) -> Vec<u8> {
        let mut bytes = self.head.to_vec();
        bytes.resize(self.len(), 0);
        if let (Some(to), Some(rest)) = (bytes.get_mut(self.head.len()..), NonNull::new(self.rest.cast_mut()))
        {
            // SAFETY: the caller of `new` promises that `rest_len` bytes are readable at `rest` for `'a`.
            unsafe { SharedBytes::new(rest, self.rest_len) }.copy_to(to);
        }
        bytes
    }

    /// The location of the bytes in two runs: the first bytes, and the others, which may be none. Both are
    /// readable for `'a`. The sender may change the second run at any time: copy it only once, and never
    /// create a reference to it.
    #[inline(always)]
    #[must_use]
    pub const fn runs(&self) -> [(*const u8, usize); 2] {
        [(self.head.as_ptr(), self.head.len()), (self.rest, self.rest_len)]
    }
}

/// The consumer of the frames of a burst before they become packets; see
/// [`RxQueue::rx_direct`](crate::RxQueue::rx_direct).
///
/// It gets at most [`BURST`] frames and returns which of them it handled (sent, or counted as lost): bit *i*
/// for `frames[i]`.
///
/// ```
/// use linecard_pmd::direct::{Sink, all};
/// use linecard_pmd::{RxQueue, TxQueue};
/// /// Moves a burst from one queue to another, copied once if both can, and returns how many packets are left to send.
/// fn forward(rx: &mut dyn RxQueue, tx: &mut dyn TxQueue, left: &mut linecard_mempool::Burst) -> usize {
///     let sink: &mut Sink<'_> = &mut |frames| match tx.tx_direct(frames) {
///         // For the others there is no room: they are lost.
///         Some(_) => all(frames.len()),
///         None => 0,
///     };
///     rx.rx_direct(left, sink);
///     tx.tx_burst(left);
///     left.len()
/// }
/// ```
pub type Sink<'a> = dyn FnMut(&[Frame<'_>]) -> u64 + 'a;

/// A mask with the lowest `count` bits set.
///
/// ```
/// assert_eq!(linecard_pmd::direct::all(3), 0b111);
/// assert_eq!(linecard_pmd::direct::all(64), u64::MAX);
/// ```
#[inline]
#[must_use]
pub const fn all(count: usize) -> u64 {
    match count {
        0 => 0,
        1..64 => (1 << count) - 1,
        _ => u64::MAX,
    }
}
