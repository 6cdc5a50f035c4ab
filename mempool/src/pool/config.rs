//! What a pool is made of, and what it counts.

use crate::debug::Violation;
use crate::error::{Error, Result};

/// Bytes before the data of a fresh packet, unless asked otherwise: room for a virtio-net header and tunnels.
pub const HEADROOM: u16 = 128;

/// Bytes for data, unless asked otherwise.
pub const DATA_ROOM: u16 = 2048;

/// Shape of a pool.
///
/// ```
/// let config = linecard_mempool::PoolConfig::default().packets(4096).cache(0);
/// assert_eq!((config.headroom, config.data_room), (128, 2048));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolConfig {
    /// For messages; need not be unique.
    pub name: String,
    /// How many packets; at least 1.
    pub packets: u32,
    /// Bytes per packet behind the headroom. Headroom and data room together are 1 to 65 535 bytes.
    pub data_room: u16,
    /// Bytes before the data of a fresh packet.
    pub headroom: u16,
    /// Packets that one thread may keep for itself; at most 512 are used (DPDK's limit), 0 means no caches. All caches of the
    /// machine's cores together never hold more than two thirds of the pool: small pools get smaller caches, or none.
    /// Packets in the caches of other live threads cannot be had, so give a pool this many more per thread.
    pub cache: u16,
    /// Find double frees, foreign frees, writes past either end of a buffer and writes after free, with the
    /// place in the source. Costs about a microsecond per packet; when off, nothing.
    pub debug: bool,
    /// What to do with a violation that debug mode found; without it the thread panics. The packet concerned is
    /// kept out of the pool if returning it would do harm.
    pub report: Option<fn(&Violation)>,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            name: "packets".into(),
            packets: 8192,
            data_room: DATA_ROOM,
            headroom: HEADROOM,
            cache: 256,
            debug: false,
            report: None,
        }
    }
}

linecard_eal::setters!(PoolConfig {
    name: impl Into<String> as into,
    packets: u32,
    data_room: u16,
    headroom: u16,
    cache: u16,
    debug: bool,
    report: fn(&Violation) as some,
});

impl PoolConfig {
    /// Most packets of one pool: the free lists number them with 32 bits, and 0 means none.
    pub const MAX_PACKETS: u32 = u32::MAX / 2;

    pub(super) fn check(&self) -> Result<()> {
        if !(1..=Self::MAX_PACKETS).contains(&self.packets) {
            let pool = self.name.clone();
            return Err(Error::Packets { pool, asked: self.packets, max: Self::MAX_PACKETS });
        }
        match self.headroom.checked_add(self.data_room) {
            None | Some(0) => Err(Error::BufferLength {
                pool: self.name.clone(),
                headroom: self.headroom,
                data_room: self.data_room,
                max: u16::MAX,
            }),
            Some(_) => Ok(()),
        }
    }

    /// Bytes of one buffer.
    pub(super) fn buf_len(&self) -> u16 {
        self.headroom + self.data_room
    }
}

/// Counters of a pool. Made for people and tests; a data path never needs them.
///
/// ```
/// let stats = linecard_mempool::PoolStats::default();
/// assert_eq!(stats.total, stats.free + stats.cached + stats.in_use);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Packets of the pool.
    pub total: usize,
    /// Packets that any thread can get.
    pub free: usize,
    /// Packets that lie in the caches of threads.
    pub cached: usize,
    /// Packets that someone holds, a driver or the application.
    pub in_use: usize,
    /// Packets got since the pool exists.
    pub gets: u64,
    /// Packets returned since the pool exists.
    pub puts: u64,
    /// Requests (not packets) that got nothing because too few were left.
    pub get_fail: u64,
    /// Violations that debug mode reported.
    pub violations: u64,
}
