//! Hashes of received packets: what the device chooses a queue by, and what it tells (virtio 1.2, Network Device: Receive-side
//! scaling, Hash reporting for incoming packets).
//!
//! ```text
//!   configuration, and it has the types     RSS_CONFIG                 queues and hashes are the device's
//!   none, and hashes are asked for          RSS_CONFIG, the usual one  both are
//!   else, or it refuses                     VQ_PAIRS_SET HASH_CONFIG   hashes are, where it has the types
//!   else                                                               both are left to software
//! ```

use std::time::Instant;

use linecard_pmd::rss::{Rss, RssConfig, RssTypes};
use linecard_virtio::Features;

use super::command::Command;
use super::{HASHING, Requests};
use crate::backend::Backend;
use crate::error::Error;

/// What is known of a device that hashes.
#[derive(Debug)]
pub(crate) struct Hashing {
    /// Queue pairs of the port, and its receive queues.
    pairs: u16,
    queues: u16,
    /// What the device can hash.
    types: RssTypes,
    /// The number of the configuration that it was told last.
    told: Option<u32>,
    /// Its receive-side scaling is on, with that configuration.
    spreads: bool,
}

impl Hashing {
    pub(crate) const fn new(pairs: u16, queues: u16, types: RssTypes) -> Self {
        Self { pairs, queues, types, told: None, spreads: false }
    }

    /// The command that sets the queue pairs in use, where there is one; it needs `config`.
    pub(super) fn pairs<'a>(&self, features: Features, config: &'a RssConfig) -> Option<Command<'a>> {
        if features.contains(Features::NET_MQ) {
            return Some(Command::QueuePairs(self.pairs));
        }
        // The only way to have several where the device does not choose for itself.
        features.contains(Features::NET_RSS).then(|| self.rss(config))
    }

    /// The configuration for a port that asks for none.
    pub(super) fn usual(&self) -> RssConfig {
        RssConfig::new(self.queues).types(self.types)
    }

    /// The command for a configuration.
    pub(super) fn rss<'a>(&self, config: &'a RssConfig) -> Command<'a> {
        let types = config.types & self.types;
        Command::Rss { types, table: &config.table, pairs: self.pairs, key: &config.key }
    }
}

impl Requests {
    /// Tells the device how to spread flows and what to hash, where that has changed since last time; whether it had. What the
    /// device does is noted in `rss`.
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

    /// Has the device spread flows as configured, or as it likes; whether it does as configured.
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

    /// Has the device hash what is configured, or what it can; whether it does.
    fn hash(
        &mut self,
        device: &mut dyn Backend,
        config: Option<&RssConfig>,
        limit: Option<Instant>,
    ) -> Result<bool, Error> {
        let usual = self.hashing.usual();
        let spread = config.is_none() && self.features.contains(Features::NET_RSS);
        // With a queue by the hash: there are devices that use one queue alone where they are asked for hashes alone.
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
