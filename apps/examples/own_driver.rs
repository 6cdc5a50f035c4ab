//! A driver of one's own, and a testpmd that has it beside all of ours:
//!
//! ```text
//! cargo run -p linecard-apps --example own_driver -- --no-huge -m 64 --vdev net_count0,frames=1000 --vdev net_null1 -- -i --no-flush-rx
//! ```
//!
//! `net_count` receives Ethernet frames that are numbered from 0 on, as many as `frames=` says, and frees what it sends.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use linecard::mempool::{Burst, Pool};
use linecard::pmd::args::DevArgs;
use linecard::pmd::config::StartError;
use linecard::pmd::local::{Identity, LocalControl};
use linecard::pmd::stats::{AnyLoss, PortCounters, QueueStats};
use linecard::pmd::{
    Device, DeviceInfo, Driver, Error, Port, PortConfig, ProbeContext, Running, RxQueue, TxQueue,
};

/// Each frame: nobody's addresses, an EtherType for experiments, and its number at the end.
const HEADER: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5];

struct CountDriver;

impl Driver for CountDriver {
    fn name(&self) -> &'static str {
        "net_count"
    }

    fn summary(&self) -> &'static str {
        "numbered frames: frames=COUNT (1000)"
    }

    fn probe(&self, _: &ProbeContext, args: &DevArgs) -> Result<Box<dyn Device>, Error> {
        let frames = args.number("frames", 0..=u32::MAX)?.unwrap_or(1000);
        args.finish()?; // an argument that nobody asked for is an error
        Ok(Box::new(Count { name: args.name().to_owned(), frames }))
    }
}

struct Count {
    name: String,
    frames: u32,
}

impl Device for Count {
    fn name(&self) -> &str {
        &self.name
    }

    fn info(&self) -> DeviceInfo {
        DeviceInfo::new("net_count", Identity::address_for(&self.name)).mtu(68..=1500)
    }

    fn start(self: Box<Self>, config: &PortConfig, pool: &Pool) -> Result<Port, StartError> {
        let counters = PortCounters::<AnyLoss, AnyLoss>::new(config.rx_queues, config.tx_queues);
        let rx = CountRx { next: 0, end: self.frames, pool: pool.clone(), stats: counters.rx(0) };
        let tx = CountTx { stats: counters.tx(0) };
        let control = LocalControl::new(Identity::new(&self.name, self.info().mac, config.mtu), counters);
        Ok(Port { rx: vec![Box::new(rx)], tx: vec![Box::new(tx)], control: Arc::new(control), running: self })
    }
}

impl Running for Count {
    fn stop(self: Box<Self>, _: Vec<Box<dyn RxQueue>>, _: Vec<Box<dyn TxQueue>>) -> Box<dyn Device> {
        self
    }
}

struct CountRx {
    next: u32,
    end: u32,
    pool: Pool,
    stats: Arc<QueueStats<AnyLoss>>,
}

impl RxQueue for CountRx {
    fn rx_burst(&mut self, packets: &mut Burst) -> usize {
        let (before, mut bytes) = (packets.len(), 0);
        while packets.room() > 0 && self.next < self.end {
            let Some(mut packet) = self.pool.get() else { break };
            let Some(data) = packet.append(60) else { break };
            data.fill(0);
            data[..14].copy_from_slice(&HEADER);
            data[14..18].copy_from_slice(&self.next.to_be_bytes());
            self.next += 1;
            bytes += 60;
            let _ = packets.push(packet); // there is room
        }
        let count = packets.len() - before;
        self.stats.moved(count, bytes);
        count
    }

    fn path(&self) -> &'static str {
        "count"
    }
}

struct CountTx {
    stats: Arc<QueueStats<AnyLoss>>,
}

impl TxQueue for CountTx {
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        let bytes = packets.iter().map(|packet| packet.len() as u64).sum();
        let count = packets.clear();
        self.stats.moved(count, bytes);
        count
    }

    fn path(&self) -> &'static str {
        "free"
    }
}

fn main() -> ExitCode {
    let known = linecard::drivers().with(&CountDriver);
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    linecard_apps::testpmd(&known, &arguments)
}
