use super::*;

const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];
const GROUP: [u8; 6] = [1, 0, 0x5e, 0, 0, 1];

fn frame(to: [u8; 6], tag: Option<(u16, u16)>) -> Vec<u8> {
    let mut frame = [to, [2, 0, 0, 0, 0, 0xee]].concat();
    if let Some((protocol, tci)) = tag {
        frame.extend([protocol.to_be_bytes(), tci.to_be_bytes()].concat());
    }
    frame.resize(60, 0);
    frame
}

#[test]
fn destinations() {
    let check = |change: fn(&mut FilterRules), to| {
        let mut rules = FilterRules { promiscuous: false, ..FilterRules::new(OWN) };
        change(&mut rules);
        rules.check(&frame(to, None))
    };
    let (unicast, multicast) = (Err(Filtered::Unicast), Err(Filtered::Multicast));
    assert_eq!([OWN, [0xff; 6]].map(|to| check(|_| (), to)), [Ok(()); 2]);
    assert_eq!([OTHER, GROUP].map(|to| check(|_| (), to)), [unicast, multicast]);
    let all = |rules: &mut FilterRules| rules.allmulticast = true;
    assert_eq!([OTHER, GROUP].map(|to| check(all, to)), [unicast, Ok(())]);
    let promiscuous = |rules: &mut FilterRules| rules.promiscuous = true;
    assert_eq!([OTHER, GROUP].map(|to| check(promiscuous, to)), [Ok(()); 2]);
    let listed = |rules: &mut FilterRules| (rules.unicast, rules.multicast) = (vec![OTHER], vec![GROUP]);
    assert_eq!([OTHER, GROUP].map(|to| check(listed, to)), [Ok(()); 2]);
    assert_eq!(FilterRules::new(OWN).check(&[2; 5]), Ok(()), "it has no address");
}

#[test]
fn vlans_are_filtered_in_promiscuous_mode_too() {
    let mut rules = FilterRules::new(OWN);
    let mut vlans = VlanSet::default();
    vlans.set(7, true);
    rules.vlans = Some(vlans);
    for (tag, passes) in [
        (None, true),
        (Some((0x8100, 7)), true),
        (Some((0x8100, 0xe007)), true),
        (Some((0x88a8, 7)), true),
        (Some((0x8100, 8)), false),
        (Some((0x88a8, 8)), false),
        (Some((0x8100, 0)), false),
        (Some((0x9100, 8)), true),
    ] {
        assert_eq!(rules.check(&frame(OTHER, tag)).is_ok(), passes, "{tag:?}");
    }
    assert_eq!(rules.check(&frame(OTHER, None)[..15]), Ok(()), "it ends within the tag");
}

#[test]
fn a_view_follows_and_a_change_is_told_once() {
    use std::sync::atomic::{AtomicBool, AtomicUsize};
    let (filter, told) = (Arc::new(RxFilter::new("port", OWN)), Arc::new(AtomicUsize::new(0)));
    let (counter, said) = (told.clone(), Arc::new(AtomicBool::new(false)));
    let last = said.clone();
    filter.on_change(move |on| {
        counter.fetch_add(1, Ordering::Relaxed);
        last.store(on, Ordering::Relaxed);
    });
    let view = FilterView::new(&filter);
    for (promiscuous, changes) in [(true, 0), (false, 1), (false, 1), (true, 2), (false, 3)] {
        filter.set_promiscuous(promiscuous);
        assert_eq!((view.is_on(), told.load(Ordering::Relaxed)), (!promiscuous, changes));
        assert_eq!(said.load(Ordering::Relaxed), !promiscuous);
    }
    filter.set_promiscuous(true);
    filter.set_vlans(Some(VlanSet::NONE));
    assert!(view.is_on());
}

#[test]
fn lists_have_limits_and_kinds() {
    let filter = RxFilter::new("net_virtio_user0", OWN);
    let many = |first: u8, count: usize| -> Vec<[u8; 6]> {
        (0..count).map(|n| [first, 0, 0, 0, (n >> 8) as u8, n as u8]).collect()
    };
    filter.set_unicast(&many(2, MAX_UNICAST)).expect("as many as possible");
    filter.set_multicast(&many(3, MAX_MULTICAST)).expect("as many as possible");
    for refused in [
        filter.set_unicast(&many(2, MAX_UNICAST + 1)),
        filter.set_multicast(&many(3, MAX_MULTICAST + 1)),
        filter.set_unicast(&[GROUP]),
        filter.set_unicast(&[[0; 6]]),
        filter.set_multicast(&[OTHER]),
    ] {
        let text = refused.expect_err("wrong").to_string();
        assert!(text.starts_with("net_virtio_user0: ") && text.contains("; give "), "{text}");
    }
    let rules = filter.rules();
    assert_eq!((rules.unicast.len(), rules.multicast.len()), (MAX_UNICAST, MAX_MULTICAST), "unchanged");
}
