//! The device arguments, and the ring sizes that the kernel accepts.

use std::ops::RangeInclusive;

use super::ring::HEADER;
use linecard_netdev::Namespace;
use linecard_pmd::args::DevArgs;
use linecard_pmd::error::Error;

/// The most queue pairs, as in DPDK.
pub(super) const MAX_QUEUES: u16 = 16;
/// The most frames of a ring.
pub(super) const MAX_FRAMES: u16 = 1 << 15;
/// The largest block: the most contiguous memory that the page allocator provides.
const MAX_BLOCK: u32 = 1 << 22;
/// `TPACKET_ALIGNMENT`.
const ALIGN: u32 = 16;
const FANOUT: [(&str, u32); 6] = [
    ("hash", libc::PACKET_FANOUT_HASH | libc::PACKET_FANOUT_FLAG_ROLLOVER),
    ("lb", libc::PACKET_FANOUT_LB),
    ("cpu", libc::PACKET_FANOUT_CPU),
    ("rollover", libc::PACKET_FANOUT_ROLLOVER),
    ("rnd", libc::PACKET_FANOUT_RND),
    ("qm", libc::PACKET_FANOUT_QM),
];

/// Layout of a receive ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// `TPACKET_V2`: frames of one size, handed over one by one.
    Two,
    /// `TPACKET_V3`: blocks packed with frames, handed over when full or old.
    Three,
}

impl Version {
    /// Bytes before a frame's data, at most: header, address, alignment (`tpacket_rcv`).
    const fn overhead(self) -> u32 {
        match self {
            Self::Two => 66,
            Self::Three => 82,
        }
    }
}

/// Sizes of a receive ring, in bytes and frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) block: u32,
    pub(super) frame: u32,
    pub(super) count: u16,
    /// Blocks that there are at least: one that is handed over because it is old is not full.
    pub(super) least: u32,
}

impl Shape {
    /// Frames in one block; at least one.
    pub(super) const fn per_block(self) -> u32 {
        self.block / self.frame
    }

    /// Blocks for at least `frames` frames.
    pub(super) const fn blocks(self, frames: u16) -> u32 {
        let blocks = (frames as u32).div_ceil(self.per_block());
        if blocks < self.least { self.least } else { blocks }
    }
}

/// A device as it was asked for.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) iface: String,
    pub(super) namespace: Namespace,
    pub(super) queues: u16,
    pub(super) bypass: bool,
    pub(super) version: Version,
    pub(super) shape: Shape,
    /// Milliseconds.
    pub(super) retire: u32,
    /// Type and flags of the fanout group, `PACKET_FANOUT_…`.
    pub(super) fanout: u32,
}

impl Options {
    pub(super) fn read(args: &DevArgs) -> Result<Self, Error> {
        let iface = args.required("iface")?.to_owned();
        let queues = args.number("qpairs", 1..=MAX_QUEUES)?.unwrap_or(1);
        let bypass = args.flag("qdisc_bypass")?.unwrap_or(true);
        let version = match args.choice("version", &["2", "3"])? {
            Some("3") => Version::Three,
            _ => Version::Two,
        };
        let shape = shape(args, version)?;
        let retire = args.number("retire_blk_tov", 1..=1000_u32)?;
        let mode = args.choice("fanout_mode", &FANOUT.map(|(name, _)| name))?.unwrap_or("hash");
        let fanout = FANOUT.iter().find(|(name, _)| *name == mode).map_or(0, |(_, kind)| *kind);
        let namespace = args.value("netns").is_some();
        args.finish()?;
        if retire.is_some() && version == Version::Two {
            return Err(args.problem("'retire_blk_tov' is for blocks", "add version=3, or leave it out"));
        }
        let namespace = if namespace { Namespace::of(args)? } else { Namespace::default() };
        let retire = retire.unwrap_or(1);
        Ok(Self { iface, namespace, queues, bypass, version, shape, retire, fanout })
    }

    /// Longest frame that the ring takes whole.
    pub(super) fn room(&self) -> u32 {
        let whole = match self.version {
            Version::Two => self.shape.frame,
            // The header of a block (`BLK_HDR_LEN`).
            Version::Three => self.shape.block - 48,
        };
        whole.saturating_sub(self.version.overhead() + HEADER as u32)
    }

    /// MTUs whose frames the ring takes whole.
    pub(super) fn mtu(&self) -> RangeInclusive<u16> {
        68..=u16::try_from(self.room().saturating_sub(14)).unwrap_or(u16::MAX - 14).min(u16::MAX - 14)
    }
}

fn shape(args: &DevArgs, version: Version) -> Result<Shape, Error> {
    let page = rustix::param::page_size() as u32;
    // A block of the third version holds a frame of 64 KiB that the kernel did not cut.
    let usual = if version == Version::Two { 1 << 12 } else { 1 << 17 };
    let given = args.number("blocksz", 1..=MAX_BLOCK)?;
    let block = given.unwrap_or(usual.max(page));
    let least = if version == Version::Three && given.is_none() { 16 } else { 1 };
    let frame = args.number("framesz", 1..=MAX_BLOCK)?.unwrap_or(1 << 11);
    let count = args.number("framecnt", 1..=MAX_FRAMES)?.unwrap_or(512);
    if !block.is_multiple_of(page) {
        let below = (block / page).max(1) * page;
        let problem = format!("blocksz={block} is no multiple of the page size, {page}");
        return Err(args.problem(problem, format!("give blocksz={below}, for example")));
    }
    // An Ethernet frame of the smallest MTU must fit.
    let shortest = (version.overhead() + 14 + 68).next_multiple_of(ALIGN);
    if !frame.is_multiple_of(ALIGN) || frame < shortest {
        let near = frame.next_multiple_of(ALIGN).max(shortest);
        let problem = format!("framesz={frame} is no multiple of {ALIGN} from {shortest} on");
        return Err(args.problem(problem, format!("give framesz={near}, for example")));
    }
    if frame > block {
        let problem = format!("a frame of framesz={frame} does not fit into a block of blocksz={block}");
        return Err(args.problem(problem, format!("give blocksz={}", frame.next_multiple_of(page))));
    }
    Ok(Shape { block, frame, count, least })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Options, Error> {
        Options::read(&DevArgs::parse(text)?)
    }

    #[test]
    fn defaults_are_dpdks() {
        let options = read("net_af_packet0,iface=veth0").expect("enough");
        assert_eq!((options.queues, options.bypass, options.version), (1, true, Version::Two));
        assert_eq!(options.shape, Shape { block: 4096, frame: 2048, count: 512, least: 1 });
        assert_eq!(options.shape.blocks(512), 256);
        assert_eq!((options.shape.blocks(1), options.shape.blocks(3)), (1, 2));
        assert!(options.mtu().contains(&1500));
        let options = read("net_af_packet0,iface=veth0,version=3").expect("enough");
        assert_eq!(
            (options.shape.block, options.shape.blocks(512), options.shape.blocks(2048)),
            (1 << 17, 16, 32)
        );
        assert!(options.room() > 65_535 + 14, "a packet that the kernel did not cut");
    }

    #[test]
    fn what_is_not_possible_is_refused() {
        for (text, want) in [
            ("net_af_packet0", "net_af_packet0: 'iface' is missing; write net_af_packet0,iface=VALUE"),
            (
                "net_af_packet0,iface=v,qpairs=17",
                "net_af_packet0: 'qpairs=17' is not possible; give qpairs a number from 1 to 16",
            ),
            (
                "net_af_packet0,iface=v,blocksz=5000",
                "net_af_packet0: blocksz=5000 is no multiple of the page size, 4096; give blocksz=4096, for example",
            ),
            (
                "net_af_packet0,iface=v,framesz=1000",
                "net_af_packet0: framesz=1000 is no multiple of 16 from 160 on; give framesz=1008, for example",
            ),
            (
                "net_af_packet0,iface=v,framesz=16",
                "net_af_packet0: framesz=16 is no multiple of 16 from 160 on; give framesz=160, for example",
            ),
            (
                "net_af_packet0,iface=v,framesz=8192",
                "net_af_packet0: a frame of framesz=8192 does not fit into a block of blocksz=4096; give blocksz=8192",
            ),
            (
                "net_af_packet0,iface=v,retire_blk_tov=5",
                "net_af_packet0: 'retire_blk_tov' is for blocks; add version=3, or leave it out",
            ),
            (
                "net_af_packet0,iface=v,fanout_mode=robin",
                "net_af_packet0: 'fanout_mode=robin' is not possible; \
                 give fanout_mode one of hash, lb, cpu, rollover, rnd, qm",
            ),
        ] {
            assert_eq!(read(text).expect_err(text).to_string(), want);
        }
        let unknown = read("net_af_packet0,iface=v,framecount=4").expect_err("unknown").to_string();
        assert!(
            unknown.starts_with("net_af_packet0: unknown argument 'framecount'; did you mean"),
            "{unknown}"
        );
    }
}
