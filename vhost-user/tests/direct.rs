//! Frames that are copied once, from one frontend's buffer to another's: what the receiver gets, when the sender gets its buffers
//! back, and what a hostile end of either kind can do meanwhile.

mod common;

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Bench, Frontend, GUEST, Guest, HEADER, MEMORY, frame};
use linecard_lab::wait_until;
use linecard_mempool::Burst;
use linecard_pmd::direct::{Frame, HEAD, all};
use linecard_pmd::{RxQueue, TxQueue};
use linecard_vhost_user::{RxLoss, TxLoss};
use linecard_virtio::Features;
use linecard_wire::FrontendReq as Req;
use linecard_wire::payload::{MemTable, MemoryRegion, Payload, SingleRegion};

/// Lengths on both sides of what is copied early.
const LENGTHS: [usize; 9] = [14, 60, HEAD - 1, HEAD, HEAD + 1, 300, 1000, 1514, 2000];

const KINDS: [Features; 5] = [
    Features::empty(),
    Features::NET_MRG_RXBUF.union(Features::IN_ORDER),
    Features::RING_PACKED,
    Features::RING_PACKED.union(Features::IN_ORDER).union(Features::NET_MRG_RXBUF),
    Features::RING_PACKED.union(Features::NET_CSUM).union(Features::NET_GUEST_CSUM),
];

/// Two ports with a frontend each.
struct Pair {
    from: Bench,
    to: Bench,
    sender: Guest,
    receiver: Guest,
}

impl Pair {
    fn new(label: &str, sender: Features, receiver: Features) -> Self {
        let (mut from, to) = (Bench::new(label), Bench::new(label));
        // As the switch has it: checksums are left as they come.
        from.rx = from.backend_rx().with_offloads(linecard_pmd::offload::RxOffloads::VIRTIO);
        let (sender, receiver) = (Guest::start(&from.path, sender), Guest::start(&to.path, receiver));
        from.wait_link(true);
        to.wait_link(true);
        Self { from, to, sender, receiver }
    }

    fn send(&mut self, frames: &[Vec<u8>]) {
        frames.iter().for_each(|frame| self.sender.send(frame));
        self.sender.tx.publish();
    }

    /// One burst; what `sink` left.
    fn burst(&mut self, sink: impl FnMut(&mut Ends<'_>, &[Frame<'_>]) -> u64) -> (usize, Burst) {
        let Self { from, to, sender, receiver } = self;
        let (mut ends, mut sink) = (Ends { to, sender, receiver }, sink);
        let mut packets = Burst::new();
        let came = from.rx.rx_direct(&mut packets, &mut |frames| sink(&mut ends, frames));
        (came, packets)
    }

    /// What the receiver got since the last time, without the virtio header, which says that it is one buffer.
    fn received(&mut self) -> Vec<Vec<u8>> {
        let got = self.receiver.received().into_iter();
        got.map(|(_, bytes)| {
            assert_eq!(bytes[..HEADER], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
            bytes[HEADER..].to_vec()
        })
        .collect()
    }

    /// Frames still pass, as packets.
    fn assert_receives(&mut self) {
        self.receiver.post_receive(200, 1, 2048);
        let mut packets = Burst::new();
        self.to.pool.get_bulk(&mut packets, 1).unwrap();
        packets[0].copy_from_slice(&frame(9, 100)).unwrap();
        assert_eq!(self.to.tx.tx_burst(&mut packets), 1);
        assert_eq!(self.received().pop(), Some(frame(9, 100)));
    }
}

/// All but the queue that is polled.
struct Ends<'a> {
    to: &'a mut Bench,
    sender: &'a mut Guest,
    receiver: &'a mut Guest,
}

fn frames_of(lengths: &[usize]) -> Vec<Vec<u8>> {
    lengths.iter().enumerate().map(|(n, len)| frame(n, *len)).collect()
}

#[test]
fn buffers_come_back_when_the_frames_are_copied() {
    for sender in KINDS {
        for receiver in KINDS {
            let mut pair = Pair::new("once", sender, receiver);
            for _ in 0..3 {
                let sent = frames_of(&LENGTHS);
                pair.send(&sent);
                pair.receiver.post_receive(0, sent.len(), 2048);
                let (came, left) = pair.burst(|ends, frames| {
                    assert_eq!(frames.len(), LENGTHS.len());
                    for (shown, sent) in frames.iter().zip(&sent) {
                        assert_eq!(shown.len(), sent.len());
                        assert_eq!(shown.head(), &sent[..sent.len().min(HEAD)]);
                        assert_eq!(shown.is_whole(), sent.len() <= HEAD);
                    }
                    assert!(ends.sender.tx.take().is_empty(), "before they are copied");
                    assert_eq!(ends.to.tx.tx_direct(frames), Some(frames.len()));
                    assert!(ends.sender.tx.take().is_empty(), "before all is done");
                    all(frames.len())
                });
                assert_eq!((came, left.len()), (sent.len(), 0));
                assert_eq!(pair.sender.tx.take().len(), sent.len());
                assert_eq!(pair.received(), sent);
            }
            let bytes = 3 * LENGTHS.iter().sum::<usize>() as u64;
            let (rx, tx) = (pair.from.rx_stats.totals(), pair.to.tx_stats.totals());
            assert_eq!((rx.packets, rx.bytes, rx.bursts), (3 * LENGTHS.len() as u64, bytes, 3));
            assert_eq!((tx.packets, tx.bytes, tx.bursts), (3 * LENGTHS.len() as u64, bytes, 3));
            pair.from.assert_whole();
        }
    }
}

#[test]
fn what_is_left_becomes_packets_in_order() {
    let sent = frames_of(&[LENGTHS, LENGTHS].concat());
    for features in KINDS {
        for dealt_with in [0, 1, 0x2_aaaa, 0x1_5555, 0x3_fff0, all(18), u64::MAX] {
            let mut pair = Pair::new("left", features, features);
            pair.send(&sent);
            let (came, mut left) = pair.burst(|_, _| dealt_with);
            let want = sent.iter().enumerate().filter(|(n, _)| dealt_with >> n & 1 == 0);
            let want: Vec<_> = want.map(|(_, frame)| frame.as_slice()).collect();
            assert_eq!(came, sent.len());
            assert_eq!(left.iter().map(|packet| packet.data()).collect::<Vec<_>>(), want);
            assert_eq!(pair.sender.tx.take().len(), sent.len());
            left.clear();
            pair.from.assert_whole();
        }
    }
}

/// The sender writes into its buffers and descriptors once its frames were looked at.
#[test]
fn the_receiver_gets_the_first_bytes_that_were_checked() {
    for features in KINDS {
        let mut pair = Pair::new("rewrites", features, Features::empty());
        let sent = frames_of(&LENGTHS);
        pair.send(&sent);
        pair.receiver.post_receive(0, sent.len(), 2048);
        pair.burst(|ends, frames| {
            for n in 0..sent.len() {
                let (_, offset) = Frontend::buffer(1, n);
                let buffer = ends.sender.frontend.bytes(offset, HEADER + 2000);
                buffer.copy_from(&[0xee; HEADER + 2000]);
            }
            let descriptors = ends.sender.frontend.bytes(Frontend::ring_offset(1), 16 * sent.len());
            descriptors.copy_from(&vec![0xff; 16 * sent.len()]);
            assert_eq!(ends.to.tx.tx_direct(frames), Some(frames.len()));
            all(frames.len())
        });
        for (got, sent) in pair.received().iter().zip(&sent) {
            let (head, rest) = got.split_at(sent.len().min(HEAD));
            assert_eq!(head, &sent[..head.len()], "as it was checked");
            assert_eq!(rest, vec![0xee; sent.len() - head.len()], "as it was when it was copied");
        }
    }
}

#[test]
fn there_is_room_for_as_many_as_there_are_buffers() {
    for features in KINDS {
        let mut pair = Pair::new("room", Features::empty(), features);
        let sent = frames_of(&[100, 1500, 60, 400]);
        for buffers in [0, 2, 4] {
            pair.send(&sent);
            pair.receiver.post_receive(0, buffers, 2048);
            let (came, left) = pair.burst(|ends, frames| {
                assert_eq!(ends.to.tx.tx_direct(frames), Some(buffers));
                all(frames.len())
            });
            assert_eq!((came, left.len()), (4, 0));
            assert_eq!(pair.received(), sent[..buffers]);
            assert_eq!(pair.sender.tx.take().len(), 4);
        }
    }
}

/// Buffers that are too short: several for a frame where the receiver takes that, else the frame is lost.
#[test]
fn frames_are_spread_over_short_buffers() {
    for packed in [Features::empty(), Features::RING_PACKED] {
        let mut pair = Pair::new("merged", packed, packed | Features::NET_MRG_RXBUF);
        let sent = frame(3, 1514);
        pair.send(&[sent.clone(), frame(4, 60)]);
        pair.receiver.post_receive(0, 8, 400);
        pair.burst(|ends, frames| {
            assert_eq!(ends.to.tx.tx_direct(frames), Some(2));
            all(2)
        });
        let got: Vec<_> = pair.receiver.received().into_iter().map(|(_, bytes)| bytes).collect();
        assert_eq!(got.len(), 5);
        assert_eq!(got[0][..HEADER], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0]);
        assert_eq!(got[..4].concat()[HEADER..], sent);
        assert_eq!(got[4][HEADER..], frame(4, 60));

        let mut pair = Pair::new("tooshort", packed, packed);
        pair.send(&[frame(3, 1514), frame(4, 60)]);
        pair.receiver.post_receive(0, 2, 400);
        pair.burst(|ends, frames| {
            assert_eq!(ends.to.tx.tx_direct(frames), Some(2));
            all(2)
        });
        assert_eq!(pair.received(), [frame(4, 60)]);
        assert_eq!(pair.to.tx_stats.totals().lost(TxLoss::TooLong), 1);
    }
}

/// Chains of several descriptors, and such whose header asks for something, are not shown: they come as packets.
#[test]
fn odd_chains_come_as_packets() {
    for features in [Features::NET_CSUM, Features::NET_CSUM | Features::RING_PACKED] {
        let mut pair = Pair::new("odd", features, features);
        pair.send(&[frame(0, 500)]);
        let bytes = frame(1, 300);
        let (addr, len) = pair.sender.frontend.write_frame(50, &bytes);
        let element = |addr, len| linecard_virtio::Element { addr, len };
        pair.sender.tx.post_chain(&[element(addr, 40), element(addr + 40, len - 40)], 50);
        pair.send(&[frame(2, 100)]);
        let mut shown = Vec::new();
        let mut packets = Vec::new();
        for _ in 0..3 {
            let (_, left) = pair.burst(|_, frames| {
                shown.extend(frames.iter().map(|frame| frame.head().to_vec()));
                all(frames.len())
            });
            packets.extend(left.iter().map(|packet| packet.to_bytes().to_vec()));
        }
        // What is behind an odd chain in the same burst comes as it does.
        assert_eq!(shown, [&frame(0, 500)[..HEAD]]);
        assert_eq!(packets, [bytes, frame(2, 100)]);
    }
}

/// Where the frames of a burst are too short to gain anything, those of the next one come as packets.
#[test]
fn short_frames_come_as_packets() {
    let mut pair = Pair::new("short", Features::empty(), Features::empty());
    // The lengths of two frames, and whether they are shown.
    for (lengths, shown) in
        [([60, 452], true), ([60, 1000], false), ([60, 453], true), ([256, 256], true), ([60, 60], false)]
    {
        pair.send(&frames_of(&lengths));
        let mut calls = 0;
        let (came, left) = pair.burst(|_, frames| {
            calls += 1;
            all(frames.len())
        });
        assert_eq!(
            (came, left.len(), calls),
            (2, if shown { 0 } else { 2 }, usize::from(shown)),
            "{lengths:?}"
        );
    }
}

#[test]
fn a_pool_without_packets_leaves_frames_on_the_ring() {
    let mut pair = Pair::new("empty", Features::empty(), Features::empty());
    pair.send(&frames_of(&LENGTHS));
    let mut taken = Vec::new();
    while let Some(packet) = pair.from.pool.get() {
        taken.push(packet);
    }
    let (came, _) = pair.burst(|_, _| panic!("there is nothing to show"));
    assert!(came == 0 && pair.from.rx_stats.totals().lost(RxLoss::NoBuffer) > 0);
    drop(taken.split_off(taken.len() - 4));
    let (came, left) = pair.burst(|_, frames| all(frames.len()));
    assert_eq!((came, left.len()), (4, 0));
    drop(taken);
    let (came, left) = pair.burst(|_, _| 0);
    assert_eq!((came, left.len()), (LENGTHS.len() - 4, LENGTHS.len() - 4));
}

/// A sink that panics costs no packets of the pool.
#[test]
fn a_panic_returns_the_packets() {
    let mut pair = Pair::new("panics", Features::empty(), Features::empty());
    pair.send(&frames_of(&LENGTHS));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        pair.burst(|_, _| panic!("as planned"));
    }));
    assert!(panicked.is_err());
    pair.from.assert_whole();
    // The gate is open, and the frames are there.
    let (came, _) = pair.burst(|_, frames| all(frames.len()));
    assert_eq!(came, LENGTHS.len());
}

/// A frontend removes the memory that its frames lie in while they are copied: it waits until they are.
#[test]
fn memory_of_the_sender_is_removed_after_the_burst() {
    for features in KINDS {
        let mut pair = Pair::new("removed", features, features);
        let sent = frames_of(&LENGTHS);
        pair.send(&sent);
        pair.receiver.post_receive(0, sent.len(), 2048);
        let answered = AtomicBool::new(false);
        let Pair { from, to, sender, receiver: _ } = &mut pair;
        let region = SingleRegion(sender.frontend.region()).to_bytes();
        let (started, begun) = std::sync::mpsc::channel();
        let frontend = std::sync::Mutex::new(&mut sender.frontend);
        std::thread::scope(|scope| {
            let (answered, frontend) = (&answered, &frontend);
            let mut started = Some(started);
            let mut packets = Burst::new();
            from.rx.rx_direct(&mut packets, &mut |frames| {
                let (started, region) = (started.take().expect("one burst"), region.clone());
                scope.spawn(move || {
                    let mut frontend = frontend.lock().expect("not poisoned");
                    started.send(()).expect("somebody waits");
                    frontend.good(Req::REM_MEM_REG, &region, &[]);
                    answered.store(true, Ordering::Release);
                });
                begun.recv().expect("it begins");
                // However long the request is there.
                for _ in 0..1000 {
                    std::thread::yield_now();
                    assert!(!answered.load(Ordering::Acquire), "the burst is not over");
                }
                assert_eq!(to.tx.tx_direct(frames), Some(frames.len()));
                assert!(!answered.load(Ordering::Acquire), "the burst is not over");
                all(frames.len())
            });
        });
        assert!(answered.into_inner());
        assert_eq!(pair.received(), sent);
        // Its rings lay there, too: nothing comes any more.
        assert_eq!(pair.burst(|_, _| panic!("no frames")).0, 0);
        pair.assert_receives();
    }
}

/// A frontend removes the memory that it receives into once frames for it were looked at.
#[test]
fn memory_of_the_receiver_may_be_removed_before_the_copy() {
    for features in KINDS {
        let mut pair = Pair::new("gone", features, features);
        pair.send(&frames_of(&LENGTHS));
        pair.receiver.post_receive(0, LENGTHS.len(), 2048);
        let (came, _) = pair.burst(|ends, frames| {
            let region = SingleRegion(ends.receiver.frontend.region()).to_bytes();
            ends.receiver.frontend.good(Req::REM_MEM_REG, &region, &[]);
            assert_eq!(ends.to.tx.tx_direct(frames), Some(0));
            all(frames.len())
        });
        assert_eq!(came, LENGTHS.len());
        assert_eq!(pair.sender.tx.take().len(), LENGTHS.len());
    }
}

/// The sender's file loses its pages in the middle: it loses its port, and the receiver gets zeros in the place of bytes that were
/// not copied yet.
#[test]
fn pages_of_the_sender_that_vanish_cost_its_own_port() {
    let mut pair = Pair::new("holes", Features::empty(), Features::RING_PACKED);
    let sent = frames_of(&LENGTHS);
    pair.send(&sent);
    pair.receiver.post_receive(0, sent.len(), 2048);
    let (came, _) = pair.burst(|ends, frames| {
        ends.sender.frontend.file.set_len(0).expect("shorter");
        assert_eq!(ends.to.tx.tx_direct(frames), Some(frames.len()));
        all(frames.len())
    });
    assert_eq!(came, sent.len());
    for (got, sent) in pair.received().iter().zip(&sent) {
        let (head, rest) = got.split_at(sent.len().min(HEAD));
        assert_eq!((head, rest), (&sent[..head.len()], vec![0; sent.len() - head.len()].as_slice()));
    }
    wait_until("the end of the sender", || {
        pair.from.rx.rx_direct(&mut Burst::new(), &mut |_| panic!("no frames"));
        !pair.from.backend.peer().connected()
    });
    pair.assert_receives();
}

#[test]
fn pages_of_the_receiver_that_vanish_cost_its_own_port() {
    let mut pair = Pair::new("target", Features::RING_PACKED, Features::empty());
    let sent = frames_of(&LENGTHS);
    pair.send(&sent);
    // A region of its own, so that the rings stay.
    let extra = common::memfd(1 << 20);
    let region =
        MemoryRegion { guest_addr: GUEST + (64 << 20), size: 1 << 20, user_addr: 1 << 40, offset: 0 };
    let frontend = &mut pair.receiver.frontend;
    frontend.good(Req::ADD_MEM_REG, &SingleRegion(region).to_bytes(), &[extra.as_fd()]);
    for n in 0..sent.len() as u64 {
        let buffer = linecard_virtio::Buffer { addr: region.guest_addr + n * 4096, len: 2048, token: n };
        pair.receiver.rx.post(buffer);
    }
    pair.receiver.rx.publish();
    pair.burst(|ends, frames| {
        extra.set_len(0).expect("shorter");
        assert_eq!(ends.to.tx.tx_direct(frames), Some(frames.len()));
        all(frames.len())
    });
    wait_until("the end of the receiver", || {
        pair.to.tx.tx_direct(&[]);
        !pair.to.backend.peer().connected()
    });
    assert_eq!(pair.sender.tx.take().len(), sent.len());
    pair.send(&sent);
    assert_eq!(pair.burst(|_, frames| all(frames.len())).0, sent.len());
}

/// Both ports share the same pages, and every frame is copied over itself or over its neighbour: each peer may spoil its own bytes,
/// and no others.
#[test]
fn two_ports_of_the_same_pages() {
    let mut pair = Pair::new("same", Features::empty(), Features::empty());
    let file = pair.sender.frontend.file.try_clone().expect("dup");
    let extra =
        MemoryRegion { guest_addr: GUEST + (64 << 20), size: MEMORY as u64, user_addr: 1 << 40, offset: 0 };
    let frontend = &mut pair.receiver.frontend;
    frontend.good(Req::ADD_MEM_REG, &SingleRegion(extra).to_bytes(), &[file.as_fd()]);
    let sent = frames_of(&LENGTHS);
    pair.send(&sent);
    for n in 0..sent.len() {
        let (_, offset) = Frontend::buffer(1, n);
        let addr = extra.guest_addr + offset as u64 + 1;
        pair.receiver.rx.post(linecard_virtio::Buffer { addr, len: 4000, token: n as u64 });
    }
    pair.receiver.rx.publish();
    let (came, _) = pair.burst(|ends, frames| {
        assert_eq!(ends.to.tx.tx_direct(frames), Some(frames.len()));
        all(frames.len())
    });
    let lengths: Vec<_> = pair.receiver.rx.take().iter().map(|done| done.len as usize).collect();
    assert_eq!(came, sent.len());
    assert_eq!(lengths, LENGTHS.map(|len| len + HEADER));
    // A table without that region, and all is as before.
    let table = MemTable(vec![pair.receiver.frontend.region()]).to_bytes();
    let own = pair.receiver.frontend.file.try_clone().expect("dup");
    pair.receiver.frontend.good(Req::SET_MEM_TABLE, &table, &[own.as_fd()]);
    pair.assert_receives();
}
