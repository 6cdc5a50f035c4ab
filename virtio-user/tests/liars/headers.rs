//! Packet headers: checksums and segments that are not those of the packet.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use linecard_virtio::Features;

use crate::field::{BAD_HEADER, Bystander, Field, ONE, Want};
use crate::packed::{PackedRing, USED};
use crate::support;

/// Offered by a backend whose packet headers mean something.
pub(crate) fn with_offloads() -> Features {
    support::all_features() | Features::NET_GUEST_CSUM | Features::NET_GUEST_TSO4 | Features::NET_GUEST_TSO6
}

/// Flags, gso_type, hdr_len, gso_size, csum_start, csum_offset.
type Header = (u8, u8, u16, u16, u16, u16);

pub(crate) const HEADERS: &[(&str, Header, Want)] = &[
    ("header: a checksum behind the packet", (1, 0, 0, 0, 60, 16), BAD_HEADER),
    ("header: a checksum that ends one byte behind it", (1, 0, 0, 0, 34, 25), BAD_HEADER),
    ("header: a checksum that starts at 65 535", (1, 0, 0, 0, u16::MAX, 0), BAD_HEADER),
    ("header: an offset of 65 535", (1, 0, 0, 0, 34, u16::MAX), BAD_HEADER),
    ("header: both 65 535", (1, 0, 0, 0, u16::MAX, u16::MAX), BAD_HEADER),
    ("header: segments without a checksum", (0, 1, 54, 1448, 34, 16), BAD_HEADER),
    ("header: segments of no bytes", (1, 1, 54, 0, 34, 16), BAD_HEADER),
    ("header: segments of a packet that is none of TCP", (1, 1, 54, 1448, 34, 16), BAD_HEADER),
    ("header: TCP over IPv6 in a packet that is none", (1, 4, 74, 1428, 54, 4), BAD_HEADER),
    ("header: UDP segments that were not negotiated", (1, 5, 42, 1448, 34, 6), BAD_HEADER),
    ("header: an unknown kind of segments", (1, 2, 54, 1448, 34, 16), BAD_HEADER),
    ("header: the largest kind", (1, 0x7f, 54, 1448, 34, 16), BAD_HEADER),
    ("header: congestion marks without segments", (1, 0x80, 54, 1448, 34, 16), BAD_HEADER),
    ("header: every bit", (0xff, 0xff, u16::MAX, u16::MAX, u16::MAX, u16::MAX), BAD_HEADER),
    ("header: a header length beyond the packet", (0, 0, u16::MAX, 0, 0, 0), ONE),
    ("header: unknown flags", (0xf8, 0, 0, 0, 0, 0), ONE),
];

pub(crate) fn headers_of(kind: &str, bystander: &mut Bystander) -> usize {
    for (name, (flags, gso, hdr_len, gso_size, start, offset), want) in HEADERS {
        let name = format!("{kind}: {name}");
        let field = Field::new(kind, with_offloads());
        let ring = field.backend.ring(0);
        let packed = field.backend.packed();
        let (id, addr) = match packed {
            true => PackedRing(ring).lent()[0],
            // The first available entry names the descriptor.
            false => {
                let id = ring.driver.cell::<u16>(4).expect("inside").load(Acquire);
                (id, ring.desc.cell::<u64>(16 * usize::from(id)).expect("inside").load(Acquire))
            }
        };
        let words = [hdr_len, gso_size, start, offset, &1].map(|word| word.to_le_bytes());
        let bytes = [&[*flags, *gso][..], words.as_flattened()].concat();
        field.backend.regions.bytes(addr, 12).copy_from(&bytes);
        field.backend.regions.bytes(addr + 12, 60).fill(2);
        if packed {
            PackedRing(ring).write(0, id, 72, USED);
        } else {
            ring.device.cell::<u32>(4).expect("inside").store(u32::from(id), Relaxed);
            ring.device.cell::<u32>(8).expect("inside").store(72, Relaxed);
            ring.device.cell::<u16>(2).expect("inside").store(1, Release);
        }
        field.check(&name, *want);
        bystander.goes_on(&name);
    }
    HEADERS.len()
}
