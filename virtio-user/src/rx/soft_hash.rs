//! Computes hashes of received packets in software, if they are requested and the device does not report
//! them.

use std::sync::Arc;

use linecard_mempool::Burst;
use linecard_net::parse;
use linecard_net::toeplitz::Toeplitz;
use linecard_pmd::Armed;
use linecard_pmd::rss::{Rss, RssTypes, flow_hash};

use crate::path::{Came, RxPath};

/// A receive path that adds hashes, computed with the port's key, to its packets.
pub(crate) struct SoftHash {
    path: Box<dyn RxPath>,
    rss: Arc<Rss>,
    /// The version of the configuration below.
    number: u32,
    types: RssTypes,
    toeplitz: Box<Toeplitz>,
}

impl SoftHash {
    pub(crate) fn around(path: Box<dyn RxPath>, rss: &Arc<Rss>) -> Box<dyn RxPath> {
        let toeplitz = Box::new(Toeplitz::DEFAULT.clone());
        let mut hashing = Self { path, rss: rss.clone(), number: 0, types: RssTypes::all(), toeplitz };
        hashing.follow();
        Box::new(hashing)
    }

    /// Reads the port's current configuration.
    #[cold]
    fn follow(&mut self) {
        self.number = self.rss.number();
        let config = self.rss.config();
        self.types = config.as_ref().map_or(RssTypes::all(), |config| config.types);
        let key = config.map(|config| Toeplitz::new(&config.key));
        *self.toeplitz = key.unwrap_or_else(|| Toeplitz::DEFAULT.clone());
    }
}

impl RxPath for SoftHash {
    fn burst(&mut self, packets: &mut Burst) -> Came {
        let came = self.path.burst(packets);
        if came.packets == 0 || self.rss.is_hashed_by_device() {
            return came;
        }
        if self.number != self.rss.number() {
            self.follow();
        }
        let first = packets.len().saturating_sub(came.packets);
        for packet in packets.iter_mut().skip(first) {
            let layers = parse(packet.data());
            if let Some(hash) = flow_hash(&self.toeplitz, self.types, packet.data(), &layers) {
                packet.set_hash(hash);
            }
        }
        came
    }

    fn arm(&mut self) -> Armed {
        self.path.arm()
    }

    fn disarm(&mut self) {
        self.path.disarm();
    }

    fn used(&mut self) -> u16 {
        self.path.used()
    }
}
