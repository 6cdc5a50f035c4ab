//! The examples that join interfaces of the kernel, run as their first lines say, in namespaces of the tests' own.

mod support;

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use linecard::capture::pcap::encode::{Format, Record};
use linecard::capture::pcap::read::Reader;
use linecard_lab::{Lab, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use support::example::{Running, example, example_of};
use support::ours::Ours;
use support::{Scratch, on_path, skip};

#[test]
fn l2fwd_gives_frames_new_addresses() {
    let Some(lab) = Lab::new("l2fwd_gives_frames_new_addresses") else { return };
    lab.veth("left", "veth0");
    lab.veth("veth2", "right");
    let program = example("l2fwd");
    let mut command = Command::new(program);
    command.args(["net_af_packet0,iface=veth0", "net_af_packet1,iface=veth2", "-T", "1"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut running = Running(lab.run(|| command.spawn()).expect("it starts"));
    let promiscuous = |name: &str| lab.ip(&format!("-d link show {name}")).contains("promiscuity 1");
    wait_until("both ports are started", || promiscuous("veth0") && promiscuous("veth2"));

    let ours = |name: &str| Ours::start(&format!("net_af_packet0,iface={name},netns={}", lab.path()));
    let (mut left, mut right) = (ours("left"), ours("right"));
    let frame = |number: u8, len: usize| {
        let header = [2, 9, 9, 9, 9, 9, 2, 8, 8, 8, 8, 8, 0x88, 0xb5];
        header.into_iter().chain((14..len).map(|i| i as u8 ^ number)).collect::<Vec<u8>>()
    };
    let frames: Vec<_> = (0..100).map(|i| frame(i, 60 + usize::from(i) * 14)).collect();
    let check = |from: &mut Ours, to: &mut Ours, port: &str, number: u8| {
        let source = lab.interface(port).info().expect("it is there").mac.expect("an address");
        from.send(&frames);
        let got = to.receive(frames.len());
        assert_eq!(got.len(), frames.len(), "all of them arrive");
        for (got, sent) in got.iter().zip(&frames) {
            assert_eq!(got[..6], [2, 0, 0, 0, 0, number], "the destination is the port's number");
            assert_eq!(got[6..12], source, "the source is the port's address");
            assert_eq!(got[12..], sent[12..], "the rest is as it was");
        }
    };
    check(&mut left, &mut right, "veth2", 1);
    check(&mut right, &mut left, "veth0", 0);
    left.stop();
    right.stop();

    let pid = Pid::from_raw(i32::try_from(running.0.id()).expect("small")).expect("not zero");
    kill_process(pid, Signal::INT).expect("it runs");
    let (success, text) = running.end();
    assert!(success, "{text}");
    let last = text.rsplit("Port statistics").next().expect("some text");
    for want in ["Total packets sent:                200", "Total packets received:            200"] {
        assert!(last.contains(want), "{text}");
    }
    assert!(!promiscuous("veth0"), "it left the interfaces as they were");
}

#[test]
fn ping_crosses_bridge_veth() {
    const TEST: &str = "ping_crosses_bridge_veth";
    if on_path("ping").is_none() {
        return skip(TEST, "no program 'ping' on this machine (apt-get install iputils-ping)");
    }
    let Some(lab) = Lab::new(TEST) else { return };
    let mut command = Command::new(example("bridge_veth"));
    command.env("LINECARD", env!("CARGO_BIN_EXE_linecard")).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut running = Running(lab.run(|| command.spawn()).expect("it starts"));
    let (success, text) = running.end();
    assert!(success, "{text}");
    assert!(text.contains(" 3 received, "), "{text}");
    assert!(!lab.ip("link").contains("lc0"), "the pair is gone");
}

#[test]
fn an_example_is_captured() {
    let mut command = Command::new(example("forward"));
    command.args(["net_null0", "net_null1"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running(command.spawn().expect("it starts"));
    let pid = running.0.id().to_string();
    let capture = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_linecard"));
        command
            .args(["capture", "--pid", &pid])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("it runs")
    };
    wait_until("its ports are there to be captured", || {
        capture(&["-p", "net_null1", "-c", "1"]).status.success()
    });
    let output = capture(&["-p", "0", "-c", "5"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.matches("64 bytes").count() == 5, "{output:?}");
    // A killed program leaves its socket; the next look removes it.
    drop(running);
    assert!(!capture(&["-p", "0", "-c", "1"]).status.success());
}

/// What the server at 10.0.0.2 answers, asked from within the lab.
fn curl(lab: &Lab, paths: &[&str]) -> Output {
    let urls = paths.iter().map(|path| format!("http://10.0.0.2/{path}"));
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "60", "--parallel"]).args(urls);
    lab.run(|| command.output()).expect("curl runs")
}

/// The server answers one request and several at once, with every byte of a long page.
fn answers(lab: &Lab) {
    wait_until("the first answer", || curl(lab, &[""]).status.success());
    let output = curl(lab, &["4000"]);
    let text = String::from_utf8_lossy(&output.stdout);
    let (first, rest) = text.split_once('\n').expect("a line");
    assert!(first.ends_with(": GET /4000 HTTP/1.1"), "{first}");
    assert!(rest.lines().map(|line| line.parse::<u32>()).eq((0..4000).map(Ok)), "{text}");
    let output = curl(lab, &["1", "2", "3", "4", "5"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.matches("Linecard answers").count() == 5, "{output:?}");
}

fn http(lab: &Lab, device: &str) -> Running {
    let mut command = Command::new(example("http"));
    command.args([device, "10.0.0.2"]).stdin(Stdio::null()).stdout(Stdio::null());
    Running(lab.run(|| command.spawn()).expect("it starts"))
}

#[test]
fn http_answers_curl_on_a_tap() {
    const TEST: &str = "http_answers_curl_on_a_tap";
    if on_path("curl").is_none() {
        return skip(TEST, "no program 'curl' on this machine (apt-get install curl)");
    }
    let Some(lab) = Lab::new(TEST) else { return };
    let _running = http(&lab, "net_tap0,iface=lc0");
    wait_until("the interface", || lab.ip("link").contains("lc0"));
    lab.ip("addr add 10.0.0.1/24 dev lc0");
    lab.ip("link set lc0 up");
    answers(&lab);
}

#[test]
fn http_answers_curl_through_the_switch() {
    const TEST: &str = "http_answers_curl_through_the_switch";
    if on_path("curl").is_none() {
        return skip(TEST, "no program 'curl' on this machine (apt-get install curl)");
    }
    let Some(lab) = Lab::new(TEST) else { return };
    let scratch = Scratch::new(TEST);
    let socket = scratch.join("http.sock").display().to_string();
    let mut switch = Command::new(env!("CARGO_BIN_EXE_linecard"));
    switch.args([
        "switch",
        "--no-huge",
        "-m",
        "64",
        "--packets",
        "4096",
        "--socket",
        "none",
        "--no-telemetry",
    ]);
    switch.args(["--tap", "lc0", "--port", &socket]).stdin(Stdio::null()).stdout(Stdio::null());
    let _switch = Running(lab.run(|| switch.spawn()).expect("it starts"));
    wait_until("the socket", || std::path::Path::new(&socket).exists());
    let _running = http(&lab, &format!("net_virtio_user0,path={socket}"));
    wait_until("the interface", || lab.ip("link").contains("lc0"));
    lab.ip("addr add 10.0.0.1/24 dev lc0");
    lab.ip("link set lc0 up");
    answers(&lab);
}

#[test]
fn a_pipeline_loses_nothing_and_keeps_the_order_of_flows() {
    const FLOWS: u16 = 50;
    const EACH: u32 = 100;
    let scratch = Scratch::new("pipeline");
    let [from, to] = ["in.pcap", "out.pcap"].map(|name| scratch.join(name));
    let frame = |flow: u16, number: u32| {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        frame.extend([0x45, 0, 0, 46, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend(
            [&flow.to_be_bytes()[..], &[0, 53, 0, 26, 0, 0], &number.to_be_bytes(), &[7; 14]].concat(),
        );
        frame
    };
    let mut file = Vec::new();
    Format::Pcap.header(&mut file, 65_535);
    for number in 0..EACH {
        for flow in 0..FLOWS {
            let frame = frame(1000 + flow, number);
            let record = Record { len: frame.len() as u32, ..Record::default() };
            Format::Pcap.record(&mut file, &record, &[&frame]);
        }
    }
    std::fs::write(&from, file).expect("a file");
    let count = (u32::from(FLOWS) * EACH).to_string();
    let devices =
        [format!("net_pcap0,rx_pcap={}", from.display()), format!("net_pcap1,tx_pcap={}", to.display())];
    let mut command = Command::new(example("pipeline"));
    command.args(&devices).args(["--lcores", "0@0,1@0,2@0,3@0,4@0", "--count", &count]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let (success, text) = Running(command.spawn().expect("it starts")).end();
    assert!(success, "{text}");
    // Each core says what it did: all of it passed the first and the last, and every worker had some.
    let done: Vec<u32> = text
        .lines()
        .map(|line| {
            assert!(line.ends_with(", 0 dropped"), "{text}");
            line.split(": ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).expect("a number")
        })
        .collect();
    let [workers @ .., sender, receiver] = &done[..] else { panic!("{text}") };
    assert_eq!(
        (sender.to_string(), receiver.to_string(), workers.iter().sum::<u32>().to_string()),
        (count.clone(), count.clone(), count)
    );
    assert!(workers.len() == 3 && workers.iter().all(|packets| *packets > 500), "{text}");
    let mut reader = Reader::open(&to).expect("a capture");
    let mut next = vec![0_u32; FLOWS.into()];
    while reader.ready().expect("it is whole") {
        let got = reader.frame();
        let flow = usize::from(u16::from_be_bytes([got[34], got[35]]) - 1000);
        let mut expected = frame(1000 + flow as u16, next[flow]);
        let (destination, source) = expected[..12].split_at_mut(6);
        destination.swap_with_slice(source);
        assert_eq!(got, expected, "flow {flow}");
        next[flow] += 1;
        reader.advance();
    }
    assert!(next.iter().all(|count| *count == EACH), "{next:?}");
}

/// A driver of another crate is a device of testpmd's like all others: listed, opened, forwarded from, attached and detached.
#[test]
fn a_driver_of_ones_own_is_in_testpmd() {
    const FRAMES: usize = 1000;
    let program = example_of("linecard-apps", "own_driver");
    let help = Command::new(&program).arg("--help").output().expect("it runs");
    let help = String::from_utf8_lossy(&help.stdout);
    assert!(help.contains("net_count") && help.contains("net_vhost"), "{help}");

    let folder = Scratch::new("own_driver");
    let file = folder.join("out.pcap");
    let mut command = Command::new(&program);
    command.args(["--no-huge", "--no-pci", "--in-memory", "-m", "64"]);
    command.arg(format!("--vdev=net_count0,frames={FRAMES}"));
    command.arg(format!("--vdev=net_pcap0,tx_pcap={}", file.display()));
    // A start throws away what came before it.
    command.args(["--", "-i", "--auto-start", "--no-flush-rx"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = Running(command.spawn().expect("it starts"));
    let whole = 24 + FRAMES as u64 * (16 + 60);
    wait_until("all frames are in the file", || file.metadata().is_ok_and(|it| it.len() >= whole));
    let lines =
        "stop\nshow port stats 0\nport attach net_count7,frames=1\nport attach net_count8,nothing=1\nquit\n";
    running.0.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("it reads");
    let (success, text) = running.end();
    assert!(success, "{text}");
    assert!(text.contains(&format!("RX-packets: {FRAMES} ")), "{text}");
    assert!(text.contains("Port 2 is attached"), "{text}");

    let mut reader = Reader::open(&file).expect("a capture");
    for count in 0..FRAMES as u32 {
        assert!(reader.ready().expect("it is whole"), "frame {count} is there");
        assert_eq!(reader.frame()[14..18], count.to_be_bytes(), "in their order");
        reader.advance();
    }
    assert!(!reader.ready().expect("it is whole"), "and no other");
}

/// What each example is started with, `DEVICE` being a device that cannot be had; where it finds none to be given, what else
/// is wrong for it.
const WRONG: [(&str, &str, &[&str]); 13] = [
    ("linecard", "blocking_echo", &["DEVICE"]),
    ("linecard", "bridge_veth", &["DEVICE", "net_null7"]),
    ("linecard", "dump", &["DEVICE"]),
    ("linecard", "echo", &["DEVICE"]),
    ("linecard", "forward", &["DEVICE", "net_null7"]),
    ("linecard", "http", &["DEVICE", "10.0.0.2"]),
    ("linecard", "l2fwd", &["DEVICE", "net_null7"]),
    ("linecard", "loopback", &[]),
    ("linecard", "pipeline", &["DEVICE", "net_null7", "--lcores", "0@0,1@0,2@0"]),
    ("linecard", "pktgen", &["DEVICE"]),
    ("linecard", "tokio_echo", &["DEVICE"]),
    ("linecard-apps", "own_driver", &["--no-huge", "-m", "64", "--vdev", "DEVICE", "--", "-i"]),
    ("linecard-vhost-user", "mirror", &["/nowhere/mirror.sock"]),
];

/// The names of all examples of this repository.
fn examples() -> Vec<String> {
    // This file is a test of the package of the programs.
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    let list = |folder: std::path::PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let nested = list(root.to_owned()).chain(list(root.join("adapters")));
    let folders = nested.map(|entry| entry.path().join("examples")).chain([root.join("examples")]);
    let files = folders.flat_map(list).map(|entry| entry.path());
    let sources = files.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let mut names: Vec<_> =
        sources.map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What cannot be opened is told in one plain sentence, and the program fails: in every example, since programs begin as
/// copies of them.
#[test]
fn each_example_says_in_a_sentence_what_is_wrong() {
    let mut known = WRONG.map(|(_, name, _)| name);
    known.sort_unstable();
    assert_eq!(examples(), known, "each example has a row");
    for (package, name, arguments) in WRONG {
        let program = example_of(package, name);
        for device in ["net_nul0", "net_null0,sise=64"] {
            let mut command = Command::new(&program);
            command.args(arguments.iter().map(|word| if *word == "DEVICE" { device } else { word }));
            // Where the example that has no arguments puts its socket.
            let output = command.env("TMPDIR", "/nowhere").stdin(Stdio::null()).output().expect("it runs");
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{name}: {said}");
            let [line] = said.lines().collect::<Vec<_>>()[..] else { panic!("{name}: {said}") };
            let sentence = line.strip_prefix("error: ").unwrap_or_else(|| panic!("{name}: {said}"));
            assert!(
                sentence.contains(if arguments.contains(&"DEVICE") { "net_nul" } else { "/nowhere" }),
                "{said}"
            );
            // As Debug writes structures, variants and texts.
            assert!(!sentence.contains(['{', '}', '"']), "{name}: {said}");
        }
    }
}
