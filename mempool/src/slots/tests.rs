use super::*;

#[cfg(not(loom))]
#[test]
fn every_slot_is_claimed_once_and_comes_back() {
    let registry = Registry::new();
    let slots: Vec<_> = std::iter::from_fn(|| registry.claim_any()).collect();
    assert_eq!(slots, (0..SLOTS).collect::<Vec<_>>());
    assert!(!registry.claim(5));
    assert_eq!(registry.abandoned().count(), 0);
    [5, 64, 127].into_iter().for_each(|slot| registry.release(slot));
    assert_eq!(registry.abandoned().collect::<Vec<_>>(), [5, 64, 127]);
    assert!(registry.claim(64));
    assert_eq!(
        (registry.claim_any(), registry.claim_any(), registry.claim_any()),
        (Some(5), Some(127), None)
    );
}

#[cfg(not(loom))]
#[test]
fn a_thread_keeps_its_slot_until_it_ends() {
    std::thread::spawn(|| {
        assert_eq!(current(), NO_SLOT);
        let slot = enter().unwrap();
        assert_eq!((enter(), current()), (Some(slot), slot));
        assert!(!THREADS.claim(slot));
    })
    .join()
    .unwrap();
}

#[cfg(loom)]
mod interleaved {
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    /// Two threads want the same slot, one by number (adoption) and one by starting: what the first owner left in the
    /// row is seen by the next, and never by both at once.
    #[test]
    fn a_row_has_one_owner_and_is_handed_over_whole() {
        crate::sync::model(|| {
            let shared = Arc::new((Registry::new(), UnsafeCell::new(0)));
            assert!(shared.0.claim(0));
            // SAFETY: the slot is claimed.
            shared.1.with_mut(|row| unsafe { *row = 1 });
            let other = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    for slot in shared.0.abandoned().collect::<Vec<_>>() {
                        if shared.0.claim(slot) {
                            // SAFETY: claimed.
                            shared.1.with_mut(|row| unsafe { *row += 1 });
                            shared.0.release(slot);
                        }
                    }
                })
            };
            shared.0.release(0);
            if shared.0.claim(0) {
                // SAFETY: claimed.
                shared.1.with_mut(|row| unsafe { *row += 1 });
                shared.0.release(0);
            }
            other.join().unwrap();
            assert!(shared.0.claim(0));
            // SAFETY: claimed.
            shared.1.with(|row| assert!(matches!(unsafe { *row }, 2 | 3)));
        });
    }
}
