//! What a tap port does beside the contract.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, IntoRawFd};
use std::sync::Arc;
use std::time::Duration;

use linecard_eal::memory::{Domain, Memory, MemoryConfig};
use linecard_mempool::{BURST, Burst, Offload, Packet, Pool, PoolConfig, TxOffload};

use crate::TapDriver;
use linecard_lab::{Lab, wait_for, wait_until};
use linecard_netdev::tun;
use linecard_pmd::handover::HandedOver;
use linecard_pmd::offload::{Offloads, RxOffloads, TxOffloads};
use linecard_pmd::{DevArgs, Device, Driver, Error, Port, PortConfig, ProbeContext, configure};

/// Memory for ports of a test.
pub(super) struct Bench {
    context: ProbeContext,
    domain: Arc<Domain>,
}

impl Bench {
    pub(super) fn new() -> Self {
        let memory = Memory::new(MemoryConfig::default()).expect("memory");
        let domain = memory.domain("packets").expect("a domain");
        let context = ProbeContext::new(memory, Arc::clone(&domain), Duration::from_secs(1));
        Self { context, domain }
    }

    pub(super) fn pool_of(&self, data_room: u16) -> Pool {
        let config = PoolConfig::default().packets(2048).data_room(data_room).cache(0);
        Pool::new(&self.domain, config).expect("a pool")
    }

    pub(super) fn probe(&self, text: &str) -> Result<Box<dyn Device>, Error> {
        TapDriver.probe(&self.context, &DevArgs::parse(text).expect("well formed"))
    }

    pub(super) fn succeed(&self, text: &str, handed: HandedOver) -> Result<Box<dyn Device>, Error> {
        TapDriver.succeed(&self.context, &DevArgs::parse(text).expect("well formed"), handed)
    }

    pub(super) fn start(&self, lab: &Lab, extra: &str, config: PortConfig) -> (Port, Pool) {
        let (device, pool) =
            (self.probe(&format!("net_tap0,netns={}{extra}", lab.path())), self.pool_of(2048));
        let port =
            configure(device.expect("it opens"), config).expect("accepted").start(&pool).expect("starts");
        (port, pool)
    }
}

pub(super) fn packet(pool: &Pool, frame: &[u8]) -> Packet {
    let mut packet = pool.get().expect("a packet");
    packet.copy_from_slice(frame).unwrap();
    packet
}

#[test]
fn the_name_the_address_and_the_end() {
    let Some(lab) = Lab::new("the_name_the_address_and_the_end") else { return };
    let bench = Bench::new();
    let probe = |text: &str| bench.probe(&format!("{text},netns={}", lab.path())).expect("it opens");
    let (first, second) = (probe("net_tap0"), probe("net_tap7,mac=fixed"));
    assert_eq!(second.info().mac, [0, b'd', b't', b'a', b'p', 7]);
    assert_eq!(lab.interface("dtap1").info().expect("there").mac, Some(second.info().mac));
    assert_eq!(lab.interface("dtap0").info().expect("there").mac, Some(first.info().mac));
    let third = probe("net_tap2,iface=named,mac=02:00:00:00:00:09");
    assert_eq!(lab.interface("named").info().expect("there").mac, Some([2, 0, 0, 0, 0, 9]));
    drop((first, second, third));
    // Here and below: a process that another test is just starting has copies of all descriptors for a moment.
    wait_until("lo alone is left", || lab.ip("-brief link").lines().count() == 1);

    drop(probe("net_tap0,iface=stays,persist"));
    assert!(lab.interface("stays").exists());
    let text = format!("net_tap0,iface=stays,netns={}", lab.path());
    drop(wait_for("free again", || bench.probe(&text).ok()));
    assert!(lab.interface("stays").exists(), "not ours to remove");
}

#[test]
fn link_mtu_and_address_are_the_interfaces() {
    let Some(lab) = Lab::new("link_mtu_and_address_are_the_interfaces") else { return };
    let bench = Bench::new();
    let config = PortConfig::default().mtu(4000).rx_depth(300);
    let (port, _pool) = bench.start(&lab, ",iface=t", config);
    let interface = lab.interface("t");
    assert_eq!(interface.info().expect("there").mtu, 4000);
    assert!(lab.ip("link show t").contains("qlen 300"));
    assert!(port.control.link().up);
    interface.set_up(false).expect("ours");
    assert!(!port.control.link().up);
    interface.set_up(true).expect("ours");
    port.control.set_mac([2, 0, 0, 0, 0, 0x33]).expect("a good one");
    assert_eq!(interface.info().expect("there").mac, Some([2, 0, 0, 0, 0, 0x33]));
    assert!(port.control.set_mac([1, 0, 0, 0, 0, 0x33]).is_err());
    assert_eq!(port.control.mac(), [2, 0, 0, 0, 0, 0x33]);
    let device = port.stop();
    assert!(!interface.info().expect("there").is_up(), "down while stopped");
    drop(device);
    wait_until("gone with the port", || !interface.exists());
}

#[test]
fn an_answer_comes_to_the_queue_that_asked() {
    let Some(lab) = Lab::new("an_answer_comes_to_the_queue_that_asked") else { return };
    let bench = Bench::new();
    let config = PortConfig::default().rx_queues(3).tx_queues(3);
    let (mut port, pool) = bench.start(&lab, ",iface=t,mac=02:00:00:00:00:01", config);
    lab.ip("addr add 10.9.0.1/24 dev t");
    lab.ip("neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev t");
    let socket = lab.run(|| UdpSocket::bind("10.9.0.1:7")).expect("bound");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    for queue in [2, 0, 1, 2] {
        let source = 1000 + queue as u16;
        let mut burst = Burst::new();
        burst.push(packet(&pool, &super::udp(source, 7, b"hello"))).expect("room");
        assert_eq!(port.tx[queue].tx_burst(&mut burst), 1);
        let mut bytes = [0; 16];
        let (len, from) = socket.recv_from(&mut bytes).expect("the kernel got it");
        assert_eq!((&bytes[..len], from.port()), (&b"hello"[..], source));
        socket.send_to(b"answer", from).expect("sent");
        wait_until("the answer", || {
            port.rx[queue].rx_burst(&mut burst);
            burst.iter().any(|packet| packet.data().ends_with(b"answer"))
        });
        burst.clear();
    }
    port.stop();
}

#[test]
fn the_counters_are_the_kernels() {
    let Some(lab) = Lab::new("the_counters_are_the_kernels") else { return };
    let bench = Bench::new();
    let (mut port, pool) = bench.start(&lab, ",iface=t", PortConfig::default().rx_depth(8));
    let (interface, wire) = (lab.interface("t"), lab.wire("t"));
    let mut burst = Burst::new();
    for len in 60..100 {
        burst.push(packet(&pool, &vec![0x42; len])).expect("room");
    }
    port.tx[0].tx_burst(&mut burst);
    // More than the kernel's queue of eight holds.
    for _ in 0..20 {
        let _ = wire.send(&[0x43; 80]);
    }
    while port.rx[0].rx_burst(&mut burst) > 0 {
        burst.clear();
    }
    let (ours, kernels) = (port.control.stats(), interface.info().expect("there").stats);
    assert_eq!((ours.opackets, ours.obytes), (kernels.rx_packets, kernels.rx_bytes));
    assert_eq!((ours.ipackets, ours.ibytes), (kernels.tx_packets, kernels.tx_bytes));
    assert_eq!(ours.imissed, kernels.tx_dropped);
    assert!(ours.imissed > 0, "some were too many");
    assert!(port.control.xstats().contains(&("rx_missed_errors".to_owned(), ours.imissed)));
    port.control.reset_stats();
    assert_eq!(port.control.stats().imissed, 0);
    port.stop();
}

#[test]
fn frames_the_kernel_does_not_take_are_counted() {
    let Some(lab) = Lab::new("frames_the_kernel_does_not_take_are_counted") else { return };
    let bench = Bench::new();
    let (mut port, pool) = bench.start(&lab, ",iface=t", PortConfig::default());
    let mut send = |frame: &[u8]| {
        let mut burst = Burst::new();
        burst.push(packet(&pool, frame)).expect("room");
        assert_eq!(port.tx[0].tx_burst(&mut burst), 1, "taken, and dropped");
    };
    send(&[1; 13]);
    lab.ip("link set dev t down");
    send(&[1; 60]);
    lab.ip("link del dev t");
    send(&[1; 60]);
    let mut burst = Burst::new();
    assert_eq!(port.rx[0].rx_burst(&mut burst), 0);
    let xstats = port.control.xstats();
    for name in ["tx_q0_bad_length", "tx_q0_link_down", "tx_q0_interface_gone"] {
        assert!(xstats.contains(&(name.to_owned(), 1)), "{name} in {xstats:?}");
    }
    assert_eq!((port.control.stats().oerrors, port.control.link().up), (3, false));
    let device = port.stop();
    let port = configure(device, PortConfig::default()).expect("possible").start(&pool).expect("made again");
    assert!(lab.interface("t").info().expect("there").is_up());
    drop(port.stop());
    assert_eq!(pool.stats().in_use, 0);
}

#[test]
fn passed_descriptors_need_no_name() {
    let Some(lab) = Lab::new("passed_descriptors_need_no_name") else { return };
    let bench = Bench::new();
    let fds = lab.run(|| {
        [0, 1].map(|_| {
            let fd = tun::open().expect("root");
            tun::attach(fd.as_fd(), "given", tun::Queues::Many).expect("root");
            fd.into_raw_fd()
        })
    });
    lab.ip("link set dev given up");
    // Not in the interface's namespace: as a container that was handed the queues.
    let text = format!("net_tap0,fd={}:{}", fds[0], fds[1]);
    let mut device = bench.probe(&text).expect("queues of a tap");
    assert_eq!(Some(device.info().mac), lab.interface("given").info().expect("there").mac);
    assert_eq!(device.info().max_rx_queues, 2);
    let (pool, wire) = (bench.pool_of(2048), lab.wire("given"));
    for queues in [1, 2, 1] {
        let config = PortConfig::default().rx_queues(queues).tx_queues(queues);
        let mut port = configure(device, config).expect("accepted").start(&pool).expect("starts");
        let mut burst = Burst::new();
        burst.push(packet(&pool, &[0x55; 64])).expect("room");
        port.tx[usize::from(queues) - 1].tx_burst(&mut burst);
        wait_for("out", || wire.receive().filter(|frame| frame == &[0x55; 64]));
        assert!(wire.send(&[0x77; 64]));
        wait_until("in", || {
            for rx in &mut port.rx {
                rx.rx_burst(&mut burst);
            }
            burst.iter().any(|packet| packet.data() == [0x77; 64])
        });
        burst.clear();
        device = port.stop();
    }
    drop(device);
    wait_until("gone with the last descriptor", || !lab.ip("-brief link").contains("given"));
}

#[test]
fn whoever_keeps_a_copy_of_a_descriptor_cannot_make_the_port_wait() {
    let Some(lab) = Lab::new("whoever_keeps_a_copy_of_a_descriptor_cannot_make_the_port_wait") else {
        return;
    };
    let bench = Bench::new();
    let kept = lab.run(|| {
        let fd = tun::open().expect("root");
        tun::attach(fd.as_fd(), "given", tun::Queues::Many).expect("root");
        fd
    });
    lab.ip("link set dev given up");
    let fd = kept.try_clone().expect("a copy").into_raw_fd();
    let (device, pool) =
        (bench.probe(&format!("net_tap0,fd={fd}")).expect("a queue of a tap"), bench.pool_of(2048));
    let mut port = configure(device, PortConfig::default()).expect("accepted").start(&pool).expect("starts");
    let flags = rustix::fs::fcntl_getfl(&kept).expect("open");
    assert!(flags.contains(rustix::fs::OFlags::NONBLOCK));
    rustix::fs::fcntl_setfl(&kept, flags - rustix::fs::OFlags::NONBLOCK).expect("open");
    let (done, waits) = std::sync::mpsc::channel();
    let poller = std::thread::spawn(move || {
        let mut burst = Burst::new();
        let none = port.rx[0].rx_burst(&mut burst);
        // As much as the queue behind would hold, and more: a write does not wait either.
        for _ in 0..40 {
            burst.fill_from(&mut (0..BURST).map(|_| packet(&pool, &[0x55; 64])));
            port.tx[0].tx_burst(&mut burst);
            burst.clear();
        }
        done.send(none).expect("somebody waits");
        port.stop();
        assert_eq!(pool.stats().in_use, 0);
    });
    let none = waits.recv_timeout(Duration::from_secs(10));
    if none.is_err() {
        // So that the thread which waits does not outlive the test.
        rustix::fs::fcntl_setfl(&kept, flags).expect("open");
        lab.ip("link del dev given");
    }
    assert_eq!(none, Ok(0), "it came back at once");
    poller.join().expect("no panic");
}

#[test]
fn a_burst_of_bad_frames_ends() {
    let Some(lab) = Lab::new("a_burst_of_bad_frames_ends") else { return };
    let bench = Bench::new();
    let (mut port, _pool) = bench.start(&lab, ",iface=t", PortConfig::default());
    let wire = lab.wire("t");
    // The port was made for shorter ones.
    lab.ip("link set dev t mtu 9000");
    let bad = 3 * BURST;
    assert!((0..bad).all(|_| wire.send(&[1; 6000])) && wire.send(&[2; 60]));
    let mut burst = Burst::new();
    for call in 1..=3 {
        assert_eq!(port.rx[0].rx_burst(&mut burst), 0);
        let name = "rx_q0_too_long".to_owned();
        let xstats = port.control.xstats();
        assert!(xstats.contains(&(name, (call * BURST) as u64)), "call {call}: {xstats:?}");
    }
    assert_eq!(port.rx[0].rx_burst(&mut burst), 1);
    assert_eq!(burst[0].data(), [2; 60]);
    burst.clear();
    port.stop();
}

#[test]
fn a_remote_interface_is_joined_and_left() {
    let Some(lab) = Lab::new("a_remote_interface_is_joined_and_left") else { return };
    let bench = Bench::new();
    lab.veth("near", "far");
    let (mut port, pool) = bench.start(&lab, ",iface=t,remote=near", PortConfig::default());
    assert_eq!(Some(port.control.mac()), lab.interface("near").info().expect("there").mac);
    let far = lab.wire("far");
    let mut burst = Burst::new();
    burst.push(packet(&pool, &[0x55; 64])).expect("room");
    port.tx[0].tx_burst(&mut burst);
    wait_for("what we send leaves by the remote interface", || {
        far.receive().filter(|frame| frame == &[0x55; 64])
    });
    assert!(far.send(&[0x77; 64]));
    wait_until("what it receives is ours", || {
        port.rx[0].rx_burst(&mut burst);
        burst.iter().any(|packet| packet.data() == [0x77; 64])
    });
    burst.clear();
    drop(port.stop());
    let left = lab.output("tc", &["qdisc", "show", "dev", "near"]).expect("tc");
    assert!(!String::from_utf8_lossy(&left.stdout).contains("ingress"), "no filter is left behind");
}

/// What a TCP stream through two ports back to back, between two namespaces, looked like.
#[derive(Debug, Default)]
struct Seen {
    large: u64,
    unfinished: u64,
}

/// A megabyte by TCP from one namespace to another, each packet handed from port to port by us.
fn stream(test: &str, offloads: [Offloads; 2]) -> Option<Seen> {
    const LEN: usize = 1 << 20;
    let (one, other) = (Lab::new(test)?, Lab::new(test)?);
    let bench = Bench::new();
    let config = |offloads| PortConfig::default().offloads(offloads);
    let (mut a, _a_pool) = bench.start(&one, ",iface=t", config(offloads[0]));
    let (mut b, _b_pool) = bench.start(&other, ",iface=t", config(offloads[1]));
    one.ip("addr add 10.9.0.1/24 dev t");
    other.ip("addr add 10.9.0.2/24 dev t");
    let listener = other.run(|| TcpListener::bind("10.9.0.2:9")).expect("bound");
    let sink = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut all = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut all).expect("all of it");
        all
    });
    let data: Vec<u8> = (0..LEN).map(|i| (i % 251) as u8).collect();
    let sent = data.clone();
    let source = std::thread::spawn(move || {
        let mut stream = one.run(|| TcpStream::connect("10.9.0.2:9")).expect("connected");
        std::io::Write::write_all(&mut stream, &sent).expect("sent");
        one
    });
    let (mut burst, mut seen) = (Burst::new(), Seen::default());
    wait_until("the stream", || {
        for back in [false, true] {
            let (from, to) = if back { (&mut b, &mut a) } else { (&mut a, &mut b) };
            from.rx[0].rx_burst(&mut burst);
            for packet in burst.iter() {
                let flags = packet.offload();
                seen.large += u64::from(packet.len() > 1514);
                seen.unfinished += u64::from(flags & Offload::RX_L4_CKSUM_MASK == Offload::RX_L4_CKSUM_NONE);
            }
            to.tx[0].tx_burst(&mut burst);
            to.tx[0].reclaim();
            burst.clear();
        }
        sink.is_finished()
    });
    assert!(sink.join().expect("no panic") == data, "what came is what was sent");
    let one = source.join().expect("no panic");
    drop((a.stop(), b.stop(), one));
    Some(seen)
}

const LARGE: Offloads = Offloads {
    rx: RxOffloads::CHECKSUM.union(RxOffloads::TCP_LRO).union(RxOffloads::SCATTER),
    tx: TxOffloads::VIRTIO,
};

#[test]
fn large_packets_pass_between_two_kernels() {
    let Some(seen) = stream("large_packets_pass_between_two_kernels", [LARGE, LARGE]) else { return };
    assert!(seen.large > 0 && seen.unfinished > 0, "{seen:?}");
}

#[test]
fn a_kernel_that_may_not_leave_anything_does_not() {
    let none = [Offloads::default(), Offloads::default()];
    let Some(seen) = stream("a_kernel_that_may_not_leave_anything_does_not", none) else { return };
    assert_eq!((seen.large, seen.unfinished), (0, 0));
}

#[test]
fn a_large_packet_of_ours_is_cut_by_the_kernel() {
    let Some(lab) = Lab::new("a_large_packet_of_ours_is_cut_by_the_kernel") else { return };
    let bench = Bench::new();
    let (mut port, pool) = bench.start(&lab, ",iface=t,mac=02:00:00:00:00:01", PortConfig::default());
    lab.ip("addr add 10.9.0.1/24 dev t");
    let socket = lab.run(|| UdpSocket::bind("10.9.0.1:7")).expect("bound");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    let payload: Vec<u8> = (0..1200).map(|i| (i % 250) as u8).collect();
    let mut large = packet(&pool, &super::udp(1000, 7, &payload));
    let lengths = TxOffload::new(14, 20, 8).with_tso_segsz(500);
    large.set_tx_offload(Offload::TX_IPV4 | Offload::TX_IP_CKSUM | Offload::TX_UDP_SEG, lengths);
    let mut burst = Burst::new();
    burst.push(large).expect("room");
    assert_eq!(port.tx[0].tx_burst(&mut burst), 1);
    let mut got = Vec::new();
    for want in [500, 500, 200] {
        let mut bytes = [0; 2000];
        let len = socket.recv(&mut bytes).expect("a piece");
        assert_eq!(len, want);
        got.extend_from_slice(&bytes[..len]);
    }
    assert_eq!(got, payload);
    assert_eq!(port.control.stats().opackets, 1);

    let mut wrong = packet(&pool, &[0x11; 60]);
    wrong.set_tx_offload(Offload::TX_TCP_CKSUM, TxOffload::new(14, 20, 20));
    burst.push(wrong).expect("room");
    assert_eq!(port.tx[0].tx_burst(&mut burst), 1);
    assert!(port.control.xstats().contains(&("tx_q0_bad_offload_request".to_owned(), 1)));
    port.stop();
}
