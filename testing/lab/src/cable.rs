//! Two namespaces connected by a veth pair, and ports at its ends.

use linecard_mempool::Pool;

use super::{Lab, wait_until};
use crate::contract::{Peer, PortPeer};
use linecard_netdev::Interface;
use linecard_pmd::config::PortConfig;
use linecard_pmd::control::PortStats;
use linecard_pmd::port::Device;

/// Two namespaces connected by a veth pair: the interface `near` in the first, `far` in the second, both up
/// and without packets of the kernel's own.
///
/// ```
/// use linecard_lab::Cable;
/// # fn main() {
/// let Some(cable) = Cable::new("doc example") else { return };
/// assert!(cable.far.interface("far").link().up);
/// assert!(cable.at_near("net_af_packet0", ",version=3").contains("iface=near,netns="));
/// # }
/// ```
#[derive(Debug)]
pub struct Cable {
    /// The namespace of `near`.
    pub near: Lab,
    /// The namespace of `far`.
    pub far: Lab,
}

impl Cable {
    /// Creates a cable with one queue for the test of that name; `None`, with a message, if that is not
    /// possible.
    ///
    /// # Panics
    /// See [`Lab::new`]; also if the cable does not come up.
    #[must_use]
    pub fn new(test: &str) -> Option<Self> {
        Self::with_queues(test, 1)
    }

    /// The same as [`new`](Self::new), but `None` too if XDP sockets and programs are not available.
    ///
    /// # Panics
    /// See [`new`](Self::new).
    #[must_use]
    pub fn with_xdp(test: &str) -> Option<Self> {
        Self::new(test).filter(|cable| cable.near.has_xdp(test))
    }

    /// Creates a cable whose interfaces have `queues` queues.
    ///
    /// # Panics
    /// See [`new`](Self::new).
    #[must_use]
    pub fn with_queues(test: &str, queues: u16) -> Option<Self> {
        let cable = Self { near: Lab::new(test)?, far: Lab::new(test)? };
        cable.plug(queues);
        Some(cable)
    }

    /// Creates the pair; also again, after it was removed.
    ///
    /// # Panics
    /// See [`new`](Self::new).
    pub fn plug(&self, queues: u16) {
        let queues = format!("numrxqueues {queues} numtxqueues {queues}");
        self.near.ip(&format!("link add near {queues} type veth peer name far {queues}"));
        self.near.ip(&format!("link set far netns {}", self.far.path()));
        for (lab, name) in [(&self.near, "near"), (&self.far, "far")] {
            lab.ip(&format!("link set {name} addrgenmode none"));
            lab.ip(&format!("link set {name} up"));
        }
        // The kernel reports the carrier a little later.
        wait_until("the carrier of a cable", || {
            self.near.interface("near").link().up && self.far.interface("far").link().up
        });
    }

    /// Returns the argument for a device on `near`; `options` must begin with a comma.
    #[must_use]
    pub fn at_near(&self, device: &str, options: &str) -> String {
        format!("{device},iface=near,netns={}{options}", self.near.path())
    }

    /// Returns the argument for a device on `far`.
    #[must_use]
    pub fn at_far(&self, device: &str, options: &str) -> String {
        format!("{device},iface=far,netns={}{options}", self.far.path())
    }

    /// Returns a device on `far` as the peer of a contract's device on `near`. The peer can change the link,
    /// and reads the kernel's counters at `near`, which leave out `uncounted` bytes of each packet.
    #[must_use]
    pub fn peer(&self, far: Box<dyn Device>, uncounted: u64) -> Box<dyn Peer> {
        Box::new(End { port: PortPeer::new(far), near: self.near.interface("near"), uncounted })
    }
}

struct End {
    port: PortPeer,
    near: Interface,
    uncounted: u64,
}

impl Peer for End {
    fn start(&mut self, config: &PortConfig, pool: &Pool) {
        self.port.start(config, pool);
    }

    fn is_up(&self) -> bool {
        self.port.is_up()
    }

    fn send(&mut self, queue: usize, frame: &[u8]) -> bool {
        self.port.send(queue, frame)
    }

    fn receive(&mut self, queue: usize) -> Option<Vec<u8>> {
        self.port.receive(queue)
    }

    fn stop(&mut self) {
        self.port.stop();
    }

    fn set_link(&mut self, up: bool) -> bool {
        self.near.set_up(up).is_ok()
    }

    fn remove(&mut self) -> bool {
        self.near.remove().is_ok()
    }

    fn counters(&self) -> Option<PortStats> {
        let stats = self.near.info().ok()?.stats;
        Some(PortStats {
            ipackets: stats.rx_packets,
            ibytes: stats.rx_bytes + stats.rx_packets * self.uncounted,
            opackets: stats.tx_packets,
            obytes: stats.tx_bytes + stats.tx_packets * self.uncounted,
            ..PortStats::default()
        })
    }
}
