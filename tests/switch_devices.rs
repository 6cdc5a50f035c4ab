//! `linecard switch` over ports that are neither sockets nor taps: packet sockets, XDP sockets and capture files, each with a
//! vhost-user port beside it; and frames of 9000 bytes between vhost-user ports. Every byte is compared.

mod support;

use std::path::Path;

use linecard::capture::pcap::encode::{Format, Record};
use linecard::capture::pcap::read::Reader;
use linecard::pmd::PortConfig;
use linecard_lab::{Lab, wait_until};
use linecard_switch::api::{Client, FdbFilter, PortKind, PortSpec};
use support::Scratch;
use support::example::Running;
use support::ours::{Ours, frontend_vdev};
use support::switch::{Station, end, exchange, frame, start};

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const DEVICE: [u8; 6] = [2, 0, 0, 0, 0, 2];
const NOBODY: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// A switch in `lab` with a vhost-user port, this process at its other end.
struct Bed {
    running: Running,
    client: Client,
    ours: Ours,
    scratch: Scratch,
}

impl Bed {
    fn new(lab: &Lab, test: &str) -> Self {
        let scratch = Scratch::new(test);
        let path = scratch.join("a.sock");
        let (running, client) = start(lab, &scratch, &["--port", &path.display().to_string()]);
        let mut ours = Ours::start(&frontend_vdev(&path, "mac=02:00:00:00:00:01"));
        ours.wait_for_link(true);
        Self { running, client, ours, scratch }
    }

    /// Attaches a device as the port `x`, up.
    fn attach(&mut self, device: &str) {
        let spec = PortSpec::new("x", PortKind::Vdev { device: device.to_owned() });
        assert!(
            self.client.port_add(&spec, None).unwrap_or_else(|error| panic!("{device}: {error}")).created
        );
    }

    fn detach(&mut self) {
        assert!(self.client.port_remove("x").expect("it goes"));
    }

    /// Waits until the switch knows where our station is.
    fn make_known(&mut self) {
        let Self { client, ours, .. } = self;
        let mut sent = 0;
        wait_until("our station is known", || {
            // Again, as a worker that finds the table locked learns nothing from a frame.
            ours.send(&[frame(OURS, NOBODY, 0, 64)]);
            sent += 1;
            wait_until("none of them is on its way", || {
                client.port_show("port1").expect("it is there").counters.rx_packets == sent
            });
            knows(client, OURS)
        });
    }

    fn end(self) {
        end(self.running);
        drop((self.client, self.ours));
        drop(self.scratch);
    }
}

fn knows(client: &mut Client, station: [u8; 6]) -> bool {
    let known = client.fdb_list(&FdbFilter::default()).expect("a list");
    known.iter().any(|entry| entry.mac.0 == station)
}

/// Frames both ways between the vhost-user port and what is at the other end of a pair of interfaces, once for each device.
fn over_a_pair(lab: &Lab, test: &str, devices: &[&str]) {
    let mut bed = Bed::new(lab, test);
    for device in devices {
        // A pair of its own for each: nothing of the one before is on its way.
        lab.veth("near", "far");
        bed.attach(device);
        let mut far = lab.wire("far");
        let (ours, x) = (&mut bed.ours, "x");
        exchange(ours, Some(&mut far), OURS, DEVICE);
        exchange(&mut far, Some(ours), DEVICE, OURS);
        // To all, and then to one whom nobody knows.
        for (from, to) in [(OURS, [0xff; 6]), (OURS, NOBODY)] {
            exchange(ours, Some(&mut far), from, to);
            exchange(&mut far, Some(ours), DEVICE, to);
        }
        let port = bed.client.port_show(x).expect("it is there");
        assert!(port.counters.rx_packets >= 600 && port.counters.tx_packets >= 600, "{device}: {port:?}");
        assert_eq!(port.counters.drops.total(), 0, "{device}: {port:?}");
        bed.detach();
        lab.ip("link del near");
    }
    bed.end();
}

#[test]
fn packet_sockets() {
    let test = "packet_sockets";
    let Some(lab) = Lab::new(test) else { return };
    let options = ["", ",version=3", ",qdisc_bypass=0"];
    let devices = options.map(|options| format!("net_af_packet0,iface=near{options}"));
    over_a_pair(&lab, test, &devices.each_ref().map(String::as_str));
}

#[test]
fn xdp_sockets() {
    let test = "xdp_sockets";
    let Some(lab) = Lab::with_xdp(test) else { return };
    let options = [",mode=drv", ",mode=skb", ",busy_budget=0"];
    let devices = options.map(|options| format!("net_af_xdp0,iface=near{options}"));
    over_a_pair(&lab, test, &devices.each_ref().map(String::as_str));
}

/// The frames of a capture file.
fn frames_of(path: &Path) -> Vec<Vec<u8>> {
    let mut reader = Reader::open(path).expect("a capture file");
    let mut frames = Vec::new();
    while reader.ready().expect("it is whole") {
        frames.push(reader.frame().to_vec());
        reader.advance();
    }
    frames
}

#[test]
fn capture_files() {
    let test = "capture_files";
    let Some(lab) = Lab::new(test) else { return };
    let mut bed = Bed::new(&lab, test);
    let sizes = [64, 65, 127, 128, 129, 256, 300, 777, 1024, 1500, 1513, 1514];
    let frames = |from, to| -> Vec<Vec<u8>> {
        // Fewer than the ring of the port at the other end has places for.
        (0..96_u32).map(|number| frame(from, to, number, sizes[number as usize % sizes.len()])).collect()
    };
    bed.make_known();
    for name in ["in.pcap", "in.pcapng"] {
        let (from, to) = (bed.scratch.join(name), bed.scratch.join(&name.replace("in", "out")));
        let format = Format::of(&from);
        let mut text = Vec::new();
        format.header(&mut text, 65_535);
        if format == Format::PcapNg {
            linecard::capture::pcap::encode::interface(&mut text, "x", 65_535, "");
        }
        for frame in frames(DEVICE, OURS) {
            let record = Record { interface: 0, time: 0, len: frame.len() as u32, ..Record::default() };
            format.record(&mut text, &record, &[&frame]);
        }
        std::fs::write(&from, text).expect("a file");
        bed.attach(&format!("net_pcap0,rx_pcap={},tx_pcap={}", from.display(), to.display()));
        let got = bed.ours.receive(96);
        assert!(got == frames(DEVICE, OURS), "{name}: {} of 96 as they were", got.len());
        assert!(knows(&mut bed.client, DEVICE), "from one of 96 frames at least");
        bed.ours.send(&frames(OURS, DEVICE));
        let client = &mut bed.client;
        wait_until("all of them are sent", || {
            client.port_show("x").expect("it is there").counters.tx_packets >= 96
        });
        let drops = client.port_show("x").expect("it is there").counters.drops;
        assert_eq!(drops.total(), 0, "{drops:?}");
        bed.detach();
        let written = frames_of(&to);
        assert!(written == frames(OURS, DEVICE), "{name}: {} of 96 as they were", written.len());
    }
    bed.end();
}

/// Around the 2048 bytes of usual buffers, and around the longest frame: 9000 bytes behind 14, or 18 with a tag.
const LONG: [usize; 11] = [64, 1514, 2047, 2048, 2049, 4096, 4097, 6144, 9000, 9013, 9014];

/// A frame with a tag for VLAN 10.
fn tagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, 10], &frame[12..]].concat()
}

/// In VLAN 10: two stations whose buffers take a whole frame, two whose frames are chains of buffers; the second of each has tags.
struct Jumbo {
    stations: [Ours; 4],
}

const TAGGED: [bool; 4] = [false, true, false, true];

impl Jumbo {
    fn mac(number: usize) -> [u8; 6] {
        [2, 0, 0, 0, 1, number as u8]
    }

    /// As the port of station `number` has it.
    fn at(number: usize, frame: &[u8]) -> Vec<u8> {
        if TAGGED[number] { tagged(frame) } else { frame.to_vec() }
    }

    fn send(&mut self, from: usize, frame: &[u8]) {
        Station::send(&mut self.stations[from], &Self::at(from, frame));
    }

    /// Waits until station `number` has got this frame, as its port has it, and says what else it got.
    fn expect(&mut self, number: usize, frame: &[u8], what: &str) {
        let want = Self::at(number, frame);
        let station = &mut self.stations[number];
        let mut others = Vec::new();
        wait_until(what, || {
            let got = Station::receive(station);
            others.extend(got.iter().filter(|got| **got != want).map(|got| (got.len(), got[..18].to_vec())));
            got.contains(&want)
        });
        assert!(others.is_empty(), "{what}: beside it came {others:02x?}");
    }
}

#[test]
fn frames_of_9000_bytes() {
    let test = "frames_of_9000_bytes";
    let Some(lab) = Lab::new(test) else { return };
    let scratch = Scratch::new(test);
    let paths: [_; 4] = std::array::from_fn(|number| scratch.join(&format!("{number}.sock")));
    let ports: [_; 4] = std::array::from_fn(|number| {
        let vlan = if TAGGED[number] { "trunk=10" } else { "vlan=10" };
        format!("{},key=p{number},mtu=9000,{vlan}", paths[number].display())
    });
    let arguments = ports.each_ref().map(|port| ["--port", port]);
    let (running, mut client) = start(&lab, &scratch, arguments.as_flattened());
    let config = PortConfig::default().mtu(9000);
    let stations = std::array::from_fn(|number| {
        let vdev = frontend_vdev(&paths[number], "");
        Ours::with_buffers(&vdev, config.clone(), if number < 2 { 9216 } else { 2048 })
    });
    let mut all = Jumbo { stations };
    all.stations.iter_mut().for_each(|station| station.wait_for_link(true));
    // Whoever has said nothing yet is sent to by all; after this each is known.
    for from in 0..4 {
        for (number, len) in LONG.into_iter().enumerate() {
            let sent = frame(Jumbo::mac(from), [0xff; 6], (from * 100 + number) as u32, len);
            all.send(from, &sent);
            for to in (0..4).filter(|to| *to != from) {
                all.expect(to, &sent, &format!("{len} bytes from {from} to all, at {to}"));
            }
        }
    }
    let direct = |client: &mut Client, to: usize| {
        client.port_show(&format!("p{to}")).expect("it is there").counters.tx_direct
    };
    for (from, to) in (0..4).flat_map(|from| (0..4).map(move |to| (from, to))).filter(|(from, to)| from != to)
    {
        let before = direct(&mut client, to);
        for (number, len) in LONG.into_iter().enumerate() {
            let sent = frame(Jumbo::mac(from), Jumbo::mac(to), number as u32, len);
            all.send(from, &sent);
            all.expect(to, &sent, &format!("{len} bytes from {from} to {to}"));
        }
        // What fits a buffer of the switch's own is copied straight from the sender's buffer, where no tag changes; longer frames are
        // chains of its buffers in between.
        let short = LONG.iter().filter(|len| **len <= 2048).count() as u64;
        let straight = direct(&mut client, to) - before;
        let right = match (TAGGED[from] == TAGGED[to], from < 2) {
            (false, _) => straight == 0,
            (true, true) => (1..=short).contains(&straight),
            (true, false) => straight <= short,
        };
        assert!(right, "from {from} to {to}: {straight} of {short} were copied once");
    }
    for number in 0..4 {
        let drops = client.port_show(&format!("p{number}")).expect("it is there").counters.drops;
        assert_eq!(drops.total(), 0, "{drops:?}");
        assert!(Station::receive(&mut all.stations[number]).is_empty());
    }
    end(running);
}
