//! Receive rings that the kernel fills, `TPACKET_V2` and `TPACKET_V3` (`linux/if_packet.h`).
//!
//! ```text
//!  V2  frame │ header 32 │ address │ data │   one status word per frame: kernel's (0) or ours
//!  V3  block │ header 48 │ frame ─next─► frame ─next─► … │   one status word per block
//! ```
//! The kernel may write the memory at any time. It is read through cells and copied out, and every offset in
//! a header is checked against its frame or block.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use linecard_eal::shared::SharedBytes;
use linecard_net::vnet::{HDR_LEN, LEGACY_HDR_LEN, NetHeader};
use memmap2::{MmapOptions, MmapRaw};

use super::args::{Options, Version};
use linecard_netdev::packet_socket::Socket;

/// The bytes of the virtio header before a frame (`PACKET_VNET_HDR`).
pub(super) const HEADER: usize = LEGACY_HDR_LEN as usize;

/// A received frame, as its header describes it.
pub(super) struct Frame {
    /// The bytes in the ring; `None` if the header refers to bytes outside the ring.
    pub(super) data: Option<SharedBytes>,
    /// The virtio header before them.
    header: Option<SharedBytes>,
    /// The length of the frame as received.
    pub(super) len: usize,
    /// Whether the frame is longer than the bytes in the ring.
    pub(super) cut: bool,
    /// `TP_STATUS_…`
    pub(super) status: u32,
    /// The tag control information and protocol of a tag that the kernel removed.
    pub(super) vlan: Option<(u16, u16)>,
}

impl Frame {
    /// A frame without usable content.
    const BAD: Self = Self { data: None, header: None, len: 0, cut: false, status: 0, vlan: None };

    /// Reads the data `mac` bytes from the start of `frame`, and the virtio header before it.
    #[inline(always)]
    fn new(frame: SharedBytes, mac: u16, len: [u32; 2], status: u32, vlan: Option<(u16, u16)>) -> Self {
        let ([len, snaplen], mac) = (len, usize::from(mac));
        let header = mac.checked_sub(HEADER).and_then(|at| frame.slice(at, HEADER));
        Self {
            data: frame.slice(mac, snaplen as usize),
            header,
            len: len as usize,
            cut: snaplen < len,
            status,
            vlan,
        }
    }

    /// Reads the virtio header.
    pub(super) fn header(&self) -> Option<NetHeader> {
        let mut bytes = [0; HDR_LEN as usize];
        self.header?.copy_to(&mut bytes);
        Some(NetHeader::from_bytes(bytes))
    }
}

/// A receive ring. Frames come in order; each is read and then released.
pub(super) trait Ring: Send {
    /// The readable name.
    const PATH: &'static str;
    /// Returns the number of available frames, at most `most`.
    fn ready(&mut self, most: usize) -> usize;
    /// Returns the first available frame.
    fn front(&self) -> Frame;
    /// Returns the first available frame to the kernel.
    fn release(&mut self);
}

/// Creates a ring of at least `frames` frames and maps it.
pub(super) fn map(socket: &Socket, options: &Options, frames: u16) -> io::Result<MmapRaw> {
    let (shape, blocks) = (options.shape, options.shape.blocks(frames));
    let request = libc::tpacket_req {
        tp_block_size: shape.block,
        tp_block_nr: blocks,
        tp_frame_size: shape.frame,
        tp_frame_nr: blocks * shape.per_block(),
    };
    match options.version {
        Version::Two => socket.set(libc::PACKET_RX_RING, &request)?,
        Version::Three => socket.set(
            libc::PACKET_RX_RING,
            &libc::tpacket_req3 {
                tp_block_size: request.tp_block_size,
                tp_block_nr: request.tp_block_nr,
                tp_frame_size: request.tp_frame_size,
                tp_frame_nr: request.tp_frame_nr,
                tp_retire_blk_tov: options.retire,
                tp_sizeof_priv: 0,
                tp_feature_req_word: 0,
            },
        )?,
    }
    let len = shape.block as usize * blocks as usize;
    MmapOptions::new().len(len).populate().map_raw(std::os::fd::AsRawFd::as_raw_fd(socket))
}

/// Returns the whole mapping as cells, which must not outlive it.
fn bytes_of(memory: &MmapRaw) -> SharedBytes {
    let Some(start) = NonNull::new(memory.as_mut_ptr()) else { unreachable!("a mapping at address 0") };
    // SAFETY: mapped readable and writable with this length; the rings below keep the mapping together with
    // the cells, return nothing that outlives a call, and no other access to it exists.
    unsafe { SharedBytes::new(start, memory.len()) }
}

fn load(bytes: SharedBytes, at: usize) -> u32 {
    bytes.cell::<u32>(at).map_or(0, |cell| cell.load(Ordering::Relaxed))
}

fn load_short(bytes: SharedBytes, at: usize) -> u16 {
    bytes.cell::<u16>(at).map_or(0, |cell| cell.load(Ordering::Relaxed))
}

/// Returns the tag that the status announces, with the usual protocol if none is given.
fn tag(status: u32, tci: u16, protocol: u16) -> Option<(u16, u16)> {
    const DOT1Q: u16 = 0x8100;
    let named = status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
    (status & libc::TP_STATUS_VLAN_VALID != 0).then_some((tci, if named { protocol } else { DOT1Q }))
}

/// Offsets in a `tpacket2_hdr`.
mod v2 {
    pub(super) const STATUS: usize = 0;
    pub(super) const LEN: usize = 4;
    pub(super) const SNAPLEN: usize = 8;
    pub(super) const MAC: usize = 12;
    pub(super) const VLAN_TCI: usize = 24;
    pub(super) const VLAN_TPID: usize = 26;
}

/// A ring of frames of one size.
pub(super) struct Frames {
    frames: Vec<SharedBytes>,
    next: usize,
    /// Keeps the memory of `frames` mapped.
    _memory: MmapRaw,
}

impl Frames {
    pub(super) fn new(memory: MmapRaw, options: &Options) -> Self {
        let (block, frame) = (options.shape.block as usize, options.shape.frame as usize);
        let all = bytes_of(&memory);
        let blocks = (0..all.len() / block).map(|i| i * block);
        // A block may end with a rest that is too short for a frame.
        let places = blocks.flat_map(|start| (0..block / frame).map(move |i| start + i * frame));
        let frames = places.filter_map(|place| all.slice(place, frame)).collect();
        Self { frames, next: 0, _memory: memory }
    }

    fn is_ours(&self, index: usize) -> bool {
        // V1, pairs with the kernel's smp_wmb in __packet_set_status: the frame's content was written before.
        let status = self.frames[index].cell::<u32>(v2::STATUS);
        status.is_some_and(|cell| cell.load(Ordering::Acquire) & libc::TP_STATUS_USER != 0)
    }

    fn after(&self, index: usize) -> usize {
        if index + 1 == self.frames.len() { 0 } else { index + 1 }
    }
}

impl Ring for Frames {
    const PATH: &'static str = "tpacket v2";

    #[inline]
    fn ready(&mut self, most: usize) -> usize {
        let (mut count, mut at) = (0, self.next);
        while count < most.min(self.frames.len()) && self.is_ours(at) {
            (count, at) = (count + 1, self.after(at));
        }
        count
    }

    #[inline]
    fn front(&self) -> Frame {
        let frame = self.frames[self.next];
        let status = load(frame, v2::STATUS);
        let (len, snaplen) = (load(frame, v2::LEN), load(frame, v2::SNAPLEN));
        let vlan = tag(status, load_short(frame, v2::VLAN_TCI), load_short(frame, v2::VLAN_TPID));
        Frame::new(frame, load_short(frame, v2::MAC), [len, snaplen], status, vlan)
    }

    #[inline]
    fn release(&mut self) {
        if let Some(status) = self.frames[self.next].cell::<u32>(v2::STATUS) {
            // V2, pairs with the kernel's smp_rmb in __packet_get_status: we have read the frame's content.
            status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        }
        self.next = self.after(self.next);
    }
}

/// Offsets in a `tpacket_block_desc`, then in a `tpacket3_hdr`.
mod v3 {
    pub(super) const BLOCK_STATUS: usize = 8;
    pub(super) const COUNT: usize = 12;
    pub(super) const FIRST: usize = 16;

    pub(super) const NEXT: usize = 0;
    pub(super) const SNAPLEN: usize = 12;
    pub(super) const LEN: usize = 16;
    pub(super) const STATUS: usize = 20;
    pub(super) const MAC: usize = 24;
    pub(super) const VLAN_TCI: usize = 32;
    pub(super) const VLAN_TPID: usize = 36;
    pub(super) const HEADER: usize = 48;
}

/// A ring of blocks of frames.
pub(super) struct Blocks {
    blocks: Vec<SharedBytes>,
    next: usize,
    /// The unread frames of the current block and the offset of the first; 0 while the kernel owns the block.
    left: usize,
    place: usize,
    /// Keeps the memory of `blocks` mapped.
    _memory: MmapRaw,
}

impl Blocks {
    pub(super) fn new(memory: MmapRaw, options: &Options) -> Self {
        let block = options.shape.block as usize;
        let all = bytes_of(&memory);
        let blocks = (0..all.len() / block).filter_map(|i| all.slice(i * block, block)).collect();
        Self { blocks, next: 0, left: 0, place: 0, _memory: memory }
    }

    fn status(&self) -> Option<linecard_eal::shared::Shared<u32>> {
        self.blocks[self.next].cell::<u32>(v3::BLOCK_STATUS)
    }

    /// Starts the next block if the kernel has handed it over.
    fn open(&mut self) {
        // V3, pairs with the kernel's smp_wmb in prb_close_block: the block's content was written before.
        let ours = |status: u32| status & libc::TP_STATUS_USER != 0;
        while self.left == 0 && self.status().is_some_and(|cell| ours(cell.load(Ordering::Acquire))) {
            let block = self.blocks[self.next];
            // At most as many as fit, whatever the header contains.
            self.left = (load(block, v3::COUNT) as usize).min(block.len() / v3::HEADER);
            self.place = load(block, v3::FIRST) as usize;
            if self.left == 0 {
                self.close();
            }
        }
    }

    fn close(&mut self) {
        if let Some(status) = self.status() {
            // V4, pairs with the kernel's read of the status (prb_curr_blk_in_use): we are done with the
            // block.
            status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        }
        self.left = 0;
        self.next = if self.next + 1 == self.blocks.len() { 0 } else { self.next + 1 };
    }

    fn header(&self) -> Option<SharedBytes> {
        let block = self.blocks[self.next];
        block.slice(self.place, block.len().checked_sub(self.place)?).filter(|rest| rest.len() >= v3::HEADER)
    }
}

impl Ring for Blocks {
    const PATH: &'static str = "tpacket v3";

    #[inline]
    fn ready(&mut self, most: usize) -> usize {
        if self.left == 0 {
            self.open();
        }
        self.left.min(most)
    }

    #[inline]
    fn front(&self) -> Frame {
        let Some(frame) = self.header() else { return Frame::BAD };
        let status = load(frame, v3::STATUS);
        let (len, snaplen) = (load(frame, v3::LEN), load(frame, v3::SNAPLEN));
        let tci = load(frame, v3::VLAN_TCI) as u16;
        let vlan = tag(status, tci, load_short(frame, v3::VLAN_TPID));
        Frame::new(frame, load_short(frame, v3::MAC), [len, snaplen], status, vlan)
    }

    #[inline]
    fn release(&mut self) {
        let step = self.header().map_or(0, |frame| load(frame, v3::NEXT));
        self.left -= 1;
        self.place = self.place.saturating_add(step as usize);
        if self.left == 0 {
            self.close();
        }
    }
}
