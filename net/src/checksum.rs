//! The Internet checksum (RFC 1071), its incremental update (RFC 1624) and pseudo-headers.
//!
//! Sums are kept in the machine's byte order and 64 bits wide: a ones' complement sum does not depend on byte
//! order until the end (RFC 1071, section 2 B), and 32-bit words added into 64 bits need no carries for 16
//! GiB, which allows vectorization.

/// A partial ones' complement sum of bytes in any number of pieces of any length, in order.
///
/// ```
/// use linecard_net::checksum::{Sum, checksum};
/// let bytes = *b"in three pieces, odd ones too";
/// let pieces = Sum::ZERO.add_bytes(&bytes[..3]).add_bytes(&bytes[3..10]).add_bytes(&bytes[10..]);
/// assert_eq!(pieces.checksum(), checksum(&bytes));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Sum {
    /// Sum of words in machine order, below 2^33 between calls.
    words: u64,
    /// Whether an odd number of bytes was added: the next byte is the low half of a word on the wire.
    odd: bool,
}

impl Sum {
    /// The empty sum.
    pub const ZERO: Self = Self { words: 0, odd: false };

    /// Adds `bytes` behind the bytes added before.
    #[inline]
    #[must_use]
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        let piece = sum(bytes);
        // A piece that starts at an odd byte has its halves swapped (RFC 1071, section 2 B).
        let piece = if self.odd { u64::from(fold(piece).swap_bytes()) } else { piece };
        Self { words: narrow(self.words + piece), odd: self.odd ^ (bytes.len() % 2 == 1) }
    }

    /// Adds one 16-bit field, given as a number; only at even offsets.
    #[inline]
    #[must_use]
    pub const fn add_word(self, word: u16) -> Self {
        Self { words: narrow(self.words + word.to_be() as u64), odd: self.odd }
    }

    /// Subtracts a 16-bit field; only at even offsets.
    #[inline]
    #[must_use]
    pub const fn sub_word(self, word: u16) -> Self {
        self.add_word(!word)
    }

    /// The 16-bit sum, not complemented: the content of the checksum field of a frame whose checksum is
    /// completed later.
    #[inline]
    #[must_use]
    pub const fn fold(self) -> u16 {
        u16::from_be(fold(self.words))
    }

    /// The checksum: the complement of the sum.
    #[inline]
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }

    /// The checksum as UDP sends it, where 0 means "none" (RFC 768); TCP may use it too, since
    /// 0 and 0xffff are the same number in ones' complement.
    #[inline]
    #[must_use]
    pub const fn checksum_nonzero(self) -> u16 {
        match self.checksum() {
            0 => 0xffff,
            checksum => checksum,
        }
    }
}

impl Default for Sum {
    fn default() -> Self {
        Self::ZERO
    }
}

/// Brings a sum below 2^33 without changing its value in ones' complement.
#[inline]
const fn narrow(words: u64) -> u64 {
    (words & 0xffff_ffff) + (words >> 32)
}

/// Folds a sum to 16 bits, machine order.
#[inline]
const fn fold(words: u64) -> u16 {
    let words = narrow(narrow(words));
    let words = (words & 0xffff) + (words >> 16);
    let words = (words & 0xffff) + (words >> 16);
    ((words & 0xffff) + (words >> 16)) as u16
}

/// Sum of `bytes` in machine order, narrowed.
#[inline]
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let total: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    // Written out, because a copy of up to three bytes would be a function call.
    let last = match *rest {
        [a] => [a, 0, 0, 0],
        [a, b] => [a, b, 0, 0],
        [a, b, c] => [a, b, c, 0],
        _ => [0; 4],
    };
    narrow(total + u64::from(u32::from_ne_bytes(last)))
}

/// The Internet checksum of `bytes`; 0 if `bytes` contains a correct checksum.
///
/// ```
/// // RFC 1071, section 3.
/// let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
/// assert_eq!(linecard_net::checksum::checksum(&bytes), !0xddf2);
/// ```
#[inline]
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    Sum::ZERO.add_bytes(bytes).checksum()
}

/// The checksum after one 16-bit field changed from `old` to `new` (RFC 1624, equation 3).
///
/// ```
/// use linecard_net::checksum::update;
/// assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000); // RFC 1624, section 4
/// ```
#[inline]
#[must_use]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = !checksum as u32 + !old as u32 + new as u32;
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// The checksum after a 32-bit field, such as an IPv4 address, changed from `old` to `new`.
///
/// ```
/// use linecard_net::{Header, checksum::update_u32, ip::Ipv4};
/// let mut ip = Ipv4::new([10, 0, 0, 1], [10, 0, 0, 2], 17, 0);
/// let (old, new) = (u32::from_be_bytes(ip.source), u32::from_be_bytes([192, 168, 7, 7]));
/// ip.header_checksum.set(update_u32(ip.header_checksum.get(), old, new));
/// ip.source = new.to_be_bytes();
/// assert!(ip.is_checksum_good());
/// ```
#[inline]
#[must_use]
pub const fn update_u32(checksum: u16, old: u32, new: u32) -> u16 {
    let high = update(checksum, (old >> 16) as u16, (new >> 16) as u16);
    update(high, old as u16, new as u16)
}

/// Sum of the IPv4 pseudo-header (RFC 9293, section 3.1): addresses, protocol, transport length.
#[inline]
#[must_use]
pub fn pseudo_header_v4(source: [u8; 4], destination: [u8; 4], protocol: u8, len: u16) -> Sum {
    Sum::ZERO.add_bytes(&source).add_bytes(&destination).add_word(u16::from(protocol)).add_word(len)
}

/// Sum of the IPv6 pseudo-header (RFC 8200, section 8.1).
#[inline]
#[must_use]
pub fn pseudo_header_v6(source: &[u8; 16], destination: &[u8; 16], protocol: u8, len: u32) -> Sum {
    Sum::ZERO
        .add_bytes(source)
        .add_bytes(destination)
        .add_word(u16::from(protocol))
        .add_bytes(&len.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071's definition, word by word.
    fn plain(bytes: &[u8]) -> u16 {
        let mut sum: u32 = 0;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    /// 0 and 0xffff are one number; a sum is never +0 unless every word was 0.
    fn same(a: u16, b: u16) -> bool {
        a == b || (a == 0 || a == 0xffff) && (b == 0 || b == 0xffff)
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(checksum(&bytes), plain(&bytes));
        }

        #[test]
        fn pieces_equal_the_whole(bytes in prop::collection::vec(any::<u8>(), 0..300), cuts: [u16; 4]) {
            let mut cuts = cuts.map(|cut| usize::from(cut) % (bytes.len() + 1));
            cuts.sort_unstable();
            let (mut sum, mut from) = (Sum::ZERO, 0);
            for to in cuts.into_iter().chain([bytes.len()]) {
                sum = sum.add_bytes(&bytes[from..to]);
                from = to;
            }
            prop_assert_eq!(sum.checksum(), plain(&bytes));
        }

        #[test]
        fn update_equals_a_new_sum(mut bytes in prop::collection::vec(any::<u8>(), 2..64), at: u16, new: u16) {
            let at = usize::from(at) % (bytes.len() / 2) * 2;
            let (before, old) = (checksum(&bytes), u16::from_be_bytes([bytes[at], bytes[at + 1]]));
            bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
            prop_assert!(same(update(before, old, new), checksum(&bytes)));
            prop_assert!(same(Sum::ZERO.add_bytes(&bytes).sub_word(new).add_word(old).checksum(), before));
        }

        #[test]
        fn folds_any_sum(words: u64) {
            prop_assert_eq!(u64::from(fold(words)) % 0xffff, words % 0xffff);
        }
    }

    #[test]
    fn a_large_block_of_ones_does_not_overflow() {
        assert_eq!(checksum(&vec![0xff; 1 << 20]), 0);
        assert_eq!(Sum::ZERO.add_bytes(&vec![0xff; 65535]).add_bytes(&vec![0xff; 65535]).checksum(), 0);
    }

    #[test]
    fn udp_never_sends_zero() {
        assert_eq!(Sum::ZERO.add_bytes(&[0xff, 0xff]).checksum_nonzero(), 0xffff);
        assert_eq!(Sum::ZERO.add_bytes(&[0xff, 0xfe]).checksum_nonzero(), 1);
    }
}
