//! The gate with real threads and fences; `loom_tests` has every interleaving.

use crate::gate::{close_all, gate};

#[test]
fn the_two_sides_exclude_each_other_under_stress() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let rounds = if cfg!(miri) { 50 } else { 20_000 };
    let (mut poller, mut controller) = gate([0u64, 0]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if let Some(mut pair) = poller.enter() {
                    pair[0] += 1;
                    std::hint::black_box(&mut pair);
                    pair[1] += 1;
                } else {
                    std::thread::yield_now();
                }
            }
        });
        for _ in 0..rounds {
            while !close_all([&mut controller]) {
                std::thread::yield_now();
            }
            let pair = controller.value().expect("held");
            assert_eq!(pair[0], pair[1]);
            pair[0] = 0;
            pair[1] = 0;
            controller.open();
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn an_idle_poller_does_not_hold_up_the_control_thread() {
    let (mut poller, mut controller) = gate(1);
    assert!(controller.value().is_none());
    assert!(close_all([&mut controller]));
    assert!(poller.enter().is_none());
    *controller.value().expect("held") = 2;
    controller.open();
    assert_eq!(*poller.enter().expect("open"), 2);
}

#[test]
fn a_busy_poller_is_waited_for_without_blocking() {
    let (mut poller, mut controller) = gate(1);
    let mut inside = poller.enter().expect("open");
    assert!(!close_all([&mut controller]));
    assert!(controller.value().is_none());
    *inside = 5;
    drop(inside);
    assert!(close_all([&mut controller]));
    assert_eq!(controller.value(), Some(&mut 5));
}

#[test]
fn a_panic_inside_leaves_the_gate_free() {
    let (mut poller, mut controller) = gate(1);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _inside = poller.enter().expect("open");
        panic!("inside");
    }));
    assert!(caught.is_err());
    assert!(close_all([&mut controller]));
    assert_eq!(controller.value(), Some(&mut 1));
    controller.open();
    assert!(poller.enter().is_some());
}
