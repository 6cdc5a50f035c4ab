//! An interface that only shows addresses, in a namespace of the test's own.

use std::net::IpAddr;

use linecard_lab::Lab;
use linecard_netdev::{Interface, Placeholder};

#[test]
fn a_placeholder_shows_what_it_was_given() {
    let Some(lab) = Lab::new("a_placeholder_shows_what_it_was_given") else { return };
    let shown = Placeholder {
        mac: [2, 0, 0, 0, 0, 9],
        mtu: 9000,
        addresses: vec![
            ("10.9.0.5".parse().expect("an address"), 24),
            ("fd00::5".parse().expect("an address"), 64),
        ],
    };
    let made = Interface::make_placeholder("net1", lab.namespace(), "net1", &shown).expect("made");
    let info = made.info().expect("there");
    assert_eq!((info.mac, info.mtu), (Some(shown.mac), shown.mtu));
    let mut addresses = made.addresses().expect("told");
    addresses.retain(|(address, _)| !matches!(address, IpAddr::V6(six) if six.is_unicast_link_local()));
    assert_eq!(addresses, shown.addresses);
    let again = Interface::make_placeholder("net1", lab.namespace(), "net1", &shown).expect_err("taken");
    assert!(again.to_string().contains("making interface net1"), "{again}");
    let wrong = Placeholder { addresses: vec![("10.9.0.5".parse().expect("an address"), 99)], ..shown };
    Interface::make_placeholder("net1", lab.namespace(), "net2", &wrong).expect_err("no such prefix");
    assert!(!lab.ip("-brief link").contains("net2"), "nothing is left");
    made.remove().expect("removed");
    assert!(!lab.ip("-brief link").contains("net1"));
}
