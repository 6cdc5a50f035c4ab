//! `net_impair`: fault injection for another port, reproducible by a seed.
//!
//! `net_impair0,on=[net_tap1,iface=x],loss=1%,rx_delay=10ms,seed=7`: this port opens the port in brackets.
//! Brackets and all other characters of its arguments are passed unchanged. Each fault has three keys, for
//! both directions (`loss`), for receive (`rx_loss`) and for transmit (`tx_loss`):
//!
//! | key | what happens | value |
//! |---|---|---|
//! | `loss` | drops a packet | `0.01` or `1%` |
//! | `duplicate` | duplicates a packet | as above |
//! | `reorder` | lets the next 1 to 8 packets overtake, waits at most 1 ms for them | as above |
//! | `corrupt` | flips one bit, anywhere | as above |
//! | `delay` | delays every packet | `100us`, `10ms`; microseconds without a unit |
//! | `jitter` | adds up to this to the delay | as above |
//! | `rate` | limits the rate | `1000pps`, `10mbit` (of frames) |
//! | `limit` | packets that may wait; beyond that, none are received or accepted for sending | 1000 |
//!
//! ```text
//!   application ◄── rx_burst ── line ◄── inner rx           each queue has its own line,
//!   application ── tx_burst ──► line ──► inner tx           seeded by seed=, direction and queue
//! ```
//! Packets that wait to be sent leave when the queue is polled (`tx_burst` or `reclaim`). Packets that still
//! wait when the port stops return to their pool and are counted.

mod faults;
mod impairment;
mod queues;

use std::sync::Arc;

use linecard_mempool::{Burst, Pool};

use self::faults::{Both, Faults};
pub use self::impairment::Fault;
use self::impairment::Impairment;
use self::queues::{Rx, Timed, Tx};
use linecard_pmd::args::DevArgs;
use linecard_pmd::config::{PortConfig, StartError};
use linecard_pmd::control::{PortControl, PortStats};
use linecard_pmd::error::Error;
use linecard_pmd::port::{Device, DeviceInfo, Driver, Port, ProbeContext, Running, RxQueue, TxQueue};
use linecard_pmd::registry::Registry;
use linecard_pmd::stats::PortCounters;

const DRIVER: &str = "net_impair";

/// The driver of `net_impair` devices. It opens the inner port with the drivers of the program.
///
/// ```
/// use linecard_eal::{Memory, MemoryConfig};
/// use linecard_mempool::{Burst, Pool, PoolConfig};
/// use linecard_pmd::{PortConfig, ProbeContext, Registry, configure};
/// use linecard_net_impair::ImpairDriver;
/// use linecard_net_null::NullDriver;
///
/// fn drivers() -> Registry {
///     static IMPAIR: ImpairDriver = ImpairDriver::new(drivers);
///     Registry::new(&[&NullDriver, &IMPAIR])
/// }
/// let memory = Memory::new(MemoryConfig::default())?;
/// let domain = memory.domain("packets")?;
/// let pool = Pool::new(&domain, PoolConfig::default())?;
/// let context = ProbeContext::new(memory, domain, std::time::Duration::from_secs(1));
/// let device = drivers().probe(&context, "net_impair0,on=[net_null0,size=60],tx_loss=50%,seed=1")?;
/// let mut port = configure(device, PortConfig::default())?.start(&pool)?;
///
/// let mut burst = Burst::new();
/// port.rx[0].rx_burst(&mut burst);
/// port.tx[0].tx_burst(&mut burst);
/// let lost = port.control.xstats().into_iter().find(|(name, _)| name == "tx_q0_lost").map(|(_, n)| n);
/// assert!(lost.is_some_and(|lost| (10..54).contains(&lost)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ImpairDriver {
    drivers: fn() -> Registry,
}

impl ImpairDriver {
    /// Creates the driver; `drivers` are those that an inner port may use.
    #[must_use]
    pub const fn new(drivers: fn() -> Registry) -> Self {
        Self { drivers }
    }
}

impl Driver for ImpairDriver {
    fn name(&self) -> &'static str {
        DRIVER
    }

    fn summary(&self) -> &'static str {
        "another port behind a bad line: on=[DEVICE,ARGUMENTS], seed=N, and loss, duplicate, reorder, corrupt, \
         delay, jitter, rate, limit, each also with rx_ or tx_ in front"
    }

    fn check_args(&self, args: &DevArgs) -> Result<(), Error> {
        let (_, on) = Settings::read(args)?;
        (self.drivers)().check(on).map(drop)
    }

    fn probe(&self, context: &ProbeContext, args: &DevArgs) -> Result<Box<dyn Device>, Error> {
        let (line, on) = Settings::read(args)?;
        let inner = (self.drivers)().probe(context, on)?;
        Ok(Box::new(Impaired { inner, line }))
    }
}

/// The settings, which persist across starts and stops.
struct Settings {
    name: String,
    faults: Both,
    seed: u64,
}

impl Settings {
    /// Reads the settings, and the arguments of the inner port.
    fn read(args: &DevArgs) -> Result<(Self, &str), Error> {
        let on = args.value("on").filter(|on| !on.is_empty()).ok_or_else(|| {
            let remedy = format!("write {},on=[net_tap1,iface=x],loss=1%", args.name());
            args.problem("'on' names no port", remedy)
        })?;
        let faults = Both::read(args)?;
        let seed = args.number("seed", 0..=u64::MAX)?.unwrap_or(1);
        args.finish()?;
        // Two ports of the same name could not be told apart.
        if DevArgs::parse(on)?.name() == args.name() {
            return Err(args.problem("'on' names this port itself", "give the port behind it another number"));
        }
        Ok((Self { name: args.name().to_owned(), faults, seed }, on))
    }
}

struct Impaired {
    inner: Box<dyn Device>,
    line: Settings,
}

impl Settings {
    /// Creates the line of a queue, if it has any fault.
    fn line(&self, faults: Faults, direction: u64, queue: usize, pool: &Pool) -> Option<Impairment> {
        // The seeds are far apart, so that no two queues have the same faults.
        let own = (direction << 32 | queue as u64).wrapping_mul(0xd134_2543_de82_ef95);
        (!faults.is_clean()).then(|| Impairment::new(faults, self.seed.wrapping_add(own), pool))
    }

    /// Wraps the queues of the started inner port.
    fn wrap(self, port: Port, config: &PortConfig, pool: &Pool) -> Port {
        let Port { rx, tx, control, running } = port;
        let counters = PortCounters::new(config.rx_queues, config.tx_queues);
        let rx = rx.into_iter().enumerate().map(|(i, inner)| {
            let timed = Timed::new(self.line(self.faults.rx, 0, i, pool), counters.rx(i));
            Box::new(Rx { inner, timed }) as Box<dyn RxQueue>
        });
        let rx = rx.collect();
        let tx = tx.into_iter().enumerate().map(|(i, inner)| {
            let timed = Timed::new(self.line(self.faults.tx, 1, i, pool), counters.tx(i));
            Box::new(Tx { inner, timed, ready: Burst::new() }) as Box<dyn TxQueue>
        });
        let tx = tx.collect();
        let control = Arc::new(Control { name: self.name.clone(), inner: control, counters });
        Port { rx, tx, control, running: Box::new(Started { inner: running, line: self }) }
    }
}

impl Device for Impaired {
    fn name(&self) -> &str {
        &self.line.name
    }

    fn info(&self) -> DeviceInfo {
        self.inner.info().driver(DRIVER)
    }

    fn queues_argument(&self) -> Option<&'static str> {
        self.inner.queues_argument()
    }

    fn most_queue_pairs(&self) -> u16 {
        self.inner.most_queue_pairs()
    }

    fn check(&self, config: &PortConfig) -> Result<(), Error> {
        self.inner.check(config)
    }

    fn start(self: Box<Self>, config: &PortConfig, pool: &Pool) -> Result<Port, StartError> {
        let Self { inner, line } = *self;
        match inner.start(config, pool) {
            Ok(port) => Ok(line.wrap(port, config, pool)),
            Err(StartError { device: inner, error }) => {
                Err(StartError { device: Box::new(Self { inner, line }), error })
            }
        }
    }
}

struct Started {
    inner: Box<dyn Running>,
    line: Settings,
}

impl Running for Started {
    fn stop(self: Box<Self>, rx: Vec<Box<dyn RxQueue>>, tx: Vec<Box<dyn TxQueue>>) -> Box<dyn Device> {
        let Self { inner, line } = *self;
        // The inner queues are inside of these; a port may be stopped without its queues.
        drop((rx, tx));
        Box::new(Impaired { inner: inner.stop(Vec::new(), Vec::new()), line })
    }
}

/// The inner port's control interface under another name, with the counters of the lines.
struct Control {
    name: String,
    inner: Arc<dyn PortControl>,
    counters: PortCounters<Fault, Fault>,
}

impl Control {
    /// Combines the counters: packets on the application's side of the line, errors of the inner port.
    fn merge(mut outer: PortStats, inner: PortStats) -> PortStats {
        outer.imissed += inner.imissed;
        outer.ierrors += inner.ierrors;
        outer.oerrors += inner.oerrors;
        outer.rx_nombuf += inner.rx_nombuf;
        outer
    }
}

impl PortControl for Control {
    fn inner(&self) -> &dyn PortControl {
        &*self.inner
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn stats(&self) -> PortStats {
        Self::merge(self.counters.stats(), self.inner.stats())
    }

    fn queue_stats(&self, queue: u16) -> PortStats {
        Self::merge(self.counters.queue_stats(queue), self.inner.queue_stats(queue))
    }

    fn xstats(&self) -> Vec<(String, u64)> {
        let inner = self.inner.xstats().into_iter().map(|(name, value)| (format!("inner_{name}"), value));
        self.counters.xstats().into_iter().chain(inner).collect()
    }

    fn reset_stats(&self) {
        self.counters.reset();
        self.inner.reset_stats();
    }

    fn paths(&self) -> String {
        format!("impaired: {}", self.inner.paths())
    }
}

/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

#[cfg(test)]
mod tests;
