//! The far side of a link.

use linecard_mempool::{Burst, Pool};

use super::frames::bytes;
use crate::wait_until;
use linecard_pmd::config::{PortConfig, configure};
use linecard_pmd::control::PortStats;
use linecard_pmd::port::{Device, Port};

/// The far side of a link, which transfers frames as bytes: another port ([`PortPeer`]), or an end driven by
/// the test, such as a socket or a kernel interface.
///
/// ```
/// use std::net::UdpSocket;
/// use linecard_mempool::Pool;
/// use linecard_pmd::PortConfig;
/// use linecard_lab::contract::Peer;
///
/// /// The other end of a device that sends frames in datagrams.
/// struct Datagrams(UdpSocket);
/// impl Peer for Datagrams {
///     fn start(&mut self, _: &PortConfig, _: &Pool) {}
///     fn is_up(&self) -> bool {
///         true
///     }
///     fn send(&mut self, _queue: usize, frame: &[u8]) -> bool {
///         self.0.send(frame).is_ok()
///     }
///     fn receive(&mut self, _queue: usize) -> Option<Vec<u8>> {
///         let mut frame = vec![0; 9000];
///         let len = self.0.recv(&mut frame).ok()?; // the socket is non-blocking
///         frame.truncate(len);
///         Some(frame)
///     }
///     fn stop(&mut self) {}
/// }
/// ```
pub trait Peer: Send {
    /// Prepares for a device with this configuration, before the device starts.
    fn start(&mut self, config: &PortConfig, pool: &Pool);
    /// Whether the device's link is up, as seen from the far side.
    fn is_up(&self) -> bool;
    /// Sends one frame to the device's receive queue; false if there is no room now.
    fn send(&mut self, queue: usize, frame: &[u8]) -> bool;
    /// Returns the next frame from the device's transmit queue, if there is one.
    fn receive(&mut self, queue: usize) -> Option<Vec<u8>>;
    /// Reverses `start`, after the device has stopped; afterwards it holds no packet of the pool.
    fn stop(&mut self);
    /// Sets the far side's link down, or up again, while the device runs; false if it does not support that.
    fn set_link(&mut self, up: bool) -> bool {
        let _ = up;
        false
    }
    /// Removes the interface under the running device; false if it does not support that.
    fn remove(&mut self) -> bool {
        false
    }
    /// Returns the far side's total counters of this device, from the device's point of view: `opackets` are
    /// the packets that it sent. `None` if only the device counts.
    fn counters(&self) -> Option<PortStats> {
        None
    }
}

/// Another port as the far side.
///
/// ```
/// use linecard_lab::contract::{Peer, PortPeer};
/// let (_near, far) = linecard_net_ring::pair("a", "b");
/// assert!(!PortPeer::new(far).is_up());
/// ```
pub struct PortPeer {
    state: State,
    received: Vec<Burst>,
    pool: Option<Pool>,
}

enum State {
    Stopped(Box<dyn Device>),
    Started(Port),
    /// Between the two states, and after a panic.
    Gone,
}

impl PortPeer {
    /// Creates the peer from a port that is not started yet.
    #[must_use]
    pub fn new(device: Box<dyn Device>) -> Self {
        Self { state: State::Stopped(device), received: Vec::new(), pool: None }
    }

    fn port(&mut self) -> &mut Port {
        match &mut self.state {
            State::Started(port) => port,
            _ => panic!("the far port is not started"),
        }
    }
}

impl Peer for PortPeer {
    fn start(&mut self, config: &PortConfig, pool: &Pool) {
        let State::Stopped(device) = std::mem::replace(&mut self.state, State::Gone) else {
            panic!("the far port is started already")
        };
        // The far side receives what the near side sends.
        let (rx_queues, tx_queues) = (config.tx_queues, config.rx_queues);
        let config = PortConfig::default().rx_queues(rx_queues).tx_queues(tx_queues).mtu(config.mtu);
        let port = configure(device, config).and_then(|port| port.start(pool)).expect("the far port starts");
        self.received = port.rx.iter().map(|_| Burst::new()).collect();
        self.state = State::Started(port);
        self.pool = Some(pool.clone());
    }

    fn is_up(&self) -> bool {
        matches!(&self.state, State::Started(port) if port.control.link().up)
    }

    fn send(&mut self, queue: usize, frame: &[u8]) -> bool {
        let Some(packet) = self.pool.as_ref().and_then(|pool| pool.packet_of(frame, frame.len())) else {
            return false;
        };
        let mut burst = Burst::new();
        burst.push(packet).expect("room for one");
        self.port().tx[queue].tx_burst(&mut burst) == 1
    }

    fn receive(&mut self, queue: usize) -> Option<Vec<u8>> {
        if self.received[queue].is_empty() {
            let mut burst = std::mem::take(&mut self.received[queue]);
            let port = self.port();
            // A driver may free sent packets only when it is polled again.
            port.tx.iter_mut().for_each(|tx| tx.reclaim());
            port.rx[queue].rx_burst(&mut burst);
            self.received[queue] = burst;
        }
        let received = &mut self.received[queue];
        let packet = received.drain(..received.len().min(1)).next()?;
        Some(bytes(&packet))
    }

    fn stop(&mut self) {
        self.received.clear();
        let State::Started(port) = std::mem::replace(&mut self.state, State::Gone) else { return };
        self.state = State::Stopped(port.stop());
        let pool = self.pool.take();
        if let Some(pool) = pool {
            wait_until("far pool whole", || pool.stats().in_use == 0);
        }
    }
}
