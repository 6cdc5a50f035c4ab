//! Bad input ends in one sentence with a remedy, a code that is not 0, and nothing left behind.

mod common;

use std::io::{Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::Duration;

use common::{PATIENCE, Running, Said, Scratch, held_back, linecard, run, testpmd};
use linecard_lab::{Lab, wait_until};

fn one_sentence(said: &Said, code: i32, parts: &[&str]) {
    assert_eq!(said.code, Some(code), "{said:?}");
    let errors: Vec<_> = said.err.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{said:?}");
    assert_eq!(said.err.lines().last(), Some(errors[0]), "{said:?}");
    for part in parts {
        assert!(errors[0].contains(part), "no '{part}' in {}", errors[0]);
    }
}

fn testpmd_fails(eal: &[&str], app: &[&str], code: i32, parts: &[&str]) {
    let said = run(&mut testpmd(eal, app), b"");
    one_sentence(&said, code, parts);
}

#[test]
fn unknown_options_and_commands_are_named() {
    testpmd_fails(&["--nonsense"], &[], 2, &["--nonsense"]);
    testpmd_fails(&["-m", "16"], &["--nonsense"], 2, &["--nonsense", "--help"]);
    testpmd_fails(&["-m", "x"], &[], 2, &["x"]);
    testpmd_fails(&["stray"], &[], 2, &["stray"]);
    testpmd_fails(&["-m", "16"], &["stray"], 2, &["stray"]);
    one_sentence(&run(&mut linecard(&["nonsense"]), b""), 2, &["nonsense", "--help"]);
    one_sentence(&run(&mut linecard(&["demo", "--seconds", "0"]), b""), 2, &["0"]);
    one_sentence(&run(&mut linecard(&["doctor", "stray"]), b""), 2, &["stray"]);
    for line in [
        &["doctor", "--yes"][..],
        &["doctor", "--fix", "--undo"],
        &["doctor", "--fix", "--json"],
        &["doctor", "--undo=x"],
    ] {
        one_sentence(&run(&mut linecard(line), b""), 2, &["--"]);
    }
    one_sentence(&run(&mut linecard(&[]), b""), 2, &["linecard demo"]);
}

#[test]
fn what_is_not_utf8_is_said_to_be_that() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    let odd = |bytes: &'static [u8]| OsStr::from_bytes(bytes);
    for arguments in [
        [OsStr::new("--vdev"), odd(b"net_tap0,iface=\xff"), OsStr::new("--"), OsStr::new("-i")],
        [OsStr::new("-m"), OsStr::new("32"), OsStr::new("--"), odd(b"\xff")],
        [OsStr::new("-m32"), OsStr::new("--"), OsStr::new("--cmdline-file"), odd(b"\xff")],
    ] {
        let said = run(linecard(&["testpmd"]).args(arguments), b"");
        one_sentence(&said, 2, &["\\xff", "not UTF-8", "rename"]);
    }
}

#[test]
fn an_interface_that_goes_is_told_once() {
    let Some(lab) = Lab::new("an_interface_that_goes_is_told_once") else { return };
    for driver in ["net_af_packet0", "net_af_xdp0", "net_tap0"] {
        if driver == "net_af_xdp0" && !lab.has_xdp("an_interface_that_goes_is_told_once") {
            continue;
        }
        let made = driver == "net_tap0";
        if !made {
            lab.veth("one", "two");
        }
        let device = format!("{driver},iface=one,netns={}", lab.path());
        let mut command = testpmd(&["-m", "64", "--vdev", &device], &["-i"]);
        let mut running = Running::start(command.stdin(Stdio::piped()));
        let mut typed = running.0.stdin.take().unwrap();
        typed.write_all(b"start\n").unwrap();
        let there = if made { " one:" } else { "promiscuity 1" };
        wait_until("the port", || lab.ip("-d link show up").contains(there));
        lab.ip("link del one");
        running.works(Duration::from_millis(300));
        typed.write_all(b"show port info 0\nshow port info 0\nstop\nquit\n").unwrap();
        let said = running.end(PATIENCE);
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(said.out.contains("Link status: down"), "{said:?}");
        let told = said.err.matches("start the port").count();
        assert_eq!(told, 1, "{driver}: {said:?}");
    }
}

#[test]
fn unknown_devices_are_named() {
    testpmd_fails(&["--vdev", "net_nul0"], &["-i"], 1, &["net_nul0", "net_null"]);
    testpmd_fails(&["--vdev", "net_null0,sise=64"], &["-i"], 1, &["sise", "size"]);
    testpmd_fails(&["--vdev", "net_null0", "--vdev", "net_null0"], &["-i"], 2, &["net_null0", "twice"]);
}

#[test]
fn no_device_at_all_is_a_mistake_without_a_console() {
    testpmd_fails(&["-m", "32"], &[], 2, &["--vdev", "-i"]);
    let said = run(
        &mut testpmd(&["-m", "32"], &["-i"]),
        b"start\nport attach net_null0\nport start 0\nstart\nquit\n",
    );
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains("No probed ethernet devices") && said.out.contains("ports=1"), "{said:?}");
}

#[test]
fn impossible_numbers_are_named() {
    testpmd_fails(&["-l", "0,900"], &["-i"], 1, &["900"]);
    testpmd_fails(&["-m", "16", "--vdev", "net_null0"], &["-i", "--nb-cores=999"], 2, &["nb-cores"]);
    testpmd_fails(
        &["-m", "8", "--vdev", "net_null0"],
        &["-i", "--total-num-mbufs=100000"],
        1,
        &["mb_pool_0", "8 MiB", "-m"],
    );
    testpmd_fails(&["-m", "16", "--vdev", "net_null0"], &["-i", "--rxq=9999"], 2, &["rxq"]);
    testpmd_fails(&["-m", "16", "--vdev", "net_null0"], &["-i", "--rxq=1000"], 1, &["1000"]);
    testpmd_fails(&["-m", "16", "--vdev", "net_null0"], &["-i", "--rxd=0"], 2, &["rxd 0"]);
    testpmd_fails(&["-m", "16", "--vdev", "net_null0"], &["-i", "--portlist=5"], 2, &["port 5"]);
    testpmd_fails(&["-m", "16", "--vdev", "net_null0"], &["-i", "--nb-ports=5"], 2, &["nb-ports"]);
}

#[test]
fn a_missing_command_file_is_named() {
    testpmd_fails(
        &["-m", "32", "--vdev", "net_null0"],
        &["-i", "--cmdline-file=/nonexistent"],
        1,
        &["/nonexistent"],
    );
}

#[test]
fn a_missing_socket_is_named() {
    let scratch = Scratch::new();
    let device = format!("net_virtio_user0,path={}", scratch.file("no.sock"));
    testpmd_fails(&["-m", "32", "--vdev", &device], &["-i"], 1, &["no.sock", "net_virtio_user0"]);
    let device = format!("net_vhost0,iface={}", scratch.file("no/such/folder.sock"));
    testpmd_fails(&["-m", "32", "--vdev", &device], &["-i"], 1, &["folder.sock"]);
    assert_eq!(scratch.entries(), [""; 0]);
}

#[test]
fn what_is_no_socket_is_named() {
    let scratch = Scratch::new();
    let (file, folder) = (scratch.file("plain"), scratch.path().display().to_string());
    std::fs::write(&file, "text").unwrap();
    for (path, what) in [(&file, "a file, not a socket"), (&folder, "a folder, not a socket")] {
        for server in ["", ",server=1"] {
            let device = format!("net_virtio_user0,path={path}{server}");
            testpmd_fails(&["-m", "32", "--vdev", &device], &["-i"], 1, &[path, what, "path of"]);
        }
        let device = format!("net_vhost0,iface={path}");
        testpmd_fails(&["-m", "32", "--vdev", &device], &["-i"], 1, &[path, "not a socket"]);
    }
    assert_eq!(scratch.entries(), ["plain"]);
}

/// What it is comes before who may use it: a folder that may not be written refuses connections for want of permission.
#[test]
fn what_is_no_socket_is_named_to_an_ordinary_user() {
    let scratch = Scratch::new();
    let folder = scratch.file("closed");
    std::fs::DirBuilder::new().mode(0o500).create(&folder).unwrap();
    for device in [
        format!("net_virtio_user0,path={folder}"),
        format!("net_virtio_user0,path={folder},server=1"),
        format!("net_vhost0,iface={folder}"),
        format!("net_vhost0,iface={folder},client=1"),
    ] {
        let mut command = held_back(&testpmd(&["-m", "32", "--vdev", &device], &["-i"]));
        let said = run(command.stdout(Stdio::piped()).stderr(Stdio::piped()), b"");
        one_sentence(&said, 1, &[&folder, "a folder, not a socket"]);
    }
}

#[test]
fn the_machine_is_not_asked_for_what_it_has_not() {
    let two = ["--lcores", "0@0,1@0", "-m", "32", "--vdev", "net_null0"];
    testpmd_fails(&two, &["--latencystats=99"], 2, &["lcore 99", "0@0,1@0", "--lcores"]);
    testpmd_fails(&["-l", "1-0", "--vdev", "net_null0"], &[], 2, &["-l", "1-0", "such as 0-1"]);
    testpmd_fails(
        &["--huge-dir", "/nonexistent", "--vdev", "net_null0"],
        &[],
        2,
        &["--huge-dir", "/nonexistent"],
    );
    testpmd_fails(&["-m", "99999999", "--vdev", "net_null0"], &[], 1, &["-m", "97656", "this machine has"]);
}

/// Under a limit of addresses a program works, or ends with the limit and what to raise; it does not break off.
#[test]
fn a_small_address_space_is_told() {
    let limited = |kib: u32, command: &std::process::Command| {
        let mut limited = std::process::Command::new("sh");
        limited.args(["-c", &format!("ulimit -v {kib} && exec \"$0\" \"$@\"")]);
        limited.arg(command.get_program()).args(command.get_args());
        limited.stdout(Stdio::piped()).stderr(Stdio::piped());
        limited
    };
    let scratch = Scratch::new();
    let device = format!("net_vhost0,iface={},queues=4", scratch.file("v.sock"));
    let testpmd = testpmd(&["-m", "32", "--in-memory", "--vdev", &device, "--vdev", "net_null0"], &["-i"]);
    for kib in (60_000..=200_000).step_by(10_000) {
        let said = run(&mut limited(kib, &testpmd), b"quit\n");
        match said.code {
            Some(0) => assert!(kib > 60_000 && said.out.ends_with("Bye...\n"), "{kib}: {said:?}"),
            _ => one_sentence(&said, 1, &["addresses in all, raise that limit by", "(ulimit -v)"]),
        }
    }
    let mut demo = limited(60_000, &linecard(&["demo", "--seconds=1"]));
    let said = run(demo.env("TMPDIR", scratch.path()).env_remove("XDG_RUNTIME_DIR"), b"");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("(ulimit -v)") && said.err.contains(" ended early; "), "{said:?}");
    let socket = scratch.file("switch.sock");
    let mut switch = limited(60_000, &linecard(&["switch", "--socket", &socket, "--vdev", "net_null0"]));
    one_sentence(&run(switch.env("RUNTIME_DIRECTORY", scratch.path()), b""), 1, &["(ulimit -v)"]);
    wait_until("an empty place", || scratch.entries().is_empty());
}

#[test]
fn a_late_mistake_takes_early_sockets_with_it() {
    let scratch = Scratch::new();
    let device = format!("net_vhost0,iface={}", scratch.file("early.sock"));
    testpmd_fails(&["-m", "32", "--vdev", &device, "--vdev", "net_nul0"], &["-i"], 1, &["net_nul0"]);
    testpmd_fails(&["-m", "32", "--vdev", &device], &["-i", "--nb-cores=99"], 2, &["nb-cores"]);
    testpmd_fails(&["-m", "8", "--vdev", &device], &["-i", "--total-num-mbufs=90000"], 1, &["mb_pool_0"]);
    testpmd_fails(
        &["-m", "32", "--vdev", &device],
        &["-i", "--cmdline-file=/nonexistent"],
        1,
        &["/nonexistent"],
    );
    assert_eq!(scratch.entries(), [""; 0]);
}

#[test]
fn rings_of_impossible_sizes_are_named() {
    let scratch = Scratch::new();
    for size in ["0", "1000", "65536"] {
        let device = format!("net_virtio_user0,path={},queue_size={size}", scratch.file("no.sock"));
        testpmd_fails(&["-m", "32", "--vdev", &device], &["-i"], 1, &[size]);
    }
}

#[test]
fn a_backend_that_never_answers_is_given_up() {
    let scratch = Scratch::new();
    let socket = scratch.file("mute.sock");
    let _mute = UnixListener::bind(&socket).unwrap();
    let device = format!("net_virtio_user0,path={socket}");
    let said = run(&mut testpmd(&["-m", "32", "--vdev", &device], &["-i"]), b"");
    one_sentence(&said, 1, &["net_virtio_user0", "did not answer"]);
    assert!(said.took < Duration::from_secs(20), "{:?}", said.took);
}

#[test]
fn a_backend_that_hangs_up_is_reported() {
    let scratch = Scratch::new();
    let socket = scratch.file("rude.sock");
    let rude = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || rude.incoming().for_each(drop));
    let device = format!("net_virtio_user0,path={socket}");
    one_sentence(
        &run(&mut testpmd(&["-m", "32", "--vdev", &device], &["-i"]), b""),
        1,
        &["net_virtio_user0", "backend"],
    );
}

#[test]
fn a_refusal_names_the_argument_that_would_do() {
    let scratch = Scratch::new();
    let device = format!("net_vhost0,iface={}", scratch.file("one.sock"));
    let said = run(&mut testpmd(&["-m", "32", "--vdev", &device], &["-i", "--rxq=2"]), b"quit\n");
    let want = "net_vhost0: 2 receive queues requested, the device has 1; add queues=2 to its arguments";
    one_sentence(&said, 1, &[want]);
    // An argument that would be refused is not named.
    let said = run(&mut testpmd(&["-m", "32", "--vdev", &device], &["-i", "--rxq=1000"]), b"quit\n");
    let want = "net_vhost0: 1000 receive queues requested, the device has 1; add queues=128 to its arguments, and ask for \
                1 to 128";
    one_sentence(&said, 1, &[want]);
    let device = format!("net_vhost0,ifcae={}", scratch.file("one.sock"));
    let said = run(&mut testpmd(&["-m", "32", "--vdev", &device], &["-i"]), b"quit\n");
    one_sentence(&said, 1, &["net_vhost0: unknown argument 'ifcae'; did you mean 'iface'?"]);
    let peer = ["-i", "--eth-peer=9,02:00:00:00:00:01"];
    let said = run(&mut testpmd(&["-m", "32", "--vdev", "net_null0"], &peer), b"quit\n");
    one_sentence(&said, 2, &["--eth-peer names port 9; there are 1 ports, numbered from 0"]);
}

/// A backend that takes the connection and never speaks: the time that is told is the time that it had.
#[test]
fn a_time_that_ran_out_is_told_whole() {
    let scratch = Scratch::new();
    let socket = scratch.file("silent.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let device = format!("net_virtio_user0,path={socket}");
    let said = run(&mut testpmd(&["-m", "32", "--vdev", &device], &["-i"]), b"quit\n");
    let (request, seconds) = unanswered(&said);
    assert_eq!(request, "GET_FEATURES");
    // Of 2 s for everything; on a busy machine connecting takes some of them, but not the last.
    assert!((1.0..=2.0).contains(&seconds), "{said:?}");
}

/// The request that a backend did not answer, and the seconds that it had.
fn unanswered(said: &Said) -> (String, f64) {
    one_sentence(said, 1, &["the backend did not answer ", "; see whether the backend runs"]);
    let words = said.err.split_once("did not answer ").and_then(|(_, rest)| rest.split_once(" s; "));
    let words = words.and_then(|(words, _)| words.split_once(" within "));
    let (request, seconds) = words.unwrap_or_else(|| panic!("{said:?}"));
    (request.to_owned(), seconds.parse().unwrap_or_else(|_| panic!("{said:?}")))
}

/// One that answers once, late, and then never: what is told is the time that it had for all answers, not the rest that
/// the first left.
#[test]
fn a_time_that_ran_out_after_an_answer_is_told_whole() {
    let scratch = Scratch::new();
    let socket = scratch.file("slow.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let backend = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 12]).unwrap();
        // Of 2 s for all answers; with more than 1 s left, the next request would have a limit of its own.
        std::thread::sleep(Duration::from_millis(1500));
        // GET_FEATURES, version 1, a reply of 8 bytes: VIRTIO_F_VERSION_1 and VHOST_USER_F_PROTOCOL_FEATURES.
        let header = [1_u32, 5, 8].map(u32::to_le_bytes).concat();
        let _ = stream.write_all(&[&header[..], &(1_u64 << 32 | 1 << 30).to_le_bytes()].concat());
        // It stays connected until the frontend leaves.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let device = format!("net_virtio_user0,path={socket}");
    let said = run(&mut testpmd(&["-m", "32", "--vdev", &device], &["-i"]), b"quit\n");
    let (request, seconds) = unanswered(&said);
    match request.as_str() {
        "GET_PROTOCOL_FEATURES" => assert!((1.5..=2.0).contains(&seconds), "{said:?}"),
        // On a busy machine connecting took so long that the first answer came too late.
        request => assert_eq!(request, "GET_FEATURES"),
    }
    backend.join().unwrap();
}

#[test]
fn more_queues_than_the_backend_has_are_refused() {
    let scratch = Scratch::new();
    let socket = scratch.file("one.sock");
    let device = format!("net_vhost0,iface={socket},queues=1");
    let mut command = testpmd(&["-m", "32", "--vdev", &device], &["-i"]);
    let mut backend = Running::start(command.stdin(std::process::Stdio::piped()));
    let stdin = backend.0.stdin.take();
    wait_until("the socket", || std::path::Path::new(&socket).exists());
    let device = format!("net_virtio_user0,path={socket},queues=4");
    let said = run(&mut testpmd(&["-m", "32", "--vdev", &device], &["-i", "--rxq=4", "--txq=4"]), b"quit\n");
    one_sentence(&said, 1, &["net_virtio_user0", "queues"]);
    drop(stdin);
    assert_eq!(backend.end(common::PATIENCE).code, Some(0));
    assert_eq!(scratch.entries(), [""; 0], "the socket is gone");
}
