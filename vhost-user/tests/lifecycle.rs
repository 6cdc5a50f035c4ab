//! Peers that come, go, die, stall, and come again.

mod common;

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use common::{Bench, Frontend, Guest, frame, receive, socket_path};
use linecard_lab::{wait_for, wait_until};
use linecard_mempool::Burst;
use linecard_pmd::{RxQueue, TxQueue};
use linecard_vhost_user::{Backend, BackendConfig, Control, Error, Mode, SocketError};
use linecard_virtio::Features;
use linecard_wire::FrontendReq as Req;
use linecard_wire::payload::{Payload, VringState};

fn round_trip(bench: &mut Bench, guest: &mut Guest, rounds: usize) {
    for n in 0..rounds {
        guest.send(&frame(n, 200));
        guest.tx.publish();
        guest.post_receive(n % 64, 1, 2048);
        let mut packets = receive(&mut bench.rx, 1);
        assert_eq!(packets[0].data(), frame(n, 200));
        // A queue that was just taken may still be without its ring.
        wait_until("sending", || bench.tx.tx_burst(&mut packets) == 1);
        assert_eq!(guest.received().len(), 1);
        guest.tx.take();
    }
}

#[test]
fn fifty_frontends_one_after_the_other_find_a_working_port() {
    let mut bench = Bench::new("reconnect");
    for n in 0..50 {
        let features =
            if n % 2 == 0 { Features::empty() } else { Features::RING_PACKED | Features::IN_ORDER };
        let mut guest = Guest::start(&bench.path, features);
        bench.wait_link(true);
        round_trip(&mut bench, &mut guest, 3);
        // Leaves in the middle of a burst: packets on their way, buffers posted.
        (0..10).for_each(|n| guest.send(&frame(n, 60)));
        guest.tx.publish();
        guest.post_receive(0, 5, 2048);
        let mut packets = Burst::new();
        bench.rx.rx_burst(&mut packets);
        drop(guest);
        // The next one is let in at once, with no pause here.
    }
    bench.wait_gone();
    assert!(!bench.backend.peer().link_up());
    bench.assert_whole();
    let counters = bench.backend.peer().counters();
    assert_eq!(counters[0], ("connects", 50));
    assert_eq!(counters[1], ("disconnects", 50));
}

#[test]
fn a_connection_cut_anywhere_in_its_handshake_leaves_nothing_behind() {
    let mut bench = Bench::new("cut");
    let steps: [fn(&mut Frontend); 5] = [
        |f| f.send(Req::SET_OWNER, &[], &[]),
        |f| f.negotiate(Features::NET_MRG_RXBUF),
        |f| f.share_memory(),
        |f| f.describe_ring(0, 256, 0),
        |f| f.start_ring(1, 256, 0),
    ];
    for last in 0..=steps.len() {
        for cut in [0usize, 1, 12, 15] {
            let mut frontend = Frontend::connect(&bench.path);
            for step in steps.iter().take(last) {
                step(&mut frontend);
            }
            let message = [[18u32, 1, 8].map(u32::to_ne_bytes).concat(), vec![0; 8]].concat();
            frontend.connection.socket().write_all(&message[..cut]).expect("write");
            drop(frontend);
            bench.wait_gone();
        }
    }
    let mut guest = Guest::start(&bench.path, Features::empty());
    bench.wait_link(true);
    round_trip(&mut bench, &mut guest, 3);
    drop(guest);
    bench.wait_gone();
    bench.assert_whole();
}

#[test]
fn frontends_that_hang_up_at_once_do_not_stand_in_the_way_of_the_next() {
    let mut bench = Bench::new("hangup");
    for _ in 0..100 {
        for _ in 0..5 {
            drop(UnixStream::connect(&bench.path).expect("connect"));
        }
        let mut frontend = Frontend::connect(&bench.path);
        frontend.number(Req::GET_FEATURES);
    }
    let mut guest = Guest::start(&bench.path, Features::empty());
    bench.wait_link(true);
    round_trip(&mut bench, &mut guest, 2);
}

#[test]
fn a_second_frontend_is_turned_away_and_the_first_goes_on() {
    let mut bench = Bench::new("second");
    let mut guest = Guest::start(&bench.path, Features::empty());
    bench.wait_link(true);
    for _ in 0..20 {
        let mut second = Frontend::connect(&bench.path);
        assert!(second.is_dropped());
    }
    round_trip(&mut bench, &mut guest, 3);
}

#[test]
fn a_peer_that_never_reads_its_answers_is_dropped() {
    let bench = Bench::new("deaf");
    let mut stream = UnixStream::connect(&bench.path).expect("connect");
    stream.set_write_timeout(Some(Duration::from_secs(60))).expect("timeout");
    let ask = [1u32, 1, 0].map(u32::to_ne_bytes).concat().repeat(512);
    let mut gone = false;
    for _ in 0..200 {
        if stream.write_all(&ask).is_err() {
            gone = true;
            break;
        }
    }
    assert!(gone);
    bench.wait_gone();
}

#[test]
fn as_a_client_it_connects_when_somebody_listens_and_again_after_they_go() {
    let mut bench = Bench::with("client", Mode::Connect);
    for n in 0..5 {
        let listener = UnixListener::bind(&bench.path).expect("bind");
        listener.set_nonblocking(true).expect("possible");
        let (stream, _) = wait_for("a connection", || listener.accept().ok());
        let mut guest = Guest::over(Frontend::over(stream), Features::NET_MRG_RXBUF);
        bench.wait_link(true);
        round_trip(&mut bench, &mut guest, 2 + n);
        drop((guest, listener));
        std::fs::remove_file(&bench.path).expect("remove");
        bench.wait_gone();
    }
    bench.assert_whole();
}

#[test]
fn a_ring_that_is_stopped_goes_on_where_it_stood() {
    for features in [Features::empty(), Features::IN_ORDER, Features::RING_PACKED] {
        let mut bench = Bench::new("stopgo");
        let mut guest = Guest::start(&bench.path, features);
        bench.wait_link(true);
        for _ in 0..5 {
            round_trip(&mut bench, &mut guest, 100);
            let bases = [guest.frontend.stop_ring(0), guest.frontend.stop_ring(1)];
            bench.wait_link(false);
            assert_eq!(guest.frontend.stop_ring(0), bases[0], "stopping twice says the same");
            guest.send(&frame(1, 60));
            guest.tx.publish();
            let mut packets = Burst::new();
            assert_eq!(bench.rx.rx_burst(&mut packets), 0, "a stopped ring is not touched");
            guest.frontend.start_ring(0, common::SIZE, bases[0]);
            guest.frontend.start_ring(1, common::SIZE, bases[1]);
            bench.wait_link(true);
            assert_eq!(receive(&mut bench.rx, 1)[0].data(), frame(1, 60));
            guest.tx.take();
        }
        drop(guest);
        bench.wait_gone();
        bench.assert_whole();
    }
}

#[test]
fn a_disabled_ring_takes_packets_and_drops_them() {
    let mut bench = Bench::new("disabled");
    let mut guest = Guest::start(&bench.path, Features::empty());
    bench.wait_link(true);
    guest.frontend.enable(0, false);
    guest.frontend.enable(1, false);
    assert!(!bench.backend.peer().link_up());
    (0..7).for_each(|n| guest.send(&frame(n, 60)));
    guest.tx.publish();
    guest.post_receive(0, 4, 2048);
    let mut packets = Burst::new();
    assert_eq!(bench.rx.rx_burst(&mut packets), 0);
    assert_eq!(guest.tx.take().len(), 7);
    assert_eq!(bench.rx_stats.totals().lost(linecard_vhost_user::RxLoss::Disabled), 7);
    bench.pool.get_bulk(&mut packets, 1).unwrap();
    packets[0].append(60).expect("room").fill(1);
    assert_eq!(bench.tx.tx_burst(&mut packets), 0);
    guest.frontend.enable(0, true);
    guest.frontend.enable(1, true);
    assert_eq!(bench.tx.tx_burst(&mut packets), 1);
    assert_eq!(guest.received().len(), 1);
    round_trip(&mut bench, &mut guest, 2);
}

#[test]
fn status_gates_the_rings_once_it_is_used() {
    let mut bench = Bench::new("status");
    let mut frontend = Frontend::connect(&bench.path);
    frontend.negotiate(Features::empty());
    let all = frontend.number(Req::GET_PROTOCOL_FEATURES);
    frontend.good(Req::SET_PROTOCOL_FEATURES, &all.to_bytes(), &[]);
    frontend.good(Req::SET_STATUS, &11u64.to_bytes(), &[]);
    let mut guest = Guest::over(frontend, Features::empty());
    let all = guest.frontend.number(Req::GET_PROTOCOL_FEATURES);
    guest.frontend.good(Req::SET_PROTOCOL_FEATURES, &all.to_bytes(), &[]);
    assert_eq!(guest.frontend.number(Req::GET_STATUS), 11);
    assert!(!bench.backend.peer().link_up());
    guest.send(&frame(1, 60));
    guest.tx.publish();
    let mut packets = Burst::new();
    assert_eq!(bench.rx.rx_burst(&mut packets), 0);
    guest.frontend.good(Req::SET_STATUS, &15u64.to_bytes(), &[]);
    assert_eq!(receive(&mut bench.rx, 1).len(), 1);
    assert!(bench.backend.peer().link_up());
    guest.frontend.refused(Req::SET_STATUS, &256u64.to_bytes(), &[]);
    guest.frontend.good(Req::SET_STATUS, &0u64.to_bytes(), &[]);
    assert!(!bench.backend.peer().link_up());
}

#[test]
fn an_announcement_arrives_as_a_frame() {
    let mut bench = Bench::new("rarp");
    let mut guest = Guest::start(&bench.path, Features::empty());
    bench.wait_link(true);
    let mac = u64::from_ne_bytes([2, 1, 2, 3, 4, 5, 0, 0]);
    guest.frontend.good(Req::SEND_RARP, &mac.to_bytes(), &[]);
    let packets = receive(&mut bench.rx, 1);
    let bytes = packets[0].data();
    assert_eq!((bytes.len(), &bytes[..6], &bytes[6..12]), (60, &[0xff; 6][..], &[2, 1, 2, 3, 4, 5][..]));
    assert_eq!(bytes[12..22], [0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
}

#[test]
fn queues_taken_anew_inherit_the_running_rings() {
    let mut bench = Bench::new("anew");
    let mut guest = Guest::start(&bench.path, Features::RING_PACKED);
    bench.wait_link(true);
    for _ in 0..10 {
        round_trip(&mut bench, &mut guest, 30);
        // The old queues stay alive, as if their thread had not noticed.
        let old_rx = bench.backend.receive_queue(0, &bench.pool, bench.rx_stats.clone()).expect("rx");
        let old_tx = bench.backend.transmit_queue(0, bench.tx_stats.clone()).expect("tx");
        let (mut old_rx, mut old_tx) =
            (std::mem::replace(&mut bench.rx, old_rx), std::mem::replace(&mut bench.tx, old_tx));
        round_trip(&mut bench, &mut guest, 3);
        guest.send(&frame(1, 60));
        guest.tx.publish();
        let mut packets = Burst::new();
        assert_eq!(old_rx.rx_burst(&mut packets), 0, "an old queue finds nothing");
        assert_eq!(old_tx.tx_burst(&mut packets), 0);
        assert_eq!(receive(&mut bench.rx, 1).len(), 1);
        guest.tx.take();
    }
}

#[test]
fn a_frontend_may_leave_while_its_queues_are_polled_hard() {
    let mut bench = Bench::new("hard");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (path, peer) = (bench.path.clone(), std::sync::Arc::clone(bench.backend.peer()));
    let (rx, tx) = (&mut bench.rx, &mut bench.tx);
    std::thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(move || {
            let mut packets = Burst::new();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                rx.rx_burst(&mut packets);
                tx.tx_burst(&mut packets);
                packets.clear();
                std::thread::yield_now();
            }
        });
        for n in 0..30 {
            let features = if n % 2 == 0 { Features::NET_MRG_RXBUF } else { Features::RING_PACKED };
            let mut guest = Guest::start(&path, features);
            guest.post_receive(0, 64, 2048);
            for k in 0..50 {
                guest.send(&frame(k, 100));
                guest.tx.publish();
                if k % 10 == 0 {
                    let mode = VringState { index: 1, num: u32::from(k % 20 == 0) };
                    guest.frontend.good(Req::SET_VRING_ENABLE, &mode.to_bytes(), &[]);
                    guest.frontend.share_memory();
                }
            }
            drop(guest);
            wait_until("disconnect", || !peer.connected());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    bench.assert_whole();
    assert_eq!(bench.backend.peer().counters()[3], ("ring_faults", 0));
}

#[test]
fn sockets_are_private_stale_ones_replaced_live_ones_respected() {
    use std::os::unix::fs::PermissionsExt;
    let control = Control::new();
    let open = |path: &std::path::Path| Backend::new(&control, BackendConfig::new("s", path, Mode::Listen));
    let path = socket_path("socket");
    let backend = open(&path).expect("backend");
    assert_eq!(std::fs::metadata(&path).expect("socket").permissions().mode() & 0o777, 0o600);
    let refused = |path: &std::path::Path| match open(path) {
        Err(Error::Socket(socket)) => socket,
        other => panic!("{other:?}"),
    };
    assert!(matches!(refused(&path).reason, SocketError::InUse));
    drop(backend);
    assert!(!path.exists());
    // Left behind by a process that was killed.
    drop(UnixListener::bind(&path).expect("bind"));
    assert!(path.exists());
    let backend = open(&path).expect("replaces it");
    // A successor's socket is not removed with ours.
    std::fs::remove_file(&path).expect("remove");
    let successor = UnixListener::bind(&path).expect("bind");
    drop(backend);
    assert!(path.exists());
    drop(successor);
    std::fs::remove_file(&path).expect("remove");
    std::fs::write(&path, "precious").expect("write");
    assert!(matches!(refused(&path).reason, SocketError::NotASocket { what: "a file" }));
    assert_eq!(std::fs::read_to_string(&path).expect("still there"), "precious");
    std::fs::remove_file(&path).expect("remove");
    assert_eq!(refused(&path.join("x")).remedy(), "create it, or choose another");
    let long = std::env::temp_dir().join("x".repeat(120));
    assert!(matches!(refused(&long).reason, SocketError::PathLength { max: 107, .. }));
    assert!(matches!(refused(std::path::Path::new("")).reason, SocketError::PathLength { .. }));
    for pairs in [0, 129, u16::MAX] {
        let config = BackendConfig::new("s", &path, Mode::Listen).queue_pairs(pairs);
        assert!(matches!(Backend::new(&control, config), Err(Error::QueuePairs { .. })));
    }
}

/// Cloud Hypervisor only disables the rings of a guest that starts anew, and then describes them again.
#[test]
fn a_disabled_ring_may_be_described_anew() {
    let mut bench = Bench::new("anew");
    let mut guest = Guest::start(&bench.path, Features::empty());
    bench.wait_link(true);
    for features in [Features::NET_MRG_RXBUF, Features::RING_PACKED, Features::empty()] {
        round_trip(&mut bench, &mut guest, 30);
        let wanted = (features | Features::VERSION_1 | Features::PROTOCOL_FEATURES).bits().to_bytes();
        guest.frontend.refused(Req::SET_FEATURES, &wanted, &[]);
        guest.frontend.enable(0, false);
        guest.frontend.refused(Req::SET_FEATURES, &wanted, &[]);
        guest.frontend.enable(1, false);
        assert!(!bench.backend.peer().link_up());

        // The guest's memory begins anew, then its rings are told of as if they were the first.
        let mut frontend = guest.frontend;
        frontend.bytes(0, common::RING_AREA).fill(0);
        frontend.good(Req::SET_FEATURES, &wanted, &[]);
        frontend.features = Features::from_bits_retain(u64::from_bytes(&wanted).expect("features"));
        guest = Guest::with_rings(frontend);
        bench.wait_link(true);
    }
    round_trip(&mut bench, &mut guest, 30);
    assert_eq!(bench.backend.peer().counters()[3], ("ring_faults", 0));
}
