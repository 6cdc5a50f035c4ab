//! The plugin between any two of its steps: killed there, or left by its switch. DEL, GC or the next ADD leave nothing.

mod common;

use std::cell::Cell;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::rc::Rc;

use common::{FakeSwitch, IPAM, Network, Pod};
use linecard_cni::{invoke, step};
use serde_json::{Value, json};

/// The step after which [`the_plugin_as_a_process`] kills itself.
const DIES_AFTER: &str = "LINECARD_CNI_TEST_DIES_AFTER";

/// Not a test: the plugin in a process of its own, which `killed` starts.
#[test]
#[ignore = "started by the other tests"]
fn the_plugin_as_a_process() {
    let Some(number) = std::env::var(DIES_AFTER).ok().and_then(|text| text.parse::<usize>().ok()) else {
        return;
    };
    let mut left = number;
    step::watch(move |_| {
        left -= 1;
        if left == 0 {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    });
    let output = invoke(|name| std::env::var_os(name), std::io::stdin().lock());
    assert!(output.success, "{}", output.stdout);
}

/// Runs `command` for the container "box" in a process that is killed after step `number`; whether it was.
fn killed(network: &Network, command: &str, pod: &Pod, config: &Value, number: usize) -> bool {
    let path = format!("{}:/usr/lib/cni", network.folder.path("bin").display());
    let mut child = Command::new(std::env::current_exe().expect("a test"))
        .args(["--exact", "the_plugin_as_a_process", "--include-ignored", "--nocapture"])
        .env(DIES_AFTER, number.to_string())
        .envs([
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", "box"),
            ("CNI_IFNAME", "net1"),
            ("CNI_PATH", &path),
        ])
        .env("CNI_NETNS", &pod.netns)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(config.to_string().as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    match output.status.signal() {
        Some(9) => true,
        _ => {
            assert!(output.status.success() && out.contains("1 passed"), "{command} {number}: {out}\n{err}");
            false
        }
    }
}

/// A network in each way of handing over a port, with addresses and everything that can be asked for; and, where there are taps,
/// one whose ports share their address with the kernel.
fn networks(name: &str) -> Vec<Network> {
    let taps = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").is_ok();
    if !taps {
        linecard_testing::skip(name, "/dev/net/tun cannot be opened: no ports are shared; modprobe tun");
    }
    let ways = [("abstract", None), ("socket-dir", None), ("abstract", Some("tcp:4444-20000"))];
    let possible = ways.into_iter().filter(|(_, ports)| taps || ports.is_none());
    let network = |(mode, ports): (&str, Option<&str>)| {
        let mut network = Network::new(&format!("{name}-{mode}-{}", ports.is_some()));
        network.folder.script("bin/lease", IPAM);
        let file = network.folder.path("devinfo/x-device.json");
        network.more =
            json!({"ipam": {"type": "lease"}, "mode": mode, "runtimeConfig": {"CNIDeviceInfoFile": file}});
        network.more["ports"] = ports.into();
        network
    };
    possible.map(network).collect()
}

fn assert_clean(network: &Network, pod: &Pod, what: &str) {
    assert_eq!(pod.interfaces(), Vec::<String>::new(), "{what}");
    for folder in ["leases", "devinfo", "state", "s"] {
        assert_eq!(network.folder.list(folder), Vec::<String>::new(), "{what}: {folder}");
    }
    network.assert_clean();
}

fn gc(network: &Network) {
    let mut config = network.config();
    config["cni.dev/valid-attachments"] = json!([]);
    let output = network.run("GC", &[], &config);
    assert!(output.success, "{}", output.stdout);
}

#[test]
fn an_add_that_is_killed_can_be_undone_and_repeated() {
    let Some(pod) = Pod::new("an_add_that_is_killed_can_be_undone_and_repeated") else { return };
    for network in networks("killed-add") {
        let (mut steps, mut complete) = (0, 0);
        for number in 1.. {
            let config = network.config();
            let died = killed(&network, "ADD", &pod, &config, number);
            let what = format!("ADD killed after step {number}");
            match number % 3 {
                0 => drop(network.del("box").expect(&what)),
                1 => gc(&network),
                // The runtime tries again at once; one that ended before its answer was read has to be undone first.
                _ if died => {
                    if let Err(error) = network.add("box", &pod) {
                        assert_eq!(error["code"], 100, "{what}: {error}");
                        complete += 1;
                        network.del("box").expect(&what);
                        network.add("box", &pod).expect(&what);
                    }
                    let ports = if network.more["ports"].is_null() { 1 } else { 2 };
                    assert_eq!(network.switch.names().len(), ports, "{what}");
                    drop(network.del("box").expect(&what));
                }
                _ => drop(network.del("box").expect(&what)),
            }
            assert_clean(&network, &pod, &what);
            if !died {
                steps = number;
                break;
            }
        }
        assert!(steps > 10 && complete <= 1, "{steps} steps were watched, {complete} after the last record");
    }
}

#[test]
fn a_del_or_gc_that_is_killed_can_be_repeated() {
    let Some(pod) = Pod::new("a_del_or_gc_that_is_killed_can_be_repeated") else { return };
    for network in networks("killed-del") {
        for command in ["DEL", "GC"] {
            for number in 1.. {
                network.add("box", &pod).expect("added");
                let mut config = network.config();
                config["cni.dev/valid-attachments"] = json!([]);
                let died = killed(&network, command, &pod, &config, number);
                let what = format!("{command} killed after step {number}");
                if number % 2 == 0 {
                    network.del("box").expect(&what);
                } else {
                    // What the dead one had begun is finished by the next ADD as well.
                    network.add("box", &pod).map(drop).unwrap_or_default();
                    network.del("box").expect(&what);
                }
                assert_clean(&network, &pod, &what);
                if !died {
                    assert!(number > 5, "{number} steps were watched");
                    break;
                }
            }
        }
    }
}

/// What becomes of the switch in the middle.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Gone,
    Restarted,
    /// Restarted without its ports.
    Forgetful,
}

/// Does `work` with the switch meeting its fate after step `number`; whether there was such a step.
fn with_fate<T>(switch: &FakeSwitch, fate: Fate, number: usize, work: impl FnOnce() -> T) -> (T, bool) {
    let (left, switch) = (Rc::new(Cell::new(number)), switch.clone());
    let count = Rc::clone(&left);
    step::watch(move |_| {
        count.set(count.get().wrapping_sub(1));
        if count.get() == 0 {
            match fate {
                Fate::Gone => switch.stop(),
                Fate::Restarted => switch.restart(),
                Fate::Forgetful => {
                    switch.names().iter().for_each(|name| switch.forget(name));
                    switch.restart();
                }
            }
        }
    });
    let outcome = work();
    step::watch(|_| {});
    (outcome, left.get() == 0 || left.get() > number)
}

#[test]
fn the_switch_may_go_at_any_moment_of_an_add() {
    let Some(pod) = Pod::new("the_switch_may_go_at_any_moment_of_an_add") else { return };
    for network in networks("fate-add") {
        for fate in [Fate::Gone, Fate::Restarted, Fate::Forgetful] {
            for number in 1.. {
                let what = format!("{fate:?} after step {number} of ADD");
                let (added, met) = with_fate(&network.switch, fate, number, || network.add("box", &pod));
                if let Err(error) = &added {
                    let code = error["code"].as_u64().unwrap_or_default();
                    assert!([50, 51].contains(&code), "{what}: {error}");
                    assert!(!error["details"].as_str().unwrap_or_default().is_empty(), "{what}: {error}");
                    // What can be undone without the switch is undone already.
                    assert_eq!(pod.interfaces(), Vec::<String>::new(), "{what}");
                    assert_eq!(network.folder.list("leases"), Vec::<String>::new(), "{what}");
                }
                if matches!(fate, Fate::Gone) {
                    network.switch.restart();
                }
                if added.is_err() {
                    network.add("box", &pod).expect(&what);
                }
                network.del("box").expect(&what);
                assert_clean(&network, &pod, &what);
                if !met {
                    assert!(number > 10, "{number} steps were watched");
                    break;
                }
            }
        }
    }
}

#[test]
fn the_switch_may_go_at_any_moment_of_a_del() {
    let Some(pod) = Pod::new("the_switch_may_go_at_any_moment_of_a_del") else { return };
    for network in networks("fate-del") {
        for fate in [Fate::Gone, Fate::Restarted, Fate::Forgetful] {
            for number in 1.. {
                let what = format!("{fate:?} after step {number} of DEL");
                network.add("box", &pod).expect(&what);
                let (removed, met) = with_fate(&network.switch, fate, number, || network.del("box"));
                removed.expect(&what);
                assert_eq!(pod.interfaces(), Vec::<String>::new(), "{what}");
                if matches!(fate, Fate::Gone) {
                    network.switch.restart();
                }
                network.del("another").expect(&what);
                assert_clean(&network, &pod, &what);
                if !met {
                    assert!(number > 5, "{number} steps were watched");
                    break;
                }
            }
        }
    }
}

/// Whatever several plugins do with one attachment, one ADD holds at a time, and a last DEL leaves nothing.
#[test]
fn plugins_that_meet_at_one_attachment_take_turns() {
    let Some(pod) = Pod::new("plugins_that_meet_at_one_attachment_take_turns") else { return };
    for network in networks("meet") {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (network, pod) = (&network, &pod);
                scope.spawn(move || {
                    for turn in 0..6 {
                        match (thread + turn) % 2 {
                            0 => {
                                if let Err(error) = network.add("box", pod) {
                                    assert_eq!(error["code"], 100, "{error}");
                                }
                            }
                            _ => drop(network.del("box").expect("whatever it meets")),
                        }
                    }
                });
            }
        });
        network.del("box").expect("the last one");
        assert_clean(&network, &pod, "after all of them");
    }
}

/// The environment of [`the_disk_is_full`].
const ON_A_SMALL_DISK: &str = "LINECARD_CNI_TEST_SMALL_DISK";

/// Runs [`the_disk_is_full`] where a file system of a few kilobytes can be mounted.
#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    let test = "a_full_disk_is_told_and_leaves_nothing";
    let unshare: &[&str] = match rustix::process::geteuid().is_root() {
        true => &["--mount"],
        false => &["--user", "--map-root-user", "--mount"],
    };
    let probe = Command::new("unshare").args(unshare).args(["mount", "-t", "tmpfs", "none", "/mnt"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        linecard_testing::skip(test, "no file system can be mounted here; run as root");
        return;
    }
    let output = Command::new("unshare")
        .args(unshare)
        .arg(std::env::current_exe().expect("a test"))
        .args(["--exact", "the_disk_is_full", "--include-ignored", "--nocapture"])
        .env(ON_A_SMALL_DISK, "1")
        .output()
        .expect("unshare runs");
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

/// Not a test: what [`a_full_disk_is_told_and_leaves_nothing`] starts.
#[test]
#[ignore = "started by another test"]
fn the_disk_is_full() {
    if std::env::var_os(ON_A_SMALL_DISK).is_none() {
        return;
    }
    let pod = Pod::new("the_disk_is_full").expect("root can");
    let mut network = Network::new("full");
    network.folder.script("bin/lease", IPAM);
    let disk = network.folder.path("disk");
    std::fs::create_dir(&disk).expect("made");
    network.more = json!({"ipam": {"type": "lease"}, "stateDir": disk.join("state")});
    let run = |program: &str, arguments: &[OsString]| {
        assert!(Command::new(program).args(arguments).status().expect("it runs").success(), "{program}");
    };
    let (mut told, mut worked) = (0, 0);
    // Few blocks, then few files: a block or a file more each time.
    let sizes = (1..6)
        .map(|pages| format!("size={}k", 4 * pages))
        .chain((1..9).map(|files| format!("size=64k,nr_inodes={files}")));
    for size in sizes {
        run(
            "mount",
            &[
                "-t".into(),
                "tmpfs".into(),
                "-o".into(),
                size.clone().into(),
                "none".into(),
                disk.clone().into(),
            ],
        );
        // One page is somebody else's.
        let _ = std::fs::write(disk.join("other"), [0; 4096]);
        match network.add("box", &pod) {
            Err(error) => {
                told += 1;
                assert_eq!(error["code"], 5, "{size}: {error}");
                let text = format!("{}", error["details"]);
                assert!(text.contains("free space") || text.contains("another folder"), "{size}: {error}");
                assert_eq!(network.switch.names(), Vec::<String>::new(), "{size}");
            }
            Ok(_) => {
                worked += 1;
                // Full by now: what is removed makes room.
                for number in 0..64 {
                    let _ = std::fs::write(disk.join(format!("more-{number}")), [0; 4096]);
                }
                network.del("box").expect(&size);
            }
        }
        for command in ["DEL", "STATUS"] {
            let _ = network.on(command, "box", &pod.netns, &network.config());
        }
        let left: Vec<_> = std::fs::read_dir(disk.join("state")).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{size}: {left:?}");
        assert_eq!(pod.interfaces(), Vec::<String>::new(), "{size}");
        assert_eq!(network.folder.list("leases"), Vec::<String>::new(), "{size}");
        assert_eq!(network.switch.names(), Vec::<String>::new(), "{size}");
        run("umount", &[disk.clone().into()]);
    }
    assert!(told >= 3 && worked >= 3, "{told} were told, {worked} worked");
}
