//! `net_virtio_pci` in a guest: a virtio network card of QEMU that is bound to `vfio-pci`, behind an emulated IOMMU. This test has the
//! other end of the card's cable.
//!
//! ```text
//!   guest  linecard testpmd, or this test's program ── 0000:00:05.0, vfio-pci ┐ QEMU's virtio-net
//!   host   this test: a datagram for each frame ──────────────────────────────┘
//! ```

mod support;

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use linecard_lab::Lab;
use support::Scratch;
use support::console::{Kind, present};
use support::frames;
use support::guest::{Guest, KERNEL, Kernel, Monitor, Parts, TESTPMD};
use support::ours::{Ours, wait_for_socket};
use support::peer;

/// Where the card is in the guest.
const ADDRESS: &str = "0000:00:05.0";

/// `bind DRIVER` gives the card to a driver of the kernel; `refused DEVICE` is what testpmd says that it cannot have.
const FUNCTIONS: &str = r#"
address=0000:00:05.0; card=/sys/bus/pci/devices/$address
bind() {
  [ ! -e $card/driver ] || echo $address > $card/driver/unbind
  echo $1 > $card/driver_override; echo $address > /sys/bus/pci/drivers_probe
  [ "$(basename $(readlink $card/driver))" = $1 ]
}
refused() {
  $AS linecard testpmd -l 0,1 --no-huge -m 32 "$@" -- --total-num-mbufs=4096 < /dev/null > /tmp/refused 2>&1 && return 1
  tail -n 1 /tmp/refused
}
as_user() { su user -c "$*"; }
link() { until_good "tell 'show port info 0' 'Link status:'; grep -q 'Link status: $1' /tmp/out"; }
share() { tell 'show port info 0' 'RX queue 0 mode:'; sed -n 's/.*asleep \([0-9]*\).*/\1/p' /tmp/out | head -n 1; }
asleep() { until_good "[ \"\$(share)\" -ge $1 ]"; } # per cent of its time
"#;

/// The other end of the cable. A frame is a datagram each way.
struct Cable {
    socket: UnixDatagram,
    card: PathBuf,
}

impl Cable {
    fn new(scratch: &Scratch) -> Self {
        let socket = UnixDatagram::bind(scratch.join("test")).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        Self { socket, card: scratch.join("card") }
    }

    /// A card at this cable, with these properties, behind the IOMMU.
    fn card(&self, scratch: &Scratch, properties: &str) -> Vec<String> {
        let netdev = format!(
            "dgram,id=n,local.type=unix,local.path={},remote.type=unix,remote.path={}",
            self.card.display(),
            scratch.join("test").display()
        );
        card(&netdev, properties)
    }

    /// Sends back what comes, as long as the test runs.
    fn returns(&self) {
        let socket = self.socket.try_clone().expect("a descriptor");
        let card = self.card.clone();
        socket.set_read_timeout(None).expect("no timeout");
        std::thread::spawn(move || {
            let mut frame = [0; 1 << 16];
            while let Ok(len) = socket.recv(&mut frame) {
                // An end of the guest is the test's.
                let _ = socket.send_to(&frame[..len], &card);
            }
        });
    }

    fn exchange(&self, frame: &[u8]) -> Vec<u8> {
        self.socket.send_to(frame, &self.card).expect("QEMU takes it");
        let mut back = vec![0; 1 << 16];
        let len = self.socket.recv(&mut back).expect("it comes back");
        back.truncate(len);
        back
    }
}

/// A card behind an IOMMU, on a network of QEMU's.
fn card(netdev: &str, properties: &str) -> Vec<String> {
    let device = format!(
        "virtio-net-pci,netdev=n,addr=5,mac=52:54:00:00:00:05,iommu_platform=on,disable-legacy=on,romfile=,{properties}"
    );
    let kernel = &format!("{KERNEL} intel_iommu=on iommu=pt");
    let iommu = "intel-iommu,intremap=on,device-iotlb=on,aw-bits=48";
    ["-smp", "2", "-machine", "kernel-irqchip=split", "-append", kernel, "-device", iommu]
        .map(String::from)
        .into_iter()
        .chain(["-netdev".into(), netdev.into(), "-device".into(), device])
        .collect()
}

fn boot(test: &str, scratch: &Scratch, devices: &[String]) -> Option<Guest> {
    let parts = Parts::find(test, Kernel::Vfio)?;
    let parts = parts.with_program(Path::new(env!("CARGO_BIN_EXE_linecard")), scratch.path());
    let parts = parts.with_checks(scratch.path());
    Some(Guest::with_shell(&parts, scratch.path(), &format!("{TESTPMD}{FUNCTIONS}"), devices))
}

/// A frame whose every byte follows from `number`.
fn frame(number: u8, len: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5];
    frame.extend((14..len).map(|at| (at as u8).wrapping_mul(31) ^ number));
    frame
}

/// testpmd, by DPDK's spelling: frames come in and go out again, byte by byte, over a stop and a start; what was lent is home.
#[test]
fn testpmd_drives_a_card_by_itself() {
    let test = "testpmd_drives_a_card_by_itself";
    for (properties, options, path) in [
        ("vectors=0,packed=off", "", "split mergeable"),
        ("vectors=0,packed=on", ",packed_vq=1", "packed mergeable"),
        ("vectors=0,packed=on,mrg_rxbuf=off", ",packed_vq=1", "rx packed, tx packed"),
        ("vectors=0,packed=off", ",mrg_rxbuf=0", "rx split, tx split"),
    ] {
        let scratch = Scratch::new(test);
        let cable = Cable::new(&scratch);
        let Some(mut guest) = boot(test, &scratch, &cable.card(&scratch, properties)) else { return };
        guest.must("bind vfio-pci");
        guest.must(&format!("pmd -l 0,1 --no-huge -m 64 -a {ADDRESS}{options} -- -i --total-num-mbufs=8192"));
        guest.must("printed testpmd");
        for round in ["first", "again"] {
            guest.must("tell start 'io packet forwarding'");
            let info = guest.must("tell 'show port info 0' 'Link status: up'; cat /tmp/out");
            for part in [path, "52:54:00:00:00:05", "PCI 0000:00:05.0", "net_virtio_pci"] {
                assert!(info.contains(part), "{properties} {round}: no '{part}' in {info}");
            }
            for (number, len) in (0..).zip([60, 64, 65, 127, 128, 257, 1024, 1514]) {
                let sent = frame(number, len);
                assert_eq!(cable.exchange(&sent), sent, "{properties} {round}: {len} bytes");
            }
            let packets = guest.must("xstat 0 rx_good_packets");
            assert_eq!(packets.trim(), "8", "{properties} {round}");
            guest.must("tell stop Accumulated; tell 'port stop all' 'Done'");
            let pool = guest.must("tell 'show pool' 'mempool <'; cat /tmp/out");
            assert!(pool.contains("in_use=0"), "{properties} {round}: packets are missing: {pool}");
            guest.must("echo 'clear port xstats all' >&9; tell 'port start all' 'Done'");
        }
        guest.must("finish");
        // The kernel has it back as it was.
        guest.must("[ \"$(basename $(readlink $card/driver))\" = vfio-pci ]");
        assert_eq!(guest.complaints(), "");
    }
}

/// The port in a program: many packets on their way at once, memory that comes and goes while they are, the link down and up, and
/// all of it again with the device reset in between.
#[test]
fn a_program_drives_a_card_by_itself() {
    let test = "a_program_drives_a_card_by_itself";
    for options in ["packed_vq=0", "packed_vq=1", "packed_vq=0,mrg_rxbuf=0", "packed_vq=1,mrg_rxbuf=0"] {
        let scratch = Scratch::new(test);
        let cable = Cable::new(&scratch);
        let packed = if options.contains("packed_vq=1") { "on" } else { "off" };
        let devices = cable.card(&scratch, &format!("vectors=0,packed={packed}"));
        let Some(mut guest) = boot(test, &scratch, &devices) else { return };
        cable.returns();
        guest.must("bind vfio-pci");
        let output = guest
            .must(&format!("OPTIONS={options} checks --exact inside::proves_packets --ignored --nocapture"));
        assert!(output.contains("1 passed"), "{options}: {output}");
        assert_eq!(guest.complaints(), "");
    }
}

/// Threads that sleep until something comes, woken by a message of their queue's, by one for everything, or by the line; and the
/// link, which the device tells of in the same way.
#[test]
fn a_card_wakes_who_sleeps_and_tells_of_its_link() {
    let test = "a_card_wakes_who_sleeps_and_tells_of_its_link";
    for (packed, vectors, way) in [
        ("off", 4, "an interrupt for each queue"),
        ("on", 4, "an interrupt for each queue"),
        ("on", 1, "one interrupt"),
        ("off", 0, "an interrupt line"),
        ("on", 0, "an interrupt line"),
    ] {
        let scratch = Scratch::new(test);
        let cable = Cable::new(&scratch);
        let mut devices = cable.card(&scratch, &format!("id=c,vectors={vectors},packed={packed}"));
        let monitor = scratch.join("monitor");
        devices.extend(["-monitor".into(), format!("unix:{},server=on,wait=off", monitor.display())]);
        let Some(mut guest) = boot(test, &scratch, &devices) else { return };
        let mut monitor = Monitor::connect(&monitor);
        guest.must("bind vfio-pci");
        let ring = ring_option(packed);
        guest.must(&format!(
            "pmd -l 0,1 --no-huge -m 64 -a {ADDRESS},{ring} -- -i --rx-interrupt --record-core-cycles --total-num-mbufs=8192"
        ));
        guest.must("printed testpmd && tell start 'io packet forwarding'");
        let info = guest.must("tell 'show port info 0' 'Link status: up'; cat /tmp/out");
        assert!(info.contains(way), "{packed}: {info}");
        for number in 0..4 {
            // Most of the time it sleeps, and each frame wakes it.
            guest.must("asleep 80");
            let sent = frame(number, 100 + usize::from(number));
            assert_eq!(cable.exchange(&sent), sent, "{packed}: frame {number}");
        }
        for _ in 0..2 {
            monitor.command("set_link c off");
            guest.must("link down");
            monitor.command("set_link c on");
            guest.must("link up");
        }
        let sent = frame(9, 200);
        assert_eq!(cable.exchange(&sent), sent, "{packed}: after the link came back");
        guest.must("tell stop Accumulated; finish");
        assert_eq!(guest.complaints(), "");
    }
}

/// A card whose rings another process serves: a vhost backend, which asks QEMU for the IOMMU's translations (its IOTLB). DPDK's.
#[test]
fn a_backend_of_dpdks_serves_the_card() {
    let test = "a_backend_of_dpdks_serves_the_card";
    if present(Kind::Dpdk, test) {
        a_backend_serves_the_card(Kind::Dpdk, test);
    }
}

/// And ours: `net_vhost` on one side of the guest's IOMMU, and `net_virtio_pci` on the other.
#[test]
fn a_backend_of_ours_serves_the_card() {
    a_backend_serves_the_card(Kind::Linecard, "a_backend_of_ours_serves_the_card");
}

/// Interrupts by message are off: QEMU 7.2 without KVM crashes with them where a vhost backend serves the card.
fn a_backend_serves_the_card(kind: Kind, test: &str) {
    for options in ["packed_vq=0", "packed_vq=1"] {
        let scratch = Scratch::new(test);
        let socket = scratch.join("s");
        let vdev = format!("net_vhost0,iface={},queues=1,iommu-support=1", socket.display());
        let peer = peer::start(kind, &[&vdev], "vp");
        wait_for_socket(&socket);
        let packed = if options.contains("packed_vq=1") { "on" } else { "off" };
        let properties = format!("ats=on,vectors=0,packed={packed}");
        let mut devices = vec!["-chardev".into(), format!("socket,id=s,path={}", socket.display())];
        devices.extend(card("vhost-user,id=n,chardev=s", &properties));
        let Some(mut guest) = boot(test, &scratch, &devices) else { return };
        guest.must("bind vfio-pci");
        // Each page is a translation that the backend asks for.
        guest.must("echo 48 > /proc/sys/vm/nr_hugepages");
        let output = guest.must(&format!(
            "OPTIONS={options} checks --exact inside::proves_packets_to_a_translating_peer --ignored --nocapture"
        ));
        assert!(output.contains("1 passed"), "{options}: {output}");
        drop(guest);
        assert!(peer.quit().success());
    }
}

/// A network namespace with a tap interface of several queues, `lc0`.
fn with_a_tap(test: &str) -> Option<Lab> {
    let lab = Lab::new(test)?;
    lab.ip("tuntap add dev lc0 mode tap multi_queue");
    lab.ip("link set dev lc0 up");
    Some(lab)
}

/// A guest whose card has two queue pairs at that tap interface and these properties besides, bound to VFIO.
fn at_the_tap(test: &str, lab: &Lab, scratch: &Scratch, properties: &str) -> Option<Guest> {
    let netdev = "tap,id=n,ifname=lc0,script=no,downscript=no,vhost=off,queues=2";
    let devices = card(netdev, &format!("vectors=0,mq=on,{properties}"));
    let mut guest = lab.run(|| boot(test, scratch, &devices))?;
    guest.must("bind vfio-pci");
    Some(guest)
}

/// The port's option for the ring format that QEMU's property `packed` says.
fn ring_option(packed: &str) -> &'static str {
    if packed == "on" { "packed_vq=1" } else { "packed_vq=0" }
}

/// Two queue pairs, which the device uses when it is told to on its control queue. What comes on one goes out on the same.
#[test]
fn several_queue_pairs_carry_packets() {
    let test = "several_queue_pairs_carry_packets";
    let Some(lab) = with_a_tap(test) else { return };
    for packed in ["off", "on"] {
        let scratch = Scratch::new(test);
        let Some(mut guest) = at_the_tap(test, &lab, &scratch, &format!("packed={packed}")) else { return };
        let ring = ring_option(packed);
        guest.must(&format!(
            "pmd -l 0,1 --no-huge -m 64 -a {ADDRESS},{ring} -- -i --rxq=2 --txq=2 --nb-cores=1 --total-num-mbufs=8192"
        ));
        guest.must("printed testpmd && tell start 'io packet forwarding'");
        let info = guest.must("tell 'show port info 0' 'Link status: up'; cat /tmp/out");
        assert!(info.contains("NET_MQ"), "{packed}: {info}");
        let mut ours = Ours::start(&format!("net_af_packet0,iface=lc0,netns={}", lab.path()));
        let mut frames: Vec<Vec<u8>> = (0..64).map(flow).collect();
        // The interface may have something to say itself.
        let mut back: Vec<_> = Vec::new();
        ours.send(&frames);
        while back.len() < frames.len() {
            let came = ours.receive(1);
            assert!(!came.is_empty(), "{packed}: {} of {} come back", back.len(), frames.len());
            back.extend(came.into_iter().filter(|frame| frame.starts_with(&frames[0][..6])));
        }
        back.sort();
        frames.sort();
        assert_eq!(back, frames, "{packed}");
        for queue in 0..2 {
            let packets = guest.must(&format!("xstat 0 rx_q{queue}_packets"));
            assert!(
                packets.trim().parse::<u64>().is_ok_and(|packets| packets > 0),
                "{packed}: {queue}: {packets}"
            );
        }
        guest.must("tell stop Accumulated; finish");
        assert_eq!(guest.complaints(), "");
        ours.stop();
    }
}

/// QEMU's card puts flows where it is told to by the bits of their hash, and says the hash: both as this program computes them. Without
/// a configuration it says hashes by the usual key.
#[test]
fn a_card_spreads_flows_and_says_their_hash() {
    let test = "a_card_spreads_flows_and_says_their_hash";
    let Some(lab) = with_a_tap(test) else { return };
    for packed in ["off", "on"] {
        let scratch = Scratch::new(test);
        let properties = format!("rss=on,hash=on,packed={packed}");
        let Some(mut guest) = at_the_tap(test, &lab, &scratch, &properties) else { return };
        let ring = ring_option(packed);
        guest.must(&format!(
            "export OPTIONS={ring}; AS='checks --exact inside::checks_where_flows_come --ignored --nocapture' pmd"
        ));
        let mut ours = Ours::start(&format!("net_af_packet0,iface=lc0,netns={}", lab.path()));
        let frames: Vec<Vec<u8>> = (0..64).map(flow).collect();
        for round in ["configured", "usual"] {
            guest.must(&format!("printed '{round} flows'"));
            ours.send(&frames);
        }
        guest.must("printed '1 passed'");
        ours.stop();
        // That the kernel's tap interface does not do it, and QEMU itself does.
        let expected = |line: &str| line.contains("bpf") || line.contains("BPF") || line.contains("RSS");
        assert!(guest.complaints().lines().all(expected), "{}", guest.complaints());
    }
}

/// A card that is unplugged: its port goes down and says why, the card is given back at once, so that the guest's kernel is not kept
/// waiting, and the process goes on with its other port. One that is plugged in again is found.
#[test]
fn a_card_that_is_unplugged_takes_its_port_down_alone() {
    let test = "a_card_that_is_unplugged_takes_its_port_down_alone";
    let scratch = Scratch::new(test);
    let cable = Cable::new(&scratch);
    let properties = "id=c,bus=root0,vectors=4";
    let mut devices = cable.card(&scratch, properties);
    let port = "pcie-root-port,id=root0,addr=6,chassis=1,slot=1";
    let device = devices.pop().expect("the card").replace("addr=5,", "");
    let monitor = scratch.join("monitor");
    let last = devices.pop().expect("its option");
    devices.extend(["-device".into(), port.into(), last, device.clone()]);
    devices.extend(["-monitor".into(), format!("unix:{},server=on,wait=off", monitor.display())]);
    let Some(mut guest) = boot(test, &scratch, &devices) else { return };
    let mut monitor = Monitor::connect(&monitor);
    guest.must("address=0000:01:00.0; card=/sys/bus/pci/devices/$address; bind vfio-pci");
    guest.must(
        "pmd -l 0,1 --no-huge -m 64 -a 0000:01:00.0 --vdev net_null0 -- -i --port-topology=loop --total-num-mbufs=8192",
    );
    guest.must("printed testpmd && tell start 'io packet forwarding'");
    guest.must("link up");
    let sent = frame(1, 200);
    assert_eq!(cable.exchange(&sent), sent, "it works");
    monitor.command("device_del c");
    guest.must("until_good '[ ! -e $card ]'");
    guest.must("link down");
    let info = guest.must("cat /tmp/out");
    assert!(info.contains("it is being removed") || info.contains("there is no such device"), "{info}");
    guest.must("before=$(xstat 1 rx_good_packets); until_good '[ $(xstat 1 rx_good_packets) -gt $before ]'");
    linecard_lab::wait_until("QEMU has it back", || {
        !monitor.command("info qtree").contains("virtio-net-pci")
    });
    monitor.command(&format!("device_add {device}"));
    guest.must("until_good '[ -e $card ]'; bind vfio-pci; link up");
    let sent = frame(2, 300);
    assert_eq!(cable.exchange(&sent), sent, "it works again");
    guest.must("tell stop Accumulated; finish");
    assert_eq!(guest.complaints(), "");
}

/// What QEMU sends after a migration it also sends when it is asked to: the guest's driver announces its address then, each time anew,
/// so that the device was told that it had. (QEMU sends frames of its own besides, so the port's counter says whose they are.)
#[test]
fn a_card_announces_its_address_when_it_is_asked() {
    let test = "a_card_announces_its_address_when_it_is_asked";
    for (properties, options) in [("vectors=4,packed=off", ""), ("vectors=0,packed=on", ",packed_vq=1")] {
        let scratch = Scratch::new(test);
        let cable = Cable::new(&scratch);
        let mut devices = cable.card(&scratch, &format!("id=c,{properties}"));
        let monitor = scratch.join("monitor");
        devices.extend(["-monitor".into(), format!("unix:{},server=on,wait=off", monitor.display())]);
        let Some(mut guest) = boot(test, &scratch, &devices) else { return };
        let mut monitor = Monitor::connect(&monitor);
        guest.must("bind vfio-pci");
        guest.must(&format!("pmd -l 0,1 --no-huge -m 64 -a {ADDRESS}{options} -- -i --total-num-mbufs=8192"));
        guest.must("printed testpmd && link up");
        let info = guest.must("cat /tmp/out");
        assert!(info.contains("NET_GUEST_ANNOUNCE"), "{options}: {info}");
        for announced in 1..=3 {
            monitor.command("announce_self");
            guest.must(&format!("until_good '[ $(xstat 0 tx_good_packets) -ge {announced} ]'"));
        }
        guest.must("finish");
        assert_eq!(guest.complaints(), "");
    }
}

/// An IOMMU whose addresses have 39 bits, as those of many processors: memory lies within.
#[test]
fn an_iommu_of_39_bits_is_enough() {
    let test = "an_iommu_of_39_bits_is_enough";
    let scratch = Scratch::new(test);
    let cable = Cable::new(&scratch);
    let devices: Vec<_> = cable
        .card(&scratch, "vectors=0")
        .iter()
        .map(|option| option.replace("aw-bits=48", "aw-bits=39"))
        .collect();
    assert!(devices.iter().any(|option| option.contains("aw-bits=39")));
    let Some(mut guest) = boot(test, &scratch, &devices) else { return };
    cable.returns();
    guest.must("bind vfio-pci");
    let output =
        guest.must("OPTIONS=packed_vq=0 checks --exact inside::proves_packets --ignored --nocapture");
    assert!(output.contains("1 passed"), "{output}");
    assert_eq!(guest.complaints(), "");
}

/// A UDP datagram of a flow of its own.
fn flow(number: u16) -> Vec<u8> {
    const UDP: frames::Kind = frames::KINDS[2];
    let mut frame = UDP.frame(100 + usize::from(number));
    frame[34..36].copy_from_slice(&(2000 + number * 37).to_be_bytes());
    frame
}

/// Everything that can be in the way is said in one sentence, with what to do.
#[test]
fn what_is_in_the_way_is_said() {
    let test = "what_is_in_the_way_is_said";
    let scratch = Scratch::new(test);
    let cable = Cable::new(&scratch);
    let mut devices = cable.card(&scratch, "vectors=0");
    // Cards that go round the IOMMU, and one that is of before version 1.
    for (slot, properties) in
        [(6, "iommu_platform=off,disable-legacy=on"), (7, "disable-modern=on,disable-legacy=off")]
    {
        devices.extend([
            "-device".into(),
            format!("virtio-net-pci,addr={slot},romfile=,vectors=0,{properties}"),
        ]);
    }
    let Some(mut guest) = boot(test, &scratch, &devices) else { return };
    let mut refused = |before: &str, device: &str, parts: &[&str]| {
        guest.must(before);
        let message = guest.must(&format!("refused {device}"));
        assert!(message.lines().count() == 1 && message.contains("; "), "a problem and a remedy: {message}");
        parts.iter().for_each(|part| assert!(message.contains(part), "{part}: {message}"));
    };
    let card = format!("-a {ADDRESS}");
    refused("true", "-a 0000:00:09.0", &["there is no such device"]);
    refused("true", "-a 0000:00:00.0", &["no virtio network device"]);
    refused("true", &card, &["has no driver, and needs vfio-pci", "driverctl"]);
    refused(
        "bind vfio-pci",
        &format!("{card},queue_size=512"),
        &["a queue_size of 512 asked, the device takes 256"],
    );
    refused(
        "true",
        &format!("{card},packed_vq=1,queue_size=200"),
        &["packed rings, and the backend only has split ones"],
    );
    refused("chmod 600 /dev/vfio/vfio; AS=as_user", &card, &["opening /dev/vfio/vfio: Permission denied"]);
    refused(
        "chmod 666 /dev/vfio/vfio",
        &card,
        &["opening /dev/vfio/", "Permission denied", "give this user the right"],
    );
    refused(
        "AS=; card=/sys/bus/pci/devices/0000:00:06.0; address=0000:00:06.0; bind vfio-pci",
        "-a 00:06.0",
        &["without the IOMMU", "iommu_platform=on"],
    );
    refused(
        "card=/sys/bus/pci/devices/0000:00:07.0; address=0000:00:07.0; bind vfio-pci",
        "-a 00:07.0",
        &["no common configuration of a modern"],
    );
    let doctor = guest.must("linecard doctor | grep -A1 vfio");
    assert!(doctor.contains("can be opened, IOMMU group"), "{doctor}");
    assert!(guest.complaints().lines().all(|line| line.contains("has no peer")), "{}", guest.complaints());
}

/// What the tests above run in the guest.
mod inside {
    use linecard::eal::EalArgs;
    use linecard::mempool::{Burst, PacketType, Pool, PoolConfig};
    use linecard::net::parse;
    use linecard::net::toeplitz::Toeplitz;
    use linecard::pmd::PortConfig;
    use linecard::pmd::offload::{Offloads, RxOffloads};
    use linecard::pmd::rss::{RssConfig, flow_hash};
    use linecard_lab::wait_until;

    use std::time::Duration;

    use super::ADDRESS;
    use super::support::ours::{Ours, SIZES};
    use super::support::traffic::Prover;

    #[test]
    #[ignore = "run by a_program_drives_a_card_by_itself, in a guest"]
    fn proves_packets() {
        linecard_apps_common::log::start(&EalArgs::default(), "info").expect("a level");
        let options = std::env::var("OPTIONS").expect("the shell gives them");
        for device in [format!("{ADDRESS},{options}"), format!("net_virtio_pci7,addr=00:05.0,{options}")] {
            let mut ours = Ours::start(&device);
            ours.wait_for_link(true);
            let features = ours.port.control.features();
            assert_eq!(features.contains("RING_PACKED"), options.contains("packed_vq=1"), "{features}");
            let report = ours.prove(600, SIZES);
            assert!(report.is_perfect(), "{report:?}");
            memory_comes_and_goes(&mut ours);
            let report = ours.prove(200, SIZES);
            assert!(report.is_perfect(), "{report:?}");
            ours.stop();
        }
    }

    /// Every UDP datagram that comes is where its hash says, and says it; until all flows have come.
    #[test]
    #[ignore = "run by a_card_spreads_flows_and_says_their_hash, in a guest"]
    fn checks_where_flows_come() {
        linecard_apps_common::log::start(&EalArgs::default(), "info").expect("a level");
        let options = std::env::var("OPTIONS").expect("the shell gives them");
        let offloads = Offloads { rx: RxOffloads::RSS_HASH, ..Offloads::default() };
        let config = PortConfig::default().rx_queues(2).tx_queues(2).offloads(offloads);
        let mut ours = Ours::with_config(&format!("{ADDRESS},{options}"), config);
        ours.wait_for_link(true);
        let features = ours.port.control.features();
        assert!(features.contains("NET_RSS") && features.contains("NET_HASH_REPORT"), "{features}");
        let rss = ours.port.control.rss().expect("it can be asked").clone();
        let mut wanted = RssConfig::new(2);
        wanted.key = std::array::from_fn(|at| (at as u8).wrapping_mul(37) ^ 0xa5);
        wanted.table[..64].fill(1);
        for (round, config) in [("configured", Some(wanted.clone())), ("usual", None)] {
            rss.set(config.clone()).expect("it is good");
            wait_until(round, || rss.is_hashed_by_device() && rss.is_spread_by_device() == config.is_some());
            println!("{round} flows");
            let config = config.unwrap_or_else(|| RssConfig::new(2));
            let came = flows_that_come(&mut ours, &config);
            assert!(came.iter().all(|queue| *queue > 0), "both queues have some: {came:?}");
        }
        ours.stop();
    }

    /// Receives 64 UDP datagrams; how many came on each queue.
    fn flows_that_come(ours: &mut Ours, config: &RssConfig) -> [usize; 2] {
        let (toeplitz, mut came) = (Toeplitz::new(&config.key), [0; 2]);
        wait_until("64 flows", || {
            for (queue, count) in came.iter_mut().enumerate() {
                let mut burst = Burst::new();
                ours.port.rx[queue].rx_burst(&mut burst);
                for packet in burst.iter() {
                    let layers = parse(packet.data());
                    if layers.packet_type.l4() != PacketType::L4_UDP || !layers.packet_type.is_ipv4() {
                        continue;
                    }
                    let hash = flow_hash(&toeplitz, config.types, packet.data(), &layers).expect("a flow");
                    assert_eq!((packet.hash(), packet.packet_type().l4()), (Some(hash), PacketType::L4_UDP));
                    assert_eq!(usize::from(config.table[hash as usize % 128]), queue, "{hash:#x}");
                    *count += 1;
                }
            }
            came.iter().sum::<usize>() == 64
        });
        came
    }

    /// DPDK's backend drops what it has no translation for yet: at first, packets are sent until all come back.
    #[test]
    #[ignore = "run by a_backend_of_dpdks_serves_the_card, in a guest"]
    fn proves_packets_to_a_translating_peer() {
        linecard_apps_common::log::start(&EalArgs::default(), "info").expect("a level");
        let options = std::env::var("OPTIONS").expect("the shell gives them");
        let mut ours = Ours::start(&format!("{ADDRESS},{options}"));
        ours.wait_for_link(true);
        let features = ours.port.control.features();
        assert_eq!(features.contains("RING_PACKED"), options.contains("packed_vq=1"), "{features}");
        let (rx, tx) = (ours.port.rx[0].as_mut(), ours.port.tx[0].as_mut());
        let mut prober = Prover { pool: &ours.pool, rx, tx, window: 128, sizes: SIZES, probes: true };
        // Twice: what the first run was still waiting for may come back in the second.
        let mut all_come_back = || prober.run(3000, Duration::from_millis(300)).received == 3000;
        wait_until("all translations are known", || all_come_back() && all_come_back());
        let report = ours.prove(3000, SIZES);
        assert!(report.is_perfect(), "{report:?}");
        ours.stop();
    }

    /// Pools that are made and given back while the port runs: each sends from memory that the device did not know before, once it is
    /// mapped from where it lies. What is sent before that is copied.
    fn memory_comes_and_goes(ours: &mut Ours) {
        let mut pools: Vec<Pool> = Vec::new();
        for step in 0..7_u8 {
            let config = PoolConfig::default().packets(1024).cache(32);
            let pool = Pool::new(ours.pool.domain(), config).expect("a pool");
            wait_until("a packet is sent from where it lies", || sends_in_place(ours, &pool, step));
            pools.push(pool);
            // One in the middle goes, which leaves a gap.
            if pools.len() > 4 {
                pools.remove(2);
            }
        }
        assert!(ours.port.control.link().up);
    }

    /// Sends a packet of `pool`, which comes back; whether the device read it where it was, and not a copy.
    fn sends_in_place(ours: &mut Ours, pool: &Pool, step: u8) -> bool {
        let mut burst = Burst::new();
        pool.get_bulk(&mut burst, 1).unwrap();
        burst[0].append(1000).expect("room").fill(step ^ 0x5a);
        wait_until("it is sent", || ours.port.tx[0].tx_burst(&mut burst) == 1);
        let lent = pool.stats().in_use == 1;
        assert_eq!(ours.receive(1), [vec![step ^ 0x5a; 1000]], "step {step}");
        wait_until("it is home", || {
            ours.port.tx[0].reclaim();
            pool.stats().in_use == 0
        });
        lent
    }
}
