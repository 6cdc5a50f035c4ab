//! Against `dpdk-testpmd` as the backend: every byte of every frame, all paths, both roles, and its sudden death.
//!
//! Skipped where the program is missing, loudly; a failure with `LINECARD_REQUIRE_ALL=1`.

mod support;

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use linecard_lab::{PATIENCE, skip, wait_until};
use linecard_mempool::Burst;
use linecard_pmd::Port;
use support::{Bench, Place};

/// A testpmd that sends back what it gets; killed with the value.
struct Testpmd(Child);

impl Testpmd {
    fn start(place: &Place, extra: &str) -> Option<Self> {
        // One that was just killed, and the one of a test beside this, have a prefix of their own: a second process with the
        // same is refused as long as the first one's lock is there.
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = format!("{}n{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        // testpmd has no `--in-memory` without hugepages.
        let pages = std::fs::read_to_string("/proc/sys/vm/nr_hugepages").unwrap_or_default();
        let pages: u32 = pages.trim().parse().unwrap_or(0);
        let memory = if pages >= 256 { "--in-memory" } else { "--no-huge" };
        // It polls a core: it must not outlive this thread, however that ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "dpdk-testpmd", "--lcores", "0@0,1@1", "--no-pci", memory])
            .args(["-m", "256", "--file-prefix", &format!("lc{number}")])
            .args(["--vdev", &format!("net_vhost0,iface={},queues=1{extra}", place.0.display())])
            .args(["--", "-i", "--auto-start", "--forward-mode=io", "--total-num-mbufs=4096", "--nb-cores=1"])
            .args(["--txd=256", "--rxd=256"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        child.ok().map(Self)
    }

    /// `SIGKILL`, in the middle of whatever it does.
    fn kill(mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it ends");
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn available(test: &str) -> bool {
    let there =
        Command::new("dpdk-testpmd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let there = there.is_ok();
    if !there {
        skip(test, "dpdk-testpmd is not installed (apt-get install dpdk)");
    }
    there
}

fn frame(seq: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x88, 0xb5];
    bytes.extend_from_slice(&seq.to_be_bytes());
    bytes.extend((bytes.len()..len).map(|at| (seq as usize * 13 + at) as u8));
    bytes
}

/// Sends `count` frames, at most 32 under way, and checks that each comes back as it was.
fn exchange(bench: &Bench, port: &mut Port, count: u32, lens: &[usize]) {
    let (mut sent, mut came) = (0_u32, 0_u32);
    let (mut out, mut back) = (Burst::new(), Burst::new());
    let len_of = |seq: u32| lens[seq as usize % lens.len()];
    wait_until("frames through testpmd", || {
        while sent < count && sent - came < 32 {
            let Some(mut packet) = bench.pool.get() else { break };
            let bytes = frame(sent, len_of(sent));
            packet.append(bytes.len()).expect("room").copy_from_slice(&bytes);
            assert!(out.push(packet).is_ok());
            sent += 1;
        }
        port.tx[0].tx_burst(&mut out);
        port.rx[0].rx_burst(&mut back);
        for packet in back.iter() {
            let bytes: Vec<u8> = packet.segments().flat_map(|piece| piece.data().to_vec()).collect();
            assert_eq!(bytes, frame(came, len_of(came)), "frame {came}");
            came += 1;
        }
        back.clear();
        came == count
    });
    port.tx[0].reclaim();
}

fn bench() -> Bench {
    // testpmd takes its memory before it listens, which takes long where others want the cores.
    Bench { wait: PATIENCE, ..Bench::new(2048) }
}

/// DPDK's receive queue sleeps never, ours does: it is woken for each frame that comes while it is armed, across index 65 536, with an
/// event index and without.
#[test]
fn a_sleeper_is_woken_by_testpmd() {
    /// Frames that pass without anybody asleep, up to just before the index comes round.
    const POLLED: u32 = 65_000;
    const SLEEPS: u32 = 1_000;
    if !available("a_sleeper_is_woken_by_testpmd") {
        return;
    }
    for options in ["packed_vq=0,event_idx=1", "packed_vq=1,event_idx=1", "packed_vq=0,event_idx=0"] {
        let (bench, place) = (bench(), Place::new());
        let peer = Testpmd::start(&place, "").expect("testpmd");
        let mut port = bench.open(&format!("{},{options}", place.arg()));
        wait_until("link up", || port.control.link().up);
        settle(&mut port, &bench);
        exchange(&bench, &mut port, POLLED, &[60]);
        for number in 0..SLEEPS {
            sleep_over(&bench, &mut port, number, options);
        }
        drop(port.stop());
        bench.assert_whole();
        drop(peer);
    }
}

/// Sends a frame, and sleeps until it is back: by its descriptor alone, or because it was there when the queue was armed.
fn sleep_over(bench: &Bench, port: &mut Port, number: u32, options: &str) {
    use linecard_pmd::Armed;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let (mut out, mut back) = (Burst::new(), Burst::new());
    let mut packet = bench.pool.get().expect("a packet");
    let bytes = frame(number, 60);
    packet.append(bytes.len()).expect("room").copy_from_slice(&bytes);
    assert!(out.push(packet).is_ok());
    assert_eq!(port.tx[0].tx_burst(&mut out), 1);
    port.tx[0].reclaim();
    loop {
        match port.rx[0].arm() {
            Armed::Ready => {}
            Armed::Asleep => {
                let event = port.rx[0].event().expect("it was armed");
                let mut set = [PollFd::from_borrowed_fd(event, PollFlags::IN)];
                let bound = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
                let ready = poll(&mut set, Some(&bound)).expect("poll");
                assert!(ready > 0, "{options}: nobody woke it for frame {number}");
            }
            Armed::Unable => panic!("{options}: it has buffers"),
        }
        port.rx[0].disarm();
        // One that was woken by what came before sleeps again.
        if port.rx[0].rx_burst(&mut back) > 0 {
            break;
        }
    }
    assert_eq!(back[0].data(), frame(number, 60), "{options}");
}

/// testpmd answers its socket a moment before its forwarding starts; the first frames may be lost.
fn settle(port: &mut Port, bench: &Bench) {
    let mut back = Burst::new();
    wait_until("testpmd forwards", || {
        let mut out = Burst::new();
        let mut packet = bench.pool.get().expect("a packet");
        packet.append(60).expect("room").fill(0);
        assert!(out.push(packet).is_ok());
        port.tx[0].tx_burst(&mut out);
        std::thread::sleep(Duration::from_millis(20));
        let came = port.rx[0].rx_burst(&mut back);
        back.clear();
        came > 0
    });
    let quiet = Instant::now() + Duration::from_millis(100);
    while Instant::now() < quiet {
        port.rx[0].rx_burst(&mut back);
        back.clear();
    }
}

#[test]
fn every_path_and_role() {
    if !available("every_path_and_role") {
        return;
    }
    for (options, role) in [
        ("packed_vq=0,in_order=0,mrg_rxbuf=1", ""),
        ("packed_vq=0,in_order=1,mrg_rxbuf=1", ""),
        ("packed_vq=0,in_order=1,mrg_rxbuf=0", ""),
        ("packed_vq=1,in_order=0,mrg_rxbuf=1", ""),
        ("packed_vq=1,in_order=1,mrg_rxbuf=0", ""),
        ("packed_vq=1,in_order=1,mrg_rxbuf=1,server=1", ",client=1"),
        ("packed_vq=0,in_order=0,mrg_rxbuf=0,server=1", ",client=1"),
    ] {
        let (bench, place) = (bench(), Place::new());
        let mut early = None;
        let mut port = if role.is_empty() {
            early = Some(Testpmd::start(&place, role).expect("testpmd"));
            bench.open(&format!("{},{options}", place.arg()))
        } else {
            let port = bench.open(&format!("{},{options}", place.arg()));
            early.replace(Testpmd::start(&place, role).expect("testpmd"));
            port
        };
        wait_until("link up", || port.control.link().up);
        settle(&mut port, &bench);
        eprintln!("{options}: {} | {}", port.control.paths(), port.control.features());
        assert!(port.control.features().contains("EVENT_IDX"), "{options}: DPDK offers it");
        exchange(&bench, &mut port, 5000, &[60, 64, 1514, 200]);
        if options.contains("mrg_rxbuf=1") {
            exchange(&bench, &mut port, 100, &[1900]);
        }
        drop(port.stop());
        bench.assert_whole();
        drop(early);
    }
}

#[test]
fn testpmd_dies_and_comes_back() {
    if !available("testpmd_dies_and_comes_back") {
        return;
    }
    let (bench, place) = (bench(), Place::new());
    let mut peer = Testpmd::start(&place, "").expect("testpmd");
    let mut port = bench.open(&place.arg());
    for _ in 0..3 {
        wait_until("link up", || port.control.link().up);
        settle(&mut port, &bench);
        exchange(&bench, &mut port, 500, &[60]);
        peer.kill();
        wait_until("link down", || !port.control.link().up);
        bench.soon_whole();
        let _ = std::fs::remove_file(&place.0);
        peer = Testpmd::start(&place, "").expect("testpmd");
    }
    drop(port.stop());
    bench.assert_whole();
}
