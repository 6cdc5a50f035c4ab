//! Builds messages for `sendmmsg` from packets.

use linecard_mempool::{BURST, Burst, Offload, Packet};
use linecard_net::vnet::{HDR_LEN, LEGACY_HDR_LEN, NetHeader};

use super::{ADDRESSES, TAG};
use linecard_pmd::offload::{TxRequest, asks};

/// The type of `msg_iovlen`: an int as in POSIX with musl, a size with glibc.
#[cfg(target_env = "musl")]
type PieceCount = libc::c_int;
#[cfg(not(target_env = "musl"))]
type PieceCount = usize;

/// The iovecs for all packets of one call; a packet has 255 segments at most.
const PIECES: usize = 512;

/// Message headers and their iovecs, rewritten for every call.
pub(super) struct Messages {
    headers: Box<[libc::mmsghdr]>,
    pieces: Box<[libc::iovec]>,
    /// The addresses and the tag of each packet with a tag to insert.
    fronts: Box<[[u8; ADDRESSES + TAG]]>,
    /// The virtio header of each packet, if the socket expects one.
    virtio: Option<Box<[[u8; HDR_LEN as usize]]>>,
}

// SAFETY: `gather` writes the pointers before each use, and they are not used afterwards; until then they are
// mere numbers.
unsafe impl Send for Messages {}

impl Messages {
    /// With `headers`, each message begins with a virtio header for the packet's offload requests.
    pub(super) fn new(headers: bool) -> Self {
        let piece = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: all zeros is a valid message header: no name, no pieces, no control data.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        Self {
            headers: vec![header; BURST].into(),
            pieces: vec![piece; PIECES].into(),
            fronts: vec![[0; ADDRESSES + TAG]; BURST].into(),
            virtio: headers.then(|| vec![[0; HDR_LEN as usize]; BURST].into()),
        }
    }

    /// Builds messages for packets from the front of `packets`, as many as the iovecs suffice for; at least
    /// one if there is a packet. The messages point into the packets.
    #[inline]
    pub(super) fn gather(&mut self, packets: &Burst) -> &mut [libc::mmsghdr] {
        let (mut used, mut count) = (0, 0);
        for packet in packets.iter().take(BURST) {
            let start = used;
            if self.virtio.is_some() && !self.add_header(count, packet, &mut used) {
                break;
            }
            let whole = if packet.offload().contains(Offload::TX_VLAN) {
                self.add_tagged(count, packet, &mut used)
            } else {
                add(&mut self.pieces, &mut used, packet, 0)
            };
            if !whole {
                break;
            }
            let header = &mut self.headers[count].msg_hdr;
            header.msg_iov = self.pieces[start..].as_mut_ptr();
            // At most a few hundred.
            header.msg_iovlen = (used - start) as PieceCount;
            count += 1;
        }
        &mut self.headers[..count]
    }

    /// Adds the virtio header of a packet.
    fn add_header(&mut self, index: usize, packet: &Packet, used: &mut usize) -> bool {
        let Some(bytes) = self.virtio.as_mut().and_then(|all| all.get_mut(index)) else { return true };
        let flags = packet.offload();
        // `SoftTx` has ensured that the metadata fits the packet.
        let asked = if asks(flags) { TxRequest::of(packet).ok().flatten() } else { None };
        let mut header = asked.map_or_else(NetHeader::default, |asked| NetHeader::asking(asked.request()));
        if flags.contains(Offload::TX_VLAN) && !header.is_plain() {
            header.csum_start = header.csum_start.wrapping_add(TAG as u16);
            header.hdr_len = header.hdr_len.wrapping_add(TAG as u16);
        }
        *bytes = header.to_bytes();
        let Some(place) = self.pieces.get_mut(*used) else { return false };
        *place = piece(bytes.as_ptr(), LEGACY_HDR_LEN as usize);
        *used += 1;
        true
    }

    /// Adds a packet with its tag inserted after the addresses; its data is not changed.
    #[cold]
    fn add_tagged(&mut self, index: usize, packet: &Packet, used: &mut usize) -> bool {
        if packet.len() < ADDRESSES {
            // Not a frame; the kernel refuses it.
            return add(&mut self.pieces, used, packet, 0);
        }
        let front = &mut self.fronts[index];
        let addresses = packet.read_at(0, &mut front[..ADDRESSES]);
        debug_assert_eq!(addresses, ADDRESSES);
        let [high, low] = packet.vlan_tci().to_be_bytes();
        front[ADDRESSES..].copy_from_slice(&[0x81, 0x00, high, low]);
        let Some(place) = self.pieces.get_mut(*used) else { return false };
        *place = piece(front.as_ptr(), front.len());
        *used += 1;
        add(&mut self.pieces, used, packet, ADDRESSES)
    }
}

fn piece(start: *const u8, len: usize) -> libc::iovec {
    libc::iovec { iov_base: start.cast_mut().cast(), iov_len: len }
}

/// Adds the segments of a packet without its first `skip` bytes; false if there are too few iovecs.
#[inline(always)]
fn add(pieces: &mut [libc::iovec], used: &mut usize, packet: &Packet, skip: usize) -> bool {
    let mut skip = skip;
    for segment in packet.segments() {
        let Some(place) = pieces.get_mut(*used) else { return false };
        let data = segment.data();
        let here = skip.min(data.len());
        let data = &data[here..];
        *place = piece(data.as_ptr(), data.len());
        *used += 1;
        skip -= here;
    }
    true
}
