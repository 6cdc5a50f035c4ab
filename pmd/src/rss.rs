//! Receive-side scaling of a port: the headers that are hashed, the key, and the receive queue for each hash.
//!
//! ```text
//!   any thread   Rss::set ─► configuration, and its number ─► the driver asks its device
//!   device       hash ─► table ─► queue               where it can: Rss::is_spread_by_device
//!                hash ─► header ─► Packet::hash       where it can: Rss::is_hashed_by_device
//!   software     flow_hash, for packets that the device does not hash
//! ```
//! The driver of a port that has an [`Rss`] (see [`PortControl::rss`](crate::PortControl::rss)) configures
//! each device that the port gets. The abilities of the device may therefore change while the port runs. Each
//! of the two queries above costs one load; call them once per burst.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bitflags::bitflags;
use linecard_net::toeplitz::{DEFAULT_KEY, Toeplitz};
use linecard_net::{Layers, PacketType};

use crate::error::Error;

/// The length of a key in bytes.
pub const KEY_LEN: usize = DEFAULT_KEY.len();
/// The maximum number of table entries, which every virtio device supports.
pub const MAX_TABLE: usize = 128;

bitflags! {
    /// Headers that are hashed, with the bits of virtio (`VIRTIO_NET_RSS_HASH_TYPE_…`). A packet is hashed as
    /// the most specific of its types in the set.
    ///
    /// ```
    /// use linecard_pmd::rss::RssTypes;
    /// assert_eq!(RssTypes::all().bits(), 0x3f);
    /// ```
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct RssTypes: u32 {
        /// Addresses of any IPv4 packet.
        const IPV4 = 1 << 0;
        /// Addresses and ports of TCP over IPv4.
        const IPV4_TCP = 1 << 1;
        /// Addresses and ports of UDP over IPv4.
        const IPV4_UDP = 1 << 2;
        /// Addresses of any IPv6 packet.
        const IPV6 = 1 << 3;
        /// Addresses and ports of TCP over IPv6.
        const IPV6_TCP = 1 << 4;
        /// Addresses and ports of UDP over IPv6.
        const IPV6_UDP = 1 << 5;
    }
}

/// How flows are spread over receive queues.
///
/// ```
/// use linecard_pmd::rss::RssConfig;
/// let config = RssConfig::new(3);
/// assert_eq!((config.table.len(), &config.table[..4]), (128, &[0, 1, 2, 0][..]));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RssConfig {
    /// The headers that are hashed.
    pub types: RssTypes,
    /// The key of the Toeplitz hash.
    pub key: [u8; KEY_LEN],
    /// Receive queues, indexed by the lowest bits of a hash. The length is a power of two, at most
    /// [`MAX_TABLE`].
    pub table: Vec<u16>,
}

impl RssConfig {
    /// DPDK's defaults for this number of receive queues: the usual key, all types hashed, queues in turn.
    #[must_use]
    pub fn new(queues: u16) -> Self {
        let table = (0..MAX_TABLE).zip((0..queues.max(1)).cycle()).map(|(_, queue)| queue).collect();
        Self { types: RssTypes::all(), key: DEFAULT_KEY, table }
    }
}

linecard_eal::setters!(RssConfig {
    types: RssTypes,
    key: [u8; KEY_LEN],
    table: Vec<u16>,
});

/// Hashes a parsed frame in software; `None` if its type is not to be hashed.
///
/// ```
/// use linecard_net::{parse, toeplitz::Toeplitz};
/// use linecard_pmd::rss::{RssTypes, flow_hash};
/// assert_eq!(flow_hash(Toeplitz::DEFAULT, RssTypes::all(), &[0; 60], &parse(&[0; 60])), None);
/// ```
#[must_use]
pub fn flow_hash(toeplitz: &Toeplitz, types: RssTypes, frame: &[u8], layers: &Layers) -> Option<u32> {
    let kind = layers.packet_type;
    let version = if kind.is_ipv4() {
        [RssTypes::IPV4, RssTypes::IPV4_TCP, RssTypes::IPV4_UDP]
    } else {
        [RssTypes::IPV6, RssTypes::IPV6_TCP, RssTypes::IPV6_UDP]
    };
    let [addresses, tcp, udp] = version.map(|kind| types.contains(kind));
    let with_ports = match kind.l4() {
        PacketType::L4_TCP => tcp,
        PacketType::L4_UDP => udp,
        _ => false,
    };
    if with_ports {
        return toeplitz.flow(frame, layers);
    }
    addresses.then(|| toeplitz.flow(frame, &Layers { packet_type: kind.l3(), ..*layers })).flatten()
}

/// Receive-side scaling of one started port. Any thread configures it; the driver applies it to the device.
///
/// ```
/// use linecard_pmd::rss::{Rss, RssConfig};
/// let rss = Rss::new("net_virtio_user0", 2);
/// assert!(rss.config().is_none(), "nothing is asked of the device");
/// rss.set(Some(RssConfig::new(2)))?;
/// let wrong = RssConfig::new(2).table(vec![0, 2]);
/// assert!(rss.set(Some(wrong)).is_err(), "there is no receive queue 2");
/// assert!(!rss.is_spread_by_device(), "no device has said that it does");
/// # Ok::<(), linecard_pmd::Error>(())
/// ```
pub struct Rss {
    port: String,
    queues: u16,
    /// The version of the configuration.
    number: AtomicU32,
    config: Mutex<Option<Arc<RssConfig>>>,
    spreads: AtomicBool,
    hashes: AtomicBool,
    /// Called after every change.
    changed: Mutex<Option<Box<dyn Fn() + Send + Sync>>>,
}

impl Rss {
    /// Creates the state for a port with this number of receive queues; nothing is requested from the device.
    #[must_use]
    pub fn new(port: &str, queues: u16) -> Self {
        Self {
            port: port.to_owned(),
            queues,
            number: AtomicU32::new(0),
            config: Mutex::default(),
            spreads: AtomicBool::new(false),
            hashes: AtomicBool::new(false),
            changed: Mutex::default(),
        }
    }

    /// Sets the function that is called after every change, on the thread that made it; it replaces the
    /// previous one.
    pub fn on_change(&self, changed: impl Fn() + Send + Sync + 'static) {
        *self.changed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(changed));
    }

    /// The configuration requested from the device.
    #[must_use]
    pub fn config(&self) -> Option<Arc<RssConfig>> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The version of the configuration, which changes with it.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number.load(Ordering::Acquire)
    }

    /// Requests a configuration from the device; with `None` the device decides. The device follows a moment
    /// later, if it can.
    ///
    /// # Errors
    /// The table's length is not a power of two up to [`MAX_TABLE`], or the table names a queue that does not
    /// exist; nothing changes then.
    pub fn set(&self, config: Option<RssConfig>) -> Result<(), Error> {
        if let Some(config) = &config {
            self.check(config)?;
        }
        let mut now = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        if now.as_deref() == config.as_ref() {
            return Ok(());
        }
        *now = config.map(Arc::new);
        self.number.fetch_add(1, Ordering::Release);
        drop(now);
        if let Some(changed) = &*self.changed.lock().unwrap_or_else(PoisonError::into_inner) {
            changed();
        }
        Ok(())
    }

    fn check(&self, config: &RssConfig) -> Result<(), Error> {
        let refuse = |problem, remedy| Err(Error::Argument { device: self.port.clone(), problem, remedy });
        let entries = config.table.len();
        if !entries.is_power_of_two() || entries > MAX_TABLE {
            let remedy = format!("give a power of two up to {MAX_TABLE}");
            return refuse(format!("a redirection table of {entries} entries"), remedy);
        }
        match config.table.iter().find(|queue| **queue >= self.queues) {
            Some(queue) => {
                let remedy = format!("name queues below {}, or start the port with more", self.queues);
                refuse(format!("a redirection table that names receive queue {queue}"), remedy)
            }
            None => Ok(()),
        }
    }

    /// Whether the device puts each packet into the queue that the configuration selects.
    #[must_use]
    pub fn is_spread_by_device(&self) -> bool {
        self.spreads.load(Ordering::Relaxed)
    }

    /// Whether the device reports the hash of each packet that has one.
    #[must_use]
    pub fn is_hashed_by_device(&self) -> bool {
        self.hashes.load(Ordering::Relaxed)
    }

    /// For drivers: sets what the device does from now on.
    pub fn set_by_device(&self, spreads: bool, hashes: bool) {
        self.spreads.store(spreads, Ordering::Relaxed);
        self.hashes.store(hashes, Ordering::Relaxed);
    }
}

impl fmt::Debug for Rss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rss")
            .field("port", &self.port)
            .field("config", &self.config())
            .field("spreads", &self.spreads)
            .field("hashes", &self.hashes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_that_make_no_sense_are_refused_and_change_nothing() {
        let rss = Rss::new("p", 2);
        let good = RssConfig::new(2);
        rss.set(Some(good.clone())).expect("it is good");
        let table = |table: &[u16]| good.clone().table(table.to_vec());
        for (wrong, part) in [
            (table(&[]), "0 entries"),
            (table(&[0, 1, 0]), "3 entries"),
            (table(&[0; 256]), "256 entries"),
            (table(&[0, 2]), "receive queue 2"),
            (table(&[u16::MAX]), "receive queue 65535"),
        ] {
            let error = rss.set(Some(wrong)).expect_err(part).to_string();
            assert!(error.contains(part) && error.contains("; ") && !error.contains('\n'), "{error}");
            assert_eq!(rss.config().as_deref(), Some(&good));
        }
        assert_eq!(rss.number(), 1);
        rss.set(Some(table(&[1]))).expect("one entry is a power of two");
        rss.set(None).expect("nothing asked");
        assert_eq!((rss.number(), rss.config()), (3, None));
    }

    #[test]
    fn changes_are_told_once_each() {
        let count = Arc::new(AtomicU32::new(0));
        let (rss, seen) = (Rss::new("p", 4), count.clone());
        rss.on_change(move || {
            seen.fetch_add(1, Ordering::Relaxed);
        });
        for _ in 0..2 {
            rss.set(Some(RssConfig::new(4))).expect("it is good");
        }
        rss.set(None).expect("nothing asked");
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }
}
