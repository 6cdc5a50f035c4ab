use super::*;
use crate::gso::tests::large;
use crate::parse::parse;
use proptest::prelude::*;

#[test]
fn a_header_seen_in_the_wild() {
    let mut frame = vec![0; 14];
    frame[12] = 8;
    frame.extend([0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xb8, 0x61]);
    frame.extend([0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7]);
    let layers = parse(&frame);
    assert_eq!(verify_ipv4(&frame, &layers), Verdict::Good);
    frame[24..26].fill(0xee);
    assert_eq!(verify_ipv4(&frame, &layers), Verdict::Bad);
    assert_eq!(fill_ipv4(&mut frame, &layers), Ok(()));
    assert_eq!(frame[24..26], [0xb8, 0x61]);
    assert_eq!(verify_transport(&frame, &layers), Verdict::Absent, "the data is missing");
}

#[test]
fn echo_covers_the_message_only_in_version_4() {
    // RFC 792 echo request, identifier 1, sequence 2, data "abcd": checked by hand.
    let mut frame = vec![0; 14];
    frame[12] = 8;
    frame.extend([0; 20]);
    Ipv4::new([10, 0, 0, 1], [10, 0, 0, 2], protocol::ICMP, 12).store(&mut frame[14..]).expect("fits");
    frame.extend([8, 0, 0, 0, 0, 1, 0, 2, b'a', b'b', b'c', b'd']);
    let layers = parse(&frame);
    assert_eq!(fill_transport(&mut frame, &layers), Ok(()));
    let sum = !(0x0800_u16 + 1 + 2 + 0x6162 + 0x6364);
    assert_eq!(frame[36..38], sum.to_be_bytes());
    assert_eq!(verify_transport(&frame, &layers), Verdict::Good);
    assert_eq!(prepare(&mut frame, &layers), None);
}

/// The sum of this frame is all ones, of which the checksum is zero.
#[test]
fn a_checksum_of_tcp_may_be_zero_and_is_all_ones_when_it_is_finished() {
    let (mut filled, mut prepared) = (large(false, true, 2187), large(false, true, 2187));
    let layers = parse(&filled);
    assert_eq!(fill_transport(&mut filled, &layers), Ok(()));
    let partial = prepare(&mut prepared, &layers).expect("TCP");
    assert_eq!(finish(&mut prepared, partial), Ok(()));
    assert_eq!((&filled[partial.field()], &prepared[partial.field()]), (&[0, 0][..], &[0xff, 0xff][..]));
    assert_eq!([&filled, &prepared].map(|frame| verify_transport(frame, &layers)), [Verdict::Good; 2]);
}

proptest! {
    #[test]
    fn prepare_then_finish_equals_fill(v6: bool, tcp: bool, len in 0..3000_usize, cut: u16) {
        let mut filled = large(v6, tcp, len);
        let layers = parse(&filled);
        let mut prepared = filled.clone();
        prop_assert_eq!(fill_transport(&mut filled, &layers), Ok(()));
        prop_assert_eq!(verify_transport(&filled, &layers), Verdict::Good);

        let partial = prepare(&mut prepared, &layers).expect("TCP or UDP");
        let (front, back) = prepared.split_at(usize::from(cut) % prepared.len());
        let chained = sum_from([front, back], partial.csum_start.into()).checksum_nonzero();
        prop_assert_eq!(finish(&mut prepared, partial), Ok(()));
        prop_assert_eq!(&prepared[partial.field()], &chained.to_be_bytes());
        prop_assert_eq!(verify_transport(&prepared, &layers), Verdict::Good);
        // Only `fill_transport` knows the protocol: a checksum of TCP may be zero, and is the same as all ones.
        if filled[partial.field()] == [0, 0] {
            prop_assert!(tcp);
            filled[partial.field()].fill(0xff);
        }
        prop_assert_eq!(prepared, filled);
    }

    #[test]
    fn one_changed_bit_is_found(v6: bool, tcp: bool, len in 0..300_usize, at: u16, bit in 0..8_u8) {
        let mut frame = large(v6, tcp, len);
        let layers = parse(&frame);
        prop_assert_eq!(fill_transport(&mut frame, &layers), Ok(()));
        let at = layers.l4_start() + usize::from(at) % (frame.len() - layers.l4_start());
        frame[at] ^= 1 << bit;
        prop_assert_ne!(verify_transport(&frame, &layers), Verdict::Good);
    }

    #[test]
    fn never_panics(mut frame in prop::collection::vec(any::<u8>(), 0..120), csum_start: u16, csum_offset: u16) {
        let layers = parse(&frame);
        let inside = usize::from(csum_start) + usize::from(csum_offset) + 2 <= frame.len();
        prop_assert_eq!(finish(&mut frame, Partial { csum_start, csum_offset }).is_ok(), inside);
        let _ = (fill_ipv4(&mut frame, &layers), fill_transport(&mut frame, &layers), prepare(&mut frame, &layers));
        // Layers of another frame are no reason to panic either.
        let foreign = parse(&large(true, true, 10));
        let _ = (fill_ipv4(&mut frame, &foreign), fill_transport(&mut frame, &foreign), prepare(&mut frame, &foreign));
        let _ = (verify_ipv4(&frame, &foreign), verify_transport(&frame, &foreign));
    }
}
