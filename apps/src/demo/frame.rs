//! The demo's frames: valid UDP whose payload contains sender, time, number and a checksum.
//!
//! ```text
//!  0      12     14     34    42      50      58    59      60     64
//!  | MACs | type | IPv4 | UDP | number | time | kind | origin | check | pattern of the number … |
//! ```

use linecard::net::checksum::checksum;

/// Bytes before the pattern, which is the length of the smallest frame.
pub(super) const MIN_LEN: usize = 64;
const PAYLOAD: usize = 42;
const KIND: usize = 58;
const ORIGIN: usize = 59;
const CHECK: usize = 60;
/// MAC addresses are not part of the check, because a switch may rewrite them.
const CHECKED_FROM: usize = 12;

/// The direction of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// From the end that assigned its number.
    Request,
    /// Back to that end.
    Echo,
}

/// The contents of a frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The number of the request, counted by its end from 0.
    pub(super) number: u64,
    /// The sender's clock, in cycles, when the frame was sent.
    pub(super) time: u64,
    pub(super) kind: Kind,
    /// The end that assigned the number.
    pub(super) origin: u8,
}

/// Generates the frames of one end from a template.
pub(super) struct Maker {
    template: Vec<u8>,
    origin: u8,
}

/// Length of the longest generated frame, without FCS: an MTU of 1500.
pub(super) const MAX_LEN: usize = 1514;

impl Maker {
    pub(super) fn new(origin: u8) -> Self {
        let mut template = vec![0; MAX_LEN];
        let (own, peer) = (origin, origin ^ 1);
        template[..12].copy_from_slice(&[2, 0, 0, 0, 1, peer, 2, 0, 0, 0, 1, own]);
        // IPv4, header of 20 bytes, TTL 64, UDP, addresses of the benchmarking range (RFC 2544).
        template[12..16].copy_from_slice(&[0x08, 0x00, 0x45, 0]);
        template[22..24].copy_from_slice(&[64, 17]);
        template[26..34].copy_from_slice(&[198, 18, 0, own + 1, 198, 18, 0, peer + 1]);
        template[34..38].copy_from_slice(&[0, 9, 0, 9]);
        Self { template, origin }
    }

    /// Fills `frame` (at least [`MIN_LEN`] bytes) with request `number`.
    pub(super) fn request(&self, frame: &mut [u8], number: u64, time: u64) {
        let len = frame.len().min(MAX_LEN);
        let Some(frame) = frame.get_mut(..len).filter(|f| f.len() >= MIN_LEN) else { return };
        frame[..MIN_LEN].copy_from_slice(&self.template[..MIN_LEN]);
        let ip_len = (len - 14) as u16;
        frame[16..18].copy_from_slice(&ip_len.to_be_bytes());
        frame[38..40].copy_from_slice(&(ip_len - 20).to_be_bytes());
        let sum = checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame[PAYLOAD..PAYLOAD + 8].copy_from_slice(&number.to_le_bytes());
        frame[PAYLOAD + 8..KIND].copy_from_slice(&time.to_le_bytes());
        frame[KIND] = Kind::Request as u8;
        frame[ORIGIN] = self.origin;
        let mut word = mix(number);
        for chunk in frame[MIN_LEN..].chunks_mut(8) {
            word = mix(word);
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        }
        seal(frame);
    }
}

/// Turns a checked request into its echo.
pub(super) fn make_echo(frame: &mut [u8]) {
    if frame.len() >= MIN_LEN {
        frame[KIND] = Kind::Echo as u8;
        seal(frame);
    }
}

/// Parses a frame; `None` when any byte differs from what was sent.
pub(super) fn check(frame: &[u8]) -> Option<Stamp> {
    let stated = u32::from_le_bytes(*frame.get(CHECK..)?.first_chunk()?);
    if stated != digest(frame)? {
        return None;
    }
    let kind = match frame.get(KIND)? {
        0 => Kind::Request,
        1 => Kind::Echo,
        _ => return None,
    };
    let number = u64::from_le_bytes(*frame.get(PAYLOAD..)?.first_chunk()?);
    let time = u64::from_le_bytes(*frame.get(PAYLOAD + 8..)?.first_chunk()?);
    Some(Stamp { number, time, kind, origin: *frame.get(ORIGIN)? })
}

fn seal(frame: &mut [u8]) {
    if let Some(digest) = digest(frame)
        && let Some(field) = frame.get_mut(CHECK..CHECK + 4)
    {
        field.copy_from_slice(&digest.to_le_bytes());
    }
}

/// The check value; depends on the length and on every byte from the EtherType on, except the check itself.
fn digest(frame: &[u8]) -> Option<u32> {
    let mut hash = frame.len() as u64;
    for part in [frame.get(CHECKED_FROM..CHECK)?, frame.get(MIN_LEN..)?] {
        let (words, rest) = part.as_chunks::<8>();
        for word in words {
            hash = mix(hash ^ u64::from_le_bytes(*word));
        }
        for byte in rest {
            hash = mix(hash ^ u64::from(*byte));
        }
    }
    Some((hash ^ hash >> 32) as u32)
}

/// A bijection that spreads each input bit over the word: `linecard::eal::random::mix` without its last step.
/// It runs for every eight bytes of every frame; [`digest`] folds the result once at the end.
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(len: usize, number: u64) -> Vec<u8> {
        let mut frame = vec![0xaa; len];
        Maker::new(1).request(&mut frame, number, 77);
        frame
    }

    #[test]
    fn a_frame_says_who_sent_it() {
        let mut frame = request(64, 5);
        let want = Stamp { number: 5, time: 77, kind: Kind::Request, origin: 1 };
        assert_eq!(check(&frame), Some(want));
        make_echo(&mut frame);
        assert_eq!(check(&frame), Some(Stamp { kind: Kind::Echo, ..want }));
        assert_eq!(checksum(&frame[14..34]), 0);
    }

    #[test]
    fn other_addresses_do_not_matter() {
        let mut frame = request(100, 5);
        frame[..12].fill(9);
        assert!(check(&frame).is_some());
    }

    #[test]
    fn short_or_long_frames_are_survived() {
        for len in [0, 13, 60, 63] {
            assert_eq!(check(&vec![0; len]), None);
            request(len, 1);
        }
        assert_eq!(check(&request(MAX_LEN, 9)).map(|s| s.number), Some(9));
    }

    proptest! {
        #[test]
        fn any_changed_bit_is_noticed(len in MIN_LEN..=MAX_LEN, number: u64, at: prop::sample::Index, bit in 0..8) {
            let mut frame = request(len, number);
            prop_assert_eq!(check(&frame).map(|s| s.number), Some(number));
            let at = CHECKED_FROM + at.index(len - CHECKED_FROM);
            frame[at] ^= 1_u8 << bit;
            prop_assert_eq!(check(&frame), None);
        }

        #[test]
        fn a_truncated_frame_is_noticed(len in MIN_LEN + 1..=MAX_LEN, number: u64) {
            let frame = request(len, number);
            prop_assert_eq!(check(&frame[..len - 1]), None);
        }
    }
}
