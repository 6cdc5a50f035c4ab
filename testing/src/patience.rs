//! Waiting for what another thread, process or the kernel does, with an end to it.

use std::thread;
use std::time::{Duration, Instant};

use crossbeam::utils::Backoff;

/// How long a test waits for anything: longer than anything takes on a busy machine, for only a failure waits so long.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between attempts, when the first ones were in vain: short enough for bursts of packets to go on, long enough to leave
/// the core to whoever is waited for.
const PAUSE: Duration = Duration::from_micros(50);

/// Calls `step` until it gives something.
///
/// ```
/// use linecard_testing::wait_for;
/// let (sender, receiver) = std::sync::mpsc::channel();
/// std::thread::spawn(move || sender.send(7));
/// assert_eq!(wait_for("a number", || receiver.try_recv().ok()), 7);
/// ```
///
/// # Panics
/// [`PATIENCE`] was in vain; with `what`.
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

/// Calls `done` until it is true.
///
/// ```
/// use linecard_testing::wait_until;
/// let work = std::thread::spawn(|| ());
/// wait_until("the end of the thread", || work.is_finished());
/// ```
///
/// # Panics
/// As [`wait_for`].
#[track_caller]
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    wait_for(what, || done().then_some(()));
}
