//! What can go wrong in this crate, each in one sentence with the remedy.

/// Every way a pool or a packet can say no, other than "nothing left", which is an `Option` and a counter.
///
/// ```
/// use linecard_eal::{Memory, MemoryConfig};
/// use linecard_mempool::{Pool, PoolConfig};
///
/// let domain = Memory::new(MemoryConfig::default()).unwrap().domain("packets").unwrap();
/// let error = Pool::new(&domain, PoolConfig { packets: 0, ..PoolConfig::default() }).unwrap_err();
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

/// Shorthand for this crate's results.
///
/// ```
/// fn fine() -> linecard_mempool::Result<()> {
///     Ok(())
/// }
/// assert!(fine().is_ok());
/// ```
pub type Result<T> = std::result::Result<T, Error>;
