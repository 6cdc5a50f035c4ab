//! The gate under loom: every interleaving of a visitor and a keeper. The fences are full ones here; that the cheap
//! side may be a compiler fence when the dear side is `membarrier(2)` is the kernel's promise.

#[allow(dead_code, unreachable_pub, reason = "the room uses all of it, this test a part")]
#[path = "../src/gate.rs"]
mod gate;

mod sync {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{AtomicBool, Ordering, fence};

    pub(crate) fn remote_barriers() -> bool {
        false
    }
    pub(crate) fn light_fence(_remote: bool) {
        fence(Ordering::SeqCst);
    }
    pub(crate) fn heavy_fence(_remote: bool) {
        fence(Ordering::SeqCst);
    }
    pub(crate) fn pause(_turn: u32) {
        loom::thread::yield_now();
    }
}

/// Loom's cell panics when two threads are inside at once, or when one sees the other's writes too early.
#[test]
fn never_two_inside() {
    loom::model(|| {
        let (mut visitor, mut keeper) = gate::gate::<u32>();
        keeper.open(1);
        let worker = loom::thread::spawn(move || {
            visitor.enter(|value| *value += 1);
            visitor.enter(|value| *value += 1)
        });
        let first = keeper.close().expect("it was put inside");
        assert!((1..=3).contains(&first));
        worker.join().expect("no overlap");
        assert!(keeper.close().is_none());
    });
}

/// What a keeper puts inside is what the visitor finds.
#[test]
fn a_new_value_is_seen_whole() {
    loom::model(|| {
        let (mut visitor, mut keeper) = gate::gate::<(u32, u32)>();
        let worker = loom::thread::spawn(move || visitor.enter(|value| *value));
        keeper.open((7, 7));
        assert!(matches!(worker.join().expect("no overlap"), None | Some((7, 7))));
    });
}
