use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use linecard_wire::payload::MemoryRegion;
use proptest::prelude::*;

use super::*;
use crate::limits::Ledger;
use crate::memory::Region;

const USER: u64 = 0x7000_0000_0000;
const PAGES: u64 = 16;

fn map() -> Arc<MemoryMap> {
    let file = rustix::fs::memfd_create("iotlb", rustix::fs::MemfdFlags::CLOEXEC).expect("a file");
    rustix::fs::ftruncate(&file, PAGES * PAGE).expect("room");
    let spec = MemoryRegion { guest_addr: 0, size: PAGES * PAGE, user_addr: USER, offset: 0 };
    let region = Region::map(spec, file.as_fd(), None, &Ledger::alone()).expect("mapped");
    MemoryMap::new(vec![Arc::new(region)])
}

fn told(iova: u64, size: u64, user_addr: u64, access: u8) -> IotlbMessage {
    IotlbMessage { iova, size, user_addr, access, kind: IotlbMessage::UPDATE }
}

fn entry(map: &MemoryMap, page: u64, pages: u64, to: u64, access: u8) -> Entry {
    Entry::new(&told(page * PAGE, pages * PAGE, USER + to * PAGE, access), map).expect("inside")
}

#[test]
fn what_is_told_is_checked() {
    let map = map();
    let refused = |message: IotlbMessage| match Entry::new(&message, &map) {
        Err(Refusal::Translation { problem, .. }) => problem,
        other => panic!("{other:?}"),
    };
    let all = PAGES * PAGE;
    assert_eq!(refused(told(0, 0, USER, 3)), "it has no bytes");
    assert_eq!(refused(told(u64::MAX, 2, USER, 3)), "it goes beyond the last address");
    assert_eq!(refused(told(2, u64::MAX, USER, 3)), "it goes beyond the last address");
    for access in [0, 4, 0xff] {
        assert_eq!(refused(told(0, PAGE, USER, access)), "it allows neither reading nor writing");
    }
    for (user, size) in [
        (USER - 1, PAGE),
        (USER + 1, all),
        (USER + all, 1),
        (u64::MAX, 2),
        (USER, u64::MAX),
        (0, PAGE),
        (USER, all + 1),
    ] {
        assert_eq!(refused(told(0, size, user, 3)), "it leads outside of the shared memory");
    }
    let last = Entry::new(&told(u64::MAX - PAGE + 1, PAGE, USER + all - PAGE, 1), &map)
        .expect("it ends where all ends");
    assert_eq!(last.last, u64::MAX);
    let mut iotlb = Iotlb::new(&map);
    iotlb.update(last);
    let found = iotlb.table().find(u64::MAX, 1, Access::Read);
    assert!(matches!(found, Found::Here(_, 1)), "{found:?}");
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Update { page: u64, pages: u64, to: u64, access: u8 },
    Remove { page: u64, pages: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pages = 1..4u64;
    let update = (0..24u64, pages.clone(), 0..PAGES - 3, 1..=3u8)
        .prop_map(|(page, pages, to, access)| Step::Update { page, pages, to, access });
    let remove = (0..24u64, pages).prop_map(|(page, pages)| Step::Remove { page, pages });
    prop::collection::vec(prop_oneof![3 => update, 1 => remove], 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 8 } else { 256 }, ..ProptestConfig::default() })]

    /// No page leads anywhere but where it was told last, and none that was taken back leads anywhere.
    #[test]
    fn no_page_leads_where_it_was_not_told(steps in steps()) {
        let map = map();
        let mut iotlb = Iotlb::new(&map);
        // What each page may lead to; there may be less in the table, because entries go as a whole.
        let mut model = BTreeMap::new();
        for step in steps {
            match step {
                Step::Update { page, pages, to, access } => {
                    iotlb.update(entry(&map, page, pages, to, access));
                    model.extend((0..pages).map(|n| (page + n, (to + n, access))));
                    for n in 0..pages {
                        let found = iotlb.table().find((page + n) * PAGE, 1, if access & 1 != 0 { Access::Read } else { Access::Write });
                        prop_assert!(matches!(found, Found::Here(..)), "what was told last is there");
                    }
                }
                Step::Remove { page, pages } => {
                    iotlb.remove(page * PAGE, (page + pages) * PAGE - 1);
                    (0..pages).for_each(|n| { model.remove(&(page + n)); });
                }
            }
            for pair in iotlb.entries().windows(2) {
                prop_assert!(pair[0].last < pair[1].first, "sorted and apart");
            }
            for page in 0..30 {
                for access in [Access::Read, Access::Write] {
                    match (iotlb.table().find(page * PAGE + 5, 3 * PAGE, access), model.get(&page)) {
                        (Found::Missing, _) => {}
                        (Found::Here(..), None) => prop_assert!(false, "page {} was not told", page),
                        (Found::Here(place, len), Some((to, allowed))) => {
                            prop_assert_eq!(Some(place), map.translate_user(USER + to * PAGE + 5, 1));
                            prop_assert!(allowed & Allowed::to(access).bits() != 0);
                            // All of it in one piece, as told.
                            for n in 0..(len + 5).div_ceil(PAGE) {
                                let told = model.get(&(page + n)).map(|(to, allowed)| (*to, allowed & Allowed::to(access).bits() != 0));
                                prop_assert_eq!(told, Some((to + n, true)));
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_port_keeps_so_many_and_no_more() {
    let map = map();
    let mut iotlb = Iotlb::new(&map);
    for n in 0..3 * MOST as u64 {
        // Every other page, so that none of them is one with its neighbour; back and forth, so that none is always the last.
        let page = if n % 2 == 0 { n * 2 } else { 1_000_000 - n * 2 };
        let new = entry(&map, page, 1, n % PAGES, 3);
        assert!(!iotlb.update(new), "nobody took anything back");
        assert!(iotlb.entries().len() <= MOST);
        assert!(
            matches!(iotlb.table().find(page * PAGE, PAGE, Access::Write), Found::Here(place, PAGE) if place == new.start)
        );
    }
    assert_eq!(iotlb.entries().len(), MOST);
    // The very same again, or a part of it, changes nothing; what is told otherwise takes its place.
    let page = iotlb.entries()[7].first / PAGE;
    let generation = iotlb.table().generation();
    assert!(!iotlb.update(iotlb.entries()[7]));
    assert_eq!(iotlb.table().generation(), generation);
    assert!(iotlb.update(entry(&map, page, 1, 1, 1)) || iotlb.update(entry(&map, page, 1, 2, 1)));
    iotlb.remove(0, u64::MAX);
    assert_eq!(iotlb.entries().len(), 0);
    assert_eq!(iotlb.table().find(page * PAGE, 1, Access::Read), Found::Missing);
}

/// Whoever looks while translations change finds one that was told, or none.
#[test]
#[cfg_attr(miri, ignore = "many thousand looks")]
fn a_reader_never_sees_half_a_change() {
    let map = map();
    let mut iotlb = Iotlb::new(&map);
    let (table, over) = (Arc::clone(iotlb.table()), AtomicBool::new(false));
    let base = map.translate_user(USER, 1).expect("mapped").as_ptr().addr() as u64;
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut found = 0_u32;
            while !over.load(Ordering::Relaxed) || found == 0 {
                for page in 0..40 {
                    if let Found::Here(place, len) = table.find(page * PAGE, PAGE, Access::Write) {
                        found += 1;
                        // Page n leads to n or n + 1, modulo what there is.
                        let to = (place.as_ptr().addr() as u64 - base) / PAGE;
                        assert!(to == page % 8 || to == page % 8 + 1, "page {page} to {to}");
                        assert_eq!(len, PAGE);
                    }
                }
            }
        });
        for round in 0..20_000_u64 {
            let page = round * 7 % 40;
            match round % 3 {
                0 => iotlb.remove(page * PAGE, (page + 1) * PAGE - 1),
                n => drop(iotlb.update(entry(&map, page, 1, page % 8 + n - 1, 3))),
            }
        }
        iotlb.update(entry(&map, 3, 1, 3, 3));
        over.store(true, Ordering::Relaxed);
        reader.join().expect("no panic");
    });
}
