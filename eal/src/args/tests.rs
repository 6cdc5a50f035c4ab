//! Command lines of DPDK users, good and bad.

use super::*;

fn parse(line: &str) -> Result<(EalArgs, Vec<OsString>)> {
    EalArgs::parse(line.split_whitespace())
}

fn good(line: &str) -> EalArgs {
    parse(line).unwrap_or_else(|error| panic!("{line}: {error}")).0
}

#[test]
fn values_come_in_every_form_of_getopt_long() {
    for line in
        ["-l0-1", "-l 0-1", "-c3", "-c 0x3", "--lcores=0-1", "--lcores 0-1", "--lc 0,1", "--lcores=0@0,1@1"]
    {
        assert_eq!(good(line).lcores.unwrap().to_string(), "0@0,1@1", "{line}");
    }
    for line in ["-vh", "-hv", "-v -h", "-v --help", "--he -v"] {
        let args = good(line);
        assert!(args.help && args.version, "{line}");
    }
    // As with getopt_long, whatever follows is the value.
    assert_eq!(good("--file-prefix -l").file_prefix.unwrap(), "-l");
    assert_eq!(good("--vdev=net_pcap0,iface=eth2").vdevs, ["net_pcap0,iface=eth2"]);
}

#[test]
fn what_is_not_utf8_is_said_to_be_that() {
    use std::os::unix::ffi::OsStringExt as _;

    let odd = |text: &str| OsString::from_vec([text.as_bytes(), b"\xff"].concat());
    let says = |line: Vec<OsString>| EalArgs::parse(line).unwrap_err().to_string();
    for (line, named) in [
        (vec!["--vdev".into(), odd("net_tap0,iface=")], "\"--vdev net_tap0,iface=\\xff\""),
        (vec![odd("--vdev=net_tap0")], "\"--vdev=net_tap0\\xff\""),
        (vec![odd("-l")], "\"-l\\xff\""),
        (vec!["-m".into(), odd("")], "\"-m \\xff\""),
        (vec![odd("stray")], "\"stray\\xff\""),
    ] {
        let said = says(line);
        assert!(said.starts_with(&format!("{named} is not UTF-8")), "{said}");
    }
    // What belongs to the application is left to it.
    assert_eq!(EalArgs::parse(["--".into(), odd("")]).unwrap().1, [odd("")]);
}

#[test]
fn what_means_something_acts() {
    let args = good(
        "-l 0-3 --main-lcore 2 -m 512 --no-huge --in-memory --single-file-segments --file-prefix fe \
         --vdev net_null0 --vdev=net_null1 --log-level 8 --log-level=lib.eal:debug",
    );
    assert_eq!(args.main_lcore, Some(LcoreId(2)));
    assert_eq!((args.memory, args.vdevs.len(), args.log_level.len()), (Some(512), 2, 2));
    assert!(args.no_huge && args.in_memory && args.single_file_segments && args.ignored.is_empty());
    let memory = args.memory_config();
    assert_eq!(
        (memory.limit, memory.pages, memory.name.as_str()),
        (Some(512 << 20), PagePolicy::NoHuge, "fe")
    );
    assert_eq!(good("--require-hugepages").memory_config().pages, PagePolicy::RequireHuge);
    assert_eq!(good("--socket-mem 512,0,256").memory, Some(768));
    assert_eq!(good("").memory_config(), MemoryConfig::default());
}

#[test]
fn what_changes_nothing_is_accepted_and_listed() {
    let line = "-n 4 -r 2 -s 0x1 --no-pci --no-shconf --iova-mode=va --no-hpet --legacy-mem \
                --match-allocations --base-virtaddr=0x100000000 -b 00:01.0 --syslog local0 --trace=x --vmware-tsc-map \
                --huge-unlink --huge-unlink=always --huge-dir /tmp --proc-type=auto --proc-type primary \
                --force-max-simd-bitwidth=256 --socket-limit 0,0";
    let args = good(line);
    assert_eq!(args.ignored.len(), 21, "{:?}", args.ignored);
    assert_eq!(args.ignored[0], "-n 4");
    assert_eq!(args.ignored[20], "--socket-limit=0,0");
    assert_eq!(EalArgs { ignored: Vec::new(), ..args }, EalArgs::default());
}

#[test]
fn devices_are_named_by_driver_or_by_address() {
    let args = good("--vdev net_null0 -a 0000:00:05.0,queues=2 --allow=00:06.0 -a00:07.0 --vdev net_ring0");
    assert_eq!(args.allowed, ["0000:00:05.0,queues=2", "00:06.0", "00:07.0"]);
    let all: Vec<_> = args.devices().collect();
    assert_eq!(all, ["0000:00:05.0,queues=2", "00:06.0", "00:07.0", "net_null0", "net_ring0"]);
}

#[test]
fn telemetry_is_on_unless_no_files_are_wanted() {
    assert!(EalArgs::help_text().contains("make no telemetry socket, even with --telemetry"));
    for (line, wanted) in [
        ("", true),
        ("--telemetry", true),
        ("--no-telemetry", false),
        ("--telemetry --no-telemetry", false),
        ("--no-telemetry --telemetry", false),
        ("--in-memory", false),
        ("--in-memory --telemetry", true),
    ] {
        assert_eq!(good(line).wants_telemetry(), wanted, "{line}");
    }
}

#[test]
fn the_rest_is_the_applications() {
    let (args, app) = parse("-l 0 -- -i --nb-cores=1 -- x").unwrap();
    assert!(args.lcores.is_some());
    assert_eq!(app, ["-i", "--nb-cores=1", "--", "x"]);
    assert_eq!(parse("").unwrap().1, [""; 0]);
}

#[test]
fn refusals_name_the_option_and_the_remedy() {
    for (line, words) in [
        ("--lcore-map=1", &["--lcore-map", "--help"] as &[_]),
        ("--filepefix=x", &["--filepefix", "--file-prefix"]),
        ("--no-hueg", &["--no-hueg", "did you mean --no-huge"]),
        ("-x", &["unknown option -x"]),
        ("-vx", &["unknown option -x"]),
        ("--no", &["--no", "ambiguous", "--no-huge, --no-telemetry, --no-hpet, --no-pci"]),
        ("--no-huge=1", &["--no-huge", "\"1\"", "no value"]),
        ("-l", &["-l", "needs a value"]),
        ("-l --", &["-l", "needs a value"]),
        ("--vdev", &["--vdev", "<driver>"]),
        ("--vdev=", &["--vdev", "net_null0"]),
        ("-m 0", &["-m", "\"0\"", "MiB"]),
        ("-m lots", &["-m", "\"lots\""]),
        ("--socket-mem 0,x", &["--socket-mem", "\"0,x\""]),
        ("-m 1 --socket-mem 1", &["--socket-mem", "-m"]),
        ("-l 0 -c 1", &["-c", "-l"]),
        ("-l 0,a", &["\"0,a\"", "number"]),
        ("-l 0,3-1", &["-l", "\"0,3-1\"", "such as 0-1"]),
        ("--huge-dir /nonexistent", &["--huge-dir", "\"/nonexistent\"", "leave it out"]),
        ("-c 0xg", &["\"0xg\"", "hexadecimal"]),
        ("--main-lcore two", &["--main-lcore", "\"two\""]),
        ("--main-lcore 1024", &["--main-lcore", "\"1024\""]),
        ("--file-prefix a/b", &["--file-prefix", "\"a/b\"", "'/'"]),
        ("--file-prefix ..", &["--file-prefix", "\"..\"", "a name"]),
        (
            "--file-prefix a-name-of-more-than-64-bytes-does-not-fit-into-the-path-of-a-socket",
            &["--file-prefix", "at most 64 bytes"],
        ),
        ("--no-huge --require-hugepages", &["--require-hugepages", "--no-huge"]),
        ("--proc-type=secondary", &["--proc-type=secondary", "vhost-user"]),
        ("--proc-type=other", &["--proc-type", "\"other\"", "primary"]),
        ("--iova-mode=pa", &["--iova-mode=pa", "va"]),
        ("--allow=", &["--allow"]),
        ("--vfio-vf-token=x", &["--vfio-vf-token=x", "leave it out"]),
        ("-d librte.so", &["-d librte.so", "built in"]),
        ("--log-level=loud", &["--log-level", "\"loud\"", "debug"]),
        ("extra", &["\"extra\"", "--"]),
        ("-", &["\"-\""]),
    ] {
        let error = parse(line).expect_err(line).to_string();
        for word in words {
            assert!(error.contains(word), "{line}: \"{error}\" lacks \"{word}\"");
        }
    }
}

#[test]
fn help_lists_every_option() {
    let text = EalArgs::help_text();
    for option in OPTIONS {
        let refused = matches!(option.effect, Effect::Refuse(_));
        let listed = text.split([' ', '\n', ',', '[']).any(|word| word == option.name());
        assert_eq!(listed, !refused, "{}", option.name());
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config {
        failure_persistence: None,
        ..proptest::test_runner::Config::default()
    })]
    #[test]
    fn nothing_panics(words in proptest::collection::vec("(-|--)?[a-z0-9@(),=:-]{0,14}", 0..6)) {
        let _ = EalArgs::parse(words.into_iter());
    }
}
