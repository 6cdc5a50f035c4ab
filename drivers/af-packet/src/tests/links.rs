//! Interfaces that go down, are renamed, or vanish while they are used.

use linecard_mempool::Burst;

use super::{Bench, Cable, bytes, far_at, frame, near_at, nothing_left, receive};
use linecard_lab::{Lab, wait_until};
use linecard_pmd::config::{PortConfig, configure};

#[test]
fn renamed_it_is_the_same() {
    let Some(cable) = Cable::new("af_packet renamed_it_is_the_same") else { return };
    let bench = Bench::new();
    let mut near = bench.start(&near_at(&cable, ""), PortConfig::default());
    let mut far = bench.start(&far_at(&cable, ""), PortConfig::default());
    cable.near.ip("link set near name other");
    assert!(near.control.link().up);
    let frames: Vec<_> = (0..10).map(|i| frame(i, 70)).collect();
    bench.send(&mut near, &frames);
    assert_eq!(receive(&mut far, 0, 10).len(), 10);
    let device = near.stop();
    let near =
        configure(device, PortConfig::default()).and_then(|port| port.start(&bench.pool)).expect("starts");
    drop((near.stop(), far.stop()));
    bench.finish();
}

#[test]
fn removed_under_traffic() {
    let Some(cable) = Cable::new("af_packet removed_under_traffic") else { return };
    let bench = Bench::new();
    for (round, options) in ["", ",version=3", ",qdisc_bypass=0"].into_iter().enumerate() {
        let mut near = bench.start(&near_at(&cable, options), PortConfig::default());
        let mut far = bench.start(&far_at(&cable, ""), PortConfig::default());
        let lab = &cable.near;
        let pool = &bench.pool;
        let (mut tx, mut peer) = (near.tx.remove(0), far.tx.remove(0));
        // Both ends send for all they are worth while the pair is removed.
        std::thread::scope(|scope| {
            let control = &near.control;
            let push = |tx: &mut dyn linecard_pmd::port::TxQueue| {
                while control.link().up {
                    let mut burst = Burst::new();
                    if pool.get_bulk(&mut burst, 32).is_ok() {
                        for packet in burst.iter_mut() {
                            packet.append(60).expect("room").copy_from_slice(&frame(1, 60));
                        }
                        tx.tx_burst(&mut burst);
                    }
                }
            };
            let (one, other) = (&mut tx, &mut peer);
            scope.spawn(move || push(&mut **one));
            scope.spawn(move || push(&mut **other));
            std::thread::sleep(std::time::Duration::from_millis(50));
            lab.ip("link del near");
        });
        near.tx.insert(0, tx);
        far.tx.insert(0, peer);
        let sent = near.control.stats();
        let mut burst = Burst::new();
        burst.push(bench.packet(&frame(1, 60))).expect("room");
        assert_eq!(near.tx[0].tx_burst(&mut burst), 1, "taken, dropped");
        let now = near.control.stats();
        assert_eq!((now.opackets, now.oerrors), (sent.opackets, sent.oerrors + 1), "and counted");
        // What came before waits in the ring, and is all there is.
        let mut rest = Burst::new();
        wait_until("the ring is empty", || {
            rest.clear();
            near.rx[0].rx_burst(&mut rest) == 0
        });
        near.control.set_promiscuous(false);
        near.control.set_mac([2, 0, 0, 0, 0, 9]).expect_err("there is nothing to set");
        drop(far.stop());
        let refused = configure(near.stop(), PortConfig::default()).err().expect("the interface is gone");
        let message = refused.error.to_string();
        assert!(message.starts_with("net_af_packet0: reading interface near"), "{message}");
        assert!(message.contains("the interface is gone"), "{message}");
        drop(refused);
        nothing_left(lab);
        if round < 2 {
            cable.plug(1);
        }
    }
    bench.finish();
}

#[test]
fn made_again_it_is_found() {
    let Some(cable) = Cable::new("af_packet made_again_it_is_found") else { return };
    let bench = Bench::new();
    let near = bench.start(&near_at(&cable, ""), PortConfig::default());
    let far = bench.start(&far_at(&cable, ""), PortConfig::default());
    cable.near.ip("link del near");
    assert!(!near.control.link().up && !far.control.link().up);
    cable.plug(1);
    let again = |port: linecard_pmd::Port| {
        configure(port.stop(), PortConfig::default()).and_then(|port| port.start(&bench.pool)).expect("found")
    };
    let (mut near, mut far) = (again(near), again(far));
    assert!(near.control.link().up && far.control.link().up);
    assert_eq!(Some(near.control.mac()), cable.near.interface("near").info().expect("there").mac);
    let frames: Vec<_> = (0..10).map(|i| frame(i, 70)).collect();
    bench.send(&mut near, &frames);
    assert_eq!(receive(&mut far, 0, 10).len(), 10);
    // Another kind of interface is none that the port was opened for.
    cable.near.ip("link del near");
    cable.near.ip("tuntap add dev near mode tun");
    let refused = configure(near.stop(), PortConfig::default()).err().expect("no Ethernet");
    assert!(refused.error.to_string().contains("the interface is gone"), "{}", refused.error);
    drop((refused, far.stop()));
    bench.finish();
}

#[test]
fn the_loopback_interface_carries_frames() {
    let Some(lab) = Lab::new("af_packet the_loopback_interface_carries_frames") else { return };
    let bench = Bench::new();
    let mut port =
        bench.start(&format!("net_af_packet0,iface=lo,netns={}", lab.path()), PortConfig::default());
    assert!(port.control.link().up);
    lab.run(|| {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("lo is up");
        socket.send_to(&[0x5a; 100], socket.local_addr().expect("bound")).expect("to ourselves");
    });
    let got = receive(&mut port, 0, 1);
    assert!(got.iter().any(|packet| bytes(packet).ends_with(&[0x5a; 100])), "a datagram to ourselves");
    // And what is sent comes back as from another host.
    bench.send(&mut port, &[frame(3, 70)]);
    let back = receive(&mut port, 0, 1);
    assert!(back.iter().any(|packet| bytes(packet) == frame(3, 70)), "our own frame");
    drop((got, back, port.stop()));
    bench.finish();
}

#[test]
fn promiscuous_mode_ends_with_the_port() {
    let Some(cable) = Cable::new("af_packet promiscuous_mode_ends_with_the_port") else { return };
    let bench = Bench::new();
    let promiscuous = || cable.near.ip("-d link show near").contains("promiscuity 1");
    assert!(!promiscuous());
    let near = bench.start(&near_at(&cable, ",qpairs=2"), PortConfig::default().rx_queues(2));
    assert!(near.control.promiscuous() && promiscuous());
    near.control.set_promiscuous(false);
    assert!(!near.control.promiscuous() && !promiscuous());
    near.control.set_promiscuous(true);
    near.control.set_promiscuous(true);
    assert!(promiscuous());
    let control = std::sync::Arc::clone(&near.control);
    drop(near.stop());
    wait_until("as it was", || !promiscuous());
    control.set_promiscuous(false);
    bench.finish();
}

#[test]
fn the_address_is_the_interfaces() {
    let Some(cable) = Cable::new("af_packet the_address_is_the_interfaces") else { return };
    let bench = Bench::new();
    let near = bench.start(&near_at(&cable, ""), PortConfig::default());
    assert_eq!(Some(near.control.mac()), cable.near.interface("near").info().expect("there").mac);
    near.control.set_mac([2, 0, 0, 0, 0, 77]).expect("veth takes any");
    assert_eq!(cable.near.interface("near").info().expect("there").mac, Some([2, 0, 0, 0, 0, 77]));
    near.control.set_mac([0xff; 6]).expect_err("no station");
    assert_eq!(near.control.mac(), [2, 0, 0, 0, 0, 77]);
    near.stop();
}

#[test]
fn own_packets_do_not_come_back() {
    let Some(cable) = Cable::new("af_packet own_packets_do_not_come_back") else { return };
    let bench = Bench::new();
    for options in ["", ",qdisc_bypass=0", ",version=3,qdisc_bypass=0"] {
        let mut near = bench.start(&near_at(&cable, options), PortConfig::default());
        bench.send(&mut near, &(0..20).map(|i| frame(i, 60)).collect::<Vec<_>>());
        assert_eq!(receive(&mut near, 0, 1).len(), 0, "{options}");
        near.stop();
    }
    bench.finish();
}
