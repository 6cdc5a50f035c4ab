//! The parts of a frame that decide its path: addresses, EtherType, VLAN tag.

/// EtherType of an 802.1Q tag.
pub(crate) const TAG: u16 = 0x8100;

/// The header of a frame, read once.
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
    /// Bytes 0 to 7: the destination and the first two bytes of the source.
    first: u64,
    /// Bytes 8 to 15: the rest of the source, the EtherType, and the rest of the tag if there is one.
    second: u64,
}

impl Head {
    /// Reads the header; returns `None` if the frame has no whole Ethernet header, or no whole tag.
    #[inline(always)]
    #[must_use]
    pub fn of(frame: &[u8]) -> Option<Self> {
        let Some(bytes) = frame.first_chunk::<16>() else { return Self::of_short(frame) };
        let [first, second] = [0, 8].map(|at| {
            let word: [u8; 8] = std::array::from_fn(|i| bytes[at + i]);
            u64::from_be_bytes(word)
        });
        // Bytes 14 and 15 count only if they belong to a tag.
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

    /// Returns the destination address, as 48 bits.
    #[inline(always)]
    #[must_use]
    pub const fn destination(self) -> u64 {
        self.first >> 16
    }

    /// Returns the source address, as 48 bits.
    #[inline(always)]
    #[must_use]
    pub const fn source(self) -> u64 {
        (self.first & 0xffff) << 32 | self.second >> 32
    }

    /// Returns whether the destination is a group address; broadcast is one.
    #[inline(always)]
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.first >> 56 & 1 != 0
    }

    /// Returns whether the source can be the address of a station.
    #[inline(always)]
    #[must_use]
    pub const fn has_station(self) -> bool {
        let source = self.source();
        source >> 40 & 1 == 0 && source != 0
    }

    /// Returns whether the destination is a reserved group address that bridges do not forward (IEEE 802.1Q,
    /// Reserved addresses).
    #[inline(always)]
    #[must_use]
    pub const fn is_for_the_link(self) -> bool {
        self.destination() >> 4 == 0x0018_0c20_0000
    }

    /// Returns the VLAN ID of the tag.
    #[inline(always)]
    #[must_use]
    pub const fn tag(self) -> Option<u16> {
        match self.tci() {
            Some(tci) => Some(tci & 0xfff),
            None => None,
        }
    }

    /// The whole tag control information (TCI).
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
