//! The receive path: reads frames directly into buffers of the pool, with one `read` each.
//!
//! ```text
//!   buffer:  │ headroom ........ header (12) │ data ....................... │
//!                               └─ armed: the part that `read` fills ───────┘
//! ```
//! A frame longer than a buffer (a large MTU, or packets that the kernel does not segment) is scattered over
//! several armed buffers by one `readv`, and becomes a chain.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use linecard_mempool::{Burst, Packet, Pool};
use linecard_net::vnet::{HDR_LEN, NetHeader};
use rustix::io::Errno;

use super::control::Trouble;
use super::file::File;
use linecard_pmd::offload::{AcceptedOffloads, describe};
use linecard_pmd::port::RxQueue;
use linecard_pmd::stats::{QueueStats, Total};
use linecard_pmd::wake::{Armed, arm_descriptor};

const HEADER: usize = HDR_LEN as usize;
/// The shortest Ethernet frame without padding.
const SHORTEST: usize = 14;
/// The most buffers of a frame.
const MOST: usize = linecard_mempool::BURST;

linecard_pmd::causes! {
    /// The causes for which a tap port loses received packets.
    pub enum RxLoss {
        /// The frame is shorter than an Ethernet header.
        Runt = ("undersize_packets", Total::Error),
        /// The frame exceeds the MTU and the buffers.
        TooLong = ("too_long", Total::Error),
        /// The header contradicts its packet.
        BadOffload = ("bad_offload_header", Total::Error),
        /// The pool had no buffers to read into; the frame waits in the kernel.
        NoBuffer = ("no_buffer", Total::NoBuffer),
    }
}

/// The parts of a receive queue.
pub(super) struct RxParts {
    pub(super) file: File,
    pub(super) pool: Pool,
    pub(super) stats: Arc<QueueStats<RxLoss>>,
    pub(super) trouble: Arc<Trouble>,
    /// The offloads that the kernel may leave to the port.
    pub(super) accepted: AcceptedOffloads,
    /// The longest frame, in bytes.
    pub(super) longest: usize,
}

/// A receive queue; with `SCATTER`, a frame may take several buffers.
pub(super) struct Rx<const SCATTER: bool> {
    parts: RxParts,
    /// The number of buffers for one read.
    buffers: usize,
    /// Armed buffers: each provides its header space and all of its data room. Used from the end.
    armed: Burst,
}

/// Creates a receive queue of the right kind.
pub(super) fn queue(parts: RxParts) -> Option<Box<dyn RxQueue>> {
    let room = usize::from(parts.pool.data_room());
    // One byte more than allowed, so that an excess is detected.
    let buffers = (parts.longest + 1).saturating_sub(room).div_ceil(room + HEADER) + 1;
    if buffers > MOST || usize::from(parts.pool.headroom()) < HEADER {
        return None;
    }
    let armed = Burst::new();
    Some(if buffers == 1 {
        Box::new(Rx::<false> { parts, buffers, armed })
    } else {
        Box::new(Rx::<true> { parts, buffers, armed })
    })
}

impl<const SCATTER: bool> Rx<SCATTER> {
    /// Provides buffers for a read. Buffers for more than one read are taken from the pool at a time.
    fn arm(&mut self) -> bool {
        let need = self.buffers.saturating_sub(self.armed.len());
        if need == 0 {
            return true;
        }
        let before = self.armed.len();
        let mut want = self.armed.room().min(need.max(32));
        while want > need && self.parts.pool.get_bulk(&mut self.armed, want).is_err() {
            want = (want / 2).max(need);
        }
        if self.armed.len() == before && self.parts.pool.get_bulk(&mut self.armed, need).is_err() {
            return false;
        }
        let room = usize::from(self.parts.pool.data_room());
        // Fresh buffers have the room: `queue` compared the header with the pool's headroom.
        self.armed[before..]
            .iter_mut()
            .all(|packet| packet.prepend(HEADER).is_some() && packet.append(room).is_some())
    }

    /// Reads one frame; `None` if there is none.
    fn read(&mut self) -> Option<usize> {
        let file = &self.parts.file;
        let first = self.armed.len().saturating_sub(self.buffers);
        let result = if SCATTER {
            let mut places: [IoSliceMut<'_>; MOST] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
            let armed = self.armed[first..].iter_mut().rev();
            places
                .iter_mut()
                .zip(armed)
                .for_each(|(place, packet)| *place = IoSliceMut::new(packet.data_mut().unwrap_or_default()));
            file.read_into(&mut places[..self.buffers])
        } else {
            let packet = self.armed.last_mut()?;
            file.read(packet.data_mut()?)
        };
        match result {
            Ok(len) => Some(len),
            Err(Errno::AGAIN | Errno::INTR) => None,
            Err(error) => {
                self.parts.trouble.report(error);
                None
            }
        }
    }

    /// Makes a packet of the frame that was just read; `len` includes the header.
    fn take(&mut self, len: usize) -> Option<Packet> {
        let mut packet = self.armed.pop()?;
        let mut header = [0; HEADER];
        header.copy_from_slice(packet.data().get(..HEADER)?);
        let (size, mut rest) = (packet.data_len(), len);
        let whole = packet.trim(size.saturating_sub(rest)).and_then(|()| packet.adj(HEADER)).is_ok();
        rest = rest.saturating_sub(size);
        if SCATTER {
            self.gather(&mut packet, rest);
        }
        if !whole || packet.len() < SHORTEST {
            self.parts.stats.dropped(RxLoss::Runt, &packet);
            return None;
        }
        if packet.len() > self.parts.longest {
            self.parts.stats.dropped(RxLoss::TooLong, &packet);
            return None;
        }
        let header = NetHeader::from_bytes(header);
        (header.is_plain() || self.describe(&mut packet, header)).then_some(packet)
    }

    /// Chains the buffers with the other `rest` bytes.
    fn gather(&mut self, packet: &mut Packet, mut rest: usize) {
        while rest > 0
            && let Some(mut next) = self.armed.pop()
        {
            let size = next.data_len();
            _ = next.trim(size.saturating_sub(rest));
            rest = rest.saturating_sub(size);
            // At most `MOST` segments, fewer than a packet can have.
            let _ = packet.chain(next);
        }
    }

    #[cold]
    fn describe(&self, packet: &mut Packet, header: NetHeader) -> bool {
        let good = header
            .request(packet.len())
            .is_some_and(|request| describe(packet, request, self.parts.accepted).is_ok());
        if !good {
            self.parts.stats.dropped(RxLoss::BadOffload, packet);
        }
        good
    }
}

impl<const SCATTER: bool> RxQueue for Rx<SCATTER> {
    fn rx_burst(&mut self, packets: &mut Burst) -> usize {
        let (mut count, mut bytes, wanted) = (0, 0, packets.room());
        // Bad frames count too, so that a sender of bad frames cannot keep the thread here.
        for _ in 0..wanted {
            if !self.arm() {
                self.parts.stats.lost(RxLoss::NoBuffer, 1);
                break;
            }
            let Some(len) = self.read() else { break };
            let Some(packet) = self.take(len) else { continue };
            bytes += packet.len() as u64;
            // There is room: `count` is below it.
            let _ = packets.push(packet);
            count += 1;
        }
        self.parts.stats.moved(count, bytes);
        count
    }

    fn path(&self) -> &'static str {
        if SCATTER { "readv scatter" } else { "read" }
    }

    fn arm(&mut self) -> Armed {
        arm_descriptor(&self.parts.file)
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        Some(self.parts.file.as_fd())
    }
}
