//! Modes that rewrite addresses of forwarded packets.

use linecard::mempool::Burst;

use super::Mode;
use crate::testpmd::frames;
use crate::testpmd::settings::Mac;

/// Sets the source to the transmit port's address and the destination to its peer's.
pub(crate) struct MacRewrite {
    pub(crate) dst: Mac,
    pub(crate) src: Mac,
}

impl Mode for MacRewrite {
    #[inline]
    fn step(&mut self, packets: &mut Burst) {
        for packet in packets.iter_mut() {
            if let Some(data) = packet.data_mut() {
                frames::set_macs(data, self.dst, self.src);
            }
        }
    }
}

/// Swaps the source and destination MAC addresses.
pub(crate) struct MacSwap;

impl Mode for MacSwap {
    #[inline]
    fn step(&mut self, packets: &mut Burst) {
        for packet in packets.iter_mut() {
            if let Some(data) = packet.data_mut() {
                frames::swap_macs(data);
            }
        }
    }
}

/// Swaps source and destination of layers 2, 3 and 4.
pub(crate) struct FiveTupleSwap;

impl Mode for FiveTupleSwap {
    #[inline]
    fn step(&mut self, packets: &mut Burst) {
        for packet in packets.iter_mut() {
            if let Some(data) = packet.data_mut() {
                frames::swap_five_tuple(data);
            }
        }
    }
}
