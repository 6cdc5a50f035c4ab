//! Packets go to a backend and come back, whole and in order, on every path.

mod support;

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use linecard_lab::wait_until;
use linecard_mempool::{Burst, Packet, Pool, PoolConfig};
use linecard_pmd::{Port, PortConfig};
use support::{Backend, Bench, Place};

/// A backend thread that echoes pair by pair until told to stop, or until the frontend leaves.
struct Peer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Backend>>,
}

impl Peer {
    fn listen(place: &Place, pairs: usize) -> Self {
        let listener = UnixListener::bind(&place.0).expect("a socket");
        Self::run(pairs, move || Backend::accept(&listener))
    }

    fn run(pairs: usize, make: impl FnOnce() -> Backend + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut backend = make();
            backend.until_running(2 * pairs).expect("a frontend that stays");
            let mut loops: Vec<_> = (0..pairs).map(|pair| backend.echo(pair)).collect();
            while !seen.load(Ordering::Acquire) {
                let moved: usize = loops.iter_mut().map(|echo| echo.turn()).sum();
                if moved == 0 {
                    if backend.serve().is_err() {
                        break;
                    }
                    std::thread::yield_now();
                }
            }
            backend
        });
        Self { stop, thread: Some(thread) }
    }

    fn stop(mut self) -> Backend {
        self.stop.store(true, Ordering::Release);
        self.thread.take().expect("once").join().expect("no panic")
    }
}

fn fill(packet: &mut Packet, seq: u32, len: usize) {
    packet.append(len).expect("room").copy_from_slice(&pattern(seq, len));
}

fn bytes_of(packet: &Packet) -> Vec<u8> {
    packet.segments().flat_map(|piece| piece.data().to_vec()).collect()
}

/// Sends `count` frames of the given lengths in turn, at most 64 under way, and checks what comes back.
#[track_caller]
fn exchange(port: &mut Port, pool: &Pool, count: u32, lens: &[usize], queue: usize) {
    let len_of = |seq: u32| lens[seq as usize % lens.len()];
    let (mut sent, mut came) = (0_u32, 0_u32);
    let (mut out, mut back) = (Burst::new(), Burst::new());
    wait_until("all frames back", || {
        while sent < count && sent - came < 64 && out.room() > 0 {
            let Some(mut packet) = pool.get() else { break };
            fill(&mut packet, sent, len_of(sent));
            assert!(out.push(packet).is_ok());
            sent += 1;
        }
        port.tx[queue].tx_burst(&mut out);
        port.rx[queue].rx_burst(&mut back);
        for packet in back.iter() {
            let len = len_of(came);
            assert_eq!((packet.len(), bytes_of(packet)), (len, pattern(came, len)), "frame {came}");
            came += 1;
        }
        back.clear();
        came == count
    });
    port.tx[queue].reclaim();
}

fn pattern(seq: u32, len: usize) -> Vec<u8> {
    (0..len).map(|at| (seq as usize).wrapping_mul(31).wrapping_add(at * 7) as u8).collect()
}

#[test]
fn every_path_carries_frames() {
    for packed in [0, 1] {
        for in_order in [0, 1] {
            for merge in [0, 1] {
                let (bench, place) = (Bench::new(2048), Place::new());
                let peer = Peer::listen(&place, 1);
                let args =
                    format!("{},packed_vq={packed},in_order={in_order},mrg_rxbuf={merge}", place.arg());
                let mut port = bench.open(&args);
                assert!(port.control.link().up);
                let path = port.rx[0].path();
                assert_eq!(path.contains("packed"), packed == 1, "{path}");
                assert_eq!(path.contains("in-order"), in_order == 1, "{path}");
                assert_eq!(path.contains("mergeable"), merge == 1, "{path}");
                exchange(&mut port, &bench.pool, 3000, &[60, 64, 1514, 14, 777], 0);
                let stats = port.control.stats();
                assert_eq!((stats.ipackets, stats.opackets), (3000, 3000), "{path}");
                assert_eq!((stats.ierrors, stats.oerrors, stats.rx_nombuf), (0, 0, 0), "{path}");
                let device = port.stop();
                peer.stop();
                drop(device);
                bench.assert_whole();
            }
        }
    }
}

#[test]
fn server_mode_waits_for_its_backend() {
    let (bench, place) = (Bench::new(2048), Place::new());
    let mut port = bench.open(&format!("{},server=1", place.arg()));
    assert!(!port.control.link().up);
    assert_eq!(port.rx[0].path(), "none (no backend)");
    let path = place.0.clone();
    let peer = Peer::run(1, move || Backend::connect(&path));
    wait_until("link up", || port.control.link().up);
    exchange(&mut port, &bench.pool, 500, &[60], 0);
    drop(port.stop());
    peer.stop();
    bench.assert_whole();
    assert!(!place.0.exists(), "the socket is gone with the device");
}

#[test]
fn several_queue_pairs() {
    let (bench, place) = (Bench::new(4096), Place::new());
    let peer = Peer::listen(&place, 3);
    let device = bench.probe(&format!("{},queues=4", place.arg())).expect("a device");
    assert_eq!(device.info().max_rx_queues, 4);
    let config = PortConfig::default().rx_queues(3).tx_queues(3);
    let mut port = bench.start(device, config).expect("a port");
    for queue in 0..3 {
        exchange(&mut port, &bench.pool, 200, &[100], queue);
        assert_eq!(port.control.queue_stats(queue as u16).ipackets, 200);
    }
    drop(port.stop());
    peer.stop();
    bench.assert_whole();
}

#[test]
fn frames_longer_than_a_buffer_come_back_through_mergeable_buffers() {
    let (bench, place) = (Bench::new(2048), Place::new());
    let peer = Peer::listen(&place, 1);
    let mut port = bench.open(&place.arg());
    let mut back = Burst::new();
    for (seq, len) in [(0_u32, 2049_usize), (1, 4000), (2, 9000), (3, 9728)] {
        let want = pattern(seq, len);
        let mut whole: Option<Packet> = None;
        for piece in want.chunks(1000) {
            let mut part = bench.pool.get().expect("a packet");
            part.append(piece.len()).expect("room").copy_from_slice(piece);
            match &mut whole {
                None => whole = Some(part),
                Some(whole) => whole.chain(part).expect("a chain"),
            }
        }
        let mut out = Burst::new();
        assert!(out.push(whole.expect("a packet")).is_ok());
        assert_eq!(port.tx[0].tx_burst(&mut out), 1);
        wait_until("a long frame back", || port.rx[0].rx_burst(&mut back) == 1);
        let packet = back.pop().expect("one");
        assert_eq!((packet.len(), bytes_of(&packet)), (len, want));
        assert!(packet.segments().count() > 1);
    }
    drop((port.stop(), back));
    peer.stop();
    bench.assert_whole();
}

#[test]
fn unusual_packets_go_the_long_way() {
    let (bench, place) = (Bench::new(2048), Place::new());
    let peer = Peer::listen(&place, 1);
    let mut port = bench.open(&place.arg());
    let elsewhere = bench.memory.domain("elsewhere").expect("a domain");
    let foreign = PoolConfig::default().packets(64);
    let foreign = Pool::new(&elsewhere, foreign).expect("a pool");
    let second = PoolConfig::default().packets(64);
    let second = Pool::new(&bench.domain, second).expect("a pool of the same domain");
    let (mut out, mut back) = (Burst::new(), Burst::new());

    let mut shared = bench.pool.get().expect("a packet");
    fill(&mut shared, 1, 100);
    let clone = shared.clone_ref().expect("a clone");
    let mut no_headroom = bench.pool.get().expect("a packet");
    fill(&mut no_headroom, 2, 100);
    let headroom = no_headroom.headroom();
    no_headroom.prepend(headroom).expect("room").fill(7);
    let want_no_headroom = bytes_of(&no_headroom);
    let mut other_domain = foreign.get().expect("a packet");
    fill(&mut other_domain, 3, 300);
    let mut other_pool = second.get().expect("a packet");
    fill(&mut other_pool, 4, 200);
    let mut plain = bench.pool.get().expect("a packet");
    fill(&mut plain, 5, 60);

    for packet in [clone, no_headroom, other_domain, other_pool, plain] {
        assert!(out.push(packet).is_ok());
    }
    let empty = bench.pool.get().expect("a packet");
    assert!(out.push(empty).is_ok());
    assert_eq!(port.tx[0].tx_burst(&mut out), 6, "the empty one is taken and dropped");
    wait_until("five back", || {
        port.rx[0].rx_burst(&mut back);
        back.len() == 5
    });
    let wants = [pattern(1, 100), want_no_headroom, pattern(3, 300), pattern(4, 200), pattern(5, 60)];
    for (packet, want) in back.iter().zip(wants) {
        assert_eq!(bytes_of(packet), want);
    }
    assert_eq!(bytes_of(&shared), pattern(1, 100));
    port.tx[0].reclaim();
    let stats = port.control.stats();
    assert_eq!((stats.opackets, stats.oerrors), (5, 1));
    assert!(port.control.xstats().contains(&("tx_q0_empty".to_owned(), 1)));
    drop((port.stop(), back, shared));
    peer.stop();
    bench.assert_whole();
    let stats = foreign.stats();
    assert_eq!(stats.free + stats.cached, stats.total);
}

#[test]
fn a_full_ring_leaves_packets_in_the_burst() {
    let (bench, place) = (Bench::new(2048), Place::new());
    let listener = UnixListener::bind(&place.0).expect("a socket");
    let backend = std::thread::spawn(move || {
        let mut backend = Backend::accept(&listener);
        backend.until_running(2).expect("a frontend that stays");
        backend
    });
    let mut port = bench.open(&format!("{},queue_size=16", place.arg()));
    let backend = backend.join().expect("no panic");
    let mut out = Burst::new();
    bench.pool.get_bulk(&mut out, 20).unwrap();
    for packet in out.iter_mut() {
        packet.append(60).expect("room");
    }
    assert_eq!(port.tx[0].tx_burst(&mut out), 16);
    assert_eq!(port.tx[0].tx_burst(&mut out), 0);
    assert_eq!(out.len(), 4);
    let mut echo = backend.echo(0);
    assert_eq!((0..16).filter(|_| echo.take().is_some()).count(), 16);
    assert_eq!(port.tx[0].tx_burst(&mut out), 4);
    // The four are in flight when the port stops: lost, and counted.
    let control = port.control.clone();
    drop(backend);
    drop((port.stop(), out));
    assert_eq!(control.stats().opackets, 20);
    assert!(control.xstats().contains(&("tx_q0_backend_gone".to_owned(), 4)));
    bench.assert_whole();
}

#[test]
fn an_empty_pool_starves_and_recovers() {
    let (bench, place) = (Bench::new(320), Place::new());
    let peer = Peer::listen(&place, 1);
    let mut port = bench.open(&place.arg());
    let mut hoard = Vec::new();
    while let Some(packet) = bench.pool.get() {
        hoard.push(packet);
    }
    let mut received = Burst::new();
    let mut kept = Vec::new();
    // Use up the lent buffers: every frame that comes back is kept, and nothing replaces it.
    wait_until("the pool to run dry", || {
        let mut out = Burst::new();
        if let Some(mut packet) = hoard.pop() {
            fill(&mut packet, 0, 60);
            assert!(out.push(packet).is_ok());
        }
        port.tx[0].tx_burst(&mut out);
        hoard.extend(std::iter::from_fn(|| bench.pool.get()));
        port.rx[0].rx_burst(&mut received);
        let count = received.len();
        kept.extend(received.drain(..count));
        port.control.stats().rx_nombuf > 0
    });
    drop((hoard, kept));
    wait_until("frames under way are over", || {
        port.tx[0].reclaim();
        port.rx[0].rx_burst(&mut received);
        received.clear();
        let stats = port.control.stats();
        stats.ipackets == stats.opackets
    });
    exchange(&mut port, &bench.pool, 500, &[60], 0);
    drop((port.stop(), received));
    peer.stop();
    bench.assert_whole();
}

#[test]
fn memory_that_grows_is_shared_without_a_stop() {
    for slots in [false, true] {
        let (bench, place) = (Bench::new(1024), Place::new());
        let listener = UnixListener::bind(&place.0).expect("a socket");
        let stop = Arc::new(AtomicBool::new(false));
        let regions = Arc::new(AtomicUsize::new(0));
        let (seen, told) = (stop.clone(), regions.clone());
        let thread = std::thread::spawn(move || {
            let mut backend = Backend::accept(&listener);
            if slots {
                backend.protocol |= linecard_wire::ProtocolFeatures::CONFIGURE_MEM_SLOTS;
            }
            backend.until_running(2).expect("a frontend that stays");
            let before = backend.regions.0.len();
            while !seen.load(Ordering::Acquire) && backend.serve().is_ok() {
                told.store(backend.regions.0.len(), Ordering::Release);
                std::thread::yield_now();
            }
            (before, backend.regions.0.len(), backend.requests)
        });
        let port = bench.open(&place.arg());
        wait_until("it serves", || regions.load(Ordering::Acquire) > 0);
        let before = regions.load(Ordering::Acquire);
        let big = bench.domain.zone("growth", 8 << 20, 64).expect("more memory");
        wait_until("another region", || regions.load(Ordering::Acquire) > before);
        assert!(port.control.link().up);
        stop.store(true, Ordering::Release);
        let (before, after, requests) = thread.join().expect("no panic");
        assert!(after > before, "{before} regions, then {after}");
        let added = requests.contains(&(linecard_wire::FrontendReq::ADD_MEM_REG as u32));
        assert_eq!(added, slots);
        drop((port.stop(), big));
        bench.assert_whole();
    }
}

/// A backend that takes tables only has room for eight regions. What the port needs itself is among them, and packets in other
/// memory are copied, whether it was there before or comes while packets pass.
#[test]
fn memory_beyond_the_regions_of_a_backend_is_copied() {
    let (bench, place) = (Bench::new(2048), Place::new());
    let mut growth = Vec::new();
    let grow = || bench.domain.zone("growth", 4 << 20, 64).expect("more memory");
    while bench.domain.segments().len() < 9 {
        growth.push(grow());
    }
    let beyond = PoolConfig::default().packets(256);
    let beyond = Pool::new(&bench.domain, beyond).expect("a pool");
    let peer = Peer::listen(&place, 1);
    let mut port = bench.open(&place.arg());
    assert!(port.control.link().up);
    exchange(&mut port, &beyond, 500, &[60, 1514, 2000], 0);
    exchange(&mut port, &bench.pool, 500, &[60, 1514], 0);
    growth.push(grow());
    exchange(&mut port, &beyond, 500, &[60, 1514, 2000], 0);
    exchange(&mut port, &bench.pool, 500, &[60, 1514], 0);
    assert!(port.control.link().up);
    let stats = port.control.stats();
    assert_eq!((stats.ierrors, stats.oerrors, stats.rx_nombuf), (0, 0, 0));
    let device = port.stop();
    assert_eq!(peer.stop().regions.0.len(), 8, "it was never told of more than it takes");
    drop((device, growth));
    bench.assert_whole();
    assert_eq!(beyond.stats().in_use, 0);
}

#[test]
fn a_port_stops_and_starts_again() {
    let (bench, place) = (Bench::new(2048), Place::new());
    let listener = UnixListener::bind(&place.0).expect("a socket");
    let mut device = None;
    for round in 0..5 {
        let listener = listener.try_clone().expect("a socket");
        let peer = Peer::run(1, move || Backend::accept(&listener));
        let probed = device.take().unwrap_or_else(|| bench.probe(&place.arg()).expect("a device"));
        let mut port = bench.start(probed, PortConfig::default()).expect("a port");
        exchange(&mut port, &bench.pool, 100 + round, &[60, 1000], 0);
        let mac = port.control.mac();
        device = Some(port.stop());
        assert_eq!(device.as_ref().map(|device| device.info().mac), Some(mac));
        let backend = peer.stop();
        assert_eq!(backend.status, 0, "the device was reset");
        bench.assert_whole();
    }
}

/// A port with rings of 1024 and 8192 packets.
#[test]
fn a_port_is_small() {
    let (bench, place) = (Bench::new(8192), Place::new());
    let peer = Peer::listen(&place, 1);
    let port = bench.open(&format!("{},queue_size=1024", place.arg()));
    let bytes = bench.memory.usage().total() + 8192 * 64;
    assert!(bytes < 32 << 20, "{bytes} bytes");
    assert!(bench.domain.segments().len() <= 8, "few regions for the peer");
    drop(port.stop());
    peer.stop();
    bench.assert_whole();
}

/// A port gets an address nobody else has, and keeps it; one that is given is used.
#[test]
fn addresses() {
    let (bench, place) = (Bench::new(1024), Place::new());
    let device = bench.probe(&format!("{},server=1", place.arg())).expect("a device");
    let mac = device.info().mac;
    assert_eq!(mac[0] & 3, 2, "unicast, locally administered: {mac:02x?}");
    let port = bench.start(device, PortConfig::default()).expect("a port");
    assert_eq!(port.control.mac(), mac);
    assert!(port.control.set_mac([1, 0, 0, 0, 0, 0]).is_err());
    assert!(port.control.set_mac([0; 6]).is_err());
    port.control.set_mac([2, 0, 0, 0, 0, 9]).expect("a unicast address");
    let device = port.stop();
    assert_eq!(device.info().mac, [2, 0, 0, 0, 0, 9]);
    drop(device);
    let other = Place::new();
    let given = bench.probe(&format!("{},server=1,mac=02:00:00:00:00:05", other.arg())).expect("a device");
    assert_eq!(given.info().mac, [2, 0, 0, 0, 0, 5]);
}

/// A backend that sleeps is woken at once; one that fell asleep behind our back, by the next poll. It says so by its flags;
/// `tests/event_idx.rs` has the other way.
#[test]
fn sleeping_backends_are_woken() {
    use std::io::Read;
    for packed in [0, 1] {
        let (bench, place) = (Bench::new(1024), Place::new());
        let listener = UnixListener::bind(&place.0).expect("a socket");
        let peer = std::thread::spawn(move || {
            let mut backend = Backend::accept(&listener);
            backend.until_running(2).expect("a frontend that stays");
            backend
        });
        let mut port = bench.open(&format!("{},event_idx=0,packed_vq={packed}", place.arg()));
        let mut backend = peer.join().expect("no panic");
        let flags = backend.ring(1).device.cell::<u16>(2 * packed).expect("flags");
        let mut kick = std::fs::File::from(backend.rings[1].kick.take().expect("an eventfd"));
        let mut kicked = || kick.read(&mut [0; 8]).is_ok();
        let send = |port: &mut Port| {
            let mut out = Burst::new();
            bench.pool.get_bulk(&mut out, 1).unwrap();
            out[0].append(60).expect("room").fill(1);
            assert_eq!(port.tx[0].tx_burst(&mut out), 1);
        };
        kicked();
        send(&mut port);
        // By the port's thread, if there was no kick in the last milliseconds.
        wait_until("the kick: with flags 0 it wants to know", &mut kicked);
        flags.store(1, Ordering::SeqCst);
        send(&mut port);
        assert!(!kicked(), "flags 1: it polls");
        let mut received = Burst::new();
        // The control thread may ask first, while the flags still say that the backend polls.
        wait_until("the poll that asks", || {
            flags.store(1, Ordering::SeqCst);
            send(&mut port);
            flags.store(0, Ordering::SeqCst);
            port.rx[0].rx_burst(&mut received);
            kicked()
        });
        drop(backend);
        drop(port.stop());
        bench.assert_whole();
    }
}
