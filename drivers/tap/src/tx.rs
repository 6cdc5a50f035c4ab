//! The transmit path: writes frames without a copy, with one `write` each.
//!
//! A packet in a single unshared buffer gets its header in its own headroom. All others are written from
//! several pieces.

use std::io::IoSlice;
use std::sync::Arc;

use linecard_mempool::{Burst, Packet, Pool};
use linecard_net::vnet::{HDR_LEN, NetHeader};
use rustix::io::Errno;

use super::control::Trouble;
use super::file::File;
use linecard_pmd::offload::{AcceptedOffloads, SoftTx, TxRequest, asks};
use linecard_pmd::port::TxQueue;
use linecard_pmd::stats::{QueueStats, Total};

const HEADER: usize = HDR_LEN as usize;
/// A header without offload requests.
const PLAIN: [u8; HEADER] = [0; HEADER];
/// The pieces of the longest chain, and the header.
const PIECES: usize = Packet::MAX_SEGS as usize + 1;

linecard_pmd::causes! {
    /// The causes for which a tap port drops packets to send.
    pub enum TxLoss {
        /// The kernel accepts no frame of this length: shorter than an Ethernet header, or too long.
        BadLength = ("bad_length", Total::Error),
        /// Offload flags that do not fit the packet.
        BadOffload = ("bad_offload_request", Total::Error),
        /// The pool had no buffer for a copy that an offload needs.
        NoBuffer = ("no_buffer", Total::Error),
        /// The interface is down.
        LinkDown = ("link_down", Total::Error),
        /// The interface was removed.
        Gone = ("interface_gone", Total::Error),
        /// The kernel had no memory for the frame, or dropped it for another reason.
        Refused = ("refused_by_kernel", Total::Error),
        /// Segments that were not sent before the queue ended.
        Stopped = ("stopped", Total::Error),
    }
}

linecard_pmd::soft_causes!(TxLoss);

/// A transmit queue.
pub(super) struct Tx {
    writer: Writer,
    soft: SoftTx,
}

/// The result for one packet.
enum TxOutcome {
    Sent,
    Lost(TxLoss),
    Full,
}

struct Writer {
    file: File,
    stats: Arc<QueueStats<TxLoss>>,
    trouble: Arc<Trouble>,
    accepted: AcceptedOffloads,
}

impl Tx {
    pub(super) fn new(
        file: File,
        pool: Pool,
        stats: Arc<QueueStats<TxLoss>>,
        trouble: Arc<Trouble>,
        accepted: AcceptedOffloads,
    ) -> Self {
        let soft = SoftTx::counting(pool, Arc::clone(&stats));
        Self { writer: Writer { file, stats, trouble, accepted }, soft }
    }
}

impl TxQueue for Tx {
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        let Self { writer, soft } = self;
        if packets.iter().any(|packet| asks(packet.offload())) {
            return soft.burst(packets, writer.accepted, |ready| writer.burst(ready));
        }
        if !soft.flush(|ready| writer.burst(ready)) {
            return 0;
        }
        writer.burst(packets)
    }

    fn reclaim(&mut self) {
        self.soft.flush(|ready| self.writer.burst(ready));
    }

    fn path(&self) -> &'static str {
        "write"
    }
}

impl Writer {
    fn burst(&self, packets: &mut Burst) -> usize {
        let (mut done, mut sent, mut bytes) = (0, 0, 0);
        for packet in packets.iter_mut() {
            let len = packet.len() as u64;
            match self.send(packet) {
                TxOutcome::Sent => {
                    sent += 1;
                    bytes += len;
                }
                TxOutcome::Lost(cause) => self.stats.dropped(cause, packet),
                TxOutcome::Full => break,
            }
            done += 1;
        }
        self.stats.moved(sent, bytes);
        if done == packets.len() {
            packets.clear();
        } else {
            drop(packets.drain(..done));
        }
        done
    }

    fn send(&self, packet: &mut Packet) -> TxOutcome {
        if asks(packet.offload()) {
            return match TxRequest::of(packet).ok().flatten().filter(|asked| asked.is_taken(self.accepted)) {
                Some(asked) => {
                    let header = NetHeader { num_buffers: 0, ..NetHeader::asking(asked.request()) };
                    self.pieces(packet, &header.to_bytes())
                }
                None => TxOutcome::Lost(TxLoss::BadOffload),
            };
        }
        if packet.is_plain()
            && let Some(place) = packet.prepend(HEADER)
        {
            place.copy_from_slice(&PLAIN);
            let written = self.file.write(packet.data());
            // Restores the original length.
            _ = packet.adj(HEADER);
            return self.fate(written);
        }
        self.pieces(packet, &PLAIN)
    }

    #[cold]
    fn pieces(&self, packet: &Packet, header: &[u8; HEADER]) -> TxOutcome {
        let mut pieces = [IoSlice::new(&[]); PIECES];
        pieces[0] = IoSlice::new(header);
        let (places, segments) = (pieces[1..].iter_mut(), packet.segments());
        places.zip(segments).for_each(|(place, segment)| *place = IoSlice::new(segment.data()));
        let count = 1 + usize::from(packet.nb_segs());
        self.fate(self.file.write_from(&pieces[..count]))
    }

    fn fate(&self, written: rustix::io::Result<usize>) -> TxOutcome {
        match written {
            Ok(_) => TxOutcome::Sent,
            Err(error) => self.refused(error),
        }
    }

    #[cold]
    fn refused(&self, error: Errno) -> TxOutcome {
        TxOutcome::Lost(match error {
            Errno::AGAIN | Errno::INTR => return TxOutcome::Full,
            Errno::IO => TxLoss::LinkDown,
            Errno::INVAL | Errno::MSGSIZE => TxLoss::BadLength,
            Errno::BADFD | Errno::NODEV | Errno::NXIO => {
                self.trouble.report(error);
                TxLoss::Gone
            }
            _ => TxLoss::Refused,
        })
    }
}
