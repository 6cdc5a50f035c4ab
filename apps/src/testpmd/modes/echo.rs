//! Answers to ARP and ICMP echo requests.

use linecard::mempool::Burst;

use super::Mode;
use crate::testpmd::frames;
use crate::testpmd::settings::Mac;

/// Requests become answers, anything else is freed.
pub(crate) struct IcmpEcho {
    /// Answers ARP requests.
    pub(crate) own: Mac,
}

impl Mode for IcmpEcho {
    fn step(&mut self, packets: &mut Burst) {
        packets.retain(|packet| packet.data_mut().is_some_and(|data| frames::answer(data, self.own)));
    }
}
