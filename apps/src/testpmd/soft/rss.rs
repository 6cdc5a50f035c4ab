//! Receive-side scaling as the console configures it: the Toeplitz hash of a flow, and the queue that it names. Software does what
//! the device does not.

use linecard::net::Layers;
use linecard::net::toeplitz::{DEFAULT_KEY, Toeplitz};
use linecard::pmd::rss::{self, RssConfig};

/// Entries of a redirection table.
pub(crate) const RETA_SIZE: usize = rss::MAX_TABLE;
/// Bytes of a hash key.
pub(crate) const KEY_LEN: usize = rss::KEY_LEN;

/// Which headers are hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RssTypes {
    pub(crate) ip: bool,
    pub(crate) tcp: bool,
    pub(crate) udp: bool,
}

impl RssTypes {
    /// Those of `port config all rss NAME`; `None` for what is not hashed here.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let all = Self { ip: true, tcp: true, udp: true };
        match name {
            "all" | "default" => Some(all),
            "ip" => Some(Self { tcp: false, udp: false, ..all }),
            "tcp" => Some(Self { ip: false, udp: false, ..all }),
            "udp" => Some(Self { ip: false, tcp: false, ..all }),
            "none" => Some(Self::default()),
            _ => None,
        }
    }

    pub(crate) fn any(self) -> bool {
        self.ip || self.tcp || self.udp
    }

    /// The same as a port has them.
    fn of_port(self) -> rss::RssTypes {
        use rss::RssTypes as Types;
        let all = [
            (self.ip, Types::IPV4 | Types::IPV6),
            (self.tcp, Types::IPV4_TCP | Types::IPV6_TCP),
            (self.udp, Types::IPV4_UDP | Types::IPV6_UDP),
        ];
        all.into_iter().filter(|(on, _)| *on).map(|(_, types)| types).collect()
    }

    /// As `show port rss-hash` and `show port info` list them.
    pub(crate) fn names(self) -> Vec<&'static str> {
        let ip = ["ipv4", "ipv4-frag", "ipv4-other", "ipv6", "ipv6-frag", "ipv6-other"];
        let mut names: Vec<_> = ip.into_iter().filter(|_| self.ip).collect();
        names.extend(["ipv4-tcp", "ipv6-tcp"].into_iter().filter(|_| self.tcp));
        names.extend(["ipv4-udp", "ipv6-udp"].into_iter().filter(|_| self.udp));
        names
    }
}

/// How a port spreads flows over its receive queues.
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

    /// The hash of a frame; `None` for one that is not to be hashed.
    pub(super) fn hash(&self, frame: &[u8], layers: &Layers) -> Option<u32> {
        rss::flow_hash(&self.toeplitz, self.types.of_port(), frame, layers)
    }

    /// What a device is asked to do; `None` where nothing is hashed.
    pub(super) fn for_device(&self) -> Option<RssConfig> {
        let table = self.reta.to_vec();
        self.types.any().then(|| RssConfig { types: self.types.of_port(), key: self.key, table })
    }

    /// The queue of a hash.
    pub(super) fn queue(&self, hash: u32) -> u16 {
        self.reta[hash as usize % RETA_SIZE]
    }
}
