//! Errors of this crate, each one sentence with the remedy.

/// Errors of creating a pool or attaching memory to a packet. Data-path operations have small errors of their
/// own ([`TooShort`], [`Exhausted`], [`NoRoom`]), or return an `Option` if there is only one reason to fail.
///
/// ```
/// use linecard_eal::{Memory, MemoryConfig};
/// use linecard_mempool::{Pool, PoolConfig};
///
/// let domain = Memory::new(MemoryConfig::default()).unwrap().domain("packets").unwrap();
/// let error = Pool::new(&domain, PoolConfig::default().packets(0)).unwrap_err();
/// assert!(error.to_string().contains("asks for 0 packets"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The number of packets is 0 or above the maximum.
    #[error("pool \"{pool}\" asks for {asked} packets: ask for at least 1 and at most {max}")]
    Packets {
        /// Name of the pool.
        pool: String,
        /// The requested number of packets.
        asked: u32,
        /// The maximum number of packets of one pool.
        max: u32,
    },
    /// The sum of headroom and data room is 0 or more than a segment can describe.
    #[error(
        "pool \"{pool}\" asks for {headroom} + {data_room} bytes per packet: their sum must be 1 to {max}, \
         longer packets are chains"
    )]
    BufferLength {
        /// Name of the pool.
        pool: String,
        /// The requested headroom in bytes.
        headroom: u16,
        /// The requested data room in bytes.
        data_room: u16,
        /// The maximum sum in bytes.
        max: u16,
    },
    /// The packets do not fit into memory.
    #[error("pool \"{pool}\": {source}")]
    Memory {
        /// Name of the pool.
        pool: String,
        /// The cause.
        source: linecard_eal::Error,
    },
    /// The external memory is longer than one segment can describe.
    #[error("external memory of {len} bytes: attach at most {max} bytes per segment, and chain segments")]
    ExternalLength {
        /// The length offered, in bytes.
        len: usize,
        /// The maximum length of one segment, in bytes.
        max: u16,
    },
    /// External memory can be attached only to a packet that exclusively uses its own buffer.
    #[error("the packet is chained, cloned or has foreign memory already: attach to a fresh packet")]
    NotPlain,
}

/// A segment has fewer bytes than [`Packet::adj`](crate::Packet::adj) or
/// [`Packet::trim`](crate::Packet::trim) was asked to remove. Nothing was removed.
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Pool, PoolConfig};
/// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// let mut packet = pool.get().ok_or("empty")?;
/// packet.copy_from_slice(b"four")?;
/// let error = packet.adj(14).unwrap_err();
/// assert_eq!(error.to_string(), "14 bytes were to be removed from a segment of 4: remove at most 4, or linearize the packet first");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{asked} bytes were to be removed from a segment of {len}: remove at most {len}, or linearize the packet first"
)]
#[non_exhaustive]
pub struct TooShort {
    /// The number of bytes to remove.
    pub asked: usize,
    /// The length of the first ([`adj`](crate::Packet::adj)) or the last ([`trim`](crate::Packet::trim))
    /// segment.
    pub len: usize,
}

/// The pool has fewer free packets than requested. Nothing was taken;
/// [`PoolStats::get_fail`](crate::PoolStats) counts such requests.
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Exhausted, Pool, PoolConfig};
/// # use std::mem::MaybeUninit;
/// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
/// let pool = Pool::new(&domain, PoolConfig::default().packets(4))?;
/// let mut places = [const { MaybeUninit::uninit() }; 5];
/// assert_eq!(pool.get_into(&mut places), Err(Exhausted));
/// assert_eq!(pool.stats().get_fail, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the pool has fewer free packets than were asked for: return packets, or make it of more (PoolConfig::packets)"
)]
pub struct Exhausted;

/// Why packets were not added to a burst, or bytes to a packet. Nothing was moved.
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Burst, Exhausted, NoRoom, Pool, PoolConfig};
/// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
/// let pool = Pool::new(&domain, PoolConfig::default().packets(16))?;
/// let mut burst = Burst::with_capacity(32);
/// assert_eq!(pool.get_bulk(&mut burst, 17), Err(NoRoom::Exhausted(Exhausted)));
/// let error = pool.get_bulk(&mut burst, 33).unwrap_err();
/// assert_eq!(error.to_string(), "33 were asked for where there is room for 32: ask for at most 32");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoRoom {
    /// The burst has room for fewer packets, or the packet for fewer bytes.
    #[error("{asked} were asked for where there is room for {room}: ask for at most {room}")]
    Full {
        /// The requested number of packets or bytes.
        asked: usize,
        /// The number of packets or bytes for which there is room.
        room: usize,
    },
    /// The pool has too few packets for the burst, or for a copy of bytes that clones share.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
}

/// The result type of this crate.
///
/// ```
/// fn fine() -> linecard_mempool::Result<()> {
///     Ok(())
/// }
/// assert!(fine().is_ok());
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;
