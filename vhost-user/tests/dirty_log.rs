//! The dirty log: what the backend writes while packets pass is marked, and nothing else; it goes on and off under traffic.

mod common;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use common::{Bench, Frontend, GUEST, Guest, MEMORY, SIZE, await_count, frame, memfd, receive, take_count};
use linecard_lab::wait_until;
use linecard_mempool::Burst;
use linecard_pmd::{RxQueue, TxQueue};
use linecard_vhost_user::{Backend, BackendConfig, Control, Mode};
use linecard_virtio::{Features, Layout};
use linecard_wire::payload::{Log, Payload, VringAddr, VringState};
use linecard_wire::{Error, FrontendReq as Req, OutMessage};

const PAGE: u64 = 4096;
/// Bytes of a log for the guest's memory, and some that nobody needs.
const LOG: u64 = 4096;
/// Where the log says that each ring is: pages that the guest's memory does not have.
const RING_PAGES: [u64; 2] = [1, 3];

/// Sends `SET_LOG_BASE`; the payload of its answer.
fn set_log(frontend: &mut Frontend, file: &File, log: Log) -> Result<Vec<u8>, Error> {
    let (payload, fds) = (log.to_bytes(), [file.as_fd()]);
    frontend.connection.send(&OutMessage::request(Req::SET_LOG_BASE, &payload).with_fds(&fds))?;
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let reply = frontend.connection.read_until(until)?;
    assert_eq!(reply.request, Req::SET_LOG_BASE as u32);
    Ok(reply.payload)
}

fn logged_addr(frontend: &Frontend, index: usize) -> VringAddr {
    VringAddr { flags: 1, log: RING_PAGES[index] * PAGE, ..frontend.vring_addr(index, SIZE) }
}

/// As QEMU begins: the log, the feature, the addresses.
fn begin(frontend: &mut Frontend, file: &File) {
    let log = Log { size: LOG, offset: 0 };
    assert_eq!(set_log(frontend, file, log).expect("an answer"), log.to_bytes());
    let logging = frontend.features | Features::LOG_ALL;
    frontend.good(Req::SET_FEATURES, &logging.bits().to_bytes(), &[]);
    for index in 0..2 {
        let addr = logged_addr(frontend, index);
        frontend.good(Req::SET_VRING_ADDR, &addr.to_bytes(), &[]);
    }
}

fn end(frontend: &mut Frontend) {
    frontend.good(Req::SET_FEATURES, &frontend.features.bits().to_bytes(), &[]);
    for index in 0..2 {
        let addr = frontend.vring_addr(index, SIZE);
        frontend.good(Req::SET_VRING_ADDR, &addr.to_bytes(), &[]);
    }
}

/// The pages that are marked, and marks no more.
fn take_pages(file: &File) -> BTreeSet<u64> {
    let mut bytes = vec![0; LOG as usize];
    file.read_exact_at(&mut bytes, 0).expect("the log");
    file.write_all_at(&vec![0; LOG as usize], 0).expect("the log");
    let bits = |at: u64| (0..8).map(move |bit| at * 8 + bit);
    let set = |page: &u64| bytes[(page / 8) as usize] & 1 << (page % 8) != 0;
    (0..LOG).flat_map(bits).filter(set).collect()
}

/// The page of receive buffer `n`.
fn buffer_page(n: usize) -> u64 {
    Frontend::buffer(0, n).0 / PAGE
}

/// What of ring `index` is marked when the backend has used something of it.
fn ring_pages(frontend: &Frontend, index: usize) -> BTreeSet<u64> {
    let descs = (GUEST + Frontend::ring_offset(index) as u64) / PAGE;
    let packed = frontend.layout() == Layout::Packed;
    [RING_PAGES[index]].into_iter().chain(packed.then_some(descs)).collect()
}

fn send(bench: &mut Bench, lens: &[usize]) {
    let mut packets = Burst::new();
    bench.pool.get_bulk(&mut packets, lens.len()).unwrap();
    for (packet, len) in packets.iter_mut().zip(lens) {
        let mut left = *len;
        while left > 0 {
            let mut part = bench.pool.get().expect("a packet");
            let now = left.min(2000);
            if left == *len {
                packet.append(now).expect("room").fill(7);
            } else {
                part.append(now).expect("room").fill(7);
                packet.chain(part).expect("a longer packet");
            }
            left -= now;
        }
    }
    let mut sent = 0;
    wait_until("sending", || {
        sent += bench.tx.tx_burst(&mut packets);
        sent == lens.len()
    });
}

#[test]
fn what_is_written_while_packets_pass_is_marked_and_nothing_else() {
    for features in [
        Features::NET_MRG_RXBUF,
        Features::NET_MRG_RXBUF | Features::IN_ORDER | Features::EVENT_IDX,
        Features::NET_MRG_RXBUF | Features::RING_PACKED,
        Features::NET_MRG_RXBUF | Features::RING_PACKED | Features::IN_ORDER,
    ] {
        let mut bench = Bench::new("log");
        let mut guest = Guest::start(&bench.path, features);
        bench.wait_link(true);
        let log = memfd(LOG);
        guest.post_receive(0, 100, 2048);
        send(&mut bench, &[100; 3]);
        assert_eq!(take_pages(&log), BTreeSet::new());

        begin(&mut guest.frontend, &log);
        take_pages(&log);
        let (rx, tx) = (ring_pages(&guest.frontend, 0), ring_pages(&guest.frontend, 1));
        // Three plain ones; one that takes three buffers.
        send(&mut bench, &[60, 500, 1500]);
        let buffers: BTreeSet<_> = (3..6).map(buffer_page).collect();
        assert_eq!(take_pages(&log), buffers.union(&rx).copied().collect(), "{features}");
        send(&mut bench, &[5000]);
        let buffers: BTreeSet<_> = (6..9).map(buffer_page).collect();
        assert_eq!(take_pages(&log), buffers.union(&rx).copied().collect(), "{features}");
        // The same for what another ring's buffers are copied to.
        let mut source = Bench::new("logsource");
        let mut sender = Guest::start(&source.path, Features::empty());
        source.wait_link(true);
        (0..3).for_each(|n| sender.send(&frame(n, 1000)));
        sender.tx.publish();
        source.rx.rx_direct(&mut Burst::new(), &mut |frames| {
            assert_eq!(bench.tx.tx_direct(frames), Some(3));
            linecard_pmd::direct::all(3)
        });
        let buffers: BTreeSet<_> = (9..12).map(buffer_page).collect();
        assert_eq!(take_pages(&log), buffers.union(&rx).copied().collect(), "{features}");
        // What the guest sends is read, whoever gets it.
        guest.send(&frame(0, 1000));
        guest.tx.publish();
        bench.rx.rx_direct(&mut Burst::new(), &mut |frames| linecard_pmd::direct::all(frames.len()));
        assert_eq!(take_pages(&log), tx, "{features}");
        for n in 0..3 {
            guest.send(&frame(n, 100));
        }
        guest.tx.publish();
        assert_eq!(receive(&mut bench.rx, 3).len(), 3);
        assert_eq!(take_pages(&log), tx, "{features}");

        end(&mut guest.frontend);
        take_pages(&log);
        send(&mut bench, &[60, 5000]);
        guest.send(&frame(3, 100));
        guest.tx.publish();
        assert_eq!(receive(&mut bench.rx, 1)[0].data(), frame(3, 100));
        assert_eq!(take_pages(&log), BTreeSet::new(), "{features}");
        assert_eq!(guest.received().len(), 3 + 3 + 3 + 3 + 1 + 3, "no buffer was lost on the way");
        bench.assert_whole();
    }
}

#[test]
fn buffers_and_rings_are_marked_each_if_asked_for() {
    let mut bench = Bench::new("halves");
    let mut guest = Guest::start(&bench.path, Features::empty());
    bench.wait_link(true);
    let log = memfd(LOG);
    guest.post_receive(0, 100, 2048);
    set_log(&mut guest.frontend, &log, Log { size: LOG, offset: 0 }).expect("an answer");
    let addr = logged_addr(&guest.frontend, 0).to_bytes();
    guest.frontend.good(Req::SET_VRING_ADDR, &addr, &[]);
    take_pages(&log);
    send(&mut bench, &[100]);
    assert_eq!(take_pages(&log), [RING_PAGES[0]].into());
    let logging = guest.frontend.features | Features::LOG_ALL;
    guest.frontend.good(Req::SET_FEATURES, &logging.bits().to_bytes(), &[]);
    let addr = guest.frontend.vring_addr(0, SIZE).to_bytes();
    guest.frontend.good(Req::SET_VRING_ADDR, &addr, &[]);
    take_pages(&log);
    send(&mut bench, &[100]);
    assert_eq!(take_pages(&log), [buffer_page(1)].into());
}

#[test]
fn the_log_tells_of_news_by_its_eventfd() {
    let mut bench = Bench::new("logfd");
    let mut guest = Guest::start(&bench.path, Features::empty());
    bench.wait_link(true);
    let (log, event) = (memfd(LOG), common::eventfd());
    guest.post_receive(0, 100, 2048);
    begin(&mut guest.frontend, &log);
    let copy = event.try_clone().expect("dup");
    guest.frontend.good(Req::SET_LOG_FD, &[], &[copy.as_fd()]);
    guest.frontend.refused(Req::SET_LOG_FD, &[], &[log.as_fd()]);
    take_pages(&log);
    take_count(&event);
    send(&mut bench, &[100]);
    assert_eq!(await_count(&event), 1);
    // It is marked already: all but the next buffer.
    send(&mut bench, &[100]);
    assert_eq!(await_count(&event), 1);
    end(&mut guest.frontend);
    take_count(&event);
    send(&mut bench, &[100]);
    assert_eq!(take_count(&event), 0);
}

/// Ends of the log and of its file are where the frontend says, and no further.
#[test]
fn a_log_that_does_not_fit_is_refused() {
    let need = (GUEST + MEMORY as u64) / PAGE / 8;
    let file = memfd(LOG);
    let refused = |log: Log| {
        let bench = Bench::new("badlog");
        let mut guest = Guest::start(&bench.path, Features::empty());
        bench.wait_link(true);
        // There is no way to say no but this one.
        assert!(set_log(&mut guest.frontend, &file, log).is_err(), "{log:?}");
        bench.wait_gone();
        bench.assert_whole();
    };
    refused(Log { size: need - 1, offset: 0 });
    refused(Log { size: 0, offset: 0 });
    refused(Log { size: LOG, offset: 1 });
    refused(Log { size: u64::MAX, offset: 0 });
    refused(Log { size: LOG, offset: u64::MAX });

    let mut bench = Bench::new("badlog");
    let mut guest = Guest::start(&bench.path, Features::empty());
    bench.wait_link(true);
    guest.post_receive(0, 10, 2048);
    set_log(&mut guest.frontend, &file, Log { size: need, offset: LOG - need }).expect("just large enough");
    // A ring whose log is beyond.
    for log in [GUEST + MEMORY as u64, u64::MAX] {
        let addr = VringAddr { flags: 1, log, ..guest.frontend.vring_addr(0, SIZE) };
        guest.frontend.refused(Req::SET_VRING_ADDR, &addr.to_bytes(), &[]);
    }
    let logging = guest.frontend.features | Features::LOG_ALL;
    guest.frontend.good(Req::SET_FEATURES, &logging.bits().to_bytes(), &[]);
    send(&mut bench, &[100]);
    let mut bytes = vec![0; LOG as usize];
    file.read_exact_at(&mut bytes, 0).expect("the log");
    let at = (LOG - need) as usize + (buffer_page(0) / 8) as usize;
    let want: Vec<u8> =
        (0..LOG as usize).map(|n| if n == at { 1 << (buffer_page(0) % 8) } else { 0 }).collect();
    assert_eq!(bytes, want);
}

/// The frontend takes the log's memory away: it loses its port, as with any other memory.
#[test]
fn a_log_that_vanishes_costs_its_own_port() {
    let mut bench = Bench::new("gonelog");
    let mut guest = Guest::start(&bench.path, Features::empty());
    bench.wait_link(true);
    let log = memfd(LOG);
    guest.post_receive(0, 10, 2048);
    begin(&mut guest.frontend, &log);
    log.set_len(0).expect("shorter");
    let mut packets = Burst::new();
    bench.pool.get_bulk(&mut packets, 1).unwrap();
    packets.iter_mut().for_each(|packet| packet.append(100).expect("room").fill(1));
    bench.tx.tx_burst(&mut packets);
    wait_until("the end of the port", || {
        bench.tx.tx_burst(&mut packets);
        bench.rx.rx_burst(&mut Burst::new());
        !bench.backend.peer().connected()
    });
    packets.clear();
    bench.assert_whole();
}

#[test]
fn a_port_is_handed_over_in_the_middle_of_a_migration() {
    let config =
        BackendConfig::new("loghands", common::socket_path("loghands"), Mode::Listen).hand_over(true);
    let mut bench = Bench::of(config.clone(), common::pool(1024, 0));
    let mut guest = Guest::start(&bench.path, Features::RING_PACKED);
    bench.wait_link(true);
    let (log, event) = (memfd(LOG), common::eventfd());
    guest.post_receive(0, 100, 2048);
    begin(&mut guest.frontend, &log);
    let copy = event.try_clone().expect("dup");
    guest.frontend.good(Req::SET_LOG_FD, &[], &[copy.as_fd()]);
    send(&mut bench, &[100]);
    assert_eq!(await_count(&event), 1);
    let handed = bench.backend.hand_over().expect("handed over");
    let control = Control::new();
    bench.go_on_with(Backend::take_over(&control, config, handed).expect("taken over"));
    take_pages(&log);
    send(&mut bench, &[100]);
    let want: BTreeSet<_> = ring_pages(&guest.frontend, 0).into_iter().chain([buffer_page(1)]).collect();
    assert_eq!(take_pages(&log), want);
    assert_eq!(await_count(&event), 1);
}

/// The areas of a ring move under traffic: it goes on at its indices, in the new place.
#[test]
fn a_running_ring_moves_with_its_indices() {
    for features in [Features::empty(), Features::RING_PACKED] {
        let mut bench = Bench::new("moves");
        let mut guest = Guest::start(&bench.path, features);
        bench.wait_link(true);
        guest.post_receive(0, 20, 2048);
        send(&mut bench, &[100; 3]);
        // The device area moves to where there is nothing yet but what the driver wrote.
        let addr = guest.frontend.vring_addr(0, SIZE);
        let [_, _, len] = guest.frontend.layout().areas(SIZE);
        let (from, to) = ((addr.used - common::USER) as usize, common::RING_AREA - 8192);
        let mut bytes = vec![0; len];
        guest.frontend.bytes(from, len).copy_to(&mut bytes);
        // An index that the device never wrote there: what it knows itself counts.
        guest.frontend.bytes(to, len).copy_from(&vec![0; len]);
        let moved = VringAddr { used: common::USER + to as u64, ..addr };
        guest.frontend.good(Req::SET_VRING_ADDR, &moved.to_bytes(), &[]);
        send(&mut bench, &[100; 2]);
        let state = VringState { index: 0, num: 0 }.to_bytes();
        let reply = guest.frontend.get(Req::GET_VRING_BASE, &state);
        let stands = VringState::from_bytes(&reply).expect("a state").num;
        let want = if features == Features::empty() { 5 } else { 0x8005_8005 };
        assert_eq!(stands, want, "{features}");
        if features == Features::empty() {
            let idx = guest.frontend.bytes(to + 2, 2);
            let mut index = [0; 2];
            idx.copy_to(&mut index);
            assert_eq!(u16::from_le_bytes(index), 5);
        }
    }
}
