//! The example `echo`, asked by the kernel's own stack through a tap interface, and by a virtio-user port.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use linecard::net::arp::Arp;
use linecard::net::ether::{Ethernet, ether_type};
use linecard::net::{Header, MacAddr};
use linecard::pmd::netdev::lab::{Lab, skip};
use linecard::prelude::*;

/// The example, built if need be: a test that is run alone does not have it.
fn example() -> PathBuf {
    let here = std::env::current_exe().expect("a path");
    let folder = here.parent().and_then(|deps| deps.parent()).expect("target/PROFILE").join("examples");
    let path = folder.join("echo");
    if !path.is_file() {
        let built = Command::new(env!("CARGO")).args(["build", "--example", "echo"]).status();
        assert!(built.is_ok_and(|status| status.success()), "cargo build --example echo");
    }
    path
}

/// The example while it runs.
struct Echo(Child);

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn eventually<T>(what: &str, mut step: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(done) = step() {
            return done;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{what}: nothing");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn start(lab: Option<&Lab>, device: &str) -> Echo {
    let spawn = || Command::new(example()).args([device, "10.9.0.2"]).stdout(Stdio::null()).spawn();
    Echo(lab.map_or_else(spawn, |lab| lab.run(spawn)).expect("the example starts"))
}

#[test]
fn ping_and_udp_over_tap() {
    let Some(lab) = Lab::new("ping_and_udp_over_tap") else { return };
    let echo = start(Some(&lab), "net_tap0,iface=echo0");
    eventually("the interface", || lab.ip("-brief link").contains("echo0").then_some(()));
    eventually("its link", || lab.interface("echo0").link().up.then_some(()));
    lab.ip("addr add 10.9.0.1/24 dev echo0");
    match lab.output("ping", &["-c", "3", "-i", "0.2", "-W", "2", "-s", "1000", "10.9.0.2"]) {
        Err(error) => {
            skip("ping_and_udp_over_tap", &format!("no program 'ping' ({error}); install iputils-ping"))
        }
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("3 received") && text.contains(" 0% packet loss"), "{text}");
        }
    }
    let socket = lab.run(|| UdpSocket::bind("10.9.0.1:0")).expect("bound");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
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
    eventually("the interface is gone", || (!lab.ip("-brief link").contains("echo0")).then_some(()));
}

#[test]
fn arp_over_virtio_user() {
    let socket = std::env::temp_dir().join(format!("linecard-echo-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&socket);
    let _echo = start(None, &format!("net_vhost0,iface={}", socket.display()));
    eventually("the socket", || socket.exists().then_some(()));
    let (args, _) = EalArgs::parse(["-m", "64"].map(Into::into)).expect("well formed");
    let eal = Eal::new(&args).expect("memory");
    let pool = Pool::new(&eal.default_domain(), PoolConfig { packets: 1024, ..PoolConfig::default() })
        .expect("a pool");
    let context = ProbeContext {
        memory: eal.memory().clone(),
        domain: eal.default_domain(),
        wait: Duration::from_secs(5),
    };
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
    let reply = eventually("an answer", || {
        // Again and again: what is sent before the other end polls is lost.
        if asked.elapsed() > Duration::from_millis(100) {
            asked = Instant::now();
            let mut packet = pool.get().expect("a packet");
            assert!(packet.copy_from_slice(&frame));
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
