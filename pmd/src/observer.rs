//! Reports of dropped packets with the reason: the hook through which a packet capture covers every driver.
//!
//! ```text
//!   a queue in front of a driver's queue                 the driver, inside of its burst
//!   observe(observer, || inner.tx_burst(packets)) ─────► dropped(packet, cause) ──► observer.dropped(..)
//! ```
//! An observer is installed for one burst of one queue, on the thread that polls it, and removed afterwards.
//! Drivers need not know whether there is one: without, [`dropped`] reads one thread-local variable, on a
//! path that only lost packets take.

use std::cell::RefCell;

use linecard_mempool::Packet;

/// Whether a lost packet was reported as sent before.
///
/// ```
/// use linecard_pmd::observer::Reported;
/// assert_ne!(Reported::No, Reported::Before);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// It was not: this burst drops it.
    No,
    /// It is a piece of a packet that a burst accepted as a whole.
    AsWhole,
    /// An earlier burst accepted it, and it is lost after all.
    Before,
}

/// The receiver of reports about dropped packets; see [`observe`].
///
/// ```
/// use linecard_mempool::Packet;
/// use linecard_pmd::observer::{DropObserver, Reported};
/// struct Count(usize);
/// impl DropObserver for Count {
///     fn dropped(&mut self, _: &Packet, _: &str, _: Reported) {
///         self.0 += 1;
///     }
/// }
/// ```
pub trait DropObserver: std::any::Any {
    /// Reports that this packet is lost, and why. The polling thread calls this within a burst: it must not
    /// block and must not call functions of this module.
    fn dropped(&mut self, packet: &Packet, cause: &str, shown: Reported);
}

struct Installed {
    observer: Box<dyn DropObserver>,
    /// Whether current drops are of pieces of packets that bursts accepted before.
    pieces: bool,
}

thread_local! {
    /// The observer of the queue that this thread is polling.
    static INSTALLED: RefCell<Option<Installed>> = const { RefCell::new(None) };
}

/// Runs `step`, a burst of one queue, reports the packets that its driver drops to `observer`, and returns
/// the observer. If one queue wraps another, only the innermost observer gets the reports.
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Packet, Pool, PoolConfig};
/// # use linecard_pmd::observer::{self, DropObserver, Reported};
/// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// struct Causes(Vec<String>);
/// impl DropObserver for Causes {
///     fn dropped(&mut self, _: &Packet, cause: &str, _: Reported) {
///         self.0.push(cause.to_owned());
///     }
/// }
/// let packet = pool.get().ok_or("empty")?;
/// let causes = Box::new(Causes(Vec::new()));
/// let ((), causes) = observer::observe(causes, || observer::dropped(&packet, "too long for the peer"));
/// assert_eq!(causes.expect("given back").0, ["too long for the peer"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The returned observer is never `None` in practice; a caller that gets `None` continues without one.
pub fn observe<O: DropObserver, T>(observer: Box<O>, step: impl FnOnce() -> T) -> (T, Option<Box<O>>) {
    /// Restores the outer observer, also if `step` panics.
    struct Outer(Option<Installed>);
    impl Drop for Outer {
        fn drop(&mut self) {
            let outer = self.0.take();
            let inner = INSTALLED.with(|place| std::mem::replace(&mut *place.borrow_mut(), outer));
            drop(inner);
        }
    }
    let place = Installed { observer, pieces: false };
    let outer = Outer(INSTALLED.with(|now| now.borrow_mut().replace(place)));
    let result = step();
    let place = INSTALLED.with(|place| place.borrow_mut().take());
    drop(outer);
    let observer = place.and_then(|place| (place.observer as Box<dyn std::any::Any>).downcast().ok());
    (result, observer)
}

fn tell(packet: &Packet, cause: &str, shown: impl FnOnce(&Installed) -> Reported) {
    INSTALLED.with(|place| {
        if let Some(place) = &mut *place.borrow_mut() {
            let shown = shown(place);
            place.observer.dropped(packet, cause, shown);
        }
    });
}

/// For drivers: reports that a packet is dropped within a burst, and why. Without an observer this costs one
/// read of a thread-local variable.
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Pool, PoolConfig};
/// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// let packet = pool.get().ok_or("empty")?;
/// linecard_pmd::observer::dropped(&packet, "too long for the peer"); // nobody observes here
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn dropped(packet: &Packet, cause: &str) {
    tell(packet, cause, |place| if place.pieces { Reported::AsWhole } else { Reported::No });
}

/// For drivers: reports that a packet which an earlier burst accepted, and which a capture may show as sent,
/// is lost after all. Called from [`TxQueue::watched`](crate::TxQueue::watched) for packets lost on another
/// thread.
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Pool, PoolConfig};
/// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// let packet = pool.get().ok_or("empty")?;
/// linecard_pmd::observer::lost(&packet, "backend_gone"); // nobody observes here
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn lost(packet: &Packet, cause: &str) {
    tell(packet, cause, |_| Reported::Before);
}

/// Runs `step`, which sends pieces of packets that bursts accepted as a whole; drops within are reported as
/// such.
pub(crate) fn in_pieces<T>(step: impl FnOnce() -> T) -> T {
    let set = |pieces| {
        INSTALLED.with(|place| {
            if let Some(place) = &mut *place.borrow_mut() {
                place.pieces = pieces;
            }
        });
    };
    set(true);
    let result = step();
    set(false);
    result
}

/// For drivers: whether an observer is installed for this burst, so that it is worth creating a packet for a
/// frame that is not one yet.
///
/// ```
/// assert!(!linecard_pmd::observer::is_watched(), "outside of a burst nobody observes");
/// ```
#[must_use]
pub fn is_watched() -> bool {
    INSTALLED.with(|place| place.borrow().is_some())
}
