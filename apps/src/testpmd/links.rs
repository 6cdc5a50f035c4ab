//! Link changes, reported by the drivers of the ports.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use linecard::pmd::PortControl;
use linecard::pmd::link::LinkWatch;

/// Wakes the thread that displays link changes.
#[derive(Default)]
pub(crate) struct LinkNews(OnceLock<Box<dyn Fn() + Send + Sync>>);

impl LinkNews {
    /// Sets the function that wakes that thread.
    pub(crate) fn wake_by(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(wake));
    }

    fn wake(&self) {
        if let Some(wake) = self.0.get() {
            wake();
        }
    }
}

/// Whether the link of one port has changed: reported by its driver, or assumed if the driver reports
/// nothing.
pub(crate) struct LinkChanges {
    told: Arc<AtomicBool>,
    watch: Option<LinkWatch>,
}

impl LinkChanges {
    /// Watches the link of a started port.
    pub(crate) fn of(control: &dyn PortControl, news: &Arc<LinkNews>) -> Self {
        let told = Arc::new(AtomicBool::new(false));
        let (set, news) = (Arc::clone(&told), Arc::clone(news));
        let watch = control.link_events().map(|events| {
            events.on_change(move |_| {
                // Wakes once until [`LinkChanges::take`], however often the link changes.
                if !set.swap(true, Ordering::AcqRel) {
                    news.wake();
                }
            })
        });
        Self { told, watch }
    }

    /// Returns whether the link may have changed since the last call.
    pub(crate) fn take(&self) -> bool {
        self.watch.is_none() || self.told.swap(false, Ordering::AcqRel)
    }
}
