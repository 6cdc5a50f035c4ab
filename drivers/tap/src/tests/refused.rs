//! What cannot be had is told in one sentence with what to do, and leaves nothing behind.

use std::os::fd::{IntoRawFd, OwnedFd};
use std::process::Command;

use super::behaviour::Bench;
use crate::TapDriver;
use linecard_lab::Lab;
use linecard_netdev::InterfaceInfo;
use linecard_pmd::{DevArgs, Driver};

/// Every interface in a namespace.
fn names(lab: &Lab) -> Vec<String> {
    lab.ip("-brief link").lines().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
}

/// The message for these arguments, after which the namespace is as it was.
fn refusal(lab: &Lab, arguments: &str) -> String {
    let (bench, before) = (Bench::new(), names(lab));
    let text = format!("net_tap0,netns={},{arguments}", lab.path());
    let message = bench.probe(&text).map(|_| ()).expect_err(arguments).to_string();
    assert_eq!(names(lab), before, "{arguments} leaves nothing behind");
    assert!(message.starts_with("net_tap0: ") && message.contains("; "), "{message}: a problem and a remedy");
    message
}

fn holds(message: &str, parts: &[&str]) {
    parts.iter().for_each(|part| assert!(message.contains(part), "{message}: says '{part}'"));
}

#[test]
fn names_and_kinds() {
    let Some(lab) = Lab::new("names_and_kinds") else { return };
    lab.veth("veth0", "veth1");
    lab.ip("tuntap add dev tun9 mode tun multi_queue");
    lab.ip("tuntap add dev one mode tap");
    holds(&refusal(&lab, "iface=a-name-much-too-long"), &["20 bytes", "at most 15"]);
    holds(&refusal(&lab, "iface=a%sb"), &["'iface=a%sb'", "%d at most once"]);
    holds(&refusal(&lab, "iface="), &["missing"]);
    holds(&refusal(&lab, "iface=veth0"), &["'veth0' is a veth interface", "iface="]);
    holds(&refusal(&lab, "iface=lo"), &["'lo' is no tap interface", "iface="]);
    holds(&refusal(&lab, "iface=tun9"), &["'tun9' is a tun interface, not a tap"]);
    holds(
        &refusal(&lab, "iface=one"),
        &["one queue only", "ip tuntap add dev one mode tap multi_queue vnet_hdr"],
    );
    let bench = Bench::new();
    let first = bench.probe(&format!("net_tap1,netns={},iface=busy", lab.path())).expect("free");
    holds(&refusal(&lab, "iface=busy"), &["another program uses the interface 'busy'"]);
    drop(first);
    assert!(!names(&lab).iter().any(|name| name == "busy"), "gone with its port");
}

#[test]
fn arguments_and_neighbours() {
    let Some(lab) = Lab::new("arguments_and_neighbours") else { return };
    lab.veth("veth0", "veth1");
    holds(&refusal(&lab, "mac=ff:ff:ff:ff:ff:ff"), &["unicast"]);
    holds(&refusal(&lab, "ifac=x"), &["did you mean 'iface'?"]);
    holds(&refusal(&lab, "remote=vetho"), &["no interface 'vetho'", "did you mean 'veth0'?"]);
    holds(&refusal(&lab, "remote=lo"), &["'lo' is not an Ethernet interface"]);
    lab.output("tc", &["qdisc", "add", "dev", "veth0", "ingress"]).expect("tc");
    holds(
        &refusal(&lab, "remote=veth0"),
        &["redirects its traffic already", "tc qdisc del dev veth0 ingress"],
    );
}

#[test]
fn namespaces_and_descriptors() {
    let Some(lab) = Lab::new("namespaces_and_descriptors") else { return };
    let bench = Bench::new();
    let message = bench.probe("net_tap0,netns=no-such-one").map(|_| ()).expect_err("missing").to_string();
    holds(&message, &["no network namespace 'no-such-one'", "ip netns add"]);
    holds(&refusal(&lab, "fd=x"), &["'fd=x' is not possible", "fd=3:4"]);
    holds(&refusal(&lab, "fd=7:7"), &["each once"]);
    holds(&refusal(&lab, "fd=1000000"), &["fd=1000000 cannot be used", "Bad file descriptor"]);
    holds(&refusal(&lab, "fd=3,iface=x"), &["cannot go with 'iface'"]);
    let null: OwnedFd = std::fs::File::open("/dev/null").expect("there").into();
    holds(
        &refusal(&lab, &format!("fd={}", null.into_raw_fd())),
        &["no queue of a tap interface", "TUNSETIFF"],
    );
}

/// Refused before the descriptor is taken over, which would close it.
#[test]
fn an_address_for_a_passed_descriptor() {
    for mac in ["02:00:00:00:00:09", "fixed"] {
        let args = DevArgs::parse(&format!("net_tap0,fd=3,mac={mac}")).expect("well formed");
        let message = TapDriver.check_args(&args).expect_err("the interface has one").to_string();
        holds(&message, &["for a passed descriptor", "ip link set address"]);
    }
}

#[test]
fn queues_and_sizes() {
    let Some(lab) = Lab::new("queues_and_sizes") else { return };
    let bench = Bench::new();
    let device = bench.probe(&format!("net_tap0,netns={},iface=t", lab.path())).expect("free");
    let config = linecard_pmd::PortConfig::default().rx_queues(300).tx_queues(300);
    let refused = linecard_pmd::configure(device, config).err().expect("too many");
    holds(&refused.to_string(), &["300 receive queues requested, the device has 255"]);
    let config = linecard_pmd::PortConfig::default().rx_queues(2).tx_queues(1);
    let refused = linecard_pmd::configure(refused.device, config).err().expect("uneven");
    holds(&refused.to_string(), &["2 receive with 1 transmit queues", "as many of each"]);
    let config = linecard_pmd::PortConfig::default().mtu(65_530);
    let refused = linecard_pmd::configure(refused.device, config).err().expect("too large");
    holds(&refused.to_string(), &["MTU of 65530", "65521"]);
    let config = linecard_pmd::PortConfig::default().mtu(9000);
    let pool = bench.pool_of(100);
    let device =
        linecard_pmd::configure(refused.device, config).expect("in range").start(&pool).expect_err("buffers");
    holds(&device.to_string(), &["buffers of 100 bytes", "larger buffers"]);
    assert!(!lab.interface("t").info().is_ok_and(|info: InterfaceInfo| info.is_up()), "as it was");
    device.device.info();
}

#[test]
fn without_permission() {
    let Some(lab) = Lab::new("without_permission") else { return };
    let program = std::env::current_exe().expect("this one");
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-net_admin,-sys_admin", "--inh-caps=-net_admin,-sys_admin"]).arg(program);
    command.args(["--exact", "--ignored", "--nocapture", "tests::refused::in_a_process_without_rights"]);
    let output = lab.run(|| command.output());
    let Ok(output) = output else {
        return linecard_lab::skip("without_permission", "no program 'setpriv'; install util-linux");
    };
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "run by without_permission, in a process of its own"]
fn in_a_process_without_rights() {
    let message = Bench::new().probe("net_tap0,iface=denied").map(|_| ()).expect_err("no right").to_string();
    holds(&message, &["Operation not permitted", "setcap cap_net_admin,cap_net_raw+ep"]);
    let message = Bench::new().probe("net_tap0,netns=/proc/self/ns/net").map(|_| ()).expect_err("no right");
    holds(&message.to_string(), &["entering the network namespace", "run as root"]);
}
