//! The kernel's vDPA between two ports of ours, and between a port of ours and its own network stack: `net_vduse` is the device.
//!
//! ```text
//!   net_virtio_user0 ── /dev/vhost-vdpa-0 ── kernel ── /dev/vduse/net0 ── net_vduse0
//!   its stack ── virtio_net ── virtio_vdpa ── kernel ── /dev/vduse/net0 ── net_vduse0 ── net_tap0 ── its stack elsewhere
//! ```

mod support;

use support::Scratch;
use support::guest::{Guest, Kernel, Parts};
use support::kernel::with_parts;

/// Both ends are ours and the kernel is between them: `net_vduse` sends back what `net_virtio_user` sends.
#[test]
fn a_vdpa_device_carries_packets() {
    let test = "a_vdpa_device_carries_packets";
    let scratch = Scratch::new(test);
    let Some(parts) = Parts::find(test, Kernel::Vdpa) else { return };
    let Some(mut guest) = with_parts(test, &scratch, parts, &[("vdpa", "iproute2")]) else { return };
    guest.must("checks --exact inside::is_a_network_device --ignored --nocapture > /tmp/device 2>&1 & until_good '[ -e /dev/vduse/net0 ]'");
    guest.must("until_good 'vdpa dev add name net0 mgmtdev vduse'; until_good '[ -e /dev/vhost-vdpa-0 ]'");
    let mut refused = |before: &str, arguments: &str, parts: &[&str]| {
        guest.must(before);
        let message = guest.must(&format!("refused net_virtio_user0,{arguments}"));
        assert!(message.lines().count() == 1 && message.contains("; "), "a problem and a remedy: {message}");
        parts.iter().for_each(|part| assert!(message.contains(part), "{part}: {message}"));
    };
    let device = "path=/dev/vhost-vdpa-0";
    refused("true", "path=/dev/vhost-vdpa-9", &["opening /dev/vhost-vdpa-9", "vdpa dev show"]);
    refused(
        "true",
        &format!("{device},queue_size=2048"),
        &["a queue_size of 2048 asked, the device takes 1024"],
    );
    let denied = &["opening /dev/vhost-vdpa-0: Permission denied"];
    refused("chmod 600 /dev/vhost-vdpa-0; AS=as_user", device, denied);
    guest.must("AS=");
    for options in ["packed_vq=1", "packed_vq=0", "packed_vq=0,mrg_rxbuf=0", "packed_vq=1,mrg_rxbuf=0"] {
        let output = guest.must(&format!(
            "OPTIONS={options} checks --exact inside::proves_packets_over_vdpa --ignored --nocapture; code=$?; cat /tmp/device; [ $code = 0 ]"
        ));
        assert!(output.contains("1 passed"), "{options}: {output}");
    }
    assert_eq!(guest.complaints(), "");
}

/// Moves the tap into the other namespace, with the address that it always has there.
const FAR: &str = "i2 link set far address 02:00:00:00:00:02; i2 link set far netns $OTHER; inside ip link set far up; inside ip addr add 10.0.0.2/24 dev far";

/// Starts testpmd with a device of the kernel's and a tap, and waits for the kernel's interface.
fn start(guest: &mut Guest, arguments: &str) {
    guest.must(&format!(
        "pmd -l 0,1 --no-huge -m 64 --vdev net_vduse0,name=net0,{arguments} --vdev net_tap0,iface=far -- -i --forward-mode=io \
         --total-num-mbufs=8192 --tx-offloads=0x2e --enable-rx-cksum --enable-lro"
    ));
    guest.must("printed testpmd && tell start 'io packet forwarding'");
}

/// Linux's own driver uses the device: sockets of the guest talk through our port to a tap in another namespace, over split and
/// packed rings, and go on after the process was killed: the interface stays, and so do its addresses and connections.
#[test]
fn sockets_of_the_kernel_use_the_device_and_outlive_its_process() {
    let test = "sockets_of_the_kernel_use_the_device_and_outlive_its_process";
    let scratch = Scratch::new(test);
    let Some(parts) = Parts::find(test, Kernel::VdpaNet) else { return };
    let programs = [("vdpa", "iproute2"), ("bash", "bash"), ("ip", "iproute2")];
    let Some(mut guest) = with_parts(test, &scratch, parts, &programs) else { return };
    for packed in [1, 0] {
        let arguments = format!("packed={packed},tso=1,mac=02:00:00:00:00:01");
        start(&mut guest, &arguments);
        guest.must("vdpa dev add name net0 mgmtdev vduse; until_good 'ip link show eth0'");
        assert!(guest.must("ip link show eth0").contains("02:00:00:00:00:01"));
        guest.must("elsewhere");
        guest.must(FAR);
        guest.must("ip addr add 10.0.0.1/24 dev eth0; ip link set eth0 up");
        let features = guest.must("link up; cat /tmp/out");
        assert_eq!(features.contains("RING_PACKED"), packed == 1, "{features}");
        for round in 0..3 {
            guest.must("echoes 56");
            guest.must("echoes 1400");
            guest.must("sender= receiver=inside stream 10.0.0.2");
            guest.must("sender=inside receiver= stream 10.0.0.1");
            if round == 2 {
                break;
            }
            survive_a_kill(&mut guest, &arguments);
        }
        let link = "ip link show eth0 | grep -q LOWER_UP";
        guest.must(&format!("tell 'stop' Accumulated; echo 'port stop 0' >&9; until_good '! {link}'"));
        guest.must(&format!(
            "echo 'port start 0' >&9; until_good '{link}'; tell start 'io packet forwarding'; echoes 56"
        ));
        guest.must(
            "vdpa dev del net0; until_good '! ip link show eth0'; finish; kill $OTHER; wait $OTHER; true",
        );
        guest.must("until_good '[ ! -e /dev/vduse/net0 ]'");
    }
    assert_eq!(guest.complaints(), "");
}

/// `linecard switch` as the device of Linux's own driver, with a tap beside it.
#[test]
fn a_switch_is_a_device_of_the_kernels() {
    let test = "a_switch_is_a_device_of_the_kernels";
    let scratch = Scratch::new(test);
    let Some(parts) = Parts::find(test, Kernel::VdpaNet) else { return };
    let programs = [("vdpa", "iproute2"), ("bash", "bash"), ("ip", "iproute2")];
    let Some(mut guest) = with_parts(test, &scratch, parts, &programs) else { return };
    guest.must("switch --tap far; elsewhere");
    guest.must(FAR);
    for tso in [1, 0] {
        guest.must(&format!("ctl add kernel --vdev net_vduse0,name=net0,tso={tso},mac=02:00:00:00:00:01"));
        guest.must("vdpa dev add name net0 mgmtdev vduse; until_good 'ip link show eth0'");
        guest.must("ip addr add 10.0.0.1/24 dev eth0; ip link set eth0 up");
        guest.must("echoes 56; echoes 1400");
        guest.must("sender= receiver=inside stream 10.0.0.2");
        guest.must("sender=inside receiver= stream 10.0.0.1");
        guest.must("vdpa dev del net0; until_good '! ip link show eth0'; ctl remove kernel");
    }
    guest.must("end_switch; kill $OTHER");
    assert_eq!(guest.complaints(), "");
}

/// `linecard switch` with a vDPA device, which another process is, and a tap.
#[test]
fn a_switch_has_a_port_over_vhost_vdpa() {
    let test = "a_switch_has_a_port_over_vhost_vdpa";
    let scratch = Scratch::new(test);
    let Some(parts) = Parts::find(test, Kernel::Vdpa) else { return };
    let Some(mut guest) = with_parts(test, &scratch, parts, &[("vdpa", "iproute2")]) else { return };
    for packed in [1, 0] {
        guest.must("pmd -l 0,1 --no-huge -m 64 --vdev net_vduse0,name=net0 -- -i --forward-mode=icmpecho --total-num-mbufs=4096");
        guest.must("printed testpmd && tell start 'icmpecho packet forwarding'");
        guest
            .must("until_good 'vdpa dev add name net0 mgmtdev vduse'; until_good '[ -e /dev/vhost-vdpa-0 ]'");
        guest.must(&format!(
            "switch --tap lc0 --vdev net_virtio_user0,path=/dev/vhost-vdpa-0,packed_vq={packed}"
        ));
        guest.must("ip addr add 10.0.0.1/24 dev lc0; ip link set lc0 up; echoes 56; echoes 1400");
        guest.must("end_switch; vdpa dev del net0; finish");
    }
    assert_eq!(guest.complaints(), "");
}

/// Kills the process while a connection sends, and starts it again: the connection goes on.
fn survive_a_kill(guest: &mut Guest, arguments: &str) {
    guest.must("head -c 6000k /dev/urandom > /tmp/long; inside nc -l -p 6000 -e dd of=/tmp/arrived bs=64k 2>/dev/null & listener=$!");
    guest.must("until_good 'inside netstat -tln | grep -q :6000'");
    guest.must("nc 10.0.0.2 6000 -e dd if=/tmp/long bs=64k 2>/dev/null & until_good '[ -s /tmp/arrived ]'");
    guest.must("exec 9>&-; killall -9 linecard; until_good '! pidof linecard'");
    // The tap went with the process; the device did not.
    guest.must("ip link show eth0");
    start(guest, arguments);
    guest.must(FAR);
    // TCP waits the longer the longer nothing came back.
    let arrived = "until_good '! kill -0 $listener' > /dev/null";
    for _ in 0..10 {
        if guest.run(arrived).code == 0 {
            break;
        }
        let size = guest.must("wc -c < /tmp/arrived");
        eprintln!("{} bytes came so far", size.trim());
    }
    guest.must(
        "wait $listener; cmp /tmp/long /tmp/arrived; same=$?; rm -f /tmp/long /tmp/arrived; [ $same = 0 ]",
    );
}

/// What the tests above run in the guest.
mod inside {
    use linecard::eal::EalArgs;
    use linecard::mempool::{Burst, Pool, PoolConfig};
    use linecard::pmd::PortConfig;
    use linecard_lab::wait_until;

    use super::support::ours::{Ours, SIZES};

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
    const MTU: u16 = 4000;
    /// While it is there the device's link is down.
    const UNPLUGGED: &str = "/tmp/unplugged";

    #[test]
    #[ignore = "run by a_vdpa_device_carries_packets, in a guest"]
    fn is_a_network_device() {
        let vdev = format!("net_vduse0,name=net0,mac=02:00:00:00:00:77,mtu={MTU},queue_size=1024");
        let mut ours = Ours::start(&vdev);
        let mut burst = Burst::new();
        loop {
            if std::path::Path::new(UNPLUGGED).exists() {
                // No port, no carrier.
                drop(std::mem::take(&mut burst));
                ours = ours.paused_while(|| std::path::Path::new(UNPLUGGED).exists());
            }
            ours.port.rx[0].rx_burst(&mut burst);
            ours.port.tx[0].tx_burst(&mut burst);
        }
    }

    /// Twice: the device is reset in between. Then with memory that comes while packets pass, and with the link down and up.
    #[test]
    #[ignore = "run by a_vdpa_device_carries_packets, in a guest"]
    fn proves_packets_over_vdpa() {
        linecard_apps_common::log::start(&EalArgs::default(), "info").expect("a level");
        let options = std::env::var("OPTIONS").expect("the shell gives them");
        let vdev = format!("net_virtio_user0,path=/dev/vhost-vdpa-0,queue_size=256,{options}");
        for _ in 0..2 {
            let mut ours = Ours::start(&vdev);
            ours.wait_for_link(true);
            let features = ours.port.control.features();
            assert_eq!(features.contains("RING_PACKED"), options.contains("packed_vq=1"), "{features}");
            assert!(features.contains("vDPA, /dev/vhost-vdpa-0"), "{features}");
            assert_eq!((ours.port.control.mac(), ours.port.control.mtu()), (MAC, 1500));
            let report = ours.prove(2000, SIZES);
            assert!(report.is_perfect(), "{report:?}");
            let pools: Vec<Pool> = (0..4)
                .map(|_| {
                    let config = PoolConfig::default().packets(1024).cache(32);
                    let pool = Pool::new(ours.pool.domain(), config).expect("a pool");
                    let mut burst = Burst::new();
                    pool.get_bulk(&mut burst, 1).unwrap();
                    burst[0].append(1000).expect("room").fill(0x5a);
                    wait_until("it is sent", || ours.port.tx[0].tx_burst(&mut burst) == 1);
                    let back = ours.receive(1);
                    assert_eq!(back, [vec![0x5a; 1000]]);
                    wait_until("it is home", || {
                        ours.port.tx[0].reclaim();
                        pool.stats().in_use == 0
                    });
                    pool
                })
                .collect();
            drop(pools);
            std::fs::write(UNPLUGGED, "").expect("a file");
            ours.wait_for_link(false);
            std::fs::remove_file(UNPLUGGED).expect("it is there");
            ours.wait_for_link(true);
            let report = ours.prove(500, SIZES);
            assert!(report.is_perfect(), "{report:?}");
            ours.stop();
        }
        if options.contains("mrg_rxbuf=0") {
            // Such a port has no packets of that length whatever the device has.
            return;
        }
        let error = Ours::refusal(&vdev, PortConfig::default().mtu(MTU + 1));
        assert!(error.contains("an MTU of 4001 asked, 68 to 4000 is possible"), "{error}");
    }
}
