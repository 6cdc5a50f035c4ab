//! Two namespaces joined by a veth pair, and ports at its ends.

use linecard_mempool::Pool;

use super::{Lab, wait_until};
use crate::contract::{Peer, PortPeer};
use linecard_netdev::Interface;
use linecard_pmd::config::PortConfig;
use linecard_pmd::control::PortStats;
use linecard_pmd::port::Device;

/// Two namespaces joined by a veth pair: the interface `near` in the first, `far` in the second, both up and without
/// chatter of the kernel's.
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
    /// Where `near` is.
    pub near: Lab,
    /// Where `far` is.
    pub far: Lab,
}

impl Cable {
    /// A cable for the test of that name, with one queue; `None`, loudly, where there can be none.
    ///
    /// # Panics
    /// As [`Lab::new`], or it does not come up.
    #[must_use]
    pub fn new(test: &str) -> Option<Self> {
        Self::with_queues(test, 1)
    }

    /// As [`new`](Self::new), where ports can have XDP sockets and programs.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    #[must_use]
    pub fn with_xdp(test: &str) -> Option<Self> {
        Self::new(test).filter(|cable| cable.near.has_xdp(test))
    }

    /// A cable whose interfaces have so many queues.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    #[must_use]
    pub fn with_queues(test: &str, queues: u16) -> Option<Self> {
        let cable = Self { near: Lab::new(test)?, far: Lab::new(test)? };
        cable.plug(queues);
        Some(cable)
    }

    /// Makes the pair; anew, when it was removed.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn plug(&self, queues: u16) {
        let queues = format!("numrxqueues {queues} numtxqueues {queues}");
        self.near.ip(&format!("link add near {queues} type veth peer name far {queues}"));
        self.near.ip(&format!("link set far netns {}", self.far.path()));
        for (lab, name) in [(&self.near, "near"), (&self.far, "far")] {
            lab.ip(&format!("link set {name} addrgenmode none"));
            lab.ip(&format!("link set {name} up"));
        }
        // The kernel tells of the carrier a little later.
        wait_until("the carrier of a cable", || {
            self.near.interface("near").link().up && self.far.interface("far").link().up
        });
    }

    /// The argument for a device on `near`; `options` begin with a comma.
    #[must_use]
    pub fn at_near(&self, device: &str, options: &str) -> String {
        format!("{device},iface=near,netns={}{options}", self.near.path())
    }

    /// The argument for a device on `far`.
    #[must_use]
    pub fn at_far(&self, device: &str, options: &str) -> String {
        format!("{device},iface=far,netns={}{options}", self.far.path())
    }

    /// A device on `far`, as what a contract's device on `near` is joined to: with the link between them, and what the
    /// kernel counted at `near`; of each packet it leaves `uncounted` bytes out.
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
