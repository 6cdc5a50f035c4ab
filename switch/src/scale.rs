//! What forwarding costs, alone: one worker's part of a switch between ports that are memory. For counting instructions and cache
//! lines against ports, addresses and flows (`docs/scale.md`).

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crossbeam::queue::ArrayQueue;
use linecard_eal::wake::Wake;
use linecard_mempool::Burst;
use linecard_net::MacAddr;
use linecard_pmd::TxQueue;
use linecard_pmd::direct::Frame;

use crate::api::{PortKind, PortSpec, Problem};
use crate::fdb::{Behind, Station, Table};
use crate::forward::{Engine, Inbox};
use crate::port::{Common, Egress, Losses, WorkerPort};
use crate::rules::{Defaults, Rules};

/// Frames of a burst.
pub const BURST: usize = 32;
/// Bytes of a frame.
const LEN: usize = 64;

/// How large a switch is, and how mixed its traffic.
///
/// ```
/// use linecard_switch::scale::{BURST, Bed, Shape};
/// let mut bed = Bed::new(Shape { ports: 4, addresses: 100, flows: 2 })?;
/// assert_eq!(bed.round(), BURST);
/// assert_eq!(bed.lost(), 0);
/// # Ok::<(), linecard_switch::api::Problem>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Ports, two at least.
    pub ports: u16,
    /// Stations, behind the ports in turn; as many as ports at least.
    pub addresses: u32,
    /// Stations to which the frames of one burst go, 1 to [`BURST`], in turn.
    pub flows: usize,
}

/// A queue that takes every frame.
struct Sink;

impl TxQueue for Sink {
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        let count = packets.len();
        packets.clear();
        count
    }

    fn tx_direct(&mut self, frames: &[Frame<'_>]) -> Option<usize> {
        Some(frames.len())
    }

    fn path(&self) -> &'static str {
        "memory"
    }
}

/// A switch that knows all its stations, and bursts from its ports in turn.
pub struct Bed {
    shape: Shape,
    engine: Engine,
    losses: Vec<Arc<Losses>>,
    frames: Vec<[u8; LEN]>,
    round: u32,
}

fn address(number: u32) -> MacAddr {
    let [a, b, c, d] = number.to_be_bytes();
    MacAddr([2, 0, a, b, c, d])
}

impl Bed {
    /// A switch of that shape.
    ///
    /// # Errors
    /// A port cannot be described.
    pub fn new(shape: Shape) -> Result<Self, Problem> {
        let shape = Shape {
            ports: shape.ports.max(2),
            addresses: shape.addresses.max(shape.ports.max(2).into()),
            flows: shape.flows.clamp(1, BURST),
        };
        let table = Arc::new(Table::new(shape.addresses as usize));
        let inbox = Inbox { packets: Arc::new(ArrayQueue::new(BURST)), wake: Arc::new(Wake::new()) };
        let mut engine = Engine::new(Arc::clone(&table), vec![inbox], false);
        let mut losses = Vec::new();
        for port in 0..shape.ports {
            let spec = PortSpec::new(format!("p{port}"), PortKind::Vdev { device: "memory".into() });
            let defaults = Defaults { max_macs: u32::MAX, ..Defaults::default() };
            let rules = Arc::new(Rules::of(&spec, defaults)?);
            let common = Common { rules, up: Arc::new(AtomicBool::new(true)), own: None };
            let lost = Arc::<Losses>::default();
            let own = Egress::Own(Box::new(Sink));
            engine.worker_ports.push(Some(WorkerPort::new(common, Arc::clone(&lost), own, 1)));
            losses.push(lost);
        }
        for number in 0..shape.addresses {
            let port = (number % u32::from(shape.ports)) as u16;
            table.learn(Station::new(address(number), 0), Behind { port, limit: u32::MAX, fixed: false });
        }
        Ok(Self { shape, engine, losses, frames: vec![[0; LEN]; BURST], round: 0 })
    }

    /// Forwards one burst of the next port; how many frames it had.
    pub fn round(&mut self) -> usize {
        let Shape { ports, addresses, flows } = self.shape;
        let port = (self.round % u32::from(ports)) as u16;
        // Any station of the port sends; which ones receive is as good as random.
        let behind = addresses / u32::from(ports);
        let source =
            u32::from(port) + u32::from(ports) * (self.round.wrapping_mul(2_654_435_761) % behind.max(1));
        let mut to = self.round.wrapping_mul(0x9e37_79b9);
        let mut stations = [0; BURST];
        for station in stations.iter_mut().take(flows) {
            to = to.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *station = (u64::from(to) * u64::from(addresses) >> 32) as u32;
            if *station % u32::from(ports) == u32::from(port) {
                *station = (*station + 1) % addresses;
            }
        }
        for (at, frame) in self.frames.iter_mut().enumerate() {
            let station = stations.get(at % flows).copied().unwrap_or_default();
            frame[..6].copy_from_slice(&address(station).0);
            frame[6..12].copy_from_slice(&address(source).0);
            frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        }
        self.round += 1;
        let frames: Vec<Frame<'_>> = self.frames.iter().map(|bytes| Frame::of(bytes)).collect();
        forward(&mut self.engine, port, &frames).count_ones() as usize
    }

    /// Frames that were lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let mut sum = crate::api::DropCounters::default();
        self.losses.iter().for_each(|losses| losses.add_to(&mut sum));
        sum.total()
    }
}

impl std::fmt::Debug for Bed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bed").field("shape", &self.shape).finish_non_exhaustive()
    }
}

/// What is counted: classification, the table, and the burst of each port that frames go to.
#[inline(never)]
fn forward(engine: &mut Engine, port: u16, frames: &[Frame<'_>]) -> u64 {
    std::hint::black_box("scale");
    let dealt_with = engine.direct(port, frames);
    engine.flush();
    dealt_with
}
