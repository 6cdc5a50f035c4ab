//! `linecard capture` beside a running testpmd: files and pipes, filters, drops, clients that die, bad input.

mod common;

use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use common::{PATIENCE, Running, Said, Scratch, frames, linecard, run, skip, testpmd};
use linecard::capture::pcap::encode::{Format, Record};
use linecard::capture::pcap::read::Reader;
use linecard_lab::wait_until;
use rustix::process::Signal;

/// A testpmd with a control socket of its own, forwarding since it started.
struct Program {
    running: Running,
    console: ChildStdin,
    prefix: String,
}

impl Program {
    fn start(name: &str, devices: &[&str], app: &[&str]) -> Self {
        let prefix = format!("test-{name}-{}", std::process::id());
        let mut eal = vec!["-m", "64", "--file-prefix", &prefix];
        eal.extend(devices.iter().flat_map(|device| ["--vdev", device]));
        let mut command = testpmd(&eal, &[&["-i", "-a"], app].concat());
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut running = Running::start(&mut command);
        let console = running.0.stdin.take().unwrap();
        let program = Self { running, console, prefix };
        wait_until("the control socket", || program.capture(&["-D"]).code == Some(0));
        let ports = devices.len();
        wait_until("its ports", || program.capture(&["-D"]).out.matches("transmit queue").count() == ports);
        program
    }

    /// Runs `linecard capture` on it to the end.
    fn capture(&self, arguments: &[&str]) -> Said {
        run(&mut self.command(arguments), b"")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        linecard(&[&["capture", "--file-prefix", &self.prefix], arguments].concat())
    }

    fn type_line(&mut self, line: &str) {
        writeln!(self.console, "{line}").unwrap();
    }

    /// `quit`; it ends well and leaves no socket.
    fn quit(mut self) {
        self.type_line("quit");
        let folder = linecard::eal::runtime::folder(&self.prefix);
        let said = self.running.end(PATIENCE);
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(!folder.exists(), "nothing is left behind");
    }
}

/// UDP frames to ports 2000, 2001, 2002, and as many of ARP.
fn input(scratch: &Scratch) -> String {
    let mut file = Vec::new();
    Format::Pcap.header(&mut file, 65_535);
    for i in 0..6_u8 {
        let mut frame = [i; 90];
        frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
        frame[12..14].copy_from_slice(if i < 3 { &[8, 0] } else { &[8, 6] });
        frame[14..24].copy_from_slice(&[0x45, 0, 0, 76, 0, 0, 0, 0, 64, 17]);
        frame[34..38].copy_from_slice(&[3, 232, 7, 208 + i]);
        Format::Pcap.record(&mut file, &Record { len: 90, ..Record::default() }, &[&frame]);
    }
    let path = scratch.file("input.pcap");
    std::fs::write(&path, file).unwrap();
    path
}

fn source(scratch: &Scratch) -> String {
    format!("net_pcap0,rx_pcap={},infinite_rx=1,rate=20000", input(scratch))
}

#[test]
fn packets_reach_files_pipes_and_eyes() {
    let scratch = Scratch::new();
    let source = source(&scratch);
    let program = Program::start("files", &[&source, "net_null0,no-rx=1"], &[]);
    let path = scratch.file("out.pcapng");
    let said = program.capture(&["-p", "0", "-w", &path, "-c", "600"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(
        said.err.contains("capturing on net_pcap0") && said.err.contains("600 packets captured"),
        "{said:?}"
    );
    let got = frames(&path);
    let want = frames(&input(&scratch));
    assert_eq!(got.len(), 600);
    let first = want.iter().position(|frame| *frame == got[0]).expect("one of them");
    assert!(got.iter().enumerate().all(|(i, frame)| *frame == want[(first + i) % 6]), "all, in order");

    // By name, cut, one way, filtered, in the old format, by a pipe.
    let arguments = ["-p", "net_null0", "--direction", "out", "-s", "50", "-c", "40", "-P", "-w", "-"];
    let mut command = program.command(&[&arguments[..], &["-f", "udp dst port 2001 or 2002"]].concat());
    let output = command.output().unwrap();
    let piped = scratch.file("piped.pcap");
    std::fs::write(&piped, &output.stdout).unwrap();
    let got = frames(&piped);
    assert_eq!(got.len(), 40);
    let first = usize::from(got[0][37] == want[2][37]);
    assert!(got.iter().enumerate().all(|(i, frame)| *frame == want[1 + (first + i) % 2][..50]));

    let said = program.capture(&["-p", "0", "-c", "5", "-f", "arp"]);
    assert_eq!(said.out.lines().count(), 5, "{said:?}");
    assert!(
        said.out
            .lines()
            .all(|line| line
                .contains("in  q0    90 bytes  02:00:00:00:00:02 > 02:00:00:00:00:01  type 0x0806")),
        "{said:?}"
    );

    // Compiled by tcpdump: arp, as `tcpdump -y EN10MB -ddd arp` prints it.
    let program_file = scratch.file("arp.bpf");
    std::fs::write(&program_file, "4\n40 0 0 12\n21 0 1 2054\n6 0 0 262144\n6 0 0 0\n").unwrap();
    let said = program.capture(&["-p", "0", "-c", "5", "-F", &program_file, "-w", &path]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(frames(&path).iter().all(|frame| frame[13] == 6));

    // Two ports in one file.
    let said = program.capture(&["-p", "0", "-p", "1", "--seconds", "1", "-w", &path]);
    assert!(said.code == Some(0) && said.err.contains("net_pcap0, net_null0"), "{said:?}");
    assert!(frames(&path).len() > 100, "{said:?}");
    program.quit();
}

#[test]
fn tshark_reads_what_we_write() {
    if Command::new("tshark").arg("--version").output().is_err() {
        return skip("tshark_reads_what_we_write", "tshark is not installed (apt-get install tshark)");
    }
    let scratch = Scratch::new();
    let source = source(&scratch);
    // Nobody receives from net_ring0: it fills up, and what testpmd drops has a reason.
    let program = Program::start("tshark", &[&source, "net_ring0,peer=net_ring9"], &[]);
    let fields = "frame.interface_name,frame.len,frame.packet_flags_direction,frame.comment,frame.time_epoch";
    let tshark = |reading: &str| {
        let mut command = Command::new("tshark");
        command.args(["-n", "-r", reading, "-T", "fields"]);
        command.args(fields.split(',').flat_map(|field| ["-e", field]));
        command
    };
    // Live, by a pipe.
    let mut capture = program.command(&["-p", "0", "-w", "-", "-c", "200"]);
    let mut capture = Running::start(&mut capture);
    let pipe = capture.0.stdout.take().unwrap();
    let said = run_with(&mut tshark("-"), pipe.into());
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(lines.len(), 200, "{said:?}");
    assert!(
        lines.iter().all(|line| line.starts_with("net_pcap0\t90\t") && line.contains("1\t\t")),
        "{}",
        lines[0]
    );
    let time: f64 = lines[0].split('\t').next_back().unwrap().parse().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - time).abs() < 60.0, "{time}");
    assert_eq!(capture.end(PATIENCE).code, Some(0));

    let path = scratch.file("drops.pcapng");
    let said = program.capture(&["-p", "1", "-w", &path, "-c", "100"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let said = run_with(&mut tshark(&path), Stdio::null());
    let dropped =
        said.out.lines().filter(|line| line.contains("dropped: no room in the transmit queue")).count();
    assert_eq!((dropped, said.out.lines().count()), (100, 100), "{said:?}");
    program.quit();
}

#[test]
fn drops_inside_a_driver_have_its_reasons() {
    let scratch = Scratch::new();
    let (socket, path) = (scratch.file("s"), scratch.file("long.pcap"));
    // More than a virtio-user port sends without segmentation.
    let mut file = Vec::new();
    Format::Pcap.header(&mut file, 65_535);
    for len in [60_usize, 12_000] {
        let frame = vec![7; len];
        Format::Pcap.record(&mut file, &Record { len: len as u32, ..Record::default() }, &[&frame]);
    }
    std::fs::write(&path, file).unwrap();
    let source = format!("net_pcap0,rx_pcap={path},infinite_rx=1,rate=2000");
    let (vhost, virtio) = (format!("net_vhost0,iface={socket}"), format!("net_virtio_user0,path={socket}"));
    let backend = Program::start("reason-b", &[&vhost], &[]);
    let program = Program::start("reason-f", &[&source, &virtio], &[]);
    let said = program.capture(&["-p", "1", "--direction", "out", "-c", "60"]);
    let long = said.out.lines().filter(|line| {
        line.ends_with("12000 bytes  07:07:07:07:07:07 > 07:07:07:07:07:07  type 0x0707  [dropped: too_long]")
    });
    let short = said.out.lines().filter(|line| line.contains("   60 bytes") && !line.contains("dropped"));
    assert!(long.count() >= 15 && short.count() >= 15, "{said:?}");
    program.quit();
    backend.quit();
}

/// Runs a command with this on its input.
fn run_with(command: &mut Command, input: Stdio) -> Said {
    command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
    Running::start(command).end(PATIENCE)
}

#[test]
fn signals_end_a_capture_and_killing_it_harms_nobody() {
    let scratch = Scratch::new();
    let source = source(&scratch);
    let program = Program::start("kill", &[&source, "net_null0,no-rx=1"], &[]);
    let path = scratch.file("out.pcapng");
    // One that writes. The capture before ends within moments of its command, and until then there can be no other.
    let begin = || loop {
        let _ = std::fs::remove_file(&path);
        let mut capture = Running::start(&mut program.command(&["-p", "0", "-w", &path]));
        let mut refused = false;
        wait_until("packets", || {
            refused = capture.0.try_wait().expect("a child").is_some();
            refused || std::fs::metadata(&path).is_ok_and(|data| data.len() > 20_000)
        });
        if !refused {
            break capture;
        }
    };
    for round in 0..6 {
        let capture = begin();
        match round % 3 {
            0 => {
                capture.signal(Signal::KILL);
                capture.end(PATIENCE);
            }
            kind => {
                capture.signal(if kind == 1 { Signal::INT } else { Signal::TERM });
                let said = capture.end(PATIENCE);
                assert!(said.code == Some(0) && said.err.contains("packets captured"), "{said:?}");
            }
        }
        if round % 3 == 0 {
            // A kill may fall into a write, which the kernel then ends at a page.
            let mut reader = Reader::open(Path::new(&path)).unwrap();
            let mut count = 0;
            while reader.ready().is_ok_and(|more| more) {
                count += 1;
                reader.advance();
            }
            assert!(count > 100);
        } else {
            assert!(frames(&path).len() > 100);
        }
    }
    let said = program.capture(&["-p", "1", "-c", "10"]);
    assert_eq!(said.out.lines().count(), 10, "traffic goes on: {said:?}");
    // A reader that goes away is no mistake.
    let mut capture = program.command(&["-p", "0", "-w", "-"]);
    let mut capture = Running::start(&mut capture);
    drop(capture.0.stdout.take());
    assert_eq!(capture.end(PATIENCE).code, Some(0));
    // The program goes away: the capture ends by itself, with a whole file.
    let capture = begin();
    program.quit();
    let said = capture.end(PATIENCE);
    assert!(said.code == Some(0) && said.err.contains("net_pcap0: the "), "{said:?}");
    assert!(frames(&path).len() > 100);
}

#[test]
fn the_next_program_clears_away_what_a_killed_one_left() {
    let killed = Program::start("killed", &["net_null0"], &["--total-num-mbufs=2048"]);
    let folder = linecard::eal::runtime::folder(&killed.prefix);
    assert!(folder.exists());
    let Program { mut running, .. } = killed;
    running.0.kill().unwrap();
    running.0.wait().unwrap();
    // Another prefix; a program that still runs keeps its socket.
    let next = Program::start("next", &["net_null0"], &["--total-num-mbufs=2048"]);
    assert!(!folder.exists(), "neither the socket nor its folder is left");
    let other = Program::start("other", &["net_null0"], &["--total-num-mbufs=2048"]);
    assert_eq!(next.capture(&["-D"]).code, Some(0), "it is there as before");
    other.quit();
    next.quit();
}

/// In a container numbers of processes are soon in use again. Then the age of a socket tells, beside that nobody
/// listens there.
#[test]
fn a_socket_is_cleared_away_though_another_process_has_the_number() {
    let prefix = format!("test-reused-{}", std::process::id());
    let folder = linecard::eal::runtime::create(&prefix).expect("a folder");
    let left = |pid: u32| {
        let path = folder.join(format!("control.{pid}"));
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
        path
    };
    // This process, and its parent, which are alive. Any run of `linecard capture` clears away what is deserted.
    let (old, young) = (left(std::process::id()), left(std::os::unix::process::parent_id()));
    let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    let seconds = hour_ago.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let time = rustix::fs::Timespec { tv_sec: seconds.try_into().expect("in range"), tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, &old, &times, rustix::fs::AtFlags::empty()).expect("ours");
    let said = run(&mut linecard(&["capture", "-D", "--file-prefix", &prefix]), b"");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(!old.exists(), "nobody has listened there for an hour");
    assert!(young.exists(), "its program may be about to listen");
    std::fs::remove_file(young).expect("it is there");
    linecard::eal::runtime::remove(&prefix);
    assert!(!folder.exists());
}

#[test]
fn the_console_captures_into_files() {
    let scratch = Scratch::new();
    let (source, path, old) = (source(&scratch), scratch.file("a.pcapng"), scratch.file("b.pcap"));
    let prefix = format!("test-console-{}", std::process::id());
    let mut command = testpmd(
        &["-m", "64", "--file-prefix", &prefix, "--vdev", &source, "--vdev", "net_null0,no-rx=1"],
        &["-i", "-a"],
    );
    let mut running = Running::start(command.stdin(Stdio::piped()));
    let mut console = running.0.stdin.take().unwrap();
    let mut type_lines = |text: &str| console.write_all(text.as_bytes()).unwrap();
    let input = scratch.file("input.pcap");
    let whole = std::fs::read(&input).unwrap();
    type_lines(&format!("set capture 0 {path}\nset capture 1 {path}\nset capture 1 {input}\n"));
    type_lines(&format!("set capture 1 {old}\nset capture 0 {path}\n"));
    wait_until("packets", || std::fs::metadata(&old).is_ok_and(|data| data.len() > 50_000));
    type_lines(
        "show capture\nset capture 0 off\nset capture 0 off\nset capture 7 x\nset capture 1 /no/folder/x\nquit\n",
    );
    let said = running.end(PATIENCE);
    assert_eq!(said.code, Some(0), "{said:?}");
    for part in [
        &format!("Capturing port 0 (net_pcap0) into {path}"),
        "packets, on",
        "from outside: linecard capture -p PORT -w FILE --pid",
        &format!("packets of port 0 into {path}, 0 lost"),
    ] {
        assert!(said.out.contains(part), "no '{part}' in {said:?}");
    }
    for part in ["port 0 (net_pcap0) is being captured already", "port 0 is not captured", "Invalid port 7"] {
        assert!(said.err.contains(part), "no '{part}' in {said:?}");
    }
    // Of a file that somebody writes or reads nothing is taken.
    for file in [&path, &input] {
        let part = format!("{file} cannot be written: another capture or port has it; name another file");
        assert!(said.err.contains(&part), "no '{part}' in {said:?}");
    }
    assert_eq!(std::fs::read(&input).unwrap(), whole);
    assert!(frames(&path).len() > 10 && frames(&old).len() > 100, "both files are whole");
}

#[test]
fn bad_input_is_answered_by_one_sentence() {
    let fails = |said: Said, code: i32, parts: &[&str]| {
        assert_eq!(said.code, Some(code), "{said:?}");
        let errors: Vec<_> = said.err.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{said:?}");
        assert!(parts.iter().all(|part| errors[0].contains(part)), "{parts:?} in {errors:?}");
    };
    let scratch = Scratch::new();
    let nobody = |arguments: &[&str]| run(&mut linecard(&[&["capture"], arguments].concat()), b"");
    fails(
        nobody(&["--file-prefix", "nobody-has-this", "-p", "0"]),
        1,
        &["--file-prefix nobody-has-this runs", "start one", "linecard::capture::serve with its ports"],
    );
    fails(nobody(&["--pid", "1", "-p", "0"]), 1, &["no program 1 that can be captured runs"]);
    fails(nobody(&["-f", "tcp prot 80"]), 2, &["not understood at 'prot'"]);
    fails(nobody(&["-F", "/nonexistent"]), 1, &["/nonexistent", "tcpdump -y EN10MB -ddd"]);
    fails(nobody(&["-f", "ip", "-F", "/nonexistent"]), 2, &["cannot be used with"]);
    fails(nobody(&["-c", "0"]), 2, &["0"]);
    fails(nobody(&["--frobnicate"]), 2, &["--frobnicate"]);

    let program = Program::start("bad", &["net_null0", "net_null1"], &[]);
    fails(program.capture(&["-p", "7"]), 1, &["there is no port 7; known: 0 (net_null0), 1 (net_null1)"]);
    fails(program.capture(&["-c", "1"]), 2, &["say which port with -p"]);
    fails(program.capture(&["-p", "0", "-p", "net_null0"]), 2, &["named twice"]);
    fails(program.capture(&["-p", "0", "-s", "0"]), 1, &["a snapshot of 0 bytes"]);
    let missing = scratch.file("no/folder/x");
    fails(program.capture(&["-p", "0", "-w", &missing]), 1, &["cannot be written", "a folder that exists"]);
    fails(program.capture(&["-p", "0", "-w", scratch.path().to_str().unwrap()]), 1, &["Is a directory"]);
    fails(
        program.capture(&["-p", "0", "-w", "/dev/full"]),
        1,
        &["/dev/full cannot be written", "No space left", "-c, -s or -f"],
    );
    assert_eq!(scratch.entries(), [""; 0]);
    let other = Program::start("bad2", &["net_null0"], &[]);
    let pids = [program.running.0.id().to_string(), other.running.0.id().to_string()];
    fails(nobody(&["-p", "0"]), 2, &["programs run", &pids[0], &pids[1], "--pid"]);
    let said = nobody(&["--pid", &pids[1], "-c", "3"]);
    assert_eq!(said.out.lines().count(), 3, "{said:?}");
    program.quit();
    other.quit();
}

/// Files in turn: each begins when the last is full, and is whole; only so many are kept.
#[test]
fn a_ring_of_files_keeps_the_newest() {
    let scratch = Scratch::new();
    let devices = [source(&scratch)];
    let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
    let program = Program::start("ring", &devices, &["--forward-mode=rxonly"]);
    let path = scratch.file("trace.pcapng");
    let ring = ["-b", "packets:10", "-b", "files:3"];
    let said = program.capture(&[&["-w", &path, "-c", "55", "--snaplen", "60"], &ring[..]].concat());
    assert_eq!(said.code, Some(0), "{said:?}");
    let mut files: Vec<_> = scratch.entries().into_iter().filter(|name| name.starts_with("trace_")).collect();
    files.sort();
    let numbers: Vec<&str> = files.iter().map(|name| &name[..11]).collect();
    assert_eq!(numbers, ["trace_00004", "trace_00005", "trace_00006"], "{files:?}");
    let counts: Vec<usize> = files.iter().map(|name| frames(&scratch.file(name)).len()).collect();
    assert_eq!(counts, [10, 10, 5]);
    assert!(frames(&scratch.file(&files[0])).iter().all(|frame| frame.len() == 60));
    // By size: no file has much more than was asked for.
    let path = scratch.file("size.pcap");
    let said = program.capture(&["-w", &path, "-P", "-c", "100", "-b", "filesize:2"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let sizes = scratch.entries().into_iter().filter(|name| name.starts_with("size_"));
    let sizes: Vec<u64> = sizes.map(|name| std::fs::metadata(scratch.file(&name)).unwrap().len()).collect();
    assert!(sizes.len() > 3 && sizes.iter().all(|size| *size < 2200), "{sizes:?}");
    for (arguments, words) in [
        (&["-b", "packets:10"][..], "--write"),
        (&["-w", "-", "-b", "packets:10"], "several files"),
        (&["-w", "x", "-b", "files:2"], "when the next begins"),
        (&["-w", "x", "-b", "packets"], "filesize:KB"),
        (&["-w", "x", "-b", "filesize:0"], "filesize:KB"),
        (&["-w", "x", "-b", "interval:1"], "filesize:KB"),
    ] {
        let said = program.capture(arguments);
        assert_eq!(said.code, Some(2), "{arguments:?}: {said:?}");
        assert!(said.err.contains(words), "{arguments:?}: {said:?}");
    }
    program.quit();
}

/// tshark with a folder of external capture interfaces. For root it does not look at the variable that names one, so there
/// the folder lies over its own, in a mount namespace of its own.
fn tshark_with(extcap: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        let mut command = Command::new("tshark");
        command.env("WIRESHARK_EXTCAP_DIR", extcap);
        return command;
    }
    let folders = Command::new("tshark").args(["-G", "folders"]).output().unwrap().stdout;
    let folders = String::from_utf8_lossy(&folders).into_owned();
    let own = folders.lines().find_map(|line| line.strip_prefix("Extcap path:")).expect("a folder").trim();
    let script = "mount --bind \"$1\" \"$2\" && shift 2 && exec tshark \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(extcap).arg(own);
    command
}

/// Wireshark's own program lists our ports among its interfaces, and captures from one.
#[test]
fn tshark_lists_ports_and_captures_by_extcap() {
    let test = "tshark_lists_ports_and_captures_by_extcap";
    if Command::new("tshark").arg("--version").output().is_err() {
        return skip(test, "no program 'tshark' on this machine; install tshark");
    }
    let scratch = Scratch::new();
    let extcap = scratch.path().join("extcap");
    std::fs::create_dir(&extcap).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_linecard"), extcap.join("linecard")).unwrap();
    let devices = [source(&scratch)];
    let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
    let program = Program::start("extcap", &devices, &["--forward-mode=rxonly"]);
    let tshark = |arguments: &[&str]| {
        let mut command = tshark_with(&extcap);
        command.args(arguments).env("HOME", scratch.path());
        run(command.stdout(Stdio::piped()).stderr(Stdio::piped()), b"")
    };
    let interface = format!("linecard-{}-0", program.running.0.id());
    let listed = tshark(&["-D"]);
    let line =
        listed.out.lines().find(|line| line.contains(&interface)).unwrap_or_else(|| panic!("{listed:?}"));
    assert!(line.contains("(Linecard net_pcap0 (process "), "{line}");
    let types = tshark(&["-i", &interface, "-L"]);
    assert!(format!("{}{}", types.out, types.err).contains("EN10MB"), "{types:?}");
    // The frames that pass the capture filter, as tshark dissects them.
    let said =
        tshark(&["-i", &interface, "-f", "udp port 2001", "-c", "3", "-T", "fields", "-e", "udp.dstport"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(said.out.lines().collect::<Vec<_>>(), ["2001"; 3], "{said:?}");
    // What Wireshark asks besides.
    let ask = |arguments: &[&str]| run(&mut linecard(arguments), b"");
    let settings = ask(&["capture", "--extcap-interface", &interface, "--extcap-config"]);
    assert!(
        settings.out.lines().all(|line| line.starts_with("arg {number=") || line.starts_with("value {arg="))
    );
    assert!(settings.out.contains("{call=--direction}"), "{settings:?}");
    let good = ask(&["--extcap-interface", &interface, "--extcap-capture-filter", "udp port 1"]);
    assert_eq!((good.code, good.out.as_str()), (Some(0), ""), "{good:?}");
    let bad = ask(&["--extcap-interface", &interface, "--extcap-capture-filter", "udp prt 1"]);
    assert!(bad.code == Some(0) && bad.out.lines().count() == 1, "what is wrong is said: {bad:?}");
    for arguments in [
        &["--extcap-interface", "eth0", "--extcap-dlts"][..],
        &["--extcap-dlts"],
        &["--extcap-bogus"],
        &["--extcap-interface", &interface, "--capture"],
        &["--extcap-interface", &interface, "--capture", "--fifo"],
        &["--extcap-interface", "linecard-1-0", "--capture", "--fifo", "/dev/null"],
        &["--extcap-interface", &interface, "--capture", "--fifo", "/dev/null", "--direction", "up"],
        &["--extcap-interface", &interface, "--capture", "--fifo", "/dev/null", "--snaplen", "0"],
        &["--extcap-interface", &interface, "--capture", "--fifo", "/nonexistent/fifo"],
    ] {
        let said = ask(arguments);
        assert!(said.code != Some(0) && said.err.lines().count() == 1, "{arguments:?}: {said:?}");
    }
    program.quit();
}
