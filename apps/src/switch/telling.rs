//! The counters of a switch for other programs: telemetry on a socket, and OpenMetrics for Prometheus.

use std::sync::Arc;
use std::time::{Duration, Instant};

use linecard::eal::Eal;
use linecard::telemetry::{Endpoint, Socket, Telemetry, openmetrics};
use linecard_switch::{Switch, TelemetryFeed, metrics};

use super::PREFIX;
use super::args::SwitchArgs;
use crate::error::Error;

/// How long a predecessor may take to end and release addresses that its successor needs.
const LETTING_GO: Duration = Duration::from_secs(10);
/// The interval of checks whether it has.
const LOOK: Duration = Duration::from_millis(20);

/// The telemetry and metrics servers of a switch.
pub(super) struct Telling {
    telemetry: Telemetry,
    feed: TelemetryFeed,
    /// The predecessor, which has the name of the telemetry socket until it ends, and how long to wait for
    /// that.
    before: Option<(u32, Instant)>,
    wanted: bool,
    socket: Option<Socket>,
    metrics: Option<Endpoint>,
}

impl Telling {
    /// Starts the servers; a successor waits until `predecessor` has released their addresses.
    ///
    /// # Errors
    /// The address for counters cannot be used. A failure of the telemetry socket is only logged.
    pub(super) fn start(
        (args, eal): (&SwitchArgs, &Eal),
        address: Option<&str>,
        switch: &Arc<Switch>,
        predecessor: Option<u32>,
    ) -> Result<Self, Error> {
        let telemetry = Telemetry::new(eal);
        telemetry.add_pool(switch.pool());
        let before = predecessor.map(|pid| (pid, Instant::now() + LETTING_GO));
        let counters = address.map(|address| offer(address, &telemetry, switch, before)).transpose()?;
        let feed = TelemetryFeed::new(telemetry.clone());
        let wanted = !args.no_telemetry;
        let mut telling = Self { telemetry, feed, before, wanted, socket: None, metrics: counters.flatten() };
        telling.look(switch);
        Ok(telling)
    }

    /// Returns the address at which Prometheus is served.
    pub(super) fn metrics(&self) -> Option<&str> {
        self.metrics.as_ref().map(Endpoint::address)
    }

    /// Updates the ports; to be called about ten times a second.
    pub(super) fn look(&mut self, switch: &Switch) {
        self.feed.look(switch);
        if self.wanted && self.before.is_none_or(|before| !holds(before)) {
            self.wanted = false;
            let made = self.telemetry.serve(PREFIX);
            self.socket = made.inspect_err(|error| tracing::info!("no telemetry from outside: {error}")).ok();
        }
    }
}

/// Returns whether a predecessor still has its addresses.
fn holds((pid, until): (u32, Instant)) -> bool {
    // A process that has ended and was not reaped has no program any more.
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok() && Instant::now() < until
}

/// Serves counters at `address`.
fn offer(
    address: &str,
    telemetry: &Telemetry,
    switch: &Arc<Switch>,
    before: Option<(u32, Instant)>,
) -> Result<Option<Endpoint>, Error> {
    loop {
        let (telemetry, switch) = (telemetry.clone(), Arc::clone(switch));
        let counters = move || {
            let own = metrics::text(&switch.stats(), env!("CARGO_PKG_VERSION"));
            // Both texts as one, with one end mark.
            own.trim_end_matches("# EOF\n").to_owned() + &telemetry.open_metrics()
        };
        match (openmetrics::serve(address, counters), before) {
            (Ok(endpoint), _) => return Ok(Some(endpoint)),
            (Err(error), None) => return Err(error.into()),
            (Err(error), Some((_, until))) if Instant::now() > until => {
                tracing::error!("{error}");
                return Ok(None);
            }
            (Err(_), Some(_)) => std::thread::sleep(LOOK),
        }
    }
}
