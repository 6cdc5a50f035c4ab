//! What the kernel and the peers see of a domain.

use std::sync::{Arc, Mutex};

use super::*;

const MIB: usize = 1 << 20;

fn domain(config: MemoryConfig) -> Arc<Domain> {
    Memory::new(config).unwrap().domain("test").unwrap()
}

#[test]
fn zones_are_zeroed_again_when_reused() {
    let domain = domain(MemoryConfig::default());
    let _keeps_segment = domain.zone("keep", 64, 64).unwrap();
    let first = domain.zone("first", 5000, 64).unwrap();
    let place = first.ptr();
    // SAFETY: `first` is kept until after the call.
    unsafe { first.bytes() }.fill(0xff);
    drop(first);
    let second = domain.zone("second", 5000, 64).unwrap();
    assert_eq!(second.ptr(), place);
    let mut bytes = [1; 5000];
    // SAFETY: `second` is kept until after the call.
    unsafe { second.bytes() }.copy_to(&mut bytes);
    assert_eq!(bytes, [0; 5000]);
}

#[test]
fn growth_is_announced_before_the_zone_and_shrinking_after() {
    let domain = domain(MemoryConfig::default());
    let events = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&events);
    let subscription = domain.subscribe(Box::new(move |event| {
        log.lock().unwrap().push(match event {
            SegmentEvent::Added(s) => ("added", s.len() / MIB),
            SegmentEvent::Removed(s) => ("removed", s.len() / MIB),
        });
    }));
    let small = domain.zone("small", 100, 64).unwrap();
    assert_eq!(*events.lock().unwrap(), [("added", 2)]);
    let large = domain.zone("large", 5 * MIB, 64).unwrap();
    let other = domain.zone("shares its segment", 4096, 64).unwrap();
    assert_eq!(*events.lock().unwrap(), [("added", 2), ("added", 6)]);
    drop(large);
    drop(other);
    assert_eq!(*events.lock().unwrap(), [("added", 2), ("added", 6), ("removed", 6)]);
    drop(subscription);
    drop(small);
    assert_eq!(domain.trim(), 2 * MIB);
    assert_eq!(events.lock().unwrap().len(), 3);
}
