//! The flow hash of receive-side scaling: Toeplitz over addresses and ports (Microsoft RSS).

use crate::ip::{Ipv4, Ipv6};
use crate::packet_type::PacketType;
use crate::parse::Layers;
use crate::{Header, U16};

/// The key of DPDK and of Microsoft's verification suite.
pub const DEFAULT_KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
    0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
    0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// A key whose hash is the same for both directions of a flow, because it repeats every 16 bits.
pub const SYMMETRIC_KEY: [u8; 40] = {
    let mut key = [0x6d; 40];
    let mut i = 1;
    while i < 40 {
        key[i] = 0x5a;
        i += 2;
    }
    key
};

/// The longest input: two IPv6 addresses and two ports.
pub const MAX_INPUT: usize = 36;

/// A prepared key: the hash of every 4-bit value at every position, so that a hash takes one table look-up
/// per 4 bits of input (4.5 KiB, which fits the first-level cache).
///
/// ```
/// use linecard_net::toeplitz::Toeplitz;
/// // Microsoft's first vector: 66.9.149.187:2794 → 161.142.100.80:1766.
/// let input = [66, 9, 149, 187, 161, 142, 100, 80, 0x0a, 0xea, 0x06, 0xe6];
/// assert_eq!(Toeplitz::DEFAULT.hash(&input), 0x51cc_c178);
/// ```
#[derive(Clone)]
pub struct Toeplitz {
    nibbles: [[u32; 16]; MAX_INPUT * 2],
}

static DEFAULT: Toeplitz = Toeplitz::new(&DEFAULT_KEY);

impl Toeplitz {
    /// [`DEFAULT_KEY`], prepared at compile time.
    pub const DEFAULT: &'static Self = &DEFAULT;

    /// Prepares `key`.
    #[must_use]
    pub const fn new(key: &[u8; 40]) -> Self {
        let mut nibbles = [[0; 16]; MAX_INPUT * 2];
        let mut place = 0;
        while place < MAX_INPUT * 2 {
            let mut value = 0;
            while value < 16 {
                let mut bit = 0;
                while bit < 4 {
                    if value & (8 >> bit) != 0 {
                        nibbles[place][value] ^= window(key, place * 4 + bit);
                    }
                    bit += 1;
                }
                value += 1;
            }
            place += 1;
        }
        Self { nibbles }
    }

    /// The hash of `input` (addresses, then ports, in wire order); bytes beyond [`MAX_INPUT`] are ignored.
    #[inline]
    #[must_use]
    pub fn hash(&self, input: &[u8]) -> u32 {
        let places = self.nibbles.as_chunks::<2>().0;
        places.iter().zip(input).fold(0, |hash, ([high, low], byte)| {
            hash ^ high[usize::from(byte >> 4)] ^ low[usize::from(byte & 15)]
        })
    }

    /// The hash of a parsed frame: addresses and ports for TCP and UDP, addresses for other IP packets and
    /// fragments; `None` if the frame is not IP or does not contain the headers that `layers` describes.
    ///
    /// ```
    /// use linecard_net::{parse, toeplitz::Toeplitz};
    /// assert_eq!(Toeplitz::DEFAULT.flow(&[0; 60], &parse(&[0; 60])), None);
    /// ```
    #[inline]
    #[must_use]
    pub fn flow(&self, frame: &[u8], layers: &Layers) -> Option<u32> {
        let l3 = frame.get(usize::from(layers.l2_len)..)?;
        let mut input = [0; MAX_INPUT];
        let addresses = if layers.packet_type.is_ipv4() {
            let ip = Ipv4::load(l3)?;
            input[..4].copy_from_slice(&ip.source);
            input[4..8].copy_from_slice(&ip.destination);
            8
        } else if layers.packet_type.is_ipv6() {
            let ip = Ipv6::load(l3)?;
            input[..16].copy_from_slice(&ip.source);
            input[16..32].copy_from_slice(&ip.destination);
            32
        } else {
            return None;
        };
        let mut len = addresses;
        if matches!(layers.packet_type.l4(), PacketType::L4_TCP | PacketType::L4_UDP) {
            let ports = l3.get(usize::from(layers.l3_len)..)?.get(..4)?;
            input[addresses..addresses + 4].copy_from_slice(ports);
            len += 4;
        }
        Some(self.hash(&input[..len]))
    }
}

/// The 32 key bits that start at `bit`, which is below 8 × [`MAX_INPUT`].
const fn window(key: &[u8; 40], bit: usize) -> u32 {
    let (byte, shift) = (bit / 8, bit % 8);
    let mut bits: u64 = 0;
    let mut i = 0;
    while i < 5 {
        bits = bits << 8 | key[byte + i] as u64;
        i += 1;
    }
    (bits >> (8 - shift)) as u32
}

/// The hash input of a TCP or UDP flow over IPv4, in wire order; for callers that hash without a frame.
///
/// ```
/// use linecard_net::toeplitz::{Toeplitz, input_v4};
/// let input = input_v4([66, 9, 149, 187], [161, 142, 100, 80], 2794, 1766);
/// assert_eq!(Toeplitz::DEFAULT.hash(&input), 0x51cc_c178);
/// ```
#[must_use]
pub fn input_v4(source: [u8; 4], destination: [u8; 4], source_port: u16, destination_port: u16) -> [u8; 12] {
    let mut input = [0; 12];
    input[..4].copy_from_slice(&source);
    input[4..8].copy_from_slice(&destination);
    input[8..10].copy_from_slice(&U16::new(source_port).to_bytes());
    input[10..].copy_from_slice(&U16::new(destination_port).to_bytes());
    input
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// The definition: xor of the key windows at every set bit.
    fn plain(key: &[u8; 40], input: &[u8]) -> u32 {
        (0..input.len() * 8)
            .filter(|bit| input[bit / 8] & (0x80 >> (bit % 8)) != 0)
            .fold(0, |hash, bit| hash ^ window(key, bit))
    }

    #[test]
    fn ipv4_vectors() {
        let rows: [(&str, u16, &str, u16, u32, u32); 5] = [
            ("66.9.149.187", 2794, "161.142.100.80", 1766, 0x323e_8fc2, 0x51cc_c178),
            ("199.92.111.2", 14230, "65.69.140.83", 4739, 0xd718_262a, 0xc626_b0ea),
            ("24.19.198.95", 12898, "12.22.207.184", 38024, 0xd2d0_a5de, 0x5c2b_394a),
            ("38.27.205.30", 48228, "209.142.163.6", 2217, 0x8298_9176, 0xafc7_327f),
            ("153.39.163.191", 44251, "202.188.127.2", 1303, 0x5d18_09c5, 0x10e8_28a2),
        ];
        for (source, source_port, destination, destination_port, ip, tcp) in rows {
            let octets = |text: &str| text.parse::<Ipv4Addr>().expect("an address").octets();
            let input = input_v4(octets(source), octets(destination), source_port, destination_port);
            assert_eq!(Toeplitz::DEFAULT.hash(&input[..8]), ip, "{source}");
            assert_eq!(Toeplitz::DEFAULT.hash(&input), tcp, "{source}");
        }
    }

    #[test]
    fn ipv6_vectors() {
        let rows: [(&str, u16, &str, u16, u32, u32); 3] = [
            ("3ffe:2501:200:1fff::7", 2794, "3ffe:2501:200:3::1", 1766, 0x2cc1_8cd5, 0x4020_7d3d),
            ("3ffe:501:8::260:97ff:fe40:efab", 14230, "ff02::1", 4739, 0x0f0c_461c, 0xdde5_1bbf),
            (
                "3ffe:1900:4545:3:200:f8ff:fe21:67cf",
                44251,
                "fe80::200:f8ff:fe21:67cf",
                38024,
                0x4b61_e985,
                0x02d1_feef,
            ),
        ];
        for (source, source_port, destination, destination_port, ip, tcp) in rows {
            let mut input = Vec::new();
            for text in [source, destination] {
                input.extend(text.parse::<Ipv6Addr>().expect("an address").octets());
            }
            assert_eq!(Toeplitz::DEFAULT.hash(&input), ip, "{source}");
            input.extend(source_port.to_be_bytes());
            input.extend(destination_port.to_be_bytes());
            assert_eq!(Toeplitz::DEFAULT.hash(&input), tcp, "{source}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(key in prop::collection::vec(any::<u8>(), 40), input in prop::collection::vec(any::<u8>(), 0..=36)) {
            let key: [u8; 40] = key.try_into().expect("40 bytes");
            prop_assert_eq!(Toeplitz::new(&key).hash(&input), plain(&key, &input));
        }

        #[test]
        fn the_symmetric_key_is_symmetric(a: [u8; 4], b: [u8; 4], p: u16, q: u16) {
            let hash = Toeplitz::new(&SYMMETRIC_KEY);
            prop_assert_eq!(hash.hash(&input_v4(a, b, p, q)), hash.hash(&input_v4(b, a, q, p)));
        }
    }
}
