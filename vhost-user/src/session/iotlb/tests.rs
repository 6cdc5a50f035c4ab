use std::os::fd::AsFd;

use linecard_wire::payload::MemoryRegion;

use super::*;
use crate::limits::Ledger;
use crate::memory::Region;

const USER: u64 = 0x7000_0000_0000;
const WANT: Want = (8 * PAGE, Access::Read);

fn map() -> Arc<MemoryMap> {
    let file = rustix::fs::memfd_create("translations", rustix::fs::MemfdFlags::CLOEXEC).expect("a file");
    rustix::fs::ftruncate(&file, PAGE).expect("room");
    let spec = MemoryRegion { guest_addr: 0, size: PAGE, user_addr: USER, offset: 0 };
    let region = Region::map(spec, file.as_fd(), None, &Ledger::alone()).expect("mapped");
    MemoryMap::new(vec![Arc::new(region)])
}

/// A poller may look before a translation is told, and note afterwards that it missed it. The driver takes the page back when the
/// poller has used it; from then on it would be a fault to ask.
#[test]
fn what_was_missed_too_late_is_not_asked_for_when_it_is_taken_back() {
    let map = map();
    let mut translations = Translations::new(&map, 1);
    let misses = Arc::clone(&translations.rings[0].misses);
    let told =
        IotlbMessage { iova: WANT.0, size: PAGE, user_addr: USER, access: 1, kind: IotlbMessage::UPDATE };
    translations.update(Entry::new(&told, &map).expect("inside"));
    assert!(misses.note(WANT), "the control thread is to be woken");
    let generation = translations.iotlb.table().generation();
    translations.take_back((WANT.0, WANT.0 + PAGE - 1));
    translations.look_for_misses();
    assert_eq!(translations.rings[0].missing, None);
    assert_ne!(translations.iotlb.table().generation(), generation);
    // Also when nothing was told there: whoever waits for it looks again.
    let generation = translations.iotlb.table().generation();
    misses.note(WANT);
    translations.take_back((WANT.0 + PAGE - 1, u64::MAX));
    assert_eq!(translations.rings[0].missing, None);
    assert_ne!(translations.iotlb.table().generation(), generation);
    misses.note(WANT);
    translations.take_back((WANT.0 + PAGE, u64::MAX));
    assert_eq!(translations.rings[0].missing, Some(WANT), "another page");
}
