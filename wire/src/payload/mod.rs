//! Payloads as values: of exact length, in native byte order, without references to the peer's data.
//!
//! Layouts: QEMU `docs/interop/vhost-user.rst`, "Payload". Decoding checks the length and the consistency of
//! a payload; its user checks the meaning of the values.

mod device;

pub use device::{Config, Inflight, IotlbMessage, Log, MemTable, MemoryRegion, SingleRegion};

use crate::error::Error;

/// A typed payload.
///
/// ```
/// use linecard_wire::payload::{Payload, VringState};
/// let state = VringState { index: 1, num: 256 };
/// assert_eq!(VringState::from_bytes(&state.to_bytes())?, state);
/// assert!(VringState::from_bytes(&[0; 7]).is_err());
/// # Ok::<(), linecard_wire::Error>(())
/// ```
pub trait Payload: Sized {
    /// Decodes `bytes`, which must have exactly the length of the payload.
    ///
    /// # Errors
    /// [`Error::PayloadLength`], [`Error::PayloadField`].
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error>;
    /// Encodes the payload as bytes.
    fn to_bytes(&self) -> Vec<u8>;
}

/// Reads fields from the front of a payload; `None` if it is too short.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }
    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_ne_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }
}

/// Reads a payload of exactly `want` bytes with `read`.
fn exactly<T>(
    what: &'static str,
    want: usize,
    bytes: &[u8],
    read: impl FnOnce(&mut Reader<'_>) -> Option<T>,
) -> Result<T, Error> {
    let wrong = Error::PayloadLength { what, got: bytes.len(), want };
    if bytes.len() != want {
        return Err(wrong);
    }
    read(&mut Reader(bytes)).ok_or(wrong)
}

impl Payload for () {
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        exactly("empty", 0, bytes, |_| Some(()))
    }
    fn to_bytes(&self) -> Vec<u8> {
        Vec::new()
    }
}

impl Payload for u64 {
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        exactly("u64", 8, bytes, |r| r.u64())
    }
    fn to_bytes(&self) -> Vec<u8> {
        self.to_ne_bytes().to_vec()
    }
}

/// A number about a ring: its size, its base, or whether it is enabled.
///
/// See [`Payload`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VringState {
    /// Ring index.
    pub index: u32,
    /// The number.
    pub num: u32,
}

impl Payload for VringState {
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        exactly("vring state", 8, bytes, |r| Some(Self { index: r.u32()?, num: r.u32()? }))
    }
    fn to_bytes(&self) -> Vec<u8> {
        [self.index.to_ne_bytes(), self.num.to_ne_bytes()].concat()
    }
}

/// The position of a packed ring, in the 32 bits of `SET_VRING_BASE` and `GET_VRING_BASE`.
///
/// Bits 0-14: the next available descriptor; bit 15: its wrap counter; bits 16-30 and 31: the same for the
/// next used descriptor.
///
/// ```
/// use linecard_wire::payload::PackedBase;
/// let fresh = PackedBase { avail: 0, avail_wrap: true, used: 0, used_wrap: true };
/// assert_eq!(fresh.to_u32(), 0x8000_8000);
/// assert_eq!(PackedBase::from_u32(0x8000_8000), fresh);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedBase {
    /// The index of the next descriptor that the device reads.
    pub avail: u16,
    /// Its wrap counter.
    pub avail_wrap: bool,
    /// The index of the next descriptor that the device writes.
    pub used: u16,
    /// Its wrap counter.
    pub used_wrap: bool,
}

impl PackedBase {
    const INDEX: u32 = 0x7fff;
    const WRAP: u32 = 0x8000;

    /// Decodes the 32 bits.
    pub const fn from_u32(num: u32) -> Self {
        let high = num >> 16;
        Self {
            avail: (num & Self::INDEX) as u16,
            avail_wrap: num & Self::WRAP != 0,
            used: (high & Self::INDEX) as u16,
            used_wrap: high & Self::WRAP != 0,
        }
    }

    /// Encodes the 32 bits.
    pub const fn to_u32(self) -> u32 {
        let low = (self.avail as u32 & Self::INDEX) | if self.avail_wrap { Self::WRAP } else { 0 };
        let high = (self.used as u32 & Self::INDEX) | if self.used_wrap { Self::WRAP } else { 0 };
        low | high << 16
    }
}

/// A ring, and whether a descriptor accompanies the message (`SET_VRING_KICK`, `_CALL`, `_ERR`).
///
/// ```
/// use linecard_wire::payload::{Payload, VringFd};
/// let polled = VringFd { index: 3, has_fd: false };
/// assert_eq!(u64::from_bytes(&polled.to_bytes())?, 0x103);
/// # Ok::<(), linecard_wire::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VringFd {
    /// Ring index, bits 0-7.
    pub index: u8,
    /// Whether a descriptor is attached (bit 8 is clear). Without one, the ring is polled.
    pub has_fd: bool,
}

impl VringFd {
    const NO_FD: u64 = 1 << 8;
    const MAX: u64 = 0x1ff;
}

impl Payload for VringFd {
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let word = u64::from_bytes(bytes)?;
        if word > Self::MAX {
            return Err(Error::PayloadField {
                what: "vring descriptor",
                field: "value",
                got: word,
                max: Self::MAX,
            });
        }
        let [index, ..] = word.to_le_bytes();
        Ok(Self { index, has_fd: word & Self::NO_FD == 0 })
    }
    fn to_bytes(&self) -> Vec<u8> {
        (u64::from(self.index) | if self.has_fd { 0 } else { Self::NO_FD }).to_bytes()
    }
}

/// The addresses of a ring's three areas, in the frontend's address space.
///
/// ```
/// use linecard_wire::payload::{Payload, VringAddr};
/// let addr = VringAddr { index: 0, flags: 0, desc: 0x1000, used: 0x3000, avail: 0x2000, log: 0 };
/// assert_eq!(VringAddr::from_bytes(&addr.to_bytes())?, addr);
/// # Ok::<(), linecard_wire::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VringAddr {
    /// Ring index.
    pub index: u32,
    /// Bit 0: log writes to the used ring.
    pub flags: u32,
    /// Descriptor table (packed: descriptor ring).
    pub desc: u64,
    /// Used ring (packed: device event suppression).
    pub used: u64,
    /// Available ring (packed: driver event suppression).
    pub avail: u64,
    /// The guest address at which writes to the used ring are logged.
    pub log: u64,
}

impl Payload for VringAddr {
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        exactly("vring address", 40, bytes, |r| {
            let (index, flags) = (r.u32()?, r.u32()?);
            Some(Self { index, flags, desc: r.u64()?, used: r.u64()?, avail: r.u64()?, log: r.u64()? })
        })
    }
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = [self.index.to_ne_bytes(), self.flags.to_ne_bytes()].concat();
        for word in [self.desc, self.used, self.avail, self.log] {
            out.extend_from_slice(&word.to_ne_bytes());
        }
        out
    }
}
