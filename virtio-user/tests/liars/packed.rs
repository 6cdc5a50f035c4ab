//! Packed rings: ids, lengths, wrap bits, and how many buffers a packet has.

use std::sync::atomic::Ordering::{Acquire, Release};

use linecard_virtio::RingMemory;

use crate::field::Want::{self, Down};
use crate::field::{BAD_COUNT, Bystander, Field, NOTHING, ONE, RUNT, SIZE};
use crate::support::{self, Backend};

/// What a backend writes into a descriptor of a packed ring.
#[derive(Clone, Copy)]
pub(crate) enum Ink {
    /// Slot, id, length, flags.
    Raw(u16, u16, u32, u16),
    /// Slot, slot whose id is given back, length: with the flags of a used descriptor.
    Lent(u16, u16, u32),
    /// `num_buffers` of the buffer that was lent at a slot.
    Count(u16, u16),
}

use Ink::{Count, Lent, Raw};

/// Flags of a used descriptor in the first lap, that the device wrote.
pub(crate) const USED: u16 = 0x8080 | 2;
/// Those of one that the driver made available in the first lap, and of one used in the second.
pub(crate) const AVAILABLE: u16 = 0x80 | 2;
pub(crate) const NEXT_LAP: u16 = 2;
pub(crate) const HALF: u16 = 0x8000 | 2;

pub(crate) struct PackedRing(pub(crate) RingMemory);

impl PackedRing {
    /// Ids and addresses as the driver wrote them, before anything was overwritten.
    pub(crate) fn lent(&self) -> Vec<(u16, u64)> {
        let word = |at| self.0.desc.cell::<u64>(at).expect("inside the ring").load(Acquire);
        let slot = |slot: usize| ((word(16 * slot + 8) >> 32) as u16, word(16 * slot));
        (0..usize::from(SIZE)).map(slot).collect()
    }

    pub(crate) fn write(&self, slot: u16, id: u16, len: u32, flags: u16) {
        let word = u64::from(len) | u64::from(id) << 32 | u64::from(flags) << 48;
        let cell = self.0.desc.cell::<u64>(16 * usize::from(slot) + 8).expect("inside the ring");
        cell.store(word, Release);
    }
}

pub(crate) fn scribble(backend: &Backend, ring: usize, writes: &[Ink]) {
    let ring = PackedRing(backend.ring(ring));
    let lent = ring.lent();
    let at = |slot: u16| lent[usize::from(slot)];
    // Last to first: what the driver waits for is written when the rest is there.
    for ink in writes.iter().rev() {
        match *ink {
            Raw(slot, id, len, flags) => ring.write(slot, id, len, flags),
            Lent(slot, from, len) => ring.write(slot, at(from).0, len, USED),
            Count(slot, count) => {
                let header = backend.regions.bytes(at(slot).1, 12);
                header.slice(10, 2).expect("a header").copy_from(&count.to_le_bytes());
            }
        }
    }
}

pub(crate) const IN_FLIGHT: &str = "receive queue 0: peer returned buffer id";
pub(crate) const TOO_LONG: &str = "receive queue 0: peer claims to have written";

pub(crate) const PACKED_RECEIVE: &[(&str, &[Ink], Want)] = &[
    ("packed rx: an id beyond the ring", &[Raw(0, SIZE, 76, USED)], Down(IN_FLIGHT)),
    ("packed rx: the largest id", &[Raw(0, u16::MAX, 76, USED)], Down(IN_FLIGHT)),
    ("packed rx: an id twice", &[Count(0, 1), Lent(0, 0, 76), Lent(1, 0, 76)], Down(IN_FLIGHT)),
    ("packed rx: one byte too many", &[Lent(0, 0, 2061)], Down(TOO_LONG)),
    ("packed rx: four billion bytes", &[Lent(0, 0, u32::MAX)], Down(TOO_LONG)),
    ("packed rx: used for the next lap", &[Raw(0, 0, 76, NEXT_LAP)], NOTHING),
    ("packed rx: still available", &[Raw(0, 0, 76, AVAILABLE)], NOTHING),
    ("packed rx: half of the wrap bits", &[Raw(0, 0, 76, HALF)], NOTHING),
    ("packed rx: the second before the first", &[Lent(1, 1, 76)], NOTHING),
    ("packed rx: the last of the ring first", &[Lent(SIZE - 1, 5, 76)], NOTHING),
    ("packed rx: no bytes", &[Lent(0, 0, 0)], RUNT),
    ("packed rx: half a header", &[Lent(0, 0, 11)], RUNT),
    ("packed rx: a header only", &[Lent(0, 0, 12)], RUNT),
    ("packed rx: half an Ethernet header", &[Lent(0, 0, 25)], RUNT),
    ("packed rx: no buffers", &[Count(0, 0), Lent(0, 0, 76)], BAD_COUNT),
    ("packed rx: a buffer that is not there", &[Count(0, 2), Lent(0, 0, 76)], BAD_COUNT),
    ("packed rx: more buffers than the ring", &[Count(0, SIZE + 1), Lent(0, 0, 76)], BAD_COUNT),
    ("packed rx: most buffers", &[Count(0, u16::MAX), Lent(0, 0, 76)], BAD_COUNT),
    (
        "packed rx: an impossible continuation",
        &[Count(0, 2), Lent(0, 0, 76), Raw(1, 999, 5, USED)],
        Down(IN_FLIGHT),
    ),
    ("packed rx: a good one", &[Count(0, 1), Lent(0, 0, 76)], ONE),
    ("packed rx: a good one, out of order", &[Count(5, 1), Lent(0, 5, 76)], ONE),
];

pub(crate) const TX_IN_FLIGHT: &str = "transmit queue 0: peer returned buffer id";

pub(crate) const PACKED_TRANSMIT: &[(&str, &[Ink], Want)] = &[
    ("packed tx: an id beyond the ring", &[Raw(0, SIZE, 0, USED)], Down(TX_IN_FLIGHT)),
    ("packed tx: the largest id", &[Raw(0, u16::MAX, 0, USED)], Down(TX_IN_FLIGHT)),
    ("packed tx: an id that is not in flight", &[Raw(0, 60, 0, USED)], Down(TX_IN_FLIGHT)),
    ("packed tx: an id twice", &[Lent(0, 0, 0), Lent(1, 0, 0)], Down(TX_IN_FLIGHT)),
    ("packed tx: used for the next lap", &[Raw(0, 0, 0, NEXT_LAP)], NOTHING),
    ("packed tx: half of the wrap bits", &[Raw(0, 0, 0, HALF)], NOTHING),
    ("packed tx: what was never sent", &[Lent(40, 3, 0)], NOTHING),
];

/// Both directions; how many lies.
pub(crate) fn lies(bystander: &mut Bystander) -> usize {
    for (name, writes, want) in PACKED_RECEIVE {
        let field = Field::new("packed_vq=1,in_order=0", support::all_features());
        scribble(&field.backend, 0, writes);
        field.check(name, *want);
        bystander.goes_on(name);
    }
    for (name, writes, want) in PACKED_TRANSMIT {
        let mut field = Field::new("packed_vq=1,in_order=0", support::all_features());
        field.send(32);
        scribble(&field.backend, 1, writes);
        field.check(name, *want);
        bystander.goes_on(name);
    }
    PACKED_RECEIVE.len() + PACKED_TRANSMIT.len()
}
