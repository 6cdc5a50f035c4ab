//! The page `docs/guide/virtual-machines.md`: its commands, as they are, give a Linux guest a card, and the host pings it.

mod support;

use linecard_lab::Lab;
use support::Scratch;
use support::guest::{Kernel, Parts, boot_arguments};
use support::page::{commands, shell};

/// The guest does what the page says it should.
const SCRIPT: &str = r"#!/bin/sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev
for round in 1 2 3; do for m in /mods/*.ko; do insmod $m 2>/dev/null; done; done
ip addr add 10.77.0.9/24 dev eth0
ip link set eth0 up
while :; do sleep 1000; done
";

#[test]
fn the_page_works_as_it_is() {
    const TEST: &str = "the_page_works_as_it_is";
    let Some(lab) = Lab::new(TEST) else { return };
    let Some(parts) = Parts::find(TEST, Kernel::Net) else { return };
    if support::on_path("ping").is_none() {
        support::skip(TEST, "ping is not installed (apt-get install iputils-ping)");
        return;
    }
    let scratch = Scratch::new(TEST);
    let mut guest = boot_arguments(&parts, scratch.path(), SCRIPT);
    // QEMU 7.2 without KVM crashes with message-signalled interrupts; what the guest prints is of no use.
    guest.extend(
        ["-global", "virtio-net-pci.vectors=0", "-global", "virtio-net-pci.romfile=", "-serial", "null"]
            .map(Into::into),
    );
    let guest: Vec<String> = guest.iter().map(|word| format!("'{word}'")).collect();
    // Whatever fails, what was started is ended. Hugepages are other tests'.
    let script = format!(
        "set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || true; [ -z \"${{dir:-}}\" ] || rm -rf \"$dir\"' EXIT\nguest=({})\n{}",
        guest.join(" "),
        commands("virtual-machines.md").replace("linecard switch --tap", "linecard switch --no-huge --tap")
    );
    let output = lab.run(|| shell(&script).output()).expect("bash runs");
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    for part in [
        "5 packets transmitted, 5 received, 0% packet loss",
        "02:00:00:00:00:09  -     port1",
        "\nreaches port1\n",
        "vm2 attached",
        "vm2 detached",
    ] {
        assert!(out.contains(part), "no '{part}' in\n{out}\n{err}");
    }
}
