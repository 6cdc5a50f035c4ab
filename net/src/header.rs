//! Mapping of header layouts to bytes.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A fixed-size header: any bytes are a valid value, and it may start at any address.
///
/// `view` and `view_mut` borrow the bytes; `load` copies them once. Use `load` to make decisions about bytes
/// that another process may still write.
///
/// ```
/// use linecard_net::{Header, transport::Udp};
/// let bytes = [0x00, 0x35, 0x30, 0x39, 0x00, 0x08, 0x00, 0x00];
/// let udp = Udp::load(&bytes).expect("eight bytes");
/// assert_eq!((udp.source_port.get(), udp.length.get()), (53, 8));
/// assert!(Udp::load(&bytes[..7]).is_none());
/// ```
pub trait Header: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned + Copy {
    /// The length of the fixed part in bytes.
    const LEN: usize = size_of::<Self>();

    /// Copies the header at the front of `bytes`; `None` if `bytes` is too short.
    #[inline]
    #[must_use]
    fn load(bytes: &[u8]) -> Option<Self> {
        Self::read_from_prefix(bytes).ok().map(|(header, _)| header)
    }

    /// Returns the header at the front of `bytes`, and the bytes behind; `None` if `bytes` is too short.
    #[inline]
    #[must_use]
    fn view(bytes: &[u8]) -> Option<(&Self, &[u8])> {
        Self::ref_from_prefix(bytes).ok()
    }

    /// As [`view`](Self::view), but writable.
    #[inline]
    #[must_use]
    fn view_mut(bytes: &mut [u8]) -> Option<(&mut Self, &mut [u8])> {
        Self::mut_from_prefix(bytes).ok()
    }

    /// Writes the header to the front of `bytes`; `None`, with nothing written, if it does not fit.
    #[inline]
    #[must_use]
    fn store(&self, bytes: &mut [u8]) -> Option<()> {
        self.write_to_prefix(bytes).ok()
    }
}
