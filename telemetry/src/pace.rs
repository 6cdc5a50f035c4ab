//! How a thread that serves others stays out of the way of those that move packets.

use std::time::{Duration, Instant};

/// Most that a thread rests at once: an answer that took long is followed by a pause that nobody takes for a failure.
const LONGEST: Duration = Duration::from_millis(100);
/// Rests are this many times as long as the work before.
const SHARE: u32 = 4;

/// Runs `work`, then rests four times as long as it took: however fast somebody asks, a fifth of a core is spent on it.
pub(crate) fn paced<T>(work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    std::thread::sleep((start.elapsed() * SHARE).min(LONGEST));
    result
}
