//! Changes of a port's link, told to whoever wants to know.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::control::Link;

/// Is told of a link.
type Told = Arc<dyn Fn(Link) + Send + Sync>;

/// Who is told when a port's link goes up or down; a driver has one, and [tells](Self::tell) it.
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
    /// As it was told last.
    link: Link,
    /// Of the next watcher.
    next: u64,
    told: Vec<(u64, Told)>,
}

impl LinkEvents {
    /// Of a link that is like this at first; nobody watches it.
    #[must_use]
    pub const fn new(link: Link) -> Self {
        Self(Mutex::new(Watchers { link, next: 0, told: Vec::new() }))
    }

    /// Calls `told` with each new state of the link, until what this returns is dropped.
    ///
    /// It is called on a thread of the driver's, after the change: keep it short, such as a store and the signal of an eventfd. A
    /// change may have passed before this is called: look at [`PortControl::link`](crate::PortControl::link) afterwards.
    #[must_use = "dropped, it ends the calls"]
    pub fn on_change(self: &Arc<Self>, told: impl Fn(Link) + Send + Sync + 'static) -> LinkWatch {
        let mut watchers = self.lock();
        let id = watchers.next;
        watchers.next = id.wrapping_add(1);
        watchers.told.push((id, Arc::new(told)));
        LinkWatch { events: Arc::downgrade(self), id }
    }

    /// For drivers: the link is like this now. Whoever watches is told if it went up or down since the last call.
    pub fn tell(&self, link: Link) {
        let told: Vec<Told> = {
            let mut watchers = self.lock();
            if watchers.link.up == link.up {
                return;
            }
            watchers.link = link;
            watchers.told.iter().map(|(_, told)| Arc::clone(told)).collect()
        };
        // Without the lock: they may ask for more.
        told.iter().for_each(|told| told(link));
    }

    fn lock(&self) -> MutexGuard<'_, Watchers> {
        // A list is whole even if a thread panicked.
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

/// Somebody is told of a link; from [`LinkEvents::on_change`]. Dropped, it ends that: a call that has begun may still be going on
/// then.
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
        // What a caller left in its function is dropped without the lock.
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
