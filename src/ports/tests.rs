#![cfg(feature = "full")]

use std::ffi::OsStr;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::time::Duration;

use super::plan::Plan;
use super::*;
use crate::pmd::Error;
use crate::prelude::*;

fn refused(open: impl FnOnce(&Eal, &Pool) -> Result<Port, Error>) -> String {
    let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "32"]).expect("arguments").0).expect("an Eal");
    let config = PoolConfig::default().packets(512);
    let pool = Pool::new(&eal.default_domain(), config).expect("a pool");
    open(&eal, &pool).expect_err("it is refused").to_string()
}

#[test]
fn what_a_driver_refuses_is_refused_in_its_own_words() {
    let said = refused(|eal, pool| VirtioUser::connect("/tmp").open(eal, pool));
    assert!(said.contains("a folder, not a socket"), "{said}");
    let said = refused(|eal, pool| VirtioUser::connect("/tmp/x").queue_size(300).open(eal, pool));
    assert!(said.contains("not a power of two"), "{said}");
    let said = refused(|eal, pool| VhostUser::listen("/x").argument("quues", "2").open(eal, pool));
    assert!(said.contains("did you mean 'queues'"), "{said}");
    let said = refused(|eal, pool| VhostUser::connect("").open(eal, pool));
    assert!(said.contains("'iface' is missing"), "{said}");
}

#[test]
fn commas_and_bytes_in_names_are_part_of_them() {
    use std::os::unix::ffi::OsStrExt;
    let port = VirtioUser::connect("/tmp/a,b=c");
    let again: VirtioUser = port.to_string().parse().expect("the same");
    assert_eq!(port.0.args.expect("a name").value("path"), Some("/tmp/a,b=c"));
    assert_eq!(again.0.args.expect("a name").value("path"), Some("/tmp/a,b=c"));
    let wrong = VirtioUser::connect(OsStr::from_bytes(b"/\xff"));
    assert_eq!(wrong.to_string(), "net_virtio_user");
    let said = refused(|eal, pool| wrong.open(eal, pool));
    assert!(said.contains("not valid UTF-8"), "{said}");
}

#[test]
fn queues_are_asked_of_the_device_and_of_the_port() {
    let plan = AfXdp::on("eth0").queues(4).start_queue(2).0;
    let args = plan.args.expect("a name");
    assert_eq!((args.value("queue_count"), args.value("start_queue")), (Some("4"), Some("2")));
    assert_eq!((plan.config.rx_queues, plan.config.tx_queues), (4, 4));
    let names =
        [Plan::new("net_tap"), Plan::new("net_tap")].map(|plan| plan.args.expect("a name").name().to_owned());
    assert_ne!(names[0], names[1]);
}

/// What is built, written and parsed is the same device, with the same number of queues if the device says it.
fn round<P: FromStr<Err = Error> + Display>(built: P, plan: fn(P) -> Plan, want: &str) {
    let text = built.to_string();
    assert!(text.split_once(',').is_none_or(|(_, arguments)| arguments == want), "{text}: {want}");
    let again: P = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(again.to_string(), text);
    let (built, again) = (plan(built), plan(again));
    if ["queues=", "qpairs=", "queue_count="].iter().any(|key| want.contains(key)) {
        assert_eq!(built.config, again.config, "{text}");
        assert_eq!(again.config.rx_queues, 2, "{text}");
    }
}

#[test]
fn what_is_built_is_parsed_again() {
    let virtio = VirtioUser::connect("/run/v.sock").queues(2).queue_size(512).packed(true).mergeable(false);
    round(virtio, |port| port.0, "path=/run/v.sock,queues=2,queue_size=512,packed_vq=1,mrg_rxbuf=0");
    let virtio = VirtioUser::listen("/run/v.sock").in_order(false).mac([2, 0, 0, 0, 0, 7]);
    round(virtio, |port| port.0, "path=/run/v.sock,server=1,in_order=0,mac=02:00:00:00:00:07");
    round(VirtioUser::vhost_net("tap7"), |port| port.0, "path=/dev/vhost-net,iface=tap7");
    let pci = VirtioPci::at("00:05.0".parse().expect("an address")).queues(2).packed(true).queue_size(1024);
    round(
        pci.mergeable(true).mac([2, 0, 0, 0, 0, 7]),
        |port| port.0,
        "queues=2,packed_vq=1,queue_size=1024,mrg_rxbuf=1,mac=02:00:00:00:00:07",
    );
    round(VhostUser::listen("@v").queues(2), |port| port.0, "iface=@v,queues=2");
    round(VhostUser::connect("/run/v.sock"), |port| port.0, "iface=/run/v.sock,client=1");
    round(Tap::new("lc0"), |port| port.0, "iface=lc0");
    round(Tap::new("lc0").argument("netns", "nowhere"), |port| port.0, "iface=lc0,netns=nowhere");
    round(AfPacket::on("eth0").queues(2), |port| port.0, "iface=eth0,qpairs=2");
    round(
        AfXdp::on("eth0").queues(2).start_queue(1),
        |port| port.0,
        "iface=eth0,queue_count=2,start_queue=1",
    );
    let vduse = Vduse::new("net0")
        .device_mtu(9000)
        .queue_size(256)
        .packed(false)
        .segmentation(true)
        .state("/run/rings");
    round(vduse, |port| port.0, "name=net0,mtu=9000,queue_size=256,packed=0,tso=1,state=/run/rings");
    let pcap = Pcap::reading("/in.pcap").write_to("/out.pcap").repeat(true);
    round(pcap, |port| port.0, "rx_pcap=/in.pcap,tx_pcap=/out.pcap,infinite_rx=1");
    round(Pcap::writing("/out.pcap"), |port| port.0, "tx_pcap=/out.pcap");
    let [one, two] = [1, 2].map(|last| IpAddr::from(Ipv4Addr::new(192, 0, 2, last)));
    let vxlan =
        Vxlan::new(100).remote(one).remote(two).local(one).udp_port(8472).ttl(3).learn(false).any_peer(true);
    round(
        vxlan,
        |port| port.0,
        "vni=100,remote=[192.0.2.1,192.0.2.2],local=192.0.2.1,port=8472,ttl=3,learn=0,peers=any",
    );
    let impair =
        Impair::over("net_null0,size=128").seed(7).loss(0.01).duplicate(0.5).reorder(1.0).corrupt(1e-7);
    let impair =
        impair.delay(Duration::from_millis(2)).jitter(Duration::from_nanos(5)).bit_rate(1_000_000).limit(64);
    round(
        impair,
        |port| port.0,
        "on=[net_null0,size=128],seed=7,loss=0.01,duplicate=0.5,reorder=1,corrupt=0.0000001,delay=2000000ns,jitter=5ns,\
         rate=1000000bit,limit=64",
    );
    round(Impair::over("net_null_x").packet_rate(1000), |port| port.0, "on=net_null_x,rate=1000pps");
    round(Null::new().size(9000).copy(true).receive(true), |port| port.0, "size=9000,copy=1,no-rx=0");
    round(Ring::new(), |port| port.0, "");
    round(Ring::create("pair"), |port| port.0, "nodeaction=pair:0:CREATE");
    round(Ring::attach("pair"), |port| port.0, "nodeaction=pair:0:ATTACH");
}

fn wrong<P: FromStr<Err = Error>>(text: &str, part: &str) {
    let said = text.parse::<P>().err().unwrap_or_else(|| panic!("{text} is taken")).to_string();
    assert!(said.contains(part), "{text}: {said}");
}

#[test]
fn wrong_values_are_found_when_a_string_is_parsed() {
    wrong::<VirtioUser>("net_virtio_user0", "'path' is missing");
    wrong::<VirtioUser>("net_virtio_user0,path=/x,queues=0", "'queues=0' is not possible");
    wrong::<VirtioUser>("net_virtio_user0,path=/x,queue_size=300", "not a power of two");
    wrong::<VirtioUser>("net_virtio_user0,path=auto:c1,mac=7", "'mac=7' is not possible");
    wrong::<VirtioUser>("net_vhost0,iface=/x", "this is a device of net_vhost; name one of net_virtio_user");
    wrong::<VirtioUser>("", "this does not start with a device name");
    wrong::<VirtioPci>("net_virtio_pci0", "'addr' is missing");
    wrong::<VirtioPci>("00:05.0,queue_size=3", "not a power of two");
    wrong::<VhostUser>("net_vhost0,fd=3,iface=/x", "'fd' is a socket that is there already, and 'iface'");
    wrong::<VhostUser>("net_vhost0,iface=/x,client=1,mode=0666", "client=1 makes none");
    wrong::<Tap>("net_tap0,iface=a%d%d", "");
    wrong::<AfPacket>("net_af_packet0,iface=a,qpairs=17", "'qpairs=17' is not possible");
    wrong::<AfXdp>("net_af_xdp0,iface=a,mode=native", "'mode=native' is not possible");
    wrong::<Vduse>("net_vduse0", "'name' is missing");
    wrong::<Vduse>("net_vduse0,name=a/b", "no name of a device");
    wrong::<Pcap>("net_pcap0", "there is no file");
    wrong::<Vxlan>("net_vxlan0,vni=0,remote=192.0.2.1", "'vni=0' is not possible");
    wrong::<Vxlan>("net_vxlan0,vni=1", "there is nobody to exchange frames with");
    wrong::<Impair>("net_impair0,on=[net_null0,size=0]", "'size=0' is not possible");
    wrong::<Impair>("net_impair0,on=net_null0,loss=2", "'loss=2' is not possible");
    wrong::<Null>("net_null0,sise=1", "did you mean 'size'");
    wrong::<Ring>("net_ring0,peer=net_ring0", "is no other net_ring device");
    wrong::<Ring>("net_ring0,nodeaction=x:0:MAKE", "is not possible");
}

#[test]
fn a_passed_socket_is_not_taken_by_a_check() {
    let listening = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
    let number = std::os::fd::AsRawFd::as_raw_fd(&listening);
    let port: VhostUser = format!("net_vhost0,fd={number}").parse().expect("possible");
    assert!(port.to_string().ends_with(&format!("fd={number}")));
    listening.local_addr().expect("it is open");
}

#[test]
fn each_driver_looks_at_arguments_and_has_a_type_here() {
    let mut names: Vec<_> = crate::drivers().drivers().map(|driver| driver.name()).collect();
    names.sort_unstable();
    let types = [
        "net_af_packet",
        "net_af_xdp",
        "net_impair",
        "net_null",
        "net_pcap",
        "net_ring",
        "net_tap",
        "net_vduse",
        "net_vhost",
        "net_virtio_pci",
        "net_virtio_user",
        "net_vxlan",
    ];
    assert_eq!(names, types, "a driver has a type in src/ports/, and lines in these tests");
    for name in names {
        assert!(crate::drivers().check(&format!("{name}0,no-such-argument=1")).is_err(), "{name}");
    }
}
