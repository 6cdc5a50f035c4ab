//! The gate with real threads; `tests/gate_loom.rs` has every interleaving.

use crate::gate::gate;
use crate::sync::Ordering;

#[test]
fn closed_and_empty_at_first_then_follows_its_keeper() {
    let (mut visitor, mut keeper) = gate::<u32>();
    assert_eq!(visitor.enter(|v| *v), None);
    assert_eq!(keeper.open(1), None);
    assert_eq!(visitor.enter(|v| std::mem::replace(v, 2)), Some(1));
    assert_eq!(keeper.open(3), Some(2));
    assert_eq!(keeper.close(), Some(3));
    assert_eq!(visitor.enter(|v| *v), None);
}

#[test]
fn a_panic_inside_leaves_the_gate_free() {
    let (mut visitor, mut keeper) = gate::<u32>();
    keeper.open(1);
    let caught =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| visitor.enter(|_| panic!("inside"))));
    assert!(caught.is_err());
    assert_eq!(keeper.close(), Some(1));
}

/// The value is a plain integer pair that only stays equal when nobody is inside at the same time.
#[test]
fn never_two_inside() {
    let (mut visitor, mut keeper) = gate::<(u64, u64)>();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let visited = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (seen, visit) = (stop.clone(), visited.clone());
    let worker = std::thread::spawn(move || {
        while !seen.load(Ordering::Relaxed) {
            let equal = visitor.enter(|v| {
                v.0 += 1;
                std::hint::black_box(&mut *v);
                v.1 += 1;
                v.0 == v.1
            });
            assert_ne!(equal, Some(false));
            if equal.is_some() {
                visit.store(true, Ordering::Relaxed);
            }
        }
    });
    for _ in 0..2000 {
        keeper.open((0, 0));
        std::hint::spin_loop();
        let (a, b) = keeper.close().expect("it was put inside");
        assert_eq!(a, b);
    }
    keeper.open((0, 0));
    // Ends when the worker gets in, or has died of an overlap.
    while !visited.load(Ordering::Relaxed) && !worker.is_finished() {
        std::thread::yield_now();
    }
    stop.store(true, Ordering::Relaxed);
    worker.join().expect("no overlap");
}
