//! Waiting for another thread, another process or the kernel, with a time limit.

use std::thread;
use std::time::{Duration, Instant};

use crossbeam::utils::Backoff;

/// The time limit of every wait in tests: longer than anything takes on a busy machine, because only failures
/// wait that long.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The pause between attempts after the first ones: short enough for a steady flow of packets, long enough to
/// leave the core to the awaited thread or process.
const PAUSE: Duration = Duration::from_micros(50);

/// Calls `step` until it returns a value.
///
/// ```
/// use linecard_testing::wait_for;
/// let (sender, receiver) = std::sync::mpsc::channel();
/// std::thread::spawn(move || sender.send(7));
/// assert_eq!(wait_for("a number", || receiver.try_recv().ok()), 7);
/// ```
///
/// # Panics
/// There was no value within [`PATIENCE`]; the message contains `what`.
#[track_caller]
pub fn wait_for<T>(what: &str, mut step: impl FnMut() -> Option<T>) -> T {
    let (start, backoff) = (Instant::now(), Backoff::new());
    loop {
        if let Some(done) = step() {
            return done;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        if backoff.is_completed() {
            thread::sleep(PAUSE);
        } else {
            backoff.snooze();
        }
    }
}

/// Calls `done` until it returns true.
///
/// ```
/// use linecard_testing::wait_until;
/// let work = std::thread::spawn(|| ());
/// wait_until("the end of the thread", || work.is_finished());
/// ```
///
/// # Panics
/// See [`wait_for`].
#[track_caller]
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    wait_for(what, || done().then_some(()));
}
