//! Notifications of segments added to or removed from a domain.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Segment;

/// A segment was added to a domain or removed from it.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use linecard_eal::{Memory, MemoryConfig, SegmentEvent};
///
/// let domain = Memory::new(MemoryConfig::default()).unwrap().domain("ports").unwrap();
/// let seen = Arc::new(Mutex::new(0));
/// let count = Arc::clone(&seen);
/// let subscription = domain.subscribe(Box::new(move |event| {
///     if let SegmentEvent::Added(segment) = event {
///         *count.lock().unwrap() += segment.len();
///     }
/// }));
/// let _zone = domain.zone("ring", 4096, 64).unwrap();
/// assert_eq!(*seen.lock().unwrap(), 2 << 20);
/// drop(subscription);
/// ```
#[derive(Debug, Clone)]
pub enum SegmentEvent {
    /// A segment was mapped; it has no zones yet.
    Added(Arc<Segment>),
    /// A segment without zones was removed from the domain. It is unmapped when the last `Arc` is dropped.
    Removed(Arc<Segment>),
}

type Listener = dyn Fn(&SegmentEvent) + Send + Sync;

/// The subscribers of one domain.
#[derive(Default)]
pub(super) struct Listeners {
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    last_id: u64,
    entries: Vec<(u64, Arc<Listener>)>,
}

impl Listeners {
    pub(super) fn add(self: &Arc<Self>, listener: Box<Listener>) -> Subscription {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.last_id += 1;
        let id = list.last_id;
        list.entries.push((id, Arc::from(listener)));
        Subscription { listeners: Arc::downgrade(self), id }
    }

    /// Calls all current subscribers without holding a lock: listeners may subscribe, unsubscribe and
    /// allocate.
    pub(super) fn tell(&self, event: &SegmentEvent) {
        let list: Vec<_> = {
            let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
            list.entries.iter().map(|(_, listener)| Arc::clone(listener)).collect()
        };
        for listener in list {
            listener(event);
        }
    }
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        write!(f, "Listeners({})", list.entries.len())
    }
}

/// Keeps a listener subscribed; dropping it unsubscribes. A call that has begun on another thread may still
/// be running then.
///
/// ```
/// use linecard_eal::{Memory, MemoryConfig};
///
/// let domain = Memory::new(MemoryConfig::default()).unwrap().domain("ports").unwrap();
/// let subscription = domain.subscribe(Box::new(|event| println!("{event:?}")));
/// drop(subscription);
/// ```
#[derive(Debug)]
#[must_use = "dropping it unsubscribes"]
pub struct Subscription {
    listeners: Weak<Listeners>,
    id: u64,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let Some(listeners) = self.listeners.upgrade() else { return };
        let mut list = listeners.list.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = list.entries.iter().position(|(id, _)| *id == self.id).map(|i| list.entries.remove(i));
        // The listener is dropped without the lock: it may own subscriptions itself.
        drop(list);
        drop(gone);
    }
}
