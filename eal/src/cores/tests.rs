//! Maps in DPDK's grammar, binding, workers.

use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Lcores as DPDK 22.11 starts them (compared with its "lcore N is ready" lines on two cores; the rest from its source).
#[test]
fn maps_mean_what_they_mean_to_dpdk() {
    for (text, wanted) in [
        ("0", "0@0"),
        ("0-3,5", "0@0,1@1,2@2,3@3,5@5"),
        ("1-0", "0@0,1@1"),
        ("0@0,1@1", "0@0,1@1"),
        ("(0,1)@0", "0@0,1@0"),
        ("(0-1)", "0@(0-1),1@(0-1)"),
        ("0-1", "0@0,1@1"),
        ("0,(2-3)@1", "0@0,2@1,3@1"),
        ("1@0-1", "1@(0-1)"),
        ("3@1-0", "3@(0-1)"),
        ("0-3@(4-7)", "0@(4-7),1@(4-7),2@(4-7),3@(4-7)"),
        ("(0-1,3)@0-1", "0@(0-1),1@(0-1),3@(0-1)"),
        ("(2,0-1)@0", "0@0,1@0,2@0"),
        ("(0,1)@0,0@1", "0@1,1@0"),
        ("(0,1),0@1", "0@1,1@(0-1)"),
        ("(0, 1 )@0", "0@0,1@0"),
        (" 0 , 1@ 0\t", "0@0,1@0"),
        ("1,2@(5-7),(3-5)@(0,2),(0,6),7-8", "0@(0,6),1@1,2@(5-7),3@(0,2),4@(0,2),5@(0,2),6@(0,6),7@7,8@8"),
        ("1023@1023", "1023@1023"),
    ] {
        let map: LcoreMap = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(map.to_string(), wanted, "{text}");
        assert_eq!(wanted.parse::<LcoreMap>().unwrap(), map);
    }
}

#[test]
fn malformed_maps_say_what_was_expected() {
    for (text, expected) in [
        ("", "a number from 0 to 1023"),
        ("0,,1", "a number"),
        ("0,", "a number"),
        ("(0", "')'"),
        ("0@", "a number"),
        ("@0", "a number"),
        ("0-", "a number"),
        ("0-1-2", "comma"),
        ("0@0@0", "comma"),
        ("0 1", "comma"),
        ("(0,1)2", "comma"),
        ("((0))", "a number"),
        ("()@0", "a number"),
        ("(0,)@0", "a number"),
        ("0;1", "comma"),
        ("0x1@0", "comma"),
        ("1024", "1023"),
        ("99999999999999999999", "1023"),
        ("0@1024", "1023"),
        ("٣", "a number"),
    ] {
        let error = text.parse::<LcoreMap>().unwrap_err().to_string();
        assert!(error.contains(&format!("\"{text}\"")) && error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn masks_are_hexadecimal() {
    for (text, wanted) in [
        ("1", "0@0"),
        ("0x3", "0@0,1@1"),
        ("0XF0", "4@4,5@5,6@6,7@7"),
        (" a ", "1@1,3@3"),
        ("00000000000000000000000000000000001", "0@0"),
        ("80000000000000000", "67@67"),
    ] {
        assert_eq!(LcoreMap::from_mask(text).unwrap().to_string(), wanted, "{text}");
    }
    for text in ["", "0", "0x", "0xg", "-1", "0x0x1", &format!("1{}", "0".repeat(256)), &"f".repeat(5000)] {
        assert!(LcoreMap::from_mask(text).is_err(), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 1 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn maps_survive_the_way_through_text(
        map in prop::collection::btree_map(0_u32..1024, prop::collection::btree_set(0_u32..1024, 1..9), 1..9),
    ) {
        let text: Vec<_> = map.iter().map(|(lcore, cores)| {
            let cores: Vec<_> = cores.iter().map(u32::to_string).collect();
            format!("{lcore}@({})", cores.join(","))
        }).collect();
        let parsed: LcoreMap = text.join(",").parse().unwrap();
        prop_assert_eq!(parsed.to_string().parse::<LcoreMap>().unwrap(), parsed.clone());
        let back: std::collections::BTreeMap<u32, std::collections::BTreeSet<u32>> =
            parsed.all().iter().map(|l| (l.id.0, l.cores.iter().map(|c| c.0).collect())).collect();
        prop_assert_eq!(back, map);
    }

    #[test]
    fn no_text_panics(text in "[0-9(),@\\- x]{0,30}") {
        if let Ok(map) = text.parse::<LcoreMap>() {
            prop_assert_eq!(map.to_string().parse::<LcoreMap>().unwrap(), map);
        }
        let _ = LcoreMap::from_mask(&text);
    }
}

#[test]
fn main_and_workers_share_the_lcores() {
    let map: LcoreMap = "1-3".parse().unwrap();
    assert_eq!(map.main().id, LcoreId(1));
    let map = map.with_main(LcoreId(3)).unwrap();
    assert_eq!(map.main().id, LcoreId(3));
    assert_eq!(map.workers().map(|lcore| lcore.id.0).collect::<Vec<_>>(), [1, 2]);
    let error = map.with_main(LcoreId(0)).unwrap_err().to_string();
    assert!(error.contains("main lcore 0") && error.contains("1-3"), "{error}");
    assert!(LcoreMap::of_cores(&[]).is_err());
}

#[test]
fn cores_out_of_range_are_named_with_the_allowed_ones() {
    let map: LcoreMap = "0,7@(1,9)".parse().unwrap();
    let error = map.check(&[CoreId(0), CoreId(1), CoreId(2), CoreId(4)]).unwrap_err().to_string();
    assert!(error.contains("core 9 ") && error.contains("0-2,4"), "{error}");
    assert!(map.check(&[CoreId(0), CoreId(1), CoreId(9)]).is_ok());
}

#[test]
fn binding_is_verified() {
    thread::spawn(|| {
        let cores = allowed();
        let last = cores[cores.len() - 1];
        pin_to(&cores).unwrap();
        assert_eq!(allowed(), cores);
        pin_current(last).unwrap();
        assert_eq!(allowed(), [last]);
        for wrong in [1023, 1024, u32::MAX] {
            let error = pin_current(CoreId(wrong)).unwrap_err().to_string();
            assert!(
                error.contains(&wrong.to_string()) && error.contains(&format!("cores {last} ")),
                "{error}"
            );
        }
        assert!(pin_to(&[last, CoreId(900)]).is_err());
        assert_eq!(allowed(), [last], "a refused binding changes nothing");
    })
    .join()
    .unwrap();
}

fn lcore(id: u32, cores: &[CoreId]) -> Lcore {
    Lcore { id: LcoreId(id), cores: cores.to_vec() }
}

#[test]
fn workers_are_bound_named_and_bring_results_home() {
    let core = allowed()[0];
    let mut workers = Workers::new();
    let job = |stop: &Stop| {
        while stop.running() {
            thread::sleep(Duration::from_millis(1));
        }
        (thread::current().name().map(str::to_owned), allowed())
    };
    workers.launch(&lcore(1, &[core]), job).unwrap();
    workers.launch(&lcore(1023, &[core]), job).unwrap();
    let busy = workers.launch(&lcore(1, &[core]), job).unwrap_err();
    assert!(matches!(busy, Error::LcoreBusy { lcore: LcoreId(1) }), "{busy}");
    assert!(!workers.finished());
    assert_eq!(workers.lcores().collect::<Vec<_>>(), [LcoreId(1), LcoreId(1023)]);
    workers.stop();
    let results: Vec<_> =
        workers.join().into_iter().map(|(lcore, result)| (lcore, result.unwrap())).collect();
    let home = |id: u32| (LcoreId(id), (Some(format!("lc-worker-{id}")), vec![core]));
    assert_eq!(results, [home(1), home(1023)]);
    // And again: the stop is over.
    workers
        .launch(&lcore(1, &[core]), |stop| (None, if stop.running() { vec![] } else { allowed() }))
        .unwrap();
    assert_eq!(workers.join().pop().unwrap().1.unwrap(), (None, vec![]));
}

#[test]
fn a_panic_is_one_workers_error() {
    let core = allowed()[0];
    let mut workers = Workers::<u32>::new();
    workers.launch(&lcore(0, &[core]), |_| panic!("port {} is gone", 3)).unwrap();
    workers.launch(&lcore(1, &[core]), |_| 5).unwrap();
    let mut results = workers.join().into_iter();
    let error = results.next().unwrap().1.unwrap_err().to_string();
    assert_eq!(error, "the job on lcore 0 panicked: port 3 is gone");
    assert_eq!(results.next().unwrap().1.unwrap(), 5);
}

#[test]
fn a_core_that_is_not_allowed_starts_nothing() {
    let mut workers = Workers::<()>::new();
    let error = workers.launch(&lcore(2, &[CoreId(1000)]), |_| unreachable!()).unwrap_err();
    assert!(matches!(error, Error::Core { asked: CoreId(1000), .. }), "{error}");
    assert!(workers.finished() && workers.join().is_empty());
}

#[test]
fn dropping_workers_stops_and_joins_them() {
    let core = allowed()[0];
    let (ended, end) = std::sync::mpsc::channel();
    let mut workers = Workers::new();
    let job = move |stop: &Stop| {
        while stop.running() {
            thread::yield_now();
        }
        ended.send(()).unwrap();
    };
    workers.launch(&lcore(0, &[core]), job).unwrap();
    drop(workers);
    assert_eq!(end.try_recv(), Ok(()));
}
