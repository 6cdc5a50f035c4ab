//! Payloads about the device: memory, configuration, logs.

use super::{Payload, Reader, exactly};
use crate::error::Error;
use crate::message::MAX_PAYLOAD;

/// One region of shared memory.
///
/// ```
/// use linecard_wire::payload::{MemTable, MemoryRegion, Payload};
/// let region = MemoryRegion { guest_addr: 0, size: 4096, user_addr: 0x7f00_0000_0000, offset: 0 };
/// assert_eq!(MemTable(vec![region]).to_bytes().len(), 8 + 32);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRegion {
    /// The guest address, which descriptors use.
    pub guest_addr: u64,
    /// The length in bytes.
    pub size: u64,
    /// The address in the frontend, which ring addresses use.
    pub user_addr: u64,
    /// The offset of the region in its file.
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

/// All memory regions (`SET_MEM_TABLE`), accompanied by one file descriptor per region.
///
/// See [`MemoryRegion`] for an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemTable(
    /// The regions, in the order of their descriptors.
    pub Vec<MemoryRegion>,
);

impl MemTable {
    /// The maximum number of regions of a table: one descriptor each.
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

/// A region to add or remove (`ADD_MEM_REG`, `REM_MEM_REG`).
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

/// The location of the dirty log in its file (`SET_LOG_BASE`).
///
/// ```
/// use linecard_wire::payload::{Log, Payload};
/// let log = Log { size: 4096, offset: 0 };
/// assert_eq!(Log::from_bytes(&log.to_bytes())?, log);
/// # Ok::<(), linecard_wire::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The length in bytes.
    pub size: u64,
    /// The offset in the file.
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

/// A part of the device's configuration space (`GET_CONFIG`, `SET_CONFIG`).
///
/// A reply that reports an error has no data, and its length field is ignored.
///
/// ```
/// use linecard_wire::payload::{Config, Payload};
/// let mac = Config { offset: 0, flags: 0, data: vec![2, 0, 0, 0, 0, 1] };
/// assert_eq!(Config::from_bytes(&mac.to_bytes())?, mac);
/// # Ok::<(), linecard_wire::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The offset of the first byte.
    pub offset: u32,
    /// 0: the driver writes; 1: migration writes.
    pub flags: u32,
    /// The content.
    pub data: Vec<u8>,
}

impl Config {
    const HEAD: usize = 12;
    /// The maximum number of bytes in one message.
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

/// The region that records requests in flight (`GET_INFLIGHT_FD`, `SET_INFLIGHT_FD`).
///
/// QEMU packs the structure into 20 bytes; other frontends send the 24 bytes of the unpacked one. Both are
/// accepted; 20 bytes are written.
///
/// ```
/// use linecard_wire::payload::{Inflight, Payload};
/// let inflight = Inflight { mmap_size: 4096, mmap_offset: 0, queues: 2, queue_size: 256 };
/// assert_eq!(Inflight::from_bytes(&inflight.to_bytes())?, inflight);
/// # Ok::<(), linecard_wire::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inflight {
    /// The length in bytes.
    pub mmap_size: u64,
    /// The offset in the file.
    pub mmap_offset: u64,
    /// The number of rings.
    pub queues: u16,
    /// The number of descriptors of each ring.
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

/// An IOTLB message: a translation of I/O virtual addresses that is added, invalidated or requested
/// (`IOTLB_MSG`, `BACKEND_IOTLB_MSG`), in the format of the kernel's `struct vhost_iotlb_msg`
/// (`linux/vhost_types.h`).
///
/// ```
/// use linecard_wire::payload::{IotlbMessage, Payload};
/// let miss = IotlbMessage { iova: 0x1000, size: 0, user_addr: 0, access: IotlbMessage::READ, kind: IotlbMessage::MISS };
/// assert_eq!(miss.to_bytes().len(), 32);
/// assert_eq!(IotlbMessage::from_bytes(&miss.to_bytes())?, miss);
/// # Ok::<(), linecard_wire::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IotlbMessage {
    /// The first I/O virtual address, as used in descriptors.
    pub iova: u64,
    /// The length in bytes.
    pub size: u64,
    /// The corresponding address in the frontend.
    pub user_addr: u64,
    /// The allowed access of the device: [`READ`](Self::READ), [`WRITE`](Self::WRITE), or both.
    pub access: u8,
    /// [`MISS`](Self::MISS), [`UPDATE`](Self::UPDATE), [`INVALIDATE`](Self::INVALIDATE), or a kind that is
    /// not supported.
    pub kind: u8,
}

impl IotlbMessage {
    /// The device may read (`VHOST_ACCESS_RO`).
    pub const READ: u8 = 1;
    /// The device may write (`VHOST_ACCESS_WO`).
    pub const WRITE: u8 = 2;
    /// The backend requests a translation.
    pub const MISS: u8 = 1;
    /// The frontend adds or changes a translation.
    pub const UPDATE: u8 = 2;
    /// The frontend removes translations.
    pub const INVALIDATE: u8 = 3;
    /// Padding after the two bytes, up to the alignment of the other fields.
    const PADDING: usize = 6;
}

impl Payload for IotlbMessage {
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        exactly("IOTLB message", 26 + Self::PADDING, bytes, |r| {
            let (iova, size, user_addr, [access, kind]) = (r.u64()?, r.u64()?, r.u64()?, r.take()?);
            Some(Self { iova, size, user_addr, access, kind })
        })
    }
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = [self.iova, self.size, self.user_addr].map(u64::to_ne_bytes).concat();
        out.extend_from_slice(&[self.access, self.kind]);
        out.extend_from_slice(&[0; Self::PADDING]);
        out
    }
}
