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
    /// A thread runs callbacks. It also reports what changes meanwhile, so that the last call has the last state.
    reporting: bool,
    /// The identifier of the next watcher.
    next: u64,
    told: Vec<(u64, Told)>,
}

impl LinkEvents {
    /// Creates a registry without callbacks for a link in this initial state.
    #[must_use]
    pub const fn new(link: Link) -> Self {
        Self(Mutex::new(Watchers { link, reporting: false, next: 0, told: Vec::new() }))
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
    /// call; if another thread runs them at the moment, it runs them again.
    pub fn tell(&self, link: Link) {
        let mut watchers = self.lock();
        if watchers.link.up == link.up {
            return;
        }
        watchers.link = link;
        if watchers.reporting {
            return;
        }
        watchers.reporting = true;
        let _reporting = Reporting(self);
        loop {
            let link = watchers.link;
            let told: Vec<Told> = watchers.told.iter().map(|(_, told)| Arc::clone(told)).collect();
            // Without the lock: a callback may register another one.
            drop(watchers);
            told.iter().for_each(|told| told(link));
            watchers = self.lock();
            if watchers.link.up == link.up {
                watchers.reporting = false;
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watchers> {
        // The list is valid even if a thread panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the reporting if a callback panics.
struct Reporting<'a>(&'a LinkEvents);

impl Drop for Reporting<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().reporting = false;
        }
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A change while callbacks run is reported by the thread that runs them, after the one before it.
    #[test]
    fn the_last_call_has_the_last_state() {
        let up = Link { up: true, ..Link::DOWN };
        let events = Arc::new(LinkEvents::new(Link::DOWN));
        let (calls, called) = mpsc::channel();
        let weak = Arc::downgrade(&events);
        let watch = events.on_change(move |link| {
            calls.send(link.up).expect("it is read");
            if link.up
                && let Some(events) = weak.upgrade()
            {
                std::thread::spawn(move || events.tell(Link::DOWN))
                    .join()
                    .expect("it does not wait for this call");
            }
        });
        events.tell(up);
        assert_eq!(called.try_iter().collect::<Vec<_>>(), [true, false]);
        drop(watch);
    }
}
