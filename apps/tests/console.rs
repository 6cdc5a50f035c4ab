//! testpmd's console through a pipe, as scripts drive it.

mod common;

use common::{Said, Scratch, run, testpmd};

const TWO: [&str; 6] = ["-m", "64", "--vdev", "net_null0", "--vdev", "net_null1"];
const APP: [&str; 2] = ["-i", "--total-num-mbufs=4096"];

fn console(input: &str) -> Said {
    let said = run(&mut testpmd(&TWO, &APP), input.as_bytes());
    assert_eq!(said.code, Some(0), "{said:?}");
    said
}

/// What a command printed: the text between its echo and the next prompt.
fn answer<'a>(said: &'a Said, command: &str) -> &'a str {
    let echo = format!("testpmd> {command}\r\n");
    let (_, rest) = said.out.split_once(&echo).unwrap_or_else(|| panic!("no '{command}' in {}", said.out));
    rest.split("testpmd> ").next().unwrap()
}

#[test]
fn a_session_reads_like_dpdks() {
    let said = console("start\nstop\nquit\n");
    assert!(said.out.starts_with("Interactive-mode selected\n"), "{}", said.out);
    assert!(said.out.contains("Configuring Port 0 (socket 0)\nPort 0: "), "{}", said.out);
    assert!(said.out.contains("Checking link statuses...\nDone\ntestpmd> start\r\n"), "{}", said.out);
    let started = answer(&said, "start");
    assert!(started.starts_with(
        "io packet forwarding - ports=2 - cores=1 - streams=2 - NUMA support enabled, MP allocation mode: native\n\
         Logical Core "
    ), "{started}");
    assert!(started.contains("  RX P=0/Q=0 (socket 0) -> TX P=1/Q=0 (socket 0) peer=02:00:00:00:00:01\n"));
    let stopped = answer(&said, "stop");
    assert!(stopped.starts_with(
        "Telling cores to stop...\nWaiting for lcores to finish...\n\n  ---------------------- Forward statistics \
         for port 0  ----------------------\n  RX-packets: "
    ), "{stopped}");
    assert!(
        stopped.ends_with(
            "\n  ++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++\n\nDone.\n"
        ),
        "{stopped}"
    );
    assert!(
        said.out.ends_with("\nShutting down port 1...\nClosing ports...\nPort 1 is closed\nDone\n\nBye...\n"),
        "{}",
        said.out
    );
}

#[test]
fn cycles_are_counted_when_asked_for() {
    let said = console(
        "set record-core-cycles on\nset work-cycles 200\nstart\nstop\nset record-core-cycles off\nshow fwd stats all\nquit\n",
    );
    let stopped = answer(&said, "stop");
    let (_, line) = stopped.split_once("CPU cycles/packet=").expect("cycles are shown");
    let each: f64 = line.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    assert!(each >= 200.0, "each packet was given 200 cycles: {line}");
    assert!(line.contains("(total cycles=") && line.contains("/ total io packets="), "{line}");
    assert!(!answer(&said, "show fwd stats all").contains("CPU cycles"), "{}", said.out);
}

#[test]
fn every_mode_forwards_and_the_pool_is_whole_after_it() {
    for mode in ["io", "mac", "macswap", "flowgen", "rxonly", "txonly", "icmpecho", "5tswap", "csum"] {
        let said = console(&format!(
            "set fwd {mode}\nstart tx_first 2\nstop\nset fwd {mode} retry\nstart\nshow fwd stats all\nstop\n\
             port stop all\nshow pool\nquit\n"
        ));
        assert_eq!(answer(&said, &format!("set fwd {mode}")), format!("Set {mode} packet forwarding mode\n"));
        assert!(answer(&said, "show pool").ends_with("in_use=0\n"), "{mode}: {}", said.out);
        assert_eq!(said.out.matches("Done.\n").count(), 2, "{mode}");
        assert!(!said.err.contains("error"), "{mode}: {}", said.err);
    }
}

#[test]
fn what_is_sent_is_counted() {
    let said = console("set fwd txonly\nset txpkts 100,28\nstart\nstop\nshow port xstats 0\nquit\n");
    let xstats = answer(&said, "show port xstats 0");
    let of = |name: &str| -> u64 {
        let line = xstats.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("{name} in {xstats}")).parse().unwrap()
    };
    assert!(of("tx_good_packets") > 0);
    assert_eq!(of("tx_good_bytes"), 128 * of("tx_good_packets"));
}

#[test]
fn malformed_lines_are_answered_and_survived() {
    let mut input =
        b"foo\nshow\nshow port info\nshow port stats 99999\nstart tx_first -1\nset fwd zzz\nquit now\n"
            .to_vec();
    input.extend_from_slice(
        b"set burst 9999\nset txpkts 10\nset txpkts 0-4294967295\nset corelist 0-4000000000\n",
    );
    input.extend_from_slice(b"\xff\xfe\0\x01\nset fwd \xff\n\0\n\xc3\xa9\n\n# comment\n\tstop\t\r\n");
    input.extend_from_slice(&[b'a'; 300_000]);
    input.extend_from_slice(
        b"\nset nbcore 0\nset burst 0\nstart tx_first 4294967295\nport attach \nport attach x\n",
    );
    input.extend_from_slice(
        b"port attach net_null9,size=-1\nport detach 77\nport close 77\nload /nonexistent\nload /\n",
    );
    input.extend_from_slice(b"show port summary all\nquit");
    let said = run(&mut testpmd(&TWO, &APP), &input);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(answer(&said, "foo"), "Command not found\n");
    assert_eq!(answer(&said, "\u{e9}"), "Command not found\n");
    for line in
        ["show", "show port info", "show port stats 99999", "start tx_first -1", "set fwd zzz", "quit now"]
    {
        assert_eq!(answer(&said, line), "Bad arguments\n", "{line}");
    }
    assert!(answer(&said, "show port summary all").contains("\n1    "), "{}", said.out);
    for part in
        ["9999 > 512", "total packet length=10 < 42", "Invalid port_id=77", "net_null9", "/nonexistent"]
    {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    assert!(!said.err.contains("panicked"), "{}", said.err);
}

#[test]
fn the_end_of_input_stops_and_prints() {
    let said = console("start\n");
    assert!(said.out.contains("testpmd> Telling cores to stop...\n"), "{}", said.out);
    assert!(said.out.ends_with("Bye...\n"));
}

#[test]
fn ports_come_and_go() {
    let said = console(
        "port attach net_null5,size=128\nport stop 0\nport close 0\nshow port summary all\nport start all\nstart\n\
         port stop 1\nstop\nport stop all\nport detach 1\nport detach 2\nshow port summary all\nstart\nquit\n",
    );
    assert_eq!(
        answer(&said, "port attach net_null5,size=128"),
        "Attaching a new port...\nPort 2 is attached. Now total ports is 3\nDone\n"
    );
    assert_eq!(answer(&said, "port close 0"), "Closing ports...\nPort 0 is closed\nDone\n");
    assert!(answer(&said, "show port summary all").starts_with("Number of available ports: 2\n"));
    assert!(said.err.contains("remove port 1 from forwarding"), "{}", said.err);
    assert!(said.out.contains("Number of available ports: 0\n"), "{}", said.out);
    assert!(said.err.contains("attach a port"), "{}", said.err);
}

#[test]
fn several_queues_are_several_streams() {
    let app = [&APP[..], &["--rxq=2", "--txq=2", "--port-topology=loop", "--burst=64"]].concat();
    let said = run(&mut testpmd(&TWO, &app), b"start\nstop\nquit\n");
    assert!(said.out.contains("streams=4"), "{}", said.out);
    assert!(
        said.out.contains("  ------- Forward Stats for RX Port= 1/Queue= 1 -> TX Port= 1/Queue= 1 -------\n")
    );
}

#[test]
fn commands_come_from_files() {
    let scratch = Scratch::new();
    let (first, loop_) = (scratch.file("first"), scratch.file("loop"));
    std::fs::write(&first, "set fwd mac\nset burst 16\n").unwrap();
    std::fs::write(&loop_, format!("load {loop_}\n")).unwrap();
    let file = format!("--cmdline-file={first}");
    let app = [&APP[..], &[&file]].concat();
    let said = run(
        &mut testpmd(&TWO, &app),
        format!("load {loop_}\nload {first}\nshow config fwd\nquit\n").as_bytes(),
    );
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains("testpmd> set fwd mac\r\nSet mac packet forwarding mode\n"), "{}", said.out);
    assert!(said.err.contains("nested 8 deep"), "{}", said.err);
    assert!(answer(&said, "show config fwd").starts_with("mac packet forwarding"));
}

#[test]
fn without_a_console_enter_ends_it() {
    let said = run(&mut testpmd(&TWO, &["--total-num-mbufs=4096", "--tx-first"]), b"\n");
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains("Press enter to exit\n"), "{}", said.out);
    assert!(said.out.ends_with("Bye...\n"), "{}", said.out);
}

#[test]
fn help_describes_every_section() {
    let said = console("help\nhelp all\nquit\n");
    for part in [
        "help control",
        "Display:",
        "Configuration:",
        "Port Operations:",
        "start tx_first <n>",
        "set eth-peer",
    ] {
        assert!(said.out.contains(part), "{part}");
    }
}
