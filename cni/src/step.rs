//! The steps of the plugin; it may be killed between any two of them. Tests watch them (feature `steps`).
//! Without the feature this does nothing.

#[cfg(feature = "steps")]
mod watched {
    use std::cell::RefCell;

    /// Called after each step.
    type Watcher = Box<dyn FnMut(&'static str)>;

    thread_local! {
        static WATCHER: RefCell<Option<Watcher>> = const { RefCell::new(None) };
    }

    /// From now on, calls `watcher` after each step that the plugin does on this thread.
    ///
    /// ```
    /// use std::cell::Cell;
    /// use std::rc::Rc;
    /// let seen = Rc::new(Cell::new(0));
    /// let count = Rc::clone(&seen);
    /// linecard_cni::step::watch(move |_| count.set(count.get() + 1));
    /// assert_eq!(seen.get(), 0);
    /// ```
    pub fn watch(watcher: impl FnMut(&'static str) + 'static) {
        WATCHER.with(|slot| *slot.borrow_mut() = Some(Box::new(watcher)));
    }

    pub(crate) fn done(what: &'static str) {
        WATCHER.with(|slot| {
            // Steps of the watcher itself are not watched.
            if let Ok(mut watcher) = slot.try_borrow_mut()
                && let Some(watcher) = watcher.as_mut()
            {
                watcher(what);
            }
        });
    }
}

#[cfg(feature = "steps")]
pub(crate) use watched::done;
#[cfg(feature = "steps")]
pub use watched::watch;

/// Reports that a step is done.
#[cfg(not(feature = "steps"))]
pub(crate) const fn done(_what: &'static str) {}
