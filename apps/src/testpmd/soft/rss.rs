//! Receive-side scaling as configured in the console: the Toeplitz hash of a flow selects its queue. Done in
//! software if the device does not.

use linecard::net::Layers;
use linecard::net::toeplitz::{DEFAULT_KEY, Toeplitz};
use linecard::pmd::rss::{self, RssConfig, RssTypes as Types};

/// Entries of a redirection table.
pub(crate) const RETA_SIZE: usize = rss::MAX_TABLE;
/// Bytes of a hash key.
pub(crate) const KEY_LEN: usize = rss::KEY_LEN;

/// The headers that are hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RssTypes(Types);

impl RssTypes {
    /// The types of `port config all rss NAME`; `None` if the name is not supported.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let types = match name {
            "all" | "default" => Types::all(),
            "ip" => Types::IPV4 | Types::IPV6,
            "tcp" => Types::IPV4_TCP | Types::IPV6_TCP,
            "udp" => Types::IPV4_UDP | Types::IPV6_UDP,
            "none" => Types::empty(),
            _ => return None,
        };
        Some(Self(types))
    }

    /// The type of `port config all rss NUMBER`, one of DPDK's `RTE_ETH_FLOW_*`; `None` if it is not
    /// supported.
    pub(crate) fn numbered(flow: u64) -> Option<Self> {
        let types = match flow {
            2 => Types::IPV4,
            4 => Types::IPV4_TCP,
            5 => Types::IPV4_UDP,
            8 => Types::IPV6,
            10 => Types::IPV6_TCP,
            11 => Types::IPV6_UDP,
            _ => return None,
        };
        Some(Self(types))
    }

    pub(crate) fn any(self) -> bool {
        !self.0.is_empty()
    }

    /// The names that `show port rss-hash` and `show port info` list.
    pub(crate) fn names(self) -> Vec<&'static str> {
        let all: [(Types, &[&str]); 6] = [
            (Types::IPV4, &["ipv4", "ipv4-frag", "ipv4-other"]),
            (Types::IPV6, &["ipv6", "ipv6-frag", "ipv6-other"]),
            (Types::IPV4_TCP, &["ipv4-tcp"]),
            (Types::IPV6_TCP, &["ipv6-tcp"]),
            (Types::IPV4_UDP, &["ipv4-udp"]),
            (Types::IPV6_UDP, &["ipv6-udp"]),
        ];
        let named = all.into_iter().filter(|(types, _)| self.0.contains(*types));
        named.flat_map(|(_, names)| names.iter().copied()).collect()
    }
}

/// How a port distributes flows over its receive queues.
#[derive(Clone)]
pub(crate) struct Rss {
    pub(crate) types: RssTypes,
    pub(crate) key: [u8; KEY_LEN],
    pub(crate) reta: [u16; RETA_SIZE],
    toeplitz: Box<Toeplitz>,
}

impl Rss {
    /// DPDK's defaults for a port with `queues` receive queues.
    pub(crate) fn new(queues: u16) -> Self {
        Self {
            types: RssTypes::default(),
            key: DEFAULT_KEY,
            reta: std::array::from_fn(|entry| entry as u16 % queues.max(1)),
            toeplitz: Box::new(Toeplitz::DEFAULT.clone()),
        }
    }

    pub(crate) fn set_key(&mut self, key: [u8; KEY_LEN]) {
        (self.key, *self.toeplitz) = (key, Toeplitz::new(&key));
    }

    /// Returns the hash of a frame; `None` if its type is not hashed.
    pub(super) fn hash(&self, frame: &[u8], layers: &Layers) -> Option<u32> {
        rss::flow_hash(&self.toeplitz, self.types.0, frame, layers)
    }

    /// The configuration for a device; `None` if nothing is hashed.
    pub(super) fn for_device(&self) -> Option<RssConfig> {
        let table = self.reta.to_vec();
        self.types.any().then_some(RssConfig::new(1).types(self.types.0).key(self.key).table(table))
    }

    /// Returns the queue for a hash.
    pub(super) fn queue(&self, hash: u32) -> u16 {
        self.reta[hash as usize % RETA_SIZE]
    }
}
