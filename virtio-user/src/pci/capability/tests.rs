use linecard_lab::Prng;

use super::*;

const PAGE: u64 = 4096;

/// BARs as QEMU's device has them: messages in BAR 1, structures in BAR 4, all of which can be mapped.
pub(in crate::pci) fn bars() -> [Bar; BARS] {
    let mut bars: [Bar; BARS] = Default::default();
    bars[1] = Bar { len: 0x1000, mappable: vec![(0, 0x1000)] };
    bars[4] = Bar { len: 0x4000, mappable: vec![(0, 0x4000)] };
    bars
}

/// A configuration space with these entries: where each is, and its bytes from the identifier on; the second byte, where the next
/// one is, is written here.
pub(in crate::pci) fn space(entries: &[(usize, Vec<u8>)]) -> [u8; CONFIG] {
    let mut config = [0; CONFIG];
    config[STATUS] = HAS_LIST as u8;
    let mut pointer = FIRST;
    for (at, bytes) in entries {
        config[pointer] = *at as u8;
        config[*at..*at + bytes.len()].copy_from_slice(bytes);
        pointer = at + 1;
    }
    config
}

fn entry(kind: u8, bar: u8, offset: u32, len: u32) -> Vec<u8> {
    let multiplier = if kind == NOTIFY { 4_u32.to_le_bytes().to_vec() } else { Vec::new() };
    let bytes = 16 + multiplier.len() as u8;
    [&[VENDOR, 0, bytes, kind, bar, 0, 0, 0], &offset.to_le_bytes()[..], &len.to_le_bytes(), &multiplier]
        .concat()
}

/// What QEMU's device has.
pub(in crate::pci) fn usual() -> Vec<(usize, Vec<u8>)> {
    vec![
        (0x98, vec![0x11, 0, 3, 0]),
        (0x84, entry(9, 0, 0, 0)[..16].to_vec()),
        (0x70, entry(NOTIFY, 4, 0x3000, 0x1000)),
        (0x60, entry(DEVICE, 4, 0x2000, 0x1000)),
        (0x50, entry(ISR, 4, 0x1000, 0x1000)),
        (0x40, entry(COMMON, 4, 0, 0x1000)),
    ]
}

fn found(entries: &[(usize, Vec<u8>)]) -> Result<Structures, Problem> {
    structures(&space(entries), &bars(), PAGE)
}

/// The usual ones with one of them changed.
fn with(kind: u8, bytes: Vec<u8>) -> Result<Structures, Problem> {
    let mut entries = usual();
    let place = entries.iter_mut().find(|(_, bytes)| bytes[0] == VENDOR && bytes[3] == kind);
    place.expect("there is one").1 = bytes;
    found(&entries)
}

#[test]
fn a_modern_device_has_its_structures() {
    let structures = found(&usual()).expect("all are there");
    assert_eq!(structures.common, Place { bar: 4, offset: 0, len: 0x1000 });
    assert_eq!(structures.isr, Some(Place { bar: 4, offset: 0x1000, len: 0x1000 }));
    assert_eq!(structures.device, Some(Place { bar: 4, offset: 0x2000, len: 0x1000 }));
    assert_eq!(structures.notify.of_queue(0), Some((4, 0x3000)));
    assert_eq!(structures.notify.of_queue(3), Some((4, 0x300c)));
    assert_eq!(structures.notify.of_queue(1023), Some((4, 0x3ffc)));
    assert_eq!(structures.notify.of_queue(1024), None, "behind the structure");
    assert_eq!(structures.notify.of_queue(u16::MAX), None);
}

#[test]
fn a_legacy_device_has_none() {
    let problem =
        |config: &[u8; CONFIG]| structures(config, &bars(), PAGE).expect_err("nothing is there").to_string();
    assert_eq!(problem(&[0; CONFIG]), "it has no common configuration of a modern virtio device");
    let mut no_list = space(&usual());
    no_list[STATUS] = 0;
    assert_eq!(problem(&no_list), "it has no common configuration of a modern virtio device");
    // A device that was removed answers all ones.
    assert_eq!(problem(&[0xff; CONFIG]), "its list of capabilities never ends");
    for kind in [COMMON, NOTIFY] {
        let rest: Vec<_> = usual().into_iter().filter(|(_, bytes)| bytes.get(3) != Some(&kind)).collect();
        assert!(matches!(found(&rest), Err(Problem::Missing(_, None))), "{kind}");
    }
}

#[test]
fn lists_that_never_end_do() {
    let mut config = space(&usual());
    // The last entry points to itself; to the first; the first one to the first.
    for (from, to) in [(0x41, 0x40), (0x41, 0x98), (0x99, 0x98)] {
        config = {
            let mut fresh = space(&usual());
            fresh[from] = to;
            fresh
        };
        assert_eq!(structures(&config, &bars(), PAGE), Err(Problem::Loop), "{from:#x} -> {to:#x}");
    }
    // Into the header, where there are no entries, the list ends.
    config[0x99] = 0x3c;
    assert!(matches!(
        structures(&config, &bars(), PAGE),
        Err(Problem::Missing("common configuration", None))
    ));
}

#[test]
fn what_is_not_within_its_bar_is_not_used() {
    let outside = |bar, offset, len| Some(Unusable::Outside { bar, offset, len });
    for (bar, offset, len) in [
        (4, 0x3fff, 2),
        (4, 0x4000, 0x1000),
        (4, 0, 0x4001),
        (4, u32::MAX, 1),
        (4, 0xffff_fffc, u32::MAX),
        (4, 0x10, u32::MAX),
        (4, 0, 0),
        // A BAR that is not there, and two that no device has.
        (0, 0, 0x1000),
        (6, 0, 0x1000),
        (0xff, 0, 0x1000),
    ] {
        let problem = with(COMMON, entry(COMMON, bar, offset, len));
        assert_eq!(problem, Err(Problem::Missing("common configuration", outside(bar, offset, len))));
        let problem = with(NOTIFY, entry(NOTIFY, bar, offset, len));
        assert_eq!(problem, Err(Problem::Missing("notification structure", outside(bar, offset, len))));
        assert_eq!(with(ISR, entry(ISR, bar, offset, len)).expect("the others are there").isr, None);
        assert_eq!(with(DEVICE, entry(DEVICE, bar, offset, len)).expect("the others are there").device, None);
    }
}

#[test]
fn what_is_cut_off_short_or_unaligned_is_not_used() {
    let why = |problem: Result<Structures, Problem>| match problem {
        Err(Problem::Missing(_, Some(why))) => why,
        other => panic!("{other:?}"),
    };
    for said in [0, 2, 15] {
        let mut bytes = entry(COMMON, 4, 0, 0x1000);
        bytes[2] = said;
        assert_eq!(why(with(COMMON, bytes)), Unusable::Cut, "{said}");
    }
    let mut bytes = entry(NOTIFY, 4, 0x3000, 0x1000);
    bytes[2] = 16;
    assert_eq!(why(with(NOTIFY, bytes)), Unusable::Cut, "it has no multiplier");
    let mut entries = usual();
    entries.retain(|(_, bytes)| bytes.get(3) != Some(&COMMON));
    entries.push((0xfc, vec![VENDOR, 0, 16, COMMON]));
    assert_eq!(why(found(&entries)), Unusable::Cut, "the space ends");
    assert_eq!(why(with(COMMON, entry(COMMON, 4, 0, 55))), Unusable::Short { len: 55 });
    assert_eq!(why(with(COMMON, entry(COMMON, 4, 2, 0x100))), Unusable::Unaligned { offset: 2 });
    assert_eq!(why(with(NOTIFY, entry(NOTIFY, 4, 0x3001, 0x100))), Unusable::Unaligned { offset: 0x3001 });
    assert_eq!(with(DEVICE, entry(DEVICE, 4, 0x2002, 0x100)).expect("the others").device, None);
}

#[test]
fn the_first_that_can_be_used_counts() {
    let mut entries = usual();
    entries.insert(1, (0xa4, entry(NOTIFY, 2, 0, 0x1000)));
    entries.insert(1, (0xb8, entry(COMMON, 4, 0x9000, 0x1000)));
    assert_eq!(found(&entries), found(&usual()));
    entries.insert(1, (0xc8, entry(ISR, 1, 0x800, 1)));
    assert_eq!(found(&entries).expect("all").isr, Some(Place { bar: 1, offset: 0x800, len: 1 }));
}

#[test]
fn notifications_are_written_where_a_mapping_is_possible_and_nothing_else_lies() {
    let unmappable = Problem::Missing("notification structure", Some(Unusable::Unmappable { bar: 4 }));
    for mappable in [vec![], vec![(0, 0x3000)], vec![(0, 0x3800)], vec![(0x3001, 0xfff)]] {
        let mut bars = bars();
        bars[4].mappable = mappable;
        assert_eq!(structures(&space(&usual()), &bars, PAGE), Err(unmappable.clone()));
    }
    let mut sparse = bars();
    sparse[4].mappable = vec![(0, 0x1000), (0x3000, 0x1000)];
    structures(&space(&usual()), &sparse, PAGE).expect("its page can be mapped");
    // The page does not fit into a BAR of half a page, and pages may be large.
    sparse[4].mappable = vec![(0, 0x4000)];
    assert_eq!(structures(&space(&usual()), &sparse, 0x1_0000), Err(unmappable));
    for (offset, len) in [(0, 0x10), (0xffe, 4), (0x1000, 0x1000), (0x2fff - 1, 4), (0, 0x4000)] {
        assert_eq!(with(NOTIFY, entry(NOTIFY, 4, offset, len)), Err(Problem::Overlap), "{offset:#x}");
    }
    // Beside the others it may lie, and the others may overlap each other, which harms nobody.
    with(NOTIFY, entry(NOTIFY, 1, 0, 0x1000)).expect("another BAR");
    with(ISR, entry(ISR, 4, 0, 1)).expect("read only");
}

#[test]
fn multipliers_do_not_run_over() {
    let notify = |multiplier, offset, len| NotifyPlace { place: Place { bar: 0, offset, len }, multiplier };
    // One word for all queues.
    assert_eq!(notify(0, 0, 2).of_queue(u16::MAX), Some((0, 0)));
    assert_eq!(notify(0, 0, 1).of_queue(0), None);
    assert_eq!(notify(u32::MAX, 0, u32::MAX).of_queue(1), None);
    assert_eq!(notify(u32::MAX, u32::MAX, u32::MAX).of_queue(u16::MAX), None);
    assert_eq!(notify(3, 0, 0x1000).of_queue(1), None, "no word is at an odd address");
    assert_eq!(notify(2, u32::MAX - 1, u32::MAX).of_queue(0), Some((0, 0xffff_fffe)));
}

#[test]
fn no_space_panics() {
    let mut random = Prng::new(1);
    for _ in 0..200_000 {
        let mut config = space(&usual());
        for _ in 0..8 {
            config[random.below(CONFIG)] = random.roll() as u8;
        }
        if let Ok(found) = structures(&config, &bars(), PAGE) {
            for place in [Some(found.common), found.isr, found.device].into_iter().flatten() {
                assert!(place.end() <= bars()[usize::from(place.bar)].len);
            }
            for queue in [0, 1, 255, u16::MAX] {
                let Some((bar, at)) = found.notify.of_queue(queue) else { continue };
                assert!(at + 2 <= bars()[usize::from(bar)].len);
            }
        }
    }
}
