//! Packets both ways, every kind of ring, every byte checked.

mod common;

use common::{Bench, Guest, HEADER, frame, receive};
use linecard_mempool::Burst;
use linecard_pmd::{RxQueue, TxQueue};
use linecard_virtio::{Element, Features};

const LENGTHS: [usize; 12] = [14, 15, 59, 60, 64, 65, 127, 128, 129, 256, 257, 1514];

/// All combinations of layout, order and mergeable buffers, with and without event index.
fn kinds() -> Vec<Features> {
    let bits = [Features::RING_PACKED, Features::IN_ORDER, Features::NET_MRG_RXBUF, Features::EVENT_IDX];
    (0u32..16)
        .map(|n| {
            bits.iter()
                .enumerate()
                .fold(Features::INDIRECT_DESC, |set, (i, bit)| set.with(*bit, n & (1 << i) != 0))
        })
        .collect()
}

#[test]
fn frames_of_every_length_come_and_go_unchanged() {
    for features in kinds() {
        let mut bench = Bench::new("e2e");
        let mut guest = Guest::start(&bench.path, features);
        bench.wait_link(true);
        for round in 0..40 {
            let frames: Vec<_> = LENGTHS.iter().map(|len| frame(round, *len)).collect();
            frames.iter().for_each(|frame| guest.send(frame));
            guest.tx.publish();
            guest.post_receive(0, frames.len(), 2048);
            let mut packets = receive(&mut bench.rx, frames.len());
            for (packet, frame) in packets.iter().zip(&frames) {
                assert_eq!(packet.data(), frame, "{features}");
            }
            assert_eq!(guest.tx.take().len(), frames.len());
            assert_eq!(bench.tx.tx_burst(&mut packets), frames.len(), "{features}");
            assert!(packets.is_empty());
            let came = guest.received();
            assert_eq!(came.len(), frames.len());
            for ((_, bytes), frame) in came.iter().zip(&frames) {
                assert_eq!(bytes[..HEADER], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
                assert_eq!(&bytes[HEADER..], frame, "{features}");
            }
        }
        bench.assert_whole();
        let (rx, tx) = (bench.rx_stats.totals(), bench.tx_stats.totals());
        assert_eq!((rx.packets, tx.packets), (40 * 12, 40 * 12));
        assert_eq!((rx.bytes, tx.bytes), (40 * LENGTHS.iter().sum::<usize>() as u64, rx.bytes));
    }
}

#[test]
fn chains_are_gathered_whatever_way_they_are_cut() {
    for features in kinds() {
        let mut bench = Bench::new("cut");
        let mut guest = Guest::start(&bench.path, features);
        bench.wait_link(true);
        let body = frame(7, 300);
        let (addr, len) = guest.frontend.write_frame(0, &body);
        let mut cuts = Vec::new();
        for first in 1..=20u32 {
            cuts.push(vec![first, len - first]);
            cuts.push(vec![1, first, 5, len - first - 6]);
        }
        cuts.push([vec![1; 12], vec![len - 12]].concat());
        for (n, cut) in cuts.iter().enumerate() {
            let mut at = addr;
            let segments: Vec<_> = cut
                .iter()
                .map(|part| {
                    let segment = Element { addr: at, len: *part };
                    at += u64::from(*part);
                    segment
                })
                .collect();
            guest.tx.post_chain(&segments, n as u64);
            guest.tx.publish();
            let packets = receive(&mut bench.rx, 1);
            assert_eq!(packets[0].data(), body, "{features} {cut:?}");
            assert_eq!(guest.tx.take().len(), 1);
        }
        bench.assert_whole();
    }
}

#[test]
fn long_frames_become_chained_packets_and_merged_buffers() {
    for features in kinds() {
        let mut bench = Bench::new("long");
        let mut guest = Guest::start(&bench.path, features);
        bench.wait_link(true);
        for len in [2048usize, 2049, 4000, 9000, 65_000] {
            let body = frame(len, len);
            // Send buffers lie one behind the other: one descriptor may span several.
            let (addr, total) = guest.frontend.write_frame(0, &body);
            guest.tx.post_chain(&[Element { addr, len: total }], 0);
            guest.tx.publish();
            let mut packets = receive(&mut bench.rx, 1);
            assert_eq!(packets[0].len(), len);
            let bytes: Vec<u8> = packets[0].segments().flat_map(|s| s.data().to_vec()).collect();
            assert!(bytes == body, "{features} {len}");
            guest.tx.take();
            guest.post_receive(0, 64, 1500);
            assert_eq!(bench.tx.tx_burst(&mut packets), 1, "{features} {len}");
            let came = guest.received();
            if !features.contains(Features::NET_MRG_RXBUF) {
                assert!(came.is_empty());
                assert_eq!(bench.tx_stats.totals().lost(linecard_vhost_user::TxLoss::TooLong), 1);
                break;
            }
            let buffers = (len + HEADER).div_ceil(1500);
            assert_eq!(came.len(), buffers, "{features} {len}");
            let stream: Vec<u8> = came.into_iter().flat_map(|(_, bytes)| bytes).collect();
            assert_eq!(stream[10..12], (buffers as u16).to_le_bytes());
            assert!(stream[HEADER..] == body);
            // Uses up what is left, so that the next round begins with fresh buffers.
            drain(&mut bench, &mut guest, 64 - buffers);
        }
        bench.assert_whole();
    }
}

fn drain(bench: &mut Bench, guest: &mut Guest, n: usize) {
    for _ in 0..n {
        let mut packets = Burst::new();
        let mut packet = bench.pool.get().expect("packet");
        packet.append(60).expect("room").fill(1);
        packets.push(packet).expect("room");
        assert_eq!(bench.tx.tx_burst(&mut packets), 1);
    }
    assert_eq!(guest.received().len(), n);
}

#[test]
fn a_full_ring_leaves_packets_with_the_sender() {
    for features in kinds() {
        let mut bench = Bench::new("full");
        let mut guest = Guest::start(&bench.path, features);
        bench.wait_link(true);
        guest.post_receive(0, 10, 2048);
        let mut packets = Burst::new();
        bench.pool.get_bulk(&mut packets, 32).unwrap();
        packets.iter_mut().for_each(|packet| {
            packet.append(100).expect("room").fill(3);
        });
        assert_eq!(bench.tx.tx_burst(&mut packets), 10, "{features}");
        assert_eq!(packets.len(), 22);
        assert_eq!(bench.tx.tx_burst(&mut packets), 0);
        assert_eq!(guest.received().len(), 10);
        guest.post_receive(10, 30, 2048);
        assert_eq!(bench.tx.tx_burst(&mut packets), 22);
        assert_eq!(guest.received().len(), 22);
        bench.assert_whole();
    }
}

#[test]
fn an_empty_pool_leaves_packets_in_the_ring_and_counts() {
    let mut bench = Bench::new("empty");
    let mut guest = Guest::start(&bench.path, Features::empty());
    bench.wait_link(true);
    let mut held: Vec<_> = std::iter::from_fn(|| bench.pool.get()).collect();
    (0..8).for_each(|n| guest.send(&frame(n, 100)));
    guest.tx.publish();
    let mut packets = Burst::new();
    assert_eq!(bench.rx.rx_burst(&mut packets), 0);
    assert!(bench.rx_stats.totals().lost(linecard_vhost_user::RxLoss::NoBuffer) > 0);
    held.truncate(held.len() - 3);
    assert!(bench.rx.rx_burst(&mut packets) > 0);
    held.clear();
    while packets.len() < 8 {
        bench.rx.rx_burst(&mut packets);
    }
    for (n, packet) in packets.iter().enumerate() {
        assert_eq!(packet.data(), frame(n, 100));
    }
    packets.clear();
    bench.assert_whole();
}

#[test]
fn the_driver_is_called_when_it_asks_for_it() {
    for features in kinds() {
        let mut bench = Bench::new("call");
        let mut guest = Guest::start(&bench.path, features);
        bench.wait_link(true);
        // Whatever starting has signalled.
        let mut packets = Burst::new();
        bench.rx.rx_burst(&mut packets);
        guest.frontend.calls.iter().for_each(|call| {
            common::take_count(call);
        });
        guest.tx.interrupts(true);
        guest.rx.interrupts(true);
        guest.send(&frame(1, 60));
        guest.tx.publish();
        guest.post_receive(0, 1, 2048);
        let mut packets = receive(&mut bench.rx, 1);
        bench.rx.rx_burst(&mut packets);
        assert_eq!(common::await_count(&guest.frontend.calls[1]), 1, "{features}");
        assert_eq!(bench.tx.tx_burst(&mut packets), 1);
        assert_eq!(common::await_count(&guest.frontend.calls[0]), 1, "{features}");
        guest.tx.take();
        guest.rx.take();
        // A driver that polls is left alone.
        guest.tx.interrupts(false);
        guest.rx.interrupts(false);
        guest.send(&frame(2, 60));
        guest.tx.publish();
        let mut packets = receive(&mut bench.rx, 1);
        let mut nothing = Burst::new();
        bench.rx.rx_burst(&mut nothing);
        packets.clear();
        assert_eq!(common::take_count(&guest.frontend.calls[1]), 0, "{features}");
    }
}
