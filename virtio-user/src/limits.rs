//! The limits on what a backend may make its port consume, and all backends together the process.

use std::time::{Duration, Instant};

use linecard_wire::rate::{PortRate, Rate, SharedRate};

use crate::log::{PortLog, tell};

/// The lines that may be logged at once, in seconds of the rate.
const LOG_BURST: u32 = 10;
/// The time that may be used at once, in seconds of the rate.
const TIME_BURST: u32 = 2;
/// Microseconds of a thousandth of a core per second.
const THOUSANDTH: u32 = 1000;
/// The longest pause of a port before it checks again whether other ports leave it something.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// The limits on what a backend may make one port consume. A backend has no reason to send descriptors. A
/// connection that exceeds a limit of descriptors ends with an error that names it, and the port connects again
/// once some descriptors are closed. Work that is limited per second is delayed, and the log names the limit.
///
/// ```
/// use linecard_virtio_user::{Limits, VirtioUser};
/// let mut limits = Limits::default();
/// assert_eq!((limits.descriptors, limits.log_lines), (64, 1));
/// limits.descriptors = 16;
/// let driver = VirtioUser::new().with_limits(limits);
/// # drop(driver);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The open descriptors of the backend over all connections: the connection itself, and the descriptors
    /// that it sent until they are closed. Default: 64.
    pub descriptors: u64,
    /// The jobs that may wait for the port's closing thread: descriptors to close, and slow kicks. At the
    /// limit, slow kicks are not sent. Default: 1024.
    pub closings: u32,
    /// The log lines about the backend per second in the long run, and ten times as many at once after a pause.
    /// The next line reports how many were left out. Default: 1.
    pub log_lines: u32,
    /// How often per second the backend may make the port interrupt the threads that poll it (`membarrier`), by
    /// vanishing (2) or by asking for an announcement (1), and as often at once after a pause. At the limit,
    /// the port serves the backend, or connects to the next one, later. Default: 200; 0 counts as 1.
    pub interruptions: u32,
    /// Thousandths of a core that the port's control thread may use in the long run, and at once after a pause as
    /// much as in two seconds. At the limit, the port serves the backend, or connects to the next one, later.
    /// Default: 500; 0 counts as 1.
    pub control_time: u32,
}

impl Limits {
    pub(crate) const fn new() -> Self {
        Self { descriptors: 64, closings: 1024, log_lines: 1, interruptions: 200, control_time: 500 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}

/// The limits on what the backends of all ports of one driver may make the process do. (The total of descriptors
/// is that of [`Descriptors`](crate::Descriptors).)
///
/// Each port is entitled to a share: the limit divided by the number of ports. It may do more as long as the
/// others leave something; see [`linecard_wire::rate`].
///
/// ```
/// use linecard_virtio_user::{ProcessLimits, VirtioUser};
/// let mut limits = ProcessLimits::default();
/// limits.control_time = 100;
/// let driver = VirtioUser::new().with_process_limits(limits);
/// # drop(driver);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessLimits {
    /// Log lines per second in the long run, and ten times as many at once after a pause. Default: 20.
    pub log_lines: u32,
    /// How often per second backends may make ports interrupt the threads that poll them (`membarrier`), and as
    /// often at once after a pause. Default: 4000; 0 counts as 1.
    pub interruptions: u32,
    /// Thousandths of a core that the control threads of all ports may use in the long run, and at once after a
    /// pause as much as in two seconds. Default: 500; 0 counts as 1.
    pub control_time: u32,
}

impl ProcessLimits {
    pub(crate) const fn new() -> Self {
        Self { log_lines: 20, interruptions: 4000, control_time: 500 }
    }
}

impl Default for ProcessLimits {
    fn default() -> Self {
        Self::new()
    }
}

const fn lines(per_second: u32) -> Rate {
    Rate { per_second, burst: per_second.saturating_mul(LOG_BURST) }
}

fn interruptions(per_second: u32) -> Rate {
    Rate { per_second: per_second.max(1), burst: per_second.max(1) }
}

/// A part of a core, in microseconds per second.
fn time(thousandths: u32) -> Rate {
    let per_second = thousandths.max(1).saturating_mul(THOUSANDTH);
    Rate { per_second, burst: per_second.saturating_mul(TIME_BURST) }
}

/// The rates that the ports of a driver share.
#[derive(Debug)]
pub(crate) struct Process {
    lines: SharedRate,
    interruptions: SharedRate,
    time: SharedRate,
}

impl Process {
    pub(crate) fn new(limits: ProcessLimits) -> Self {
        Self {
            lines: SharedRate::new(lines(limits.log_lines)),
            interruptions: SharedRate::new(interruptions(limits.interruptions)),
            time: SharedRate::new(time(limits.control_time)),
        }
    }

    /// Counts another port, until the results are dropped.
    pub(crate) fn port(&self, name: &str, limits: &Limits) -> (PortLog, Pace) {
        let pace = Pace {
            interruptions: self.interruptions.port(interruptions(limits.interruptions)),
            time: self.time.port(time(limits.control_time)),
        };
        (PortLog::new(name, self.lines.port(lines(limits.log_lines))), pace)
    }
}

/// What a port's backend may still make the port's control thread do.
#[derive(Debug)]
pub(crate) struct Pace {
    interruptions: PortRate,
    time: PortRate,
}

impl Pace {
    /// Counts interruptions of polling threads.
    pub(crate) fn interrupted(&self, times: u32) {
        self.interruptions.spend(times);
    }

    /// Counts processor time.
    pub(crate) fn worked(&self, time: Duration) {
        self.time.spend(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
    }

    /// Returns until when nothing may be done for the backend; `None` if it may be now. Logs the limit.
    pub(crate) fn rest(&self, now: Instant, log: &PortLog) -> Option<Instant> {
        if self.time.is_news(now) {
            tell!(log, WARN, "the backend costs so much time that it is served later (control_time)");
        }
        if self.interruptions.is_news(now) {
            tell!(log, WARN, "the backend comes and goes so often that it is served later (interruptions)");
        }
        let wait = self.time.wait(now).max(self.interruptions.wait(now));
        (!wait.is_zero()).then(|| now + wait.min(LONGEST_REST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many ports there are, each of them may go on after a limited time, and they do not use more
    /// together than the process may.
    #[test]
    fn no_share_is_nothing() {
        const STEP: Duration = Duration::from_millis(2);
        for ports in [1000_u32, 4096] {
            let process = Process::new(ProcessLimits::default());
            let all: Vec<_> = (0..ports).map(|_| process.port("port", &Limits::default())).collect();
            let (start, mut used) = (Instant::now(), Duration::ZERO);
            let turns = 100_u32;
            for turn in 0..turns {
                let now = start + Duration::from_secs(1) * turn;
                for (log, pace) in all.iter().skip(1) {
                    while pace.rest(now, log).is_none() {
                        pace.worked(STEP);
                        pace.interrupted(2);
                        used += STEP;
                    }
                }
            }
            // Half a core, two bursts, and a debt of each.
            let most = Duration::from_millis(500) * turns + Duration::from_secs(2) + STEP * ports;
            assert!(used <= most, "{ports} ports used {used:?}");
            let (log, pace) = &all[0];
            let end = start + Duration::from_secs(1) * turns;
            assert_eq!(pace.rest(end, log), None, "{ports} ports");
        }
    }

    #[test]
    fn each_limit_makes_a_port_rest() {
        let limits = Limits { interruptions: 10, control_time: 100, ..Limits::default() };
        let process = Process::new(ProcessLimits::default());
        let now = Instant::now();
        let (log, pace) = process.port("port", &limits);
        pace.interrupted(12);
        let rest = pace.rest(now, &log).expect("a debt") - now;
        assert!((Duration::from_millis(200)..Duration::from_millis(210)).contains(&rest), "{rest:?}");
        let (log, pace) = process.port("port", &limits);
        pace.worked(Duration::from_millis(250));
        let rest = pace.rest(now, &log).expect("a debt") - now;
        assert!((Duration::from_millis(500)..Duration::from_millis(510)).contains(&rest), "{rest:?}");
        pace.worked(Duration::from_secs(100));
        assert_eq!(pace.rest(now, &log), Some(now + LONGEST_REST));
        let none = Limits { log_lines: 0, interruptions: 0, control_time: 0, ..Limits::default() };
        let (log, pace) = process.port("port", &none);
        assert!(!log.allows(now));
        assert_eq!(pace.rest(now, &log), None, "never nothing");
    }
}
