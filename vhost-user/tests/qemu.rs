//! What QEMU does when a backend was restarted, or has a vhost device for each queue pair.

mod common;

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use common::{Bench, Frontend, GUEST, Guest, SIZE, USER, frame, memfd, receive};
use linecard_lab::{Log, wait_for, wait_until};
use linecard_virtio::Features;
use linecard_wire::payload::{MemoryRegion, Payload, SingleRegion};
use linecard_wire::{Connection, FrontendReq as Req};

const WARNING: &str = "this packed ring was used beyond the position that the frontend starts it at";

/// Exchanges `batch` frames at once, `rounds` times.
fn send(bench: &mut Bench, guest: &mut Guest, batch: usize, rounds: usize) {
    for _ in 0..rounds {
        (0..batch).for_each(|n| guest.send(&frame(n, 60)));
        guest.tx.publish();
        drop(receive(&mut bench.rx, batch));
        assert_eq!(guest.tx.take().len(), batch);
    }
}

/// A new backend serves rings in use, of which the frontend knows the start only, and no inflight region says
/// more.
fn restart(bench: &Bench, guest: &mut Guest) {
    let gone = UnixStream::pair().expect("a pair").0;
    guest.frontend.connection = Connection::new(gone).expect("a connection");
    bench.wait_gone();
    let stream = wait_for("a connection", || UnixStream::connect(&bench.path).ok());
    guest.frontend.connection = Connection::new(stream).expect("a connection");
    let features = guest.frontend.features;
    guest.frontend.negotiate(features);
    guest.frontend.share_memory();
    guest.frontend.start_ring(1, SIZE, 0x8000_8000);
}

/// A packed ring used in batches and in order does not tell how far it was used: the operator is told what to do. A ring
/// that tells goes on, without a warning.
#[test]
fn a_packed_ring_whose_position_is_lost_is_told() {
    let log = Log::of_this_process();
    for (features, lost) in
        [(Features::RING_PACKED, false), (Features::RING_PACKED | Features::IN_ORDER, true)]
    {
        let mut bench = Bench::new("lost");
        let mut guest = Guest::start(&bench.path, features);
        bench.wait_link(true);
        send(&mut bench, &mut guest, 5, 3);
        restart(&bench, &mut guest);
        if !lost {
            send(&mut bench, &mut guest, 5, 3);
            assert!(!log.text().contains(WARNING), "{}", log.text());
            continue;
        }
        wait_until("the warning", || log.text().contains(WARNING));
        let text = log.text();
        let line = text.lines().find(|line| line.contains(WARNING)).expect("it is there");
        for part in ["WARN", "ring=1", "reload it or restart the guest", "packed=off"] {
            assert!(line.contains(part), "no '{part}' in {line}");
        }
    }
}

/// The second vhost device removes what the first has removed already, and what never was.
#[test]
fn regions_that_are_gone_may_be_removed_again() {
    let bench = Bench::new("gone");
    let mut frontend = Frontend::connect(&bench.path);
    frontend.negotiate(Features::empty());
    let region = |n: u64| {
        let (guest_addr, user_addr) = (GUEST * 1000 + n * 4096, USER * 2 + n * 4096);
        SingleRegion(MemoryRegion { guest_addr, size: 4096, user_addr, offset: 0 }).to_bytes()
    };
    let file = memfd(4096);
    for n in [0, 1] {
        frontend.good(Req::ADD_MEM_REG, &region(n), &[file.as_fd()]);
    }
    for _device in 0..2 {
        frontend.good(Req::REM_MEM_REG, &region(1), &[file.as_fd()]);
    }
    frontend.good(Req::REM_MEM_REG, &region(2), &[]);
    // Nothing else was removed: region 0 is there, and another file at its place is refused.
    let other = memfd(4096);
    frontend.refused(Req::ADD_MEM_REG, &region(0), &[other.as_fd()]);
    frontend.good(Req::ADD_MEM_REG, &region(1), &[other.as_fd()]);
}
