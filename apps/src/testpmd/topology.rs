//! The plan of forwarding: which queue feeds which, and on which lcore. Pure functions of ids.

use super::settings::{ModeKind, PortTopology};

/// A receive queue and the transmit queue for its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) rx_port: u16,
    pub(crate) rx_queue: u16,
    pub(crate) tx_port: u16,
    pub(crate) tx_queue: u16,
}

/// The streams of one lcore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) lcore: u32,
    pub(crate) streams: Vec<Stream>,
}

/// The transmit port for packets received on `ports[index]`.
fn tx_port(ports: &[u16], index: usize, topology: PortTopology) -> u16 {
    let own = ports[index];
    let other = match topology {
        PortTopology::Loop => index,
        PortTopology::Chained => (index + 1) % ports.len(),
        PortTopology::Paired => index ^ 1,
    };
    ports.get(other).copied().unwrap_or(own)
}

/// Returns every stream, queue by queue, in DPDK's order.
///
/// There is a stream for each queue number that both sides have: the lesser of `rx_queues` and `tx_queues`.
/// icmpecho replies on the port and queue of the request, port by port.
pub(crate) fn streams(
    ports: &[u16],
    topology: PortTopology,
    mode: ModeKind,
    rx_queues: u16,
    tx_queues: u16,
) -> Vec<Stream> {
    let queues = rx_queues.min(tx_queues);
    if mode == ModeKind::IcmpEcho {
        let of = |port| (0..queues).map(move |queue| stream(port, port, queue));
        return ports.iter().flat_map(|&port| of(port)).collect();
    }
    let of = |queue| (0..ports.len()).map(move |i| stream(ports[i], tx_port(ports, i, topology), queue));
    (0..queues).flat_map(of).collect()
}

fn stream(rx_port: u16, tx_port: u16, queue: u16) -> Stream {
    Stream { rx_port, rx_queue: queue, tx_port, tx_queue: queue }
}

/// Distributes streams over lcores; if they do not divide evenly, the last lcores have one more.
///
/// Lcores without a stream get no share.
pub(crate) fn shares(streams: &[Stream], lcores: &[u32]) -> Vec<Share> {
    let cores = lcores.len().min(streams.len());
    if cores == 0 {
        return Vec::new();
    }
    let (each, extra) = (streams.len() / cores, streams.len() % cores);
    let mut rest = streams;
    let mut shares = Vec::with_capacity(cores);
    for (index, &lcore) in lcores.iter().take(cores).enumerate() {
        let count = each + usize::from(index >= cores - extra);
        let (own, others) = rest.split_at(count);
        shares.push(Share { lcore, streams: own.to_vec() });
        rest = others;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(ports: &[u16], topology: PortTopology) -> Vec<(u16, u16)> {
        let all = streams(ports, topology, ModeKind::Io, 1, 1);
        all.iter().map(|s| (s.rx_port, s.tx_port)).collect()
    }

    #[test]
    fn topologies_pair_ports_like_dpdk() {
        assert_eq!(pairs(&[0], PortTopology::Paired), [(0, 0)]);
        assert_eq!(pairs(&[0, 1], PortTopology::Paired), [(0, 1), (1, 0)]);
        assert_eq!(pairs(&[1, 0], PortTopology::Paired), [(1, 0), (0, 1)]);
        assert_eq!(pairs(&[0, 1, 2], PortTopology::Paired), [(0, 1), (1, 0), (2, 2)]);
        assert_eq!(pairs(&[0, 1, 2], PortTopology::Chained), [(0, 1), (1, 2), (2, 0)]);
        assert_eq!(pairs(&[4, 7], PortTopology::Loop), [(4, 4), (7, 7)]);
        assert_eq!(pairs(&[], PortTopology::Chained), []);
    }

    #[test]
    fn queues_come_in_rounds_except_for_icmpecho() {
        let order = |mode| -> Vec<_> {
            let all = streams(&[0, 1], PortTopology::Paired, mode, 2, 3);
            all.iter().map(|s| (s.rx_port, s.rx_queue, s.tx_port, s.tx_queue)).collect()
        };
        assert_eq!(order(ModeKind::Io), [(0, 0, 1, 0), (1, 0, 0, 0), (0, 1, 1, 1), (1, 1, 0, 1)]);
        assert_eq!(order(ModeKind::IcmpEcho), [(0, 0, 0, 0), (0, 1, 0, 1), (1, 0, 1, 0), (1, 1, 1, 1)]);
    }

    #[test]
    fn no_queue_is_used_twice() {
        for count in 1..6_u16 {
            let ports: Vec<u16> = (0..count).collect();
            for topology in [PortTopology::Paired, PortTopology::Chained, PortTopology::Loop] {
                let all = streams(&ports, topology, ModeKind::Io, 2, 2);
                let mut rx: Vec<_> = all.iter().map(|s| (s.rx_port, s.rx_queue)).collect();
                let mut tx: Vec<_> = all.iter().map(|s| (s.tx_port, s.tx_queue)).collect();
                rx.sort_unstable();
                tx.sort_unstable();
                assert_eq!(rx, tx);
                rx.dedup();
                assert_eq!(rx.len(), all.len());
            }
        }
    }

    #[test]
    fn shares_cover_every_stream_once() {
        let all = streams(&[0, 1, 2, 3, 4], PortTopology::Loop, ModeKind::Io, 1, 1);
        let counts = |lcores: &[u32]| -> Vec<_> {
            let shares = shares(&all, lcores);
            let joined: Vec<_> = shares.iter().flat_map(|s| s.streams.clone()).collect();
            assert_eq!(joined, all);
            shares.iter().map(|s| (s.lcore, s.streams.len())).collect()
        };
        assert_eq!(counts(&[1]), [(1, 5)]);
        assert_eq!(counts(&[1, 2]), [(1, 2), (2, 3)]);
        assert_eq!(counts(&[1, 2, 3, 4, 5, 6, 7]), [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]);
        assert_eq!(shares(&all, &[]), []);
        assert_eq!(shares(&[], &[1]), []);
    }
}
