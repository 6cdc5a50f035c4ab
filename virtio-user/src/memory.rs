//! The memory that the backend can reach: this port's rings, the domain of its packets, and nothing else of
//! this process. The rings have a domain of their own, so that no other port's backend can write to them.
//!
//! Guest address = user address = address in this process, so a descriptor carries a pointer unchanged.
//!
//! A backend may be able to reach fewer segments than there are (eight, if it only takes tables). The rings
//! and the port's own pool are shared first, then the segments that it already knows, then others from the
//! lowest address on. Packets in the rest are copied into the port's pool when they are sent. A domain that
//! others make grow therefore costs a port time, but never its backend. Nor does a domain that shrinks: a segment
//! without which the others would be too many regions stays shared, and its memory in use.
//!
//! ```text
//!   rings:    ├─ segment ─┤ made when the port starts; never grows
//!   packets:  base ├─ segment ─┼─ segment ─┤· gap ·├─ segment (new) ─┤
//!   window:        ├──── shared, packets may be sent ────┤ not yet: copied, or after the backend's answer
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use linecard_eal::memory::{Domain, Segment, SegmentEvent, Subscription};
use linecard_mempool::Pool;

use crate::backend::{Backend, MemoryUpdate};
use crate::error::Error;
use crate::log::{PortLog, tell};
use crate::thread::Waiter;

/// The addresses that the backend has mapped. The transmit path checks them with one subtraction and one
/// comparison.
#[derive(Debug)]
pub(crate) struct Window {
    base: u64,
    len: AtomicU64,
    /// The number of changes to the segments, which shows whether a computed length is still valid.
    changes: Mutex<u64>,
}

impl Window {
    fn new(base: u64) -> Self {
        Self { base, len: AtomicU64::new(0), changes: Mutex::new(0) }
    }

    /// Returns the first address and the number of bytes from there on that may be given to the backend.
    #[inline(always)]
    pub(crate) fn now(&self) -> (u64, u64) {
        // Relaxed: the number reflects the backend's answer and publishes no memory of ours.
        (self.base, self.len.load(Ordering::Relaxed))
    }

    fn changes(&self) -> u64 {
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the window at `addr`, where a segment appeared or disappeared: the backend mapped something else
    /// there.
    fn cut(&self, addr: u64) {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        *changes = changes.wrapping_add(1);
        let len = addr.saturating_sub(self.base).min(self.len.load(Ordering::Relaxed));
        self.len.store(len, Ordering::Relaxed);
    }

    /// Extends the window to `end`, unless segments changed since `seen`.
    fn raise(&self, end: u64, seen: u64) {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if *changes == seen {
            self.len.store(end.saturating_sub(self.base), Ordering::Relaxed);
        }
    }

    /// A window over all of `segments`.
    #[cfg(test)]
    pub(crate) fn over(segments: Vec<Arc<Segment>>) -> Arc<Self> {
        let window = Self::new(segments.first().map_or(0, |first| start(first)));
        let end = segments.last().map_or(0, |last| start(last) + last.len() as u64);
        window.raise(end, 0);
        Arc::new(window)
    }

    /// Empties the window: nothing is shared any more.
    pub(crate) fn close(&self) {
        self.cut(self.base);
    }
}

/// All memory that one port shares: its rings, and a domain of packets whose growth it follows.
pub(crate) struct SharedDomains {
    rings: Arc<Domain>,
    packets: Arc<Domain>,
    /// The segment of the port's own packets: receive buffers, and copies of packets that the backend cannot
    /// reach.
    own: Arc<Segment>,
    pub(crate) window: Arc<Window>,
    _subscription: Subscription,
}

impl SharedDomains {
    /// Subscribes to the domain of `pool`; `waiter`'s thread is notified when segments come or go.
    pub(crate) fn follow(rings: Arc<Domain>, pool: &Pool, waiter: Arc<Waiter>) -> Self {
        let (packets, own) = (pool.domain(), pool.segment().clone());
        let window = Arc::new(Window::new(packets.base() as u64));
        let seen = window.clone();
        let subscription = packets.subscribe(Box::new(move |event| {
            match event {
                SegmentEvent::Added(segment) | SegmentEvent::Removed(segment) => seen.cut(start(segment)),
                #[allow(unreachable_patterns, reason = "more kinds of events may come")]
                _ => {}
            }
            waiter.notify();
        }));
        Self { rings, packets: packets.clone(), own, window, _subscription: subscription }
    }

    /// Selects the segments to share now with a backend that can reach what `fits` accepts and already knows
    /// `known`.
    ///
    /// # Errors
    /// The backend cannot reach the memory that the port itself needs.
    fn choose(&self, known: &[Arc<Segment>], fits: Fits<'_>) -> Result<Selection, Error> {
        let packets = self.packets.segments();
        let mut shared = self.rings.segments();
        shared.push(self.own.clone());
        fits(&shared)?;
        // The backend may hold packets in these segments.
        let kept = packets.iter().filter(|segment| contains(known, segment) && !contains(&shared, segment));
        let kept: Vec<_> = kept.cloned().collect();
        shared.extend(kept);
        // The neighbours of a removed segment are two regions for a backend that joins them. If that is too many,
        // the backend keeps the removed segment.
        for gone in without(known, &shared) {
            if fits(&shared).is_ok() {
                break;
            }
            shared.push(gone);
        }
        let mut selection = Selection { shared, end: 0, left_out: 0 };
        for segment in packets {
            if !contains(&selection.shared, &segment) {
                selection.shared.push(segment.clone());
                if fits(&selection.shared).is_err() {
                    selection.shared.pop();
                    selection.left_out += 1;
                    continue;
                }
            }
            // The window is one range, so it ends before the first segment that is left out.
            if selection.left_out == 0 {
                selection.end = start(&segment).saturating_add(segment.len() as u64);
            }
        }
        Ok(selection)
    }
}

/// Whether a backend can reach these segments.
type Fits<'a> = &'a dyn Fn(&[Arc<Segment>]) -> Result<(), Error>;

/// The part of a port's memory to share with its backend.
struct Selection {
    shared: Vec<Arc<Segment>>,
    /// The end of the packets that may be sent without a copy.
    end: u64,
    /// The number of segments that the backend cannot reach.
    left_out: usize,
}

fn start(segment: &Segment) -> u64 {
    segment.addr() as u64
}

/// The memory that one backend knows.
#[derive(Debug)]
pub(crate) struct Sharing {
    log: Arc<PortLog>,
    known: Vec<Arc<Segment>>,
    changes: Option<u64>,
    /// The number of segments that the backend cannot reach.
    left_out: usize,
}

impl Sharing {
    pub(crate) const fn new(log: Arc<PortLog>) -> Self {
        Self { log, known: Vec::new(), changes: None, left_out: 0 }
    }

    /// Passes changes since the last call on to the backend, and extends the window accordingly. Returns
    /// whether there were any. Notifications that arrive meanwhile may be consumed.
    pub(crate) fn update(
        &mut self,
        backend: &mut dyn Backend,
        shared_domains: &SharedDomains,
    ) -> Result<bool, Error> {
        let seen = shared_domains.window.changes();
        if self.changes == Some(seen) {
            return Ok(false);
        }
        let max = backend.offer().regions;
        let fits = |segments: &[Arc<Segment>]| match backend.regions(segments) {
            regions if regions > max => Err(Error::Regions { segments: regions, max }),
            _ => Ok(()),
        };
        let Selection { shared: now, end, left_out } = shared_domains.choose(&self.known, &fits)?;
        if left_out > 0 && self.left_out == 0 {
            tell!(
                self.log,
                WARN,
                "the backend reaches {max} regions of memory, and there are more ({left_out} are left out): packets in them are \
                 copied when they are sent; use fewer and larger segments (hugepages, or a larger -m)"
            );
        }
        self.left_out = left_out;
        let gone = without(&self.known, &now);
        let new = without(&now, &self.known);
        if !(gone.is_empty() && new.is_empty()) {
            backend.set_memory(&MemoryUpdate { all: &now, gone: &gone, new: &new })?;
        }
        self.known = now;
        self.changes = Some(seen);
        shared_domains.window.raise(end, seen);
        Ok(true)
    }
}

/// Returns the segments of `list` that are not in `other`.
fn without(list: &[Arc<Segment>], other: &[Arc<Segment>]) -> Vec<Arc<Segment>> {
    list.iter().filter(|segment| !contains(other, segment)).cloned().collect()
}

fn contains(list: &[Arc<Segment>], segment: &Arc<Segment>) -> bool {
    list.iter().any(|other| Arc::ptr_eq(other, segment))
}

#[cfg(test)]
mod tests {
    use linecard_eal::memory::{Memory, MemoryConfig};

    use super::*;

    /// The number of ranges, as a backend counts them that joins neighbours.
    fn ranges(segments: &[Arc<Segment>]) -> usize {
        let mut all: Vec<_> =
            segments.iter().map(|one| (start(one), start(one) + one.len() as u64)).collect();
        all.sort_unstable();
        all.len() - all.windows(2).filter(|pair| pair[0].1 == pair[1].0).count()
    }

    #[test]
    fn a_segment_that_goes_does_not_make_too_many_of_its_neighbours() {
        let memory = Memory::new(MemoryConfig::default()).expect("memory");
        let [rings, packets] = ["rings", "packets"].map(|name| memory.domain(name).expect("a domain"));
        let zone = |domain: &Arc<Domain>| domain.zone("zone", 4 << 20, 64).expect("a zone");
        let _ring = zone(&rings);
        let mut zones: Vec<_> = (0..3).map(|_| zone(&packets)).collect();
        let own = packets.segments()[0].clone();
        let (window, subscription) = (Arc::new(Window::new(0)), packets.subscribe(Box::new(|_| {})));
        let domains =
            SharedDomains { rings, packets: packets.clone(), own, window, _subscription: subscription };
        let fits = |segments: &[Arc<Segment>]| match ranges(segments) {
            regions if regions > 2 => Err(Error::Regions { segments: regions, max: 2 }),
            _ => Ok(()),
        };
        let known = domains.choose(&[], &fits).expect("two ranges").shared;
        assert_eq!((known.len(), ranges(&known)), (4, 2));
        zones.remove(1);
        assert_eq!(packets.segments().len(), 2, "the middle one is gone");
        let now = domains.choose(&known, &fits).expect("the backend keeps its memory");
        assert!(fits(&now.shared).is_ok(), "{:?}", now.shared);
        assert!(packets.segments().iter().all(|segment| contains(&now.shared, segment)));
        // With room for it, or without its neighbour, it goes.
        let more = domains.choose(&now.shared, &|_| Ok(())).expect("room");
        assert_eq!(more.shared.len(), 3);
        zones.remove(1);
        let now = domains.choose(&now.shared, &fits).expect("one range and the rings");
        assert_eq!(now.shared.len(), 2);
    }

    #[test]
    fn a_window_opens_only_for_what_was_answered() {
        let window = Window::new(0x1000);
        assert_eq!(window.now(), (0x1000, 0));
        let seen = window.changes();
        window.raise(0x3000, seen);
        assert_eq!(window.now(), (0x1000, 0x2000));
        // A new segment beyond the window does not narrow it, but makes an older answer void.
        window.cut(0x3000);
        assert_eq!(window.now(), (0x1000, 0x2000));
        window.raise(0x4000, seen);
        assert_eq!(window.now(), (0x1000, 0x2000));
        // One inside does: its place held something else when the backend mapped it.
        window.cut(0x1800);
        assert_eq!(window.now(), (0x1000, 0x800));
        window.close();
        assert_eq!(window.now().1, 0);
    }
}
