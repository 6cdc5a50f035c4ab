use std::cell::RefCell;
use std::sync::Arc;

use super::*;
use crate::{Burst, Pool, PoolConfig};

thread_local! {
    static SEEN: RefCell<Vec<Violation>> = const { RefCell::new(Vec::new()) };
}

fn keep(violation: &Violation) {
    SEEN.with_borrow_mut(|seen| seen.push(violation.clone()));
}

fn pool(report: Option<fn(&Violation)>) -> Pool {
    let config =
        PoolConfig { packets: 4, data_room: 100, headroom: 28, debug: true, report, ..PoolConfig::default() };
    Pool::on_heap(&Arc::new(()), config).unwrap()
}

/// The one violation reported since the last call.
fn seen(pool: &Pool) -> Violation {
    let mut seen = SEEN.take();
    assert_eq!((seen.len(), pool.stats().violations), (1, 1), "{seen:?}");
    seen.remove(0)
}

fn is_here(site: Site, line: u32) {
    let site = site.expect("a call site");
    assert!(site.file().ends_with("debug/tests.rs"));
    assert_eq!(site.line(), line);
}

#[test]
fn double_free_names_both_returns_and_the_get() {
    let pool = pool(Some(keep));
    let (packet, got) = (pool.get().unwrap().into_raw(), line!());
    // SAFETY: ours.
    unsafe { pool.put_raw(&[packet]) };
    let first = line!() - 1;
    // SAFETY: wrong, and found.
    unsafe { pool.put_raw(&[packet]) };
    let second = line!() - 1;
    let violation = seen(&pool);
    assert_eq!((violation.kind, violation.packet), (ViolationKind::DoubleFree, Some(0)));
    is_here(violation.site, second);
    is_here(violation.last_put, first);
    is_here(violation.last_get, got);
    assert!(violation.to_string().contains(&format!("debug/tests.rs:{second}")));
    assert_eq!(
        std::iter::from_fn(|| pool.get()).collect::<Vec<_>>().len(),
        4,
        "it did not enter the pool twice"
    );
}

#[test]
fn double_free_in_one_call_and_by_burst_is_found() {
    let pool = pool(Some(keep));
    let packet = pool.get().unwrap().into_raw();
    let mut burst = Burst::new();
    for _ in 0..2 {
        // SAFETY: wrong the second time, and found.
        burst.push(unsafe { crate::Packet::from_raw(packet) }).unwrap();
    }
    burst.clear();
    let line = line!() - 1;
    let violation = seen(&pool);
    assert_eq!(violation.kind, ViolationKind::DoubleFree);
    is_here(violation.site, line);
}

#[test]
fn foreign_free_is_found_and_kept_out() {
    let (pool, other) = (pool(Some(keep)), pool(None));
    let packet = other.get().unwrap().into_raw();
    // SAFETY: wrong, and found.
    unsafe { pool.put_raw(&[packet]) };
    let line = line!() - 1;
    let violation = seen(&pool);
    assert_eq!((violation.kind, violation.packet), (ViolationKind::ForeignFree, None));
    is_here(violation.site, line);
    // SAFETY: right this time.
    drop(unsafe { crate::Packet::from_raw(packet) });
    assert_eq!((pool.stats().free, other.stats().free), (4, 4));
}

#[test]
fn a_clone_returned_raw_is_found() {
    let pool = pool(Some(keep));
    let mut packet = pool.get().unwrap();
    let clone = packet.clone_ref().unwrap().into_raw();
    // SAFETY: wrong, and found.
    unsafe { pool.put_raw(&[clone]) };
    assert_eq!(seen(&pool).kind, ViolationKind::NotPlain);
    // SAFETY: right this time.
    drop(unsafe { crate::Packet::from_raw(clone) });
    drop(packet);
    assert_eq!(pool.stats().free, 4);
}

#[test]
fn writes_past_either_end_are_found() {
    for (offset, kind) in [
        (100, ViolationKind::Overrun(1)),
        (107, ViolationKind::Overrun(8)),
        (-29, ViolationKind::Underrun(1)),
    ] {
        let pool = pool(Some(keep));
        let packet = pool.get().unwrap();
        let got = line!() - 1;
        // SAFETY: wrong: outside the buffer; inside the pool's memory, though.
        unsafe { packet.data_ptr().wrapping_offset(offset).write(0) };
        packet.free();
        let line = line!() - 1;
        let violation = seen(&pool);
        assert_eq!(violation.kind, kind);
        is_here(violation.site, line);
        is_here(violation.last_get, got);
        assert_eq!(pool.stats().free, 4);
        // The guards are whole again.
        drop(std::iter::from_fn(|| pool.get()).collect::<Vec<_>>());
        assert_eq!(pool.stats().violations, 1);
    }
}

#[test]
fn writes_after_free_are_found() {
    let pool = pool(Some(keep));
    let packet = pool.get().unwrap();
    let data = packet.data_ptr();
    packet.free();
    let line = line!() - 1;
    // SAFETY: wrong: no longer ours.
    unsafe { data.wrapping_add(3).write(0) };
    drop(pool.get());
    let violation = seen(&pool);
    assert_eq!(violation.kind, ViolationKind::UseAfterFree(31));
    is_here(violation.last_put, line);
}

#[test]
fn without_a_report_the_thread_panics_with_the_place() {
    let pool = pool(None);
    let packet = pool.get().unwrap().into_raw();
    // SAFETY: ours.
    unsafe { pool.put_raw(&[packet]) };
    let again = std::panic::AssertUnwindSafe(|| {
        // SAFETY: wrong, and found.
        unsafe { pool.put_raw(&[packet]) }
    });
    let panic = std::panic::catch_unwind(again).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(message.contains("returned twice: found at") && message.contains("debug/tests.rs"), "{message}");
}

#[test]
fn correct_use_is_quiet() {
    let pool = pool(None);
    for _ in 0..10 {
        let mut packet = pool.get().unwrap();
        packet.append(100).unwrap().fill(7);
        packet.prepend(28).unwrap().fill(8);
        let mut clone = packet.clone_ref().unwrap();
        clone.data_mut().unwrap()[0] = 1;
        drop((packet, clone));
    }
    assert_eq!((pool.stats().violations, pool.stats().free), (0, 4));
}
