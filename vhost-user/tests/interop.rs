//! The `vhost` crate's frontend against our backend.

mod common;

use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;

use common::{Bench, Frontend as Memory, GUEST, SIZE, USER, driver, frame, receive};
use linecard_virtio::{Buffer, Features};
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserInflight, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserDirtyLogRegion, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

/// Agrees on what this test uses; the features.
fn negotiate(frontend: &mut Frontend) -> Features {
    frontend.set_owner().expect("owner");
    let offered = Features::from_bits_retain(frontend.get_features().expect("features"));
    let wanted =
        Features::VERSION_1 | Features::PROTOCOL_FEATURES | Features::NET_MRG_RXBUF | Features::IN_ORDER;
    assert!(offered.contains(wanted));
    frontend.set_features(wanted.bits()).expect("features");
    let protocol = frontend.get_protocol_features().expect("protocol features");
    let use_these = protocol
        & (VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::LOG_SHMFD
            | VhostUserProtocolFeatures::INFLIGHT_SHMFD
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS);
    frontend.set_protocol_features(use_these).expect("protocol features");
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    wanted
}

/// Starts both rings of `memory`; the eventfds they are kicked and called by.
fn start_rings(frontend: &mut Frontend, memory: &Memory) -> [EventFd; 2] {
    let (kick, call) = (EventFd::new(0).expect("event"), EventFd::new(0).expect("event"));
    for index in 0..2 {
        let addr = memory.vring_addr(index, SIZE);
        let config = VringConfigData {
            queue_max_size: SIZE,
            queue_size: SIZE,
            flags: 0,
            desc_table_addr: addr.desc,
            used_ring_addr: addr.used,
            avail_ring_addr: addr.avail,
            log_addr: None,
        };
        frontend.set_vring_num(index, SIZE).expect("num");
        frontend.set_vring_addr(index, &config).expect("addr");
        frontend.set_vring_base(index, 0).expect("base");
        frontend.set_vring_call(index, &call).expect("call");
        frontend.set_vring_kick(index, &kick).expect("kick");
        frontend.set_vring_enable(index, true).expect("enable");
    }
    [kick, call]
}

#[test]
fn the_vhost_crate_gets_packets_through() {
    let mut bench = Bench::with_config_space("crate");
    let stream = UnixStream::connect(&bench.path).expect("connect");
    // Two rings: the crate counts rings where DPDK and QEMU count pairs, so it must not ask.
    let mut frontend = Frontend::from_stream(stream, 2);
    let wanted = negotiate(&mut frontend);

    // Memory and driver halves as in our own frontend, over a socket that nobody uses.
    let mut memory = Memory::over(UnixStream::pair().expect("pair").0);
    memory.features = wanted;
    let region = VhostUserMemoryRegionInfo {
        guest_phys_addr: GUEST,
        memory_size: common::MEMORY as u64,
        userspace_addr: USER,
        mmap_offset: 0,
        mmap_handle: memory.file.as_raw_fd(),
    };
    assert_eq!(frontend.get_max_mem_slots().expect("slots"), 509);
    frontend.add_mem_region(&region).expect("region");
    frontend.add_mem_region(&region).expect("the same once more");
    let elsewhere = VhostUserMemoryRegionInfo { userspace_addr: USER + 4096, ..region };
    assert!(frontend.add_mem_region(&elsewhere).is_err(), "another at the same place");
    let asked = VhostUserInflight { num_queues: 2, queue_size: SIZE, ..VhostUserInflight::default() };
    let (inflight, inflight_file) = frontend.get_inflight_fd(&asked).expect("a region");
    frontend.set_inflight_fd(&inflight, inflight_file.as_raw_fd()).expect("the same region");
    let (mut rx, mut tx) = (driver(&memory, 0, SIZE), driver(&memory, 1, SIZE));
    let _events = start_rings(&mut frontend, &memory);
    bench.wait_link(true);
    let (_, config) = frontend.get_config(0, 12, VhostUserConfigFlags::WRITABLE, &[0; 12]).expect("config");
    assert_eq!(config[..5], *b"VHOST");

    let log = common::memfd(4096);
    for n in 0..100 {
        if n == 50 {
            // As a migration begins.
            let place =
                VhostUserDirtyLogRegion { mmap_size: 4096, mmap_offset: 0, mmap_handle: log.as_raw_fd() };
            frontend.set_log_base(0, Some(place)).expect("a log");
            frontend.set_features((wanted | Features::LOG_ALL).bits()).expect("features");
        }
        let (addr, len) = memory.write_frame(n % 64, &frame(n, 777));
        tx.post(Buffer { addr, len, token: n as u64 });
        tx.publish();
        let (addr, offset) = Memory::buffer(0, n % 64);
        rx.post(Buffer { addr, len: 2048, token: n as u64 });
        rx.publish();
        let mut packets = receive(&mut bench.rx, 1);
        assert_eq!(packets[0].data(), frame(n, 777));
        assert_eq!(linecard_pmd::TxQueue::tx_burst(&mut bench.tx, &mut packets), 1);
        assert_eq!(rx.take().len(), 1);
        assert_eq!(tx.take().len(), 1);
        let mut bytes = vec![0; 777];
        memory.bytes(offset + 12, 777).copy_to(&mut bytes);
        assert_eq!(bytes, frame(n, 777));
    }
    let mut marks = vec![0; 4096];
    log.read_exact_at(&mut marks, 0).expect("the log");
    let marked = |n: usize| {
        let page = Memory::buffer(0, n).0 / 4096;
        marks[(page / 8) as usize] & 1 << (page % 8) != 0
    };
    assert!(
        (0..64).all(|n| marked(n) != (36..50).contains(&n)),
        "buffers 50 to 63 and 0 to 35 were written since"
    );
    // What a restarted backend would go by.
    let mut used = [0; 2];
    inflight_file.read_exact_at(&mut used, 14).expect("the region");
    assert_eq!(u16::from_ne_bytes(used), 100);
    assert_eq!(frontend.get_vring_base(0).expect("base"), 100);
    assert_eq!(frontend.get_vring_base(1).expect("base"), 100);
    frontend.remove_mem_region(&region).expect("remove");
    frontend.remove_mem_region(&region).expect("remove once more");
    drop(frontend);
    bench.wait_gone();
    bench.assert_whole();
}
