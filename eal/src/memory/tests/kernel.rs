//! What the kernel, children and peers see of a domain.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;

use super::*;

#[test]
fn segments_are_sealed_and_closed_on_exec() {
    let domain = domain();
    let zone = domain.zone("ring", 4096, 64).unwrap();
    let fd = zone.segment().fd();
    // SAFETY: takes integers only.
    let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
    let wanted = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    assert_eq!(seals & wanted, wanted);
    // SAFETY: takes integers only.
    assert_eq!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) } & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    // SAFETY: takes integers only.
    let added = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_WRITE) };
    assert_eq!(added, -1, "no further seals");
    let file = fs::File::from(fd.try_clone_to_owned().unwrap());
    assert_eq!(file.metadata().unwrap().len(), 2 * MIB as u64);
    assert!(file.set_len(4096).is_err() && file.set_len(4 * MIB as u64).is_err());
    let child = Command::new("ls").args(["-l", "/proc/self/fd"]).output().unwrap();
    let listing = String::from_utf8(child.stdout).unwrap();
    assert!(listing.contains("0 -> ") && !listing.contains("memfd"), "{listing}");
}

/// The flags of the mapping at `address`, from /proc/self/smaps.
fn vm_flags(address: usize) -> BTreeSet<String> {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in smaps.lines() {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let hex = |text| usize::from_str_radix(text, 16).ok();
        if let Some((Some(start), Some(end))) = range.map(|(start, end)| (hex(start), hex(end))) {
            inside = (start..end).contains(&address);
        } else if let (true, Some(flags)) = (inside, line.strip_prefix("VmFlags: ")) {
            return flags.split_whitespace().map(str::to_owned).collect();
        }
    }
    panic!("nothing mapped at {address:#x}");
}

#[test]
fn core_dumps_and_children_have_none_of_it() {
    let domain = domain();
    let zone = domain.zone("ring", 4096, 64).unwrap();
    let private = PrivateZone::new(3 * MIB, 64).unwrap();
    for address in [
        zone.ptr().as_ptr().addr(),
        private.ptr().as_ptr().addr(),
        private.ptr().as_ptr().addr() + 3 * MIB - 1,
    ] {
        let flags = vm_flags(address);
        assert!(flags.contains("dd") && flags.contains("dc"), "DONTDUMP and DONTFORK: {flags:?}");
    }
    assert!(!vm_flags((&raw const domain).addr()).contains("dd"), "the stack has no such flags");
}

/// Whether a forked child has the page at `ptr`.
fn child_has(ptr: *mut u8) -> bool {
    let page = ptr.map_addr(|address| address & !4095);
    let mut resident = 0_u8;
    // SAFETY: the child calls mincore and _exit only, both allowed after a fork of a threaded process.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: writes one byte to `resident`; a page that is not mapped is an error, not a fault.
        let result = unsafe { libc::mincore(page.cast(), 1, &mut resident) };
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(libc::c_int::from(result == 0)) };
    }
    let mut status = 0;
    // SAFETY: writes one integer to `status`.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert!(libc::WIFEXITED(status));
    libc::WEXITSTATUS(status) == 1
}

#[test]
fn a_forked_child_has_none_of_it() {
    let domain = domain();
    let zone = domain.zone("ring", 4096, 64).unwrap();
    let private = PrivateZone::new(4096, 64).unwrap();
    let mut ordinary = vec![0_u8; 8192];
    assert!(child_has(ordinary.as_mut_ptr()));
    assert!(!child_has(zone.ptr().as_ptr()));
    assert!(!child_has(private.ptr().as_ptr()));
    fill(&zone, 1);
    assert_eq!(contents(&zone)[0], 1, "and it is still here");
}

#[test]
fn a_peer_that_maps_the_file_sees_the_zone() {
    let domain = domain();
    let _before = domain.zone("before", 100, 64).unwrap();
    let zone = domain.zone("ring", 4096, 4096).unwrap();
    fill(&zone, 42);
    let segment = zone.segment();
    let file = fs::File::from(segment.fd().as_fd().try_clone_to_owned().unwrap());
    let peer = memmap2::MmapOptions::new().len(segment.len()).map_raw(&file).unwrap();
    assert_eq!((zone.offset(), segment.offset()), (4096, 0));
    let at = peer.as_mut_ptr().wrapping_add(4096);
    // SAFETY: inside the peer's mapping, which lives to the end of the test; nobody writes meanwhile.
    assert_eq!(unsafe { at.read() }, 42);
    // SAFETY: inside the peer's mapping, which lives to the end of the test; nobody else reads or writes meanwhile.
    unsafe { at.write(7) };
    assert_eq!(contents(&zone)[..2], [7, 42]);
}
