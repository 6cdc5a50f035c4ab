//! What a device tells of itself, and what a port tells its device: MTU, speed, duplex; what packets a port counts.

mod support;

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use linecard_lab::wait_until;
use linecard_mempool::Burst;
use linecard_pmd::{DevArgs, Device, PortConfig};
use linecard_virtio::Features;
use linecard_wire::payload::{Config, Payload};
use linecard_wire::{FrontendReq, OutMessage, ProtocolFeatures};
use support::machine::Controlled;
use support::{Act, Backend, Bench, Place, attached};

/// The configuration of a network device: address, status, pairs, MTU, speed, duplex.
fn config(mtu: u16, speed: u32, duplex: u8) -> Vec<u8> {
    let (start, mtu, speed) = ([2, 0, 0, 0, 0, 0x77, 1, 0, 1, 0], mtu.to_le_bytes(), speed.to_le_bytes());
    [&start[..], &mtu, &speed, &[duplex]].concat()
}

fn probe(bench: &Bench, device: &Controlled, options: &str) -> Box<dyn Device> {
    let args = DevArgs::parse(&format!("net_virtio_user0{options}")).expect("well formed");
    bench.driver.probe_over(&bench.context(), &args, Arc::new(device.clone())).expect("a device")
}

#[test]
fn speed_and_duplex_are_the_devices() {
    let unknown = u32::MAX;
    for (speed, duplex, options, want) in [
        (25_000, 1, "", (Some(25_000), true)),
        (100, 0, "", (Some(100), false)),
        (0, 1, "", (Some(0), true)),
        (unknown, 0xff, "", (None, true)),
        (0x8000_0000, 7, "", (None, true)),
        // What the user says goes before what the device says.
        (25_000, 0, ",speed=40000", (Some(40_000), true)),
    ] {
        let (bench, device) = (Bench::new(1024), Controlled::new(1));
        device.now().offer.features |= Features::NET_SPEED_DUPLEX;
        device.now().config = config(0, speed, duplex);
        let port = bench.start(probe(&bench, &device, options), PortConfig::default()).expect("a port");
        let link = port.control.link();
        assert_eq!((link.speed_mbps, link.full_duplex), want, "{speed} {duplex} {options}");
        drop(port.stop());
    }
}

#[test]
fn an_mtu_of_the_device_is_the_largest() {
    let (bench, device) = (Bench::new(1024), Controlled::new(1));
    device.now().offer.features |= Features::NET_MTU;
    device.now().config = config(4000, 0, 0);
    let made = probe(&bench, &device, "");
    assert_eq!(made.info().mtu, 68..=4000);
    let config_of = |mtu| PortConfig::default().mtu(mtu);
    let refused = bench.start(made, config_of(4001)).expect_err("too long");
    assert!(refused.error.to_string().contains("an MTU of 4001 asked, 68 to 4000 is possible"));
    // One that says less later is not used with longer packets.
    device.now().config = config(1280, 0, 0);
    let refused = bench.start(refused.device, config_of(1500)).expect_err("too long");
    let error = refused.error.to_string();
    assert!(error.contains("an MTU of 1500 asked, the device has 1280"), "{error}");
    let port = bench.start(refused.device, config_of(1280)).expect("a port");
    assert!(device.now().features.contains(Features::NET_MTU));
    drop(port.stop());
    bench.assert_whole();
}

/// A vhost-user backend has its configuration read, and hears the port's MTU.
#[test]
fn a_backend_is_told_the_mtu() {
    for (told, mtu) in [(9000, 1500), (9000, 9000), (0, 1400)] {
        let (bench, place) = (Bench::new(1024), Place::new());
        let listener = UnixListener::bind(&place.0).expect("a socket");
        let peer = std::thread::spawn(move || {
            let mut backend = Backend::accept(&listener);
            backend.protocol |= ProtocolFeatures::CONFIG | ProtocolFeatures::MTU;
            backend.offered |= Features::NET_MTU;
            let (sender, heard) = std::sync::mpsc::channel();
            backend.spoiler = Some(Box::new(move |conn, message| {
                if message.request == FrontendReq::GET_CONFIG as u32 {
                    let asked = Config::from_bytes(&message.payload).expect("a question");
                    let from = asked.offset as usize;
                    let data = config(told, 0, 0)[from..from + asked.data.len()].to_vec();
                    let answer = Config { data, ..asked }.to_bytes();
                    let _ = conn.send(&OutMessage::reply(message.request, &answer));
                    return Act::Handled;
                }
                if message.request == FrontendReq::NET_SET_MTU as u32 {
                    sender.send(u64::from_bytes(&message.payload).expect("a number")).expect("it listens");
                    let _ = conn.send(&OutMessage::reply(message.request, &0_u64.to_bytes()));
                    return Act::Handled;
                }
                Act::Normal
            }));
            backend.until_running(2).expect("a frontend that stays");
            (heard.try_iter().collect::<Vec<_>>(), backend)
        });
        let made = bench.probe(&place.arg()).expect("a device");
        let port = bench.start(made, PortConfig::default().mtu(mtu)).expect("a port");
        let (heard, backend) = peer.join().expect("no panic");
        assert_eq!(heard, [u64::from(mtu)]);
        assert!(backend.features.contains(Features::NET_MTU));
        drop(port.stop());
    }
}

/// DPDK's names, only while they are asked for.
#[test]
fn packets_are_counted_by_size_and_kind_of_address() {
    for kind in ["in_order=0", "packed_vq=1,in_order=1"] {
        let (bench, place) = (Bench::new(1024), Place::new());
        let (mut port, backend, _) = attached(&bench, &place, &format!(",{kind}"));
        let mut echo = backend.echo(0);
        let mut exchange = |port: &mut linecard_pmd::Port| {
            let mut burst = Burst::new();
            bench.pool.get_bulk(&mut burst, 4).unwrap();
            let frames = [(60, 2), (64, 0xff), (127, 1), (1518, 2)];
            for (packet, (len, to)) in burst.iter_mut().zip(frames) {
                packet.append(len).expect("room").fill(to);
            }
            assert_eq!(port.tx[0].tx_burst(&mut burst), 4);
            assert_eq!(echo.turn(), 4);
            wait_until("all are back", || {
                port.rx[0].rx_burst(&mut burst);
                burst.len() == 4
            });
        };
        let count = |port: &linecard_pmd::Port, name: &str| -> Option<u64> {
            let all = port.control.xstats();
            all.iter().find(|(known, _)| known == name).map(|(_, n)| *n)
        };
        exchange(&mut port);
        assert_eq!(count(&port, "rx_q0_size_64_packets"), None, "nobody asked");
        assert!(port.control.count_classes(true));
        exchange(&mut port);
        for side in ["rx", "tx"] {
            for (name, want) in [
                ("undersize_packets", 1),
                ("size_64_packets", 1),
                ("size_65_127_packets", 1),
                ("size_1024_1518_packets", 1),
                ("size_1519_max_packets", 0),
                ("broadcast_packets", 1),
                ("multicast_packets", 1),
            ] {
                let name = format!("{side}_q0_{name}");
                assert_eq!(count(&port, &name), Some(want), "{kind} {name}");
            }
        }
        port.control.count_classes(false);
        exchange(&mut port);
        assert_eq!(count(&port, "tx_q0_size_64_packets"), Some(1), "no more are counted");
        port.control.reset_stats();
        assert_eq!(count(&port, "tx_q0_size_64_packets"), None);
        drop(port.stop());
        bench.assert_whole();
    }
}

/// A backend that sleeps is woken for every burst, one that polls for none; either is counted.
#[test]
fn notifications_are_counted() {
    for (kind, flags_at) in [("in_order=0", 0), ("packed_vq=1", 2)] {
        let (bench, place) = (Bench::new(1024), Place::new());
        // By its flags; `tests/event_idx.rs` has the other way.
        let (mut port, backend, _) = attached(&bench, &place, &format!(",event_idx=0,{kind}"));
        let flags = backend.ring(1).device.cell::<u16>(flags_at).expect("inside the ring");
        let send = |port: &mut linecard_pmd::Port, bursts: usize| {
            for _ in 0..bursts {
                let mut burst = Burst::new();
                bench.pool.get_bulk(&mut burst, 2).unwrap();
                burst.iter_mut().for_each(|packet| packet.append(60).expect("room").fill(2));
                assert_eq!(port.tx[0].tx_burst(&mut burst), 2);
            }
        };
        let count = |port: &linecard_pmd::Port, name: &str| -> u64 {
            let all = port.control.xstats();
            all.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("no {name}")).1
        };
        port.control.reset_stats();
        flags.store(0, Ordering::Relaxed);
        send(&mut port, 3);
        assert_eq!(count(&port, "tx_q0_notifications"), 3, "{kind}: it sleeps");
        assert_eq!(count(&port, "tx_q0_notifications_suppressed"), 0, "{kind}");
        flags.store(1, Ordering::Relaxed);
        send(&mut port, 4);
        assert_eq!(count(&port, "tx_q0_notifications"), 3, "{kind}: it polls");
        assert_eq!(count(&port, "tx_q0_notifications_suppressed"), 4, "{kind}");
        port.control.reset_stats();
        assert_eq!(count(&port, "tx_q0_notifications"), 0, "{kind}");
        assert_eq!(count(&port, "rx_q0_notifications"), 0, "{kind}");
        drop(port.stop());
    }
}
