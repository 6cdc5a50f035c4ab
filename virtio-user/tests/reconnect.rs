//! Backends that come and go: the port takes its buffers home, and connects again.

mod support;

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use linecard_capture::{Hub, Options};
use linecard_lab::wait_until;
use linecard_mempool::Burst;
use linecard_pmd::{Port, PortConfig};
use linecard_wire::FrontendReq;
use support::{Act, Backend, Bench, PATIENCE, Place, attached};

const ROUNDS: u32 = 50;

/// Echoes `frames` frames, then vanishes in the middle of traffic.
fn short_life(mut backend: Backend, frames: usize) -> bool {
    if backend.until_running(2).is_err() {
        return false;
    }
    let mut echo = backend.echo(0);
    let (mut moved, until) = (0, Instant::now() + PATIENCE);
    while moved < frames && Instant::now() < until {
        moved += echo.turn();
        if backend.serve().is_err() {
            break;
        }
    }
    moved >= frames
}

/// A frame of that number, whose every byte depends on it.
fn numbered(number: u32) -> [u8; 60] {
    let mut frame = std::array::from_fn(|at| (number as usize * 31 + at * 7) as u8);
    frame[..4].copy_from_slice(&number.to_le_bytes());
    frame
}

/// Sends numbered frames until `over`, and receives: what comes back is whole, in order, and comes once. Some do not, as a backend
/// that leaves takes frames with it.
fn drive(bench: &Bench, port: &mut Port, over: impl Fn() -> bool) {
    let (mut out, mut back) = (Burst::new(), Burst::new());
    let (mut sent, mut next) = (0_u32, 0_u32);
    wait_until("all backends served", || {
        while out.room() > 32 {
            let Some(mut packet) = bench.pool.get() else { break };
            packet.copy_from_slice(&numbered(sent)).unwrap();
            assert!(out.push(packet).is_ok());
            sent += 1;
        }
        port.tx[0].tx_burst(&mut out);
        port.rx[0].rx_burst(&mut back);
        for packet in back.iter() {
            let number = packet.data().first_chunk().map_or(u32::MAX, |bytes| u32::from_le_bytes(*bytes));
            assert_eq!(packet.data(), numbered(number), "frame {number}");
            assert!((next..sent).contains(&number), "frame {number} after {next}, of {sent}");
            next = number + 1;
        }
        back.clear();
        std::thread::yield_now();
        over()
    });
}

fn check_counts(port: &Port) {
    let (stats, xstats) = (port.control.stats(), port.control.xstats());
    let lost = xstats.iter().find(|(name, _)| name == "tx_q0_backend_gone").map_or(0, |(_, n)| *n);
    assert_eq!(stats.oerrors, lost, "nothing is lost but what was in flight");
    assert!(stats.opackets >= lost);
}

#[test]
fn fifty_backends_one_after_the_other_client() {
    for packed in [0, 1] {
        let (bench, place) = (Bench::new(2048), Place::new());
        let listener = UnixListener::bind(&place.0).expect("a socket");
        let served = Arc::new(AtomicU32::new(0));
        let count = served.clone();
        let peer = std::thread::spawn(move || {
            while count.load(Ordering::Acquire) < ROUNDS {
                if short_life(Backend::accept(&listener), 40) {
                    count.fetch_add(1, Ordering::AcqRel);
                }
            }
        });
        let mut port = bench.open(&format!("{},packed_vq={packed}", place.arg()));
        drive(&bench, &mut port, || served.load(Ordering::Acquire) == ROUNDS);
        peer.join().expect("no panic");
        wait_until("link down", || !port.control.link().up);
        bench.soon_whole();
        check_counts(&port);
        drop(port.stop());
        bench.assert_whole();
    }
}

#[test]
fn fifty_backends_one_after_the_other_server() {
    for in_order in [0, 1] {
        let (bench, place) = (Bench::new(2048), Place::new());
        let path = place.0.clone();
        let mut port = bench.open(&format!("{},server=1,in_order={in_order}", place.arg()));
        let served = Arc::new(AtomicU32::new(0));
        let count = served.clone();
        let peer = std::thread::spawn(move || {
            while count.load(Ordering::Acquire) < ROUNDS {
                if short_life(Backend::connect(&path), 40) {
                    count.fetch_add(1, Ordering::AcqRel);
                }
            }
        });
        drive(&bench, &mut port, || served.load(Ordering::Acquire) == ROUNDS);
        peer.join().expect("no panic");
        wait_until("link down", || !port.control.link().up);
        bench.soon_whole();
        check_counts(&port);
        drop(port.stop());
        bench.assert_whole();
    }
}

/// What a backend had not taken when it left is in a capture twice: as sent, and as lost, with the reason.
#[test]
fn a_capture_shows_what_a_backend_took_with_it() {
    for packed in [0, 1] {
        let (bench, place) = (Bench::new(2048), Place::new());
        let (port, first, _listener) = attached(&bench, &place, &format!(",packed_vq={packed}"));
        let hub = Hub::new();
        let mut port = hub.watch(0, port);
        let (session, mut stream) = hub.open(0, &Options::default()).expect("opens");
        let mut out = Burst::new();
        bench.pool.get_bulk(&mut out, 5).unwrap();
        out.iter_mut().for_each(|packet| packet.append(60).expect("room").fill(7));
        assert_eq!(port.tx[0].tx_burst(&mut out), 5);
        drop(first);
        wait_until("link down", || !port.control.link().up);
        let (mut sent, mut lost) = (0, 0);
        // The link goes down a moment before the rings are emptied.
        wait_until("what the backend took with it", || {
            port.tx[0].tx_burst(&mut out);
            while let Some(frame) = stream.next().expect("not garbled") {
                assert_eq!(frame.data, [7; 60]);
                sent += u32::from(frame.comment.is_empty());
                lost += u32::from(frame.comment == "backend_gone, shown as sent before");
            }
            lost >= 5
        });
        assert_eq!((sent, lost), (5, 5));
        bench.soon_whole();
        // Nobody looks any more: nothing is kept.
        drop((session, stream));
        port.tx[0].reclaim();
        drop(port.stop());
        bench.assert_whole();
    }
}

/// Nobody polls the port, and still its buffers come home and its link comes back.
#[test]
fn a_port_that_nobody_polls_reconnects() {
    let (bench, place) = (Bench::new(2048), Place::new());
    let (mut port, first, listener) = attached(&bench, &place, "");
    let mut out = Burst::new();
    bench.pool.get_bulk(&mut out, 32).unwrap();
    out.iter_mut().for_each(|packet| packet.append(60).expect("room").fill(1));
    assert_eq!(port.tx[0].tx_burst(&mut out), 32);
    drop(first);
    wait_until("link down", || !port.control.link().up);
    bench.soon_whole();
    assert_eq!(port.control.stats().oerrors, 32);
    let mut second = Backend::accept(&listener);
    second.until_running(2).expect("a frontend that stays");
    wait_until("link up", || port.control.link().up);
    drop(port.stop());
    bench.assert_whole();
}

/// A backend leaves at each request of the handshake in turn.
#[test]
fn backends_that_leave_at_any_point_of_the_handshake() {
    let (bench, place) = (Bench::new(1024), Place::new());
    let path = place.0.clone();
    let port = bench.open(&format!("{},server=1", place.arg()));
    let mut step = 0;
    loop {
        let mut backend = Backend::connect(&path);
        let mut seen = 0;
        backend.spoiler = Some(Box::new(move |_, _| {
            seen += 1;
            if seen > step { Act::Leave } else { Act::Normal }
        }));
        if backend.until_running(2).is_ok() {
            break;
        }
        step += 1;
        assert!(step < 100);
    }
    assert!(step > 15, "{step} requests make a handshake");
    // The last one that was served in full is still there until it is dropped at the end of its turn.
    wait_until("link down", || !port.control.link().up);
    bench.soon_whole();
    drop(port.stop());
    bench.assert_whole();
}

/// A silent backend is left after the deadline, and another port is not delayed by it.
#[test]
fn a_silent_backend_delays_nobody() {
    let (bench, place, silent) = (Bench::new(1024), Place::new(), Place::new());
    let mute = UnixListener::bind(&silent.0).expect("a socket");
    let waiting = bench.open(&format!("{},server=1", Place::new().arg()));
    let mut patient = Bench::new(512);
    patient.wait = Duration::from_secs(600);
    std::thread::scope(|scope| {
        let stuck = scope.spawn(|| patient.probe(&silent.arg()).err().expect("no answer").to_string());
        let (held, _) = mute.accept().expect("it connects");
        let listener = UnixListener::bind(&place.0).expect("a socket");
        let peer = scope.spawn(move || Backend::accept(&listener).until_running(2));
        let port = bench.open(&place.arg());
        assert!(!stuck.is_finished(), "the silent one has ten minutes to answer");
        peer.join().expect("no panic").expect("a frontend that stays");
        drop(port.stop());
        // Nobody waits for a backend that hangs up.
        drop(held);
        stuck.join().expect("no panic");
    });
    let error = bench.probe(&silent.arg()).err().expect("no answer").to_string();
    assert!(error.contains("did not answer GET_FEATURES within"), "{error}");
    assert!(!error.contains('\n'));
    drop(mute);
    drop(waiting.stop());
    bench.assert_whole();
}

/// The backend stops answering when the port is stopped: the port stops all the same, in bounded time.
#[test]
fn stopping_does_not_need_the_backend() {
    let (bench, place) = (Bench::new(1024), Place::new());
    let listener = UnixListener::bind(&place.0).expect("a socket");
    let peer = std::thread::spawn(move || {
        let mut backend = Backend::accept(&listener);
        backend.spoiler = Some(Box::new(|_, message| match message.request {
            r if r == FrontendReq::GET_VRING_BASE as u32 => Act::Handled,
            _ => Act::Normal,
        }));
        backend.until_running(2).expect("a frontend that stays");
        backend.until_gone();
    });
    let port = bench.open(&place.arg());
    // It returns: half a second is what the backend gets, and it does not answer until the port is gone.
    drop(port.stop());
    bench.assert_whole();
    peer.join().expect("no panic");
}

/// Queues that were handed out and are not back find their gates closed.
#[test]
fn queues_outlive_their_port() {
    let (bench, place) = (Bench::new(1024), Place::new());
    let listener = UnixListener::bind(&place.0).expect("a socket");
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    let peer = std::thread::spawn(move || {
        let mut backend = Backend::accept(&listener);
        backend.until_running(2).expect("a frontend that stays");
        while !seen.load(Ordering::Acquire) && backend.serve().is_ok() {
            std::thread::yield_now();
        }
    });
    let device = bench.probe(&place.arg()).expect("a device");
    let mut port = bench.start(device, PortConfig::default()).expect("a port");
    let mut rx = std::mem::take(&mut port.rx);
    let mut tx = std::mem::take(&mut port.tx);
    let device = port.stop();
    bench.assert_whole();
    let mut burst = Burst::new();
    assert_eq!(rx[0].rx_burst(&mut burst), 0);
    burst.push(bench.pool.get().expect("a packet")).expect("room");
    assert_eq!(tx[0].tx_burst(&mut burst), 0);
    assert_eq!(burst.len(), 1);
    drop((device, rx, tx, burst));
    stop.store(true, Ordering::Release);
    peer.join().expect("no panic");
    bench.assert_whole();
}
