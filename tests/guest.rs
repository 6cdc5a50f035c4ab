//! The virtio-net driver of Linux, in a QEMU guest, at our backend: it pings testpmd, and sends TCP streams through it
//! with its checksums and its 64 KiB segments left to us; every byte is compared.
//!
//! ```text
//!   guest, namespace A: eth0 ─ split ── net_vhost0 ┐
//!   guest, namespace B: eth1 ─ packed ─ net_vhost1 ┘ linecard testpmd: icmpecho, then io between pairs
//! ```

mod support;

use std::path::PathBuf;
use std::time::Duration;

use support::Scratch;
use support::console::{Kind, Testpmd};
use support::guest::{Guest, Parts};

/// One network card of the guest, by QEMU's properties; cards 0 and 1, 2 and 3, … talk to each other.
const CARDS: [&str; 6] = [
    "packed=off,mrg_rxbuf=on",
    "packed=on,mrg_rxbuf=on",
    "packed=off,mrg_rxbuf=off",
    "packed=on,mrg_rxbuf=off",
    "packed=off,mrg_rxbuf=on",
    // It takes nothing unfinished and nothing large: testpmd has to cut and to sum.
    "packed=on,mrg_rxbuf=on,guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off",
];
/// Bytes of each stream.
const STREAM_KIB: usize = 3000;
const BOOT: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_secs(20);

/// The guest's whole system. Cards of odd number move to namespace B before they talk to their pair.
const SCRIPT: &str = r#"#!/bin/sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev
for round in 1 2 3; do for m in /mods/*.ko; do insmod $m 2>/dev/null; done; done
for all in all default; do echo 0 > /proc/sys/net/ipv6/conf/$all/accept_dad; done
ip link set lo up
cards=$(ls /sys/class/net | grep -c eth)
n=0
while [ $n -lt $cards ]; do
  ip addr add 10.0.$n.1/24 dev eth$n; ip link set eth$n up
  echo "features $n $(cat /sys/class/net/eth$n/device/features)"
  for size in 10 1400; do
    echo "echo $n $size: $(ping -c 3 -i 0.2 -W 2 -s $size 10.0.$n.2 | grep transmitted)"
  done
  n=$((n+1))
done
echo "PINGED"
read go
unshare -n sleep 1000 & B=$!
sleep 1
inside() { nsenter -t $B -n "$@"; }
inside sh -c 'for all in all default; do echo 0 > /proc/sys/net/ipv6/conf/$all/accept_dad; done'
stream() { # name, address; by $sender and $receiver; dd writes 64 KiB at once, nc itself a few, which go out as they come
  dd if=/dev/urandom of=/sent bs=1024 count=$KIB 2>/dev/null
  $receiver nc -l -p 5000 -e dd of=/got bs=64k 2>/dev/null & L=$!
  sleep 0.5
  $sender timeout 15 nc $2 5000 -e dd if=/sent bs=64k 2>/dev/null
  wait $L
  echo "stream $1 $(md5sum < /sent | cut -c1-32) $(md5sum < /got | cut -c1-32)"
  rm -f /got
}
a=0
while [ $a -lt $cards ]; do
  b=$((a+1))
  ip link set eth$b netns $B
  ip addr add fd00:$a::1/64 dev eth$a
  inside ip addr add 10.0.$a.9/24 dev eth$b
  inside ip addr add fd00:$a::9/64 dev eth$b
  inside ip link set eth$b up
  sleep 0.5
  sender= receiver=inside stream "$a-$b-v4" 10.0.$a.9
  sender=inside receiver= stream "$b-$a-v4" 10.0.$a.1
  sender= receiver=inside stream "$a-$b-v6" fd00:$a::9
  sender=inside receiver= stream "$b-$a-v6" fd00:$a::1
  a=$((a+2))
done
bad() { grep Tcp: /proc/net/snmp | tail -1 | awk '{print $15}'; }
echo "bad checksums $(bad) $(inside sh -c "grep Tcp: /proc/net/snmp | tail -1 | awk '{print \$15}'")"
echo "FINISHED"
poweroff -f
"#;

/// A card at each socket. Message-signalled interrupts are off (`vectors=0`): QEMU 7.2 without KVM crashes with them.
fn cards(sockets: &[PathBuf]) -> Vec<String> {
    let mut arguments = Vec::new();
    for (n, (socket, properties)) in sockets.iter().zip(CARDS).enumerate() {
        arguments.extend(["-chardev".into(), format!("socket,id=c{n},path={}", socket.display())]);
        arguments.extend(["-netdev".into(), format!("vhost-user,id=n{n},chardev=c{n}")]);
        let fixed = format!("netdev=n{n},mac=52:54:00:00:00:0{n},vectors=0,romfile=");
        arguments.extend(["-device".into(), format!("virtio-net-pci,{fixed},{properties}")]);
    }
    arguments
}

fn testpmd(sockets: &[PathBuf]) -> Testpmd {
    let vdevs: Vec<_> = sockets
        .iter()
        .enumerate()
        .map(|(n, socket)| format!("net_vhost{n},iface={},tso=1", socket.display()))
        .collect();
    let mut eal = vec!["-l", "0,1", "--no-huge", "-m", "256"];
    eal.extend(vdevs.iter().flat_map(|vdev| ["--vdev", vdev]));
    let app = ["-i", "--forward-mode=icmpecho", "--enable-rx-cksum", "--enable-lro", "--tx-offloads=0x2e"];
    let mut testpmd = Testpmd::start(Kind::Linecard, &eal, &app);
    testpmd.type_line("start");
    testpmd.expect("icmpecho packet forwarding", STEP);
    testpmd
}

/// Packets and bytes that a port received.
fn received(testpmd: &mut Testpmd, port: usize) -> (u64, u64) {
    testpmd.type_line(&format!("show port xstats {port}"));
    let mut value = |name: &str| -> u64 {
        let line = testpmd.expect(name, STEP);
        line.rsplit(' ').next().expect("a value").parse().expect("a number")
    };
    (value("rx_good_packets:"), value("rx_good_bytes:"))
}

#[test]
fn linux_guest_pings_and_sends_large_packets() {
    let test = "linux_guest_pings_and_sends_large_packets";
    let Some(parts) = Parts::find(test) else { return };
    let scratch = Scratch::new(test);
    let sockets: Vec<_> = (0..CARDS.len()).map(|n| scratch.join(&format!("s{n}"))).collect();
    let mut testpmd = testpmd(&sockets);
    let script = SCRIPT.replace("$KIB", &STREAM_KIB.to_string());
    let mut guest = Guest::boot(&parts, scratch.path(), &script, &cards(&sockets));

    for (n, properties) in CARDS.iter().enumerate() {
        let features = guest.expect(&format!("features {n} "), BOOT);
        // Bit 34 is VIRTIO_F_RING_PACKED, bit 15 VIRTIO_NET_F_MRG_RXBUF.
        let bit = |bit: usize| features.as_bytes()["features 0 ".len() + bit] == b'1';
        assert_eq!(bit(34), properties.contains("packed=on"), "{features}");
        assert_eq!(bit(15), properties.contains("mrg_rxbuf=on"), "{features}");
        for _ in 0..2 {
            let line = guest.expect(&format!("echo {n} "), STEP);
            assert!(line.contains("3 packets transmitted, 3 packets received"), "{line}");
        }
    }
    guest.expect("PINGED", STEP);

    for line in ["stop", "clear port stats all", "set fwd io", "start"] {
        testpmd.type_line(line);
    }
    testpmd.expect("io packet forwarding", STEP);
    guest.type_line("go");
    for pair in (0..CARDS.len()).step_by(2) {
        let (a, b) = (pair, pair + 1);
        for name in
            [format!("{a}-{b}-v4"), format!("{b}-{a}-v4"), format!("{a}-{b}-v6"), format!("{b}-{a}-v6")]
        {
            let line = guest.expect(&format!("stream {name} "), STEP);
            let words: Vec<_> = line.split(' ').collect();
            assert!(words.len() == 4 && words[2] == words[3], "the stream changed: {line}");
        }
    }
    let bad = guest.expect("bad checksums ", STEP);
    assert_eq!(bad, "bad checksums 0 0", "{}", guest.transcript());
    guest.expect("FINISHED", STEP);
    drop(guest);

    for port in 0..CARDS.len() {
        let (packets, bytes) = received(&mut testpmd, port);
        assert!(bytes > 2 * STREAM_KIB as u64 * 1024, "{port}: {bytes}");
        // Two streams out, as many acknowledgements of the two that came in.
        assert!(
            bytes / packets > 1514,
            "port {port} received nothing large: {packets} packets, {bytes} bytes"
        );
    }
    for line in ["stop", "port stop all", "show pool"] {
        testpmd.type_line(line);
    }
    let pool = testpmd.expect("mempool <", STEP);
    assert!(pool.contains("in_use=0"), "packets are missing: {pool}");
    assert!(testpmd.quit().success());
}
