//! Two EALs in one process, as different as they can be.

use linecard_eal::{Eal, EalArgs, PageKind, Stop, Workers, cores};

fn eal(line: &str) -> Eal {
    let (args, rest) = EalArgs::parse(line.split_whitespace()).unwrap();
    assert!(rest.is_empty());
    Eal::new(&args).unwrap()
}

#[test]
fn do_not_know_each_other() {
    let core = cores::allowed()[0];
    let small = eal(&format!("--lcores 5@{core} -m 4 --no-huge --file-prefix small"));
    let large = eal(&format!("--lcores (1,2)@{core} --main-lcore 2 -m 64 --file-prefix large"));
    assert_eq!((small.lcores().main().id.0, large.lcores().main().id.0), (5, 2));
    assert_eq!((small.lcores().workers().count(), large.lcores().workers().count()), (0, 1));

    let (a, b) = (small.default_domain(), large.default_domain());
    let in_small = a.zone("z", 3 << 20, 64).unwrap();
    assert!(a.zone("z", 3 << 20, 64).is_err(), "its limit");
    let in_large = b.zone("z", 3 << 20, 64).unwrap();
    assert_eq!((small.memory().usage().total(), large.memory().usage().total()), (4 << 20, 4 << 20));
    assert_eq!(in_small.segment().page(), PageKind::Small);
    assert!(!b.contains(in_small.ptr().as_ptr(), 1) && !a.contains(in_large.ptr().as_ptr(), 1));
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert!(maps.contains("memfd:small.default") && maps.contains("memfd:large.default"), "{maps}");

    let mut polls = Vec::new();
    for eal in [&small, &large] {
        let mut workers = Workers::new();
        let clock = eal.clock();
        for lcore in eal.lcores().all() {
            let job = move |stop: &Stop| {
                let start = clock.cycles();
                while stop.running() {
                    std::thread::yield_now();
                }
                clock.cycles() - start
            };
            workers.launch(lcore, job).unwrap();
        }
        polls.push(workers);
    }
    for (workers, count) in polls.iter_mut().zip([1, 2]) {
        workers.stop();
        let results = workers.join();
        assert_eq!(results.len(), count);
        assert!(results.into_iter().all(|(_, cycles)| cycles.unwrap() > 0));
    }
    drop((small, a));
    assert_eq!(in_large.domain().segments().len(), 1, "one goes, the other stays");
    assert_eq!(in_small.len(), 3 << 20, "and so does what is still held");
}

#[test]
fn a_main_lcore_outside_the_map_is_refused() {
    let core = cores::allowed()[0];
    let line = format!("-l {core} --main-lcore {}", core.0 + 1);
    let (args, _) = EalArgs::parse(line.split(' ')).unwrap();
    let error = Eal::new(&args).unwrap_err().to_string();
    assert!(error.contains("main lcore") && error.contains("--main-lcore"), "{error}");
}
