//! Callbacks for changes of a port's link.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::control::Link;

/// A callback for a new link state.
type Told = Arc<dyn Fn(Link) + Send + Sync>;

/// The callbacks for a port's link. A driver has one and reports changes with [`tell`](Self::tell).
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use linecard_pmd::{Link, link::LinkEvents};
///
/// let events = Arc::new(LinkEvents::new(Link::DOWN));
/// let changes = Arc::new(AtomicU32::new(0));
/// let counted = Arc::clone(&changes);
/// let watch = events.on_change(move |link| {
///     assert!(link.up);
///     counted.fetch_add(1, Ordering::Relaxed);
/// });
/// events.tell(Link::UP);
/// events.tell(Link::UP); // nothing has changed
/// drop(watch);
/// events.tell(Link::DOWN);
/// assert_eq!(changes.load(Ordering::Relaxed), 1);
/// ```
pub struct LinkEvents(Mutex<Watchers>);

struct Watchers {
    /// The state reported last.
    link: Link,
    /// The identifier of the next watcher.
    next: u64,
    told: Vec<(u64, Told)>,
}

impl LinkEvents {
    /// Creates a registry without callbacks for a link in this initial state.
    #[must_use]
    pub const fn new(link: Link) -> Self {
        Self(Mutex::new(Watchers { link, next: 0, told: Vec::new() }))
    }

    /// Calls `told` with each new link state, until the returned value is dropped.
    ///
    /// The call happens on a thread of the driver, after the change: keep it short, such as a store and the
    /// signal of an eventfd. A change may precede the registration: check
    /// [`PortControl::link`](crate::PortControl::link) afterwards.
    #[must_use = "dropped, it ends the calls"]
    pub fn on_change(self: &Arc<Self>, told: impl Fn(Link) + Send + Sync + 'static) -> LinkWatch {
        let mut watchers = self.lock();
        let id = watchers.next;
        watchers.next = id.wrapping_add(1);
        watchers.told.push((id, Arc::new(told)));
        LinkWatch { events: Arc::downgrade(self), id }
    }

    /// For drivers: reports the current link state. Callbacks run if the link went up or down since the last
    /// call.
    pub fn tell(&self, link: Link) {
        let told: Vec<Told> = {
            let mut watchers = self.lock();
            if watchers.link.up == link.up {
                return;
            }
            watchers.link = link;
            watchers.told.iter().map(|(_, told)| Arc::clone(told)).collect()
        };
        // Without the lock: a callback may register another one.
        told.iter().for_each(|told| told(link));
    }

    fn lock(&self) -> MutexGuard<'_, Watchers> {
        // The list is valid even if a thread panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for LinkEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let watchers = self.lock();
        f.debug_struct("LinkEvents")
            .field("link", &watchers.link)
            .field("watchers", &watchers.told.len())
            .finish()
    }
}

/// The registration of a callback, from [`LinkEvents::on_change`]. Dropping it ends the calls; a call that
/// has begun may still be running then.
///
/// ```
/// use std::sync::Arc;
/// use linecard_pmd::{Link, link::{LinkEvents, LinkWatch}};
/// let events = Arc::new(LinkEvents::new(Link::DOWN));
/// let watch: LinkWatch = events.on_change(|link| println!("up: {}", link.up));
/// # drop(watch);
/// ```
pub struct LinkWatch {
    events: Weak<LinkEvents>,
    id: u64,
}

impl Drop for LinkWatch {
    fn drop(&mut self) {
        let Some(events) = self.events.upgrade() else { return };
        // The callback is dropped without the lock.
        let mut watchers = events.lock();
        let (gone, kept) = std::mem::take(&mut watchers.told).into_iter().partition(|(id, _)| *id == self.id);
        watchers.told = kept;
        drop(watchers);
        let _: Vec<(u64, Told)> = gone;
    }
}

impl std::fmt::Debug for LinkWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkWatch").finish_non_exhaustive()
    }
}
