//! What two kernels send each other through `bridge_veth` and our ports: streams of TCP both ways at once, and iperf3.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use linecard_lab::{Lab, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use support::example::{Running, example};
use support::{on_path, skip};

/// A stream over TCP from one namespace into another, and one back at the same time: every byte arrives.
fn streams(one: &Lab, other: &Lab, address: &'static str, len: usize) {
    let listener = other.run(|| TcpListener::bind(address)).expect("an address");
    let client = one.run(|| {
        let address = address.parse().expect("an address");
        TcpStream::connect_timeout(&address, Duration::from_secs(20)).expect("connected")
    });
    let (server, _) = listener.accept().expect("a connection");
    let data = |mark: usize| (0..len).map(|i| ((i % 251) ^ mark) as u8).collect::<Vec<u8>>();
    let write = |mut stream: TcpStream, mark: usize| {
        stream.write_all(&data(mark)).expect("sent");
        stream.shutdown(Shutdown::Write).expect("told");
    };
    let read = |mut stream: TcpStream, mark: usize| {
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap_or_else(|error| panic!("{error} after {} bytes", all.len()));
        assert!(all == data(mark), "{} of {len} bytes, as they were sent", all.len());
    };
    let both =
        |stream: &TcpStream| (stream.try_clone().expect("a copy"), stream.try_clone().expect("a copy"));
    let ((client_in, client_out), (server_in, server_out)) = (both(&client), both(&server));
    std::thread::scope(|scope| {
        scope.spawn(|| write(client_out, 1));
        scope.spawn(|| write(server_out, 2));
        scope.spawn(|| read(server_in, 1));
        read(client_in, 2);
    });
}

/// Two hosts with stacks of their own, and `bridge_veth` between the other ends of their cables.
struct Hosts {
    one: Lab,
    other: Lab,
    middle: Lab,
}

impl Hosts {
    fn new(test: &str) -> Option<Self> {
        let hosts = Self { one: Lab::new(test)?, other: Lab::new(test)?, middle: Lab::new(test)? };
        for (host, name, address) in [(&hosts.one, "a", 1), (&hosts.other, "b", 2)] {
            hosts.middle.veth("host", name);
            hosts.middle.ip(&format!("link set host netns {}", host.path()));
            host.ip(&format!("addr add 10.9.0.{address}/24 dev host"));
            host.ip("link set host up");
        }
        Some(hosts)
    }

    /// Runs the bridge in the middle with these devices while `work` is done; what it printed at its end.
    fn bridged(&self, devices: &[String; 2], work: impl FnOnce()) -> String {
        let mut command = Command::new(example("bridge_veth"));
        command.args(devices).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut running = Running(self.middle.run(|| command.spawn()).expect("it starts"));
        work();
        let pid = Pid::from_raw(i32::try_from(running.0.id()).expect("small")).expect("not zero");
        kill_process(pid, Signal::INT).expect("it runs");
        let (success, text) = running.end();
        assert!(success, "{text}");
        text
    }
}

/// Bytes of each stream: thousands of packets of a full MTU, hundreds of 64 KiB.
const STREAM: usize = 4 << 20;

/// Devices of the bridge, by what they are.
impl Hosts {
    fn packet_sockets(&self, options: &str) -> [String; 2] {
        ["a", "b"].map(|name| format!("net_af_packet_{name},iface={name}{options}"))
    }

    /// TAPs in the hosts, which have no other interface of that network; they are there once the bridge runs.
    fn taps(&self) -> [String; 2] {
        [("t0", &self.one), ("t1", &self.other)]
            .map(|(name, host)| format!("net_tap_{name},iface={name},netns={}", host.path()))
    }

    /// Gives the TAPs addresses, once they are there.
    fn address_taps(&self) {
        for (host, name, address) in [(&self.one, "t0", 1), (&self.other, "t1", 2)] {
            wait_until("a TAP", || {
                let links = host.output("ip", &["link", "show", "up", "dev", name]).expect("ip runs");
                !links.stdout.is_empty()
            });
            host.ip(&format!("addr add 10.10.0.{address}/24 dev {name}"));
        }
    }

    /// XDP sockets are not told that a checksum is unfinished: the hosts are to finish theirs.
    fn finish_checksums(&self, test: &str) -> bool {
        let off = |host: &Lab| host.output("ethtool", &["-K", "host", "tx", "off"]);
        let done =
            [&self.one, &self.other].iter().all(|host| off(host).is_ok_and(|done| done.status.success()));
        if !done {
            skip(test, "no program 'ethtool' on this machine (apt-get install ethtool)");
        }
        done
    }
}

#[test]
fn bulk_tcp_crosses_packet_sockets() {
    let Some(hosts) = Hosts::new("bulk_tcp_crosses_packet_sockets") else { return };
    for options in ["", ",version=3", ",qdisc_bypass=0"] {
        let devices = hosts.packet_sockets(options);
        let text = hosts.bridged(&devices, || streams(&hosts.one, &hosts.other, "10.9.0.2:9", STREAM));
        let received = received(&text);
        // Two streams in segments, each acknowledged by every other packet at most.
        let least = 2 * STREAM as u64 / 1448;
        assert!(received[0] + received[1] > least, "{options}: large packets came as segments: {text}");
    }
}

#[test]
fn bulk_tcp_crosses_taps() {
    let Some(hosts) = Hosts::new("bulk_tcp_crosses_taps") else { return };
    hosts.bridged(&hosts.taps(), || {
        hosts.address_taps();
        streams(&hosts.one, &hosts.other, "10.10.0.2:9", STREAM);
    });
}

#[test]
fn bulk_tcp_crosses_xdp_sockets() {
    const TEST: &str = "bulk_tcp_crosses_xdp_sockets";
    let Some(hosts) = Hosts::new(TEST) else { return };
    if !hosts.middle.has_xdp(TEST) || !hosts.finish_checksums(TEST) {
        return;
    }
    for mode in ["drv", "skb"] {
        let devices =
            ["a", "b"].map(|name| format!("net_af_xdp_{name},iface={name},mode={mode},busy_budget=0"));
        hosts.bridged(&devices, || streams(&hosts.one, &hosts.other, "10.9.0.2:9", STREAM));
    }
}

/// Packets that the bridge says each of its ports received.
fn received(text: &str) -> Vec<u64> {
    let number = |line: &str| line.split_once(": ")?.1.split_once(" packets received")?.0.parse().ok();
    text.lines().filter_map(number).collect()
}

/// One run of iperf3 for a second, as its client reports it.
fn iperf(hosts: &Hosts, server: &str, options: &[&str]) -> serde_json::Value {
    let mut command = Command::new("iperf3");
    command.args(["-s", "-1", "-B", server, "--forceflush"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut running = Running(hosts.other.run(|| command.spawn()).expect("iperf3 starts"));
    wait_until("iperf3 listens", || {
        let sockets = || std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap_or_default();
        hosts.other.run(sockets).lines().any(|line| line.contains(":1451 ") && line.contains(" 0A "))
    });
    let arguments = [&["-c", server, "-t", "1", "-J"], options].concat();
    let output = hosts.one.output("iperf3", &arguments).expect("iperf3 runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "iperf3 {arguments:?}: {text}");
    running.end();
    serde_json::from_str(&text).expect("a report")
}

/// iperf3's own two ends agree about what crossed, and with what our ports counted.
fn iperf_agrees(hosts: &Hosts, devices: &[String; 2], server: &str, ready: impl FnOnce()) {
    let mut sent = 0;
    let text = hosts.bridged(devices, || {
        ready();
        for options in [&[][..], &["-R"]] {
            let report = iperf(hosts, server, options);
            let (from, to) = (&report["end"]["sum_sent"]["bytes"], &report["end"]["sum_received"]["bytes"]);
            let (from, to) = (from.as_u64().expect("bytes"), to.as_u64().expect("bytes"));
            // The stream is cut off at the end of the second, and the receiver asked then.
            assert!(to > 0 && to <= from, "TCP {options:?}: {to} of {from} bytes");
        }
        for options in [&["-u", "-b", "20M", "-l", "1400"][..], &["-u", "-b", "20M", "-l", "200", "-R"]] {
            let report = iperf(hosts, server, options);
            let sum = &report["end"]["sum"];
            let (packets, lost) = (sum["packets"].as_u64().expect("count"), sum["lost_packets"].as_u64());
            let lost = lost.expect("count");
            // How many get through in that second is the machine's affair; that they are counted alike, ours.
            assert!(lost < packets, "UDP {options:?}: {lost} of {packets} lost");
            sent += packets - lost;
        }
    });
    let received = received(&text);
    assert_eq!(received.len(), 2, "{text}");
    assert!(received.iter().sum::<u64>() > sent, "{text}: at least the {sent} datagrams");
}

#[test]
fn iperf3_agrees_with_our_ports() {
    const TEST: &str = "iperf3_agrees_with_our_ports";
    if on_path("iperf3").is_none() {
        return skip(TEST, "no program 'iperf3' on this machine (apt-get install iperf3)");
    }
    let Some(hosts) = Hosts::new(TEST) else { return };
    iperf_agrees(&hosts, &hosts.packet_sockets(""), "10.9.0.2", || {});
    iperf_agrees(&hosts, &hosts.taps(), "10.10.0.2", || hosts.address_taps());
    if hosts.middle.has_xdp(TEST) && hosts.finish_checksums(TEST) {
        let devices = ["a", "b"].map(|name| format!("net_af_xdp_{name},iface={name},busy_budget=0"));
        iperf_agrees(&hosts, &devices, "10.9.0.2", || {});
    }
}
