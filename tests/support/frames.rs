//! TCP and UDP frames, with checksums computed in the simplest way: a reference that shares no code with the
//! code under test.
#![allow(dead_code, reason = "each test target uses its own part")]

use linecard::mempool::Offload;

/// TCP or UDP over IPv4 or IPv6.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) v6: bool,
    pub(crate) tcp: bool,
}

pub(crate) const KINDS: [Kind; 4] = [
    Kind { v6: false, tcp: true },
    Kind { v6: true, tcp: true },
    Kind { v6: false, tcp: false },
    Kind { v6: true, tcp: false },
];

impl Kind {
    pub(crate) fn l3(self) -> usize {
        if self.v6 { 40 } else { 20 }
    }

    pub(crate) fn l4(self) -> usize {
        if self.tcp { 20 } else { 8 }
    }

    pub(crate) fn headers(self) -> usize {
        14 + self.l3() + self.l4()
    }

    pub(crate) fn checksum_at(self) -> usize {
        14 + self.l3() + if self.tcp { 16 } else { 6 }
    }

    pub(crate) fn protocol(self) -> u8 {
        if self.tcp { 6 } else { 17 }
    }

    /// Returns a frame without checksums.
    pub(crate) fn frame(self, payload: usize) -> Vec<u8> {
        let transport = (self.l4() + payload) as u16;
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        if self.v6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(transport.to_be_bytes());
            frame.extend([self.protocol(), 64]);
            frame.extend([0x20; 16]);
            frame.extend([0x21; 16]);
        } else {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend((20 + transport).to_be_bytes());
            frame.extend([0, 7, 0x40, 0, 64, self.protocol(), 0, 0, 10, 1, 2, 3, 10, 4, 5, 6]);
        }
        frame.extend([0x13, 0x88, 0x17, 0x70]);
        if self.tcp {
            frame.extend([0xff, 0xff, 0xff, 0, 0, 0, 0, 9, 0x50, 0x18, 0x40, 0, 0, 0, 0, 0]);
        } else {
            frame.extend(transport.to_be_bytes());
            frame.extend([0, 0]);
        }
        frame.extend((0..payload).map(|i| (i * 7 + i / 251) as u8));
        frame
    }

    pub(crate) fn flags(self, large: bool) -> Offload {
        let l3 = if self.v6 { Offload::TX_IPV6 } else { Offload::TX_IPV4 | Offload::TX_IP_CKSUM };
        let l4 = if self.tcp { Offload::TX_TCP_CKSUM } else { Offload::TX_UDP_CKSUM };
        let cut = if self.tcp { Offload::TX_TCP_SEG } else { Offload::TX_UDP_SEG };
        l3 | l4 | if large { cut } else { Offload::empty() }
    }
}

/// Returns the ones' complement sum of 16-bit words, computed in the simplest way.
pub(crate) fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            total = (total & 0xffff) + (total >> 16);
        }
    }
    total as u16
}

/// Returns the sum of a frame's pseudo-header.
pub(crate) fn pseudo(kind: Kind, frame: &[u8]) -> u16 {
    let (l3, l4) = (&frame[14..14 + kind.l3()], &frame[14 + kind.l3()..]);
    let addresses = if kind.v6 { &l3[8..40] } else { &l3[12..20] };
    let len = (l4.len() as u32).to_be_bytes();
    sum(&[addresses, &[0, kind.protocol()], &len])
}

/// Panics unless all lengths and checksums of a completed frame are right.
pub(crate) fn assert_finished(kind: Kind, frame: &[u8]) {
    let (l3, l4) = (&frame[14..14 + kind.l3()], &frame[14 + kind.l3()..]);
    if kind.v6 {
        assert_eq!(usize::from(u16::from_be_bytes([l3[4], l3[5]])), l4.len());
    } else {
        assert_eq!(sum(&[l3]), 0xffff, "IPv4 header checksum");
        assert_eq!(usize::from(u16::from_be_bytes([l3[2], l3[3]])), frame.len() - 14);
    }
    let at = kind.checksum_at();
    assert_ne!(frame[at..at + 2], [0, 0], "a checksum of zero says there is none");
    let pseudo = pseudo(kind, frame).to_be_bytes();
    assert_eq!(sum(&[&pseudo, l4]), 0xffff, "transport checksum of {kind:?}, {} bytes", frame.len());
}
