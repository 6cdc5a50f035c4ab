//! `net_null`: a port without a device, which generates and discards packets. Measures everything but a
//! device.
//!
//! `net_null0,size=64,copy=0|1,no-rx=0|1` — as DPDK's driver of that name. Receive returns as many packets of
//! `size` bytes as requested, with whatever content the buffers have. Transmit frees packets. With `copy=1`,
//! the bytes are copied through a buffer of the queue, and received ones are zeros. With `no-rx=1`, nothing
//! is received; as in DPDK, that excludes `copy=1`. A `size` beyond a buffer of the pool results in a chain.

use std::sync::Arc;

use linecard_mempool::{Burst, Packet, Pool};

use linecard_pmd::args::DevArgs;
use linecard_pmd::config::{PortConfig, StartError};
use linecard_pmd::error::Error;
use linecard_pmd::local::{Identity, LocalControl};
use linecard_pmd::port::{Device, DeviceInfo, Driver, Port, ProbeContext, Running, RxQueue, TxQueue};
use linecard_pmd::stats::{AnyLoss, PortCounters, QueueStats, Total};
use linecard_pmd::wake::Armed;

const DRIVER: &str = "net_null";
const MAX_QUEUES: u16 = 256;

linecard_pmd::causes! {
    /// The causes for which a null port loses receive packets.
    pub enum RxLoss {
        /// The pool had no packets for the burst.
        NoBuffer = ("no_buffer", Total::NoBuffer),
    }
}

/// The driver of `net_null` devices.
///
/// ```
/// use linecard_pmd::Driver;
/// use linecard_net_null::NullDriver;
/// assert_eq!(NullDriver.name(), "net_null");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct NullDriver;

impl Driver for NullDriver {
    fn name(&self) -> &'static str {
        DRIVER
    }

    fn summary(&self) -> &'static str {
        "packets from and to nowhere: size=BYTES (64), copy=0|1, no-rx=0|1"
    }

    fn check_args(&self, args: &DevArgs) -> Result<(), Error> {
        Mode::read(args).map(drop)
    }

    fn probe(&self, _: &ProbeContext, args: &DevArgs) -> Result<Box<dyn Device>, Error> {
        Ok(Box::new(Null { name: args.name().to_owned(), mode: Mode::read(args)? }))
    }
}

#[derive(Clone, Copy)]
struct Mode {
    size: u16,
    copy: bool,
    no_rx: bool,
}

impl Mode {
    fn read(args: &DevArgs) -> Result<Self, Error> {
        let mode = Self {
            size: args.number("size", 1..=u16::MAX)?.unwrap_or(64),
            copy: args.flag("copy")?.unwrap_or(false),
            no_rx: args.flag("no-rx")?.unwrap_or(false),
        };
        args.finish()?;
        if mode.copy && mode.no_rx {
            return Err(args.problem("'copy=1' and 'no-rx=1' exclude each other", "leave one of them out"));
        }
        Ok(mode)
    }
}

struct Null {
    name: String,
    mode: Mode,
}

impl Device for Null {
    fn name(&self) -> &str {
        &self.name
    }

    fn info(&self) -> DeviceInfo {
        DeviceInfo::new(DRIVER, Identity::address_for(&self.name))
            .max_rx_queues(MAX_QUEUES)
            .max_tx_queues(MAX_QUEUES)
            .mtu(68..=u16::MAX - 14)
    }

    fn start(self: Box<Self>, config: &PortConfig, pool: &Pool) -> Result<Port, StartError> {
        let most = usize::from(pool.data_room()) * usize::from(Packet::MAX_SEGS);
        if usize::from(self.mode.size) > most {
            let error = Error::Argument {
                device: self.name.clone(),
                problem: format!(
                    "size={} does not fit into a packet of at most {most} bytes",
                    self.mode.size
                ),
                remedy: "ask for a smaller size or a pool with larger buffers".into(),
            };
            return Err(StartError { device: self, error });
        }
        let counters = PortCounters::<RxLoss, AnyLoss>::new(config.rx_queues, config.tx_queues);
        let rx = (0..usize::from(config.rx_queues)).map(|i| self.mode.rx(pool, counters.rx(i))).collect();
        let tx = (0..usize::from(config.tx_queues)).map(|i| self.mode.tx(counters.tx(i))).collect();
        let identity = Identity::new(&self.name, self.info().mac, config.mtu);
        let control = Arc::new(LocalControl::new(identity, counters).with_paths(self.mode.paths()));
        Ok(Port { rx, tx, control, running: self })
    }
}

impl Running for Null {
    fn stop(self: Box<Self>, rx: Vec<Box<dyn RxQueue>>, tx: Vec<Box<dyn TxQueue>>) -> Box<dyn Device> {
        drop((rx, tx));
        self
    }
}

impl Mode {
    fn paths(self) -> &'static str {
        match (self.no_rx, self.copy) {
            (true, _) => "rx off, tx free",
            (false, true) => "rx copy, tx copy",
            (false, false) => "rx fill, tx free",
        }
    }

    fn rx(self, pool: &Pool, stats: Arc<QueueStats<RxLoss>>) -> Box<dyn RxQueue> {
        match (self.no_rx, self.copy) {
            (true, _) => Box::new(NoRx),
            (false, copy) if self.size > pool.data_room() => {
                Box::new(RxChain { template: vec![0; self.size.into()], copy, pool: pool.clone(), stats })
            }
            (false, true) => Box::new(Rx::<true>::new(self.size, pool, stats)),
            (false, false) => Box::new(Rx::<false>::new(self.size, pool, stats)),
        }
    }

    fn tx(self, stats: Arc<QueueStats<AnyLoss>>) -> Box<dyn TxQueue> {
        if self.copy {
            Box::new(Tx::<true> { scratch: vec![0; usize::from(u16::MAX)], stats })
        } else {
            Box::new(Tx::<false> { scratch: Vec::new(), stats })
        }
    }
}

struct NoRx;

impl RxQueue for NoRx {
    fn rx_burst(&mut self, _: &mut Burst) -> usize {
        0
    }

    fn path(&self) -> &'static str {
        "off"
    }
}

struct Rx<const COPY: bool> {
    size: u16,
    pool: Pool,
    template: Vec<u8>,
    stats: Arc<QueueStats<RxLoss>>,
}

impl<const COPY: bool> Rx<COPY> {
    fn new(size: u16, pool: &Pool, stats: Arc<QueueStats<RxLoss>>) -> Self {
        Self { size, pool: pool.clone(), template: vec![0; usize::from(size)], stats }
    }
}

impl<const COPY: bool> RxQueue for Rx<COPY> {
    fn rx_burst(&mut self, packets: &mut Burst) -> usize {
        let (before, wanted) = (packets.len(), packets.room());
        if wanted == 0 {
            return 0;
        }
        if self.pool.get_bulk(packets, wanted).is_err() {
            self.stats.lost(RxLoss::NoBuffer, 1);
            return 0;
        }
        for packet in &mut packets[before..] {
            // `size` fits: `start` compared it with the pool's buffers.
            let Some(data) = packet.append(self.size.into()) else { continue };
            if COPY {
                data.copy_from_slice(&self.template);
            }
        }
        self.stats.moved(wanted, wanted as u64 * u64::from(self.size));
        wanted
    }

    fn path(&self) -> &'static str {
        if COPY { "copy" } else { "fill" }
    }

    fn arm(&mut self) -> Armed {
        Armed::Ready
    }
}

/// Generates packets larger than a buffer, one by one, as speed does not matter here.
struct RxChain {
    template: Vec<u8>,
    copy: bool,
    pool: Pool,
    stats: Arc<QueueStats<RxLoss>>,
}

impl RxChain {
    fn packet(&self) -> Option<Packet> {
        let mut whole: Option<Packet> = None;
        for part in self.template.chunks(self.pool.data_room().into()) {
            let mut segment = self.pool.get()?;
            let data = segment.append(part.len())?;
            if self.copy {
                data.copy_from_slice(part);
            }
            match &mut whole {
                None => whole = Some(segment),
                Some(head) => head.chain(segment).ok()?,
            }
        }
        whole
    }
}

impl RxQueue for RxChain {
    fn rx_burst(&mut self, packets: &mut Burst) -> usize {
        let before = packets.len();
        while packets.room() > 0 {
            let Some(packet) = self.packet() else {
                self.stats.lost(RxLoss::NoBuffer, 1);
                break;
            };
            // The loop has checked the room.
            let _ = packets.push(packet);
        }
        let count = packets.len() - before;
        self.stats.moved(count, (count * self.template.len()) as u64);
        count
    }

    fn path(&self) -> &'static str {
        if self.copy { "copy, chains" } else { "fill, chains" }
    }

    fn arm(&mut self) -> Armed {
        Armed::Ready
    }
}

struct Tx<const COPY: bool> {
    scratch: Vec<u8>,
    stats: Arc<QueueStats<AnyLoss>>,
}

impl<const COPY: bool> TxQueue for Tx<COPY> {
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        let bytes = packets.iter().map(|packet| packet.len() as u64).sum();
        if COPY {
            for segment in packets.iter().flat_map(|packet| packet.segments()) {
                let data = segment.data();
                self.scratch[..data.len()].copy_from_slice(data);
            }
            std::hint::black_box(&mut self.scratch);
        }
        let count = packets.clear();
        self.stats.moved(count, bytes);
        count
    }

    fn path(&self) -> &'static str {
        if COPY { "copy" } else { "free" }
    }
}

/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

#[cfg(test)]
mod tests;
