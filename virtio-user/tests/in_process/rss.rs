//! Receive-side scaling and hash reports: what the device is asked to do, what comes of it, and software where it does not.

use linecard_lab::wait_until;
use linecard_mempool::{Burst, Packet, PacketType};
use linecard_net::parse;
use linecard_net::toeplitz::Toeplitz;
use linecard_pmd::offload::{Offloads, RxOffloads};
use linecard_pmd::rss::{Rss, RssConfig, RssTypes, flow_hash};
use linecard_pmd::{Port, PortConfig, configure};
use linecard_virtio::Features;
use linecard_virtio::net::HashReport;

use crate::Bench;
use crate::device::{InProcess, MAC};

const LAYOUTS: [&str; 4] = ["in_order=0", "packed_vq=1,mrg_rxbuf=0", "in_order=0,packed_vq=1", "mrg_rxbuf=0"];
const RSS_CONFIG: [u8; 2] = [4, 1];
const HASH_CONFIG: [u8; 2] = [4, 2];
/// `hash_report` of UDP over IPv4.
const UDP4: u16 = 3;

/// Behind address, status, pairs, MTU, speed and duplex: key and table as long as need be, and these types.
fn config(types: u32) -> Vec<u8> {
    [&MAC[..], &[0; 11], &[40, 128, 0], &types.to_le_bytes()].concat()
}

/// A device with two pairs and a control queue that hashes.
fn device(features: Features) -> InProcess {
    let device = InProcess::new(2);
    let mut machine = device.now();
    machine.control_queue = true;
    machine.config = config(0x3f);
    machine.offer.features |= Features::NET_CTRL_VQ | features;
    drop(machine);
    device
}

fn open(bench: &Bench, device: &InProcess, layout: &str, queues: u16) -> Port {
    let rx = RxOffloads::RSS_HASH;
    let offloads = Offloads { rx, ..Offloads::default() };
    let config = PortConfig::default().rx_queues(queues).tx_queues(queues).offloads(offloads);
    let made = configure(bench.probe(device, &format!("queues=2,{layout}")).expect("a device"), config);
    made.expect("it can").start(&bench.pool).map_err(|error| error.error).expect("a port")
}

/// A UDP datagram over IPv4 of a flow of its own.
fn flow(number: u8, len: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    frame.extend(((len - 14) as u16).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, number, 10, 0, 1, 1]);
    frame.extend([4, number, 0, 53]);
    frame.extend(((len - 34) as u16).to_be_bytes());
    frame.resize(len, number);
    frame
}

fn hash_of(key: &[u8; 40], frame: &[u8]) -> u32 {
    flow_hash(&Toeplitz::new(key), RssTypes::all(), frame, &parse(frame)).expect("it is hashed")
}

/// What came on a queue, all of it.
fn receive(port: &mut Port, queue: u16) -> Burst {
    let mut burst = Burst::new();
    port.rx[usize::from(queue)].rx_burst(&mut burst);
    burst
}

fn only(burst: &Burst) -> &Packet {
    assert_eq!(burst.len(), 1);
    &burst[0]
}

fn rss(port: &Port) -> &Rss {
    port.control.rss().expect("the port can be asked")
}

/// The commands about hashes that came since the last time.
fn hashing(device: &InProcess) -> Vec<Vec<u8>> {
    let all = std::mem::take(&mut device.now().commands);
    all.into_iter().filter(|command| command[0] == 4 && command[1] != 0).collect()
}

/// The device puts a frame where it was told to, as it was told to; the packet says the hash, also when it spans buffers, and goes
/// out again with a header that says nothing.
#[test]
fn flows_come_where_the_table_says_with_their_hash() {
    for layout in LAYOUTS {
        let (bench, device) = (Bench::new(4096), device(Features::NET_RSS | Features::NET_HASH_REPORT));
        let mut port = open(&bench, &device, layout, 2);
        let paths = port.control.paths();
        assert!(paths.matches("hash").count() == 2, "{layout}: {paths}");
        for turn in 0..3_u8 {
            let mut wanted = RssConfig::new(2);
            wanted.key[usize::from(turn)] ^= 0x55;
            wanted.table.rotate_left(turn.into());
            rss(&port).set(Some(wanted.clone())).expect("it is good");
            wait_until("the device is told", || {
                device.now().commands.iter().any(|command| command.ends_with(&wanted.key))
                    && rss(&port).is_spread_by_device()
                    && rss(&port).is_hashed_by_device()
            });
            let told = hashing(&device).pop().expect("a command");
            let (key, table) = (&told[told.len() - 40..], &told[10..10 + 256]);
            assert_eq!((&told[..2], key), (&RSS_CONFIG[..], &wanted.key[..]));
            for (number, len) in (0..).zip([60, 61, 300, 1514, 1514, 600, 61, 64]) {
                let frame = flow(number + 8 * turn, len);
                let hash = hash_of(key.try_into().expect("40 bytes"), &frame);
                let at = 2 * (hash as usize % 128);
                let queue = u16::from_le_bytes([table[at], table[at + 1]]);
                let report = HashReport { value: hash, report: UDP4 };
                assert!(device.now().pair(queue).expect("it runs").give_hashed(&frame, report));
                assert!(receive(&mut port, 1 - queue).is_empty());
                let mut burst = receive(&mut port, queue);
                let packet = only(&burst);
                assert_eq!(packet.to_bytes(), frame, "{layout}: {len} bytes");
                assert_eq!(packet.hash(), Some(hash), "{layout}");
                let kind = packet.packet_type();
                assert!(kind.is_ipv4() && kind.l4() == PacketType::L4_UDP, "{kind}");
                assert_eq!(usize::from(queue), usize::from(wanted.table[hash as usize % 128]));
                assert_eq!(port.tx[usize::from(queue)].tx_burst(&mut burst), 1);
                assert_eq!(device.now().pair(queue).expect("it runs").take(), Some(frame), "{layout}");
                port.tx[usize::from(queue)].reclaim();
            }
        }
        drop(port.stop());
        bench.assert_whole();
    }
}

/// Packets that the device did not hash have none, and a number that stands for nothing is no hash; neither harms the packet.
#[test]
fn what_the_device_did_not_hash_has_none() {
    for layout in LAYOUTS {
        let (bench, device) = (Bench::new(1024), device(Features::NET_HASH_REPORT));
        let mut port = open(&bench, &device, layout, 1);
        assert!(rss(&port).is_hashed_by_device());
        for report in [0, 10, 11, 0x100, 0xffff] {
            let report = HashReport { value: 0xdead_beef, report };
            assert!(device.now().pair(0).expect("it runs").give_hashed(&flow(1, 200), report));
            let burst = receive(&mut port, 0);
            assert_eq!((only(&burst).hash(), only(&burst).to_bytes().as_ref()), (None, &flow(1, 200)[..]));
        }
        drop(port.stop());
        bench.assert_whole();
    }
}

/// Each thing that a device refuses is left to software, and the port goes on: hashes come all the same, by the port's key.
#[test]
fn what_the_device_refuses_is_done_in_software() {
    for layout in LAYOUTS {
        for (refused, by_device) in [(vec![RSS_CONFIG], true), (vec![RSS_CONFIG, HASH_CONFIG], false)] {
            let (bench, device) = (Bench::new(1024), device(Features::NET_RSS | Features::NET_HASH_REPORT));
            device.now().refuses = refused;
            let mut port = open(&bench, &device, layout, 2);
            hashing(&device);
            let wanted = RssConfig::new(2).key([0x3c; 40]);
            rss(&port).set(Some(wanted.clone())).expect("it is good");
            let mut told = Vec::new();
            wait_until("both are asked", || {
                told.extend(hashing(&device));
                told.len() == 2 && rss(&port).is_hashed_by_device() == by_device
            });
            assert!(told[0].starts_with(&RSS_CONFIG) && told[1].starts_with(&HASH_CONFIG));
            assert!(!rss(&port).is_spread_by_device());
            let (frame, lie) = (flow(9, 100), HashReport { value: 7, report: UDP4 });
            assert!(device.now().pair(1).expect("it runs").give_hashed(&frame, lie));
            let want = if by_device { 7 } else { hash_of(&wanted.key, &frame) };
            assert_eq!(only(&receive(&mut port, 1)).hash(), Some(want), "{layout}");
            assert!(port.control.link().up);
            drop(port.stop());
            bench.assert_whole();
        }
    }
}

/// Types that the device does not have are not asked of it, and flows are spread as before when the port stops asking.
#[test]
fn a_device_is_asked_for_what_it_has() {
    let (bench, device) = (Bench::new(1024), device(Features::NET_RSS));
    device.now().config = config(0x09);
    let port = open(&bench, &device, "in_order=0", 2);
    let pairs = [4, 0, 2, 0];
    assert_eq!(std::mem::take(&mut device.now().commands).first().map(Vec::as_slice), Some(&pairs[..]));
    let addresses = RssConfig::new(2).types(RssTypes::IPV4 | RssTypes::IPV6);
    rss(&port).set(Some(addresses)).expect("it is good");
    wait_until("the device does it", || rss(&port).is_spread_by_device());
    assert_eq!(hashing(&device).len(), 1);
    // More than it has: as without a configuration.
    for config in [Some(RssConfig::new(2)), None] {
        rss(&port).set(config.clone()).expect("it is good");
        wait_until("the device stops", || !rss(&port).is_spread_by_device());
        let told = std::mem::take(&mut device.now().commands);
        assert_eq!(told, if config.is_some() { vec![pairs.to_vec()] } else { vec![] });
    }
    drop(port.stop());
}

/// Without the feature there is nothing to ask, and hashes are software's.
#[test]
fn a_port_over_a_device_that_cannot_hash_has_hashes() {
    for control_queue in [false, true] {
        let (bench, device) = (Bench::new(1024), InProcess::new(2));
        device.now().control_queue = control_queue;
        let mut port = open(&bench, &device, "in_order=0", 2);
        assert!(!device.now().features.intersects(Features::NET_RSS | Features::NET_HASH_REPORT));
        let frame = flow(3, 80);
        for key in [RssConfig::new(2).key, [9; 40]] {
            rss(&port).set(Some(RssConfig::new(2).key(key))).expect("it is good");
            assert!(device.now().pair(1).expect("it runs").give(&frame));
            assert_eq!(only(&receive(&mut port, 1)).hash(), Some(hash_of(&key, &frame)));
        }
        drop(port.stop());
        bench.assert_whole();
    }
}

/// Nobody asked for hashes: the header is the short one, whatever the device offers.
#[test]
fn hashes_are_agreed_only_where_they_are_asked_for() {
    let (bench, device) = (Bench::new(1024), device(Features::NET_RSS | Features::NET_HASH_REPORT));
    let port = bench.open(&device, "queues=2", 2).expect("a port");
    let features = device.now().features;
    assert!(features.contains(Features::NET_RSS) && !features.contains(Features::NET_HASH_REPORT));
    assert_eq!(hashing(&device), Vec::<Vec<u8>>::new(), "nothing was asked");
    drop(port.stop());
}

/// What a configuration space says that cannot be true, or is not enough, is as if the device did not offer it.
#[test]
fn a_configuration_space_that_lies_costs_the_feature() {
    let both = Features::NET_RSS | Features::NET_HASH_REPORT;
    let say = |bytes: &[u8]| [&MAC[..], &[0; 11], bytes].concat();
    let cases: [(&str, Vec<u8>, Features); 8] = [
        ("nothing", MAC.to_vec(), Features::empty()),
        ("six bytes of seven", say(&[40, 128, 0, 0x3f, 0, 0]), Features::empty()),
        ("a key of no bytes", say(&[0, 128, 0, 0x3f, 0, 0, 0]), Features::empty()),
        ("a key of 39 bytes", say(&[39, 128, 0, 0x3f, 0, 0, 0]), Features::empty()),
        ("no type that there is", say(&[40, 128, 0, 0, 0xff, 0xff, 0xff]), Features::empty()),
        ("a table of no entries", say(&[40, 0, 0, 0x3f, 0, 0, 0]), Features::NET_HASH_REPORT),
        ("a table of 127 entries", say(&[40, 127, 0, 0x3f, 0, 0, 0]), Features::NET_HASH_REPORT),
        ("all ones", say(&[0xff; 7]), both),
    ];
    for (name, config, want) in cases {
        let (bench, device) = (Bench::new(1024), device(both));
        device.now().config = config;
        let mut port = open(&bench, &device, "in_order=0", 2);
        assert_eq!(device.now().features & both, want, "{name}");
        rss(&port).set(Some(RssConfig::new(2))).expect("it is good");
        let spreads = want.contains(Features::NET_RSS);
        wait_until(name, || rss(&port).is_spread_by_device() == spreads);
        assert!(device.now().pair(0).expect("it runs").give(&flow(1, 64)));
        assert_eq!(receive(&mut port, 0).len(), 1, "{name}");
        drop(port.stop());
        bench.assert_whole();
    }
}

/// A device that has several pairs only by RSS gets a table at once; one that refuses it cannot be used with several.
#[test]
fn several_pairs_without_automatic_steering() {
    for refused in [false, true] {
        let (bench, device) = (Bench::new(1024), device(Features::NET_RSS));
        let mut machine = device.now();
        machine.offer.features -= Features::NET_MQ;
        machine.refuses.extend(refused.then_some(RSS_CONFIG));
        drop(machine);
        match bench.open(&device, "queues=2", 2) {
            Ok(port) => {
                let told = hashing(&device);
                assert!(!refused && told.len() == 1 && told[0].starts_with(&RSS_CONFIG), "{told:?}");
                assert!(!rss(&port).is_spread_by_device(), "nobody asked for this table");
                drop(port.stop());
            }
            Err(error) => {
                assert!(refused && error.contains("refused VIRTIO_NET_CTRL_MQ_RSS_CONFIG"), "{error}");
            }
        }
        bench.assert_whole();
    }
}

/// Another connection is told again.
#[test]
fn a_device_that_comes_back_is_told_again() {
    let (bench, device) = (Bench::new(1024), device(Features::NET_RSS | Features::NET_HASH_REPORT));
    let port = open(&bench, &device, "in_order=0", 2);
    rss(&port).set(Some(RssConfig::new(2))).expect("it is good");
    for _ in 0..3 {
        wait_until("the device does it", || rss(&port).is_spread_by_device());
        device.now().commands.clear();
        device.leave();
        let mut told = Vec::new();
        wait_until("another connection is told", || {
            told.extend(hashing(&device));
            !told.is_empty()
        });
        assert!(told[0].starts_with(&RSS_CONFIG));
    }
    drop(port.stop());
    bench.assert_whole();
}
