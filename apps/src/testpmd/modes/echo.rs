//! Answers to ARP and ICMP echo requests.

use linecard::mempool::Burst;

use super::Mode;
use crate::testpmd::frames;
use crate::testpmd::settings::Mac;

/// Requests become answers, anything else is freed.
pub(crate) struct IcmpEcho {
    own: Mac,
    answers: Burst,
}

impl IcmpEcho {
    /// `own` answers ARP requests.
    pub(crate) fn new(own: Mac) -> Self {
        Self { own, answers: Burst::new() }
    }
}

impl Mode for IcmpEcho {
    fn step(&mut self, packets: &mut Burst) {
        for mut packet in packets.drain(..) {
            if frames::answer(packet.data_mut(), self.own) {
                // Room for all: both hold one burst.
                let _ = self.answers.push(packet);
            }
        }
        std::mem::swap(packets, &mut self.answers);
    }
}
