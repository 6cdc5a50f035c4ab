//! The test bench of a link: opens, starts, drives and stops its device, and counts everything.

use std::time::{Duration, Instant};

use linecard_eal::memory::{Memory, MemoryConfig};
use linecard_mempool::{Burst, Pool, PoolConfig};

use super::frames::{bytes, is_marked};
use super::{Ends, FarEnd, Limits, Link};
use crate::{wait_for, wait_until};
use linecard_pmd::config::{PortConfig, configure};
use linecard_pmd::port::{Device, Port, ProbeContext, RxQueue, TxQueue};

/// A link whose device is stopped.
pub(super) struct Bench {
    pub(super) limits: Limits,
    pub(super) near: Box<dyn Device>,
    pub(super) pool: Pool,
    far: FarEnd,
    far_pool: Pool,
}

impl Bench {
    /// Opens `link`; the pool of its device has `packets` packets.
    pub(super) fn open(link: &dyn Link, packets: u32) -> Self {
        let memory = Memory::new(MemoryConfig::default()).expect("memory");
        let domain = memory.domain("near").expect("a domain for the device");
        let other = memory.domain("far").expect("a domain for the far side");
        let config = |name: &str, packets| PoolConfig::default().name(name).packets(packets);
        // Without caches, every packet of a pool is available to any caller.
        let near = config("near", packets).cache(0);
        let pool = Pool::new(&domain, near).expect("a pool for the device");
        let far_pool = Pool::new(&other, config("far", 4096)).expect("a pool for the far side");
        let context = ProbeContext::new(memory, domain, Duration::from_secs(5));
        let other = context.clone().domain(other);
        let Ends { near, far } = link.open(&context, &other);
        Self { limits: link.limits(), near, pool, far, far_pool }
    }

    /// Returns a configuration with `queues` queue pairs, or as many as the device and the link support.
    pub(super) fn config(&self, queues: u16) -> PortConfig {
        let info = self.near.info();
        let queues = queues.min(self.limits.queues).min(info.max_rx_queues).min(info.max_tx_queues);
        let longest = self.limits.len.end().saturating_sub(14).max(1500);
        let mtu = u16::try_from(longest).unwrap_or(u16::MAX).clamp(*info.mtu.start(), *info.mtu.end());
        PortConfig::default().rx_queues(queues).tx_queues(queues).mtu(mtu)
    }

    /// Starts the far side, then the device, and waits for their link.
    pub(super) fn start(self, config: &PortConfig) -> Run {
        let Self { limits, near, pool, mut far, far_pool } = self;
        if let FarEnd::Peer(peer) = &mut far {
            peer.start(config, &far_pool);
        }
        let configured = configure(near, config.clone()).expect("an accepted configuration");
        let port = configured.start(&pool).expect("the device starts");
        assert_eq!(port.rx.len(), usize::from(config.rx_queues), "a queue for each that was asked");
        assert_eq!(port.tx.len(), usize::from(config.tx_queues), "a queue for each that was asked");
        wait_until("link up at both ends", || {
            let far_up = if let FarEnd::Peer(peer) = &far { peer.is_up() } else { true };
            port.control.link().up && far_up
        });
        Run { limits, pool, far_pool, far, port, seen: Seen::default(), seed: 1 }
    }
}

/// Totals of what the suite sent through the device and received from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) rx_packets: u64,
    pub(super) rx_bytes: u64,
    pub(super) tx_packets: u64,
    pub(super) tx_bytes: u64,
}

impl Seen {
    /// Polls a receive queue once; returns the frames of the suite.
    pub(super) fn receive(&mut self, rx: &mut dyn RxQueue) -> Vec<Vec<u8>> {
        let mut burst = Burst::new();
        let count = rx.rx_burst(&mut burst);
        assert_eq!(count, burst.len(), "rx_burst returns how many it appended");
        self.rx_packets += count as u64;
        let mut frames = Vec::new();
        for packet in burst.iter() {
            let frame = bytes(packet);
            assert_eq!(packet.len(), frame.len(), "the packet length is the sum of its segments");
            self.rx_bytes += frame.len() as u64;
            frames.push(frame);
        }
        frames.retain(|frame| is_marked(frame));
        frames
    }

    /// Offers `burst` to a transmit queue once; returns how many packets were taken.
    pub(super) fn send(&mut self, tx: &mut dyn TxQueue, burst: &mut Burst) -> usize {
        let lengths: Vec<u64> = burst.iter().map(|packet| packet.len() as u64).collect();
        tx.reclaim();
        let count = tx.tx_burst(burst);
        assert_eq!(count + burst.len(), lengths.len(), "taken and left are all there were");
        let left: Vec<u64> = burst.iter().map(|packet| packet.len() as u64).collect();
        assert_eq!(left, lengths[count..], "what did not fit stays, in order");
        self.tx_packets += count as u64;
        self.tx_bytes += lengths[..count].iter().sum::<u64>();
        count
    }
}

/// A link whose device is started.
pub(super) struct Run {
    pub(super) limits: Limits,
    pub(super) pool: Pool,
    pub(super) far: FarEnd,
    pub(super) port: Port,
    pub(super) seen: Seen,
    far_pool: Pool,
    seed: u32,
}

impl Run {
    /// Returns new frames of these lengths.
    pub(super) fn frames(&mut self, lengths: impl IntoIterator<Item = usize>) -> Vec<Vec<u8>> {
        let next = |len| {
            self.seed += 1;
            super::frames::frame(self.seed, len)
        };
        lengths.into_iter().map(next).collect()
    }

    /// Sends `frames` (at most a burst) in both directions and compares the received ones, in order.
    pub(super) fn exchange(&mut self, queue: usize, frames: &[Vec<u8>], piece: usize) {
        self.outbound(queue, frames, piece);
        self.inbound(queue, frames);
    }

    /// Sends frames from the device to its far side, in segments of at most `piece` bytes.
    pub(super) fn outbound(&mut self, queue: usize, frames: &[Vec<u8>], piece: usize) {
        let mut burst = Burst::new();
        for frame in frames {
            let tx = &mut self.port.tx[queue];
            let packet = wait_for("a packet to send", || {
                tx.reclaim();
                self.pool.packet_of(frame, piece)
            });
            burst.push(packet).expect("a burst at most");
        }
        let mut got = Vec::new();
        let wanted = if matches!(self.far, FarEnd::Nothing) { 0 } else { frames.len() };
        wait_until("what was sent arrives", || {
            self.seen.send(&mut *self.port.tx[queue], &mut burst);
            got.extend(self.arrived(queue));
            burst.is_empty() && got.len() >= wanted
        });
        compare("sent by the device", &got, &frames[..wanted]);
    }

    fn arrived(&mut self, queue: usize) -> Vec<Vec<u8>> {
        match &mut self.far {
            FarEnd::Loop => self.seen.receive(&mut *self.port.rx[queue]),
            FarEnd::Nothing => Vec::new(),
            FarEnd::Peer(peer) => {
                std::iter::from_fn(|| peer.receive(queue)).filter(|frame| is_marked(frame)).collect()
            }
        }
    }

    /// Sends frames from the far side to the device.
    pub(super) fn inbound(&mut self, queue: usize, frames: &[Vec<u8>]) {
        let (mut got, mut sent) = (Vec::new(), 0);
        match &mut self.far {
            FarEnd::Loop => {}
            FarEnd::Nothing => drop(self.seen.receive(&mut *self.port.rx[queue])),
            FarEnd::Peer(peer) => {
                wait_until("what was sent is received", || {
                    while sent < frames.len() && peer.send(queue, &frames[sent]) {
                        sent += 1;
                    }
                    got.extend(self.seen.receive(&mut *self.port.rx[queue]));
                    // Also polls the far side, for drivers that free sent packets only then.
                    assert!(
                        peer.receive(queue).is_none_or(|frame| !is_marked(&frame)),
                        "a frame nobody sent"
                    );
                    got.len() >= frames.len()
                });
                compare("received by the device", &got, frames);
            }
        }
    }

    /// Sends as many of `frames` as fit to the device's receive queue, from whatever is at its far side;
    /// returns how many.
    pub(super) fn feed(&mut self, queue: usize, frames: &[Vec<u8>]) -> usize {
        match &mut self.far {
            FarEnd::Nothing => frames.len(),
            FarEnd::Peer(peer) => frames.iter().take_while(|frame| peer.send(queue, frame)).count(),
            FarEnd::Loop => {
                let mut burst = Burst::new();
                let packets = frames.iter().map_while(|frame| self.pool.packet_of(frame, usize::MAX));
                packets.take(burst.room()).for_each(|packet| burst.push(packet).expect("room"));
                self.seen.send(&mut *self.port.tx[queue], &mut burst)
            }
        }
    }

    /// Receives until no frame has arrived for a while; returns how many did.
    pub(super) fn drain(&mut self, queue: usize) -> usize {
        let (mut count, mut last) = (0, Instant::now());
        loop {
            // Read before the poll, so that another poll follows even if this thread is paused for long.
            let now = Instant::now();
            let frames = self.seen.receive(&mut *self.port.rx[queue]).len();
            if frames > 0 && !matches!(self.far, FarEnd::Nothing) {
                (count, last) = (count + frames, now);
            } else if now.duration_since(last) > Duration::from_millis(150) {
                return count;
            }
            if let FarEnd::Peer(peer) = &mut self.far {
                while peer.receive(queue).is_some() {}
            }
        }
    }

    /// Compares the port's counters with the totals of the suite.
    pub(super) fn check_counters(&self) {
        let (stats, seen) = (self.port.control.stats(), self.seen);
        let counted = Seen {
            rx_packets: stats.ipackets,
            rx_bytes: stats.ibytes,
            tx_packets: stats.opackets,
            tx_bytes: stats.obytes,
        };
        assert_eq!(counted, seen, "the counters are what was handed over");
        if self.limits.quiet {
            assert_eq!((stats.ierrors, stats.oerrors), (0, 0), "nothing was wrong with any packet");
        }
    }

    /// Stops the device, then the far side; checks that every packet has returned to its pool.
    pub(super) fn stop(self) -> Bench {
        self.check_counters();
        self.stop_uncounted()
    }

    /// The same as [`stop`](Self::stop), for when the counters cannot be predicted.
    pub(super) fn stop_uncounted(self) -> Bench {
        let Self { limits, pool, far_pool, mut far, port, .. } = self;
        let name = port.control.name().to_owned();
        let near = port.stop();
        assert_eq!(near.name(), name, "the same device comes back");
        if let FarEnd::Peer(peer) = &mut far {
            peer.stop();
        }
        wait_until("no packet of the device is lost", || pool.stats().in_use == 0);
        wait_until("no packet of the far side is lost", || far_pool.stats().in_use == 0);
        Bench { limits, near, pool, far, far_pool }
    }
}

/// Panics at the first frame that differs.
fn compare(what: &str, got: &[Vec<u8>], want: &[Vec<u8>]) {
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert_eq!(got.len(), want.len(), "{what}: the length of frame {i}");
        assert!(got == want, "{what}: the bytes of frame {i} of {} bytes", want.len());
    }
    assert_eq!(got.len(), want.len(), "{what}: how many");
}
