//! Bad input: one sentence with a remedy, nothing left behind.

use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::{Bench, Cable, near_at, nothing_left};
use linecard_pmd::config::{PortConfig, configure};

#[test]
fn interfaces_that_do_not_fit() {
    let Some(cable) = Cable::new("af_packet interfaces_that_do_not_fit") else { return };
    cable.near.ip("tuntap add dev tun7 mode tun");
    let bench = Bench::new();
    let netns = cable.near.path();
    for (iface, want) in [
        ("naer", "there is no interface 'naer'"),
        ("naer", "did you mean 'near'?"),
        ("tun7", "'tun7' is not an Ethernet interface"),
        ("a-name-too-long-for-it", "at most 15"),
    ] {
        let text = format!("net_af_packet0,iface={iface},netns={netns}");
        let message = bench.probe(&text).err().expect(iface).to_string();
        assert!(message.starts_with("net_af_packet0: ") && message.contains(want), "{message}");
    }
    let message =
        bench.probe("net_af_packet0,iface=near,netns=no-such-place").err().expect("none").to_string();
    assert!(message.contains("there is no network namespace 'no-such-place'"), "{message}");
    nothing_left(&cable.near);
}

#[test]
fn without_the_right_to_do_it() {
    let Some(cable) = Cable::new("af_packet without_the_right_to_do_it") else { return };
    let bench = Bench::new();
    let text = near_at(&cable, "");
    let message = std::thread::scope(|scope| {
        let poor = scope.spawn(|| {
            let mut mine = capabilities(None).expect("readable");
            mine.effective.remove(CapabilitySet::NET_RAW);
            set_capabilities(None, mine).expect("less is always allowed");
            bench.probe(&text).err().expect("no packet sockets without CAP_NET_RAW").to_string()
        });
        poor.join().expect("no panic")
    });
    assert_eq!(
        message,
        "net_af_packet0: opening a packet socket: Operation not permitted (os error 1); run as root, or give the \
         program the right once: sudo setcap cap_net_admin,cap_net_raw+ep PROGRAM"
    );
    nothing_left(&cable.near);
}

#[test]
fn more_than_the_interface_can() {
    let Some(cable) = Cable::new("af_packet more_than_the_interface_can") else { return };
    let bench = Bench::new();
    let refuse = |options: &str, config: PortConfig| {
        let device = bench.probe(&near_at(&cable, options)).expect("probes");
        let refused = configure(device, config).and_then(|port| port.start(&bench.pool)).expect_err(options);
        nothing_left(&cable.near);
        refused.error.to_string()
    };
    assert_eq!(
        refuse(",qpairs=2", PortConfig::default().rx_queues(3)),
        "net_af_packet0: 3 receive queues requested, the device has 2; add qpairs=3 to its arguments"
    );
    assert_eq!(
        refuse("", PortConfig::default().tx_queues(17)),
        "net_af_packet0: 17 transmit queues requested, the device has 1; add qpairs=16 to its arguments, and ask for 1 to 16"
    );
    assert_eq!(
        refuse(",qpairs=16", PortConfig::default().rx_queues(17)),
        "net_af_packet0: 17 receive queues requested, the device has 16; ask for 1 to 16"
    );
    assert_eq!(
        refuse(",framesz=16384,blocksz=16384", PortConfig::default().mtu(9000)),
        "net_af_packet0: an MTU of 9000 asked, interface near has 1500; \
         raise it with 'ip link set near mtu 9000', or ask for less"
    );
    assert_eq!(
        refuse("", PortConfig::default().mtu(9000)),
        "net_af_packet0: an MTU of 9000 asked, 68 to 1958 is possible"
    );
    // 32 768 blocks of 4 MiB: more than there is, and the kernel would try.
    let message = refuse(",blocksz=4194304,framesz=4194304,framecnt=32768", PortConfig::default());
    assert!(message.starts_with("net_af_packet0: receive rings of 131072 MiB asked"), "{message}");
}
