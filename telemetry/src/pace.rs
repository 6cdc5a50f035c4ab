//! Limits the processor time of threads that answer requests, in favour of threads that move packets.

use std::time::{Duration, Instant};

/// The longest sleep, so that the pause after a slow answer does not look like a failure.
const LONGEST: Duration = Duration::from_millis(100);
/// A sleep lasts this many times as long as the work before.
const SHARE: u32 = 4;

/// Runs `work`, then sleeps four times as long as it took: however frequent the requests, they use a fifth of
/// a core.
pub(crate) fn paced<T>(work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    std::thread::sleep((start.elapsed() * SHARE).min(LONGEST));
    result
}
