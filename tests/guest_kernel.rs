//! The kernel of a guest as the backend: `net_virtio_user` over `/dev/vhost-net`, with a tap interface of the guest's own
//! stack at the other end. ARP, ICMP, UDP and TCP pass, one queue pair and two, with and without offloads; every byte of the
//! payloads is compared.
//!
//! ```text
//!   guest  linecard testpmd ── net_virtio_user0 ── /dev/vhost-net ── lc0 ── its stack
//!                           ── net_virtio_user1 ── /dev/vhost-net ── lc1 ── its stack, in another namespace
//! ```

mod support;

use support::Scratch;
use support::guest::{Guest, Kernel, Parts};
use support::kernel::{STREAM_KIB, with_parts};

/// A guest with two processors that has this program, its tests, and a shell that can send datagrams.
fn guest(test: &str, scratch: &Scratch) -> Option<Guest> {
    with_parts(test, scratch, Parts::find(test, Kernel::Vhost)?, &[("bash", "bash"), ("ip", "iproute2")])
}

/// Starts testpmd with two ports over vhost-net that have so many queue pairs.
fn start(guest: &mut Guest, queues: u16, offloads: bool) {
    let vdev =
        |port| format!("--vdev net_virtio_user{port},path=/dev/vhost-net,iface=lc{port},queues={queues}");
    let flags = if offloads { "--enable-rx-cksum --enable-lro --tx-offloads=0x2e" } else { "" };
    guest.must(&format!(
        "pmd -l 0,1 --no-huge -m 64 {} {} -- -i --forward-mode=icmpecho --rxq={queues} --txq={queues} --total-num-mbufs=8192 {flags}",
        vdev(0),
        vdev(1)
    ));
    guest.must("printed testpmd");
    guest.must("tell start 'icmpecho packet forwarding'");
    guest.must("ip addr add 10.0.0.1/24 dev lc0");
}

/// Forwards between these ports in this mode from now on; one alone gets back what it sends.
fn forward(guest: &mut Guest, ports: &str, mode: &str) {
    guest.must(&format!("tell stop 'Accumulated'; echo 'set portlist {ports}' >&9"));
    guest.must(&format!(
        "echo 'set fwd {mode}' >&9; echo 'clear port xstats all' >&9; tell start '{mode} packet forwarding'"
    ));
}

/// Stops the ports, which must return all packets, and ends testpmd and the other namespace.
#[track_caller]
fn end(guest: &mut Guest, what: &str) {
    guest.must("tell stop Accumulated; tell 'port stop all' 'Stopping ports'");
    let pool = guest.must("tell 'show pool' 'mempool <'; cat /tmp/out");
    assert!(pool.contains("in_use=0"), "{what}: packets are missing: {pool}");
    guest.must("finish");
    guest.must("kill $OTHER; until_good '! ip link show lc0'");
}

#[track_caller]
fn number(guest: &mut Guest, port: u16, name: &str) -> u64 {
    let text = guest.must(&format!("xstat {port} {name}"));
    text.trim().parse().unwrap_or_else(|_| panic!("{name}: '{text}'\n{}", guest.transcript()))
}

#[test]
fn a_kernels_stack_exchanges_packets_with_testpmd() {
    let test = "a_kernels_stack_exchanges_packets_with_testpmd";
    let scratch = Scratch::new(test);
    let Some(mut guest) = guest(test, &scratch) else { return };
    for (queues, offloads) in [(1, false), (1, true), (2, false), (2, true)] {
        let what = format!("queues={queues}, offloads {offloads}");
        start(&mut guest, queues, offloads);
        let features = guest.must("tell 'show port info 0' 'Link status: up'; cat /tmp/out");
        assert_eq!(features.contains("NET_GUEST_CSUM"), offloads, "{what}: {features}");
        assert_eq!(features.contains("NET_MQ"), queues > 1, "{what}: {features}");
        assert!(features.contains("vhost-net, interface lc0"), "{what}: {features}");

        guest.must("echoes 10");
        guest.must("echoes 1400");

        // Nobody answers the kernel's questions who has an address while packets are only turned round.
        guest.must("arp -s 10.0.0.2 02:00:00:00:00:02");
        // What comes from a port goes back to it; each datagram has a port, and so a queue, of its own.
        forward(&mut guest, "0", "5tswap");
        guest.must("datagrams 24");
        let all: Vec<u64> =
            (0..queues).map(|queue| number(&mut guest, 0, &format!("rx_q{queue}_packets"))).collect();
        assert!(all.iter().sum::<u64>() >= 24 && all.iter().all(|packets| *packets > 0), "{what}: {all:?}");

        forward(&mut guest, "0,1", "io");
        guest.must("elsewhere");
        guest.must("ip link set lc1 netns $OTHER && inside ip addr add 10.0.0.9/24 dev lc1 && inside ip link set lc1 up");
        guest.must("sender= receiver=inside stream 10.0.0.9");
        guest.must("sender=inside receiver= stream 10.0.0.1");
        let sums = guest.must("bad_sums; inside bad_sums");
        let counters = guest.must("cat /proc/net/snmp; inside cat /proc/net/snmp /proc/net/dev");
        assert_eq!(sums, "0\n0", "{what}: {counters}");
        let (packets, bytes) =
            (number(&mut guest, 0, "rx_good_packets"), number(&mut guest, 0, "rx_good_bytes"));
        assert!(bytes > STREAM_KIB as u64 * 1024, "{what}: {bytes}");
        assert_eq!(bytes / packets > 1514, offloads, "{what}: {packets} packets, {bytes} bytes");

        end(&mut guest, &what);
    }
    assert_eq!(guest.complaints(), "");
}

/// Rings whose buffers come back in order, and workers of vhost that are threads of the kernel.
#[test]
fn a_newer_kernel_works_in_order_with_threads_of_its_own() {
    let test = "a_newer_kernel_works_in_order_with_threads_of_its_own";
    let scratch = Scratch::new(test);
    let Some(parts) = Parts::find(test, Kernel::VhostNew) else { return };
    let Some(mut guest) = with_parts(test, &scratch, parts, &[("bash", "bash"), ("ip", "iproute2")]) else {
        return;
    };
    for (queues, offloads) in [(1, false), (2, true)] {
        let what = format!("queues={queues}, offloads {offloads}");
        start(&mut guest, queues, offloads);
        let features = guest.must("tell 'show port info 0' 'Link status: up'; cat /tmp/out");
        assert!(features.contains("IN_ORDER"), "{what}: {features}");
        // One process for each queue pair of the two ports; threads of testpmd would be none.
        let threads = guest.must("cat /proc/[0-9]*/comm | grep -c '^vhost-'");
        assert_eq!(threads, (2 * queues).to_string(), "{what}");

        guest.must("echoes 10");
        guest.must("echoes 1400");
        guest.must("arp -s 10.0.0.2 02:00:00:00:00:02");
        forward(&mut guest, "0", "5tswap");
        guest.must("datagrams 24");
        forward(&mut guest, "0,1", "io");
        guest.must("elsewhere");
        guest.must("ip link set lc1 netns $OTHER && inside ip addr add 10.0.0.9/24 dev lc1 && inside ip link set lc1 up");
        guest.must("sender= receiver=inside stream 10.0.0.9");
        guest.must("sender=inside receiver= stream 10.0.0.1");
        assert_eq!(guest.must("bad_sums; inside bad_sums"), "0\n0", "{what}");

        end(&mut guest, &what);
    }
    assert_eq!(guest.complaints(), "");
}

/// Stop and start, link state, address, MTU; an interface that is removed and made again, by the port or by somebody else.
#[test]
fn a_port_follows_its_interface() {
    let test = "a_port_follows_its_interface";
    let scratch = Scratch::new(test);
    let Some(mut guest) = guest(test, &scratch) else { return };
    guest.must("single iface=lc0,mac=02:00:00:00:00:42");
    assert_eq!(guest.must("cat /sys/class/net/lc0/address"), "02:00:00:00:00:42");
    guest.must("ip addr add 10.0.0.1/24 dev lc0; link up && echoes 56");

    guest.must("tell stop Accumulated; tell 'port stop all' 'Done'");
    assert_eq!(guest.must("cat /sys/class/net/lc0/carrier"), "0", "the kernel sees that nobody is there");
    guest.must("echo 'port config mtu 0 3000' >&9; tell 'port start all' 'Done'; tell start 'icmpecho packet forwarding'");
    assert_eq!(guest.must("cat /sys/class/net/lc0/carrier /sys/class/net/lc0/mtu"), "1\n3000");
    guest.must("echoes 2900");

    guest.must("ip link set lc0 down; link down");
    guest.must("ip link set lc0 up; link up && echoes 56");

    // In another namespace it carries packets as before, and through a restart.
    guest.must("elsewhere");
    guest.must(
        "ip link set lc0 netns $OTHER; inside ip addr add 10.0.0.1/24 dev lc0; inside ip link set lc0 up",
    );
    guest.must("link up && echoes 56 inside");
    guest.must("tell stop Accumulated; tell 'port stop all' 'Done'; tell 'port start all' 'Done'; tell start 'icmpecho packet forwarding'");
    guest.must("link up && echoes 56 inside");
    guest.must(
        "inside ip link set lc0 netns $$; kill $OTHER; ip addr add 10.0.0.1/24 dev lc0; ip link set lc0 up",
    );
    guest.must("link up && echoes 56");

    // The port makes its own interface again.
    guest.must("old=$(cat /sys/class/net/lc0/ifindex); ip link del lc0; until_good '[ $(cat /sys/class/net/lc0/ifindex) != $old ]'");
    guest.must("ip addr add 10.0.0.1/24 dev lc0; link up && echoes 56");
    guest.must("finish; until_good '! ip link show lc0'");

    // Somebody else's it waits for.
    guest.must("i2 tuntap add dev lc1 mode tap; ip link set lc1 up; single iface=lc1; link up");
    guest.must("ip link del lc1; link down");
    guest.must("i2 tuntap add dev lc1 mode tap; ip addr add 10.0.0.1/24 dev lc1; ip link set lc1 up; link up && echoes 56");
    guest.must("finish; ip link show lc1");
    assert_eq!(guest.complaints(), "");
}

/// `linecard switch` between a port over vhost-net, which is detached and attached again, and a tap.
#[test]
fn a_switch_has_a_port_over_vhost_net() {
    let test = "a_switch_has_a_port_over_vhost_net";
    let scratch = Scratch::new(test);
    let Some(mut guest) = guest(test, &scratch) else { return };
    let device = "net_virtio_user0,path=/dev/vhost-net,iface=lc0";
    guest.must("switch --tap lc1");
    guest.must("elsewhere; ip link set lc1 netns $OTHER; inside ip addr add 10.0.0.2/24 dev lc1; inside ip link set lc1 up");
    for _ in 0..2 {
        guest.must(&format!("ctl add kernel --vdev {device}"));
        guest.must("ip addr add 10.0.0.1/24 dev lc0; ip link set lc0 up");
        guest.must("echoes 56; echoes 1400");
        guest.must("sender= receiver=inside stream 10.0.0.2");
        guest.must("sender=inside receiver= stream 10.0.0.1");
        assert_eq!(guest.must("bad_sums; inside bad_sums"), "0\n0");
        // Segments pass uncut.
        let average = "sed -n 's/^sent *\\([0-9]*\\) packets, \\([0-9]*\\) bytes/\\2 \\1/p' | { read bytes packets; echo $((bytes/packets)); }";
        let average: u64 =
            guest.must(&format!("ctl show kernel | {average}")).trim().parse().expect("a number");
        assert!(average > 1514, "{average} bytes a packet");
        guest.must("ctl remove kernel; until_good '! ip link show lc0'");
    }
    guest.must("end_switch; ! ip link show lc0; kill $OTHER");
    assert_eq!(guest.complaints(), "");
}

/// An ordinary user, with an interface that root made for him, or with descriptors that were passed.
#[test]
fn a_user_needs_no_capability() {
    let test = "a_user_needs_no_capability";
    let scratch = Scratch::new(test);
    let Some(mut guest) = guest(test, &scratch) else { return };
    guest.must("chmod 666 /dev/net/tun /dev/vhost-net");
    guest.must(
        "i2 tuntap add dev lc0 mode tap user user; ip addr add 10.0.0.1/24 dev lc0; ip link set lc0 up",
    );
    guest.must("AS=as_user single iface=lc0,mac=02:00:00:00:00:43; link up && echoes 1400");
    assert_eq!(guest.must("cat /sys/class/net/lc0/address"), "02:00:00:00:00:43");
    guest.must("finish; ip link del lc0");

    // Neither device opens: the descriptors do.
    guest.must("chmod 600 /dev/net/tun /dev/vhost-net");
    guest.must("AS='checks --exact inside::gives_descriptors_away --ignored --nocapture' single tap_fd=TAPS,vhost_fd=VHOSTS,queues=2 --rxq=2 --txq=2");
    guest.must("ip addr add 10.0.0.1/24 dev given; link up && echoes 1400");
    guest.must("tell stop Accumulated; tell 'port stop all' 'Done'; tell 'port start all' 'Done'; tell start 'icmpecho packet forwarding'");
    guest.must("link up && echoes 1400; finish");
    assert_eq!(guest.complaints(), "");
}

/// Memory that a running port's domain gets is the kernel's to read; a port may have more transmit queues than receive
/// queues.
#[test]
fn memory_grows_and_queues_are_uneven() {
    let test = "memory_grows_and_queues_are_uneven";
    let scratch = Scratch::new(test);
    let Some(mut guest) = guest(test, &scratch) else { return };
    for check in ["sends_from_memory_that_comes_and_goes", "is_answered_on_the_only_receive_queue"] {
        let output = guest.must(&format!("checks --exact inside::{check} --ignored --nocapture"));
        assert!(output.contains("1 passed"), "{output}");
    }
    assert_eq!(guest.complaints(), "");
}

#[test]
fn what_the_kernel_refuses_is_said() {
    let test = "what_the_kernel_refuses_is_said";
    let scratch = Scratch::new(test);
    let Some(mut guest) = guest(test, &scratch) else { return };
    let mut refused = |before: &str, arguments: &str, parts: &[&str]| {
        guest.must(before);
        let message = guest.must(&format!("refused net_virtio_user0,{arguments}"));
        assert!(message.lines().count() == 1 && message.contains("; "), "a problem and a remedy: {message}");
        parts.iter().for_each(|part| assert!(message.contains(part), "{part}: {message}"));
    };
    let device = "path=/dev/vhost-net";
    let with = |more: &str| format!("{device},{more}");
    refused(
        "true",
        "path=/dev/null",
        &["'/dev/null' is neither a vhost-net nor a vhost-vdpa device", "give path=/dev/vhost-net"],
    );
    refused("true", &with("iface=lo"), &["'lo' is no tap interface", "iface="]);
    refused("true", &with("tap_fd=99"), &["tap_fd=99 cannot be used"]);
    refused("true", &with("vhost_fd=99"), &["vhost_fd=99", "Bad file descriptor"]);
    refused(
        "i2 tuntap add dev one mode tap",
        &with("iface=one,queues=2"),
        &[
            "'one' is a tap interface of one queue only",
            "ip tuntap add dev one mode tap multi_queue vnet_hdr",
        ],
    );
    refused("single iface=one", &with("iface=one"), &["opening the interface one", "somebody else uses it"]);
    let denied = &["opening /dev/vhost-net: Permission denied", "or pass open descriptors with vhost_fd="];
    refused(
        "finish; chmod 600 /dev/vhost-net; chmod 666 /dev/net/tun; AS=as_user",
        &with("iface=new"),
        denied,
    );
    refused(
        "chmod 666 /dev/vhost-net",
        &with("iface=new,queues=2"),
        &["making the interface new", "ip tuntap add dev new mode tap vnet_hdr multi_queue user USER"],
    );
    let full = &["2 memory segments to share, the backend takes 1"];
    let again =
        "AS=; rmmod vhost_net vhost; insmod /mods/vhost.ko max_mem_regions=1; insmod /mods/vhost_net.ko";
    refused(again, device, full);
    refused("rmmod vhost_net", device, &["opening /dev/vhost-net", "modprobe vhost_net"]);
    assert_eq!(guest.complaints(), "");
}

/// What the tests above run in the guest.
mod inside {
    use std::net::UdpSocket;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::os::unix::process::CommandExt;
    use std::process::Command;
    use std::time::Duration;

    use linecard::mempool::{Burst, Pool, PoolConfig};
    use linecard::netdev::{Interface, Namespace, tap, tun};
    use linecard::pmd::PortConfig;
    use linecard::pmd::offload::Offloads;
    use linecard_lab::wait_until;

    use super::support::ours::Ours;

    /// Becomes the program that the shell named, as an ordinary user, with queues of an interface and devices for them.
    #[test]
    #[ignore = "run by a_user_needs_no_capability, in a guest"]
    fn gives_descriptors_away() {
        let here = Namespace::default();
        let queue = |_| {
            let queue = tap::descriptor("test", &here).expect("root");
            tap::attach("test", &queue, "given", tun::Queues::Many).expect("root");
            queue
        };
        let device =
            |_| std::fs::File::options().read(true).write(true).open("/dev/vhost-net").expect("root");
        let queues = [1, 2].map(queue);
        let devices: [OwnedFd; 2] = [1, 2].map(device).map(Into::into);
        Interface::find("test", &here, "given").and_then(|given| given.set_up(true)).expect("root");
        let numbers = |fds: &[OwnedFd]| {
            fds.iter()
                .for_each(|fd| rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).expect("open"));
            fds.iter().map(|fd| fd.as_raw_fd().to_string()).collect::<Vec<_>>().join(":")
        };
        let arguments = std::fs::read_to_string("/tmp/arguments").expect("the shell wrote it");
        let arguments = arguments.replace("TAPS", &numbers(&queues)).replace("VHOSTS", &numbers(&devices));
        panic!(
            "{}",
            Command::new("/bin/linecard").args(arguments.split_whitespace()).uid(1000).gid(1000).exec()
        );
    }

    fn busybox(line: &str) {
        let status = Command::new("busybox").args(line.split(' ')).status();
        assert!(status.expect("it is there").success(), "{line}");
    }

    /// A socket of the stack at the other end of lc0, and the interface's address.
    fn socket(ours: &mut Ours) -> (UdpSocket, [u8; 6]) {
        let lc0 = Interface::find("test", &Namespace::default(), "lc0").expect("it is made");
        busybox("ip addr add 10.0.0.1/24 dev lc0");
        ours.wait_for_link(true);
        let socket = UdpSocket::bind("10.0.0.1:7").expect("an address of ours");
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        (socket, lc0.info().expect("it is there").mac.expect("an address"))
    }

    /// What the second pair sends, which receives nothing, the kernel answers on the first.
    #[test]
    #[ignore = "run by memory_grows_and_queues_are_uneven, in a guest"]
    fn is_answered_on_the_only_receive_queue() {
        let config = PortConfig::default().rx_queues(1).tx_queues(2);
        let mut ours = Ours::with_config("net_virtio_user0,path=/dev/vhost-net,iface=lc0,queues=2", config);
        let (socket, mac) = socket(&mut ours);
        busybox("arp -s 10.0.0.2 02:00:00:00:00:02");
        for step in 0..20_u8 {
            let payload = vec![step; 500];
            let frame = super::datagram(mac, &payload);
            let mut burst = Burst::new();
            ours.pool.get_bulk(&mut burst, 1).unwrap();
            burst[0].append(frame.len()).expect("room").copy_from_slice(&frame);
            let queue = usize::from(step % 2);
            wait_until("it is sent", || ours.port.tx[queue].tx_burst(&mut burst) == 1);
            let mut got = [0; 2000];
            let (len, from) = socket.recv_from(&mut got).expect("it arrives");
            assert_eq!(got[..len], payload, "step {step}");
            socket.send_to(&got[..len], from).expect("it is answered");
            let back = ours.receive(1);
            assert_eq!(back.len(), 1, "step {step}");
            assert_eq!(back[0][42..], payload, "step {step}");
        }
        ours.stop();
    }

    /// The kernel reads what is sent from pools that were made, and some given back, while the port runs.
    #[test]
    #[ignore = "run by memory_grows_and_queues_are_uneven, in a guest"]
    fn sends_from_memory_that_comes_and_goes() {
        let mut ours = Ours::with_eal(
            &["-m", "128"],
            "net_virtio_user0,path=/dev/vhost-net,iface=lc0",
            Offloads::default(),
        );
        let (socket, mac) = socket(&mut ours);
        let mut pools: Vec<Pool> = Vec::new();
        for step in 0..40_u8 {
            let config = PoolConfig::default().packets(2048).cache(32);
            let pool = Pool::new(ours.pool.domain(), config).expect("a pool");
            let payload: Vec<u8> = (0..1000).map(|at: u32| (at as u8).wrapping_mul(31) ^ step).collect();
            let frame = super::datagram(mac, &payload);
            let mut burst = Burst::new();
            pool.get_bulk(&mut burst, 1).unwrap();
            burst[0].append(frame.len()).expect("room").copy_from_slice(&frame);
            wait_until("it is sent", || ours.port.tx[0].tx_burst(&mut burst) == 1);
            let mut got = [0; 2000];
            let (len, _) = socket.recv_from(&mut got).expect("it arrives");
            assert_eq!(got[..len], payload, "step {step}");
            wait_until("it is home", || {
                ours.port.tx[0].reclaim();
                pool.stats().in_use == 0
            });
            pools.push(pool);
            // One in the middle goes, which leaves a gap.
            if pools.len() > 6 {
                pools.remove(3);
            }
        }
        assert!(ours.port.control.link().up);
        let lost = ours.port.control.xstats();
        assert!(lost.iter().all(|(name, value)| !name.contains("backend_gone") || *value == 0), "{lost:?}");
        drop(pools);
        ours.stop();
    }
}

/// A frame from 10.0.0.2, port 7, to 10.0.0.1, port 7; the checksum of its payload is left out, as UDP allows.
fn datagram(to: [u8; 6], payload: &[u8]) -> Vec<u8> {
    let udp_len = (8 + payload.len()) as u16;
    let mut ip = vec![0x45, 0];
    ip.extend((20 + udp_len).to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1]);
    let sum: u32 = ip.chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut frame = [&to[..], &[2, 0, 0, 0, 0, 2, 8, 0], &ip, &[0, 7, 0, 7]].concat();
    frame.extend(udp_len.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}
