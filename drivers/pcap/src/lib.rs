//! `net_pcap`: receives the frames of capture files, and writes sent packets to others.
//!
//! `net_pcap0,rx_pcap=FILE,tx_pcap=FILE,infinite_rx=0|1,rate=PPS,timing=original,snaplen=BYTES` — as DPDK's
//! driver of that name: each `rx_pcap` (or `tx_pcap`) is a queue. Without `rx_pcap` nothing is received;
//! without `tx_pcap` sent packets are dropped. It reads pcap and pcapng in either byte order and with any
//! time resolution. It writes pcap with nanoseconds, or pcapng if the name ends in `.pcapng`.
//!
//! ```text
//!   probe   rx: the first 64 MiB of each file are read and checked      tx: each file is created and locked
//!   start   rx: from the first frame on, at every start                 tx: emptied once, then continued
//!   burst   rx: the frames that are due                                 tx: written completely, then counted
//! ```
//! If a write fails (disk full), the packets of that burst are lost and counted by cause; the file keeps only
//! its complete records. A signal that ends the process can only take effect between two bursts, or between
//! two pages of one `write`.
//!
//! The pcapng parser keeps a block's options in a vector, so receiving from such a file allocates.

mod args;
mod rx;
mod tx;

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use linecard_mempool::Pool;

use self::args::Settings;
use self::rx::{Loop, NoLoop, NoRx, Rx, Source};
pub use self::rx::{RxLoss, Timing};
pub use self::tx::TxLoss;
use self::tx::{NoTx, SharedOutput, Tx};
use linecard_capture::pcap::read::{Reader, Skipped};
use linecard_pmd::args::DevArgs;
use linecard_pmd::config::{PortConfig, StartError};
use linecard_pmd::error::Error;
use linecard_pmd::local::{Identity, LocalControl};
use linecard_pmd::port::{Device, DeviceInfo, Driver, Port, ProbeContext, Running, RxQueue, TxQueue};
use linecard_pmd::stats::PortCounters;

const DRIVER: &str = "net_pcap";

/// The driver of `net_pcap` devices.
///
/// ```
/// use linecard_pmd::Driver;
/// use linecard_net_pcap::PcapDriver;
/// assert_eq!(PcapDriver.name(), "net_pcap");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PcapDriver;

impl Driver for PcapDriver {
    fn name(&self) -> &'static str {
        DRIVER
    }

    fn summary(&self) -> &'static str {
        "packets from and to capture files: rx_pcap=FILE, tx_pcap=FILE (several are queues), infinite_rx=0|1, \
         rate=PPS, timing=fast|original, snaplen=BYTES"
    }

    fn check_args(&self, args: &DevArgs) -> Result<(), Error> {
        Settings::read(args).map(drop)
    }

    fn probe(&self, _: &ProbeContext, args: &DevArgs) -> Result<Box<dyn Device>, Error> {
        let settings = Settings::read(args)?;
        let verify = |path: &PathBuf| args::verify(args, path, settings.infinite);
        let told = settings.rx.iter().map(verify).collect::<Result<_, _>>()?;
        let held = settings.rx.iter().map(|path| args::hold(args, path)).collect::<Result<_, _>>()?;
        let mut outputs = Vec::new();
        for path in &settings.tx {
            let output = tx::Output::open(path, settings.snaplen);
            let output = output.map_err(|error| args::not_writable(args, path, error))?;
            outputs.push(SharedOutput::new(Some(output).into()));
        }
        let Settings { rx, infinite, timing, .. } = settings;
        Ok(Box::new(Pcap { name: args.name().to_owned(), rx, told, infinite, timing, outputs, _held: held }))
    }
}

struct Pcap {
    name: String,
    rx: Vec<PathBuf>,
    /// For each file, the interfaces about which a warning was logged.
    told: Vec<Vec<Skipped>>,
    infinite: bool,
    timing: Timing,
    outputs: Vec<SharedOutput>,
    /// The files that are read, locked so that no port overwrites them.
    _held: Vec<Option<File>>,
}

type Counters = PortCounters<RxLoss, TxLoss>;

impl Pcap {
    fn rx_queue(&self, i: usize, pool: &Pool, counters: &Counters) -> Result<Box<dyn RxQueue>, Error> {
        let Some(path) = self.rx.get(i) else { return Ok(Box::new(NoRx)) };
        let what = format!("{}: {}", self.name, path.display());
        let told = self.told.get(i).cloned().unwrap_or_default();
        let refused = |problem: String| args::unreadable(&self.name, path, &problem);
        if self.infinite {
            let frames = Loop::read(path).map_err(|why| match why {
                NoLoop::Damage(damage) => refused(damage.to_string()),
                NoLoop::Empty => args::empty(&self.name, path),
                NoLoop::TooLarge => args::too_large(&self.name, path),
            })?;
            // The whole file was read by now.
            args::tell_skipped(&what, frames.skipped(), &told);
            return Ok(Box::new(Rx::new(frames, self.timing, pool, counters.rx(i), (what, told))));
        }
        let reader = Reader::open(path).map_err(|damage| refused(damage.to_string()))?;
        Ok(Box::new(Rx::new(reader, self.timing, pool, counters.rx(i), (what, told))))
    }

    fn tx_queue(&self, i: usize, counters: &Counters) -> Result<Box<dyn TxQueue>, Error> {
        let Some(shared) = self.outputs.get(i) else { return Ok(Box::new(NoTx(counters.tx(i)))) };
        let mut place = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let mut output = place.take().ok_or_else(|| Error::Unsupported {
            port: self.name.clone(),
            what: format!("starting while transmit queue {i} of an earlier start is in use"),
            remedy: "drop that queue, or give it back to the port before it stops".into(),
        })?;
        if let Err(source) = output.begin(&self.name) {
            let action = format!("{} cannot be written", output.path.display());
            *place = Some(output);
            let remedy = "free space there, or name another file with tx_pcap=FILE".into();
            return Err(Error::System { port: self.name.clone(), action, source, remedy });
        }
        let number = u16::try_from(i).unwrap_or(u16::MAX);
        Ok(Box::new(Tx::new(output, Arc::clone(shared), number, counters.tx(i))))
    }

    fn paths(&self) -> &'static str {
        match (self.rx.is_empty(), self.outputs.is_empty()) {
            (false, false) => "rx file, tx file",
            (false, true) => "rx file, tx drop",
            (true, _) => "rx off, tx file",
        }
    }
}

impl Device for Pcap {
    fn name(&self) -> &str {
        &self.name
    }

    fn info(&self) -> DeviceInfo {
        let most = self.rx.len().max(self.outputs.len());
        let queues = |own: usize| u16::try_from(if own == 0 { most } else { own }).unwrap_or(u16::MAX);
        DeviceInfo::new(DRIVER, Identity::address_for(&self.name))
            .max_rx_queues(queues(self.rx.len()))
            .max_tx_queues(queues(self.outputs.len()))
            .mtu(68..=u16::MAX - 14)
    }

    fn start(self: Box<Self>, config: &PortConfig, pool: &Pool) -> Result<Port, StartError> {
        let counters = Counters::new(config.rx_queues, config.tx_queues);
        let rx: Result<Vec<_>, _> =
            (0..usize::from(config.rx_queues)).map(|i| self.rx_queue(i, pool, &counters)).collect();
        let queues = rx.and_then(|rx| {
            let tx = (0..usize::from(config.tx_queues)).map(|i| self.tx_queue(i, &counters));
            Ok((rx, tx.collect::<Result<Vec<_>, _>>()?))
        });
        let (rx, tx) = match queues {
            Ok(queues) => queues,
            Err(error) => return Err(StartError { device: self, error }),
        };
        let identity = Identity::new(&self.name, self.info().mac, config.mtu);
        let control = Arc::new(LocalControl::new(identity, counters).with_paths(self.paths()));
        Ok(Port { rx, tx, control, running: self })
    }
}

impl Running for Pcap {
    fn stop(self: Box<Self>, rx: Vec<Box<dyn RxQueue>>, tx: Vec<Box<dyn TxQueue>>) -> Box<dyn Device> {
        drop((rx, tx));
        self
    }
}

/// The README's program, compiled by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

#[cfg(test)]
mod tests;
