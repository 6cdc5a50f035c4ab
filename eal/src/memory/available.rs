//! The memory that can be allocated without triggering the out-of-memory killer.

use std::fs;
use std::path::Path;

use crate::error::Error;

/// The memory left to the rest of the machine or cgroup: this much, but at most an eighth of the total,
/// because a fixed amount could be all of a small cgroup.
const HEADROOM: usize = 32 << 20;
const SHARE: usize = 8;

/// The memory that this process may allocate, and the scope of that limit (the machine or a cgroup).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Available {
    pub(super) bytes: usize,
    pub(super) scope: String,
    /// The number of bytes left to others, not part of `bytes`.
    pub(super) reserve: usize,
}

impl Available {
    /// The available memory if `left` of `total` bytes are unused.
    fn of(left: usize, total: usize, scope: String) -> Self {
        let reserve = HEADROOM.min(total / SHARE);
        Self { bytes: left.saturating_sub(reserve), scope, reserve }
    }

    /// The error for a request of `asked` bytes, which exceeds this.
    pub(super) fn short_of(self, asked: usize) -> Error {
        let Self { bytes, scope, reserve } = self;
        Error::Unavailable { asked, available: bytes, reserve, scope }
    }
}

/// The minimum of what the machine and each enclosing memory cgroup have left; unlimited if nothing is known.
pub(super) fn available() -> Available {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name| meminfo_bytes(&text, name);
    let machine = field("MemAvailable:").zip(field("MemTotal:"));
    let machine = machine.map(|(left, total)| Available::of(left, total, "memory of the machine".into()));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let least = groups.lines().flat_map(cgroup_limits).chain(machine).min_by_key(|a| a.bytes);
    least.unwrap_or(Available { bytes: usize::MAX, scope: "unknown".into(), reserve: 0 })
}

/// The memory of the machine; unlimited if unknown.
pub(super) fn total() -> usize {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    meminfo_bytes(&text, "MemTotal:").unwrap_or(usize::MAX)
}

/// The free hugetlb pages of this size, in bytes.
pub(super) fn free_hugetlb(page: usize) -> usize {
    let path = format!("/sys/kernel/mm/hugepages/hugepages-{}kB/free_hugepages", page >> 10);
    number(Path::new(&path)).unwrap_or(0).saturating_mul(page)
}

/// Whether shared memory can get transparent hugepages on request.
pub(super) fn transparent_shared() -> bool {
    fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
        .is_ok_and(|text| !text.contains("[never]") && !text.contains("[deny]"))
}

/// The NUMA nodes with memory; node 0 if the kernel lists none.
pub(super) fn nodes() -> Vec<u32> {
    let names =
        fs::read_dir("/sys/devices/system/node").into_iter().flatten().flatten().map(|e| e.file_name());
    let number = |name: std::ffi::OsString| name.to_str()?.strip_prefix("node")?.parse().ok();
    let mut nodes: Vec<u32> = names.filter_map(number).collect();
    nodes.sort_unstable();
    if nodes.is_empty() { vec![0] } else { nodes }
}

/// The memory left in each limited group, from the one in this line of `/proc/self/cgroup` up to the root.
fn cgroup_limits(line: &str) -> Vec<Available> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { return Vec::new() };
    let version_1 = controllers.split(',').any(|c| c == "memory");
    if !version_1 && !controllers.is_empty() {
        return Vec::new();
    }
    let root = Path::new(if version_1 { "/sys/fs/cgroup/memory" } else { "/sys/fs/cgroup" });
    let group = root.join(path.trim_start_matches('/'));
    group
        .ancestors()
        .take_while(|dir| dir.starts_with(root))
        .filter_map(|dir| group_left(dir, version_1))
        .collect()
}

fn group_left(dir: &Path, version_1: bool) -> Option<Available> {
    let [limit, usage, cache] = if version_1 {
        ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"]
    } else {
        ["memory.max", "memory.current", "inactive_file"]
    };
    let limit = number(&dir.join(limit))?;
    let used = number(&dir.join(usage))?;
    let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
    let cached = stat.lines().find_map(|l| l.strip_prefix(cache)?.trim().parse().ok()).unwrap_or(0);
    let left = limit.saturating_sub(used.saturating_sub(cached));
    Some(Available::of(left, limit, format!("memory cgroup {}", dir.display())))
}

/// Reads a file that contains one number; `None` for "max".
fn number(path: &Path) -> Option<usize> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A field of `/proc/meminfo`, in bytes.
fn meminfo_bytes(text: &str, name: &str) -> Option<usize> {
    let kib: usize =
        text.lines().find_map(|l| l.strip_prefix(name))?.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str, files: &[(&str, &str)]) -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("linecard-eal-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        for (name, text) in files {
            fs::write(dir.join(name), text).unwrap();
        }
        dir
    }

    #[test]
    fn a_cgroup_has_left_what_it_does_not_need() {
        let v2 = group(
            "v2",
            &[
                ("memory.max", "1000\n"),
                ("memory.current", "700\n"),
                ("memory.stat", "anon 600\nactive_file 50\ninactive_file 100\n"),
            ],
        );
        // 400 are left, and an eighth of the limit is reserved.
        let left = group_left(&v2, false).unwrap();
        assert_eq!((left.bytes, left.reserve), (400 - 125, 125));
        fs::write(v2.join("memory.current"), "5000").unwrap();
        assert_eq!(group_left(&v2, false).unwrap().bytes, 0);
        fs::write(v2.join("memory.max"), "max\n").unwrap();
        assert_eq!(group_left(&v2, false), None);
        assert_eq!(group_left(&v2, true), None);
        fs::remove_dir_all(v2).unwrap();
        let v1 = group(
            "v1",
            &[
                ("memory.limit_in_bytes", "9223372036854771712"),
                ("memory.usage_in_bytes", "4096"),
                ("memory.stat", "inactive_file 1\ntotal_inactive_file 96\n"),
            ],
        );
        assert_eq!(group_left(&v1, true).unwrap().bytes, 9_223_372_036_854_771_712 - 4000 - HEADROOM);
        fs::remove_dir_all(v1).unwrap();
    }

    #[test]
    fn of_a_small_group_most_can_be_had() {
        let small = group(
            "small",
            &[
                ("memory.max", "33554432\n"),
                ("memory.current", "2097152\n"),
                ("memory.stat", "inactive_file 0\n"),
            ],
        );
        let left = group_left(&small, false).unwrap();
        assert_eq!(left.bytes, 26 << 20, "32 MiB less 2 in use less 4 kept back");
        let text = left.short_of(30 << 20).to_string();
        assert!(
            text.contains("30 MiB asked, 26 MiB available") && text.contains("4 MiB are kept back"),
            "{text}"
        );
        assert!(text.ends_with("use fewer or smaller packets, or free memory"), "{text}");
        fs::write(small.join("memory.current"), "30000000").unwrap();
        let text = group_left(&small, false).unwrap().short_of(2 << 20).to_string();
        assert!(
            text.contains("0 bytes available") && text.ends_with("free memory there, or give it more"),
            "{text}"
        );
        fs::remove_dir_all(small).unwrap();
    }

    #[test]
    fn other_hierarchies_and_broken_lines_are_no_limit() {
        for line in ["", "nonsense", "3:cpuset:/", "9:name=systemd:/", "1:", "0::"] {
            assert_eq!(cgroup_limits(line), [], "{line}");
        }
    }

    #[test]
    fn the_machine_is_known() {
        let available = available();
        assert!(available.bytes > 0 && available.bytes < usize::MAX, "{available:?}");
        assert_eq!(
            meminfo_bytes("MemFree:  1 kB\nMemAvailable:    12 kB\n", "MemAvailable:"),
            Some(12 << 10)
        );
        assert_eq!(meminfo_bytes("MemAvailable: many\n", "MemAvailable:"), None);
    }
}
