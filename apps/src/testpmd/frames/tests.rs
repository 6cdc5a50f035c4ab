use proptest::prelude::*;

use super::*;

const ETHERTYPE_ARP: u16 = 0x0806;
const PROTO_ICMP: u8 = 1;

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

/// Recorded from dpdk-testpmd 22.11 on a net_pcap port.
#[test]
fn generated_frames_are_dpdks() {
    let txonly = UdpFlow::txonly(Mac([2, 0x70, 0x63, 0x61, 0x70, 0]), Mac([2, 0, 0, 0, 0, 9]));
    let mut want = bytes(
        "02000000000902706361700008004500003200000000\
         4011ee93c6120001c612000200090009001e0000",
    );
    want.resize(64, 0);
    assert_eq!(txonly.frame(64), want);
    let long = txonly.frame(160);
    assert_eq!(long[14..42], bytes("45000092000000004011ee33c6120001c612000200090009007e0000")[..]);
    assert_eq!(long.len(), 160);

    let mut want = bytes(
        "00010203040100010203040008004500002e00000000\
         401164c50afe00000afd000003e803e9001a0000",
    );
    want.resize(60, 0);
    assert_eq!(UdpFlow::flowgen(0).frame(60), want);
    assert_eq!(UdpFlow::flowgen(0x1_0002).frame(60)[30..34], [10, 254, 0, 2]);
}

#[test]
fn a_frame_changes_flow_in_place() {
    let mut frame = UdpFlow::flowgen(0).frame(60);
    for index in [1, 255, 256, 70_000, u32::MAX, 0] {
        set_flow(&mut frame, index);
        assert_eq!(frame, UdpFlow::flowgen(index).frame(60));
    }
}

#[test]
fn a_generated_frame_is_never_shorter_than_its_headers() {
    assert_eq!(UdpFlow::flowgen(0).frame(0).len(), 42);
    assert_eq!(UdpFlow::flowgen(0).frame(1 << 20).len(), 65_535);
}

#[test]
fn checksums_match_rfc_1071() {
    assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    assert_eq!(checksum(&[0xff]), 0x00ff);
    let frame = UdpFlow::txonly(Mac([2; 6]), Mac([4; 6])).frame(100);
    assert_eq!(checksum(&frame[14..34]), 0);
}

#[test]
fn five_tuple_swap_exchanges_every_layer_and_keeps_the_header_checksum() {
    let original = UdpFlow { src_port: 7, ..UdpFlow::txonly(Mac([2; 6]), Mac([4; 6])) }.frame(64);
    let mut frame = original.clone();
    swap_five_tuple(&mut frame);
    assert_eq!(frame[..12], [[2; 6], [4; 6]].concat());
    assert_eq!(frame[26..34], [198, 18, 0, 2, 198, 18, 0, 1]);
    assert_eq!(frame[34..38], [0, 9, 0, 7]);
    assert_eq!(checksum(&frame[14..34]), 0);
    swap_five_tuple(&mut frame);
    assert_eq!(frame, original);
}

#[test]
fn five_tuple_swap_looks_behind_vlan_tags() {
    let plain = UdpFlow { src_port: 7, ..UdpFlow::flowgen(0) }.frame(60);
    let mut tagged = plain.clone();
    tagged.splice(12..12, [0x88, 0xa8, 0, 5, 0x81, 0, 0, 6]);
    let mut swapped = plain;
    swap_five_tuple(&mut swapped);
    swap_five_tuple(&mut tagged);
    assert_eq!(tagged[20..], swapped[12..]);
}

#[test]
fn five_tuple_swap_leaves_the_payload_of_later_fragments() {
    for (field, ports) in [(0x2000, true), (0x4000, true), (0x2001, false), (0x1fff, false)] {
        let mut frame = UdpFlow { src_port: 7, ..UdpFlow::txonly(Mac([2; 6]), Mac([4; 6])) }.frame(64);
        put(&mut frame, 20, field);
        let payload = frame[34..].to_vec();
        swap_five_tuple(&mut frame);
        assert_eq!(frame[26..34], [198, 18, 0, 2, 198, 18, 0, 1]);
        assert_eq!(frame[34..] != payload, ports, "{field:#x}");
    }
}

#[test]
fn five_tuple_swap_leaves_a_header_that_is_too_short() {
    for ihl in 0..5 {
        let mut frame = UdpFlow { src_port: 7, ..UdpFlow::txonly(Mac([2; 6]), Mac([4; 6])) }.frame(64);
        frame[14] = 0x40 | ihl;
        let behind = frame[12..].to_vec();
        swap_five_tuple(&mut frame);
        assert_eq!((&frame[..12], &frame[12..]), (&[[2; 6], [4; 6]].concat()[..], &behind[..]), "{ihl}");
    }
}

#[test]
fn an_arp_request_is_answered() {
    let mut frame = bytes(
        "ffffffffffff0a0b0c0d0e0f08060001080006040001\
                           0a0b0c0d0e0f0a0000010000000000000a000002",
    );
    frame.resize(60, 0);
    assert!(answer(&mut frame, Mac([2, 0, 0, 0, 0, 1])));
    assert_eq!(
        frame[..42],
        bytes(
            "0a0b0c0d0e0f0200000000010806000108000604000202000000000\
               10a0000020a0b0c0d0e0f0a000001"
        )[..]
    );
    assert!(!answer(&mut frame, Mac([2, 0, 0, 0, 0, 1])), "an answer is not answered");
}

fn echo_request(dst: [u8; 4]) -> Vec<u8> {
    let mut frame = UdpFlow { dst_ip: dst, ..UdpFlow::txonly(Mac([2; 6]), Mac([4; 6])) }.frame(64);
    frame[23] = PROTO_ICMP;
    put(&mut frame, 24, 0);
    let sum = checksum(&frame[14..34]);
    put(&mut frame, 24, sum);
    frame[34..42].copy_from_slice(&[8, 0, 0, 0, 0, 1, 0, 2]);
    let sum = checksum(&frame[34..]);
    put(&mut frame, 36, sum);
    frame
}

#[test]
fn an_echo_request_is_answered_with_valid_checksums() {
    let mut frame = echo_request([198, 18, 0, 2]);
    assert!(answer(&mut frame, Mac([9; 6])));
    assert_eq!(frame[..12], [[2; 6], [4; 6]].concat());
    assert_eq!(frame[26..34], [198, 18, 0, 2, 198, 18, 0, 1]);
    assert_eq!((frame[34], checksum(&frame[14..34]), checksum(&frame[34..])), (0, 0, 0));
    assert!(!answer(&mut frame, Mac([9; 6])), "an answer is not answered");
}

#[test]
fn an_echo_request_to_a_group_is_answered_by_a_neighbour() {
    let mut frame = echo_request([224, 0, 0, 1]);
    assert!(answer(&mut frame, Mac([9; 6])));
    assert_eq!(frame[26..34], [198, 18, 0, 2, 198, 18, 0, 1]);
    assert_eq!((checksum(&frame[14..34]), checksum(&frame[34..])), (0, 0));
}

proptest! {
    #[test]
    fn any_bytes_are_survived(mut frame in proptest::collection::vec(any::<u8>(), 0..80), kind in 0..6_usize) {
        const KINDS: [u16; 6] =
            [ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, ETHERTYPE_QINQ, 0];
        put(&mut frame, 12, KINDS[kind]);
        let len = frame.len();
        swap_five_tuple(&mut frame);
        let _ = answer(&mut frame, Mac([1; 6]));
        set_macs(&mut frame, Mac([1; 6]), Mac([2; 6]));
        prop_assert_eq!(frame.len(), len);
    }

    #[test]
    fn echo_answers_keep_checksums_for_any_payload(payload in proptest::collection::vec(any::<u8>(), 22..22+1)) {
        let mut frame = echo_request([10, 0, 0, 9]);
        frame[42..].copy_from_slice(&payload);
        put(&mut frame, 36, 0);
        let sum = checksum(&frame[34..]);
        put(&mut frame, 36, sum);
        prop_assert!(answer(&mut frame, Mac([1; 6])));
        let sum = checksum(&frame[34..]);
        prop_assert!(sum == 0 || sum == 0xffff);
    }
}
