//! How a header layout is laid over bytes.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A fixed-size header: any bytes are a valid value, and it may start at any address.
///
/// `view` and `view_mut` lend the bytes; `load` copies them out once, which is the way to decide
/// anything about bytes that somebody else may still write.
///
/// ```
/// use linecard_net::{Header, transport::Udp};
/// let bytes = [0x00, 0x35, 0x30, 0x39, 0x00, 0x08, 0x00, 0x00];
/// let udp = Udp::load(&bytes).expect("eight bytes");
/// assert_eq!((udp.source_port.get(), udp.length.get()), (53, 8));
/// assert!(Udp::load(&bytes[..7]).is_none());
/// ```
pub trait Header: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned + Copy {
    /// Bytes of the fixed part.
    const LEN: usize = size_of::<Self>();

    /// The header at the front of `bytes`, copied; `None` when `bytes` is too short.
    #[inline]
    #[must_use]
    fn load(bytes: &[u8]) -> Option<Self> {
        Self::read_from_prefix(bytes).ok().map(|(header, _)| header)
    }

    /// The header at the front of `bytes`, and what follows; `None` when `bytes` is too short.
    #[inline]
    #[must_use]
    fn view(bytes: &[u8]) -> Option<(&Self, &[u8])> {
        Self::ref_from_prefix(bytes).ok()
    }

    /// As [`view`](Self::view), to be written to.
    #[inline]
    #[must_use]
    fn view_mut(bytes: &mut [u8]) -> Option<(&mut Self, &mut [u8])> {
        Self::mut_from_prefix(bytes).ok()
    }

    /// Writes the header to the front of `bytes`; `None`, and nothing written, when it does not fit.
    #[inline]
    #[must_use]
    fn store(&self, bytes: &mut [u8]) -> Option<()> {
        self.write_to_prefix(bytes).ok()
    }
}
