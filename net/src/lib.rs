#![forbid(unsafe_code)]
//! Header views, checksums, parsing, flow hash and software offloads, without `unsafe` and without
//! dependencies on other crates of the workspace.
//!
//! All functions work on byte slices and return values. Nothing allocates, no content of a frame causes a
//! panic, and every length in a header is compared with the slice before it is used. Headers have all their
//! fields, flags and helpers, for use by programs; the other crates use some of them.
//!
//! | module | purpose | defined in |
//! |---|---|---|
//! | [`ether`], [`arp`], [`ip`], [`transport`] | header layouts | IEEE 802.3/802.1Q, RFC 826, 791, 8200, 768, 9293, 792, 4443 |
//! | [`bpf`] | filters: classic BPF, compiled from tcpdump's expressions | pcap-filter(7) |
//! | [`checksum`] | Internet checksum, incremental update, pseudo-headers | RFC 1071, 1624 |
//! | [`parse`](mod@parse) | where each header of a frame starts, and its type | DPDK's packet types |
//! | [`toeplitz`] | flow hash | Microsoft RSS |
//! | [`offload`], [`gso`], [`request`] | software for hardware offloads: complete checksums, segment large frames | virtio 1.3, Network Device |
//! | [`echo`] | answers to ARP, ICMP and UDP, in place | RFC 826, RFC 792, RFC 862 |
//! | [`vnet`] | the header that requests offloads | virtio 1.3, Network Device: Device Operation |
//!
//! ```
//! use linecard_net::{Header, ether::{Ethernet, ether_type}, mac::MacAddr};
//! let mut frame = [0_u8; 60];
//! let (ethernet, _payload) = Ethernet::view_mut(&mut frame).expect("60 bytes are enough");
//! ethernet.destination = MacAddr::BROADCAST;
//! ethernet.ether_type = ether_type::ARP.into();
//! assert_eq!(&frame[..6], &[0xff; 6]);
//! ```

pub mod arp;
pub mod bpf;
pub mod checksum;
pub mod crc32c;
pub mod echo;
pub mod ether;
pub mod gso;
mod header;
pub mod ip;
pub mod mac;
mod metadata;
pub mod offload;
pub mod packet_type;
pub mod parse;
pub mod request;
pub mod toeplitz;
pub mod transport;
pub mod vnet;

pub use header::Header;
pub use mac::MacAddr;
pub use metadata::{Offload, TxOffload};
pub use packet_type::PacketType;
pub use parse::{Layers, parse};
pub use zerocopy::network_endian::{U16, U32};

/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
