//! Memory whose pages go away in ways that hurt most.

use std::time::{Duration, Instant};

use linecard_lab::processor_time;
use linecard_mempool::Burst;
use linecard_pmd::{RxQueue, TxQueue};
use linecard_vhost_user::Control;
use linecard_virtio::Features;

use crate::common::{Bench, Frontend};
use crate::first_touch::{Chains, SIZE};
use crate::traffic::Traffic;

/// Chains as long as they may be, over all descriptors of a ring; one byte of each second page.
const CHAINS: Chains = Chains { count: SIZE / 1024, length: 1024, bytes: 1, stride: 8192 };

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").expect("proc").lines().count()
}

/// Bursts touch 32 768 pages that are gone, no two of them neighbours: replaced one by one they would be more
/// mappings than a process may have, and the next fault would end it.
#[test]
fn more_pages_vanish_than_a_process_may_have_mappings() {
    let most: usize = std::fs::read_to_string("/proc/sys/vm/max_map_count")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .expect("a limit");
    println!("a process may have {most} mappings");
    let mut traffic = Traffic::new(&Control::new());
    for index in [1_u32, 0] {
        let mut bench = Bench::new("scattered");
        let before = mappings();
        let mut frontend = Frontend::connect(&bench.path);
        frontend.negotiate(Features::NET_MRG_RXBUF);
        frontend.share_memory();
        CHAINS.share(&mut frontend).set_len(0).expect("shrink");
        CHAINS.start(&mut frontend, index);
        let mut packets = Burst::new();
        let until = Instant::now() + Duration::from_secs(60);
        let (mut longest, mut most) = (Duration::ZERO, 0);
        while bench.backend.peer().connected() {
            assert!(Instant::now() < until, "the peer was not dropped");
            let began = processor_time();
            if index == 1 {
                bench.rx.rx_burst(&mut packets);
            } else {
                bench.pool.get_bulk(&mut packets, 1).unwrap();
                packets.iter_mut().for_each(|packet| packet.append(1500).expect("room").fill(7));
                bench.tx.tx_burst(&mut packets);
            }
            longest = longest.max(processor_time() - began);
            packets.clear();
            traffic.pass();
            most = most.max(mappings());
        }
        assert!(most < before + 200, "{before} mappings became {most}");
        assert!(longest < Duration::from_millis(200), "a burst took {longest:?}");
        drop(frontend);
        bench.wait_gone();
        bench.assert_whole();
    }
}
