//! One address, two ports: the kernel's sockets answer at it, and TCP ports of a range are a fast port's. By hand, and by the
//! container plugin.

mod support;

use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

use linecard::net::MacAddr;
use linecard::net::checksum::checksum;
use linecard_cni::Sandbox;
use linecard_lab::{Lab, wait_for};
use linecard_switch::api::{PortKind, PortSpec, PortState, Share};
use serde_json::{Value, json};
use support::Scratch;
use support::ours::{Ours, frontend_vdev};
use support::switch::{Station, end, start};

const POD: [u8; 6] = [2, 0, 0, 0, 0, 1];
const REMOTE: [u8; 6] = [2, 0, 0, 0, 0, 2];
const POD_IP: [u8; 4] = [10, 9, 0, 1];
const REMOTE_IP: [u8; 4] = [10, 9, 0, 2];
const ICMP: u8 = 1;
const TCP: u8 = 6;
const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const RST: u8 = 0x04;

/// An IPv4 frame between the two.
fn ipv4([from, to]: [([u8; 6], [u8; 4]); 2], protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let len = (20 + payload.len()) as u16;
    let mut head = [
        &[0x45, 0][..],
        &len.to_be_bytes(),
        &[0, 7],
        &fragment.to_be_bytes(),
        &[64, protocol, 0, 0],
        &from.1,
        &to.1,
    ]
    .concat();
    let check = checksum(&head).to_be_bytes();
    head[10..12].copy_from_slice(&check);
    [&to.0[..], &from.0, &[8, 0], &head, payload].concat()
}

fn tcp(ways: [([u8; 6], [u8; 4]); 2], [source, destination]: [u16; 2], flags: u8, fragment: u16) -> Vec<u8> {
    let mut segment = [
        &source.to_be_bytes()[..],
        &destination.to_be_bytes(),
        &7_u32.to_be_bytes(),
        &[0; 4],
        &[0x50, flags, 0xff, 0xff, 0, 0, 0, 0],
    ]
    .concat();
    let pseudo = [&ways[0].1[..], &ways[1].1, &[0, TCP], &20_u16.to_be_bytes()].concat();
    let check = checksum(&[&pseudo[..], &segment].concat()).to_be_bytes();
    segment[16..18].copy_from_slice(&check);
    ipv4(ways, TCP, fragment, &segment)
}

const IN: [([u8; 6], [u8; 4]); 2] = [(REMOTE, REMOTE_IP), (POD, POD_IP)];
const OUT: [([u8; 6], [u8; 4]); 2] = [(POD, POD_IP), (REMOTE, REMOTE_IP)];

/// Protocol, and for TCP source port and flags, of an answer from the pod.
fn read(frame: &[u8]) -> Option<(u8, u16, u8)> {
    if frame.get(6..14)? != [&POD[..], &[8, 0]].concat() {
        return None;
    }
    let protocol = *frame.get(23)?;
    let port = u16::from_be_bytes(*frame.get(34..)?.first_chunk()?);
    Some((protocol, port, if protocol == TCP { *frame.get(47)? } else { 0 }))
}

/// The remote station, and what came to it from the pod.
struct Remote {
    port: Ours,
    came: Vec<(u8, u16, u8)>,
}

impl Remote {
    /// Sends, and waits for an answer of this kind.
    fn ask(&mut self, frame: &[u8], want: impl Fn(&(u8, u16, u8)) -> bool) {
        Station::send(&mut self.port, frame);
        wait_for("the answer", || {
            self.came.extend(Station::receive(&mut self.port).iter().filter_map(|frame| read(frame)));
            self.came.iter().any(&want).then_some(())
        });
    }

    /// A ping of the kernel: what was sent before has been dealt with when it is answered.
    fn ping(&mut self, number: u8) {
        let mut echo = [&[8, 0, 0, 0, 0, 1, 0, number][..], b"a ping of the kernel"].concat();
        let check = checksum(&echo).to_be_bytes();
        echo[2..4].copy_from_slice(&check);
        self.came.retain(|(protocol, ..)| *protocol != ICMP);
        self.ask(&ipv4(IN, ICMP, 0, &echo), |(protocol, ..)| *protocol == ICMP);
    }
}

/// What is sent to the one address reaches the kernel or the fast port, and both are heard.
fn both_answer(fast: &mut Ours, remote: &mut Remote) {
    remote.came.clear();
    // The kernel: ping, a connection, a refusal.
    remote.ping(1);
    remote.ask(&tcp(IN, [1000, 80], SYN, 0), |got| *got == (TCP, 80, SYN_ACK));
    remote.ask(&tcp(IN, [1000, 81], SYN, 0), |(_, port, flags)| *port == 81 && flags & RST != 0);
    assert!(Station::receive(fast).is_empty(), "none of that was the fast port's");
    // The fast port, with the same addresses, both ways.
    let sent = tcp(IN, [1000, 5000], SYN, 0);
    Station::send(&mut remote.port, &sent);
    let got = wait_for("the frame", || Some(Station::receive(fast)).filter(|frames| !frames.is_empty()));
    assert_eq!(got, [sent]);
    Station::send(fast, &tcp(OUT, [5000, 1000], SYN_ACK, 0));
    remote.ask(&tcp(IN, [1000, 80], RST, 0), |got| *got == (TCP, 5000, SYN_ACK));
    // What cannot be told is the kernel's: a fragment, and a header that is cut off.
    Station::send(&mut remote.port, &tcp(IN, [1000, 5000], SYN, 0x2000));
    Station::send(&mut remote.port, &tcp(IN, [1000, 5000], SYN, 0)[..44]);
    remote.ping(2);
    assert!(Station::receive(fast).is_empty());
    let refused: Vec<_> =
        remote.came.iter().filter(|(_, port, flags)| *port == 5000 && flags & RST != 0).collect();
    assert!(refused.is_empty(), "the kernel has not seen what is the fast port's: {refused:?}");
}

#[test]
fn the_kernel_answers_beside_a_fast_port() {
    const TEST: &str = "the_kernel_answers_beside_a_fast_port";
    let Some(lab) = Lab::new(TEST) else { return };
    let scratch = Scratch::new(TEST);
    let [remote, fast] = ["r.sock", "f.sock"].map(|name| scratch.join(name));
    let tap = format!("pod0,mac={},ip=10.9.0.1", MacAddr(POD));
    let (running, mut asked) =
        start(&lab, &scratch, &["--tap", &tap, "--port", &remote.display().to_string()]);
    let kind = PortKind::VhostUser { path: fast.clone(), client: false, mode: None, group: None };
    let spec = PortSpec {
        mac: Some(MacAddr(POD)),
        ips: vec![Ipv4Addr::from(POD_IP).into()],
        shares: Some(Share { with: "pod0".into(), ports: "tcp:4444-20000".into() }),
        ..PortSpec::new("fast", kind)
    };
    assert!(asked.port_add(&spec, None).expect("it is added").created);
    lab.ip(&format!("link set pod0 address {}", MacAddr(POD)));
    lab.ip("addr add 10.9.0.1/24 dev pod0");
    lab.ip(&format!("neigh replace 10.9.0.2 lladdr {} dev pod0", MacAddr(REMOTE)));
    let listener = lab.run(|| TcpListener::bind((Ipv4Addr::from(POD_IP), 80))).expect("a socket");
    let mut fast = Ours::start(&frontend_vdev(&fast, ""));
    let mut remote = Remote { port: Ours::start(&frontend_vdev(&remote, "")), came: Vec::new() };
    fast.wait_for_link(true);
    remote.port.wait_for_link(true);

    both_answer(&mut fast, &mut remote);
    drop((listener, fast, remote, asked));
    end(running);
}

/// The plugin does `command` for the interface net1 of `pod`, of which it is told by a runtime's variables.
fn plugin(command: &str, pod: &Sandbox, config: &Value) -> Value {
    let lookup = |name: &str| -> Option<OsString> {
        match name {
            "CNI_COMMAND" => Some(command.into()),
            "CNI_CONTAINERID" => Some("box".into()),
            "CNI_IFNAME" => Some("net1".into()),
            "CNI_NETNS" => Some(pod.path().into()),
            _ => None,
        }
    };
    let output = linecard_cni::invoke(lookup, config.to_string().as_bytes());
    assert!(output.success, "{command}: {}", output.stdout);
    serde_json::from_str(&output.stdout).unwrap_or_default()
}

/// A container without privileges: its sockets by the tap, the listed ports by its fast port, before and after a restart of the
/// switch, and nothing of it when it is gone.
#[test]
fn a_container_has_both_halves_by_the_plugin() {
    both_halves("a_container_has_both_halves_by_the_plugin", &[]);
}

/// The switch enters the container's namespace before it gives up the right to, and not again.
#[test]
fn a_container_has_both_halves_by_a_switch_in_its_sandbox() {
    both_halves("a_container_has_both_halves_by_a_switch_in_its_sandbox", &["--sandbox"]);
}

fn both_halves(test: &str, options: &[&str]) {
    let Some(lab) = Lab::new(test) else { return };
    let scratch = Scratch::new(test);
    let path = scratch.join("r.sock");
    let port = path.display().to_string();
    let arguments = [&["--port", &port], options].concat();
    let (running, asked) = start(&lab, &scratch, &arguments);
    let pod = Sandbox::new().expect("a namespace, as the one before");
    let config = json!({
        "cniVersion": "1.1.0", "name": "fast", "type": "linecard", "switch": scratch.join("control"),
        "stateDir": scratch.join("plugin"), "ports": "tcp:4444-20000", "mac": MacAddr(POD).to_string(),
        "ips": ["10.9.0.1/24"],
    });
    let mut added = config.clone();
    added["prevResult"] = plugin("ADD", &pod, &config);
    plugin("CHECK", &pod, &added);
    let neighbour = format!("neigh replace 10.9.0.2 lladdr {} dev net1", MacAddr(REMOTE));
    let status = pod.run(|| Command::new("ip").args(neighbour.split(' ')).status()).expect("inside");
    assert!(status.is_ok_and(|status| status.success()));
    let listener = pod.run(|| TcpListener::bind((Ipv4Addr::from(POD_IP), 80))).expect("inside");
    // A program inside says path=auto:net1, which looks into its process's namespace.
    let mut fast = pod.run(|| Ours::start(&frontend_vdev("@vport/net1".as_ref(), ""))).expect("inside");
    let mut remote = Remote { port: Ours::start(&frontend_vdev(&path, "")), came: Vec::new() };
    fast.wait_for_link(true);
    remote.port.wait_for_link(true);
    both_answer(&mut fast, &mut remote);

    drop(asked);
    end(running);
    fast.wait_for_link(false);
    remote.port.wait_for_link(false);
    let (running, mut asked) = start(&lab, &scratch, &arguments);
    assert_ne!(asked.port_show("box@net1:kernel").expect("it is back").state, PortState::Waiting);
    fast.wait_for_link(true);
    remote.port.wait_for_link(true);
    both_answer(&mut fast, &mut remote);
    plugin("CHECK", &pod, &added);

    drop((listener, fast));
    plugin("DEL", &pod, &config);
    assert!(!pod.has_interface("net1").expect("inside"));
    let left: Vec<_> = asked.port_list().expect("a list").into_iter().map(|port| port.spec.key).collect();
    assert_eq!(left, ["port1"]);
    assert_eq!(std::fs::read_dir(scratch.join("plugin")).expect("a folder").count(), 0);
    drop((remote, asked));
    end(running);
}
