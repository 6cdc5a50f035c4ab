//! The driver `net_virtio_user`: from arguments to a device.

use std::sync::{Arc, OnceLock};

use linecard_eal::helper::{Executor, Job};
use linecard_eal::notifier::SignalBudget;
use linecard_pmd::{DevArgs, Device, Driver, Error as PmdError, ProbeContext};
use linecard_wire::Closer;
use linecard_wire::ledger::{Charge, Descriptors};

use crate::args::{NAME, Options, SUMMARY, parse};
use crate::backend::Connect;
use crate::device::{VirtioDevice, system};
use crate::limits::{Limits, Pace, Process, ProcessLimits};
use crate::log::PortLog;
use crate::thread::short_name;

/// The descriptors of a port besides those of its rings: its threads, its listening socket, its rings'
/// memory.
const OWN_DESCRIPTORS: u64 = 3;
/// Eventfds of a queue pair.
const PAIR_DESCRIPTORS: u64 = 4;

/// The driver `net_virtio_user`.
///
/// One value serves any number of ports. Each port has its own control thread while it exists. The
/// descriptors that their backends send are charged to one total, which may be [shared](Self::sharing) with
/// other drivers.
///
/// ```
/// use linecard_pmd::Driver;
/// let driver = linecard_virtio_user::VirtioUser::new();
/// assert_eq!(driver.name(), "net_virtio_user");
/// assert!(driver.summary().contains("path=SOCKET"));
/// ```
#[derive(Debug, Default)]
pub struct VirtioUser {
    /// The descriptors that backends sent and that are not closed yet.
    descriptors: Descriptors,
    /// A total shared with other drivers; if present, it replaces `descriptors`.
    shared: Option<&'static Descriptors>,
    limits: Limits,
    process_limits: ProcessLimits,
    /// The rates that the ports share.
    process: OnceLock<Process>,
}

impl VirtioUser {
    /// Creates a driver without devices.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            descriptors: Descriptors::new(),
            shared: None,
            limits: Limits::new(),
            process_limits: ProcessLimits::new(),
            process: OnceLock::new(),
        }
    }

    /// Creates a driver without devices that charges descriptors from peers to a total shared with other
    /// drivers.
    ///
    /// ```
    /// use linecard_virtio_user::{Descriptors, VirtioUser};
    /// static DESCRIPTORS: Descriptors = Descriptors::new();
    /// static VIRTIO_USER: VirtioUser = VirtioUser::sharing(&DESCRIPTORS);
    /// ```
    #[must_use]
    pub const fn sharing(descriptors: &'static Descriptors) -> Self {
        let mut driver = Self::new();
        driver.shared = Some(descriptors);
        driver
    }

    /// Replaces the limits of each port.
    #[must_use]
    pub const fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Replaces the limits of all ports together. They are fixed when the first port is opened.
    #[must_use]
    pub const fn with_process_limits(mut self, limits: ProcessLimits) -> Self {
        self.process_limits = limits;
        self
    }

    /// Creates the thread that closes the descriptors which the backends of the port `name` send, and the
    /// charge for the port's own descriptors. The port has `pairs` queue pairs now, and at most `most_pairs`
    /// once its device is known. The transport takes `pair` descriptors for each pair.
    fn closer(
        &self,
        name: &str,
        (pairs, most_pairs): (u16, u16),
        pair: u64,
    ) -> Result<(Closer, Own), PmdError> {
        let each = PAIR_DESCRIPTORS + pair;
        let all = |pairs: u16| OWN_DESCRIPTORS + each * u64::from(pairs);
        let left = self.limits.descriptors;
        let resource = self.shared.unwrap_or(&self.descriptors).resource();
        let account = resource.account(left.saturating_add(all(most_pairs)));
        let closer = Closer::new(&short_name(name), account);
        let closer = closer.map_err(|source| system(name, "starting a closing thread", source))?;
        let mut own = Own { closer: closer.clone(), charges: Vec::new(), pairs, each, left };
        own.charge(all(pairs));
        Ok((closer, own))
    }
}

/// A port's own descriptors, charged to the same account as those of its backend.
#[derive(Debug)]
pub(crate) struct Own {
    closer: Closer,
    charges: Vec<Charge>,
    /// The number of charged queue pairs, and the descriptors of each.
    pairs: u16,
    each: u64,
    /// The descriptors that remain for the backend in any case.
    left: u64,
}

impl Own {
    /// Charges the descriptors of `pairs` queue pairs, with which the port is started.
    pub(crate) fn cover(&mut self, pairs: u16) {
        let more = pairs.saturating_sub(self.pairs);
        self.pairs = self.pairs.max(pairs);
        if more > 0 {
            self.charge(self.each * u64::from(more));
        }
    }

    /// Charges `count` descriptors, or fewer if less room remains for the backend. A shortage is not an
    /// error: the port was requested by the operator of this process.
    fn charge(&mut self, count: u64) {
        let account = self.closer.descriptors();
        self.charges.extend(account.charge_up_to(count.min(account.room().saturating_sub(self.left))));
    }
}

impl Driver for VirtioUser {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        SUMMARY
    }

    fn check_args(&self, args: &DevArgs) -> Result<(), PmdError> {
        parse(args).map(drop)
    }

    fn probe(&self, context: &ProbeContext, args: &DevArgs) -> Result<Box<dyn Device>, PmdError> {
        let (options, transport) = parse(args)?;
        let pairs = (options.queues, options.queues);
        let (closer, own) = self.closer(&options.name, pairs, transport.pair_descriptors())?;
        let connect = transport.open(closer.clone()).map_err(|error| error.of_port(&options.name))?;
        self.device(context, options, connect, (closer, own))
    }
}

impl VirtioUser {
    /// Opens a port over the device that `connect` finds, instead of one at a `path`. Only the arguments
    /// about the device itself apply: `queues`, `queue_size`, `rx_queue_size`, `tx_queue_size`, `mac`,
    /// `mrg_rxbuf`, `in_order`, `packed_vq`, `event_idx`, `speed`.
    ///
    /// # Errors
    /// Unknown or wrong arguments; an error of `connect`; the limits of this process.
    pub fn probe_over(
        &self,
        context: &ProbeContext,
        args: &DevArgs,
        connect: Arc<dyn Connect>,
    ) -> Result<Box<dyn Device>, PmdError> {
        let options = Options::parse(args)?;
        args.finish()?;
        let pairs = options.queues;
        self.probe_options(context, options, pairs, connect)
    }

    /// The same with options that are already parsed. Descriptors are counted for `pairs` queue pairs until
    /// the number that the port uses is known.
    pub(crate) fn probe_options(
        &self,
        context: &ProbeContext,
        options: Options,
        pairs: u16,
        connect: Arc<dyn Connect>,
    ) -> Result<Box<dyn Device>, PmdError> {
        let closing = self.closer(&options.name, (pairs, options.queues), 0)?;
        self.device(context, options, connect, closing)
    }

    fn device(
        &self,
        context: &ProbeContext,
        options: Options,
        connect: Arc<dyn Connect>,
        (closer, own): (Closer, Own),
    ) -> Result<Box<dyn Device>, PmdError> {
        let slow_signals = SlowSignals { closer, most: self.limits.closings as usize };
        let signal_budget = Arc::new(SignalBudget::new(Arc::new(slow_signals)));
        let process = self.process.get_or_init(|| Process::new(self.process_limits));
        let (log, pace) = process.port(&options.name, &self.limits);
        let ledger = Ledger { own, signal_budget, pace: Arc::new(pace), log: Arc::new(log) };
        VirtioDevice::open(context, options, connect, ledger)
    }
}

/// What a port's backend may make the port consume.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// The port's own descriptors, which are already charged.
    pub(crate) own: Own,
    /// The time that kicks may cost the threads which poll the port.
    pub(crate) signal_budget: Arc<SignalBudget>,
    pub(crate) pace: Arc<Pace>,
    pub(crate) log: Arc<PortLog>,
}

/// Runs slow signals on the closing thread, which may wait for this backend and for no other.
#[derive(Debug)]
struct SlowSignals {
    closer: Closer,
    /// The number of waiting jobs at which another one is refused.
    most: usize,
}

impl Executor for SlowSignals {
    fn prepare(&self) -> bool {
        true
    }

    fn run(&self, job: Job) -> bool {
        let room = self.closer.waiting() < self.most;
        if room {
            self.closer.run(job);
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device may have more queue pairs than was known when it was opened: they are charged when they are used.
    #[test]
    fn descriptors_are_charged_for_the_pairs_that_are_used() {
        let total: &'static Descriptors = Box::leak(Box::new(Descriptors::of(100_000)));
        let driver = VirtioUser::sharing(total);
        let (closer, mut own) = driver.closer("many", (1, 128), 0).expect("a thread");
        let used = || total.resource().used();
        assert_eq!(used(), 3 + 4);
        for (pairs, want) in [(1, 1), (8, 8), (4, 8), (128, 128)] {
            own.cover(pairs);
            assert_eq!(used(), 3 + 4 * want, "{pairs} pairs");
        }
        drop((closer, own));
        assert_eq!(used(), 0);
    }
}
