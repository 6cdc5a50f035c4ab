//! Every interleaving of a poller that visits and a control thread that waits for its leaving, on loom's atomics.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::quiescence::visits;

/// Says that it was dropped.
struct Token(Arc<AtomicBool>);

impl Drop for Token {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn model(f: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(f);
}

/// When the token is dropped nobody uses what was there before the change; and it is dropped, also when the poller does not
/// come again.
#[test]
fn a_token_is_dropped_once_nobody_uses_what_was_there() {
    model(|| {
        let (mut poller, control) = visits();
        let mapping = Arc::new(AtomicU32::new(1));
        // What the poller writes through the mapping that it has found.
        let written = Arc::new(AtomicU32::new(0));
        let (seen, pages) = (Arc::clone(&mapping), Arc::clone(&written));
        let thread = loom::thread::spawn(move || {
            for _ in 0..2 {
                let _inside = poller.enter();
                if seen.load(Ordering::Relaxed) == 1 {
                    pages.store(pages.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                }
            }
        });
        mapping.store(0, Ordering::Relaxed);
        let left = Arc::new(AtomicBool::new(false));
        control.when_left(Token(Arc::clone(&left)));
        let after = left.load(Ordering::Acquire).then(|| written.load(Ordering::Relaxed));
        thread.join().expect("poller");
        assert!(left.load(Ordering::Acquire), "the token was left behind");
        if let Some(after) = after {
            assert_eq!(written.load(Ordering::Relaxed), after, "it was used behind the end");
        }
    });
}

/// Who is not seen inside has left for good as far as the old state is concerned: whatever comes later sees the change.
#[test]
fn a_poller_that_is_not_inside_sees_the_change() {
    model(|| {
        let (mut poller, control) = visits::<()>();
        let mapping = Arc::new(AtomicU32::new(1));
        let written = Arc::new(AtomicU32::new(0));
        let (seen, pages) = (Arc::clone(&mapping), Arc::clone(&written));
        let thread = loom::thread::spawn(move || {
            let _inside = poller.enter();
            if seen.load(Ordering::Relaxed) == 1 {
                pages.store(1, Ordering::Relaxed);
            }
        });
        mapping.store(0, Ordering::Relaxed);
        let after = (!control.is_inside()).then(|| written.load(Ordering::Relaxed));
        thread.join().expect("poller");
        assert!(
            after.is_none_or(|after| written.load(Ordering::Relaxed) == after),
            "it used what was there before"
        );
        assert!(!control.is_inside());
    });
}
