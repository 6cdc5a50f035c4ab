//! testpmd's console through a pipe, as scripts drive it.

mod common;

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use common::{PATIENCE, Running, Said, Scratch, answers, run, testpmd};
use linecard_lab::wait_until;

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
        "io packet forwarding - ports=2 - cores=1 - streams=2 - NUMA support disabled, MP allocation mode: native\n\
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
    let mut command = testpmd(&TWO, &APP);
    let mut running = Running::start(command.stdin(Stdio::piped()));
    let mut typed = running.0.stdin.take().unwrap();
    typed.write_all(b"set record-core-cycles on\nset work-cycles 200\nstart\n").unwrap();
    running.works(Duration::from_millis(300));
    typed.write_all(b"stop\nset record-core-cycles off\nshow fwd stats all\nquit\n").unwrap();
    let said = running.end(PATIENCE);
    let stopped = answer(&said, "stop");
    let (_, line) = stopped.split_once("CPU cycles/packet=").expect("cycles are shown");
    let each: f64 = line.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    assert!(each >= 200.0, "each packet was given 200 cycles: {line}");
    assert!(line.contains("(total cycles=") && line.contains("/ total io packets="), "{line}");
    assert!(!answer(&said, "show fwd stats all").contains("CPU cycles"), "{}", said.out);
}

#[test]
fn bursts_are_counted_by_their_size_when_asked_for() {
    let mut command = testpmd(&TWO, &[&APP[..], &["--record-burst-stats"]].concat());
    let mut running = Running::start(command.stdin(Stdio::piped()));
    let mut typed = running.0.stdin.take().unwrap();
    typed.write_all(b"set burst 7\nstart\n").unwrap();
    running.works(Duration::from_millis(300));
    typed.write_all(b"stop\nset record-burst-stats off\nshow fwd stats all\nstart\n").unwrap();
    typed.write_all(b"set record-burst-stats on\nset record-burst-stats\nstop\nquit\n").unwrap();
    let said = running.end(PATIENCE);
    let (_, stopped) = said.out.split_once("testpmd> stop\r\n").expect("an echo");
    let ports = stopped.split("testpmd> ").next().unwrap();
    for side in ["RX", "TX"] {
        let lines: Vec<_> =
            ports.lines().filter(|line| line.contains(&format!("{side}-bursts : "))).collect();
        assert_eq!(lines.len(), 2, "one a port: {ports}");
        for line in lines {
            assert!(line.ends_with(" [0% of 0 pkts + 100% of 7 pkts]"), "{line}");
        }
    }
    assert!(!answer(&said, "show fwd stats all").contains("-bursts"), "{}", said.out);
    assert_eq!(answer(&said, "set record-burst-stats"), "Bad arguments\n");
    let (_, last) = said.out.rsplit_once("testpmd> stop\r\n").expect("an echo");
    assert!(!last.contains("-bursts"), "nothing was recorded in that run: {last}");
}

/// What the answer to `show port stats` says was received and sent.
fn counted(stats: &str) -> (u64, u64) {
    let of = |name: &str| {
        let (_, rest) = stats.split_once(name).unwrap_or_else(|| panic!("no {name} in {stats}"));
        rest.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
    };
    (of("RX-packets:"), of("TX-packets:"))
}

/// A null port gives frames of zeros without end, and takes all: what a mode does with them can be counted.
#[test]
fn every_mode_receives_and_sends_what_it_should() {
    for mode in ["io", "mac", "macswap", "flowgen", "rxonly", "txonly", "icmpecho", "5tswap", "csum"] {
        let both = || {
            let input = format!("set fwd {mode}\nstart\nstop\nshow port stats 0\nquit\n");
            // Before a start it would otherwise throw away what has come, which counts as received.
            let app = [&APP[..], &["--no-flush-rx"]].concat();
            let said = run(&mut testpmd(&TWO, &app), input.as_bytes());
            counted(answer(&said, "show port stats 0"))
        };
        // No frame of zeros asks for an echo.
        let (receives, sends) = match mode {
            "rxonly" | "icmpecho" => (true, false),
            "txonly" => (false, true),
            _ => (true, true),
        };
        // `stop` may come before a busy machine let both ports have their turn.
        wait_until(&format!("packets by {mode}"), || {
            let (received, sent) = both();
            assert!(receives || received == 0, "{mode} received {received}");
            assert!(sends || sent == 0, "{mode} sent {sent}");
            (received > 0) == receives && (sent > 0) == sends
        });
    }
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
    let sent = || -> u64 {
        let said = console("set fwd txonly\nset txpkts 100,28\nstart\nstop\nshow port xstats 0\nquit\n");
        let xstats = answer(&said, "show port xstats 0");
        let of = |name: &str| -> u64 {
            let line = xstats.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
            line.unwrap_or_else(|| panic!("{name} in {xstats}")).parse().unwrap()
        };
        assert_eq!(of("tx_good_bytes"), 128 * of("tx_good_packets"));
        of("tx_good_packets")
    };
    // `stop` may come before a busy machine let the first burst go.
    assert!((0..20).any(|_| sent() > 0));
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

/// What dpdk-testpmd 22.11 answered to the same lines, to the character.
#[test]
fn answers_have_dpdks_words() {
    let lines = [
        ("set portlist 0,0", "", "duplicated port 0 at index 0 and 1\n"),
        (
            "set portlist 0",
            "previous number of forwarding ports 2 - changed to number of configured ports 1\n\n\n",
            "Warning! port-topology=paired and odd forward ports number, the last port will pair with itself.\n",
        ),
        (
            "set portlist 0,1",
            "previous number of forwarding ports 1 - changed to number of configured ports 2\n",
            "",
        ),
        ("set nbport 9", "", "nb fwd ports 9 > 2 (number of configured ports) - ignored\n"),
        ("set corelist 1,1", "", "duplicated core 1 at index 0 and 1\n"),
        ("port stop all", "Stopping ports...\nChecking link statuses...\nDone\n", ""),
        ("port config all max-pkt-len 2000", "", ""),
        ("port config mtu 1 1400", "", ""),
        ("port config mtu 1 0", "", "MTU: 0 is not in"),
        ("port config all max-pkt-len 3", "", "max_pkt_len 3 invalid"),
        (
            "port attach net_null7",
            "Attaching a new port...\nPort 2 is attached. Now total ports is 3\nDone\n",
            "",
        ),
        (
            "port detach 2",
            "Removing a device...\nPort 2 is closed\nDevice is detached\nNow total ports is 2\nDone\n",
            "Port was not closed\n",
        ),
        ("port close 9", "", "Invalid port 9\n"),
        ("port detach 9", "", "Invalid port_id=9\n"),
        ("foo", "Command not found\n", ""),
        ("show config", "Bad arguments\n", ""),
    ];
    let mut input: String = lines.iter().map(|(line, ..)| format!("{line}\n")).collect();
    input +=
        "port start all\nport start 0\nshow port info 1\nport config mtu 1 1400\nstart tx_first 0\nquit\n";
    let app = ["-i", "--total-num-mbufs=4096"];
    let said = run(&mut testpmd(&[&TWO[..], &["-l", "0,1"]].concat(), &app), input.as_bytes());
    assert_eq!(said.code, Some(0), "{said:?}");
    let eal = [&TWO[..], &["-l", "0,1"]].concat();
    for ((line, out, err), said) in lines.into_iter().zip(answers(&eal, &app, &input)) {
        let (wrong, right): (Vec<_>, Vec<_>) =
            said.split_inclusive('\n').partition(|said| !err.is_empty() && said.contains(err.trim_end()));
        assert_eq!(right.concat(), out, "{line}: {said}");
        assert_eq!(wrong.is_empty(), err.is_empty(), "{line}: {said}");
    }
    let again = answer(&said, "port start all");
    assert!(again.starts_with("Configuring Port 0 (socket 0)\nPort 0: "), "{again}");
    assert_eq!(answer(&said, "port start 0"), "Done\n");
    assert!(said.err.contains("Port 0 is now not stopped\nPlease stop the ports first\n"), "{}", said.err);
    let info = answer(&said, "show port info 1");
    assert!(
        info.contains("\nMTU: 1400\n") && info.contains("\nMax segment number per packet: 255\n"),
        "{info}"
    );
    assert!(info.contains("\nRXDs number alignment: 1"), "{info}");
    assert!(said.err.contains("Please stop port 1 first\n"), "{}", said.err);
    assert!(answer(&said, "start tx_first 0").starts_with("io packet forwarding - ports=2"));
    assert_eq!(said.err.matches("Warning! port-topology=paired and odd forward ports").count(), 1);
}

#[test]
fn all_chosen_lcores_are_listed_like_dpdks() {
    let eal = [&TWO[..], &["--lcores", "0@0,(1,2)@0,10@0"]].concat();
    let said = run(
        &mut testpmd(&eal, &APP),
        b"show config cores\nset corelist 10,1\nshow config cores\nset nbcore 1\nquit\n",
    );
    let answers: Vec<_> = said.out.lines().filter(|line| line.starts_with("List of")).collect();
    assert_eq!(
        answers,
        ["List of forwarding lcores:  1  2 10", "List of forwarding lcores: 10  1"],
        "{said:?}"
    );
}

#[test]
fn every_section_that_help_lists_can_be_asked_for() {
    let said = console("help\nquit\n");
    let sections: Vec<_> = answer(&said, "help")
        .lines()
        .filter_map(|line| line.trim().strip_prefix("help ")?.split(':').next().map(str::trim))
        .collect();
    assert!(sections.contains(&"offload") && sections.contains(&"all"), "{sections:?}");
    let input: String = sections.iter().map(|section| format!("help {section}\n")).collect();
    let said = console(&(input + "quit\n"));
    for section in sections {
        assert!(answer(&said, &format!("help {section}")).len() > 100, "{section}");
    }
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

/// A setting that one port cannot have changes none.
#[test]
fn all_ports_are_configured_or_none() {
    let scratch = Scratch::new();
    let socket = format!("net_vhost1,iface={}", scratch.file("one.sock"));
    let eal = ["-m", "64", "--vdev", "net_null0", "--vdev", &socket];
    let said = run(
        &mut testpmd(&eal, &APP),
        b"port stop all\nport config all rxq 3\nport config all rxd 99999\nport config 0 rxq 0 ring_size 99999\n\
          show config rxtx\nport start all\nquit\n",
    );
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.err.contains("rxq 3 invalid - must be >= 1 && <= 1 on port 1\n"), "{said:?}");
    // As typed, although a ring has at most 65535.
    assert_eq!(said.err.matches("rxd 99999 invalid - must be >= ").count(), 2, "{said:?}");
    let config = answer(&said, "show config rxtx");
    assert!(config.contains("  port 0: RX queue number: 1 "), "{config}");
    assert!(answer(&said, "port start all").contains("Port 0: "), "{said:?}");
}

#[test]
fn modes_that_no_port_has_are_not_confirmed() {
    let said = console(
        "set allmulti all off\nset promisc all off\nset allmulti 0 on\nset allmulti 9 on\nport stop 0\n\
         set promisc 0 off\nport start 0\nshow port info 0\nquit\n",
    );
    for (port, mode) in [(0, "all-multicast"), (1, "all-multicast"), (0, "promiscuous"), (1, "promiscuous")] {
        // The words of dpdk-testpmd 22.11, and why.
        let want = format!(
            "Error during disabling {mode} mode for port {port}: Operation not supported; it receives"
        );
        assert!(said.err.contains(&want), "{said:?}");
    }
    assert!(said.err.contains("Invalid port_id=9"), "{said:?}");
    let info = answer(&said, "show port info 0");
    assert!(info.contains("Promiscuous mode: enabled\nAllmulticast mode: enabled\n"), "{said:?}");
}

/// DPDK finds a driver by the start of a device's name, so scripts for its testpmd have names without a number: they are
/// devices here too. Another name is none.
#[test]
fn a_device_may_be_named_without_a_number_as_in_dpdk() {
    let mut command = testpmd(&["-m", "32", "--vdev", "net_null,size=128"], &["-i"]);
    let said = run(&mut command, b"show port info 0\nquit\n");
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(answer(&said, "show port info 0").contains("\nDevice name: net_null\n"), "{}", said.out);
    let said = run(&mut testpmd(&["-m", "32", "--vdev", "net_nullx"], &["-i"]), b"quit\n");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("no driver for device 'net_nullx'"), "{}", said.err);
}

/// A port that can merge packets says how long they get, others that they do not.
#[test]
fn the_longest_merged_packet_is_told() {
    let scratch = Scratch::new();
    let vhost = format!("net_vhost0,iface={}", scratch.file("lro.sock"));
    let said = run(
        &mut testpmd(&["-m", "64", "--vdev", &vhost, "--vdev", "net_null0"], &["-i"]),
        b"show port info 0\nshow port info 1\nquit\n",
    );
    for (port, most) in [(0, 65_550), (1, 0)] {
        let line = format!("\nMaximum configurable size of LRO aggregated packet: {most}\n");
        let answer = answer(&said, &format!("show port info {port}"));
        assert!(answer.contains(&line), "{answer}");
    }
}

#[test]
fn there_may_be_a_thousand_ports() {
    let devices: Vec<String> = (0..1024).flat_map(|i| ["--vdev".into(), format!("net_null{i}")]).collect();
    let mut eal = vec!["-m", "512"];
    eal.extend(devices.iter().map(String::as_str));
    let app = ["-i", "--rxd=8", "--txd=8", "--total-num-mbufs=40000"];
    let said = run(
        &mut testpmd(&eal, &app),
        b"start\nstop\nport attach net_null1024\nshow port summary 1023\nquit\n",
    );
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(answer(&said, "start").contains("ports=1024 - cores=1 - streams=1024"), "{}", said.err);
    assert!(answer(&said, "show port summary 1023").contains("\n1023 "), "{}", said.err);
    assert!(said.err.contains("1024 ports are attached, the most possible"), "{}", said.err);
}

/// Bursts above what travels together inside are as large as they were confirmed to be.
#[test]
fn a_large_burst_is_done() {
    let mut command = testpmd(&TWO, &[&APP[..], &["--record-burst-stats", "--burst=300"]].concat());
    let mut running = Running::start(command.stdin(Stdio::piped()));
    let mut typed = running.0.stdin.take().unwrap();
    typed.write_all(b"start\n").unwrap();
    running.works(Duration::from_millis(300));
    typed.write_all(b"stop\nquit\n").unwrap();
    let said = running.end(PATIENCE);
    let stopped = answer(&said, "stop");
    for side in ["RX", "TX"] {
        let line = stopped.lines().find(|line| line.contains(&format!("{side}-bursts : ")));
        assert!(line.is_some_and(|line| line.ends_with(" [0% of 0 pkts + 100% of 300 pkts]")), "{stopped}");
    }
}

/// Received packets are shown before the statistics of the run; what was not shown is told.
#[test]
fn packets_are_shown_without_keeping_the_poller() {
    let mut command = testpmd(&TWO, &[&APP[..], &["--burst=2"]].concat());
    let mut running = Running::start(command.stdin(Stdio::piped()));
    let mut typed = running.0.stdin.take().unwrap();
    typed.write_all(b"set verbose 1\nstart\n").unwrap();
    // Nobody reads: packets move all the same.
    running.works(Duration::from_millis(500));
    typed.write_all(b"stop\nset verbose 0\nquit\n").unwrap();
    let said = running.end(PATIENCE);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let (shown, rest) = said.out.split_once("Forward statistics for port 0").expect("statistics");
    assert!(shown.contains("\nport 0/queue 0: received 2 packets\n  src="), "{shown:.2000}");
    assert!(!rest.contains(": received 2 packets"), "all before the statistics");
    let number = |line: &str| line.split(' ').next().and_then(|n| n.parse::<u64>().ok());
    let hidden: u64 =
        shown.lines().filter(|line| line.ends_with("this output takes them")).filter_map(number).sum();
    let seen = 2 * shown.matches(": received 2 packets").count() as u64;
    let (_, all) = rest.split_once("for all ports").expect("a sum");
    let received = all.split("RX-packets: ").nth(1).and_then(number).expect("a count");
    assert_eq!(seen + hidden, received, "every packet is shown or counted");
}

#[test]
fn the_exit_status_says_that_a_line_was_no_command() {
    let scratch = Scratch::new();
    let (bad, good) = (scratch.file("bad"), scratch.file("good"));
    std::fs::write(&bad, "set fwd mac\nset fwd zzz\nfoo\n").unwrap();
    std::fs::write(&good, "set fwd mac\n\n# comment\n").unwrap();
    for (file, code) in [(&bad, 1), (&good, 0)] {
        let option = format!("--cmdline-file={file}");
        let said = run(&mut testpmd(&TWO, &[&APP[..], &[&option]].concat()), b"quit\n");
        assert_eq!(said.code, Some(code), "{said:?}");
        assert_eq!(
            said.err.contains(&format!("error: line 2 of {bad} is no command; ")),
            code == 1,
            "{said:?}"
        );
        assert!(said.out.ends_with("Bye...\n"), "{said:?}");
    }
}
