//! Telemetry of a run: answers clients of the telemetry socket, and Prometheus.

use std::ffi::OsString;
use std::sync::{Arc, Mutex, PoisonError};

use linecard::eal::clock::cycles;
use linecard::eal::{Eal, EalArgs, runtime};
use linecard::mempool::Pool;
use linecard::telemetry::{Drops, Endpoint, LcoreUsage, PortEntry, Socket, Telemetry};

use super::counters::LaneCounters;
use super::engine::Forwarding;
use super::options::Options;
use super::topology::Stream;
use crate::error::Error;

/// The streams that forward now; telemetry threads read their counters while the polling threads count.
#[derive(Default)]
struct Running {
    lanes: Vec<(Stream, u32, Arc<LaneCounters>)>,
    /// The start of forwarding in cycles; `None` if busy cycles are not counted.
    since: Option<u64>,
}

impl Running {
    fn drops(&self) -> Vec<Drops> {
        let of = |(stream, _, counters): &(Stream, u32, Arc<LaneCounters>)| Drops {
            port: stream.tx_port,
            queue: stream.tx_queue,
            cause: "tx_full",
            packets: counters.totals().tx_dropped,
        };
        self.lanes.iter().map(of).collect()
    }

    fn usages(&self) -> Vec<LcoreUsage> {
        let Some(since) = self.since else { return Vec::new() };
        let total_cycles = cycles().wrapping_sub(since);
        let mut usages: Vec<LcoreUsage> = Vec::new();
        for (_, lcore, counters) in &self.lanes {
            let busy_cycles = counters.busy_cycles();
            match usages.iter_mut().find(|usage| usage.lcore == *lcore) {
                Some(usage) => usage.busy_cycles += busy_cycles,
                None => usages.push(LcoreUsage { lcore: *lcore, busy_cycles, total_cycles }),
            }
        }
        usages
    }
}

/// The telemetry of a run.
pub(crate) struct Telling {
    telemetry: Telemetry,
    running: Arc<Mutex<Running>>,
    socket: Option<Socket>,
    metrics: Option<Endpoint>,
}

impl Telling {
    /// Starts the services that the arguments request.
    ///
    /// # Errors
    /// The address of `--metrics` cannot be used. If the telemetry socket cannot be created, forwarding works
    /// without it.
    pub(crate) fn start(
        eal: &Eal,
        pool: &Pool,
        eal_args: &EalArgs,
        options: &Options,
        arguments: &[OsString],
    ) -> Result<Self, Error> {
        let telemetry = Telemetry::new(eal);
        telemetry.add_pool(pool);
        let words = |all: &[OsString]| all.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let at = arguments.iter().position(|word| word == "--").unwrap_or(arguments.len());
        let (own, app) = (arguments.get(..at), arguments.get(at + 1..));
        let own: Vec<String> = words(own.unwrap_or_default());
        let program = std::iter::once("testpmd".to_owned());
        telemetry.set_arguments(program.chain(own).collect(), words(app.unwrap_or_default()));
        let running = Arc::new(Mutex::new(Running::default()));
        let (of_drops, of_usages) = (Arc::clone(&running), Arc::clone(&running));
        telemetry.set_drops(move || look(&of_drops, Running::drops));
        telemetry.set_lcore_usage(move || look(&of_usages, Running::usages));
        let prefix = eal_args.file_prefix.as_deref().unwrap_or(runtime::DEFAULT_PREFIX);
        let socket = eal_args.wants_telemetry().then(|| telemetry.serve(prefix));
        let socket = socket.and_then(|made| {
            made.inspect_err(|error| tracing::info!("no telemetry from outside: {error}")).ok()
        });
        let metrics =
            options.metrics.as_deref().map(|address| telemetry.serve_metrics(address)).transpose()?;
        Ok(Self { telemetry, running, socket, metrics })
    }

    /// The address of the Prometheus exporter.
    pub(crate) fn metrics(&self) -> Option<&str> {
        self.metrics.as_ref().map(Endpoint::address)
    }

    /// Sets the current ports.
    pub(crate) fn ports(&self, ports: impl Iterator<Item = (u16, PortEntry)>) {
        self.telemetry.set_ports(ports);
    }

    /// Sets the current forwarding, if any.
    pub(crate) fn forwarding(&self, forwarding: Option<&Forwarding>, records_cycles: bool) {
        let lanes = forwarding.map_or(Vec::new(), |forwarding| {
            let lanes = forwarding.lanes().into_iter().zip(forwarding.lcores());
            lanes.map(|((stream, counters), lcore)| (stream, *lcore, counters)).collect()
        });
        let since = (records_cycles && !lanes.is_empty()).then(cycles);
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Running { lanes, since };
    }

    /// Closes the socket and the exporter.
    pub(crate) fn end(&mut self) {
        self.socket = None;
        self.metrics = None;
    }
}

fn look<T>(running: &Mutex<Running>, at: impl Fn(&Running) -> T) -> T {
    at(&running.lock().unwrap_or_else(PoisonError::into_inner))
}
