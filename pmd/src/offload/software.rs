//! Software for the offloads that the peer does not accept: checksums are completed and large packets
//! segmented.

use std::collections::VecDeque;
use std::sync::Arc;

use linecard_mempool::{Burst, Offload, Packet, Pool};
use linecard_net::checksum::Sum;
use linecard_net::gso::Segmenter;
use linecard_net::offload::{self, Partial};

use super::{AcceptedOffloads, Malformed, TxRequest};
use crate::stats::{Cause, QueueStats};

/// The maximum number of segments of one packet: 64 KiB at the smallest segment size that systems accept
/// (88), with a margin.
const MOST_SEGMENTS: usize = 1024;
/// The flags that are cleared once the requested work is done.
const DONE: Offload = Offload::from_bits_retain(
    Offload::TX_OFFLOAD_MASK.bits() & !Offload::TX_VLAN.bits()
        | Offload::RX_L4_CKSUM_MASK.bits()
        | Offload::RX_LRO.bits(),
);

/// Why software could not prepare a packet. [`soft_causes!`](crate::soft_causes) maps each reason to a
/// queue's own cause.
///
/// ```
/// assert_ne!(linecard_pmd::offload::SoftLoss::Malformed, linecard_pmd::offload::SoftLoss::Stopped);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoftLoss {
    /// The offload flags do not fit the packet, or it would need more segments than any system sends.
    Malformed,
    /// The pool had no buffers for a copy or for segments.
    NoBuffer,
    /// Segments were not sent when the queue ended.
    Stopped,
}

impl SoftLoss {
    /// The comment on such a packet in a capture.
    const fn comment(self) -> &'static str {
        match self {
            Self::Malformed => "bad_offload",
            Self::NoBuffer => "no_buffer",
            Self::Stopped => "stopped",
        }
    }
}

/// Converts [`SoftLoss`] to a queue's causes: `BadOffload`, `NoBuffer`, and `Stopped` or the cause named.
///
/// ```
/// use linecard_pmd::offload::SoftLoss;
/// use linecard_pmd::stats::Total;
/// linecard_pmd::causes! {
///     /// Why a transmit queue drops.
///     enum TxLoss {
///         /// What the metadata asks for cannot be done.
///         BadOffload = ("bad_offload", Total::Error),
///         /// The pool was empty.
///         NoBuffer = ("no_buffer", Total::Error),
///         /// The peer is gone.
///         NoPeer = ("no_peer", Total::Error),
///     }
/// }
/// linecard_pmd::soft_causes!(TxLoss, stopped: NoPeer);
/// assert_eq!(TxLoss::from(SoftLoss::Stopped), TxLoss::NoPeer);
/// ```
#[macro_export]
macro_rules! soft_causes {
    ($name:ident) => { $crate::soft_causes!($name, stopped: Stopped); };
    ($name:ident, stopped: $stopped:ident) => {
        impl From<$crate::offload::SoftLoss> for $name {
            fn from(loss: $crate::offload::SoftLoss) -> Self {
                match loss {
                    $crate::offload::SoftLoss::Malformed => Self::BadOffload,
                    $crate::offload::SoftLoss::NoBuffer => Self::NoBuffer,
                    $crate::offload::SoftLoss::Stopped => Self::$stopped,
                }
            }
        }
    };
}

impl From<Malformed> for SoftLoss {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// Prepares packets for a receiver that accepts less than their metadata requests.
///
/// Segments of a large packet wait here until the queue behind has room; no other packet overtakes them.
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Burst, Pool, PoolConfig};
/// use linecard_pmd::offload::{SoftTx, AcceptedOffloads};
/// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// let mut soft = SoftTx::new(pool.clone(), |_cause, _packets| {});
/// let mut packets = Burst::new();
/// pool.get_bulk(&mut packets, 8)?;
/// let taken = soft.burst(&mut packets, AcceptedOffloads::default(), |ready| ready.clear());
/// assert_eq!((taken, packets.len()), (8, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SoftTx {
    pool: Pool,
    lost: Box<dyn Fn(SoftLoss, u64) + Send>,
    /// Segments that wait to be sent.
    waiting: VecDeque<Packet>,
    /// The packet being segmented, in contiguous memory, and one of its segments.
    large: Vec<u8>,
    segment: Vec<u8>,
}

impl SoftTx {
    /// Takes buffers for copies and segments from `pool`; calls `lost` for packets that cannot be sent.
    pub fn new(pool: Pool, lost: impl Fn(SoftLoss, u64) + Send + 'static) -> Self {
        let (large, segment) = (Vec::new(), Vec::new());
        Self { pool, lost: Box::new(lost), waiting: VecDeque::new(), large, segment }
    }

    /// As [`new`](Self::new), counting lost packets in the `stats` of the transmit queue.
    pub fn counting<L: Cause + From<SoftLoss> + Send + 'static>(
        pool: Pool,
        stats: Arc<QueueStats<L>>,
    ) -> Self {
        Self::new(pool, move |loss, packets| stats.lost(loss.into(), packets))
    }

    /// Sends from the front of `packets` through `send`, which takes packets from the front of its argument
    /// and leaves the rest. Returns how many of `packets` were handled; the rest stays.
    pub fn burst(
        &mut self,
        packets: &mut Burst,
        accepted: AcceptedOffloads,
        mut send: impl FnMut(&mut Burst) -> usize,
    ) -> usize {
        let before = packets.len();
        while self.flush(&mut send) && !packets.is_empty() {
            let ready = packets
                .iter_mut()
                .position(|packet| !self.is_ready(packet, accepted))
                .unwrap_or(packets.len());
            if ready == packets.len() {
                send(packets);
                break;
            }
            if ready > 0 {
                if !send_front(packets, ready, &mut send) {
                    break;
                }
                continue;
            }
            let Some(mut packet) = packets.drain(..1).next() else { break };
            match self.cut(&mut packet, accepted) {
                Ok(true) => self.waiting.push_back(packet),
                Ok(false) => {}
                Err(loss) => {
                    (self.lost)(loss, 1);
                    crate::observer::dropped(&packet, loss.comment());
                }
            }
        }
        before - packets.len()
    }

    /// Sends waiting segments; true if none is left.
    pub fn flush(&mut self, mut send: impl FnMut(&mut Burst) -> usize) -> bool {
        while !self.waiting.is_empty() {
            let mut some = Burst::new();
            some.fill_from(&mut std::iter::from_fn(|| self.waiting.pop_front()));
            crate::observer::in_pieces(|| send(&mut some));
            let full = !some.is_empty();
            while let Some(packet) = some.pop() {
                self.waiting.push_front(packet);
            }
            if full {
                return false;
            }
        }
        true
    }

    /// Whether a packet can be sent, possibly after its checksum was completed.
    fn is_ready(&self, packet: &mut Packet, accepted: AcceptedOffloads) -> bool {
        match TxRequest::of(packet) {
            Ok(None) => true,
            Ok(Some(asked)) if asked.gso.is_some() && !asked.is_taken(accepted) => false,
            Ok(Some(asked)) => prepare(packet, &asked, accepted, &self.pool).is_ok(),
            Err(Malformed) => false,
        }
    }

    /// Segments a packet that was not ready (false), or makes it ready after all (true).
    fn cut(&mut self, packet: &mut Packet, accepted: AcceptedOffloads) -> Result<bool, SoftLoss> {
        let asked = TxRequest::of(packet)?.ok_or(SoftLoss::Malformed)?;
        let Some(size) = asked.gso.filter(|_| !asked.is_taken(accepted)) else {
            // Preparing the packet failed before. Its receiver does the segmentation, if any is needed. Now
            // return the reason.
            return prepare(packet, &asked, accepted, &self.pool).map(|()| true);
        };
        self.large.clear();
        packet.segments().for_each(|segment| self.large.extend_from_slice(&segment));
        let payload =
            self.large.len().checked_sub(asked.layers.payload_start()).ok_or(SoftLoss::Malformed)?;
        let cut = Segmenter::new(&asked.layers, payload, size).ok_or(SoftLoss::Malformed)?;
        if cut.segments() > MOST_SEGMENTS {
            return Err(SoftLoss::Malformed);
        }
        self.segment.resize(cut.header_len() + usize::from(size), 0);
        for index in 0..cut.segments() {
            let made = self.make(&cut, index);
            match made {
                Ok(segment) => self.waiting.push_back(segment),
                Err(loss) => {
                    self.waiting.clear();
                    return Err(loss);
                }
            }
        }
        Ok(false)
    }

    fn make(&mut self, cut: &Segmenter, index: usize) -> Result<Packet, SoftLoss> {
        let len = cut.segment(&self.large, index, &mut self.segment).ok_or(SoftLoss::Malformed)?;
        let bytes = self.segment.get(..len).unwrap_or_default();
        self.pool.packet_of(bytes, usize::MAX).ok_or(SoftLoss::NoBuffer)
    }
}

impl Drop for SoftTx {
    fn drop(&mut self) {
        if !self.waiting.is_empty() {
            (self.lost)(SoftLoss::Stopped, self.waiting.len() as u64);
        }
    }
}

impl std::fmt::Debug for SoftTx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SoftTx").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

/// Sends the first `n` packets; true if all were taken. The others stay at the front.
fn send_front(packets: &mut Burst, n: usize, send: &mut impl FnMut(&mut Burst) -> usize) -> bool {
    let mut front = Burst::with_capacity(packets.capacity());
    front.fill_from(&mut packets.drain(..n));
    send(&mut front);
    let all = front.is_empty();
    front.take_from(packets);
    std::mem::swap(&mut front, packets);
    all
}

/// Prepares a packet for sending: the checksum is prepared for a receiver that completes it, or completed
/// here. Repeating it changes nothing.
fn prepare(
    packet: &mut Packet,
    asked: &TxRequest,
    accepted: AcceptedOffloads,
    pool: &Pool,
) -> Result<(), SoftLoss> {
    let layers = &asked.layers;
    let end = layers.l4_start() + layers.transport_len as usize;
    // A receiver sums to the packet's end: bytes behind the datagram must not count.
    let exact = asked.prepared || asked.gso.is_some() || end == packet.len();
    let left = !asked.csum || accepted.csum && exact;
    if left && asked.prepared {
        return Ok(());
    }
    reach(packet, layers.payload_start(), pool)?;
    if asked.ip {
        let data = packet.data_mut().ok_or(SoftLoss::NoBuffer)?;
        offload::fill_ipv4(data, layers).map_err(|_| SoftLoss::Malformed)?;
    }
    if asked.csum {
        let partial = Partial::of(layers).ok_or(SoftLoss::Malformed)?;
        if !asked.prepared {
            offload::prepare(packet.data_mut().ok_or(SoftLoss::NoBuffer)?, layers)
                .ok_or(SoftLoss::Malformed)?;
        }
        let end = if asked.prepared { packet.len() } else { end };
        if !left && !finish(packet, partial, end) {
            return Err(SoftLoss::Malformed);
        }
    }
    let done = if left && asked.csum { Offload::TX_IP_CKSUM } else { DONE };
    packet.set_offload(packet.offload() & !done);
    Ok(())
}

/// Makes the first `len` bytes of a packet writable, in one segment.
fn reach(packet: &mut Packet, len: usize, pool: &Pool) -> Result<(), SoftLoss> {
    if packet.data_len() < len {
        *packet = packet.copy(pool).ok_or(SoftLoss::NoBuffer)?;
    }
    // `data_mut` returns `None` if the packet is shared and there is no buffer for a copy.
    packet.data_mut().filter(|data| data.len() >= len).map(drop).ok_or(SoftLoss::NoBuffer)
}

/// Completes a checksum over the bytes from `partial.csum_start` to `end`. False if the packet is shorter, if
/// the checksum field is not in the first segment, or if that segment is shared and there is no buffer for a
/// copy.
pub(super) fn finish(packet: &mut Packet, partial: Partial, end: usize) -> bool {
    let start = usize::from(partial.csum_start);
    if end > packet.len() || start > end {
        return false;
    }
    let mut at = 0;
    let sum = packet.segments().fold(Sum::ZERO, |sum, segment| {
        let from = start.saturating_sub(at).min(segment.len());
        let to = end.saturating_sub(at).min(segment.len());
        at += segment.len();
        sum.add_bytes(segment.get(from..to).unwrap_or_default())
    });
    let Some(field) = packet.data_mut().and_then(|data| data.get_mut(partial.field())) else { return false };
    field.copy_from_slice(&sum.checksum_nonzero().to_be_bytes());
    true
}

/// Performs in software what the metadata of a packet requests, except segmentation.
///
/// # Errors
/// [`SoftLoss::Malformed`], also for a packet that must be segmented; [`SoftLoss::NoBuffer`] if the packet is
/// shared and there is no buffer for a copy.
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Pool, PoolConfig};
/// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// let mut packet = pool.get().ok_or("empty")?;
/// assert_eq!(linecard_pmd::offload::do_now(&mut packet, &pool), Ok(())); // it asks for nothing
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn do_now(packet: &mut Packet, pool: &Pool) -> Result<(), SoftLoss> {
    match TxRequest::of(packet)? {
        None => Ok(()),
        Some(asked) if asked.gso.is_some() => Err(SoftLoss::Malformed),
        Some(asked) => prepare(packet, &asked, AcceptedOffloads::default(), pool),
    }
}

/// Completes the checksums of packets that were received with a partial one, for an application that does not
/// handle them. Large packets stay unchanged. Returns how many could not be completed; those keep their flag.
///
/// ```
/// assert_eq!(linecard_pmd::offload::finish_received(&mut []), 0);
/// ```
pub fn finish_received(packets: &mut [Packet]) -> usize {
    let mut failed = 0;
    for packet in packets {
        let flags = packet.offload();
        let unfinished = flags & Offload::RX_L4_CKSUM_MASK == Offload::RX_L4_CKSUM_NONE;
        if !unfinished || flags.contains(Offload::RX_LRO) {
            continue;
        }
        let partial = TxRequest::of(packet).ok().flatten().and_then(|asked| asked.request().partial);
        if partial.is_some_and(|partial| finish(packet, partial, packet.len())) {
            packet.set_offload(flags & !Offload::RX_L4_CKSUM_MASK);
        } else {
            failed += 1;
        }
    }
    failed
}
