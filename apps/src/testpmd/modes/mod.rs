//! The forwarding modes: what happens to a burst between receive and transmit.
//!
//! A mode is a type, so each gets its own polling loop; nothing asks per packet which mode it is.

mod csum;
mod echo;
mod generate;
mod noisy;
mod rewrite;
mod tunnel;

use linecard::mempool::Burst;
use linecard::pmd::TxQueue;

pub(crate) use csum::{Checksums, Csum};
pub(crate) use echo::IcmpEcho;
pub(crate) use generate::{FlowGen, MultiFlow, TxOnly};
pub(crate) use noisy::{Noisy, NoisySettings};
pub(crate) use rewrite::{FiveTupleSwap, MacRewrite, MacSwap};

/// What a stream does with packets.
pub(crate) trait Mode: Send + 'static {
    /// Whether the stream receives at all.
    const RECEIVES: bool = true;
    /// Whether packets may wait here, so that [`send`](Self::send) is to be called when there are no new ones, too.
    const HOLDS_BACK: bool = false;

    /// Whether the stream makes packets of its own, so that a burst is always full.
    const GENERATES: bool = false;

    /// Leaves in `packets` what is to be sent; takes out and frees what is not.
    fn step(&mut self, packets: &mut Burst);

    /// Makes packets that are sent before the mode begins what [`step`](Self::step) makes of its own.
    fn before_first(&mut self, packets: &mut Burst) {
        let _ = packets;
    }

    /// Sends from the front of `packets`, leaving what does not fit; returns how many packets left.
    #[inline]
    fn send(&mut self, tx: &mut dyn TxQueue, packets: &mut Burst) -> usize {
        tx.tx_burst(packets)
    }

    /// Packets given up since the last call, for want of a buffer or because they are malformed.
    #[inline]
    fn lost(&mut self) -> usize {
        0
    }

    /// When each packet that the last [`step`](Self::step) left came, in cycles; none where all came in this round.
    fn came(&self) -> &[u64] {
        &[]
    }

    /// Packets that wait here for a later round.
    fn held(&self) -> usize {
        0
    }

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
