//! Announcements that the device requests after the virtual machine has migrated: switches learn the new
//! location from the frame (virtio 1.3, Network Device: Gratuitous Packet Sending).
//!
//! The frame is a RARP request, as QEMU and DPDK send it: a port has no IP address for a gratuitous ARP. An
//! application that has an IP address sends that itself.

use linecard_eal::gate::close_all;
use linecard_mempool::Burst;
use linecard_net::arp::rarp_announcement;
use linecard_pmd::PortControl;
use linecard_virtio::Features;

use super::{BURST_TIME, Live, Session};
use crate::backend::{Ready, RingId};
use crate::error::Error;
use crate::log::tell;
use crate::thread::after;

/// The attempts while the ring is full or the pool is empty, [`BURST_TIME`] apart.
const TRIES: u32 = 100;

impl Session {
    /// Announces the port if the device has requested it, and acknowledges that. Returns whether it was
    /// requested.
    pub(super) fn follow_announcement(&mut self, live: &mut Live) -> Result<bool, Error> {
        let agreed = live.features.contains(Features::NET_GUEST_ANNOUNCE);
        let Some(requests) = live.requests.as_mut().filter(|_| agreed && live.backend.take_announcement())
        else {
            return Ok(false);
        };
        if !self.announce(&live.stopped) {
            tell!(self.state.log, WARN, "the device asked for an announcement that could not be sent");
        }
        requests.acknowledge_announcement(&mut *live.backend, None)?;
        Ok(true)
    }

    /// Sends the frame on the first transmit queue that is not stopped, between two bursts. Returns whether
    /// it was sent.
    fn announce(&mut self, stopped: &[RingId]) -> bool {
        let is_started = |queue: &u16| !stopped.contains(&RingId::transmit(*queue));
        let Some(first) = (0..).take(self.tx.len()).find(is_started).map(usize::from) else { return false };
        self.pace.interrupted(1);
        for _ in 0..TRIES {
            if self.stopped() {
                return false;
            }
            if close_all(self.tx.get_mut(first)) {
                let sent = self.announce_on(first);
                self.tx.get_mut(first).into_iter().for_each(|queue| queue.open());
                if sent {
                    return true;
                }
            }
            self.waiter.wait(None, Ready::Read, Some(after(BURST_TIME)));
        }
        // The gate may still be closing.
        self.tx.get_mut(first).into_iter().for_each(|queue| queue.open());
        false
    }

    /// Sends the frame on a queue whose gate is held.
    fn announce_on(&mut self, queue: usize) -> bool {
        let Some(Some(path)) = self.tx.get_mut(queue).and_then(|queue| queue.value()) else { return false };
        let frame = rarp_announcement(self.state.mac());
        let Some(mut packet) = self.pool.get() else { return false };
        let Some(room) = packet.append(frame.len()) else { return false };
        room.copy_from_slice(&frame);
        let mut burst = Burst::new();
        path.reclaim();
        burst.push(packet).is_ok() && path.burst(&mut burst) == 1
    }
}
