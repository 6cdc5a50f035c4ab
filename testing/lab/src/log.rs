//! The warnings and errors that a test causes in the log, as text.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Collects warnings and errors of the log, one line each: level, fields and message, in the order of the event.
///
/// ```
/// use linecard_lab::Log;
/// let log = Log::default();
/// let kept = log.of_this_thread(|| 7);
/// assert_eq!((kept, log.text().as_str()), (7, ""));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<String>>);

impl Log {
    /// Runs `work` and collects the events of this thread meanwhile.
    pub fn of_this_thread<T>(&self, work: impl FnOnce() -> T) -> T {
        tracing::subscriber::with_default(self.clone(), work)
    }

    /// Collects the events of all threads from now on: those of other tests in this process, too.
    ///
    /// # Panics
    /// It was called before.
    #[must_use]
    pub fn of_this_process() -> Self {
        let log = Self::default();
        tracing::subscriber::set_global_default(log.clone()).expect("the only log of this process");
        log
    }

    /// Returns what was logged so far.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The line of an event.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push_str(&line.0);
        all.push('\n');
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
