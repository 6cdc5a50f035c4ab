//! The 48-bit address of an Ethernet station (IEEE 802).

use std::fmt;
use std::str::FromStr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// An Ethernet address in wire order.
///
/// Displayed in DPDK's format; parsed with `:` or `-` between two-digit groups.
///
/// ```
/// use linecard_net::MacAddr;
/// let mac: MacAddr = "02:00:00:00:00:a1".parse()?;
/// assert!(mac.is_unicast() && mac.is_local());
/// assert_eq!(mac.to_string(), "02:00:00:00:00:A1");
/// assert!("02:00:00:00:00".parse::<MacAddr>().is_err());
/// # Ok::<(), linecard_net::mac::ParseMacError>(())
/// ```
#[derive(
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[repr(transparent)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The broadcast address.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// The zero address.
    pub const ZERO: Self = Self([0; 6]);

    /// A locally administered unicast address with the lowest 40 bits of `seed`.
    #[must_use]
    pub const fn local(seed: u64) -> Self {
        let b = seed.to_be_bytes();
        Self([0x02, b[3], b[4], b[5], b[6], b[7]])
    }

    /// Whether this is a multicast or broadcast address: the lowest bit of the first octet is set.
    #[inline]
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether every bit is set.
    #[inline]
    #[must_use]
    pub fn is_broadcast(self) -> bool {
        self == Self::BROADCAST
    }

    /// Whether every bit is clear.
    #[inline]
    #[must_use]
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }

    /// Whether this is a unicast address: neither multicast nor zero.
    #[inline]
    #[must_use]
    pub fn is_unicast(self) -> bool {
        !self.is_multicast() && !self.is_zero()
    }

    /// Whether the address is locally administered: the second lowest bit of the first octet is set.
    #[inline]
    #[must_use]
    pub const fn is_local(self) -> bool {
        self.0[0] & 2 != 0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02X}:{b:02X}:{c:02X}:{d:02X}:{e:02X}:{g:02X}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not an Ethernet address.
///
/// ```
/// let error = "zz".parse::<linecard_net::MacAddr>().unwrap_err();
/// assert_eq!(error.to_string(), "'zz' is no Ethernet address; write six hexadecimal pairs as in 02:00:00:00:00:01");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseMacError(String);

impl fmt::Display for ParseMacError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is no Ethernet address; write six hexadecimal pairs as in 02:00:00:00:00:01", self.0)
    }
}

impl std::error::Error for ParseMacError {}

impl FromStr for MacAddr {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, ParseMacError> {
        let octets = || {
            let mut octets = [0; 6];
            let mut parts = text.split([':', '-']);
            for octet in &mut octets {
                let pair =
                    parts.next().filter(|p| p.len() == 2 && p.bytes().all(|c| c.is_ascii_hexdigit()))?;
                *octet = u8::from_str_radix(pair, 16).ok()?;
            }
            parts.next().is_none().then_some(octets)
        };
        octets().map(Self).ok_or_else(|| ParseMacError(text.to_owned()))
    }
}

impl From<[u8; 6]> for MacAddr {
    fn from(octets: [u8; 6]) -> Self {
        Self(octets)
    }
}

impl From<MacAddr> for [u8; 6] {
    fn from(mac: MacAddr) -> Self {
        mac.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_is_no_address() {
        for text in ["", ":", "1:2:3:4:5:6", "+2:00:00:00:00:01", "02:00:00:00:00:01:", "02:00:00:00:00:0g"] {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }

    #[test]
    fn tells_the_kinds_apart() {
        assert!(MacAddr::BROADCAST.is_multicast() && !MacAddr::BROADCAST.is_unicast());
        assert!(!MacAddr::ZERO.is_unicast() && !MacAddr::ZERO.is_multicast());
        assert_eq!(MacAddr::local(0x0102_0304_0506_0708), MacAddr([2, 4, 5, 6, 7, 8]));
    }

    proptest! {
        #[test]
        fn reads_what_it_prints(octets: [u8; 6]) {
            let mac = MacAddr(octets);
            prop_assert_eq!(mac.to_string().parse::<MacAddr>(), Ok(mac));
            prop_assert_eq!(mac.to_string().to_lowercase().replace(':', "-").parse::<MacAddr>(), Ok(mac));
        }
    }
}
