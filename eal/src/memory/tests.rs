//! Domains, segments and zones as their users see them.

mod kernel;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::thread;

use proptest::prelude::*;

use super::*;

const MIB: usize = 1 << 20;

fn memory(limit: Option<usize>) -> Memory {
    Memory::new(MemoryConfig::default().limit(limit)).unwrap()
}

fn domain() -> Arc<Domain> {
    memory(None).domain("test").unwrap()
}

fn contents(zone: &Zone) -> Vec<u8> {
    let mut bytes = vec![1; zone.len()];
    // SAFETY: `zone` outlives the call; no peer has it.
    unsafe { zone.bytes() }.copy_to(&mut bytes);
    bytes
}

fn fill(zone: &Zone, value: u8) {
    // SAFETY: `zone` outlives the call; no peer has it.
    unsafe { zone.bytes() }.fill(value);
}

/// Events of a domain as short words.
fn listen(domain: &Domain) -> (Arc<Mutex<Vec<String>>>, Subscription) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&events);
    let subscription = domain.subscribe(Box::new(move |event| {
        log.lock().unwrap().push(match event {
            SegmentEvent::Added(segment) => format!("+{}", segment.len() / MIB),
            SegmentEvent::Removed(segment) => format!("-{}", segment.len() / MIB),
        });
    }));
    (events, subscription)
}

#[test]
fn zones_are_zeroed_again_when_reused() {
    let domain = domain();
    let _keeps_segment = domain.zone("keep", 64, 64).unwrap();
    let first = domain.zone("first", 5000, 64).unwrap();
    let place = first.ptr();
    fill(&first, 0xff);
    drop(first);
    let second = domain.zone("second", 5000, 64).unwrap();
    assert_eq!(second.ptr(), place);
    assert!(contents(&second).iter().all(|byte| *byte == 0));
}

#[test]
fn growth_is_announced_before_the_zone_and_shrinking_after() {
    let domain = domain();
    let (events, subscription) = listen(&domain);
    let small = domain.zone("small", 100, 64).unwrap();
    assert_eq!(*events.lock().unwrap(), ["+2"]);
    let large = domain.zone("large", 5 * MIB, 64).unwrap();
    let other = domain.zone("shares its segment", 4096, 64).unwrap();
    assert_eq!(*events.lock().unwrap(), ["+2", "+6"]);
    drop(large);
    drop(other);
    assert_eq!(*events.lock().unwrap(), ["+2", "+6", "-6"]);
    drop(subscription);
    drop(small);
    assert_eq!(domain.trim(), 2 * MIB, "the last small segment was kept");
    assert_eq!(events.lock().unwrap().len(), 3);
}

#[test]
fn listeners_may_use_the_domain() {
    let domain = domain();
    let inner = Arc::new(Mutex::new(Vec::new()));
    let (weak, zones) = (Arc::downgrade(&domain), Arc::clone(&inner));
    let _subscription = domain.subscribe(Box::new(move |event| {
        let domain = weak.upgrade().unwrap();
        if let SegmentEvent::Added(segment) = event
            && segment.len() > 2 * MIB
        {
            assert!(domain.segments().iter().any(|known| Arc::ptr_eq(known, segment)));
            zones.lock().unwrap().push(domain.zone("from the listener", MIB, 64).unwrap());
            drop(domain.subscribe(Box::new(|_| ())));
        }
    }));
    let zone = domain.zone("outer", 3 * MIB, 64).unwrap();
    assert!(!Arc::ptr_eq(zone.segment(), inner.lock().unwrap()[0].segment()));
    inner.lock().unwrap().clear();
}

#[test]
fn a_removed_segment_lives_as_long_as_somebody_holds_it() {
    let memory = memory(None);
    let domain = memory.domain("test").unwrap();
    let zone = domain.zone("large", 4 * MIB, 64).unwrap();
    let (segment, place) = (Arc::clone(zone.segment()), zone.ptr());
    drop(zone);
    assert!(domain.segments().is_empty());
    assert_eq!(memory.usage().total(), 4 * MIB);
    let other = domain.zone("other", 4 * MIB, 64).unwrap();
    assert_ne!(other.ptr(), place, "the addresses are still taken");
    drop(segment);
    assert_eq!(memory.usage().total(), 4 * MIB);
    let third = domain.zone("third", 4 * MIB, 64).unwrap();
    assert_eq!(third.ptr(), place, "and free again now");
    assert!(contents(&third).iter().all(|byte| *byte == 0));
}

#[test]
fn reserve_makes_room_in_one_segment() {
    let domain = domain();
    domain.reserve(5 * MIB).unwrap();
    domain.reserve(3 * MIB).unwrap();
    assert_eq!(domain.segments().len(), 1, "the second one fits already");
    let zones: Vec<_> = (0..5).map(|_| domain.zone("part", MIB, 4096).unwrap()).collect();
    assert_eq!(domain.segments().len(), 1);
    drop(zones);
    assert_eq!(domain.segments().len(), 0, "used once, it goes like any other");
}

#[test]
fn alignment_is_kept() {
    let domain = domain();
    for align in [1, 64, 4096, 2 * MIB, 8 * MIB] {
        let zone = domain.zone("aligned", 1000, align).unwrap();
        assert_eq!(zone.ptr().as_ptr().addr() % align, 0);
        assert_eq!(zone.ptr().as_ptr().addr() % 64, 0, "never two zones on one line");
        assert_eq!(zone.offset(), (zone.ptr().as_ptr().addr() - zone.segment().addr().addr()) as u64);
    }
    assert_eq!(domain.base().addr() % (1 << 30), 0);
    for align in [0, 3, 2 << 30] {
        assert!(matches!(domain.zone("z", 1, align), Err(Error::Alignment { .. })), "{align}");
        assert!(matches!(PrivateZone::new(1, align), Err(Error::Alignment { .. })), "{align}");
    }
}

#[test]
fn the_limit_holds_for_all_domains_together() {
    let memory = memory(Some(8 * MIB));
    let (a, b) = (memory.domain("a").unwrap(), memory.domain("b").unwrap());
    let first = a.zone("first", 5 * MIB, 64).unwrap();
    let error = b.zone("second", 3 * MIB, 64).unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(error, Error::Limit { asked, left, limit } if (asked, left, limit) == (4 * MIB, 2 * MIB, 8 * MIB))
    );
    assert!(text.contains("4 MiB asked, 2 MiB of 8 MiB left") && text.contains("-m"), "{text}");
    let small = b.zone("third", 2 * MIB, 64).unwrap();
    drop((first, small));
    assert!(a.zone("all", 8 * MIB, 64).is_err(), "b keeps its small segment");
    b.trim();
    assert!(a.zone("all", 8 * MIB, 64).is_ok());
    assert_eq!(memory.usage(), Usage { limit: Some(8 * MIB), ..Usage::default() });
}

#[test]
fn empty_segments_make_room_before_the_limit_refuses() {
    let memory = memory(Some(8 * MIB));
    let domain = memory.domain("test").unwrap();
    drop(domain.zone("small", 100, 64).unwrap());
    assert_eq!(memory.usage().total(), 2 * MIB);
    assert!(domain.zone("all", 8 * MIB, 64).is_ok());
}

#[test]
fn more_than_there_is_is_refused_in_one_sentence() {
    let memory = Memory::new(MemoryConfig::default().range(1 << 42)).unwrap();
    let domain = memory.domain("test").unwrap();
    let error = domain.zone("pool", 1 << 41, 64).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Unavailable { asked, .. } if asked == 1 << 41), "{text}");
    assert!(text.contains("2048 GiB asked") && text.contains("available") && !text.contains('\n'), "{text}");
    assert!(matches!(PrivateZone::new(1 << 41, 64), Err(Error::Unavailable { .. })));
    assert_eq!(memory.usage(), Usage::default(), "nothing is left of the attempt");
    assert!(domain.zone("small", 1, 1).is_ok());
}

#[test]
fn lengths_that_make_no_sense_are_refused() {
    let domain = domain();
    for len in [0, domain.range() + 1, isize::MAX as usize, usize::MAX] {
        assert!(matches!(domain.zone("z", len, 64), Err(Error::ZoneLength { .. })), "{len}");
        assert!(matches!(domain.reserve(len), Err(Error::ZoneLength { .. })), "{len}");
    }
    for len in [0, isize::MAX as usize, usize::MAX] {
        assert!(matches!(PrivateZone::new(len, 64), Err(Error::ZoneLength { .. })), "{len}");
    }
}

#[test]
fn a_full_range_is_named() {
    let memory = Memory::new(MemoryConfig::default().range(64 * MIB)).unwrap();
    let domain = memory.domain("narrow").unwrap();
    assert_eq!(domain.range(), 64 * MIB);
    let _half = domain.zone("half", 40 * MIB, 64).unwrap();
    let error = domain.zone("more", 40 * MIB, 64).unwrap_err();
    assert!(matches!(error, Error::Range { .. }), "{error}");
    assert_eq!(memory.usage().total(), 40 * MIB);
}

#[test]
fn hugepages_are_insisted_on() {
    let config = MemoryConfig::default().pages(PagePolicy::RequireHuge);
    let domain = Memory::new(config).unwrap().domain("test").unwrap();
    let asked = available::free_hugetlb(PageKind::Huge2M.bytes()) + (1 << 34);
    let error = domain.zone("pool", asked, 64).unwrap_err();
    assert!(matches!(error, Error::Hugepages { .. }), "{error}");
    assert!(error.to_string().contains("vm.nr_hugepages"), "{error}");
}

#[test]
fn memory_may_prefer_a_node() {
    let on = |node| Memory::new(MemoryConfig::default().node(node));
    let zone = on(available::nodes()[0]).unwrap().domain("test").unwrap().zone("z", 5000, 64).unwrap();
    assert!(contents(&zone).iter().all(|byte| *byte == 0));
    let error = on(4000).unwrap_err().to_string();
    assert!(error.contains("node 4000") && error.contains(&available::nodes()[0].to_string()), "{error}");
}

#[test]
fn the_ladder_starts_where_the_request_fills_the_page() {
    use PageKind::{Huge1G, Huge2M, Small, Transparent};
    let ladder = |policy: PagePolicy, len| policy.ladder(len).collect::<Vec<_>>();
    assert_eq!(ladder(PagePolicy::Auto, MIB), [Huge2M, Transparent, Small]);
    assert_eq!(ladder(PagePolicy::Auto, 1 << 30), [Huge1G, Huge2M, Transparent, Small]);
    assert_eq!(ladder(PagePolicy::Auto, (1 << 30) + MIB), [Huge2M, Transparent, Small], "1023 MiB wasted");
    assert_eq!(ladder(PagePolicy::RequireHuge, 7 << 29), [Huge1G, Huge2M]);
    assert_eq!(ladder(PagePolicy::NoHuge, 1 << 30), [Small]);
}

#[test]
fn private_memory_is_zeroed_aligned_and_writable() {
    for (len, align) in [(1, 1), (100, 64), (5000, 4096), (3 * MIB, 64), (MIB, 8 * MIB)] {
        let zone = PrivateZone::new(len, align).unwrap();
        let align = if len >= 2 * MIB { align.max(2 * MIB) } else { align };
        assert_eq!((zone.len(), zone.ptr().as_ptr().addr() % align), (len, 0));
        // SAFETY: the zone's own bytes, which nobody else has.
        let bytes = unsafe { std::slice::from_raw_parts_mut(zone.ptr().as_ptr(), len) };
        assert!(bytes.iter().all(|byte| *byte == 0));
        bytes[len - 1] = 1;
    }
}

#[test]
fn domains_have_one_name_and_their_own_memory() {
    let memory = memory(None);
    let (a, b) = (memory.domain("a").unwrap(), memory.domain("b").unwrap());
    assert!(Arc::ptr_eq(&a, &memory.clone().domain("a").unwrap()));
    let (in_a, in_b) = (a.zone("z", 100, 64).unwrap(), b.zone("z", 100, 64).unwrap());
    assert!(a.contains(in_a.ptr().as_ptr(), 100) && !a.contains(in_b.ptr().as_ptr(), 100));
    assert!(!b.contains(in_a.ptr().as_ptr(), 100) && b.contains(in_b.ptr().as_ptr(), 100));
    let segment = in_a.segment();
    assert!(a.contains(segment.addr(), segment.len()) && !a.contains(segment.addr(), segment.len() + 1));
    assert!(!a.contains(a.base().wrapping_sub(1), 2) && !a.contains(segment.addr(), usize::MAX));
    drop(a);
    assert_eq!(contents(&in_a).len(), 100, "a zone keeps its domain");
    drop(in_a);
    assert_eq!(memory.usage().total(), 2 * MIB, "b's");
    assert_eq!(memory.domain("a").unwrap().segments().len(), 0, "made anew");
}

#[test]
fn threads_only_get_zones_of_announced_segments() {
    let memory = memory(None);
    let domain = memory.domain("test").unwrap();
    let known = Arc::new(Mutex::new(BTreeSet::new()));
    let log = Arc::clone(&known);
    let _subscription = domain.subscribe(Box::new(move |event| {
        if let SegmentEvent::Added(segment) = event {
            log.lock().unwrap().insert(segment.addr().addr());
        }
    }));
    thread::scope(|scope| {
        for thread in 1..=4 {
            let (domain, known) = (&domain, &known);
            scope.spawn(move || {
                for round in 1..40 {
                    let len = 1 + (round * 7919 * thread) % MIB;
                    let zone = domain.zone("z", len, 64).unwrap();
                    assert!(known.lock().unwrap().contains(&zone.segment().addr().addr()));
                    fill(&zone, thread as u8);
                    thread::yield_now();
                    assert!(contents(&zone).iter().all(|byte| *byte == thread as u8), "nobody else's");
                }
            });
        }
    });
    assert_eq!(memory.usage().zones, 0);
    domain.trim();
    assert_eq!(memory.usage(), Usage::default());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Zones of any size, made and dropped in any order: apart, inside, zeroed, intact; and everything adds up.
    #[test]
    fn zones_never_touch(ops in prop::collection::vec((1_usize..3 * MIB, 0_u32..14, any::<bool>()), 1..24)) {
        let memory = memory(None);
        let domain = memory.domain("test").unwrap();
        let mut zones: Vec<(Zone, u8)> = Vec::new();
        for (mark, (len, power, drop_one)) in (1..).zip(ops) {
            if drop_one && !zones.is_empty() {
                let (zone, mark) = zones.swap_remove(len % zones.len());
                prop_assert!(contents(&zone).iter().all(|byte| *byte == mark));
            }
            let zone = domain.zone("z", len, 1 << power).unwrap();
            prop_assert_eq!(zone.ptr().as_ptr().addr() % (1 << power), 0);
            prop_assert!(domain.contains(zone.ptr().as_ptr(), len));
            prop_assert!(contents(&zone).iter().all(|byte| *byte == 0));
            fill(&zone, mark);
            zones.push((zone, mark));
            let rooms: usize = zones.iter().map(|(zone, _)| zone.len().next_multiple_of(64)).sum();
            prop_assert_eq!(memory.usage().zones, rooms);
            let held: usize = domain.segments().iter().map(|segment| segment.len()).sum();
            prop_assert_eq!(memory.usage().total(), held);
        }
        for (zone, mark) in zones.drain(..) {
            prop_assert!(contents(&zone).iter().all(|byte| *byte == mark));
        }
        domain.trim();
        prop_assert_eq!(memory.usage(), Usage::default());
    }
}

#[test]
fn sizes_read_well() {
    for (bytes, text) in [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (18 * MIB, "18 MiB"),
        ((5 << 30) / 2, "2.5 GiB"),
        (usize::MAX, "17179869183.9 GiB"),
    ] {
        assert_eq!(size(bytes), text);
    }
}
