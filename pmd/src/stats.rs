//! Counters of a queue: one thread writes them, any thread reads them, without locks.
//!
//! A queue's owner counts once per burst with a plain load and store ([`Counter::add`]) instead of a locked
//! instruction; its counters have their own cache lines. A reset does not write them: it records their
//! current values, so it cannot race with the owner.
//!
//! ```text
//! rx thread ── moved(n, bytes) ────► QueueStats ◄─ totals() ── any thread
//!              lost(Cause, n)           └─ baseline ◄─ reset() ─┘
//! ```

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam::utils::CachePadded;
use linecard_mempool::Packet;

mod classes;
mod port;

pub use classes::{ClassCounters, PacketClass};
pub use port::{PortCounters, add_to};

/// The maximum number of causes that one queue can distinguish.
pub const MAX_CAUSES: usize = 16;

/// A number that one thread increases and any thread reads.
///
/// If two threads added at the same time, counts would be lost. A queue is owned by one thread, so this does
/// not happen.
///
/// ```
/// let packets = linecard_pmd::stats::Counter::default();
/// packets.add(32);
/// assert_eq!(packets.value(), 32);
/// ```
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`; for the owner. Wraps at 2^64.
    #[inline(always)]
    pub fn add(&self, n: u64) {
        // Not `fetch_add`: with one writer, a load and a store suffice and need no locked instruction.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// The current value.
    #[inline]
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Which of DPDK's totals a cause adds to.
///
/// ```
/// use linecard_pmd::stats::{Cause, Total};
/// linecard_pmd::causes! { enum RxLoss { NoBuffer = ("no_buffer", Total::NoBuffer) } }
/// assert_eq!(RxLoss::ALL[RxLoss::NoBuffer.index()].1, Total::NoBuffer);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Total {
    /// `imissed`: the device had no room (receive).
    Missed,
    /// `ierrors` or `oerrors`: the packet was bad, or could not be sent.
    Error,
    /// `rx_nombuf`: no buffer to receive into (receive); the packet may still arrive later.
    NoBuffer,
    /// No total; shown among the extended statistics only.
    None,
}

/// The causes of lost packets of a driver's queue: an enum made by [`causes!`](crate::causes).
pub trait Cause: Copy + 'static {
    /// Name (`too_long`) and total of each cause, by index; at most [`MAX_CAUSES`].
    const ALL: &'static [(&'static str, Total)];
    /// The index in [`ALL`](Self::ALL).
    fn index(self) -> usize;
}

/// Makes an enum of loss causes with their names in the extended statistics.
///
/// ```
/// use linecard_pmd::stats::{Cause, QueueStats, Total};
/// linecard_pmd::causes! {
///     /// Why a transmit queue drops.
///     pub enum TxLoss {
///         /// Longer than the port can send.
///         TooLong = ("too_long", Total::Error),
///         /// The peer is gone.
///         NoPeer = ("no_peer", Total::Error),
///     }
/// }
/// let stats = QueueStats::<TxLoss>::default();
/// stats.lost(TxLoss::NoPeer, 3);
/// assert_eq!(stats.totals().lost(TxLoss::NoPeer), 3);
/// ```
#[macro_export]
macro_rules! causes {
    ($(#[$meta:meta])* $vis:vis enum $name:ident {
        $($(#[$cause_meta:meta])* $cause:ident = ($text:literal, $total:expr)),+ $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name { $($(#[$cause_meta])* $cause),+ }

        impl $crate::stats::Cause for $name {
            const ALL: &'static [(&'static str, $crate::stats::Total)] = &[$(($text, $total)),+];

            #[inline(always)]
            fn index(self) -> usize {
                const { assert!(Self::ALL.len() <= $crate::stats::MAX_CAUSES) };
                self as usize
            }
        }
    };
}

crate::causes! {
    /// The cause for queues whose losses have no specific one.
    pub enum AnyLoss {
        /// Any loss.
        Other = ("other", Total::Error),
    }
}

#[derive(Debug, Default)]
struct Counters {
    packets: Counter,
    bytes: Counter,
    bursts: Counter,
    /// [`Inspections`], beside the counters that a burst writes anyway; elsewhere they would cost one more L1
    /// line per burst.
    inspections: AtomicU32,
    lost: [Counter; MAX_CAUSES],
}

bitflags::bitflags! {
    /// Why a queue must look at each of its packets.
    ///
    /// ```
    /// use linecard_pmd::stats::{AnyLoss, Inspections, QueueStats};
    /// let stats = QueueStats::<AnyLoss>::default();
    /// stats.inspect(Inspections::CLASSES, true);
    /// assert_eq!(stats.inspections(), Inspections::CLASSES);
    /// stats.inspect(Inspections::CLASSES, false);
    /// assert!(stats.inspections().is_empty());
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Inspections: u32 {
        /// The port's receive filter does not let everything pass.
        const FILTER = 1;
        /// Packets are counted by class.
        const CLASSES = 2;
    }
}

/// The counters of one queue, shared between the queue and its port's control side.
///
/// ```
/// use linecard_pmd::stats::{AnyLoss, QueueStats};
/// let stats = QueueStats::<AnyLoss>::default();
/// stats.moved(2, 128);
/// stats.reset();
/// stats.moved(1, 60);
/// let totals = stats.totals();
/// assert_eq!((totals.packets, totals.bytes, totals.bursts), (1, 60, 1));
/// ```
#[derive(Debug)]
pub struct QueueStats<C: Cause> {
    counters: CachePadded<Counters>,
    baseline: Mutex<Totals<C>>,
}

impl<C: Cause> Default for QueueStats<C> {
    fn default() -> Self {
        Self { counters: CachePadded::default(), baseline: Mutex::default() }
    }
}

impl<C: Cause> QueueStats<C> {
    /// Counts a burst of `packets` with `bytes` in total that were received or sent; an empty burst counts
    /// nothing. For the queue's owner.
    #[inline(always)]
    pub fn moved(&self, packets: usize, bytes: u64) {
        if packets > 0 {
            self.counters.packets.add(packets as u64);
            self.counters.bytes.add(bytes);
            self.counters.bursts.add(1);
        }
    }

    /// The reasons for which the owner must look at each packet; read once per burst.
    #[inline(always)]
    #[must_use]
    pub fn inspections(&self) -> Inspections {
        Inspections::from_bits_retain(self.counters.inspections.load(Ordering::Relaxed))
    }

    /// Sets or clears these reasons; the queue's owner notices in one of its next bursts.
    pub fn inspect(&self, why: Inspections, on: bool) {
        if on {
            self.counters.inspections.fetch_or(why.bits(), Ordering::Relaxed);
        } else {
            self.counters.inspections.fetch_and(!why.bits(), Ordering::Relaxed);
        }
    }

    /// Counts `n` lost packets with their cause. For the queue's owner.
    #[inline]
    pub fn lost(&self, cause: C, n: u64) {
        self.counters.lost[cause.index()].add(n);
    }

    /// Counts a packet that is being dropped and reports it to a capture of the queue, with the cause. For
    /// the queue's owner, within a burst.
    #[cold]
    pub fn dropped(&self, cause: C, packet: &Packet) {
        self.lost(cause, 1);
        crate::observer::dropped(packet, C::ALL.get(cause.index()).map_or("", |(name, _)| name));
    }

    /// The counts since the last reset.
    #[must_use]
    pub fn totals(&self) -> Totals<C> {
        let baseline = *self.baseline();
        self.raw().since(&baseline)
    }

    /// Restarts the totals from zero; the owner may continue to count meanwhile.
    pub fn reset(&self) {
        let mut baseline = self.baseline();
        *baseline = self.raw();
    }

    fn baseline(&self) -> MutexGuard<'_, Totals<C>> {
        // Plain numbers are valid even if their writer panicked.
        self.baseline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn raw(&self) -> Totals<C> {
        let Counters { packets, bytes, bursts, lost, inspections: _ } = &*self.counters;
        Totals {
            packets: packets.value(),
            bytes: bytes.value(),
            bursts: bursts.value(),
            lost: std::array::from_fn(|i| lost[i].value()),
            causes: std::marker::PhantomData,
        }
    }
}

/// A snapshot of a queue's counters.
///
/// ```
/// use linecard_pmd::stats::{AnyLoss, Totals};
/// let nothing = Totals::<AnyLoss>::default();
/// assert_eq!((nothing.packets, nothing.lost(AnyLoss::Other)), (0, 0));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Totals<C> {
    /// Packets received or sent.
    pub packets: u64,
    /// Their bytes, without FCS.
    pub bytes: u64,
    /// Bursts that were not empty.
    pub bursts: u64,
    lost: [u64; MAX_CAUSES],
    causes: std::marker::PhantomData<C>,
}

impl<C> Default for Totals<C> {
    fn default() -> Self {
        Self { packets: 0, bytes: 0, bursts: 0, lost: [0; MAX_CAUSES], causes: std::marker::PhantomData }
    }
}

impl<C: Cause> Totals<C> {
    /// Packets lost for one cause.
    #[must_use]
    pub fn lost(&self, cause: C) -> u64 {
        self.lost[cause.index()]
    }

    /// Packets lost for all causes of one total.
    #[must_use]
    pub fn lost_as(&self, total: Total) -> u64 {
        self.by_cause().filter(|(_, kind, _)| *kind == total).map(|(_, _, n)| n).sum()
    }

    fn by_cause(&self) -> impl Iterator<Item = (&'static str, Total, u64)> {
        C::ALL.iter().zip(self.lost).map(|((name, total), n)| (*name, *total, n))
    }

    fn since(&self, baseline: &Self) -> Self {
        Self {
            packets: self.packets.wrapping_sub(baseline.packets),
            bytes: self.bytes.wrapping_sub(baseline.bytes),
            bursts: self.bursts.wrapping_sub(baseline.bursts),
            lost: std::array::from_fn(|i| self.lost[i].wrapping_sub(baseline.lost[i])),
            causes: self.causes,
        }
    }
}

#[cfg(test)]
mod tests;
