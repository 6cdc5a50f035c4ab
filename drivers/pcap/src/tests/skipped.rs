//! Interfaces of other kinds in a file: their packets are not received, and a warning says that.

use super::*;
use linecard_lab::Log;

/// Appends a block of a little-endian section; `body` has a multiple of four bytes.
fn block(file: &mut Vec<u8>, kind: u32, body: &[u8]) {
    let len = (12 + body.len() as u32).to_le_bytes();
    file.extend([&kind.to_le_bytes(), &len[..], body, &len[..]].concat());
}

fn interface(file: &mut Vec<u8>, link: u8) {
    block(file, 1, &[link, 0, 0, 0, 0, 0, 0, 0]);
}

/// A packet of 64 bytes.
fn packet(file: &mut Vec<u8>, interface: u32, byte: u8) {
    let words = [interface, 0, 0, 64, 64].map(u32::to_le_bytes).concat();
    block(file, 6, &[&words[..], &[byte; 64]].concat());
}

/// A section with an interface of Ethernet, number 0.
fn section() -> Vec<u8> {
    let mut file = Vec::new();
    let magic = 0x1a2b_3c4d_u32.to_le_bytes();
    block(&mut file, 0x0a0d_0d0a, &[&magic[..], &[1, 0, 0, 0], &[0xff; 8]].concat());
    interface(&mut file, 1);
    file
}

/// Opens a port on a file. Returns the log until the port is open, the log until the end of the file, and the
/// first byte of each packet.
fn logged(text: &str) -> (String, String, Vec<u8>) {
    let log = Log::default();
    log.of_this_thread(|| {
        let context = context();
        let pool = pool(&context);
        let device = probe(text).expect("a port");
        let opened = log.text();
        let mut port = start(device, &pool);
        let packets = receive(&mut *port.rx[0]);
        (opened, log.text(), packets.iter().map(|packet| packet[0]).collect())
    })
}

#[test]
fn interfaces_of_other_kinds_are_told_once() {
    let scratch = Scratch::new();
    let mut file = section();
    packet(&mut file, 0, 1);
    interface(&mut file, 189);
    packet(&mut file, 1, 2);
    packet(&mut file, 0, 3);
    let path = scratch.with("mixed.pcapng", &file);
    let (opened, all, packets) = logged(&format!("net_pcap0,rx_pcap={path}"));
    assert_eq!(packets, [1, 3]);
    let what = "only Ethernet is read, not its 1 interface of link type 189 (1 packet so far)";
    assert_eq!(opened, format!("WARN net_pcap0: {path}: {what}\n"));
    assert_eq!(all, opened, "once");
    let path = scratch.with("plain.pcapng", &encoded(Format::PcapNg));
    assert_eq!(logged(&format!("net_pcap0,rx_pcap={path}")).1, "", "there is nothing to tell");
}

/// Only the first 64 MiB of a file are read before the port opens. What comes behind them is told when it has
/// been read: at the end of the file, or at the start of a port that keeps it in memory.
#[test]
fn interfaces_behind_the_part_that_is_checked_are_told() {
    const PART: usize = 32 << 10;
    let scratch = Scratch::new();
    let mut file = section();
    for _ in 0..(64 << 20) / PART + 1 {
        // A block of a kind that nobody knows, to be skipped.
        block(&mut file, 0x0bad, &[0; PART]);
        packet(&mut file, 0, 1);
    }
    interface(&mut file, 101);
    packet(&mut file, 1, 2);
    let count = (64 << 20) / PART + 1;
    let path = scratch.with("long.pcapng", &file);
    let what = "only Ethernet is read, not its 1 interface of link type 101 (1 packet so far)";
    let (opened, all, packets) = logged(&format!("net_pcap0,rx_pcap={path}"));
    assert_eq!(packets, vec![1; count]);
    assert_eq!((opened.as_str(), all), ("", format!("WARN net_pcap0: {path}: {what}\n")));
    let log = Log::default();
    log.of_this_thread(|| {
        let context = context();
        let pool = pool(&context);
        drop(start(probe(&format!("net_pcap0,rx_pcap={path},infinite_rx=1")).expect("a port"), &pool));
    });
    assert_eq!(log.text(), format!("WARN net_pcap0: {path}: {what}\n"));
}
