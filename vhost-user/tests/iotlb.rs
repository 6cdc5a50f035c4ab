//! Frontends whose guest has an IOMMU: addresses are translated page by page, and translations taken back, while packets pass.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::iommu::{IOVA, Iommu, PAGE, invalidate, iova_of, start, tell, update, user_of, with_iommu};
use common::{Bench, Frontend, Guest, HEADER, RING_AREA, SIZE, frame, pool, socket_path};
use linecard_lab::wait_until;
use linecard_mempool::{BURST, Burst};
use linecard_pmd::{Armed, RxQueue, TxQueue};
use linecard_vhost_user::{Backend, BackendConfig, Control, Mode};
use linecard_virtio::{Buffer, Element, Features};
use linecard_wire::payload::{IotlbMessage, Payload, VringAddr, VringFd};
use linecard_wire::{FrontendReq as Req, OutMessage};

/// Receive buffers, and frames on their way.
const WINDOW: usize = 32;

fn bench(label: &str) -> Bench {
    let config = BackendConfig::new(label, socket_path(label), Mode::Listen);
    Bench::of(with_iommu(config), pool(1024, 0))
}

fn connect(bench: &Bench, features: Features) -> (Guest, Iommu) {
    start(Frontend::connect(&bench.path), features)
}

/// Polls both queues, sending back what came, and answers questions, until `enough`.
fn echo_until(
    bench: &mut Bench,
    (guest, iommu): (&mut Guest, &mut Iommu),
    mut enough: impl FnMut(&mut Guest) -> bool,
) {
    let mut packets = Burst::new();
    wait_until("the echo", || {
        if packets.is_empty() {
            bench.rx.rx_burst(&mut packets);
        }
        bench.tx.tx_burst(&mut packets);
        iommu.serve(&mut guest.frontend);
        enough(guest)
    });
    assert!(packets.is_empty());
}

/// Sends `count` numbered frames and expects them back, once and in order.
fn pass(bench: &mut Bench, (guest, iommu): (&mut Guest, &mut Iommu), count: usize) {
    let (mut sent, mut back) = (0, 0);
    echo_until(bench, (guest, iommu), |guest| {
        guest.tx.take();
        while sent < count && sent - back < WINDOW {
            guest.send(&frame(sent, 60 + sent % 1200));
            sent += 1;
        }
        guest.tx.publish();
        for (token, bytes) in guest.received() {
            assert_eq!(bytes.get(HEADER..), Some(frame(back, 60 + back % 1200).as_slice()), "frame {back}");
            back += 1;
            guest.post_receive(token as usize, 1, 2048);
        }
        back == count
    });
}

fn kinds() -> [Features; 5] {
    [
        Features::empty(),
        Features::RING_PACKED,
        Features::IN_ORDER | Features::EVENT_IDX,
        Features::RING_PACKED | Features::IN_ORDER,
        Features::NET_MRG_RXBUF | Features::RING_PACKED,
    ]
}

/// Every address leads where it was told, in every kind of ring, and each page is asked for once.
#[test]
fn packets_pass_through_translated_addresses() {
    for features in kinds() {
        let mut bench = bench("translated");
        let (mut guest, mut iommu) = connect(&bench, features);
        assert!(!bench.backend.peer().link_up(), "no ring can run yet");
        guest.post_receive(0, WINDOW, 2048);
        pass(&mut bench, (&mut guest, &mut iommu), 600);
        assert!(bench.backend.peer().link_up());
        let mut asked: Vec<_> = iommu.asked.iter().map(|(page, _)| *page).collect();
        asked.sort_unstable();
        let before = asked.len();
        asked.dedup();
        assert_eq!(asked.len(), before, "{features}: some page was asked for twice");
        assert!(asked.iter().any(|page| *page >= IOVA + RING_AREA as u64), "buffers were asked for");
        assert_eq!(bench.backend.peer().counters()[3], ("ring_faults", 0));
        // Pages are taken back under way, and asked for anew.
        for round in 0..5 {
            for page in &asked {
                guest.frontend.good(Req::IOTLB_MSG, &invalidate(*page, PAGE), &[]);
            }
            pass(&mut bench, (&mut guest, &mut iommu), 50 + round);
        }
        // All of them at once, in the words of a kernel.
        guest.frontend.good(Req::IOTLB_MSG, &invalidate(0, 0), &[]);
        wait_until("the link to be down", || !bench.backend.peer().link_up());
        pass(&mut bench, (&mut guest, &mut iommu), 50);
        drop(guest);
        bench.wait_gone();
        drop(bench.rx);
        assert_eq!(bench.pool.stats().in_use, 0);
    }
}

/// A page that is told anew, elsewhere, is read there.
#[test]
fn a_translation_that_was_taken_back_is_not_used() {
    for features in [Features::empty(), Features::RING_PACKED] {
        let mut bench = bench("taken-back");
        let (mut guest, mut iommu) = connect(&bench, features);
        guest.post_receive(0, WINDOW, 2048);
        pass(&mut bench, (&mut guest, &mut iommu), 1);
        // Frame 1 of the guest lies in buffer 1; its page is told to be that of buffer 9.
        let (_, wanted) = Frontend::buffer(1, 9);
        let page = guest.frontend.addr(Frontend::buffer(1, 1).1);
        guest.frontend.write_frame(9, &frame(77, 100));
        for change in [true, false] {
            if change {
                guest.frontend.good(Req::IOTLB_MSG, &invalidate(page, PAGE), &[]);
            }
            let user = if change { common::USER + wanted as u64 } else { user_of(page) };
            // The second time without a word before: an update takes the place of what it overlaps with.
            guest.frontend.good(Req::IOTLB_MSG, &update(page, PAGE, user, 3), &[]);
        }
        guest.frontend.good(Req::IOTLB_MSG, &update(page, PAGE, common::USER + wanted as u64, 1), &[]);
        guest.send(&frame(1, 100));
        guest.tx.publish();
        echo_until(&mut bench, (&mut guest, &mut iommu), |guest| match guest.received().as_slice() {
            [] => false,
            [(_, bytes)] => {
                assert_eq!(bytes[HEADER..], frame(77, 100), "it came from the page that was told last");
                true
            }
            more => panic!("{}", more.len()),
        });
    }
}

/// What may only be read is not written, whatever waits for it; once it may be written the packet arrives.
#[test]
fn memory_that_may_only_be_read_is_never_written() {
    for features in [Features::empty(), Features::RING_PACKED, Features::NET_MRG_RXBUF] {
        let mut bench = bench("read-only");
        let (mut guest, mut iommu) = connect(&bench, features);
        wait_for_link(&mut bench, (&mut guest, &mut iommu));
        guest.post_receive(0, 1, 2048);
        let (_, offset) = Frontend::buffer(0, 0);
        let page = guest.frontend.addr(offset);
        guest.frontend.bytes(offset, 2048).copy_from(&[0xa5; 2048]);
        tell(&mut guest.frontend, page, IotlbMessage::READ);
        let mut packets = Burst::new();
        bench.pool.get_bulk(&mut packets, 1).unwrap();
        packets[0].append(100).expect("room").copy_from_slice(&frame(5, 100));
        let mut question = None;
        wait_until("the question", || {
            assert_eq!(bench.tx.tx_burst(&mut packets), 0);
            question = question.or_else(|| iommu.question());
            question.is_some()
        });
        let question = question.expect("waited for");
        assert_eq!((question.iova, question.access), (page, IotlbMessage::READ | IotlbMessage::WRITE));
        (0..100).for_each(|_| assert_eq!(bench.tx.tx_burst(&mut packets), 0));
        let mut bytes = [0; 2048];
        guest.frontend.bytes(offset, 2048).copy_to(&mut bytes);
        assert!(bytes.iter().all(|byte| *byte == 0xa5), "it was written");
        assert_eq!(bench.backend.peer().counters()[3], ("ring_faults", 0));
        tell(&mut guest.frontend, page, IotlbMessage::WRITE);
        wait_until("the packet", || bench.tx.tx_burst(&mut packets) == 1);
        assert_eq!(guest.received()[0].1[HEADER..], frame(5, 100));
        // And what may only be written is not read.
        let sent = guest.frontend.addr(Frontend::buffer(1, 0).1);
        tell(&mut guest.frontend, sent, IotlbMessage::WRITE);
        guest.send(&frame(6, 100));
        guest.tx.publish();
        let mut asked = false;
        wait_until("the question", || {
            assert_eq!(bench.rx.rx_burst(&mut packets), 0);
            asked |=
                iommu.question().is_some_and(|miss| (miss.iova, miss.access) == (sent, IotlbMessage::READ));
            asked
        });
    }
}

fn wait_for_link(bench: &mut Bench, (guest, iommu): (&mut Guest, &mut Iommu)) {
    wait_until("the link", || {
        iommu.serve(&mut guest.frontend);
        bench.backend.peer().link_up()
    });
}

/// Chains of many pieces and indirect tables cross pages that are not neighbours here, and miss one after the other.
#[test]
fn chains_cross_pages_that_are_no_neighbours() {
    for features in [Features::empty(), Features::RING_PACKED] {
        let mut bench = bench("chains");
        let (mut guest, mut iommu) = connect(&bench, features);
        guest.post_receive(0, 4, 2048);
        pass(&mut bench, (&mut guest, &mut iommu), 0);
        // 1500 bytes of which each piece but the first crosses from one page of the guest's into the next.
        let whole = frame(3, 1500);
        let iova = |at: u64| IOVA + (RING_AREA as u64 * 2) + at;
        let put = |guest: &Guest, at: u64, bytes: &[u8]| {
            for (n, byte) in bytes.iter().enumerate() {
                let addr = iova(at + n as u64);
                let offset = (user_of(addr & !(PAGE - 1)) - common::USER + addr % PAGE) as usize;
                guest.frontend.bytes(offset, 1).copy_from(&[*byte]);
            }
        };
        put(&guest, 0, &[0; HEADER]);
        let pieces = [(4000_u64, &whole[..500]), (8100, &whole[500..1000]), (12_000, &whole[1000..])];
        let mut elements = vec![Element { addr: iova(0), len: HEADER as u32 }];
        for (at, bytes) in pieces {
            put(&guest, at, bytes);
            elements.push(Element { addr: iova(at), len: bytes.len() as u32 });
        }
        guest.tx.post_chain(&elements, 9);
        guest.tx.publish();
        let mut came = Vec::new();
        echo_until(&mut bench, (&mut guest, &mut iommu), |guest| {
            came.extend(guest.received());
            !came.is_empty()
        });
        assert_eq!(came[0].1[HEADER..], whole[..]);
        assert_eq!(bench.backend.peer().counters()[3], ("ring_faults", 0));
    }
}

/// The answer to an invalidation comes when whoever is inside a burst has left it, and not before; a ring that nobody is inside
/// does not wait for one that somebody is.
#[test]
fn an_invalidation_is_answered_when_the_pollers_have_left() {
    let mut bench = bench("later");
    let (mut guest, mut iommu) = connect(&bench, Features::empty());
    guest.post_receive(0, WINDOW, 2048);
    pass(&mut bench, (&mut guest, &mut iommu), 3);
    // Frames are shown when those before were long.
    guest.send(&frame(8, 1000));
    guest.tx.publish();
    echo_until(&mut bench, (&mut guest, &mut iommu), |guest| guest.received().len() == 1);
    // The next frame's page is known, so that it is shown at once.
    let page = guest.frontend.addr(Frontend::buffer(1, 4).1);
    tell(&mut guest.frontend, page, 3);
    guest.send(&frame(9, 1000));
    guest.tx.publish();
    let (inside, leave) = (AtomicBool::new(false), AtomicBool::new(false));
    let rx = &mut bench.rx;
    std::thread::scope(|scope| {
        let (inside, leave) = (&inside, &leave);
        let poller = scope.spawn(move || {
            let mut packets = Burst::new();
            let mut seen = 0;
            while packets.is_empty() {
                rx.rx_direct(&mut packets, &mut |frames| {
                    seen += frames.len();
                    inside.store(true, Ordering::Release);
                    wait_until("to be let go", || leave.load(Ordering::Acquire));
                    0
                });
            }
            seen
        });
        wait_until("the poller is inside", || inside.load(Ordering::Acquire));
        let payload = invalidate(page, PAGE);
        let message = OutMessage::request(Req::IOTLB_MSG, &payload).need_reply();
        guest.frontend.connection.send(&message).expect("room");
        let early = guest.frontend.connection.read_until(Instant::now() + Duration::from_millis(200));
        assert!(matches!(early, Err(linecard_wire::Error::TimedOut { .. })), "{early:?}");
        // The port serves whoever else asks it something meanwhile.
        assert!(bench.backend.peer().connected());
        leave.store(true, Ordering::Release);
        let answer = guest.frontend.connection.read_until(Instant::now() + Duration::from_secs(60));
        assert_eq!(u64::from_bytes(&answer.expect("an answer").payload).expect("a number"), 0);
        assert_eq!(poller.join().expect("no panic"), 1);
    });
    // Nobody is inside any more: answered at once, and again.
    for _ in 0..100 {
        guest.frontend.good(Req::IOTLB_MSG, &invalidate(page, PAGE), &[]);
    }
}

/// A ring whose own pages are taken back stops where it stands, and goes on there when they are told again.
#[test]
fn a_ring_whose_pages_are_taken_back_waits() {
    for features in kinds() {
        let mut bench = bench("ring-pages");
        let (mut guest, mut iommu) = connect(&bench, features);
        guest.post_receive(0, WINDOW, 2048);
        pass(&mut bench, (&mut guest, &mut iommu), 100);
        for index in 0..2 {
            let page = IOVA + Frontend::ring_offset(index) as u64;
            guest.frontend.good(Req::IOTLB_MSG, &invalidate(page, PAGE), &[]);
            assert!(!bench.backend.peer().link_up());
            let mut packets = Burst::new();
            guest.send(&frame(1, 100));
            guest.tx.publish();
            if index == 1 {
                (0..100).for_each(|_| assert_eq!(bench.rx.rx_burst(&mut packets), 0));
            }
            let mut came = 0;
            echo_until(&mut bench, (&mut guest, &mut iommu), |guest| {
                for (token, bytes) in guest.received() {
                    assert_eq!(bytes[HEADER..], frame(1, 100));
                    guest.post_receive(token as usize, 1, 2048);
                    came += 1;
                }
                came == 1
            });
            guest.tx.take();
        }
        // Rings are stopped and started like any other; nothing that was told before counts then.
        let bases = [0, 1].map(|index| guest.frontend.stop_ring(index));
        iommu.asked.clear();
        for (index, base) in bases.into_iter().enumerate() {
            guest.frontend.start_ring(index, SIZE, base);
        }
        pass(&mut bench, (&mut guest, &mut iommu), 20);
        assert!(
            iommu.asked.iter().any(|(page, _)| *page >= IOVA + RING_AREA as u64),
            "all is asked for again"
        );
    }
}

/// Whoever sleeps is not kept awake by a chain that cannot be read yet, and is woken when it can.
#[test]
fn a_sleeper_is_woken_by_the_translation() {
    let mut bench = bench("sleeper");
    let (mut guest, mut iommu) = connect(&bench, Features::empty());
    wait_for_link(&mut bench, (&mut guest, &mut iommu));
    let mut packets = Burst::new();
    guest.send(&frame(1, 100));
    guest.tx.publish();
    assert_eq!(bench.rx.rx_burst(&mut packets), 0, "its page is not known");
    assert_eq!(bench.rx.arm(), Armed::Asleep, "there is nothing that could be done");
    let event = bench.rx.event().expect("one to sleep on").try_clone_to_owned().expect("a copy");
    let readable = |wait: i32| {
        let fd = std::os::fd::AsRawFd::as_raw_fd(&event);
        let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, which lives until the call returns.
        unsafe { libc::poll(&raw mut entry, 1, wait) > 0 }
    };
    assert!(!readable(50));
    wait_until("the question", || iommu.serve(&mut guest.frontend) > 0);
    assert!(readable(60_000), "it was not woken");
    bench.rx.disarm();
    wait_until("the frame", || bench.rx.rx_burst(&mut packets) == 1);
    assert_eq!(packets[0].data(), frame(1, 100));
}

/// Asks for what receive buffers need, and answers, until so many pages were asked for. Nothing is sent meanwhile.
fn look_ahead(bench: &mut Bench, (guest, iommu): (&mut Guest, &mut Iommu), pages: usize) {
    wait_until("the questions", || {
        bench.tx.reclaim();
        iommu.serve(&mut guest.frontend);
        iommu.asked.len() >= pages
    });
}

/// `count` packets of so many bytes.
fn packets(bench: &Bench, count: usize, len: usize) -> Burst {
    let mut packets = Burst::new();
    bench.pool.get_bulk(&mut packets, count).unwrap();
    for (n, packet) in packets.iter_mut().enumerate() {
        packet.append(len).expect("room").copy_from_slice(&frame(n, len));
    }
    packets
}

/// Sends `count` packets of so many bytes while nobody answers a question. A burst may end early where pages of the guest's are not
/// there yet.
fn send_all(bench: &mut Bench, count: usize, len: usize) {
    let mut packets = packets(bench, count, len);
    wait_until("the packets to be sent", || {
        bench.tx.tx_burst(&mut packets);
        packets.is_empty()
    });
}

/// What is written at an I/O virtual address, byte by byte: its pages are no neighbours.
fn bytes_at(guest: &Guest, addr: u64, len: u64) -> Vec<u8> {
    let byte = |addr: u64| {
        let offset = user_of(addr & !(PAGE - 1)) - common::USER + addr % PAGE;
        let mut byte = [0];
        guest.frontend.bytes(offset as usize, 1).copy_to(&mut byte);
        byte[0]
    };
    (addr..addr + len).map(byte).collect()
}

/// Linux cuts receive buffers from pages, so that every third begins in one page and ends in the next. Both are asked for before a
/// packet comes: one for a buffer that cannot be written yet is lost. More buffers than are remembered at once lose none either.
#[test]
fn receive_buffers_that_cross_pages_are_ready_in_time() {
    const BUFFERS: usize = 100;
    for features in kinds() {
        let mut bench = bench("crossing");
        let (mut guest, mut iommu) = connect(&bench, features);
        wait_for_link(&mut bench, (&mut guest, &mut iommu));
        iommu.asked.clear();
        // No two of them share a page.
        let address = |guest: &Guest, n: usize| guest.frontend.addr(Frontend::buffer(0, 2 * n).1) + 3000;
        for n in 0..BUFFERS {
            guest.rx.post(Buffer { addr: address(&guest, n), len: 2048, token: n as u64 });
        }
        guest.rx.publish();
        look_ahead(&mut bench, (&mut guest, &mut iommu), 2 * BUFFERS);
        send_all(&mut bench, BURST, 1500);
        let used = guest.rx.take();
        assert_eq!(used.len(), BURST);
        for (n, completion) in used.into_iter().enumerate() {
            let bytes = bytes_at(&guest, address(&guest, n), completion.len.into());
            assert_eq!(bytes[HEADER..], frame(n, 1500), "{features}: packet {n}");
        }
    }
}

/// A receive buffer in several pieces, as drivers without merged buffers lend them for large packets, is ready in time too.
#[test]
fn receive_buffers_in_pieces_are_ready_in_time() {
    for features in [Features::empty(), Features::RING_PACKED, Features::NET_MRG_RXBUF] {
        let mut bench = bench("pieces");
        let (mut guest, mut iommu) = connect(&bench, features);
        wait_for_link(&mut bench, (&mut guest, &mut iommu));
        iommu.asked.clear();
        let pieces: Vec<_> = (0..5)
            .map(|n| Element { addr: guest.frontend.addr(Frontend::buffer(0, 2 * n).1), len: 500 })
            .collect();
        guest.rx.post_chain(&pieces, 3);
        guest.rx.publish();
        look_ahead(&mut bench, (&mut guest, &mut iommu), pieces.len());
        wait_until("the last answer", || {
            bench.tx.reclaim();
            iommu.serve(&mut guest.frontend) == 0
        });
        send_all(&mut bench, 1, 1500);
        let used = guest.rx.take();
        assert_eq!((used.len(), used[0].len as usize), (1, HEADER + 1500));
    }
}

/// Whoever takes back more than one buffer (an invalidation by a power of two of pages) takes away what others count on: it is
/// asked for again before it is needed.
#[test]
fn what_is_taken_back_beside_a_buffer_is_asked_for_again() {
    for features in kinds() {
        let mut bench = bench("beside");
        let (mut guest, mut iommu) = connect(&bench, features);
        wait_for_link(&mut bench, (&mut guest, &mut iommu));
        iommu.asked.clear();
        guest.post_receive(0, 8, 2048);
        look_ahead(&mut bench, (&mut guest, &mut iommu), 8);
        for round in 0..3 {
            iommu.asked.clear();
            let first = guest.frontend.addr(Frontend::buffer(0, 0).1) & !(8 * PAGE - 1);
            guest.frontend.good(Req::IOTLB_MSG, &invalidate(first, 8 * PAGE), &[]);
            look_ahead(&mut bench, (&mut guest, &mut iommu), 8);
            assert_eq!(iommu.asked.len(), 8, "{features}, {round}");
        }
        send_all(&mut bench, 8, 1000);
        assert_eq!(guest.received().len(), 8);
    }
}

/// A translation that is told, and taken back before anybody has looked again, is asked for once more: in both directions, and a
/// ring whose chain waits does not wait for ever.
#[test]
fn a_translation_that_nobody_has_seen_is_asked_for_again() {
    for features in kinds() {
        let mut bench = bench("unseen");
        let (mut guest, mut iommu) = connect(&bench, features);
        wait_for_link(&mut bench, (&mut guest, &mut iommu));
        let mut came = Burst::new();
        guest.send(&frame(1, 100));
        guest.tx.publish();
        guest.post_receive(0, 1, 2048);
        let mut sent = packets(&bench, 1, 100);
        for half in [1, 0] {
            let page = guest.frontend.addr(Frontend::buffer(half, 0).1);
            for round in 0..4 {
                wait_until("the question", || {
                    let moved =
                        if half == 1 { bench.rx.rx_burst(&mut came) } else { bench.tx.tx_burst(&mut sent) };
                    assert_eq!(moved, 0);
                    iommu.question().is_some_and(|miss| miss.iova == page)
                });
                // The second time before it is told at all.
                if round % 2 == 0 {
                    tell(&mut guest.frontend, page, 3);
                }
                guest.frontend.good(Req::IOTLB_MSG, &invalidate(page, PAGE), &[]);
            }
            tell(&mut guest.frontend, page, 3);
        }
        wait_until("the frame", || bench.rx.rx_burst(&mut came) == 1);
        wait_until("the packet", || bench.tx.tx_burst(&mut sent) == 1);
        assert_eq!(came[0].data(), frame(1, 100));
        assert_eq!(guest.received()[0].1[HEADER..], frame(0, 100));
    }
}

/// A frontend that is asked and does not answer is asked again after a while, and harms nobody.
#[test]
fn a_question_without_an_answer_is_asked_again() {
    let mut bench = bench("unanswered");
    let (mut guest, mut iommu) = connect(&bench, Features::empty());
    wait_for_link(&mut bench, (&mut guest, &mut iommu));
    guest.send(&frame(1, 100));
    guest.tx.publish();
    let (began, mut packets) = (Instant::now(), Burst::new());
    let mut asked = 0;
    wait_until("three questions", || {
        assert_eq!(bench.rx.rx_burst(&mut packets), 0);
        asked += usize::from(iommu.question().is_some());
        asked == 3
    });
    assert!(began.elapsed() >= Duration::from_millis(1900), "asked for the same in {:?}", began.elapsed());
}

/// A port that changes hands asks its frontend again, on the same channel.
#[test]
fn a_port_with_translations_changes_hands() {
    let config = |label: &str| {
        let config = BackendConfig::new(label, socket_path(label), Mode::Listen);
        with_iommu(config).hand_over(true)
    };
    for features in [Features::empty(), Features::RING_PACKED] {
        let mut bench = Bench::of(config("before"), pool(1024, 0));
        let (mut guest, mut iommu) = connect(&bench, features);
        guest.post_receive(0, WINDOW, 2048);
        pass(&mut bench, (&mut guest, &mut iommu), 50);
        for _ in 0..3 {
            let handed = bench.backend.hand_over().expect("handed over");
            iommu.asked.clear();
            let next = Backend::take_over(&Control::new(), config("after"), handed).expect("taken over");
            bench.go_on_with(next);
            pass(&mut bench, (&mut guest, &mut iommu), 50);
            assert!(!iommu.asked.is_empty(), "the successor asks for itself");
        }
    }
}

/// Requests that mean nothing are refused one by one, and change nothing.
#[test]
fn what_cannot_be_a_translation_is_refused() {
    let mut bench = bench("refused");
    let mut frontend = Frontend::connect(&bench.path);
    frontend.negotiate(Features::ACCESS_PLATFORM);
    frontend.share_memory();
    let (file, null) = (common::memfd(4096), std::fs::File::open("/dev/null").expect("there"));
    for fd in [std::os::fd::AsFd::as_fd(&file), std::os::fd::AsFd::as_fd(&null)] {
        frontend.refused(Req::SET_BACKEND_REQ_FD, &[], &[fd]);
    }
    frontend.refused(Req::SET_BACKEND_REQ_FD, &[], &[]);
    let region = common::MEMORY as u64;
    for (iova, size, user, access) in [
        (0, 0, common::USER, 3),
        (u64::MAX, 2, common::USER, 3),
        (1, u64::MAX, common::USER, 3),
        (0, PAGE, common::USER - 1, 3),
        (0, region + 1, common::USER, 3),
        (0, PAGE, common::USER + region - PAGE + 1, 3),
        (0, PAGE, u64::MAX - PAGE + 1, 3),
        (0, PAGE, 0, 3),
        (0, PAGE, common::USER, 0),
        (0, PAGE, common::USER, 4),
    ] {
        frontend.refused(Req::IOTLB_MSG, &update(iova, size, user, access), &[]);
    }
    for kind in [0, 1, 4, 5, 6, 255] {
        let message = IotlbMessage { iova: 0, size: PAGE, user_addr: common::USER, access: 3, kind };
        frontend.refused(Req::IOTLB_MSG, &message.to_bytes(), &[]);
    }
    frontend.refused(Req::IOTLB_MSG, &[0; 26], &[]);
    frontend.refused(Req::IOTLB_MSG, &update(0, PAGE, common::USER, 3), &[std::os::fd::AsFd::as_fd(&file)]);
    // Ring addresses that no translation could make right.
    frontend.translated = true;
    frontend.good(
        Req::SET_VRING_NUM,
        &linecard_wire::payload::VringState { index: 0, num: 512 }.to_bytes(),
        &[],
    );
    let addr = frontend.vring_addr(0, 512);
    for wrong in [VringAddr { desc: u64::MAX - 15, ..addr }, VringAddr { used: addr.used + 1, ..addr }] {
        frontend.refused(Req::SET_VRING_ADDR, &wrong.to_bytes(), &[]);
    }
    // Two pages of one area that are no neighbours here: the ring cannot run, and the process does.
    frontend.good(Req::SET_VRING_ADDR, &addr.to_bytes(), &[]);
    for n in 0..2 {
        let user = common::USER + (n ^ 1) * PAGE;
        frontend.good(Req::IOTLB_MSG, &update(iova_of(0) + n * PAGE, PAGE, user, 3), &[]);
    }
    let no_kick = VringFd { index: 0, has_fd: false }.to_bytes();
    frontend.refused(Req::SET_VRING_KICK, &no_kick, &[]);
    assert_eq!(bench.tx.tx_burst(&mut Burst::new()), 0);
    // Without the feature nothing is translated.
    let without = self::bench("without");
    let mut other = Frontend::connect(&without.path);
    other.negotiate(Features::empty());
    other.share_memory();
    other.refused(Req::IOTLB_MSG, &update(0, PAGE, common::USER, 3), &[]);
    other.good(Req::IOTLB_MSG, &invalidate(0, PAGE), &[]);
}

/// A port offers neither the feature nor the channel unless it is told to.
#[test]
fn nothing_is_offered_unasked() {
    let bench = Bench::new("plain");
    let mut frontend = Frontend::connect(&bench.path);
    assert_eq!(frontend.number(Req::GET_FEATURES) & Features::ACCESS_PLATFORM.bits(), 0);
    frontend.negotiate(Features::empty());
    frontend.refused(Req::IOTLB_MSG, &invalidate(0, PAGE), &[]);
}
