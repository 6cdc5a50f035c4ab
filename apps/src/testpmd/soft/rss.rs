//! Receive-side scaling in software: the Toeplitz hash of a flow, and the queue that it names.

use linecard::net::toeplitz::{DEFAULT_KEY, Toeplitz};
use linecard::net::{Layers, PacketType};

/// Entries of a redirection table.
pub(crate) const RETA_SIZE: usize = 128;
/// Bytes of a hash key.
pub(crate) const KEY_LEN: usize = 40;

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
        let with_ports = match layers.packet_type.l4() {
            PacketType::L4_TCP => self.types.tcp,
            PacketType::L4_UDP => self.types.udp,
            _ => false,
        };
        if with_ports {
            return self.toeplitz.flow(frame, layers);
        }
        let addresses = Layers { packet_type: layers.packet_type.l3(), ..*layers };
        self.types.ip.then(|| self.toeplitz.flow(frame, &addresses)).flatten()
    }

    /// The queue of a hash.
    pub(super) fn queue(&self, hash: u32) -> u16 {
        self.reta[hash as usize % RETA_SIZE]
    }
}
