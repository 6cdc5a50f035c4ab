//! What is seen, what is lost, what is dropped; and clients that go away.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use linecard_eal::memory::{Memory, MemoryConfig};
use linecard_mempool::{Burst, Offload, Packet, Pool, PoolConfig, TxOffload};
use linecard_net::bpf::compile;

use super::*;
use crate::pcap::encode::Direction;
use linecard_lab::Lab;
use linecard_lab::contract::{Ends, FarEnd, Limits, Link as Subject};
use linecard_net_impair as impair;
use linecard_net_null as null;
use linecard_net_ring as ring;
use linecard_pmd::DevArgs;
use linecard_pmd::config::{PortConfig, configure};
use linecard_pmd::direct::{Frame, Sink};
use linecard_pmd::observer::dropped;
use linecard_pmd::offload::{AcceptedOffloads, SoftTx};
use linecard_pmd::port::{Device, DeviceInfo, Driver, Port, ProbeContext, RxQueue, TxQueue};

fn setup() -> (ProbeContext, Pool) {
    let memory = Memory::new(MemoryConfig::default()).expect("memory");
    let domain = memory.domain("test").expect("a domain");
    let pool = Pool::new(&domain, PoolConfig::default().packets(2048).cache(0)).expect("a pool");
    (ProbeContext::new(memory, domain, Duration::ZERO), pool)
}

fn start(context: &ProbeContext, pool: &Pool, text: &str) -> Port {
    static IMPAIR: impair::ImpairDriver =
        impair::ImpairDriver::new(|| linecard_pmd::Registry::new(&[&null::NullDriver, &ring::RingDriver]));
    let drivers = linecard_pmd::Registry::new(&[&null::NullDriver, &ring::RingDriver, &IMPAIR]);
    let device = drivers.probe(context, text).expect("probes");
    configure(device, PortConfig::default()).and_then(|port| port.start(pool)).expect("starts")
}

fn socket(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("lc-capture-{name}-{}", std::process::id()))
}

fn packet(pool: &Pool, bytes: &[u8]) -> Packet {
    let mut packet = pool.get().expect("a packet");
    packet.append(bytes.len()).expect("room").copy_from_slice(bytes);
    packet
}

/// Numbered frames of rising length, every third an IPv4 one.
fn frames(count: u32) -> Vec<Vec<u8>> {
    let frame = |i: u32| {
        let mut frame = vec![i as u8; 60 + i as usize * 11];
        frame[12..14].copy_from_slice(if i.is_multiple_of(3) { &[8, 0] } else { &[0x88, 0xb5] });
        frame
    };
    (0..count).map(frame).collect()
}

type Seen = (Direction, Vec<u8>, String);

fn all(stream: &mut Stream) -> Vec<Seen> {
    let mut seen = Vec::new();
    while let Some(frame) = stream.next().expect("not garbled") {
        assert!(frame.data.len() <= frame.len as usize);
        seen.push((frame.direction, frame.data.to_vec(), frame.comment.to_owned()));
    }
    seen
}

fn send(port: &mut Port, pool: &Pool, frames: &[Vec<u8>]) -> usize {
    let mut burst = Burst::new();
    frames.iter().for_each(|frame| burst.push(packet(pool, frame)).expect("room"));
    port.tx[0].tx_burst(&mut burst)
}

#[test]
fn both_directions_are_seen_whole() {
    let (context, pool) = setup();
    let hub = Hub::new();
    let mut port = hub.watch(4, start(&context, &pool, "net_ring0"));
    let frames = frames(30);
    // Before and after, nothing is copied.
    send(&mut port, &pool, &frames[..3]);
    let (session, mut stream) = hub.open(4, &Options::default()).expect("opens");
    assert_eq!(send(&mut port, &pool, &frames), 30);
    let mut burst = Burst::new();
    assert_eq!(port.rx[0].rx_burst(&mut burst), 33);
    let seen = all(&mut stream);
    let of =
        |way| seen.iter().filter(|(d, ..)| *d == way).map(|(_, data, _)| data.clone()).collect::<Vec<_>>();
    assert!(of(Direction::Out) == frames);
    assert!(of(Direction::In)[3..] == frames);
    assert_eq!(session.totals(), Totals { seen: 63, lost: 0 });
    drop(session);
    send(&mut port, &pool, &frames[..5]);
    assert_eq!(all(&mut stream).len(), 0);
    let (_session, mut again) = hub.open(4, &Options::default()).expect("opens again");
    send(&mut port, &pool, &frames[..5]);
    assert_eq!(all(&mut again).len(), 5);
    drop(burst);
    port.stop();
    assert_eq!(pool.stats().in_use, 0);
}

#[test]
fn filters_and_snapshots_cut() {
    let (context, pool) = setup();
    let hub = Hub::new();
    let mut port = hub.watch(0, start(&context, &pool, "net_ring0"));
    let options = Options::default()
        .snaplen(70)
        .filter(compile("ip and greater 90").expect("an expression"))
        .received(false);
    let (session, mut stream) = hub.open(0, &options).expect("opens");
    let frames = frames(12);
    send(&mut port, &pool, &frames);
    port.rx[0].rx_burst(&mut Burst::new());
    let seen = all(&mut stream);
    let want: Vec<_> = [3, 6, 9].iter().map(|i| frames[*i as usize][..70].to_vec()).collect();
    assert!(seen.iter().map(|(_, data, _)| data).eq(&want));
    assert_eq!(session.totals().seen, 3);
    // The filter sees through a chain.
    let mut chained = packet(&pool, &frames[6][..5]);
    chained.chain(packet(&pool, &frames[6][5..])).expect("chains");
    let mut burst = Burst::new();
    burst.push(chained).expect("room");
    port.tx[0].tx_burst(&mut burst);
    assert!(all(&mut stream).iter().map(|(_, data, _)| data).eq(&want[1..2]));
}

#[test]
fn what_was_not_taken_is_not_seen_and_drops_have_reasons() {
    let (context, pool) = setup();
    let hub = Hub::new();
    let device =
        linecard_pmd::Registry::new(&[&ring::RingDriver]).probe(&context, "net_ring0").expect("probes");
    let config = PortConfig::default().rx_depth(10).tx_depth(10);
    let port = configure(device, config).and_then(|port| port.start(&pool)).expect("starts");
    let mut port = hub.watch(0, port);
    let (session, mut stream) = hub.open(0, &Options::default()).expect("opens");
    let frames = frames(16);
    let mut burst = Burst::new();
    frames.iter().for_each(|frame| burst.push(packet(&pool, frame)).expect("room"));
    assert_eq!(port.tx[0].tx_burst(&mut burst), 10);
    port.tx[0].note_dropped(&burst, "transmit ring full");
    let seen = all(&mut stream);
    assert_eq!(seen.len(), 16);
    for ((way, data, comment), (i, frame)) in seen.iter().zip(frames.iter().enumerate()) {
        assert_eq!(
            (*way, data, comment.as_str()),
            (Direction::Out, frame, if i < 10 { "" } else { "transmit ring full" })
        );
    }
    assert_eq!(session.totals().seen, 16);

    let mut port = hub.watch(1, start(&context, &pool, "net_impair0,on=[net_ring1],tx_loss=1"));
    let (_session, mut stream) = hub.open(1, &Options::default().received(false)).expect("opens");
    send(&mut port, &pool, &frames[..2]);
    let comments: Vec<_> = all(&mut stream).into_iter().map(|(_, _, comment)| comment).collect();
    assert_eq!(comments.iter().filter(|comment| *comment == "lost").count(), 2);
}

/// What a capture says of the packets that a port drops, of those that it is given.
fn reasons(hub: &Hub, number: u16, port: Port, pool: &Pool, frames: &[Vec<u8>]) -> Vec<(usize, String)> {
    let mut port = hub.watch(number, port);
    let (session, mut stream) = hub.open(number, &Options::default()).expect("opens");
    assert_eq!(send(&mut port, pool, frames), frames.len(), "taken");
    let seen = all(&mut stream);
    assert_eq!(seen.len(), frames.len(), "each once: sent, or dropped: {seen:?}");
    assert_eq!(session.totals(), Totals { seen: frames.len() as u64, lost: 0 });
    let seen = seen.into_iter().filter(|(.., comment)| !comment.is_empty());
    let seen = seen.map(|(_, data, comment)| (data.len(), comment)).collect();
    drop(session);
    port.stop();
    assert_eq!(pool.stats().in_use, 0);
    seen
}

#[test]
fn drivers_say_why_they_drop() {
    let Some(lab) = Lab::new("drivers_say_why_they_drop") else { return };
    lab.veth("one", "two");
    let (context, pool) = setup();
    let hub = Hub::new();
    let open = |driver: &'static dyn Driver, text: &str| {
        let device = linecard_pmd::Registry::new(&[driver]).probe(&context, text).expect("probes");
        configure(device, PortConfig::default()).and_then(|port| port.start(&pool)).expect("starts")
    };
    let frames = [vec![1; 60], vec![2; 13], vec![3; 1800], vec![4; 60]];
    let said = |length: usize, why: &str| (length, why.to_owned());

    let tap = open(&linecard_net_tap::TapDriver, &format!("net_tap0,iface=tap9,netns={}", lab.path()));
    assert_eq!(reasons(&hub, 0, tap, &pool, &frames[..2]), [said(13, "bad_length")]);
    let tap = open(&linecard_net_tap::TapDriver, &format!("net_tap0,iface=tap9,netns={}", lab.path()));
    lab.ip("link set dev tap9 down");
    assert_eq!(reasons(&hub, 1, tap, &pool, &frames[..1]), [said(60, "link_down")]);

    let text = format!("net_af_packet0,iface=one,netns={}", lab.path());
    let port = open(&linecard_net_af_packet::AfPacketDriver, &text);
    assert_eq!(
        reasons(&hub, 2, port, &pool, &frames),
        [said(13, "too_short"), said(1800, "too_long")],
        "the others are sent"
    );
    if !lab.has_xdp("drivers_say_why_they_drop") {
        return;
    }
    let text = format!("net_af_xdp0,iface=one,netns={}", lab.path());
    let port = open(&linecard_net_af_xdp::AfXdpDriver, &text);
    assert_eq!(reasons(&hub, 3, port, &pool, &frames[..2]), [said(13, "runt")]);
}

/// Shows the frames that it gets, and takes all it is shown.
struct Showing(Box<dyn RxQueue>);

impl RxQueue for Showing {
    fn rx_burst(&mut self, packets: &mut Burst) -> usize {
        self.0.rx_burst(packets)
    }

    fn rx_direct(&mut self, _: &mut Burst, sink: &mut Sink<'_>) -> usize {
        let mut packets = Burst::new();
        let count = self.0.rx_burst(&mut packets);
        let frames: Vec<_> = packets.iter().map(|packet| Frame::of(packet.data())).collect();
        assert_eq!(sink(&frames), linecard_pmd::direct::all(count));
        count
    }

    fn path(&self) -> &'static str {
        "showing"
    }
}

/// Takes frames and packets, and says how many frames.
struct Taking(usize);

impl TxQueue for Taking {
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        packets.clear()
    }

    fn tx_direct(&mut self, frames: &[Frame<'_>]) -> Option<usize> {
        self.0 += frames.len();
        Some(frames.len())
    }

    fn path(&self) -> &'static str {
        if self.0 == 0 { "no frames" } else { "frames" }
    }
}

/// What would be copied from peer to peer becomes packets while somebody looks at either of its queues.
#[test]
fn what_is_captured_are_packets() {
    let (context, pool) = setup();
    let mut port = start(&context, &pool, "net_null0");
    port.rx = port.rx.into_iter().map(|queue| Box::new(Showing(queue)) as _).collect();
    port.tx = vec![Box::new(Taking(0))];
    let hub = Hub::new();
    let mut port = hub.watch(0, port);
    let mut burst = Burst::new();
    let dealt_with = |frames: &[Frame<'_>]| linecard_pmd::direct::all(frames.len());
    let frames = [Frame::of(&[7; 60])];
    {
        let (_session, mut stream) = hub.open(0, &Options::default()).expect("opens");
        let count = port.rx[0].rx_direct(&mut burst, &mut |_| panic!("it is captured"));
        assert!(count > 0 && burst.len() == count);
        assert_eq!((port.tx[0].tx_direct(&frames), port.tx[0].path()), (None, "no frames"));
        assert_eq!(port.tx[0].tx_burst(&mut burst), count);
        assert_eq!(all(&mut stream).len(), 2 * count);
    }
    // It ends with the first burst that finds nobody there.
    port.rx[0].rx_burst(&mut burst);
    port.tx[0].tx_burst(&mut burst);
    assert!(port.rx[0].rx_direct(&mut burst, &mut |frames| dealt_with(frames)) > 0 && burst.is_empty());
    assert_eq!((port.tx[0].tx_direct(&frames), port.tx[0].path()), (Some(1), "frames"));
}

/// A queue without segmentation that is full when a packet comes, and later refuses what it is given.
struct Refusing {
    soft: SoftTx,
    full: bool,
}

impl TxQueue for Refusing {
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        let full = self.full;
        self.soft.burst(packets, AcceptedOffloads::default(), |ready| {
            ready.iter().filter(|_| !full).for_each(|packet| dropped(packet, "refused"));
            if full { 0 } else { ready.clear() }
        })
    }

    fn reclaim(&mut self) {
        self.full = false;
        self.soft.flush(|ready| {
            ready.iter().for_each(|packet| dropped(packet, "refused"));
            ready.clear()
        });
    }

    fn path(&self) -> &'static str {
        "refusing"
    }
}

#[test]
fn a_piece_that_is_dropped_later_says_that_its_packet_is_shown_as_sent() {
    let (context, pool) = setup();
    let mut port = start(&context, &pool, "net_null0");
    port.tx = vec![Box::new(Refusing { soft: SoftTx::new(pool.clone(), |_, _| {}), full: true })];
    let hub = Hub::new();
    let mut port = hub.watch(0, port);
    let (_session, mut stream) = hub.open(0, &Options::default()).expect("opens");
    let mut large = vec![0; 54 + 1200];
    large[12..14].copy_from_slice(&[0x08, 0x00]);
    large[14..34].copy_from_slice(&[0x45, 0, 0, 0, 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    large[16..18].copy_from_slice(&1240_u16.to_be_bytes());
    large[46] = 0x50;
    let mut whole = packet(&pool, &large);
    let lengths = TxOffload::new(14, 20, 20).with_tso_segsz(500);
    whole.set_tx_offload(Offload::TX_IPV4 | Offload::TX_TCP_SEG, lengths);
    let mut burst = Burst::new();
    burst.push(whole).expect("room");
    assert_eq!(port.tx[0].tx_burst(&mut burst), 1);
    assert_eq!(all(&mut stream), [(Direction::Out, large, String::new())]);
    port.tx[0].reclaim();
    let seen: Vec<_> = all(&mut stream).into_iter().map(|(_, data, comment)| (data.len(), comment)).collect();
    let why = || "refused, a piece of a packet shown as sent".to_owned();
    assert_eq!(seen, [(554, why()), (554, why()), (254, why())]);
    // What is no piece is told as before.
    burst.push(packet(&pool, &[9; 60])).expect("room");
    assert_eq!(port.tx[0].tx_burst(&mut burst), 1);
    assert_eq!(all(&mut stream), [(Direction::Out, vec![9; 60], "refused".to_owned())]);
    port.stop();
    assert_eq!(pool.stats().in_use, 0);
}

#[test]
fn received_packets_that_are_dropped_have_reasons_too() {
    let Some(lab) = Lab::new("received_packets_that_are_dropped_have_reasons_too") else { return };
    lab.veth("one", "two");
    lab.ip("link set one mtu 9000");
    lab.ip("link set two mtu 9000");
    let (context, pool) = setup();
    let text = format!("net_af_packet0,iface=one,netns={},version=3,blocksz=4096", lab.path());
    let device =
        linecard_net_af_packet::AfPacketDriver.probe(&context, &DevArgs::parse(&text).expect("well formed"));
    let port = configure(device.expect("probes"), PortConfig::default()).and_then(|port| port.start(&pool));
    let hub = Hub::new();
    let mut port = hub.watch(0, port.expect("starts"));
    let (_session, mut stream) = hub.open(0, &Options::default()).expect("opens");
    let wire = lab.wire("two");
    assert!(wire.send(&[5; 8000]) && wire.send(&[6; 80]));
    let (mut burst, until) = (Burst::new(), Instant::now() + Duration::from_secs(5));
    while burst.is_empty() && Instant::now() < until {
        port.rx[0].rx_burst(&mut burst);
    }
    let seen = all(&mut stream);
    let seen: Vec<_> = seen.iter().map(|(way, data, comment)| (*way, data[0], comment.as_str())).collect();
    assert!(
        seen.contains(&(Direction::In, 5, "truncated")) && seen.contains(&(Direction::In, 6, "")),
        "{seen:?}"
    );
}

#[test]
fn a_full_ring_loses_copies_and_no_packet() {
    let (context, pool) = setup();
    let hub = Hub::new();
    let mut port = hub.watch(0, start(&context, &pool, "net_null0,size=100"));
    let options = Options::default().ring(4096);
    let (session, mut stream) = hub.open(0, &options).expect("opens");
    let mut total = 0;
    for _ in 0..100 {
        let mut burst = Burst::new();
        total += port.rx[0].rx_burst(&mut burst);
    }
    assert_eq!((total, session.totals().seen), (6400, 6400));
    // 64 cells hold 21 records of three cells.
    assert_eq!((all(&mut stream).len(), session.totals().lost), (21, 6400 - 21));
    let mut burst = Burst::new();
    port.rx[0].rx_burst(&mut burst);
    assert_eq!(stream.next().expect("not garbled").map(|frame| frame.lost), Some(6400 - 21));
}

#[test]
fn a_polling_thread_goes_on_while_captures_come_and_go() {
    let (context, pool) = setup();
    let hub = Hub::new();
    let mut port = hub.watch(0, start(&context, &pool, "net_null0"));
    let path = socket("churn");
    let server = hub.serve(&path).expect("serves");
    let (mut rx, mut tx) = (port.rx.remove(0), port.tx.remove(0));
    let end = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let ended = std::sync::Arc::clone(&end);
    let poller = std::thread::spawn(move || {
        let (mut burst, mut count) = (Burst::new(), 0);
        while !ended.load(std::sync::atomic::Ordering::Relaxed) {
            count += rx.rx_burst(&mut burst);
            tx.tx_burst(&mut burst);
        }
        (rx, tx, count)
    });
    for round in 0..30 {
        let client = Client::connect(&path).expect("connects");
        let options = Options::default().ring(64 << 10).snaplen(20);
        // The session before ends within a tick of the server's.
        let begin = Instant::now();
        let mut stream = loop {
            match client.capture(0, &options) {
                Ok(stream) => break stream,
                Err(error) => assert!(begin.elapsed() < Duration::from_secs(60), "{error}"),
            }
        };
        let begin = Instant::now();
        let mut count = 0;
        while count < 200 && begin.elapsed() < Duration::from_secs(60) {
            count += all(&mut stream).len();
        }
        assert!(count >= 200, "{count} in round {round}");
        // Every other client says goodbye; the others are gone, as if they had been killed.
        if round % 2 == 0 {
            let totals = client.stop().expect("totals");
            assert!(totals.seen >= 200);
        }
    }
    end.store(true, std::sync::atomic::Ordering::Relaxed);
    let (rx, tx, count) = poller.join().expect("no panic");
    assert!(count > 0);
    port.rx.push(rx);
    port.tx.push(tx);
    port.stop();
    assert_eq!(pool.stats().in_use, 0);
    drop(server);
    assert!(!path.exists());
}

#[test]
fn a_client_is_told_the_end_and_what_is_wrong() {
    let (context, pool) = setup();
    let hub = Hub::new();
    let mut port = hub.watch(2, start(&context, &pool, "net_null7"));
    let path = socket("told");
    let _server = hub.serve(&path).expect("serves");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
    let client = Client::connect(&path).expect("connects");
    let listed = client.list().expect("a list");
    assert_eq!(listed, [Listed { id: 2, name: "net_null7".into(), rx_queues: 1, tx_queues: 1 }]);
    let refused = |port, options: &Options| client.capture(port, options).expect_err("refused").to_string();
    assert_eq!(refused(0, &Options::default()), "there is no port 0; known: 2 (net_null7)");
    assert!(refused(2, &Options::default().ring(1)).contains("4096 to 1073741824"));
    let mut stream = client.capture(2, &Options::default().received(false)).expect("captures");
    let other = Client::connect(&path).expect("connects");
    let said = other.capture(2, &Options::default()).expect_err("taken").to_string();
    assert_eq!(said, "port 2 (net_null7) is being captured already; end that capture first");
    send(&mut port, &pool, &frames(4));
    port.stop();
    assert_eq!(client.ended(Duration::from_secs(10)), Some(Totals { seen: 4, lost: 0 }));
    assert_eq!(all(&mut stream).len(), 4, "what was copied can still be read");
    assert!(
        Client::connect(&socket("nobody")).expect_err("nobody").to_string().contains("no program answers at")
    );
}

#[test]
fn idle_clients_make_room_for_who_asks() {
    let (context, pool) = setup();
    let hub = Hub::new();
    let mut port = hub.watch(0, start(&context, &pool, "net_null0"));
    let path = socket("idle");
    let _server = hub.serve(&path).expect("serves");
    let capturing = Client::connect(&path).expect("connects");
    let mut stream = capturing.capture(0, &Options::default().received(false)).expect("captures");
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(Client::connect(&path).expect("connects"));
        assert_eq!(Client::connect(&path).expect("connects").list().expect("a list").len(), 1);
    }
    send(&mut port, &pool, &frames(3));
    port.stop();
    assert_eq!(capturing.ended(Duration::from_secs(10)), Some(Totals { seen: 3, lost: 0 }), "it captured on");
    assert_eq!(all(&mut stream).len(), 3);
}

/// The port that has a number last keeps it, whatever the one before it does.
#[test]
fn a_number_that_is_watched_again_is_the_later_ports() {
    let (context, pool) = setup();
    let hub = Hub::new();
    let mut earlier = hub.watch(0, start(&context, &pool, "net_null0"));
    let (session, _stream) = hub.open(0, &Options::default()).expect("captures");
    let mut later = hub.watch(0, start(&context, &pool, "net_null1"));
    assert!(!session.alive());
    send(&mut earlier, &pool, &frames(2));
    assert_eq!(session.totals().seen, 0, "the rings were taken back");
    earlier.stop();
    assert_eq!(hub.ports(), [(0, "net_null1".to_owned(), 1, 1)]);
    let (session, mut stream) = hub.open(0, &Options::default().received(false)).expect("captures");
    send(&mut later, &pool, &frames(3));
    assert_eq!((session.totals().seen, all(&mut stream).len()), (3, 3));
    later.stop();
    assert!(hub.ports().is_empty());
}

#[test]
fn requests_are_read_back_and_garbage_is_refused() {
    let filter = compile("tcp port 80 or vlan 7").expect("an expression");
    for options in [
        Options::default(),
        Options::default().snaplen(1).filter(filter).received(false).sent(true).ring(1 << 30),
    ] {
        let text = options.request(9);
        assert_eq!(protocol::parse(&text).expect("understood"), protocol::Request::Capture(9, options));
    }
    for text in
        ["", "capture", "capture port=1", "listen", "capture port=1 snaplen=0 ring=4096 rx=1 tx=1", "\0"]
    {
        assert!(protocol::parse(text).is_err(), "{text:?}");
    }
    let garbled = format!("{}5 0 0 9\n", Options::default().request(1));
    assert!(protocol::parse(&garbled).is_err(), "a filter that jumps out of itself");
    assert_eq!(protocol::places("ok name=x\nring=0+4096\nring=x"), None);
}

#[test]
fn a_record_longer_than_any_snapshot_is_not_waited_for() {
    let kept = crate::pcap::encode::SNAPLEN as usize + 1;
    let mut cells = [[0_u8; record::CELL]];
    cells[0][20..24].copy_from_slice(&(kept as u32).to_le_bytes());
    cells[0][24..28].copy_from_slice(&(record::cells(kept, 0) as u32).to_le_bytes());
    assert!(matches!(record::read(&cells), record::Found::Garbled));
}

#[test]
fn memory_that_is_not_there_is_an_error() {
    let error = super::memory::make(&[1 << 30; 32]).err().expect("2 TiB").to_string();
    assert!(error.contains("can be had"), "{error}");
}

/// Garbage in the ring is noticed, whatever it is.
#[test]
fn records_are_checked() {
    let mut cells = [[0_u8; record::CELL]; 4];
    assert!(matches!(record::read(&cells[..0]), record::Found::Part));
    assert!(matches!(record::read(&cells), record::Found::Garbled));
    for at in 20..32 {
        for value in [1, 0x7f, 0xff] {
            cells[0] = [0; record::CELL];
            cells[0][at] = value;
            if let record::Found::Frame(frame, count) = record::read(&cells) {
                assert!(count <= 4 && frame.data.len() <= 256);
            }
        }
    }
}

/// A ring port behind points of watch, captured or not.
struct Subjects(bool);

struct Watching {
    device: Box<dyn Device>,
    hub: Hub,
    capture: bool,
}

impl Device for Watching {
    fn name(&self) -> &str {
        self.device.name()
    }

    fn info(&self) -> DeviceInfo {
        self.device.info()
    }

    fn start(self: Box<Self>, config: &PortConfig, pool: &Pool) -> Result<Port, linecard_pmd::StartError> {
        let Self { device, hub, capture } = *self;
        let port = hub.watch(0, device.start(config, pool)?);
        let opened = capture.then(|| hub.open(0, &Options::default().ring(8192)).expect("opens"));
        let Port { rx, tx, control, running } = port;
        Ok(Port { rx, tx, control, running: Box::new(WatchingRunning { running, hub, opened }) })
    }
}

struct WatchingRunning {
    running: Box<dyn linecard_pmd::Running>,
    hub: Hub,
    opened: Option<(Session, Stream)>,
}

impl linecard_pmd::Running for WatchingRunning {
    fn stop(self: Box<Self>, rx: Vec<Box<dyn RxQueue>>, tx: Vec<Box<dyn TxQueue>>) -> Box<dyn Device> {
        let Self { running, hub, opened } = *self;
        let capture = opened.is_some();
        Box::new(Watching { device: running.stop(rx, tx), hub, capture })
    }
}

impl Subject for Subjects {
    fn open(&self, near: &ProbeContext, _: &ProbeContext) -> Ends {
        let args = DevArgs::parse("net_ring0").expect("well formed");
        let device = ring::RingDriver.probe(near, &args).expect("probes");
        Ends { near: Box::new(Watching { device, hub: Hub::new(), capture: self.0 }), far: FarEnd::Loop }
    }

    fn limits(&self) -> Limits {
        Limits { len: 1..=9000, segments: 8, ..Limits::default() }
    }
}

mod off {
    linecard_lab::contract_tests!(super::Subjects(false));
}

mod on {
    linecard_lab::contract_tests!(super::Subjects(true));
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let path = socket("plain");
    std::fs::write(&path, "precious").expect("a file");
    let refused = Hub::new().serve(&path).expect_err("it is a file").to_string();
    assert!(refused.contains("cannot be made"), "{refused}");
    assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "precious");
    std::fs::remove_file(&path).expect("it is there");
}
