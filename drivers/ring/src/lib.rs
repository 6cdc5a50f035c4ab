//! `net_ring`: transmit queues connected to receive queues by rings in this process; packets are passed by
//! reference.
//!
//! A plain `net_ring0` is connected to itself: packets of transmit queue *n* return on receive queue *n*
//! (DPDK's `net_ring` without arguments). Two ports of a program, polled by two threads, are connected by one
//! of these:
//!
//! - `net_ring0,peer=net_ring1`, which waits for a `net_ring1` (with or without `peer=net_ring0`);
//! - `net_ring0,nodeaction=NAME:0:CREATE` and `net_ring1,nodeaction=NAME:0:ATTACH`, DPDK's syntax. In DPDK
//!   both use one ring for sending and receiving; here each receives the other's packets;
//! - [`pair`], in a program:
//!
//! ```text
//!   a.tx[n] ──► lane ──► b.rx[n]          packets are moved, not copied
//!   a.rx[n] ◄── lane ◄── b.tx[n]
//! ```
//! The side that starts first sets the depth of a lane. Packets that a port has not received when it stops
//! are freed. Packets sent to a stopped port wait until the lane is full.

mod lane;
mod pairs;

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use linecard_eal::wake::fence;
use linecard_mempool::{Burst, Pool};

use self::lane::{Direction, Receiver, Refusal, Sender};
use self::pairs::PairClaim;
use linecard_pmd::args::DevArgs;
use linecard_pmd::config::{PortConfig, StartError};
use linecard_pmd::control::Link;
use linecard_pmd::error::Error;
use linecard_pmd::local::{Identity, LocalControl};
use linecard_pmd::port::{Device, DeviceInfo, Driver, Port, ProbeContext, Running, RxQueue, TxQueue};
use linecard_pmd::stats::{AnyLoss, PortCounters, QueueStats};
use linecard_pmd::wake::Armed;

const DRIVER: &str = "net_ring";
/// The most queues of a ring port.
pub const MAX_QUEUES: u16 = 64;

/// The driver of `net_ring` devices.
///
/// ```
/// use linecard_pmd::Driver;
/// use linecard_net_ring::RingDriver;
/// assert_eq!(RingDriver.name(), "net_ring");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RingDriver;

impl Driver for RingDriver {
    fn name(&self) -> &'static str {
        DRIVER
    }

    fn summary(&self) -> &'static str {
        "what is sent comes back, or goes to another: peer=DEVICE, or nodeaction=NAME:NODE:CREATE|ATTACH"
    }

    fn check_args(&self, args: &DevArgs) -> Result<(), Error> {
        JoinedWith::read(args).map(drop)
    }

    fn probe(&self, context: &ProbeContext, args: &DevArgs) -> Result<Box<dyn Device>, Error> {
        let (name, domain) = (args.name(), &context.domain);
        let claim = match JoinedWith::read(args)? {
            JoinedWith::Itself => pairs::alone(domain, name),
            JoinedWith::Peer(peer) => {
                Some(pairs::with_peer(domain, name, peer).map_err(|why| refused(args, peer, why))?)
            }
            JoinedWith::Node { text, name, create } => {
                Some(pairs::by_node(domain, name, create).map_err(|why| refused(args, text, why))?)
            }
        };
        let claim = claim.ok_or_else(|| refused(args, name, pairs::Refusal::Taken))?;
        let (local, remote) = claim.sides();
        Ok(Box::new(Ring { name: name.to_owned(), local, remote, claim: Some(Arc::new(claim)) }))
    }
}

/// The connection of a port, as the arguments define it.
enum JoinedWith<'a> {
    Itself,
    /// Another device, by its name.
    Peer(&'a str),
    /// The other end of a named pair; `text` is the argument.
    Node {
        text: &'a str,
        name: &'a str,
        create: bool,
    },
}

impl<'a> JoinedWith<'a> {
    fn read(args: &'a DevArgs) -> Result<Self, Error> {
        let (peer, action) = (args.value("peer"), args.value("nodeaction"));
        args.finish()?;
        match (peer, action) {
            (Some(_), Some(_)) => {
                Err(args.problem("'peer' and 'nodeaction' exclude each other", "leave one of them out"))
            }
            (None, None) => Ok(Self::Itself),
            (Some(peer), None) if peer == args.name() || !peer.starts_with("net_ring") => {
                let remedy = "name another net_ring device, or leave peer out for a port joined with itself";
                Err(args.problem(format!("'peer={peer}' is no other net_ring device"), remedy))
            }
            (Some(peer), None) => Ok(Self::Peer(peer)),
            (None, Some(text)) => {
                let (name, create) = node_action(args, text)?;
                Ok(Self::Node { text, name, create })
            }
        }
    }
}

/// Parses `NAME:NODE:CREATE` or `…:ATTACH` into the name and whether to create.
fn node_action<'a>(args: &DevArgs, text: &'a str) -> Result<(&'a str, bool), Error> {
    let mut parts = text.split(':');
    let (name, node, action) = (parts.next(), parts.next(), parts.next());
    let node = node.and_then(|node| node.parse::<u8>().ok());
    let create = match action {
        Some("CREATE") => Some(true),
        Some("ATTACH") => Some(false),
        _ => None,
    };
    match (name.filter(|name| !name.is_empty()), node, create, parts.next()) {
        (Some(name), Some(_), Some(create), None) => Ok((name, create)),
        _ => {
            let remedy = "write nodeaction=NAME:NODE:CREATE or nodeaction=NAME:NODE:ATTACH";
            Err(args.problem(format!("'nodeaction={text}' is not possible"), remedy))
        }
    }
}

fn refused(args: &DevArgs, other: &str, why: pairs::Refusal) -> Error {
    let (problem, remedy) = match why {
        pairs::Refusal::Elsewhere => (
            format!("'{other}' is joined with another device, or with itself"),
            format!("name {} before it, or give it peer={}", args.name(), args.name()),
        ),
        pairs::Refusal::Taken => (
            format!("the place in the pair that '{other}' names has a device"),
            "close that device, or choose another name".to_owned(),
        ),
        pairs::Refusal::Unknown => (
            format!("nobody created the pair that '{other}' names"),
            "name a device with nodeaction=NAME:NODE:CREATE before this one".to_owned(),
        ),
    };
    args.problem(problem, remedy)
}

/// Creates two connected devices: each receives the packets that the other sends.
///
/// ```
/// use linecard_eal::{Memory, MemoryConfig};
/// use linecard_mempool::{Burst, Pool, PoolConfig};
/// use linecard_pmd::{PortConfig, configure};
///
/// let memory = Memory::new(MemoryConfig::default())?;
/// let pool = Pool::new(&memory.domain("packets")?, PoolConfig::default())?;
/// let (a, b) = linecard_net_ring::pair("left", "right");
/// let start = |device| configure(device, PortConfig::default()).and_then(|port| port.start(&pool)).expect("starts");
/// let (mut a, mut b) = (start(a), start(b));
///
/// let mut burst = Burst::new();
/// pool.get_bulk(&mut burst, 4)?;
/// assert_eq!(a.tx[0].tx_burst(&mut burst), 4);
/// assert_eq!(b.rx[0].rx_burst(&mut burst), 4);
/// drop(burst);
/// (a.stop(), b.stop());
/// assert_eq!(pool.stats().in_use, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn pair(a: &str, b: &str) -> (Box<dyn Device>, Box<dyn Device>) {
    let (left, right) = (Arc::new(Side::default()), Arc::new(Side::default()));
    let device = |name: &str, local: &Arc<Side>, remote: &Arc<Side>| {
        let (local, remote) = (Arc::clone(local), Arc::clone(remote));
        Box::new(Ring { name: name.to_owned(), local, remote, claim: None })
    };
    (device(a, &left, &right), device(b, &right, &left))
}

/// The receiving side of one device: a lane for each queue.
struct Side {
    lanes: Vec<Arc<Direction>>,
    started: AtomicBool,
}

impl Default for Side {
    fn default() -> Self {
        Self { lanes: (0..MAX_QUEUES).map(|_| Arc::default()).collect(), started: AtomicBool::new(false) }
    }
}

/// A ring device, started or not. It receives from its own side and sends to the other.
struct Ring {
    name: String,
    local: Arc<Side>,
    remote: Arc<Side>,
    /// Its entry among the program's devices; `None` for [`pair`], whose devices are connected directly.
    claim: Option<Arc<PairClaim>>,
}

impl Ring {
    fn rx(&self, config: &PortConfig, counters: &Counters) -> Result<Vec<Box<dyn RxQueue>>, Error> {
        let queue = |(i, lane): (usize, &Arc<Direction>)| {
            let receiver =
                lane.receiver(config.rx_depth).map_err(|refusal| self.refused("receive", i, refusal))?;
            Ok(Box::new(Rx { receiver, stats: counters.rx(i) }) as Box<dyn RxQueue>)
        };
        self.local.lanes.iter().enumerate().take(config.rx_queues.into()).map(queue).collect()
    }

    fn tx(&self, config: &PortConfig, counters: &Counters) -> Result<Vec<Box<dyn TxQueue>>, Error> {
        let queue = |(i, lane): (usize, &Arc<Direction>)| {
            let sender =
                lane.sender(config.tx_depth).map_err(|refusal| self.refused("transmit", i, refusal))?;
            Ok(Box::new(Tx { sender, stats: counters.tx(i) }) as Box<dyn TxQueue>)
        };
        self.remote.lanes.iter().enumerate().take(config.tx_queues.into()).map(queue).collect()
    }

    fn refused(&self, what: &str, queue: usize, refusal: Refusal) -> Error {
        let (what, remedy) = match refusal {
            Refusal::InUse => (
                format!("starting while {what} queue {queue} of an earlier start is in use"),
                "drop that queue, or give it back to the port before it stops",
            ),
            Refusal::Memory => {
                (format!("a ring for {what} queue {queue}"), "free memory, or ask for smaller rings")
            }
        };
        Error::Unsupported { port: self.name.clone(), what, remedy: remedy.into() }
    }
}

type Counters = PortCounters<AnyLoss, AnyLoss>;

impl Device for Ring {
    fn name(&self) -> &str {
        &self.name
    }

    fn info(&self) -> DeviceInfo {
        DeviceInfo::new(DRIVER, Identity::address_for(&self.name))
            .max_rx_queues(MAX_QUEUES)
            .max_tx_queues(MAX_QUEUES)
            .depth(1..=32768)
            .default_depth(1024)
            .mtu(68..=u16::MAX - 14)
    }

    fn start(self: Box<Self>, config: &PortConfig, _: &Pool) -> Result<Port, StartError> {
        let counters = Counters::new(config.rx_queues, config.tx_queues);
        let queues = self.rx(config, &counters).and_then(|rx| Ok((rx, self.tx(config, &counters)?)));
        let (rx, tx) = match queues {
            Ok(queues) => queues,
            Err(error) => return Err(StartError { device: self, error }),
        };
        self.local.started.store(true, Ordering::Release);
        let identity = Identity::new(&self.name, self.info().mac, config.mtu);
        let remote = Arc::clone(&self.remote);
        let link = move || if remote.started.load(Ordering::Acquire) { Link::UP } else { Link::DOWN };
        let control =
            Arc::new(LocalControl::new(identity, counters).with_paths("rx ring, tx ring").with_link(link));
        Ok(Port { rx, tx, control, running: Box::new(Started(*self)) })
    }
}

/// A started device. Stopping or dropping it takes its link down.
struct Started(Ring);

impl Running for Started {
    fn stop(self: Box<Self>, rx: Vec<Box<dyn RxQueue>>, tx: Vec<Box<dyn TxQueue>>) -> Box<dyn Device> {
        drop((rx, tx));
        let Ring { name, local, remote, claim } = &self.0;
        let (name, local, remote) = (name.clone(), Arc::clone(local), Arc::clone(remote));
        Box::new(Ring { name, local, remote, claim: claim.clone() })
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.0.local.started.store(false, Ordering::Release);
    }
}

struct Rx {
    receiver: Receiver,
    stats: Arc<QueueStats<AnyLoss>>,
}

impl RxQueue for Rx {
    fn rx_burst(&mut self, packets: &mut Burst) -> usize {
        let (count, bytes) = self.receiver.receive(packets);
        self.stats.moved(count, bytes);
        count
    }

    fn path(&self) -> &'static str {
        "ring"
    }

    fn arm(&mut self) -> Armed {
        if self.begin_arm() {
            fence();
        }
        self.finish_arm()
    }

    fn prepare_arm(&mut self) {
        self.receiver.prepare_arm();
    }

    fn begin_arm(&mut self) -> bool {
        self.receiver.begin_arm()
    }

    fn finish_arm(&mut self) -> Armed {
        self.receiver.finish_arm()
    }

    fn disarm(&mut self) {
        self.receiver.disarm();
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        self.receiver.event()
    }
}

struct Tx {
    sender: Sender,
    stats: Arc<QueueStats<AnyLoss>>,
}

impl TxQueue for Tx {
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        let (count, bytes) = self.sender.send(packets);
        self.stats.moved(count, bytes);
        count
    }

    fn path(&self) -> &'static str {
        "ring"
    }
}

/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

#[cfg(test)]
mod tests;
