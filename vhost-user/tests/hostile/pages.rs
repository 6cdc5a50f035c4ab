//! Memory whose pages go away in ways that hurt most.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use linecard_mempool::Burst;
use linecard_pmd::{RxQueue, TxQueue};
use linecard_virtio::Features;
use linecard_wire::FrontendReq as Req;
use linecard_wire::payload::{MemoryRegion, Payload, SingleRegion, VringAddr, VringFd, VringState};

use crate::common::{Bench, Frontend, GUEST, MEMORY, USER, memfd};

/// As many descriptors as a ring may have.
const SIZE: usize = 32_768;
/// One descriptor leads to every second page.
const STRIDE: u64 = 8192;
const FAR: u64 = GUEST + (1 << 40);
/// Where the ring lies in the frontend's memory: 512 KiB of descriptors, then both rings.
const RING: usize = 2 << 20;
const AVAIL: usize = RING + SIZE * 16;
const USED: usize = AVAIL + (1 << 17);

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").expect("proc").lines().count()
}

/// Shares a file of which nothing is left, for one byte of each of `SIZE` pages that are not neighbours.
fn share_nothing(frontend: &mut Frontend) {
    let size = SIZE as u64 * STRIDE;
    let file = memfd(size);
    let region = MemoryRegion { guest_addr: FAR, size, user_addr: USER + (1 << 40), offset: 0 };
    frontend.good(Req::ADD_MEM_REG, &SingleRegion(region).to_bytes(), &[file.as_fd()]);
    file.set_len(0).expect("shrink");
}

/// Starts ring `index` with one chain of `SIZE` descriptors, each one byte in a page of its own.
fn start_long_chain(frontend: &mut Frontend, index: u32) {
    const NEXT: u64 = 1;
    let write = u64::from(index.is_multiple_of(2)) << 1;
    let mut table = Vec::with_capacity(SIZE * 16);
    for n in 0..SIZE as u64 {
        let flags = write | if n + 1 < SIZE as u64 { NEXT } else { 0 };
        table.extend((FAR + n * STRIDE).to_le_bytes());
        table.extend((1 | flags << 32 | (n + 1) << 48).to_le_bytes());
    }
    frontend.bytes(RING, table.len()).copy_from(&table);
    // The head is descriptor 0; one chain is available.
    frontend.bytes(AVAIL, 8).copy_from(&[0, 0, 1, 0, 0, 0, 0, 0]);
    frontend.bytes(USED, 8).copy_from(&[0; 8]);
    let state = |num| VringState { index, num }.to_bytes();
    frontend.good(Req::SET_VRING_NUM, &state(SIZE as u32), &[]);
    frontend.good(Req::SET_VRING_BASE, &state(0), &[]);
    let at = |offset: usize| USER + offset as u64;
    let (desc, avail, used) = (at(RING), at(AVAIL), at(USED));
    const { assert!(USED + SIZE * 8 + 6 <= MEMORY) };
    let addr = VringAddr { index, flags: 0, desc, used, avail, log: 0 };
    frontend.good(Req::SET_VRING_ADDR, &addr.to_bytes(), &[]);
    frontend.good(Req::SET_VRING_KICK, &VringFd { index: index as u8, has_fd: false }.to_bytes(), &[]);
    frontend.enable(index as usize, true);
}

/// One burst touches 32 768 pages that are gone, no two of them neighbours: replaced one by one they would be more
/// mappings than a process may have, and the next fault would end it.
#[test]
fn more_pages_vanish_than_a_process_may_have_mappings() {
    let most: usize = std::fs::read_to_string("/proc/sys/vm/max_map_count")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .expect("a limit");
    println!("a process may have {most} mappings");
    for index in [1_u32, 0] {
        let mut bench = Bench::new("scattered");
        let before = mappings();
        let mut frontend = Frontend::connect(&bench.path);
        frontend.negotiate(Features::NET_MRG_RXBUF);
        frontend.share_memory();
        share_nothing(&mut frontend);
        start_long_chain(&mut frontend, index);
        let mut packets = Burst::new();
        let until = Instant::now() + Duration::from_secs(10);
        let (mut longest, mut most) = (Duration::ZERO, 0);
        while bench.backend.peer().connected() {
            assert!(Instant::now() < until, "the peer was not dropped");
            let began = Instant::now();
            if index == 1 {
                bench.rx.rx_burst(&mut packets);
            } else {
                assert!(bench.pool.get_bulk(&mut packets, 1));
                packets.iter_mut().for_each(|packet| packet.append(1500).expect("room").fill(7));
                bench.tx.tx_burst(&mut packets);
            }
            longest = longest.max(began.elapsed());
            packets.clear();
            most = most.max(mappings());
        }
        assert!(most < before + 200, "{before} mappings became {most}");
        assert!(longest < Duration::from_millis(200), "a burst took {longest:?}");
        drop(frontend);
        bench.wait_gone();
        bench.assert_whole();
    }
}
