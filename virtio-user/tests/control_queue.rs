//! What a port asks of a device that has a control queue, split and packed, and when.

mod support;

use std::sync::Arc;

use linecard_lab::{wait_for, wait_until};
use linecard_pmd::filter::VlanSet;
use linecard_pmd::offload::{Offloads, RxOffloads};
use linecard_pmd::{DevArgs, Port, PortConfig, QueueId};
use linecard_virtio::Features;
use support::Bench;
use support::machine::{Controlled, ERR, OK, Reply};

const LAYOUTS: [&str; 2] = ["packed_vq=0", "packed_vq=1"];
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn open(bench: &Bench, device: &Controlled, options: &str, queues: u16) -> Result<Port, String> {
    let args = format!("net_virtio_user0,mac=02:00:00:00:00:01,{options}");
    let args = DevArgs::parse(&args).expect("well formed");
    let made = bench.driver.probe_over(&bench.context(), &args, Arc::new(device.clone()));
    let made = made.map_err(|error| error.to_string())?;
    let config = PortConfig::default().rx_queues(queues).tx_queues(queues);
    bench.start(made, config).map_err(|failed| failed.error.to_string())
}

fn mac(mac: [u8; 6]) -> Vec<u8> {
    [&[1, 1][..], &mac].concat()
}

fn table(unicast: &[[u8; 6]], multicast: &[[u8; 6]]) -> Vec<u8> {
    let list = |list: &[[u8; 6]]| [&(list.len() as u32).to_le_bytes(), list.as_flattened()].concat();
    [vec![1, 0], list(unicast), list(multicast)].concat()
}

fn promiscuous(on: bool) -> Vec<u8> {
    vec![0, 0, on.into()]
}

fn allmulticast(on: bool) -> Vec<u8> {
    vec![0, 1, on.into()]
}

/// Waits until the device was asked for all of `want`, and for nothing else.
#[track_caller]
fn asked(device: &Controlled, want: &[Vec<u8>]) {
    let mut got = Vec::new();
    wait_until("the device is asked", || {
        got.extend(device.commands());
        got.len() >= want.len()
    });
    assert_eq!(got, want);
}

#[test]
fn a_start_tells_pairs_address_and_modes() {
    for layout in LAYOUTS {
        let (bench, device) = (Bench::new(2048), Controlled::new(4));
        let port = open(&bench, &device, &format!("queues=4,{layout}"), 3).expect("a port");
        let modes = [mac(MAC), table(&[MAC], &[]), promiscuous(true), allmulticast(false)];
        asked(&device, &[vec![vec![4, 0, 3, 0]], modes.to_vec()].concat());
        let features = device.now().features;
        assert!(features.contains(Features::NET_CTRL_VQ | Features::NET_CTRL_RX | Features::NET_MQ));
        assert!(!features.contains(Features::NET_CTRL_VLAN), "nobody filters VLANs");
        // Three pairs, and the control ring behind all four that the device has.
        let rings: Vec<u32> = device.now().rings.keys().copied().collect();
        assert_eq!(rings, [0, 1, 2, 3, 4, 5, 8], "{layout}");
        assert!(device.now().rings.values().all(|enabled| *enabled));
        drop(port.stop());
        assert!(device.now().rings.is_empty(), "all stopped");
        bench.assert_whole();
    }
}

#[test]
fn one_pair_is_not_asked_for() {
    for layout in LAYOUTS {
        let (bench, device) = (Bench::new(2048), Controlled::new(4));
        let port = open(&bench, &device, layout, 1).expect("a port");
        asked(&device, &[mac(MAC), table(&[MAC], &[]), promiscuous(true), allmulticast(false)]);
        assert!(!device.now().features.contains(Features::NET_MQ));
        drop(port.stop());
    }
}

#[test]
fn changes_are_told_while_packets_may_pass() {
    for layout in LAYOUTS {
        let (bench, device) = (Bench::new(2048), Controlled::new(1));
        let port = open(&bench, &device, layout, 1).expect("a port");
        asked(&device, &[mac(MAC), table(&[MAC], &[]), promiscuous(true), allmulticast(false)]);
        let filter = port.control.rx_filter().expect("it has one");
        let (second, group) = ([2, 0, 0, 0, 0, 2], [1, 0, 0x5e, 0, 0, 1]);
        port.control.set_promiscuous(false);
        asked(&device, &[table(&[MAC], &[]), promiscuous(false), allmulticast(false)]);
        filter.set_unicast(&[second]).expect("an address");
        asked(&device, &[table(&[MAC, second], &[]), promiscuous(false), allmulticast(false)]);
        filter.set_multicast(&[group]).expect("a group");
        asked(&device, &[table(&[MAC, second], &[group]), promiscuous(false), allmulticast(false)]);
        port.control.set_allmulticast(true).expect("it can");
        asked(&device, &[table(&[MAC, second], &[group]), promiscuous(false), allmulticast(true)]);
        let other = [2, 0, 0, 0, 0, 9];
        port.control.set_mac(other).expect("an address");
        asked(
            &device,
            &[mac(other), table(&[other, second], &[group]), promiscuous(false), allmulticast(true)],
        );
        assert!(port.control.link().up);
        drop(port.stop());
    }
}

/// More requests than the ring has descriptors, many times over: each one comes once.
#[test]
fn many_requests_come_in_order() {
    for layout in LAYOUTS {
        let (bench, device) = (Bench::new(2048), Controlled::new(1));
        let port = open(&bench, &device, layout, 1).expect("a port");
        wait_for("the start", || (device.commands().len() == 4).then_some(()));
        for turn in 0..200 {
            let on = turn % 2 == 1;
            port.control.set_promiscuous(on);
            asked(&device, &[table(&[MAC], &[]), promiscuous(on), allmulticast(false)]);
        }
        drop(port.stop());
    }
}

/// A device that filters VLANs lets none through at first: it is only asked to where the port filters them.
#[test]
fn vlans_are_told_where_they_are_filtered_from_the_start() {
    for layout in LAYOUTS {
        let (bench, device) = (Bench::new(2048), Controlled::new(1));
        let port = open(&bench, &device, layout, 1).expect("a port");
        let mut vlans = VlanSet::default();
        [7, 4095].into_iter().for_each(|vlan| vlans.set(vlan, true));
        port.control.rx_filter().expect("it has one").set_vlans(Some(vlans));
        let stopped = port.stop();
        device.commands();
        let port = bench.start(stopped, PortConfig::default()).expect("a port");
        let start = [mac(MAC), table(&[MAC], &[]), promiscuous(true), allmulticast(false)];
        asked(&device, &[&start[..], &[vec![2, 0, 7, 0], vec![2, 0, 0xff, 0x0f]]].concat());
        assert!(device.now().features.contains(Features::NET_CTRL_VLAN));
        let filter = port.control.rx_filter().expect("it has one");
        let mut vlans = VlanSet::default();
        [8, 4095].into_iter().for_each(|vlan| vlans.set(vlan, true));
        filter.set_vlans(Some(vlans));
        asked(&device, &[&start[1..], &[vec![2, 1, 7, 0], vec![2, 0, 8, 0]]].concat());
        filter.set_vlans(None);
        let mut got = Vec::new();
        wait_until("all of them", || {
            got.extend(device.commands());
            got.len() == 3 + 4094
        });
        assert!(got[3..].iter().all(|command| command[..2] == [2, 0]), "none is taken away");
        drop(port.stop());
    }
}

/// A device that is slow with thousands of VLANs does not keep its port from all else meanwhile; and it hears of all of them.
#[test]
fn a_slow_table_of_vlans_lets_the_port_do_other_things() {
    let (bench, device) = (Bench::new(2048), Controlled::new(1));
    let port = open(&bench, &device, LAYOUTS[0], 1).expect("a port");
    port.control.rx_filter().expect("it has one").set_vlans(Some(VlanSet::default()));
    let stopped = port.stop();
    let port = bench.start(stopped, PortConfig::default()).expect("a port");
    assert!(device.now().features.contains(Features::NET_CTRL_VLAN));
    device.commands();
    // Each answer takes 10 ms: 40 s for all of them.
    device.replies(|_| Reply::Late(1));
    port.control.rx_filter().expect("it has one").set_vlans(None);
    let mut told = Vec::new();
    wait_until("it is told of VLANs", || {
        told.extend(device.commands());
        told.iter().any(|command| command[..2] == [2, 0])
    });
    for _ in 0..3 {
        port.control.used_descriptors(QueueId::Receive(0)).expect("the port sees to it meanwhile");
    }
    device.replies(|_| Reply::Ack(OK));
    wait_until("all of them", || {
        told.extend(device.commands());
        told.iter().filter(|command| command[..2] == [2, 0]).count() == 4096
    });
    assert_eq!(
        told.iter().filter(|command| command[..2] == [1, 0]).count(),
        1,
        "the table of addresses once"
    );
    assert!(port.control.link().up);
    drop(port.stop());
}

/// The port's own filter does what the device does not; a table without room means that everything has to come.
#[test]
fn refusals_do_not_take_the_port_down() {
    for layout in LAYOUTS {
        let (bench, device) = (Bench::new(2048), Controlled::new(1));
        device.replies(|command| Reply::Ack(if command[..2] == [1, 0] { ERR } else { OK }));
        let port = open(&bench, &device, layout, 1).expect("a port");
        port.control.set_promiscuous(false);
        let start = [mac(MAC), table(&[MAC], &[]), promiscuous(true), allmulticast(true)];
        asked(&device, &[&start[..], &start[1..]].concat());
        device.replies(|_| Reply::Ack(ERR));
        port.control.set_promiscuous(true);
        asked(&device, &start[1..]);
        assert!(port.control.link().up);
        drop(port.stop());
    }
}

/// Queue pairs that are refused are another matter: packets for them would never come.
#[test]
fn pairs_that_are_refused_are_said() {
    for layout in LAYOUTS {
        let (bench, device) = (Bench::new(2048), Controlled::new(2));
        device.replies(|_| Reply::Ack(ERR));
        let error = open(&bench, &device, &format!("queues=2,{layout}"), 2).expect_err("refused");
        assert!(error.contains("refused VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET"), "{error}");
        bench.assert_whole();
    }
}

#[test]
fn a_slow_answer_is_waited_for() {
    for layout in LAYOUTS {
        let (bench, device) = (Bench::new(2048), Controlled::new(1));
        device.replies(|_| Reply::Late(3));
        let port = open(&bench, &device, layout, 1).expect("a port");
        asked(&device, &[mac(MAC), table(&[MAC], &[]), promiscuous(true), allmulticast(false)]);
        assert!(port.control.link().up);
        drop(port.stop());
    }
}

/// A stop does not wait for an answer that never comes.
#[test]
fn a_stop_ends_a_request() {
    for layout in LAYOUTS {
        let (bench, device) = (Bench::new(2048), Controlled::new(1));
        let port = open(&bench, &device, layout, 1).expect("a port");
        device.commands();
        device.replies(|_| Reply::Silence);
        port.control.set_promiscuous(false);
        asked(&device, &[table(&[MAC], &[])]);
        drop(port.stop());
        bench.assert_whole();
    }
}

/// What a port was started with can be switched off and on again while it runs; all else needs a stop.
#[test]
fn receive_offloads_are_switched_while_the_port_runs() {
    let csum = Features::NET_GUEST_CSUM;
    let large = Features::NET_GUEST_TSO4 | Features::NET_GUEST_TSO6;
    for layout in LAYOUTS {
        let (bench, device) = (Bench::new(2048), Controlled::new(1));
        device.now().offer.features |=
            csum | large | Features::NET_CTRL_GUEST_OFFLOADS | Features::NET_MRG_RXBUF;
        let started = RxOffloads::CHECKSUM | RxOffloads::TCP_LRO;
        let offloads = Offloads { rx: started, ..Offloads::default() };
        let args = format!("net_virtio_user0,mac=02:00:00:00:00:01,{layout}");
        let args = DevArgs::parse(&args).expect("well formed");
        let made = bench.driver.probe_over(&bench.context(), &args, Arc::new(device.clone()));
        let config = PortConfig::default().offloads(offloads);
        let port =
            bench.start(made.expect("a device"), config).map_err(|failed| failed.error).expect("a port");
        asked(&device, &[mac(MAC), table(&[MAC], &[]), promiscuous(true), allmulticast(false)]);
        let told = |offloads: Features| [&[5, 0][..], &offloads.bits().to_le_bytes()].concat();
        for (rx, want) in [
            (RxOffloads::CHECKSUM, csum),
            (RxOffloads::empty(), Features::empty()),
            (started, csum | large),
            (RxOffloads::TCP_CKSUM, csum),
        ] {
            port.control.set_rx_offloads(rx).expect("it can be switched");
            asked(&device, &[told(want)]);
        }
        // Nothing for the device in it, and what the port was not started with.
        port.control.set_rx_offloads(RxOffloads::UDP_CKSUM).expect("it can be switched");
        for rx in [RxOffloads::RSS_HASH, RxOffloads::CHECKSUM | RxOffloads::VLAN_STRIP] {
            let error = port.control.set_rx_offloads(rx).expect_err("not while it runs").to_string();
            assert!(error.contains("stop the port, change them, and start it"), "{error}");
        }
        // A device that refuses keeps them; the port is as well.
        device.replies(|_| Reply::Ack(ERR));
        port.control.set_rx_offloads(RxOffloads::empty()).expect("it can be asked");
        asked(&device, &[told(Features::empty())]);
        assert!(port.control.link().up);
        drop(port.stop());
        bench.assert_whole();
    }
}

/// A device that comes back has everything on, and is told again; one that cannot be told is not asked.
#[test]
fn a_device_is_told_of_offloads_again() {
    for able in [true, false] {
        let (bench, device) = (Bench::new(2048), Controlled::new(1));
        let more = Features::empty().with(Features::NET_CTRL_GUEST_OFFLOADS, able);
        device.now().offer.features |= Features::NET_GUEST_CSUM | more;
        let offloads = Offloads { rx: RxOffloads::CHECKSUM, ..Offloads::default() };
        let args = DevArgs::parse("net_virtio_user0,mac=02:00:00:00:00:01").expect("well formed");
        let made = bench.driver.probe_over(&bench.context(), &args, Arc::new(device.clone()));
        let config = PortConfig::default().offloads(offloads);
        let port =
            bench.start(made.expect("a device"), config).map_err(|failed| failed.error).expect("a port");
        wait_for("the start", || (device.commands().len() == 4).then_some(()));
        let switched = port.control.set_rx_offloads(RxOffloads::empty());
        assert_eq!(switched.is_ok(), able);
        if able {
            let off = vec![5, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            asked(&device, std::slice::from_ref(&off));
            // An answer that is none costs the connection; the next one is told.
            device.replies(|_| Reply::Ack(7));
            port.control.set_promiscuous(false);
            wait_until("it is lost", || !port.control.link().up);
            device.commands();
            device.replies(|_| Reply::Ack(OK));
            wait_until("it is told again", || device.commands().contains(&off));
        }
        drop(port.stop());
    }
}

/// The feature alone is no queue: vhost-user backends offer it for their frontend to have one.
#[test]
fn without_a_queue_nothing_is_asked() {
    let (bench, device) = (Bench::new(2048), Controlled::new(1));
    device.now().control_queue = false;
    let port = open(&bench, &device, "packed_vq=0", 1).expect("a port");
    port.control.set_promiscuous(false);
    assert_eq!(device.now().features, Features::VERSION_1);
    assert_eq!(device.now().rings.len(), 2);
    drop(port.stop());
    assert_eq!(device.commands(), Vec::<Vec<u8>>::new());
}

/// The device is answered when the frame is in the transmit ring, and not asked again.
#[test]
fn an_announcement_is_sent_and_acknowledged() {
    for layout in LAYOUTS {
        let (bench, device) = (Bench::new(2048), Controlled::new(1));
        device.now().offer.features |= Features::NET_GUEST_ANNOUNCE;
        let port = open(&bench, &device, layout, 1).expect("a port");
        assert!(device.now().features.contains(Features::NET_GUEST_ANNOUNCE));
        asked(&device, &[mac(MAC), table(&[MAC], &[]), promiscuous(true), allmulticast(false)]);
        assert_eq!(device.first_sent(), None);
        device.ask_for_announcement();
        asked(&device, &[vec![3, 0]]);
        let frame = device.first_sent().expect("sent before it was acknowledged");
        assert_eq!(frame, linecard_net::arp::rarp_announcement(MAC), "{layout}");
        // What else the port does afterwards comes without another one.
        port.control.set_promiscuous(false);
        asked(&device, &[table(&[MAC], &[]), promiscuous(false), allmulticast(false)]);
        device.ask_for_announcement();
        asked(&device, &[vec![3, 0]]);
        assert!(port.control.link().up);
        assert_eq!(port.control.stats().opackets, 2, "{layout}");
        drop(port.stop());
        bench.assert_whole();
    }
}

/// Where the port would not be told, it does not promise to announce itself.
#[test]
fn announcements_are_not_agreed_where_nobody_tells_of_them() {
    let (bench, device) = (Bench::new(2048), Controlled::new(1));
    device.now().offer.features |= Features::NET_GUEST_ANNOUNCE;
    device.now().tells_announcements = false;
    let port = open(&bench, &device, "packed_vq=0", 1).expect("a port");
    assert!(!device.now().features.contains(Features::NET_GUEST_ANNOUNCE));
    drop(port.stop());
}

/// A ring without room does not keep the device waiting for ever: it is answered all the same, and the port goes on.
#[test]
fn a_full_ring_does_not_keep_an_announcement_waiting() {
    for layout in LAYOUTS {
        let (bench, device) = (Bench::new(2048), Controlled::new(1));
        device.now().offer.features |= Features::NET_GUEST_ANNOUNCE;
        let mut port = open(&bench, &device, &format!("{layout},queue_size=16"), 1).expect("a port");
        asked(&device, &[mac(MAC), table(&[MAC], &[]), promiscuous(true), allmulticast(false)]);
        bench.send(&mut port, 16);
        device.ask_for_announcement();
        asked(&device, &[vec![3, 0]]);
        assert_eq!(port.control.stats().opackets, 16);
        assert!(port.control.link().up);
        drop(port.stop());
        bench.assert_whole();
    }
}
