//! The tester's frames: valid UDP with a number, a time and a checksum.
//!
//! ```text
//!  0      12     14     34    42      46       54     62
//!  | MACs | type | IPv4 | UDP | check | number | time | pattern …
//! ```
//!
//! The checksum is a sum of words, each multiplied by a different key, so that the multiplications are
//! independent of each other. The part that all frames of a length share is summed only once.

/// The length of the shortest frame with all fields.
pub(crate) const MIN_LEN: usize = 64;
const CHECK: usize = 42;
const NUMBER: usize = 46;
const TIME: usize = 54;
/// The offset of the first word. The addresses before it are not part of the checksum, because forwarding may
/// change them.
const WORDS: usize = 16;
const KEY: u64 = 0x9e37_79b9_7f4a_7c15;
/// Indices, counted from [`WORDS`], of words with more than the pattern.
const CHECK_WORD: u64 = 3;
const NUMBER_WORD: u64 = 4;
const TIME_WORD: u64 = 5;
/// The bits of the checksum itself in the word at offset 40.
const CHECK_BITS: u64 = 0x0000_ffff_ffff_0000;

/// The contents of a frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) number: u64,
    /// The sender's clock, in cycles, when the frame was generated.
    pub(crate) time: u64,
}

/// Frames of one length.
pub(crate) struct Template {
    bytes: Vec<u8>,
    /// The sum over the constant parts.
    sum: u64,
}

impl Template {
    /// Creates frames of `len` bytes, at least [`MIN_LEN`] and at most 65535.
    pub(crate) fn new(len: u16) -> Self {
        let len = usize::from(len).max(MIN_LEN);
        let mut bytes = vec![0; len];
        bytes[..12].copy_from_slice(&[2, 0, 0, 0, 2, 2, 2, 0, 0, 0, 2, 1]);
        // IPv4, header of 20 bytes, TTL 64, UDP, addresses of the benchmarking range (RFC 2544).
        bytes[12..16].copy_from_slice(&[0x08, 0x00, 0x45, 0]);
        bytes[22..24].copy_from_slice(&[64, 17]);
        bytes[26..34].copy_from_slice(&[198, 18, 0, 1, 198, 18, 0, 2]);
        bytes[34..38].copy_from_slice(&[0, 9, 0, 9]);
        let ip_len = u16::try_from(len - 14).unwrap_or(u16::MAX);
        bytes[16..18].copy_from_slice(&ip_len.to_be_bytes());
        bytes[38..40].copy_from_slice(&(ip_len - 20).to_be_bytes());
        let header = linecard::net::checksum::checksum(&bytes[14..34]);
        bytes[24..26].copy_from_slice(&header.to_be_bytes());
        for (at, byte) in bytes.iter_mut().enumerate().skip(62) {
            *byte = (at % 251) as u8;
        }
        let sum = sum(&bytes);
        Self { bytes, sum }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Writes a frame; `frame` must be as long as the template.
    #[inline]
    pub(crate) fn fill(&self, frame: &mut [u8], stamp: Stamp) {
        frame.copy_from_slice(&self.bytes);
        let Stamp { number, time } = stamp;
        let sum = self
            .sum
            .wrapping_add((number << 48).wrapping_mul(key(CHECK_WORD)))
            .wrapping_add((number >> 16 | time << 48).wrapping_mul(key(NUMBER_WORD)))
            .wrapping_add((time >> 16).wrapping_mul(key(TIME_WORD)));
        if let Some(head) = frame.first_chunk_mut::<MIN_LEN>() {
            head[CHECK..NUMBER].copy_from_slice(&fold(sum).to_le_bytes());
            head[NUMBER..TIME].copy_from_slice(&number.to_le_bytes());
            head[TIME..62].copy_from_slice(&time.to_le_bytes());
        }
    }
}

/// Parses a frame; `None` if any byte from the EtherType on differs from the original.
#[inline]
pub(crate) fn check(frame: &[u8]) -> Option<Stamp> {
    let head: &[u8; MIN_LEN] = frame.first_chunk()?;
    let stated = u32::from_le_bytes(*head[CHECK..].first_chunk()?);
    let stamp = Stamp {
        number: u64::from_le_bytes(*head[NUMBER..].first_chunk()?),
        time: u64::from_le_bytes(*head[TIME..].first_chunk()?),
    };
    (stated == fold(sum(frame))).then_some(stamp)
}

const fn key(word: u64) -> u64 {
    KEY.wrapping_mul(2 * word + 1)
}

/// Returns the sum of a frame of at least [`MIN_LEN`] bytes, without its check.
#[inline]
fn sum(frame: &[u8]) -> u64 {
    let (Some(kind), Some(rest)) = (frame.get(12..WORDS), frame.get(WORDS..)) else { return 0 };
    let kind = kind.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let mut sum = (frame.len() as u64 | u64::from(kind) << 32).wrapping_mul(KEY ^ 0x5555_5555_5555_5554);
    let (words, tail) = rest.as_chunks::<8>();
    let mut key = KEY;
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let word = if at as u64 == CHECK_WORD { word & !CHECK_BITS } else { word };
        sum = sum.wrapping_add(word.wrapping_mul(key));
        key = key.wrapping_add(KEY.wrapping_mul(2));
    }
    let last = tail.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    sum.wrapping_add(u64::wrapping_mul(last, key))
}

fn fold(sum: u64) -> u32 {
    ((sum ^ sum >> 32).wrapping_mul(KEY) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(len: u16, stamp: Stamp) -> Vec<u8> {
        let template = Template::new(len);
        let mut frame = vec![0xaa; template.len()];
        template.fill(&mut frame, stamp);
        frame
    }

    #[test]
    fn short_frames_are_no_frames() {
        for len in [0, 13, 42, 63] {
            assert_eq!(check(&vec![0; len]), None);
        }
        assert_eq!(frame(60, Stamp { number: 1, time: 2 }).len(), MIN_LEN);
    }

    proptest! {
        #[test]
        fn a_frame_is_read_as_it_was_made(len in 64..=9000_u16, number: u64, time: u64) {
            let stamp = Stamp { number, time };
            let mut frame = frame(len, stamp);
            prop_assert_eq!(check(&frame), Some(stamp));
            frame[..12].fill(9);
            prop_assert_eq!(check(&frame), Some(stamp), "other addresses do not matter");
        }

        #[test]
        fn any_changed_bit_is_noticed(len in 64..=2000_u16, number: u64, time: u64, at: prop::sample::Index, bit in 0..8) {
            let mut frame = frame(len, Stamp { number, time });
            let at = 12 + at.index(usize::from(len) - 12);
            frame[at] ^= 1_u8 << bit;
            prop_assert_eq!(check(&frame), None);
        }

        #[test]
        fn a_truncated_or_longer_frame_is_noticed(len in 65..=2000_u16, number: u64) {
            let mut frame = frame(len, Stamp { number, time: 5 });
            prop_assert_eq!(check(&frame[..usize::from(len) - 1]), None);
            frame.push(0);
            prop_assert_eq!(check(&frame), None);
        }
    }
}
