//! Interfaces that are made for others, in a namespace of the test's own: one that only shows addresses, and a tap to be passed on.

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

#[test]
fn a_tap_outlives_its_queue_and_leads_to_gateways() {
    let Some(lab) = Lab::new("a_tap_outlives_its_queue_and_leads_to_gateways") else { return };
    if let Err(error) = linecard_netdev::tun::open() {
        linecard_lab::skip("a_tap_outlives_its_queue_and_leads_to_gateways", &format!("no taps: {error}"));
        return;
    }
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let addresses = vec![(address("10.9.0.5"), 24), (address("fd00::5"), 64)];
    let shown = Placeholder { mac: [2, 0, 0, 0, 0, 9], mtu: 9000, addresses };
    let make =
        |name: &str, shown: &Placeholder| Interface::make_passed_tap("net1", lab.namespace(), name, shown);
    let (tap, queue) = make("net1", &shown).expect("made");
    let info = tap.info().expect("there");
    assert_eq!((info.mac, info.mtu, info.driver.as_str()), (Some(shown.mac), shown.mtu, "tun"));
    for ((to, prefix), gateway) in [
        (("0.0.0.0", 0), Some("10.9.0.1")),
        (("10.8.0.0", 16), Some("10.9.0.7")),
        (("10.7.0.0", 16), None),
        (("fd01::", 64), Some("fd00::1")),
        (("fd02::", 64), None),
    ] {
        for _ in 0..2 {
            tap.add_route((address(to), prefix), gateway.map(address)).expect(to);
        }
    }
    let routes = lab.ip("route") + &lab.ip("-6 route");
    for part in [
        "default via 10.9.0.1 dev net1",
        "10.8.0.0/16 via 10.9.0.7 dev net1",
        "10.7.0.0/16 dev net1",
        "fd01::/64 via fd00::1 dev net1",
        "fd02::/64 dev net1",
    ] {
        assert_eq!(routes.matches(part).count(), 1, "{part}: {routes}");
    }
    let error =
        tap.add_route((address("10.6.0.0"), 16), Some(address("10.200.0.1"))).expect_err("not reached");
    assert!(error.to_string().contains("setting a route to 10.6.0.0/16 through"), "{error}");
    make("net1", &shown).expect_err("taken");
    let wrong = Placeholder { addresses: vec![(address("10.9.0.5"), 99)], ..shown };
    make("net2", &wrong).expect_err("no such prefix");
    assert!(!lab.ip("-brief link").contains("net2"), "nothing is left");
    drop(queue);
    linecard_lab::wait_until("an interface without a carrier", || !tap.link_only().up);
    assert!(lab.ip("-brief address").contains("10.9.0.5/24"));
    tap.remove().expect("removed");
    assert!(!lab.ip("-brief link").contains("net1"));
}
