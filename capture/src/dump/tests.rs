//! What is dumped is read back; a dump of a port has all that passed, with directions, and ends with the port.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use linecard_eal::{Memory, MemoryConfig};
use linecard_lab::wait_until;
use linecard_mempool::{Burst, Pool, PoolConfig};
use linecard_pmd::{Port, PortConfig, ProbeContext, Registry, configure};

use super::*;
use crate::Options;
use crate::pcap::read::Damage;

/// A file that is gone with the test.
struct Target(PathBuf);

impl Target {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("linecard-dump-{}-{name}", std::process::id())))
    }

    fn frames(&self) -> Vec<SavedFrame> {
        read(&self.0).expect("a capture").collect::<Result<_, _>>().expect("whole")
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn pool() -> (Memory, Pool) {
    let memory = Memory::new(MemoryConfig::default()).expect("memory");
    let domain = memory.domain("packets").expect("a domain");
    let pool = Pool::new(&domain, PoolConfig::default().packets(1024)).expect("a pool");
    (memory, pool)
}

fn port(device: &str) -> (Port, Pool) {
    let (memory, pool) = pool();
    let context = ProbeContext::new(memory, pool.domain().clone(), std::time::Duration::from_secs(1));
    let drivers = Registry::new(&[&linecard_net_null::NullDriver, &linecard_net_ring::RingDriver]);
    let device = drivers.probe(&context, device).expect("it opens");
    let port = configure(device, PortConfig::default()).expect("possible").start(&pool).expect("it starts");
    (port, pool)
}

fn numbered(pool: &Pool, numbers: std::ops::Range<u8>) -> Burst {
    let mut packets = Burst::new();
    for number in numbers {
        // Of one segment and of several, of even and of odd lengths.
        let packet = pool.packet_of(&vec![number; 60 + usize::from(number) * 7], 100).expect("a buffer");
        packets.push(packet).expect("room");
    }
    packets
}

#[test]
fn packets_are_read_back_from_either_format() {
    let (_memory, pool) = pool();
    for name in ["slice.pcap", "slice.pcapng", "slice.dump"] {
        let target = Target::new(name);
        let packets = numbered(&pool, 0..40);
        dump(&target.0, &packets).expect("written");
        let frames = target.frames();
        assert_eq!(frames.len(), 40, "{name}");
        for (frame, packet) in frames.iter().zip(packets.iter()) {
            assert_eq!(frame.data, packet.to_bytes(), "{name}");
            assert_eq!(frame.len as usize, packet.len(), "{name}");
        }
        assert!(frames.windows(2).all(|two| two[0].time <= two[1].time), "{name}");
        assert!(frames[0].time > 1_700_000_000_000_000_000, "{name}: it is later than 2023");
        // A second dump begins anew.
        dump(&target.0, &packets[..1]).expect("written");
        assert_eq!(target.frames().len(), 1, "{name}");
    }
}

#[test]
fn a_file_that_cannot_be_had_is_named() {
    let (_memory, pool) = pool();
    let packets = numbered(&pool, 0..1);
    let error = dump("/no/such/folder/a.pcap", &packets).expect_err("no folder").to_string();
    assert!(error.starts_with("/no/such/folder/a.pcap cannot be written"), "{error}");
    assert!(error.contains("in a folder that exists"), "{error}");
    // A disk that is full says so at the end at the latest.
    let mut full = Dump::create("/dev/full").err().map_or_else(String::new, |error| error.to_string());
    assert!(full.contains("free space"), "{full}");
    full.clear();
    assert!(matches!(read("/no/such/file").err(), Some(Damage::Open(_))));
}

#[test]
fn damage_ends_the_frames() {
    let (_memory, pool) = pool();
    let target = Target::new("cut.pcap");
    dump(&target.0, &numbered(&pool, 0..3)).expect("written");
    let whole = std::fs::read(&target.0).expect("written");
    std::fs::write(&target.0, &whole[..whole.len() - 1]).expect("written");
    let mut frames = read(&target.0).expect("a capture");
    assert!(frames.by_ref().take(2).all(|frame| frame.is_ok()));
    assert!(matches!(frames.next(), Some(Err(Damage::Truncated(2)))));
    assert!(frames.next().is_none());
}

#[test]
fn all_that_passes_a_port_is_in_the_file() {
    let target = Target::new("port.pcapng");
    let (port, pool) = port("net_ring0");
    let (dump, mut port) = dump_port(&target.0, port).expect("it begins");
    for _ in 0..20 {
        let mut packets = numbered(&pool, 0..20);
        assert_eq!(port.tx[0].tx_burst(&mut packets), 20);
        assert_eq!(port.rx[0].rx_burst(&mut packets), 20);
        port.tx[0].note_dropped(&packets, "test");
    }
    let totals = dump.finish().expect("written");
    assert_eq!((totals.seen, totals.lost), (1200, 0));
    assert_eq!(target.frames().len(), 1200);
    let text = std::fs::read(&target.0).expect("there");
    let comments = text.windows(13).filter(|text| text == b"dropped: test").count();
    assert_eq!(comments, 400, "each drop has its reason");
    // The port goes on, and nobody copies any more.
    let mut packets = numbered(&pool, 0..1);
    port.tx[0].tx_burst(&mut packets);
    assert_eq!(target.frames().len(), 1200);
}

/// A thread polls on, so that there is always another packet.
#[test]
fn a_dump_ends_while_packets_keep_coming() {
    let target = Target::new("busy.pcap");
    let (port, _pool) = port("net_null0");
    let (dump, mut port) = dump_port(&target.0, port).expect("it begins");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut packets = Burst::new();
            while !over.load(Ordering::Relaxed) {
                port.rx[0].rx_burst(&mut packets);
                packets.clear();
            }
        });
        wait_until("packets are written", || {
            std::fs::metadata(&target.0).is_ok_and(|file| file.len() > 1000)
        });
        let totals = dump.finish();
        over.store(true, Ordering::Relaxed);
        assert!(totals.expect("written").seen > 0);
    });
    assert!(target.frames().iter().all(|frame| frame.data.len() == 64));
}

#[test]
fn options_and_the_end_of_the_port_are_heeded() {
    let target = Target::new("cut.pcapng");
    let (port, pool) = port("net_ring0");
    let options = Options::default().snaplen(20).received(false);
    let (dump, mut port) = dump_port_with(&target.0, port, &options).expect("it begins");
    let mut packets = numbered(&pool, 0..30);
    port.tx[0].tx_burst(&mut packets);
    port.rx[0].rx_burst(&mut packets);
    drop(packets);
    drop(port.stop());
    wait_until("the dump ends with the port", || !dump.is_running());
    let totals = dump.finish().expect("written");
    assert_eq!((totals.seen, totals.lost), (30, 0));
    let frames = target.frames();
    assert_eq!(frames.len(), 30);
    assert!(frames.iter().all(|frame| frame.data.len() == 20 && frame.len >= 60));
    let (port, _pool) = self::port("net_null0");
    let refused = dump_port_with(&target.0, port, &options.snaplen(0)).expect_err("none");
    assert!(refused.to_string().contains("1 to 262144"), "{refused}");
}
