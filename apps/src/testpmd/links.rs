//! Links that go up and down, as the ports' drivers tell of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use linecard::pmd::PortControl;
use linecard::pmd::link::LinkWatch;

/// Wakes whoever shows changes of links.
#[derive(Default)]
pub(crate) struct LinkNews(OnceLock<Box<dyn Fn() + Send + Sync>>);

impl LinkNews {
    /// Who is to be woken.
    pub(crate) fn wake_by(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(wake));
    }

    fn wake(&self) {
        if let Some(wake) = self.0.get() {
            wake();
        }
    }
}

/// Whether the link of one port has changed: told by its driver, or to be looked at where that tells nothing.
pub(crate) struct LinkChanges {
    told: Arc<AtomicBool>,
    watch: Option<LinkWatch>,
}

impl LinkChanges {
    /// Of a started port.
    pub(crate) fn of(control: &dyn PortControl, news: &Arc<LinkNews>) -> Self {
        let told = Arc::new(AtomicBool::new(false));
        let (set, news) = (Arc::clone(&told), Arc::clone(news));
        let watch = control.link_events().map(|events| {
            events.on_change(move |_| {
                // Once until it is looked at, however often a link changes.
                if !set.swap(true, Ordering::AcqRel) {
                    news.wake();
                }
            })
        });
        Self { told, watch }
    }

    /// Whether it may have changed since this was asked last.
    pub(crate) fn take(&self) -> bool {
        self.watch.is_none() || self.told.swap(false, Ordering::AcqRel)
    }
}
