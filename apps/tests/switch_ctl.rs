//! Every verb of `linecard switch ctl`, run as a command: its answer for people, the same as JSON, and what it says of lines that
//! are wrong; and that the control socket answers its own user and root, and nobody else.

mod common;

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;
use std::sync::{Arc, Mutex};

use common::{PATIENCE, Running, Said, Scratch, eventually, frames, linecard, run, running_switch, skip};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};
use serde_json::{Value, json};

/// A switch with a folder of its own; two workers, one core.
struct Switch {
    running: Running,
    scratch: Scratch,
}

const FIXED: [&str; 8] =
    ["switch", "--no-huge", "-m", "256", "--packets", "2048", "--no-telemetry", "--socket"];

impl Switch {
    fn start(arguments: &[&str]) -> Self {
        let scratch = Scratch::new();
        let socket = scratch.file("switch.sock");
        let lcores = ["--lcores", "0@0,1@0"];
        Self::started(scratch, |_| linecard(&[&FIXED[..], &[&socket], &lcores, arguments].concat()))
    }

    fn started(scratch: Scratch, command: impl FnOnce(&Scratch) -> Command) -> Self {
        let running = running_switch(command(&scratch), &scratch);
        Self { running, scratch }
    }

    /// What `ctl` says, however it ends.
    fn ctl(&self, arguments: &[&str]) -> Said {
        let socket = self.scratch.file("switch.sock");
        let mut command = linecard(&[&["switch", "ctl", "--socket", &socket], arguments].concat());
        command.env("RUNTIME_DIRECTORY", self.scratch.path()).env("XDG_RUNTIME_DIR", self.scratch.path());
        run(&mut command, b"")
    }

    /// Its answer for people; nothing else is said.
    fn text(&self, arguments: &[&str]) -> String {
        let said = self.ctl(arguments);
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{arguments:?}: {said:?}");
        assert!(said.out.lines().all(|line| line == line.trim_end()), "{arguments:?}: {:?}", said.out);
        said.out
    }

    /// Its answer as JSON, and nothing beside it.
    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.text(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    /// Lines that are wrong: each with its exit code and a part of the one sentence it is answered.
    fn refuses(&self, lines: &[(&[&str], i32, &str)]) {
        for (arguments, code, words) in lines {
            for form in [&[][..], &["--json"]] {
                let said = self.ctl(&[arguments, form].concat());
                assert_eq!(said.code, Some(*code), "{arguments:?}: {said:?}");
                assert!(said.err.contains(words), "{arguments:?} is not answered '{words}': {said:?}");
                assert_eq!((said.err.lines().count(), said.out.as_str()), (1, ""), "{arguments:?}: {said:?}");
            }
        }
    }

    fn end(self) {
        self.running.signal(rustix::process::Signal::TERM);
        let said = self.running.end(PATIENCE);
        assert_eq!(said.code, Some(0), "{said:?}");
    }
}

/// Each port of it is there, quiet, with two queues.
fn with_ports(keys: &[&str]) -> Switch {
    let switch = Switch::start(&[]);
    for (number, key) in keys.iter().enumerate() {
        let spec = json!({"type": "vdev", "device": format!("net_null{number},no-rx=1"), "queues": 2});
        assert_eq!(switch.json(&["add", key, "--spec", &spec.to_string()])["created"], true);
    }
    switch
}

#[test]
fn ports_are_added_shown_and_removed() {
    let switch = Switch::start(&["--vdev", "net_null0,no-rx=1"]);
    let path = switch.scratch.file("a.sock");
    let option = format!("{path},mac=02:00:00:00:00:01,vlan=5");
    let added = switch.json(&["add", "a", "--port", &option]);
    assert_eq!((&added["created"], &added["port"]["key"]), (&json!(true), &json!("a")), "{added}");
    assert_eq!(switch.json(&["add", "a", "--port", &option])["created"], false);
    assert!(switch.text(&["add", "a", "--port", &option]).starts_with("a was attached already: net_vhost"));
    assert!(switch.text(&["add", "b", "--vdev", "net_null1,no-rx=1"]).starts_with("b attached: net_null1"));

    let shown = switch.json(&["show", "a"]);
    assert_eq!(shown, added["port"]);
    assert_eq!(
        (&shown["state"], &shown["type"], &shown["path"], &shown["vlan"]["access"]),
        (&json!("down"), &json!("vhost-user"), &json!(path), &json!(5)),
        "{shown}"
    );
    assert!(shown["counters"]["drops"]["port_down"].is_u64(), "{shown}");
    let text = switch.text(&["show", "a"]);
    for words in ["key        a\n", "state      down\n", "vlan       5\n", "mac        02:00:00:00:00:01\n"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let ports = switch.json(&["ports"]);
    let keys: Vec<&Value> = ports.as_array().expect("a list").iter().map(|port| &port["key"]).collect();
    assert_eq!(keys, ["a", "b", "net_null0"]);
    let text = switch.text(&["ports"]);
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(text.starts_with("KEY ") && text.contains("net_null1,no-rx=1"), "{text}");
    let stats = switch.json(&["stats"]);
    assert_eq!((&stats["workers"], &stats["addresses"]), (&json!(2), &json!(1)), "{stats}");
    assert_eq!(stats["ports"].as_array().map(Vec::len), Some(3));
    assert!(switch.text(&["stats"]).contains(" 2 workers, 1 addresses\n"));

    switch.refuses(&[
        (&["show"], 2, "KEY"),
        (
            &["show", "nobody"],
            1,
            "there is no port 'nobody'; `port.list` (`linecard switch ctl ports`) names all ports",
        ),
        (&["show", "a\nb"], 1, "there is no port 'a\\nb'"),
        (&["ports", "a"], 2, "'a'"),
        (&["add", "c"], 2, "--port"),
        (&["add", "c", "--tap", "t", "--vdev", "net_null3"], 2, "--vdev"),
        (&["add", "c", "--vdev", "net_nothing"], 1, "net_nothing"),
        (&["add", "c", "--port", "/a,vlan=5,vlan=6"], 2, "'vlan=5' and 'vlan=6' of port"),
        (&["add", "c", "--port", "/a,key=d"], 2, "the port's key is 'c', and 'd' in what follows"),
        (
            &["add", "c", "--spec", r#"{"key": "d", "type": "tap", "name": "x"}"#],
            2,
            "the port's key is 'c', and 'd'",
        ),
        (
            &["add", "c", "--spec", r#"{"type": "tap", "name": "x", "vlan": 7}"#],
            2,
            r#"'vlan' cannot be 7; give {"access": 10}"#,
        ),
        (&["add", "c", "--spec", "{"], 2, "--spec is no JSON"),
        (&["add", "c", "--spec", "[]"], 2, ""),
        (&["add", "c", "--spec", r#"{"type":"tap"}"#], 2, "name"),
        (&["add", "c", "--port", "/tmp/x,mac=x"], 2, "mac"),
        (
            &["add", "a", "--vdev", "net_null3"],
            1,
            "port 'a' is there already, with other parameters; remove it first",
        ),
        (&["add", "c", "--port", "/no/such/folder/s"], 1, "/no/such/folder"),
        (&["add", "c", "--vdev", "net_null3", "--pass"], 2, "only a tap is made here; leave out --pass"),
        (&["remove"], 2, "KEY"),
        (&["stats", "--nonsense"], 2, "--nonsense"),
    ]);
    assert_eq!(switch.json(&["ports"]).as_array().map(Vec::len), Some(3), "nothing of it came to be");

    assert_eq!(switch.json(&["remove", "a"]), json!(true));
    assert_eq!(switch.json(&["remove", "a"]), json!(false));
    assert_eq!(switch.text(&["remove", "b"]), "b detached\n");
    assert_eq!(switch.text(&["remove", "b"]), "b is not there\n");
    switch.end();
}

#[test]
fn addresses_are_put_in_listed_and_forgotten() {
    let switch = with_ports(&["a", "b"]);
    let entry = switch.json(&["fdb", "add", "02:00:00:00:00:07", "a"]);
    let want = json!({"mac": "02:00:00:00:00:07", "vlan": 0, "port": "a", "fixed": true, "age_seconds": 0});
    assert_eq!(entry, want);
    let text = switch.text(&["fdb", "add", "02:00:00:00:00:08", "b"]);
    assert!(text.contains("\n02:00:00:00:00:08  -     b     fixed\n"), "{text}");
    assert_eq!(switch.json(&["fdb"]).as_array().map(Vec::len), Some(2));
    assert_eq!(switch.json(&["fdb", "--port", "a"]), json!([want]));
    assert_eq!(switch.json(&["fdb", "--mac", "02:00:00:00:00:09"]), json!([]));
    assert_eq!(switch.json(&["fdb", "--vlan", "5"]), json!([]));
    assert_eq!(switch.text(&["fdb", "--port", "b"]).lines().count(), 2);
    // Only what was learned is flushed.
    assert_eq!((switch.json(&["flush"]), switch.json(&["fdb", "flush"])), (json!(0), json!(0)));
    assert_eq!(switch.text(&["flush", "--port", "a"]), "0 addresses forgotten\n");

    switch.refuses(&[
        (&["fdb", "add", "02:00:00:00:00:09"], 2, "KEY"),
        (&["fdb", "add", "nonsense", "a"], 2, "nonsense"),
        (&["fdb", "add", "01:00:5e:00:00:01", "a"], 1, "is the address of no station; give an address whose"),
        (&["fdb", "add", "02:00:00:00:00:09", "nobody"], 1, "there is no port 'nobody'"),
        (
            &["fdb", "add", "02:00:00:00:00:09", "a", "--vlan", "7"],
            1,
            "port 'a' is not in VLAN 7; name a VLAN",
        ),
        (&["fdb", "add", "02:00:00:00:00:09", "a", "--vlan", "x"], 2, "--vlan"),
        (
            &["fdb", "add", "02:00:00:00:00:07", "b"],
            1,
            "02:00:00:00:00:07 belongs to another port; delete it",
        ),
        (&["fdb", "del"], 2, "MAC"),
        (&["fdb", "del", "zz"], 2, "zz"),
        (&["fdb", "--port", "nobody"], 1, "there is no port 'nobody'"),
        (&["fdb", "--mac", "x"], 2, "--mac"),
        (&["flush", "--port", "nobody"], 1, "there is no port 'nobody'"),
        (&["flush", "--vlan", "70000"], 2, "--vlan"),
        (&["fdb", "flush", "extra"], 2, "extra"),
    ]);

    assert_eq!(switch.json(&["fdb", "del", "02:00:00:00:00:07"]), json!(true));
    assert_eq!(switch.json(&["fdb", "del", "02:00:00:00:00:07"]), json!(false));
    assert_eq!(switch.text(&["fdb", "del", "02:00:00:00:00:08"]), "02:00:00:00:00:08 forgotten\n");
    assert_eq!(switch.text(&["fdb", "del", "02:00:00:00:00:08"]), "02:00:00:00:00:08 is not known\n");
    assert_eq!(switch.json(&["fdb"]), json!([]));
    switch.end();
}

/// Which worker polls a queue.
fn worker_of(switch: &Switch, port: &str, queue: u64) -> u64 {
    let workers = switch.json(&["workers"]);
    let found = workers.as_array().expect("a list").iter().find(|worker| {
        let queues = worker["queues"].as_array().expect("a list");
        queues.iter().any(|polled| polled["port"] == port && polled["queue"] == queue)
    });
    found.unwrap_or_else(|| panic!("nobody polls it: {workers}"))["id"].as_u64().expect("a number")
}

#[test]
fn queues_are_moved_by_hand_and_by_load() {
    let switch = with_ports(&["quiet"]);
    let workers = switch.json(&["workers"]);
    assert_eq!((workers.as_array().map(Vec::len), &workers[1]["cores"]), (Some(2), &json!([0])), "{workers}");
    let text = switch.text(&["workers"]);
    assert!(text.starts_with("WORKER  CORES  PORT") && text.lines().count() == 3, "{text}");
    for worker in [1, 0, 1] {
        let number = worker.to_string();
        let moved = switch.json(&["move", "quiet", &number, "--queue", "1"]);
        assert_eq!(moved, json!({"port": "quiet", "queue": 1, "worker": worker}));
        assert_eq!(worker_of(&switch, "quiet", 1), worker);
    }
    assert_eq!(switch.text(&["move", "quiet", "0"]), "queue 0 of quiet is worker 0's\n");
    // Nothing comes from these.
    assert_eq!(switch.json(&["rebalance", "--seconds", "1"]), json!([]));
    assert_eq!(switch.text(&["rebalance", "--seconds", "1"]), "every queue stays where it is\n");
    // Two that bring frames all the time, both worker 0's: it keeps one of them.
    for (key, device) in [("one", "net_null7"), ("two", "net_null8")] {
        switch.text(&["add", key, "--vdev", device]);
        switch.text(&["move", key, "0"]);
    }
    let moves = switch.json(&["rebalance", "--seconds", "1"]);
    let moved: Vec<&Value> = moves.as_array().expect("a list").iter().collect();
    assert!(moved.len() == 1 && moved[0]["worker"] == 1 && moved[0]["port"] != "quiet", "{moves}");
    assert_ne!(worker_of(&switch, "one", 0), worker_of(&switch, "two", 0));

    switch.refuses(&[
        (&["workers", "0"], 2, "'0'"),
        (&["move", "quiet"], 2, "WORKER"),
        (&["move", "quiet", "x"], 2, "'x'"),
        (&["move", "quiet", "2"], 1, "there is no worker 2; the last one is 1; `workers` lists all"),
        (&["move", "nobody", "0"], 1, "there is no port 'nobody'"),
        (&["move", "quiet", "0", "--queue", "9"], 1, "port 'quiet' has no receive queue 9; it has 2"),
        (&["move", "quiet", "-1"], 2, ""),
        (&["rebalance", "--seconds", "0"], 2, "--seconds"),
        (&["rebalance", "--seconds", "x"], 2, "--seconds"),
    ]);
    switch.end();
}

#[test]
fn top_and_mirror_show_what_passes() {
    let switch = Switch::start(&["--vdev", "net_null0,size=64", "--vdev", "net_null1,no-rx=1"]);
    let said = switch.ctl(&["top", "--count", "2", "--json"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let looks: Vec<Value> =
        serde_json::Deserializer::from_str(&said.out).into_iter().map(|look| look.expect("JSON")).collect();
    assert_eq!(looks.len(), 2, "{said:?}");
    for look in &looks {
        let busy = &look[0];
        assert_eq!((&busy["key"], &look[1]["key"]), (&json!("net_null0"), &json!("net_null1")), "{look}");
        let packets = busy["rx_packets"].as_u64().expect("a number");
        assert!(packets > 0 && busy["rx_bits"].as_u64() > Some(packets), "{look}");
        // What it brings is from no station.
        assert_eq!((&busy["cause"], &look[1]["rx_packets"]), (&json!("malformed"), &json!(0)), "{look}");
    }
    let text = switch.text(&["top", "--count", "1"]);
    assert!(text.contains("2 ports") && text.contains(" malformed\n"), "{text}");
    assert!(!text.contains('\x1b'), "nobody's terminal is cleared: {text:?}");

    let file = switch.scratch.file("mirror.pcapng");
    let said = switch.ctl(&["mirror", "net_null0", "-w", &file, "-c", "50"]);
    assert!(said.code == Some(0) && said.err.contains("capturing on net_null0"), "{said:?}");
    let got = frames(&file);
    assert!(got.len() == 50 && got.iter().all(|frame| frame.len() == 64), "{}", got.len());
    let said = switch.ctl(&["mirror", "net_null0", "-c", "3", "-q"]);
    assert!(said.code == Some(0) && said.out.lines().count() >= 3 && said.err.is_empty(), "{said:?}");
    // Nothing passes, and the time ends it.
    let said = switch.ctl(&["mirror", "net_null1", "-w", &file, "--seconds", "1"]);
    assert!(said.code == Some(0) && frames(&file).is_empty(), "{said:?}");

    switch.refuses(&[
        (&["top", "--count", "0"], 2, "--count"),
        (&["top", "--interval", "0"], 2, "--interval"),
        (&["top", "extra"], 2, "extra"),
        (&["mirror"], 2, "KEY"),
        (&["mirror", "nobody", "-c", "1"], 1, "there is no port 'nobody'"),
        (&["mirror", "net_null0", "-c", "0"], 2, "--count"),
        (&["mirror", "net_null0", "-f", "tcp nonsense"], 2, "nonsense"),
    ]);
    switch.end();
}

fn resize(terminal: &File, (ws_row, ws_col): (u16, u16)) {
    tcsetwinsize(terminal, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}

/// A command on a terminal of its own, of so many lines and columns.
struct Terminal {
    keys: File,
    slave: File,
    shown: Arc<Mutex<Vec<u8>>>,
    running: Running,
}

impl Terminal {
    fn start(mut command: Command, size: (u16, u16)) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave =
            OpenOptions::new().read(true).write(true).open(OsStr::from_bytes(name.as_bytes())).unwrap();
        let keys = File::from(master);
        let (mut screen, shown) = (keys.try_clone().unwrap(), Arc::<Mutex<Vec<u8>>>::default());
        let into = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                into.lock().unwrap().extend(&bytes[..count]);
            }
        });
        command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap());
        resize(&slave, size);
        let running = Running::start(&mut command);
        Self { keys, slave, shown, running }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    /// Waits until the last whole picture has these words, and not those.
    fn expect(&self, words: &[&str], not: &[&str]) {
        eventually(&format!("a picture with {words:?}"), || {
            let text = self.text();
            let whole = text.rsplit_once("\x1b[J").map_or("", |(before, _)| before);
            let last = whole.rsplit_once("\x1b[H").map_or("", |(_, last)| last);
            words.iter().all(|word| last.contains(word)) && !not.iter().any(|word| last.contains(word))
        });
    }
}

#[test]
fn top_fits_the_terminal_and_obeys_keys() {
    let keys: Vec<String> = (0..12).map(|number| format!("port{number:02}")).collect();
    let switch = with_ports(&keys.iter().map(String::as_str).collect::<Vec<_>>());
    switch.text(&["add", "zz", "--vdev", "net_null77"]);
    let socket = switch.scratch.file("switch.sock");
    let top = linecard(&["switch", "ctl", "--socket", &socket, "top"]);
    let mut terminal = Terminal::start(top, (8, 90));
    let modes = |terminal: &Terminal| tcgetattr(&terminal.slave).unwrap().local_modes;
    terminal.expect(
        &["13 ports", "KEY", "port00", "port04", "lines 1 to 5 of 13", "by name", "q ends"],
        &["port05"],
    );
    terminal.press("j\x1b[B");
    terminal.expect(&["KEY", "port02", "port06", "lines 3 to 7 of 13"], &["port01", "port07"]);
    terminal.press("G");
    terminal.expect(&["KEY", "port11", "zz"], &["port07"]);
    // The one that brings frames comes first.
    terminal.press("gs");
    terminal.expect(&["lines 1 to 5 of 13", "by rx packets", "zz"], &["port04"]);
    terminal.press("r");
    terminal.expect(&["by rx packets, reversed", "port11"], &["zz"]);
    resize(&terminal.slave, (40, 10));
    terminal.expect(&["port00", "port11", "zz"], &["lines", "RX PKT", "q ends"]);
    resize(&terminal.slave, (40, 90));
    terminal.expect(&["port00", "RX PKT", "q ends"], &["lines"]);
    let during = modes(&terminal);
    terminal.press("q");
    let Terminal { running, slave, shown, .. } = terminal;
    assert_eq!(running.end(PATIENCE).code, Some(0));
    assert_ne!(tcgetattr(&slave).unwrap().local_modes, during, "the terminal is as it was");
    eventually("the end", || shown.lock().unwrap().ends_with(b"\x1b[?25h\x1b[?1049l"));

    // A signal ends it as well as it should end.
    let top = linecard(&["switch", "ctl", "--socket", &socket, "top"]);
    let mut terminal = Terminal::start(top, (8, 90));
    terminal.expect(&["port00"], &[]);
    // Ctrl-C of a terminal that is not the command's controlling one is a key like any other.
    terminal.press("x");
    terminal.running.signal(rustix::process::Signal::INT);
    let Terminal { running, shown, .. } = terminal;
    assert_eq!(running.end(PATIENCE).code, Some(0));
    eventually("the end", || shown.lock().unwrap().ends_with(b"\x1b[?25h\x1b[?1049l"));
    switch.end();
}

#[test]
fn sessions_are_set_listed_and_removed() {
    let switch = with_ports(&["a", "b", "c"]);
    assert_eq!(switch.json(&["span"]), json!([]));
    let set = switch.json(&["span", "set", "c", "--ingress", "a", "--both", "b"]);
    let want = json!({"absent": [], "kept": true, "to": "c", "ingress": ["a", "b"], "egress": ["b"]});
    assert_eq!(set, want);
    assert_eq!(switch.json(&["span"]), json!([want]));
    let text = switch.text(&["span"]);
    assert!(text.starts_with("TO ") && text.contains("a,b") && text.lines().count() == 2, "{text}");

    switch.refuses(&[
        (&["span", "set", "c"], 2, "--ingress"),
        (&["span", "set", "nobody", "--both", "a"], 1, "there is no port 'nobody'"),
        (&["span", "set", "b", "--both", "nobody"], 1, "there is no port 'nobody'"),
        (&["span", "set", "c", "--both", "c"], 1, "port 'c' would be mirrored and get copies itself; send"),
        (&["span", "set", "b", "--both", "a"], 1, "port 'b' would be mirrored and get copies itself"),
        (&["span", "remove"], 2, "TO"),
        (&["span", "list"], 2, "list"),
    ]);
    assert_eq!(switch.json(&["span"]), json!([want]), "as it was");

    assert_eq!(switch.json(&["span", "remove", "c"]), json!(true));
    assert_eq!(switch.json(&["span", "remove", "c"]), json!(false));
    assert_eq!(switch.text(&["span", "remove", "c"]), "c has no session\n");
    switch.end();
}

#[test]
fn the_way_of_a_frame_is_told() {
    let switch = with_ports(&["a", "b", "c"]);
    switch.text(&["fdb", "add", "02:00:00:00:00:08", "b"]);
    let (from, to) = ("02:00:00:00:00:01", "02:00:00:00:00:08");
    let trace = switch.json(&["trace", "a", "--from", from, "--to", to]);
    assert_eq!((&trace["verdict"], &trace["ports"][0]["port"]), (&json!("forward"), &json!("b")), "{trace}");
    let frame = "ffffffffffff02000000000188b5";
    let trace = switch.json(&["trace", "a", frame]);
    assert_eq!(
        (&trace["verdict"], trace["ports"].as_array().map(Vec::len)),
        (&json!("flood"), Some(2)),
        "{trace}"
    );
    assert!(switch.text(&["trace", "a", frame]).ends_with("\nreaches b, c\n"));

    switch.refuses(&[
        (&["trace", "a"], 2, "HEX"),
        (&["trace", "nobody", frame], 1, "there is no port 'nobody'"),
        (&["trace", "a", "xyz"], 1, "the frame is no hexadecimal number of whole bytes; write all of it"),
        (&["trace", "a", frame, "--to", to], 2, "--to"),
        (&["trace", "a", "--to", to], 2, "port 'a' has no address of its own; say with --from"),
        (&["trace", "a", "--from", from, "--to", to, "--vlan", "4095"], 2, "--vlan"),
    ]);
    switch.end();
}

#[test]
fn a_switch_tells_its_version_and_is_replaced() {
    let switch = with_ports(&["a"]);
    let version = switch.json(&["version"]);
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&version["pid"], &version["api"]), (&json!(switch.running.0.id()), &json!(1)), "{version}");
    let want = format!("linecard {}, process {}\n", env!("CARGO_PKG_VERSION"), switch.running.0.id());
    assert_eq!(switch.text(&["version"]), want);

    switch.refuses(&[
        (&["version", "extra"], 2, "extra"),
        (&["upgrade", "--exec", "/no/such/program"], 1, "/no/such/program cannot be started"),
        (&["upgrade", "--exec", "/bin/false"], 1, "/bin/false did not take over"),
        (&["upgrade", "--timeout", "0"], 2, "--timeout"),
        (&["nonsense"], 2, "nonsense"),
        (&[], 2, "`linecard switch ctl` needs one of add, remove"),
    ]);
    assert_eq!(switch.json(&["version"]), version, "it goes on");

    // The new switch has the command's standard error, which would be a pipe that does not end.
    let socket = switch.scratch.file("switch.sock");
    let mut command = linecard(&["switch", "ctl", "--socket", &socket, "upgrade", "--json"]);
    command.env("RUNTIME_DIRECTORY", switch.scratch.path()).env("XDG_RUNTIME_DIR", switch.scratch.path());
    let said = command.stderr(std::process::Stdio::null()).output().expect("it runs");
    assert!(said.status.success(), "{said:?}");
    let told: Value =
        serde_json::from_slice(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    let next = switch.json(&["version"])["pid"].as_i64().expect("a number");
    assert_ne!(next, i64::from(switch.running.0.id()), "{told}");
    assert_eq!(switch.json(&["show", "a"])["key"], "a");
    let Switch { running, scratch } = switch;
    assert_eq!(running.end(PATIENCE).code, Some(0));
    let next = rustix::process::Pid::from_raw(i32::try_from(next).unwrap()).expect("a process");
    rustix::process::kill_process(next, rustix::process::Signal::TERM).expect("it runs");
    eventually("its end", || !scratch.path().join("switch.sock").exists());
}

#[test]
fn without_a_switch_each_verb_says_how_to_get_one() {
    let scratch = Scratch::new();
    let socket = scratch.file("nobody.sock");
    for arguments in [
        &["ports"][..],
        &["show", "a"],
        &["fdb"],
        &["flush"],
        &["stats"],
        &["workers"],
        &["move", "a", "0"],
        &["rebalance"],
        &["top"],
        &["mirror", "a"],
        &["span"],
        &["trace", "a", "00"],
        &["add", "a", "--vdev", "net_null0"],
        &["remove", "a"],
        &["upgrade"],
        &["version"],
    ] {
        let said = run(&mut linecard(&[&["switch", "ctl", "--socket", &socket], arguments].concat()), b"");
        assert_eq!((said.code, said.err.lines().count()), (Some(1), 1), "{arguments:?}: {said:?}");
        assert!(said.err.contains("start one with `linecard switch`"), "{arguments:?}: {said:?}");
    }
}

/// Two users who are neither root nor each other.
const OWNER: u32 = 65_534;
const STRANGER: u32 = 65_533;

/// `program` as another user; root only can be one.
fn as_user(user: u32, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".into()]);
    command.arg(program).args(arguments);
    command.stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    command
}

/// Whom the modes of the socket let in is asked for by the switch itself: who connects in the moment before they are set, or
/// to a socket that somebody opened to all, is no user of it.
#[test]
fn nobody_but_its_own_user_and_root_is_answered() {
    let test = "nobody_but_its_own_user_and_root_is_answered";
    let can = |user| as_user(user, "true", &[]).output().is_ok_and(|output| output.status.success());
    if !can(OWNER) || !can(STRANGER) {
        return skip(test, "nobody here can become another user; run it as root, with setpriv (util-linux)");
    }
    let scratch = Scratch::new();
    let (program, socket) = (scratch.file("linecard"), scratch.file("switch.sock"));
    // Where others may run it, whatever the modes of the folders of this repository.
    std::fs::copy(env!("CARGO_BIN_EXE_linecard"), &program).unwrap();
    chown(scratch.path(), Some(OWNER), Some(OWNER)).unwrap();
    std::fs::set_permissions(scratch.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let switch = Switch::started(scratch, |_| {
        as_user(OWNER, &program, &[&FIXED[..], &[&socket, "--vdev", "net_null0,no-rx=1"]].concat())
    });
    let ask = |user: u32, wrapper: &[&str], verb: &[&str]| {
        let all = [wrapper, &[&program, "switch", "ctl", "--socket", &socket], verb].concat();
        run(&mut as_user(user, all[0], &all[1..]), b"")
    };
    let said = ask(STRANGER, &[], &["version"]);
    assert!(said.code == Some(1) && said.err.contains("Permission denied"), "by the socket's mode: {said:?}");
    std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o777)).unwrap();

    for user in [0, OWNER] {
        assert_eq!(ask(user, &[], &["version"]).code, Some(0), "user {user}");
    }
    let refused = |said: &Said| {
        let sentence =
            "this user may not control the switch; ask as root, or as the user that the switch runs as";
        assert_eq!((said.code, said.err.lines().count(), said.out.as_str()), (Some(1), 1, ""), "{said:?}");
        assert!(said.err.contains(sentence), "{said:?}");
    };
    for verb in [
        &["version"][..],
        &["ports"],
        &["stats", "--json"],
        &["add", "x", "--vdev", "net_null1"],
        &["remove", "net_null0"],
        &["fdb", "add", "02:00:00:00:00:01", "net_null0"],
        &["upgrade", "--exec", "/bin/true"],
    ] {
        refused(&ask(STRANGER, &[], verb));
    }
    // Root of a namespace that such a user made is still that user.
    let unshare = ["unshare", "--user", "--map-root-user"];
    let made = run(&mut as_user(STRANGER, "unshare", &["--user", "--map-root-user", "true"]), b"");
    if made.code == Some(0) {
        refused(&ask(STRANGER, &unshare, &["remove", "net_null0"]));
    }
    assert_eq!(switch.json(&["ports"]).as_array().map(Vec::len), Some(1), "nothing was done");
    switch.end();
}
