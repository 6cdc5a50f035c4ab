//! Translation against an oracle: a byte array per guest address.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use linecard_lab::{skip, wait_for};
use linecard_virtio::{Access, DeviceMemory};
use linecard_wire::payload::MemoryRegion;
use proptest::prelude::*;

use super::{MapLimits, MemoryMap, Region};
use crate::error::RegionError;
use crate::limits::{Ledger, Limits, Process, ProcessLimits};

const PAGE: u64 = 4096;

fn memfd(len: u64) -> OwnedFd {
    // SAFETY: the name is a terminated string; the result is a new descriptor.
    let fd = unsafe { libc::memfd_create(c"map".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0);
    // SAFETY: just made, nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    std::fs::File::from(fd.try_clone().expect("dup")).set_len(len).expect("len");
    fd
}

fn region(guest_addr: u64, size: u64) -> Arc<Region> {
    let spec = MemoryRegion { guest_addr, size, user_addr: guest_addr + (1 << 40), offset: 0 };
    Arc::new(Region::map(spec, memfd(size).as_fd(), None, &Ledger::alone()).expect("region"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_range_is_found_whole_in_part_or_not_at_all(
        gaps in prop::collection::vec((0u64..3, 1u64..4), 1..6),
        tries in prop::collection::vec((0u64..40 * PAGE, 0u32..20_000), 1..200),
    ) {
        let (mut at, mut regions) = (PAGE, Vec::new());
        for (gap, pages) in gaps {
            at += gap * PAGE;
            regions.push(region(at, pages * PAGE));
            at += pages * PAGE;
        }
        let specs: Vec<_> = regions.iter().map(|region| region.spec).collect();
        let map = MemoryMap::new(regions);
        for (addr, len) in tries {
            let home = specs.iter().find(|s| (s.guest_addr..s.guest_addr + s.size).contains(&addr));
            let room = home.map_or(0, |s| s.guest_addr + s.size - addr);
            let whole = home.is_some() && u64::from(len) <= room;
            prop_assert_eq!(map.translate(addr, len, Access::Read).is_some(), whole);
            let part = map.part(addr, len).map(|(_, part)| u64::from(part));
            let want = Some(room.min(u64::from(len))).filter(|part| *part > 0);
            prop_assert_eq!(part, want);
            // The same place from the frontend's side.
            if whole && len > 0 {
                let user = map.translate_user(addr + (1 << 40), u64::from(len));
                prop_assert_eq!(user, map.translate(addr, len, Access::Read));
            }
        }
    }
}

#[test]
fn ranges_at_the_end_of_the_address_space_do_not_wrap() {
    let map = MemoryMap::new(vec![region(PAGE, PAGE)]);
    for addr in [u64::MAX, u64::MAX - 1, u64::MAX - 4095, 0, PAGE - 1, 2 * PAGE] {
        for len in [1, 2, 4096, u32::MAX] {
            assert!(map.translate(addr, len, Access::Read).is_none(), "{addr:#x} {len}");
            assert!(map.part(addr, len).is_none(), "{addr:#x} {len}");
        }
    }
}

#[test]
fn too_much_memory_is_refused() {
    let spec = |guest_addr| MemoryRegion { guest_addr, size: PAGE, user_addr: guest_addr, offset: 0 };
    let specs = [spec(PAGE), spec(4 * PAGE)];
    assert!(MapLimits { total: 2 * PAGE, regions: 2 }.check(&specs).is_ok());
    let refused = MapLimits { total: PAGE, regions: 2 }.check(&specs);
    assert!(matches!(refused, Err(RegionError::Total { asked, max }) if asked == 2 * PAGE && max == PAGE));
}

/// Peers with as many regions as can be are refused before the kernel refuses us: a process that may not map anything any
/// more cannot allocate either, and ends.
#[test]
fn memory_that_cannot_be_watched_is_not_taken() {
    use super::sigbus::Alarm;
    let alarm = Alarm::new();
    let (spec, file) = (MemoryRegion { guest_addr: 0, size: PAGE, user_addr: 0, offset: 0 }, memfd(PAGE));
    // Many ports together, each with few.
    let process = Process::new(ProcessLimits::of_this_process());
    let ledgers: Vec<_> =
        (0..40).map(|_| Ledger::new(&process, "watched", 1, Limits::default()).expect("a thread")).collect();
    let map = || {
        let map = |ledger| Region::map(spec, file.as_fd(), Some(&alarm), ledger);
        ledgers.iter().map(map).find(Result::is_ok).unwrap_or_else(|| map(&ledgers[0]))
    };
    let mut all = Vec::new();
    let refused = loop {
        match map() {
            Ok(region) => all.push(region),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(refused, RegionError::Limit(limit) if limit.what == "memory regions"),
        "after {} regions: {refused}",
        all.len()
    );
    let mappings = std::fs::read_to_string("/proc/self/maps").expect("maps").lines().count();
    // `vm.max_map_count`, unless somebody raised it.
    assert!(mappings < 65_530 / 5 * 4, "{mappings} mappings of {} regions", all.len());
    drop(all);
    // They are unmapped by the ports' own threads.
    wait_for("room", || map().ok());
}

/// A file of as many huge pages, none of which is there; `None` where the kernel has none of that kind.
fn sparse(page_bits: u32, pages: u64) -> Option<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_HUGETLB | page_bits << libc::MFD_HUGE_SHIFT;
    // SAFETY: the name is a terminated string; the result is a new descriptor.
    let fd = unsafe { libc::memfd_create(c"sparse".as_ptr(), flags) };
    // SAFETY: just made, nobody else owns it.
    let fd = (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })?;
    std::fs::File::from(fd.try_clone().expect("dup")).set_len(pages << page_bits).expect("len");
    Some(fd)
}

/// To map what a peer shares reserves none of the machine's huge pages: there are not that many free.
#[test]
fn huge_pages_that_are_not_there_are_neither_reserved_nor_touched_at_once() {
    const MANY: u64 = 1 << 12;
    let Some(fd) = sparse(21, MANY) else {
        skip(
            "huge_pages_that_are_not_there_are_neither_reserved_nor_touched_at_once",
            "no huge pages of 2 MiB in this kernel",
        );
        return;
    };
    let spec = MemoryRegion { guest_addr: 0, size: MANY << 21, user_addr: 0, offset: 0 };
    let region = Arc::new(
        Region::map(spec, fd.as_fd(), None, &Ledger::alone()).expect("addresses are all that it takes"),
    );
    assert!(region.sparse);
    let ordinary = self::region(1 << 50, PAGE);
    assert!(!MemoryMap::new(vec![Arc::clone(&ordinary)]).is_sparse());
    assert!(MemoryMap::new(vec![region, ordinary]).is_sparse());
}

#[test]
fn gigantic_pages_that_are_not_there_are_refused() {
    let Some(fd) = sparse(30, 2) else {
        skip("gigantic_pages_that_are_not_there_are_refused", "no huge pages of 1 GiB in this kernel");
        return;
    };
    let spec = MemoryRegion { guest_addr: 0, size: 1 << 30, user_addr: 0, offset: 0 };
    let error = Region::map(spec, fd.as_fd(), None, &Ledger::alone())
        .err()
        .expect("too large to be made while packets wait");
    assert!(matches!(error, RegionError::Sparse { page: 0x4000_0000, there: 0 }), "{error}");
}

/// A device that has memory, as that of the kernel's virtio drivers, knows no seals. `/dev/zero` is one that every machine has.
#[test]
fn a_device_is_mapped_for_a_frontend_of_this_process_alone() {
    let device = std::fs::File::options().read(true).write(true).open("/dev/zero").expect("everybody may");
    let spec = MemoryRegion { guest_addr: 0x1000, size: PAGE, user_addr: 0, offset: 0 };
    let ledger = Ledger::alone();
    let refused = Region::map(spec, device.as_fd(), None, &ledger).err();
    assert!(matches!(refused, Some(RegionError::FileKind)), "{refused:?}");
    let region = Region::map_trusted(spec, device.as_fd(), None, &ledger).expect("it is mapped");
    let map = MemoryMap::new(vec![Arc::new(region)]);
    assert!(map.translate(0x1000, 4096, Access::Write).is_some());
    // What is memory is asked as ever.
    let far = MemoryRegion { offset: 1 << 30, ..spec };
    let refused = Region::map_trusted(far, memfd(PAGE).as_fd(), None, &ledger).err();
    assert!(matches!(refused, Some(RegionError::FileSize { .. })), "{refused:?}");
}
