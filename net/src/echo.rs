//! Replies made of requests, in place: ARP (RFC 826), ICMP echo (RFC 792), UDP echo (RFC 862).
//!
//! Every function accepts any bytes, and leaves frames unchanged that it does not answer.

use crate::U16;
use crate::arp::{Arp, REQUEST};
use crate::checksum::checksum;
use crate::ether::{Ethernet, ether_type};
use crate::header::Header;
use crate::ip::{Ipv4, protocol};
use crate::mac::MacAddr;
use crate::transport::{Icmp, Udp, icmp_kind};

/// The EtherType behind VLAN tags, and where its payload starts.
fn layer3(frame: &[u8]) -> Option<(u16, usize)> {
    let mut at = Ethernet::LEN;
    let kind = |at: usize| frame.get(at - 2..at).map(|b| u16::from_be_bytes([b[0], b[1]]));
    while matches!(kind(at)?, ether_type::VLAN | ether_type::QINQ) {
        at += 4;
    }
    Some((kind(at)?, at))
}

/// A complete IPv4 header, where its packet starts, and where its payload starts.
fn ipv4(frame: &[u8]) -> Option<(Ipv4, usize, usize)> {
    let (kind, l3) = layer3(frame)?;
    let header = Ipv4::load(frame.get(l3..)?)?;
    let good = kind == ether_type::IPV4 && header.version() == 4 && header.header_len() >= Ipv4::LEN;
    good.then_some((header, l3, l3 + header.header_len()))
}

fn swap_stations(frame: &mut [u8]) {
    if let Some(addresses) = frame.first_chunk_mut::<12>() {
        addresses.rotate_left(6);
    }
}

/// The requested address if `frame` is an ARP request for IPv4.
///
/// ```
/// assert_eq!(linecard_net::echo::asked(&[0; 60]), None);
/// ```
#[must_use]
pub fn asked(frame: &[u8]) -> Option<[u8; 4]> {
    let (kind, l3) = layer3(frame)?;
    let arp = Arp::load(frame.get(l3..)?)?;
    let request = kind == ether_type::ARP && arp.is_ipv4_over_ethernet() && arp.operation.get() == REQUEST;
    request.then_some(arp.target_protocol)
}

/// Turns an ARP request into the reply that the address is at `own`; false for any other frame.
///
/// ```
/// use linecard_net::{Header, MacAddr, arp::Arp, echo, ether::{Ethernet, ether_type}};
/// let (we, them) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
/// let mut frame = [0; 42];
/// let ethernet = Ethernet { destination: MacAddr::BROADCAST, source: them, ether_type: ether_type::ARP.into() };
/// ethernet.store(&mut frame).ok_or("room")?;
/// Arp::request(them, [10, 0, 0, 2], [10, 0, 0, 1]).store(&mut frame[14..]).ok_or("room")?;
/// assert_eq!(echo::asked(&frame), Some([10, 0, 0, 1]));
/// assert!(echo::answer_arp(&mut frame, we));
/// assert_eq!((&frame[..6], &frame[6..12]), (&them.0[..], &we.0[..]));
/// assert!(!echo::answer_arp(&mut frame, we)); // an answer is no question
/// # Ok::<(), &str>(())
/// ```
pub fn answer_arp(frame: &mut [u8], own: MacAddr) -> bool {
    let Some((ether_type::ARP, l3)) = layer3(frame) else { return false };
    let reply = frame.get(l3..).and_then(Arp::load).and_then(|arp| arp.reply(own));
    let Some(()) = reply.and_then(|reply| reply.store(frame.get_mut(l3..)?)) else { return false };
    frame.copy_within(6..12, 0);
    if let Some(source) = frame.get_mut(6..12) {
        source.copy_from_slice(&own.0);
    }
    true
}

/// Turns an ICMP echo request in an unfragmented or first IPv4 packet into its reply; false for any other
/// frame.
///
/// ```
/// assert!(!linecard_net::echo::answer_icmp(&mut [0; 60]));
/// ```
pub fn answer_icmp(frame: &mut [u8]) -> bool {
    let Some((ip, l3, l4)) = ipv4(frame) else { return false };
    let Some(icmp) = frame.get(l4..).and_then(Icmp::load) else { return false };
    let echo = (icmp.kind, icmp.code) == (icmp_kind::ECHO_REQUEST, 0);
    if ip.protocol != protocol::ICMP || ip.is_later_fragment() || !echo {
        return false;
    }
    let mut answer = Ipv4 { source: ip.destination, destination: ip.source, ..ip };
    if ip.destination[0] >> 4 == 0xe {
        // A multicast address cannot be a source: reply from an address next to the sender's.
        let [a, b, c, last] = ip.source;
        answer.source = [a, b, c, last & !3 | if last & 3 == 1 { 2 } else { 1 }];
    }
    // The type changes from 8 to 0 in the high byte, so the complement sum rises by the same amount (RFC
    // 1624).
    let (sum, borrow) = (!icmp.checksum.get()).overflowing_sub(0x0800);
    let sum = U16::new(!sum.wrapping_sub(u16::from(borrow)));
    let reply = Icmp { kind: icmp_kind::ECHO_REPLY, checksum: sum, ..icmp };
    let stored = store_ipv4(frame, l3, l4, answer, answer.source != ip.destination)
        .and_then(|()| reply.store(frame.get_mut(l4..)?));
    if stored.is_some() {
        swap_stations(frame);
    }
    stored.is_some()
}

/// Sends a UDP datagram back to its sender; false for any other frame, for fragments, and for multicast and
/// broadcast. No checksum changes, because the summed fields only exchange places.
///
/// ```
/// assert!(!linecard_net::echo::answer_udp(&mut [0; 60]));
/// ```
pub fn answer_udp(frame: &mut [u8]) -> bool {
    let Some((ip, l3, l4)) = ipv4(frame) else { return false };
    let Some(udp) = frame.get(l4..).and_then(Udp::load) else { return false };
    let many = frame.first().is_some_and(|first| first & 1 != 0) || ip.destination[0] >> 4 >= 0xe;
    if ip.protocol != protocol::UDP || ip.is_fragment() || many {
        return false;
    }
    let answer = Ipv4 { source: ip.destination, destination: ip.source, ..ip };
    let back = Udp { source_port: udp.destination_port, destination_port: udp.source_port, ..udp };
    let stored = store_ipv4(frame, l3, l4, answer, false).and_then(|()| back.store(frame.get_mut(l4..)?));
    if stored.is_some() {
        swap_stations(frame);
    }
    stored.is_some()
}

/// Writes a header; its checksum is recomputed if more changed than the order of the addresses.
fn store_ipv4(frame: &mut [u8], l3: usize, l4: usize, header: Ipv4, changed: bool) -> Option<()> {
    let bytes = frame.get_mut(l3..l4)?;
    if !changed {
        return header.store(bytes);
    }
    Ipv4 { header_checksum: U16::ZERO, ..header }.store(bytes)?;
    let sum = U16::new(checksum(bytes));
    Ipv4 { header_checksum: sum, ..header }.store(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ether::Ethernet;
    use crate::offload::{Verdict, fill_transport, verify_ipv4, verify_transport};
    use crate::parse;

    const WE: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const THEM: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    fn datagram(destination: [u8; 4]) -> Vec<u8> {
        let mut frame = vec![0x5a; 60];
        let ethernet = Ethernet { destination: WE, source: THEM, ether_type: ether_type::IPV4.into() };
        ethernet.store(&mut frame).expect("room");
        Ipv4::new([10, 0, 0, 2], destination, protocol::UDP, 26).store(&mut frame[14..]).expect("room");
        Udp::new(1000, 7, 18).store(&mut frame[34..]).expect("room");
        let layers = parse(&frame);
        fill_transport(&mut frame, &layers).expect("UDP");
        frame
    }

    #[test]
    fn a_datagram_comes_back_intact() {
        let mut frame = datagram([10, 0, 0, 1]);
        assert!(answer_udp(&mut frame));
        let layers = parse(&frame);
        assert_eq!(verify_transport(&frame, &layers), Verdict::Good);
        assert_eq!(verify_ipv4(&frame, &layers), Verdict::Good);
        assert_eq!((&frame[..6], &frame[6..12]), (&THEM.0[..], &WE.0[..]));
        assert_eq!((&frame[26..30], &frame[30..34]), (&[10, 0, 0, 1][..], &[10, 0, 0, 2][..]));
        assert_eq!(frame[34..38], [0, 7, 3, 232]);
    }

    #[test]
    fn what_was_sent_to_many_is_not_answered() {
        for destination in [[224, 0, 0, 1], [255; 4]] {
            let mut frame = datagram(destination);
            let before = frame.clone();
            assert!(!answer_udp(&mut frame));
            assert_eq!(frame, before);
        }
        let mut fragment = datagram([10, 0, 0, 1]);
        fragment[20] = 0x20;
        assert!(!answer_udp(&mut fragment));
    }

    #[test]
    fn only_the_first_fragment_of_an_echo_request_is_one() {
        for (fragment, first) in [
            (0, true),
            (Ipv4::DONT_FRAGMENT, true),
            (Ipv4::MORE_FRAGMENTS, true),
            (1, false),
            (0x3fff, false),
        ] {
            let mut frame = datagram([10, 0, 0, 1]);
            frame[20..22].copy_from_slice(&u16::to_be_bytes(fragment));
            frame[23] = protocol::ICMP;
            frame[34..36].copy_from_slice(&[icmp_kind::ECHO_REQUEST, 0]);
            let before = frame.clone();
            assert_eq!(answer_icmp(&mut frame), first, "{fragment:#x}");
            assert_eq!(frame != before, first, "{fragment:#x}");
        }
    }

    #[test]
    fn no_bytes_panic() {
        let mut state = 7_u32;
        for len in 0..100 {
            for _ in 0..200 {
                let mut frame: Vec<u8> = (0..len)
                    .map(|_| {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        (state >> 24) as u8
                    })
                    .collect();
                if let Some(kind) = frame.get_mut(12..15) {
                    kind.copy_from_slice(&[8, if state & 1 == 0 { 6 } else { 0 }, 0x45]);
                }
                let _ = asked(&frame);
                let _ = answer_arp(&mut frame, WE) || answer_icmp(&mut frame) || answer_udp(&mut frame);
            }
        }
    }
}
