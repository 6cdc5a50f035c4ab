//! Telemetry of a running testpmd: DPDK's own client, options, ports that come and go.

mod common;

use std::io::{Read as _, Write as _};
use std::process::{ChildStdin, Command, Stdio};

use common::{PATIENCE, Running, Said, Scratch, eventually, linecard, run, running_switch, skip, testpmd};
use serde_json::Value;

const CLIENT: &str = "dpdk-telemetry.py";

/// A testpmd with a runtime folder of its own.
struct Program {
    running: Running,
    console: ChildStdin,
    scratch: Scratch,
}

impl Program {
    fn start(eal: &[&str], app: &[&str]) -> Self {
        let scratch = Scratch::new();
        let mut eal_args = vec!["-m", "64", "--file-prefix", "lc"];
        eal_args.extend(eal);
        let mut command = testpmd(&eal_args, &[&["-i", "-a"], app].concat());
        command.env("RUNTIME_DIRECTORY", scratch.path()).env("XDG_RUNTIME_DIR", scratch.path());
        command.stdin(Stdio::piped()).stdout(std::fs::File::create(scratch.file("out")).unwrap());
        let mut running = Running::start(&mut command);
        let console = running.0.stdin.take().unwrap();
        let program = Self { running, console, scratch };
        eventually("a prompt", || program.out().contains("testpmd> "));
        program
    }

    fn out(&self) -> String {
        std::fs::read_to_string(self.scratch.file("out")).unwrap()
    }

    fn type_line(&mut self, line: &str) {
        let before = self.out().matches("testpmd> ").count();
        writeln!(self.console, "{line}").unwrap();
        eventually("the next prompt", || self.out().matches("testpmd> ").count() > before);
    }

    fn client(&self, arguments: &[&str], input: &str) -> Said {
        let mut command = Command::new(CLIENT);
        command.args(arguments).env("RUNTIME_DIRECTORY", self.scratch.path());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        run(&mut command, input.as_bytes())
    }

    /// What DPDK's client is answered.
    fn ask(&self, request: &str) -> Value {
        let said = self.client(&["-f", "lc"], &format!("{request}\nquit\n"));
        let answer = said.out.lines().find_map(|line| serde_json::from_str::<Value>(line).ok());
        answer.unwrap_or_else(|| panic!("{said:?}"))[request.split(',').next().unwrap()].take()
    }

    fn quit(mut self) {
        writeln!(self.console, "quit").unwrap();
        let said = self.running.end(PATIENCE);
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(!self.scratch.path().join("dpdk/lc").exists(), "nothing is left behind");
    }
}

/// Whether the test has to be skipped for want of a program.
fn lacks(test: &str, program: &str, package: &str) -> bool {
    let there = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).exists()));
    if !there {
        skip(test, &format!("no program '{program}' on this machine; install {package}"));
    }
    !there
}

#[test]
fn dpdks_client_finds_a_program_and_reads_its_counters() {
    if lacks("dpdks_client_finds_a_program_and_reads_its_counters", CLIENT, "dpdk") {
        return;
    }
    let mut program =
        Program::start(&["--vdev", "net_null0", "--vdev", "net_null1"], &["--record-core-cycles"]);
    let listed = program.client(&["--list"], "");
    assert!(listed.out.contains("\nlc\n") && listed.out.contains("dpdk_telemetry.v2"), "{listed:?}");
    // Its own console, as people use it: the requests of a file, each answered in a line.
    let requests = "/ethdev/list\n/ethdev/stats,0\n/ethdev/xstats,1\n/ethdev/info,0\n/ethdev/link_status,1\n/info\n\
                    /mempool/list\n/mempool/info,mb_pool_0\n/eal/params\n/nonsense\nquit\n";
    let said = program.client(&["-f", "lc"], requests);
    assert_eq!(said.code, Some(0), "{said:?}");
    let answers: Vec<Value> = said.out.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of = |path: &str| {
        let found = answers.iter().find_map(|answer| answer.get(path));
        found.unwrap_or_else(|| panic!("no {path} in {}", said.out))
    };
    assert_eq!(of("/ethdev/list"), &serde_json::json!([0, 1]));
    assert!(of("/ethdev/stats")["ipackets"].as_u64() > Some(0));
    assert_eq!(of("/ethdev/info")["name"], "net_null0");
    assert_eq!(of("/ethdev/link_status")["status"], "UP");
    assert!(of("/ethdev/xstats")["tx_q0_packets"].as_u64() > Some(0));
    assert_eq!(of("/info")["pid"], program.running.0.id());
    assert_eq!(of("/mempool/info")["name"], "mb_pool_0");
    assert_eq!(of("/nonsense"), &Value::Null);
    let words: Vec<&str> = of("/eal/params").as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(
        words.starts_with(&["testpmd", "--no-huge"]) && words.ends_with(&["--vdev", "net_null1"]),
        "{words:?}"
    );
    // Time on the lcore, while it is counted.
    let usage = program.ask("/eal/lcore/usage");
    assert!(usage["busy_cycles"][0].as_u64() > Some(0), "{usage}");
    assert!(usage["busy_cycles"][0].as_u64() <= usage["total_cycles"][0].as_u64(), "{usage}");
    // Ports that stop, go and come.
    program.type_line("stop");
    program.type_line("port stop 0");
    assert_eq!(program.ask("/ethdev/info,0")["dev_started"], 0);
    assert_eq!(program.ask("/ethdev/link_status,0")["status"], "DOWN");
    assert_eq!(program.ask("/eal/lcore/usage")["lcore_ids"], serde_json::json!([]));
    program.type_line("port close 0");
    assert_eq!(program.ask("/ethdev/list"), serde_json::json!([1]));
    program.type_line("port attach net_null2");
    program.type_line("port start all");
    assert_eq!(program.ask("/ethdev/info,0")["name"], "net_null2");
    program.quit();
}

#[test]
fn there_is_no_socket_where_none_is_wanted() {
    for (option, wanted) in [("--no-telemetry", false), ("--in-memory", false), ("--telemetry", true)] {
        let program = Program::start(&["--vdev", "net_null0", option], &[]);
        let socket = program.scratch.path().join("dpdk/lc/dpdk_telemetry.v2");
        assert_eq!(socket.exists(), wanted, "{option}");
        program.quit();
    }
}

#[test]
fn a_place_nobody_can_listen_at_is_refused_with_a_remedy() {
    for address in
        ["", "9460", "nohost", "127.0.0.1:99999", "unix:", "unix:/nonexistent/socket", ":", "[::1", "unix"]
    {
        let said = run(&mut testpmd(&["--in-memory", "--vdev", "net_null0"], &["--metrics", address]), b"");
        assert_ne!(said.code, Some(0), "{address}");
        let lines: Vec<&str> = said.err.lines().filter(|line| line.contains("counters")).collect();
        assert_eq!(lines.len(), 1, "{address}: {said:?}");
        assert!(lines[0].contains("name another place"), "{address}: {said:?}");
    }
}

impl Program {
    /// `linecard top` for this program, to the end.
    fn top(&self, arguments: &[&str]) -> Said {
        let mut command = linecard(&[&["top"], arguments].concat());
        command.env("RUNTIME_DIRECTORY", self.scratch.path());
        run(&mut command, b"")
    }
}

#[test]
fn top_shows_rates_queues_lcores_and_pools() {
    let devices = ["--vdev", "net_null0", "--vdev", "net_null1"];
    let mut program = Program::start(&devices, &["--rxq=2", "--txq=2", "--record-core-cycles"]);
    let said = program.top(&["--file-prefix", "lc", "--count", "2", "--json"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let looks: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(looks.len(), 2, "{said:?}");
    let look = &looks[1];
    assert_eq!(look["pid"], program.running.0.id());
    let port = &look["ports"][0];
    assert_eq!((&port["device"], &port["up"]), (&"net_null0".into(), &true.into()));
    assert!(
        port["rx_packets"].as_u64() > Some(0) && port["rx_bits"].as_u64() > port["rx_packets"].as_u64(),
        "{port}"
    );
    assert_eq!(port["queues"].as_object().unwrap().len(), 2, "{port}");
    assert!(
        look["lcores"][0]["percent"].as_u64().is_some_and(|percent| (1..=100).contains(&percent)),
        "{look}"
    );
    assert_eq!(look["pools"][0]["name"], "mb_pool_0");
    // For people: no escape sequence where there is no terminal.
    let pid = program.running.0.id().to_string();
    let said = program.top(&["--pid", &pid, "--once"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    for words in ["rx packets", "net_null1", "queue 1", "busy: lcore", "pool mb_pool_0: "] {
        assert!(said.out.contains(words), "{words}: {}", said.out);
    }
    assert!(!said.out.contains('\x1b'), "{:?}", said.out);
    assert!(said.out.lines().all(|line| !line.ends_with(' ')), "{:?}", said.out);
    // A port that is gone is not there any more, and nothing fails for it.
    program.type_line("stop");
    program.type_line("port stop 1");
    program.type_line("port close 1");
    let said = program.top(&["--once"]);
    assert!(said.code == Some(0) && !said.out.contains("net_null1"), "{said:?}");
    program.quit();
}

#[test]
fn top_says_which_programs_run_and_what_is_wrong() {
    let program = Program::start(&["--vdev", "net_null0"], &[]);
    for (arguments, code, words) in [
        (&["--pid", "1"][..], 1, "no program 1 with telemetry runs"),
        (&["--file-prefix", "other"], 1, "--file-prefix other runs"),
        (&["--interval", "0"], 2, "--interval"),
        (&["--interval", "x"], 2, "--interval"),
        (&["--count", "0"], 2, "--count"),
        (&["--once", "--count", "3"], 2, "--once"),
        (&["--pid", "-1"], 2, "`linecard top --help`"),
        (&["extra"], 2, "extra"),
        (&["--jsn"], 2, "--jsn"),
    ] {
        let said = program.top(arguments);
        assert_eq!(said.code, Some(code), "{arguments:?}: {said:?}");
        assert!(said.err.contains(words) && said.err.lines().count() == 1, "{arguments:?}: {said:?}");
    }
    // A second program of the same prefix.
    let mut other = testpmd(&["-m", "64", "--file-prefix", "lc", "--vdev", "net_null1"], &["-i"]);
    other.env("RUNTIME_DIRECTORY", program.scratch.path()).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut other = Running::start(&mut other);
    eventually("its socket", || program.scratch.path().join("dpdk/lc/dpdk_telemetry.v2:1").exists());
    let said = program.top(&["--once"]);
    assert!(said.code == Some(2) && said.err.contains("2 programs run: "), "{said:?}");
    drop(other.0.stdin.take());
    assert_eq!(other.end(PATIENCE).code, Some(0));
    program.quit();
}

/// A switch with a runtime folder of its own, and a control socket in it.
struct RunningSwitch {
    running: Running,
    scratch: Scratch,
}

impl RunningSwitch {
    fn start(arguments: &[&str]) -> Self {
        let scratch = Scratch::new();
        let socket = scratch.file("switch.sock");
        let fixed =
            ["switch", "--no-huge", "-m", "64", "--packets", "2048", "--socket", &socket, "--state", "none"];
        let running = running_switch(linecard(&[&fixed, arguments].concat()), &scratch);
        Self { running, scratch }
    }

    fn out(&self) -> String {
        std::fs::read_to_string(self.scratch.file("out")).unwrap()
    }

    fn ctl(&self, arguments: &[&str]) -> Said {
        let socket = self.scratch.file("switch.sock");
        let said = run(&mut linecard(&[&["switch", "ctl", "--socket", &socket], arguments].concat()), b"");
        assert_eq!(said.code, Some(0), "{said:?}");
        said
    }

    /// What DPDK's client is answered; null while the switch has not told of a change yet.
    fn ask(&self, request: &str) -> Value {
        let mut command = Command::new(CLIENT);
        command.args(["-f", "switch"]).env("RUNTIME_DIRECTORY", self.scratch.path());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let said = run(&mut command, format!("{request}\nquit\n").as_bytes());
        let answer = said.out.lines().find_map(|line| serde_json::from_str::<Value>(line).ok());
        answer.unwrap_or_else(|| panic!("{said:?}"))[request.split(',').next().unwrap()].take()
    }

    fn end(self) {
        self.running.signal(rustix::process::Signal::TERM);
        let said = self.running.end(PATIENCE);
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(!self.scratch.path().join("dpdk/switch").exists(), "nothing is left behind");
    }
}

#[test]
fn a_switch_tells_of_its_ports_as_they_come_and_go() {
    let test = "a_switch_tells_of_its_ports_as_they_come_and_go";
    if lacks(test, CLIENT, "dpdk") {
        return;
    }
    // What comes of the null device has no address that a station may have, so all of it is dropped by the switch.
    let switch = RunningSwitch::start(&["--vdev", "net_null0,size=64", "--metrics", "127.0.0.1:0"]);
    eventually("frames", || switch.ask("/ethdev/stats,0")["ipackets"].as_u64() > Some(1000));
    assert_eq!(switch.ask("/ethdev/list"), serde_json::json!([0]));
    assert_eq!(switch.ask("/ethdev/info,0")["name"], "net_null0");
    assert_eq!(switch.ask("/mempool/list"), serde_json::json!(["switch"]));
    let path = switch.scratch.file("added.sock");
    switch.ctl(&["add", "vm1", "--port", &path]);
    eventually("the port", || switch.ask("/ethdev/list") == serde_json::json!([0, 1]));
    assert_eq!(switch.ask("/ethdev/info,1")["name"], "vm1");
    assert_eq!(switch.ask("/ethdev/link_status,1")["status"], "DOWN");
    switch.ctl(&["remove", "vm1"]);
    eventually("no port", || switch.ask("/ethdev/list") == serde_json::json!([0]));
    // Another one of the same name is told as well.
    switch.ctl(&["add", "vm1", "--port", &path]);
    eventually("the port", || switch.ask("/ethdev/info,1")["dev_started"] == 1);
    let dropped: u64 = switch
        .ask("/linecard/drops")
        .as_array()
        .map_or(0, |all| all.iter().filter_map(|drops| drops["packets"].as_u64()).sum());
    assert!(dropped > 0, "{}", switch.ask("/linecard/drops"));
    // The same counters for Prometheus, beside the switch's own, in one text.
    let out = switch.out();
    let (_, address) = out.split_once("; counters at ").expect("an address");
    let mut client = std::net::TcpStream::connect(address.trim()).unwrap();
    client.write_all(b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    for line in [
        "linecard_switch_port_received_packets_total{port=\"net_null0\"}",
        "linecard_port_received_packets_total{port=\"0\",device=\"net_null0\"}",
        "linecard_pool_packets{pool=\"switch\"",
        "linecard_lcore_busy_cycles_total{lcore=",
    ] {
        assert!(answer.contains(line), "{line} in {answer}");
    }
    assert_eq!(answer.matches("# EOF").count(), 1);
    let mut top = linecard(&["top", "--file-prefix", "switch", "--once", "--json"]);
    top.env("RUNTIME_DIRECTORY", switch.scratch.path());
    let said = run(&mut top, b"");
    let look: Value = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    assert!(look["ports"][0]["rx_packets"].as_u64() > Some(0), "{look}");
    // A worker that finds frames whenever it looks is busy nearly all the time; one without ports that bring any is idle.
    assert!(look["lcores"][0]["percent"].as_u64() >= Some(50), "{look}");
    switch.ctl(&["remove", "net_null0"]);
    let cycles = || {
        let usage = switch.ask("/eal/lcore/usage");
        ["busy_cycles", "total_cycles"].map(|name| usage[name][0].as_u64().expect("a worker"))
    };
    let mut before = cycles();
    eventually("an idle worker", || {
        let now = cycles();
        let earlier = std::mem::replace(&mut before, now);
        assert!(now[0] >= earlier[0] && now[1] > earlier[1] && now[0] <= now[1], "{earlier:?} {now:?}");
        now[0] == earlier[0]
    });
    switch.end();
}

#[test]
fn a_switch_makes_no_telemetry_socket_where_none_is_wanted() {
    let switch = RunningSwitch::start(&["--no-telemetry"]);
    assert!(!switch.scratch.path().join("dpdk").exists());
    switch.end();
}

#[test]
fn a_switch_that_took_over_has_the_name_of_the_earlier_one() {
    let test = "a_switch_that_took_over_has_the_name_of_the_earlier_one";
    if lacks(test, CLIENT, "dpdk") {
        return;
    }
    let switch = RunningSwitch::start(&["--metrics", "127.0.0.1:0"]);
    let path = switch.scratch.file("vm.sock");
    switch.ctl(&["add", "vm1", "--port", &path]);
    eventually("the port", || switch.ask("/ethdev/list") == serde_json::json!([0]));
    let socket = switch.scratch.file("switch.sock");
    let mut next = linecard(&[
        "switch",
        "--take-over",
        "--no-huge",
        "-m",
        "64",
        "--packets",
        "2048",
        "--socket",
        &socket,
        "--state",
        "none",
    ]);
    next.env("RUNTIME_DIRECTORY", switch.scratch.path()).stdout(Stdio::null());
    let next = Running::start(&mut next);
    let pid = next.0.id();
    let socket = switch.scratch.path().join("dpdk/switch/dpdk_telemetry.v2");
    let RunningSwitch { running, scratch } = switch;
    let said = running.end(PATIENCE);
    assert_eq!(said.code, Some(0), "{said:?}");
    let switch = RunningSwitch { running: next, scratch };
    eventually("its socket", || socket.exists());
    assert_eq!(switch.ask("/info")["pid"], pid);
    eventually("the port", || switch.ask("/ethdev/info,0")["name"] == "vm1");
    switch.end();
}
