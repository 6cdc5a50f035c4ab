//! The page ladder with hugepages reserved and with transparent ones allowed. Changes two settings of the machine for
//! a moment, so it needs root; without, it says so, and fails when `LINECARD_REQUIRE_ALL` is set.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use linecard_eal::{Error, Memory, MemoryConfig, PageKind, PagePolicy};

const MIB: usize = 1 << 20;
const HUGE_2M: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";
const SHARED_THP: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

/// A setting changed until dropped.
struct Changed<'a> {
    path: &'a Path,
    before: String,
    after: String,
}

impl<'a> Changed<'a> {
    fn to(path: &'a str, value: &str) -> Option<Self> {
        let path = Path::new(path);
        let before = read(path)?;
        fs::write(path, value).ok()?;
        Some(Self { path, before, after: read(path)? })
    }
}

impl Drop for Changed<'_> {
    fn drop(&mut self) {
        // Whoever changed it meanwhile has the last word.
        if read(self.path).as_ref() == Some(&self.after)
            && let Err(error) = fs::write(self.path, &self.before)
        {
            eprintln!("cannot set {} back to {}: {error}", self.path.display(), self.before);
        }
    }
}

/// A setting; of those that show all choices, the current one, which is in brackets.
fn read(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let chosen = text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(chosen, _)| chosen);
    Some(chosen.unwrap_or(text.trim()).to_owned())
}

fn skip(what: &str) {
    linecard_testing::skip("the_best_pages_are_taken", &format!("{what} needed"));
}

fn memory(pages: PagePolicy) -> Memory {
    Memory::new(MemoryConfig::default().pages(pages)).unwrap()
}

fn free_pages() -> usize {
    let text = fs::read_to_string(format!("{HUGE_2M}/free_hugepages"));
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// One test, because both parts change what the other sees.
#[test]
fn the_best_pages_are_taken() {
    reserved_pages_are_used_until_they_are_gone();
    transparent_pages_are_used_where_allowed();
}

fn reserved_pages_are_used_until_they_are_gone() {
    let before: usize = fs::read_to_string("/proc/sys/vm/nr_hugepages").unwrap().trim().parse().unwrap();
    let wanted = (before + 64).to_string();
    let Some(_reserved) = Changed::to("/proc/sys/vm/nr_hugepages", &wanted) else { return skip("root is") };
    if free_pages() < 16 {
        return skip("32 MiB of hugepages are");
    }
    let memory = memory(PagePolicy::RequireHuge);
    let domain = memory.domain("huge").unwrap();
    let zone = domain.zone("pool", 7 * MIB, 64).unwrap();
    let segment = zone.segment();
    assert_eq!((segment.page(), segment.len()), (PageKind::Huge2M, 8 * MIB));
    assert_eq!(memory.usage().to_string(), "8 MiB of 2M hugepages, 7 MiB in use");
    assert_eq!(domain.page_kind(), Some(PageKind::Huge2M));
    let file = fs::File::from(segment.fd().as_fd().try_clone_to_owned().unwrap());
    assert_eq!(file.metadata().unwrap().blksize(), 2 << 20, "a hugetlb file");
    assert_eq!(file.metadata().unwrap().blocks() * 512, 8 << 20, "all pages are there");
    assert!(file.set_len(4 << 20).is_err() && file.set_len(16 << 20).is_err(), "sealed");

    let more = free_pages() * 2 * MIB + 2 * MIB;
    let error = domain.zone("more", more, 64).unwrap_err();
    assert!(matches!(error, Error::Hugepages { asked, .. } if asked == more), "{error}");
    assert!(domain.zone("as before", MIB, 64).is_ok());

    let auto = self::memory(PagePolicy::Auto).domain("auto").unwrap();
    // On a machine with many hugepages going past them takes too much memory for a test.
    if more <= 256 * MIB {
        assert_eq!(auto.zone("more", more, 64).unwrap().segment().page(), PageKind::Small, "down the ladder");
    }
    assert_eq!(auto.zone("fits", MIB, 64).unwrap().segment().page(), PageKind::Huge2M);
    let plain = self::memory(PagePolicy::NoHuge).domain("plain").unwrap();
    assert_eq!(plain.zone("fits", MIB, 64).unwrap().segment().page(), PageKind::Small);
}

fn transparent_pages_are_used_where_allowed() {
    let Some(_allowed) = Changed::to(SHARED_THP, "advise") else { return skip("root is") };
    let before = shared_huge();
    let domain = memory(PagePolicy::Auto).domain("transparent").unwrap();
    let zone = domain.zone("pool", 16 * MIB, 64).unwrap();
    if zone.segment().page().is_hugetlb() {
        eprintln!("hugepages are reserved on this machine: transparent ones are not tried");
        return;
    }
    assert_eq!(zone.segment().page(), PageKind::Transparent);
    assert!(shared_huge() > before, "the kernel did join pages");
}

/// Bytes of shared memory this process has mapped as hugepages.
fn shared_huge() -> usize {
    let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("ShmemPmdMapped:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
