//! Who is told of packets that are dropped, and why: the hook by which a capture reaches every driver.
//!
//! ```text
//!   a queue in front of a driver's queue                 the driver, inside of its burst
//!   observe(observer, || inner.tx_burst(packets)) ─────► dropped(packet, cause) ──► observer.dropped(..)
//! ```
//! An observer is put in place for one burst of one queue on the thread that polls it, and taken back afterwards. Drivers
//! need not know whether there is one: without, [`dropped`] is a look at a variable of the thread's own, on a path that
//! only lost packets take.

use std::cell::RefCell;

use linecard_mempool::Packet;

/// Whether a packet that is lost was told to be sent before.
///
/// ```
/// use linecard_pmd::observer::Reported;
/// assert_ne!(Reported::No, Reported::Before);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// It was not: this burst drops it.
    No,
    /// It is a piece of a packet that a burst took whole.
    AsWhole,
    /// A burst took it, and it is lost after all.
    Before,
}

/// Somebody who is told of dropped packets; see [`observe`].
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
    /// This packet is lost, for this reason. Called by the polling thread inside of a burst: it may not wait, and may not
    /// call this module's functions.
    fn dropped(&mut self, packet: &Packet, cause: &str, shown: Reported);
}

struct Installed {
    observer: Box<dyn DropObserver>,
    /// What is dropped now are pieces of packets that bursts took before.
    pieces: bool,
}

thread_local! {
    /// The observer of the queue that this thread polls just now.
    static INSTALLED: RefCell<Option<Installed>> = const { RefCell::new(None) };
}

/// Runs `step`, a burst of one queue, and tells `observer` what its driver drops; gives the observer back. A queue behind
/// a queue tells the innermost observer.
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
/// `None` in the place of the observer does not happen; who gets it goes on without.
pub fn observe<O: DropObserver, T>(observer: Box<O>, step: impl FnOnce() -> T) -> (T, Option<Box<O>>) {
    /// Puts the outer observer back, also where `step` panics.
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

/// For drivers: this packet is dropped inside of a burst, for this reason. Costs a look at a thread's own variable
/// when nobody observes.
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

/// For drivers: a packet that an earlier burst took, and which a capture may show as sent, is lost after all, for this
/// reason. For [`TxQueue::watched`](crate::TxQueue::watched), where those are told that somebody else lost.
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

/// Runs `step`, which sends pieces of packets that bursts took whole: drops inside of it are told as such.
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

/// For drivers: whether anybody wants to see what this burst drops, so that it is worth while to make a packet of what
/// is none yet.
///
/// ```
/// assert!(!linecard_pmd::observer::is_watched(), "outside of a burst nobody observes");
/// ```
#[must_use]
pub fn is_watched() -> bool {
    INSTALLED.with(|place| place.borrow().is_some())
}
