//! Answers to ARP and ICMP echo requests.

use linecard::mempool::Burst;

use super::Mode;
use crate::testpmd::frames;
use crate::testpmd::settings::Mac;

/// Turns requests into replies and frees all other packets.
pub(crate) struct IcmpEcho {
    /// The address in ARP replies.
    pub(crate) own: Mac,
}

impl Mode for IcmpEcho {
    fn step(&mut self, packets: &mut Burst) {
        packets.retain(|packet| packet.data_mut().is_some_and(|data| frames::answer(data, self.own)));
    }
}
