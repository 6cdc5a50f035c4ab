//! Memory that changes, shrinks, and goes, while packets move.

mod common;

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Bench, Frontend, GUEST, Guest, MEMORY, USER, eventfd, frame, memfd, receive, take_count};
use linecard_lab::wait_for;
use linecard_mempool::Burst;
use linecard_pmd::{RxQueue, TxQueue};
use linecard_virtio::Features;
use linecard_wire::FrontendReq as Req;
use linecard_wire::payload::{MemTable, MemoryRegion, Payload, SingleRegion, VringFd};

fn extra(n: u64) -> MemoryRegion {
    let size = 4096;
    MemoryRegion { guest_addr: GUEST * 1000 + n * size, size, user_addr: USER * 2 + n * size, offset: 0 }
}

#[test]
fn as_many_slots_as_promised_and_not_one_more() {
    let bench = Bench::new("slots");
    let mut frontend = Frontend::connect(&bench.path);
    frontend.negotiate(Features::empty());
    let slots = frontend.number(Req::GET_MAX_MEM_SLOTS);
    let file = memfd(4096);
    for n in 0..slots {
        frontend.good(Req::ADD_MEM_REG, &SingleRegion(extra(n)).to_bytes(), &[file.as_fd()]);
    }
    frontend.refused(Req::ADD_MEM_REG, &SingleRegion(extra(slots)).to_bytes(), &[file.as_fd()]);
    for n in (0..slots).rev() {
        frontend.good(Req::REM_MEM_REG, &SingleRegion(extra(n)).to_bytes(), &[]);
    }
    // QEMU sends a descriptor with removals.
    frontend.good(Req::ADD_MEM_REG, &SingleRegion(extra(0)).to_bytes(), &[file.as_fd()]);
    frontend.good(Req::REM_MEM_REG, &SingleRegion(extra(0)).to_bytes(), &[file.as_fd()]);
}

/// A port with a limit of its own tells it, and refuses more however it is asked.
#[test]
fn a_port_may_have_fewer_slots() {
    let mut limits = linecard_vhost_user::Limits::default();
    limits.regions = 2;
    let bench = Bench::with_limits("few", limits);
    let mut frontend = Frontend::connect(&bench.path);
    frontend.negotiate(Features::empty());
    assert_eq!(frontend.number(Req::GET_MAX_MEM_SLOTS), 2);
    let file = memfd(4096);
    let table = MemTable((0..3).map(extra).collect()).to_bytes();
    frontend.refused(Req::SET_MEM_TABLE, &table, &[file.as_fd(); 3]);
    for n in 0..2 {
        frontend.good(Req::ADD_MEM_REG, &SingleRegion(extra(n)).to_bytes(), &[file.as_fd()]);
    }
    frontend.refused(Req::ADD_MEM_REG, &SingleRegion(extra(2)).to_bytes(), &[file.as_fd()]);
    frontend.good(Req::REM_MEM_REG, &SingleRegion(extra(0)).to_bytes(), &[]);
    frontend.good(Req::ADD_MEM_REG, &SingleRegion(extra(2)).to_bytes(), &[file.as_fd()]);
}

/// QEMU 7.2 has a vhost device for each queue pair. They share the connection, and each of them adds and removes every
/// region.
#[test]
fn two_vhost_devices_tell_of_the_same_regions() {
    let mut bench = Bench::new("devices");
    let mut guest = Guest::start(&bench.path, Features::empty());
    bench.wait_link(true);
    take_count(&guest.frontend.calls[0]);
    let old = memfd(2 * 4096);
    let new = memfd(2 * 4096);
    let region = |n| SingleRegion(extra(n)).to_bytes();
    for _device in 0..2 {
        guest.frontend.good(Req::ADD_MEM_REG, &region(0), &[old.as_fd()]);
        guest.frontend.good(Req::ADD_MEM_REG, &region(1), &[old.as_fd()]);
    }
    // The first exchanges a region for another at the same place, then so does the second.
    let other = SingleRegion(MemoryRegion { offset: 4096, ..extra(1) }).to_bytes();
    for _device in 0..2 {
        guest.frontend.good(Req::REM_MEM_REG, &region(1), &[old.as_fd()]);
        guest.frontend.good(Req::ADD_MEM_REG, &other, &[new.as_fd()]);
    }
    guest.send(&frame(1, 60));
    guest.tx.publish();
    assert_eq!(receive(&mut bench.rx, 1)[0].data(), frame(1, 60));
}

/// What was said twice is there once; anything else at its place is refused, for we would go on with the old one.
#[test]
fn only_the_very_same_region_may_be_added_again() {
    let bench = Bench::new("twice");
    let mut frontend = Frontend::connect(&bench.path);
    frontend.negotiate(Features::empty());
    let file = memfd(4 * 4096);
    let region = extra(0);
    let again = file.try_clone().expect("dup");
    for fd in [file.as_fd(), again.as_fd()] {
        frontend.good(Req::ADD_MEM_REG, &SingleRegion(region).to_bytes(), &[fd]);
    }
    let others = [
        MemoryRegion { offset: 4096, ..region },
        MemoryRegion { size: 2 * 4096, ..region },
        MemoryRegion { user_addr: region.user_addr + 4096, ..region },
        MemoryRegion { guest_addr: region.guest_addr + 4096, ..region },
    ];
    for other in others {
        frontend.refused(Req::ADD_MEM_REG, &SingleRegion(other).to_bytes(), &[file.as_fd()]);
    }
    let other = memfd(4 * 4096);
    frontend.refused(Req::ADD_MEM_REG, &SingleRegion(region).to_bytes(), &[other.as_fd()]);
    let nothing = eventfd();
    frontend.refused(Req::ADD_MEM_REG, &SingleRegion(region).to_bytes(), &[nothing.as_fd()]);
    frontend.refused(Req::ADD_MEM_REG, &SingleRegion(region).to_bytes(), &[]);
    // It was there once, however often it was added.
    frontend.good(Req::REM_MEM_REG, &SingleRegion(region).to_bytes(), &[]);
    frontend.good(Req::ADD_MEM_REG, &SingleRegion(region).to_bytes(), &[other.as_fd()]);
}

/// A table that was sent before changes nothing: what is mapped stays mapped.
#[test]
fn a_table_that_is_sent_again_is_not_mapped_again() {
    let bench = Bench::new("again");
    let mut frontend = Frontend::connect(&bench.path);
    frontend.negotiate(Features::empty());
    let inode = frontend.file.metadata().expect("a memfd").ino().to_string();
    // Address range, access, offset, device, inode, name: one line for each mapping.
    let places = || -> Vec<String> {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
        let ours = maps.lines().filter(|line| line.split_whitespace().nth(4) == Some(&inode));
        ours.filter_map(|line| line.split_once(' ')).map(|(range, _)| range.to_owned()).collect()
    };
    frontend.share_memory();
    let before = places();
    assert!(before.len() >= 2, "the frontend's mapping and the backend's: {before:?}");
    for _ in 0..3 {
        frontend.share_memory();
        assert_eq!(places(), before);
    }
}

#[test]
fn regions_come_and_go_under_traffic_without_a_packet_lost() {
    for features in [Features::NET_MRG_RXBUF, Features::RING_PACKED] {
        let mut bench = Bench::new("hotplug");
        let mut guest = Guest::start(&bench.path, features);
        bench.wait_link(true);
        let stop = AtomicBool::new(false);
        let (rx, tx) = (&mut bench.rx, &mut bench.tx);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut packets = Burst::new();
                while !stop.load(Ordering::Relaxed) {
                    rx.rx_burst(&mut packets);
                    tx.tx_burst(&mut packets);
                    std::thread::yield_now();
                }
            });
            let file = memfd(4096);
            for n in 0..200 {
                guest.send(&frame(n, 300));
                guest.tx.publish();
                guest.post_receive(n % 128, 1, 2048);
                match n % 3 {
                    0 => guest.frontend.good(
                        Req::ADD_MEM_REG,
                        &SingleRegion(extra(1)).to_bytes(),
                        &[file.as_fd()],
                    ),
                    1 => guest.frontend.good(Req::REM_MEM_REG, &SingleRegion(extra(1)).to_bytes(), &[]),
                    _ => guest.frontend.share_memory(),
                }
                let came = wait_for("a frame", || Some(guest.received()).filter(|came| !came.is_empty()));
                assert_eq!(came.len(), 1);
                assert_eq!(&came[0].1[common::HEADER..], frame(n, 300));
                wait_for("completion", || Some(guest.tx.take()).filter(|done| !done.is_empty()));
            }
            stop.store(true, Ordering::Relaxed);
        });
        bench.assert_whole();
    }
}

#[test]
fn frames_cross_regions_that_are_not_neighbours_here() {
    let mut bench = Bench::new("cross");
    let mut frontend = Frontend::connect(&bench.path);
    frontend.negotiate(Features::empty());
    let mut guest = Guest::over(frontend, Features::empty());
    // The same memory in three regions that touch each other in guest addresses only.
    let cuts = [0, common::RING_AREA + MEMORY / 2 - common::RING_AREA + 40, MEMORY - 4096, MEMORY];
    let table: Vec<_> = cuts
        .windows(2)
        .map(|cut| MemoryRegion {
            guest_addr: GUEST + cut[0] as u64,
            size: (cut[1] - cut[0]) as u64,
            user_addr: USER + cut[0] as u64,
            offset: cut[0] as u64,
        })
        .collect();
    let file = guest.frontend.file.try_clone().expect("dup");
    let fds = [file.as_fd(); 3];
    guest.frontend.good(Req::SET_MEM_TABLE, &MemTable(table).to_bytes(), &fds);
    for n in 0..3 {
        // The first send buffer lies across the first cut.
        guest.send(&frame(n, 500));
        guest.tx.publish();
        assert_eq!(receive(&mut bench.rx, 1)[0].data(), frame(n, 500));
        guest.tx.take();
    }
}

#[test]
fn a_ring_whose_memory_is_removed_stops_and_says_so() {
    let mut bench = Bench::new("removed");
    let mut guest = Guest::start(&bench.path, Features::empty());
    bench.wait_link(true);
    let region = SingleRegion(guest.frontend.region()).to_bytes();
    guest.frontend.good(Req::REM_MEM_REG, &region, &[]);
    assert!(!bench.backend.peer().link_up());
    assert_eq!(take_count(&guest.frontend.errors[0]), 1);
    let mut packets = Burst::new();
    assert_eq!(bench.rx.rx_burst(&mut packets), 0);
    // It comes back with its memory.
    guest.frontend.share_memory();
    assert!(bench.backend.peer().link_up());
    guest.send(&frame(1, 60));
    guest.tx.publish();
    assert_eq!(receive(&mut bench.rx, 1)[0].data(), frame(1, 60));
}

/// The three ways pages vanish: the file shrinks to nothing, to a part, under reads, under writes.
#[test]
fn a_peer_that_shrinks_its_memory_loses_its_port_only() {
    let mut healthy = Bench::new("bystander");
    let mut other = Guest::start(&healthy.path, Features::empty());
    for n in 0..20 {
        let mut bench = Bench::new("shrink");
        let mut guest = Guest::start(&bench.path, Features::NET_MRG_RXBUF);
        bench.wait_link(true);
        (0..8).for_each(|n| guest.send(&frame(n, 1000)));
        guest.tx.publish();
        guest.post_receive(0, 32, 2048);
        let keep = [0, 4096, common::RING_AREA as u64, (MEMORY / 2) as u64][n % 4];
        guest.frontend.file.set_len(keep).expect("shrink");
        let mut packets = Burst::new();
        let until = Instant::now() + Duration::from_secs(5);
        while bench.backend.peer().connected() {
            assert!(Instant::now() < until, "the peer was not dropped");
            bench.rx.rx_burst(&mut packets);
            packets.clear();
            bench.pool.get_bulk(&mut packets, 8).unwrap();
            packets.iter_mut().for_each(|packet| packet.append(1000).expect("room").fill(7));
            bench.tx.tx_burst(&mut packets);
            packets.clear();
            if keep == (MEMORY / 2) as u64 {
                // Only the send buffers are gone: touch them.
                break;
            }
        }
        drop(guest);
        bench.wait_gone();
        bench.assert_whole();
        // The same socket serves the next one.
        let mut guest = Guest::start(&bench.path, Features::empty());
        guest.send(&frame(1, 60));
        guest.tx.publish();
        assert_eq!(receive(&mut bench.rx, 1)[0].data(), frame(1, 60));
        other.send(&frame(2, 60));
        other.tx.publish();
        assert_eq!(receive(&mut healthy.rx, 1)[0].data(), frame(2, 60));
        other.tx.take();
    }
}

/// The control thread reads rings too, when it starts them.
#[test]
fn memory_that_shrinks_before_its_rings_start_ends_that_peer_alone() {
    let mut bench = Bench::new("early");
    let mut bystander = Bench::new("bystander");
    let mut other = Guest::start(&bystander.path, Features::empty());
    for features in [Features::empty(), Features::RING_PACKED] {
        for _ in 0..10 {
            let mut frontend = Frontend::connect(&bench.path);
            frontend.negotiate(features);
            frontend.share_memory();
            frontend.describe_ring(0, 256, if features == Features::empty() { 0 } else { 0x8000_8000 });
            frontend.file.set_len(0).expect("shrink");
            // Answered or not: nobody must be harmed.
            let kick = VringFd { index: 0, has_fd: false }.to_bytes();
            let _ = frontend.ask(Req::SET_VRING_KICK, &kick, &[]);
            let _ = frontend.ask(Req::SET_VRING_KICK, &kick, &[]);
            let mut packets = Burst::new();
            bench.tx.tx_burst(&mut packets);
            bench.rx.rx_burst(&mut packets);
            drop(frontend);
            bench.wait_gone();
        }
    }
    other.send(&frame(2, 60));
    other.tx.publish();
    assert_eq!(receive(&mut bystander.rx, 1)[0].data(), frame(2, 60));
    let mut guest = Guest::start(&bench.path, Features::empty());
    guest.send(&frame(1, 60));
    guest.tx.publish();
    assert_eq!(receive(&mut bench.rx, 1)[0].data(), frame(1, 60));
    bench.assert_whole();
}

#[test]
fn maps_are_guarded_and_neither_dumped_nor_inherited() {
    let bench = Bench::new("guard");
    let mut frontend = Frontend::connect(&bench.path);
    frontend.negotiate(Features::empty());
    frontend.share_memory();
    let inode =
        format!(" {} ", std::os::unix::fs::MetadataExt::ino(&frontend.file.metadata().expect("meta")));
    let smaps = std::fs::read_to_string("/proc/self/smaps").expect("smaps");
    let maps: Vec<&str> = smaps.lines().filter(|line| line.contains('-') && line.contains(" 00:")).collect();
    let ours = frontend.map.as_ptr().addr();
    let at = maps
        .iter()
        .position(|line| line.contains(&inode) && !line.starts_with(&format!("{ours:x}-")))
        .expect("the backend's mapping");
    assert!(maps[at].contains("rw-s"));
    assert!(maps[at - 1].contains("---p"), "{}", maps[at - 1]);
    assert!(maps[at + 1].contains("---p"), "{}", maps[at + 1]);
    let flags = smaps
        .split(maps[at])
        .nth(1)
        .and_then(|rest| rest.lines().find(|line| line.starts_with("VmFlags")))
        .expect("flags");
    assert!(flags.contains(" dd") && flags.contains(" dc"), "{flags}");
    assert!(frontend.file.as_raw_fd() >= 0);
}
