//! testpmd's mode noisy and its latency statistics, ours and DPDK's on the same file of packets: what is kept, what leaves and in
//! which order.

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use linecard::capture::pcap::encode::{Format, Record};
use linecard::capture::pcap::read::Reader;
use support::Scratch;
use support::console::{Kind, Testpmd, present};

/// Not a multiple of a burst, which is 32.
const FRAMES: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(60);

fn write_frames(path: &Path) {
    let mut file = Vec::new();
    Format::Pcap.header(&mut file, 65_535);
    for number in 0..FRAMES as u32 {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5];
        frame.extend(number.to_be_bytes());
        frame.resize(60, 0);
        Format::Pcap.record(&mut file, &Record { len: 60, ..Record::default() }, &[&frame]);
    }
    std::fs::write(path, file).expect("a file");
}

fn read_frames(path: &Path) -> Vec<Vec<u8>> {
    let mut reader = Reader::open(path).expect("a capture");
    let mut frames = Vec::new();
    while reader.ready().expect("it is whole") {
        frames.push(reader.frame().to_vec());
        reader.advance();
    }
    frames
}

/// A testpmd that reads the frames of `from` and writes those that leave to `to`.
fn start(kind: Kind, [from, to]: [&Path; 2], options: &[&str]) -> Testpmd {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let prefix = format!("noisy{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let device = format!("net_pcap0,rx_pcap={},tx_pcap={}", from.display(), to.display());
    let eal =
        ["-l", "0,1", "--no-pci", "--no-huge", "-m", "256", "--file-prefix", &prefix, "--vdev", &device];
    let app = ["-i", "--total-num-mbufs=8192", "--no-flush-rx", "--port-topology=loop"];
    let mut testpmd = Testpmd::start(kind, &eal, &[&app[..], options].concat());
    testpmd.type_line("set fwd noisy");
    testpmd.type_line("start");
    testpmd
}

/// Waits until the port has received and sent so many.
fn until_moved(testpmd: &mut Testpmd, received: usize, sent: usize) {
    let until = Instant::now() + PATIENCE;
    loop {
        testpmd.type_line("show port stats 0");
        let rx = testpmd.expect("RX-packets:", PATIENCE);
        let tx = testpmd.expect("TX-packets:", PATIENCE);
        if number(&rx) >= received && number(&tx) >= sent {
            return;
        }
        assert!(Instant::now() < until, "{}", testpmd.transcript());
    }
}

/// The first number after a colon.
fn number(line: &str) -> usize {
    let after = line.split(':').nth(1).unwrap_or_default();
    after.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// What leaves with these options, and how many were sent and dropped by the statistics.
fn run(kind: Kind, scratch: &Scratch, options: &[&str], sent: usize) -> (Vec<Vec<u8>>, [usize; 2]) {
    let (from, to) = (scratch.join("in.pcap"), scratch.join(&format!("out-{kind:?}.pcap")));
    write_frames(&from);
    let mut testpmd = start(kind, [&from, &to], options);
    until_moved(&mut testpmd, FRAMES, sent);
    testpmd.type_line("stop");
    testpmd.expect("Accumulated", PATIENCE);
    let line = testpmd.expect("TX-packets:", PATIENCE);
    let dropped = line.split("TX-dropped:").nth(1).map(|rest| number(&format!(":{rest}"))).unwrap_or(0);
    let counted = [number(&line), dropped];
    assert!(testpmd.quit().success());
    (read_frames(&to), counted)
}

#[test]
fn a_buffer_keeps_what_dpdks_keeps() {
    let test = "a_buffer_keeps_what_dpdks_keeps";
    if !present(Kind::Dpdk, test) {
        return;
    }
    let scratch = Scratch::new(test);
    let options =
        ["--noisy-tx-sw-buffer-size=64", "--noisy-lkup-memory=1", "--noisy-lkup-num-reads-writes=2"];
    // 31 bursts of 32 and one of 8: 32 are kept from the first on, and the last 8 find room beside them.
    let sent = FRAMES - 40;
    let (theirs, [their_count, _]) = run(Kind::Dpdk, &scratch, &options, sent);
    let (ours, [count, dropped]) = run(Kind::Linecard, &scratch, &options, sent);
    assert_eq!((their_count, theirs.len()), (sent, sent));
    assert_eq!((count, ours.len()), (sent, sent));
    assert!(ours == theirs, "the same frames in the same order");
    // DPDK loses count of those that it still has.
    assert_eq!(dropped, 40);
}

#[test]
fn a_buffer_is_flushed_as_dpdks_is() {
    let test = "a_buffer_is_flushed_as_dpdks_is";
    if !present(Kind::Dpdk, test) {
        return;
    }
    let scratch = Scratch::new(test);
    let options = ["--noisy-tx-sw-buffer-size=512", "--noisy-tx-sw-buffer-flushtime=50"];
    let (theirs, _) = run(Kind::Dpdk, &scratch, &options, FRAMES);
    let (ours, counted) = run(Kind::Linecard, &scratch, &options, FRAMES);
    assert_eq!(counted, [FRAMES, 0]);
    assert!(ours == theirs && ours.len() == FRAMES, "the same frames in the same order");
}

/// A packet that waits for the flush stays about that long; DPDK's names for the figures.
#[test]
fn latencies_are_measured_through_the_buffer() {
    let scratch = Scratch::new("latencies_are_measured_through_the_buffer");
    let (from, to) = (scratch.join("in.pcap"), scratch.join("out.pcap"));
    write_frames(&from);
    let options =
        ["--noisy-tx-sw-buffer-size=2048", "--noisy-tx-sw-buffer-flushtime=500", "--latencystats=1"];
    let mut testpmd = start(Kind::Linecard, [&from, &to], &options);
    testpmd.expect("Latencystats running on lcore 1", PATIENCE);
    until_moved(&mut testpmd, FRAMES, FRAMES);
    testpmd.type_line("stop");
    let [min, average, max, _jitter] =
        ["min_latency_ns: ", "avg_latency_ns: ", "max_latency_ns: ", "jitter_ns: "]
            .map(|name| number(&testpmd.expect(name, PATIENCE)));
    assert!(min <= average && average <= max, "{min} {average} {max}");
    // The clock of the flush begins with the first round, which reads the first packets; on a busy machine they wait longer.
    assert!(max >= 250_000_000, "{max} ns: what came first waited for 500 ms");
    assert!(testpmd.quit().success());
}
