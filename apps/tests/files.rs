//! File ports in a running testpmd: what goes in comes out, also after signals and on a full disk; and the examples
//! that write and read such files.

mod common;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{PATIENCE, Running, Scratch, frames, run, skip, testpmd, try_frames};
use linecard::capture::pcap::encode::{Format, Record, interface};
use linecard_lab::wait_until;
use rustix::process::Signal;

fn write(path: &str, count: usize) {
    let format = Format::of(Path::new(path));
    let mut file = Vec::new();
    format.header(&mut file, 65_535);
    if format == Format::PcapNg {
        interface(&mut file, "x", 65_535, "");
    }
    for i in 0..count {
        let frame = vec![i as u8; 60 + i % 1400];
        format.record(&mut file, &Record { len: frame.len() as u32, ..Record::default() }, &[&frame]);
    }
    std::fs::write(path, file).unwrap();
}

/// Waits until a file stays as it is while the program works on.
fn no_longer_grows(running: &Running, path: &str) {
    let len = || std::fs::metadata(path).map_or(0, |data| data.len());
    let mut before = None;
    wait_until("the last packet", || {
        running.works(Duration::from_millis(300));
        before.replace(len()) == Some(len())
    });
}

#[test]
fn a_file_goes_through_testpmd_unchanged() {
    let scratch = Scratch::new();
    for (from, to) in [("a.pcap", "b.pcapng"), ("c.pcapng", "d.pcap")] {
        let (from, to) = (scratch.file(from), scratch.file(to));
        write(&from, 3000);
        let devices = [format!("net_pcap0,rx_pcap={from}"), format!("net_pcap1,tx_pcap={to}")];
        let mut command = testpmd(
            &["-m", "64", "--in-memory", "--vdev", &devices[0], "--vdev", &devices[1]],
            &["-i", "--no-flush-rx", "-a"],
        );
        let mut running = Running::start(command.stdin(Stdio::piped()));
        let mut console = running.0.stdin.take().unwrap();
        wait_until("all packets", || try_frames(&to).is_ok_and(|frames| frames.len() == 3000));
        console.write_all(b"show port xstats 1\nquit\n").unwrap();
        let said = running.end(PATIENCE);
        assert!(said.code == Some(0) && said.out.contains("tx_good_packets: 3000"), "{said:?}");
        assert!(frames(&from) == frames(&to));
    }
}

/// What was asked for on the command line is in the packets.
#[test]
fn txonly_sends_from_the_addresses_and_ports_it_was_given() {
    const ADDRESSES: [&str; 2] = ["--tx-ip=10.1.2.3,10.4.0.6", "--tx-udp=1234,4321"];
    let scratch = Scratch::new();
    let sent = |name: &str, options: &[&str]| {
        let path = scratch.file(name);
        let device = format!("net_pcap0,tx_pcap={path}");
        let app = [&["--forward-mode=txonly", "--total-num-mbufs=2048"], options].concat();
        let mut command = testpmd(&["-m", "64", "--in-memory", "--vdev", &device], &app);
        let mut running = Running::start(command.stdin(Stdio::piped()));
        let _input = running.0.stdin.take();
        wait_until("packets", || std::fs::metadata(&path).is_ok_and(|data| data.len() > 1 << 16));
        running.signal(Signal::INT);
        assert_eq!(running.end(PATIENCE).code, Some(0));
        frames(&path)
    };
    for frame in sent("one.pcap", &ADDRESSES) {
        let addresses = &frame[26..38];
        assert_eq!(addresses, [10, 1, 2, 3, 10, 4, 0, 6, 0x04, 0xd2, 0x10, 0xe1], "source and destination");
    }
    let many = sent("many.pcap", &[&ADDRESSES[..], &["--txonly-multi-flow"]].concat());
    let sources: std::collections::HashSet<_> = many.iter().map(|frame| frame[26..30].to_owned()).collect();
    assert_eq!(sources.len(), 256);
    assert!(many.iter().all(|frame| frame[30..34] == [10, 4, 0, 6]));
}

#[test]
fn a_file_is_whole_after_signals() {
    let scratch = Scratch::new();
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let path = scratch.file("out.pcapng");
        let _ = std::fs::remove_file(&path);
        let device = format!("net_pcap0,tx_pcap={path},snaplen=100");
        let mut command = testpmd(
            &["-m", "64", "--in-memory", "--vdev", "net_null0,size=300", "--vdev", &device],
            &["--forward-mode=io"],
        );
        let mut running = Running::start(command.stdin(Stdio::piped()));
        let _input = running.0.stdin.take();
        wait_until("packets", || std::fs::metadata(&path).is_ok_and(|data| data.len() > 1 << 20));
        running.signal(signal);
        running.end(PATIENCE);
        // A kill may fall into a write, which the kernel then ends at a page; nothing else may cut a record.
        if signal != Signal::KILL {
            assert!(frames(&path).iter().all(|frame| frame.len() == 100));
        }
    }
}

#[test]
fn a_limit_of_file_size_is_a_full_disk() {
    let scratch = Scratch::new();
    let path = scratch.file("limited.pcap");
    let device = format!("net_pcap0,tx_pcap={path}");
    let program = testpmd(
        &["-m", "64", "--in-memory", "--vdev", "net_null0,size=300", "--vdev", &device],
        &["-i", "-a", "--total-num-mbufs=2048"],
    );
    // The pool is a file to the kernel, too, and takes 5 MB; the limit is in units of 512 or 1024 bytes.
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -f 32768; exec \"$0\" \"$@\""])
        .arg(program.get_program())
        .args(program.get_args());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::start(&mut command);
    let mut console = running.0.stdin.take().unwrap();
    let least = 8 << 20;
    wait_until("packets", || std::fs::metadata(&path).is_ok_and(|data| data.len() > least));
    no_longer_grows(&running, &path);
    console.write_all(b"show port xstats 1\nquit\n").unwrap();
    let said = running.end(PATIENCE);
    assert!(said.code == Some(0), "{said:?}");
    let lost =
        said.out.lines().find_map(|line| line.trim().strip_prefix("tx_q0_no_space: ")?.parse::<u64>().ok());
    assert!(lost.is_some_and(|lost| lost > 0), "{said:?}");
    assert!(frames(&path).iter().all(|frame| frame.len() == 300), "whole records");
}

#[test]
fn a_full_disk_is_counted_and_the_file_stays_whole() {
    let name = "a_full_disk_is_counted_and_the_file_stays_whole";
    let allowed = |own: &str| {
        let tried = Command::new("unshare").args([own, "mount", "-t", "tmpfs", "none", "/mnt"]).output();
        tried.is_ok_and(|output| output.status.success())
    };
    // Root's own mounts, or those of a user namespace.
    let Some(own) = ["-m", "-Urm"].into_iter().find(|own| allowed(own)) else {
        return skip(name, "mounting a small file system needs root or a user namespace");
    };
    let scratch = Scratch::new();
    let small = scratch.file("small");
    std::fs::create_dir(&small).unwrap();
    // In a mount namespace of its own, which goes with the process.
    let script = format!(
        "set -e; mount -t tmpfs -o size=128k none {small}; \
         (echo start; sleep 1; echo stop; echo show port xstats 1; echo quit) | {exe} testpmd --no-huge --no-pci -m 64 \
         --in-memory --vdev net_null0,size=700 --vdev net_pcap0,tx_pcap={small}/out.pcap -- -i >{small}.out 2>{small}.err; \
         cp {small}/out.pcap {small}.pcap; \
         {exe} testpmd --no-huge --no-pci -m 64 --in-memory --vdev net_pcap0,tx_pcap={small}/next.pcap -- -i \
         </dev/null >/dev/null 2>{small}.next || true; ls {small} >{small}.ls",
        exe = env!("CARGO_BIN_EXE_linecard"),
    );
    let said = run(
        Command::new("unshare")
            .args([own, "sh", "-c", &script])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
        b"",
    );
    assert_eq!(said.code, Some(0), "{said:?}");
    let read = |end: &str| std::fs::read_to_string(format!("{small}.{end}")).unwrap();
    let (out, err) = (read("out"), read("err"));
    let count = |name: &str| -> u64 {
        let line = out
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_else(|| panic!("no {name} in {out}"));
        line.trim().parse().unwrap()
    };
    let got = frames(&format!("{small}.pcap"));
    assert_eq!(got.len() as u64, count("tx_good_packets: "), "what is counted is there");
    assert!(count("tx_q0_no_space: ") > 0 && got.len() > 100, "{} packets", got.len());
    assert_eq!(err.matches("cannot be written: No space left").count(), 1, "said once: {err}");
    // What cannot even begin says so and leaves nothing.
    let next = read("next");
    assert!(
        next.contains("error: net_pcap0: ") && next.contains("next.pcap cannot be written: No space left"),
        "{next}"
    );
    assert_eq!(read("ls"), "out.pcap\n");
}

#[test]
fn a_faulty_line_is_one_argument() {
    let scratch = Scratch::new();
    let (from, to) = (scratch.file("a.pcap"), scratch.file("b.pcap"));
    write(&from, 2000);
    let device =
        format!("net_impair0,on=[net_pcap0,rx_pcap={from},tx_pcap={to}],rx_loss=10%,rx_duplicate=10%,seed=4");
    let run_once = || {
        let mut command =
            testpmd(&["-m", "64", "--in-memory", "--vdev", &device], &["-i", "--no-flush-rx", "-a"]);
        let mut running = Running::start(command.stdin(Stdio::piped()));
        let mut console = running.0.stdin.take().unwrap();
        wait_until("packets", || std::fs::metadata(&to).is_ok_and(|data| data.len() > 100_000));
        no_longer_grows(&running, &to);
        console.write_all(b"show port xstats 0\nquit\n").unwrap();
        (running.end(PATIENCE), frames(&to))
    };
    let (said, first) = run_once();
    let count = |name: &str| -> usize {
        let line =
            said.out.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}"));
        line.trim().parse().unwrap()
    };
    assert_eq!(first.len(), 2000 - count("rx_q0_lost: ") + count("rx_q0_duplicated: "));
    assert!((100..300).contains(&count("rx_q0_lost: ")), "{}", count("rx_q0_lost: "));
    let (_, second) = run_once();
    assert!(first == second, "the same seed, the same packets");
}

/// The examples, as their first lines say, with small numbers; built by cargo if they are not there.
#[test]
fn examples_write_and_read_a_file() {
    let scratch = Scratch::new();
    let path = scratch.file("flows.pcap");
    let example = |name: &str| {
        if let Some(folder) = std::env::var_os(linecard_testing::EXAMPLES) {
            return Command::new(Path::new(&folder).join(name));
        }
        let exe = Path::new(env!("CARGO_BIN_EXE_linecard")).with_file_name("examples").join(name);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(format!("{name}.rs"));
        let time = |path: &Path| path.metadata().and_then(|data| data.modified()).ok();
        if time(&exe) < time(&source) {
            let mut build = Command::new(env!("CARGO"));
            build.args(["build", "-q", "-p", "linecard", "--example", name]);
            if !cfg!(debug_assertions) {
                build.arg("--release");
            }
            assert!(build.status().unwrap().success());
        }
        Command::new(exe)
    };
    let mut pktgen = example("pktgen");
    pktgen.arg(format!("net_pcap0,tx_pcap={path}")).args(["rate=10000", "size=128", "flows=8", "count=2000"]);
    let said = run(pktgen.stdout(Stdio::piped()).stderr(Stdio::piped()), b"");
    assert!(said.code == Some(0) && said.out.starts_with("sent 2000 packets of 128 bytes in 0."), "{said:?}");
    let got = frames(&path);
    assert_eq!(got.len(), 2000);
    assert!(got.iter().enumerate().all(|(i, frame)| frame.len() == 128 && frame[37] == 0xd0 + (i % 8) as u8));

    let mut dump = example("dump");
    dump.arg(format!("net_pcap0,rx_pcap={path}")).args(["count=10", "hex"]);
    let said = run(dump.stdout(Stdio::piped()).stderr(Stdio::piped()), b"");
    assert!(said.code == Some(0) && said.out.ends_with("10 packets\n"), "{said:?}");
    assert!(said.out.contains("198.18.0.1 > 198.18.0.2 ports 1002 > 2002"), "{said:?}");
    assert!(said.out.contains("  0010  00 72 00 00 00 00 40 11 "), "{said:?}");
    let mut idle = example("dump");
    idle.arg(format!("net_pcap0,rx_pcap={path}")).arg("idle=1");
    let said = run(idle.stdout(Stdio::piped()).stderr(Stdio::piped()), b"");
    assert!(said.out.ends_with("2000 packets\n"), "{said:?}");
    for (name, arguments, want) in [
        ("pktgen", &["net_null0", "rate=0"][..], "rate=0"),
        ("dump", &["net_pcap0,rx_pcap=/nonexistent"], "/nonexistent cannot be opened"),
        ("dump", &[], "error: name a device"),
        ("dump", &["net_nul0"], "error: no driver for device 'net_nul0'; known drivers: "),
    ] {
        let said = run(example(name).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()), b"");
        assert!(said.code == Some(1) && said.err.contains(want), "{said:?}");
    }
}
