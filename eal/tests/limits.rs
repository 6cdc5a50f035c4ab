//! Behaviour under limits of the process: each test runs itself again in a child that has the limit.

use std::process::Command;

use linecard_eal::{Eal, EalArgs, Memory, MemoryConfig, PagePolicy, cores};

/// Set to the test's name in the child.
const CHILD: &str = "LINECARD_EAL_CHILD";

/// Runs `body` of the test `name` in a process of its own, after the shell commands `setup`.
fn under(setup: &str, name: &str, body: fn()) {
    if std::env::var(CHILD).is_ok_and(|child| child == name) {
        return body();
    }
    let this = std::env::current_exe().unwrap();
    let script = format!("{setup}; exec \"$0\" --exact {name} --test-threads 1");
    let child = Command::new("sh").arg("-c").arg(script).arg(this).env(CHILD, name).output().unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&child.stderr)
    );
}

#[test]
fn a_small_address_space_gets_a_small_range() {
    under("ulimit -v 2000000", "a_small_address_space_gets_a_small_range", child_with_small_address_space);
}

fn child_with_small_address_space() {
    let memory = Memory::new(MemoryConfig::default()).unwrap();
    let domain = memory.domain("a").unwrap();
    assert!(domain.range() <= 500 << 20 && domain.range() >= 64 << 20, "{}", domain.range());
    let other = memory.domain("b").unwrap();
    let (_a, _b) = (domain.zone("z", 20 << 20, 64).unwrap(), other.zone("z", 20 << 20, 4096).unwrap());
    let tail = vec![0_u8; 50 << 20];
    assert_eq!(tail.len(), 50 << 20, "there is room for the rest of the program");
}

#[test]
fn a_tiny_address_space_is_told_with_the_limit() {
    const NAME: &str = "a_tiny_address_space_is_told_with_the_limit";
    under("ulimit -v 100000", NAME, child_with_tiny_address_space);
}

fn child_with_tiny_address_space() {
    let memory = Memory::new(MemoryConfig::default()).unwrap();
    let refused = ["a", "b"].map(|name| memory.domain(name));
    let error = refused.into_iter().find_map(Result::err).expect("two ranges do not fit").to_string();
    assert!(
        error.starts_with("cannot reserve addresses for domain") && error.contains("97.6 MiB"),
        "{error}"
    );
    assert!(error.ends_with("raise that limit by 64 MiB or more (ulimit -v)"), "{error}");
    let error = linecard_eal::PrivateZone::new(200 << 20, 64).unwrap_err().to_string();
    assert!(error.contains("map 200 MiB of private memory") && error.ends_with("(ulimit -v)"), "{error}");
}

#[test]
fn no_descriptors_are_an_error_and_not_a_crash() {
    under("ulimit -n 12", "no_descriptors_are_an_error_and_not_a_crash", child_with_few_descriptors);
}

fn child_with_few_descriptors() {
    let config = MemoryConfig::default().pages(PagePolicy::NoHuge);
    let domain = Memory::new(config).unwrap().domain("a").unwrap();
    let mut zones = Vec::new();
    let error = loop {
        match domain.zone("z", 2 << 20, 64) {
            Ok(zone) => zones.push(zone),
            Err(error) => break error,
        }
        assert!(zones.len() < 12);
    };
    assert!(
        error.to_string().starts_with("cannot create a segment of 2 MiB in 4K pages: Too many open files"),
        "{error}"
    );
    let before = domain.segments().len();
    zones.pop();
    zones.pop();
    assert_eq!(domain.segments().len(), before - 1, "one spare segment is kept");
    assert!(domain.zone("z", 4 << 20, 64).is_ok(), "works again: the spare one's descriptor is reused");
}

#[test]
fn a_small_file_size_limit_is_an_error_and_not_a_signal() {
    under("ulimit -f 4096", "a_small_file_size_limit_is_an_error_and_not_a_signal", child_with_small_files);
}

fn child_with_small_files() {
    let domain = Memory::new(MemoryConfig::default()).unwrap().domain("a").unwrap();
    let error = domain.zone("z", 3 << 20, 64).unwrap_err().to_string();
    assert!(error.contains("cannot size a segment of 4 MiB") && error.contains("File too large"), "{error}");
    assert!(domain.zone("z", 1 << 20, 64).is_ok());
}

#[test]
fn nothing_is_left_behind() {
    under("true", "nothing_is_left_behind", child_that_counts);
}

fn child_that_counts() {
    let list = |path: &str| std::fs::read_dir(path).unwrap().count();
    let mapped = || std::fs::read_to_string("/proc/self/maps").unwrap().matches("memfd:").count();
    let before = list("/proc/self/fd");
    for _ in 0..3 {
        let eal = Eal::new(&EalArgs::default()).unwrap();
        let zone = eal.default_domain().zone("z", 3 << 20, 64).unwrap();
        let refused = eal.default_domain().zone("z", 1 << 36, 64);
        assert!(refused.is_err() && mapped() == 1);
        drop(eal);
        assert_eq!((list("/proc/self/fd"), zone.len()), (before + 1, 3 << 20));
    }
    assert_eq!((list("/proc/self/fd"), mapped()), (before, 0));
}

#[test]
fn cores_outside_the_cpuset_are_refused_with_the_allowed_ones() {
    let first = cores::allowed()[0];
    under(
        &format!("taskset -p -c {first} $$ >/dev/null"),
        "cores_outside_the_cpuset_are_refused_with_the_allowed_ones",
        child_on_one_core,
    );
}

fn child_on_one_core() {
    let only = cores::allowed();
    assert_eq!(only.len(), 1);
    let parse = |line: &str| EalArgs::parse(line.split(' ')).unwrap().0;
    let error = Eal::new(&parse(&format!("-l {},{}", only[0], only[0].0 + 1))).unwrap_err().to_string();
    assert!(error.contains(&format!("core {} cannot be used", only[0].0 + 1)), "{error}");
    assert!(error.contains(&format!("may run on cores {} ", only[0])), "{error}");
    let eal = Eal::new(&EalArgs::default()).unwrap();
    assert_eq!((eal.lcores().all().len(), &eal.lcores().main().cores), (1, &only));
}
