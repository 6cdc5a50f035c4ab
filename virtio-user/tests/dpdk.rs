//! Against `dpdk-testpmd` as the backend: every byte of every frame, all paths, both roles, and its sudden death.
//!
//! Skipped where the program is missing, loudly; a failure with `LINECARD_REQUIRE_ALL=1`.

mod support;

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use linecard_lab::{PATIENCE, skip, wait_until};
use linecard_mempool::{Burst, Pool, PoolConfig};
use linecard_pmd::{Port, PortConfig, QueueId};
use support::{Bench, Place};

/// A testpmd that sends back what it gets; killed with the value.
struct Testpmd(Child);

impl Testpmd {
    fn start(place: &Place, extra: &str) -> Option<Self> {
        Self::start_with(place, extra, 1)
    }

    /// With so many queue pairs.
    fn start_with(place: &Place, extra: &str, queues: u16) -> Option<Self> {
        // One that was just killed, and the one of a test beside this, have a prefix of their own: a second process with the
        // same is refused as long as the first one's lock is there.
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = format!("{}n{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        // testpmd has no `--in-memory` without hugepages.
        let pages = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
            .unwrap_or_default();
        let pages: u32 = pages.trim().parse().unwrap_or(0);
        let memory = if pages >= 256 { "--in-memory" } else { "--no-huge" };
        // It polls a core: it must not outlive this thread, however that ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "dpdk-testpmd", "--lcores", "0@0,1@1", "--no-pci", memory])
            .args(["-m", "256", "--file-prefix", &format!("lc{number}")])
            .args(["--vdev", &format!("net_vhost0,iface={},queues={queues}{extra}", place.0.display())])
            .args(["--", "-i", "--auto-start", "--forward-mode=io", "--total-num-mbufs=4096", "--nb-cores=1"])
            .args(["--txd=256", "--rxd=256", &format!("--rxq={queues}"), &format!("--txq={queues}")])
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
    exchange_on(0, &bench.pool, port, count, lens);
}

/// The same on that queue, with packets of that pool.
fn exchange_on(queue: usize, pool: &Pool, port: &mut Port, count: u32, lens: &[usize]) {
    let (mut sent, mut came) = (0_u32, 0_u32);
    let (mut out, mut back) = (Burst::new(), Burst::new());
    let len_of = |seq: u32| lens[seq as usize % lens.len()];
    wait_until("frames through testpmd", || {
        while sent < count && sent - came < 32 {
            let Some(mut packet) = pool.get() else { break };
            let bytes = frame(sent, len_of(sent));
            packet.append(bytes.len()).expect("room").copy_from_slice(&bytes);
            assert!(out.push(packet).is_ok());
            sent += 1;
        }
        port.tx[queue].tx_burst(&mut out);
        port.rx[queue].rx_burst(&mut back);
        for packet in back.iter() {
            let bytes: Vec<u8> = packet.segments().flat_map(|piece| piece.data().to_vec()).collect();
            assert_eq!(bytes, frame(came, len_of(came)), "frame {came}");
            came += 1;
        }
        back.clear();
        came == count
    });
    port.tx[queue].reclaim();
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
    settle_on(0, port, bench);
}

fn settle_on(queue: usize, port: &mut Port, bench: &Bench) {
    let mut back = Burst::new();
    wait_until("testpmd forwards", || {
        let mut out = Burst::new();
        let mut packet = bench.pool.get().expect("a packet");
        packet.append(60).expect("room").fill(0);
        assert!(out.push(packet).is_ok());
        port.tx[queue].tx_burst(&mut out);
        std::thread::sleep(Duration::from_millis(20));
        let came = port.rx[queue].rx_burst(&mut back);
        back.clear();
        came > 0
    });
    let quiet = Instant::now() + Duration::from_millis(100);
    while Instant::now() < quiet {
        port.rx[queue].rx_burst(&mut back);
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

/// Memory grows tenfold in a hundred steps while packets pass, and shrinks again. DPDK's backend takes eight regions, in a table that is
/// told anew for each: what is beyond them is copied, and no frame is lost or another.
#[test]
fn memory_grows_and_shrinks_while_packets_pass_testpmd() {
    /// Packets of a step, which fill a segment of 2 MiB.
    const STEP: u32 = 900;
    if !available("memory_grows_and_shrinks_while_packets_pass_testpmd") {
        return;
    }
    for options in ["packed_vq=0", "packed_vq=1"] {
        let (bench, place) = (Bench { wait: PATIENCE, ..Bench::new(10_000) }, Place::new());
        let peer = Testpmd::start(&place, "").expect("testpmd");
        let mut port = bench.open(&format!("{},{options}", place.arg()));
        wait_until("link up", || port.control.link().up);
        settle(&mut port, &bench);
        let before = port.control.stats();
        let bytes = || bench.domain.segments().iter().map(|segment| segment.len()).sum::<usize>();
        let (at_first, mut pools, mut longest, mut passed) = (bytes(), Vec::new(), Duration::ZERO, 0);
        let mut pass = |port: &mut Port, pool: &Pool| {
            exchange_on(0, pool, port, 200, &[60, 1514, 200]);
            passed += 200;
        };
        for _ in 0..100 {
            let began = Instant::now();
            let config = PoolConfig::default().packets(STEP).cache(32);
            let pool = Pool::new(&bench.domain, config).expect("a pool");
            // Frames are on their way before the backend has answered.
            pass(&mut port, &pool);
            longest = longest.max(began.elapsed());
            pools.push(pool);
        }
        assert!(bytes() >= 10 * at_first - at_first / 10, "{at_first} bytes grew to {}", bytes());
        pools.iter().step_by(9).for_each(|pool| pass(&mut port, pool));
        while let Some(pool) = pools.pop() {
            drop(pool);
            pass(&mut port, &bench.pool);
        }
        wait_until("memory shrinks", || bytes() <= at_first + (4 << 20));
        println!("{options}: the longest step, with 200 frames, took {longest:?}");
        let stats = port.control.stats();
        let sent = stats.opackets - before.opackets;
        assert_eq!((sent, stats.ipackets - before.ipackets), (passed, passed), "{options}");
        assert_eq!((stats.oerrors, stats.ierrors, stats.rx_nombuf), (0, 0, 0), "{options}");
        assert!(port.control.link().up);
        drop(port.stop());
        bench.assert_whole();
        drop(peer);
    }
}

/// Rings of another size in each direction carry every frame, and a queue pair stops and starts while the other one goes on.
#[test]
fn testpmd_serves_single_queues() {
    if !available("testpmd_serves_single_queues") {
        return;
    }
    for (options, rx, tx) in [
        ("rx_queue_size=512,tx_queue_size=64", 512, 64),
        ("packed_vq=1,rx_queue_size=512,tx_queue_size=100", 512, 100),
        ("queue_size=1024", 128, 32),
    ] {
        let (bench, place) = (bench(), Place::new());
        let peer = Testpmd::start_with(&place, "", 2).expect("testpmd");
        let device = bench.probe(&format!("{},queues=2,{options}", place.arg())).expect("a device");
        let (rx_depth, tx_depth) = if options == "queue_size=1024" { (rx, tx) } else { (0, 0) };
        let config = PortConfig::default().rx_queues(2).tx_queues(2).rx_depth(rx_depth).tx_depth(tx_depth);
        let mut port = bench.start(device, config).expect("a port");
        let control = port.control.clone();
        wait_until("link up", || control.link().up);
        assert_eq!(
            (control.depth(QueueId::Receive(1)), control.depth(QueueId::Transmit(1))),
            (Some(rx), Some(tx))
        );
        (0..2).for_each(|queue| settle_on(queue, &mut port, &bench));
        let mut pass = |queue: usize, count: u32| {
            exchange_on(queue, &bench.pool, &mut port, count, &[60, 1514, 200]);
        };
        (0..2).for_each(|queue| pass(queue, 2000));
        let first = [QueueId::Receive(0), QueueId::Transmit(0)];
        for _ in 0..3 {
            first.iter().for_each(|queue| control.stop_queue(*queue).expect("it can be stopped"));
            pass(1, 500);
            first.iter().for_each(|queue| control.start_queue(*queue).expect("it can be started"));
            (0..2).for_each(|queue| pass(queue, 500));
        }
        for queue in [first, [QueueId::Receive(1), QueueId::Transmit(1)]].concat() {
            assert_eq!(control.used_descriptors(queue).expect("it can be counted"), 0, "{options} {queue}");
        }
        assert!(control.link().up);
        drop(port.stop());
        bench.assert_whole();
        drop(peer);
    }
}
