//! Backends that end without a word: the ring and the inflight region say where the next one goes on.

mod common;

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::{Bench, Frontend, Guest, SIZE, frame, memfd, receive, socket_path};
use linecard_lab::{Prng, wait_for, wait_until};
use linecard_mempool::Burst;
use linecard_pmd::{RxQueue, TxQueue};
use linecard_vhost_user::{Backend, BackendConfig, Control, Mode};
use linecard_virtio::{Features, Layout};
use linecard_wire::payload::{Inflight, Payload};
use linecard_wire::{Connection, FrontendReq as Req, OutMessage};

const FRESH: u32 = 0x8000_8000;

const ASKED: Inflight = Inflight { mmap_size: 0, mmap_offset: 0, queues: 2, queue_size: SIZE };

/// Asks for a region.
fn get(frontend: &mut Frontend) -> (Inflight, File) {
    frontend.send(Req::GET_INFLIGHT_FD, &ASKED.to_bytes(), &[]);
    let until = Instant::now() + Duration::from_secs(60);
    let mut reply = frontend.connection.read_until(until).expect("a reply");
    let file = reply.fds.remove(0).as_fd().try_clone_to_owned().expect("dup");
    (Inflight::from_bytes(&reply.payload).expect("a description"), File::from(file))
}

fn set(frontend: &mut Frontend, (description, file): &(Inflight, File)) {
    frontend.good(Req::SET_INFLIGHT_FD, &description.to_bytes(), &[file.as_fd()]);
}

/// Polls until a packet comes, and sends it back.
fn echo(bench: &mut Bench, n: usize) {
    let mut packets = receive(&mut bench.rx, n);
    wait_until("sending", || {
        bench.tx.tx_burst(&mut packets);
        packets.is_empty()
    });
}

/// Frames `from..to` go there and come back.
fn drive(bench: &mut Bench, guest: &mut Guest, from: usize, to: usize) {
    for n in from..to {
        guest.send(&frame(n, 100 + n));
        guest.tx.publish();
        echo(bench, 1);
        let back = guest.received();
        assert_eq!(back.len(), 1, "frame {n}");
        assert_eq!(back[0].1[common::HEADER..], frame(n, 100 + n), "frame {n}");
        guest.post_receive(back[0].0 as usize, 1, 2048);
        guest.tx.take();
    }
}

/// The backend's end of the connection is gone, as after a kill; the guest has its rings, and its frontend knows no positions but
/// those that it began with.
fn reconnect(bench: &Bench, guest: &mut Guest, region: Option<&(Inflight, File)>) {
    let gone = UnixStream::pair().expect("a pair").0;
    guest.frontend.connection = Connection::new(gone).expect("a connection");
    bench.wait_gone();
    let stream = wait_for("connection", || UnixStream::connect(&bench.path).ok());
    guest.frontend.connection = Connection::new(stream).expect("a connection");
    let features = guest.frontend.features;
    guest.frontend.negotiate(features);
    guest.frontend.share_memory();
    if let Some(region) = region {
        set(&mut guest.frontend, region);
    }
    let base = if guest.frontend.layout() == Layout::Packed { FRESH } else { 0 };
    guest.frontend.start_ring(0, SIZE, base);
    guest.frontend.start_ring(1, SIZE, base);
    bench.wait_link(true);
}

const COMBINATIONS: [Features; 4] = [
    Features::empty(),
    Features::IN_ORDER,
    Features::RING_PACKED,
    Features::RING_PACKED.union(Features::IN_ORDER),
];

/// A process that was killed leaves what it kept when the rings began. After a batch that began in the last slot of a packed ring,
/// slot 0 looks as it did then; where the ring stands only the record says.
#[test]
fn after_a_kill_nothing_is_taken_twice() {
    for features in COMBINATIONS {
        let path = socket_path("killed");
        let config = BackendConfig::new("killed", &path, Mode::Listen);
        let config = config.hand_over(true).records(true);
        let mut bench = Bench::of(config.clone(), common::pool(1024, 0));
        let mut guest = Guest::start(&path, features);
        bench.wait_link(true);
        guest.post_receive(0, 200, 2048);
        let last = 2 * SIZE as usize - 1;
        drive(&mut bench, &mut guest, 0, last);
        (0..6).for_each(|k| guest.send(&frame(k, 60)));
        guest.tx.publish();
        assert_eq!(receive(&mut bench.rx, 6).len(), 6);
        assert_eq!(guest.tx.take().len(), 6);
        // What the rings' positions are by now is not told.
        let held = bench.backend.hold().expect("held");
        let new = Backend::prepare(&Control::new(), config, held).expect("prepared");
        bench.backend.freeze().expect("frozen");
        new.recover().expect("recovered");
        new.resume().expect("its");
        bench.backend.release().expect("the successor's");
        bench.go_on_with(new);
        assert_eq!(bench.rx.rx_burst(&mut Burst::new()), 0, "{features}");
        drive(&mut bench, &mut guest, last, last + 10);
        bench.assert_whole();
    }
}

#[test]
fn rings_go_on_where_the_last_backend_left_them() {
    for features in COMBINATIONS {
        for recorded in [true, false] {
            // Nothing in the ring tells how long a batch was.
            if !recorded && features.contains(Features::RING_PACKED | Features::IN_ORDER) {
                continue;
            }
            let mut bench = Bench::new("again");
            let mut frontend = Frontend::connect(&bench.path);
            frontend.negotiate(features);
            let region = get(&mut frontend);
            if recorded {
                set(&mut frontend, &region);
            }
            let mut guest = Guest::with_rings(frontend);
            bench.wait_link(true);
            guest.post_receive(0, 200, 2048);
            let mut at = 0;
            // Also over the end of the ring, and with frames that wait when the backend ends.
            for steps in [3, 100, 200, 1, 256, 77] {
                drive(&mut bench, &mut guest, at, at + steps);
                at += steps;
                (0..5).for_each(|k| guest.send(&frame(k, 60)));
                guest.tx.publish();
                reconnect(&bench, &mut guest, recorded.then_some(&region));
                let waited = receive(&mut bench.rx, 5);
                assert_eq!(waited.len(), 5, "{features} {at}");
                assert!(waited.iter().enumerate().all(|(k, packet)| packet.data() == frame(k, 60)));
                drop(waited);
                assert_eq!(guest.tx.take().len(), 5);
            }
            drive(&mut bench, &mut guest, at, at + 5);
            bench.assert_whole();
        }
    }
}

/// The same region, asked for again, is empty; its length is nobody's to change.
#[test]
fn a_region_is_made_and_cannot_be_cut() {
    for features in [Features::empty(), Features::RING_PACKED] {
        let bench = Bench::new("region");
        let mut frontend = Frontend::connect(&bench.path);
        frontend.negotiate(features);
        let (description, file) = get(&mut frontend);
        let (head, entry) = if features == Features::empty() { (16, 16) } else { (32, 32) };
        let one = (head + entry * u64::from(SIZE)).next_multiple_of(64);
        assert_eq!(description, Inflight { mmap_size: 2 * one, ..ASKED });
        assert_eq!(file.metadata().expect("a file").len(), 2 * one);
        assert!(file.set_len(0).is_err() && file.set_len(1 << 20).is_err());
        file.write_all_at(&[0xff; 100], 0).expect("ours to write");
        let (_, again) = get(&mut frontend);
        let mut bytes = [1; 100];
        again.read_exact_at(&mut bytes, 0).expect("readable");
        assert_eq!(bytes, [0; 100]);
        for wrong in [
            Inflight { queues: 0, ..ASKED },
            Inflight { queues: 3, ..ASKED },
            Inflight { queue_size: 0, ..ASKED },
            Inflight { queue_size: 32_769, ..ASKED },
            Inflight { mmap_size: one, ..ASKED },
            Inflight { mmap_size: u64::MAX, ..ASKED },
            Inflight { mmap_size: 2 * one, mmap_offset: 64, ..ASKED },
        ] {
            frontend.refused(Req::SET_INFLIGHT_FD, &wrong.to_bytes(), &[file.as_fd()]);
        }
        set(&mut frontend, &(description, file));
        // A region that cannot be made cannot be refused either.
        let payload = Inflight { queues: 3, ..ASKED }.to_bytes();
        frontend.connection.send(&OutMessage::request(Req::GET_INFLIGHT_FD, &payload)).expect("sent");
        assert!(frontend.is_dropped());
    }
}

/// A predecessor that takes what it likes: heads 1 and 2 were given back, 0 and 3 not.
#[test]
fn what_another_kind_of_backend_had_taken_is_given_back() {
    let mut bench = Bench::new("foreign");
    let mut frontend = Frontend::connect(&bench.path);
    frontend.negotiate(Features::empty());
    let region = get(&mut frontend);
    let mut guest = Guest::with_rings(frontend);
    bench.wait_link(true);
    // Not polled: the backend takes nothing. It is the test that plays the predecessor.
    (0..6).for_each(|n| guest.send(&frame(n, 60)));
    guest.tx.publish();
    let used = guest.frontend.ring_memory(1, SIZE).device;
    let element = |k: usize, id: u32| {
        used.slice(4 + 8 * k, 4).expect("inside").copy_from(&id.to_ne_bytes());
    };
    element(0, 1);
    element(1, 2);
    used.slice(2, 2).expect("inside").copy_from(&2_u16.to_ne_bytes());
    let stride = region.0.mmap_size / 2;
    let write = |at: u64, bytes: &[u8]| region.1.write_all_at(bytes, stride + at).expect("written");
    write(8, &1_u16.to_ne_bytes());
    write(10, &SIZE.to_ne_bytes());
    // One of those given back was not noted: it is the last batch.
    write(12, &2_u16.to_ne_bytes());
    write(14, &1_u16.to_ne_bytes());
    for (head, counter) in [(0_u64, 7_u64), (3, 5), (2, 6)] {
        write(16 + 16 * head, &[1]);
        write(16 + 16 * head + 8, &counter.to_ne_bytes());
    }
    reconnect(&bench, &mut guest, Some(&region));
    let tokens: Vec<_> = guest.tx.take().iter().map(|done| done.token).collect();
    assert_eq!(tokens, [1, 2, 3, 0], "in the order in which they were taken");
    let rest = receive(&mut bench.rx, 2);
    assert!(rest.iter().zip([4, 5]).all(|(packet, n)| packet.data() == frame(n, 60)));
    drop(rest);
    assert_eq!(guest.tx.take().len(), 2);
    // And only once.
    reconnect(&bench, &mut guest, Some(&region));
    let mut none = Burst::new();
    bench.rx.rx_burst(&mut none);
    assert!(none.is_empty() && guest.tx.take().is_empty());
    guest.post_receive(0, 10, 2048);
    drive(&mut bench, &mut guest, 0, 20);
}

/// Whatever is in a region, nothing but its own port can be harmed.
#[test]
fn a_region_of_nonsense_harms_nobody() {
    let mut random = Prng::new(1);
    for round in 0..60 {
        let features = COMBINATIONS[round % COMBINATIONS.len()];
        let mut bench = Bench::new("nonsense");
        let mut frontend = Frontend::connect(&bench.path);
        frontend.negotiate(features);
        let region = get(&mut frontend);
        let bytes: Vec<u8> = (0..region.0.mmap_size / 8)
            .flat_map(|_| {
                if round < 30 {
                    random.roll().to_ne_bytes()
                } else {
                    (random.roll() & 0x0103_0101_0301_0101).to_ne_bytes()
                }
            })
            .collect();
        region.1.write_all_at(&bytes, 0).expect("written");
        for queue in 0..2 {
            let head = queue * region.0.mmap_size / 2;
            region.1.write_all_at(&1_u16.to_ne_bytes(), head + 8).expect("written");
            region.1.write_all_at(&SIZE.to_ne_bytes(), head + 10).expect("written");
        }
        set(&mut frontend, &region);
        let mut guest = Guest::with_rings(frontend);
        (0..20).for_each(|n| guest.send(&frame(n, 60)));
        guest.tx.publish();
        let mut packets = Burst::new();
        for _ in 0..5 {
            bench.rx.rx_burst(&mut packets);
            bench.tx.tx_burst(&mut packets);
        }
        packets.clear();
        drop(guest);
        bench.wait_gone();
        bench.assert_whole();
    }
}

/// A frontend may say of a packed ring that more was taken than was given back: that is taken again.
#[test]
fn a_packed_ring_begins_behind_what_was_given_back() {
    let mut bench = Bench::new("apart");
    let mut frontend = Frontend::connect(&bench.path);
    frontend.negotiate(Features::RING_PACKED);
    let mut guest = Guest::with_rings(frontend);
    bench.wait_link(true);
    (0..4).for_each(|n| guest.send(&frame(n, 60)));
    guest.tx.publish();
    drop(receive(&mut bench.rx, 1));
    let stood = guest.frontend.stop_ring(1);
    assert_eq!(stood, 0x8004_8004, "a burst takes them all");
    (4..7).for_each(|n| guest.send(&frame(n, 60)));
    guest.tx.publish();
    // As if a device had taken two of the three and given none back.
    guest.frontend.start_ring(1, SIZE, 0x8004_8006);
    let packets = receive(&mut bench.rx, 3);
    assert!(packets.iter().zip(4..7).all(|(packet, n)| packet.data() == frame(n, 60)));
    assert_eq!(guest.tx.take().len(), 7);
}

#[test]
fn a_region_that_vanishes_costs_its_own_port() {
    let mut bench = Bench::new("goneregion");
    let mut frontend = Frontend::connect(&bench.path);
    frontend.negotiate(Features::RING_PACKED);
    let (description, _) = get(&mut frontend);
    let file = memfd(description.mmap_size);
    set(&mut frontend, &(description, file.try_clone().expect("dup")));
    let mut guest = Guest::with_rings(frontend);
    bench.wait_link(true);
    file.set_len(0).expect("shorter");
    guest.send(&frame(0, 60));
    guest.tx.publish();
    let mut packets = Burst::new();
    wait_until("the end of the port", || {
        bench.rx.rx_burst(&mut packets);
        !bench.backend.peer().connected()
    });
    packets.clear();
    bench.assert_whole();
}
