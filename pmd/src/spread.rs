//! Software distribution of flows over worker cores: packets of one flow go to one worker, in order.
//!
//! ```text
//!                        ┌─► burst 0 ─► link ─► worker 0 ─► link ─┐
//!   rx_burst ─► Spread ──┼─► burst 1 ─► link ─► worker 1 ─► link ─┼─► tx_burst
//!                        └─► burst 2 ─► link ─► worker 2 ─► link ─┘
//! ```
//! A link is a pair of `net_ring` ports, which pass packets without a copy. `examples/pipeline.rs` is a
//! complete program. A port with several receive queues, whose device or kernel spreads flows, does not need
//! this.

use linecard_mempool::{Burst, Packet};
use linecard_net::parse;
use linecard_net::toeplitz::{SYMMETRIC_KEY, Toeplitz};

/// Both directions of a flow have the same hash.
static HASH: Toeplitz = Toeplitz::new(&SYMMETRIC_KEY);

/// Distributes packets over workers by the hash of their flow: addresses and ports of TCP and UDP, addresses
/// of other IP packets and of fragments. Packets without an IP header go to the first worker.
///
/// ```
/// # use linecard_eal::{Memory, MemoryConfig};
/// # use linecard_mempool::{Burst, Pool, PoolConfig};
/// # let domain = Memory::new(MemoryConfig::default())?.domain("packets")?;
/// # let pool = Pool::new(&domain, PoolConfig::default())?;
/// use linecard_pmd::spread::Spread;
/// let mut spread = Spread::new(4);
/// let mut packets = Burst::new();
/// pool.get_bulk(&mut packets, 8)?; // without headers
/// spread.deal(&mut packets);
/// assert_eq!((packets.len(), spread.burst(0).len(), spread.burst(3).len()), (0, 8, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Spread {
    bursts: Vec<Burst>,
}

impl Spread {
    /// Creates a distributor for this number of workers, at least one.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { bursts: (0..workers.max(1)).map(|_| Burst::new()).collect() }
    }

    /// The number of workers.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.bursts.len()
    }

    /// The worker for a packet. The hash in the packet's metadata is used if there is one. A device may
    /// compute different hashes for the two directions of a flow: disable RSS hashes of ports if both
    /// directions must go to one worker.
    #[must_use]
    pub fn worker_of(&self, packet: &Packet) -> usize {
        let hash = packet.hash().or_else(|| HASH.flow(packet.data(), &parse(packet.data()))).unwrap_or(0);
        // The upper half of a product: every worker gets an equal share of all hashes.
        ((u64::from(hash) * self.bursts.len() as u64) >> 32) as usize
    }

    /// Moves packets to the bursts of their workers, in order. A packet whose worker's burst is full stays,
    /// with all packets behind it.
    pub fn deal(&mut self, packets: &mut Burst) {
        let mut kept = Burst::new();
        let count = packets.len();
        for packet in packets.drain(..count) {
            let worker = self.worker_of(&packet);
            let full = !kept.is_empty() || self.bursts[worker].room() == 0;
            // Neither push fails: `kept` is as large as any burst, and the worker's burst has room.
            let _ = if full { kept.push(packet) } else { self.bursts[worker].push(packet) };
        }
        packets.take_from(&mut kept);
    }

    /// The packets for a worker, to be sent on the transmit queue of its link.
    ///
    /// # Panics
    /// `worker` is out of range.
    pub fn burst(&mut self, worker: usize) -> &mut Burst {
        &mut self.bursts[worker]
    }
}

#[cfg(test)]
mod tests {
    use linecard_eal::{Memory, MemoryConfig};
    use linecard_mempool::{Pool, PoolConfig};
    use linecard_net::ether::{Ethernet, ether_type};
    use linecard_net::ip::{Ipv4, protocol};
    use linecard_net::transport::Udp;
    use linecard_net::{Header as _, MacAddr};

    use super::*;

    fn pool() -> Pool {
        let domain =
            Memory::new(MemoryConfig::default()).expect("memory").domain("packets").expect("a domain");
        Pool::new(&domain, PoolConfig::default().packets(1024)).expect("a pool")
    }

    fn first(burst: &mut Burst) -> Option<Packet> {
        if burst.is_empty() { None } else { burst.drain(..1).next() }
    }

    /// A packet of a flow, there or back, with a number behind its headers.
    fn packet(pool: &Pool, flow: u16, back: bool, number: u8) -> Packet {
        let mut frame = [0; 60];
        let ([a, b], [from, to]) = if back {
            ([[10, 0, 0, 2], [10, 0, 0, 1]], [53, flow])
        } else {
            ([[10, 0, 0, 1], [10, 0, 0, 2]], [flow, 53])
        };
        Ethernet::new(MacAddr::local(2), MacAddr::local(1), ether_type::IPV4)
            .store(&mut frame)
            .expect("fits");
        Ipv4::new(a, b, protocol::UDP, 26).store(&mut frame[14..]).expect("fits");
        Udp::new(from, to, 18).store(&mut frame[34..]).expect("fits");
        frame[42] = number;
        pool.packet_of(&frame, 60).expect("a packet")
    }

    #[test]
    fn flows_stay_together_in_their_order_and_all_workers_have_some() {
        let pool = pool();
        for workers in [1, 2, 3, 8] {
            let mut spread = Spread::new(workers);
            let mut seen: Vec<Vec<(u16, u8)>> = vec![Vec::new(); workers];
            for round in 0..4 {
                let mut packets = Burst::new();
                packets.fill_from(
                    &mut (0..64).map(|flow| packet(&pool, 1000 + flow, (flow + round) % 2 == 1, round as u8)),
                );
                while !packets.is_empty() {
                    spread.deal(&mut packets);
                    for (worker, seen) in seen.iter_mut().enumerate() {
                        while let Some(packet) = first(spread.burst(worker)) {
                            let ports = [&packet.data()[34..36], &packet.data()[36..38]]
                                .map(|port| u16::from_be_bytes([port[0], port[1]]));
                            seen.push((ports[0].max(ports[1]), packet.data()[42]));
                        }
                    }
                }
            }
            for flow in 1000..1064 {
                let of = |seen: &Vec<(u16, u8)>| {
                    seen.iter().filter(|(of, _)| *of == flow).map(|(_, number)| *number).collect::<Vec<_>>()
                };
                let at: Vec<Vec<u8>> = seen.iter().map(of).filter(|numbers| !numbers.is_empty()).collect();
                assert_eq!(at, [[0, 1, 2, 3]], "{workers} workers, flow {flow}");
            }
            assert!(
                seen.iter().all(|seen| seen.len() > 256 / workers / 4),
                "{workers}: {:?}",
                seen.iter().map(Vec::len).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn a_full_burst_keeps_what_is_behind_in_its_order() {
        let (pool, mut spread) = (pool(), Spread::new(2));
        let (mut packets, mut more) = (Burst::new(), Burst::new());
        packets.fill_from(&mut (0..64).map(|number| packet(&pool, 1, false, number)));
        more.fill_from(&mut (0..3).map(|number| packet(&pool, 1, false, 64 + number)));
        spread.deal(&mut packets);
        spread.deal(&mut more);
        assert_eq!((packets.len(), more.len()), (0, 3));
        assert_eq!(more.iter_mut().map(|packet| packet.data()[42]).collect::<Vec<_>>(), [64, 65, 66]);
        let worker = spread.worker_of(&packet(&pool, 1, true, 0));
        assert_eq!(spread.burst(worker).len(), 64);
    }

    #[test]
    fn a_hash_that_the_port_told_is_used() {
        let (pool, spread) = (pool(), Spread::new(4));
        let mut one = packet(&pool, 1, false, 0);
        for (hash, worker) in [(0, 0), (1 << 30, 1), (u32::MAX, 3)] {
            one.set_hash(hash);
            assert_eq!(spread.worker_of(&one), worker);
        }
    }
}
