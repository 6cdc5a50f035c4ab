//! Interfaces found, read, changed and followed, in a namespace of the test's own.

use linecard_lab::Lab;
use linecard_netdev::{Interface, Namespace};

#[test]
fn an_interface_is_read_and_changed() {
    let Some(lab) = Lab::new("an_interface_is_read_and_changed") else { return };
    lab.veth("left", "right");
    let left = lab.interface("left");
    let info = left.info().expect("there");
    assert!(info.is_ethernet() && info.is_up() && info.is_running());
    assert_eq!((info.mtu, info.driver.as_str()), (1500, "veth"));

    left.set_mtu(9000).expect("veth takes it");
    left.set_mac([2, 0, 0, 0, 0, 7]).expect("a local address");
    let info = left.info().expect("there");
    assert_eq!((info.mtu, info.mac), (9000, Some([2, 0, 0, 0, 0, 7])));

    lab.interface("right").set_up(false).expect("ours");
    assert!(left.info().expect("there").is_up() && !left.link().up, "up, but the far end is not");
    lab.interface("right").set_up(true).expect("ours");
    assert!(left.link().up);

    lab.ip("link set left down");
    lab.ip("link set left name moved");
    assert_eq!(left.info().expect("followed by its index").name, "moved");
    lab.ip("link del moved");
    assert!(!left.exists() && !left.link().up);
    let problem = left.info().expect_err("gone").to_string();
    assert!(problem.contains("reading interface left") && problem.contains("ip link"), "{problem}");
}

#[test]
fn the_kernel_counts_what_passes() {
    let Some(lab) = Lab::new("the_kernel_counts_what_passes") else { return };
    let before = lab.interface("lo").info().expect("there").stats;
    lab.run(|| {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("lo is up");
        socket.send_to(&[0; 100], socket.local_addr().expect("bound")).expect("to ourselves");
    });
    let after = lab.interface("lo").info().expect("there").stats;
    assert_eq!(after.tx_packets - before.tx_packets, 1);
    assert_eq!(after.rx_bytes - before.rx_bytes, 100 + 8 + 20, "lo counts without the link header");
}

#[test]
fn what_is_not_there_is_told_with_what_is() {
    let Some(lab) = Lab::new("what_is_not_there_is_told_with_what_is") else { return };
    lab.veth("veth0", "veth1");
    let find = |name: &str| Interface::find("net_x0", lab.namespace(), name).expect_err(name).to_string();
    let at = lab.path();
    assert_eq!(
        find("vet0"),
        format!(
            "net_x0: there is no interface 'vet0' in the namespace {at}; did you mean 'veth0'? there are: veth0, veth1, lo"
        )
    );
    assert!(find("a-name-too-long-by-far").contains("has 22 bytes, the name of an interface at most 15"));
    assert!(find("a/b").contains("cannot be the name of an interface"));
    assert!(find("").contains("missing"));
}

#[test]
fn what_the_kernel_refuses_is_told() {
    let Some(lab) = Lab::new("what_the_kernel_refuses_is_told") else { return };
    lab.veth("veth0", "veth1");
    let problem = lab.interface("veth0").set_mtu(1_000_000).expect_err("too large").to_string();
    assert!(problem.contains("setting an MTU of 1000000 on interface veth0"), "{problem}");
    let problem = lab.interface("veth0").set_mac([0xff; 6]).expect_err("a group").to_string();
    assert!(problem.contains("setting the address of interface veth0"), "{problem}");
}

#[test]
fn a_namespace_is_checked() {
    let open = |text: &str| Namespace::open("net_x0", text).expect_err(text).to_string();
    assert!(open("missing-ns").contains("ip netns add"), "{}", open("missing-ns"));
    assert!(open("").contains("no network namespace ''"));
    assert!(open("/dev/null").contains("netns=/dev/null is no network namespace"));
}
