//! Log lines about a port's backend, limited in number: the backend causes them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use linecard_wire::rate::PortRate;

/// Logs a line about the backend of a port at a level (`INFO`), unless the port's limit is reached. Lines that
/// are disabled do not count.
macro_rules! tell {
    ($log:expr, $level:ident, $($what:tt)+) => {
        if tracing::enabled!(tracing::Level::$level) && $log.allows(std::time::Instant::now()) {
            tracing::event!(tracing::Level::$level, "{}: {}", $log.port(), format_args!($($what)+));
        }
    };
}
pub(crate) use tell;

/// The log lines about one port's backend.
#[derive(Debug)]
pub(crate) struct PortLog {
    port: String,
    lines: PortRate,
    /// Lines that were left out and have not been reported yet.
    left_out: AtomicU64,
    /// The last reason why there is no backend.
    last: Mutex<String>,
}

impl PortLog {
    pub(crate) fn new(port: &str, lines: PortRate) -> Self {
        Self { port: port.to_owned(), lines, left_out: AtomicU64::new(0), last: Mutex::default() }
    }

    /// A log of a test, with as many lines as there are.
    #[cfg(all(test, feature = "pci"))]
    pub(crate) fn unlimited() -> Self {
        use linecard_wire::rate::{Rate, SharedRate};
        let all = Rate { per_second: u32::MAX, burst: u32::MAX };
        Self::new("net_virtio_user0", SharedRate::new(all).port(all))
    }

    pub(crate) fn port(&self) -> &str {
        &self.port
    }

    /// Counts a line, and returns whether it may be written. Before the first line after some that could not be
    /// written, reports their number.
    pub(crate) fn allows(&self, now: Instant) -> bool {
        if !self.lines.allows(now) {
            self.left_out.fetch_add(1, Relaxed);
            return false;
        }
        self.lines.spend(1);
        let left_out = self.left_out.swap(0, Relaxed);
        if left_out > 0 {
            tracing::warn!("{}: {left_out} lines about its backend are missing here (log_lines)", self.port);
        }
        true
    }

    /// Allows the last reason again: a backend has connected, so the next loss is news.
    pub(crate) fn forget(&self) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Returns whether `reason` differs from the last one. An absent backend is tried often.
    pub(crate) fn is_news(&self, reason: &str) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let news = *last != reason;
        if news {
            reason.clone_into(&mut last);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use linecard_wire::rate::{Rate, SharedRate};

    use super::*;

    #[test]
    fn a_reason_is_said_once_and_a_flood_is_not() {
        let rate = Rate { per_second: 1, burst: 10 };
        let log = PortLog::new("port", SharedRate::new(rate).port(rate));
        assert!(log.is_news("gone") && !log.is_news("gone"), "nothing new");
        log.forget();
        assert!(log.is_news("gone"), "after there was one");
        let start = Instant::now();
        let flood = |now| (0..1000).filter(|_| log.allows(now)).count();
        assert_eq!(flood(start), 10);
        assert_eq!(flood(start + Duration::from_secs(3)), 3, "one more for each second");
    }

    /// No port writes lines for all, and none is kept from writing a few.
    #[test]
    fn ports_share_the_lines_of_the_process() {
        let lines = SharedRate::new(Rate { per_second: 20, burst: 200 });
        let rate = Rate { per_second: 100, burst: 1000 };
        let logs: Vec<_> = (0..100).map(|n| PortLog::new(&format!("port{n}"), lines.port(rate))).collect();
        let (quiet, noisy) = logs.split_last().expect("some");
        let start = Instant::now();
        let flood = |now| noisy.iter().map(|log| (0..100).filter(|_| log.allows(now)).count()).sum::<usize>();
        let all: usize = (0..100).map(|second| flood(start + Duration::from_secs(second))).sum();
        // A hundred seconds with twenty lines each, and two bursts.
        assert!((1900..=2400).contains(&all), "{all}");
        assert!(quiet.allows(start + Duration::from_secs(99)));
    }
}
