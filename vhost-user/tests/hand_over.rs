//! Ports that go from one backend to the next with their frontend connected.

mod common;

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use common::{Bench, Frontend, Guest, frame, socket_path};
use linecard_lab::{wait_for, wait_until};
use linecard_mempool::Burst;
use linecard_pmd::{RxQueue, TxQueue};
use linecard_vhost_user::{Backend, BackendConfig, Control, Error, HandOver, Mode};
use linecard_virtio::Features;
use linecard_wire::FrontendReq as Req;
use linecard_wire::payload::{MemoryRegion, Payload, SingleRegion};

/// Frames that come between two hand-overs, at least.
const FRAMES: usize = 200;
/// Receive buffers, and frames that may be on their way.
const WINDOW: usize = 64;
const HOPS: usize = 6;

fn config(label: &str) -> BackendConfig {
    BackendConfig::new(label, socket_path(label), Mode::Listen).hand_over(true)
}

fn len(n: usize) -> usize {
    60 + n % 1000
}

/// Sends numbered frames until `enough`, and expects each to come back, once and in order; how many that were.
fn drive(mut guest: Guest, enough: &AtomicBool) -> (Guest, usize) {
    guest.post_receive(0, WINDOW, 2048);
    let (mut sent, mut back) = (0, 0);
    wait_until("all frames to come back", || {
        guest.tx.take();
        let enough = enough.load(Relaxed);
        while !enough && sent - back < WINDOW {
            guest.send(&frame(sent, len(sent)));
            sent += 1;
        }
        guest.tx.publish();
        for (token, bytes) in guest.received() {
            assert_eq!(bytes.get(common::HEADER..), Some(frame(back, len(back)).as_slice()), "frame {back}");
            back += 1;
            guest.post_receive(token as usize, 1, 2048);
        }
        enough && back == sent
    });
    (guest, sent)
}

/// Sends back what came, and keeps what there is no room for; how many came.
fn echo(bench: &mut Bench, packets: &mut Burst) -> usize {
    let came = if packets.is_empty() { bench.rx.rx_burst(packets) } else { 0 };
    bench.tx.tx_burst(packets);
    came
}

fn hand_over_while_polled(bench: &mut Bench, packets: &mut Burst) -> HandOver {
    // Split, so that one thread polls and another asks.
    let Bench { backend, rx, tx, .. } = bench;
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| backend.hand_over());
        while !asking.is_finished() {
            if packets.is_empty() {
                rx.rx_burst(packets);
            }
            tx.tx_burst(packets);
        }
        asking.join().expect("no panic").expect("handed over")
    })
}

#[test]
fn a_port_changes_hands_under_traffic_and_no_packet_is_lost() {
    for features in [
        Features::empty(),
        Features::IN_ORDER | Features::EVENT_IDX,
        Features::RING_PACKED,
        Features::RING_PACKED | Features::IN_ORDER | Features::NET_MRG_RXBUF,
    ] {
        let config = config("hands");
        let mut bench = Bench::of(config.clone(), common::pool(1024, 0));
        let guest = Guest::start(&bench.path, features);
        bench.wait_link(true);
        let enough = AtomicBool::new(false);
        let (mut guest, sent) = std::thread::scope(|scope| {
            let driving = scope.spawn(|| drive(guest, &enough));
            let mut packets = Burst::new();
            for hop in 0..HOPS {
                let handed = hand_over_while_polled(&mut bench, &mut packets);
                assert!(!bench.backend.peer().connected());
                let control = Control::new();
                let backend = Backend::take_over(&control, config.clone(), handed).expect("taken over");
                assert!(backend.peer().link_up(), "hop {hop}");
                assert!(backend.peer().features().contains(features));
                bench.go_on_with(backend);
                // Some traffic before the next one; what is left after the last.
                let mut came = 0;
                wait_until("traffic", || {
                    came += echo(&mut bench, &mut packets);
                    came >= FRAMES
                });
            }
            enough.store(true, Relaxed);
            wait_until("the guest", || {
                echo(&mut bench, &mut packets);
                driving.is_finished()
            });
            driving.join().expect("the guest")
        });
        // The session goes on: requests are answered, rings stop where the frames have brought them.
        let base = guest.frontend.stop_ring(1);
        if !features.contains(Features::RING_PACKED) {
            assert_eq!(base as usize, sent % 65_536);
        }
        assert_eq!(bench.backend.peer().counters()[3], ("ring_faults", 0));
        let path = bench.path.clone();
        drop(guest);
        bench.wait_gone();
        bench.assert_whole();
        // The name went along, and goes with the last.
        assert!(path.exists());
        drop(bench);
        assert!(!path.exists());
    }
}

/// A successor that gives up at any step costs no packet, no connection and no name; one that goes through has all of them.
#[test]
fn a_successor_that_gives_up_leaves_no_trace() {
    for features in [Features::EVENT_IDX, Features::RING_PACKED | Features::IN_ORDER] {
        let config = config("gives-up");
        let mut bench = Bench::of(config.clone(), common::pool(1024, 0));
        let guest = Guest::start(&bench.path, features);
        bench.wait_link(true);
        let enough = AtomicBool::new(false);
        let (guest, sent) = std::thread::scope(|scope| {
            let driving = scope.spawn(|| drive(guest, &enough));
            let mut packets = Burst::new();
            let traffic = |bench: &mut Bench, packets: &mut Burst| {
                let mut came = 0;
                wait_until("traffic", || {
                    came += echo(bench, packets);
                    came >= FRAMES
                });
            };
            for hop in 0..HOPS {
                for step in 0..4 {
                    let held = bench.backend.hold().expect("held");
                    traffic(&mut bench, &mut packets);
                    let successor = (step > 0)
                        .then(|| Backend::prepare(&Control::new(), config.clone(), held).expect("prepared"));
                    if step > 1 {
                        let state = bench.backend.freeze().expect("frozen");
                        assert_eq!(echo(&mut bench, &mut packets), 0, "nobody polls a frozen port");
                        let new = successor.as_ref().expect("it is there");
                        if step == 2 {
                            new.begin(&[]).expect_err("no snapshot");
                        } else {
                            new.begin(&state).expect("begun");
                        }
                    }
                    drop(successor);
                    bench.backend.resume().expect("it goes on");
                    assert!(bench.backend.peer().link_up() && config.path.exists(), "hop {hop}, step {step}");
                    traffic(&mut bench, &mut packets);
                }
                let held = bench.backend.hold().expect("held");
                let new = Backend::prepare(&Control::new(), config.clone(), held).expect("prepared");
                let state = bench.backend.freeze().expect("frozen");
                new.begin(&state).expect("begun");
                new.resume().expect("its");
                bench.backend.release().expect("the successor's");
                bench.go_on_with(new);
                traffic(&mut bench, &mut packets);
            }
            enough.store(true, Relaxed);
            wait_until("the guest", || {
                echo(&mut bench, &mut packets);
                driving.is_finished()
            });
            driving.join().expect("the guest")
        });
        assert!(sent > FRAMES * HOPS);
        assert_eq!(bench.backend.peer().counters()[3], ("ring_faults", 0));
        drop(guest);
        bench.wait_gone();
        bench.assert_whole();
        assert!(config.path.exists());
        drop(bench);
        assert!(!config.path.exists());
    }
}

/// What a frontend asks while its port changes hands is answered by whoever has it afterwards.
#[test]
fn requests_wait_while_a_port_is_held() {
    let config = config("held");
    let old = Backend::new(&Control::new(), config.clone()).expect("backend");
    let mut frontend = Frontend::connect(&config.path);
    frontend.negotiate(Features::empty());
    for goes_through in [false, true] {
        let new = Backend::prepare(&Control::new(), config.clone(), old.hold().expect("held"));
        let new = new.expect("prepared");
        new.begin(&old.freeze().expect("frozen")).expect("begun");
        frontend.send(Req::GET_FEATURES, &[], &[]);
        assert!(unread(&frontend) > 0, "nobody reads it");
        let _serves = if goes_through {
            new.resume().expect("its");
            old.release().expect("the successor's");
            Some(new)
        } else {
            drop(new);
            old.resume().expect("it goes on");
            None
        };
        let answer = frontend.connection.read_until(Instant::now() + Duration::from_secs(30));
        assert_eq!(answer.expect("an answer").request, Req::GET_FEATURES as u32);
    }
}

/// The successor waits for the descriptor by which the driver has kicked the predecessor.
#[test]
fn a_driver_that_kicks_wakes_the_successor() {
    let config = config("kick");
    let mut bench = Bench::of(config.clone(), common::pool(1024, 0));
    let mut guest = Guest::start(&bench.path, Features::empty());
    bench.wait_link(true);
    let handed = bench.backend.hand_over().expect("handed over");
    let new = Backend::take_over(&Control::new(), config, handed).expect("taken over");
    bench.go_on_with(new);
    assert_eq!(bench.rx.arm(), linecard_pmd::Armed::Asleep);
    guest.send(&frame(0, 60));
    guest.tx.publish();
    let mut kick = std::fs::File::from(guest.frontend.kicks[1].try_clone().expect("dup"));
    kick.write_all(&1_u64.to_ne_bytes()).expect("an eventfd");
    let event = bench.rx.event().expect("it is armed");
    wait_until("a wake-up", || readable(event));
}

fn readable(fd: std::os::fd::BorrowedFd<'_>) -> bool {
    let mut entry =
        libc::pollfd { fd: std::os::fd::AsRawFd::as_raw_fd(&fd), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid entry, exclusively borrowed until the call returns, which is at once.
    unsafe { libc::poll(&raw mut entry, 1, 0) > 0 }
}

#[test]
fn a_port_without_a_frontend_changes_hands_and_serves_who_waited() {
    let config = config("idle");
    let mut old = Backend::new(&Control::new(), config.clone()).expect("backend");
    let handed = old.hand_over().expect("handed over");
    drop(old);
    assert!(config.path.exists());
    let early = Frontend::connect(&config.path);
    // Between two processes it is bytes and descriptors.
    let HandOver { state, descriptors, .. } = handed;
    let handed = HandOver::new(state, descriptors);
    let new = Backend::take_over(&Control::new(), config.clone(), handed).expect("taken over");
    let guest = Guest::over(early, Features::empty());
    wait_until("link", || new.peer().link_up());
    drop((guest, new));
    assert!(!config.path.exists());
}

/// Requests beyond those whose answers fit into the socket: fewer than the socket holds, since they are not read.
const MORE: libc::c_int = 100;

#[test]
fn a_port_is_handed_over_between_two_requests_only() {
    let config = config("between");
    let mut old = Backend::new(&Control::new(), config.clone()).expect("backend");
    let mut frontend = Frontend::connect(&config.path);
    // Answers that the frontend does not read keep the port from being between two requests.
    let (requests, request) = (messages_that_fit(20) + MORE, size_in_transit(12));
    for _ in 0..requests {
        frontend.send(Req::GET_FEATURES, &[], &[]);
    }
    wait_until("more requests to be read than answers fit into the socket", || {
        let sent = frontend.connection.flush().expect("connected");
        sent && unread(&frontend) <= request * (MORE - 1)
    });
    let refused = old.hand_over();
    assert!(matches!(refused, Err(Error::HandOver { .. })), "{refused:?}");
    assert!(old.peer().connected(), "the port goes on");
    for n in 0..requests {
        let answer = frontend.connection.read_until(Instant::now() + Duration::from_secs(30));
        assert_eq!(answer.expect("an answer").request, Req::GET_FEATURES as u32, "answer {n}");
    }
    // A request that is not whole is waited for, and answered by the one or the other.
    let message = [1u32, 1, 0].map(u32::to_ne_bytes).concat();
    frontend.connection.socket().write_all(&message[..5]).expect("room");
    wait_until("five bytes to be read", || unread(&frontend) == 0);
    let handed = std::thread::scope(|scope| {
        let asking = scope.spawn(|| old.hand_over());
        frontend.connection.socket().write_all(&message[5..]).expect("room");
        asking.join().expect("no panic").expect("handed over")
    });
    drop(old);
    let _new = Backend::take_over(&Control::new(), config, handed).expect("taken over");
    let answer = frontend.connection.read_until(Instant::now() + Duration::from_secs(30));
    assert_eq!(answer.expect("an answer").request, Req::GET_FEATURES as u32);
    assert_ne!(frontend.number(Req::GET_PROTOCOL_FEATURES), 0, "and no answer comes twice");
}

/// The number of messages of this length that a socket holds.
fn messages_that_fit(len: usize) -> libc::c_int {
    let (mut from, _to) = UnixStream::pair().expect("a pair");
    from.set_nonblocking(true).expect("a socket");
    (0..).take_while(|_| from.write(&vec![0; len]).is_ok()).count().try_into().expect("a few hundred")
}

/// What the kernel counts for a message of this length that was not read.
fn size_in_transit(len: usize) -> libc::c_int {
    let (mut from, _to) = UnixStream::pair().expect("a pair");
    from.write_all(&vec![0; len]).expect("room");
    in_transit(&from)
}

/// What the other end of the frontend's socket has not read.
fn unread(frontend: &Frontend) -> libc::c_int {
    in_transit(frontend.connection.socket())
}

fn in_transit(socket: &UnixStream) -> libc::c_int {
    let mut bytes: libc::c_int = 0;
    let fd = std::os::fd::AsRawFd::as_raw_fd(socket);
    // SAFETY: writes an integer to `bytes`.
    let result = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut bytes) };
    assert_eq!(result, 0);
    bytes
}

#[test]
fn what_a_successor_cannot_serve_is_refused_by_a_sentence() {
    let config = config("refuse");
    let not_kept = config.clone().hand_over(false);
    let mut plain = Backend::new(&Control::new(), not_kept).expect("backend");
    let refused = plain.hand_over().expect_err("it keeps no descriptors").to_string();
    assert!(refused.contains("hand_over"), "{refused}");
    drop(plain);

    let two = config.clone().queue_pairs(2);
    let fewer_features = two.clone().features(Features::empty());
    for successor in [config.clone(), fewer_features] {
        let mut old = Backend::new(&Control::new(), two.clone()).expect("backend");
        let mut guest = Guest::start(&config.path, Features::NET_MRG_RXBUF);
        let handed = old.hand_over().expect("handed over");
        let refused = Backend::take_over(&Control::new(), successor, handed).map(drop).expect_err("less");
        assert!(matches!(refused, Error::TakeOver { .. }), "{refused}");
        // Nobody serves it any more, and it knows.
        assert!(guest.frontend.is_dropped());
    }
    for state in [Vec::new(), vec![0; 4096]] {
        let handed = HandOver::new(state, Vec::new());
        let refused = Backend::take_over(&Control::new(), config.clone(), handed).map(drop);
        assert!(matches!(refused, Err(Error::TakeOver { .. })), "{refused:?}");
    }
    assert!(!config.path.exists());
}

/// A region's descriptor counts as one of the port's, as long as the region is there.
#[test]
fn descriptors_of_regions_are_charged_to_their_port() {
    const PAGE: u64 = 4096;
    let mut config = config("charged");
    config.limits.descriptors = Some(20);
    let backend = Backend::new(&Control::new(), config.clone()).expect("backend");
    let mut frontend = Frontend::connect(&config.path);
    frontend.negotiate(Features::empty());
    let region = |n: u64| {
        let addr = (n + 1) << 30;
        let region = MemoryRegion { guest_addr: addr, size: PAGE, user_addr: addr, offset: n * PAGE };
        SingleRegion(region).to_bytes()
    };
    let file = frontend.file.try_clone().expect("dup");
    let added = (0..40)
        .take_while(|n| {
            let fd = std::os::fd::AsFd::as_fd(&file);
            matches!(frontend.ask(Req::ADD_MEM_REG, &region(*n), &[fd]), Ok(0))
        })
        .count();
    assert!((8..20).contains(&added), "{added} regions with 20 descriptors");
    wait_until("the end of a connection that sends too many", || !backend.peer().connected());
    // They are given back with the regions.
    let mut next = wait_for("a connection", || Some(Frontend::connect(&config.path)));
    next.negotiate(Features::empty());
    next.good(Req::ADD_MEM_REG, &region(0), &[std::os::fd::AsFd::as_fd(&file)]);
}
