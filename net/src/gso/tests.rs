use super::*;
use crate::ether::{Ethernet, ether_type};
use crate::ip::protocol;
use crate::mac::MacAddr;
use crate::offload::{NoChecksum, Verdict, verify_ipv4, verify_transport};
use crate::parse::parse;
use proptest::prelude::*;

/// A large packet of one of the four kinds, with a payload that counts.
pub(crate) fn large(v6: bool, tcp: bool, payload_len: usize) -> Vec<u8> {
    let protocol = if tcp { protocol::TCP } else { protocol::UDP };
    let l4_len = if tcp { 32 } else { 8 };
    let mut frame = vec![0; 14 + if v6 { 40 } else { 20 } + l4_len];
    let transport_len = (l4_len + payload_len) as u16;
    let kind = if v6 { ether_type::IPV6 } else { ether_type::IPV4 };
    Ethernet::new(MacAddr::local(2), MacAddr::local(1), kind).store(&mut frame).expect("fits");
    if v6 {
        Ipv6::new([1; 16], [2; 16], protocol, transport_len).store(&mut frame[14..]).expect("fits");
    } else {
        let mut ip = Ipv4::new([10, 0, 0, 1], [10, 0, 0, 2], protocol, transport_len);
        ip.identification.set(0xffff);
        ip.store(&mut frame[14..]).expect("fits");
    }
    let l4 = frame.len() - l4_len;
    if tcp {
        frame[l4 + 12] = 0x80;
        let (header, _) = Tcp::view_mut(&mut frame[l4..]).expect("fits");
        header.sequence_number.set(u32::MAX - 700);
        header.flags = tcp_flags::ACK | tcp_flags::PSH | tcp_flags::FIN | tcp_flags::CWR;
    } else {
        Udp::new(5000, 9, payload_len as u16).store(&mut frame[l4..]).expect("fits");
    }
    frame.extend((0..payload_len).map(|i| (i * 7 / 3) as u8));
    frame
}

fn check(frame: &[u8], segment_size: u16) -> Result<(), TestCaseError> {
    let whole = parse(frame);
    let cut =
        Segmenter::new(&whole, frame.len() - whole.payload_start(), segment_size).expect("a known kind");
    let (mut joined, mut out) = (Vec::new(), vec![0; 70_000]);
    for index in 0..cut.segments() {
        let len = cut.segment(frame, index, &mut out).expect("a segment");
        let (segment, layers) = (&out[..len], parse(&out[..len]));
        prop_assert_eq!(layers.packet_type, whole.packet_type);
        prop_assert_eq!(layers.l4_start() + layers.transport_len as usize, len);
        prop_assert_ne!(verify_ipv4(segment, &layers), Verdict::Bad);
        prop_assert_eq!(verify_transport(segment, &layers), Verdict::Good);
        if let (PacketType::L4_TCP, Some(tcp)) =
            (layers.packet_type.l4(), Tcp::load(&segment[layers.l4_start()..]))
        {
            let (first, last) = (index == 0, index + 1 == cut.segments());
            prop_assert_eq!(tcp.sequence_number.get(), (u32::MAX - 700).wrapping_add(joined.len() as u32));
            prop_assert_eq!(tcp.flags & (tcp_flags::FIN | tcp_flags::PSH) != 0, last);
            prop_assert_eq!(tcp.flags & tcp_flags::CWR != 0, first);
            prop_assert!(tcp.flags & tcp_flags::ACK != 0);
        }
        joined.extend_from_slice(&segment[layers.payload_start()..]);
    }
    prop_assert_eq!(&joined[..], &frame[whole.payload_start()..]);
    prop_assert_eq!(cut.segment(frame, cut.segments(), &mut out), None);
    Ok(())
}

proptest! {
    #[test]
    fn segments_are_whole_and_correct(v6: bool, tcp: bool, payload_len in 0..9000_usize, size in 50..2000_u16) {
        check(&large(v6, tcp, payload_len), size)?;
    }

    #[test]
    fn never_panics_on_any_header(frame in prop::collection::vec(any::<u8>(), 0..200), size: u16, payload: u16) {
        let layers = parse(&frame);
        let mut out = [0; 300];
        if let Some(cut) = Segmenter::new(&layers, payload.into(), size) {
            for index in [0, 1, cut.segments()] {
                let _ = cut.segment(&frame, index, &mut out);
            }
        }
    }
}

#[test]
fn the_largest_packet_in_bytes() {
    check(&large(false, true, 65_000), 1448).expect("65000 bytes in 1448s");
    check(&large(true, false, 3), 1).expect("3 bytes in 1s");
}

#[test]
fn identification_counts_on() {
    let frame = large(false, true, 3000);
    let cut = Segmenter::new(&parse(&frame), 3000, 1000).expect("TCP");
    let mut out = [0; 1500];
    let ids: Vec<u16> = (0..3)
        .map(|index| {
            cut.segment(&frame, index, &mut out).expect("a segment");
            Ipv4::load(&out[14..]).expect("fits").identification.get()
        })
        .collect();
    assert_eq!(ids, [0xffff, 0, 1]);
}

#[test]
fn refuses_what_it_cannot_cut() {
    let layers = parse(&large(false, true, 100));
    assert!(Segmenter::new(&layers, 100, 0).is_none());
    assert!(Segmenter::new(&layers, 100_000, 65_500).is_none());
    assert!(Segmenter::new(&Layers::default(), 100, 100).is_none());
    let cut = Segmenter::new(&layers, 100, 50).expect("TCP");
    assert_eq!(cut.header(&[0; 20], 0, &mut [0; 100]), Err(NoSegment));
    assert_eq!(cut.finish(&mut [0; 10]), Err(NoChecksum));
}
