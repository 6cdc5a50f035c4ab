//! Our `net_af_packet` at one end of a veth pair, DPDK's at the other, and tshark looking on: every byte agrees.

mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, Stdio};

use linecard::capture::pcap::read::Reader;
use linecard_lab::{Cable, Lab, wait_until};
use support::console::{Kind, Testpmd, present};
use support::ours::{Ours, assert_perfect};
use support::peer::forwarder;
use support::{Scratch, on_path, skip};

/// Frame lengths without frame check sequence; the last fills an MTU of 1500.
const SIZES: &[usize] = &[64, 65, 127, 128, 129, 200, 256, 257, 512, 777, 1024, 1514];

fn start_ours(cable: &Cable, options: &str) -> Ours {
    Ours::start(&cable.at_near("net_af_packet0", options))
}

/// A testpmd in the other namespace that sends everything back.
fn start_forwarder(cable: &Cable, kind: Kind, tag: &str) -> Testpmd {
    cable.far.run(|| forwarder(kind, "net_af_packet0,iface=far", tag))
}

/// Each layout of our ring against a testpmd that forwards what it gets.
fn forwarded(kind: Kind, test: &str) {
    if !present(kind, test) {
        return;
    }
    let Some(cable) = Cable::new(test) else { return };
    for (n, options) in ["", ",version=3", ",qdisc_bypass=0"].into_iter().enumerate() {
        let peer = start_forwarder(&cable, kind, &format!("p{n}"));
        let mut ours = start_ours(&cable, options);
        assert_perfect(&ours.prove(10_000, SIZES), options);
        let kernel = cable.near.interface("near").info().expect("it is there").stats;
        assert!(kernel.tx_packets >= 10_000 && kernel.tx_dropped == 0, "{options}: {kernel:?}");
        ours.stop();
        assert!(peer.quit().success());
    }
}

#[test]
fn dpdk_forwards_what_we_send() {
    forwarded(Kind::Dpdk, "dpdk_forwards_what_we_send");
}

#[test]
fn our_testpmd_forwards_what_we_send() {
    forwarded(Kind::Linecard, "our_testpmd_forwards_what_we_send");
}

/// A frame with a tag.
fn tagged(tci: u16, number: u8) -> Vec<u8> {
    let [high, low] = tci.to_be_bytes();
    let header = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0x00, high, low, 0x88, 0xb5];
    header.into_iter().chain((0..100).map(|i| i ^ number)).collect()
}

#[test]
fn dpdk_returns_tagged_frames_as_they_were() {
    const TEST: &str = "dpdk_returns_tagged_frames_as_they_were";
    if !present(Kind::Dpdk, TEST) {
        return;
    }
    let Some(cable) = Cable::new(TEST) else { return };
    let peer = start_forwarder(&cable, Kind::Dpdk, "v");
    let mut ours = start_ours(&cable, "");
    let frames: Vec<_> = (1..=50).map(|i| tagged(u16::from(i) * 80 + 1, i)).collect();
    assert_eq!(ours.exchange(&frames), frames, "tags come back in place");
    ours.stop();
    assert!(peer.quit().success());
}

/// A capture by dumpcap, which tshark and Wireshark use.
struct Capture(Child);

impl Capture {
    fn start(lab: &Lab, interface: &str, file: &str, count: usize) -> Self {
        let count = count.to_string();
        let arguments = ["-q", "-i", interface, "-c", &count, "-a", "duration:30", "-w", file];
        let quiet =
            || Command::new("dumpcap").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = lab.run(quiet).expect("dumpcap starts");
        // It writes the file's header once its socket is open, and what comes from then on is kept for it.
        wait_until("dumpcap listens", || std::fs::metadata(file).is_ok_and(|facts| facts.len() > 0));
        Self(child)
    }

    fn finish(mut self) {
        assert!(self.0.wait().expect("a child").success(), "dumpcap saw all there was to see");
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What tshark makes of a file: length, EtherType and VLAN of every frame.
fn dissected(file: &str) -> Vec<String> {
    let fields = ["-e", "frame.len", "-e", "vlan.id", "-e", "vlan.priority", "-e", "data.data"];
    let output = Command::new("tshark").args(["-r", file, "-T", "fields"]).args(fields).output();
    let output = output.expect("tshark runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn tshark_sees_what_we_sent() {
    const TEST: &str = "tshark_sees_what_we_sent";
    for program in ["tshark", "dumpcap"] {
        if on_path(program).is_none() {
            return skip(TEST, &format!("no program '{program}' on this machine (apt-get install tshark)"));
        }
    }
    let Some(cable) = Cable::new(TEST) else { return };
    let scratch = Scratch::new(TEST);
    let file = scratch.join("far.pcapng").display().to_string();
    let frames: Vec<_> = (1..=20).map(|i| tagged(u16::from(i % 8) << 13 | u16::from(i), i)).collect();
    for options in ["", ",qdisc_bypass=0"] {
        let capture = Capture::start(&cable.far, "far", &file, frames.len());
        let mut ours = start_ours(&cable, options);
        ours.send(&frames);
        capture.finish();
        ours.stop();
        let seen = dissected(&file);
        assert_eq!(seen.len(), frames.len(), "{options}: {seen:#?}");
        for (i, (line, frame)) in seen.iter().zip(&frames).enumerate() {
            let i = i + 1;
            let payload: String = frame[18..].iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(*line, format!("118\t{i}\t{}\t{payload}", i % 8), "{options}");
        }
        std::fs::remove_file(&file).expect("the capture is there");
    }
}

/// `tcpdump`, which writes what comes in with our EtherType to `file`, and ends after `count` frames.
struct Tcpdump {
    child: Child,
    said: BufReader<ChildStderr>,
}

impl Tcpdump {
    /// `None` where it may not run: as root it gives up its rights, for which a user namespace has none.
    fn start(lab: &Lab, interface: &str, file: &str, count: usize) -> Option<Self> {
        let count = count.to_string();
        let mut command = Command::new("tcpdump");
        command.args(["-n", "-Z", "root", "--immediate-mode", "-Q", "in", "-s", "2000", "-B", "4096"]);
        command.args(["-i", interface, "-c", &count, "-w", file, "ether proto 0x88b5"]);
        let mut child = lab.run(|| command.stderr(Stdio::piped()).spawn()).expect("tcpdump starts");
        let mut said = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            let more = said.read_line(&mut line).expect("text") > 0;
            if line.contains("Couldn't change to") {
                let _ = child.wait();
                return None;
            }
            assert!(more, "tcpdump does not listen");
        }
        Some(Self { child, said })
    }

    /// What it says at its end.
    fn finish(mut self) -> String {
        let mut end = None;
        wait_until("tcpdump has seen all there was to see", || {
            end = self.child.try_wait().expect("a child");
            end.is_some()
        });
        assert!(end.is_some_and(|status| status.success()), "tcpdump failed");
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).expect("text");
        rest
    }
}

impl Drop for Tcpdump {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Frames of all sorts of lengths, each different.
fn plain_frames() -> Vec<Vec<u8>> {
    let frame = |i: usize| {
        let header = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5];
        let len = 60 + (i * 97) % 1455;
        header.into_iter().chain((14..len).map(|at| (at * 7 + i) as u8)).collect()
    };
    (0..120).map(frame).collect()
}

#[test]
fn tcpdump_counts_and_keeps_what_each_driver_sent() {
    const TEST: &str = "tcpdump_counts_and_keeps_what_each_driver_sent";
    if on_path("tcpdump").is_none() {
        return skip(TEST, "no program 'tcpdump' on this machine (apt-get install tcpdump)");
    }
    let Some(cable) = Cable::new(TEST) else { return };
    let scratch = Scratch::new(TEST);
    let frames = plain_frames();
    let tap = format!("net_tap0,iface=seen,netns={}", cable.near.path());
    let devices = [
        (cable.at_near("net_af_packet0", ""), &cable.far, "far"),
        (cable.at_near("net_af_xdp0", ""), &cable.far, "far"),
        (tap, &cable.near, "seen"),
    ];
    for (device, lab, interface) in devices {
        if device.starts_with("net_af_xdp") && !cable.near.has_xdp(TEST) {
            continue;
        }
        let file = scratch.join(&format!("{interface}.pcap"));
        let mut ours = Ours::start(&device);
        let Some(tcpdump) = Tcpdump::start(lab, interface, &file.display().to_string(), frames.len()) else {
            ours.stop();
            return skip(TEST, "tcpdump gives up root's rights and cannot in a user namespace; run as root");
        };
        ours.send(&frames);
        let said = tcpdump.finish();
        ours.stop();
        assert!(said.contains(&format!("{} packets captured", frames.len())), "{device}: {said}");
        assert!(said.contains("\n0 packets dropped by kernel"), "{device}: {said}");
        let mut kept = Vec::new();
        let mut reader = Reader::open(&file).expect("a capture");
        while reader.ready().expect("whole") {
            kept.push(reader.frame().to_vec());
            reader.advance();
        }
        assert!(kept == frames, "{device}: every byte of {} frames, in order", frames.len());
        // And what tcpdump reads of its own file.
        let output = Command::new("tcpdump").args(["-nne", "-r"]).arg(&file).output().expect("tcpdump runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let length = |line: &str| line.split_once(", length ")?.1.split(':').next()?.parse::<usize>().ok();
        let lengths = text.lines().filter_map(length);
        assert!(lengths.eq(frames.iter().map(Vec::len)), "{device}: {text}");
        std::fs::remove_file(&file).expect("the capture is there");
    }
}
