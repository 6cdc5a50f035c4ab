//! Interfaces that were removed under a port, and its next start.

use linecard_mempool::Burst;

use super::behaviour::{Bench, packet};
use linecard_lab::{Lab, wait_until};
use linecard_pmd::config::{PortConfig, configure};

#[test]
fn a_removed_interface_is_made_again_and_joined_again() {
    let Some(lab) = Lab::new("a_removed_interface_is_made_again_and_joined_again") else { return };
    lab.veth("veth0", "veth1");
    let bench = Bench::new();
    let (port, pool) = bench.start(&lab, ",iface=t,remote=veth0", PortConfig::default());
    lab.ip("link del dev t");
    let mut port = configure(port.stop(), PortConfig::default())
        .and_then(|port| port.start(&pool))
        .expect("the interface is made again");
    let wire = lab.wire("veth1");
    let frame = [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5][..], &[7; 60]].concat();
    let mut got = Vec::new();
    wait_until("a frame leaves by the remote interface", || {
        let mut burst = Burst::new();
        burst.push(packet(&pool, &frame)).expect("room");
        port.tx[0].tx_burst(&mut burst);
        got.extend(wire.receive());
        got.contains(&frame)
    });
    drop(port.stop());
}

#[test]
fn what_has_its_name_by_now_is_taken_over() {
    let Some(lab) = Lab::new("what_has_its_name_by_now_is_taken_over") else { return };
    let bench = Bench::new();
    let (port, pool) = bench.start(&lab, ",iface=t", PortConfig::default());
    let device = port.stop();
    lab.ip("link del dev t");
    lab.ip("tuntap add dev t mode tap");
    let refused =
        configure(device, PortConfig::default()).and_then(|port| port.start(&pool)).expect_err("one queue");
    assert!(
        refused.error.to_string().contains("'t' is a tap interface of one queue only"),
        "{}",
        refused.error
    );
    lab.ip("link del dev t");
    lab.ip("tuntap add dev t mode tap multi_queue vnet_hdr");
    let port = configure(refused.device, PortConfig::default())
        .and_then(|port| port.start(&pool))
        .expect("this one will do");
    assert!(port.control.link().up);
    drop(port.stop());
    assert_eq!(pool.stats().in_use, 0);
}

#[test]
fn what_was_handed_over_is_still_there_after_a_start_that_failed() {
    let Some(lab) = Lab::new("what_was_handed_over_is_still_there_after_a_start_that_failed") else { return };
    let bench = Bench::new();
    let (port, pool) = bench.start(&lab, ",iface=t", PortConfig::default());
    let handed = port.running.hand_over().expect("it can be").hold()().expect("descriptors");
    let device = bench.succeed(&format!("net_tap0,netns={}", lab.path()), handed).expect("the interface");
    let small = bench.pool_of(100);
    let refused = configure(device, PortConfig::default().mtu(9000)).and_then(|port| port.start(&small));
    let refused = refused.expect_err("the buffers are too small");
    let two = PortConfig::default().rx_queues(2).tx_queues(2);
    let refused =
        configure(refused.device, two).and_then(|port| port.start(&pool)).expect_err("one was handed over");
    let problem = refused.error.to_string();
    assert!(problem.contains("2 queues are asked for, and 1 were handed over"), "{problem}");
    let second = configure(refused.device, PortConfig::default()).and_then(|port| port.start(&pool));
    drop(second.expect("the queue is there").stop());
    drop(port.stop());
}
