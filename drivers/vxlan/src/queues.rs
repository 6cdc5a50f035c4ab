//! The queues of a network.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use linecard_eal::wake::fence;
use linecard_mempool::{Burst, Packet, Pool};
use linecard_pmd::offload::{AcceptedOffloads, SoftTx, asks};
use linecard_pmd::port::{RxQueue, TxQueue};
use linecard_pmd::stats::{QueueStats, Total};
use linecard_pmd::wake::Armed;
use rustix::io::Errno;

use crate::endpoint::Endpoint;
use crate::header;
use crate::tunnel::Tunnel;

linecard_pmd::causes! {
    /// The causes for which frames from other hosts are lost.
    pub enum RxLoss {
        /// More frames arrived than were received.
        Full = ("queue_full", Total::Missed),
        /// The sender is not one of the remotes.
        Stranger = ("unknown_remote", Total::Error),
        /// The pool had no buffers.
        NoBuffer = ("no_buffer", Total::NoBuffer),
    }
}

linecard_pmd::causes! {
    /// The causes for which frames to other hosts are lost.
    pub enum TxLoss {
        /// The frame is shorter than an Ethernet header.
        BadLength = ("bad_length", Total::Error),
        /// The frame exceeds the MTU of the path to the remote.
        TooLong = ("too_long", Total::Error),
        /// The station is unknown, or the frame is a broadcast, and there are no remotes.
        NoRemote = ("no_remote", Total::Error),
        /// There is no route to the remote.
        Unreachable = ("unreachable", Total::Error),
        /// The kernel refused the packet for another reason.
        Refused = ("refused_by_kernel", Total::Error),
        /// Offload flags that do not fit the packet.
        BadOffload = ("bad_offload_request", Total::Error),
        /// The pool had no buffer for a copy that an offload needs.
        NoBuffer = ("no_buffer", Total::Error),
        /// Segments that were not sent before the queue ended.
        Stopped = ("stopped", Total::Error),
    }
}

linecard_pmd::soft_causes!(TxLoss);

/// The receive queue.
pub(crate) struct Rx {
    tunnel: Arc<Tunnel>,
    stats: Arc<QueueStats<RxLoss>>,
}

impl Rx {
    pub(crate) fn new(tunnel: Arc<Tunnel>, stats: Arc<QueueStats<RxLoss>>) -> Self {
        Self { tunnel, stats }
    }

    /// Counts the losses of the endpoint's thread.
    fn count_losses(&self) {
        let lost = &self.tunnel.lost;
        let count = |counter: &AtomicU64, cause| {
            if counter.load(Ordering::Relaxed) > 0 {
                self.stats.lost(cause, counter.swap(0, Ordering::Relaxed));
            }
        };
        count(&lost.full, RxLoss::Full);
        count(&lost.stranger, RxLoss::Stranger);
        count(&lost.no_buffer, RxLoss::NoBuffer);
    }
}

impl RxQueue for Rx {
    fn rx_burst(&mut self, packets: &mut Burst) -> usize {
        self.count_losses();
        let (mut count, mut bytes) = (0, 0);
        while packets.room() > 0
            && let Some(packet) = self.tunnel.frames.pop()
        {
            bytes += packet.len() as u64;
            count += 1;
            // The loop has checked the room.
            let _ = packets.push(packet);
        }
        if count > 0 {
            self.stats.moved(count, bytes);
        }
        count
    }

    fn path(&self) -> &'static str {
        "udp"
    }

    fn arm(&mut self) -> Armed {
        if self.begin_arm() {
            fence();
        }
        self.finish_arm()
    }

    fn prepare_arm(&mut self) {
        // `begin_arm` fails as well if this did.
        let _ = self.tunnel.wake.prepare();
    }

    fn begin_arm(&mut self) -> bool {
        self.tunnel.wake.request()
    }

    fn finish_arm(&mut self) -> Armed {
        if self.tunnel.wake.event().is_none() {
            return Armed::Unable;
        }
        if self.tunnel.frames.is_empty() { Armed::Asleep } else { Armed::Ready }
    }

    fn disarm(&mut self) {
        self.tunnel.wake.disarm();
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        self.tunnel.wake.event()
    }
}

/// The transmit queue.
pub(crate) struct Tx {
    sender: Sender,
    soft: SoftTx,
}

struct Sender {
    endpoint: Arc<Endpoint>,
    tunnel: Arc<Tunnel>,
    header: [u8; header::LEN],
    stats: Arc<QueueStats<TxLoss>>,
}

impl Tx {
    pub(crate) fn new(
        endpoint: Arc<Endpoint>,
        tunnel: Arc<Tunnel>,
        pool: &Pool,
        stats: Arc<QueueStats<TxLoss>>,
    ) -> Self {
        let soft = SoftTx::counting(pool.clone(), Arc::clone(&stats));
        let header = header::write(tunnel.vni);
        Self { sender: Sender { endpoint, tunnel, header, stats }, soft }
    }
}

impl TxQueue for Tx {
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        let Self { sender, soft } = self;
        if packets.iter().any(|packet| asks(packet.offload())) {
            return soft.burst(packets, AcceptedOffloads::default(), |ready| sender.burst(ready));
        }
        if !soft.flush(|ready| sender.burst(ready)) {
            return 0;
        }
        sender.burst(packets)
    }

    fn reclaim(&mut self) {
        self.soft.flush(|ready| self.sender.burst(ready));
    }

    fn path(&self) -> &'static str {
        "udp"
    }
}

/// The result for one frame.
#[derive(Debug)]
enum SendOutcome {
    Sent,
    Lost(TxLoss),
    Full,
}

impl SendOutcome {
    /// Returns the outcome of a frame for several remotes: sent if at least one got it, and kept in the burst if
    /// none did and a queue was full.
    fn and(self, next: Self) -> Self {
        match (self, next) {
            (Self::Sent, _) | (_, Self::Sent) => Self::Sent,
            (Self::Full, _) | (_, Self::Full) => Self::Full,
            (_, lost) => lost,
        }
    }
}

impl Sender {
    fn burst(&self, packets: &mut Burst) -> usize {
        let now = Instant::now();
        let (mut done, mut sent, mut bytes) = (0, 0, 0);
        for packet in packets.iter() {
            match self.send(packet, now) {
                SendOutcome::Sent => {
                    sent += 1;
                    bytes += packet.len() as u64;
                }
                SendOutcome::Lost(cause) => self.stats.dropped(cause, packet),
                SendOutcome::Full => break,
            }
            done += 1;
        }
        self.stats.moved(sent, bytes);
        drop(packets.drain(..done));
        done
    }

    fn send(&self, packet: &Packet, now: Instant) -> SendOutcome {
        let Some(station) = packet.data().first_chunk::<6>().filter(|_| packet.len() >= 14) else {
            return SendOutcome::Lost(TxLoss::BadLength);
        };
        let known = if station[0] & 1 == 0 { self.tunnel.find(*station, now) } else { None };
        if let Some(host) = known {
            return outcome_of(self.endpoint.send(&self.header, packet, host));
        }
        let remotes = self.tunnel.remotes.iter();
        let outcomes = remotes.map(|remote| outcome_of(self.endpoint.send(&self.header, packet, *remote)));
        outcomes.fold(SendOutcome::Lost(TxLoss::NoRemote), SendOutcome::and)
    }
}

fn outcome_of(sent: io::Result<()>) -> SendOutcome {
    let Err(error) = sent else { return SendOutcome::Sent };
    match Errno::from_io_error(&error) {
        Some(Errno::AGAIN | Errno::NOBUFS) => SendOutcome::Full,
        Some(Errno::MSGSIZE) => SendOutcome::Lost(TxLoss::TooLong),
        Some(Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::NETDOWN) => {
            SendOutcome::Lost(TxLoss::Unreachable)
        }
        _ => SendOutcome::Lost(TxLoss::Refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_for_several_remotes_waits_if_one_of_them_may_still_get_it() {
        let lost = || SendOutcome::Lost(TxLoss::Unreachable);
        let of = |outcomes: [SendOutcome; 2]| {
            outcomes.into_iter().fold(SendOutcome::Lost(TxLoss::NoRemote), SendOutcome::and)
        };
        assert!(matches!(of([SendOutcome::Full, lost()]), SendOutcome::Full));
        assert!(matches!(of([lost(), SendOutcome::Full]), SendOutcome::Full));
        assert!(matches!(of([SendOutcome::Sent, SendOutcome::Full]), SendOutcome::Sent));
        assert!(matches!(of([lost(), SendOutcome::Sent]), SendOutcome::Sent));
        assert!(matches!(of([lost(), lost()]), SendOutcome::Lost(TxLoss::Unreachable)));
    }
}
