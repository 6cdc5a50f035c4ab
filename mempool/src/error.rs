//! What can go wrong in this crate, each in one sentence with the remedy.

/// Every way that making a pool, or attaching memory to a packet, can fail. What a data path may meet has small errors
/// of its own: [`TooShort`], [`Exhausted`], [`NoRoom`]; or it is an `Option`, where only one thing can be lacking.
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
    /// A pool of no packets, or of more than it can number.
    #[error("pool \"{pool}\" asks for {asked} packets: ask for at least 1 and at most {max}")]
    Packets {
        /// Name of the pool.
        pool: String,
        /// Packets asked for.
        asked: u32,
        /// Most packets of one pool.
        max: u32,
    },
    /// Headroom and data room together are more than a segment can describe.
    #[error(
        "pool \"{pool}\" asks for {headroom} + {data_room} bytes per packet: their sum must be 1 to {max}, \
         longer packets are chains"
    )]
    BufferLength {
        /// Name of the pool.
        pool: String,
        /// Headroom asked for, in bytes.
        headroom: u16,
        /// Data room asked for, in bytes.
        data_room: u16,
        /// Largest sum, in bytes.
        max: u16,
    },
    /// The packets do not fit into memory.
    #[error("pool \"{pool}\": {source}")]
    Memory {
        /// Name of the pool.
        pool: String,
        /// What the machine said.
        source: linecard_eal::Error,
    },
    /// External memory that one segment cannot describe.
    #[error("external memory of {len} bytes: attach at most {max} bytes per segment, and chain segments")]
    ExternalLength {
        /// Bytes offered.
        len: usize,
        /// Most bytes of one segment.
        max: u16,
    },
    /// Memory can be attached only to a packet that has its own buffer to itself.
    #[error("the packet is chained, cloned or has foreign memory already: attach to a fresh packet")]
    NotPlain,
}

/// Fewer bytes than were to be removed: what [`Packet::adj`](crate::Packet::adj) and [`Packet::trim`](crate::Packet::trim)
/// say. Nothing was removed.
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
    /// Bytes that were to be removed.
    pub asked: usize,
    /// Bytes of the first ([`adj`](crate::Packet::adj)) or the last ([`trim`](crate::Packet::trim)) segment.
    pub len: usize,
}

/// The pool has fewer free packets than were asked for. Nothing was taken; [`PoolStats::get_fail`](crate::PoolStats)
/// counts such requests.
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

/// Why packets did not get into a burst, or bytes into a packet. Nothing was moved.
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
    /// The burst takes fewer packets, or the packet fewer bytes.
    #[error("{asked} were asked for where there is room for {room}: ask for at most {room}")]
    Full {
        /// Packets or bytes asked for.
        asked: usize,
        /// Packets or bytes that there is room for.
        room: usize,
    },
    /// Packets are needed, for the burst or as a copy of bytes that clones share, and the pool has too few.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
}

/// Shorthand for this crate's results.
///
/// ```
/// fn fine() -> linecard_mempool::Result<()> {
///     Ok(())
/// }
/// assert!(fine().is_ok());
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;
