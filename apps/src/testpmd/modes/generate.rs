//! Modes that generate packets.

use linecard::mempool::{Burst, Packet, Pool};

use super::Mode;
use crate::testpmd::frames::{self, UdpFlow};

/// The flows of `--txonly-multi-flow`: source addresses that differ in their third octet, as in DPDK.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MultiFlow {
    destination: u32,
    lcore: u32,
    next: u8,
}

impl MultiFlow {
    /// Creates the flows that lcore `lcore` sends to `destination`.
    pub(crate) fn new(destination: [u8; 4], lcore: u32) -> Self {
        Self { destination: u32::from_be_bytes(destination), lcore, next: 0 }
    }

    /// Returns the source address of the next packet.
    fn source(&mut self) -> [u8; 4] {
        let varied = self.destination | u32::from(self.next) << 8;
        self.next = self.next.wrapping_add(1);
        varied.wrapping_add(self.lcore).to_be_bytes()
    }
}

/// Sends copies of one frame, in the configured segments, or 256 flows of it in turn.
pub(crate) struct TxOnly {
    pool: Pool,
    frame: Vec<u8>,
    segments: Vec<u16>,
    flows: Option<MultiFlow>,
}

impl TxOnly {
    /// Creates packets of `flow` in segments of these lengths; with `flows`, source addresses vary.
    pub(crate) fn new(pool: Pool, flow: UdpFlow, segments: &[u16], flows: Option<MultiFlow>) -> Self {
        let len = segments.iter().map(|&len| usize::from(len)).sum();
        Self { pool, frame: flow.frame(len), segments: segments.to_vec(), flows }
    }

    fn vary(&mut self) {
        if let Some(flows) = &mut self.flows {
            frames::set_source(&mut self.frame, flows.source());
        }
    }

    /// Generates `count` packets. When the pool runs out: none, or fewer if they have several segments.
    pub(crate) fn fill(&mut self, packets: &mut Burst, count: usize) {
        if self.segments.len() > 1 {
            return self.fill_segmented(packets, count);
        }
        if self.pool.get_bulk(packets, count).is_err() {
            return;
        }
        for packet in packets.iter_mut() {
            self.vary();
            if let Some(data) = packet.append(self.frame.len()) {
                data.copy_from_slice(&self.frame);
            }
        }
    }

    fn fill_segmented(&mut self, packets: &mut Burst, count: usize) {
        while packets.len() < count {
            self.vary();
            let Some(packet) = segmented(&self.pool, &self.frame, &self.segments) else { break };
            if packets.push(packet).is_err() {
                break;
            }
        }
    }
}

impl Mode for TxOnly {
    const RECEIVES: bool = false;
    const GENERATES: bool = true;

    fn step(&mut self, packets: &mut Burst) {
        self.fill(packets, packets.capacity());
    }
}

/// Returns `frame` in segments of these lengths; `None` when the pool is empty.
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

/// Sends frames of many flows in turn and frees received packets.
pub(crate) struct FlowGen {
    pool: Pool,
    frame: Vec<u8>,
    flows: u32,
    /// Consecutive packets of a flow.
    repeat: u32,
    next: u32,
    /// Packets that flow `next` still sends before the next flow.
    left: u32,
}

/// flowgen counts the four bytes of the frame check sequence, which no port here carries.
const FCS_LEN: usize = 4;

impl FlowGen {
    /// Sends packets of `len` bytes, FCS included; `clones` copies follow each.
    pub(crate) fn new(pool: Pool, len: u32, flows: u32, clones: u16) -> Self {
        let len = usize::try_from(len).unwrap_or(usize::MAX).saturating_sub(FCS_LEN);
        let frame = UdpFlow::flowgen(0).frame(len);
        let repeat = u32::from(clones) + 1;
        Self { pool, frame, flows: flows.max(1), repeat, next: 0, left: repeat }
    }
}

impl Mode for FlowGen {
    const GENERATES: bool = true;

    fn step(&mut self, packets: &mut Burst) {
        packets.clear();
        let count = packets.capacity();
        if self.pool.get_bulk(packets, count).is_err() {
            return;
        }
        for packet in packets.iter_mut() {
            if let Some(data) = packet.append(self.frame.len()) {
                data.copy_from_slice(&self.frame);
                frames::set_flow(data, self.next);
            }
            self.left -= 1;
            if self.left == 0 {
                self.left = self.repeat;
                self.next = if self.next + 1 == self.flows { 0 } else { self.next + 1 };
            }
        }
    }

    fn not_sent(&mut self, dropped: usize) {
        // The flows of dropped packets are sent again.
        let (flows, repeat) = (u64::from(self.flows), u64::from(self.repeat));
        let (all, done) = (flows * repeat, u64::from(self.next) * repeat + repeat - u64::from(self.left));
        let at = (done + all - dropped as u64 % all) % all;
        self.next = u32::try_from(at / repeat).unwrap_or(0);
        self.left = u32::try_from(repeat - at % repeat).unwrap_or(self.repeat);
    }
}
