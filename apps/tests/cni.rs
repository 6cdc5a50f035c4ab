//! `linecard cni demo`, `run` and `install`: what they do, what they leave, and what they say when they cannot.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use common::{PATIENCE, Running, Said, Scratch, eventually, linecard, pids, processes, run, skip};
use linecard_switch::api::{Client, PortState};
use rustix::process::Signal;
use serde_json::Value;

fn demo(scratch: &Scratch, arguments: &[&str]) -> Command {
    let mut command = linecard(&["cni", "demo"]);
    command.args(arguments).env("TMPDIR", scratch.path()).env_remove("XDG_RUNTIME_DIR");
    command
}

/// Whether containers can be had here, as root or in a user namespace; else `test` is skipped.
fn containers(test: &str) -> bool {
    let can =
        |words: &[&str]| Command::new("unshare").args(words).output().is_ok_and(|it| it.status.success());
    let can = can(&["--net", "true"]) || can(&["--user", "--map-root-user", "--net", "true"]);
    if !can {
        skip(test, "no network namespace, not even in a user namespace; run as root");
    }
    can
}

/// A connection that a busy machine does not cut.
fn client(socket: &str) -> Client {
    let client = Client::connect(Path::new(socket)).unwrap();
    client.set_patience(PATIENCE).unwrap();
    client
}

fn wait_for_switch(socket: &str) {
    eventually("the switch", || Client::connect(Path::new(socket)).is_ok());
}

fn assert_nothing_is_left(scratch: &Scratch) {
    eventually("the end of everything that was started", || {
        processes(scratch.path().to_str().unwrap()) == 0 && scratch.entries().is_empty()
    });
}

fn assert_moved(said: &Said, packets: u64) -> Value {
    assert_eq!(said.code, Some(0), "{said:?}");
    let report: Value = serde_json::from_str(&said.out).unwrap();
    let traffic = &report["traffic"];
    for (key, want) in [
        ("echoes", 5),
        ("sent", packets),
        ("returned", packets),
        ("lost", 0),
        ("duplicated", 0),
        ("corrupted", 0),
    ] {
        assert_eq!(traffic[key], want, "{key}: {}", said.out);
    }
    assert_eq!(report["containers"].as_array().map(Vec::len), Some(2));
    assert_eq!(report["left"], Value::Array(Vec::new()));
    report
}

#[test]
fn two_containers_exchange_packets_without_any_configuration() {
    if !containers("two_containers_exchange_packets_without_any_configuration") {
        return;
    }
    let scratch = Scratch::new();
    let said = run(&mut demo(&scratch, &["--json", "--count=20000"]), b"");
    assert_moved(&said, 20_000);
    assert_nothing_is_left(&scratch);
    let said = run(&mut demo(&scratch, &["--count=1000"]), b"");
    for part in
        ["switch ", "demo-a: port net1", "5 of 5 answered", "1000 came back checked", "nothing is left"]
    {
        assert!(said.out.contains(part), "{part}: {said:?}");
    }
}

#[test]
fn an_ordinary_user_gets_a_user_namespace() {
    let test = "an_ordinary_user_gets_a_user_namespace";
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let user = if rustix::process::geteuid().is_root() { &user[..] } else { &["env"] };
    let mut probe = Command::new(user[0]);
    probe.args(&user[1..]).args(["unshare", "--user", "--map-root-user", "--net", "true"]);
    if !probe.output().is_ok_and(|it| it.status.success()) {
        skip(test, "no user namespace for an ordinary user here, or no program setpriv");
        return;
    }
    let scratch = Scratch::new();
    // Where that user may run it, whatever the modes of the folders of this repository.
    let program = scratch.file("linecard");
    std::fs::copy(env!("CARGO_BIN_EXE_linecard"), &program).unwrap();
    let place = scratch.file("place");
    std::fs::create_dir(&place).unwrap();
    std::fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let mut command = Command::new(user[0]);
    command.args(&user[1..]).args([&program, "cni", "demo", "--json", "--count=5000"]).env("TMPDIR", &place);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let report = assert_moved(&run(&mut command, b""), 5000);
    assert_eq!(report["user_namespace"], true);
    eventually("an empty folder", || std::fs::read_dir(&place).unwrap().next().is_none());
}

#[test]
fn an_interrupted_or_killed_demo_leaves_nothing() {
    if !containers("an_interrupted_or_killed_demo_leaves_nothing") {
        return;
    }
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let scratch = Scratch::new();
        let running = Running::start(&mut demo(&scratch, &["--count=1000000000", "--seconds=3600"]));
        let place = scratch.path().to_str().unwrap().to_owned();
        // The last that is started: packets move from then on.
        eventually("traffic", || {
            pids(&place).len() + pids("1000000000").len() > 2 && pids("1000000000").len() > 1
        });
        running.signal(signal);
        let said = running.end(PATIENCE);
        if signal != Signal::KILL {
            assert_eq!(said.code, Some(1), "{said:?}");
            assert!(said.err.contains("interrupted; everything that was made is removed"), "{said:?}");
        }
        assert_nothing_is_left(&scratch);
        eventually("the end of the traffic", || processes("1000000000") == 0);
    }
}

#[test]
fn where_there_are_no_namespaces_one_sentence_says_so() {
    let scratch = Scratch::new();
    let script = "echo 0 >/proc/sys/user/max_net_namespaces && echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", script, "sh"]);
    command.args([env!("CARGO_BIN_EXE_linecard"), "cni", "demo"]).env("TMPDIR", scratch.path());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let said = run(&mut command, b"");
    if said.err.contains("unshare failed") && !said.err.contains("error:") {
        skip("where_there_are_no_namespaces_one_sentence_says_so", "no user namespace to forbid them in");
        return;
    }
    assert_eq!((said.code, said.out.as_str(), said.err.lines().count()), (Some(1), "", 1), "{said:?}");
    assert!(said.err.starts_with("error: this user may not make network namespaces"), "{said:?}");
    assert!(said.err.contains("; run it as root, or allow user namespaces"), "{said:?}");
    assert_nothing_is_left(&scratch);
}

#[test]
fn plugin_and_network_are_installed_and_removed() {
    let scratch = Scratch::new();
    let (bin, conf) = (scratch.file("bin"), scratch.file("net.d"));
    let install = |more: &[&str]| {
        let mut command = linecard(&["cni", "install", "--bin-dir", &bin, "--conf-dir", &conf]);
        run(command.args(more), b"")
    };
    let said = install(&["--name", "quick", "--vlan", "7", "--mode", "socket-dir"]);
    assert!(said.code == Some(0) && said.out.contains("wrote "), "{said:?}");
    let file = format!("{conf}/90-linecard-quick.conflist");
    let list: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let plugin = &list["plugins"][0];
    assert_eq!(
        (&plugin["type"], &plugin["vlan"], &plugin["mode"]),
        (&"linecard".into(), &7.into(), &"socket-dir".into())
    );
    let said = install(&["--name", "quick", "--vlan", "7", "--mode", "socket-dir"]);
    assert_eq!(said.out.matches("is as it should be").count(), 2, "{said:?}");
    let said = install(&["--name", "quick"]);
    assert!(said.code == Some(1) && said.err.contains("other contents; replace it with --force"), "{said:?}");
    // What was installed is the plugin.
    let mut plugin = Command::new(format!("{bin}/linecard"));
    plugin.env("CNI_COMMAND", "VERSION").stdout(Stdio::piped()).stderr(Stdio::piped());
    let said = run(&mut plugin, br#"{"cniVersion": "1.0.0"}"#);
    assert!(said.code == Some(0) && said.out.contains("supportedVersions"), "{said:?}");
    let said = install(&["--name", "quick", "--uninstall"]);
    assert_eq!((said.code, said.out.matches("removed ").count()), (Some(0), 2), "{said:?}");
    let said = install(&["--name", "quick", "--uninstall"]);
    assert_eq!((said.code, said.out.matches("was not there").count()), (Some(0), 2), "{said:?}");
    for (more, code, part) in [
        (&["--subnet", "10.0.0.0"][..], 2, "--subnet is '10.0.0.0'; give one such as"),
        (&["--name", "../x"], 1, "'name' is \"../x\"; use letters"),
        (&["--vlan", "4095"], 2, "4095"),
        (&["--cni-version", "7"], 2, "use one of 0.3.0"),
    ] {
        let said = install(more);
        assert!(said.code == Some(code) && said.err.contains(part), "{more:?}: {said:?}");
    }
    assert_eq!(std::fs::read_dir(&conf).unwrap().count() + std::fs::read_dir(&bin).unwrap().count(), 0);
}

/// Files, sockets, interfaces, ports and the switch's descriptors are counted by the command itself.
#[test]
fn a_thousand_attachments_leave_nothing() {
    if !containers("a_thousand_attachments_leave_nothing") {
        return;
    }
    let scratch = Scratch::new();
    let mut command = linecard(&["cni", "bench", "--count=900", "--at-once=100", "--json"]);
    let said = Running::start(command.env("TMPDIR", scratch.path())).end(8 * PATIENCE);
    assert_eq!(said.code, Some(0), "{said:?}");
    let report: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(report["left"], Value::Array(Vec::new()));
    for key in ["add_ms", "del_ms", "add_at_once_ms", "del_at_once_ms"] {
        assert!(report[key]["median"].as_f64().unwrap() > 0.0, "{key}: {}", said.out);
    }
    assert_nothing_is_left(&scratch);
}

/// Root, or what becomes root of a user namespace.
fn privileged() -> Vec<&'static str> {
    match rustix::process::geteuid().is_root() {
        true => vec!["env"],
        false => vec!["unshare", "--user", "--map-root-user"],
    }
}

#[test]
fn a_command_runs_with_its_ports_and_they_go_with_it() {
    let test = "a_command_runs_with_its_ports_and_they_go_with_it";
    if !containers(test) {
        return;
    }
    let scratch = Scratch::new();
    let (bin, conf, socket) = (scratch.file("bin"), scratch.file("net.d"), scratch.file("switch.sock"));
    let switch =
        linecard(&["switch", "--no-huge", "-m", "64", "--state", "none", "--socket", &socket]).spawn();
    let switch = Running(switch.unwrap());
    wait_for_switch(&socket);
    for name in ["one", "two"] {
        let words =
            ["--bin-dir", &bin, "--conf-dir", &conf, "--switch", &socket, "--subnet", "none", "--name", name];
        assert_eq!(run(linecard(&["cni", "install"]).args(words), b"").code, Some(0));
        let file = format!("{conf}/90-linecard-{name}.conflist");
        let text = std::fs::read_to_string(&file).unwrap();
        let state = format!(r#""stateDir": "{}", "type""#, scratch.file("state"));
        std::fs::write(&file, text.replace(r#""type""#, &state)).unwrap();
    }
    let with = |words: &[&str]| {
        let who = privileged();
        let mut command = Command::new(who[0]);
        command.args(&who[1..]).arg(env!("CARGO_BIN_EXE_linecard"));
        command.args(["cni", "run", "--conf-dir", &conf, "--cni-path", &bin]).args(words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let shown =
        "ip -o address show dev net1; ip -o link show dev net2; grep -c @vport/ /proc/net/unix; exit 7";
    let words = ["--network", "one", "--network", "two", "--ip", "10.3.0.9/24", "--mac", "02:00:00:00:00:2a"];
    let said = run(with(&words).args(["--", "sh", "-c", shown]), b"");
    assert_eq!(said.code, Some(7), "{said:?}");
    for part in ["10.3.0.9/24", "net2", "\n2\n"] {
        assert!(said.out.contains(part), "{part}: {said:?}");
    }
    // Without a command the results are told, and the ports stay until it is ended.
    let mut command = with(&[]);
    let running = Running::start(&mut command);
    let ports = || client(&socket).port_list().unwrap();
    eventually("a port", || ports().len() == 1);
    let name = ports()[0].spec.key.clone();
    assert!(name.ends_with("@net1"), "{name}");
    eventually("its wait for a signal", || common::catches(running.0.id(), Signal::INT));
    running.signal(Signal::INT);
    let said = running.end(PATIENCE);
    assert_eq!(said.code, Some(0), "{said:?}");
    let result: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(result["interfaces"][0]["name"], "net1");
    assert!(ports().is_empty());
    assert!(std::fs::read_dir(scratch.file("state")).unwrap().next().is_none());
    for (words, part) in [
        (&["--network", "three"][..], "no network 'three' in"),
        (&["--netns", "/dev/null"], "/dev/null: it is no namespace; give the path"),
        (&["--container-id", "../x"], "CNI_CONTAINERID is '../x'; use letters"),
        (&["--ip", "10.0.0.1/24", "--", "no-such-program"], "no-such-program cannot be run"),
    ] {
        let said = run(&mut with(words), b"");
        assert!(said.code == Some(1) && said.err.contains(part), "{words:?}: {said:?}");
        assert!(ports().is_empty(), "{words:?}");
    }
    running_ends(switch);
    let said = run(&mut with(&["--", "true"]), b"");
    assert!(said.code == Some(1) && said.err.contains("no switch answers at"), "{said:?}");
}

/// Each way of handing over a port, and each end of the socket, under programs that find their port by what they are told.
#[test]
fn every_hand_over_moves_packets() {
    if !containers("every_hand_over_moves_packets") {
        return;
    }
    let scratch = Scratch::new();
    let (bin, conf, socket) = (scratch.file("bin"), scratch.file("net.d"), scratch.file("switch.sock"));
    let switch =
        linecard(&["switch", "--no-huge", "-m", "64", "--state", "none", "--socket", &socket]).spawn();
    let switch = Running(switch.unwrap());
    wait_for_switch(&socket);
    let words = ["--bin-dir", &bin, "--conf-dir", &conf, "--switch", &socket, "--subnet", "none"];
    assert_eq!(run(linecard(&["cni", "install"]).args(words), b"").code, Some(0));
    let network = |name: &str, more: Value| {
        let mut plugin = serde_json::json!({"type": "linecard", "switch": socket, "stateDir": scratch.file("state"),
            "socketDir": scratch.file("s"), "capabilities": {"ips": true, "CNIDeviceInfoFile": true}});
        plugin.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let list = serde_json::json!({"cniVersion": "1.0.0", "name": name, "plugins": [plugin]});
        let file = scratch.file(&format!("{name}.conflist"));
        std::fs::write(&file, list.to_string()).unwrap();
        file
    };
    let networks = [
        (network("abstract", serde_json::json!({"mode": "abstract", "link": false})), &[][..]),
        (network("switch", serde_json::json!({"mode": "socket-dir"})), &[]),
        (
            network(
                "container",
                serde_json::json!({"mode": "socket-dir", "listen": "container", "link": false}),
            ),
            &[],
        ),
        (network("by-fd", serde_json::json!({"mode": "socket-dir"})), &["--pass-fd"]),
    ];
    let start = |file: &str, more: &[&str], ip: &str, command: &[&str]| {
        let who = privileged();
        let mut process = Command::new(who[0]);
        process.args(&who[1..]).arg(env!("CARGO_BIN_EXE_linecard"));
        process.args(["cni", "run", "--cni-path", &bin, "--network", file, "--ip", ip]).args(more);
        process.arg("--").arg(env!("CARGO_BIN_EXE_linecard")).args(command);
        process.env("TMPDIR", scratch.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running::start(&mut process)
    };
    let (file, more) = &networks[0];
    let answer = start(file, more, "10.4.0.1/24", &["cni", "answer", "net1"]);
    for (number, (file, more)) in networks.iter().enumerate() {
        let ip = format!("10.4.0.{}/24", number + 2);
        let said = start(
            file,
            more,
            &ip,
            &["cni", "ping", "net1", "--to", "10.4.0.1", "--count", "3000", "--wait", "60"],
        );
        let said = said.end(2 * PATIENCE);
        assert!(said.out.contains("3000 came back checked, 0 lost"), "{file}: {said:?}");
        assert_eq!(said.code, Some(0), "{file}: {said:?}");
    }
    answer.signal(Signal::TERM);
    let said = answer.end(PATIENCE);
    assert!(said.code == Some(0) && said.out.contains("answers for 10.4.0.1"), "{said:?}");
    for folder in ["state", "s"] {
        assert_eq!(std::fs::read_dir(scratch.file(folder)).into_iter().flatten().count(), 0, "{folder}");
    }
    running_ends(switch);
}

/// What is killed and started again has the ports that it had, and their containers notice no more than a pause.
#[test]
fn a_switch_that_was_killed_has_its_ports_again() {
    let test = "a_switch_that_was_killed_has_its_ports_again";
    if !rustix::process::geteuid().is_root() {
        skip(test, "a switch enters namespaces of others as root only");
        return;
    }
    let scratch = Scratch::new();
    let (bin, socket, ports) = (scratch.file("bin"), scratch.file("switch.sock"), scratch.file("ports.json"));
    let switch = || {
        let mut command =
            linecard(&["switch", "--no-huge", "-m", "64", "--state", &ports, "--socket", &socket]);
        let running = Running::start(command.stdout(Stdio::null()));
        wait_for_switch(&socket);
        running
    };
    let first = switch();
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_linecard"), format!("{bin}/linecard")).unwrap();
    let start = |mode: &str, ip: &str, command: &[&str]| {
        let config = serde_json::json!({"cniVersion": "1.0.0", "name": "fast", "type": "linecard", "switch": socket,
            "mode": mode, "stateDir": scratch.file("state"), "socketDir": scratch.file("s"),
            "capabilities": {"ips": true, "CNIDeviceInfoFile": true}});
        let file = scratch.file(&format!("{mode}.conf"));
        std::fs::write(&file, config.to_string()).unwrap();
        let mut process = linecard(&["cni", "run", "--cni-path", &bin, "--network", &file, "--ip", ip, "--"]);
        Running::start(
            process.arg(env!("CARGO_BIN_EXE_linecard")).args(command).env("TMPDIR", scratch.path()),
        )
    };
    let answering = [
        start("abstract", "10.5.0.1/24", &["cni", "answer"]),
        start("socket-dir", "10.5.0.2/24", &["cni", "answer"]),
    ];
    let all_up = || {
        let list = client(&socket).port_list().unwrap();
        list.len() == 2 && list.iter().all(|port| port.state == PortState::Up)
    };
    let ask_both = || {
        for to in ["10.5.0.1", "10.5.0.2"] {
            let words = ["cni", "ping", "--to", to, "--count", "2000", "--wait", "60"];
            let said = start("abstract", "10.5.0.3/24", &words).end(2 * PATIENCE);
            assert!(said.code == Some(0) && said.out.contains("2000 came back checked, 0 lost"), "{said:?}");
        }
    };
    eventually("both containers", all_up);
    ask_both();
    first.signal(Signal::KILL);
    assert_eq!(first.end(PATIENCE).code, None);
    let second = switch();
    eventually("both containers again", all_up);
    ask_both();
    for container in answering {
        container.signal(Signal::TERM);
        assert_eq!(container.end(PATIENCE).code, Some(0));
    }
    assert!(client(&socket).port_list().unwrap().is_empty());
    running_ends(second);
}

/// `linecard cni check`, whose verdicts on Debian's plugins are known, finds nothing to say about ours.
#[test]
fn our_plugin_keeps_every_rule() {
    if !containers("our_plugin_keeps_every_rule") {
        return;
    }
    let scratch = Scratch::new();
    let socket = scratch.file("switch.sock");
    let switch =
        linecard(&["switch", "--no-huge", "-m", "64", "--state", "none", "--socket", &socket]).spawn();
    let switch = Running(switch.unwrap());
    wait_for_switch(&socket);
    let file = scratch.file("config.json");
    for mode in ["abstract", "socket-dir"] {
        let config = serde_json::json!({"switch": socket, "mode": mode, "stateDir": scratch.file("state"),
            "socketDir": scratch.file("s"), "ipam": {"type": "linecard-check-ipam"}});
        std::fs::write(&file, config.to_string()).unwrap();
        let who = privileged();
        let mut command = Command::new(who[0]);
        command.args(&who[1..]).arg(env!("CARGO_BIN_EXE_linecard")).args(["cni", "check"]);
        command.args([env!("CARGO_BIN_EXE_linecard"), "--config", &file, "--json"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let said = Running::start(&mut command).end(3 * PATIENCE);
        assert_eq!(said.code, Some(0), "{mode}: {said:?}");
        let findings: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let other: Vec<_> = findings.iter().filter(|finding| finding["verdict"] != "pass").collect();
        assert!(other.is_empty(), "{mode}: {other:#?}");
        for rule in ["ADD-4", "GC-3", "DEL-8", "CHAIN-1", "IPAM-4", "STATUS-1"] {
            assert!(
                findings.iter().any(|finding| finding["rule"] == rule),
                "{mode}: {rule} was not looked at"
            );
        }
        assert!(client(&socket).port_list().unwrap().is_empty());
        for folder in ["state", "s"] {
            assert_eq!(std::fs::read_dir(scratch.file(folder)).into_iter().flatten().count(), 0, "{folder}");
        }
    }
    running_ends(switch);
}

fn running_ends(switch: Running) {
    switch.signal(Signal::TERM);
    assert_eq!(switch.end(PATIENCE).code, Some(0));
}
