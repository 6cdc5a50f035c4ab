//! Hashes of received packets, for the choice of the queue and for reports (virtio 1.2, Network Device:
//! Receive-side scaling, Hash reporting for incoming packets).
//!
//! ```text
//!   configuration with supported types      RSS_CONFIG                 the device spreads and hashes
//!   no configuration, hashes requested      RSS_CONFIG with defaults   the device spreads and hashes
//!   otherwise, or if the device refuses     VQ_PAIRS_SET HASH_CONFIG   the device hashes supported types
//!   otherwise                                                          software spreads and hashes
//! ```

use std::time::Instant;

use linecard_pmd::rss::{Rss, RssConfig, RssTypes};
use linecard_virtio::Features;

use super::command::Command;
use super::{HASHING, Requests};
use crate::backend::Backend;
use crate::error::Error;

/// The hashing state of a device.
#[derive(Debug)]
pub(crate) struct Hashing {
    /// The queue pairs of the port, and its receive queues.
    pairs: u16,
    queues: u16,
    /// The packet types that the device can hash.
    types: RssTypes,
    /// The version of the configuration that the device received last.
    told: Option<u32>,
    /// Whether receive-side scaling is on, with that configuration.
    spreads: bool,
}

impl Hashing {
    pub(crate) const fn new(pairs: u16, queues: u16, types: RssTypes) -> Self {
        Self { pairs, queues, types, told: None, spreads: false }
    }

    /// Returns the command that sets the queue pairs in use, if there is one; it needs `config`.
    pub(super) fn pairs<'a>(&self, features: Features, config: &'a RssConfig) -> Option<Command<'a>> {
        if features.contains(Features::NET_MQ) {
            return Some(Command::QueuePairs(self.pairs));
        }
        // The only way to use several pairs if the device does not choose by itself.
        features.contains(Features::NET_RSS).then(|| self.rss(config))
    }

    /// Returns the configuration for a port that requests none.
    pub(super) fn usual(&self) -> RssConfig {
        RssConfig::new(self.queues).types(self.types)
    }

    /// Returns the command for a configuration.
    pub(super) fn rss<'a>(&self, config: &'a RssConfig) -> Command<'a> {
        let types = config.types & self.types;
        Command::Rss { types, table: &config.table, pairs: self.pairs, key: &config.key }
    }
}

impl Requests {
    /// Passes changes of the distribution and of the hash types on to the device. Returns whether there were
    /// any. Records in `rss` what the device does.
    pub(crate) fn follow_rss(
        &mut self,
        device: &mut dyn Backend,
        rss: &Rss,
        limit: Option<Instant>,
    ) -> Result<bool, Error> {
        let number = rss.number();
        if !self.features.intersects(HASHING) || self.hashing.told == Some(number) {
            return Ok(false);
        }
        let config = rss.config();
        let spreads = self.spread(device, config.as_deref(), limit)?;
        let tells = self.features.contains(Features::NET_HASH_REPORT);
        let hashes = tells && (spreads || self.hash(device, config.as_deref(), limit)?);
        rss.set_by_device(spreads, hashes);
        self.hashing.told = Some(number);
        Ok(true)
    }

    /// Lets the device distribute flows as configured, or by its own choice. Returns whether it does so as
    /// configured.
    fn spread(
        &mut self,
        device: &mut dyn Backend,
        config: Option<&RssConfig>,
        limit: Option<Instant>,
    ) -> Result<bool, Error> {
        let able = self.features.contains(Features::NET_RSS);
        let config = config.filter(|config| able && self.can(config.types));
        let spreads = match config {
            Some(config) => self.tell(device, &self.hashing.rss(config), limit)?,
            None => false,
        };
        if !spreads && self.hashing.spreads {
            self.set_pairs(device, limit)?;
        }
        self.hashing.spreads = spreads;
        Ok(spreads)
    }

    /// Lets the device hash the configured types, or those that it can. Returns whether it does.
    fn hash(
        &mut self,
        device: &mut dyn Backend,
        config: Option<&RssConfig>,
        limit: Option<Instant>,
    ) -> Result<bool, Error> {
        let usual = self.hashing.usual();
        let spread = config.is_none() && self.features.contains(Features::NET_RSS);
        // With RSS, since some devices use only one queue if they are asked for hash reports alone.
        if spread && self.tell(device, &self.hashing.rss(&usual), limit)? {
            return Ok(true);
        }
        let RssConfig { types, ref key, .. } = *config.unwrap_or(&usual);
        Ok(self.can(types) && self.tell(device, &Command::Hash { types, key }, limit)?)
    }

    fn can(&self, types: RssTypes) -> bool {
        !types.is_empty() && self.hashing.types.contains(types)
    }
}
