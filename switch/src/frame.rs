//! What of a frame decides its way: addresses, type, VLAN tag.

/// EtherType of an 802.1Q tag.
pub(crate) const TAG: u16 = 0x8100;

/// The first bytes of a frame, read once.
///
/// ```
/// use linecard_switch::frame::Head;
/// let mut frame = [0; 64];
/// frame[..14].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x81, 0]);
/// frame[15] = 10;
/// let head = Head::of(&frame).ok_or("too short")?;
/// assert_eq!((head.source(), head.is_group(), head.tag()), (0x0200_0000_0001, true, Some(10)));
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes 0 to 7: the destination, the first of the source.
    first: u64,
    /// Bytes 8 to 15: the rest of the source, the type, and the tag where there is one.
    second: u64,
}

impl Head {
    /// `None` when there is no whole Ethernet header, or no whole tag.
    #[inline(always)]
    #[must_use]
    pub fn of(frame: &[u8]) -> Option<Self> {
        let Some(bytes) = frame.first_chunk::<16>() else { return Self::of_short(frame) };
        let [first, second] = [0, 8].map(|at| {
            let word: [u8; 8] = std::array::from_fn(|i| bytes[at + i]);
            u64::from_be_bytes(word)
        });
        // Only a tag belongs to what decides.
        let second = if (second >> 16) as u16 == TAG { second } else { second & !0xffff };
        Some(Self { first, second })
    }

    #[cold]
    fn of_short(frame: &[u8]) -> Option<Self> {
        let mut whole = [0; 16];
        whole.get_mut(..frame.len())?.copy_from_slice(frame);
        let head = Self::of(&whole)?;
        (frame.len() >= 14 && head.tci().is_none()).then_some(head)
    }

    /// The destination, 48 bits.
    #[inline(always)]
    #[must_use]
    pub const fn destination(self) -> u64 {
        self.first >> 16
    }

    /// The source, 48 bits.
    #[inline(always)]
    #[must_use]
    pub const fn source(self) -> u64 {
        (self.first & 0xffff) << 32 | self.second >> 32
    }

    /// Whether it is to a group, all stations among them.
    #[inline(always)]
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.first >> 56 & 1 != 0
    }

    /// Whether its source can be a station's.
    #[inline(always)]
    #[must_use]
    pub const fn has_station(self) -> bool {
        let source = self.source();
        source >> 40 & 1 == 0 && source != 0
    }

    /// Whether it is to a group that bridges keep to the link (IEEE 802.1Q, Reserved addresses).
    #[inline(always)]
    #[must_use]
    pub const fn is_for_the_link(self) -> bool {
        self.destination() >> 4 == 0x0018_0c20_0000
    }

    /// The VLAN of its tag.
    #[inline(always)]
    #[must_use]
    pub const fn tag(self) -> Option<u16> {
        match self.tci() {
            Some(tci) => Some(tci & 0xfff),
            None => None,
        }
    }

    /// All of its tag.
    const fn tci(self) -> Option<u16> {
        if (self.second >> 16) as u16 == TAG { Some(self.second as u16) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(destination: [u8; 6], source: [u8; 6], rest: &[u8]) -> Vec<u8> {
        [&destination[..], &source, rest].concat()
    }

    #[test]
    fn a_header_is_read_from_any_length() {
        let whole = frame([0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11], &[8, 0, 0x45, 7, 1, 2]);
        for len in 0..=whole.len() {
            let head = Head::of(&whole[..len]);
            assert_eq!(head.is_some(), len >= 14, "{len}");
            if let Some(head) = head {
                assert_eq!(head, Head::of(&whole).expect("it is whole"), "what follows is not looked at");
                assert_eq!((head.destination(), head.source()), (0x0001_0203_0405, 0x0607_0809_0a0b));
                assert!(!head.is_group() && head.has_station() && head.tag().is_none());
            }
        }
    }

    #[test]
    fn a_tag_is_whole_or_the_frame_is_not() {
        let whole = frame([0xff; 6], [2, 0, 0, 0, 0, 1], &[0x81, 0, 0xaf, 0xfe, 8, 0]);
        assert_eq!(Head::of(&whole[..15]), None);
        assert_eq!(Head::of(&whole[..16]).and_then(Head::tag), Some(0xffe));
    }

    #[test]
    fn addresses_that_no_station_has() {
        let has = |source| Head::of(&frame([2; 6], source, &[8, 0])).expect("whole").has_station();
        assert!(!has([0; 6]) && !has([0xff; 6]) && !has([1, 0, 0, 0, 0, 0]) && has([0, 0, 0, 0, 0, 1]));
        let link = |last| {
            let to = [1, 0x80, 0xc2, 0, 0, last];
            Head::of(&frame(to, [2; 6], &[8, 0])).expect("whole").is_for_the_link()
        };
        assert!(link(0) && link(14) && !link(0x10));
    }
}
