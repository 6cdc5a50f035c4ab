//! Counters of a queue: one thread writes them, any thread reads them, nobody locks.
//!
//! A queue's owner counts once per burst with a plain load and store ([`Counter::add`]), no locked
//! instruction; its counters sit on cache lines of their own. A reset does not write them: it
//! remembers where they stood, so it cannot race with the owner.
//!
//! ```text
//! rx thread ── received(n, bytes) ─► QueueStats ◄─ totals() ── any thread
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

/// Most causes that one queue can tell apart.
pub const MAX_CAUSES: usize = 16;

/// A number that one thread increases and any thread reads.
///
/// Two threads adding at once would lose counts, nothing worse; a queue is owned by one thread, so
/// there is no second.
///
/// ```
/// let packets = linecard_pmd::stats::Counter::default();
/// packets.add(32);
/// assert_eq!(packets.value(), 32);
/// ```
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`, for the owner; wraps at 2^64.
    #[inline(always)]
    pub fn add(&self, n: u64) {
        // Not `fetch_add`: with one writer a load and a store do, and need no locked instruction.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// The number now.
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
    /// `rx_nombuf`: no buffer to receive into (receive); the packet may still come later.
    NoBuffer,
    /// No total; seen among the extended statistics only.
    None,
}

/// Why a driver's queue lost packets: an enum made by [`causes!`](crate::causes).
pub trait Cause: Copy + 'static {
    /// Name (`too_long`) and total of each cause, by index; at most [`MAX_CAUSES`].
    const ALL: &'static [(&'static str, Total)];
    /// Place in [`ALL`](Self::ALL).
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
    /// For queues that cannot lose anything but what has no name.
    pub enum AnyLoss {
        /// Whatever it was.
        Other = ("other", Total::Error),
    }
}

#[derive(Debug, Default)]
struct Counters {
    packets: Counter,
    bytes: Counter,
    bursts: Counter,
    /// [`Inspections`], beside what a burst writes anyway: read from anywhere else they cost a line of the first cache per burst.
    inspections: AtomicU32,
    lost: [Counter; MAX_CAUSES],
}

bitflags::bitflags! {
    /// Why a queue looks at each of its packets.
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
        /// The port's receive filter lets not everything pass.
        const FILTER = 1;
        /// Packets are counted by class.
        const CLASSES = 2;
    }
}

/// What one queue did; shared between the queue and its port's control side.
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
    /// Counts a burst of `packets` with `bytes` in them that were received or sent; nothing for an
    /// empty burst. For the queue's owner.
    #[inline(always)]
    pub fn moved(&self, packets: usize, bytes: u64) {
        if packets > 0 {
            self.counters.packets.add(packets as u64);
            self.counters.bytes.add(bytes);
            self.counters.bursts.add(1);
        }
    }

    /// Why the queue's owner is to look at each packet; once for each burst.
    #[inline(always)]
    #[must_use]
    pub fn inspections(&self) -> Inspections {
        Inspections::from_bits_retain(self.counters.inspections.load(Ordering::Relaxed))
    }

    /// Sets or clears those reasons; the queue's owner sees it in one of its next bursts.
    pub fn inspect(&self, why: Inspections, on: bool) {
        if on {
            self.counters.inspections.fetch_or(why.bits(), Ordering::Relaxed);
        } else {
            self.counters.inspections.fetch_and(!why.bits(), Ordering::Relaxed);
        }
    }

    /// Counts `n` packets that were lost, and why. For the queue's owner.
    #[inline]
    pub fn lost(&self, cause: C, n: u64) {
        self.counters.lost[cause.index()].add(n);
    }

    /// Counts a packet that is being dropped, and shows it, with the reason, to whoever captures the queue. For the
    /// queue's owner, inside of a burst.
    #[cold]
    pub fn dropped(&self, cause: C, packet: &Packet) {
        self.lost(cause, 1);
        crate::observer::dropped(packet, C::ALL.get(cause.index()).map_or("", |(name, _)| name));
    }

    /// What was counted since the last reset.
    #[must_use]
    pub fn totals(&self) -> Totals<C> {
        let baseline = *self.baseline();
        self.raw().since(&baseline)
    }

    /// Lets the totals start from zero again; the owner may go on counting meanwhile.
    pub fn reset(&self) {
        let mut baseline = self.baseline();
        *baseline = self.raw();
    }

    fn baseline(&self) -> MutexGuard<'_, Totals<C>> {
        // A copy of plain numbers is whole even if its writer panicked.
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

/// A queue's numbers at one moment.
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
