//! Configuration and counters of a pool.

use crate::debug::Violation;
use crate::error::{Error, Result};

/// The default number of bytes before the data of a fresh packet: room for a virtio-net header and tunnels.
pub const HEADROOM: u16 = 128;

/// The default number of bytes for data.
pub const DATA_ROOM: u16 = 2048;

/// The configuration of a pool.
///
/// ```
/// let config = linecard_mempool::PoolConfig::default().packets(4096).cache(0);
/// assert_eq!((config.headroom, config.data_room), (128, 2048));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolConfig {
    /// The name in messages; need not be unique.
    pub name: String,
    /// The number of packets, at least 1.
    pub packets: u32,
    /// The number of bytes per packet behind the headroom. Headroom and data room together are 1 to 65 535
    /// bytes.
    pub data_room: u16,
    /// The number of bytes before the data of a fresh packet.
    pub headroom: u16,
    /// The number of packets that one thread may cache: at most 512 (DPDK's limit), 0 for no caches. The
    /// caches of as many threads as the machine has cores hold at most two thirds of the pool, so small pools
    /// get smaller caches, or none. Packets in the caches of other live threads are not available, so give a
    /// pool this many more packets per thread.
    pub cache: u16,
    /// Detects double frees, foreign frees, writes past either end of a buffer and writes after free, with
    /// the source location. Costs about a microsecond per packet; nothing when off.
    pub debug: bool,
    /// Called with each violation that debug mode found; without it the thread panics. The packet is kept out
    /// of the pool if returning it would do harm.
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
    /// The maximum number of packets of one pool: the free lists number them with 32 bits, and 0 means none.
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

    /// The length of one buffer in bytes.
    pub(super) fn buf_len(&self) -> u16 {
        self.headroom + self.data_room
    }
}

/// Counters of a pool, for users and tests; a data path does not need them.
///
/// ```
/// let stats = linecard_mempool::PoolStats::default();
/// assert_eq!(stats.total, stats.free + stats.cached + stats.in_use);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// The number of packets of the pool.
    pub total: usize,
    /// The number of packets that any thread can get.
    pub free: usize,
    /// The number of packets in the caches of threads.
    pub cached: usize,
    /// The number of packets owned by a driver or the application.
    pub in_use: usize,
    /// The number of packets taken since the pool was created.
    pub gets: u64,
    /// The number of packets returned since the pool was created.
    pub puts: u64,
    /// The number of requests (not packets) that failed because too few packets were left.
    pub get_fail: u64,
    /// The number of violations that debug mode reported.
    pub violations: u64,
}
