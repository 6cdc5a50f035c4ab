//! A Linux guest whose network cards are behind an IOMMU, in QEMU, at our backend: the driver maps each buffer for as long as the
//! card needs it, QEMU tells our backend where it is when asked, and takes it back. Pings, of which none is lost, and TCP streams whose
//! bytes are compared.
//!
//! ```text
//!   guest: virtio-net ─ I/O virtual addresses ─ intel-iommu (QEMU) ─┐ UPDATE, INVALIDATE ▼   MISS ▲
//!   guest memory ◄────────────────── net_vhost0,iommu-support=1 ◄───┘
//! ```

mod support;

use std::path::PathBuf;
use std::time::Duration;

use support::Scratch;
use support::console::{Kind, Testpmd};
use support::guest::{BEGIN, Guest, KERNEL, Kernel, Parts};

const CARDS: [&str; 2] = ["packed=off", "packed=on"];
/// Bytes of each stream: a buffer costs a few messages, and the guest is emulated.
const STREAM_KIB: usize = 1000;
/// Bits of features.
const ACCESS_PLATFORM: usize = 33;
const RING_PACKED: usize = 34;
const BOOT: Duration = Duration::from_secs(120);
const STEP: Duration = Duration::from_secs(120);

/// The rest of the guest's system. The driver of card 0 begins anew at the end, with mappings of its own.
const SCRIPT: &str = r#"
for all in all default; do echo 1 > /proc/sys/net/ipv6/conf/$all/disable_ipv6; done
LIMIT=100
pings() { # card; the first finds out where the other end is
  ping -c 1 -W 30 10.0.$1.2 > /dev/null
  for size in 10 1400; do
    echo "echo $1 $size: $(ping -c 30 -i 0.05 -W 30 -s $size 10.0.$1.2 | grep transmitted)"
  done
}
for n in 0 1; do
  ip addr add 10.0.$n.1/24 dev eth$n; ip link set eth$n up
  virtio=$(readlink -f /sys/class/net/eth$n/device)
  echo "features $n $(cat $virtio/features)"
  echo "domain $n $(cat $virtio/../iommu_group/type)"
  pings $n
done
device=$(basename $(readlink -f /sys/class/net/eth0/device))
cd /sys/bus/virtio/drivers/virtio_net
echo $device > unbind; echo $device > bind
ip addr add 10.0.0.1/24 dev eth0; ip link set eth0 up
pings 0
echo "PINGED"
read go
unshare -n sleep 10000 & B=$!
sleep 1
inside() { nsenter -t $B -n "$@"; }
ip link set eth1 netns $B
inside ip addr add 10.0.0.9/24 dev eth1; inside ip link set eth1 up
sleep 0.5
sender= receiver=inside stream 0-1 10.0.0.9
sender=inside receiver= stream 1-0 10.0.0.1
dmesg | grep -i "DMAR.*fault" | head -n 3 | sed 's/^/fault /'
echo "FINISHED"
poweroff -f
"#;

/// What QEMU has to be told beside the cards. Translation is strict: a buffer is taken back when its packet is done.
fn machine() -> Vec<String> {
    let kernel = &format!("{KERNEL} intel_iommu=on iommu.passthrough=0 iommu.strict=1");
    [
        "-machine",
        "kernel-irqchip=split",
        "-device",
        "intel-iommu,intremap=on,device-iotlb=on",
        "-append",
        kernel,
    ]
    .map(String::from)
    .to_vec()
}

/// A card at each socket. Message-signalled interrupts are off (`vectors=0`): QEMU 7.2 without KVM crashes with them.
fn cards(sockets: &[PathBuf]) -> Vec<String> {
    let mut arguments = machine();
    for (n, (socket, properties)) in sockets.iter().zip(CARDS).enumerate() {
        arguments.extend(["-chardev".into(), format!("socket,id=c{n},path={}", socket.display())]);
        arguments.extend(["-netdev".into(), format!("vhost-user,id=n{n},chardev=c{n}")]);
        let fixed = format!("netdev=n{n},mac=52:54:00:00:00:0{n},vectors=0,romfile=");
        let platform = "disable-legacy=on,iommu_platform=on,ats=on";
        arguments.extend(["-device".into(), format!("virtio-net-pci,{fixed},{platform},{properties}")]);
    }
    arguments
}

/// Counters of a port, by name.
fn counter(testpmd: &mut Testpmd, port: usize, name: &str) -> u64 {
    testpmd.type_line(&format!("show port xstats {port}"));
    let line = testpmd.expect(&format!("{name}:"), STEP);
    line.rsplit(' ').next().expect("a value").parse().expect("a number")
}

/// Pings of a card, of which none is lost: what a packet for the guest needs is asked for before it comes.
fn expect_pings(guest: &mut Guest, testpmd: &mut Testpmd, card: usize) {
    for _ in 0..2 {
        let line = guest.expect(&format!("echo {card} "), STEP);
        let whole = line.contains(": 30 packets transmitted, 30 packets received");
        assert!(whole, "{line}\n{}\n{}", guest.complaints(), testpmd.transcript());
    }
}

/// Streams from card to card through testpmd.
fn expect_streams(guest: &mut Guest, testpmd: &mut Testpmd) {
    for line in ["stop", "set fwd io", "start"] {
        testpmd.type_line(line);
    }
    testpmd.expect("io packet forwarding", STEP);
    guest.type_line("go");
    for name in ["0-1", "1-0"] {
        let line = guest.expect(&format!("stream {name} "), STEP);
        let words: Vec<_> = line.split(' ').collect();
        assert!(
            words.len() == 4 && words[2] == words[3],
            "the stream changed: {line}\n{}",
            guest.complaints()
        );
    }
}

#[test]
fn linux_guest_behind_an_iommu() {
    let test = "linux_guest_behind_an_iommu";
    let Some(parts) = Parts::find(test, Kernel::Net) else { return };
    let scratch = Scratch::new(test);
    let sockets: Vec<_> = (0..CARDS.len()).map(|n| scratch.join(&format!("s{n}"))).collect();
    let vdevs: Vec<_> = sockets
        .iter()
        .enumerate()
        .map(|(n, socket)| format!("net_vhost{n},iface={},iommu-support=1", socket.display()))
        .collect();
    let mut eal = vec!["-l", "0,1", "--no-huge", "-m", "256"];
    eal.extend(vdevs.iter().flat_map(|vdev| ["--vdev", vdev]));
    let mut testpmd = Testpmd::start(Kind::Linecard, &eal, &["-i", "--forward-mode=icmpecho"]);
    testpmd.type_line("start");
    testpmd.expect("icmpecho packet forwarding", STEP);

    let script = [BEGIN, SCRIPT].concat().replace("$KIB", &STREAM_KIB.to_string());
    let mut guest = Guest::boot(&parts, scratch.path(), &script, &cards(&sockets));
    for (n, properties) in CARDS.iter().enumerate() {
        let features = guest.expect(&format!("features {n} "), BOOT);
        let has = |bit: usize| features.as_bytes()["features 0 ".len() + bit] == b'1';
        assert!(has(ACCESS_PLATFORM), "{features}");
        assert_eq!(has(RING_PACKED), properties.contains("packed=on"), "{features}");
        let domain = guest.expect(&format!("domain {n} "), STEP);
        assert_eq!(domain, format!("domain {n} DMA"), "the guest does not translate strictly");
        expect_pings(&mut guest, &mut testpmd, n);
    }
    expect_pings(&mut guest, &mut testpmd, 0);
    guest.expect("PINGED", STEP);
    expect_streams(&mut guest, &mut testpmd);
    guest.expect("FINISHED", STEP);
    assert!(!guest.transcript().contains("fault DMAR"), "{}", guest.transcript());
    drop(guest);
    for port in 0..CARDS.len() {
        assert!(counter(&mut testpmd, port, "rx_good_bytes") > STREAM_KIB as u64 * 1024);
        for name in ["refused_requests", "ring_faults"] {
            assert_eq!(counter(&mut testpmd, port, name), 0, "{name}: {}", testpmd.transcript());
        }
    }
    for line in ["stop", "port stop all", "show pool"] {
        testpmd.type_line(line);
    }
    let pool = testpmd.expect("mempool <", STEP);
    assert!(pool.contains("in_use=0"), "packets are missing: {pool}");
    assert!(testpmd.quit().success());
}
