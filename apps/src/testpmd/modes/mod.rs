//! The forwarding modes: the processing of a burst between receive and transmit.
//!
//! Each mode is a type and so has a polling loop of its own; there is no branch on the mode per packet.

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

/// A forwarding mode of a stream.
pub(crate) trait Mode: Send + 'static {
    /// Whether the stream receives packets.
    const RECEIVES: bool = true;
    /// Whether the mode may hold packets back, so that [`send`](Self::send) has to be called without new ones
    /// too.
    const HOLDS_BACK: bool = false;

    /// Whether the stream generates packets, so that a burst is always full.
    const GENERATES: bool = false;

    /// Leaves the packets to send in `packets`; removes and frees the others.
    fn step(&mut self, packets: &mut Burst);

    /// Processes packets that are sent before the mode begins as [`step`](Self::step) would its own.
    fn before_first(&mut self, packets: &mut Burst) {
        let _ = packets;
    }

    /// Sends from the front of `packets` and leaves those that do not fit; returns how many were sent.
    #[inline]
    fn send(&mut self, tx: &mut dyn TxQueue, packets: &mut Burst) -> usize {
        tx.tx_burst(packets)
    }

    /// Returns the packets dropped since the last call, for lack of a buffer or because they are malformed.
    #[inline]
    fn lost(&mut self) -> usize {
        0
    }

    /// The times at which the packets left by the last [`step`](Self::step) were received, in cycles; empty
    /// if all were received in this round.
    fn came(&self) -> &[u64] {
        &[]
    }

    /// The packets that wait in the mode for a later round.
    fn held(&self) -> usize {
        0
    }

    /// Reports that `dropped` of the packets from the last [`step`](Self::step) could not be sent.
    fn not_sent(&mut self, dropped: usize) {
        let _ = dropped;
    }
}

/// Forwards packets unchanged.
pub(crate) struct Io;

impl Mode for Io {
    #[inline]
    fn step(&mut self, _packets: &mut Burst) {}
}

/// Receives packets and frees them.
pub(crate) struct RxOnly;

impl Mode for RxOnly {
    #[inline]
    fn step(&mut self, packets: &mut Burst) {
        packets.clear();
    }
}

#[cfg(test)]
mod tests;
