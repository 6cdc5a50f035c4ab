//! Modes that make packets of their own.

use linecard::mempool::{BURST, Burst, Packet, Pool};

use super::Mode;
use crate::testpmd::frames::{self, UdpFlow};

/// Sends one frame over and over, in as many segments as asked for.
pub(crate) struct TxOnly {
    pool: Pool,
    frame: Vec<u8>,
    segments: Vec<u16>,
    burst: usize,
}

impl TxOnly {
    /// `burst` packets at a time, at most [`BURST`].
    pub(crate) fn new(pool: Pool, flow: UdpFlow, segments: &[u16], burst: usize) -> Self {
        let len = segments.iter().map(|&len| usize::from(len)).sum();
        Self { pool, frame: flow.frame(len), segments: segments.to_vec(), burst: burst.clamp(1, BURST) }
    }

    /// Makes `count` packets, or fewer when the pool runs out.
    pub(crate) fn fill(&self, packets: &mut Burst, count: usize) {
        if self.segments.len() > 1 {
            return self.fill_segmented(packets, count);
        }
        if !self.pool.get_bulk(packets, count) {
            return;
        }
        for packet in packets.iter_mut() {
            if let Some(data) = packet.append(self.frame.len()) {
                data.copy_from_slice(&self.frame);
            }
        }
    }

    fn fill_segmented(&self, packets: &mut Burst, count: usize) {
        while packets.len() < count {
            let Some(packet) = segmented(&self.pool, &self.frame, &self.segments) else { break };
            if packets.push(packet).is_err() {
                break;
            }
        }
    }
}

impl Mode for TxOnly {
    const RECEIVES: bool = false;

    fn step(&mut self, packets: &mut Burst) {
        self.fill(packets, self.burst);
    }
}

/// `frame` cut into segments of these lengths; `None` when the pool is empty.
fn segmented(pool: &Pool, frame: &[u8], lengths: &[u16]) -> Option<Packet> {
    let mut rest = frame;
    let mut whole: Option<Packet> = None;
    for &len in lengths {
        let mut segment = pool.get()?;
        let (head, tail) = rest.split_at_checked(usize::from(len))?;
        segment.append(head.len())?.copy_from_slice(head);
        rest = tail;
        match &mut whole {
            None => whole = Some(segment),
            Some(first) => first.chain(segment).ok()?,
        }
    }
    whole
}

/// Sends frames of many flows in turn and frees what it receives.
pub(crate) struct FlowGen {
    pool: Pool,
    frame: Vec<u8>,
    flows: u32,
    next: u32,
    burst: usize,
}

/// flowgen counts the four bytes of the frame check sequence, which no port of ours carries.
const FCS_LEN: usize = 4;

impl FlowGen {
    /// `burst` packets of `len` bytes (FCS included) at a time.
    pub(crate) fn new(pool: Pool, len: u32, flows: u32, burst: usize) -> Self {
        let len = usize::try_from(len).unwrap_or(usize::MAX).saturating_sub(FCS_LEN);
        let frame = UdpFlow::flowgen(0).frame(len);
        Self { pool, frame, flows: flows.max(1), next: 0, burst: burst.clamp(1, BURST) }
    }
}

impl Mode for FlowGen {
    fn step(&mut self, packets: &mut Burst) {
        packets.clear();
        if !self.pool.get_bulk(packets, self.burst) {
            return;
        }
        for packet in packets.iter_mut() {
            if let Some(data) = packet.append(self.frame.len()) {
                data.copy_from_slice(&self.frame);
                frames::set_flow(data, self.next);
            }
            self.next = if self.next + 1 == self.flows { 0 } else { self.next + 1 };
        }
    }

    fn not_sent(&mut self, dropped: usize) {
        // A flow whose packet was dropped has its turn again.
        let dropped = u32::try_from(dropped).unwrap_or(0) % self.flows;
        self.next = (self.next + self.flows - dropped) % self.flows;
    }
}
