//! Memory as ranges of this process's addresses. The kernel uses the process's own mappings, so that adjacent
//! segments form one range, and their number hardly matters.

use std::path::Path;
use std::sync::Arc;

use linecard_eal::memory::Segment;

use super::ioctl::Region;

/// The module's default (`vhost.max_mem_regions`), if its value cannot be read.
const DEFAULT_REGIONS: usize = 64;

/// Returns the number of ranges that a vhost device can have.
pub(super) fn max_regions() -> usize {
    read_max(Path::new("/sys/module/vhost/parameters/max_mem_regions"))
}

fn read_max(path: &Path) -> usize {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.trim().parse().unwrap_or(DEFAULT_REGIONS)
}

/// Returns the ranges of `segments`, ascending, with adjacent ones joined.
pub(super) fn ranges(segments: &[Arc<Segment>]) -> Vec<(u64, u64)> {
    join(segments.iter().map(|segment| (segment.addr() as u64, segment.len() as u64)).collect())
}

/// Joins adjacent ranges of (address, length).
fn join(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (start, len) in ranges {
        match joined.last_mut() {
            Some((first, so_far)) if first.saturating_add(*so_far) == start => {
                *so_far = so_far.saturating_add(len);
            }
            _ => joined.push((start, len)),
        }
    }
    joined
}

/// Returns the memory table for vhost-net.
pub(super) fn table(ranges: &[(u64, u64)]) -> Vec<Region> {
    ranges.iter().map(|(start, len)| Region::new(*start, *len)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_range() {
        assert_eq!(join(Vec::new()), []);
        let apart = vec![(0x9000, 0x1000), (0x1000, 0x2000), (0x5000, 0x1000), (0x3000, 0x2000)];
        assert_eq!(join(apart), [(0x1000, 0x5000), (0x9000, 0x1000)]);
        let touching_the_end = vec![(u64::MAX - 0xfff, 0x1000)];
        assert_eq!(join(touching_the_end.clone()), touching_the_end);
    }

    #[test]
    fn a_module_that_says_nothing_takes_sixty_four() {
        assert_eq!(read_max(Path::new("/nowhere/at/all")), 64);
        let path = std::env::temp_dir().join(format!("linecard-regions-{}", std::process::id()));
        std::fs::write(&path, "509\n").expect("a file");
        assert_eq!(read_max(&path), 509);
        std::fs::remove_file(&path).expect("its file");
    }
}
