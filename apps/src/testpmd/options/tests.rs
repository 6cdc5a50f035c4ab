use super::*;
use crate::testpmd::frames::TxAddresses;
use crate::testpmd::settings::{Mac, ModeKind, PortTopology};

fn read(line: &str) -> Result<Options, String> {
    let arguments: Vec<OsString> = line.split_whitespace().map(Into::into).collect();
    parse(&arguments).map_err(|e| e.to_string())
}

#[test]
fn the_loopback_script_is_understood() {
    let options =
        read("-i --nb-cores=1 --total-num-mbufs=16384 --txd=1024 --rxd=1024 --txpkts=1518").unwrap();
    assert!(options.interactive && !options.auto_start);
    assert_eq!((options.rx_depth, options.tx_depth), (1024, 1024));
    assert_eq!(options.total_mbufs, Some(16_384));
    assert_eq!(options.settings.tx_segments, [1518]);
}

#[test]
fn values_may_follow_and_short_options_may_be_joined() {
    let options =
        read("-ia --burst 64 --forward-mode mac --port-topology=chained --eth-peer=1,02:00:00:00:00:77");
    let options = options.unwrap();
    assert!(options.interactive && options.auto_start);
    assert_eq!(options.settings.burst, 64);
    assert_eq!(options.settings.mode, ModeKind::Mac);
    assert_eq!(options.settings.topology, PortTopology::Chained);
    assert_eq!(options.settings.peer(1).to_string(), "02:00:00:00:00:77");
    assert_eq!(options.settings.peer(3).to_string(), "02:00:00:00:00:03");
}

#[test]
fn cycles_are_asked_for() {
    let settings = read("--record-core-cycles --work-cycles=100").unwrap().settings;
    assert_eq!((settings.record_cycles, settings.work_cycles), (true, 100));
    assert!(read("--work-cycles=1000001").is_err_and(|e| e.contains("0 to 1000000")));
}

#[test]
fn what_txonly_sends_is_asked_for() {
    let addresses = |line| read(line).map(|options| options.settings.tx_addresses);
    assert_eq!(addresses("-i").unwrap(), TxAddresses::default());
    assert_eq!(addresses("--tx-udp=7").unwrap().udp, (7, 7));
    assert_eq!(addresses("--tx-udp=7,65535").unwrap().udp, (7, 65_535));
    assert_eq!(addresses("--tx-ip=10.0.0.1,10.0.0.2").unwrap().ip, ([10, 0, 0, 1], [10, 0, 0, 2]));
    for line in ["--tx-udp=65536", "--tx-udp=1,", "--tx-udp=", "--tx-ip=10.0.0.1", "--tx-ip=10.0.0.1,x"] {
        assert!(addresses(line).is_err_and(|e| e.contains("invalid")), "{line}");
    }
    assert!(read("--txonly-multi-flow").unwrap().settings.tx_multi_flow);
}

#[test]
fn harmless_options_are_accepted_and_listed() {
    let options =
        read("-i --disable-link-check --numa --rxpt=8 --mp-al native --mbuf-size=2048,4096").unwrap();
    assert!(options.interactive);
    let want = ["--disable-link-check", "--numa", "--rxpt=8", "--mp-alloc=native"];
    assert_eq!(options.ignored[..4], want);
    assert_eq!((options.mbuf_size, options.ignored[4].contains("4096")), (Some(2048), true));
    assert!(read("-i --mbuf-size=2048").unwrap().ignored.is_empty());
}

#[test]
fn long_options_may_be_shortened() {
    let options =
        read("--inter --forward=mac --nb-core=2 --port-top chained --total-num=2000 --tx-u=7").unwrap();
    assert!(options.interactive);
    assert_eq!((options.settings.mode, options.settings.nb_cores), (ModeKind::Mac, 2));
    assert_eq!((options.settings.topology, options.total_mbufs), (PortTopology::Chained, Some(2000)));
    // An exact name, although others begin with it, such as --enable-hw-vlan-filter.
    assert!(read("--enable-hw-vlan").unwrap().vlan.filter);
    assert!(read("--cmdline-file=/x").unwrap().command_file.is_some_and(|(_, echo)| echo));
}

#[test]
fn newer_options_do_what_they_say() {
    let options = read("--disable-device --display-xstats=a,b --flowgen-clones=3 --enable-hw-qinq").unwrap();
    assert!(options.ports_stopped && options.vlan.qinq_strip && !options.vlan.strip);
    assert_eq!((options.shown_xstats.len(), options.settings.flow_clones), (2, 3));
    assert_eq!(read("--burst=0").unwrap().settings.burst, 32);
    let options = read("--rx-offloads=0x223 --tx-offloads=0x10101").unwrap();
    assert!(options.vlan.strip && options.vlan.qinq_strip && options.vlan.filter);
    assert_eq!((options.offloads.rx.bits(), options.offloads.tx.bits()), (2, 0x10000));
    let path = std::env::temp_dir().join(format!("lc-peers-{}", std::process::id()));
    std::fs::write(&path, "02:00:00:00:00:11\n\n02:00:00:00:00:22\n").unwrap();
    let file = |path: &std::path::Path| read(&format!("--eth-peers-configfile={}", path.display()));
    let settings = file(&path).unwrap().settings;
    assert_eq!(settings.peer(1).to_string(), "02:00:00:00:00:22");
    assert_eq!(settings.peer(2), Mac::default_peer(2));
    std::fs::write(&path, "02:00:00:00:00:11\nzz\n").unwrap();
    assert!(file(&path).is_err_and(|e| e.contains("line 2 of") && e.contains("zz")));
    std::fs::remove_file(&path).unwrap();
    assert!(file(&path).is_err_and(|e| e.contains("cannot be read")));
}

#[test]
fn bad_options_are_named() {
    for (line, part) in [
        ("--foo", "--foo"),
        ("-x", "-x"),
        ("foo", "foo"),
        ("--burst=513", "513"),
        ("--burst", "needs a value"),
        ("--burst=-1", "-1"),
        ("--interactive=1", "takes no value"),
        ("--rxd=abc", "abc"),
        ("--rxd=99999999999999999999", "99999999999999999999"),
        ("--rxq=0", "rxq 0"),
        ("--total-num-mbufs=10", "1025"),
        ("--forward-mode=zzz", "io, mac"),
        ("--port-topology=zz", "paired, chained or loop"),
        ("--txpkts=9,x", "9,x"),
        ("--txpkts=10", "< 42"),
        ("--txpkts=3000", "mbuf_data_size=2048"),
        ("--eth-peer=0,zz", "zz"),
        ("--eth-peer=0", "PORT,MAC"),
        ("--portmask=0", "portmask 0"),
        ("--stats-period=x", "stats-period x"),
        ("-i --tx-first", "--tx-first"),
        ("-", "Invalid parameter: -"),
        ("--", "Invalid option"),
        ("--rx", "ambiguous; write one of --rxq, --rxd, --rx-offloads"),
        ("--tx", "--txq"),
        ("--enable-hw-vlan-", "--enable-hw-vlan-filter, --enable-hw-vlan-strip, --enable-hw-vlan-extend"),
        ("--noisy-lkup-memory=-1", "noisy-lkup-memory -1 invalid - must be a number from 0 to 65536"),
        ("--noisy-lkup-num-reads=1", "--noisy-lkup-memory must be > 0"),
        ("--noisy-lkup-num-writes=65536 --noisy-lkup-memory=1", "from 0 to 65535"),
        ("--noisy-tx-sw-buffer-size=100", "must be 0 or a power of two"),
        ("--noisy-tx-sw-buffer-flushtime=x", "noisy-tx-sw-buffer-flushtime x invalid"),
        ("--noisy-forward-mode=csum", "must be io, mac, macswap or 5tswap"),
        ("--noisy", "ambiguous"),
        ("--hairpinq=1", "not supported here: --hairpinq; instead: "),
        ("--latency=x", "latencystats x invalid"),
        ("--num-procs 2", "not supported here: --num-procs"),
        ("--rxpkts=64,x", "character x is not a decimal digit"),
        ("--rxpkts=1,2,3,4,5,6,7,8,9", "Number of segment lengths = 9 > 8 (maximum items)"),
        ("--rxpkts=70000", "length[0]=70000 > UINT16_MAX - give up"),
        ("--mbuf-size=2048,", "mbuf-size  invalid"),
        ("--mbuf-size=2048,99999", "99999"),
        ("--flowgen-clones=512", "0 to 511"),
        ("--display-xstats=,", "names separated by commas"),
        ("--numa=1", "takes no value"),
        ("--rxpt", "needs a value"),
    ] {
        let error = read(line).err().unwrap_or_else(|| panic!("{line} was accepted"));
        assert!(error.contains(part), "{line}: {error}");
        assert_eq!(error.lines().count(), 1, "{line}: {error}");
    }
}

#[test]
fn help_names_every_option_once() {
    let text = help();
    for spec in OPTIONS {
        let name = format!("--{}", spec.name);
        assert!(text.lines().any(|l| l.split([' ', '=']).any(|w| w == name)), "{name}");
    }
}

proptest::proptest! {
    #[test]
    fn no_option_text_panics(words in proptest::collection::vec("(--?[a-z-]{0,12}(=[ -~]{0,12})?|.{0,8})", 0..6)) {
        let arguments: Vec<OsString> = words.into_iter().map(Into::into).collect();
        let _ = parse(&arguments);
    }
}
