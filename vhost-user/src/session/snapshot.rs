//! The serialized state of a session, readable by processes of other versions.
//!
//! ```text
//!   ┌──────┬─────────┬────────┬──────┬──────────┬──────┐
//!   │ head │ session │ ring 0 │  …   │ region 0 │  …   │   and a list of descriptors, numbered from 1; 0 is none
//!   └──────┴─────────┴────────┴──────┴──────────┴──────┘
//! ```
//!
//! All numbers are in native byte order, because both processes run on the same machine. The head has the
//! length of each kind of record. A later version appends fields to records and chooses them so that zeros
//! mean the earlier behaviour. An earlier reader ignores fields that it does not know, and a later reader
//! reads missing fields as zeros.

use crate::memory::{DirtyLog, Inflight};
use bitflags::bitflags;
use linecard_wire::payload::{Inflight as Description, Log, MemoryRegion, VringAddr};
use linecard_wire::socket::ListenerName;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The eight bytes at the beginning of every snapshot.
const MAGIC: [u8; 8] = *b"LC-VHOST";
/// The version of the writer. A reader uses it only in messages: see the [module](self).
pub(crate) const VERSION: u32 = 1;
/// The largest length of a record that is accepted from a later version.
const MOST_LEN: u32 = 4096;

#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Head {
    magic: [u8; 8],
    version: u32,
    /// Bytes of the head, of the session, of each ring, of each region.
    lens: [u32; 4],
    rings: u32,
    regions: u32,
    reserved: u32,
}

/// The index of a descriptor in the list plus 1; 0 for none.
pub(crate) type Descriptor = u32;

/// The flags of a [`SessionRecord`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub(crate) struct SessionFlags(u32);

bitflags! {
    impl SessionFlags: u32 {
        const HAS_FEATURES = 1;
        const HAS_STATUS = 2;
        const OWN_USER_ONLY = 4;
        /// The frontend does not know of the inflight region.
        const OWN_INFLIGHT = 8;
    }
}

/// The flags of a [`RingRecord`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub(crate) struct RingFlags(u32);

bitflags! {
    impl RingFlags: u32 {
        const HAS_ADDR = 1;
        const HAS_STOPPED_AT = 2;
        const STARTED = 4;
        const ENABLED = 8;
        const FAULTED = 16;
        const ANNOUNCES = 32;
        /// The ring was running when the session was frozen.
        const RUNS = 64;
    }
}

/// The state of the connection and the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct SessionRecord {
    pub(crate) flags: SessionFlags,
    /// The listening socket of the port.
    pub(crate) listener: Descriptor,
    /// Device and inode of the socket's name, if the name is handed over with the port; otherwise zeros.
    pub(crate) name: [u64; 2],
    pub(crate) connection: Descriptor,
    pub(crate) status: u32,
    pub(crate) features: u64,
    pub(crate) protocol: u64,
    /// 0 if the frontend set none.
    pub(crate) mtu: u32,
    /// The dirty log, and its location in the file.
    pub(crate) log: Descriptor,
    pub(crate) log_size: u64,
    pub(crate) log_offset: u64,
    pub(crate) log_event: Descriptor,
    /// The inflight region, as in `SET_INFLIGHT_FD`.
    pub(crate) inflight: Descriptor,
    pub(crate) inflight_size: u64,
    pub(crate) inflight_offset: u64,
    pub(crate) inflight_queues: u16,
    pub(crate) inflight_queue_size: u16,
    /// The channel of `SET_BACKEND_REQ_FD`.
    pub(crate) channel: Descriptor,
}

impl SessionRecord {
    pub(crate) fn set_name(&mut self, name: ListenerName) {
        self.name = name.file;
        self.flags.set(SessionFlags::OWN_USER_ONLY, name.own_user_only);
    }

    pub(crate) fn name(&self) -> ListenerName {
        ListenerName { file: self.name, own_user_only: self.flags.contains(SessionFlags::OWN_USER_ONLY) }
    }
}

impl SessionRecord {
    pub(crate) fn set_log(&mut self, log: &DirtyLog, file: Descriptor) {
        let MemoryRegion { size, offset, .. } = log.region().spec;
        (self.log, self.log_size, self.log_offset) = (file, size, offset);
    }

    pub(crate) fn log(&self) -> Log {
        Log { size: self.log_size, offset: self.log_offset }
    }

    pub(crate) fn set_inflight(&mut self, inflight: &Inflight, file: Descriptor) {
        let MemoryRegion { size, offset, .. } = inflight.region.spec;
        (self.inflight, self.inflight_size, self.inflight_offset) = (file, size, offset);
        (self.inflight_queues, self.inflight_queue_size) = (inflight.queues, inflight.queue_size);
    }

    pub(crate) fn inflight(&self) -> Description {
        Description {
            mmap_size: self.inflight_size,
            mmap_offset: self.inflight_offset,
            queues: self.inflight_queues,
            queue_size: self.inflight_queue_size,
        }
    }
}

/// One ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct RingRecord {
    pub(crate) flags: RingFlags,
    pub(crate) size: u32,
    /// In the format of `SET_VRING_BASE`.
    pub(crate) base: u32,
    pub(crate) stopped_at: u32,
    /// As in `SET_VRING_ADDR`.
    pub(crate) addr_flags: u32,
    pub(crate) kick: Descriptor,
    pub(crate) call: Descriptor,
    pub(crate) error: Descriptor,
    pub(crate) desc: u64,
    pub(crate) used: u64,
    pub(crate) avail: u64,
    pub(crate) log: u64,
    /// The MAC address that still has to be announced (`SEND_RARP`).
    pub(crate) announce: [u8; 6],
    pub(crate) reserved: [u8; 2],
}

impl RingRecord {
    pub(crate) fn has(&self, flag: RingFlags) -> bool {
        self.flags.contains(flag)
    }

    /// Whether this is the same ring, at any position.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        const MOVES: RingFlags = RingFlags::FAULTED.union(RingFlags::ANNOUNCES).union(RingFlags::RUNS);
        let still = |ring: &Self| Self {
            flags: ring.flags.difference(MOVES),
            base: 0,
            announce: [0; 6],
            reserved: [0; 2],
            ..*ring
        };
        still(self) == still(other)
    }

    pub(crate) fn set_addr(&mut self, addr: &VringAddr) {
        self.flags |= RingFlags::HAS_ADDR;
        self.addr_flags = addr.flags;
        (self.desc, self.used, self.avail, self.log) = (addr.desc, addr.used, addr.avail, addr.log);
    }

    pub(crate) fn addr(&self, index: u32) -> Option<VringAddr> {
        let Self { addr_flags: flags, desc, used, avail, log, .. } = *self;
        self.has(RingFlags::HAS_ADDR).then_some(VringAddr { index, flags, desc, used, avail, log })
    }
}

/// One region of the frontend's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct RegionRecord {
    pub(crate) guest_addr: u64,
    pub(crate) size: u64,
    pub(crate) user_addr: u64,
    pub(crate) offset: u64,
    pub(crate) file: Descriptor,
    pub(crate) reserved: u32,
}

impl RegionRecord {
    pub(crate) fn new(spec: &MemoryRegion, file: Descriptor) -> Self {
        let MemoryRegion { guest_addr, size, user_addr, offset } = *spec;
        Self { guest_addr, size, user_addr, offset, file, reserved: 0 }
    }

    pub(crate) fn spec(&self) -> MemoryRegion {
        let Self { guest_addr, size, user_addr, offset, .. } = *self;
        MemoryRegion { guest_addr, size, user_addr, offset }
    }
}

/// The state of a whole session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) session: SessionRecord,
    pub(crate) rings: Vec<RingRecord>,
    pub(crate) regions: Vec<RegionRecord>,
}

const LENS: [u32; 4] = [
    size_of::<Head>() as u32,
    size_of::<SessionRecord>() as u32,
    size_of::<RingRecord>() as u32,
    size_of::<RegionRecord>() as u32,
];

impl Snapshot {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let count = |len| u32::try_from(len).unwrap_or(u32::MAX);
        let (rings, regions) = (count(self.rings.len()), count(self.regions.len()));
        let head = Head { magic: MAGIC, version: VERSION, lens: LENS, rings, regions, reserved: 0 };
        [head.as_bytes(), self.session.as_bytes(), self.rings.as_bytes(), self.regions.as_bytes()].concat()
    }

    /// Reads a snapshot of this or another version.
    ///
    /// # Errors
    /// The problem, as a clause.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut at = Cursor(bytes);
        let head: Head = at.peek(LENS[0]).ok_or("it is shorter than its head")?;
        if head.magic != MAGIC {
            return Err("it does not begin as a snapshot of a vhost-user port");
        }
        let [own, session, ring, region] = head.lens;
        if head.lens.iter().any(|len| *len == 0 || *len > MOST_LEN) {
            return Err("its records have impossible lengths");
        }
        at.skip(own).ok_or("it is shorter than its head")?;
        let short = "it is shorter than its records";
        Ok(Self {
            session: at.take(session).ok_or(short)?,
            rings: at.take_all(ring, head.rings).ok_or(short)?,
            regions: at.take_all(region, head.regions).ok_or(short)?,
        })
    }
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    /// Reads a record of `len` bytes, as far as its fields are known, without advancing. Missing fields are
    /// zero.
    fn peek<T: FromBytes + IntoBytes>(&self, len: u32) -> Option<T> {
        let mut record = T::new_zeroed();
        let given = self.0.get(..len as usize)?;
        record.as_mut_bytes().iter_mut().zip(given).for_each(|(to, from)| *to = *from);
        Some(record)
    }

    fn skip(&mut self, len: u32) -> Option<()> {
        self.0 = self.0.get(len as usize..)?;
        Some(())
    }

    fn take<T: FromBytes + IntoBytes>(&mut self, len: u32) -> Option<T> {
        let record = self.peek(len)?;
        self.skip(len)?;
        Some(record)
    }

    /// Reads `count` records. Returns `None` if there are not enough bytes, without allocating for them.
    fn take_all<T: FromBytes + IntoBytes>(&mut self, len: u32, count: u32) -> Option<Vec<T>> {
        let total = (len as usize).checked_mul(count as usize)?;
        self.0.get(..total)?;
        (0..count).map(|_| self.take(len)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Snapshot {
        let ring = RingRecord { size: 256, base: 7, desc: 0x1000, kick: 3, ..RingRecord::default() };
        let region = RegionRecord { guest_addr: 1 << 32, size: 4096, file: 2, ..RegionRecord::default() };
        let session = SessionRecord { features: 1 << 32, connection: 1, ..SessionRecord::default() };
        Snapshot { session, rings: vec![ring, RingRecord { base: 9, ..ring }], regions: vec![region] }
    }

    /// Writes `snapshot` as a version with records of `lens` bytes would: truncated, or with additional
    /// bytes.
    fn written_by(snapshot: &Snapshot, lens: [u32; 4]) -> Vec<u8> {
        let bytes = snapshot.to_bytes();
        let mut rest = bytes.as_slice();
        let counts = [1, 1, snapshot.rings.len(), snapshot.regions.len()];
        let mut out = Vec::new();
        for ((ours, theirs), count) in LENS.into_iter().zip(lens).zip(counts) {
            for _ in 0..count {
                let (record, behind) = rest.split_at(ours as usize);
                rest = behind;
                let mut record = record.to_vec();
                record.resize(theirs as usize, 0xff);
                out.extend(record);
            }
        }
        out[12..28].copy_from_slice(lens.as_bytes());
        out
    }

    #[test]
    fn what_is_written_is_read() {
        for snapshot in [example(), Snapshot::default()] {
            assert_eq!(Snapshot::from_bytes(&snapshot.to_bytes()), Ok(snapshot));
        }
    }

    #[test]
    fn later_versions_are_read_as_far_as_they_are_known() {
        let more = LENS.map(|len| len + 24);
        assert_eq!(Snapshot::from_bytes(&written_by(&example(), more)), Ok(example()));
    }

    #[test]
    fn what_an_earlier_version_did_not_write_is_zero() {
        let [head, session, ring, region] = LENS;
        let mut want = example();
        want.rings.iter_mut().for_each(|ring| (ring.announce, ring.reserved) = Default::default());
        let mut full = want.clone();
        full.rings.iter_mut().for_each(|ring| ring.announce = [9; 6]);
        let earlier = written_by(&full, [head, session, ring - 8, region]);
        assert_eq!(Snapshot::from_bytes(&earlier), Ok(want));
    }

    #[test]
    fn nonsense_is_told_and_never_a_panic() {
        let whole = example().to_bytes();
        for len in 0..whole.len() {
            assert!(Snapshot::from_bytes(&whole[..len]).is_err(), "{len} bytes");
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xff;
            let _ = Snapshot::from_bytes(&bytes);
        }
        let mut many = whole.clone();
        many[28..32].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(Snapshot::from_bytes(&many).is_err(), "more rings than there are bytes");
    }
}
