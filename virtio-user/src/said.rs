//! Limits repeated log lines about a backend.

use std::time::{Duration, Instant};

/// The log lines allowed in a row; afterwards one per [`PAUSE`].
const LINES: u32 = 10;
const PAUSE: Duration = Duration::from_secs(1);

/// The last line of a port, and the number of recent ones.
#[derive(Debug, Default)]
pub(crate) struct Said {
    last: String,
    used: u32,
    since: Option<Instant>,
}

impl Said {
    /// Allows the last line again: a backend has connected, so the next loss is news.
    pub(crate) fn forget(&mut self) {
        self.last.clear();
    }

    /// Returns `text` unless it repeats the last line or there were too many lines recently.
    pub(crate) fn news(&mut self, text: String, now: Instant) -> Option<String> {
        if self.last == text {
            return None;
        }
        let since = *self.since.get_or_insert(now);
        let back = now.saturating_duration_since(since).as_secs() / PAUSE.as_secs();
        if back > 0 {
            self.used = self.used.saturating_sub(u32::try_from(back).unwrap_or(u32::MAX));
            self.since = Some(now);
        }
        if self.used >= LINES {
            return None;
        }
        self.used += 1;
        self.last.clone_from(&text);
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_said_once_and_a_flood_is_not() {
        let (mut said, start) = (Said::default(), Instant::now());
        assert!(said.news("gone".into(), start).is_some());
        assert_eq!(said.news("gone".into(), start), None, "nothing new");
        said.forget();
        assert!(said.news("gone".into(), start).is_some(), "after there was one");
        assert!(said.news("refused".into(), start).is_some());
        let told = (0..1000).filter(|i| said.news(format!("{i}"), start).is_some()).count();
        assert_eq!(told, 7, "ten in all");
        let later = start + Duration::from_secs(3);
        let told = (0..1000).filter(|i| said.news(format!("{i}"), later).is_some()).count();
        assert_eq!(told, 3, "one more for each second");
    }
}
