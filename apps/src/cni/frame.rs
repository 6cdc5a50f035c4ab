//! UDP datagrams to the echo port, whose payload shows whether they came back unchanged.
//!
//! ```text
//!  0      14     34    42       50      58 …
//!  | MACs | IPv4 | UDP | number | check | pattern of the number |
//! ```

use linecard::eal::random::mix;
use linecard::net::Header;
use linecard::net::checksum::checksum;
use linecard::net::ip::protocol;
use linecard::net::transport::{Icmp, icmp_kind};

/// The minimum length of a frame, in bytes: all of the headers, and some of the pattern.
pub(super) const SHORTEST: usize = 60;
/// The maximum length of a frame without FCS, in bytes: an MTU of 1500.
pub(super) const LONGEST: usize = 1514;
const IP: usize = 14;
const UDP: usize = 34;
const NUMBER: usize = 42;
const CHECK: usize = 50;
const PATTERN: usize = 58;
/// UDP echo (RFC 862).
const ECHO: u16 = 7;
const OWN: u16 = 40_007;

/// The addresses of both ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub(super) own_mac: [u8; 6],
    pub(super) own_ip: [u8; 4],
    pub(super) peer_mac: [u8; 6],
    pub(super) peer_ip: [u8; 4],
}

/// Fills `frame` of [`SHORTEST`] to [`LONGEST`] bytes with datagram number `number`.
pub(super) fn make(frame: &mut [u8], flow: &Flow, number: u64) {
    let len = frame.len();
    if !(SHORTEST..=LONGEST).contains(&len) {
        return;
    }
    frame[..6].copy_from_slice(&flow.peer_mac);
    frame[6..12].copy_from_slice(&flow.own_mac);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    // Lengths fit: a frame has at most LONGEST bytes.
    let ip_len = (len - IP) as u16;
    frame[IP..IP + 12].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0]);
    frame[IP + 2..IP + 4].copy_from_slice(&ip_len.to_be_bytes());
    frame[IP + 12..IP + 16].copy_from_slice(&flow.own_ip);
    frame[IP + 16..UDP].copy_from_slice(&flow.peer_ip);
    let sum = checksum(&frame[IP..UDP]);
    frame[IP + 10..IP + 12].copy_from_slice(&sum.to_be_bytes());
    frame[UDP..UDP + 2].copy_from_slice(&OWN.to_be_bytes());
    frame[UDP + 2..UDP + 4].copy_from_slice(&ECHO.to_be_bytes());
    frame[UDP + 4..UDP + 6].copy_from_slice(&(ip_len - 20).to_be_bytes());
    // No UDP checksum: the payload has a stronger one.
    frame[UDP + 6..NUMBER].fill(0);
    frame[NUMBER..CHECK].copy_from_slice(&number.to_le_bytes());
    let mut word = mix(number);
    for chunk in frame[PATTERN..].chunks_mut(8) {
        word = mix(word);
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
    }
    let check = digest(&frame[PATTERN..], number);
    frame[CHECK..PATTERN].copy_from_slice(&check.to_le_bytes());
}

/// The kind of a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// An answer to our datagram with this number, unchanged.
    Back(u64),
    /// An answer to one of our datagrams, but changed.
    Corrupted,
    /// Any other frame.
    Other,
}

/// Checks whether `frame` is an answer to one of our datagrams.
pub(super) fn check(frame: &[u8], flow: &Flow) -> Came {
    let from_peer = frame.get(12..14) == Some(&[0x08, 0x00][..])
        && frame.get(IP + 12..IP + 16) == Some(&flow.peer_ip[..])
        && frame.get(UDP..UDP + 2) == Some(&ECHO.to_be_bytes()[..])
        && frame.get(UDP + 2..UDP + 4) == Some(&OWN.to_be_bytes()[..]);
    if !from_peer {
        return Came::Other;
    }
    let whole = || {
        let number = u64::from_le_bytes(*frame.get(NUMBER..)?.first_chunk()?);
        let check = u64::from_le_bytes(*frame.get(CHECK..)?.first_chunk()?);
        let length = u16::from_be_bytes(*frame.get(IP + 2..)?.first_chunk()?);
        // A frame that was padded is longer than its packet.
        let pattern = frame.get(PATTERN..IP + usize::from(length))?;
        (digest(pattern, number) == check).then_some(number)
    };
    whole().map_or(Came::Corrupted, Came::Back)
}

/// Fills `frame` of at least [`SHORTEST`] bytes with the ICMP echo request `number` (RFC 792).
pub(super) fn make_echo(frame: &mut [u8], flow: &Flow, number: u16) {
    make(frame, flow, number.into());
    if frame.len() < SHORTEST {
        return;
    }
    frame[IP + 9] = protocol::ICMP;
    frame[IP + 10..IP + 12].fill(0);
    let sum = checksum(&frame[IP..UDP]);
    frame[IP + 10..IP + 12].copy_from_slice(&sum.to_be_bytes());
    let icmp = Icmp {
        kind: icmp_kind::ECHO_REQUEST,
        code: 0,
        checksum: 0.into(),
        identifier: OWN.into(),
        sequence_number: number.into(),
    };
    let _ = icmp.store(&mut frame[UDP..]);
    let sum = checksum(&frame[UDP..]);
    frame[UDP + 2..UDP + 4].copy_from_slice(&sum.to_be_bytes());
}

/// Returns the number of the echo request that `frame` answers.
pub(super) fn read_echo(frame: &[u8], flow: &Flow) -> Option<u16> {
    let ours = frame.get(IP + 9) == Some(&protocol::ICMP)
        && frame.get(IP + 12..UDP)? == [flow.peer_ip, flow.own_ip].concat()
        && checksum(frame.get(UDP..SHORTEST)?) == 0;
    let icmp = Icmp::load(frame.get(UDP..)?)?;
    let answer = icmp.kind == icmp_kind::ECHO_REPLY && icmp.identifier.get() == OWN;
    (ours && answer).then_some(icmp.sequence_number.get())
}

/// A digest of the number, the pattern and its length (FNV-1a).
fn digest(pattern: &[u8], number: u64) -> u64 {
    let bytes = number.to_le_bytes();
    let all = bytes.iter().chain(pattern);
    let hash = all.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash ^ pattern.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use linecard::net::echo::answer_udp;

    const FLOW: Flow = Flow {
        own_mac: [2, 0, 0, 0, 0, 1],
        own_ip: [10, 0, 0, 1],
        peer_mac: [2, 0, 0, 0, 0, 2],
        peer_ip: [10, 0, 0, 2],
    };

    #[test]
    fn an_answer_is_known_and_a_changed_one_too() {
        for len in [SHORTEST, 64, 1000, LONGEST] {
            let mut frame = vec![0; len];
            make(&mut frame, &FLOW, 7);
            assert_eq!(check(&frame, &FLOW), Came::Other, "a question is no answer");
            assert!(answer_udp(&mut frame));
            assert_eq!(check(&frame, &FLOW), Came::Back(7));
            for at in [NUMBER, CHECK, PATTERN, len - 1] {
                let mut changed = frame.clone();
                changed[at] ^= 1;
                assert_eq!(check(&changed, &FLOW), Came::Corrupted, "byte {at} of {len}");
            }
            assert_eq!(check(&frame[..len - 1], &FLOW), Came::Corrupted);
            frame.resize(len + 4, 0);
            assert_eq!(check(&frame, &FLOW), Came::Back(7), "padding does no harm");
        }
        assert_eq!(check(&[], &FLOW), Came::Other);
    }

    #[test]
    fn an_echo_is_known_and_nothing_else() {
        let mut frame = [0; SHORTEST];
        make_echo(&mut frame, &FLOW, 300);
        assert_eq!(read_echo(&frame, &FLOW), None, "a question is no answer");
        assert!(linecard::net::echo::answer_icmp(&mut frame));
        assert_eq!(read_echo(&frame, &FLOW), Some(300));
        frame[SHORTEST - 1] ^= 1;
        assert_eq!(read_echo(&frame, &FLOW), None, "a changed byte");
        assert_eq!(read_echo(&frame[..40], &FLOW), None);
    }
}
