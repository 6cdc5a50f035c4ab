//! Every interleaving of the gate's two sides, on loom's atomics.

use crate::gate::{Controller, close_all, gate};

/// The value, when the poller is out.
fn hold<T>(controller: &mut Controller<T>) -> &mut T {
    while !close_all([&mut *controller]) {
        loom::thread::yield_now();
    }
    controller.value().expect("held")
}

#[test]
fn the_two_sides_exclude_each_other() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let (mut poller, mut controller) = gate([0u32, 0]);
        let thread = loom::thread::spawn(move || {
            for _ in 0..2 {
                if let Some(mut pair) = poller.enter() {
                    pair[0] += 1;
                    assert_eq!(pair[0], pair[1] + 1);
                    pair[1] += 1;
                }
            }
        });
        for _ in 0..2 {
            if close_all([&mut controller]) {
                let pair = controller.value().expect("held");
                assert_eq!(pair[0], pair[1]);
                pair[0] += 10;
                pair[1] += 10;
                controller.open();
            }
        }
        thread.join().expect("poller");
    });
}

#[test]
fn a_poller_that_comes_after_the_control_thread_sees_what_it_did() {
    loom::model(|| {
        let (mut poller, mut controller) = gate(0u32);
        let thread = loom::thread::spawn(move || poller.enter().map(|value| *value));
        let held = close_all([&mut controller]);
        if let Some(value) = controller.value() {
            *value = 7;
            controller.open();
        }
        let seen = thread.join().expect("poller");
        // It was in before, was kept out, or came after.
        assert!(matches!((held, seen), (_, None | Some(0)) | (true, Some(7))), "{held} {seen:?}");
    });
}

#[test]
fn what_is_taken_out_is_whole() {
    loom::model(|| {
        let (mut poller, mut controller) = gate(Some(1u32));
        let thread = loom::thread::spawn(move || {
            for _ in 0..2 {
                if let Some(mut inside) = poller.enter()
                    && let Some(value) = inside.as_mut()
                {
                    *value += 1;
                }
            }
        });
        let taken = hold(&mut controller).take().expect("it was put inside");
        assert!((1..=3).contains(&taken));
        thread.join().expect("poller");
        assert!(hold(&mut controller).is_none());
    });
}
