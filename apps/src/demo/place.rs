//! Chooses the core of each end of the demo.

use std::fs;

use linecard::eal::CoreId;

/// The cores of the two ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    /// Backend, then frontend; `None` leaves the choice to the kernel.
    pub(super) cores: Option<(CoreId, CoreId)>,
    /// The reason, for the user.
    pub(super) why: String,
}

/// Chooses two cores of `allowed`, on different physical cores if possible. Prefers high numbers, because
/// interrupts are usually handled on the lowest ones.
pub(super) fn choose(allowed: &[CoreId]) -> Placement {
    choose_with(allowed, siblings)
}

fn choose_with(allowed: &[CoreId], siblings: impl Fn(CoreId) -> Vec<CoreId>) -> Placement {
    let Some((&frontend, others)) = allowed.split_last() else {
        return Placement { cores: None, why: "the kernel places both ends: no core list is known".into() };
    };
    let Some(&next) = others.last() else {
        let why = format!("both ends take turns on core {}, the only one this process may use", frontend.0);
        return Placement { cores: None, why };
    };
    let together = siblings(frontend);
    let apart = others.iter().rev().find(|core| !together.contains(core));
    let why = match apart {
        Some(_) if allowed.len() == 2 => "one each of the two cores this process may use",
        Some(_) => "different physical cores, away from the lowest ones, which take interrupts",
        None => "two threads of one physical core, the only one this process may use",
    };
    Placement { cores: Some((apart.copied().unwrap_or(next), frontend)), why: why.into() }
}

/// The cores that share a physical core with `core`, including itself.
fn siblings(core: CoreId) -> Vec<CoreId> {
    let path = format!("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", core.0);
    parse_siblings(&fs::read_to_string(path).unwrap_or_default())
}

fn parse_siblings(text: &str) -> Vec<CoreId> {
    let ranges = text.trim().split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u32>().ok()?..=last.parse().ok()?)
    });
    ranges.flatten().map(CoreId).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cores(ids: &[u32]) -> Vec<CoreId> {
        ids.iter().copied().map(CoreId).collect()
    }

    fn pick(allowed: &[u32], pairs: &[&[u32]]) -> Option<(u32, u32)> {
        let of = |core: CoreId| pairs.iter().find(|p| p.contains(&core.0)).map_or(vec![core], |p| cores(p));
        choose_with(&cores(allowed), of).cores.map(|(back, front)| (back.0, front.0))
    }

    #[test]
    fn two_different_physical_cores_are_preferred() {
        assert_eq!(pick(&[], &[]), None);
        assert_eq!(pick(&[3], &[]), None);
        assert_eq!(pick(&[0, 1], &[]), Some((0, 1)));
        assert_eq!(pick(&[0, 1], &[&[0, 1]]), Some((0, 1)));
        assert_eq!(pick(&[0, 1, 2, 3], &[&[0, 1], &[2, 3]]), Some((1, 3)));
        assert_eq!(pick(&[0, 1, 2, 3], &[&[0, 2], &[1, 3]]), Some((2, 3)));
    }

    #[test]
    fn sibling_lists_are_read() {
        assert_eq!(parse_siblings("0-1\n"), cores(&[0, 1]));
        assert_eq!(parse_siblings("0,4"), cores(&[0, 4]));
        assert_eq!(parse_siblings(""), []);
    }
}
