//! The example `echo`, asked by the kernel's own stack through a tap interface, and by a virtio-user port.

mod support;

use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use linecard::net::arp::Arp;
use linecard::net::ether::{Ethernet, ether_type};
use linecard::net::{Header, MacAddr};
use linecard::prelude::*;
use linecard_lab::{Lab, skip, wait_for, wait_until};
use support::example::{Running, example};

fn start(lab: Option<&Lab>, device: &str) -> Running {
    let program = example("echo");
    let spawn = || Command::new(&program).args([device, "10.9.0.2"]).stdout(Stdio::null()).spawn();
    Running(lab.map_or_else(spawn, |lab| lab.run(spawn)).expect("the example starts"))
}

#[test]
fn ping_and_udp_over_tap() {
    let Some(lab) = Lab::new("ping_and_udp_over_tap") else { return };
    let echo = start(Some(&lab), "net_tap0,iface=echo0");
    wait_until("the interface", || lab.ip("-brief link").contains("echo0"));
    wait_until("its link", || lab.interface("echo0").link().up);
    lab.ip("addr add 10.9.0.1/24 dev echo0");
    if let Err(error) = lab.ping("10.9.0.2", 3, 1000) {
        skip("ping_and_udp_over_tap", &format!("no program 'ping' ({error}); install iputils-ping"));
    }
    let socket = lab.run(|| UdpSocket::bind("10.9.0.1:0")).expect("bound");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    for len in [0, 1, 100, 1472] {
        let sent: Vec<u8> = (0..len).map(|i| i as u8).collect();
        socket.send_to(&sent, "10.9.0.2:7").expect("sent");
        let mut got = [0; 2000];
        let (len, from) = socket.recv_from(&mut got).expect("it comes back");
        assert_eq!((&got[..len], from.to_string().as_str()), (&sent[..], "10.9.0.2:7"));
    }
    let nobody = lab.output("ping", &["-c", "1", "-W", "1", "10.9.0.3"]);
    assert!(nobody.is_ok_and(|output| !output.status.success()), "it answers for its own address only");
    drop(echo);
    wait_until("the interface is gone", || !lab.ip("-brief link").contains("echo0"));
}

#[test]
fn arp_over_virtio_user() {
    let socket = std::env::temp_dir().join(format!("linecard-echo-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&socket);
    let _echo = start(None, &format!("net_vhost0,iface={}", socket.display()));
    wait_until("the socket", || socket.exists());
    let (args, _) = EalArgs::parse(["-m", "64"]).expect("well formed");
    let eal = Eal::new(&args).expect("memory");
    let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(1024)).expect("a pool");
    let context = ProbeContext::new(eal.memory().clone(), eal.default_domain(), Duration::from_secs(5));
    let device = format!("net_virtio_user0,path={}", socket.display());
    let device = linecard::drivers().probe(&context, &device).expect("it connects");
    let mut port = configure(device, PortConfig::default()).expect("accepted").start(&pool).expect("starts");

    let own = MacAddr(port.control.mac());
    let mut frame = [0; 60];
    let ethernet =
        Ethernet { destination: MacAddr::BROADCAST, source: own, ether_type: ether_type::ARP.into() };
    ethernet.store(&mut frame).expect("room");
    Arp::request(own, [10, 9, 0, 1], [10, 9, 0, 2]).store(&mut frame[14..]).expect("room");
    let (mut burst, mut asked) = (Burst::new(), Instant::now() - Duration::from_secs(1));
    let reply = wait_for("an answer", || {
        // Again and again: what is sent before the other end polls is lost.
        if asked.elapsed() > Duration::from_millis(100) {
            asked = Instant::now();
            let mut packet = pool.get().expect("a packet");
            packet.copy_from_slice(&frame).unwrap();
            burst.push(packet).expect("room");
            port.tx[0].tx_burst(&mut burst);
            burst.clear();
        }
        port.rx[0].rx_burst(&mut burst);
        let reply = burst.iter().find_map(|packet| Arp::load(packet.data().get(14..)?));
        burst.clear();
        reply
    });
    assert_eq!((reply.sender_protocol, reply.target_hardware), ([10, 9, 0, 2], own));
    port.stop();
    let _ = std::fs::remove_file(&socket);
}
