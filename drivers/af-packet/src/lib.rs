//! `net_af_packet`: a network interface of the kernel through packet sockets, with DPDK's device arguments.
//!
//! ```text
//!              ┌ rx queue 0 ◄─ ring mapped from socket 0 ◄┐
//!  application ┤ rx queue 1 ◄─ ring mapped from socket 1 ◄┴─ fanout ◄─ interface ◄─ wire
//!              ├ tx queue 0 ─► sendmmsg ─► socket ─► (queueing discipline or past it) ─► interface
//!              └ tx queue 1 ─► …
//! ```
//!
//! | argument | what | default |
//! |---|---|---|
//! | `iface=` | the interface; Ethernet, or `lo` | must be given |
//! | `netns=` | its network namespace, a name of `ip netns` or a path | the process's |
//! | `qpairs=` | queue pairs that may be configured, 1 to 16 | 1 |
//! | `qdisc_bypass=` | 1 sends past the queueing discipline (and past `tcpdump` on the interface); 0 where segmentation is asked for | 1 |
//! | `version=` | receive ring: 2 hands over frame by frame, 3 block by block | 2 |
//! | `blocksz=` | bytes of a block of the receive ring, a multiple of the page size | 4096, with `version=3` 131072 |
//! | `framesz=` | bytes of a frame of the receive ring, a multiple of 16 | 2048 |
//! | `framecnt=` | frames of the receive ring, unless a ring size is configured | 512 |
//! | `retire_blk_tov=` | milliseconds after which a block that is not full is handed over (`version=3`) | 1 |
//! | `fanout_mode=` | how packets are dealt to queues: `hash`, `lb`, `cpu`, `rollover`, `rnd`, `qm` | `hash` |
//!
//! Several receive queues form their own `PACKET_FANOUT` group. With `hash`, packets for a full queue go to
//! another one, as with DPDK. Unlike with DPDK, fragments are not reassembled: packets arrive as they were
//! sent.
//!
//! Packets are sent with `sendmmsg` instead of a transmit ring: the kernel then makes linear buffers, which
//! the other end of a veth pair receives faster (C loops, 64-byte frames, a socket at that end: 0.34 to 0.40
//! against 0.24 to 0.35 Mpps, single runs on a busy machine, most pairs in favour).
//!
//! A VLAN tag that the kernel removed from a frame is inserted again unless `VLAN_STRIP` is requested.
//! Checksums that a local sender left to its hardware are computed unless receive checksum offload is
//! requested. Large packets left for segmentation stay large if `TCP_LRO` is requested; otherwise they are
//! segmented here, as buffers are available. With `version=2`, frames longer than a ring frame arrive through
//! the socket's queue of 16 MiB (without `CAP_NET_ADMIN`, the size that `net.core.rmem_max` allows).
//! `truncated` counts those that found this queue full. `bad_offload` counts packets that cannot be
//! segmented: segments inside a tunnel, and protocols other than TCP and UDP.
//!
//! See `packet(7)` and the kernel's Documentation/networking/packet_mmap.rst.

mod args;
mod control;
mod device;
mod drops;
mod loss;
mod messages;
mod ring;
mod rx;
mod tx;

pub use self::device::AfPacketDriver;

/// The bytes of a frame's addresses, after which a tag is inserted.
const ADDRESSES: usize = 12;
/// The bytes of a tag (IEEE 802.1Q).
const TAG: usize = 4;

/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

#[cfg(test)]
mod tests;
