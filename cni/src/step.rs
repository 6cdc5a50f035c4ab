//! The steps of the plugin, between any two of which it may be killed. Tests watch them (feature `steps`); a plugin for
//! users does nothing here.

#[cfg(feature = "steps")]
mod watched {
    use std::cell::RefCell;

    /// Sees each step that is done.
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
            // What a watcher does is not watched.
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

/// A step is done.
#[cfg(not(feature = "steps"))]
pub(crate) const fn done(_what: &'static str) {}
