//! Transmit queues: one `sendmmsg` for each burst.

use std::io;
use std::sync::Arc;

use linecard_mempool::Burst;
use linecard_net::request::AcceptedOffloads;

use super::loss::TxLoss;
use super::messages::Messages;
use linecard_netdev::packet_socket::Socket;
use linecard_pmd::offload::SoftTx;
use linecard_pmd::port::TxQueue;
use linecard_pmd::stats::QueueStats;

/// The bytes of an Ethernet header.
const ETHER: usize = 14;

/// The handling of packets that the kernel did not accept.
enum Rejected {
    /// They stay in the burst: there is no room at the moment.
    Later,
    /// The first one can never be sent.
    First(TxLoss),
    /// None can be sent.
    All(TxLoss),
}

/// The sending side: messages and loss counters.
struct Wire {
    socket: Socket,
    stats: Arc<QueueStats<TxLoss>>,
    messages: Messages,
}

pub(super) struct Tx {
    wire: Wire,
    /// Performs offloads that the kernel does not accept; absent if no transmit offload is configured.
    soft: Option<(SoftTx, AcceptedOffloads)>,
}

impl Tx {
    /// With `soft`, the socket must already expect a virtio header before each packet.
    pub(super) fn new(
        socket: Socket,
        stats: Arc<QueueStats<TxLoss>>,
        soft: Option<(SoftTx, AcceptedOffloads)>,
    ) -> Self {
        let messages = Messages::new(soft.is_some());
        Self { wire: Wire { socket, stats, messages }, soft }
    }
}

impl Wire {
    /// Sends from the front of `packets`; returns how many are sent or dropped.
    fn send(&mut self, packets: &mut Burst) -> usize {
        let before = packets.len();
        let (mut sent, mut bytes) = (0, 0);
        while !packets.is_empty() {
            let messages = self.messages.gather(packets);
            // SAFETY: `gather` made them point into the packets and into `self.messages`, both borrowed or
            // untouched until the call returns; the kernel has copied everything by then.
            match unsafe { self.socket.send(messages) } {
                Ok(count) => {
                    sent += count;
                    bytes += packets[..count].iter().map(|packet| packet.len() as u64).sum::<u64>();
                    forget(packets, count);
                }
                Err(error) => match fate(&error, packets[0].len()) {
                    Rejected::Later => break,
                    Rejected::First(cause) => {
                        self.stats.dropped(cause, &packets[0]);
                        forget(packets, 1);
                    }
                    Rejected::All(cause) => {
                        packets.iter().for_each(|packet| self.stats.dropped(cause, packet));
                        packets.clear();
                    }
                },
            }
        }
        self.stats.moved(sent, bytes);
        before - packets.len()
    }
}

/// Frees the first `count` packets.
fn forget(packets: &mut Burst, count: usize) {
    if count == packets.len() {
        packets.clear();
    } else {
        packets.drain(..count).for_each(drop);
    }
}

fn fate(error: &io::Error, len: usize) -> Rejected {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINTR) => Rejected::Later,
        Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => Rejected::All(TxLoss::LinkDown),
        Some(libc::EMSGSIZE) => Rejected::First(TxLoss::TooLong),
        _ if len < ETHER => Rejected::First(TxLoss::TooShort),
        _ => Rejected::First(TxLoss::Refused),
    }
}

impl TxQueue for Tx {
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        if packets.is_empty() {
            return 0;
        }
        let Self { wire, soft } = self;
        match soft {
            None => wire.send(packets),
            Some((soft, accepted)) => soft.burst(packets, *accepted, |ready| wire.send(ready)),
        }
    }

    fn reclaim(&mut self) {
        let Self { wire, soft } = self;
        if let Some((soft, _)) = soft {
            soft.flush(|ready| wire.send(ready));
        }
    }

    fn path(&self) -> &'static str {
        "sendmmsg"
    }
}
