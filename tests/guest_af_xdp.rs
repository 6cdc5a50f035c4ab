//! `net_af_xdp` where the device reaches our buffers itself: the virtio-net of a Linux guest in QEMU.
//!
//! ```text
//!   guest  linecard testpmd, io ── net_af_xdp0 ── eth0 ┐ QEMU's own virtio-net
//!   host   this test ── net_af_packet0 ── tap lc0 ─────┘
//! ```

mod support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use linecard_lab::Lab;
use support::Scratch;
use support::guest::{Guest, Kernel, Parts};
use support::ours::Ours;

/// What the ports of one guest after the other are asked for, and the card's ring: busy polling, as by default, leaves
/// transmission to nobody on this device.
const PORTS: [(&str, &str); 2] = [("busy_budget=64", "packed=off"), ("busy_budget=0", "packed=on")];
/// Lengths that an interface of 1500 bytes carries.
const LENGTHS: &[usize] = &[64, 65, 127, 128, 129, 200, 256, 257, 512, 777, 1024, 1514];
const PACKETS: u64 = 3000;
const BOOT: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_secs(90);
/// Until a frame comes back.
const SETTLED: Duration = Duration::from_secs(60);

/// The guest's whole system; what is typed goes to testpmd, up to a line 'over'.
const SCRIPT: &str = r#"#!/bin/sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev; mount -t tmpfs t /tmp
for round in 1 2 3; do for m in /mods/*.ko; do insmod $m 2>/dev/null; done; done
for all in all default eth0; do echo 1 > /proc/sys/net/ipv6/conf/$all/disable_ipv6; done
echo 40 > /proc/sys/vm/nr_hugepages
ip link set lo up; ip link set eth0 up
echo "READY $(uname -r)"
typed() { while read line; do [ "$line" = over ] && break; echo "$line"; done; }
typed | linecard testpmd -l 0,1 -m 32 --vdev net_af_xdp0,iface=eth0,$OPTIONS -- -i --nb-cores=1 --total-num-mbufs=8192 2>&1
echo "EXIT $?"
cat /proc/net/dev /proc/interrupts
echo "ALL SAID"
poweroff -f
"#;

/// A card whose memory goes through the kernel's DMA interface, as its driver wants before it shares it. Interrupts by
/// message are off (`vectors=0`): QEMU 7.2 without KVM crashes with them.
fn card(ring: &str) -> Vec<String> {
    let device = format!(
        "virtio-net-pci,netdev=n,mac=52:54:00:00:00:01,iommu_platform=on,disable-legacy=on,vectors=0,romfile=,{ring}"
    );
    ["-smp", "2", "-netdev", "tap,id=n,ifname=lc0,script=no,downscript=no", "-device", &device]
        .map(Into::into)
        .into()
}

#[test]
fn a_device_reaches_our_buffers_itself() {
    let test = "a_device_reaches_our_buffers_itself";
    let (Some(parts), Some(lab)) = (Parts::find(test, Kernel::Xdp), Lab::new(test)) else { return };
    let scratch = Scratch::new(test);
    let parts = parts.with_program(Path::new(env!("CARGO_BIN_EXE_linecard")), scratch.path());
    lab.ip("tuntap add dev lc0 mode tap");
    lab.ip("link set dev lc0 up");
    for (options, ring) in PORTS {
        let script = SCRIPT.replace("$OPTIONS", options);
        let mut guest = lab.run(|| Guest::boot(&parts, scratch.path(), &script, &card(ring)));
        guest.expect("READY", BOOT);
        guest.type_line("show port info 0");
        let paths = guest.expect_within("Data path: ", STEP);
        assert!(paths.contains("rx zero-copy native, tx zero-copy native"), "{paths}");
        let mut ours = Ours::start(&format!("net_af_packet0,iface=lc0,netns={}", lab.path()));
        let name = format!("{options} {ring}");
        // Twice: what the first start lent to the device must be home for the second.
        for round in ["first", "again"] {
            guest.type_line("start");
            guest.expect_within("io packet forwarding", STEP);
            // What the host's kernel sends while QEMU sets the card's queues up again may be lost.
            if !ours.comes_back(SETTLED) {
                let counters = ours.port.control.xstats();
                let counted: Vec<_> = counters.iter().filter(|(_, value)| *value > 0).collect();
                let show = || Command::new("ip").args(["-s", "-s", "link", "show", "lc0"]).output();
                let tap = String::from_utf8_lossy(&lab.run(show).expect("ip runs").stdout).into_owned();
                let said = all_it_says(&mut guest);
                panic!("{name} {round}: no frame comes back; here {counted:?}\n{tap}\n{said}");
            }
            let report = ours.prove(PACKETS, LENGTHS);
            assert!(report.is_perfect(), "{name} {round}: {report:?}\n{}", all_it_says(&mut guest));
            for line in ["stop", "port stop all", "show pool", "port start all"] {
                guest.type_line(line);
            }
            let pool = guest.expect_within("mempool <", STEP);
            assert!(pool.contains("in_use=0"), "packets are missing: {pool}");
        }
        assert_good_end(&mut guest);
        ours.stop();
    }
}

/// What guest and testpmd say of a card that carries no frames.
fn all_it_says(guest: &mut Guest) -> String {
    for line in ["stop", "show port stats 0", "show port xstats 0", "quit", "over"] {
        guest.type_line(line);
    }
    guest.line_within(STEP, |line| line.contains("ALL SAID"));
    guest.transcript()
}

/// Nothing was copied on the way out, and testpmd ends well.
fn assert_good_end(guest: &mut Guest) {
    guest.type_line("show port xstats 0");
    let copied = guest.expect_within("tx_q0_copied: ", STEP);
    assert!(copied.ends_with("tx_q0_copied: 0"), "{copied}");
    guest.type_line("quit");
    guest.type_line("over");
    assert_eq!(guest.expect("EXIT", STEP), "EXIT 0", "{}", guest.transcript());
}
