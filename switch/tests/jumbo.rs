//! Frames of 9000 bytes, in chains of buffers, through a switch whose ports take references to them: to one port and to all, with
//! tags put in and taken out. Every byte is compared, also of what shares buffers with a frame that was changed.

#[allow(dead_code, reason = "each test target uses its own part")]
mod common;

use common::{Bed, frame, tagged};
use serde_json::json;

const ALL: u8 = 255;
/// Around the buffers' 2048 bytes, and around the longest frame: 9000 bytes behind 14.
const LENGTHS: [usize; 11] = [60, 1514, 2047, 2048, 2049, 4096, 4097, 6144, 9000, 9013, 9014];

/// A frame of `len` bytes whose payload follows from that.
fn long(from: u8, to: u8, len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (14..len).map(|at| (at * 7 + len * 31) as u8).collect();
    frame(from, to, &payload)
}

/// In VLAN 10 two ports without tags, two with; and one of another VLAN that gets nothing of it.
fn bed(workers: usize) -> Bed {
    let access = json!({"mtu": 9000, "vlan": {"access": 10}});
    let trunk = json!({"mtu": 9000, "vlan": {"trunk": {"vlans": [10]}}});
    let other = json!({"mtu": 9000, "vlan": {"access": 20}});
    Bed::new(workers, &[access.clone(), access, trunk.clone(), trunk, other])
}

/// As the port has it: of these, 2 and 3 have tags.
fn at(port: usize, frame: &[u8]) -> Vec<u8> {
    if [2, 3].contains(&port) { tagged(10, frame) } else { frame.to_vec() }
}

#[test]
fn long_frames_to_all_have_the_tags_each_port_wants() {
    for workers in [1, 2] {
        let mut bed = bed(workers);
        for from in 0..4 {
            let frames: Vec<_> = LENGTHS.iter().map(|len| long(from as u8 + 1, ALL, *len)).collect();
            let sent: Vec<_> = frames.iter().map(|frame| at(from, frame)).collect();
            bed.send(from, &sent);
            bed.settle();
            for to in 0..5 {
                let want: Vec<_> = frames.iter().map(|frame| at(to, frame)).collect();
                let want = if to == from || to == 4 { Vec::new() } else { want };
                let got = bed.received(to);
                assert!(got == want, "from {from} to {to}: {} frames of {}", got.len(), want.len());
            }
        }
    }
}

#[test]
fn long_frames_to_one_port_have_the_tag_it_wants() {
    for workers in [1, 2] {
        let mut bed = bed(workers);
        for port in 0..4 {
            bed.send(port, &[at(port, &frame(port as u8 + 1, ALL, b"here I am"))]);
            bed.settle();
        }
        (0..5).for_each(|port| drop(bed.received(port)));
        for (from, to) in [(0, 1), (0, 2), (2, 0), (2, 3), (3, 1), (1, 3)] {
            let frames: Vec<_> = LENGTHS.iter().map(|len| long(from as u8 + 1, to as u8 + 1, *len)).collect();
            bed.send(from, &frames.iter().map(|frame| at(from, frame)).collect::<Vec<_>>());
            bed.settle();
            let got = bed.received(to);
            let want: Vec<_> = frames.iter().map(|frame| at(to, frame)).collect();
            assert!(got == want, "from {from} to {to}: {} frames of {}", got.len(), want.len());
            assert!((0..5).all(|port| bed.received(port).is_empty()), "nobody else gets them");
        }
    }
}

#[test]
fn what_is_longer_than_its_port_is_counted_where_it_was_lost() {
    let port = |mtu: u16| json!({"mtu": mtu});
    let mut bed = Bed::new(1, &[port(9000), port(9000), port(1500)]);
    // 14 bytes of header and 4 of a tag that it might have.
    for (len, reached) in [(9018, vec![1]), (9019, vec![]), (1518, vec![1, 2]), (1519, vec![1])] {
        assert_eq!(bed.reach(0, &long(1, ALL, len)), reached, "{len} bytes");
    }
    let drops = |number| bed.info(number).counters.drops;
    assert_eq!((drops(0).rx_oversize, drops(1).tx_oversize, drops(2).tx_oversize), (1, 0, 2));
}
