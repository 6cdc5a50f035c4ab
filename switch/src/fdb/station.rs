//! Stations, where they are, and both as the numbers that a bucket holds.

use linecard_net::MacAddr;

pub(super) const FIXED: u64 = 1 << 47;
/// The station moved too often and is held for a while. Not part of a [`Location`], because only the table uses it.
pub(super) const HELD: u64 = 1 << 46;
/// The port to which a held station moved; as many bits as port numbers need.
pub(super) const OTHER: u64 = 0xfff << OTHER_AT;
pub(super) const OTHER_AT: u32 = 32;
pub(super) const STAMP: u64 = u32::MAX as u64;

/// A station: its address in a VLAN.
///
/// ```
/// use linecard_switch::fdb::Station;
/// let station = Station::new("02:00:00:00:00:01".parse()?, 10);
/// assert_eq!((station.mac().to_string().as_str(), station.vlan()), ("02:00:00:00:00:01", 10));
/// # Ok::<(), linecard_net::mac::ParseMacError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Station(u64);

impl Station {
    /// Marks a key that is in use, so that no station is the key 0.
    const USED: u64 = 1 << 15;

    /// A station in a VLAN. The VLAN ID has twelve bits.
    #[must_use]
    pub fn new(mac: MacAddr, vlan: u16) -> Self {
        let [a, b, c, d, e, f] = mac.0;
        Self::of(u64::from_be_bytes([0, 0, a, b, c, d, e, f]), vlan)
    }

    /// As [`new`](Self::new), from an address as a number of 48 bits.
    #[inline(always)]
    pub(crate) const fn of(mac: u64, vlan: u16) -> Self {
        Self(mac << 16 | Self::USED | (vlan & 0xfff) as u64)
    }

    /// The key in a bucket; never 0.
    #[inline(always)]
    pub(super) const fn key(self) -> u64 {
        self.0
    }

    /// The station with this key.
    pub(super) const fn from_key(key: u64) -> Self {
        Self(key)
    }

    /// The form in which it is sent to another process.
    pub(crate) const fn to_wire(self) -> u64 {
        self.0
    }

    /// Parses the form of another process; `None` if it is not a station.
    pub(crate) fn from_wire(bits: u64) -> Option<Self> {
        let station = Self(bits);
        (Self::new(station.mac(), station.vlan()) == station).then_some(station)
    }

    /// Returns its address.
    #[must_use]
    pub const fn mac(self) -> MacAddr {
        let [a, b, c, d, e, f, _, _] = self.0.to_be_bytes();
        MacAddr([a, b, c, d, e, f])
    }

    /// Returns its VLAN.
    #[must_use]
    pub const fn vlan(self) -> u16 {
        (self.0 & 0xfff) as u16
    }
}

/// The location of a station.
///
/// ```
/// use linecard_switch::fdb::Location;
/// assert_ne!(Location { port: 1, fixed: false, seen: 0 }, Location { port: 1, fixed: true, seen: 0 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// The port behind which it is.
    pub port: u16,
    /// Configured: it does not age, and received frames do not move it.
    pub fixed: bool,
    /// When it last sent a frame, in seconds of the table's clock.
    pub seen: u32,
}

impl Location {
    /// The value in a bucket.
    #[inline(always)]
    pub(super) const fn to_bits(self) -> u64 {
        (self.port as u64) << 48 | if self.fixed { FIXED } else { 0 } | self.seen as u64
    }

    /// The form in which it is sent to another process.
    pub(crate) const fn to_wire(self) -> u64 {
        self.to_bits()
    }

    /// Parses the form of another process; `None` if it is not a location.
    pub(crate) const fn from_wire(bits: u64) -> Option<Self> {
        let place = Self::of(bits);
        if place.to_bits() == bits { Some(place) } else { None }
    }

    /// The location in a bucket's value.
    #[inline(always)]
    pub(super) const fn of(bits: u64) -> Self {
        Self { port: (bits >> 48) as u16, fixed: bits & FIXED != 0, seen: (bits & STAMP) as u32 }
    }
}

/// The outcome of learning a station.
///
/// ```
/// use linecard_switch::fdb::Learned;
/// assert_ne!(Learned::New, Learned::Moved);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// It was not known.
    New,
    /// It was known behind another port.
    Moved,
    /// It is known behind this port already.
    Known,
    /// It is configured on another port and stays there.
    Taken,
    /// It moved too often and stays on another port for a while.
    Held,
    /// The port has as many stations as it may have.
    Full,
    /// The table has no room for it.
    NoRoom,
    /// Another thread is changing the table; the next frame may be learned.
    Busy,
}

/// A port behind which stations are learned.
///
/// ```
/// let port = linecard_switch::fdb::LearningPort { port: 3, limit: 64, fixed: false };
/// assert!(!port.fixed);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LearningPort {
    /// The number of the port.
    pub port: u16,
    /// The maximum number of stations behind it.
    pub limit: u32,
    /// The stations are configured, so that no other port may have them.
    pub fixed: bool,
}
