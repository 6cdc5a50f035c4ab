//! The forwarding modes: what happens to a burst between receive and transmit.
//!
//! A mode is a type, so each gets its own polling loop; nothing asks per packet which mode it is.

mod csum;
mod echo;
mod generate;
mod rewrite;

use linecard::mempool::Burst;

pub(crate) use csum::{Checksums, Csum};
pub(crate) use echo::IcmpEcho;
pub(crate) use generate::{FlowGen, TxOnly};
pub(crate) use rewrite::{FiveTupleSwap, MacRewrite, MacSwap};

/// What a stream does with packets.
pub(crate) trait Mode: Send + 'static {
    /// Whether the stream receives at all.
    const RECEIVES: bool = true;

    /// Leaves in `packets` what is to be sent; takes out and frees what is not.
    fn step(&mut self, packets: &mut Burst);

    /// `dropped` of the packets that the last [`step`](Self::step) made could not be sent.
    fn not_sent(&mut self, dropped: usize) {
        let _ = dropped;
    }
}

/// Packets leave as they came.
pub(crate) struct Io;

impl Mode for Io {
    #[inline]
    fn step(&mut self, _packets: &mut Burst) {}
}

/// Packets are received and freed.
pub(crate) struct RxOnly;

impl Mode for RxOnly {
    #[inline]
    fn step(&mut self, packets: &mut Burst) {
        packets.clear();
    }
}

#[cfg(test)]
mod tests;
