//! What a port receives: a backend sends everything, and the port keeps what is meant for it.

mod support;

use linecard_mempool::Burst;
use linecard_pmd::filter::{RxFilter, VlanSet};
use linecard_pmd::{Device, Port, PortConfig};
use support::echo::Echo;
use support::{Bench, Place, attached};

const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SECOND: [u8; 6] = [2, 0, 0, 0, 0, 2];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 3];
const GROUP: [u8; 6] = [1, 0, 0x5e, 0, 0, 1];
const OTHER_GROUP: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const EVERYBODY: [u8; 6] = [0xff; 6];

const KINDS: [&str; 4] =
    ["in_order=0", "in_order=1,mrg_rxbuf=0", "packed_vq=1,in_order=0", "packed_vq=1,in_order=1,mrg_rxbuf=0"];

fn frame(to: [u8; 6], vlan: Option<u16>) -> Vec<u8> {
    let mut frame = [to, [2, 0, 0, 0, 0, 0xee]].concat();
    if let Some(vlan) = vlan {
        frame.extend([0x81, 0, (vlan >> 8) as u8, vlan as u8]);
    }
    frame.resize(60, 0x5a);
    frame
}

/// A port, what its backend sends with, and everything below them.
struct Field {
    bench: Bench,
    port: Port,
    sender: Box<dyn Echo>,
    _backend: support::Backend,
    _place: Place,
}

impl Field {
    fn new(kind: &str) -> Self {
        let (bench, place) = (Bench::new(1024), Place::new());
        let (port, backend, _) = attached(&bench, &place, &format!(",mac=02:00:00:00:00:01,{kind}"));
        Self { bench, port, sender: backend.echo(0), _backend: backend, _place: place }
    }

    fn filter(&self) -> &RxFilter {
        self.port.control.rx_filter().expect("it has one")
    }

    /// Which of the frames are received, in order.
    fn received(&mut self, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        for frame in frames {
            assert!(self.sender.give(frame), "the port lends buffers");
        }
        let (mut burst, mut came) = (Burst::new(), Vec::new());
        // All of them are there: they are published before the port looks. A burst whose frames are all filtered is empty.
        for _ in 0..frames.len() + 1 {
            let had = burst.len();
            let count = self.port.rx[0].rx_burst(&mut burst);
            assert_eq!(burst.len(), had + count, "what it says is what came");
        }
        came.extend(burst.iter().map(|packet| packet.data().to_vec()));
        came
    }

    fn xstat(&self, name: &str) -> u64 {
        let all = self.port.control.xstats();
        all.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("no {name}")).1
    }

    fn end(self) {
        drop(self.port.stop());
        self.bench.assert_whole();
    }
}

#[test]
fn frames_of_others_are_dropped_and_counted() {
    for kind in KINDS {
        let mut field = Field::new(kind);
        let all = [OWN, OTHER, GROUP, EVERYBODY, SECOND, OTHER_GROUP].map(|to| frame(to, None));
        assert_eq!(field.received(&all).len(), 6, "{kind}: promiscuous at first");
        let control = field.port.control.clone();
        assert!(control.promiscuous() && !control.allmulticast());
        control.set_promiscuous(false);
        let of = |list: &[[u8; 6]]| list.iter().map(|to| frame(*to, None)).collect::<Vec<_>>();
        assert_eq!(field.received(&all), of(&[OWN, EVERYBODY]), "{kind}");
        field.filter().set_multicast(&[GROUP]).expect("a group");
        field.filter().set_unicast(&[SECOND]).expect("an address");
        assert_eq!(field.received(&all), of(&[OWN, GROUP, EVERYBODY, SECOND]), "{kind}");
        control.set_allmulticast(true).expect("it can");
        assert_eq!(field.received(&all), of(&[OWN, GROUP, EVERYBODY, SECOND, OTHER_GROUP]), "{kind}");
        control.set_mac(OTHER).expect("an address");
        assert_eq!(field.received(&all), of(&[OTHER, GROUP, EVERYBODY, SECOND, OTHER_GROUP]), "{kind}");
        let stats = control.stats();
        assert_eq!((stats.ipackets, stats.ibytes), (22, 22 * 60), "{kind}: received is what came");
        assert_eq!((stats.imissed, stats.ierrors), (0, 0), "{kind}: what is for others is no error");
        let counted = ["unicast", "multicast", "vlan"];
        let counted = counted.map(|what| field.xstat(&format!("rx_q0_filtered_{what}_packets")));
        assert_eq!(counted, [5, 3, 0], "{kind}");
        assert_eq!(stats.ipackets + counted.iter().sum::<u64>(), 30, "{kind}: each is counted once");
        field.end();
    }
}

#[test]
fn vlans_are_filtered_on_their_own() {
    for kind in KINDS {
        let mut field = Field::new(kind);
        let all = [None, Some(1), Some(2), Some(4095)].map(|vlan| frame(OTHER, vlan));
        let mut vlans = VlanSet::default();
        vlans.set(2, true);
        field.filter().set_vlans(Some(vlans));
        assert_eq!(field.received(&all), [frame(OTHER, None), frame(OTHER, Some(2))], "{kind}");
        assert_eq!(field.xstat("rx_q0_filtered_vlan_packets"), 2, "{kind}");
        field.filter().set_vlans(None);
        assert_eq!(field.received(&all).len(), 4, "{kind}");
        field.end();
    }
}

/// Bursts that already hold packets keep them, whatever their address.
#[test]
fn packets_of_other_ports_are_left_alone() {
    let mut field = Field::new("in_order=0");
    field.port.control.set_promiscuous(false);
    let mut burst = Burst::new();
    field.bench.pool.get_bulk(&mut burst, 3).unwrap();
    burst.iter_mut().for_each(|packet| packet.append(60).expect("room").copy_from_slice(&frame(OTHER, None)));
    assert!([OTHER, OWN, OTHER].iter().all(|to| field.sender.give(&frame(*to, None))));
    assert_eq!(field.port.rx[0].rx_burst(&mut burst), 1);
    assert_eq!(burst.len(), 4);
    assert_eq!(burst[3].data(), frame(OWN, None));
    burst.clear();
    field.end();
}

/// A port that was stopped receives what it was told to before, as DPDK's do.
#[test]
fn a_restart_keeps_the_filter() {
    let field = Field::new("in_order=0");
    field.port.control.set_promiscuous(false);
    field.filter().set_unicast(&[SECOND]).expect("an address");
    let (bench, place) = (field.bench, field._place);
    let device: Box<dyn Device> = field.port.stop();
    drop(field._backend);
    std::fs::remove_file(&place.0).expect("the socket of the first backend");
    let listener = std::os::unix::net::UnixListener::bind(&place.0).expect("a socket");
    let peer = std::thread::spawn(move || {
        let mut backend = support::Backend::accept(&listener);
        backend.until_running(2).expect("a frontend that stays");
        backend
    });
    let port = bench.start(device, PortConfig::default()).expect("a port");
    let backend = peer.join().expect("no panic");
    let mut field = Field { bench, port, sender: backend.echo(0), _backend: backend, _place: place };
    let came = field.received(&[OWN, SECOND, OTHER].map(|to| frame(to, None)));
    assert_eq!(came, [OWN, SECOND].map(|to| frame(to, None)));
    field.end();
}
