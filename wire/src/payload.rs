//! Payloads as values: exact lengths in, native byte order, nothing borrowed from the peer.
//!
//! Layouts: QEMU `docs/interop/vhost-user.rst`, "Payload". Decoding checks the length and what a
//! payload says about itself; what the values mean is checked by whoever uses them.

use crate::error::Error;
use crate::message::MAX_PAYLOAD;

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
    /// The value in `bytes`, which must have exactly its length.
    ///
    /// # Errors
    /// [`Error::PayloadLength`], [`Error::PayloadField`].
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error>;
    /// The bytes on the wire.
    fn to_bytes(&self) -> Vec<u8>;
}

/// Takes fields off the front of a payload; `None` when it is too short.
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

/// A number about one ring: its size, its base, whether it is enabled.
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

/// Where a packed ring stands, as `SET_VRING_BASE` and `GET_VRING_BASE` carry it in 32 bits.
///
/// Bits 0-14 the next descriptor to be taken, bit 15 its wrap counter, bits 16-30 and 31 the same for
/// the next to be used.
///
/// ```
/// use linecard_wire::payload::PackedBase;
/// let fresh = PackedBase { avail: 0, avail_wrap: true, used: 0, used_wrap: true };
/// assert_eq!(fresh.to_u32(), 0x8000_8000);
/// assert_eq!(PackedBase::from_u32(0x8000_8000), fresh);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedBase {
    /// Next descriptor the device takes.
    pub avail: u16,
    /// Its wrap counter.
    pub avail_wrap: bool,
    /// Next descriptor the device writes.
    pub used: u16,
    /// Its wrap counter.
    pub used_wrap: bool,
}

impl PackedBase {
    const INDEX: u32 = 0x7fff;
    const WRAP: u32 = 0x8000;

    /// Splits the 32 bits.
    pub const fn from_u32(num: u32) -> Self {
        let high = num >> 16;
        Self {
            avail: (num & Self::INDEX) as u16,
            avail_wrap: num & Self::WRAP != 0,
            used: (high & Self::INDEX) as u16,
            used_wrap: high & Self::WRAP != 0,
        }
    }

    /// Joins the 32 bits.
    pub const fn to_u32(self) -> u32 {
        let low = (self.avail as u32 & Self::INDEX) | if self.avail_wrap { Self::WRAP } else { 0 };
        let high = (self.used as u32 & Self::INDEX) | if self.used_wrap { Self::WRAP } else { 0 };
        low | high << 16
    }
}

/// A ring and whether a descriptor comes with the message (`SET_VRING_KICK`, `_CALL`, `_ERR`).
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
    /// A descriptor is attached (bit 8 is clear); without one the ring is polled.
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

/// Where the three parts of a ring are, in the frontend's addresses.
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
    /// Guest address that used ring writes are logged at.
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

/// One region of shared memory.
///
/// ```
/// use linecard_wire::payload::{MemTable, MemoryRegion, Payload};
/// let region = MemoryRegion { guest_addr: 0, size: 4096, user_addr: 0x7f00_0000_0000, offset: 0 };
/// assert_eq!(MemTable(vec![region]).to_bytes().len(), 8 + 32);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRegion {
    /// Address descriptors use.
    pub guest_addr: u64,
    /// Length in bytes.
    pub size: u64,
    /// Address in the frontend, which ring addresses use.
    pub user_addr: u64,
    /// Where in the file the region begins.
    pub offset: u64,
}

impl MemoryRegion {
    const LEN: usize = 32;

    fn read(r: &mut Reader<'_>) -> Option<Self> {
        Some(Self { guest_addr: r.u64()?, size: r.u64()?, user_addr: r.u64()?, offset: r.u64()? })
    }

    fn write(&self, out: &mut Vec<u8>) {
        for word in [self.guest_addr, self.size, self.user_addr, self.offset] {
            out.extend_from_slice(&word.to_ne_bytes());
        }
    }
}

/// All regions at once (`SET_MEM_TABLE`); one file descriptor per region comes along.
///
/// See [`MemoryRegion`] for an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemTable(
    /// The regions, in the order of their descriptors.
    pub Vec<MemoryRegion>,
);

impl MemTable {
    /// Most regions one table may hold: one descriptor each.
    pub const MAX_REGIONS: usize = crate::message::MAX_FDS;
}

impl Payload for MemTable {
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let what = "memory table";
        let wrong = |want| Error::PayloadLength { what, got: bytes.len(), want };
        let mut reader = Reader(bytes);
        let count = reader.u32().ok_or(wrong(8))? as usize;
        reader.u32().ok_or(wrong(8))?;
        if count > Self::MAX_REGIONS {
            let (got, max) = (count as u64, Self::MAX_REGIONS as u64);
            return Err(Error::PayloadField { what, field: "regions", got, max });
        }
        let want = 8 + count * MemoryRegion::LEN;
        if bytes.len() != want {
            return Err(wrong(want));
        }
        (0..count)
            .map(|_| MemoryRegion::read(&mut reader).ok_or(wrong(want)))
            .collect::<Result<_, _>>()
            .map(Self)
    }
    fn to_bytes(&self) -> Vec<u8> {
        let count = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        let mut out = [count.to_ne_bytes(), [0; 4]].concat();
        self.0.iter().for_each(|region| region.write(&mut out));
        out
    }
}

/// One region to add or remove (`ADD_MEM_REG`, `REM_MEM_REG`).
///
/// ```
/// use linecard_wire::payload::{MemoryRegion, Payload, SingleRegion};
/// let region = MemoryRegion { guest_addr: 0, size: 4096, user_addr: 0, offset: 0 };
/// assert_eq!(SingleRegion::from_bytes(&SingleRegion(region).to_bytes())?.0, region);
/// # Ok::<(), linecard_wire::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SingleRegion(
    /// The region.
    pub MemoryRegion,
);

impl Payload for SingleRegion {
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        exactly("memory region", 8 + MemoryRegion::LEN, bytes, |r| {
            r.u64()?;
            MemoryRegion::read(r).map(Self)
        })
    }
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![0; 8];
        self.0.write(&mut out);
        out
    }
}

/// The dirty log's place in its file (`SET_LOG_BASE`).
///
/// ```
/// use linecard_wire::payload::{Log, Payload};
/// let log = Log { size: 4096, offset: 0 };
/// assert_eq!(Log::from_bytes(&log.to_bytes())?, log);
/// # Ok::<(), linecard_wire::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// Length in bytes.
    pub size: u64,
    /// Where in the file it begins.
    pub offset: u64,
}

impl Payload for Log {
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        exactly("log", 16, bytes, |r| Some(Self { size: r.u64()?, offset: r.u64()? }))
    }
    fn to_bytes(&self) -> Vec<u8> {
        [self.size.to_ne_bytes(), self.offset.to_ne_bytes()].concat()
    }
}

/// A piece of the device's configuration space (`GET_CONFIG`, `SET_CONFIG`).
///
/// A reply that reports an error carries no data, so its length field counts for nothing.
///
/// ```
/// use linecard_wire::payload::{Config, Payload};
/// let mac = Config { offset: 0, flags: 0, data: vec![2, 0, 0, 0, 0, 1] };
/// assert_eq!(Config::from_bytes(&mac.to_bytes())?, mac);
/// # Ok::<(), linecard_wire::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// First byte.
    pub offset: u32,
    /// 0: the driver writes; 1: migration writes.
    pub flags: u32,
    /// The bytes.
    pub data: Vec<u8>,
}

impl Config {
    const HEAD: usize = 12;
    /// Most bytes one message can carry.
    pub const MAX_DATA: usize = MAX_PAYLOAD - Self::HEAD;
}

impl Payload for Config {
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let what = "configuration";
        let wrong = |want| Error::PayloadLength { what, got: bytes.len(), want };
        let mut r = Reader(bytes);
        let short = || wrong(Self::HEAD);
        let (offset, size, flags) =
            (r.u32().ok_or_else(short)?, r.u32().ok_or_else(short)?, r.u32().ok_or_else(short)?);
        if size as usize > Self::MAX_DATA {
            let (got, max) = (u64::from(size), Self::MAX_DATA as u64);
            return Err(Error::PayloadField { what, field: "size", got, max });
        }
        if r.0.len() != size as usize {
            return Err(wrong(Self::HEAD + size as usize));
        }
        Ok(Self { offset, flags, data: r.0.to_vec() })
    }
    fn to_bytes(&self) -> Vec<u8> {
        let size = u32::try_from(self.data.len()).unwrap_or(u32::MAX);
        let mut out = [self.offset.to_ne_bytes(), size.to_ne_bytes(), self.flags.to_ne_bytes()].concat();
        out.extend_from_slice(&self.data);
        out
    }
}

/// The region that tracks requests in flight (`GET_INFLIGHT_FD`, `SET_INFLIGHT_FD`).
///
/// QEMU packs the message, so it is 20 bytes; other frontends send the 24 of the unpacked structure.
/// Both are read, 20 are written.
///
/// ```
/// use linecard_wire::payload::{Inflight, Payload};
/// let inflight = Inflight { mmap_size: 4096, mmap_offset: 0, queues: 2, queue_size: 256 };
/// assert_eq!(Inflight::from_bytes(&inflight.to_bytes())?, inflight);
/// # Ok::<(), linecard_wire::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inflight {
    /// Length in bytes.
    pub mmap_size: u64,
    /// Where in the file it begins.
    pub mmap_offset: u64,
    /// Rings covered.
    pub queues: u16,
    /// Descriptors of each.
    pub queue_size: u16,
}

impl Payload for Inflight {
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let packed = bytes.get(..20).filter(|_| bytes.len() == 24).unwrap_or(bytes);
        exactly("inflight", 20, packed, |r| {
            let (mmap_size, mmap_offset) = (r.u64()?, r.u64()?);
            Some(Self { mmap_size, mmap_offset, queues: r.u16()?, queue_size: r.u16()? })
        })
    }
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = [self.mmap_size.to_ne_bytes(), self.mmap_offset.to_ne_bytes()].concat();
        out.extend_from_slice(&self.queues.to_ne_bytes());
        out.extend_from_slice(&self.queue_size.to_ne_bytes());
        out
    }
}
