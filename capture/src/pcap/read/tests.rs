//! Times in every unit, and interfaces of other kinds.

use std::io::Cursor;

use super::*;

/// Appends a block of a little-endian section.
fn block(file: &mut Vec<u8>, kind: u32, body: &[u8]) {
    let padded = body.len().next_multiple_of(4);
    let len = (12 + padded) as u32;
    file.extend([kind.to_le_bytes(), len.to_le_bytes()].concat());
    file.extend(body);
    file.resize(file.len() + padded - body.len(), 0);
    file.extend(len.to_le_bytes());
}

/// A section with nothing in it.
fn section() -> Vec<u8> {
    let mut file = Vec::new();
    let magic = 0x1a2b_3c4d_u32.to_le_bytes();
    block(&mut file, 0x0a0d_0d0a, &[&magic[..], &[1, 0, 0, 0], &[0xff; 8]].concat());
    file
}

/// An interface, with its `if_tsresol` where it has one.
fn interface(file: &mut Vec<u8>, link: u16, resolution: Option<u8>) {
    let mut body = [&link.to_le_bytes()[..], &[0, 0, 0xff, 0xff, 0, 0]].concat();
    if let Some(resolution) = resolution {
        body.extend([9, 0, 1, 0, resolution, 0, 0, 0, 0, 0, 0, 0]);
    }
    block(file, 1, &body);
}

/// A packet of four bytes.
fn packet(file: &mut Vec<u8>, interface: u32, time: u64, byte: u8) {
    let (high, low) = ((time >> 32) as u32, time as u32);
    let words = [interface, high, low, 4, 4].map(u32::to_le_bytes).concat();
    block(file, 6, &[&words[..], &[byte; 4]].concat());
}

/// When each packet came, and its first byte.
type Packets = Vec<(u64, u8)>;

/// Times and first bytes of all frames, and what was skipped.
fn read(file: &[u8]) -> Result<(Packets, Vec<Skipped>), Damage> {
    let mut reader = Reader::of(Cursor::new(file.to_vec()), 4096)?;
    let mut frames = Vec::new();
    while reader.ready()? {
        frames.push((reader.time(), reader.frame()[0]));
        reader.advance();
    }
    Ok((frames, reader.skipped().to_vec()))
}

#[test]
fn times_in_powers_of_ten_and_of_two() {
    const SECOND: u64 = 1_000_000_000;
    for (resolution, units, ns) in [
        (None, 1_000_001, SECOND + 1000),
        (Some(0), 7, 7 * SECOND),
        (Some(9), 5, 5),
        (Some(19), 20_000_000_000, 2),
        // Finer than 64 bits of whole seconds: 2^64 units are 0.18 s.
        (Some(20), 100_000_000_000, 1),
        // 1024 to a second, as in a capture of ours that was refused.
        (Some(0x8a), 1024 + 512, SECOND + SECOND / 2),
        (Some(0x80), 3, 3 * SECOND),
        // NTP's: 32 bits of seconds, 32 of their fractions.
        (Some(0xa0), (1_700_000_000 << 32) | (1 << 31), 1_700_000_000 * SECOND + SECOND / 2),
        (Some(0xbf), 1 << 62, SECOND / 2),
        (Some(0xc0), 1 << 63, SECOND / 2),
        // Nothing of so fine a time makes a nanosecond.
        (Some(0x7f), u64::MAX, 0),
        (Some(0xff), u64::MAX, 0),
    ] {
        let mut file = section();
        interface(&mut file, 1, resolution);
        packet(&mut file, 0, units, 0xaa);
        let (frames, skipped) = read(&file).unwrap_or_else(|damage| panic!("{resolution:x?}: {damage}"));
        assert_eq!(frames, [(ns, 0xaa)], "{resolution:x?}");
        assert!(skipped.is_empty());
    }
}

#[test]
fn interfaces_that_are_not_ethernet_are_skipped_and_told() {
    let mut file = section();
    interface(&mut file, 1, Some(9));
    interface(&mut file, 189, None);
    packet(&mut file, 0, 5, 1);
    let unused = file.clone();
    packet(&mut file, 1, 6, 2);
    interface(&mut file, 189, None);
    interface(&mut file, 101, None);
    packet(&mut file, 2, 7, 3);
    packet(&mut file, 0, 8, 4);
    let none = [Skipped { link_type: 189, interfaces: 1, packets: 0 }];
    assert_eq!(read(&unused).expect("one Ethernet packet"), (vec![(5, 1)], none.to_vec()));
    let some = [
        Skipped { link_type: 189, interfaces: 2, packets: 2 },
        Skipped { link_type: 101, interfaces: 1, packets: 0 },
    ];
    assert_eq!(read(&file).expect("two of them"), (vec![(5, 1), (8, 4)], some.to_vec()));
}

#[test]
fn a_file_without_ethernet_is_refused() {
    let mut file = section();
    interface(&mut file, 105, None);
    packet(&mut file, 0, 6, 2);
    assert!(matches!(read(&file), Err(Damage::LinkType(105))));
    // A simple packet is the first interface's.
    block(&mut file, 3, &[4, 0, 0, 0, 1, 1, 1, 1]);
    assert!(matches!(read(&file), Err(Damage::LinkType(105))));
    // And one of no interface at all is damage.
    packet(&mut file, 1, 6, 2);
    assert!(matches!(read(&file), Err(Damage::Damaged(0))));
}
