//! One switch with five kinds of peer at once: our virtio-user, DPDK's testpmd, a Linux guest in QEMU, a tap, and the kernel's
//! VXLAN device on another host. Every pair exchanges checked packets.
//!
//! ```text
//!   this process ── virtio-user ─ a.sock ┐            ┌ sw0 ── this test, as the kernel's user
//!   dpdk-testpmd ── virtio-user ─ b.sock ┤  linecard  │
//!   Linux guest  ── QEMU ──────── g.sock ┘   switch   └ UDP ── under0 ═ under1 ── vx (kernel), another namespace
//! ```
//! Frames of any content go between those three that this test drives by hand. testpmd and the guest answer pings: what comes
//! back is compared byte by byte; the guest pings testpmd, and its kernel checks what comes back.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use linecard::net::checksum::checksum;
use linecard::net::{MacAddr, echo};
use linecard_lab::{Lab, wait_until};
use linecard_switch::api::FdbFilter;
use support::Scratch;
use support::console::{Kind, present};
use support::guest::{Guest, Kernel, Parts};
use support::ours::{Ours, frontend_vdev, wait_for_socket};
use support::peer::{forward, idle};
use support::switch::{SIZES, Station, end, exchange_up_to, frame, start};

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const DPDK: [u8; 6] = [2, 0, 0, 0, 0, 2];
const TAP: [u8; 6] = [2, 0, 0, 0, 0, 3];
const FAR: [u8; 6] = [2, 0, 0, 0, 0, 4];
const GUEST: [u8; 6] = [2, 0, 0, 0, 0, 9];
/// The longest frame that fits through the tunnel, and so all.
const LONGEST: usize = 1464;
const BOOT: Duration = Duration::from_secs(120);

/// The guest: it answers, and pings testpmd when it is told to.
const SCRIPT: &str = r#"#!/bin/sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev
for round in 1 2 3; do for m in /mods/*.ko; do insmod $m 2>/dev/null; done; done
echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6
ip link set eth0 mtu 1450
ip addr add 10.9.0.9/24 dev eth0; ip link set eth0 up
echo "READY"
read go
for size in 10 700 1400; do
  echo "echo $size: $(ping -c 20 -i 0.05 -W 5 -s $size 10.9.0.2 | grep transmitted)"
done
echo "FINISHED"
read go
poweroff -f
"#;

/// An ICMP echo request of `len` bytes from one station to another, whose last octets are those of their IPv4 addresses.
fn ping(from: [u8; 6], to: [u8; 6], number: u16, len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (42..len).map(|i| (usize::from(number) * 31 + i * 7) as u8).collect();
    let mut icmp = [&[8, 0, 0, 0, 0x12, 0x34][..], &number.to_be_bytes(), &payload].concat();
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let total = (20 + icmp.len()) as u16;
    let mut ip = [
        &[0x45, 0][..],
        &total.to_be_bytes(),
        &[0, 0, 0, 0, 64, 1, 0, 0, 10, 9, 0, from[5], 10, 9, 0, to[5]],
    ]
    .concat();
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    [&to[..], &from, &[8, 0], &ip, &icmp].concat()
}

/// Whether `got` is the answer to `asked`: addresses swapped, the same content.
fn answers(asked: &[u8], got: &[u8]) -> bool {
    got.len() == asked.len()
        && got[..6] == asked[6..12]
        && got[6..12] == asked[..6]
        && got[26..30] == asked[30..34]
        && got[30..34] == asked[26..30]
        && got[34] == 0
        && got[38..] == asked[38..]
        && checksum(&got[34..]) == 0
}

/// Pings `to` from a station until each of 100 was answered.
fn pings(station: &mut dyn Station, from: [u8; 6], to: [u8; 6]) {
    for number in 0..100_u16 {
        // No shorter than a frame may be: what is padded comes back so.
        let asked = ping(from, to, number, SIZES[usize::from(number) % SIZES.len()].clamp(64, LONGEST));
        station.send(&asked);
        let until = Instant::now() + Duration::from_secs(60);
        let mut others = Vec::new();
        loop {
            let got = station.receive();
            if got.iter().any(|got| answers(&asked, got)) {
                break;
            }
            for frame in got {
                // Whoever is pinged may ask who asks.
                let mut answer = frame.clone();
                let for_us = echo::asked(&frame) == Some([10, 9, 0, from[5]]);
                if for_us && echo::answer_arp(&mut answer, MacAddr(from)) {
                    station.send(&answer);
                }
                others.push(frame);
            }
            assert!(
                Instant::now() < until,
                "ping {number} to {to:02x?} was not answered; {others:02x?} came"
            );
            std::thread::yield_now();
        }
    }
}

/// A guest with two cards: the first leaves checksums and segmentation to the switch and takes them unfinished, the second takes
/// whole frames only.
const STREAMS: &str = r#"#!/bin/sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev
for round in 1 2 3; do for m in /mods/*.ko; do insmod $m 2>/dev/null; done; done
for n in 0 1; do ip addr add 10.$n.0.9/24 dev eth$n; ip link set eth$n up; done
echo "READY"
dd if=/dev/urandom of=/sent bs=1024 count=3000 2>/dev/null
for n in 0 1; do
  nc -l -p 5000 -e dd of=/got bs=64k 2>/dev/null & L=$!
  sleep 0.5
  echo "LISTENING $n"
  wait $L
  echo "got $n $(md5sum < /got | cut -c1-32)"
  read go
  timeout 60 nc 10.$n.0.1 5000 -e dd if=/sent bs=64k 2>/dev/null
  echo "sent $n $(md5sum < /sent | cut -c1-32)"
done
echo "bad checksums $(bad_sums)"
poweroff -f
"#;

fn md5(bytes: &[u8]) -> String {
    let mut child =
        Command::new("md5sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("md5sum runs");
    child.stdin.take().expect("a pipe").write_all(bytes).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap_or_default().to_owned()
}

/// The kernel's large segments and unfinished checksums from a tap reach a guest that takes them as they are and one that does
/// not; and theirs reach the tap.
#[test]
fn streams_pass_between_ports_that_cut_and_sum_and_ports_that_do_not() {
    const TEST: &str = "streams_pass_between_ports_that_cut_and_sum_and_ports_that_do_not";
    let Some(lab) = Lab::new(TEST) else { return };
    let Some(parts) = Parts::find(TEST, Kernel::Net) else { return };
    let scratch = Scratch::new(TEST);
    let sockets = [0, 1].map(|n| scratch.join(&format!("g{n}.sock")));
    let ports = [0, 1].map(|n| format!("{},vlan={}", sockets[n].display(), n + 10));
    let arguments =
        ["--tap", "sw0,vlan=10", "--tap", "sw1,vlan=11", "--port", &ports[0], "--port", &ports[1]];
    let (running, mut client) = start(&lab, &scratch, &arguments);
    for (n, socket) in sockets.iter().enumerate() {
        wait_for_socket(socket);
        lab.ip(&format!("addr add 10.{n}.0.1/24 dev sw{n}"));
        lab.ip(&format!("link set sw{n} up"));
    }
    let none = ",csum=off,guest_csum=off,gso=off,host_tso4=off,host_tso6=off,guest_tso4=off,guest_tso6=off";
    let devices: Vec<String> = (0..2)
        .flat_map(|n| {
            let card = format!(
                "virtio-net-pci,netdev=n{n},mac=02:00:00:00:01:0{n},vectors=0,romfile={}",
                if n == 0 { "" } else { none }
            );
            [
                "-chardev".to_owned(),
                format!("socket,id=c{n},path={}", sockets[n].display()),
                "-netdev".into(),
                format!("vhost-user,id=n{n},chardev=c{n}"),
                "-device".into(),
                card,
            ]
        })
        .collect();
    let mut guest = Guest::boot(&parts, scratch.path(), STREAMS, &devices);
    guest.expect("READY", BOOT);
    let content: Vec<u8> = (0..3_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let patience = Duration::from_secs(120);
    for n in 0..2 {
        guest.expect(&format!("LISTENING {n}"), patience);
        let mut stream = lab.run(|| TcpStream::connect(format!("10.{n}.0.9:5000"))).expect("it listens");
        stream.write_all(&content).expect("it takes all");
        drop(stream);
        assert_eq!(guest.expect("got", patience), format!("got {n} {}", md5(&content)));
        let listener = lab.run(|| TcpListener::bind(format!("10.{n}.0.1:5000"))).expect("a listener");
        guest.type_line("");
        let mut got = Vec::new();
        listener.accept().expect("it connects").0.read_to_end(&mut got).expect("it sends all");
        assert_eq!(guest.expect("sent", patience), format!("sent {n} {}", md5(&got)));
        assert_eq!(got.len(), 3000 * 1024);
    }
    assert_eq!(guest.expect("bad checksums", patience), "bad checksums 0");
    // Between those that can, large segments passed uncut.
    let seen = client.port_show("sw0").expect("it is there").counters;
    assert!(seen.rx_bytes / seen.rx_packets > 3000, "{} bytes in {} frames", seen.rx_bytes, seen.rx_packets);
    end(running);
}

/// Another host, one cable away, with a vxlan device of the kernel's towards us; false where the kernel has none.
fn vxlan_device(lab: &Lab, other_host: &Lab) -> bool {
    lab.veth("under0", "under1");
    lab.ip(&format!("link set under1 netns {}", other_host.path()));
    other_host.ip("link set under1 up");
    lab.ip("addr add 192.0.2.1/24 dev under0");
    other_host.ip("addr add 192.0.2.2/24 dev under1");
    let vxlan = "link add vx type vxlan id 100 dstport 4789 remote 192.0.2.1 dev under1";
    if !other_host.output("ip", &vxlan.split(' ').collect::<Vec<_>>()).expect("ip runs").status.success() {
        return false;
    }
    other_host.ip("link set vx addrgenmode none");
    other_host.ip("link set vx up");
    true
}

/// The arguments for QEMU that give the guest a card at this socket.
fn card(socket: &Path) -> Vec<String> {
    // QEMU 7.2 without KVM crashes with message-signalled interrupts.
    let card = "virtio-net-pci,netdev=n,mac=02:00:00:00:00:09,vectors=0,romfile=";
    [
        "-chardev",
        &format!("socket,id=c,path={}", socket.display()),
        "-netdev",
        "vhost-user,id=n,chardev=c",
        "-device",
        card,
    ]
    .map(Into::into)
    .to_vec()
}

#[test]
fn five_kinds_of_peer_exchange_checked_packets() {
    const TEST: &str = "five_kinds_of_peer_exchange_checked_packets";
    let (Some(lab), Some(other_host)) = (Lab::new(TEST), Lab::new(TEST)) else { return };
    let Some(parts) = Parts::find(TEST, Kernel::Net) else { return };
    if !present(Kind::Dpdk, TEST) {
        return;
    }
    if !vxlan_device(&lab, &other_host) {
        support::skip(TEST, "the kernel has no vxlan device");
        return;
    }

    let scratch = Scratch::new(TEST);
    let [a, b, g] = ["a.sock", "b.sock", "g.sock"].map(|name| scratch.join(name));
    let (a_port, g_port) = (a.display().to_string(), g.display().to_string());
    // testpmd answers every ARP request, whomever it is for: it may not speak for others.
    let b_port = format!("{},mac=02:00:00:00:00:02,ip=10.9.0.2", b.display());
    let arguments = [
        "--tap",
        "sw0",
        "--port",
        &a_port,
        "--port",
        &b_port,
        "--port",
        &g_port,
        "--vxlan",
        "100,remote=192.0.2.2",
    ];
    let (running, mut client) = start(&lab, &scratch, &arguments);
    wait_for_socket(&g);
    let mut guest = Guest::boot(&parts, scratch.path(), SCRIPT, &card(&g));
    let device = format!("net_virtio_user0,path={},queue_size=256,mac=02:00:00:00:00:02", b.display());
    let mut testpmd = idle(Kind::Dpdk, &[&device], "peers", &[]);
    forward(&mut testpmd, "icmpecho");
    let mut ours = Ours::start(&frontend_vdev(&a, "mac=02:00:00:00:00:01"));
    ours.wait_for_link(true);
    wait_until("the tap's link", || lab.interface("sw0").link().up);
    let (mut tap, mut far) = (lab.wire("sw0"), other_host.wire("vx"));
    guest.expect("READY", BOOT);

    {
        let mut stations: [(&mut dyn Station, [u8; 6]); 3] =
            [(&mut ours, OURS), (&mut tap, TAP), (&mut far, FAR)];
        for (station, own) in &mut stations {
            wait_until("it is known", || {
                station.send(&frame(*own, [0xff; 6], 0, 64));
                let known = client.fdb_list(&FdbFilter::default()).expect("a list");
                known.iter().any(|entry| entry.mac.0 == *own)
            });
        }
        for (one, two) in [(0, 1), (0, 2), (1, 2)] {
            let [(first, first_mac), (second, second_mac)] =
                stations.get_disjoint_mut([one, two]).expect("two");
            exchange_up_to(LONGEST, &mut **first, Some(&mut **second), *first_mac, *second_mac);
            exchange_up_to(LONGEST, &mut **second, Some(&mut **first), *second_mac, *first_mac);
        }
        for (station, own) in &mut stations {
            pings(&mut **station, *own, DPDK);
            pings(&mut **station, *own, GUEST);
        }
    }
    guest.type_line("");
    for size in [10, 700, 1400] {
        let line = guest.expect(&format!("echo {size}:"), Duration::from_secs(120));
        assert!(line.contains("20 packets transmitted, 20 packets received"), "{line}");
    }
    guest.expect("FINISHED", Duration::from_secs(120));

    let mut known: Vec<_> = client.fdb_list(&FdbFilter::default()).expect("a list");
    known.retain(|entry| [OURS, DPDK, TAP, FAR, GUEST].contains(&entry.mac.0));
    let ports: Vec<_> = known.iter().map(|entry| (entry.mac.0, entry.port.as_str())).collect();
    let want = [(OURS, "port1"), (DPDK, "port2"), (TAP, "sw0"), (FAR, "vxlan100"), (GUEST, "port3")];
    assert_eq!(ports, want);
    guest.type_line("");
    assert!(testpmd.quit().success());
    end(running);
}
