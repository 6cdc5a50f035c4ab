//! Two stacks over a pair of ports, with and without offloads; damaged packets; backpressure.

use linecard::pmd::PortConfig;
use linecard::prelude::*;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::TxToken as _;
use smoltcp::socket::tcp;
use smoltcp::wire::{IpAddress, IpCidr};

use super::*;

/// A stack on one end of a pair.
struct Stack {
    device: PortDevice,
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
}

impl Stack {
    fn new(device: PortDevice, last: u8) -> Self {
        let mut device = device;
        let config = Config::new(device.hardware_address().into());
        let mut interface = Interface::new(config, &mut device, Instant::now());
        interface.update_ip_addrs(|all| {
            all.push(IpCidr::new(IpAddress::v4(10, 0, 0, last), 24)).expect("room for an address");
        });
        let buffer = || tcp::SocketBuffer::new(vec![0; 16 << 10]);
        let mut sockets = SocketSet::new(vec![]);
        let socket = sockets.add(tcp::Socket::new(buffer(), buffer()));
        Self { device, interface, sockets, socket }
    }

    fn poll(&mut self) {
        self.interface.poll(Instant::now(), &mut self.device, &mut self.sockets);
        self.device.flush();
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.socket)
    }
}

fn eal() -> (Eal, Pool) {
    let eal = Eal::new(&EalArgs::parse(["--no-huge", "-m", "64"]).expect("arguments").0).expect("memory");
    let config = PoolConfig::default().packets(2048);
    let pool = Pool::new(&eal.default_domain(), config).expect("a pool");
    (eal, pool)
}

/// Two devices that are joined: a vhost-user backend and its frontend, which negotiate the offloads.
fn joined(offloads: Offloads) -> (Eal, [PortDevice; 2]) {
    let (eal, pool) = eal();
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("lc-smoltcp-{}-{number}.sock", std::process::id()));
    // As DPDK's, a backend takes and gives large packets where that is asked for besides.
    let tso = if offloads.rx.contains(RxOffloads::TCP_LRO) { "1" } else { "0" };
    let backend = linecard::ports::VhostUser::listen(&path).argument("tso", tso).offloads(offloads);
    let backend = backend.open(&eal, &pool).expect("a backend");
    let frontend =
        linecard::ports::VirtioUser::connect(&path).offloads(offloads).open(&eal, &pool).expect("a frontend");
    (eal, [backend, frontend].map(|port| PortDevice::new(port, &pool, offloads)))
}

/// As many bytes as given, from one stack to the other, and a check of each.
fn transfer(offloads: Offloads, bytes: usize) {
    let (_eal, devices) = joined(offloads);
    carry(devices, bytes);
}

/// The same, from the second to the first; how many bytes the packets had that arrived, on average.
fn carry([left, right]: [PortDevice; 2], bytes: usize) -> u64 {
    let (mut server, mut client) = (Stack::new(left, 1), Stack::new(right, 2));
    server.socket().listen(80).expect("a port");
    let Stack { interface, sockets, socket, .. } = &mut client;
    let remote = (IpAddress::v4(10, 0, 0, 1), 80);
    sockets
        .get_mut::<tcp::Socket<'_>>(*socket)
        .connect(interface.context(), remote, 50_000)
        .expect("a connection");
    let (mut sent, mut received) = (0, 0);
    let byte = |at: usize| (at % 251) as u8;
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while received < bytes {
        assert!(std::time::Instant::now() < until, "{received} of {bytes} bytes, {sent} were sent");
        if client.socket().can_send() && sent < bytes {
            let chunk: Vec<u8> = (sent..bytes.min(sent + 4000)).map(byte).collect();
            sent += client.socket().send_slice(&chunk).expect("it is connected");
        }
        client.poll();
        server.poll();
        if server.socket().can_recv() {
            received += server
                .socket()
                .recv(|part| {
                    assert!(
                        part.iter().enumerate().all(|(at, is)| *is == byte(received + at)),
                        "byte {received}"
                    );
                    (part.len(), part.len())
                })
                .expect("it is connected");
        }
    }
    assert_eq!((server.device.bad_checksums(), client.device.bad_checksums()), (0, 0));
    let stats = server.device.port().control.stats();
    stats.ibytes / stats.ipackets.max(1)
}

#[test]
fn a_connection_carries_every_byte() {
    transfer(Offloads::default(), 300_000);
}

#[test]
fn the_port_does_the_checksums_it_was_asked_for() {
    let offloads = Offloads { rx: RxOffloads::CHECKSUM, tx: TxOffloads::CHECKSUM };
    let (_eal, [left, _right]) = joined(offloads);
    let told = left.capabilities();
    assert!(!told.checksum.tcp.rx() && !told.checksum.tcp.tx() && told.checksum.ipv4.rx());
    assert_eq!(told.max_transmission_unit, 1514);
    drop(left);
    transfer(offloads, 300_000);
}

/// A port that cuts is given more than a segment at a time; a peer that takes it large gets it so, and all others get segments.
#[test]
fn the_port_cuts_what_it_was_asked_to_cut() {
    let tx = TxOffloads::CHECKSUM | TxOffloads::TCP_TSO;
    for rx in [RxOffloads::empty(), RxOffloads::CHECKSUM, RxOffloads::VIRTIO] {
        for frontend_sends in [true, false] {
            let (_eal, [backend, frontend]) = joined(Offloads { rx, tx });
            let told = backend.capabilities();
            assert_eq!(told.segmentation.tcpv4, NonZeroUsize::new(65_535));
            assert_eq!(told.max_transmission_unit, 1514, "what is on the wire does not grow");
            let (to, from) = if frontend_sends { (backend, frontend) } else { (frontend, backend) };
            let mean = carry([to, from], 2_000_000);
            let large = rx.contains(RxOffloads::TCP_LRO);
            assert_eq!(mean > 1514, large, "{rx}, {frontend_sends}: {mean} bytes a packet");
        }
    }
}

#[test]
fn no_port_cuts_without_making_checksums() {
    let (_eal, [left, right]) = joined(Offloads { tx: TxOffloads::TCP_TSO, ..Offloads::default() });
    assert_eq!(left.capabilities().segmentation.tcpv4, None);
    let mean = carry([left, right], 100_000);
    assert!(mean <= 1514, "{mean} bytes a packet");
}

#[test]
fn one_direction_may_be_left_to_the_port() {
    transfer(Offloads { tx: TxOffloads::CHECKSUM, ..Offloads::default() }, 50_000);
    transfer(Offloads { rx: RxOffloads::CHECKSUM, ..Offloads::default() }, 50_000);
}

/// A UDP packet, right or with a bit that is another.
fn packet(pool: &Pool, damaged: bool) -> Packet {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, 0, 46, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0x12, 0x34, 0, 53, 0, 26, 0, 0]);
    frame.extend([7; 18]);
    let layers = parse(&frame);
    linecard_net::offload::fill_transport(&mut frame, &layers).expect("UDP");
    if damaged {
        frame[50] ^= 1;
    }
    pool.packet_of(&frame, 30).expect("a packet in two segments")
}

#[test]
fn damaged_packets_are_dropped_where_the_stack_does_not_look() {
    let (_eal, pool) = eal();
    let [left, right] = {
        let (a, b) = linecard::net_ring::pair("left", "right");
        [a, b]
    };
    let start =
        |device| configure(device, PortConfig::default()).expect("as it is").start(&pool).expect("a port");
    let (mut left, right) = (start(left), start(right));
    let rx = Offloads { rx: RxOffloads::CHECKSUM, ..Offloads::default() };
    let mut device = PortDevice::new(right, &pool, rx);
    let mut packets = Burst::new();
    let bad = |flags| {
        let mut packet = packet(&pool, false);
        packet.set_offload(flags);
        packet
    };
    // Right, wrong, said to be wrong, said to be unfinished.
    let all = [
        packet(&pool, false),
        packet(&pool, true),
        bad(Offload::RX_L4_CKSUM_BAD),
        bad(Offload::RX_L4_CKSUM_NONE),
    ];
    packets.fill_from(&mut all.into_iter());
    assert_eq!(left.tx[0].tx_burst(&mut packets), 4);
    let mut lengths = Vec::new();
    while let Some((rx, _tx)) = device.receive(Instant::ZERO) {
        lengths.push(smoltcp::phy::RxToken::consume(rx, <[u8]>::len));
    }
    assert_eq!((lengths, device.bad_checksums()), (vec![60, 60], 2));
}

#[test]
fn a_device_without_room_takes_nothing() {
    let (eal, _) = eal();
    let pool = Pool::new(&eal.default_domain(), PoolConfig::default().packets(512)).expect("a pool");
    // A ring of few descriptors that nobody empties.
    let (left, right) = linecard::net_ring::pair("left", "right");
    let config = PortConfig::default().tx_depth(16).rx_depth(16);
    let left = configure(left, config).expect("as it is").start(&pool).expect("a port");
    drop(right);
    let mut device = PortDevice::new(left, &pool, Offloads::default());
    let mut sent = 0;
    while let Some(token) = device.transmit(Instant::ZERO) {
        token.consume(60, |bytes| bytes.fill(1));
        sent += 1;
        assert!(sent < 500, "it takes for ever");
    }
    assert!(sent >= 64, "{sent}");
    // One longer than it said goes nowhere, and nothing breaks.
    let (_eal, [mut device, _other]) = joined(Offloads::default());
    device.transmit(Instant::ZERO).expect("room").consume(1 << 16, |bytes| assert_eq!(bytes.len(), 1 << 16));
    assert!(device.sending.out.is_empty());
}
